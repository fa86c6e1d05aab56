//! What every replica holds in memory: experiments, variants, overrides, promotions, people, API keys.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use podium_domain::decimal::Decimal4;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{IsolationLevel, Row};
use uuid::Uuid;

use crate::api_keys::{self, ApiKeyDefinition};
use crate::database::{Link, Query};
use crate::rows::{column, decimal};
use crate::{Database, StorageError};

/// All definitions at one version.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Definitions {
    /// Rises with every change; see [`version`].
    pub version: i64,
    /// Every experiment; drafts and archived ones without variants and overrides.
    pub experiments: Vec<ExperimentDefinition>,
    /// The experiments of the variants of drafts and archived ones, by variant id: an event that names such a variant
    /// alone is refused for the experiment's state, not as one that nobody knows. A file of an earlier version has none.
    #[serde(default)]
    pub idle_variants: HashMap<i64, i64>,
    /// People by id.
    pub users: HashMap<String, UserDefinition>,
    /// API keys that were not revoked.
    pub api_keys: Vec<ApiKeyDefinition>,
    /// Units that were forgotten so far.
    pub erasures: i64,
}

/// An experiment as the storefront path needs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExperimentDefinition {
    /// Numeric id.
    pub id: i64,
    /// Unique name.
    pub name: String,
    /// Placement that it runs on.
    pub target: String,
    /// Type as in the column: `ab_test`, `multivariate`, `bandit`.
    pub experiment_type: String,
    /// Status as in the column.
    pub status: String,
    /// Last start.
    pub start_date: Option<DateTime<Utc>>,
    /// When it was completed.
    pub end_date: Option<DateTime<Utc>>,
    /// Share of units that take part, in percent.
    pub traffic_allocation: Decimal4,
    /// Prefix of what is hashed.
    pub salt: String,
    /// 1 or 2.
    pub hash_version: i16,
    /// Stretch of constant weights that is in force.
    pub epoch: i32,
    /// Free configuration.
    pub config: Value,
    /// Variants in id order.
    pub variants: Vec<VariantDefinition>,
    /// Units pinned to a variant id.
    pub overrides: HashMap<String, i64>,
    /// What is in force of a bandit.
    pub bandit: Option<BanditEpoch>,
    /// The active promotion of a completed experiment.
    pub promotion: Option<PromotionDefinition>,
}

/// The epoch of a bandit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanditEpoch {
    /// Epoch of the share of units that is split evenly.
    pub control_epoch: i32,
    /// Weights by variant id, in percent; `None`: all units are split evenly.
    pub weights: Option<HashMap<i64, Decimal4>>,
}

/// An active promotion as the storefront path needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotionDefinition {
    /// Its id.
    pub id: Uuid,
    /// The variant that was promoted.
    pub winner_id: i64,
    /// The winner's share of traffic at each step, in percent, rising.
    pub steps: Vec<Decimal4>,
    /// Place of the step in force, from 0.
    pub step: i32,
    /// Share that stays on the control, in percent; zero once the watch has ended.
    pub holdback: Decimal4,
    /// Whether its guard still watches.
    pub is_watched: bool,
}

/// A variant as the storefront path needs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VariantDefinition {
    /// Numeric id.
    pub id: i64,
    /// Name, unique in its experiment.
    pub name: String,
    /// Weight relative to the others; 0 retires it.
    pub traffic_weight: Decimal4,
    /// Handed to the storefront as `params`: JSON text, so that its numbers stay as they were written.
    pub config: String,
    /// Whether it is the control.
    pub is_control: bool,
}

/// A person as access checks need it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UserDefinition {
    /// `viewer`, `editor`, `promoter` or `admin`.
    pub role: String,
    /// Whether every token is refused.
    pub disabled: bool,
    /// Tokens issued earlier are refused.
    pub tokens_valid_after: Option<DateTime<Utc>>,
}

const VERSION: &str = "-- definitions::version
SELECT version FROM config_version";

const EXPERIMENTS: &str = "-- definitions::experiments
SELECT id, name, target, experiment_type, status, start_date, end_date, traffic_allocation::text, salt, hash_version, epoch, config
FROM experiments ORDER BY id";

const VARIANTS: &str = "-- definitions::variants
SELECT v.experiment_id, v.id, v.name, v.traffic_weight::text, v.config::text, v.is_control
FROM experiment_variants v JOIN experiments e ON e.id = v.experiment_id
WHERE e.status IN ('running', 'paused', 'completed') ORDER BY v.experiment_id, v.id";

const IDLE_VARIANTS: &str = "-- definitions::idle_variants
SELECT v.id, v.experiment_id
FROM experiment_variants v JOIN experiments e ON e.id = v.experiment_id
WHERE e.status NOT IN ('running', 'paused', 'completed')";

const OVERRIDES: &str = "-- definitions::overrides
SELECT o.experiment_id, o.unit, o.variant_id
FROM experiment_overrides o JOIN experiments e ON e.id = o.experiment_id
WHERE e.status IN ('running', 'paused', 'completed')";

const BANDITS: &str = "-- definitions::bandits
SELECT e.id, coalesce(c.adaptive_of, c.epoch) AS control_epoch, c.adaptive_of IS NOT NULL AS is_adaptive,
       w.key::bigint AS variant_id, w.value AS weight
FROM experiments e JOIN experiment_epochs c ON c.experiment_id = e.id AND c.epoch = e.epoch
CROSS JOIN LATERAL jsonb_each_text(c.weights) AS w (key, value)
WHERE e.experiment_type = 'bandit' AND e.status IN ('running', 'paused', 'completed')";
/// A promotion without a rollout was recorded past the engine: everybody has moved, and nobody watches.
const PROMOTIONS: &str = "-- definitions::promotions
SELECT p.experiment_id, p.id, p.promoted_variant_id, coalesce(r.steps, '{100}')::text[] AS steps, coalesce(r.step, 0) AS step,
       w.is_watched, CASE WHEN w.is_watched THEN r.holdback ELSE 0 END::text AS holdback
FROM experiment_promotions p JOIN experiments e ON e.id = p.experiment_id
LEFT JOIN promotion_rollouts r ON r.promotion_id = p.id
CROSS JOIN LATERAL (SELECT coalesce(r.watch_hours > 0 AND r.watch_ended_at IS NULL, false) AS is_watched) w
WHERE p.rollback_at IS NULL AND e.status = 'completed'";

const ERASURES: &str = "-- definitions::erasures
SELECT coalesce(max(id), 0) AS erasures FROM unit_erasures";

const USERS: &str = "-- definitions::users
SELECT id, role, disabled, tokens_valid_after FROM podium_users";

/// The version of the definitions now in the database.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn version(database: &mut impl Query) -> Result<i64, StorageError> {
    let row = database.query_opt(VERSION, &[]).await?;
    let row = row.ok_or(StorageError::CorruptRow {
        table: "config_version",
        column: "version",
    })?;
    column(&row, "config_version", "version")
}

/// Reads everything as it stood at one moment, the version included: no change is half in it, and none that came later is
/// taken for read.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn load(database: &Database) -> Result<Definitions, StorageError> {
    let mut link = database.serve().await?;
    let outcome = at_one_moment(&mut link).await;
    link.settle(Ok(outcome))
}

async fn at_one_moment(link: &mut Link) -> Result<Definitions, StorageError> {
    let limit = link.limit();
    let transaction = link
        .object_mut()?
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true);
    let transaction = in_time(limit, async { Ok(transaction.start().await?) }).await?;
    let mut moment = Moment {
        transaction: &transaction,
        limit,
    };
    let definitions = read(&mut moment).await?;
    in_time(limit, async { Ok(transaction.commit().await?) }).await?;
    Ok(definitions)
}

/// Statements of one transaction, each with the time that it has outside of one: many experiments together may take longer
/// than one statement may.
struct Moment<'t> {
    transaction: &'t Transaction<'t>,
    limit: Duration,
}

impl Query for Moment<'_> {
    async fn query(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StorageError> {
        let mut transaction = self.transaction;
        in_time(self.limit, Query::query(&mut transaction, sql, params)).await
    }
}

async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    let done = timeout(limit, work).await;
    done.unwrap_or(Err(StorageError::TimedOut))
}

async fn read(moment: &mut Moment<'_>) -> Result<Definitions, StorageError> {
    let version = version(moment).await?;
    let mut experiments = Vec::new();
    let mut index = HashMap::new();
    for row in moment.query(EXPERIMENTS, &[]).await? {
        let experiment = experiment(&row)?;
        index.insert(experiment.id, experiments.len());
        experiments.push(experiment);
    }
    for row in moment.query(VARIANTS, &[]).await? {
        let id: i64 = column(&row, "experiment_variants", "experiment_id")?;
        if let Some(experiment) = index.get(&id).and_then(|&at| experiments.get_mut(at)) {
            experiment.variants.push(variant(&row)?);
        }
    }
    let mut idle_variants = HashMap::new();
    for row in moment.query(IDLE_VARIANTS, &[]).await? {
        idle_variants.insert(
            column(&row, "experiment_variants", "id")?,
            column(&row, "experiment_variants", "experiment_id")?,
        );
    }
    for row in moment.query(OVERRIDES, &[]).await? {
        let id: i64 = column(&row, "experiment_overrides", "experiment_id")?;
        if let Some(experiment) = index.get(&id).and_then(|&at| experiments.get_mut(at)) {
            let unit = column(&row, "experiment_overrides", "unit")?;
            experiment
                .overrides
                .insert(unit, column(&row, "experiment_overrides", "variant_id")?);
        }
    }
    for row in moment.query(BANDITS, &[]).await? {
        let id: i64 = column(&row, "experiments", "id")?;
        if let Some(experiment) = index.get(&id).and_then(|&at| experiments.get_mut(at)) {
            add_weight(experiment.bandit.get_or_insert_default(), &row)?;
        }
    }
    for row in moment.query(PROMOTIONS, &[]).await? {
        let id: i64 = column(&row, "experiment_promotions", "experiment_id")?;
        if let Some(experiment) = index.get(&id).and_then(|&at| experiments.get_mut(at)) {
            experiment.promotion = Some(promotion(&row)?);
        }
    }
    let mut users = HashMap::new();
    for row in moment.query(USERS, &[]).await? {
        users.insert(column(&row, "podium_users", "id")?, user(&row)?);
    }
    let erasures = match moment.query_opt(ERASURES, &[]).await? {
        Some(row) => column(&row, "unit_erasures", "erasures")?,
        None => 0,
    };
    let mut keys = Vec::new();
    for row in moment.query(api_keys::IN_FORCE, &[]).await? {
        keys.push(api_keys::definition(&row)?);
    }
    Ok(Definitions {
        version,
        experiments,
        idle_variants,
        users,
        api_keys: keys,
        erasures,
    })
}

fn experiment(row: &Row) -> Result<ExperimentDefinition, StorageError> {
    const T: &str = "experiments";
    Ok(ExperimentDefinition {
        id: column(row, T, "id")?,
        name: column(row, T, "name")?,
        target: column(row, T, "target")?,
        experiment_type: column(row, T, "experiment_type")?,
        status: column(row, T, "status")?,
        start_date: column(row, T, "start_date")?,
        end_date: column(row, T, "end_date")?,
        traffic_allocation: decimal(row, T, "traffic_allocation")?,
        salt: column(row, T, "salt")?,
        hash_version: column(row, T, "hash_version")?,
        epoch: column(row, T, "epoch")?,
        config: column(row, T, "config")?,
        variants: Vec::new(),
        overrides: HashMap::new(),
        bandit: None,
        promotion: None,
    })
}

fn promotion(row: &Row) -> Result<PromotionDefinition, StorageError> {
    const T: &str = "promotion_rollouts";
    let steps: Vec<String> = column(row, T, "steps")?;
    let steps = steps.iter().map(|step| Decimal4::parse(step));
    let steps: Result<Vec<Decimal4>, _> = steps.collect();
    Ok(PromotionDefinition {
        id: column(row, "experiment_promotions", "id")?,
        winner_id: column(row, "experiment_promotions", "promoted_variant_id")?,
        steps: steps.map_err(|_| StorageError::CorruptRow {
            table: T,
            column: "steps",
        })?,
        step: column(row, T, "step")?,
        holdback: decimal(row, T, "holdback")?,
        is_watched: column(row, T, "is_watched")?,
    })
}

fn add_weight(epoch: &mut BanditEpoch, row: &Row) -> Result<(), StorageError> {
    const T: &str = "experiment_epochs";
    epoch.control_epoch = column(row, T, "control_epoch")?;
    if column(row, T, "is_adaptive")? {
        let (variant, weight) = (column(row, T, "variant_id")?, decimal(row, T, "weight")?);
        epoch
            .weights
            .get_or_insert_default()
            .insert(variant, weight);
    }
    Ok(())
}

fn variant(row: &Row) -> Result<VariantDefinition, StorageError> {
    const T: &str = "experiment_variants";
    Ok(VariantDefinition {
        id: column(row, T, "id")?,
        name: column(row, T, "name")?,
        traffic_weight: decimal(row, T, "traffic_weight")?,
        config: column(row, T, "config")?,
        is_control: column(row, T, "is_control")?,
    })
}

fn user(row: &Row) -> Result<UserDefinition, StorageError> {
    const T: &str = "podium_users";
    Ok(UserDefinition {
        role: column(row, T, "role")?,
        disabled: column(row, T, "disabled")?,
        tokens_valid_after: column(row, T, "tokens_valid_after")?,
    })
}
