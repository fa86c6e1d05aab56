//! What rankings answered, kept in groups off the path of the answer, and arms on first sight.
//!
//! A decision is not acknowledged: its answer leaves before it is stored. A process that dies takes with it what was
//! queued in its last moments, and a database that is away for longer than the writers try loses it as well; the log
//! says how many. Events that refer to a lost decision are counted all the same.

use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;

use deadpool_postgres::{Object, Transaction};
use podium_domain::bandit::ArmType;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use crate::bandit::fold::FRESH;
use crate::batch::RunGroup;
use crate::{Database, StorageError};

/// An answer of a ranking.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// UUID of version 7.
    pub id: Uuid,
    /// Experiment.
    pub experiment_id: i64,
    /// Variant of the unit.
    pub variant_id: i64,
    /// The unit as the request named it.
    pub unit: String,
    /// What the candidates are.
    pub arm_type: ArmType,
    /// Wire name of the algorithm, or `input_order`.
    pub policy: &'static str,
    /// Version of the arms that it was chosen from.
    pub snapshot_version: Option<i64>,
    /// Arm ids in the order of the request.
    pub candidates: Vec<String>,
    /// What was answered: indices into `candidates`, first position first.
    pub placed: Vec<i16>,
    /// Probability of each candidate to come first.
    pub propensities: Option<Vec<f64>>,
    /// Bots and overridden units, which no evaluation reads.
    pub excluded: bool,
    /// Candidates that are no arms yet.
    pub new_arms: Vec<NewArm>,
}

/// An arm on first sight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewArm {
    /// Id.
    pub arm_id: String,
    /// Name.
    pub name: Option<String>,
    /// JSON text of an object, already checked.
    pub metadata: Option<String>,
}

/// Of decisions that show the same new arm, the first one names it.
static MAKE_ARMS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "-- decisions::make_arms
WITH seen AS (
    SELECT DISTINCT ON (i.experiment_id, i.arm_type, i.arm_id) i.*
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
        AS i (experiment_id, arm_type, arm_id, arm_name, metadata, ord)
    ORDER BY i.experiment_id, i.arm_type, i.arm_id, i.ord),
{fresh}
INSERT INTO bandit_arms (experiment_id, arm_type, arm_id, arm_name, metadata)
SELECT experiment_id, arm_type, arm_id, arm_name, coalesce(metadata, '{{}}')::jsonb
FROM fresh JOIN room USING (experiment_id, arm_type)
WHERE place <= places
ORDER BY experiment_id, arm_type, arm_id
ON CONFLICT (experiment_id, arm_type, arm_id) DO NOTHING",
        fresh = *FRESH
    )
});

const COPY: &str = "-- decisions::copy
COPY bandit_decisions (decision_id, experiment_id, variant_id, unit, arm_type, policy, snapshot_version, candidates, placed,
    propensities, excluded)
FROM STDIN (FORMAT binary)";

const TYPES: [Type; 11] = [
    Type::UUID,
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::TEXT_ARRAY,
    Type::INT2_ARRAY,
    Type::FLOAT8_ARRAY,
    Type::BOOL,
];

/// Tries before a group of decisions is given up, and the pause between two.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// Keeps decisions in groups.
#[derive(Clone, Debug)]
pub struct Keeper {
    database: Database,
}

impl Keeper {
    /// A keeper over the writers' pool.
    #[must_use]
    pub const fn new(database: Database) -> Self {
        Self { database }
    }

    /// Keeps all decisions together; when the data of one are refused, in halves, so that it harms only itself. Returns
    /// whether each is stored.
    async fn keep(&self, decisions: &[Decision]) -> Vec<bool> {
        for _ in 0..TRIES {
            match self.write(decisions).await {
                Ok(()) => return vec![true; decisions.len()],
                Err(error) if error.is_contention() => {}
                Err(error) if error.is_data_fault() && decisions.len() > 1 => {
                    let (left, right) = decisions.split_at(decisions.len() / 2);
                    let mut all = Box::pin(self.keep(left)).await;
                    all.extend(Box::pin(self.keep(right)).await);
                    return all;
                }
                Err(error) if error.is_data_fault() => {
                    tracing::error!(error = %error.chain(), "a decision was refused by the database");
                    return vec![false];
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        tracing::error!(decisions = decisions.len(), "decisions were not stored");
        vec![false; decisions.len()]
    }

    async fn write(&self, decisions: &[Decision]) -> Result<(), StorageError> {
        let mut link = self.database.write().await?;
        let limit = link.limit();
        let work = in_transaction(link.object_mut()?, decisions);
        let outcome = tokio::time::timeout(limit, work).await;
        link.settle_copy(outcome)
    }
}

impl RunGroup for Keeper {
    type Job = Decision;
    type Answer = bool;

    async fn run(&self, jobs: Vec<Decision>) -> Vec<bool> {
        self.keep(&jobs).await
    }

    fn rows(_: &Decision) -> usize {
        1
    }
}

async fn in_transaction(client: &mut Object, decisions: &[Decision]) -> Result<(), StorageError> {
    let transaction = client.transaction().await?;
    make_arms(&transaction, decisions).await?;
    copy(&transaction, decisions).await?;
    transaction.commit().await?;
    Ok(())
}

async fn make_arms(
    transaction: &Transaction<'_>,
    decisions: &[Decision],
) -> Result<(), StorageError> {
    let pairs = || {
        let arms = |decision: &'_ Decision| decision.new_arms.len();
        decisions.iter().filter(move |d| arms(d) > 0).flat_map(|d| {
            let place = (d.experiment_id, d.arm_type.name());
            d.new_arms.iter().map(move |arm| (place, arm))
        })
    };
    if pairs().next().is_none() {
        return Ok(());
    }
    let experiments: Vec<i64> = pairs().map(|((id, _), _)| id).collect();
    let types: Vec<&str> = pairs().map(|((_, kind), _)| kind).collect();
    let ids: Vec<&str> = pairs().map(|(_, arm)| arm.arm_id.as_str()).collect();
    let names: Vec<Option<&str>> = pairs().map(|(_, arm)| arm.name.as_deref()).collect();
    let metadata: Vec<Option<&str>> = pairs().map(|(_, arm)| arm.metadata.as_deref()).collect();
    let statement = transaction.prepare_cached(&MAKE_ARMS).await?;
    let parameters: [&(dyn ToSql + Sync); 5] = [&experiments, &types, &ids, &names, &metadata];
    transaction.execute(&statement, &parameters).await?;
    Ok(())
}

async fn copy(transaction: &Transaction<'_>, decisions: &[Decision]) -> Result<(), StorageError> {
    let statement = transaction.prepare_cached(COPY).await?;
    let sink = transaction.copy_in(&statement).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &TYPES));
    for decision in decisions {
        let values: [&(dyn ToSql + Sync); 11] = [
            &decision.id,
            &decision.experiment_id,
            &decision.variant_id,
            &decision.unit,
            &decision.arm_type.name(),
            &decision.policy,
            &decision.snapshot_version,
            &decision.candidates,
            &decision.placed,
            &decision.propensities,
            &decision.excluded,
        ];
        writer.as_mut().write(&values).await?;
    }
    writer.as_mut().finish().await?;
    Ok(())
}
