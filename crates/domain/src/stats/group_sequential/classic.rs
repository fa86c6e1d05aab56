//! Constants of the classical two-sided designs with equal steps of information.

use super::super::special::{norm_isf, norm_sf};
use super::super::{StatsError, check_level};
use super::law::Law;

/// The most looks for which constants are computed.
pub const MAX_CLASSIC_LOOKS: u32 = 1_000;

/// Paths so far above the final bound do not come back; early bounds beyond are of no consequence.
const FARTHEST: f64 = 7.0;
/// Steps of the search for a constant; about six are usual.
const STEPS: u32 = 100;
/// Change of the constant at which the search ends; the next one would be far smaller.
const WIDTH: f64 = 1e-8;

/// The constant two-sided bound on |z| at each of `looks` equally spaced looks, total level
/// `alpha`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for no looks or more than [`MAX_CLASSIC_LOOKS`], or α outside
/// (0, 1).
///
/// # Source
/// Pocock, Biometrika 64 (1977), 191–199.
pub fn pocock_constant(looks: u32, alpha: f64) -> Result<f64, StatsError> {
    constant(looks, alpha, |_| 1.0)
}

/// The constant C with the two-sided bounds C √(K/k) on |z| at look k of K equally spaced looks,
/// total level `alpha`.
///
/// # Errors
/// As [`pocock_constant`].
///
/// # Source
/// O'Brien & Fleming, Biometrics 35 (1979), 549–556.
pub fn obrien_fleming_constant(looks: u32, alpha: f64) -> Result<f64, StatsError> {
    constant(looks, alpha, |part| 1.0 / part.sqrt())
}

/// The c for which the bounds c·shape(k/K) are crossed with probability alpha.
///
/// The search is the secant method in the logarithm of the probability, kept inside a bracket that
/// is known: one look alone, and all looks added up.
fn constant(looks: u32, alpha: f64, shape: impl Fn(f64) -> f64) -> Result<f64, StatsError> {
    let target = check_level(alpha)?.ln();
    if looks == 0 || looks > MAX_CLASSIC_LOOKS {
        return Err(StatsError::InvalidInput);
    }
    let excess = |c: f64| crossing(looks, c, &shape).ln() - target;
    let mut left = norm_isf(0.5 * alpha);
    let mut right = norm_isf(0.5 * alpha / f64::from(looks));
    if looks == 1 {
        return Ok(left);
    }
    let mut at_left = excess(left);
    let mut at_right = excess(right);
    let mut c = left;
    let mut side = Side::None;
    for _ in 0..STEPS {
        let before = c;
        c = left + (right - left) * at_left / (at_left - at_right);
        if (c - before).abs() < WIDTH {
            break;
        }
        let at = excess(c);
        // Illinois: an end that stays for a second time counts half, or it would stay for ever.
        if at > 0.0 {
            (left, at_left) = (c, at);
            at_right *= if side == Side::Left { 0.5 } else { 1.0 };
            side = Side::Left;
        } else {
            (right, at_right) = (c, at);
            at_left *= if side == Side::Right { 0.5 } else { 1.0 };
            side = Side::Right;
        }
    }
    Ok(c)
}

/// Which end of the bracket moved last.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    None,
    Left,
    Right,
}

/// The probability that |z| reaches c·shape(k/K) at one of the looks k.
fn crossing(looks: u32, c: f64, shape: impl Fn(f64) -> f64) -> f64 {
    let bound = |look: u32| {
        let part = f64::from(look) / f64::from(looks);
        (c * shape(part)).min(c + FARTHEST)
    };
    let mut law = Law::first(1.0, bound(1));
    let mut total = 2.0 * norm_sf(bound(1));
    for look in 2..=looks {
        let (next, crossed) = law.step_symmetric(f64::from(look), bound(look));
        law = next;
        total += crossed;
    }
    total
}
