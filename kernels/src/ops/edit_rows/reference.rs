use super::{Kind, Params, Record};
use crate::HostSlot;

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [x, records, directions, positions, pre] = slots else { panic!("edit_rows has five slots") };
    let (records, directions): (&[Record], &[f32]) = (records.read(), directions.read());
    let (positions, pre, x): (&[u32], &[f32], &mut [f32]) = (positions.read(), pre.read(), x.write());
    let [width, slots, features] = [p.width, p.slots, p.features].map(|n| n as usize);
    for (r, position) in positions.iter().enumerate() {
        let x = &mut x[r * width..][..width];
        let pre = &pre[r * features..][..features];
        let direction = |d: u64| {
            (d < p.dirs.into())
                .then(|| &directions[usize::try_from(d).expect("below dirs") * width..][..width])
        };
        for record in &records[r * slots..][..slots] {
            let column = position.wrapping_add(record.offset);
            if !(record.first..record.end).contains(&column) {
                continue;
            }
            let f = || activation(pre, record.feature as usize, p.k as usize, f32::from_bits(record.rows));
            let (d, amount) = (u64::from(record.direction), record.amount);
            let change = match record.kind {
                kind if kind == Kind::Ablate.word() => f().map(|f| -f),
                kind if kind == Kind::Scale.word() => f().map(|f| (amount - 1.0) * f),
                kind if kind == Kind::Set.word() => f().map(|f| amount - f),
                kind if kind == Kind::Steer.word() => Some(amount),
                _ => None,
            };
            let replacement = match record.kind {
                kind if kind == Kind::Replace.word() => direction(d),
                kind if kind == Kind::Patch.word() && column < record.rows => {
                    direction(d + u64::from(column))
                }
                _ => None,
            };
            if let (Some(c), Some(direction)) = (change.filter(|&c| c != 0.0), direction(d)) {
                for (x, d) in x.iter_mut().zip(direction) {
                    *x = (f64::from(*x) + f64::from(c) * f64::from(*d)) as f32;
                }
            }
            if let Some(replacement) = replacement {
                x.copy_from_slice(replacement);
            }
            if record.kind == Kind::Zero.word() {
                x.fill(0.0);
            }
        }
    }
}

/// A feature's activation: its value if that is positive, above the threshold and among the k largest; none where there is no
/// such feature.
fn activation(pre: &[f32], feature: usize, k: usize, threshold: f32) -> Option<f32> {
    let own = *pre.get(feature)?;
    let before = |(i, &other): (usize, &f32)| other > own || (other == own && i < feature);
    let active =
        own > threshold.max(0.0) && (k == 0 || pre.iter().enumerate().filter(|&o| before(o)).count() < k);
    Some(if active { own } else { 0.0 })
}
