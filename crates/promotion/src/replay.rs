//! Computing a stored decision again.

use podium_storage::promotions::records::Record;
use serde::Serialize;
use serde_json::Value;

use crate::config::PromotionConfig;
use crate::decide::{DECISION_VERSION, Question, decide};
use crate::evidence::Evidence;
use crate::harm;

/// How a stored decision compares with what its evidence gives now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// The record.
    pub id: i64,
    /// What was done.
    pub kind: String,
    /// Whether the decision comes out the same.
    pub same: bool,
    /// Version of the decision function that decided.
    pub version: String,
    /// Version of the one that decided now.
    pub present_version: &'static str,
    /// The decision as it was stored.
    pub stored: Value,
    /// The decision as it comes out now.
    pub recomputed: Value,
}

/// Why a record cannot be computed again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It holds no evidence: a person decided.
    #[error("record {0} was decided by a person and holds nothing to compute again")]
    NothingToReplay(i64),
    /// Its evidence was written by another version and cannot be read.
    #[error("record {id} cannot be read by this version")]
    Unreadable {
        /// The record.
        id: i64,
        /// What could not be read.
        #[source]
        source: serde_json::Error,
    },
}

/// Computes a decision again from what was stored with it, the guard's as well.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(record: &Record) -> Result<Replay, ReplayError> {
    let unreadable = |source| ReplayError::Unreadable {
        id: record.id,
        source,
    };
    if let (None, Some(kept)) = (&record.question, &record.evidence) {
        let (decision, guard) = harm::again(kept).map_err(unreadable)?;
        let read_alike = kept.get("guard").is_some_and(|kept| equal(&guard, kept));
        return Ok(compared(record, decision, read_alike));
    }
    let (Some(question), Some(config), Some(evidence)) =
        (&record.question, &record.config, &record.evidence)
    else {
        return Err(ReplayError::NothingToReplay(record.id));
    };
    let question: Question = serde_json::from_value(question.clone()).map_err(unreadable)?;
    let config: PromotionConfig = serde_json::from_value(config.clone()).map_err(unreadable)?;
    let evidence: Evidence = serde_json::from_value(evidence.clone()).map_err(unreadable)?;
    let decision = decide(&config, &evidence, &question);
    let recomputed = serde_json::to_value(decision).map_err(unreadable)?;
    Ok(compared(record, recomputed, true))
}

/// `read_alike`: whether what lies between evidence and decision comes out the same.
fn compared(record: &Record, recomputed: Value, read_alike: bool) -> Replay {
    Replay {
        id: record.id,
        kind: record.kind.clone(),
        same: read_alike && equal(&recomputed, &record.decision),
        version: record.version.clone(),
        present_version: DECISION_VERSION,
        stored: record.decision.clone(),
        recomputed,
    }
}

/// Equal as values: the database writes `1.0` as `1.0` and `1e2` as `100`, and numbers are compared as floats.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| equal(a, b))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|found| equal(value, found)))
        }
        _ => one == other,
    }
}
