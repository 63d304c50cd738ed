use super::Params;
use crate::HostSlot;

/// The definition, accumulating in f64.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, shift, sum, squares] = slots else { panic!("column_sums has four slots") };
    let (x, shift, sum, squares): (&[f32], &[f32], &mut [f32], &mut [f32]) =
        (x.read(), shift.read(), sum.write(), squares.write());
    let (steps, cols) = (p.steps as usize, p.cols as usize);
    for g in 0..p.groups as usize {
        for c in 0..cols {
            let shift = if p.has_shift == 1 { f64::from(shift[c]) } else { 0.0 };
            let values = (p.skip as usize..steps).map(|s| f64::from(x[(g * steps + s) * cols + c]) - shift);
            sum[g * cols + c] = values.clone().sum::<f64>() as f32;
            squares[g * cols + c] = values.map(|d| d * d).sum::<f64>() as f32;
        }
    }
}
