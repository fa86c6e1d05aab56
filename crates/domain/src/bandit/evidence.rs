//! From counts by hour to the picture that choices are made from.

use std::collections::BTreeMap;

use podium_bandit::history::History;
use podium_bandit::student::ValueSums;
use podium_bandit::{Arms, BanditError, Counts, Snapshot};

use super::BanditOptions;

/// What an arm has earned since its last reset, by hour of the impression. Order leaves no trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmHistory {
    /// The hours; the same hour may appear more than once.
    pub hours: Vec<HourCounts>,
}

/// Exact counts of an arm in an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HourCounts {
    /// Whole hours since 1970.
    pub hour: i64,
    /// Impressions whose outcome is not known yet.
    pub pending: u64,
    /// Impressions whose outcome is known.
    pub pulls: u64,
    /// Rewarded ones.
    pub successes: u64,
    /// Sum of the rewards, in 1/10,000.
    pub reward: u128,
    /// Sum of their squares, in 1/100,000,000.
    pub reward_sq: u128,
}

impl HourCounts {
    /// What a choice counts as plays. Impressions whose window has not passed yet are among them: rewards are known at
    /// once and failures only later, so that without these an arm would look the better the more it is shown right now.
    ///
    /// # Errors
    /// [`BanditError::Overflow`] beyond 2^64 impressions.
    pub fn shown(&self) -> Result<u64, BanditError> {
        let overflow = BanditError::Overflow { name: "pulls" };
        self.pulls.checked_add(self.pending).ok_or(overflow)
    }
}

impl ArmHistory {
    /// Impressions that count as plays, and successes, of all hours.
    ///
    /// # Errors
    /// [`BanditError::Overflow`]; [`BanditError::InvalidCounts`] for more successes than impressions.
    pub fn counts(&self) -> Result<Counts, BanditError> {
        self.hours.iter().try_fold(Counts::default(), |sum, hour| {
            sum.merge(Counts::new(hour.shown()?, hour.successes)?)
        })
    }
}

/// The picture of arms in the hour `now` (whole hours since 1970): weights, probability of being best, expected loss.
/// The same counts give the same picture, bit for bit.
///
/// # Errors
/// [`BanditError::NoArms`]; [`BanditError::InvalidCounts`], [`BanditError::OutOfRange`] and
/// [`BanditError::Overflow`] for counts that contradict each other; [`BanditError::NotConverged`] for posteriors
/// beyond double precision.
pub fn snapshot(
    options: &BanditOptions,
    arms: &[ArmHistory],
    now: i64,
    version: u64,
) -> Result<Snapshot, BanditError> {
    let all = arms
        .iter()
        .try_fold(Counts::default(), |sum, arm| sum.merge(arm.counts()?))?;
    let weighting = options.weighting();
    if let Some(max) = options.rewards.max() {
        let sums = values(options, arms, now)?;
        let total = sums
            .iter()
            .try_fold(ValueSums::default(), |sum, one| sum.merge(*one))?;
        let known = all.successes() >= super::LEAST_SITE_SUCCESSES;
        let mean = total.mean().filter(|mean| known && *mean < max);
        return Snapshot::of_values(version, weighting, &sums, max, mean);
    }
    let mut history = History::new(arms.len());
    for (arm, of) in arms.iter().enumerate() {
        for hour in &of.hours {
            history.add(hour.hour, arm, Counts::new(hour.shown()?, hour.successes)?)?;
        }
    }
    let evidence = history.read(options.forgetting, now)?;
    let prior = options.prior(all.plays(), all.successes());
    Snapshot::of_rates(version, weighting, Arms::from_evidence(prior, &evidence))
}

/// Sums of values as they are read now.
fn values(
    options: &BanditOptions,
    arms: &[ArmHistory],
    now: i64,
) -> Result<Vec<ValueSums>, BanditError> {
    let weights = weights_of_hours(options, arms, now)?;
    arms.iter().map(|arm| aged(arm, &weights)).collect()
}

/// Sums of an arm whose hours count as much as their weights say. They are rounded to whole plays, and to the unit of values, once: an
/// hour with a single play would count it fully or not at all, whatever its weight, and arms that are shown less would seem to earn less.
fn aged(arm: &ArmHistory, weights: &BTreeMap<i64, f64>) -> Result<ValueSums, BanditError> {
    let (mut whole, mut part) = (HourCounts::default(), Aged::default());
    for (hour, sums) in by_hour(arm)? {
        match weights.get(&hour) {
            Some(weight) if *weight < 1.0 => part.add(&sums, *weight),
            _ => added(&mut whole, &sums)?,
        }
    }
    if part.plays > 0.0 {
        part.add(&whole, 1.0);
        return Ok(part.rounded());
    }
    let sums = (whole.pulls, whole.reward, whole.reward_sq);
    Ok(ValueSums::from_sums(sums.0, sums.1, sums.2))
}

/// Exact sums of an arm's hours, in order of time; `pulls` are all impressions that count as plays.
fn by_hour(arm: &ArmHistory) -> Result<BTreeMap<i64, HourCounts>, BanditError> {
    let mut hours = BTreeMap::new();
    for hour in &arm.hours {
        let shown = HourCounts {
            pulls: hour.shown()?,
            ..*hour
        };
        added(hours.entry(hour.hour).or_default(), &shown)?;
    }
    Ok(hours)
}

fn added(sum: &mut HourCounts, hour: &HourCounts) -> Result<(), BanditError> {
    let overflow = |name| BanditError::Overflow { name };
    let pulls = sum.pulls.checked_add(hour.pulls);
    let reward = sum.reward.checked_add(hour.reward);
    let squares = sum.reward_sq.checked_add(hour.reward_sq);
    sum.pulls = pulls.ok_or(overflow("pulls"))?;
    sum.reward = reward.ok_or(overflow("sum"))?;
    sum.reward_sq = squares.ok_or(overflow("sum_sq"))?;
    Ok(())
}

/// Sums of plays that count in part.
#[derive(Clone, Copy, Debug, Default)]
struct Aged {
    plays: f64,
    reward: f64,
    squares: f64,
}

impl Aged {
    fn add(&mut self, hour: &HourCounts, weight: f64) {
        self.plays += weight * super::as_float(hour.pulls);
        self.reward += weight * wide(hour.reward);
        self.squares += weight * wide(hour.reward_sq);
    }

    /// Whole plays with the same mean.
    fn rounded(self) -> ValueSums {
        let plays = u64::try_from(nearest(self.plays)).unwrap_or(u64::MAX);
        if plays == 0 {
            return ValueSums::default();
        }
        let factor = super::as_float(plays) / self.plays;
        let reward = nearest(factor * self.reward);
        // Rounding must not leave squares that no values have.
        let least = reward.saturating_mul(reward).div_ceil(u128::from(plays));
        ValueSums::from_sums(plays, reward, nearest(factor * self.squares).max(least))
    }
}

/// The weight of the plays of every hour, newest first, as [`History::read`] finds it.
fn weights_of_hours(
    options: &BanditOptions,
    arms: &[ArmHistory],
    now: i64,
) -> Result<BTreeMap<i64, f64>, BanditError> {
    options.forgetting.validate()?;
    let mut plays: BTreeMap<i64, u64> = BTreeMap::new();
    for hour in arms.iter().flat_map(|arm| &arm.hours) {
        let sum = plays.entry(hour.hour).or_default();
        *sum = sum.saturating_add(hour.shown()?);
    }
    let mut later = 0.0;
    let weight = |(hour, plays): (i64, u64)| {
        let (age, plays) = (now.saturating_sub(hour).max(0), super::as_float(plays));
        let weight = options.forgetting.weight(age, later, plays);
        later += plays;
        (hour, weight)
    };
    Ok(plays.into_iter().rev().map(weight).collect())
}

/// A count times a factor that is not negative, rounded.
pub(super) fn scaled_up(count: u128, factor: f64) -> u128 {
    nearest(wide(count) * factor)
}

#[expect(clippy::cast_precision_loss, reason = "the rounding is meant")]
fn wide(sum: u128) -> f64 {
    sum as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is not negative, and a cast of a float saturates"
)]
fn nearest(number: f64) -> u128 {
    number.round() as u128
}

#[cfg(test)]
mod tests {
    use podium_bandit::history::Forgetting;

    use super::*;
    use crate::bandit::Rewards;
    use crate::decimal::Decimal4;
    use crate::event::EventType;

    fn hour(hour: i64, pending: u64, pulls: u64, successes: u64) -> HourCounts {
        HourCounts {
            hour,
            pending,
            pulls,
            successes,
            reward: u128::from(successes) * 10_000,
            reward_sq: u128::from(successes) * 100_000_000,
        }
    }

    fn arm(hours: &[HourCounts]) -> ArmHistory {
        ArmHistory {
            hours: hours.to_vec(),
        }
    }

    #[test]
    fn an_arm_that_is_shown_more_now_does_not_look_better() {
        let options = BanditOptions::with_rewards(Rewards::any());
        // The same rate of one in ten; of the second one most outcomes are not known yet.
        let arms = [
            arm(&[hour(0, 0, 1_000, 100)]),
            arm(&[hour(0, 900, 100, 100)]),
        ];
        let snapshot = snapshot(&options, &arms, 1, 1).unwrap();
        assert!((snapshot.weights()[0] - 0.5).abs() < 1e-9);
    }

    #[test]
    fn order_and_grouping_of_hours_leave_no_trace() {
        for rewards in [
            Rewards::any(),
            Rewards::Value {
                event: EventType::Purchase,
                max: Decimal4(50_000),
            },
        ] {
            let mut options = BanditOptions::with_rewards(rewards);
            for forgetting in [Forgetting::Never, Forgetting::HalfLifeHours(3.0)] {
                options.forgetting = forgetting;
                let together = [
                    arm(&[hour(0, 0, 100, 3), hour(5, 1, 30, 2)]),
                    arm(&[hour(0, 7, 20, 1), hour(1, 0, 1, 1)]),
                ];
                let apart = [
                    arm(&[hour(5, 1, 30, 2), hour(0, 0, 100, 3)]),
                    arm(&[hour(1, 0, 1, 1), hour(0, 7, 20, 1)]),
                ];
                let weights = |arms: &[ArmHistory]| {
                    let picture = snapshot(&options, arms, 9, 1).unwrap();
                    picture
                        .weights()
                        .iter()
                        .map(|w| w.to_bits())
                        .collect::<Vec<_>>()
                };
                assert_eq!(weights(&together), weights(&apart));
            }
        }
    }

    /// A reward of 2 for every other play, by 1, 2 or 50 plays an hour.
    #[test]
    fn the_mean_is_the_same_whatever_the_pulls_an_hour() {
        let mut options = BanditOptions::with_rewards(Rewards::Value {
            event: EventType::Purchase,
            max: Decimal4(50_000),
        });
        for forgetting in [
            Forgetting::HalfLifeHours(24.0),
            Forgetting::HalfLifePlays(5_000.0),
            Forgetting::Never,
        ] {
            options.forgetting = forgetting;
            let arms = [1_u64, 2, 50].map(|pulls| {
                let hours = (0..480_i64).map(|at| {
                    let successes = if pulls == 1 {
                        u64::from(at % 2 == 0)
                    } else {
                        pulls / 2
                    };
                    HourCounts {
                        reward: 20_000 * u128::from(successes),
                        reward_sq: 400_000_000 * u128::from(successes),
                        ..hour(at, 0, pulls, successes)
                    }
                });
                arm(&hours.collect::<Vec<_>>())
            });
            for sums in values(&options, &arms, 480).unwrap() {
                // Half an hour's ageing lies between the rewarded play and the other one where there is one an hour.
                let mean = sums.mean().unwrap();
                assert!((mean - 1.0).abs() < 0.02, "{forgetting:?} {sums:?}");
            }
        }
        // What has all but gone is no play.
        options.forgetting = Forgetting::HalfLifeHours(1.0);
        let gone = values(&options, &[arm(&[hour(0, 0, 3, 2)])], 100).unwrap();
        assert_eq!(gone, [ValueSums::default()]);
    }

    #[test]
    fn impossible_counts_are_refused() {
        let options = BanditOptions::with_rewards(Rewards::any());
        let wrong = [arm(&[hour(0, 0, 1, 2)]), arm(&[])];
        assert!(snapshot(&options, &wrong, 0, 1).is_err());
        assert!(snapshot(&options, &[], 0, 1).is_err());
        let full = [arm(&[hour(0, 1, u64::MAX, 0)])];
        assert!(snapshot(&options, &full, 0, 1).is_err());
    }
}
