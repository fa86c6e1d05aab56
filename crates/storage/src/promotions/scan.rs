//! One scan at a time, and so many promotions an hour, over all workers.

use chrono::{DateTime, Utc};
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
    client: ClientWrapper,
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
    Ok(locked.then_some(ScanLock { client }))
}

/// Upper bounds in seconds by which scans are counted; as many as `promotion_scans.up_to` has numbers.
const BOUNDS: [f64; 8] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

const COUNT: &str = "-- scan::count
UPDATE promotion_scans SET last_success_at = now(), scans = scans + 1, seconds = seconds + $1,
    up_to = ARRAY(SELECT b.scans + ($1 <= b.bound)::integer FROM unnest(up_to, $2::double precision[])
                  WITH ORDINALITY AS b (scans, bound, place) ORDER BY b.place)
RETURNING scans";

impl ScanLock {
    /// Gives the right back, so that whoever scans next has it at once; when it is only dropped the server has to notice.
    pub async fn release(self) {
        if let Err(error) = self.client.batch_execute("ROLLBACK").await {
            tracing::debug!(%error, "the right to scan ends with its connection");
        }
    }
}

/// Notes that a scan went through all experiments and how long it took, by the clock of the database.
///
/// # Errors
/// As [`lock`].
pub async fn finish(database: &Database, lock: &ScanLock) -> Result<(), StorageError> {
    const TOOK: &str = "SELECT greatest(extract(epoch FROM clock_timestamp() - now()), 0)::double precision AS seconds";
    let row = lock.client.query_one(TOOK, &[]).await?;
    let seconds: f64 = column(&row, "promotion_scans", "seconds")?;
    let mut link = database.serve().await?;
    link.query(COUNT, &[&seconds, &BOUNDS.as_slice()]).await?;
    Ok(())
}

/// Scans of the whole installation, dry runs left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scans {
    /// How many there were.
    pub count: u64,
    /// How long they took together, in seconds.
    pub seconds: f64,
    /// Upper bounds in seconds, and how many took at most that long.
    pub up_to: Vec<(f64, u64)>,
    /// When the last one ended.
    pub last_success_at: Option<DateTime<Utc>>,
}

const SCANS: &str = "-- scan::scans
SELECT scans, seconds, up_to, last_success_at FROM promotion_scans";

/// Scans so far.
///
/// # Errors
/// As [`lock`].
pub async fn scans(link: &mut impl Query) -> Result<Scans, StorageError> {
    const T: &str = "promotion_scans";
    let Some(row) = link.query_opt(SCANS, &[]).await? else {
        return Ok(Scans::default());
    };
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    let up_to: Vec<i64> = column(&row, T, "up_to")?;
    Ok(Scans {
        count: count(column(&row, T, "scans")?),
        seconds: column(&row, T, "seconds")?,
        up_to: BOUNDS
            .into_iter()
            .zip(up_to.into_iter().map(count))
            .collect(),
        last_success_at: column(&row, T, "last_success_at")?,
    })
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
