//! Totals per variant over time.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::Days;
use crate::StorageError;
use crate::database::Link;
use crate::rows::column;

/// Length of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Hours of UTC.
    Hour,
    /// Days of UTC.
    Day,
    /// ISO weeks, from Monday.
    Week,
}

impl Bucket {
    /// Its name, also the one that PostgreSQL knows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }
}

/// Events of a variant in a bucket, by when they occurred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketTotals {
    /// Begin of the bucket.
    pub start: DateTime<Utc>,
    /// Variant.
    pub variant_id: i64,
    /// Impressions.
    pub impressions: i64,
    /// Clicks.
    pub clicks: i64,
    /// Add-to-carts.
    pub add_to_carts: i64,
    /// Purchases.
    pub purchases: i64,
    /// Value of the purchases. An exact decimal as text.
    pub purchase_value: String,
    /// Value of engagement events. An exact decimal as text.
    pub engagement: String,
    /// Requests.
    pub requests: i64,
    /// Requests that ended in an error.
    pub errors: i64,
}

/// The grid of every variant and every bucket from the first to the last with an event, gaps filled with zeros.
const SERIES: &str = "-- analytics::series
WITH sums AS (
    SELECT date_trunc($2, hour AT TIME ZONE 'UTC') AS start, variant_id,
           sum(impressions)::bigint AS impressions, sum(clicks)::bigint AS clicks,
           sum(add_to_carts)::bigint AS add_to_carts, sum(purchases)::bigint AS purchases,
           sum(purchase_value) AS purchase_value, sum(engagement) AS engagement,
           sum(requests)::bigint AS requests, sum(errors)::bigint AS errors
    FROM variant_hours
    WHERE experiment_id = $1 AND hour >= $3::date::timestamp AT TIME ZONE 'UTC'
      AND hour < ($4::date + 1)::timestamp AT TIME ZONE 'UTC'
    GROUP BY 1, 2),
starts AS (
    SELECT generate_series(min(start), max(start), ('1 ' || $2)::interval) AS start FROM sums)
SELECT s.start AT TIME ZONE 'UTC' AS start, v.id AS variant_id,
       coalesce(t.impressions, 0) AS impressions, coalesce(t.clicks, 0) AS clicks,
       coalesce(t.add_to_carts, 0) AS add_to_carts, coalesce(t.purchases, 0) AS purchases,
       trim_scale(coalesce(t.purchase_value, 0))::text AS purchase_value,
       trim_scale(coalesce(t.engagement, 0))::text AS engagement,
       coalesce(t.requests, 0) AS requests, coalesce(t.errors, 0) AS errors
FROM starts s
CROSS JOIN experiment_variants v
LEFT JOIN sums t ON t.start = s.start AND t.variant_id = v.id
WHERE v.experiment_id = $1
ORDER BY 1, v.is_control DESC, v.id";

/// Totals by bucket, in order of time, then control first.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn read(
    link: &mut Link,
    experiment_id: i64,
    bucket: Bucket,
    days: Days,
) -> Result<Vec<BucketTotals>, StorageError> {
    let rows = link
        .query(
            SERIES,
            &[&experiment_id, &bucket.name(), &days.first(), &days.last()],
        )
        .await?;
    rows.iter().map(totals).collect()
}

fn totals(row: &Row) -> Result<BucketTotals, StorageError> {
    const T: &str = "variant_hours";
    Ok(BucketTotals {
        start: column(row, T, "start")?,
        variant_id: column(row, T, "variant_id")?,
        impressions: column(row, T, "impressions")?,
        clicks: column(row, T, "clicks")?,
        add_to_carts: column(row, T, "add_to_carts")?,
        purchases: column(row, T, "purchases")?,
        purchase_value: column(row, T, "purchase_value")?,
        engagement: column(row, T, "engagement")?,
        requests: column(row, T, "requests")?,
        errors: column(row, T, "errors")?,
    })
}
