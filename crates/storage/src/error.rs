//! What can go wrong between us and PostgreSQL.

use std::io;

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// A failed storage operation. The cause sits in the source and is not repeated in the message.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The connection settings cannot be used.
    #[error("bad database settings: {0}")]
    Settings(String),
    /// No connection could be had in time.
    #[error("no connection available from the pool")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// A statement failed.
    #[error("database statement failed")]
    Db(#[from] tokio_postgres::Error),
    /// The client-side timer ended a statement; the connection was thrown away.
    #[error("database did not answer in time")]
    TimedOut,
    /// A row that no code of ours can have written.
    #[error("row in `{table}` holds an impossible `{column}`")]
    CorruptRow {
        /// Table of the row.
        table: &'static str,
        /// Column that cannot be read.
        column: &'static str,
    },
    /// A contended transaction was retried in vain.
    #[error("gave up after {attempts} attempts on a contended transaction")]
    Contended {
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<StorageError>,
    },
    /// A migration failed.
    #[error("migration failed: {0}")]
    Migration(String),
    /// A bounded queue is full, or its writer has stopped.
    #[error("the write queue is full")]
    QueueFull,
    /// The totals cannot be folded or rebuilt as they are.
    #[error("{0}")]
    Analytics(String),
    /// A unique constraint refused the change.
    #[error("`{constraint}` refused the change")]
    Conflict {
        /// Name of the constraint.
        constraint: String,
    },
}

impl StorageError {
    /// The SQLSTATE of the failure, if PostgreSQL gave one.
    #[must_use]
    pub fn sql_state(&self) -> Option<&SqlState> {
        match self {
            Self::Db(error) => error.code(),
            _ => None,
        }
    }

    /// Whether the same transaction may succeed when it is tried again at once.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        matches!(
            self.sql_state(),
            Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE)
        )
    }

    /// Whether the server cannot be reached, or takes no connection, so that waiting may help and nothing else will.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::TimedOut | Self::Pool(PoolError::Timeout(_)) => true,
            Self::Db(error) | Self::Pool(PoolError::Backend(error)) => is_outage(error),
            _ => false,
        }
    }

    /// Whether the data of the statement are at fault, so that splitting a batch isolates the bad row.
    #[must_use]
    pub fn is_data_fault(&self) -> bool {
        self.sql_state()
            .is_some_and(|state| matches!(state.code().get(..2), Some("22" | "23" | "54")))
    }

    /// The unique constraint that refused a row, if that is what happened.
    #[must_use]
    pub fn unique_violation(&self) -> Option<&str> {
        match self {
            Self::Db(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                error.as_db_error().and_then(|db| db.constraint())
            }
            Self::Conflict { constraint } => Some(constraint),
            _ => None,
        }
    }

    /// The failure with its causes, in one line for the log.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// Certificates that do not fit arrive as invalid data, and are a mistake of the configuration.
fn is_outage(error: &tokio_postgres::Error) -> bool {
    if let Some(db) = error.as_db_error() {
        return matches!(db.code().code().get(..2), Some("08" | "53" | "57"));
    }
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(io) => io.kind() != io::ErrorKind::InvalidData,
        None => error.is_closed(),
    }
}
