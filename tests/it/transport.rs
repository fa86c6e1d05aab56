//! How an event may be sent: headers, query parameters, beacons, compression.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use podium_tests::{Answer, Experiment, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

const CLICK: &str = "/api/v1/experiments/track-click";

async fn scene(app: &TestApp) -> Experiment {
    let experiment = app.experiment("e").running().await;
    for unit in ["u", "s"] {
        app.variant_of("e", unit).await;
    }
    experiment
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Experiment, variant and session may stand in the query or in headers, as a name or as an id.
#[tokio::test(flavor = "multi_thread")]
async fn headers_and_query_name_experiment_variant_and_session() {
    let app = TestApp::start().await;
    let experiment = scene(&app).await;
    let (id, variant) = (
        experiment.id.to_string(),
        experiment
            .variant(experiment.split("s").unwrap())
            .to_string(),
    );
    let beside = [
        ("experiment_id", "x-experiment-id", &id),
        ("variant_id", "x-variant-id", &variant),
        ("session_id", "x-session-id", &"s".to_owned()),
    ];
    let mut by_header = app
        .request(Method::POST, CLICK)
        .json(&json!({"event_id": "header"}));
    let mut query = Vec::new();
    for (parameter, header, value) in beside {
        by_header = by_header.header(header, value);
        query.push(format!("{parameter}={value}"));
    }
    let by_query = app
        .request(Method::POST, &format!("{CLICK}?{}", query.join("&")))
        .json(&json!({"event_id": "query"}));
    let by_name = app
        .request(
            Method::POST,
            &format!("{CLICK}?experiment_id=%65&session_id=s&other=1"),
        )
        .json(&json!({"event_id": "name"}));
    for request in [by_header, by_query, by_name] {
        let answer = Answer::of(request).await.ok();
        assert!(
            answer.get("recorded").is_none(),
            "it names its experiment: {answer}"
        );
    }
    let stored = app.database().rows("SELECT event_id, user_id, session_id, experiment_id, variant_id FROM experiment_events ORDER BY id").await;
    for (row, name) in stored.iter().zip(["header", "query", "name"]) {
        assert_eq!(row, &[name, "s", "s", &id, &variant]);
    }
    assert_eq!(stored.len(), 3);
}

/// What the body says comes before what stands beside it.
#[tokio::test(flavor = "multi_thread")]
async fn the_body_comes_first() {
    let app = TestApp::start().await;
    let experiment = scene(&app).await;
    let body = json!({"event_id": "x", "user_id": "u", "session_id": "s", "experiment_id": "e"});
    let request = app
        .request(
            Method::POST,
            &format!("{CLICK}?experiment_id=999999&session_id=other"),
        )
        .header("x-session-id", "third")
        .json(&body);
    Answer::of(request).await.ok();
    let stored = app
        .database()
        .rows("SELECT user_id, session_id, experiment_id FROM experiment_events")
        .await;
    assert_eq!(stored, [["u", "s", &experiment.id.to_string()]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_beside_the_body_is_checked_like_the_body() {
    let app = TestApp::start().await;
    scene(&app).await;
    let long = "x".repeat(256);
    for (query, status, code) in [
        ("experiment_id=999999".to_owned(), 404, "not_found"),
        ("experiment_id=none".to_owned(), 404, "not_found"),
        (
            "experiment_id=e&variant_id=999999".to_owned(),
            422,
            "validation_failed",
        ),
        (
            "experiment_id=e&variant_id=none".to_owned(),
            422,
            "validation_failed",
        ),
        (format!("session_id={long}"), 422, "validation_failed"),
        (format!("experiment_id={long}"), 422, "validation_failed"),
        ("experiment_id=%00".to_owned(), 422, "validation_failed"),
        ("session_id=a%0Ab".to_owned(), 422, "validation_failed"),
    ] {
        let answer = app
            .post(&format!("{CLICK}?{query}"), &json!({"user_id": "u"}))
            .await;
        answer.problem(status, code);
    }
    for (header, value) in [
        ("x-session-id", "a\tb"),
        ("x-experiment-id", "a\tb"),
        ("x-variant-id", "none"),
    ] {
        let body = json!({"user_id": "u", "experiment_id": if header == "x-variant-id" { json!("e") } else { Value::Null }});
        let request = app
            .request(Method::POST, CLICK)
            .header(header, value)
            .json(&body);
        Answer::of(request).await.problem(422, "validation_failed");
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_events")
            .await,
        0
    );
}

/// A header that is no plain text is not silently left out: the event would be somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_beyond_ascii_is_read_or_refused() {
    let app = TestApp::start().await;
    scene(&app).await;
    app.variant_of("e", "s\u{e9}ance").await;
    let body = json!({"event_id": "x", "experiment_id": "e"});
    let utf8 = app
        .request(Method::POST, CLICK)
        .header("x-session-id", "s\u{e9}ance".as_bytes())
        .json(&body);
    Answer::of(utf8).await.ok();
    assert_eq!(
        app.database()
            .text("SELECT user_id FROM experiment_events")
            .await,
        "s\u{e9}ance"
    );
    let garbage = app
        .request(Method::POST, CLICK)
        .header("x-session-id", &b"s\xff"[..])
        .json(&json!({"user_id": "u", "experiment_id": "e"}));
    Answer::of(garbage).await.problem(422, "validation_failed");
}

/// Browsers send beacons as text/plain; some clients name no type at all.
#[tokio::test(flavor = "multi_thread")]
async fn beacons_are_taken() {
    let app = TestApp::start().await;
    scene(&app).await;
    for (n, kind) in [
        "text/plain",
        "text/plain;charset=UTF-8",
        "Application/JSON; charset=utf-8",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        for path in [
            CLICK,
            "/api/v1/experiments/track",
            "/api/v1/experiments/assign",
        ] {
            let body = json!({"event_id": format!("{n}"), "event_type": "click", "user_id": "u", "experiment_id": "e"});
            let mut request = app.request(Method::POST, path).body(body.to_string());
            if !kind.is_empty() {
                request = request.header("content-type", kind);
            }
            Answer::of(request).await.ok();
        }
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_events")
            .await,
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_compressed() {
    let app = TestApp::start().await;
    scene(&app).await;
    let send = async |encoding: &str, body: Vec<u8>| {
        let request = app
            .request(Method::POST, CLICK)
            .header("content-type", "application/json");
        Answer::of(request.header("content-encoding", encoding).body(body)).await
    };
    let event = |id: &str| {
        json!({"event_id": id, "user_id": "u", "experiment_id": "e"})
            .to_string()
            .into_bytes()
    };
    send("gzip", gzip(&event("a"))).await.ok();
    send("GZIP", gzip(&event("b"))).await.ok();
    send("identity", event("c")).await.ok();
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_events")
            .await,
        3
    );
    send("gzip", event("plain"))
        .await
        .problem(400, "malformed_json");
    let cut = gzip(&event("cut"));
    send("gzip", cut[..cut.len() / 2].to_vec())
        .await
        .problem(400, "malformed_json");
    let bomb = gzip(&vec![b' '; 10 * 1024 * 1024]);
    assert!(bomb.len() < 64 * 1024, "small on the wire");
    send("gzip", bomb).await.problem(413, "too_large");
    for unknown in ["br", "zstd", "deflate", "gzip, gzip", "x"] {
        send(unknown, event("unknown"))
            .await
            .problem(415, "unsupported_media_type");
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_events")
            .await,
        3
    );
}
