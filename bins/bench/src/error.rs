//! Why a benchmark cannot be run, or must not be believed.

use std::path::PathBuf;

/// Why no figure was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A program is not installed.
    #[error("{name} is missing; install it: {hint}")]
    Missing {
        /// The program.
        name: &'static str,
        /// How it comes onto the machine.
        hint: &'static str,
    },
    /// A program could not be run.
    #[error("{what} could not be run")]
    Run {
        /// What was to be run.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with a failure or said something that is not understood.
    #[error("{what} failed: {said}")]
    Failed {
        /// What failed.
        what: String,
        /// What it said.
        said: String,
    },
    /// The system gave no random bytes.
    #[error("no signing secret can be made: {0}")]
    Secret(String),
    /// A file or folder could not be used.
    #[error("{} could not be used", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A run whose answers were not all right: its figures mean nothing.
    #[error("the run is not valid: {0}")]
    Invalid(String),
    /// The API did not answer as a set-up step needs.
    #[error("{what} answered {status}: {body}")]
    Answer {
        /// Method and path.
        what: String,
        /// Status of the answer.
        status: u16,
        /// Its beginning.
        body: String,
    },
    /// A connection to a server failed.
    #[error("talking HTTP failed")]
    Http(#[source] std::io::Error),
    /// Something did not happen in time.
    #[error("{0} did not happen in time")]
    TooLate(&'static str),
    /// The private PostgreSQL failed.
    #[error("the private PostgreSQL failed")]
    Private(#[from] podium_private_postgres::Error),
    /// The storage crate failed.
    #[error("storage failed")]
    Storage(#[from] podium_storage::StorageError),
    /// A statement failed.
    #[error("a statement failed")]
    Db(#[from] tokio_postgres::Error),
    /// A background task ended early.
    #[error("a background task ended early")]
    Join(#[from] tokio::task::JoinError),
    /// The operator pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    /// A file error, for `map_err`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// A program that could not be run, for `map_err`.
    pub(crate) fn run(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Run { what, source }
    }
}
