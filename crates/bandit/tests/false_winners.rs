//! A winner among equal arms is declared in at most 5 % of bandits, with a look after every batch.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

use podium_bandit::adaptive::{AdaptiveData, Batch};
use podium_bandit::best::best_arm;
use podium_bandit::sequence::{Scale, may_begin};
use podium_bandit::winner::{Candidate, WinnerRule, wins};
use podium_bandit::{Arms, Counts, Policy, Prior, Snapshot, Weighting};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

const BATCHES: u64 = 30;
const SIZE: u64 = 400;
const ALPHA: f64 = 0.05;

/// Share of bandits that declare arm 1 the winner over the control, arm 0.
fn share_of_winners(rates: [f64; 2], runs: u64) -> f64 {
    let winners = (0..runs).filter(|seed| declares(rates, *seed)).count();
    let float = |count: u64| f64::from(u32::try_from(count).unwrap());
    float(u64::try_from(winners).unwrap()) / float(runs)
}

fn declares(rates: [f64; 2], seed: u64) -> bool {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut data = AdaptiveData::new(2, 0, 1).unwrap();
    let mut scale = None;
    for _ in 0..BATCHES {
        let arms = Arms::from_counts(Prior::FLAT, data.totals());
        let weighting = Weighting {
            policy: Policy::Thompson,
            floor: 0.1,
        };
        let snapshot = Snapshot::of_rates(1, weighting, arms).unwrap();
        let mut seen = [(0, 0); 2];
        for _ in 0..SIZE {
            let arm = snapshot.draw(&mut rng);
            seen[arm].0 += 1;
            seen[arm].1 += u64::from(rng.random::<f64>() < rates[arm]);
        }
        let counts = seen.iter().map(|(n, s)| Counts::new(*n, *s).unwrap());
        let batch = Batch::new(snapshot.weights().to_vec(), counts.collect()).unwrap();
        data.add(&batch).unwrap();
        if wins_now(&data, &mut scale) {
            return true;
        }
    }
    false
}

fn wins_now(data: &AdaptiveData, scale: &mut Option<Scale>) -> bool {
    let totals = data.totals();
    let scores = data.difference().unwrap();
    if scale.is_none() && may_begin(totals[0], totals[1]) {
        *scale = Scale::tuned(ALPHA, 6_000.0, scores.variance).ok();
    }
    let interval = scale.as_ref().map(|scale| {
        let half = scale.half_width(&scores, ALPHA).unwrap();
        (scores.mean - half, scores.mean + half)
    });
    let best = best_arm(&Arms::from_counts(Prior::FLAT, totals).posteriors()).unwrap();
    let candidate = Candidate {
        prob_best: best.probability[1],
        expected_loss: best.expected_loss[1],
        interval,
        conversions: totals[1].successes(),
        control_conversions: totals[0].successes(),
    };
    wins(&WinnerRule::default().check(&candidate).unwrap())
}

#[test]
fn equal_arms_rarely_have_a_winner() {
    let share = share_of_winners([0.05, 0.05], 100);
    // One run in forty is expected at most, as only one side can win; three errors on top.
    assert!(share <= 0.025 + 3.0 * 0.016, "{share}");
}

#[test]
fn a_better_arm_is_found() {
    let share = share_of_winners([0.05, 0.09], 30);
    assert!(share >= 0.8, "{share}");
}
