use super::super::best::{Best, key, of_key};
use super::super::{Params, cpu::cpu};
use super::levels::{Levels, MOST_WEIGHT, Rows, largest};
use super::line::Line;
use super::panel::Panel;
use super::search;
use super::tile::{FEATURES, ROWS, multiply};
use crate::gemm::dots;
use crate::{HostSlot, noise};
use pulp::x86::V3;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn simd() -> V3 {
    V3::try_new().expect("a processor with AVX2")
}

/// Rows, weight and bias.
#[derive(Clone)]
struct Input {
    width: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Input {
    fn new(rows: usize, width: usize, features: usize) -> Self {
        let [x, weight, bias] = [("x", rows * width), ("weight", features * width), ("bias", features)]
            .map(|(slot, n)| noise(&format!("screen/{slot}/{rows}/{width}/{features}"), n).collect());
        Self { width, x, weight, bias }
    }

    fn value(&self, x: &[f32], feature: usize) -> f32 {
        let [product] = dots([&self.weight[feature * self.width..][..self.width]], x);
        product + self.bias[feature]
    }

    /// Keys of the best of every row, from products in f32 of all features.
    fn want(&self, k: usize) -> Vec<Vec<u64>> {
        let of_row = |x: &[f32]| {
            let values = (0..self.bias.len()).map(|feature| (self.value(x, feature), feature as u32));
            let mut keys: Vec<u64> = values.filter(|(v, _)| *v > 0.0).map(|(v, f)| key(v, f)).collect();
            keys.sort_unstable_by(|a, b| b.cmp(a));
            keys.truncate(k);
            keys
        };
        self.x.chunks_exact(self.width).map(of_row).collect()
    }

    /// What [`search`] finds, in order.
    fn got(&self, k: usize) -> Option<Vec<Option<Vec<u64>>>> {
        let sorted = |mut best: Best| {
            best.keys.sort_unstable_by(|a, b| b.cmp(a));
            best.keys
        };
        let found = search(k, self.width, &self.x, &self.weight, &self.bias)?;
        Some(found.into_iter().map(|best| best.map(sorted)).collect())
    }

    /// What the host form writes.
    fn written(&self, k: usize) -> (Vec<u32>, Vec<f32>) {
        let rows = self.x.len() / self.width;
        let [count, width, features, places] = [rows, self.width, self.bias.len(), k].map(|n| n as u32);
        let params =
            Params { rows: count, width, features, k: places, first_feature: 0, span: features, pad: [0; 2] };
        let (mut indices, mut values) = (vec![0_u32; rows * k], vec![0.0_f32; rows * k]);
        let mut slots = [
            HostSlot::Read(bytemuck::cast_slice(&self.x)),
            HostSlot::Read(bytemuck::cast_slice(&self.weight)),
            HostSlot::Read(bytemuck::cast_slice(&self.bias)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut indices)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut values)),
        ];
        cpu(bytemuck::bytes_of(&params), &mut slots);
        (indices, values)
    }

    /// That the search finds just what products in f32 of all features say.
    fn check(&self, k: usize, what: &str) {
        let got = self.got(k).unwrap_or_else(|| panic!("{what}: the search gave up"));
        for (row, (got, want)) in got.iter().zip(self.want(k)).enumerate() {
            assert_eq!(got.as_ref(), Some(&want), "{what}: row {row}");
        }
    }
}

#[test]
fn finds_what_products_in_f32_find() {
    for (rows, width, features, k) in [
        (1, 1, 1, 1),
        (7, 3, 40, 2),
        (13, 31, 900, 3),
        (24, 33, 1024, 8),
        (25, 100, 1025, 5),
        (50, 257, 2500, 20),
        (31, 1024, 3000, 10),
        (9, 4100, 700, 4),
        (40, 128, 5000, 300),
    ] {
        Input::new(rows, width, features)
            .check(k, &format!("{rows} rows, {width} columns, {features} features"));
    }
}

#[test]
fn rows_of_every_size_and_shape_lose_nothing() {
    let plain = Input::new(40, 200, 3000);
    let changed = |change: &dyn Fn(&mut Input), what: &str| {
        let mut input = plain.clone();
        change(&mut input);
        input.check(12, what);
    };
    changed(&|input| input.x.iter_mut().for_each(|v| *v *= 1e-9), "tiny rows");
    changed(&|input| input.x.iter_mut().for_each(|v| *v *= 1e12), "huge rows");
    changed(&|input| input.weight.iter_mut().for_each(|v| *v *= 1e9), "huge weights");
    changed(
        &|input| {
            for (row, x) in input.x.chunks_exact_mut(200).enumerate() {
                x.iter_mut().for_each(|v| *v *= 10_f32.powi(row as i32 % 13 - 6));
            }
        },
        "rows of many sizes",
    );
    changed(
        &|input| {
            for (feature, weight) in input.weight.chunks_exact_mut(200).enumerate() {
                weight.iter_mut().for_each(|v| *v *= 10_f32.powi(feature as i32 % 5 - 2));
            }
        },
        "features of many sizes",
    );
    changed(&|input| input.x.chunks_exact_mut(200).for_each(|x| x[7] += 50.0), "a column far from 0");
    changed(&|input| input.x[400..800].fill(0.0), "rows of zeros");
    changed(&|input| input.weight[2000..60_000].fill(0.0), "features of zeros");
    changed(&|input| input.bias.iter_mut().for_each(|v| *v -= 20.0), "few above 0");
    changed(&|input| input.bias.iter_mut().for_each(|v| *v -= 1e6), "none above 0");
    changed(&|input| input.bias[100..120].fill(1e9), "a few that are always best");
    changed(
        &|input| {
            let (first, rest) = input.weight.split_at_mut(1000 * 200);
            rest[..1000 * 200].copy_from_slice(first);
            rest[1000 * 200..].copy_from_slice(first);
            let first = input.bias[..1000].to_vec();
            input.bias[1000..2000].copy_from_slice(&first);
            input.bias[2000..].copy_from_slice(&first);
        },
        "every feature three times",
    );
    changed(
        &|input| input.x.iter_mut().chain(&mut input.weight).for_each(|v| *v = v.signum()),
        "signs alone",
    );
}

#[test]
fn a_search_that_can_tell_nothing_gives_up() {
    let mut input = Input::new(40, 200, 6000);
    input.x.chunks_exact_mut(200).for_each(|x| x[3] *= 1e5);
    input.weight.chunks_exact_mut(200).for_each(|weight| weight[3] *= 1e-5);
    assert!(input.got(12).is_none(), "one column hides all others");
    for bad in [f32::NAN, f32::INFINITY, 1e30, 1e-30] {
        let mut input = Input::new(3, 20, 50);
        input.weight[20..40].fill(bad);
        assert!(input.got(4).is_none(), "{bad} in weight");
    }
    let mut input = Input::new(3, 20, 50);
    input.bias[7] = f32::NAN;
    assert!(input.got(4).is_none(), "a bias that is not a number");
}

#[test]
fn rows_of_which_nothing_can_be_told_are_left_and_no_others() {
    let k = 12;
    let mut input = Input::new(40, 200, 6000);
    for bad in [f32::NAN, f32::INFINITY, 1e30, 1e-30] {
        let mut input = input.clone();
        input.x[200..400].fill(bad);
        let got = input.got(k).expect("most rows can be told");
        for (row, (got, want)) in got.iter().zip(input.want(k)).enumerate() {
            assert_eq!(got.as_ref(), (row != 1).then_some(&want), "{bad} in row 1, row {row}");
        }
    }
    // one column hides all others
    let hidden = [5, 17, 39];
    input.weight.chunks_exact_mut(200).for_each(|weight| weight[3] *= 1e-5);
    hidden.iter().for_each(|row| input.x[row * 200 + 3] *= 1e5);
    let (got, want) = (input.got(k).expect("most rows can be told"), input.want(k));
    let (indices, values) = input.written(k);
    for (row, (got, want)) in got.iter().zip(&want).enumerate() {
        assert_eq!(got.as_ref(), (!hidden.contains(&row)).then_some(want), "row {row}");
        for (at, &key) in want.iter().enumerate() {
            let (value, feature) = of_key(key);
            assert_eq!(indices[row * k + at], feature, "row {row}, place {at}");
            // 200 terms in another order
            assert!((values[row * k + at] - value).abs() <= 1e-5 * value, "row {row}, place {at}");
        }
    }
}

#[test]
fn the_best_side_by_side_are_found() {
    let (k, first) = (12, 3000);
    let mut input = Input::new(40, 200, 6000);
    input.bias[first..first + k].fill(100.0);
    // the guess is wrong at most where all of them come first, which products in f32 then see to
    for first in [0, first] {
        input.bias.rotate_left(first);
        let (indices, _) = input.written(k);
        for (row, want) in input.want(k).iter().enumerate() {
            let want: Vec<u32> = want.iter().map(|&key| of_key(key).1).collect();
            assert_eq!(indices[row * k..][..k], want, "row {row}");
        }
    }
}

#[test]
fn products_are_those_of_the_whole_numbers_and_within_the_bounds() {
    let simd = simd();
    for (rows, width, size) in [(6, 1, 1.0), (5, 40, 1.0), (11, 129, 1e-8), (6, 1025, 1e8), (6, 4096, 1.0)] {
        let mut input = Input::new(rows, width, 20);
        input.x.iter_mut().for_each(|v| *v *= size);
        // rows whose numbers have one sign and one size make the largest sums
        input.x[..width].fill(size);
        input.x[width..2 * width].fill(-size);
        input.weight[..width].fill(1.0);
        input.weight[width..2 * width].fill(-1.0);
        let of_x = Rows::new(simd, &input.x, width);
        assert!(of_x.sane.iter().all(|sane| *sane));
        let mut panel = Panel::new(of_x.groups, 2, 1);
        assert!(panel.fill(simd, &of_x, &input.weight, &input.bias, 0));
        for (group, words) in of_x.words.chunks_exact(of_x.groups).enumerate() {
            for (tile, (features, bounds)) in
                panel.words.chunks_exact(of_x.groups).zip(&panel.bounds).enumerate()
            {
                let mut products = [[0; FEATURES]; ROWS];
                simd.vectorize(
                    #[inline(always)]
                    || multiply(simd, words, features, &mut products),
                );
                for (row, at) in (0..ROWS).flat_map(|row| (0..FEATURES).map(move |at| (row, at))) {
                    let byte = |word: i32, n: usize| word.to_ne_bytes()[n];
                    let whole =
                        words.iter().zip(features).flat_map(|(x, weight)| x.iter().zip(&weight.words));
                    let sum: i32 = whole
                        .flat_map(|(x, weight)| {
                            (0..4).map(move |n| (byte(x[row], n), byte(weight[at], n) as i8))
                        })
                        .map(|(x, weight)| (i32::from(x) - 128) * i32::from(weight))
                        .sum();
                    let (number, feature) = (group * ROWS + row, tile * FEATURES + at);
                    if number >= rows || feature >= 20 {
                        continue;
                    }
                    assert_eq!(products[row][at], sum, "{rows} x {width}, row {number}, feature {feature}");
                    let x = &input.x[number * width..][..width];
                    let bound = &of_x.bounds[number];
                    let (unit, error) = (bound.unit * bounds.units[at], bounds.error(bound, at));
                    let base = bound.share * bounds.middles[at] + bounds.biases[at];
                    let upper = (sum as f32 + error) * unit + base;
                    let lower = (sum as f32 - error) * unit + base - bounds.roundings[at];
                    let value = input.value(x, feature);
                    assert!(lower <= value && value <= upper, "{lower} <= {value} <= {upper}, width {width}");
                }
            }
        }
    }
}

#[test]
fn levels_leave_out_no_more_than_they_say() {
    for (n, size) in [(1, 1.0_f32), (16, 1e-9), (33, 3e7), (1000, 0.02), (4099, 1.0)] {
        let mut row: Vec<f32> = noise(&format!("screen/levels/{n}"), n).map(|v| v * size).collect();
        row[0] = 3.0 * size;
        let mut whole = vec![99_i8; n.next_multiple_of(32)];
        let levels = Levels::of(simd(), &row, largest(&row), MOST_WEIGHT, 0.0, &mut whole);
        assert_eq!(whole[0], 64);
        let unit = f64::from(levels.unit);
        let squares = |part: &dyn Fn(f64, f64) -> f64| -> f64 {
            row.iter().zip(&whole).map(|(&v, &w)| part(f64::from(v) / unit, f64::from(w)).powi(2)).sum()
        };
        assert!(squares(&|_, w| w).sqrt() <= f64::from(levels.whole));
        let rest = squares(&|v, w| v - w).sqrt();
        assert!(rest <= f64::from(levels.rest) && rest <= 0.5001 * (n as f64).sqrt(), "{n}: {rest}");
        assert!(whole[n..].iter().all(|&w| w == 0), "columns behind the last are 0");
    }
}

/// Leads rows of three a block past panels by so many threads; every row is told the numbers that it saw, and where the run was
/// stopped by `goes_on`, false comes back.
fn led(
    threads: usize,
    rows: &mut [Vec<usize>],
    panels: usize,
    goes_on: impl Fn(usize) -> bool + Sync,
) -> bool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a few threads");
    pool.install(|| {
        let line = Line::new(panels, || usize::MAX, rows.chunks_mut(3));
        let make = |number: usize, panel: &mut usize| {
            *panel = number;
            true
        };
        line.run(make, |number, panel, block, rows| {
            rows.iter_mut().for_each(|row| row.extend([*panel, block]));
            goes_on(number)
        })
    })
}

#[test]
fn every_block_sees_every_panel_in_order() {
    for (threads, count, panels) in [(1, 1, 1), (1, 10, 7), (2, 7, 40), (4, 2, 9), (4, 40, 100)] {
        let mut rows = vec![Vec::new(); count];
        assert!(led(threads, &mut rows, panels, |_| true));
        for (row, seen) in rows.iter().enumerate() {
            let want: Vec<usize> = (0..panels).flat_map(|panel| [panel, row / 3]).collect();
            assert_eq!(*seen, want, "{threads} threads, row {row} of {count}");
        }
    }
}

#[test]
fn blocks_stop_where_one_says_so_and_where_one_panics() {
    for threads in [1, 4] {
        let mut rows = vec![Vec::new(); 20];
        assert!(!led(threads, &mut rows, 50, |panel| panel != 30));
        assert!(rows.iter().all(|seen| seen.len() <= 2 * 31), "{threads} threads");
        let panics =
            || led(threads, &mut rows, 50, |panel| if panel == 30 { panic!("on purpose") } else { true });
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err(), "{threads} threads");
    }
}
