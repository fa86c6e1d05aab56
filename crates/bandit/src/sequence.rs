//! Anytime-valid intervals of a difference: right at every look, however often one looks.
//!
//! The mean after t scores with variance v lies within
//! √( 2 (t v r + 1) / (t² r) · ln( √(t v r + 1) / α ) ) at all t at once with probability 1 − α.
//!
//! Source: Robbins, *Statistical methods related to the law of the iterated logarithm*, Ann. Math.
//! Stat. 41 (1970); with an estimated variance asymptotically: Waudby-Smith, Arbour, Sinha, Kennedy
//! & Ramdas, *Time-uniform central limit theory*, Ann. Stat. 52 (2024).

use crate::adaptive::DifferenceScores;
use crate::counts::Counts;
use crate::error::{BanditError, in_range};

/// Successes and failures that both arms need before the tuned interval begins.
pub const LEAST_OUTCOMES: u64 = 25;

/// The confidence sequence's scale r, which says where it is narrowest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    r: f64,
}

impl Scale {
    /// A given r: 2 / 10,000 is narrowest near 10,000 scores of variance 1.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] unless r is finite and above 0.
    pub fn fixed(r: f64) -> Result<Self, BanditError> {
        Ok(Self {
            r: in_range("r", r, 1e-30, 1e30)?,
        })
    }

    /// r = (2 ln(1/α) + ln(2 ln(1/α) + 1)) / (target · v): narrowest near `target` scores of the
    /// variance v, which is fixed at the first look that is allowed, and kept.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] for α outside (0, 1), or a target or variance not above 0.
    pub fn tuned(alpha: f64, target: f64, variance: f64) -> Result<Self, BanditError> {
        let doubled = 2.0 * -check_alpha(alpha)?.ln();
        in_range("target", target, 1.0, 1e15)?;
        in_range("variance", variance, 1e-30, 1e30)?;
        Self::fixed((doubled + (doubled + 1.0).ln()) / (target * variance))
    }

    /// Half the width of the interval around the mean of the scores so far, at level 1 − α.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] for α outside (0, 1); [`BanditError::NotEnoughData`] without
    /// scores or with a variance of 0 or none, of which no interval follows.
    pub fn half_width(&self, scores: &DifferenceScores, alpha: f64) -> Result<f64, BanditError> {
        check_alpha(alpha)?;
        let (t, v) = (scores.plays, scores.variance);
        if !(t >= 2.0 && v > 0.0 && v.is_finite()) {
            return Err(BanditError::NotEnoughData {
                name: "scores that differ",
                got: t,
                required: 2.0,
            });
        }
        let spread = t * v * self.r + 1.0;
        let logarithm = 0.5 * spread.ln() - alpha.ln();
        Ok((2.0 * spread / self.r * logarithm).sqrt() / t)
    }
}

/// Whether both arms have enough outcomes of both kinds for the tuned interval to begin.
#[must_use]
pub fn may_begin(first: Counts, second: Counts) -> bool {
    [first, second]
        .iter()
        .all(|counts| counts.successes() >= LEAST_OUTCOMES && counts.failures() >= LEAST_OUTCOMES)
}

fn check_alpha(alpha: f64) -> Result<f64, BanditError> {
    in_range("alpha", alpha, 1e-12, 1.0 - 1e-12)
}
