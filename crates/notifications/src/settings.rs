//! What is in force, from the environment.

use std::net::IpAddr;
use std::time::Duration;

use lettre::message::Mailbox;
use podium_settings::{ConfigError, Secret, Source, flag, ranged, secret, text};
use rustls::pki_types::CertificateDer;
use url::{Host, Url};

use crate::guard;
use crate::http::TimeLimits;
use crate::pagerduty;

/// Messages that a user gets within a minute; more wait.
const PER_USER: u32 = 60;

/// How the connection to the mail relay is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpMode {
    /// STARTTLS, and no mail when the relay does not offer it.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// Not at all: only on this machine.
    None,
}

/// The mail relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// Host name or address; the certificate must be for it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the connection is protected.
    pub mode: SmtpMode,
    /// User and password, never over an unprotected connection.
    pub login: Option<(String, Secret)>,
    /// Sender of every message.
    pub from: Mailbox,
}

/// Settings of the notifications.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `SMTP_URL` and `SMTP_FROM`; without them no e-mail is sent.
    pub smtp: Option<Smtp>,
    /// `PAGERDUTY_EVENTS_URL`
    pub pagerduty_url: String,
    /// `NOTIFY_ALLOW_PRIVATE_TARGETS`: whether http and private addresses are targets. For tests.
    pub allow_private: bool,
    /// `NOTIFY_RETRY_BASE_MS`: the first delay; the others scale with it.
    pub retry_base: Duration,
    /// `PUBLIC_URL`: where people reach Podium, for links.
    pub public_url: Option<String>,
    /// Messages that a user gets within a minute; more wait.
    pub per_user: u32,
    /// Time limits of requests.
    pub time_limits: TimeLimits,
    /// Certificates that are trusted beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Settings {
    /// Reads every variable.
    ///
    /// # Errors
    /// [`ConfigError`] for the first variable that cannot be used.
    pub fn read(source: &dyn Source) -> Result<Self, ConfigError> {
        let allow_private = flag(source, "NOTIFY_ALLOW_PRIVATE_TARGETS", false)?;
        Ok(Self {
            smtp: smtp(source)?,
            pagerduty_url: pagerduty_url(source, allow_private)?,
            allow_private,
            retry_base: Duration::from_millis(
                ranged(
                    source,
                    "NOTIFY_RETRY_BASE_MS",
                    "milliseconds, 1 to 3600000",
                    &(1..=3_600_000),
                )?
                .unwrap_or(5_000),
            ),
            public_url: public_url(source)?,
            per_user: PER_USER,
            time_limits: TimeLimits::default(),
            extra_roots: Vec::new(),
        })
    }
}

fn pagerduty_url(source: &dyn Source, allow_private: bool) -> Result<String, ConfigError> {
    let Some(url) = text(source, "PAGERDUTY_EVENTS_URL") else {
        return Ok(pagerduty::EVENTS_URL.into());
    };
    match guard::target(&url, allow_private) {
        Ok(_) => Ok(url),
        Err(_) => Err(ConfigError::Invalid {
            name: "PAGERDUTY_EVENTS_URL",
            wanted: "an https:// URL of a public address",
        }),
    }
}

fn public_url(source: &dyn Source) -> Result<Option<String>, ConfigError> {
    let Some(text) = text(source, "PUBLIC_URL") else {
        return Ok(None);
    };
    let web = Url::parse(&text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && text.len() < 1_000
    });
    if web {
        Ok(Some(text))
    } else {
        Err(ConfigError::Invalid {
            name: "PUBLIC_URL",
            wanted: "an http:// or https:// URL",
        })
    }
}

fn smtp(source: &dyn Source) -> Result<Option<Smtp>, ConfigError> {
    let Some(url) = secret(source, "SMTP_URL")? else {
        return Ok(None);
    };
    let from = text(source, "SMTP_FROM").and_then(|from| from.parse().ok());
    let from = from.ok_or(ConfigError::Invalid {
        name: "SMTP_FROM",
        wanted: "an e-mail address, such as Podium <podium@example.com>, when SMTP_URL is set",
    })?;
    let parsed = Url::parse(url.expose()).ok();
    let smtp = parsed.and_then(|url| relay(&url, from));
    smtp.map(Some).ok_or(ConfigError::Invalid {
        name: "SMTP_URL",
        wanted: "smtp://user:password@host:587 (STARTTLS) or smtps://user:password@host:465; \
                 ?tls=none only for this machine and without a password",
    })
}

fn relay(url: &Url, from: Mailbox) -> Option<Smtp> {
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let login = login(url)?;
    let local = is_local(url);
    let wish = url
        .query_pairs()
        .find(|(name, _)| name == "tls")
        .map(|(_, value)| value.into_owned());
    let mode = match (url.scheme(), wish.as_deref()) {
        ("smtps", None) => SmtpMode::Tls,
        ("smtp", Some("starttls" | "required")) => SmtpMode::StartTls,
        ("smtp", Some("none")) if local && login.is_none() => SmtpMode::None,
        // A relay on this machine rarely has a certificate, and nobody listens in between.
        ("smtp", None) if local && login.is_none() => SmtpMode::None,
        ("smtp", None) => SmtpMode::StartTls,
        _ => return None,
    };
    let port = url
        .port()
        .unwrap_or(if mode == SmtpMode::Tls { 465 } else { 587 });
    Some(Smtp {
        host,
        port,
        mode,
        login,
        from,
    })
}

/// User and password; an outer `None` when there is only one of them or one that is no text.
fn login(url: &Url) -> Option<Option<(String, Secret)>> {
    let decoded = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        decoded.ok().map(std::borrow::Cow::into_owned)
    };
    match (url.username(), url.password()) {
        ("", None) => Some(None),
        ("", Some(_)) | (_, None) => None,
        (user, Some(password)) => Some(Some((decoded(user)?, Secret::new(decoded(password)?)))),
    }
}

fn is_local(url: &Url) -> bool {
    // Schemes that the parser does not know keep an IPv4 address as a name.
    match url.host() {
        Some(Host::Domain(name)) => {
            name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> Option<(SmtpMode, u16, bool)> {
        let settings = Settings::read(&[("SMTP_URL", url), ("SMTP_FROM", "podium@example.com")]);
        let smtp = settings.ok()?.smtp?;
        Some((smtp.mode, smtp.port, smtp.login.is_some()))
    }

    #[test]
    fn mail_is_protected_unless_it_stays_on_this_machine() {
        for (url, want) in [
            (
                "smtp://relay.example.com",
                Some((SmtpMode::StartTls, 587, false)),
            ),
            (
                "smtp://u:p@relay.example.com:25",
                Some((SmtpMode::StartTls, 25, true)),
            ),
            (
                "smtps://u:p@relay.example.com",
                Some((SmtpMode::Tls, 465, true)),
            ),
            ("smtp://127.0.0.1:1025", Some((SmtpMode::None, 1025, false))),
            ("smtp://[::1]:1025", Some((SmtpMode::None, 1025, false))),
            (
                "smtp://localhost:1025?tls=none",
                Some((SmtpMode::None, 1025, false)),
            ),
            (
                "smtp://localhost:1025?tls=starttls",
                Some((SmtpMode::StartTls, 1025, false)),
            ),
            (
                "smtp://u:p@localhost:1025",
                Some((SmtpMode::StartTls, 1025, true)),
            ),
            ("smtp://u:p@localhost?tls=none", None),
            ("smtp://relay.example.com?tls=none", None),
            ("smtps://relay.example.com?tls=none", None),
            ("smtp://u@relay.example.com", None),
            ("http://relay.example.com", None),
            ("relay", None),
        ] {
            assert_eq!(mode(url), want, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_and_secrets_are_not_shown() {
        for (variables, name) in [
            ([("SMTP_URL", "smtp://a:secret@b"), ("X", "")], "SMTP_FROM"),
            ([("SMTP_URL", "secret"), ("SMTP_FROM", "a@b.c")], "SMTP_URL"),
            (
                [("PAGERDUTY_EVENTS_URL", "https://10.0.0.1/"), ("X", "")],
                "PAGERDUTY_EVENTS_URL",
            ),
            (
                [("PAGERDUTY_EVENTS_URL", "http://example.com/"), ("X", "")],
                "PAGERDUTY_EVENTS_URL",
            ),
            (
                [("NOTIFY_RETRY_BASE_MS", "0"), ("X", "")],
                "NOTIFY_RETRY_BASE_MS",
            ),
            (
                [("NOTIFY_ALLOW_PRIVATE_TARGETS", "yes"), ("X", "")],
                "NOTIFY_ALLOW_PRIVATE_TARGETS",
            ),
            ([("PUBLIC_URL", "example.com"), ("X", "")], "PUBLIC_URL"),
        ] {
            let error = Settings::read(&variables).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let settings = Settings::read(&[
            ("SMTP_URL", "smtps://u:pass%20word@relay.example.com"),
            ("SMTP_FROM", "a@b.c"),
        ])
        .unwrap();
        assert!(!format!("{settings:?}").contains("word"));
        let (_, password) = settings.smtp.unwrap().login.unwrap();
        assert_eq!(password.expose(), "pass word");
    }

    #[test]
    fn defaults_reach_the_world_and_nothing_private() {
        let settings = Settings::read(&[]).unwrap();
        assert_eq!(settings.pagerduty_url, pagerduty::EVENTS_URL);
        assert!(!settings.allow_private && settings.smtp.is_none());
        assert_eq!(settings.retry_base, Duration::from_secs(5));
    }
}
