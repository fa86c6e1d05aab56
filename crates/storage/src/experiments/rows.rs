//! Statements and row readers that all changes share.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::bucketing::HashVersion;
use podium_domain::experiment::Status;
use podium_domain::metric::Metric;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

use super::change::{ChangeError, Conflict, Precondition};
use super::model::{Experiment, ExperimentRef, Variant};
use super::rules;
use crate::StorageError;
use crate::rows::{column, decimal};

/// Columns of an experiment `e`.
macro_rules! experiment_columns {
    () => {
        "e.id, e.name, e.description, e.experiment_type, e.target, e.status, e.start_date, e.end_date, \
         e.traffic_allocation::text AS traffic_allocation, e.primary_metric, e.secondary_metrics, e.guardrails, e.design, \
         e.config::text AS config, e.salt, e.hash_version, e.epoch, e.winner_variant_id, e.statistical_significance, e.version, \
         e.created_at, e.updated_at, e.created_by"
    };
}

/// Columns of a variant `v`, under names that differ from those of its experiment.
macro_rules! variant_columns {
    () => {
        "v.id AS variant_id, v.experiment_id AS variant_of, v.name AS variant_name, \
         v.description AS variant_description, v.traffic_weight::text AS traffic_weight, v.config::text AS variant_config, \
         v.is_control, v.pulls, v.rewards::double precision AS rewards, v.average_reward, v.confidence_bound, \
         v.created_at AS variant_created_at, v.updated_at AS variant_updated_at"
    };
}

pub(super) use {experiment_columns, variant_columns};

const LOCK_BY_ID: &str = concat!(
    "-- experiments::lock_by_id\nSELECT ",
    experiment_columns!(),
    ", now() AS now FROM experiments e WHERE e.id = $1 FOR UPDATE"
);

const LOCK_BY_NAME: &str = concat!(
    "-- experiments::lock_by_name\nSELECT ",
    experiment_columns!(),
    ", now() AS now FROM experiments e WHERE e.name = $1 FOR UPDATE"
);

/// A statement of its own, because it must see what was committed while the lock was waited for.
const VARIANTS: &str = concat!(
    "-- experiments::variants\nSELECT ",
    variant_columns!(),
    " FROM experiment_variants v WHERE v.experiment_id = $1 ORDER BY v.id"
);

const UPDATE: &str = concat!(
    "-- experiments::update
UPDATE experiments AS e SET
    name = $2, description = $3, experiment_type = $4, target = $5, status = $6, start_date = $7, end_date = $8,
    traffic_allocation = $9::text::numeric, primary_metric = $10, secondary_metrics = $11, guardrails = $12,
    design = $13, config = $14::text::jsonb, hash_version = $15, epoch = $16, winner_variant_id = $17,
    statistical_significance = $18, version = e.version + 1, updated_at = now()
WHERE e.id = $1
RETURNING ",
    experiment_columns!()
);

const CANONICAL: &str = "-- experiments::canonical
SELECT CASE WHEN $1::text::jsonb = $2::text::jsonb THEN $1::text ELSE $2::text::jsonb::text END AS config";

const NEXT_EPOCH: &str = concat!(
    "-- experiments::next_epoch
UPDATE experiments AS e SET epoch = e.epoch + 1, version = e.version + 1, updated_at = now() WHERE e.id = $1 RETURNING ",
    experiment_columns!()
);

/// A bandit's share that does not follow what is learned is split evenly, whatever the weights of its variants.
const OPEN_EPOCH: &str = "-- experiments::open_epoch
INSERT INTO experiment_epochs (experiment_id, epoch, traffic_allocation, weights)
SELECT e.id, e.epoch, e.traffic_allocation,
       coalesce((SELECT jsonb_object_agg(v.id::text, CASE WHEN e.experiment_type = 'bandit' AND v.traffic_weight > 0
                                                          THEN 1 ELSE v.traffic_weight END)
                 FROM experiment_variants v
                 WHERE v.experiment_id = e.id), '{}')
FROM experiments e WHERE e.id = $1";

/// An experiment whose row is locked until the transaction ends.
pub(crate) struct Locked {
    pub(crate) experiment: Experiment,
    /// The time of the transaction, by the clock of the database.
    pub(crate) now: DateTime<Utc>,
}

/// Locks an experiment and checks that it is at a version that the client knows.
pub(crate) async fn lock(
    tx: &Transaction<'_>,
    reference: &ExperimentRef,
    precondition: &Precondition,
) -> Result<Locked, ChangeError> {
    let rows = match reference {
        ExperimentRef::Id(id) => fetch(tx, LOCK_BY_ID, &[id]).await?,
        ExperimentRef::Name(name) => fetch(tx, LOCK_BY_NAME, &[name]).await?,
    };
    let row = rows
        .first()
        .ok_or(ChangeError::NotFound("this experiment"))?;
    let mut experiment = experiment(row)?;
    precondition.check(experiment.version)?;
    experiment.variants = variants(tx, experiment.id).await?;
    Ok(Locked {
        experiment,
        now: column(row, "experiments", "now")?,
    })
}

/// Locks an experiment, as [`lock`], whose arms or overrides are to change: an archived one refuses with what `closed`
/// makes of its state.
pub(super) async fn lock_open(
    tx: &Transaction<'_>,
    reference: &ExperimentRef,
    precondition: &Precondition,
    closed: fn(Status) -> Conflict,
) -> Result<Experiment, ChangeError> {
    let experiment = lock(tx, reference, precondition).await?.experiment;
    if experiment.status == Status::Archived {
        return Err(closed(experiment.status).into());
    }
    Ok(experiment)
}

/// The variants of an experiment, in id order.
pub(super) async fn variants(
    tx: &Transaction<'_>,
    experiment_id: i64,
) -> Result<Vec<Variant>, StorageError> {
    fetch(tx, VARIANTS, &[&experiment_id])
        .await?
        .iter()
        .map(variant)
        .collect()
}

/// Writes an experiment's row with the next version, and opens an epoch where the change asks for one. Its variants
/// have been written before.
pub(crate) async fn store(
    tx: &Transaction<'_>,
    before: &Experiment,
    after: Experiment,
) -> Result<Experiment, ChangeError> {
    let opens_epoch = rules::opens_epoch(before, &after);
    let epoch = before.epoch + i32::from(opens_epoch);
    let rows = fetch(
        tx,
        UPDATE,
        &[
            &after.id,
            &after.name,
            &after.description,
            &after.experiment_type.name(),
            &after.target,
            &after.status.name(),
            &after.start_date,
            &after.end_date,
            &after.traffic_allocation.to_string(),
            &after.primary_metric.name(),
            &Json(metric_names(&after.secondary_metrics)),
            &Json(metric_names(&after.guardrails)),
            &Json(after.design),
            &after.config,
            &after.hash_version.number(),
            &epoch,
            &after.winner_variant_id,
            &after.statistical_significance,
        ],
    )
    .await
    .map_err(refusal)?;
    if opens_epoch {
        fetch(tx, OPEN_EPOCH, &[&after.id]).await?;
    }
    Ok(Experiment {
        variants: after.variants,
        ..experiment(one(&rows, "experiments")?)?
    })
}

/// Opens an epoch although the split stays as it is: units that are assigned from now on belong to another one.
pub(crate) async fn open_epoch(
    tx: &Transaction<'_>,
    before: &Experiment,
) -> Result<Experiment, ChangeError> {
    let rows = fetch(tx, NEXT_EPOCH, &[&before.id]).await?;
    fetch(tx, OPEN_EPOCH, &[&before.id]).await?;
    Ok(Experiment {
        variants: before.variants.clone(),
        ..experiment(one(&rows, "experiments")?)?
    })
}

/// The JSON text `new` as the database will give it back: `old`, when both mean the same, so that a client may send back
/// what it has read, however it writes its JSON.
pub(super) async fn canonical(
    tx: &Transaction<'_>,
    old: &str,
    new: &str,
) -> Result<String, StorageError> {
    let rows = fetch(tx, CANONICAL, &[&old, &new]).await?;
    column(one(&rows, "experiments")?, "experiments", "config")
}

/// Runs a prepared statement inside a transaction.
pub(crate) async fn fetch(
    tx: &Transaction<'_>,
    sql: &'static str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StorageError> {
    let statement = tx.prepare_cached(sql).await?;
    Ok(tx.query(&statement, params).await?)
}

/// The row that a statement on one locked row must return.
pub(crate) fn one<'a>(rows: &'a [Row], table: &'static str) -> Result<&'a Row, StorageError> {
    match rows {
        [row] => Ok(row),
        _ => Err(StorageError::CorruptRow {
            table,
            column: "id",
        }),
    }
}

/// What a unique constraint refuses is a conflict that a client can solve; the rest stays a failure.
pub(super) fn refusal(error: StorageError) -> ChangeError {
    match error.unique_violation() {
        Some("experiments_name_key") => Conflict::NameTaken.into(),
        Some("experiment_variants_experiment_id_name_key") => Conflict::VariantNameTaken.into(),
        Some("experiment_variants_one_control") => Conflict::SecondControl.into(),
        _ => error.into(),
    }
}

pub(super) fn metric_names(metrics: &[Metric]) -> Vec<&'static str> {
    metrics.iter().map(|metric| metric.name()).collect()
}

/// An experiment without its variants.
pub(super) fn experiment(row: &Row) -> Result<Experiment, StorageError> {
    const T: &str = "experiments";
    let hash_version: i16 = column(row, T, "hash_version")?;
    Ok(Experiment {
        id: column(row, T, "id")?,
        name: column(row, T, "name")?,
        description: column(row, T, "description")?,
        experiment_type: word(row, "experiment_type")?,
        target: column(row, T, "target")?,
        status: word(row, "status")?,
        start_date: column(row, T, "start_date")?,
        end_date: column(row, T, "end_date")?,
        traffic_allocation: decimal(row, T, "traffic_allocation")?,
        primary_metric: word(row, "primary_metric")?,
        secondary_metrics: metrics(row, "secondary_metrics")?,
        guardrails: metrics(row, "guardrails")?,
        design: column::<Json<_>>(row, T, "design")?.0,
        config: column(row, T, "config")?,
        salt: column(row, T, "salt")?,
        hash_version: HashVersion::from_number(hash_version.into())
            .ok_or(corrupt("hash_version"))?,
        epoch: column(row, T, "epoch")?,
        winner_variant_id: column(row, T, "winner_variant_id")?,
        statistical_significance: column(row, T, "statistical_significance")?,
        version: column(row, T, "version")?,
        created_at: column(row, T, "created_at")?,
        updated_at: column(row, T, "updated_at")?,
        created_by: column(row, T, "created_by")?,
        variants: Vec::new(),
    })
}

pub(super) fn variant(row: &Row) -> Result<Variant, StorageError> {
    const T: &str = "experiment_variants";
    Ok(Variant {
        id: column(row, T, "variant_id")?,
        experiment_id: column(row, T, "variant_of")?,
        name: column(row, T, "variant_name")?,
        description: column(row, T, "variant_description")?,
        traffic_weight: decimal(row, T, "traffic_weight")?,
        config: column(row, T, "variant_config")?,
        is_control: column(row, T, "is_control")?,
        pulls: column(row, T, "pulls")?,
        rewards: column(row, T, "rewards")?,
        average_reward: column(row, T, "average_reward")?,
        confidence_bound: column(row, T, "confidence_bound")?,
        created_at: column(row, T, "variant_created_at")?,
        updated_at: column(row, T, "variant_updated_at")?,
    })
}

const fn corrupt(column: &'static str) -> StorageError {
    StorageError::CorruptRow {
        table: "experiments",
        column,
    }
}

fn word<T: FromStr>(row: &Row, name: &'static str) -> Result<T, StorageError> {
    let text: &str = column(row, "experiments", name)?;
    text.parse().map_err(|_| corrupt(name))
}

fn metrics(row: &Row, name: &'static str) -> Result<Vec<Metric>, StorageError> {
    let names: Value = column(row, "experiments", name)?;
    let names = names.as_array().ok_or(corrupt(name))?;
    let parsed = names
        .iter()
        .map(|metric| metric.as_str().and_then(|text| text.parse().ok()));
    parsed.collect::<Option<_>>().ok_or(corrupt(name))
}
