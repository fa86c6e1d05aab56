//! Group-sequential boundaries: alpha spending with exact recursion.
//!
//! The score of an experiment without an effect is a Brownian motion observed at the information
//! of each look. A [`Boundary`] spends a given share of alpha at each look and answers with the z
//! that must be reached; the chance that any look reaches its bound is then exactly what was
//! spent, whenever the looks are, as long as their moments do not depend on the data.
//!
//! # Source
//! Lan & DeMets, Biometrika 70 (1983), 659–663, for spending; Armitage, McPherson & Rowe, J. R.
//! Stat. Soc. A 132 (1969), 235–244, for the recursion; Jennison & Turnbull, *Group Sequential
//! Methods* (2000), ch. 19, for its numerics.

mod classic;
mod law;

pub use classic::{MAX_CLASSIC_LOOKS, obrien_fleming_constant, pocock_constant};

use super::special::{norm_isf, norm_sf};
use super::{StatsError, check_level, finite, non_negative, positive};
use law::Law;

/// Adding less alpha than this is adding none: totals do not resolve it.
const LEAST_ALPHA: f64 = 1e-15;

/// How alpha is spent as time passes.
///
/// Time is in units of the horizon (calendar time over the planned length, or information over the
/// planned information). All but [`Spending::OpenRational`] have spent everything at 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spending {
    /// 2 (1 − Φ(z_{α/2}/√t)): nearly nothing early, after O'Brien and Fleming.
    ObrienFleming,
    /// α ln(1 + (e − 1) t): bounds nearly constant, after Pocock.
    Pocock,
    /// α t^power, the power above 0.
    Power(f64),
    /// α (1 − e^(−γt)) / (1 − e^(−γ)), after Hwang, Shih and DeCani; γ = 0 is α t.
    Hsd(f64),
    /// α t / (1 + t): no horizon, t may grow without end.
    OpenRational,
}

impl Spending {
    /// What has been spent of `alpha` at `time` ≥ 0.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for α outside (0, 1), a time that is negative or not finite,
    /// or a parameter out of range.
    pub fn spent(self, alpha: f64, time: f64) -> Result<f64, StatsError> {
        let (alpha, time) = (check_level(alpha)?, non_negative(time)?);
        if self == Self::ObrienFleming {
            // At time 0 the quotient is infinite; from 40 on the tail is 0.
            let z = norm_isf(0.5 * alpha) / time.min(1.0).sqrt();
            return Ok(2.0 * norm_sf(z.min(40.0)));
        }
        Ok(alpha * self.fraction(time)?)
    }

    /// The share of alpha that has been spent at `time` ≥ 0, of the kinds for which it is the same
    /// at every alpha. Their boundaries of different alpha are nested.
    ///
    /// # Errors
    /// As [`Self::spent`]; also for [`Spending::ObrienFleming`].
    pub fn fraction(self, time: f64) -> Result<f64, StatsError> {
        let time = non_negative(time)?;
        let t = time.min(1.0);
        match self {
            Self::ObrienFleming => Err(StatsError::InvalidInput),
            Self::Pocock => Ok(((std::f64::consts::E - 1.0) * t).ln_1p()),
            Self::Power(power) => Ok(t.powf(positive(power)?)),
            Self::Hsd(gamma) => Ok(exponential_fraction(finite(gamma)?, t)),
            Self::OpenRational => Ok(if time > 1.0 {
                1.0 / (1.0 + 1.0 / time)
            } else {
                time / (1.0 + time)
            }),
        }
    }
}

/// (1 − e^(−γt)) / (1 − e^(−γ)) without overflow.
fn exponential_fraction(gamma: f64, t: f64) -> f64 {
    if gamma == 0.0 {
        return t;
    }
    let quotient = (-gamma.abs() * t).exp_m1() / (-gamma.abs()).exp_m1();
    if gamma > 0.0 {
        quotient
    } else {
        (gamma * (1.0 - t)).exp() * quotient
    }
}

/// A boundary that grows look by look.
///
/// A look costs the product of the nodes of two neighbouring looks: about 0.1 ms at steps of 1 %
/// or more, and more where information grows in tiny steps.
#[derive(Clone, Debug, Default)]
pub struct Boundary {
    info: f64,
    spent: f64,
    law: Option<Law>,
}

impl Boundary {
    /// Before the first look.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Alpha that was spent so far.
    #[must_use]
    pub fn spent(&self) -> f64 {
        self.spent
    }

    /// Adds a look at information `info` (any unit, above that of the look before), at which
    /// `spent` of alpha is spent in total. Answers with the z that must be reached; `None` where
    /// the look adds nothing to what was spent, so that nothing can cross at it.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for information that does not increase or is not finite, or a
    /// total that decreases or is not below 1. The boundary is then unchanged.
    pub fn look(&mut self, info: f64, spent: f64) -> Result<Option<f64>, StatsError> {
        let increases = info > self.info && info.is_finite();
        if !increases || !(self.spent..1.0).contains(&spent) {
            return Err(StatsError::InvalidInput);
        }
        let added = spent - self.spent;
        self.info = info;
        if added < LEAST_ALPHA {
            // Nothing can cross here, so the paths go on as if there had been no look.
            return Ok(None);
        }
        self.spent = spent;
        let law = match self.law.take() {
            None => Law::first(info, norm_isf(added)),
            Some(law) => law.step(info, added),
        };
        let bound = law.bound();
        self.law = Some(law);
        Ok(Some(bound))
    }
}

/// A look of a planned or recorded boundary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundaryLook {
    /// Alpha spent up to this look, it included.
    pub spent: f64,
    /// The z that must be reached; `None` where the look adds nothing.
    pub bound: Option<f64>,
}

/// The boundary of looks at information `info`, which spend `alpha` as `spending` says at the
/// times `spend_time`.
///
/// # Errors
/// [`StatsError::InvalidInput`] without looks, for lengths that do not match, information that
/// does not increase, times that decrease, and what [`Spending::spent`] refuses.
pub fn boundary(
    info: &[f64],
    spend_time: &[f64],
    alpha: f64,
    spending: Spending,
) -> Result<Vec<BoundaryLook>, StatsError> {
    let ordered = spend_time.windows(2).all(|pair| pair[0] <= pair[1]);
    if info.is_empty() || info.len() != spend_time.len() || !ordered {
        return Err(StatsError::InvalidInput);
    }
    let mut growing = Boundary::new();
    let looks = info.iter().zip(spend_time).map(|(info, time)| {
        let spent = spending.spent(alpha, *time)?.max(growing.spent());
        let bound = growing.look(*info, spent)?;
        Ok(BoundaryLook { spent, bound })
    });
    looks.collect()
}

#[cfg(test)]
mod tests;
