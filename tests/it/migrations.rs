//! The schema: how it comes about, and what others rely on.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use podium_storage::migrate::migrate;
use podium_tests::database::migration_texts;
use podium_tests::{ApiProcess, TestApp, TestDatabase};
use serde_json::json;

use crate::PROGRAM;

async fn by_hand(database: &TestDatabase) {
    for text in migration_texts() {
        database.execute(&text).await;
    }
}

/// An application on a database works: it assigns and records.
async fn works(database: TestDatabase) {
    let app = TestApp::setup().database(database).start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    app.track(
        "purchase",
        json!({"user_id": "u", "experiment_id": "e", "value": 2}),
    )
    .await
    .ok();
    app.fold().await;
    assert_eq!(
        app.database()
            .number("SELECT sum(sum_purchases) FROM variant_moments")
            .await,
        1
    );
}

/// Everything that the schema consists of.
async fn schema(database: &TestDatabase) -> Vec<Vec<String>> {
    let sql = "SELECT table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns
                   WHERE table_schema = 'public' AND table_name <> 'refinery_schema_history'
               UNION ALL SELECT tablename, indexname, indexdef, NULL, NULL FROM pg_indexes
                   WHERE schemaname = 'public' AND tablename <> 'refinery_schema_history'
               UNION ALL SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), NULL, NULL FROM pg_trigger WHERE NOT tgisinternal
               UNION ALL SELECT proname, pg_get_function_identity_arguments(p.oid), prosrc, NULL, NULL
                   FROM pg_proc p WHERE pronamespace = 'public'::regnamespace
               ORDER BY 1, 2, 3";
    database.rows(sql).await
}

/// The files also run by hand, once or twice, before and after the program, and come to the same schema.
#[tokio::test(flavor = "multi_thread")]
async fn migrations_run_by_hand_as_well() {
    let expected = schema(&TestDatabase::migrated().await).await;
    let before = TestDatabase::empty().await;
    by_hand(&before).await;
    by_hand(&before).await;
    migrate(&before.settings()).await.unwrap();
    assert_eq!(schema(&before).await, expected);
    let after = TestDatabase::migrated().await;
    by_hand(&after).await;
    assert_eq!(
        migrate(&after.settings()).await.unwrap(),
        Vec::<String>::new(),
        "nothing left to do"
    );
    assert_eq!(schema(&after).await, expected);
    works(before).await;
    works(after).await;
}

/// What is stored survives another run by hand.
#[tokio::test(flavor = "multi_thread")]
async fn running_them_again_keeps_the_data() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    app.track(
        "click",
        json!({"event_id": "x", "user_id": "u", "experiment_id": "e"}),
    )
    .await
    .ok();
    app.fold().await;
    let watermark = app
        .database()
        .text("SELECT watermark FROM fold_state")
        .await;
    by_hand(app.database()).await;
    assert!(
        app.database()
            .text("SELECT watermark FROM fold_state")
            .await
            >= watermark
    );
    assert_eq!(
        app.track(
            "click",
            json!({"event_id": "x", "user_id": "u", "experiment_id": "e"})
        )
        .await
        .ok()["duplicate"],
        true
    );
}

/// Eight at once: one migrates, the others wait for it, none fails.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_migrations_agree() {
    let database = TestDatabase::empty().await;
    let runs =
        join_all((0..8).map(|_| async { migrate(&database.settings()).await.unwrap() })).await;
    let mut applied: Vec<usize> = runs.iter().map(Vec::len).collect();
    applied.sort_unstable();
    assert_eq!(applied, [0, 0, 0, 0, 0, 0, 0, migration_texts().len()]);
    works(database).await;
}

/// Several processes may start on an empty database together.
#[tokio::test(flavor = "multi_thread")]
async fn processes_may_start_together_on_an_empty_database() {
    let database = TestDatabase::empty().await;
    let variables = [("DATABASE_URL", database.url())];
    let processes = join_all((0..4).map(|_| ApiProcess::start(PROGRAM, &variables))).await;
    for process in &processes {
        assert_eq!(process.get("/readyz").await.status, 200);
    }
    drop(processes);
    works(database).await;
}

/// Whoever migrates without an application that runs all the time has the partitions of the coming weeks, of both tables.
#[tokio::test(flavor = "multi_thread")]
async fn every_migration_makes_the_partitions_of_the_coming_weeks() {
    let database = TestDatabase::migrated().await;
    for table in ["experiment_events", "bandit_decisions"] {
        let partitions = format!(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = '{table}'::regclass ORDER BY 1 DESC"
        );
        let made = database.rows(&partitions).await;
        database
            .execute(&format!("DROP TABLE {}", made[0][0]))
            .await;
        migrate(&database.settings()).await.unwrap();
        assert_eq!(database.rows(&partitions).await, made);
    }
}

/// A replica of the version before may start again on the schema of the one after it, and says when that is of another line.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_schema_is_left_alone() {
    let database = TestDatabase::migrated().await;
    let later = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                 VALUES (9999, 'of_the_version_after', '2027-01-01T00:00:00Z', '1')";
    database.execute(later).await;
    assert_eq!(
        migrate(&database.settings()).await.unwrap(),
        Vec::<String>::new()
    );
    let process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", database.url())]).await;
    assert_eq!(process.get("/readyz").await.status, 200);
    drop(process);
    database
        .execute("DELETE FROM refinery_schema_history WHERE version = 19")
        .await;
    let error = migrate(&database.settings()).await.unwrap_err().chain();
    assert!(error.contains("lacks migration 19"), "{error}");
    database
        .execute("INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (19, 'x', '', '')")
        .await;
    works(database).await;
}

/// A table of an earlier system stops the migration before anything is made, and the message says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_table_stops_the_migration() {
    for table in [
        "experiments",
        "ab_experiments",
        "ab_variants",
        "experiment_promotions",
        "ab_promotion_audit_log",
        "notification_configs",
        "notification_logs",
        "experiment_variants",
        "user_experiment_assignments",
        "experiment_events",
        "bandit_arms",
        "position_performance",
    ] {
        let database = TestDatabase::empty().await;
        database.execute(&format!("CREATE TABLE {table} (id serial, name text); INSERT INTO {table} (name) VALUES ('old')")).await;
        let error = migrate(&database.settings()).await.unwrap_err().chain();
        for part in [
            format!("\"{table}\""),
            "earlier system".into(),
            format!("ALTER TABLE {table} RENAME TO {table}_old"),
        ] {
            assert!(error.contains(&part), "{part} is missing: {error}");
        }
        let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'refinery_schema_history'";
        assert_eq!(database.rows(tables).await, [[table]]);
        assert_eq!(
            database.text(&format!("SELECT name FROM {table}")).await,
            "old"
        );
        database
            .execute(&format!("ALTER TABLE {table} RENAME TO {table}_old"))
            .await;
        migrate(&database.settings()).await.unwrap();
        assert_eq!(
            database
                .text(&format!("SELECT name FROM {table}_old"))
                .await,
            "old"
        );
    }
}

/// The command migrates and exits; where it cannot, it says why and shows no secret.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_migrates() {
    let database = TestDatabase::empty().await;
    let variables = [("DATABASE_URL", database.url())];
    let (status, text) = ApiProcess::run(PROGRAM, &["migrate"], &variables).await;
    assert!(
        status.success() && text.contains("create_experimentation_system"),
        "{text}"
    );
    let (status, text) = ApiProcess::run(PROGRAM, &["migrate"], &variables).await;
    assert!(status.success() && text.contains("up to date"), "{text}");
    let foreign = TestDatabase::empty().await;
    foreign
        .execute("CREATE TABLE experiments (id integer)")
        .await;
    for arguments in [&["migrate"][..], &[]] {
        let (status, text) =
            ApiProcess::run(PROGRAM, arguments, &[("DATABASE_URL", foreign.url())]).await;
        assert!(
            !status.success() && text.contains("ALTER TABLE experiments RENAME TO experiments_old"),
            "{text}"
        );
        let secret = foreign.url().split(['@', ':']).nth(2).unwrap_or_default();
        assert!(
            secret.len() < 4 || !text.contains(secret),
            "shows the password"
        );
    }
}

/// Events of the coming four weeks have a partition already; who starts later makes those that are missing.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_exist_ahead() {
    let database = TestDatabase::migrated().await;
    let insert = "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, created_at)
                  SELECT n::text, 'u', 1, 1, 'click', now() + make_interval(days => n) FROM generate_series(-7, 28) AS n";
    database.execute(insert).await;
    let partitions =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'experiment_events'::regclass";
    let made = database.number(partitions).await;
    assert!(made >= 6, "{made}");
    let last =
        "SELECT max(relname) FROM pg_class WHERE relname ~ '^experiment_events_[0-9]{4}w[0-9]{2}$'";
    let last = database.text(last).await;
    database.execute(&format!("DROP TABLE {last}")).await;
    let app = TestApp::setup().database(database).start().await;
    podium_tests::eventually("the missing partition is made", async || {
        app.database().number(partitions).await == made
    })
    .await;
}

/// Names that others query: tables with their columns, functions, and statements as they are published.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_with_other_readers_holds() {
    let database = TestDatabase::migrated().await;
    for (table, columns) in CONTRACT {
        database
            .execute(&format!("SELECT {columns} FROM {table} LIMIT 0"))
            .await;
    }
    for statement in STATEMENTS {
        database.execute(statement).await;
    }
    let unique = "INSERT INTO experiments (name, salt) VALUES ('a', 'a'), ('a', 'a')";
    assert!(
        database
            .connect()
            .await
            .batch_execute(unique)
            .await
            .is_err(),
        "names are unique"
    );
    let big = "INSERT INTO experiments (id, name, salt) VALUES (4294967296, 'big', 'big')";
    database.execute(big).await;
}

const CONTRACT: [(&str, &str); 11] = [
    (
        "experiments",
        "id, name, description, experiment_type, target, status, start_date, end_date, traffic_allocation, primary_metric,
         secondary_metrics, config, winner_variant_id, statistical_significance, created_at, updated_at, created_by",
    ),
    (
        "experiment_variants",
        "id, experiment_id, name, description, traffic_weight, config, is_control, pulls, rewards, average_reward,
         confidence_bound, created_at, updated_at",
    ),
    (
        "user_experiment_assignments",
        "user_id, experiment_id, variant_id, assigned_at, created_at, session_id, is_sticky",
    ),
    (
        "experiment_events",
        "id, event_id, user_id, experiment_id, variant_id, event_type, event_name, item_id, brand_id, position, module_id,
         event_data, value, session_id, created_at, occurred_at",
    ),
    (
        "bandit_arms",
        "id, experiment_id, arm_type, arm_id, arm_name, alpha, beta, total_pulls, total_reward, average_reward, metadata,
         created_at, updated_at",
    ),
    (
        "position_performance",
        "experiment_id, position, impressions, clicks, conversions, total_value, click_through_rate, conversion_rate,
         average_value, date, created_at, updated_at",
    ),
    ("ab_experiments", "id, name, is_active, start_date, end_date"),
    ("ab_variants", "id, experiment_id, variant_name, traffic_percentage"),
    (
        "experiment_promotions",
        "id, experiment_id, experiment_name, promoted_variant_id, promoted_variant_name, control_variant_id,
         control_variant_name, confidence, improvement, sample_size, promotion_type, promoted_by, promoted_at, rollback_at,
         rollback_reason, metadata, created_at",
    ),
    (
        "ab_promotion_audit_log",
        "id, experiment_id, experiment_name, winning_variant_id, winning_variant_name, previous_winner_id, action,
         triggered_by, user_id, confidence_level, improvement, sample_size, safety_checks_json, reason, promoted_at,
         rolled_back_at, rollback_reason, created_at",
    ),
    (
        "get_experiment_performance(1)",
        "variant_id, variant_name, impressions, clicks, conversions, click_through_rate, conversion_rate, total_value,
         avg_value_per_user",
    ),
];

/// Statements of the earlier system's operators.
const STATEMENTS: [&str; 9] = [
    "SELECT tablename FROM pg_tables WHERE tablename LIKE 'experiment%' OR tablename LIKE 'bandit%' OR tablename LIKE 'position%'",
    "SELECT COUNT(*) FROM user_experiment_assignments WHERE experiment_id = 1 AND created_at > NOW() - INTERVAL '1 hour'",
    "SELECT event_type, COUNT(*) FROM experiment_events WHERE experiment_id = 1 GROUP BY event_type",
    "SELECT v.name, COUNT(*) as users FROM user_experiment_assignments uea
     JOIN experiment_variants v ON uea.variant_id = v.id WHERE uea.experiment_id = 1 GROUP BY v.name",
    "SELECT status FROM experiments WHERE id = 1",
    "SELECT COUNT(*) FROM experiment_variants WHERE experiment_id = 1",
    "SELECT traffic_allocation FROM experiments WHERE id = 1",
    "CREATE INDEX IF NOT EXISTS idx_user_exp_assignment_lookup
     ON user_experiment_assignments(user_id, experiment_id) INCLUDE (variant_id)",
    "SELECT update_bandit_arm_performance(1, 1.0, true)",
];

/// Tables and columns with their types, and whether a row needs a value for them that only its writer knows.
async fn columns(database: &TestDatabase) -> BTreeMap<(String, String), (String, bool)> {
    let sql = "SELECT table_name, column_name, udt_name,
                      is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO' AND is_generated = 'NEVER'
               FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
               WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";
    let rows = database.rows(sql).await.into_iter();
    rows.map(|row| {
        let [table, column, kind, needed] = row.try_into().unwrap();
        ((table, column), (kind, needed == "t"))
    })
    .collect()
}

/// The version before runs on the schema of this one, while replicas are replaced: a migration takes nothing away, changes
/// no type, and asks no old statement for a column that it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_version_before_reads_and_writes_stays() {
    let database = TestDatabase::empty().await;
    let mut before = BTreeMap::new();
    for text in migration_texts() {
        database.execute(&text).await;
        let after = columns(&database).await;
        for (name, (kind, needed)) in &before {
            let (kind_now, needed_now): &(String, bool) = after
                .get(name)
                .unwrap_or_else(|| panic!("{name:?} is gone after: {}", &text[..80]));
            assert_eq!(kind, kind_now, "{name:?}");
            assert!(*needed || !needed_now, "{name:?} is needed now");
        }
        let tables: BTreeSet<&String> = before.keys().map(|(table, _)| table).collect();
        for ((table, column), (_, needed)) in &after {
            let is_new = !before.contains_key(&(table.clone(), column.clone()));
            assert!(
                !(tables.contains(table) && is_new && *needed),
                "{table}.{column} is needed"
            );
        }
        before = after;
    }
}
