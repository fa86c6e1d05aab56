//! Published client packages against a running API, as its users would run them.
//!
//! The scripts lie in `xtask/ecosystem`, the packages in `requirements.txt` beside them. To add a check, write a script
//! that takes the API's address and ends with status 0 or a message, and name it in [`SCRIPTS`] (`PODIUM_TOKEN` holds an
//! administrator's token, `PROMTOOL` Prometheus' checker); one that needs an API with a configuration of its own takes the
//! program instead, and stands in [`PROGRAM_SCRIPTS`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::server::Server;
use crate::{ci, monitoring, step, tools};

/// The name of a step and its script.
const SCRIPTS: &[(&str, &str)] = &[
    ("openapi: the document is valid", "openapi.py"),
    ("metrics: Prometheus takes them", "metrics.py"),
    ("openapi: answers are as documented", "fuzz.py"),
];

/// The name of a step and its script, which starts the program itself.
const PROGRAM_SCRIPTS: &[(&str, &str)] = &[(
    "notifications: as their receivers read them",
    "notifications.py",
)];

/// Runs every script against one fresh API.
///
/// # Errors
/// The failing step's.
pub(crate) fn run(_args: &[String]) -> Result<(), Error> {
    let folder = folder()?;
    tools::python()?;
    let python = packages(&folder)?;
    let promtool = tools::promtool(&folder)?;
    monitoring::check(&promtool, &folder)?;
    let program = build()?;
    let server = step::step("start podium-api", || {
        Server::start(Command::new(&program), &folder)
    })?;
    let token = server.token(Command::new(&program))?;
    step::say(&format!("it listens on {}", server.url));
    for (name, script) in SCRIPTS {
        step::run(
            name,
            Command::new(&python)
                .arg(scripts().join(script))
                .arg(&server.url)
                .env("PODIUM_TOKEN", &token)
                .env("PROMTOOL", &promtool),
        )?;
    }
    step::step("stop podium-api", || server.stop())?;
    step::run(
        "deploy: what it names exists",
        Command::new(&python).arg(scripts().join("deploy.py")),
    )?;
    tests(&folder)?;
    for (name, script) in PROGRAM_SCRIPTS {
        step::run(
            name,
            Command::new(&python)
                .arg(scripts().join(script))
                .arg(&program),
        )?;
    }
    Ok(())
}

/// The tests that the others leave out, in one build: that spans arrive at a collector, for want of the feature, and that
/// everything works behind PgBouncer, for want of the program.
fn tests(folder: &Path) -> Result<(), Error> {
    let mut test = step::cargo(ci::OTEL_TEST);
    match tools::pgbouncer(folder)? {
        Some(program) => {
            test.args(["--", "pooler::"]).env("PGBOUNCER", program);
        }
        None => step::say("no PgBouncer 1.21 or newer: the test behind it is left out"),
    }
    step::run(
        "otel, pooler: spans arrive, everything works behind PgBouncer",
        &mut test,
    )
}

/// The folder for what these checks need and leave: beside the folder of debug binaries.
fn folder() -> Result<PathBuf, Error> {
    let folder = step::debug_folder()?.with_file_name("ecosystem");
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    Ok(folder)
}

fn scripts() -> PathBuf {
    step::root().join("xtask/ecosystem")
}

/// Installs the packages into an environment of their own and returns its Python.
fn packages(folder: &Path) -> Result<PathBuf, Error> {
    let venv = folder.join("venv");
    let python = venv.join("bin/python");
    if !step::works(&python, &["-m", "pip", "--version"]) {
        step::run(
            "python environment",
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
        )?;
    }
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]);
    step::run(
        "python packages",
        pip.arg(scripts().join("requirements.txt")),
    )?;
    Ok(python)
}

fn build() -> Result<PathBuf, Error> {
    step::run(
        "build podium-api",
        &mut step::cargo(["build", "--locked", "-p", "podium-api"]),
    )?;
    Ok(step::debug_folder()?.join("podium-api"))
}
