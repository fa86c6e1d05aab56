//! Covariates: a number for each unit from before the experiment.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::web::{Bytes, BytesMut};
use podium_storage::experiments::covariates::{self, CovariateRow, Upload};
use tokio::sync::mpsc;
use utoipa::OpenApi;

use super::bodies::{Covariates, CovariatesOutcome};
use super::common::{Answer, NotChanged, carry_out, experiment};
use crate::auth::{Editor, Granted};
use crate::ids;
use crate::problem::ApiError;
use crate::request::{Ctx, Media, Pieces, UPLOAD, admin_json};
use crate::routes::Route;
use rows::{Batch, NAMED};

mod csv;
mod json;
mod rows;

const ALL: &str = "/api/v1/admin/experiments/{id}/covariates";

/// Rows that are staged at a time.
const GROUP: usize = 8_192;
/// Groups of JSON rows that wait for the database.
const WAITING: usize = 2;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![Route::upload(Method::POST, ALL, upload)]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(upload))]
pub struct CovariatesApi;

/// Takes a covariate for each of many units: a number from before the experiment, which the analysis uses to take noise
/// off its metrics. It counts for units that are assigned later, under the name that they are assigned under; another value
/// for a unit replaces the earlier one until then. CSV has the first line `unit,value`. Everything is taken or nothing:
/// faults are answered all together, the first hundred of them, with pointers `/<line>/<field>` for CSV.
#[utoipa::path(post, path = "/api/v1/admin/experiments/{id}/covariates", operation_id = "uploadCovariates",
    tag = "Covariates", security(("bearer" = [])),
    request_body(description = "At most 32 MiB, also after decompression",
        content((Covariates = "application/json"), (String = "text/csv", example = "unit,value\nu1,12.5\n"))),
    params(("id" = String, Path, description = "Id or name of the experiment, which is a draft or running")),
    responses((status = 200, description = "What became of them", body = Answer<CovariatesOutcome>), NotChanged))]
pub async fn upload(ctx: Rc<Ctx>, granted: Granted<Editor>) -> Result<HttpResponse, ApiError> {
    let which = experiment(&ctx)?;
    let pieces = ctx.pieces(UPLOAD, Media::Table)?;
    covariates::check(&ctx.state.database, &which).await?;
    let upload = Upload::begin(&ctx.state.database, ids::uuid_at(ctx.state.clock.now())).await?;
    let received = if ctx.is_csv() {
        receive_csv(&upload, pieces).await
    } else {
        receive_json(&upload, pieces).await
    };
    if let Err(error) = received {
        if let Err(error) = upload.forget().await {
            tracing::warn!(error = %error.chain(), "an upload is left to be swept up");
        }
        return Err(error);
    }
    let outcome = carry_out(&ctx, &granted, async move |_, origin| {
        upload.commit(origin, &which).await
    })
    .await?;
    admin_json(200, CovariatesOutcome::from(outcome))
}

async fn receive_csv(upload: &Upload, mut pieces: Pieces) -> Result<(), ApiError> {
    let mut file = csv::CsvRows::new();
    while let Some(piece) = pieces.next().await? {
        // A client that is still sending would not hear an earlier answer, so the rest is read, but not understood.
        if file.batch.is_full() {
            continue;
        }
        file.feed(&piece);
        if file.batch.rows.len() >= GROUP {
            upload.stage(&std::mem::take(&mut file.batch.rows)).await?;
        }
    }
    if !file.batch.is_full() {
        file.end();
    }
    finish(upload, file.batch, csv::pointer).await
}

async fn receive_json(upload: &Upload, pieces: Pieces) -> Result<(), ApiError> {
    let body = collect(pieces).await?;
    let (sender, mut groups) = mpsc::channel::<Vec<CovariateRow>>(WAITING);
    // On a thread of its own: tens of megabytes would keep the other requests of this one waiting.
    let reading = tokio::task::spawn_blocking(move || {
        json::read(&body, GROUP, |rows| sender.blocking_send(rows).is_ok())
    });
    while let Some(rows) = groups.recv().await {
        upload.stage(&rows).await?;
    }
    let read = reading
        .await
        .map_err(|error| ApiError::internal(&error.to_string()))?;
    finish(upload, read?, json::pointer).await
}

async fn collect(mut pieces: Pieces) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::new();
    while let Some(piece) = pieces.next().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// Stages the last rows, and passes when nothing is wrong with any.
async fn finish(
    upload: &Upload,
    mut batch: Batch,
    pointer: fn(i64) -> String,
) -> Result<(), ApiError> {
    upload.stage(&std::mem::take(&mut batch.rows)).await?;
    let repeated = upload.repeated(NAMED).await?;
    batch.conclude(&repeated, pointer)
}
