//! Running programs as named steps.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::error::Error;

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The folder of debug binaries, wherever cargo was told to put it: the one that this program was started from.
///
/// # Errors
/// [`Error::Io`] when the operating system does not tell.
pub(crate) fn debug_folder() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("the path of xtask"))?;
    Ok(own.parent().map(Path::to_path_buf).unwrap_or(own))
}

/// A cargo command in the workspace's folder, with the cargo that started this program.
pub(crate) fn cargo<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Does one named step: prints its name, and how long it took.
///
/// # Errors
/// Those of the work.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    say(&format!("\n==> {name}"));
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "ok" } else { "FAILED" };
    say(&format!(
        "--- {name}: {verdict} in {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    result
}

/// Runs a program as a named step, with its output shown.
///
/// # Errors
/// [`Error::Spawn`] and [`Error::Failed`].
pub(crate) fn run(name: &str, command: &mut Command) -> Result<(), Error> {
    step(name, || {
        say(&shown(command));
        let status = command
            .stdin(Stdio::null())
            .status()
            .map_err(|source| spawn_error(command, source))?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(name, command, status))
        }
    })
}

/// Runs a program quietly and returns what it wrote to standard output; its complaints are shown.
///
/// # Errors
/// [`Error::Spawn`] and [`Error::Failed`].
pub(crate) fn output(name: &str, command: &mut Command) -> Result<Vec<u8>, Error> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| spawn_error(command, source))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(name, command, output.status))
    }
}

/// Whether a program is there and answers with success; it prints nothing.
pub(crate) fn works(program: impl AsRef<OsStr>, args: &[&str]) -> bool {
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Prints a line at once, so that it stands before what the next program prints.
pub(crate) fn say(line: &str) {
    println!("{line}");
    // Nobody reads a closed output, so there is nobody to tell.
    let _ = io::stdout().flush();
}

/// An error that says which program could not be started.
pub(crate) fn spawn_error(command: &Command, source: io::Error) -> Error {
    Error::Spawn {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    }
}

fn failed(step: &str, command: &Command, status: std::process::ExitStatus) -> Error {
    Error::Failed {
        step: step.to_owned(),
        command: shown(command),
        status,
    }
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
