//! W3C Trace Context through real HTTP.

use podium_tests::{Answer, TestApp};
use reqwest::Method;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn answered(app: &TestApp, path: &str, traceparent: &str) -> String {
    let request = app.request(Method::GET, path);
    let answer = Answer::of(request.header("traceparent", traceparent)).await;
    answer.header("traceparent").to_owned()
}

/// An answer names the caller's trace and a place of its own in it, on public and on guarded routes, also when it is an error.
#[tokio::test(flavor = "multi_thread")]
async fn the_callers_trace_goes_on() {
    let app = TestApp::start().await;
    for path in ["/livez", "/api/v1/admin/experiments", "/nothing"] {
        let ours = answered(&app, path, &format!("00-{TRACE}-00f067aa0ba902b7-01")).await;
        assert!(
            ours.starts_with(&format!("00-{TRACE}-")) && ours.ends_with("-01") && ours.len() == 55,
            "{path}: {ours}"
        );
        assert!(!ours.contains("00f067aa0ba902b7"), "a place of its own");
    }
}

/// A header that breaks the rules begins a new trace; without one the answer is as short as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_header_begins_a_new_trace() {
    let app = TestApp::start().await;
    for bad in ["", "nonsense", &format!("ff-{TRACE}-00f067aa0ba902b7-01")] {
        let ours = answered(&app, "/livez", bad).await;
        assert_eq!(ours.len(), 55, "{bad}: {ours}");
        assert!(!ours.contains(TRACE), "{bad}: {ours}");
    }
    assert_eq!(app.get("/livez").await.header("traceparent"), "");
}
