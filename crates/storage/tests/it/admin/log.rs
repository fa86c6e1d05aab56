//! The audit log, overrides, and news for other replicas.

use podium_storage::users::{self, ADMIN};

use super::users::person;
use super::*;

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
