//! Exact sums of capped values per variant and epoch, as [`crate::winsorize`] left them.

use std::fmt::Write as _;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use podium_domain::decimal::UNITS_PER_ONE;
use podium_domain::metric::UnitTotal;
use podium_domain::moments::Moments;
use tokio_postgres::Row;

use super::moments::{integer, total};
use crate::StorageError;
use crate::database::Query;
use crate::rows::column;

const T: &str = "capped_moments";

/// The counts that values are divided by, by the names of their columns.
const DENOMINATORS: [(&str, UnitTotal); 2] = [
    ("sessions", UnitTotal::Sessions),
    ("purchases", UnitTotal::Purchases),
];

/// A total of values whose units are capped.
#[derive(Clone, Debug, PartialEq)]
pub struct CappedTotal {
    /// The total.
    pub total: UnitTotal,
    /// The quantile that was asked for.
    pub upper: f64,
    /// Where unit totals are capped, in the total's unit; four decimals.
    pub cap: f64,
    /// When cap and sums were computed, by the clock of the database.
    pub computed_at: DateTime<Utc>,
    /// The sums, by variant and epoch.
    pub parts: Vec<CappedMoments>,
}

/// Sums over the units of a variant that were assigned in one epoch. Excluded units are in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CappedMoments {
    /// Variant.
    pub variant_id: i64,
    /// Epoch of assignment.
    pub epoch: i32,
    /// Units, and the sums of the capped total, of sessions and of purchases with their products; nothing else.
    pub moments: Moments,
}

/// One statement, so that cap and sums are of one moment.
static NOW: LazyLock<String> = LazyLock::new(|| {
    let mut list = String::new();
    let mut whole = |name: &str, scale: i64| {
        let _ = write!(list, ", trim_scale(m.{name} * {scale})::text AS {name}");
    };
    whole("sum_total", UNITS_PER_ONE);
    whole("sq_total", UNITS_PER_ONE * UNITS_PER_ONE);
    for (name, _) in DENOMINATORS {
        whole(&format!("sum_{name}"), 1);
        whole(&format!("sq_{name}"), 1);
        whole(&format!("x_{name}"), UNITS_PER_ONE);
    }
    format!(
        "-- analytics::capped_now
SELECT c.total, c.upper, c.cap::double precision AS cap, c.computed_at,
       m.variant_id, m.epoch, m.units, m.units_above_zero{list}
FROM value_caps c JOIN capped_moments m ON m.experiment_id = c.experiment_id AND m.total = c.total
WHERE c.experiment_id = $1 AND c.upper = $2 ORDER BY c.total, m.variant_id, m.epoch"
    )
});

/// The totals of an experiment that are capped at the quantile `upper`; none before they were computed for it.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn now(
    link: &mut impl Query,
    experiment_id: i64,
    upper: f64,
) -> Result<Vec<CappedTotal>, StorageError> {
    let mut totals: Vec<CappedTotal> = Vec::new();
    for row in link.query(&NOW, &[&experiment_id, &upper]).await? {
        let of = total(column(&row, T, "total")?, T)?;
        let part = read(&row, of)?;
        match totals.last_mut().filter(|last| last.total == of) {
            Some(last) => last.parts.push(part),
            None => totals.push(CappedTotal {
                total: of,
                upper: column(&row, "value_caps", "upper")?,
                cap: column(&row, "value_caps", "cap")?,
                computed_at: column(&row, "value_caps", "computed_at")?,
                parts: vec![part],
            }),
        }
    }
    Ok(totals)
}

fn read(row: &Row, of: UnitTotal) -> Result<CappedMoments, StorageError> {
    let mut moments = Moments {
        units: column(row, T, "units")?,
        ..Moments::default()
    };
    let above_zero = column(row, T, "units_above_zero")?;
    moments.units_above_zero.insert(of, above_zero);
    moments.sums.insert(of, integer(row, T, "sum_total")?);
    moments
        .products
        .insert((of, of), integer(row, T, "sq_total")?);
    for (name, by) in DENOMINATORS {
        let sum = |kind: &str| integer(row, T, &format!("{kind}_{name}"));
        moments.sums.insert(by, sum("sum")?);
        moments.products.insert((by, by), sum("sq")?);
        let pair = (of.min(by), of.max(by));
        moments.products.insert(pair, sum("x")?);
    }
    Ok(CappedMoments {
        variant_id: column(row, T, "variant_id")?,
        epoch: column(row, T, "epoch")?,
        moments,
    })
}
