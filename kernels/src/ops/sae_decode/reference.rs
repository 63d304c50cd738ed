use super::Params;
use crate::HostSlot;

/// The definition, in f64.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [indices, values, w_dec, b_dec, minus, y] = slots else { panic!("sae_decode has six slots") };
    let (indices, values, w_dec, b_dec): (&[u32], &[f32], &[f32], &[f32]) =
        (indices.read(), values.read(), w_dec.read(), b_dec.read());
    let (minus, y): (&[f32], &mut [f32]) = (minus.read(), y.write());
    let (width, features, k) = (p.width as usize, p.features as usize, p.k as usize);
    for r in 0..p.rows as usize {
        for c in 0..width {
            let mut sum = f64::from(b_dec[c]);
            for i in r * k..(r + 1) * k {
                let feature = indices[i] as usize;
                if feature < features && values[i] != 0.0 {
                    sum += f64::from(values[i]) * f64::from(w_dec[feature * width + c]);
                }
            }
            if p.has_minus == 1 {
                sum -= f64::from(minus[r * width + c]);
            }
            y[r * width + c] = sum as f32;
        }
    }
}
