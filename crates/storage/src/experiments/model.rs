//! Experiments and variants as administration sees them, and what can be asked of them.
//!
//! `Serialize` gives the form that the audit log keeps.

use chrono::{DateTime, Utc};
use podium_domain::bucketing::HashVersion;
use podium_domain::decimal::{Decimal4, UNITS_PER_ONE};
use podium_domain::experiment::{ExperimentType, Status};
use podium_domain::ids::ExperimentId;
use podium_domain::metric::Metric;
use podium_domain::text;
use serde::{Deserialize, Serialize, Serializer, ser};
use serde_json::Number;
use serde_json::value::RawValue;

/// An experiment with its variants.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Experiment {
    /// Numeric id.
    pub id: i64,
    /// Unique name.
    pub name: String,
    /// Text for people.
    pub description: String,
    /// What kind it is.
    #[serde(serialize_with = "as_name")]
    pub experiment_type: ExperimentType,
    /// Placement.
    pub target: String,
    /// Where it is in its life.
    #[serde(serialize_with = "as_name")]
    pub status: Status,
    /// When it was started, by the clock of the database; a pause does not change it.
    pub start_date: Option<DateTime<Utc>>,
    /// When it was completed, by the clock of the database.
    pub end_date: Option<DateTime<Utc>>,
    /// Share of units that take part, in percent.
    #[serde(serialize_with = "as_number")]
    pub traffic_allocation: Decimal4,
    /// The metric that decides.
    #[serde(serialize_with = "as_name")]
    pub primary_metric: Metric,
    /// Further metrics to report.
    #[serde(serialize_with = "as_names")]
    pub secondary_metrics: Vec<Metric>,
    /// Metrics that must not get worse.
    #[serde(serialize_with = "as_names")]
    pub guardrails: Vec<Metric>,
    /// What the analysis was planned for.
    pub design: Design,
    /// Free-form settings: a JSON object, as text, so that its numbers stay as they were written.
    #[serde(serialize_with = "as_json")]
    pub config: String,
    /// Prefix of what is hashed.
    pub salt: String,
    /// How units are hashed.
    #[serde(serialize_with = "as_hash_number")]
    pub hash_version: HashVersion,
    /// Number of the stretch of constant weights that is in force; 0 before the start.
    pub epoch: i32,
    /// The variant that was declared or promoted as the winner.
    pub winner_variant_id: Option<i64>,
    /// Confidence in percent, as declared with the winner.
    pub statistical_significance: Option<f64>,
    /// Rises with every change of the experiment or its variants.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it or one of its variants was last changed.
    pub updated_at: DateTime<Utc>,
    /// User that created it.
    pub created_by: Option<String>,
    /// Its variants in id order; the audit log has entries of their own for them.
    #[serde(skip)]
    pub variants: Vec<Variant>,
}

impl Experiment {
    /// The variant with this id, if it is one of this experiment.
    #[must_use]
    pub fn variant(&self, id: i64) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.id == id)
    }
}

/// One version of what is tested.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// Numeric id.
    pub id: i64,
    /// Its experiment.
    pub experiment_id: i64,
    /// Name, unique in its experiment.
    pub name: String,
    /// Text for people.
    pub description: String,
    /// Weight relative to the others; 0 retires it.
    #[serde(serialize_with = "as_number")]
    pub traffic_weight: Decimal4,
    /// Handed to the storefront as `params`: a JSON object, as text.
    #[serde(serialize_with = "as_json")]
    pub config: String,
    /// Whether it is the control.
    pub is_control: bool,
    /// How often a bandit chose it.
    #[serde(skip)]
    pub pulls: i64,
    /// What it earned for a bandit.
    #[serde(skip)]
    pub rewards: f64,
    /// Reward per pull.
    #[serde(skip)]
    pub average_reward: f64,
    /// Upper confidence bound of the reward, where the policy has one.
    #[serde(skip)]
    pub confidence_bound: Option<f64>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What the analysis of an experiment was planned for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Design {
    /// Smallest relative effect worth finding (0.1 is 10 %).
    pub min_detectable_effect: Option<f64>,
    /// Planned length in days; open-ended without.
    pub horizon_days: Option<i64>,
    /// Hours of one slot in which at most one look is taken.
    pub look_every_hours: i64,
    /// Quantile of all units above which unit totals of value metrics are capped, above 0.5 and below 1; `None` for no cap.
    pub winsorize_upper: Option<f64>,
}

impl Default for Design {
    fn default() -> Self {
        Self {
            min_detectable_effect: None,
            horizon_days: None,
            look_every_hours: 6,
            winsorize_upper: Some(0.99),
        }
    }
}

/// Which experiment is meant: in paths and queries an all-digit text is an id, any other text a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExperimentRef {
    /// By id.
    Id(i64),
    /// By name.
    Name(String),
}

impl ExperimentRef {
    /// Reads a path segment. `None` when no experiment can be meant, since no id or name is like that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text
                .parse::<ExperimentId>()
                .ok()
                .map(|id| Self::Id(id.get()));
        }
        text::check_experiment_name(text)
            .ok()
            .map(|()| Self::Name(text.to_owned()))
    }
}

/// An experiment to create; it becomes a draft.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `Experiment`")]
pub struct NewExperiment {
    pub name: String,
    pub description: String,
    pub experiment_type: ExperimentType,
    pub target: String,
    pub traffic_allocation: Decimal4,
    pub primary_metric: Metric,
    pub secondary_metrics: Vec<Metric>,
    pub guardrails: Vec<Metric>,
    pub design: Design,
    pub config: String,
    pub salt: String,
    pub hash_version: HashVersion,
}

/// Changes of an experiment; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `Experiment`")]
pub struct ExperimentPatch {
    pub name: Option<String>,
    pub description: Option<String>,
    pub experiment_type: Option<ExperimentType>,
    pub target: Option<String>,
    pub traffic_allocation: Option<Decimal4>,
    pub primary_metric: Option<Metric>,
    pub secondary_metrics: Option<Vec<Metric>>,
    pub guardrails: Option<Vec<Metric>>,
    pub design: DesignPatch,
    /// Replaces the whole object.
    pub config: Option<String>,
    pub salt: Option<String>,
    pub hash_version: Option<HashVersion>,
}

/// Changes of a design; an inner `None` takes the value away.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `Design`")]
pub struct DesignPatch {
    pub min_detectable_effect: Option<Option<f64>>,
    pub horizon_days: Option<Option<i64>>,
    pub look_every_hours: Option<i64>,
    pub winsorize_upper: Option<Option<f64>>,
}

impl DesignPatch {
    /// The design after the changes.
    #[must_use]
    pub fn applied_to(self, design: Design) -> Design {
        Design {
            min_detectable_effect: self
                .min_detectable_effect
                .unwrap_or(design.min_detectable_effect),
            horizon_days: self.horizon_days.unwrap_or(design.horizon_days),
            look_every_hours: self.look_every_hours.unwrap_or(design.look_every_hours),
            winsorize_upper: self.winsorize_upper.unwrap_or(design.winsorize_upper),
        }
    }
}

/// A variant to add.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `Variant`")]
pub struct NewVariant {
    pub name: String,
    pub description: String,
    pub traffic_weight: Decimal4,
    pub config: String,
    pub is_control: bool,
}

/// Changes of a variant; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `Variant`")]
pub struct VariantPatch {
    pub name: Option<String>,
    pub description: Option<String>,
    pub traffic_weight: Option<Decimal4>,
    /// Replaces the whole object.
    pub config: Option<String>,
    pub is_control: Option<bool>,
}

/// The decimal as a JSON number that reads as exactly this decimal: whole numbers without a point, others with their
/// shortest digits. Exact up to ±900,719,925,474.
#[must_use]
pub fn exact_number(value: Decimal4) -> Number {
    let units = value.units();
    if units % UNITS_PER_ONE == 0 {
        return Number::from(units / UNITS_PER_ONE);
    }
    // A quotient of finite numbers is finite, so the alternative is never taken.
    Number::from_f64(value.to_f64()).unwrap_or_else(|| Number::from(units / UNITS_PER_ONE))
}

/// Serialises a decimal as [`exact_number`] gives it.
///
/// # Errors
/// Those of the serializer.
pub fn as_number<S: Serializer>(value: &Decimal4, serializer: S) -> Result<S::Ok, S::Error> {
    exact_number(*value).serialize(serializer)
}

fn as_name<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

/// Serialises JSON text as the JSON that it is, digit by digit.
///
/// # Errors
/// When the text is no JSON, and those of the serializer.
pub fn as_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let raw: &RawValue = serde_json::from_str(text).map_err(ser::Error::custom)?;
    raw.serialize(serializer)
}

fn as_names<S: Serializer>(metrics: &[Metric], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(metrics.iter().map(|metric| metric.name()))
}

fn as_hash_number<S: Serializer>(version: &HashVersion, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i16(version.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_an_id_and_anything_else_a_name() {
        assert_eq!(ExperimentRef::parse("12"), Some(ExperimentRef::Id(12)));
        assert_eq!(ExperimentRef::parse("012"), Some(ExperimentRef::Id(12)));
        assert_eq!(
            ExperimentRef::parse("12a"),
            Some(ExperimentRef::Name("12a".into()))
        );
        assert_eq!(
            ExperimentRef::parse("-1"),
            Some(ExperimentRef::Name("-1".into()))
        );
        for nothing in ["", "0", "99999999999999999999", "a\0", "  ", "٣\u{7f}"] {
            assert_eq!(ExperimentRef::parse(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn decimals_are_written_as_they_are() {
        for (units, text) in [
            (1_000_000, "100"),
            (333_333, "33.3333"),
            (1, "0.0001"),
            (0, "0"),
            (15_000, "1.5"),
        ] {
            assert_eq!(exact_number(Decimal4(units)).to_string(), text);
        }
    }

    #[test]
    fn a_design_changes_only_where_asked() {
        let design = Design {
            min_detectable_effect: Some(0.1),
            horizon_days: Some(30),
            look_every_hours: 24,
            winsorize_upper: Some(0.95),
        };
        let patch = DesignPatch {
            horizon_days: Some(None),
            ..DesignPatch::default()
        };
        assert_eq!(
            patch.applied_to(design),
            Design {
                horizon_days: None,
                ..design
            }
        );
        let uncapped = DesignPatch {
            winsorize_upper: Some(None),
            ..DesignPatch::default()
        };
        assert_eq!(
            uncapped.applied_to(design),
            Design {
                winsorize_upper: None,
                ..design
            }
        );
    }

    #[test]
    fn a_design_that_is_empty_in_the_table_has_the_defaults() {
        assert_eq!(
            serde_json::from_str::<Design>("{}").unwrap(),
            Design::default()
        );
        assert_eq!(Design::default().winsorize_upper, Some(0.99));
        let off = Design {
            winsorize_upper: None,
            ..Design::default()
        };
        let kept = serde_json::to_string(&off).unwrap();
        assert_eq!(serde_json::from_str::<Design>(&kept).unwrap(), off);
    }
}
