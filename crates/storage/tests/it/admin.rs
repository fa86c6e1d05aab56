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
use podium_storage::users::{self, ADMIN, NewUser, UserPatch};
use serde_json::{Value, json};

use crate::support::{TestDatabase, with_database};

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

/// Creates an experiment with every field set and compares what is read back with it.
#[test]
fn every_field_comes_back_as_it_was_given() {
    with_database(async |db| {
        let new = new_experiment("Module Order");
        let created = experiments::create(&db.database, &origin(), &new)
            .await
            .unwrap();
        let read = experiments::read(&db.database, &ExperimentRef::Name("Module Order".into()))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read, created);
        assert_eq!(
            (
                read.name,
                read.description,
                read.experiment_type,
                read.target
            ),
            (new.name, new.description, new.experiment_type, new.target)
        );
        assert_eq!(
            (read.traffic_allocation, read.primary_metric),
            (new.traffic_allocation, new.primary_metric)
        );
        assert_eq!(
            (read.secondary_metrics, read.guardrails),
            (new.secondary_metrics, new.guardrails)
        );
        assert_eq!((read.design, read.salt), (new.design, new.salt));
        // The database has its own spacing; the digits are those that were given.
        assert_eq!(read.config.replace(": ", ":").replace(", ", ","), CONFIG);
        assert_eq!(
            (read.hash_version, read.status, read.epoch, read.version),
            (HashVersion::V1, Status::Draft, 0, 1)
        );
        assert_eq!(read.created_by.as_deref(), Some("ada"));
        assert_eq!(
            experiments::read(&db.database, &ExperimentRef::Id(created.id + 1))
                .await
                .unwrap(),
            None
        );
    });
}

/// Takes every step from every state and compares with the life cycle of the domain; a refused step leaves the row, and
/// the log, as they were.
#[test]
fn the_life_cycle_is_that_of_the_domain() {
    with_database(async |db| {
        for from in Status::ALL.iter().copied() {
            for (at, wanted) in [
                Action::Start,
                Action::Pause,
                Action::Resume,
                Action::Stop,
                Action::DeclareWinner,
                Action::Archive,
            ]
            .into_iter()
            .enumerate()
            {
                let before = in_state(db, &format!("{from} {at}"), from).await;
                let log = actions(db).await.len();
                let winner = before.variants[1].id;
                let step = match wanted {
                    Action::Start => Step::Start,
                    Action::Pause => Step::Pause,
                    Action::Resume => Step::Resume,
                    Action::Stop => Step::Stop,
                    Action::DeclareWinner => Step::DeclareWinner {
                        winner_variant_id: winner,
                        significance: Some(99.0),
                    },
                    _ => Step::Archive,
                };
                let outcome = take(db, &before, step).await;
                let after = experiments::read(&db.database, &ExperimentRef::Id(before.id))
                    .await
                    .unwrap()
                    .unwrap();
                match from.after(wanted) {
                    Ok(to) => {
                        assert_eq!(outcome.unwrap(), after);
                        assert_eq!(
                            (after.status, after.version),
                            (to, before.version + 1),
                            "{wanted} from {from}"
                        );
                        assert_eq!(
                            actions(db).await.split_off(log),
                            [format!("experiment.{wanted}")]
                        );
                    }
                    Err(refused) => {
                        let error = outcome.unwrap_err();
                        assert!(
                            matches!(&error, ChangeError::Conflict(Conflict::Transition(t)) if *t == refused),
                            "{error}"
                        );
                        assert_eq!(after, before);
                        assert_eq!(actions(db).await.len(), log);
                    }
                }
            }
        }
    });
}

/// Starts, pauses, resumes, declares: the dates are those of the database and only the first start counts.
#[test]
fn dates_come_from_the_database() {
    with_database(async |db| {
        let draft = draft(db, "dates").await;
        let started = take(db, &draft, Step::Start).await.unwrap();
        let start = started.start_date.unwrap();
        assert_eq!(start, started.updated_at);
        take(db, &draft, Step::Pause).await.unwrap();
        let resumed = take(db, &draft, Step::Resume).await.unwrap();
        assert_eq!((resumed.start_date, resumed.end_date), (Some(start), None));
        let winner = draft.variants[1].id;
        let step = Step::DeclareWinner {
            winner_variant_id: winner,
            significance: Some(96.5),
        };
        let ended = take(db, &draft, step).await.unwrap();
        assert_eq!(
            (ended.winner_variant_id, ended.statistical_significance),
            (Some(winner), Some(96.5))
        );
        assert!(ended.end_date.unwrap() > start);
    });
}

/// A patch with the version that was read passes, and the same one again is stale.
#[test]
fn a_stale_version_changes_nothing() {
    with_database(async |db| {
        let draft = draft(db, "stale").await;
        let read = Precondition::OneOf(vec![draft.version]);
        let first = patch(db, draft.id, &read, &described("one")).await.unwrap();
        assert_eq!(first.version, draft.version + 1);
        let second = patch(db, draft.id, &read, &described("two"))
            .await
            .unwrap_err();
        assert!(matches!(second, ChangeError::Stale { current } if current == first.version));
        let reference = ExperimentRef::Id(draft.id);
        let stopped =
            experiments::step(&db.database, &origin(), &reference, &read, Step::Start).await;
        assert!(matches!(stopped, Err(ChangeError::Stale { .. })));
        assert!(matches!(
            experiments::delete(&db.database, &origin(), &reference, &read).await,
            Err(ChangeError::Stale { .. })
        ));
        let variant = variants::add(
            &db.database,
            &origin(),
            &reference,
            &read,
            &new_variant("late"),
        )
        .await;
        assert!(matches!(variant, Err(ChangeError::Stale { .. })));
        assert_eq!(
            experiments::read(&db.database, &reference)
                .await
                .unwrap()
                .unwrap(),
            first
        );
    });
}

/// A change of a variant makes the version of the experiment stale, because they share one.
#[test]
fn variants_share_the_version_of_their_experiment() {
    with_database(async |db| {
        let draft = draft(db, "shared").await;
        let changed = patch_variant(db, &draft, 1, &weighing(20_000))
            .await
            .unwrap();
        assert_eq!(changed.version, draft.version + 1);
        let stale = patch(
            db,
            draft.id,
            &Precondition::OneOf(vec![draft.version]),
            &described("x"),
        )
        .await;
        assert!(matches!(stale, Err(ChangeError::Stale { .. })));
    });
}

/// Two people send a patch with the same version at the same time, many times over: exactly one passes each time.
#[test]
fn of_two_concurrent_patches_one_wins() {
    with_database(async |db| {
        let mut current = draft(db, "race").await;
        for round in 0..20 {
            let read = Precondition::OneOf(vec![current.version]);
            let (one, two) = (
                described(&format!("one {round}")),
                described(&format!("two {round}")),
            );
            let (one, two) = tokio::join!(
                patch(db, current.id, &read, &one),
                patch(db, current.id, &read, &two)
            );
            let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
            assert!(matches!(lost, Err(ChangeError::Stale { .. })));
            let after = won.unwrap();
            assert_eq!(after.version, current.version + 1);
            current = after;
        }
        assert_eq!(
            count(
                db,
                "SELECT count(*) FROM audit_log WHERE action = 'experiment.update'"
            )
            .await,
            20
        );
    });
}

/// A patch that sets fields to what they are is no change: same version, no entry.
#[test]
fn a_patch_without_effect_leaves_no_trace() {
    with_database(async |db| {
        let running = in_state(db, "same", Status::Running).await;
        let log = actions(db).await.len();
        let same = ExperimentPatch {
            name: Some(running.name.clone()),
            salt: Some(running.salt.clone()),
            traffic_allocation: Some(running.traffic_allocation),
            config: Some(CONFIG.into()),
            ..ExperimentPatch::default()
        };
        assert_eq!(patch(db, running.id, &ANY, &same).await.unwrap(), running);
        let weight = running.variants[0].traffic_weight;
        let changed = patch_variant(db, &running, 0, &weighing(weight.units()))
            .await
            .unwrap();
        assert_eq!(changed.version, running.version);
        assert_eq!(actions(db).await.len(), log);
        assert_eq!(epochs(db, running.id).await.len(), 1);
    });
}

/// One control, however it is asked for: one after the other, at the same moment, by a patch.
#[test]
fn a_second_control_is_refused() {
    with_database(async |db| {
        let created = experiments::create(&db.database, &origin(), &new_experiment("controls"))
            .await
            .unwrap();
        let reference = ExperimentRef::Id(created.id);
        let (a, b) = (
            new_variant("control"),
            NewVariant {
                name: "other".into(),
                ..new_variant("control")
            },
        );
        let author = origin();
        let (one, two) = tokio::join!(
            variants::add(&db.database, &author, &reference, &ANY, &a),
            variants::add(&db.database, &author, &reference, &ANY, &b)
        );
        let lost = if one.is_ok() { two } else { one };
        assert!(matches!(
            lost,
            Err(ChangeError::Conflict(Conflict::SecondControl))
        ));
        variants::add(&db.database, &origin(), &reference, &ANY, &new_variant("b"))
            .await
            .unwrap();
        let experiment = experiments::read(&db.database, &reference)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(experiment.variants.len(), 2);
        let control = VariantPatch {
            is_control: Some(true),
            ..VariantPatch::default()
        };
        let refused = patch_variant(db, &experiment, 1, &control).await;
        assert!(matches!(
            refused,
            Err(ChangeError::Conflict(Conflict::SecondControl))
        ));
    });
}

/// Walks through a life and compares the rows of epochs after every step.
#[test]
fn epochs_open_when_the_split_changes_and_only_then() {
    with_database(async |db| {
        let draft = draft(db, "epochs").await;
        let (a, b) = (
            draft.variants[0].id.to_string(),
            draft.variants[1].id.to_string(),
        );
        patch_variant(db, &draft, 0, &weighing(30_000))
            .await
            .unwrap();
        assert_eq!(epochs(db, draft.id).await, []);
        let started = take(db, &draft, Step::Start).await.unwrap();
        assert_eq!(started.epoch, 1);
        let first = (1, "33.3333".to_owned(), json!({&a: 3.0, &b: 1.0}));
        assert_eq!(epochs(db, draft.id).await, [first.clone()]);

        patch(db, draft.id, &ANY, &described("no split"))
            .await
            .unwrap();
        take(db, &draft, Step::Pause).await.unwrap();
        take(db, &draft, Step::Resume).await.unwrap();
        assert_eq!(epochs(db, draft.id).await, [first.clone()]);

        patch_variant(db, &draft, 1, &weighing(15_000))
            .await
            .unwrap();
        let wider = ExperimentPatch {
            traffic_allocation: Some(Decimal4(1_000_000)),
            ..ExperimentPatch::default()
        };
        assert_eq!(patch(db, draft.id, &ANY, &wider).await.unwrap().epoch, 3);
        take(db, &draft, Step::Pause).await.unwrap();
        let reference = ExperimentRef::Id(draft.id);
        let added = variants::add(&db.database, &origin(), &reference, &ANY, &new_variant("c"))
            .await
            .unwrap();
        let c = added.variant.id.to_string();
        take(db, &draft, Step::Stop).await.unwrap();
        let want = [
            first,
            (2, "33.3333".to_owned(), json!({&a: 3.0, &b: 1.5})),
            (3, "100.0000".to_owned(), json!({&a: 3.0, &b: 1.5})),
            (4, "100.0000".to_owned(), json!({&a: 3.0, &b: 1.5, &c: 1.0})),
        ];
        assert_eq!(epochs(db, draft.id).await, want);
    });
}

/// While units are assigned, what they depend on stays; everything else may change.
#[test]
fn what_is_fixed_while_running_stays() {
    with_database(async |db| {
        let running = in_state(db, "fixed", Status::Running).await;
        let refused = patch(
            &db,
            running.id,
            &ANY,
            &ExperimentPatch {
                name: Some("new".into()),
                target: Some("pdp".into()),
                salt: Some("new".into()),
                experiment_type: Some(ExperimentType::Bandit),
                hash_version: Some(HashVersion::V2),
                description: Some("new".into()),
                ..ExperimentPatch::default()
            },
        )
        .await
        .unwrap_err()
        .to_string();
        assert_eq!(
            refused,
            "cannot change name, experimentType, target, salt, hashVersion: the experiment is running; possible are \
             description, trafficAllocation, primaryMetric, secondaryMetrics, guardrails, design, config"
        );
        let variant = VariantPatch {
            config: Some("{}".into()),
            is_control: Some(true),
            ..VariantPatch::default()
        };
        let refused = patch_variant(db, &running, 1, &variant)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            refused.starts_with(
                "cannot change config, isControl of a variant: the experiment is running"
            ),
            "{refused}"
        );
        patch_variant(db, &running, 0, &weighing(0)).await.unwrap();
        let silent = patch_variant(db, &running, 1, &weighing(0)).await;
        assert!(matches!(
            silent,
            Err(ChangeError::Conflict(Conflict::NoTraffic(Status::Running)))
        ));
        let allowed = ExperimentPatch {
            primary_metric: Some(Metric::RevenuePerUser),
            design: DesignPatch {
                horizon_days: Some(None),
                ..DesignPatch::default()
            },
            config: Some(r#"{"a":1}"#.into()),
            ..ExperimentPatch::default()
        };
        let after = patch(db, running.id, &ANY, &allowed).await.unwrap();
        assert_eq!(
            (after.primary_metric, after.config),
            (Metric::RevenuePerUser, r#"{"a": 1}"#.to_owned())
        );
        assert_eq!(
            after.design,
            Design {
                horizon_days: None,
                ..running.design
            }
        );
    });
}

/// A name belongs to one experiment, and to one variant of an experiment.
#[test]
fn names_are_unique() {
    with_database(async |db| {
        let (one, two) = (draft(db, "one").await, draft(db, "two").await);
        let again = experiments::create(&db.database, &origin(), &new_experiment("one")).await;
        assert!(matches!(
            again,
            Err(ChangeError::Conflict(Conflict::NameTaken))
        ));
        let renamed = ExperimentPatch {
            name: Some("one".into()),
            ..ExperimentPatch::default()
        };
        let renamed = patch(db, two.id, &ANY, &renamed).await;
        assert!(matches!(
            renamed,
            Err(ChangeError::Conflict(Conflict::NameTaken))
        ));
        let reference = ExperimentRef::Id(one.id);
        let twin =
            variants::add(&db.database, &origin(), &reference, &ANY, &new_variant("b")).await;
        assert!(matches!(
            twin,
            Err(ChangeError::Conflict(Conflict::VariantNameTaken))
        ));
        variants::add(
            &db.database,
            &origin(),
            &ExperimentRef::Id(two.id),
            &ANY,
            &new_variant("c"),
        )
        .await
        .unwrap();
    });
}

/// Of concurrent creations with one name, one passes and the others hear of the conflict, not of a failure.
#[test]
fn concurrent_creations_share_no_name() {
    with_database(async |db| {
        let (author, new) = (origin(), new_experiment("same"));
        let (a, b, c) = tokio::join!(
            experiments::create(&db.database, &author, &new),
            experiments::create(&db.database, &author, &new),
            experiments::create(&db.database, &author, &new)
        );
        let outcomes = [a, b, c];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let conflicts = outcomes
            .iter()
            .filter(|o| matches!(o, Err(ChangeError::Conflict(Conflict::NameTaken))));
        assert_eq!(conflicts.count(), 2);
    });
}

/// Drafts and their variants can be deleted, nothing else can.
#[test]
fn only_drafts_are_deleted() {
    with_database(async |db| {
        for status in Status::ALL
            .iter()
            .copied()
            .filter(|status| *status != Status::Draft)
        {
            let experiment = in_state(db, &format!("kept {status}"), status).await;
            let reference = ExperimentRef::Id(experiment.id);
            let refused = experiments::delete(&db.database, &origin(), &reference, &ANY).await;
            assert!(
                matches!(refused, Err(ChangeError::Conflict(Conflict::Transition(_)))),
                "{status}"
            );
            let variant = experiment.variants[1].id;
            let refused =
                variants::delete(&db.database, &origin(), &reference, variant, &ANY).await;
            assert!(
                matches!(refused, Err(ChangeError::Conflict(Conflict::VariantStays(s))) if s == status)
            );
        }
        let gone = draft(db, "gone").await;
        let reference = ExperimentRef::Id(gone.id);
        variants::delete(
            &db.database,
            &origin(),
            &reference,
            gone.variants[1].id,
            &ANY,
        )
        .await
        .unwrap();
        let missing = variants::delete(
            &db.database,
            &origin(),
            &reference,
            gone.variants[1].id,
            &ANY,
        )
        .await;
        assert!(matches!(missing, Err(ChangeError::NotFound(_))));
        let left = experiments::read(&db.database, &reference)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((left.variants.len(), left.version), (1, gone.version + 1));
        experiments::delete(&db.database, &origin(), &reference, &ANY)
            .await
            .unwrap();
        assert_eq!(
            experiments::read(&db.database, &reference).await.unwrap(),
            None
        );
        let again = experiments::delete(&db.database, &origin(), &reference, &ANY).await;
        assert!(matches!(again, Err(ChangeError::NotFound(_))));
        let history = audit::Filter {
            experiment_id: Some(gone.id),
            ..audit::Filter::default()
        };
        let actions: Vec<String> = audit::list(&db.database, &history, None, 3)
            .await
            .unwrap()
            .into_iter()
            .map(|entry| entry.action)
            .collect();
        assert_eq!(
            actions,
            ["experiment.delete", "variant.delete", "variant.delete"]
        );
    });
}

/// A variant is found through its own experiment only.
#[test]
fn a_variant_of_another_experiment_is_not_found() {
    with_database(async |db| {
        let (one, two) = (draft(db, "one").await, draft(db, "two").await);
        let foreign = variants::patch(
            &db.database,
            &origin(),
            &ExperimentRef::Id(one.id),
            two.variants[0].id,
            &ANY,
            &weighing(1),
        )
        .await;
        assert!(matches!(
            foreign,
            Err(ChangeError::NotFound("this variant"))
        ));
        let running = in_state(db, "three", Status::Running).await;
        let step = Step::DeclareWinner {
            winner_variant_id: two.variants[0].id,
            significance: None,
        };
        assert!(matches!(
            take(db, &running, step).await,
            Err(ChangeError::Invalid(_))
        ));
    });
}

/// An entry says who, what, when, from where, and from which value to which.
#[test]
fn an_entry_holds_what_changed() {
    with_database(async |db| {
        let draft = draft(db, "logged").await;
        let wider = ExperimentPatch {
            traffic_allocation: Some(Decimal4(500_000)),
            description: Some("new".into()),
            ..ExperimentPatch::default()
        };
        patch(db, draft.id, &ANY, &wider).await.unwrap();
        let [entry] = audit::list(&db.database, &audit::Filter::default(), None, 1)
            .await
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(
            (entry.actor.as_str(), entry.action.as_str()),
            ("ada", "experiment.update")
        );
        assert_eq!(
            (entry.entity.as_str(), entry.entity_id),
            ("experiment", draft.id.to_string())
        );
        assert_eq!(
            (entry.request_id.as_deref(), entry.address.as_deref()),
            (Some("r-1"), Some("192.0.2.1"))
        );
        assert_eq!(entry.experiment_id, Some(draft.id));
        let version = draft.version;
        assert_eq!(
            json_of(entry.before),
            Some(
                json!({"trafficAllocation": 33.3333, "description": "which order sells", "version": version})
            )
        );
        assert_eq!(
            json_of(entry.after),
            Some(json!({"trafficAllocation": 50, "description": "new", "version": version + 1}))
        );
    });
}

/// When the log refuses an entry, the change is not made either; a refused change leaves no entry.
#[test]
fn change_and_entry_commit_together_or_not_at_all() {
    with_database(async |db| {
        let draft = draft(db, "together").await;
        let reference = ExperimentRef::Id(draft.id);
        db.execute("ALTER TABLE audit_log ADD CHECK (actor <> 'ada') NOT VALID")
            .await;
        assert!(matches!(
            patch(db, draft.id, &ANY, &described("x")).await,
            Err(ChangeError::Storage(_))
        ));
        assert!(take(db, &draft, Step::Start).await.is_err());
        assert!(
            experiments::delete(&db.database, &origin(), &reference, &ANY)
                .await
                .is_err()
        );
        assert!(
            variants::add(&db.database, &origin(), &reference, &ANY, &new_variant("c"))
                .await
                .is_err()
        );
        let choice = VariantChoice::Name("b".into());
        assert!(
            overrides::put(&db.database, &origin(), &reference, &ANY, "u", &choice)
                .await
                .is_err()
        );
        assert_eq!(
            experiments::read(&db.database, &reference)
                .await
                .unwrap()
                .unwrap(),
            draft
        );
        assert_eq!(count(db, "SELECT count(*) FROM excluded_units").await, 0);
        assert_eq!(count(db, "SELECT count(*) FROM experiment_epochs").await, 0);
    });
}

/// Pages through the log: every entry once, newest first; filters by actor, action and experiment.
#[test]
fn the_log_is_read_in_pages() {
    with_database(async |db| {
        let (one, two) = (draft(db, "one").await, draft(db, "two").await);
        let all = audit::list(&db.database, &audit::Filter::default(), None, 100)
            .await
            .unwrap();
        assert_eq!(all.len(), 6);
        assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id));
        let mut paged = Vec::new();
        while let Some(page) =
            next_page(db, paged.last().map(|entry: &audit::Entry| entry.id)).await
        {
            paged.extend(page);
        }
        assert_eq!(paged, all);
        let of = async |filter: audit::Filter| {
            audit::list(&db.database, &filter, None, 100)
                .await
                .unwrap()
                .len()
        };
        assert_eq!(
            of(audit::Filter {
                experiment_id: Some(two.id),
                ..audit::Filter::default()
            })
            .await,
            3
        );
        assert_eq!(
            of(audit::Filter {
                action: Some("experiment.create".into()),
                ..audit::Filter::default()
            })
            .await,
            2
        );
        let both = audit::Filter {
            experiment_id: Some(one.id),
            action: Some("experiment.create".into()),
            actor: Some("ada".into()),
        };
        assert_eq!(of(both.clone()).await, 1);
        assert_eq!(
            of(audit::Filter {
                actor: Some("bob".into()),
                ..both
            })
            .await,
            0
        );
    });
}

async fn next_page(db: &TestDatabase, below: Option<i64>) -> Option<Vec<audit::Entry>> {
    let page = audit::list(&db.database, &audit::Filter::default(), below, 4)
        .await
        .unwrap();
    (!page.is_empty()).then_some(page)
}

/// Pins a unit, moves it, lets it go: it stays out of the analysis.
#[test]
fn an_override_excludes_its_unit_for_good() {
    with_database(async |db| {
        let running = in_state(db, "pinned", Status::Running).await;
        let (other, reference) = (draft(db, "other").await, ExperimentRef::Id(running.id));
        let (a, b) = (running.variants[0].id, running.variants[1].id);
        let put = async |choice| {
            overrides::put(&db.database, &origin(), &reference, &ANY, "tester", &choice).await
        };
        let first = put(VariantChoice::Id(a)).await.unwrap();
        let second = put(VariantChoice::Name("b".into())).await.unwrap();
        assert_eq!(
            (first.variant.as_str(), second.variant_id, second.created_at),
            ("control", b, first.created_at)
        );
        let stranger = put(VariantChoice::Id(other.variants[0].id))
            .await
            .unwrap_err();
        assert!(
            matches!(stranger, ChangeError::Invalid(faults) if faults.iter().all(|f| f.pointer == "/variantId"))
        );
        assert_eq!(
            count(db, "SELECT variant_id FROM experiment_overrides").await,
            b
        );
        let delete =
            async || overrides::delete(&db.database, &origin(), &reference, &ANY, "tester").await;
        delete().await.unwrap();
        assert!(matches!(delete().await, Err(ChangeError::NotFound(_))));
        let excluded =
            "SELECT count(*) FROM excluded_units WHERE unit = 'tester' AND reason = 'override'";
        assert_eq!(count(db, excluded).await, 1);
        assert_eq!(
            actions(db).await.split_off(7),
            ["override.set", "override.set", "override.remove"]
        );
    });
}

/// Nobody is pinned in an archived experiment.
#[test]
fn overrides_end_with_the_archive() {
    with_database(async |db| {
        for status in Status::ALL.iter().copied() {
            let experiment = in_state(db, &format!("e {status}"), status).await;
            let reference = ExperimentRef::Id(experiment.id);
            let choice = VariantChoice::Name("b".into());
            let outcome =
                overrides::put(&db.database, &origin(), &reference, &ANY, "u", &choice).await;
            assert_eq!(outcome.is_err(), status == Status::Archived, "{status}");
            let after = experiments::read(&db.database, &reference)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(after.version, experiment.version);
        }
    });
}

/// Other replicas learn of every change from the version of all definitions.
#[test]
fn every_change_is_announced() {
    with_database(async |db| {
        let mut known = 0;
        let mut announced = async |what: &str| {
            let version = count(db, "SELECT version FROM config_version").await;
            assert!(version > known, "{what}");
            known = version;
        };
        let draft = draft(db, "news").await;
        announced("create").await;
        patch(db, draft.id, &ANY, &described("x")).await.unwrap();
        announced("patch").await;
        patch_variant(db, &draft, 0, &weighing(1)).await.unwrap();
        announced("variant").await;
        take(db, &draft, Step::Start).await.unwrap();
        announced("start").await;
        let reference = ExperimentRef::Id(draft.id);
        let choice = VariantChoice::Name("b".into());
        overrides::put(&db.database, &origin(), &reference, &ANY, "u", &choice)
            .await
            .unwrap();
        announced("override").await;
        overrides::delete(&db.database, &origin(), &reference, &ANY, "u")
            .await
            .unwrap();
        announced("override removed").await;
        users::create(&db.database, &origin(), &person("ada", ADMIN))
            .await
            .unwrap();
        announced("user").await;
    });
}

/// Lists page by page with filters; each experiment comes once, with its variants.
#[test]
fn experiments_are_listed_in_pages() {
    with_database(async |db| {
        let running = in_state(db, "Alpha One", Status::Running).await;
        let beta = draft(db, "beta_two").await;
        let gamma = draft(db, "100% gamma").await;
        let to_bandit = ExperimentPatch {
            experiment_type: Some(ExperimentType::Bandit),
            target: Some("pdp".into()),
            description: Some("Reorders".into()),
            ..ExperimentPatch::default()
        };
        patch(db, gamma.id, &ANY, &to_bandit).await.unwrap();
        let ids = async |filter: Filter| {
            let list = experiments::list(&db.database, &filter, None, 10)
                .await
                .unwrap();
            assert!(list.iter().all(|experiment| experiment.variants.len() == 2));
            list.into_iter()
                .map(|experiment| experiment.id)
                .collect::<Vec<_>>()
        };
        let all = Filter::default();
        assert_eq!(ids(all.clone()).await, [gamma.id, beta.id, running.id]);
        assert_eq!(
            ids(Filter {
                status: Some(Status::Running),
                ..all.clone()
            })
            .await,
            [running.id]
        );
        assert_eq!(
            ids(Filter {
                target: Some("pdp".into()),
                ..all.clone()
            })
            .await,
            [gamma.id]
        );
        assert_eq!(
            ids(Filter {
                experiment_type: Some(ExperimentType::AbTest),
                ..all.clone()
            })
            .await,
            [beta.id, running.id]
        );
        let search = |text: &str| Filter {
            search: Some(text.into()),
            ..Filter::default()
        };
        assert_eq!(ids(search("ALPHA")).await, [running.id]);
        assert_eq!(ids(search("%")).await, [gamma.id]);
        assert_eq!(ids(search("a_t")).await, [beta.id]);
        assert_eq!(ids(search("reorder")).await, [gamma.id]);
        let second = experiments::list(&db.database, &all, Some(gamma.id), 1)
            .await
            .unwrap();
        assert_eq!(
            second
                .iter()
                .map(|experiment| experiment.id)
                .collect::<Vec<_>>(),
            [beta.id]
        );
        assert_eq!(second[0].variants, beta.variants);
    });
}

fn person(id: &str, role: &str) -> NewUser {
    NewUser {
        id: id.into(),
        name: String::new(),
        role: role.into(),
        disabled: false,
        tokens_valid_after: None,
    }
}

fn as_role(role: &str) -> UserPatch {
    UserPatch {
        role: Some(role.into()),
        ..UserPatch::default()
    }
}

/// The first user must be able to let others in.
#[test]
fn the_first_user_is_an_enabled_admin() {
    with_database(async |db| {
        for first in [
            person("ada", "promoter"),
            NewUser {
                disabled: true,
                ..person("ada", ADMIN)
            },
        ] {
            let refused = users::create(&db.database, &origin(), &first).await;
            assert!(matches!(
                refused,
                Err(ChangeError::Conflict(Conflict::FirstUserNotAdmin))
            ));
        }
        assert_eq!(actions(db).await, Vec::<String>::new());
        let ada = users::create(&db.database, &origin(), &person("ada", ADMIN))
            .await
            .unwrap();
        assert_eq!(users::read(&db.database, "ada").await.unwrap(), Some(ada));
        let again = users::create(&db.database, &origin(), &person("ada", ADMIN)).await;
        assert!(matches!(
            again,
            Err(ChangeError::Conflict(Conflict::UserExists))
        ));
        users::create(&db.database, &origin(), &person("bob", "viewer"))
            .await
            .unwrap();
        let second = users::list(&db.database, Some("ada"), 10).await.unwrap();
        assert_eq!(
            second
                .iter()
                .map(|user| user.id.as_str())
                .collect::<Vec<_>>(),
            ["bob"]
        );
        assert_eq!(
            users::list(&db.database, None, 1).await.unwrap()[0].id,
            "ada"
        );
    });
}

/// The last enabled admin cannot be demoted, disabled or deleted, but changed otherwise.
#[test]
fn the_last_admin_stays() {
    with_database(async |db| {
        users::create(&db.database, &origin(), &person("ada", ADMIN))
            .await
            .unwrap();
        users::create(
            &db.database,
            &origin(),
            &NewUser {
                disabled: true,
                ..person("eve", ADMIN)
            },
        )
        .await
        .unwrap();
        let change = async |patch: UserPatch| {
            users::patch(&db.database, &origin(), "ada", &ANY, &patch).await
        };
        let disable = UserPatch {
            disabled: Some(true),
            ..UserPatch::default()
        };
        for patch in [as_role("promoter"), disable.clone()] {
            assert!(matches!(
                change(patch).await,
                Err(ChangeError::Conflict(Conflict::LastAdmin))
            ));
        }
        let refused = users::delete(&db.database, &origin(), "ada", &ANY).await;
        assert!(matches!(
            refused,
            Err(ChangeError::Conflict(Conflict::LastAdmin))
        ));
        let renamed = change(UserPatch {
            name: Some("Ada".into()),
            ..UserPatch::default()
        })
        .await
        .unwrap();
        assert_eq!(renamed.name, "Ada");
        let enable = UserPatch {
            disabled: Some(false),
            ..UserPatch::default()
        };
        users::patch(&db.database, &origin(), "eve", &ANY, &enable)
            .await
            .unwrap();
        assert!(change(disable).await.unwrap().disabled);
        users::delete(&db.database, &origin(), "ada", &ANY)
            .await
            .unwrap();
        let missing = users::delete(&db.database, &origin(), "ada", &ANY).await;
        assert!(matches!(missing, Err(ChangeError::NotFound(_))));
    });
}

/// Two admins demote each other at the same moment, many times over: one of them stays.
#[test]
fn two_admins_cannot_demote_each_other() {
    with_database(async |db| {
        users::create(&db.database, &origin(), &person("ada", ADMIN))
            .await
            .unwrap();
        users::create(&db.database, &origin(), &person("bob", ADMIN))
            .await
            .unwrap();
        let author = origin();
        for _ in 0..10 {
            let demoted = as_role("viewer");
            let (one, two) = tokio::join!(
                users::patch(&db.database, &author, "ada", &ANY, &demoted),
                users::patch(&db.database, &author, "bob", &ANY, &demoted)
            );
            assert!(one.is_ok() != two.is_ok());
            let fallen = if one.is_ok() { "ada" } else { "bob" };
            users::patch(&db.database, &author, fallen, &ANY, &as_role(ADMIN))
                .await
                .unwrap();
        }
    });
}

/// The version of a user is of use for a precondition: it differs after every change.
#[test]
fn a_stale_user_is_not_changed() {
    with_database(async |db| {
        let ada = users::create(&db.database, &origin(), &person("ada", ADMIN))
            .await
            .unwrap();
        let read = Precondition::OneOf(vec![ada.version()]);
        let name = |name: &str| UserPatch {
            name: Some(name.into()),
            ..UserPatch::default()
        };
        let (author, first, second) = (origin(), name("one"), name("two"));
        let (one, two) = tokio::join!(
            users::patch(&db.database, &author, "ada", &read, &first),
            users::patch(&db.database, &author, "ada", &read, &second)
        );
        let lost = if one.is_ok() { two } else { one };
        assert!(matches!(lost, Err(ChangeError::Stale { .. })));
    });
}
