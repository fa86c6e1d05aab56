//! What arrives, how often, and in which order.

use podium_domain::notification::{Event, Level, Message, Subject};
use podium_notifications::{Links, slack, webhook as webhooks};
use podium_tests::sink::{Reaction, Sink};
use podium_tests::{TestDatabase, eventually};

use super::*;

/// Every channel gets its bytes from a running application.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_reaches_every_channel() {
    let sink = Sink::friendly().await;
    let app = setup()
        .variable("PAGERDUTY_EVENTS_URL", &format!("{}/pagerduty", sink.url))
        .variable("PUBLIC_URL", "https://podium.example.com")
        .start()
        .await;
    let slack = format!("webhook_url='{}/slack'", sink.url);
    target(app.database(), "a", "slack", &slack).await;
    let key = "routing_key='0123456789abcdef0123456789abcdef'";
    target(app.database(), "a", "pagerduty", key).await;
    webhook(app.database(), "a", &format!("{}/hook", sink.url)).await;
    let message = promotion(1);
    assert_eq!(
        enqueue(&app.state().database, std::slice::from_ref(&message)).await,
        3
    );
    becomes(app.database(), "sent 3").await;
    let received = sink.received();
    let by_path = |path: &str| {
        let found: Vec<_> = received.iter().filter(|r| r.path == path).collect();
        assert_eq!(found.len(), 1, "{path}");
        found[0]
    };
    // What was kept in the database has microseconds.
    let kept: Message = serde_json::from_str(&serde_json::to_string(&message).unwrap()).unwrap();
    let links = Links::new(Some("https://podium.example.com"));
    assert_eq!(by_path("/slack").body, slack::render(&kept, &links));
    assert_eq!(by_path("/pagerduty").json()["event_action"], "trigger");
    let hook = by_path("/hook");
    assert_eq!(hook.body, webhooks::render(&kept, &links));
    let logged = app
        .database()
        .text("SELECT id::text FROM notification_logs WHERE channel = 'webhook'")
        .await;
    assert_eq!(hook.header("webhook-id"), logged);
}

/// A sender that dies after it has sent and before it has recorded costs one duplicate, with the same id.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_sending_and_recording_costs_one_duplicate() {
    let sink = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    let dying = sender(&database, settings());
    let taken = dying.claim(16).await.unwrap();
    dying.send(&taken[0]).await;
    drop(dying);
    let heir = sender(&database, settings());
    assert_eq!(deliver_once(&heir).await, 0, "the lease still holds");
    let_time_pass(&database).await;
    assert_eq!(deliver_once(&heir).await, 1);
    assert_eq!(deliver_once(&heir).await, 0);
    assert_one_repeat(&sink.received());
    assert_eq!(states(&database).await, "sent 1");
}

/// A try whose lease was taken over records nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_lease_has_no_say() {
    let sink = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    let slow = sender(&database, settings());
    let taken = slow.claim(16).await.unwrap();
    let outcome = slow.send(&taken[0]).await;
    let_time_pass(&database).await;
    let quick = sender(&database, settings());
    let taken_over = quick.claim(16).await.unwrap();
    assert_eq!((taken[0].id, taken_over[0].attempt), (taken_over[0].id, 2));
    slow.record(&taken[0], &outcome).await;
    assert_eq!(states(&database).await, "pending 1");
    quick.record(&taken_over[0], &outcome).await;
    assert_eq!(states(&database).await, "sent 1");
}

/// A target that hangs keeps no other waiting, and no transaction that tells something.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_delays_nobody() {
    let hanging = Sink::start(|_, _| Reaction::Hang).await;
    let sink = Sink::friendly().await;
    let app = setup().start().await;
    webhook(app.database(), "stuck", &hanging.url).await;
    webhook(app.database(), "well", &sink.url).await;
    enqueue(&app.state().database, &[promotion(1)]).await;
    eventually("the target hangs", async || hanging.received().len() == 1).await;
    // In the transaction that promotes, while a sender is at work on the target.
    let more: Vec<Message> = (2..12).map(promotion).collect();
    enqueue(&app.state().database, &more).await;
    eventually("the other one has everything", async || {
        sink.received().len() == 11
    })
    .await;
    assert_eq!(hanging.received().len(), 1, "one at a time");
    // The end does not wait for it for long either: this drops the application.
}

/// However many targets hang, in their first try as in later ones, the others are sent to meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn many_targets_that_hang_delay_nobody() {
    let hanging = Sink::start(|_, _| Reaction::Hang).await;
    let sink = Sink::friendly().await;
    let app = setup().start().await;
    for user in 0..40 {
        webhook(app.database(), &format!("stuck{user}"), &hanging.url).await;
    }
    assert_eq!(enqueue(&app.state().database, &[promotion(1)]).await, 40);
    // Behind all of them.
    webhook(app.database(), "well", &sink.url).await;
    assert_eq!(enqueue(&app.state().database, &[promotion(2)]).await, 41);
    eventually("the other one has its message", async || {
        sink.received().len() == 1
    })
    .await;
    let given_up = "SELECT count(*) FROM notification_logs WHERE error_message IS NOT NULL";
    assert_eq!(app.database().number(given_up).await, 0, "all still hang");
}

/// The other target has its message while neighbours hang who are given all the time that a test has.
#[tokio::test(flavor = "multi_thread")]
async fn neighbours_that_hang_are_not_waited_for() {
    let sink = Sink::friendly().await;
    let slow = Sink::start(|_, _| Reaction::Hang).await;
    let database = TestDatabase::migrated().await;
    for user in 0..20 {
        webhook(&database, &format!("slow{user}"), &slow.url).await;
    }
    enqueue(&storage(&database), &[promotion(1)]).await;
    webhook(&database, "well", &sink.url).await;
    enqueue(&storage(&database), &[promotion(2)]).await;
    // As long as a test waits for anything: whoever waited for them would never come to the other one.
    let mut settings = settings();
    settings.time_limits.webhook = podium_tests::PATIENCE;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(podium_notifications::run(
        sender(&database, settings),
        stopped,
    ));
    becomes(&database, "pending 40, sent 1").await;
    assert_eq!(sink.received().len(), 1);
    eventually("each of them was tried, once", async || {
        slow.received().len() == 20
    })
    .await;
    running.abort();
}

/// What is about one thing arrives in order, also when the first message has to be sent again.
#[tokio::test(flavor = "multi_thread")]
async fn an_incident_is_closed_before_the_next_one_opens() {
    let sink = Sink::start(|_, before| match before {
        1 => Reaction::Answer(503, "", ""),
        _ => Reaction::success("/pagerduty"),
    })
    .await;
    let database = TestDatabase::migrated().await;
    let key = "routing_key='0123456789abcdef0123456789abcdef'";
    target(&database, "a", "pagerduty", key).await;
    let mut settings = settings();
    settings.pagerduty_url = format!("{}/pagerduty", sink.url);
    let sender = sender(&database, settings);
    enqueue(&storage(&database), &[promotion(1)]).await;
    let rollback = Message {
        event: Event::Rollback,
        level: Level::Critical,
        ..promotion(1)
    };
    enqueue(&storage(&database), &[rollback]).await;
    for _ in 0..4 {
        let_time_pass(&database).await;
        assert_eq!(deliver_once(&sender).await, 1);
    }
    let told: Vec<String> = sink
        .received()
        .iter()
        .map(Received::json)
        .map(|event| {
            assert_eq!(
                event["dedup_key"],
                "promotion:00000000-0000-0000-0000-000000000001"
            );
            let severity = event["payload"]["severity"].as_str().unwrap_or("");
            format!("{} {severity}", event["event_action"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        ["trigger info", "resolve ", "resolve ", "trigger critical"]
    );
}

/// What failed keeps its wait, and its tries, whatever is queued about the same thing meanwhile; what is about something else
/// goes on, at this target and at others.
#[tokio::test(flavor = "multi_thread")]
async fn news_about_the_same_thing_waits_behind_what_failed() {
    let sink = Sink::start(|_, before| match before {
        0 => Reaction::Answer(500, "retry-after: 3600\r\n", ""),
        _ => Reaction::Answer(204, "", ""),
    })
    .await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    let sender = sender(&database, settings());
    enqueue(&storage(&database), &[promotion(1)]).await;
    assert_eq!(deliver_once(&sender).await, 1);
    let rollback = Message {
        event: Event::Rollback,
        level: Level::Critical,
        ..promotion(1)
    };
    enqueue(&storage(&database), &[rollback]).await;
    assert_eq!(deliver_once(&sender).await, 0, "the first one waits");
    // A target whose messages all wait takes no place from another one, although it comes before it.
    webhook(&database, "b", &sink.url).await;
    database
        .execute("UPDATE notification_configs SET failures_in_row = (user_id = 'b')::int")
        .await;
    enqueue(&storage(&database), &[promotion(2)]).await;
    for user in ["a", "b"] {
        let taken = sender.claim(1).await.unwrap();
        assert_eq!((taken.len(), taken[0].user_id.as_str()), (1, user));
        let outcome = sender.send(&taken[0]).await;
        sender.record(&taken[0], &outcome).await;
    }
    assert_eq!(deliver_once(&sender).await, 0);
    let tries = "SELECT string_agg(attempts::text, ', ' ORDER BY seq) FROM notification_outbox";
    assert_eq!(database.text(tries).await, "1, 0");
    for _ in 0..2 {
        let_time_pass(&database).await;
        assert_eq!(deliver_once(&sender).await, 1);
    }
    let order: Vec<_> = sink
        .received()
        .iter()
        .skip(3)
        .map(|r| r.json()["type"].clone())
        .collect();
    assert_eq!(order, ["experiment.promoted", "experiment.rolled_back"]);
}

/// Who got much within a minute waits, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_not_flooded() {
    let sink = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    let messages: Vec<Message> = (0..5).map(promotion).collect();
    enqueue(&storage(&database), &messages).await;
    let mut settings = settings();
    settings.per_user = 3;
    let sender = sender(&database, settings);
    let mut rounds = 0;
    while deliver_once(&sender).await > 0 {
        rounds += 1;
    }
    assert_eq!(rounds, 3);
    database
        .execute("UPDATE notification_logs SET sent_at = sent_at - interval '2 minutes'")
        .await;
    while deliver_once(&sender).await > 0 {}
    assert_eq!(states(&database).await, "sent 5");
}

/// What is critical goes first.
#[tokio::test(flavor = "multi_thread")]
async fn the_most_urgent_message_goes_first() {
    let sink = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    let alert = |id, level| Message {
        level,
        subject: Subject::Alert(id),
        event: Event::AlertOpened,
        ..promotion(1)
    };
    let messages = [
        alert(1, Level::Info),
        alert(2, Level::Critical),
        alert(3, Level::Warning),
    ];
    enqueue(&storage(&database), &messages).await;
    let sender = sender(&database, settings());
    while deliver_once(&sender).await > 0 {}
    let order: Vec<i64> = sink
        .received()
        .iter()
        .map(|r| r.json()["data"]["alertId"].as_i64().unwrap())
        .collect();
    assert_eq!(order, [2, 3, 1]);
}
