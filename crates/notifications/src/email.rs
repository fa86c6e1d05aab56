//! E-mail over SMTP: one message for one recipient, text and HTML that say the same, and what the relay answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use podium_domain::notification::{Message, text};
use podium_storage::outbox::{Answer, End};
use rustls::pki_types::CertificateDer;
use uuid::Uuid;

use crate::Links;
use crate::escape;
use crate::http::TimeLimits;
use crate::sender::StartError;
use crate::settings::Smtp;
use crate::smtp::{Relay, SmtpError};
use crate::verdict::Verdict;

/// Characters of a subject.
pub const SUBJECT: usize = 200;
/// Characters of a text from outside.
const TEXT: usize = 2_000;

/// A message that cannot be put into an e-mail.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The recipient is no address.
    #[error("the recipient is not an e-mail address")]
    Recipient,
    /// The library refuses it.
    #[error("the e-mail cannot be written")]
    Message(#[from] lettre::error::Error),
}

/// Sends over one relay.
#[derive(Debug)]
pub struct Mail {
    relay: Relay,
    from: Mailbox,
    /// The account as it is written on the wire: a relay may repeat what it was told.
    secrets: Vec<String>,
}

impl Mail {
    /// Connections are made when they are needed.
    ///
    /// # Errors
    /// [`StartError::Tls`].
    pub fn new(
        settings: &Smtp,
        roots: &[CertificateDer<'static>],
        limits: TimeLimits,
    ) -> Result<Self, StartError> {
        let login = settings.login.as_ref();
        Ok(Self {
            relay: Relay::new(settings, roots, limits)?,
            from: settings.from.clone(),
            secrets: login.map_or_else(Vec::new, |(user, password)| {
                on_the_wire(user, password.expose())
            }),
        })
    }

    /// Sends a message, and says what became of it.
    pub async fn send(
        &self,
        id: Uuid,
        to: &str,
        message: &Message,
        links: &Links,
    ) -> (Verdict, Answer) {
        let mail = match render(id, message, &self.from, to, links) {
            Ok(mail) => mail,
            Err(error) => {
                return (
                    Verdict::never(error.to_string(), End::Refusal),
                    Answer::default(),
                );
            }
        };
        let secrets: Vec<&str> = self.secrets.iter().map(String::as_str).collect();
        match self.relay.send(&mail).await {
            Ok(reply) => {
                let lines: Vec<&str> = reply.message().collect();
                let answer = Answer {
                    status: Some(reply.code().into()),
                    text: escape::redacted(lines.join(" ").as_bytes(), &secrets),
                };
                (Verdict::Arrived, answer)
            }
            Err(error) => judge(&error, &secrets),
        }
    }
}

/// A password and the forms that AUTH PLAIN and AUTH LOGIN give it.
fn on_the_wire(user: &str, password: &str) -> Vec<String> {
    let plain = format!("\0{user}\0{password}");
    vec![
        password.to_owned(),
        STANDARD.encode(password),
        STANDARD.encode(plain),
    ]
}

/// Whether mail can be sent to `text`: one address, without a name.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.parse::<lettre::Address>().is_ok()
}

/// The e-mail, the same in every try.
///
/// # Errors
/// [`RenderError`].
pub fn render(
    id: Uuid,
    message: &Message,
    from: &Mailbox,
    to: &str,
    links: &Links,
) -> Result<lettre::Message, RenderError> {
    let to: lettre::Address = to.parse().map_err(|_| RenderError::Recipient)?;
    let body = MultiPart::alternative()
        .boundary(format!("podium-{}", id.simple()))
        .singlepart(part(ContentType::TEXT_PLAIN, plain(message, links)))
        .singlepart(part(ContentType::TEXT_HTML, html(message, links)));
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    Ok(lettre::Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .date(message.occurred_at.into())
        .subject(subject(message))
        .message_id(Some(format!("<{id}@{}>", from.email.domain())))
        .raw_header(HeaderValue::new(automatic, "auto-generated".into()))
        .multipart(body)?)
}

fn part(kind: ContentType, text: String) -> SinglePart {
    SinglePart::builder().content_type(kind).body(text)
}

/// Title and experiment in one line.
#[must_use]
pub fn subject(message: &Message) -> String {
    let title = text::title(message.event);
    let line = match &message.experiment {
        Some(experiment) => format!("[Podium] {title}: {}", experiment.name),
        None => format!("[Podium] {title}"),
    };
    escape::cut(&escape::one_line(&line), SUBJECT)
}

/// Both parts are made of the same paragraphs, so that they say the same.
struct Parts {
    title: &'static str,
    sentence: String,
    facts: Vec<(String, String)>,
    checks: Vec<(&'static str, String)>,
    roll_back: Option<String>,
    page: Option<String>,
    footer: String,
}

fn parts(message: &Message, links: &Links) -> Parts {
    let short = |text: &str| escape::cut(&escape::one_line(text), TEXT);
    let facts = text::facts(message).into_iter();
    let checks = message.checks.iter();
    Parts {
        title: text::title(message.event),
        sentence: short(&text::sentence(message)),
        facts: facts
            .map(|fact| (fact.label.to_owned(), short(&fact.value)))
            .collect(),
        checks: checks
            .map(|check| {
                let mark = if check.passed { "passed" } else { "failed" };
                (mark, short(&format!("{}: {}", check.name, check.message)))
            })
            .collect(),
        roll_back: Links::how_to_roll_back(message),
        page: links.page(message),
        footer: format!(
            "{} · {} · {}",
            message.subject.dedup_key(),
            message.occurred_at.format("%Y-%m-%d %H:%M:%S UTC"),
            short(&text::actor(message))
        ),
    }
}

fn plain(message: &Message, links: &Links) -> String {
    let parts = parts(message, links);
    let mut out = format!("{}\n\n{}\n", parts.title, parts.sentence);
    if !parts.facts.is_empty() {
        out.push('\n');
    }
    for (label, value) in &parts.facts {
        out.push_str(&format!("{label}: {value}\n"));
    }
    if !parts.checks.is_empty() {
        out.push_str("\nSafety checks\n");
    }
    for (mark, said) in &parts.checks {
        out.push_str(&format!("- {mark}: {said}\n"));
    }
    if let Some(command) = &parts.roll_back {
        out.push_str(&format!("\nTo take it back: {command}\n"));
    }
    if let Some(page) = &parts.page {
        out.push_str(&format!("\nOpen in Podium: {page}\n"));
    }
    out.push_str(&format!("\n{}\n", parts.footer));
    out
}

fn html(message: &Message, links: &Links) -> String {
    let parts = parts(message, links);
    let safe = |text: &str| escape::html(text);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><body style=\"font-family:sans-serif;color:#1f2328;max-width:40em\">\n\
         <h2 style=\"margin-bottom:.3em\">{}</h2>\n<p>{}</p>\n",
        parts.title,
        safe(&parts.sentence)
    );
    if !parts.facts.is_empty() {
        out.push_str("<table cellpadding=\"4\">\n");
        for (label, value) in &parts.facts {
            out.push_str(&format!(
                "<tr><td style=\"color:#57606a\">{}</td><td><b>{}</b></td></tr>\n",
                safe(label),
                safe(value)
            ));
        }
        out.push_str("</table>\n");
    }
    if !parts.checks.is_empty() {
        out.push_str("<h3>Safety checks</h3>\n<ul>\n");
        for (mark, said) in &parts.checks {
            out.push_str(&format!("<li>{mark}: {}</li>\n", safe(said)));
        }
        out.push_str("</ul>\n");
    }
    if let Some(command) = &parts.roll_back {
        out.push_str(&format!(
            "<p>To take it back: <code>{}</code></p>\n",
            safe(command)
        ));
    }
    if let Some(page) = &parts.page {
        out.push_str(&format!(
            "<p><a href=\"{0}\">Open in Podium</a>: {0}</p>\n",
            safe(page)
        ));
    }
    out.push_str(&format!(
        "<p style=\"color:#57606a\"><small>{}</small></p>\n</body></html>\n",
        safe(&parts.footer)
    ));
    out
}

/// What a failed try means; `secrets` are not repeated. What the relay said stands in the answer alone: it may name people,
/// and the reason goes into the process log, the audit log and to others.
#[must_use]
pub fn judge(error: &SmtpError, secrets: &[&str]) -> (Verdict, Answer) {
    let SmtpError::Refused(refused) = error else {
        return (Verdict::later(error.to_string()), Answer::default());
    };
    let text = escape::redacted(refused.to_string().as_bytes(), secrets);
    let status: Option<u16> = refused.status().map(u16::from);
    let verdict = match status {
        Some(status) => verdict(status, refused.is_permanent()),
        None => Verdict::later(format!("no mail server: {}", cause(refused, secrets))),
    };
    (verdict, Answer { status, text })
}

fn verdict(status: u16, permanent: bool) -> Verdict {
    match status {
        534 | 535 => Verdict::never(
            format!("the mail server refused the account (status {status})"),
            End::Account,
        ),
        _ if permanent => Verdict::never(
            format!("the mail server refused the message (status {status})"),
            End::Refusal,
        ),
        _ => Verdict::later(format!("the mail server put it off (status {status})")),
    }
}

/// Why there is no reply: the innermost cause, which holds neither address nor password, unless it quotes what was said.
fn cause(error: &lettre::transport::smtp::Error, secrets: &[&str]) -> String {
    if error.is_response() {
        return "what it said is no reply".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    escape::redacted(cause.to_string().as_bytes(), secrets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use podium_domain::notification::{Event, Level, Named, Subject};

    fn message(name: &str) -> Message {
        Message {
            experiment: Some(Named {
                id: 1,
                name: name.into(),
            }),
            ..Message::new(
                Event::Promotion,
                Level::Info,
                Subject::Promotion(Uuid::nil()),
                DateTime::UNIX_EPOCH,
            )
        }
    }

    fn rendered(name: &str) -> String {
        let from: Mailbox = "Podium <podium@example.com>".parse().unwrap();
        let mail = render(
            Uuid::nil(),
            &message(name),
            &from,
            "ops@example.com",
            &Links::default(),
        );
        String::from_utf8(mail.unwrap().formatted()).unwrap()
    }

    #[test]
    fn a_subject_is_one_short_line() {
        assert_eq!(subject(&message(&"n".repeat(500))).chars().count(), 200);
        let mail = rendered("a\r\nBcc: everybody@example.com");
        assert!(!mail.contains("\r\nBcc:"), "{mail}");
        assert!(mail.contains("Subject: [Podium] Experiment promoted: a  Bcc: everybody"));
    }

    #[test]
    fn no_line_is_longer_than_998_bytes_and_every_header_is_ascii() {
        let mail = rendered(&"ü".repeat(1_500));
        assert!(mail.split("\r\n").all(|line| line.len() <= 998));
        assert!(mail.is_ascii());
        assert!(!mail.replace("\r\n", "").contains('\n'));
    }

    #[test]
    fn markup_in_names_stays_text() {
        let html = html(&message("</b><script>alert(1)</script>"), &Links::default());
        assert!(!html.contains("<script>"), "{html}");
    }

    #[test]
    fn a_recipient_is_one_address() {
        let from: Mailbox = "podium@example.com".parse().unwrap();
        for to in [
            "",
            "nobody",
            "a@example.com, b@example.com",
            "a@example.com\r\nx: y",
        ] {
            let made = render(Uuid::nil(), &message("n"), &from, to, &Links::default());
            assert!(matches!(made, Err(RenderError::Recipient)), "{to:?}");
        }
    }

    #[test]
    fn every_reply_has_its_meaning() {
        let end = |status| match verdict(status, status >= 500) {
            Verdict::Never { end, .. } => Some(end),
            Verdict::Later { pause: false, .. } => None,
            other => panic!("{other:?}"),
        };
        for later in [421, 450, 451, 452] {
            assert_eq!(end(later), None, "{later}");
        }
        for account in [534, 535] {
            assert_eq!(end(account), Some(End::Account), "{account}");
        }
        for refused in [550, 551, 552, 553, 554, 521] {
            assert_eq!(end(refused), Some(End::Refusal), "{refused}");
        }
    }
}
