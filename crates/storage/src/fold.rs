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
//! **Exclusion.** A unit is left out when it is a bot, or when any name that it has or had was excluded.

use std::fmt::Write as _;
use std::sync::LazyLock;

use tokio_postgres::{IsolationLevel, Transaction};

use crate::rows::column;
use crate::{Database, StorageError};

/// Rows of events that one pass takes at most (a larger single transaction is still taken whole).
const PASS_ROWS: i64 = 50_000;

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

/// Totals of a unit, in the order of the columns.
pub(crate) const TOTALS: [&str; 9] = [
    "impressions", "clicks", "add_to_carts", "purchases", "purchase_value", "engagement", "requests", "errors", "sessions",
];

/// Products that ratio metrics need.
pub(crate) const PRODUCTS: [(&str, &str); 7] = [
    ("clicks", "impressions"),
    ("add_to_carts", "impressions"),
    ("purchases", "impressions"),
    ("purchases", "add_to_carts"),
    ("purchase_value", "sessions"),
    ("purchase_value", "purchases"),
    ("errors", "requests"),
];

/// Units with anything in a total, for proportions.
pub(crate) const ACTIVE: [(&str, &str); 6] = [
    ("clicking_units", "clicks"),
    ("add_to_cart_units", "add_to_carts"),
    ("purchasing_units", "purchases"),
    ("valued_units", "purchase_value"),
    ("engaged_units", "engagement"),
    ("erring_units", "errors"),
];

/// Columns of the rollups by event: name and the expression that sums it.
const EVENT_SUMS: [(&str, &str); 8] = [
    ("impressions", "count(*) FILTER (WHERE s.event_type = 'impression')"),
    ("clicks", "count(*) FILTER (WHERE s.event_type = 'click')"),
    ("add_to_carts", "count(*) FILTER (WHERE s.event_type = 'add_to_cart')"),
    ("purchases", "count(*) FILTER (WHERE s.event_type = 'purchase')"),
    ("purchase_value", "coalesce(sum(s.value) FILTER (WHERE s.event_type = 'purchase'), 0)"),
    ("engagement", "coalesce(sum(s.value) FILTER (WHERE s.event_type = 'engagement'), 0)"),
    ("requests", "count(*) FILTER (WHERE s.event_type = 'request')"),
    ("errors", "count(*) FILTER (WHERE s.event_type = 'request' AND s.is_error)"),
];

/// Every column of `variant_moments` behind `units` and `client_units`, with the expression that yields one unit's
/// contribution from its total, where `value(total)` is the SQL of that total.
pub(crate) fn moment_columns(value: impl Fn(&str) -> String) -> Vec<(String, String)> {
    let mut columns = Vec::new();
    for (name, total) in ACTIVE {
        columns.push((name.to_owned(), format!("({} > 0)::integer", value(total))));
    }
    for total in TOTALS {
        columns.push((format!("sum_{total}"), value(total)));
    }
    for total in TOTALS {
        columns.push((format!("sq_{total}"), format!("{0}::numeric * {0}", value(total))));
    }
    for (x, y) in PRODUCTS {
        columns.push((format!("x_{x}_{y}"), format!("{}::numeric * {}", value(x), value(y))));
    }
    columns
}

/// `INSERT … ON CONFLICT … DO UPDATE SET c = t.c + EXCLUDED.c` for the given columns.
fn add_into(table: &str, keys: &str, columns: &[String], select: &str) -> String {
    let names = columns.join(", ");
    let mut sets = String::new();
    for name in columns {
        let _ = write!(sets, "{}{name} = {table}.{name} + EXCLUDED.{name}", if sets.is_empty() { "" } else { ", " });
    }
    format!("INSERT INTO {table} ({keys}, {names}) {select} ON CONFLICT ({keys}) DO UPDATE SET {sets}")
}

fn names(columns: &[(&str, &str)]) -> Vec<String> {
    columns.iter().map(|(name, _)| (*name).to_owned()).collect()
}

fn sums(columns: &[(&str, &str)], sign: &str) -> String {
    columns.iter().map(|(_, sql)| format!("{sign}{sql}")).collect::<Vec<_>>().join(", ")
}

/// The rollups that are sums over events, from `good` (counting events with `variant_id` and `excluded` of their unit),
/// with a sign.
pub(crate) fn event_rollups(sign: &str) -> String {
    let all = &EVENT_SUMS;
    let five = EVENT_SUMS.get(..5).unwrap_or_default();
    let included = "FROM good s WHERE NOT s.excluded";
    let hours = add_into(
        "variant_hours",
        "experiment_id, variant_id, hour",
        &names(all),
        &format!("SELECT s.experiment_id, s.variant_id, date_trunc('hour', s.occurred_at), {} {included} GROUP BY 1, 2, 3", sums(all, sign)),
    )
    .replace("ON CONFLICT (experiment_id, variant_id, hour)", "ON CONFLICT (experiment_id, hour, variant_id)");
    let dimensions = add_into(
        "variant_dimensions",
        "experiment_id, variant_id, dimension, key",
        &names(five),
        &format!(
            "SELECT s.experiment_id, s.variant_id, d.dimension, d.key, {} \
             FROM good s CROSS JOIN LATERAL (VALUES ('item', s.item_id), ('brand', s.brand_id), ('position', s.position::text)) AS d (dimension, key) \
             WHERE NOT s.excluded AND d.key IS NOT NULL AND s.event_type IN ('impression', 'click', 'add_to_cart', 'purchase') \
             GROUP BY 1, 2, 3, 4",
            sums(five, sign)
        ),
    );
    let positions = format!(
        "INSERT INTO position_performance (experiment_id, position, date, impressions, clicks, conversions, total_value)
         SELECT s.experiment_id, s.position, (s.occurred_at AT TIME ZONE 'UTC')::date,
                {sign}count(*) FILTER (WHERE s.event_type = 'impression'), {sign}count(*) FILTER (WHERE s.event_type = 'click'),
                {sign}count(*) FILTER (WHERE s.event_type = 'purchase'),
                {sign}coalesce(sum(s.value) FILTER (WHERE s.event_type = 'purchase'), 0)
         {included} AND s.position IS NOT NULL AND s.event_type IN ('impression', 'click', 'add_to_cart', 'purchase')
         GROUP BY 1, 2, 3
         ON CONFLICT (experiment_id, position, date) DO UPDATE SET
             impressions = position_performance.impressions + EXCLUDED.impressions,
             clicks = position_performance.clicks + EXCLUDED.clicks,
             conversions = position_performance.conversions + EXCLUDED.conversions,
             total_value = position_performance.total_value + EXCLUDED.total_value,
             updated_at = now()"
    );
    format!("hours AS ({hours}),\ndimensions AS ({dimensions}),\npositions AS ({positions})")
}

/// Counting events with the unit that their `user_id` stands for. Units are looked up event by event, and everything
/// behind reads this alone: a join between two intermediate results has no statistics, and the planner may well run it
/// as a nested loop over both.
const GOOD: &str = "good AS MATERIALIZED (
    SELECT s.*, coalesce(o.unit, u.unit) AS unit, coalesce(o.variant_id, u.variant_id) AS variant_id,
           coalesce(o.excluded, u.excluded, true) AS excluded
    FROM src s
    LEFT JOIN unit_totals o ON o.experiment_id = s.experiment_id AND o.unit = s.user_id
    LEFT JOIN unit_aliases a ON o.unit IS NULL AND a.alias_unit = s.user_id AND a.experiment_id = s.experiment_id
    LEFT JOIN unit_totals u ON u.experiment_id = a.experiment_id AND u.unit = a.unit
    WHERE s.counted)";

/// What each unit gained: its events, and the sessions that are new for it.
fn delta() -> String {
    let of_events = EVENT_SUMS.iter().map(|(name, sql)| format!("{sql} AS {name}")).collect::<Vec<_>>().join(", ");
    let none = EVENT_SUMS.map(|_| "0").join(", ");
    let sums = TOTALS.map(|total| match total {
        "purchase_value" | "engagement" => format!("sum({total}) AS {total}"),
        count => format!("sum({count})::bigint AS {count}"),
    });
    format!(
        "delta AS (
    SELECT experiment_id, unit, {}
    FROM (SELECT s.experiment_id, s.unit, {of_events}, 0 AS sessions FROM good s WHERE s.unit IS NOT NULL GROUP BY 1, 2
          UNION ALL
          SELECT experiment_id, unit, {none}, count(*) FROM fresh_sessions GROUP BY 1, 2) parts
    GROUP BY 1, 2)",
        sums.join(", ")
    )
}

static EVENTS: LazyLock<String> = LazyLock::new(|| {
    let set = TOTALS.iter().map(|t| format!("{t} = t.{t} + d.{t}")).collect::<Vec<_>>().join(", ");
    let returned = TOTALS.iter().map(|t| format!("t.{t} AS new_{t}, d.{t} AS d_{t}")).collect::<Vec<_>>().join(", ");
    let new = moment_columns(|t| format!("new_{t}"));
    let old = moment_columns(|t| format!("(new_{t} - d_{t})"));
    let differences =
        new.iter().zip(&old).map(|((_, n), (_, o))| format!("sum(({n}) - ({o}))")).collect::<Vec<_>>().join(", ");
    let columns: Vec<String> = new.into_iter().map(|(name, _)| name).collect();
    let moments = add_into(
        "variant_moments",
        "experiment_id, variant_id, epoch",
        &columns,
        &format!("SELECT experiment_id, variant_id, epoch, {differences} FROM changed WHERE NOT excluded GROUP BY 1, 2, 3"),
    );
    let days = add_into(
        "unit_days",
        "experiment_id, day, unit",
        &names(&EVENT_SUMS),
        &format!(
            "SELECT s.experiment_id, (s.occurred_at AT TIME ZONE 'UTC')::date, s.unit, {} \
             FROM good s WHERE NOT s.excluded GROUP BY 1, 2, 3",
            sums(&EVENT_SUMS, "")
        ),
    );
    format!(
        "-- fold::events
WITH src AS MATERIALIZED (
    SELECT experiment_id, user_id, event_type, item_id, brand_id, position, value, session_id, occurred_at, is_error, counted, is_bot
    FROM experiment_events WHERE tx_id >= $1 AND tx_id < $2),
{GOOD},
fresh_sessions AS (
    INSERT INTO unit_sessions (experiment_id, unit, session_key)
    SELECT DISTINCT s.experiment_id, s.unit, hashtextextended(s.session_id, 0)
    FROM good s WHERE s.session_id IS NOT NULL AND s.unit IS NOT NULL
    ON CONFLICT DO NOTHING RETURNING experiment_id, unit),
{delta},
changed AS (
    UPDATE unit_totals t SET {set} FROM delta d
    WHERE t.experiment_id = d.experiment_id AND t.unit = d.unit
    RETURNING t.experiment_id, t.variant_id, t.epoch, t.excluded, {returned}),
moments AS ({moments}),
days AS ({days}),
{rollups},
counters AS (
    INSERT INTO experiment_counters (experiment_id, bot_events, uncounted_events)
    SELECT experiment_id, count(*) FILTER (WHERE is_bot), count(*) FILTER (WHERE NOT counted AND NOT is_bot)
    FROM src WHERE NOT counted GROUP BY 1
    ON CONFLICT (experiment_id) DO UPDATE SET
        bot_events = experiment_counters.bot_events + EXCLUDED.bot_events,
        uncounted_events = experiment_counters.uncounted_events + EXCLUDED.uncounted_events)
SELECT (SELECT count(*) FROM src) AS events, (SELECT count(*) FROM good WHERE unit IS NULL) AS strangers",
        delta = delta(),
        rollups = event_rollups("")
    )
});

const ASSIGNMENTS: &str = "-- fold::assignments
WITH new AS (
    INSERT INTO unit_totals (experiment_id, unit, variant_id, epoch, source, excluded, sessions)
    SELECT a.experiment_id, a.user_id, a.variant_id, a.epoch, a.source,
           a.is_bot
           OR EXISTS (SELECT 1 FROM excluded_units x
                      WHERE x.experiment_id = a.experiment_id AND x.unit = a.user_id AND x.tx_id < $2),
           (a.session_id IS NOT NULL)::integer
    FROM user_experiment_assignments a
    WHERE a.tx_id >= $1 AND a.tx_id < $2
      AND NOT EXISTS (SELECT 1 FROM unit_aliases l
                      WHERE l.alias_unit = a.user_id AND l.experiment_id = a.experiment_id)
    ON CONFLICT (experiment_id, unit) DO NOTHING
    RETURNING *),
sessions AS (
    INSERT INTO unit_sessions (experiment_id, unit, session_key)
    SELECT a.experiment_id, a.user_id, hashtextextended(a.session_id, 0)
    FROM user_experiment_assignments a JOIN new n ON n.experiment_id = a.experiment_id AND n.unit = a.user_id
    WHERE a.session_id IS NOT NULL
    ON CONFLICT DO NOTHING),
bots AS (
    INSERT INTO experiment_counters (experiment_id, bot_units)
    SELECT a.experiment_id, count(*) FROM user_experiment_assignments a
    JOIN new n ON n.experiment_id = a.experiment_id AND n.unit = a.user_id
    WHERE a.is_bot GROUP BY 1
    ON CONFLICT (experiment_id) DO UPDATE SET bot_units = experiment_counters.bot_units + EXCLUDED.bot_units)
INSERT INTO variant_moments (experiment_id, variant_id, epoch, units, client_units, sum_sessions, sq_sessions)
SELECT experiment_id, variant_id, epoch, count(*), count(*) FILTER (WHERE source = 1), sum(sessions), sum(sessions)
FROM new WHERE NOT excluded GROUP BY 1, 2, 3
ON CONFLICT (experiment_id, variant_id, epoch) DO UPDATE SET
    units = variant_moments.units + EXCLUDED.units,
    client_units = variant_moments.client_units + EXCLUDED.client_units,
    sum_sessions = variant_moments.sum_sessions + EXCLUDED.sum_sessions,
    sq_sessions = variant_moments.sq_sessions + EXCLUDED.sq_sessions";

/// A session that logged in: its totals get the user's name. Days are named one by one, because they are found by
/// their key only.
const ALIASES: [&str; 3] = [
    "-- fold::alias_totals
UPDATE unit_totals t SET unit = a.unit FROM unit_aliases a
WHERE a.tx_id >= $1 AND t.experiment_id = a.experiment_id AND t.unit = a.alias_unit
  AND NOT EXISTS (SELECT 1 FROM unit_totals o WHERE o.experiment_id = a.experiment_id AND o.unit = a.unit)",
    "-- fold::alias_days
UPDATE unit_days d SET unit = a.unit FROM unit_aliases a
JOIN user_experiment_assignments u ON u.user_id = a.unit AND u.experiment_id = a.experiment_id
CROSS JOIN LATERAL generate_series((u.assigned_at - interval '31 days')::date, (now() + interval '1 day')::date, '1 day') AS g (day)
WHERE a.tx_id >= $1 AND d.experiment_id = a.experiment_id AND d.day = g.day::date AND d.unit = a.alias_unit
  AND NOT EXISTS (SELECT 1 FROM unit_totals o WHERE o.experiment_id = a.experiment_id AND o.unit = a.alias_unit)",
    "-- fold::alias_sessions
UPDATE unit_sessions s SET unit = a.unit FROM unit_aliases a
WHERE a.tx_id >= $1 AND s.experiment_id = a.experiment_id AND s.unit = a.alias_unit
  AND NOT EXISTS (SELECT 1 FROM unit_totals o WHERE o.experiment_id = a.experiment_id AND o.unit = a.alias_unit)",
];

/// Units that have to go: their name, or a name that they had before they logged in, was excluded in `[$1, $2)`, or
/// was excluded earlier and became theirs since.
const NAMED: &str = "named AS (
    SELECT x.experiment_id, x.unit FROM excluded_units x WHERE x.tx_id >= $1 AND x.tx_id < $2
    UNION
    SELECT x.experiment_id, a.unit FROM excluded_units x
    JOIN unit_aliases a ON a.alias_unit = x.unit AND a.experiment_id = x.experiment_id
    WHERE x.tx_id >= $1 AND x.tx_id < $2
    UNION
    SELECT a.experiment_id, a.unit FROM unit_aliases a
    JOIN excluded_units x ON x.experiment_id = a.experiment_id AND x.unit IN (a.alias_unit, a.unit)
    WHERE a.tx_id >= $1 AND x.tx_id < $2)";

static PENDING_EXCLUSIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- fold::pending_exclusions
WITH {NAMED}
SELECT EXISTS (SELECT 1 FROM named n JOIN unit_totals t ON t.experiment_id = n.experiment_id AND t.unit = n.unit
    WHERE NOT t.excluded) AS pending"
    )
});

/// Takes units out of the analysis after the fact: their contributions are subtracted again. Reads raw events, which
/// is slow and rare: somebody pinned a unit that had already taken part.
static EXCLUSIONS: LazyLock<String> = LazyLock::new(|| {
    let columns = moment_columns(|t| format!("g.{t}"));
    let minus = columns.iter().map(|(_, sql)| format!("-sum({sql})")).collect::<Vec<_>>().join(", ");
    let mut names: Vec<String> = vec!["units".into(), "client_units".into()];
    names.extend(columns.into_iter().map(|(name, _)| name));
    let moments = add_into(
        "variant_moments",
        "experiment_id, variant_id, epoch",
        &names,
        &format!(
            "SELECT g.experiment_id, g.variant_id, g.epoch, -count(*), -count(*) FILTER (WHERE g.source = 1), {minus} \
             FROM gone g GROUP BY 1, 2, 3"
        ),
    );
    format!(
        "-- fold::exclusions
WITH {NAMED},
gone AS (
    UPDATE unit_totals t SET excluded = true FROM named n
    WHERE t.experiment_id = n.experiment_id AND t.unit = n.unit AND NOT t.excluded
    RETURNING t.*),
moments AS ({moments}),
who AS MATERIALIZED (
    SELECT g.experiment_id, g.unit AS user_id, g.variant_id FROM gone g
    UNION ALL
    SELECT g.experiment_id, a.alias_unit, g.variant_id FROM gone g
    JOIN unit_aliases a ON a.unit = g.unit AND a.experiment_id = g.experiment_id),
good AS MATERIALIZED (
    SELECT e.experiment_id, e.event_type, e.item_id, e.brand_id, e.position, e.value, e.occurred_at, e.is_error,
           w.variant_id, false AS excluded
    FROM experiment_events e JOIN who w USING (experiment_id, user_id) WHERE e.counted AND e.tx_id < $1),
days AS (DELETE FROM unit_days d USING gone g WHERE d.experiment_id = g.experiment_id AND d.unit = g.unit),
{rollups}
SELECT count(*) AS gone FROM gone",
        rollups = event_rollups("-")
    )
});

const STATE: &str = "-- fold::state
SELECT watermark, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax
FROM fold_state FOR UPDATE";

const STEP_END: &str = "-- fold::step_end
SELECT tx_id FROM experiment_events WHERE tx_id >= $1 AND tx_id < $2 ORDER BY tx_id OFFSET $3 LIMIT 1";

const SNAPSHOT: &str = "-- fold::snapshot
WITH due AS (
    UPDATE fold_state SET snapshot_day = (now() AT TIME ZONE 'UTC')::date - 1
    WHERE snapshot_day IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date - 1
    RETURNING snapshot_day)
INSERT INTO variant_day_snapshots SELECT due.snapshot_day, m.* FROM variant_moments m CROSS JOIN due
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
    let mut link = database.work().await?;
    let limit = crate::connect::Purpose::Work.client_limit();
    let client = link.client()?;
    let pass = async {
        // One snapshot for the whole pass: what decides on a unit's name in one statement must not change before
        // the next.
        let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().await?;
        let folded = pass(&transaction, rows).await?;
        transaction.commit().await?;
        Ok(folded)
    };
    match tokio::time::timeout(limit, pass).await.map_err(|_| StorageError::TimedOut)? {
        // Another replica committed a pass between our snapshot and our lock.
        Err(error) if StorageError::is_contention(&error) => Ok(Folded { busy: true, ..Folded::default() }),
        outcome => outcome,
    }
}

/// Key of the advisory lock that lets one replica fold.
pub(crate) const LOCK_KEY: i64 = 0x706f_6469_756d_0002;

async fn pass(transaction: &Transaction<'_>, rows: i64) -> Result<Folded, StorageError> {
    let lock = transaction.query_one("SELECT pg_try_advisory_xact_lock($1)", &[&LOCK_KEY]).await?;
    if !lock.get::<_, bool>(0) {
        return Ok(Folded { busy: true, ..Folded::default() });
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
    let end = transaction.query_opt(STEP_END, &[&from, &xmin, &rows]).await?;
    let to = match end {
        // At least one whole transaction, or the pass would stand still.
        Some(row) => row.get::<_, i64>(0).max(from + 1),
        None => xmin,
    };
    let folded = fold_range(transaction, from, to).await?;
    let caught_up = to >= xmin;
    transaction.execute(ADVANCE, &[&to.max(from), &caught_up]).await?;
    Ok(Folded { events: folded, caught_up, busy: false })
}

async fn fold_range(transaction: &Transaction<'_>, from: i64, to: i64) -> Result<i64, StorageError> {
    if to <= from {
        return Ok(0);
    }
    transaction.execute(ASSIGNMENTS, &[&from, &to]).await?;
    follow_identities(transaction, from, to).await?;
    let row = transaction.query_one(EVENTS.as_str(), &[&from, &to]).await?;
    let strangers: i64 = column(&row, "experiment_events", "strangers")?;
    if strangers > 0 {
        tracing::error!(strangers, "events of units without an assignment were left out of the totals");
    }
    column(&row, "experiment_events", "events")
}

/// Names and exclusions that came after a unit's totals were made: renames units whose alias is visible and not yet
/// folded (`tx_id >= from`), and takes out units that were excluded in `[from, to)`.
pub(crate) async fn follow_identities(transaction: &Transaction<'_>, from: i64, to: i64) -> Result<(), StorageError> {
    for statement in ALIASES {
        transaction.execute(statement, &[&from]).await?;
    }
    let pending = transaction.query_one(PENDING_EXCLUSIONS.as_str(), &[&from, &to]).await?;
    if column::<bool>(&pending, "excluded_units", "pending")? {
        transaction.execute(EXCLUSIONS.as_str(), &[&from, &to]).await?;
    }
    Ok(())
}

const LAG: &str = "-- fold::lag
SELECT extract(epoch FROM now() - folded_at)::double precision AS seconds FROM fold_state";

/// Seconds since folding last caught up, by the clock of the database.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn lag_seconds(database: &Database) -> Result<f64, StorageError> {
    let row = database.work().await?.query_opt(LAG, &[]).await?;
    row.map_or(Ok(0.0), |row| column(&row, "fold_state", "seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_total_has_its_sum_and_square() {
        let columns = moment_columns(str::to_owned);
        assert_eq!(columns.len(), ACTIVE.len() + 2 * TOTALS.len() + PRODUCTS.len());
    }
}
