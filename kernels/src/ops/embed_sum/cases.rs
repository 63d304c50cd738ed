use super::EmbedSum;
use crate::{Case, DType, Fill, TensorDesc, Tolerance};

/// (batch, steps, codebooks, entries, cols, ids below, base, positions, why)
type Shape = (usize, usize, usize, usize, usize, u32, bool, Option<usize>, &'static str);

const SHAPES: &[Shape] = &[
    (0, 3, 4, 7, 5, 7, true, Some(3), "no rows"),
    (2, 3, 4, 7, 0, 7, true, Some(3), "no columns"),
    (1, 1, 1, 1, 1, 1, false, None, "smallest: a copy"),
    (3, 5, 4, 17, 17, 17, false, Some(5), "one below a workgroup, positions start again"),
    (1, 7, 3, 9, 73, 9, true, None, "a base, no positions"),
    (2, 11, 4, 33, 65, 33, true, Some(20), "everything, more positions than steps"),
    (2, 4, 2, 6, 3, 50, false, None, "ids past the last entry read the last"),
    (6, 3, 2, 5, 7, 5, true, Some(4), "a position more often than a thread takes it, odd rows"),
    (
        9,
        5,
        3,
        11,
        12,
        11,
        true,
        Some(5),
        "a position more often than a thread takes it, rows of whole vectors",
    ),
    (1, 501, 4, 2049, 1024, 2049, false, Some(2048), "MusicGen-small"),
    (9, 3, 4, 11, 256, 11, true, Some(4), "a position more often than a warp takes it, one warp's columns"),
    (
        5,
        5,
        8,
        13,
        512,
        40,
        true,
        Some(5),
        "8 codebooks, a position more often than a warp takes it, ids past the last",
    ),
    (8, 2, 4, 7, 768, 7, false, None, "every lane of a warp fetches an id, neither base nor positions"),
    (3, 1, 8, 5, 256, 5, false, Some(1), "8 codebooks of one step"),
    (17, 1931, 1, 31, 512, 31, true, Some(1931), "more workgroups than one axis holds"),
];

/// (rows, steps, codebooks, cols, base, places, at below, why): rows that name their positions
type Chosen = (usize, usize, usize, usize, bool, usize, u32, &'static str);

const CHOSEN: &[Chosen] = &[
    (1, 1, 4, 1024, false, 2048, 2048, "a decoding step of one row"),
    (128, 1, 4, 1024, false, 2048, 2048, "a decoding step of a batch"),
    (11, 1, 8, 256, true, 5, 7, "8 codebooks and a base, positions past the last, one warp's columns"),
    (15, 5, 3, 37, true, 3, 9, "positions past the last, odd rows, fewer positions than steps"),
    (210, 7, 2, 12, true, 40, 40, "rows that start again, a base, devices may cut"),
];

fn chosen(dtype: DType, &(rows, steps, codebooks, cols, base, places, below, why): &Chosen) -> Case {
    let base = base.then(|| TensorDesc::f32([rows, cols]));
    let plan = EmbedSum { steps, entries: 31, first_codebook: 0 }.plan(
        &TensorDesc::u32([rows, codebooks]),
        &TensorDesc::new(dtype, [codebooks * 31, cols]),
        base.as_ref(),
        Some(&TensorDesc::f32([places, cols])),
        Some(&TensorDesc::u32([rows])),
    );
    Case {
        why,
        plan: plan.expect("a case's shapes fit"),
        fill: vec![("ids", Fill::Below(31)), ("at", Fill::Below(below))],
        tolerance: Tolerance { abs: 0.0, rel: 0.0, why: "additions in a defined order" },
    }
}

pub(super) fn cases(dtype: DType) -> Vec<Case> {
    let case = |&(batch, steps, codebooks, entries, cols, below, base, positions, why): &Shape| {
        let rows = batch * steps;
        let base = base.then(|| TensorDesc::f32([rows, cols]));
        let positions = positions.map(|n| TensorDesc::f32([n, cols]));
        let plan = EmbedSum { steps, entries, first_codebook: 0 }.plan(
            &TensorDesc::u32([rows, codebooks]),
            &TensorDesc::new(dtype, [codebooks * entries, cols]),
            base.as_ref(),
            positions.as_ref(),
            None,
        );
        Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![("ids", Fill::Below(below))],
            tolerance: Tolerance { abs: 0.0, rel: 0.0, why: "additions in a defined order" },
        }
    };
    let mut cases: Vec<Case> = SHAPES.iter().map(case).collect();
    let middle = [
        (26, 13, 2, 8, 3, 37, "two codebooks from the middle of eight"),
        (26, 13, 4, 9, 3, 256, "four codebooks from the middle of nine, one warp's columns"),
    ];
    for (rows, steps, codebooks, ids_cols, first_codebook, cols, why) in middle {
        let plan = EmbedSum { steps, entries: 11, first_codebook }.plan(
            &TensorDesc::u32([rows, ids_cols]),
            &TensorDesc::new(dtype, [codebooks * 11, cols]),
            Some(&TensorDesc::f32([rows, cols])),
            None,
            None,
        );
        cases.push(Case {
            why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![("ids", Fill::Below(11))],
            tolerance: Tolerance { abs: 0.0, rel: 0.0, why: "additions in a defined order" },
        });
    }
    cases.extend(CHOSEN.iter().map(|shape| chosen(dtype, shape)));
    cases
}
