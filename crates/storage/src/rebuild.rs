//! Recount: everything that is derived from assignments and events, computed again and compared.
//!
//! The statements here are plain `GROUP BY`s over the raw rows and share nothing with [`crate::fold`], so that a
//! fault of the one is seen by the other. They count what lies below the watermark, in one snapshot and under the lock
//! of folding, so that both speak of the same rows while the shop goes on writing.
//!
//! End-of-day snapshots are never revised, and arms of bandits have a rebuild of their own.

use std::fmt;
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::connect::{ConnectSettings, Purpose};
use crate::rows::column;
use crate::{StorageError, fold};

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
        self.tables.iter().map(|table| table.missing + table.surplus).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "counted what was written below transaction {}", self.watermark)?;
        if self.restored {
            writeln!(f, "the database was restored from a dump of another server")?;
        }
        for table in &self.tables {
            writeln!(f, "{}: {} rows, {} missing, {} surplus", table.table, table.rows, table.missing, table.surplus)?;
            for difference in &table.examples {
                writeln!(f, "  {} {}", if difference.live { "live   " } else { "recount" }, difference.row)?;
            }
        }
        for experiment in &self.left_out {
            writeln!(f, "left out, events dropped by retention: {} ({})", experiment.name, experiment.experiment_id)?;
        }
        match (self.differences(), self.applied) {
            (0, false) => write!(f, "no differences"),
            (0, true) => write!(f, "no differences; the watermark is in force"),
            (n, true) => write!(f, "{n} differing rows, corrected"),
            (n, false) => write!(f, "{n} differing rows; run again with --apply to correct them"),
        }
    }
}

/// A live table: how its rows are named and compared.
struct Table {
    name: &'static str,
    keys: &'static [&'static str],
    values: &'static [&'static str],
    /// Whether every value is a sum, so that a row of zeros (what is left of an excluded unit, say) is the same as
    /// none.
    additive: bool,
    /// Fills `recount_{name}`.
    recount: &'static str,
}

impl Table {
    fn columns(&self) -> String {
        self.keys.iter().chain(self.values).copied().collect::<Vec<_>>().join(", ")
    }

    /// Condition for rows that say something.
    fn says_something(&self) -> String {
        let differs = self.values.iter().map(|value| format!("{value} <> 0")).collect::<Vec<_>>().join(" OR ");
        if self.additive { differs } else { "true".to_owned() }
    }

    /// The temporary table that the recount fills.
    fn create(&self) -> String {
        format!(
            "-- rebuild::create\nCREATE TEMP TABLE recount_{0} ON COMMIT DROP AS SELECT {1} FROM {0} WITH NO DATA",
            self.name,
            self.columns()
        )
    }

    /// What is in one and not in the other, both ways, as temporary tables.
    fn compare(&self) -> [String; 2] {
        let (name, columns, says) = (self.name, self.columns(), self.says_something());
        let live = format!(
            "SELECT {columns} FROM {name} WHERE ({says}) AND experiment_id NOT IN (SELECT experiment_id FROM recount_left_out)"
        );
        let recount = format!("SELECT {columns} FROM recount_{name} WHERE {says}");
        [
            format!("-- rebuild::missing\nCREATE TEMP TABLE missing_{name} ON COMMIT DROP AS {recount} EXCEPT ALL {live}"),
            format!("-- rebuild::surplus\nCREATE TEMP TABLE surplus_{name} ON COMMIT DROP AS {live} EXCEPT ALL {recount}"),
        ]
    }

    fn count(&self) -> String {
        format!(
            "-- rebuild::count
SELECT (SELECT count(*) FROM recount_{0} WHERE {1}) AS rows, (SELECT count(*) FROM missing_{0}) AS missing,
       (SELECT count(*) FROM surplus_{0}) AS surplus",
            self.name,
            self.says_something()
        )
    }

    fn examples(&self) -> String {
        format!(
            "-- rebuild::examples
(SELECT false AS live, to_jsonb(m)::text AS row FROM missing_{0} m ORDER BY 2 LIMIT $1)
UNION ALL
(SELECT true, to_jsonb(s)::text FROM surplus_{0} s ORDER BY 2 LIMIT $1)",
            self.name
        )
    }

    fn delete(&self) -> String {
        let keys = self.keys.iter().map(|key| format!("t.{key} = s.{key}")).collect::<Vec<_>>().join(" AND ");
        format!("-- rebuild::delete\nDELETE FROM {0} t USING surplus_{0} s WHERE {keys}", self.name)
    }

    fn insert(&self) -> String {
        let set = self.values.iter().map(|value| format!("{value} = EXCLUDED.{value}")).collect::<Vec<_>>().join(", ");
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
        format!(
            "-- rebuild::insert
INSERT INTO {0} ({1}) SELECT {1} FROM missing_{0} ON CONFLICT ({2}) DO {action}",
            self.name,
            self.columns(),
            self.keys.join(", ")
        )
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
    OR EXISTS (SELECT 1 FROM excluded_units WHERE tx_id >= $1) AS foreign";

/// Which rows count: those below the watermark, and those with ids of another server.
const SCOPE: &str = "-- rebuild::scope
CREATE TEMP TABLE recount_scope (watermark bigint, foreign_from bigint) ON COMMIT DROP";

const FILL_SCOPE: &str = "-- rebuild::fill_scope
INSERT INTO recount_scope VALUES ($1, $2)";

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
SELECT a.experiment_id, a.user_id AS unit, a.variant_id, a.epoch, a.source, a.session_id, a.is_bot,
       a.is_bot OR EXISTS (
           SELECT 1 FROM excluded_units x CROSS JOIN recount_scope b
           WHERE x.experiment_id = a.experiment_id AND (x.tx_id < b.watermark OR x.tx_id >= b.foreign_from)
             AND (x.unit = a.user_id
                  OR EXISTS (SELECT 1 FROM unit_aliases l WHERE l.experiment_id = x.experiment_id
                             AND l.alias_unit = x.unit AND l.unit = a.user_id))) AS excluded
FROM user_experiment_assignments a CROSS JOIN recount_scope b
WHERE (a.tx_id < b.watermark OR a.tx_id >= b.foreign_from)
  AND a.experiment_id NOT IN (SELECT experiment_id FROM recount_left_out)
  AND NOT EXISTS (SELECT 1 FROM unit_aliases l WHERE l.experiment_id = a.experiment_id AND l.alias_unit = a.user_id)";

/// Events that count, each under the unit that it counts for.
const EVENTS: &str = "-- rebuild::events
CREATE TEMP VIEW recount_events AS
SELECT u.experiment_id, u.unit, u.variant_id, u.excluded, e.event_type, e.value, e.is_error, e.occurred_at,
       e.session_id, e.item_id, e.brand_id, e.position,
       e.event_type IN ('impression', 'click', 'add_to_cart', 'purchase') AS of_funnel
FROM recount_scope b
JOIN experiment_events e ON e.counted AND (e.tx_id < b.watermark OR e.tx_id >= b.foreign_from)
LEFT JOIN unit_aliases l ON l.experiment_id = e.experiment_id AND l.alias_unit = e.user_id
JOIN recount_units u ON u.experiment_id = e.experiment_id AND u.unit = coalesce(l.unit, e.user_id)";

/// Tables in the order in which they are filled: later ones read earlier ones.
const TABLES: [Table; 8] = [
    Table {
        name: "unit_sessions",
        keys: &["experiment_id", "unit", "session_key"],
        values: &[],
        additive: false,
        recount: "-- rebuild::unit_sessions
INSERT INTO recount_unit_sessions
SELECT DISTINCT experiment_id, unit, hashtextextended(session_id, 0)
FROM (SELECT experiment_id, unit, session_id FROM recount_units
      UNION ALL SELECT experiment_id, unit, session_id FROM recount_events) seen
WHERE session_id IS NOT NULL",
    },
    Table {
        name: "unit_totals",
        keys: &["experiment_id", "unit"],
        values: &[
            "variant_id", "epoch", "source", "excluded", "impressions", "clicks", "add_to_carts", "purchases",
            "purchase_value", "engagement", "requests", "errors", "sessions",
        ],
        additive: false,
        recount: "-- rebuild::unit_totals
INSERT INTO recount_unit_totals
SELECT u.experiment_id, u.unit, u.variant_id, u.epoch, u.source, u.excluded,
       coalesce(e.impressions, 0), coalesce(e.clicks, 0), coalesce(e.add_to_carts, 0), coalesce(e.purchases, 0),
       coalesce(e.purchase_value, 0), coalesce(e.engagement, 0), coalesce(e.requests, 0), coalesce(e.errors, 0),
       coalesce(s.sessions, 0)
FROM recount_units u
LEFT JOIN (
    SELECT experiment_id, unit,
           count(*) FILTER (WHERE event_type = 'impression') AS impressions,
           count(*) FILTER (WHERE event_type = 'click') AS clicks,
           count(*) FILTER (WHERE event_type = 'add_to_cart') AS add_to_carts,
           count(*) FILTER (WHERE event_type = 'purchase') AS purchases,
           sum(value) FILTER (WHERE event_type = 'purchase') AS purchase_value,
           sum(value) FILTER (WHERE event_type = 'engagement') AS engagement,
           count(*) FILTER (WHERE event_type = 'request') AS requests,
           count(*) FILTER (WHERE event_type = 'request' AND is_error) AS errors
    FROM recount_events GROUP BY 1, 2) e USING (experiment_id, unit)
LEFT JOIN (SELECT experiment_id, unit, count(*) AS sessions FROM recount_unit_sessions GROUP BY 1, 2) s
    USING (experiment_id, unit)",
    },
    Table {
        name: "unit_days",
        keys: &["experiment_id", "day", "unit"],
        values: &["impressions", "clicks", "add_to_carts", "purchases", "purchase_value", "engagement", "requests", "errors"],
        additive: true,
        recount: "-- rebuild::unit_days
INSERT INTO recount_unit_days
SELECT experiment_id, (occurred_at AT TIME ZONE 'UTC')::date, unit,
       count(*) FILTER (WHERE event_type = 'impression'), count(*) FILTER (WHERE event_type = 'click'),
       count(*) FILTER (WHERE event_type = 'add_to_cart'), count(*) FILTER (WHERE event_type = 'purchase'),
       coalesce(sum(value) FILTER (WHERE event_type = 'purchase'), 0),
       coalesce(sum(value) FILTER (WHERE event_type = 'engagement'), 0),
       count(*) FILTER (WHERE event_type = 'request'),
       count(*) FILTER (WHERE event_type = 'request' AND is_error)
FROM recount_events WHERE NOT excluded GROUP BY 1, 2, 3",
    },
    Table {
        name: "variant_moments",
        keys: &["experiment_id", "variant_id", "epoch"],
        values: &[
            "units", "client_units", "clicking_units", "add_to_cart_units", "purchasing_units", "valued_units",
            "engaged_units", "erring_units", "sum_impressions", "sum_clicks", "sum_add_to_carts", "sum_purchases",
            "sum_purchase_value", "sum_engagement", "sum_requests", "sum_errors", "sum_sessions", "sq_impressions",
            "sq_clicks", "sq_add_to_carts", "sq_purchases", "sq_purchase_value", "sq_engagement", "sq_requests",
            "sq_errors", "sq_sessions", "x_clicks_impressions", "x_add_to_carts_impressions",
            "x_purchases_impressions", "x_purchases_add_to_carts", "x_purchase_value_sessions",
            "x_purchase_value_purchases", "x_errors_requests",
        ],
        additive: true,
        recount: "-- rebuild::variant_moments
INSERT INTO recount_variant_moments
SELECT experiment_id, variant_id, epoch, count(*), count(*) FILTER (WHERE source = 1),
       count(*) FILTER (WHERE clicks > 0), count(*) FILTER (WHERE add_to_carts > 0),
       count(*) FILTER (WHERE purchases > 0), count(*) FILTER (WHERE purchase_value > 0),
       count(*) FILTER (WHERE engagement > 0), count(*) FILTER (WHERE errors > 0),
       sum(impressions), sum(clicks), sum(add_to_carts), sum(purchases), sum(purchase_value), sum(engagement),
       sum(requests), sum(errors), sum(sessions),
       sum(impressions::numeric * impressions), sum(clicks::numeric * clicks), sum(add_to_carts::numeric * add_to_carts),
       sum(purchases::numeric * purchases), sum(purchase_value * purchase_value), sum(engagement * engagement),
       sum(requests::numeric * requests), sum(errors::numeric * errors), sum(sessions::numeric * sessions),
       sum(clicks::numeric * impressions), sum(add_to_carts::numeric * impressions),
       sum(purchases::numeric * impressions), sum(purchases::numeric * add_to_carts),
       sum(purchase_value * sessions), sum(purchase_value * purchases), sum(errors::numeric * requests)
FROM recount_unit_totals WHERE NOT excluded GROUP BY 1, 2, 3",
    },
    Table {
        name: "variant_hours",
        keys: &["experiment_id", "hour", "variant_id"],
        values: &["impressions", "clicks", "add_to_carts", "purchases", "purchase_value", "engagement", "requests", "errors"],
        additive: true,
        recount: "-- rebuild::variant_hours
INSERT INTO recount_variant_hours
SELECT experiment_id, date_trunc('hour', occurred_at), variant_id,
       count(*) FILTER (WHERE event_type = 'impression'), count(*) FILTER (WHERE event_type = 'click'),
       count(*) FILTER (WHERE event_type = 'add_to_cart'), count(*) FILTER (WHERE event_type = 'purchase'),
       coalesce(sum(value) FILTER (WHERE event_type = 'purchase'), 0),
       coalesce(sum(value) FILTER (WHERE event_type = 'engagement'), 0),
       count(*) FILTER (WHERE event_type = 'request'),
       count(*) FILTER (WHERE event_type = 'request' AND is_error)
FROM recount_events WHERE NOT excluded GROUP BY 1, 2, 3",
    },
    Table {
        name: "variant_dimensions",
        keys: &["experiment_id", "dimension", "key", "variant_id"],
        values: &["impressions", "clicks", "add_to_carts", "purchases", "purchase_value"],
        additive: true,
        recount: "-- rebuild::variant_dimensions
INSERT INTO recount_variant_dimensions
SELECT experiment_id, dimension, key, variant_id,
       count(*) FILTER (WHERE event_type = 'impression'), count(*) FILTER (WHERE event_type = 'click'),
       count(*) FILTER (WHERE event_type = 'add_to_cart'), count(*) FILTER (WHERE event_type = 'purchase'),
       coalesce(sum(value) FILTER (WHERE event_type = 'purchase'), 0)
FROM (SELECT *, 'item' AS dimension, item_id AS key FROM recount_events
      UNION ALL SELECT *, 'brand', brand_id FROM recount_events
      UNION ALL SELECT *, 'position', position::text FROM recount_events) seen
WHERE NOT excluded AND key IS NOT NULL AND of_funnel GROUP BY 1, 2, 3, 4",
    },
    Table {
        name: "position_performance",
        keys: &["experiment_id", "position", "date"],
        values: &["impressions", "clicks", "conversions", "total_value"],
        additive: true,
        recount: "-- rebuild::position_performance
INSERT INTO recount_position_performance
SELECT experiment_id, position, (occurred_at AT TIME ZONE 'UTC')::date,
       count(*) FILTER (WHERE event_type = 'impression'), count(*) FILTER (WHERE event_type = 'click'),
       count(*) FILTER (WHERE event_type = 'purchase'),
       coalesce(sum(value) FILTER (WHERE event_type = 'purchase'), 0)
FROM recount_events WHERE NOT excluded AND position IS NOT NULL GROUP BY 1, 2, 3",
    },
    Table {
        name: "experiment_counters",
        keys: &["experiment_id"],
        values: &["bot_events", "bot_units", "uncounted_events"],
        additive: true,
        recount: "-- rebuild::experiment_counters
INSERT INTO recount_experiment_counters
SELECT experiment_id, sum(bot_events), sum(bot_units), sum(uncounted_events)
FROM (SELECT e.experiment_id, count(*) FILTER (WHERE e.is_bot) AS bot_events, 0 AS bot_units,
             count(*) FILTER (WHERE NOT e.is_bot) AS uncounted_events
      FROM recount_scope b
      JOIN experiment_events e ON NOT e.counted AND (e.tx_id < b.watermark OR e.tx_id >= b.foreign_from)
      WHERE e.experiment_id NOT IN (SELECT experiment_id FROM recount_left_out) GROUP BY 1
      UNION ALL
      SELECT experiment_id, 0, count(*), 0 FROM recount_units WHERE is_bot GROUP BY 1) parts
GROUP BY 1",
    },
];

/// Rows with ids of another server get one that lies below every watermark, or folding would take them a second
/// time when this server's own ids arrive there.
const RESTAMP: [&str; 4] = [
    "-- rebuild::restamp_assignments
UPDATE user_experiment_assignments SET tx_id = 0 WHERE tx_id >= $1",
    "-- rebuild::restamp_events
UPDATE experiment_events SET tx_id = 0 WHERE tx_id >= $1",
    "-- rebuild::restamp_aliases
UPDATE unit_aliases SET tx_id = 0 WHERE tx_id >= $1",
    "-- rebuild::restamp_exclusions
UPDATE excluded_units SET tx_id = 0 WHERE tx_id >= $1",
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
    client.execute("-- rebuild::unlock\nSELECT pg_advisory_unlock($1)", &[&fold::LOCK_KEY]).await?;
    Ok(report)
}

/// Takes the lock of folding before the transaction begins, so that its snapshot sees what the last pass committed.
async fn lock(client: &Client) -> Result<(), StorageError> {
    const TRY: &str = "-- rebuild::lock\nSELECT pg_try_advisory_lock($1)";
    let mut waited = Duration::ZERO;
    // Asked again and again rather than waited for inside the server, where it would hold a snapshot.
    while !client.query_one(TRY, &[&fold::LOCK_KEY]).await?.get::<_, bool>(0) {
        if waited >= LOCK_WAIT {
            return Err(StorageError::Analytics("another process holds the lock of folding for over a minute".into()));
        }
        let pause = Duration::from_millis(50);
        tokio::time::sleep(pause).await;
        waited += pause;
    }
    Ok(())
}

async fn recount(client: &mut Client, apply: bool) -> Result<Report, StorageError> {
    let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().await?;
    let state = transaction.query_one(STATE, &[]).await?;
    let stored: i64 = column(&state, "fold_state", "watermark")?;
    let xmin: i64 = column(&state, "fold_state", "xmin")?;
    let xmax: i64 = column(&state, "fold_state", "xmax")?;
    let foreign: bool = column(&transaction.query_one(FOREIGN, &[&xmax]).await?, "experiment_events", "foreign")?;
    let watermark = if stored > xmax { xmin } else { stored };
    if stored <= xmax {
        // Aliases that are visible, but not folded yet, already decide on names in the recount.
        fold::follow_identities(&transaction, stored, stored).await?;
    }
    fill(&transaction, watermark, xmax).await?;
    let tables = compare(&transaction).await?;
    let left_out = left_out(&transaction).await?;
    transaction.batch_execute("DROP VIEW recount_events").await?;
    if apply {
        correct(&transaction).await?;
        settle_ids(&transaction, watermark, xmax).await?;
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(Report { watermark, restored: foreign || stored > xmax, applied: apply, tables, left_out })
}

/// Counts everything into temporary tables.
async fn fill(transaction: &Transaction<'_>, watermark: i64, foreign_from: i64) -> Result<(), StorageError> {
    transaction.batch_execute(SCOPE).await?;
    transaction.execute(FILL_SCOPE, &[&watermark, &foreign_from]).await?;
    for statement in [LEFT_OUT, UNITS, "ANALYZE recount_units", EVENTS] {
        transaction.batch_execute(statement).await?;
    }
    for table in &TABLES {
        transaction.batch_execute(&table.create()).await?;
        transaction.batch_execute(table.recount).await?;
        transaction.batch_execute(&format!("ANALYZE recount_{}", table.name)).await?;
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

async fn examples(transaction: &Transaction<'_>, table: &Table) -> Result<Vec<Difference>, StorageError> {
    let rows = transaction.query(&table.examples(), &[&EXAMPLES]).await?;
    let read = |row| Ok(Difference { live: column(row, table.name, "live")?, row: column(row, table.name, "row")? });
    rows.iter().map(read).collect()
}

async fn left_out(transaction: &Transaction<'_>) -> Result<Vec<LeftOut>, StorageError> {
    const T: &str = "experiments";
    let rows = transaction.query(NAME_LEFT_OUT, &[]).await?;
    let read = |row| Ok(LeftOut { experiment_id: column(row, T, "experiment_id")?, name: column(row, T, "name")? });
    rows.iter().map(read).collect()
}

/// Makes the live tables equal to the recount.
async fn correct(transaction: &Transaction<'_>) -> Result<(), StorageError> {
    for table in &TABLES {
        transaction.execute(&table.delete(), &[]).await?;
        transaction.execute(&table.insert(), &[]).await?;
    }
    Ok(())
}

/// Makes watermark and rows speak of this server's transactions.
async fn settle_ids(transaction: &Transaction<'_>, watermark: i64, foreign_from: i64) -> Result<(), StorageError> {
    let from: &(dyn ToSql + Sync) = &foreign_from;
    for statement in RESTAMP {
        transaction.execute(statement, &[from]).await?;
    }
    transaction.execute(SET_WATERMARK, &[&watermark]).await?;
    Ok(())
}
