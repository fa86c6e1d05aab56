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

/// Sums of values as they are read now. Those of an hour that has lost a part of its weight are rounded to whole plays
/// and to the unit of values.
fn values(
    options: &BanditOptions,
    arms: &[ArmHistory],
    now: i64,
) -> Result<Vec<ValueSums>, BanditError> {
    let weights = weights_of_hours(options, arms, now)?;
    let of_arm = |arm: &ArmHistory| {
        arm.hours
            .iter()
            .try_fold(ValueSums::default(), |sum, hour| {
                let weight = weights.get(&hour.hour).copied().unwrap_or(1.0);
                let (plays, reward, squares) = (hour.shown()?, hour.reward, hour.reward_sq);
                let plays = scaled(u128::from(plays), weight);
                let plays = u64::try_from(plays).unwrap_or(u64::MAX);
                if plays == 0 {
                    return Ok(sum);
                }
                let (reward, squares) = (scaled(reward, weight), scaled(squares, weight));
                // Rounding must not leave squares that no values have.
                let least = reward.saturating_mul(reward).div_ceil(u128::from(plays));
                sum.merge(ValueSums::from_sums(plays, reward, squares.max(least)))
            })
    };
    arms.iter().map(of_arm).collect()
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

fn scaled(count: u128, weight: f64) -> u128 {
    if weight >= 1.0 {
        return count;
    }
    scaled_up(count, weight)
}

/// A count times a factor that is not negative, rounded.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the factor is not negative, and a cast of a float saturates"
)]
pub(super) fn scaled_up(count: u128, factor: f64) -> u128 {
    (count as f64 * factor).round() as u128
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
