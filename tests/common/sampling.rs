//! A slow reference of choosing codes, in f64: what `tests/golden/generation.py` and `philox.py` do.

/// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011).
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let wide = |a: u32, b: u32| {
        let product = u64::from(a) * u64::from(b);
        ((product >> 32) as u32, product as u32)
    };
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let ((high0, low0), (high1, low1)) = (wide(0xd251_1f53, c0), wide(0xcd9e_8d57, c2));
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        (k0, k1) = (k0.wrapping_add(0x9e37_79b9), k1.wrapping_add(0xbb67_ae85));
    }
    [c0, c1, c2, c3]
}

/// The draw of one code: a multiple of 2^-24 in [0, 1). `step` is the delayed column that was fed, counted from the
/// first one of the whole piece.
pub fn uniform(seed: u64, row_key: u32, step: u32, codebook: u32) -> f64 {
    let key = [seed as u32, (seed >> 32) as u32];
    let word = philox4x32_10([row_key, step, codebook, 0], key)[0];
    f64::from(word >> 8) / 16_777_216.0
}

/// `null + guidance * (cond - null)`, or `cond` where there is no guidance.
pub fn guide(cond: &[f32], null: Option<&[f32]>, guidance: f64) -> Vec<f64> {
    match null {
        None => cond.iter().copied().map(f64::from).collect(),
        Some(null) => cond
            .iter()
            .zip(null)
            .map(|(&cond, &null)| f64::from(null) + guidance * (f64::from(cond) - f64::from(null)))
            .collect(),
    }
}

/// The largest logit, ties to the smaller code.
pub fn greedy(guided: &[f64]) -> usize {
    (1..guided.len()).fold(0, |best, code| if guided[code] > guided[best] { code } else { best })
}

/// The code that draw `u` picks. `top_k` 0 and `top_p` 0 (or 1 and above) keep every code; ties are kept.
pub fn pick(guided: &[f64], u: f64, temperature: f64, top_k: usize, top_p: f64) -> usize {
    let scores: Vec<f64> = guided.iter().map(|g| g / temperature).collect();
    let mut down = scores.clone();
    down.sort_by(|a, b| b.total_cmp(a));
    let largest = down[0];
    let mut least = if top_k == 0 { f64::NEG_INFINITY } else { down[top_k.min(down.len()) - 1] };
    let mass = |score: f64, least: f64| if score >= least { (score - largest).exp() } else { 0.0 };
    if top_p > 0.0 && top_p < 1.0 {
        let total: f64 = scores.iter().map(|&score| mass(score, least)).sum();
        let mut running = 0.0;
        for &score in down.iter().filter(|&&score| score >= least) {
            running += mass(score, least);
            if running >= top_p * total {
                least = score;
                break;
            }
        }
    }
    let total: f64 = scores.iter().map(|&score| mass(score, least)).sum();
    let mut running = 0.0;
    for (code, &score) in scores.iter().enumerate() {
        running += mass(score, least);
        if running > u * total {
            return code;
        }
    }
    scores.iter().rposition(|&score| score >= least).expect("the largest score is kept")
}
