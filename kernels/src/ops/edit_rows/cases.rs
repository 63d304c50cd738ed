use super::{EditRows, Kind, RECORD, Record};
use crate::{Case, Fill, TensorDesc, Tolerance, noise};

/// A case before its records are written.
struct Setup {
    rows: usize,
    width: usize,
    slots: usize,
    dirs: usize,
    features: usize,
    k: usize,
    record: fn(usize, usize) -> Record,
    tolerance: Tolerance,
    why: &'static str,
}

const SUMS: Tolerance = Tolerance {
    abs: 4e-6,
    rel: 0.0,
    why: "a product of up to 16, rounded or not, for each of a few records",
};

/// Columns 3 .. 9 of positions that go from 0 to 10.
const WINDOW: Record =
    Record { kind: 0, feature: 0, direction: 0, amount: 0.0, first: 3, end: 9, offset: 0, rows: 0 };

/// Every kind but patches, on features and directions all over, some past their tables; one record in five is out of
/// its window whatever the column.
fn mixed(row: usize, slot: usize) -> Record {
    let n = word(row * 7 + slot * 3);
    Record {
        kind: n % 9,
        feature: n * 13 % 67,
        direction: n * 5 % 19,
        amount: [2.5, -1.0, 0.0, 1.0, 0.25][row % 5],
        end: if n % 5 == 4 { 0 } else { 9 },
        offset: if row.is_multiple_of(3) { u32::MAX } else { n % 2 },
        // of a patch four rows, of a feature a threshold that some are below
        rows: if n % 9 == 7 { 4 } else { [0.0_f32, 3.5, -1.0][row % 3].to_bits() },
        ..WINDOW
    }
}

fn setups() -> Vec<Setup> {
    let setup = Setup {
        rows: 3,
        width: 7,
        slots: 1,
        dirs: 4,
        features: 0,
        k: 0,
        record: |_, _| WINDOW,
        tolerance: SUMS,
        why: "",
    };
    vec![
        Setup { rows: 0, why: "no rows", ..setup },
        Setup { width: 0, record: mixed, why: "no columns", ..setup },
        Setup { slots: 0, tolerance: Tolerance::EXACT, why: "no records", ..setup },
        Setup {
            rows: 1,
            width: 1,
            dirs: 1,
            features: 1,
            k: 1,
            record: |_, _| Record { kind: Kind::Ablate.word(), first: 0, ..WINDOW },
            why: "smallest",
            ..setup
        },
        Setup {
            rows: 121,
            width: 65,
            slots: 5,
            dirs: 17,
            features: 61,
            k: 12,
            record: mixed,
            why: "every kind, odd rows",
            ..setup
        },
        Setup {
            rows: 121,
            width: 68,
            slots: 5,
            dirs: 17,
            features: 64,
            record: mixed,
            why: "every kind, rows of whole vectors, all features active",
            ..setup
        },
        Setup {
            rows: 67,
            width: 1030,
            slots: 3,
            dirs: 17,
            record: mixed,
            why: "more columns than threads, no features",
            ..setup
        },
        Setup {
            rows: 40,
            width: 36,
            slots: 4,
            dirs: 17,
            features: 64,
            k: 9,
            // scales by 1, steers by 0, columns past the window, directions past the table
            record: |row, slot| {
                let nothing = [(Kind::Scale, 1.0), (Kind::Steer, 0.0), (Kind::Steer, 3.0), (Kind::Set, 3.0)];
                let (kind, amount) = nothing[slot];
                let kind = kind.word();
                let (end, direction) = if slot == 2 { (3, 0) } else { (11, word(slot / 3 * 17)) };
                Record { kind, amount, feature: word(row), direction, end, ..WINDOW }
            },
            tolerance: Tolerance::EXACT,
            why: "records that change nothing leave every bit",
        },
        Setup {
            rows: 55,
            width: 20,
            slots: 2,
            dirs: 13,
            record: |row, slot| {
                let kind = [Kind::Patch, Kind::Zero, Kind::Replace, Kind::Patch][(row + 3 * slot) % 4].word();
                // from direction 5 on, of which 8 are in the table; the 9th column is past what the patch has
                Record { kind, direction: 5, rows: 8, first: 0, end: 11, offset: word(slot), ..WINDOW }
            },
            tolerance: Tolerance::EXACT,
            why: "copies and zeros",
            ..setup
        },
        Setup {
            rows: 130,
            width: 1024,
            slots: 2,
            dirs: 16,
            features: 32_768,
            k: 64,
            record: |row, slot| Record {
                kind: word(1 + (row + slot) % 3),
                feature: word(row * 251 + slot * 8191),
                direction: word((row + slot) % 16),
                amount: 0.5,
                first: 0,
                end: 11,
                ..WINDOW
            },
            why: "a batch of MusicGen-small with an autoencoder of 32,768, devices may cut",
            ..setup
        },
        Setup {
            rows: 3,
            width: 12,
            slots: 4,
            features: 10_243,
            k: 1500,
            record: |row, slot| Record {
                kind: Kind::Set.word(),
                feature: word(row * 3001 + slot * 77),
                amount: -2.0,
                first: 0,
                end: 11,
                ..WINDOW
            },
            why: "odd rows of features, each more than a thread takes at once",
            ..setup
        },
        Setup {
            rows: 65_549,
            width: 2,
            record: |row, _| Record {
                kind: Kind::Steer.word(),
                amount: 1.5,
                direction: word(row % 4),
                ..WINDOW
            },
            why: "more workgroups than one axis holds",
            ..setup
        },
    ]
}

fn word(n: usize) -> u32 {
    u32::try_from(n).expect("small numbers")
}

pub(super) fn cases() -> Vec<Case> {
    setups().iter().map(case).collect()
}

fn case(setup: &Setup) -> Case {
    let &Setup { rows, width, slots, dirs, features, k, record, tolerance, why } = setup;
    let pre = (features > 0).then(|| TensorDesc::f32([rows, features]));
    let plan = EditRows { k }.plan(
        &TensorDesc::f32([rows, width]),
        &TensorDesc::u32([rows, slots, RECORD]),
        &TensorDesc::f32([dirs, width]),
        &TensorDesc::u32([rows]),
        pre.as_ref(),
    );
    let records: Vec<Record> =
        (0..rows).flat_map(|row| (0..slots).map(move |slot| record(row, slot))).collect();
    // in steps, so that some are equal, also to the k-th largest; the features of records are among the largest
    // often enough to be active
    let key = format!("edit_rows_f32/{why}/pre");
    let mut values: Vec<f32> = noise(&key, rows * features).map(|v| (v * 64.0).round() / 16.0).collect();
    for (i, record) in records.iter().enumerate() {
        let (row, feature) = (i / slots, record.feature as usize);
        if feature < features && i % 3 > 0 {
            values[row * features + feature] = if i % 3 == 1 { 4.0 } else { 3.25 };
        }
    }
    let mut fill = vec![
        ("records", Fill::Words(bytemuck::cast_slice(&records).to_vec())),
        ("positions", Fill::Below(11)),
    ];
    if pre.is_some() {
        fill.push(("pre", Fill::Words(values.iter().map(|v| v.to_bits()).collect())));
    }
    Case { why, plan: plan.expect("a case's shapes fit"), fill, tolerance }
}
