//! A unit is forgotten: its names are gone, and no figure changes.

use podium_tests::{ApiProcess, TestApp, eventually};
use reqwest::Method;
use serde_json::json;

use crate::PROGRAM;

/// Every place where a text of the database holds this one, as `table.column`.
async fn places(app: &TestApp, text: &str) -> Vec<String> {
    let columns = app
        .database()
        .rows(
            "SELECT c.table_name, c.column_name FROM information_schema.columns c
               JOIN information_schema.tables t USING (table_schema, table_name)
               WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' ORDER BY 1, 2",
        )
        .await;
    let mut places = Vec::new();
    for column in columns {
        let (table, name) = (&column[0], &column[1]);
        let sql = format!("SELECT count(*) FROM {table} WHERE {name}::text LIKE '%{text}%'");
        if app.database().number(&sql).await > 0 {
            places.push(format!("{table}.{name}"));
        }
    }
    places
}

async fn command(app: &TestApp, arguments: &[&str]) -> String {
    let variables = [("DATABASE_URL", app.database().url())];
    let (status, printed) = ApiProcess::run(PROGRAM, arguments, &variables).await;
    assert!(status.success(), "{printed}");
    printed
}

/// Sums of what was folded, which nobody's name may change.
const FIGURES: &str = "SELECT (SELECT jsonb_agg(m ORDER BY m.experiment_id, m.variant_id, m.epoch) FROM variant_moments m)::text,
    (SELECT jsonb_agg(h ORDER BY h.experiment_id, h.variant_id, h.hour) FROM variant_hours h)::text,
    (SELECT jsonb_agg(t ORDER BY t) FROM (SELECT experiment_id, variant_id, epoch, purchase_value, clicks, sessions FROM unit_totals) t)::text,
    (SELECT count(*) FROM unit_sessions), (SELECT count(*) FROM unit_days), (SELECT count(*) FROM experiment_events)";

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_forgotten_and_no_figure_changes() {
    let app = TestApp::start().await;
    app.experiment("e").on("newsfeed").running().await;
    let who = "anna-4711";
    // First as a session, then logged in, and beside her somebody who stays.
    app.variant_of("e", "sess-anna-4711").await;
    let login = json!({"experiment": "e", "user_id": who, "session_id": "sess-anna-4711"});
    let variant = app.assign(login).await["variant"].clone();
    app.variant_of("e", "other").await;
    for (unit, session) in [
        (who, "sess-anna-4711"),
        (who, "later-anna-4711"),
        ("other", "s"),
    ] {
        let click = json!({"user_id": unit, "session_id": session, "experiment_id": "e", "event_id": format!("order-{unit}-{session}"),
            "metadata": {"mail": format!("{unit}@example.org")}});
        app.track("click", click).await.ok();
        let bought =
            json!({"user_id": unit, "session_id": session, "experiment_id": "e", "value": 12.5});
        app.track("purchase", bought).await.ok();
    }
    app.fold().await;
    let before = app.database().rows(FIGURES).await;
    assert!(!places(&app, "anna-4711").await.is_empty());
    let printed = command(&app, &["forget", who]).await;
    assert!(
        printed.contains("experiment_events: 4") && printed.contains("unit_totals: 1"),
        "{printed}"
    );
    assert_eq!(places(&app, "anna-4711").await, Vec::<String>::new());
    assert_eq!(app.database().rows(FIGURES).await, before);
    assert!(command(&app, &["rebuild"]).await.contains('0'));
    assert!(!places(&app, "other").await.is_empty());
    // She is new to every replica.
    app.hears_of_changes().await;
    app.assign(json!({"experiment": "e", "user_id": who})).await;
    eventually("she has an assignment of her own again", async || {
        app.database()
            .number("SELECT count(*) FROM user_experiment_assignments WHERE user_id = 'anna-4711'")
            .await
            == 1
    })
    .await;
    assert!(variant.is_string());
    let entry = app.database().rows("SELECT actor, entity_id LIKE 'forgotten-%', after->>'experiment_events' FROM audit_log WHERE action = 'unit.forget'").await;
    assert_eq!(entry, [["podium-api", "t", "4"]]);
}

/// A name that looks like SQL is a name, and one that nobody has changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_names() {
    let app = TestApp::start().await;
    app.experiment("e").on("newsfeed").running().await;
    let odd = "o'brien'); DROP TABLE experiments; --";
    app.assign(json!({"user_id": odd})).await;
    assert!(
        command(&app, &["forget", "nobody"])
            .await
            .contains("nothing is known")
    );
    assert!(
        command(&app, &["forget", odd])
            .await
            .contains("user_experiment_assignments: 1")
    );
    assert_eq!(
        app.admin(Method::GET, "/api/v1/admin/experiments/e", None)
            .await
            .status,
        200
    );
    assert_eq!(
        app.database()
            .number(
                "SELECT count(*) FROM user_experiment_assignments WHERE user_id LIKE 'forgotten-%'"
            )
            .await,
        1
    );
}
