//! The exact bytes of one message for each channel and event. What changes here changes what people and programs receive.
//!
//! `GOLDEN=write` writes the files anew, to be read before they are committed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails at the place that was surprised"
)]

use std::path::PathBuf;

use chrono::DateTime;
use lettre::message::Mailbox;
use podium_domain::notification::{
    Alert, Check, Event, Evidence, IntervalPercent, Level, Message, Named, Subject,
};
use podium_notifications::{Links, email, pagerduty, slack, webhook};
use uuid::Uuid;

const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn id() -> Uuid {
    Uuid::from_u128(0x5f0c_1d2e_0000_4000_8000_0000_0000_0001)
}

fn message(event: Event) -> Message {
    let (level, subject) = match event {
        Event::Promotion | Event::WatchEnded => (Level::Info, Subject::Promotion(id())),
        Event::Rollback => (Level::Critical, Subject::Promotion(id())),
        Event::PromotionFailed => (Level::Warning, Subject::Promotion(id())),
        Event::Hold => (Level::Warning, Subject::Experiment(12)),
        Event::AlertOpened | Event::AlertClosed => (Level::Critical, Subject::Alert(4)),
        Event::DeadLetter => (Level::Warning, Subject::Target(id())),
        Event::Test => (Level::Info, Subject::Target(id())),
    };
    let at = DateTime::from_timestamp_micros(1_772_366_400_123_456).unwrap();
    let mut message = Message::new(event, level, subject, at);
    if event != Event::Test {
        message.experiment = named(12, "homepage-cta-test");
    }
    match event {
        Event::Promotion | Event::Rollback | Event::PromotionFailed | Event::WatchEnded => {
            message.variant = named(31, "variant-b");
            message.control = named(30, "control");
            message.evidence = evidence();
            message.checks = checks();
        }
        Event::AlertOpened | Event::AlertClosed => {
            message.variant = named(31, "variant-b");
            message.alert = Some(Alert {
                kind: "error_rate".into(),
                message: "error rate of variant-b is at least 10 %".into(),
                value: Some(0.1213),
                threshold: Some(0.1),
            });
        }
        _ => {}
    }
    message.reason = match event {
        Event::Rollback => {
            Some("conversion_rate fell: -4.1 % to -1.2 % against the holdback".into())
        }
        Event::PromotionFailed => Some("the database did not answer in time".into()),
        Event::Hold => Some("Error Rate Check: 7.1 % is above 5 %".into()),
        Event::DeadLetter => {
            Some("slack of user 7: Experiment promoted: the webhook is gone".into())
        }
        _ => None,
    };
    message
}

fn named(id: i64, name: &str) -> Option<Named> {
    Some(Named {
        id,
        name: name.into(),
    })
}

fn evidence() -> Evidence {
    Evidence {
        metric: Some("conversion_rate".into()),
        confidence_percent: Some(97.5),
        improvement_percent: Some(12.3),
        interval: Some(IntervalPercent {
            lower: Some(4.2),
            upper: Some(20.9),
        }),
        sample_size: Some(24_120),
    }
}

fn checks() -> Vec<Check> {
    [
        ("Error Rate Check", "1.2 %, at most 5 %"),
        ("Latency Degradation Check", "P95 +3.1 %, at most 20 %"),
        ("Traffic Balance Check", "p = 0.62"),
        ("Recent Alerts Check", "0 critical alerts within 24 h"),
    ]
    .map(|(name, message)| Check {
        name: name.into(),
        passed: true,
        message: message.into(),
        value: None,
        threshold: None,
    })
    .into()
}

fn links() -> Links {
    Links::new(Some("https://podium.example.com"))
}

fn compare(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var("GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_default();
    assert!(
        golden == bytes,
        "{name} is not what it was; it is now\n{}",
        String::from_utf8_lossy(bytes)
    );
}

#[test]
fn slack_gets_these_bytes() {
    for event in Event::ALL {
        let bytes = slack::render(&message(*event), &links());
        compare(&format!("slack_{event}.json"), &bytes);
    }
}

#[test]
fn pagerduty_gets_these_bytes() {
    for event in Event::ALL {
        let message = message(*event);
        let key = message.subject.dedup_key();
        let bytes = if message.only_closes() {
            pagerduty::resolve(ROUTING_KEY, &key)
        } else {
            pagerduty::trigger(&message, ROUTING_KEY, &key, &links())
        };
        compare(&format!("pagerduty_{event}.json"), &bytes);
    }
}

#[test]
fn a_mailbox_gets_these_bytes() {
    let from: Mailbox = "Podium <podium@example.com>".parse().unwrap();
    for event in Event::ALL {
        let mail = email::render(id(), &message(*event), &from, "ops@example.com", &links());
        compare(&format!("email_{event}.eml"), &mail.unwrap().formatted());
    }
}

#[test]
fn a_webhook_gets_these_bytes_and_headers() {
    for event in Event::ALL {
        let body = webhook::render(&message(*event), &links());
        let now = DateTime::from_timestamp(1_772_366_401, 0).unwrap();
        let headers = webhook::headers(id(), now, &body, &[SECRET]).unwrap();
        let mut request: Vec<u8> = headers
            .iter()
            .flat_map(|(name, value)| format!("{name}: {value}\n").into_bytes())
            .collect();
        request.push(b'\n');
        request.extend(body);
        compare(&format!("webhook_{event}.txt"), &request);
    }
}

/// Names and reasons that try to be more than text are text everywhere.
#[test]
fn nothing_from_outside_is_anything_but_text() {
    let evil = "<!channel> </b><script>alert(1)</script>\r\nBcc: x@example.com *_~`";
    let mut message = message(Event::Rollback);
    message.experiment = named(1, evil);
    message.variant = named(2, evil);
    message.reason = Some(evil.into());
    message.checks[0].name = evil.into();
    message.checks[0].message = evil.into();
    let slack = String::from_utf8(slack::render(&message, &links())).unwrap();
    assert!(!slack.contains('<') && !slack.contains('>'), "{slack}");
    let from: Mailbox = "podium@example.com".parse().unwrap();
    let mail = email::render(id(), &message, &from, "ops@example.com", &links()).unwrap();
    let mail = String::from_utf8(mail.formatted()).unwrap();
    assert!(!mail.contains("\r\nBcc"), "{mail}");
    // The text is text; what a browser shows is the other part.
    let html = mail.rsplit("text/html").next().unwrap();
    assert!(!html.contains("<script>"), "{html}");
    let page = pagerduty::summary(&message);
    assert!(!page.contains(['\r', '\n']), "{page}");
}
