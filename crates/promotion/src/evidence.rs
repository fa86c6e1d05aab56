//! Everything that a decision may look at, read at one moment. It is stored with the decision, so that the verdict can
//! be computed again from it.
//!
//! What could not be read is `None`, and never a number that looks harmless.

use chrono::{DateTime, Utc};
use podium_domain::analysis::EpochSplit;
use podium_domain::decision::evidence::Stratum;
use podium_domain::decision::look::{Analysis, Look};
use serde::{Deserialize, Serialize};

/// An experiment as a decision sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// When it was read, by the clock of the database.
    pub now: DateTime<Utc>,
    /// Seconds for which the oldest of what is missing in the totals has waited; none when that is not known.
    pub lag_seconds: Option<f64>,
    /// What it is.
    pub experiment: Subject,
    /// What was promoted before.
    pub history: History,
    /// The analysis that is open; none before the start.
    pub analysis: Option<OpenAnalysis>,
    /// The control.
    pub control: Option<Arm>,
    /// The treatments, by id.
    pub treatments: Vec<Treatment>,
    /// How units were split.
    pub traffic: Traffic,
    /// Standard deviation of the effects that are expected, relative to the baseline: what an effect is shrunk with.
    pub prior_sd: f64,
}

/// The experiment itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subject {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// `ab_test`, `multivariate`, `bandit`.
    pub experiment_type: String,
    /// Its state: `running` and so on.
    pub status: String,
    /// Its version, which rises with every change.
    pub version: i64,
    /// When it was started.
    pub start_date: Option<DateTime<Utc>>,
    /// Its primary metric.
    pub primary_metric: String,
    /// Metrics that must not get worse.
    pub guardrails: Vec<String>,
}

/// What was promoted before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct History {
    /// The promotion that is active.
    pub active: Option<String>,
    /// When a promotion was rolled back, if that was after the present analysis began.
    pub rolled_back_at: Option<DateTime<Utc>>,
}

/// The analysis that is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenAnalysis {
    /// Its number within the experiment, from 1.
    pub number: i32,
    /// Units that were assigned from this epoch on are in it.
    pub from_epoch: i32,
    /// Design, start, and the alpha that is left to it.
    pub analysis: Analysis,
    /// What of the frozen design was changed since: then a scan opens a new analysis, and nothing can be promoted by
    /// this one.
    pub changed: Option<String>,
}

/// One variant, in the epochs of the analysis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arm {
    /// Its id.
    pub variant_id: i64,
    /// Its name.
    pub name: String,
    /// Its units.
    pub units: i64,
    /// The primary metric's value; none where it is not defined.
    pub value: Option<f64>,
    /// Whether it gets traffic now.
    pub has_traffic: bool,
    /// Errors, latency, alerts.
    pub safety: SafetyReading,
}

/// A treatment and what is known of it against the control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Treatment {
    /// The variant.
    pub arm: Arm,
    /// It and the control in the epochs in which both had traffic; none when they could not be read.
    pub strata: Option<Vec<Stratum>>,
    /// Why there are no strata.
    pub missing: Option<String>,
    /// Its recorded looks, in order.
    pub looks: Vec<Look>,
    /// What honest estimates say where a bandit chose who sees what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandit: Option<BanditReading>,
}

/// A variant of a bandit against the control, by scores weighted with the known propensities. Rates are fractions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BanditReading {
    /// Probability of being best among all variants.
    pub prob_best: f64,
    /// What choosing it costs on average, in the rate's unit.
    pub expected_loss: f64,
    /// The control's rate.
    pub control_rate: f64,
    /// Its rate minus the control's.
    pub difference: f64,
    /// Standard error of the difference.
    pub standard_error: f64,
    /// The interval of the difference that holds at any moment; none before both have 25 units of either outcome.
    pub interval: Option<(f64, f64)>,
    /// Its units with the outcome.
    pub conversions: i64,
    /// The control's.
    pub control_conversions: i64,
}

/// How requests of one epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestCounts {
    /// Stretch of constant weights in which their units were assigned.
    pub epoch: i32,
    /// Requests.
    pub requests: i64,
    /// Those among them with an error.
    pub errors: i64,
    /// How many independent requests they are worth, because requests of one unit are alike.
    pub effective: i64,
}

/// The 95th percentile of request latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Latency {
    /// Units that made a request.
    pub units: i64,
    /// The percentile, in milliseconds.
    #[serde(with = "number")]
    pub p95_ms: f64,
    /// Its two-sided 95 % interval, in milliseconds.
    #[serde(with = "number")]
    pub lower_ms: f64,
    /// Upper end of the interval.
    #[serde(with = "number")]
    pub upper_ms: f64,
}

/// What the safety checks look at in one variant; `None` is "no data".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SafetyReading {
    /// Requests with an error, by epoch; empty is "no data".
    pub errors: Vec<RequestCounts>,
    /// Latency.
    pub latency: Option<Latency>,
    /// Critical alerts in the lookback window of the configuration.
    pub critical_alerts: Option<i64>,
}

/// How units were split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// Units per variant in each epoch, with the weights that were in force.
    pub epochs: Vec<EpochSplit>,
    /// Units whose variant the client named.
    pub client_units: i64,
    /// Whether the experiment allows clients to name variants: `config.allowClientAssignment`.
    #[serde(default)]
    pub allows_client_units: bool,
}

/// A float that may be no number: JSON has no word for that but `null`.
mod number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature is that of serde"
    )]
    pub(super) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        number.is_finite().then_some(*number).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
    }
}
