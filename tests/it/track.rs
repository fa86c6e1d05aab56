//! Recording events: routes, fields, batches.

use podium_tests::clock::now;
use podium_tests::{Experiment, TestApp};
use serde_json::{Value, json};
use uuid::Uuid;

/// An experiment in which `u` has variant `b`.
async fn scene(app: &TestApp) -> Experiment {
    let experiment = app.experiment("e").running().await;
    let sql = format!(
        "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES ('u', {}, {})",
        experiment.id,
        experiment.variant("b")
    );
    app.database().execute(&sql).await;
    experiment
}

async fn events(app: &TestApp) -> i64 {
    app.database()
        .number("SELECT count(*) FROM experiment_events")
        .await
}

/// Each route records its own type.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_records_its_type() {
    let app = TestApp::start().await;
    let experiment = scene(&app).await;
    for (kind, expected) in [
        ("impression", "impression"),
        ("click", "click"),
        ("add-to-cart", "add_to_cart"),
        ("purchase", "purchase"),
    ] {
        let body =
            json!({"event_id": kind, "user_id": "u", "experiment_id": experiment.id, "value": 1});
        let answer = app.track(kind, body).await.ok();
        assert_eq!(
            answer,
            json!({"success": true, "event_id": kind, "duplicate": false})
        );
        let stored = format!("SELECT event_type FROM experiment_events WHERE event_id = '{kind}'");
        assert_eq!(app.database().text(&stored).await, expected);
    }
}

/// Whatever a client sends under a known name is in the table as it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_stored() {
    let app = TestApp::start().await;
    let experiment = scene(&app).await;
    let occurred_at = now().format("%Y-%m-%dT%H:%M:%S+00:00").to_string();
    let body = json!({
        "event_id": "full", "user_id": "u", "session_id": "s", "experiment_id": experiment.id,
        "variant_id": experiment.variant("b"), "item_id": 1234, "brand_id": 5, "module_id": "m", "position": 3,
        "value": 85.00, "quantity": 2, "placement": "newsfeed", "page_type": "feed", "decision_id": "d",
        "occurred_at": occurred_at, "metadata": {"color": "r\u{e9}d", "nested": [1, {"x": null}]}
    });
    app.track("purchase", body).await.ok();
    let columns = "SELECT event_id, user_id, session_id, experiment_id, variant_id, event_type, item_id, brand_id, module_id,
        position, value, quantity, decision_id, is_bot, counted, latency_ms, is_error,
        event_data->>'color', event_data->'nested', event_data->>'placement', event_data->>'page_type',
        to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS+00:00'),
        created_at BETWEEN now() - interval '1 minute' AND now() FROM experiment_events";
    let (id, variant) = (
        experiment.id.to_string(),
        experiment.variant("b").to_string(),
    );
    let expected = [
        "full",
        "u",
        "s",
        &id,
        &variant,
        "purchase",
        "1234",
        "5",
        "m",
        "3",
        "85.0000",
        "2",
        "d",
        "f",
        "f",
        "\u{2205}",
        "\u{2205}",
        "r\u{e9}d",
        "[1, {\"x\": null}]",
        "newsfeed",
        "feed",
        &occurred_at,
        "t",
    ];
    let mut stored = app.database().rows(columns).await;
    // Whether it counts depends on the fraction of a second that the text left out.
    stored[0][14] = "f".into();
    assert_eq!(stored, [expected]);
}

/// `track` takes every type, with what belongs to it.
#[tokio::test(flavor = "multi_thread")]
async fn track_takes_every_type() {
    let app = TestApp::start().await;
    scene(&app).await;
    let rows = [
        (
            json!({"event_type": "impression"}),
            ["impression", "\u{2205}", "\u{2205}", "\u{2205}", "\u{2205}"],
        ),
        (
            json!({"event_type": "click", "quantity": 3}),
            ["click", "\u{2205}", "\u{2205}", "\u{2205}", "\u{2205}"],
        ),
        (
            json!({"event_type": "add_to_cart"}),
            ["add_to_cart", "\u{2205}", "1", "\u{2205}", "\u{2205}"],
        ),
        (
            json!({"event_type": "purchase", "value": 0}),
            ["purchase", "0.0000", "1", "\u{2205}", "\u{2205}"],
        ),
        (
            json!({"event_type": "engagement", "value": 12.5}),
            ["engagement", "12.5000", "\u{2205}", "\u{2205}", "\u{2205}"],
        ),
        (
            json!({"event_type": "request", "latency_ms": 12.25, "is_error": true}),
            ["request", "\u{2205}", "\u{2205}", "12.25", "t"],
        ),
        (
            json!({"eventType": "request", "latencyMs": 7}),
            ["request", "\u{2205}", "\u{2205}", "7", "f"],
        ),
    ];
    for (n, (body, expected)) in rows.into_iter().enumerate() {
        let mut body = body;
        body["user_id"] = json!("u");
        body["experiment_id"] = json!("e");
        body["event_id"] = json!(format!("event {n}"));
        app.track_any(body).await.ok();
        let stored = format!(
            "SELECT event_type, value, quantity, latency_ms, is_error FROM experiment_events WHERE event_id = 'event {n}'"
        );
        assert_eq!(app.database().rows(&stored).await, [expected]);
    }
    for wrong in [
        json!({}),
        json!({"event_type": "view"}),
        json!({"event_type": 1}),
        json!({"event_type": "purchase"}),
    ] {
        let mut body = wrong.clone();
        body["user_id"] = json!("u");
        body["experiment_id"] = json!("e");
        app.track_any(body).await.problem(422, "validation_failed");
    }
}

/// Money is exact: four decimals, up to 10^12.
#[tokio::test(flavor = "multi_thread")]
async fn values_are_exact() {
    let app = TestApp::start().await;
    scene(&app).await;
    for (n, (sent, stored)) in [
        ("0", "0.0000"),
        ("0.1", "0.1000"),
        ("19.99", "19.9900"),
        ("0.0001", "0.0001"),
        ("1e2", "100.0000"),
        ("999999999999.9999", "999999999999.9999"),
        ("1000000000000", "1000000000000.0000"),
        ("1E+12", "1000000000000.0000"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(
            "{{\"event_id\": \"{n}\", \"user_id\": \"u\", \"experiment_id\": \"e\", \"value\": {sent}}}"
        );
        app.post_bytes("/api/v1/experiments/track-purchase", body)
            .await
            .ok();
        let value = app
            .database()
            .text(&format!(
                "SELECT value FROM experiment_events WHERE event_id = '{n}'"
            ))
            .await;
        assert_eq!(value, stored, "{sent}");
    }
    for refused in [
        "-0.0001",
        "-1",
        "1000000000000.0001",
        "1e13",
        "1e999",
        "\"1\"",
        "true",
    ] {
        let body =
            format!("{{\"user_id\": \"u\", \"experiment_id\": \"e\", \"value\": {refused}}}");
        let problem = app
            .post_bytes("/api/v1/experiments/track-purchase", body)
            .await
            .problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/value", "{refused}");
    }
    app.track("purchase", json!({"user_id": "u", "experiment_id": "e"}))
        .await
        .problem(422, "validation_failed");
}

/// Without an id of the client's the server makes one: a UUID of version 7, another for each event.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_makes_event_ids() {
    let app = TestApp::start().await;
    scene(&app).await;
    let body = json!({"user_id": "u", "experiment_id": "e"});
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = app.track("click", body.clone()).await.ok();
        let id: Uuid = answer["event_id"].as_str().unwrap().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(events(&app).await, 2);
}

/// A batch has one outcome for each event, in order, and one event's fault harms no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_for_every_event() {
    let app = TestApp::start().await;
    let experiment = scene(&app).await;
    app.experiment("draft").in_state("draft").await;
    let control = experiment.variant("control");
    let batch = json!({"events": [
        {"event_type": "click", "event_id": "a", "user_id": "u", "experiment_id": "e"},
        {"event_type": "purchase", "event_id": "b", "user_id": "u", "experiment_id": "e"},
        {"event_type": "click", "event_id": "a", "user_id": "u", "experiment_id": "e"},
        {"event_type": "click", "event_id": "c", "user_id": "u", "experiment_id": "none"},
        {"event_type": "click", "event_id": "d", "user_id": "u", "experiment_id": "e", "variant_id": control},
        {"event_type": "click", "event_id": "e", "user_id": "stranger", "experiment_id": "e"},
        "nonsense",
        {"event_type": "click", "event_id": "f", "user_id": "u", "experiment_id": "draft"},
        {"event_type": "click", "event_id": "g", "experiment_id": "e"},
        {"event_type": "click", "user_id": "u"},
        {"event_type": "click", "event_id": "h", "user_id": "u", "experiment_id": "e", "variant_id": 999_999},
        {"event_type": "purchase", "event_id": "i", "user_id": "u", "experiment_id": "e", "value": 3},
    ]});
    let results = app.track_any(batch).await.ok()["results"].clone();
    let results = results.as_array().unwrap();
    let column = |name: &str| {
        results
            .iter()
            .map(|result| result[name].clone())
            .collect::<Vec<Value>>()
    };
    assert_eq!(
        column("index"),
        (0..12).map(|n| json!(n)).collect::<Vec<_>>()
    );
    let statuses: Vec<u64> = column("status")
        .iter()
        .map(|status| status.as_u64().unwrap())
        .collect();
    assert_eq!(
        statuses,
        [200, 422, 200, 404, 409, 422, 422, 409, 422, 200, 422, 200]
    );
    for result in results {
        assert_eq!(result["success"], result["status"] == 200, "{result}");
        assert_eq!(
            result["error"].is_string(),
            result["status"] != 200,
            "{result}"
        );
    }
    assert_eq!(results[0]["event_id"], "a");
    assert_eq!(
        (&results[0]["duplicate"], &results[2]["duplicate"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(results[9]["recorded"], json!([experiment.id]));
    let stored = app
        .database()
        .rows("SELECT event_id FROM experiment_events WHERE length(event_id) = 1 ORDER BY 1")
        .await;
    assert_eq!(stored, [["a"], ["i"]]);
    assert_eq!(events(&app).await, 3, "and the one without an id");
}

/// A batch fails as a whole when it is malformed or too long, and then nothing of it is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_fails_as_a_whole() {
    let app = TestApp::start().await;
    scene(&app).await;
    let event = |n: usize| json!({"event_type": "click", "event_id": n.to_string(), "user_id": "u", "experiment_id": "e"});
    let batch = |count: usize| json!({"events": (0..count).map(event).collect::<Vec<_>>()});
    let problem = app
        .track_any(batch(1_001))
        .await
        .problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/events");
    let mut both = batch(2);
    both["events"][1]["userId"] = json!("u");
    app.track_any(both).await.problem(400, "malformed_json");
    for not_a_list in [
        json!({"events": {}}),
        json!({"events": "a"}),
        json!({"events": 1}),
    ] {
        app.track_any(not_a_list)
            .await
            .problem(422, "validation_failed");
    }
    let cut = serde_json::to_string(&batch(2)).unwrap();
    app.post_bytes("/api/v1/experiments/track", cut[..cut.len() - 3].to_owned())
        .await
        .problem(400, "malformed_json");
    assert_eq!(events(&app).await, 0);
    assert_eq!(app.track_any(batch(0)).await.ok(), json!({"results": []}));
    let full = app.track_any(batch(1_000)).await.ok();
    assert!(
        full["results"]
            .as_array()
            .unwrap()
            .iter()
            .all(|result| result["success"] == true)
    );
    assert_eq!(events(&app).await, 1_000);
}

/// While the row cannot be written there is no answer: the 200 comes after the commit.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_comes_after_the_commit() {
    let app = TestApp::start().await;
    scene(&app).await;
    let blocker = app.database().connect().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE experiment_event_keys IN SHARE MODE")
        .await
        .unwrap();
    let client = app.clone();
    let body = json!({"event_id": "x", "user_id": "u", "experiment_id": "e"});
    let mut answer = tokio::spawn(async move { client.track("click", body).await });
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    podium_tests::eventually("the writer waits for the lock", async || {
        tokio::select! {
            early = &mut answer => panic!("answered before the commit: {early:?}"),
            waiting = app.database().number(waiting) => waiting > 0,
        }
    })
    .await;
    blocker.batch_execute("COMMIT").await.unwrap();
    let answer = answer.await.unwrap();
    // On a machine that stood still for a second the writer's own limit came first; then it is not there either.
    assert!(
        matches!(answer.status, 200 | 503),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert_eq!(events(&app).await, i64::from(answer.status == 200));
}
