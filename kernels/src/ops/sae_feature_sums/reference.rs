use super::{HISTORY, Params, SUMS};
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [starts, order, values, grads, x, error, history, sums] = slots else {
        panic!("sae_feature_sums has eight slots")
    };
    let (starts, order): (&[u32], &[[u32; 2]]) = (starts.read(), order.read());
    let (values, grads): (&[f32], &[f32]) = (values.read(), grads.read());
    let (x, error): (&[f32], &[f32]) = (x.read(), error.read());
    let (history, sums): (&mut [u32], &mut [f32]) = (history.write(), sums.write());
    let (rows, width) = (p.rows as usize, p.width as usize);
    for f in 0..p.features as usize {
        let at = p.first as usize + f;
        let entries = &order[starts[at] as usize..starts[at + 1] as usize];
        let (mut decoder, mut encoder, mut bias) = (vec![0.0_f64; width], vec![0.0_f64; width], 0.0);
        for &[entry, row] in entries {
            let (value, grad) = (f64::from(values[entry as usize]), f64::from(grads[entry as usize]));
            for c in 0..width {
                decoder[c] += value * f64::from(error[row as usize * width + c]);
                encoder[c] += grad * f64::from(x[row as usize % rows * width + c]);
            }
            bias += grad;
        }
        let squares = decoder.iter().chain(&encoder).map(|g| g * g).sum::<f64>() + bias * bias;
        let first = entries.iter().filter(|[_, row]| *row < p.rows).count();
        let history = &mut history[f * HISTORY..][..HISTORY];
        let steps = history[0].saturating_add(1);
        history[0] = if entries.is_empty() { steps } else { 0 };
        history[1] = if first == 0 { history[1].saturating_add(1) } else { 0 };
        history[2] = history[2].wrapping_add(first as u32);
        let row = [squares as f32, bias as f32, steps as f32, entries.len() as f32];
        sums[f * SUMS..][..SUMS].copy_from_slice(&row);
    }
}
