//! Recording events: durable before the answer, once per event id.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::assignments::Unavailable;
use crate::batch::RunGroup;
use crate::rows::column;
use crate::{Database, StorageError};

/// One event of one experiment, checked and attributed.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// Digest of experiment and event id; see [`event_key`].
    pub key: Uuid,
    /// Event id as the client or the server gave it.
    pub event_id: String,
    /// The unit as the request named it.
    pub unit: String,
    /// Experiment.
    pub experiment_id: i64,
    /// Variant of the unit.
    pub variant_id: i64,
    /// Wire name of the type.
    pub event_type: &'static str,
    /// Item that was shown or bought.
    pub item_id: Option<String>,
    /// Brand of the item.
    pub brand_id: Option<String>,
    /// Position, from 1.
    pub position: Option<i32>,
    /// Module of the page.
    pub module_id: Option<String>,
    /// JSON text of the metadata, already checked.
    pub event_data: Option<Bytes>,
    /// Value in 1/10,000.
    pub value_e4: Option<i64>,
    /// Pieces.
    pub quantity: Option<i32>,
    /// Latency of a request in milliseconds.
    pub latency_ms: Option<f64>,
    /// Whether a request failed.
    pub is_error: Option<bool>,
    /// Session of the event.
    pub session_id: Option<String>,
    /// Decision of a ranking.
    pub decision_id: Option<String>,
    /// Whether a known bot sent it.
    pub is_bot: bool,
    /// Whether it enters the analysis.
    pub counted: bool,
    /// When it happened, if the client said so; else the arrival.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// The key under which an event id is unique in its experiment: MD5 of `"{experiment}/{event id}"`. Where the event
/// id is a UUID, its first six bytes (the time, in version 7) replace those of the digest, so that keys of one time
/// lie together in the index; the other ten still depend on the whole id.
#[must_use]
pub fn event_key(experiment_id: i64, event_id: &str) -> Uuid {
    let mut bytes = md5::compute(format!("{experiment_id}/{event_id}")).0;
    if event_id.len() == 36
        && let Ok(uuid) = Uuid::try_parse(event_id)
    {
        for (to, from) in bytes.iter_mut().zip(uuid.as_bytes()).take(6) {
            *to = *from;
        }
    }
    Uuid::from_bytes(bytes)
}

/// What became of the rows of one job, in order: `true` when the row is new, `false` when its id was there.
pub type RecordAnswer = Result<Vec<bool>, RecordError>;

/// Why a job was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The database could not be asked, or did not confirm the commit.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// PostgreSQL refused the data of this job.
    #[error("the database refused the event")]
    Refused,
}

const INSERT: &str = "-- events::insert
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
        $9::integer[], $10::text[], $11::text[], $12::bigint[], $13::integer[], $14::double precision[], $15::boolean[],
        $16::text[], $17::text[], $18::boolean[], $19::boolean[], $20::timestamptz[])
    AS i (key, event_id, unit, experiment_id, variant_id, event_type, item_id, brand_id, position, module_id, event_data,
          value_e4, quantity, latency_ms, is_error, session_id, decision_id, is_bot, counted, occurred_at)),
keys AS (
    INSERT INTO experiment_event_keys (key) SELECT key FROM input ON CONFLICT DO NOTHING RETURNING key),
rows AS (
    INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, item_id, brand_id, position,
        module_id, event_data, value, quantity, latency_ms, is_error, session_id, decision_id, is_bot, counted, occurred_at, tx_id)
    SELECT i.event_id, i.unit, i.experiment_id, i.variant_id, i.event_type, i.item_id, i.brand_id, i.position,
        i.module_id, i.event_data::jsonb, i.value_e4 * 0.0001, i.quantity, i.latency_ms, i.is_error, i.session_id,
        i.decision_id, i.is_bot, i.counted, coalesce(i.occurred_at, now()), (SELECT pg_current_xact_id()::text::bigint)
    FROM input i JOIN keys USING (key))
SELECT key FROM keys";

/// Records events in groups.
#[derive(Clone, Debug)]
pub struct Recorder {
    database: Database,
}

impl Recorder {
    /// A recorder over the writers' pool.
    #[must_use]
    pub const fn new(database: Database) -> Self {
        Self { database }
    }

    /// Writes the distinct rows of all jobs and returns the keys that were new.
    async fn insert(&self, jobs: &[Vec<EventRow>]) -> Result<HashSet<Uuid>, StorageError> {
        // One row a key, in key order: two groups with the same ids cannot deadlock, and the first body wins.
        let mut rows: HashMap<Uuid, &EventRow> = HashMap::new();
        for row in jobs.iter().flatten() {
            rows.entry(row.key).or_insert(row);
        }
        let mut rows: Vec<&EventRow> = rows.into_values().collect();
        rows.sort_unstable_by_key(|row| row.key);
        let columns = Columns::of(&rows);
        let mut link = self.database.write().await?;
        let inserted = link.query(INSERT, &columns.params()).await?;
        inserted
            .iter()
            .map(|row| column(row, "experiment_event_keys", "key"))
            .collect()
    }

    /// Records all jobs together; when the data of one are refused, in halves, so that it harms only itself.
    async fn record(&self, jobs: &[Vec<EventRow>]) -> Vec<RecordAnswer> {
        let mut attempt = 1;
        loop {
            match self.insert(jobs).await {
                Ok(new) => return answers(jobs, new),
                Err(error) if error.is_contention() && attempt < 3 => attempt += 1,
                Err(error) if error.is_data_fault() && jobs.len() > 1 => {
                    let (left, right) = jobs.split_at(jobs.len() / 2);
                    let mut all = Box::pin(self.record(left)).await;
                    all.extend(Box::pin(self.record(right)).await);
                    return all;
                }
                Err(error) if error.is_data_fault() => {
                    tracing::error!(error = %error.chain(), "an event passed validation and was refused by the database");
                    return vec![Err(RecordError::Refused); jobs.len()];
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), jobs = jobs.len(), "events could not be stored");
                    return vec![Err(RecordError::Unavailable(Unavailable)); jobs.len()];
                }
            }
        }
    }
}

/// The first row of a new key is the one that was recorded; every other one is a duplicate.
fn answers(jobs: &[Vec<EventRow>], mut new: HashSet<Uuid>) -> Vec<RecordAnswer> {
    jobs.iter()
        .map(|rows| Ok(rows.iter().map(|row| new.remove(&row.key)).collect()))
        .collect()
}

impl RunGroup for Recorder {
    type Job = Vec<EventRow>;
    type Answer = RecordAnswer;

    async fn run(&self, jobs: Vec<Vec<EventRow>>) -> Vec<RecordAnswer> {
        self.record(&jobs).await
    }

    fn rows(job: &Vec<EventRow>) -> usize {
        job.len().max(1)
    }
}

/// The rows of a group, column by column, as the statement takes them.
#[derive(Default)]
struct Columns<'a> {
    key: Vec<Uuid>,
    event_id: Vec<&'a str>,
    unit: Vec<&'a str>,
    experiment_id: Vec<i64>,
    variant_id: Vec<i64>,
    event_type: Vec<&'a str>,
    item_id: Vec<Option<&'a str>>,
    brand_id: Vec<Option<&'a str>>,
    position: Vec<Option<i32>>,
    module_id: Vec<Option<&'a str>>,
    event_data: Vec<Option<&'a str>>,
    value_e4: Vec<Option<i64>>,
    quantity: Vec<Option<i32>>,
    latency_ms: Vec<Option<f64>>,
    is_error: Vec<Option<bool>>,
    session_id: Vec<Option<&'a str>>,
    decision_id: Vec<Option<&'a str>>,
    is_bot: Vec<bool>,
    counted: Vec<bool>,
    occurred_at: Vec<Option<DateTime<Utc>>>,
}

impl<'a> Columns<'a> {
    fn of(rows: &[&'a EventRow]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            columns.key.push(row.key);
            columns.event_id.push(&row.event_id);
            columns.unit.push(&row.unit);
            columns.experiment_id.push(row.experiment_id);
            columns.variant_id.push(row.variant_id);
            columns.event_type.push(row.event_type);
            columns.item_id.push(row.item_id.as_deref());
            columns.brand_id.push(row.brand_id.as_deref());
            columns.position.push(row.position);
            columns.module_id.push(row.module_id.as_deref());
            columns.event_data.push(
                row.event_data
                    .as_deref()
                    .and_then(|data| std::str::from_utf8(data).ok()),
            );
            columns.value_e4.push(row.value_e4);
            columns.quantity.push(row.quantity);
            columns.latency_ms.push(row.latency_ms);
            columns.is_error.push(row.is_error);
            columns.session_id.push(row.session_id.as_deref());
            columns.decision_id.push(row.decision_id.as_deref());
            columns.is_bot.push(row.is_bot);
            columns.counted.push(row.counted);
            columns.occurred_at.push(row.occurred_at);
        }
        columns
    }

    fn params(&self) -> [&(dyn tokio_postgres::types::ToSql + Sync); 20] {
        [
            &self.key,
            &self.event_id,
            &self.unit,
            &self.experiment_id,
            &self.variant_id,
            &self.event_type,
            &self.item_id,
            &self.brand_id,
            &self.position,
            &self.module_id,
            &self.event_data,
            &self.value_e4,
            &self.quantity,
            &self.latency_ms,
            &self.is_error,
            &self.session_id,
            &self.decision_id,
            &self.is_bot,
            &self.counted,
            &self.occurred_at,
        ]
    }
}
