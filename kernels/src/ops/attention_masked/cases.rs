use super::AttentionMasked;
use crate::{Case, DType, Fill, TensorDesc, Tolerance};

/// Whether a case has a bias.
#[derive(Clone, Copy, PartialEq)]
enum Bias {
    None,
    Noise(f32),
}

use Bias::Noise;

/// (batch, q_steps, k_steps, heads, head_dim, bias, amplitude of q, why)
type Shape = (usize, usize, usize, usize, usize, Bias, f32, &'static str);

const SHAPES: &[Shape] = &[
    (0, 3, 5, 2, 4, Bias::None, 1.0, "no sequences"),
    (3, 0, 5, 2, 4, Noise(1.0), 1.0, "no queries"),
    (2, 3, 0, 2, 5, Noise(1.0), 1.0, "no keys: zeros"),
    (5, 1, 1, 1, 1, Bias::None, 1.0, "smallest: a copy of v, or 0"),
    (7, 3, 2, 3, 7, Noise(1.0), 1.0, "two keys, one or none; rows of odd length"),
    (6, 5, 9, 3, 5, Noise(4.0), 1.0, "odd heads, odd head_dim, keys end within a tile"),
    (3, 15, 31, 5, 20, Bias::None, 1.0, "one below a block of queries, one below a tile of keys"),
    (2, 16, 32, 1, 33, Noise(1.0), 1.0, "exactly a block of queries and a tile of keys"),
    (9, 17, 33, 3, 96, Bias::None, 1.0, "one past a block of queries and a tile of keys"),
    (3, 33, 65, 2, 127, Noise(1.0), 1.0, "one below the longest head"),
    (2, 31, 64, 1, 128, Bias::None, 1.0, "whole tiles, longest head"),
    (2, 67, 97, 3, 20, Noise(60.0), 3.0, "scores far apart: the maximum moves from tile to tile"),
    (1, 40, 129, 2, 31, Bias::None, 200.0, "one key takes all"),
    (4, 24, 24, 12, 64, Noise(8.0), 1.0, "texts of T5-base"),
    (200, 3, 5, 2, 4, Noise(1.0), 1.0, "more texts than a cut takes at once"),
    (2, 301, 19, 16, 64, Bias::None, 1.0, "six seconds of MusicGen-small and their texts"),
];

pub(super) fn cases(values: DType) -> Vec<Case> {
    // What rounding to nearest may change a value by, relatively: results in half precision are rounded here and in the
    // reference.
    let (unit, subnormal) = match values {
        DType::F16 => (2.0_f64.powi(-11), 2.0_f64.powi(-25)),
        DType::BF16 => (2.0_f64.powi(-8), 0.0),
        _ => (0.0, 0.0),
    };
    let case = |&(batch, q_steps, k_steps, heads, head_dim, bias, amplitude, why): &Shape| {
        let [q, k] =
            [q_steps, k_steps].map(|steps| TensorDesc::new(values, [batch, steps, heads * head_dim]));
        let lengths = TensorDesc::u32([batch]);
        let bias_desc = TensorDesc::f32([heads, q_steps, k_steps]);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (bias_desc, bias) = match bias {
            Bias::None => (None, 0.0),
            Noise(amplitude) => (Some(&bias_desc), amplitude),
        };
        let score = f64::from(amplitude) * f64::from(scale) * head_dim as f64 + f64::from(bias);
        // lengths from 0 to one past the keys
        let bound = u32::try_from(k_steps + 2).expect("a case is small");
        Case {
            why,
            plan: AttentionMasked { heads, scale }
                .plan(&q, &k, &k, &lengths, bias_desc)
                .expect("a case's shapes fit"),
            fill: vec![
                ("q", Fill::Noise(amplitude)),
                ("lengths", Fill::Below(bound)),
                ("bias", Fill::Noise(bias)),
            ],
            // A score of at most `score` is off by a few of its units in the last place, and so, relatively, is its
            // weight; WGSL grants exp an error of 3 + 2 |x| units.
            tolerance: Tolerance {
                abs: 1e-6 + 5e-7 * score + unit + subnormal,
                rel: 1e-6 + 2.0 * unit,
                why: "rounding of scores, of exp of their differences, and in half precision of results",
            },
        }
    };
    SHAPES.iter().map(case).collect()
}
