//! Spans arrive at a collector.

use podium_tests::sink::{Reaction, Sink};
use podium_tests::{Answer, TestApp, eventually, token};
use reqwest::Method;
use serde_json::json;

const CALLER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PLACE: [u8; 8] = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The caller's trace, the route and the status arrive, what names a unit does not; a trace that nobody samples is not told.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_to_a_collector() {
    let collector =
        Sink::start(|_, _| Reaction::Answer(200, "content-type: application/x-protobuf\r\n", ""))
            .await;
    let app = TestApp::setup()
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .variable(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20for-spans,x-shop=one",
        )
        .variable("OTEL_EXPORTER_OTLP_TIMEOUT", "20000")
        .start()
        .await;
    app.experiment("e").running().await;
    let assign = async |sampled: &str, unit: &str| {
        let traceparent = format!("00-{CALLER}-00f067aa0ba902b7-{sampled}");
        let request = app
            .request(Method::POST, "/api/v1/experiments/assign")
            .header("traceparent", traceparent)
            .header("x-request-id", format!("request-{sampled}"))
            .json(&json!({"experiment": "e", "user_id": unit}));
        Answer::of(request).await.ok();
    };
    assign("00", "unseen-unit").await;
    assign("01", "seen-unit").await;
    let admin = app
        .request(Method::GET, "/api/v1/admin/experiments")
        .bearer_auth(token::valid("1"))
        .header("x-request-id", "request-admin");
    Answer::of(admin).await.ok();
    // The end sends what waits.
    drop(app);
    eventually("the spans arrive", async || {
        !collector.received().is_empty()
    })
    .await;
    let received = collector.received();
    for request in &received {
        assert_eq!(request.path, "/v1/traces");
        assert_eq!(request.header("authorization"), "Bearer for-spans");
        assert_eq!(request.header("x-shop"), "one");
    }
    let told: Vec<u8> = received
        .iter()
        .flat_map(|request| request.body.clone())
        .collect();
    let trace = u128::from_str_radix(CALLER, 16).unwrap().to_be_bytes();
    for part in [
        trace.as_slice(),
        &PLACE,
        b"POST /api/v1/experiments/assign",
        b"request-01",
        b"GET /api/v1/admin/experiments",
        b"request-admin",
        b"podium-api",
    ] {
        assert!(holds(&told, part), "{}", String::from_utf8_lossy(part));
    }
    for part in ["request-00", "seen-unit"] {
        assert!(!holds(&told, part.as_bytes()), "{part}");
    }
}
