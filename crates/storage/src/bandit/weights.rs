//! Weights of a bandit's variants. Every batch of constant weights is an epoch, and so a stratum of every analysis.
//!
//! An epoch that a person opens (the start, a change of allocation or variants) is split evenly. The first adaptive epoch
//! follows at once; from then on the person's epoch takes only the control share, whose split stands still. An
//! adaptive epoch ends when its time is over, it has the units that a comparison needs, and the evidence asks for other
//! weights.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use podium_bandit::history::Forgetting;
use podium_domain::bandit::BanditOptions;
use podium_domain::bandit::evidence::snapshot;
use podium_domain::bandit::weights::{LEAST_UNITS, differ, percents};
use podium_domain::decimal::Decimal4;
use podium_domain::metric::Metric;
use serde_json::{Map, Value};
use tokio_postgres::{Client, Row};

use super::counts::{self, ArmCounts};
use super::learning::VARIANT;
use crate::connect::Purpose;
use crate::rows::{column, decimal};
use crate::{Database, StorageError};

/// Running bandits of two or more variants. Units are counted once they are folded.
const RUNNING: &str = "-- weights::running
SELECT e.id, e.config, e.primary_metric, e.epoch, c.started_at, c.adaptive_of, now() AS now,
       (SELECT coalesce(sum(m.units), 0)::bigint FROM variant_moments m
        WHERE m.experiment_id = e.id AND m.epoch = e.epoch) AS units
FROM experiments e JOIN experiment_epochs c ON c.experiment_id = e.id AND c.epoch = e.epoch
WHERE e.experiment_type = 'bandit' AND e.status = 'running'
  AND (SELECT count(*) FROM experiment_variants v WHERE v.experiment_id = e.id AND v.traffic_weight > 0) > 1
ORDER BY e.id";

/// Variants that are not retired, with the weights in force.
const VARIANTS: &str = "-- weights::variants
SELECT v.id, coalesce(c.weights ->> v.id::text, '0') AS weight
FROM experiment_variants v
JOIN experiment_epochs c ON c.experiment_id = v.experiment_id AND c.epoch = $2
WHERE v.experiment_id = $1 AND v.traffic_weight > 0 ORDER BY v.id";

const LOCK: &str = "-- weights::lock
SELECT id FROM experiments WHERE id = $1 AND epoch = $2 AND status = 'running' FOR UPDATE";

const OPEN_EPOCH: &str = "-- weights::open_epoch
INSERT INTO experiment_epochs (experiment_id, epoch, traffic_allocation, weights, adaptive_of)
SELECT experiment_id, epoch + 1, traffic_allocation, $3, coalesce(adaptive_of, epoch)
FROM experiment_epochs WHERE experiment_id = $1 AND epoch = $2";

/// The version stays: an ETag that a person has read speaks of what people change.
const SET_EPOCH: &str = "-- weights::set_epoch
UPDATE experiments SET epoch = epoch + 1 WHERE id = $1";

/// A running bandit over variants.
struct Running {
    id: i64,
    options: BanditOptions,
    epoch: i32,
    started_at: DateTime<Utc>,
    is_adaptive: bool,
    now: DateTime<Utc>,
    units: i64,
}

impl Running {
    fn read(row: &Row) -> Result<Self, StorageError> {
        const T: &str = "experiments";
        let id = column(row, T, "id")?;
        let metric: &str = column(row, T, "primary_metric")?;
        let metric = metric.parse().unwrap_or(Metric::ConversionRate);
        let config: Value = column(row, T, "config")?;
        Ok(Self {
            id,
            options: super::learning::options(id, &config, metric),
            epoch: column(row, T, "epoch")?,
            started_at: column(row, T, "started_at")?,
            is_adaptive: column::<Option<i32>>(row, T, "adaptive_of")?.is_some(),
            now: column(row, T, "now")?,
            units: column(row, T, "units")?,
        })
    }

    /// Whether its weights may change now.
    fn is_due(&self) -> bool {
        let pause = TimeDelta::minutes(self.options.update_minutes.into());
        !self.is_adaptive
            || (self.units >= LEAST_UNITS
                && self.now.signed_duration_since(self.started_at) >= pause)
    }
}

/// Brings the weights of all running bandits up to date. Answers how many epochs were opened. Any replica may do
/// it: whoever comes second finds the epoch changed and leaves it.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn update(database: &Database) -> Result<u32, StorageError> {
    let rows = database.work().await?.query(RUNNING, &[]).await?;
    let mut opened = 0;
    for row in &rows {
        let bandit = Running::read(row)?;
        if bandit.is_due() && update_one(database, bandit).await? {
            opened += 1;
        }
    }
    Ok(opened)
}

async fn update_one(database: &Database, bandit: Running) -> Result<bool, StorageError> {
    const T: &str = "experiment_epochs";
    let by_hour = bandit.options.forgetting != Forgetting::Never;
    let mut link = database.work().await?;
    let arms = counts::read(&mut link, bandit.id, VARIANT, by_hour).await?;
    let rows = link.query(VARIANTS, &[&bandit.id, &bandit.epoch]).await?;
    drop(link);
    let mut variants = Vec::with_capacity(rows.len());
    let mut in_force = Vec::with_capacity(rows.len());
    for row in &rows {
        variants.push(column::<i64>(row, T, "id")?);
        in_force.push(decimal(row, T, "weight")?);
    }
    let (id, epoch, is_adaptive) = (bandit.id, bandit.epoch, bandit.is_adaptive);
    let asked = variants.clone();
    // The probability of being best takes longer than other tasks of this thread should wait.
    let computed = tokio::task::spawn_blocking(move || weights(&bandit, &asked, arms)).await;
    let Ok(Some(weights)) = computed else {
        return Ok(false);
    };
    if is_adaptive && !differ(&weights, &in_force) {
        return Ok(false);
    }
    open(database, id, epoch, &variants, &weights).await
}

/// Weights of variants in percent; `None`, and a line in the log, where the evidence cannot be read.
fn weights(bandit: &Running, variants: &[i64], arms: Vec<ArmCounts>) -> Option<Vec<Decimal4>> {
    let mut histories: HashMap<String, _> = arms
        .into_iter()
        .map(|arm| (arm.arm_id, arm.history))
        .collect();
    let histories: Vec<_> = variants
        .iter()
        .map(|id| histories.remove(&id.to_string()).unwrap_or_default())
        .collect();
    let hour = bandit.now.timestamp().div_euclid(3_600);
    let version = u64::try_from(bandit.epoch).unwrap_or(0);
    match snapshot(&bandit.options, &histories, hour, version) {
        Ok(picture) => Some(percents(picture.weights())),
        Err(error) => {
            tracing::error!(experiment.id = bandit.id, %error, "weights of variants could not be computed");
            None
        }
    }
}

/// Opens an adaptive epoch behind `epoch`; `false` when that is no longer in force.
async fn open(
    database: &Database,
    id: i64,
    epoch: i32,
    variants: &[i64],
    weights: &[Decimal4],
) -> Result<bool, StorageError> {
    let weights: Map<String, Value> = variants
        .iter()
        .zip(weights)
        .map(|(variant, weight)| (variant.to_string(), weight.to_string().into()))
        .collect();
    let weights = Value::Object(weights);
    let mut link = database.work().await?;
    let opening = opening(link.client()?, id, epoch, &weights);
    tokio::time::timeout(Purpose::Work.client_limit(), opening)
        .await
        .map_err(|_| StorageError::TimedOut)?
}

async fn opening(
    client: &mut Client,
    id: i64,
    epoch: i32,
    weights: &Value,
) -> Result<bool, StorageError> {
    let transaction = client.transaction().await?;
    if transaction.query_opt(LOCK, &[&id, &epoch]).await?.is_none() {
        return Ok(false);
    }
    transaction
        .execute(OPEN_EPOCH, &[&id, &epoch, weights])
        .await?;
    transaction.execute(SET_EPOCH, &[&id]).await?;
    transaction.commit().await?;
    Ok(true)
}
