//! How a try went.

use std::time::Duration;

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::notification::{Audience, Event, Level, Message, Subject, text};
use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::Delivery;
use super::counts::{TryResult, count, count_dead};
use crate::audit::{self, Origin};
use crate::experiments::rows::fetch;
use crate::rows::column;
use crate::{Database, StorageError};

/// Why a message of a disabled target is given up.
pub(super) const DISABLED: &str = "the target was disabled";
/// Addresses that refuse this many messages in a row for good are disabled.
const REFUSALS: i32 = 3;

/// What the other side said, for `notification_logs.response_data`. Without secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Status of HTTP or SMTP; `None` when there was no answer.
    pub status: Option<u16>,
    /// The beginning of the answer.
    pub text: String,
}

/// How a try went.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It arrived.
    Sent {
        /// What the other side said.
        answer: Answer,
        /// The target gets nothing before this has passed.
        gap: Duration,
    },
    /// It may arrive later.
    Retry {
        /// What went wrong, for people.
        reason: String,
        /// What the other side said.
        answer: Answer,
        /// When to try this message again.
        delay: Duration,
        /// When to send this target anything again.
        pause: Option<Duration>,
    },
    /// It will never arrive.
    Dead {
        /// What went wrong, for people.
        reason: String,
        /// What the other side said.
        answer: Answer,
        /// What follows for others.
        end: End,
        /// When to send this target anything again.
        pause: Option<Duration>,
    },
}

/// What else ends with a message that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing.
    Message,
    /// The address refused it: after three in a row the target is disabled.
    Refusal,
    /// The target does not exist any more: it is disabled.
    Target,
    /// Nothing can be sent over the e-mail account.
    Account,
}

/// The breaker of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures in a row after which a target is only probed.
    pub failures: i32,
    /// How often.
    pub probe_every: Duration,
}

/// Answers whether the target had failed before, as the statement found it.
const SENT: &str = "-- outbox::sent
WITH gone AS (
    DELETE FROM notification_outbox WHERE id = $1 AND lease = $2 RETURNING id, config_id, attempts),
logged AS (
    UPDATE notification_logs l SET status = 'sent', sent_at = now(), attempts = gone.attempts, error_message = NULL,
        response_data = $3
    FROM gone WHERE l.id = gone.id),
freed AS (
    UPDATE notification_configs c SET failures_in_row = 0, refusals_in_row = 0, failing_since = NULL, leased_until = NULL,
        probe_at = NULL, paused_until = now() + make_interval(secs => $4)
    FROM gone WHERE c.id = gone.config_id)
SELECT coalesce(c.failures_in_row > 0, false) AS failed_before
FROM gone LEFT JOIN notification_configs c ON c.id = gone.config_id";

/// What follows about the same thing waits with it (`claim`). A target that somebody changed during the try, whose version is
/// not $9 any more, does not wait for what the old one asked for.
const RETRY: &str = "-- outbox::retry
WITH again AS (
    UPDATE notification_outbox o
    SET next_attempt_at = now() + make_interval(secs => CASE WHEN EXISTS (
            SELECT 1 FROM notification_configs c WHERE c.id = o.config_id AND c.updated_at <> $9) THEN 0 ELSE $3::float8 END),
        lease = NULL, leased_until = NULL
    WHERE id = $1 AND lease = $2 RETURNING id, config_id, attempts),
logged AS (
    UPDATE notification_logs l SET attempts = again.attempts, error_message = $4, response_data = $5
    FROM again WHERE l.id = again.id)
UPDATE notification_configs c
SET failures_in_row = c.failures_in_row + 1, failing_since = coalesce(c.failing_since, now()), leased_until = NULL,
    paused_until = CASE WHEN c.updated_at <> $9 THEN c.paused_until ELSE now() + make_interval(secs => $6) END,
    probe_at = CASE WHEN c.updated_at <> $9 THEN c.probe_at
                    WHEN c.failures_in_row + 1 >= $7 THEN now() + make_interval(secs => $8) END
FROM again WHERE c.id = again.config_id
RETURNING c.enabled, c.channel = 'webhook' AND c.failing_since < now() - interval '5 days' AS hopeless";

const DEAD: &str = "-- outbox::dead
WITH gone AS (
    UPDATE notification_outbox SET dead_at = now(), lease = NULL, leased_until = NULL
    WHERE id = $1 AND ($2::uuid IS NULL OR lease = $2) RETURNING id, config_id, attempts),
logged AS (
    UPDATE notification_logs l SET status = 'failed', attempts = gone.attempts, error_message = $3, response_data = $4
    FROM gone WHERE l.id = gone.id)
UPDATE notification_configs c
SET failures_in_row = c.failures_in_row + 1, failing_since = coalesce(c.failing_since, now()), leased_until = NULL,
    refusals_in_row = c.refusals_in_row + $5,
    paused_until = CASE WHEN c.updated_at = $9 THEN coalesce(now() + make_interval(secs => $8), c.paused_until)
                        ELSE c.paused_until END,
    probe_at = CASE WHEN c.failures_in_row + 1 >= $6 THEN now() + make_interval(secs => $7) END
FROM gone WHERE c.id = gone.config_id
RETURNING c.refusals_in_row";

/// Only as the try found it: what somebody changed meanwhile has not refused anything yet.
const DISABLE: &str = "-- outbox::disable
UPDATE notification_configs
SET enabled = false, disabled_reason = $2, updated_at = greatest(now(), updated_at + interval '1 microsecond')
WHERE id = $1 AND enabled AND updated_at = $3 RETURNING id";

/// Gives up what waits for a target. What a sender has in hand is the sender's to record, unless $3 says otherwise.
const BURY: &str = "-- outbox::bury
WITH gone AS (
    UPDATE notification_outbox SET dead_at = now(), lease = NULL, leased_until = NULL
    WHERE config_id = $1 AND dead_at IS NULL AND ($3 OR leased_until IS NULL OR leased_until <= now()) RETURNING id)
UPDATE notification_logs l SET status = 'failed', error_message = $2 FROM gone WHERE l.id = gone.id
RETURNING l.channel";

const BURY_MAIL: &str = "-- outbox::bury_mail
WITH gone AS (
    UPDATE notification_outbox o SET dead_at = now()
    FROM notification_configs c
    WHERE c.id = o.config_id AND c.channel = 'email' AND o.dead_at IS NULL
      AND (o.leased_until IS NULL OR o.leased_until <= now()) RETURNING o.id)
UPDATE notification_logs l SET status = 'failed', error_message = $1 FROM gone WHERE l.id = gone.id
RETURNING l.channel";

/// Ends a try and frees its target. A try whose lease was taken over has nothing to say any more.
///
/// # Errors
/// [`StorageError`] when the database does not answer; the lease then runs out and the message is sent again.
pub async fn record(
    database: &Database,
    delivery: &Delivery,
    outcome: &Outcome,
    limits: Limits,
    now: DateTime<Utc>,
) -> Result<(), StorageError> {
    let mut link = database.serve().await?;
    let done = timeout(link.limit(), async {
        let tx = link.object_mut()?.transaction().await?;
        match outcome {
            Outcome::Sent { answer, gap } => sent(&tx, delivery, answer, *gap, now).await?,
            Outcome::Retry {
                reason,
                answer,
                delay,
                pause,
            } => {
                let later = Later {
                    reason,
                    answer,
                    delay: *delay,
                    pause: *pause,
                };
                retry(&tx, delivery, &later, limits, now).await?;
            }
            Outcome::Dead {
                reason,
                answer,
                end,
                pause,
            } => {
                let lost = Lost {
                    lease: Some(delivery.lease),
                    reason,
                    answer,
                    end: *end,
                    pause: *pause,
                };
                give_up(&tx, delivery, &lost, limits, now).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    })
    .await;
    link.settle(done)
}

async fn sent(
    tx: &Transaction<'_>,
    delivery: &Delivery,
    answer: &Answer,
    gap: Duration,
    now: DateTime<Utc>,
) -> Result<(), StorageError> {
    let gap = gap.as_secs_f64();
    let sent: [&(dyn ToSql + Sync); 4] = [&delivery.id, &delivery.lease, &Json(answer), &gap];
    let rows = fetch(tx, SENT, &sent).await?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    let failed_before: bool = column(row, "notification_configs", "failed_before")?;
    if failed_before {
        super::settle(tx, delivery.config_id, now).await?;
    } else if delivery.message.event == Event::Test {
        // A trial that arrived is over with that.
        super::close(tx, &delivery.message).await?;
    }
    count(tx, delivery.channel, &[TryResult::Sent]).await
}

struct Later<'a> {
    reason: &'a str,
    answer: &'a Answer,
    delay: Duration,
    pause: Option<Duration>,
}

async fn retry(
    tx: &Transaction<'_>,
    delivery: &Delivery,
    later: &Later<'_>,
    limits: Limits,
    now: DateTime<Utc>,
) -> Result<(), StorageError> {
    let rows = fetch(
        tx,
        RETRY,
        &[
            &delivery.id,
            &delivery.lease,
            &later.delay.as_secs_f64(),
            &later.reason,
            &Json(later.answer),
            &later.pause.map(|pause| pause.as_secs_f64()),
            &limits.failures,
            &limits.probe_every.as_secs_f64(),
            &delivery.version,
        ],
    )
    .await?;
    let Some(row) = rows.first() else {
        return Ok(());
    };
    if !column::<bool>(row, "notification_configs", "enabled")? {
        // Whoever disabled it gave up what waited, and left this one to its sender.
        bury(tx, delivery.config_id, DISABLED, false).await?;
        return count(tx, delivery.channel, &[TryResult::Failed]).await;
    }
    if column(row, "notification_configs", "hopeless")? {
        let reason = format!("five days without a success; last: {}", later.reason);
        let lost = Lost {
            lease: None,
            reason: &reason,
            answer: later.answer,
            end: End::Target,
            pause: None,
        };
        return give_up(tx, delivery, &lost, limits, now).await;
    }
    let results = [TryResult::Failed, TryResult::Retried];
    count(tx, delivery.channel, &results).await
}

/// A message that is given up; without a lease whoever has it.
struct Lost<'a> {
    lease: Option<Uuid>,
    reason: &'a str,
    answer: &'a Answer,
    end: End,
    pause: Option<Duration>,
}

async fn give_up(
    tx: &Transaction<'_>,
    delivery: &Delivery,
    lost: &Lost<'_>,
    limits: Limits,
    now: DateTime<Utc>,
) -> Result<(), StorageError> {
    let (reason, answer, end) = (lost.reason, lost.answer, lost.end);
    let refusal = i32::from(end == End::Refusal);
    let rows = fetch(
        tx,
        DEAD,
        &[
            &delivery.id,
            &lost.lease,
            &reason,
            &Json(answer),
            &refusal,
            &limits.failures,
            &limits.probe_every.as_secs_f64(),
            &lost.pause.map(|pause| pause.as_secs_f64()),
            &delivery.version,
        ],
    )
    .await?;
    // Without a row the lease was lost, or the target was deleted meanwhile; the log says what is true either way.
    let Some(row) = rows.first() else {
        return Ok(());
    };
    let refusals: i32 = column(row, "notification_configs", "refusals_in_row")?;
    let disabled = match end {
        End::Target => disable(tx, delivery, reason).await?,
        End::Refusal if refusals >= REFUSALS => disable(tx, delivery, reason).await?,
        End::Account => {
            count_dead(tx, &fetch(tx, BURY_MAIL, &[&reason]).await?).await?;
            false
        }
        End::Message | End::Refusal => false,
    };
    let results = [TryResult::Dead, TryResult::Failed];
    count(tx, delivery.channel, &results).await?;
    tell(tx, delivery, answer.status, disabled, now).await
}

/// Disables the target that the try went to, and says whether it did.
async fn disable(
    tx: &Transaction<'_>,
    delivery: &Delivery,
    reason: &str,
) -> Result<bool, StorageError> {
    let (id, version) = (&delivery.config_id, &delivery.version);
    if fetch(tx, DISABLE, &[id, &reason, version])
        .await?
        .is_empty()
    {
        return Ok(false);
    }
    bury(tx, delivery.config_id, DISABLED, false).await?;
    let origin = Origin {
        actor: "podium".into(),
        request_id: delivery.id.to_string(),
        address: None,
    };
    let subject = audit::Subject::new("notification_config", "disable", &delivery.config_id, None);
    let why = serde_json::json!({"enabled": false, "disabledReason": reason}).to_string();
    let before = serde_json::json!({"enabled": true}).to_string();
    audit::append(tx, &origin, &subject, Some(before), Some(why)).await?;
    Ok(true)
}

/// Gives up whatever waits for a target; `in_hand`: also what a sender is at work on.
pub(crate) async fn bury(
    tx: &Transaction<'_>,
    config_id: Uuid,
    reason: &str,
    in_hand: bool,
) -> Result<(), StorageError> {
    let buried = fetch(tx, BURY, &[&config_id, &reason, &in_hand]).await?;
    count_dead(tx, &buried).await
}

/// Tells the others. Neither a trial nor this very news is worth a message of its own, unless a target ends with it. What
/// the other side said stays in the owner's log: it may hold somebody's address.
async fn tell(
    tx: &Transaction<'_>,
    delivery: &Delivery,
    status: Option<u16>,
    disabled: bool,
    now: DateTime<Utc>,
) -> Result<(), StorageError> {
    if !disabled && matches!(delivery.message.event, Event::Test | Event::DeadLetter) {
        return Ok(());
    }
    let lost = text::title(delivery.message.event);
    let said = status.map_or_else(
        || "no answer".to_owned(),
        |status| format!("status {status}"),
    );
    let fate = if disabled {
        "; the target was disabled"
    } else {
        ""
    };
    let target = delivery.config_id;
    let news = Message {
        experiment: delivery.message.experiment.clone(),
        reason: Some(format!(
            "{} of user {}: {lost}: {said}{fate}",
            delivery.channel, delivery.user_id
        )),
        audience: if disabled {
            Audience::LeftBy(target)
        } else {
            Audience::AllBut(target)
        },
        ..Message::new(
            Event::DeadLetter,
            Level::Warning,
            Subject::Target(target),
            now,
        )
    };
    super::enqueue(tx, &news).await?;
    Ok(())
}

const OLDEST: &str = "-- outbox::oldest
SELECT extract(epoch FROM now() - min(o.created_at))::float8 AS seconds
FROM notification_outbox o JOIN notification_configs c ON c.id = o.config_id
WHERE o.dead_at IS NULL AND c.enabled AND (o.attempts > 0 OR o.next_attempt_at <= now())";

/// How long the oldest message waits that should have been sent; `None` when there is none. What waits for the end of
/// somebody's quiet hours does not count.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn oldest_unsent(database: &Database) -> Result<Option<Duration>, StorageError> {
    let row = database.work().await?.query_opt(OLDEST, &[]).await?;
    let seconds: Option<f64> = match &row {
        Some(row) => column(row, "notification_outbox", "seconds")?,
        None => None,
    };
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()))
}
