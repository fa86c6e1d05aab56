//! Decisions of deterministic policies on fixed tables of outcomes, one by one.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

mod golden;

use golden::{Mismatches, cases, integers, load};
use podium_bandit::plan::Plan;
use podium_bandit::{Arms, Policy, Prior};
use serde_json::Value;

#[test]
fn golden_action_traces() {
    let Some(file) = load("bandit", "action_traces.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for (number, case) in cases(&file, "cases").iter().enumerate() {
        let tables: Vec<&[u8]> = cases(case, "rewards")
            .iter()
            .map(|table| table.as_str().unwrap().as_bytes())
            .collect();
        let horizon = usize::try_from(case["horizon"].as_u64().unwrap()).unwrap();
        for (name, expected) in case["policies"].as_object().unwrap() {
            let policy = Plan::named(&name.replace("_c0", "_0")).unwrap().policy;
            let (actions, arms) = trace(policy, &tables, horizon);
            let want = expected["actions"].as_str().unwrap();
            found.note(actions == want, || {
                format!("{number} {name}: expected {want}, got {actions}")
            });
            check_totals(&mut found, &format!("{number} {name}"), expected, &arms);
        }
    }
    found.finish();
}

/// The actions as hexadecimal digits, and the arms at the end.
fn trace(policy: Policy, tables: &[&[u8]], horizon: usize) -> (String, Arms) {
    let mut arms = Arms::new(Prior::FLAT, tables.len());
    let mut next = vec![0; tables.len()];
    let mut actions = String::with_capacity(horizon);
    for _ in 0..horizon {
        let arm = policy.choose_lowest(&arms).unwrap();
        actions.push(char::from_digit(u32::try_from(arm).unwrap(), 16).unwrap());
        arms.record(arm, tables[arm][next[arm]] == b'1').unwrap();
        next[arm] += 1;
    }
    (actions, arms)
}

fn check_totals(found: &mut Mismatches, path: &str, expected: &Value, arms: &Arms) {
    for (arm, plays) in integers(&expected["plays"]).iter().enumerate() {
        let wins = &expected["successes"][arm];
        let evidence = arms.as_slice()[arm].evidence();
        found.number(path, evidence.plays(), &Value::from(*plays), 0.0, 0.0);
        found.number(path, evidence.successes(), wins, 0.0, 0.0);
    }
}
