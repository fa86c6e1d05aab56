//! What can be said about the variants of a bandit although it chose who sees them.
//!
//! Averages over the units of an arm are biased: bad luck starves an arm of the units that would correct it, and an arm
//! that is shown more during a sale looks better. What stands here is estimated from scores that are weighted by the
//! known propensities (augmented inverse-propensity weighting), one batch an epoch of constant weights.

use podium_bandit::adaptive::{AdaptiveData, Batch, Estimate};
use podium_bandit::best::best_arm;
use podium_bandit::sequence::{Scale, may_begin};
use podium_bandit::winner::{Candidate, WinnerRule, wins};
pub use podium_bandit::winner::{Condition, ConditionKind};
use podium_bandit::{BanditError, Counts, Evidence, Prior};

use crate::event::EventType;
use crate::metric::{Metric, MetricKind};

use super::Rewards;

/// Error rate of intervals, over all looks together for those that hold at any moment.
pub const ALPHA: f64 = 0.05;
/// Units at which the anytime-valid interval is narrowest.
const NARROWEST_AT: f64 = 5_000.0;
/// Units with the outcome, in effect, that both arms need before an interval that holds at any moment is believed.
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

    fn batch(&self) -> Result<Batch, BanditError> {
        let sum: f64 = self.weights.iter().sum();
        let share = |weight: &f64| if sum > 0.0 { weight / sum } else { 0.0 };
        Batch::new(
            self.weights.iter().map(share).collect(),
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

/// What can be said about an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArmTruth {
    /// Units and those with the outcome, over all epochs.
    pub counts: Counts,
    /// Their plain average: biased, for comparison only.
    pub raw: Option<Estimate>,
    /// The rate by AIPW scores.
    pub rate: Estimate,
    /// The same with scores weighted by the square root of the propensity: narrower.
    pub rate_sqrt: Estimate,
    /// Probability of being the best arm.
    pub prob_best: f64,
    /// What choosing this arm costs on average, in the rate's unit.
    pub expected_loss: f64,
    /// Against the control; `None` for the control itself.
    pub difference: Option<Difference>,
}

/// Estimates of all arms, in their order.
///
/// The probability of being best is that of beta posteriors with the mean and the standard error of the AIPW estimates,
/// never of pooled averages. The interval that holds at any moment needs 25 units with the outcome in effect: (Σ w)² / Σ w² over
/// their inverse propensities. Epochs in which an arm or the control had no weight say nothing about the two.
///
/// # Errors
/// [`BanditError::UnknownArm`]; [`BanditError::NotEnoughData`] where an arm shares no epoch of two units with the
/// control; [`BanditError::OutOfRange`] for units of an arm without weight; [`BanditError::Length`].
pub fn read(epochs: &[EpochUnits], control: usize) -> Result<Vec<ArmTruth>, BanditError> {
    let arms = epochs.first().map_or(0, |epoch| epoch.weights.len());
    let mut truths = Vec::with_capacity(arms);
    for arm in 0..arms {
        truths.push(one(epochs, arms, control, arm)?);
    }
    let posteriors: Vec<_> = truths
        .iter()
        .map(|truth| Ok(Prior::FLAT.posterior(effective(truth)?)))
        .collect::<Result<_, BanditError>>()?;
    let best = best_arm(&posteriors)?;
    let parts = best.probability.iter().zip(&best.expected_loss);
    for (truth, (probability, loss)) in truths.iter_mut().zip(parts) {
        truth.prob_best = *probability;
        truth.expected_loss = *loss;
    }
    Ok(truths)
}

fn one(
    epochs: &[EpochUnits],
    arms: usize,
    control: usize,
    arm: usize,
) -> Result<ArmTruth, BanditError> {
    let mut data = AdaptiveData::new(arms, control, arm)?;
    let mut scale = None;
    // The even share last: it runs beside all others, and its propensities need no past.
    let shared = |even: bool| {
        let fits = move |epoch: &&EpochUnits| {
            epoch.is_even == even && epoch.has(control) && epoch.has(arm)
        };
        epochs.iter().filter(fits)
    };
    for epoch in shared(false).chain(shared(true)) {
        data.add(&epoch.batch()?)?;
        let totals = data.totals();
        if scale.is_none() && arm != control && may_begin(totals[control], totals[arm]) {
            scale = Scale::tuned(ALPHA, NARROWEST_AT, data.difference()?.variance).ok();
        }
    }
    let estimates = data.arms()?;
    let estimate = estimates
        .get(arm)
        .ok_or(BanditError::UnknownArm { arm, arms })?;
    let enough = [control, arm].iter().all(|arm| {
        let all = shared(false).chain(shared(true));
        effective_outcomes(all, *arm) >= LEAST_EFFECTIVE
    });
    let difference = if arm == control {
        None
    } else {
        Some(difference(&data, scale.filter(|_| enough))?)
    };
    let raw = all_units(epochs, arm)?;
    Ok(ArmTruth {
        counts: raw,
        raw: average(raw),
        rate: estimate.aipw,
        rate_sqrt: estimate.aipw_sqrt,
        prob_best: 0.0,
        expected_loss: 0.0,
        difference,
    })
}

/// How many units with the outcome an arm has in effect, when each weighs 1 / P: (Σ w)² / Σ w² (Kish 1965). Where the
/// bandit starves an arm, a few units carry its rate; a rate that happens to be low then comes with a variance that is too low,
/// and the interval is not what it says.
fn effective_outcomes<'e>(epochs: impl Iterator<Item = &'e EpochUnits>, arm: usize) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for epoch in epochs {
        let all: f64 = epoch.weights.iter().sum();
        let own = epoch.weights.get(arm).copied().unwrap_or_default();
        let counts = epoch.counts.get(arm).copied().unwrap_or_default();
        if own > 0.0 {
            let (units, weight) = (super::as_float(counts.successes()), all / own);
            sum += units * weight;
            squares += units * weight * weight;
        }
    }
    if squares > 0.0 {
        sum * sum / squares
    } else {
        0.0
    }
}

fn difference(data: &AdaptiveData, scale: Option<Scale>) -> Result<Difference, BanditError> {
    let scores = data.difference()?;
    let anytime = scale
        .and_then(|scale| scale.half_width(&scores, ALPHA).ok())
        .map(|half| (scores.mean - half, scores.mean + half));
    Ok(Difference {
        estimate: scores.estimate(),
        anytime,
    })
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

/// Units of a plain experiment that would have the same mean and standard error: n = p (1 − p) / se².
fn effective(truth: &ArmTruth) -> Result<Evidence, BanditError> {
    let rate = truth.rate.value.clamp(0.0, 1.0);
    let spread = rate * (1.0 - rate);
    let variance = truth.rate.se * truth.rate.se;
    let all = Evidence::from(truth.counts).plays();
    // Where nobody, or everybody, has the outcome, the standard error says nothing.
    let units = if spread > 0.0 && variance > 0.0 {
        (spread / variance).min(1e15)
    } else {
        all
    };
    Evidence::new(units, units * rate)
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
/// [`BanditError::NoArms`]; [`BanditError::UnknownArm`]; [`BanditError::OutOfRange`] for a confidence outside (0, 1].
pub fn leader(
    truths: &[ArmTruth],
    control: usize,
    min_confidence: f64,
) -> Result<Leader, BanditError> {
    let arms = truths.len();
    let base = truths
        .get(control)
        .ok_or(BanditError::UnknownArm { arm: control, arms })?;
    let (arm, best) = truths
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.prob_best.total_cmp(&b.1.prob_best).then(b.0.cmp(&a.0)))
        .ok_or(BanditError::NoArms)?;
    let conditions = winner_conditions(
        best.prob_best,
        best.expected_loss,
        base.rate.value,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(is_even: bool, weights: &[f64], counts: &[(u64, u64)]) -> EpochUnits {
        EpochUnits {
            is_even,
            weights: weights.to_vec(),
            counts: counts
                .iter()
                .map(|(n, s)| Counts::new(*n, *s).unwrap())
                .collect(),
        }
    }

    #[test]
    fn a_sale_while_the_weights_move_makes_no_winner() {
        // Both arms have 5 % before the sale and 20 % during it; the treatment gets most of the sale's traffic.
        let epochs = [
            epoch(false, &[50.0, 50.0], &[(2_000, 100), (2_000, 100)]),
            epoch(false, &[10.0, 90.0], &[(400, 80), (3_600, 720)]),
        ];
        let truths = read(&epochs, 0).unwrap();
        let raw = |arm: usize| truths[arm].raw.unwrap().value;
        assert!(raw(1) > 1.4 * raw(0), "pooled averages tell another story");
        let difference = truths[1].difference.unwrap();
        assert!(difference.estimate.value.abs() < 1e-3, "{difference:?}");
        let leader = leader(&truths, 0, 0.95).unwrap();
        assert!(!leader.wins());
    }

    #[test]
    fn a_clear_winner_wins_and_equal_arms_do_not() {
        let better = [
            epoch(false, &[50.0, 50.0], &[(5_000, 250), (5_000, 400)]),
            epoch(false, &[10.0, 90.0], &[(1_000, 50), (9_000, 720)]),
            epoch(true, &[1.0, 1.0], &[(600, 30), (600, 48)]),
        ];
        let truths = read(&better, 0).unwrap();
        let winner = leader(&truths, 0, 0.95).unwrap();
        assert!(winner.arm == 1 && winner.wins(), "{winner:?} {truths:?}");
        assert!((truths[0].prob_best + truths[1].prob_best - 1.0).abs() < 1e-9);
        let equal = [epoch(true, &[1.0, 1.0], &[(5_000, 250), (5_000, 255)])];
        let truths = read(&equal, 0).unwrap();
        assert!(!leader(&truths, 0, 0.95).unwrap().wins());
    }

    #[test]
    fn a_starved_arm_has_fewer_outcomes_than_it_seems() {
        let starved = |units: u64, outcomes: u64| {
            let even = epoch(false, &[50.0, 50.0], &[(200, 10), (200, 10)]);
            let adaptive = epoch(false, &[2.0, 98.0], &[(units, outcomes), (49 * units, 980)]);
            let truths = read(&[even, adaptive], 0).unwrap();
            truths[1].difference.unwrap().anytime
        };
        // 26 of the control, 16 of which weigh 50: in effect 17.
        assert_eq!(starved(200, 16), None);
        assert!(starved(400, 32).is_some());
    }

    #[test]
    fn epochs_of_which_an_arm_was_no_part_say_nothing_about_it() {
        let epochs = [
            epoch(
                false,
                &[50.0, 50.0, 0.0],
                &[(1_000, 50), (1_000, 50), (0, 0)],
            ),
            epoch(
                false,
                &[40.0, 30.0, 30.0],
                &[(400, 80), (300, 60), (300, 60)],
            ),
        ];
        let truths = read(&epochs, 0).unwrap();
        assert!(truths[2].difference.unwrap().estimate.value.abs() < 1e-9);
        assert!(read(&epochs, 3).is_err());
        assert!(read(&[], 0).is_err());
        let nobody = [epoch(true, &[1.0, 1.0], &[(0, 0), (0, 0)])];
        assert!(read(&nobody, 0).is_err());
    }
}
