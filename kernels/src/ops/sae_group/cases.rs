use super::{SaeGroup, reference::reference};
use crate::{Case, Fill, HostSlot, TensorDesc, Tolerance, noise};

/// A batch, before and after the turn.
pub(crate) struct Grouped {
    pub indices: Vec<u32>,
    pub values: Vec<f32>,
    pub starts: Vec<u32>,
    pub order: Vec<u32>,
}

/// Every row has features of its own, in no order, one place in five not active; where there are many rows, feature 1 is in most.
pub(crate) fn grouped(key: &str, group: SaeGroup) -> Grouped {
    let entries = group.entries();
    let mut values: Vec<f32> =
        noise(key, entries).map(|v| if v < -0.6 { 0.0 } else { v.abs() + 0.125 }).collect();
    let mut indices = vec![0; entries];
    let mut row = |first: usize, r: usize, k: usize| {
        // 0x9e37_79b1 is a prime, and so coprime to any number of features there is
        let base = r * 7919 + 13;
        for j in 0..k {
            let feature = (base + j * 0x9e37_79b1) % group.features.max(1);
            indices[first + j] = u32::try_from(feature).expect("below the features");
        }
    };
    (0..group.rows).for_each(|r| row(r * group.k, r, group.k));
    (0..group.rows).for_each(|r| row(group.second() + r * group.aux_k, r + 31, group.aux_k));
    for r in (0..group.rows).filter(|r| r % 4 > 0 && group.k > 0 && group.features > 1) {
        let row = r * group.k..(r + 1) * group.k;
        if !indices[row.clone()].contains(&1) {
            indices[row.start] = 1;
        }
    }
    if group.aux_k > 0 {
        values[group.rows * group.k..group.second()].fill(0.75);
    }
    let plan =
        group.plan(&TensorDesc::u32([entries]), &TensorDesc::f32([entries])).expect("a case's shapes fit");
    let (mut starts, mut order) = (vec![0_u32; group.features + 1], vec![0_u32; 2 * entries]);
    reference(
        &plan.params,
        &mut [
            HostSlot::Read(bytemuck::cast_slice(&indices)),
            HostSlot::Read(bytemuck::cast_slice(&values)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut starts)),
            HostSlot::Write(bytemuck::cast_slice_mut(&mut order)),
        ],
    );
    Grouped { indices, values, starts, order }
}

/// (features, rows, k, aux_k, why)
type Shape = (usize, usize, usize, usize, &'static str);

const SHAPES: &[Shape] = &[
    (5, 0, 3, 0, "no rows"),
    (1, 1, 1, 0, "smallest"),
    (2049, 7, 5, 0, "one feature past a workgroup's"),
    (61, 37, 11, 7, "two tables, places between them that count for nothing"),
    (300, 129, 270, 0, "more places than invocations, most features in most rows"),
    (32_768, 64, 100, 0, "a batch of 64, 32,768 features"),
    (4099, 64, 32, 512, "a batch of 64, many places in the second table"),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |&(features, rows, k, aux_k, why): &Shape| {
        let group = SaeGroup { features, rows, k, aux_k };
        let Grouped { indices, values, .. } = grouped(why, group);
        let entries = group.entries();
        Case {
            why,
            plan: group
                .plan(&TensorDesc::u32([entries]), &TensorDesc::f32([entries]))
                .expect("a case's shapes fit"),
            fill: vec![
                ("indices", Fill::Words(indices)),
                ("values", Fill::Words(values.iter().map(|v| v.to_bits()).collect())),
            ],
            tolerance: Tolerance::EXACT,
        }
    };
    SHAPES.iter().map(case).collect()
}
