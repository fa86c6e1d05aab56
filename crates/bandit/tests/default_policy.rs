//! What the default policy promises against the usual ones: Thompson sampling from Beta(1, 1), UCB1, and ε-greedy with a tenth.
//!
//! The promise is about 100,000 plays, which `PODIUM_GOLDEN_EFFORT=34` simulates (in a release build within minutes); as the
//! tests usually run, it is held at 3,000 plays.

mod golden;

use golden::{Simulation, first_checkpoints, load_all, numbers, replications};
use podium_bandit::simulate::{Feedback, Instance};
use serde_json::Value;

const RIVALS: [&str; 3] = ["thompson", "ucb1", "eps_greedy_0.10"];

/// Regret of the best rival at a checkpoint.
fn best_rival(file: &Value, at: usize) -> f64 {
    RIVALS
        .iter()
        .map(|name| numbers(&file["algorithms"][name]["mean_regret"])[at])
        .fold(f64::INFINITY, f64::min)
}

#[test]
fn the_default_policy_is_ahead_of_the_usual_ones_and_never_far_behind() {
    let (mut ahead, mut instances) = (0, 0);
    for (name, file) in load_all("bandit", "regret_") {
        let instance = Instance::fixed(numbers(&file["means"])).unwrap();
        let checkpoints = first_checkpoints(&file["checkpoints"], 3_000.0);
        let simulation = Simulation {
            instance: &instance,
            algorithm: "default",
            prior: None,
            feedback: Feedback::Immediate,
            checkpoints: &checkpoints,
            replications: replications(12).min(60),
        };
        let regrets = simulation.regrets();
        let last = checkpoints.len() - 1;
        let ((got, se), rival) = (regrets[last], best_rival(&file, last));
        println!("{name}: {got:.1} ± {se:.1}, best rival {rival:.1}");
        instances += 1;
        ahead += u32::from(got < rival);
        assert!(
            got - 3.0 * se <= 1.15 * rival,
            "{name}: {got} ± {se} against {rival}"
        );
        if checkpoints[last] >= 100_000 {
            // ln(100,000 / 30,000) by the Lai–Robbins constant.
            let slope = (got - regrets[last - 1].0) / (100_000_f64 / 30_000.0).ln();
            let constant = file["lai_robbins_constant"].as_f64().unwrap();
            assert!(
                slope <= constant + 3.0 * se,
                "{name}: slope {slope}, constant {constant}"
            );
        }
    }
    assert!(
        instances == 0 || (instances == 10 && ahead >= 8),
        "ahead on {ahead} of {instances}"
    );
}
