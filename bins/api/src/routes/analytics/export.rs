//! Raw rows of an experiment as CSV, streamed as they leave the database.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use podium_storage::export::{self, Table};

use crate::auth::{Granted, Viewer};
use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::admin::common::NotRead;

/// Every recorded event of an experiment, counted or not, in no order. A cell of text that a spreadsheet would run has
/// a `'` in front. An answer that breaks off before its end is incomplete.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/export/events.csv", operation_id = "exportEvents", tag = "Analytics",
    security(("bearer" = [])), params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, description = "A header row and one row an event", content_type = "text/csv; charset=utf-8", body = String), NotRead))]
pub async fn events(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    csv(&ctx, Table::Events, "events").await
}

/// Every assignment of an experiment, in no order, in the form of the events.
#[utoipa::path(get, path = "/api/v1/admin/experiments/{id}/export/assignments.csv", operation_id = "exportAssignments", tag = "Analytics",
    security(("bearer" = [])), params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, description = "A header row and one row an assignment", content_type = "text/csv; charset=utf-8", body = String), NotRead))]
pub async fn assignments(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    csv(&ctx, Table::Assignments, "assignments").await
}

async fn csv(ctx: &Ctx, table: Table, what: &str) -> Result<HttpResponse, ApiError> {
    let id = super::found(ctx).await?.id;
    stream(ctx, table, id, &format!("experiment-{id}-{what}")).await
}

/// A table as a file of this name.
pub(crate) async fn stream(
    ctx: &Ctx,
    table: Table,
    of: i64,
    name: &str,
) -> Result<HttpResponse, ApiError> {
    let rows = export::begin(&ctx.state.database, table, of).await?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/csv; charset=utf-8"))
        .insert_header((
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}.csv\""),
        ))
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(rows))
}
