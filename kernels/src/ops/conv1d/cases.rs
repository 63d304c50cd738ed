use super::{Activation::Elu, Conv1d, PadMode};
use crate::{Case, TensorDesc, Tolerance};

/// Which of the optional slots are bound.
#[derive(Clone, Copy, PartialEq)]
enum Bound {
    Neither,
    Bias,
    Residual,
    Both,
}
use Bound::{Bias, Both, Neither, Residual};

/// batch, in_steps, in_channels, out_channels, kernel
type Shape = [usize; 5];

const PLAIN: Conv1d = Conv1d {
    stride: 1,
    dilation: 1,
    pad_left: 0,
    pad_right: 0,
    pad: PadMode::Zero,
    input_activation: super::Activation::None,
    output_activation: super::Activation::None,
};

const fn zero(pad_left: usize, pad_right: usize) -> Conv1d {
    Conv1d { pad_left, pad_right, ..PLAIN }
}

const fn reflect(pad_left: usize, pad_right: usize) -> Conv1d {
    Conv1d { pad: PadMode::Reflect, ..zero(pad_left, pad_right) }
}

const fn replicate(pad_left: usize, pad_right: usize) -> Conv1d {
    Conv1d { pad: PadMode::Replicate, ..zero(pad_left, pad_right) }
}

const fn stride(stride: usize, op: Conv1d) -> Conv1d {
    Conv1d { stride, ..op }
}

const fn dilation(dilation: usize, op: Conv1d) -> Conv1d {
    Conv1d { dilation, ..op }
}

const fn elu(op: Conv1d) -> Conv1d {
    Conv1d { input_activation: Elu, ..op }
}

const fn elu_after(op: Conv1d) -> Conv1d {
    Conv1d { output_activation: Elu, ..op }
}

const CASES: &[(Shape, Conv1d, Bound, &str)] = &[
    ([0, 5, 3, 4, 2], PLAIN, Bias, "no sequences"),
    ([2, 0, 3, 4, 3], zero(1, 1), Bias, "no steps"),
    ([2, 5, 3, 0, 2], PLAIN, Neither, "no output channels"),
    ([1, 1, 1, 1, 1], PLAIN, Neither, "smallest"),
    // layers of the 32 kHz codec, narrower or shorter
    ([1, 97, 1, 64, 7], reflect(3, 3), Bias, "first layer of an encoder"),
    ([1, 131, 64, 1, 7], elu(reflect(3, 3)), Bias, "last layer of a decoder"),
    ([1, 77, 64, 32, 3], elu_after(elu(reflect(1, 1))), Bias, "first half of a residual block"),
    ([1, 77, 32, 64, 1], PLAIN, Both, "second half of a residual block"),
    ([1, 130, 16, 32, 8], elu(stride(4, reflect(2, 4))), Bias, "stride 4, last stride partial"),
    ([1, 61, 16, 24, 10], elu(stride(5, reflect(3, 6))), Bias, "stride 5, last stride partial"),
    ([1, 33, 24, 40, 16], elu(stride(8, reflect(4, 11))), Bias, "stride 8, last stride partial"),
    ([1, 9, 64, 16, 7], elu(reflect(3, 3)), Bias, "last layer of an encoder"),
    // the 24 kHz codec pads on the left
    ([3, 41, 8, 12, 7], reflect(6, 0), Bias, "causal, batch of 3"),
    ([3, 41, 8, 12, 4], elu(stride(2, reflect(2, 1))), Bias, "causal with stride, batch of 3"),
    ([1, 19, 12, 12, 1], PLAIN, Both, "convolution as a shortcut"),
    // pads on inputs that are short
    ([1, 5, 3, 4, 16], stride(8, reflect(4, 11)), Bias, "reflect, 5 steps, pads 4 and 11"),
    ([3, 5, 3, 4, 7], reflect(6, 0), Neither, "reflect, 5 steps, causal pad 6, batch of 3"),
    ([1, 1, 3, 4, 7], reflect(3, 3), Bias, "reflect, 1 step, pads 3"),
    ([1, 1, 1, 1, 7], reflect(3, 3), Neither, "reflect, 1 step of 1 channel"),
    ([2, 2, 3, 4, 8], stride(4, reflect(2, 4)), Bias, "reflect, 2 steps, pads 2 and 4"),
    ([1, 3, 3, 4, 7], reflect(3, 3), Bias, "reflect, as many steps as the pad"),
    ([1, 4, 3, 4, 7], reflect(3, 3), Bias, "reflect, one step more than the pad"),
    ([1, 5, 7, 20, 3], dilation(3, reflect(9, 2)), Bias, "reflect, 5 steps, dilation 3"),
    ([2, 5, 3, 4, 16], stride(8, zero(4, 11)), Bias, "zero, 5 steps, pads 4 and 11"),
    ([1, 1, 3, 4, 7], elu(zero(3, 3)), Bias, "zero, 1 step, pads 3"),
    ([2, 5, 3, 4, 16], stride(8, replicate(4, 11)), Bias, "replicate, 5 steps, pads 4 and 11"),
    ([1, 1, 3, 4, 7], replicate(3, 3), Bias, "replicate, 1 step, pads 3"),
    ([1, 50, 3, 4, 7], replicate(3, 3), Residual, "replicate, 50 steps, residual alone"),
    // every kernel to 16, every stride to 8, every dilation to 3
    ([1, 53, 5, 7, 1], elu(PLAIN), Bias, "kernel 1, stride 1"),
    ([1, 53, 5, 7, 2], stride(2, reflect(1, 0)), Bias, "kernel 2, stride 2"),
    ([1, 53, 5, 7, 3], stride(3, zero(1, 1)), Bias, "kernel 3, stride 3"),
    ([1, 53, 5, 7, 4], stride(4, reflect(2, 1)), Bias, "kernel 4, stride 4"),
    ([1, 53, 5, 7, 5], stride(5, zero(0, 4)), Bias, "kernel 5, stride 5"),
    ([1, 53, 5, 7, 6], stride(6, replicate(3, 0)), Bias, "kernel 6, stride 6"),
    ([1, 53, 5, 7, 7], stride(7, reflect(0, 3)), Bias, "kernel 7, stride 7"),
    ([1, 53, 5, 7, 8], stride(8, zero(4, 4)), Bias, "kernel 8, stride 8"),
    ([1, 53, 5, 7, 2], stride(8, PLAIN), Bias, "kernel 2, stride 8: steps between windows"),
    ([1, 53, 5, 7, 9], dilation(2, reflect(8, 8)), Bias, "kernel 9, dilation 2"),
    ([1, 53, 5, 7, 10], dilation(3, zero(13, 14)), Bias, "kernel 10, dilation 3"),
    ([2, 53, 5, 7, 11], stride(2, dilation(2, elu(reflect(10, 9)))), Both, "kernel 11, stride 2, dilation 2"),
    ([1, 53, 5, 7, 12], stride(3, dilation(3, replicate(9, 9))), Bias, "kernel 12, stride 3, dilation 3"),
    ([1, 53, 5, 7, 13], zero(6, 6), Bias, "kernel 13"),
    ([1, 53, 5, 7, 14], reflect(7, 6), Bias, "kernel 14"),
    ([1, 53, 5, 7, 15], elu_after(zero(7, 7)), Bias, "kernel 15"),
    ([1, 53, 5, 7, 16], PLAIN, Neither, "kernel 16"),
    ([1, 53, 1, 2, 3], dilation(2, zero(2, 2)), Bias, "1 channel, dilation 2"),
    ([1, 53, 6, 1, 3], dilation(2, zero(2, 2)), Bias, "1 output channel, dilation 2"),
    // tiles of the kernels: 64 steps, 64 channels, depth 16; vectors of 32 channels; windows of 16
    ([1, 63, 3, 63, 5], PLAIN, Bias, "one below a tile of channels, depth 15"),
    ([1, 64, 16, 64, 1], PLAIN, Bias, "exactly one tile, window and depth 16"),
    ([1, 65, 17, 65, 1], PLAIN, Bias, "one past a tile, window and depth 17"),
    ([2, 129, 2, 31, 8], zero(4, 3), Bias, "one below a vector of channels, batch of 2"),
    ([1, 70, 2, 33, 8], PLAIN, Residual, "one past a vector of channels"),
    ([1, 70, 9, 3, 5], elu(PLAIN), Bias, "3 output channels"),
    ([1, 70, 9, 4, 5], elu(PLAIN), Bias, "4 output channels"),
    // tiles on tensor cores: 128 steps of any sequences, 64 channels, depth 16; few channels: 128 steps of one sequence
    ([3, 50, 16, 40, 3], elu(reflect(2, 0)), Both, "tensor cores, three sequences in a tile and a bit"),
    (
        [2, 70, 32, 33, 3],
        dilation(2, elu_after(replicate(2, 2))),
        Both,
        "tensor cores, odd channels, dilation 2, batch of 2",
    ),
    // and 128 steps by 32 channels
    (
        [3, 50, 48, 17, 3],
        elu(reflect(1, 1)),
        Both,
        "tensor cores, slim, odd channels, three sequences in a tile and a bit",
    ),
    (
        [2, 64, 16, 16, 1],
        elu_after(PLAIN),
        Residual,
        "tensor cores, slim, one slice, exactly one tile of steps",
    ),
    (
        [1, 129, 32, 28, 4],
        stride(2, dilation(2, replicate(3, 3))),
        Both,
        "tensor cores, slim, stride 2, dilation 2",
    ),
    ([2, 9, 16, 100, 5], zero(2, 3), Residual, "tensor cores, two tiles of channels, short sequences"),
    ([2, 150, 32, 3, 4], elu_after(dilation(3, reflect(4, 5))), Both, "few channels, dilation 3, batch of 2"),
    ([1, 20, 16, 2, 7], replicate(3, 3), Neither, "few channels, 20 steps"),
    // blocks of the host form: 128 to 2048 steps
    ([1, 4100, 1, 1, 3], reflect(1, 1), Bias, "three blocks of 2048 steps, the last of 4"),
    ([2, 257, 1100, 5, 1], elu(PLAIN), Both, "three blocks of 128 steps, the last of 1, batch of 2"),
    ([1, 260, 600, 40, 3], dilation(2, elu(reflect(2, 2))), Bias, "blocks of taps"),
    ([65_537, 2, 1, 2, 2], zero(1, 0), Bias, "more sequences than workgroups fit along one axis"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&([batch, in_steps, ins, outs, kernel], op, bound, why): &(
        Shape,
        Conv1d,
        Bound,
        &'static str,
    )| {
        let x = TensorDesc::f32([batch, in_steps, ins]);
        let out_steps = op.out_steps(in_steps, kernel).expect("a case's shapes fit");
        let bias = matches!(bound, Bias | Both).then(|| TensorDesc::f32([outs]));
        let residual = matches!(bound, Residual | Both).then(|| TensorDesc::f32([batch, out_steps, outs]));
        let weight = TensorDesc::f32([outs, kernel, ins]);
        let plan = op.plan(&x, &weight, bias.as_ref(), residual.as_ref());
        let terms = (kernel * ins) as f64;
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![],
            tolerance: Tolerance {
                // n roundings of partial sums that wander to sqrt(n) / 3: a random walk of deviation n 2^-24 / 8;
                // ELU's input and output by a device's exp at 5 ulp
                abs: (terms + 10.0 * terms.sqrt() + 10.0) * 2.0_f64.powi(-24),
                rel: 1e-6,
                why: "f32 sums of products in another order, 8 deviations of their random walk; exp at 5 ulp",
            },
        }
    };
    CASES.iter().map(case).collect()
}
