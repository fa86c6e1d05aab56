//! What is in force: one typed structure, read from the environment once.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use actix_web::http::header::{HeaderName, HeaderValue};
pub use podium_settings::{ConfigError, DatabaseSettings, Environment, Secret, Source};
use podium_settings::{choice, file, flag, parsed, ranged, secret, text};

use crate::address::{ForwardedBy, Network, Proxies};
use crate::auth::signatures::{self, VerifyingKey};
use crate::cors::Origins;
use crate::limits::{Rate, Rates};

/// Settings of the API process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the database is; without `DATABASE_URL` a private server is started.
    pub database: DatabaseSettings,
    /// `HOST`
    pub host: IpAddr,
    /// `PORT`; 0 takes a free one.
    pub port: u16,
    /// `WORKERS`: HTTP worker threads.
    pub workers: usize,
    /// `PODIUM_DATA_DIR`
    pub data_dir: Option<PathBuf>,
    /// `PODIUM_SNAPSHOT_FILE`: definitions for a start without the database; else `snapshot.json` in `PODIUM_DATA_DIR`.
    pub snapshot_file: Option<PathBuf>,
    /// `ASSIGN_WAIT_MS`: how long an answer waits for the database.
    pub assign_wait: Duration,
    /// `EVENT_RETENTION_DAYS`; without it events are kept for ever.
    pub event_retention_days: Option<i32>,
    /// `ASSIGNMENT_CACHE`: units that are known from memory.
    pub assignment_cache: usize,
    /// `LOG_FORMAT`: `text` or `json`.
    pub log_json: bool,
    /// `JWT_SECRET`
    pub jwt_secret: Option<Secret>,
    /// `JWT_SECRET_PREVIOUS`: still accepted while secrets rotate.
    pub jwt_secret_previous: Option<Secret>,
    /// `JWT_PUBLIC_KEY_FILE` or `JWT_JWKS_FILE`: tokens are signed by somebody else.
    pub jwt_public_keys: Option<Vec<VerifyingKey>>,
    /// `JWT_ISSUER`
    pub jwt_issuer: Option<String>,
    /// `JWT_AUDIENCE`
    pub jwt_audience: Option<String>,
    /// `JWT_TRUST_ROLES`: whether a claim `role` counts.
    pub jwt_trust_roles: bool,
    /// `PODIUM_BOOTSTRAP_ADMIN`: admin while the table of users is empty.
    pub bootstrap_admin: String,
    /// What people are told, and how.
    pub notifications: podium_notifications::Settings,
    /// `PUBLIC_API_KEYS_REQUIRED`: whether storefront routes need an API key.
    pub public_api_keys_required: bool,
    /// `PURCHASES_REQUIRE_SERVER_KEY`: whether purchases are taken from servers only.
    pub purchases_require_server_key: bool,
    /// `RATE_LIMIT_…`; `None` with `RATE_LIMIT_ENABLED=false`.
    pub rates: Option<Rates>,
    /// `TRUSTED_PROXIES`, `FORWARDED_HEADER`
    pub proxies: Proxies,
    /// `CORS_ALLOWED_ORIGINS`
    pub cors: Option<Origins>,
    /// `OTEL_EXPORTER_OTLP_…`: where spans of requests are sent; needs the feature `otel`.
    pub otlp: Option<Otlp>,
    /// `AUTO_PROMOTION_…` and `AUTO_NOTIFY_ALERTS`.
    pub promotion: podium_promotion::config::Environment,
}

/// A collector of spans.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`
    pub endpoint: String,
    /// `OTEL_EXPORTER_OTLP_HEADERS`: names, and values that are percent-encoded. One may be a token.
    pub headers: Vec<(String, Secret)>,
    /// `OTEL_EXPORTER_OTLP_TIMEOUT`: how long the collector may take.
    pub timeout: Duration,
}

/// Secrets that stand in published texts, so that anybody could sign with them.
const PUBLISHED: [&str; 5] = [
    "muse_shopping_jwt_secret_key_32_chars_min_random_secure_2024",
    "a-string-secret-at-least-256-bits-long",
    "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    "a-valid-string-secret-that-is-at-least-384-bits-long",
    "a-secret-key-of-at-least-32-bytes",
];

impl Config {
    /// Reads every variable.
    ///
    /// # Errors
    /// [`ConfigError`] for the first variable that cannot be used; it is never ignored.
    pub fn read(source: &dyn Source) -> Result<Self, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Self {
            database: DatabaseSettings::read(source)?,
            host: parsed(source, "HOST", "an IP address")?.unwrap_or(IpAddr::from([127, 0, 0, 1])),
            port: parsed(source, "PORT", "a port number, 0 to 65535")?.unwrap_or(3000),
            workers: ranged(source, "WORKERS", "a number from 1 to 256", &(1..=256))?
                .unwrap_or(cores),
            snapshot_file: snapshot_file(source),
            data_dir: text(source, "PODIUM_DATA_DIR").map(PathBuf::from),
            assign_wait: Duration::from_millis(
                ranged(
                    source,
                    "ASSIGN_WAIT_MS",
                    "milliseconds, 1 to 10000",
                    &(1..=10_000),
                )?
                .unwrap_or(500),
            ),
            event_retention_days: ranged(
                source,
                "EVENT_RETENTION_DAYS",
                "days, 31 to 36500",
                &(31..=36_500),
            )?,
            assignment_cache: ranged(
                source,
                "ASSIGNMENT_CACHE",
                "a number from 1000 to 100000000",
                &(1_000..=100_000_000),
            )?
            .unwrap_or(500_000),
            log_json: choice(source, "LOG_FORMAT", "text or json", &["text", "json"])? == Some(1),
            jwt_secret: signing_secret(source, "JWT_SECRET")?,
            jwt_secret_previous: signing_secret(source, "JWT_SECRET_PREVIOUS")?,
            jwt_public_keys: public_keys(source)?,
            jwt_issuer: text(source, "JWT_ISSUER"),
            jwt_audience: text(source, "JWT_AUDIENCE"),
            jwt_trust_roles: flag(source, "JWT_TRUST_ROLES", false)?,
            bootstrap_admin: text(source, "PODIUM_BOOTSTRAP_ADMIN").unwrap_or_else(|| "1".into()),
            notifications: podium_notifications::Settings::read(source)?,
            public_api_keys_required: flag(source, "PUBLIC_API_KEYS_REQUIRED", false)?,
            purchases_require_server_key: flag(source, "PURCHASES_REQUIRE_SERVER_KEY", false)?,
            rates: rates(source)?,
            proxies: proxies(source)?,
            cors: parsed(
                source,
                "CORS_ALLOWED_ORIGINS",
                "* or origins such as https://shop.example, separated by commas",
            )?,
            otlp: otlp(source)?,
            promotion: podium_promotion::config::Environment::read(|name| source.get(name))
                .map_err(|error| ConfigError::Refused {
                    name: error.name,
                    problem: error.problem,
                })?,
        })
    }

    /// Whether nobody but this machine can reach the process and its database: then a missing secret may be made.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.database.url.is_none() && self.host.is_loopback()
    }
}

/// All three are read, so that one that makes no sense is named; without an address the others mean nothing.
fn otlp(source: &dyn Source) -> Result<Option<Otlp>, ConfigError> {
    let (endpoint, headers) = (otlp_endpoint(source)?, otlp_headers(source)?);
    let timeout = ranged(
        source,
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "milliseconds, 1 to 600000",
        &(1..=600_000),
    )?;
    Ok(endpoint.map(|endpoint| Otlp {
        endpoint,
        headers,
        timeout: Duration::from_millis(timeout.unwrap_or(10_000)),
    }))
}

fn otlp_headers(source: &dyn Source) -> Result<Vec<(String, Secret)>, ConfigError> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let Some(list) = secret(source, NAME)? else {
        return Ok(Vec::new());
    };
    let headers: Option<Vec<_>> = list.expose().split(',').map(otlp_header).collect();
    headers.ok_or(ConfigError::Invalid {
        name: NAME,
        wanted: "headers such as name=value,other=value, with percent-encoded values",
    })
}

fn otlp_header(pair: &str) -> Option<(String, Secret)> {
    let (name, value) = pair.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let decoded = percent_encoding::percent_decode_str(value).collect::<Vec<u8>>();
    HeaderName::from_bytes(name.as_bytes()).ok()?;
    HeaderValue::from_bytes(&decoded).ok()?;
    Some((name.to_owned(), Secret::new(value)))
}

fn otlp_endpoint(source: &dyn Source) -> Result<Option<String>, ConfigError> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let Some(url) = text(source, NAME) else {
        return Ok(None);
    };
    let web = url.parse().is_ok_and(|uri: actix_web::http::Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    let wanted = match (cfg!(feature = "otel"), web) {
        (true, true) => return Ok(Some(url)),
        (true, false) => "an http:// or https:// URL, such as http://collector:4318",
        (false, _) => "unset: this program was built without the feature otel",
    };
    Err(ConfigError::Invalid { name: NAME, wanted })
}

fn snapshot_file(source: &dyn Source) -> Option<PathBuf> {
    let folder = || text(source, "PODIUM_DATA_DIR").map(PathBuf::from);
    let named = text(source, "PODIUM_SNAPSHOT_FILE").map(PathBuf::from);
    named.or_else(|| Some(folder()?.join("snapshot.json")))
}

fn signing_secret(source: &dyn Source, name: &'static str) -> Result<Option<Secret>, ConfigError> {
    let secret = secret(source, name)?;
    if let Some(secret) = &secret {
        check_signing_secret(name, secret)?;
    }
    Ok(secret)
}

/// Where tokens are signed by somebody else: the public keys.
fn public_keys(source: &dyn Source) -> Result<Option<Vec<VerifyingKey>>, ConfigError> {
    const PEM: &str = "JWT_PUBLIC_KEY_FILE";
    const SET: &str = "JWT_JWKS_FILE";
    let invalid = |name, wanted| ConfigError::Invalid { name, wanted };
    let (pem, set) = (file(source, "JWT_PUBLIC_KEY")?, file(source, "JWT_JWKS")?);
    let (name, keys) = match (pem, set) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(ConfigError::Together {
                name: PEM,
                other: SET,
            });
        }
        (Some(pem), None) => {
            let wanted =
                "a PEM file with one public key: RSA of at least 2048 bits, P-256 or Ed25519";
            let keys = signatures::from_pem(&pem).ok_or(invalid(PEM, wanted))?;
            (PEM, keys)
        }
        (None, Some(set)) => {
            let wanted = "a JSON Web Key Set of 1 to 16 public keys for signatures: RSA of at least 2048 bits, P-256, Ed25519";
            let keys = signatures::from_jwks(&set).ok_or(invalid(SET, wanted))?;
            (SET, keys)
        }
    };
    for secret in ["JWT_SECRET", "JWT_SECRET_PREVIOUS"] {
        // Either we sign, or somebody else does; a configuration that says both has not been thought through.
        if self::secret(source, secret)?.is_some() {
            return Err(ConfigError::Together {
                name,
                other: secret,
            });
        }
    }
    Ok(Some(keys))
}

fn rates(source: &dyn Source) -> Result<Option<Rates>, ConfigError> {
    let rate = |name, seconds, default, bursts| {
        let count = ranged(source, name, "a number from 1 to 1000000", &(1..=1_000_000))?;
        let count: u32 = count.unwrap_or(default);
        Ok(Rate {
            count,
            per: Duration::from_secs(seconds),
            burst: count * bursts,
        })
    };
    let rates = Rates {
        public: rate("RATE_LIMIT_PUBLIC_RPS", 1, 200, 2)?,
        admin: rate("RATE_LIMIT_ADMIN_RPS", 1, 20, 2)?,
        bad_tokens: rate("RATE_LIMIT_BAD_TOKENS_PER_MINUTE", 60, 20, 1)?,
        promotions: rate("RATE_LIMIT_PROMOTIONS_PER_MINUTE", 60, 10, 1)?,
    };
    Ok(flag(source, "RATE_LIMIT_ENABLED", true)?.then_some(rates))
}

fn proxies(source: &dyn Source) -> Result<Proxies, ConfigError> {
    const NAME: &str = "TRUSTED_PROXIES";
    let networks: Result<Vec<Network>, ()> = text(source, NAME)
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::parse)
        .collect();
    let wanted = "addresses and networks such as 10.0.0.0/8, separated by commas";
    let header = choice(
        source,
        "FORWARDED_HEADER",
        "x-forwarded-for or forwarded",
        &["x-forwarded-for", "forwarded"],
    )?;
    Ok(Proxies {
        networks: networks.map_err(|()| ConfigError::Invalid { name: NAME, wanted })?,
        header: match header {
            Some(1) => ForwardedBy::Forwarded,
            _ => ForwardedBy::XForwardedFor,
        },
    })
}

/// Checks a secret before anything is signed or verified with it.
///
/// # Errors
/// [`ConfigError::ShortSecret`], [`ConfigError::KnownSecret`].
pub fn check_signing_secret(name: &'static str, secret: &Secret) -> Result<(), ConfigError> {
    if secret.expose().len() < 32 {
        return Err(ConfigError::ShortSecret { name });
    }
    if PUBLISHED.contains(&secret.expose()) {
        return Err(ConfigError::KnownSecret { name });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_variable_that_cannot_be_read() {
        for (name, value) in [
            ("PORT", "http"),
            ("HOST", "here"),
            ("ASSIGN_WAIT_MS", "0"),
            ("LOG_FORMAT", "xml"),
            ("WORKERS", "-1"),
            ("AUTO_PROMOTION_MIN_CONFIDENCE", "0.95"),
            ("RATE_LIMIT_PUBLIC_RPS", "0"),
            ("RATE_LIMIT_ENABLED", "maybe"),
            ("TRUSTED_PROXIES", "10.0.0.0/40"),
            ("FORWARDED_HEADER", "x-real-ip"),
            ("CORS_ALLOWED_ORIGINS", "shop.example"),
            ("PUBLIC_API_KEYS_REQUIRED", "yes"),
            ("JWT_PUBLIC_KEY_FILE", "/nowhere/key.pem"),
            ("JWT_JWKS_FILE", "/dev/null"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "two words=x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x=a%0Ab"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ] {
            let error = Config::read(&[(name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn refuses_short_and_published_secrets_without_showing_them() {
        let error = Config::read(&[("JWT_SECRET", "short")]).unwrap_err();
        assert_eq!(error, ConfigError::ShortSecret { name: "JWT_SECRET" });
        let error = Config::read(&[("JWT_SECRET", PUBLISHED[0])]).unwrap_err();
        assert_eq!(error, ConfigError::KnownSecret { name: "JWT_SECRET" });
        let config = Config::read(&[("JWT_SECRET", "0123456789abcdef0123456789abcdef")]).unwrap();
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn defaults_are_private() {
        let config = Config::read(&[]).unwrap();
        assert!(config.is_private());
        assert!(!Config::read(&[("HOST", "0.0.0.0")]).unwrap().is_private());
    }
}
