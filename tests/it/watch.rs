//! What watching a promotion finds, whom it tells, who does it, and what it leaves alone.

use podium_api::background::watch_if_nobody_does;
use podium_promotion::Engine;
use podium_promotion::config::{Environment, Preset};
use podium_promotion::engine::Watch;
use podium_promotion::replay::replay;
use podium_storage::leases;
use podium_storage::promotions::records;
use podium_tests::{Experiment, TestApp};
use serde_json::json;
use uuid::Uuid;

use crate::guard::{ID, engine, origin, promote};

async fn watch(app: &TestApp) -> Watch {
    engine(app).watch(&origin()).await.unwrap()
}

/// Kind and level of the alerts that a pass opened, without those about few units.
fn opened(watch: &Watch) -> Vec<String> {
    let opened = watch.ticked.alerts.opened.iter();
    let mut named: Vec<String> = opened
        .filter(|alert| alert.kind != "few_units")
        .map(|alert| format!("{} {}", alert.kind, alert.level))
        .collect();
    named.sort_unstable();
    named
}

/// An experiment whose variant `b` is promoted, with nobody held back and nothing known of errors before.
async fn promoted(app: &TestApp, variants: &[(&str, &str)]) -> Experiment {
    let experiment = app.experiment("e").variants(variants).running().await;
    promote(app, &experiment, "'{100}', 0, 168, 0").await;
    experiment
}

const TWO: [(&str, &str); 2] = [("control", "1"), ("b", "1")];

/// Units `<variant>-<n>` make one request each within the last hour, and the first of them fail.
async fn requests(app: &TestApp, experiment: &Experiment, variant: &str, units: u32, failing: u32) {
    app.database()
        .execute(&format!(
            "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, latency_ms, is_error, counted)
             SELECT '{variant}-' || n, '{variant}-' || n, {}, {}, 'request', 100, n <= {failing}, false
             FROM generate_series(1, {units}) n",
            experiment.id,
            experiment.variant(variant)
        ))
        .await;
}

/// What another variant suffers says nothing of the winner; what the control suffers as well is the site's.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_control_speaks_for_the_site() {
    for (other, units, failing, taken_back) in [
        ("c", 40, 20, true),
        // Little is known of the control, or enough.
        ("control", 2, 1, true),
        ("control", 15, 8, false),
    ] {
        let app = TestApp::start().await;
        let experiment = promoted(&app, &[("control", "1"), ("b", "1"), ("c", "1")]).await;
        requests(&app, &experiment, "b", 40, 20).await;
        requests(&app, &experiment, other, units, failing).await;
        let watched = watch(&app).await;
        let rolled_back = watched.rolled_back.len();
        assert_eq!(rolled_back, usize::from(taken_back), "{other}: {watched:?}");
    }
}

/// Fewer convert than in the same hour of the day before: a warning, and never a rollback.
#[tokio::test(flavor = "multi_thread")]
async fn fewer_conversions_than_before_warn_and_take_nothing_back() {
    let app = TestApp::start().await;
    let experiment = promoted(&app, &TWO).await;
    // Units of the winner in an hour, of which the first 60 buy.
    let hour = |name: &str, at: &str, buying: u32, promoted: &str| {
        format!(
            "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, value, created_at,
                 promotion_id, promotion_step, promotion_arm, counted)
             SELECT '{name}' || n, '{name}' || n, {}, {}, CASE WHEN n <= {buying} THEN 'purchase' ELSE 'click' END, 5, {at},
                    {promoted}
             FROM generate_series(1, 200) n;",
            experiment.id,
            experiment.variant("b")
        )
    };
    app.change(&format!(
        "UPDATE experiments SET start_date = now() - interval '3 days';
         UPDATE experiment_promotions SET promoted_at = now() - interval '2 hours';
         {}{}",
        hour(
            "then",
            "now() - interval '24 hours 20 minutes'",
            60,
            "NULL, NULL, NULL, true"
        ),
        hour("now", "now()", 5, &format!("'{ID}'::uuid, 0, 1, false")),
    ))
    .await;
    let first = watch(&app).await;
    assert_eq!(opened(&first), ["conversion_before_after warning"]);
    assert_eq!(opened(&watch(&app).await), [""; 0], "opened once");
    let row = app
        .database()
        .rows("SELECT status, (SELECT count(*) FROM experiment_promotions WHERE rollback_at IS NULL)::text FROM experiments")
        .await;
    assert_eq!(row, [["completed", "1"]]);
    let message = "SELECT message FROM alerts WHERE kind = 'conversion_before_after'";
    assert_eq!(
        app.database().text(message).await,
        "2.5 % of 200 active units converted within an hour, 30.0 % of 200 in the same hour before the promotion"
    );
    // They buy after all.
    app.database()
        .execute("UPDATE experiment_events SET event_type = 'purchase' WHERE user_id LIKE 'now%'")
        .await;
    assert_eq!(watch(&app).await.ticked.alerts.closed.len(), 1);
}

/// The held-back go on buying, those that moved do not.
async fn collapse(app: &TestApp, experiment: &Experiment) {
    app.database()
        .execute(&format!(
            "UPDATE promotion_rollouts SET holdback = 5;
             INSERT INTO promotion_units (experiment_id, unit, promotion_id, converted_step, converted_arm)
             SELECT {}, 'u' || n, '{ID}', 0, 2 FROM generate_series(1, 60) n",
            experiment.id
        ))
        .await;
}

/// Where nobody wants an automatic rollback, proved harm is a critical alert, and the rollout stands still.
#[tokio::test(flavor = "multi_thread")]
async fn without_automatic_rollback_harm_only_alerts() {
    let app = TestApp::start().await;
    let experiment = promoted(&app, &TWO).await;
    collapse(&app, &experiment).await;
    app.change(
        "UPDATE promotion_rollouts SET auto_rollback = false, watch_hours = 1;
         UPDATE experiment_promotions SET promoted_at = now() - interval '2 hours'",
    )
    .await;
    let watched = watch(&app).await;
    assert_eq!(watched.rolled_back, []);
    assert_eq!(opened(&watched), ["guard_conversion critical"]);
    assert_eq!(watched.ticked.ended, 0);
    let status = "SELECT status FROM experiments";
    assert_eq!(app.database().text(status).await, "completed");
}

/// Where no worker lives the API takes a promotion back; what was decided comes out the same again.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_watches_where_no_worker_does() {
    let app = TestApp::start().await;
    let experiment = promoted(&app, &TWO).await;
    collapse(&app, &experiment).await;
    let (database, engine) = (&app.state().database, engine(&app));
    let (worker, hour) = (Uuid::from_u128(1), std::time::Duration::from_secs(3_600));
    assert!(
        leases::take(database, leases::WORKER, worker, hour)
            .await
            .unwrap()
    );
    watch_if_nobody_does(&engine, database).await;
    let status = "SELECT status FROM experiments";
    assert_eq!(app.database().text(status).await, "completed");
    leases::give_back(database, leases::WORKER, worker)
        .await
        .unwrap();
    watch_if_nobody_does(&engine, database).await;
    assert_eq!(app.database().text(status).await, "running");
    let by = "SELECT actor FROM promotion_decisions WHERE kind = 'rolled_back'";
    assert_eq!(app.database().text(by).await, "podium-api");
}

/// A rollback by the guard is computed again from what was stored with it: proved harm, and a critical alert.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_by_the_guard_comes_out_the_same_again() {
    for by_alert in [false, true] {
        let app = TestApp::start().await;
        let experiment = promoted(&app, &TWO).await;
        if by_alert {
            requests(&app, &experiment, "b", 40, 20).await;
            requests(&app, &experiment, "control", 3, 0).await;
        } else {
            collapse(&app, &experiment).await;
        }
        assert_eq!(watch(&app).await.rolled_back.len(), 1);
        let id = "SELECT id FROM promotion_decisions WHERE kind = 'rolled_back'";
        let id = app.database().number(id).await;
        let mut link = app.state().database.serve().await.unwrap();
        let record = records::by_id(&mut link, id).await.unwrap().unwrap();
        let again = replay(&record).unwrap();
        assert!(again.same, "{again:?}");
        // Other evidence, another verdict; and a figure between evidence and verdict that does not fit is seen.
        let mut other = record.clone();
        let evidence = other.evidence.as_mut().unwrap();
        if by_alert {
            evidence["hour"]["winner"]["errorShares"] = json!(0.0);
        } else {
            evidence["guard"]["steps"][0]["moved"] = json!(1_140);
        }
        let other = replay(&other).unwrap();
        assert_eq!(
            (other.same, &other.recomputed["verdict"]),
            (false, &json!("keep"))
        );
        let mut odd = record;
        odd.evidence.as_mut().unwrap()["guard"]["finding"] = json!("site_errors");
        assert!(!replay(&odd).unwrap().same);
    }
}

/// Who was told of a promotion is told of the end of its watch, over the channels that it was told on.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_watch_is_told_as_the_promotion_was() {
    for (channels, told) in [(json!(["email"]), "a email"), (json!([]), "")] {
        let app = TestApp::start().await;
        promoted(&app, &TWO).await;
        let mut config = serde_json::to_value(Preset::Balanced.config()).unwrap();
        config["notifications"]["channels"] = channels;
        app.change(&format!(
            "INSERT INTO notification_configs (user_id, channel) VALUES ('a', 'slack'), ('a', 'email');
             UPDATE experiment_promotions SET promoted_at = now() - interval '200 hours',
                 metadata = metadata || jsonb_build_object('config', '{config}'::jsonb)"
        ))
        .await;
        assert_eq!(watch(&app).await.ticked.ended, 1);
        let sql = "SELECT coalesce(string_agg(user_id || ' ' || channel, ', '), '') FROM notification_logs WHERE alert_type = 'watch_ended'";
        assert_eq!(app.database().text(sql).await, told);
    }
}

/// What was told of an experiment's alerts: event, level, channel and action.
async fn told(app: &TestApp) -> Vec<String> {
    let rows = app
        .database()
        .rows("SELECT alert_type, alert_level, channel, action FROM notification_logs ORDER BY 1, 2, 3, 4")
        .await;
    rows.iter().map(|row| row.join(" ")).collect()
}

/// Alerts are told as the experiment's `notifications` say, and a page is closed even where the news of it is wanted by
/// nobody.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_told_as_the_experiment_wants() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    app.change(
        r#"INSERT INTO notification_configs (user_id, channel) VALUES ('a', 'slack'), ('a', 'email'), ('a', 'pagerduty');
           UPDATE experiments SET config = '{"autoPromotion": {"notifications":
               {"channels": ["slack", "pagerduty"], "minimumLevel": "critical"}}}'"#,
    )
    .await;
    requests(&app, &experiment, "b", 40, 20).await;
    assert_eq!(
        opened(&watch(&app).await),
        ["error_rate critical", "traffic warning"]
    );
    let paged = [
        "alert_opened critical pagerduty trigger",
        "alert_opened critical slack trigger",
    ];
    assert_eq!(told(&app).await, paged);
    app.database()
        .execute("UPDATE experiment_events SET created_at = created_at - interval '61 minutes'")
        .await;
    watch(&app).await;
    let closed = "alert_closed info pagerduty resolve";
    assert_eq!(told(&app).await, [closed, paged[0], paged[1]]);
}

/// `AUTO_NOTIFY_ALERTS=false` lists alerts and sends none.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_may_be_listed_alone() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.change("INSERT INTO notification_configs (user_id, channel) VALUES ('a', 'slack')")
        .await;
    let silent = Environment::read(|name| (name == "AUTO_NOTIFY_ALERTS").then(|| "false".into()));
    let silent = Engine::new(app.state().database.clone(), silent.unwrap());
    let opened = silent.watch(&origin()).await.unwrap().ticked.alerts.opened;
    assert_eq!(opened.len(), 2, "few units of both variants");
    assert_eq!(told(&app).await, [""; 0]);
    app.database().execute("DELETE FROM alerts").await;
    watch(&app).await;
    assert_eq!(told(&app).await.len(), 2);
}

/// Many alerts take longer than a request may.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_may_take_longer_than_a_request() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.database()
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.7); RETURN NULL; END $$;
             CREATE TRIGGER slow AFTER INSERT ON alerts FOR EACH STATEMENT EXECUTE FUNCTION slow()",
        )
        .await;
    assert_eq!(watch(&app).await.ticked.alerts.opened.len(), 2);
}
