//! Weights of a bandit's variants. Every batch of constant weights is an epoch, and so a stratum of every analysis.
//!
//! An epoch that a person opens (the start, a change of allocation or variants) is split evenly. The first adaptive epoch
//! follows at once; from then on the person's epoch takes only the control share, whose split stands still. An
//! adaptive epoch ends when its time is over, it has the units that a comparison needs, and the evidence asks for other
//! weights.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use podium_bandit::history::Forgetting;
use podium_bandit::{BanditError, Snapshot as Picture};
use podium_domain::bandit::BanditOptions;
use podium_domain::bandit::evidence::snapshot;
use podium_domain::bandit::weights::{LEAST_UNITS, differ, percents};
use podium_domain::decimal::Decimal4;
use podium_domain::metric::Metric;
use serde_json::{Map, Value};
use tokio_postgres::{Client, Row};

use super::counts::{self, ArmCounts};
use super::learning::{VARIANT, options_of};
use crate::connect::Purpose;
use crate::database::Link;
use crate::experiments::model::Experiment;
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
SELECT v.id, coalesce(c.weights ->> v.id::text, '0') AS weight, floor(extract(epoch FROM now()) / 3600)::bigint AS hour
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

/// What the weights of a bandit over variants are made from.
#[derive(Clone, Debug)]
pub struct Contest {
    /// Its options.
    pub options: BanditOptions,
    /// Whole hours since 1970, by the clock of the database.
    pub hour: i64,
    /// Variants that are not retired with what was learned of each, in the order of their ids; `arm_id` is the variant's id.
    pub arms: Vec<ArmCounts>,
    /// Their weights in the epoch in force, in any unit.
    pub in_force: Vec<Decimal4>,
}

impl Contest {
    /// Reads what is known now.
    ///
    /// # Errors
    /// [`StorageError`] when the database does not answer or a row cannot be read.
    pub async fn read(link: &mut Link, experiment: &Experiment) -> Result<Self, StorageError> {
        let options = options_of(experiment);
        Self::of(link, experiment.id, experiment.epoch, options).await
    }

    async fn of(
        link: &mut Link,
        id: i64,
        epoch: i32,
        options: BanditOptions,
    ) -> Result<Self, StorageError> {
        const T: &str = "experiment_epochs";
        let by_hour = options.forgetting != Forgetting::Never;
        let learned = counts::read(link, id, VARIANT, by_hour).await?.arms;
        let mut learned: HashMap<String, ArmCounts> = learned
            .into_iter()
            .map(|arm| (arm.arm_id.clone(), arm))
            .collect();
        let mut contest = Self {
            options,
            hour: 0,
            arms: Vec::new(),
            in_force: Vec::new(),
        };
        for row in link.query(VARIANTS, &[&id, &epoch]).await? {
            let arm_id = column::<i64>(&row, T, "id")?.to_string();
            contest.hour = column(&row, T, "hour")?;
            contest.in_force.push(decimal(&row, T, "weight")?);
            let arm = learned.remove(&arm_id);
            contest
                .arms
                .push(arm.unwrap_or_else(|| ArmCounts::unseen(arm_id)));
        }
        Ok(contest)
    }

    /// The weights in force as fractions, by arm; none before the bandit has begun.
    #[must_use]
    pub fn shares(&self) -> HashMap<String, f64> {
        let sum: f64 = self.in_force.iter().map(|weight| weight.to_f64()).sum();
        let ids = self.arms.iter().map(|arm| arm.arm_id.clone());
        let parts = self.in_force.iter().map(|weight| weight.to_f64() / sum);
        ids.zip(parts).filter(|_| sum > 0.0).collect()
    }

    /// The picture that weights are taken from.
    ///
    /// # Errors
    /// As [`snapshot`].
    fn picture(&self) -> Result<Picture, BanditError> {
        let histories: Vec<_> = self.arms.iter().map(|arm| arm.history.clone()).collect();
        snapshot(&self.options, &histories, self.hour, 0)
    }
}

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
/// it: whoever comes second finds the epoch changed and leaves it. A bandit that cannot be read holds up no other.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn update(database: &Database) -> Result<u32, StorageError> {
    let rows = database.work().await?.query(RUNNING, &[]).await?;
    let mut opened = 0;
    for row in &rows {
        let id: i64 = column(row, "experiments", "id")?;
        match update_one(database, row).await {
            Ok(new) => opened += u32::from(new),
            Err(error) if !database.is_reachable() => return Err(error),
            Err(error) => {
                tracing::error!(experiment.id = id, error = %error.chain(), "weights of variants could not be brought up to date");
            }
        }
    }
    Ok(opened)
}

async fn update_one(database: &Database, row: &Row) -> Result<bool, StorageError> {
    let bandit = Running::read(row)?;
    if !bandit.is_due() {
        return Ok(false);
    }
    let mut link = database.work().await?;
    let (id, epoch) = (bandit.id, bandit.epoch);
    let contest = Contest::of(&mut link, id, epoch, bandit.options).await?;
    drop(link);
    let in_force = contest.in_force.clone();
    let variants: Vec<String> = contest.arms.iter().map(|arm| arm.arm_id.clone()).collect();
    // The probability of being best takes longer than other tasks of this thread should wait.
    let computed = tokio::task::spawn_blocking(move || contest.picture()).await;
    let weights = match computed {
        Ok(Ok(picture)) => percents(picture.weights()),
        Ok(Err(error)) => {
            tracing::error!(experiment.id = id, %error, "weights of variants could not be computed");
            return Ok(false);
        }
        Err(_) => return Ok(false),
    };
    if bandit.is_adaptive && !differ(&weights, &in_force) {
        return Ok(false);
    }
    open(database, id, epoch, &variants, &weights).await
}

/// Opens an adaptive epoch behind `epoch`; `false` when that is no longer in force.
async fn open(
    database: &Database,
    id: i64,
    epoch: i32,
    variants: &[String],
    weights: &[Decimal4],
) -> Result<bool, StorageError> {
    let weights: Map<String, Value> = variants
        .iter()
        .zip(weights)
        .map(|(variant, weight)| (variant.clone(), weight.to_string().into()))
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
