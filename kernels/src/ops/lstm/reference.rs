use super::Params;
use crate::HostSlot;

/// The definition, in f64 from the first step to the last.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [gates, weight, residual, y] = slots else { panic!("lstm has four slots") };
    let (gates, weight): (&[f32], &[f32]) = (gates.read(), weight.read());
    let (residual, y): (&[f32], &mut [f32]) = (residual.read(), y.write());
    let (steps, hidden) = (p.steps as usize, p.hidden as usize);
    for b in 0..p.batch as usize {
        let (mut h, mut c) = (vec![0.0_f64; hidden], vec![0.0_f64; hidden]);
        for t in 0..steps {
            let at = b * steps + t;
            let gate = |row: usize| {
                let fed = (0..hidden).map(|k| f64::from(weight[row * hidden + k]) * h[k]).sum::<f64>();
                f64::from(gates[at * 4 * hidden + row]) + fed
            };
            let mut next = vec![0.0_f64; hidden];
            for u in 0..hidden {
                let (i, f, g, o) = (gate(u), gate(hidden + u), gate(2 * hidden + u), gate(3 * hidden + u));
                c[u] = sigmoid(f) * c[u] + sigmoid(i) * g.tanh();
                next[u] = sigmoid(o) * c[u].tanh();
            }
            h = next;
            for u in 0..hidden {
                let rest = if p.has_residual == 1 { f64::from(residual[at * hidden + u]) } else { 0.0 };
                y[at * hidden + u] = (h[u] + rest) as f32;
            }
        }
    }
}

fn sigmoid(v: f64) -> f64 {
    1.0 / (1.0 + (-v).exp())
}
