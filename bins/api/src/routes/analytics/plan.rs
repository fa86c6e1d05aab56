//! Planning an experiment: how many units, how many days.

use std::rc::Rc;

use actix_web::HttpResponse;
use podium_domain::stats::StatsError;
use podium_domain::stats::power::{self, Baseline, Level, Sides, days_at_traffic};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{Granted, Viewer};
use crate::json::Fields;
use crate::problem::{ApiError, Problem};
use crate::request::{Ctx, admin_json};
use crate::routes::admin::common::Answer;
use crate::routes::admin::read;

/// Variants that an experiment may be planned with.
const VARIANTS: (i64, i64) = (2, 100);
/// Relative effects that can be planned for.
const EFFECT: (f64, f64) = (0.000_1, 10.0);
/// Units in a treatment for one in the control.
const RATIO: (f64, f64) = (0.001, 1_000.0);
/// Means, deviations and traffic that can be planned for.
const LARGEST: f64 = 1e12;

/// What is planned.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleSizeRequest {
    /// The control's rate, above 0 and below 1; with `standardDeviation` its mean, above 0.
    pub baseline: f64,
    /// Standard deviation of a unit's total, for means.
    pub standard_deviation: Option<f64>,
    /// Smallest relative effect that is to be found (0.1 is 10 %).
    #[schema(minimum = 0.0001, maximum = 10)]
    pub minimum_detectable_effect: f64,
    /// Chance to find it; 0.8 without it.
    #[schema(minimum = 0.5, maximum = 0.999)]
    pub power: Option<f64>,
    /// Error allowed over all treatments together; 0.05 without it.
    #[schema(minimum = 0.000001, maximum = 0.5)]
    pub alpha: Option<f64>,
    /// 1 or 2 (default).
    #[schema(minimum = 1, maximum = 2)]
    pub sides: Option<i64>,
    /// Variants, the control included; 2 without it.
    #[schema(minimum = 2, maximum = 100)]
    pub variants: Option<i64>,
    /// Units in each treatment for one unit in the control: 1 (default) splits evenly, 0.25 gives a treatment a quarter of
    /// what the control gets.
    #[schema(minimum = 0.001, maximum = 1000)]
    pub ratio: Option<f64>,
    /// Units that take part in a day, all variants together.
    pub units_per_day: Option<f64>,
}

/// What the plan needs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleSizeAnswer {
    /// Units in each variant; with another `ratio` than 1 in the larger one.
    pub units_per_variant: f64,
    /// Units in the control.
    pub units_in_control: f64,
    /// Units in each treatment.
    pub units_per_treatment: f64,
    /// In all variants together.
    pub total_units: f64,
    /// Level of each treatment's test: alpha over the number of treatments.
    pub alpha_per_treatment: f64,
    /// Whole days at `unitsPerDay`; null without it.
    pub days: Option<f64>,
    /// How to read it.
    pub note: &'static str,
}

struct Plan {
    baseline: Baseline,
    effect: f64,
    power: f64,
    alpha: f64,
    sides: Sides,
    variants: i64,
    ratio: f64,
    units_per_day: Option<f64>,
}

/// Units per variant for a baseline, an effect, a power and a number of variants, and the days that takes.
#[utoipa::path(post, path = "/api/v1/admin/sample-size", operation_id = "sampleSize", tag = "Analytics", security(("bearer" = [])),
    request_body = SampleSizeRequest,
    responses((status = 200, body = Answer<SampleSizeAnswer>), (status = 400, content_type = "application/problem+json", body = Problem),
        (status = 401, content_type = "application/problem+json", body = Problem), (status = 403, content_type = "application/problem+json", body = Problem),
        (status = 413, content_type = "application/problem+json", body = Problem), (status = 415, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem)))]
pub async fn sample_size(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let plan = read::body(&ctx, plan).await?;
    admin_json(200, answer(&plan).map_err(refused)?)
}

fn plan(fields: &mut Fields<'_, '_>) -> Option<Plan> {
    let deviation = above_zero(fields, "standardDeviation", LARGEST);
    let highest = if deviation.is_some() { LARGEST } else { 1.0 };
    let baseline = above_zero(fields, "baseline", highest);
    let baseline = fields.require("baseline", baseline);
    let effect = fields.float("minimumDetectableEffect", EFFECT.0, EFFECT.1);
    let effect = fields.require("minimumDetectableEffect", effect);
    let power = fields.float("power", 0.5, 0.999).unwrap_or(0.8);
    let alpha = fields.float("alpha", 1e-6, 0.5).unwrap_or(0.05);
    let sides = match fields.integer("sides", 1, 2) {
        Some(1) => Sides::One,
        _ => Sides::Two,
    };
    let variants = fields.integer("variants", VARIANTS.0, VARIANTS.1);
    let ratio = fields.float("ratio", RATIO.0, RATIO.1).unwrap_or(1.0);
    let units_per_day = above_zero(fields, "unitsPerDay", LARGEST);
    Some(Plan {
        baseline: match (deviation, baseline?) {
            (None, share) => Baseline::Proportion(share),
            (Some(sd), mean) => Baseline::Mean { mean, sd },
        },
        effect: effect?,
        power,
        alpha,
        sides,
        variants: variants.unwrap_or(VARIANTS.0),
        ratio,
        units_per_day,
    })
}

/// A number above 0 and at most `highest`; a rate has to be below 1.
fn above_zero(fields: &mut Fields<'_, '_>, name: &str, highest: f64) -> Option<f64> {
    let value = fields.float(name, 0.0, highest)?;
    let below = highest > 1.0 || value < highest;
    if value > 0.0 && below {
        return Some(value);
    }
    let detail = if highest > 1.0 {
        "must be above 0"
    } else {
        "must be above 0 and below 1; a mean needs standardDeviation beside it"
    };
    fields.fault(name, podium_domain::fault::code::OUT_OF_RANGE, detail);
    None
}

fn answer(plan: &Plan) -> Result<SampleSizeAnswer, StatsError> {
    #[expect(clippy::cast_precision_loss, reason = "at most a hundred")]
    let treatments = (plan.variants - 1) as f64;
    let alpha = plan.alpha / treatments;
    let level = Level::new(alpha, plan.sides)?;
    let size = power::sample_size(plan.baseline, plan.effect, level, plan.power, plan.ratio)?;
    let total = size.n_a_ceil + treatments * size.n_b_ceil;
    let days = plan
        .units_per_day
        .map(|per_day| days_at_traffic(total, per_day))
        .transpose()?;
    Ok(SampleSizeAnswer {
        units_per_variant: size.n_a_ceil.max(size.n_b_ceil),
        units_in_control: size.n_a_ceil,
        units_per_treatment: size.n_b_ceil,
        total_units: total,
        alpha_per_treatment: alpha,
        days: days.map(f64::ceil),
        note: "fixed horizon, one look at the end; the decision rule that looks all the time may stop earlier and may need more",
    })
}

fn refused(error: StatsError) -> ApiError {
    let detail = match error {
        StatsError::InvalidInput => {
            "the effect on this baseline leads out of what a rate can be".to_owned()
        }
        other => other.to_string(),
    };
    ApiError::field(
        "/minimumDetectableEffect",
        podium_domain::fault::code::OUT_OF_RANGE,
        detail,
    )
}
