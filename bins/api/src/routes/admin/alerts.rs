//! Alerts: what went wrong, and whether it still does.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use chrono::{DateTime, Utc};
use podium_domain::alerts::Standing;
use podium_domain::notification::Level;
use podium_storage::alerts::{self, Alert, Filter};
use podium_storage::experiments::ExperimentRef;
use podium_storage::experiments::query::id_of;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::common::{Page, Query, Refused};
use crate::auth::{Granted, Viewer};
use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![Route::guarded(Method::GET, "/api/v1/admin/alerts", list)]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(list))]
pub struct AlertsApi;

/// An alert.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Alert)]
#[serde(rename_all = "camelCase")]
pub struct AlertBody {
    /// Rises with time.
    pub id: i64,
    /// Experiment.
    pub experiment_id: i64,
    /// Its name.
    pub experiment_name: String,
    /// Variant; null for the experiment as a whole.
    pub variant_id: Option<i64>,
    /// Its name.
    pub variant_name: Option<String>,
    /// What it is about: `error_rate`, `p95_latency_ms`, `traffic`, `sample_ratio_mismatch`, `no_events`,
    /// `assignment_failures`, `few_units`, `guard_conversion`, `guard_errors`, `site_errors` or
    /// `conversion_before_after`.
    pub kind: String,
    /// `info`, `warning` or `critical`.
    pub level: &'static str,
    /// What was found when it opened.
    pub message: String,
    /// What was measured then, in the unit of `threshold`: rates are fractions, latencies milliseconds.
    pub value: Option<f64>,
    /// What it was compared with.
    pub threshold: Option<f64>,
    /// `open` or `closed`.
    pub status: &'static str,
    /// When it opened.
    pub opened_at: DateTime<Utc>,
    /// When it closed by itself; null while it is open.
    pub closed_at: Option<DateTime<Utc>>,
}

impl From<Alert> for AlertBody {
    fn from(alert: Alert) -> Self {
        let variant = alert.variant;
        Self {
            id: alert.id,
            experiment_id: alert.experiment.id,
            experiment_name: alert.experiment.name,
            variant_id: variant.as_ref().map(|variant| variant.id),
            variant_name: variant.map(|variant| variant.name),
            kind: alert.kind,
            level: alert.level.name(),
            message: alert.message,
            value: alert.value,
            threshold: alert.threshold,
            status: match alert.closed_at {
                None => Standing::Open.name(),
                Some(_) => Standing::Closed.name(),
            },
            opened_at: alert.opened_at,
            closed_at: alert.closed_at,
        }
    }
}

/// Lists alerts, open and past ones, newest first.
#[utoipa::path(get, path = "/api/v1/admin/alerts", operation_id = "listAlerts", tag = "Alerts",
    security(("bearer" = [])),
    params(
        ("status" = Option<String>, Query, description = "Only those that are `open`, or only those that are `closed`"),
        ("level" = Option<String>, Query, description = "Only this level: `info`, `warning`, `critical`"),
        ("experimentId" = Option<String>, Query, description = "Only those of this experiment: its id or name"),
        ("limit" = Option<i64>, Query, description = "Entries of a page; 50 unless given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before")),
    responses((status = 200, description = "One page", body = Page<AlertBody>), Refused))]
pub async fn list(ctx: Rc<Ctx>, _: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(&ctx);
    let (status, level) = (
        query.word::<Standing>("status"),
        query.word::<Level>("level"),
    );
    let experiment = query.text("experimentId", 128);
    let (limit, cursor) = (query.limit(), query.cursor());
    query.finish()?;
    let experiment_id = match experiment {
        None => None,
        // What names no experiment has no alerts; ids begin at 1.
        Some(text) => Some(known(&ctx, &text).await?.unwrap_or(0)),
    };
    let filter = Filter {
        experiment_id,
        open: status.map(|status| status == Standing::Open),
        level,
    };
    let mut link = ctx.state.database.serve().await?;
    let found = alerts::list(&mut link, &filter, cursor, limit + 1).await?;
    Page::new(found, limit, |last| last.id.to_string(), AlertBody::from).answer()
}

async fn known(ctx: &Ctx, text: &str) -> Result<Option<i64>, ApiError> {
    match ExperimentRef::parse(text) {
        Some(reference) => Ok(id_of(&ctx.state.database, &reference).await?),
        None => Ok(None),
    }
}
