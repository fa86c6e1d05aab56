//! What every program of the product takes from outside: variables of the environment, secrets, where the database is, how
//! to log, the clock, and chance.
//!
//! A variable that cannot be used stops the process and is named; it is never ignored. To add one, read it with
//! [`parsed`], [`ranged`], [`choice`], [`text`] or [`secret`] into the typed structure of the program that needs it, or here
//! when more than one does.

pub mod clock;
mod database;
mod duration;
pub mod ids;
mod log;

pub use database::DatabaseSettings;
pub use duration::{DurationError, parse_duration};
pub use log::{SERVERS_LOG, chain, start_logging};

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
    /// Two variables that contradict each other.
    #[error("{name} and {other} cannot be set together")]
    Together {
        /// Environment variable.
        name: &'static str,
        /// The other one.
        other: &'static str,
    },
    /// A secret is given as a value and as a file.
    #[error("{name} and {name}_FILE cannot be set together")]
    Twice {
        /// Environment variable without `_FILE`.
        name: &'static str,
    },
    /// The value can be read and must not be used.
    #[error("{name} {problem}")]
    Refused {
        /// Environment variable.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A variable without which the process cannot work.
    #[error("{name} is required")]
    Required {
        /// Environment variable.
        name: &'static str,
    },
    /// There is no secret and the address is not private.
    #[error(
        "JWT_SECRET is required (at least 32 bytes) with DATABASE_URL or a HOST other than the loopback"
    )]
    MissingSecret,
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

/// A variable that is parsed; an empty one counts as not set.
///
/// # Errors
/// [`ConfigError::Invalid`] with what it may be.
pub fn parsed<T: std::str::FromStr>(
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

/// As [`parsed`], within a range.
///
/// # Errors
/// As [`parsed`].
pub fn ranged<T: std::str::FromStr + PartialOrd>(
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

/// Which of some words a variable is.
///
/// # Errors
/// As [`parsed`].
pub fn choice(
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

/// Whether a variable says `true`; without it the default.
///
/// # Errors
/// As [`parsed`].
pub fn flag(source: &dyn Source, name: &'static str, default: bool) -> Result<bool, ConfigError> {
    let said = choice(source, name, "true or false", &["false", "true"])?;
    Ok(said.map_or(default, |at| at == 1))
}

/// A text; an empty one counts as not set.
#[must_use]
pub fn text(source: &dyn Source, name: &str) -> Option<String> {
    source.get(name).filter(|value| !value.is_empty())
}

/// A secret, from the variable or from the file that `NAME_FILE` names.
///
/// # Errors
/// [`ConfigError::File`] when that file cannot be read, [`ConfigError::Twice`] when both are set.
pub fn secret(source: &dyn Source, name: &'static str) -> Result<Option<Secret>, ConfigError> {
    let value = text(source, name);
    let file = file(source, name)?;
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigError::Twice { name }),
        (value, file) => Ok(value.or(file).map(Secret)),
    }
}

/// The content of the file that `NAME_FILE` names, without white space at its end.
///
/// # Errors
/// [`ConfigError::File`] when it cannot be read.
pub fn file(source: &dyn Source, name: &'static str) -> Result<Option<String>, ConfigError> {
    let Some(path) = text(source, &format!("{name}_FILE")) else {
        return Ok(None);
    };
    let content = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        name,
        reason: error.to_string(),
    })?;
    Ok(Some(content.trim_end().to_owned()))
}
