//! The codec's ops against hand-worked cases, other forms of their formulas, and numbers from PyTorch.
//!
//! Everything is asked of the reference and of the cpu form, so that neither is judged by the other.

use auscult_kernels::{
    Access, HostFn, HostSlot, KernelInfo, Plan, TensorDesc, noise,
    ops::{
        conv_transpose1d::{self, ConvTranspose1d, prepare_weight},
        conv1d::{self, Activation, Conv1d, PadMode},
        lstm::{self, Lstm},
        rvq_decode::{self, RvqDecode},
        rvq_encode::{self, RvqEncode},
    },
};
use bytemuck::Pod;

/// One input, as the bits of its elements; empty where a slot is left out.
fn bits(values: &[impl Pod]) -> Vec<u32> {
    bytemuck::cast_slice(values).to_vec()
}

/// Runs one host form of the plan's kernel; the output starts as NaN.
fn run<T: Pod>(form: HostFn, plan: &Plan, mut inputs: Vec<Vec<u32>>) -> Vec<T> {
    let written = plan.kernel.slots.len() - 1;
    assert_eq!(plan.kernel.slots[written].access, Access::Write, "the codec's ops write their last slot");
    let mut output =
        vec![0x7fc0_dead_u32; plan.slots[written].as_ref().expect("outputs are bound").elements()];
    let read = inputs.iter_mut().map(|i| HostSlot::Read(bytemuck::cast_slice(i)));
    let mut slots: Vec<_> = read.chain([HostSlot::Write(bytemuck::cast_slice_mut(&mut output))]).collect();
    for (slot, desc) in slots.iter().zip(&plan.slots) {
        let HostSlot::Read(bytes) = slot else { continue };
        assert_eq!(bytes.len(), desc.as_ref().map_or(0, TensorDesc::bytes), "{plan}");
    }
    form(&plan.params, &mut slots);
    bytemuck::cast_slice(&output).to_vec()
}

fn forms(kernel: &KernelInfo) -> [(&'static str, HostFn); 2] {
    [("reference", kernel.reference), ("cpu", kernel.cpu.expect("the codec's ops have a fast form"))]
}

fn close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs();
        assert!(error <= tolerance * (1.0 + want.abs()), "{what}: element {i} is {got}, want {want}");
    }
}

/// `n` simple numbers, the same in the Python beside the stored results:
/// `torch.tensor([((i * step) % 17 - origin) / scale for i in range(n)])`.
fn ramp(n: usize, step: usize, origin: i32, scale: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * step % 17) as i32 - origin) as f32 / scale).collect()
}

/// `[a, b, c]` to `[a, c, b]`.
fn swap_last(values: &[f32], [a, b, c]: [usize; 3]) -> Vec<f32> {
    let at = |i: usize, j: usize, k: usize| values[(i * b + j) * c + k];
    (0..a).flat_map(|i| (0..c).flat_map(move |k| (0..b).map(move |j| at(i, j, k)))).collect()
}

fn conv(op: Conv1d, x: &[f32], x_shape: [usize; 3], w: &[f32], w_shape: [usize; 3], bias: &[f32]) -> Plan {
    assert_eq!((x.len(), w.len()), (x_shape.iter().product(), w_shape.iter().product()));
    let bias = (!bias.is_empty()).then(|| TensorDesc::f32([bias.len()]));
    op.plan(&TensorDesc::f32(x_shape), &TensorDesc::f32(w_shape), bias.as_ref(), None).unwrap()
}

#[test]
fn conv1d_of_one_channel() {
    let zero = Conv1d { pad_left: 1, pad_right: 1, ..Conv1d::default() };
    let cases: &[(&str, Conv1d, &[f64])] = &[
        ("no padding", Conv1d::default(), &[321.0, 432.0]),
        // 0 1 2 3 4 0
        ("zero", zero, &[210.0, 321.0, 432.0, 43.0]),
        // 2 1 2 3 4 3
        ("reflect", Conv1d { pad: PadMode::Reflect, ..zero }, &[212.0, 321.0, 432.0, 343.0]),
        // 1 1 2 3 4 4
        ("replicate", Conv1d { pad: PadMode::Replicate, ..zero }, &[211.0, 321.0, 432.0, 443.0]),
        ("stride", Conv1d { stride: 2, ..zero }, &[210.0, 432.0]),
        // 0 . 2 . 4, 1 . 3 . 0 of the padded 0 1 2 3 4 0
        ("dilation", Conv1d { dilation: 2, ..zero }, &[420.0, 31.0]),
        // the residual is added in another test
        ("both", Conv1d { stride: 2, dilation: 2, pad_right: 2, ..zero }, &[420.0, 42.0]),
    ];
    let (x, w) = ([1.0_f32, 2.0, 3.0, 4.0], [1.0_f32, 10.0, 100.0]);
    for &(why, op, want) in cases {
        let plan = conv(op, &x, [1, 4, 1], &w, [1, 3, 1], &[]);
        for (form, host) in forms(&conv1d::INFO) {
            let got = run::<f32>(host, &plan, vec![bits(&x), bits(&w), vec![], vec![]]);
            close(&format!("{why}, {form}"), &got, want, 0.0);
        }
    }
}

/// A kernel of one tap that copies: y is the padded input. The results are those of `EncodecConv1d._pad1d` of
/// HF `modeling_encodec.py`, transformers 4.57, called with the same numbers.
#[test]
fn conv1d_pads_like_the_original() {
    use PadMode::{Reflect, Replicate, Zero};
    type PadCase = (&'static [f32], usize, usize, PadMode, &'static [f64]);
    let cases: &[PadCase] = &[
        (&[5.0], 3, 3, Reflect, &[0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0]),
        (
            &[1.0, 2.0, 3.0, 4.0, 5.0],
            4,
            11,
            Reflect,
            &[5., 4., 3., 2., 1., 2., 3., 4., 5., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 0.],
        ),
        (&[1.0, 2.0], 2, 4, Reflect, &[0.0, 2.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]),
        (&[1.0, 2.0, 3.0], 3, 3, Reflect, &[0.0, 3.0, 2.0, 1.0, 2.0, 3.0, 0.0, 3.0, 2.0]),
        (&[1.0, 2.0, 3.0, 4.0], 3, 3, Reflect, &[4.0, 3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0]),
        (&[1.0, 2.0, 3.0, 4.0, 5.0], 0, 2, Reflect, &[1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 3.0]),
        (&[1.0], 0, 0, Reflect, &[1.0]),
        (&[1.0, 2.0], 0, 5, Reflect, &[1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        (&[1.0, 2.0], 3, 1, Replicate, &[1.0, 1.0, 1.0, 1.0, 2.0, 2.0]),
        (&[1.0, 2.0], 3, 1, Zero, &[0.0, 0.0, 0.0, 1.0, 2.0, 0.0]),
    ];
    for &(x, pad_left, pad_right, pad, want) in cases {
        let op = Conv1d { pad_left, pad_right, pad, ..Conv1d::default() };
        let plan = conv(op, x, [1, x.len(), 1], &[1.0], [1, 1, 1], &[]);
        for (form, host) in forms(&conv1d::INFO) {
            let got = run::<f32>(host, &plan, vec![bits(x), bits(&[1.0_f32]), vec![], vec![]]);
            close(&format!("{pad:?} {pad_left} {pad_right} of {x:?}, {form}"), &got, want, 0.0);
        }
    }
}

#[test]
fn conv1d_applies_bias_then_elu_then_residual() {
    let op =
        Conv1d { output_activation: Activation::Elu, input_activation: Activation::Elu, ..Conv1d::default() };
    // two steps of two channels; [out, tap, in]
    let (x, w) = ([1.0_f32, 2.0, 3.0, -1.0], [1.0_f32, 10.0, 100.0, 1000.0, 0.0, -1.0, -1.0, 0.0]);
    let (bias, residual) = ([0.5_f32, 1.0], [10.0_f32, 20.0]);
    let y = TensorDesc::f32([1, 1, 2]);
    let x_desc = TensorDesc::f32([1, 2, 2]);
    let plan = op.plan(&x_desc, &TensorDesc::f32([2, 2, 2]), Some(&TensorDesc::f32([2])), Some(&y)).unwrap();
    let below = (-1.0_f64).exp_m1();
    let want = [1.0 + 20.0 + 300.0 + 1000.0 * below + 0.5, -2.0 - 3.0 + 1.0]
        .map(|v| if v < 0.0 { v.exp_m1() } else { v });
    for (form, host) in forms(&conv1d::INFO) {
        let got = run::<f32>(host, &plan, vec![bits(&x), bits(&w), bits(&bias), bits(&residual)]);
        close(form, &got, &[want[0] + 10.0, want[1] + 20.0], 2e-7);
    }
}

/// ```python
/// c = EncodecConv1d(config, 2, 3, 5, stride=2)     # reflect, not causal; config's other fields do not matter
/// v = ramp(3*2*5, 5, 8, 8).view(3, 2, 5)           # weight_norm's direction, and its norm as the magnitude
/// c(elu(ramp(7*2, 7, 8, 4).view(7, 2).T[None]))    # bias 0.5, -0.25, 1
/// ```
///
/// padding_total 3 splits into 2 left and 1 right; 7 steps of stride 2 want 1 more.
#[test]
fn conv1d_equals_torch() {
    let op = Conv1d {
        stride: 2,
        pad_left: 2,
        pad_right: 2,
        pad: PadMode::Reflect,
        input_activation: Activation::Elu,
        ..Conv1d::default()
    };
    let (x, bias) = (ramp(14, 7, 8, 4.0), [0.5_f32, -0.25, 1.0]);
    let w = swap_last(&ramp(30, 5, 8, 8.0), [3, 2, 5]);
    let want = [
        -0.5382468451451183,
        0.24332280041090762,
        0.961094109993669,
        1.5848080715132649,
        -1.2436239520677979,
        -1.9903738226944667,
        -2.3029704742926325,
        -1.8624456387991983,
        1.1093291966942365,
        2.2820051046215117,
        0.22359351850972764,
        0.4502806597126333,
    ];
    let plan = conv(op, &x, [1, 7, 2], &w, [3, 5, 2], &bias);
    for (form, host) in forms(&conv1d::INFO) {
        close(form, &run::<f32>(host, &plan, vec![bits(&x), bits(&w), bits(&bias), vec![]]), &want, 1e-6);
    }
}

#[test]
fn conv_transpose1d_weight_is_regrouped_by_phase() {
    // taps 0 and 2 meet phase 0, tap 1 phase 1; the later tap belongs to the earlier step
    assert_eq!(prepare_weight(&[1.0, 2.0, 3.0], [1, 1, 3], 2), [3.0, 1.0, 0.0, 2.0]);
    // [in 2, out 1, kernel 2], stride 1: two taps, channels innermost
    assert_eq!(prepare_weight(&[1.0, 2.0, 3.0, 4.0], [2, 1, 2], 1), [2.0, 4.0, 1.0, 3.0]);
    // a kernel shorter than the stride leaves phases without weight
    assert_eq!(prepare_weight(&[1.0], [1, 1, 1], 3), [1.0, 0.0, 0.0]);
}

#[test]
fn conv_transpose1d_of_one_channel() {
    // raw: 1 2 3 4 . . + . . 10 20 30 40
    let w = prepare_weight(&[1.0, 2.0, 3.0, 4.0], [1, 1, 4], 2);
    let cases: &[(usize, usize, &[f64])] = &[
        (0, 0, &[1.0, 2.0, 13.0, 24.0, 30.0, 40.0]),
        (1, 1, &[2.0, 13.0, 24.0, 30.0]),
        (3, 0, &[24.0, 30.0, 40.0]),
        (0, 5, &[1.0]),
    ];
    for &(trim_left, trim_right, want) in cases {
        let op = transposed(2, 4, trim_left, trim_right);
        let plan = op.plan(&TensorDesc::f32([1, 2, 1]), &TensorDesc::f32([2, 2, 1]), None).unwrap();
        for (form, host) in forms(&conv_transpose1d::INFO) {
            let got = run::<f32>(host, &plan, vec![bits(&[1.0_f32, 10.0]), bits(&w), vec![]]);
            close(&format!("trim {trim_left} {trim_right}, {form}"), &got, want, 0.0);
        }
    }
}

fn transposed(stride: usize, kernel: usize, trim_left: usize, trim_right: usize) -> ConvTranspose1d {
    let (input_activation, output_activation) = (Activation::None, Activation::None);
    ConvTranspose1d { stride, kernel, trim_left, trim_right, input_activation, output_activation }
}

/// The definition of `torch.nn.ConvTranspose1d`, which scatters, against the form that gathers.
#[test]
fn conv_transpose1d_equals_the_scattering_form() {
    for (stride, kernel, trim_left, trim_right, steps) in [
        (1, 1, 0, 0, 3),
        (2, 4, 1, 1, 5),
        (5, 10, 3, 2, 4),
        (3, 7, 2, 1, 6),
        (4, 3, 0, 0, 5),
        (2, 9, 5, 3, 1),
        (8, 16, 4, 4, 9),
    ] {
        let (ins, outs) = (3, 2);
        let key = format!("scatter/{stride}/{kernel}");
        let x: Vec<f32> = noise(&format!("{key}/x"), steps * ins).collect();
        let torch: Vec<f32> = noise(&format!("{key}/weight"), ins * outs * kernel).collect();
        let bias = [0.25_f32, -0.5];
        let raw_steps = (steps - 1) * stride + kernel;
        let mut raw: Vec<f64> = (0..raw_steps * outs).map(|i| f64::from(bias[i % outs])).collect();
        for (t, x) in x.chunks(ins).enumerate() {
            for (c, o, k) in
                (0..ins).flat_map(|c| (0..outs).flat_map(move |o| (0..kernel).map(move |k| (c, o, k))))
            {
                raw[(t * stride + k) * outs + o] +=
                    f64::from(x[c]) * f64::from(torch[(c * outs + o) * kernel + k]);
            }
        }
        let want = &raw[trim_left * outs..(raw_steps - trim_right) * outs];
        let w = prepare_weight(&torch, [ins, outs, kernel], stride);
        let op = transposed(stride, kernel, trim_left, trim_right);
        let w_desc = TensorDesc::f32([stride * outs, kernel.div_ceil(stride), ins]);
        let plan =
            op.plan(&TensorDesc::f32([1, steps, ins]), &w_desc, Some(&TensorDesc::f32([outs]))).unwrap();
        for (form, host) in forms(&conv_transpose1d::INFO) {
            let got = run::<f32>(host, &plan, vec![bits(&x), bits(&w), bits(&bias)]);
            // sums of at most 15 products of numbers below 1
            close(&format!("{key}, {form}"), &got, want, 1e-6);
        }
    }
}

/// ```python
/// t = EncodecConvTranspose1d(config, 2, 3, 5, stride=2)    # not causal: trims 2 left and 1 right
/// v = ramp(2*3*5, 5, 8, 8).view(2, 3, 5)                   # weight_norm's direction, and its norm as the magnitude
/// t(elu(ramp(4*2, 7, 8, 4).view(4, 2).T[None]))            # bias 0.5, -0.25, 1
/// ```
#[test]
fn conv_transpose1d_equals_torch() {
    let op = ConvTranspose1d { input_activation: Activation::Elu, ..transposed(2, 5, 2, 1) };
    let (x, bias) = (ramp(8, 7, 8, 4.0), [0.5_f32, -0.25, 1.0]);
    let w = prepare_weight(&ramp(30, 5, 8, 8.0), [2, 3, 5], 2);
    let want = [
        -0.915951892408682,
        -0.04652386180702417,
        2.3287478331831206,
        -1.0521922002340194,
        1.1604920178783233,
        -0.5249441386689522,
        1.3455144596422204,
        -2.4161477534546103,
        2.132784590765297,
        1.3551821812859317,
        -0.0349340639243767,
        1.7562255082081957,
        0.19944591684241564,
        1.740605488974988,
        -1.3739911264031246,
        2.341084771206083,
        -2.047641285343472,
        2.6318630282747772,
        -1.9253065141373886,
        0.7541977994808606,
        2.0842217429313057,
        -0.15625,
        0.84375,
        0.125,
    ];
    let bias_desc = TensorDesc::f32([3]);
    let plan = op.plan(&TensorDesc::f32([1, 4, 2]), &TensorDesc::f32([6, 3, 2]), Some(&bias_desc)).unwrap();
    for (form, host) in forms(&conv_transpose1d::INFO) {
        close(form, &run::<f32>(host, &plan, vec![bits(&x), bits(&w), bits(&bias)]), &want, 1e-6);
    }
}

fn recur(batch: usize, steps: usize, hidden: usize, residual: &[f32]) -> Plan {
    let y = TensorDesc::f32([batch, steps, hidden]);
    let gates = TensorDesc::f32([batch, steps, 4 * hidden]);
    Lstm.plan(&gates, &TensorDesc::f32([4 * hidden, hidden]), (!residual.is_empty()).then_some(&y)).unwrap()
}

#[test]
fn lstm_of_one_unit() {
    // open is a gate of 1, shut of 0, to f32's last bit
    let (open, shut) = (100.0_f32, -100.0_f32);
    let gates = [
        [open, shut, open, open], // c = 1
        [shut, open, open, open], // c kept
        [open, open, open, shut], // c = 2, not shown
        [shut, open, open, open], // c = 2, shown
        [shut, shut, open, open], // c = 0
        [0.0, shut, open, 0.0],   // c = 1/2
    ];
    let (one, two) = (1.0_f64.tanh(), 2.0_f64.tanh());
    let want = [one, one, 0.0, two, 0.0, 0.5 * 0.5_f64.tanh()];
    let residual = [1000.0_f32, 0.0, 10.0, 0.0, 0.0, 0.0];
    // were the residual fed back, the recurrent weights would open the gates that are shut
    let weight = [1.0_f32, 1.0, 0.0, 1.0].map(|w| w * 1e-3);
    for (skip, plan) in [(&[][..], recur(1, 6, 1, &[])), (&residual[..], recur(1, 6, 1, &residual))] {
        let want: Vec<f64> =
            want.iter().zip(skip.iter().chain([&0.0; 6])).map(|(w, &r)| w + f64::from(r)).collect();
        for (form, host) in forms(&lstm::INFO) {
            let got = run::<f32>(host, &plan, vec![bits(gates.as_flattened()), bits(&weight), bits(skip)]);
            // the last step's gates of 1/2 move by 1e-3 / 4 times an h of 0
            close(form, &got, &want, 2e-7);
        }
    }
}

/// ```python
/// l = torch.nn.LSTM(2, 3)    # weight_ih ramp(24, 5, 8, 8), weight_hh ramp(36, 7, 8, 8),
///                            # bias_ih ramp(12, 3, 8, 16), bias_hh ramp(12, 11, 8, 16), all in f64
/// l(ramp(4*2, 3, 6, 4).view(4, 1, 2))[0].flatten()
/// ```
#[test]
fn lstm_equals_torch() {
    let (weight_ih, weight_hh) = (ramp(24, 5, 8, 8.0), ramp(36, 7, 8, 8.0));
    let (bias_ih, bias_hh) = (ramp(12, 3, 8, 16.0), ramp(12, 11, 8, 16.0));
    let x = ramp(8, 3, 6, 4.0);
    let gates: Vec<f32> = x
        .chunks(2)
        .flat_map(|x| {
            let each = weight_ih.chunks(2).zip(bias_ih.iter().zip(&bias_hh));
            each.map(|(w, (b, c))| x[0] * w[0] + x[1] * w[1] + b + c).collect::<Vec<_>>()
        })
        .collect();
    let want = [
        -0.2894122876812605,
        0.06784765819793297,
        -0.09512346741746727,
        -0.021899693914992895,
        -0.09139512854709583,
        -0.29454677704652726,
        0.00829123893647715,
        -0.4362530894186054,
        -0.4421564249679924,
        -0.16701653564210991,
        -0.10344700204758056,
        -0.268427714986799,
    ];
    for (form, host) in forms(&lstm::INFO) {
        let got = run::<f32>(host, &recur(1, 4, 3, &[]), vec![bits(&gates), bits(&weight_hh), vec![]]);
        close(form, &got, &want, 3e-7);
    }
}

#[test]
fn lstm_of_a_sequence_does_not_depend_on_its_batch_or_the_threads() {
    let (batch, steps, hidden) = (3, 6, 73);
    let gates: Vec<f32> = noise("lstm alone/gates", batch * steps * 4 * hidden).collect();
    let weight: Vec<f32> = noise("lstm alone/weight", 4 * hidden * hidden).map(|w| w * 0.1).collect();
    let cpu = lstm::INFO.cpu.unwrap();
    let together =
        run::<u32>(cpu, &recur(batch, steps, hidden, &[]), vec![bits(&gates), bits(&weight), vec![]]);
    let alone: Vec<u32> = gates
        .chunks(steps * 4 * hidden)
        .flat_map(|gates| {
            run::<u32>(cpu, &recur(1, steps, hidden, &[]), vec![bits(gates), bits(&weight), vec![]])
        })
        .collect();
    assert_eq!(together, alone);
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let inputs = vec![bits(&gates), bits(&weight), vec![]];
        let plan = recur(batch, steps, hidden, &[]);
        assert_eq!(pool.install(|| run::<u32>(cpu, &plan, inputs)), together, "{threads} threads");
    }
}

#[test]
fn convolutions_do_not_depend_on_the_batch_or_the_threads() {
    let (batch, steps, ins, outs, kernel) = (3, 300, 40, 600, 6);
    let x: Vec<f32> = noise("conv alone/x", batch * steps * ins).collect();
    let w: Vec<f32> = noise("conv alone/weight", outs * kernel * ins).collect();
    let pad = Conv1d { pad_left: 2, pad_right: 3, pad: PadMode::Reflect, ..Conv1d::default() };
    let forward =
        |batch| conv(pad, &x[..batch * steps * ins], [batch, steps, ins], &w, [outs, kernel, ins], &[]);
    let back = |batch| {
        let w = TensorDesc::f32([outs, kernel, ins]);
        transposed(2, 12, 5, 5).plan(&TensorDesc::f32([batch, steps, ins]), &w, None).unwrap()
    };
    for (whole, one) in [(forward(batch), forward(1)), (back(batch), back(1))] {
        let kernel = one.kernel;
        let cpu = kernel.cpu.unwrap();
        let inputs = |x: &[f32]| {
            let mut inputs = vec![bits(x), bits(&w)];
            inputs.resize(kernel.slots.len() - 1, vec![]);
            inputs
        };
        let together = run::<u32>(cpu, &whole, inputs(&x));
        let alone = x.chunks(steps * ins).flat_map(|x| run::<u32>(cpu, &one, inputs(x)));
        assert!(together.iter().copied().eq(alone), "{}", kernel.name);
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let got = pool.install(|| run::<u32>(cpu, &whole, inputs(&x)));
            assert!(got == together, "{}, {threads} threads", kernel.name);
        }
    }
}

fn encode(host: HostFn, x: &[f32], dim: usize, stages: usize, books: &[f32]) -> Vec<u32> {
    let books_desc = TensorDesc::f32([stages, books.len() / stages / dim, dim]);
    let plan = RvqEncode.plan(&TensorDesc::f32([x.len() / dim, dim]), &books_desc).unwrap();
    run(host, &plan, vec![bits(x), bits(books)])
}

#[test]
fn rvq_encode_finds_the_nearest_and_passes_the_rest_on() {
    let books = [
        [0.0_f32, 0.0],
        [1.0, 0.0],
        [0.0, 1.0], // stage 0
        [0.5, 0.5],
        [-0.25, 0.25],
        [0.0, 0.0], // stage 1
    ];
    // (0.75, 0.25) - (1, 0) is the second entry of stage 1 exactly; (0.5, 1.5) - (0, 1) the first
    for (form, host) in forms(&rvq_encode::INFO) {
        assert_eq!(
            encode(host, &[0.75, 0.25, 0.5, 1.5, 0.1, 0.0], 2, 2, books.as_flattened()),
            [1, 1, 2, 0, 0, 2],
            "{form}"
        );
    }
}

#[test]
fn rvq_encode_breaks_ties_to_the_smaller_index() {
    let nan = f32::NAN;
    let cases: &[(&str, &[f32], &[f32], u32)] = &[
        ("halfway", &[0.5], &[0.0, 1.0], 0),
        ("halfway, from the other side", &[0.5], &[1.0, 0.0], 0),
        ("two of the same after a farther one", &[1.0], &[7.0, 1.25, 1.25], 1),
        ("a number before NaN", &[1.0], &[nan, 3.0, nan], 1),
        ("nothing but NaN", &[nan], &[3.0, 1.0], 0),
        ("infinity is as far from everything", &[f32::INFINITY], &[3.0, 1.0], 0),
        ("an infinite entry", &[1.0], &[f32::NEG_INFINITY, 9.0, f32::INFINITY], 1),
    ];
    for &(why, x, books, want) in cases {
        for (form, host) in forms(&rvq_encode::INFO) {
            assert_eq!(encode(host, x, 1, 1, books), [want], "{why}, {form}");
        }
    }
    // the same distance in two dimensions: 3-4-5 and 5-0
    for (form, host) in forms(&rvq_encode::INFO) {
        assert_eq!(encode(host, &[10.0, 20.0], 2, 1, &[0.0, 0.0, 13.0, 24.0, 15.0, 20.0]), [1], "{form}");
    }
}

#[test]
fn rvq_encode_is_exact_where_products_cancel() {
    // x.e - |e|^2 / 2 is half a million and its f32 neighbours lie 1/32 apart; the distances are 1/16 and 1/25
    let far = [1000.25_f32, 999.8];
    // products of these vanish in f32; squared distances in f64 do not
    let tiny = [3e-30_f32, 1e-30, 2e-30];
    // two entries apart by one bit, on the same side
    let bit = [1.0_f32.next_up().next_up(), 1.0_f32.next_up()];
    for (form, host) in forms(&rvq_encode::INFO) {
        assert_eq!(encode(host, &[1000.0], 1, 1, &far), [1], "{form}");
        assert_eq!(encode(host, &[1.1e-30], 1, 1, &tiny), [1], "{form}");
        assert_eq!(encode(host, &[1.0], 1, 1, &bit), [1], "{form}");
    }
    // noise around one point, far from the origin: every row is decided among close entries
    let (rows, entries, dim) = (40, 300, 9);
    let near = |key, n| noise(key, n).map(|v| 100.0 + v * 1e-3).collect::<Vec<_>>();
    let (x, books) = (near("near/x", rows * dim), near("near/books", entries * dim));
    let [reference, cpu] = forms(&rvq_encode::INFO).map(|(_, host)| encode(host, &x, dim, 1, &books));
    assert_eq!(reference, cpu);
}

/// Executors that work in f32 may take two entries for each other when they are nearly as near. The cases are compared
/// exactly, so their noise must not hold such a pair.
#[test]
fn rvq_encode_cases_leave_a_margin() {
    for case in (rvq_encode::INFO.cases)() {
        let [x, books, codes] = case.plan.slots.as_slice() else { panic!("rvq_encode has three slots") };
        let (dim, stages) = (x.as_ref().unwrap().shape[1], codes.as_ref().unwrap().shape[1]);
        let entries = books.as_ref().unwrap().shape[1];
        let values = |slot| {
            case.input(slot)
                .chunks_exact(4)
                .map(|b| f32::from_ne_bytes(b.try_into().unwrap()))
                .collect::<Vec<_>>()
        };
        let (x, books) = (values(0), values(1));
        let ties = books.iter().all(|&v| v == 0.0);
        let mut smallest = f64::INFINITY;
        for row in x.chunks(dim).filter(|_| stages > 0 && !ties) {
            let mut rest = row.to_vec();
            for book in books.chunks(entries * dim) {
                let distance = |e: &[f32]| {
                    rest.iter().zip(e).map(|(&v, &e)| (f64::from(v) - f64::from(e)).powi(2)).sum::<f64>()
                };
                let mut order: Vec<(f64, usize)> = book.chunks(dim).map(distance).zip(0..).collect();
                order.sort_by(|a, b| a.partial_cmp(b).unwrap());
                if let [(first, _), (second, _), ..] = order[..] {
                    smallest = smallest.min((second - first) / second);
                }
                rest.iter_mut().zip(&book[order[0].1 * dim..]).for_each(|(v, e)| *v -= e);
            }
        }
        // a sum of n squares in f32 errs by at most n + 2 roundings of 2^-24
        let error = (dim + 2) as f64 * 2.0_f64.powi(-24);
        assert!(smallest > 2.0 * error, "{}: margin {smallest:e}, may err by {error:e}", case.why);
    }
}

#[test]
fn rvq_decode_adds_in_order_and_stays_in_the_codebooks() {
    // [3 stages, 2 entries, 2]
    let books = [1e8_f32, -0.0, 5.0, 6.0, -1e8, -0.0, 7.0, 8.0, 1.0, -0.0, 9.0, 10.0];
    let plan = RvqDecode.plan(&TensorDesc::u32([3, 3]), &TensorDesc::f32([3, 2, 2])).unwrap();
    let codes = [0_u32, 0, 0, 1, 1, 1, 2, u32::MAX, 0];
    for (form, host) in forms(&rvq_decode::INFO) {
        let got = run::<f32>(host, &plan, vec![bits(&codes), bits(&books)]);
        // in the order of the stages the 1 survives; and a sum that starts from 0 is never -0
        assert_eq!(got, [1.0, 0.0, 21.0, 24.0, 13.0, 14.0], "{form}");
        assert!(got[1].is_sign_positive(), "{form}");
    }
}

#[test]
fn codec_kernels_declare_what_they_bind() {
    for kernel in [&conv1d::INFO, &conv_transpose1d::INFO, &lstm::INFO, &rvq_encode::INFO, &rvq_decode::INFO]
    {
        assert_eq!(kernel.params_size % 16, 0, "{kernel:?}: parameter blocks are multiples of 16");
        let last = kernel.fields.last().unwrap();
        assert!(
            last.offset + 4 <= kernel.params_size && kernel.params_size <= last.offset + 16,
            "{kernel:?}"
        );
        for case in (kernel.cases)() {
            assert_eq!(case.plan.slots.len(), kernel.slots.len(), "{kernel:?} {}", case.why);
            assert!(std::ptr::eq(case.plan.kernel, kernel), "{kernel:?} {}", case.why);
            for (slot, desc) in kernel.slots.iter().zip(&case.plan.slots) {
                assert!(slot.optional || desc.is_some(), "{kernel:?} {}", case.why);
                assert!(desc.as_ref().is_none_or(|d| d.dtype == slot.dtype), "{kernel:?}");
            }
            // cut as finely as possible, every split must still cover its slots
            for split in &case.plan.splits {
                for (desc, bytes) in case.plan.slots.iter().zip(&split.item_bytes) {
                    let whole = desc.as_ref().map_or(0, TensorDesc::bytes);
                    assert!(
                        *bytes == 0 || desc.is_none() || bytes * split.items == whole,
                        "{kernel:?} {}",
                        case.why
                    );
                }
            }
        }
    }
}
