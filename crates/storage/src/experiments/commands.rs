//! Creating, changing and deleting experiments, and the steps of their life.

use deadpool_postgres::Transaction;
use podium_domain::experiment::Action;
use podium_domain::notification::Named;
use tokio_postgres::types::Json;

use super::change::{ChangeError, Conflict, Precondition};
use super::model::{Experiment, ExperimentPatch, ExperimentRef, NewExperiment};
use super::rows::{
    self, canonical, experiment_columns, fetch, lock, metric_names, one, refusal, store,
};
use super::rules::{self, Step};
use crate::Database;
use crate::audit::{self, Origin, Subject};
use crate::promotions::records;

const INSERT: &str = concat!(
    "-- experiments::insert
INSERT INTO experiments AS e
    (name, description, experiment_type, target, traffic_allocation, primary_metric, secondary_metrics, guardrails,
     design, config, salt, hash_version, created_by)
VALUES ($1, $2, $3, $4, $5::text::numeric, $6, $7, $8, $9, $10::text::jsonb, $11, $12, $13)
RETURNING ",
    experiment_columns!()
);

const DELETE: &str = "-- experiments::delete
DELETE FROM experiments WHERE id = $1 RETURNING id";

/// Nobody was assigned in a draft, so nothing was derived from them.
const DELETE_COVARIATES: &str = "-- experiments::delete_covariates
DELETE FROM unit_covariates WHERE experiment_id = $1";

/// A promotion whose guard is at work.
const WATCHED: &str = "-- experiments::watched
SELECT 1 FROM experiment_promotions p JOIN promotion_rollouts r ON r.promotion_id = p.id
WHERE p.experiment_id = $1 AND p.rollback_at IS NULL AND r.watch_hours > 0 AND r.watch_ended_at IS NULL";

/// Creates a draft.
///
/// # Errors
/// [`Conflict::NameTaken`].
pub async fn create(
    database: &Database,
    origin: &Origin,
    new: &NewExperiment,
) -> Result<Experiment, ChangeError> {
    database
        .transaction(async |tx| {
            let created = insert(tx, origin, new).await?;
            let subject = subject("create", created.id);
            audit::append(tx, origin, &subject, None, Some(audit::whole(&created)?)).await?;
            Ok(created)
        })
        .await
}

async fn insert(
    tx: &Transaction<'_>,
    origin: &Origin,
    new: &NewExperiment,
) -> Result<Experiment, ChangeError> {
    let rows = fetch(
        tx,
        INSERT,
        &[
            &new.name,
            &new.description,
            &new.experiment_type.name(),
            &new.target,
            &new.traffic_allocation.to_string(),
            &new.primary_metric.name(),
            &Json(metric_names(&new.secondary_metrics)),
            &Json(metric_names(&new.guardrails)),
            &Json(new.design),
            &new.config,
            &new.salt,
            &new.hash_version.number(),
            &origin.actor,
        ],
    )
    .await
    .map_err(refusal)?;
    Ok(rows::experiment(one(&rows, "experiments")?)?)
}

/// Changes fields of an experiment. A patch that changes nothing leaves no trace: no new version, no entry in the log.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`], [`Conflict::Fixed`],
/// [`Conflict::NameTaken`].
pub async fn patch(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    precondition: &Precondition,
    patch: &ExperimentPatch,
) -> Result<Experiment, ChangeError> {
    database
        .transaction(async |tx| {
            let before = lock(tx, reference, precondition).await?.experiment;
            let mut patch = patch.clone();
            if let Some(config) = &mut patch.config {
                *config = canonical(tx, &before.config, config).await?;
            }
            let after = rules::patched(&before, &patch)?;
            if after == before {
                return Ok(before);
            }
            replace(tx, origin, "update", &before, after).await
        })
        .await
}

/// Takes a step in the life of an experiment.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`], [`Conflict::PromotionWatched`], and those of [`rules::step`].
pub async fn step(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    precondition: &Precondition,
    step: Step,
) -> Result<Experiment, ChangeError> {
    database
        .transaction(async |tx| {
            let locked = lock(tx, reference, precondition).await?;
            let after = rules::step(&locked.experiment, step, locked.now)?;
            if step == Step::Archive && !fetch(tx, WATCHED, &[&after.id]).await?.is_empty() {
                return Err(Conflict::PromotionWatched.into());
            }
            let after =
                replace(tx, origin, step.action().name(), &locked.experiment, after).await?;
            // A pause keeps what it is held for; an end does not.
            if matches!(
                step,
                Step::Stop | Step::DeclareWinner { .. } | Step::Archive
            ) {
                let named = Named {
                    id: after.id,
                    name: after.name.clone(),
                };
                records::end_hold(tx, named, locked.now).await?;
            }
            Ok(after)
        })
        .await
}

/// Deletes a draft with its variants, overrides and covariates.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`],
/// [`Conflict::Transition`] for anything but a draft.
pub async fn delete(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    precondition: &Precondition,
) -> Result<(), ChangeError> {
    database
        .transaction(async |tx| {
            let experiment = lock(tx, reference, precondition).await?.experiment;
            experiment.status.after(Action::Delete)?;
            let rows = fetch(tx, DELETE, &[&experiment.id]).await?;
            one(&rows, "experiments")?;
            fetch(tx, DELETE_COVARIATES, &[&experiment.id]).await?;
            for variant in &experiment.variants {
                let subject = Subject::new("variant", "delete", &variant.id, Some(experiment.id));
                audit::append(tx, origin, &subject, Some(audit::whole(variant)?), None).await?;
            }
            let subject = subject("delete", experiment.id);
            audit::append(tx, origin, &subject, Some(audit::whole(&experiment)?), None).await?;
            Ok(())
        })
        .await
}

async fn replace(
    tx: &Transaction<'_>,
    origin: &Origin,
    verb: &str,
    before: &Experiment,
    after: Experiment,
) -> Result<Experiment, ChangeError> {
    let after = store(tx, before, after).await?;
    let (old, new) = audit::difference(before, &after)?;
    audit::append(tx, origin, &subject(verb, after.id), Some(old), Some(new)).await?;
    Ok(after)
}

fn subject(verb: &str, id: i64) -> Subject {
    Subject::new("experiment", verb, &id, Some(id))
}
