//! Thompson sampling with different priors.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

mod golden;

use golden::{Mismatches, Simulation, cases, first_checkpoints, load, numbers, replications};
use podium_bandit::simulate::{Feedback, Instance};

#[test]
fn golden_prior_study() {
    let Some(file) = load("bandit", "prior_study.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for row in cases(&file, "rows") {
        let name = row["instance"].as_str().unwrap();
        let Some(means) = means_of(row, name) else {
            continue;
        };
        let instance = Instance::fixed(means).unwrap();
        let checkpoints = first_checkpoints(&row["checkpoints"], 1_000.0);
        let parameter = |name: &str| row[name].as_f64().unwrap();
        let simulation = Simulation {
            instance: &instance,
            algorithm: "thompson",
            prior: Some((parameter("alpha"), parameter("beta"))),
            feedback: Feedback::Immediate,
            checkpoints: &checkpoints,
            replications: replications(40),
        };
        let (mean, se) = (numbers(&row["mean_regret"]), numbers(&row["se_regret"]));
        for (at, got) in simulation.regrets().into_iter().enumerate() {
            let path = format!("{name} {} after {}", row["prior"], checkpoints[at]);
            found.mean(&path, got, (mean[at], se[at]));
        }
    }
    found.finish();
}

/// The rates: the row's own, or those of the regret file of the same instance.
fn means_of(row: &serde_json::Value, name: &str) -> Option<Vec<f64>> {
    if row["means"].is_array() {
        return Some(numbers(&row["means"]));
    }
    let file = load("bandit", &format!("regret_{name}.json"))?;
    Some(numbers(&file["means"]))
}
