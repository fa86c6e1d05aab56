//! Winsorisation: where unit totals of values are capped, and the exact sums of the capped totals.
//!
//! A cap is the quantile of the totals of all units, every variant and epoch together, that the design of the experiment
//! asks for, but never below the median of the totals above zero: where fewer units buy than the quantile leaves, it would
//! be zero. Totals grow while an experiment runs, so caps are found anew every few minutes, and once more after the end.
//!
//! **One moment.** Caps and sums come from one snapshot and are committed together; a reader sees those of one moment.
//!
//! **Nobody waits.** Everything is read before anything is written, because a transaction that has written holds
//! [`crate::fold`] back until its end.
//!
//! # Source
//! Quantiles of type 7 of Hyndman & Fan, Amer. Statist. 50 (1996), 361–365, as in `podium_domain::stats::winsorize`.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Row, Transaction};

use crate::connect::Purpose;
use crate::experiments::Design;
use crate::rows::column;
use crate::{Database, StorageError};

/// Totals of values, by the names of their columns.
pub(crate) const CAPPED: [&str; 2] = ["purchase_value", "engagement"];

/// Key of the advisory lock that lets one replica compute.
const LOCK_KEY: i64 = 0x706f_6469_756d_0003;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Experiments whose caps are new.
    pub experiments: usize,
    /// Experiments that failed; they are tried again in the next pass.
    pub failed: usize,
    /// Whether another replica was at it, so that this one stopped.
    pub busy: bool,
}

/// The first experiment behind `$1` whose caps are due. One that is completed, or archived since, waits until everything
/// from before its end is in the totals, and is computed once then.
const DUE: &str = "-- winsorize::due
SELECT e.id, e.upper
FROM (SELECT id, status, end_date,
             CASE WHEN design ? 'winsorizeUpper' THEN (design ->> 'winsorizeUpper')::double precision ELSE $3 END AS upper
      FROM experiments WHERE id > $1 AND status <> 'draft') e
CROSS JOIN LATERAL (
    SELECT min(v.computed_at) AS computed_at, bool_and(v.upper = e.upper) AS as_asked
    FROM value_caps v WHERE v.experiment_id = e.id) c
WHERE e.upper IS NOT NULL
  AND (c.computed_at IS NOT NULL OR EXISTS (
      SELECT FROM variant_moments m
      WHERE m.experiment_id = e.id AND (m.sum_purchase_value > 0 OR m.sum_engagement > 0)))
  AND (e.status IN ('running', 'paused') OR e.end_date IS NULL OR e.end_date < (SELECT folded_at FROM fold_state))
  AND (c.computed_at IS NULL OR NOT c.as_asked
       OR CASE WHEN e.status IN ('running', 'paused') THEN c.computed_at <= now() - make_interval(secs => $2)
               ELSE c.computed_at <= e.end_date END)
ORDER BY e.id LIMIT 1";

/// The cap of a total; no row when no unit has any. Quantiles are taken in floats: totals have four decimals, and what is
/// rounded to four again does not depend on the machine.
fn cap_statement(total: &str) -> String {
    format!(
        "-- winsorize::cap
SELECT round(greatest(
           percentile_cont($2::double precision) WITHIN GROUP (ORDER BY {total}::double precision),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY {total}::double precision) FILTER (WHERE {total} > 0)
       )::numeric, 4)::text AS cap
FROM unit_totals WHERE experiment_id = $1 AND NOT excluded
HAVING count(*) FILTER (WHERE {total} > 0) > 0"
    )
}

/// The rows of `capped_moments` for a total under a cap, as JSON, whose numbers are exact.
fn sums_statement(total: &str) -> String {
    format!(
        "-- winsorize::sums
SELECT coalesce(jsonb_agg(s), '[]')::text AS sums
FROM (SELECT experiment_id, '{total}' AS total, variant_id, epoch,
             count(*) AS units, count(*) FILTER (WHERE y > 0) AS units_above_zero,
             sum(y) AS sum_total, sum(y * y) AS sq_total,
             sum(sessions) AS sum_sessions, sum(sessions * sessions) AS sq_sessions, sum(y * sessions) AS x_sessions,
             sum(purchases) AS sum_purchases, sum(purchases * purchases) AS sq_purchases, sum(y * purchases) AS x_purchases
      FROM (SELECT experiment_id, variant_id, epoch, least({total}, $2::text::numeric) AS y,
                   sessions::numeric AS sessions, purchases::numeric AS purchases
            FROM unit_totals WHERE experiment_id = $1 AND NOT excluded) units
      GROUP BY experiment_id, variant_id, epoch) s"
    )
}

const FORGET: [&str; 2] = [
    "-- winsorize::forget_caps\nDELETE FROM value_caps WHERE experiment_id = $1",
    "-- winsorize::forget_sums\nDELETE FROM capped_moments WHERE experiment_id = $1",
];

/// A row that our snapshot does not show is a serialization failure with `ON CONFLICT`, and so a pass of another replica.
const STORE_CAP: &str = "-- winsorize::store_cap
INSERT INTO value_caps (experiment_id, total, upper, cap, computed_at) VALUES ($1, $2, $3, $4::text::numeric, now())
ON CONFLICT (experiment_id, total) DO NOTHING";

const STORE_SUMS: &str = "-- winsorize::store_sums
INSERT INTO capped_moments SELECT * FROM jsonb_populate_recordset(NULL::capped_moments, $1::text::jsonb)";

/// An experiment whose caps are due, and the quantile that it asks for.
struct Due {
    id: i64,
    upper: f64,
}

/// A total's cap and rows, still as text.
struct Capped {
    total: &'static str,
    cap: String,
    sums: String,
}

/// Computes caps and capped sums wherever they are due: never computed, for another quantile, older than `max_age`, or
/// from before the end of a completed experiment. One transaction an experiment; one that fails keeps what it has, and
/// the others go on.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn refresh(database: &Database, max_age: Duration) -> Result<Refreshed, StorageError> {
    let mut refreshed = Refreshed::default();
    let mut after = 0;
    while let Some(id) = next_due(database, after, max_age).await? {
        after = id;
        match recompute(database, id, max_age).await {
            Ok(Some(computed)) => refreshed.experiments += usize::from(computed),
            Ok(None) => {
                refreshed.busy = true;
                break;
            }
            Err(error) => {
                refreshed.failed += 1;
                tracing::warn!(
                    experiment = id,
                    error = %error.chain(),
                    "the cap of values was not computed and will be tried again"
                );
            }
        }
    }
    Ok(refreshed)
}

async fn next_due(
    database: &Database,
    after: i64,
    max_age: Duration,
) -> Result<Option<i64>, StorageError> {
    let (seconds, default) = (max_age.as_secs_f64(), Design::default().winsorize_upper);
    let mut link = database.work().await?;
    let row = link.query_opt(DUE, &[&after, &seconds, &default]).await?;
    row.map(|row| column(&row, "experiments", "id")).transpose()
}

/// Whether there was still something to do; `None` when another replica is at it.
async fn recompute(
    database: &Database,
    id: i64,
    max_age: Duration,
) -> Result<Option<bool>, StorageError> {
    let mut link = database.work().await?;
    match one_pass(link.client()?, id, max_age).await {
        // Another replica committed between our snapshot and our lock.
        Err(error) if error.is_contention() => Ok(None),
        outcome => outcome,
    }
}

async fn one_pass(
    client: &mut Client,
    id: i64,
    max_age: Duration,
) -> Result<Option<bool>, StorageError> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .start();
    let transaction = in_time(transaction).await?;
    let lock = "-- winsorize::lock\nSELECT pg_try_advisory_xact_lock($1) AS locked";
    let locked = query(&transaction, lock, &[&LOCK_KEY]).await?;
    if !one(&locked, "locked")? {
        return Ok(None);
    }
    let Some(due) = still_due(&transaction, id, max_age).await? else {
        return Ok(Some(false));
    };
    let mut found = Vec::new();
    for total in CAPPED {
        found.extend(capped(&transaction, &due, total).await?);
    }
    store(&transaction, &due, &found).await?;
    in_time(transaction.commit()).await?;
    Ok(Some(true))
}

async fn still_due(
    transaction: &Transaction<'_>,
    id: i64,
    max_age: Duration,
) -> Result<Option<Due>, StorageError> {
    let (seconds, default) = (max_age.as_secs_f64(), Design::default().winsorize_upper);
    let rows = query(transaction, DUE, &[&(id - 1), &seconds, &default]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let due = Due {
        id: column(row, "experiments", "id")?,
        upper: column(row, "experiments", "upper")?,
    };
    Ok((due.id == id).then_some(due))
}

async fn capped(
    transaction: &Transaction<'_>,
    due: &Due,
    total: &'static str,
) -> Result<Option<Capped>, StorageError> {
    let rows = query(transaction, &cap_statement(total), &[&due.id, &due.upper]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let cap: String = one(&rows, "cap")?;
    let rows = query(transaction, &sums_statement(total), &[&due.id, &cap]).await?;
    Ok(Some(Capped {
        total,
        sums: one(&rows, "sums")?,
        cap,
    }))
}

async fn store(
    transaction: &Transaction<'_>,
    due: &Due,
    found: &[Capped],
) -> Result<(), StorageError> {
    for statement in FORGET {
        query(transaction, statement, &[&due.id]).await?;
    }
    for Capped { total, cap, sums } in found {
        query(transaction, STORE_CAP, &[&due.id, total, &due.upper, cap]).await?;
        query(transaction, STORE_SUMS, &[sums]).await?;
    }
    Ok(())
}

async fn query(
    transaction: &Transaction<'_>,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StorageError> {
    in_time(transaction.query(sql, params)).await
}

/// A frozen server enforces no limit of its own.
async fn in_time<T>(
    step: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StorageError> {
    match timeout(Purpose::Work.client_limit(), step).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StorageError::TimedOut),
    }
}

/// The value of a statement that yields one row.
fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    rows: &[Row],
    name: &'static str,
) -> Result<T, StorageError> {
    const TABLE: &str = "unit_totals";
    let row = rows.first().ok_or(StorageError::CorruptRow {
        table: TABLE,
        column: name,
    })?;
    column(row, TABLE, name)
}
