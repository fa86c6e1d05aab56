//! Arms of bandits: listed with what is believed of them, added, reset.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use podium_domain::bandit::{ArmType, BanditOptions, Rewards};
use podium_domain::experiment::Status;
use podium_domain::fault::code;
use podium_domain::text;
use podium_serving::arms::{Picture, Standing, as_if_ranked};
use podium_storage::analytics::context::{self, Arm};
use podium_storage::bandit::learning::{VARIANT, ranking_options};
use podium_storage::bandit::weights::Contest;
use podium_storage::database::Link;
use podium_storage::experiments::arms as changes;
use podium_storage::experiments::model::Experiment;
use serde::Serialize;
use utoipa::ToSchema;

use super::found;
use crate::auth::{Editor, Granted, Viewer};
use crate::json::Fields;
use crate::problem::{ApiError, Problem};
use crate::request::{Ctx, admin_json};
use crate::routes::admin::common::{Answer, NotChanged, carry_out, decoded, experiment, if_match};
use crate::routes::admin::read;
use crate::routes::analytics::bodies::Money;

/// Characters of an arm's id or name.
const KEY: usize = 128;
/// Arms whose probabilities are computed for an answer; those that are being ranked have theirs in memory.
const COMPUTED: usize = 500;

/// An arm of a bandit, and what is believed of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArmRow {
    /// Row.
    pub id: i64,
    /// `item`, `brand`, `category`, `algorithm`, or `variant`.
    pub arm_type: String,
    /// The item, brand, category, algorithm or variant.
    pub arm_id: String,
    /// Its name.
    pub arm_name: Option<String>,
    /// 1 + successes.
    pub alpha: f64,
    /// 1 + failures.
    pub beta: f64,
    /// Impressions whose outcome is known.
    pub total_pulls: i64,
    /// What they earned.
    pub total_reward: Money,
    /// Earned per pull. Raw: averages of data that a bandit collected are biased, mostly downwards.
    pub average_reward: f64,
    /// Always true: `averageReward` is raw.
    pub average_is_raw: bool,
    /// Free-form.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// Weight in force, floor included: the probability to come first among all arms, or, of a variant, the propensity of the next
    /// unit outside the even share. Null where nobody ranks the arm, and while the bandit assigns nobody.
    pub weight: Option<f64>,
    /// Probability of being the best of all arms of the type, by the posterior that the policy reads: with its prior, what is pending,
    /// and what it forgets. Null with more than 500 arms while nobody is ranked for, and for variants
    /// that are retired.
    pub probability_best: Option<f64>,
    /// What choosing the arm for good is expected to cost a pull.
    pub expected_loss: Option<f64>,
    /// Expected success rate, prior included; null where rewards are values.
    pub expected_reward: Option<f64>,
    /// 95 % credible interval of the success rate; null where rewards are values.
    pub interval: Option<[f64; 2]>,
    /// What happened earlier does not count.
    pub reset_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its row last changed.
    pub updated_at: DateTime<Utc>,
}

impl ArmRow {
    fn new(arm: Arm, standing: Option<&Standing>, weighted: bool) -> Self {
        Self {
            id: arm.id,
            arm_type: arm.arm_type,
            arm_id: arm.arm_id,
            arm_name: arm.arm_name,
            alpha: arm.alpha,
            beta: arm.beta,
            total_pulls: arm.total_pulls,
            total_reward: Money::new(&arm.total_reward),
            average_reward: arm.average_reward,
            average_is_raw: true,
            metadata: arm.metadata,
            weight: standing.filter(|_| weighted).map(|s| s.weight),
            probability_best: standing.map(|s| s.probability_best),
            expected_loss: standing.map(|s| s.expected_loss),
            expected_reward: standing.and_then(|s| s.expected),
            interval: standing
                .and_then(|s| s.interval)
                .map(|(low, high)| [low, high]),
            reset_at: arm.reset_at,
            created_at: arm.created_at,
            updated_at: arm.updated_at,
        }
    }
}

/// An arm to add.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateArm {
    /// `item` (default), `brand`, `category` or `algorithm`.
    #[schema(pattern = "^(item|brand|category|algorithm)$")]
    pub arm_type: Option<String>,
    /// Which one; a whole number is taken as its text.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub arm_id: String,
    /// Its name.
    #[schema(min_length = 1, max_length = 128, pattern = r"^[^\x00-\x1f\x7f]*$")]
    pub arm_name: Option<String>,
    /// An object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Value>,
}

/// Arms of a bandit; an empty list where there are none.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/bandit-arms", operation_id = "banditArms", tag = "Bandits", security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name"), ("armType" = Option<String>, Query, description = "item, brand, category, algorithm or variant")),
    responses((status = 200, body = Answer<Vec<ArmRow>>), (status = 401, content_type = "application/problem+json", body = Problem),
        (status = 403, content_type = "application/problem+json", body = Problem), (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 422, content_type = "application/problem+json", body = Problem), (status = 503, content_type = "application/problem+json", body = Problem)))]
pub async fn list(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let arm_type = ctx.query("armType");
    if let Some(text) = &arm_type {
        text::check_key(text).map_err(|f| ApiError::field("/armType", f.code(), f.to_string()))?;
    }
    let experiment = found(&ctx).await?;
    let mut link = ctx.state.database.report().await?;
    let arms = context::arms(&mut link, experiment.id, arm_type.as_deref()).await?;
    let mut by_type: BTreeMap<String, Vec<Arm>> = BTreeMap::new();
    for arm in arms {
        by_type.entry(arm.arm_type.clone()).or_default().push(arm);
    }
    let mut rows = Vec::new();
    for (arm_type, arms) in by_type {
        if arm_type == VARIANT {
            let contest = Contest::read(&mut link, &experiment).await?;
            rows.extend(contenders(arms, contest, &experiment).await);
            continue;
        }
        let Ok(arm_type) = arm_type.parse::<ArmType>() else {
            rows.extend(with_standings(arms, None, false));
            continue;
        };
        let ranked = ctx.state.serving.picture(experiment.id, arm_type);
        let weighted = ranked.is_some();
        let picture = match ranked {
            Some(picture) => Some(picture),
            None => computed(&ctx, &mut link, &experiment, arm_type).await?,
        };
        rows.extend(with_standings(arms, picture.as_deref(), weighted));
    }
    admin_json(200, rows)
}

fn with_standings(arms: Vec<Arm>, picture: Option<&Picture>, weighted: bool) -> Vec<ArmRow> {
    let standings = picture.and_then(|picture| picture.standings().ok());
    let row = |arm: Arm| {
        let standing = standings
            .as_ref()
            .and_then(|all| all.get(arm.arm_id.as_str()));
        let standing = standing.copied();
        ArmRow::new(arm, standing.as_ref(), weighted)
    };
    arms.into_iter().map(row).collect()
}

/// Variants as the policy of their bandit sees them now, with the weights by which units are drawn. A retired one has a weight of
/// 0, and is not compared.
async fn contenders(arms: Vec<Arm>, contest: Contest, experiment: &Experiment) -> Vec<ArmRow> {
    let assigns = experiment.status == Status::Running;
    let weights = contest.shares();
    let picture = web::block(move || {
        let Contest {
            options,
            arms,
            hour,
            ..
        } = contest;
        Picture::new(0, &options, &arms, hour)
    });
    let picture = picture.await.ok().and_then(Result::ok);
    let mut rows = with_standings(arms, picture.as_ref(), false);
    for row in &mut rows {
        let weight = weights.get(&row.arm_id).copied().unwrap_or(0.0);
        row.weight = Some(weight).filter(|_| assigns);
    }
    rows
}

/// The picture of arms that nobody is ranked for now: as the first variant that ranks would see them, and by the options of a
/// bandit that sets none where no variant does.
async fn computed(
    ctx: &Ctx,
    link: &mut Link,
    experiment: &Experiment,
    arm_type: ArmType,
) -> Result<Option<Arc<Picture>>, ApiError> {
    let options = ranking_options(experiment).into_iter().next();
    let options = options.map_or_else(
        || BanditOptions::with_rewards(Rewards::any()),
        |(_, options)| options,
    );
    let hour = ctx.state.clock.now().timestamp() / 3_600;
    let place = (experiment.id, arm_type);
    Ok(as_if_ranked(link, place, options, hour, COMPUTED).await?)
}

/// Adds an arm. Those that storefronts rank come by themselves.
#[utoipa::path(post, path = "/api/v1/admin/experiments/{id}/bandit-arms", operation_id = "createBanditArm", tag = "Bandits",
    security(("bearer" = [])), request_body = CreateArm,
    params(
        ("id" = String, Path, description = "Id or name of the experiment"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read of the experiment")),
    responses((status = 201, description = "Added", body = Answer<ArmRow>), NotChanged))]
pub async fn create(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let new = read::body(&ctx, new_arm).await?;
    let (which, when) = (experiment(&ctx)?, if_match(&ctx));
    let made = carry_out(&ctx, &granted, async move |database, origin| {
        changes::add(database, origin, &which, &when, &new).await
    })
    .await?;
    admin_json(201, ArmRow::new(made, None, false))
}

fn new_arm(fields: &mut Fields<'_, '_>) -> Option<changes::NewArm> {
    let kind = fields.string("armType", 0, KEY);
    let arm_type = match kind.map(str::parse::<ArmType>) {
        None => Some(ArmType::default()),
        Some(Ok(kind)) => Some(kind),
        Some(Err(error)) => {
            fields.fault("armType", code::UNKNOWN_VALUE, error.to_string());
            None
        }
    };
    let id = fields.key("armId", KEY);
    let id = fields.require("armId", id);
    let name = fields.string("armName", 1, KEY).map(str::to_owned);
    let metadata = fields.object("metadata").map(str::to_owned);
    Some(changes::NewArm {
        arm_type: arm_type?,
        arm_id: id?.to_owned(),
        name,
        metadata,
    })
}

/// Cuts off the past of an arm: what was counted until now no longer speaks for it. Nothing is deleted.
#[utoipa::path(post, path = "/api/v1/admin/experiments/{id}/bandit-arms/{rowId}/reset", operation_id = "resetBanditArm",
    tag = "Bandits", security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or name of the experiment"),
        ("rowId" = i64, Path, description = "Id of the arm's row"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read of the experiment")),
    responses((status = 200, description = "The arm after the reset", body = Answer<ArmRow>), NotChanged))]
pub async fn reset(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    read::body_or_nothing(&ctx, |_| Some(())).await?;
    let (which, when) = (experiment(&ctx)?, if_match(&ctx));
    let row_id = decoded(&ctx, "rowId")
        .parse::<i64>()
        .ok()
        .filter(|id| *id > 0);
    let row_id = row_id.ok_or_else(|| ApiError::not_found("this arm"))?;
    let after = carry_out(&ctx, &granted, async move |database, origin| {
        changes::reset(database, origin, &which, &when, row_id).await
    })
    .await?;
    ctx.state.serving.look_soon();
    admin_json(200, ArmRow::new(after, None, false))
}
