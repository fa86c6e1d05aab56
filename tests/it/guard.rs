//! Active promotions: what `assign` answers, what events carry, and the guard that takes a promotion back.

use podium_promotion::Engine;
use podium_promotion::config::Environment;
use podium_storage::audit::Origin;
use podium_tests::{Experiment, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) const ID: &str = "00000000-0000-0000-0000-00000000000a";

pub(crate) fn origin() -> Origin {
    Origin {
        actor: "tests".to_owned(),
        request_id: "tests".to_owned(),
        address: None,
    }
}

pub(crate) fn engine(app: &TestApp) -> Engine {
    Engine::new(app.state().database.clone(), Environment::default())
}

/// Promotes `b` by hand, as the engine does, with a rollout.
pub(crate) async fn promote(app: &TestApp, experiment: &Experiment, rollout: &str) {
    let (id, name) = (experiment.id, &experiment.name);
    let (b, control) = (experiment.variant("b"), experiment.variant("control"));
    app.change(&format!(
        "BEGIN;
         INSERT INTO experiment_promotions (id, experiment_id, experiment_name, promoted_variant_id, promoted_variant_name,
             control_variant_id, control_variant_name, promotion_type, metadata)
         VALUES ('{ID}', {id}, '{name}', {b}, 'b', {control}, 'control', 'auto', '{{\"statusBefore\": \"running\"}}');
         UPDATE experiments SET status = 'completed', end_date = now(), winner_variant_id = {b} WHERE id = {id};
         INSERT INTO promotion_rollouts (promotion_id, steps, holdback, watch_hours, step_hours) VALUES ('{ID}', {rollout});
         COMMIT"
    ))
    .await;
}

async fn answers(app: &TestApp, users: &[String]) -> Vec<Value> {
    let mut answers = Vec::new();
    for user in users {
        answers.push(
            app.assign(json!({"user_id": user, "experiment": "e"}))
                .await,
        );
    }
    answers
}

fn reasons(answers: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    answers
        .iter()
        .map(|answer| (text(&answer["variant"]), text(&answer["reason"])))
        .collect()
}

/// A promotion moves units step by step, keeps some back, takes in new ones, and a rollback restores every byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_moves_units_and_a_rollback_restores_every_byte() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").on("newsfeed").running().await;
    let users: Vec<String> = (0..60).map(|n| format!("user-{n}")).collect();
    let before = answers(&app, &users).await;
    promote(&app, &experiment, "'{75,100}', 20, 24, 48").await;

    let first = answers(&app, &users).await;
    let has = |answers: &[Value], variant: &str, reason: &str| {
        let wanted = (variant.to_owned(), reason.to_owned());
        reasons(answers).contains(&wanted)
    };
    assert!(has(&first, "b", "PROMOTED") && has(&first, "control", "HOLDBACK"));
    assert!(has(&first, "control", "SPLIT"), "at 75 % some are left");
    for (old, new) in before.iter().zip(&first) {
        if old["variant"] == "b" {
            assert_eq!(new, old, "nobody leaves the winner");
        }
    }
    assert_eq!(
        answers(&app, &users).await,
        first,
        "equal calls get equal bytes"
    );
    let by_placement = app.assign(json!({"user_id": "user-0"})).await;
    assert_eq!(
        by_placement, first[0],
        "a promoted experiment keeps its placement"
    );

    for (user, told) in users.iter().zip(&first) {
        let path = format!("/api/v1/admin/experiments/e/assignments/{user}");
        let shown = app.admin(Method::GET, &path, None).await.data();
        assert_eq!(
            (&shown["variantName"], &shown["reason"]),
            (&told["variant"], &told["reason"]),
            "what the unit is told is what is shown"
        );
        let stored = shown["storedVariantId"].as_i64().unwrap();
        let own = experiment.variant(experiment.split(user).unwrap());
        assert_eq!(stored, own, "{shown}");
    }
    let archive = "/api/v1/admin/experiments/e/archive";
    app.admin(Method::POST, archive, None)
        .await
        .problem(409, "conflict");

    app.change("UPDATE promotion_rollouts SET step = 1").await;
    let last = answers(&app, &users).await;
    for (old, new) in first.iter().zip(&last) {
        assert!(old["variant"] != "b" || new["variant"] == "b");
        assert!(new["variant"] == "b" || new["reason"] == "HOLDBACK");
    }
    // Seen for the first time now: stored with its own variant, and in no analysis.
    let fresh: Vec<String> = (0..10).map(|n| format!("fresh-{n}")).collect();
    answers(&app, &fresh).await;
    app.fold().await;
    let stored = "SELECT count(*) FROM user_experiment_assignments WHERE user_id LIKE 'fresh-%' AND source = 2";
    assert_eq!(app.database().number(stored).await, 10);
    let counted = "SELECT sum(units)::bigint FROM variant_moments";
    assert_eq!(app.database().number(counted).await, 60);
    app.change("UPDATE promotion_rollouts SET watch_ended_at = now()")
        .await;
    let ended = answers(&app, &users).await;
    assert!(
        ended.iter().all(|answer| answer["variant"] == "b"),
        "the holdback ends"
    );

    engine(&app)
        .roll_back(ID.parse().unwrap(), "a test", true, None, &origin())
        .await
        .unwrap();
    app.hears_of_changes().await;
    assert_eq!(answers(&app, &users).await, before);
    for (user, answer) in fresh.iter().zip(answers(&app, &fresh).await) {
        assert_eq!(
            answer["variant"],
            experiment.split(user).unwrap(),
            "{answer}"
        );
    }
}

/// What a unit may say it was shown, and what becomes of its events.
#[tokio::test(flavor = "multi_thread")]
async fn events_during_a_promotion_feed_its_guard_alone() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let user = experiment.units_of(Some("control"), 1).remove(0);
    app.assign(json!({"user_id": user, "experiment": "e"}))
        .await;
    promote(&app, &experiment, "'{100}', 0, 24, 0").await;
    let told = app
        .assign(json!({"user_id": user, "experiment": "e"}))
        .await;
    assert_eq!(told["reason"], "PROMOTED");

    let buy = |variant: Value| json!({"user_id": user, "experiment_id": experiment.id, "variant_id": variant, "value": 5});
    app.track("purchase", buy(told["variant_id"].clone()))
        .await
        .ok();
    app.track("purchase", buy(experiment.variant("control").into()))
        .await
        .ok();
    // Without a name it is recorded under what the unit is told.
    let everywhere = app
        .track("purchase", json!({"user_id": user, "value": 5}))
        .await
        .ok();
    assert_eq!(everywhere["recorded"], json!([experiment.id]));
    let stranger = json!({"user_id": "stranger", "experiment_id": experiment.id, "value": 5});
    app.track("purchase", stranger)
        .await
        .problem(422, "no_assignment");
    app.fold().await;
    let rows = app
        .database()
        .rows("SELECT variant_id, counted, promotion_id, promotion_arm FROM experiment_events ORDER BY id")
        .await;
    let b = experiment.variant("b").to_string();
    let control = experiment.variant("control").to_string();
    let row = |variant: &str| {
        vec![
            variant.to_owned(),
            "f".to_owned(),
            ID.to_owned(),
            "1".to_owned(),
        ]
    };
    assert_eq!(rows, [row(&b), row(&control), row(&b)]);
    assert_eq!(
        app.database()
            .number("SELECT coalesce(sum(purchasing_units), 0)::bigint FROM variant_moments")
            .await,
        0
    );
    assert_eq!(
        app.database()
            .text("SELECT converted_arm FROM promotion_units")
            .await,
        "1"
    );
}

/// A planted collapse: the held-back go on buying, those that moved do not.
#[tokio::test(flavor = "multi_thread")]
async fn the_guard_takes_a_collapsed_promotion_back() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let users = experiment.units_of(Some("control"), 300);
    app.change(&format!(
        "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id)
         SELECT 'unit-' || n, {}, {} FROM unnest(ARRAY[{}]) AS n",
        experiment.id,
        experiment.variant("control"),
        users
            .iter()
            .map(|user| user.trim_start_matches("unit-"))
            .collect::<Vec<_>>()
            .join(",")
    ))
    .await;
    promote(&app, &experiment, "'{100}', 20, 168, 0").await;
    let watch = async || engine(&app).watch(&origin()).await.unwrap();
    assert_eq!(watch().await.rolled_back, []);
    let mut held_back = 0;
    for user in &users {
        let told = app
            .assign(json!({"user_id": user, "experiment": "e"}))
            .await;
        if told["reason"] == "HOLDBACK" {
            held_back += 1;
            app.track(
                "purchase",
                json!({"user_id": user, "experiment_id": experiment.id, "value": 5}),
            )
            .await
            .ok();
        }
    }
    assert!(held_back > 30, "{held_back}");
    app.fold().await;
    // Alerts can neither be read nor written, and nobody can be told: it is taken back all the same.
    app.database()
        .execute(
            "ALTER TABLE alerts RENAME TO gone; ALTER TABLE notification_outbox RENAME TO gone_too",
        )
        .await;
    assert!(engine(&app).watch(&origin()).await.is_err());
    app.database()
        .execute(
            "ALTER TABLE gone RENAME TO alerts; ALTER TABLE gone_too RENAME TO notification_outbox",
        )
        .await;
    let reason = "SELECT rollback_reason FROM experiment_promotions WHERE rollback_at IS NOT NULL";
    let reason = app.database().text(reason).await;
    assert!(reason.contains("converts worse"), "{reason}");
    assert_eq!(watch().await.rolled_back, [], "once");
    let status = "SELECT status FROM experiments";
    assert_eq!(app.database().text(status).await, "running");
    let log = "SELECT count(*) FROM ab_promotion_audit_log WHERE action = 'rolled_back' AND triggered_by = 'auto'";
    assert_eq!(app.database().number(log).await, 1);
    let evidence = "SELECT evidence -> 'guard' ->> 'finding' FROM promotion_decisions WHERE kind = 'rolled_back'";
    assert_eq!(app.database().text(evidence).await, "conversion_harm");
}

/// Requests of the winner's units fail: the guard proves it against the level in the experiment, or, where nothing is known
/// of that, a critical alert on the winner says so; either takes the promotion back.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_winner_take_a_promotion_back() {
    for (before, words, finding) in [
        (10_000, "errs more", "error_harm"),
        (0, "critical alert on b", "quiet"),
    ] {
        let app = TestApp::start().await;
        let experiment = app.experiment("e").running().await;
        promote(&app, &experiment, "'{100}', 20, 168, 0").await;
        app.database()
            .execute(&format!(
                "UPDATE promotion_rollouts SET requesting_units_before = {before}, erring_units_before = {before} / 100"
            ))
            .await;
        for (n, user) in experiment.units_of(Some("b"), 40).iter().enumerate() {
            app.assign(json!({"user_id": user, "experiment": "e"}))
                .await;
            let request = json!({"event_type": "request", "user_id": user, "experiment_id": experiment.id,
                "latency_ms": 100, "is_error": n % 2 == 0});
            app.track_any(request).await.ok();
        }
        app.fold().await;
        let watched = engine(&app).watch(&origin()).await.unwrap();
        assert_eq!(watched.rolled_back.len(), 1, "{words}: {watched:?}");
        let reason = watched.rolled_back[0].rollback_reason.clone().unwrap();
        assert!(reason.contains(words), "{reason}");
        let kept = "SELECT evidence -> 'guard' ->> 'finding' FROM promotion_decisions WHERE kind = 'rolled_back'";
        assert_eq!(app.database().text(kept).await, finding);
        let status = "SELECT status FROM experiments";
        assert_eq!(app.database().text(status).await, "running");
    }
}

/// Time moves steps and ends watches, once, whoever looks.
#[tokio::test(flavor = "multi_thread")]
async fn steps_and_ends_come_with_time() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    promote(&app, &experiment, "'{75,100}', 10, 336, 48").await;
    let watch = async || engine(&app).watch(&origin()).await.unwrap().ticked;
    assert_eq!(watch().await.advanced, 0);
    app.change("UPDATE promotion_rollouts SET step_since = now() - interval '48 hours'")
        .await;
    let (one, other) = (engine(&app), engine(&app));
    let origin = origin();
    let (one, other) = tokio::join!(one.watch(&origin), other.watch(&origin));
    assert_eq!(
        one.unwrap().ticked.advanced + other.unwrap().ticked.advanced,
        1
    );
    app.change("UPDATE experiment_promotions SET promoted_at = now() - interval '336 hours'")
        .await;
    assert_eq!(watch().await.ended, 1);
    assert_eq!(watch().await.ended, 0);
    app.hears_of_changes().await;
    let unit = experiment.units_of(Some("control"), 1).remove(0);
    let told = app
        .assign(json!({"user_id": unit, "experiment": "e"}))
        .await;
    assert_eq!(
        (told["variant"].as_str(), told["reason"].as_str()),
        (Some("b"), Some("PROMOTED"))
    );
}

/// A guard that cannot be read says nothing new: its alert stays open until it is read again.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_outlives_a_guard_that_cannot_be_read() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    promote(&app, &experiment, "'{100}', 20, 24, 0").await;
    app.change(&format!(
        "INSERT INTO alerts (experiment_id, experiment_name, variant_id, variant_name, kind, level, message)
         VALUES ({0}, 'e', {1}, 'b', 'guard_conversion', 'warning', 'm');
         UPDATE promotion_rollouts SET requesting_units_before = 1, erring_units_before = 5",
        experiment.id,
        experiment.variant("b")
    ))
    .await;
    let pass = async || engine(&app).watch(&origin()).await.unwrap().ticked;
    let blind = pass().await;
    assert_eq!((blind.failed, blind.alerts.closed.len()), (1, 0));
    app.change("UPDATE promotion_rollouts SET erring_units_before = 0")
        .await;
    let seeing = pass().await;
    assert_eq!((seeing.failed, seeing.alerts.closed.len()), (0, 1));
}
