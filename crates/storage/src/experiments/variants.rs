//! Variants: added, changed, deleted. Each change is one of the experiment, and raises its version.

use deadpool_postgres::Transaction;

use super::change::{ChangeError, Precondition};
use super::model::{Experiment, ExperimentRef, NewVariant, Variant, VariantPatch};
use super::rows::{self, canonical, fetch, lock, one, refusal, store, variant_columns};
use super::rules;
use crate::Database;
use crate::audit::{self, Origin, Subject};

const INSERT: &str = concat!(
    "-- variants::insert
INSERT INTO experiment_variants AS v (experiment_id, name, description, traffic_weight, config, is_control)
VALUES ($1, $2, $3, $4::text::numeric, $5::text::jsonb, $6)
RETURNING ",
    variant_columns!()
);

const UPDATE: &str = concat!(
    "-- variants::update
UPDATE experiment_variants AS v SET
    name = $2, description = $3, traffic_weight = $4::text::numeric, config = $5::text::jsonb, is_control = $6, updated_at = now()
WHERE v.id = $1
RETURNING ",
    variant_columns!()
);

const DELETE: &str = "-- variants::delete
DELETE FROM experiment_variants WHERE id = $1 RETURNING id";

/// A variant after a change, with the version of its experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The variant.
    pub variant: Variant,
    /// Version of the experiment.
    pub version: i64,
}

/// Adds a variant; while units are being assigned that opens an epoch.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`], and those of [`rules::check_new_variant`].
pub async fn add(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    precondition: &Precondition,
    new: &NewVariant,
) -> Result<Changed, ChangeError> {
    database
        .transaction(async |tx| {
            let before = lock(tx, reference, precondition).await?.experiment;
            rules::check_new_variant(&before, new)?;
            let variant = insert(tx, before.id, new).await?;
            let mut after = before.clone();
            after.variants.push(variant.clone());
            let version = store(tx, &before, after).await?.version;
            let subject = subject("create", &variant);
            audit::append(tx, origin, &subject, None, Some(audit::whole(&variant)?)).await?;
            Ok(Changed { variant, version })
        })
        .await
}

async fn insert(
    tx: &Transaction<'_>,
    experiment_id: i64,
    new: &NewVariant,
) -> Result<Variant, ChangeError> {
    let weight = new.traffic_weight.to_string();
    let rows = fetch(
        tx,
        INSERT,
        &[
            &experiment_id,
            &new.name,
            &new.description,
            &weight,
            &new.config,
            &new.is_control,
        ],
    )
    .await
    .map_err(refusal)?;
    Ok(rows::variant(one(&rows, "experiment_variants")?)?)
}

/// Changes fields of a variant. A patch that changes nothing leaves no trace.
///
/// # Errors
/// [`ChangeError::NotFound`] also for a variant of another experiment; [`ChangeError::Stale`]; those of
/// [`rules::variant_patched`].
pub async fn patch(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    variant_id: i64,
    precondition: &Precondition,
    patch: &VariantPatch,
) -> Result<Changed, ChangeError> {
    database
        .transaction(async |tx| {
            let before = lock(tx, reference, precondition).await?.experiment;
            let variant = find(&before, variant_id)?;
            let mut patch = patch.clone();
            if let Some(config) = &mut patch.config {
                *config = canonical(tx, &variant.config, config).await?;
            }
            let wanted = rules::variant_patched(&before, variant, &patch)?;
            if wanted == *variant {
                return Ok(Changed {
                    variant: wanted,
                    version: before.version,
                });
            }
            let written = update(tx, &wanted).await?;
            let after = with_variant(&before, &written);
            let version = store(tx, &before, after).await?.version;
            let (old, new) = audit::difference(variant, &written)?;
            audit::append(
                tx,
                origin,
                &subject("update", variant),
                Some(old),
                Some(new),
            )
            .await?;
            Ok(Changed {
                variant: written,
                version,
            })
        })
        .await
}

async fn update(tx: &Transaction<'_>, variant: &Variant) -> Result<Variant, ChangeError> {
    let weight = variant.traffic_weight.to_string();
    let rows = fetch(
        tx,
        UPDATE,
        &[
            &variant.id,
            &variant.name,
            &variant.description,
            &weight,
            &variant.config,
            &variant.is_control,
        ],
    )
    .await
    .map_err(refusal)?;
    Ok(rows::variant(one(&rows, "experiment_variants")?)?)
}

fn with_variant(experiment: &Experiment, changed: &Variant) -> Experiment {
    let mut after = experiment.clone();
    for variant in after
        .variants
        .iter_mut()
        .filter(|variant| variant.id == changed.id)
    {
        variant.clone_from(changed);
    }
    after
}

/// Deletes a variant of a draft, and the overrides that pin units to it. Returns the version of the experiment.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`],
/// [`Conflict::VariantStays`](super::Conflict::VariantStays) for anything but a draft.
pub async fn delete(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    variant_id: i64,
    precondition: &Precondition,
) -> Result<i64, ChangeError> {
    database
        .transaction(async |tx| {
            let before = lock(tx, reference, precondition).await?.experiment;
            let variant = find(&before, variant_id)?;
            rules::check_variant_deletion(&before)?;
            let rows = fetch(tx, DELETE, &[&variant_id]).await?;
            one(&rows, "experiment_variants")?;
            let mut after = before.clone();
            after.variants.retain(|variant| variant.id != variant_id);
            let version = store(tx, &before, after).await?.version;
            audit::append(
                tx,
                origin,
                &subject("delete", variant),
                Some(audit::whole(variant)?),
                None,
            )
            .await?;
            Ok(version)
        })
        .await
}

fn find(experiment: &Experiment, variant_id: i64) -> Result<&Variant, ChangeError> {
    experiment
        .variant(variant_id)
        .ok_or(ChangeError::NotFound("this variant"))
}

fn subject(verb: &str, variant: &Variant) -> Subject {
    Subject::new("variant", verb, &variant.id, Some(variant.experiment_id))
}
