//! Limits of a lift, by inverting the test of every lift.
//!
//! A lift λ is believed as long as the contrast m_b − (1 + λ) m_a does not contradict 0, judged by the error that the
//! contrast has if λ is true. So the control's own error counts as much as the lift makes it count; dividing an interval
//! of the difference by the observed control, as if that were known, loses large lifts far too often.
//!
//! # Source
//! Fieller, J. R. Statist. Soc. B 16 (1954), 175–185; Miettinen & Nurminen, Statist. Med. 4 (1985), 213–226, for rates.

use super::evidence::{Contrasts, Stratum};
use crate::stats::special::norm_isf;
use crate::stats::{Interval, StatsError};

/// Ratios beyond this are not looked at.
const FARTHEST: f64 = 1e6;
/// Steps of a search; about eight are usual.
const STEPS: u32 = 100;
/// Ratios are found to this, relative to 1 and to themselves.
const PRECISION: f64 = 1e-12;

/// The lifts that go with one look at a fixed horizon, two-sided at `confidence`. A limit that the data do not give is
/// infinite (above) or −1 (below: no metric is negative).
///
/// # Errors
/// [`StatsError::InvalidInput`] for a confidence outside (0, 1); [`StatsError::NonPositiveBaseline`] where there is no
/// lift; what [`Contrasts::of`] answers; [`StatsError::ZeroVariance`] when nothing varies.
pub fn fixed_interval(strata: &[Stratum], confidence: f64) -> Result<Interval, StatsError> {
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(StatsError::InvalidInput);
    }
    let quantile = norm_isf((1.0 - confidence) / 2.0);
    let contrasts = Contrasts::of(strata)?;
    let believed = Believed::new(&contrasts, |_, _| quantile)?;
    Ok(Interval {
        lower: believed.lower(),
        upper: believed.upper(),
    })
}

/// The lifts that a family of tests does not contradict. `width` tells, for a ratio and a standard error, how many
/// standard errors a contrast may be away from 0.
pub(super) struct Believed<'c, W: Fn(f64, f64) -> f64> {
    contrasts: &'c Contrasts,
    width: W,
    /// The observed ratio, which no test contradicts.
    observed: f64,
}

impl<'c, W: Fn(f64, f64) -> f64> Believed<'c, W> {
    pub(super) fn new(contrasts: &'c Contrasts, width: W) -> Result<Self, StatsError> {
        let observed = contrasts.ratio().ok_or(StatsError::NonPositiveBaseline)?;
        let se = contrasts.at(1.0).se;
        if !(observed.is_finite() && se.is_finite()) {
            return Err(StatsError::InvalidInput);
        }
        if se == 0.0 {
            return Err(StatsError::ZeroVariance);
        }
        Ok(Self {
            contrasts,
            width,
            observed,
        })
    }

    /// By how much the contrast at a ratio exceeds what it may be in the direction of `sign`.
    fn excess(&self, ratio: f64, sign: f64) -> f64 {
        let contrast = self.contrasts.at(ratio);
        if contrast.se > 0.0 {
            sign * contrast.value - (self.width)(ratio, contrast.se) * contrast.se
        } else {
            sign * contrast.value
        }
    }

    /// The smallest lift that is believed.
    pub(super) fn lower(&self) -> f64 {
        let excess = |ratio| self.excess(ratio, 1.0);
        if excess(0.0) <= 0.0 {
            return -1.0;
        }
        // An excess that is no number says nothing, and nothing is no limit.
        if excess(0.0).is_nan() {
            return -1.0;
        }
        root(&excess, self.observed, 0.0) - 1.0
    }

    /// The largest one.
    pub(super) fn upper(&self) -> f64 {
        let excess = |ratio| self.excess(ratio, -1.0);
        let farthest = FARTHEST * self.observed.max(1.0);
        // Where nobody converts in the treatment the excess at the observed ratio is 0 exactly, which is no root: the
        // search goes on from a ratio that was believed.
        let mut inside = self.observed;
        let mut outside = self.observed.max(PRECISION) * 2.0;
        loop {
            let found = excess(outside);
            if found > 0.0 {
                break;
            }
            if outside >= farthest || found.is_nan() {
                return f64::INFINITY;
            }
            inside = outside;
            outside *= 2.0;
        }
        root(&excess, inside, outside) - 1.0
    }
}

/// Where a function that is not above 0 at `inside` and above 0 at `outside` crosses 0, by the Illinois method.
///
/// # Source
/// Dowell & Jarratt, BIT 11 (1971), 168–174.
fn root(function: &impl Fn(f64) -> f64, inside: f64, outside: f64) -> f64 {
    let (mut a, mut b) = (inside, outside);
    let (mut at_a, mut at_b) = (function(a), function(b));
    for _ in 0..STEPS {
        let next = b - at_b * ((b - a) / (at_b - at_a));
        if !next.is_finite() {
            break;
        }
        let at_next = function(next);
        if at_next * at_b <= 0.0 {
            (a, at_a) = (b, at_b);
        } else {
            at_a *= 0.5;
        }
        let step = (next - b).abs();
        (b, at_b) = (next, at_next);
        if at_b == 0.0 || step <= PRECISION * b.abs().max(1.0) {
            break;
        }
    }
    b
}
