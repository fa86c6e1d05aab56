//! Experiments: created, listed, read, changed, deleted.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use podium_storage::experiments::{self, Filter};
use utoipa::OpenApi;

use super::bodies::{CreateExperiment, ExperimentBody, PatchExperiment};
use super::common::{
    Answer, Deleted, NotChanged, NotPatched, NotRead, Page, Query, Refused, carry_out, created,
    deleted, experiment, if_match, required_if_match, versioned,
};
use super::read;
use crate::auth::{Definitions, Editor, Granted};
use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;

const ALL: &str = "/api/v1/admin/experiments";
const ONE: &str = "/api/v1/admin/experiments/{id}";

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
pub struct ExperimentsApi;

/// Creates a draft.
#[utoipa::path(post, path = "/api/v1/admin/experiments", operation_id = "createExperiment", tag = "Experiments",
    security(("bearer" = [])), request_body = CreateExperiment,
    responses(
        (status = 201, description = "Created", body = Answer<ExperimentBody>,
            headers(("Location" = String, description = "Where it is"), ("ETag" = String, description = "Its version"))),
        NotChanged))]
pub async fn create(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let new = read::body(&ctx, read::new_experiment).await?;
    let made = carry_out(&ctx, &granted, async move |database, origin| {
        experiments::create(database, origin, &new).await
    })
    .await?;
    let location = format!("{ALL}/{}", made.id);
    let version = made.version;
    created(ExperimentBody::from(made), version, &location)
}

/// Lists experiments, newest first.
#[utoipa::path(get, path = "/api/v1/admin/experiments", operation_id = "listExperiments", tag = "Experiments",
    security(("bearer" = [])),
    params(
        ("status" = Option<String>, Query, description = "Only those in this state"),
        ("target" = Option<String>, Query, description = "Only those on this placement"),
        ("type" = Option<String>, Query, description = "Only those of this type"),
        ("q" = Option<String>, Query, description = "Only those with this text in name or description, in any case"),
        ("limit" = Option<i64>, Query, description = "Entries of a page; 50 unless given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before")),
    responses((status = 200, description = "One page", body = Page<ExperimentBody>), Refused))]
pub async fn list(ctx: Rc<Ctx>, _: Granted<Definitions>) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(&ctx);
    let filter = Filter {
        status: query.word("status"),
        target: query.text("target", 128),
        experiment_type: query.word("type"),
        search: query.text("q", 128),
    };
    let (limit, cursor) = (query.limit(), query.cursor());
    query.finish()?;
    let found = experiments::list(&ctx.state.database, &filter, cursor, limit + 1).await?;
    Page::new(
        found,
        limit,
        |last| last.id.to_string(),
        ExperimentBody::from,
    )
    .answer()
}

/// Reads an experiment with its variants.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}", operation_id = "readExperiment", tag = "Experiments",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name")),
    responses(
        (status = 200, description = "The experiment", body = Answer<ExperimentBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotRead))]
pub async fn show(ctx: Rc<Ctx>, _: Granted<Definitions>) -> Result<HttpResponse, ApiError> {
    let found = experiments::read(&ctx.state.database, &experiment(&ctx)?).await?;
    answer(found.ok_or_else(|| ApiError::not_found("this experiment"))?)
}

/// Changes what the state of the experiment allows.
#[utoipa::path(patch, path = "/api/v1/admin/experiments/{id}", operation_id = "patchExperiment", tag = "Experiments",
    security(("bearer" = [])), request_body = PatchExperiment,
    params(
        ("id" = String, Path, description = "Id or name"),
        ("If-Match" = String, Header, description = "ETag of the last read of the experiment or a variant of it, or `*`")),
    responses(
        (status = 200, description = "The experiment after the change", body = Answer<ExperimentBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotPatched))]
pub async fn patch(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let patch = read::body(&ctx, read::experiment_patch).await?;
    let (which, when) = (experiment(&ctx)?, required_if_match(&ctx)?);
    let changed = carry_out(&ctx, &granted, async move |database, origin| {
        experiments::patch(database, origin, &which, &when, &patch).await
    })
    .await?;
    answer(changed)
}

/// Deletes a draft with its variants and overrides; everything else is archived.
#[utoipa::path(delete, path = "/api/v1/admin/experiments/{id}", operation_id = "deleteExperiment", tag = "Experiments",
    security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "Id or name"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read")),
    responses((status = 200, description = "Deleted", body = Answer<Deleted>), NotChanged))]
pub async fn delete(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let (which, when) = (experiment(&ctx)?, if_match(&ctx));
    carry_out(&ctx, &granted, async move |database, origin| {
        experiments::delete(database, origin, &which, &when).await
    })
    .await?;
    deleted()
}

pub(super) fn answer(experiment: experiments::Experiment) -> Result<HttpResponse, ApiError> {
    let version = experiment.version;
    versioned(200, ExperimentBody::from(experiment), version)
}
