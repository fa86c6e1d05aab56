//! The changes: promote, roll back, restart the analysis. Each is part of one transaction of its caller and writes its
//! audit rows and messages there, so that all of it commits or nothing.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::experiment::{Action, Status};
use podium_domain::notification::Message;
use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::analyses::{self, Reopening};
use super::model::{Metadata, Promotion, promotion, promotion_columns};
use super::records::{NewRecord, insert as record, triggered_by};
use crate::audit::{self, Origin, Subject};
use crate::database::{AsStorageError, Query};
use crate::experiments::change::{ChangeError, Precondition};
use crate::experiments::model::{Experiment, ExperimentRef, Variant};
use crate::experiments::rows::{self, fetch, one};
use crate::{StorageError, outbox};

const T: &str = "experiment_promotions";

/// Locks an experiment until the transaction ends.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`].
pub async fn lock(
    tx: &Transaction<'_>,
    reference: &ExperimentRef,
    precondition: &Precondition,
) -> Result<Experiment, ChangeError> {
    Ok(rows::lock(tx, reference, precondition).await?.experiment)
}

/// A promotion to be made of a locked experiment.
#[derive(Clone, Debug)]
pub struct NewPromotion<'a> {
    /// The experiment as it is.
    pub experiment: &'a Experiment,
    /// The winner.
    pub winner: &'a Variant,
    /// When, by the clock of the database.
    pub now: DateTime<Utc>,
    /// Sequential confidence in percent.
    pub confidence: Option<f64>,
    /// Lift in percent.
    pub improvement: Option<f64>,
    /// Units of the winner.
    pub sample_size: Option<i64>,
    /// Whether a person asked.
    pub manual: bool,
    /// What else is noted; the state before is filled in here.
    pub metadata: Metadata,
    /// The safety checks as they came out.
    pub safety_checks: Value,
    /// Why it was forced.
    pub reason: Option<&'a str>,
    /// What was decided from what; the promotion's id is filled in here.
    pub record: NewRecord,
}

/// A promotion that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// The promotion.
    pub promotion: Promotion,
    /// The record of its decision.
    pub record_id: i64,
}

const PROMOTE: &str = concat!(
    "-- promotions::promote
INSERT INTO experiment_promotions AS p (experiment_id, experiment_name, promoted_variant_id, promoted_variant_name,
    control_variant_id, control_variant_name, confidence, improvement, sample_size, promotion_type, promoted_by, metadata)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
RETURNING ",
    promotion_columns!()
);

/// Makes a promotion: its row, the experiment completed with its winner, both audit logs, the record.
///
/// # Errors
/// [`ChangeError::Conflict`] when the experiment's state allows none; [`StorageError::Conflict`] inside when another
/// promotion is active.
pub async fn promote(
    tx: &Transaction<'_>,
    origin: &Origin,
    new: NewPromotion<'_>,
) -> Result<Made, ChangeError> {
    let before = new.experiment;
    let status = before.status.after(Action::Promote)?;
    let made = insert(tx, origin, &new).await?;
    let after = Experiment {
        status,
        end_date: Some(new.now),
        winner_variant_id: Some(new.winner.id),
        statistical_significance: new.confidence,
        ..before.clone()
    };
    let after = rows::store(tx, before, after).await?;
    let (old, changed) = audit::difference(before, &after)?;
    let subject = Subject::new("promotion", "promote", &made.id, Some(before.id));
    audit::append(tx, origin, &subject, Some(old), Some(changed)).await?;
    let row = PromotionAudit {
        action: "promoted",
        winner: Some(new.winner),
        confidence: new.confidence,
        improvement: new.improvement,
        sample_size: new.sample_size,
        safety_checks: Some(&new.safety_checks),
        reason: new.reason,
        promoted_at: Some(made.promoted_at),
        ..PromotionAudit::of(before, new.manual, &origin.actor)
    };
    row.append(tx).await?;
    let record_id = record(
        tx,
        &NewRecord {
            promotion_id: Some(made.id),
            ..new.record
        },
    )
    .await?;
    Ok(Made {
        promotion: made,
        record_id,
    })
}

async fn insert(
    tx: &Transaction<'_>,
    origin: &Origin,
    new: &NewPromotion<'_>,
) -> Result<Promotion, ChangeError> {
    let experiment = new.experiment;
    let control = experiment
        .variants
        .iter()
        .find(|variant| variant.is_control);
    let metadata = Metadata {
        status_before: Some(experiment.status.name().to_owned()),
        winner_before: experiment.winner_variant_id,
        significance_before: experiment.statistical_significance,
        end_date_before: experiment.end_date,
        ..new.metadata.clone()
    };
    let rows = fetch(
        tx,
        PROMOTE,
        &[
            &experiment.id,
            &experiment.name,
            &new.winner.id,
            &new.winner.name,
            &control.map(|variant| variant.id),
            &control.map(|variant| &variant.name),
            &new.confidence,
            &new.improvement,
            &new.sample_size,
            &triggered_by(new.manual),
            &origin.actor,
            &Json(&metadata),
        ],
    )
    .await?;
    Ok(promotion(one(&rows, T)?)?)
}

/// A row of the audit log of promotions.
struct PromotionAudit<'a> {
    experiment: &'a Experiment,
    winner: Option<&'a Variant>,
    previous_winner: Option<i64>,
    action: &'static str,
    manual: bool,
    actor: &'a str,
    confidence: Option<f64>,
    improvement: Option<f64>,
    sample_size: Option<i64>,
    safety_checks: Option<&'a Value>,
    reason: Option<&'a str>,
    promoted_at: Option<DateTime<Utc>>,
    rolled_back_at: Option<DateTime<Utc>>,
    rollback_reason: Option<&'a str>,
}

const AUDIT: &str = "-- promotions::audit
INSERT INTO ab_promotion_audit_log (experiment_id, experiment_name, winning_variant_id, winning_variant_name,
    previous_winner_id, action, triggered_by, user_id, confidence_level, improvement, sample_size, safety_checks_json,
    reason, promoted_at, rolled_back_at, rollback_reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

impl<'a> PromotionAudit<'a> {
    fn of(experiment: &'a Experiment, manual: bool, actor: &'a str) -> Self {
        Self {
            experiment,
            winner: None,
            previous_winner: experiment.winner_variant_id,
            action: "promotion_attempted",
            manual,
            actor,
            confidence: None,
            improvement: None,
            sample_size: None,
            safety_checks: None,
            reason: None,
            promoted_at: None,
            rolled_back_at: None,
            rollback_reason: None,
        }
    }

    async fn append(&self, tx: &Transaction<'_>) -> Result<(), StorageError> {
        fetch(
            tx,
            AUDIT,
            &[
                &self.experiment.id,
                &self.experiment.name,
                &self.winner.map(|variant| variant.id),
                &self.winner.map(|variant| &variant.name),
                &self.previous_winner,
                &self.action,
                &triggered_by(self.manual),
                &self.actor,
                &self.confidence,
                &self.improvement,
                &self.sample_size,
                &self.safety_checks.map(Json),
                &self.reason,
                &self.promoted_at,
                &self.rolled_back_at,
                &self.rollback_reason,
            ],
        )
        .await?;
        Ok(())
    }
}

/// An attempt that came to nothing.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// The experiment as it is.
    pub experiment: &'a Experiment,
    /// The treatment that it was about.
    pub variant: Option<&'a Variant>,
    /// Sequential confidence in percent.
    pub confidence: Option<f64>,
    /// Lift in percent.
    pub improvement: Option<f64>,
    /// Units of the treatment.
    pub sample_size: Option<i64>,
    /// The safety checks as they came out.
    pub safety_checks: Value,
    /// Why nothing came of it.
    pub reason: &'a str,
    /// What was decided from what.
    pub record: NewRecord,
}

/// Notes an attempt, and answers the id of its record.
///
/// # Errors
/// [`StorageError`] when the database does not take it.
pub async fn attempted(
    tx: &Transaction<'_>,
    origin: &Origin,
    attempt: &Attempt<'_>,
) -> Result<i64, StorageError> {
    let row = PromotionAudit {
        winner: attempt.variant,
        confidence: attempt.confidence,
        improvement: attempt.improvement,
        sample_size: attempt.sample_size,
        safety_checks: Some(&attempt.safety_checks),
        reason: Some(attempt.reason),
        ..PromotionAudit::of(attempt.experiment, attempt.record.manual, &origin.actor)
    };
    row.append(tx).await?;
    record(tx, &attempt.record).await
}

/// Why a promotion is not rolled back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// There is none with this id.
    #[error("this promotion does not exist")]
    NotFound,
    /// It was rolled back before; this is the first one's result.
    #[error("the promotion was rolled back already")]
    Already(Box<Promotion>),
    /// The experiment could not be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl From<StorageError> for RollbackError {
    fn from(error: StorageError) -> Self {
        Self::Change(error.into())
    }
}

impl AsStorageError for RollbackError {
    fn as_storage(&self) -> Option<&StorageError> {
        match self {
            Self::Change(error) => error.as_storage(),
            _ => None,
        }
    }
}

const ROLL_BACK: &str = concat!(
    "-- promotions::roll_back
UPDATE experiment_promotions AS p SET rollback_at = now(), rollback_reason = $2
WHERE p.id = $1 AND p.rollback_at IS NULL RETURNING ",
    promotion_columns!()
);

/// A promotion that is to be taken back.
#[derive(Clone, Debug)]
pub struct Rollback<'a> {
    /// Which one.
    pub id: Uuid,
    /// Why.
    pub reason: &'a str,
    /// Whether a person asked.
    pub manual: bool,
    /// What it was decided from, if it was not a person.
    pub evidence: Option<Value>,
    /// Version of what decided.
    pub version: &'static str,
}

/// Takes a promotion back: the experiment gets the state that it had, and so every unit its own variant. One that was
/// archived since stays so. `message` makes what people are told.
///
/// # Errors
/// [`RollbackError`].
pub async fn roll_back(
    tx: &Transaction<'_>,
    origin: &Origin,
    rollback: &Rollback<'_>,
    message: impl Fn(&Promotion) -> Message + Send,
) -> Result<Promotion, RollbackError> {
    let mut link = tx;
    let found = super::read::by_id(&mut link, rollback.id).await?;
    let found = found.ok_or(RollbackError::NotFound)?;
    let before = lock(
        tx,
        &ExperimentRef::Id(found.experiment_id),
        &Precondition::Any,
    )
    .await?;
    let rows = link
        .query(ROLL_BACK, &[&rollback.id, &rollback.reason])
        .await?;
    let Some(row) = rows.first() else {
        // Whoever was first has committed before we got the lock.
        let first = super::read::by_id(&mut link, rollback.id).await?;
        return Err(first.map_or(RollbackError::NotFound, |first| {
            RollbackError::Already(Box::new(first))
        }));
    };
    let taken_back = promotion(row)?;
    let after = rows::store(tx, &before, restored(&before, &found)).await?;
    note_rollback(tx, origin, rollback, &taken_back, (&before, &after)).await?;
    tell_if_possible(tx, &message(&taken_back)).await?;
    Ok(taken_back)
}

/// Queues the news of a rollback, which must work when notifications do not: when that fails, or takes a second, the rollback
/// happens without it.
async fn tell_if_possible(tx: &Transaction<'_>, message: &Message) -> Result<(), StorageError> {
    tx.batch_execute("SAVEPOINT told; SET LOCAL statement_timeout = '1s'")
        .await?;
    if let Err(error) = outbox::enqueue(tx, message).await {
        if error.is_contention() {
            return Err(error);
        }
        tx.batch_execute("ROLLBACK TO SAVEPOINT told").await?;
        tracing::error!(error = %error.chain(), "a rollback could not be told to anybody");
    }
    Ok(())
}

/// Whatever became of the experiment since its promotion, other than completed, was a person's wish and stays.
fn restored(experiment: &Experiment, promotion: &Promotion) -> Experiment {
    let before = promotion.before();
    let completed = experiment.status == Status::Completed;
    Experiment {
        status: if completed {
            before.status
        } else {
            experiment.status
        },
        end_date: if completed {
            before.end_date
        } else {
            experiment.end_date
        },
        winner_variant_id: before.winner,
        statistical_significance: before.significance,
        ..experiment.clone()
    }
}

async fn note_rollback(
    tx: &Transaction<'_>,
    origin: &Origin,
    rollback: &Rollback<'_>,
    promotion: &Promotion,
    (before, after): (&Experiment, &Experiment),
) -> Result<(), ChangeError> {
    let (old, changed) = audit::difference(before, after)?;
    let subject = Subject::new("promotion", "roll-back", &promotion.id, Some(before.id));
    audit::append(tx, origin, &subject, Some(old), Some(changed)).await?;
    let row = PromotionAudit {
        action: "rolled_back",
        winner: before.variant(promotion.promoted_variant_id),
        confidence: promotion.confidence,
        improvement: promotion.improvement,
        sample_size: promotion.sample_size,
        reason: Some(rollback.reason),
        promoted_at: Some(promotion.promoted_at),
        rolled_back_at: promotion.rollback_at,
        rollback_reason: Some(rollback.reason),
        ..PromotionAudit::of(before, rollback.manual, &origin.actor)
    };
    row.append(tx).await?;
    let kept = NewRecord {
        experiment_id: before.id,
        promotion_id: Some(promotion.id),
        kind: "rolled_back",
        manual: rollback.manual,
        actor: origin.actor.clone(),
        version: rollback.version,
        question: None,
        config: None,
        evidence: rollback.evidence.clone(),
        decision: json!({"verdict": "roll_back", "reasons": [rollback.reason]}),
    };
    record(tx, &kept).await?;
    Ok(())
}

/// Ends the open analysis of a locked experiment and opens the next one.
///
/// # Errors
/// [`ChangeError::Conflict`] for an experiment that is neither running nor paused.
pub async fn restart(
    tx: &Transaction<'_>,
    origin: &Origin,
    experiment: &Experiment,
    with: &Reopening<'_>,
) -> Result<Experiment, ChangeError> {
    experiment.status.after(Action::RestartAnalysis)?;
    let after = analyses::reopen(tx, experiment, with).await?;
    let subject = Subject::new(
        "experiment",
        "restart-analysis",
        &experiment.id,
        Some(experiment.id),
    );
    let note = |number: i32, unspent: f64| {
        json!({"analysis": number, "unspentAlpha": unspent, "reason": with.reason}).to_string()
    };
    let (old, new) = (
        note(with.ending.number, with.ending.unspent),
        note(with.ending.number.saturating_add(1), with.unspent),
    );
    audit::append(tx, origin, &subject, Some(old), Some(new)).await?;
    Ok(after)
}
