//! Promotions as they are stored and listed.

use chrono::{DateTime, Utc};
use podium_domain::experiment::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::StorageError;
use crate::rows::column;

const T: &str = "experiment_promotions";

/// A promotion.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// Its id.
    pub id: Uuid,
    /// The experiment.
    pub experiment_id: i64,
    /// Its name at the time.
    pub experiment_name: String,
    /// The winner.
    pub promoted_variant_id: i64,
    /// Its name at the time.
    pub promoted_variant_name: String,
    /// The control.
    pub control_variant_id: Option<i64>,
    /// Its name at the time.
    pub control_variant_name: Option<String>,
    /// Sequential confidence in percent.
    pub confidence: Option<f64>,
    /// Lift in percent.
    pub improvement: Option<f64>,
    /// Units of the winner.
    pub sample_size: Option<i64>,
    /// `auto` or `manual`.
    pub promotion_type: String,
    /// Who promoted it.
    pub promoted_by: Option<String>,
    /// When, by the clock of the database.
    pub promoted_at: DateTime<Utc>,
    /// When it was rolled back.
    pub rollback_at: Option<DateTime<Utc>>,
    /// Why it was rolled back.
    pub rollback_reason: Option<String>,
    /// What else was noted: [`Metadata`], where we wrote it.
    pub metadata: Value,
}

/// What is noted with a promotion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// State of the experiment before, which a rollback restores.
    pub status_before: Option<String>,
    /// Its winner before.
    pub winner_before: Option<i64>,
    /// The significance that was declared before.
    pub significance_before: Option<f64>,
    /// Its end before.
    pub end_date_before: Option<DateTime<Utc>>,
    /// Whether it was forced.
    pub forced: bool,
    /// Why it was forced.
    pub reason: Option<String>,
    /// Observed lift in percent, and its standard error: what later effects are shrunk with.
    pub lift_percent: Option<f64>,
    /// Standard error of the lift, in percentage points.
    pub standard_error_percent: Option<f64>,
    /// The configuration in force.
    pub config: Value,
}

impl Promotion {
    /// The state of the experiment that a rollback restores.
    #[must_use]
    pub fn before(&self) -> Before {
        let metadata: Metadata = serde_json::from_value(self.metadata.clone()).unwrap_or_default();
        let status = metadata.status_before.and_then(|name| name.parse().ok());
        Before {
            // What was promoted was running, if nothing else is known.
            status: status.unwrap_or(Status::Running),
            winner: metadata.winner_before,
            significance: metadata.significance_before,
            end_date: metadata.end_date_before,
        }
    }
}

/// The state of an experiment before its promotion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Before {
    /// Its status.
    pub status: Status,
    /// Its winner.
    pub winner: Option<i64>,
    /// The declared significance.
    pub significance: Option<f64>,
    /// Its end.
    pub end_date: Option<DateTime<Utc>>,
}

/// Columns of a promotion `p`.
macro_rules! promotion_columns {
    () => {
        "p.id, p.experiment_id, p.experiment_name, p.promoted_variant_id, p.promoted_variant_name, \
         p.control_variant_id, p.control_variant_name, p.confidence, p.improvement, p.sample_size, p.promotion_type, \
         p.promoted_by, p.promoted_at, p.rollback_at, p.rollback_reason, p.metadata"
    };
}
pub(super) use promotion_columns;

pub(super) fn promotion(row: &Row) -> Result<Promotion, StorageError> {
    Ok(Promotion {
        id: column(row, T, "id")?,
        experiment_id: column(row, T, "experiment_id")?,
        experiment_name: column(row, T, "experiment_name")?,
        promoted_variant_id: column(row, T, "promoted_variant_id")?,
        promoted_variant_name: column(row, T, "promoted_variant_name")?,
        control_variant_id: column(row, T, "control_variant_id")?,
        control_variant_name: column(row, T, "control_variant_name")?,
        confidence: column(row, T, "confidence")?,
        improvement: column(row, T, "improvement")?,
        sample_size: column(row, T, "sample_size")?,
        promotion_type: column(row, T, "promotion_type")?,
        promoted_by: column(row, T, "promoted_by")?,
        promoted_at: column(row, T, "promoted_at")?,
        rollback_at: column(row, T, "rollback_at")?,
        rollback_reason: column(row, T, "rollback_reason")?,
        metadata: column::<Json<Value>>(row, T, "metadata")?.0,
    })
}
