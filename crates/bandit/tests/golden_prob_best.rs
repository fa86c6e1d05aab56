//! Probability of being best, expected loss, floors.

mod golden;

use golden::{Mismatches, cases, load};
use podium_bandit::BetaPosterior;
use podium_bandit::best::{best_arm, clipped_below, mixed_with_uniform, top_two_probabilities};

const ABSOLUTE: f64 = 1e-8;

#[test]
fn golden_prob_best() {
    let Some(file) = load("bandit", "prob_best.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for (number, case) in cases(&file, "cases").iter().enumerate() {
        let posteriors: Vec<_> = cases(case, "arms")
            .iter()
            .map(|arm| {
                let parameter = |name: &str| arm[name].as_f64().unwrap();
                BetaPosterior::new(parameter("alpha"), parameter("beta")).unwrap()
            })
            .collect();
        let best = best_arm(&posteriors).unwrap();
        let p = &best.probability;
        // Against the first arm alone; it does not play against itself.
        let against = |(arm, posterior): (usize, &BetaPosterior)| match arm {
            0 => f64::NAN,
            _ => best_arm(&[posteriors[0], *posterior]).unwrap().probability[1],
        };
        let beats: Vec<_> = posteriors.iter().enumerate().map(against).collect();
        for (name, got) in [
            ("prob_best", p),
            ("expected_loss", &best.expected_loss),
            ("prob_beats_arm0", &beats),
            (
                "top_two_probability_beta_0.5",
                &top_two_probabilities(p, 0.5).unwrap(),
            ),
            (
                "thompson_mix_floor_0.05",
                &mixed_with_uniform(p, 0.05).unwrap(),
            ),
            ("thompson_clip_floor_0.02", &clipped_below(p, 0.02).unwrap()),
        ] {
            found.numbers(&format!("{number} {name}"), got, &case[name], ABSOLUTE, 0.0);
        }
        let path = format!("{number} expected_max");
        found.number(
            &path,
            best.expected_max,
            &case["expected_max"],
            ABSOLUTE,
            0.0,
        );
    }
    found.finish();
}
