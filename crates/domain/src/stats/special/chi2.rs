//! The chi-square distribution.

use super::gamma::ln_poisson;
use super::{Tails, continued_fraction};

/// Terms of series and fraction; they need about the root of the degrees of freedom.
const TERMS: u32 = 100_000;

/// Both tails of the chi-square distribution with `df` > 0 degrees of freedom at x ≥ 0.
#[must_use]
pub fn chi2_tails(x: f64, df: f64) -> Tails {
    let (a, h) = (0.5 * df, 0.5 * x);
    let inside = a > 0.0 && h >= 0.0;
    if !inside {
        return Tails::from_ln_lower(f64::NAN);
    }
    if h == 0.0 {
        return Tails::from_ln_lower(f64::NEG_INFINITY);
    }
    if h < a + 1.0 {
        Tails::from_ln_lower(ln_poisson(a, h) + lower_series(a, h).ln())
    } else {
        Tails::from_ln_lower(ln_poisson(a, h) + a.ln() - upper_fraction(a, h).ln()).swapped()
    }
}

/// P(X > x).
#[must_use]
pub fn chi2_sf(x: f64, df: f64) -> f64 {
    chi2_tails(x, df).sf
}

/// ln P(X > x).
#[must_use]
pub fn chi2_ln_sf(x: f64, df: f64) -> f64 {
    chi2_tails(x, df).ln_sf
}

/// Σ h^k / ((a + 1) … (a + k)), all terms positive.
fn lower_series(a: f64, h: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..=TERMS {
        term *= h / (a + f64::from(k));
        sum += term;
        if term <= 0.5 * f64::EPSILON * sum {
            return sum;
        }
    }
    f64::NAN
}

/// Legendre's fraction h + 1 − a − 1(1 − a)/(h + 3 − a − 2(2 − a)/(h + 5 − a − …)).
fn upper_fraction(a: f64, h: f64) -> f64 {
    continued_fraction(TERMS, |m| (-m * (m - a), h + 2.0 * m + 1.0 - a))
}
