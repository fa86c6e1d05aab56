//! Mean regret of every algorithm on every instance.

mod golden;

use golden::{Mismatches, Simulation, first_checkpoints, load_all, numbers, replications};
use podium_bandit::simulate::{Feedback, Instance};

#[test]
fn golden_regret() {
    let mut found = Mismatches::default();
    for (name, file) in load_all("bandit", "regret_") {
        let instance = Instance::fixed(numbers(&file["means"])).unwrap();
        let checkpoints = first_checkpoints(&file["checkpoints"], 300.0);
        for (algorithm, expected) in file["algorithms"].as_object().unwrap() {
            let parameter = |name: &str| expected["parameters"][name].as_f64();
            let simulation = Simulation {
                instance: &instance,
                algorithm,
                prior: parameter("prior_alpha").zip(parameter("prior_beta")),
                feedback: Feedback::Immediate,
                checkpoints: &checkpoints,
                replications: replications(100),
            };
            let (mean, se) = (
                numbers(&expected["mean_regret"]),
                numbers(&expected["se_regret"]),
            );
            for (at, got) in simulation.regrets().into_iter().enumerate() {
                let path = format!("{name} {algorithm} after {}", checkpoints[at]);
                found.mean(&path, got, (mean[at], se[at]));
            }
        }
    }
    found.finish();
}
