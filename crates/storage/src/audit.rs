//! The audit log: who changed what, when, from where, from which value to which.
//!
//! An entry is written in the transaction that makes the change, so there is neither a change without an entry nor an
//! entry without a change. The schema refuses to change or delete entries.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;

use crate::rows::column;
use crate::{Database, StorageError};

/// Who asked for a change, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// User id.
    pub actor: String,
    /// Id of the request.
    pub request_id: String,
    /// Address of the client.
    pub address: Option<String>,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What was done: kind of thing and verb, such as `experiment.start`.
    pub action: String,
    /// Kind of thing: `experiment`, `variant`, `override`, `covariates`, `arm`, `user`, `api_key`, `unit`, `route`.
    pub entity: &'static str,
    /// Which one.
    pub entity_id: String,
    /// The experiment that it belongs to.
    pub experiment_id: Option<i64>,
}

impl Subject {
    /// `verb` was done to the thing `entity_id` of the kind `entity`.
    #[must_use]
    pub fn new(
        entity: &'static str,
        verb: &str,
        entity_id: &impl ToString,
        experiment_id: Option<i64>,
    ) -> Self {
        Self {
            action: format!("{entity}.{verb}"),
            entity,
            entity_id: entity_id.to_string(),
            experiment_id,
        }
    }
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Rises with time, not without gaps.
    pub id: i64,
    /// When the change was made, by the clock of the database.
    pub at: DateTime<Utc>,
    /// User that made it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// Kind of thing.
    pub entity: String,
    /// Which one.
    pub entity_id: String,
    /// The experiment that it belongs to.
    pub experiment_id: Option<i64>,
    /// Values before: those that changed, all for what was deleted, `None` for what is new. JSON text.
    pub before: Option<String>,
    /// Values after: those that changed, all for what is new, `None` for what was deleted. JSON text.
    pub after: Option<String>,
    /// Id of the request.
    pub request_id: Option<String>,
    /// Address of the client.
    pub address: Option<String>,
}

/// Which entries are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those about one experiment.
    pub experiment_id: Option<i64>,
    /// Those of one user.
    pub actor: Option<String>,
    /// Those of one action.
    pub action: Option<String>,
}

const APPEND: &str = "-- audit::append
INSERT INTO audit_log (actor, action, entity, entity_id, experiment_id, before, after, request_id, address)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, $8, $9)";

/// Appends an entry to the log, in the transaction that makes the change.
///
/// # Errors
/// [`StorageError`] when the database does not take it; the change must then not be committed either.
pub async fn append(
    tx: &Transaction<'_>,
    origin: &Origin,
    subject: &Subject,
    before: Option<String>,
    after: Option<String>,
) -> Result<(), StorageError> {
    let statement = tx.prepare_cached(APPEND).await?;
    tx.execute(
        &statement,
        &[
            &origin.actor,
            &subject.action,
            &subject.entity,
            &subject.entity_id,
            &subject.experiment_id,
            &before,
            &after,
            &origin.request_id,
            &origin.address,
        ],
    )
    .await?;
    Ok(())
}

/// Changes that were refused for the same reason, counted over about a minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedChanges {
    /// Who asked, where that is known.
    #[serde(skip)]
    pub actor: Option<String>,
    /// Method and pattern of the path.
    #[serde(skip)]
    pub route: String,
    /// 401 or 403.
    pub status: u16,
    /// Why.
    pub reason: &'static str,
    /// Address of the client.
    #[serde(skip)]
    pub address: Option<String>,
    /// How often.
    pub times: i64,
    /// The first one.
    pub first: DateTime<Utc>,
    /// The last one.
    pub last: DateTime<Utc>,
}

/// The actor of changes that nobody known asked for.
pub const UNKNOWN_ACTOR: &str = "unknown";

const APPEND_REFUSED: &str = "-- audit::append_refused
INSERT INTO audit_log (actor, action, entity, entity_id, after, address)
SELECT r.actor, 'route.refuse', 'route', r.route, r.after::jsonb, r.address
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS r (actor, route, after, address)";

/// Appends an entry for each kind of refused changes.
///
/// # Errors
/// [`StorageError`] when the database does not take them.
pub async fn append_refused(
    database: &Database,
    refused: &[RefusedChanges],
) -> Result<(), StorageError> {
    let actors: Vec<&str> = refused
        .iter()
        .map(|r| r.actor.as_deref().unwrap_or(UNKNOWN_ACTOR))
        .collect();
    let routes: Vec<&str> = refused.iter().map(|r| r.route.as_str()).collect();
    let counts: Vec<String> = refused.iter().map(whole).collect::<Result<_, _>>()?;
    let addresses: Vec<Option<&str>> = refused.iter().map(|r| r.address.as_deref()).collect();
    let mut link = database.work().await?;
    link.query(APPEND_REFUSED, &[&actors, &routes, &counts, &addresses])
        .await?;
    Ok(())
}

/// Everything that the log keeps of a thing, as JSON text.
///
/// # Errors
/// [`StorageError::CorruptRow`] when it has no form in JSON: nothing that we read from a table is like that.
pub fn whole(thing: &impl Serialize) -> Result<String, StorageError> {
    serde_json::to_string(thing).map_err(unloggable)
}

/// The members that differ, before and after, as JSON text. Texts of values are compared, because numbers would lose
/// digits as floats. `updatedAt` says nothing that the entry's own time does not.
///
/// # Errors
/// As [`whole`].
pub fn difference(
    before: &impl Serialize,
    after: &impl Serialize,
) -> Result<(String, String), StorageError> {
    let (before, after) = (whole(before)?, whole(after)?);
    let (before, after): (Members<'_>, Members<'_>) = (members(&before)?, members(&after)?);
    Ok((
        whole(&only_changed(&before, &after))?,
        whole(&only_changed(&after, &before))?,
    ))
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn members(text: &str) -> Result<Members<'_>, StorageError> {
    serde_json::from_str(text).map_err(unloggable)
}

fn only_changed<'a>(values: &Members<'a>, others: &Members<'a>) -> Members<'a> {
    let other = |key: &str| others.get(key).map(|value| value.get());
    let changed = values
        .iter()
        .filter(|(key, value)| *key != "updatedAt" && other(key) != Some(value.get()));
    changed.map(|(key, value)| (key.clone(), *value)).collect()
}

fn unloggable(_: serde_json::Error) -> StorageError {
    StorageError::CorruptRow {
        table: "audit_log",
        column: "after",
    }
}

/// Newest first. With an experiment, the index on it finds the entries; without one they are read backwards by id.
const LIST: &str = "-- audit::list
SELECT id, at, actor, action, entity, entity_id, experiment_id, before::text AS before, after::text AS after, request_id, address
FROM audit_log
WHERE id < $1 AND ($2::text IS NULL OR actor = $2) AND ($3::text IS NULL OR action = $3)
ORDER BY id DESC LIMIT $4";

const LIST_OF_EXPERIMENT: &str = "-- audit::list_of_experiment
SELECT id, at, actor, action, entity, entity_id, experiment_id, before::text AS before, after::text AS after, request_id, address
FROM audit_log
WHERE id < $1 AND ($2::text IS NULL OR actor = $2) AND ($3::text IS NULL OR action = $3) AND experiment_id = $5
ORDER BY id DESC LIMIT $4";

/// At most `limit` entries with ids below `below` (all, when it is `None`), newest first.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn list(
    database: &Database,
    filter: &Filter,
    below: Option<i64>,
    limit: i64,
) -> Result<Vec<Entry>, StorageError> {
    let below = below.unwrap_or(i64::MAX);
    let mut link = database.serve().await?;
    let rows = match &filter.experiment_id {
        Some(id) => {
            link.query(
                LIST_OF_EXPERIMENT,
                &[&below, &filter.actor, &filter.action, &limit, id],
            )
            .await?
        }
        None => {
            link.query(LIST, &[&below, &filter.actor, &filter.action, &limit])
                .await?
        }
    };
    rows.iter().map(entry).collect()
}

fn entry(row: &Row) -> Result<Entry, StorageError> {
    const T: &str = "audit_log";
    Ok(Entry {
        id: column(row, T, "id")?,
        at: column(row, T, "at")?,
        actor: column(row, T, "actor")?,
        action: column(row, T, "action")?,
        entity: column(row, T, "entity")?,
        entity_id: column(row, T, "entity_id")?,
        experiment_id: column(row, T, "experiment_id")?,
        before: column(row, T, "before")?,
        after: column(row, T, "after")?,
        request_id: column(row, T, "request_id")?,
        address: column(row, T, "address")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_holds_what_changed_and_nothing_else() {
        let before = json!({"name": "a", "weight": 1, "config": {"x": 1}, "updatedAt": "1"});
        let after = json!({"name": "a", "weight": 2, "config": {"x": 2, "y": 3}, "updatedAt": "2"});
        let (old, new) = difference(&before, &after).unwrap();
        assert_eq!(old, r#"{"config":{"x":1},"weight":1}"#);
        assert_eq!(new, r#"{"config":{"x":2,"y":3},"weight":2}"#);
    }
}
