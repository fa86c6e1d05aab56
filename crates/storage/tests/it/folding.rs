//! Folding gives what the raw rows say, however they arrive.

use std::collections::HashSet;

use crate::model;
use crate::stream::Stream;
use crate::support::{TestDatabase, with_database};

/// Runs a stream and compares the folded tables with the recount and with the model.
async fn check(db: &TestDatabase, seed: u64, steps: u32) {
    let mut stream = Stream::new(db, seed).await;
    stream.run(steps).await;
    db.fold_all().await;
    let stored: HashSet<(i64, String)> = db
        .client()
        .await
        .query("SELECT experiment_id, event_id FROM experiment_events", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(stored, stream.acknowledged, "seed {seed}: acknowledged and stored events");
    let (live, expected) = (model::live(db).await, model::expected(db).await);
    for (table, rows) in &expected {
        assert_eq!(live.get(table), Some(rows), "seed {seed}: {table}");
    }
    assert_eq!(live.len(), expected.len(), "seed {seed}: tables");
    let report = db.recount(false).await;
    assert_eq!(report.differences(), 0, "seed {seed}: {report}");
}

fn streams(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        with_database(async |db| check(db, seed, 160).await);
    }
}

#[test]
fn any_stream_folds_to_what_the_raw_rows_say() {
    streams(0..8);
}

#[test]
fn any_other_stream_folds_to_what_the_raw_rows_say() {
    streams(100..108);
}
