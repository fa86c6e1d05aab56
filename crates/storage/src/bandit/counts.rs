//! The counts that choices are made from.

use podium_domain::bandit::evidence::{ArmHistory, HourCounts};
use tokio_postgres::Row;

use crate::StorageError;
use crate::database::Link;
use crate::rows::column;

/// An arm with its counts since its last reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmCounts {
    /// Id of its row.
    pub row_id: i64,
    /// Which variant, item, brand, category or algorithm.
    pub arm_id: String,
    /// The counts; one entry of hour 0 when they were not asked for by hour.
    pub history: ArmHistory,
}

impl ArmCounts {
    /// An arm that has no row yet.
    pub(super) fn unseen(arm_id: String) -> Self {
        Self {
            row_id: 0,
            arm_id,
            history: ArmHistory::default(),
        }
    }
}

/// Arms and what they were read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How far folding was: events of earlier transactions are in the counts, and no others are. 0 without arms.
    pub position: i64,
    /// The arms.
    pub arms: Vec<ArmCounts>,
}

/// `$3`: by hour. What was reported through `update_bandit_arm_performance` is counted in the hour of the report.
const READ: &str = "-- counts::read
SELECT a.id, a.arm_id, c.hour, c.pending, c.pulls, c.successes, c.reward, c.reward_sq, f.watermark
FROM bandit_arms a
CROSS JOIN fold_state f
LEFT JOIN LATERAL (
    SELECT CASE WHEN $3 THEN hour ELSE 0 END AS hour, sum(pending)::bigint AS pending, sum(pulls)::bigint AS pulls,
           sum(successes)::bigint AS successes, trunc(sum(reward) * 10000)::text AS reward,
           trunc(sum(reward_sq) * 100000000)::text AS reward_sq
    FROM (
        SELECT floor(extract(epoch FROM h.bucket) / 3600)::bigint AS hour, h.pending, h.pulls, h.successes, h.reward, h.reward_sq
        FROM bandit_arm_hours h
        WHERE h.experiment_id = a.experiment_id AND h.arm_row_id = a.id AND h.bucket >= coalesce(a.reset_at, '-infinity')
        UNION ALL
        SELECT floor(extract(epoch FROM u.created_at) / 3600)::bigint, 0, 1, u.success::integer, greatest(u.reward, 0),
               greatest(u.reward, 0) * greatest(u.reward, 0)
        FROM bandit_arm_updates u
        WHERE a.total_pulls > a.folded_pulls AND u.arm_row_id = a.id AND u.created_at >= coalesce(a.reset_at, '-infinity')) parts
    GROUP BY 1) c ON true
WHERE a.experiment_id = $1 AND a.arm_type = $2
ORDER BY a.id, c.hour";

/// All arms of a type, in the order of their rows, in one snapshot with the position of folding. Arms that nobody has seen
/// have an empty history.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn read(
    link: &mut Link,
    experiment_id: i64,
    arm_type: &str,
    by_hour: bool,
) -> Result<Counted, StorageError> {
    let mut counted = Counted::default();
    let arms = &mut counted.arms;
    for row in link
        .query(READ, &[&experiment_id, &arm_type, &by_hour])
        .await?
    {
        counted.position = column(&row, "fold_state", "watermark")?;
        let row_id: i64 = column(&row, "bandit_arms", "id")?;
        if arms.last().is_none_or(|last| last.row_id != row_id) {
            arms.push(ArmCounts {
                row_id,
                arm_id: column(&row, "bandit_arms", "arm_id")?,
                history: ArmHistory::default(),
            });
        }
        if let (Some(arm), Some(hour)) = (arms.last_mut(), hour(&row)?) {
            arm.history.hours.push(hour);
        }
    }
    Ok(counted)
}

const T: &str = "bandit_arm_hours";

fn hour(row: &Row) -> Result<Option<HourCounts>, StorageError> {
    let Some(hour) = column(row, T, "hour")? else {
        return Ok(None);
    };
    Ok(Some(HourCounts {
        hour,
        pending: count(row, "pending")?,
        pulls: count(row, "pulls")?,
        successes: count(row, "successes")?,
        reward: sum(row, "reward")?,
        reward_sq: sum(row, "reward_sq")?,
    }))
}

fn count(row: &Row, name: &'static str) -> Result<u64, StorageError> {
    let count: i64 = column(row, T, name)?;
    u64::try_from(count).map_err(|_| StorageError::CorruptRow {
        table: T,
        column: name,
    })
}

fn sum(row: &Row, name: &'static str) -> Result<u128, StorageError> {
    let text: &str = column(row, T, name)?;
    text.parse().map_err(|_| StorageError::CorruptRow {
        table: T,
        column: name,
    })
}
