//! What became of tries, for metrics.

use deadpool_postgres::Transaction;
use podium_domain::notification::Channel;
use tokio_postgres::Row;

use crate::StorageError;
use crate::experiments::rows::fetch;
use crate::rows::column;

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TryResult {
    /// The message arrived.
    Sent,
    /// The try failed, for whatever reason.
    Failed,
    /// The message will be tried again.
    Retried,
    /// The message was given up.
    Dead,
}

impl TryResult {
    /// Its name in the metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Dead => "dead",
        }
    }
}

/// In one order, so that two that count do not wait for each other.
const COUNT: &str = "-- outbox::count
INSERT INTO notification_counts AS c (channel, result, count)
SELECT channel, result, count(*) FROM unnest($1::text[], $2::text[]) AS n (channel, result) GROUP BY 1, 2 ORDER BY 1, 2
ON CONFLICT (channel, result) DO UPDATE SET count = c.count + EXCLUDED.count";

/// Counts what became of a try, in the transaction that records it.
pub(super) async fn count(
    tx: &Transaction<'_>,
    channel: Channel,
    results: &[TryResult],
) -> Result<(), StorageError> {
    let channels = vec![channel.name(); results.len()];
    let results: Vec<&str> = results.iter().map(|result| result.name()).collect();
    fetch(tx, COUNT, &[&channels, &results]).await?;
    Ok(())
}

/// Counts messages that were given up: rows with their `channel`.
pub(super) async fn count_dead(tx: &Transaction<'_>, rows: &[Row]) -> Result<(), StorageError> {
    if rows.is_empty() {
        return Ok(());
    }
    let channels: Result<Vec<String>, StorageError> = rows
        .iter()
        .map(|row| column(row, "notification_logs", "channel"))
        .collect();
    let results = vec![TryResult::Dead.name(); rows.len()];
    fetch(tx, COUNT, &[&channels?, &results]).await?;
    Ok(())
}
