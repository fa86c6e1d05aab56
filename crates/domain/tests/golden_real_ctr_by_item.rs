//! Click rates by item: statistics against numbers computed from real click logs.

#![allow(clippy::unwrap_used, reason = "a malformed file ends the test")]

mod golden;

use golden::load;
use golden::real::{Mismatches, check_rate, label};

#[test]
fn golden_real_ctr_by_item() {
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
