//! Student's t distribution, with any positive number of degrees of freedom.

use std::f64::consts::LN_2;

use super::beta::tails;
use super::gamma::stirling_error;
use super::normal::norm_isf;
use super::{Tails, norm_pdf};

/// Steps of Newton's method for quantiles; with many degrees of freedom one is usual.
const STEPS: u32 = 200;
/// Newton's method squares its error: after a step this small what is left is rounding.
const LAST_STEP: f64 = 1e-9;
/// Degrees of freedom from which on a series in their inverse begins closer than the normal quantile does.
const MANY: f64 = 30.0;

/// The two-sided tail P(|T| ≥ |t|) as the lower tail of a beta distribution at
/// x = df / (df + t²), with y = 1 − x computed on its own.
///
/// The field `cdf` of the result is the p-value, `ln_cdf` its logarithm.
#[must_use]
pub fn t_two_sided_tails(t: f64, df: f64) -> Tails {
    let square = t * (t / df);
    tails(1.0 / (1.0 + square), square / (1.0 + square), 0.5 * df, 0.5)
}

/// P(T > t) with `df` > 0 degrees of freedom.
#[must_use]
pub fn t_sf(t: f64, df: f64) -> f64 {
    let tail = 0.5 * t_two_sided_tails(t, df).cdf;
    if t < 0.0 { 1.0 - tail } else { tail }
}

/// ln P(T > t) with `df` > 0 degrees of freedom.
#[must_use]
pub fn t_ln_sf(t: f64, df: f64) -> f64 {
    let tails = t_two_sided_tails(t, df);
    if t < 0.0 {
        (-0.5 * tails.cdf).ln_1p()
    } else {
        tails.ln_cdf - LN_2
    }
}

/// The point whose upper tail is p, for 0 < p < 1 and `df` > 0.
#[must_use]
pub fn t_isf(p: f64, df: f64) -> f64 {
    let inside = p > 0.0 && p < 1.0 && df > 0.0;
    if !inside {
        return f64::NAN;
    }
    if p > 0.5 {
        return -t_isf(1.0 - p, df);
    }
    // The tail is convex in t, and in the logarithms concave: Newton's method converges in both
    // forms, in few steps next to the centre in the one, far out in the other.
    if p > 0.1 {
        central_isf(p, df)
    } else {
        tail_isf(p, df)
    }
}

fn central_isf(p: f64, df: f64) -> f64 {
    let mut t = 0.0;
    for _ in 0..STEPS {
        let step = (t_sf(t, df) - p) / density(t, df);
        t += step;
        if step.abs() <= LAST_STEP * t {
            break;
        }
    }
    t
}

fn tail_isf(p: f64, df: f64) -> f64 {
    let target = p.ln();
    let mut ln_t = first_guess(p, df).ln();
    for _ in 0..STEPS {
        let t = ln_t.exp();
        let ln_sf = t_ln_sf(t, df);
        let step = (ln_sf - target) * (ln_sf - ln_density(t, df) - ln_t).exp();
        ln_t += step;
        if step.abs() <= LAST_STEP {
            break;
        }
    }
    ln_t.exp()
}

/// The normal quantile, which lies to the left, for t has the heavier tail; with many degrees of freedom the first terms of
/// the expansion about it.
///
/// # Source
/// Fisher & Cornish, Technometrics 2 (1960), 209–225; Abramowitz & Stegun 26.7.5.
fn first_guess(p: f64, df: f64) -> f64 {
    let x = norm_isf(p);
    let square = x * x;
    // Far out in the tail the series diverges.
    if df < MANY || square > df {
        return x;
    }
    let first = (square + 1.0) / 4.0;
    let second = ((5.0 * square + 16.0) * square + 3.0) / 96.0;
    let third = (((3.0 * square + 19.0) * square + 17.0) * square - 15.0) / 384.0;
    x * (1.0 + (first + (second + third / df) / df) / df)
}

fn density(t: f64, df: f64) -> f64 {
    ln_density(t, df).exp()
}

/// ln of the density: that of the normal distribution at 0, Stirling's corrections, and the
/// kernel, so that nothing cancels at many degrees of freedom.
fn ln_density(t: f64, df: f64) -> f64 {
    let half = 0.5 * df;
    // ln Γ(half + ½) − ln Γ(half) − ½ ln half, by Stirling's formula.
    let gammas =
        half * (0.5 / half).ln_1p() - 0.5 + stirling_error(half + 0.5) - stirling_error(half);
    norm_pdf(0.0).ln() + gammas - (half + 0.5) * (t * (t / df)).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_where_the_tail_says() {
        for df in [1.0, 2.0, 7.5, 29.0, 30.0, 31.0, 200.0, 1e4, 2e5, 1e8] {
            for p in [
                0.499, 0.2, 0.1, 0.025, 1e-3, 1e-6, 1e-9, 1e-20, 1e-60, 1e-140,
            ] {
                let t = t_isf(p, df);
                // A relative error of t moves the logarithm of the tail by up to t² or df times as much.
                let slope = 1.0 + (t * t).min(df);
                let off = t_ln_sf(t, df) - p.ln();
                assert!(
                    off.abs() <= 1e-14 * (slope + p.ln().abs()),
                    "{df} {p}: {off}"
                );
            }
        }
    }
}
