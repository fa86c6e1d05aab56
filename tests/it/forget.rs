//! A unit is forgotten: its names are gone, and no figure changes.

use std::collections::BTreeSet;

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

/// Columns that hold names of units.
const NAMING: [&str; 20] = [
    "bandit_decisions.unit",
    "bandit_pulls.unit",
    "bandit_rewards.unit",
    "covariate_uploads.unit",
    "excluded_units.unit",
    "experiment_events.event_data",
    "experiment_events.event_id",
    "experiment_events.session_id",
    "experiment_events.user_id",
    "experiment_overrides.unit",
    "promotion_units.unit",
    "unit_aliases.alias_unit",
    "unit_aliases.unit",
    "unit_covariates.unit",
    "unit_days.unit",
    "unit_totals.unit",
    "unit_sessions.unit",
    "user_experiment_assignments.assigned_as",
    "user_experiment_assignments.session_id",
    "user_experiment_assignments.user_id",
];

/// What the sealed log keeps of a unit that a person pinned.
const SEALED: [&str; 2] = ["audit_log.after", "audit_log.entity_id"];

/// As [`places`], partitions under the name of their table.
async fn tables(app: &TestApp, text: &str) -> BTreeSet<String> {
    let whole = |place: String| {
        let (table, column) = place.split_once('.').unwrap();
        let table = table
            .split_once("_20")
            .map_or(table, |(table, _week)| table);
        format!("{table}.{column}")
    };
    places(app, text).await.into_iter().map(whole).collect()
}

/// What is learned: nobody's name is in it.
const LEARNED: &str =
    "SELECT (SELECT jsonb_agg(h ORDER BY h.arm_row_id, h.bucket) FROM bandit_arm_hours h)::text,
    (SELECT jsonb_agg(a ORDER BY a.id) FROM bandit_arms a)::text";

/// A unit to whom everything happened. Afterwards its name stands nowhere but in the sealed log.
#[tokio::test(flavor = "multi_thread")]
async fn no_table_keeps_the_name() {
    let app = TestApp::start().await;
    let shop = app
        .experiment("shop")
        .variants(&[("all", "1")])
        .running()
        .await;
    let pinned = app.experiment("pinned").running().await;
    app.change("UPDATE experiments SET experiment_type = 'bandit' WHERE name = 'shop'")
        .await;
    let (who, session) = ("anna-4711", "sess-anna-4711");
    app.assign(json!({"experiment": "shop", "session_id": session}))
        .await;
    let body =
        json!({"experiment": "shop", "session_id": session, "candidates": [{"id": 1}, {"id": 2}]});
    let ranked = app.post("/api/v1/experiments/rank", &body).await.ok();
    for kind in ["impression", "click"] {
        let event = json!({"session_id": session, "experiment_id": shop.id, "item_id": 1, "position": 1,
            "decision_id": ranked["decision_id"], "event_id": format!("{kind}-{session}"), "metadata": {"of": who}});
        app.track(kind, event).await.ok();
    }
    app.assign(json!({"experiment": "shop", "user_id": who, "session_id": session}))
        .await;
    let path = format!("/api/v1/admin/experiments/pinned/overrides/{who}");
    let pin = json!({"variantId": pinned.variant("b")});
    app.admin(Method::PUT, &path, Some(&pin)).await.ok();
    let rest = format!(
        "INSERT INTO unit_covariates (experiment_id, unit, value) VALUES ({0}, '{who}', 1);
         INSERT INTO covariate_uploads (upload_id, place, unit, value) VALUES (gen_random_uuid(), 1, '{who}', 1);
         INSERT INTO promotion_units (experiment_id, unit, promotion_id) VALUES ({0}, '{who}', gen_random_uuid())",
        pinned.id
    );
    app.database().execute(&rest).await;
    app.fold().await;
    eventually("the decision is kept", async || {
        app.database()
            .number("SELECT count(*) FROM bandit_decisions")
            .await
            == 1
    })
    .await;

    let everywhere: BTreeSet<String> = NAMING
        .iter()
        .chain(&SEALED)
        .map(ToString::to_string)
        .collect();
    assert_eq!(tables(&app, "anna-4711").await, everywhere);
    let learned = app.database().rows(LEARNED).await;
    command(&app, &["forget", who]).await;
    let sealed: BTreeSet<String> = SEALED.iter().map(ToString::to_string).collect();
    assert_eq!(tables(&app, "anna-4711").await, sealed);
    assert_eq!(app.database().rows(LEARNED).await, learned);

    // A column for units that is added later must be in the list above, and so in the erasure.
    let columns = "SELECT DISTINCT regexp_replace(table_name, '_20[0-9]{2}w[0-9]{2}$', '') || '.' || column_name
        FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND data_type = 'text'
          AND column_name ~ '(^|_)(unit|session_id|assigned_as)$'";
    for row in app.database().rows(columns).await {
        assert!(
            NAMING.contains(&row[0].as_str()),
            "{} is not erased",
            row[0]
        );
    }
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
