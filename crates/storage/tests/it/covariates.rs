//! Covariates: handed in, refused, folded, read.

use podium_domain::decimal::Decimal4;
use podium_domain::experiment::Status;
use podium_domain::metric::{Metric, UnitTotal};
use podium_storage::analytics::covariates;
use podium_storage::assignments::{Assigner, Candidate, Lookup};
use podium_storage::audit::Origin;
use podium_storage::batch::RunGroup;
use podium_storage::experiments::covariates::{
    CovariateRow, Outcome, Upload, check, forget_abandoned,
};
use podium_storage::experiments::{self, ChangeError, Conflict, ExperimentRef, Precondition};

use crate::folding::check as check_totals;
use crate::support::{TestDatabase, next_upload, with_database};

const ONE: ExperimentRef = ExperimentRef::Id(1);
const EXPERIMENT: &str =
    "INSERT INTO experiments (id, name, salt, status) VALUES (1, 'one', 'one', 'running')";
const VERSIONS: &str = "SELECT string_agg(unit || '=' || trim_scale(value), ' ' ORDER BY unit, tx_id) FROM unit_covariates";
const STAGED: &str = "SELECT count(*) FROM covariate_uploads";

fn origin() -> Origin {
    Origin {
        actor: "ada".into(),
        request_id: "r-1".into(),
        address: None,
    }
}

fn rows(units: &[(&str, i64)]) -> Vec<CovariateRow> {
    let row = |(at, (unit, value)): (usize, &(&str, i64))| CovariateRow {
        place: i64::try_from(at).unwrap() + 2,
        unit: (*unit).to_owned(),
        value: Decimal4(value * 10_000),
    };
    units.iter().enumerate().map(row).collect()
}

async fn staged(db: &TestDatabase, units: &[(&str, i64)]) -> Upload {
    let upload = Upload::begin(&db.database, next_upload()).await.unwrap();
    // In two groups, as a longer one arrives.
    let (one, other) = units.split_at(units.len() / 2);
    upload.stage(&rows(one)).await.unwrap();
    let mut rest = rows(other);
    rest.iter_mut().for_each(|row| row.place += 100);
    upload.stage(&rest).await.unwrap();
    upload
}

async fn hand_in(db: &TestDatabase, units: &[(&str, i64)]) -> Result<Outcome, ChangeError> {
    staged(db, units).await.commit(&origin(), &ONE).await
}

fn outcome(accepted: i64, already_assigned: i64, unchanged: i64) -> Outcome {
    Outcome {
        received: accepted + already_assigned + unchanged,
        accepted,
        already_assigned,
        unchanged,
    }
}

async fn assign(db: &TestDatabase, unit: &str, login_session: Option<&str>) {
    let lookup = Lookup {
        experiment_id: 1,
        unit: unit.into(),
        login_session: login_session.map(str::to_owned),
        session_id: None,
        candidate: Some(Candidate {
            variant_id: 10,
            by_client: false,
            propensity: None,
        }),
        epoch: 1,
        is_bot: false,
        takes_new: true,
        during_promotion: false,
    };
    let assigner = Assigner::new(db.database.clone());
    assert!(
        assigner
            .run(vec![lookup])
            .await
            .remove(0)
            .unwrap()
            .is_some()
    );
}

async fn covariates_of_units(db: &TestDatabase) -> String {
    check_totals(db, "covariates").await;
    db.text("SELECT string_agg(unit || '=' || coalesce(trim_scale(covariate)::text, 'none'), ' ' ORDER BY unit) FROM unit_totals")
        .await
}

#[test]
fn versions_are_added_until_the_unit_is_assigned() {
    with_database(async |db| {
        db.execute(EXPERIMENT).await;
        let first = hand_in(db, &[("a", 1), ("b", -2), ("c", 0)]).await.unwrap();
        assert_eq!(first, outcome(3, 0, 0));
        let second = hand_in(db, &[("a", 1), ("b", 5), ("d", 7)]).await.unwrap();
        assert_eq!(second, outcome(2, 0, 1));
        assign(db, "b", None).await;
        assign(db, "e", None).await;
        let third = hand_in(db, &[("a", 1), ("b", 6), ("e", 7), ("d", 8)])
            .await
            .unwrap();
        assert_eq!(third, outcome(1, 2, 1));
        assert_eq!(db.text(VERSIONS).await, "a=1 b=-2 b=5 c=0 d=7 d=8");
        assert_eq!(db.text(STAGED).await, "0");
        assert_eq!(covariates_of_units(db).await, "b=5 e=none");
        let log = "SELECT string_agg(actor || ' ' || action || ' ' || entity_id || ' ' || after::text, '; ' ORDER BY id) FROM audit_log";
        let entry = r#"ada covariates.upload 1 {"accepted": 3, "received": 3, "unchanged": 0, "alreadyAssigned": 0}"#;
        assert!(
            db.text(log).await.starts_with(entry),
            "{}",
            db.text(log).await
        );
    });
}

/// Who logs in is not known before the treatment has acted, so a covariate of the user's name is not taken then.
#[test]
fn the_name_at_the_assignment_decides() {
    with_database(async |db| {
        db.execute(EXPERIMENT).await;
        hand_in(
            db,
            &[("session", 1), ("user", 2), ("user 2", 3), ("late", 4)],
        )
        .await
        .unwrap();
        assign(db, "session", None).await;
        assign(db, "user", Some("session")).await;
        assert_eq!(
            covariates_of_units(db).await,
            "user=1",
            "a login before the fold"
        );
        let refused = hand_in(db, &[("session", 8), ("user", 8)]).await.unwrap();
        assert_eq!(
            refused,
            outcome(0, 2, 0),
            "both are names of an assigned unit"
        );
        assign(db, "bare session", None).await;
        db.fold_all().await;
        assign(db, "late", Some("bare session")).await;
        assign(db, "later", Some("late")).await;
        assert_eq!(
            covariates_of_units(db).await,
            "later=none user=1",
            "logins after the fold"
        );
        let names = "SELECT string_agg(user_id || '<' || assigned_as, ' ' ORDER BY user_id) FROM user_experiment_assignments";
        assert_eq!(db.text(names).await, "later<bare session user<session");
        let report = db.recount(false).await;
        assert_eq!(report.differences(), 0, "{report}");
    });
}

/// An assignment that is under way is not seen; ids of transactions tell whether it came first.
#[test]
fn of_an_upload_and_an_assignment_at_once_the_older_transaction_is_first() {
    with_database(async |db| {
        db.execute(EXPERIMENT).await;
        let insert = |unit: &str| {
            format!(
                "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES ('{unit}', 1, 10)"
            )
        };
        let older = db.client().await;
        older
            .batch_execute(&format!("BEGIN; {}", insert("older")))
            .await
            .unwrap();
        let both = hand_in(db, &[("older", 1), ("younger", 2)]).await.unwrap();
        assert_eq!(both, outcome(2, 0, 0));
        older.batch_execute("COMMIT").await.unwrap();
        db.execute(&insert("younger")).await;
        assert_eq!(covariates_of_units(db).await, "older=none younger=2");
    });
}

#[test]
fn what_does_not_come_to_its_end_leaves_nothing() {
    with_database(async |db| {
        db.execute(EXPERIMENT).await;
        let upload = staged(db, &[("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)]).await;
        assert_eq!(upload.repeated(100).await.unwrap(), [102, 103, 104]);
        assert_eq!(upload.repeated(2).await.unwrap(), [102, 103]);
        upload.forget().await.unwrap();
        let (one, two) = (staged(db, &[("a", 1)]).await, staged(db, &[("a", 1)]).await);
        assert!(
            Upload::begin(&db.database, next_upload()).await.is_err(),
            "there is room for two"
        );
        drop((one, two));
        assert_eq!(db.text(STAGED).await, "2");
        forget_abandoned(&db.database).await.unwrap();
        assert_eq!(db.text(STAGED).await, "2", "they could still be under way");
        db.execute("UPDATE covariate_uploads SET arrived_at = now() - interval '61 minutes'")
            .await;
        forget_abandoned(&db.database).await.unwrap();
        assert_eq!(db.text(STAGED).await, "0");
        assert_eq!(db.text("SELECT count(*) FROM unit_covariates").await, "0");
    });
}

#[test]
fn drafts_and_running_experiments_take_covariates() {
    with_database(async |db| {
        db.execute(EXPERIMENT).await;
        for status in [
            Status::Draft,
            Status::Running,
            Status::Paused,
            Status::Completed,
            Status::Archived,
        ] {
            db.execute(&format!("UPDATE experiments SET status = '{status}'"))
                .await;
            let takes = matches!(status, Status::Draft | Status::Running);
            let answers = [
                check(&db.database, &ONE).await,
                hand_in(db, &[(&status.to_string(), 1)]).await.map(|_| ()),
            ];
            for answer in answers {
                match answer {
                    Ok(()) => assert!(takes, "{status}"),
                    Err(ChangeError::Conflict(Conflict::CovariatesClosed(said))) => {
                        assert!(said == status && !takes, "{status}");
                    }
                    Err(other) => panic!("{status}: {other}"),
                }
            }
        }
        assert_eq!(db.text(VERSIONS).await, "draft=1 running=1");
        assert_eq!(db.text(STAGED).await, "0");
        let nobody = ExperimentRef::Id(2);
        assert!(matches!(
            check(&db.database, &nobody).await,
            Err(ChangeError::NotFound(_))
        ));
        let upload = staged(db, &[("a", 1)]).await;
        let answer = upload.commit(&origin(), &nobody).await;
        assert!(matches!(answer, Err(ChangeError::NotFound(_))));
    });
}

#[test]
fn a_deleted_draft_takes_its_covariates_along() {
    with_database(async |db| {
        db.execute(EXPERIMENT).await;
        db.execute("UPDATE experiments SET status = 'draft'").await;
        hand_in(db, &[("a", 1)]).await.unwrap();
        experiments::delete(&db.database, &origin(), &ONE, &Precondition::Any)
            .await
            .unwrap();
        assert_eq!(db.text("SELECT count(*) FROM unit_covariates").await, "0");
    });
}

#[test]
fn sums_are_read_exactly_and_of_one_moment() {
    with_database(async |db| {
        db.execute(EXPERIMENT).await;
        hand_in(db, &[("a", 3), ("b", -1), ("pinned", 1_000_000_000_000)])
            .await
            .unwrap();
        for (unit, variant) in [("a", 10), ("b", 11), ("c", 10), ("pinned", 11), ("d", 12)] {
            db.execute(&format!(
                "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, epoch) VALUES ('{unit}', 1, {variant}, 3);
                 INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, value)
                 VALUES ('{unit}', '{unit}', 1, {variant}, 'purchase', 0.5);"
            ))
            .await;
        }
        db.fold_all().await;
        db.execute("INSERT INTO excluded_units (experiment_id, unit, reason) VALUES (1, 'pinned', 'override')").await;
        db.fold_all().await;
        let mut link = db.database.report().await.unwrap();
        let read = covariates::now(&mut link, 1).await.unwrap();
        let found: Vec<(i64, i32, i64, i64)> = read
            .iter()
            .map(|part| {
                (
                    part.of.variant_id,
                    part.of.epoch,
                    part.of.moments.units,
                    part.covered.units,
                )
            })
            .collect();
        assert_eq!(found, [(10, 3, 2, 1), (11, 3, 1, 1), (12, 3, 1, 0)]);
        let a = &read[0].covered;
        assert_eq!(
            (a.sum_x.to_string(), a.sum_xx.to_string()),
            ("30000".into(), "900000000".into())
        );
        assert_eq!(
            a.products[&UnitTotal::PurchaseValue].to_string(),
            "150000000"
        );
        assert_eq!(a.sums[&UnitTotal::Purchases].to_string(), "1");
        let variants = covariates::by_variant(&read);
        let mut all = variants[&10].1.clone();
        all.merge(&variants[&11].1);
        let (moments, covered) = &variants[&10];
        let pair = moments.with_covariate(covered, &all.centre().unwrap(), Metric::RevenuePerUser);
        let pair = pair.unwrap().unwrap();
        // a is 3, c has none; the mean of 3 and -1 is 1.
        assert_eq!(
            (pair.n, pair.mean_x.to_string(), pair.var_x.to_string()),
            (2, "1".into(), "2".into())
        );
    });
}
