//! Arms of rankings as choices need them.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use podium_bandit::Counts;
use podium_domain::bandit::ArmType;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::bandit::counts::{self, Counted};
use crate::database::Link;
use crate::rows::column;
use crate::{Database, StorageError};

/// What arms there are of one type, at a glance. Where nothing differs, nothing was learned, made or reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Experiment.
    pub experiment_id: i64,
    /// What the arms are.
    pub arm_type: ArmType,
    arms: i64,
    /// As text: a sum may be larger than what it sums.
    pulls: String,
    resets: i64,
    updated_at: Option<DateTime<Utc>>,
    watermark: i64,
    matured_at: DateTime<Utc>,
    /// Whole hours since 1970, by the clock of the database.
    pub hour: i64,
}

impl Glance {
    /// Whether the other shows the same arms, whatever the hour.
    #[must_use]
    pub fn shows_what(&self, other: &Self) -> bool {
        let hour = other.hour;
        Self {
            hour,
            ..self.clone()
        } == *other
    }
}

const GLANCES: &str = "-- arms::glances
SELECT l.experiment_id, l.arm_type, count(a.id) AS arms, coalesce(sum(a.total_pulls), 0)::text AS pulls,
       count(a.reset_at) AS resets, greatest(max(a.updated_at), max(a.reset_at)) AS updated_at, f.watermark, f.matured_at,
       floor(extract(epoch FROM now()) / 3600)::bigint AS hour
FROM bandit_learning l CROSS JOIN fold_state f LEFT JOIN bandit_arms a USING (experiment_id, arm_type)
WHERE l.experiment_id = ANY ($1) AND l.arm_type <> 'variant'
GROUP BY l.experiment_id, l.arm_type, f.watermark, f.matured_at ORDER BY 1, 2";

/// What arms there are in some experiments.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn glances(
    database: &Database,
    experiments: &[i64],
) -> Result<Vec<Glance>, StorageError> {
    let mut link = database.work().await?;
    let rows = link.query(GLANCES, &[&experiments]).await?;
    rows.iter().map(glance).collect()
}

fn glance(row: &Row) -> Result<Glance, StorageError> {
    const T: &str = "bandit_arms";
    let arm_type: &str = column(row, T, "arm_type")?;
    let arm_type = arm_type.parse().map_err(|_| StorageError::CorruptRow {
        table: T,
        column: "arm_type",
    })?;
    Ok(Glance {
        experiment_id: column(row, T, "experiment_id")?,
        arm_type,
        arms: column(row, T, "arms")?,
        pulls: column(row, T, "pulls")?,
        resets: column(row, T, "resets")?,
        updated_at: column(row, T, "updated_at")?,
        watermark: column(row, "fold_state", "watermark")?,
        matured_at: column(row, "fold_state", "matured_at")?,
        hour: column(row, T, "hour")?,
    })
}

/// Positions that are told apart; impressions further down are not read here.
const POSITIONS: i32 = 100;

/// Impressions by position where arms were placed at random: by the algorithm `uniform`, drawn by weights (which have
/// propensities; a draw by posteriors has none). Only those whose window has passed: rewarded ones are known sooner.
const RANDOMISED: &str = "-- arms::randomised
SELECT p.position, count(*) AS pulls, count(*) FILTER (WHERE p.outcome = 2) AS successes
FROM bandit_arms a JOIN bandit_pulls p ON p.arm_row_id = a.id
JOIN bandit_decisions d ON d.decision_id::text = p.decision_id
CROSS JOIN fold_state f
WHERE a.experiment_id = $1 AND a.arm_type = $2 AND p.outcome > 0 AND p.due_at <= f.matured_at AND p.position BETWEEN 1 AND $3
  AND d.experiment_id = $1 AND d.policy = 'uniform' AND d.propensities IS NOT NULL AND NOT d.excluded
GROUP BY p.position";

const REWARDED: &str = "-- arms::rewarded
SELECT p.arm_row_id, p.position, count(*) AS successes
FROM bandit_arms a JOIN bandit_pulls p ON p.arm_row_id = a.id
WHERE a.experiment_id = $1 AND a.arm_type = $2 AND p.outcome = 2 AND p.position BETWEEN 1 AND $3
  AND p.bucket >= coalesce(a.reset_at, '-infinity')
GROUP BY p.arm_row_id, p.position";

const P: &str = "bandit_pulls";

/// Impressions and successes by position, from the first on, where arms were placed at random.
///
/// # Errors
/// As [`glances`].
pub async fn randomised(
    link: &mut Link,
    experiment_id: i64,
    arm_type: ArmType,
) -> Result<Vec<Counts>, StorageError> {
    let kind = arm_type.name();
    let parameters: [&(dyn ToSql + Sync); 3] = [&experiment_id, &kind, &POSITIONS];
    let mut positions = Vec::new();
    for row in link.query(RANDOMISED, &parameters).await? {
        let at = position(&row)?;
        let counts = Counts::new(count(&row, "pulls")?, count(&row, "successes")?);
        let counts = counts.map_err(|_| corrupt("outcome"))?;
        if positions.len() <= at {
            positions.resize(at + 1, Counts::default());
        }
        if let Some(cell) = positions.get_mut(at) {
            *cell = counts;
        }
    }
    Ok(positions)
}

/// Rewarded impressions of every arm (by the id of its row) by position, from the first on.
///
/// # Errors
/// As [`glances`].
pub async fn rewarded(
    link: &mut Link,
    experiment_id: i64,
    arm_type: ArmType,
) -> Result<HashMap<i64, Vec<u64>>, StorageError> {
    let kind = arm_type.name();
    let parameters: [&(dyn ToSql + Sync); 3] = [&experiment_id, &kind, &POSITIONS];
    let mut arms: HashMap<i64, Vec<u64>> = HashMap::new();
    for row in link.query(REWARDED, &parameters).await? {
        let (at, successes) = (position(&row)?, count(&row, "successes")?);
        let positions = arms.entry(column(&row, P, "arm_row_id")?).or_default();
        if positions.len() <= at {
            positions.resize(at + 1, 0);
        }
        if let Some(cell) = positions.get_mut(at) {
            *cell = successes;
        }
    }
    Ok(arms)
}

/// From 0.
fn position(row: &Row) -> Result<usize, StorageError> {
    let position: i32 = column(row, P, "position")?;
    usize::try_from(position - 1).map_err(|_| corrupt("position"))
}

fn count(row: &Row, name: &'static str) -> Result<u64, StorageError> {
    let count: i64 = column(row, P, name)?;
    u64::try_from(count).map_err(|_| corrupt(name))
}

const fn corrupt(column: &'static str) -> StorageError {
    StorageError::CorruptRow { table: P, column }
}

/// Arms of one type with what is known of them, in the order of their rows; `by_hour` where evidence ages.
///
/// # Errors
/// As [`glances`].
pub async fn load(
    link: &mut Link,
    experiment_id: i64,
    arm_type: ArmType,
    by_hour: bool,
) -> Result<Counted, StorageError> {
    counts::read(link, experiment_id, arm_type.name(), by_hour).await
}
