//! Who was told a variant keeps it.

use std::collections::HashMap;

use futures_util::future::join_all;
use podium_tests::TestApp;
use serde_json::{Value, json};

const BULK: &str = "/api/v1/experiments/assign/bulk";

fn users(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user-{n}")).collect()
}

/// User to variant, in one request.
async fn variants(app: &TestApp, users: &[String]) -> HashMap<String, String> {
    let answer = app
        .post(BULK, &json!({"experiment": "e", "user_ids": users}))
        .await
        .ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let answers = answer["assignments"].as_array().unwrap();
    answers
        .iter()
        .map(|answer| (text(&answer["user_id"]), text(&answer["variant"])))
        .collect()
}

/// Weights, allocation and the set of variants change, processes come and go: nobody flips.
#[tokio::test(flavor = "multi_thread")]
async fn units_keep_their_variant_whatever_changes() {
    let mut app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let users = users(200);
    let told = variants(&app, &users).await;
    for change in [
        "UPDATE experiment_variants SET traffic_weight = 0 WHERE name = 'b'",
        "UPDATE experiments SET traffic_allocation = 0.0001",
        "INSERT INTO experiment_variants (experiment_id, name, traffic_weight) SELECT id, 'c', 10000 FROM experiments",
        "UPDATE experiments SET traffic_allocation = 100, epoch = epoch + 1",
    ] {
        app.change(change).await;
        assert_eq!(variants(&app, &users).await, told, "{change}");
        app.restart().await;
        assert_eq!(
            variants(&app, &users).await,
            told,
            "after a restart, {change}"
        );
        let replica = app.replica().await;
        assert_eq!(
            variants(&replica, &users).await,
            told,
            "on another replica, {change}"
        );
    }
    assert!(
        told.values().any(|variant| variant == "b")
            && told.values().any(|variant| variant == "control")
    );
    let rows = app
        .database()
        .text("SELECT count(*) || ' in epoch ' || max(epoch) FROM user_experiment_assignments")
        .await;
    assert_eq!(rows, "200 in epoch 1");
    assert_eq!(
        app.database()
            .number("SELECT count(DISTINCT variant_id) FROM user_experiment_assignments")
            .await,
        2
    );
    let newcomer = app.variant_of("e", "newcomer").await;
    assert_eq!(
        newcomer, "c",
        "new units go where today's weights send them"
    );
    let stored = format!(
        "SELECT epoch FROM user_experiment_assignments WHERE user_id = 'newcomer' AND experiment_id = {}",
        experiment.id
    );
    assert_eq!(
        app.database().number(&stored).await,
        2,
        "under today's epoch"
    );
}

/// The row is committed before the answer: it is there as soon as the answer is.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_stored() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    for user in users(20) {
        let variant = app.variant_of("e", &user).await;
        let stored = format!(
            "SELECT v.name FROM user_experiment_assignments a JOIN experiment_variants v ON v.id = a.variant_id
             WHERE a.user_id = '{user}'"
        );
        assert_eq!(app.database().text(&stored).await, variant);
    }
}

/// First calls of one unit at once, on two replicas, while the weights change under them: one variant each.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_first_calls_agree() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let replica = app.replica().await;
    let users = users(40);
    let swap = async {
        for weight in [0, 5, 0, 5] {
            app.change(&format!(
                "UPDATE experiment_variants SET traffic_weight = {weight} WHERE name = 'control'"
            ))
            .await;
        }
    };
    let ask = |user: &str, n: usize| {
        let client = if n.is_multiple_of(2) {
            app.clone()
        } else {
            replica.clone()
        };
        let user = user.to_owned();
        async move { client.variant_of("e", &user).await }
    };
    let asking = join_all(
        users
            .iter()
            .map(|user| join_all((0..6).map(|n| ask(user, n)))),
    );
    let (answers, ()) = tokio::join!(asking, swap);
    for (user, told) in users.iter().zip(answers) {
        assert!(
            told.iter()
                .all(|variant| variant == &told[0] && variant != "default"),
            "{user}: {told:?}"
        );
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM user_experiment_assignments")
            .await,
        40
    );
}

/// More units than memory holds: the table answers for the others.
#[tokio::test(flavor = "multi_thread")]
async fn units_beyond_the_memory_are_read_again() {
    let app = TestApp::setup()
        .variable("ASSIGNMENT_CACHE", "1000")
        .start()
        .await;
    app.experiment("e").running().await;
    let users = users(3_000);
    let mut told = HashMap::new();
    for part in users.chunks(1_000) {
        told.extend(variants(&app, part).await);
    }
    app.change("UPDATE experiment_variants SET traffic_weight = 0 WHERE name = 'b'")
        .await;
    for part in users.chunks(1_000) {
        for (user, variant) in variants(&app, part).await {
            assert_eq!(told[&user], variant, "{user}");
        }
    }
}

/// A change that one replica makes is heard by the others without being asked for.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_hear_of_changes() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    app.experiment("e").running().await;
    replica.hears_of_changes().await;
    assert_ne!(replica.variant_of("e", "u").await, "default");
    app.change("UPDATE experiments SET status = 'paused'").await;
    replica.hears_of_changes().await;
    assert_eq!(replica.variant_of("e", "u").await, "default");
}
