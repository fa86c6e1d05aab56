//! More than the database can take.

use std::collections::HashSet;

use futures_util::future::join_all;
use podium_tests::{ApiProcess, TestApp, eventually};
use serde_json::{Value, json};

use crate::PROGRAM;

const BATCHES: usize = 60;
const TRACK: &str = "/api/v1/experiments/track";

fn batch(number: usize) -> Value {
    let event = |n: usize| {
        json!({"event_type": "click", "event_id": format!("{number}-{n}"), "user_id": "u", "experiment_id": "e",
               "metadata": {"page": "a page with a name of some length"}})
    };
    json!({"events": (0..1_000).map(event).collect::<Vec<_>>()})
}

/// While the database takes nothing the queue fills to its bound and no further: what does not fit is refused with a
/// request to try again, memory stays bounded, and in the end every event is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_loses_nothing() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    let process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", app.database().url())]).await;
    process.variant_of("e", "u").await;
    let before = process.peak_memory_mib();
    let blocker = app.database().connect().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE experiment_event_keys IN SHARE MODE")
        .await
        .unwrap();
    let bodies: Vec<Value> = (0..BATCHES).map(batch).collect();
    let first: Vec<_> = bodies
        .iter()
        .map(|body| {
            let (client, body) = (process.client(), body.clone());
            tokio::spawn(async move { client.post(TRACK, &body).await })
        })
        .collect();
    eventually("some are refused", async || {
        let waiting = process.get("/api/v1/health").await.ok()["queues"]["events"]
            .as_u64()
            .unwrap();
        assert!(
            waiting <= 40,
            "{waiting} batches wait, more than 40,000 events"
        );
        first.iter().filter(|answer| answer.is_finished()).count() >= BATCHES - 42
    })
    .await;
    blocker.batch_execute("COMMIT").await.unwrap();
    let mut refused: HashSet<usize> = HashSet::new();
    for (number, answer) in join_all(first).await.into_iter().enumerate() {
        let answer = answer.unwrap();
        if answer.status == 503 {
            answer.problem(503, "unavailable");
            assert_eq!(answer.header("retry-after"), "1");
            refused.insert(number);
        } else {
            let results = answer.ok();
            assert!(
                results["results"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|result| result["success"] == true)
            );
        }
    }
    assert!(!refused.is_empty(), "60,000 events do not fit");
    for number in refused {
        eventually("a refused batch is taken later", async || {
            process.post(TRACK, &bodies[number]).await.status == 200
        })
        .await;
    }
    let stored = "SELECT count(*), count(DISTINCT event_id) FROM experiment_events";
    assert_eq!(app.database().rows(stored).await, [["60000", "60000"]]);
    let peak = process.peak_memory_mib();
    assert!(peak < 512, "{before} MiB before, {peak} MiB at most");
}

/// Reports and other people's slow questions do not make the storefront believe that the database is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_pool_is_no_outage() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let database = &app.state().database;
    let mut held = Vec::new();
    while let Ok(link) = database.report().await {
        held.push(link);
        assert!(held.len() < 100, "the pool has no bound");
    }
    assert!(
        database.is_reachable(),
        "a report had to wait, and that is all"
    );
    assert_ne!(app.variant_of("e", "u").await, "default");
    drop(held);
}
