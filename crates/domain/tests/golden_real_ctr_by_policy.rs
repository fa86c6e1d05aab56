//! Click rates by policy: statistics against numbers computed from real click logs.

#![allow(clippy::unwrap_used, reason = "a malformed file ends the test")]

mod golden;

use golden::load;
use golden::real::{Mismatches, check_rate, label};

#[test]
fn golden_real_ctr_by_policy() {
    let Some(file) = load("real", "ctr_by_policy.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for row in file["rows"].as_array().unwrap() {
        check_rate(&mut found, &label(row), row);
    }
    found.finish();
}
