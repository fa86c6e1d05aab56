//! Off-policy estimates on real logs.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

mod golden;

use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use golden::{Mismatches, cases, load};
use podium_bandit::off_policy::{
    LEAST_EFFECTIVE_SAMPLE, LoggedRow, TargetPolicy, evaluate, replay,
};
use serde_json::Value;

const RELATIVE: f64 = 1e-9;
/// The reference has values of 0 as what double precision leaves of them.
const ABSOLUTE: f64 = 1e-16;
const POSITIONS: usize = 3;

#[test]
fn golden_off_policy() {
    let (Some(file), Some(policies)) = (
        load("real", "off_policy.json"),
        load("real", "bts_policy.json"),
    ) else {
        return;
    };
    let mut found = Mismatches::default();
    for row in cases(&file, "rows") {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let log = read_log(text("log"), text("campaign"));
        let policy = cases(&policies, "rows")
            .iter()
            .find(|policy| policy["campaign"] == row["campaign"])
            .unwrap();
        let path = format!(
            "{} {} {}",
            text("campaign"),
            text("log"),
            text("target_policy")
        );
        if text("estimator") == "replay" {
            check_replay(&mut found, &path, row, &log, policy);
        } else {
            check_estimates(&mut found, &path, row, &log, policy);
        }
    }
    found.finish();
}

fn check_replay(
    found: &mut Mismatches,
    path: &str,
    row: &Value,
    log: &[LoggedRow],
    policy: &Value,
) {
    let Ok(got) = replay(log, &top_three(policy)) else {
        let few = row["matched"].as_f64().unwrap() < LEAST_EFFECTIVE_SAMPLE;
        return found.note(few, || format!("{path}: refused"));
    };
    let matched = f64::from(u32::try_from(got.matched).unwrap());
    found.number(
        &format!("{path} matched"),
        matched,
        &row["matched"],
        0.0,
        0.0,
    );
    found.number(
        &format!("{path} clicks"),
        got.reward,
        &row["clicks"],
        0.0,
        0.0,
    );
    found.number(
        &format!("{path} value"),
        got.value,
        &row["value"],
        ABSOLUTE,
        RELATIVE,
    );
}

fn check_estimates(
    found: &mut Mismatches,
    path: &str,
    row: &Value,
    log: &[LoggedRow],
    policy: &Value,
) {
    let target = target(row["target_policy"].as_str().unwrap(), policy);
    let Ok(got) = evaluate(log, &target, row["weight_clip"].as_f64()) else {
        let small = row["effective_sample_size"].as_f64().unwrap() < LEAST_EFFECTIVE_SAMPLE;
        return found.note(small, || format!("{path}: refused"));
    };
    let mut number = |name: &str, got: f64, want: &Value| {
        found.number(&format!("{path} {name}"), got, want, ABSOLUTE, RELATIVE);
    };
    number("n", f64::from(u32::try_from(got.rows).unwrap()), &row["n"]);
    number("weight_mean", got.weight_mean, &row["weight_mean"]);
    number("weight_max", got.weight_max, &row["weight_max"]);
    let effective = &row["effective_sample_size"];
    number(
        "effective sample size",
        got.effective_sample_size,
        effective,
    );
    number("dm", got.dm, &row["dm"]);
    number("sndr", got.sndr, &row["sndr"]);
    // The reference states unclipped IPW also where the other weights are clipped.
    let unclipped = evaluate(log, &target, None).map(|evaluation| evaluation.ipw);
    for (name, estimate) in [
        ("ipw", unclipped),
        ("snipw", Ok(got.snipw)),
        ("dr", Ok(got.dr)),
    ] {
        let Ok(estimate) = estimate else {
            continue;
        };
        let want = &row[name];
        number(name, estimate.value, &want["value"]);
        number(&format!("{name} se"), estimate.se, &want["se"]);
        let (low, high) = estimate.interval95();
        number(&format!("{name} low"), low, &want["ci95"][0]);
        number(&format!("{name} high"), high, &want["ci95"][1]);
    }
}

fn target(name: &str, policy: &Value) -> TargetPolicy {
    let arms = usize::try_from(policy["arms"].as_u64().unwrap()).unwrap();
    match name {
        "uniform" => TargetPolicy::uniform(arms, POSITIONS).unwrap(),
        "top3_by_prior_mean" => TargetPolicy::fixed(arms, &top_three(policy)).unwrap(),
        "bts_prior" => {
            let table = cases(policy, "policy_bts_prior");
            let column = |position: usize| {
                let entry = |item: &Value| item[position].as_f64().unwrap();
                table.iter().map(entry).collect()
            };
            TargetPolicy::new((0..POSITIONS).map(column).collect()).unwrap()
        }
        other => unreachable!("target policy {other}"),
    }
}

fn top_three(policy: &Value) -> Vec<usize> {
    golden::integers(&policy["top3_by_prior_mean"])
        .into_iter()
        .map(|arm| usize::try_from(arm).unwrap())
        .collect()
}

/// The rows of a log: timestamp, item, position from 1, click, propensity, features.
fn read_log(log: &str, campaign: &str) -> Vec<LoggedRow> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/open-bandit");
    let path = folder.join(format!("{log}_{campaign}.csv.gz"));
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(&path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    let row = |line: &str| {
        let cells: Vec<_> = line.split(',').collect();
        LoggedRow {
            arm: cells[1].parse().unwrap(),
            position: cells[2].parse::<usize>().unwrap() - 1,
            reward: cells[3].parse().unwrap(),
            propensity: cells[4].parse().unwrap(),
        }
    };
    text.lines().skip(1).map(row).collect()
}
