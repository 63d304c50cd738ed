use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [codes, ids] = slots else { panic!("delay_apply has two slots") };
    let (codes, ids): (&[u32], &mut [u32]) = (codes.read(), ids.write());
    let [codebooks, frames, steps] = [p.codebooks, p.frames, p.steps].map(|n| n as usize);
    for b in 0..p.batch as usize {
        for s in 0..steps {
            for q in 0..codebooks {
                let delay = q / p.channels as usize;
                let frame = s.checked_sub(1 + delay).filter(|&f| f < frames);
                let code = frame.map_or(p.special, |f| codes[(b * codebooks + q) * frames + f]);
                ids[(b * steps + s) * codebooks + q] = code;
            }
        }
    }
}
