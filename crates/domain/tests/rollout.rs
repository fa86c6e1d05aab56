//! Rollouts against frozen vectors, and their promises over many units.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may end them"
)]

use podium_domain::bucketing::{Allocation, Bucketing, HashVersion, VariantTable};
use podium_domain::ids::VariantId;
use podium_domain::rollout::{Rollout, ShareBefore, Told};
use proptest::prelude::*;
use serde_json::Value;

/// An experiment that was promoted: its split, and which variant won.
struct Promoted {
    bucketing: Bucketing,
    winner: usize,
    before: ShareBefore,
}

impl Promoted {
    fn new(salt: &str, allocation: Allocation, weights: &[u64], winner: usize) -> Self {
        let ids = (1..).map(|id| VariantId::new(id).unwrap());
        let variants: Vec<_> = ids.zip(weights.iter().copied()).collect();
        Self {
            bucketing: Bucketing {
                salt: salt.to_owned(),
                version: HashVersion::V2,
                allocation,
                split: VariantTable::new(&variants).unwrap(),
            },
            winner,
            before: ShareBefore {
                allocation,
                weight: weights[winner],
                total: weights.iter().sum(),
            },
        }
    }

    fn told(&self, rollout: &Rollout, unit: &str) -> (Option<usize>, Told) {
        let own = self.bucketing.place(unit);
        let told = rollout.told(&self.bucketing.salt, unit, own == Some(self.winner));
        (own, told)
    }

    fn at(&self, step: u32, holdback: u32) -> Rollout {
        Rollout::new(share(step), share(holdback), self.before)
    }
}

fn share(units: u32) -> Allocation {
    Allocation::from_units(units).unwrap()
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

#[test]
fn units_match_the_vectors() {
    let vectors: Value = serde_json::from_str(include_str!("data/rollout.json")).unwrap();
    let salt = vectors["salt"].as_str().unwrap();
    for set in vectors["sets"].as_array().unwrap() {
        let weights: Vec<u64> = set["weights"]
            .as_array()
            .unwrap()
            .iter()
            .map(|weight| weight.as_u64().unwrap())
            .collect();
        let winner = usize::try_from(set["winner"].as_u64().unwrap()).unwrap();
        let promoted = Promoted::new(salt, share(number(&set["allocation"])), &weights, winner);
        let rollout = promoted.at(number(&set["step"]), number(&set["holdback"]));
        for (unit, wanted) in set["units"].as_object().unwrap() {
            let (own, told) = promoted.told(&rollout, unit);
            let own_wanted = wanted[0].as_u64().map(|own| usize::try_from(own).unwrap());
            let name = match told {
                Told::Own => "own",
                Told::Winner => "winner",
                Told::HeldBack => "held_back",
            };
            assert_eq!(own, own_wanted, "{unit} in {set}");
            assert_eq!(name, wanted[1].as_str().unwrap(), "{unit} in {set}");
        }
    }
}

#[test]
fn the_published_draws_fall_on_the_right_side() {
    // u0 draws 0.2529 for the rollout and 0.3922 for the holdback.
    let promoted = Promoted::new("Module Order Optimization", Allocation::FULL, &[1, 1], 1);
    let told = |step, holdback| {
        promoted
            .at(step, holdback)
            .told("Module Order Optimization", "u0", false)
    };
    assert_eq!(told(626_400, 0), Told::Own);
    assert_eq!(told(626_500, 0), Told::Winner);
    assert_eq!(told(626_500, 392_200), Told::Winner);
    assert_eq!(told(1_000_000, 392_300), Told::HeldBack);
}

#[test]
fn steps_that_are_not_above_the_share_before_are_skipped() {
    let half = Promoted::new("salt", Allocation::FULL, &[1, 1], 1).before;
    let steps = [300_000, 500_000, 750_000, 1_000_000].map(share);
    assert_eq!(half.step(&steps, 0), Some(2));
    assert_eq!(half.step(&steps, 3), Some(3));
    assert_eq!(half.step(&steps, 9), Some(3));
    assert_eq!(half.step(&steps[..1], 0), Some(0));
    assert_eq!(half.step(&[], 0), None);
    // A tenth of the traffic took part, so the winner had a twentieth.
    let tenth = ShareBefore {
        allocation: share(100_000),
        ..half
    };
    assert!(tenth.is_below(share(50_001)) && !tenth.is_below(share(50_000)));
}

#[test]
fn shares_come_out() {
    const UNITS: u32 = 40_000;
    for (allocation, weights, winner, step, holdback) in [
        (1_000_000, vec![1, 1], 1, 750_000, 100_000),
        (1_000_000, vec![5, 3, 2], 2, 400_000, 0),
        (300_000, vec![1, 1], 0, 600_000, 50_000),
        (1_000_000, vec![1, 1], 1, 1_000_000, 50_000),
    ] {
        let promoted = Promoted::new("shares", share(allocation), &weights, winner);
        let rollout = promoted.at(step, holdback);
        let (mut shown, mut held) = (0_u32, 0_u32);
        for unit in 0..UNITS {
            match promoted.told(&rollout, &format!("unit {unit}")) {
                (own, Told::Own) => shown += u32::from(own == Some(winner)),
                (_, Told::Winner) => shown += 1,
                (_, Told::HeldBack) => held += 1,
            }
        }
        let total: u64 = weights.iter().sum();
        let fraction = |units: u32| f64::from(units) / 1e6;
        #[expect(clippy::cast_precision_loss, reason = "small weights")]
        let before = fraction(allocation) * weights[winner] as f64 / total as f64;
        let (s, h) = (fraction(step), fraction(holdback));
        let near = |count: u32, wanted: f64| {
            (f64::from(count) / f64::from(UNITS) - wanted).abs()
                < 4.0 * (0.25 / f64::from(UNITS)).sqrt()
        };
        assert!(
            near(shown, before + (1.0 - h) * (s - before)),
            "{shown} for {step}"
        );
        assert!(near(held, (1.0 - before) * h), "{held} for {holdback}");
        let r = (s - before) / (1.0 - before);
        let compared = (h > 0.0).then(|| h / (h + (1.0 - h) * r));
        match (rollout.held_back_share(), compared) {
            (Some(got), Some(wanted)) => assert!((got - wanted).abs() < 1e-12),
            (got, wanted) => assert_eq!(got, wanted),
        }
    }
}

proptest! {
    #[test]
    fn nobody_leaves_the_winner_and_a_rollback_restores_everybody(
        salt in "[a-z]{1,12}", unit in ".{1,24}", weights in prop::collection::vec(1_u64..100_000_000, 2..6),
        winner in 0_usize..6, allocation in 0_u32..=1_000_000, holdback in 0_u32..=500_000,
        mut steps in prop::collection::vec(1_u32..=1_000_000, 1..5),
    ) {
        let winner = winner % weights.len();
        let promoted = Promoted::new(&salt, share(allocation), &weights, winner);
        steps.sort_unstable();
        let own = promoted.bucketing.place(&unit);
        let mut moved = false;
        for step in steps {
            let (same, told) = promoted.told(&promoted.at(step, holdback), &unit);
            // The unit's own variant does not depend on the promotion: that is what a rollback gives back.
            prop_assert_eq!(same, own);
            prop_assert!(own != Some(winner) || told == Told::Own);
            prop_assert!(!moved || told == Told::Winner);
            moved = told == Told::Winner;
        }
        let end = promoted.told(&promoted.at(1_000_000, 0), &unit).1;
        prop_assert!(own == Some(winner) || end == Told::Winner);
    }
}
