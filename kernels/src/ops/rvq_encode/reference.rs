use super::Params;
use crate::HostSlot;

/// The definition; distances in f64, residuals in f32.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, codebooks, codes] = slots else { panic!("rvq_encode has three slots") };
    let (x, codebooks, codes): (&[f32], &[f32], &mut [u32]) = (x.read(), codebooks.read(), codes.write());
    let (dim, stages, entries) = (p.dim as usize, p.stages as usize, p.entries as usize);
    for r in 0..p.rows as usize {
        let mut residual = x[r * dim..(r + 1) * dim].to_vec();
        for s in 0..stages {
            let entry = |e: usize| &codebooks[(s * entries + e) * dim..][..dim];
            let (mut nearest, mut smallest) = (0, f64::INFINITY);
            for e in 0..entries {
                let distance: f64 =
                    residual.iter().zip(entry(e)).map(|(&v, &e)| (f64::from(v) - f64::from(e)).powi(2)).sum();
                if distance < smallest {
                    (nearest, smallest) = (e, distance);
                }
            }
            codes[r * stages + s] = nearest as u32;
            for (v, e) in residual.iter_mut().zip(entry(nearest)) {
                *v -= e;
            }
        }
    }
}
