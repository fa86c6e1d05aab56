//! What holds for all input: order leaves no trace, weights are the probabilities they say, and
//! nothing panics.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

use podium_bandit::best::best_arm;
use podium_bandit::history::{Forgetting, History};
use podium_bandit::index::Index;
use podium_bandit::ledger::{Happening, Impression, RewardWeights};
use podium_bandit::policy::Epsilon;
use podium_bandit::student::ValueSums;
use podium_bandit::{Arms, BetaPosterior, Counts, Evidence, Policy, Prior, Snapshot, Weighting};
use proptest::prelude::*;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};

const ARMS: usize = 4;

const POLICIES: [Policy; 12] = [
    Policy::Lean,
    Policy::Thompson,
    Policy::ThompsonWithFloor { floor: 0.05 },
    Policy::TopTwoThompson { beta: 0.5 },
    Policy::Index(Index::Imed),
    Policy::Index(Index::KlUcb { c: 0.0 }),
    Policy::Index(Index::Ucb1 { c: 1.0 }),
    Policy::Index(Index::Ucb1Tuned),
    Policy::EpsilonGreedy(Epsilon::Fixed(0.1)),
    Policy::EpsilonGreedy(Epsilon::CubeRoot),
    Policy::Uniform,
    Policy::Campaign { plays: 20 },
];

/// An event of an impression: arm, hour, number of the impression, what happened.
type Event = (usize, i64, usize, Happening);

fn events(rng: &mut impl Rng) -> Vec<Event> {
    let mut events = Vec::new();
    for impression in 0..60 {
        let (arm, hour) = (rng.random_range(0..ARMS), rng.random_range(0..30));
        let mut happenings = vec![Happening::Seen];
        if rng.random::<f64>() < 0.8 {
            happenings.push(Happening::WindowPassed);
        }
        while rng.random::<f64>() < 0.4 {
            let kind = rng.random_range(0..3);
            happenings.push(Happening::Rewarded { kind });
        }
        for happening in happenings {
            for _ in 0..rng.random_range(1..4) {
                events.push((arm, hour, impression, happening));
            }
        }
    }
    events
}

/// Folds events in their order: the history of counts, and the sums of values by arm.
fn fold(events: &[Event], weights: &RewardWeights) -> (History, Vec<ValueSums>) {
    let mut impressions = std::collections::HashMap::new();
    for (arm, hour, number, happening) in events {
        let state: &mut Impression = impressions.entry((*number, *arm, *hour)).or_default();
        *state = state.after(*happening).unwrap();
    }
    // The map's own order differs from run to run, which is part of the test.
    let mut history = History::new(ARMS);
    let mut sums = vec![ValueSums::default(); ARMS];
    for ((_, arm, hour), state) in impressions {
        history.add(hour, arm, state.counts()).unwrap();
        if let Some(value) = state.value(weights) {
            sums[arm] = sums[arm].record(value).unwrap();
        }
    }
    (history, sums)
}

#[test]
fn ten_thousand_orders_of_the_same_events_give_the_same_bits() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(11);
    let weights = RewardWeights::new(&[1.0, 2.0, 0.5]).unwrap();
    let bits = |history: &History, forgetting| -> Vec<[u64; 2]> {
        let read = history.read(forgetting, 30).unwrap();
        read.iter()
            .map(|e| [e.plays().to_bits(), e.successes().to_bits()])
            .collect()
    };
    for _ in 0..100 {
        let mut events = events(&mut rng);
        let (history, sums) = fold(&events, &weights);
        let faded = bits(&history, Forgetting::HalfLifeHours(7.0));
        for _ in 0..100 {
            events.shuffle(&mut rng);
            let (again, other) = fold(&events, &weights);
            assert_eq!(again, history);
            assert_eq!(other, sums);
            assert_eq!(bits(&again, Forgetting::HalfLifeHours(7.0)), faded);
        }
    }
}

#[test]
fn weights_are_the_probabilities_of_the_choices() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
    let evidence = [
        (40.0, 6.0),
        (60.0, 8.0),
        (25.0, 5.0),
        (40.0, 6.0),
        (3.0, 0.0),
        (0.0, 0.0),
    ];
    let many: Vec<_> = evidence.repeat(6).into_iter().take(34).collect();
    for cells in [&evidence[..5], &evidence[..], &many[..]] {
        let cells: Vec<_> = cells
            .iter()
            .map(|(n, s)| Evidence::new(*n, *s).unwrap())
            .collect();
        let arms = Arms::from_evidence(Prior::site(Some(0.15)), &cells);
        for policy in POLICIES {
            let p = policy.probabilities(&arms).unwrap();
            let draws = 4_000_u32;
            let mut seen = vec![0_u32; arms.len()];
            for _ in 0..draws {
                seen[policy.choose(&arms, &mut rng).unwrap()] += 1;
            }
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{policy:?}");
            for (arm, (p, seen)) in p.iter().zip(seen).enumerate() {
                let n = f64::from(draws);
                let allowed = 4.5 * (p * (1.0 - p) / n).sqrt() + 3.0 / n;
                let share = f64::from(seen) / n;
                assert!(
                    (share - p).abs() <= allowed,
                    "{policy:?} arm {arm}: {p} {share}"
                );
            }
        }
    }
}

#[test]
fn the_first_position_has_its_weight_as_propensity() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(9);
    let counts: Vec<_> = [(500, 20), (480, 33), (510, 30), (20, 1)]
        .iter()
        .map(|(n, s)| Counts::new(*n, *s).unwrap())
        .collect();
    let arms = Arms::from_counts(Prior::FLAT, &counts);
    let snapshot = Snapshot::of_rates(1, Weighting::default(), arms).unwrap();
    let candidates = [3, 0, 2];
    let total: f64 = candidates.iter().map(|arm| snapshot.weights()[*arm]).sum();
    let mut firsts = [0_u32; 4];
    let n = 20_000_u32;
    for _ in 0..n {
        let ranking = snapshot.rank(&candidates, &mut rng).unwrap();
        let propensities = ranking.propensities.unwrap();
        let first = ranking.order[0];
        firsts[first] += 1;
        assert!((propensities[0] - snapshot.weights()[first] / total).abs() < 1e-15);
        assert!((propensities[2] - 1.0).abs() < 1e-15);
    }
    for arm in candidates {
        let p = snapshot.weights()[arm] / total;
        let share = f64::from(firsts[arm]) / f64::from(n);
        assert!((share - p).abs() < 4.5 * (p * (1.0 - p) / f64::from(n)).sqrt());
    }
    assert!(snapshot.rank(&[0, 0], &mut rng).is_err());
    assert!(snapshot.rank(&[4], &mut rng).is_err());
    assert!(snapshot.rank(&[], &mut rng).is_err());
    assert!(snapshot.weights().iter().all(|weight| *weight > 0.0));
    let drawn = snapshot.rank_by_draws(&candidates, &mut rng).unwrap();
    assert_eq!(drawn.propensities, None);
}

#[test]
fn the_floor_holds_and_zero_is_allowed() {
    let counts = [
        Counts::new(10_000, 9_000).unwrap(),
        Counts::new(10_000, 10).unwrap(),
    ];
    let arms = || Arms::from_counts(Prior::FLAT, &counts);
    let build = |floor| {
        let weighting = Weighting {
            policy: Policy::Thompson,
            floor,
        };
        Snapshot::of_rates(1, weighting, arms())
    };
    assert!((build(0.05).unwrap().weights()[1] - 0.025).abs() < 1e-15);
    assert!(build(0.0).unwrap().weights().contains(&0.0));
    assert!(build(1.5).is_err());
    assert!(build(f64::NAN).is_err());
}

#[test]
fn values_are_ranked_by_their_means() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
    let sums = [1_000, 50_000]
        .map(|value| (0..200).fold(ValueSums::default(), |sums, _| sums.record(value).unwrap()));
    for policy in POLICIES {
        let weighting = Weighting {
            policy,
            floor: 0.05,
        };
        let snapshot = Snapshot::of_values(1, weighting, &sums, 10.0, Some(1.0)).unwrap();
        assert!(snapshot.best().probability[1] > 0.999);
        assert!(snapshot.choose(&mut rng).unwrap() < 2);
    }
    let weighting = Weighting::default();
    assert!(Snapshot::of_values(1, weighting, &sums, 0.0, None).is_err());
    assert!(Snapshot::of_values(1, weighting, &[], 1.0, None).is_err());
}

#[test]
fn one_arm_no_arm_and_enormous_counts() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let one = Counts::new(u64::MAX, u64::MAX).unwrap();
    let two = Counts::new(u64::MAX, 0).unwrap();
    for policy in POLICIES {
        assert!(policy.choose(&Arms::new(Prior::FLAT, 0), &mut rng).is_err());
        assert!(policy.probabilities(&Arms::new(Prior::FLAT, 0)).is_err());
        let single = Arms::from_counts(Prior::FLAT, &[one]);
        assert_eq!(policy.choose(&single, &mut rng), Ok(0));
        let arms = Arms::from_counts(Prior::FLAT, &[one, two, Counts::default()]);
        assert!(policy.choose(&arms, &mut rng).unwrap() < 3);
        let p = policy.probabilities(&arms).unwrap();
        assert!(
            p.iter().all(|p| (0.0..=1.0).contains(p)),
            "{policy:?} {p:?}"
        );
    }
    let full = one.merge(Counts::new(1, 0).unwrap());
    assert!(full.is_err());
}

proptest! {
    #[test]
    fn probabilities_of_any_posteriors_add_up(
        parameters in prop::collection::vec((-3.0_f64..12.0, -3.0_f64..12.0), 1..12)
    ) {
        let posteriors: Vec<_> = parameters
            .iter()
            .map(|(a, b)| BetaPosterior::new(10_f64.powf(*a), 10_f64.powf(*b)).unwrap())
            .collect();
        let best = best_arm(&posteriors).unwrap();
        prop_assert!(best.probability.iter().all(|p| (0.0..=1.0).contains(p)));
        let largest = posteriors.iter().map(BetaPosterior::mean).fold(0.0, f64::max);
        prop_assert!(best.expected_max >= largest - 1e-9);
        prop_assert!(best.expected_max <= 1.0 + 1e-9);
    }

    #[test]
    fn pairs_agree_with_the_exact_sum_over_integers(
        a in 1_u32..60, b in 1_u32..60, c in 1_u32..60, d in 1_u32..60
    ) {
        // P(X > Y) for X ~ Beta(a, b), Y ~ Beta(c, d) with integer a (Cook, 2005).
        let ln_factorial = |n: u32| (1..=n).map(|k| f64::from(k).ln()).sum::<f64>();
        let ln_beta = |x: u32, y: u32| {
            ln_factorial(x - 1) + ln_factorial(y - 1) - ln_factorial(x + y - 1)
        };
        let term = |i: u32| {
            (ln_beta(c + i, b + d) - f64::from(b + i).ln() - ln_beta(1 + i, b) - ln_beta(c, d)).exp()
        };
        let exact: f64 = (0..a).map(term).sum();
        let beta = |x: u32, y: u32| BetaPosterior::new(f64::from(x), f64::from(y)).unwrap();
        let best = best_arm(&[beta(a, b), beta(c, d)]).unwrap();
        prop_assert!((best.probability[0] - exact).abs() < 1e-10);
    }

    #[test]
    fn parts_merge_to_the_whole(
        plays in prop::collection::vec((0_usize..ARMS, 0_i64..5, any::<bool>()), 0..80),
        cut in 0_usize..80
    ) {
        let add = |history: &mut History, part: &[(usize, i64, bool)]| {
            for (arm, hour, won) in part {
                let counts = Counts::new(1, u64::from(*won)).unwrap();
                history.add(*hour, *arm, counts).unwrap();
            }
        };
        let (mut whole, mut left, mut right) =
            (History::new(ARMS), History::new(ARMS), History::new(ARMS));
        let cut = cut.min(plays.len());
        add(&mut whole, &plays);
        add(&mut left, &plays[..cut]);
        add(&mut right, &plays[cut..]);
        right.merge(&left).unwrap();
        prop_assert_eq!(right, whole);
    }

    #[test]
    fn evidence_of_any_floats_is_checked(plays in any::<f64>(), successes in any::<f64>()) {
        if let Ok(evidence) = Evidence::new(plays, successes) {
            let arms = Arms::from_evidence(Prior::FLAT, &[evidence, Evidence::default()]);
            for policy in POLICIES {
                prop_assert!(policy.choose(&arms, &mut Xoshiro256PlusPlus::seed_from_u64(1)).is_ok());
            }
        }
    }
}
