//! Slack incoming webhooks: Block Kit, its limits, and what Slack answers.

use std::time::Duration;

use podium_domain::notification::{Message, text};
use podium_storage::outbox::End;
use serde_json::{Value, json};

use crate::Links;
use crate::escape;
use crate::http::Reply;
use crate::verdict::Verdict;

/// Characters of a header.
pub const HEADER: usize = 150;
/// Characters of a section.
pub const SECTION: usize = 3_000;
/// Fields of a section.
pub const FIELDS: usize = 10;
/// Characters of a field.
pub const FIELD: usize = 2_000;
/// Blocks of a message.
pub const BLOCKS: usize = 50;
/// Characters of the text for notifications and screen readers.
pub const TEXT: usize = 3_999;
/// Characters of all blocks together. About 13,000 have been refused, without a documented figure.
pub const TOTAL: usize = 9_999;
/// Characters of a field's value here: ten of them leave room for everything else within [`TOTAL`].
const VALUE: usize = 250;
/// Characters of the list of checks here.
const CHECKS: usize = 2_000;
/// Slack takes about one message a second.
pub const GAP: Duration = Duration::from_secs(1);

/// The body of the request.
#[must_use]
pub fn render(message: &Message, links: &Links) -> Vec<u8> {
    let facts = text::facts(message);
    let fields: Vec<String> = facts
        .iter()
        .map(|fact| {
            let value = escape::slack(&fact.value, VALUE);
            format!("*{}*\n{value}", fact.label)
        })
        .collect();
    let mut blocks = vec![
        header(text::title(message.event)),
        section(&escape::slack(&text::sentence(message), SECTION)),
    ];
    blocks.extend(self::fields(&fields));
    blocks.extend(checks(message));
    blocks.extend(how_to_roll_back(message));
    blocks.push(json!({"type": "divider"}));
    blocks.extend(
        links
            .page(message)
            .map(|url| button("Open in Podium", &url)),
    );
    blocks.push(context(message));
    body(&escape::slack(&text::sentence(message), TEXT), blocks)
}

/// A message of these blocks, as many as fit.
#[must_use]
pub fn body(text: &str, blocks: Vec<Value>) -> Vec<u8> {
    let mut room = TOTAL;
    let fitting: Vec<Value> = blocks
        .into_iter()
        .filter(|block| {
            let size = characters(block);
            let fits = size <= room;
            room -= if fits { size } else { 0 };
            fits
        })
        .take(BLOCKS)
        .collect();
    json!({"text": text, "blocks": fitting})
        .to_string()
        .into_bytes()
}

/// A header of plain text.
#[must_use]
pub fn header(text: &str) -> Value {
    let text = escape::cut(&escape::one_line(text), HEADER);
    json!({"type": "header", "text": {"type": "plain_text", "text": text, "emoji": true}})
}

/// A paragraph. The text is ours or escaped.
#[must_use]
pub fn section(text: &str) -> Value {
    json!({"type": "section", "text": mrkdwn(&escape::cut(text, SECTION))})
}

/// Short texts in two columns, as many as fit; nothing without any. The texts are ours or escaped.
#[must_use]
pub fn fields(texts: &[String]) -> Option<Value> {
    if texts.is_empty() {
        return None;
    }
    let fields = texts.iter().take(FIELDS);
    let fields: Vec<Value> = fields
        .map(|text| mrkdwn(&escape::cut(text, FIELD)))
        .collect();
    Some(json!({"type": "section", "fields": fields}))
}

fn mrkdwn(text: &str) -> Value {
    // Verbatim: nothing that looks like an address or a channel becomes a link.
    json!({"type": "mrkdwn", "text": text, "verbatim": true})
}

fn button(text: &str, url: &str) -> Value {
    let text = json!({"type": "plain_text", "text": text});
    json!({"type": "actions", "elements": [{"type": "button", "text": text, "url": url}]})
}

fn checks(message: &Message) -> Option<Value> {
    if message.checks.is_empty() {
        return None;
    }
    let lines: Vec<String> = message.checks.iter().map(line).collect();
    // Whole lines only: an entity must not be cut.
    let mut text = String::from("*Safety checks*");
    for line in lines {
        if text.chars().count() + line.chars().count() + 1 > CHECKS {
            text.push_str("\n…");
            break;
        }
        text.push('\n');
        text.push_str(&line);
    }
    Some(section(&text))
}

fn line(check: &podium_domain::notification::Check) -> String {
    let mark = if check.passed { "✓" } else { "✗" };
    let (name, said) = (
        escape::slack(&check.name, VALUE),
        escape::slack(&check.message, VALUE),
    );
    format!("{mark} {name}: {said}")
}

fn how_to_roll_back(message: &Message) -> Option<Value> {
    let command = Links::how_to_roll_back(message)?;
    Some(section(&format!("To take it back: `{command}`")))
}

fn context(message: &Message) -> Value {
    let line = format!(
        "{} · {} · {}",
        message.subject.dedup_key(),
        message.occurred_at.format("%Y-%m-%d %H:%M:%S UTC"),
        text::actor(message)
    );
    json!({"type": "context", "elements": [mrkdwn(&escape::slack(&line, VALUE))]})
}

/// Characters of all texts inside.
fn characters(value: &Value) -> usize {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) if key == "text" => text.chars().count(),
                other => characters(other),
            })
            .sum(),
        Value::Array(items) => items.iter().map(characters).sum(),
        _ => 0,
    }
}

/// What an answer means.
#[must_use]
pub fn judge(reply: &Reply) -> Verdict {
    match reply.status {
        200 if reply.body.trim_ascii() == b"ok" => Verdict::Arrived,
        429 => Verdict::slow_down("Slack wants fewer messages", GAP),
        403 | 404 | 410 => Verdict::never(
            format!("the webhook is gone or refused (status {})", reply.status),
            End::Target,
        ),
        408 | 500..=599 => Verdict::later(format!("Slack answered {}", reply.status)),
        400..=499 => Verdict::never(
            format!("Slack refused the message (status {})", reply.status),
            End::Message,
        ),
        status => Verdict::later(format!("not Slack's answer (status {status})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            retry_after: None,
            body: body.into(),
        }
    }

    fn texts(value: &Value) -> usize {
        characters(value)
    }

    #[test]
    fn every_block_keeps_its_limit() {
        for (n, kept) in [(150, 150), (151, 150)] {
            assert_eq!(texts(&header(&"h".repeat(n))), kept);
        }
        for (n, kept) in [(3_000, 3_000), (3_001, 3_000)] {
            assert_eq!(texts(&section(&"s".repeat(n))), kept);
        }
        for (n, kept) in [(10, 10), (11, 10)] {
            let made = fields(&vec!["f".into(); n]).unwrap();
            assert_eq!(made["fields"].as_array().unwrap().len(), kept);
        }
        for (n, kept) in [(2_000, 2_000), (2_001, 2_000)] {
            assert_eq!(texts(&fields(&["f".repeat(n)]).unwrap()), kept);
        }
        assert_eq!(fields(&[]), None);
    }

    #[test]
    fn a_message_has_at_most_50_blocks_and_10_000_characters() {
        let count = |blocks: Vec<Value>| {
            let body: Value = serde_json::from_slice(&body("t", blocks)).unwrap();
            body["blocks"].as_array().unwrap().len()
        };
        assert_eq!(count(vec![section("x"); 50]), 50);
        assert_eq!(count(vec![section("x"); 51]), 50);
        let block = section(&"x".repeat(3_000));
        assert_eq!(count(vec![block; 4]), 3);
    }

    #[test]
    fn every_answer_has_its_meaning() {
        let never = |end| move |verdict: &Verdict| matches!(verdict, Verdict::Never { end: e, .. } if *e == end);
        let later = |pause| move |verdict: &Verdict| matches!(verdict, Verdict::Later { pause: p, .. } if *p == pause);
        assert_eq!(judge(&reply(200, "ok")), Verdict::Arrived);
        assert_eq!(judge(&reply(200, "ok\n")), Verdict::Arrived);
        assert!(later(false)(&judge(&reply(200, "<html>sign in</html>"))));
        assert!(later(false)(&judge(&reply(302, ""))));
        for text in [
            "invalid_payload",
            "no_text",
            "invalid_blocks",
            "user_not_found",
        ] {
            assert!(never(End::Message)(&judge(&reply(400, text))));
        }
        for (status, text) in [
            (403, "action_prohibited"),
            (403, "invalid_token"),
            (404, "channel_not_found"),
            (404, "no_service"),
            (410, "channel_is_archived"),
        ] {
            assert!(never(End::Target)(&judge(&reply(status, text))));
        }
        assert!(later(true)(&judge(&reply(429, "rate_limited"))));
        assert!(later(false)(&judge(&reply(500, "rollup_error"))));
        assert!(later(false)(&judge(&reply(503, ""))));
    }
}
