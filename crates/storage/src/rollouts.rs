//! Promotions while they are rolled out and watched: begun with the promotion, moved from step to step, ended with the watch.
//!
//! Time is the database's. Whoever moves a rollout on (an API replica, a worker, several at once) does it by a statement
//! that asks again whether it is due, so nothing is moved twice.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::bucketing::Allocation;
use podium_domain::decimal::Decimal4;
use podium_domain::guard::{self, GuardEvidence, GuardReading, StepConverters};
use podium_domain::metric::Metric;
use podium_domain::rollout::{Rollout, ShareBefore};
use podium_domain::stats::proportion::Proportion;
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::database::{Link, Query};
use crate::rows::{column, decimal};
use crate::{Database, StorageError};

mod hours;

pub use hours::{Hours, hours};

/// How a promotion is to be rolled out and watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The winner's share of traffic at each step, rising; at least one.
    pub steps: Vec<Allocation>,
    /// Hours between steps, not negative.
    pub step_hours: f64,
    /// Share that stays on the control while the promotion is watched.
    pub holdback: Allocation,
    /// Hours of the watch; 0 for none.
    pub watch_hours: f64,
    /// Whether a proved regression takes the promotion back.
    pub auto_rollback: bool,
}

/// What an experiment with its winner tells about the watch to come.
macro_rules! before {
    ($name:literal, $experiment:literal) => {
        concat!("-- rollouts::", $name, "
SELECT e.id, e.primary_metric, e.traffic_allocation::text AS traffic_allocation, e.promoted_variant_id,
       w.weight::text AS weight, w.total::text AS total, u.units, u.converted,
       extract(epoch FROM now() - e.start_date)::double precision / 3600 AS hours,
       m.requests, m.erring_units, r.requesting_units
FROM (SELECT e.*, ", $experiment, ") e
CROSS JOIN LATERAL (
    SELECT coalesce(sum(traffic_weight) FILTER (WHERE id = e.promoted_variant_id), 0) AS weight,
           coalesce(sum(traffic_weight), 0) AS total
    FROM experiment_variants v WHERE v.experiment_id = e.id) w
CROSS JOIN LATERAL (
    SELECT coalesce(sum(units), 0)::bigint AS units,
           coalesce(sum(CASE WHEN e.primary_metric = 'add_to_cart_conversion_rate' THEN add_to_cart_units
                             WHEN e.primary_metric = 'click_conversion_rate' THEN clicking_units
                             WHEN e.primary_metric = 'engagement' THEN engaged_units
                             ELSE purchasing_units END), 0)::bigint AS converted
    FROM variant_moments m WHERE m.experiment_id = e.id AND m.variant_id <> e.promoted_variant_id) u
CROSS JOIN LATERAL (
    SELECT coalesce(sum(sum_requests), 0)::bigint AS requests, coalesce(sum(erring_units), 0)::bigint AS erring_units
    FROM variant_moments m WHERE m.experiment_id = e.id AND m.variant_id = e.promoted_variant_id) m
CROSS JOIN LATERAL (
    SELECT coalesce(sum(requesting_units), 0)::bigint AS requesting_units
    FROM variant_requests r WHERE r.experiment_id = e.id AND r.variant_id = e.promoted_variant_id) r")
    };
}

const BEFORE: &str = before!(
    "before",
    "p.promoted_variant_id FROM experiment_promotions p JOIN experiments e ON e.id = p.experiment_id WHERE p.id = $1"
);

const FORESEEN: &str = before!(
    "foreseen",
    "$2::bigint AS promoted_variant_id FROM experiments e WHERE e.id = $1"
);

const BEGIN: &str = "-- rollouts::begin
INSERT INTO promotion_rollouts
    (promotion_id, steps, step_hours, holdback, watch_hours, auto_rollback, conversion_event, conversion_needs_value,
     requesting_units_before, erring_units_before, requests_counted, detectable_drop, step)
VALUES ($1, $2::text[]::numeric[], $3, $4::text::numeric, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (promotion_id) DO NOTHING";

/// What was written with a promotion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Begun {
    /// The smallest relative drop in conversion that the guard finds with 80 % within the watch at present traffic; `None`
    /// where it finds none, or nothing is compared.
    pub detectable_drop: Option<f64>,
}

/// Begins the rollout of a promotion, in the transaction that promotes.
///
/// # Errors
/// [`StorageError::CorruptRow`] when there is no such promotion, or a row cannot be read.
pub async fn begin(
    transaction: &Transaction<'_>,
    promotion_id: Uuid,
    plan: &Plan,
) -> Result<Begun, StorageError> {
    let mut link = transaction;
    let row = link.query_opt(BEFORE, &[&promotion_id]).await?;
    let before = Before::read(&row.ok_or(StorageError::CorruptRow {
        table: "experiment_promotions",
        column: "id",
    })?)?;
    let steps: Vec<String> = plan.steps.iter().map(|s| s.percent().to_string()).collect();
    let (event, needs_value) = guard::conversion(before.metric);
    let step = before.first_step(plan);
    let detectable_drop = before.detectable_drop(plan);
    let statement = transaction.prepare_cached(BEGIN).await?;
    let step = i32::try_from(step).unwrap_or_default();
    transaction
        .execute(
            &statement,
            &[
                &promotion_id,
                &steps,
                &plan.step_hours,
                &plan.holdback.percent().to_string(),
                &plan.watch_hours,
                &plan.auto_rollback,
                &event.name(),
                &needs_value,
                &before.requesting_units,
                &before.erring_units.min(before.requesting_units),
                &before.requests_counted(),
                &detectable_drop,
                &step,
            ],
        )
        .await?;
    Ok(Begun { detectable_drop })
}

/// What [`begin`] would answer if this variant of an experiment were promoted now. Writes nothing.
///
/// # Errors
/// As [`begin`].
pub async fn foresee(
    link: &mut impl Query,
    experiment_id: i64,
    winner_id: i64,
    plan: &Plan,
) -> Result<Begun, StorageError> {
    let row = link
        .query_opt(FORESEEN, &[&experiment_id, &winner_id])
        .await?;
    let before = Before::read(&row.ok_or(StorageError::CorruptRow {
        table: "experiments",
        column: "id",
    })?)?;
    Ok(Begun {
        detectable_drop: before.detectable_drop(plan),
    })
}

/// The experiment at its promotion.
struct Before {
    metric: Metric,
    share: ShareBefore,
    units: i64,
    converted: i64,
    hours: Option<f64>,
    requests: i64,
    erring_units: i64,
    requesting_units: i64,
}

impl Before {
    fn read(row: &Row) -> Result<Self, StorageError> {
        const T: &str = "experiments";
        let metric: String = column(row, T, "primary_metric")?;
        Ok(Self {
            metric: metric.parse().map_err(|_| StorageError::CorruptRow {
                table: T,
                column: "primary_metric",
            })?,
            share: share_before(row)?,
            units: column(row, "variant_moments", "units")?,
            converted: column(row, "variant_moments", "converted")?,
            hours: column(row, T, "hours")?,
            requests: column(row, "variant_moments", "requests")?,
            erring_units: column(row, "variant_moments", "erring_units")?,
            requesting_units: column(row, "variant_requests", "requesting_units")?,
        })
    }

    /// Requests of a unit on average, rounded up: an error rate of units means little without saying of how many requests.
    fn requests_counted(&self) -> i32 {
        let each = (self.requests + self.requesting_units - 1)
            .checked_div(self.requesting_units)
            .unwrap_or(1);
        i32::try_from(each.max(1)).unwrap_or(i32::MAX)
    }

    /// Steps below what the winner has already are skipped.
    fn first_step(&self, plan: &Plan) -> usize {
        self.share.step(&plan.steps, 0).unwrap_or_default()
    }

    fn detectable_drop(&self, plan: &Plan) -> Option<f64> {
        let hours = self.hours.filter(|hours| *hours > 0.0)?;
        let step = *plan.steps.get(self.first_step(plan))?;
        let held_back = Rollout::new(step, plan.holdback, self.share);
        let units = as_float(self.units) / hours * plan.watch_hours;
        let rate = as_float(self.converted) / as_float(self.units);
        guard::detectable_drop(units, rate, held_back.held_back_share()?)
    }
}

fn share_before(row: &Row) -> Result<ShareBefore, StorageError> {
    let weight = |name: &'static str| {
        let weight = decimal(row, "experiment_variants", name)?;
        u64::try_from(weight.units()).map_err(|_| StorageError::CorruptRow {
            table: "experiment_variants",
            column: name,
        })
    };
    Ok(ShareBefore {
        allocation: allocation(row, "experiments", "traffic_allocation")?,
        weight: weight("weight")?,
        total: weight("total")?,
    })
}

fn allocation(
    row: &Row,
    table: &'static str,
    name: &'static str,
) -> Result<Allocation, StorageError> {
    let percent = decimal(row, table, name)?;
    Allocation::from_percent(percent).ok_or(StorageError::CorruptRow {
        table,
        column: name,
    })
}

/// A promotion whose guard watches, or whose rollout has steps to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// The promotion.
    pub promotion_id: Uuid,
    /// Its experiment.
    pub experiment_id: i64,
    /// The experiment's name.
    pub experiment_name: String,
    /// The variant that was promoted.
    pub winner_id: i64,
    /// Its name.
    pub winner_name: String,
    /// What the held-back units are shown; `None` where the experiment had no control.
    pub control_id: Option<i64>,
    /// When the experiment started, if that is known.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was promoted.
    pub promoted_at: DateTime<Utc>,
    /// The configuration that it was promoted by, as JSON; null where nobody noted it.
    pub config: Value,
    /// Steps.
    pub steps: Vec<Allocation>,
    /// Share that is held back.
    pub holdback: Allocation,
    /// The winner's share before.
    pub share_before: ShareBefore,
    /// Whether a proved regression takes it back.
    pub auto_rollback: bool,
    /// When it was read, by the clock of the database.
    pub now: DateTime<Utc>,
    /// Whether the guard watches, by the clock of the database.
    pub is_watched: bool,
    /// Whether the time of the watch is over and its end is still to be written.
    pub watch_is_over: bool,
    requesting_units_before: i64,
    erring_units_before: i64,
}

const WATCHED: &str = "-- rollouts::watched
SELECT p.id, p.experiment_id, p.experiment_name, p.promoted_variant_id, p.promoted_variant_name, p.control_variant_id, p.promoted_at,
       e.start_date, coalesce(p.metadata -> 'config', 'null') AS config,
       r.steps::text[] AS steps, r.holdback::text AS holdback, e.traffic_allocation::text AS traffic_allocation,
       w.weight::text AS weight, w.total::text AS total, r.auto_rollback, r.requesting_units_before, r.erring_units_before,
       now() AS now, r.watch_ended_at IS NULL AND r.watch_hours > 0 AS open,
       now() >= p.promoted_at + make_interval(secs => r.watch_hours * 3600) AS over
FROM experiment_promotions p JOIN promotion_rollouts r ON r.promotion_id = p.id JOIN experiments e ON e.id = p.experiment_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(traffic_weight) FILTER (WHERE v.id = p.promoted_variant_id), 0) AS weight,
           coalesce(sum(traffic_weight), 0) AS total
    FROM experiment_variants v WHERE v.experiment_id = e.id) w
WHERE p.rollback_at IS NULL AND e.status = 'completed' AND (r.watch_ended_at IS NULL OR r.step < cardinality(r.steps) - 1)
ORDER BY p.promoted_at, p.id";

/// Active promotions that are not done yet, oldest first.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn watched(link: &mut Link) -> Result<Vec<Watched>, StorageError> {
    let rows = link.query(WATCHED, &[]).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Watched, StorageError> {
    const P: &str = "experiment_promotions";
    const R: &str = "promotion_rollouts";
    let steps: Vec<String> = column(row, R, "steps")?;
    let steps = steps
        .iter()
        .map(|step| Allocation::from_percent(Decimal4::parse(step).ok()?));
    let steps: Option<Vec<Allocation>> = steps.collect();
    let (open, over): (bool, bool) = (column(row, R, "open")?, column(row, R, "over")?);
    Ok(Watched {
        promotion_id: column(row, P, "id")?,
        experiment_id: column(row, P, "experiment_id")?,
        experiment_name: column(row, P, "experiment_name")?,
        winner_id: column(row, P, "promoted_variant_id")?,
        winner_name: column(row, P, "promoted_variant_name")?,
        control_id: column(row, P, "control_variant_id")?,
        started_at: column(row, "experiments", "start_date")?,
        promoted_at: column(row, P, "promoted_at")?,
        config: column(row, P, "config")?,
        steps: steps.ok_or(StorageError::CorruptRow {
            table: R,
            column: "steps",
        })?,
        holdback: allocation(row, R, "holdback")?,
        share_before: share_before(row)?,
        auto_rollback: column(row, R, "auto_rollback")?,
        now: column(row, P, "now")?,
        is_watched: open && !over,
        watch_is_over: open && over,
        requesting_units_before: column(row, R, "requesting_units_before")?,
        erring_units_before: column(row, R, "erring_units_before")?,
    })
}

/// How a promotion is watched, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchNote {
    /// The promotion.
    pub promotion_id: Uuid,
    /// The winner's name.
    pub winner_name: String,
    /// When it was promoted.
    pub promoted_at: DateTime<Utc>,
    /// The winner's share of traffic in percent now, without those who are held back.
    pub share: Decimal4,
    /// Share that is held back, in percent.
    pub holdback: Decimal4,
    /// When the watch ends or ended by plan.
    pub watch_until: DateTime<Utc>,
    /// When it ended.
    pub watch_ended_at: Option<DateTime<Utc>>,
    /// The smallest relative drop in conversion that the guard was expected to find with 80 %.
    pub detectable_drop: Option<f64>,
    /// What the guard found last, by its name in records.
    pub finding: Option<String>,
    /// When that was.
    pub read_at: Option<DateTime<Utc>>,
}

macro_rules! watch_note {
    ($name:literal, $which:literal) => {
        concat!(
            "-- rollouts::",
            $name,
            "
SELECT p.id, p.promoted_variant_name, p.promoted_at, r.steps[r.step + 1]::text AS share, r.holdback::text AS holdback,
       p.promoted_at + make_interval(secs => r.watch_hours * 3600) AS watch_until, r.watch_ended_at, r.detectable_drop,
       r.reading ->> 'finding' AS finding, r.read_at
FROM experiment_promotions p JOIN promotion_rollouts r ON r.promotion_id = p.id WHERE ",
            $which
        )
    };
}

const NOTE_OF_PROMOTION: &str = watch_note!("note_of_promotion", "p.id = $1");
const NOTE_OF_EXPERIMENT: &str = watch_note!(
    "note_of_experiment",
    "p.experiment_id = $1 AND p.rollback_at IS NULL"
);

/// How a promotion is, or was, watched; `None` for one that nobody was to watch.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn note_of_promotion(
    link: &mut impl Query,
    id: Uuid,
) -> Result<Option<WatchNote>, StorageError> {
    let row = link.query_opt(NOTE_OF_PROMOTION, &[&id]).await?;
    row.as_ref().map(watch_note).transpose()
}

/// How the active promotion of an experiment is watched; `None` without one.
///
/// # Errors
/// As [`note_of_promotion`].
pub async fn note_of_experiment(
    link: &mut impl Query,
    experiment_id: i64,
) -> Result<Option<WatchNote>, StorageError> {
    let row = link
        .query_opt(NOTE_OF_EXPERIMENT, &[&experiment_id])
        .await?;
    row.as_ref().map(watch_note).transpose()
}

fn watch_note(row: &Row) -> Result<WatchNote, StorageError> {
    const P: &str = "experiment_promotions";
    const R: &str = "promotion_rollouts";
    Ok(WatchNote {
        promotion_id: column(row, P, "id")?,
        winner_name: column(row, P, "promoted_variant_name")?,
        promoted_at: column(row, P, "promoted_at")?,
        share: decimal(row, R, "share")?,
        holdback: decimal(row, R, "holdback")?,
        watch_until: column(row, R, "watch_until")?,
        watch_ended_at: column(row, R, "watch_ended_at")?,
        detectable_drop: column(row, R, "detectable_drop")?,
        finding: column(row, R, "finding")?,
        read_at: column(row, R, "read_at")?,
    })
}

const ADVANCE: &str = "-- rollouts::advance
UPDATE promotion_rollouts r SET step = r.step + 1, step_since = now()
FROM experiment_promotions p
WHERE p.id = r.promotion_id AND p.rollback_at IS NULL AND r.promotion_id = $1 AND r.step < cardinality(r.steps) - 1
  AND now() >= r.step_since + make_interval(secs => r.step_hours * 3600)
RETURNING r.step";

/// Takes the next step of a rollout when it is due. Returns its place.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn advance(database: &Database, promotion_id: Uuid) -> Result<Option<i32>, StorageError> {
    let row = database
        .work()
        .await?
        .query_opt(ADVANCE, &[&promotion_id])
        .await?;
    row.map(|row| column(&row, "promotion_rollouts", "step"))
        .transpose()
}

const END: &str = "-- rollouts::end_watch
UPDATE promotion_rollouts r SET watch_ended_at = now()
FROM experiment_promotions p
WHERE p.id = r.promotion_id AND p.rollback_at IS NULL AND r.promotion_id = $1 AND r.watch_ended_at IS NULL
  AND now() >= p.promoted_at + make_interval(secs => r.watch_hours * 3600)
RETURNING r.promotion_id";

/// Ends the watch of a promotion, and its holdback, when its time is over. Whether this call did it.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn end_watch(
    transaction: &Transaction<'_>,
    promotion_id: Uuid,
) -> Result<bool, StorageError> {
    let mut link = transaction;
    let ended = link.query_opt(END, &[&promotion_id]).await?;
    Ok(ended.is_some())
}

const CONVERTED: &str = "-- rollouts::converted
SELECT converted_step AS step, count(*) FILTER (WHERE converted_arm = 1) AS moved,
       count(*) FILTER (WHERE converted_arm = 2) AS held_back
FROM promotion_units WHERE promotion_id = $1 AND converted_arm IN (1, 2) GROUP BY 1 ORDER BY 1";

const ERRED: &str = "-- rollouts::erred
SELECT count(*) FILTER (WHERE requests_arm IN (1, 3)) AS winner_units,
       count(*) FILTER (WHERE requests_arm IN (1, 3) AND erred) AS winner_erring,
       count(*) FILTER (WHERE requests_arm = 2) AS held_back_units,
       count(*) FILTER (WHERE requests_arm = 2 AND erred) AS held_back_erring
FROM promotion_units WHERE promotion_id = $1 AND requests_arm IS NOT NULL";

/// What the guard of a promotion looks at, as of the last fold.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn evidence(link: &mut Link, of: &Watched) -> Result<GuardEvidence, StorageError> {
    const T: &str = "promotion_units";
    let mut steps = Vec::new();
    for row in link.query(CONVERTED, &[&of.promotion_id]).await? {
        let step: i32 = column(&row, T, "step")?;
        // In a step without both groups nothing is compared; counts of one of them come from its last moments.
        if let Some(held_back_share) = of.held_back_share(step) {
            steps.push(StepConverters {
                moved: column(&row, T, "moved")?,
                held_back: column(&row, T, "held_back")?,
                held_back_share,
            });
        }
    }
    let row = link.query_opt(ERRED, &[&of.promotion_id]).await?;
    let row = row.ok_or(StorageError::CorruptRow {
        table: T,
        column: "erred",
    })?;
    let share = |erring: i64, units: i64| {
        Proportion::new(erring, units)
            .map(|share| (units > 0).then_some(share))
            .map_err(|_| StorageError::CorruptRow {
                table: T,
                column: "erred",
            })
    };
    Ok(GuardEvidence {
        steps,
        errors_before: share(of.erring_units_before, of.requesting_units_before)?,
        errors_winner: share(
            column(&row, T, "winner_erring")?,
            column(&row, T, "winner_units")?,
        )?,
        errors_held_back: share(
            column(&row, T, "held_back_erring")?,
            column(&row, T, "held_back_units")?,
        )?,
    })
}

impl Watched {
    /// Planned share of the held back in those that are compared while a step is in force.
    fn held_back_share(&self, step: i32) -> Option<f64> {
        let step = self.steps.get(usize::try_from(step).ok()?)?;
        Rollout::new(*step, self.holdback, self.share_before).held_back_share()
    }
}

const NOTE: &str = "-- rollouts::note
UPDATE promotion_rollouts SET reading = $2, read_at = now() WHERE promotion_id = $1";

/// Notes down what the guard found, for the promotion's answer and report.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn note(
    link: &mut Link,
    of: &Watched,
    evidence: &GuardEvidence,
    reading: &GuardReading,
) -> Result<(), StorageError> {
    let noted = record(evidence, reading);
    link.query(NOTE, &[&of.promotion_id, &noted]).await?;
    Ok(())
}

/// Evidence and reading as they are kept: the members of both in one object.
#[must_use]
pub fn record(evidence: &GuardEvidence, reading: &GuardReading) -> Value {
    // Evidence of plain numbers always has a form in JSON.
    let mut kept = serde_json::to_value(evidence).unwrap_or_default();
    let read = json!({
        "finding": reading.finding.name(),
        "lnEConversion": reading.ln_e_conversion,
        "lnEErrors": reading.ln_e_errors,
        "errorLimit": reading.error_limit,
    });
    if let (Value::Object(kept), Value::Object(read)) = (&mut kept, read) {
        kept.extend(read);
    }
    kept
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn as_float(count: i64) -> f64 {
    count as f64
}
