use super::Params;
use crate::{HostSlot, math::add_rows};
use rayon::prelude::*;

/// Rows in parallel, a row of y in cache while the rows of w_dec pass.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [indices, values, w_dec, b_dec, minus, y] = slots else { panic!("sae_decode has six slots") };
    let (indices, values, w_dec, b_dec): (&[u32], &[f32], &[f32], &[f32]) =
        (indices.read(), values.read(), w_dec.read(), b_dec.read());
    let (minus, y): (&[f32], &mut [f32]) = (minus.read(), y.write());
    let (width, k) = (p.width as usize, p.k as usize);
    if width == 0 {
        return;
    }
    y.par_chunks_exact_mut(width).enumerate().for_each(|(r, y)| {
        y.copy_from_slice(b_dec);
        let codes = indices[r * k..][..k].iter().zip(&values[r * k..][..k]);
        let active = codes.filter(|(feature, value)| **feature < p.features && **value != 0.0);
        add_rows(y, active.map(|(&feature, &value)| (value, &w_dec[feature as usize * width..][..width])));
        if p.has_minus == 1 {
            y.iter_mut().zip(&minus[r * width..][..width]).for_each(|(y, m)| *y -= m);
        }
    });
}
