//! The audit log: who changed what, when, from which value to which.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use chrono::{DateTime, Utc};
use podium_storage::audit::{self, Entry, Filter};
use podium_storage::experiments::{ExperimentRef, as_json, query::id_of};
use podium_storage::export::Table;
use serde::{Serialize, Serializer};
use utoipa::{OpenApi, ToSchema};

use super::common::{Page, Query, Refused};
use crate::auth::{Admin, Granted};
use crate::problem::ApiError;
use crate::request::Ctx;
use crate::routes::Route;
use crate::routes::analytics::export::stream;

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::guarded(Method::GET, "/api/v1/admin/audit-log", list),
        Route::guarded(Method::GET, "/api/v1/admin/audit-log/export.csv", export),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(list, export))]
pub struct AuditApi;

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
#[serde(rename_all = "camelCase")]
pub struct EntryBody {
    /// Rises with time, not without gaps.
    pub id: i64,
    /// When the change was made.
    pub at: DateTime<Utc>,
    /// User that made it.
    pub actor: String,
    /// What was done: kind of thing and verb, such as `experiment.start`.
    pub action: String,
    /// Kind of thing: `experiment`, `variant`, `override`, `user`.
    pub entity: String,
    /// Which one.
    pub entity_id: String,
    /// The experiment that it belongs to.
    pub experiment_id: Option<i64>,
    /// Values before: those that changed, all for what was deleted, null for what is new.
    #[serde(serialize_with = "as_json_or_null")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<String>,
    /// Values after: those that changed, all for what is new, null for what was deleted.
    #[serde(serialize_with = "as_json_or_null")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<String>,
    /// Id of the request.
    pub request_id: Option<String>,
    /// Address of the client.
    pub address: Option<String>,
}

/// JSON text of the database as it is.
pub(super) fn as_json_or_null<S: Serializer>(
    text: &Option<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match text {
        Some(text) => as_json(text, serializer),
        None => serializer.serialize_none(),
    }
}

impl From<Entry> for EntryBody {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            actor: entry.actor,
            action: entry.action,
            entity: entry.entity,
            entity_id: entry.entity_id,
            experiment_id: entry.experiment_id,
            before: entry.before,
            after: entry.after,
            request_id: entry.request_id,
            address: entry.address,
        }
    }
}

/// Lists changes, newest first.
#[utoipa::path(get, path = "/api/v1/admin/audit-log", operation_id = "listAuditLog", tag = "Audit log",
    security(("bearer" = [])),
    params(
        ("experimentId" = Option<String>, Query, description = "Only those about this experiment: its id or name"),
        ("actor" = Option<String>, Query, description = "Only those of this user"),
        ("action" = Option<String>, Query, description = "Only this action, such as `experiment.start`"),
        ("limit" = Option<i64>, Query, description = "Entries of a page; 50 unless given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before")),
    responses((status = 200, description = "One page", body = Page<EntryBody>), Refused))]
pub async fn list(ctx: Rc<Ctx>, _: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(&ctx);
    let experiment = query.text("experimentId", 128);
    let (actor, action) = (query.text("actor", 255), query.text("action", 128));
    let (limit, cursor) = (query.limit(), query.cursor());
    query.finish()?;
    let experiment_id = match experiment {
        None => None,
        // What names no experiment has no entries; that is no fault of a filter.
        Some(text) => match known(&ctx, &text).await? {
            None => {
                return Page::new(
                    Vec::new(),
                    limit,
                    |_: &Entry| String::new(),
                    EntryBody::from,
                )
                .answer();
            }
            id => id,
        },
    };
    let filter = Filter {
        experiment_id,
        actor,
        action,
    };
    let entries = audit::list(&ctx.state.database, &filter, cursor, limit + 1).await?;
    Page::new(entries, limit, |last| last.id.to_string(), EntryBody::from).answer()
}

/// The whole log as CSV, oldest first. A cell of text that a spreadsheet would run has a `'` in front. An answer that breaks
/// off before its end is incomplete.
#[utoipa::path(get, path = "/api/v1/admin/audit-log/export.csv", operation_id = "exportAuditLog", tag = "Audit log",
    security(("bearer" = [])),
    params(("after" = Option<i64>, Query, description = "Only entries with ids above this one, to go on with an earlier export", minimum = 0)),
    responses((status = 200, description = "A header row and one row an entry", content_type = "text/csv; charset=utf-8", body = String), Refused))]
pub async fn export(ctx: Rc<Ctx>, _: Granted<Admin>) -> Result<HttpResponse, ApiError> {
    let after = match ctx.query("after").map(|text| text.parse()) {
        None => 0,
        Some(Ok(id)) if id >= 0 => id,
        Some(_) => {
            return Err(ApiError::field(
                "/after",
                "out_of_range",
                "must be the id of an entry",
            ));
        }
    };
    stream(&ctx, Table::Audit, after, "audit-log").await
}

async fn known(ctx: &Ctx, text: &str) -> Result<Option<i64>, ApiError> {
    match ExperimentRef::parse(text) {
        Some(reference) => Ok(id_of(&ctx.state.database, &reference).await?),
        None => Ok(None),
    }
}
