//! One scan at a time, and so many promotions an hour, over all workers.

use deadpool_postgres::{ClientWrapper, Transaction};

use crate::connect::Purpose;
use crate::database::Query;
use crate::experiments::rows::{fetch, one};
use crate::rows::column;
use crate::{Database, StorageError};

/// Key of the advisory lock that lets one worker scan.
const SCAN_KEY: i64 = 0x706f_6469_756d_0005;

/// The right to scan, until it is dropped. It is the lock of a transaction on a connection of its own: it ends with the
/// process that holds it, and behind a pooler of transactions it stays where it is.
pub struct ScanLock {
    _client: ClientWrapper,
}

/// Takes the right to scan; `None` while somebody else has it.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn lock(database: &Database) -> Result<Option<ScanLock>, StorageError> {
    let client = database.settings().connect_alone(Purpose::Maintain).await?;
    client.batch_execute("BEGIN READ ONLY").await?;
    let row = client
        .query_one(
            "SELECT pg_try_advisory_xact_lock($1) AS locked",
            &[&SCAN_KEY],
        )
        .await?;
    let locked: bool = column(&row, "promotion_analyses", "locked")?;
    Ok(locked.then_some(ScanLock { _client: client }))
}

const RUNNING: &str = "-- scan::running
SELECT id, name FROM experiments WHERE status = 'running' ORDER BY start_date, id";

/// Ids and names of the running experiments, the oldest first.
///
/// # Errors
/// As [`lock`].
pub async fn running(database: &Database) -> Result<Vec<(i64, String)>, StorageError> {
    const T: &str = "experiments";
    let rows = database.serve().await?.query(RUNNING, &[]).await?;
    rows.iter()
        .map(|row| Ok((column(row, T, "id")?, column(row, T, "name")?)))
        .collect()
}

const RECENT: &str = "-- scan::recent
SELECT count(*) AS recent FROM experiment_promotions
WHERE promotion_type = 'auto' AND promoted_at > now() - interval '1 hour'";

/// Promotions by the engine within the last hour, those included that were rolled back.
///
/// # Errors
/// As [`lock`].
pub async fn recent(link: &mut impl Query) -> Result<i64, StorageError> {
    let rows = link.query(RECENT, &[]).await?;
    column(
        one(&rows, "experiment_promotions")?,
        "experiment_promotions",
        "recent",
    )
}

/// A lock on a table takes no snapshot: what others have committed until it is granted is seen by what follows.
const COUNT_ALONE: &str = "-- scan::count_alone
LOCK TABLE promotion_limit IN EXCLUSIVE MODE";

/// Waits until no other transaction is about to add a promotion of the engine. To be called first in a transaction.
///
/// # Errors
/// As [`lock`].
pub async fn count_alone(tx: &Transaction<'_>) -> Result<(), StorageError> {
    fetch(tx, COUNT_ALONE, &[]).await?;
    Ok(())
}
