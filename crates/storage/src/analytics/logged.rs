//! Decisions of rankings with what came of them, for the evaluation of other policies.

use chrono::{DateTime, Utc};
use podium_domain::bandit::ArmType;
use tokio_postgres::Row;

use crate::StorageError;
use crate::database::Link;
use crate::rows::column;

/// Decisions that one evaluation reads: the newest whose window has passed. Those among them whose first place was not seen say
/// nothing and are not replaced by older ones.
pub const MOST: i64 = 100_000;

/// Which decisions are evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Which {
    /// What was ranked.
    pub arm_type: ArmType,
    /// Of one variant only.
    pub variant_id: Option<i64>,
    /// From this moment on.
    pub from: Option<DateTime<Utc>>,
    /// Before this moment.
    pub to: Option<DateTime<Utc>>,
}

/// A decision whose first place was shown, and its outcome is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Arm ids in the order of the request.
    pub candidates: Vec<String>,
    /// Index of the one that came first.
    pub first: usize,
    /// Probability of each candidate to come first.
    pub propensities: Vec<f64>,
    /// What the first place earned.
    pub reward: f64,
}

/// Decisions whose first place was not shown are left out, and those whose attribution window has not passed, also where a
/// reward is there already: whoever takes rewarded ones early and waits for the others sees too many rewards. An item that
/// is seen several times for one decision is one outcome: the reward is that of whichever impression earned it.
const LOGGED: &str = "-- logged::read
SELECT d.candidates, d.placed[1]::integer AS first, d.propensities, p.reward
FROM (
    SELECT decision_id, experiment_id, arm_type, candidates, placed, propensities
    FROM bandit_decisions
    WHERE experiment_id = $1 AND arm_type = $2 AND ($3::bigint IS NULL OR variant_id = $3)
      AND decided_at >= coalesce($4::timestamptz, '-infinity') AND decided_at < coalesce($5::timestamptz, 'infinity')
      AND NOT excluded AND propensities IS NOT NULL
      AND decided_at <= (SELECT f.matured_at - make_interval(secs => coalesce(max(l.attribution_seconds), 0))
                         FROM fold_state f LEFT JOIN bandit_learning l ON l.experiment_id = $1 AND l.arm_type = $2
                         GROUP BY f.matured_at)
    ORDER BY decided_at DESC LIMIT $6) d
JOIN bandit_arms a ON a.experiment_id = d.experiment_id AND a.arm_type = d.arm_type AND a.arm_id = d.candidates[d.placed[1] + 1]
JOIN (
    SELECT p.arm_row_id, p.decision_id, max(p.reward)::double precision AS reward, bool_and(p.due_at <= f.matured_at) AS is_known
    FROM bandit_pulls p CROSS JOIN fold_state f
    WHERE p.experiment_id = $1 AND p.decision_id IS NOT NULL GROUP BY 1, 2) p
  ON p.arm_row_id = a.id AND p.decision_id = d.decision_id::text
WHERE p.is_known
ORDER BY d.decision_id";

const T: &str = "bandit_decisions";

/// The decisions of an experiment that can be evaluated, of the newest [`MOST`].
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn read(
    link: &mut Link,
    experiment_id: i64,
    which: &Which,
) -> Result<Vec<Logged>, StorageError> {
    let kind = which.arm_type.name();
    let rows = link
        .query(
            LOGGED,
            &[
                &experiment_id,
                &kind,
                &which.variant_id,
                &which.from,
                &which.to,
                &MOST,
            ],
        )
        .await?;
    rows.iter().map(logged).collect()
}

fn logged(row: &Row) -> Result<Logged, StorageError> {
    let first: i32 = column(row, T, "first")?;
    let logged = Logged {
        candidates: column(row, T, "candidates")?,
        first: usize::try_from(first).unwrap_or(usize::MAX),
        propensities: column(row, T, "propensities")?,
        reward: column(row, T, "reward")?,
    };
    let fits = logged.candidates.len() == logged.propensities.len();
    if fits && logged.first < logged.candidates.len() {
        Ok(logged)
    } else {
        Err(StorageError::CorruptRow {
            table: T,
            column: "placed",
        })
    }
}
