//! A new analysis, on data from now on.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;

use super::run;
use crate::auth::{Granted, Promoter};
use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;
use crate::routes::admin::bodies::ExperimentBody;
use crate::routes::admin::common::{Answer, NotChanged, experiment, if_match, versioned};
use crate::routes::admin::read;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::report(
        Method::POST,
        "/api/v1/admin/experiments/{id}/restart-analysis",
        restart,
    )]
}

/// Opens a new analysis on units that are assigned from now on, with the alpha that the ones before have not spent. After
/// a rollback nothing is promoted before it.
#[utoipa::path(post, path = "/api/v1/admin/experiments/{id}/restart-analysis", operation_id = "restartAnalysis",
    tag = "Life cycle", security(("bearer" = [])),
    params(("id" = String, Path, description = "Id or name"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read")),
    responses((status = 200, description = "The experiment, in a new epoch", body = Answer<ExperimentBody>,
        headers(("ETag" = String, description = "Its version"))), NotChanged))]
pub async fn restart(ctx: Rc<Ctx>, granted: Granted<Promoter>) -> Result<HttpResponse, ApiError> {
    read::body_or_nothing(&ctx, |_| Some(())).await?;
    let (which, when) = (experiment(&ctx)?, if_match(&ctx));
    let restarted = run(&ctx, &granted, async move |state, origin| {
        state.engine.restart(&which, &when, &origin).await
    })
    .await?;
    let version = restarted.experiment.version;
    versioned(200, ExperimentBody::from(restarted.experiment), version)
}
