//! Posteriors of plays that lose their weight, or of the last plays only.

mod golden;

use golden::{Mismatches, cases, integers, load, numbers};
use podium_bandit::history::{Forgetting, History};
use podium_bandit::{BetaPosterior, Counts, Prior};

const ABSOLUTE: f64 = 1e-12;

#[test]
fn golden_discounted_posterior() {
    let Some(file) = load("bandit", "discounted_posterior.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for (number, case) in cases(&file, "cases").iter().enumerate() {
        let prior = numbers(&case["prior"]);
        let prior = Prior::new(prior[0], prior[1]).unwrap();
        let gamma = case["gamma"].as_f64().unwrap();
        let forgetting = match case["window"].as_u64().unwrap() {
            0 if gamma < 1.0 => Forgetting::discount(gamma).unwrap(),
            0 => Forgetting::Never,
            window => Forgetting::WindowPlays(window),
        };
        let (actions, rewards) = (integers(&case["actions"]), integers(&case["rewards"]));
        for snapshot in cases(case, "snapshots") {
            let after = usize::try_from(snapshot["after"].as_u64().unwrap()).unwrap();
            let arms = snapshot["alpha"].as_array().unwrap().len();
            let mut history = History::new(arms);
            // One play an hour: then hours discount like plays.
            for (hour, (arm, reward)) in (0..).zip(actions.iter().zip(&rewards)).take(after) {
                let counts = Counts::new(1, *reward).unwrap();
                history
                    .add(hour, usize::try_from(*arm).unwrap(), counts)
                    .unwrap();
            }
            let read = history
                .read(forgetting, i64::try_from(after).unwrap())
                .unwrap();
            let posteriors: Vec<_> = read.iter().map(|e| prior.posterior(*e)).collect();
            let path = format!("{number} after {after}");
            let alpha: Vec<_> = posteriors.iter().map(BetaPosterior::alpha).collect();
            let beta: Vec<_> = posteriors.iter().map(BetaPosterior::beta).collect();
            found.numbers(
                &format!("{path} alpha"),
                &alpha,
                &snapshot["alpha"],
                ABSOLUTE,
                1e-12,
            );
            found.numbers(
                &format!("{path} beta"),
                &beta,
                &snapshot["beta"],
                ABSOLUTE,
                1e-12,
            );
        }
    }
    found.finish();
}
