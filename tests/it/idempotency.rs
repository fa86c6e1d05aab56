//! The same event id counts once, however often and wherever it arrives.

use futures_util::future::join_all;
use podium_tests::{Experiment, TestApp};
use serde_json::{Value, json};

async fn scene(app: &TestApp) -> Experiment {
    let experiment = app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    experiment
}

fn purchase(id: &str, value: i64) -> Value {
    json!({"event_id": id, "user_id": "u", "experiment_id": "e", "value": value})
}

async fn clicks(app: &TestApp) -> Vec<Vec<String>> {
    app.fold().await;
    let sums = "SELECT sum(sum_purchases), trim_scale(sum(sum_purchase_value)), (SELECT count(*) FROM experiment_events)
                FROM variant_moments";
    app.database().rows(sums).await
}

/// Fifty copies at once, over two replicas: one is new, all others are duplicates.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_copies_count_once() {
    let app = TestApp::start().await;
    scene(&app).await;
    let replica = app.replica().await;
    for id in ["first", "second", "0190b6c0-5d5e-7c33-8f1c-7f9f7b1c2d3e"] {
        let copies = (0..50).map(|n: usize| {
            let client = if n.is_multiple_of(2) {
                app.clone()
            } else {
                replica.clone()
            };
            async move { client.track("purchase", purchase(id, 5)).await.ok() }
        });
        let answers = join_all(copies).await;
        let new = answers
            .iter()
            .filter(|answer| answer["duplicate"] == false)
            .count();
        assert_eq!(new, 1, "{id}");
        assert!(
            answers
                .iter()
                .all(|answer| answer["success"] == true && answer["event_id"] == id)
        );
    }
    assert_eq!(clicks(&app).await, [["3", "15", "3"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_body_wins() {
    let mut app = TestApp::start().await;
    scene(&app).await;
    assert_eq!(
        app.track("purchase", purchase("x", 5)).await.ok()["duplicate"],
        false
    );
    assert_eq!(
        app.track("purchase", purchase("x", 9)).await.ok()["duplicate"],
        true
    );
    assert_eq!(
        app.track("click", purchase("x", 9)).await.ok()["duplicate"],
        true
    );
    app.restart().await;
    assert_eq!(
        app.track("purchase", purchase("x", 9)).await.ok()["duplicate"],
        true
    );
    assert_eq!(clicks(&app).await, [["1", "5", "1"]]);
    assert_eq!(
        app.track("purchase", purchase("X", 9)).await.ok()["duplicate"],
        false,
        "ids are compared exactly"
    );
}

/// Also inside of one batch, where the first of the same id is the one that is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn copies_in_one_batch_count_once() {
    let app = TestApp::start().await;
    scene(&app).await;
    let events: Vec<Value> = (0..10)
        .map(|n| {
            let mut event = purchase("same", n);
            event["event_type"] = json!("purchase");
            event
        })
        .collect();
    for expected in [1, 0] {
        let answer = app.track_any(json!({"events": events})).await.ok();
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["success"] == true));
        let new: Vec<&Value> = results
            .iter()
            .filter(|result| result["duplicate"] == false)
            .collect();
        assert_eq!(new.len(), expected);
        assert!(new.iter().all(|result| result["index"] == 0));
    }
    assert_eq!(clicks(&app).await, [["1", "0", "1"]]);
}

/// An id belongs to its experiment: another experiment counts its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_unique_in_its_experiment() {
    let app = TestApp::start().await;
    let first = scene(&app).await;
    let second = app.experiment("other").running().await;
    app.variant_of("other", "u").await;
    assert_eq!(
        app.track("purchase", purchase("x", 5)).await.ok()["duplicate"],
        false
    );
    let everywhere = json!({"event_id": "x", "user_id": "u", "value": 5});
    let answer = app.track("purchase", everywhere.clone()).await.ok();
    assert_eq!(answer["recorded"], json!([first.id, second.id]));
    assert_eq!(answer["duplicate"], false, "it is new in one of them");
    assert_eq!(
        app.track("purchase", everywhere).await.ok()["duplicate"],
        true
    );
    let stored = app
        .database()
        .rows("SELECT experiment_id, count(*) FROM experiment_events GROUP BY 1 ORDER BY 1")
        .await;
    assert_eq!(
        stored,
        [
            [first.id.to_string(), "1".into()],
            [second.id.to_string(), "1".into()]
        ]
    );
}

/// An event that arrived in another week lies in another partition, and its id is known all the same.
#[tokio::test(flavor = "multi_thread")]
async fn ids_are_known_across_partitions() {
    let app = TestApp::start().await;
    scene(&app).await;
    app.track("purchase", purchase("x", 5)).await.ok();
    let partition = "SELECT tableoid::regclass FROM experiment_events";
    let this_week = app.database().text(partition).await;
    app.database()
        .execute(
            "UPDATE experiment_events SET created_at = created_at - interval '7 days';
             UPDATE experiment_event_keys SET created_at = created_at - interval '7 days'",
        )
        .await;
    assert_ne!(app.database().text(partition).await, this_week);
    assert_eq!(
        app.track("purchase", purchase("x", 9)).await.ok()["duplicate"],
        true
    );
    assert_eq!(clicks(&app).await, [["1", "5", "1"]]);
}
