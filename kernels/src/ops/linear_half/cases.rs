use super::{Activation, LinearHalf};
use crate::{Case, DType, Plan, ShapeError, TensorDesc, Tolerance};

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
    (0, 8, 5, Activation::None, Extra::Both, "no rows"),
    (3, 8, 0, Activation::Gelu, Extra::Both, "no outs"),
    (3, 0, 5, Activation::Elu, Extra::Both, "no columns: activation of the bias, plus residual"),
    (3, 0, 6, Activation::Gelu, Extra::Bias, "no columns, even outs: units for matrices sum nothing"),
    (1, 1, 1, Activation::None, Extra::Neither, "smallest: half a word everywhere"),
    (1, 33, 70, Activation::Gelu, Extra::Bias, "one row, odd columns: rows of the weight start within words"),
    (
        2,
        1024,
        129,
        Activation::None,
        Extra::Neither,
        "two rows, as in guided generation; one past a tile of outs",
    ),
    (
        3,
        8,
        7,
        Activation::Relu,
        Extra::Residual,
        "sixteen bytes of columns; rows of a narrow y start within words",
    ),
    (
        5,
        40,
        65,
        Activation::Elu,
        Extra::Both,
        "sixteen bytes past a tile of columns; the first tiled on the host",
    ),
    (31, 30, 62, Activation::Gelu, Extra::Both, "even columns that are no multiple of eight"),
    (63, 24, 127, Activation::Gelu, Extra::Both, "one below a tile of rows and of outs"),
    (64, 31, 64, Activation::Relu, Extra::Both, "whole tiles of 64; one below two tiles of 16 columns"),
    (65, 49, 67, Activation::Elu, Extra::Bias, "one past a tile of 64 rows, and past three of 16 columns"),
    (
        127,
        32,
        126,
        Activation::Relu,
        Extra::Bias,
        "one below a tile of 128 rows; even outs, no multiple of four",
    ),
    (128, 64, 128, Activation::Gelu, Extra::Both, "whole tiles of 128 both ways, two of columns"),
    (129, 96, 260, Activation::None, Extra::Residual, "one past a tile of 128 rows, three tiles of columns"),
    (
        130,
        104,
        134,
        Activation::Elu,
        Extra::Both,
        "a few past a tile of 128 both ways, eight columns past three of 32",
    ),
    (
        131,
        136,
        257,
        Activation::Gelu,
        Extra::Both,
        "prime rows and outs; more tiles of columns than are in flight",
    ),
    (257, 515, 67, Activation::Gelu, Extra::Residual, "one past the host's blocks; odd columns and outs"),
    (1153, 16, 130, Activation::None, Extra::Bias, "more tiles of rows than are walked together"),
    (13, 768, 1024, Activation::None, Extra::Both, "T5 states into MusicGen-small"),
    (53, 1024, 4096, Activation::Gelu, Extra::Neither, "one second of a feed-forward of MusicGen-small"),
    (53, 4096, 1024, Activation::None, Extra::Residual, "one second of the other half of that feed-forward"),
    (
        501,
        1024,
        1024,
        Activation::None,
        Extra::Residual,
        "ten seconds of an attention output of MusicGen-small",
    ),
    (65_537, 8, 3, Activation::None, Extra::Bias, "more rows than workgroups along one axis"),
];

/// The inputs are exact, so what a result may be off by is a rounding of the sum a column, twice for matrix units that
/// truncate, and for a narrow y twice the rounding that both sides make, half of `rel` each.
fn tolerance(y: DType, cols: usize) -> Tolerance {
    let abs = 5e-7 + 2.4e-7 * cols as f64;
    match y {
        // 2^-10
        DType::F16 => {
            Tolerance { abs, rel: 9.8e-4, why: "2^-22 a column, GELU and ELU 5e-7; two roundings to f16" }
        }
        // 2^-7
        DType::BF16 => {
            Tolerance { abs, rel: 7.9e-3, why: "2^-22 a column, GELU and ELU 5e-7; two roundings to bf16" }
        }
        _ => Tolerance {
            abs,
            rel: 1e-6,
            why: "2^-22 a column; GELU and ELU within 5e-7, with slopes of at most 1.13",
        },
    }
}

/// Every shape, planned by `plan` from x, weight, bias and residual.
pub(in crate::ops) fn planned(
    half: DType,
    narrowest: DType,
    plan: impl Fn(
        Activation,
        [&TensorDesc; 2],
        Option<&TensorDesc>,
        Option<&TensorDesc>,
    ) -> Result<Plan, ShapeError>,
) -> Vec<Case> {
    let case = |&(rows, cols, outs, activation, extra, why): &Shape| {
        let bias = matches!(extra, Extra::Bias | Extra::Both).then(|| TensorDesc::f32([outs]));
        let residual = matches!(extra, Extra::Residual | Extra::Both).then(|| TensorDesc::f32([rows, outs]));
        let (x, weight) = (TensorDesc::new(half, [rows, cols]), TensorDesc::new(half, [outs, cols]));
        let plan = plan(activation, [&x, &weight], bias.as_ref(), residual.as_ref());
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![],
            tolerance: tolerance(narrowest, cols),
        }
    };
    SHAPES.iter().map(case).collect()
}

pub(super) fn cases(half: DType, out: DType) -> Vec<Case> {
    planned(half, out, |activation, [x, weight], bias, residual| {
        LinearHalf { activation, out }.plan(x, weight, bias, residual)
    })
}
