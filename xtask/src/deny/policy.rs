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
    /// An exception does not say since when it stands.
    Undated { key: &'static str },
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
            Self::Undated { key } => write!(
                f,
                "the reason of an entry of `{key}` has no date such as 2026-01-31"
            ),
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
        for exceptions in ["bans.skip", "advisories.ignore"] {
            check_dates(&document, exceptions)?;
        }
        Ok(Self {
            targets: texts(&document, "graph.targets")?,
            licences: texts(&document, "licenses.allow")?.into_iter().collect(),
            banned: entries(&document, "bans.deny")?,
            skipped: entries(&document, "bans.skip")?,
        })
    }
}

/// Exceptions are made for a time: whoever reads one sees how old it is.
fn check_dates(document: &Document, key: &'static str) -> Result<(), PolicyError> {
    for value in list(document, key)? {
        let Value::Record(record) = value else {
            return Err(PolicyError::WrongType { key });
        };
        if !record.get("reason").is_some_and(|reason| has_date(reason)) {
            return Err(PolicyError::Undated { key });
        }
    }
    Ok(())
}

fn has_date(text: &str) -> bool {
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let text: String = text.chars().map(shape).collect();
    text.split(|c| c != '0' && c != '-')
        .any(|word| word == "0000-00-00")
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

    const REST: &str = "[graph]\ntargets = []\n[advisories]\nignore = []\n[licenses]\nallow = [\"MIT\"]\n[bans]\nskip = []\n";

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
    fn an_exception_says_since_when_it_stands() {
        let policy = |skip: &str, ignore: &str| {
            let text = REST
                .replace("skip = []", &format!("skip = [{skip}]"))
                .replace("ignore = []", &format!("ignore = [{ignore}]"));
            Policy::parse(&format!("{text}deny = []"))
        };
        let syn = |reason: &str| format!("{{ crate = \"syn\", reason = \"{reason}\" }}");
        let advisory =
            |reason: &str| format!("{{ id = \"RUSTSEC-2023-0071\", reason = \"{reason}\" }}");
        assert!(policy(&syn("derive, 2026-01-31"), &advisory("unused; 2026-01-31.")).is_ok());
        for (skip, ignore, key) in [
            (syn("derive"), String::new(), "bans.skip"),
            (syn("derive 2.0-1"), String::new(), "bans.skip"),
            (String::new(), advisory("2026"), "advisories.ignore"),
            (
                String::new(),
                "\"RUSTSEC-2023-0071\"".to_owned(),
                "advisories.ignore",
            ),
        ] {
            let refused = policy(&skip, &ignore).unwrap_err().to_string();
            assert!(refused.contains(key), "{refused}");
        }
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
