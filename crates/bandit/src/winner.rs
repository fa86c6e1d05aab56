//! When a bandit may declare a winner.

use crate::error::{BanditError, in_range};

/// What a winner has to show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WinnerRule {
    /// Least probability of being best, as a fraction.
    pub min_confidence: f64,
    /// The expected loss must be below this: a difference nobody would mind.
    pub margin: f64,
    /// Least conversions of the candidate and of the control each.
    pub min_conversions: u64,
}

impl Default for WinnerRule {
    /// 95 %, a tenth of a percentage point, 25 conversions.
    fn default() -> Self {
        Self {
            min_confidence: 0.95,
            margin: 0.001,
            min_conversions: 25,
        }
    }
}

/// What was measured of the best arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Probability of being best.
    pub prob_best: f64,
    /// Expected loss.
    pub expected_loss: f64,
    /// Anytime-valid interval of candidate minus control, never from pooled averages; `None` while
    /// there is none, or when the candidate is the control.
    pub interval: Option<(f64, f64)>,
    /// Conversions of the candidate.
    pub conversions: u64,
    /// Conversions of the control.
    pub control_conversions: u64,
}

/// One condition: what was measured, what is required, whether it is met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// Which condition.
    pub kind: ConditionKind,
    /// What was measured; `None` when it could not be.
    pub measured: Option<f64>,
    /// What is required.
    pub required: f64,
    /// Whether it is met.
    pub met: bool,
}

/// The conditions of a winner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionKind {
    /// Probability of being best, at least.
    ProbabilityBest,
    /// Expected loss, below.
    ExpectedLoss,
    /// Lower limit of the anytime-valid interval of candidate minus control, above 0.
    IntervalAboveZero,
    /// Conversions of the candidate, at least.
    Conversions,
    /// Conversions of the control, at least.
    ControlConversions,
}

impl WinnerRule {
    /// Checks all conditions; the candidate wins when every one is met. An interval wholly below 0
    /// excludes 0 as well, but its arm has lost.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] for a confidence outside (0, 1] or a margin not above 0.
    pub fn check(&self, candidate: &Candidate) -> Result<[Condition; 5], BanditError> {
        let confidence = in_range("min_confidence", self.min_confidence, 1e-9, 1.0)?;
        let margin = in_range("margin", self.margin, f64::MIN_POSITIVE, f64::MAX)?;
        let lower = candidate.interval.map(|(lower, _)| lower);
        let (prob, loss) = (candidate.prob_best, candidate.expected_loss);
        Ok([
            condition(
                ConditionKind::ProbabilityBest,
                Some(prob),
                confidence,
                prob >= confidence,
            ),
            condition(
                ConditionKind::ExpectedLoss,
                Some(loss),
                margin,
                loss < margin,
            ),
            condition(
                ConditionKind::IntervalAboveZero,
                lower,
                0.0,
                lower.is_some_and(|lower| lower > 0.0),
            ),
            self.conversions(ConditionKind::Conversions, candidate.conversions),
            self.conversions(
                ConditionKind::ControlConversions,
                candidate.control_conversions,
            ),
        ])
    }

    fn conversions(&self, kind: ConditionKind, got: u64) -> Condition {
        let required = crate::special::float(self.min_conversions);
        let measured = Some(crate::special::float(got));
        condition(kind, measured, required, got >= self.min_conversions)
    }
}

/// Whether all conditions are met.
#[must_use]
pub fn wins(conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| condition.met)
}

fn condition(kind: ConditionKind, measured: Option<f64>, required: f64, met: bool) -> Condition {
    Condition {
        kind,
        measured: measured.filter(|value| !value.is_nan()),
        required,
        met,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Candidate = Candidate {
        prob_best: 0.99,
        expected_loss: 1e-5,
        interval: Some((0.001, 0.01)),
        conversions: 25,
        control_conversions: 25,
    };

    fn unmet(candidate: Candidate) -> Vec<ConditionKind> {
        let conditions = WinnerRule::default().check(&candidate).unwrap();
        assert_eq!(wins(&conditions), conditions.iter().all(|c| c.met));
        conditions
            .iter()
            .filter(|c| !c.met)
            .map(|c| c.kind)
            .collect()
    }

    #[test]
    fn every_condition_can_fail_alone() {
        assert!(unmet(GOOD).is_empty());
        let cases = [
            (
                Candidate {
                    prob_best: 0.94,
                    ..GOOD
                },
                ConditionKind::ProbabilityBest,
            ),
            (
                Candidate {
                    prob_best: f64::NAN,
                    ..GOOD
                },
                ConditionKind::ProbabilityBest,
            ),
            (
                Candidate {
                    expected_loss: 0.001,
                    ..GOOD
                },
                ConditionKind::ExpectedLoss,
            ),
            (
                Candidate {
                    interval: None,
                    ..GOOD
                },
                ConditionKind::IntervalAboveZero,
            ),
            (
                Candidate {
                    interval: Some((0.0, 1.0)),
                    ..GOOD
                },
                ConditionKind::IntervalAboveZero,
            ),
            (
                Candidate {
                    interval: Some((-2.0, -1.0)),
                    ..GOOD
                },
                ConditionKind::IntervalAboveZero,
            ),
            (
                Candidate {
                    conversions: 24,
                    ..GOOD
                },
                ConditionKind::Conversions,
            ),
            (
                Candidate {
                    control_conversions: 24,
                    ..GOOD
                },
                ConditionKind::ControlConversions,
            ),
        ];
        for (candidate, kind) in cases {
            assert_eq!(unmet(candidate), [kind]);
        }
    }
}
