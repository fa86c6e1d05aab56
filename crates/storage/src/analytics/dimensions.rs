//! Totals per variant and item, brand or position.

use tokio_postgres::Row;

use crate::StorageError;
use crate::database::Link;
use crate::rows::column;

/// What top lists are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Items.
    Item,
    /// Brands.
    Brand,
}

impl Dimension {
    const fn name(self) -> &'static str {
        match self {
            Self::Item => "item",
            Self::Brand => "brand",
        }
    }
}

/// Events of one kind of thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DimensionTotals {
    /// Impressions.
    pub impressions: i64,
    /// Clicks.
    pub clicks: i64,
    /// Add-to-carts.
    pub add_to_carts: i64,
    /// Purchases.
    pub purchases: i64,
    /// Value of the purchases. An exact decimal as text.
    pub total_value: String,
}

/// An item or brand of a top list, with its figures in each variant that has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopEntry {
    /// Id of the item or brand.
    pub key: String,
    /// Over all variants.
    pub all: DimensionTotals,
    /// By variant id, in the order of ids.
    pub by_variant: Vec<(i64, DimensionTotals)>,
}

/// A position in a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionTotals {
    /// Variant.
    pub variant_id: i64,
    /// Position, from 1.
    pub position: i32,
    /// Its figures.
    pub totals: DimensionTotals,
}

/// A key is text in the table because items are; positions are whole numbers there.
const POSITIONS: &str = "-- analytics::positions
SELECT variant_id, key::integer AS position, impressions, clicks, add_to_carts, purchases,
       trim_scale(purchase_value)::text AS total_value
FROM variant_dimensions
WHERE experiment_id = $1 AND dimension = 'position'
  AND (impressions <> 0 OR clicks <> 0 OR add_to_carts <> 0 OR purchases <> 0)
ORDER BY variant_id, position";

const TOP: &str = "-- analytics::top
WITH top AS (
    SELECT key, sum(clicks) AS clicks, sum(purchases) AS purchases, sum(impressions) AS impressions
    FROM variant_dimensions WHERE experiment_id = $1 AND dimension = $2
      AND (impressions <> 0 OR clicks <> 0 OR add_to_carts <> 0 OR purchases <> 0)
    GROUP BY key
    ORDER BY clicks DESC, purchases DESC, impressions DESC, key LIMIT $3)
SELECT d.key, d.variant_id, d.impressions, d.clicks, d.add_to_carts, d.purchases,
       trim_scale(d.purchase_value)::text AS total_value,
       (sum(d.impressions) OVER w)::bigint AS all_impressions, (sum(d.clicks) OVER w)::bigint AS all_clicks,
       (sum(d.add_to_carts) OVER w)::bigint AS all_add_to_carts, (sum(d.purchases) OVER w)::bigint AS all_purchases,
       trim_scale(sum(d.purchase_value) OVER w)::text AS all_total_value
FROM top t JOIN variant_dimensions d ON d.experiment_id = $1 AND d.dimension = $2 AND d.key = t.key
WINDOW w AS (PARTITION BY d.key)
ORDER BY t.clicks DESC, t.purchases DESC, t.impressions DESC, d.key, d.variant_id";

/// Positions of each variant that have events, in order.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn positions(
    link: &mut Link,
    experiment_id: i64,
) -> Result<Vec<PositionTotals>, StorageError> {
    let rows = link.query(POSITIONS, &[&experiment_id]).await?;
    let read = |row| {
        let (variant_id, position) = (column(row, T, "variant_id")?, column(row, T, "position")?);
        Ok(PositionTotals {
            variant_id,
            position,
            totals: own(row)?,
        })
    };
    rows.iter().map(read).collect()
}

/// The items or brands with the most clicks (then purchases, impressions), at most `limit`.
///
/// # Errors
/// As [`positions`].
pub async fn top(
    link: &mut Link,
    experiment_id: i64,
    dimension: Dimension,
    limit: i64,
) -> Result<Vec<TopEntry>, StorageError> {
    let mut entries: Vec<TopEntry> = Vec::new();
    for row in link
        .query(TOP, &[&experiment_id, &dimension.name(), &limit])
        .await?
    {
        let key: String = column(&row, T, "key")?;
        if entries.last().is_none_or(|last| last.key != key) {
            entries.push(TopEntry {
                key,
                all: over_all(&row)?,
                by_variant: Vec::new(),
            });
        }
        if let Some(entry) = entries.last_mut() {
            entry
                .by_variant
                .push((column(&row, T, "variant_id")?, own(&row)?));
        }
    }
    Ok(entries)
}

const T: &str = "variant_dimensions";

fn own(row: &Row) -> Result<DimensionTotals, StorageError> {
    Ok(DimensionTotals {
        impressions: column(row, T, "impressions")?,
        clicks: column(row, T, "clicks")?,
        add_to_carts: column(row, T, "add_to_carts")?,
        purchases: column(row, T, "purchases")?,
        total_value: column(row, T, "total_value")?,
    })
}

fn over_all(row: &Row) -> Result<DimensionTotals, StorageError> {
    Ok(DimensionTotals {
        impressions: column(row, T, "all_impressions")?,
        clicks: column(row, T, "all_clicks")?,
        add_to_carts: column(row, T, "all_add_to_carts")?,
        purchases: column(row, T, "all_purchases")?,
        total_value: column(row, T, "all_total_value")?,
    })
}
