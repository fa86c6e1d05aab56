//! Why a command ends with another code than 0.

use podium_promotion::EngineError;
use podium_promotion::config::EnvironmentError;
use podium_promotion::replay::ReplayError;
use podium_settings::ConfigError;
use podium_storage::StorageError;
use podium_storage::experiments::ChangeError;

/// A command that was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// A variable cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A variable of automatic promotion cannot be used.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The database failed.
    #[error("the database cannot be used: {}", .0.chain())]
    Storage(#[from] StorageError),
    /// Notifications cannot be sent.
    #[error(transparent)]
    Notifications(#[from] podium_notifications::StartError),
    /// The engine refuses.
    #[error(transparent)]
    Engine(EngineError),
    /// A decision cannot be computed again.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A record that does not exist.
    #[error("there is no decision with the id {0}")]
    NoRecord(i64),
    /// A decision that comes out differently.
    #[error("decision {0} comes out differently")]
    Differs(i64),
    /// A name that no experiment can have.
    #[error("`{0}` is no name or id of an experiment")]
    NoName(String),
    /// There is no runtime, or no terminal.
    #[error("the system refuses")]
    System(#[from] std::io::Error),
    /// An answer has no form in JSON.
    #[error("the answer could not be written")]
    Json(#[from] serde_json::Error),
}

impl From<EngineError> for WorkerError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Storage(error) => Self::Storage(error),
            other => Self::Engine(other),
        }
    }
}

impl WorkerError {
    /// 2 configuration, 3 database, 4 another scan is running, 1 anything else.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Environment(_)
            | Self::Storage(StorageError::Settings(_))
            | Self::Engine(EngineError::Config(_)) => 2,
            Self::Storage(_) | Self::Engine(EngineError::Change(ChangeError::Storage(_))) => 3,
            Self::Engine(EngineError::Scanning) => 4,
            _ => 1,
        }
    }
}
