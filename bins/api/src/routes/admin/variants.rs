//! Variants. They share the version of their experiment.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use podium_storage::experiments::{self, Experiment, variants};
use utoipa::OpenApi;

use super::bodies::{CreateVariant, PatchVariant, VariantBody};
use super::common::{
    Answer, Deleted, NotChanged, NotPatched, NotRead, carry_out, created, experiment, if_match,
    required_if_match, variant_id, versioned,
};
use super::read;
use crate::auth::{Definitions, Editor, Granted};
use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;

const ALL: &str = "/api/v1/admin/experiments/{id}/variants";
const ONE: &str = "/api/v1/admin/experiments/{id}/variants/{variantId}";

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::guarded(Method::POST, ALL, create),
        Route::guarded(Method::GET, ALL, list),
        Route::guarded(Method::GET, ONE, show),
        Route::guarded(Method::PATCH, ONE, patch),
        Route::guarded(Method::DELETE, ONE, delete),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(create, list, show, patch, delete))]
pub struct VariantsApi;

/// Adds a variant. While units are assigned that opens an epoch.
#[utoipa::path(post, path = "/api/v1/admin/experiments/{id}/variants", operation_id = "createVariant", tag = "Variants",
    security(("bearer" = [])), request_body = CreateVariant,
    params(
        ("id" = String, Path, description = "Id or name of the experiment"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read")),
    responses(
        (status = 201, description = "Added", body = Answer<VariantBody>,
            headers(("Location" = String, description = "Where it is"),
                    ("ETag" = String, description = "Version of the experiment"))),
        NotChanged))]
pub async fn create(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let new = read::body(&ctx, read::new_variant).await?;
    let (which, when) = (experiment(&ctx)?, if_match(&ctx));
    let made = carry_out(&ctx, &granted, async move |database, origin| {
        variants::add(database, origin, &which, &when, &new).await
    })
    .await?;
    let (of, id) = (made.variant.experiment_id, made.variant.id);
    let location = format!("/api/v1/admin/experiments/{of}/variants/{id}");
    created(VariantBody::from(made.variant), made.version, &location)
}

/// Lists the variants of an experiment, in id order.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/variants", operation_id = "listVariants", tag = "Variants",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name of the experiment")),
    responses(
        (status = 200, description = "The variants", body = Answer<Vec<VariantBody>>,
            headers(("ETag" = String, description = "Version of the experiment"))),
        NotRead))]
pub async fn list(ctx: Rc<Ctx>, _: Granted<Definitions>) -> Result<HttpResponse, ApiError> {
    let parent = parent(&ctx).await?;
    let all: Vec<VariantBody> = parent.variants.into_iter().map(Into::into).collect();
    versioned(200, all, parent.version)
}

/// Reads a variant.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/variants/{variantId}", operation_id = "readVariant",
    tag = "Variants", security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or name of the experiment"),
        ("variantId" = i64, Path, description = "Id of the variant")),
    responses(
        (status = 200, description = "The variant", body = Answer<VariantBody>,
            headers(("ETag" = String, description = "Version of the experiment"))),
        NotRead))]
pub async fn show(ctx: Rc<Ctx>, _: Granted<Definitions>) -> Result<HttpResponse, ApiError> {
    let id = variant_id(&ctx)?;
    let parent = parent(&ctx).await?;
    let found = parent.variants.into_iter().find(|variant| variant.id == id);
    let found = found.ok_or_else(|| ApiError::not_found("this variant"))?;
    versioned(200, VariantBody::from(found), parent.version)
}

/// Changes what the state of the experiment allows.
#[utoipa::path(patch, path = "/api/v1/admin/experiments/{id}/variants/{variantId}", operation_id = "patchVariant",
    tag = "Variants", security(("bearer" = [])), request_body = PatchVariant,
    params(
        ("id" = String, Path, description = "Id or name of the experiment"),
        ("variantId" = i64, Path, description = "Id of the variant"),
        ("If-Match" = String, Header, description = "ETag of the last read of the experiment or a variant of it, or `*`")),
    responses(
        (status = 200, description = "The variant after the change", body = Answer<VariantBody>,
            headers(("ETag" = String, description = "Version of the experiment"))),
        NotPatched))]
pub async fn patch(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let patch = read::body(&ctx, read::variant_patch).await?;
    let (which, id, when) = (
        experiment(&ctx)?,
        variant_id(&ctx)?,
        required_if_match(&ctx)?,
    );
    let changed = carry_out(&ctx, &granted, async move |database, origin| {
        variants::patch(database, origin, &which, id, &when, &patch).await
    })
    .await?;
    versioned(200, VariantBody::from(changed.variant), changed.version)
}

/// Deletes a variant of a draft; later a weight of 0 retires it.
#[utoipa::path(delete, path = "/api/v1/admin/experiments/{id}/variants/{variantId}", operation_id = "deleteVariant",
    tag = "Variants", security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or name of the experiment"),
        ("variantId" = i64, Path, description = "Id of the variant"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read")),
    responses(
        (status = 200, description = "Deleted", body = Answer<Deleted>,
            headers(("ETag" = String, description = "Version of the experiment"))),
        NotChanged))]
pub async fn delete(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let (which, id, when) = (experiment(&ctx)?, variant_id(&ctx)?, if_match(&ctx));
    let version = carry_out(&ctx, &granted, async move |database, origin| {
        variants::delete(database, origin, &which, id, &when).await
    })
    .await?;
    versioned(200, Deleted { deleted: true }, version)
}

async fn parent(ctx: &Ctx) -> Result<Experiment, ApiError> {
    let found = experiments::read(&ctx.state.database, &experiment(ctx)?).await?;
    found.ok_or_else(|| ApiError::not_found("this experiment"))
}
