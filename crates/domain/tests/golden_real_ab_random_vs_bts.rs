//! The random policy against the learnt one: statistics against numbers computed from real click logs.

#![allow(clippy::unwrap_used, reason = "a malformed file ends the test")]

mod golden;

use golden::load;
use golden::real::{LEVEL, Mismatches, P_VALUE, VALUE, clicks, label};
use podium_domain::stats::bayes::{BetaPrior, compare_rates};
use podium_domain::stats::fisher::fisher_exact;
use podium_domain::stats::lift::{Estimate, relative_lift};
use podium_domain::stats::proportion::{Proportion, newcombe, two_proportions};
use serde_json::Value;

#[test]
fn golden_real_ab_random_vs_bts() {
    let Some(file) = load("real", "ab_random_vs_bts.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for row in file["rows"].as_array().unwrap() {
        check_comparison(&mut found, row);
    }
    found.finish();
}

fn check_comparison(found: &mut Mismatches, row: &Value) {
    let path = label(row);
    let (a, b) = (clicks(&row["control"], "n"), clicks(&row["treatment"], "n"));
    let test = two_proportions(a, b, LEVEL).unwrap();
    let unpooled = test.unpooled.unwrap();
    let mut number = |name: &str, got: f64, tolerance| {
        found.number(&format!("{path}{name}"), &row[name], got, tolerance);
    };
    number("difference", test.diff, VALUE);
    number("z_pooled", test.pooled.z, VALUE);
    number("p_value_two_sided", test.pooled.p.two_sided, P_VALUE);
    number("z_unpooled", unpooled.z, VALUE);
    let exact = fisher_exact(a, b).unwrap();
    number("fisher_exact_p", exact.two_sided, P_VALUE);
    let estimate =
        |arm: Proportion| Estimate::new(arm.rate().unwrap(), arm.se2().unwrap()).unwrap();
    let lift = relative_lift(&estimate(a), &estimate(b), LEVEL).unwrap();
    number("relative_lift", lift.delta.lift, VALUE);
    let bayes = compare_rates(a, b, BetaPrior::UNIFORM, LEVEL).unwrap();
    for (name, got) in [
        ("prob_treatment_best", bayes.prob_b_beats_a),
        ("expected_loss_treatment", bayes.expected_loss_b),
        ("expected_loss_control", bayes.expected_loss_a),
    ] {
        let want = &row["bayes_beta11"][name];
        found.number(&format!("{path}{name}"), want, got, P_VALUE);
    }
    let mut interval = |name: &str, got| found.interval(&format!("{path}{name}"), &row[name], got);
    interval("wald_ci95", test.interval.unwrap());
    interval("newcombe_ci95", newcombe(a, b, LEVEL).unwrap());
    interval("log_ratio_ci95_as_lift", lift.log_ratio.unwrap().interval);
}
