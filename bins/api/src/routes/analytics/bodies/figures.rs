//! Tables of counts and values: by variant, position, item, time and unit.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{AnytimeBody, MetricValue, Money, Range};

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
    /// The rate by AIPW, cut to [0, 1]; null until the variant has units, and all variants together have 25 units with the
    /// outcome and 25 without, in effect, in the epochs that it shares with the control.
    pub rate: Option<f64>,
    /// Its 95 % interval, cut to [0, 1].
    pub rate_interval: Option<Range>,
    /// The rate by AIPW with scores weighted by the root of the propensity, which is narrower.
    pub rate_root_weighted: Option<f64>,
    /// Its 95 % interval.
    pub rate_root_weighted_interval: Option<Range>,
    /// Probability of being the best of the variants with traffic, from the time in which all of them had some; null for one
    /// that is retired, and for all until each has units, and together they have 25 with the outcome and 25 without, in effect.
    pub probability_best: Option<f64>,
    /// What choosing it costs on average, against the same variants over the same time.
    pub expected_loss: Option<f64>,
    /// Rate minus the control's; none for the control, and while either has no rate.
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
    /// The variant, or the control, that is likeliest to be the best; null until there are enough units to tell.
    pub leader: Option<String>,
    /// The winner, if there is one: the leader, where it meets every condition of a winner, with the confidence that
    /// promotions of this experiment ask for.
    pub winner: Option<String>,
    /// What the leader lacks to be the winner.
    pub missing: Vec<String>,
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
    /// Clicks per impression, a fraction; raw. A variant that ranks shows what was clicked, so its rates are biased.
    pub rate: Option<f64>,
    /// Wilson's 95 % interval of the rate, as if impressions were independent: too narrow where units see several, or
    /// where clicks decide what is shown.
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
    /// Clicks per impression, a fraction; raw. A variant that ranks shows what was clicked, so its rates are biased.
    pub rate: Option<f64>,
    /// Wilson's 95 % interval of the rate, as if impressions were independent: too narrow where units see several, or
    /// where clicks decide what is shown.
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
    /// Why the lift, its estimate or its interval is null; the control has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_lift_reason: Option<String>,
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
