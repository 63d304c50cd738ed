use super::Params;
use crate::{
    HostSlot,
    math::{sigmoid, tanh, vectorised},
};
use rayon::prelude::*;

/// Units of a panel. Their four gates make 64 rows of the weight: eight vectors of eight sums stay in registers.
const UNITS: usize = 16;
const LANES: usize = 4 * UNITS;

/// Values of h that are summed up before they join the total: short chains of additions, and 16 KiB of weights, which
/// stay in the first-level cache while all sequences of the batch use them.
const DEPTH: usize = 64;

/// Pieces of a step for each thread: enough to even out a core that is busy elsewhere.
const PIECES: usize = 4;

/// The weight is reordered once, so that each step streams it from end to end: a panel of 16 units, for every k of h its
/// 64 weights. A vector holds different units, never parts of one sum, so nothing is added across lanes.
///
/// Every step is one fork and join over the panels. Workers own their panels' part of the next h for its duration, so
/// nothing but rayon's own queue is shared, and any number of threads will do.
pub(super) fn cpu(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [gates, weight, residual, y] = slots else { panic!("lstm has four slots") };
    let (gates, weight): (&[f32], &[f32]) = (gates.read(), weight.read());
    let (residual, y): (&[f32], &mut [f32]) = (residual.read(), y.write());
    let (batch, steps, hidden) = (p.batch as usize, p.steps as usize, p.hidden as usize);
    if y.is_empty() {
        return;
    }
    let panels = hidden.div_ceil(UNITS);
    let packed = pack(weight, hidden);
    // inside of the pool, so that a step does not wake a sleeping thread
    rayon::scope(|_| {
        let piece = panels.div_ceil(PIECES * rayon::current_num_threads());
        let mut state = vec![State::default(); panels * batch];
        // [b, unit], and [panel, b, unit], which lets a worker own whole panels
        let mut h = vec![0.0_f32; batch * panels * UNITS];
        let mut next = vec![[0.0_f32; UNITS]; panels * batch];
        for t in 0..steps {
            next.par_chunks_mut(piece * batch)
                .zip(state.par_chunks_mut(piece * batch))
                .zip(packed.par_chunks(piece * panels * UNITS))
                .enumerate()
                .for_each(|(i, ((next, state), packed))| {
                    let gates = |panel: usize, b: usize| Gates {
                        of_step: &gates[(b * steps + t) * 4 * hidden..][..4 * hidden],
                        first_unit: (i * piece + panel) * UNITS,
                    };
                    advance(next, state, packed, &h, batch, gates);
                });
            for (at, values) in next.iter().enumerate() {
                let (panel, b) = (at / batch, at % batch);
                h[(b * panels + panel) * UNITS..][..UNITS].copy_from_slice(values);
                let units = panel * UNITS..hidden.min((panel + 1) * UNITS);
                let row = (b * steps + t) * hidden;
                let y = &mut y[row + units.start..row + units.end];
                y.copy_from_slice(&values[..units.len()]);
                if p.has_residual == 1 {
                    y.iter_mut().zip(&residual[row + units.start..]).for_each(|(y, r)| *y += r);
                }
            }
        }
    });
}

/// The weights of the four gates of a panel of units for one value of h: `[gate, unit]`; aligned, because a vector that
/// straddles two cache lines takes two loads.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Column([f32; LANES]);

/// `weight` as `[panel, k]` of columns, with zeros past the last unit and past the last k.
fn pack(weight: &[f32], hidden: usize) -> Vec<Column> {
    let padded = hidden.next_multiple_of(UNITS);
    let mut packed = vec![Column([0.0; LANES]); padded / UNITS * padded];
    packed.par_chunks_exact_mut(padded).enumerate().for_each(|(panel, columns)| {
        for lane in 0..LANES {
            let unit = panel * UNITS + lane % UNITS;
            if unit < hidden {
                let row = &weight[(lane / UNITS * hidden + unit) * hidden..][..hidden];
                columns.iter_mut().zip(row).for_each(|(column, &w)| column.0[lane] = w);
            }
        }
    });
    packed
}

/// What a panel keeps of one sequence.
#[derive(Clone)]
struct State {
    c: [f32; UNITS],
    /// Gate sums, complete at the end of a step.
    sums: [f32; LANES],
}

impl Default for State {
    fn default() -> Self {
        Self { c: [0.0; UNITS], sums: [0.0; LANES] }
    }
}

/// The four gates of one step of one sequence, as they come in, for the units of a panel.
struct Gates<'a> {
    of_step: &'a [f32],
    first_unit: usize,
}

impl Gates<'_> {
    /// The values of one gate, with zeros past the last unit.
    #[inline(always)]
    fn values(&self, gate: usize) -> [f32; UNITS] {
        let hidden = self.of_step.len() / 4;
        let units = UNITS.min(hidden - self.first_unit);
        let from = &self.of_step[gate * hidden + self.first_unit..][..units];
        let mut values = [0.0; UNITS];
        values[..units].copy_from_slice(from);
        values
    }
}

/// One step of some panels, `[panel, b]` in `next` and `state`.
fn advance<'a>(
    next: &mut [[f32; UNITS]],
    state: &mut [State],
    packed: &[Column],
    h: &[f32],
    batch: usize,
    gates: impl Fn(usize, usize) -> Gates<'a>,
) {
    let padded = h.len() / batch;
    vectorised(
        #[inline(always)]
        || {
            let own = next
                .chunks_exact_mut(batch)
                .zip(state.chunks_exact_mut(batch))
                .zip(packed.chunks_exact(padded));
            for (panel, ((next, state), columns)) in own.enumerate() {
                state.iter_mut().for_each(|s| s.sums = [0.0; LANES]);
                for (i, columns) in columns.chunks(DEPTH).enumerate() {
                    for (state, h) in state.iter_mut().zip(h.chunks_exact(padded)) {
                        accumulate(&mut state.sums, columns, &h[i * DEPTH..][..columns.len()]);
                    }
                }
                for (b, (next, state)) in next.iter_mut().zip(state).enumerate() {
                    *next = cell(state, &gates(panel, b));
                }
            }
        },
    );
}

/// Adds the products of some columns with their values of h to the gate sums.
#[inline(always)]
fn accumulate(sums: &mut [f32; LANES], columns: &[Column], h: &[f32]) {
    let mut part = [0.0_f32; LANES];
    for (column, &h) in columns.iter().zip(h) {
        for (part, &w) in part.iter_mut().zip(&column.0) {
            *part = w.mul_add(h, *part);
        }
    }
    for (sum, part) in sums.iter_mut().zip(part) {
        *sum += part;
    }
}

/// The next h of a panel's units from their gate sums and their gates' inputs.
#[inline(always)]
fn cell(state: &mut State, gates: &Gates<'_>) -> [f32; UNITS] {
    let gate = |n: usize| {
        let mut values = gates.values(n);
        values.iter_mut().zip(&state.sums[n * UNITS..]).for_each(|(v, s)| *v += s);
        values
    };
    let (i, f, g, o) = (gate(0), gate(1), gate(2), gate(3));
    let mut h = [0.0; UNITS];
    for u in 0..UNITS {
        state.c[u] = sigmoid(f[u]).mul_add(state.c[u], sigmoid(i[u]) * tanh(g[u]));
        h[u] = sigmoid(o[u]) * tanh(state.c[u]);
    }
    h
}
