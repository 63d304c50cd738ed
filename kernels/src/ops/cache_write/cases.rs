use super::CacheWrite;
use crate::{Case, DType, Fill, TensorDesc, Tolerance};

struct Shape {
    rows: usize,
    steps: usize,
    /// Row length of k and v, and where keys and values start in it; v is one column longer where keys start at 0.
    cols: [usize; 3],
    width: usize,
    /// Pages of the caches, positions of a page, pages of a row.
    paging: [usize; 3],
    positions: Fill,
    pages: Fill,
    amplitude: f32,
    why: &'static str,
}

const NONE: u32 = u32::MAX;

const SHAPES: &[Shape] = &[
    Shape {
        rows: 0,
        steps: 1,
        cols: [12, 4, 8],
        width: 4,
        paging: [2, 4, 2],
        positions: Fill::Below(1),
        pages: Fill::Below(1),
        amplitude: 1.0,
        why: "no rows: the caches stay as they are",
    },
    Shape {
        rows: 2,
        steps: 0,
        cols: [12, 4, 8],
        width: 4,
        paging: [2, 4, 2],
        positions: Fill::Below(1),
        pages: Fill::Below(2),
        amplitude: 1.0,
        why: "no steps: the caches stay as they are",
    },
    Shape {
        rows: 2,
        steps: 1,
        cols: [12, 4, 8],
        width: 4,
        paging: [0, 4, 2],
        positions: Fill::Below(1),
        pages: Fill::Below(2),
        amplitude: 1.0,
        why: "no cache",
    },
    Shape {
        rows: 2,
        steps: 1,
        cols: [12, 4, 8],
        width: 4,
        paging: [3, 4, 0],
        positions: Fill::Below(1),
        pages: Fill::Below(2),
        amplitude: 1.0,
        why: "no pages of a row",
    },
    Shape {
        rows: 1,
        steps: 1,
        cols: [1, 0, 0],
        width: 1,
        paging: [1, 1, 1],
        positions: Fill::Below(1),
        pages: Fill::Below(1),
        amplitude: 1.0,
        why: "smallest: half a word, keys that are the values",
    },
    Shape {
        rows: 3,
        steps: 5,
        cols: [17, 2, 9],
        width: 7,
        paging: [13, 3, 4],
        positions: Fill::Cycle(&[0, 4, 6]),
        pages: Fill::Stepping { stride: 5, below: 13 },
        amplitude: 1.0,
        why: "odd rows: words shared by positions; page edges at odd places",
    },
    Shape {
        rows: 4,
        steps: 7,
        cols: [99, 33, 66],
        width: 33,
        paging: [9, 4, 3],
        positions: Fill::Cycle(&[0, 3, 8, 2]),
        pages: Fill::Cycle(&[0, 1, 2, 3, NONE, 4, 5, 9, 6, 7, 8, NONE - 1]),
        amplitude: 70_000.0,
        why: "pages that are not there; up to infinity in f16",
    },
    Shape {
        rows: 5,
        steps: 3,
        cols: [24, 8, 16],
        width: 8,
        paging: [10, 2, 2],
        positions: Fill::Cycle(&[0, 2, 4, NONE, NONE - 1]),
        pages: Fill::Stepping { stride: 3, below: 10 },
        amplitude: 1e-7,
        why: "positions past the last page and past all numbers; subnormal in f16",
    },
    Shape {
        rows: 130,
        steps: 1,
        cols: [48, 16, 32],
        width: 4,
        paging: [130, 1, 1],
        positions: Fill::Cycle(&[0]),
        pages: Fill::Stepping { stride: 7, below: 130 },
        amplitude: 1.0,
        why: "many rows of whole vectors, a position a page",
    },
    Shape {
        rows: 7,
        steps: 1,
        cols: [264, 88, 176],
        width: 66,
        paging: [64, 16, 9],
        positions: Fill::Cycle(&[0, 15, 16, 17, 31, 143, 144]),
        pages: Fill::Stepping { stride: 11, below: 64 },
        amplitude: 6.2e-5,
        why: "half vectors; first and last positions of pages",
    },
    Shape {
        rows: 2,
        steps: 37,
        cols: [3072, 1024, 2048],
        width: 1024,
        paging: [17, 16, 8],
        positions: Fill::Cycle(&[0, 75]),
        pages: Fill::Stepping { stride: 2, below: 17 },
        amplitude: 1.0,
        why: "a prompt of MusicGen-small",
    },
    Shape {
        rows: 128,
        steps: 1,
        cols: [3072, 1024, 2048],
        width: 1024,
        paging: [128, 16, 1],
        positions: Fill::Below(16),
        pages: Fill::Stepping { stride: 1, below: 128 },
        amplitude: 1.0,
        why: "a step of 64 takes of MusicGen-small with guidance",
    },
];

/// Once is enough: the launch is the same in every type.
const MANY: Shape = Shape {
    rows: 65_537,
    steps: 1,
    cols: [3, 1, 2],
    width: 1,
    paging: [65_537, 1, 1],
    positions: Fill::Cycle(&[0]),
    pages: Fill::Stepping { stride: 3, below: 65_537 },
    amplitude: 1.0,
    why: "more workgroups than one axis holds",
};

pub(super) fn cases(cached: DType) -> Vec<Case> {
    let case = |shape: &Shape| {
        let [cols, k_first, v_first] = shape.cols;
        let [pages_held, page_steps, pages_per_row] = shape.paging;
        let cache = TensorDesc::new(cached, [pages_held, page_steps, shape.width]);
        let rows = shape.rows * shape.steps;
        let plan = CacheWrite { steps: shape.steps, k_first, v_first }.plan(
            &TensorDesc::f32([rows, cols]),
            &TensorDesc::f32([rows, cols + usize::from(k_first == 0)]),
            &TensorDesc::u32([shape.rows]),
            &TensorDesc::u32([shape.rows, pages_per_row]),
            &cache,
            &cache,
        );
        Case {
            why: shape.why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![
                ("k", Fill::Noise(shape.amplitude)),
                ("v", Fill::Noise(shape.amplitude)),
                ("positions", shape.positions.clone()),
                ("pages", shape.pages.clone()),
            ],
            tolerance: Tolerance::EXACT,
        }
    };
    SHAPES.iter().chain((cached == DType::F32).then_some(&MANY)).map(case).collect()
}
