//! The policy for dependencies (`deny.toml`), checked against what cargo has locked.
//!
//! Licences, sources, bans and minimal versions are checked for every locked package, whether a build uses it or not;
//! duplicates only among what is compiled for the policy's targets, because cargo locks more than it ever builds.

mod policy;
mod spdx;
mod toml;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::error::Error;
use crate::step;
pub(crate) use policy::PolicyError;
use policy::{Entry, Policy};
use spdx::Malformed;
use version::Version;

/// A locked package, as `cargo metadata` tells it.
#[derive(Debug, Clone)]
struct Package {
    name: String,
    version: Version,
    /// `name version`, for people.
    shown: String,
    licence: Option<String>,
    /// Where it comes from; nothing for the workspace's own.
    source: Option<String>,
}

/// One breach of the policy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// No licence that the policy permits is on offer.
    Licence { package: String, expression: String },
    /// The package names no licence.
    NoLicence { package: String },
    /// The licence is no SPDX expression.
    UnreadableLicence {
        package: String,
        expression: String,
        why: Malformed,
    },
    /// The package is neither the workspace's own nor from a registry.
    NoRegistry { package: String, source: String },
    /// Packages come from more than one registry.
    Registries(BTreeSet<String>),
    /// The package must not be there.
    Banned { package: String, reason: String },
    /// Several versions of one crate are compiled.
    Duplicate {
        name: String,
        versions: BTreeSet<String>,
    },
    /// An entry of `bans.skip` has nothing to excuse any more.
    StaleSkip { name: String },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Licence {
                package,
                expression,
            } => write!(f, "{package}: licence `{expression}` is not permitted"),
            Self::NoLicence { package } => write!(f, "{package}: no licence is named"),
            Self::UnreadableLicence {
                package,
                expression,
                why,
            } => {
                write!(f, "{package}: licence `{expression}` cannot be read: {why}")
            }
            Self::NoRegistry { package, source } => {
                write!(f, "{package}: comes from {source}, not from a registry")
            }
            Self::Registries(all) => write!(f, "more than one registry: {}", joined(all)),
            Self::Banned { package, reason } => write!(f, "{package} is banned: {reason}"),
            Self::Duplicate { name, versions } => {
                write!(f, "{name} is compiled in versions {}", joined(versions))
            }
            Self::StaleSkip { name } => write!(
                f,
                "bans.skip names {name}, which is no duplicate any more: remove it"
            ),
        }
    }
}

fn joined(words: &BTreeSet<String>) -> String {
    words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Checks the policy, and lets cargo-deny check it too where that is installed.
///
/// # Errors
/// [`Error::Denied`] with every breach, [`Error::Policy`], [`Error::Failed`] when cargo does not answer.
pub(crate) fn run(_args: &[String]) -> Result<(), Error> {
    step::step("deny", || {
        let path = step::root().join("deny.toml");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let policy = Policy::parse(&text).map_err(Error::Policy)?;
        let packages = locked_packages()?;
        let mut findings = package_findings(&packages, &policy);
        findings.extend(duplicate_findings(
            &compiled_versions(&policy)?,
            &policy.skipped,
        ));
        step::say(&format!(
            "{} locked packages, breaches: {}",
            packages.len(),
            findings.len()
        ));
        if findings.is_empty() {
            Ok(())
        } else {
            Err(Error::Denied(findings))
        }
    })?;
    cargo_deny()
}

/// Advisories are left out: they need a database from the network.
fn cargo_deny() -> Result<(), Error> {
    if !step::works("cargo-deny", &["--version"]) {
        step::say("cargo-deny is not installed: the checks above stand alone");
        return Ok(());
    }
    step::run(
        "cargo-deny",
        &mut step::cargo(["deny", "--offline", "check", "bans", "licenses", "sources"]),
    )
}

fn package_findings(packages: &[Package], policy: &Policy) -> Vec<Finding> {
    let licences = packages
        .iter()
        .filter_map(|package| licence_finding(package, policy));
    let bans = packages
        .iter()
        .flat_map(|package| ban_findings(package, &policy.banned));
    licences
        .chain(bans)
        .chain(source_findings(packages))
        .collect()
}

fn licence_finding(package: &Package, policy: &Policy) -> Option<Finding> {
    let Package { shown, licence, .. } = package;
    let package = shown.clone();
    let Some(expression) = licence.clone() else {
        return Some(Finding::NoLicence { package });
    };
    match spdx::evaluate(&expression, &|licence| policy.licences.contains(licence)) {
        Ok(true) => None,
        Ok(false) => Some(Finding::Licence {
            package,
            expression,
        }),
        Err(why) => Some(Finding::UnreadableLicence {
            package,
            expression,
            why,
        }),
    }
}

fn ban_findings(package: &Package, banned: &[Entry]) -> Vec<Finding> {
    let hits = banned
        .iter()
        .filter(|entry| entry.spec.matches(&package.name, &package.version));
    hits.map(|entry| Finding::Banned {
        package: package.shown.clone(),
        reason: entry.reason.clone(),
    })
    .collect()
}

fn source_findings(packages: &[Package]) -> Vec<Finding> {
    let mut registries = BTreeSet::new();
    let mut findings = Vec::new();
    for package in packages {
        let Some(source) = &package.source else {
            continue;
        };
        if source.starts_with("registry+") || source.starts_with("sparse+") {
            registries.insert(source.clone());
        } else {
            findings.push(Finding::NoRegistry {
                package: package.shown.clone(),
                source: source.clone(),
            });
        }
    }
    if registries.len() > 1 {
        findings.push(Finding::Registries(registries));
    }
    findings
}

/// Crate name to the versions of it that are compiled, each as cargo writes it.
type Versions = BTreeMap<String, BTreeMap<Version, String>>;

fn duplicate_findings(compiled: &Versions, skipped: &[Entry]) -> Vec<Finding> {
    let duplicates = compiled.iter().filter_map(|(name, versions)| {
        let excused = |version: &Version| {
            skipped
                .iter()
                .any(|entry| entry.spec.matches(name, version))
        };
        let counted = versions.keys().filter(|version| !excused(version)).count();
        let versions = versions.values().cloned().collect();
        (counted > 1).then(|| Finding::Duplicate {
            name: name.clone(),
            versions,
        })
    });
    let is_stale = |entry: &&Entry| {
        let versions = compiled.get(&entry.spec.name);
        let excuses = |versions: &BTreeMap<Version, String>| {
            versions.len() > 1
                && versions
                    .keys()
                    .any(|version| entry.spec.matches(&entry.spec.name, version))
        };
        !versions.is_some_and(excuses)
    };
    let stale = skipped
        .iter()
        .filter(is_stale)
        .map(|entry| Finding::StaleSkip {
            name: entry.spec.name.clone(),
        });
    duplicates.chain(stale).collect()
}

fn locked_packages() -> Result<Vec<Package>, Error> {
    let mut command = step::cargo(["metadata", "--format-version", "1", "--locked"]);
    let metadata: Value = serde_json::from_slice(&step::output("cargo metadata", &mut command)?)
        .map_err(Error::Metadata)?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or(Error::UnexpectedMetadata)?;
    packages
        .iter()
        .map(|package| read_package(package).ok_or(Error::UnexpectedMetadata))
        .collect()
}

fn read_package(package: &Value) -> Option<Package> {
    let text = |key| package.get(key).and_then(Value::as_str).map(str::to_owned);
    let (name, version) = (text("name")?, text("version")?);
    Some(Package {
        shown: format!("{name} {version}"),
        version: version.parse().ok()?,
        name,
        licence: text("license"),
        source: text("source"),
    })
}

fn compiled_versions(policy: &Policy) -> Result<Versions, Error> {
    let mut command = step::cargo([
        "tree",
        "--workspace",
        "--locked",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    for target in &policy.targets {
        command.args(["--target", target]);
    }
    let tree = step::output("cargo tree", &mut command)?;
    let mut versions = Versions::new();
    for line in String::from_utf8_lossy(&tree)
        .lines()
        .filter(|line| !line.is_empty())
    {
        let (name, shown, version) = read_tree_line(line).ok_or(Error::UnexpectedMetadata)?;
        versions.entry(name).or_default().insert(version, shown);
    }
    Ok(versions)
}

/// Reads `name v1.2.3`, behind which the kind and the folder of the package may stand.
fn read_tree_line(line: &str) -> Option<(String, String, Version)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let shown = words.next()?.strip_prefix('v')?;
    Some((name.to_owned(), shown.to_owned(), shown.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let text = "[graph]\ntargets = []\n[advisories]\nignore = []\n[licenses]\nallow = [\"MIT\"]\n[bans]\nskip = []\ndeny = [\n\
                    { crate = \"rsa\", reason = \"slow\" },\n{ crate = \"bytes:<1.11.1\", reason = \"old\" },\n]";
        Policy::parse(text).unwrap()
    }

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.into(),
            version: version.parse().unwrap(),
            shown: format!("{name} {version}"),
            licence: Some("MIT".into()),
            source: Some("registry+here".into()),
        }
    }

    fn compiled(lines: &[&str]) -> Versions {
        let mut versions = Versions::new();
        for line in lines {
            let (name, shown, version) = read_tree_line(line).unwrap();
            versions.entry(name).or_default().insert(version, shown);
        }
        versions
    }

    fn skip(spec: &str) -> [Entry; 1] {
        [Entry {
            spec: spec.parse().unwrap(),
            reason: "why".into(),
        }]
    }

    #[test]
    fn a_package_that_keeps_the_policy_is_not_found() {
        let own = Package {
            source: None,
            ..package("podium", "0.1.0")
        };
        assert_eq!(
            package_findings(&[own, package("bytes", "1.11.1")], &policy()),
            []
        );
    }

    #[test]
    fn licences_that_are_not_permitted_missing_or_unreadable_are_found() {
        let with = |licence: Option<&str>| Package {
            licence: licence.map(str::to_owned),
            ..package("a", "1.0.0")
        };
        let packages = [with(Some("GPL-3.0-only")), with(None), with(Some("MIT OR"))];
        let package = "a 1.0.0".to_owned();
        let expected = [
            Finding::Licence {
                package: package.clone(),
                expression: "GPL-3.0-only".into(),
            },
            Finding::NoLicence {
                package: package.clone(),
            },
            Finding::UnreadableLicence {
                package,
                expression: "MIT OR".into(),
                why: Malformed::MissingOperand,
            },
        ];
        assert_eq!(package_findings(&packages, &policy()), expected);
    }

    #[test]
    fn banned_crates_and_banned_versions_are_found() {
        let found = package_findings(
            &[package("rsa", "0.9.8"), package("bytes", "1.11.0")],
            &policy(),
        );
        let banned = |package: &str, reason: &str| Finding::Banned {
            package: package.into(),
            reason: reason.into(),
        };
        assert_eq!(
            found,
            [banned("rsa 0.9.8", "slow"), banned("bytes 1.11.0", "old")]
        );
    }

    #[test]
    fn git_sources_and_a_second_registry_are_found() {
        let from = |source: &str| Package {
            source: Some(source.into()),
            ..package("a", "1.0.0")
        };
        let found = package_findings(
            &[
                from("registry+here"),
                from("git+there"),
                from("sparse+elsewhere"),
            ],
            &policy(),
        );
        let expected = [
            Finding::NoRegistry {
                package: "a 1.0.0".into(),
                source: "git+there".into(),
            },
            Finding::Registries(BTreeSet::from([
                "registry+here".into(),
                "sparse+elsewhere".into(),
            ])),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_duplicate_needs_an_excuse_and_an_excuse_a_duplicate() {
        let twice = compiled(&["syn v2.0.119", "syn v3.0.10 (proc-macro)", "http v1.5.0"]);
        let versions = BTreeSet::from(["2.0.119".into(), "3.0.10".into()]);
        assert_eq!(
            duplicate_findings(&twice, &[]),
            [Finding::Duplicate {
                name: "syn".into(),
                versions
            }]
        );
        assert_eq!(duplicate_findings(&twice, &skip("syn:<3.0.0")), []);

        let once = compiled(&["syn v3.0.10"]);
        assert_eq!(
            duplicate_findings(&once, &skip("syn:<3.0.0")),
            [Finding::StaleSkip { name: "syn".into() }]
        );
    }

    #[test]
    fn a_third_version_is_not_covered_by_the_excuse_for_the_first() {
        let thrice = compiled(&["syn v1.0.0", "syn v2.0.0", "syn v3.0.0"]);
        let found = duplicate_findings(&thrice, &skip("syn:<2.0.0"));
        assert!(
            matches!(&found[..], [Finding::Duplicate { versions, .. }] if versions.len() == 3),
            "{found:?}"
        );
    }
}
