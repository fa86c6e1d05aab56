//! Signed webhooks for any receiver, by the Standard Webhooks specification 1.0.0.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use podium_domain::notification::{Event, Message, Subject, text};
use podium_storage::outbox::End;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::Links;
use crate::escape;
use crate::http::Reply;
use crate::verdict::Verdict;

/// A body is smaller than this.
pub const BODY: usize = 20_000;
/// Characters of a text here.
const TEXT: usize = 1_000;
/// Checks that are told.
const CHECKS: usize = 10;
/// Characters of what a check says.
const CHECK: usize = 200;
/// Bytes of a secret.
const SECRET: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be whsec_ and the base64 of 24 to 64 bytes")]
pub struct BadSecret;

/// The key inside of a secret.
///
/// # Errors
/// [`BadSecret`].
pub fn key(secret: &str) -> Result<Vec<u8>, BadSecret> {
    let text = secret.strip_prefix("whsec_").ok_or(BadSecret)?;
    let key = STANDARD.decode(text).map_err(|_| BadSecret)?;
    if SECRET.contains(&key.len()) {
        Ok(key)
    } else {
        Err(BadSecret)
    }
}

/// The headers of one try. Both signatures while secrets rotate.
///
/// # Errors
/// [`BadSecret`].
pub fn headers(
    id: Uuid,
    now: DateTime<Utc>,
    body: &[u8],
    secrets: &[&str],
) -> Result<Vec<(&'static str, String)>, BadSecret> {
    let (id, timestamp) = (id.to_string(), now.timestamp().to_string());
    let signatures: Result<Vec<String>, BadSecret> = secrets
        .iter()
        .map(|secret| Ok(sign(&key(secret)?, &id, &timestamp, body)))
        .collect();
    Ok(vec![
        ("content-type", "application/json".into()),
        ("webhook-id", id),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", signatures?.join(" ")),
    ])
}

fn sign(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// The body, the same in every try.
#[must_use]
pub fn render(message: &Message, links: &Links) -> Vec<u8> {
    let whole = body(message, links, TEXT, CHECKS);
    if whole.len() < BODY {
        return whole;
    }
    // Texts of many bytes a character.
    body(message, links, TEXT / 10, CHECKS / 2)
}

fn body(message: &Message, links: &Links, longest: usize, checks: usize) -> Vec<u8> {
    json!({
        "type": kind(message.event),
        "timestamp": message.occurred_at.to_rfc3339_opts(SecondsFormat::Micros, true),
        "data": data(message, links, longest, checks),
    })
    .to_string()
    .into_bytes()
}

/// The type of an event.
#[must_use]
pub const fn kind(event: Event) -> &'static str {
    match event {
        Event::Promotion => "experiment.promoted",
        Event::Rollback => "experiment.rolled_back",
        Event::Hold => "promotion.blocked",
        Event::PromotionFailed => "promotion.failed",
        Event::WatchEnded => "promotion.confirmed",
        Event::AlertOpened => "alert.opened",
        Event::AlertClosed => "alert.closed",
        Event::DeadLetter => "notification.failed",
        Event::Test => "notification.test",
    }
}

fn data(message: &Message, links: &Links, longest: usize, checks: usize) -> Value {
    let cut = |text: &str| json!(escape::cut(text, longest));
    let mut data = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            data.insert(name.to_owned(), value);
        }
    };
    put("level", Some(json!(message.level.name())));
    put("title", Some(json!(text::title(message.event))));
    put("message", Some(cut(&text::sentence(message))));
    put("subject", Some(json!(message.subject.dedup_key())));
    match message.subject {
        Subject::Promotion(id) => put("promotionId", Some(json!(id))),
        Subject::Alert(id) => put("alertId", Some(json!(id))),
        Subject::Experiment(_) | Subject::Target(_) => {}
    }
    put("experiment", message.experiment.as_ref().map(|e| json!(e)));
    put("variant", message.variant.as_ref().map(|v| json!(v)));
    put("control", message.control.as_ref().map(|c| json!(c)));
    put("metric", message.evidence.metric.as_deref().map(cut));
    let number = |value: Option<f64>| value.filter(|value| value.is_finite()).map(|v| json!(v));
    put("confidence", number(message.evidence.confidence_percent));
    put("improvement", number(message.evidence.improvement_percent));
    put(
        "interval",
        message
            .evidence
            .interval
            .map(|i| json!({"lower": number(i.lower), "upper": number(i.upper)})),
    );
    put("sampleSize", message.evidence.sample_size.map(|n| json!(n)));
    let told: Vec<Value> = message.checks.iter().take(checks).map(check).collect();
    put("checks", Some(json!(told)).filter(|_| !told.is_empty()));
    put(
        "alert",
        message.alert.as_ref().map(|a| {
            json!({"kind": escape::cut(&a.kind, CHECK), "message": cut(&a.message),
                "value": number(a.value), "threshold": number(a.threshold)})
        }),
    );
    put("reason", message.reason.as_deref().map(cut));
    put("actor", message.actor.as_deref().map(cut));
    put("url", links.page(message).map(|url| json!(url)));
    put(
        "howToRollBack",
        Links::how_to_roll_back(message).map(|text| json!(text)),
    );
    Value::Object(data)
}

fn check(check: &podium_domain::notification::Check) -> Value {
    json!({"name": escape::cut(&check.name, CHECK), "passed": check.passed,
        "message": escape::cut(&check.message, CHECK)})
}

/// What an answer means.
#[must_use]
pub fn judge(reply: &Reply) -> Verdict {
    let answered = format!("the endpoint answered {}", reply.status);
    match reply.status {
        200..=299 => Verdict::Arrived,
        410 => Verdict::never("the endpoint is gone (status 410)", End::Target),
        429 | 502 | 503 | 504 => Verdict::slow_down(answered, Duration::ZERO),
        300..=399 => Verdict::later(format!("{answered}, and redirects are not followed")),
        _ => Verdict::later(answered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podium_domain::notification::{Check, Level, Named};

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // Computed with Python's `hmac` from the same id, timestamp, body and secret.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let id = Uuid::from_u128(0x27fb_5f0e_0000_0000_0000_0000_0000_0001);
        let now = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        let made = headers(id, now, br#"{"test": 2432232314}"#, &[secret]).unwrap();
        assert_eq!(made[1].1, "27fb5f0e-0000-0000-0000-000000000001");
        assert_eq!(made[2].1, "1614265330");
        assert_eq!(made[3].1, SIGNATURE);
        let both = headers(id, now, br#"{"test": 2432232314}"#, &[secret, secret]).unwrap();
        assert_eq!(both[3].1, format!("{SIGNATURE} {SIGNATURE}"));
    }

    const SIGNATURE: &str = "v1,umTkDkuuj4I9L2RIOljOb0Mon8iUOdb6Mpt9s4OpKcc=";

    #[test]
    fn a_secret_has_24_to_64_bytes() {
        let secret = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert!(key(&secret(24)).is_ok());
        assert!(key(&secret(64)).is_ok());
        assert_eq!(key(&secret(23)), Err(BadSecret));
        assert_eq!(key(&secret(65)), Err(BadSecret));
        assert_eq!(key(&STANDARD.encode([7; 32])), Err(BadSecret));
        assert_eq!(key("whsec_not base64"), Err(BadSecret));
    }

    #[test]
    fn a_body_is_smaller_than_20_kilobytes_whatever_it_tells() {
        let long = "🛒".repeat(5_000);
        let name = "🛒".repeat(128);
        let named = Some(Named {
            id: i64::MAX,
            name: name.clone(),
        });
        let message = Message {
            experiment: named.clone(),
            variant: named.clone(),
            control: named,
            reason: Some(long.clone()),
            actor: Some(name),
            checks: vec![
                Check {
                    name: long.clone(),
                    passed: false,
                    message: long,
                    value: None,
                    threshold: None,
                };
                100
            ],
            ..Message::new(
                Event::Rollback,
                Level::Critical,
                Subject::Alert(1),
                DateTime::UNIX_EPOCH,
            )
        };
        let body = render(&message, &Links::default());
        assert!(body.len() < BODY, "{}", body.len());
        serde_json::from_slice::<Value>(&body).unwrap();
    }

    #[test]
    fn every_answer_has_its_meaning() {
        let status = |status| {
            judge(&Reply {
                status,
                ..Reply::default()
            })
        };
        for arrived in [200, 201, 202, 204, 299] {
            assert_eq!(status(arrived), Verdict::Arrived);
        }
        assert!(matches!(status(410), Verdict::Never { end, .. } if end == End::Target));
        for slow in [429, 502, 503, 504] {
            assert!(
                matches!(status(slow), Verdict::Later { pause: true, .. }),
                "{slow}"
            );
        }
        for later in [301, 302, 307, 400, 401, 403, 404, 418, 500] {
            assert!(
                matches!(status(later), Verdict::Later { pause: false, .. }),
                "{later}"
            );
        }
    }
}
