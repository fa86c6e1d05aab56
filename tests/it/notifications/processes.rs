//! Senders as processes: they share the work, they are killed, and they are nothing that a promotion waits for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use podium_domain::notification::Message;
use podium_tests::process::ApiProcess;
use podium_tests::sink::{Reaction, Sink};
use podium_tests::{TestDatabase, eventually};
use reqwest::Method;
use serde_json::json;

use super::*;
use crate::PROGRAM;
use crate::promotion::{self, CLEAR};
use crate::worker::{self, Daemon};

const VARIABLES: [(&str, &str); 2] = [
    ("NOTIFY_ALLOW_PRIVATE_TARGETS", "true"),
    ("NOTIFY_RETRY_BASE_MS", "20"),
];

async fn api(database: &TestDatabase) -> ApiProcess {
    let url = ("DATABASE_URL", database.url());
    ApiProcess::start(PROGRAM, &[VARIABLES.as_slice(), &[url]].concat()).await
}

/// Two API replicas and a worker share a thousand messages: each arrives, none twice.
#[tokio::test(flavor = "multi_thread")]
async fn three_processes_deliver_a_thousand_messages_once_each() {
    let sink = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    for user in 0..25 {
        let url = format!("{}/hook/{user}", sink.url);
        webhook(&database, &format!("u{user}"), &url).await;
    }
    let messages: Vec<Message> = (0..40).map(promotion).collect();
    assert_eq!(enqueue(&storage(&database), &messages).await, 1_000);
    let _worker = Daemon::start_with(&database, &VARIABLES);
    let (_one, _other) = tokio::join!(api(&database), api(&database));
    becomes(&database, "sent 1000").await;
    let received = sink.received();
    let ids: BTreeSet<&str> = received.iter().map(|r| r.header("webhook-id")).collect();
    assert_eq!((received.len(), ids.len()), (1_000, 1_000));
    let left = "SELECT count(*) FROM notification_outbox";
    assert_eq!(database.number(left).await, 0);
}

/// A process that is killed after it has sent and before it has recorded costs one duplicate, with the same id.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_costs_one_duplicate() {
    // It has the request and has not answered when its sender dies.
    let sink = Sink::start(|request, before| match before {
        0 => Reaction::Hang,
        _ => Reaction::success(&request.path),
    })
    .await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    let mut killed = api(&database).await;
    eventually("the message is sent", async || sink.received().len() == 1).await;
    killed.kill();
    assert_eq!(states(&database).await, "pending 1");
    let _heir = api(&database).await;
    let_time_pass(&database).await;
    becomes(&database, "sent 1").await;
    assert_one_repeat(&sink.received());
}

/// Every channel is down, one of them hangs: a person promotes over HTTP, and so does the worker. Both promotions hold at
/// once, and what they tell arrives when the channels are back.
#[tokio::test(flavor = "multi_thread")]
async fn channels_that_are_down_keep_no_promotion_waiting() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let sink = Sink::start(move |request, _| {
        match (is_up.load(Ordering::Relaxed), request.path.as_str()) {
            (true, path) => Reaction::success(path),
            (false, "/slack") => Reaction::Answer(503, "", ""),
            (false, _) => Reaction::Reset,
        }
    })
    .await;
    let hanging = Sink::start(|_, _| Reaction::Hang).await;
    let app = setup()
        .variable("AUTO_PROMOTION_ENABLED", "true")
        .variable("NOTIFY_RETRY_BASE_MS", "5")
        .variable("PAGERDUTY_EVENTS_URL", &format!("{}/pager", hanging.url))
        .start()
        .await;
    let slack = format!("webhook_url='{}/slack'", sink.url);
    target(app.database(), "a", "slack", &slack).await;
    let key = "routing_key='0123456789abcdef0123456789abcdef'";
    target(app.database(), "a", "pagerduty", key).await;
    webhook(app.database(), "a", &format!("{}/hook", sink.url)).await;
    promotion::experiment(&app, 1, "by-a-person", &CLEAR).await;
    promotion::experiment(&app, 2, "by-the-worker", &CLEAR).await;

    let body = json!({"action": "promote", "experimentName": "by-a-person"});
    let answer = app.admin(Method::POST, promotion::ROUTE, Some(&body)).await;
    assert_eq!(answer.data()["notificationsSent"], 3);
    let arguments = ["scan", "--json"];
    let variables = [("AUTO_PROMOTION_ENABLED", "true")];
    let (code, text) = worker::run(app.database().url(), &arguments, &variables).await;
    assert!(code == 0 && text.contains("\"promoted\": 1"), "{text}");
    let in_force = "SELECT count(*) FROM experiment_promotions WHERE rollback_at IS NULL";
    assert_eq!(app.database().number(in_force).await, 2);
    eventually("the channels are tried in vain", async || {
        let tried = "SELECT count(*) FROM notification_logs WHERE error_message IS NOT NULL";
        app.database().number(tried).await >= 2 && !hanging.received().is_empty()
    })
    .await;
    let waiting = "SELECT count(*) FROM notification_logs WHERE status = 'pending' AND alert_type = 'promotion'";
    assert_eq!(app.database().number(waiting).await, 6);

    up.store(true, Ordering::Relaxed);
    // The pager still hangs, with one message in its hands and one behind it.
    eventually("the others have everything", async || {
        let arrived = "SELECT count(*) FROM notification_logs WHERE status = 'sent' AND alert_type = 'promotion' AND channel <> 'pagerduty'";
        app.database().number(arrived).await == 4
    })
    .await;
}
