//! What the log says, and what it never says.

use podium_tests::{Answer, ApiProcess, Client, TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::PROGRAM;

const UNIT: &str = "someone@example.com";

/// Everything that a storefront and an administrator do, well and badly.
async fn scenario(client: &Client) {
    for (path, body) in [
        ("assign", json!({"experiment": "e", "user_id": UNIT})),
        ("assign", json!({"experiment": "missing", "user_id": UNIT})),
        ("assign/bulk", json!({"user_id": UNIT})),
        (
            "track-click",
            json!({"experiment_id": "e", "user_id": UNIT, "metadata": {"note": UNIT}}),
        ),
        (
            "track-purchase",
            json!({"experiment_id": "e", "user_id": UNIT, "value": "free"}),
        ),
        (
            "track",
            json!({"events": [{"event_type": "click", "user_id": UNIT, "variant_id": 99}]}),
        ),
    ] {
        client
            .post(&format!("/api/v1/experiments/{path}"), &body)
            .await;
    }
    let body = json!({"name": "new", "description": UNIT});
    let experiments = "/api/v1/admin/experiments";
    client.admin(Method::POST, experiments, Some(&body)).await;
    for path in [
        format!("{experiments}/1/assignments/{UNIT}"),
        format!("/api/v1/admin/{UNIT}"),
    ] {
        client.admin(Method::GET, &path, None).await;
    }
    let stranger = client.with_token(&format!("{}x", podium_tests::token::valid(UNIT)));
    stranger.admin(Method::GET, experiments, None).await;
}

/// At the most talkative level of our own code the log names no unit, no token, no secret and no password, in either format.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_nobody_and_keeps_secrets() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    for format in ["json", "text"] {
        let url = app.database().url();
        let variables = [
            ("DATABASE_URL", url),
            ("LOG_FORMAT", format),
            (
                "RUST_LOG",
                "info,podium_api=trace,podium_serving=trace,podium_storage=trace",
            ),
        ];
        let process = ApiProcess::start(PROGRAM, &variables).await;
        scenario(&process).await;
        eventually("the last line is written", async || {
            process.log().matches("podium_api::access").count() >= 10
        })
        .await;
        let log = process.log();
        for secret in [
            UNIT,
            "someone",
            podium_tests::app::SECRET,
            "eyJ",
            "Bearer",
            url,
        ] {
            assert!(
                !log.contains(secret),
                "{format}: {secret} stands in the log:\n{log}"
            );
        }
        assert!(!log.contains('\u{1b}'), "no colours in a file");
    }
}

/// In JSON every line is one object; a line of a request has its id and its trace, also where the caller named them.
#[tokio::test(flavor = "multi_thread")]
async fn lines_lead_to_requests() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let variables = [
        ("DATABASE_URL", app.database().url()),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "info,podium_api::access=debug"),
    ];
    let process = ApiProcess::start(PROGRAM, &variables).await;
    let body = json!({"experiment": "e", "user_id": UNIT});
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let request = process.request(Method::POST, "/api/v1/experiments/assign");
    let request = request
        .header("x-request-id", "order-7")
        .header("traceparent", &parent);
    let answer = Answer::of(request.json(&body)).await;
    assert_eq!(answer.header("x-request-id"), "order-7");
    let fresh = process.get("/livez").await;
    let fresh = fresh.header("x-request-id");
    let path = "/api/v1/admin/experiments";
    let change = json!({"name": "new"});
    process.admin(Method::POST, path, Some(&change)).await;
    let mut lines: Vec<Value> = Vec::new();
    eventually("three lines are written", async || {
        let log = process.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        lines = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .filter(|line: &Value| line["target"] == "podium_api::access")
            .collect();
        lines.len() >= 3
    })
    .await;
    let first = &lines[0]["fields"];
    assert_eq!(first["request.id"], "order-7");
    assert_eq!(first["trace.id"], TRACE);
    assert_eq!(first["http.route"], "/api/v1/experiments/assign");
    assert_eq!(first["http.status"], 200);
    assert_eq!(lines[0]["level"], "DEBUG");
    let second = &lines[1]["fields"];
    assert_eq!(second["request.id"], fresh);
    assert_eq!(second["trace.id"], fresh);
    assert_eq!(
        lines[2]["level"], "INFO",
        "changes are always told: {}",
        lines[2]
    );
    assert_eq!(lines[2]["fields"]["http.status"], 201);
}

/// The lines of a log in JSON that say this.
fn lines(log: &str, message: &str) -> Vec<Value> {
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let read = whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    read.filter(|line: &Value| line["fields"]["message"] == message)
        .collect()
}

/// The request id of an internal error leads to its cause, with an Idempotency-Key too, which is free again.
#[tokio::test(flavor = "multi_thread")]
async fn an_internal_error_has_its_cause_in_the_log() {
    let app = TestApp::start().await;
    let variables = [
        ("DATABASE_URL", app.database().url()),
        ("LOG_FORMAT", "json"),
    ];
    let process = ApiProcess::start(PROGRAM, &variables).await;
    // The handler fails; what goes before it, and reads the audit log too, does not.
    app.database()
        .execute("ALTER TABLE experiments RENAME TO gone")
        .await;
    for (id, key) in [("plain", None), ("keyed", Some("k")), ("again", Some("k"))] {
        let mut request = process
            .request(Method::POST, "/api/v1/admin/experiments")
            .bearer_auth(podium_tests::token::valid("1"))
            .header("x-request-id", id);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = Answer::of(request.json(&json!({"name": "a"}))).await;
        answer.problem(500, "internal");
        let mut cause = String::new();
        eventually("the error is logged", async || {
            let errors = lines(&process.log(), "internal error");
            let own = errors
                .iter()
                .find(|line| line["fields"]["request.id"] == id);
            own.is_some_and(|line| {
                line["fields"]["cause"]
                    .as_str()
                    .unwrap()
                    .clone_into(&mut cause);
                true
            })
        })
        .await;
        assert!(cause.contains("experiments"), "{id}: {cause}");
    }
}

/// Strangers do not decide how much is logged: beyond the limit of bad tokens neither a refusal nor the request has a line.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_limit_is_not_logged() {
    const PATH: &str = "/api/v1/admin/experiments";
    let app = TestApp::start().await;
    let variables = [
        ("DATABASE_URL", app.database().url()),
        ("LOG_FORMAT", "json"),
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_BAD_TOKENS_PER_MINUTE", "2"),
    ];
    let process = ApiProcess::start(PROGRAM, &variables).await;
    let stranger = process.with_token("nonsense");
    let mut refused = 0;
    for _ in 0..40 {
        let answer = stranger.admin(Method::POST, PATH, Some(&json!({}))).await;
        match answer.status {
            401 => refused += 1,
            status => assert_eq!(status, 429),
        }
    }
    assert!(refused < 40);
    let made = json!({"name": "new"});
    let made = process.admin(Method::POST, PATH, Some(&made)).await;
    assert_eq!(made.status, 201);
    let mut requests = Vec::new();
    eventually("the last line is written", async || {
        requests = lines(&process.log(), "a change was asked for");
        let last = requests.last();
        last.is_some_and(|line| line["fields"]["http.status"] == 201)
    })
    .await;
    assert_eq!(requests.len(), refused + 1);
    assert_eq!(lines(&process.log(), "request refused").len(), refused);
}
