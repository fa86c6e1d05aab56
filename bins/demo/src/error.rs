//! Why the demonstration could not be played.

use std::time::Duration;

use podium_api::server::StartError;

/// Why the demonstration could not be played.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The API did not start.
    #[error("the API cannot be started")]
    Start(#[from] StartError),
    /// A token for the admin routes could not be made.
    #[error("no token can be made: {0}")]
    Token(String),
    /// The system gave no random bytes for a signing secret.
    #[error("no signing secret can be made: {0}")]
    Secret(String),
    /// The HTTP client could not be made.
    #[error("no HTTP client can be made")]
    Client(#[source] reqwest::Error),
    /// A log cannot be unpacked.
    #[error("the log {name} cannot be read")]
    Log {
        /// Policy and campaign.
        name: String,
        /// What is wrong with the file.
        #[source]
        source: std::io::Error,
    },
    /// A log holds something else.
    #[error("line {line} of the log {name} is no row")]
    Row {
        /// Policy and campaign.
        name: String,
        /// From 1, the header included.
        line: usize,
    },
    /// A request got no answer.
    #[error("{request} got no answer")]
    NoAnswer {
        /// Method and path.
        request: String,
        /// What the client says.
        #[source]
        source: reqwest::Error,
    },
    /// A request was refused.
    #[error("{request} was answered {status}: {detail}")]
    Refused {
        /// Method and path.
        request: String,
        /// HTTP status.
        status: u16,
        /// What the answer says.
        detail: String,
    },
    /// An answer does not look as documented.
    #[error("the answer to {request} is not as documented")]
    Shape {
        /// Method and path.
        request: String,
        /// What is missing.
        #[source]
        source: serde_json::Error,
    },
    /// An answer lacks something that the replay put there.
    #[error("{experiment} has no {what}")]
    Missing {
        /// Name of the experiment.
        experiment: String,
        /// What is not there.
        what: String,
    },
    /// One event of a batch was refused.
    #[error("event {event_id} was answered {status}: {detail}")]
    Event {
        /// Id of the event.
        event_id: String,
        /// Status that it would have had alone.
        status: u16,
        /// What the answer says.
        detail: String,
    },
    /// The answer to a batch is not one outcome for each event.
    #[error("{sent} events were answered with {told} outcomes")]
    Outcomes {
        /// Events of the batch.
        sent: usize,
        /// Outcomes in the answer.
        told: usize,
    },
    /// An earlier run left an experiment that takes no new units.
    #[error(
        "{experiment} is {status}, and a replay needs it running; take another folder with --data-dir"
    )]
    NotRunning {
        /// Name of the experiment.
        experiment: String,
        /// Its state.
        status: String,
    },
    /// The picture cannot be written.
    #[error("{} cannot be written", path.display())]
    Picture {
        /// Where it should be.
        path: std::path::PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The totals did not follow the events.
    #[error("{experiment}: the events were not counted within {} s", waited.as_secs())]
    NotCounted {
        /// Name of the experiment.
        experiment: String,
        /// How long was waited.
        waited: Duration,
    },
}
