//! Shared by the fast host forms: vector dispatch, and f32 functions that compilers can vectorise.
//!
//! Every function is free of branches and of calls, so that a loop over one vectorises inside [`vectorised`]. The
//! stated errors are those that the tests below measure against f64.
//!
//! References never use these: an oracle does not share helpers with what it judges.

/// Runs `body` compiled for the widest vector unit of this processor.
///
/// Everything `body` calls must be inlined into it (`#[inline(always)]`) to profit.
#[inline(always)]
pub(crate) fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// Adds rows, each times its weight, one after another. Four at a time, which come from memory together, and the sums to and from
/// cache once for all four; in f32 that changes no bit.
pub(crate) fn add_rows<'a>(sums: &mut [f32], rows: impl IntoIterator<Item = (f32, &'a [f32])>) {
    let width = sums.len();
    let mut rows = rows.into_iter().map(|(weight, row)| (weight, &row[..width]));
    loop {
        match [rows.next(), rows.next(), rows.next(), rows.next()] {
            [Some((k, a)), Some((l, b)), Some((m, c)), Some((n, d))] => vectorised(
                #[inline(always)]
                || {
                    for ((((sum, &a), &b), &c), &d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                        *sum = n.mul_add(d, m.mul_add(c, l.mul_add(b, k.mul_add(a, *sum))));
                    }
                },
            ),
            rest => {
                for (weight, row) in rest.into_iter().flatten() {
                    vectorised(
                        #[inline(always)]
                        || sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum = weight.mul_add(v, *sum)),
                    );
                }
                return;
            }
        }
    }
}

/// Asks for the line of cache `at` bytes into `of`, if it goes on that far.
#[inline(always)]
pub(crate) fn ask<T>(of: &[T], at: usize) {
    if let Some(value) = of.get(at / size_of::<T>()) {
        prefetch(value);
    }
}

/// Asks for all lines of cache of a slice.
#[inline(always)]
pub(crate) fn ask_all<T>(of: &[T]) {
    of.iter().step_by(64 / size_of::<T>()).for_each(prefetch);
}

/// Asks for the line of cache that a value begins in; where this cannot be told, the processor has to find out by itself.
#[inline(always)]
fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    if let Some(sse) = pulp::core_arch::x86::Sse::try_new() {
        sse._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// 2^n for a whole n in -126..=127.
///
/// Adding 1.5 * 2^23 leaves n in the low bits of the mantissa, where a shift carries it into the exponent.
#[inline(always)]
fn pow2(n: f32) -> f32 {
    f32::from_bits((n + 12_582_912.0).to_bits().wrapping_add(127) << 23)
}

/// (n, p) with e^x = 2^n (1 + p), n whole, p in [-0.3, 0.42].
///
/// Cody and Waite's reduction by ln 2, then a degree-6 polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes, `expf`).
#[inline(always)]
fn reduce(x: f32) -> (f32, f32) {
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    (n, p.mul_add(r * r, r))
}

/// e^x, within 1.5 ulp; 0 below -104, infinity above 88.73.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let (n, p) = reduce(x.clamp(-104.0, 88.9));
    // 2^n in two factors, so that results below the smallest normal number are reached gradually
    let half = (n * 0.5).floor();
    let y = (p + 1.0) * pow2(half) * pow2(n - half);
    if x.is_nan() { x } else { y }
}

/// e^x - 1 for x <= 0, within 3 ulp; -1 below -25.
#[inline(always)]
fn exp_m1_negative(x: f32) -> f32 {
    let (n, p) = reduce(x.max(-25.0));
    let scale = pow2(n);
    let y = p.mul_add(scale, scale - 1.0);
    if x.is_nan() { x } else { y }
}

/// x above 0, e^x - 1 below, within 3 ulp.
#[inline(always)]
pub(crate) fn elu(x: f32) -> f32 {
    let below = exp_m1_negative(x.min(0.0));
    if x < 0.0 { below } else { x }
}

/// 1 / (1 + e^-x), within 4 ulp.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let top = if x < 0.0 { e } else { 1.0 };
    top / (1.0 + e)
}

/// tanh x, within 5 ulp.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let e = exp_m1_negative(-2.0 * x.abs());
    (-e / (e + 2.0)).copysign(x)
}

/// x (1 + erf(x / sqrt 2)) / 2, the exact GELU: within 1.2e-7 max(1, |x|), and within 1e-6 of itself in both tails.
///
/// With z = |x| / sqrt 2, erfc(z) = e^(-z^2) t Q(2t - 1), t = 1 / (1 + 0.4 z). Q has degree 10, interpolates
/// e^(z^2) erfc(z) / t at the Chebyshev nodes of all z >= 0, and is within 9e-9.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let t = 1.0 / x.abs().mul_add(0.4 * std::f32::consts::FRAC_1_SQRT_2, 1.0);
    let u = t.mul_add(2.0, -1.0);
    let mut q = -2.916_862_3e-5_f32;
    q = q.mul_add(u, -1.074_619_7e-5);
    q = q.mul_add(u, 0.000_266_488_38);
    q = q.mul_add(u, 0.000_165_441_45);
    q = q.mul_add(u, -0.001_921_382);
    q = q.mul_add(u, -0.003_353_155_2);
    q = q.mul_add(u, 0.011_343_547);
    q = q.mul_add(u, 0.068_499_77);
    q = q.mul_add(u, 0.181_565_7);
    q = q.mul_add(u, 0.321_860_76);
    q = q.mul_add(u, 0.421_612_74);
    // z^2 = x^2 / 2 in two parts, since an error in it is multiplied by up to 100 in e^(-z^2)
    let near = x.clamp(-15.0, 15.0);
    let square = 0.5 * near * near;
    let rest = (0.5 * near).mul_add(near, -square);
    let e = exp(-square);
    let erfc = rest.mul_add(-e, e) * t * q;
    // x itself in place of `near` would make NaN of -infinity times 0
    let y = if x < 0.0 { 0.5 * near * erfc } else { x * (1.0 - 0.5 * erfc) };
    if x.is_nan() { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 1021st f32, and the neighbourhoods of what is special.
    fn inputs() -> impl Iterator<Item = f32> {
        let special = [
            0.0_f32,
            -0.0,
            1.0,
            -1.0,
            f32::MIN_POSITIVE,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
        ];
        let near = special.into_iter().flat_map(|v| [v.next_down(), v, v.next_up()]);
        (0..u32::MAX / 1021).map(|i| f32::from_bits(i * 1021)).chain(near)
    }

    /// Units in the last place of `want`, rounded to f32, that `got` is off; subnormals share one unit.
    fn ulps(got: f32, want: f64) -> f64 {
        let rounded = want as f32;
        if got == rounded || (got.is_nan() && want.is_nan()) {
            return 0.0;
        }
        if !got.is_finite() || !rounded.is_finite() {
            return f64::INFINITY;
        }
        let exponent = i32::try_from(rounded.abs().to_bits() >> 23).expect("eight bits").max(1) - 127;
        (f64::from(got) - want).abs() / 2.0_f64.powi(exponent - 23)
    }

    fn worst(f: fn(f32) -> f32, want: fn(f64) -> f64) -> (f64, f32) {
        inputs()
            .map(|x| (ulps(f(x), want(f64::from(x))), x))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .expect("many inputs")
    }

    #[test]
    fn exp_is_within_two_ulps_everywhere() {
        let (ulps, at) = worst(exp, f64::exp);
        assert!(ulps <= 1.5, "{ulps} ulp at {at:e}");
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn elu_is_within_three_ulps_everywhere() {
        let (ulps, at) = worst(elu, |x| if x > 0.0 { x } else { x.exp_m1() });
        assert!(ulps <= 3.0, "{ulps} ulp at {at:e}");
        assert_eq!(elu(-0.0).to_bits(), (-0.0_f32).to_bits());
    }

    #[test]
    fn sigmoid_is_within_four_ulps_everywhere() {
        let (ulps, at) = worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(ulps <= 4.0, "{ulps} ulp at {at:e}");
    }

    #[test]
    fn tanh_is_within_five_ulps_everywhere() {
        let (ulps, at) = worst(tanh, f64::tanh);
        assert!(ulps <= 5.0, "{ulps} ulp at {at:e}");
    }

    #[test]
    fn gelu_is_accurate_near_zero_and_in_the_tails() {
        let exact = |x: f64| {
            if x < -40.0 { 0.0 } else { 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2) }
        };
        for x in inputs().filter(|x| !x.is_nan()) {
            let (got, want) = (gelu(x), exact(f64::from(x)));
            if want.abs() > f64::from(f32::MAX) || x.is_infinite() {
                assert_eq!(got, want as f32, "{x:e}");
                continue;
            }
            let error = (f64::from(got) - want).abs();
            assert!(error <= 1.2e-7 * f64::from(x.abs()).max(1.0), "{x:e}: {got:e}, want {want:e}");
            // below the normal numbers erfc is off by up to 2^-150, times |x| / 2
            assert!(error <= 1e-6 * want.abs() + 1e-44, "{x:e}: {got:e}, want {want:e}");
        }
        assert!(gelu(f32::NAN).is_nan());
    }
}
