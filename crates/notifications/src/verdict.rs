//! What an answer means for a delivery.

use std::time::Duration;

use podium_storage::outbox::End;

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Arrived,
    /// It may arrive later.
    Later {
        /// What went wrong, for people.
        reason: String,
        /// The wait before the next try is not shorter than this, before `Retry-After`.
        at_least: Duration,
        /// Whether the target wants to hear nothing at all meanwhile.
        pause: bool,
    },
    /// It will never arrive.
    Never {
        /// What went wrong, for people.
        reason: String,
        /// What else ends with it.
        end: End,
    },
}

impl Verdict {
    /// Try again by the table.
    #[must_use]
    pub fn later(reason: impl Into<String>) -> Self {
        Self::Later {
            reason: reason.into(),
            at_least: Duration::ZERO,
            pause: false,
        }
    }

    /// Try again, and send this target nothing meanwhile.
    #[must_use]
    pub fn slow_down(reason: impl Into<String>, at_least: Duration) -> Self {
        Self::Later {
            reason: reason.into(),
            at_least,
            pause: true,
        }
    }

    /// Give up.
    #[must_use]
    pub fn never(reason: impl Into<String>, end: End) -> Self {
        Self::Never {
            reason: reason.into(),
            end,
        }
    }
}
