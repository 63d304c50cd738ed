//! Approximate instructions: within what is documented, exact where a table says so, and not better than promised.

use super::table::{NAN, check, f, of_lanes};

const INF: u64 = 0x7f80_0000;

#[test]
fn special_values_are_as_in_the_tables() {
    check(&[
        ("ex2.approx.f32", "f32 f32", &[0xff80_0000], 0),
        ("ex2.approx.f32", "f32 f32", &[f(-0.0)], f(1.0)),
        ("ex2.approx.f32", "f32 f32", &[INF], INF),
        ("ex2.approx.f32", "f32 f32", &[f(129.0)], INF),
        ("ex2.approx.ftz.f32", "f32 f32", &[f(-130.0)], 0),
        ("ex2.approx.ftz.f32", "f32 f32", &[1], f(1.0)),
        ("ex2.approx.f32", "f32 f32", &[NAN], NAN),
        ("lg2.approx.f32", "f32 f32", &[0], 0xff80_0000),
        ("lg2.approx.f32", "f32 f32", &[f(1.0)], 0),
        ("lg2.approx.f32", "f32 f32", &[f(-1.0)], NAN),
        ("lg2.approx.f32", "f32 f32", &[INF], INF),
        ("rcp.approx.f32", "f32 f32", &[0x8000_0000], 0xff80_0000),
        ("rcp.approx.ftz.f32", "f32 f32", &[1], INF),
        ("rcp.approx.f32", "f32 f32", &[0xff80_0000], 0x8000_0000),
        ("rsqrt.approx.f32", "f32 f32", &[0], INF),
        ("rsqrt.approx.f32", "f32 f32", &[INF], 0),
        ("rsqrt.approx.f32", "f32 f32", &[f(-1.0)], NAN),
        ("sqrt.approx.f32", "f32 f32", &[f(-0.0)], 0x8000_0000),
        ("sqrt.approx.f32", "f32 f32", &[INF], INF),
        ("sin.approx.f32", "f32 f32", &[f(-0.0)], 0x8000_0000),
        ("sin.approx.f32", "f32 f32", &[INF], NAN),
        ("cos.approx.f32", "f32 f32", &[0], f(1.0)),
        ("tanh.approx.f32", "f32 f32", &[f(-0.0)], 0x8000_0000),
        ("div.approx.f32", "f32 f32 f32", &[f(1.0), 0x7f00_0001], 0),
        ("div.approx.f32", "f32 f32 f32", &[INF, 0x7f00_0001], NAN),
        ("div.approx.f32", "f32 f32 f32", &[f(-1.0), 0], 0xff80_0000),
        ("div.full.f32", "f32 f32 f32", &[0, 0], NAN),
        ("ex2.approx.f16", "f16 f16", &[0xfc00], 0),
        ("tanh.approx.f16", "b16 b16", &[0], 0),
    ]);
}

/// Errors of an instruction in units of the last place, over operands spread between two numbers.
fn errors(instruction: &str, exact: fn(f64) -> f64, from: f32, to: f32) -> Vec<f64> {
    let operand = |lane: u32| (from + (to - from) * (lane as f32 + 0.37) / 32.0).to_bits();
    let results = of_lanes(instruction, operand);
    let error = |(lane, got): (usize, &f32)| {
        let want = exact(f64::from(f32::from_bits(operand(u32::try_from(lane).unwrap()))));
        let unit = f64::from((want.abs() as f32).next_up() - want.abs() as f32);
        (f64::from(*got) - want) / unit
    };
    results.iter().enumerate().map(error).collect()
}

#[test]
fn errors_are_within_bounds_and_use_them() {
    type Row = (&'static str, fn(f64) -> f64, f32, f32, f64);
    let rows: &[Row] = &[
        ("ex2.approx.f32", f64::exp2, -10.0, 10.0, 2.0),
        ("ex2.approx.ftz.f32", f64::exp2, -1.0, 0.0, 2.0),
        ("rcp.approx.f32", |a| 1.0 / a, 0.3, 40.0, 1.0),
        ("rsqrt.approx.f32", |a| 1.0 / a.sqrt(), 0.3, 40.0, 2.0),
        ("sqrt.approx.f32", f64::sqrt, 0.3, 40.0, 2.0),
    ];
    for (instruction, exact, from, to, units) in rows {
        let errors = errors(instruction, *exact, *from, *to);
        let worst = errors.iter().fold(0.0_f64, |worst, error| worst.max(error.abs()));
        assert!(worst <= *units, "{instruction}: off by {worst} units, documented {units}");
        // exact results would hide kernels that lean on them
        assert!(errors.iter().any(|e| e.abs() > 0.5), "{instruction}: all results are the nearest");
    }
}

#[test]
fn absolute_errors_are_within_bounds_and_use_them() {
    type Row = (&'static str, fn(f64) -> f64, f32, f32, f64);
    let rows: &[Row] = &[
        ("lg2.approx.f32", f64::log2, 0.5, 1.99, -22.0),
        ("sin.approx.f32", f64::sin, -6.0, 6.0, -20.5),
        ("cos.approx.f32", f64::cos, -6.0, 6.0, -20.5),
        ("tanh.approx.f32", f64::tanh, -4.0, 4.0, -11.0),
    ];
    for (instruction, exact, from, to, power) in rows {
        let operand = |lane: u32| (from + (to - from) * (lane as f32 + 0.37) / 32.0).to_bits();
        let mut worst = 0.0_f64;
        for (lane, got) in (0..32).zip(of_lanes(instruction, operand)) {
            let want = exact(f64::from(f32::from_bits(operand(lane))));
            worst = worst.max((f64::from(got) - want).abs());
        }
        let bound = power.exp2();
        assert!(worst <= bound, "{instruction}: off by {worst:e}, documented {bound:e}");
        assert!(worst > bound / 8.0, "{instruction}: off by {worst:e} only, documented {bound:e}");
    }
}
