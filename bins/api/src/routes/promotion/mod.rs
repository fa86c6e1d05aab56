//! Promotions: check, promote, roll back, scan; what was promoted and from what evidence.
//!
//! The engine decides and writes; what is here translates. The route of the earlier system takes camelCase alone, so
//! that a misspelt `dryRun` is never a live run, JSON under any content type, and answers wrong fields with status 400.

use std::rc::Rc;

use actix_web::http::Method;
use actix_web::{HttpResponse, rt};
use podium_promotion::EngineError;
use podium_promotion::config::Request;
use podium_promotion::decide::{Question, Requester};
use podium_promotion::engine::Asked;
use podium_storage::audit::Origin;
use podium_storage::experiments::ExperimentRef;
use serde::Serialize;
use utoipa::OpenApi;

use self::bodies::{
    AutoPromote, CheckBody, ConfigurationBody, InForce, Outcome, PromotedBody, RolledBackBody,
    ScanBody,
};
use self::read::{Action, Command};
use crate::auth::refusals::Refusal;
use crate::auth::{Admin, Granted, Promoter, RequiredRole, Viewer};
use crate::problem::{ApiError, Code, Problem};
use crate::request::{Ctx, admin_json};
use crate::routes::admin::common::{Answer, Refused, origin};
use crate::routes::{Route, refused};
use crate::state::SharedState;

pub mod bodies;
pub mod list;
mod read;
pub mod restart;

const PATHS: [&str; 2] = [
    "/api/experiments/auto-promote",
    "/api/v1/experiments/auto-promote",
];

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    for path in PATHS {
        routes.push(Route::report(Method::POST, path, act));
        routes.push(Route::guarded(Method::GET, path, configuration));
    }
    routes.extend(list::routes());
    routes.extend(restart::routes());
    routes
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(
    act,
    docs::act_as_before,
    configuration,
    docs::configuration_as_before,
    list::list,
    list::stats,
    list::one,
    restart::restart
))]
pub struct PromotionApi;

/// Checks, promotes, scans or rolls back. `check` needs the role viewer, the others promoter (dry runs too), `force`
/// admin.
#[utoipa::path(post, path = "/api/v1/experiments/auto-promote", operation_id = "autoPromote", tag = "Promotions",
    security(("bearer" = [])), request_body = AutoPromote,
    responses((status = 200, body = Outcome), (status = 400, description = "Not JSON, or fields are wrong: all of them are named",
            content_type = "application/problem+json", body = Problem),
        (status = 404, content_type = "application/problem+json", body = Problem),
        (status = 409, description = "Not eligible (`not_eligible`, with the check's answer as `data`), rolled back already, or another scan is running",
            content_type = "application/problem+json", body = Problem),
        (status = 413, content_type = "application/problem+json", body = Problem), Refused))]
pub async fn act(ctx: Rc<Ctx>, granted: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    carry_out(&ctx, &granted)
        .await
        .map_err(ApiError::with_texts)
}

async fn carry_out(ctx: &Rc<Ctx>, granted: &Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let (action, command) = read::command(ctx).await?;
    if action.is_some_and(|action| action != Action::Check) {
        at_least::<Promoter>(ctx, granted)?;
    }
    let command = command?;
    if command.force.is_some() {
        at_least::<Admin>(ctx, granted)?;
    }
    if matches!(command.action, Action::Promote | Action::Rollback)
        && let Some(limits) = &ctx.state.limits
    {
        limits.promotion(granted.actor())?;
    }
    match command.action {
        Action::Check => check(ctx, &command).await,
        Action::Promote => promote(ctx, granted, command).await,
        Action::Scan => scan(ctx, granted, command).await,
        Action::Rollback => roll_back(ctx, granted, command).await,
    }
}

/// Asks for a higher role than the route does. A key that came this far has the highest; nobody is counted twice.
fn at_least<R: RequiredRole>(ctx: &Ctx, granted: &Granted<Viewer>) -> Result<(), ApiError> {
    if granted.role() >= R::ROLE {
        return Ok(());
    }
    let refusal = Refusal::role_too_low(granted.actor().to_owned(), R::ROLE, false);
    Err(refused(ctx, &refusal))
}

async fn check(ctx: &Ctx, command: &Command) -> Result<HttpResponse, ApiError> {
    let (which, question) = (
        named(command)?,
        Question {
            requester: Requester::Engine,
            variant: command.variant.clone(),
        },
    );
    let engine = &ctx.state.engine;
    let checked = engine.check(&which, &question, &command.request).await?;
    let in_force = InForce::of(&checked.effective);
    done(ctx, command.action, CheckBody::from(&checked), in_force)
}

async fn promote(
    ctx: &Rc<Ctx>,
    granted: &Granted<Viewer>,
    command: Command,
) -> Result<HttpResponse, ApiError> {
    let asked = Asked {
        experiment: named(&command)?,
        question: Question {
            requester: Requester::Person,
            variant: command.variant.clone(),
        },
        request: command.request.clone(),
        force: command.force.clone(),
    };
    let promoted = run(ctx, granted, async move |state, origin| {
        state.engine.promote(&asked, &origin).await
    })
    .await?;
    let in_force = InForce::of(&promoted.checked.effective);
    done(ctx, command.action, PromotedBody::from(&promoted), in_force)
}

async fn scan(
    ctx: &Rc<Ctx>,
    granted: &Granted<Viewer>,
    command: Command,
) -> Result<HttpResponse, ApiError> {
    let request = command.request.clone();
    let scan = run(ctx, granted, async move |state, origin| {
        state.engine.scan(&request, &origin, &|_, _| {}).await
    })
    .await?;
    let in_force = InForce::of(&scan.effective);
    done(ctx, command.action, ScanBody::from(&scan), in_force)
}

async fn roll_back(
    ctx: &Rc<Ctx>,
    granted: &Granted<Viewer>,
    command: Command,
) -> Result<HttpResponse, ApiError> {
    let (action, reason) = (command.action, command.reason.unwrap_or_default());
    let Some(id) = command.promotion else {
        // Whatever else is wrong is told first.
        let engine = &ctx.state.engine;
        engine.configuration(None, &command.request).await?;
        return Err(ApiError::not_found("this promotion"));
    };
    let why = reason.clone();
    let taken = run(ctx, granted, async move |state, origin| {
        let engine = &state.engine;
        engine.take_back(id, &why, &command.request, &origin).await
    })
    .await?;
    let (promotion, in_force) = (&taken.promotion, InForce::of(&taken.effective));
    let body = if taken.effective.config.dry_run {
        RolledBackBody::would(promotion, &reason)
    } else {
        RolledBackBody::from(promotion)
    };
    done(ctx, action, body, in_force)
}

/// What is in force, where it comes from, and what could be. `experimentName` shows it for one experiment, `preset` as a
/// request with that preset would have it.
#[utoipa::path(get, path = "/api/v1/experiments/auto-promote", operation_id = "autoPromoteConfiguration", tag = "Promotions",
    security(("bearer" = [])),
    params(("experimentName" = Option<String>, Query, description = "Name of an experiment, whose own settings are merged in"),
        ("preset" = Option<String>, Query, description = "aggressive, balanced or conservative")),
    responses((status = 200, body = Answer<ConfigurationBody>), (status = 404, content_type = "application/problem+json", body = Problem), Refused))]
pub async fn configuration(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let which = match ctx.query("experimentName") {
        None => None,
        Some(name) => Some(reference(&name)?),
    };
    let request = Request {
        preset: ctx.query("preset"),
        ..Request::default()
    };
    let engine = &ctx.state.engine;
    match engine.configuration(which.as_ref(), &request).await {
        Ok(effective) => admin_json(200, ConfigurationBody::of(&effective, Vec::new())),
        Err(EngineError::Config(faults)) => {
            // What is wrong is shown beside what is in force without it.
            let effective = engine.configuration(None, &Request::default()).await?;
            let faults = faults.iter().map(ToString::to_string).collect();
            admin_json(200, ConfigurationBody::of(&effective, faults))
        }
        Err(other) => Err(other.into()),
    }
}

fn reference(name: &str) -> Result<ExperimentRef, ApiError> {
    match ExperimentRef::parse(name) {
        Some(ExperimentRef::Name(name)) => Ok(ExperimentRef::Name(name)),
        _ => Err(ApiError::not_found("this experiment")),
    }
}

fn named(command: &Command) -> Result<ExperimentRef, ApiError> {
    reference(command.experiment.as_deref().unwrap_or_default())
}

/// Carries a request out to its end, also when the client goes away meanwhile, and puts what it changed in force on this
/// replica.
async fn run<R, T, F>(ctx: &Rc<Ctx>, granted: &Granted<R>, request: F) -> Result<T, ApiError>
where
    R: RequiredRole,
    T: 'static,
    F: AsyncFnOnce(SharedState, Origin) -> Result<T, EngineError> + 'static,
{
    let (state, origin) = (ctx.state.clone(), origin(ctx, granted));
    let task = rt::spawn(async move {
        let outcome = request(state.clone(), origin).await?;
        if let Err(error) = state.serving.refresh().await {
            // Committed all the same: this replica hears of it again like all others.
            tracing::warn!(error = %error.chain(), "a promotion is not in force here yet");
        }
        Ok::<T, EngineError>(outcome)
    });
    match task.await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(ApiError::internal(&error.to_string())),
    }
}

fn done<T: Serialize>(
    ctx: &Ctx,
    action: Action,
    data: T,
    config: InForce,
) -> Result<HttpResponse, ApiError> {
    bodies::answer(action.name(), data, config, ctx.state.clock.now())
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        match error {
            EngineError::NotFound(what) => Self::not_found(what),
            EngineError::Config(faults) => Self::validation(faults),
            EngineError::NotEligible(checked) => {
                let data = serde_json::to_value(CheckBody::from(&*checked)).unwrap_or_default();
                Self::new(Code::NotEligible, text).with_data(data)
            }
            EngineError::RolledBack(first) => {
                let data = serde_json::to_value(RolledBackBody::from(&*first)).unwrap_or_default();
                Self::conflict(text).with_data(data)
            }
            EngineError::Scanning | EngineError::LimitReached { .. } => Self::conflict(text),
            EngineError::Contended | EngineError::Interrupted(_) => Self::unavailable(),
            EngineError::Unspendable | EngineError::Unwritable(_) => Self::internal(&text),
            EngineError::Change(error) => error.into(),
            EngineError::Storage(error) => error.into(),
        }
    }
}

/// One handler serves both paths; each has documentation of its own.
mod docs {
    use super::{Answer, AutoPromote, ConfigurationBody, Outcome, Problem, Refused};

    /// As `/api/v1/experiments/auto-promote`, under the path of the earlier system.
    #[utoipa::path(post, path = "/api/experiments/auto-promote", operation_id = "autoPromoteAsBefore", tag = "Promotions",
        security(("bearer" = [])), request_body = AutoPromote,
        responses((status = 200, body = Outcome), (status = 400, content_type = "application/problem+json", body = Problem),
            (status = 404, content_type = "application/problem+json", body = Problem), (status = 409, content_type = "application/problem+json", body = Problem),
            (status = 413, content_type = "application/problem+json", body = Problem), Refused))]
    #[expect(dead_code, reason = "carries the documentation of the route")]
    pub(super) fn act_as_before() {}

    /// As `/api/v1/experiments/auto-promote`, under the path of the earlier system.
    #[utoipa::path(get, path = "/api/experiments/auto-promote", operation_id = "autoPromoteConfigurationAsBefore", tag = "Promotions",
        security(("bearer" = [])),
        responses((status = 200, body = Answer<ConfigurationBody>), (status = 404, content_type = "application/problem+json", body = Problem), Refused))]
    #[expect(dead_code, reason = "carries the documentation of the route")]
    pub(super) fn configuration_as_before() {}
}
