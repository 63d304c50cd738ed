//! References of the ops of text encoders against cases worked by hand.

use auscult_kernels::{
    DType, HostSlot, Plan, ShapeError, TensorDesc,
    ops::{attention_masked::AttentionMasked, gated_gelu::GatedGelu, rms_norm::RmsNorm},
};
use bytemuck::{Pod, cast_slice, cast_slice_mut};
use half::{bf16, f16};

/// Runs the reference of a plan; `inputs` in binding order, empty where a slot is left out.
fn run<T: Pod>(plan: Result<Plan, ShapeError>, inputs: &[&[u8]]) -> Vec<T> {
    let plan = plan.expect("shapes fit");
    let (_, desc) = plan.outputs().next().expect("one output");
    let mut y = vec![T::zeroed(); desc.elements()];
    let mut slots: Vec<HostSlot<'_>> = inputs.iter().map(|bytes| HostSlot::Read(bytes)).collect();
    slots.push(HostSlot::Write(cast_slice_mut(&mut y)));
    (plan.kernel.reference)(&plan.params, &mut slots);
    y
}

fn bytes<T: Pod>(values: &[T]) -> &[u8] {
    cast_slice(values)
}

/// A slot that is not there: no bytes, at an address aligned for every type.
fn left_out() -> &'static [u8] {
    bytes::<u64>(&[])
}

#[test]
fn rms_norm_divides_by_the_root_of_the_mean_square() {
    // mean squares 9 + 7 = 16 and 0 + 7 with eps 7: roots 4 and sqrt 7
    let (x, gamma) = (TensorDesc::f32([2, 3]), TensorDesc::f32([3]));
    let plan = RmsNorm { eps: 7.0 }.plan(&x, &gamma);
    let y: Vec<f32> = run(plan, &[bytes(&[3.0_f32, -3.0, 3.0, 0.0, 0.0, 0.0]), bytes(&[2.0_f32, 4.0, -8.0])]);
    assert_eq!(y, [1.5, -3.0, -6.0, 0.0, 0.0, 0.0]);
    // no mean is taken off: a constant row stays
    let plan = RmsNorm { eps: 1e-30 }.plan(&TensorDesc::f32([1, 3]), &gamma);
    let y: Vec<f32> = run(plan, &[bytes(&[5.0_f32; 3]), bytes(&[1.0_f32, 2.0, 3.0])]);
    assert_eq!(y, [1.0, 2.0, 3.0]);
}

#[test]
fn gated_gelu_is_the_tanh_form() {
    // gelu_new(1) = 0.5 (1 + tanh(0.7978845608 * 1.044715)) = 0.5 (1 + tanh(0.8335619680)) = 0.8411919906;
    // the exact GELU is 0.8413447461 there. gelu_new(x) - gelu_new(-x) = x.
    let a = TensorDesc::f32([5]);
    let gates = [1.0_f32, -1.0, 0.0, 30.0, -30.0];
    let y: Vec<f32> = run(GatedGelu.plan(&a, &a), &[bytes(&gates), bytes(&[10.0_f32, 10.0, 7.0, -2.0, 5.0])]);
    let wanted = [8.411_92_f32, -1.588_08, 0.0, -60.0, 0.0];
    for (got, want) in y.iter().zip(wanted) {
        assert!((got - want).abs() < 1e-6, "{got}, want {want}");
    }
}

/// Two sequences of one query, two heads of one column and three keys, the first sequence with two keys.
fn attention<T: Pod>(
    values: DType,
    narrow: fn(f32) -> T,
    lengths: [u32; 2],
    bias: Option<[f32; 6]>,
) -> Vec<T> {
    let (ln2, ln3) = (std::f32::consts::LN_2, 3.0_f32.ln());
    // scores are the keys halved where q is 1, and 0 where it is 0
    let q = [1.0, 0.0, 1.0, 1.0].map(narrow);
    let k = [0.0, 5.0, 2.0 * ln3, 6.0, 9.0, 9.0, 0.0, 0.0, 2.0 * ln2, 0.0, 0.0, 2.0 * ln2].map(narrow);
    let v = [4.0, 2.0, 8.0, 6.0, 9.0, 9.0, 4.0, 8.0, 8.0, 4.0, 0.0, 0.0].map(narrow);
    let (q_desc, k_desc) = (TensorDesc::new(values, [2, 1, 2]), TensorDesc::new(values, [2, 3, 2]));
    let bias_desc = TensorDesc::f32([2, 1, 3]);
    let plan = AttentionMasked { heads: 2, scale: 0.5 }.plan(
        &q_desc,
        &k_desc,
        &k_desc,
        &TensorDesc::u32([2]),
        bias.map(|_| &bias_desc),
    );
    let bias = bias.as_ref().map_or(left_out(), |values| bytes(values));
    run(plan, &[bytes(&q), bytes(&k), bytes(&v), bytes(&lengths), bias])
}

fn near(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() < 1e-6, "{got}, want {want}");
    }
}

#[test]
fn attention_weighs_the_keys_below_the_length() {
    // sequence 0: head 0 weights 1 : 3 of 4 and 8; head 1 (q = 0) equal weights of 2 and 6.
    // sequence 1: head 0 weights 1 : 2 : 1 of 4, 8 and 0; head 1 weights 1 : 1 : 2 of 8, 4 and 0.
    near(&attention(DType::F32, |v| v, [2, 3], None), &[7.0, 4.0, 5.0, 3.0]);
    // a length past the keys is all of them; no key gives 0
    near(&attention(DType::F32, |v| v, [0, 100], None), &[0.0, 0.0, 5.0, 3.0]);
    // one key: a copy
    near(&attention(DType::F32, |v| v, [1, 1], None), &[4.0, 2.0, 4.0, 8.0]);
}

#[test]
fn attention_adds_the_bias_of_head_query_and_key_after_the_scale() {
    let ln3 = 3.0_f32.ln();
    // head 0: ln 3 on key 0 makes 1 : 3 into 3 : 3, and 1 : 2 : 1 into 3 : 2 : 1; head 1: ln 3 on key 1 makes 1 : 1 into
    // 1 : 3, and 1 : 1 : 2 into 1 : 3 : 2
    let bias = [ln3, 0.0, 0.0, 0.0, ln3, 0.0];
    let wanted = [6.0, 5.0, 28.0 / 6.0, 20.0 / 6.0];
    near(&attention(DType::F32, |v| v, [2, 3], Some(bias)), &wanted);
}

#[test]
fn attention_rounds_half_precision_once() {
    let wide: Vec<f32> =
        attention(DType::F16, f16::from_f32, [2, 3], None).iter().map(|v| v.to_f32()).collect();
    // ln 2 and ln 3 are rounded to f16, results near 7, 4, 5 and 3 to one of its values, 2^-8 apart there
    for (got, want) in wide.iter().zip([7.0, 4.0, 5.0, 3.0]) {
        assert!((got - want).abs() <= 2.0_f32.powi(-8), "{got}, want {want}");
    }
    let wide: Vec<f32> =
        attention(DType::BF16, bf16::from_f32, [2, 3], None).iter().map(|v| v.to_f32()).collect();
    for (got, want) in wide.iter().zip([7.0, 4.0, 5.0, 3.0]) {
        assert!((got - want).abs() <= 2.0_f32.powi(-5), "{got}, want {want}");
    }
}
