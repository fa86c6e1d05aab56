//! What can be said about the variants of a bandit although it chose who sees them.
//!
//! Averages over the units of an arm are biased: bad luck starves an arm of the units that would correct it, and an arm
//! that is shown more during a sale looks better. What stands here is estimated from scores that are weighted by the
//! known propensities (augmented inverse-propensity weighting), one batch an epoch of constant weights.

use podium_bandit::adaptive::{AdaptiveData, ArmEstimates, Batch, Estimate};
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
/// Units with the outcome at which the anytime-valid interval is narrowest while the split is even: see [`scale`].
const NARROWEST_AT: f64 = 1_000.0;
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
    /// The rate by AIPW scores; `None` until the arm has units, and shares epochs of at least two units with the control.
    pub rate: Option<Estimate>,
    /// The same with scores weighted by the square root of the propensity: narrower.
    pub rate_sqrt: Option<Estimate>,
    /// How it compares with all arms that are in the running; `None` for one that is retired, and for all until each of
    /// them has units.
    pub standing: Option<Standing>,
    /// Against the control; `None` for the control itself, and where either has no rate.
    pub difference: Option<Difference>,
}

/// Estimates of all arms, in their order; epochs in the order in which they began.
///
/// The probability of being best is that of beta posteriors with the mean and the standard error of AIPW estimates, never of
/// pooled averages, from the epochs in which every arm that is in the running had a weight: rates of different times
/// say nothing about who is better. The interval that holds at any moment needs 25 units with the outcome in effect: (Σ w)² / Σ w²
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
    let mut data = AdaptiveData::new(arms, 0, 0)?;
    for epoch in in_order(epochs, together) {
        data.add(&epoch.batch()?)?;
    }
    let mut posteriors = Vec::with_capacity(running.len());
    for arm in &running {
        let Some(estimate) = estimate(&data, *arm)? else {
            return Ok(Vec::new());
        };
        let units = effective(estimate.aipw, data.totals()[*arm])?;
        posteriors.push(Prior::FLAT.posterior(units));
    }
    let best = best_arm(&posteriors)?;
    let parts = best.probability.into_iter().zip(best.expected_loss);
    let standing = |(prob_best, expected_loss)| Standing {
        prob_best,
        expected_loss,
    };
    Ok(running.into_iter().zip(parts.map(standing)).collect())
}

/// Too little data is nothing known, and no error: an arm that was just added must not hide what is known of the others.
fn known<T>(found: Result<T, BanditError>) -> Result<Option<T>, BanditError> {
    match found {
        Err(BanditError::NotEnoughData { .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// What the scores say of an arm. The scores of an arm without units are what was assumed before there were any, with no spread:
/// they say nothing about it.
fn estimate(data: &AdaptiveData, arm: usize) -> Result<Option<ArmEstimates>, BanditError> {
    let has_units = data.totals().get(arm).is_some_and(|own| own.plays() > 0);
    let estimate = known(data.arm(arm))?;
    Ok(estimate.filter(|_| has_units))
}

/// Epochs that fit, the even share last: it runs beside all others, and its propensities need no past.
fn in_order(
    epochs: &[EpochUnits],
    fits: impl Fn(&EpochUnits) -> bool,
) -> impl Iterator<Item = &EpochUnits> {
    let (even, adaptive): (Vec<_>, Vec<_>) = epochs
        .iter()
        .filter(|epoch| fits(epoch))
        .partition(|epoch| epoch.is_even);
    adaptive.into_iter().chain(even)
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
    let mut data = AdaptiveData::new(arms, control, arm)?;
    let shared = |epoch: &EpochUnits| epoch.has(control) && epoch.has(arm);
    for epoch in in_order(epochs, shared) {
        data.add(&epoch.batch()?)?;
    }
    let raw = all_units(epochs, arm)?;
    let Some(estimate) = estimate(&data, arm)? else {
        return Ok(ArmTruth {
            counts: raw,
            raw: average(raw),
            rate: None,
            rate_sqrt: None,
            standing: None,
            difference: None,
        });
    };
    let totals = data.totals();
    let enough = [control, arm]
        .iter()
        .all(|arm| effective_outcomes(in_order(epochs, shared), *arm) >= LEAST_EFFECTIVE);
    let begins = may_begin(totals[control], totals[arm]) && enough;
    let scale = begins.then(|| scale(epochs.iter().filter(|epoch| shared(epoch))));
    let difference = if arm == control || totals[control].plays() == 0 {
        None
    } else {
        known(difference(&data, scale.transpose()?))?
    };
    Ok(ArmTruth {
        counts: raw,
        raw: average(raw),
        rate: Some(estimate.aipw),
        rate_sqrt: Some(estimate.aipw_sqrt),
        standing: None,
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
fn effective(estimate: Estimate, counts: Counts) -> Result<Evidence, BanditError> {
    let rate = estimate.value.clamp(0.0, 1.0);
    let spread = rate * (1.0 - rate);
    let variance = estimate.se * estimate.se;
    let all = Evidence::from(counts).plays();
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
        let best = |arm: usize| truths[arm].standing.unwrap().prob_best;
        assert!((best(0) + best(1) - 1.0).abs() < 1e-9);
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

    /// The control and `b` had a sale before `c` came; since then all do worse, and `c` does best.
    fn with_a_newcomer() -> Vec<EpochUnits> {
        vec![
            epoch(
                true,
                &[1.0, 1.0, 0.0],
                &[(4_000, 800), (4_000, 840), (0, 0)],
            ),
            epoch(
                false,
                &[40.0, 60.0, 0.0],
                &[(8_000, 1_600), (12_000, 2_520), (0, 0)],
            ),
            epoch(
                true,
                &[1.0, 1.0, 1.0],
                &[(3_000, 150), (3_000, 160), (3_000, 270)],
            ),
            epoch(
                false,
                &[20.0, 30.0, 50.0],
                &[(2_000, 100), (3_000, 160), (5_000, 450)],
            ),
        ]
    }

    #[test]
    fn a_newcomer_is_compared_over_the_time_in_which_all_were_there() {
        let epochs = with_a_newcomer();
        let truths = read(&epochs, 0).unwrap();
        assert!(truths[1].raw.unwrap().value > truths[2].raw.unwrap().value);
        let best = |arm: usize| truths[arm].standing.unwrap();
        assert!(best(2).prob_best > 0.999 && best(2).expected_loss < 1e-4);
        assert!(best(1).prob_best < 1e-3, "{:?}", best(1));
        let leader = leader(&truths, 0, 0.95).unwrap();
        assert!(leader.arm == 2 && leader.wins(), "{leader:?}");
        // What happened before the newcomer came has no say in who is best.
        let later = read(&epochs[2..], 0).unwrap();
        assert_eq!(later[2].standing, truths[2].standing);
    }

    #[test]
    fn a_retired_arm_is_out_of_the_running() {
        let mut epochs = with_a_newcomer();
        epochs.push(epoch(
            false,
            &[50.0, 0.0, 50.0],
            &[(2_000, 100), (0, 0), (2_000, 180)],
        ));
        let truths = read(&epochs, 0).unwrap();
        assert_eq!(truths[1].standing, None);
        let best = |arm: usize| truths[arm].standing.unwrap().prob_best;
        assert!((best(0) + best(2) - 1.0).abs() < 1e-9);
        assert_eq!(leader(&truths, 0, 0.95).unwrap().arm, 2);
    }

    #[test]
    fn an_arm_without_units_hides_nothing_of_the_others() {
        // Never shown: its weight was 0 from the start.
        let never = [epoch(
            false,
            &[50.0, 50.0, 0.0],
            &[(2_000, 100), (2_000, 180), (0, 0)],
        )];
        let truths = read(&never, 0).unwrap();
        assert!(truths[2].rate.is_none() && truths[2].difference.is_none());
        assert!(truths[1].rate.is_some() && truths[1].difference.is_some());
        assert_eq!(leader(&truths, 0, 0.95).unwrap().arm, 1);
        // Just added: who is best is not known before it has units, and nobody wins.
        let added = [
            never[0].clone(),
            epoch(false, &[40.0, 30.0, 30.0], &[(0, 0), (0, 0), (0, 0)]),
        ];
        let truths = read(&added, 0).unwrap();
        assert!(truths[1].rate.is_some());
        assert!(truths.iter().all(|truth| truth.standing.is_none()));
        assert_eq!(leader(&truths, 0, 0.95), Err(BanditError::NoArms));
    }

    /// The scores of an arm that nobody has seen yet are what was assumed of it: 50 %, for certain.
    #[test]
    fn an_arm_with_weight_and_no_units_is_not_known() {
        let first = [epoch(
            false,
            &[48.0, 48.0, 4.0],
            &[(20, 1), (20, 2), (0, 0)],
        )];
        let truths = read(&first, 0).unwrap();
        assert_eq!((truths[2].rate, truths[2].difference), (None, None));
        assert_eq!(truths[2].rate_sqrt, None);
        assert!(truths[1].rate.is_some() && truths[1].difference.is_some());
        assert!(truths.iter().all(|truth| truth.standing.is_none()));
        assert_eq!(leader(&truths, 0, 0.95), Err(BanditError::NoArms));
        // Nothing is compared with a control that nobody has seen.
        let truths = read(&first, 2).unwrap();
        assert_eq!((truths[0].difference, truths[1].difference), (None, None));
        assert_eq!(leader(&truths, 2, 0.95), Err(BanditError::NoArms));
    }

    #[test]
    fn the_scale_stands_before_there_are_data() {
        // The same difference of the same scores, told by two courses of the units before: a scale that was tuned to the variance
        // at the first look would make two intervals of them.
        let first = |early: &[(u64, u64)]| {
            let epochs = [
                epoch(false, &[50.0, 50.0], early),
                epoch(false, &[50.0, 50.0], &[(5_000, 500), (5_000, 600)]),
            ];
            scale(epochs.iter()).unwrap()
        };
        assert_eq!(
            first(&[(500, 25), (500, 25)]),
            first(&[(500, 250), (500, 250)])
        );
        let three = [epoch(true, &[1.0, 1.0, 1.0], &[(1, 0), (1, 0), (1, 0)])];
        assert_ne!(scale(three.iter()).unwrap(), first(&[(1, 0), (1, 0)]));
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
        let truths = read(&nobody, 0).unwrap();
        assert!(truths.iter().all(|truth| truth.rate.is_none()));
    }
}
