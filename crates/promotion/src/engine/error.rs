//! Why the engine refuses.

use podium_domain::fault::Faults;
use podium_storage::StorageError;
use podium_storage::database::AsStorageError;
use podium_storage::experiments::ChangeError;
use podium_storage::promotions::commands::RollbackError;
use podium_storage::promotions::model::Promotion;

use super::Checked;

/// A request that was refused, or could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The thing it is about does not exist.
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// The configuration is wrong; nothing ran.
    #[error("the configuration is wrong: {0}")]
    Config(#[from] Faults),
    /// The experiment is not eligible.
    #[error("not eligible: {}", .0.decision.reasons.join("; "))]
    NotEligible(Box<Checked>),
    /// Another scan is running.
    #[error("another scan is running")]
    Scanning,
    /// The promotion was rolled back before; this is the first one's result.
    #[error("the promotion was rolled back already")]
    RolledBack(Box<Promotion>),
    /// Others were faster again and again.
    #[error("the experiment changes all the time; try again")]
    Contended,
    /// So many promotions were made within the hour already.
    #[error("{recent} promotions within the last hour, at most {most} are allowed")]
    LimitReached {
        /// Promotions within the hour.
        recent: i64,
        /// As many as are allowed.
        most: u32,
    },
    /// The looks contradict each other, so that nobody can tell what is left of alpha.
    #[error("the recorded looks contradict each other; what is left of alpha cannot be told")]
    Unspendable,
    /// The experiment cannot be changed.
    #[error(transparent)]
    Change(ChangeError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The computation was ended, because the process stops.
    #[error("the computation of a decision was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
    /// The decision has no form in JSON.
    #[error("a decision could not be written down")]
    Unwritable(#[from] serde_json::Error),
}

impl EngineError {
    /// Whether something broke, and nobody said no.
    pub(super) const fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Storage(_) | Self::Interrupted(_) | Self::Unwritable(_) | Self::Unspendable
        )
    }
}

impl From<ChangeError> for EngineError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound(what) => Self::NotFound(what),
            ChangeError::Storage(error) => Self::Storage(error),
            other => Self::Change(other),
        }
    }
}

impl From<RollbackError> for EngineError {
    fn from(error: RollbackError) -> Self {
        match error {
            RollbackError::NotFound => Self::NotFound("this promotion"),
            RollbackError::Already(first) => Self::RolledBack(first),
            RollbackError::Change(error) => error.into(),
        }
    }
}

impl AsStorageError for EngineError {
    fn as_storage(&self) -> Option<&StorageError> {
        match self {
            Self::Storage(error) => Some(error),
            Self::Change(error) => error.as_storage(),
            _ => None,
        }
    }
}
