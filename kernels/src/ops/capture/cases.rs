use super::Capture;
use crate::{Case, DType, Fill, TensorDesc, Tolerance};

/// (rows, cols, kept, filling of the index, amplitude of x, why)
type Shape = (usize, usize, Option<(usize, Fill)>, f32, &'static str);

const SHAPES: &[Shape] = &[
    (0, 5, None, 1.0, "no rows"),
    (3, 0, None, 1.0, "no columns"),
    (4, 5, Some((0, Fill::Below(4))), 1.0, "nothing kept"),
    (1, 1, None, 1.0, "smallest: half a word"),
    (3, 171, None, 1.0, "one past a workgroup of words, odd"),
    (2, 256, None, 70_000.0, "one workgroup of words; up to infinity in f16"),
    (7, 101, Some((5, Fill::Stepping { stride: 3, below: 7 })), 1e-7, "rows out of order; subnormal in f16"),
    (9, 33, Some((21, Fill::Below(9))), 6.2e-5, "rows more than once; normal and subnormal in f16"),
    (3, 7, Some((6, Fill::Below(40))), 1.0, "indices past the last row read the last"),
    (
        300,
        36,
        Some((250, Fill::Stepping { stride: 7, below: 300 })),
        1.0,
        "rows of whole vectors that end within blocks",
    ),
    (5, 67, None, f32::MAX, "up to infinity in bf16"),
    (5, 67, None, 1e-38, "subnormal in f32"),
    (5, 67, None, f32::INFINITY, "infinities"),
    (
        501,
        1024,
        Some((250, Fill::Stepping { stride: 2, below: 501 })),
        3.0,
        "every other row of MusicGen-small",
    ),
    (65_537, 515, None, 1.0, "more workgroups than one axis holds"),
];

pub(super) fn cases(dtype: DType) -> Vec<Case> {
    let case = |&(rows, cols, ref kept, amplitude, why): &Shape| {
        let index = kept.as_ref().map(|(kept, _)| TensorDesc::u32([*kept]));
        let plan = Capture { dtype }.plan(&TensorDesc::f32([rows, cols]), index.as_ref());
        let mut fill = vec![("x", Fill::Noise(amplitude))];
        fill.extend(kept.as_ref().map(|(_, fill)| ("rows_index", fill.clone())));
        Case { why, plan: plan.expect("a case's shapes fit"), fill, tolerance: Tolerance::EXACT }
    };
    SHAPES.iter().map(case).collect()
}
