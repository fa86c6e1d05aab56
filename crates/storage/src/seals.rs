//! Seals over the audit logs: a chain of hashes that shows when entries were changed, cut out or slipped in.
//!
//! **Order.** An entry queues in the transaction that writes it, and a seal takes what it finds in the queue, so seals follow
//! the order of commits, an entry that commits late is sealed late, and no writer waits for the chain. One replica
//! seals at a time, under an advisory lock; whoever holds it has just committed the last seal or sees it.
//!
//! **Hash.** SHA-256 over the hash of the seal before, the seal's number, its time and the number of its entries, and then for
//! each entry its log, its length and a JSON array of its columns. Columns are named one by one, so that a column that
//! is added later does not break old seals.
//!
//! **What it cannot show.** Whoever owns the database can cut the end off, entries and seals together, or compute a whole new
//! chain. Against that the last seal is noted elsewhere (each is in the log), and given to `verify`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Row, Transaction};

use crate::connect::{ConnectSettings, Purpose};
use crate::rows::column;
use crate::{Database, StorageError};

/// Most entries of one seal, which are in memory together.
const AT_ONCE: i64 = 1_000;
/// Key of the advisory lock that lets one replica seal.
const LOCK_KEY: i64 = 0x706f_6469_756d_0007;
/// What every hash begins with, so that another form gets another name.
const FORM: &[u8] = b"podium audit seal 1\n";

/// SHA-256.
pub type Hash = [u8; 32];

/// The end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Number, from 1 on without gaps.
    pub id: i64,
    /// Over everything up to here.
    pub hash: Hash,
}

impl Seal {
    /// What the first seal follows.
    const NONE: Self = Self {
        id: 0,
        hash: [0; 32],
    };
}

impl std::fmt::Display for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.id)?;
        self.hash
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for Seal {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (id, hex) = text.split_once(':').ok_or(())?;
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(());
        }
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            let digits = hex.get(2 * at..2 * at + 2).ok_or(())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ())?;
        }
        let id = id.parse().map_err(|_| ())?;
        Ok(Self { id, hash })
    }
}

const LAST: &str = "-- seals::last
SELECT id, hash FROM audit_seals ORDER BY id DESC LIMIT 1";

const TAKE: &str = "-- seals::take
DELETE FROM audit_unsealed WHERE (log, row_id) IN (SELECT log, row_id FROM audit_unsealed ORDER BY log, row_id LIMIT $1)
RETURNING log, row_id, now() AS now";

const WRITE: &str = "-- seals::write
INSERT INTO audit_seals (id, sealed_at, audit_ids, promotion_ids, previous, hash) VALUES ($1, $2, $3, $4, $5, $6)";

const AUDIT_ENTRIES: &str = "-- seals::audit_entries
SELECT id, jsonb_build_array(id, (extract(epoch FROM at) * 1000000)::bigint, actor, action, entity, entity_id, experiment_id,
           before, after, request_id, address)::text AS entry
FROM audit_log WHERE id = ANY($1) ORDER BY id";

const PROMOTION_ENTRIES: &str = "-- seals::promotion_entries
SELECT id, jsonb_build_array(id, experiment_id, experiment_name, winning_variant_id, winning_variant_name, previous_winner_id,
           action, triggered_by, user_id, confidence_level, improvement, sample_size, safety_checks_json, reason,
           (extract(epoch FROM promoted_at) * 1000000)::bigint, (extract(epoch FROM rolled_back_at) * 1000000)::bigint,
           rollback_reason, (extract(epoch FROM created_at) * 1000000)::bigint)::text AS entry
FROM ab_promotion_audit_log WHERE id = ANY($1) ORDER BY id";

/// Seals what waits, at most about a thousand entries. `None` when nothing waited or another replica is at it.
///
/// # Errors
/// [`StorageError`] when the database does not answer; then nothing was sealed.
pub async fn seal_once(database: &Database) -> Result<Option<Seal>, StorageError> {
    let mut link = database.work().await?;
    let limit = Purpose::Work.client_limit();
    let client = link.client()?;
    tokio::time::timeout(limit, seal(client))
        .await
        .map_err(|_| StorageError::TimedOut)?
}

async fn seal(client: &mut Client) -> Result<Option<Seal>, StorageError> {
    let tx = client.transaction().await?;
    let lock = tx
        .query_one("SELECT pg_try_advisory_xact_lock($1)", &[&LOCK_KEY])
        .await?;
    if !lock.get::<_, bool>(0) {
        return Ok(None);
    }
    let waiting = tx.query(TAKE, &[&AT_ONCE]).await?;
    let Some(first) = waiting.first() else {
        return Ok(None);
    };
    let sealed_at: DateTime<Utc> = column(first, "audit_unsealed", "now")?;
    let (audit_ids, promotion_ids) = (ids_of(&waiting, 1)?, ids_of(&waiting, 2)?);
    let last = last(&tx).await?;
    let id = last.id + 1;
    let entries = entries(&tx, &audit_ids, &promotion_ids).await?;
    let hash = hash(&last.hash, id, sealed_at, &entries);
    let parameters: [&(dyn ToSql + Sync); 6] = [
        &id,
        &sealed_at,
        &audit_ids,
        &promotion_ids,
        &last.hash.as_slice(),
        &hash.as_slice(),
    ];
    tx.execute(WRITE, &parameters).await?;
    tx.commit().await?;
    Ok(Some(Seal { id, hash }))
}

fn ids_of(waiting: &[Row], log: i16) -> Result<Vec<i64>, StorageError> {
    let mut ids = Vec::new();
    for row in waiting {
        if column::<i16>(row, "audit_unsealed", "log")? == log {
            ids.push(column(row, "audit_unsealed", "row_id")?);
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

async fn last(tx: &Transaction<'_>) -> Result<Seal, StorageError> {
    match tx.query_opt(LAST, &[]).await? {
        None => Ok(Seal::NONE),
        Some(row) => Ok(Seal {
            id: column(&row, "audit_seals", "id")?,
            hash: hash_column(&row, "hash")?,
        }),
    }
}

fn hash_column(row: &Row, name: &'static str) -> Result<Hash, StorageError> {
    let bytes: &[u8] = column(row, "audit_seals", name)?;
    bytes.try_into().map_err(|_| StorageError::CorruptRow {
        table: "audit_seals",
        column: name,
    })
}

/// An entry of a log, in the form that is hashed.
struct Entry {
    log: u8,
    id: i64,
    text: String,
}

async fn entries(
    tx: &Transaction<'_>,
    audit_ids: &[i64],
    promotion_ids: &[i64],
) -> Result<Vec<Entry>, StorageError> {
    let mut entries = Vec::with_capacity(audit_ids.len() + promotion_ids.len());
    for (log, table, sql, ids) in [
        (1, "audit_log", AUDIT_ENTRIES, audit_ids),
        (
            2,
            "ab_promotion_audit_log",
            PROMOTION_ENTRIES,
            promotion_ids,
        ),
    ] {
        if ids.is_empty() {
            continue;
        }
        for row in tx.query(sql, &[&ids]).await? {
            entries.push(Entry {
                log,
                id: column(&row, table, "id")?,
                text: column(&row, table, "entry")?,
            });
        }
    }
    Ok(entries)
}

fn hash(previous: &Hash, id: i64, sealed_at: DateTime<Utc>, entries: &[Entry]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(FORM);
    hash.update(previous);
    hash.update(id.to_be_bytes());
    hash.update(sealed_at.timestamp_micros().to_be_bytes());
    hash.update((entries.len() as u64).to_be_bytes());
    for entry in entries {
        hash.update([entry.log]);
        hash.update((entry.text.len() as u64).to_be_bytes());
        hash.update(entry.text.as_bytes());
    }
    hash.finalize().into()
}

/// Something in the logs that is not as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A seal is not there.
    MissingSeal(i64),
    /// A seal does not follow the one before it.
    BrokenChain(i64),
    /// Entries that a seal covers are not there: the log and their ids.
    MissingEntries(i64, &'static str, Vec<i64>),
    /// A seal, or an entry that it covers, was changed.
    Changed(i64),
    /// Entries that no seal covers and that do not wait for one: the log and how many.
    Unsealed(&'static str, i64),
    /// An entry that two seals cover: the log and its id.
    Twice(&'static str, i64),
    /// The chain does not hold the seal that was given.
    OtherChain(i64),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MissingSeal(id) => write!(f, "seal {id} is missing"),
            Self::BrokenChain(id) => write!(f, "seal {id} does not follow the one before it"),
            Self::MissingEntries(id, log, entries) => {
                write!(
                    f,
                    "seal {id} covers entries of {log} that are missing: {entries:?}"
                )
            }
            Self::Changed(id) => write!(f, "seal {id}, or an entry that it covers, was changed"),
            Self::Unsealed(log, count) => write!(
                f,
                "{count} entries of {log} are covered by no seal and do not wait for one"
            ),
            Self::Twice(log, id) => write!(f, "entry {id} of {log} is covered by two seals"),
            Self::OtherChain(id) => write!(f, "seal {id} is not the one that was given"),
        }
    }
}

/// What a check of the whole chain showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The last seal, to be noted elsewhere; `None` when there is none.
    pub last: Option<Seal>,
    /// Entries that seals cover.
    pub entries: u64,
    /// Entries that wait for a seal.
    pub waiting: i64,
    /// Everything that is not as it was sealed.
    pub findings: Vec<Finding>,
}

const SEALS: &str = "-- seals::seals
SELECT id, sealed_at, audit_ids, promotion_ids, previous, hash FROM audit_seals WHERE id > $1 ORDER BY id LIMIT 100";

const WAITING: &str = "-- seals::waiting
SELECT count(*) AS waiting FROM audit_unsealed";

/// Entries that neither a seal nor the queue knows.
const UNCOVERED: [(&str, &str); 2] = [
    (
        "audit_log",
        "-- seals::uncovered_audit
SELECT count(*) AS entries FROM (
    SELECT id FROM audit_log EXCEPT SELECT row_id FROM audit_unsealed WHERE log = 1
    EXCEPT SELECT unnest(audit_ids) FROM audit_seals) uncovered",
    ),
    (
        "ab_promotion_audit_log",
        "-- seals::uncovered_promotion
SELECT count(*) AS entries FROM (
    SELECT id FROM ab_promotion_audit_log EXCEPT SELECT row_id FROM audit_unsealed WHERE log = 2
    EXCEPT SELECT unnest(promotion_ids) FROM audit_seals) uncovered",
    ),
];

const TWICE: [(&str, &str); 2] = [
    (
        "audit_log",
        "-- seals::twice_audit
SELECT id FROM (SELECT unnest(audit_ids) AS id FROM audit_seals) covered GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 100",
    ),
    (
        "ab_promotion_audit_log",
        "-- seals::twice_promotion
SELECT id FROM (SELECT unnest(promotion_ids) AS id FROM audit_seals) covered GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 100",
    ),
];

/// Checks every seal and every entry, in the memory of one seal, from one snapshot. `anchor` is a seal that was noted earlier:
/// the chain must hold it, so an end that was cut off, or a chain that was computed anew, is found.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn verify(
    settings: &ConnectSettings,
    anchor: Option<Seal>,
) -> Result<Verified, StorageError> {
    let mut client = settings.connect(Purpose::Maintain).await?;
    let tx = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let mut check = Check {
        last: Seal::NONE,
        anchor,
        entries: 0,
        findings: Vec::new(),
    };
    loop {
        let seals = tx.query(SEALS, &[&check.last.id]).await?;
        if seals.is_empty() {
            break;
        }
        for row in seals {
            check.seal(&tx, &row).await?;
        }
    }
    check.ends(&tx).await
}

struct Check {
    last: Seal,
    anchor: Option<Seal>,
    entries: u64,
    findings: Vec<Finding>,
}

impl Check {
    async fn seal(&mut self, tx: &Transaction<'_>, row: &Row) -> Result<(), StorageError> {
        const T: &str = "audit_seals";
        let id: i64 = column(row, T, "id")?;
        for missing in self.last.id + 1..id {
            self.findings.push(Finding::MissingSeal(missing));
            if self.findings.len() > 1_000 {
                break;
            }
        }
        let (previous, stored) = (hash_column(row, "previous")?, hash_column(row, "hash")?);
        if previous != self.last.hash && id == self.last.id + 1 {
            self.findings.push(Finding::BrokenChain(id));
        }
        let audit_ids: Vec<i64> = column(row, T, "audit_ids")?;
        let promotion_ids: Vec<i64> = column(row, T, "promotion_ids")?;
        let found = entries(tx, &audit_ids, &promotion_ids).await?;
        let mut complete = true;
        for (log, name, ids) in [
            (1, "audit_log", &audit_ids),
            (2, "ab_promotion_audit_log", &promotion_ids),
        ] {
            let there: BTreeMap<i64, ()> = found
                .iter()
                .filter(|entry| entry.log == log)
                .map(|entry| (entry.id, ()))
                .collect();
            let missing: Vec<i64> = ids
                .iter()
                .filter(|id| !there.contains_key(id))
                .copied()
                .collect();
            if !missing.is_empty() {
                complete = false;
                self.findings
                    .push(Finding::MissingEntries(id, name, missing));
            }
        }
        let sealed_at = column(row, T, "sealed_at")?;
        if complete && hash(&previous, id, sealed_at, &found) != stored {
            self.findings.push(Finding::Changed(id));
        }
        if self
            .anchor
            .is_some_and(|anchor| anchor.id == id && anchor.hash != stored)
        {
            self.findings.push(Finding::OtherChain(id));
        }
        self.entries += found.len() as u64;
        self.last = Seal { id, hash: stored };
        Ok(())
    }

    /// What can be said only when every seal was seen.
    async fn ends(mut self, tx: &Transaction<'_>) -> Result<Verified, StorageError> {
        if let Some(anchor) = self.anchor.filter(|anchor| anchor.id > self.last.id) {
            self.findings.push(Finding::MissingSeal(anchor.id));
        }
        for (log, sql) in UNCOVERED {
            let count: i64 = column(&tx.query_one(sql, &[]).await?, "audit_log", "entries")?;
            if count > 0 {
                self.findings.push(Finding::Unsealed(log, count));
            }
        }
        for (log, sql) in TWICE {
            for row in tx.query(sql, &[]).await? {
                let id = column(&row, "audit_seals", "id")?;
                self.findings.push(Finding::Twice(log, id));
            }
        }
        let waiting = tx.query_one(WAITING, &[]).await?;
        Ok(Verified {
            last: (self.last.id > 0).then_some(self.last),
            entries: self.entries,
            waiting: column(&waiting, "audit_unsealed", "waiting")?,
            findings: self.findings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_written_down_and_read_again() {
        let mut seal = Seal::NONE;
        seal.id = 12;
        seal.hash[31] = 0xa1;
        assert_eq!(seal.to_string(), format!("12:{}a1", "00".repeat(31)));
        assert_eq!(seal.to_string().parse(), Ok(seal));
        for wrong in [
            "",
            "12",
            "12:",
            "x:00",
            &format!("1:{}", "é".repeat(32)),
            &format!("1:{}", "g".repeat(64)),
        ] {
            assert!(wrong.parse::<Seal>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn entries_cannot_be_moved_into_one_another() {
        let entry = |log, text: &str| Entry {
            log,
            id: 1,
            text: text.into(),
        };
        let of = |entries: &[Entry]| hash(&[0; 32], 1, DateTime::UNIX_EPOCH, entries);
        let one = of(&[entry(1, "ab"), entry(1, "c")]);
        assert_ne!(one, of(&[entry(1, "a"), entry(1, "bc")]));
        assert_ne!(one, of(&[entry(1, "abc")]));
        assert_ne!(one, of(&[entry(2, "ab"), entry(1, "c")]));
        assert_ne!(
            one,
            hash(
                &[1; 32],
                1,
                DateTime::UNIX_EPOCH,
                &[entry(1, "ab"), entry(1, "c")]
            )
        );
    }
}
