//! What was promoted, and from what evidence.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use chrono::{DateTime, Utc};
use podium_domain::fault::{Faults, code};
use podium_storage::promotions::model::Promotion;
use podium_storage::promotions::records::Record;
use podium_storage::promotions::{read, records};
use podium_storage::rollouts;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::bodies::WatchBody;
use crate::auth::{Granted, Viewer};
use crate::problem::ApiError;
use crate::request::{Ctx, admin_json};
use crate::routes::Route;
use crate::routes::admin::common::{Answer, NotRead, Page, Query, Refused, decoded};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::guarded(Method::GET, "/api/v1/admin/promotions", list),
        Route::guarded(Method::GET, "/api/v1/admin/promotions/stats", stats),
        Route::guarded(Method::GET, "/api/v1/admin/promotions/{id}", one),
    ]
}

/// A promotion.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Promotion)]
#[serde(rename_all = "camelCase")]
pub struct PromotionBody {
    /// Its id.
    pub id: Uuid,
    /// The experiment's id.
    pub experiment_id: i64,
    /// The experiment.
    pub experiment_name: String,
    /// The winner's id.
    pub promoted_variant_id: i64,
    /// The winner.
    pub promoted_variant_name: String,
    /// The control's id.
    pub control_variant_id: Option<i64>,
    /// The control.
    pub control_variant_name: Option<String>,
    /// Sequential confidence in percent.
    pub confidence: Option<f64>,
    /// Lift in percent.
    pub improvement: Option<f64>,
    /// Units of the winner.
    pub sample_size: Option<i64>,
    /// `auto` or `manual`.
    pub promotion_type: String,
    /// Who promoted it.
    pub promoted_by: Option<String>,
    /// When.
    pub promoted_at: DateTime<Utc>,
    /// Whether it is in force.
    pub active: bool,
    /// When it was rolled back.
    pub rollback_at: Option<DateTime<Utc>>,
    /// Why it was rolled back.
    pub rollback_reason: Option<String>,
    /// What else was noted.
    #[schema(value_type = Object)]
    pub metadata: Value,
}

impl From<Promotion> for PromotionBody {
    fn from(promotion: Promotion) -> Self {
        Self {
            id: promotion.id,
            experiment_id: promotion.experiment_id,
            experiment_name: promotion.experiment_name,
            promoted_variant_id: promotion.promoted_variant_id,
            promoted_variant_name: promotion.promoted_variant_name,
            control_variant_id: promotion.control_variant_id,
            control_variant_name: promotion.control_variant_name,
            confidence: promotion.confidence,
            improvement: promotion.improvement,
            sample_size: promotion.sample_size,
            promotion_type: promotion.promotion_type,
            promoted_by: promotion.promoted_by,
            promoted_at: promotion.promoted_at,
            active: promotion.rollback_at.is_none(),
            rollback_at: promotion.rollback_at,
            rollback_reason: promotion.rollback_reason,
            metadata: promotion.metadata,
        }
    }
}

/// What was decided, from what.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionBody {
    /// Its id, for a replay.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// `promoted`, `forced`, `attempted`, `held` or `rolled_back`.
    pub kind: String,
    /// `auto` or `manual`.
    pub triggered_by: String,
    /// Who asked.
    pub actor: String,
    /// Version of the decision function.
    pub version: String,
    /// What was asked.
    #[schema(value_type = Option<Object>)]
    pub question: Option<Value>,
    /// The configuration in force.
    #[schema(value_type = Option<Object>)]
    pub config: Option<Value>,
    /// What the decision looked at.
    #[schema(value_type = Option<Object>)]
    pub evidence: Option<Value>,
    /// What was decided.
    #[schema(value_type = Object)]
    pub decision: Value,
}

impl From<Record> for DecisionBody {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            at: record.at,
            kind: record.kind,
            triggered_by: record.triggered_by,
            actor: record.actor,
            version: record.version,
            question: record.question,
            config: record.config,
            evidence: record.evidence,
            decision: record.decision,
        }
    }
}

/// A promotion with everything that was decided about it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionDetail {
    /// The promotion.
    #[serde(flatten)]
    pub promotion: PromotionBody,
    /// How it is, or was, watched.
    pub watch: Option<WatchBody>,
    /// What was decided about it, in order.
    pub decisions: Vec<DecisionBody>,
}

/// Counts and averages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionStats {
    /// All there were.
    pub total_promotions: i64,
    /// By the engine.
    pub auto_promotions: i64,
    /// By people.
    pub manual_promotions: i64,
    /// In force.
    pub active_promotions: i64,
    /// Taken back.
    pub rolled_back_promotions: i64,
    /// Average confidence in percent.
    pub avg_confidence: Option<f64>,
    /// Average lift in percent.
    pub avg_improvement: Option<f64>,
}

/// Promotions, newest first.
#[utoipa::path(get, path = "/api/v1/admin/promotions", operation_id = "listPromotions", tag = "Promotions",
    security(("bearer" = [])),
    params(
        ("active" = Option<bool>, Query, description = "true (or empty): those in force; false: those rolled back; without it all"),
        ("limit" = Option<i64>, Query, description = "Entries of a page; 50 unless given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before")),
    responses((status = 200, description = "One page", body = Page<PromotionBody>), Refused))]
pub async fn list(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(&ctx);
    let limit = query.limit();
    query.finish()?;
    let (active, below) = (active(&ctx)?, cursor(&ctx)?);
    let found = read::list(&ctx.state.database, active, below, limit + 1).await?;
    let cursor = |last: &Promotion| format!("{}_{}", last.promoted_at.timestamp_micros(), last.id);
    Page::new(found, limit, cursor, PromotionBody::from).answer()
}

fn active(ctx: &Ctx) -> Result<Option<bool>, ApiError> {
    match ctx.query("active").as_deref() {
        None => Ok(None),
        Some("" | "true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(fault("active", code::WRONG_TYPE, "must be true or false")),
    }
}

fn cursor(ctx: &Ctx) -> Result<Option<(DateTime<Utc>, Uuid)>, ApiError> {
    let Some(text) = ctx.query("cursor").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let read = || {
        let (micros, id) = text.split_once('_')?;
        let time = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
        Some((time, id.parse().ok()?))
    };
    let cursor = read().filter(|(time, _)| (1970..=9999).contains(&chrono::Datelike::year(time)));
    let wrong = || fault("cursor", code::INVALID_TEXT, "is no cursor of this list");
    cursor.map(Some).ok_or_else(wrong)
}

fn fault(name: &str, code: &'static str, detail: &str) -> ApiError {
    let mut faults = Faults::new();
    faults.push(format!("/{name}"), code, detail);
    ApiError::validation(faults)
}

/// Counts and averages over all promotions.
#[utoipa::path(get, path = "/api/v1/admin/promotions/stats", operation_id = "promotionStats", tag = "Promotions",
    security(("bearer" = [])), responses((status = 200, body = Answer<PromotionStats>), Refused))]
pub async fn stats(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let stats = read::stats(&ctx.state.database).await?;
    admin_json(
        200,
        PromotionStats {
            total_promotions: stats.total,
            auto_promotions: stats.auto,
            manual_promotions: stats.manual,
            active_promotions: stats.active,
            rolled_back_promotions: stats.rolled_back,
            avg_confidence: stats.avg_confidence,
            avg_improvement: stats.avg_improvement,
        },
    )
}

/// A promotion with the evidence of every decision about it.
#[utoipa::path(get, path = "/api/v1/admin/promotions/{id}", operation_id = "getPromotion", tag = "Promotions",
    security(("bearer" = [])), params(("id" = String, Path, description = "Id of the promotion")),
    responses((status = 200, body = Answer<PromotionDetail>), NotRead))]
pub async fn one(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let id: Result<Uuid, _> = decoded(&ctx, "id").parse();
    let promotion = match id {
        Ok(id) => found(&ctx, id).await?,
        Err(_) => return Err(ApiError::not_found("this promotion")),
    };
    let mut link = ctx.state.database.serve().await?;
    let decisions = records::of_promotion(&mut link, promotion.id).await?;
    let watch = rollouts::note_of_promotion(&mut link, promotion.id).await?;
    admin_json(
        200,
        PromotionDetail {
            promotion: promotion.into(),
            watch: watch.map(WatchBody::from),
            decisions: decisions.into_iter().map(DecisionBody::from).collect(),
        },
    )
}

pub(super) async fn found(ctx: &Ctx, id: Uuid) -> Result<Promotion, ApiError> {
    let mut link = ctx.state.database.serve().await?;
    let found = read::by_id(&mut link, id).await?;
    found.ok_or_else(|| ApiError::not_found("this promotion"))
}
