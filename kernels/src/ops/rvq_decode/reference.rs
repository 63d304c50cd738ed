use super::Params;
use crate::HostSlot;

/// The definition; the order of the f32 additions is part of it.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [codes, codebooks, y] = slots else { panic!("rvq_decode has three slots") };
    let (codes, codebooks, y): (&[u32], &[f32], &mut [f32]) = (codes.read(), codebooks.read(), y.write());
    let (dim, stages, entries) = (p.dim as usize, p.stages as usize, p.entries as usize);
    for r in 0..p.rows as usize {
        for d in 0..dim {
            let mut sum = 0.0_f32;
            for s in 0..stages {
                let code = codes[r * stages + s].min(p.entries - 1) as usize;
                sum += codebooks[(s * entries + code) * dim + d];
            }
            y[r * dim + d] = sum;
        }
    }
}
