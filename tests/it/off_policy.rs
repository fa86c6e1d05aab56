//! What another policy would have earned: on the real logs, and on decisions of our own.

use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use podium_tests::{Client, TestApp, eventually};
use reqwest::Method;
use serde_json::{Map, Value, json};

async fn evaluate(app: &Client, body: &Value) -> Value {
    let path = "/api/v1/admin/experiments/order/off-policy";
    app.admin(Method::POST, path, Some(body)).await.data()
}

fn golden(name: &str) -> Value {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/real");
    serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

/// Rows of a real log: timestamp, item, position from 1, click, propensity, features.
fn real_log(name: &str) -> Vec<Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/open-bandit");
    let file = std::fs::File::open(folder.join(format!("{name}.csv.gz"))).unwrap();
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let number = |cell: &str| serde_json::from_str::<Value>(cell).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        json!({"arm": cells[1], "position": number(cells[2]), "reward": number(cells[3]), "propensity": number(cells[4])})
    };
    text.lines().skip(1).map(row).collect()
}

fn target(name: &str, policy: &Value) -> Value {
    let arm = |number: &Value| number.to_string();
    match name {
        "uniform" => json!("uniform"),
        "top3_by_prior_mean" => {
            let top = policy["top3_by_prior_mean"].as_array().unwrap();
            json!({"order": top.iter().map(arm).collect::<Vec<_>>()})
        }
        _ => {
            let table = policy["policy_bts_prior"].as_array().unwrap();
            let lists: Map<String, Value> = (0..)
                .map(|n: i32| n.to_string())
                .zip(table.iter().cloned())
                .collect();
            json!({"probabilities": lists})
        }
    }
}

fn near(got: &Value, want: &Value, what: &str) {
    let (got, want) = (got.as_f64().unwrap(), want.as_f64().unwrap());
    let tolerance = 1e-16 + 1e-9 * want.abs();
    assert!(
        (got - want).abs() <= tolerance,
        "{what}: {got} instead of {want}"
    );
}

/// A part of the reference, because each row is a request of half a megabyte; the library's own test has all of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_the_real_logs() {
    let app = TestApp::start().await;
    app.experiment("order").running().await;
    let (file, policies) = (golden("off_policy.json"), golden("bts_policy.json"));
    let policy = &policies["rows"][0];
    assert_eq!(policy["campaign"], "all");
    let arms: Vec<String> = (0..policy["arms"].as_u64().unwrap())
        .map(|n| n.to_string())
        .collect();
    let mut checked = 0;
    for row in file["rows"].as_array().unwrap() {
        let key = (
            row["campaign"].as_str().unwrap(),
            row["target_policy"].as_str().unwrap(),
            row["weight_clip"].as_f64(),
        );
        let wanted = matches!(
            key,
            ("all", "uniform", Some(20.0)) | ("all", "bts_prior" | "top3_by_prior_mean", None)
        );
        if !wanted {
            continue;
        }
        let log = real_log(&format!("{}_all", row["log"].as_str().unwrap()));
        let body =
            json!({"target": target(key.1, policy), "clip": key.2, "log": log, "arms": arms});
        let got = evaluate(&app, &body).await;
        checked += 1;
        if row["estimator"] == "replay" {
            for (ours, theirs) in [
                ("matched", "matched"),
                ("reward", "clicks"),
                ("value", "value"),
            ] {
                near(&got["replay"][ours], &row[theirs], theirs);
            }
            continue;
        }
        for (ours, theirs) in [
            ("rows", "n"),
            ("effectiveSampleSize", "effective_sample_size"),
            ("largestWeight", "weight_max"),
            ("meanWeight", "weight_mean"),
        ] {
            near(&got[ours], &row[theirs], theirs);
        }
        let estimates = &got["estimates"];
        near(&estimates["dm"], &row["dm"], "dm");
        near(&estimates["sndr"], &row["sndr"], "sndr");
        for name in ["ipw", "snipw", "dr"] {
            near(&estimates[name]["value"], &row[name]["value"], name);
            near(&estimates[name]["standardError"], &row[name]["se"], name);
            near(&estimates[name]["interval"][0], &row[name]["ci95"][0], name);
        }
    }
    assert!(checked >= 4, "{checked}");
}

/// Ranks for a unit, tells what was shown an hour ago and what was clicked, and asks what always showing `x` would have
/// earned. Half of the first places of `x` are clicked.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_of_our_own() {
    const DECISIONS: usize = 320;
    let app = TestApp::start().await;
    let experiment = app.experiment("order").running().await;
    let (id, b) = (experiment.id, experiment.variant("b"));
    app.change(&format!(
        "UPDATE experiment_variants SET config = '{{\"itemOrdering\": \"bandit\", \"banditOptions\": {{\"floor\": 0}}}}' WHERE id = {b};
         INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, assigned_at)
         VALUES ('u', {id}, {b}, now() - interval '3 hours')"
    ))
    .await;
    let shown_at = app
        .database()
        .text("SELECT to_char((now() - interval '1 hour') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
        .await;
    let mut events = Vec::new();
    let (mut shown, mut clicked) = (0_u32, 0_u32);
    let body =
        json!({"experiment": "order", "user_id": "u", "candidates": [{"id": "y"}, {"id": "x"}]});
    for _ in 0..DECISIONS {
        let answer = app.post("/api/v1/experiments/rank", &body).await.ok();
        let first = &answer["candidates"][0];
        assert_eq!(first["propensity"], 0.5);
        let event = |kind: &str| {
            json!({"event_type": kind, "user_id": "u", "experiment_id": id, "item_id": first["id"], "position": 1,
                "decision_id": answer["decision_id"], "occurred_at": shown_at})
        };
        events.push(event("impression"));
        if first["id"] == "x" {
            shown += 1;
            if shown.is_multiple_of(2) {
                clicked += 1;
                events.push(event("click"));
            }
        }
    }
    app.track_any(json!({"events": events})).await.ok();
    app.fold().await;
    eventually("all decisions are stored", async || {
        let stored = "SELECT count(*) FROM bandit_decisions";
        app.database().number(stored).await == i64::try_from(DECISIONS).unwrap()
    })
    .await;
    // Within the window of their decision nothing is evaluated, whatever was clicked by then: what is not may still be.
    let path = "/api/v1/admin/experiments/order/off-policy";
    let early = app
        .admin(Method::POST, path, Some(&json!({"target": "uniform"})))
        .await;
    let body: Value = serde_json::from_slice(&early.body).unwrap();
    assert!(early.status == 409 || body["data"]["rows"] == 0, "{body}");
    app.database()
        .execute("UPDATE bandit_decisions SET decided_at = decided_at - interval '1 hour'")
        .await;
    let ask = async |target: Value| evaluate(&app, &json!({"target": target})).await;
    eventually("all decisions and their outcomes are there", async || {
        ask(json!("uniform")).await["rows"] == DECISIONS
    })
    .await;
    let got = ask(json!({"order": ["x"]})).await;
    assert_eq!(got["replay"]["matched"], shown);
    near(
        &got["replay"]["value"],
        &json!(f64::from(clicked) / f64::from(shown)),
        "replay",
    );
    near(
        &got["effectiveSampleSize"],
        &json!(shown),
        "effective sample",
    );
    assert_eq!(got["largestWeight"], 2.0);
    near(
        &got["estimates"]["snipw"]["value"],
        &got["replay"]["value"],
        "snipw",
    );
    assert!(
        !got["warnings"].as_array().unwrap().is_empty(),
        "the floor is 0"
    );
    let first = ask(json!("input_order")).await;
    assert_eq!(first["replay"]["reward"], 0.0);
    // Who is not named is never shown; where nobody is, there is nothing to evaluate.
    let named = ask(json!({"weights": {"x": 3}})).await;
    assert_eq!(named["estimates"], got["estimates"]);
    let stranger = json!({"target": {"weights": {"z": 1}}});
    let refused = app.admin(Method::POST, path, Some(&stranger)).await;
    let problem = refused.problem(422, "validation_failed");
    assert!(
        problem.to_string().contains("no weight to any candidate"),
        "{problem}"
    );
    // What was credited is what the arms show.
    let arms = app
        .admin(
            Method::GET,
            "/api/v1/admin/experiments/order/bandit-arms?armType=item",
            None,
        )
        .await
        .data();
    let arm = arms
        .as_array()
        .unwrap()
        .iter()
        .find(|arm| arm["armId"] == "x")
        .unwrap();
    assert_eq!(
        (&arm["totalPulls"], arm["totalReward"].as_f64()),
        (&json!(shown), Some(f64::from(clicked)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_is_refused_with_the_reason() {
    let app = TestApp::start().await;
    app.experiment("order").running().await;
    let row = |n: u32| json!({"arm": (n % 2).to_string(), "reward": 1, "propensity": 0.5});
    let log: Vec<Value> = (0..150).map(row).collect();
    let got = evaluate(&app, &json!({"target": {"order": ["1"]}, "log": log})).await;
    assert_eq!(
        (&got["estimates"], &got["replay"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        got["reason"],
        "the effective sample size is 75.0, at least 100 is needed"
    );
    let got = evaluate(&app, &json!({"target": "uniform"})).await;
    assert_eq!((&got["rows"], &got["estimates"]), (&json!(0), &Value::Null));
    assert!(got["reason"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused() {
    let app = TestApp::start().await;
    app.experiment("order").running().await;
    let path = "/api/v1/admin/experiments/order/off-policy";
    let row = json!({"arm": "a", "reward": 1, "propensity": 0.5});
    for body in [
        json!({}),
        json!({"target": "best"}),
        json!({"target": {"order": "a"}}),
        json!({"target": {"weights": {"a": -1}}}),
        json!({"target": {"order": ["a"], "weights": {}}}),
        json!({"target": {"weights": {}}, "log": [row]}),
        json!({"target": {"weights": {"a": 0}}, "log": [row]}),
        json!({"target": "input_order", "log": [row]}),
        json!({"target": {"probabilities": {"a": [0.5]}}, "log": [row]}),
        json!({"target": "uniform", "log": [{"arm": "a", "reward": 1, "propensity": 0}]}),
        json!({"target": "uniform", "log": [{"arm": "a", "reward": 1, "propensity": 0.5, "x": 1}]}),
        json!({"target": "uniform", "log": [1]}),
        json!({"target": "uniform", "clip": 0}),
        json!({"target": "uniform", "from": "yesterday"}),
        json!({"target": "uniform", "unknown": 1}),
    ] {
        let answer = app.admin(Method::POST, path, Some(&body)).await;
        answer.problem(422, "validation_failed");
    }
    let nowhere = "/api/v1/admin/experiments/nothing/off-policy";
    let body = json!({"target": "uniform"});
    app.admin(Method::POST, nowhere, Some(&body))
        .await
        .problem(404, "not_found");
    app.post(path, &body).await.problem(401, "unauthorized");
}
