//! What the tests on real click logs share.

use podium_domain::stats::Interval;
use podium_domain::stats::proportion::{Proportion, clopper_pearson, wilson};
use serde_json::Value;

use super::Tolerance;

pub(crate) const LEVEL: f64 = 0.95;
/// The reference has limits of 0 as what double precision leaves of them, some 1e-17.
pub(crate) const VALUE: Tolerance = Tolerance {
    relative: 1e-9,
    absolute: 1e-16,
};
pub(crate) const P_VALUE: Tolerance = Tolerance {
    relative: 1e-8,
    absolute: 0.0,
};

/// Collects what does not match, with a path that names it.
#[derive(Default)]
pub(crate) struct Mismatches {
    failures: Vec<String>,
    compared: usize,
}

impl Mismatches {
    pub(crate) fn number(&mut self, path: &str, want: &Value, got: f64, tolerance: Tolerance) {
        self.compared += 1;
        let number = want
            .as_f64()
            .unwrap_or_else(|| panic!("no number at {path}"));
        if !tolerance.allows(got, number) {
            self.failures
                .push(format!("{path}: expected {want}, got {got:?}"));
        }
    }

    pub(crate) fn interval(&mut self, path: &str, want: &Value, got: Interval) {
        self.number(&format!("{path}, lower"), &want[0], got.lower, VALUE);
        self.number(&format!("{path}, upper"), &want[1], got.upper, VALUE);
    }

    pub(crate) fn finish(self) {
        assert!(
            self.failures.is_empty(),
            "{} failures:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        );
        assert!(self.compared > 0, "nothing was compared");
    }
}

pub(crate) fn clicks(row: &Value, impressions: &str) -> Proportion {
    Proportion::from_f64(
        row["clicks"].as_f64().unwrap(),
        row[impressions].as_f64().unwrap(),
    )
    .unwrap()
}

pub(crate) fn label(row: &Value) -> String {
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
pub(crate) fn check_rate(found: &mut Mismatches, path: &str, row: &Value) {
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
