//! Upper confidence bounds of variants, as their rows show them.
//!
//! A bound follows from the pulls of all arms of a bandit, so every pull moves the bounds of all of them, also one that
//! `update_bandit_arm_performance` reports. For which pulls the bounds stand is remembered; where that is not what the arms say,
//! they are computed again.

use podium_bandit::index::{Index, index_values};
use podium_bandit::{Arms, Evidence, Prior};
use tokio_postgres::{Client, Row, Transaction};

use super::totals;
use crate::connect::Purpose;
use crate::rows::column;
use crate::{Database, StorageError};

/// Bandits whose arms are not those for which the bounds stand.
const OUTDATED: &str = "-- bounds::outdated
SELECT l.experiment_id
FROM bandit_learning l
CROSS JOIN LATERAL (
    SELECT sum(a.total_pulls) AS pulls, sum(a.alpha::numeric) AS alpha FROM bandit_arms a
    WHERE a.experiment_id = l.experiment_id AND a.arm_type = 'variant') s
WHERE l.arm_type = 'variant' AND (l.bounded_pulls, l.bounded_alpha) IS DISTINCT FROM (s.pulls, s.alpha)
ORDER BY 1";

/// Whoever changes a variant holds its row, and whoever reports pulls of several variants holds them in an order of his own:
/// nobody is waited for. What is held now is computed in the next pass.
const LOCK: &str = "-- bounds::lock
SELECT id FROM experiment_variants WHERE experiment_id = $1 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";

/// `alpha` is a float; as a decimal its sum does not depend on the order. The sums are those of the same moment as the rows: what
/// is reported later is not taken for counted.
const ARMS: &str = "-- bounds::arms
SELECT v.id, coalesce(a.total_pulls, 0)::double precision AS pulls, coalesce(a.alpha - 1, 0) AS successes,
       s.pulls::text AS all_pulls, s.alpha::text AS all_alpha
FROM experiment_variants v
LEFT JOIN bandit_arms a ON a.experiment_id = v.experiment_id AND a.arm_type = 'variant' AND a.arm_id = v.id::text
CROSS JOIN (SELECT sum(total_pulls) AS pulls, sum(alpha::numeric) AS alpha FROM bandit_arms
            WHERE experiment_id = $1 AND arm_type = 'variant') s
WHERE v.experiment_id = $1 ORDER BY v.id";

const WRITE: &str = "-- bounds::write
UPDATE experiment_variants v SET confidence_bound = b.bound
FROM unnest($1::bigint[], $2::double precision[]) AS b (id, bound)
WHERE v.id = b.id AND v.confidence_bound IS DISTINCT FROM b.bound";

const REMEMBER: &str = "-- bounds::remember
UPDATE bandit_learning SET bounded_pulls = $2::text::numeric, bounded_alpha = $3::text::numeric
WHERE experiment_id = $1 AND arm_type = 'variant'";

const FORGET: &str = "-- bounds::forget
UPDATE bandit_learning SET bounded_pulls = NULL, bounded_alpha = NULL WHERE experiment_id = ANY ($1) AND arm_type = 'variant'";

/// Computes what is outdated. A bandit for which that fails is in the log, and holds up no other.
pub(super) async fn refresh(database: &Database) -> Result<(), StorageError> {
    let outdated = database.work().await?.query(OUTDATED, &[]).await?;
    for row in &outdated {
        let id: i64 = column(row, "bandit_learning", "experiment_id")?;
        match in_time(database, id).await {
            Err(error) if !database.is_reachable() => return Err(error),
            Err(error) => {
                tracing::error!(experiment.id = id, error = %error.chain(), "bounds of variants could not be brought up to date");
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn in_time(database: &Database, experiment_id: i64) -> Result<(), StorageError> {
    let mut link = database.work().await?;
    let written = one(link.client()?, experiment_id);
    tokio::time::timeout(Purpose::Work.client_limit(), written)
        .await
        .map_err(|_| StorageError::TimedOut)?
}

/// The arms of these experiments have changed, perhaps so that their sums have not.
pub(super) async fn forget(
    transaction: &Transaction<'_>,
    experiments: &[i64],
) -> Result<(), StorageError> {
    transaction.execute(FORGET, &[&experiments]).await?;
    Ok(())
}

async fn one(client: &mut Client, experiment_id: i64) -> Result<(), StorageError> {
    let transaction = client.transaction().await?;
    if !totals::has_turn(&transaction).await? {
        return Ok(());
    }
    let held = transaction.query(LOCK, &[&experiment_id]).await?;
    let arms = transaction.query(ARMS, &[&experiment_id]).await?;
    let Some(first) = arms.first().filter(|_| held.len() == arms.len()) else {
        return Ok(());
    };
    let pulls: Option<&str> = column(first, T, "all_pulls")?;
    let alpha: Option<&str> = column(first, T, "all_alpha")?;
    let ids: Vec<i64> = arms
        .iter()
        .map(|row| column(row, T, "id"))
        .collect::<Result<_, _>>()?;
    let evidence: Vec<Option<Evidence>> = arms.iter().map(evidence).collect::<Result<_, _>>()?;
    transaction
        .execute(WRITE, &[&ids, &bounds(experiment_id, evidence)])
        .await?;
    transaction
        .execute(REMEMBER, &[&experiment_id, &pulls, &alpha])
        .await?;
    transaction.commit().await?;
    Ok(())
}

const T: &str = "bandit_arms";

/// `None` for counts that nobody can have seen, which others' code may write.
fn evidence(row: &Row) -> Result<Option<Evidence>, StorageError> {
    Ok(Evidence::new(column(row, T, "pulls")?, column(row, T, "successes")?).ok())
}

/// Upper confidence bounds of the success rates (KL-UCB); none without pulls, and none at all where the counts contradict
/// each other.
fn bounds(experiment_id: i64, evidence: Vec<Option<Evidence>>) -> Vec<Option<f64>> {
    let none = vec![None; evidence.len()];
    let Some(evidence) = evidence.into_iter().collect::<Option<Vec<_>>>() else {
        tracing::warn!(
            experiment.id = experiment_id,
            "arms have more successes than pulls; their variants have no bounds"
        );
        return none;
    };
    let arms = Arms::from_evidence(Prior::FLAT, &evidence);
    index_values(Index::KlUcb { c: 0.0 }, &arms)
        .into_iter()
        .zip(evidence)
        .map(|(bound, seen)| (seen.plays() > 0.0 && bound.is_finite()).then_some(bound))
        .collect()
}
