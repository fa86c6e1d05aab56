//! What was decided from what, and the last verdict of each experiment.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::notification::{Event, Level, Message, Named, Subject};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::database::Query;
use crate::experiments::rows::{fetch, one};
use crate::rows::column;
use crate::{StorageError, outbox};

const T: &str = "promotion_decisions";

/// A decision to be stored.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// The experiment.
    pub experiment_id: i64,
    /// The promotion that came of it, or that it is about.
    pub promotion_id: Option<Uuid>,
    /// What was done: `promoted`, `forced`, `attempted`, `held`, `rolled_back`.
    pub kind: &'static str,
    /// Whether a person asked.
    pub manual: bool,
    /// Who asked.
    pub actor: String,
    /// Version of the decision function.
    pub version: &'static str,
    /// What was asked.
    pub question: Option<Value>,
    /// The configuration in force.
    pub config: Option<Value>,
    /// What the decision function was given.
    pub evidence: Option<Value>,
    /// What it answered, or what else was decided and why.
    pub decision: Value,
}

/// A decision as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: i64,
    /// When it was made, by the clock of the database.
    pub at: DateTime<Utc>,
    /// The experiment.
    pub experiment_id: i64,
    /// The promotion that came of it, or that it is about.
    pub promotion_id: Option<Uuid>,
    /// What was done.
    pub kind: String,
    /// `auto` or `manual`.
    pub triggered_by: String,
    /// Who asked.
    pub actor: String,
    /// Version of the decision function.
    pub version: String,
    /// What was asked.
    pub question: Option<Value>,
    /// The configuration in force.
    pub config: Option<Value>,
    /// What the decision function was given.
    pub evidence: Option<Value>,
    /// What it answered.
    pub decision: Value,
}

const INSERT: &str = "-- records::insert
INSERT INTO promotion_decisions (experiment_id, promotion_id, kind, triggered_by, actor, version, question, config, evidence, decision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id";

const BY_ID: &str = "-- records::by_id
SELECT id, at, experiment_id, promotion_id, kind, triggered_by, actor, version, question, config, evidence, decision
FROM promotion_decisions WHERE id = $1";

const OF_PROMOTION: &str = "-- records::of_promotion
SELECT id, at, experiment_id, promotion_id, kind, triggered_by, actor, version, question, config, evidence, decision
FROM promotion_decisions WHERE promotion_id = $1 ORDER BY id";

/// Stores a decision, in the transaction of what came of it, and answers its id.
///
/// # Errors
/// [`StorageError`] when the database does not take it.
pub async fn insert(tx: &Transaction<'_>, record: &NewRecord) -> Result<i64, StorageError> {
    let json = |value: &Option<Value>| value.clone().map(Json);
    let rows = fetch(
        tx,
        INSERT,
        &[
            &record.experiment_id,
            &record.promotion_id,
            &record.kind,
            &triggered_by(record.manual),
            &record.actor,
            &record.version,
            &json(&record.question),
            &json(&record.config),
            &json(&record.evidence),
            &Json(&record.decision),
        ],
    )
    .await?;
    column(one(&rows, T)?, T, "id")
}

/// `manual` when a person asked.
pub(super) const fn triggered_by(manual: bool) -> &'static str {
    if manual { "manual" } else { "auto" }
}

/// A decision by its id.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn by_id(link: &mut impl Query, id: i64) -> Result<Option<Record>, StorageError> {
    let row = link.query_opt(BY_ID, &[&id]).await?;
    row.as_ref().map(record).transpose()
}

/// The decisions about a promotion, in order.
///
/// # Errors
/// As [`by_id`].
pub async fn of_promotion(link: &mut impl Query, id: Uuid) -> Result<Vec<Record>, StorageError> {
    let rows = link.query(OF_PROMOTION, &[&id]).await?;
    rows.iter().map(record).collect()
}

fn record(row: &Row) -> Result<Record, StorageError> {
    let json = |name: &'static str| {
        column::<Option<Json<Value>>>(row, T, name).map(|json| json.map(|json| json.0))
    };
    Ok(Record {
        id: column(row, T, "id")?,
        at: column(row, T, "at")?,
        experiment_id: column(row, T, "experiment_id")?,
        promotion_id: column(row, T, "promotion_id")?,
        kind: column(row, T, "kind")?,
        triggered_by: column(row, T, "triggered_by")?,
        actor: column(row, T, "actor")?,
        version: column(row, T, "version")?,
        question: json("question")?,
        config: json("config")?,
        evidence: json("evidence")?,
        decision: column::<Json<Value>>(row, T, "decision")?.0,
    })
}

/// What a scan said of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct LastVerdict {
    /// The experiment.
    pub experiment_id: i64,
    /// The verdict.
    pub verdict: String,
    /// Why.
    pub reasons: Vec<String>,
    /// The treatment that it is about.
    pub variant_id: Option<i64>,
    /// Its confidence in percent.
    pub confidence: Option<f64>,
    /// Its lift in percent.
    pub improvement: Option<f64>,
    /// Safety checks that alone keep a proved winner back; empty where nothing is held.
    pub held_by: Vec<String>,
}

const KEEP: &str = "-- records::keep_verdict
WITH before AS (SELECT held_by FROM promotion_verdicts WHERE experiment_id = $1)
INSERT INTO promotion_verdicts AS v (experiment_id, verdict, reasons, variant_id, confidence, improvement, held_by)
VALUES ($1, $2, $3, $4, $5, $6, nullif($7::text[], '{}'))
ON CONFLICT (experiment_id) DO UPDATE SET verdict = EXCLUDED.verdict, reasons = EXCLUDED.reasons,
    variant_id = EXCLUDED.variant_id, confidence = EXCLUDED.confidence, improvement = EXCLUDED.improvement,
    held_by = EXCLUDED.held_by, scanned_at = now(),
    since = CASE WHEN v.verdict = EXCLUDED.verdict THEN v.since ELSE now() END
RETURNING v.held_by IS NOT NULL AND v.held_by IS DISTINCT FROM (SELECT held_by FROM before) AS is_news,
    v.held_by IS NULL AND (SELECT held_by FROM before) IS NOT NULL AS is_over";

/// How a winner that safety checks hold back stands since the scan before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// As it stood, held or not.
    Same,
    /// Held, and not by the same checks as before.
    News,
    /// Not held any more.
    Over,
}

/// Keeps the verdict of a scan in the place of the one before, and answers what became of a hold.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn keep_verdict(
    tx: &Transaction<'_>,
    verdict: &LastVerdict,
) -> Result<Hold, StorageError> {
    const V: &str = "promotion_verdicts";
    let rows = fetch(
        tx,
        KEEP,
        &[
            &verdict.experiment_id,
            &verdict.verdict,
            &Json(&verdict.reasons),
            &verdict.variant_id,
            &verdict.confidence,
            &verdict.improvement,
            &verdict.held_by,
        ],
    )
    .await?;
    let row = one(&rows, V)?;
    let (is_news, is_over) = (column(row, V, "is_news")?, column(row, V, "is_over")?);
    Ok(match (is_news, is_over) {
        (true, _) => Hold::News,
        (_, true) => Hold::Over,
        _ => Hold::Same,
    })
}

/// Ends the hold of an experiment, and the incident about it wherever one was opened.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn end_hold(
    tx: &Transaction<'_>,
    experiment: Named,
    now: DateTime<Utc>,
) -> Result<(), StorageError> {
    const END: &str = "-- records::end_hold
UPDATE promotion_verdicts SET held_by = NULL WHERE experiment_id = $1 AND held_by IS NOT NULL";
    fetch(tx, END, &[&experiment.id]).await?;
    let subject = Subject::Experiment(experiment.id);
    let over = Message {
        experiment: Some(experiment),
        ..Message::new(Event::Hold, Level::Info, subject, now)
    };
    outbox::close(tx, &over).await
}
