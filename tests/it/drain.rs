//! The program is asked to stop.

use std::time::{Duration, Instant};

use podium_tests::load::Plan;
use podium_tests::raw::{Connection, post_head};
use podium_tests::{ApiProcess, Rng, TestApp, eventually, scaled};
use serde_json::json;
use tokio::net::TcpStream;

use crate::PROGRAM;

/// Waits until the process takes no more connections.
async fn stops_accepting(process: &ApiProcess) {
    let address = process.address().to_owned();
    eventually("the process takes no more connections", async || {
        TcpStream::connect(&address).await.is_err()
    })
    .await;
}

/// Sessions of this database that wait for a lock.
async fn waiting(app: &TestApp) -> i64 {
    let sql = "SELECT count(DISTINCT pid) FROM pg_locks
               WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    app.database().number(sql).await
}

async fn send_click(process: &ApiProcess, id: &str) -> Connection {
    let body = json!({"event_id": id, "user_id": "u", "experiment_id": "e"}).to_string();
    let head = post_head(
        "/api/v1/experiments/track-click",
        &format!("Content-Length: {}\r\n", body.len()),
    );
    let mut connection = Connection::open(process.address()).await;
    connection.send(format!("{head}{body}").as_bytes()).await;
    connection
}

/// Under load a stop ends with 0 and loses nothing, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_nothing() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let variables = [("DATABASE_URL", app.database().url())];
    let mut rng = Rng::printed();
    let mut process = ApiProcess::start(PROGRAM, &variables).await;
    let mut load = Plan {
        events: scaled(3_000, 40_000),
        connections: 16,
        users: 200,
    }
    .start(&experiment, vec![process.client()]);
    let mut slowest = Duration::ZERO;
    for moment in load.moments(scaled(3, 20), &mut rng) {
        load.reaches(moment).await;
        let begin = Instant::now();
        process.terminate();
        let next = ApiProcess::start(PROGRAM, &variables).await;
        load.aim_at(vec![next.client()]);
        assert_eq!(process.ended().await.code(), Some(0));
        slowest = slowest.max(begin.elapsed());
        process = next;
    }
    println!("a stop, and the start of the next process, in at most {slowest:?}");
    load.finish().await;
    app.fold().await;
    load.verify(app.database()).await;
}

/// Requests that were under way when the signal came are answered.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    let mut process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", app.database().url())]).await;
    process.variant_of("e", "u").await;
    let blocker = app.database().connect().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE experiment_event_keys IN SHARE MODE")
        .await
        .unwrap();
    // Two groups wait in the database, one for each writer; the rest waits in the queue.
    let mut requests = Vec::new();
    for n in 0..2 {
        requests.push(send_click(&process, &format!("{n}")).await);
        eventually("a writer waits", async || waiting(&app).await > n).await;
    }
    for n in 2..20 {
        requests.push(send_click(&process, &format!("{n}")).await);
    }
    eventually("all requests are under way", async || {
        process.get("/api/v1/health").await.ok()["queues"]["events"]
            .as_i64()
            .unwrap()
            >= 18
            || waiting(&app).await == 0
    })
    .await;
    process.terminate();
    stops_accepting(&process).await;
    blocker.batch_execute("COMMIT").await.unwrap();
    let mut acknowledged = 0;
    for (n, request) in requests.iter_mut().enumerate() {
        let answer = request
            .answer()
            .await
            .unwrap_or_else(|| panic!("request {n} was not answered"));
        // A machine that stood still for a second has let the lock run out, which is an answer, too.
        assert!(
            matches!(answer.status, 200 | 503),
            "{} {}",
            answer.status,
            answer.text()
        );
        acknowledged += i64::from(answer.status == 200);
    }
    assert_eq!(process.ended().await.code(), Some(0));
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_events")
            .await,
        acknowledged
    );
}

/// Who asks twice does not want to wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.variant_of("e", "u").await;
    let mut process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", app.database().url())]).await;
    // A request whose body never ends keeps the first stop waiting.
    let head = post_head("/api/v1/experiments/track-click", "Content-Length: 100\r\n");
    let mut slow = Connection::open(process.address()).await;
    slow.send(format!("{head}{{").as_bytes()).await;
    process.get("/livez").await;
    process.terminate();
    stops_accepting(&process).await;
    assert!(process.is_alive(), "it waits for the request in flight");
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(1));
}
