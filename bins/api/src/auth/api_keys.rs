//! API keys: how a request presents one, which one it is, and when it was used.
//!
//! A key is `podium_<scope>_<prefix>_<secret>`. The prefix names it, in lists and in the audit log; the secret is 256 random
//! bits, so its SHA-256 needs neither salt nor a slow function: nobody can try enough of them. Definitions in memory hold the
//! digest, so no request waits for the database.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use podium_serving::snapshot::Snapshot;
use podium_storage::api_keys::{ApiKeyDefinition, Scope};
use podium_storage::{Database, StorageError};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::refusals::Refusal;

/// What the actor of a key begins with; no user id does.
pub const ACTOR: &str = "api-key:";
/// What every key begins with. No token does: those begin with a brace in Base64.
const MARK: &str = "podium_";
/// Longest key, in bytes.
const LONGEST: usize = 128;
/// A use is noted when the one that is noted is older than this.
const NOTE_EVERY: TimeDelta = TimeDelta::seconds(60);

/// The key as an actor of the audit log.
#[must_use]
pub fn actor(prefix: &str) -> String {
    format!("{ACTOR}{prefix}")
}

/// A key that was made just now: shown once, then only its digest is left.
pub struct FreshKey {
    /// Names it.
    pub prefix: String,
    /// The whole key.
    pub key: String,
    /// SHA-256 of the whole key.
    pub digest: [u8; 32],
}

impl FreshKey {
    /// A key from 304 random bits.
    #[must_use]
    pub fn new(scope: Scope, name: [u8; 6], secret: [u8; 32]) -> Self {
        let prefix = hex(&name);
        let key = format!("{MARK}{}_{prefix}_{}", scope.name(), hex(&secret));
        let digest = digest(&key);
        Self {
            prefix,
            key,
            digest,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// The third part of a key.
fn prefix_of(key: &str) -> Option<&str> {
    key.strip_prefix(MARK)?.split('_').nth(1)
}

/// What a request brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// A bearer token.
    Token(&'a str),
    /// An API key.
    Key(&'a str),
}

/// The two headers that may hold a credential, each with all its lines.
#[derive(Clone, Debug, Default)]
pub struct Presented<'a> {
    /// `Authorization`
    pub authorization: Vec<&'a str>,
    /// `X-API-Key`
    pub api_key: Vec<&'a str>,
}

impl<'a> Presented<'a> {
    /// The one credential.
    ///
    /// # Errors
    /// What is wrong: none, or more than one. Which of two counts would depend on who reads them.
    pub fn only(&self) -> Result<Credential<'a>, &'static str> {
        match (self.authorization.as_slice(), self.api_key.as_slice()) {
            ([], []) => Err("no token"),
            ([], [key]) => Ok(Credential::Key(key)),
            ([header], []) => bearer(header),
            _ => Err("more than one credential"),
        }
    }

    /// The API key, wherever it stands. Public routes ignore whatever else a proxy may have put there.
    #[must_use]
    pub fn key(&self) -> Option<&'a str> {
        match self.only() {
            Ok(Credential::Key(key)) => Some(key),
            _ => None,
        }
    }
}

fn bearer(header: &str) -> Result<Credential<'_>, &'static str> {
    let (scheme, token) = header.split_once(' ').ok_or("not a bearer token")?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err("not a bearer token");
    }
    let token = token.trim();
    Ok(if token.starts_with(MARK) {
        Credential::Key(token)
    } else {
        Credential::Token(token)
    })
}

/// When keys were last used, until it is stored. A key that is used all the time takes the lock once a minute.
#[derive(Debug, Default)]
pub struct KeyUses {
    noted: Mutex<HashMap<i64, DateTime<Utc>>>,
}

impl KeyUses {
    /// The key in force that was presented. Notes its use.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn find<'s>(
        &self,
        presented: &str,
        snapshot: &'s Snapshot,
        now: DateTime<Utc>,
    ) -> Result<&'s ApiKeyDefinition, Refusal> {
        if !snapshot.is_read() {
            return Err(Refusal::not_known_yet(None));
        }
        let unknown = || Refusal::unknown("unknown or revoked API key");
        let known = (presented.len() <= LONGEST)
            .then(|| snapshot.api_key(prefix_of(presented)?))
            .flatten()
            .ok_or_else(unknown)?;
        let matches: bool = digest(presented).ct_eq(&known.digest).into();
        if !matches {
            return Err(unknown());
        }
        if known.expires_at.is_some_and(|end| end <= now) {
            return Err(Refusal::unknown("expired API key"));
        }
        if known.is_worth_noting(now, NOTE_EVERY) {
            self.note(known.id, now);
        }
        Ok(known)
    }

    fn note(&self, id: i64, at: DateTime<Utc>) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = noted.entry(id).or_insert(at);
        *latest = at.max(*latest);
    }

    /// Stores what was noted since the last time, in one statement.
    ///
    /// # Errors
    /// [`StorageError`]; then it is tried again with the next ones.
    pub async fn store(&self, database: &Database) -> Result<(), StorageError> {
        let taken = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        if taken.is_empty() {
            return Ok(());
        }
        let uses: Vec<(i64, DateTime<Utc>)> = taken.into_iter().collect();
        let stored = podium_storage::api_keys::note_uses(database, &uses).await;
        if stored.is_err() {
            for (id, at) in uses {
                self.note(id, at);
            }
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_itself_and_its_digest_does_not_tell_it() {
        let fresh = FreshKey::new(Scope::Client, [1, 2, 3, 4, 5, 255], [7; 32]);
        assert_eq!(fresh.prefix, "0102030405ff");
        assert_eq!(
            fresh.key,
            format!("podium_client_0102030405ff_{}", "07".repeat(32))
        );
        assert_eq!(prefix_of(&fresh.key), Some("0102030405ff"));
        assert_eq!(digest(&fresh.key), fresh.digest);
        assert_eq!(prefix_of("eyJhbGciOiJIUzI1NiJ9.e30.x"), None);
        assert!(fresh.key.len() <= LONGEST);
    }

    #[test]
    fn one_credential_is_presented_or_none() {
        let presented = |authorization: &[&'static str], api_key: &[&'static str]| {
            Presented {
                authorization: authorization.to_vec(),
                api_key: api_key.to_vec(),
            }
            .only()
        };
        assert_eq!(
            presented(&["Bearer a.b.c"], &[]),
            Ok(Credential::Token("a.b.c"))
        );
        assert_eq!(
            presented(&["bearer podium_x"], &[]),
            Ok(Credential::Key("podium_x"))
        );
        assert_eq!(
            presented(&[], &["anything"]),
            Ok(Credential::Key("anything"))
        );
        for (authorization, api_key) in [
            (&[][..], &[][..]),
            (&["Bearer a", "Bearer b"], &[]),
            (&["Bearer a"], &["b"]),
            (&[], &["a", "b"]),
            (&["Basic a"], &[]),
            (&["Bearer"], &[]),
        ] {
            assert!(presented(authorization, api_key).is_err());
        }
    }
}
