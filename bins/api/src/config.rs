//! What is in force: one typed structure, read from the environment once.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A value that logs and `Debug` never show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A setting that cannot be used. The message names the variable and never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The value cannot be read.
    #[error("{name} must be {wanted}")]
    Invalid {
        /// Environment variable.
        name: &'static str,
        /// What it may be.
        wanted: &'static str,
    },
    /// The file of a `NAME_FILE` variable cannot be read.
    #[error("{name}_FILE names a file that cannot be read: {reason}")]
    File {
        /// Environment variable without `_FILE`.
        name: &'static str,
        /// What the system said.
        reason: String,
    },
    /// A secret is too short.
    #[error("{name} must have at least 32 bytes")]
    ShortSecret {
        /// Environment variable.
        name: &'static str,
    },
    /// A secret that everybody can read in an example.
    #[error("{name} is a published example; make a secret of your own")]
    KnownSecret {
        /// Environment variable.
        name: &'static str,
    },
    /// There is no secret and the address is not private.
    #[error(
        "JWT_SECRET is required (at least 32 bytes) with DATABASE_URL or a HOST other than the loopback"
    )]
    MissingSecret,
}

/// Settings of the API process.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`; without it a private server is started.
    pub database_url: Option<Secret>,
    /// `DATABASE_DIRECT_URL`: the same database past a transaction pooler.
    pub database_direct_url: Option<Secret>,
    /// `MIGRATION_DATABASE_URL`: the same database as its owner.
    pub migration_database_url: Option<Secret>,
    /// `HOST`
    pub host: IpAddr,
    /// `PORT`; 0 takes a free one.
    pub port: u16,
    /// `WORKERS`: HTTP worker threads.
    pub workers: usize,
    /// `PODIUM_DATA_DIR`
    pub data_dir: Option<PathBuf>,
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
    /// `JWT_ISSUER`
    pub jwt_issuer: Option<String>,
    /// `JWT_AUDIENCE`
    pub jwt_audience: Option<String>,
    /// `JWT_TRUST_ROLES`: whether a claim `role` counts.
    pub jwt_trust_roles: bool,
    /// `PODIUM_BOOTSTRAP_ADMIN`: admin while the table of users is empty.
    pub bootstrap_admin: String,
}

/// Where settings come from: the environment, or a table in tests.
pub trait Source {
    /// The value of a variable, if it is set.
    fn get(&self, name: &str) -> Option<String>;
}

/// The environment of the process.
pub struct Environment;

impl Source for Environment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl<const N: usize> Source for [(&str, &str); N] {
    fn get(&self, name: &str) -> Option<String> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    }
}

/// Secrets that stand in published texts, so that anybody could sign with them.
const PUBLISHED: [&str; 1] = ["muse_shopping_jwt_secret_key_32_chars_min_random_secure_2024"];

impl Config {
    /// Reads every variable.
    ///
    /// # Errors
    /// [`ConfigError`] for the first variable that cannot be used; it is never ignored.
    pub fn read(source: &dyn Source) -> Result<Self, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Self {
            database_url: secret(source, "DATABASE_URL")?,
            database_direct_url: secret(source, "DATABASE_DIRECT_URL")?,
            migration_database_url: secret(source, "MIGRATION_DATABASE_URL")?,
            host: parsed(source, "HOST", "an IP address")?.unwrap_or(IpAddr::from([127, 0, 0, 1])),
            port: parsed(source, "PORT", "a port number, 0 to 65535")?.unwrap_or(3000),
            workers: ranged(source, "WORKERS", "a number from 1 to 256", &(1..=256))?
                .unwrap_or(cores),
            data_dir: source
                .get("PODIUM_DATA_DIR")
                .filter(|v| !v.is_empty())
                .map(PathBuf::from),
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
            jwt_issuer: source.get("JWT_ISSUER").filter(|v| !v.is_empty()),
            jwt_audience: source.get("JWT_AUDIENCE").filter(|v| !v.is_empty()),
            jwt_trust_roles: choice(
                source,
                "JWT_TRUST_ROLES",
                "true or false",
                &["false", "true"],
            )? == Some(1),
            bootstrap_admin: source
                .get("PODIUM_BOOTSTRAP_ADMIN")
                .filter(|v| !v.is_empty())
                .unwrap_or_else(|| "1".into()),
        })
    }

    /// Whether nobody but this machine can reach the process and its database: then a missing secret may be made.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.database_url.is_none() && self.host.is_loopback()
    }
}

fn parsed<T: std::str::FromStr>(
    source: &dyn Source,
    name: &'static str,
    wanted: &'static str,
) -> Result<Option<T>, ConfigError> {
    match source.get(name).filter(|v| !v.is_empty()) {
        None => Ok(None),
        Some(value) => value
            .parse()
            .map(Some)
            .map_err(|_| ConfigError::Invalid { name, wanted }),
    }
}

fn ranged<T: std::str::FromStr + PartialOrd>(
    source: &dyn Source,
    name: &'static str,
    wanted: &'static str,
    range: &std::ops::RangeInclusive<T>,
) -> Result<Option<T>, ConfigError> {
    match parsed::<T>(source, name, wanted)? {
        Some(value) if !range.contains(&value) => Err(ConfigError::Invalid { name, wanted }),
        other => Ok(other),
    }
}

fn choice(
    source: &dyn Source,
    name: &'static str,
    wanted: &'static str,
    choices: &[&str],
) -> Result<Option<usize>, ConfigError> {
    match source.get(name).filter(|v| !v.is_empty()) {
        None => Ok(None),
        Some(value) => match choices.iter().position(|choice| *choice == value) {
            Some(at) => Ok(Some(at)),
            None => Err(ConfigError::Invalid { name, wanted }),
        },
    }
}

fn secret(source: &dyn Source, name: &'static str) -> Result<Option<Secret>, ConfigError> {
    if let Some(value) = source.get(name).filter(|v| !v.is_empty()) {
        return Ok(Some(Secret(value)));
    }
    match source
        .get(&format!("{name}_FILE"))
        .filter(|v| !v.is_empty())
    {
        None => Ok(None),
        Some(file) => std::fs::read_to_string(file)
            .map(|text| Some(Secret(text.trim_end().to_owned())))
            .map_err(|error| ConfigError::File {
                name,
                reason: error.to_string(),
            }),
    }
}

fn signing_secret(source: &dyn Source, name: &'static str) -> Result<Option<Secret>, ConfigError> {
    let secret = secret(source, name)?;
    if let Some(secret) = &secret {
        check_signing_secret(name, secret)?;
    }
    Ok(secret)
}

/// Checks a secret before anything is signed or verified with it.
///
/// # Errors
/// [`ConfigError::ShortSecret`], [`ConfigError::KnownSecret`].
pub fn check_signing_secret(name: &'static str, secret: &Secret) -> Result<(), ConfigError> {
    if secret.0.len() < 32 {
        return Err(ConfigError::ShortSecret { name });
    }
    if PUBLISHED.contains(&secret.0.as_str()) {
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
