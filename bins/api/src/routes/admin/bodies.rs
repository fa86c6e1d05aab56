//! Bodies of the admin routes, as they are sent and as the OpenAPI document shows them.

use chrono::{DateTime, Utc};
use podium_domain::decimal::Decimal4;
use podium_domain::experiment::{ExperimentType, Status};
use podium_domain::metric::Metric;
use podium_storage::experiments::covariates::Outcome;
use podium_storage::experiments::{self, as_json, as_number};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Array;
use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, SchemaType, Type};

/// Members that the server alone sets; a client that sends one is told so.
pub(super) const READ_ONLY: [&str; 12] = [
    "id",
    "status",
    "startDate",
    "endDate",
    "epoch",
    "winnerVariantId",
    "winner",
    "statisticalSignificance",
    "version",
    "createdAt",
    "updatedAt",
    "createdBy",
];

/// The same for variants.
pub(super) const VARIANT_READ_ONLY: [&str; 8] = [
    "id",
    "experimentId",
    "pulls",
    "rewards",
    "averageReward",
    "confidenceBound",
    "createdAt",
    "updatedAt",
];

/// An experiment with its variants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Experiment)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentBody {
    /// Numeric id.
    pub id: i64,
    /// Unique name.
    pub name: String,
    /// Text for people.
    pub description: String,
    /// What kind it is.
    #[schema(schema_with = experiment_type)]
    pub experiment_type: &'static str,
    /// Placement.
    pub target: String,
    /// Where it is in its life.
    #[schema(schema_with = status)]
    pub status: &'static str,
    /// When it was started; a pause does not change it.
    pub start_date: Option<DateTime<Utc>>,
    /// When it was completed.
    pub end_date: Option<DateTime<Utc>>,
    /// Share of units that take part, in percent.
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    pub traffic_allocation: Decimal4,
    /// The metric that decides.
    #[schema(schema_with = metric)]
    pub primary_metric: &'static str,
    /// Further metrics to report.
    #[schema(schema_with = metrics)]
    pub secondary_metrics: Vec<&'static str>,
    /// Metrics that must not get worse.
    #[schema(schema_with = guardrails)]
    pub guardrails: Vec<&'static str>,
    /// What the analysis was planned for.
    pub design: DesignBody,
    /// Free-form settings.
    #[serde(serialize_with = "as_json")]
    #[schema(value_type = Object)]
    pub config: String,
    /// Prefix of what is hashed to draw a unit's variant; never changes.
    pub salt: String,
    /// 2 hashes salt, purpose and unit. 1 hashes the unit alone, as the earlier system did, which gives a unit the
    /// same draw in every experiment and so correlates them with each other.
    #[schema(minimum = 1, maximum = 2)]
    pub hash_version: i16,
    /// Number of the stretch of constant weights that is in force; 0 before the start.
    pub epoch: i32,
    /// The variant that was declared or promoted as the winner.
    pub winner_variant_id: Option<i64>,
    /// Confidence in percent, as declared with the winner.
    pub statistical_significance: Option<f64>,
    /// Rises with every change of the experiment or its variants; the ETag.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it or one of its variants was last changed.
    pub updated_at: DateTime<Utc>,
    /// User that created it.
    pub created_by: Option<String>,
    /// Its variants in id order.
    pub variants: Vec<VariantBody>,
}

impl From<experiments::Experiment> for ExperimentBody {
    fn from(experiment: experiments::Experiment) -> Self {
        let names = |metrics: &[Metric]| metrics.iter().map(|metric| metric.name()).collect();
        Self {
            id: experiment.id,
            experiment_type: experiment.experiment_type.name(),
            status: experiment.status.name(),
            primary_metric: experiment.primary_metric.name(),
            secondary_metrics: names(&experiment.secondary_metrics),
            guardrails: names(&experiment.guardrails),
            design: experiment.design.into(),
            hash_version: experiment.hash_version.number(),
            variants: experiment.variants.into_iter().map(Into::into).collect(),
            name: experiment.name,
            description: experiment.description,
            target: experiment.target,
            start_date: experiment.start_date,
            end_date: experiment.end_date,
            traffic_allocation: experiment.traffic_allocation,
            config: experiment.config,
            salt: experiment.salt,
            epoch: experiment.epoch,
            winner_variant_id: experiment.winner_variant_id,
            statistical_significance: experiment.statistical_significance,
            version: experiment.version,
            created_at: experiment.created_at,
            updated_at: experiment.updated_at,
            created_by: experiment.created_by,
        }
    }
}

/// A variant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Variant)]
#[serde(rename_all = "camelCase")]
pub struct VariantBody {
    /// Numeric id.
    pub id: i64,
    /// Its experiment.
    pub experiment_id: i64,
    /// Name, unique in its experiment.
    pub name: String,
    /// Text for people.
    pub description: String,
    /// Weight relative to the other variants; 0 retires it.
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = f64, minimum = 0, maximum = 10000)]
    pub traffic_weight: Decimal4,
    /// Handed to the storefront as `params`.
    #[serde(serialize_with = "as_json")]
    #[schema(value_type = Object)]
    pub config: String,
    /// Whether it is the control.
    pub is_control: bool,
    /// How often a bandit chose it.
    pub pulls: i64,
    /// What it earned for a bandit.
    pub rewards: f64,
    /// Reward per pull.
    pub average_reward: f64,
    /// Upper confidence bound of the reward, where the policy has one.
    pub confidence_bound: Option<f64>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl From<experiments::Variant> for VariantBody {
    fn from(variant: experiments::Variant) -> Self {
        Self {
            id: variant.id,
            experiment_id: variant.experiment_id,
            name: variant.name,
            description: variant.description,
            traffic_weight: variant.traffic_weight,
            config: variant.config,
            is_control: variant.is_control,
            pulls: variant.pulls,
            rewards: variant.rewards,
            average_reward: variant.average_reward,
            confidence_bound: variant.confidence_bound,
            created_at: variant.created_at,
            updated_at: variant.updated_at,
        }
    }
}

/// What the analysis was planned for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Design)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DesignBody {
    /// Smallest relative effect worth finding: 0.1 is 10 %.
    #[schema(minimum = 0.0001, maximum = 1)]
    pub min_detectable_effect: Option<f64>,
    /// Planned length in days; open-ended without.
    #[schema(minimum = 1, maximum = 3650)]
    pub horizon_days: Option<i64>,
    /// Hours of one slot in which at most one look is taken.
    #[schema(minimum = 1, maximum = 168)]
    pub look_every_hours: i64,
    /// Quantile of all units above which unit totals of value metrics are capped in comparisons; null where they are not.
    #[schema(exclusive_minimum = 0.5, exclusive_maximum = 1)]
    pub winsorize_upper: Option<f64>,
}

impl From<experiments::Design> for DesignBody {
    fn from(design: experiments::Design) -> Self {
        Self {
            min_detectable_effect: design.min_detectable_effect,
            horizon_days: design.horizon_days,
            look_every_hours: design.look_every_hours,
            winsorize_upper: design.winsorize_upper,
        }
    }
}

/// What the analysis is planned for, in a request; null takes a value away or leaves it at its default. A null
/// `winsorizeUpper` switches capping off.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DesignChange {
    /// Smallest relative effect worth finding: 0.1 is 10 %.
    #[schema(minimum = 0.0001, maximum = 1)]
    pub min_detectable_effect: Option<f64>,
    /// Planned length in days; open-ended without.
    #[schema(minimum = 1, maximum = 3650)]
    pub horizon_days: Option<i64>,
    /// Hours of one slot in which at most one look is taken; 6 unless set.
    #[schema(minimum = 1, maximum = 168)]
    pub look_every_hours: Option<i64>,
    /// Quantile of all units above which unit totals of value metrics are capped in comparisons; 0.99 unless set, null
    /// for no cap.
    #[schema(exclusive_minimum = 0.5, exclusive_maximum = 1)]
    pub winsorize_upper: Option<f64>,
}

/// An experiment to create; it becomes a draft. A member that is null counts as left out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateExperiment {
    /// Unique; not digits only, that would be an id.
    #[schema(schema_with = experiment_name)]
    pub name: String,
    /// Text for people; empty unless given.
    #[schema(max_length = 10000, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub description: Option<String>,
    /// `ab_test` unless given.
    #[schema(schema_with = experiment_type_or_null, required = false)]
    pub experiment_type: Option<String>,
    /// Placement; `newsfeed` unless given.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub target: Option<String>,
    /// Share of units that take part, in percent, up to four decimals; 100 unless given.
    #[schema(minimum = 0, maximum = 100)]
    pub traffic_allocation: Option<f64>,
    /// The metric that decides, no guardrail; `conversion_rate` unless given.
    #[schema(schema_with = primary_metric_or_null, required = false)]
    pub primary_metric: Option<String>,
    /// Further metrics to report, each once.
    #[schema(schema_with = metrics_or_null, required = false)]
    pub secondary_metrics: Option<Vec<String>>,
    /// Metrics that must not get worse, each once.
    #[schema(schema_with = guardrails_or_null, required = false)]
    pub guardrails: Option<Vec<String>>,
    /// What the analysis is planned for.
    pub design: Option<DesignChange>,
    /// Free-form settings: at most 16 KiB and 16 levels.
    #[schema(value_type = Option<Object>)]
    pub config: Option<String>,
    /// Prefix of what is hashed; the name unless given. Never changes.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub salt: Option<String>,
    /// 2 unless given. 1 is for sites that come from the earlier system: it gives a unit the same draw in every
    /// experiment and so correlates them with each other.
    #[schema(minimum = 1, maximum = 2)]
    pub hash_version: Option<i16>,
}

/// Changes of an experiment. A member that is left out stays as it is; `config` is replaced as a whole, `design`
/// member by member. Which fields can change depends on the state.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchExperiment {
    /// Unique; not digits only. Drafts only.
    #[schema(schema_with = experiment_name, required = false)]
    pub name: Option<String>,
    /// Text for people.
    #[schema(value_type = String, required = false, max_length = 10000, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub description: Option<String>,
    /// Drafts only.
    #[schema(schema_with = experiment_type, required = false)]
    pub experiment_type: Option<String>,
    /// Placement. Drafts only.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub target: Option<String>,
    /// Share of units that take part, in percent, up to four decimals. Opens an epoch while units are assigned.
    #[schema(value_type = f64, required = false, minimum = 0, maximum = 100)]
    pub traffic_allocation: Option<f64>,
    /// The metric that decides, no guardrail.
    #[schema(schema_with = primary_metric, required = false)]
    pub primary_metric: Option<String>,
    /// Further metrics to report, each once.
    #[schema(schema_with = metrics, required = false)]
    pub secondary_metrics: Option<Vec<String>>,
    /// Metrics that must not get worse, each once.
    #[schema(schema_with = guardrails, required = false)]
    pub guardrails: Option<Vec<String>>,
    /// What the analysis is planned for.
    #[schema(value_type = DesignChange, required = false)]
    pub design: Option<DesignChange>,
    /// Free-form settings: at most 16 KiB and 16 levels.
    #[schema(value_type = Object, required = false)]
    pub config: Option<String>,
    /// Never changes; taken when it is what it was.
    #[schema(value_type = String, required = false, min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub salt: Option<String>,
    /// Drafts only.
    #[schema(value_type = i16, required = false, minimum = 1, maximum = 2)]
    pub hash_version: Option<i16>,
}

/// A variant to add. A member that is null counts as left out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateVariant {
    /// Unique in the experiment.
    #[schema(schema_with = variant_name)]
    pub name: String,
    /// Text for people; empty unless given.
    #[schema(max_length = 10000, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub description: Option<String>,
    /// Whether it is the control, of which there is exactly one; false unless given.
    pub is_control: Option<bool>,
    /// Weight relative to the other variants, up to four decimals; 1 unless given.
    #[schema(minimum = 0, maximum = 10000)]
    pub traffic_weight: Option<f64>,
    /// Handed to the storefront as `params`: at most 16 KiB and 16 levels.
    #[schema(value_type = Option<Object>)]
    pub config: Option<String>,
}

/// Changes of a variant. A member that is left out stays as it is; `config` is replaced as a whole.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchVariant {
    /// Unique in the experiment. Drafts only.
    #[schema(schema_with = variant_name, required = false)]
    pub name: Option<String>,
    /// Text for people.
    #[schema(value_type = String, required = false, max_length = 10000, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub description: Option<String>,
    /// Whether it is the control. Drafts only.
    #[schema(value_type = bool, required = false)]
    pub is_control: Option<bool>,
    /// Weight relative to the other variants, up to four decimals. Opens an epoch while units are assigned.
    #[schema(value_type = f64, required = false, minimum = 0, maximum = 10000)]
    pub traffic_weight: Option<f64>,
    /// Handed to the storefront as `params`. Drafts only.
    #[schema(value_type = Object, required = false)]
    pub config: Option<String>,
}

/// The winner of an experiment. Records it and ends the experiment; serves nothing.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeclareWinner {
    /// A variant of the experiment.
    #[schema(minimum = 1)]
    pub winner_variant_id: i64,
    /// Confidence in percent.
    #[schema(minimum = 0, maximum = 100)]
    pub significance: Option<f64>,
}

/// The variant to pin a unit to: exactly one of the two.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PutOverride {
    /// By id.
    #[schema(minimum = 1)]
    pub variant_id: Option<i64>,
    /// By name.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub variant: Option<String>,
}

/// Covariates of units.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Covariates {
    /// Each unit once.
    pub covariates: Vec<CovariateOfUnit>,
}

/// The covariate of a unit.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CovariateOfUnit {
    /// The unit: the user id or session id that it will be assigned under; a whole number is taken as its text.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub unit: String,
    /// A number from before the experiment, of at most four decimals.
    #[schema(minimum = -1_000_000_000_000_i64, maximum = 1_000_000_000_000_i64)]
    pub value: f64,
}

/// What became of an upload of covariates.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CovariatesOutcome {
    /// Units in the upload.
    pub received: i64,
    /// Units that have a new covariate now.
    pub accepted: i64,
    /// Units that were left as they are, because they have an assignment already.
    pub already_assigned: i64,
    /// Units that had the same covariate.
    pub unchanged: i64,
}

impl From<Outcome> for CovariatesOutcome {
    fn from(outcome: Outcome) -> Self {
        Self {
            received: outcome.received,
            accepted: outcome.accepted,
            already_assigned: outcome.already_assigned,
            unchanged: outcome.unchanged,
        }
    }
}

/// A unit pinned to a variant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Override)]
#[serde(rename_all = "camelCase")]
pub struct OverrideBody {
    /// The experiment.
    pub experiment_id: i64,
    /// The unit.
    pub unit: String,
    /// What it gets.
    pub variant_id: i64,
    /// Name of the variant.
    pub variant: String,
    /// When it was pinned first.
    pub created_at: DateTime<Utc>,
    /// User that pinned it last.
    pub created_by: Option<String>,
}

impl From<experiments::Override> for OverrideBody {
    fn from(pinned: experiments::Override) -> Self {
        Self {
            experiment_id: pinned.experiment_id,
            unit: pinned.unit,
            variant_id: pinned.variant_id,
            variant: pinned.variant,
            created_at: pinned.created_at,
            created_by: pinned.created_by,
        }
    }
}

fn words(names: impl Iterator<Item = &'static str>, or_null: bool) -> Object {
    let nothing = or_null.then_some(serde_json::Value::Null);
    let kind = if or_null {
        SchemaType::from_iter([Type::String, Type::Null])
    } else {
        Type::String.into()
    };
    let values = names.map(serde_json::Value::from).chain(nothing);
    ObjectBuilder::new()
        .schema_type(kind)
        .enum_values(Some(values.collect::<Vec<_>>()))
        .build()
}

fn list(items: Object, or_null: bool) -> Array {
    let list = ArrayBuilder::new().items(items).unique_items(true);
    if or_null {
        list.schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
            .build()
    } else {
        list.build()
    }
}

fn names(wanted: impl Fn(Metric) -> bool) -> impl Iterator<Item = &'static str> {
    let metrics = Metric::ALL.iter().copied();
    metrics
        .filter(move |metric| wanted(*metric))
        .map(Metric::name)
}

fn experiment_type() -> Object {
    words(ExperimentType::NAMES.iter().copied(), false)
}

fn experiment_type_or_null() -> Object {
    words(ExperimentType::NAMES.iter().copied(), true)
}

pub(super) fn status() -> Object {
    words(Status::NAMES.iter().copied(), false)
}

fn metric() -> Object {
    words(names(|_| true), false)
}

fn primary_metric() -> Object {
    words(names(|metric| !metric.is_guardrail()), false)
}

fn primary_metric_or_null() -> Object {
    words(names(|metric| !metric.is_guardrail()), true)
}

fn metrics() -> Array {
    list(words(names(|_| true), false), false)
}

fn metrics_or_null() -> Array {
    list(words(names(|_| true), false), true)
}

fn guardrails() -> Array {
    list(words(names(Metric::is_guardrail), false), false)
}

fn guardrails_or_null() -> Array {
    list(words(names(Metric::is_guardrail), false), true)
}

fn experiment_name() -> Object {
    name(r"^(?!\s*[0-9]*\s*$)[^\x00-\x1f\x7f]*$")
}

fn variant_name() -> Object {
    name(r"^(?!\s*$)[^\x00-\x1f\x7f]*$")
}

fn name(pattern: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(128))
        .pattern(Some(pattern))
        .build()
}
