//! What can stop a command.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::deny::{Finding, PolicyError};
use crate::migrations::Drift;

/// Why a command failed, told so that one knows what to do next.
#[derive(Debug)]
pub(crate) enum Error {
    /// No command has this name.
    UnknownCommand { name: String, usage: String },
    /// A program could not be started.
    Spawn { program: String, source: io::Error },
    /// A step's program ended with a failure.
    Failed {
        step: String,
        command: String,
        status: ExitStatus,
    },
    /// A file or folder could not be read or written.
    Io { path: PathBuf, source: io::Error },
    /// A program that a step needs is missing and could not be installed.
    MissingTool {
        tool: &'static str,
        install: &'static str,
    },
    /// `cargo metadata` answered something else than its documented JSON.
    Metadata(serde_json::Error),
    /// cargo described a package in another way than documented.
    UnexpectedMetadata,
    /// `deny.toml` cannot be used.
    Policy(PolicyError),
    /// Dependencies break the policy.
    Denied(Vec<Finding>),
    /// Migrations differ from their checksums.
    Migrations(Vec<Drift>),
    /// The API did not behave as a program under test must.
    Server {
        problem: ServerProblem,
        log: PathBuf,
        tail: String,
    },
}

/// How an API process disappointed.
#[derive(Debug)]
pub(crate) enum ServerProblem {
    /// It ended, or closed its output, before it listened.
    EndedEarly,
    /// It did not say within the given seconds where it listens.
    Silent { seconds: u64 },
    /// It did not end within the given seconds of SIGTERM.
    Hung { seconds: u64 },
    /// It ended after SIGTERM, but not with status 0.
    Status(ExitStatus),
}

impl Error {
    /// Names the file or folder behind an I/O error.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCommand { name, usage } => write!(f, "no command `{name}`\n{usage}"),
            Self::Spawn { program, source } => write!(f, "cannot start `{program}`: {source}"),
            Self::Failed {
                step,
                command,
                status,
            } => write!(f, "{step} failed: `{command}` ended with {status}"),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::MissingTool { tool, install } => write!(
                f,
                "{tool} is missing; install it, for example with `{install}`"
            ),
            Self::Metadata(source) => write!(f, "cargo metadata cannot be read: {source}"),
            Self::UnexpectedMetadata => write!(f, "cargo described a package in an unknown way"),
            Self::Policy(error) => write!(f, "deny.toml: {error}"),
            Self::Denied(findings) => list(f, "dependencies break deny.toml", findings),
            Self::Migrations(drifts) => {
                list(f, "migrations differ from migrations/CHECKSUMS", drifts)
            }
            Self::Server { problem, log, tail } => {
                write!(
                    f,
                    "podium-api {problem}; the end of {}:\n{tail}",
                    log.display()
                )
            }
        }
    }
}

impl fmt::Display for ServerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndedEarly => write!(f, "ended before it listened"),
            Self::Silent { seconds } => {
                write!(f, "did not say within {seconds} s where it listens")
            }
            Self::Hung { seconds } => write!(f, "did not end within {seconds} s of SIGTERM"),
            Self::Status(status) => write!(f, "ended with {status} after SIGTERM"),
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, heading: &str, items: &[T]) -> fmt::Result {
    write!(f, "{heading}:")?;
    items.iter().try_for_each(|item| write!(f, "\n  {item}"))
}
