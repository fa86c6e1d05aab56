//! Notifications: queued with what they tell, sent at least once over real sockets, never in the way.

use std::sync::Arc;
use std::time::Duration;

use podium_api::clock::{Clock, SystemClock};
use podium_domain::notification::{Event, Evidence, Level, Message, Named, Subject};
use podium_notifications::{Sender, Settings, World};
use podium_storage::{Database, StorageError, outbox};
use podium_tests::app::Setup;
use podium_tests::sink::Received;
use podium_tests::{TestApp, TestDatabase, eventually};
use uuid::Uuid;

mod certificates;
mod delivery;
mod failures;
mod links;
mod mail;
mod processes;
mod routes;
mod stream;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// An application that may send to this machine and is quick to try again.
fn setup() -> Setup {
    TestApp::setup()
        .variable("NOTIFY_ALLOW_PRIVATE_TARGETS", "true")
        .variable("NOTIFY_RETRY_BASE_MS", "20")
}

/// Settings of a sender that is driven by hand.
fn settings() -> Settings {
    let mut settings = Settings::read(&[
        ("NOTIFY_ALLOW_PRIVATE_TARGETS", "true"),
        ("NOTIFY_RETRY_BASE_MS", "1"),
    ])
    .unwrap();
    settings.per_user = 1_000_000;
    settings
}

/// A sender that nothing runs.
fn sender(database: &TestDatabase, settings: Settings) -> Arc<Sender> {
    let world = World {
        now: Arc::new(|| SystemClock.now()),
        chance: Arc::new(|| 0.5),
    };
    Sender::new(storage(database), settings, world).unwrap()
}

fn storage(database: &TestDatabase) -> Database {
    Database::new(database.settings()).unwrap()
}

/// A target set up with SQL; its columns and their values.
async fn target(database: &TestDatabase, user: &str, channel: &str, columns: &str) -> Uuid {
    let (names, values) = columns.split_once('=').unwrap_or(("", ""));
    let (names, values) = if names.is_empty() {
        (String::new(), String::new())
    } else {
        (format!(", {names}"), format!(", {values}"))
    };
    let sql = format!(
        "INSERT INTO notification_configs (user_id, channel{names}) VALUES ('{user}', '{channel}'{values}) RETURNING id::text"
    );
    database.text(&sql).await.parse().unwrap()
}

async fn webhook(database: &TestDatabase, user: &str, url: &str) -> Uuid {
    let columns = format!("webhook_url, api_key='{url}', '{SECRET}'");
    target(database, user, "webhook", &columns).await
}

fn promotion(number: u128) -> Message {
    let named = |id, name: &str| {
        Some(Named {
            id,
            name: name.into(),
        })
    };
    Message {
        experiment: named(12, "homepage-cta-test"),
        variant: named(31, "variant-b"),
        evidence: Evidence {
            confidence_percent: Some(97.5),
            improvement_percent: Some(12.3),
            ..Evidence::default()
        },
        ..Message::new(
            Event::Promotion,
            Level::Info,
            Subject::Promotion(Uuid::from_u128(number)),
            SystemClock.now(),
        )
    }
}

async fn enqueue(database: &Database, messages: &[Message]) -> usize {
    let queued: Result<usize, StorageError> = database
        .transaction(async |tx| {
            let mut queued = 0;
            for message in messages {
                queued += outbox::enqueue(tx, message).await?.len();
            }
            Ok(queued)
        })
        .await;
    queued.unwrap()
}

/// Takes what is due, sends and records it, once for each target.
async fn deliver_once(sender: &Sender) -> usize {
    let deliveries = sender.claim(16).await.unwrap();
    for delivery in &deliveries {
        let outcome = sender.send(delivery).await;
        sender.record(delivery, &outcome).await;
    }
    deliveries.len()
}

/// Makes everything due that waits, as time would.
async fn let_time_pass(database: &TestDatabase) {
    database
        .execute(
            "UPDATE notification_outbox SET next_attempt_at = now(), leased_until = now();
             UPDATE notification_configs SET paused_until = NULL, probe_at = NULL, leased_until = NULL",
        )
        .await;
}

/// That what arrived is one message and its repeat, by which the receiver knows it.
fn assert_one_repeat(received: &[Received]) {
    assert_eq!(received.len(), 2);
    let ids = [0, 1].map(|at| received[at].header("webhook-id"));
    assert!(!ids[0].is_empty() && ids[0] == ids[1], "{ids:?}");
    assert_eq!(received[0].body, received[1].body);
}

/// `status: count` of the log.
async fn states(database: &TestDatabase) -> String {
    database
        .text(
            "SELECT coalesce(string_agg(status || ' ' || n, ', ' ORDER BY status), '')
             FROM (SELECT status, count(*) AS n FROM notification_logs GROUP BY status) s",
        )
        .await
}

async fn becomes(database: &TestDatabase, wanted: &str) {
    eventually(wanted, async || states(database).await == wanted).await;
}

const SOON: Duration = Duration::from_millis(300);
