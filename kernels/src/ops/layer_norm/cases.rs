use super::LayerNorm;
use crate::{Case, DType, TensorDesc, Tolerance};

/// (rows, cols, why)
const SHAPES: &[(usize, usize, &str)] = &[
    (0, 8, "no rows"),
    (1, 1, "smallest"),
    (3, 31, "row shorter than a workgroup"),
    (4, 128, "exactly one workgroup"),
    (7, 129, "one past a workgroup"),
    (5, 127, "one below a workgroup"),
    (2, 1024, "MusicGen-small width"),
    (9, 1536, "MusicGen-medium width"),
    (3, 2048, "MusicGen-large width"),
    (3, 512, "the narrowest row that a warp of PTX keeps in registers"),
    (2, 2560, "wider than a warp of PTX keeps in registers"),
    (65_537, 3, "more rows than workgroups along one axis"),
];

pub(super) fn cases(out: DType) -> Vec<Case> {
    // a row of 3 can be nearly constant: 1 / sqrt(var + 1e-5) is at most 316, times 2^-24 of |x| <= 1, twice
    let tolerance = match out {
        DType::F16 => Tolerance {
            abs: 8e-5,
            rel: 9.8e-4,
            why: "f32 errs by 8e-5 and may fall to the other side of the middle of two f16, 2^-10 apart",
        },
        DType::BF16 => Tolerance {
            abs: 8e-5,
            rel: 7.9e-3,
            why: "f32 errs by 8e-5 and may fall to the other side of the middle of two bf16, 2^-7 apart",
        },
        _ => Tolerance { abs: 8e-5, rel: 2e-6, why: "cancellation in x - mean, amplified by 1 / sqrt(var)" },
    };
    let case = |&(rows, cols, why): &(usize, usize, &'static str)| {
        let row = TensorDesc::f32([cols]);
        let plan = LayerNorm { eps: 1e-5, out }.plan(&TensorDesc::f32([rows, cols]), &row, &row);
        Case { why, plan: plan.expect("a case's shapes fit"), fill: vec![], tolerance }
    };
    SHAPES.iter().map(case).collect()
}
