//! What was sent to whom, and what was not.

use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use chrono::{DateTime, Utc};
use podium_domain::notification::{Channel, DeliveryStatus};
use podium_storage::notification_logs::{self as logs, Entry, Filter};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use super::audit::as_json_or_null;
use super::common::{Answer, NotChanged, Page, Query, Refused, carry_out, decoded};
use super::notification_configs::owner;
use crate::auth::{Granted, Viewer};
use crate::problem::ApiError;
use crate::request::{Ctx, admin_json};
use crate::routes::Route;

const ALL: &str = "/api/v1/admin/notification-logs";
const RESEND: &str = "/api/v1/admin/notification-logs/{logId}/resend";

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::guarded(Method::GET, ALL, list),
        Route::guarded(Method::POST, RESEND, resend),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(list, resend))]
pub struct NotificationLogsApi;

/// A delivery and how it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotificationLog)]
#[serde(rename_all = "camelCase")]
pub struct LogBody {
    /// Id of the delivery, which a webhook carries as `webhook-id`.
    #[schema(value_type = String, format = "uuid")]
    pub id: Uuid,
    /// Whose target it is.
    pub user_id: Option<String>,
    /// Configuration of the target; may be gone.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub config_id: Option<Uuid>,
    /// `slack`, `pagerduty`, `email` or `webhook`.
    pub channel: String,
    /// `info`, `warning` or `critical`.
    pub alert_level: String,
    /// What happened, such as `promotion`.
    pub alert_type: String,
    /// Few words.
    pub title: String,
    /// One sentence.
    pub message: String,
    /// Experiment that it is about.
    pub experiment_name: Option<String>,
    /// Variant that it is about.
    pub variant_name: Option<String>,
    /// `pending`, `sent` or `failed`.
    pub status: String,
    /// What went wrong at the last try.
    pub error_message: Option<String>,
    /// Tries so far.
    pub attempts: i32,
    /// What the other side said last.
    #[serde(serialize_with = "as_json_or_null")]
    #[schema(value_type = Option<Object>)]
    pub response_data: Option<String>,
    /// When it arrived.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
}

impl From<Entry> for LogBody {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            user_id: entry.user_id,
            config_id: entry.config_id,
            channel: entry.channel,
            alert_level: entry.alert_level,
            alert_type: entry.alert_type,
            title: entry.title,
            message: entry.message,
            experiment_name: entry.experiment_name,
            variant_name: entry.variant_name,
            status: entry.status,
            error_message: entry.error_message,
            attempts: entry.attempts,
            response_data: entry.response_data,
            sent_at: entry.sent_at,
            created_at: entry.created_at,
        }
    }
}

/// Lists one's own notifications, an admin all, newest first.
#[utoipa::path(get, path = "/api/v1/admin/notification-logs", operation_id = "listNotificationLogs", tag = "Notifications",
    security(("bearer" = [])),
    params(
        ("userId" = Option<String>, Query, description = "Only those to this user"),
        ("channel" = Option<String>, Query, description = "Only over this channel"),
        ("status" = Option<String>, Query, description = "Only those that are `pending`, `sent` or `failed`"),
        ("limit" = Option<i64>, Query, description = "Entries of a page; 50 unless given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before")),
    responses((status = 200, description = "One page", body = Page<LogBody>), Refused))]
pub async fn list(ctx: Rc<Ctx>, granted: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(&ctx);
    let user = query.text("userId", 255);
    let channel: Option<Channel> = query.word("channel");
    let status: Option<DeliveryStatus> = query.word("status");
    let (limit, cursor) = (query.limit(), query.uuid("cursor"));
    query.finish()?;
    let filter = Filter {
        owner: owner(&granted).or(user),
        channel: channel.map(|channel| channel.name().to_owned()),
        status: status.map(|status| status.name().to_owned()),
    };
    let found = logs::list(&ctx.state.database, &filter, cursor, limit + 1).await?;
    Page::new(found, limit, |last| last.id.to_string(), LogBody::from).answer()
}

/// Sends a notification again that was given up, with all its tries anew and the same id.
#[utoipa::path(post, path = "/api/v1/admin/notification-logs/{logId}/resend", operation_id = "resendNotification", tag = "Notifications",
    security(("bearer" = [])),
    params(("logId" = String, Path, description = "Id of the notification")),
    responses((status = 200, description = "It waits to be sent", body = Answer<LogBody>), NotChanged))]
pub async fn resend(ctx: Rc<Ctx>, granted: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let id: Result<Uuid, _> = decoded(&ctx, "logId").parse();
    let id = id.map_err(|_| ApiError::not_found("this notification"))?;
    let owner = owner(&granted);
    let again = carry_out(&ctx, &granted, async move |database, origin| {
        logs::resend(database, origin, (owner.as_deref(), id)).await
    })
    .await?;
    ctx.state.notifications.wake();
    admin_json(200, LogBody::from(again))
}
