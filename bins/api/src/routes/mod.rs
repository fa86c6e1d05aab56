//! The table of routes: one row per method and path, with who may call it.
//!
//! To add a route, write its handler in the module of its kind and add a row to that module's `routes()`. A handler of
//! a guarded route takes `Granted<R>`; [`Route::guarded`] reads the role from its type. Every row must stand in the
//! OpenAPI document too; a test compares the two.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource};

use podium_serving::snapshot::Snapshot;
use podium_storage::api_keys::{ApiKeyDefinition, Scope};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;
use utoipa::OpenApi;

use crate::access_log;
use crate::auth::refusals::Refusal;
use crate::auth::{Granted, RequiredRole, Role, Viewer, api_keys};
use crate::idempotency;
use crate::metrics::Watch;
use crate::problem::{ApiError, Code};
use crate::request::{Ctx, finish, never_stored};
use crate::state::SharedState;

pub mod admin;
pub mod analytics;
pub mod bandit;
pub mod health;
pub mod promotion;
pub mod promotion_stream;
pub mod storefront;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Holders of a token with at least this role.
    Guarded(Role),
}

/// Longest path and query, in bytes.
const MAX_URL: usize = 8 * 1024;
/// Longest headers, names and values together, in bytes. The HTTP server itself refuses more than 96 fields.
const MAX_HEADERS: usize = 64 * 1024;

/// How long a handler may take, without the time in which the body came.
const HANDLER: Duration = Duration::from_secs(5);
/// The same for what reads many totals.
const REPORT: Duration = Duration::from_secs(12);

type Answer = Result<HttpResponse, ApiError>;
/// Puts a route's handler into the resource of its path. Monomorphic below, so that a request costs one boxed future,
/// actix's own.
type Register = Rc<dyn Fn(Resource, &SharedState, SharedWatch) -> Resource>;
/// One thread's handle on the times of a route; see [`SharedState`] for why.
type SharedWatch = Rc<Arc<Watch>>;

/// Who stands before a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// Nobody: signs of life, and documents.
    Open,
    /// The limit of addresses, and where keys are required a key.
    Storefront,
    /// The handler asks itself.
    Guarded,
}

/// One row of the table.
#[derive(Clone)]
pub struct Route {
    /// HTTP method.
    pub method: Method,
    /// Path pattern.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    door: Door,
    register: Register,
}

impl Route {
    /// A route of the storefront: for everybody, or for holders of a key, within the limit of their address.
    pub fn public<F, Fut>(method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(Rc<Ctx>) -> Fut + Clone + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        Self::new(method, path, Access::Public, Door::Storefront, handler)
    }

    /// A route that is never limited and never needs a key: signs of life, and documents.
    pub fn open<F, Fut>(method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(Rc<Ctx>) -> Fut + Clone + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        Self::new(method, path, Access::Public, Door::Open, handler)
    }

    /// A route for a role, which the handler's signature names. The token is checked before anything else.
    pub fn guarded<R, F, Fut>(method: Method, path: &'static str, handler: F) -> Self
    where
        R: RequiredRole,
        F: Fn(Rc<Ctx>, Granted<R>) -> Fut + Clone + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        Self::within(Some(HANDLER), method, path, handler)
    }

    /// As [`Route::guarded`], with the time of a report.
    pub fn report<R, F, Fut>(method: Method, path: &'static str, handler: F) -> Self
    where
        R: RequiredRole,
        F: Fn(Rc<Ctx>, Granted<R>) -> Fut + Clone + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        Self::within(Some(REPORT), method, path, handler)
    }

    /// A report whose answer depends on path and query alone: all who ask for the same at the same time share one reading. It
    /// has the time of a report from its beginning; who waits for it has as much from the question on.
    pub fn reading<R, F, Fut>(path: &'static str, handler: F) -> Self
    where
        R: RequiredRole,
        F: Fn(Rc<Ctx>, Granted<R>) -> Fut + Clone + 'static,
        Fut: Future<Output = Result<Bytes, ApiError>> + 'static,
    {
        Self::report(Method::GET, path, move |ctx: Rc<Ctx>, granted| {
            // Boxed, because what is moved by value through the layers below is too large for a thread's stack in
            // builds without optimisation.
            let read = Box::pin(handler(ctx.clone(), granted));
            let read = from_its_beginning(REPORT, read);
            async move {
                let asked = ctx.req.uri().to_string();
                let readings = &ctx.state.readings;
                let body = readings.share(&asked, read.in_current_span()).await;
                let body = body.map_err(|error| ApiError::internal(&error.to_string()))??;
                Ok(never_stored(StatusCode::OK, body))
            }
        })
    }

    /// As [`Route::guarded`], for a handler that reads its body piece by piece and keeps the time itself.
    pub fn upload<R, F, Fut>(method: Method, path: &'static str, handler: F) -> Self
    where
        R: RequiredRole,
        F: Fn(Rc<Ctx>, Granted<R>) -> Fut + Clone + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        Self::within(None, method, path, handler)
    }

    fn within<R, F, Fut>(
        limit: Option<Duration>,
        method: Method,
        path: &'static str,
        handler: F,
    ) -> Self
    where
        R: RequiredRole,
        F: Fn(Rc<Ctx>, Granted<R>) -> Fut + Clone + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        let access = Access::Guarded(R::ROLE);
        Self::new(method, path, access, Door::Guarded, move |ctx: Rc<Ctx>| {
            let handler = handler.clone();
            let span = span(&ctx);
            async move {
                let granted = grant::<R>(&ctx)?;
                match limit {
                    Some(limit) => {
                        let actor = granted.actor().to_owned();
                        let own = ctx.clone();
                        let handled = async move {
                            in_time(&own, limit, handler(own.clone(), granted)).await
                        };
                        idempotency::once(&ctx, &actor, handled).await
                    }
                    None => handler(ctx, granted).await,
                }
            }
            .instrument(span)
        })
    }

    fn new<F, Fut>(
        method: Method,
        path: &'static str,
        access: Access,
        door: Door,
        handler: F,
    ) -> Self
    where
        F: Fn(Rc<Ctx>) -> Fut + Clone + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        Self {
            register: register(method.clone(), door, handler),
            method,
            path,
            access,
            door,
        }
    }

    /// Whether it is a route of the storefront, which may need a key and has the limit of addresses.
    #[must_use]
    pub fn is_storefront(&self) -> bool {
        self.door == Door::Storefront
    }
}

/// Ties what is logged during a request together. The storefront's requests go without, because it costs more than their
/// answers; a line of their own tells of their faults.
fn span(ctx: &Ctx) -> tracing::Span {
    tracing::info_span!(
        "request",
        request.id = ctx.request_id.as_str(),
        trace.id = ctx.trace().id()
    )
}

fn register<F, Fut>(method: Method, door: Door, handler: F) -> Register
where
    F: Fn(Rc<Ctx>) -> Fut + Clone + 'static,
    Fut: Future<Output = Answer> + 'static,
{
    Rc::new(move |resource, state, watch| {
        let (handler, state) = (handler.clone(), state.clone());
        resource.route(web::method(method.clone()).to(move |parts| {
            let ctx = Ctx::new(parts, state.clone());
            answer(ctx, door, handler.clone(), watch.clone())
        }))
    })
}

/// Ends a reading that takes too long. Its time begins when it does, and not when it was asked for: it may have to wait for
/// another one, and would leave those who wait for it without an answer.
async fn from_its_beginning<T>(
    limit: Duration,
    read: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let read = tokio::time::timeout(limit, read).await;
    read.unwrap_or_else(|_| Err(ApiError::unavailable()))
}

/// Ends a handler that takes too long: its client is told to try again, and what it changed stays or goes as a whole. The
/// time in which the body came does not count, because it has a limit of its own.
async fn in_time(ctx: &Ctx, limit: Duration, handler: impl Future<Output = Answer>) -> Answer {
    let body = || (ctx.is_receiving(), ctx.receiving());
    limited(limit, body, handler).await
}

/// `body` tells whether the body is still coming, and how long it has taken.
async fn limited(
    limit: Duration,
    body: impl Fn() -> (bool, Duration),
    handler: impl Future<Output = Answer>,
) -> Answer {
    let begin = Instant::now();
    let mut handler = std::pin::pin!(handler);
    let mut until = begin + limit;
    loop {
        if let Ok(answer) = timeout_at(until, &mut handler).await {
            return answer;
        }
        let (receiving, received) = body();
        until = begin + limit + received;
        if receiving {
            until = Instant::now() + limit;
        } else if until <= Instant::now() {
            return Err(ApiError::unavailable());
        }
    }
}

/// Checks the caller's token or key, the role, and the caller's limits.
///
/// # Errors
/// 401, 403 or 429; 503 while people and keys were not read.
pub fn grant<R: RequiredRole>(ctx: &Ctx) -> Result<Granted<R>, ApiError> {
    let state = &ctx.state;
    let presented = ctx.presented();
    let granted = state
        .auth
        .grant(&presented, &state.serving.snapshot(), state.clock.now());
    let granted: Granted<R> = granted.map_err(|refusal| {
        let counted = match &refusal.actor {
            Some(actor) => count_actor(ctx, actor),
            None => count_bad_token(ctx),
        };
        refuse_entry(ctx, &refusal, counted)
    })?;
    count_actor(ctx, granted.actor())?;
    Ok(granted)
}

/// Counts a request of somebody who is known, whether he may or not.
fn count_actor(ctx: &Ctx, actor: &str) -> Result<(), ApiError> {
    let limits = ctx.state.limits.as_ref();
    limits.map_or(Ok(()), |limits| limits.admin(actor))
}

/// Counts a token or key that is not good for what was asked, for the address that it came from.
fn count_bad_token(ctx: &Ctx) -> Result<(), ApiError> {
    match (&ctx.state.limits, ctx.client()) {
        (Some(limits), Some(client)) => limits.bad_token(client),
        _ => Ok(()),
    }
}

/// Refuses a request that was counted at the door, as [`refused`] does. What is over the limit has no line in the log, or
/// strangers would fill it; the audit log has the number of all.
fn refuse_entry(ctx: &Ctx, refusal: &Refusal, counted: Result<(), ApiError>) -> ApiError {
    match counted {
        Ok(()) => refused(ctx, refusal),
        Err(limited) => {
            note(ctx, refusal);
            limited
        }
    }
}

/// Logs a refusal, counts it where a change was refused, and says what is answered. The token is never logged.
pub fn refused(ctx: &Ctx, refusal: &Refusal) -> ApiError {
    tracing::info!(
        status = refusal.status,
        reason = refusal.reason,
        route = ctx.route(),
        actor = refusal.actor,
        client = ctx.client().map(tracing::field::display),
        request_id = ctx.request_id.as_str(),
        "request refused"
    );
    note(ctx, refusal);
    refusal.answer()
}

/// Counts a refused change for the audit log.
fn note(ctx: &Ctx, refusal: &Refusal) {
    let state = &ctx.state;
    if !ctx.req.method().is_safe() && refusal.status != 503 {
        let (route, client, now) = (ctx.route(), ctx.client(), state.clock.now());
        state.refusals.note(refusal, route, client, now);
    }
}

/// Lets a request in on a route of the storefront. Without keys, which is what most installations want, this is a hash and
/// an atomic update.
fn enter_storefront(ctx: &Ctx) -> Result<(), ApiError> {
    let (state, required) = (&ctx.state, ctx.state.config.public_api_keys_required);
    let mut scope = None;
    let mut refusal = None;
    let snapshot = state.serving.snapshot();
    if required || snapshot.has_api_keys() {
        match key_of(ctx, &snapshot) {
            Ok(found) => scope = Some(found.scope),
            Err(found) => refusal = Some(found),
        }
    }
    // Keys of servers have no limit: all of a shop's visitors come from there.
    if scope < Some(Scope::Server)
        && let (Some(limits), Some(client)) = (&state.limits, ctx.client())
    {
        limits.public(client)?;
    }
    match refusal {
        Some(refusal) if required => Err(refuse_entry(ctx, &refusal, count_bad_token(ctx))),
        _ => Ok(()),
    }
}

fn key_of<'s>(ctx: &Ctx, snapshot: &'s Snapshot) -> Result<&'s ApiKeyDefinition, Refusal> {
    let presented = ctx.presented();
    let key = presented.key();
    let key = key.ok_or_else(|| Refusal::unknown("no API key"))?;
    let state = &ctx.state;
    state.auth.uses.find(key, snapshot, state.clock.now())
}

/// Where purchases need the key of a server: whether this request has one.
///
/// # Errors
/// 401 without a key, 403 with one that anybody can read out of a page, 503 while keys were not read.
pub fn check_purchase(ctx: &Ctx) -> Result<(), ApiError> {
    if !ctx.state.config.purchases_require_server_key {
        return Ok(());
    }
    let refusal = match key_of(ctx, &ctx.state.serving.snapshot()) {
        Ok(key) if key.scope > Scope::Client => return Ok(()),
        Ok(key) => Refusal::forbidden(
            api_keys::actor(&key.prefix),
            "scope too low",
            "purchases need the key of a server",
        ),
        Err(refusal) => refusal,
    };
    Err(refuse_entry(ctx, &refusal, count_bad_token(ctx)))
}

async fn answer<F, Fut>(ctx: Ctx, door: Door, handler: F, watch: SharedWatch) -> HttpResponse
where
    F: FnOnce(Rc<Ctx>) -> Fut,
    Fut: Future<Output = Answer>,
{
    let begin = Instant::now();
    let ctx = Rc::new(ctx);
    let outcome = match enter(&ctx, door) {
        Ok(()) => handler(ctx.clone()).await,
        Err(error) => Err(error),
    };
    let (mut response, error) = match outcome {
        Ok(response) => (response, None),
        Err(error) => (
            error.response(ctx.req.path(), ctx.request_id.as_str()),
            Some(error),
        ),
    };
    finish(&mut response, &ctx);
    if door != Door::Storefront {
        protect(&mut response);
    }
    if let Some(origins) = &ctx.state.config.cors {
        origins.mark(&ctx.req, &mut response);
    }
    let (status, took) = (response.status().as_u16(), begin.elapsed());
    watch.record(status, took);
    let cause = error.as_ref().and_then(ApiError::cause);
    access_log::answered(&ctx, &watch, status, took, cause);
    #[cfg(feature = "otel")]
    if let Some(spans) = &ctx.state.spans {
        spans.answered(&ctx, &watch, status, took);
    }
    response
}

fn enter(ctx: &Ctx, door: Door) -> Result<(), ApiError> {
    check_size(&ctx.req)?;
    if door == Door::Storefront {
        enter_storefront(ctx)?;
    }
    Ok(())
}

/// What keeps a browser from running, framing or telling on what was never meant as a page. The documentation is one and
/// says itself what it needs.
fn protect(response: &mut HttpResponse) {
    const NOTHING: HeaderValue =
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    let headers = response.headers_mut();
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, NOTHING);
    }
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
}

fn check_size(req: &HttpRequest) -> Result<(), ApiError> {
    if req
        .uri()
        .path_and_query()
        .is_some_and(|uri| uri.as_str().len() > MAX_URL)
    {
        return Err(ApiError::new(
            Code::UriTooLong,
            format!("the URL may have at most {MAX_URL} bytes"),
        ));
    }
    let headers: usize = req
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers > MAX_HEADERS {
        let detail = format!("the headers may have at most {MAX_HEADERS} bytes");
        return Err(ApiError::new(Code::HeadersTooLarge, detail));
    }
    Ok(())
}

/// Every route of the product.
#[must_use]
pub fn table() -> Vec<Route> {
    let mut table = storefront::routes();
    table.extend(admin::routes());
    table.extend(analytics::routes());
    table.extend(promotion::routes());
    table.extend(bandit::routes());
    table.extend(promotion_stream::routes());
    table.extend(health::routes());
    table
}

/// The OpenAPI documents of all modules.
#[must_use]
pub fn documents() -> Vec<utoipa::openapi::OpenApi> {
    vec![
        storefront::StorefrontApi::openapi(),
        health::HealthApi::openapi(),
        admin::document(),
        analytics::AnalyticsApi::openapi(),
        promotion::PromotionApi::openapi(),
        bandit::BanditApi::openapi(),
        promotion_stream::PromotionStreamApi::openapi(),
    ]
}

/// Puts the table, 405 for other methods, and 404 for other paths into an actix application.
pub fn configure(config: &mut ServiceConfig, state: &SharedState) {
    let (table, metrics) = (table(), &state.metrics);
    // In the order of the table: the router tries one pattern after the other, and those of the storefront come first.
    let mut paths: Vec<&'static str> = Vec::new();
    for route in &table {
        if !paths.contains(&route.path) {
            paths.push(route.path);
        }
    }
    for path in paths {
        let mut resource = web::resource(path);
        let mut methods = Vec::new();
        for route in table.iter().filter(|route| route.path == path) {
            methods.push(route.method.to_string());
            let guarded = route.access != Access::Public;
            let watch = metrics.watch(Some(&route.method), path, guarded);
            resource = (route.register)(resource, state, Rc::new(watch));
        }
        let allow: Rc<str> = methods.join(", ").into();
        let watch = Rc::new(metrics.watch(None, path, false));
        let refusal = refuse(state, watch, allow.clone(), move || {
            ApiError::method_not_allowed(&allow)
        });
        config.service(resource.default_service(refusal));
    }
    let watch = Rc::new(metrics.watch(None, "other", false));
    config.default_service(refuse(state, watch, Rc::from(""), || {
        ApiError::not_found("this path")
    }));
}

/// Answers what no row of the table answers.
fn refuse(
    state: &SharedState,
    watch: SharedWatch,
    allow: Rc<str>,
    error: impl Fn() -> ApiError + Clone + 'static,
) -> actix_web::Route {
    let state = state.clone();
    web::to(move |parts| {
        let (error, allow) = (error.clone(), allow.clone());
        let ctx = Ctx::new(parts, state.clone());
        let refusal = async move |ctx: Rc<Ctx>| {
            if let Some(origins) = &ctx.state.config.cors
                && !allow.is_empty()
                && let Some(leave) = origins.preflight(&ctx.req, &allow)
            {
                return Ok(leave);
            }
            guard_unknown(&ctx)?;
            Err(error())
        };
        answer(ctx, Door::Open, refusal, watch.clone())
    })
}

/// Whatever looks like a guarded path, in any spelling, does not tell strangers whether it exists.
fn guard_unknown(ctx: &Ctx) -> Result<(), ApiError> {
    let path = percent_encoding::percent_decode_str(ctx.req.path())
        .decode_utf8_lossy()
        .to_ascii_lowercase();
    let segments: Vec<&str> = path
        .split(['/', '\\'])
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if segments
        .iter()
        .any(|part| matches!(*part, "admin" | "auto-promote" | "promotions"))
    {
        grant::<Viewer>(ctx)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    /// A handler that never ends is ended, its client is told to come again.
    #[tokio::test]
    async fn a_handler_that_never_ends_is_ended() {
        let ended = limited(SHORT, || (false, Duration::ZERO), std::future::pending()).await;
        assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    }

    /// The time in which a reading waited for its turn is not its own.
    #[tokio::test]
    async fn a_reading_has_its_time_from_its_beginning() {
        let read = from_its_beginning(SHORT, async {
            tokio::task::yield_now().await;
            Ok(())
        });
        tokio::time::sleep(2 * SHORT).await;
        assert!(read.await.is_ok());
        let ended = from_its_beginning(SHORT, std::future::pending::<Result<(), _>>()).await;
        assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    }

    /// The time in which the body came is not the handler's.
    #[tokio::test]
    async fn a_slow_body_does_not_end_a_handler() {
        let looks = std::cell::Cell::new(0);
        let body = || {
            looks.set(looks.get() + 1);
            (looks.get() < 3, SHORT * looks.get())
        };
        let handler = async {
            while looks.get() < 3 {
                tokio::task::yield_now().await;
            }
            Ok(HttpResponse::Ok().finish())
        };
        assert!(limited(SHORT, body, handler).await.is_ok());
    }

    #[test]
    fn the_storefront_comes_first() {
        let storefront = storefront::routes().len();
        let table = table();
        assert!(
            table
                .iter()
                .take(storefront)
                .all(|route| route.path.starts_with("/api/v1/experiments/"))
        );
        assert!(table.iter().any(|route| route.path.contains('{')));
    }
}
