//! Units pinned to a variant for testing.
//!
//! A unit that was pinned once is left out of the analysis for good: what it did under the override says nothing about
//! shoppers, and counting it from some later moment on would make the count depend on who tested when.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use serde::Serialize;
use tokio_postgres::Row;

use super::change::{ChangeError, Conflict, Precondition};
use super::model::{Experiment, ExperimentRef, Variant};
use super::rows::{fetch, lock_open, one};
use super::rules::unknown_variant;
use crate::audit::{self, Origin, Subject};
use crate::rows::column;
use crate::{Database, StorageError};

/// Which variant to pin a unit to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariantChoice {
    /// By id.
    Id(i64),
    /// By name.
    Name(String),
}

/// A unit pinned to a variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// The experiment.
    pub experiment_id: i64,
    /// The unit.
    pub unit: String,
    /// What it gets.
    pub variant_id: i64,
    /// Name of the variant.
    pub variant: String,
    /// When it was pinned first.
    pub created_at: DateTime<Utc>,
    /// User that pinned it last.
    pub created_by: Option<String>,
}

const READ: &str = "-- overrides::read
SELECT unit, variant_id, created_at, created_by FROM experiment_overrides WHERE experiment_id = $1 AND unit = $2";

const UPSERT: &str = "-- overrides::upsert
INSERT INTO experiment_overrides AS o (experiment_id, unit, variant_id, created_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (experiment_id, unit) DO UPDATE SET variant_id = EXCLUDED.variant_id, created_by = EXCLUDED.created_by
RETURNING unit, variant_id, created_at, created_by";

const EXCLUDE: &str = "-- overrides::exclude
INSERT INTO excluded_units (experiment_id, unit, reason) VALUES ($1, $2, 'override')
ON CONFLICT (experiment_id, unit) DO NOTHING";

const DELETE: &str = "-- overrides::delete
DELETE FROM experiment_overrides WHERE experiment_id = $1 AND unit = $2 RETURNING unit";

/// Pins a unit to a variant and leaves it out of the analysis from now on. The experiment's version stays: neither it
/// nor a variant of it changes.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`], [`ChangeError::Invalid`] for a variant that is not of the
/// experiment, [`Conflict::OverridesClosed`].
pub async fn put(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    precondition: &Precondition,
    unit: &str,
    choice: &VariantChoice,
) -> Result<Override, ChangeError> {
    database
        .transaction(async |tx| {
            let experiment =
                lock_open(tx, reference, precondition, Conflict::OverridesClosed).await?;
            let variant = choose(&experiment, choice)?;
            let before = read(tx, &experiment, unit).await?;
            let rows = fetch(
                tx,
                UPSERT,
                &[&experiment.id, &unit, &variant.id, &origin.actor],
            )
            .await?;
            fetch(tx, EXCLUDE, &[&experiment.id, &unit]).await?;
            let after = pinned(&experiment, one(&rows, "experiment_overrides")?)?;
            let old = before.as_ref().map(audit::whole).transpose()?;
            audit::append(
                tx,
                origin,
                &subject("set", &after),
                old,
                Some(audit::whole(&after)?),
            )
            .await?;
            Ok(after)
        })
        .await
}

/// Removes an override. The unit gets its own variant again, and stays out of the analysis.
///
/// # Errors
/// [`ChangeError::NotFound`] also when the unit is not pinned; [`ChangeError::Stale`]; [`Conflict::OverridesClosed`].
pub async fn delete(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    precondition: &Precondition,
    unit: &str,
) -> Result<(), ChangeError> {
    database
        .transaction(async |tx| {
            let experiment =
                lock_open(tx, reference, precondition, Conflict::OverridesClosed).await?;
            let before = read(tx, &experiment, unit)
                .await?
                .ok_or(ChangeError::NotFound("an override of this unit"))?;
            fetch(tx, DELETE, &[&experiment.id, &unit]).await?;
            audit::append(
                tx,
                origin,
                &subject("remove", &before),
                Some(audit::whole(&before)?),
                None,
            )
            .await?;
            Ok(())
        })
        .await
}

fn choose<'a>(
    experiment: &'a Experiment,
    choice: &VariantChoice,
) -> Result<&'a Variant, ChangeError> {
    let (found, pointer) = match choice {
        VariantChoice::Id(id) => (experiment.variant(*id), "/variantId"),
        VariantChoice::Name(name) => (
            experiment
                .variants
                .iter()
                .find(|variant| variant.name == *name),
            "/variant",
        ),
    };
    found.ok_or_else(|| unknown_variant(pointer))
}

async fn read(
    tx: &Transaction<'_>,
    experiment: &Experiment,
    unit: &str,
) -> Result<Option<Override>, StorageError> {
    fetch(tx, READ, &[&experiment.id, &unit])
        .await?
        .first()
        .map(|row| pinned(experiment, row))
        .transpose()
}

fn pinned(experiment: &Experiment, row: &Row) -> Result<Override, StorageError> {
    const T: &str = "experiment_overrides";
    let variant_id = column(row, T, "variant_id")?;
    let variant = experiment
        .variant(variant_id)
        .ok_or(StorageError::CorruptRow {
            table: T,
            column: "variant_id",
        })?;
    Ok(Override {
        experiment_id: experiment.id,
        unit: column(row, T, "unit")?,
        variant_id,
        variant: variant.name.clone(),
        created_at: column(row, T, "created_at")?,
        created_by: column(row, T, "created_by")?,
    })
}

fn subject(verb: &str, pinned: &Override) -> Subject {
    Subject::new("override", verb, &pinned.unit, Some(pinned.experiment_id))
}
