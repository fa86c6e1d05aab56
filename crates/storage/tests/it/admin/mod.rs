//! Administration against a real database: life cycle, versions, epochs, audit log, overrides, users.

use podium_domain::bucketing::HashVersion;
use podium_domain::decimal::Decimal4;
use podium_domain::experiment::{Action, ExperimentType, Status};
use podium_domain::metric::Metric;
use podium_storage::audit::{self, Origin};
use podium_storage::experiments::{
    self, ChangeError, Conflict, Design, DesignPatch, Experiment, ExperimentPatch, ExperimentRef,
    Filter, NewExperiment, NewVariant, Precondition, Step, VariantChoice, VariantPatch, overrides,
    variants,
};
use serde_json::{Value, json};

use crate::support::{TestDatabase, with_database};

mod changes;
mod life;
mod log;
mod users;

const ANY: Precondition = Precondition::Any;

/// With a number that no float holds.
const CONFIG: &str = r#"{"note":"ü","nested":{"list":[1,2.50,null,12345678901234567890.12345]}}"#;

/// Who makes the changes of a test.
fn origin() -> Origin {
    Origin {
        actor: "ada".into(),
        request_id: "r-1".into(),
        address: Some("192.0.2.1".into()),
    }
}

/// A number that a statement yields.
async fn count(db: &TestDatabase, sql: &str) -> i64 {
    db.client().await.query_one(sql, &[]).await.unwrap().get(0)
}

fn json_of(text: Option<String>) -> Option<Value> {
    text.map(|text| serde_json::from_str(&text).unwrap())
}

/// Actions in the audit log, oldest first.
async fn actions(db: &TestDatabase) -> Vec<String> {
    let rows = db
        .client()
        .await
        .query("SELECT action FROM audit_log ORDER BY id", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn new_experiment(name: &str) -> NewExperiment {
    NewExperiment {
        name: name.into(),
        description: "which order sells".into(),
        experiment_type: ExperimentType::AbTest,
        target: "newsfeed".into(),
        traffic_allocation: Decimal4(333_333),
        primary_metric: Metric::AddToCartRate,
        secondary_metrics: vec![Metric::ClickThroughRate, Metric::RevenuePerUser],
        guardrails: vec![Metric::ErrorRate],
        design: Design {
            min_detectable_effect: Some(0.1),
            horizon_days: Some(30),
            look_every_hours: 24,
            winsorize_upper: Some(0.975),
        },
        config: CONFIG.into(),
        salt: format!("salt of {name}"),
        hash_version: HashVersion::V1,
    }
}

fn new_variant(name: &str) -> NewVariant {
    NewVariant {
        name: name.into(),
        description: String::new(),
        traffic_weight: Decimal4(10_000),
        config: r#"{"order":["a","b"]}"#.into(),
        is_control: name == "control",
    }
}

/// A draft with a control and a treatment.
async fn draft(db: &TestDatabase, name: &str) -> Experiment {
    let created = experiments::create(&db.database, &origin(), &new_experiment(name))
        .await
        .unwrap();
    let reference = ExperimentRef::Id(created.id);
    for variant in ["control", "b"] {
        variants::add(
            &db.database,
            &origin(),
            &reference,
            &ANY,
            &new_variant(variant),
        )
        .await
        .unwrap();
    }
    experiments::read(&db.database, &reference)
        .await
        .unwrap()
        .unwrap()
}

async fn take(
    db: &TestDatabase,
    experiment: &Experiment,
    step: Step,
) -> Result<Experiment, ChangeError> {
    experiments::step(
        &db.database,
        &origin(),
        &ExperimentRef::Id(experiment.id),
        &ANY,
        step,
    )
    .await
}

async fn in_state(db: &TestDatabase, name: &str, status: Status) -> Experiment {
    let mut experiment = draft(db, name).await;
    let steps: &[Step] = match status {
        Status::Draft => &[],
        Status::Running => &[Step::Start],
        Status::Paused => &[Step::Start, Step::Pause],
        Status::Completed => &[Step::Start, Step::Stop],
        Status::Archived => &[Step::Start, Step::Stop, Step::Archive],
    };
    for step in steps {
        experiment = take(db, &experiment, *step).await.unwrap();
    }
    assert_eq!(experiment.status, status);
    experiment
}

async fn patch(
    db: &TestDatabase,
    id: i64,
    when: &Precondition,
    patch: &ExperimentPatch,
) -> Result<Experiment, ChangeError> {
    experiments::patch(&db.database, &origin(), &ExperimentRef::Id(id), when, patch).await
}

async fn patch_variant(
    db: &TestDatabase,
    experiment: &Experiment,
    at: usize,
    patch: &VariantPatch,
) -> Result<variants::Changed, ChangeError> {
    let (reference, id) = (ExperimentRef::Id(experiment.id), experiment.variants[at].id);
    variants::patch(&db.database, &origin(), &reference, id, &ANY, patch).await
}

fn described(text: &str) -> ExperimentPatch {
    ExperimentPatch {
        description: Some(text.into()),
        ..ExperimentPatch::default()
    }
}

fn weighing(units: i64) -> VariantPatch {
    VariantPatch {
        traffic_weight: Some(Decimal4(units)),
        ..VariantPatch::default()
    }
}

async fn epochs(db: &TestDatabase, id: i64) -> Vec<(i32, String, Value)> {
    let sql = "SELECT epoch, traffic_allocation::text, weights FROM experiment_epochs WHERE experiment_id = $1 ORDER BY 1";
    let rows = db.client().await.query(sql, &[&id]).await.unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}
