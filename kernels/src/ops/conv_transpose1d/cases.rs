use super::ConvTranspose1d;
use crate::{
    Case, TensorDesc, Tolerance,
    ops::conv1d::Activation::{self, Elu},
};

/// batch, in_steps, in_channels, out_channels
type Shape = [usize; 4];
/// stride, kernel, trim_left, trim_right
type Settings = [usize; 4];

const NO: Activation = Activation::None;

const CASES: &[(Shape, Settings, [Activation; 2], &str)] = &[
    ([0, 5, 3, 4], [2, 4, 1, 1], [NO, NO], "no sequences"),
    ([2, 0, 3, 4], [2, 4, 1, 1], [NO, NO], "no steps"),
    ([2, 5, 3, 0], [2, 4, 1, 1], [NO, NO], "no output channels"),
    ([1, 3, 2, 2], [2, 4, 4, 4], [NO, NO], "all is trimmed"),
    ([1, 1, 1, 1], [1, 1, 0, 0], [NO, NO], "smallest"),
    // layers of the codecs, narrower and shorter
    ([1, 11, 64, 32], [8, 16, 4, 4], [Elu, NO], "stride 8"),
    ([1, 23, 32, 16], [5, 10, 3, 2], [Elu, NO], "stride 5, uneven trim"),
    ([3, 67, 16, 8], [4, 8, 2, 2], [Elu, Elu], "stride 4, ELU after, batch of 3"),
    ([1, 70, 128, 64], [4, 8, 2, 2], [Elu, NO], "stride 4, more than one tile of everything"),
    ([3, 31, 12, 6], [2, 4, 0, 2], [Elu, NO], "causal: all of the trim on the right, batch of 3"),
    ([1, 1, 8, 4], [8, 16, 4, 4], [Elu, NO], "1 step"),
    ([1, 5, 8, 4], [5, 10, 3, 2], [Elu, NO], "5 steps"),
    // kernels to 16 and strides to 8, multiples of each other or not
    ([1, 29, 5, 7], [1, 2, 0, 0], [NO, NO], "stride 1, kernel 2, no trim"),
    ([1, 29, 5, 7], [1, 3, 1, 1], [NO, NO], "stride 1, kernel 3"),
    ([1, 29, 5, 7], [2, 5, 2, 1], [NO, NO], "stride 2, kernel 5: zeros in the last tap"),
    ([1, 29, 5, 7], [3, 7, 0, 4], [NO, NO], "stride 3, kernel 7"),
    ([1, 29, 5, 7], [3, 16, 6, 7], [NO, NO], "stride 3, kernel 16: six taps"),
    ([1, 29, 5, 7], [4, 13, 9, 0], [NO, NO], "stride 4, kernel 13, trim of two rows and a part"),
    ([1, 29, 5, 7], [5, 3, 0, 0], [NO, NO], "stride 5, kernel 3: steps that see no input"),
    ([2, 29, 5, 7], [6, 6, 0, 0], [NO, NO], "stride 6, kernel 6: one tap, batch of 2"),
    ([1, 29, 5, 7], [7, 9, 1, 12], [NO, NO], "stride 7, kernel 9, trim past a row on the right"),
    ([1, 29, 5, 7], [8, 11, 3, 0], [Elu, Elu], "stride 8, kernel 11"),
    ([1, 2, 5, 7], [8, 16, 5, 14], [NO, NO], "trims leave no whole row"),
    // tiles of the kernels: 64 rows, 64 phases, depth 16
    ([1, 62, 8, 21], [3, 6, 1, 2], [NO, NO], "63 rows, 63 phases, depth 16"),
    ([1, 63, 8, 16], [4, 8, 2, 2], [NO, NO], "exactly one tile"),
    ([1, 64, 17, 13], [5, 5, 0, 0], [NO, NO], "64 rows, 65 phases, depth 17"),
    ([1, 64, 5, 1], [65, 130, 32, 33], [NO, NO], "65 rows, 65 phases of one channel"),
    // tiles on tensor cores: 128 rows of any sequences, 64 phases, depth 16
    (
        [7, 20, 16, 7],
        [5, 10, 3, 2],
        [Elu, Elu],
        "tensor cores, seven sequences in a tile and a bit, 35 phases",
    ),
    ([2, 3, 32, 68], [2, 3, 1, 0], [NO, NO], "tensor cores, odd kernel, short sequences"),
    // blocks of the host form: 128 to 2048 rows
    ([1, 4099, 1, 1], [2, 4, 1, 1], [Elu, NO], "three blocks of 2048 rows, the last of 4"),
    ([2, 256, 600, 61], [8, 16, 4, 4], [Elu, NO], "three blocks of 128 rows, the last of 1, batch of 2"),
    ([65_537, 1, 1, 1], [2, 4, 1, 1], [NO, NO], "more sequences than workgroups fit along one axis"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(
        [batch, in_steps, ins, outs],
        [stride, kernel, trim_left, trim_right],
        activations,
        why,
    ): &(Shape, Settings, [Activation; 2], &'static str)| {
        let [input_activation, output_activation] = activations;
        let op =
            ConvTranspose1d { stride, kernel, trim_left, trim_right, input_activation, output_activation };
        let taps = kernel.div_ceil(stride);
        let bias = TensorDesc::f32([outs]);
        let plan = op.plan(
            &TensorDesc::f32([batch, in_steps, ins]),
            &TensorDesc::f32([stride * outs, taps, ins]),
            // half of the shapes with, half without
            (kernel % 2 == 0).then_some(&bias),
        );
        let terms = (taps * ins) as f64;
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
