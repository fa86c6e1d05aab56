//! What CI runs, cheap checks first.

use crate::error::Error;
use crate::{deny, ecosystem, migrations, step};

/// Every check, in order; the first failure ends it.
///
/// # Errors
/// The failing step's.
pub(crate) fn run(_args: &[String]) -> Result<(), Error> {
    fmt()?;
    migrations::check(&[])?;
    deny::run(&[])?;
    clippy()?;
    doc()?;
    test(&[])?;
    ecosystem::run(&[])
}

/// All tests of all crates. Those that need a database start a PostgreSQL server of their own.
///
/// # Errors
/// [`Error::Failed`] when a test fails.
pub(crate) fn test(args: &[String]) -> Result<(), Error> {
    step::run(
        "test",
        step::cargo(["test", "--workspace", "--no-fail-fast", "--locked"]).args(args),
    )
}

fn fmt() -> Result<(), Error> {
    step::run("fmt", &mut step::cargo(["fmt", "--all", "--", "--check"]))
}

fn clippy() -> Result<(), Error> {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    step::run("clippy", &mut step::cargo(args))
}

fn doc() -> Result<(), Error> {
    let mut command = step::cargo(["doc", "--workspace", "--no-deps", "--locked"]);
    step::run("doc", command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Builds the API with OpenTelemetry, which is off by default, and runs the test that spans arrive at a collector.
pub(crate) const OTEL_TEST: [&str; 9] = [
    "test",
    "--locked",
    "-p",
    "podium-tests",
    "-F",
    "otel",
    "--test",
    "it",
    "otel::",
];

/// The API with OpenTelemetry: lints, and [`OTEL_TEST`]. [`run`] does the latter alone, with what needs the same build.
///
/// # Errors
/// The failing step's.
pub(crate) fn otel(_args: &[String]) -> Result<(), Error> {
    let clippy = [
        "clippy",
        "--locked",
        "-p",
        "podium-api",
        "-F",
        "otel",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    step::run("otel: clippy", &mut step::cargo(clippy))?;
    step::run(
        "otel: spans arrive at a collector",
        &mut step::cargo(OTEL_TEST),
    )
}
