//! Alerts: what happened within the last hour, which alerts are open, opening and closing them.
//!
//! Whoever evaluates does it for all experiments at once and under one lock, and hands over what should be open; the rest
//! is closed. A constraint keeps an alert from opening twice. Recent events are read as they are, from the blocks of the
//! last hour, once a minute by one process.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::alerts::{ExperimentHour, Finding, Kind, VariantHour};
use podium_domain::analysis::{self, EpochSplit};
use podium_domain::notification::{self, Audience, Event, Level, Message, Named, Subject};
use podium_domain::outcomes::Outcomes;
use tokio_postgres::Row;

use crate::analytics::outcomes::latencies;
use crate::database::{Link, Query};
use crate::experiments::rows::fetch;
use crate::rows::{column, decimal};
use crate::{StorageError, outbox};

/// Key of the advisory lock that lets one process open and close.
const LOCK_KEY: i64 = 0x706f_6469_756d_0008;

/// An alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Rises with time.
    pub id: i64,
    /// Experiment.
    pub experiment: Named,
    /// Variant; `None` for the experiment as a whole.
    pub variant: Option<Named>,
    /// What it is about.
    pub kind: String,
    /// How bad it is.
    pub level: Level,
    /// What was found when it opened.
    pub message: String,
    /// What was measured then.
    pub value: Option<f64>,
    /// What it was compared with.
    pub threshold: Option<f64>,
    /// When it opened.
    pub opened_at: DateTime<Utc>,
    /// When it closed; `None` while it is open.
    pub closed_at: Option<DateTime<Utc>>,
}

/// An experiment whose alerts are evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The experiment.
    pub experiment: Named,
    /// Names of its variants by id.
    pub variants: BTreeMap<i64, String>,
    /// What happened to it.
    pub hour: ExperimentHour,
}

/// Who was resumed within the hour has not run through it.
const EXPERIMENTS: &str = "-- alerts::experiments
SELECT e.id, e.name, e.status = 'running' AS is_running, e.start_date <= now() - interval '60 minutes' AND NOT EXISTS (
           SELECT 1 FROM audit_log l WHERE l.experiment_id = e.id AND l.action = 'experiment.resume'
               AND l.at > now() - interval '60 minutes') AS ran_the_hour,
       v.id AS variant_id, v.name AS variant_name, v.traffic_weight::text AS weight, coalesce(m.units, 0) AS units,
       coalesce(a.asked, 0) AS asked, coalesce(a.failed, 0) AS failed
FROM experiments e JOIN experiment_variants v ON v.experiment_id = e.id
LEFT JOIN LATERAL (
    SELECT sum(units)::bigint AS units
    FROM variant_moments m WHERE m.experiment_id = e.id AND m.variant_id = v.id) m ON true
LEFT JOIN LATERAL (
    SELECT sum(asked)::bigint AS asked, sum(failed)::bigint AS failed
    FROM assign_outcomes a WHERE a.experiment_id = e.id AND a.minute > now() - interval '60 minutes') a ON true
WHERE e.status = 'running'
   OR e.status = 'completed' AND EXISTS (
       SELECT 1 FROM experiment_promotions p JOIN promotion_rollouts r ON r.promotion_id = p.id
       WHERE p.experiment_id = e.id AND p.rollback_at IS NULL AND r.watch_hours > 0 AND r.watch_ended_at IS NULL)
ORDER BY e.id, v.id";

/// Units that the server drew in each epoch of the open analysis, with the weights that were in force, of running experiments:
/// what clients named follows no weights, but it must not switch the check off for the others. A restart of the analysis
/// leaves a broken split behind, here as in the safety checks, or its alert would never close.
const SPLITS: &str = "-- alerts::splits
SELECT e.experiment_id, e.epoch, w.key::bigint AS variant_id, w.value AS weight, greatest(coalesce(m.units - m.client_units, 0), 0) AS units
FROM experiment_epochs e JOIN experiments x ON x.id = e.experiment_id AND x.status = 'running'
CROSS JOIN LATERAL jsonb_each_text(e.weights) AS w (key, value)
LEFT JOIN variant_moments m
    ON m.experiment_id = e.experiment_id AND m.epoch = e.epoch AND m.variant_id = w.key::bigint
LEFT JOIN promotion_analyses o ON o.experiment_id = e.experiment_id AND o.closed_at IS NULL
WHERE e.epoch >= coalesce(o.from_epoch, 1)
ORDER BY 1, 2, 3";

const ACTIVITY: &str = "-- alerts::activity
WITH recent AS (
    SELECT experiment_id, variant_id, user_id, count(*) AS events, count(*) FILTER (WHERE event_type = 'request') AS requests,
           count(*) FILTER (WHERE event_type = 'request' AND is_error) AS errors
    FROM experiment_events WHERE created_at > now() - interval '60 minutes' AND NOT is_bot GROUP BY 1, 2, 3)
SELECT experiment_id, variant_id, sum(events)::bigint AS events, count(*) AS active_units,
       count(*) FILTER (WHERE requests > 0) AS requesting_units, count(*) FILTER (WHERE errors > 0) AS erring_units,
       sum(requests)::bigint AS requests, sum(errors)::bigint AS errors,
       sum(requests::double precision * requests) AS squared_requests,
       coalesce(sum(errors::double precision / requests) FILTER (WHERE requests > 0), 0) AS error_shares
FROM recent GROUP BY 1, 2";

const LATENCIES: &str = "-- alerts::latencies
SELECT experiment_id, variant_id, array_agg(bucket) AS buckets, array_agg(requests) AS counts
FROM (SELECT experiment_id, variant_id, podium_latency_bucket(latency_ms) AS bucket, count(*) AS requests
      FROM experiment_events
      WHERE created_at > now() - interval '60 minutes' AND NOT is_bot AND event_type = 'request' AND latency_ms IS NOT NULL
      GROUP BY 1, 2, 3) buckets
GROUP BY 1, 2";

/// What happened within the last hour to every experiment that runs or whose promotion is watched.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn observe(link: &mut Link) -> Result<Vec<Observed>, StorageError> {
    let mut active = activity(link).await?;
    let mut splits = splits(link).await?;
    let mut observed: Vec<Observed> = Vec::new();
    for row in link.query(EXPERIMENTS, &[]).await? {
        let id: i64 = column(&row, "experiments", "id")?;
        if observed.last().is_none_or(|last| last.experiment.id != id) {
            observed.push(experiment(&row, id)?);
        }
        let Some(last) = observed.last_mut() else {
            continue;
        };
        let variant_id: i64 = column(&row, "experiment_variants", "variant_id")?;
        let name = column(&row, "experiment_variants", "variant_name")?;
        last.variants.insert(variant_id, name);
        let activity = active.remove(&(id, variant_id)).unwrap_or_default();
        last.hour.events += activity.events;
        last.hour.variants.push(VariantHour {
            id: variant_id,
            share: decimal(&row, "experiment_variants", "weight")?.to_f64(),
            units: column(&row, "variant_moments", "units")?,
            active_units: activity.active_units,
            outcomes: activity.outcomes,
            error_shares: activity.error_shares,
        });
    }
    for one in &mut observed {
        let total: f64 = one.hour.variants.iter().map(|variant| variant.share).sum();
        for variant in &mut one.hour.variants {
            variant.share = if total > 0.0 {
                variant.share / total
            } else {
                0.0
            };
        }
        let splits = splits.remove(&one.experiment.id);
        one.hour.split_p = splits.and_then(|splits| analysis::split_p_value(&splits).ok());
    }
    Ok(observed)
}

fn experiment(row: &Row, id: i64) -> Result<Observed, StorageError> {
    const T: &str = "experiments";
    Ok(Observed {
        experiment: Named {
            id,
            name: column(row, T, "name")?,
        },
        variants: BTreeMap::new(),
        hour: ExperimentHour {
            is_running: column(row, T, "is_running")?,
            ran_the_hour: column::<Option<bool>>(row, T, "ran_the_hour")?.unwrap_or(false),
            events: 0,
            asked: column(row, "assign_outcomes", "asked")?,
            failed: column(row, "assign_outcomes", "failed")?,
            split_p: None,
            variants: Vec::new(),
        },
    })
}

#[derive(Default)]
struct Activity {
    events: i64,
    active_units: i64,
    outcomes: Outcomes,
    error_shares: f64,
}

async fn activity(link: &mut Link) -> Result<BTreeMap<(i64, i64), Activity>, StorageError> {
    const T: &str = "experiment_events";
    let mut found: BTreeMap<(i64, i64), Activity> = BTreeMap::new();
    for row in link.query(ACTIVITY, &[]).await? {
        let outcomes = Outcomes {
            units: column(&row, T, "requesting_units")?,
            erring_units: column(&row, T, "erring_units")?,
            requests: column(&row, T, "requests")?,
            errors: column(&row, T, "errors")?,
            squared_requests: column(&row, T, "squared_requests")?,
            ..Outcomes::default()
        };
        let activity = Activity {
            events: column(&row, T, "events")?,
            active_units: column(&row, T, "active_units")?,
            outcomes,
            error_shares: column(&row, T, "error_shares")?,
        };
        found.insert(key(&row)?, activity);
    }
    for row in link.query(LATENCIES, &[]).await? {
        if let Some(activity) = found.get_mut(&key(&row)?) {
            latencies(&row, T, &mut activity.outcomes)?;
        }
    }
    Ok(found)
}

fn key(row: &Row) -> Result<(i64, i64), StorageError> {
    const T: &str = "experiment_events";
    Ok((
        column(row, T, "experiment_id")?,
        column(row, T, "variant_id")?,
    ))
}

async fn splits(link: &mut Link) -> Result<BTreeMap<i64, Vec<EpochSplit>>, StorageError> {
    const T: &str = "experiment_epochs";
    let mut found: BTreeMap<i64, Vec<EpochSplit>> = BTreeMap::new();
    let mut last = None;
    for row in link.query(SPLITS, &[]).await? {
        let id: i64 = column(&row, T, "experiment_id")?;
        let epoch: i32 = column(&row, T, "epoch")?;
        let epochs = found.entry(id).or_default();
        if last.replace((id, epoch)) != Some((id, epoch)) {
            epochs.push(EpochSplit {
                counts: Vec::new(),
                weights: Vec::new(),
            });
        }
        if let Some(split) = epochs.last_mut() {
            let units: i64 = column(&row, "variant_moments", "units")?;
            #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
            split.counts.push(units as f64);
            split.weights.push(decimal(&row, T, "weight")?.to_f64());
        }
    }
    Ok(found)
}

/// An alert that should be open, with the names that people read.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The experiment.
    pub experiment: Named,
    /// The variant.
    pub variant: Option<Named>,
    /// What was found.
    pub finding: Finding,
}

impl Observed {
    /// Findings with their names.
    #[must_use]
    pub fn named(&self, finding: Finding) -> Wanted {
        let variant = finding.variant_id.map(|id| Named {
            id,
            name: self.variants.get(&id).cloned().unwrap_or_default(),
        });
        Wanted {
            experiment: self.experiment.clone(),
            variant,
            finding,
        }
    }
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reconciled {
    /// Alerts that opened.
    pub opened: Vec<Alert>,
    /// Alerts that closed.
    pub closed: Vec<Alert>,
    /// Whether another process was at it, so that nothing was done.
    pub busy: bool,
}

macro_rules! alert_columns {
    () => {
        "id, experiment_id, experiment_name, variant_id, variant_name, kind, level, message, value, threshold, opened_at, closed_at"
    };
}

const OPEN: &str = concat!(
    "-- alerts::open\nINSERT INTO alerts (experiment_id, experiment_name, variant_id, variant_name, kind, level, message, value, threshold)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING ",
    alert_columns!()
);

const OPENED: &str = concat!(
    "-- alerts::opened\nSELECT ",
    alert_columns!(),
    " FROM alerts WHERE closed_at IS NULL ORDER BY id FOR UPDATE"
);

const CLOSE: &str = concat!(
    "-- alerts::close\nUPDATE alerts SET closed_at = now() WHERE id = $1 AND closed_at IS NULL RETURNING ",
    alert_columns!()
);

const LIST: &str = concat!(
    "-- alerts::list\nSELECT ",
    alert_columns!(),
    " FROM alerts WHERE ($1::bigint IS NULL OR experiment_id = $1) AND ($2::boolean IS NULL OR (closed_at IS NULL) = $2)
  AND ($3::text IS NULL OR level = $3) AND ($4::bigint IS NULL OR id < $4) ORDER BY id DESC LIMIT $5"
);

/// Newest first; far more than a year's worth of anything that is tolerated.
const CRITICAL: &str = "-- alerts::critical
SELECT variant_id, closed_at FROM alerts
WHERE experiment_id = $1 AND level = 'critical' ORDER BY id DESC LIMIT 1000";

const COUNTS: &str = "-- alerts::counts
SELECT level, count(*) AS alerts FROM alerts WHERE closed_at IS NULL GROUP BY 1";

const CONFIGS: &str = "-- alerts::configs
SELECT id, config::text AS config FROM experiments WHERE id = ANY ($1)";

/// Who is to hear of an alert of this level, by the configuration of its experiment as JSON; `None` for one that is gone.
pub type Listeners<'l> = dyn Fn(Level, Option<&str>) -> Audience + Sync + 'l;

/// Opens what is wanted and not open, closes what is open and not wanted any more, and queues the news of both for those
/// whom `tell` names; without it they are only listed. What the guards said of the experiments `unread` stays as it is,
/// because nobody knows better.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read; nothing changed then.
pub async fn reconcile(
    transaction: &Transaction<'_>,
    wanted: &[Wanted],
    unread: &[i64],
    tell: Option<&Listeners<'_>>,
) -> Result<Reconciled, StorageError> {
    const LOCK: &str = "-- alerts::lock\nSELECT pg_try_advisory_xact_lock($1) AS locked";
    let locked = fetch(transaction, LOCK, &[&LOCK_KEY]).await?;
    let row = locked.first().ok_or(StorageError::CorruptRow {
        table: "alerts",
        column: "locked",
    })?;
    if !column::<bool>(row, "alerts", "locked")? {
        return Ok(Reconciled {
            busy: true,
            ..Reconciled::default()
        });
    }
    let rows = fetch(transaction, OPENED, &[]).await?;
    let open: Result<Vec<Alert>, StorageError> = rows.iter().map(alert).collect();
    let open = open?;
    let mut done = Reconciled::default();
    let unknown = |old: &Alert| of_guard(old) && unread.contains(&old.experiment.id);
    for old in open
        .iter()
        .filter(|old| !unknown(old) && !wanted.iter().any(|new| same(old, new)))
    {
        let rows = fetch(transaction, CLOSE, &[&old.id]).await?;
        done.closed.extend(read_all(&rows)?);
    }
    for new in wanted
        .iter()
        .filter(|new| !open.iter().any(|old| same(old, new)))
    {
        let finding = &new.finding;
        let rows = fetch(
            transaction,
            OPEN,
            &[
                &new.experiment.id,
                &new.experiment.name,
                &finding.variant_id,
                &new.variant.as_ref().map(|variant| &variant.name),
                &finding.kind.name(),
                &finding.level.name(),
                &finding.message,
                &finding.value,
                &finding.threshold,
            ],
        )
        .await?;
        done.opened.extend(read_all(&rows)?);
    }
    if let Some(tell) = tell {
        announce(transaction, &done, tell).await?;
    }
    Ok(done)
}

async fn announce(
    transaction: &Transaction<'_>,
    done: &Reconciled,
    tell: &Listeners<'_>,
) -> Result<(), StorageError> {
    let closed = done.closed.iter().map(|alert| (alert, Event::AlertClosed));
    let opened = done.opened.iter().map(|alert| (alert, Event::AlertOpened));
    let news: Vec<(&Alert, Event)> = closed.chain(opened).collect();
    let ids: Vec<i64> = news.iter().map(|(alert, _)| alert.experiment.id).collect();
    let mut configs: BTreeMap<i64, String> = BTreeMap::new();
    if !ids.is_empty() {
        for row in fetch(transaction, CONFIGS, &[&ids]).await? {
            let id = column(&row, "experiments", "id")?;
            configs.insert(id, column(&row, "experiments", "config")?);
        }
    }
    for (alert, event) in news {
        let message = alert.message(event);
        let config = configs.get(&alert.experiment.id).map(String::as_str);
        let message = Message {
            audience: tell(message.level, config),
            ..message
        };
        outbox::enqueue(transaction, &message).await?;
    }
    Ok(())
}

/// Whether an alert comes from the guard of a promotion, and not from the last hour.
fn of_guard(alert: &Alert) -> bool {
    let of_guard = [
        Kind::GuardConversion,
        Kind::GuardErrors,
        Kind::SiteErrors,
        Kind::ConversionBefore,
    ];
    of_guard.iter().any(|kind| alert.kind == kind.name())
}

fn same(old: &Alert, new: &Wanted) -> bool {
    old.experiment.id == new.experiment.id
        && old.variant.as_ref().map(|variant| variant.id) == new.finding.variant_id
        && old.kind == new.finding.kind.name()
        && old.level == new.finding.level
}

impl Alert {
    /// What people are told.
    #[must_use]
    pub fn message(&self, event: Event) -> Message {
        let at = self.closed_at.unwrap_or(self.opened_at);
        // Good news is no page.
        let level = if event == Event::AlertClosed {
            Level::Info
        } else {
            self.level
        };
        Message {
            experiment: Some(self.experiment.clone()),
            variant: self.variant.clone(),
            alert: Some(notification::Alert {
                kind: self.kind.clone(),
                message: self.message.clone(),
                value: self.value,
                threshold: self.threshold,
            }),
            ..Message::new(event, level, Subject::Alert(self.id), at)
        }
    }
}

/// Which alerts are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those of this experiment.
    pub experiment_id: Option<i64>,
    /// Only open ones, or only closed ones.
    pub open: Option<bool>,
    /// Only those of this level.
    pub level: Option<Level>,
}

/// Alerts, newest first, older than the one with the id `before`.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn list(
    link: &mut Link,
    filter: &Filter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Alert>, StorageError> {
    let level = filter.level.map(Level::name);
    let rows = link
        .query(
            LIST,
            &[&filter.experiment_id, &filter.open, &level, &before, &limit],
        )
        .await?;
    read_all(&rows)
}

/// A critical alert, as safety checks count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Critical {
    /// The variant; `None` for the experiment as a whole.
    pub variant_id: Option<i64>,
    /// When it closed; `None` while it is open.
    pub closed_at: Option<DateTime<Utc>>,
}

/// Critical alerts of an experiment, newest first.
///
/// # Errors
/// As [`list`].
pub async fn critical(
    link: &mut impl Query,
    experiment_id: i64,
) -> Result<Vec<Critical>, StorageError> {
    const T: &str = "alerts";
    let rows = link.query(CRITICAL, &[&experiment_id]).await?;
    let critical = rows.iter().map(|row| {
        Ok(Critical {
            variant_id: column(row, T, "variant_id")?,
            closed_at: column(row, T, "closed_at")?,
        })
    });
    critical.collect()
}

/// Open alerts by level.
///
/// # Errors
/// As [`list`].
pub async fn open_by_level(link: &mut Link) -> Result<BTreeMap<Level, i64>, StorageError> {
    let mut counts: BTreeMap<Level, i64> = Level::ALL.iter().map(|level| (*level, 0)).collect();
    for row in link.query(COUNTS, &[]).await? {
        counts.insert(level(&row)?, column(&row, "alerts", "alerts")?);
    }
    Ok(counts)
}

const COUNT: &str = "-- alerts::count_assignments
INSERT INTO assign_outcomes AS a (experiment_id, minute, asked, failed)
SELECT experiment_id, date_trunc('minute', now()), asked, failed
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS i (experiment_id, asked, failed)
ON CONFLICT (minute, experiment_id) DO UPDATE SET asked = a.asked + EXCLUDED.asked, failed = a.failed + EXCLUDED.failed";

const FORGET: &str = "-- alerts::forget_assignments
DELETE FROM assign_outcomes WHERE minute < now() - interval '2 hours'";

/// Adds what a replica counted: experiment, units that were asked for, units that got no answer in time.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn count_assignments(
    link: &mut Link,
    counts: &[(i64, i64, i64)],
) -> Result<(), StorageError> {
    let ids: Vec<i64> = counts.iter().map(|count| count.0).collect();
    let asked: Vec<i64> = counts.iter().map(|count| count.1).collect();
    let failed: Vec<i64> = counts.iter().map(|count| count.2).collect();
    link.query(COUNT, &[&ids, &asked, &failed]).await?;
    link.query(FORGET, &[]).await?;
    Ok(())
}

fn read_all(rows: &[Row]) -> Result<Vec<Alert>, StorageError> {
    rows.iter().map(alert).collect()
}

fn level(row: &Row) -> Result<Level, StorageError> {
    let level: String = column(row, "alerts", "level")?;
    level.parse().map_err(|_| StorageError::CorruptRow {
        table: "alerts",
        column: "level",
    })
}

fn alert(row: &Row) -> Result<Alert, StorageError> {
    const T: &str = "alerts";
    let variant_id: Option<i64> = column(row, T, "variant_id")?;
    let variant_name: Option<String> = column(row, T, "variant_name")?;
    Ok(Alert {
        id: column(row, T, "id")?,
        experiment: Named {
            id: column(row, T, "experiment_id")?,
            name: column(row, T, "experiment_name")?,
        },
        variant: variant_id.map(|id| Named {
            id,
            name: variant_name.unwrap_or_default(),
        }),
        kind: column(row, T, "kind")?,
        level: level(row)?,
        message: column(row, T, "message")?,
        value: column(row, T, "value")?,
        threshold: column(row, T, "threshold")?,
        opened_at: column(row, T, "opened_at")?,
        closed_at: column(row, T, "closed_at")?,
    })
}
