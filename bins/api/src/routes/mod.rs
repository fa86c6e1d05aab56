//! The table of routes: one row per method and path, with who may call it.
//!
//! To add a route, write its handler in the module of its kind and add a row to that module's `routes()`. A handler of
//! a guarded route takes `Granted<R>`; [`Route::guarded`] reads the role from its type. Every row must stand in the
//! OpenAPI document too; a test compares the two.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::{Method, header};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource};

use tracing::Instrument;
use utoipa::OpenApi;

use crate::access_log;
use crate::auth::{Granted, RequiredRole, Role, Viewer};
use crate::metrics::Watch;
use crate::problem::{ApiError, Code};
use crate::request::{Ctx, finish};
use crate::state::SharedState;

pub mod admin;
pub mod analytics;
pub mod health;
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

type Answer = Result<HttpResponse, ApiError>;
/// Puts a route's handler into the resource of its path. Monomorphic below, so that a request costs one boxed future,
/// actix's own.
type Register = Rc<dyn Fn(Resource, &SharedState, SharedWatch) -> Resource>;
/// One thread's handle on the times of a route; see [`SharedState`] for why.
type SharedWatch = Rc<Arc<Watch>>;

/// One row of the table.
#[derive(Clone)]
pub struct Route {
    /// HTTP method.
    pub method: Method,
    /// Path pattern.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    register: Register,
}

impl Route {
    /// A route for everybody.
    pub fn public<F, Fut>(method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(Rc<Ctx>) -> Fut + Clone + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        let register = register(method.clone(), handler);
        Self {
            method,
            path,
            access: Access::Public,
            register,
        }
    }

    /// A route for a role, which the handler's signature names. The token is checked before anything else.
    pub fn guarded<R, F, Fut>(method: Method, path: &'static str, handler: F) -> Self
    where
        R: RequiredRole,
        F: Fn(Rc<Ctx>, Granted<R>) -> Fut + Clone + 'static,
        Fut: Future<Output = Answer> + 'static,
    {
        let register = register(method.clone(), move |ctx: Rc<Ctx>| {
            let handler = handler.clone();
            let span = span(&ctx);
            async move {
                let granted = grant::<R>(&ctx)?;
                handler(ctx, granted).await
            }
            .instrument(span)
        });
        Self {
            method,
            path,
            access: Access::Guarded(R::ROLE),
            register,
        }
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

fn register<F, Fut>(method: Method, handler: F) -> Register
where
    F: Fn(Rc<Ctx>) -> Fut + Clone + 'static,
    Fut: Future<Output = Answer> + 'static,
{
    Rc::new(move |resource, state, watch| {
        let (handler, state) = (handler.clone(), state.clone());
        resource.route(web::method(method.clone()).to(move |parts| {
            let ctx = Ctx::new(parts, state.clone());
            answer(ctx, handler.clone(), watch.clone())
        }))
    })
}

/// Checks the caller's token and role.
///
/// # Errors
/// 401 or 403.
pub fn grant<R: RequiredRole>(ctx: &Ctx) -> Result<Granted<R>, ApiError> {
    let headers: Vec<&str> = ctx
        .req
        .headers()
        .get_all(header::AUTHORIZATION)
        .map(|value| value.to_str().unwrap_or_default())
        .collect();
    ctx.state.auth.grant(
        &headers,
        &ctx.state.serving.snapshot(),
        ctx.state.clock.now(),
    )
}

async fn answer<F, Fut>(ctx: Ctx, handler: F, watch: SharedWatch) -> HttpResponse
where
    F: FnOnce(Rc<Ctx>) -> Fut,
    Fut: Future<Output = Answer>,
{
    let begin = Instant::now();
    let ctx = Rc::new(ctx);
    let outcome = match check_size(&ctx.req) {
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
    let (status, took) = (response.status().as_u16(), begin.elapsed());
    watch.record(status, took);
    access_log::answered(
        &ctx,
        &watch,
        status,
        took,
        error.as_ref().and_then(ApiError::cause),
    );
    response
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
        config.service(resource.default_service(refuse(state, watch, move || {
            ApiError::method_not_allowed(&allow)
        })));
    }
    let watch = Rc::new(metrics.watch(None, "other", false));
    config.default_service(refuse(state, watch, || ApiError::not_found("this path")));
}

/// Answers what no row of the table answers.
fn refuse(
    state: &SharedState,
    watch: SharedWatch,
    error: impl Fn() -> ApiError + Clone + 'static,
) -> actix_web::Route {
    let state = state.clone();
    web::to(move |parts| {
        let error = error.clone();
        let refusal = async move |ctx: Rc<Ctx>| {
            guard_unknown(&ctx)?;
            Err(error())
        };
        answer(Ctx::new(parts, state.clone()), refusal, watch.clone())
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
