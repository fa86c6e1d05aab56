//! Selection probabilities and schedules of ε-greedy.

mod golden;

use golden::{Mismatches, cases, load, numbers};
use podium_bandit::policy::Epsilon;
use podium_bandit::{Arms, Evidence, Policy, Prior};

const ABSOLUTE: f64 = 1e-12;

#[test]
fn golden_epsilon_greedy() {
    let Some(file) = load("bandit", "epsilon_greedy.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for (number, case) in cases(&file, "selection").iter().enumerate() {
        let (means, plays) = (numbers(&case["means"]), numbers(&case["plays"]));
        let pairs = means.iter().zip(&plays);
        let evidence: Vec<_> = pairs
            .map(|(m, n)| Evidence::new(*n, m * n).unwrap())
            .collect();
        let arms = Arms::from_evidence(Prior::FLAT, &evidence);
        let epsilon = Epsilon::Fixed(case["epsilon"].as_f64().unwrap());
        let got = Policy::EpsilonGreedy(epsilon).probabilities(&arms).unwrap();
        let path = format!("selection {number}");
        found.numbers(&path, &got, &case["probability"], ABSOLUTE, 0.0);
    }
    for (number, case) in cases(&file, "schedules").iter().enumerate() {
        let (arms, t) = (case["K"].as_f64().unwrap(), case["t"].as_f64().unwrap());
        for (name, schedule) in [
            ("recip_c5", Epsilon::Reciprocal { c: 5.0 }),
            ("cbrt", Epsilon::CubeRoot),
        ] {
            let path = format!("schedule {number} {name}");
            found.number(&path, schedule.at(arms, t), &case[name], ABSOLUTE, 0.0);
        }
    }
    found.finish();
}
