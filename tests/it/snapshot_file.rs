//! The program starts while the database is away.

use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use podium_tests::app::SECRET;
use podium_tests::{
    Answer, ApiProcess, Client, OwnPostgres, TestApp, TestDatabase, eventually, token,
};
use reqwest::Method;
use serde_json::json;

use crate::PROGRAM;

async fn becomes_ready(client: &Client) {
    eventually("the replica is ready", async || {
        client.get("/readyz").await.status == 200
    })
    .await;
}

async fn is_degraded(client: &Client) {
    assert_eq!(client.get("/livez").await.status, 200);
    let health = client.get("/api/v1/health").await.ok();
    assert_eq!(health["status"], "degraded");
    let ready = client.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json()["failed"]),
        (503, &json!(["database"]))
    );
    let click = json!({"event_id": "1", "user_id": "u", "experiment_id": "e"});
    client
        .track("click", click)
        .await
        .problem(503, "unavailable");
}

/// A file of definitions lets a replica serve what needs no table: pinned units, known names. When the database is back
/// the replica joins in by itself, with what has changed meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_database_serves_the_file() {
    let mut postgres = OwnPostgres::start();
    let database = TestDatabase::on(postgres.url()).await;
    let url = database.url().to_owned();
    let file: PathBuf =
        std::env::temp_dir().join(format!("podium-it-snapshot-{}.json", std::process::id()));
    let file_name = file.to_str().unwrap().to_owned();
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("PODIUM_SNAPSHOT_FILE", file_name.as_str()),
    ];
    let app = TestApp::setup()
        .variable("PODIUM_SNAPSHOT_FILE", &file_name)
        .database(database)
        .start()
        .await;
    let experiment = app.experiment("e").running().await;
    let pin = format!(
        "INSERT INTO experiment_overrides (experiment_id, unit, variant_id) VALUES ({}, 'pinned', {})",
        experiment.id,
        experiment.variant("b")
    );
    app.change(&pin).await;
    let told = app.variant_of("e", "u").await;

    postgres.crash();
    let process = ApiProcess::start(PROGRAM, &variables).await;
    is_degraded(&process).await;
    let ask = |user: &str| json!({"experiment": "e", "user_id": user});
    let pinned = process.assign(ask("pinned")).await;
    assert_eq!(
        (&pinned["variant"], &pinned["reason"], &pinned["degraded"]),
        (&json!("b"), &json!("OVERRIDE"), &json!(true))
    );
    let unknown = process.assign(ask("u")).await;
    assert_eq!(
        (&unknown["variant"], &unknown["degraded"]),
        (&json!("default"), &json!(true))
    );
    let missing = json!({"experiment": "missing", "user_id": "u"});
    let assign = "/api/v1/experiments/assign";
    process
        .post(assign, &missing)
        .await
        .problem(404, "not_found");

    postgres.revive();
    becomes_ready(&process).await;
    eventually("the unit has its variant again", async || {
        process.assign(ask("u")).await["variant"] == told.as_str()
    })
    .await;
    let archive = format!(
        "UPDATE experiments SET status = 'paused' WHERE id = {}",
        experiment.id
    );
    app.database().execute(&archive).await;
    eventually("the replica hears of changes", async || {
        process.assign(ask("pinned")).await["variant"] == "default"
    })
    .await;
    std::fs::remove_file(file).unwrap();
}

/// Without a file the replica knows nothing and says so; when the database comes it brings the schema up to date first.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_anything_catches_up() {
    let mut postgres = OwnPostgres::start();
    let url = postgres.url();
    postgres.crash();
    let process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", &url)]).await;
    is_degraded(&process).await;
    let answer = process.assign(json!({"user_id": "u"})).await;
    assert_eq!(answer["variant"], "default");
    postgres.revive();
    becomes_ready(&process).await;
    let answer = process.assign(json!({"user_id": "u"})).await;
    assert_eq!(answer.get("degraded"), None);
}

/// Whether there are people, and who is disabled, stands in a table that was not read: then nobody is let in, the one neither
/// who may do everything while there are no people. It is no matter of the token, so the answer is to try again.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_anything_lets_nobody_in() {
    // Whoever is let in hears that there is no such path, without a question to the database.
    const NOWHERE: &str = "/api/v1/admin/nowhere";
    let mut postgres = OwnPostgres::start();
    let database = TestDatabase::on(postgres.url()).await;
    database
        .execute("INSERT INTO podium_users (id, role, disabled) VALUES ('1', 'admin', true)")
        .await;
    postgres.crash();
    let variables = [
        ("DATABASE_URL", database.url()),
        ("JWT_TRUST_ROLES", "true"),
        ("PUBLIC_API_KEYS_REQUIRED", "true"),
    ];
    let process = ApiProcess::start(PROGRAM, &variables).await;
    let mut claims = token::claims("1");
    claims["role"] = json!("admin");
    let trusted = token::signed(&claims, Algorithm::HS256, SECRET);
    let trusted = process.with_token(&trusted);
    for client in [&process.client(), &trusted] {
        let answer = client.admin(Method::GET, NOWHERE, None).await;
        answer.problem(503, "unavailable");
    }
    let stranger = process.with_token("nonsense");
    let answer = stranger.admin(Method::GET, NOWHERE, None).await;
    answer.problem(401, "unauthorized");
    for (method, path) in [
        (Method::GET, NOWHERE),
        (Method::POST, "/api/v1/experiments/assign"),
    ] {
        let key = format!("podium_admin_0102030405ff_{}", "07".repeat(32));
        let by_key = process.request(method, path).header("x-api-key", key);
        Answer::of(by_key).await.problem(503, "unavailable");
    }
    postgres.revive();
    eventually("people are known", async || {
        let status = process.admin(Method::GET, NOWHERE, None).await.status;
        assert!(matches!(status, 401 | 503), "{status}");
        status == 401
    })
    .await;
}

/// Others hold every connection that the server has.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_free_connection_waits_for_one() {
    let postgres = OwnPostgres::start();
    let url = postgres.url();
    let mut held = Vec::new();
    while let Ok((client, connection)) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await
    {
        held.push((client, tokio::spawn(connection)));
        assert!(held.len() < 1_000, "the server has no bound");
    }
    let process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", &url)]).await;
    is_degraded(&process).await;
    drop(held);
    becomes_ready(&process).await;
}
