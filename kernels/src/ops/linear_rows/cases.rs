use super::{Activation, LinearRows};
use crate::{Case, DType, TensorDesc, Tolerance};

/// (rows, cols, outs of each weight, activation, optional slots, why)
type Shape = (usize, usize, &'static [usize], Activation, Extra, &'static str);

/// Which of the optional slots are there.
#[derive(Clone, Copy, PartialEq)]
enum Extra {
    Neither,
    Bias,
    Residual,
    Both,
}

const SHAPES: &[Shape] = &[
    (0, 3, &[5], Activation::None, Extra::Both, "no rows"),
    (3, 5, &[0], Activation::Gelu, Extra::Both, "no outs"),
    (3, 0, &[5, 2], Activation::Elu, Extra::Both, "no columns: activation of the bias, plus residual"),
    (1, 1, &[1], Activation::None, Extra::Neither, "smallest: half a word of a narrow weight"),
    (1, 5, &[3, 1, 2], Activation::None, Extra::Bias, "three weights shorter than any tile of outs"),
    (
        2,
        33,
        &[31, 64],
        Activation::Relu,
        Extra::Both,
        "odd columns: rows of narrow weights start within words",
    ),
    (
        7,
        31,
        &[33],
        Activation::Elu,
        Extra::Residual,
        "one below a tile of rows and below a vector of columns",
    ),
    (8, 64, &[5, 0, 33], Activation::Gelu, Extra::Both, "a whole tile of rows; a weight without rows"),
    (9, 1024, &[5], Activation::None, Extra::Neither, "one past a tile of rows, fewer outs than a tile"),
    (16, 33, &[65, 1, 31], Activation::Gelu, Extra::Residual, "two tiles of rows, three uneven weights"),
    (17, 68, &[20], Activation::None, Extra::Bias, "columns in vectors of four but not of eight"),
    (
        12,
        520,
        &[24, 40],
        Activation::Relu,
        Extra::Residual,
        "one vector of eight past whole blocks of columns",
    ),
    (64, 64, &[64], Activation::None, Extra::Both, "whole tiles everywhere"),
    (65, 31, &[97], Activation::Relu, Extra::Both, "one past eight tiles of rows"),
    (130, 72, &[33, 17], Activation::Elu, Extra::Bias, "more rows than any pass holds"),
    (
        1,
        1024,
        &[1024],
        Activation::None,
        Extra::Residual,
        "one row through an attention output of MusicGen-small",
    ),
    (2, 1024, &[1024, 1024, 1024], Activation::None, Extra::Neither, "queries, keys and values, guided"),
    (2, 1024, &[4096], Activation::Gelu, Extra::Neither, "a feed-forward of MusicGen-small, guided"),
    (2, 4096, &[1024], Activation::None, Extra::Residual, "and its way back"),
    (
        9,
        40,
        &[2101, 13, 4],
        Activation::Gelu,
        Extra::Both,
        "wide tiles of outs that three weights share unevenly",
    ),
    (
        33,
        24,
        &[2117],
        Activation::Elu,
        Extra::Residual,
        "wide tiles of outs, the last in part, for three of rows",
    ),
    (16, 1024, &[520], Activation::None, Extra::Both, "eight takes, guided"),
    (
        65_537,
        1,
        &[3],
        Activation::None,
        Extra::Bias,
        "more rows than workgroups along one axis, by themselves",
    ),
];

pub(super) fn cases(weight: DType) -> Vec<Case> {
    let case = |&(rows, cols, outs, activation, extra, why): &Shape| {
        let total = outs.iter().sum::<usize>();
        let bias = matches!(extra, Extra::Bias | Extra::Both).then(|| TensorDesc::f32([total]));
        let residual = matches!(extra, Extra::Residual | Extra::Both).then(|| TensorDesc::f32([rows, total]));
        let weight = |i: usize| outs.get(i).map(|&outs| TensorDesc::new(weight, [outs, cols]));
        let plan = LinearRows { activation }.plan(
            &TensorDesc::f32([rows, cols]),
            &weight(0).expect("a weight or more"),
            [weight(1).as_ref(), weight(2).as_ref()],
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
