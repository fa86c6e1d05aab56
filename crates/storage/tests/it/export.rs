//! Exports.

use futures_util::StreamExt;
use podium_storage::export::{self, Table};
use tokio::sync::Mutex;

use crate::support::{TestDatabase, with_database};

/// Exports at a time are bounded per process, so tests of them take turns.
static TURN: Mutex<()> = Mutex::const_new(());

async fn exported(db: &TestDatabase, table: Table, experiment: i64) -> Vec<String> {
    let mut stream = export::begin(&db.database, table, experiment)
        .await
        .unwrap();
    let mut text = String::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        assert!(chunk.len() < 200_000, "a chunk of {} bytes", chunk.len());
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    text.split_terminator("\r\n").map(str::to_owned).collect()
}

#[test]
fn events_have_the_columns_of_the_contract_and_guarded_cells() {
    with_database(async |db| {
        let _turn = TURN.lock().await;
        db.execute(
            "INSERT INTO experiment_events (id, event_id, user_id, experiment_id, variant_id, event_type, item_id, position, value,
                event_data, created_at, occurred_at)
             VALUES (7, '=1+1', '@me', 1, 10, 'purchase', 'a,\"b\"', 3, 12.5, '{\"a\": 1}', now(), '2026-01-02 03:04:05.5+00'),
                    (8, 'e2', 'u', 2, 20, 'click', NULL, NULL, NULL, NULL, now(), now())",
        )
        .await;
        let lines = exported(db, Table::Events, 1).await;
        assert_eq!(
            lines[0],
            "id,event_id,user_id,experiment_id,variant_id,event_type,event_name,item_id,brand_id,position,module_id,event_data,value,session_id,created_at,occurred_at"
        );
        assert_eq!(
            lines.len(),
            2,
            "the other experiment's event is not here: {lines:?}"
        );
        let (before, rest) = lines[1].split_once("12.5000,,").unwrap();
        assert_eq!(
            before,
            "7,'=1+1,'@me,1,10,purchase,,\"a,\"\"b\"\"\",,3,,\"{\"\"a\"\": 1}\","
        );
        assert!(rest.ends_with(",2026-01-02T03:04:05.500000Z"), "{rest}");
    });
}

#[test]
fn assignments_have_the_columns_of_the_contract() {
    with_database(async |db| {
        let _turn = TURN.lock().await;
        assert_eq!(
            exported(db, Table::Assignments, 1).await.len(),
            1,
            "the header is there without rows"
        );
        db.execute(
            "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, assigned_at, created_at, session_id, epoch, propensity)
             VALUES ('-u', 1, 10, '2026-01-02 03:04:05+00', '2026-01-02 03:04:05+00', 's', 3, 0.125)",
        )
        .await;
        let lines = exported(db, Table::Assignments, 1).await;
        assert_eq!(
            lines[0],
            "user_id,experiment_id,variant_id,assigned_at,created_at,session_id,is_sticky,epoch,propensity"
        );
        assert_eq!(
            lines[1],
            "'-u,1,10,2026-01-02T03:04:05.000000Z,2026-01-02T03:04:05.000000Z,s,true,3,0.125"
        );
    });
}

#[test]
fn a_long_export_comes_in_small_chunks_and_whole() {
    with_database(async |db| {
        let _turn = TURN.lock().await;
        db.execute(
            "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, event_data)
             SELECT 'e' || i, 'u' || i % 1000, 1, 10, 'click', jsonb_build_object('note', repeat('x', 200))
             FROM generate_series(1, 20000) i",
        )
        .await;
        let lines = exported(db, Table::Events, 1).await;
        assert_eq!(lines.len(), 20_001);
        let ids: std::collections::HashSet<_> = lines[1..]
            .iter()
            .map(|line| line.split(',').nth(1).unwrap())
            .collect();
        assert_eq!(ids.len(), 20_000);
    });
}

#[test]
fn a_reader_that_goes_away_ends_the_export_and_frees_its_place() {
    with_database(async |db| {
        let _turn = TURN.lock().await;
        db.execute(
            "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, event_data)
             SELECT 'e' || i, 'u', 1, 10, 'click', jsonb_build_object('note', repeat('x', 2000))
             FROM generate_series(1, 30000) i",
        )
        .await;
        let one = export::begin(&db.database, Table::Events, 1).await.unwrap();
        let other = export::begin(&db.database, Table::Events, 1).await.unwrap();
        let third = export::begin(&db.database, Table::Events, 1)
            .await
            .unwrap_err();
        assert!(
            matches!(third, podium_storage::StorageError::QueueFull),
            "{third}"
        );
        drop((one, other));
        // Both places come back when the server has been told, however long that takes.
        let mut again = Vec::new();
        while again.len() < 2 {
            match export::begin(&db.database, Table::Assignments, 1).await {
                Ok(stream) => again.push(stream),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        drop(again);
        let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '-- export::events%'";
        while db.text(running).await != "0" {
            tokio::task::yield_now().await;
        }
    });
}
