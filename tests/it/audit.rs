//! The audit log is sealed, and shows when it was altered.

use podium_api::auth::Role;
use podium_storage::seals::{self, Finding, Seal};
use podium_tests::{ApiProcess, TestApp, eventually};
use reqwest::Method;
use serde_json::json;

use crate::PROGRAM;

const EXPERIMENTS: &str = "/api/v1/admin/experiments";

/// Everything that waits is sealed, by whichever replica.
async fn sealed(app: &TestApp) {
    eventually("nothing waits for a seal", async || {
        seals::seal_once(&app.state().database).await.unwrap();
        app.database()
            .number("SELECT count(*) FROM audit_unsealed")
            .await
            == 0
    })
    .await;
}

async fn findings(app: &TestApp, anchor: Option<Seal>) -> Vec<Finding> {
    seals::verify(&app.database().settings(), anchor)
        .await
        .unwrap()
        .findings
}

async fn verify(app: &TestApp, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["audit", "verify"], arguments].concat();
    let variables = [("DATABASE_URL", app.database().url())];
    let (status, printed) = ApiProcess::run(PROGRAM, &arguments, &variables).await;
    (status.code(), printed)
}

/// Changes one row behind the triggers' back, as the owner of the database can.
async fn tamper(app: &TestApp, sql: &str) {
    app.database()
        .execute(&format!(
            "SET session_replication_role = replica; {sql}; RESET session_replication_role"
        ))
        .await;
}

/// An application with a few sealed entries of both logs, in several seals.
async fn scene() -> TestApp {
    let app = TestApp::start().await;
    for name in ["a", "b", "c"] {
        app.admin(Method::POST, EXPERIMENTS, Some(&json!({ "name": name })))
            .await
            .ok();
        app.database()
            .execute("INSERT INTO ab_promotion_audit_log (action, triggered_by, confidence_level, reason) VALUES ('promotion_attempted', 'auto', 97.123456789, 'r')")
            .await;
        sealed(&app).await;
    }
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_sealed_and_proved() {
    let app = scene().await;
    let verified = seals::verify(&app.database().settings(), None)
        .await
        .unwrap();
    assert_eq!(
        (verified.entries, verified.waiting, verified.findings),
        (6, 0, Vec::new())
    );
    let last = verified.last.unwrap();
    assert!(last.id >= 3);
    let (code, printed) = verify(&app, &[]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains(&last.to_string()) && printed.contains("sealed entries: 6"),
        "{printed}"
    );
    let (code, printed) = verify(&app, &["--anchor", &last.to_string()]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(verify(&app, &["--anchor", "nonsense"]).await.0, Some(2));
}

/// Neither entries nor seals can be changed by the program's own statements.
#[tokio::test(flavor = "multi_thread")]
async fn the_schema_refuses_changes() {
    let app = scene().await;
    let client = app.database().connect().await;
    for (table, column) in [
        ("audit_log", "actor"),
        ("ab_promotion_audit_log", "reason"),
        ("audit_seals", "hash"),
    ] {
        for sql in [
            format!("UPDATE {table} SET {column} = {column}"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            let error = client.batch_execute(&sql).await.unwrap_err();
            assert!(
                format!("{error:?}").contains("never changed"),
                "{sql}: {error:?}"
            );
        }
    }
}

/// Every way to change what was sealed is found, and named.
#[tokio::test(flavor = "multi_thread")]
async fn every_alteration_is_found() {
    for (sql, wanted) in [
        (
            "UPDATE audit_log SET actor = 'somebody else' WHERE entity_id = '1'",
            "was changed",
        ),
        (
            "UPDATE audit_log SET at = at + interval '1 microsecond' WHERE entity_id = '1'",
            "was changed",
        ),
        (
            "UPDATE audit_log SET after = after || '{\"name\": \"z\"}' WHERE entity_id = '1'",
            "was changed",
        ),
        (
            "UPDATE ab_promotion_audit_log SET confidence_level = 97.12345678 WHERE id = 1",
            "was changed",
        ),
        (
            "DELETE FROM audit_log WHERE entity_id = '2'",
            "are missing: [2]",
        ),
        (
            "DELETE FROM ab_promotion_audit_log",
            "entries of ab_promotion_audit_log that are missing",
        ),
        (
            "DELETE FROM audit_log WHERE id = (SELECT max(id) FROM audit_log)",
            "are missing: [3]",
        ),
        ("DELETE FROM audit_seals WHERE id = 1", "seal 1 is missing"),
        ("DELETE FROM audit_seals WHERE id = 2", "seal 2 is missing"),
        (
            "DELETE FROM audit_seals WHERE id = (SELECT max(id) FROM audit_seals)",
            "covered by no seal",
        ),
        (
            "DELETE FROM audit_seals",
            "3 entries of audit_log are covered by no seal",
        ),
        (
            "UPDATE audit_seals SET hash = sha256('x') WHERE id = 2",
            "seal 2, or an entry",
        ),
        (
            "UPDATE audit_seals SET previous = sha256('x') WHERE id = 2",
            "seal 2 does not follow",
        ),
        (
            "UPDATE audit_seals SET sealed_at = sealed_at - interval '1 day' WHERE id = 2",
            "seal 2, or an entry",
        ),
        (
            "UPDATE audit_seals SET audit_ids = audit_ids || 1::bigint, hash = hash WHERE id = 3",
            "entry 1 of audit_log is covered by two seals",
        ),
        (
            "INSERT INTO audit_log (actor, action, entity, entity_id) VALUES ('forged', 'user.create', 'user', 'x')",
            "1 entries of audit_log are covered by no seal",
        ),
    ] {
        let app = scene().await;
        tamper(&app, sql).await;
        let found: Vec<String> = findings(&app, None)
            .await
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(
            found.iter().any(|finding| finding.contains(wanted)),
            "{sql}: {found:?}"
        );
    }
}

/// An end that was cut off with its seals leaves a chain that is whole in itself; a seal that was noted shows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_noted_seal_shows_that_the_end_was_cut_off() {
    let app = scene().await;
    let noted = seals::verify(&app.database().settings(), None)
        .await
        .unwrap()
        .last
        .unwrap();
    let cut = format!(
        "DELETE FROM audit_log WHERE id IN (SELECT unnest(audit_ids) FROM audit_seals WHERE id >= {0});
         DELETE FROM ab_promotion_audit_log WHERE id IN (SELECT unnest(promotion_ids) FROM audit_seals WHERE id >= {0});
         DELETE FROM audit_seals WHERE id >= {0}",
        noted.id
    );
    tamper(&app, &cut).await;
    assert_eq!(findings(&app, None).await, []);
    assert_eq!(
        findings(&app, Some(noted)).await,
        [Finding::MissingSeal(noted.id)]
    );
    let (code, printed) = verify(&app, &["--anchor", &noted.to_string()]).await;
    assert_eq!(code, Some(1), "{printed}");
    // And a chain that goes on differently from there.
    app.admin(Method::POST, EXPERIMENTS, Some(&json!({"name": "d"})))
        .await
        .ok();
    sealed(&app).await;
    let found = findings(&app, Some(noted)).await;
    assert!(
        found.contains(&Finding::OtherChain(noted.id))
            || found.contains(&Finding::MissingSeal(noted.id)),
        "{found:?}"
    );
}

/// An entry that commits late is sealed late, and holds up neither the chain nor other writers.
#[tokio::test(flavor = "multi_thread")]
async fn writers_do_not_wait_for_the_chain() {
    let app = TestApp::start().await;
    let slow = app.database().connect().await;
    let insert = "BEGIN; INSERT INTO audit_log (actor, action, entity, entity_id) VALUES ('slow', 'x', 'x', 'x')";
    slow.batch_execute(insert).await.unwrap();
    app.admin(Method::POST, EXPERIMENTS, Some(&json!({"name": "a"})))
        .await
        .ok();
    sealed(&app).await;
    let early = seals::verify(&app.database().settings(), None)
        .await
        .unwrap();
    assert_eq!((early.entries, early.findings), (1, Vec::new()));
    slow.batch_execute("COMMIT").await.unwrap();
    sealed(&app).await;
    let late = seals::verify(&app.database().settings(), None)
        .await
        .unwrap();
    assert_eq!((late.entries, late.findings), (2, Vec::new()));
    assert!(late.last.unwrap().id > early.last.unwrap().id);
}

/// Two replicas, many writers: one chain without gaps or doubles.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_one_chain() {
    let app = TestApp::start().await;
    let other = app.replica().await;
    for n in 0..10 {
        for (at, replica) in [&app, &other].into_iter().enumerate() {
            let body = json!({"name": format!("e-{n}-{at}")});
            replica
                .admin(Method::POST, EXPERIMENTS, Some(&body))
                .await
                .ok();
            let (one, two) = tokio::join!(
                seals::seal_once(&app.state().database),
                seals::seal_once(&other.state().database)
            );
            one.unwrap();
            two.unwrap();
        }
    }
    sealed(&app).await;
    let verified = seals::verify(&app.database().settings(), None)
        .await
        .unwrap();
    assert_eq!((verified.entries, verified.findings), (20, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_can_be_exported() {
    let app = scene().await;
    let path = "/api/v1/admin/audit-log/export.csv";
    let answer = app.admin(Method::GET, path, None).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
    let text = answer.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("id,at,actor,action,entity,entity_id"));
    assert_eq!(lines.len(), 4);
    assert!(
        lines[1].starts_with("1,") && lines[1].contains("experiment.create"),
        "{}",
        lines[1]
    );
    assert_eq!(
        app.admin(Method::GET, &format!("{path}?after=2"), None)
            .await
            .text()
            .lines()
            .count(),
        2
    );
    app.admin(Method::GET, &format!("{path}?after=x"), None)
        .await
        .problem(422, "validation_failed");
    app.with_role(Role::Promoter)
        .await
        .admin(Method::GET, path, None)
        .await
        .problem(403, "forbidden");
}
