//! Does the position matter? Rates per position, and weights that undo its effect.
//!
//! From randomised traffic only: there every item is as likely at every position, so a difference
//! between positions is the position's own.

use crate::counts::Counts;
use crate::error::{BanditError, in_range};
use crate::special::float;

/// The two-sided 95 % point of the normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// The largest factor by which a reward may be multiplied unless configured otherwise.
pub const DEFAULT_CLIP: f64 = 5.0;

/// The rate at a position with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PositionRate {
    /// Position, from 0.
    pub position: usize,
    /// Plays and successes.
    pub counts: Counts,
    /// Successes over plays; `None` without plays.
    pub rate: Option<f64>,
    /// Wilson's interval; from 0 to 1 without plays.
    pub interval: (f64, f64),
}

/// Rates by position.
#[must_use]
pub fn rates_by_position(counts: &[Counts]) -> Vec<PositionRate> {
    let rate = |(position, counts): (usize, &Counts)| PositionRate {
        position,
        counts: *counts,
        rate: rate(*counts),
        interval: wilson(*counts),
    };
    counts.iter().enumerate().map(rate).collect()
}

/// What a reward at a position counts: 1 / weight, where the weights are rate_k / rate_1, the share of the first position's
/// attention that a position gets; at most `clip` and at least 1 / `clip`.
///
/// # Errors
/// [`BanditError::OutOfRange`] for a position without a weight, a negative weight or a clip
/// below 1.
pub fn correction(weights: &[f64], position: usize, clip: f64) -> Result<f64, BanditError> {
    in_range("clip", clip, 1.0, 1e6)?;
    let weight = weights
        .get(position)
        .ok_or_else(|| BanditError::OutOfRange {
            name: "position",
            value: crate::special::float_len(position),
        })?;
    in_range("examination weight", *weight, 0.0, f64::MAX)?;
    Ok((1.0 / weight).clamp(1.0 / clip, clip))
}

fn rate(counts: Counts) -> Option<f64> {
    (counts.plays() > 0).then(|| float(counts.successes()) / float(counts.plays()))
}

/// Wilson, *Probable inference*, JASA 22 (1927).
fn wilson(counts: Counts) -> (f64, f64) {
    let Some(rate) = rate(counts) else {
        return (0.0, 1.0);
    };
    let n = float(counts.plays());
    let square = Z95 * Z95 / n;
    let centre = rate + 0.5 * square;
    let spread = Z95 * (rate * (1.0 - rate) / n + 0.25 * square / n).sqrt();
    let limit = |sign: f64| (centre + sign * spread) / (1.0 + square);
    // At rates of 0 and 1 a limit is the rate itself, up to rounding.
    (limit(-1.0).clamp(0.0, rate), limit(1.0).clamp(rate, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(plays: u64, successes: u64) -> Counts {
        Counts::new(plays, successes).unwrap()
    }

    #[test]
    fn weights_and_corrections() {
        let weights = [1.0, 0.5, 0.02];
        assert!((correction(&weights, 1, 5.0).unwrap() - 2.0).abs() < 1e-12);
        assert!((correction(&weights, 2, 5.0).unwrap() - 5.0).abs() < 1e-12);
        assert!(correction(&weights, 3, 5.0).is_err());
        assert!(correction(&weights, 0, f64::NAN).is_err());
    }

    #[test]
    fn intervals_hold_the_rate() {
        for position in rates_by_position(&[counts(0, 0), counts(10, 0), counts(10, 10)]) {
            let (low, high) = position.interval;
            assert!(position.rate.is_none_or(|rate| low <= rate && rate <= high));
        }
    }
}
