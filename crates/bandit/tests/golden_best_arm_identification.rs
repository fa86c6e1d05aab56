//! How often the arm with the largest posterior mean is the best one.

mod golden;

use golden::{Mismatches, Simulation, cases, first_checkpoints, load, numbers, replications};
use podium_bandit::simulate::{Feedback, Instance};

#[test]
fn golden_best_arm_identification() {
    let Some(file) = load("bandit", "best_arm_identification.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for row in cases(&file, "rows") {
        let means = numbers(&row["means"]);
        let top = means.iter().copied().fold(0.0, f64::max);
        let instance = Instance::fixed(means.clone()).unwrap();
        let checkpoints = first_checkpoints(&row["checkpoints"], 1_000.0);
        let sampler = row["sampler"].as_str().unwrap();
        let simulation = Simulation {
            instance: &instance,
            algorithm: sampler,
            prior: Some((1.0, 1.0)),
            feedback: Feedback::Immediate,
            checkpoints: &checkpoints,
            replications: replications(150),
        };
        let runs = simulation.run();
        let correct = numbers(&row["prob_correct"]);
        let se = numbers(&row["se"]);
        for (at, plays) in checkpoints.iter().enumerate() {
            let right = |run: &&Vec<_>| is_best(&means, top, run[at]);
            let hits = u32::try_from(runs.iter().filter(right).count()).unwrap();
            let n = f64::from(u32::try_from(runs.len()).unwrap());
            let p = f64::from(hits) / n;
            // The spread of the reference serves both; it may be 0 where p is 1.
            let spread = (correct[at] * (1.0 - correct[at])).max(1.0 / n);
            let path = format!("{} {sampler} after {plays}", row["instance"]);
            found.mean(&path, (p, (spread / n).sqrt()), (correct[at], se[at]));
        }
    }
    found.finish();
}

fn is_best(means: &[f64], top: f64, progress: podium_bandit::simulate::Progress) -> bool {
    means[progress.recommended] >= top
}
