//! Analyses and their recorded looks.
//!
//! Looks are recorded by whoever is first in a slot. Two that come together have both read the same recorded looks; the
//! row of the analysis is locked while looks are added, and its count of looks tells the second that it is too late: it
//! reads again and finds the look of the first.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::decision::design::FrozenDesign;
use podium_domain::decision::look::Look;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use crate::database::Query;
use crate::experiments::change::ChangeError;
use crate::experiments::model::Experiment;
use crate::experiments::rows::{fetch, one, open_epoch};
use crate::rows::column;
use crate::{Database, StorageError};

const T: &str = "promotion_analyses";

/// An analysis as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAnalysis {
    /// Its number within the experiment, from 1.
    pub number: i32,
    /// Units that were assigned from this epoch on are in it.
    pub from_epoch: i32,
    /// When it began, by the clock of the database.
    pub started_at: DateTime<Utc>,
    /// The part of alpha that earlier analyses have left.
    pub unspent: f64,
    /// What was frozen; none before the first look.
    pub design: Option<FrozenDesign>,
    /// Recorded looks of all treatments together.
    pub looks: i64,
}

/// A recorded look at a variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredLook {
    /// The variant.
    pub variant_id: i64,
    /// The look.
    pub look: Look,
}

const OPEN: &str = "-- analyses::open
SELECT number, from_epoch, started_at, unspent, design, looks FROM promotion_analyses
WHERE experiment_id = $1 AND closed_at IS NULL";

const LOOKS: &str = "-- analyses::looks
SELECT variant_id, slot, time, information, spending_time, z, lift, bound, p, level FROM promotion_looks
WHERE experiment_id = $1 AND analysis = $2 ORDER BY variant_id, slot";

/// The open analysis of an experiment; none when nothing was recorded yet.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn open(
    link: &mut impl Query,
    experiment_id: i64,
) -> Result<Option<StoredAnalysis>, StorageError> {
    let row = link.query_opt(OPEN, &[&experiment_id]).await?;
    row.as_ref().map(analysis).transpose()
}

fn analysis(row: &Row) -> Result<StoredAnalysis, StorageError> {
    Ok(StoredAnalysis {
        number: column(row, T, "number")?,
        from_epoch: column(row, T, "from_epoch")?,
        started_at: column(row, T, "started_at")?,
        unspent: column(row, T, "unspent")?,
        design: column::<Option<Json<FrozenDesign>>>(row, T, "design")?.map(|json| json.0),
        looks: column(row, T, "looks")?,
    })
}

/// The recorded looks of an analysis, in order.
///
/// # Errors
/// As [`open`].
pub async fn looks(
    link: &mut impl Query,
    experiment_id: i64,
    number: i32,
) -> Result<Vec<StoredLook>, StorageError> {
    let rows = link.query(LOOKS, &[&experiment_id, &number]).await?;
    rows.iter().map(look).collect()
}

fn look(row: &Row) -> Result<StoredLook, StorageError> {
    const L: &str = "promotion_looks";
    Ok(StoredLook {
        variant_id: column(row, L, "variant_id")?,
        look: Look {
            slot: column(row, L, "slot")?,
            time: column(row, L, "time")?,
            information: column(row, L, "information")?,
            spending_time: column(row, L, "spending_time")?,
            z: column(row, L, "z")?,
            lift: column(row, L, "lift")?,
            bound: column(row, L, "bound")?,
            p: column(row, L, "p")?,
            level: column(row, L, "level")?,
        },
    })
}

/// Looks to be recorded, and what they were computed from.
#[derive(Clone, Debug)]
pub struct NewLooks {
    /// The experiment.
    pub experiment_id: i64,
    /// The analysis as it was read, with the design that is frozen with the first look.
    pub analysis: StoredAnalysis,
    /// The looks, by variant.
    pub looks: Vec<StoredLook>,
    /// What was in force.
    pub settings: Value,
    /// Who asked.
    pub actor: String,
}

const BEGIN: &str = "-- analyses::begin
INSERT INTO promotion_analyses (experiment_id, number, from_epoch, started_at, unspent, opened_by, reason)
VALUES ($1, $2, $3, $4, $5, $6, 'first look') ON CONFLICT DO NOTHING";

const LOCK: &str = "-- analyses::lock
SELECT number, from_epoch, started_at, unspent, design, looks FROM promotion_analyses
WHERE experiment_id = $1 AND number = $2 AND closed_at IS NULL FOR UPDATE";

const COUNT: &str = "-- analyses::count
UPDATE promotion_analyses SET looks = looks + $3, design = coalesce(design, $4)
WHERE experiment_id = $1 AND number = $2 RETURNING number";

const RECORD: &str = "-- analyses::record
INSERT INTO promotion_looks (experiment_id, analysis, variant_id, slot, time, information, spending_time, z, lift, bound,
    p, level, settings)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// Records looks, or nothing when somebody else has recorded some since the analysis was read: then it has to be read
/// again. Answers whether they were recorded.
///
/// # Errors
/// [`StorageError`] when the database does not answer; a look that is there already is a conflict.
pub async fn record(database: &Database, new: &NewLooks) -> Result<bool, StorageError> {
    database
        .transaction(async |tx| {
            let (id, analysis) = (new.experiment_id, &new.analysis);
            fetch(
                tx,
                BEGIN,
                &[
                    &id,
                    &analysis.number,
                    &analysis.from_epoch,
                    &analysis.started_at,
                    &analysis.unspent,
                    &new.actor,
                ],
            )
            .await?;
            let rows = fetch(tx, LOCK, &[&id, &analysis.number]).await?;
            let Some(now) = rows.first().map(self::analysis).transpose()? else {
                return Ok(false);
            };
            let frozen = now.design.is_none() || now.design == analysis.design;
            if now.looks != analysis.looks || now.started_at != analysis.started_at || !frozen {
                return Ok(false);
            }
            for look in &new.looks {
                insert(tx, new, look).await?;
            }
            let added = i64::try_from(new.looks.len()).unwrap_or(i64::MAX);
            let design = analysis.design.as_ref().map(Json);
            let rows = fetch(tx, COUNT, &[&id, &analysis.number, &added, &design]).await?;
            one(&rows, T)?;
            Ok::<_, StorageError>(true)
        })
        .await
}

async fn insert(
    tx: &Transaction<'_>,
    new: &NewLooks,
    stored: &StoredLook,
) -> Result<(), StorageError> {
    let look = &stored.look;
    fetch(
        tx,
        RECORD,
        &[
            &new.experiment_id,
            &new.analysis.number,
            &stored.variant_id,
            &look.slot,
            &look.time,
            &look.information,
            &look.spending_time,
            &look.z,
            &look.lift,
            &look.bound,
            &look.p,
            &look.level,
            &Json(&new.settings),
        ],
    )
    .await?;
    Ok(())
}

const CLOSE: &str = "-- analyses::close
INSERT INTO promotion_analyses AS a (experiment_id, number, from_epoch, started_at, unspent, design, opened_by, reason, closed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'first look', now())
ON CONFLICT (experiment_id, number) DO UPDATE SET closed_at = now(), design = coalesce(a.design, EXCLUDED.design)";

const REOPEN: &str = "-- analyses::reopen
INSERT INTO promotion_analyses (experiment_id, number, from_epoch, started_at, unspent, opened_by, reason)
VALUES ($1, $2, $3, now(), $4, $5, $6)";

/// What a new analysis is opened with.
#[derive(Clone, Debug)]
pub struct Reopening<'a> {
    /// The analysis that ends, as it was read.
    pub ending: &'a StoredAnalysis,
    /// The part of alpha that is left.
    pub unspent: f64,
    /// Why.
    pub reason: &'a str,
    /// Who asked.
    pub actor: &'a str,
}

/// Ends the open analysis and opens the next one, on units that are assigned from now on: it opens an epoch. The
/// experiment is locked. Answers the experiment after it.
///
/// # Errors
/// [`ChangeError`] when the database does not answer.
pub(super) async fn reopen(
    tx: &Transaction<'_>,
    experiment: &Experiment,
    with: &Reopening<'_>,
) -> Result<Experiment, ChangeError> {
    let ending = with.ending;
    let design = ending.design.as_ref().map(Json);
    fetch(
        tx,
        CLOSE,
        &[
            &experiment.id,
            &ending.number,
            &ending.from_epoch,
            &ending.started_at,
            &ending.unspent,
            &design,
            &with.actor,
        ],
    )
    .await?;
    let after = open_epoch(tx, experiment).await?;
    let next = ending.number.saturating_add(1);
    fetch(
        tx,
        REOPEN,
        &[
            &experiment.id,
            &next,
            &after.epoch,
            &with.unspent,
            &with.actor,
            &with.reason,
        ],
    )
    .await?;
    Ok(after)
}
