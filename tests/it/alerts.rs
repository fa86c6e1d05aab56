//! Alerts open once, close by themselves, and are listed.

use podium_api::auth::Role;
use podium_tests::{Answer, Client, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::guard::{engine, origin};

const ALERTS: &str = "/api/v1/admin/alerts";

async fn read(client: &Client, path: &str) -> Answer {
    client.admin(Method::GET, path, None).await
}

async fn listed(app: &TestApp, query: &str) -> Vec<Value> {
    let answer = read(app, &format!("{ALERTS}{query}")).await.ok();
    answer["data"].as_array().unwrap().clone()
}

fn kinds(alerts: &[Value]) -> Vec<(&str, &str)> {
    let mut kinds: Vec<_> = alerts
        .iter()
        .map(|alert| {
            (
                alert["kind"].as_str().unwrap(),
                alert["level"].as_str().unwrap(),
            )
        })
        .collect();
    kinds.sort_unstable();
    kinds
}

/// Requests of a variant fail and take long: one critical alert each, one message each, and an end of both.
#[tokio::test(flavor = "multi_thread")]
async fn errors_and_latency_open_alerts_that_close_by_themselves() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    app.change(
        "INSERT INTO notification_configs (user_id, channel, webhook_url, alert_levels)
         VALUES ('1', 'webhook', 'https://hooks.example', '{critical}')",
    )
    .await;
    let users = experiment.units_of(Some("b"), 40);
    for (n, user) in users.iter().enumerate() {
        app.assign(json!({"user_id": user, "experiment": "e"}))
            .await;
        let request = json!({"event_type": "request", "user_id": user, "experiment_id": experiment.id,
            "latency_ms": 6_000, "is_error": n % 2 == 0});
        app.track_any(request).await.ok();
    }
    app.fold().await;
    let path = format!(
        "/api/v1/admin/experiments/{}/lift?metric=p95_latency_ms",
        experiment.id
    );
    let lift = read(&app, &path).await.data();
    let slow = lift["variants"].as_array().and_then(|variants| {
        variants
            .iter()
            .find(|variant| variant["variantName"] == "b")?["value"]
            .as_f64()
    });
    assert!(
        slow.is_some_and(|p95| (p95 / 6_000.0 - 1.0).abs() < 0.01),
        "{lift}"
    );
    let watch = async || engine(&app).watch(&origin()).await.unwrap().ticked.alerts;
    let opened = watch().await.opened;
    assert_eq!(
        opened
            .iter()
            .filter(|alert| alert.level.name() == "critical")
            .count(),
        2,
        "{opened:?}"
    );
    assert_eq!(watch().await.opened, [], "not repeated while open");
    let open = listed(&app, "?status=open&experimentId=e").await;
    assert_eq!(
        kinds(&open),
        [
            ("error_rate", "critical"),
            ("few_units", "info"),
            ("few_units", "info"),
            ("p95_latency_ms", "critical"),
            // Forty units of one variant and none of the other.
            ("traffic", "warning")
        ]
    );
    let error = open
        .iter()
        .find(|alert| alert["kind"] == "error_rate")
        .unwrap();
    assert_eq!(
        (&error["variantName"], &error["status"]),
        (&json!("b"), &json!("open"))
    );
    let queued = "SELECT count(*) FROM notification_outbox";
    assert_eq!(app.database().number(queued).await, 2);

    // An hour later nothing of it is left.
    app.database()
        .execute("UPDATE experiment_events SET created_at = created_at - interval '61 minutes'")
        .await;
    assert_eq!(watch().await.closed.len(), 3);
    assert_eq!(listed(&app, "?status=closed&level=critical").await.len(), 2);
    assert!(listed(&app, "?status=open&level=critical").await.is_empty());
    assert!(listed(&app, "?experimentId=nothing").await.is_empty());
    read(&app, &format!("{ALERTS}?status=loud"))
        .await
        .problem(422, "validation_failed");
    let viewer = app.with_role(Role::Viewer).await;
    read(&viewer, ALERTS).await.ok();
}

/// Two processes evaluate at the same moment; the split, silence and failed assignments are seen.
#[tokio::test(flavor = "multi_thread")]
async fn two_that_evaluate_open_an_alert_once() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    app.change(&format!(
        "UPDATE experiments SET start_date = now() - interval '2 days';
         -- A single unit that a client named hides nothing.
         INSERT INTO variant_moments (experiment_id, variant_id, epoch, units, client_units)
         VALUES ({0}, {1}, 1, 5000, 1), ({0}, {2}, 1, 4000, 0);
         INSERT INTO assign_outcomes (experiment_id, minute, asked, failed) VALUES ({0}, date_trunc('minute', now()), 1000, 50)",
        experiment.id,
        experiment.variant("control"),
        experiment.variant("b")
    ))
    .await;
    let (one, other) = (engine(&app), engine(&app));
    let origin = origin();
    let (one, other) = tokio::join!(one.watch(&origin), other.watch(&origin));
    let opened = [one.unwrap(), other.unwrap()].map(|watch| watch.ticked.alerts.opened.len());
    assert_eq!(opened.iter().sum::<usize>(), 3, "{opened:?}");
    assert_eq!(
        kinds(&listed(&app, "").await),
        [
            ("assignment_failures", "critical"),
            ("no_events", "warning"),
            ("sample_ratio_mismatch", "critical")
        ]
    );
    app.change("UPDATE experiments SET status = 'paused'").await;
    assert_eq!(
        engine(&app)
            .watch(&origin)
            .await
            .unwrap()
            .ticked
            .alerts
            .closed
            .len(),
        3
    );
}

/// What was wrong with the split before a restart is no matter of the analysis that it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_leaves_a_broken_split_behind() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    app.change(&format!(
        "INSERT INTO variant_moments (experiment_id, variant_id, epoch, units)
         VALUES ({0}, {1}, 1, 5000), ({0}, {2}, 1, 4000)",
        experiment.id,
        experiment.variant("control"),
        experiment.variant("b")
    ))
    .await;
    let split = ("sample_ratio_mismatch", "critical");
    engine(&app).watch(&origin()).await.unwrap();
    assert!(kinds(&listed(&app, "?status=open").await).contains(&split));
    let restart = "/api/v1/admin/experiments/e/restart-analysis";
    app.admin(Method::POST, restart, None).await.data();
    engine(&app).watch(&origin()).await.unwrap();
    assert!(!kinds(&listed(&app, "?status=open").await).contains(&split));
}

/// Who was resumed a moment ago has not been silent for an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_experiment_is_not_silent_yet() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.change("UPDATE experiments SET start_date = now() - interval '2 days'")
        .await;
    for verb in ["pause", "resume"] {
        let path = format!("/api/v1/admin/experiments/e/{verb}");
        app.admin(Method::POST, &path, None).await.ok();
    }
    engine(&app).watch(&origin()).await.unwrap();
    let open = listed(&app, "?status=open").await;
    assert!(
        !kinds(&open).contains(&("no_events", "warning")),
        "{open:?}"
    );
}
