//! One role owns the tables, another one serves: what it may is what the documentation grants.

use podium_storage::retention::{create_partitions, drop_old};
use podium_tests::database::connect;
use podium_tests::{ApiProcess, OwnPostgres, TestApp, TestDatabase};

use crate::{PROGRAM, pooler};

const DOCUMENT: &str = include_str!("../../docs/operations.md");
const NAME: &str = "two_roles";

/// The statements of the documentation, for a database of this name: what a superuser runs, and what the owner runs.
fn documented() -> [Vec<String>; 2] {
    let (_, section) = DOCUMENT.split_once("\n## Two roles\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks: Vec<&str> = section
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    let statements = |block: &str| {
        let block = block.replace("DATABASE podium", &format!("DATABASE {NAME}"));
        let statements = block.split(';').map(|part| part.trim().to_owned());
        statements.filter(|part| !part.is_empty()).collect()
    };
    [statements(blocks[0]), statements(blocks[1])]
}

/// The addresses of both, with the password that the documentation leaves out.
async fn set_up(postgres: &OwnPostgres) -> [String; 2] {
    let server = postgres.url();
    let (_, place) = server.rsplit_once('@').unwrap();
    let (host, _) = place.split_once('/').unwrap();
    let url = |role: &str| format!("postgres://{role}:secret@{host}/{NAME}");
    let urls = [url("podium_owner"), url("podium_app")];
    let [by_superuser, by_owner] = documented();
    let session = connect(&server).await;
    for statement in by_superuser {
        let statement = statement.replace('…', "secret");
        session.batch_execute(&statement).await.unwrap();
    }
    let session = connect(&urls[0]).await;
    for statement in by_owner {
        session.batch_execute(&statement).await.unwrap();
    }
    urls
}

/// The youngest partition of a table.
async fn youngest(database: &TestDatabase, table: &str) -> String {
    let sql = format!(
        "SELECT max(c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = '{table}'::regclass"
    );
    database.text(&sql).await
}

/// Partitions are made and dropped as their owner, also by a process that serves as somebody else, who otherwise can do all
/// that the product does.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_serves_need_not_own_the_tables() {
    const TABLES: [&str; 2] = ["bandit_decisions", "experiment_events"];
    let postgres = OwnPostgres::start();
    let [owner, serving] = set_up(&postgres).await;
    let database = TestDatabase::on(owner.clone()).await;
    let app = TestApp::setup()
        .variable("DATABASE_URL", &serving)
        .variable("MIGRATION_DATABASE_URL", &owner)
        .database(database)
        .migrating()
        .start()
        .await;
    let database = app.database();
    let role = &connect(&serving).await;
    for table in TABLES {
        let refused = role.batch_execute(&format!("DROP TABLE {table}")).await;
        assert!(refused.is_err(), "{table} belongs to the owner");
    }
    pooler::everything_works(&app, &app).await;

    let mut old = Vec::new();
    for table in TABLES {
        let last = youngest(database, table).await;
        database
            .execute(&format!(
                "DROP TABLE {last};
                 CREATE TABLE {table}_2020w10 PARTITION OF {table}
                 FOR VALUES FROM ('2020-03-02 00:00:00+00') TO ('2020-03-09 00:00:00+00')"
            ))
            .await;
        create_partitions(&app.state().database).await.unwrap();
        assert_eq!(youngest(database, table).await, last);
        old.push(format!("{table}_2020w10"));
    }
    let mut dropped = drop_old(&app.state().database, 45).await.unwrap();
    dropped.sort();
    assert_eq!(dropped, old);

    let variables = [
        ("DATABASE_URL", serving.as_str()),
        ("MIGRATION_DATABASE_URL", owner.as_str()),
    ];
    for arguments in [
        &["migrate"][..],
        &["rebuild", "--apply"],
        &["rebuild"],
        &["forget", "u1"],
        &["audit", "verify"],
    ] {
        let (status, text) = ApiProcess::run(PROGRAM, arguments, &variables).await;
        assert!(status.success(), "{arguments:?}: {text}");
    }
}
