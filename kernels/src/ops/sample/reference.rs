use super::{Params, Settings};
use crate::HostSlot;
use crate::philox::{philox4x32_10, uniform};

/// The definition.
pub(super) fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let [logits, settings, positions, tokens] = slots else { panic!("sample has four slots") };
    let (logits, settings): (&[f32], &[Settings]) = (logits.read(), settings.read());
    let (positions, tokens): (&[u32], &mut [u32]) = (positions.read(), tokens.write());
    for (take, settings) in settings.iter().enumerate() {
        for q in 0..p.codebooks {
            let cell = take * p.codebooks as usize + q as usize;
            tokens[cell] = match guided(&p, logits, settings, cell) {
                None => u32::MAX,
                Some(g) if settings.greedy != 0 => first_largest(&g),
                Some(g) => draw(&masses(&g, settings), share(settings, positions[take], q)),
            };
        }
    }
}

/// Guided logits of a codebook of a take; none where one is NaN or the largest is not finite.
pub(super) fn guided(p: &Params, logits: &[f32], settings: &Settings, cell: usize) -> Option<Vec<f32>> {
    let (codebooks, entries) = ((p.takes * p.codebooks) as usize, p.entries as usize);
    let row = |cell: usize| &logits[cell * entries..][..entries];
    let g: Vec<f32> = if p.paired == 1 {
        let pairs = row(cell).iter().zip(row(codebooks + cell));
        pairs.map(|(cond, uncond)| uncond + settings.guidance * (cond - uncond)).collect()
    } else {
        row(cell).to_vec()
    };
    let largest = g.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (largest.is_finite() && !g.iter().any(|g| g.is_nan())).then_some(g)
}

fn first_largest(g: &[f32]) -> u32 {
    (0_u32..).zip(g).fold((0, f32::NEG_INFINITY), |best, (e, &g)| if g > best.1 { (e, g) } else { best }).0
}

/// Masses of the codes that may be drawn, the largest 1; 0 for the others.
pub(super) fn masses(g: &[f32], settings: &Settings) -> Vec<f64> {
    let mut order = g.to_vec();
    order.sort_by(|a, b| b.total_cmp(a));
    let mass = |g: f32| ((f64::from(g) - f64::from(order[0])) / f64::from(settings.temperature)).exp();
    let k = settings.top_k as usize;
    let mut least = if k > 0 && k < g.len() { order[k - 1] } else { f32::NEG_INFINITY };
    if settings.top_p > 0.0 && settings.top_p < 1.0 {
        let kept: Vec<f32> = order.iter().copied().filter(|&g| g >= least).collect();
        let wanted = f64::from(settings.top_p) * kept.iter().map(|&g| mass(g)).sum::<f64>();
        let mut sum = 0.0;
        for g in kept {
            sum += mass(g);
            if sum >= wanted {
                least = g;
                break;
            }
        }
    }
    g.iter().map(|&g| if g >= least { mass(g) } else { 0.0 }).collect()
}

/// u, in [0, 1).
pub(super) fn share(settings: &Settings, position: u32, codebook: u32) -> f64 {
    let counter = [settings.row_key, settings.column_offset.wrapping_add(position), codebook, 0];
    uniform(philox4x32_10(counter, [settings.seed_low, settings.seed_high])[0]).into()
}

/// The first code at which the summed mass passes `share` of all of it.
fn draw(masses: &[f64], share: f64) -> u32 {
    let passed = share * masses.iter().sum::<f64>();
    let (mut sum, mut last) = (0.0, u32::MAX);
    for (e, &mass) in (0..).zip(masses) {
        sum += mass;
        if sum > passed {
            return e;
        }
        if mass > 0.0 {
            last = e;
        }
    }
    last
}
