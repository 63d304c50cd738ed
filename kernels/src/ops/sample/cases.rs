use super::reference::{guided, masses, share};
use super::{Guidance, Params, SETTINGS, Sample, Settings};
use crate::{Case, Fill, TensorDesc, Tolerance, noise};

/// Draws of the cases stay this far from the nearest code's: sums of masses in f32 are within 1e-5.
const MARGIN: f64 = 1e-4;
/// The share of a top-p stays this far from what any code's mass brings the sum to.
const TOP_P_MARGIN: f64 = 2e-5;

/// A case before its streams are chosen.
struct Setup {
    takes: usize,
    codebooks: usize,
    entries: usize,
    guided: Guidance,
    /// Logits are noise up to here ...
    amplitude: f32,
    /// ... in multiples of this: of a power of two, so that guidance is exact on every executor.
    quantum: f32,
    /// Settings of a take; its seed, and how much above `top_p` it goes, are chosen.
    settings: fn(usize) -> Settings,
    /// What is done to the logits, rows of `codebooks` by `entries`.
    spoil: fn(&mut [f32]),
    /// Least distance of draws; [`MARGIN`] but where sums are exact.
    margin: f64,
    why: &'static str,
}

const PLAIN: Settings = Settings {
    seed_low: 0,
    seed_high: 0x5eed_0001,
    row_key: 0,
    column_offset: 0,
    greedy: 0,
    guidance: 1.0,
    temperature: 1.0,
    top_k: 0,
    top_p: 0.0,
    pad: [0; 3],
};

const SETUP: Setup = Setup {
    takes: 3,
    codebooks: 4,
    entries: 2048,
    guided: Guidance::None,
    amplitude: 4.0,
    quantum: 1.0 / 4096.0,
    settings: |take| Settings { row_key: take as u32, ..PLAIN },
    spoil: |_| {},
    margin: MARGIN,
    why: "",
};

fn setups() -> Vec<Setup> {
    vec![
        Setup { takes: 0, guided: Guidance::Pairs, why: "no takes", ..SETUP },
        Setup { takes: 1, codebooks: 1, entries: 1, why: "smallest: one code", ..SETUP },
        Setup { entries: 7, why: "fewer codes than lanes of a warp", ..SETUP },
        Setup {
            entries: 257,
            guided: Guidance::Pairs,
            settings: |take| Settings { guidance: 3.0, temperature: [0.5, 1.0, 2.0][take], ..PLAIN },
            why: "one code more than a workgroup, guided, three temperatures",
            ..SETUP
        },
        Setup {
            takes: 2,
            guided: Guidance::Pairs,
            settings: |take| Settings { guidance: 3.0, top_k: 250, row_key: take as u32, ..PLAIN },
            why: "MusicGen's settings",
            ..SETUP
        },
        Setup {
            takes: 64,
            guided: Guidance::Pairs,
            settings: |take| Settings { guidance: 3.0, top_k: 250, row_key: take as u32 % 16, ..PLAIN },
            why: "a batch at MusicGen's settings",
            ..SETUP
        },
        Setup {
            takes: 7,
            codebooks: 8,
            guided: Guidance::Pairs,
            settings: |take| Settings {
                greedy: u32::from(take == 3),
                guidance: [3.0, 0.0, 7.5, 3.0, 1.0, 3.0, -1.0][take],
                temperature: [1.0, 0.5, 2.0, 0.0, 1.25, 0.25, 3.0][take],
                top_k: [0, 250, 1, 0, 2048, 100, 3000][take],
                top_p: [0.9, 0.0, 0.5, 0.9, 0.95, 0.5, 1.0][take],
                row_key: take as u32,
                column_offset: take as u32 * 900,
                ..PLAIN
            },
            why: "every take its own settings",
            ..SETUP
        },
        Setup {
            entries: 5003,
            amplitude: 8.0,
            settings: |take| Settings { top_k: [0, 777, 3000][take], top_p: [0.8, 0.0, 0.6][take], ..PLAIN },
            why: "more codes than a workgroup remembers",
            ..SETUP
        },
        Setup {
            entries: 641,
            quantum: 1.0,
            settings: |take| Settings { top_k: [250, 0, 33][take], top_p: [0.0, 0.7, 0.4][take], ..PLAIN },
            why: "equals at the k-th largest and at the share's edge are kept together",
            ..SETUP
        },
        Setup {
            entries: 641,
            quantum: 0.5,
            settings: |_| Settings { top_k: 1, ..PLAIN },
            why: "top 1 draws among the largest",
            ..SETUP
        },
        Setup {
            takes: 5,
            entries: 1031,
            guided: Guidance::Pairs,
            quantum: 0.5,
            settings: |_| Settings { greedy: 1, guidance: 3.0, ..PLAIN },
            why: "greedy takes the first of equals",
            ..SETUP
        },
        Setup {
            takes: 2,
            codebooks: 2,
            entries: 300,
            settings: |_| Settings { greedy: 1, ..PLAIN },
            // the largest are a -0 and, further on, a 0
            spoil: |logits| {
                for row in logits.chunks_exact_mut(300) {
                    row.iter_mut().for_each(|v| *v = -1.0 - v.abs());
                    (row[41], row[267]) = (-0.0, 0.0);
                }
            },
            why: "zeros of both signs are equal",
            ..SETUP
        },
        Setup {
            takes: 4,
            codebooks: 3,
            entries: 600,
            guided: Guidance::Pairs,
            settings: |take| Settings { greedy: take as u32 % 2, guidance: 2.0, top_k: 50, ..PLAIN },
            spoil: |logits| {
                let cells: Vec<&mut [f32]> = logits.chunks_exact_mut(600).collect();
                for (cell, row) in cells.into_iter().enumerate() {
                    match cell {
                        0 => row[599] = f32::NAN,
                        1 => row[13] = f32::INFINITY,
                        4 => row[0] = -f32::NAN,
                        5 => row[300..].fill(f32::NEG_INFINITY),
                        6 => row.fill(f32::NEG_INFINITY),
                        7 => row[7] = f32::NEG_INFINITY,
                        // unconditional twins of 7, 8 and 9
                        19 => row[7] = f32::NEG_INFINITY,
                        20 => row[599] = f32::INFINITY,
                        21 => row[256] = f32::NEG_INFINITY,
                        _ => {}
                    }
                }
            },
            why: "NaN, infinities, and what they make of each other",
            ..SETUP
        },
        Setup {
            takes: 9,
            amplitude: 0.0,
            settings: |take| Settings {
                seed_high: take as u32 * 0x1234_5677,
                row_key: 0xffff_fff0 + take as u32,
                column_offset: 0x8000_0000 * (take as u32 % 2),
                ..PLAIN
            },
            why: "equal logits: tokens are the first 11 bits of the stream",
            ..SETUP
        },
        Setup {
            takes: 2,
            entries: 16_384,
            amplitude: 0.0,
            settings: |take| Settings { row_key: take as u32, ..PLAIN },
            margin: 5e-6,
            why: "equal logits: tokens are the first 14 bits of the stream",
            ..SETUP
        },
        Setup {
            takes: 65_543,
            codebooks: 1,
            entries: 3,
            settings: |_| Settings { greedy: 1, ..PLAIN },
            why: "more workgroups than one axis holds",
            ..SETUP
        },
    ]
}

pub(super) fn cases() -> Vec<Case> {
    setups().iter().map(case).collect()
}

fn case(setup: &Setup) -> Case {
    let &Setup { takes, codebooks, entries, guided, .. } = setup;
    let rows = guided.rows(takes);
    let plan = Sample { codebooks, guided }
        .plan(
            &TensorDesc::f32([rows, codebooks * entries]),
            &TensorDesc::u32([takes, SETTINGS]),
            &TensorDesc::u32([rows]),
        )
        .expect("a case's shapes fit");
    let quantise = |v: f32| (v * setup.amplitude / setup.quantum).round() * setup.quantum;
    let key = format!("sample_u32/{}/logits", setup.why);
    let mut logits: Vec<f32> = noise(&key, rows * codebooks * entries).map(quantise).collect();
    (setup.spoil)(&mut logits);
    // neither equal nor in order, and the unconditional rows' are not asked
    let positions: Vec<u32> = (0..rows as u32).map(|row| row * 7919 % 1501).collect();
    let params: Params = bytemuck::pod_read_unaligned(&plan.params);
    let settings: Vec<Settings> =
        (0..takes).map(|take| choose(setup, &params, &logits, take, positions[take])).collect();
    Case {
        why: setup.why,
        plan,
        fill: vec![
            ("logits", Fill::Words(logits.iter().map(|v| v.to_bits()).collect())),
            ("settings", Fill::Words(bytemuck::cast_slice(&settings).to_vec())),
            ("positions", Fill::Words(positions)),
        ],
        tolerance: Tolerance::EXACT,
    }
}

/// Settings of a take for which its draws, and its top-p, keep their distance from every edge.
fn choose(setup: &Setup, p: &Params, logits: &[f32], take: usize, position: u32) -> Settings {
    let settings = (setup.settings)(take);
    let cells = (0..p.codebooks).map(|q| (q, take * setup.codebooks + q as usize));
    let drawn: Vec<(u32, Vec<f32>)> = cells
        .filter(|_| settings.greedy == 0)
        .filter_map(|(q, cell)| Some((q, guided(p, logits, &settings, cell)?)))
        .collect();
    let cuts = settings.top_p > 0.0 && settings.top_p < 1.0;
    let keeps_off_edges = |top_p: &f32| {
        drawn.iter().all(|(_, g)| {
            let mut kept = masses(g, &Settings { top_p: 0.0, ..settings });
            kept.sort_by(|a, b| b.total_cmp(a));
            let edges = edges(kept.iter().copied());
            // sums inside a group of equals are no edges
            let ends = (0..edges.len()).filter(|&i| kept.get(i + 1) != Some(&kept[i]));
            ends.into_iter().all(|i| (edges[i] - f64::from(*top_p)).abs() > TOP_P_MARGIN)
        })
    };
    let tried = (0..100).map(|i| settings.top_p + i as f32 * 1e-4);
    let top_p =
        if cuts { tried.into_iter().find(keeps_off_edges).expect("some share does") } else { settings.top_p };
    let settings = Settings { top_p, ..settings };
    let edges: Vec<(u32, Vec<f64>)> =
        drawn.iter().map(|(q, g)| (*q, edges(masses(g, &settings).into_iter()))).collect();
    let keeps_off = |settings: &Settings| {
        edges.iter().all(|(q, edges)| {
            let u = share(settings, position, *q);
            let above = edges.partition_point(|&edge| edge <= u);
            let near = [above.checked_sub(1), Some(above)].into_iter().flatten();
            near.into_iter().all(|i| (edges[i] - u).abs() > setup.margin)
        })
    };
    let seeds =
        (0..100_000_u32).map(|seed| Settings { seed_low: seed.wrapping_mul(0x9e37_79b9), ..settings });
    seeds.into_iter().find(keeps_off).expect("some seed does")
}

/// Sums of the masses so far, as shares of all of them.
fn edges(masses: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sums: Vec<f64> = masses
        .scan(0.0, |sum, mass| {
            *sum += mass;
            Some(*sum)
        })
        .collect();
    let total = sums.last().copied().unwrap_or(1.0);
    sums.iter_mut().for_each(|sum| *sum /= total);
    sums
}
