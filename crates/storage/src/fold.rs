//! Folding: totals per unit and moments per variant, derived from assignments and events exactly once.
//!
//! **Watermark.** Every row carries the id of the transaction that wrote it. A pass takes the rows with ids in
//! `[watermark, xmin)`, where `xmin` is the oldest transaction still running: whoever is below it has committed
//! or never will, so no row can appear behind the watermark later. A sequence number could not promise that.
//!
//! **Once.** The new watermark is committed in the transaction that adds the totals, under a lock that one replica
//! gets: a crash anywhere leaves both as they were.
//!
//! **Any order.** Counts are integers and money is exact, so sums do not depend on how events are grouped. A unit's
//! contribution to a sum of squares is added as `new² − old²`.
//!
//! **Identity.** A session that logged in is an alias of its user. While the session still has a row of totals, its
//! events go there, and the row is renamed when the alias is folded; afterwards the alias leads to the user's row. An
//! assignment under a name that is an alias already (two requests raced) is no unit.
//!
//! **Covariates.** A unit's is the one that was handed in last, under the name that it had at its assignment, by a
//! transaction with a lower id than the assignment's. Such a transaction has ended when the assignment is folded, so the
//! unit gets its covariate with its row of totals, and nothing changes it any more.
//!
//! **Exclusion.** A unit is left out when it is a bot, when it was first seen while a promotion was active, or when any name
//! that it has or had was excluded.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::bandit::{self as bandits, fold as bandit};
use crate::connect::Purpose;
use crate::rows::column;
use crate::{Database, StorageError};

mod sql;

#[cfg(test)]
pub(crate) use sql::TOTALS;
use sql::{ALIASES, ASSIGNMENTS, EVENTS, EXCLUSIONS, PENDING_EXCLUSIONS, PROMOTIONS};
pub(crate) use sql::{GOOD, NAMED, PRODUCTS};

/// Rows of events that one pass takes at most (a larger single transaction is still taken whole).
const PASS_ROWS: i64 = 50_000;

/// How long a pass may take that did not end within the limit of a statement: one transaction wrote very many events,
/// or a unit was excluded that had taken part for long. Without such a pass folding would stand still for ever.
const LONG_PASS: Duration = Duration::from_secs(3600);

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Events that were folded.
    pub events: i64,
    /// Whether everything that had committed is now in the totals.
    pub caught_up: bool,
    /// Whether another replica was at it.
    pub busy: bool,
}

/// Events of a pass are read many times and should not go to disk in between.
const LOCK: &str = "-- fold::lock
SELECT pg_try_advisory_xact_lock($1), set_config('work_mem', '64MB', true)";

const STATE: &str = "-- fold::state
SELECT watermark, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax
FROM fold_state FOR UPDATE";

const STEP_END: &str = "-- fold::step_end
SELECT tx_id FROM experiment_events WHERE tx_id >= $1 AND tx_id < $2 ORDER BY tx_id OFFSET $3 LIMIT 1";

/// The state at the end of every day since the last snapshot: on days without a process nothing was folded.
const SNAPSHOT: &str = "-- fold::snapshot
WITH days AS (
    SELECT snapshot_day AS last, (now() AT TIME ZONE 'UTC')::date - 1 AS yesterday FROM fold_state),
due AS (
    UPDATE fold_state SET snapshot_day = d.yesterday FROM days d
    WHERE snapshot_day IS NULL OR snapshot_day < d.yesterday
    RETURNING coalesce(d.last + 1, d.yesterday) AS first, d.yesterday AS last)
INSERT INTO variant_day_snapshots
SELECT day::date, m.* FROM due CROSS JOIN generate_series(due.first, due.last, interval '1 day') day CROSS JOIN variant_moments m
ON CONFLICT DO NOTHING";

const ADVANCE: &str = "-- fold::advance
UPDATE fold_state SET watermark = $1, folded_at = CASE WHEN $2 THEN now() ELSE folded_at END";

/// One pass. Call it again at once while it has not caught up.
///
/// # Errors
/// [`StorageError::Analytics`] when the watermark lies in the future, which means that the database was restored
/// from a dump: then the totals are rebuilt with `podium-api rebuild --apply`.
pub async fn fold_once(database: &Database) -> Result<Folded, StorageError> {
    fold_up_to(database, PASS_ROWS).await
}

/// As [`fold_once`], taking at most about `rows` events.
///
/// # Errors
/// As [`fold_once`].
pub async fn fold_up_to(database: &Database, rows: i64) -> Result<Folded, StorageError> {
    let folded = pass_in_time(database, rows).await?;
    if !folded.busy {
        show_arms(database).await?;
    }
    Ok(folded)
}

/// What was counted is counted: where it cannot be shown, the next pass tries again, and whoever reads counts need not wait for it.
async fn show_arms(database: &Database) -> Result<(), StorageError> {
    match bandits::refresh(database).await {
        Err(error) if database.is_reachable() => {
            tracing::error!(error = %error.chain(), "rows of arms could not be brought up to date and will be tried again");
            Ok(())
        }
        outcome => outcome,
    }
}

async fn pass_in_time(database: &Database, rows: i64) -> Result<Folded, StorageError> {
    let mut link = database.work().await?;
    match one_pass(link.client()?, rows, Purpose::Work.client_limit()).await {
        Err(error) if error.sql_state() == Some(&SqlState::QUERY_CANCELED) => {
            drop(link);
            tracing::warn!(
                "a pass of folding takes longer than a statement may; it goes on without that limit"
            );
            let mut client = database.settings().connect(Purpose::Maintain).await?;
            one_pass(&mut client, 1, LONG_PASS).await
        }
        outcome => outcome,
    }
}

async fn one_pass(client: &mut Client, rows: i64, limit: Duration) -> Result<Folded, StorageError> {
    let pass = async {
        // One snapshot for the whole pass: what decides on a unit's name in one statement must not change before
        // the next.
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .start()
            .await?;
        let folded = pass(&transaction, rows).await?;
        transaction.commit().await?;
        Ok(folded)
    };
    match tokio::time::timeout(limit, pass)
        .await
        .map_err(|_| StorageError::TimedOut)?
    {
        // Another replica committed a pass between our snapshot and our lock.
        Err(error) if StorageError::is_contention(&error) => Ok(Folded {
            busy: true,
            ..Folded::default()
        }),
        outcome => outcome,
    }
}

/// Key of the advisory lock that lets one replica fold.
pub(crate) const LOCK_KEY: i64 = 0x706f_6469_756d_0002;

/// How often, ten times a second, it is asked whether a pass has ended.
const PATIENCE: u32 = 600;

/// Keeps folding out until the transaction ends, after the pass that is under way.
///
/// # Errors
/// [`StorageError::TimedOut`] when that takes longer than a minute.
pub(crate) async fn keep_out(transaction: &Transaction<'_>) -> Result<(), StorageError> {
    for _ in 0..PATIENCE {
        let lock = transaction
            .query_one("SELECT pg_try_advisory_xact_lock($1)", &[&LOCK_KEY])
            .await?;
        if lock.get(0) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(StorageError::TimedOut)
}

async fn pass(transaction: &Transaction<'_>, rows: i64) -> Result<Folded, StorageError> {
    let lock = transaction.query_one(LOCK, &[&LOCK_KEY]).await?;
    if !lock.get::<_, bool>(0) {
        return Ok(Folded {
            busy: true,
            ..Folded::default()
        });
    }
    let state = transaction.query_one(STATE, &[]).await?;
    let from: i64 = column(&state, "fold_state", "watermark")?;
    let xmin: i64 = column(&state, "fold_state", "xmin")?;
    let xmax: i64 = column(&state, "fold_state", "xmax")?;
    if from > xmax {
        return Err(StorageError::Analytics(
            "the totals come from another server (restored from a dump?): run `podium-api rebuild --apply`".into(),
        ));
    }
    transaction.execute(SNAPSHOT, &[]).await?;
    let end = transaction
        .query_opt(STEP_END, &[&from, &xmin, &rows])
        .await?;
    let to = match end {
        // At least one whole transaction, or the pass would stand still.
        Some(row) => row.get::<_, i64>(0).max(from + 1),
        None => xmin,
    };
    let range = fold_range(transaction, from, to).await?;
    let caught_up = to >= xmin && range.matured;
    transaction
        .execute(ADVANCE, &[&to.max(from), &caught_up])
        .await?;
    Ok(Folded {
        events: range.events,
        caught_up,
        busy: false,
    })
}

/// What became of a range of transactions.
struct Range {
    events: i64,
    /// Whether all windows of attribution that have ended are taken.
    matured: bool,
}

async fn fold_range(
    transaction: &Transaction<'_>,
    from: i64,
    to: i64,
) -> Result<Range, StorageError> {
    let mut range = Range {
        events: 0,
        matured: true,
    };
    let learns = bandit::begin(transaction).await?;
    if to > from {
        transaction.execute(ASSIGNMENTS, &[&from, &to]).await?;
        follow_identities(transaction, (from, to), learns).await?;
        range.events = events(transaction, from, to).await?;
    }
    if learns {
        bandit::record(transaction, from, to).await?;
        range.matured = bandit::mature(transaction).await?;
        bandit::settle(transaction, from).await?;
    }
    Ok(range)
}

async fn events(transaction: &Transaction<'_>, from: i64, to: i64) -> Result<i64, StorageError> {
    let row = transaction
        .query_one(EVENTS.as_str(), &[&from, &to])
        .await?;
    transaction.execute(PROMOTIONS, &[&from, &to]).await?;
    let strangers: i64 = column(&row, "experiment_events", "strangers")?;
    if strangers > 0 {
        tracing::error!(
            strangers,
            "events of units without an assignment were left out of the totals"
        );
    }
    column(&row, "experiment_events", "events")
}

/// Names and exclusions that came after a unit's totals were made: renames units whose alias is visible and not yet
/// folded (`tx_id >= from`), and takes out units that were excluded in `[from, to)`.
async fn follow_identities(
    transaction: &Transaction<'_>,
    (from, to): (i64, i64),
    learns: bool,
) -> Result<(), StorageError> {
    for statement in ALIASES {
        transaction.execute(statement, &[&from]).await?;
    }
    if learns {
        bandit::follow_aliases(transaction, from).await?;
    }
    let pending = transaction
        .query_one(PENDING_EXCLUSIONS.as_str(), &[&from, &to])
        .await?;
    if column::<bool>(&pending, "excluded_units", "pending")? {
        transaction
            .execute(EXCLUSIONS.as_str(), &[&from, &to])
            .await?;
        if learns {
            bandit::exclude(transaction, from, to).await?;
        }
    }
    Ok(())
}

/// Follows what is visible and not yet folded, but decides on what was: names of units, and resets of arms. The
/// rows of arms catch up.
pub(crate) async fn follow_visible(
    transaction: &Transaction<'_>,
    from: i64,
) -> Result<(), StorageError> {
    let learns = bandit::begin(transaction).await?;
    follow_identities(transaction, (from, from), learns).await?;
    if learns {
        bandit::settle(transaction, from).await?;
        bandits::catch_up(transaction).await?;
    }
    Ok(())
}

/// How old the totals are, in seconds, by the clock of the database: since folding last caught up, and not less than the
/// oldest assignment or event has waited that is not in them, because what an open transaction holds back is missing
/// although folding runs. Rows come in the order of their transactions, so the first one that is not folded is, but for
/// the length of a transaction, the oldest. `NULL` when folding ran in the future: then the clock was set back, and
/// nobody knows.
macro_rules! lag {
    () => {
        "CASE WHEN s.folded_at <= now() + interval '1 minute' THEN greatest(extract(epoch FROM now() - least(s.folded_at,
             (SELECT a.created_at FROM user_experiment_assignments a WHERE a.tx_id >= s.watermark ORDER BY a.tx_id LIMIT 1),
             (SELECT e.created_at FROM experiment_events e WHERE e.tx_id >= s.watermark ORDER BY e.tx_id LIMIT 1))), 0)
         END::double precision"
    };
}
pub(crate) use lag;

const LAG: &str = concat!(
    "-- fold::lag\nSELECT ",
    lag!(),
    " AS seconds FROM fold_state s"
);

/// Seconds for which the oldest of what is missing in the totals has waited, or since folding last caught up, if that is
/// more; by the clock of the database. `None` when its clock was set back and nobody knows.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn lag_seconds(database: &Database) -> Result<Option<f64>, StorageError> {
    let row = database.watch().await?.query_opt(LAG, &[]).await?;
    row.map_or(Ok(None), |row| column(&row, "fold_state", "seconds"))
}
