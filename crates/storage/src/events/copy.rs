//! A large group: keys and rows by COPY, in one transaction. Ids that were there before are rare, and looking for each costs
//! as much as writing it, so a group is written as if there were none. The unique index refuses it where there is one; then it
//! is written anew by [`Manner::Looking`], and so are the next ones, because repetitions come in swarms.

use std::collections::HashSet;
use std::error::Error;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::CopyInSink;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::{Arm, EventRow};
use crate::StorageError;
use crate::database::Link;
use crate::numeric::TenThousandths;
use crate::rows::column;

/// Groups that look for ids that are there, after one that met such an id.
const WARY_GROUPS: u32 = 100;

/// Rows of one COPY, where a group is not so large that it would be more than [`PARTS`]. PostgreSQL keeps a reference to the
/// type of each row, up to a thousand, in a table in which equal ones are looked for one after the other: a row of a thousand
/// costs a sixth more than one of 250.
const PART_ROWS: usize = 250;

/// COPYs that a group is divided into at most. Each is waited for, which a job of very many rows on a distant server would
/// not have the time for.
const PARTS: usize = 4;

/// How many of the next groups look for ids that are there.
#[derive(Debug, Default)]
pub(super) struct Wary(AtomicU32);

impl Wary {
    fn begin(&self) {
        self.0.store(WARY_GROUPS, Ordering::Relaxed);
    }

    /// Whether this group has to look.
    fn count_down(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        let update = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        update.is_ok()
    }
}

/// How the keys of a group are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// By COPY; an id that is there refuses the whole group.
    Trusting,
    /// By a statement that tells which ids are new.
    Looking,
}

/// The keys are told only when some were there before.
const KEYS: &str = "-- events::keys
WITH new AS (
    INSERT INTO experiment_event_keys (key) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING key),
counted AS (SELECT count(*) AS keys FROM new)
SELECT CASE WHEN c.keys < cardinality($1::uuid[]) THEN ARRAY(SELECT key FROM new) END AS new,
       pg_current_xact_id()::text::bigint AS tx_id, now() AS arrived_at
FROM counted c";

const STAMP: &str = "-- events::stamp
SELECT pg_current_xact_id()::text::bigint AS tx_id, now() AS arrived_at";

const COPY_KEYS: &str = "-- events::copy_keys
COPY experiment_event_keys (key) FROM STDIN (FORMAT binary)";

const COPY: &str = "-- events::copy
COPY experiment_events (event_id, user_id, experiment_id, variant_id, event_type, item_id, brand_id, position, module_id,
    event_data, value, quantity, latency_ms, is_error, session_id, decision_id, is_bot, counted, occurred_at,
    promotion_id, promotion_step, promotion_arm, tx_id)
FROM STDIN (FORMAT binary)";

const TYPES: [Type; 23] = [
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::TEXT,
    Type::JSONB,
    Type::NUMERIC,
    Type::INT4,
    Type::FLOAT8,
    Type::BOOL,
    Type::TEXT,
    Type::TEXT,
    Type::BOOL,
    Type::BOOL,
    Type::TIMESTAMPTZ,
    Type::UUID,
    Type::INT4,
    Type::INT2,
    Type::INT8,
];

/// Writes rows with distinct keys, in key order, and returns the keys that were new, or `None` where all were.
pub(super) async fn copy(
    link: &mut Link,
    rows: &[&EventRow],
    wary: &Wary,
) -> Result<Option<HashSet<Uuid>>, StorageError> {
    if !wary.count_down() {
        match in_time(link, rows, Manner::Trusting).await {
            Err(error) if error.sql_state() == Some(&SqlState::UNIQUE_VIOLATION) => wary.begin(),
            outcome => return outcome,
        }
    }
    in_time(link, rows, Manner::Looking).await
}

async fn in_time(
    link: &mut Link,
    rows: &[&EventRow],
    manner: Manner,
) -> Result<Option<HashSet<Uuid>>, StorageError> {
    let limit = link.limit();
    let work = in_transaction(link.object_mut()?, rows, manner);
    let outcome = tokio::time::timeout(limit, work).await;
    link.settle_copy(outcome)
}

async fn in_transaction(
    client: &mut Object,
    rows: &[&EventRow],
    manner: Manner,
) -> Result<Option<HashSet<Uuid>>, StorageError> {
    let transaction = client.transaction().await?;
    let (new, stamp) = match manner {
        Manner::Trusting => (None, copy_keys(&transaction, rows).await?),
        Manner::Looking => insert_keys(&transaction, rows).await?,
    };
    match &new {
        None => copy_rows(transaction, rows, &stamp).await?,
        Some(new) if new.is_empty() => transaction.commit().await?,
        Some(new) => {
            let is_new = |row: &&EventRow| new.contains(&row.key);
            let fresh: Vec<&EventRow> = rows.iter().copied().filter(is_new).collect();
            copy_rows(transaction, &fresh, &stamp).await?;
        }
    }
    Ok(new)
}

/// What all rows of a transaction share.
struct Stamp {
    tx_id: i64,
    arrived_at: DateTime<Utc>,
}

impl Stamp {
    fn of(row: &tokio_postgres::Row) -> Result<Self, StorageError> {
        Ok(Self {
            tx_id: column(row, "experiment_event_keys", "tx_id")?,
            arrived_at: column(row, "experiment_event_keys", "arrived_at")?,
        })
    }
}

/// Returns the keys that were new, or `None` where all were.
async fn insert_keys(
    transaction: &Transaction<'_>,
    rows: &[&EventRow],
) -> Result<(Option<HashSet<Uuid>>, Stamp), StorageError> {
    let keys: Vec<Uuid> = rows.iter().map(|row| row.key).collect();
    let statement = transaction.prepare_cached(KEYS).await?;
    let told = transaction.query_one(&statement, &[&keys]).await?;
    let new: Option<Vec<Uuid>> = column(&told, "experiment_event_keys", "new")?;
    let new = new.map(|keys| keys.into_iter().collect());
    Ok((new, Stamp::of(&told)?))
}

async fn copy_keys(
    transaction: &Transaction<'_>,
    rows: &[&EventRow],
) -> Result<Stamp, StorageError> {
    let stamp = transaction.prepare_cached(STAMP).await?;
    let copy = transaction.prepare_cached(COPY_KEYS).await?;
    // Both go out together: one trip to the server instead of two.
    let (told, sink) = tokio::try_join!(
        transaction.query_one(&stamp, &[]),
        transaction.copy_in(&copy)
    )?;
    let mut parts = rows.chunks(part_rows(rows.len()));
    copy_part_of_keys(sink, parts.next().unwrap_or_default()).await?;
    for part in parts {
        copy_part_of_keys(transaction.copy_in(&copy).await?, part).await?;
    }
    Stamp::of(&told)
}

/// Rows of each COPY but the last, in a group of `rows`.
fn part_rows(rows: usize) -> usize {
    rows.div_ceil(PARTS).max(PART_ROWS)
}

async fn copy_part_of_keys(
    sink: CopyInSink<Bytes>,
    rows: &[&EventRow],
) -> Result<(), StorageError> {
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::UUID]));
    for row in rows {
        writer.as_mut().write(&[&row.key]).await?;
    }
    writer.as_mut().finish().await?;
    Ok(())
}

/// Copies the rows and commits.
async fn copy_rows(
    transaction: Transaction<'_>,
    rows: &[&EventRow],
    stamp: &Stamp,
) -> Result<(), StorageError> {
    let statement = transaction.prepare_cached(COPY).await?;
    let part_rows = part_rows(rows.len());
    let (before, last) = rows.split_at(rows.len().saturating_sub(1) / part_rows * part_rows);
    for part in before.chunks(part_rows) {
        let sink = transaction.copy_in(&statement).await?;
        copy_part_of_rows(sink, part, stamp)
            .await?
            .as_mut()
            .finish()
            .await?;
    }
    let sink = transaction.copy_in(&statement).await?;
    let mut last = copy_part_of_rows(sink, last, stamp).await?;
    // The commit follows without waiting for what the copy says. Where the copy failed PostgreSQL rolls back, and calls
    // that no error; the copy's own tells.
    let (copied, committed) = tokio::join!(last.as_mut().finish(), transaction.commit());
    copied?;
    committed?;
    Ok(())
}

/// Hands in all rows; the COPY is still to be finished.
async fn copy_part_of_rows(
    sink: CopyInSink<Bytes>,
    rows: &[&EventRow],
    stamp: &Stamp,
) -> Result<Pin<Box<BinaryCopyInWriter>>, StorageError> {
    let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &TYPES));
    for row in rows {
        write_row(writer.as_mut(), row, stamp).await?;
    }
    Ok(writer)
}

async fn write_row(
    writer: Pin<&mut BinaryCopyInWriter>,
    row: &EventRow,
    stamp: &Stamp,
) -> Result<(), StorageError> {
    let event_data = row.event_data.as_deref().map(JsonText);
    let value = row.value_e4.map(TenThousandths);
    let values: [&(dyn ToSql + Sync); 23] = [
        &row.event_id,
        &row.unit,
        &row.experiment_id,
        &row.variant_id,
        &row.event_type,
        &row.item_id,
        &row.brand_id,
        &row.position,
        &row.module_id,
        &event_data,
        &value,
        &row.quantity,
        &row.latency_ms,
        &row.is_error,
        &row.session_id,
        &row.decision_id,
        &row.is_bot,
        &row.counted,
        row.occurred_at.as_ref().unwrap_or(&stamp.arrived_at),
        &row.promotion.map(|p| p.promotion_id),
        &row.promotion.map(|p| p.step),
        &row.promotion.and_then(|p| p.arm).map(Arm::code),
        &stamp.tx_id,
    ];
    Ok(writer.write(&values).await?)
}

/// JSON text as `jsonb`: its only wire format so far is a version byte and the text.
#[derive(Debug)]
struct JsonText<'a>(&'a [u8]);

impl ToSql for JsonText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u8(1);
        out.put_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_few_parts() {
        for (rows, parts) in [
            (1_usize, 1),
            (250, 1),
            (251, 2),
            (1_000, 4),
            (1_001, 4),
            (40_000, 4),
        ] {
            assert_eq!(rows.div_ceil(part_rows(rows)), parts, "{rows}");
        }
    }
}
