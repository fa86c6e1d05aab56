//! The beta function and the beta distribution.

use std::f64::consts::TAU;

use super::gamma::{HALF_LN_TAU, deviance, stirling_error};
use super::{Tails, continued_fraction};

/// Terms of the continued fraction; it needs about the root of the larger parameter at worst, so
/// this is enough for parameters up to 1e11.
const TERMS: u32 = 60_000;
/// Steps of Newton's method for quantiles; about six are usual.
const STEPS: u32 = 200;

/// ln B(a, b) = ln Γ(a) + ln Γ(b) − ln Γ(a + b) for a, b > 0, without the cancellation that this
/// difference suffers at large parameters.
#[must_use]
pub fn ln_beta(a: f64, b: f64) -> f64 {
    if !(a > 0.0 && b > 0.0) {
        return f64::NAN;
    }
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    let n = small + large;
    let corrections = stirling_error(small) + stirling_error(large) - stirling_error(n);
    let powers = small * (small / n).ln() + large * (-small / n).ln_1p();
    HALF_LN_TAU + powers + 0.5 * (n / large / small).ln() + corrections
}

/// Both tails of the beta distribution with parameters a, b > 0 at 0 ≤ x ≤ 1.
#[must_use]
pub fn beta_tails(x: f64, a: f64, b: f64) -> Tails {
    tails(x, 1.0 - x, a, b)
}

/// As [`beta_tails`], with 1 − x given, because a caller may know it to more digits.
pub(super) fn tails(x: f64, y: f64, a: f64, b: f64) -> Tails {
    let inside = a > 0.0 && b > 0.0 && x >= 0.0 && y >= 0.0;
    if !inside {
        return Tails::from_ln_lower(f64::NAN);
    }
    // The fraction converges fast below the mean; above it, the other tail is the one to compute.
    if x < (a + 1.0) / (a + b + 2.0) {
        Tails::from_ln_lower(ln_lower_tail(x, y, a, b))
    } else {
        Tails::from_ln_lower(ln_lower_tail(y, x, b, a)).swapped()
    }
}

/// ln I_x(a, b) for x below the mean.
///
/// Source: Didonato & Morris, *Algorithm 708*, ACM TOMS 18 (1992), 360–373, eq. 9, in the form
/// that needs no condition on b. With x and y = 1 − x both given no term cancels.
fn ln_lower_tail(x: f64, y: f64, a: f64, b: f64) -> f64 {
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    let slack = a * y - b * x + 1.0;
    let fraction = continued_fraction(TERMS, |m| {
        if m == 0.0 {
            return (0.0, a * slack / (a + 1.0));
        }
        let before = a + 2.0 * m - 1.0;
        let numerator =
            (a + m - 1.0) * ((a + b + m - 1.0) / before) * (m / before) * (b - m) * x * x;
        let linear = m + m * (b - m) * x / before;
        (
            numerator,
            linear + (a + m) * (slack + m * (1.0 + y)) / (a + 2.0 * m + 1.0),
        )
    });
    ln_power(x, y, a, b) - fraction.ln()
}

/// ln(x^a y^b / B(a, b)): the density of the logit of a beta variable, by saddle point.
fn ln_power(x: f64, y: f64, a: f64, b: f64) -> f64 {
    let n = a + b;
    let corrections = stirling_error(n) - stirling_error(a) - stirling_error(b);
    0.5 * (a / TAU * (b / n)).ln() - deviance(a, n * x) - deviance(b, n * y) + corrections
}

/// The point whose lower tail is p, for 0 < p < 1 and a, b > 0.
#[must_use]
pub fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    let inside = p > 0.0 && p < 1.0 && a > 0.0 && b > 0.0;
    if !inside {
        return f64::NAN;
    }
    // The smaller tail is the one to match; 1 − p is exact where it is taken.
    let logit = if p <= 0.5 {
        lower_logit(p, a, b)
    } else {
        -lower_logit(1.0 - p, b, a)
    };
    logistic(logit)
}

/// The point whose upper tail is p, for 0 < p < 1 and a, b > 0.
#[must_use]
pub fn beta_isf(p: f64, a: f64, b: f64) -> f64 {
    let inside = p > 0.0 && p < 1.0 && a > 0.0 && b > 0.0;
    if !inside {
        return f64::NAN;
    }
    let logit = if p <= 0.5 {
        -lower_logit(p, b, a)
    } else {
        lower_logit(1.0 - p, a, b)
    };
    logistic(logit)
}

/// The logit of the point whose lower tail is p ≤ ½.
///
/// The logit of a beta variable has a log-concave density, so the logarithm of its distribution
/// function is concave: Newton's method converges from everywhere, from the left monotonely.
fn lower_logit(p: f64, a: f64, b: f64) -> f64 {
    let target = p.ln();
    let mut logit = (a / b).ln();
    for _ in 0..STEPS {
        let (x, y) = (logistic(logit), logistic(-logit));
        let ln_cdf = tails(x, y, a, b).ln_cdf;
        let step = (ln_cdf - target) * (ln_cdf - ln_power(x, y, a, b)).exp();
        logit -= step;
        if step.abs() <= 1e-15 * logit.abs().max(1.0) {
            break;
        }
    }
    logit
}

fn logistic(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}
