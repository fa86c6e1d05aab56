//! Exact sums per variant and epoch.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use chrono::NaiveDate;
use num_bigint::BigInt;
use podium_domain::event::EventType;
use podium_domain::metric::UnitTotal;
use podium_domain::moments::Moments;
use tokio_postgres::Row;

use super::Days;
use crate::StorageError;
use crate::database::Query;
use crate::fold::PRODUCTS;
use crate::rows::column;

/// The totals of a unit by the names of their columns.
pub(super) const TOTALS: [(&str, UnitTotal); 9] = [
    ("impressions", UnitTotal::Impressions),
    ("clicks", UnitTotal::Clicks),
    ("add_to_carts", UnitTotal::AddToCarts),
    ("purchases", UnitTotal::Purchases),
    ("purchase_value", UnitTotal::PurchaseValue),
    ("engagement", UnitTotal::EngagementValue),
    ("requests", UnitTotal::Requests),
    ("errors", UnitTotal::Errors),
    ("sessions", UnitTotal::Sessions),
];

pub(super) const UNITS_WITH: [(&str, EventType); 3] = [
    ("clicking_units", EventType::Click),
    ("add_to_cart_units", EventType::AddToCart),
    ("purchasing_units", EventType::Purchase),
];

const UNITS_ABOVE_ZERO: [(&str, UnitTotal); 3] = [
    ("valued_units", UnitTotal::PurchaseValue),
    ("engaged_units", UnitTotal::EngagementValue),
    ("erring_units", UnitTotal::Errors),
];

/// Sums over the units of a variant that were assigned in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantMoments {
    /// Variant.
    pub variant_id: i64,
    /// Epoch of assignment.
    pub epoch: i32,
    /// Units whose variant the client named.
    pub client_units: i64,
    /// The sums. Excluded units are in none.
    pub moments: Moments,
}

/// The same as it stood at the end of a UTC day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayMoments {
    /// The day.
    pub day: NaiveDate,
    /// The sums.
    pub of: VariantMoments,
}

/// A `numeric` as the text of a whole number, in 1/scale.
fn whole(name: &str, scale: u64) -> String {
    format!("trim_scale({name} * {scale})::text AS {name}")
}

fn scale_of(total: &str) -> u64 {
    let of = TOTALS
        .iter()
        .find(|(name, _)| *name == total)
        .map(|(_, of)| of.scale());
    of.unwrap_or(1).into()
}

pub(super) fn columns() -> String {
    let mut list = String::from("variant_id, epoch, client_units, units");
    let units_with = UNITS_WITH.iter().map(|(name, _)| name);
    for name in units_with.chain(UNITS_ABOVE_ZERO.iter().map(|(name, _)| name)) {
        let _ = write!(list, ", {name}");
    }
    for (name, total) in TOTALS {
        let scale = u64::from(total.scale());
        let _ = write!(
            list,
            ", {}, {}",
            whole(&format!("sum_{name}"), scale),
            whole(&format!("sq_{name}"), scale * scale)
        );
    }
    for (x, y) in PRODUCTS {
        let _ = write!(
            list,
            ", {}",
            whole(&format!("x_{x}_{y}"), scale_of(x) * scale_of(y))
        );
    }
    list
}

static NOW: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- analytics::moments_now
SELECT {} FROM variant_moments WHERE experiment_id = $1 ORDER BY variant_id, epoch",
        columns()
    )
});

static BY_DAY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- analytics::moments_by_day
SELECT day, {} FROM variant_day_snapshots WHERE experiment_id = $1 AND day BETWEEN $2 AND $3 ORDER BY day, variant_id, epoch",
        columns()
    )
});

/// Sums per variant and epoch of assignment, as of the last fold. Variants and epochs without units may be missing.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn now(
    link: &mut impl Query,
    experiment_id: i64,
) -> Result<Vec<VariantMoments>, StorageError> {
    link.query(&NOW, &[&experiment_id])
        .await?
        .iter()
        .map(|row| read(row, "variant_moments"))
        .collect()
}

/// Sums at the end of each day of the range, in order. They are never revised, so a unit that was excluded later is
/// still in them.
///
/// # Errors
/// As [`now`].
pub async fn by_day(
    link: &mut impl Query,
    experiment_id: i64,
    days: Days,
) -> Result<Vec<DayMoments>, StorageError> {
    const T: &str = "variant_day_snapshots";
    let rows = link
        .query(&BY_DAY, &[&experiment_id, &days.first(), &days.last()])
        .await?;
    rows.iter()
        .map(|row| {
            Ok(DayMoments {
                day: column(row, T, "day")?,
                of: read(row, T)?,
            })
        })
        .collect()
}

/// All epochs of each variant together.
#[must_use]
pub fn by_variant<'a>(
    parts: impl IntoIterator<Item = &'a VariantMoments>,
) -> BTreeMap<i64, Moments> {
    let mut variants: BTreeMap<i64, Moments> = BTreeMap::new();
    for part in parts {
        variants
            .entry(part.variant_id)
            .or_default()
            .merge(&part.moments);
    }
    variants
}

pub(super) fn read(row: &Row, table: &'static str) -> Result<VariantMoments, StorageError> {
    let mut moments = Moments {
        units: column(row, table, "units")?,
        ..Moments::default()
    };
    for (name, event) in UNITS_WITH {
        moments.units_with.insert(event, column(row, table, name)?);
    }
    for (name, total) in UNITS_ABOVE_ZERO {
        let units = column(row, table, name)?;
        moments.units_above_zero.insert(total, units);
    }
    for (name, total) in TOTALS {
        moments
            .sums
            .insert(total, integer(row, table, &format!("sum_{name}"))?);
        moments
            .products
            .insert((total, total), integer(row, table, &format!("sq_{name}"))?);
    }
    for (x, y) in PRODUCTS {
        let (one, other) = (total(x, table)?, total(y, table)?);
        let product = integer(row, table, &format!("x_{x}_{y}"))?;
        moments
            .products
            .insert((one.min(other), one.max(other)), product);
    }
    Ok(VariantMoments {
        variant_id: column(row, table, "variant_id")?,
        epoch: column(row, table, "epoch")?,
        client_units: column(row, table, "client_units")?,
        moments,
    })
}

pub(super) fn total(name: &str, table: &'static str) -> Result<UnitTotal, StorageError> {
    let found = TOTALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, total)| *total);
    found.ok_or(StorageError::CorruptRow {
        table,
        column: "products",
    })
}

/// A whole number of any size.
pub(super) fn integer(row: &Row, table: &'static str, name: &str) -> Result<BigInt, StorageError> {
    let corrupt = || StorageError::CorruptRow {
        table,
        column: "sums",
    };
    let text: &str = row.try_get(name).map_err(|_| corrupt())?;
    text.parse().map_err(|_| corrupt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_total_and_product_of_folding_is_read() {
        let folded: Vec<&str> = crate::fold::TOTALS.to_vec();
        assert_eq!(TOTALS.map(|(name, _)| name).to_vec(), folded);
        assert!(
            PRODUCTS
                .iter()
                .all(|(x, y)| total(x, "t").is_ok() && total(y, "t").is_ok())
        );
        assert_eq!(scale_of("purchase_value"), 10_000);
        assert_eq!(scale_of("sessions"), 1);
    }
}
