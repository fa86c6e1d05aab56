//! API keys of storefronts, servers and administration. Only digests are stored; a revoked key stays, because the audit
//! log names it.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::Transaction;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::audit::{self, Origin, Subject};
use crate::experiments::change::{ChangeError, Conflict, Precondition};
use crate::experiments::rows::{fetch, one};
use crate::rows::column;
use crate::{Database, StorageError};

/// What a key is good for; each scope may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Storefronts: assign, track, rank. Anybody can read it out of a page.
    Client,
    /// Servers: also reads definitions, may report purchases where that needs a key, and has no limit per address.
    Server,
    /// Everything.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Admin];

    /// Its name in the column, in bodies and in keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Admin => "admin",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A key as every replica holds it in memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct ApiKeyDefinition {
    /// Numeric id.
    pub id: i64,
    /// Names the key.
    pub prefix: String,
    /// What it is good for.
    pub scope: Scope,
    /// SHA-256 of the whole key.
    pub digest: [u8; 32],
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When a use was noted last here, in seconds since 1970.
    #[serde(skip)]
    noted: AtomicI64,
}

impl ApiKeyDefinition {
    /// Whether a use at `now` should be noted: at most one in `every`, whoever asks first.
    #[must_use]
    pub fn is_worth_noting(&self, now: DateTime<Utc>, every: TimeDelta) -> bool {
        let (now, before) = (now.timestamp(), self.noted.load(Ordering::Relaxed));
        now.saturating_sub(before) >= every.num_seconds()
            && self
                .noted
                .compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// A key as the administration sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Numeric id.
    pub id: i64,
    /// Names the key.
    pub prefix: String,
    /// For people.
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to about two minutes. The audit log does not need it.
    #[serde(skip)]
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Changes with every change of the key: microseconds of the last one.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.updated_at.timestamp_micros()
    }
}

/// A key to store.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of `ApiKey`")]
pub struct NewApiKey {
    pub prefix: String,
    pub name: String,
    pub scope: Scope,
    pub digest: [u8; 32],
    pub expires_at: Option<DateTime<Utc>>,
}

/// Changes of a key; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeyPatch {
    /// For people.
    pub name: Option<String>,
    /// When it ends by itself; an inner `None` takes the end away.
    pub expires_at: Option<Option<DateTime<Utc>>>,
}

/// Columns of a key.
macro_rules! columns {
    () => {
        "id, prefix, name, scope, created_by, created_at, updated_at, expires_at, revoked_at, last_used_at"
    };
}

pub(crate) const IN_FORCE: &str = "-- api_keys::in_force
SELECT id, prefix, scope, digest, expires_at, last_used_at FROM podium_api_keys WHERE revoked_at IS NULL";

const LIST: &str = concat!(
    "-- api_keys::list\nSELECT ",
    columns!(),
    " FROM podium_api_keys WHERE id < $1 ORDER BY id DESC LIMIT $2"
);

const READ: &str = concat!(
    "-- api_keys::read\nSELECT ",
    columns!(),
    " FROM podium_api_keys WHERE id = $1"
);

const LOCK: &str = concat!(
    "-- api_keys::lock\nSELECT ",
    columns!(),
    " FROM podium_api_keys WHERE id = $1 FOR UPDATE"
);

const INSERT: &str = concat!(
    "-- api_keys::insert
INSERT INTO podium_api_keys (prefix, name, scope, digest, created_by, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING ",
    columns!()
);

/// The time must rise even when two changes begin in the same microsecond, because it is the version.
const UPDATE: &str = concat!(
    "-- api_keys::update
UPDATE podium_api_keys SET name = $2, expires_at = $3,
    revoked_at = CASE WHEN $4 THEN coalesce(revoked_at, now()) ELSE revoked_at END,
    updated_at = greatest(now(), updated_at + interval '1 microsecond')
WHERE id = $1
RETURNING ",
    columns!()
);

const NOTE_USES: &str = "-- api_keys::note_uses
UPDATE podium_api_keys k SET last_used_at = greatest(k.last_used_at, u.at)
FROM unnest($1::bigint[], $2::timestamptz[]) AS u (id, at) WHERE k.id = u.id";

/// At most `limit` keys with ids below `below` (all, when it is `None`), newest first; revoked ones too.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn list(
    database: &Database,
    below: Option<i64>,
    limit: i64,
) -> Result<Vec<ApiKey>, StorageError> {
    let below = below.unwrap_or(i64::MAX);
    let rows = database
        .serve()
        .await?
        .query(LIST, &[&below, &limit])
        .await?;
    rows.iter().map(key).collect()
}

/// A key, or `None`.
///
/// # Errors
/// As [`list`].
pub async fn read(database: &Database, id: i64) -> Result<Option<ApiKey>, StorageError> {
    let row = database.serve().await?.query_opt(READ, &[&id]).await?;
    row.as_ref().map(key).transpose()
}

/// Stores a key.
///
/// # Errors
/// [`StorageError`] when the database does not take it.
pub async fn create(
    database: &Database,
    origin: &Origin,
    new: &NewApiKey,
) -> Result<ApiKey, ChangeError> {
    database
        .transaction(async |tx| {
            let rows = fetch(
                tx,
                INSERT,
                &[
                    &new.prefix,
                    &new.name,
                    &new.scope.name(),
                    &new.digest.as_slice(),
                    &origin.actor,
                    &new.expires_at,
                ],
            )
            .await?;
            let made = key(one(&rows, "podium_api_keys")?)?;
            let whole = audit::whole(&made)?;
            audit::append(tx, origin, &subject("create", &made), None, Some(whole)).await?;
            Ok(made)
        })
        .await
}

/// Changes a key. A patch that changes nothing leaves no trace.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`], [`Conflict::KeyRevoked`].
pub async fn patch(
    database: &Database,
    origin: &Origin,
    id: i64,
    precondition: &Precondition,
    patch: &ApiKeyPatch,
) -> Result<ApiKey, ChangeError> {
    database
        .transaction(async |tx| {
            let before = lock(tx, id, precondition).await?;
            if before.revoked_at.is_some() {
                return Err(Conflict::KeyRevoked.into());
            }
            let wanted = ApiKey {
                name: patch.name.as_ref().unwrap_or(&before.name).clone(),
                expires_at: patch.expires_at.unwrap_or(before.expires_at),
                ..before.clone()
            };
            if wanted == before {
                return Ok(before);
            }
            change(tx, origin, "update", &before, &wanted).await
        })
        .await
}

/// Revokes a key; one that is revoked already stays as it is.
///
/// # Errors
/// [`ChangeError::NotFound`], [`ChangeError::Stale`].
pub async fn revoke(
    database: &Database,
    origin: &Origin,
    id: i64,
    precondition: &Precondition,
) -> Result<ApiKey, ChangeError> {
    database
        .transaction(async |tx| {
            let before = lock(tx, id, precondition).await?;
            if before.revoked_at.is_some() {
                return Ok(before);
            }
            change(tx, origin, "revoke", &before, &before).await
        })
        .await
}

/// Stores when keys were last used. Changes nothing else, and is no change of a definition.
///
/// # Errors
/// As [`list`].
pub async fn note_uses(
    database: &Database,
    uses: &[(i64, DateTime<Utc>)],
) -> Result<(), StorageError> {
    let (ids, times): (Vec<i64>, Vec<DateTime<Utc>>) = uses.iter().copied().unzip();
    let mut link = database.work().await?;
    link.query(NOTE_USES, &[&ids, &times]).await?;
    Ok(())
}

async fn lock(
    tx: &Transaction<'_>,
    id: i64,
    precondition: &Precondition,
) -> Result<ApiKey, ChangeError> {
    let rows = fetch(tx, LOCK, &[&id]).await?;
    let row = rows.first().ok_or(ChangeError::NotFound("this API key"))?;
    let found = key(row)?;
    precondition.check(found.version())?;
    Ok(found)
}

async fn change(
    tx: &Transaction<'_>,
    origin: &Origin,
    verb: &str,
    before: &ApiKey,
    wanted: &ApiKey,
) -> Result<ApiKey, ChangeError> {
    let revoke = verb == "revoke";
    let rows = fetch(
        tx,
        UPDATE,
        &[&wanted.id, &wanted.name, &wanted.expires_at, &revoke],
    )
    .await?;
    let after = key(one(&rows, "podium_api_keys")?)?;
    let (old, new) = audit::difference(before, &after)?;
    audit::append(tx, origin, &subject(verb, &after), Some(old), Some(new)).await?;
    Ok(after)
}

fn subject(verb: &str, key: &ApiKey) -> Subject {
    Subject::new("api_key", verb, &key.id, None)
}

fn scope(row: &Row) -> Result<Scope, StorageError> {
    let name: &str = column(row, "podium_api_keys", "scope")?;
    Scope::parse(name).ok_or(StorageError::CorruptRow {
        table: "podium_api_keys",
        column: "scope",
    })
}

fn key(row: &Row) -> Result<ApiKey, StorageError> {
    const T: &str = "podium_api_keys";
    Ok(ApiKey {
        id: column(row, T, "id")?,
        prefix: column(row, T, "prefix")?,
        name: column(row, T, "name")?,
        scope: scope(row)?,
        created_by: column(row, T, "created_by")?,
        created_at: column(row, T, "created_at")?,
        updated_at: column(row, T, "updated_at")?,
        expires_at: column(row, T, "expires_at")?,
        revoked_at: column(row, T, "revoked_at")?,
        last_used_at: column(row, T, "last_used_at")?,
    })
}

pub(crate) fn definition(row: &Row) -> Result<ApiKeyDefinition, StorageError> {
    const T: &str = "podium_api_keys";
    let digest: &[u8] = column(row, T, "digest")?;
    let used: Option<DateTime<Utc>> = column(row, T, "last_used_at")?;
    Ok(ApiKeyDefinition {
        id: column(row, T, "id")?,
        prefix: column(row, T, "prefix")?,
        scope: scope(row)?,
        digest: digest.try_into().map_err(|_| StorageError::CorruptRow {
            table: T,
            column: "digest",
        })?,
        expires_at: column(row, T, "expires_at")?,
        noted: AtomicI64::new(used.map_or(0, |used| used.timestamp())),
    })
}
