//! Two arms with uniform rates: every algorithm's Bayes regret, and how near the policy for short
//! campaigns comes to the exact optimum.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

mod golden;

use std::collections::HashMap;

use golden::{Mismatches, cases, effort, load, mean_se, replications};
use podium_bandit::horizon::CampaignIndex;
use podium_bandit::plan::Plan;
use podium_bandit::simulate::{Feedback, Instance, Setting, run};
use podium_bandit::{BetaPosterior, Prior};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

#[test]
fn golden_bayes_optimal_k2() {
    let Some(file) = load("bandit", "bayes_optimal_k2.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for case in cases(&file, "cases") {
        let plays = case["T"].as_u64().unwrap();
        for (algorithm, expected) in case["algorithms"].as_object().unwrap() {
            let number = |name: &str| expected[name].as_f64().unwrap();
            let path = format!("{algorithm} in {plays}");
            let got = bayes_regret(algorithm, plays, replications(1_000));
            found.mean(&path, got, (number("bayes_regret"), number("se")));
        }
        // The exact value takes the fourth power of the plays.
        if plays <= 30 || effort() > 2.0 {
            let optimal = case["optimal_expected_successes"].as_f64().unwrap();
            let oracle = case["oracle_expected_successes"].as_f64().unwrap();
            let value = Exact::new(plays).value();
            println!("campaign in {plays}: Bayes regret {:.4}", oracle - value);
            found.note(value <= optimal + 1e-9, || {
                format!("{value} beats {optimal}")
            });
            let excess = (oracle - value) / (oracle - optimal);
            found.note(excess < 1.03, || {
                format!("{plays}: {excess} times the optimum")
            });
        }
    }
    found.finish();
}

fn bayes_regret(algorithm: &str, plays: u64, replications: u64) -> (f64, f64) {
    let plan = Plan::named(algorithm).unwrap();
    let setting = Setting {
        policy: plan.policy,
        prior: Prior::FLAT,
        forgetting: plan.forgetting,
        feedback: Feedback::Immediate,
        checkpoints: &[plays],
    };
    let one = |seed| {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let rates = vec![rng.random(), rng.random()];
        let instance = Instance::fixed(rates).unwrap();
        run(&instance, &setting, &mut rng).unwrap()[0].regret
    };
    let regrets: Vec<f64> = (0..replications).map(one).collect();
    mean_se(&regrets)
}

/// Successes and failures of an arm.
type Seen = (u32, u32);

/// The policy's expected successes by backward induction over all states.
struct Exact {
    plays: u32,
    indices: HashMap<(Seen, u32), f64>,
    values: HashMap<(Seen, Seen), f64>,
}

impl Exact {
    fn new(plays: u64) -> Self {
        Self {
            plays: u32::try_from(plays).unwrap(),
            indices: HashMap::new(),
            values: HashMap::new(),
        }
    }

    fn value(&mut self) -> f64 {
        self.from((0, 0), (0, 0))
    }

    fn from(&mut self, first: Seen, second: Seen) -> f64 {
        let left = self.plays - first.0 - first.1 - second.0 - second.1;
        // Both arms are alike: half of the states are enough.
        let state = (first.max(second), first.min(second));
        if left == 0 {
            return 0.0;
        }
        if let Some(value) = self.values.get(&state) {
            return *value;
        }
        let (a, b) = state;
        let (chosen, other) = if self.index(a, left) >= self.index(b, left) - 1e-12 {
            (a, b)
        } else {
            (b, a)
        };
        let rate = f64::from(chosen.0 + 1) / f64::from(chosen.0 + chosen.1 + 2);
        let won = 1.0 + self.from((chosen.0 + 1, chosen.1), other);
        let lost = self.from((chosen.0, chosen.1 + 1), other);
        let value = rate * won + (1.0 - rate) * lost;
        self.values.insert(state, value);
        value
    }

    fn index(&mut self, seen: Seen, left: u32) -> f64 {
        *self.indices.entry((seen, left)).or_insert_with(|| {
            let posterior =
                BetaPosterior::new(f64::from(seen.0) + 1.0, f64::from(seen.1) + 1.0).unwrap();
            CampaignIndex::new(left).of(&posterior)
        })
    }
}
