//! Programs of the operating system that steps need: found, or installed where that is allowed (as root, with apt-get).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::step;

/// Makes sure that Python 3 with `venv` and `pip` is there.
///
/// # Errors
/// [`Error::MissingTool`] when it is not and cannot be installed.
pub(crate) fn python() -> Result<(), Error> {
    let there = || step::works("python3", &["-c", "import venv, ensurepip"]);
    ensure(
        "Python 3 with venv",
        "apt-get install python3 python3-venv",
        there,
    )
}

/// Prometheus' own checker: the system's, else one that is unpacked into `folder` from the system's packages, without a
/// server being installed.
///
/// # Errors
/// [`Error::MissingTool`] when it is not there and cannot be fetched.
pub(crate) fn promtool(folder: &Path) -> Result<PathBuf, Error> {
    if step::works("promtool", &["--version"]) {
        return Ok("promtool".into());
    }
    let unpacked = unpack(folder, "prometheus")?.join("usr/bin/promtool");
    if step::works(&unpacked, &["--version"]) {
        Ok(unpacked)
    } else {
        Err(Error::MissingTool {
            tool: "promtool",
            install: "apt-get install prometheus",
        })
    }
}

/// PgBouncer 1.21 or newer, the first with prepared statements in transaction mode: the system's, else one that is built in
/// `folder` from the source package of a newer Debian. `None` where there is neither, so that only the test of it is left out.
///
/// # Errors
/// [`Error`] when the source is there and cannot be built.
pub(crate) fn pgbouncer(folder: &Path) -> Result<Option<PathBuf>, Error> {
    if newer_pgbouncer("pgbouncer") {
        return Ok(Some("pgbouncer".into()));
    }
    let place = folder.join("pgbouncer");
    let built = place.join("pgbouncer");
    if step::works(&built, &["--version"]) {
        return Ok(Some(built));
    }
    let build = step::root().join("xtask/ecosystem/pgbouncer.sh");
    if !is_root() || !step::works("apt-get", &["--version"]) {
        return Ok(None);
    }
    step::run("build PgBouncer", Command::new("sh").arg(build).arg(&place))?;
    Ok(Some(built))
}

fn newer_pgbouncer(program: &str) -> bool {
    let Ok(output) = Command::new(program).arg("--version").output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(1).unwrap_or_default();
    let mut parts = version.split('.').map_while(|part| part.parse().ok());
    let version: (u32, u32) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    version >= (1, 21)
}

/// Fetches a package of the system and unpacks it below `folder`; nothing is installed. Where there is no such packager the
/// place stays empty.
fn unpack(folder: &Path, package: &str) -> Result<PathBuf, Error> {
    let place = folder.join("unpacked").join(package);
    if place.exists() || !step::works("apt-get", &["--version"]) {
        return Ok(place);
    }
    let download = folder.join("download").join(package);
    std::fs::create_dir_all(&download).map_err(Error::io(&download))?;
    // An old list of packages names versions that are gone; only root may renew it.
    if is_root() {
        step::works("apt-get", &["update", "-qq"]);
    }
    let mut fetch = Command::new("apt-get");
    fetch
        .args(["download", "-qq", package])
        .current_dir(&download);
    step::run(&format!("fetch {package}"), &mut fetch)?;
    let script = r#"mkdir -p "$1" && dpkg-deb -x ./"$2"_*.deb "$1""#;
    let mut extract = Command::new("sh");
    extract.args(["-c", script, "sh"]).arg(&place).arg(package);
    step::run(&format!("unpack {package}"), extract.current_dir(&download))?;
    Ok(place)
}

/// `install` is the command as people type it; what follows `apt-get install` are the packages.
fn ensure(
    tool: &'static str,
    install: &'static str,
    there: impl Fn() -> bool,
) -> Result<(), Error> {
    if there() {
        return Ok(());
    }
    if is_root() && step::works("apt-get", &["--version"]) {
        apt_get(tool, install)?;
    }
    if there() {
        Ok(())
    } else {
        Err(Error::MissingTool { tool, install })
    }
}

fn apt_get(tool: &str, install: &str) -> Result<(), Error> {
    let packages = install.split_whitespace().skip(2);
    step::run(
        "apt-get update",
        Command::new("apt-get").args(["update", "-qq"]),
    )?;
    let mut command = Command::new("apt-get");
    command
        .args(["install", "-qq", "--yes", "--no-install-recommends"])
        .args(packages);
    step::run(
        &format!("install {tool}"),
        command.env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// Whether this process is root's; false where `id` is unknown.
pub(crate) fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
