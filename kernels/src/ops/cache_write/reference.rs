use super::Params;
use crate::HostSlot;
use half::{bf16, f16};

/// The definition.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    write(params, slots, |x| x);
}

/// The definition for f16.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    write(params, slots, f16::from_f32);
}

/// The definition for bf16.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    write(params, slots, bf16::from_f32);
}

fn write<T: bytemuck::Pod>(params: &[u8], slots: &mut [HostSlot<'_>], round: impl Fn(f32) -> T) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [k, v, positions, pages, k_cache, v_cache] = slots else { panic!("cache_write has six slots") };
    let (k, v): (&[f32], &[f32]) = (k.read(), v.read());
    let (positions, pages): (&[u32], &[u32]) = (positions.read(), pages.read());
    let (k_cache, v_cache): (&mut [T], &mut [T]) = (k_cache.write(), v_cache.write());
    let [steps, k_cols, v_cols, width, page_steps, pages_per_row] =
        [p.steps, p.k_cols, p.v_cols, p.width, p.page_steps, p.pages_per_row].map(|n| n as usize);
    for r in 0..p.rows as usize {
        for s in 0..steps {
            let position = positions[r] as usize + s;
            if position >= pages_per_row * page_steps {
                continue;
            }
            let page = pages[r * pages_per_row + position / page_steps];
            if page >= p.pages_held {
                continue;
            }
            let from = r * steps + s;
            let (k_row, v_row) = (&k[from * k_cols..][..k_cols], &v[from * v_cols..][..v_cols]);
            let at = (page as usize * page_steps + position % page_steps) * width;
            for i in 0..width {
                k_cache[at + i] = round(k_row[p.k_first as usize + i]);
                v_cache[at + i] = round(v_row[p.v_first as usize + i]);
            }
        }
    }
}
