//! Versions, their order, and the crates that an entry of `deny.toml` means.

use std::fmt;
use std::str::FromStr;

/// A semantic version without its build metadata, ordered by precedence (Semantic Versioning 2.0.0, section 11).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    stage: Stage,
}

/// Declared in the order of precedence: a pre-release comes before its release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Pre(Vec<Identifier>),
    Release,
}

/// Declared in the order of precedence: numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

/// Not a version, or not a crate specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is neither `name`, `name@1.2.3` nor `name:<1.2.3`",
            self.0
        )
    }
}

impl FromStr for Version {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let unreadable = || Unreadable(text.to_owned());
        let without_build = text.split_once('+').map_or(text, |(version, _)| version);
        let (numbers, stage) = match without_build.split_once('-') {
            Some((numbers, pre)) => (
                numbers,
                Stage::Pre(pre.split('.').map(identifier).collect()),
            ),
            None => (without_build, Stage::Release),
        };
        let numbers: Vec<u64> = numbers
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| unreadable())?;
        match numbers[..] {
            [major, minor, patch] => Ok(Self {
                major,
                minor,
                patch,
                stage,
            }),
            _ => Err(unreadable()),
        }
    }
}

fn identifier(text: &str) -> Identifier {
    text.parse()
        .map_or_else(|_| Identifier::Word(text.to_owned()), Identifier::Number)
}

/// Crates by name, and perhaps by version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    /// The crate's name.
    pub name: String,
    range: Range,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Range {
    Any,
    Below(Version),
    Exactly(Version),
}

impl Spec {
    /// Whether this crate in this version is meant.
    pub(super) fn matches(&self, name: &str, version: &Version) -> bool {
        self.name == name
            && match &self.range {
                Range::Any => true,
                Range::Below(bound) => version < bound,
                Range::Exactly(only) => version == only,
            }
    }
}

impl FromStr for Spec {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let unreadable = |_| Unreadable(text.to_owned());
        let (name, range) = if let Some((name, version)) = text.split_once('@') {
            (name, Range::Exactly(version.parse().map_err(unreadable)?))
        } else if let Some((name, version)) = text.split_once(":<") {
            (name, Range::Below(version.parse().map_err(unreadable)?))
        } else {
            (text, Range::Any)
        };
        let valid = !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if valid {
            Ok(Self {
                name: name.to_owned(),
                range,
            })
        } else {
            Err(Unreadable(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn spec(text: &str) -> Spec {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_by_precedence() {
        let rising = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0",
            "10.0.0",
        ];
        for pair in rising.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn build_metadata_does_not_count() {
        assert_eq!(version("0.14.7+wasi-0.2.4"), version("0.14.7"));
        assert_eq!(version("1.0.0-rc.1+5"), version("1.0.0-rc.1"));
    }

    #[test]
    fn half_a_version_is_refused() {
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "v1.2.3", "<1.2.3"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_bound_excludes_itself_and_catches_its_pre_releases() {
        let old = spec("jsonwebtoken:<10.3.0");
        assert!(old.matches("jsonwebtoken", &version("9.99.0")));
        assert!(old.matches("jsonwebtoken", &version("10.3.0-rc.1")));
        assert!(!old.matches("jsonwebtoken", &version("10.3.0")));
        assert!(!old.matches("jsonwebtoken-extra", &version("9.0.0")));
    }

    #[test]
    fn a_name_means_every_version_and_an_exact_one_only_itself() {
        assert!(spec("rsa").matches("rsa", &version("0.9.8")));
        assert!(spec("rsa@0.9.8").matches("rsa", &version("0.9.8")));
        assert!(!spec("rsa@0.9.8").matches("rsa", &version("0.9.9")));
    }

    #[test]
    fn other_requirements_are_refused_rather_than_misread() {
        for text in [
            "",
            "a:>=1.0.0",
            "a:<1.0",
            "a@1",
            "a:^1.0.0",
            "@1.0.0",
            "a b",
        ] {
            assert!(text.parse::<Spec>().is_err(), "{text}");
        }
    }
}
