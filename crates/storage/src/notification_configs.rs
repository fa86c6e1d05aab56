//! Where and when users want to be told: one target of each channel for a user.
//!
//! Secrets go in and never come out: [`Config`] only says which are set, and so does the audit log.

use chrono::{DateTime, NaiveTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::notification::{Audience, Channel, Event, Level, Message, Subject};
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::audit::{self, Origin};
use crate::experiments::change::{ChangeError, Conflict, Precondition};
use crate::experiments::rows::{fetch, one};
use crate::outbox;
use crate::rows::column;
use crate::{Database, StorageError};

/// Wall-clock hours in which messages wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuietHours {
    /// First quiet minute.
    pub from: NaiveTime,
    /// First minute that is not quiet any more; may lie on the next day.
    pub to: NaiveTime,
    /// Name of the time zone, such as `Europe/Berlin`.
    pub time_zone: String,
}

/// A target as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: String,
    /// How it is reached.
    pub channel: Channel,
    /// Whether anything is sent.
    pub enabled: bool,
    /// Why Podium itself disabled it.
    pub disabled_reason: Option<String>,
    /// Levels that are wanted.
    pub alert_levels: Vec<Level>,
    /// E-mail: the recipient.
    pub email_address: Option<String>,
    /// When messages wait.
    pub quiet_hours: Option<QuietHours>,
    /// Names of the secrets that are set.
    pub secrets_set: Vec<&'static str>,
    /// Tries since the last success.
    #[serde(skip)]
    pub failures_in_row: i32,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl Config {
    /// Changes with every change: microseconds of the last one.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.updated_at.timestamp_micros()
    }
}

/// Secrets of a target that are to be set; `None` leaves one as it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Slack, webhook: the address.
    pub webhook_url: Option<String>,
    /// Webhook: the signing secret.
    pub api_key: Option<String>,
    /// PagerDuty: the integration key.
    pub routing_key: Option<String>,
}

impl Secrets {
    fn named(&self) -> Vec<&'static str> {
        set_of([
            self.webhook_url.is_some(),
            self.api_key.is_some(),
            self.routing_key.is_some(),
        ])
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({:?})", self.named())
    }
}

fn set_of(known: [bool; 3]) -> Vec<&'static str> {
    ["webhookUrl", "apiKey", "routingKey"]
        .into_iter()
        .zip(known)
        .filter_map(|(name, known)| known.then_some(name))
        .collect()
}

/// A target to create.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `Config`")]
pub struct NewConfig {
    pub user_id: String,
    pub channel: Channel,
    pub enabled: bool,
    pub alert_levels: Vec<Level>,
    pub email_address: Option<String>,
    pub quiet_hours: Option<QuietHours>,
    pub secrets: Secrets,
}

/// Changes of a target; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `Config`")]
pub struct ConfigPatch {
    pub enabled: Option<bool>,
    pub alert_levels: Option<Vec<Level>>,
    pub email_address: Option<String>,
    /// An inner `None` ends the quiet hours.
    pub quiet_hours: Option<Option<QuietHours>>,
    pub secrets: Secrets,
}

impl ConfigPatch {
    fn applied_to(&self, config: &Config) -> Config {
        let enabled = self.enabled.unwrap_or(config.enabled);
        Config {
            enabled,
            // A person has looked at it.
            disabled_reason: config
                .disabled_reason
                .clone()
                .filter(|_| self.enabled.is_none()),
            alert_levels: self
                .alert_levels
                .as_ref()
                .unwrap_or(&config.alert_levels)
                .clone(),
            email_address: self
                .email_address
                .clone()
                .or_else(|| config.email_address.clone()),
            quiet_hours: self
                .quiet_hours
                .as_ref()
                .unwrap_or(&config.quiet_hours)
                .clone(),
            ..config.clone()
        }
    }
}

/// Columns of a target.
macro_rules! columns {
    () => {
        "id, user_id, channel, enabled, disabled_reason, alert_levels, email_address, quiet_from, quiet_to, quiet_zone, \
         webhook_url IS NOT NULL AS has_url, api_key IS NOT NULL AS has_key, routing_key IS NOT NULL AS has_routing, \
         failures_in_row, created_at, updated_at"
    };
}

const LIST: &str = concat!(
    "-- notification_configs::list\nSELECT ",
    columns!(),
    " FROM notification_configs WHERE id > $1 AND ($2::text IS NULL OR user_id = $2) ORDER BY id LIMIT $3"
);

const READ: &str = concat!(
    "-- notification_configs::read\nSELECT ",
    columns!(),
    " FROM notification_configs WHERE id = $1 AND ($2::text IS NULL OR user_id = $2)"
);

const LOCK: &str = concat!(
    "-- notification_configs::lock\nSELECT ",
    columns!(),
    " FROM notification_configs WHERE id = $1 AND ($2::text IS NULL OR user_id = $2) FOR UPDATE"
);

const INSERT: &str = concat!(
    "-- notification_configs::insert
INSERT INTO notification_configs (user_id, channel, enabled, alert_levels, email_address, quiet_from, quiet_to, quiet_zone,
    webhook_url, api_key, routing_key)
VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce($8, 'UTC'), $9, $10, $11)
ON CONFLICT (user_id, channel) DO NOTHING
RETURNING ",
    columns!()
);

/// A new signing secret leaves the old one in force for a day. A person who changes a target wants it tried again.
const UPDATE: &str = concat!(
    "-- notification_configs::update
UPDATE notification_configs SET enabled = $2, disabled_reason = $3, alert_levels = $4, email_address = $5, quiet_from = $6,
    quiet_to = $7, quiet_zone = coalesce($8, 'UTC'), webhook_url = coalesce($9, webhook_url),
    previous_api_key = CASE WHEN $10 <> api_key THEN api_key ELSE previous_api_key END,
    previous_api_key_until = CASE WHEN $10 <> api_key THEN now() + interval '1 day' ELSE previous_api_key_until END,
    api_key = coalesce($10, api_key), routing_key = coalesce($11, routing_key),
    failures_in_row = 0, refusals_in_row = 0, failing_since = NULL, paused_until = NULL, probe_at = NULL,
    updated_at = greatest(now(), updated_at + interval '1 microsecond')
WHERE id = $1
RETURNING ",
    columns!()
);

/// What waited for the next try, or behind one, is due as if it were queued now. What a sender has in hand stays with it,
/// and rows that another one is recording are passed over: it sees the new version by itself.
const RESUME: &str = "-- notification_configs::resume
WITH waiting AS (
    SELECT o.id, CASE WHEN c.channel = 'pagerduty' THEN now()
                      ELSE podium_quiet_until(now(), c.quiet_from, c.quiet_to, c.quiet_zone) END AS due
    FROM notification_outbox o JOIN notification_configs c ON c.id = o.config_id
    WHERE c.id = $1 AND c.enabled AND o.dead_at IS NULL AND (o.leased_until IS NULL OR o.leased_until <= now())
    FOR UPDATE OF o SKIP LOCKED)
UPDATE notification_outbox o SET next_attempt_at = least(o.next_attempt_at, waiting.due)
FROM waiting WHERE o.id = waiting.id
RETURNING o.id";

const DELETE: &str = "-- notification_configs::delete
DELETE FROM notification_configs WHERE id = $1 RETURNING now() AS at";

const KNOWS_ZONE: &str = "-- notification_configs::knows_zone
SELECT EXISTS (SELECT 1 FROM pg_timezone_names WHERE name = $1) AS known";

/// Whether the database knows a time zone by this name.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn knows_zone(database: &Database, name: &str) -> Result<bool, StorageError> {
    let rows = database.serve().await?.query(KNOWS_ZONE, &[&name]).await?;
    column(
        one(&rows, "pg_timezone_names")?,
        "pg_timezone_names",
        "known",
    )
}

/// At most `limit` targets with ids behind `after`, of one user or of all, in the order of their ids.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn list(
    database: &Database,
    owner: Option<&str>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Config>, StorageError> {
    let after = after.unwrap_or(Uuid::nil());
    let mut link = database.serve().await?;
    let rows = link.query(LIST, &[&after, &owner, &limit]).await?;
    rows.iter().map(config).collect()
}

/// A target, when it is `owner`'s; `None` owns all.
///
/// # Errors
/// As [`list`].
pub async fn read(
    database: &Database,
    owner: Option<&str>,
    id: Uuid,
) -> Result<Option<Config>, StorageError> {
    let row = database
        .serve()
        .await?
        .query_opt(READ, &[&id, &owner])
        .await?;
    row.as_ref().map(config).transpose()
}

/// Creates a target.
///
/// # Errors
/// [`Conflict::TargetExists`].
pub async fn create(
    database: &Database,
    origin: &Origin,
    new: &NewConfig,
) -> Result<Config, ChangeError> {
    database
        .transaction(async |tx| {
            let quiet = new.quiet_hours.as_ref();
            let rows = fetch(
                tx,
                INSERT,
                &[
                    &new.user_id,
                    &new.channel.name(),
                    &new.enabled,
                    &names(&new.alert_levels),
                    &new.email_address,
                    &quiet.map(|quiet| quiet.from),
                    &quiet.map(|quiet| quiet.to),
                    &quiet.map(|quiet| &quiet.time_zone),
                    &new.secrets.webhook_url,
                    &new.secrets.api_key,
                    &new.secrets.routing_key,
                ],
            )
            .await?;
            let made = config(rows.first().ok_or(Conflict::TargetExists)?)?;
            let after = Some(audit::whole(&made)?);
            audit::append(tx, origin, &subject("create", made.id), None, after).await?;
            Ok(made)
        })
        .await
}

/// Changes a target of `owner`. Whoever disables it gives up what waits for it; incidents about it are over either way.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`].
pub async fn patch(
    database: &Database,
    origin: &Origin,
    (owner, id): (Option<&str>, Uuid),
    precondition: &Precondition,
    patch: &ConfigPatch,
) -> Result<Config, ChangeError> {
    database
        .transaction(async |tx| {
            let before = lock(tx, owner, id).await?;
            precondition.check(before.version())?;
            let wanted = patch.applied_to(&before);
            let secrets = patch.secrets.named();
            if wanted == before && secrets.is_empty() {
                return Ok(wanted);
            }
            let after = update(tx, &wanted, &patch.secrets).await?;
            fetch(tx, RESUME, &[&id]).await?;
            if before.enabled && !after.enabled {
                outbox::bury(tx, id, "the target was disabled", false).await?;
            }
            outbox::settle(tx, id, after.updated_at).await?;
            log_change(tx, origin, &before, &after, &secrets).await?;
            Ok(after)
        })
        .await
}

/// Deletes a target of `owner`, gives up what waits for it and ends the incidents about it. Its log stays.
///
/// # Errors
/// As [`patch`].
pub async fn delete(
    database: &Database,
    origin: &Origin,
    (owner, id): (Option<&str>, Uuid),
    precondition: &Precondition,
) -> Result<(), ChangeError> {
    database
        .transaction(async |tx| {
            let before = lock(tx, owner, id).await?;
            precondition.check(before.version())?;
            outbox::bury(tx, id, "the target was deleted", true).await?;
            let gone = fetch(tx, DELETE, &[&id]).await?;
            outbox::settle(tx, id, column(one(&gone, T)?, T, "at")?).await?;
            let whole = Some(audit::whole(&before)?);
            audit::append(tx, origin, &subject("delete", id), whole, None).await?;
            Ok(())
        })
        .await
}

/// Queues a message for this target alone, whatever it wants otherwise, and returns the id of its delivery.
///
/// # Errors
/// [`ChangeError::NotFound`], [`Conflict::TargetDisabled`].
pub async fn test(
    database: &Database,
    origin: &Origin,
    (owner, id): (Option<&str>, Uuid),
    now: DateTime<Utc>,
) -> Result<Uuid, ChangeError> {
    database
        .transaction(async |tx| {
            let target = lock(tx, owner, id).await?;
            if !target.enabled {
                return Err(Conflict::TargetDisabled.into());
            }
            let message = Message {
                actor: Some(origin.actor.clone()),
                audience: Audience::Only(id),
                ..Message::new(Event::Test, Level::Info, Subject::Target(id), now)
            };
            let queued = outbox::enqueue(tx, &message).await?;
            audit::append(tx, origin, &subject("test", id), None, None).await?;
            // The same target twice within a microsecond.
            let queued = queued.first().copied();
            queued.ok_or(ChangeError::NotFound("this notification configuration"))
        })
        .await
}

async fn lock(tx: &Transaction<'_>, owner: Option<&str>, id: Uuid) -> Result<Config, ChangeError> {
    let rows = fetch(tx, LOCK, &[&id, &owner]).await?;
    let row = rows.first();
    let row = row.ok_or(ChangeError::NotFound("this notification configuration"))?;
    Ok(config(row)?)
}

async fn update(
    tx: &Transaction<'_>,
    wanted: &Config,
    secrets: &Secrets,
) -> Result<Config, StorageError> {
    let quiet = wanted.quiet_hours.as_ref();
    let rows = fetch(
        tx,
        UPDATE,
        &[
            &wanted.id,
            &wanted.enabled,
            &wanted.disabled_reason,
            &names(&wanted.alert_levels),
            &wanted.email_address,
            &quiet.map(|quiet| quiet.from),
            &quiet.map(|quiet| quiet.to),
            &quiet.map(|quiet| &quiet.time_zone),
            &secrets.webhook_url,
            &secrets.api_key,
            &secrets.routing_key,
        ],
    )
    .await?;
    config(one(&rows, T)?)
}

/// Which secrets were replaced is logged, and nothing of them.
async fn log_change(
    tx: &Transaction<'_>,
    origin: &Origin,
    before: &Config,
    after: &Config,
    secrets: &[&'static str],
) -> Result<(), StorageError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry<'a> {
        #[serde(flatten)]
        config: &'a Config,
        secrets_replaced: &'a [&'static str],
    }
    let entry = |config, secrets_replaced| Entry {
        config,
        secrets_replaced,
    };
    let (old, new) = audit::difference(&entry(before, &[]), &entry(after, secrets))?;
    let subject = subject("update", after.id);
    audit::append(tx, origin, &subject, Some(old), Some(new)).await
}

fn names(levels: &[Level]) -> Vec<&'static str> {
    levels.iter().map(|level| level.name()).collect()
}

fn subject(verb: &str, id: Uuid) -> audit::Subject {
    audit::Subject::new("notification_config", verb, &id, None)
}

const T: &str = "notification_configs";

fn config(row: &Row) -> Result<Config, StorageError> {
    let corrupt = |column| StorageError::CorruptRow { table: T, column };
    let channel: String = column(row, T, "channel")?;
    let levels: Vec<String> = column(row, T, "alert_levels")?;
    Ok(Config {
        id: column(row, T, "id")?,
        user_id: column(row, T, "user_id")?,
        channel: channel.parse().map_err(|_| corrupt("channel"))?,
        enabled: column(row, T, "enabled")?,
        disabled_reason: column(row, T, "disabled_reason")?,
        // Whatever else somebody wrote there by hand matches no message.
        alert_levels: levels.iter().filter_map(|name| name.parse().ok()).collect(),
        email_address: column(row, T, "email_address")?,
        quiet_hours: quiet_hours(row)?,
        secrets_set: set_of([
            column(row, T, "has_url")?,
            column(row, T, "has_key")?,
            column(row, T, "has_routing")?,
        ]),
        failures_in_row: column(row, T, "failures_in_row")?,
        created_at: column(row, T, "created_at")?,
        updated_at: column(row, T, "updated_at")?,
    })
}

fn quiet_hours(row: &Row) -> Result<Option<QuietHours>, StorageError> {
    let from: Option<NaiveTime> = column(row, T, "quiet_from")?;
    let to: Option<NaiveTime> = column(row, T, "quiet_to")?;
    let time_zone = column(row, T, "quiet_zone")?;
    Ok(from.zip(to).map(|(from, to)| QuietHours {
        from,
        to,
        time_zone,
    }))
}
