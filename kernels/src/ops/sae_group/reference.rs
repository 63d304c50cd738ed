use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [indices, values, starts, order] = slots else { panic!("sae_group has four slots") };
    let (indices, values): (&[u32], &[f32]) = (indices.read(), values.read());
    let (starts, order): (&mut [u32], &mut [[u32; 2]]) = (starts.write(), order.write());
    let first = (0..p.rows * p.k).map(|entry| (entry, entry / p.k));
    let second = (0..p.rows * p.aux_k).map(|entry| (p.second + entry, p.rows + entry / p.aux_k));
    let active = first.chain(second).filter_map(|(entry, row)| {
        let feature = indices[entry as usize];
        (values[entry as usize] > 0.0 && feature < p.features).then_some((feature as usize, [entry, row]))
    });
    let active: Vec<(usize, [u32; 2])> = active.collect();
    starts.fill(0);
    for (feature, _) in &active {
        starts[feature + 1] += 1;
    }
    for f in 0..p.features as usize {
        starts[f + 1] += starts[f];
    }
    let mut next: Vec<u32> = starts.to_vec();
    order.fill([u32::MAX; 2]);
    for (feature, entry) in active {
        order[next[feature] as usize] = entry;
        next[feature] += 1;
    }
}
