//! Exact sums per variant and epoch, with those over the units that have a covariate.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use podium_domain::decimal::UNITS_PER_ONE;
use podium_domain::moments::{CoveredMoments, Moments};
use tokio_postgres::Row;

use super::moments::{self, TOTALS, UNITS_WITH, VariantMoments, integer};
use crate::StorageError;
use crate::database::Query;
use crate::rows::column;

const T: &str = "covariate_moments";

/// Sums over the units of a variant that were assigned in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantCovariates {
    /// Over all of them.
    pub of: VariantMoments,
    /// Over those that have a covariate.
    pub covered: CoveredMoments,
}

/// Columns under names that differ from those of `variant_moments`: whole numbers of any size as text.
fn columns() -> String {
    let mut list = String::from("variant_id AS c_variant_id, epoch AS c_epoch, units AS c_units");
    let mut whole = |name: &str, scale: i64| {
        let _ = write!(list, ", trim_scale({name} * {scale})::text AS c_{name}");
    };
    whole("sum_x", UNITS_PER_ONE);
    whole("sq_x", UNITS_PER_ONE * UNITS_PER_ONE);
    for (name, _) in UNITS_WITH {
        whole(&format!("x_{name}"), UNITS_PER_ONE);
    }
    for (name, total) in TOTALS {
        let scale = i64::from(total.scale());
        whole(&format!("sum_{name}"), scale);
        whole(&format!("x_{name}"), UNITS_PER_ONE * scale);
    }
    for (name, _) in UNITS_WITH {
        let _ = write!(list, ", {name} AS c_{name}");
    }
    list
}

/// One statement, so that both sums are of one moment.
static NOW: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- analytics::covariates_now
SELECT m.*, c.* FROM (SELECT {} FROM variant_moments WHERE experiment_id = $1) m
LEFT JOIN (SELECT {} FROM covariate_moments WHERE experiment_id = $1) c
    ON c.c_variant_id = m.variant_id AND c.c_epoch = m.epoch
ORDER BY m.variant_id, m.epoch",
        moments::columns(),
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
) -> Result<Vec<VariantCovariates>, StorageError> {
    link.query(&NOW, &[&experiment_id])
        .await?
        .iter()
        .map(|row| {
            Ok(VariantCovariates {
                of: moments::read(row, "variant_moments")?,
                covered: covered(row)?,
            })
        })
        .collect()
}

/// All epochs of each variant together.
#[must_use]
pub fn by_variant<'a>(
    parts: impl IntoIterator<Item = &'a VariantCovariates>,
) -> BTreeMap<i64, (Moments, CoveredMoments)> {
    let mut variants: BTreeMap<i64, (Moments, CoveredMoments)> = BTreeMap::new();
    for part in parts {
        let (all, covered) = variants.entry(part.of.variant_id).or_default();
        all.merge(&part.of.moments);
        covered.merge(&part.covered);
    }
    variants
}

fn covered(row: &Row) -> Result<CoveredMoments, StorageError> {
    let units: Option<i64> = column(row, T, "c_units")?;
    let Some(units) = units else {
        return Ok(CoveredMoments::default());
    };
    let sum = |name: &str| integer(row, T, &format!("c_{name}"));
    let mut covered = CoveredMoments {
        units,
        sum_x: sum("sum_x")?,
        sum_xx: sum("sq_x")?,
        ..CoveredMoments::default()
    };
    for (name, event) in UNITS_WITH {
        let with =
            row.try_get(format!("c_{name}").as_str())
                .map_err(|_| StorageError::CorruptRow {
                    table: T,
                    column: "units",
                })?;
        covered.units_with.insert(event, with);
        covered.x_with.insert(event, sum(&format!("x_{name}"))?);
    }
    for (name, total) in TOTALS {
        covered.sums.insert(total, sum(&format!("sum_{name}"))?);
        covered.products.insert(total, sum(&format!("x_{name}"))?);
    }
    Ok(covered)
}
