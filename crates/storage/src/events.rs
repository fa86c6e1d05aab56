//! Recording events: durable before the answer, once per event id.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::assignments::Unavailable;
use crate::batch::RunGroup;
use crate::{Database, StorageError};

mod copy;
mod insert;

/// Groups of so many rows are copied. A smaller one is inserted by a single statement, which needs one round trip
/// instead of five; the rows of a larger one cost PostgreSQL about half when they are copied.
const COPY_FROM: usize = 24;

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
    /// The promotion that was active, and what the unit was shown.
    pub promotion: Option<Promoted>,
    /// When it happened, if the client said so; else the arrival.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// Where an event stands in an active promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// The promotion.
    pub promotion_id: Uuid,
    /// Place of the rollout step in force, from 0.
    pub step: i32,
    /// What the unit was shown; `None` where the guard does not look at it.
    pub arm: Option<Arm>,
}

/// What a unit is shown while a promotion is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Its own variant, which is not the winner.
    Own,
    /// The winner instead of its own variant.
    Moved,
    /// The control, because it is held back.
    HeldBack,
    /// The winner, which is its own variant.
    Winner,
}

impl Arm {
    /// The number in the table.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Own => 0,
            Self::Moved => 1,
            Self::HeldBack => 2,
            Self::Winner => 3,
        }
    }
}

/// The key under which an event id is unique in its experiment: MD5 of `"{experiment}/{event id}"`. Where the event
/// id is a UUID, its first six bytes (the time, in version 7) replace those of the digest, so that keys of one time
/// lie together in the index; the other ten still depend on the whole id.
#[must_use]
pub fn event_key(experiment_id: i64, event_id: &str) -> Uuid {
    let mut digest = md5::Context::new();
    // Taking bytes into a digest cannot fail.
    let _ = write!(digest, "{experiment_id}/{event_id}");
    let mut bytes = digest.finalize().0;
    if event_id.len() == 36
        && let Ok(uuid) = Uuid::try_parse(event_id)
    {
        for (to, from) in bytes.iter_mut().zip(uuid.as_bytes()).take(6) {
            *to = *from;
        }
    }
    Uuid::from_bytes(bytes)
}

/// What became of the rows of one job, in order.
pub type RecordAnswer = Result<Vec<Recorded>, Unavailable>;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was stored.
    New,
    /// Its id was there.
    Duplicate,
    /// PostgreSQL refused its data, and only its.
    Refused,
}

/// Records events in groups.
#[derive(Clone, Debug)]
pub struct Recorder {
    database: Database,
    wary: Arc<copy::Wary>,
}

impl Recorder {
    /// A recorder over the writers' pool.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self {
            database,
            wary: Arc::default(),
        }
    }

    /// Writes the distinct rows of all jobs and returns the keys that were new, or `None` where every row was.
    async fn write(&self, jobs: &[Vec<EventRow>]) -> Result<Option<HashSet<Uuid>>, StorageError> {
        // One row a key, in key order: two groups with the same ids cannot deadlock, and the first body wins.
        let mut rows: Vec<&EventRow> = jobs.iter().flatten().collect();
        let all = rows.len();
        rows.sort_by_key(|row| row.key);
        rows.dedup_by_key(|row| row.key);
        let mut link = self.database.write().await?;
        if rows.len() < COPY_FROM {
            return insert::insert(&mut link, &rows).await.map(Some);
        }
        let new = copy::copy(&mut link, &rows, &self.wary).await?;
        let distinct = || rows.iter().map(|row| row.key).collect();
        Ok(new.or_else(|| (rows.len() < all).then(distinct)))
    }

    /// Records all jobs together; when the data of one row are refused, in halves, so that it harms only itself.
    async fn record(&self, jobs: &[Vec<EventRow>]) -> Vec<RecordAnswer> {
        let mut attempt = 1;
        loop {
            match self.write(jobs).await {
                Ok(new) => return answers(jobs, new),
                Err(error) if error.is_contention() && attempt < 3 => attempt += 1,
                Err(error) if error.is_data_fault() && jobs.len() > 1 => {
                    let (left, right) = jobs.split_at(jobs.len() / 2);
                    let mut all = Box::pin(self.record(left)).await;
                    all.extend(Box::pin(self.record(right)).await);
                    return all;
                }
                Err(error) if error.is_data_fault() => {
                    let Some((rows, [_, _, ..])) = jobs.first().map(|rows| (rows, rows.as_slice()))
                    else {
                        tracing::error!(error = %error.chain(), "an event passed validation and was refused by the database");
                        return vec![Ok(vec![Recorded::Refused]); jobs.len()];
                    };
                    let (left, right) = rows.split_at(rows.len() / 2);
                    let halves = [left.to_vec(), right.to_vec()];
                    return vec![joined(Box::pin(self.record(&halves)).await)];
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), jobs = jobs.len(), "events could not be stored");
                    return vec![Err(Unavailable); jobs.len()];
                }
            }
        }
    }
}

/// The first row of a new key is the one that was recorded; every other one is a duplicate.
fn answers(jobs: &[Vec<EventRow>], new: Option<HashSet<Uuid>>) -> Vec<RecordAnswer> {
    let Some(mut new) = new else {
        let all_new = |rows: &Vec<EventRow>| Ok(vec![Recorded::New; rows.len()]);
        return jobs.iter().map(all_new).collect();
    };
    let recorded = |is_new| {
        if is_new {
            Recorded::New
        } else {
            Recorded::Duplicate
        }
    };
    jobs.iter()
        .map(|rows| {
            Ok(rows
                .iter()
                .map(|row| recorded(new.remove(&row.key)))
                .collect())
        })
        .collect()
}

/// The answer of a job that was recorded in parts: as a whole it is only known where every part is.
fn joined(parts: Vec<RecordAnswer>) -> RecordAnswer {
    let parts: Result<Vec<_>, _> = parts.into_iter().collect();
    Ok(parts?.concat())
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
