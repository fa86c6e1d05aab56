//! Events that are older than the retention go, their totals stay.

use std::collections::HashSet;

use futures_util::future::join_all;
use podium_storage::retention::drop_old;
use podium_tests::TestApp;
use serde_json::json;

/// Moves an event, with its id, to a partition of the past.
async fn age(app: &TestApp, id: &str, days: i32) {
    let sql = format!(
        "DO $$
        DECLARE
            week date := date_trunc('week', now() AT TIME ZONE 'UTC' - make_interval(days => {days}))::date;
            part text := 'experiment_events_' || to_char(week, 'IYYY\"w\"IW');
        BEGIN
            IF to_regclass(part) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF experiment_events FOR VALUES FROM (%L) TO (%L)',
                    part, week || ' 00:00:00+00', (week + 7) || ' 00:00:00+00');
            END IF;
        END $$;
        UPDATE experiment_events SET created_at = created_at - make_interval(days => {days}) WHERE event_id = '{id}';
        UPDATE experiment_event_keys SET created_at = created_at - make_interval(days => {days})
            WHERE created_at > now() - interval '1 day'"
    );
    app.database().execute(&sql).await;
}

async fn scene() -> TestApp {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    for (id, days) in [("old", 60), ("middle", 33), ("young", 20)] {
        app.track(
            "purchase",
            json!({"event_id": id, "user_id": "u", "experiment_id": "e", "value": 5}),
        )
        .await
        .ok();
        age(&app, id, days).await;
    }
    app
}

async fn left(app: &TestApp) -> Vec<Vec<String>> {
    app.database()
        .rows("SELECT event_id FROM experiment_events ORDER BY created_at")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_dropped_and_their_totals_stay() {
    let app = scene().await;
    app.fold().await;
    let totals =
        "SELECT sum(sum_purchases), trim_scale(sum(sum_purchase_value)) FROM variant_moments";
    assert_eq!(app.database().rows(totals).await, [["3", "15"]]);
    let dropped = drop_old(&app.state().database, 45).await.unwrap();
    assert_eq!(dropped.len(), 1, "{dropped:?}");
    assert_eq!(left(&app).await, [["middle"], ["young"]]);
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_event_keys")
            .await,
        2
    );
    assert!(
        drop_old(&app.state().database, 45)
            .await
            .unwrap()
            .is_empty()
    );
    let event =
        |id: &str| json!({"event_id": id, "user_id": "u", "experiment_id": "e", "value": 5});
    assert_eq!(
        app.track("purchase", event("young")).await.ok()["duplicate"],
        true,
        "ids are known as long as events are"
    );
    app.fold().await;
    assert_eq!(app.database().rows(totals).await, [["3", "15"]]);
    let performance =
        "SELECT sum(conversions) FROM get_experiment_performance((SELECT id FROM experiments))";
    assert_eq!(app.database().number(performance).await, 3);
}

/// Replicas clear away in the same minute: each partition is dropped once, and nobody fails.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_clear_away_together_do_not_fail() {
    let app = scene().await;
    app.fold().await;
    let database = &app.state().database;
    let runs = join_all((0..6).map(|_| drop_old(database, 25))).await;
    let dropped: Vec<String> = runs.into_iter().flat_map(Result::unwrap).collect();
    let distinct: HashSet<&String> = dropped.iter().collect();
    assert_eq!(distinct.len(), dropped.len(), "{dropped:?}");
    // Whoever found somebody at it left; the next turn does what is left.
    drop_old(database, 25).await.unwrap();
    assert_eq!(left(&app).await, [["young"]]);
}

/// What was never folded is not dropped.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dropped_before_it_is_folded() {
    let app = scene().await;
    // As if folding had stood still for two months; the lock of folding keeps the background from catching up.
    let blocker = app.database().connect().await;
    blocker
        .batch_execute(
            "SELECT pg_advisory_lock(8101804658767233026);
             UPDATE fold_state SET folded_at = now() - interval '61 days'",
        )
        .await
        .unwrap();
    assert!(
        drop_old(&app.state().database, 45)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(left(&app).await.len(), 3);
}
