//! What can go wrong between a folder and a running server.

use std::io;
use std::path::PathBuf;

use crate::MIN_MAJOR_VERSION;

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No PostgreSQL server program was found. `hint` is one line that says what to install.
    #[error("no PostgreSQL server found: {hint}")]
    NotInstalled {
        /// What to type on this system.
        hint: &'static str,
    },
    /// Only servers older than [`MIN_MAJOR_VERSION`] are to be had.
    #[error(
        "PostgreSQL {found} ({place}) is too old, version {MIN_MAJOR_VERSION} or newer is needed: {hint}"
    )]
    TooOld {
        /// The newest major version found.
        found: u32,
        /// Where it was found.
        place: String,
        /// What to type on this system.
        hint: &'static str,
    },
    /// The folder holds a cluster of a major version that is not installed.
    #[error(
        "the cluster in {} was made by PostgreSQL {cluster}, but only {installed} is installed: \
         install PostgreSQL {cluster}, or name another folder with PODIUM_DATA_DIR",
        data_dir.display()
    )]
    OtherMajorVersion {
        /// The data folder.
        data_dir: PathBuf,
        /// Major version of the cluster.
        cluster: u32,
        /// Installed major versions, separated by commas.
        installed: String,
    },
    /// The system's package manager could not install PostgreSQL.
    #[error("could not install PostgreSQL: `{command}` failed")]
    InstallFailed {
        /// The command that failed; what it printed went to standard error.
        command: String,
    },
    /// The process runs as root and the system has no user to run the server under.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor a user `nobody` to run it under"
    )]
    NoServiceUser,
    /// The user who runs the server can not get to the data folder.
    #[error(
        "user `{user}`, who runs the server, can not enter {}: make it accessible (chmod o+x), or name another folder with PODIUM_DATA_DIR",
        blocked_at.display()
    )]
    Unreachable {
        /// Name of the user.
        user: String,
        /// The outermost folder on the way which that user may not enter.
        blocked_at: PathBuf,
    },
    /// Another process runs the private server of this folder.
    #[error(
        "the PostgreSQL in {} already belongs to another running process{}",
        data_dir.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    AlreadyRunning {
        /// The data folder.
        data_dir: PathBuf,
        /// Process id of the holder, if it could be read.
        pid: Option<u32>,
    },
    /// The server ended, or made no progress, before it took connections.
    #[error("PostgreSQL in {} did not start, {reason}; the end of its log:\n{log}", data_dir.display())]
    DidNotStart {
        /// The data folder.
        data_dir: PathBuf,
        /// What was seen.
        reason: String,
        /// The last lines that the server wrote in this attempt.
        log: String,
    },
    /// Some process of a server still uses the cluster after every signal was sent.
    #[error("a PostgreSQL server still uses {} and could not be stopped", data_dir.display())]
    DidNotStop {
        /// The data folder.
        data_dir: PathBuf,
    },
    /// A program of the PostgreSQL installation, or of the system, failed.
    #[error("`{program}` failed ({status}): {output}")]
    Program {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A program that the test server needs is missing.
    #[error(
        "the shared test server needs the program `{program}`: install it, or set DATABASE_URL"
    )]
    MissingProgram {
        /// Its name.
        program: &'static str,
    },
    /// A file, a folder or a process could not be dealt with.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Adds the what and the where to an [`io::Error`].
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            action,
            path: path.into(),
            source,
        })
    }
}
