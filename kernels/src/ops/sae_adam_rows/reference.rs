use super::Params;
use crate::HostSlot;
use crate::ops::sae_feature_sums::SUMS;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [table, moments, starts, order, coefs, inputs, sums, rates] = slots else {
        panic!("sae_adam_rows has eight slots")
    };
    let (table, moments): (&mut [f32], &mut [f32]) = (table.write(), moments.write());
    let (starts, order): (&[u32], &[[u32; 2]]) = (starts.read(), order.read());
    let (coefs, inputs): (&[f32], &[f32]) = (coefs.read(), inputs.read());
    let (sums, rates): (&[f32], &[f32]) = (sums.read(), rates.read());
    let (rows, width, count) = (p.rows as usize, p.width as usize, p.count as usize);
    let [factor, step, root] = [0, 1, 2].map(|i| f64::from(rates[i]));
    for f in 0..p.features as usize {
        let at = p.first as usize + f;
        let entries = &order[starts[at] as usize..starts[at + 1] as usize];
        if entries.is_empty() {
            continue;
        }
        let steps = f64::from(sums[f * SUMS + 2]);
        let keep1 = (steps * f64::from(p.log_keep1)).exp2();
        let keep2 = (steps * f64::from(p.log_keep2)).exp2();
        let moments = &mut moments[f * count * width..][..count * width];
        let mut row = vec![0.0_f64; width];
        for c in 0..width {
            let summand = |&[entry, row]: &[u32; 2]| {
                f64::from(coefs[entry as usize]) * f64::from(inputs[row as usize % rows * width + c])
            };
            let g = factor * entries.iter().map(summand).sum::<f64>();
            let v = keep2 * f64::from(moments[c]) + f64::from(p.fresh2) * g * g;
            moments[c] = v as f32;
            let mut m = g;
            if count == 2 {
                m = keep1 * f64::from(moments[width + c]) + f64::from(p.fresh1) * g;
                moments[width + c] = m as f32;
            }
            row[c] = f64::from(table[f * width + c]) - step * m / (root * v.sqrt() + f64::from(p.eps));
        }
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        let divisor = if p.unit == 1 && length > 0.0 { length } else { 1.0 };
        for c in 0..width {
            table[f * width + c] = (row[c] / divisor) as f32;
        }
    }
}
