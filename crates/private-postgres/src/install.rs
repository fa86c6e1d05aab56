//! Installing PostgreSQL with the system's package manager.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::MIN_MAJOR_VERSION;
use crate::error::{Context, Error};
use crate::user::RunAs;

/// Package managers in the order in which they are looked for, and what to type.
const HINTS: [(&str, &str); 6] = [
    (
        "apt-get",
        "install it with `sudo apt-get install postgresql`",
    ),
    (
        "dnf",
        "install it with `sudo dnf install postgresql-server`",
    ),
    ("apk", "install it with `apk add postgresql`"),
    (
        "zypper",
        "install it with `sudo zypper install postgresql-server`",
    ),
    ("pacman", "install it with `sudo pacman -S postgresql`"),
    ("brew", "install it with `brew install postgresql@17`"),
];

const APT_PACKAGE: &str = "postgresql";

/// Another run of the package manager is waited for, this many seconds.
const APT_LOCK_WAIT: &str = "DPkg::Lock::Timeout=300";

/// Debian's packages make a cluster of their own and start it, unless a file here says no.
const CLUSTER_CONFIG_DIR: &str = "/etc/postgresql-common/createcluster.d";

/// One line that says what to install on this system.
pub(crate) fn hint() -> &'static str {
    let found = HINTS.iter().find(|(program, _)| in_path(program).is_some());
    found.map_or("install PostgreSQL 15 or newer", |(_, hint)| hint)
}

/// Whether [`run`] can work at all.
pub(crate) fn possible(run_as: &RunAs) -> bool {
    matches!(run_as, RunAs::Service(_)) && in_path("apt-get").is_some()
}

/// Installs the server programs, if the system's packages are new enough. What the package manager
/// prints goes to standard error.
pub(crate) fn run() -> Result<(), Error> {
    note("no PostgreSQL server found, installing one with apt-get");
    apt_get(&["update"])?;
    check_offered_version()?;
    let config = suppress_main_cluster()?;
    let installed = apt_get(&["install", "-y", "--no-install-recommends", APT_PACKAGE]);
    // Servers that somebody installs later on shall get the cluster they expect.
    fs::remove_file(&config).context("remove", &config)?;
    installed?;
    note("PostgreSQL is installed");
    Ok(())
}

/// Finds a program in `PATH`.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(program));
    places.find(|place| place.is_file())
}

/// Tells whoever waits. Before logging is set up, as in tests, only standard error is left.
fn note(text: &str) {
    if tracing::dispatcher::has_been_set() {
        tracing::info!("{text}");
    } else {
        eprintln!("{text}");
    }
}

fn apt_get(arguments: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-o", APT_LOCK_WAIT]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.stdin(Stdio::null()).stdout(io::stderr());
    let status = command.status().context("run", "apt-get")?;
    if status.success() {
        return Ok(());
    }
    Err(Error::InstallFailed {
        command: format!("apt-get {}", arguments.join(" ")),
    })
}

/// Installing a server that is then refused would help nobody.
fn check_offered_version() -> Result<(), Error> {
    let mut command = Command::new("apt-cache");
    command.args(["--no-all-versions", "show", APT_PACKAGE]);
    let output = command.output().context("run", "apt-cache")?;
    match offered_version(&String::from_utf8_lossy(&output.stdout)) {
        Some(found) if found < MIN_MAJOR_VERSION => Err(Error::TooOld {
            found,
            place: format!("the package `{APT_PACKAGE}` of this system"),
            hint: "install a newer one from the PostgreSQL project's own packages",
        }),
        _ => Ok(()),
    }
}

/// `Version: 15+248+deb12u1` is 15.
fn offered_version(show: &str) -> Option<u32> {
    let line = show
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))?;
    let end = line.find(|c: char| !c.is_ascii_digit());
    line[..end.unwrap_or(line.len())].parse().ok()
}

fn suppress_main_cluster() -> Result<PathBuf, Error> {
    let dir = Path::new(CLUSTER_CONFIG_DIR);
    fs::create_dir_all(dir).context("create", dir)?;
    let file = dir.join("podium.conf");
    fs::write(&file, "create_main_cluster = false\n").context("write", &file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offered_version_is_the_number_before_the_plus() {
        let show = "Package: postgresql\nVersion: 15+248+deb12u1\nDepends: postgresql-15\n";
        assert_eq!(offered_version(show), Some(15));
        assert_eq!(offered_version("Version: 14+238\n"), Some(14));
        assert_eq!(offered_version(""), None);
    }

    #[test]
    fn every_hint_is_one_line_that_says_install_or_add() {
        for (_, hint) in HINTS {
            assert_eq!(hint.lines().count(), 1);
            assert!(hint.starts_with("install it with `"), "{hint}");
        }
    }

    #[test]
    fn programs_are_found_in_path() {
        assert!(in_path("sh").is_some());
        assert_eq!(in_path("podium-no-such-program"), None);
    }
}
