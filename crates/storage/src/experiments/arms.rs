//! Arms that people add and reset. Those that storefronts rank come by themselves, see [`crate::decisions`].

use deadpool_postgres::Transaction;
use podium_domain::bandit::{ArmType, MAX_ARMS};
use serde_json::json;
use tokio_postgres::Row;

use super::change::{ChangeError, Conflict, Precondition};
use super::model::{Experiment, ExperimentRef};
use super::rows::{fetch, lock_open, one};
use crate::Database;
use crate::analytics::context::{Arm, arm};
use crate::audit::{self, Origin, Subject};
use crate::bandit;
use crate::rows::column;

/// An arm to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewArm {
    /// What it is.
    pub arm_type: ArmType,
    /// Which one.
    pub arm_id: String,
    /// Its name.
    pub name: Option<String>,
    /// JSON text of an object.
    pub metadata: Option<String>,
}

const COUNT: &str = "-- arms::count
SELECT count(*) AS arms FROM bandit_arms WHERE experiment_id = $1 AND arm_type = $2";

const INSERT: &str = "-- arms::insert
INSERT INTO bandit_arms (experiment_id, arm_type, arm_id, arm_name, metadata)
VALUES ($1, $2, $3, $4, coalesce($5::text, '{}')::jsonb)
ON CONFLICT (experiment_id, arm_type, arm_id) DO NOTHING
RETURNING id, arm_type, arm_id, arm_name, alpha, beta, total_pulls, trim_scale(total_reward)::text AS total_reward,
          average_reward, metadata, reset_at, created_at, updated_at";

const READ: &str = "-- arms::read
SELECT id, arm_type, arm_id, arm_name, alpha, beta, total_pulls, trim_scale(total_reward)::text AS total_reward,
       average_reward, metadata, reset_at, created_at, updated_at
FROM bandit_arms WHERE id = $1 AND experiment_id = $2 FOR UPDATE";

/// Adds an arm that nobody has ranked yet.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`]; [`Conflict::ArmExists`], [`Conflict::TooManyArms`],
/// [`Conflict::ArmsClosed`].
pub async fn add(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    precondition: &Precondition,
    new: &NewArm,
) -> Result<Arm, ChangeError> {
    database
        .transaction(async |tx| {
            let experiment = lock_open(tx, reference, precondition, Conflict::ArmsClosed).await?;
            let kind = new.arm_type.name();
            let rows = fetch(tx, COUNT, &[&experiment.id, &kind]).await?;
            let arms: i64 = column(one(&rows, "bandit_arms")?, "bandit_arms", "arms")?;
            if arms >= MAX_ARMS {
                return Err(Conflict::TooManyArms.into());
            }
            let rows = fetch(
                tx,
                INSERT,
                &[&experiment.id, &kind, &new.arm_id, &new.name, &new.metadata],
            )
            .await?;
            let made = arm(rows.first().ok_or(Conflict::ArmExists)?)?;
            let subject = Subject::new("arm", "create", &made.id, Some(experiment.id));
            audit::append(tx, origin, &subject, None, Some(summary(&made))).await?;
            Ok(made)
        })
        .await
}

/// Cuts off the past of an arm: what was counted until now no longer speaks for it. Nothing is deleted.
///
/// # Errors
/// [`ChangeError::NotFound`] also for an arm of another experiment; [`ChangeError::Stale`]; [`Conflict::ArmsClosed`].
pub async fn reset(
    database: &Database,
    origin: &Origin,
    reference: &ExperimentRef,
    precondition: &Precondition,
    row_id: i64,
) -> Result<Arm, ChangeError> {
    database
        .transaction(async |tx| {
            let experiment = lock_open(tx, reference, precondition, Conflict::ArmsClosed).await?;
            let before = read(tx, &experiment, row_id).await?;
            bandit::reset(tx, experiment.id, row_id).await?;
            let after = read(tx, &experiment, row_id).await?;
            let subject = Subject::new("arm", "reset", &row_id, Some(experiment.id));
            let (old, new) = (summary(&before), summary(&after));
            audit::append(tx, origin, &subject, Some(old), Some(new)).await?;
            Ok(after)
        })
        .await
}

async fn read(
    tx: &Transaction<'_>,
    experiment: &Experiment,
    row_id: i64,
) -> Result<Arm, ChangeError> {
    let rows: Vec<Row> = fetch(tx, READ, &[&row_id, &experiment.id]).await?;
    let row = rows.first().ok_or(ChangeError::NotFound("this arm"))?;
    Ok(arm(row)?)
}

/// What the audit log keeps of an arm.
fn summary(arm: &Arm) -> String {
    json!({
        "armType": arm.arm_type,
        "armId": arm.arm_id,
        "armName": arm.arm_name,
        "totalPulls": arm.total_pulls,
        "totalReward": arm.total_reward,
        "resetAt": arm.reset_at,
    })
    .to_string()
}
