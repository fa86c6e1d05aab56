//! A metric in each variant, and each treatment against the control.

use chrono::{DateTime, Utc};
use podium_domain::decision::verdict::Criterion;
use podium_storage::analytics::capped::CappedTotal;
use serde::Serialize;
use utoipa::ToSchema;

use super::Range;
use crate::routes::analytics::detail::{LookBody, PosteriorBody, StratumBody};

/// A metric of one variant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricValue {
    /// Variant.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// Whether it is the control.
    pub is_control: bool,
    /// Units behind the value.
    pub units: i64,
    /// The rate (a fraction), mean or ratio; null where it is not defined.
    pub value: Option<f64>,
    /// 95 % interval of the value.
    pub interval: Option<Range>,
    /// Successes, the sum of unit totals, or that of the numerator, never capped.
    pub sum: Option<f64>,
    /// Of a ratio: the sum of the denominator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denominator: Option<f64>,
    /// Variance of one unit's contribution to the value.
    pub variance: Option<f64>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A treatment against the control. Fields are null where they are not defined, and `reason` says why.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricComparison {
    /// Treatment.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// Relative change in percent.
    pub lift: Option<f64>,
    /// Relative change as a fraction.
    pub relative_lift: Option<f64>,
    /// 95 % interval of `relativeLift`.
    pub relative_lift_interval: Option<Range>,
    /// How that was found: `log_ratio`, `delta`, `fieller` (where the control's value is uncertain), or `score` (after a
    /// change of weights, and where nobody converts in the treatment).
    pub relative_lift_method: Option<&'static str>,
    /// Why the lift, or its interval, is null although there is a comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_lift_reason: Option<String>,
    /// Treatment minus control; null for latencies after a change of weights, which are not pooled.
    pub difference: Option<f64>,
    /// 95 % interval of `difference`.
    pub difference_interval: Option<Range>,
    /// Standard error of `difference` (of the log ratio for latencies) that its interval is made with.
    pub standard_error: Option<f64>,
    /// `two_proportion_z`, `welch_t`, `delta_method`, `stratified_z` (after a change of weights: stretches of constant
    /// weights are compared one by one) or `log_quantile_ratio`.
    pub method: Option<&'static str>,
    /// z or t.
    pub statistic: Option<f64>,
    /// For t.
    pub degrees_of_freedom: Option<f64>,
    /// Two-sided, fixed horizon: valid once, at the planned end. Not below 2.2e-308; `lnPValue` goes on.
    pub p_value: Option<f64>,
    /// Natural logarithm of the p-value.
    pub ln_p_value: Option<f64>,
    /// 100 (1 − p), percent, with p not below 1e-9.
    pub significance: Option<f64>,
    /// `pValue` with the number of comparisons of this role taken into account; only in `report`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjusted_p_value: Option<f64>,
    /// How: `bonferroni` (primary, over treatments), `holm` (secondary, guardrails), `benjamini_hochberg` (others).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjustment: Option<&'static str>,
    /// Valid at any moment.
    pub anytime: Option<AnytimeBody>,
    /// Why it is null, and `stratified` and `bayesian` with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anytime_reason: Option<String>,
    /// Adjusted by the covariate that was handed in; null without one, for ratios, and after a change of
    /// weights. Never winsorised: the sums with the covariate are those of the values as they are.
    pub cuped: Option<CupedBody>,
    /// Why it is null although there is a covariate: the sums say so, as where it explains everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuped_reason: Option<String>,
    /// For reading, not for deciding: a threshold on it is not safe under peeking.
    pub bayesian: Option<BayesianBody>,
    /// Compared within each stretch of constant weights.
    pub stratified: Option<StratifiedBody>,
    /// Whether the metric got worse by more than its margin; guardrails only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardrail: Option<GuardrailBody>,
    /// Planned and reached sample; primary metric only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleBody>,
    /// Why the primary metric has none: a variant that gets no new units, or a control whose value is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_reason: Option<String>,
    /// The decision rule; primary metric only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequential: Option<SequentialBody>,
    /// Why there is no comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Evidence and interval of the lift that hold however often one looks, at 95 %.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnytimeBody {
    /// `normal_mixture`, or `bernoulli` (exact) for few conversions and unequal splits.
    pub method: &'static str,
    /// Natural logarithm of the e-value against "no difference".
    pub ln_e_value: f64,
    /// The same against "not better".
    pub ln_e_value_better: f64,
    /// min(1, 1/e) against "no difference".
    pub p_value: f64,
    /// min(1, 1/e) against "not better", with e closed over all treatments: holds for all of them together.
    pub closed_p_value: f64,
    /// Lower end of the lift, a fraction.
    pub lower: Option<f64>,
    /// Upper end of the lift; null where the data give none yet.
    pub upper: Option<f64>,
    /// One-sided lower end of the lift.
    pub at_least: Option<f64>,
    /// ln of the e-value against "not better" by closed testing over all treatments: reject at level α where it is at least
    /// ln 1/α, and of all treatments together at most α are rejected falsely. Primary metric with several treatments only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjusted_ln_e_value_better: Option<f64>,
}

/// The comparison with the part of the variance taken out that a covariate from before the experiment explains. Fixed
/// horizon.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CupedBody {
    /// Units of the two variants that have a covariate. For the others stands the mean of the covariates, that of all
    /// variants in the epoch.
    pub units_with_covariate: i64,
    /// θ, the slope within the arms.
    pub theta: f64,
    /// The control's adjusted mean.
    pub control_mean: f64,
    /// The treatment's.
    pub treatment_mean: f64,
    /// Treatment minus control, adjusted.
    pub difference: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// 95 % interval of `difference`.
    pub difference_interval: Range,
    /// Relative change of the adjusted means, a fraction.
    pub relative_lift: Option<f64>,
    /// 95 % interval of `relativeLift`; null where the control's mean cannot be told from 0.
    pub relative_lift_interval: Option<Range>,
    /// How that was found: `delta`, or `fieller` where the control's mean is uncertain.
    pub relative_lift_method: Option<&'static str>,
    /// z.
    pub statistic: f64,
    /// Two-sided.
    pub p_value: f64,
    /// Its natural logarithm.
    pub ln_p_value: f64,
    /// Part of the variance that went: 0.5 is as good as twice the units.
    pub variance_reduction: f64,
}

/// The Bayesian view: uniform beta priors for proportions, a flat prior for the effect otherwise.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BayesianBody {
    /// Chance that the treatment is better.
    pub chance_to_beat_control: f64,
    /// What choosing it costs on average if it is worse, in the metric's unit.
    pub expected_loss: f64,
    /// 95 % credible interval of the lift, a fraction. Null where the control's value may be so near to 0 that the data bound
    /// no lift over it: of two rates below 4 conversions in the control (alpha of its posterior below 5), otherwise where
    /// the interval has no upper end.
    pub lift_interval: Option<Range>,
    /// What these follow from.
    pub posterior: PosteriorBody,
}

/// The treatment against the control within each stretch of constant weights, put together.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StratifiedBody {
    /// Stretches that counted.
    pub epochs: usize,
    /// z.
    pub statistic: f64,
    /// Lift, a fraction.
    pub lift: Option<f64>,
    /// Treatment minus control.
    pub difference: f64,
    /// Standard error of the difference, if there is none: that of the statistic.
    pub standard_error: f64,
    /// The control's value, weighted alike.
    pub baseline: f64,
    /// Relative information.
    pub information: f64,
    /// What all of this follows from; of the primary metric, and of the metric of `lift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strata: Option<Vec<StratumBody>>,
}

/// Whether a guardrail holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardrailBody {
    /// `non_inferior` (proved), `inferior` (harm proved) or `inconclusive`, one-sided at 5 %.
    pub verdict: &'static str,
    /// p-value of "worse by the margin or more".
    pub p_value: Option<f64>,
    /// The margin.
    pub margin: f64,
    /// Whether the margin is a part of the control's value.
    pub margin_is_relative: bool,
    /// Why it was not tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The sample of the plan: 80 % power, two-sided at 5 % over the number of treatments, after the weights in force.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleBody {
    /// Relative effect that is to be found: the design's, else twice the improvement that promotion asks for, kept between
    /// 0.02 and 0.5, or 0.1 where it asks for none.
    pub effect: f64,
    /// Units needed in the arm that is further from its sample.
    pub required: f64,
    /// Units in that arm.
    pub reached: i64,
    /// Days until both arms have their sample, at the traffic of the last seven days; 0 when they have, null in the first
    /// day. A decision can come sooner or later.
    pub days_left: Option<f64>,
    /// The control's sample.
    pub control: SampleArm,
    /// The treatment's.
    pub treatment: SampleArm,
}

/// The sample of one arm.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleArm {
    /// Units needed.
    pub required: f64,
    /// Units there are.
    pub reached: i64,
}

/// A thing that promotion requires.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CriterionBody {
    /// As measured; null before the first look.
    pub measured: Option<f64>,
    /// As required.
    pub required: f64,
    /// Whether it is met.
    pub met: bool,
}

impl From<Criterion> for CriterionBody {
    fn from(criterion: Criterion) -> Self {
        Self {
            measured: criterion.measured,
            required: criterion.required,
            met: criterion.met,
        }
    }
}

/// The decision rule as of now: group-sequential, so it holds at any schedule of looks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SequentialBody {
    /// Confidence in percent.
    pub confidence: CriterionBody,
    /// z of the last look, against what a leader needs.
    pub lead: CriterionBody,
    /// Lift in percent.
    pub improvement: CriterionBody,
    /// Sequential p-value over all looks.
    pub p_value: Option<f64>,
    /// z of the last look.
    pub statistic: Option<f64>,
    /// What z has to reach for the confidence asked for.
    pub boundary: Option<f64>,
    /// Relative information at the last look.
    pub information: Option<f64>,
    /// Looks that counted, the missed ones too.
    pub looks: usize,
    /// Whether all three are met.
    pub eligible: bool,
    /// What the next look waits for, or why none can be taken.
    pub waiting: Vec<String>,
    /// All looks, the missed ones too, in order; the last may be the one that a scan at this moment would take.
    pub history: Vec<LookBody>,
}

/// The cap of unit totals: what a unit has above it counts as the cap.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Winsorized)]
#[serde(rename_all = "camelCase")]
pub struct WinsorizedBody {
    /// The quantile of all units that was asked for.
    pub upper: f64,
    /// The cap, in the unit of the values: that quantile, but not below the median of the totals above zero.
    pub cap: f64,
    /// When the cap and the sums under it were computed, every five minutes while the experiment runs.
    pub computed_at: DateTime<Utc>,
}

impl From<&CappedTotal> for WinsorizedBody {
    fn from(capped: &CappedTotal) -> Self {
        Self {
            upper: capped.upper,
            cap: capped.cap,
            computed_at: capped.computed_at,
        }
    }
}

/// A metric over all variants.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricReport {
    /// Name.
    pub metric: &'static str,
    /// `proportion`, `mean`, `ratio` or `quantile`.
    pub kind: &'static str,
    /// `primary`, `secondary`, `guardrail` or `other`.
    pub role: &'static str,
    /// Under which cap of unit totals `comparisons` stand; null for metrics that sum no values, where capping is
    /// switched off, and before the first cap is found.
    pub winsorized: Option<WinsorizedBody>,
    /// Its value in each variant, control first; never capped.
    pub variants: Vec<MetricValue>,
    /// Each treatment against the control.
    pub comparisons: Vec<MetricComparison>,
}
