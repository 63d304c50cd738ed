use super::Params;
use crate::HostSlot;

/// The definition. In f32, since the order of additions is defined.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [ids, table, base, positions, at, y] = slots else { panic!("embed_sum has six slots") };
    let (ids, table, at): (&[u32], &[f32], &[u32]) = (ids.read(), table.read(), at.read());
    let (base, positions, y): (&[f32], &[f32], &mut [f32]) = (base.read(), positions.read(), y.write());
    let [codebooks, first, ids_cols, entries, cols] =
        [p.codebooks, p.first_codebook, p.ids_cols, p.entries, p.cols].map(|n| n as usize);
    for r in 0..p.rows as usize {
        let position = if p.has_at == 1 {
            at[r].min(p.places - 1) as usize
        } else {
            (p.first_row as usize + r) % p.steps as usize
        };
        for c in 0..cols {
            let mut sum = if p.has_base == 1 { Some(base[r * cols + c]) } else { None };
            for q in 0..codebooks {
                let entry = (ids[r * ids_cols + first + q] as usize).min(entries - 1);
                let value = table[(q * entries + entry) * cols + c];
                sum = Some(sum.map_or(value, |sum| sum + value));
            }
            let sum = sum.expect("a plan has one codebook or more");
            y[r * cols + c] = if p.has_positions == 1 { sum + positions[position * cols + c] } else { sum };
        }
    }
}
