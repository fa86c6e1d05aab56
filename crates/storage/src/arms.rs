//! Arms of rankings as choices need them.

use chrono::{DateTime, Utc};
use podium_domain::bandit::ArmType;
use tokio_postgres::Row;

use crate::bandit::counts::{self, ArmCounts};
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
    pulls: i64,
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
SELECT l.experiment_id, l.arm_type, count(a.id) AS arms, coalesce(sum(a.total_pulls), 0)::bigint AS pulls,
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

/// Arms of one type with what is known of them, in the order of their rows; `by_hour` where evidence ages.
///
/// # Errors
/// As [`glances`].
pub async fn load(
    database: &Database,
    experiment_id: i64,
    arm_type: ArmType,
    by_hour: bool,
) -> Result<Vec<ArmCounts>, StorageError> {
    let mut link = database.work().await?;
    counts::read(&mut link, experiment_id, arm_type.name(), by_hour).await
}
