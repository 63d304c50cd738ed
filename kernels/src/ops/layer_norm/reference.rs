use super::Params;
use crate::HostSlot;

/// The definition. Accumulates in f64 so that it is closer to the truth than any kernel.
pub(super) fn f32(params: &[u8], slots: &mut [HostSlot<'_>]) {
    layer_norm(params, slots, |v| v as f32);
}

/// The definition for binary16, rounded once; the rounding is that of the `half` crate.
pub(super) fn f16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    layer_norm(params, slots, half::f16::from_f64);
}

/// The definition for bfloat16, rounded once; the rounding is that of the `half` crate.
pub(super) fn bf16(params: &[u8], slots: &mut [HostSlot<'_>]) {
    layer_norm(params, slots, half::bf16::from_f64);
}

fn layer_norm<T: bytemuck::Pod>(params: &[u8], slots: &mut [HostSlot<'_>], round: impl Fn(f64) -> T) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, gamma, beta, y] = slots else { panic!("layer_norm has four slots") };
    let (x, gamma, beta, y): (&[f32], &[f32], &[f32], &mut [T]) =
        (x.read(), gamma.read(), beta.read(), y.write());
    let cols = p.cols as usize;
    for r in 0..p.rows as usize {
        let row = &x[r * cols..][..cols];
        let n = cols as f64;
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (var + f64::from(p.eps)).sqrt();
        for c in 0..cols {
            let v = (f64::from(row[c]) - mean) * scale * f64::from(gamma[c]) + f64::from(beta[c]);
            y[r * cols + c] = round(v);
        }
    }
}
