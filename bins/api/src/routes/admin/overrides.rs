//! Units pinned to a variant for testing.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use podium_storage::experiments::overrides;
use utoipa::OpenApi;

use super::bodies::{OverrideBody, PutOverride};
use super::common::{Answer, Deleted, NotChanged, carry_out, deleted, experiment, if_match, unit};
use super::read;
use crate::auth::{Editor, Granted};
use crate::problem::ApiError;
use crate::request::{Ctx, admin_json};
use crate::routes::Route;

const ONE: &str = "/api/v1/admin/experiments/{id}/overrides/{unit}";

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::guarded(Method::PUT, ONE, put),
        Route::guarded(Method::DELETE, ONE, delete),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(put, delete))]
pub struct OverridesApi;

/// Pins a unit to a variant for testing. The unit is left out of every analysis of the experiment, for good.
#[utoipa::path(put, path = "/api/v1/admin/experiments/{id}/overrides/{unit}", operation_id = "putOverride",
    tag = "Overrides", security(("bearer" = [])), request_body = PutOverride,
    params(
        ("id" = String, Path, description = "Id or name of the experiment"),
        ("unit" = String, Path, description = "The unit: a user id or session id", min_length = 1, max_length = 255),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read of the experiment")),
    responses((status = 200, description = "The override", body = Answer<OverrideBody>), NotChanged))]
pub async fn put(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let choice = read::body(&ctx, read::variant_choice).await?;
    let (which, unit, when) = (experiment(&ctx)?, unit(&ctx)?, if_match(&ctx));
    let pinned = carry_out(&ctx, &granted, async move |database, origin| {
        overrides::put(database, origin, &which, &when, &unit, &choice).await
    })
    .await?;
    admin_json(200, OverrideBody::from(pinned))
}

/// Removes an override: the unit gets its own variant again. It stays out of the analysis, because what it did while
/// it was pinned says nothing about shoppers.
#[utoipa::path(delete, path = "/api/v1/admin/experiments/{id}/overrides/{unit}", operation_id = "deleteOverride",
    tag = "Overrides", security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or name of the experiment"),
        ("unit" = String, Path, description = "The unit: a user id or session id", min_length = 1, max_length = 255),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read of the experiment")),
    responses((status = 200, description = "Removed", body = Answer<Deleted>), NotChanged))]
pub async fn delete(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let (which, unit, when) = (experiment(&ctx)?, unit(&ctx)?, if_match(&ctx));
    carry_out(&ctx, &granted, async move |database, origin| {
        overrides::delete(database, origin, &which, &when, &unit).await
    })
    .await?;
    deleted()
}
