//! What can be said about the variants of a bandit although it chose who sees them.
//!
//! Averages over the units of an arm are biased: bad luck starves an arm of the units that would correct it, and an arm
//! that is shown more during a sale looks better. What stands here is estimated from scores that are weighted by the
//! known propensities (augmented inverse-propensity weighting), one batch an epoch of constant weights.

use podium_bandit::adaptive::{Batch, DifferenceScores, Estimate};
use podium_bandit::best::best_belief;
use podium_bandit::sequence::{Scale, may_begin};
use podium_bandit::winner::{Candidate, WinnerRule, wins};
pub use podium_bandit::winner::{Condition, ConditionKind};
use podium_bandit::{BanditError, Counts, Evidence};

use crate::event::EventType;
use crate::metric::{Metric, MetricKind};

use super::Rewards;
use scores::Scores;

mod scores;
#[cfg(test)]
mod tests;

/// Error rate of intervals, over all looks together for those that hold at any moment.
pub const ALPHA: f64 = 0.05;
/// Units with the outcome at which the anytime-valid interval is narrowest while the split is even: see [`scale`].
const NARROWEST_AT: f64 = 1_000.0;
/// Units with the outcome, in effect, that all arms together need before anything is said about their rates, and each of two before an
/// interval that holds at any moment is believed.
const LEAST_EFFECTIVE: f64 = 25.0;
/// The expected loss of a winner is below this part of the control's rate.
const PRACTICAL: f64 = 0.01;

/// The outcome of a unit: whether it did this at least once. For metrics that are no such share the event that their
/// numerator counts.
#[must_use]
pub fn outcome_of(metric: Metric) -> EventType {
    if let MetricKind::Proportion { event } = metric.kind() {
        return event;
    }
    match Rewards::of_metric(metric) {
        Rewards::Binary(events) => events.first().copied().unwrap_or(EventType::Click),
        Rewards::Value { event, .. } => event,
        Rewards::Weighted(_) => EventType::Click,
    }
}

/// Units that were assigned in an epoch of constant weights.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochUnits {
    /// Whether the epoch's split stands still, whatever is learned.
    pub is_even: bool,
    /// Weight of each arm, in any unit.
    pub weights: Vec<f64>,
    /// Units of each arm, and those with the outcome.
    pub counts: Vec<Counts>,
}

impl EpochUnits {
    fn has(&self, arm: usize) -> bool {
        self.weights.get(arm).is_some_and(|weight| *weight > 0.0)
    }

    /// The probability with which a unit gets an arm.
    fn share(&self, arm: usize) -> f64 {
        let sum: f64 = self.weights.iter().sum();
        let own = self.weights.get(arm).copied().unwrap_or_default();
        if sum > 0.0 { own / sum } else { 0.0 }
    }

    fn batch(&self) -> Result<Batch, BanditError> {
        let arms = 0..self.weights.len();
        Batch::new(
            arms.map(|arm| self.share(arm)).collect(),
            self.counts.clone(),
        )
    }
}

/// A difference of rates, as a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Arm minus control.
    pub estimate: Estimate,
    /// The interval that holds at every look; `None` until both arms have 25 units with the outcome and 25 without, the
    /// former also in effect: see [`read`].
    pub anytime: Option<(f64, f64)>,
}

/// An arm among those that are in the running: the ones with a weight in the newest epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Probability of being the best of them.
    pub prob_best: f64,
    /// What choosing this arm costs on average, in the rate's unit.
    pub expected_loss: f64,
}

/// What can be said about an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArmTruth {
    /// Units and those with the outcome, over all epochs.
    pub counts: Counts,
    /// Their plain average: biased, for comparison only.
    pub raw: Option<Estimate>,
    /// The rate by AIPW scores; `None` until the arm has units, and all arms together have 25 units with the outcome and 25
    /// without, in effect, in the epochs that it shares with the control.
    pub rate: Option<Estimate>,
    /// The same with scores weighted by the square root of the propensity: narrower.
    pub rate_sqrt: Option<Estimate>,
    /// How it compares with all arms that are in the running; `None` for one that is retired, and for all until each of
    /// them has units, and together 25 with the outcome and 25 without, in effect.
    pub standing: Option<Standing>,
    /// Against the control; `None` for the control itself, and where either has no rate.
    pub difference: Option<Difference>,
}

/// Estimates of all arms, in their order; epochs in the order in which they began.
///
/// The probability of being best is that of normal distributions with the mean and the standard error of AIPW estimates, never of
/// pooled averages, from the epochs in which every arm that is in the running had a weight: rates of different times
/// say nothing about who is better. An arm none of whose units has the outcome, or all, is believed to have
/// the exact posterior of that many units under the pooled rate. Below 25 units with the outcome (and without it) in effect, all arms
/// together, nothing is said: the estimates of few outcomes are not normal. The interval that holds at any moment needs 25 in both
/// arms: (Σ w)² / Σ w²
/// over their inverse propensities. Epochs in which an arm or the control had no weight say nothing about the two.
///
/// # Errors
/// [`BanditError::UnknownArm`]; [`BanditError::NoArms`] without epochs; [`BanditError::OutOfRange`] for units of an arm
/// without weight; [`BanditError::Length`].
pub fn read(epochs: &[EpochUnits], control: usize) -> Result<Vec<ArmTruth>, BanditError> {
    let arms = epochs.first().map_or(0, |epoch| epoch.weights.len());
    let mut truths = Vec::with_capacity(arms);
    for arm in 0..arms {
        truths.push(one(epochs, arms, control, arm)?);
    }
    for (arm, standing) in standings(epochs, arms)? {
        if let Some(truth) = truths.get_mut(arm) {
            truth.standing = Some(standing);
        }
    }
    Ok(truths)
}

/// The arms that are in the running, compared over the epochs of which all of them were a part; the newest one always is.
fn standings(epochs: &[EpochUnits], arms: usize) -> Result<Vec<(usize, Standing)>, BanditError> {
    let newest = epochs.last().ok_or(BanditError::NoArms)?;
    let running: Vec<usize> = (0..arms).filter(|arm| newest.has(*arm)).collect();
    let together = |epoch: &EpochUnits| running.iter().all(|arm| epoch.has(*arm));
    let scores = Scores::new(epochs, arms, (0, 0), together)?;
    let mut beliefs = Vec::with_capacity(running.len());
    for arm in &running {
        let Some(belief) = scores.belief(*arm)? else {
            return Ok(Vec::new());
        };
        beliefs.push(belief);
    }
    let best = best_belief(&beliefs)?;
    let parts = best.probability.into_iter().zip(best.expected_loss);
    let standing = |(prob_best, expected_loss)| Standing {
        prob_best,
        expected_loss,
    };
    Ok(running.into_iter().zip(parts.map(standing)).collect())
}

/// The scale of the interval that holds at any moment. It has to be chosen before there are data; one that follows the variance so
/// far is another one at every look, as units and their conversions come in, and what held for each does not hold for all.
/// Split evenly among K arms, a unit's scores have a variance of 2 K p (1 − p), so about 2 K a unit with the outcome, whatever the rate
/// p: that is known beforehand, with the K of the epoch in which the two arms met.
fn scale<'e>(mut epochs: impl Iterator<Item = &'e EpochUnits>) -> Result<Scale, BanditError> {
    let met = epochs.next().ok_or(BanditError::NoArms)?;
    let arms = met.weights.iter().filter(|weight| **weight > 0.0).count();
    Scale::tuned(ALPHA, NARROWEST_AT, 2.0 * float(arms))
}

#[expect(clippy::cast_precision_loss, reason = "arms are few")]
fn float(arms: usize) -> f64 {
    arms as f64
}

fn one(
    epochs: &[EpochUnits],
    arms: usize,
    control: usize,
    arm: usize,
) -> Result<ArmTruth, BanditError> {
    let shared = |epoch: &EpochUnits| epoch.has(control) && epoch.has(arm);
    let scores = Scores::new(epochs, arms, (control, arm), shared)?;
    let counts = all_units(epochs, arm)?;
    let rate = scores.rate(arm)?;
    let difference = if arm == control {
        None
    } else {
        let scale = anytime_scale(epochs, &scores, (control, arm))?;
        scores.difference(|scores| anytime(scores, scale?))?
    };
    Ok(ArmTruth {
        counts,
        raw: average(counts),
        rate: rate.map(|rate| rate.aipw),
        rate_sqrt: rate.map(|rate| rate.aipw_sqrt),
        standing: None,
        difference,
    })
}

/// The scale of the interval that holds at any moment, once both arms have what it needs.
fn anytime_scale(
    epochs: &[EpochUnits],
    scores: &Scores<'_>,
    (control, arm): (usize, usize),
) -> Result<Option<Scale>, BanditError> {
    let totals = scores.totals();
    let enough = [control, arm]
        .iter()
        .all(|arm| scores.effective_outcomes(*arm) >= LEAST_EFFECTIVE);
    if !enough || !may_begin(totals[control], totals[arm]) {
        return Ok(None);
    }
    let shared = |epoch: &&EpochUnits| epoch.has(control) && epoch.has(arm);
    scale(epochs.iter().filter(shared)).map(Some)
}

fn anytime(scores: &DifferenceScores, scale: Scale) -> Option<(f64, f64)> {
    let half = scale.half_width(scores, ALPHA).ok()?;
    Some((scores.mean - half, scores.mean + half))
}

fn all_units(epochs: &[EpochUnits], arm: usize) -> Result<Counts, BanditError> {
    epochs
        .iter()
        .filter_map(|epoch| epoch.counts.get(arm))
        .try_fold(Counts::default(), |sum, counts| sum.merge(*counts))
}

fn average(counts: Counts) -> Option<Estimate> {
    let evidence = Evidence::from(counts);
    let units = evidence.plays();
    (units > 0.0).then(|| {
        let value = evidence.successes() / units;
        Estimate {
            value,
            se: (value * (1.0 - value) / units).sqrt(),
        }
    })
}

/// What is shown of a rate: the estimate and its 95 % interval, cut to [0, 1]. An average of scores may lie outside.
#[must_use]
pub fn shown(rate: &Estimate) -> (f64, (f64, f64)) {
    let cut = |value: f64| value.clamp(0.0, 1.0);
    let (lower, upper) = rate.interval95();
    (cut(rate.value), (cut(lower), cut(upper)))
}

/// The arm that is probably best, and the conditions under which it may be declared the winner.
#[derive(Clone, Debug, PartialEq)]
pub struct Leader {
    /// Its number.
    pub arm: usize,
    /// All conditions, met or not.
    pub conditions: [Condition; 5],
}

impl Leader {
    /// Whether it has won.
    #[must_use]
    pub fn wins(&self) -> bool {
        wins(&self.conditions)
    }
}

/// Who leads, and whether it may be declared the winner: probability of being best at least `min_confidence` (a fraction),
/// an expected loss below one part in a hundred of the control's rate, an anytime-valid interval of the difference to the
/// control above zero, and 25 conversions in both. The control never wins: it is what stays.
///
/// # Errors
/// [`BanditError::NoArms`] while no arm has a standing, or the control no rate; [`BanditError::UnknownArm`];
/// [`BanditError::OutOfRange`] for a confidence outside (0, 1].
pub fn leader(
    truths: &[ArmTruth],
    control: usize,
    min_confidence: f64,
) -> Result<Leader, BanditError> {
    let arms = truths.len();
    let base = truths
        .get(control)
        .ok_or(BanditError::UnknownArm { arm: control, arms })?;
    let running = truths
        .iter()
        .enumerate()
        .filter_map(|(arm, truth)| Some((arm, truth, truth.standing?)));
    let (arm, best, standing) = running
        .max_by(|a, b| {
            let by_probability = a.2.prob_best.total_cmp(&b.2.prob_best);
            by_probability.then(b.0.cmp(&a.0))
        })
        .ok_or(BanditError::NoArms)?;
    let conditions = winner_conditions(
        standing.prob_best,
        standing.expected_loss,
        base.rate.ok_or(BanditError::NoArms)?.value,
        best.difference.and_then(|difference| difference.anytime),
        (best.counts.successes(), base.counts.successes()),
        min_confidence,
    )?;
    Ok(Leader { arm, conditions })
}

/// The conditions of a winner, from figures that were estimated before: as for [`leader`]. `conversions` are those of the
/// arm and of the control.
///
/// # Errors
/// [`BanditError::OutOfRange`] for a confidence outside (0, 1].
pub fn winner_conditions(
    prob_best: f64,
    expected_loss: f64,
    control_rate: f64,
    interval: Option<(f64, f64)>,
    conversions: (u64, u64),
    min_confidence: f64,
) -> Result<[Condition; 5], BanditError> {
    let rule = WinnerRule {
        min_confidence,
        margin: (PRACTICAL * control_rate).max(1e-9),
        ..WinnerRule::default()
    };
    rule.check(&Candidate {
        prob_best,
        expected_loss,
        interval,
        conversions: conversions.0,
        control_conversions: conversions.1,
    })
}
