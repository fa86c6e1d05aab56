//! More than the database can take.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use podium_storage::StorageError;
use podium_tests::{ApiProcess, TestApp, eventually, scaled};
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

/// Transactions that meet on one row are tried again: what is acknowledged happened once, what is not happened never, and the
/// only error is one that a client may answer by trying again.
#[tokio::test(flavor = "multi_thread")]
async fn contended_transactions_are_tried_again() {
    let app = TestApp::start().await;
    app.database()
        .execute("CREATE TABLE counter AS SELECT 0::bigint AS n")
        .await;
    let database = app.state().database.clone();
    let one_more = async || -> Result<(), StorageError> {
        database
            .transaction_of_one_moment(async |tx| {
                let n: i64 = tx.query_one("SELECT n FROM counter", &[]).await?.get(0);
                tx.execute("UPDATE counter SET n = $1", &[&(n + 1)]).await?;
                Ok(())
            })
            .await
    };
    let contenders = (0..4).map(async |_| {
        let mut refused = 0;
        for _ in 0..scaled(25, 2_500) {
            if let Err(error) = one_more().await {
                assert!(error.is_contention(), "{}", error.chain());
                refused += 1;
            }
        }
        refused
    });
    let refused: u64 = join_all(contenders).await.into_iter().sum();
    let all = 4 * u64::try_from(scaled(25, 2_500)).unwrap();
    println!("{refused} of {all} contended transactions were given back to their clients");
    let counted = app.database().number("SELECT n FROM counter").await;
    assert_eq!(u64::try_from(counted).unwrap(), all - refused);
}

/// Answers of a time under load.
#[derive(Default)]
struct Answers {
    taken: usize,
    refused: usize,
    slowest_refusal: Duration,
}

/// So many clients send single events as fast as they are answered, until `until`.
async fn press(process: &ApiProcess, clients: usize, until: Instant, name: &str) -> Answers {
    let calls = (0..clients).map(async |client| {
        let mut answers = Answers::default();
        let mut number = 0;
        while Instant::now() < until {
            number += 1;
            let event = json!({"event_type": "click", "event_id": format!("{name}-{client}-{number}"), "user_id": "u",
                               "experiment_id": "e"});
            let begin = Instant::now();
            match process.post(TRACK, &event).await.status {
                200 => answers.taken += 1,
                429 | 503 => {
                    answers.refused += 1;
                    answers.slowest_refusal = answers.slowest_refusal.max(begin.elapsed());
                }
                status => panic!("{status}"),
            }
        }
        answers
    });
    let answers = join_all(calls).await.into_iter();
    answers.fold(Answers::default(), |sum, one| Answers {
        taken: sum.taken + one.taken,
        refused: sum.refused + one.refused,
        slowest_refusal: sum.slowest_refusal.max(one.slowest_refusal),
    })
}

/// Clients that keep the service busy, and then many times as many: what it takes does not break down, what is refused is
/// refused soon, memory stays bounded, and what was acknowledged is there. `PODIUM_OVERLOAD_SECONDS` says for how long each.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn overload_does_not_break_it_down() {
    let seconds = std::env::var("PODIUM_OVERLOAD_SECONDS").map_or(30, |text| text.parse().unwrap());
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    let process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", app.database().url())]).await;
    let until = || Instant::now() + Duration::from_secs(seconds);
    let usual = press(&process, 64, until(), "usual").await;
    let over = press(&process, 64 * 5, until(), "over").await;
    let rate = |taken: usize| u64::try_from(taken).unwrap() / seconds;
    println!(
        "64 clients: {} events/s; 320 clients: {} events/s, {} refused, the slowest after {:?}; at most {} MiB",
        rate(usual.taken),
        rate(over.taken),
        over.refused,
        over.slowest_refusal,
        process.peak_memory_mib()
    );
    let stored = app
        .database()
        .number("SELECT count(*) FROM experiment_events")
        .await;
    let taken = i64::try_from(usual.taken + over.taken).unwrap();
    assert!(stored >= taken, "{stored} of {taken}");
    assert!(process.peak_memory_mib() < 512);
}
