use super::SaeMerge;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// Lists of a case: for a row and a part, how many are above 0, and the value of each from the best down.
struct Lists {
    rows: usize,
    parts: usize,
    k: usize,
    why: &'static str,
}

impl Lists {
    /// Place `place` of a part of a row has a value above 0 where `of(row, part, place)` is `Some`; what is none ends a list.
    fn case(self, of: impl Fn(usize, usize, usize) -> Option<f32>) -> Case {
        let Self { rows, parts, k, why } = self;
        let (mut indices, mut values) = (Vec::new(), Vec::new());
        for row in 0..rows {
            for part in 0..parts {
                let mut list: Vec<f32> = (0..k).map_while(|place| of(row, part, place)).collect();
                list.sort_by(|a, b| b.total_cmp(a));
                for place in 0..k {
                    let value = list.get(place).copied().unwrap_or(0.0);
                    values.push(value.to_bits());
                    // equals in the order of their features; one that is no number has none
                    let index = if value > 0.0 { part * 2 * k + place + place.min(k / 2) } else { 0 };
                    indices.push(index as u32);
                }
            }
        }
        let [of_indices, of_values] = [TensorDesc::u32, TensorDesc::f32].map(|desc| desc([rows, parts, k]));
        Case {
            why,
            plan: SaeMerge.plan(&of_indices, &of_values).expect("a case's shapes fit"),
            fill: vec![("part_indices", Fill::Words(indices)), ("part_values", Fill::Words(values))],
            tolerance: Tolerance { why: "values are moved", ..Tolerance::EXACT },
        }
    }
}

/// A number of 24 bits that hangs on all three.
fn mixed(row: usize, part: usize, place: usize) -> u32 {
    let mut bits = (row * 0x9e37_79b1 + part * 0x85eb_ca77 + place * 0xc2b2_ae3d) as u32;
    bits = (bits ^ bits >> 15).wrapping_mul(0x2c1b_3c6d);
    (bits ^ bits >> 13) >> 8
}

/// Values of a few sizes, no two of which are equal but by chance.
fn spread(row: usize, part: usize, place: usize) -> Option<f32> {
    let bits = mixed(row, part, place);
    Some((bits + 1) as f32 * [1e-3, 1.0, 64.0][bits as usize % 3])
}

pub(super) fn cases() -> Vec<Case> {
    let lists = |rows, parts, k, why| Lists { rows, parts, k, why };
    vec![
        lists(0, 3, 5, "no rows").case(spread),
        lists(1, 1, 1, "smallest").case(spread),
        lists(7, 1, 33, "one list").case(spread),
        lists(5, 256, 7, "the most lists, more of them than places").case(spread),
        lists(3, 132, 100, "what the published k asks for").case(spread),
        lists(2, 9, 1024, "the most places").case(spread),
        lists(65, 11, 30, "lists of any length").case(|row, part, place| {
            (place < mixed(row, part, 0) as usize % 40).then(|| spread(row, part, place)).flatten()
        }),
        lists(4, 6, 20, "fewer above 0 than places")
            .case(|row, part, place| (part == row && place < 3 * row).then_some(2.5)),
        lists(3, 20, 9, "all equal: the first features").case(|_, _, _| Some(1.5)),
        lists(5, 40, 50, "many equals about the last place")
            .case(|row, part, place| Some((mixed(row, part, place) % 7 + 1) as f32)),
        lists(4, 5, 8, "the best in the last list")
            .case(|_, part, place| Some((1 + part * 100 + place) as f32)),
        lists(3, 12, 5, "infinity, the largest number and the least").case(|row, part, place| {
            let odd = [f32::INFINITY, f32::MAX, f32::from_bits(1), f32::MIN_POSITIVE];
            Some(odd[mixed(row, part, place) as usize % 4])
        }),
        lists(6, 7, 4, "rows that are not numbers spoil no other").case(|row, part, place| {
            if (row, part) == (1, 6) || (row, part) == (4, 0) {
                Some(f32::NAN)
            } else {
                spread(row, part, place)
            }
        }),
    ]
}
