//! Running programs to their end, and finding and signalling the processes of a server.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::binaries::Installation;
use crate::error::{Context, Error};
use crate::random::fnv1a;
use crate::user::RunAs;

/// How much of a failed program's output goes into the error, in bytes.
const OUTPUT_MAX_BYTES: usize = 4096;

/// Runs a program to its end and returns what it printed on standard output.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().context("run", &program)?;
    succeeded(&program, &output)
}

/// The standard output of a program that succeeded.
pub(crate) fn succeeded(program: &Path, output: &Output) -> Result<String, Error> {
    if !output.status.success() {
        return Err(failure(program, output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The error of a program that failed.
pub(crate) fn failure(program: &Path, output: &Output) -> Error {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let name = program.file_name().unwrap_or(program.as_os_str());
    Error::Program {
        program: name.to_string_lossy().into_owned(),
        status: output.status.to_string(),
        output: tail(&text, OUTPUT_MAX_BYTES).to_owned(),
    }
}

/// The whole lines at the end of `text` that fit into `max_bytes`; of one that is longer, its end.
pub(crate) fn tail(text: &str, max_bytes: usize) -> &str {
    let text = text.trim();
    if text.len() <= max_bytes {
        return text;
    }
    let from = text.len() - max_bytes;
    match text.as_bytes()[from - 1..].iter().position(|b| *b == b'\n') {
        Some(newline) => &text[from + newline..],
        None => &text[text.ceil_char_boundary(from)..],
    }
}

/// A signal that ends a PostgreSQL server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT, a fast shutdown: sessions are ended, a checkpoint is written.
    Fast,
    /// SIGQUIT, an immediate shutdown: as after a crash, the next start recovers.
    Immediate,
    /// SIGKILL.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Fast => "INT",
            Self::Immediate => "QUIT",
            Self::Kill => "KILL",
        }
    }
}

/// Sends a signal under the name of the user who runs the server: whatever process has the id
/// `pid` by now, one of another user is safe. That it is gone already is no failure.
pub(crate) fn send(signal: Signal, pid: u32, installation: &Installation, run_as: &RunAs) {
    let mut command = run_as.command(installation.program("pg_ctl"));
    command.args(["kill", signal.name(), &pid.to_string()]);
    if let Err(error) = run(&mut command) {
        tracing::debug!(%error, pid, "could not send a signal");
    }
}

/// What a process has to do with a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Postmaster,
    /// A process that a postmaster started, and that may have outlived it.
    Backend,
}

/// The name that the server of a cluster gives its processes, to tell them from those of others.
pub(crate) fn server_name(cluster: &Path) -> String {
    let hash = fnv1a(cluster.as_os_str().as_encoded_bytes());
    format!("podium-{hash:016x}")
}

/// The processes that use the cluster at `cluster` under the user id `uid`. Empty where the system
/// has no `/proc`.
pub(crate) fn of_cluster(cluster: &Path, uid: u32) -> Vec<(u32, Role)> {
    let Ok(folder) = fs::metadata(cluster) else {
        return Vec::new();
    };
    let name = server_name(cluster);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let owner = entry.metadata().ok()?.uid();
            let cmdline = fs::read(entry.path().join("cmdline")).ok()?;
            let (role, place) = role_by_cmdline(&cmdline).filter(|_| owner == uid)?;
            let named = || place == name.as_bytes() || place == cluster.as_os_str().as_bytes();
            let ours = works_in(&folder, &entry.path()).unwrap_or_else(named);
            ours.then_some((pid, role))
        })
        .collect()
}

/// Whether the process described in the folder `process` of `/proc` has changed into the cluster,
/// as every process of a server does. This is the better evidence: the command line of a server in
/// a container, seen from outside, may name the same path and mean another folder. `None`: we have
/// no right to look, which is so for root inside of a container.
fn works_in(cluster: &fs::Metadata, process: &Path) -> Option<bool> {
    let cwd = fs::metadata(process.join("cwd")).ok()?;
    Some((cwd.dev(), cwd.ino()) == (cluster.dev(), cluster.ino()))
}

/// The role of a process and what it says to be part of: a postmaster names the cluster's folder
/// (`postgres -D folder`), a backend its server (`postgres: name: what it does`). A zombie has no
/// command line and no role.
fn role_by_cmdline(cmdline: &[u8]) -> Option<(Role, &[u8])> {
    let mut arguments = cmdline.split(|byte| *byte == 0);
    let program = arguments.next()?;
    if let Some(title) = program.strip_prefix(b"postgres: ") {
        let name = title.split(|byte| *byte == b':').next()?;
        return Some((Role::Backend, name));
    }
    if program.rsplit(|byte| *byte == b'/').next()? != b"postgres" {
        return None;
    }
    arguments.find(|argument| argument == b"-D");
    Some((Role::Postmaster, arguments.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_processes_are_told_by_their_command_lines() {
        let postmaster = |place: &'static str| Some((Role::Postmaster, place.as_bytes()));
        let backend = |place: &'static str| Some((Role::Backend, place.as_bytes()));
        for (cmdline, expected) in [
            ("/bin/postgres\0-D\0/a b\0-c\0x=1\0", postmaster("/a b")),
            ("postgres\0", postmaster("")),
            ("postgres\0-D", postmaster("")),
            (
                "postgres: podium-1: checkpointer \0\0\0",
                backend("podium-1"),
            ),
            ("postgres: checkpointer \0", backend("checkpointer ")),
            ("/bin/pg_ctl\0-D\0/a b\0", None),
            ("tail\0-f\0/data/postgres\0", None),
            ("", None),
        ] {
            assert_eq!(role_by_cmdline(cmdline.as_bytes()), expected, "{cmdline:?}");
        }
    }

    #[test]
    fn servers_of_different_clusters_have_different_names() {
        let name = server_name(Path::new("/a"));
        assert_ne!(name, server_name(Path::new("/b")));
        // PostgreSQL cuts longer ones.
        assert!(name.len() < 64 && !name.contains(':'), "{name}");
    }

    #[test]
    fn tail_keeps_whole_lines() {
        assert_eq!(tail("one\ntwo\n", 100), "one\ntwo");
        assert_eq!(tail("one\ntwo\nthree\n", 9), "two\nthree");
        assert_eq!(tail("one\ntwo\nthree\n", 8), "three");
        assert_eq!(tail("one\ntwö\nthree\n", 7), "three");
        assert_eq!(tail("one\ntwo\nthree\n", 5), "three");
        assert_eq!(tail("thrée", 2), "e");
    }

    #[test]
    fn a_failed_program_is_named_with_its_status_and_output() {
        let mut command = Command::new("/bin/sh");
        let error = run(command.args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        for part in ["`sh`", "3", "out", "err"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_missing_program_is_named_with_its_path() {
        let error = run(&mut Command::new("/nonexistent/postgres")).unwrap_err();
        assert_eq!(error.to_string(), "could not run /nonexistent/postgres");
    }
}
