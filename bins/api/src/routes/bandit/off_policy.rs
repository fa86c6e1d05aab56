//! What another policy would have earned: from the decisions of a ranking, or from a log that comes along.

use std::rc::Rc;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use podium_bandit::BanditError;
use podium_bandit::adaptive::Estimate;
use podium_bandit::off_policy::{Evaluation, Replay};
use podium_domain::bandit::{ArmType, variant_options};
use podium_domain::fault::code;
use podium_storage::analytics::logged::{self, Which};
use podium_storage::experiments::model::Experiment;
use serde::Serialize;
use utoipa::ToSchema;

use super::found;
use super::target::{self, Log, Question, Target};
use crate::auth::{Granted, Viewer};
use crate::json::{Fields, Node};
use crate::problem::{ApiError, Problem};
use crate::request::{BATCH, Ctx, Media, admin_json};
use crate::routes::admin::common::Answer;
use crate::routes::admin::read;

/// Characters of an arm's id.
const KEY: usize = 128;
/// Largest reward of a row.
const REWARD: f64 = 1e12;

/// Which policy is to be evaluated, and on what.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OffPolicyBody {
    /// `"uniform"`, `"input_order"` (the first candidate of the request), `{"order": [ids]}` (the first of them that is
    /// a candidate; in a log that comes along the arm of each position), `{"weights": {id: weight}}` (candidates that are not
    /// named are never shown; each decision needs one that is), or, for such a log, `{"probabilities": {id: [one for each position]}}`.
    #[schema(value_type = Object)]
    pub target: serde_json::Value,
    /// What was ranked: `item` (default), `brand`, `category` or `algorithm`.
    #[schema(pattern = "^(item|brand|category|algorithm)$")]
    pub arm_type: Option<String>,
    /// Decisions of one variant only.
    #[schema(minimum = 1)]
    pub variant_id: Option<i64>,
    /// Decisions from this moment on.
    pub from: Option<DateTime<Utc>>,
    /// Decisions before this moment.
    pub to: Option<DateTime<Utc>>,
    /// Largest weight of a row; less variance, some bias.
    #[schema(exclusive_minimum = 0)]
    pub clip: Option<f64>,
    /// A log with known propensities, instead of the experiment's decisions.
    pub log: Option<Vec<LogRow>>,
    /// All arms of that log, where some were never shown.
    pub arms: Option<Vec<String>>,
}

/// A row of a log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogRow {
    /// The arm that was shown.
    #[schema(min_length = 1, max_length = 128)]
    pub arm: String,
    /// Its position, from 1; 1 unless given.
    #[schema(minimum = 1, maximum = 100)]
    pub position: Option<usize>,
    /// What it earned.
    pub reward: f64,
    /// Probability with which it was shown there.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub propensity: f64,
}

/// What the policy would have earned a decision.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OffPolicyAnswer {
    /// Rows: of the newest 100,000 decisions whose window has passed those whose first place was seen, or rows of the log.
    pub rows: usize,
    /// What the logged policy earned a row.
    pub logged_value: Option<f64>,
    /// (Σw)² / Σw²: how many rows of the policy itself this is worth.
    pub effective_sample_size: Option<f64>,
    /// Largest weight.
    pub largest_weight: Option<f64>,
    /// Mean weight; far from 1 when the log does not cover what the policy would do.
    pub mean_weight: Option<f64>,
    /// Null where there is no number to be trusted.
    pub estimates: Option<Estimates>,
    /// For deterministic policies on uniform logs.
    pub replay: Option<ReplayBody>,
    /// Why there are no estimates.
    pub reason: Option<String>,
    /// What else to know.
    pub warnings: Vec<&'static str>,
}

/// Estimates of the mean reward.
#[derive(Debug, Serialize, ToSchema)]
pub struct Estimates {
    /// Inverse propensity weighting: unbiased, because `clip` does not hold for it; null where the weights without a
    /// clip are too uneven.
    pub ipw: Option<EstimateBody>,
    /// The same with normalised weights.
    pub snipw: EstimateBody,
    /// The reward model alone: no weights, as good as the model.
    pub dm: f64,
    /// Doubly robust.
    pub dr: EstimateBody,
    /// The same with normalised weights.
    pub sndr: f64,
}

/// An estimate with its standard error and 95 % interval.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EstimateBody {
    /// Mean reward.
    pub value: f64,
    /// Standard error.
    pub standard_error: f64,
    /// 95 % interval.
    pub interval: [f64; 2],
}

/// Rows where the policy would have shown what was shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayBody {
    /// How many.
    pub matched: usize,
    /// What they earned.
    pub reward: f64,
    /// Their mean.
    pub value: f64,
}

impl From<Estimate> for EstimateBody {
    fn from(estimate: Estimate) -> Self {
        let (low, high) = estimate.interval95();
        Self {
            value: estimate.value,
            standard_error: estimate.se,
            interval: [low, high],
        }
    }
}

/// Evaluates another policy on what was logged: IPW, SNIPW, DR, SNDR, and replay where the log allows it.
///
/// Below an effective sample of 100 there are no numbers, only the reason.
#[utoipa::path(post, path = "/api/v1/admin/experiments/{id}/off-policy", operation_id = "offPolicy", tag = "Bandits",
    security(("bearer" = [])), request_body = OffPolicyBody, params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = Answer<OffPolicyAnswer>), (status = 400, content_type = "application/problem+json", body = Problem),
        (status = 401, content_type = "application/problem+json", body = Problem), (status = 403, content_type = "application/problem+json", body = Problem),
        (status = 404, content_type = "application/problem+json", body = Problem), (status = 413, content_type = "application/problem+json", body = Problem),
        (status = 415, content_type = "application/problem+json", body = Problem), (status = 422, content_type = "application/problem+json", body = Problem),
        (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn evaluate(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let body = ctx.body(BATCH, Media::Json).await?;
    let asked = read::document(&body, asked)?;
    let experiment = found(&ctx).await?;
    let mut warnings = Vec::new();
    let log = match asked.log {
        Some(log) => log,
        None => {
            if forgets_arms(&experiment) {
                warnings.push(
                    "a floor of 0 gives some arms no traffic at all: what they would have earned cannot be evaluated",
                );
            }
            let mut link = ctx.state.database.report().await?;
            Log::Decisions(logged::read(&mut link, experiment.id, &asked.which).await?)
        }
    };
    let question = Question {
        log,
        target: asked.target,
        clip: asked.clip,
    };
    let outcome = web::block(move || target::answer(&question)).await;
    let outcome = outcome.map_err(|_| ApiError::unavailable())?;
    admin_json(200, answer(outcome?, warnings)?)
}

/// Whether a variant's floor is 0.
fn forgets_arms(experiment: &Experiment) -> bool {
    let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
    let outer = json(&experiment.config);
    experiment.variants.iter().any(|variant| {
        let options = variant_options(&json(&variant.config), &outer, true);
        matches!(options, Ok(Some(options)) if options.floor <= 0.0)
    })
}

fn answer(
    outcome: target::Outcome,
    warnings: Vec<&'static str>,
) -> Result<OffPolicyAnswer, ApiError> {
    let replay = outcome.replay.map(|replay: Replay| ReplayBody {
        matched: replay.matched,
        reward: replay.reward,
        value: replay.value,
    });
    let mut answer = OffPolicyAnswer {
        rows: outcome.rows,
        logged_value: outcome.logged_value,
        effective_sample_size: None,
        largest_weight: None,
        mean_weight: None,
        estimates: None,
        replay,
        reason: None,
        warnings,
    };
    match outcome.evaluation {
        Ok(evaluation) => fill(&mut answer, &evaluation, outcome.ipw),
        Err(BanditError::EffectiveSampleTooSmall { got, required }) => {
            answer.effective_sample_size = Some(got);
            answer.reason = Some(format!(
                "the effective sample size is {got:.1}, at least {required} is needed"
            ));
        }
        Err(error @ BanditError::NotEnoughData { .. }) => answer.reason = Some(error.to_string()),
        Err(error) => {
            return Err(ApiError::field(
                "/target",
                code::OUT_OF_RANGE,
                error.to_string(),
            ));
        }
    }
    Ok(answer)
}

fn fill(answer: &mut OffPolicyAnswer, evaluation: &Evaluation, ipw: Option<Estimate>) {
    answer.effective_sample_size = Some(evaluation.effective_sample_size);
    answer.largest_weight = Some(evaluation.weight_max);
    answer.mean_weight = Some(evaluation.weight_mean);
    answer.estimates = Some(Estimates {
        ipw: ipw.map(Into::into),
        snipw: evaluation.snipw.into(),
        dm: evaluation.dm,
        dr: evaluation.dr.into(),
        sndr: evaluation.sndr,
    });
}

/// A request, checked.
struct Asked {
    target: Target,
    which: Which,
    clip: Option<f64>,
    log: Option<Log>,
}

fn asked(fields: &mut Fields<'_, '_>) -> Option<Asked> {
    let target = target(fields);
    let arm_type = match fields.string("armType", 0, KEY).map(str::parse::<ArmType>) {
        None => ArmType::default(),
        Some(Ok(kind)) => kind,
        Some(Err(error)) => {
            fields.fault("armType", code::UNKNOWN_VALUE, error.to_string());
            ArmType::default()
        }
    };
    let which = Which {
        arm_type,
        variant_id: fields.integer("variantId", 1, i64::MAX),
        from: moment(fields, "from"),
        to: moment(fields, "to"),
    };
    let clip = fields.float("clip", 1e-9, f64::MAX);
    let arms = fields.strings("arms", 10_000);
    let log = rows(fields, arms);
    Some(Asked {
        target: target?,
        which,
        clip,
        log,
    })
}

fn moment(fields: &mut Fields<'_, '_>, name: &str) -> Option<DateTime<Utc>> {
    let text = fields.string(name, 0, KEY)?;
    let parsed = DateTime::parse_from_rfc3339(text);
    if parsed.is_err() {
        fields.fault(name, code::WRONG_TYPE, "must be an RFC 3339 time with zone");
    }
    parsed.ok().map(|moment| moment.to_utc())
}

fn target(fields: &mut Fields<'_, '_>) -> Option<Target> {
    const FORMS: &str = "must be \"uniform\", \"input_order\", or an object with one of order, weights, probabilities";
    let found = fields.take("target");
    let read = match fields.require("target", found)? {
        Node::String(word) if word == "uniform" => Some(Target::Uniform),
        Node::String(word) if word == "input_order" => Some(Target::InputOrder),
        Node::Object(members, _) => match members.as_slice() {
            [(name, Node::Array(ids))] if name == "order" => {
                ids.iter().map(id).collect::<Option<_>>().map(Target::Order)
            }
            [(name, Node::Object(weights, _))] if name == "weights" => weights
                .iter()
                .map(|(id, weight)| Some((id.to_string(), number(weight)?)))
                .collect::<Option<_>>()
                .map(Target::Weights),
            [(name, Node::Object(lists, _))] if name == "probabilities" => lists
                .iter()
                .map(|(id, list)| Some((id.to_string(), numbers(list)?)))
                .collect::<Option<_>>()
                .map(Target::Probabilities),
            _ => None,
        },
        _ => None,
    };
    if read.is_none() {
        fields.fault("target", code::UNKNOWN_VALUE, FORMS);
    }
    read
}

fn id(node: &Node<'_>) -> Option<String> {
    match node {
        Node::String(text) => Some(text.clone().into_owned()),
        Node::Number(number) => Some((*number).to_owned()),
        _ => None,
    }
}

/// A finite number that is not negative.
fn number(node: &Node<'_>) -> Option<f64> {
    let Node::Number(text) = node else {
        return None;
    };
    let number = text.parse::<f64>().ok()?;
    (number >= 0.0 && number.is_finite()).then_some(number)
}

fn numbers(node: &Node<'_>) -> Option<Vec<f64>> {
    match node {
        Node::Array(items) => items.iter().map(number).collect(),
        _ => None,
    }
}

/// The rows of a log, if one comes along.
fn rows(fields: &mut Fields<'_, '_>, arms: Option<Vec<&str>>) -> Option<Log> {
    let nodes = match fields.take("log")? {
        Node::Array(nodes) => nodes,
        _ => {
            fields.fault("log", code::WRONG_TYPE, "must be a list of rows");
            return None;
        }
    };
    let mut rows = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        let mut row = Fields::inner(node);
        let arm = row.key("arm", KEY);
        let arm = row.require("arm", arm);
        let position = row.integer("position", 1, 100).unwrap_or(1);
        let reward = row.float("reward", -REWARD, REWARD);
        let reward = row.require("reward", reward);
        let propensity = row.float("propensity", 1e-12, 1.0);
        let propensity = row.require("propensity", propensity);
        row.refuse_unknown();
        for fault in row.faults.into_vec() {
            let pointer = format!("/log/{at}{}", fault.pointer);
            fields.faults.push(pointer, fault.code, fault.detail);
        }
        if let (Some(arm), Some(reward), Some(propensity)) = (arm, reward, propensity) {
            rows.push(target::Row {
                arm: arm.to_owned(),
                position: usize::try_from(position - 1).unwrap_or_default(),
                reward,
                propensity,
            });
        }
    }
    let arms = arms.unwrap_or_default();
    Some(Log::Rows {
        rows,
        arms: arms.into_iter().map(str::to_owned).collect(),
    })
}
