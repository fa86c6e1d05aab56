//! PagerDuty Events API v2: trigger and resolve, its limits, and what it answers.

use std::time::Duration;

use chrono::SecondsFormat;
use podium_domain::notification::{Event, Level, Message, text};
use podium_storage::outbox::End;
use serde_json::{Map, Value, json};

use crate::Links;
use crate::escape;
use crate::http::Reply;
use crate::verdict::Verdict;

/// Where events go unless `PAGERDUTY_EVENTS_URL` says otherwise.
pub const EVENTS_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Characters of a summary.
pub const SUMMARY: usize = 1_024;
/// Characters of a key.
pub const DEDUP_KEY: usize = 255;
/// Characters of a detail here: all of them stay far below the 512 KB of a request.
const DETAIL: usize = 1_024;
/// Checks that are told.
const CHECKS: usize = 50;
/// A key may call about 120 times a minute.
pub const GAP: Duration = Duration::from_millis(500);
/// After too many calls the first wait is longer than the table's.
const TOO_MANY: Duration = Duration::from_secs(30);

/// The body of the request that opens or updates an incident.
#[must_use]
pub fn trigger(message: &Message, routing_key: &str, dedup_key: &str, links: &Links) -> Vec<u8> {
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": key(dedup_key),
        "payload": {
            "summary": summary(message),
            "source": "podium",
            "severity": severity(message),
            "timestamp": message.occurred_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            "component": "auto-promotion",
            "group": "experiments",
            "class": message.event.name(),
            "custom_details": details(message),
        },
        "client": "Podium",
    });
    if let (Some(url), Some(members)) = (links.page(message), event.as_object_mut()) {
        members.insert("client_url".into(), json!(url));
        members.insert(
            "links".into(),
            json!([{"href": url, "text": "Open in Podium"}]),
        );
    }
    event.to_string().into_bytes()
}

/// The body of the request that closes an incident.
#[must_use]
pub fn resolve(routing_key: &str, dedup_key: &str) -> Vec<u8> {
    json!({"routing_key": routing_key, "event_action": "resolve", "dedup_key": key(dedup_key)})
        .to_string()
        .into_bytes()
}

/// A key that PagerDuty takes. Ours are shorter.
#[must_use]
pub fn key(key: &str) -> String {
    key.chars().take(DEDUP_KEY).collect()
}

/// Title and sentence in one line.
#[must_use]
pub fn summary(message: &Message) -> String {
    let line = format!(
        "{}: {}",
        text::title(message.event),
        text::sentence(message)
    );
    escape::cut(&escape::one_line(&line), SUMMARY)
}

const fn severity(message: &Message) -> &'static str {
    match (message.event, message.level) {
        (Event::PromotionFailed, _) => "error",
        (_, Level::Info) => "info",
        (_, Level::Warning) => "warning",
        (_, Level::Critical) => "critical",
    }
}

fn details(message: &Message) -> Value {
    let short = |text: &str| json!(escape::cut(text, DETAIL));
    let mut details = Map::new();
    for fact in text::facts(message) {
        let name = fact.label.to_ascii_lowercase();
        details.insert(name, short(&fact.value));
    }
    for check in message.checks.iter().take(CHECKS) {
        let mark = if check.passed { "passed" } else { "failed" };
        details.insert(
            escape::cut(&check.name, DETAIL),
            short(&format!("{mark}: {}", check.message)),
        );
    }
    if let Some(reason) = &message.reason {
        details.insert("reason".into(), short(reason));
    }
    if let Some(command) = Links::how_to_roll_back(message) {
        details.insert("to take it back".into(), json!(command));
    }
    Value::Object(details)
}

/// What an answer means. `base` scales the wait after too many calls.
#[must_use]
pub fn judge(reply: &Reply, base: Duration) -> Verdict {
    match reply.status {
        202 => Verdict::Arrived,
        429 => Verdict::slow_down(
            "PagerDuty wants fewer events",
            crate::retry::scaled(TOO_MANY, base),
        ),
        400 => Verdict::never("PagerDuty refused the event", End::Message),
        408 | 500..=599 => Verdict::later(format!("PagerDuty answered {}", reply.status)),
        401 | 403 | 404 | 410 => Verdict::never(
            format!("PagerDuty refused the key (status {})", reply.status),
            End::Message,
        ),
        status => Verdict::later(format!("not PagerDuty's answer (status {status})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use podium_domain::notification::Subject;

    fn message(reason: String) -> Message {
        Message {
            reason: Some(reason),
            ..Message::new(
                Event::Rollback,
                Level::Critical,
                Subject::Alert(1),
                DateTime::UNIX_EPOCH,
            )
        }
    }

    #[test]
    fn a_summary_has_at_most_1024_characters() {
        let fixed = summary(&message(String::new())).chars().count();
        for (extra, want) in [(0, 1_024), (1, 1_024), (500, 1_024)] {
            let reason = "r".repeat(1_024 - fixed + extra);
            let made = summary(&message(reason));
            assert_eq!(made.chars().count(), want);
            assert_eq!(made.ends_with('…'), extra > 0);
        }
    }

    #[test]
    fn a_key_has_at_most_255_characters() {
        assert_eq!(key(&"k".repeat(255)).len(), 255);
        assert_eq!(key(&"k".repeat(256)).len(), 255);
    }

    #[test]
    fn severity_is_the_level_and_a_failure_an_error() {
        let mut message = message(String::new());
        assert_eq!(severity(&message), "critical");
        message.level = Level::Warning;
        assert_eq!(severity(&message), "warning");
        message.event = Event::PromotionFailed;
        assert_eq!(severity(&message), "error");
        message.event = Event::Promotion;
        message.level = Level::Info;
        assert_eq!(severity(&message), "info");
    }

    #[test]
    fn every_answer_has_its_meaning() {
        let base = Duration::from_millis(5_000);
        let status = |status| {
            judge(
                &Reply {
                    status,
                    ..Reply::default()
                },
                base,
            )
        };
        assert_eq!(status(202), Verdict::Arrived);
        assert!(matches!(status(400), Verdict::Never { .. }));
        assert!(
            matches!(status(429), Verdict::Later { at_least, pause: true, .. } if at_least == TOO_MANY)
        );
        for later in [500, 502, 503, 302, 200] {
            assert!(
                matches!(status(later), Verdict::Later { pause: false, .. }),
                "{later}"
            );
        }
    }

    #[test]
    fn a_request_is_small_whatever_it_tells() {
        let check = podium_domain::notification::Check {
            name: "n".repeat(3_000),
            passed: false,
            message: "m".repeat(100_000),
            value: None,
            threshold: None,
        };
        let message = Message {
            checks: (0..500)
                .map(|at| podium_domain::notification::Check {
                    name: format!("{at}{}", check.name),
                    ..check.clone()
                })
                .collect(),
            ..message("r".repeat(1_000_000))
        };
        let body = trigger(&message, &"k".repeat(32), "alert:1", &Links::default());
        assert!(body.len() < 512 * 1024);
    }
}
