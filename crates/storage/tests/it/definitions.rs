//! What replicas hold in memory, read while it changes.

use podium_storage::definitions::{self, Definitions};

use crate::support::{TestDatabase, with_database};

/// Whether somebody waits for the variants.
const WAITS: &str = "SELECT count(*) > 0 FROM pg_locks
    WHERE NOT granted AND relation = 'experiment_variants'::regclass AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

fn names(definitions: &Definitions) -> [&str; 2] {
    let experiment = &definitions.experiments[0];
    [&experiment.name, &experiment.variants[0].name]
}

async fn load_waits(db: &TestDatabase) {
    while db.text(WAITS).await != "t" {
        tokio::task::yield_now().await;
    }
}

/// A change that commits between two statements of a load is in none of what the load answers.
#[test]
fn a_load_sees_no_change_by_halves() {
    with_database(async |db| {
        db.execute(
            "INSERT INTO experiments (id, name, salt, status) VALUES (1, 'before', 's', 'running');
             INSERT INTO experiment_variants (id, experiment_id, name, is_control) VALUES (10, 1, 'before', true)",
        )
        .await;
        let mut other = db.client().await;
        let change = other.transaction().await.unwrap();
        // Experiments are read before variants, so this holds the load between them.
        change
            .batch_execute("LOCK TABLE experiment_variants IN ACCESS EXCLUSIVE MODE")
            .await
            .unwrap();
        let database = db.database.clone();
        let load = tokio::spawn(async move { definitions::load(&database).await });
        load_waits(db).await;
        change
            .batch_execute(
                "UPDATE experiments SET name = 'after'; UPDATE experiment_variants SET name = 'after'",
            )
            .await
            .unwrap();
        change.commit().await.unwrap();
        let first = load.await.unwrap().unwrap();
        assert_eq!(names(&first), ["before", "before"]);
        let second = definitions::load(&db.database).await.unwrap();
        assert_eq!(names(&second), ["after", "after"]);
        assert!(first.version < second.version);
    });
}
