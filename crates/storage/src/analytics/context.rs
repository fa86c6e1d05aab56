//! What surrounds the figures: epochs, what was left out, how fresh they are, arms of bandits.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use podium_domain::decimal::Decimal4;
use serde_json::Value;
use tokio_postgres::Row;

use crate::StorageError;
use crate::database::Query;
use crate::fold::lag;
use crate::rows::{column, decimal};

/// A stretch of constant weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: i32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Whether a bandit opened it for other weights.
    pub is_adaptive: bool,
    /// Traffic weight by variant id.
    pub weights: BTreeMap<i64, Decimal4>,
}

/// What was recorded and left out of the analysis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events of known bots.
    pub bot_events: i64,
    /// Units that a known bot was first.
    pub bot_units: i64,
    /// Other events that do not count: before the assignment, after the end, of pinned units, during a promotion.
    pub uncounted_events: i64,
}

/// How up to date the totals are, by the clock of the database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Freshness {
    /// Now.
    pub now: DateTime<Utc>,
    /// Today, in UTC.
    pub today: NaiveDate,
    /// When folding last caught up with all that had committed.
    pub folded_at: DateTime<Utc>,
    /// Seconds between the two, or for which the oldest of what is missing in the totals has waited, if that is more; `None`
    /// when the clock was set back, so that nobody knows.
    pub lag_seconds: Option<f64>,
}

/// An arm of a bandit.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Id of the row.
    pub id: i64,
    /// What kind of thing it is.
    pub arm_type: String,
    /// Which one.
    pub arm_id: String,
    /// Its name.
    pub arm_name: Option<String>,
    /// Posterior successes, with the prior.
    pub alpha: f64,
    /// Posterior failures, with the prior.
    pub beta: f64,
    /// How often it was shown.
    pub total_pulls: i64,
    /// What it earned. An exact decimal as text.
    pub total_reward: String,
    /// Reward per pull.
    pub average_reward: f64,
    /// Free-form.
    pub metadata: Value,
    /// When it was reset last.
    pub reset_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last learned.
    pub updated_at: DateTime<Utc>,
}

const EPOCHS: &str = "-- analytics::epochs
SELECT e.epoch, e.started_at, e.adaptive_of IS NOT NULL AS is_adaptive, w.key::bigint AS variant_id, w.value AS weight
FROM experiment_epochs e CROSS JOIN LATERAL jsonb_each_text(e.weights) AS w (key, value)
WHERE e.experiment_id = $1 ORDER BY e.epoch, variant_id";

const COUNTERS: &str = "-- analytics::counters
SELECT bot_events, bot_units, uncounted_events FROM experiment_counters WHERE experiment_id = $1";

const FRESHNESS: &str = concat!(
    "-- analytics::freshness
SELECT now() AS now, (now() AT TIME ZONE 'UTC')::date AS today, s.folded_at, ",
    lag!(),
    " AS lag_seconds FROM fold_state s"
);

const ARMS: &str = "-- analytics::arms
SELECT id, arm_type, arm_id, arm_name, alpha, beta, total_pulls, trim_scale(total_reward)::text AS total_reward,
       average_reward, metadata, reset_at, created_at, updated_at
FROM bandit_arms WHERE experiment_id = $1 AND ($2::text IS NULL OR arm_type = $2)
ORDER BY arm_type, total_pulls DESC, id";

/// The epochs of an experiment, in order.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn epochs(link: &mut impl Query, experiment_id: i64) -> Result<Vec<Epoch>, StorageError> {
    const T: &str = "experiment_epochs";
    let mut epochs: Vec<Epoch> = Vec::new();
    for row in link.query(EPOCHS, &[&experiment_id]).await? {
        let epoch: i32 = column(&row, T, "epoch")?;
        if epochs.last().is_none_or(|last| last.epoch != epoch) {
            epochs.push(Epoch {
                epoch,
                started_at: column(&row, T, "started_at")?,
                is_adaptive: column(&row, T, "is_adaptive")?,
                weights: BTreeMap::new(),
            });
        }
        if let Some(last) = epochs.last_mut() {
            last.weights
                .insert(column(&row, T, "variant_id")?, decimal(&row, T, "weight")?);
        }
    }
    Ok(epochs)
}

/// What was left out; zeros when nothing was.
///
/// # Errors
/// As [`epochs`].
pub async fn counters(link: &mut impl Query, experiment_id: i64) -> Result<Counters, StorageError> {
    const T: &str = "experiment_counters";
    let Some(row) = link.query_opt(COUNTERS, &[&experiment_id]).await? else {
        return Ok(Counters::default());
    };
    Ok(Counters {
        bot_events: column(&row, T, "bot_events")?,
        bot_units: column(&row, T, "bot_units")?,
        uncounted_events: column(&row, T, "uncounted_events")?,
    })
}

/// How up to date the totals are.
///
/// # Errors
/// As [`epochs`].
pub async fn freshness(link: &mut impl Query) -> Result<Freshness, StorageError> {
    const T: &str = "fold_state";
    let row = link.query_opt(FRESHNESS, &[]).await?;
    let row = row.ok_or(StorageError::CorruptRow {
        table: T,
        column: "one",
    })?;
    Ok(Freshness {
        now: column(&row, T, "now")?,
        today: column(&row, T, "today")?,
        folded_at: column(&row, T, "folded_at")?,
        lag_seconds: column(&row, T, "lag_seconds")?,
    })
}

/// Arms of an experiment, of one type or of all.
///
/// # Errors
/// As [`epochs`].
pub async fn arms(
    link: &mut impl Query,
    experiment_id: i64,
    arm_type: Option<&str>,
) -> Result<Vec<Arm>, StorageError> {
    link.query(ARMS, &[&experiment_id, &arm_type])
        .await?
        .iter()
        .map(arm)
        .collect()
}

pub(crate) fn arm(row: &Row) -> Result<Arm, StorageError> {
    const T: &str = "bandit_arms";
    Ok(Arm {
        id: column(row, T, "id")?,
        arm_type: column(row, T, "arm_type")?,
        arm_id: column(row, T, "arm_id")?,
        arm_name: column(row, T, "arm_name")?,
        alpha: column(row, T, "alpha")?,
        beta: column(row, T, "beta")?,
        total_pulls: column(row, T, "total_pulls")?,
        total_reward: column(row, T, "total_reward")?,
        average_reward: column(row, T, "average_reward")?,
        metadata: column(row, T, "metadata")?,
        reset_at: column(row, T, "reset_at")?,
        created_at: column(row, T, "created_at")?,
        updated_at: column(row, T, "updated_at")?,
    })
}
