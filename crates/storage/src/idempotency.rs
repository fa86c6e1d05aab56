//! Requests that a client may send again: the first one is carried out, the others get its answer.
//!
//! The key is claimed before the request is carried out, in a statement of its own, so of two requests at once one gets it.
//! A claim is a lease that its process renews while the request runs. When the process dies before it has answered, the audit
//! log tells whether the change was made, because every change writes its audit row in its own transaction: without one the
//! next request with the key is carried out, with one it is refused rather than carried out twice.

use std::time::Duration;

use crate::rows::column;
use crate::{Database, StorageError};

/// How long answers are kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How long a claim is alive without [`renew`]; longer than any request takes.
pub const ALIVE: Duration = Duration::from_secs(60);

/// Whose key, and for which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// User or API key.
    pub actor: String,
    /// As the client sent it.
    pub key: String,
    /// Method and path.
    pub route: String,
    /// SHA-256 over method, path, query and body.
    pub request: [u8; 32],
    /// Of this very request, as its audit rows have it.
    pub request_id: String,
}

/// An answer that is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// Names and values of the headers that belong to the answer.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is the first one: carry the request out.
    First,
    /// It was answered before.
    Answered(StoredAnswer),
    /// It is being carried out.
    Running,
    /// It made its change, and its process died before the answer was kept.
    Lost,
    /// The key belongs to another request.
    Mismatch,
}

const CLAIM: &str = "-- idempotency::claim
INSERT INTO idempotency_keys AS k (actor, key, route, request, expires_at, request_id, alive_until)
VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5), $6, now() + make_interval(secs => $7))
ON CONFLICT (actor, key) DO UPDATE SET route = excluded.route, request = excluded.request, started_at = now(),
    expires_at = excluded.expires_at, request_id = excluded.request_id, alive_until = excluded.alive_until,
    status = NULL, headers = NULL, body = NULL
WHERE k.expires_at <= now()
   OR (k.status IS NULL AND k.request = excluded.request AND k.alive_until <= now()
       AND NOT EXISTS (SELECT 1 FROM audit_log a WHERE a.request_id = k.request_id AND a.at >= k.started_at))
RETURNING 1";

const READ: &str = "-- idempotency::read
SELECT request, status, headers::text AS headers, body, coalesce(alive_until <= now(), false) AS lost
FROM idempotency_keys WHERE actor = $1 AND key = $2";

const ANSWER: &str = "-- idempotency::answer
UPDATE idempotency_keys SET status = $3, headers = $4::text::jsonb, body = $5
WHERE actor = $1 AND key = $2 AND request_id = $6";

const RENEW: &str = "-- idempotency::renew
UPDATE idempotency_keys SET alive_until = now() + make_interval(secs => $4)
WHERE actor = $1 AND key = $2 AND request_id = $3 AND status IS NULL";

const RELEASE: &str = "-- idempotency::release
DELETE FROM idempotency_keys WHERE actor = $1 AND key = $2 AND request_id = $3 AND status IS NULL";

const SWEEP: &str = "-- idempotency::sweep
DELETE FROM idempotency_keys WHERE expires_at <= now()";

/// Claims a key.
///
/// # Errors
/// [`StorageError`] when the database does not answer; then the request must not be carried out.
pub async fn claim(database: &Database, claim: &Claim) -> Result<Claimed, StorageError> {
    let mut link = database.serve().await?;
    let (kept, request) = (KEPT.as_secs_f64(), claim.request.as_slice());
    let first = link
        .query_opt(
            CLAIM,
            &[
                &claim.actor,
                &claim.key,
                &claim.route,
                &request,
                &kept,
                &claim.request_id,
                &ALIVE.as_secs_f64(),
            ],
        )
        .await?;
    if first.is_some() {
        return Ok(Claimed::First);
    }
    let Some(row) = link.query_opt(READ, &[&claim.actor, &claim.key]).await? else {
        // Released in between: the client may try again at once.
        return Ok(Claimed::Running);
    };
    let known: &[u8] = column(&row, T, "request")?;
    if known != request {
        return Ok(Claimed::Mismatch);
    }
    let status: Option<i16> = column(&row, T, "status")?;
    let Some(status) = status else {
        let lost = column(&row, T, "lost")?;
        return Ok(if lost {
            Claimed::Lost
        } else {
            Claimed::Running
        });
    };
    let headers: String = column(&row, T, "headers")?;
    Ok(Claimed::Answered(StoredAnswer {
        status: u16::try_from(status).map_err(|_| corrupt("status"))?,
        headers: serde_json::from_str(&headers).map_err(|_| corrupt("headers"))?,
        body: column(&row, T, "body")?,
    }))
}

const T: &str = "idempotency_keys";

const fn corrupt(column: &'static str) -> StorageError {
    StorageError::CorruptRow { table: T, column }
}

/// Keeps the answer of a claim.
///
/// # Errors
/// As [`claim`].
pub async fn answer(
    database: &Database,
    claim: &Claim,
    answer: &StoredAnswer,
) -> Result<(), StorageError> {
    let status = i16::try_from(answer.status).map_err(|_| corrupt("status"))?;
    let headers = serde_json::to_string(&answer.headers).map_err(|_| corrupt("headers"))?;
    database
        .serve()
        .await?
        .query(
            ANSWER,
            &[
                &claim.actor,
                &claim.key,
                &status,
                &headers,
                &answer.body,
                &claim.request_id,
            ],
        )
        .await?;
    Ok(())
}

/// Says that the request of a claim still runs.
///
/// # Errors
/// As [`claim`].
pub async fn renew(database: &Database, claim: &Claim) -> Result<(), StorageError> {
    let mut link = database.serve().await?;
    let alive = ALIVE.as_secs_f64();
    link.query(
        RENEW,
        &[&claim.actor, &claim.key, &claim.request_id, &alive],
    )
    .await?;
    Ok(())
}

/// Gives a claim up, because nothing was changed.
///
/// # Errors
/// As [`claim`].
pub async fn release(database: &Database, claim: &Claim) -> Result<(), StorageError> {
    let mut link = database.serve().await?;
    link.query(RELEASE, &[&claim.actor, &claim.key, &claim.request_id])
        .await?;
    Ok(())
}

/// Deletes answers whose time is over.
///
/// # Errors
/// As [`claim`].
pub async fn sweep(database: &Database) -> Result<(), StorageError> {
    database.work().await?.query(SWEEP, &[]).await?;
    Ok(())
}
