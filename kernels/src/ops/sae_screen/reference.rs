use super::super::sae_encode::Params;
use crate::HostSlot;
use half::bf16;
use std::cmp::Ordering;

/// The definition: sums in f64, rounded once, then sorted.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, indices, values] = slots else { panic!("sae_screen has five slots") };
    let (x, weight, bias): (&[bf16], &[bf16], &[f32]) = (x.read(), weight.read(), bias.read());
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    let (width, k) = (p.width as usize, p.k as usize);
    for r in 0..p.rows as usize {
        let (indices, values) = (&mut indices[r * k..][..k], &mut values[r * k..][..k]);
        let mut found: Vec<(u32, f32)> = Vec::new();
        if p.first_feature > 0 {
            found.extend(indices.iter().copied().zip(values.iter().copied()));
        }
        for f in 0..p.features as usize {
            let terms = x[r * width..][..width].iter().zip(&weight[f * width..][..width]);
            let sum: f64 = terms.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            found.push((p.first_feature + f as u32, (sum + f64::from(bias[f])) as f32));
        }
        found.retain(|&(_, value)| value != f32::NEG_INFINITY);
        found.sort_by(|a, b| descending(a.1, b.1).then(a.0.cmp(&b.0)));
        for i in 0..k {
            (indices[i], values[i]) = found.get(i).copied().unwrap_or((u32::MAX, f32::NEG_INFINITY));
        }
    }
}

/// What is not a number first.
fn descending(a: f32, b: f32) -> Ordering {
    b.is_nan().cmp(&a.is_nan()).then(b.partial_cmp(&a).unwrap_or(Ordering::Equal))
}
