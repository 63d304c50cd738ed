//! References of the ops of music generation against cases worked by hand.

use auscult_kernels::{
    HostSlot, Plan, TensorDesc,
    ops::{
        delay_step::DelayStep,
        edit_rows::{EditRows, Kind, RECORD, Record},
        sample::{Guidance, SETTINGS, Sample, Settings},
    },
    philox::{philox4x32_10, uniform},
};
use bytemuck::cast_slice;

const SPECIAL: u32 = 99;

/// One step of the delay pattern over two takes of two codebooks and three frames.
struct Delay {
    plan: Plan,
    limits: Vec<u32>,
    positions: Vec<u32>,
    codes: Vec<u32>,
}

impl Delay {
    fn step(&mut self, tokens: &[u32]) -> Vec<u32> {
        let mut ids = vec![7; self.positions.len() * 2];
        let mut slots = [
            HostSlot::Read(cast_slice(tokens)),
            HostSlot::Read(cast_slice(&self.limits)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut self.positions)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut self.codes)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut ids)),
        ];
        (self.plan.kernel.reference)(&self.plan.params, &mut slots);
        ids
    }
}

#[test]
fn delay_step_gives_every_code_after_frames_and_longest_delay() {
    let u32s = |shape: &[usize]| TensorDesc::u32(shape);
    let op = DelayStep { special: SPECIAL, channels: 1, guided: Guidance::Pairs };
    let plan = op.plan(&u32s(&[2, 2]), &u32s(&[2, 2]), &u32s(&[4]), &u32s(&[2, 2, 3]));
    let mut delay = Delay {
        plan: plan.expect("shapes fit"),
        // the first take begins with nothing and has three frames; the second has one of its two already
        limits: vec![0, 3, 1, 2],
        positions: vec![0; 4],
        codes: vec![0, 0, 0, 0, 0, 0, 50, 0, 0, 60, 0, 0],
    };
    // ids: both codebooks of both takes, then the same of their twins
    let twice = |ids: [u32; 4]| [ids, ids].concat();
    assert_eq!(delay.step(&[1, 2, 3, 4]), twice([1, SPECIAL, 50, SPECIAL]));
    assert_eq!(delay.step(&[11, 12, 13, 14]), twice([11, 12, 13, 60]));
    assert_eq!(delay.step(&[21, 22, 23, 24]), twice([21, 22, SPECIAL, 24]));
    assert_eq!(delay.positions, [3, 3, 3, 3]);
    // the second take is behind its last code and stays there
    assert_eq!(delay.step(&[31, 32, 33, 34]), twice([SPECIAL, 32, SPECIAL, SPECIAL]));
    assert_eq!(delay.positions, [4, 3, 4, 3]);
    assert_eq!(delay.codes, [1, 11, 21, 12, 22, 32, 50, 13, 0, 60, 24, 0]);
    let finished = delay.codes.clone();
    assert_eq!(delay.step(&[41, 42, 43, 44]), twice([SPECIAL; 4]));
    assert_eq!((delay.positions, delay.codes), (vec![4, 3, 4, 3], finished));
}

#[test]
fn delay_step_of_stereo_and_without_room() {
    let u32s = |shape: &[usize]| TensorDesc::u32(shape);
    let plan = DelayStep { special: SPECIAL, channels: 2, guided: Guidance::None };
    let plan = plan.plan(&u32s(&[1, 4]), &u32s(&[1, 2]), &u32s(&[1]), &u32s(&[1, 4, 1]));
    let plan = plan.expect("shapes fit");
    let (mut positions, mut codes, mut ids) = ([0_u32], [0_u32; 4], [0_u32; 4]);
    // a second frame is asked for, but there is room for one
    let (tokens, limits) = ([1_u32, 2, 3, 4], [0_u32, 2]);
    let mut step = || {
        let mut slots = [
            HostSlot::Read(cast_slice(&tokens)),
            HostSlot::Read(cast_slice(&limits)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut positions)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut codes)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut ids)),
        ];
        (plan.kernel.reference)(&plan.params, &mut slots);
        (ids, positions[0])
    };
    assert_eq!(step(), ([1, 2, SPECIAL, SPECIAL], 1));
    assert_eq!(step(), ([SPECIAL, SPECIAL, 3, 4], 2));
    assert_eq!(step(), ([SPECIAL; 4], 2));
    assert_eq!(codes, [1, 2, 3, 4]);
}

/// Draws once from a row of logits, or from a conditional and an unconditional one.
fn sample(settings: Settings, rows: &[&[f32]]) -> u32 {
    let guided = if rows.len() == 2 { Guidance::Pairs } else { Guidance::None };
    let logits = rows.concat();
    let desc = TensorDesc::f32([rows.len(), rows[0].len()]);
    let plan = Sample { codebooks: 1, guided }
        .plan(&desc, &TensorDesc::u32([1, SETTINGS]), &TensorDesc::u32([rows.len()]))
        .expect("shapes fit");
    let (settings, positions, mut tokens) = ([settings], [5_u32, 900], [7_u32]);
    let mut slots = [
        HostSlot::Read(cast_slice(&logits)),
        HostSlot::Read(cast_slice(&settings)),
        HostSlot::Read(cast_slice(&positions[..rows.len()])),
        HostSlot::Write(bytemuck::cast_slice_mut(&mut tokens)),
    ];
    (plan.kernel.reference)(&plan.params, &mut slots);
    tokens[0]
}

/// Settings that draw; `u` of row key 2 and column 5 + 3 lies in the interval, both ends far enough to be told from it.
fn drawing(low: f64, high: f64) -> Settings {
    let u = |seed| f64::from(uniform(philox4x32_10([2, 8, 0, 0], [seed, 77])[0]));
    let seed = (0..10_000).find(|&seed| (low + 1e-3..high - 1e-3).contains(&u(seed))).expect("some seed");
    Settings {
        seed_low: seed,
        seed_high: 77,
        row_key: 2,
        column_offset: 3,
        greedy: 0,
        guidance: 1.0,
        temperature: 1.0,
        top_k: 0,
        top_p: 0.0,
        pad: [0; 3],
    }
}

/// Logits whose masses are 1, 4, 2, 1 of 8.
fn eighths() -> [f32; 4] {
    [1.0, 4.0, 2.0, 1.0_f32].map(f32::ln)
}

#[test]
fn sample_takes_the_code_that_u_falls_on() {
    for (low, high, token) in [(0.0, 0.125, 0), (0.125, 0.625, 1), (0.625, 0.875, 2), (0.875, 1.0, 3)] {
        assert_eq!(sample(drawing(low, high), &[&eighths()]), token);
    }
    // the square of every mass: 1, 16, 4, 1 of 22
    for (low, high, token) in [(0.0, 1.0, 0), (1.0, 17.0, 1), (17.0, 21.0, 2), (21.0, 22.0, 3)] {
        let settings = Settings { temperature: 0.5, ..drawing(low / 22.0, high / 22.0) };
        assert_eq!(sample(settings, &[&eighths()]), token);
    }
}

#[test]
fn sample_keeps_the_top() {
    // the two largest, 4 and 2; three with the tie of both smallest, which is all
    for (low, high, token) in [(0.0, 4.0, 1), (4.0, 6.0, 2)] {
        let drawn = drawing(low / 6.0, high / 6.0);
        assert_eq!(sample(Settings { top_k: 2, ..drawn }, &[&eighths()]), token);
        // 4 of 8 fall short of 0.6, 6 of 8 do not
        assert_eq!(sample(Settings { top_p: 0.6, ..drawn }, &[&eighths()]), token);
    }
    for k in [3, 4, 5] {
        assert_eq!(sample(Settings { top_k: k, ..drawing(0.875, 1.0) }, &[&eighths()]), 3);
    }
    assert_eq!(sample(Settings { top_p: 0.9, ..drawing(0.875, 1.0) }, &[&eighths()]), 3);
    assert_eq!(sample(Settings { top_p: 1.5, ..drawing(0.875, 1.0) }, &[&eighths()]), 3);
    for (low, high) in [(0.0, 0.1), (0.9, 1.0)] {
        assert_eq!(sample(Settings { top_k: 1, ..drawing(low, high) }, &[&eighths()]), 1);
        assert_eq!(sample(Settings { top_p: 0.4, ..drawing(low, high) }, &[&eighths()]), 1);
        // 4 of the 6 that the top 2 have, which is 2 / 3: above 0.6 of them, though half of all
        assert_eq!(sample(Settings { top_k: 2, top_p: 0.6, ..drawing(low, high) }, &[&eighths()]), 1);
    }
}

#[test]
fn sample_greedily_and_guided() {
    let greedy = Settings { greedy: 1, ..drawing(0.9, 1.0) };
    assert_eq!(sample(greedy, &[&[1.0, 3.0, -2.0, 3.0]]), 1);
    assert_eq!(sample(greedy, &[&[-0.0, 0.0]]), 0);
    // 1 + 3 * (2 - 1) = 4 against 0 + 3 * (1.5 - 0) = 4.5, though the first is larger with guidance 1
    let rows: [&[f32]; 2] = [&[2.0, 1.5], &[1.0, 0.0]];
    assert_eq!(sample(Settings { guidance: 3.0, ..greedy }, &rows), 1);
    assert_eq!(sample(greedy, &rows), 0);
    assert_eq!(sample(Settings { guidance: 0.0, ..greedy }, &rows), 0);
}

#[test]
fn sample_reports_what_is_no_distribution() {
    for settings in [drawing(0.0, 1.0), Settings { greedy: 1, ..drawing(0.0, 1.0) }] {
        let none = f32::NEG_INFINITY;
        assert_eq!(sample(settings, &[&[1.0, f32::NAN, 2.0]]), u32::MAX);
        assert_eq!(sample(settings, &[&[1.0, f32::INFINITY]]), u32::MAX);
        assert_eq!(sample(settings, &[&[none, none]]), u32::MAX);
        assert_eq!(sample(settings, &[&[none, 0.0], &[none, 0.0]]), u32::MAX);
        assert_eq!(sample(settings, &[&[none, 0.0]]), 1);
    }
    assert_eq!(sample(Settings { temperature: 0.0, ..drawing(0.0, 1.0) }, &[&[1.0, 2.0]]), u32::MAX);
    assert_eq!(sample(Settings { temperature: f32::NAN, ..drawing(0.0, 1.0) }, &[&[1.0, 2.0]]), u32::MAX);
}

/// Edits one row (1, 2) at position 5, with directions (10, 0), (0, 100), (-1, -1) and, if there are any, features
/// (3, -1, 7, 3, 0.5).
fn edit(k: usize, with_features: bool, records: &[Record]) -> [f32; 2] {
    let (mut x, positions) = ([1.0_f32, 2.0], [5_u32]);
    let directions = [10.0_f32, 0.0, 0.0, 100.0, -1.0, -1.0];
    let pre = if with_features { vec![3.0_f32, -1.0, 7.0, 3.0, 0.5] } else { vec![] };
    let plan = EditRows { k }
        .plan(
            &TensorDesc::f32([1, 2]),
            &TensorDesc::u32([1, records.len(), RECORD]),
            &TensorDesc::f32([3, 2]),
            &TensorDesc::u32([1]),
            with_features.then(|| TensorDesc::f32([1, 5])).as_ref(),
        )
        .expect("shapes fit");
    let mut slots = [
        HostSlot::Write(bytemuck::cast_slice_mut(&mut x)),
        HostSlot::Read(cast_slice(records)),
        HostSlot::Read(cast_slice(&directions)),
        HostSlot::Read(cast_slice(&positions)),
        HostSlot::Read(cast_slice(&pre)),
    ];
    (plan.kernel.reference)(&plan.params, &mut slots);
    x
}

/// A record for columns 5 and 6.
fn record(kind: Kind, feature: u32, direction: u32, amount: f32) -> Record {
    Record { kind: kind.word(), feature, direction, amount, first: 5, end: 7, offset: 0, rows: 0 }
}

#[test]
fn edit_rows_changes_features_by_their_activation() {
    // feature 2 is 7, and active as the only one; feature 0 is 3 and before 3, which is 3 too
    assert_eq!(edit(1, true, &[record(Kind::Ablate, 2, 0, 9.0)]), [1.0 - 70.0, 2.0]);
    assert_eq!(edit(1, true, &[record(Kind::Scale, 2, 1, 3.0)]), [1.0, 2.0 + 1400.0]);
    assert_eq!(edit(1, true, &[record(Kind::Set, 2, 1, 9.0)]), [1.0, 2.0 + 200.0]);
    for (k, feature, f) in
        [(1, 0, 0.0), (2, 0, 3.0), (2, 3, 0.0), (3, 3, 3.0), (0, 4, 0.5), (5, 1, 0.0), (0, 1, 0.0)]
    {
        assert_eq!(edit(k, true, &[record(Kind::Ablate, feature, 0, 0.0)]), [1.0 - 10.0 * f, 2.0]);
        assert_eq!(edit(k, true, &[record(Kind::Set, feature, 0, 1.0)]), [1.0 + 10.0 * (1.0 - f), 2.0]);
    }
    assert_eq!(edit(0, false, &[record(Kind::Steer, 77, 2, 0.5)]), [0.5, 1.5]);
}

#[test]
fn edit_rows_replaces_rows() {
    assert_eq!(edit(0, false, &[record(Kind::Zero, 0, 77, 1.0)]), [0.0, 0.0]);
    assert_eq!(edit(0, false, &[record(Kind::Replace, 0, 1, 1.0)]), [0.0, 100.0]);
    // column 5 + 2^32 - 4 is 1: the row behind the patch's first
    let patch = Record { offset: u32::MAX - 3, first: 1, end: 2, rows: 2, ..record(Kind::Patch, 0, 1, 0.0) };
    assert_eq!(edit(0, false, &[patch]), [-1.0, -1.0]);
    assert_eq!(edit(0, false, &[Record { rows: 1, ..patch }]), [1.0, 2.0]);
}

#[test]
fn edit_rows_applies_records_in_order_and_in_their_window() {
    let (steer, zero) = (record(Kind::Steer, 0, 0, 1.0), record(Kind::Zero, 0, 0, 0.0));
    assert_eq!(edit(0, false, &[zero, steer]), [10.0, 0.0]);
    assert_eq!(edit(0, false, &[steer, zero]), [0.0, 0.0]);
    // f is of the x that came in, whatever was done to it since
    let ablate = record(Kind::Ablate, 2, 0, 0.0);
    assert_eq!(edit(1, true, &[zero, ablate, ablate]), [-140.0, 0.0]);
    for (offset, changes) in [(0, true), (1, true), (2, false), (u32::MAX, false)] {
        let want = if changes { [11.0, 2.0] } else { [1.0, 2.0] };
        assert_eq!(edit(0, false, &[Record { offset, ..steer }]), want);
    }
}

#[test]
fn edit_rows_leaves_alone_what_is_not_there() {
    let untouched = [1.0, 2.0];
    assert_eq!(edit(0, false, &[]), untouched);
    assert_eq!(edit(0, false, &[Record::default()]), untouched);
    assert_eq!(edit(0, false, &[Record { kind: 8, ..record(Kind::Zero, 0, 0, 0.0) }]), untouched);
    for kind in [Kind::Ablate, Kind::Scale, Kind::Set] {
        assert_eq!(edit(0, false, &[record(kind, 0, 0, 5.0)]), untouched);
        assert_eq!(edit(0, true, &[record(kind, 5, 0, 5.0)]), untouched);
        assert_eq!(edit(0, true, &[record(kind, 0, 3, 5.0)]), untouched);
    }
    assert_eq!(edit(0, false, &[record(Kind::Steer, 0, 3, 5.0)]), untouched);
    assert_eq!(edit(0, false, &[record(Kind::Replace, 0, 3, 5.0)]), untouched);
    let patch = Record { rows: 9, ..record(Kind::Patch, 0, u32::MAX, 0.0) };
    assert_eq!(edit(0, false, &[patch]), untouched);
}
