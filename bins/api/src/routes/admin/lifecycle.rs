//! Steps in the life of an experiment. The body is empty, under any content type or none.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use podium_storage::experiments::{self, Step};
use utoipa::OpenApi;

use super::bodies::{DeclareWinner, ExperimentBody};
use super::common::{Answer, NotChanged, carry_out, experiment, if_match};
use super::experiments::answer;
use super::read;
use crate::auth::{Granted, Promoter};
use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    let bare = |path, step| {
        Route::guarded(Method::POST, path, move |ctx, granted| {
            take_bare(ctx, granted, step)
        })
    };
    vec![
        bare("/api/v1/admin/experiments/{id}/start", Step::Start),
        bare("/api/v1/admin/experiments/{id}/pause", Step::Pause),
        bare("/api/v1/admin/experiments/{id}/resume", Step::Resume),
        bare("/api/v1/admin/experiments/{id}/stop", Step::Stop),
        bare("/api/v1/admin/experiments/{id}/archive", Step::Archive),
        Route::guarded(
            Method::POST,
            "/api/v1/admin/experiments/{id}/declare-winner",
            declare_winner,
        ),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(
    docs::start,
    docs::pause,
    docs::resume,
    docs::stop,
    docs::archive,
    declare_winner
))]
pub struct LifecycleApi;

async fn take_bare(
    ctx: Rc<Ctx>,
    granted: Granted<Promoter>,
    step: Step,
) -> Result<HttpResponse, ApiError> {
    read::body_or_nothing(&ctx, |_| Some(())).await?;
    take(&ctx, &granted, step).await
}

/// Ends an experiment and records the winner; serves nothing.
#[utoipa::path(post, path = "/api/v1/admin/experiments/{id}/declare-winner", operation_id = "declareWinner",
    tag = "Life cycle", security(("bearer" = [])), request_body = DeclareWinner,
    params(
        ("id" = String, Path, description = "Id or name"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read")),
    responses(
        (status = 200, description = "The experiment after the step", body = Answer<ExperimentBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotChanged))]
pub async fn declare_winner(
    ctx: Rc<Ctx>,
    granted: Granted<Promoter>,
) -> Result<HttpResponse, ApiError> {
    let step = read::body_or_nothing(&ctx, read::declared_winner).await?;
    take(&ctx, &granted, step).await
}

async fn take(
    ctx: &Rc<Ctx>,
    granted: &Granted<Promoter>,
    step: Step,
) -> Result<HttpResponse, ApiError> {
    let (which, when) = (experiment(ctx)?, if_match(ctx));
    let changed = carry_out(ctx, granted, async move |database, origin| {
        experiments::step(database, origin, &which, &when, step).await
    })
    .await?;
    answer(changed)
}

/// One handler serves these routes; each has documentation of its own.
mod docs {
    use super::{Answer, ExperimentBody, NotChanged};

    macro_rules! steps {
        ($($(#[$doc:meta])* $name:ident $id:literal $path:literal;)*) => { $(
            $(#[$doc])*
            #[utoipa::path(post, path = $path, operation_id = $id, tag = "Life cycle", security(("bearer" = [])),
                params(
                    ("id" = String, Path, description = "Id or name"),
                    ("If-Match" = Option<String>, Header, description = "ETag of the last read")),
                responses(
                    (status = 200, description = "The experiment after the step", body = Answer<ExperimentBody>,
                        headers(("ETag" = String, description = "Its version"))),
                    NotChanged))]
            #[expect(dead_code, reason = "carries the documentation of the route")]
            pub(super) fn $name() {}
        )* };
    }

    steps! {
        /// Begins assigning. Needs two variants (a bandit over items one), exactly one control, and a total weight
        /// above 0.
        start "startExperiment" "/api/v1/admin/experiments/{id}/start";
        /// Stops assigning for a while; assigned units get the default answer.
        pause "pauseExperiment" "/api/v1/admin/experiments/{id}/pause";
        /// Goes on after a pause.
        resume "resumeExperiment" "/api/v1/admin/experiments/{id}/resume";
        /// Ends an experiment without a winner.
        stop "stopExperiment" "/api/v1/admin/experiments/{id}/stop";
        /// Puts a completed experiment away; its events are refused from now on.
        archive "archiveExperiment" "/api/v1/admin/experiments/{id}/archive";
    }
}
