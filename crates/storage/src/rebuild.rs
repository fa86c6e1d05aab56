//! Recount: everything that is derived from assignments and events, computed again and compared.
//!
//! The statements here are plain `GROUP BY`s over the raw rows and share nothing with [`crate::fold`], so that a
//! fault of the one is seen by the other. They count what lies below the watermark, in one snapshot and under the lock
//! of folding, so that both speak of the same rows while the shop goes on writing.
//!
//! End-of-day snapshots are never revised. Arms of bandits are recounted from events and from the updates that others
//! have reported.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::bandit::fold::FRESH;
use crate::connect::{ConnectSettings, Purpose};
use crate::rows::column;
use crate::{StorageError, bandit, fold};

mod tables;

use tables::{TABLES, Table};

/// How long a recount waits for a pass of folding to end.
const LOCK_WAIT: Duration = Duration::from_secs(60);
/// How often a recount that met a concurrent change is begun again.
const ATTEMPTS: u32 = 3;
/// Differing rows of a table that a report shows.
const EXAMPLES: i64 = 5;

/// What a recount found, and whether it was put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Everything written by transactions below this id was counted.
    pub watermark: i64,
    /// The stored watermark, or rows, carry transaction ids that this server has not reached: the database was
    /// restored from a dump. Folding goes wrong until the recount is applied.
    pub restored: bool,
    /// Whether the live tables were corrected.
    pub applied: bool,
    /// One entry a table, in a fixed order.
    pub tables: Vec<TableReport>,
    /// Experiments that were not compared, because retention dropped a part of their events.
    pub left_out: Vec<LeftOut>,
}

/// The comparison of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReport {
    /// Name of the live table.
    pub table: &'static str,
    /// Rows that it should have.
    pub rows: i64,
    /// Rows of the recount that the live table does not have, or has with other numbers.
    pub missing: i64,
    /// Rows of the live table that the recount does not have, or has with other numbers.
    pub surplus: i64,
    /// A few of the differing rows.
    pub examples: Vec<Difference>,
}

/// A row that is in only one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whether it is in the live table; otherwise it is in the recount.
    pub live: bool,
    /// The row as JSON.
    pub row: String,
}

/// An experiment that cannot be recounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its id.
    pub experiment_id: i64,
    /// Its name.
    pub name: String,
}

impl Report {
    /// Rows that differ, over all tables; 0 when the totals are right.
    #[must_use]
    pub fn differences(&self) -> i64 {
        self.tables
            .iter()
            .map(|table| table.missing + table.surplus)
            .sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "counted what was written below transaction {}",
            self.watermark
        )?;
        if self.restored {
            writeln!(f, "the database was restored from a dump of another server")?;
        }
        for table in &self.tables {
            writeln!(
                f,
                "{}: {} rows, {} missing, {} surplus",
                table.table, table.rows, table.missing, table.surplus
            )?;
            for difference in &table.examples {
                writeln!(
                    f,
                    "  {} {}",
                    if difference.live {
                        "live   "
                    } else {
                        "recount"
                    },
                    difference.row
                )?;
            }
        }
        for experiment in &self.left_out {
            writeln!(
                f,
                "left out, events dropped by retention: {} ({})",
                experiment.name, experiment.experiment_id
            )?;
        }
        match (self.differences(), self.applied) {
            (0, false) => write!(f, "no differences"),
            (0, true) => write!(f, "no differences; the watermark is in force"),
            (n, true) => write!(f, "{n} differing rows, corrected"),
            (n, false) => write!(
                f,
                "{n} differing rows; run again with --apply to correct them"
            ),
        }
    }
}

const STATE: &str = "-- rebuild::state
SELECT watermark, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax
FROM fold_state";

/// Whether rows carry transaction ids that this server has not given out.
const FOREIGN: &str = "-- rebuild::foreign
SELECT EXISTS (SELECT 1 FROM user_experiment_assignments WHERE tx_id >= $1)
    OR EXISTS (SELECT 1 FROM experiment_events WHERE tx_id >= $1)
    OR EXISTS (SELECT 1 FROM unit_aliases WHERE tx_id >= $1)
    OR EXISTS (SELECT 1 FROM unit_covariates WHERE tx_id >= $1)
    OR EXISTS (SELECT 1 FROM excluded_units WHERE tx_id >= $1)
    OR EXISTS (SELECT 1 FROM bandit_learning WHERE tx_id >= $1) AS foreign";

/// Which rows count: those below the watermark, and those with ids of another server. These come before all ids of this
/// server when `shift` is subtracted, in the order that they have; ids that were shifted at an earlier restore are
/// negative, and move further down.
const SCOPE: &str = "-- rebuild::scope
CREATE TEMP TABLE recount_scope (watermark bigint, foreign_from bigint, shift bigint) ON COMMIT DROP";

const FILL_SCOPE: &str = "-- rebuild::fill_scope
INSERT INTO recount_scope
SELECT $1, $2, 1 + greatest(
    (SELECT max(tx_id) FROM user_experiment_assignments), (SELECT max(tx_id) FROM unit_covariates),
    (SELECT max(tx_id) FROM experiment_events), (SELECT max(tx_id) FROM bandit_learning), 0)";

/// Experiments whose first assignment came before the first event that is still there: a part of their events may
/// be gone.
const LEFT_OUT: &str = "-- rebuild::left_out
CREATE TEMP TABLE recount_left_out ON COMMIT DROP AS
SELECT a.experiment_id FROM user_experiment_assignments a
JOIN fold_state f ON a.created_at < f.dropped_before GROUP BY 1";

const NAME_LEFT_OUT: &str = "-- rebuild::name_left_out
SELECT l.experiment_id, coalesce(e.name, '') AS name FROM recount_left_out l
LEFT JOIN experiments e ON e.id = l.experiment_id ORDER BY 1";

/// The units: everyone who was assigned under a name that is no alias.
const UNITS: &str = "-- rebuild::units
CREATE TEMP TABLE recount_units ON COMMIT DROP AS
SELECT a.experiment_id, a.user_id AS unit, a.variant_id, a.epoch, a.source, a.propensity IS NOT NULL AS drawn, a.session_id,
       a.is_bot,
       coalesce(a.assigned_as, a.user_id) AS first_name,
       a.tx_id - CASE WHEN a.tx_id >= b.foreign_from OR a.tx_id < 0 THEN b.shift ELSE 0 END AS moment,
       a.is_bot OR a.source = 2 OR EXISTS (
           SELECT 1 FROM excluded_units x CROSS JOIN recount_scope b
           WHERE x.experiment_id = a.experiment_id AND (x.tx_id < b.watermark OR x.tx_id >= b.foreign_from)
             AND (x.unit = a.user_id
                  OR EXISTS (SELECT 1 FROM unit_aliases l WHERE l.experiment_id = x.experiment_id
                             AND l.alias_unit = x.unit AND l.unit = a.user_id))) AS excluded
FROM user_experiment_assignments a CROSS JOIN recount_scope b
WHERE (a.tx_id < b.watermark OR a.tx_id >= b.foreign_from)
  AND a.experiment_id NOT IN (SELECT experiment_id FROM recount_left_out)
  AND NOT EXISTS (SELECT 1 FROM unit_aliases l WHERE l.experiment_id = a.experiment_id AND l.alias_unit = a.user_id)";

/// What was handed in for a unit before its assignment, the last of it.
const COVARIATES: &str = "-- rebuild::covariates
CREATE TEMP TABLE recount_covariates ON COMMIT DROP AS
SELECT DISTINCT ON (u.experiment_id, u.unit) u.experiment_id, u.unit, c.value AS covariate
FROM (SELECT v.*, v.tx_id - CASE WHEN v.tx_id >= b.foreign_from OR v.tx_id < 0 THEN b.shift ELSE 0 END AS moment
      FROM unit_covariates v CROSS JOIN recount_scope b) c
JOIN recount_units u ON u.experiment_id = c.experiment_id AND u.first_name = c.unit AND c.moment < u.moment
ORDER BY u.experiment_id, u.unit, c.moment DESC";

/// Events that count, each under the unit that it counts for.
const EVENTS: &str = "-- rebuild::events
CREATE TEMP VIEW recount_events AS
SELECT u.experiment_id, u.unit, u.variant_id, u.epoch, u.excluded, e.event_type, e.value, e.is_error, e.occurred_at,
       e.latency_ms,
       e.session_id, e.item_id, e.brand_id, e.position,
       e.event_type IN ('impression', 'click', 'add_to_cart', 'purchase') AS of_funnel
FROM recount_scope b
JOIN experiment_events e ON e.counted AND (e.tx_id < b.watermark OR e.tx_id >= b.foreign_from)
LEFT JOIN unit_aliases l ON l.experiment_id = e.experiment_id AND l.alias_unit = e.user_id
JOIN recount_units u ON u.experiment_id = e.experiment_id AND u.unit = coalesce(l.unit, e.user_id)";

/// Arms that no pass has made: their events were not folded before the database was restored.
static ARMS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- rebuild::arms
WITH seen AS (
    SELECT DISTINCT l.experiment_id, l.arm_type, k.arm_id
    FROM recount_scope b
    JOIN experiment_events e ON e.counted AND (e.tx_id < b.watermark OR e.tx_id >= b.foreign_from)
    JOIN bandit_learning l ON l.experiment_id = e.experiment_id AND l.arm_type <> 'variant'
    CROSS JOIN LATERAL (SELECT CASE l.arm_type WHEN 'item' THEN e.item_id WHEN 'brand' THEN e.brand_id
        WHEN 'category' THEN e.event_data ->> 'category' ELSE e.event_data ->> 'algorithm' END) AS k (arm_id)
    WHERE char_length(k.arm_id) BETWEEN 1 AND 128 AND (e.event_type = 'impression' OR l.rewards ? e.event_type)),
{fresh}
INSERT INTO bandit_arms (experiment_id, arm_type, arm_id)
SELECT experiment_id, arm_type, arm_id FROM fresh JOIN room USING (experiment_id, arm_type)
WHERE place <= places
ON CONFLICT DO NOTHING",
        fresh = *FRESH
    )
});

/// Impressions of arms and rewards, of experiments that learn.
const ARM_EVENTS: &str = "-- rebuild::arm_events
CREATE TEMP TABLE recount_arm_events ON COMMIT DROP AS
SELECT a.id AS arm_row_id, e.id AS event_row_id, u.experiment_id, u.unit, e.event_type, e.occurred_at, e.decision_id,
       e.position, coalesce(e.value, 0) AS value, a.reset_at, make_interval(secs => l.attribution_seconds) AS attribution,
       l.rewards, l.by_value, l.max_reward
FROM recount_scope b
JOIN experiment_events e ON e.counted AND (e.tx_id < b.watermark OR e.tx_id >= b.foreign_from)
JOIN bandit_learning l ON l.experiment_id = e.experiment_id AND (l.tx_id = 0
    OR l.tx_id - CASE WHEN l.tx_id >= b.foreign_from OR l.tx_id < 0 THEN b.shift ELSE 0 END
       <= e.tx_id - CASE WHEN e.tx_id >= b.foreign_from OR e.tx_id < 0 THEN b.shift ELSE 0 END)
LEFT JOIN unit_aliases n ON n.experiment_id = e.experiment_id AND n.alias_unit = e.user_id
JOIN recount_units u ON u.experiment_id = e.experiment_id AND u.unit = coalesce(n.unit, e.user_id) AND NOT u.excluded
JOIN bandit_arms a ON a.experiment_id = e.experiment_id AND a.arm_type = l.arm_type AND a.arm_id = CASE
    WHEN l.arm_type = 'variant' THEN u.variant_id::text
    WHEN l.arm_type = 'item' THEN e.item_id
    WHEN l.arm_type = 'brand' THEN e.brand_id
    WHEN l.arm_type = 'category' THEN e.event_data ->> 'category'
    ELSE e.event_data ->> 'algorithm' END
WHERE e.event_type = 'impression'
   OR (e.event_type IN ('click', 'add_to_cart', 'purchase') AND l.rewards ? e.event_type)";

/// Rows with ids of another server get one that lies below every watermark, or folding would take them a second
/// time when this server's own ids arrive there. Those whose order says something keep it.
const RESTAMP: [&str; 7] = [
    "-- rebuild::restamp_assignments
UPDATE user_experiment_assignments SET tx_id = tx_id - b.shift FROM recount_scope b WHERE tx_id >= $1 OR tx_id < 0",
    "-- rebuild::restamp_covariates
UPDATE unit_covariates SET tx_id = tx_id - b.shift FROM recount_scope b WHERE tx_id >= $1 OR tx_id < 0",
    "-- rebuild::restamp_events
UPDATE experiment_events SET tx_id = tx_id - b.shift FROM recount_scope b WHERE tx_id >= $1 OR tx_id < 0",
    "-- rebuild::restamp_aliases
UPDATE unit_aliases SET tx_id = 0 WHERE tx_id >= $1",
    "-- rebuild::restamp_exclusions
UPDATE excluded_units SET tx_id = 0 WHERE tx_id >= $1",
    "-- rebuild::restamp_learning
UPDATE bandit_learning SET tx_id = tx_id - b.shift FROM recount_scope b WHERE tx_id >= $1 OR tx_id < 0",
    "-- rebuild::restamp_resets
UPDATE bandit_arms SET reset_tx = 0 WHERE reset_tx >= $1",
];

const SET_WATERMARK: &str = "-- rebuild::set_watermark
UPDATE fold_state SET watermark = $1";

/// Recounts everything and compares it with the live tables; with `apply` corrects these in the same transaction.
/// Folding waits meanwhile, everything else goes on.
///
/// # Errors
/// [`StorageError::Analytics`] when folding holds its lock for over a minute; [`StorageError::Db`] otherwise.
pub async fn rebuild(settings: &ConnectSettings, apply: bool) -> Result<Report, StorageError> {
    let mut client = settings.connect(Purpose::Maintain).await?;
    lock(&client).await?;
    let mut attempt = 1;
    let report = loop {
        match recount(&mut client, apply).await {
            Err(error) if error.is_contention() && attempt < ATTEMPTS => attempt += 1,
            outcome => break outcome?,
        }
    };
    // The lock would also end with the connection; this way the next pass need not wait for that.
    client
        .execute(
            "-- rebuild::unlock\nSELECT pg_advisory_unlock($1)",
            &[&fold::LOCK_KEY],
        )
        .await?;
    Ok(report)
}

/// Takes the lock of folding before the transaction begins, so that its snapshot sees what the last pass committed.
async fn lock(client: &Client) -> Result<(), StorageError> {
    const TRY: &str = "-- rebuild::lock\nSELECT pg_try_advisory_lock($1)";
    let mut waited = Duration::ZERO;
    // Asked again and again rather than waited for inside the server, where it would hold a snapshot.
    while !client
        .query_one(TRY, &[&fold::LOCK_KEY])
        .await?
        .get::<_, bool>(0)
    {
        if waited >= LOCK_WAIT {
            return Err(StorageError::Analytics(
                "another process holds the lock of folding for over a minute".into(),
            ));
        }
        let pause = Duration::from_millis(50);
        tokio::time::sleep(pause).await;
        waited += pause;
    }
    Ok(())
}

async fn recount(client: &mut Client, apply: bool) -> Result<Report, StorageError> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()
        .await?;
    let state = transaction.query_one(STATE, &[]).await?;
    let stored: i64 = column(&state, "fold_state", "watermark")?;
    let xmin: i64 = column(&state, "fold_state", "xmin")?;
    let xmax: i64 = column(&state, "fold_state", "xmax")?;
    let foreign: bool = column(
        &transaction.query_one(FOREIGN, &[&xmax]).await?,
        "experiment_events",
        "foreign",
    )?;
    let watermark = if stored > xmax { xmin } else { stored };
    if stored <= xmax {
        // Aliases that are visible, but not folded yet, already decide on names in the recount.
        fold::follow_visible(&transaction, stored).await?;
    } else {
        bandit::fold::begin(&transaction).await?;
    }
    fill(&transaction, watermark, xmax).await?;
    let tables = compare(&transaction).await?;
    let left_out = left_out(&transaction).await?;
    transaction
        .batch_execute("DROP VIEW recount_events")
        .await?;
    if apply {
        correct(&transaction).await?;
        if foreign {
            restamp(&transaction, xmax).await?;
        }
        transaction.execute(SET_WATERMARK, &[&watermark]).await?;
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(Report {
        watermark,
        restored: foreign || stored > xmax,
        applied: apply,
        tables,
        left_out,
    })
}

/// Counts everything into temporary tables.
async fn fill(
    transaction: &Transaction<'_>,
    watermark: i64,
    foreign_from: i64,
) -> Result<(), StorageError> {
    transaction.batch_execute(SCOPE).await?;
    transaction
        .execute(FILL_SCOPE, &[&watermark, &foreign_from])
        .await?;
    for statement in [
        LEFT_OUT,
        UNITS,
        "ANALYZE recount_units",
        COVARIATES,
        EVENTS,
        ARMS.as_str(),
        ARM_EVENTS,
        "ANALYZE recount_arm_events",
    ] {
        transaction.batch_execute(statement).await?;
    }
    for table in &TABLES {
        transaction.batch_execute(&table.create()).await?;
        transaction.batch_execute(table.recount).await?;
        transaction
            .batch_execute(&format!("ANALYZE recount_{}", table.name))
            .await?;
    }
    Ok(())
}

async fn compare(transaction: &Transaction<'_>) -> Result<Vec<TableReport>, StorageError> {
    let mut reports = Vec::with_capacity(TABLES.len());
    for table in &TABLES {
        for statement in table.compare() {
            transaction.batch_execute(&statement).await?;
        }
        let counts = transaction.query_one(&table.count(), &[]).await?;
        reports.push(TableReport {
            table: table.name,
            rows: column(&counts, table.name, "rows")?,
            missing: column(&counts, table.name, "missing")?,
            surplus: column(&counts, table.name, "surplus")?,
            examples: examples(transaction, table).await?,
        });
    }
    Ok(reports)
}

async fn examples(
    transaction: &Transaction<'_>,
    table: &Table,
) -> Result<Vec<Difference>, StorageError> {
    let rows = transaction.query(&table.examples(), &[&EXAMPLES]).await?;
    let read = |row| {
        Ok(Difference {
            live: column(row, table.name, "live")?,
            row: column(row, table.name, "row")?,
        })
    };
    rows.iter().map(read).collect()
}

async fn left_out(transaction: &Transaction<'_>) -> Result<Vec<LeftOut>, StorageError> {
    const T: &str = "experiments";
    let rows = transaction.query(NAME_LEFT_OUT, &[]).await?;
    let read = |row| {
        Ok(LeftOut {
            experiment_id: column(row, T, "experiment_id")?,
            name: column(row, T, "name")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Makes the live tables equal to the recount.
/// Caps of values follow from unit totals; where these were wrong, they are computed again in time.
const FORGET_CAPS: [&str; 2] = [
    "-- rebuild::forget_caps
DELETE FROM value_caps WHERE experiment_id IN (
    SELECT experiment_id FROM missing_unit_totals UNION SELECT experiment_id FROM surplus_unit_totals)",
    "-- rebuild::forget_capped_sums
DELETE FROM capped_moments m
WHERE NOT EXISTS (SELECT FROM value_caps c WHERE c.experiment_id = m.experiment_id AND c.total = m.total)",
];

/// Variants show the numbers of their arms.
const STALE_ARMS: &str = "-- rebuild::stale_arms
INSERT INTO bandit_stale_arms SELECT a.id FROM bandit_arms a JOIN missing_bandit_arms m USING (experiment_id, arm_type, arm_id)
ON CONFLICT DO NOTHING";

async fn correct(transaction: &Transaction<'_>) -> Result<(), StorageError> {
    for table in &TABLES {
        transaction.execute(&table.delete(), &[]).await?;
        transaction.execute(&table.insert(), &[]).await?;
    }
    for statement in FORGET_CAPS {
        transaction.execute(statement, &[]).await?;
    }
    transaction.execute(STALE_ARMS, &[]).await?;
    bandit::catch_up(transaction).await
}

/// Makes rows speak of this server's transactions.
async fn restamp(transaction: &Transaction<'_>, foreign_from: i64) -> Result<(), StorageError> {
    for statement in RESTAMP {
        transaction.execute(statement, &[&foreign_from]).await?;
    }
    Ok(())
}
