//! The worker as a real process beside the API.

use std::process::{Child, Command, Stdio};

use podium_tests::process::{ApiProcess, signal};
use podium_tests::{TestApp, TestDatabase, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::guard::promote;
use crate::promotion::{CLEAR, ROUTE, statements};

const PROGRAM: &str = env!("CARGO_BIN_EXE_promotion-worker-under-test");

/// Runs a command to its end: exit code and what it printed.
pub(crate) async fn run(
    url: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (i32, String) {
    let mut all = vec![("DATABASE_URL", url), ("RUST_LOG", "error")];
    all.extend_from_slice(variables);
    let (status, text) = ApiProcess::run(PROGRAM, arguments, &all).await;
    (status.code().unwrap(), text)
}

async fn json_of(app: &TestApp, arguments: &[&str]) -> Value {
    let (code, text) = run(app.database().url(), arguments, &[]).await;
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_answer_people_and_programs() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let url = app.database().url();

    let scan = json_of(&app, &["scan", "--json"]).await;
    assert_eq!(
        (&scan["scanned"], &scan["promoted"], &scan["enabled"]),
        (&json!(1), &json!(0), &json!(false))
    );
    assert_eq!(scan["results"][0]["experimentName"], "e");
    let dry = json_of(
        &app,
        &["scan", "--json", "--dry-run", "--preset", "conservative"],
    )
    .await;
    assert_eq!(dry["dryRun"], true);
    let (code, table) = run(url, &["scan"], &[]).await;
    assert_eq!(code, 0);
    assert!(
        table.contains("1 scanned") && table.contains("disabled"),
        "{table}"
    );

    let check = json_of(&app, &["check", "e", "--json"]).await;
    assert_eq!(
        (&check["eligible"], &check["experimentName"]),
        (&json!(false), &json!("e"))
    );
    assert_eq!(check["safetyChecks"].as_array().unwrap().len(), 4);
    let (code, text) = run(url, &["promote", "e"], &[]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("not eligible") && text.contains("sample"),
        "{text}"
    );
    let id = app
        .database()
        .text("SELECT max(id)::text FROM promotion_decisions")
        .await;
    let (code, text) = run(url, &["replay", &id], &[]).await;
    assert!(code == 0 && text.contains("the same"), "{text}");

    promote(&app, &experiment, "'{100}', 5, 24, 0").await;
    let collapse = "INSERT INTO promotion_units (experiment_id, unit, promotion_id, converted_step, converted_arm)
                    SELECT p.experiment_id, 'u' || n, p.id, 0, 2 FROM experiment_promotions p, generate_series(1, 60) n";
    app.database().execute(collapse).await;
    json_of(&app, &["scan", "--json"]).await;
    let id = "SELECT id::text FROM promotion_decisions WHERE kind = 'rolled_back'";
    let id = app.database().text(id).await;
    let (code, text) = run(url, &["replay", &id], &[]).await;
    assert!(code == 0 && text.contains("the same"), "{text}");

    app.database().execute("DELETE FROM promotion_units").await;
    app.database()
        .execute("DELETE FROM promotion_rollouts")
        .await;
    app.change("DELETE FROM experiment_promotions").await;
    promote(&app, &experiment, "'{100}', 0, 24, 0").await;
    let promotion = app
        .database()
        .text("SELECT id::text FROM experiment_promotions")
        .await;
    let arguments = [
        "rollback",
        promotion.as_str(),
        "--reason",
        "a test",
        "--json",
    ];
    let rolled_back = json_of(&app, &arguments).await;
    assert_eq!(rolled_back["rollbackReason"], "a test");
    let (code, text) = run(url, &arguments, &[]).await;
    assert!(code == 1 && text.contains("already"), "{text}");
    let stats = json_of(&app, &["stats", "--json"]).await;
    assert_eq!(
        (&stats["totalPromotions"], &stats["rolledBackPromotions"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_what_is_wrong() {
    let app = TestApp::start().await;
    let url = app.database().url();
    for (arguments, variables, wanted) in [
        (vec!["scan"], vec![("AUTO_PROMOTION_PRESET", "bold")], 2),
        (vec!["scan"], vec![("DATABASE_URL", "")], 2),
        (vec!["scan", "--every", "1h"], vec![], 2),
        (
            vec!["stats"],
            vec![("DATABASE_URL", "postgres://127.0.0.1:1/none")],
            3,
        ),
        (vec!["check", "nothing"], vec![], 1),
        (vec!["replay", "99"], vec![], 1),
        (
            vec![
                "rollback",
                "00000000-0000-0000-0000-000000000009",
                "--reason",
                "r",
            ],
            vec![],
            1,
        ),
    ] {
        let (code, text) = run(url, &arguments, &variables).await;
        assert_eq!(code, wanted, "{arguments:?} {text}");
    }
    let lock = podium_storage::promotions::scan::lock(&app.state().database)
        .await
        .unwrap();
    assert_eq!(run(url, &["scan"], &[]).await.0, 4);
    let scan = json!({"action": "scan"});
    let busy = app.admin(Method::POST, ROUTE, Some(&scan)).await;
    let busy = busy.problem(409, "conflict");
    assert_eq!(busy["detail"], "another scan is running");
    drop(lock);
}

/// A daemon that ends with the test.
pub(crate) struct Daemon(Child);

impl Daemon {
    fn start(database: &TestDatabase) -> Self {
        Self::start_with(database, &[])
    }

    pub(crate) fn start_with(database: &TestDatabase, variables: &[(&str, &str)]) -> Self {
        let child = Command::new(PROGRAM)
            .args(["run", "--every", "1s"])
            .env_remove("JWT_SECRET")
            .env("DATABASE_URL", database.url())
            .env("RUST_LOG", "error")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two daemons and an API: one works, the other takes over when it is killed, and SIGTERM ends it in order.
#[tokio::test(flavor = "multi_thread")]
async fn one_daemon_works_and_another_takes_over() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let holder = "SELECT coalesce(max(holder::text), '') FROM worker_leases WHERE until >= now()";
    let mut first = Daemon::start(app.database());
    eventually("a daemon has the lease", async || {
        !app.database().text(holder).await.is_empty()
    })
    .await;
    let leads = app.database().text(holder).await;
    let mut second = Daemon::start(app.database());
    eventually("the daemon scans", async || {
        let sql = "SELECT count(*) FROM promotion_verdicts";
        app.database().number(sql).await == 1
    })
    .await;
    // Its first look came with the lease, so that the next one is a minute away; alerts show that it looked.
    eventually("the daemon looks", async || {
        app.database().number("SELECT count(*) FROM alerts").await > 0
    })
    .await;
    assert_eq!(app.database().text(holder).await, leads);
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    // The lease of a killed one ends by itself; here its end is brought forward.
    app.database()
        .execute("UPDATE worker_leases SET until = now() - interval '1 second'")
        .await;
    eventually("the other takes over", async || {
        let now = app.database().text(holder).await;
        !now.is_empty() && now != leads
    })
    .await;
    promote(&app, &experiment, "'{100}', 0, 24, 0").await;
    signal("TERM", &[second.0.id()]);
    let mut status = None;
    eventually("the daemon ends", async || {
        status = second.0.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
    assert_eq!(
        app.database().text(holder).await,
        "",
        "the lease was given back"
    );
}

/// SIGTERM in the middle of a promotion: the daemon ends at once, nothing of the promotion stays, and the next one makes it
/// whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_in_a_promotion_leaves_nothing_half_done() {
    let app = TestApp::start().await;
    app.change(&statements(1, "cta", &CLEAR)).await;
    let variables = [("AUTO_PROMOTION_ENABLED", "true")];
    // Behind the promotion itself, its audit rows and its record; before the rollout, the messages and the commit.
    let other = app.database().connect().await;
    other
        .batch_execute("BEGIN; LOCK TABLE promotion_rollouts IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut daemon = Daemon::start_with(app.database(), &variables);
    eventually("the promotion waits", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                       AND wait_event_type = 'Lock' AND query LIKE '%rollouts::begin%'";
        app.database().number(waiting).await > 0
    })
    .await;
    signal("TERM", &[daemon.0.id()]);
    let mut status = None;
    eventually("the daemon ends", async || {
        status = daemon.0.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
    other.batch_execute("COMMIT").await.unwrap();
    let traces = "SELECT (SELECT count(*) FROM experiment_promotions) + (SELECT count(*) FROM promotion_rollouts)
        + (SELECT count(*) FROM ab_promotion_audit_log) + (SELECT count(*) FROM promotion_decisions)
        + (SELECT count(*) FROM experiments WHERE status <> 'running')";
    eventually("the database has rolled it back", async || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%rollouts::begin%'
                    AND state <> 'idle' AND pid <> pg_backend_pid()";
        app.database().number(open).await == 0
    })
    .await;
    assert_eq!(app.database().number(traces).await, 0);
    let (code, text) = run(app.database().url(), &["scan", "--json"], &variables).await;
    assert!(code == 0 && text.contains("\"promoted\": 1"), "{text}");
    // Promotion, rollout, audit row, record and a completed experiment.
    assert_eq!(app.database().number(traces).await, 5);
}
