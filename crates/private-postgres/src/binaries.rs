//! Finding the programs of an installed PostgreSQL.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::MIN_MAJOR_VERSION;
use crate::error::Error;
use crate::user::RunAs;
use crate::{install, processes};

/// What a folder must hold to be taken for an installation.
const PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// The programs of one PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installation {
    pub(crate) bin_dir: PathBuf,
    pub(crate) major: u32,
}

impl Installation {
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

/// Where to look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    /// A list of folders as in `PATH`.
    pub(crate) path: Option<OsString>,
    /// Folders with one installation a version, and how the names of those begin.
    pub(crate) versioned: Vec<(PathBuf, &'static str)>,
    /// Further folders with programs.
    pub(crate) fixed: Vec<PathBuf>,
}

impl Search {
    /// The places where the packages of the usual systems put the programs.
    pub(crate) fn of_system() -> Self {
        Self {
            path: std::env::var_os("PATH"),
            versioned: vec![
                ("/usr/lib/postgresql".into(), ""),
                ("/usr".into(), "pgsql-"),
                ("/usr/libexec".into(), "postgresql"),
                ("/opt/homebrew/opt".into(), "postgresql"),
                ("/usr/local/opt".into(), "postgresql"),
            ],
            fixed: vec!["/usr/local/pgsql/bin".into()],
        }
    }

    /// All folders that may hold programs, the preferred first: `PATH`, then the versioned ones
    /// place by place and the newest first, then the others.
    fn bin_dirs(&self) -> Vec<PathBuf> {
        let path = self.path.iter().flat_map(std::env::split_paths);
        // An empty or relative entry means the current folder, which anybody may have filled.
        let mut dirs: Vec<PathBuf> = path.filter(|dir| dir.is_absolute()).collect();
        for (place, prefix) in &self.versioned {
            dirs.extend(newest_first(place, prefix));
        }
        dirs.extend(self.fixed.iter().cloned());
        dirs
    }

    /// What is installed, in the order of preference.
    pub(crate) fn installed(&self, run_as: &RunAs) -> Vec<Installation> {
        let mut found: Vec<Installation> = Vec::new();
        for dir in self.bin_dirs() {
            let Some(bin_dir) = with_programs(&dir) else {
                continue;
            };
            if found.iter().any(|known| known.bin_dir == bin_dir) {
                continue;
            }
            match major_version(&bin_dir, run_as) {
                Some(major) => found.push(Installation { bin_dir, major }),
                None => {
                    tracing::debug!(dir = %bin_dir.display(), "PostgreSQL without a version");
                }
            }
        }
        found
    }
}

/// Finds an installation for the cluster in `data_dir`, which is of the version `cluster`, if
/// there is one yet. Installs PostgreSQL where there is none, `may_install` says so, and we can.
pub(crate) fn find(
    search: &Search,
    run_as: &RunAs,
    data_dir: &Path,
    cluster: Option<u32>,
    may_install: bool,
) -> Result<Installation, Error> {
    let choice = choose(&search.installed(run_as), data_dir, cluster);
    match choice {
        Err(Error::NotInstalled { .. }) if may_install && install::possible(run_as) => {
            install::run()?;
            choose(&search.installed(run_as), data_dir, cluster)
        }
        choice => choice,
    }
}

/// The first of `installed` that can run the cluster.
fn choose(
    installed: &[Installation],
    data_dir: &Path,
    cluster: Option<u32>,
) -> Result<Installation, Error> {
    let fits = |one: &&Installation| {
        one.major >= MIN_MAJOR_VERSION && cluster.is_none_or(|major| one.major == major)
    };
    match (installed.iter().find(fits), cluster) {
        (Some(one), _) => Ok(one.clone()),
        (None, Some(cluster)) if !installed.is_empty() => Err(Error::OtherMajorVersion {
            data_dir: data_dir.to_path_buf(),
            cluster,
            installed: versions(installed),
        }),
        (None, _) => Err(none_fits(installed)),
    }
}

fn none_fits(installed: &[Installation]) -> Error {
    let hint = install::hint();
    match installed.iter().max_by_key(|one| one.major) {
        None => Error::NotInstalled { hint },
        Some(newest) => Error::TooOld {
            found: newest.major,
            place: format!("in {}", newest.bin_dir.display()),
            hint,
        },
    }
}

fn versions(installed: &[Installation]) -> String {
    let versions: Vec<String> = installed.iter().map(|one| one.major.to_string()).collect();
    versions.join(", ")
}

/// The folders `place/<prefix><version>/bin`, the newest version first.
fn newest_first(place: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| {
            let version = version_in_name(&entry.file_name(), prefix)?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// `postgresql@17` is version 17, `9.6` is 9.6, and plain `postgresql` is whatever it is: last.
fn version_in_name(name: &OsStr, prefix: &str) -> Option<Vec<u32>> {
    let version = name.to_str()?.strip_prefix(prefix)?;
    let version = version.strip_prefix('@').unwrap_or(version);
    if version.is_empty() {
        return (!prefix.is_empty()).then(Vec::new);
    }
    version.split('.').map(|part| part.parse().ok()).collect()
}

/// The folder that truly holds the programs, if `dir` has a `postgres`. Following the link finds
/// the others too where a system links only some of them into `PATH`.
fn with_programs(dir: &Path) -> Option<PathBuf> {
    let target = dir.join("postgres").canonicalize().ok()?;
    let complete = |dir: &Path| PROGRAMS.iter().all(|name| dir.join(name).is_file());
    [target.parent()?, dir]
        .into_iter()
        .find(|dir| complete(dir))
        .map(Path::to_path_buf)
}

fn major_version(bin_dir: &Path, run_as: &RunAs) -> Option<u32> {
    let mut command = run_as.command(bin_dir.join("postgres"));
    let output = processes::run(command.arg("--version")).ok()?;
    parse_version(&output)
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15, as are `15beta1` and `15devel`.
fn parse_version(output: &str) -> Option<u32> {
    let (_, version) = output.split_once("(PostgreSQL) ")?;
    let end = version.find(|c: char| !c.is_ascii_digit());
    version[..end.unwrap_or(version.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::random;

    /// A folder that everybody may enter, as the programs may run under another user.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let name = format!("podium-binaries-{}", random::hex::<8>().unwrap());
            let scratch = Self(std::env::temp_dir().join(name));
            fs::create_dir(&scratch.0).unwrap();
            open_to_all(&scratch.0);
            scratch
        }

        /// Fake programs of the version given, in `<scratch>/<dir>`.
        fn installation(&self, dir: &str, version: &str) -> PathBuf {
            let bin_dir = self.0.join(dir);
            fs::create_dir_all(&bin_dir).unwrap();
            for name in PROGRAMS {
                let script = format!("#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n");
                write_elsewhere(&bin_dir.join(name), &script);
                open_to_all(&bin_dir.join(name));
            }
            for part in bin_dir.ancestors().take_while(|part| *part != self.0) {
                open_to_all(part);
            }
            bin_dir.canonicalize().unwrap()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// Writes a program from another process: were we to do it, a child forked meanwhile by the
    /// thread of another test would hold the file open, and it could not be executed.
    fn write_elsewhere(path: &Path, script: &str) {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "printf %s \"$1\" > \"$0\""]);
        let status = shell.arg(path).arg(script).status().unwrap();
        assert!(status.success());
    }

    fn open_to_all(path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run_as() -> RunAs {
        RunAs::for_cluster(Path::new("/nonexistent")).unwrap()
    }

    fn find_new(search: &Search) -> Result<Installation, Error> {
        find(search, &run_as(), Path::new("/data"), None, false)
    }

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        for (printed, major) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 9.6.24\n", Some(9)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 17", Some(17)),
            ("postgres (PostgreSQL) devel\n", None),
            ("something else\n", None),
        ] {
            assert_eq!(parse_version(printed), major, "{printed}");
        }
    }

    #[test]
    fn names_of_versioned_folders_are_understood() {
        for (name, prefix, version) in [
            ("15", "", Some(vec![15])),
            ("9.6", "", Some(vec![9, 6])),
            ("postgresql@17", "postgresql", Some(vec![17])),
            ("postgresql17", "postgresql", Some(vec![17])),
            ("pgsql-16", "pgsql-", Some(vec![16])),
            ("postgresql", "postgresql", Some(vec![])),
            ("common", "", None),
            ("postgresql-common", "postgresql", None),
            ("", "", None),
        ] {
            assert_eq!(version_in_name(OsStr::new(name), prefix), version, "{name}");
        }
    }

    #[test]
    fn path_comes_first_then_the_newest_version_then_the_rest() {
        let scratch = Scratch::new();
        for version in ["9.6", "15", "17", "16", "doc"] {
            fs::create_dir_all(scratch.path("lib").join(version)).unwrap();
        }
        let search = Search {
            path: Some("/p1::relative:/p2".into()),
            versioned: vec![(scratch.path("lib"), ""), (scratch.path("missing"), "")],
            fixed: vec!["/fixed".into()],
        };
        let lib = |version: &str| scratch.path("lib").join(version).join("bin");
        let expected = vec![
            PathBuf::from("/p1"),
            PathBuf::from("/p2"),
            lib("17"),
            lib("16"),
            lib("15"),
            lib("9.6"),
            PathBuf::from("/fixed"),
        ];
        assert_eq!(search.bin_dirs(), expected);
    }

    #[test]
    fn the_newest_fitting_version_is_taken_where_path_has_none() {
        let scratch = Scratch::new();
        scratch.installation("lib/15/bin", "15.2");
        let newest = scratch.installation("lib/17/bin", "17.1");
        let search = Search {
            versioned: vec![(scratch.path("lib"), "")],
            ..Search::default()
        };
        assert_eq!(find_new(&search).unwrap().bin_dir, newest);
    }

    #[test]
    fn an_old_server_on_the_path_is_passed_over_for_a_newer_one_elsewhere() {
        let scratch = Scratch::new();
        let old = scratch.installation("old", "13.4");
        let new = scratch.installation("lib/16/bin", "16.0");
        let search = Search {
            path: Some(old.into()),
            versioned: vec![(scratch.path("lib"), "")],
            ..Search::default()
        };
        assert_eq!(find_new(&search).unwrap().bin_dir, new);
    }

    #[test]
    fn only_old_servers_are_refused_with_their_version_and_place() {
        let scratch = Scratch::new();
        scratch.installation("lib/13/bin", "13.4");
        scratch.installation("lib/14/bin", "14.9");
        let search = Search {
            versioned: vec![(scratch.path("lib"), "")],
            ..Search::default()
        };
        let error = find_new(&search).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::TooOld { found: 14, .. }), "{text}");
        assert!(text.contains("lib/14/bin"), "{text}");
        assert!(text.contains("version 15 or newer"), "{text}");
    }

    #[test]
    fn nothing_installed_is_one_line_that_says_what_to_install() {
        let error = find_new(&Search::default()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::NotInstalled { .. }), "{text}");
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains("install"), "{text}");
    }

    #[test]
    fn a_cluster_is_run_by_its_own_major_version_or_not_at_all() {
        let scratch = Scratch::new();
        scratch.installation("lib/17/bin", "17.1");
        let sixteen = scratch.installation("lib/16/bin", "16.3");
        let search = Search {
            versioned: vec![(scratch.path("lib"), "")],
            ..Search::default()
        };
        let data_dir = Path::new("/data");
        let found = find(&search, &run_as(), data_dir, Some(16), false).unwrap();
        assert_eq!(found.bin_dir, sixteen);
        let error = find(&search, &run_as(), data_dir, Some(15), false).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::OtherMajorVersion { cluster: 15, .. }),
            "{text}"
        );
        assert!(text.contains("/data") && text.contains("17, 16"), "{text}");
    }

    #[test]
    fn a_linked_server_leads_to_the_folder_with_all_programs() {
        let scratch = Scratch::new();
        let real = scratch.installation("real", "15.1");
        fs::create_dir(scratch.path("links")).unwrap();
        symlink(real.join("postgres"), scratch.path("links/postgres")).unwrap();
        let search = Search {
            path: Some(scratch.path("links").into()),
            ..Search::default()
        };
        assert_eq!(find_new(&search).unwrap().bin_dir, real);
    }

    #[test]
    fn a_server_without_initdb_or_without_an_answer_is_no_installation() {
        let scratch = Scratch::new();
        let incomplete = scratch.installation("incomplete", "15.1");
        fs::remove_file(incomplete.join("initdb")).unwrap();
        let mute = scratch.installation("mute", "");
        let path = std::env::join_paths([incomplete, mute]).unwrap();
        let search = Search {
            path: Some(path),
            ..Search::default()
        };
        assert_eq!(search.installed(&run_as()), []);
    }
}
