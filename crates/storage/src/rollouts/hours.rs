//! How many convert within an hour, since a promotion and before it.

use chrono::{DateTime, Utc};
use podium_domain::guard::hour_before;
use podium_domain::stats::proportion::Proportion;
use tokio_postgres::Row;

use super::Watched;
use crate::StorageError;
use crate::database::Link;
use crate::rows::column;

/// Units that were active within an hour and shown the winner, and those of them that converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// In the hour before the promotion that the last one is held against.
    pub before: Proportion,
    /// In the last hour.
    pub now: Proportion,
}

/// The conversions of [`Hours`]: those that the guard goes by.
macro_rules! converted {
    ($name:literal, $which:literal) => {
        concat!(
            "-- rollouts::",
            $name,
            "
SELECT count(*) AS units, count(*) FILTER (WHERE converted) AS converted FROM (
    SELECT coalesce(bool_or(e.event_type = r.conversion_event AND (NOT r.conversion_needs_value OR e.value > 0)), false) AS converted
    FROM experiment_events e JOIN promotion_rollouts r ON r.promotion_id = $1
    WHERE NOT e.is_bot AND ",
            $which,
            " GROUP BY e.user_id) units"
        )
    };
}

const NOW: &str = converted!(
    "hour_now",
    "e.created_at > now() - interval '60 minutes' AND e.promotion_id = $1 AND e.promotion_arm IN (1, 3)"
);

const BEFORE: &str = converted!(
    "hour_before",
    "e.created_at > $4::timestamptz - interval '60 minutes' AND e.created_at <= $4
        AND e.experiment_id = $2 AND e.variant_id = $3 AND e.counted"
);

/// Reads the raw events of both hours. `None` where there is no hour to compare with.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn hours(link: &mut Link, of: &Watched) -> Result<Option<Hours>, StorageError> {
    let started = of.started_at;
    let Some(end) = started.and_then(|at| hour_before(at, of.promoted_at, of.now)) else {
        return Ok(None);
    };
    Ok(Some(Hours {
        before: before(link, of, end).await?,
        now: share(&link.query(NOW, &[&of.promotion_id]).await?)?,
    }))
}

async fn before(
    link: &mut Link,
    of: &Watched,
    end: DateTime<Utc>,
) -> Result<Proportion, StorageError> {
    let which: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&of.promotion_id, &of.experiment_id, &of.winner_id, &end];
    share(&link.query(BEFORE, &which).await?)
}

fn share(rows: &[Row]) -> Result<Proportion, StorageError> {
    const T: &str = "experiment_events";
    let corrupt = || StorageError::CorruptRow {
        table: T,
        column: "converted",
    };
    let row = rows.first().ok_or_else(corrupt)?;
    let (units, converted) = (column(row, T, "units")?, column(row, T, "converted")?);
    Proportion::new(converted, units).map_err(|_| corrupt())
}
