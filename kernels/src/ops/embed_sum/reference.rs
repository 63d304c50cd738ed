use super::Params;
use crate::HostSlot;
use half::{bf16, f16};

/// The definition with an f32 table.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    embed_sum::<f32>(params, slots, |value| value);
}

/// The definition with an f16 table.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    embed_sum::<f16>(params, slots, f16::to_f32);
}

/// The definition with a bf16 table.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    embed_sum::<bf16>(params, slots, bf16::to_f32);
}

/// In f32, since the order of additions is defined.
fn embed_sum<W: bytemuck::Pod>(params: &[u8], slots: &mut [HostSlot<'_>], widen: impl Fn(W) -> f32) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [ids, table, base, positions, at, y] = slots else { panic!("embed_sum has six slots") };
    let (ids, table, at): (&[u32], &[W], &[u32]) = (ids.read(), table.read(), at.read());
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
                let value = widen(table[(q * entries + entry) * cols + c]);
                sum = Some(sum.map_or(value, |sum| sum + value));
            }
            let sum = sum.expect("a plan has one codebook or more");
            y[r * cols + c] = if p.has_positions == 1 { sum + positions[position * cols + c] } else { sum };
        }
    }
}
