//! Click rates by position: statistics against numbers computed from real click logs.

#![allow(clippy::unwrap_used, reason = "a malformed file ends the test")]

mod golden;

use golden::load;
use golden::real::{Mismatches, P_VALUE, VALUE, check_rate, clicks, label};
use podium_domain::stats::proportion::equal_rates;

#[test]
fn golden_real_ctr_by_position() {
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
