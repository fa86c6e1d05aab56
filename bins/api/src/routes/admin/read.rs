//! Reading the bodies of the admin routes: every wrong field is found, then all are reported together.

use podium_domain::bandit;
use podium_domain::bucketing::HashVersion;
use podium_domain::decimal::{Decimal4, DecimalError};
use podium_domain::experiment::{
    ExperimentType, MAX_TRAFFIC_ALLOCATION, MAX_TRAFFIC_WEIGHT, UnknownWord,
};
use podium_domain::fault::{Pointer, code};
use podium_domain::metric::Metric;
use podium_domain::text::{self, TextFault};
use podium_storage::experiments::{
    Design, DesignPatch, ExperimentPatch, NewExperiment, NewVariant, Step, VariantChoice,
    VariantPatch,
};
use serde_json::Value;

use super::bodies::{READ_ONLY, VARIANT_READ_ONLY};
use crate::json::{self, Fields, Node};
use crate::problem::ApiError;
use crate::request::{ADMIN, Ctx, Media};

/// Characters of a name or placement.
const NAME: usize = 128;
/// Characters of a salt.
const SALT: usize = 255;
/// Characters of a description.
const DESCRIPTION: usize = 10_000;
/// Entries of a list of metrics; there are fewer.
const METRICS: usize = 100;
/// Days of the longest horizon.
const HORIZON_DAYS: i64 = 3_650;
/// A relative effect below is noise, one above is a mistaken percent.
const EFFECT: (f64, f64) = (0.000_1, 1.0);
/// A cap at the median or below would change most totals, and none lies at 1.
const WINSORIZE: (f64, f64) = (0.5, 1.0);
/// Hours between looks.
const LOOK_HOURS: (i64, i64) = (1, 168);

/// Reads a JSON body with `read`; a member that `read` did not take is unknown.
pub(crate) async fn body<T>(
    ctx: &Ctx,
    read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
) -> Result<T, ApiError> {
    let body = ctx.body(ADMIN, Media::Json).await?;
    document(&body, read)
}

/// As [`body`], under any content type; an empty body is an empty object.
pub(crate) async fn body_or_nothing<T>(
    ctx: &Ctx,
    read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
) -> Result<T, ApiError> {
    let body = ctx.body(ADMIN, Media::Any).await?;
    let blank = body.iter().all(u8::is_ascii_whitespace);
    document(if blank { b"{}" } else { &body }, read)
}

/// Reads a document with `read`; a member that `read` did not take is unknown.
pub(crate) fn document<T>(
    body: &[u8],
    read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
) -> Result<T, ApiError> {
    let node = json::parse(body)?;
    let mut fields = Fields::new(&node, Pointer::root());
    let value = read(&mut fields);
    fields.refuse_unknown();
    fields.finish()?;
    value.ok_or_else(|| ApiError::internal("a body without faults was not read"))
}

pub(super) fn new_experiment(fields: &mut Fields<'_, '_>) -> Option<NewExperiment> {
    refuse_read_only(fields, &READ_ONLY);
    let patch = experiment_fields(fields);
    let name = fields.require("name", patch.name);
    let design = patch.design.applied_to(Design::default());
    let name = name?;
    Some(NewExperiment {
        salt: patch.salt.unwrap_or_else(|| name.clone()),
        name,
        description: patch.description.unwrap_or_default(),
        experiment_type: patch.experiment_type.unwrap_or(ExperimentType::AbTest),
        target: patch.target.unwrap_or_else(|| "newsfeed".into()),
        traffic_allocation: patch.traffic_allocation.unwrap_or(MAX_TRAFFIC_ALLOCATION),
        primary_metric: patch.primary_metric.unwrap_or(Metric::DEFAULT_PRIMARY),
        secondary_metrics: patch.secondary_metrics.unwrap_or_default(),
        guardrails: patch.guardrails.unwrap_or_default(),
        design,
        config: patch.config.unwrap_or_else(|| "{}".into()),
        hash_version: patch.hash_version.unwrap_or_default(),
    })
}

pub(super) fn experiment_patch(fields: &mut Fields<'_, '_>) -> Option<ExperimentPatch> {
    refuse_read_only(fields, &READ_ONLY);
    refuse_null(
        fields,
        &[
            "name",
            "description",
            "experimentType",
            "target",
            "trafficAllocation",
            "primaryMetric",
            "secondaryMetrics",
            "guardrails",
            "design",
            "config",
            "salt",
            "hashVersion",
        ],
    );
    Some(experiment_fields(fields))
}

fn experiment_fields(fields: &mut Fields<'_, '_>) -> ExperimentPatch {
    ExperimentPatch {
        name: name(fields, "name", text::check_experiment_name),
        description: owned(fields.string("description", 0, DESCRIPTION)),
        experiment_type: word(fields, "experimentType"),
        target: owned(fields.string("target", 1, NAME)),
        traffic_allocation: exact(fields, "trafficAllocation", MAX_TRAFFIC_ALLOCATION),
        primary_metric: primary_metric(fields),
        secondary_metrics: metrics(fields, "secondaryMetrics", |_| true),
        guardrails: metrics(fields, "guardrails", Metric::is_guardrail),
        design: design(fields),
        config: config(fields),
        salt: owned(fields.string("salt", 1, SALT)),
        hash_version: hash_version(fields),
    }
}

pub(super) fn new_variant(fields: &mut Fields<'_, '_>) -> Option<NewVariant> {
    refuse_read_only(fields, &VARIANT_READ_ONLY);
    let patch = variant_fields(fields);
    let name = fields.require("name", patch.name);
    Some(NewVariant {
        name: name?,
        description: patch.description.unwrap_or_default(),
        traffic_weight: patch
            .traffic_weight
            .unwrap_or(Decimal4(podium_domain::decimal::UNITS_PER_ONE)),
        config: patch.config.unwrap_or_else(|| "{}".into()),
        is_control: patch.is_control.unwrap_or(false),
    })
}

pub(super) fn variant_patch(fields: &mut Fields<'_, '_>) -> Option<VariantPatch> {
    refuse_read_only(fields, &VARIANT_READ_ONLY);
    refuse_null(
        fields,
        &[
            "name",
            "description",
            "isControl",
            "trafficWeight",
            "config",
        ],
    );
    Some(variant_fields(fields))
}

fn variant_fields(fields: &mut Fields<'_, '_>) -> VariantPatch {
    VariantPatch {
        name: name(fields, "name", text::check_variant_name),
        description: owned(fields.string("description", 0, DESCRIPTION)),
        traffic_weight: exact(fields, "trafficWeight", MAX_TRAFFIC_WEIGHT),
        config: config(fields),
        is_control: fields.boolean("isControl"),
    }
}

pub(super) fn declared_winner(fields: &mut Fields<'_, '_>) -> Option<Step> {
    let winner = fields.integer("winnerVariantId", 1, i64::MAX);
    let winner = fields.require("winnerVariantId", winner);
    let significance = fields.float("significance", 0.0, 100.0);
    Some(Step::DeclareWinner {
        winner_variant_id: winner?,
        significance,
    })
}

pub(super) fn variant_choice(fields: &mut Fields<'_, '_>) -> Option<VariantChoice> {
    let id = fields.integer("variantId", 1, i64::MAX);
    let name = fields.string("variant", 1, NAME);
    match (id, name) {
        (Some(_), Some(_)) => {
            fields.fault("variant", code::DUPLICATE, "stands beside variantId");
            None
        }
        (Some(id), None) => Some(VariantChoice::Id(id)),
        (None, Some(name)) => Some(VariantChoice::Name(name.to_owned())),
        (None, None) => {
            if fields.faults.is_empty() {
                fields.fault(
                    "variantId",
                    code::REQUIRED,
                    "is required, or variant with a name",
                );
            }
            None
        }
    }
}

pub(super) fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

/// Reports members that the server alone sets.
pub(super) fn refuse_read_only(fields: &mut Fields<'_, '_>, names: &[&str]) {
    for name in names {
        if fields.take_nullable(name).is_some() {
            fields.fault(name, code::READ_ONLY, "is set by the server");
        }
    }
}

/// Reports members that are `null` where that would say nothing.
pub(super) fn refuse_null(fields: &mut Fields<'_, '_>, names: &[&str]) {
    for name in names {
        if fields.take_nullable(name) == Some(&Node::Null) {
            fields.fault(name, code::WRONG_TYPE, "must not be null");
        }
    }
}

fn name(
    fields: &mut Fields<'_, '_>,
    field: &str,
    check: impl Fn(&str) -> Result<(), TextFault>,
) -> Option<String> {
    let name = fields.string(field, 1, NAME)?;
    match check(name) {
        // Control characters were reported for the whole body already.
        Ok(()) | Err(TextFault::ControlCharacter { .. }) => Some(name.to_owned()),
        Err(fault) => {
            fields.fault(field, fault.code(), fault.to_string());
            None
        }
    }
}

/// One of the words of `T`.
pub(super) fn word<T: std::str::FromStr<Err = UnknownWord>>(
    fields: &mut Fields<'_, '_>,
    field: &str,
) -> Option<T> {
    let parsed: Result<T, UnknownWord> = fields.string(field, 0, NAME)?.parse();
    if let Err(unknown) = &parsed {
        fields.fault(field, code::UNKNOWN_VALUE, unknown.to_string());
    }
    parsed.ok()
}

/// A number from 0 to `max` that four decimals hold exactly: a rounded weight would not be the one that was asked for.
fn exact(fields: &mut Fields<'_, '_>, field: &str, max: Decimal4) -> Option<Decimal4> {
    let Node::Number(number) = fields.take(field)? else {
        fields.fault(field, code::WRONG_TYPE, "must be a number");
        return None;
    };
    match Decimal4::parse_exact(number) {
        Ok(value) if (Decimal4::ZERO..=max).contains(&value) => Some(value),
        Err(DecimalError::TooManyDecimals) => {
            fields.fault(
                field,
                code::TOO_MANY_DECIMALS,
                "must have at most four decimals",
            );
            None
        }
        _ => {
            fields.fault(field, code::OUT_OF_RANGE, format!("must be 0 to {max}"));
            None
        }
    }
}

fn primary_metric(fields: &mut Fields<'_, '_>) -> Option<Metric> {
    match Metric::parse_primary(fields.string("primaryMetric", 0, NAME)?) {
        Ok(metric) => Some(metric),
        Err(error) => {
            fields.fault("primaryMetric", error.code(), error.to_string());
            None
        }
    }
}

/// A list of metrics, each once, all of which `fits` must accept.
fn metrics(
    fields: &mut Fields<'_, '_>,
    field: &str,
    fits: impl Fn(Metric) -> bool,
) -> Option<Vec<Metric>> {
    let names = fields.strings(field, METRICS)?;
    let list = fields.at(field);
    let mut metrics = Vec::with_capacity(names.len());
    for (index, name) in names.into_iter().enumerate() {
        let problem = match name.parse::<Metric>() {
            Err(unknown) => Some((code::UNKNOWN_METRIC, unknown.to_string())),
            Ok(metric) if !fits(metric) => {
                Some((code::UNKNOWN_VALUE, "is no guardrail metric".to_owned()))
            }
            Ok(metric) if metrics.contains(&metric) => {
                Some((code::DUPLICATE, "stands in the list already".to_owned()))
            }
            Ok(metric) => {
                metrics.push(metric);
                None
            }
        };
        if let Some((code, detail)) = problem {
            fields.faults.push(list.element(index), code, detail);
        }
    }
    Some(metrics)
}

fn design(fields: &mut Fields<'_, '_>) -> DesignPatch {
    let Some(node) = fields.take("design") else {
        return DesignPatch::default();
    };
    let mut design = Fields::inner(node);
    let effect = nullable(&mut design, "minDetectableEffect", |design, name| {
        design.float(name, EFFECT.0, EFFECT.1)
    });
    let horizon = nullable(&mut design, "horizonDays", |design, name| {
        design.integer(name, 1, HORIZON_DAYS)
    });
    let hours = design.integer("lookEveryHours", LOOK_HOURS.0, LOOK_HOURS.1);
    let upper = nullable(&mut design, "winsorizeUpper", winsorize_upper);
    design.refuse_unknown();
    fields.absorb("design", design);
    DesignPatch {
        min_detectable_effect: effect,
        horizon_days: horizon,
        look_every_hours: hours,
        winsorize_upper: upper,
    }
}

/// A quantile between the ends of [`WINSORIZE`], neither of which is meant.
fn winsorize_upper(design: &mut Fields<'_, '_>, name: &str) -> Option<f64> {
    let Node::Number(number) = design.take(name)? else {
        design.fault(name, code::WRONG_TYPE, "must be a number");
        return None;
    };
    let (low, high) = WINSORIZE;
    let upper = number.parse::<f64>().ok();
    let upper = upper.filter(|upper| *upper > low && *upper < high);
    if upper.is_none() {
        let detail = format!("must be above {low} and below {high}");
        design.fault(name, code::OUT_OF_RANGE, detail);
    }
    upper
}

/// `Some(None)` when the member is `null`.
pub(super) fn nullable<'n, 'a, T>(
    fields: &mut Fields<'n, 'a>,
    name: &str,
    read: impl FnOnce(&mut Fields<'n, 'a>, &str) -> Option<T>,
) -> Option<Option<T>> {
    match fields.take_nullable(name)? {
        Node::Null => Some(None),
        _ => read(fields, name).map(Some),
    }
}

/// A configuration as JSON text, with numbers that a float can hold: most readers of JSON know no others, and the
/// storefront gets them as they are. What it says about bandits must make sense; all else is the shop's own.
fn config(fields: &mut Fields<'_, '_>) -> Option<String> {
    let object = fields.object("config")?;
    let Ok(value) = serde_json::from_str::<Value>(object) else {
        fields.fault(
            "config",
            code::OUT_OF_RANGE,
            "holds a number that is too large",
        );
        return None;
    };
    if let Err(faults) = bandit::check_config(&value, &fields.at("config")) {
        fields.faults.append(faults);
        return None;
    }
    Some(object.to_owned())
}

fn hash_version(fields: &mut Fields<'_, '_>) -> Option<HashVersion> {
    HashVersion::from_number(fields.integer("hashVersion", 1, 2)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults<T: std::fmt::Debug>(
        body: &str,
        read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
    ) -> Vec<(String, String)> {
        let error = document(body.as_bytes(), read).unwrap_err();
        let list = error.field_errors().into_iter();
        list.map(|fault| (fault.pointer, fault.code.to_string()))
            .collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = list.iter();
        owned
            .map(|(pointer, code)| ((*pointer).into(), (*code).into()))
            .collect()
    }

    #[test]
    fn the_shortest_experiment_has_all_defaults() {
        let new = document(br#"{"name":"Module Order"}"#, new_experiment).unwrap();
        assert_eq!(
            (new.salt.as_str(), new.target.as_str()),
            ("Module Order", "newsfeed")
        );
        assert_eq!(new.experiment_type, ExperimentType::AbTest);
        assert_eq!(
            (new.traffic_allocation, new.config.as_str()),
            (Decimal4(1_000_000), "{}")
        );
        assert_eq!(
            (new.primary_metric, new.hash_version),
            (Metric::ConversionRate, HashVersion::V2)
        );
        assert_eq!(new.design, Design::default());
    }

    #[test]
    fn null_is_a_default_at_creation_and_refused_in_a_patch() {
        let body = br#"{"name":"a","salt":null,"config":null,"hashVersion":null,"trafficAllocation":null}"#;
        assert_eq!(document(body, new_experiment).unwrap().salt, "a");
        assert_eq!(
            faults(
                r#"{"config":null,"trafficAllocation":null}"#,
                experiment_patch
            ),
            pairs(&[
                ("/trafficAllocation", "wrong_type"),
                ("/config", "wrong_type")
            ])
        );
    }

    #[test]
    fn every_wrong_field_of_an_experiment_is_named() {
        let body = r#"{"name":"123","experimentType":"x","target":"","traffic_allocation":33.33333,
            "primaryMetric":"error_rate","secondaryMetrics":["engagement","nope","engagement"],
            "guardrails":["engagement"],"design":{"minDetectableEffect":10,"lookEveryHours":0,"winsorizeUpper":1,"x":1},
            "config":{"a":1e999},"hashVersion":3,"status":"running","createdAt":"now","extra":1}"#;
        assert_eq!(
            faults(body, new_experiment),
            pairs(&[
                ("/status", "read_only"),
                ("/createdAt", "read_only"),
                ("/name", "invalid_text"),
                ("/experimentType", "unknown_value"),
                ("/target", "too_short"),
                ("/traffic_allocation", "too_many_decimals"),
                ("/primaryMetric", "guardrail_as_primary"),
                ("/secondaryMetrics/1", "unknown_metric"),
                ("/secondaryMetrics/2", "duplicate"),
                ("/guardrails/0", "unknown_value"),
                ("/design/minDetectableEffect", "out_of_range"),
                ("/design/lookEveryHours", "out_of_range"),
                ("/design/winsorizeUpper", "out_of_range"),
                ("/design/x", "unknown_field"),
                ("/config", "out_of_range"),
                ("/hashVersion", "out_of_range"),
                ("/extra", "unknown_field"),
            ])
        );
        assert_eq!(
            faults("{}", new_experiment),
            pairs(&[("/name", "required")])
        );
        assert_eq!(
            faults("[]", new_variant).first(),
            pairs(&[("", "wrong_type")]).first()
        );
    }

    #[test]
    fn a_field_in_both_spellings_is_malformed_at_any_depth() {
        for body in [
            r#"{"name":"a","trafficAllocation":1,"traffic_allocation":1}"#,
            r#"{"name":"a","design":{"horizonDays":1,"horizon_days":1}}"#,
        ] {
            assert_eq!(
                document(body.as_bytes(), new_experiment)
                    .unwrap_err()
                    .status(),
                400
            );
        }
    }

    #[test]
    fn weights_are_exact() {
        let weight = |text: &str| {
            let body = format!(r#"{{"name":"b","trafficWeight":{text}}}"#);
            document(body.as_bytes(), new_variant).map(|variant| variant.traffic_weight)
        };
        assert_eq!(weight("0.0001").unwrap(), Decimal4(1));
        assert_eq!(weight("1e4").unwrap(), MAX_TRAFFIC_WEIGHT);
        for refused in ["-1", "10000.0001", "1e300", "0.00001", "\"1\"", "true"] {
            assert_eq!(weight(refused).unwrap_err().status(), 422, "{refused}");
        }
    }

    #[test]
    fn a_design_tells_null_from_left_out() {
        let body = br#"{"design":{"horizonDays":null,"lookEveryHours":12}}"#;
        let design = document(body, experiment_patch).unwrap().design;
        assert_eq!(
            design,
            DesignPatch {
                min_detectable_effect: None,
                horizon_days: Some(None),
                look_every_hours: Some(12),
                winsorize_upper: None,
            }
        );
    }

    #[test]
    fn a_cap_lies_above_the_median_or_is_off() {
        let read = |text: &str| {
            let body = format!(r#"{{"name":"a","design":{{"winsorizeUpper":{text}}}}}"#);
            document(body.as_bytes(), new_experiment).map(|new| new.design.winsorize_upper)
        };
        assert_eq!(read("0.999").unwrap(), Some(0.999));
        assert_eq!(read("0.5000001").unwrap(), Some(0.500_000_1));
        assert_eq!(read("null").unwrap(), None);
        for refused in ["0.5", "1", "0", "-1", "99", "1e999", "\"0.9\"", "true"] {
            assert_eq!(read(refused).unwrap_err().status(), 422, "{refused}");
        }
        let left_out = document(br#"{"name":"a","design":{}}"#, new_experiment);
        assert_eq!(left_out.unwrap().design.winsorize_upper, Some(0.99));
        let patch = document(br#"{"design":{"winsorize_upper":null}}"#, experiment_patch);
        assert_eq!(patch.unwrap().design.winsorize_upper, Some(None));
    }

    #[test]
    fn an_override_names_one_variant() {
        let read = |body: &str| document(body.as_bytes(), variant_choice);
        assert_eq!(read(r#"{"variant_id":3}"#).unwrap(), VariantChoice::Id(3));
        assert_eq!(
            read(r#"{"variant":"b"}"#).unwrap(),
            VariantChoice::Name("b".into())
        );
        assert_eq!(
            faults("{}", variant_choice),
            pairs(&[("/variantId", "required")])
        );
        let both = r#"{"variantId":3,"variant":"b"}"#;
        assert_eq!(
            faults(both, variant_choice),
            pairs(&[("/variant", "duplicate")])
        );
        let wrong = r#"{"variantId":"3"}"#;
        assert_eq!(
            faults(wrong, variant_choice),
            pairs(&[("/variantId", "wrong_type")])
        );
    }

    #[test]
    fn a_winner_is_required_and_its_significance_a_percent() {
        let body = br#"{"winnerVariantId":2,"significance":97.5}"#;
        let step = Step::DeclareWinner {
            winner_variant_id: 2,
            significance: Some(97.5),
        };
        assert_eq!(document(body, declared_winner).unwrap(), step);
        assert_eq!(
            faults("{}", declared_winner),
            pairs(&[("/winnerVariantId", "required")])
        );
        let wrong = r#"{"winner_variant_id":0,"significance":100.5}"#;
        assert_eq!(
            faults(wrong, declared_winner),
            pairs(&[
                ("/winner_variant_id", "out_of_range"),
                ("/significance", "out_of_range")
            ])
        );
    }
}
