//! Creating, changing, listing: names, versions, races.

use super::*;

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
