//! References against cases worked by hand: an oracle is not its own judge.

use auscult_kernels::{
    DType, HostSlot, Plan, ShapeError, TensorDesc,
    ops::{
        add::Add,
        attention::{Attention, Mask},
        capture::Capture,
        delay_apply::{DelayApply, Steps},
        delay_revert::DelayRevert,
        embed_sum::EmbedSum,
        fill::Fill,
        layer_norm::LayerNorm,
        linear::{Activation, Linear},
        linear_half::LinearHalf,
        linear_half_capture::LinearHalfCapture,
        scale::Scale,
    },
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

fn f32s<const N: usize>(shape: [usize; N]) -> TensorDesc {
    TensorDesc::f32(shape)
}

#[test]
fn layer_norm_of_a_short_row() {
    // mean 2, variance 1: -1 and 1, then times (2, 10) plus (0.5, 0.25)
    let row = f32s([2]);
    let plan = LayerNorm { eps: 1e-12, out: DType::F32 }.plan(&f32s([1, 2]), &row, &row);
    let y: Vec<f32> = run(plan, &[bytes(&[1.0_f32, 3.0]), bytes(&[2.0_f32, 10.0]), bytes(&[0.5_f32, 0.25])]);
    assert_eq!(y, [-1.5, 10.25]);
}

#[test]
fn layer_norm_rounds_halves_to_nearest_even() {
    // -1 and 1 times gamma: 1 + 2^-11 and 1 + 3 * 2^-11 lie half way between two f16, 1 + 2^-8 and 1 + 3 * 2^-8 between
    // two bf16
    let row = f32s([2]);
    let plan = |out| LayerNorm { eps: 1e-30, out }.plan(&f32s([1, 2]), &row, &row);
    let gamma = |bits: i32| [1.0 + 2.0_f32.powi(bits), 1.0 + 3.0 * 2.0_f32.powi(bits)];
    let x = [1.0_f32, 3.0];
    let y: Vec<u16> = run(plan(DType::F16), &[bytes(&x), bytes(&gamma(-11)), bytes(&[0.0_f32; 2])]);
    assert_eq!(y, [0xbc00, 0x3c02]);
    let y: Vec<u16> = run(plan(DType::BF16), &[bytes(&x), bytes(&gamma(-8)), bytes(&[0.0_f32; 2])]);
    assert_eq!(y, [0xbf80, 0x3f82]);
}

/// x = [[1, 2], [3, -4]], weight = [[1, 0.5], [-1, 1], [0, 2]]: products [[2, 1, 4], [1, -7, -8]].
fn linear(
    activation: Activation,
    weight: DType,
    bias: Option<&[f32; 3]>,
    residual: Option<&[f32; 6]>,
) -> Vec<f32> {
    let w = [1.0_f32, 0.5, -1.0, 1.0, 0.0, 2.0];
    let (half, brain) = (w.map(f16::from_f32), w.map(bf16::from_f32));
    let w = match weight {
        DType::F16 => bytes(&half),
        DType::BF16 => bytes(&brain),
        _ => bytes(&w),
    };
    let plan = Linear { activation }.plan(
        &f32s([2, 2]),
        &TensorDesc::new(weight, [3, 2]),
        bias.map(|_| f32s([3])).as_ref(),
        residual.map(|_| f32s([2, 3])).as_ref(),
    );
    let x = [1.0_f32, 2.0, 3.0, -4.0];
    run(
        plan,
        &[bytes(&x), w, bias.map_or(left_out(), |v| bytes(v)), residual.map_or(left_out(), |v| bytes(v))],
    )
}

#[test]
fn linear_multiplies_by_the_rows_of_the_weight() {
    for weight in [DType::F32, DType::F16, DType::BF16] {
        assert_eq!(
            linear(Activation::None, weight, None, None),
            [2.0, 1.0, 4.0, 1.0, -7.0, -8.0],
            "{weight}"
        );
    }
}

#[test]
fn linear_adds_the_bias_before_and_the_residual_after_the_activation() {
    let bias = [0.5, 7.5, -4.0];
    let residual = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0];
    let y = linear(Activation::Relu, DType::F32, Some(&bias), Some(&residual));
    // relu of [[2.5, 8.5, 0], [1.5, 0.5, -12]]
    assert_eq!(y, [12.5, 28.5, 30.0, 41.5, 50.5, 60.0]);
}

#[test]
fn linear_activations_at_known_points() {
    // erf(1.4142135 / 1.4142135) = erf(1) = 0.8427007929: gelu(sqrt 2) = sqrt 2 * 0.92135039647
    let bias = [std::f32::consts::SQRT_2 - 2.0, -1.0, -3.0];
    let y = linear(Activation::Gelu, DType::F32, Some(&bias), None);
    // gelu(0) = 0; gelu(1) = 0.8413447461 (the normal distribution at 1)
    let wanted = [1.302_986_2_f32, 0.0, 0.841_344_7];
    for (got, want) in y.iter().zip(wanted) {
        assert!((got - want).abs() < 2e-7, "{got}, want {want}");
    }
    let y = linear(Activation::Elu, DType::F32, Some(&[-2.0, -2.0, 1.0]), None);
    // [[0, -1, 5], [-1, -9, -7]]: e^-1 - 1 = -0.63212056, e^-9 - 1 = -0.99987659, e^-7 - 1 = -0.99908812
    let wanted = [0.0, -0.632_120_56_f32, 5.0, -0.632_120_56, -0.999_876_6, -0.999_088_1];
    for (got, want) in y.iter().zip(wanted) {
        assert!((got - want).abs() < 1e-7, "{got}, want {want}");
    }
}

/// Plans of ReLU from x, weight, bias and residual.
type HalfPlan<'a> = &'a dyn Fn([&TensorDesc; 2], [&TensorDesc; 2]) -> Result<Plan, ShapeError>;

/// The products of [`linear`] in half precision, with a bias of half a unit that is lost where y is rounded to `out`.
fn linear_half<T: Pod>(half: DType, out: DType) -> Vec<T> {
    let plan = |[x, weight]: [&TensorDesc; 2], [bias, residual]: [&TensorDesc; 2]| {
        LinearHalf { activation: Activation::Relu, out }.plan(x, weight, Some(bias), Some(residual))
    };
    half_products(half, &plan, |plan, inputs| run(Ok(plan), inputs))
}

fn half_products<R>(half: DType, plan: HalfPlan<'_>, run: impl FnOnce(Plan, &[&[u8]]) -> R) -> R {
    let (x, w) = ([1.0_f32, 2.0, 3.0, -4.0], [1.0_f32, 0.5, -1.0, 1.0, 0.0, 2.0]);
    let words = |values: &[f32]| -> Vec<u16> {
        let narrow = |&v: &f32| match half {
            DType::F16 => f16::from_f32(v).to_bits(),
            _ => bf16::from_f32(v).to_bits(),
        };
        values.iter().map(narrow).collect()
    };
    let factors = [&TensorDesc::new(half, [2, 2]), &TensorDesc::new(half, [3, 2])];
    let plan = plan(factors, [&f32s([3]), &f32s([2, 3])]).expect("shapes fit");
    let (x, w) = (words(&x), words(&w));
    // relu of [[2.5, 1, 4], [1.5, -7, -8]]
    let residual = [2048.0_f32, 2048.0, 2049.0, 256.0, 1.0, 2.0];
    run(plan, &[bytes(&x), bytes(&w), bytes(&[0.5_f32, 0.0, 0.0]), bytes(&residual)])
}

#[test]
fn linear_half_is_linear_with_one_rounding_at_the_end() {
    let exact = [2050.5_f32, 2049.0, 2053.0, 257.5, 1.0, 2.0];
    assert_eq!(linear_half::<f32>(DType::F16, DType::F32), exact);
    assert_eq!(linear_half::<f32>(DType::BF16, DType::F32), exact);
    // f16 has even numbers only from 2048, ties to the multiple of 4
    let y: Vec<f16> = linear_half(DType::F16, DType::F16);
    assert_eq!(y, [2050.0, 2048.0, 2052.0, 257.5, 1.0, 2.0].map(f16::from_f32));
    // bf16 has multiples of 16 from 2048, of 2 from 256
    let y: Vec<bf16> = linear_half(DType::BF16, DType::BF16);
    assert_eq!(y, [2048.0, 2048.0, 2048.0, 258.0, 1.0, 2.0].map(bf16::from_f32));
}

#[test]
fn linear_half_capture_keeps_what_linear_half_makes_and_rounds_it() {
    let plan = |[x, weight]: [&TensorDesc; 2], [bias, residual]: [&TensorDesc; 2]| {
        LinearHalfCapture { activation: Activation::Relu }.plan(x, weight, Some(bias), Some(residual))
    };
    let both = |half| {
        half_products(half, &plan, |plan, inputs| {
            let (mut y, mut kept) = ([f32::NAN; 6], [u16::MAX; 6]);
            let mut slots: Vec<HostSlot<'_>> = inputs.iter().map(|bytes| HostSlot::Read(bytes)).collect();
            slots.push(HostSlot::Write(cast_slice_mut(&mut y)));
            slots.push(HostSlot::Write(cast_slice_mut(&mut kept)));
            (plan.kernel.reference)(&plan.params, &mut slots);
            (y, kept)
        })
    };
    let exact = [2050.5_f32, 2049.0, 2053.0, 257.5, 1.0, 2.0];
    let f16s = [2050.0, 2048.0, 2052.0, 257.5, 1.0, 2.0].map(|v| f16::from_f32(v).to_bits());
    assert_eq!(both(DType::F16), (exact, f16s));
    let bf16s = [2048.0, 2048.0, 2048.0, 258.0, 1.0, 2.0].map(|v| bf16::from_f32(v).to_bits());
    assert_eq!(both(DType::BF16), (exact, bf16s));
}

#[test]
fn embed_sum_adds_codebooks_base_and_positions() {
    // two codebooks of two entries, one column: table rows 1, 2 and 10, 20; id 7 is past the last entry
    let ids = [0_u32, 1, 1, 0, 7, 0, 0, 0];
    let table = [1.0_f32, 2.0, 10.0, 20.0];
    let base = [100.0_f32, 200.0, 300.0, 400.0];
    let positions = [1000.0_f32, 2000.0, 4000.0];
    let (ids_desc, table_desc) = (TensorDesc::u32([4, 2]), f32s([4, 1]));
    let plan = EmbedSum { steps: 2, entries: 2, first_codebook: 0 }.plan(
        &ids_desc,
        &table_desc,
        Some(&f32s([4, 1])),
        Some(&f32s([3, 1])),
        None,
    );
    let y: Vec<f32> = run(plan, &[bytes(&ids), bytes(&table), bytes(&base), bytes(&positions), left_out()]);
    assert_eq!(y, [1121.0, 2212.0, 1312.0, 2411.0]);
    // every row names its position; 3 is past the last
    let plan = EmbedSum { steps: 2, entries: 2, first_codebook: 0 }.plan(
        &ids_desc,
        &table_desc,
        None,
        Some(&f32s([3, 1])),
        Some(&TensorDesc::u32([4])),
    );
    let at = [2_u32, 0, 3, 1];
    let y: Vec<f32> = run(plan, &[bytes(&ids), bytes(&table), left_out(), bytes(&positions), bytes(&at)]);
    assert_eq!(y, [4021.0, 1012.0, 4012.0, 2011.0]);
    let plan =
        EmbedSum { steps: 1, entries: 2, first_codebook: 0 }.plan(&ids_desc, &table_desc, None, None, None);
    let y: Vec<f32> = run(plan, &[bytes(&ids), bytes(&table), left_out(), left_out(), left_out()]);
    assert_eq!(y, [21.0, 12.0, 12.0, 11.0]);
    // the second codebook's table by itself reads the second column of ids
    let plan =
        EmbedSum { steps: 1, entries: 2, first_codebook: 1 }.plan(&ids_desc, &f32s([2, 1]), None, None, None);
    let y: Vec<f32> = run(plan, &[bytes(&ids), bytes(&table[2..]), left_out(), left_out(), left_out()]);
    assert_eq!(y, [20.0, 10.0, 10.0, 10.0]);
}

#[test]
fn embed_sum_widens_tables_of_two_bytes() {
    // two codebooks of two entries, two columns: a signed zero and a subnormal stay what they are
    let least = 2.0_f32.powi(-24);
    let ids = [0_u32, 1, 1, 0, 0, 0];
    let values = [1.5_f32, -0.0, least, -3.25, least, -0.0, 0.5, 65_280.0];
    let want = [2.0_f32, 65_280.0, 2.0 * least, -3.25, 1.5, -0.0].map(f32::to_bits);
    let op = EmbedSum { steps: 3, entries: 2, first_codebook: 0 };
    let ids_desc = TensorDesc::u32([3, 2]);
    let narrow: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    let plan = op.plan(&ids_desc, &TensorDesc::new(DType::F16, [4, 2]), None, None, None);
    let y: Vec<u32> = run(plan, &[bytes(&ids), bytes(&narrow), left_out(), left_out(), left_out()]);
    assert_eq!(y, want);
    let narrow: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    let plan = op.plan(&ids_desc, &TensorDesc::new(DType::BF16, [4, 2]), None, None, None);
    let y: Vec<u32> = run(plan, &[bytes(&ids), bytes(&narrow), left_out(), left_out(), left_out()]);
    assert_eq!(y, want);
}

#[test]
fn embed_sum_adds_from_left_to_right() {
    // 2^24 + 1 rounds to 2^24, so the order of these additions shows
    let plan = EmbedSum { steps: 1, entries: 1, first_codebook: 0 }.plan(
        &TensorDesc::u32([1, 3]),
        &f32s([3, 1]),
        None,
        Some(&f32s([1, 1])),
        None,
    );
    let big = 16_777_216.0_f32;
    let y: Vec<f32> =
        run(plan, &[bytes(&[0_u32; 3]), bytes(&[big, 1.0, 1.0]), left_out(), bytes(&[-big]), left_out()]);
    assert_eq!(y, [0.0]);
    // a sum that started at 0 would lose the sign of -0
    let plan = EmbedSum { steps: 1, entries: 1, first_codebook: 0 }.plan(
        &TensorDesc::u32([1, 1]),
        &f32s([1, 1]),
        None,
        None,
        None,
    );
    let y: Vec<f32> = run(plan, &[bytes(&[0_u32]), bytes(&[-0.0_f32]), left_out(), left_out(), left_out()]);
    assert_eq!(y[0].to_bits(), (-0.0_f32).to_bits());
}

#[test]
fn attention_weighs_values_by_scores() {
    // one head of one column, scale ln 2: position 0 has query 1, position 1 has query 2; keys 0 and 1.
    // weights of position 1: 2^0 and 2^2; without a mask position 0 has 2^0 and 2^1
    let x = f32s([1, 2, 1]);
    let (q, k, v) = ([1.0_f32, 2.0], [0.0_f32, 1.0], [3.0_f32, 9.0]);
    let scale = std::f32::consts::LN_2;
    let attend = |mask| {
        let plan = Attention { heads: 1, scale, mask }.plan(&x, &x, &x);
        run::<f32>(plan, &[bytes(&q), bytes(&k), bytes(&v)])
    };
    let close = |got: Vec<f32>, want: [f32; 2]| {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?}, want {want:?}");
    };
    close(attend(Mask::Causal), [3.0, (3.0 + 4.0 * 9.0) / 5.0]);
    close(attend(Mask::None), [(3.0 + 2.0 * 9.0) / 3.0, (3.0 + 4.0 * 9.0) / 5.0]);
}

#[test]
fn attention_in_half_precision_rounds_once() {
    // equal scores: means of 1 and 1 + u, and of 1 + u and 1 + 2 u, half way between neighbours u apart
    fn halves<T: Pod + PartialEq + std::fmt::Debug>(dtype: DType, unit: f32, round: fn(f32) -> T) {
        let x = TensorDesc::new(dtype, [1, 2, 2]);
        let zeros = [0.0; 4].map(round);
        let v = [1.0, 1.0 + unit, 1.0 + unit, 1.0 + 2.0 * unit].map(round);
        let plan = Attention { heads: 1, scale: 1.0, mask: Mask::None }.plan(&x, &x, &x);
        let y: Vec<T> = run(plan, &[bytes(&zeros), bytes(&zeros), bytes(&v)]);
        assert_eq!(y, [1.0, 1.0 + 2.0 * unit, 1.0, 1.0 + 2.0 * unit].map(round));
    }
    halves(DType::F16, 2.0_f32.powi(-10), f16::from_f32);
    halves(DType::BF16, 2.0_f32.powi(-7), bf16::from_f32);
}

#[test]
fn attention_keeps_heads_and_sequences_apart() {
    // all scores equal, so every result is the mean of what is seen: [batch 2, steps 2, heads 2 of 1 column]
    let x = f32s([2, 2, 2]);
    let v = [1.0_f32, 10.0, 3.0, 30.0, 100.0, 1000.0, 300.0, 3000.0];
    let zeros = [0.0_f32; 8];
    let plan = Attention { heads: 2, scale: 1.0, mask: Mask::Causal }.plan(&x, &x, &x);
    let y: Vec<f32> = run(plan, &[bytes(&zeros), bytes(&zeros), bytes(&v)]);
    assert_eq!(y, [1.0, 10.0, 2.0, 20.0, 100.0, 1000.0, 200.0, 2000.0]);
}

#[test]
fn capture_selects_rows() {
    let x = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let plan = Capture { dtype: DType::F32 }.plan(&f32s([3, 2]), Some(&TensorDesc::u32([4])));
    let y: Vec<f32> = run(plan, &[bytes(&x), bytes(&[2_u32, 0, 2, 9])]);
    assert_eq!(y, [5.0, 6.0, 1.0, 2.0, 5.0, 6.0, 5.0, 6.0]);
    let plan = Capture { dtype: DType::F16 }.plan(&f32s([3, 2]), None);
    let y: Vec<f16> = run(plan, &[bytes(&x), left_out()]);
    assert_eq!(y, x.map(f16::from_f32));
}

#[test]
fn capture_rounds_to_nearest_even() {
    let round = |dtype, x: &[f32]| -> Vec<u16> {
        run(Capture { dtype }.plan(&f32s([1, x.len()]), None), &[bytes(x), left_out()])
    };
    let unit = 2.0_f32.powi(-24); // the smallest f16
    let x = [
        1.0,                           // exact
        1.0 + 2.0_f32.powi(-11),       // half way, to even below
        1.0 + 3.0 * 2.0_f32.powi(-11), // half way, to even above
        65_519.0,                      // the last below half way to 2^16
        65_520.0,                      // half way, to infinity
        -1e9,
        0.5 * unit, // half way to the smallest subnormal, to 0
        0.75 * unit,
        1.5 * unit,                      // half way, to even above
        2.0_f32.powi(-14) - 0.25 * unit, // carried into the normal numbers
        -0.0,
        f32::NEG_INFINITY,
    ];
    let wanted = [0x3c00, 0x3c00, 0x3c02, 0x7bff, 0x7c00, 0xfc00, 0, 1, 2, 0x0400, 0x8000, 0xfc00];
    assert_eq!(round(DType::F16, &x), wanted);
    let x = [
        1.0,
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        f32::MAX,
        f32::from_bits(0x8000),
        1e-40,
    ];
    assert_eq!(round(DType::BF16, &x), [0x3f80, 0x3f80, 0x3f82, 0x7f80, 0, 1]);
    for (dtype, above) in [(DType::F16, 0x7c00), (DType::BF16, 0x7f80)] {
        let y = round(dtype, &[f32::NAN, f32::from_bits(0x7f80_0001)]);
        assert!(y.iter().all(|bits| bits & 0x7fff > above), "{dtype}: {y:x?} are NaN");
    }
}

#[test]
fn delay_pattern_shifts_codebooks() {
    // two codebooks of three frames: codebook 1 is one position later, and nothing stands at position 0
    let codes = [1_u32, 2, 3, 11, 12, 13];
    let desc = TensorDesc::u32([1, 2, 3]);
    let apply = |channels, steps| -> Vec<u32> {
        run(DelayApply { special: 99, channels, steps }.plan(&desc), &[bytes(&codes)])
    };
    assert_eq!(apply(1, Steps::Valid), [99, 99, 1, 99, 2, 11, 3, 12]);
    assert_eq!(apply(1, Steps::Full), [99, 99, 1, 99, 2, 11, 3, 12, 99, 13]);
    // two channels share a delay
    assert_eq!(apply(2, Steps::Full), [99, 99, 1, 11, 2, 12, 3, 13]);
}

#[test]
fn delay_pattern_is_undone() {
    let revert = |steps: usize, ids: &[u32]| -> Vec<u32> {
        let op = DelayRevert { special: 99, channels: 1, frames: 3 };
        run(op.plan(&TensorDesc::u32([1, steps, 2])), &[bytes(ids)])
    };
    assert_eq!(revert(5, &[99, 99, 1, 99, 2, 11, 3, 12, 99, 13]), [1, 2, 3, 11, 12, 13]);
    assert_eq!(revert(4, &[99, 99, 1, 99, 2, 11, 3, 12]), [1, 2, 3, 11, 12, 99]);
}

#[test]
fn add_scales_rows_or_tensors() {
    let x = [1.0_f32, 2.0, 3.0, 4.0];
    let y: Vec<f32> =
        run(Add { alpha: 2.0 }.plan(&f32s([2, 2]), &f32s([2])), &[bytes(&x), bytes(&[10.0_f32, -1.0])]);
    assert_eq!(y, [21.0, 0.0, 23.0, 2.0]);
    let y: Vec<f32> = run(Add { alpha: -1.0 }.plan(&f32s([2, 2]), &f32s([2, 2])), &[bytes(&x), bytes(&x)]);
    assert_eq!(y, [0.0; 4]);
    // alpha 0 is a copy: -0 + 0 would be 0, and 0 times infinity NaN
    let x = [-0.0_f32, 1.0];
    let y: Vec<f32> =
        run(Add { alpha: 0.0 }.plan(&f32s([2]), &f32s([2])), &[bytes(&x), bytes(&[1.0, f32::INFINITY])]);
    assert_eq!(y.map_bits(), x.map_bits());
}

#[test]
fn scale_and_fill() {
    let y: Vec<f32> = run(Scale { factor: -0.5 }.plan(&f32s([3])), &[bytes(&[2.0_f32, -4.0, 0.0])]);
    assert_eq!(y.map_bits(), [-1.0_f32, 2.0, -0.0].map_bits());
    let y: Vec<f32> = run(Fill { shape: vec![2, 2], value: 1.5 }.plan(), &[]);
    assert_eq!(y, [1.5; 4]);
}

/// Floats as bits, for comparisons that tell -0 from 0.
trait Bits {
    fn map_bits(&self) -> Vec<u32>;
}

impl<T: AsRef<[f32]>> Bits for T {
    fn map_bits(&self) -> Vec<u32> {
        self.as_ref().iter().map(|v| v.to_bits()).collect()
    }
}
