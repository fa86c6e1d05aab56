//! Programs of the operating system that steps need: found, or installed where that is allowed (as root, with apt-get).

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
