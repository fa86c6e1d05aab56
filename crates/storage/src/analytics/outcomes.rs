//! How requests ended, per variant and epoch of assignment.

use std::collections::BTreeMap;

use podium_domain::outcomes::Outcomes;
use tokio_postgres::Row;

use crate::StorageError;
use crate::database::Query;
use crate::rows::column;

/// Request outcomes of the units of a variant that were assigned in one epoch. Excluded units are in none.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantOutcomes {
    /// Variant.
    pub variant_id: i64,
    /// Epoch of assignment.
    pub epoch: i32,
    /// Their requests.
    pub outcomes: Outcomes,
}

/// One statement, so that counts and latencies are of one moment.
const NOW: &str = "-- analytics::outcomes_now
SELECT m.variant_id, m.epoch, coalesce(r.requesting_units, 0) AS requesting_units, m.erring_units,
       m.sum_requests::bigint AS requests, m.sum_errors::bigint AS errors, m.sq_requests::double precision AS squared_requests,
       l.buckets, l.counts
FROM variant_moments m
LEFT JOIN variant_requests r USING (experiment_id, variant_id, epoch)
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(v.bucket ORDER BY v.bucket), '{}') AS buckets,
           coalesce(array_agg(v.requests ORDER BY v.bucket), '{}') AS counts
    FROM variant_latencies v
    WHERE v.experiment_id = m.experiment_id AND v.variant_id = m.variant_id AND v.epoch = m.epoch AND v.requests > 0) l
WHERE m.experiment_id = $1 AND m.sum_requests > 0 ORDER BY m.variant_id, m.epoch";

/// Request outcomes as of the last fold; nothing for variants and epochs without requests.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn now(
    link: &mut impl Query,
    experiment_id: i64,
) -> Result<Vec<VariantOutcomes>, StorageError> {
    let rows = link.query(NOW, &[&experiment_id]).await?;
    rows.iter().map(read).collect()
}

/// All epochs of each variant together.
///
/// # Errors
/// [`StorageError::CorruptRow`] for counts that 64 bits do not hold.
pub fn by_variant(parts: &[VariantOutcomes]) -> Result<BTreeMap<i64, Outcomes>, StorageError> {
    let mut variants: BTreeMap<i64, Outcomes> = BTreeMap::new();
    for part in parts {
        let all = variants.entry(part.variant_id).or_default();
        all.merge(&part.outcomes)
            .map_err(|_| StorageError::CorruptRow {
                table: "variant_latencies",
                column: "requests",
            })?;
    }
    Ok(variants)
}

fn read(row: &Row) -> Result<VariantOutcomes, StorageError> {
    const T: &str = "variant_moments";
    let mut outcomes = Outcomes {
        units: column(row, "variant_requests", "requesting_units")?,
        erring_units: column(row, T, "erring_units")?,
        requests: column(row, T, "requests")?,
        errors: column(row, T, "errors")?,
        squared_requests: column(row, T, "squared_requests")?,
        ..Outcomes::default()
    };
    latencies(row, "variant_latencies", &mut outcomes)?;
    Ok(VariantOutcomes {
        variant_id: column(row, T, "variant_id")?,
        epoch: column(row, T, "epoch")?,
        outcomes,
    })
}

/// Adds the latencies in the columns `buckets` and `counts`.
pub(crate) fn latencies(
    row: &Row,
    table: &'static str,
    outcomes: &mut Outcomes,
) -> Result<(), StorageError> {
    let buckets: Vec<i32> = column(row, table, "buckets")?;
    let counts: Vec<i64> = column(row, table, "counts")?;
    for (bucket, count) in buckets.into_iter().zip(counts) {
        let added = outcomes.latencies.add_bucket(bucket, count);
        added.map_err(|_| StorageError::CorruptRow {
            table,
            column: "requests",
        })?;
    }
    Ok(())
}
