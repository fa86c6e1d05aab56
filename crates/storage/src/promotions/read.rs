//! What a decision looks at, read in one transaction of one moment; and lists for people.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::analyses::{self, StoredAnalysis, StoredLook};
use super::model::{Promotion, promotion, promotion_columns};
use crate::alerts::{self, Critical};
use crate::analytics::capped::{self, CappedTotal};
use crate::analytics::context::{self, Epoch, Freshness};
use crate::analytics::moments::{self, VariantMoments};
use crate::analytics::outcomes::{self, VariantOutcomes};
use crate::bandit::units::{self, DrawnUnits};
use crate::database::Query;
use crate::experiments::model::{Experiment, ExperimentRef};
use crate::experiments::query;
use crate::rows::column;
use crate::{Database, StorageError};

const T: &str = "experiment_promotions";

/// An experiment with everything that a decision about it looks at.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// The experiment with its variants.
    pub experiment: Experiment,
    /// The time, and how old the totals are.
    pub freshness: Freshness,
    /// Epochs with their weights.
    pub epochs: Vec<Epoch>,
    /// Sums per variant and epoch.
    pub rows: Vec<VariantMoments>,
    /// Units that a bandit drew, per variant and epoch.
    pub drawn: Vec<DrawnUnits>,
    /// Sums of capped values.
    pub capped: Vec<CappedTotal>,
    /// The open analysis; none when nothing was recorded yet.
    pub analysis: Option<StoredAnalysis>,
    /// Its recorded looks.
    pub looks: Vec<StoredLook>,
    /// The active promotion.
    pub active: Option<Uuid>,
    /// When a promotion was rolled back last.
    pub rolled_back_at: Option<DateTime<Utc>>,
    /// How requests ended, per variant and epoch.
    pub outcomes: Vec<VariantOutcomes>,
    /// Its critical alerts, newest first.
    pub critical: Vec<Critical>,
    /// Lift and standard error in percent of the promotions that were not forced, newest first, of all experiments.
    pub effects: Vec<(f64, f64)>,
}

const HISTORY: &str = "-- promotions::history
SELECT (SELECT id FROM experiment_promotions WHERE experiment_id = $1 AND rollback_at IS NULL) AS active,
       (SELECT max(rollback_at) FROM experiment_promotions WHERE experiment_id = $1) AS rolled_back_at";

const EFFECTS: &str = "-- promotions::effects
SELECT (metadata ->> 'liftPercent')::double precision AS lift,
       (metadata ->> 'standardErrorPercent')::double precision AS se
FROM experiment_promotions
WHERE metadata ->> 'liftPercent' IS NOT NULL AND metadata ->> 'standardErrorPercent' IS NOT NULL
  AND NOT coalesce((metadata ->> 'forced')::boolean, false)
ORDER BY promoted_at DESC LIMIT 200";

/// Reads an experiment in a transaction of one moment; `None` when there is none of this name or id.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn gather(
    tx: &Transaction<'_>,
    reference: &ExperimentRef,
) -> Result<Option<Gathered>, StorageError> {
    let mut link = tx;
    let Some(experiment) = query::read_on(&mut link, reference).await? else {
        return Ok(None);
    };
    let id = experiment.id;
    let capped = match experiment.design.winsorize_upper {
        Some(upper) => capped::now(&mut link, id, upper).await?,
        None => Vec::new(),
    };
    let analysis = analyses::open(&mut link, id).await?;
    let looks = match &analysis {
        Some(open) => analyses::looks(&mut link, id, open.number).await?,
        None => Vec::new(),
    };
    let history = link.query_opt(HISTORY, &[&id]).await?;
    let history = history.ok_or(StorageError::CorruptRow {
        table: T,
        column: "id",
    })?;
    let effects = link.query(EFFECTS, &[]).await?;
    Ok(Some(Gathered {
        freshness: context::freshness(&mut link).await?,
        epochs: context::epochs(&mut link, id).await?,
        rows: moments::now(&mut link, id).await?,
        drawn: units::drawn(&mut link, id).await?,
        capped,
        analysis,
        looks,
        outcomes: outcomes::now(&mut link, id).await?,
        critical: alerts::critical(&mut link, id).await?,
        active: column(&history, T, "active")?,
        rolled_back_at: column(&history, T, "rolled_back_at")?,
        effects: effects
            .iter()
            .map(|row| Ok((column(row, T, "lift")?, column(row, T, "se")?)))
            .collect::<Result<_, StorageError>>()?,
        experiment,
    }))
}

const BY_ID: &str = concat!(
    "-- promotions::by_id\nSELECT ",
    promotion_columns!(),
    " FROM experiment_promotions p WHERE p.id = $1"
);

const LIST: &str = concat!(
    "-- promotions::list\nSELECT ",
    promotion_columns!(),
    " FROM experiment_promotions p
WHERE ($1::boolean IS NULL OR (p.rollback_at IS NULL) = $1)
  AND ($2::timestamptz IS NULL OR (p.promoted_at, p.id) < ($2, $3))
ORDER BY p.promoted_at DESC, p.id DESC LIMIT $4"
);

const STATS: &str = "-- promotions::stats
SELECT total_promotions, auto_promotions, manual_promotions, active_promotions, rolled_back_promotions,
       avg_confidence, avg_improvement FROM get_promotion_stats()";

/// A promotion by its id.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn by_id(link: &mut impl Query, id: Uuid) -> Result<Option<Promotion>, StorageError> {
    let row = link.query_opt(BY_ID, &[&id]).await?;
    row.as_ref().map(promotion).transpose()
}

/// Promotions, newest first: those that are active, those that are not, or all; below a cursor, at most `limit`.
///
/// # Errors
/// As [`by_id`].
pub async fn list(
    database: &Database,
    active: Option<bool>,
    below: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Promotion>, StorageError> {
    let (time, id) = below.unzip();
    let mut link = database.serve().await?;
    let rows = link.query(LIST, &[&active, &time, &id, &limit]).await?;
    rows.iter().map(promotion).collect()
}

/// Counts and averages over all promotions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stats {
    /// All there were.
    pub total: i64,
    /// By the engine.
    pub auto: i64,
    /// By people.
    pub manual: i64,
    /// In force.
    pub active: i64,
    /// Taken back.
    pub rolled_back: i64,
    /// Average confidence in percent.
    pub avg_confidence: Option<f64>,
    /// Average lift in percent.
    pub avg_improvement: Option<f64>,
}

/// Counts and averages over all promotions.
///
/// # Errors
/// As [`by_id`].
pub async fn stats(database: &Database) -> Result<Stats, StorageError> {
    let row = database.serve().await?.query_opt(STATS, &[]).await?;
    let row = row.ok_or(StorageError::CorruptRow {
        table: T,
        column: "id",
    })?;
    Ok(Stats {
        total: column(&row, T, "total_promotions")?,
        auto: column(&row, T, "auto_promotions")?,
        manual: column(&row, T, "manual_promotions")?,
        active: column(&row, T, "active_promotions")?,
        rolled_back: column(&row, T, "rolled_back_promotions")?,
        avg_confidence: column(&row, T, "avg_confidence")?,
        avg_improvement: column(&row, T, "avg_improvement")?,
    })
}
