//! Leases: who does a work that needs no second one. A holder renews its lease more often than it lasts, so a killed one is
//! followed soon; a lease keeps work from being done twice for nothing, and locks keep it right.

use std::time::Duration;

use uuid::Uuid;

use crate::rows::column;
use crate::{Database, StorageError};

/// The lease of `promotion-worker run`: while it is held, API replicas leave watching to the worker.
pub const WORKER: &str = "worker";

const TAKE: &str = "-- leases::take
INSERT INTO worker_leases AS l (name, holder, until) VALUES ($1, $2, now() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, until = EXCLUDED.until
WHERE l.holder = EXCLUDED.holder OR l.until < now()
RETURNING true AS taken";

const GIVE_BACK: &str = "-- leases::give_back
DELETE FROM worker_leases WHERE name = $1 AND holder = $2";

const IS_HELD: &str = "-- leases::is_held
SELECT EXISTS (SELECT 1 FROM worker_leases WHERE name = $1 AND until >= now()) AS held";

/// Takes or renews a lease. `false` when somebody else holds it.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn take(
    database: &Database,
    name: &str,
    holder: Uuid,
    lasts: Duration,
) -> Result<bool, StorageError> {
    let mut link = database.work().await?;
    let taken = link
        .query_opt(TAKE, &[&name, &holder, &lasts.as_secs_f64()])
        .await?;
    Ok(taken.is_some())
}

/// Gives a lease back, so that nobody waits for its end.
///
/// # Errors
/// As [`take`].
pub async fn give_back(database: &Database, name: &str, holder: Uuid) -> Result<(), StorageError> {
    let mut link = database.work().await?;
    link.query(GIVE_BACK, &[&name, &holder]).await?;
    Ok(())
}

/// Whether anybody holds a lease.
///
/// # Errors
/// As [`take`].
pub async fn is_held(database: &Database, name: &str) -> Result<bool, StorageError> {
    let row = database.work().await?.query_opt(IS_HELD, &[&name]).await?;
    row.map_or(Ok(false), |row| column(&row, "worker_leases", "held"))
}
