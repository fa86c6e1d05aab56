//! Numbers that would cancel if they were computed as they are written.

/// ½ ln 2π.
pub(crate) const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;

/// From here on the series of [`stirling_error`] has converged in double precision.
const SERIES_FROM: f64 = 16.0;

/// Coefficients of the series in 1/z, 1/z³, …: B_2k / (2k (2k − 1)).
const STIRLING: [f64; 7] = [
    1.0 / 12.0,
    -1.0 / 360.0,
    1.0 / 1_260.0,
    -1.0 / 1_680.0,
    1.0 / 1_188.0,
    -691.0 / 360_360.0,
    1.0 / 156.0,
];

/// ln Γ(z) − (z − ½) ln z + z − ½ ln 2π for z > 0: what Stirling's formula leaves over.
///
/// Below 16 a recurrence leads to the asymptotic series.
///
/// Source: Loader, *Fast and accurate computation of binomial probabilities* (2000).
fn stirling_error(mut z: f64) -> f64 {
    let mut sum = 0.0;
    while z < SERIES_FROM {
        sum += (z + 0.5) * (1.0 / z).ln_1p() - 1.0;
        z += 1.0;
    }
    let inverse = 1.0 / z;
    let square = inverse * inverse;
    let series = STIRLING
        .iter()
        .rev()
        .fold(0.0, |value, coefficient| value * square + coefficient);
    sum + series * inverse
}

/// ln of the density of the logit of a Beta(a, b) variable at its mode ln(a/b).
pub(crate) fn ln_beta_logit_peak(a: f64, b: f64) -> f64 {
    let n = a + b;
    let corrections = stirling_error(n) - stirling_error(a) - stirling_error(b);
    0.5 * (a * (b / n)).ln() - HALF_LN_TAU + corrections
}

/// ln Γ(z + ½) − ln Γ(z) for z > 0.
pub(crate) fn ln_gamma_half_step(z: f64) -> f64 {
    let powers = z * (0.5 / z).ln_1p() + 0.5 * z.ln() - 0.5;
    powers + stirling_error(z + 0.5) - stirling_error(z)
}

/// Kullback–Leibler divergence of Bernoulli(q) from Bernoulli(p) in nats, 0 ln 0 = 0; infinite
/// where q makes impossible what p allows.
///
/// Both logarithms are of ratios next to 1 where p is next to q, so close rates keep their digits.
#[must_use]
pub fn kl_bernoulli(p: f64, q: f64) -> f64 {
    let gap = q - p;
    deviance(p, gap, q) + deviance(1.0 - p, -gap, 1.0 - q)
}

/// x ln(x/m) + m − x with m = x + gap. Each summand is ≥ 0, so their sum does not cancel.
///
/// Source: Loader, as above; the series is that of the inverse hyperbolic tangent.
fn deviance(x: f64, gap: f64, m: f64) -> f64 {
    if x <= 0.0 {
        return m;
    }
    if gap.abs() >= 0.1 * (x + m) {
        return x * (x / m).ln() + gap;
    }
    let v = -gap / (x + m);
    let square = v * v;
    // 0.1^(2·8) is below half an ulp: eight terms are enough.
    let series = (1..=8)
        .rev()
        .fold(0.0, |sum, k| (sum + 1.0 / f64::from(2 * k + 1)) * square);
    -gap * v + 2.0 * x * v * series
}

/// n · d, 0 for a divergence of 0 whatever n.
pub(crate) fn times_divergence(n: f64, d: f64) -> f64 {
    if d > 0.0 { n * d } else { 0.0 }
}

/// 1 / (1 + e^(−y)).
pub(crate) fn logistic(y: f64) -> f64 {
    1.0 / (1.0 + (-y).exp())
}

/// ln(1 + p (e^u − 1)) for 0 ≤ p ≤ 1 and q = 1 − p, for any u.
pub(crate) fn ln_mix(p: f64, q: f64, u: f64) -> f64 {
    if u > 36.0 {
        // The logarithm of the sum q + p e^u, neither of which may overflow or underflow.
        let (a, b) = (q.ln(), u + p.ln());
        a.max(b) + (-(a - b).abs()).exp().ln_1p()
    } else if u < -1.0 && p > 0.5 {
        // The same number, seen from the other side: here 1 + p (e^u − 1) may cancel.
        u + ln_mix(q, p, -u)
    } else {
        (p * u.exp_m1()).ln_1p()
    }
}

/// A count as a float; beyond 2^53 it is rounded, which no rate notices.
#[expect(clippy::cast_precision_loss, reason = "the rounding is meant")]
#[must_use]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// A length as a float.
#[expect(clippy::cast_precision_loss, reason = "no list has 2^53 entries")]
#[must_use]
pub(crate) fn float_len(length: usize) -> f64 {
    length as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_keeps_its_digits_for_close_rates() {
        // kl(p, p + e) = e² / (2 p (1 − p)) to first order.
        let got = kl_bernoulli(0.25, 0.25 + 1e-9);
        assert!((got / (1e-18 / 0.375) - 1.0).abs() < 1e-6, "{got}");
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these values are exact")]
    fn divergence_at_the_edges() {
        assert!((kl_bernoulli(0.0, 0.5) - 2.0_f64.ln()).abs() < 1e-15);
        assert!((kl_bernoulli(1.0, 0.5) - 2.0_f64.ln()).abs() < 1e-15);
        assert_eq!(kl_bernoulli(0.0, 0.0), 0.0);
        assert_eq!(kl_bernoulli(1.0, 1.0), 0.0);
        assert!(kl_bernoulli(0.5, 1.0).is_infinite());
        assert!(kl_bernoulli(0.5, 0.0).is_infinite());
    }

    #[test]
    fn gamma_ratio() {
        // Γ(1) / Γ(½) = 1 / √π.
        let want = -0.5 * std::f64::consts::PI.ln();
        assert!((ln_gamma_half_step(0.5) - want).abs() < 1e-14);
    }
}
