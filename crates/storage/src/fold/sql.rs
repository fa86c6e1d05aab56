//! The statements that fold assignments, names, exclusions and events.

use std::fmt::Write as _;
use std::sync::LazyLock;

/// Totals of a unit, in the order of the columns.
pub(crate) const TOTALS: [&str; 9] = [
    "impressions",
    "clicks",
    "add_to_carts",
    "purchases",
    "purchase_value",
    "engagement",
    "requests",
    "errors",
    "sessions",
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
const ACTIVE: [(&str, &str); 6] = [
    ("clicking_units", "clicks"),
    ("add_to_cart_units", "add_to_carts"),
    ("purchasing_units", "purchases"),
    ("valued_units", "purchase_value"),
    ("engaged_units", "engagement"),
    ("erring_units", "errors"),
];

/// Those of [`ACTIVE`] that are counted among units that a bandit drew: what can be the outcome of a unit.
const DRAWN_ACTIVE: usize = 3;

/// What the statements below read of an event. Kinds are told apart once, and what never is null and has one width comes
/// first: rows are read many times, and PostgreSQL finds such columns without walking along the others.
const EVENT_COLUMNS: &str =
    "e.experiment_id, date_trunc('hour', e.occurred_at) AS hour, (e.occurred_at AT TIME ZONE 'UTC')::date AS day,
           e.event_type = 'impression' AS is_impression, e.event_type = 'click' AS is_click,
           e.event_type = 'add_to_cart' AS is_add_to_cart, e.event_type = 'purchase' AS is_purchase,
           e.event_type = 'engagement' AS is_engagement, e.event_type = 'request' AS is_request,
           e.position, e.item_id, e.brand_id, e.value, e.latency_ms, e.is_error";

/// Events that belong to items, brands and positions.
const PLACED: &str = "(s.is_impression OR s.is_click OR s.is_add_to_cart OR s.is_purchase)";

/// Columns of the rollups by event: name and the expression that sums it.
const EVENT_SUMS: [(&str, &str); 8] = [
    ("impressions", "count(*) FILTER (WHERE s.is_impression)"),
    ("clicks", "count(*) FILTER (WHERE s.is_click)"),
    ("add_to_carts", "count(*) FILTER (WHERE s.is_add_to_cart)"),
    ("purchases", "count(*) FILTER (WHERE s.is_purchase)"),
    (
        "purchase_value",
        "coalesce(sum(s.value) FILTER (WHERE s.is_purchase), 0)",
    ),
    (
        "engagement",
        "coalesce(sum(s.value) FILTER (WHERE s.is_engagement), 0)",
    ),
    ("requests", "count(*) FILTER (WHERE s.is_request)"),
    (
        "errors",
        "count(*) FILTER (WHERE s.is_request AND s.is_error)",
    ),
];

/// A column that sums what units contribute.
struct Column {
    name: String,
    /// One unit's contribution.
    sql: String,
    /// The totals that it is made of.
    totals: Vec<&'static str>,
}

/// Every column of `variant_moments` behind `units` and `client_units`, with the expression that yields one unit's
/// contribution from its total, where `value(total)` is the SQL of that total.
fn moment_columns(value: impl Fn(&str) -> String) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut add = |name: String, sql: String, totals: Vec<&'static str>| {
        columns.push(Column { name, sql, totals });
    };
    for (name, total) in ACTIVE {
        let with = format!("({} > 0)::integer", value(total));
        add(name.to_owned(), with, vec![total]);
    }
    for total in TOTALS {
        add(format!("sum_{total}"), value(total), vec![total]);
    }
    for total in TOTALS {
        let square = format!("{0}::numeric * {0}", value(total));
        add(format!("sq_{total}"), square, vec![total]);
    }
    for (x, y) in PRODUCTS {
        let product = format!("{}::numeric * {}", value(x), value(y));
        add(format!("x_{x}_{y}"), product, vec![x, y]);
    }
    columns
}

/// As [`moment_columns`], for `covariate_moments` behind `units`, `sum_x` and `sq_x`; the covariate is the column
/// `covariate`.
fn covariate_columns(value: impl Fn(&str) -> String) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut add = |x_name: String, name: String, of_unit: String, total: &'static str| {
        for (name, sql) in [(x_name, format!("covariate * {of_unit}")), (name, of_unit)] {
            let totals = vec![total];
            columns.push(Column { name, sql, totals });
        }
    };
    for (name, total) in ACTIVE {
        let with = format!("({} > 0)::integer", value(total));
        add(format!("x_{name}"), name.to_owned(), with, total);
    }
    for total in TOTALS {
        add(
            format!("x_{total}"),
            format!("sum_{total}"),
            value(total),
            total,
        );
    }
    columns
}

/// As [`moment_columns`], for `variant_drawn_units` behind `units`.
fn drawn_columns(value: impl Fn(&str) -> String) -> Vec<Column> {
    let active = ACTIVE.iter().take(DRAWN_ACTIVE);
    active
        .map(|(name, total)| Column {
            name: (*name).to_owned(),
            sql: format!("({} > 0)::integer", value(total)),
            totals: vec![total],
        })
        .collect()
}

/// `INSERT … ON CONFLICT … DO UPDATE SET c = t.c + EXCLUDED.c` for the given columns.
fn add_into(table: &str, keys: &str, columns: &[String], select: &str) -> String {
    let names = columns.join(", ");
    let mut sets = String::new();
    for name in columns {
        let _ = write!(
            sets,
            "{}{name} = {table}.{name} + EXCLUDED.{name}",
            if sets.is_empty() { "" } else { ", " }
        );
    }
    format!(
        "INSERT INTO {table} ({keys}, {names}) {select} ON CONFLICT ({keys}) DO UPDATE SET {sets}"
    )
}

fn names(columns: &[(&str, &str)]) -> Vec<String> {
    columns.iter().map(|(name, _)| (*name).to_owned()).collect()
}

fn sums(columns: &[(&str, &str)], sign: &str) -> String {
    columns
        .iter()
        .map(|(_, sql)| format!("{sign}{sql}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The rollups that are sums over events, from `good` (counting events with `variant_id`, `epoch` and `excluded` of their
/// unit), with a sign. Items, brands and positions are counted in one pass over the events.
fn event_rollups(sign: &str) -> String {
    let all = &EVENT_SUMS;
    let five = EVENT_SUMS.get(..5).unwrap_or_default();
    let included = "FROM good s WHERE NOT s.excluded";
    let hours = add_into(
        "variant_hours",
        "experiment_id, variant_id, hour",
        &names(all),
        &format!(
            "SELECT s.experiment_id, s.variant_id, s.hour, {} {included} GROUP BY 1, 2, 3",
            sums(all, sign)
        ),
    )
    .replace(
        "ON CONFLICT (experiment_id, variant_id, hour)",
        "ON CONFLICT (experiment_id, hour, variant_id)",
    );
    let five_as: Vec<String> = five
        .iter()
        .map(|(name, sql)| format!("{sign}{sql} AS {name}"))
        .collect();
    let placed = format!(
        "SELECT s.experiment_id, s.variant_id, s.item_id, s.brand_id, s.position, s.day,
                grouping(s.item_id) = 0 AS of_item, grouping(s.brand_id) = 0 AS of_brand, grouping(s.position) = 0 AS of_position,
                {}
         {included} AND {PLACED}
         GROUP BY GROUPING SETS ((s.experiment_id, s.variant_id, s.item_id), (s.experiment_id, s.variant_id, s.brand_id),
                                 (s.experiment_id, s.variant_id, s.position, s.day))",
        five_as.join(", ")
    );
    let added: Vec<String> = five
        .iter()
        .map(|(name, _)| format!("sum(p.{name})"))
        .collect();
    let dimensions = add_into(
        "variant_dimensions",
        "experiment_id, variant_id, dimension, key",
        &names(five),
        &format!(
            "SELECT p.experiment_id, p.variant_id, d.dimension, d.key, {}
         FROM placed p CROSS JOIN LATERAL (SELECT
             CASE WHEN p.of_item THEN 'item' WHEN p.of_brand THEN 'brand' ELSE 'position' END AS dimension,
             CASE WHEN p.of_item THEN p.item_id WHEN p.of_brand THEN p.brand_id ELSE p.position::text END AS key) d
         WHERE d.key IS NOT NULL GROUP BY 1, 2, 3, 4",
            added.join(", ")
        ),
    );
    let positions = "INSERT INTO position_performance (experiment_id, position, date, impressions, clicks, conversions, total_value)
         SELECT p.experiment_id, p.position, p.day, sum(p.impressions), sum(p.clicks), sum(p.purchases), sum(p.purchase_value)
         FROM placed p WHERE p.of_position AND p.position IS NOT NULL
         GROUP BY 1, 2, 3
         ON CONFLICT (experiment_id, position, date) DO UPDATE SET
             impressions = position_performance.impressions + EXCLUDED.impressions,
             clicks = position_performance.clicks + EXCLUDED.clicks,
             conversions = position_performance.conversions + EXCLUDED.conversions,
             total_value = position_performance.total_value + EXCLUDED.total_value,
             updated_at = now()";
    let latencies = format!(
        "INSERT INTO variant_latencies (experiment_id, variant_id, epoch, bucket, requests)
         SELECT s.experiment_id, s.variant_id, s.epoch, podium_latency_bucket(s.latency_ms), {sign}count(*)
         {included} AND s.is_request AND s.latency_ms IS NOT NULL GROUP BY 1, 2, 3, 4
         ON CONFLICT (experiment_id, variant_id, epoch, bucket) DO UPDATE SET
             requests = variant_latencies.requests + EXCLUDED.requests"
    );
    format!(
        "hours AS ({hours}),\nplaced AS MATERIALIZED ({placed}),\ndimensions AS ({dimensions}),\npositions AS ({positions}),\nlatencies AS ({latencies})"
    )
}

/// Counting events with the unit that their `user_id` stands for. Units are looked up event by event, and everything
/// behind reads this alone: a join between two intermediate results has no statistics, and the planner may well run it
/// as a nested loop over both.
pub(crate) const GOOD: &str = "good AS MATERIALIZED (
    SELECT coalesce(o.excluded, u.excluded, true) AS excluded, coalesce(o.variant_id, u.variant_id) AS variant_id,
           coalesce(o.epoch, u.epoch) AS epoch, s.*, coalesce(o.unit, u.unit) AS unit
    FROM src s
    LEFT JOIN unit_totals o ON o.experiment_id = s.experiment_id AND o.unit = s.user_id
    LEFT JOIN unit_aliases a ON o.unit IS NULL AND a.alias_unit = s.user_id AND a.experiment_id = s.experiment_id
    LEFT JOIN unit_totals u ON u.experiment_id = a.experiment_id AND u.unit = a.unit
    WHERE s.counted)";

/// What each unit gained on each day, and in all: its events, and the sessions that are new for it. The two are added up and
/// not joined: neither has statistics.
fn delta() -> String {
    let of_events = EVENT_SUMS
        .iter()
        .map(|(name, sql)| format!("{sql} AS {name}"))
        .collect::<Vec<_>>()
        .join(", ");
    let events = names(&EVENT_SUMS).join(", ");
    let none = EVENT_SUMS.map(|_| "0").join(", ");
    let sums = TOTALS.map(|total| match total {
        "purchase_value" | "engagement" => format!("sum({total}) AS {total}"),
        count => format!("sum({count})::bigint AS {count}"),
    });
    format!(
        "gained AS MATERIALIZED (
    SELECT s.experiment_id, s.unit, s.day, bool_or(s.excluded) AS excluded, {of_events}
    FROM good s WHERE s.unit IS NOT NULL GROUP BY 1, 2, 3),
delta AS (
    SELECT experiment_id, unit, {}
    FROM (SELECT experiment_id, unit, {events}, 0 AS sessions FROM gained
          UNION ALL
          SELECT experiment_id, unit, {none}, 1 FROM fresh_sessions) parts
    GROUP BY 1, 2)",
        sums.join(", ")
    )
}

/// Names of the columns that `columns` makes of the totals, and what they gained in the rows of `changed`. Most totals of
/// most units did not change, and exact arithmetic on what did not is the dearest part of a pass.
fn gained(columns: impl Fn(&dyn Fn(&str) -> String) -> Vec<Column>) -> (Vec<String>, String) {
    let (new, old) = (
        columns(&|t| format!("new_{t}")),
        columns(&|t| format!("(new_{t} - d_{t})")),
    );
    let differences = new
        .iter()
        .zip(&old)
        .map(|(new, old)| {
            let changed: Vec<String> = new.totals.iter().map(|t| format!("d_{t} <> 0")).collect();
            format!(
                "coalesce(sum(({}) - ({})) FILTER (WHERE {}), 0)",
                new.sql,
                old.sql,
                changed.join(" OR ")
            )
        })
        .collect::<Vec<_>>()
        .join(", ");
    let names = new.into_iter().map(|column| column.name).collect();
    (names, differences)
}

/// What the units of `changed` that have a covariate add to the sums.
fn covariates_gained() -> String {
    let (columns, differences) = gained(|value| covariate_columns(value));
    add_into(
        "covariate_moments",
        "experiment_id, variant_id, epoch",
        &columns,
        &format!(
            "SELECT experiment_id, variant_id, epoch, {differences} FROM changed \
             WHERE NOT excluded AND covariate IS NOT NULL GROUP BY 1, 2, 3"
        ),
    )
}

pub(super) static EVENTS: LazyLock<String> = LazyLock::new(|| {
    let set = TOTALS
        .iter()
        .map(|t| format!("{t} = t.{t} + d.{t}"))
        .collect::<Vec<_>>()
        .join(", ");
    let returned = TOTALS
        .iter()
        .map(|t| format!("t.{t} AS new_{t}, d.{t} AS d_{t}"))
        .collect::<Vec<_>>()
        .join(", ");
    let (columns, differences) = gained(|value| moment_columns(value));
    let moments = add_into(
        "variant_moments",
        "experiment_id, variant_id, epoch",
        &columns,
        &format!(
            "SELECT experiment_id, variant_id, epoch, {differences} FROM changed WHERE NOT excluded GROUP BY 1, 2, 3"
        ),
    );
    let covariates = covariates_gained();
    let (columns, differences) = gained(|value| drawn_columns(value));
    let drawn = add_into(
        "variant_drawn_units",
        "experiment_id, variant_id, epoch",
        &columns,
        &format!(
            "SELECT experiment_id, variant_id, epoch, {differences} FROM changed WHERE NOT excluded AND drawn GROUP BY 1, 2, 3"
        ),
    );
    let requesting = add_into(
        "variant_requests",
        "experiment_id, variant_id, epoch",
        &["requesting_units".to_owned()],
        "SELECT experiment_id, variant_id, epoch, count(*) FROM changed \
         WHERE NOT excluded AND new_requests > 0 AND new_requests = d_requests GROUP BY 1, 2, 3",
    );
    let days = add_into(
        "unit_days",
        "experiment_id, day, unit",
        &names(&EVENT_SUMS),
        &format!(
            "SELECT g.experiment_id, g.day, g.unit, {} FROM gained g WHERE NOT g.excluded",
            names(&EVENT_SUMS).join(", ")
        ),
    );
    format!(
        "-- fold::events
WITH src AS MATERIALIZED (
    SELECT e.counted, e.is_bot, {EVENT_COLUMNS}, e.user_id, e.session_id FROM experiment_events e WHERE e.tx_id >= $1 AND e.tx_id < $2),
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
    RETURNING t.experiment_id, t.variant_id, t.epoch, t.excluded, t.covariate, t.drawn, {returned}),
moments AS ({moments}),
covariates AS ({covariates}),
drawn AS ({drawn}),
requesting AS ({requesting}),
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

/// The covariate of a unit is fixed here: it was handed in before the assignment, under the name that the unit had then.
/// Whatever commits later has a higher transaction id than the assignment, or was refused for the sake of it.
pub(super) const ASSIGNMENTS: &str = "-- fold::assignments
WITH new AS (
    INSERT INTO unit_totals (experiment_id, unit, variant_id, epoch, source, drawn, excluded, sessions, covariate)
    SELECT a.experiment_id, a.user_id, a.variant_id, a.epoch, a.source, a.propensity IS NOT NULL,
           a.is_bot OR a.source = 2
           OR EXISTS (SELECT 1 FROM excluded_units x
                      WHERE x.experiment_id = a.experiment_id AND x.unit = a.user_id AND x.tx_id < $2),
           (a.session_id IS NOT NULL)::integer,
           (SELECT c.value FROM unit_covariates c
            WHERE c.experiment_id = a.experiment_id AND c.unit = coalesce(a.assigned_as, a.user_id) AND c.tx_id < a.tx_id
            ORDER BY c.tx_id DESC LIMIT 1)
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
    ON CONFLICT (experiment_id) DO UPDATE SET bot_units = experiment_counters.bot_units + EXCLUDED.bot_units),
covariates AS (
    INSERT INTO covariate_moments (experiment_id, variant_id, epoch, units, sum_x, sq_x, sum_sessions, x_sessions)
    SELECT experiment_id, variant_id, epoch, count(*), sum(covariate), sum(covariate * covariate),
           sum(sessions), sum(covariate * sessions)
    FROM new WHERE NOT excluded AND covariate IS NOT NULL GROUP BY 1, 2, 3
    ON CONFLICT (experiment_id, variant_id, epoch) DO UPDATE SET
        units = covariate_moments.units + EXCLUDED.units,
        sum_x = covariate_moments.sum_x + EXCLUDED.sum_x,
        sq_x = covariate_moments.sq_x + EXCLUDED.sq_x,
        sum_sessions = covariate_moments.sum_sessions + EXCLUDED.sum_sessions,
        x_sessions = covariate_moments.x_sessions + EXCLUDED.x_sessions),
drawn AS (
    INSERT INTO variant_drawn_units (experiment_id, variant_id, epoch, units)
    SELECT experiment_id, variant_id, epoch, count(*) FROM new WHERE NOT excluded AND drawn GROUP BY 1, 2, 3
    ON CONFLICT (experiment_id, variant_id, epoch) DO UPDATE SET units = variant_drawn_units.units + EXCLUDED.units)
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
pub(super) const ALIASES: [&str; 4] = [
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
    "-- fold::alias_promotion_units
UPDATE promotion_units p SET unit = a.unit FROM unit_aliases a
WHERE a.tx_id >= $1 AND p.experiment_id = a.experiment_id AND p.unit = a.alias_unit
  AND NOT EXISTS (SELECT 1 FROM promotion_units o
                  WHERE o.experiment_id = a.experiment_id AND o.unit = a.unit AND o.promotion_id = p.promotion_id)",
];

/// What units did while a promotion was watched. Each converts once, and its first requests tell whether it is one with an
/// error; both go by the order in which transactions wrote, which is that of folding too.
pub(super) const PROMOTIONS: &str = "-- fold::promotions
WITH src AS MATERIALIZED (
    SELECT e.experiment_id, e.promotion_id, coalesce(a.unit, e.user_id) AS unit, e.event_type, e.value, e.is_error,
           e.promotion_step AS step, e.promotion_arm AS arm, e.tx_id, e.created_at, e.id
    FROM experiment_events e
    LEFT JOIN unit_aliases a ON a.alias_unit = e.user_id AND a.experiment_id = e.experiment_id
    WHERE e.tx_id >= $1 AND e.tx_id < $2 AND e.promotion_arm IS NOT NULL),
converted AS (
    SELECT DISTINCT ON (s.experiment_id, s.unit, s.promotion_id) s.experiment_id, s.unit, s.promotion_id, s.step, s.arm
    FROM src s JOIN promotion_rollouts r
        ON r.promotion_id = s.promotion_id AND r.conversion_event = s.event_type AND (NOT r.conversion_needs_value OR s.value > 0)
    WHERE s.arm <> 3
    ORDER BY s.experiment_id, s.unit, s.promotion_id, s.tx_id, s.created_at, s.id),
numbered AS (
    SELECT s.*, row_number() OVER (PARTITION BY s.experiment_id, s.unit, s.promotion_id ORDER BY s.tx_id, s.created_at, s.id) AS place
    FROM src s WHERE s.event_type = 'request' AND s.arm > 0),
asked AS (
    SELECT n.experiment_id, n.unit, n.promotion_id, count(*) AS requests, min(n.arm) FILTER (WHERE n.place = 1) AS arm,
           coalesce(bool_or(n.is_error AND coalesce(p.requests, 0) + n.place <= r.requests_counted), false) AS erred
    FROM numbered n JOIN promotion_rollouts r ON r.promotion_id = n.promotion_id
    LEFT JOIN promotion_units p
        ON p.experiment_id = n.experiment_id AND p.unit = n.unit AND p.promotion_id = n.promotion_id
    GROUP BY 1, 2, 3)
INSERT INTO promotion_units AS p
    (experiment_id, unit, promotion_id, requests, requests_arm, erred, converted_step, converted_arm)
SELECT experiment_id, unit, promotion_id, coalesce(a.requests, 0), a.arm, coalesce(a.erred, false), c.step, c.arm
FROM asked a FULL JOIN converted c USING (experiment_id, unit, promotion_id)
ON CONFLICT (experiment_id, unit, promotion_id) DO UPDATE SET
    requests = p.requests + EXCLUDED.requests,
    requests_arm = coalesce(p.requests_arm, EXCLUDED.requests_arm),
    erred = p.erred OR EXCLUDED.erred,
    converted_step = coalesce(p.converted_step, EXCLUDED.converted_step),
    converted_arm = coalesce(p.converted_arm, EXCLUDED.converted_arm)";

/// Units that have to go: their name, or a name that they had before they logged in, was excluded in `[$1, $2)`, or
/// was excluded earlier and became theirs since.
pub(crate) const NAMED: &str = "named AS (
    SELECT x.experiment_id, x.unit FROM excluded_units x WHERE x.tx_id >= $1 AND x.tx_id < $2
    UNION
    SELECT x.experiment_id, a.unit FROM excluded_units x
    JOIN unit_aliases a ON a.alias_unit = x.unit AND a.experiment_id = x.experiment_id
    WHERE x.tx_id >= $1 AND x.tx_id < $2
    UNION
    SELECT a.experiment_id, a.unit FROM unit_aliases a
    JOIN excluded_units x ON x.experiment_id = a.experiment_id AND x.unit IN (a.alias_unit, a.unit)
    WHERE a.tx_id >= $1 AND x.tx_id < $2)";

pub(super) static PENDING_EXCLUSIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- fold::pending_exclusions
WITH {NAMED}
SELECT EXISTS (SELECT 1 FROM named n JOIN unit_totals t ON t.experiment_id = n.experiment_id AND t.unit = n.unit
    WHERE NOT t.excluded) AS pending"
    )
});

/// Subtracts from a table of moments: `first` as they stand, and the sums of `columns` over the rows `from`.
fn taken_out(table: &str, first: &[(&str, &str)], columns: &[Column], from: &str) -> String {
    let mut all = names(first);
    all.extend(columns.iter().map(|column| column.name.clone()));
    let mut all_sums = sums(first, "");
    for column in columns {
        let _ = write!(all_sums, ", -sum({})", column.sql);
    }
    let select =
        format!("SELECT experiment_id, variant_id, epoch, {all_sums} {from} GROUP BY 1, 2, 3");
    add_into(table, "experiment_id, variant_id, epoch", &all, &select)
}

/// Takes units out of the analysis after the fact: their contributions are subtracted again. Reads raw events, which
/// is slow and rare: somebody pinned a unit that had already taken part.
pub(super) static EXCLUSIONS: LazyLock<String> = LazyLock::new(|| {
    let moments = taken_out(
        "variant_moments",
        &[
            ("units", "-count(*)"),
            ("client_units", "-count(*) FILTER (WHERE source = 1)"),
        ],
        &moment_columns(str::to_owned),
        "FROM gone",
    );
    let covariates = taken_out(
        "covariate_moments",
        &[
            ("units", "-count(*)"),
            ("sum_x", "-sum(covariate)"),
            ("sq_x", "-sum(covariate * covariate)"),
        ],
        &covariate_columns(str::to_owned),
        "FROM gone WHERE covariate IS NOT NULL",
    );
    let drawn = taken_out(
        "variant_drawn_units",
        &[("units", "-count(*)")],
        &drawn_columns(str::to_owned),
        "FROM gone WHERE drawn",
    );
    let requesting = taken_out(
        "variant_requests",
        &[("requesting_units", "-count(*)")],
        &[],
        "FROM gone WHERE requests > 0",
    );
    format!(
        "-- fold::exclusions
WITH {NAMED},
gone AS (
    UPDATE unit_totals t SET excluded = true FROM named n
    WHERE t.experiment_id = n.experiment_id AND t.unit = n.unit AND NOT t.excluded
    RETURNING t.*),
moments AS ({moments}),
covariates AS ({covariates}),
drawn AS ({drawn}),
requesting AS ({requesting}),
who AS MATERIALIZED (
    SELECT g.experiment_id, g.unit AS user_id, g.variant_id, g.epoch FROM gone g
    UNION ALL
    SELECT g.experiment_id, a.alias_unit, g.variant_id, g.epoch FROM gone g
    JOIN unit_aliases a ON a.unit = g.unit AND a.experiment_id = g.experiment_id),
good AS MATERIALIZED (
    SELECT {EVENT_COLUMNS}, w.variant_id, w.epoch, false AS excluded
    FROM experiment_events e JOIN who w USING (experiment_id, user_id) WHERE e.counted AND e.tx_id < $1),
days AS (DELETE FROM unit_days d USING gone g WHERE d.experiment_id = g.experiment_id AND d.unit = g.unit),
{rollups}
SELECT count(*) AS gone FROM gone",
        rollups = event_rollups("-")
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_total_has_its_sum_and_square() {
        let columns = moment_columns(str::to_owned);
        assert_eq!(
            columns.len(),
            ACTIVE.len() + 2 * TOTALS.len() + PRODUCTS.len()
        );
        let columns = covariate_columns(str::to_owned);
        assert_eq!(columns.len(), 2 * (ACTIVE.len() + TOTALS.len()));
    }
}
