//! Answers of the analytics routes, as the OpenAPI document shows them.
//!
//! Names of the earlier system keep their percents (`clickThroughRate`, `conversionRate`, `lift`, `significance`); every
//! other rate is a fraction.

use chrono::{DateTime, NaiveDate, Utc};
use podium_domain::decision::verdict::Criterion;
use podium_storage::analytics::capped::CappedTotal;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::detail::{AnalysisBody, LookBody, PosteriorBody, SplitEpoch, StratumBody};
use crate::routes::promotion::bodies::WatchBody;

/// An exact decimal number as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = f64)]
pub struct Money(pub Box<RawValue>);

impl Money {
    /// From the exact text of the database; zeros at the end are cut.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let short = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            text
        };
        let number = if short.is_empty() || short == "-" {
            "0"
        } else {
            short
        };
        RawValue::from_string(number.to_owned())
            .map_or_else(|_| Self(RawValue::NULL.to_owned()), Self)
    }
}

/// An interval at 95 %.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Range {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

impl From<podium_domain::stats::Interval> for Range {
    fn from(interval: podium_domain::stats::Interval) -> Self {
        Self {
            lower: interval.lower,
            upper: interval.upper,
        }
    }
}

/// One variant in `performance`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PerformanceRow {
    /// Variant.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// Whether it is the control.
    pub is_control: bool,
    /// Units that are analysed, those that did nothing included; of a range: assigned until its last day.
    pub units: i64,
    /// Units that did something in the range; null without one.
    pub active_units: Option<i64>,
    /// Impressions.
    pub impressions: i64,
    /// Clicks.
    pub clicks: i64,
    /// Add-to-cart events.
    pub add_to_carts: i64,
    /// Purchase events.
    pub conversions: i64,
    /// Clicks in percent of impressions; null without impressions.
    pub click_through_rate: Option<f64>,
    /// Purchase events in percent of impressions; null without impressions.
    pub conversion_rate: Option<f64>,
    /// Value of purchases.
    pub total_value: Money,
    /// Value of purchases per unit; null without units.
    pub avg_value_per_user: Option<Money>,
    /// Of a bandit: the honest figures. The others here are raw, and biased by the bandit's choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandit: Option<BanditArmBody>,
}

/// A variant of a bandit, estimated by scores weighted with the known propensities (AIPW). Rates are fractions.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BanditArmBody {
    /// Variant.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// Whether it is the control.
    pub is_control: bool,
    /// Its weight in force, a fraction: the propensity of the next unit outside the even share.
    pub weight: f64,
    /// Units that count for the estimates.
    pub units: u64,
    /// Those with the outcome.
    pub conversions: u64,
    /// Conversions over units of all epochs: raw and biased, for comparison only.
    pub raw_rate: Option<f64>,
    /// The rate by AIPW.
    pub rate: f64,
    /// Its 95 % interval.
    pub rate_interval: Range,
    /// The rate by AIPW with scores weighted by the root of the propensity, which is narrower.
    pub rate_root_weighted: f64,
    /// Its 95 % interval.
    pub rate_root_weighted_interval: Range,
    /// Probability of being the best of the variants with traffic, from the time in which all of them had some; null for one
    /// that is retired.
    pub probability_best: Option<f64>,
    /// What choosing it costs on average, against the same variants over the same time.
    pub expected_loss: Option<f64>,
    /// Rate minus the control's; none for the control.
    pub difference: Option<f64>,
    /// 95 % interval of the difference with a fixed horizon.
    pub difference_interval: Option<Range>,
    /// The interval that holds at every look; none until both have 25 units with the outcome and 25 without.
    pub difference_anytime: Option<Range>,
}

/// A bandit over variants.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BanditBody {
    /// How weights are found.
    pub algorithm: &'static str,
    /// Share of the traffic that the floor spreads over all variants.
    pub floor: f64,
    /// Share of units that is split evenly and stands still.
    pub control_share: f64,
    /// Epoch in force.
    pub epoch: i32,
    /// What counts as conversion of a unit: at least one such event.
    pub outcome: &'static str,
    /// The variants, control first.
    pub arms: Vec<BanditArmBody>,
    /// The winner, if there is one.
    pub winner: Option<String>,
    /// What the leading variant lacks to be the winner.
    pub missing: Vec<String>,
    /// How to read it.
    pub note: &'static str,
}

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
    /// Why it is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anytime_reason: Option<String>,
    /// Adjusted by the covariate that was handed in; null without one, for ratios, and after a change of
    /// weights. Never winsorised: the sums with the covariate are those of the values as they are.
    pub cuped: Option<CupedBody>,
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
    /// Units of the two variants that have a covariate; the others count with the mean.
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
    /// 95 % credible interval of the lift, a fraction.
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
    pub(super) fn smallest_ln_p(&self) -> Option<f64> {
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

/// One variant at one position.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PositionRow {
    /// Position, from 1.
    pub position: i32,
    /// Variant.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// Impressions.
    pub impressions: i64,
    /// Clicks.
    pub clicks: i64,
    /// Purchase events.
    pub conversions: i64,
    /// Clicks per impression, a fraction.
    pub rate: Option<f64>,
    /// Wilson's 95 % interval of the rate.
    pub interval: Option<Range>,
}

/// Whether the click rate depends on the position.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PositionTest {
    /// Variant.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// Pearson's chi-square.
    pub chi_square: Option<f64>,
    /// Degrees of freedom.
    pub degrees_of_freedom: Option<usize>,
    /// p-value of equal rates at all positions.
    pub p_value: Option<f64>,
    /// Why there is no test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer of `position-analysis`.
#[derive(Debug, Serialize, ToSchema)]
pub struct PositionAnalysis {
    /// Rates.
    pub positions: Vec<PositionRow>,
    /// Tests.
    pub tests: Vec<PositionTest>,
    /// Attention by position, from items that a variant with the algorithm `uniform` has placed at random; empty where
    /// there are none.
    pub examination: Vec<ExaminationRow>,
}

/// How much attention a position gets.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExaminationRow {
    /// From 1.
    pub position: usize,
    /// Impressions whose outcome is known.
    pub pulls: u64,
    /// Those that were rewarded.
    pub rewarded: u64,
    /// Rewarded per impression.
    pub rate: Option<f64>,
    /// Wilson's 95 % interval of the rate.
    pub interval: [f64; 2],
    /// The rate over that of the first position; null for fewer than 25 rewards in either.
    pub weight: Option<f64>,
}

/// What happened with an item or a brand.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyedFigures {
    /// Impressions.
    pub impressions: i64,
    /// Clicks.
    pub clicks: i64,
    /// Add-to-cart events.
    pub add_to_carts: i64,
    /// Purchase events.
    pub conversions: i64,
    /// Value of purchases.
    pub total_value: Money,
    /// Clicks per impression, a fraction.
    pub rate: Option<f64>,
    /// Wilson's 95 % interval of the rate.
    pub interval: Option<Range>,
}

/// An item or a brand.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopRow {
    /// The item or brand.
    pub id: String,
    /// Over all variants.
    #[serde(flatten)]
    pub total: KeyedFigures,
    /// In each variant that showed it.
    pub variants: Vec<TopVariant>,
}

/// An item or a brand in one variant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopVariant {
    /// Variant.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// In this variant.
    #[serde(flatten)]
    pub of: KeyedFigures,
}

/// One variant in one stretch of time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeriesRow {
    /// Start of the hour, day or week.
    pub start: DateTime<Utc>,
    /// Variant.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// Impressions.
    pub impressions: i64,
    /// Clicks.
    pub clicks: i64,
    /// Add-to-cart events.
    pub add_to_carts: i64,
    /// Purchase events.
    pub conversions: i64,
    /// Value of purchases.
    pub total_value: Money,
    /// Clicks in percent of impressions; null without impressions.
    pub click_through_rate: Option<f64>,
    /// Purchase events in percent of impressions; null without impressions.
    pub conversion_rate: Option<f64>,
}

/// A metric as it stood at the end of a UTC day, from the start on.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CumulativeRow {
    /// The day.
    pub day: NaiveDate,
    /// How it stood: `end_of_day`, `now` (the current day), or `end` (the day on which the experiment ended).
    pub as_of: &'static str,
    /// The metric in one variant.
    #[serde(flatten)]
    pub value: MetricValue,
    /// Lift over the control as it stood; null for the control and where it is not defined.
    pub lift: Option<LiftBody>,
}

/// A lift over the control, of values that are not winsorised.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiftBody {
    /// Compared within each stretch of constant weights, a fraction.
    pub estimate: Option<f64>,
    /// 95 % interval for one look.
    pub interval: Option<Range>,
    /// Valid at all days together.
    pub anytime: Option<AnytimeBody>,
}

/// Answer of `time-series`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeSeries {
    /// `hour`, `day` or `week`.
    pub group_by: &'static str,
    /// What happened in each stretch.
    pub series: Vec<SeriesRow>,
    /// Metric of `cumulative`.
    pub metric: &'static str,
    /// The metric from the start on, with its interval, and its lift over the control.
    pub cumulative: Vec<CumulativeRow>,
}

/// What one unit has, and why.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnitBody {
    /// The unit that was asked for.
    pub unit: String,
    /// The user that this session became an alias of.
    pub alias_of: Option<String>,
    /// Sessions that are aliases of this unit.
    pub aliases: Vec<String>,
    /// Variant that `assign` answers now: null while the experiment does not run, and for a unit without an assignment.
    pub variant_id: Option<i64>,
    /// Its name.
    pub variant_name: Option<String>,
    /// Why: a reason of `assign`.
    pub reason: &'static str,
    /// Variant of its stored assignment, whatever a promotion or an override makes of it.
    pub stored_variant_id: Option<i64>,
    /// Variant that today's weights give.
    pub hashed_variant_id: Option<i64>,
    /// When the assignment was stored.
    pub assigned_at: Option<DateTime<Utc>>,
    /// Epoch of the assignment.
    pub epoch: Option<i32>,
    /// Probability with which a bandit drew the variant, exactly; null for what no bandit drew.
    pub propensity: Option<f64>,
    /// `server` or `client`.
    pub source: Option<&'static str>,
    /// Whether a known bot made the assignment.
    pub is_bot: bool,
    /// Why it is left out of the analysis.
    pub excluded: Option<String>,
    /// What it did, as far as it is folded; null before.
    pub totals: Option<UnitTotalsBody>,
}

/// What a unit did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnitTotalsBody {
    /// Impressions.
    pub impressions: i64,
    /// Clicks.
    pub clicks: i64,
    /// Add-to-cart events.
    pub add_to_carts: i64,
    /// Purchase events.
    pub purchases: i64,
    /// Value of purchases.
    pub purchase_value: Money,
    /// Value of engagement events.
    pub engagement: Money,
    /// Requests.
    pub requests: i64,
    /// Errored requests.
    pub errors: i64,
    /// Distinct sessions.
    pub sessions: i64,
}

#[cfg(test)]
mod tests {
    use super::Money;

    #[test]
    fn money_is_written_exactly() {
        for (text, json) in [
            ("85.0000", "85"),
            ("0.2500", "0.25"),
            ("0", "0"),
            ("100", "100"),
            ("12345678901234.5678", "12345678901234.5678"),
            ("-1.50", "-1.5"),
            ("0.0000", "0"),
        ] {
            assert_eq!(serde_json::to_string(&Money::new(text)).unwrap(), json);
        }
    }
}
