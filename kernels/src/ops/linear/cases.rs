use super::{Activation, Linear};
use crate::{Case, DType, TensorDesc, Tolerance};

/// (rows, cols, outs, activation, bias, residual, why)
type Shape = (usize, usize, usize, Activation, Extra, &'static str);

/// Which of the optional slots are there.
#[derive(Clone, Copy, PartialEq)]
enum Extra {
    Neither,
    Bias,
    Residual,
    Both,
}

const SHAPES: &[Shape] = &[
    (0, 3, 5, Activation::None, Extra::Both, "no rows"),
    (3, 5, 0, Activation::Gelu, Extra::Both, "no outs"),
    (3, 0, 5, Activation::Elu, Extra::Both, "no columns: activation of the bias, plus residual"),
    (1, 1, 1, Activation::None, Extra::Neither, "smallest: half a word of a narrow weight"),
    (
        1,
        33,
        70,
        Activation::Gelu,
        Extra::Bias,
        "one row, odd columns: rows of a narrow weight start within words",
    ),
    (2, 1024, 129, Activation::None, Extra::Neither, "two rows, as in guided generation"),
    (3, 17, 65, Activation::Relu, Extra::Residual, "three rows, one past a tile of columns and of outs"),
    (4, 63, 31, Activation::Elu, Extra::Both, "four rows, the last that are streamed on the host"),
    (
        5,
        16,
        64,
        Activation::Gelu,
        Extra::Both,
        "the first that is tiled on the host; whole tiles of columns and outs",
    ),
    (64, 48, 63, Activation::None, Extra::Bias, "a whole tile of rows, one below a tile of outs"),
    (65, 31, 97, Activation::Relu, Extra::Both, "one past a tile of rows"),
    (129, 515, 67, Activation::Gelu, Extra::Residual, "one past the host's block of 512 columns, odd"),
    (257, 20, 291, Activation::Elu, Extra::Bias, "several tiles of the host both ways"),
    (13, 768, 1024, Activation::None, Extra::Both, "T5 states into MusicGen-small"),
    (
        101,
        1024,
        1024,
        Activation::None,
        Extra::Residual,
        "two seconds of an attention output of MusicGen-small",
    ),
    (53, 1024, 4096, Activation::Gelu, Extra::Neither, "one second of a feed-forward of MusicGen-small"),
    (65_537, 1, 3, Activation::None, Extra::Bias, "more rows than workgroups along one axis"),
];

pub(super) fn cases(weight: DType) -> Vec<Case> {
    let case = |&(rows, cols, outs, activation, extra, why): &Shape| {
        let bias = matches!(extra, Extra::Bias | Extra::Both).then(|| TensorDesc::f32([outs]));
        let residual = matches!(extra, Extra::Residual | Extra::Both).then(|| TensorDesc::f32([rows, outs]));
        let plan = Linear { activation }.plan(
            &TensorDesc::f32([rows, cols]),
            &TensorDesc::new(weight, [outs, cols]),
            bias.as_ref(),
            residual.as_ref(),
        );
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![],
            tolerance: Tolerance {
                abs: 5e-7 + 1.2e-7 * cols as f64,
                rel: 1e-6,
                why: "one rounding of 2^-23 a column; GELU and ELU within 5e-7, with slopes of at most 1.13",
            },
        }
    };
    SHAPES.iter().map(case).collect()
}
