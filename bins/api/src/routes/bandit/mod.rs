//! Bandits: their arms, and what other policies would have earned. For holders of a token.

use actix_web::http::Method;
use podium_storage::experiments;
use podium_storage::experiments::model::Experiment;
use utoipa::OpenApi;

use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;
use crate::routes::admin::common::experiment as reference;

pub mod arms;
pub mod off_policy;
mod target;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    const ARMS: &str = "/api/v1/admin/experiments/{id}/bandit-arms";
    const RESET: &str = "/api/v1/admin/experiments/{id}/bandit-arms/{rowId}/reset";
    const OFF_POLICY: &str = "/api/v1/admin/experiments/{id}/off-policy";
    vec![
        Route::report(Method::GET, ARMS, arms::list),
        Route::guarded(Method::POST, ARMS, arms::create),
        Route::guarded(Method::POST, RESET, arms::reset),
        Route::report(Method::POST, OFF_POLICY, off_policy::evaluate),
    ]
}

/// The documented operations of these modules.
#[derive(OpenApi)]
#[openapi(paths(arms::list, arms::create, arms::reset, off_policy::evaluate))]
pub struct BanditApi;

async fn found(ctx: &Ctx) -> Result<Experiment, ApiError> {
    let experiment = experiments::query::read(&ctx.state.database, &reference(ctx)?).await?;
    experiment.ok_or_else(|| ApiError::not_found("this experiment"))
}
