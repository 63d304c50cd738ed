use super::DelayStep;
use crate::ops::sample::Guidance;
use crate::{Case, Fill, TensorDesc, Tolerance};

/// (takes, codebooks, channels, capacity, guided, why)
type Shape = (usize, usize, usize, usize, Guidance, &'static str);

const SHAPES: &[Shape] = &[
    (0, 4, 1, 7, Guidance::Pairs, "no takes"),
    (1, 1, 1, 1, Guidance::None, "smallest, no delay"),
    (3, 4, 1, 0, Guidance::None, "no room: nothing but special"),
    (29, 4, 1, 11, Guidance::None, "mono, every column of a short sequence"),
    (31, 8, 2, 9, Guidance::Pairs, "stereo, pairs share a delay, two rows a take"),
    (64, 4, 1, 1500, Guidance::Pairs, "a batch of thirty seconds"),
    (5, 71, 1, 83, Guidance::Pairs, "more codebooks than a workgroup has invocations"),
    (65_551, 2, 1, 3, Guidance::None, "more workgroups than one axis holds"),
];

pub(super) fn cases() -> Vec<Case> {
    SHAPES.iter().map(case).collect()
}

fn case(&(takes, codebooks, channels, capacity, guided, why): &Shape) -> Case {
    let rows = guided.rows(takes);
    let plan = DelayStep { special: 2048, channels, guided }.plan(
        &TensorDesc::u32([takes, codebooks]),
        &TensorDesc::u32([takes, 2]),
        &TensorDesc::u32([rows]),
        &TensorDesc::u32([takes, codebooks, capacity]),
    );
    let word = |n: usize| u32::try_from(n).expect("small numbers");
    // columns before, within and behind the sequence; some takes ask for more frames than there is room for
    let columns = capacity + codebooks / channels + 2;
    let positions = (0..rows).map(|row| word(row % takes.max(1) * 7 % columns)).collect();
    let limits = (0..takes).flat_map(|take| [word(take % 5), word(capacity + 1 - (take % 4).min(capacity))]);
    Case {
        why,
        plan: plan.expect("a case's shapes fit"),
        fill: vec![
            ("tokens", Fill::Below(2048)),
            ("limits", Fill::Words(limits.collect())),
            ("positions", Fill::Words(positions)),
            ("codes", Fill::Below(2048)),
        ],
        tolerance: Tolerance::EXACT,
    }
}
