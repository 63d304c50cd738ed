use super::Params;
use crate::{HostSlot, math::vectorised};
use rayon::prelude::*;

/// Rows in parallel, a row of y in cache while the rows of w_dec pass.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [indices, values, w_dec, b_dec, minus, y] = slots else { panic!("sae_decode has six slots") };
    let (indices, values, w_dec, b_dec): (&[u32], &[f32], &[f32], &[f32]) =
        (indices.read(), values.read(), w_dec.read(), b_dec.read());
    let (minus, y): (&[f32], &mut [f32]) = (minus.read(), y.write());
    let (width, features, k) = (p.width as usize, p.features as usize, p.k as usize);
    if width == 0 {
        return;
    }
    y.par_chunks_exact_mut(width).enumerate().for_each(|(r, y)| {
        y.copy_from_slice(b_dec);
        for (&feature, &value) in indices[r * k..][..k].iter().zip(&values[r * k..][..k]) {
            let feature = feature as usize;
            if feature < features && value != 0.0 {
                let direction = &w_dec[feature * width..][..width];
                vectorised(
                    #[inline(always)]
                    || y.iter_mut().zip(direction).for_each(|(y, d)| *y = value.mul_add(*d, *y)),
                );
            }
        }
        if p.has_minus == 1 {
            y.iter_mut().zip(&minus[r * width..][..width]).for_each(|(y, m)| *y -= m);
        }
    });
}
