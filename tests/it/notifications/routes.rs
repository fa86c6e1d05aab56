//! The routes of notifications.

use podium_api::auth::Role;
use podium_tests::sink::{Reaction, Sink};
use podium_tests::{Client, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

use super::*;

const CONFIGS: &str = "/api/v1/admin/notification-configs";
const LOGS: &str = "/api/v1/admin/notification-logs";

async fn created(client: &Client, body: Value) -> Value {
    let answer = client.admin(Method::POST, CONFIGS, Some(&body)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.data()
}

fn path(config: &Value) -> String {
    format!("{CONFIGS}/{}", config["id"].as_str().unwrap())
}

/// What opens a door goes in and never comes out: not in answers, not in the audit log.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_write_only() {
    let app = TestApp::start().await;
    let bodies = [
        json!({"channel": "slack", "webhookUrl": "https://hooks.example.com/services/T1/B2/hidden"}),
        json!({"channel": "pagerduty", "routingKey": "hiddenhiddenhiddenhiddenhidden00"}),
        json!({"channel": "webhook", "webhookUrl": "https://example.com/hidden", "apiKey": SECRET}),
        json!({"channel": "email", "emailAddress": "ops@example.com", "alertLevels": ["critical"],
            "quietHours": {"from": "22:00", "to": "07:00", "timeZone": "Europe/Berlin"}}),
    ];
    for body in bodies {
        let made = created(&app, body).await;
        assert_eq!(made["userId"], "1");
        let patched = app
            .request(Method::PATCH, &path(&made))
            .bearer_auth(podium_tests::token::valid("1"))
            .header("if-match", "*")
            .json(&json!({"enabled": false}));
        let answer = podium_tests::Answer::of(patched).await;
        assert_eq!(answer.data()["enabled"], false, "{}", answer.text());
        let read = app.admin(Method::GET, &path(&made), None).await;
        assert!(!read.header("etag").is_empty());
        assert_eq!(read.data()["enabled"], false);
    }
    let all = app.admin(Method::GET, CONFIGS, None).await;
    assert_eq!(all.data().as_array().unwrap().len(), 4);
    let audit = app
        .admin(Method::GET, "/api/v1/admin/audit-log", None)
        .await;
    for text in [all.text(), audit.text()] {
        for secret in ["hidden", SECRET] {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(
            text.contains("webhookUrl"),
            "which ones are set is no secret"
        );
    }
}

/// Every wrong member is named, and nothing is stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() {
    let app = TestApp::start().await;
    for (body, pointer) in [
        (json!({}), "/channel"),
        (json!({"channel": "fax"}), "/channel"),
        (json!({"channel": "slack"}), "/webhookUrl"),
        (
            json!({"channel": "slack", "webhookUrl": "http://hooks.example.com/"}),
            "/webhookUrl",
        ),
        (
            json!({"channel": "slack", "webhookUrl": "https://127.0.0.1/"}),
            "/webhookUrl",
        ),
        (
            json!({"channel": "slack", "webhookUrl": "https://[::ffff:10.0.0.1]/"}),
            "/webhookUrl",
        ),
        (
            json!({"channel": "slack", "webhookUrl": "https://a.example/", "apiKey": SECRET}),
            "/apiKey",
        ),
        (
            json!({"channel": "webhook", "webhookUrl": "https://a.example/"}),
            "/apiKey",
        ),
        (
            json!({"channel": "webhook", "webhookUrl": "https://a.example/", "apiKey": "short"}),
            "/apiKey",
        ),
        (
            json!({"channel": "pagerduty", "routingKey": "short"}),
            "/routingKey",
        ),
        (
            json!({"channel": "email", "emailAddress": "Ops <ops@example.com>"}),
            "/emailAddress",
        ),
        (
            json!({"channel": "email", "emailAddress": "a@b.c", "alertLevels": ["loud"]}),
            "/alertLevels/0",
        ),
        (
            json!({"channel": "email", "emailAddress": "a@b.c", "alertLevels": ["info", "info"]}),
            "/alertLevels/1",
        ),
        (
            json!({"channel": "email", "emailAddress": "a@b.c", "quietHours": {"from": "25:00", "to": "07:00"}}),
            "/quietHours/from",
        ),
        (
            json!({"channel": "email", "emailAddress": "a@b.c",
            "quietHours": {"from": "22:00", "to": "07:00", "timeZone": "Atlantis"}}),
            "/quietHours/timeZone",
        ),
        (
            json!({"channel": "email", "emailAddress": "a@b.c", "createdAt": "now"}),
            "/createdAt",
        ),
    ] {
        let answer = app.admin(Method::POST, CONFIGS, Some(&body)).await;
        let problem = answer.problem(422, "validation_failed");
        let pointers: Vec<&str> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(pointers, [pointer], "{body}");
    }
    let stored = "SELECT count(*) FROM notification_configs";
    assert_eq!(app.database().number(stored).await, 0);
}

/// People manage their own targets; an admin everybody's.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_has_his_own() {
    let app = TestApp::start().await;
    app.change("INSERT INTO podium_users (id, role) VALUES ('1', 'admin')")
        .await;
    let viewer = app.with_role(Role::Viewer).await;
    let mine = created(
        &viewer,
        json!({"channel": "email", "emailAddress": "viewer@example.com"}),
    )
    .await;
    assert_eq!(mine["userId"], "user-viewer");
    let twice = json!({"channel": "email", "emailAddress": "other@example.com"});
    viewer
        .admin(Method::POST, CONFIGS, Some(&twice))
        .await
        .problem(409, "conflict");
    let for_others = json!({"channel": "email", "emailAddress": "a@b.c", "userId": "1"});
    viewer
        .admin(Method::POST, CONFIGS, Some(&for_others))
        .await
        .problem(403, "forbidden");
    podium_api::background::store_notes(app.state()).await;
    let noted = "SELECT actor, entity_id, after->>'status', after->>'reason' FROM audit_log WHERE action = 'route.refuse'";
    assert_eq!(
        app.database().rows(noted).await,
        [[
            "user-viewer",
            &format!("POST {CONFIGS}"),
            "403",
            "notifications of others"
        ]]
    );
    let theirs = created(&app, for_others).await;
    for method in [Method::GET, Method::DELETE] {
        viewer
            .admin(method, &path(&theirs), None)
            .await
            .problem(404, "not_found");
    }
    viewer
        .admin(Method::POST, &format!("{}/test", path(&theirs)), None)
        .await
        .problem(404, "not_found");
    let count = |answer: podium_tests::Answer| answer.data().as_array().unwrap().len();
    assert_eq!(count(viewer.admin(Method::GET, CONFIGS, None).await), 1);
    assert_eq!(count(app.admin(Method::GET, CONFIGS, None).await), 2);
    let deleted = app.admin(Method::DELETE, &path(&mine), None).await;
    assert_eq!(deleted.data()["deleted"], true);
}

/// A stale change is refused, and one without a version too.
#[tokio::test(flavor = "multi_thread")]
async fn changes_name_the_version_they_are_made_for() {
    let app = TestApp::start().await;
    let made = created(&app, json!({"channel": "email", "emailAddress": "a@b.c"})).await;
    let body = json!({"enabled": false});
    app.admin(Method::PATCH, &path(&made), Some(&body))
        .await
        .problem(428, "precondition_required");
    let stale = app
        .request(Method::PATCH, &path(&made))
        .bearer_auth(podium_tests::token::valid("1"))
        .header("if-match", "\"1\"")
        .json(&body);
    podium_tests::Answer::of(stale)
        .await
        .problem(412, "precondition_failed");
}

/// A test message goes out at once, and the answer says how it went.
#[tokio::test(flavor = "multi_thread")]
async fn a_test_message_says_how_it_went() {
    let sink = Sink::start(|_, before| match before {
        1 => Reaction::Answer(500, "", "rollup_error"),
        _ => Reaction::success("/slack"),
    })
    .await;
    let app = setup().start().await;
    let body =
        json!({"channel": "slack", "webhookUrl": format!("{}/slack", sink.url), "alertLevels": []});
    let made = created(&app, body).await;
    let test = format!("{}/test", path(&made));
    let went = app.admin(Method::POST, &test, None).await.data();
    assert_eq!(
        (&went["status"], &went["alertType"]),
        (&json!("sent"), &json!("test"))
    );
    let went = app.admin(Method::POST, &test, None).await.data();
    assert_eq!(
        (&went["status"], &went["attempts"]),
        (&json!("failed"), &json!(1))
    );
    assert_eq!(went["responseData"]["text"], "rollup_error");
    // What failed can be sent again, and what arrived cannot.
    let resend = format!("{LOGS}/{}/resend", went["id"].as_str().unwrap());
    app.admin(Method::POST, &resend, None).await.ok();
    becomes(app.database(), "sent 2").await;
    app.admin(Method::POST, &resend, None)
        .await
        .problem(409, "conflict");
}

/// The log is read page by page, newest first, everybody his own.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_pages() {
    let sink = Sink::friendly().await;
    let app = setup().start().await;
    webhook(app.database(), "1", &sink.url).await;
    webhook(app.database(), "user-viewer", &sink.url).await;
    let messages: Vec<_> = (0..3).map(promotion).collect();
    enqueue(&app.state().database, &messages).await;
    becomes(app.database(), "sent 6").await;
    app.change("INSERT INTO podium_users (id, role) VALUES ('1', 'admin')")
        .await;
    let viewer = app.with_role(Role::Viewer).await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app
            .admin(
                Method::GET,
                &format!("{LOGS}?limit=4&cursor={cursor}"),
                None,
            )
            .await
            .json();
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e["id"].to_string()),
        );
        match page["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((all, seen.len()), (6, 6));
    let own = viewer.admin(Method::GET, LOGS, None).await.data();
    assert!(
        own.as_array()
            .unwrap()
            .iter()
            .all(|e| e["userId"] == "user-viewer")
    );
    for query in ["status=lost", "channel=fax", "cursor=x", "limit=0"] {
        let answer = app
            .admin(Method::GET, &format!("{LOGS}?{query}"), None)
            .await;
        answer.problem(422, "validation_failed");
    }
}

/// A promotion that breaks half-way leaves nothing behind but the news of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_fails_is_told() {
    let app = setup().start().await;
    let slack = "webhook_url, alert_levels='https://hooks.example', '{warning}'";
    target(app.database(), "a", "slack", slack).await;
    crate::promotion::experiment(&app, 1, "cta", &crate::promotion::CLEAR).await;
    app.database()
        .execute("ALTER TABLE promotion_rollouts ADD CONSTRAINT broken CHECK (watch_hours < 0) NOT VALID")
        .await;
    let body = json!({"action": "promote", "experimentName": "cta"});
    let answer = app
        .admin(Method::POST, crate::promotion::ROUTE, Some(&body))
        .await;
    assert!(answer.status >= 500, "{answer:?}");
    let promotions = "SELECT count(*) FROM experiment_promotions";
    assert_eq!(app.database().number(promotions).await, 0);
    let told = "SELECT count(*) FROM notification_logs WHERE alert_type = 'promotion_failed'";
    assert_eq!(app.database().number(told).await, 1);
    // An attempt a minute would page all night: one message an hour says it.
    for _ in 0..2 {
        app.admin(Method::POST, crate::promotion::ROUTE, Some(&body))
            .await;
    }
    let most = "SELECT count(*) <= 1 + (extract(hour FROM max(created_at)) <> extract(hour FROM min(created_at)))::int
                FROM notification_logs WHERE alert_type = 'promotion_failed'";
    assert_eq!(app.database().text(most).await, "t");
}
