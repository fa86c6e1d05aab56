//! Targets that misbehave.

use podium_notifications::http::TimeLimits;
use podium_storage::audit::Origin;
use podium_storage::experiments::Precondition;
use podium_storage::notification_configs::{self, ConfigPatch, Secrets};
use podium_storage::notification_logs;
use podium_tests::TestDatabase;
use podium_tests::sink::{Reaction, Received, Sink};

use super::*;

fn person() -> Origin {
    Origin {
        actor: "1".into(),
        request_id: "r".into(),
        address: None,
    }
}

/// One try against a webhook that reacts like this: status, error and answer of the log, and seconds to the next try.
async fn tried(reaction: Reaction) -> (String, String, String, i64) {
    let sink = Sink::start(move |_, _| reaction.clone()).await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    let limits = TimeLimits {
        webhook: SOON,
        ..TimeLimits::default()
    };
    let sender = sender(
        &database,
        Settings {
            time_limits: limits,
            ..settings()
        },
    );
    deliver_once(&sender).await;
    assert_eq!(sink.received().len(), 1);
    let column = |sql: &'static str| database.text(sql);
    let wait = "SELECT coalesce(extract(epoch FROM max(next_attempt_at) - now())::bigint, 0) FROM notification_outbox WHERE dead_at IS NULL";
    (
        column("SELECT status FROM notification_logs").await,
        column("SELECT coalesce(error_message, '') FROM notification_logs").await,
        column("SELECT coalesce(response_data ->> 'text', '') FROM notification_logs").await,
        database.number(wait).await,
    )
}

/// Whatever goes wrong on the way, the message stays and the reason is logged.
#[tokio::test(flavor = "multi_thread")]
async fn every_failure_is_tried_again() {
    for (reaction, reason) in [
        (Reaction::Answer(500, "", "oops"), "answered 500"),
        (Reaction::Answer(404, "", ""), "answered 404"),
        (Reaction::Hang, "in time"),
        (Reaction::Drip, "in time"),
        (Reaction::BreakAfterHead(500), "answered 500"),
        (Reaction::Reset, "no answer"),
        (Reaction::Half, "no answer"),
    ] {
        let (status, error, answer, _) = tried(reaction.clone()).await;
        assert_eq!(status, "pending", "{reaction:?}");
        assert!(error.contains(reason), "{reaction:?}: {error}");
        assert!(answer.len() <= 500);
    }
}

/// A status is an answer, whatever becomes of what follows it: who has taken a message does not get it again. Slack says so
/// in the body, which therefore has to come.
#[tokio::test(flavor = "multi_thread")]
async fn who_took_a_message_and_broke_off_does_not_get_it_again() {
    let breaks: [fn(u16) -> Reaction; 2] = [Reaction::BreakAfterHead, Reaction::HangAfterHead];
    for broken in breaks {
        let sink = Sink::start(move |request, _| match request.path.as_str() {
            "/pagerduty" => broken(202),
            _ => broken(200),
        })
        .await;
        let database = TestDatabase::migrated().await;
        webhook(&database, "a", &sink.url).await;
        let slack = format!("webhook_url='{}/slack'", sink.url);
        target(&database, "a", "slack", &slack).await;
        let key = "routing_key='0123456789abcdef0123456789abcdef'";
        target(&database, "a", "pagerduty", key).await;
        enqueue(&storage(&database), &[promotion(1)]).await;
        let mut settings = settings();
        (settings.time_limits.webhook, settings.time_limits.total) = (SOON, SOON);
        settings.pagerduty_url = format!("{}/pagerduty", sink.url);
        assert_eq!(deliver_once(&sender(&database, settings)).await, 3);
        let told = "SELECT string_agg(channel || ' ' || status, ', ' ORDER BY channel) FROM notification_logs";
        assert_eq!(
            database.text(told).await,
            "pagerduty sent, slack pending, webhook sent"
        );
    }
}

/// An answer without an end is read so far and then judged by its status.
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_is_cut_off() {
    let (status, _, answer, _) = tried(Reaction::Endless).await;
    assert_eq!((status.as_str(), answer.len()), ("sent", 500));
}

/// `Retry-After` counts, up to an hour, and nonsense does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_may_ask_for_patience() {
    for (headers, least, most) in [
        ("retry-after: 120\r\n", 115, 120),
        ("retry-after: 1000000000\r\n", 3_595, 3_600),
        ("retry-after: -5\r\n", 0, 1),
        ("retry-after: soon\r\n", 0, 1),
    ] {
        let (status, _, _, wait) = tried(Reaction::Answer(429, headers, "")).await;
        assert_eq!(status, "pending");
        assert!((least..=most).contains(&wait), "{headers:?}: {wait}");
    }
}

/// A redirect is a failure: its target hears nothing.
#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let (status, error, ..) = tried(Reaction::Answer(302, "location: /elsewhere\r\n", "")).await;
    assert_eq!(status, "pending");
    assert!(error.contains("not followed"), "{error}");
}

/// An answer that repeats the request shows no secret in the log.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_logged_without_secrets() {
    let (_, _, answer, _) = tried(Reaction::Answer(
        500,
        "",
        "bad key whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\r\n",
    ))
    .await;
    assert_eq!(answer, "bad key ***  ");
}

/// After the last try a message is dead; the others hear of it once, and it can be sent again with its id.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_can_be_sent_again() {
    let broken = Sink::start(|_, before| match before {
        0..8 => Reaction::Answer(500, "", ""),
        _ => Reaction::Answer(200, "", ""),
    })
    .await;
    let other = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &broken.url).await;
    let slack = format!(
        "webhook_url, alert_levels='{}/slack', '{{warning}}'",
        other.url
    );
    target(&database, "b", "slack", &slack).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    let sender = sender(&database, settings());
    for _ in 0..8 {
        assert_eq!(states(&database).await, "pending 1");
        let_time_pass(&database).await;
        assert_eq!(deliver_once(&sender).await, 1);
    }
    assert_eq!(states(&database).await, "failed 1, pending 1");
    assert_eq!(deliver_once(&sender).await, 1);
    let news = other.received()[0].json();
    assert!(news["text"].as_str().unwrap().contains("status 500"));

    let id = "SELECT id::text FROM notification_logs WHERE status = 'failed' AND attempts = 8";
    let id: Uuid = database.text(id).await.parse().unwrap();
    let origin = person();
    let again =
        async || notification_logs::resend(&storage(&database), &origin, (Some("a"), id)).await;
    again().await.unwrap();
    let_time_pass(&database).await;
    assert_eq!(deliver_once(&sender).await, 1);
    assert_eq!(states(&database).await, "sent 2");
    let received = broken.received();
    let same = |request: &Received| request.header("webhook-id") == id.to_string();
    assert!(received.len() == 9 && received.iter().all(same));
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'notification.resend'";
    assert_eq!(database.number(audited).await, 1);
    again().await.expect_err("it was sent");
}

/// Five failures in a row open the breaker of the target, and nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_target_is_only_probed() {
    let sink = Sink::start(|_, _| Reaction::Answer(500, "", "")).await;
    let friendly = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    let a = webhook(&database, "a", &sink.url).await;
    let messages: Vec<_> = (0..7).map(promotion).collect();
    enqueue(&storage(&database), &messages).await;
    let mut settings = settings();
    settings.retry_base = Duration::from_secs(5);
    let sender = sender(&database, settings);
    for _ in 0..5 {
        assert_eq!(deliver_once(&sender).await, 1);
    }
    assert_eq!(deliver_once(&sender).await, 0, "the breaker is open");
    let pause = "SELECT extract(epoch FROM probe_at - now())::bigint FROM notification_configs WHERE user_id = 'a'";
    assert!((55..=60).contains(&database.number(pause).await));
    // Nobody else's.
    webhook(&database, "b", &friendly.url).await;
    enqueue(&storage(&database), &[promotion(8)]).await;
    assert_eq!(deliver_once(&sender).await, 1);
    assert_eq!(friendly.received().len(), 1);
    assert_eq!(sink.received().len(), 5);
    // Whoever tries it out does not wait for the probe, nor for what stands before it.
    try_out(&database, a).await;
    assert_eq!(deliver_once(&sender).await, 1);
    let tested = sink.received().pop().unwrap().json();
    assert_eq!(tested["type"], "notification.test");
}

async fn try_out(database: &TestDatabase, target: Uuid) {
    let (storage, now) = (storage(database), SystemClock.now());
    let queued = notification_configs::test(&storage, &person(), (None, target), now).await;
    queued.unwrap();
}

/// A target that asked for patience is not even tried out before.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_waits_for_a_target_that_wants_nothing() {
    for status in [429, 503] {
        let sink =
            Sink::start(move |_, _| Reaction::Answer(status, "retry-after: 120\r\n", "")).await;
        let database = TestDatabase::migrated().await;
        let target = webhook(&database, "a", &sink.url).await;
        enqueue(&storage(&database), &[promotion(1)]).await;
        let sender = sender(&database, settings());
        assert_eq!(deliver_once(&sender).await, 1);
        try_out(&database, target).await;
        assert_eq!(deliver_once(&sender).await, 0);
        let_time_pass(&database).await;
        assert_eq!(deliver_once(&sender).await, 1);
        let order: Vec<_> = sink
            .received()
            .iter()
            .map(|r| r.json()["type"].clone())
            .collect();
        assert_eq!(
            order,
            ["experiment.promoted", "notification.test"],
            "the trial goes first"
        );
        assert_eq!(deliver_once(&sender).await, 0, "it was told to wait again");
    }
}

/// A page that was given up and is sent again when its matter is over is followed by the end of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_sent_again_too_late_is_closed_again() {
    for (over, told) in [(true, "trigger, resolve"), (false, "trigger")] {
        let sink = Sink::start(|_, before| match before {
            0 => Reaction::Answer(400, "", "no"),
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
        deliver_once(&sender).await;
        let id =
            "SELECT id::text FROM notification_logs WHERE status = 'failed' AND action = 'trigger'";
        let id: Uuid = database.text(id).await.parse().unwrap();
        let end = Message {
            // A rollback ends the incident, and opens another one, which must stay open.
            event: if over {
                Event::WatchEnded
            } else {
                Event::Rollback
            },
            ..promotion(1)
        };
        enqueue(&storage(&database), &[end]).await;
        for _ in 0..4 {
            let_time_pass(&database).await;
            deliver_once(&sender).await;
        }
        let before = sink.received().len();
        notification_logs::resend(&storage(&database), &person(), (None, id))
            .await
            .unwrap();
        for _ in 0..3 {
            let_time_pass(&database).await;
            deliver_once(&sender).await;
        }
        let events: Vec<String> = sink.received()[before..]
            .iter()
            .map(|received| received.json()["event_action"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(events.join(", "), told);
    }
}

/// Delivers until nothing is left, whatever would have to wait.
async fn deliver_all(database: &TestDatabase, sender: &Sender) {
    loop {
        let_time_pass(database).await;
        if deliver_once(sender).await == 0 {
            return;
        }
    }
}

/// What PagerDuty was told: actions and keys.
fn pages(sink: &Sink) -> Vec<(String, String)> {
    let word = |event: &serde_json::Value, name| event[name].as_str().unwrap().to_owned();
    let pages = sink.received().into_iter();
    pages
        .filter(|request| request.path == "/pagerduty")
        .map(|request| request.json())
        .map(|event| (word(&event, "event_action"), word(&event, "dedup_key")))
        .collect()
}

async fn pager(database: &TestDatabase, user: &str, levels: &str) -> Uuid {
    let columns =
        format!("routing_key, alert_levels='0123456789abcdef0123456789abcdef', '{levels}'");
    target(database, user, "pagerduty", &columns).await
}

/// The incident about a target ends when it takes messages again, is changed, or is deleted, so that the next one pages.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_about_a_target_ends_with_its_trouble() {
    let sink = Sink::start(|request, _| {
        match request.path == "/slack" && !String::from_utf8_lossy(&request.body).contains("fine") {
            true => Reaction::Answer(400, "", "no"),
            false => Reaction::success(&request.path),
        }
    })
    .await;
    let database = TestDatabase::migrated().await;
    let slack = format!("webhook_url='{}/slack'", sink.url);
    let slack = target(&database, "a", "slack", &slack).await;
    pager(&database, "b", "{warning}").await;
    let mut settings = settings();
    settings.pagerduty_url = format!("{}/pagerduty", sink.url);
    let sender = sender(&database, settings);
    let fine = |number| Message {
        experiment: Some(Named {
            id: 1,
            name: "fine".into(),
        }),
        ..promotion(number)
    };
    let storage = storage(&database);
    for trouble in 0..3_u8 {
        enqueue(&storage, &[promotion(2 * u128::from(trouble))]).await;
        deliver_all(&database, &sender).await;
        match trouble {
            0 => assert_eq!(enqueue(&storage, &[fine(1)]).await, 1),
            1 => change(&database, slack, to(&format!("{}/slack?", sink.url))).await,
            _ => {
                let (origin, any) = (person(), Precondition::Any);
                let gone = notification_configs::delete(&storage, &origin, (None, slack), &any);
                gone.await.unwrap();
            }
        }
        deliver_all(&database, &sender).await;
        let key = format!("target:{slack}");
        let told = |action: &str| (action.to_owned(), key.clone());
        assert_eq!(
            pages(&sink),
            vec![[told("trigger"), told("resolve")]; usize::from(trouble) + 1].concat()
        );
        // An hour later the next dead letter is news.
        database
            .execute(&format!(
                "UPDATE notification_logs SET message_key = '{trouble}:' || message_key"
            ))
            .await;
    }
}

/// A trial of PagerDuty ends its own incident, whatever it takes, so that the next one pages as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_leaves_no_incident_open() {
    let sink = Sink::start(|_, before| match before {
        1 => Reaction::Answer(500, "", ""),
        _ => Reaction::success("/pagerduty"),
    })
    .await;
    let database = TestDatabase::migrated().await;
    let pager = pager(&database, "a", "{info}").await;
    let mut settings = settings();
    settings.pagerduty_url = format!("{}/pagerduty", sink.url);
    let sender = sender(&database, settings);
    for _ in 0..2 {
        try_out(&database, pager).await;
        deliver_all(&database, &sender).await;
    }
    let actions: Vec<String> = pages(&sink).into_iter().map(|page| page.0).collect();
    assert_eq!(
        actions,
        ["trigger", "resolve", "resolve", "trigger", "resolve"]
    );
}

/// Every try is counted by what became of it, whoever sent it, and whatever is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn tries_are_counted_by_what_became_of_them() {
    let sink = Sink::start(|_, before| match before {
        0 | 1 => Reaction::Answer(500, "", ""),
        2 => Reaction::Answer(200, "", ""),
        _ => Reaction::Answer(410, "", ""),
    })
    .await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    let sender = sender(&database, settings());
    for _ in 0..3 {
        let_time_pass(&database).await;
        assert_eq!(deliver_once(&sender).await, 1);
    }
    let counts = "SELECT string_agg(channel || ' ' || result || ' ' || count, ', ' ORDER BY result) FROM notification_counts";
    assert_eq!(
        database.text(counts).await,
        "webhook failed 2, webhook retried 2, webhook sent 1"
    );
    // The second one ends the target, and what waited behind it is given up without a try.
    enqueue(&storage(&database), &[promotion(2), promotion(3)]).await;
    assert_eq!(deliver_once(&sender).await, 1);
    assert_eq!(
        database.text(counts).await,
        "webhook dead 2, webhook failed 3, webhook retried 2, webhook sent 1"
    );
}

/// A target that is gone is disabled, with what waits for it; its owner can see why.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_gone_is_disabled() {
    let sink = Sink::start(|_, _| Reaction::Answer(410, "", "")).await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1), promotion(2)]).await;
    let sender = sender(&database, settings());
    deliver_once(&sender).await;
    assert_eq!(states(&database).await, "failed 2");
    let why = "SELECT enabled || ' ' || disabled_reason FROM notification_configs";
    assert_eq!(
        database.text(why).await,
        "false the endpoint is gone (status 410)"
    );
    assert_eq!(sink.received().len(), 1);
    let audited = "SELECT actor || ' ' || action FROM audit_log";
    assert_eq!(
        database.text(audited).await,
        "podium notification_config.disable"
    );
}

/// After five days without a success a webhook is disabled.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_never_answers_is_given_up() {
    let sink = Sink::start(|_, _| Reaction::Answer(500, "", "")).await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    database
        .execute(
            "UPDATE notification_configs SET failing_since = now() - interval '5 days 1 minute'",
        )
        .await;
    let sender = sender(&database, settings());
    deliver_once(&sender).await;
    let why = "SELECT enabled || ' ' || disabled_reason FROM notification_configs";
    assert!(database.text(why).await.starts_with("false five days"));
}

/// A private address is refused at the door, and when a name leads to one; nothing is connected to.
#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_hear_nothing() {
    let sink = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    let port = sink.url.rsplit(':').next().unwrap().to_owned();
    webhook(&database, "a", &format!("https://localhost:{port}/")).await;
    webhook(&database, "b", &format!("https://127.0.0.1:{port}/")).await;
    webhook(&database, "c", &format!("http://localhost:{port}/")).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    let mut settings = settings();
    settings.allow_private = false;
    let sender = sender(&database, settings);
    assert_eq!(deliver_once(&sender).await, 3);
    let reasons = "SELECT string_agg(error_message, '; ' ORDER BY user_id) FROM notification_logs";
    assert_eq!(
        database.text(reasons).await,
        "the address must not lead to a private, loopback or link-local address; \
         the address must not lead to a private, loopback or link-local address; \
         the address must begin with https://"
    );
    assert!(sink.received().is_empty());
}

/// A message that nobody can read stops nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_message_is_given_up() {
    let sink = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1), promotion(2)]).await;
    database
        .execute("UPDATE notification_outbox SET payload = '{}' WHERE seq = (SELECT min(seq) FROM notification_outbox)")
        .await;
    let sender = sender(&database, settings());
    while states(&database).await != "failed 1, sent 1" {
        deliver_once(&sender).await;
    }
}

/// A busy target without a wish is asked again within a minute, however late its message is in the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_target_is_not_left_alone_for_hours() {
    let sink = Sink::start(|_, _| Reaction::Answer(503, "", "")).await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    database
        .execute("UPDATE notification_outbox SET attempts = 5")
        .await;
    let mut settings = settings();
    settings.retry_base = Duration::from_secs(5);
    deliver_once(&sender(&database, settings)).await;
    let wait = |column: &str, table: &str| {
        format!("SELECT extract(epoch FROM max({column}) - now())::bigint FROM {table}")
    };
    let of_target = wait("paused_until", "notification_configs");
    let of_message = wait("next_attempt_at", "notification_outbox");
    assert!((55..=60).contains(&database.number(&of_target).await));
    assert!(database.number(&of_message).await > 35_000);
}

async fn change(database: &TestDatabase, id: Uuid, patch: ConfigPatch) {
    let (storage, any) = (storage(database), Precondition::Any);
    let origin = person();
    let changed = notification_configs::patch(&storage, &origin, (None, id), &any, &patch).await;
    changed.unwrap();
}

fn to(url: &str) -> ConfigPatch {
    ConfigPatch {
        secrets: Secrets {
            webhook_url: Some(url.to_owned()),
            ..Secrets::default()
        },
        ..ConfigPatch::default()
    }
}

/// Whoever repairs a target sees what waited for it arrive, and what its old address says in the meantime disables nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_repaired_target_is_served_at_once() {
    let friendly = Sink::friendly().await;
    for status in [410, 500] {
        let broken = Sink::start(move |_, _| Reaction::Answer(status, "", "")).await;
        let database = TestDatabase::migrated().await;
        let id = webhook(&database, "a", &broken.url).await;
        enqueue(&storage(&database), &[promotion(1), promotion(2)]).await;
        let mut settings = settings();
        settings.retry_base = Duration::from_secs(5);
        let sender = sender(&database, settings);
        database
            .execute(
                "UPDATE notification_outbox SET attempts = 4, next_attempt_at = now() + interval '9 hours'
                 WHERE seq = (SELECT min(seq) FROM notification_outbox)",
            )
            .await;
        let taken = sender.claim(1).await.unwrap();
        let outcome = sender.send(&taken[0]).await;
        change(&database, id, to(&friendly.url)).await;
        sender.record(&taken[0], &outcome).await;
        while deliver_once(&sender).await > 0 {}
        let expected = if status == 410 {
            "failed 1, sent 1"
        } else {
            "sent 2"
        };
        assert_eq!(states(&database).await, expected);
        let enabled = "SELECT enabled::text FROM notification_configs";
        assert_eq!(database.text(enabled).await, "true");
    }
}

/// What is in hand while its target is disabled, or was queued at that moment, does not wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_disabled_target() {
    let sink = Sink::start(|_, _| Reaction::Answer(500, "", "")).await;
    let database = TestDatabase::migrated().await;
    let id = webhook(&database, "a", &sink.url).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    let sender = sender(&database, settings());
    let taken = sender.claim(1).await.unwrap();
    let outcome = sender.send(&taken[0]).await;
    let off = ConfigPatch {
        enabled: Some(false),
        ..ConfigPatch::default()
    };
    change(&database, id, off).await;
    assert_eq!(states(&database).await, "pending 1", "it is in hand");
    sender.record(&taken[0], &outcome).await;
    assert_eq!(states(&database).await, "failed 1");

    database
        .execute("UPDATE notification_configs SET enabled = true")
        .await;
    enqueue(&storage(&database), &[promotion(2)]).await;
    database
        .execute("UPDATE notification_configs SET enabled = false")
        .await;
    assert_eq!(deliver_once(&sender).await, 0);
    assert_eq!(states(&database).await, "failed 2");
    let why = "SELECT DISTINCT error_message FROM notification_logs";
    assert_eq!(database.text(why).await, "the target was disabled");
}

/// That a target was disabled is told even within the hour of another dead letter, and to its owner whatever the levels;
/// what the other side said is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabling_is_always_told() {
    let broken = Sink::start(|_, before| match before {
        0 => Reaction::Answer(500, "", "for ann@example.com"),
        _ => Reaction::Answer(410, "", "for ann@example.com"),
    })
    .await;
    let other = Sink::friendly().await;
    let database = TestDatabase::migrated().await;
    webhook(&database, "a", &broken.url).await;
    let slack = |levels: &str| {
        format!(
            "webhook_url, alert_levels='{}/slack', '{levels}'",
            other.url
        )
    };
    target(&database, "a", "slack", &slack("{critical}")).await;
    target(&database, "b", "slack", &slack("{warning}")).await;
    target(&database, "c", "slack", &slack("{critical}")).await;
    enqueue(&storage(&database), &[promotion(1), promotion(2)]).await;
    database
        .execute("UPDATE notification_outbox SET attempts = 7")
        .await;
    let sender = sender(&database, settings());
    deliver_once(&sender).await;
    let_time_pass(&database).await;
    deliver_once(&sender).await;
    let told = "SELECT string_agg(user_id || ' ' || channel, ', ' ORDER BY created_at, user_id) FROM notification_logs
                WHERE alert_type = 'dead_letter'";
    assert_eq!(database.text(told).await, "b slack, a slack, b slack");
    let shown = "SELECT count(*) FROM notification_logs WHERE alert_type = 'dead_letter' AND message LIKE '%ann@%'";
    assert_eq!(database.number(shown).await, 0);
}
