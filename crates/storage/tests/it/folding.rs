//! Folding gives what the raw rows say, however they arrive.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use podium_storage::fold;

use crate::bandit;
use crate::model;
use crate::stream::Stream;
use crate::support::{TestDatabase, with_database};

/// Steps of one stream.
const STEPS: u32 = 160;

/// Folds what is left and compares the derived tables with the recount and with the model.
pub(crate) async fn check(db: &TestDatabase, label: &str) {
    db.fold_all().await;
    let (live, expected) = (model::live(db).await, model::expected(db).await);
    for (table, rows) in &expected {
        assert_eq!(live.get(table), Some(rows), "{label}: {table}");
    }
    assert_eq!(live.len(), expected.len(), "{label}: tables");
    bandit::check(db, label).await;
    let report = db.recount(false).await;
    assert_eq!(report.differences(), 0, "{label}: {report}");
}

/// Runs a stream, checks that what was acknowledged is stored and nothing else, and checks the totals.
async fn run(db: &TestDatabase, seed: u64, folds: bool) {
    let mut stream = Stream::new(db, seed, folds).await;
    stream.run(STEPS).await;
    let rows = db
        .client()
        .await
        .query("SELECT experiment_id, event_id FROM experiment_events", &[])
        .await
        .unwrap();
    let stored: HashSet<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(
        stored, stream.acknowledged,
        "seed {seed}: acknowledged and stored events"
    );
    assert_eq!(
        rows.len(),
        stored.len(),
        "seed {seed}: an event id is stored once"
    );
    check(db, &format!("seed {seed}")).await;
}

fn streams(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        with_database(async |db| run(db, seed, true).await);
    }
}

#[test]
fn any_stream_folds_to_what_the_raw_rows_say() {
    streams(0..6);
}

#[test]
fn any_other_stream_folds_to_what_the_raw_rows_say() {
    streams(100..106);
}

#[test]
fn folding_beside_the_writers_gives_the_same() {
    for seed in 200..203 {
        with_database(async |db| {
            let over = AtomicBool::new(false);
            let fold = async {
                while !over.load(Ordering::Relaxed) {
                    fold::fold_up_to(&db.database, 5).await.unwrap();
                }
            };
            let write = async {
                run(db, seed, false).await;
                over.store(true, Ordering::Relaxed);
            };
            tokio::join!(fold, write);
        });
    }
}

#[test]
fn the_streams_do_everything() {
    with_database(async |db| {
        let mut stream = Stream::new(db, 7, true).await;
        stream.run(600).await;
        for step in [
            "assign",
            "log in",
            "assign an alias",
            "record",
            "exclude",
            "hand in",
            "hold a covariate",
            "hold an assignment",
            "hold a login",
            "hold an exclusion",
            "hold events",
            "commit",
            "roll back",
            "fold",
            "recount",
        ] {
            assert!(
                stream.steps.contains_key(step),
                "no step `{step}` in {:?}",
                stream.steps
            );
        }
        for (what, sql) in [
            (
                "a chain of aliases",
                "SELECT count(*) FROM unit_aliases a JOIN unit_aliases b ON b.unit = a.unit AND b.alias_unit < a.alias_unit",
            ),
            (
                "a bot",
                "SELECT count(*) FROM user_experiment_assignments WHERE is_bot",
            ),
            (
                "an event that does not count",
                "SELECT count(*) FROM experiment_events WHERE NOT counted AND NOT is_bot",
            ),
            (
                "an excluded alias",
                "SELECT count(*) FROM unit_aliases a JOIN excluded_units x ON x.unit = a.alias_unit AND x.experiment_id = a.experiment_id",
            ),
            (
                "a covariate that was handed in too late",
                "SELECT count(*) FROM unit_covariates c JOIN user_experiment_assignments a
                 ON a.user_id = c.unit AND a.experiment_id = c.experiment_id AND a.tx_id < c.tx_id",
            ),
            (
                "a covariate of a unit that logged in",
                "SELECT count(*) FROM unit_totals t JOIN user_experiment_assignments a
                 ON a.user_id = t.unit AND a.experiment_id = t.experiment_id
                 WHERE a.assigned_as <> a.user_id AND t.covariate IS NOT NULL",
            ),
            (
                "a covariate that was replaced",
                "SELECT count(*) FROM unit_covariates a JOIN unit_covariates b
                 ON b.unit = a.unit AND b.experiment_id = a.experiment_id AND b.tx_id > a.tx_id",
            ),
            (
                "an excluded unit with a covariate",
                "SELECT count(*) FROM unit_totals WHERE excluded AND covariate IS NOT NULL",
            ),
            (
                "a unit without a covariate",
                "SELECT count(*) FROM unit_totals WHERE covariate IS NULL",
            ),
            (
                "an assignment of an alias",
                "SELECT count(*) FROM unit_aliases a JOIN user_experiment_assignments u ON u.user_id = a.alias_unit AND u.experiment_id = a.experiment_id",
            ),
        ] {
            assert_ne!(db.text(sql).await, "0", "{what}");
        }
        check(db, "the long one").await;
    });
}

#[test]
fn two_replicas_never_fold_the_same_rows() {
    with_database(async |db| {
        Stream::new(db, 31, false).await.run(200).await;
        let both = async || {
            for _ in 0..200 {
                fold::fold_up_to(&db.database, 3).await.unwrap();
            }
        };
        tokio::join!(both(), both());
        check(db, "two replicas").await;
    });
}

#[test]
fn days_without_a_process_have_their_snapshots() {
    with_database(async |db| {
        db.execute(
            "INSERT INTO variant_moments (experiment_id, variant_id, epoch, units) VALUES (1, 10, 1, 7);
             UPDATE fold_state SET snapshot_day = (now() AT TIME ZONE 'UTC')::date - 4",
        )
        .await;
        let snapshots = "SELECT (now() AT TIME ZONE 'UTC')::date - day AS ago, units FROM variant_day_snapshots ORDER BY 1";
        for _ in 0..2 {
            fold::fold_once(&db.database).await.unwrap();
            let rows = db.client().await.query(snapshots, &[]).await.unwrap();
            let days: Vec<(i32, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            assert_eq!(days, [(1, 7), (2, 7), (3, 7)]);
        }
    });
}

#[test]
fn a_watermark_that_passes_an_open_transaction_is_seen() {
    with_database(async |db| {
        db.execute("INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES ('u', 1, 10)").await;
        db.fold_all().await;
        let open = db.client().await;
        let event = "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type) VALUES ('e', 'u', 1, 10, 'click')";
        open.batch_execute(&format!("BEGIN; {event}"))
            .await
            .unwrap();
        // What a watermark taken from a sequence would do.
        db.execute("UPDATE fold_state SET watermark = pg_current_xact_id()::text::bigint")
            .await;
        open.batch_execute("COMMIT").await.unwrap();
        db.fold_all().await;
        let report = db.recount(false).await;
        let totals = report
            .tables
            .iter()
            .find(|table| table.table == "unit_totals")
            .unwrap();
        assert_eq!((totals.missing, totals.surplus), (1, 1), "{report}");
    });
}

#[test]
fn an_open_transaction_holds_the_watermark_and_loses_nothing() {
    with_database(async |db| {
        db.execute("INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES ('u', 1, 10)").await;
        db.fold_all().await;
        let event = |id: &str| {
            format!(
                "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type) VALUES ('{id}', 'u', 1, 10, 'click')"
            )
        };
        let open = db.client().await;
        open.batch_execute(&format!("BEGIN; {}", event("first")))
            .await
            .unwrap();
        db.execute(&event("second")).await;
        let folded = fold::fold_once(&db.database).await.unwrap();
        assert_eq!(folded.events, 0, "the second waits behind the first");
        open.batch_execute("COMMIT").await.unwrap();
        check(db, "held open").await;
        assert_eq!(db.text("SELECT clicks FROM unit_totals").await, "2");
    });
}
