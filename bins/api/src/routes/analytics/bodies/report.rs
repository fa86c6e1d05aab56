//! What `report` and `lift` answer.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{BanditBody, MetricReport, PerformanceRow, PositionRow, TopRow};
use crate::routes::analytics::detail::{AnalysisBody, SplitEpoch};
use crate::routes::promotion::bodies::WatchBody;

/// The split against the configured weights, of the units that the server drew.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitCheck {
    /// p-value of the chi-square test; null where it would say nothing.
    pub p_value: Option<f64>,
    /// Anytime-valid p-value by the multinomial e-process, stretches of constant weights multiplied: safe to look at all
    /// the time.
    pub anytime_p_value: Option<f64>,
    /// Whether the split is off (p < 0.001).
    pub mismatch: bool,
    /// Why it was not tested, or what was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Units whose variant the client named. The weights say nothing about them, so they are left out.
    pub client_units: i64,
    /// χ², with one stretch of constant weights.
    pub chi_square: Option<f64>,
    /// Its degrees of freedom.
    pub degrees_of_freedom: Option<usize>,
    /// Natural logarithm of `pValue`, right where that is too small for a float.
    pub ln_p_value: Option<f64>,
    /// ln of the e-value of the multinomial e-process; `anytimePValue` is min(1, 1/e).
    pub ln_e_value: Option<f64>,
    /// Counts and weights that were tested.
    pub epochs: Vec<SplitEpoch>,
}

impl SplitCheck {
    /// The logarithm of the smaller of the two p-values.
    pub(in crate::routes::analytics) fn smallest_ln_p(&self) -> Option<f64> {
        let anytime = self.ln_e_value.map(|ln_e| (-ln_e).min(0.0));
        match (self.ln_p_value, anytime) {
            (Some(fixed), Some(anytime)) => Some(fixed.min(anytime)),
            (one, other) => one.or(other),
        }
    }
}

/// What was recorded and left out of the analysis.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOutBody {
    /// Events of known bots.
    pub bot_events: i64,
    /// Units first seen as bots.
    pub bot_units: i64,
    /// Before the assignment, after the end, of pinned units.
    pub uncounted_events: i64,
}

/// Everything that a decision needs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Experiment.
    pub experiment_id: i64,
    /// Its name.
    pub experiment_name: String,
    /// State of the life cycle.
    pub status: &'static str,
    /// Primary metric.
    pub primary_metric: &'static str,
    /// Last start.
    pub start_date: Option<DateTime<Utc>>,
    /// End.
    pub end_date: Option<DateTime<Utc>>,
    /// Seconds by which the figures may lag behind the events; null where nobody knows, because the database's clock was set
    /// back.
    pub lag_seconds: Option<f64>,
    /// When the sums were read, all in one snapshot.
    pub read_at: DateTime<Utc>,
    /// When folding had last caught up with the events.
    pub folded_at: DateTime<Utc>,
    /// The analysis that the figures belong to; null before the start.
    pub analysis: Option<AnalysisBody>,
    /// Totals per variant, control first.
    pub performance: Vec<PerformanceRow>,
    /// Share of units whose variant the client named.
    pub client_assigned_share: Option<f64>,
    /// The split.
    pub split: SplitCheck,
    /// Primary metric first, then secondary, guardrails, and the others.
    pub metrics: Vec<MetricReport>,
    /// Of a bandit over variants, from the first units on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandit: Option<BanditBody>,
    /// How the active promotion is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promotion: Option<WatchBody>,
    /// By position.
    pub positions: Vec<PositionRow>,
    /// Items with the most clicks.
    pub top_items: Vec<TopRow>,
    /// Brands with the most clicks.
    pub top_brands: Vec<TopRow>,
    /// Recorded and left out.
    pub left_out: LeftOutBody,
    /// What to do, in words; never "Ship" where a promotion would be refused at this moment.
    pub verdict: String,
    /// How to read the figures.
    pub notes: Vec<String>,
}

/// Answer of `lift`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lift {
    /// The metric.
    #[serde(flatten)]
    pub report: MetricReport,
    /// Of a bandit over variants, from the first units on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandit: Option<BanditBody>,
    /// How to read it.
    pub note: &'static str,
}
