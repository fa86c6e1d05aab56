//! Whatever bytes come, the answer is a success or a problem document, and never our fault.

use std::panic::AssertUnwindSafe;

use podium_tests::{Answer, Client, Rng, TestApp};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Handle;

const PATHS: [&str; 5] = [
    "/api/v1/experiments/assign",
    "/api/v1/experiments/assign/bulk",
    "/api/v1/experiments/track",
    "/api/v1/experiments/track-click",
    "/api/v1/experiments/track-purchase",
];

async fn scene() -> TestApp {
    let app = TestApp::start().await;
    app.experiment("e").on("newsfeed").running().await;
    app.variant_of("e", "u").await;
    app
}

/// Bodies that are fine, to begin with.
fn bodies() -> Vec<String> {
    [
        json!({"user_id": "u", "experiment": "e", "context": {"page_type": "pdp", "placement": "newsfeed", "locale": "en-US"}}),
        json!({"session_id": 12, "placement": "newsfeed"}),
        json!({"experiment": 1, "user_ids": ["a", 2, "c"]}),
        json!({"event_type": "purchase", "event_id": "x", "user_id": "u", "session_id": "s", "experiment_id": "e", "variant_id": 1, "item_id": 5,
               "position": 3, "value": 85.25, "quantity": 1, "occurred_at": "2024-05-01T10:00:00Z", "metadata": {"a": [1, null, "x"]}}),
        json!({"events": [{"event_type": "click", "user_id": "u"}, {"event_type": "request", "user_id": "u", "latency_ms": 1.5, "is_error": true}]}),
    ]
    .iter()
    .map(Value::to_string)
    .collect()
}

/// A success with JSON, or a refusal that is a whole problem document.
fn is_well_behaved(answer: &Answer) {
    assert!(answer.status < 500, "{} {}", answer.status, answer.text());
    if answer.status == 200 {
        assert!(answer.json().is_object());
    } else {
        answer.any_problem();
    }
}

/// Runs a property over requests from a printed seed. A failure shows the smallest input that fails.
fn check<S>(cases: u32, strategy: &S, send: impl AsyncFn(S::Value) -> Answer)
where
    S: Strategy,
{
    let mut seed = Rng::printed();
    let mut bytes = [0; 32];
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&seed.bits().to_le_bytes());
    }
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(strategy, |input| {
        let answer = Handle::current().block_on(send(input));
        std::panic::catch_unwind(AssertUnwindSafe(|| is_well_behaved(&answer)))
            .map_err(|_| TestCaseError::fail(format!("{} {}", answer.status, answer.text())))
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

async fn send(client: &Client, path: &str, kind: &str, body: Vec<u8>) -> Answer {
    let request = client
        .request(Method::POST, path)
        .header("content-type", kind);
    Answer::of(request.body(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes() {
    let app = scene().await;
    let client = app.clone();
    let strategy = (
        0..PATHS.len(),
        prop_oneof!["application/json", "text/plain", ".{0,20}"],
        proptest::collection::vec(any::<u8>(), 0..300),
    );
    tokio::task::block_in_place(|| {
        check(600, &strategy, async |(path, kind, body)| {
            let kind: String = kind.chars().filter(char::is_ascii_graphic).collect();
            send(&client, PATHS[path], &kind, body).await
        });
    });
}

/// Valid bodies with bytes changed, put in, taken out, and doubled.
#[tokio::test(flavor = "multi_thread")]
async fn mutated_bodies() {
    let app = scene().await;
    let client = app.clone();
    let mutation = (any::<prop::sample::Index>(), any::<u8>(), 0..5_u8);
    let strategy = (
        0..PATHS.len(),
        proptest::sample::select(bodies()),
        proptest::collection::vec(mutation, 0..5),
    );
    tokio::task::block_in_place(|| {
        check(1_200, &strategy, async |(path, body, mutations)| {
            let mut bytes = body.into_bytes();
            for (at, byte, kind) in mutations {
                let at = at.index(bytes.len().max(1));
                match kind {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 => bytes.insert(at.min(bytes.len()), byte),
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    3 => bytes.truncate(at),
                    _ => bytes.extend_from_within(at.min(bytes.len())..),
                }
            }
            send(&client, PATHS[path], "application/json", bytes).await
        });
    });
}

/// Any JSON under the names that the routes know, in both spellings.
#[tokio::test(flavor = "multi_thread")]
async fn any_value_in_any_field() {
    let app = scene().await;
    let client = app.clone();
    let names = proptest::sample::select(vec![
        "user_id",
        "userId",
        "session_id",
        "sessionId",
        "experiment",
        "experiment_id",
        "variant_id",
        "variant",
        "context",
        "placement",
        "page_type",
        "event_id",
        "event_type",
        "events",
        "user_ids",
        "item_id",
        "brand_id",
        "module_id",
        "position",
        "value",
        "quantity",
        "latency_ms",
        "is_error",
        "occurred_at",
        "metadata",
        "decision_id",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(u|e|b|click|purchase|default|.{0,20})".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_]{0,12}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let strategy = (
        0..PATHS.len(),
        proptest::collection::btree_map(names, value, 0..8),
    );
    tokio::task::block_in_place(|| {
        check(1_200, &strategy, async |(path, members)| {
            let body: Value = members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            send(
                &client,
                PATHS[path],
                "application/json",
                body.to_string().into_bytes(),
            )
            .await
        });
    });
}
