//! Statistics against numbers computed from real click logs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may end them"
)]

mod golden;

use golden::{Tolerance, load};
use podium_domain::stats::Interval;
use podium_domain::stats::lift::{Estimate, relative_lift};
use podium_domain::stats::proportion::{
    Proportion, clopper_pearson, equal_rates, newcombe, two_proportions, wilson,
};
use serde_json::Value;

const LEVEL: f64 = 0.95;
/// The reference has limits of 0 as what double precision leaves of them, some 1e-17.
const VALUE: Tolerance = Tolerance {
    relative: 1e-9,
    absolute: 1e-16,
};
const P_VALUE: Tolerance = Tolerance {
    relative: 1e-8,
    absolute: 0.0,
};

/// Collects what does not match, with a path that names it.
#[derive(Default)]
struct Mismatches {
    failures: Vec<String>,
    compared: usize,
}

impl Mismatches {
    fn number(&mut self, path: &str, want: &Value, got: f64, tolerance: Tolerance) {
        self.compared += 1;
        let number = want
            .as_f64()
            .unwrap_or_else(|| panic!("no number at {path}"));
        if !tolerance.allows(got, number) {
            self.failures
                .push(format!("{path}: expected {want}, got {got:?}"));
        }
    }

    fn interval(&mut self, path: &str, want: &Value, got: Interval) {
        self.number(&format!("{path}, lower"), &want[0], got.lower, VALUE);
        self.number(&format!("{path}, upper"), &want[1], got.upper, VALUE);
    }

    fn finish(self) {
        assert!(
            self.failures.is_empty(),
            "{} failures:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        );
        assert!(self.compared > 0, "nothing was compared");
    }
}

fn clicks(row: &Value, impressions: &str) -> Proportion {
    Proportion::from_f64(
        row["clicks"].as_f64().unwrap(),
        row[impressions].as_f64().unwrap(),
    )
    .unwrap()
}

fn label(row: &Value) -> String {
    let part = |name: &str| {
        row.get(name)
            .map(|value| format!("{name} {value} "))
            .unwrap_or_default()
    };
    ["campaign", "policy", "item_id", "position"]
        .map(part)
        .concat()
}

/// Click rate and both intervals of a row.
fn check_rate(found: &mut Mismatches, path: &str, row: &Value) {
    let clicks = clicks(row, "impressions");
    found.number(
        &format!("{path}ctr"),
        &row["ctr"],
        clicks.rate().unwrap(),
        VALUE,
    );
    found.interval(
        &format!("{path}wilson95"),
        &row["wilson95"],
        wilson(clicks, LEVEL).unwrap(),
    );
    let exact = clopper_pearson(clicks, LEVEL).unwrap();
    found.interval(
        &format!("{path}clopper_pearson95"),
        &row["clopper_pearson95"],
        exact,
    );
}

#[test]
fn golden_real_click_rates_by_policy() {
    let Some(file) = load("real", "ctr_by_policy.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for row in file["rows"].as_array().unwrap() {
        check_rate(&mut found, &label(row), row);
    }
    found.finish();
}

#[test]
fn golden_real_click_rates_by_position() {
    let Some(file) = load("real", "ctr_by_position.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for row in file["rows"].as_array().unwrap() {
        let positions = row["positions"].as_array().unwrap();
        for position in positions {
            check_rate(
                &mut found,
                &format!("{}{}", label(row), label(position)),
                position,
            );
        }
        let groups: Vec<_> = positions
            .iter()
            .map(|position| clicks(position, "impressions"))
            .collect();
        let test = equal_rates(&groups).unwrap();
        found.number(
            &format!("{}chi2", label(row)),
            &row["chi2"],
            test.chi2,
            VALUE,
        );
        found.number(
            &format!("{}p_value", label(row)),
            &row["p_value"],
            test.p,
            P_VALUE,
        );
        assert_eq!(
            row["df"].as_u64(),
            u64::try_from(test.df).ok(),
            "{}",
            label(row)
        );
    }
    found.finish();
}

#[test]
fn golden_real_click_rates_by_item() {
    let Some(file) = load("real", "ctr_by_item.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for row in file["rows"].as_array().unwrap() {
        for item in row["items"].as_array().unwrap() {
            check_rate(&mut found, &format!("{}{}", label(row), label(item)), item);
        }
    }
    found.finish();
}

#[test]
fn golden_real_random_against_learnt_policy() {
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
    let estimate =
        |arm: Proportion| Estimate::new(arm.rate().unwrap(), arm.se2().unwrap()).unwrap();
    let lift = relative_lift(&estimate(a), &estimate(b), LEVEL).unwrap();
    number("relative_lift", lift.delta.lift, VALUE);
    let mut interval = |name: &str, got| found.interval(&format!("{path}{name}"), &row[name], got);
    interval("wald_ci95", test.interval.unwrap());
    interval("newcombe_ci95", newcombe(a, b, LEVEL).unwrap());
    interval("log_ratio_ci95_as_lift", lift.log_ratio.unwrap().interval);
}
