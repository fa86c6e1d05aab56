//! Promotions while they are rolled out and watched, and how requests ended.

use podium_domain::bucketing::Allocation;
use podium_domain::guard;
use podium_storage::StorageError;
use podium_storage::analytics::outcomes;
use podium_storage::rollouts::{self, Begun, Plan};
use uuid::Uuid;

use crate::support::{TestDatabase, with_database};

const ID: Uuid = Uuid::from_u128(7);

/// A completed experiment with two variants of equal weight whose second one was promoted.
const PROMOTED: &str = "
    INSERT INTO experiments (id, name, salt, status, start_date, end_date)
    VALUES (1, 'one', 'one', 'completed', now() - interval '10 days', now());
    INSERT INTO experiment_variants (id, experiment_id, name, is_control) VALUES (10, 1, 'a', true), (11, 1, 'b', false);
    INSERT INTO experiment_promotions
        (id, experiment_id, experiment_name, promoted_variant_id, promoted_variant_name, promotion_type)
    VALUES ('00000000-0000-0000-0000-000000000007', 1, 'one', 11, 'b', 'auto')";

fn percent(percent: u32) -> Allocation {
    Allocation::from_units(percent * 10_000).unwrap()
}

fn plan() -> Plan {
    Plan {
        steps: vec![percent(40), percent(75), percent(100)],
        step_hours: 48.0,
        holdback: percent(10),
        watch_hours: 336.0,
        auto_rollback: true,
    }
}

async fn begin(db: &TestDatabase, plan: &Plan) -> Begun {
    let begun: Result<Begun, StorageError> = db
        .database
        .transaction(async |tx| rollouts::begin(tx, ID, plan).await)
        .await;
    begun.unwrap()
}

async fn end_watch(db: &TestDatabase) -> bool {
    let ended: Result<bool, StorageError> = db
        .database
        .transaction(async |tx| rollouts::end_watch(tx, ID).await)
        .await;
    ended.unwrap()
}

fn request(unit: &str, variant: i64, id: u32, latency: &str, is_error: bool) -> String {
    format!(
        "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, latency_ms, is_error)
         VALUES ('r{id}', '{unit}', 1, {variant}, 'request', {latency}, {is_error})"
    )
}

#[test]
fn outcomes_count_units_and_keep_latencies() {
    with_database(async |db| {
        db.execute(
            "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES
             ('u1', 1, 10), ('u2', 1, 10), ('u3', 1, 11), ('idle', 1, 10)",
        )
        .await;
        let requests = [
            ("u1", 10, "100", false),
            ("u1", 10, "0", true),
            ("u1", 10, "NULL", true),
            ("u2", 10, "250.5", false),
            ("u3", 11, "86400000", false),
        ];
        for (id, (unit, variant, latency, is_error)) in (0..).zip(requests) {
            db.execute(&request(unit, variant, id, latency, is_error))
                .await;
        }
        db.fold_all().await;
        let read = async || {
            let mut link = db.database.report().await.unwrap();
            outcomes::by_variant(&outcomes::now(&mut link, 1).await.unwrap()).unwrap()
        };
        let found = read().await;
        let a = &found[&10];
        assert_eq!(
            (a.units, a.erring_units, a.requests, a.errors),
            (2, 1, 4, 2)
        );
        assert!((a.squared_requests - 10.0).abs() < 1e-12);
        assert_eq!(a.latencies.count(), 3);
        let near =
            |rank, wanted: f64| (a.latencies.at_rank(rank).unwrap() / wanted - 1.0).abs() < 0.01;
        assert!(near(1, 0.01) && near(2, 100.0) && near(3, 250.5));
        assert_eq!(found[&11].latencies.count(), 1);
        assert_eq!(db.recount(false).await.differences(), 0);

        // A unit that is pinned leaves with all that it did.
        db.execute(
            "INSERT INTO excluded_units (experiment_id, unit, reason) VALUES (1, 'u1', 'override')",
        )
        .await;
        db.fold_all().await;
        let a = &read().await[&10];
        assert_eq!((a.units, a.requests, a.latencies.count()), (1, 1, 1));
        assert_eq!(db.recount(false).await.differences(), 0);
    });
}

#[test]
fn the_database_and_the_program_put_a_latency_into_the_same_bucket() {
    with_database(async |db| {
        let mut latency: f64 = 0.0;
        for _ in 0..60 {
            let sql = format!("SELECT podium_latency_bucket({latency:?})");
            let bucket = podium_domain::stats::sketch::bucket(latency).unwrap();
            assert_eq!(db.text(&sql).await, bucket.to_string(), "{latency}");
            latency = latency * 1.47 + 0.003;
        }
    });
}

#[test]
fn a_rollout_begins_moves_and_ends_once() {
    with_database(async |db| {
        db.execute(PROMOTED).await;
        db.execute(
            "INSERT INTO variant_moments (experiment_id, variant_id, epoch, units, purchasing_units, erring_units, sum_requests)
             VALUES (1, 10, 1, 100000, 10000, 0, 0), (1, 11, 1, 100000, 12000, 300, 25000);
             INSERT INTO variant_requests (experiment_id, variant_id, epoch, requesting_units) VALUES (1, 11, 1, 10000)",
        )
        .await;
        let begun = begin(db, &plan()).await;
        // Ten thousand units a day that are not the winner's, a tenth of them converts.
        assert!(
            (0.05..0.2).contains(&begun.detectable_drop.unwrap()),
            "{begun:?}"
        );
        let row = "SELECT step || ' ' || conversion_event || ' ' || requests_counted || ' ' || erring_units_before || '/' || requesting_units_before
                   FROM promotion_rollouts";
        // The first step lies below what the winner had, and is skipped.
        assert_eq!(db.text(row).await, "1 purchase 3 300/10000");

        let version = db.text("SELECT version FROM config_version").await;
        assert_eq!(rollouts::advance(&db.database, ID).await.unwrap(), None);
        assert!(!end_watch(db).await);
        db.execute("UPDATE promotion_rollouts SET step_since = now() - interval '48 hours'")
            .await;
        assert_eq!(rollouts::advance(&db.database, ID).await.unwrap(), Some(2));
        assert_eq!(rollouts::advance(&db.database, ID).await.unwrap(), None);
        assert_ne!(db.text("SELECT version FROM config_version").await, version);

        let mut link = db.database.work().await.unwrap();
        let watched = rollouts::watched(&mut link).await.unwrap();
        assert!(watched[0].is_watched && !watched[0].watch_is_over);
        db.execute("UPDATE experiment_promotions SET promoted_at = now() - interval '336 hours'")
            .await;
        assert!(rollouts::watched(&mut link).await.unwrap()[0].watch_is_over);
        assert!(end_watch(db).await && !end_watch(db).await);
        assert_eq!(rollouts::watched(&mut link).await.unwrap(), []);
    });
}

#[test]
fn nothing_moves_after_a_rollback() {
    with_database(async |db| {
        db.execute(PROMOTED).await;
        begin(db, &plan()).await;
        db.execute(
            "UPDATE promotion_rollouts SET step_since = now() - interval '9 days';
             UPDATE experiment_promotions SET promoted_at = now() - interval '90 days', rollback_at = now()",
        )
        .await;
        assert_eq!(rollouts::advance(&db.database, ID).await.unwrap(), None);
        assert!(!end_watch(db).await);
    });
}

#[test]
fn the_guard_sees_first_conversions_and_first_requests() {
    with_database(async |db| {
        db.execute(PROMOTED).await;
        begin(db, &plan()).await;
        db.execute(
            "UPDATE promotion_rollouts SET requests_counted = 2, requesting_units_before = 100, erring_units_before = 1;
             INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, source) VALUES
             ('moved', 1, 10, 0), ('held', 1, 10, 0), ('own', 1, 11, 0), ('new', 1, 10, 2), ('s', 1, 10, 0)",
        )
        .await;
        let mut number = 0;
        for (unit, kind, step, arm, is_error) in [
            ("moved", "purchase", 1, 1, false),
            // Once is enough, whatever it is shown later.
            ("moved", "purchase", 2, 2, false),
            ("held", "purchase", 1, 2, false),
            ("new", "purchase", 2, 1, false),
            // On its own variant it converts for neither group.
            ("s", "purchase", 1, 0, false),
            ("s", "purchase", 2, 1, false),
            ("own", "purchase", 1, 3, false),
            ("own", "request", 1, 3, false),
            ("own", "request", 1, 3, false),
            // Only the first two requests can make it a unit with an error.
            ("own", "request", 1, 3, true),
            ("moved", "request", 1, 1, true),
            ("held", "request", 1, 2, false),
        ] {
            number += 1;
            db.execute(&format!(
                "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, is_error, counted,
                     promotion_id, promotion_step, promotion_arm)
                 VALUES ('e{number}', '{unit}', 1, 11, '{kind}', {is_error}, false, '{ID}', {step}, {arm})"
            ))
            .await;
            if number % 5 == 0 {
                db.fold_all().await;
            }
        }
        // A login renames what the session did.
        db.execute(
            "UPDATE user_experiment_assignments SET user_id = 'u' WHERE user_id = 's';
             INSERT INTO unit_aliases (experiment_id, alias_unit, unit) VALUES (1, 's', 'u')",
        )
        .await;
        db.fold_all().await;
        assert_eq!(
            db.text("SELECT count(*) FROM promotion_units WHERE unit = 'u'")
                .await,
            "1"
        );
        assert_eq!(
            db.recount(false).await.differences(),
            0,
            "{}",
            db.recount(false).await
        );
        assert_eq!(
            db.text("SELECT units FROM variant_moments WHERE variant_id = 10")
                .await,
            "3",
            "the new unit is in no analysis"
        );

        let mut link = db.database.work().await.unwrap();
        let watched = rollouts::watched(&mut link).await.unwrap();
        let evidence = rollouts::evidence(&mut link, &watched[0]).await.unwrap();
        let steps: Vec<_> = evidence
            .steps
            .iter()
            .map(|s| (s.moved, s.held_back))
            .collect();
        assert_eq!(steps, [(1, 1), (1, 0)]);
        // Half of the traffic was the winner's: at 75 % half of the others have moved, but for the tenth held back.
        assert!((evidence.steps[0].held_back_share - 0.1 / 0.55).abs() < 1e-12);
        assert!((evidence.steps[1].held_back_share - 0.1).abs() < 1e-12);
        let winner = evidence.errors_winner.unwrap();
        assert_eq!((winner.successes(), winner.units()), (1, 2));
        assert_eq!(evidence.errors_held_back.unwrap().units(), 1);
        assert_eq!(evidence.errors_before.unwrap().units(), 100);

        let version = db.text("SELECT version FROM config_version").await;
        let reading = guard::read(&evidence).unwrap();
        rollouts::note(&mut link, &watched[0], &evidence, &reading)
            .await
            .unwrap();
        assert_eq!(
            db.text("SELECT reading ->> 'finding' FROM promotion_rollouts")
                .await,
            "quiet"
        );
        assert_eq!(
            db.text("SELECT version FROM config_version").await,
            version,
            "a note changes no definition"
        );
    });
}
