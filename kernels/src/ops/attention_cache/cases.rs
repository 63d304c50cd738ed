use super::AttentionCache;
use crate::{Case, DType, Fill, TensorDesc, Tolerance};

struct Shape {
    /// Rows, heads, head_dim, columns of q beside the query.
    sizes: [usize; 4],
    /// Pages of the caches, positions of a page, pages of a row.
    paging: [usize; 3],
    positions: Fill,
    pages: Fill,
    extra: usize,
    chunk: usize,
    /// Of q.
    amplitude: f32,
    why: &'static str,
}

const NONE: u32 = u32::MAX;

const SHAPES: &[Shape] = &[
    Shape {
        sizes: [0, 2, 4, 0],
        paging: [2, 4, 2],
        positions: Fill::Below(1),
        pages: Fill::Below(2),
        extra: 1,
        chunk: 4,
        amplitude: 1.0,
        why: "no rows",
    },
    Shape {
        sizes: [2, 2, 4, 0],
        paging: [2, 4, 0],
        positions: Fill::Below(9),
        pages: Fill::Below(2),
        extra: 1,
        chunk: 4,
        amplitude: 1.0,
        why: "no pages of a row: zeros",
    },
    Shape {
        sizes: [2, 2, 64, 5],
        paging: [0, 4, 3],
        positions: Fill::Below(9),
        pages: Fill::Below(2),
        extra: 1,
        chunk: 5,
        amplitude: 1.0,
        why: "no cache: chunks without keys",
    },
    Shape {
        sizes: [1, 1, 1, 0],
        paging: [1, 1, 1],
        positions: Fill::Below(1),
        pages: Fill::Below(1),
        extra: 1,
        chunk: 1,
        amplitude: 1.0,
        why: "smallest: a copy of v",
    },
    Shape {
        sizes: [6, 3, 8, 48],
        paging: [40, 1, 11],
        positions: Fill::Cycle(&[0, 3, 4, 5, 10, 11]),
        pages: Fill::Below(40),
        extra: 1,
        chunk: 4,
        amplitude: 1.0,
        why: "a position a page, around the edges of chunks",
    },
    Shape {
        sizes: [5, 3, 33, 0],
        paging: [12, 7, 4],
        positions: Fill::Cycle(&[0, 1, 20, 28, 5]),
        pages: Fill::Cycle(&[3, 0, 11, 7, NONE, 1, 2, 3, 5, 4, NONE, 6, 8, 12, 9, 10, 9, 9, 2, 1]),
        extra: 0,
        chunk: 100,
        amplitude: 1.0,
        why: "odd rows and pages, pages that are not there, no extra key: zeros for a row",
    },
    Shape {
        sizes: [3, 2, 65, 260],
        paging: [9, 64, 2],
        positions: Fill::Cycle(&[63, 64, 127]),
        pages: Fill::Stepping { stride: 2, below: 9 },
        extra: 1,
        chunk: 50,
        amplitude: 30.0,
        why: "head_dim one past a power of two; chunks that end within pages, the maximum moves",
    },
    Shape {
        sizes: [4, 1, 128, 0],
        paging: [5, 16, 3],
        positions: Fill::Cycle(&[40, NONE, 0, 16]),
        pages: Fill::Cycle(&[0, 1, 2]),
        extra: 3,
        chunk: 16,
        amplitude: 1.0,
        why: "longest head; rows that share pages, a position past all numbers",
    },
    Shape {
        sizes: [2, 3, 20, 7],
        paging: [30, 3, 11],
        positions: Fill::Cycle(&[31, 17]),
        pages: Fill::Stepping { stride: 7, below: 30 },
        extra: 1,
        chunk: 64,
        amplitude: 200.0,
        why: "scores so far apart that one key takes all",
    },
    Shape {
        sizes: [2, 1, 20, 0],
        paging: [100, 6, 100],
        positions: Fill::Cycle(&[519, 600]),
        pages: Fill::Stepping { stride: 3, below: 100 },
        extra: 1,
        chunk: 600,
        amplitude: 1.0,
        why: "more keys than a block notes at once",
    },
    Shape {
        sizes: [8, 2, 64, 256],
        paging: [50, 16, 3],
        positions: Fill::Cycle(&[0, 1, 6, 7, 8, 14, 15, 16]),
        pages: Fill::Stepping { stride: 7, below: 50 },
        extra: 1,
        chunk: 48,
        amplitude: 1.0,
        why: "head_dim 64: few keys, around the first page's edge",
    },
    Shape {
        sizes: [9, 2, 64, 3],
        paging: [40, 16, 8],
        positions: Fill::Cycle(&[30, 31, 32, 62, 63, 126, 127, 128, NONE]),
        pages: Fill::Stepping { stride: 3, below: 40 },
        extra: 1,
        chunk: 32,
        amplitude: 30.0,
        why: "head_dim 64: around the edges of chunks and of the capacity, the maximum moves",
    },
    Shape {
        sizes: [3, 1, 64, 0],
        paging: [9, 64, 2],
        positions: Fill::Cycle(&[100, 127, 20]),
        pages: Fill::Cycle(&[0, 1, 0, NONE, 9, 3]),
        extra: 2,
        chunk: 128,
        amplitude: 200.0,
        why: "head_dim 64: long pages, some that are not there; one key takes all",
    },
    Shape {
        sizes: [2, 1, 64, 128],
        paging: [500, 5, 230],
        positions: Fill::Cycle(&[1149, 511]),
        pages: Fill::Below(500),
        extra: 1,
        chunk: 2000,
        amplitude: 1.0,
        why: "head_dim 64: more keys than a block notes at once, odd pages",
    },
    Shape {
        sizes: [130, 2, 8, 8],
        paging: [3, 4, 3],
        positions: Fill::Below(12),
        pages: Fill::Below(4),
        extra: 1,
        chunk: 12,
        amplitude: 1.0,
        why: "many rows",
    },
    Shape {
        sizes: [130, 1, 8, 8],
        paging: [3, 4, 3],
        positions: Fill::Below(12),
        pages: Fill::Below(4),
        extra: 1,
        chunk: 5,
        amplitude: 1.0,
        why: "many rows in chunks",
    },
    Shape {
        sizes: [2, 16, 64, 2048],
        paging: [188, 16, 94],
        positions: Fill::Cycle(&[1503, 1500]),
        pages: Fill::Stepping { stride: 5, below: 188 },
        extra: 1,
        chunk: 256,
        amplitude: 1.0,
        why: "thirty seconds of MusicGen-small with guidance",
    },
    Shape {
        sizes: [6, 16, 64, 2048],
        paging: [192, 16, 32],
        positions: Fill::Cycle(&[511]),
        pages: Fill::Stepping { stride: 5, below: 192 },
        extra: 1,
        chunk: 512,
        amplitude: 1.0,
        why: "three takes of ten seconds of MusicGen-small with guidance",
    },
];

/// Once is enough: the launch is the same in every type.
const MANY: Shape = Shape {
    sizes: [65_537, 1, 1, 0],
    paging: [7, 1, 1],
    positions: Fill::Below(2),
    pages: Fill::Below(8),
    extra: 0,
    chunk: 1,
    amplitude: 1.0,
    why: "more workgroups than one axis holds",
};

pub(super) fn cases(cached: DType) -> Vec<Case> {
    let case = |shape: &Shape| {
        let [rows, heads, head_dim, beside] = shape.sizes;
        let [pages_held, page_steps, pages_per_row] = shape.paging;
        let cache = TensorDesc::new(cached, [pages_held, page_steps, heads * head_dim]);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let op = AttentionCache { heads, scale, extra: shape.extra, chunk: shape.chunk };
        let plan = op.plan(
            &TensorDesc::f32([rows, heads * head_dim + beside]),
            &cache,
            &cache,
            &TensorDesc::u32([rows, pages_per_row]),
            &TensorDesc::u32([rows]),
        );
        // A score of at most `score` is off by a few of its units in the last place, and so, relatively, is its weight; WGSL
        // grants exp an error of 3 + 2 |x| units. Sums that are not divided by the sum of weights are larger by that.
        let score = f64::from(shape.amplitude) * f64::from(scale) * head_dim as f64;
        let weight = 1e-6 + 5e-7 * score;
        let split = op.chunks(pages_per_row * page_steps) > 1;
        let weights = if split { (shape.chunk as f64 / 8.0).max(1.0) } else { 1.0 };
        Case {
            why: shape.why,
            plan: plan.expect("a case's shapes fit"),
            fill: vec![
                ("q", Fill::Noise(shape.amplitude)),
                ("positions", shape.positions.clone()),
                ("pages", shape.pages.clone()),
            ],
            tolerance: Tolerance {
                abs: weight * weights,
                rel: if split { weight } else { 1e-6 },
                why: "rounding of scores and of exp of their differences",
            },
        }
    };
    SHAPES.iter().chain((cached == DType::F32).then_some(&MANY)).map(case).collect()
}
