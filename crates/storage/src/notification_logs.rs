//! What was sent to whom, and what was not.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::audit::{self, Origin};
use crate::experiments::change::{ChangeError, Conflict};
use crate::experiments::rows::fetch;
use crate::rows::column;
use crate::{Database, StorageError};

/// A delivery and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Id of the delivery, which webhooks carry as `webhook-id`.
    pub id: Uuid,
    /// Whose target it is.
    pub user_id: Option<String>,
    /// Configuration of the target; may be gone.
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
    /// What the other side said last, as JSON text.
    pub response_data: Option<String>,
    /// When it arrived.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
}

/// Which entries of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this user.
    pub owner: Option<String>,
    /// Only of this channel.
    pub channel: Option<String>,
    /// Only in this state.
    pub status: Option<String>,
}

macro_rules! columns {
    () => {
        "id, user_id, config_id, channel, alert_level, alert_type, title, message, experiment_name, variant_name, status, \
         error_message, attempts, response_data::text AS response_data, sent_at, created_at"
    };
}

const LIST: &str = concat!(
    "-- notification_logs::list\nSELECT ",
    columns!(),
    " FROM notification_logs
WHERE ($1::uuid IS NULL OR (created_at, id) < (SELECT c.created_at, c.id FROM notification_logs c WHERE c.id = $1))
  AND ($2::text IS NULL OR user_id = $2) AND ($3::text IS NULL OR channel = $3) AND ($4::text IS NULL OR status = $4)
ORDER BY created_at DESC, id DESC LIMIT $5"
);

const READ: &str = concat!(
    "-- notification_logs::read\nSELECT ",
    columns!(),
    " FROM notification_logs WHERE id = $1 AND ($2::text IS NULL OR user_id = $2)"
);

/// Its state, with the target's where there still is one.
const LOCK: &str = "-- notification_logs::lock
SELECT l.status, c.enabled
FROM notification_logs l LEFT JOIN notification_configs c ON c.id = l.config_id
WHERE l.id = $1 AND ($2::text IS NULL OR l.user_id = $2) FOR UPDATE OF l";

const AGAIN: &str = concat!(
    "-- notification_logs::again
WITH again AS (
    UPDATE notification_outbox SET dead_at = NULL, attempts = 0, next_attempt_at = now(), lease = NULL, leased_until = NULL
    WHERE id = $1 AND dead_at IS NOT NULL RETURNING id)
UPDATE notification_logs SET status = 'pending', error_message = NULL
WHERE id = (SELECT id FROM again)
RETURNING ",
    columns!()
);

/// What was closed while its page lay dead would stay open with PagerDuty for ever once the page is sent again: a copy of the
/// end follows it, unless something was opened anew under the same key.
const END_AGAIN: &str = "-- notification_logs::end_again
WITH ended AS (
    SELECT r.* FROM notification_logs l
    JOIN notification_logs r ON r.config_id = l.config_id AND r.dedup_key = l.dedup_key AND r.channel = 'pagerduty'
        AND r.action = 'resolve' AND r.created_at >= l.created_at
    WHERE l.id = $1 AND l.channel = 'pagerduty' AND l.action = 'trigger'
      AND NOT EXISTS (SELECT 1 FROM notification_logs t WHERE t.config_id = l.config_id AND t.dedup_key = l.dedup_key
                      AND t.channel = 'pagerduty' AND t.action = 'trigger' AND t.id <> l.id AND t.created_at >= r.created_at)
    ORDER BY r.created_at DESC, r.id LIMIT 1),
logged AS (
    INSERT INTO notification_logs (user_id, config_id, channel, alert_level, alert_type, title, message,
        experiment_name, variant_name, message_key, dedup_key, action, metadata)
    SELECT user_id, config_id, channel, alert_level, alert_type, title, message, experiment_name, variant_name,
           message_key || ':' || gen_random_uuid(), dedup_key, action, metadata FROM ended
    RETURNING id, config_id, dedup_key)
INSERT INTO notification_outbox (id, config_id, dedup_key, action, urgency, payload, next_attempt_at)
SELECT n.id, n.config_id, n.dedup_key, 'resolve', o.urgency, o.payload, now()
FROM logged n, notification_outbox o WHERE o.id = $1
RETURNING id";

/// At most `limit` entries older than the entry `before`, newest first.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn list(
    database: &Database,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Entry>, StorageError> {
    let mut link = database.serve().await?;
    let rows = link
        .query(
            LIST,
            &[
                &before,
                &filter.owner,
                &filter.channel,
                &filter.status,
                &limit,
            ],
        )
        .await?;
    rows.iter().map(entry).collect()
}

/// An entry, when it is `owner`'s; `None` owns all.
///
/// # Errors
/// As [`list`].
pub async fn read(
    database: &Database,
    owner: Option<&str>,
    id: Uuid,
) -> Result<Option<Entry>, StorageError> {
    let row = database
        .serve()
        .await?
        .query_opt(READ, &[&id, &owner])
        .await?;
    row.as_ref().map(entry).transpose()
}

/// Queues a notification again that was given up, with all its tries anew and the same id; behind a page about what is over
/// its end as well.
///
/// # Errors
/// [`ChangeError::NotFound`], [`Conflict::NotDead`], [`Conflict::TargetGone`], [`Conflict::TargetDisabled`].
pub async fn resend(
    database: &Database,
    origin: &Origin,
    (owner, id): (Option<&str>, Uuid),
) -> Result<Entry, ChangeError> {
    database
        .transaction(async |tx| {
            let rows = fetch(tx, LOCK, &[&id, &owner]).await?;
            let row = rows.first();
            let row = row.ok_or(ChangeError::NotFound("this notification"))?;
            let status: String = column(row, T, "status")?;
            let enabled: Option<bool> = column(row, T, "enabled")?;
            if status != "failed" {
                return Err(Conflict::NotDead(status).into());
            }
            if !enabled.ok_or(Conflict::TargetGone)? {
                return Err(Conflict::TargetDisabled.into());
            }
            let rows = fetch(tx, AGAIN, &[&id]).await?;
            let again = entry(rows.first().ok_or(Conflict::NotDead(status))?)?;
            fetch(tx, END_AGAIN, &[&id]).await?;
            let subject = audit::Subject::new("notification", "resend", &id, None);
            audit::append(tx, origin, &subject, None, None).await?;
            Ok(again)
        })
        .await
}

const T: &str = "notification_logs";

fn entry(row: &Row) -> Result<Entry, StorageError> {
    Ok(Entry {
        id: column(row, T, "id")?,
        user_id: column(row, T, "user_id")?,
        config_id: column(row, T, "config_id")?,
        channel: column(row, T, "channel")?,
        alert_level: column(row, T, "alert_level")?,
        alert_type: column(row, T, "alert_type")?,
        title: column(row, T, "title")?,
        message: column(row, T, "message")?,
        experiment_name: column(row, T, "experiment_name")?,
        variant_name: column(row, T, "variant_name")?,
        status: column(row, T, "status")?,
        error_message: column(row, T, "error_message")?,
        attempts: column(row, T, "attempts")?,
        response_data: column(row, T, "response_data")?,
        sent_at: column(row, T, "sent_at")?,
        created_at: column(row, T, "created_at")?,
    })
}
