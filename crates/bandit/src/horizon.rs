//! The finite-horizon index, for campaigns whose number of plays is known and small.
//!
//! An arm's index with r plays left is the fixed reward λ a play at which one would be indifferent
//! between λ for all r plays, and playing the arm for as long as one likes before taking λ. It
//! weighs what a play teaches against the plays left to use it; with one play left it is the mean.
//!
//! Source: Kaufmann, *On Bayesian index policies for sequential resource allocation*, Ann. Stat. 46
//! (2018), 842–865, section 4, after Gittins (1979).

use crate::posterior::BetaPosterior;

/// Plays looked ahead at most; the work grows with the square.
pub const MAX_LOOKAHEAD: u32 = 400;

/// Steps of Newton's method; it ends after about six.
const STEPS: u32 = 40;

/// Computes indices for one number of plays left.
#[derive(Clone, Debug)]
pub struct CampaignIndex {
    plays_left: u32,
    /// Value of going on, and the expected plays it takes, by successes.
    stage: Vec<(f64, f64)>,
}

impl CampaignIndex {
    /// For `plays_left` plays, at least 1 and at most [`MAX_LOOKAHEAD`] of them considered.
    #[must_use]
    pub fn new(plays_left: u32) -> Self {
        let plays_left = plays_left.clamp(1, MAX_LOOKAHEAD);
        Self {
            plays_left,
            stage: Vec::with_capacity(plays_left as usize + 1),
        }
    }

    /// The index, a rate between the posterior mean and 1.
    ///
    /// The advantage of playing over λ is convex, decreasing and piecewise linear in λ, and not
    /// negative at the mean: Newton's method climbs to its root in finitely many steps.
    #[must_use]
    pub fn of(&mut self, posterior: &BetaPosterior) -> f64 {
        let mut reward = posterior.mean();
        for _ in 0..STEPS {
            let (advantage, plays) = self.advantage(posterior, reward);
            let step = advantage / plays;
            reward += step;
            if step <= 1e-14 {
                break;
            }
        }
        reward.min(1.0)
    }

    /// What playing at least once and stopping at will is expected to bring over λ a play, and the
    /// expected number of plays until stopping.
    fn advantage(&mut self, posterior: &BetaPosterior, reward: f64) -> (f64, f64) {
        let (a, n) = (posterior.alpha(), posterior.alpha() + posterior.beta());
        self.stage.clear();
        self.stage.resize(self.plays_left as usize + 1, (0.0, 0.0));
        for seen in (0..self.plays_left).rev() {
            let total = n + f64::from(seen);
            for won in 0..=seen {
                let rate = (a + f64::from(won)) / total;
                let place = won as usize;
                let (lost, gained) = (self.stage[place], self.stage[place + 1]);
                let value = rate - reward + rate * gained.0 + (1.0 - rate) * lost.0;
                let plays = 1.0 + rate * gained.1 + (1.0 - rate) * lost.1;
                self.stage[place] = if value > 0.0 || seen == 0 {
                    (value, plays)
                } else {
                    (0.0, 0.0)
                };
            }
        }
        self.stage[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_one_play_left_it_is_the_mean() {
        let posterior = BetaPosterior::new(3.0, 7.0).unwrap();
        assert!((CampaignIndex::new(1).of(&posterior) - 0.3).abs() < 1e-15);
        assert!((CampaignIndex::new(0).of(&posterior) - 0.3).abs() < 1e-15);
    }

    #[test]
    fn two_plays_left_by_hand() {
        // Uniform prior: indifferent where (½ − λ) + ½ (2/3 − λ) = 0, so λ = 5/9.
        let posterior = BetaPosterior::new(1.0, 1.0).unwrap();
        assert!((CampaignIndex::new(2).of(&posterior) - 5.0 / 9.0).abs() < 1e-14);
    }

    #[test]
    fn it_grows_with_the_plays_left() {
        let posterior = BetaPosterior::new(1.0, 30.0).unwrap();
        let of = |plays| CampaignIndex::new(plays).of(&posterior);
        assert!(of(1) < of(10) && of(10) < of(100) && of(100) < of(400));
    }
}
