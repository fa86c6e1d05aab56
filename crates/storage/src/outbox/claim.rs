//! Taking deliveries to send.

use std::time::Duration;

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::notification::{Channel, Message};
use tokio::time::timeout;
use tokio_postgres::Row;
use uuid::Uuid;

use super::counts::count_dead;
use super::record::DISABLED;
use crate::experiments::rows::fetch;
use crate::rows::column;
use crate::{Database, StorageError};

/// Where a delivery goes, with what opens the door there: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Slack, webhook: the address, which for Slack is the credential.
    pub webhook_url: Option<String>,
    /// Webhook: the secret that signs.
    pub api_key: Option<String>,
    /// Webhook: the secret before, while receivers rotate.
    pub previous_api_key: Option<String>,
    /// E-mail: the recipient.
    pub email_address: Option<String>,
    /// PagerDuty: the integration key.
    pub routing_key: Option<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Target(..)")
    }
}

/// A message on its way to one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The same in every try.
    pub id: Uuid,
    /// This try.
    pub lease: Uuid,
    /// Configuration of the target.
    pub config_id: Uuid,
    /// Whose it is.
    pub user_id: String,
    /// How it is sent.
    pub channel: Channel,
    /// Whether it closes PagerDuty's incident instead of opening one.
    pub resolve: bool,
    /// What it is about: `promotion:<id>`.
    pub dedup_key: String,
    /// Number of this try, from 1.
    pub attempt: u32,
    /// What to tell.
    pub message: Message,
    /// Where to.
    pub target: Target,
    /// The version of the configuration that this was read from.
    pub version: DateTime<Utc>,
}

/// Whether a message `o` is due, and no older one about the same thing waits for its time before it: what is about one thing
/// arrives in order, and nobody but its own time ends the wait of what failed. Asked when messages are taken, because one may
/// be queued while the older one is on its way.
macro_rules! due {
    () => {
        "o.dead_at IS NULL AND o.next_attempt_at <= now()
             AND NOT EXISTS (SELECT 1 FROM notification_outbox before
                             WHERE before.config_id = o.config_id AND before.dedup_key = o.dedup_key
                               AND before.seq < o.seq AND before.dead_at IS NULL AND before.next_attempt_at > now())"
    };
}

/// Targets with something due that no sender is at work on and that may be sent to now: first those that somebody tries out,
/// then those that took their last message, so that the others do not hold them up, then by the oldest message. Who tries a
/// target out does not wait for our own probing either. A lease is a column, not a lock, because nothing is locked while a
/// message is sent.
const FREE: &str = concat!(
    "-- outbox::free
SELECT c.id FROM notification_configs c
CROSS JOIN LATERAL (SELECT min(o.next_attempt_at) AS since, max(o.urgency) = 3 AS is_tried_out FROM notification_outbox o
                    WHERE o.config_id = c.id AND ",
    due!(),
    ") due
WHERE c.enabled AND due.since IS NOT NULL
  AND (c.leased_until IS NULL OR c.leased_until <= now()) AND (c.paused_until IS NULL OR c.paused_until <= now())
  AND (c.probe_at IS NULL OR c.probe_at <= now() OR due.is_tried_out)
  AND (SELECT count(*) FROM notification_logs l
       WHERE l.user_id = c.user_id AND l.sent_at > now() - interval '1 minute') < $2
ORDER BY due.is_tried_out DESC, c.failures_in_row > 0, due.since LIMIT $1 FOR UPDATE OF c SKIP LOCKED"
);

/// The most urgent message that is due for each target, or an older one about the same thing, due as well, that must go
/// before it. A statement of its own: it must see what others had committed by the time the targets were locked.
const TAKE: &str = concat!(
    "-- outbox::take
WITH head AS (
    SELECT first.id FROM unnest($1::uuid[]) AS free (id),
    LATERAL (SELECT o.dedup_key FROM notification_outbox o
             WHERE o.config_id = free.id AND ",
    due!(),
    "
             ORDER BY o.urgency DESC, o.seq LIMIT 1) due,
    LATERAL (SELECT o.id FROM notification_outbox o
             WHERE o.config_id = free.id AND o.dead_at IS NULL AND o.dedup_key = due.dedup_key
             ORDER BY o.seq LIMIT 1) first),
taken AS (
    UPDATE notification_outbox o
    SET lease = gen_random_uuid(), leased_until = now() + make_interval(secs => $2), attempts = o.attempts + 1
    FROM head WHERE o.id = head.id
    RETURNING o.id, o.lease, o.config_id, o.action, o.dedup_key, o.attempts, o.payload::text AS payload),
leased AS (
    UPDATE notification_configs c SET leased_until = now() + make_interval(secs => $2)
    FROM taken t WHERE c.id = t.config_id)
SELECT t.*, c.updated_at AS version, c.user_id, c.channel, c.webhook_url, c.api_key, c.email_address, c.routing_key,
       CASE WHEN c.previous_api_key_until > now() THEN c.previous_api_key END AS previous_api_key
FROM taken t JOIN notification_configs c ON c.id = t.config_id"
);

/// What was queued while its target was being disabled, or was in the hands of a process that died.
const BURY_DISABLED: &str = "-- outbox::bury_disabled
WITH lost AS (
    SELECT o.id FROM notification_outbox o JOIN notification_configs c ON c.id = o.config_id
    WHERE NOT c.enabled AND o.dead_at IS NULL AND (o.leased_until IS NULL OR o.leased_until <= now())
    FOR UPDATE OF o SKIP LOCKED),
gone AS (UPDATE notification_outbox o SET dead_at = now() FROM lost WHERE o.id = lost.id RETURNING o.id)
UPDATE notification_logs l SET status = 'failed', error_message = $1 FROM gone WHERE l.id = gone.id
RETURNING l.channel";

/// What nobody can read is given up at once, or it would stop its target for ever.
const GIVE_UP: &str = "-- outbox::give_up
WITH gone AS (
    UPDATE notification_outbox SET dead_at = now(), lease = NULL, leased_until = NULL WHERE id = $1
    RETURNING id, config_id),
freed AS (UPDATE notification_configs c SET leased_until = NULL FROM gone WHERE c.id = gone.config_id)
UPDATE notification_logs l SET status = 'failed', error_message = 'the message cannot be read' FROM gone WHERE l.id = gone.id
RETURNING l.channel";

/// Takes at most `room` deliveries, at most one for each target, for `lease`; nobody else takes them or sends to their
/// targets until then, or until [`super::record`]. Users who got `per_user` messages within a minute wait.
///
/// # Errors
/// [`StorageError`] when the database does not answer; then nothing is taken.
pub async fn claim(
    database: &Database,
    room: usize,
    per_user: u32,
    lease: Duration,
) -> Result<Vec<Delivery>, StorageError> {
    let room = i64::try_from(room).unwrap_or(i64::MAX);
    let mut link = database.serve().await?;
    let outcome = timeout(link.limit(), async {
        let tx = link.object_mut()?.transaction().await?;
        count_dead(&tx, &fetch(&tx, BURY_DISABLED, &[&DISABLED]).await?).await?;
        let free = fetch(&tx, FREE, &[&room, &i64::from(per_user)]).await?;
        if free.is_empty() {
            tx.commit().await?;
            return Ok(Vec::new());
        }
        let free: Result<Vec<Uuid>, StorageError> = free
            .iter()
            .map(|row| column(row, "notification_configs", "id"))
            .collect();
        let taken = take(&tx, &free?, lease).await?;
        tx.commit().await?;
        Ok(taken)
    })
    .await;
    link.settle(outcome)
}

async fn take(
    tx: &Transaction<'_>,
    targets: &[Uuid],
    lease: Duration,
) -> Result<Vec<Delivery>, StorageError> {
    let mut deliveries = Vec::new();
    for row in fetch(tx, TAKE, &[&targets, &lease.as_secs_f64()]).await? {
        match delivery(&row) {
            Ok(delivery) => deliveries.push(delivery),
            Err(error) => {
                let id: Uuid = column(&row, T, "id")?;
                tracing::error!(delivery = %id, error = %error.chain(), "a message was given up");
                count_dead(tx, &fetch(tx, GIVE_UP, &[&id]).await?).await?;
            }
        }
    }
    Ok(deliveries)
}

const T: &str = "notification_outbox";

fn delivery(row: &Row) -> Result<Delivery, StorageError> {
    let corrupt = |column| StorageError::CorruptRow { table: T, column };
    let channel: String = column(row, T, "channel")?;
    let payload: String = column(row, T, "payload")?;
    let attempts: i32 = column(row, T, "attempts")?;
    let action: String = column(row, T, "action")?;
    Ok(Delivery {
        id: column(row, T, "id")?,
        lease: column(row, T, "lease")?,
        config_id: column(row, T, "config_id")?,
        user_id: column(row, T, "user_id")?,
        channel: channel.parse().map_err(|_| corrupt("channel"))?,
        resolve: action == "resolve",
        dedup_key: column(row, T, "dedup_key")?,
        attempt: attempts.try_into().map_err(|_| corrupt("attempts"))?,
        message: serde_json::from_str(&payload).map_err(|_| corrupt("payload"))?,
        target: Target {
            webhook_url: column(row, T, "webhook_url")?,
            api_key: column(row, T, "api_key")?,
            previous_api_key: column(row, T, "previous_api_key")?,
            email_address: column(row, T, "email_address")?,
            routing_key: column(row, T, "routing_key")?,
        },
        version: column(row, T, "version")?,
    })
}
