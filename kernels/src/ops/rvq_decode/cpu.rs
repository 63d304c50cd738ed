use super::Params;
use crate::HostSlot;
use rayon::prelude::*;

/// Rows in parallel, each the sum of whole entries.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [codes, codebooks, y] = slots else { panic!("rvq_decode has three slots") };
    let (codes, codebooks, y): (&[u32], &[f32], &mut [f32]) = (codes.read(), codebooks.read(), y.write());
    let (dim, stages) = (p.dim as usize, p.stages as usize);
    if y.is_empty() {
        return;
    }
    let book = p.entries as usize * dim;
    y.par_chunks_exact_mut(dim).with_min_len(64).zip(codes.par_chunks_exact(stages)).for_each(
        |(y, codes)| {
            y.fill(0.0);
            for (&code, book) in codes.iter().zip(codebooks.chunks_exact(book)) {
                let entry = &book[code.min(p.entries - 1) as usize * dim..][..dim];
                y.iter_mut().zip(entry).for_each(|(y, e)| *y += e);
            }
        },
    );
}
