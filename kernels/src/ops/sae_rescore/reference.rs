use super::{Params, settled};
use crate::HostSlot;

/// The definition: sums in f64, rounded once, then sorted.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, weight, bias, errors, candidates, scores, indices, values] = slots else {
        panic!("sae_rescore has eight slots")
    };
    let (x, weight, bias): (&[f32], &[f32], &[f32]) = (x.read(), weight.read(), bias.read());
    let (errors, candidates, scores): (&[f32], &[u32], &[f32]) =
        (errors.read(), candidates.read(), scores.read());
    let (indices, values): (&mut [u32], &mut [f32]) = (indices.write(), values.write());
    let [width, screened, k] = [p.width, p.screened, p.k].map(|n| n as usize);
    for r in 0..p.rows as usize {
        let (indices, values) = (&mut indices[r * k..][..k], &mut values[r * k..][..k]);
        let x = &x[r * width..][..width];
        let list = r * screened..(r + 1) * screened;
        let computed = |feature: u32| {
            let f = feature as usize;
            let terms = x.iter().zip(&weight[f * width..][..width]);
            let sum: f64 = terms.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            (sum + f64::from(bias[f])) as f32
        };
        let found = settled(&p, [x, errors], &candidates[list.clone()], &scores[list], computed);
        let mut active = found.unwrap_or_else(|| (0..p.features).map(|f| (f, computed(f))).collect());
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
