//! A recount sees what is wrong and puts it right.

use podium_storage::fold;
use podium_storage::rebuild::Report;

use crate::folding::check;
use crate::stream::Stream;
use crate::support::{TestDatabase, with_database};

/// A database with folded totals.
async fn filled(db: &TestDatabase, seed: u64) {
    Stream::new(db, seed, false).await.run(200).await;
    db.fold_all().await;
}

fn differing(report: &Report) -> Vec<(&'static str, i64, i64)> {
    let rows = report
        .tables
        .iter()
        .map(|table| (table.table, table.missing, table.surplus));
    rows.filter(|(_, missing, surplus)| missing + surplus > 0)
        .collect()
}

#[test]
fn a_tampered_total_is_found_named_and_corrected() {
    let tampered = [
        (
            "unit_totals",
            "UPDATE unit_totals SET clicks = clicks + 1 WHERE (experiment_id, unit) = (SELECT experiment_id, unit FROM unit_totals LIMIT 1)",
            1,
            1,
        ),
        (
            "unit_days",
            "UPDATE unit_days SET purchase_value = purchase_value + 0.0001 WHERE (experiment_id, day, unit) = (SELECT experiment_id, day, unit FROM unit_days WHERE impressions + clicks + requests > 0 LIMIT 1)",
            1,
            1,
        ),
        (
            "unit_sessions",
            "DELETE FROM unit_sessions WHERE (experiment_id, unit, session_key) = (SELECT experiment_id, unit, session_key FROM unit_sessions LIMIT 1)",
            1,
            0,
        ),
        (
            "variant_moments",
            "UPDATE variant_moments SET x_errors_requests = x_errors_requests + 1 WHERE (experiment_id, variant_id, epoch) = (SELECT experiment_id, variant_id, epoch FROM variant_moments WHERE units > 0 LIMIT 1)",
            1,
            1,
        ),
        (
            "unit_totals",
            "UPDATE unit_totals SET covariate = coalesce(covariate + 1, 0) WHERE (experiment_id, unit) = (SELECT experiment_id, unit FROM unit_totals LIMIT 1)",
            1,
            1,
        ),
        (
            "covariate_moments",
            "UPDATE covariate_moments SET x_sessions = x_sessions + 1 WHERE (experiment_id, variant_id, epoch) = (SELECT experiment_id, variant_id, epoch FROM covariate_moments WHERE units > 0 LIMIT 1)",
            1,
            1,
        ),
        (
            "variant_drawn_units",
            "UPDATE variant_drawn_units SET clicking_units = clicking_units + 1 WHERE (experiment_id, variant_id, epoch) = (SELECT experiment_id, variant_id, epoch FROM variant_drawn_units WHERE units > 0 LIMIT 1)",
            1,
            1,
        ),
        (
            "variant_requests",
            "UPDATE variant_requests SET requesting_units = requesting_units + 1 WHERE (experiment_id, variant_id, epoch) = (SELECT experiment_id, variant_id, epoch FROM variant_requests WHERE requesting_units > 0 LIMIT 1)",
            1,
            1,
        ),
        (
            "variant_latencies",
            "DELETE FROM variant_latencies WHERE (experiment_id, variant_id, epoch, bucket) = (SELECT experiment_id, variant_id, epoch, bucket FROM variant_latencies WHERE requests > 0 LIMIT 1)",
            1,
            0,
        ),
        (
            "promotion_units",
            "UPDATE promotion_units SET erred = NOT erred WHERE (experiment_id, unit) = (SELECT experiment_id, unit FROM promotion_units LIMIT 1)",
            1,
            1,
        ),
        (
            "variant_hours",
            "INSERT INTO variant_hours (experiment_id, variant_id, hour, errors) VALUES (1, 10, '2001-01-01', 1)",
            0,
            1,
        ),
        (
            "variant_dimensions",
            "DELETE FROM variant_dimensions WHERE dimension = 'brand' AND experiment_id = 2",
            -1,
            0,
        ),
        (
            "position_performance",
            "UPDATE position_performance SET conversions = conversions + 1 WHERE (experiment_id, position, date) = (SELECT experiment_id, position, date FROM position_performance WHERE impressions > 0 LIMIT 1)",
            1,
            1,
        ),
        (
            "experiment_counters",
            "UPDATE experiment_counters SET bot_units = bot_units + 1 WHERE experiment_id = 1",
            1,
            1,
        ),
    ];
    with_database(async |db| {
        filled(db, 11).await;
        for (table, sql, missing, surplus) in tampered {
            db.execute(sql).await;
            let report = db.recount(false).await;
            let found = differing(&report);
            assert_eq!(found.len(), 1, "{sql}: {report}");
            let (name, found_missing, found_surplus) = found[0];
            assert_eq!((name, found_surplus), (table, surplus), "{report}");
            assert!(
                if missing < 0 {
                    found_missing > 0
                } else {
                    found_missing == missing
                },
                "{report}"
            );
            let examples = &report
                .tables
                .iter()
                .find(|t| t.table == table)
                .unwrap()
                .examples;
            assert!(
                !examples.is_empty() && examples.iter().all(|e| e.row.contains("experiment_id")),
                "{report}"
            );
            assert!(
                !report.applied && report.to_string().contains("--apply"),
                "{report}"
            );
            assert_eq!(
                differing(&db.recount(true).await),
                found,
                "a look changes nothing"
            );
            assert_eq!(
                differing(&db.recount(false).await),
                [],
                "{table} was corrected"
            );
        }
        check(db, "corrected").await;
    });
}

#[test]
fn what_is_written_after_a_correction_is_folded_once() {
    with_database(async |db| {
        let mut stream = Stream::new(db, 12, true).await;
        stream.run(120).await;
        db.execute(
            "DELETE FROM unit_totals; DELETE FROM variant_moments; DELETE FROM variant_hours",
        )
        .await;
        assert!(db.recount(true).await.differences() > 0);
        stream.run(120).await;
        check(db, "after a correction").await;
    });
}

/// Makes the database look like one that was restored from a dump of a server far ahead: all ids, and the watermark,
/// are beyond what this server has given out.
async fn pretend_restored(db: &TestDatabase) {
    db.execute(
        "UPDATE user_experiment_assignments SET tx_id = tx_id + 1000000000000;
         UPDATE experiment_events SET tx_id = tx_id + 1000000000000;
         UPDATE unit_aliases SET tx_id = tx_id + 1000000000000;
         UPDATE excluded_units SET tx_id = tx_id + 1000000000000;
         UPDATE unit_covariates SET tx_id = tx_id + 1000000000000;
         UPDATE bandit_learning SET tx_id = tx_id + 1000000000000 WHERE tx_id <> 0;
         UPDATE fold_state SET watermark = watermark + 1000000000000",
    )
    .await;
}

#[test]
fn a_restored_database_refuses_to_fold_until_it_is_rebuilt() {
    with_database(async |db| {
        let mut stream = Stream::new(db, 13, false).await;
        stream.run(120).await;
        fold::fold_up_to(&db.database, 20).await.unwrap();
        pretend_restored(db).await;
        stream.run(60).await;
        let refused = fold::fold_once(&db.database).await.unwrap_err();
        assert!(refused.to_string().contains("rebuild --apply"), "{refused}");

        assert!(
            db.recount(false).await.restored,
            "a look says so and changes nothing"
        );
        assert!(fold::fold_once(&db.database).await.is_err());
        let report = db.recount(true).await;
        assert!(report.restored && report.applied, "{report}");
        let foreign = "SELECT count(*) FROM experiment_events WHERE tx_id >= 1000000000000";
        assert_eq!(
            db.text(foreign).await,
            "0",
            "no row waits for ids that this server will reach one day"
        );
        assert!(!db.recount(false).await.restored);

        stream.run(60).await;
        check(db, "restored").await;
    });
}

/// A dump of a dump: ids of the first server are larger than those of the second, and older all the same.
#[test]
fn what_came_first_stays_first_over_two_restores() {
    const FIRST: &str = "INSERT INTO unit_covariates (experiment_id, unit, value, tx_id) VALUES
        (1, 'a', 1, 5000000000000), (1, 'a', 2, 5000000000001), (1, 'b', 3, 5000000000002);
        INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, tx_id) VALUES ('b', 1, 10, 5000000000001)";
    const SECOND: &str = "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, tx_id) VALUES
        ('a', 1, 10, 2000000000000), ('c', 1, 10, 2000000000001);
        INSERT INTO unit_covariates (experiment_id, unit, value, tx_id) VALUES (1, 'a', 4, 3000000000000), (1, 'c', 5, 2000000000000)";
    const FOUND: &str = "SELECT string_agg(unit || '=' || coalesce(trim_scale(covariate)::text, 'none'), ' ' ORDER BY unit) FROM unit_totals";
    with_database(async |db| {
        for (dump, found) in [(FIRST, "b=none"), (SECOND, "a=2 b=none c=5")] {
            db.execute(dump).await;
            assert!(db.recount(true).await.restored);
            assert_eq!(db.text(FOUND).await, found);
            check(db, found).await;
        }
        db.execute("INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES ('d', 1, 10)").await;
        check(db, "after both").await;
    });
}

#[test]
fn an_experiment_with_dropped_events_is_left_alone_and_named() {
    with_database(async |db| {
        filled(db, 14).await;
        db.execute(
            "UPDATE experiments SET name = 'an old one' WHERE id = 2;
             UPDATE user_experiment_assignments SET created_at = now() - interval '60 days' WHERE experiment_id = 2;
             UPDATE fold_state SET dropped_before = now() - interval '30 days';
             DELETE FROM experiment_events WHERE experiment_id = 2",
        )
        .await;
        let totals = "SELECT sum(clicks + impressions) FROM unit_totals WHERE experiment_id = 2";
        let before = db.text(totals).await;
        let report = db.recount(true).await;
        assert_eq!(report.differences(), 0, "{report}");
        assert_eq!(
            report
                .left_out
                .iter()
                .map(|e| (e.experiment_id, e.name.as_str()))
                .collect::<Vec<_>>(),
            [(2, "an old one")]
        );
        assert_eq!(db.text(totals).await, before);
        db.execute("UPDATE unit_totals SET clicks = clicks + 1 WHERE experiment_id = 1")
            .await;
        assert!(
            db.recount(false).await.differences() > 0,
            "the others are still compared"
        );
    });
}
