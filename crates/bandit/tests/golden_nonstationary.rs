//! Dynamic regret when rates change.

mod golden;

use golden::{Mismatches, Simulation, cases, integers, load, numbers, replications};
use podium_bandit::simulate::{Feedback, Instance};

#[test]
fn golden_nonstationary() {
    let Some(file) = load("bandit", "nonstationary.json") else {
        return;
    };
    let starts = integers(&file["segment_starts"]);
    let rates = cases(&file, "segment_means").iter().map(numbers);
    let instance = Instance::changing(starts.into_iter().zip(rates).collect()).unwrap();
    let horizon = file["horizon"].as_u64().unwrap();
    let mut found = Mismatches::default();
    for row in cases(&file, "rows") {
        let algorithm = row["algorithm"].as_str().unwrap();
        let replications = replications(3);
        let simulation = Simulation {
            instance: &instance,
            algorithm,
            prior: Some((1.0, 1.0)),
            feedback: Feedback::Immediate,
            checkpoints: &[horizon],
            replications,
        };
        let number = |name: &str| row[name].as_f64().unwrap();
        // Three runs tell too little about their spread: the reference's serves both.
        let spread = number("se") * number("replications").sqrt();
        let runs = f64::from(u32::try_from(replications).unwrap());
        let (mean, _) = simulation.regrets()[0];
        let want = (number("mean_dynamic_regret"), number("se"));
        found.mean(algorithm, (mean, spread / runs.sqrt()), want);
    }
    found.finish();
}
