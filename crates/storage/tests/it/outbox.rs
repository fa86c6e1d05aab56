//! Goal: every target that wants a message gets it queued once, with the change that it tells. Method: configurations of
//! each kind, messages enqueued in transactions, and the rows that are left.

use chrono::{DateTime, Utc};
use podium_domain::notification::{Audience, Channel, Event, Level, Message, Named, Subject};
use podium_storage::{StorageError, outbox};
use uuid::Uuid;

use crate::support::{TestDatabase, with_database};

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_366_400, 0).unwrap()
}

fn message(event: Event, level: Level, subject: Subject) -> Message {
    Message {
        experiment: Some(Named {
            id: 12,
            name: "cta".into(),
        }),
        ..Message::new(event, level, subject, at())
    }
}

const PROMOTION: Subject = Subject::Promotion(Uuid::from_u128(5));

async fn enqueue(db: &TestDatabase, message: &Message) -> usize {
    let queued = db
        .database
        .transaction::<_, StorageError, _>(async |tx| outbox::enqueue(tx, message).await)
        .await;
    queued.unwrap().len()
}

async fn configs(db: &TestDatabase, rows: &str) {
    db.execute(&format!(
        "INSERT INTO notification_configs (user_id, channel, enabled, alert_levels) VALUES {rows}"
    ))
    .await;
}

/// Channel and action of every row of the outbox, in order.
async fn queued(db: &TestDatabase) -> String {
    db.text(
        "SELECT coalesce(string_agg(l.user_id || ' ' || l.channel || ' ' || o.action, ', ' ORDER BY o.seq), '')
         FROM notification_outbox o JOIN notification_logs l USING (id)",
    )
    .await
}

#[test]
fn whoever_is_enabled_and_wants_the_level_gets_it() {
    with_database(async |db| {
        configs(
            db,
            "('a', 'slack', true, '{info,critical}'), ('a', 'email', false, '{info}'),
             ('b', 'slack', true, '{warning}'), ('b', 'webhook', true, '{info}')",
        )
        .await;
        let news = message(Event::Promotion, Level::Info, PROMOTION);
        assert_eq!(enqueue(db, &news).await, 2);
        assert_eq!(enqueue(db, &news).await, 0, "told before");
        let only_slack = Message {
            audience: Audience::Channels(vec![Channel::Slack]),
            ..message(Event::Hold, Level::Warning, Subject::Experiment(12))
        };
        assert_eq!(enqueue(db, &only_slack).await, 1);
        assert_eq!(
            db.text("SELECT string_agg(user_id || ' ' || channel || ' ' || status, ', ' ORDER BY user_id, channel) FROM notification_logs").await,
            "a slack pending, b slack pending, b webhook pending"
        );
    });
}

/// No text may fail the transaction that promotes.
#[test]
fn a_reason_may_hold_anything() {
    with_database(async |db| {
        configs(db, "('a', 'slack', true, '{info}')").await;
        let odd = Message {
            reason: Some("a\0b \\u0000 \u{1} 🛒".into()),
            ..message(Event::PromotionFailed, Level::Info, PROMOTION)
        };
        assert_eq!(enqueue(db, &odd).await, 1);
    });
}

#[test]
fn what_is_rolled_back_was_never_queued() {
    with_database(async |db| {
        configs(db, "('a', 'slack', true, '{info}')").await;
        let news = message(Event::Promotion, Level::Info, PROMOTION);
        let outcome: Result<(), StorageError> = db
            .database
            .transaction(async |tx| {
                assert_eq!(outbox::enqueue(tx, &news).await?.len(), 1);
                Err(StorageError::QueueFull)
            })
            .await;
        outcome.unwrap_err();
        assert_eq!(queued(db).await, "");
        assert_eq!(enqueue(db, &news).await, 1);
    });
}

/// One that is paged about promotions and rollbacks, and one that is about rollbacks only.
const TWO_PAGED: &str =
    "('a', 'pagerduty', true, '{info,critical}'), ('b', 'pagerduty', true, '{critical}')";

#[test]
fn a_rollback_first_closes_the_incident_and_then_pages_again() {
    with_database(async |db| {
        configs(db, TWO_PAGED).await;
        enqueue(db, &message(Event::Promotion, Level::Info, PROMOTION)).await;
        assert_eq!(queued(db).await, "a pagerduty trigger");
        // It may have arrived all the same.
        db.execute("UPDATE notification_logs SET status = 'failed'")
            .await;
        let rollback = message(Event::Rollback, Level::Critical, PROMOTION);
        assert_eq!(enqueue(db, &rollback).await, 3);
        let rows = queued(db).await;
        assert!(
            rows.starts_with("a pagerduty trigger, a pagerduty resolve, "),
            "{rows}"
        );
        assert!(rows.contains("b pagerduty trigger"), "{rows}");
    });
}

/// Told twice, a rollback is told once: the incident that it opened stays open.
#[test]
fn what_is_told_twice_does_not_close_what_it_opened() {
    with_database(async |db| {
        configs(db, TWO_PAGED).await;
        enqueue(db, &message(Event::Promotion, Level::Info, PROMOTION)).await;
        let rollback = message(Event::Rollback, Level::Critical, PROMOTION);
        assert_eq!(enqueue(db, &rollback).await, 3);
        assert_eq!(enqueue(db, &rollback).await, 0);
    });
}

/// The only target in Slack.
async fn slack_target(db: &TestDatabase) -> Uuid {
    let id = "SELECT id::text FROM notification_configs WHERE channel = 'slack'";
    db.text(id).await.parse().unwrap()
}

/// The disabling of a target pages again although an incident about it is open: that one ends first.
#[test]
fn a_disabling_pages_again() {
    with_database(async |db| {
        configs(
            db,
            "('a', 'slack', false, '{}'), ('b', 'pagerduty', true, '{warning}')",
        )
        .await;
        let slack = slack_target(db).await;
        for (audience, rows) in [
            (Audience::AllBut(slack), 1),
            (Audience::AllBut(slack), 0),
            (Audience::LeftBy(slack), 2),
        ] {
            let news = Message {
                audience,
                ..message(Event::DeadLetter, Level::Warning, Subject::Target(slack))
            };
            assert_eq!(enqueue(db, &news).await, rows);
        }
        assert_eq!(
            queued(db).await,
            "b pagerduty trigger, b pagerduty resolve, b pagerduty trigger"
        );
    });
}

#[test]
fn an_end_is_news_for_people_and_pages_nobody() {
    with_database(async |db| {
        configs(
            db,
            "('a', 'pagerduty', true, '{warning}'), ('b', 'pagerduty', true, '{critical}'), ('b', 'slack', true, '{warning}')",
        )
        .await;
        enqueue(
            db,
            &message(Event::AlertOpened, Level::Warning, Subject::Alert(9)),
        )
        .await;
        // Preferences may have changed since; who was paged must hear that it is over.
        db.execute(
            "UPDATE notification_configs SET alert_levels = '{critical}' WHERE user_id = 'a'",
        )
        .await;
        enqueue(
            db,
            &message(Event::AlertClosed, Level::Warning, Subject::Alert(9)),
        )
        .await;
        let rows = queued(db).await;
        assert!(
            rows.ends_with("a pagerduty resolve, b slack trigger"),
            "{rows}"
        );
        assert_eq!(rows.matches("pagerduty").count(), 2, "{rows}");
    });
}

#[test]
fn a_test_goes_to_its_target_alone_and_a_dead_letter_to_the_others() {
    with_database(async |db| {
        configs(
            db,
            "('a', 'slack', false, '{}'), ('a', 'email', true, '{warning}')",
        )
        .await;
        let slack = slack_target(db).await;
        let about = |event, audience| Message {
            audience,
            ..message(event, Level::Warning, Subject::Target(slack))
        };
        assert_eq!(
            enqueue(db, &about(Event::Test, Audience::Only(slack))).await,
            1
        );
        assert_eq!(
            enqueue(db, &about(Event::DeadLetter, Audience::AllBut(slack))).await,
            1
        );
        assert_eq!(queued(db).await, "a slack trigger, a email trigger");
    });
}

#[test]
fn quiet_hours_end_by_the_wall_clock_of_their_zone() {
    with_database(async |db| {
        for (at, from, to, zone, until) in [
            (
                "2026-03-01 12:00+00",
                "22:00",
                "07:00",
                "UTC",
                "2026-03-01 12:00",
            ),
            (
                "2026-03-01 22:00+00",
                "22:00",
                "07:00",
                "UTC",
                "2026-03-02 07:00",
            ),
            (
                "2026-03-02 06:59+00",
                "22:00",
                "07:00",
                "UTC",
                "2026-03-02 07:00",
            ),
            (
                "2026-03-02 07:00+00",
                "22:00",
                "07:00",
                "UTC",
                "2026-03-02 07:00",
            ),
            (
                "2026-03-01 13:30+00",
                "13:00",
                "14:00",
                "UTC",
                "2026-03-01 14:00",
            ),
            // The night in which the clocks go forward: 22:00 to 07:00 is eight hours.
            (
                "2026-03-28 21:30+00",
                "22:00",
                "07:00",
                "Europe/Berlin",
                "2026-03-29 05:00",
            ),
            (
                "2026-03-01 12:00+00",
                "12:00",
                "12:00",
                "UTC",
                "2026-03-01 12:00",
            ),
            (
                "2026-03-01 12:00+00",
                "11:00",
                "13:00",
                "Atlantis/Poseidonis",
                "2026-03-01 12:00",
            ),
        ] {
            let got = db
                .text(&format!(
                    "SELECT to_char(podium_quiet_until('{at}', '{from}', '{to}', '{zone}') AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')"
                ))
                .await;
            assert_eq!(got, until, "{at} {from} {to} {zone}");
        }
    });
}

#[test]
fn quiet_hours_hold_back_all_but_the_pager() {
    with_database(async |db| {
        configs(
            db,
            "('a', 'slack', true, '{info}'), ('a', 'pagerduty', true, '{info}')",
        )
        .await;
        // All but the minute that ended eleven hours ago is quiet.
        db.execute(
            "UPDATE notification_configs SET quiet_from = (now() AT TIME ZONE 'UTC' - interval '11 hours')::time(0),
             quiet_to = (now() AT TIME ZONE 'UTC' - interval '11 hours 1 minute')::time(0)",
        )
        .await;
        enqueue(db, &message(Event::Promotion, Level::Info, PROMOTION)).await;
        assert_eq!(
            db.text(
                "SELECT string_agg(l.channel || ' ' || (o.next_attempt_at > now() + interval '1 hour'), ', ' ORDER BY l.channel)
                 FROM notification_outbox o JOIN notification_logs l USING (id)"
            )
            .await,
            "pagerduty false, slack true"
        );
    });
}

#[test]
fn an_unknown_time_zone_is_refused() {
    with_database(async |db| {
        configs(db, "('a', 'slack', true, '{info}')").await;
        let client = db.client().await;
        client
            .batch_execute("UPDATE notification_configs SET quiet_zone = 'Atlantis/Poseidonis'")
            .await
            .unwrap_err();
    });
}
