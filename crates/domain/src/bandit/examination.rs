//! How much attention a position gets, and rewards that are weighted by it.
//!
//! Where arms are placed at random, a difference between positions is the position's own: its weight is its rate over
//! that of the first position. A reward at a position that few look at speaks for more of its kind, so it counts
//! 1 / weight, at most five times and at least a fifth. Positions are counted by arm, not by arm and hour: where an arm has
//! moved on the page, and old pulls lose their weight, its older and newer rewards are corrected alike.

use podium_bandit::position::{DEFAULT_CLIP, correction};
use podium_bandit::{BanditError, Counts};

use super::evidence::ArmHistory;

/// Rewards that a position needs before its weight is believed: a rate from fewer is mostly noise.
pub const LEAST_REWARDS: u64 = 25;

/// Weights of positions from the first on, from impressions that were placed at random. `None` for a position with fewer
/// than 25 rewards; none at all while the first position has fewer.
#[must_use]
pub fn weights(randomised: &[Counts]) -> Vec<Option<f64>> {
    let rate = |counts: &Counts| {
        let enough = counts.successes() >= LEAST_REWARDS;
        enough.then(|| super::as_float(counts.successes()) / super::as_float(counts.plays()))
    };
    match randomised.first().and_then(rate) {
        Some(first) => randomised
            .iter()
            .map(|c| rate(c).map(|r| r / first))
            .collect(),
        None => vec![None; randomised.len()],
    }
}

/// What the rewards of an arm count together, as a multiple of their number. `rewards` are by position, from the first
/// on; a position without a weight counts as it is.
///
/// # Errors
/// [`BanditError::OutOfRange`] for a weight that no rates give.
pub fn factor(weights: &[Option<f64>], rewards: &[u64]) -> Result<f64, BanditError> {
    let (mut counted, mut all) = (0.0, 0.0);
    for (position, rewards) in rewards.iter().enumerate() {
        let rewards = super::as_float(*rewards);
        let worth = match weights.get(position).copied().flatten() {
            Some(weight) => correction(&[weight], 0, DEFAULT_CLIP)?,
            None => 1.0,
        };
        counted += rewards * worth;
        all += rewards;
    }
    Ok(if all > 0.0 { counted / all } else { 1.0 })
}

/// The history of an arm whose rewards count `factor` times. An impression is not more than one success. What rounding
/// takes from an hour the next one gets, so that hours with one success each are corrected as well.
#[must_use]
pub fn corrected(history: &ArmHistory, factor: f64) -> ArmHistory {
    let mut history = history.clone();
    let (mut seen, mut given) = (0, 0);
    for hour in &mut history.hours {
        let most = hour.pulls.saturating_add(hour.pending);
        seen += u128::from(hour.successes);
        let until_now = super::evidence::scaled_up(seen, factor);
        let successes = until_now - given;
        given = until_now;
        hour.successes = u64::try_from(successes).unwrap_or(u64::MAX).min(most);
        hour.reward = super::evidence::scaled_up(hour.reward, factor);
        hour.reward_sq = super::evidence::scaled_up(hour.reward_sq, factor * factor);
    }
    history
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bandit::evidence::HourCounts;

    fn counts(plays: u64, successes: u64) -> Counts {
        Counts::new(plays, successes).unwrap()
    }

    #[test]
    fn weights_are_rates_over_the_first() {
        let found = weights(&[counts(1_000, 100), counts(1_000, 50), counts(1_000, 24)]);
        assert_eq!(found, [Some(1.0), Some(0.5), None]);
        assert_eq!(weights(&[counts(100, 24), counts(100, 50)]), [None, None]);
        assert_eq!(weights(&[]), Vec::<Option<f64>>::new());
    }

    #[test]
    fn rewards_where_few_look_count_more() {
        let weights = [Some(1.0), Some(0.5), Some(0.01), None];
        assert_eq!(factor(&weights, &[10, 10]), Ok(1.5));
        assert_eq!(factor(&weights, &[0, 0, 4]), Ok(5.0), "clipped");
        assert_eq!(factor(&weights, &[0, 0, 0, 7]), Ok(1.0));
        assert_eq!(factor(&weights, &[]), Ok(1.0));
    }

    #[test]
    fn hours_with_few_rewards_are_corrected_together() {
        let hour = |hour| HourCounts {
            hour,
            pulls: 10,
            successes: 1,
            ..HourCounts::default()
        };
        let history = ArmHistory {
            hours: (0..10).map(hour).collect(),
        };
        let counts = |factor| corrected(&history, factor).counts().unwrap().successes();
        assert_eq!([counts(1.4), counts(0.4), counts(1.0)], [14, 4, 10]);
    }

    #[test]
    fn an_impression_stays_one_success() {
        let hour = HourCounts {
            pulls: 10,
            successes: 6,
            reward: 60_000,
            reward_sq: 600_000_000,
            ..HourCounts::default()
        };
        let history = corrected(&ArmHistory { hours: vec![hour] }, 2.0);
        assert_eq!(history.hours[0].successes, 10);
        assert_eq!(history.hours[0].reward, 120_000);
    }
}
