//! Beta posteriors of rates, and their priors.

use serde::{Deserialize, Serialize};

use crate::counts::Evidence;
use crate::error::{BanditError, in_range};
use crate::logit_beta::LogitBeta;
use crate::quadrature::{Density, mass_up_to, panel_mass, panel_width};
use crate::special::logistic;

/// Smallest and largest parameter of a beta distribution that is taken.
const SMALLEST: f64 = 1e-3;
const LARGEST: f64 = 1e16;

/// What is believed of every arm's rate before its first play: Beta(alpha, beta).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawBeta")]
pub struct Prior(BetaPosterior);

impl Prior {
    /// Beta(1, 1).
    pub const FLAT: Self = Self(BetaPosterior {
        alpha: 1.0,
        beta: 1.0,
    });

    /// Beta(alpha, beta).
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] unless both lie in [0.001, 1e16].
    pub fn new(alpha: f64, beta: f64) -> Result<Self, BanditError> {
        BetaPosterior::new(alpha, beta).map(Self)
    }

    /// Beta(1, 1/m − 1), whose mean is the site's own rate m; flat when m is unknown or no rate
    /// strictly between 0 and 1. Worth one success, so that few data overrule it.
    #[must_use]
    pub fn site(rate: Option<f64>) -> Self {
        rate.filter(|m| *m > 0.0 && *m < 1.0)
            .and_then(|m| Self::new(1.0, (1.0 / m - 1.0).clamp(SMALLEST, LARGEST)).ok())
            .unwrap_or(Self::FLAT)
    }

    /// First parameter: successes believed.
    #[must_use]
    pub fn alpha(&self) -> f64 {
        self.0.alpha
    }

    /// Second parameter: failures believed.
    #[must_use]
    pub fn beta(&self) -> f64 {
        self.0.beta
    }

    /// The posterior after plays with known outcomes.
    #[must_use]
    pub fn posterior(&self, evidence: Evidence) -> BetaPosterior {
        BetaPosterior {
            alpha: self.0.alpha + evidence.successes(),
            beta: self.0.beta + evidence.failures(),
        }
    }
}

impl Default for Prior {
    fn default() -> Self {
        Self::FLAT
    }
}

#[derive(Deserialize)]
struct RawBeta {
    alpha: f64,
    beta: f64,
}

impl TryFrom<RawBeta> for Prior {
    type Error = BanditError;

    fn try_from(raw: RawBeta) -> Result<Self, BanditError> {
        Self::new(raw.alpha, raw.beta)
    }
}

/// A beta distribution of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BetaPosterior {
    alpha: f64,
    beta: f64,
}

impl BetaPosterior {
    /// Beta(alpha, beta).
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] unless both lie in [0.001, 1e16].
    pub fn new(alpha: f64, beta: f64) -> Result<Self, BanditError> {
        Ok(Self {
            alpha: in_range("alpha", alpha, SMALLEST, LARGEST)?,
            beta: in_range("beta", beta, SMALLEST, LARGEST)?,
        })
    }

    /// First parameter.
    #[must_use]
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Second parameter.
    #[must_use]
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// α / (α + β).
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }

    /// αβ / ((α + β)² (α + β + 1)).
    #[must_use]
    pub fn variance(&self) -> f64 {
        let n = self.alpha + self.beta;
        (self.alpha / n) * (self.beta / n) / (n + 1.0)
    }

    /// P(rate ≤ x); absolute error about 1e-13.
    #[must_use]
    pub fn cdf(&self, x: f64) -> f64 {
        if x.is_nan() {
            return f64::NAN;
        }
        if x <= 0.0 {
            return 0.0;
        }
        if x >= 1.0 {
            return 1.0;
        }
        mass_up_to(&self.density(), x.ln() - (-x).ln_1p())
    }

    /// The rate below which the probability is `p`.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] unless p lies in [1e-9, 1 − 1e-9].
    pub fn quantile(&self, p: f64) -> Result<f64, BanditError> {
        in_range("p", p, 1e-9, 1.0 - 1e-9)?;
        Ok(logistic(self.logit_quantile(p)))
    }

    /// Walks up the panels to the one that holds the quantile, then Newton's method inside, kept
    /// within a shrinking bracket.
    fn logit_quantile(&self, p: f64) -> f64 {
        let density = self.density();
        let (mut left, high) = density.support();
        let mut below = 0.0;
        let mut right = left;
        while left < high {
            let width = panel_width(&[&density], left, high);
            let mass = panel_mass(&density, left, width);
            right = left + width;
            if below + mass >= p {
                break;
            }
            below += mass;
            left = right;
        }
        let start = left;
        let mut y = 0.5 * (left + right);
        for _ in 0..60 {
            let excess = below + panel_mass(&density, start, y - start) - p;
            if excess > 0.0 {
                right = y;
            } else {
                left = y;
            }
            let newton = y - excess / density.at(y);
            let next = if newton > left && newton < right {
                newton
            } else {
                0.5 * (left + right)
            };
            let moved = (next - y).abs();
            y = next;
            if moved <= 1e-15 * y.abs().max(1.0) {
                break;
            }
        }
        y
    }

    pub(crate) fn density(&self) -> LogitBeta {
        LogitBeta::new(self.alpha, self.beta)
    }
}
