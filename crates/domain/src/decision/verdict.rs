//! What a promotion needs of the looks: the statistical part of eligibility.

use std::cmp::Ordering;

use super::look::{Analysis, Look};
use crate::stats::special::norm_isf;

/// Thresholds of a promotion that concern the primary metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gates {
    /// Confidence asked for, in percent, at least 50 and below 100.
    pub min_confidence: f64,
    /// Lift asked for, in percent.
    pub min_improvement: f64,
}

/// A thing that is required, what it is and what it must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criterion {
    /// As measured; none before the first look, or where it is not defined.
    pub measured: Option<f64>,
    /// As required.
    pub required: f64,
    /// Whether it is met.
    pub met: bool,
}

impl Criterion {
    fn at_least(measured: Option<f64>, required: f64) -> Self {
        Self {
            measured,
            required,
            met: measured.is_some_and(|measured| measured >= required),
        }
    }
}

/// How a treatment stands after its looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The p-value over all looks; 1 before the first.
    pub p: f64,
    /// 100 (1 − min(1, m p / r)), in percent, against what is asked for. Met exactly when some look
    /// crossed the boundary of the confidence asked for.
    pub confidence: Criterion,
    /// z at the last look, against the upper quantile of alpha over the treatments: a treatment
    /// that crossed once and has lost its lead since is not promoted.
    pub lead: Criterion,
    /// Lift at the last look, in percent. This gate costs power where the truth is near it, and
    /// guarantees nothing.
    pub improvement: Criterion,
}

impl Standing {
    /// Whether the treatment may be promoted, as far as statistics are concerned.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.confidence.met && self.lead.met && self.improvement.met
    }

    /// Which of two treatments is the better winner: the one of larger confidence, then of larger
    /// lift.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let lift = |standing: &Self| standing.improvement.measured.unwrap_or(f64::NEG_INFINITY);
        other
            .p
            .total_cmp(&self.p)
            .then(lift(self).total_cmp(&lift(other)))
    }
}

/// How a treatment stands after its recorded looks.
#[must_use]
pub fn judge(analysis: &Analysis, looks: &[Look], gates: Gates) -> Standing {
    let p = looks.last().map_or(1.0, |look| look.p);
    let taken = looks.iter().rev().find(|look| look.z.is_some());
    let alpha = (1.0 - gates.min_confidence / 100.0) / f64::from(analysis.design.treatments);
    let improvement = taken.and_then(|look| look.lift).map(|lift| 100.0 * lift);
    Standing {
        p,
        confidence: Criterion {
            measured: (!looks.is_empty()).then(|| analysis.confidence(p)),
            required: gates.min_confidence,
            // In terms of p, which is exact where a percentage next to 100 is rounded.
            met: p <= analysis.level(gates.min_confidence),
        },
        lead: Criterion::at_least(taken.and_then(|look| look.z), norm_isf(alpha)),
        improvement: Criterion::at_least(improvement, gates.min_improvement),
    }
}

/// The winner among treatments: the eligible one that [`Standing::compare`] puts first, by index.
#[must_use]
pub fn winner(standings: &[Standing]) -> Option<usize> {
    let eligible = standings
        .iter()
        .enumerate()
        .filter(|(_, standing)| standing.is_eligible());
    // Of equals the first: `max_by` would take the last.
    eligible
        .rev()
        .max_by(|(_, one), (_, other)| one.compare(other))
        .map(|(index, _)| index)
}
