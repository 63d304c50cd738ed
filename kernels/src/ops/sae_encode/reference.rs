use super::Params;
use crate::HostSlot;

/// The definition: sums in f64, rounded once, then sorted.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, indices, values] = slots else { panic!("sae_encode has five slots") };
    let (x, weight, bias): (&[f32], &[f32], &[f32]) = (x.read(), weight.read(), bias.read());
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    let (width, k) = (p.width as usize, p.k as usize);
    let (features, span, parts) = (p.features as usize, p.span as usize, p.parts() as usize);
    for (at, (indices, values)) in indices.chunks_exact_mut(k).zip(values.chunks_exact_mut(k)).enumerate() {
        let (r, first) = (at / parts, at % parts * span);
        let mut active = Vec::new();
        if p.first_feature > 0 {
            active.extend(indices.iter().copied().zip(values.iter().copied()));
        }
        for f in first..features.min(first + span) {
            let terms = x[r * width..][..width].iter().zip(&weight[f * width..][..width]);
            let sum: f64 = terms.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            active.push((p.first_feature + f as u32, (sum + f64::from(bias[f])) as f32));
        }
        if active.iter().any(|(_, value)| value.is_nan()) {
            indices.fill(0);
            values.fill(f32::NAN);
            continue;
        }
        active.retain(|&(_, value)| value > 0.0);
        active.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for i in 0..k {
            (indices[i], values[i]) = active.get(i).copied().unwrap_or((0, 0.0));
        }
    }
}
