//! The outbox: messages that are to be sent, one row for each target, written in the transaction of what they tell.
//!
//! [`enqueue`] is called by whoever changes something; senders take rows with [`claim`] and say with [`record`] how it
//! went. A row's id is the delivery's id, the same in every try and in `notification_logs`.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::notification::{Audience, Channel, Event, Level, Message, Subject, text};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::StorageError;
use crate::database::Query;
use crate::experiments::rows::fetch;

mod claim;
mod counts;
mod record;

pub use claim::{Delivery, Target, claim};
pub(crate) use record::bury;
pub use record::{Answer, End, Limits, Outcome, oldest_unsent, record};

/// One log row and one outbox row for each target. The same message for the same target is queued once, ever.
const ENQUEUE: &str = "-- outbox::enqueue
WITH logged AS (
    INSERT INTO notification_logs (user_id, config_id, channel, alert_level, alert_type, title, message,
        experiment_name, variant_name, message_key, dedup_key, action, metadata)
    SELECT c.user_id, c.id, c.channel, $1, $2, $3, $4, $5, $6, $7 || ':' || c.id, $8, 'trigger', '{}'
    FROM notification_configs c
    WHERE CASE WHEN $9::uuid IS NOT NULL THEN c.id = $9
               ELSE c.enabled AND c.channel = ANY ($10) AND c.id IS DISTINCT FROM $11
                    AND ($1 = ANY (c.alert_levels)
                         OR $14 AND c.user_id = (SELECT t.user_id FROM notification_configs t WHERE t.id = $11)) END
    ON CONFLICT (message_key) DO NOTHING
    RETURNING id, config_id)
INSERT INTO notification_outbox (id, config_id, dedup_key, action, urgency, payload, next_attempt_at)
SELECT l.id, l.config_id, $8, 'trigger', $12, $13::text::jsonb,
       CASE WHEN c.channel = 'pagerduty' OR $9 IS NOT NULL THEN now()
            ELSE podium_quiet_until(now(), c.quiet_from, c.quiet_to, c.quiet_zone) END
FROM logged l JOIN notification_configs c ON c.id = l.config_id
RETURNING id";

/// Closes the incident under the key $7 with every PagerDuty target that was told to open one, whatever its levels are
/// by now, and whatever became of it: a try without an answer may have arrived. What was closed is not closed again, nor
/// what the very message $10 opened that is being told twice.
const RESOLVE: &str = "-- outbox::resolve
WITH logged AS (
    INSERT INTO notification_logs (user_id, config_id, channel, alert_level, alert_type, title, message,
        experiment_name, variant_name, message_key, dedup_key, action, metadata)
    SELECT c.user_id, c.id, c.channel, $1, $2, $3, $4, $5, $6, opened.message_key || ':resolve', $7, 'resolve', '{}'
    FROM notification_configs c
    CROSS JOIN LATERAL (SELECT t.message_key FROM notification_logs t
                        WHERE t.channel = 'pagerduty' AND t.dedup_key = $7 AND t.config_id = c.id AND t.action = 'trigger'
                        ORDER BY t.created_at DESC, t.id LIMIT 1) opened
    WHERE c.enabled AND c.channel = 'pagerduty' AND opened.message_key IS DISTINCT FROM $10 || ':' || c.id
    ON CONFLICT (message_key) DO NOTHING
    RETURNING id, config_id)
INSERT INTO notification_outbox (id, config_id, dedup_key, action, urgency, payload, next_attempt_at)
SELECT id, config_id, $7, 'resolve', $8, $9::text::jsonb, now() FROM logged
RETURNING id";

/// Queues a message for everybody who wants it and returns the ids of the deliveries, one for each target; none when
/// nobody wants it or when the same message was queued before. Call it in the transaction that makes what the message
/// tells, so that they commit together. It reads and inserts rows and waits for no lock that a sender holds.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn enqueue(tx: &Transaction<'_>, message: &Message) -> Result<Vec<Uuid>, StorageError> {
    let mut queued = Vec::new();
    // First the end of the old incident: then the news, under the same key, opens a new one and pages again.
    if let Some(key) = message.closes() {
        queued.extend(resolve(tx, message, &key, Some(&message.key())).await?);
    }
    queued.extend(announce(tx, message).await?);
    Ok(queued)
}

const LISTENERS: &str = "-- outbox::listeners
SELECT count(*) AS listeners FROM notification_configs c
WHERE c.enabled AND c.channel = ANY ($1) AND $2 = ANY (c.alert_levels)";

/// How many targets would hear a message of this level on these channels.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn listeners(
    link: &mut impl Query,
    channels: &[Channel],
    level: Level,
) -> Result<usize, StorageError> {
    let names: Vec<&str> = channels.iter().map(|channel| channel.name()).collect();
    let row = link.query_opt(LISTENERS, &[&names, &level.name()]).await?;
    let count: i64 = row.map_or(Ok(0), |row| {
        crate::rows::column(&row, "notification_configs", "listeners")
    })?;
    Ok(usize::try_from(count).unwrap_or_default())
}

async fn announce(tx: &Transaction<'_>, message: &Message) -> Result<Vec<Uuid>, StorageError> {
    let (only, all_but) = match &message.audience {
        Audience::Channels(_) => (None, None),
        Audience::AllBut(target) | Audience::LeftBy(target) => (None, Some(*target)),
        Audience::Only(target) => (Some(*target), None),
    };
    let key = message.subject.dedup_key();
    // Whoever tries a target out waits for the answer.
    let urgency = only.map_or_else(|| urgency(message.level), |_| TRIED_OUT);
    let channels = channels(message);
    let payload = payload(message)?;
    let also_owner = matches!(message.audience, Audience::LeftBy(_));
    let rest: [&(dyn ToSql + Sync); 8] = [
        &message.key(),
        &key,
        &only,
        &channels,
        &all_but,
        &urgency,
        &payload,
        &also_owner,
    ];
    insert(tx, ENQUEUE, message, &rest).await
}

/// Closes the incidents that dead letters, and tests, opened about a target: it takes messages again, or somebody has changed
/// or deleted it. The next one pages anew.
///
/// # Errors
/// As [`enqueue`].
pub(crate) async fn settle(
    tx: &Transaction<'_>,
    target: Uuid,
    now: DateTime<Utc>,
) -> Result<(), StorageError> {
    let over = Message {
        reason: Some("over: the target takes messages again, or was changed".into()),
        ..Message::new(
            Event::DeadLetter,
            Level::Warning,
            Subject::Target(target),
            now,
        )
    };
    close(tx, &over).await
}

/// Closes the incident about the message's subject where one was opened, and tells nobody else.
///
/// # Errors
/// As [`enqueue`].
pub async fn close(tx: &Transaction<'_>, message: &Message) -> Result<(), StorageError> {
    resolve(tx, message, &message.subject.dedup_key(), None).await?;
    Ok(())
}

async fn resolve(
    tx: &Transaction<'_>,
    message: &Message,
    key: &str,
    told: Option<&str>,
) -> Result<Vec<Uuid>, StorageError> {
    let (urgency, payload) = (urgency(message.level), payload(message)?);
    let rest: [&(dyn ToSql + Sync); 4] = [&key, &urgency, &payload, &told];
    insert(tx, RESOLVE, message, &rest).await
}

/// Runs one of the two statements: both log the message in the columns $1 to $6 and have parameters of their own behind.
async fn insert(
    tx: &Transaction<'_>,
    statement: &'static str,
    message: &Message,
    rest: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Uuid>, StorageError> {
    let (level, event) = (message.level.name(), message.event.name());
    let title = text::title(message.event);
    let sentence = storable(&text::sentence(message));
    let experiment = message.experiment.as_ref().map(|named| &named.name);
    let variant = message.variant.as_ref().map(|named| &named.name);
    let logged: [&(dyn ToSql + Sync); 6] =
        [&level, &event, &title, &sentence, &experiment, &variant];
    let rows = fetch(tx, statement, &[&logged[..], rest].concat()).await?;
    rows.iter().map(delivery_id).collect()
}

/// Channels that hear the news itself; what only closes an incident opens none.
fn channels(message: &Message) -> Vec<&'static str> {
    let wanted = match &message.audience {
        Audience::Channels(channels) => channels.as_slice(),
        Audience::AllBut(_) | Audience::LeftBy(_) | Audience::Only(_) => Channel::ALL,
    };
    wanted
        .iter()
        .filter(|channel| **channel != Channel::Pagerduty || !message.only_closes())
        .map(|channel| channel.name())
        .collect()
}

/// Above every level: it passes the backlog of its target, and the pauses that we make on our own.
const TRIED_OUT: i16 = 3;

const fn urgency(level: Level) -> i16 {
    match level {
        Level::Info => 0,
        Level::Warning => 1,
        Level::Critical => 2,
    }
}

/// What PostgreSQL can hold: a text with U+0000, perhaps of somebody's error, must not fail the transaction that tells it.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn payload(message: &Message) -> Result<String, StorageError> {
    let json = serde_json::to_string(message).map_err(|_| StorageError::CorruptRow {
        table: "notification_outbox",
        column: "payload",
    })?;
    Ok(json.replace("\\u0000", "\\ufffd"))
}

fn delivery_id(row: &tokio_postgres::Row) -> Result<Uuid, StorageError> {
    crate::rows::column(row, "notification_outbox", "id")
}
