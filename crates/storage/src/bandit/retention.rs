//! Impressions and rewards of arms that are older than the events that are kept.
//!
//! What was learned from them stays in the counts by hour. They go in steps, each in a transaction that keeps folding out: a
//! pass must not credit a reward to an impression that is just going. An impression and its rewards go together, when
//! all of them are old, so that whatever is counted again later is counted from all of its parts. Only
//! experiments go that a recount leaves out for their dropped events; of all others it finds every row.

use chrono::{DateTime, Utc};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::rows::column;
use crate::{StorageError, fold};

/// Rows that a step looks at.
const STEP: i64 = 20_000;

/// Until when rows go, where they have not yet.
const DUE: &str = "-- bandit_retention::due
SELECT dropped_before FROM fold_state WHERE dropped_before IS DISTINCT FROM pulls_dropped_before";

const DONE: &str = "-- bandit_retention::done
UPDATE fold_state SET pulls_dropped_before = $1";

/// Experiments that learn and whose events may be gone in part: as [`crate::rebuild`] says it.
const LEFT_OUT: &str = "-- bandit_retention::left_out
SELECT l.experiment_id FROM (SELECT DISTINCT experiment_id FROM bandit_learning) l
WHERE EXISTS (SELECT FROM user_experiment_assignments a WHERE a.experiment_id = l.experiment_id AND a.created_at < $1)";

/// The last row of the step of a table that begins behind a row; none: it is the last step.
macro_rules! step_to {
    ($table:literal) => {
        concat!(
            "-- bandit_retention::step_to
SELECT arm_row_id, event_row_id FROM ",
            $table,
            " WHERE (arm_row_id, event_row_id) > ($1, $2) ORDER BY arm_row_id, event_row_id OFFSET $3 LIMIT 1"
        )
    };
}

const PULLS: &str = "-- bandit_retention::pulls
DELETE FROM bandit_pulls p
WHERE (p.arm_row_id, p.event_row_id) > ($2, $3) AND (p.arm_row_id, p.event_row_id) <= ($4, $5)
  AND p.occurred_at < $1 AND p.outcome > 0 AND p.experiment_id = ANY ($6)
  AND NOT EXISTS (SELECT FROM bandit_rewards r
                  WHERE r.arm_row_id = p.arm_row_id AND r.pull_id = p.event_row_id AND r.occurred_at >= $1)";

const REWARDS: &str = "-- bandit_retention::rewards
DELETE FROM bandit_rewards r
WHERE (r.arm_row_id, r.event_row_id) > ($2, $3) AND (r.arm_row_id, r.event_row_id) <= ($4, $5)
  AND r.occurred_at < $1 AND r.experiment_id = ANY ($6)
  AND NOT EXISTS (SELECT FROM bandit_pulls p WHERE p.arm_row_id = r.arm_row_id AND p.event_row_id = r.pull_id)";

/// Deletes what is due. Killed half-way, it begins again the next time.
///
/// # Errors
/// [`StorageError`] when the database does not answer, or folding does not pause within a minute.
pub(crate) async fn drop_old(client: &mut Client) -> Result<(), StorageError> {
    let Some(due) = client.query_opt(DUE, &[]).await? else {
        return Ok(());
    };
    let Some(before) = column::<Option<DateTime<Utc>>>(&due, "fold_state", "dropped_before")?
    else {
        return Ok(());
    };
    let mut experiments: Vec<i64> = Vec::new();
    for row in client.query(LEFT_OUT, &[&before]).await? {
        experiments.push(column(&row, "bandit_learning", "experiment_id")?);
    }
    let old = Old {
        before,
        experiments,
    };
    let pulls = old.sweep(client, step_to!("bandit_pulls"), PULLS).await?;
    let rewards = old
        .sweep(client, step_to!("bandit_rewards"), REWARDS)
        .await?;
    client.execute(DONE, &[&before]).await?;
    tracing::info!(pulls, rewards, %before, "impressions and rewards of arms were dropped");
    Ok(())
}

/// What goes.
struct Old {
    before: DateTime<Utc>,
    experiments: Vec<i64>,
}

impl Old {
    /// Goes through a table by its key. Answers how many rows went.
    async fn sweep(
        &self,
        client: &mut Client,
        to: &str,
        delete: &str,
    ) -> Result<u64, StorageError> {
        const T: &str = "bandit_pulls";
        let (mut from, mut gone) = ((i64::MIN, i64::MIN), 0);
        loop {
            let last = client.query_opt(to, &[&from.0, &from.1, &STEP]).await?;
            let until: (i64, i64) = match &last {
                Some(row) => (
                    column(row, T, "arm_row_id")?,
                    column(row, T, "event_row_id")?,
                ),
                None => (i64::MAX, i64::MAX),
            };
            let transaction = client.transaction().await?;
            fold::keep_out(&transaction).await?;
            let params: [&(dyn ToSql + Sync); 6] = [
                &self.before,
                &from.0,
                &from.1,
                &until.0,
                &until.1,
                &self.experiments,
            ];
            gone += transaction.execute(delete, &params).await?;
            transaction.commit().await?;
            if last.is_none() {
                return Ok(gone);
            }
            from = until;
        }
    }
}
