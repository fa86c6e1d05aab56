//! Signs of life. Never rate-limited, and they name no host, port or version of others.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use podium_storage::{Database, fold, migrate};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::open(Method::GET, "/livez", live),
        Route::open(Method::GET, "/readyz", ready),
        Route::open(Method::GET, "/api/v1/health", health),
        Route::open(Method::GET, "/metrics", metrics),
        Route::open(
            Method::GET,
            "/api/v1/openapi.json",
            crate::openapi::document,
        ),
        Route::open(Method::GET, "/docs", crate::openapi::page_redirect),
        Route::open(Method::GET, "/docs/{file:.*}", crate::openapi::page),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(
    paths(
        live,
        ready,
        health,
        metrics,
        crate::openapi::document,
        crate::openapi::page,
        crate::openapi::page_redirect
    ),
    components(schemas(Health, Ready, Queues))
)]
pub struct HealthApi;

/// Answer of `/api/v1/health`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `ok`, or `degraded` while the database is away.
    pub status: &'static str,
    /// Version of this program.
    pub version: &'static str,
    /// `up` or `down`.
    pub database: &'static str,
    /// Seconds since the process started.
    pub uptime_seconds: u64,
    /// Experiments in memory.
    pub experiments: usize,
    /// What waits for the writers.
    pub queues: Queues,
}

/// What waits for the writers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Queues {
    /// First assignments.
    pub assignments: usize,
    /// Requests with events.
    pub events: usize,
    /// Answers of rankings.
    pub decisions: usize,
}

/// Answer of `/readyz`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Whether this replica should get traffic.
    pub ready: bool,
    /// Checks that failed: `draining` (it was asked to stop), `database`, `schema` (older than this program), `folding` (half
    /// an hour behind).
    pub failed: Vec<&'static str>,
}

fn plain<T: Serialize>(status: u16, body: &T) -> Result<HttpResponse, ApiError> {
    let status = actix_web::http::StatusCode::from_u16(status)
        .map_err(|e| ApiError::internal(&e.to_string()))?;
    let body = serde_json::to_vec(body).map_err(|e| ApiError::internal(&e.to_string()))?;
    Ok(HttpResponse::build(status)
        .insert_header((CONTENT_TYPE, "application/json"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(body))
}

/// The process is up.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "Health",
    responses((status = 200, description = "The process is up", content_type = "text/plain", body = String)))]
pub async fn live(_: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
        .body("ok"))
}

/// Whether this replica should get traffic.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "Health",
    responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub async fn ready(ctx: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    let mut failed = Vec::new();
    if ctx.state.draining.load(Ordering::Relaxed) {
        failed.push("draining");
    }
    failed.extend(database_check(&ctx.state.database).await);
    let ready = failed.is_empty();
    plain(if ready { 200 } else { 503 }, &Ready { ready, failed })
}

/// The check of the database that fails, if one does.
async fn database_check(database: &Database) -> Option<&'static str> {
    match migrate::is_current(database).await {
        Ok(true) => {}
        Ok(false) => return Some("schema"),
        // A database that was never migrated has no table of versions; one that shuts down says so as an error of the statement.
        Err(error) if error.sql_state().is_some() && !error.is_outage() => return Some("schema"),
        Err(_) => return Some("database"),
    }
    match fold::lag_seconds(database).await {
        // Stale figures are no reason to turn shoppers away, but half an hour of silence is a fault to look at. After a step
        // of the database's clock nobody knows until the next pass.
        Ok(Some(lag)) if lag > 1_800.0 => Some("folding"),
        Ok(_) => None,
        Err(_) => Some("database"),
    }
}

/// What this process did and the database knows, for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "Health",
    responses((status = 200, description = "Prometheus text format", content_type = "text/plain", body = String)))]
pub async fn metrics(ctx: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    let text = ctx.state.metrics.text(&ctx.state);
    let text = text.map_err(|error| ApiError::internal(&error.to_string()))?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(text))
}

/// Whether the process can serve, and what it knows of itself.
#[utoipa::path(get, path = "/api/v1/health", operation_id = "health", tag = "Health",
    responses((status = 200, body = Health)))]
pub async fn health(ctx: Rc<Ctx>) -> Result<HttpResponse, ApiError> {
    let up = ctx.state.database.is_reachable();
    let waiting = ctx.state.serving.queue_depth();
    plain(
        200,
        &Health {
            status: if up { "ok" } else { "degraded" },
            version: env!("CARGO_PKG_VERSION"),
            database: if up { "up" } else { "down" },
            uptime_seconds: ctx.state.started.elapsed().as_secs(),
            experiments: ctx.state.serving.snapshot().len(),
            queues: Queues {
                assignments: waiting.assignments,
                events: waiting.events,
                decisions: waiting.decisions,
            },
        },
    )
}
