//! The rows of arms and variants that others read: totals since the last reset.
//!
//! They are not written in the transaction that folds: `update_bandit_arm_performance` writes the same rows at any
//! moment, and each of its calls would make a pass fail. What has come from events is remembered in the arm's row, and the
//! difference is added.

use tokio_postgres::{Client, Transaction};

use super::bounds;
use crate::connect::Purpose;
use crate::experiments::ChangeError;
use crate::fold::LOCK_KEY;
use crate::rows::column;
use crate::{Database, StorageError};

/// Arms that one transaction writes.
const STEP: i64 = 5_000;

const ANY: &str = "-- totals::any
SELECT 1 FROM bandit_stale_arms LIMIT 1";

const LOCK: &str = "-- totals::lock
SELECT pg_try_advisory_xact_lock($1)";

/// Who reports pulls of several arms in one transaction locks them in an order of his own; waiting for one arm while
/// holding another could be a deadlock. An arm that is locked stays stale until the next pass.
const LOCK_ARMS: &str = "-- totals::lock_arms
SELECT a.id FROM bandit_stale_arms s JOIN bandit_arms a ON a.id = s.arm_row_id
WHERE a.experiment_id = coalesce($2, a.experiment_id) ORDER BY a.id LIMIT $1 FOR UPDATE OF a SKIP LOCKED";

/// The recount has to see every arm as it is.
const LOCK_ALL_ARMS: &str = "-- totals::lock_all_arms
SELECT a.id FROM bandit_stale_arms s JOIN bandit_arms a ON a.id = s.arm_row_id
WHERE a.experiment_id = coalesce($2, a.experiment_id) ORDER BY a.id LIMIT $1 FOR UPDATE OF a";

const STALE: &str = "-- totals::stale
SELECT DISTINCT a.experiment_id FROM bandit_stale_arms s JOIN bandit_arms a ON a.id = s.arm_row_id";

const REFRESH: &str = "-- totals::refresh
WITH folded AS (
    SELECT a.id, coalesce(sum(h.pulls), 0)::bigint AS pulls, coalesce(sum(h.successes), 0)::bigint AS successes,
           coalesce(sum(h.reward), 0) AS reward
    FROM unnest($1::bigint[]) AS s (id) JOIN bandit_arms a ON a.id = s.id
    LEFT JOIN bandit_arm_hours h ON h.experiment_id = a.experiment_id AND h.arm_row_id = a.id
                                AND h.bucket >= coalesce(a.reset_at, '-infinity')
    GROUP BY 1),
fresh AS (DELETE FROM bandit_stale_arms WHERE arm_row_id = ANY ($1)),
gone AS (DELETE FROM bandit_stale_arms s WHERE NOT EXISTS (SELECT 1 FROM bandit_arms a WHERE a.id = s.arm_row_id)),
written AS (
    UPDATE bandit_arms a SET
        total_pulls = a.total_pulls + f.pulls - a.folded_pulls,
        total_reward = a.total_reward + f.reward - a.folded_reward,
        alpha = a.alpha + (f.successes - a.folded_successes),
        beta = a.beta + ((f.pulls - f.successes) - (a.folded_pulls - a.folded_successes)),
        average_reward = coalesce((a.total_reward + f.reward - a.folded_reward)
                                  / nullif(a.total_pulls + f.pulls - a.folded_pulls, 0), 0)::double precision,
        folded_pulls = f.pulls, folded_successes = f.successes, folded_reward = f.reward, updated_at = now()
    FROM folded f
    WHERE a.id = f.id
    RETURNING a.experiment_id, a.arm_type)
SELECT DISTINCT experiment_id FROM written WHERE arm_type = 'variant'";

const WRITE_VARIANTS: &str = "-- totals::write_variants
UPDATE experiment_variants v SET pulls = a.total_pulls, rewards = a.total_reward, average_reward = a.average_reward
FROM bandit_arms a
WHERE v.experiment_id = ANY ($1) AND a.experiment_id = v.experiment_id AND a.arm_type = 'variant' AND a.arm_id = v.id::text
  AND a.id = ANY ($2)";

const RESET: &str = "-- totals::reset
UPDATE bandit_arms SET
    reset_at = clock_timestamp(), reset_tx = pg_current_xact_id()::text::bigint, updated_at = now(),
    alpha = 1, beta = 1, total_pulls = 0, total_reward = 0, average_reward = 0,
    folded_pulls = 0, folded_successes = 0, folded_reward = 0
WHERE id = $1 AND experiment_id = $2
RETURNING arm_type, arm_id";

/// What a reset of a variant's arm makes of the variant's row.
const RESET_VARIANT: &str = "-- totals::reset_variant
UPDATE experiment_variants SET pulls = 0, rewards = 0, average_reward = 0, confidence_bound = NULL
WHERE experiment_id = $1 AND id::text = $2";

/// Brings rows up to date whose counts have changed, and the bounds that follow from them, also where some rows could not be
/// written. Another replica may be at it; then nothing happens.
pub(crate) async fn refresh(database: &Database) -> Result<(), StorageError> {
    let totals = rows(database).await;
    bounds::refresh(database).await?;
    totals
}

/// All experiments at once, which is cheap; where that fails, one at a time, so that one does not hold up the others.
async fn rows(database: &Database) -> Result<(), StorageError> {
    let Err(error) = steps(database, None).await else {
        return Ok(());
    };
    if !database.is_reachable() {
        return Err(error);
    }
    for row in database.work().await?.query(STALE, &[]).await? {
        let id: i64 = column(&row, "bandit_arms", "experiment_id")?;
        if let Err(error) = steps(database, Some(id)).await {
            tracing::error!(experiment.id = id, error = %error.chain(), "rows of arms could not be written and will be tried again");
        }
    }
    Ok(())
}

/// Of one experiment, or of all.
async fn steps(database: &Database, experiment: Option<i64>) -> Result<(), StorageError> {
    let mut link = database.work().await?;
    let limit = Purpose::Work.client_limit();
    while link.query_opt(ANY, &[]).await?.is_some() {
        let step = tokio::time::timeout(limit, step(link.client()?, experiment));
        if !step.await.map_err(|_| StorageError::TimedOut)?? {
            break;
        }
    }
    Ok(())
}

/// Answers whether it was this replica's turn, and there was something that nobody else holds.
async fn step(client: &mut Client, experiment: Option<i64>) -> Result<bool, StorageError> {
    let transaction = client.transaction().await?;
    if !has_turn(&transaction).await? {
        return Ok(false);
    }
    let written = write(&transaction, LOCK_ARMS, experiment).await?;
    transaction.commit().await?;
    Ok(written)
}

/// Whether nobody folds or writes rows of arms meanwhile, until the transaction ends.
pub(super) async fn has_turn(transaction: &Transaction<'_>) -> Result<bool, StorageError> {
    let lock = transaction.query_one(LOCK, &[&LOCK_KEY]).await?;
    column(&lock, "fold_state", "pg_try_advisory_xact_lock")
}

/// As [`refresh`], in a transaction that has the lock; bounds follow with the next pass.
pub(crate) async fn catch_up(transaction: &Transaction<'_>) -> Result<(), StorageError> {
    while write(transaction, LOCK_ALL_ARMS, None).await? {}
    Ok(())
}

async fn write(
    transaction: &Transaction<'_>,
    lock: &str,
    experiment: Option<i64>,
) -> Result<bool, StorageError> {
    let locked = transaction.query(lock, &[&STEP, &experiment]).await?;
    let arms: Vec<i64> = locked
        .iter()
        .map(|row| column(row, "bandit_arms", "id"))
        .collect::<Result<_, _>>()?;
    let mut experiments: Vec<i64> = Vec::new();
    for row in transaction.query(REFRESH, &[&arms]).await? {
        experiments.push(column(&row, "bandit_arms", "experiment_id")?);
    }
    transaction
        .execute(WRITE_VARIANTS, &[&experiments, &arms])
        .await?;
    bounds::forget(transaction, &experiments).await?;
    Ok(!arms.is_empty())
}

/// Cuts off the past of an arm: what was counted until now no longer speaks for it. Nothing is deleted. In the
/// transaction of the caller, who audits it.
///
/// # Errors
/// [`ChangeError::NotFound`] for an arm that is not of the experiment.
pub async fn reset(
    transaction: &deadpool_postgres::Transaction<'_>,
    experiment_id: i64,
    arm_row_id: i64,
) -> Result<(), ChangeError> {
    let row = transaction
        .query_opt(RESET, &[&arm_row_id, &experiment_id])
        .await
        .map_err(StorageError::from)?
        .ok_or(ChangeError::NotFound("this arm"))?;
    let arm_type: &str = column(&row, "bandit_arms", "arm_type")?;
    if arm_type == super::learning::VARIANT {
        let variant: &str = column(&row, "bandit_arms", "arm_id")?;
        transaction
            .execute(RESET_VARIANT, &[&experiment_id, &variant])
            .await
            .map_err(StorageError::from)?;
    }
    Ok(())
}
