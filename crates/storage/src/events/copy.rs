//! A large group: its keys by one statement, then the rows whose keys were new by COPY, in one transaction.

use std::collections::HashSet;
use std::error::Error;
use std::pin::pin;

use bytes::{BufMut, BytesMut};
use chrono::{DateTime, Utc};
use deadpool_postgres::{Object, Transaction};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::{Arm, EventRow};
use crate::StorageError;
use crate::database::Link;
use crate::numeric::TenThousandths;
use crate::rows::column;

/// The keys are told only when some were there before, which is rare.
const KEYS: &str = "-- events::keys
WITH new AS (
    INSERT INTO experiment_event_keys (key) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING key),
counted AS (SELECT count(*) AS keys FROM new)
SELECT CASE WHEN c.keys < cardinality($1::uuid[]) THEN ARRAY(SELECT key FROM new) END AS new,
       pg_current_xact_id()::text::bigint AS tx_id, now() AS arrived_at
FROM counted c";

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

/// Writes rows with distinct keys, in key order, and returns the keys that were new.
pub(super) async fn copy(
    link: &mut Link,
    rows: &[&EventRow],
) -> Result<HashSet<Uuid>, StorageError> {
    let limit = link.limit();
    let outcome = tokio::time::timeout(limit, in_transaction(link.object_mut()?, rows)).await;
    link.settle(outcome)
}

async fn in_transaction(
    client: &mut Object,
    rows: &[&EventRow],
) -> Result<HashSet<Uuid>, StorageError> {
    let keys: Vec<Uuid> = rows.iter().map(|row| row.key).collect();
    let transaction = client.transaction().await?;
    let statement = transaction.prepare_cached(KEYS).await?;
    let told = transaction.query_one(&statement, &[&keys]).await?;
    let new: Option<Vec<Uuid>> = column(&told, "experiment_event_keys", "new")?;
    let stamp = Stamp {
        tx_id: column(&told, "experiment_event_keys", "tx_id")?,
        arrived_at: column(&told, "experiment_event_keys", "arrived_at")?,
    };
    let new: HashSet<Uuid> = new.unwrap_or(keys).into_iter().collect();
    if !new.is_empty() {
        let fresh: Vec<&EventRow> = rows
            .iter()
            .copied()
            .filter(|row| new.contains(&row.key))
            .collect();
        copy_rows(&transaction, &fresh, &stamp).await?;
    }
    transaction.commit().await?;
    Ok(new)
}

/// What all rows of a transaction share.
struct Stamp {
    tx_id: i64,
    arrived_at: DateTime<Utc>,
}

async fn copy_rows(
    transaction: &Transaction<'_>,
    rows: &[&EventRow],
    stamp: &Stamp,
) -> Result<(), StorageError> {
    let statement = transaction.prepare_cached(COPY).await?;
    let sink = transaction.copy_in(&statement).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &TYPES));
    for row in rows {
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
        writer.as_mut().write(&values).await?;
    }
    writer.as_mut().finish().await?;
    Ok(())
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
