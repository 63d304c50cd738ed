use super::Params;
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [tokens, limits, positions, codes, ids] = slots else { panic!("delay_step has five slots") };
    let (tokens, limits): (&[u32], &[u32]) = (tokens.read(), limits.read());
    let (positions, codes, ids): (&mut [u32], &mut [u32], &mut [u32]) =
        (positions.write(), codes.write(), ids.write());
    let [takes, codebooks, capacity, channels] =
        [p.takes, p.codebooks, p.capacity, p.channels].map(|n| n as usize);
    let longest = (codebooks - 1) / channels;
    for take in 0..takes {
        let rows = if p.paired == 1 { vec![take, takes + take] } else { vec![take] };
        let prompt = limits[2 * take] as usize;
        let frames = (limits[2 * take + 1] as usize).min(capacity);
        let column = positions[take] as usize;
        for q in 0..codebooks {
            let frame = column.checked_sub(q / channels).filter(|&t| t < frames);
            let id = frame.map_or(p.special, |t| {
                let code = &mut codes[(take * codebooks + q) * capacity + t];
                if t >= prompt {
                    *code = tokens[take * codebooks + q];
                }
                *code
            });
            for row in &rows {
                ids[row * codebooks + q] = id;
            }
        }
        if column < frames + longest {
            for row in rows {
                positions[row] += 1;
            }
        }
    }
}
