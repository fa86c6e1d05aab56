//! Totals per variant.

use podium_domain::decimal::Decimal4;
use tokio_postgres::Row;

use super::Days;
use crate::StorageError;
use crate::database::Link;
use crate::rows::column;

/// What the units of a variant did, in all time or in a range of days. Excluded units are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantTotals {
    /// Variant.
    pub variant_id: i64,
    /// Its name.
    pub name: String,
    /// Whether it is the control.
    pub is_control: bool,
    /// Its weight today.
    pub traffic_weight: Decimal4,
    /// Units that had been assigned by the end of the range.
    pub units: i64,
    /// Units that did anything in the range; `None` for all time, where nobody counts them.
    pub active_units: Option<i64>,
    /// Impressions.
    pub impressions: i64,
    /// Clicks.
    pub clicks: i64,
    /// Add-to-carts.
    pub add_to_carts: i64,
    /// Purchases.
    pub purchases: i64,
    /// Clicks in percent of impressions, six decimals; 0 without impressions. An exact decimal as text.
    pub click_through_percent: String,
    /// Purchases in percent of impressions, six decimals; 0 without impressions. An exact decimal as text.
    pub conversion_percent: String,
    /// Value of the purchases. An exact decimal as text.
    pub total_value: String,
    /// Value per unit, six decimals; 0 without units. An exact decimal as text.
    pub value_per_unit: String,
}

/// The columns of an answer, from `t` with the sums of a variant.
macro_rules! figures {
    () => {
        "v.id AS variant_id, v.name, v.is_control, v.traffic_weight::text AS traffic_weight,
       t.impressions, t.clicks, t.add_to_carts, t.purchases,
       trim_scale(CASE WHEN t.impressions > 0 THEN round(100.0 * t.clicks / t.impressions, 6) ELSE 0 END)::text AS click_through_percent,
       trim_scale(CASE WHEN t.impressions > 0 THEN round(100.0 * t.purchases / t.impressions, 6) ELSE 0 END)::text AS conversion_percent,
       trim_scale(t.total_value)::text AS total_value,
       trim_scale(CASE WHEN u.units > 0 THEN round(t.total_value / u.units, 6) ELSE 0 END)::text AS value_per_unit"
    };
}

const ALL_TIME: &str = concat!(
    "-- analytics::performance
SELECT u.units, NULL::bigint AS active_units, ",
    figures!(),
    "
FROM experiment_variants v
CROSS JOIN LATERAL (
    SELECT coalesce(sum(m.units), 0)::bigint AS units,
           coalesce(sum(m.sum_impressions), 0)::bigint AS impressions,
           coalesce(sum(m.sum_clicks), 0)::bigint AS clicks,
           coalesce(sum(m.sum_add_to_carts), 0)::bigint AS add_to_carts,
           coalesce(sum(m.sum_purchases), 0)::bigint AS purchases,
           coalesce(sum(m.sum_purchase_value), 0) AS total_value
    FROM variant_moments m WHERE m.experiment_id = v.experiment_id AND m.variant_id = v.id) t
CROSS JOIN LATERAL (SELECT t.units) u
WHERE v.experiment_id = $1
ORDER BY v.is_control DESC, v.id"
);

/// The units of a range are those of the end-of-day snapshot that closes it; a range that reaches into today has
/// those of now.
const OF_DAYS: &str = concat!(
    "-- analytics::performance_of_days
WITH closing AS (
    SELECT max(s.day) AS day FROM variant_day_snapshots s WHERE s.experiment_id = $1 AND s.day <= $3)
SELECT u.units, t.active_units, ",
    figures!(),
    "
FROM experiment_variants v
LEFT JOIN (
    SELECT u.variant_id, count(DISTINCT d.unit) AS active_units, sum(d.impressions)::bigint AS impressions,
           sum(d.clicks)::bigint AS clicks, sum(d.add_to_carts)::bigint AS add_to_carts,
           sum(d.purchases)::bigint AS purchases, sum(d.purchase_value) AS total_value
    FROM unit_days d
    JOIN unit_totals u ON u.experiment_id = d.experiment_id AND u.unit = d.unit AND NOT u.excluded
    WHERE d.experiment_id = $1 AND d.day BETWEEN $2 AND $3
    GROUP BY 1) s ON s.variant_id = v.id
CROSS JOIN LATERAL (
    SELECT coalesce(s.active_units, 0) AS active_units, coalesce(s.impressions, 0) AS impressions,
           coalesce(s.clicks, 0) AS clicks, coalesce(s.add_to_carts, 0) AS add_to_carts,
           coalesce(s.purchases, 0) AS purchases, coalesce(s.total_value, 0) AS total_value) t
CROSS JOIN LATERAL (
    SELECT coalesce(CASE WHEN $3 >= (now() AT TIME ZONE 'UTC')::date
        THEN (SELECT sum(m.units) FROM variant_moments m
              WHERE m.experiment_id = v.experiment_id AND m.variant_id = v.id)
        ELSE (SELECT sum(m.units) FROM variant_day_snapshots m JOIN closing c ON c.day = m.day
              WHERE m.experiment_id = v.experiment_id AND m.variant_id = v.id) END, 0)::bigint AS units) u
WHERE v.experiment_id = $1
ORDER BY v.is_control DESC, v.id"
);

/// Every variant of the experiment, control first, also those without events.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn totals(
    link: &mut Link,
    experiment_id: i64,
    days: Days,
) -> Result<Vec<VariantTotals>, StorageError> {
    let rows = if days.is_all() {
        link.query(ALL_TIME, &[&experiment_id]).await?
    } else {
        link.query(OF_DAYS, &[&experiment_id, &days.first(), &days.last()])
            .await?
    };
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<VariantTotals, StorageError> {
    const T: &str = "experiment_variants";
    Ok(VariantTotals {
        variant_id: column(row, T, "variant_id")?,
        name: column(row, T, "name")?,
        is_control: column(row, T, "is_control")?,
        traffic_weight: crate::rows::decimal(row, T, "traffic_weight")?,
        units: column(row, T, "units")?,
        active_units: column(row, T, "active_units")?,
        impressions: column(row, T, "impressions")?,
        clicks: column(row, T, "clicks")?,
        add_to_carts: column(row, T, "add_to_carts")?,
        purchases: column(row, T, "purchases")?,
        click_through_percent: column(row, T, "click_through_percent")?,
        conversion_percent: column(row, T, "conversion_percent")?,
        total_value: column(row, T, "total_value")?,
        value_per_unit: column(row, T, "value_per_unit")?,
    })
}
