//! Where and when users want to be told.

use std::rc::Rc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::Method;
use chrono::{DateTime, NaiveTime, Utc};
use podium_domain::fault::code;
use podium_domain::notification::{Channel, Level};
use podium_notifications::{email, guard, webhook};
use podium_storage::notification_configs::{
    self as configs, Config, ConfigPatch, NewConfig, QuietHours, Secrets,
};
use podium_storage::notification_logs as logs;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use super::common::{
    Answer, Deleted, NotChanged, NotPatched, NotRead, Page, Query, Refused, carry_out, created,
    decoded, deleted, if_match, required_if_match, versioned,
};
use super::notification_logs::LogBody;
use super::read::{self, nullable, refuse_null, refuse_read_only};
use crate::auth::refusals::Refusal;
use crate::auth::{Granted, Role, Viewer};
use crate::json::{Fields, Node};
use crate::problem::ApiError;
use crate::request::{Ctx, admin_json};
use crate::routes::{Route, refused};

const ALL: &str = "/api/v1/admin/notification-configs";
const ONE: &str = "/api/v1/admin/notification-configs/{configId}";
const TEST: &str = "/api/v1/admin/notification-configs/{configId}/test";

/// Characters of an address.
const URL: usize = 2_000;
/// Characters of an e-mail address.
const EMAIL: usize = 254;
/// Characters of a signing secret, and of a routing key.
const SECRET: usize = 128;
const ROUTING_KEY: usize = 32;
/// How long a test is waited for, and how often it is looked at.
const PATIENCE: u32 = 30;
const LOOK: Duration = Duration::from_millis(100);
/// Members that the server sets.
const READ_ONLY: [&str; 6] = [
    "id",
    "disabledReason",
    "secretsSet",
    "failuresInRow",
    "createdAt",
    "updatedAt",
];

/// The rows of the table.
#[must_use]
pub fn routes() -> Vec<Route> {
    vec![
        Route::guarded(Method::GET, ALL, list),
        Route::guarded(Method::POST, ALL, create),
        Route::guarded(Method::GET, ONE, show),
        Route::guarded(Method::PATCH, ONE, patch),
        Route::guarded(Method::DELETE, ONE, delete),
        Route::guarded(Method::POST, TEST, test),
    ]
}

/// The documented operations of this module.
#[derive(OpenApi)]
#[openapi(paths(list, create, show, patch, delete, test))]
pub struct NotificationConfigsApi;

/// Hours in which messages wait, except to PagerDuty.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuietHours)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuietBody {
    /// First quiet minute, by the clock on the wall.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    pub from: String,
    /// First minute that is not quiet any more; may lie on the next day.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    pub to: String,
    /// Name of the time zone, such as `Europe/Berlin`; UTC unless given.
    #[schema(required = false, min_length = 1, max_length = 64)]
    pub time_zone: String,
}

/// Where a user is told. What opens the door there goes in and never comes out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotificationConfig)]
#[serde(rename_all = "camelCase")]
pub struct ConfigBody {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: Uuid,
    /// Whose it is.
    pub user_id: String,
    /// `slack`, `pagerduty`, `email` or `webhook`.
    pub channel: &'static str,
    /// Whether anything is sent.
    pub enabled: bool,
    /// Why Podium itself disabled it; null when it did not.
    pub disabled_reason: Option<String>,
    /// Levels that are wanted: `info`, `warning`, `critical`.
    pub alert_levels: Vec<&'static str>,
    /// E-mail: the recipient.
    pub email_address: Option<String>,
    /// When messages wait.
    pub quiet_hours: Option<QuietBody>,
    /// Names of the secrets that are set.
    pub secrets_set: Vec<&'static str>,
    /// Tries without a success since the last one.
    pub failures_in_row: i32,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl From<Config> for ConfigBody {
    fn from(config: Config) -> Self {
        let clock = |time: NaiveTime| time.format("%H:%M").to_string();
        let levels = config.alert_levels.iter();
        Self {
            id: config.id,
            user_id: config.user_id,
            channel: config.channel.name(),
            enabled: config.enabled,
            disabled_reason: config.disabled_reason,
            alert_levels: levels.map(|level| level.name()).collect(),
            email_address: config.email_address,
            quiet_hours: config.quiet_hours.map(|quiet| QuietBody {
                from: clock(quiet.from),
                to: clock(quiet.to),
                time_zone: quiet.time_zone,
            }),
            secrets_set: config.secrets_set,
            failures_in_row: config.failures_in_row,
            created_at: config.created_at,
            updated_at: config.updated_at,
        }
    }
}

/// A target to create: `webhookUrl` for Slack, `routingKey` for PagerDuty, `emailAddress` for e-mail, `webhookUrl` and
/// `apiKey` for a webhook.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateNotificationConfig {
    /// `slack`, `pagerduty`, `email` or `webhook`; a user has one of each.
    #[schema(pattern = "^(slack|pagerduty|email|webhook)$")]
    pub channel: String,
    /// Whose it is; oneself unless given, and only an admin may name somebody else.
    #[schema(min_length = 1, max_length = 255)]
    pub user_id: Option<String>,
    /// True unless given.
    pub enabled: Option<bool>,
    /// `info`, `warning`, `critical`; all unless given.
    #[schema(max_items = 3)]
    pub alert_levels: Option<Vec<String>>,
    /// Slack, webhook: an https address. Write-only.
    #[schema(max_length = 2000)]
    pub webhook_url: Option<String>,
    /// Webhook: `whsec_` and the base64 of 24 to 64 random bytes, which sign every message. Write-only.
    #[schema(max_length = 128)]
    pub api_key: Option<String>,
    /// E-mail: one address.
    #[schema(max_length = 254)]
    pub email_address: Option<String>,
    /// PagerDuty: the integration key of Events API v2, 32 letters and digits. Write-only.
    #[schema(min_length = 32, max_length = 32)]
    pub routing_key: Option<String>,
    /// When messages wait.
    pub quiet_hours: Option<QuietBody>,
}

/// Changes of a target. A member that is left out stays as it is. A new `apiKey` leaves the old one in force for a day:
/// until then messages carry both signatures.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchNotificationConfig {
    /// Whether anything is sent. Disabling gives up what waits.
    #[schema(value_type = bool, required = false)]
    pub enabled: Option<bool>,
    /// `info`, `warning`, `critical`.
    #[schema(value_type = Vec<String>, required = false, max_items = 3)]
    pub alert_levels: Option<Vec<String>>,
    /// Slack, webhook: an https address. Write-only.
    #[schema(value_type = String, required = false, max_length = 2000)]
    pub webhook_url: Option<String>,
    /// Webhook: the new signing secret. Write-only.
    #[schema(value_type = String, required = false, max_length = 128)]
    pub api_key: Option<String>,
    /// E-mail: one address.
    #[schema(value_type = String, required = false, max_length = 254)]
    pub email_address: Option<String>,
    /// PagerDuty: the integration key. Write-only.
    #[schema(value_type = String, required = false, min_length = 32, max_length = 32)]
    pub routing_key: Option<String>,
    /// When messages wait; null ends that.
    pub quiet_hours: Option<QuietBody>,
}

/// Lists one's own targets, an admin all, in the order of their ids.
#[utoipa::path(get, path = "/api/v1/admin/notification-configs", operation_id = "listNotificationConfigs", tag = "Notifications",
    security(("bearer" = [])),
    params(
        ("userId" = Option<String>, Query, description = "Only those of this user"),
        ("limit" = Option<i64>, Query, description = "Entries of a page; 50 unless given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before")),
    responses((status = 200, description = "One page", body = Page<ConfigBody>), Refused))]
pub async fn list(ctx: Rc<Ctx>, granted: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(&ctx);
    let (user, limit, cursor) = (
        query.text("userId", 255),
        query.limit(),
        query.uuid("cursor"),
    );
    query.finish()?;
    let owner = owner(&granted).or(user);
    let found = configs::list(&ctx.state.database, owner.as_deref(), cursor, limit + 1).await?;
    Page::new(found, limit, |last| last.id.to_string(), ConfigBody::from).answer()
}

/// Creates a target.
#[utoipa::path(post, path = "/api/v1/admin/notification-configs", operation_id = "createNotificationConfig", tag = "Notifications",
    security(("bearer" = [])), request_body = CreateNotificationConfig,
    responses(
        (status = 201, description = "Created", body = Answer<ConfigBody>,
            headers(("Location" = String, description = "Where it is"), ("ETag" = String, description = "Its version"))),
        NotChanged))]
pub async fn create(ctx: Rc<Ctx>, granted: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let allow_private = ctx.state.config.notifications.allow_private;
    let new = read::body(&ctx, |fields| {
        new_config(fields, granted.actor(), allow_private)
    })
    .await?;
    if new.user_id != granted.actor() && granted.role() != Role::Admin {
        let (actor, reason) = (granted.actor().to_owned(), "notifications of others");
        let detail = "only an admin may set up notifications of others";
        let refusal = Refusal::forbidden(actor, reason, detail);
        return Err(refused(&ctx, &refusal));
    }
    check_zone(&ctx, new.quiet_hours.as_ref()).await?;
    let made = carry_out(&ctx, &granted, async move |database, origin| {
        configs::create(database, origin, &new).await
    })
    .await?;
    let (version, location) = (made.version(), format!("{ALL}/{}", made.id));
    created(ConfigBody::from(made), version, &location)
}

/// Reads a target.
#[utoipa::path(get, path = "/api/v1/admin/notification-configs/{configId}", operation_id = "readNotificationConfig", tag = "Notifications",
    security(("bearer" = [])),
    params(("configId" = String, Path, description = "Id of the configuration")),
    responses(
        (status = 200, description = "The configuration", body = Answer<ConfigBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotRead))]
pub async fn show(ctx: Rc<Ctx>, granted: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    answer(found(&ctx, &granted).await?)
}

/// Changes a target, and has it tried again when it was failing.
#[utoipa::path(patch, path = "/api/v1/admin/notification-configs/{configId}", operation_id = "patchNotificationConfig", tag = "Notifications",
    security(("bearer" = [])), request_body = PatchNotificationConfig,
    params(
        ("configId" = String, Path, description = "Id of the configuration"),
        ("If-Match" = String, Header, description = "ETag of the last read, or `*`")),
    responses(
        (status = 200, description = "The configuration after the change", body = Answer<ConfigBody>,
            headers(("ETag" = String, description = "Its version"))),
        NotPatched))]
pub async fn patch(ctx: Rc<Ctx>, granted: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let known = found(&ctx, &granted).await?;
    let allow_private = ctx.state.config.notifications.allow_private;
    let patch = read::body(&ctx, |fields| {
        config_patch(fields, known.channel, allow_private)
    })
    .await?;
    let when = required_if_match(&ctx)?;
    check_zone(&ctx, patch.quiet_hours.as_ref().and_then(Option::as_ref)).await?;
    let (owner, id) = (owner(&granted), known.id);
    let changed = carry_out(&ctx, &granted, async move |database, origin| {
        configs::patch(database, origin, (owner.as_deref(), id), &when, &patch).await
    })
    .await?;
    answer(changed)
}

/// Deletes a target and gives up what waits for it. The log of what was sent stays.
#[utoipa::path(delete, path = "/api/v1/admin/notification-configs/{configId}", operation_id = "deleteNotificationConfig", tag = "Notifications",
    security(("bearer" = [])),
    params(
        ("configId" = String, Path, description = "Id of the configuration"),
        ("If-Match" = Option<String>, Header, description = "ETag of the last read")),
    responses((status = 200, description = "Deleted", body = Answer<Deleted>), NotChanged))]
pub async fn delete(ctx: Rc<Ctx>, granted: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let (id, when, owner) = (config_id(&ctx)?, if_match(&ctx), owner(&granted));
    carry_out(&ctx, &granted, async move |database, origin| {
        configs::delete(database, origin, (owner.as_deref(), id), &when).await
    })
    .await?;
    deleted()
}

/// Sends a test message, once, and answers how it went; `pending` when it takes longer than three seconds.
#[utoipa::path(post, path = "/api/v1/admin/notification-configs/{configId}/test", operation_id = "testNotificationConfig", tag = "Notifications",
    security(("bearer" = [])),
    params(("configId" = String, Path, description = "Id of the configuration")),
    responses((status = 200, description = "The delivery and how it stands", body = Answer<LogBody>), NotChanged))]
pub async fn test(ctx: Rc<Ctx>, granted: Granted<Viewer>) -> Result<HttpResponse, ApiError> {
    let (id, owner, now) = (config_id(&ctx)?, owner(&granted), ctx.state.clock.now());
    let delivery = carry_out(&ctx, &granted, async move |database, origin| {
        configs::test(database, origin, (owner.as_deref(), id), now).await
    })
    .await?;
    ctx.state.notifications.wake();
    for _ in 0..PATIENCE {
        let entry = logs::read(&ctx.state.database, None, delivery).await?;
        match entry {
            Some(entry) if entry.status != "pending" => {
                return admin_json(200, LogBody::from(entry));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
    let entry = logs::read(&ctx.state.database, None, delivery).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found("this notification"))?;
    admin_json(200, LogBody::from(entry))
}

/// Whose targets a caller may see and change: an admin everybody's, which is `None`.
pub(super) fn owner(granted: &Granted<Viewer>) -> Option<String> {
    (granted.role() != Role::Admin).then(|| granted.actor().to_owned())
}

fn config_id(ctx: &Ctx) -> Result<Uuid, ApiError> {
    let id = decoded(ctx, "configId").parse();
    id.map_err(|_| ApiError::not_found("this notification configuration"))
}

async fn found(ctx: &Ctx, granted: &Granted<Viewer>) -> Result<Config, ApiError> {
    let id = config_id(ctx)?;
    let found = configs::read(&ctx.state.database, owner(granted).as_deref(), id).await?;
    found.ok_or_else(|| ApiError::not_found("this notification configuration"))
}

fn answer(config: Config) -> Result<HttpResponse, ApiError> {
    let version = config.version();
    versioned(200, ConfigBody::from(config), version)
}

async fn check_zone(ctx: &Ctx, quiet: Option<&QuietHours>) -> Result<(), ApiError> {
    let Some(quiet) = quiet else {
        return Ok(());
    };
    if configs::knows_zone(&ctx.state.database, &quiet.time_zone).await? {
        return Ok(());
    }
    let detail = "is no time zone that the database knows";
    Err(ApiError::field(
        "/quietHours/timeZone",
        code::UNKNOWN_VALUE,
        detail,
    ))
}

fn new_config(fields: &mut Fields<'_, '_>, actor: &str, allow_private: bool) -> Option<NewConfig> {
    refuse_read_only(fields, &READ_ONLY);
    let channel = read::word(fields, "channel");
    let channel: Option<Channel> = fields.require("channel", channel);
    let user_id = fields.key("userId", 255).unwrap_or(actor).to_owned();
    let patch = config_fields(fields, channel, allow_private);
    for (name, missing) in missing(channel?, &patch) {
        if missing {
            fields.require::<()>(name, None);
        }
    }
    Some(NewConfig {
        user_id,
        channel: channel?,
        enabled: patch.enabled.unwrap_or(true),
        alert_levels: patch.alert_levels.unwrap_or_else(|| Level::ALL.to_vec()),
        email_address: patch.email_address,
        quiet_hours: patch.quiet_hours.flatten(),
        secrets: patch.secrets,
    })
}

/// What a channel cannot do without.
fn missing(channel: Channel, given: &ConfigPatch) -> Vec<(&'static str, bool)> {
    let url = ("webhookUrl", given.secrets.webhook_url.is_none());
    match channel {
        Channel::Slack => vec![url],
        Channel::Pagerduty => vec![("routingKey", given.secrets.routing_key.is_none())],
        Channel::Email => vec![("emailAddress", given.email_address.is_none())],
        Channel::Webhook => vec![url, ("apiKey", given.secrets.api_key.is_none())],
    }
}

fn config_patch(
    fields: &mut Fields<'_, '_>,
    channel: Channel,
    allow_private: bool,
) -> Option<ConfigPatch> {
    refuse_read_only(fields, &READ_ONLY);
    refuse_read_only(fields, &["userId", "channel"]);
    refuse_null(
        fields,
        &[
            "enabled",
            "alertLevels",
            "webhookUrl",
            "apiKey",
            "emailAddress",
            "routingKey",
        ],
    );
    Some(config_fields(fields, Some(channel), allow_private))
}

fn config_fields(
    fields: &mut Fields<'_, '_>,
    channel: Option<Channel>,
    allow_private: bool,
) -> ConfigPatch {
    let patch = ConfigPatch {
        enabled: fields.boolean("enabled"),
        alert_levels: levels(fields),
        email_address: checked(fields, "emailAddress", EMAIL, |text| {
            if email::is_address(text) {
                Ok(())
            } else {
                Err("must be one e-mail address, without a name".to_owned())
            }
        }),
        quiet_hours: nullable(fields, "quietHours", quiet_hours),
        secrets: Secrets {
            webhook_url: checked(fields, "webhookUrl", URL, |text| {
                let checked = guard::target(text, allow_private);
                checked.map(drop).map_err(|refused| refused.to_string())
            }),
            api_key: checked(fields, "apiKey", SECRET, |text| {
                webhook::key(text).map(drop).map_err(|bad| bad.to_string())
            }),
            routing_key: checked(fields, "routingKey", ROUTING_KEY, |text| {
                let fits = text.len() == ROUTING_KEY
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
                fits.then_some(())
                    .ok_or_else(|| "must be 32 letters and digits".to_owned())
            }),
        },
    };
    if let Some(channel) = channel {
        refuse_foreign(fields, channel, &patch);
    }
    patch
}

/// Members of other channels would be kept and never used.
fn refuse_foreign(fields: &mut Fields<'_, '_>, channel: Channel, given: &ConfigPatch) {
    let secrets = &given.secrets;
    for (name, given, channels) in [
        (
            "webhookUrl",
            secrets.webhook_url.is_some(),
            &[Channel::Slack, Channel::Webhook][..],
        ),
        ("apiKey", secrets.api_key.is_some(), &[Channel::Webhook]),
        (
            "routingKey",
            secrets.routing_key.is_some(),
            &[Channel::Pagerduty],
        ),
        (
            "emailAddress",
            given.email_address.is_some(),
            &[Channel::Email],
        ),
    ] {
        if given && !channels.contains(&channel) {
            let detail = format!("is not a field of the channel {channel}");
            fields.fault(name, code::UNKNOWN_FIELD, detail);
        }
    }
}

/// A text that `check` accepts. The fault says what is wanted and never repeats what was given.
fn checked(
    fields: &mut Fields<'_, '_>,
    name: &str,
    max: usize,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<String> {
    let text = fields.string(name, 1, max)?;
    match check(text) {
        Ok(()) => Some(text.to_owned()),
        Err(wanted) => {
            fields.fault(name, code::INVALID_TEXT, wanted);
            None
        }
    }
}

fn levels(fields: &mut Fields<'_, '_>) -> Option<Vec<Level>> {
    let names = fields.strings("alertLevels", Level::ALL.len())?;
    let list = fields.at("alertLevels");
    let mut levels = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let (code, detail) = match name.parse::<Level>() {
            Ok(level) if !levels.contains(&level) => {
                levels.push(level);
                continue;
            }
            Ok(_) => (code::DUPLICATE, "stands in the list already".to_owned()),
            Err(unknown) => (code::UNKNOWN_VALUE, unknown.to_string()),
        };
        fields.faults.push(list.element(index), code, detail);
    }
    Some(levels)
}

fn quiet_hours(fields: &mut Fields<'_, '_>, name: &str) -> Option<QuietHours> {
    let node: &Node<'_> = fields.take(name)?;
    let mut quiet = Fields::inner(node);
    let from = wall_clock(&mut quiet, "from");
    let from = quiet.require("from", from);
    let to = wall_clock(&mut quiet, "to");
    let to = quiet.require("to", to);
    let time_zone = quiet.string("timeZone", 1, 64).unwrap_or("UTC").to_owned();
    quiet.refuse_unknown();
    fields.absorb(name, quiet);
    Some(QuietHours {
        from: from?,
        to: to?,
        time_zone,
    })
}

fn wall_clock(fields: &mut Fields<'_, '_>, name: &str) -> Option<NaiveTime> {
    let text = fields.string(name, 5, 5)?;
    let time = NaiveTime::parse_from_str(text, "%H:%M").ok();
    if time.is_none() {
        fields.fault(name, code::INVALID_TEXT, "must be a time such as 22:00");
    }
    time
}
