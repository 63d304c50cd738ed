use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [ids, codes] = slots else { panic!("delay_revert has two slots") };
    let (ids, codes): (&[u32], &mut [u32]) = (ids.read(), codes.write());
    let [codebooks, frames, steps] = [p.codebooks, p.frames, p.steps].map(|n| n as usize);
    for b in 0..p.batch as usize {
        for q in 0..codebooks {
            for f in 0..frames {
                let s = f + 1 + q / p.channels as usize;
                let id = if s < steps { ids[(b * steps + s) * codebooks + q] } else { p.special };
                codes[(b * codebooks + q) * frames + f] = id;
            }
        }
    }
}
