//! What `deny.toml` says.

use std::collections::BTreeSet;
use std::fmt;

use super::toml::{self, Document, Record, SyntaxError, Value};
use super::version::{Spec, Unreadable};

/// The policy for dependencies.
#[derive(Debug)]
pub(super) struct Policy {
    /// The targets that Podium is built for, as triples.
    pub targets: Vec<String>,
    /// SPDX identifiers of the licences that a dependency may have.
    pub licences: BTreeSet<String>,
    /// Crates, or versions of them, that must not be there.
    pub banned: Vec<Entry>,
    /// Versions of crates that may be there beside a newer one.
    pub skipped: Vec<Entry>,
}

/// Crates and the reason for their treatment.
#[derive(Debug)]
pub(super) struct Entry {
    /// Which crates are meant.
    pub spec: Spec,
    /// Why.
    pub reason: String,
}

/// Why `deny.toml` cannot be used.
#[derive(Debug)]
pub(crate) enum PolicyError {
    /// It is not the TOML that is supported.
    Syntax(SyntaxError),
    /// A list is missing.
    Missing { key: &'static str },
    /// A list holds something of another type.
    WrongType { key: &'static str },
    /// A record lacks `crate` or `reason`.
    Incomplete {
        key: &'static str,
        field: &'static str,
    },
    /// A record's crate cannot be read.
    Spec(Unreadable),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => write!(f, "{error}"),
            Self::Missing { key } => write!(f, "`{key}` is missing"),
            Self::WrongType { key } => write!(f, "`{key}` holds a value of the wrong type"),
            Self::Incomplete { key, field } => write!(f, "an entry of `{key}` has no `{field}`"),
            Self::Spec(error) => write!(f, "{error}"),
        }
    }
}

impl Policy {
    /// Reads the policy from the text of `deny.toml`.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub(super) fn parse(text: &str) -> Result<Self, PolicyError> {
        let document = toml::parse(text).map_err(PolicyError::Syntax)?;
        Ok(Self {
            targets: texts(&document, "graph.targets")?,
            licences: texts(&document, "licenses.allow")?.into_iter().collect(),
            banned: entries(&document, "bans.deny")?,
            skipped: entries(&document, "bans.skip")?,
        })
    }
}

fn texts(document: &Document, key: &'static str) -> Result<Vec<String>, PolicyError> {
    let text = |value: &Value| match value {
        Value::Text(text) => Ok(text.clone()),
        _ => Err(PolicyError::WrongType { key }),
    };
    list(document, key)?.iter().map(text).collect()
}

fn entries(document: &Document, key: &'static str) -> Result<Vec<Entry>, PolicyError> {
    let entry = |value: &Value| match value {
        Value::Record(record) => read_entry(key, record),
        _ => Err(PolicyError::WrongType { key }),
    };
    list(document, key)?.iter().map(entry).collect()
}

fn read_entry(key: &'static str, record: &Record) -> Result<Entry, PolicyError> {
    let field = |field| {
        record
            .get(field)
            .ok_or(PolicyError::Incomplete { key, field })
    };
    let spec = field("crate")?.parse().map_err(PolicyError::Spec)?;
    Ok(Entry {
        spec,
        reason: field("reason")?.clone(),
    })
}

fn list<'a>(document: &'a Document, key: &'static str) -> Result<&'a [Value], PolicyError> {
    match document.get(key) {
        Some(Value::List(items)) => Ok(items),
        Some(_) => Err(PolicyError::WrongType { key }),
        None => Err(PolicyError::Missing { key }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "[graph]\ntargets = []\n[licenses]\nallow = [\"MIT\"]\n[bans]\nskip = []\n";

    #[test]
    fn a_ban_without_a_reason_is_refused() {
        let refused = Policy::parse(&format!("{REST}deny = [{{ crate = \"rsa\" }}]")).unwrap_err();
        assert!(matches!(
            refused,
            PolicyError::Incomplete {
                key: "bans.deny",
                field: "reason"
            }
        ));
        assert!(
            Policy::parse(&format!(
                "{REST}deny = [{{ crate = \"rsa\", reason = \"slow\" }}]"
            ))
            .is_ok()
        );
    }

    #[test]
    fn a_missing_list_is_refused_rather_than_taken_as_empty() {
        assert!(matches!(
            Policy::parse(REST).unwrap_err(),
            PolicyError::Missing { key: "bans.deny" }
        ));
    }

    #[test]
    fn the_projects_own_policy_can_be_read() {
        let text = include_str!("../../../deny.toml");
        assert!(!Policy::parse(text).unwrap().banned.is_empty());
    }
}
