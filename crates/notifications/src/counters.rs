//! How much was sent, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use podium_domain::notification::Channel;

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// The message arrived.
    Sent,
    /// The try failed, for whatever reason.
    Failed,
    /// The message will be tried again.
    Retried,
    /// The message was given up.
    Dead,
}

impl Result {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Sent, Self::Failed, Self::Retried, Self::Dead];

    /// The value of the label `result`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Dead => "dead",
        }
    }
}

/// Tries since the process started, by channel and result: `podium_notifications_total`.
#[derive(Debug, Default)]
pub struct Counters([[AtomicU64; 4]; 4]);

impl Counters {
    /// Counts one.
    pub(crate) fn add(&self, channel: Channel, result: Result) {
        if let Some(cell) = self.cell(channel, result) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self, channel: Channel, result: Result) -> u64 {
        self.cell(channel, result)
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    fn cell(&self, channel: Channel, result: Result) -> Option<&AtomicU64> {
        let row = Channel::ALL.iter().position(|known| *known == channel)?;
        let column = Result::ALL.iter().position(|known| *known == result)?;
        self.0.get(row)?.get(column)
    }
}
