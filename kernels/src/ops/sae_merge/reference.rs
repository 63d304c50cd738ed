use super::Params;
use crate::HostSlot;

/// The definition: all values above 0, sorted.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [part_indices, part_values, indices, values] = slots else { panic!("sae_merge has four slots") };
    let (part_indices, part_values): (&[u32], &[f32]) = (part_indices.read(), part_values.read());
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    let (k, row) = (p.k as usize, (p.parts * p.k) as usize);
    for r in 0..p.rows as usize {
        let found =
            part_indices[r * row..][..row].iter().copied().zip(part_values[r * row..][..row].iter().copied());
        let mut above: Vec<(u32, f32)> = found.clone().filter(|&(_, value)| value > 0.0).collect();
        above.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut rest = (0, 0.0);
        if found.clone().any(|(_, value)| value.is_nan()) {
            above.clear();
            rest.1 = f32::NAN;
        }
        for place in 0..k {
            (indices[r * k + place], values[r * k + place]) = above.get(place).copied().unwrap_or(rest);
        }
    }
}
