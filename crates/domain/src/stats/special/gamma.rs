//! The gamma function's logarithm, split so that nothing cancels.

use std::f64::consts::TAU;

/// ½ ln 2π.
pub(in crate::stats) const HALF_LN_TAU: f64 = 0.918_938_533_204_672_8;

/// From here on the series of [`stirling_error`] has converged in double precision.
const SERIES_FROM: f64 = 16.0;

/// Coefficients of the series of Δ in 1/z, 1/z³, …: B_2k / (2k (2k − 1)).
const STIRLING: [f64; 7] = [
    1.0 / 12.0,
    -1.0 / 360.0,
    1.0 / 1_260.0,
    -1.0 / 1_680.0,
    1.0 / 1_188.0,
    -691.0 / 360_360.0,
    1.0 / 156.0,
];

/// Δ(z) = ln Γ(z) − (z − ½) ln z + z − ½ ln 2π for z > 0: what Stirling's formula leaves over.
///
/// Absolute error about 1e-15. Below 16 the recurrence Δ(z) = Δ(z+1) + (z + ½) ln(1 + 1/z) − 1
/// leads to the asymptotic series.
///
/// Source: Loader, *Fast and accurate computation of binomial probabilities* (2000).
pub(in crate::stats) fn stirling_error(mut z: f64) -> f64 {
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

/// x ln(x/m) + m − x for x, m > 0, accurate also where x is next to m.
pub(super) fn deviance(x: f64, m: f64) -> f64 {
    if (x - m).abs() >= 0.1 * (x + m) {
        return x * (x / m).ln() + m - x;
    }
    deviance_by(m, x - m)
}

/// As [`deviance`] at x = m + `excess`, for callers that know the excess to more digits than the
/// difference of x and m has.
///
/// Source: Loader, as above; the series is that of the inverse hyperbolic tangent.
pub(in crate::stats) fn deviance_by(m: f64, excess: f64) -> f64 {
    let x = m + excess;
    if excess.abs() >= 0.1 * (x + m) {
        return x * (excess / m).ln_1p() - excess;
    }
    let v = excess / (x + m);
    let mut sum = excess * v;
    let mut power = 2.0 * x * v;
    for odd in (3..).step_by(2) {
        power *= v * v;
        let next = sum + power / f64::from(odd);
        // Exact equality is meant: the series ends when a term no longer changes the sum.
        if next.to_bits() == sum.to_bits() {
            break;
        }
        sum = next;
    }
    sum
}

/// ln(h^a e^(−h) / Γ(a + 1)) for a, h > 0: the logarithm of a Poisson probability.
pub(super) fn ln_poisson(a: f64, h: f64) -> f64 {
    -deviance(a, h) - stirling_error(a) - 0.5 * (TAU * a).ln()
}

/// ln Γ(z) for z > 0; absolute error about 1e-15 near the zeros at 1 and 2, relative elsewhere.
#[must_use]
pub fn ln_gamma(z: f64) -> f64 {
    if z.is_nan() || z <= 0.0 {
        return f64::NAN;
    }
    stirling_error(z) + (z - 0.5) * z.ln() - z + HALF_LN_TAU
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_gamma_at_known_points() {
        for (z, want) in [
            (1.0, 0.0),
            (2.0, 0.0),
            (0.5, 0.572_364_942_924_700_1),
            (5.0, 24.0_f64.ln()),
            (1e-3, 6.907_178_885_383_853),
            (100.5, 361.435_540_467_777_5),
            (1e8, 1_742_068_066.103_834_7),
        ] {
            let got = ln_gamma(z);
            assert!(
                (got - want).abs() <= 2e-14 * f64::max(want, 1.0),
                "{z}: {got} instead of {want}"
            );
        }
        assert!(ln_gamma(0.0).is_nan());
    }

    #[test]
    fn the_deviance_does_not_cancel() {
        // With x = m (1 + e) it is m e² / 2 to first order.
        let deviance = deviance(1e9 + 1.0, 1e9);
        assert!((deviance / 5e-10 - 1.0).abs() < 1e-8, "{deviance}");
        assert!((super::deviance(3.0, 1.0) - (3.0 * 3.0_f64.ln() - 2.0)).abs() < 1e-15);
    }
}
