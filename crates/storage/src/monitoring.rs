//! What operators watch and only the database knows: how far folding is, how units are split, what promotions, scans,
//! alerts and notifications came to.

use std::collections::BTreeMap;

use podium_domain::decimal::Decimal4;
use podium_domain::notification::Level;

use crate::database::Link;
use crate::promotions::scan::{self, Scans};
use crate::rows::{column, decimal};
use crate::{Database, StorageError, alerts, fold, outbox};

/// One reading of everything.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Seconds for which the oldest unfolded event has waited; `None` when nobody knows.
    pub event_lag_seconds: Option<f64>,
    /// Alerts that are open, by level.
    pub alerts_open: BTreeMap<Level, i64>,
    /// Scans for promotions.
    pub scans: Scans,
    /// Units of running experiments, in order of experiment, epoch and variant.
    pub units: Vec<VariantUnits>,
    /// Promotions that are in force.
    pub promotions_active: i64,
    /// Entries of the promotion log.
    pub decisions: Vec<Count>,
    /// Tries to send notifications, by channel and result.
    pub notifications: Vec<Count>,
    /// Seconds for which the oldest notification has waited that should have left; 0 without one.
    pub notification_age_seconds: f64,
}

/// Units of one variant in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantUnits {
    /// Name of the experiment.
    pub experiment: String,
    /// Stretch of constant weights.
    pub epoch: i32,
    /// Name of the variant.
    pub variant: String,
    /// Units in the totals.
    pub units: i64,
    /// Those among them whose variant a client named.
    pub client_units: i64,
    /// Traffic weight in that epoch.
    pub weight: Decimal4,
}

/// How many rows have two words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The action of a decision, the channel of a notification.
    pub what: String,
    /// Who decided, what became of the notification.
    pub how: String,
    /// Rows.
    pub count: i64,
}

const UNITS: &str = "-- monitoring::units
SELECT e.name AS experiment, p.epoch, v.name AS variant, coalesce(m.units, 0)::bigint AS units,
       coalesce(m.client_units, 0)::bigint AS client_units,
       coalesce(p.weights ->> v.id::text, '0') AS weight
FROM experiments e
JOIN experiment_epochs p ON p.experiment_id = e.id
JOIN experiment_variants v ON v.experiment_id = e.id
LEFT JOIN variant_moments m ON m.experiment_id = e.id AND m.variant_id = v.id AND m.epoch = p.epoch
LEFT JOIN promotion_analyses o ON o.experiment_id = e.id AND o.closed_at IS NULL
WHERE e.status = 'running' AND p.epoch >= coalesce(o.from_epoch, 1) ORDER BY e.id, p.epoch, v.id";

const ACTIVE: &str = "-- monitoring::active
SELECT count(*) AS count FROM experiment_promotions WHERE rollback_at IS NULL";

/// Rows of this log are never deleted, so the counts never fall.
const DECISIONS: &str = "-- monitoring::decisions
SELECT action AS what, triggered_by AS how, count(*) AS count FROM ab_promotion_audit_log GROUP BY 1, 2 ORDER BY 1, 2";

const NOTIFICATIONS: &str = "-- monitoring::notifications
SELECT channel AS what, result AS how, count FROM notification_counts ORDER BY channel, result";

/// Reads everything.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn read(database: &Database) -> Result<Facts, StorageError> {
    let event_lag_seconds = fold::lag_seconds(database).await?;
    let oldest = outbox::oldest_unsent(database).await?;
    let mut link = database.work().await?;
    let mut units = Vec::new();
    for row in link.query(UNITS, &[]).await? {
        units.push(VariantUnits {
            experiment: column(&row, "experiments", "experiment")?,
            epoch: column(&row, "experiment_epochs", "epoch")?,
            variant: column(&row, "experiment_variants", "variant")?,
            units: column(&row, "variant_moments", "units")?,
            client_units: column(&row, "variant_moments", "client_units")?,
            weight: decimal(&row, "experiment_epochs", "weight")?,
        });
    }
    let active = link.query_opt(ACTIVE, &[]).await?;
    let active = active.map(|row| column(&row, "experiment_promotions", "count"));
    Ok(Facts {
        event_lag_seconds,
        alerts_open: alerts::open_by_level(&mut link).await?,
        scans: scan::scans(&mut link).await?,
        units,
        promotions_active: active.unwrap_or(Ok(0))?,
        decisions: counts(&mut link, DECISIONS, "ab_promotion_audit_log").await?,
        notifications: counts(&mut link, NOTIFICATIONS, "notification_counts").await?,
        notification_age_seconds: oldest.unwrap_or_default().as_secs_f64(),
    })
}

async fn counts(
    link: &mut Link,
    sql: &'static str,
    table: &'static str,
) -> Result<Vec<Count>, StorageError> {
    let rows = link.query(sql, &[]).await?;
    let count = |row| {
        Ok(Count {
            what: column(row, table, "what")?,
            how: column(row, table, "how")?,
            count: column(row, table, "count")?,
        })
    };
    rows.iter().map(count).collect()
}
