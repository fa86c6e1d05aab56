//! What Prometheus reads.
#![expect(clippy::float_cmp, reason = "counts are whole")]

use std::collections::BTreeMap;

use podium_tests::TestApp;
use serde_json::json;

/// Samples of a scrape by name and labels. Every line must be a comment or a sample.
async fn scrape(app: &TestApp) -> BTreeMap<String, f64> {
    let answer = app.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = answer.text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn sum(samples: &BTreeMap<String, f64>, start: &str) -> f64 {
    let found = samples.iter().filter(|(name, _)| name.starts_with(start));
    found.map(|(_, value)| value).sum()
}

/// Answers are counted by what they said, requests by route and status.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_counted() {
    let app = TestApp::setup().variable("WORKERS", "3").start().await;
    app.experiment("e").running().await;
    for n in 0..40 {
        app.assign(json!({"experiment": "e", "user_id": format!("u{}", n % 10)}))
            .await;
    }
    app.assign(json!({"placement": "nowhere", "user_id": "u"}))
        .await;
    let path = "/api/v1/experiments/assign";
    assert_eq!(app.post(path, &json!({})).await.status, 400);
    assert_eq!(app.get(path).await.status, 405);
    assert_eq!(app.get("/nothing/u0").await.status, 404);

    let samples = scrape(&app).await;
    assert_eq!(
        sum(&samples, "podium_assignments_total{experiment=\"e\""),
        40.0
    );
    assert_eq!(samples["podium_evaluations_total{reason=\"SPLIT\"}"], 40.0);
    assert_eq!(samples["podium_evaluations_total{reason=\"DEFAULT\"}"], 1.0);
    assert_eq!(
        samples["podium_evaluations_total{reason=\"DEGRADED\"}"],
        0.0
    );
    let requests = |route: &str, method: &str, status: u16| {
        samples[&format!(
            "podium_http_request_duration_seconds_count{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}"
        )]
    };
    assert_eq!(requests(path, "POST", 200), 41.0);
    assert_eq!(requests(path, "POST", 400), 1.0);
    assert_eq!(requests(path, "other", 405), 1.0);
    assert_eq!(requests("other", "other", 404), 1.0);
    let bucket = format!(
        "podium_http_request_duration_seconds_bucket{{route=\"{path}\",method=\"POST\",status=\"200\",le=\"+Inf\"}}"
    );
    assert_eq!(samples[&bucket], 41.0);
}

/// Events are counted by type and by what became of them, and counters stay when definitions are read anew.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_counted() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    for (path, body) in [
        (
            "track-click",
            json!({"event_id": "1", "user_id": "u", "experiment_id": "e"}),
        ),
        (
            "track-click",
            json!({"event_id": "1", "user_id": "u", "experiment_id": "e"}),
        ),
        (
            "track-click",
            json!({"user_id": "stranger", "experiment_id": "e"}),
        ),
        (
            "track",
            json!({"events": [{"event_type": "purchase", "user_id": "u", "experiment_id": "e", "value": 1},
                              {"event_type": "click", "user_id": "u", "experiment_id": "missing"}]}),
        ),
    ] {
        app.post(&format!("/api/v1/experiments/{path}"), &body)
            .await;
    }
    app.state().serving.refresh().await.unwrap();
    let samples = scrape(&app).await;
    let events = |kind: &str, result: &str| {
        samples[&format!("podium_events_ingested_total{{type=\"{kind}\",result=\"{result}\"}}")]
    };
    assert_eq!(events("click", "recorded"), 1.0);
    assert_eq!(events("click", "duplicate"), 1.0);
    assert_eq!(events("click", "rejected"), 2.0);
    assert_eq!(events("purchase", "recorded"), 1.0);
    assert_eq!(samples["podium_evaluations_total{reason=\"SPLIT\"}"], 1.0);
}

/// The split that is tested is the server's: units whose variants clients name follow no weights, and harm no figure.
#[tokio::test(flavor = "multi_thread")]
async fn the_split_is_that_of_units_which_the_server_drew() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    for n in 0..20 {
        app.variant_of("e", &format!("u{n}")).await;
    }
    let named = |n: usize| json!({"event_type": "click", "user_id": format!("named{n}"), "experiment_id": "e", "variant_id": experiment.variant("b")});
    let events: Vec<_> = (0..200).map(named).collect();
    let track = "/api/v1/experiments/track";
    app.post(track, &json!({"events": events})).await.ok();
    app.fold().await;
    let state = app.state();
    state.metrics.refresh(&state.database).await.unwrap();
    let samples = scrape(&app).await;
    assert_eq!(sum(&samples, "podium_experiment_units{"), 220.0);
    let of_b = "podium_experiment_expected_units{experiment=\"e\",variant=\"b\"}";
    assert_eq!(samples[of_b], 210.0, "half of those drawn, and all named");
    let p = samples["podium_experiment_srm_pvalue{experiment=\"e\"}"];
    assert!(p > 0.01, "{p}");
}

/// What only the database knows: lag, units against their weights, promotions.
#[tokio::test(flavor = "multi_thread")]
async fn facts_of_the_database_are_told() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    for n in 0..20 {
        app.variant_of("e", &format!("u{n}")).await;
    }
    app.fold().await;
    app.database()
        .execute(
            "INSERT INTO ab_promotion_audit_log (action, triggered_by) VALUES ('promoted', 'auto'), ('rolled_back', 'manual')",
        )
        .await;
    let scan = json!({"action": "scan"});
    let route = "/api/v1/experiments/auto-promote";
    app.admin(reqwest::Method::POST, route, Some(&scan))
        .await
        .ok();
    app.state()
        .metrics
        .refresh(&app.state().database)
        .await
        .unwrap();
    let samples = scrape(&app).await;
    assert_eq!(sum(&samples, "podium_experiment_units{"), 20.0);
    assert_eq!(sum(&samples, "podium_experiment_expected_units{"), 20.0);
    let p = samples["podium_experiment_srm_pvalue{experiment=\"e\"}"];
    assert!((0.0..=1.0).contains(&p), "{p}");
    assert!(samples["podium_event_lag_seconds"] >= 0.0);
    assert_eq!(samples["podium_promotions_active"], 0.0);
    // The scan has evaluated alerts: both variants have few units.
    assert_eq!(samples["podium_alerts_open{level=\"info\"}"], 2.0);
    assert_eq!(samples["podium_alerts_open{level=\"critical\"}"], 0.0);
    assert_eq!(samples["podium_scan_duration_seconds_count"], 1.0);
    assert_eq!(
        samples["podium_scan_duration_seconds_bucket{le=\"+Inf\"}"],
        1.0
    );
    assert!(samples["podium_scan_last_success_timestamp_seconds"] > 1.7e9);
    assert_eq!(
        samples["podium_promotion_decisions_total{outcome=\"promoted\",reason=\"auto\"}"],
        1.0
    );
    assert_eq!(samples["podium_rollbacks_total{reason=\"manual\"}"], 1.0);
    assert_eq!(samples["podium_db_up"], 1.0);
    assert_eq!(samples["podium_event_queue_depth"], 0.0);
    assert_eq!(samples["podium_decision_queue_depth"], 0.0);
    assert!(sum(&samples, "podium_db_pool_connections{") > 0.0);
}

/// The process tells of itself under the usual names, and its start does not move.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_tells_of_itself() {
    let app = TestApp::start().await;
    let (first, second) = (scrape(&app).await, scrape(&app).await);
    let start = "process_start_time_seconds";
    assert_eq!(first[start], second[start]);
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_threads",
    ] {
        assert!(first[name] > 0.0, "{name}");
    }
    assert_eq!(sum(&first, "podium_build_info{version="), 1.0);
}

/// A scrape names neither units nor the database's address.
#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_tells_no_secrets() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "somebody-in-particular").await;
    app.get("/api/v1/admin/experiments/1/assignments/somebody-in-particular")
        .await;
    let text = app.get("/metrics").await.text();
    assert!(!text.contains("somebody"), "{text}");
    assert!(!text.contains("postgres"), "{text}");
}

/// Every metric that the handbook lists is exported under that name and has its place on the dashboard.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_handbook_is_on_the_dashboard() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    app.fold().await;
    let (database, metrics) = (&app.state().database, &app.state().metrics);
    let counted = "INSERT INTO notification_counts VALUES ('slack', 'dead', 1);
                   INSERT INTO ab_promotion_audit_log (action, triggered_by) VALUES ('rolled_back', 'auto');
                   UPDATE promotion_scans SET last_success_at = now()";
    app.database().execute(counted).await;
    metrics.refresh(database).await.unwrap();
    let exported = app.get("/metrics").await.text();
    assert!(exported.contains("podium_notifications_total{channel=\"slack\",result=\"dead\"} 1"));
    let handbook = include_str!("../../docs/operations.md");
    let dashboard = include_str!("../../docs/grafana/podium.json");
    let rows = handbook
        .lines()
        .filter(|line| line.starts_with("| `podium_"));
    let names: Vec<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`'))
        .filter(|word| word.starts_with("podium_"))
        .collect();
    assert!(names.len() > 25, "{names:?}");
    for name in names {
        assert!(dashboard.contains(name), "{name} has no panel");
        assert!(exported.contains(name), "{name} is not exported");
    }
}
