//! Seeded simulations: the tests err as often as they promise, the intervals cover as often.
//!
//! Every experiment is an A/A comparison, so each rejection is false. Limits are the promise plus
//! or minus four standard errors of the simulation.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

use podium_domain::moments::{MeanMoments, RatioMoments};
use podium_domain::stats::lift::{Estimate, relative_lift};
use podium_domain::stats::mean::welch;
use podium_domain::stats::proportion::{Proportion, two_proportions, wilson};
use podium_domain::stats::ratio::compare_ratios;

const EXPERIMENTS: u32 = 4_000;
const LEVEL: f64 = 0.95;

/// SplitMix64, after Steele, Lea & Flood (2014): short, and the same for ever.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn happens(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// How many of `trials` happen.
    fn binomial(&mut self, trials: i64, probability: f64) -> i64 {
        (0..trials)
            .map(|_| i64::from(self.happens(probability)))
            .sum()
    }
}

/// How often `experiment` says yes, as a share.
fn share_of(seed: u64, mut experiment: impl FnMut(&mut SplitMix64) -> bool) -> f64 {
    let mut random = SplitMix64(seed);
    let hits = (0..EXPERIMENTS).filter(|_| experiment(&mut random)).count();
    hits as f64 / f64::from(EXPERIMENTS)
}

fn assert_near(what: &str, share: f64, promise: f64) {
    let error = (promise * (1.0 - promise) / f64::from(EXPERIMENTS)).sqrt();
    assert!(
        (share - promise).abs() < 4.0 * error,
        "{what}: {share} instead of {promise}"
    );
}

#[test]
fn equal_shares_are_rejected_in_five_percent() {
    let draw =
        |random: &mut SplitMix64| Proportion::new(random.binomial(1_000, 0.1), 1_000).unwrap();
    let rejected = share_of(1, |random| {
        let test = two_proportions(draw(random), draw(random), LEVEL).unwrap();
        test.pooled.p.two_sided < 0.05
    });
    assert_near("two proportions", rejected, 0.05);
    let covered = share_of(2, |random| {
        let interval = wilson(draw(random), LEVEL).unwrap();
        (interval.lower..interval.upper).contains(&0.1)
    });
    assert_near("Wilson", covered, 0.95);
}

#[test]
fn equal_means_are_rejected_in_five_percent_also_with_unequal_variances() {
    // Sums of uniform numbers, of the same mean and three times the spread in one arm.
    let arm = |random: &mut SplitMix64, units: i64, spread: i64| {
        let mut moments = MeanMoments::new(10_000);
        for _ in 0..units {
            let steps = random.binomial(12, 0.5) - 6;
            moments.add_unit(1_000_000 + spread * steps);
        }
        moments.summary().unwrap()
    };
    let rejected = share_of(3, |random| {
        let (a, b) = (arm(random, 40, 30_000), arm(random, 120, 10_000));
        welch(&a, &b, LEVEL).unwrap().p.two_sided < 0.05
    });
    assert_near("Welch", rejected, 0.05);
}

/// Clicks per impression where each shopper has a taste of his own: impressions are clustered.
fn clustered(random: &mut SplitMix64, units: i64) -> RatioMoments {
    let mut moments = RatioMoments::new(1, 1);
    for _ in 0..units {
        let taste = if random.happens(0.3) { 0.4 } else { 0.05 };
        let impressions = 1 + random.binomial(20, 0.3);
        moments.add_unit(impressions, random.binomial(impressions, taste));
    }
    moments
}

#[test]
fn clustered_clicks_are_rejected_in_five_percent() {
    let rejected = share_of(4, |random| {
        let (a, b) = (clustered(random, 300), clustered(random, 300));
        let test = compare_ratios(&a.summary().unwrap(), &b.summary().unwrap(), LEVEL).unwrap();
        test.p.two_sided < 0.05
    });
    assert_near("delta method", rejected, 0.05);
}

/// The reason for the delta method: impressions taken as independent err far more often.
#[test]
fn clustered_clicks_as_proportions_would_err_often() {
    let as_proportion = |moments: &RatioMoments| {
        let counts = [&moments.sum_y, &moments.sum_x].map(|sum| i64::try_from(sum).unwrap());
        Proportion::new(counts[0], counts[1]).unwrap()
    };
    let rejected = share_of(4, |random| {
        let (a, b) = (clustered(random, 300), clustered(random, 300));
        let test = two_proportions(as_proportion(&a), as_proportion(&b), LEVEL).unwrap();
        test.pooled.p.two_sided < 0.05
    });
    assert!(rejected > 0.10, "{rejected}");
}

#[test]
fn intervals_of_the_lift_cover_in_ninety_five_percent() {
    let arm = |random: &mut SplitMix64, probability: f64| {
        let share = Proportion::new(random.binomial(1_000, probability), 1_000).unwrap();
        Estimate::new(share.rate().unwrap(), share.se2().unwrap()).unwrap()
    };
    let mut covered = [0_u32; 3];
    let mut random = SplitMix64(5);
    for _ in 0..EXPERIMENTS {
        let (a, b) = (arm(&mut random, 0.2), arm(&mut random, 0.25));
        let lift = relative_lift(&a, &b, LEVEL).unwrap();
        let intervals = [
            lift.delta.interval,
            lift.fieller.unwrap(),
            lift.log_ratio.unwrap().interval,
        ];
        for (count, interval) in covered.iter_mut().zip(intervals) {
            *count += u32::from((interval.lower..interval.upper).contains(&0.25));
        }
    }
    for (name, count) in ["delta", "Fieller", "log ratio"].into_iter().zip(covered) {
        assert_near(name, f64::from(count) / f64::from(EXPERIMENTS), 0.95);
    }
}
