//! Why somebody was refused, for the log and, where a change was refused, for the audit log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use podium_storage::audit::{self, RefusedChanges};
use podium_storage::{Database, StorageError};

use super::Role;
use crate::problem::{ApiError, Code};

/// Different refusals that are kept apart within a minute; what comes beyond is counted together.
const MOST: usize = 1_000;

/// A request that was not let in.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Who asked; `None` where nobody knows.
    pub actor: Option<String>,
    /// 401 or 403; 503 where nobody can tell.
    pub status: u16,
    /// Why, for the operator; the client is not told.
    pub reason: &'static str,
    detail: String,
}

impl Refusal {
    /// 401.
    #[must_use]
    pub fn unknown(reason: &'static str) -> Self {
        Self {
            actor: None,
            status: 401,
            reason,
            detail: String::new(),
        }
    }

    /// 503: who is asking, or what he may do, stands where nothing was read from yet.
    #[must_use]
    pub fn not_known_yet(actor: Option<String>) -> Self {
        Self {
            actor,
            status: 503,
            reason: "people and keys were not read yet",
            detail: String::new(),
        }
    }

    /// 403.
    #[must_use]
    pub fn forbidden(actor: String, reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            actor: Some(actor),
            status: 403,
            reason,
            detail: detail.into(),
        }
    }

    /// 403 for somebody who would need the role `wanted`, or for a key.
    #[must_use]
    pub fn role_too_low(actor: String, wanted: Role, by_key: bool) -> Self {
        let detail = if by_key {
            "this needs a key of a higher scope".to_owned()
        } else {
            format!("this needs at least the role {}", wanted.name())
        };
        Self::forbidden(actor, "role too low", detail)
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self) -> ApiError {
        match self.status {
            401 => ApiError::unauthorized(),
            403 => ApiError::new(Code::Forbidden, self.detail.clone()),
            _ => ApiError::unavailable(),
        }
    }
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    actor: Option<String>,
    route: String,
    status: u16,
    reason: &'static str,
    address: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    times: i64,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
}

/// Refused changes since the audit log was last told, in bounded memory. Whoever floods us with bad tokens must not fill
/// the audit log.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: Mutex<HashMap<Kind, Count>>,
}

impl Refusals {
    /// Counts a refused change of `route` (method and pattern of the path).
    pub fn note(
        &self,
        refusal: &Refusal,
        route: String,
        address: Option<IpAddr>,
        now: DateTime<Utc>,
    ) {
        let kind = Kind {
            actor: refusal.actor.clone(),
            route,
            status: refusal.status,
            reason: refusal.reason,
            address,
        };
        let count = Count {
            times: 1,
            first: now,
            last: now,
        };
        self.add(kind, count);
    }

    fn add(&self, mut kind: Kind, more: Count) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MOST && !counts.contains_key(&kind) {
            kind = Kind {
                actor: None,
                route: "others".to_owned(),
                address: None,
                ..kind
            };
        }
        let count = counts.entry(kind).or_insert(Count { times: 0, ..more });
        count.times = count.times.saturating_add(more.times);
        count.first = count.first.min(more.first);
        count.last = count.last.max(more.last);
    }

    /// Writes one entry for each kind into the audit log.
    ///
    /// # Errors
    /// [`StorageError`]; then they are written with the next ones.
    pub async fn store(&self, database: &Database) -> Result<(), StorageError> {
        let taken =
            std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        if taken.is_empty() {
            return Ok(());
        }
        let entries: Vec<RefusedChanges> = taken.iter().map(entry).collect();
        let stored = audit::append_refused(database, &entries).await;
        if stored.is_err() {
            for (kind, count) in taken {
                self.add(kind, count);
            }
        }
        stored
    }
}

fn entry((kind, count): (&Kind, &Count)) -> RefusedChanges {
    RefusedChanges {
        actor: kind.actor.clone(),
        route: kind.route.clone(),
        status: kind.status,
        reason: kind.reason,
        address: kind.address.map(|address| address.to_string()),
        times: count.times,
        first: count.first,
        last: count.last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_takes_bounded_memory_and_every_refusal_counts() {
        let refusals = Refusals::default();
        for n in 0..3_000_u32 {
            let address = Some(IpAddr::from(n.to_be_bytes()));
            let now = DateTime::UNIX_EPOCH;
            refusals.note(
                &Refusal::unknown("no token"),
                "POST /x".into(),
                address,
                now,
            );
        }
        let counts = refusals.counts.lock().unwrap();
        assert_eq!(counts.len(), MOST + 1);
        assert_eq!(counts.values().map(|count| count.times).sum::<i64>(), 3_000);
    }
}
