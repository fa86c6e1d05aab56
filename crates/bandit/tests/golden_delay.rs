//! Mean regret when outcomes become known late or in batches.

mod golden;

use golden::{Mismatches, Simulation, cases, first_checkpoints, load_all, numbers, replications};
use podium_bandit::simulate::{Feedback, Instance};

#[test]
fn golden_delay() {
    let mut found = Mismatches::default();
    for (name, file) in load_all("bandit", "delay_") {
        let instance = Instance::fixed(numbers(&file["means"])).unwrap();
        let checkpoints = first_checkpoints(&file["checkpoints"], 1_000.0);
        for row in cases(&file, "rows") {
            let lag = row["lag"].as_u64().unwrap();
            let feedback = match row["feedback"].as_str().unwrap() {
                "immediate" => Feedback::Immediate,
                "batch" => Feedback::Batch(lag),
                "delay" => Feedback::Delay(lag),
                other => unreachable!("feedback {other}"),
            };
            let algorithm = row["algorithm"].as_str().unwrap();
            let simulation = Simulation {
                instance: &instance,
                algorithm,
                prior: None,
                feedback,
                checkpoints: &checkpoints,
                replications: replications(40),
            };
            let (mean, se) = (numbers(&row["mean_regret"]), numbers(&row["se_regret"]));
            for (at, got) in simulation.regrets().into_iter().enumerate() {
                let path = format!("{name} {algorithm} {feedback:?} after {}", checkpoints[at]);
                found.mean(&path, got, (mean[at], se[at]));
            }
        }
    }
    found.finish();
}
