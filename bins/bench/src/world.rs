//! Experiments and units to measure with, and waiting until everything is at rest.

use std::time::Duration;

use serde_json::Value;

use crate::error::BenchError;
use crate::http::Connection;
use crate::lab::Lab;

pub(crate) const ASSIGN: &str = "/api/v1/experiments/assign";
pub(crate) const BULK: &str = "/api/v1/experiments/assign/bulk";
pub(crate) const RANK: &str = "/api/v1/experiments/rank";
pub(crate) const TRACK_ONE: &str = "/api/v1/experiments/track-impression";
pub(crate) const TRACK: &str = "/api/v1/experiments/track";

/// Units that most measurements draw from.
pub(crate) const UNITS: i64 = 10_000;

const LIMIT: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(50);

const EXPERIMENT: &str = "-- bench::experiment
INSERT INTO experiments (name, target, status, start_date, salt, epoch)
VALUES ($1, 'bench', 'running', now(), $1, 1) RETURNING id";

const VARIANT: &str = "-- bench::variant
INSERT INTO experiment_variants (experiment_id, name, traffic_weight, config, is_control)
VALUES ($1, $2, $3::bigint, '{\"model_version\":\"v3\"}', $4) RETURNING id";

const EPOCH: &str = "-- bench::epoch
INSERT INTO experiment_epochs (experiment_id, epoch, traffic_allocation, weights)
SELECT $1, 1, 100, jsonb_object_agg(id::text, traffic_weight) FROM experiment_variants WHERE experiment_id = $1";

/// An experiment.
#[derive(Clone, Debug)]
pub(crate) struct Experiment {
    pub(crate) id: i64,
    pub(crate) name: String,
    /// Control first.
    pub(crate) variants: Vec<i64>,
}

/// Pauses whatever runs, makes `count` running experiments with a control and a treatment of these weights, and waits
/// until the API serves exactly these.
///
/// # Errors
/// [`BenchError`] when the API does not take them over.
pub(crate) async fn experiments(
    lab: &mut Lab,
    name: &str,
    count: usize,
    weights: [i64; 2],
) -> Result<Vec<Experiment>, BenchError> {
    let mut made = Vec::with_capacity(count);
    let transaction = lab.main.transaction().await?;
    transaction
        .execute(
            "-- bench::pause\nUPDATE experiments SET status = 'paused' WHERE status = 'running'",
            &[],
        )
        .await?;
    for number in 0..count {
        let name = format!("{name}-{number}");
        let id: i64 = transaction.query_one(EXPERIMENT, &[&name]).await?.get(0);
        let mut variants = Vec::new();
        for (name, weight) in ["control__", "treatment"].iter().zip(weights) {
            let is_control = variants.is_empty();
            variants.push(
                transaction
                    .query_one(VARIANT, &[&id, name, &weight, &is_control])
                    .await?
                    .get(0),
            );
        }
        transaction.execute(EPOCH, &[&id]).await?;
        made.push(Experiment { id, name, variants });
    }
    transaction.commit().await?;
    in_force(lab, &made).await?;
    Ok(made)
}

/// Waits until a fresh user takes part in these experiments and no others.
async fn in_force(lab: &Lab, wanted: &[Experiment]) -> Result<(), BenchError> {
    let mut connection = Connection::open(lab.api.authority(), None).await?;
    let wanted: Vec<i64> = wanted.iter().map(|experiment| experiment.id).collect();
    tokio::time::timeout(LIMIT, async {
        loop {
            let body = connection
                .ask("POST", BULK, r#"{"user_id":"probe"}"#)
                .await?;
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            let ids = answer["assignments"].as_array().map(|all| {
                all.iter()
                    .filter_map(|one| one["experiment"].as_i64())
                    .collect()
            });
            if ids == Some(wanted.clone()) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await
    .map_err(|_| BenchError::TooLate("the taking over of experiments"))?
}

/// Name of unit `number` as the scripts spell it.
pub(crate) fn unit(letter: char, number: i64) -> String {
    format!("{letter}{number:08}")
}

/// Lets the API assign `count` units in an experiment, or read them again from the table: afterwards it knows them.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn meet(
    lab: &Lab,
    experiment: &Experiment,
    letter: char,
    count: i64,
) -> Result<(), BenchError> {
    let mut connection = Connection::open(lab.api.authority(), None).await?;
    let mut from = 0;
    while from < count {
        let to = (from + 500).min(count);
        let names: Vec<String> = (from..to).map(|number| unit(letter, number)).collect();
        let body =
            serde_json::json!({ "experiment": experiment.id, "user_ids": names }).to_string();
        let answer = connection.ask("POST", BULK, &body).await?;
        // Whoever was not answered from the table in time is asked for again.
        if !String::from_utf8_lossy(&answer).contains("\"degraded\"") {
            from = to;
        }
    }
    Ok(())
}

const FOLDED: &str = "-- bench::folded
SELECT folded_at > $1 FROM fold_state";

/// Waits until everything written so far is folded, then writes a checkpoint, so that no half of a pair pays for what
/// the one before it left behind.
///
/// # Errors
/// [`BenchError::TooLate`].
pub(crate) async fn rest(lab: &Lab) -> Result<(), BenchError> {
    let since: chrono::DateTime<chrono::Utc> =
        lab.main.query_one("SELECT now()", &[]).await?.get(0);
    tokio::time::timeout(LIMIT, async {
        while !lab
            .main
            .query_one(FOLDED, &[&since])
            .await?
            .get::<_, bool>(0)
        {
            tokio::time::sleep(PAUSE).await;
        }
        Ok::<(), BenchError>(())
    })
    .await
    .map_err(|_| BenchError::TooLate("folding"))??;
    checkpoint(lab).await
}

/// Writes what is dirty to the disk.
///
/// # Errors
/// [`BenchError::Db`].
pub(crate) async fn checkpoint(lab: &Lab) -> Result<(), BenchError> {
    Ok(lab.main.batch_execute("CHECKPOINT").await?)
}
