//! The life cycle, and what may change when.

use super::*;

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
        assert_eq!(epochs(db, draft.id).await, std::slice::from_ref(&first));

        patch(db, draft.id, &ANY, &described("no split"))
            .await
            .unwrap();
        take(db, &draft, Step::Pause).await.unwrap();
        take(db, &draft, Step::Resume).await.unwrap();
        assert_eq!(epochs(db, draft.id).await, std::slice::from_ref(&first));

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
            db,
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
