//! The references of training's kernels against cases worked by hand.

use auscult_kernels::ops::adam::{Adam, AdamStep};
use auscult_kernels::ops::sae_active::SaeActive;
use auscult_kernels::ops::sae_adam_rows::{Length, SaeAdamRows};
use auscult_kernels::ops::sae_add_threshold::SaeAddThreshold;
use auscult_kernels::ops::sae_batch_top_k::SaeBatchTopK;
use auscult_kernels::ops::sae_clip::SaeClip;
use auscult_kernels::ops::sae_dead_bias::SaeDeadBias;
use auscult_kernels::ops::sae_feature_grad::SaeFeatureGrad;
use auscult_kernels::ops::sae_feature_sums::SaeFeatureSums;
use auscult_kernels::ops::sae_group::SaeGroup;
use auscult_kernels::ops::sae_threshold_grad::SaeThresholdGrad;
use auscult_kernels::ops::sum_rows::SumRows;
use auscult_kernels::{Access, HostSlot, Plan, TensorDesc};
use bytemuck::{cast_slice, cast_slice_mut};

const NONE: u32 = u32::MAX;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn numbers(words: &[u32]) -> Vec<f32> {
    words.iter().map(|w| f32::from_bits(*w)).collect()
}

/// Runs the reference over words: those of slots that are read or updated are given; what is written comes back for all.
fn run(plan: &Plan, given: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut given = given.iter();
    let mut words: Vec<Vec<u32>> = plan
        .kernel
        .slots
        .iter()
        .zip(&plan.slots)
        .map(|(slot, desc)| {
            let n = desc.as_ref().expect("no slot is left out").elements();
            match slot.access {
                Access::Write => vec![NONE; n],
                _ => {
                    let words = given.next().expect("one for each slot that is read").clone();
                    assert_eq!(words.len(), n, "{}", slot.name);
                    words
                }
            }
        })
        .collect();
    let mut slots: Vec<HostSlot<'_>> = plan
        .kernel
        .slots
        .iter()
        .zip(&mut words)
        .map(|(slot, words)| match slot.access {
            Access::Read => HostSlot::Read(cast_slice(words)),
            _ => HostSlot::Write(cast_slice_mut(words)),
        })
        .collect();
    (plan.kernel.reference)(&plan.params, &mut slots);
    drop(slots);
    let written = plan.kernel.slots.iter().zip(words).filter(|(slot, _)| slot.access != Access::Read);
    written.map(|(_, words)| words).collect()
}

#[test]
fn entries_are_turned_round() {
    // rows: {2: 1, 0: 0.5}, {1: 3, 2: off}; second table, from entry 64 on: {0: 2}, {2: 1}
    let group = SaeGroup { features: 3, rows: 2, k: 2, aux_k: 1 };
    assert_eq!((group.second(), group.entries()), (64, 66));
    let (mut indices, mut values) = (vec![1; 66], vec![9.0; 66]);
    indices[..4].copy_from_slice(&[2, 0, 1, 2]);
    values[..4].copy_from_slice(&[1.0, 0.5, 3.0, 0.0]);
    indices[64..].copy_from_slice(&[0, 2]);
    values[64..].copy_from_slice(&[2.0, 1.0]);
    let plan = group.plan(&TensorDesc::u32([66]), &TensorDesc::f32([66])).expect("shapes fit");
    let out = run(&plan, &[indices, bits(&values)]);
    assert_eq!(out[0], [0, 2, 3, 5]);
    assert_eq!(out[1][..10], [1, 0, 64, 2, 2, 1, 0, 0, 65, 3]);
    assert!(out[1][10..].iter().all(|&w| w == NONE));
}

#[test]
fn gradients_of_codes() {
    let plan = SaeFeatureGrad.plan(
        &TensorDesc::u32([2, 2]),
        &TensorDesc::f32([2, 2]),
        &TensorDesc::f32([3, 2]),
        &TensorDesc::f32([2, 2]),
        &TensorDesc::f32([1]),
    );
    let w_dec = [1.0, 0.0, 0.0, 1.0, 3.0, 4.0];
    let out = run(
        &plan.expect("shapes fit"),
        &[
            vec![2, 0, 1, 0],
            bits(&[2.0, 0.5, 1.0, 0.0]),
            bits(&w_dec),
            bits(&[1.0, 2.0, -3.0, 0.5]),
            bits(&[0.25]),
        ],
    );
    // (1, 2) . (3, 4) + 1/4, (1, 2) . (1, 0) + 1/4, (-3, 0.5) . (0, 1) + 1/4, and one that is off
    assert_eq!(numbers(&out[0]), [11.25, 1.25, 0.75, 0.0]);
    assert_eq!(numbers(&out[1]), [5.0, 2.5, 2.0, 9.25, 1.0, 1.0]);
}

#[test]
fn sums_and_histories_of_features() {
    // feature 0 in rows 0 and 3 (the second table's row 1), feature 1 in none, feature 2 in row 2 (the second table's row 0)
    let plan = SaeFeatureSums.plan([
        &TensorDesc::u32([4]),
        &TensorDesc::u32([4, 2]),
        &TensorDesc::f32([4]),
        &TensorDesc::f32([4]),
        &TensorDesc::f32([2, 1]),
        &TensorDesc::f32([4, 1]),
        &TensorDesc::u32([3, 3]),
    ]);
    let order = vec![0, 0, 3, 3, 2, 2, NONE, NONE];
    let out = run(
        &plan.expect("shapes fit"),
        &[
            vec![0, 2, 2, 3],
            order,
            bits(&[2.0, 9.0, 1.0, 3.0]),
            bits(&[1.0, 9.0, 4.0, -2.0]),
            bits(&[10.0, 20.0]),
            bits(&[1.0, 0.0, 5.0, 7.0]),
            vec![4, 6, 8, 1, 1, 1, 0, NONE, 2],
        ],
    );
    // feature 0: decoder 2 * 1 + 3 * 7 = 23, encoder 1 * 10 - 2 * 20 = -30, bias -1; feature 2: 5, 40, 4
    assert_eq!(out[0], [0, 0, 9, 2, 2, 1, 0, NONE, 2]);
    let want = [1430.0, -1.0, 5.0, 2.0, 0.0, 0.0, 2.0, 0.0, 1641.0, 4.0, 1.0, 1.0];
    assert_eq!(numbers(&out[1]), want);
}

#[test]
fn sums_of_rows() {
    let plan = SumRows { factor: -2.0 }.plan(&TensorDesc::f32([3, 2])).expect("shapes fit");
    assert_eq!(numbers(&run(&plan, &[bits(&[1.0, 2.0, 3.0, 4.0, -1.0, 0.5])])[0]), [-6.0, -13.0]);
}

#[test]
fn long_gradients_are_shortened() {
    let rates = |max_norm| {
        let plan = SaeClip { scale: 0.5, max_norm }.plan(
            &TensorDesc::f32([2, 4]),
            &TensorDesc::f32([1, 1]),
            &TensorDesc::f32([2]),
        );
        let sums = [4.0, 9.0, 9.0, 9.0, 8.0, 9.0, 9.0, 9.0];
        numbers(&run(&plan.expect("shapes fit"), &[bits(&sums), bits(&[2.0]), bits(&[0.125, 3.0])])[0])
    };
    // sqrt(4 + 8 + 2^2) / 2 = 2
    assert_eq!(rates(0.0), [0.5, 0.125, 3.0, 2.0]);
    assert_eq!(rates(2.5), [0.5, 0.125, 3.0, 2.0]);
    let short = rates(1.0);
    assert!((short[0] - 0.25).abs() < 1e-6 && short[3] == 2.0, "{short:?}");
}

#[test]
fn only_silent_features_have_a_bias() {
    let plan = SaeDeadBias { after: 3 }.plan(&TensorDesc::f32([3]), &TensorDesc::u32([3, 3]));
    let history = vec![9, 2, 9, 0, 3, 0, 0, NONE, 0];
    let out = run(&plan.expect("shapes fit"), &[bits(&[1.0, 2.0, -3.0]), history]);
    assert_eq!(numbers(&out[0]), [f32::NEG_INFINITY, 2.0, -3.0]);
}

/// Adam in the words of its paper: dense, a step at a time, beta2 = 1/2; of a gradient for every step.
fn dense(beta1: f64, gradients: &[f64]) -> (f64, f64, f64) {
    let (mut w, mut m, mut v) = (1.0, 0.0, 0.0);
    for g in gradients {
        m = beta1 * m + (1.0 - beta1) * g;
        v = 0.5 * v + 0.5 * g * g;
        w -= 0.25 * m / (2.0 * f64::sqrt(v) + 1e-3);
    }
    (w, m, v)
}

fn adam(beta1: f64) -> Adam {
    Adam { beta1, beta2: 0.5, eps: 1e-3 }
}

#[test]
fn a_dense_step() {
    for beta1 in [0.0, 0.5] {
        let count = adam(beta1).moments();
        let plan = AdamStep { adam: adam(beta1), column: 1 }
            .plan(
                &TensorDesc::f32([1]),
                &TensorDesc::f32([count, 1]),
                &TensorDesc::f32([1, 2]),
                &TensorDesc::f32([4]),
            )
            .expect("shapes fit");
        let (mut param, mut moments) = (bits(&[1.0]), bits(&vec![0.0; count]));
        for grad in [3.0, -1.0] {
            // a factor of 2 on half of the gradient
            let given = [param, moments, bits(&[9.0, grad / 2.0]), bits(&[2.0, 0.25, 2.0, 0.0])];
            let out = run(&plan, &given);
            (param, moments) = (out[0].clone(), out[1].clone());
        }
        let (w, m, v) = dense(beta1, &[3.0, -1.0]);
        assert!((f64::from(numbers(&param)[0]) - w).abs() < 1e-6);
        let moments = numbers(&moments);
        assert!((f64::from(moments[0]) - v).abs() < 1e-6);
        assert!(count == 1 || (f64::from(moments[1]) - m).abs() < 1e-6);
    }
}

#[test]
fn a_lazy_step_is_all_the_steps_since() {
    let plan = SaeAdamRows { adam: adam(0.0), length: Length::Any }.plan([
        &TensorDesc::f32([2, 1]),
        &TensorDesc::f32([2, 1, 1]),
        &TensorDesc::u32([3]),
        &TensorDesc::u32([2, 2]),
        &TensorDesc::f32([2]),
        &TensorDesc::f32([1, 1]),
        &TensorDesc::f32([2, 4]),
        &TensorDesc::f32([4]),
    ]);
    let plan = plan.expect("shapes fit");
    let step = |table: Vec<u32>, moments: Vec<u32>, gradient: f32, steps: f32| {
        // two entries, of rows 0 and 1, which is row 0 again: 2 * (g / 4 * 1 + g / 4 * 1) = g
        let coefs = bits(&[gradient / 4.0; 2]);
        let sums = bits(&[0.0, 0.0, 9.0, 0.0, 0.0, 0.0, steps, 2.0]);
        let rates = bits(&[2.0, 0.25, 2.0, 0.0]);
        let order = vec![0, 0, 1, 1];
        let given = [table, moments, vec![0, 0, 2], order, coefs, bits(&[1.0]), sums, rates];
        let out = run(&plan, &given);
        (out[0].clone(), out[1].clone())
    };
    let (table, moments) = step(bits(&[7.0, 1.0]), bits(&[7.0, 0.0]), 3.0, 1.0);
    let (table, moments) = step(table, moments, -1.0, 4.0);
    let (w, _, v) = dense(0.0, &[3.0, 0.0, 0.0, 0.0, -1.0]);
    let (table, moments) = (numbers(&table), numbers(&moments));
    assert_eq!((table[0], moments[0]), (7.0, 7.0), "a feature without entries is left as it is");
    assert!((f64::from(table[1]) - w).abs() < 1e-6 && (f64::from(moments[1]) - v).abs() < 1e-6);
}

#[test]
fn moved_rows_are_of_length_1() {
    let plan = SaeAdamRows { adam: adam(0.5), length: Length::Unit }.plan([
        &TensorDesc::f32([1, 2]),
        &TensorDesc::f32([1, 2, 2]),
        &TensorDesc::u32([2]),
        &TensorDesc::u32([1, 2]),
        &TensorDesc::f32([1]),
        &TensorDesc::f32([1, 2]),
        &TensorDesc::f32([1, 4]),
        &TensorDesc::f32([4]),
    ]);
    // no gradient; of the first moment two steps leave a quarter, (4, 6), by which (7, 10) moves, the rate being eps: to (3, 4)
    let out = run(
        &plan.expect("shapes fit"),
        &[
            bits(&[7.0, 10.0]),
            bits(&[0.0, 0.0, 16.0, 24.0]),
            vec![0, 1],
            vec![0, 0],
            bits(&[1.0]),
            bits(&[0.0, 0.0]),
            bits(&[0.0, 0.0, 2.0, 1.0]),
            bits(&[1.0, 1e-3, 1.0, 0.0]),
        ],
    );
    let row = numbers(&out[0]);
    assert!((row[0] - 0.6).abs() < 1e-6 && (row[1] - 0.8).abs() < 1e-6, "{row:?}");
    assert_eq!(numbers(&out[1]), [0.0, 0.0, 4.0, 6.0]);
}

#[test]
fn thresholds_are_added_to_what_is_above_them() {
    let plan = SaeAddThreshold
        .plan(&TensorDesc::u32([2, 3]), &TensorDesc::f32([2, 3]), &TensorDesc::f32([4]))
        .unwrap();
    let values = bits(&[0.5, 0.25, 0.0, 2.0, -1.0, f32::INFINITY]);
    let y = run(&plan, &[vec![3, 1, 0, 2, 1, 9], values, bits(&[8.0, 4.0, 2.0, 1.0])]);
    // feature 9 is none
    assert_eq!(numbers(&y[0]), [1.5, 4.25, 0.0, 4.0, -1.0, f32::INFINITY]);
}

#[test]
fn the_largest_of_a_batch_stay() {
    let of = |most: usize, values: &[f32]| {
        let one = TensorDesc::f32([1]);
        let plan = SaeBatchTopK { most }.plan(&TensorDesc::f32([values.len()]), &one, &one).unwrap();
        let found = run(&plan, &[bits(values), bits(&[10.0]), bits(&[0.75])]);
        (numbers(&found[0]), numbers(&found[1])[0])
    };
    // 3 is the third largest, and there are two of it; 0.75 * 10 + 0.25 * 3
    assert_eq!(of(3, &[3.0, 5.0, 0.0, 1.0, 4.0, 3.0]), (vec![3.0, 5.0, 0.0, 0.0, 4.0, 3.0], 8.25));
    // two above 0, of which the smaller is the least; what is below 0 stays
    assert_eq!(of(3, &[2.0, -1.0, 6.0]), (vec![2.0, -1.0, 6.0], 8.0));
    assert_eq!(of(3, &[0.0, -1.0]), (vec![0.0, -1.0], 10.0));
}

#[test]
fn active_features_come_to_the_front() {
    let pre = bits(&[0.4, 3.0, -1.0, 0.6, 2.0, 0.0, f32::NAN, 1.5]);
    let desc = TensorDesc::f32([2, 4]);
    // thresholds of 0.5, 4, 1, 0.5
    let logs = bits(&[0.5_f32.ln(), 4.0_f32.ln(), 0.0, 0.5_f32.ln()]);
    let found = run(&SaeActive.plan(&desc, Some(&TensorDesc::f32([4]))).unwrap(), &[pre, logs]);
    assert_eq!(found[0], [3, 0, 0, 0, 0, 2, 3, 0]);
    let values = numbers(&found[1]);
    assert_eq!(
        (&values[..5], values[5].is_nan(), &values[6..]),
        (&[0.6, 0.0, 0.0, 0.0, 2.0][..], true, &[1.5, 0.0][..])
    );
}

#[test]
fn thresholds_move_by_what_is_near() {
    // thresholds of 1 and 2, a bandwidth of 1: rows 0 and 2 are near the first, row 1 is near the second
    let shapes: [&[usize]; 5] = [&[3, 2], &[2], &[2, 2], &[3, 2], &[1]];
    let [pre, logs, w_dec, error, penalty] = shapes.map(TensorDesc::f32);
    let plan = SaeThresholdGrad { bandwidth: 1.0 }.plan(&pre, &logs, &w_dec, &error, &penalty).unwrap();
    let given = [
        bits(&[1.25, 0.0, 2.0, 2.25, 0.75, 3.0]),
        bits(&[0.0, 2.0_f32.ln()]),
        bits(&[1.0, 2.0, 3.0, 4.0]),
        bits(&[1.0, 1.0, 0.5, -1.0, 2.0, 0.0]),
        bits(&[0.125]),
    ];
    let grad = numbers(&run(&plan, &given)[0]);
    // -1 (3 + 0.125 + 2 + 0.125), and -2 (2 (1.5 - 4) + 0.125)
    assert!((grad[0] + 5.25).abs() < 1e-6 && (grad[1] - 9.75).abs() < 1e-5, "{grad:?}");
}
