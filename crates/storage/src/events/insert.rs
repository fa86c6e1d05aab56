//! A small group: keys and rows in one statement.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Arm, EventRow};
use crate::StorageError;
use crate::database::Link;
use crate::rows::column;

const INSERT: &str = "-- events::insert
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
        $9::integer[], $10::text[], $11::text[], $12::bigint[], $13::integer[], $14::double precision[], $15::boolean[],
        $16::text[], $17::text[], $18::boolean[], $19::boolean[], $20::timestamptz[],
        $21::uuid[], $22::integer[], $23::smallint[])
    AS i (key, event_id, unit, experiment_id, variant_id, event_type, item_id, brand_id, position, module_id, event_data,
          value_e4, quantity, latency_ms, is_error, session_id, decision_id, is_bot, counted, occurred_at,
          promotion_id, promotion_step, promotion_arm)),
keys AS (
    INSERT INTO experiment_event_keys (key) SELECT key FROM input ON CONFLICT DO NOTHING RETURNING key),
rows AS (
    INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, item_id, brand_id, position,
        module_id, event_data, value, quantity, latency_ms, is_error, session_id, decision_id, is_bot, counted, occurred_at,
        promotion_id, promotion_step, promotion_arm, tx_id)
    SELECT i.event_id, i.unit, i.experiment_id, i.variant_id, i.event_type, i.item_id, i.brand_id, i.position,
        i.module_id, i.event_data::jsonb, i.value_e4 * 0.0001, i.quantity, i.latency_ms, i.is_error, i.session_id,
        i.decision_id, i.is_bot, i.counted, coalesce(i.occurred_at, now()),
        i.promotion_id, i.promotion_step, i.promotion_arm, (SELECT pg_current_xact_id()::text::bigint)
    FROM input i JOIN keys USING (key))
SELECT key FROM keys";

/// Writes rows with distinct keys, in key order, and returns the keys that were new.
pub(super) async fn insert(
    link: &mut Link,
    rows: &[&EventRow],
) -> Result<HashSet<Uuid>, StorageError> {
    let columns = Columns::of(rows);
    let inserted = link.query(INSERT, &columns.params()).await?;
    inserted
        .iter()
        .map(|row| column(row, "experiment_event_keys", "key"))
        .collect()
}

/// The rows of a group, column by column, as the statement takes them.
#[derive(Default)]
struct Columns<'a> {
    key: Vec<Uuid>,
    event_id: Vec<&'a str>,
    unit: Vec<&'a str>,
    experiment_id: Vec<i64>,
    variant_id: Vec<i64>,
    event_type: Vec<&'a str>,
    item_id: Vec<Option<&'a str>>,
    brand_id: Vec<Option<&'a str>>,
    position: Vec<Option<i32>>,
    module_id: Vec<Option<&'a str>>,
    event_data: Vec<Option<&'a str>>,
    value_e4: Vec<Option<i64>>,
    quantity: Vec<Option<i32>>,
    latency_ms: Vec<Option<f64>>,
    is_error: Vec<Option<bool>>,
    session_id: Vec<Option<&'a str>>,
    decision_id: Vec<Option<&'a str>>,
    is_bot: Vec<bool>,
    counted: Vec<bool>,
    occurred_at: Vec<Option<DateTime<Utc>>>,
    promotion_id: Vec<Option<Uuid>>,
    promotion_step: Vec<Option<i32>>,
    promotion_arm: Vec<Option<i16>>,
}

impl<'a> Columns<'a> {
    fn of(rows: &[&'a EventRow]) -> Self {
        let mut columns = Self::default();
        for row in rows {
            columns.key.push(row.key);
            columns.event_id.push(&row.event_id);
            columns.unit.push(&row.unit);
            columns.experiment_id.push(row.experiment_id);
            columns.variant_id.push(row.variant_id);
            columns.event_type.push(row.event_type);
            columns.item_id.push(row.item_id.as_deref());
            columns.brand_id.push(row.brand_id.as_deref());
            columns.position.push(row.position);
            columns.module_id.push(row.module_id.as_deref());
            columns.event_data.push(
                row.event_data
                    .as_deref()
                    .and_then(|data| std::str::from_utf8(data).ok()),
            );
            columns.value_e4.push(row.value_e4);
            columns.quantity.push(row.quantity);
            columns.latency_ms.push(row.latency_ms);
            columns.is_error.push(row.is_error);
            columns.session_id.push(row.session_id.as_deref());
            columns.decision_id.push(row.decision_id.as_deref());
            columns.is_bot.push(row.is_bot);
            columns.counted.push(row.counted);
            columns.occurred_at.push(row.occurred_at);
            let promotion = row.promotion;
            columns.promotion_id.push(promotion.map(|p| p.promotion_id));
            columns.promotion_step.push(promotion.map(|p| p.step));
            let arm = promotion.and_then(|p| p.arm).map(Arm::code);
            columns.promotion_arm.push(arm);
        }
        columns
    }

    fn params(&self) -> [&(dyn tokio_postgres::types::ToSql + Sync); 23] {
        [
            &self.key,
            &self.event_id,
            &self.unit,
            &self.experiment_id,
            &self.variant_id,
            &self.event_type,
            &self.item_id,
            &self.brand_id,
            &self.position,
            &self.module_id,
            &self.event_data,
            &self.value_e4,
            &self.quantity,
            &self.latency_ms,
            &self.is_error,
            &self.session_id,
            &self.decision_id,
            &self.is_bot,
            &self.counted,
            &self.occurred_at,
            &self.promotion_id,
            &self.promotion_step,
            &self.promotion_arm,
        ]
    }
}
