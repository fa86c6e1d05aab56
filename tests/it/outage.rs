//! The database goes away, or stands still, and comes back.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use podium_tests::load::Plan;
use podium_tests::{
    ApiProcess, Client, OwnPostgres, Rng, TestApp, TestDatabase, eventually, scaled,
};
use serde_json::{Value, json};

use crate::PROGRAM;

const BULK: &str = "/api/v1/experiments/assign/bulk";

/// An application on a server of its own.
async fn scene() -> (OwnPostgres, TestApp) {
    let postgres = OwnPostgres::start();
    let database = TestDatabase::on(postgres.url()).await;
    let app = TestApp::setup()
        .variable("ASSIGN_WAIT_MS", "500")
        .database(database)
        .start()
        .await;
    (postgres, app)
}

fn degraded(mut answer: Value) -> Value {
    answer["degraded"] = json!(true);
    answer
}

fn default_answer() -> Value {
    json!({"experiment_id": null, "variant": "default", "params": {}, "reason": "DEFAULT"})
}

async fn click(client: &Client, id: &str) -> podium_tests::Answer {
    client
        .track(
            "click",
            json!({"event_id": id, "user_id": "user-0", "experiment_id": "e"}),
        )
        .await
}

/// Without a database known units keep their variant, everybody else gets the default answer, both marked; events are
/// refused with a request to try again. Afterwards everything is as before.
#[tokio::test(flavor = "multi_thread")]
async fn the_storefront_goes_on_without_a_database() {
    let (mut postgres, app) = scene().await;
    let experiment = app.experiment("e").running().await;
    let session = experiment.units_of(Some("b"), 1).remove(0);
    let user = experiment.units_of(Some("control"), 1).remove(0);
    let ask = |user: &str| json!({"experiment": "e", "user_id": user});
    let mut known = Vec::new();
    for n in 0..20 {
        let user = format!("user-{n}");
        known.push((user.clone(), app.assign(ask(&user)).await));
    }
    app.assign(json!({"experiment": "e", "session_id": session}))
        .await;

    postgres.crash();
    // From the first moment on, before anything has noticed.
    for (user, answer) in &known {
        let now = app.assign(ask(user)).await;
        assert!(now == *answer || now == degraded(answer.clone()), "{now}");
    }
    // The crashed server's sessions may live for a moment, so that this one may have been written.
    app.assign(ask("an early stranger")).await;
    app.sees_database(false).await;
    for (user, answer) in &known {
        assert_eq!(app.assign(ask(user)).await, degraded(answer.clone()));
    }
    assert_eq!(
        app.assign(ask("another stranger")).await,
        degraded(default_answer())
    );
    let login = json!({"experiment": "e", "user_id": user, "session_id": session});
    let at_login = app.assign(login.clone()).await;
    assert_eq!(
        (&at_login["variant"], &at_login["degraded"]),
        (&json!("b"), &json!(true))
    );
    let many = app
        .post(
            BULK,
            &json!({"experiment": "e", "user_ids": ["user-0", "a stranger"]}),
        )
        .await
        .ok();
    assert_eq!(
        (
            &many["assignments"][0]["variant"],
            &many["assignments"][1]["variant"]
        ),
        (&known[0].1["variant"], &json!("default"))
    );
    assert!(
        many["assignments"]
            .as_array()
            .unwrap()
            .iter()
            .all(|assignment| assignment["degraded"] == true),
        "{many}"
    );
    let stranger = app.post(BULK, &json!({"user_id": "a stranger"})).await;
    assert_eq!(
        stranger.ok(),
        json!({"assignments": [], "degraded": true}),
        "not the same as taking part in nothing"
    );
    app.post(
        "/api/v1/experiments/assign",
        &json!({"experiment": "none", "user_id": "u"}),
    )
    .await
    .problem(404, "not_found");
    assert_refused(&app).await;

    postgres.revive();
    app.sees_database(true).await;
    for (user, answer) in &known {
        assert_eq!(&app.assign(ask(user)).await, answer, "nobody flipped");
    }
    assert_eq!(
        app.assign(login).await["variant"],
        "b",
        "the login is made up for"
    );
    assert_eq!(click(&app, "x").await.ok()["duplicate"], false);
    assert_eq!(app.get("/readyz").await.status, 200);
}

async fn assert_refused(app: &TestApp) {
    for (path, body) in [
        (
            "track-click",
            json!({"event_id": "x", "user_id": "user-0", "experiment_id": "e"}),
        ),
        ("track-click", json!({"event_id": "x", "user_id": "nobody"})),
        (
            "track",
            json!({"events": [{"event_type": "click", "user_id": "user-0", "experiment_id": "e"}]}),
        ),
    ] {
        let answer = app
            .post(&format!("/api/v1/experiments/{path}"), &body)
            .await;
        answer.problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(app.get("/livez").await.status, 200);
    let health = app.get("/api/v1/health").await.ok();
    assert_eq!(
        (&health["status"], &health["database"]),
        (&json!("degraded"), &json!("down"))
    );
    let ready = app.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json()["failed"]),
        (503, &json!(["database"]))
    );
}

/// A server that stands still: every request ends, known units keep their variant, and when the server moves again nothing
/// that was acknowledged is missing and nothing counts twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_database_holds_nobody_up() {
    let (mut postgres, app) = scene().await;
    let experiment = app.experiment("e").running().await;
    app.experiment("strangers").running().await;
    let mut rng = Rng::printed();
    let mut load = Plan {
        events: 3_000,
        connections: 16,
        users: 100,
    }
    .start(&experiment, vec![app.clone()]);
    let moment = load.moments(1, &mut rng)[0];
    load.reaches(moment).await;
    let known = app.variant_of("e", "u0").await;

    postgres.freeze();
    let refused = load.refused();
    for n in 0..10 {
        let answer = click(&app, &format!("frozen {n}")).await;
        if answer.status != 422 {
            answer.problem(503, "unavailable");
            assert!(!answer.header("retry-after").is_empty());
        }
        let answer = app
            .assign(json!({"experiment": "e", "user_id": "u0"}))
            .await;
        assert_eq!(answer["variant"], known.as_str(), "{answer}");
        let stranger = app
            .assign(json!({"experiment": "strangers", "user_id": n}))
            .await;
        assert_eq!(
            (&stranger["variant"], &stranger["degraded"]),
            (&json!("default"), &json!(true))
        );
    }
    eventually("every connection of the load was answered", async || {
        load.refused() >= refused + 16
    })
    .await;
    app.sees_database(false).await;

    postgres.thaw();
    load.finish().await;
    app.fold().await;
    load.verify(app.database()).await;
}

/// While a server stands still requests end one after the other and leave nothing behind: memory does not grow with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_database_costs_no_memory() {
    let (mut postgres, app) = scene().await;
    app.experiment("e").running().await;
    let process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", app.database().url())]).await;
    process.variant_of("e", "u").await;
    let before = process.peak_memory_mib();
    postgres.freeze();
    let until = Instant::now() + Duration::from_secs(scaled(4, 30).try_into().unwrap());
    let clients = (0..64).map(async |client| {
        let (mut done, mut slowest) = (0, Duration::ZERO);
        while Instant::now() < until {
            let begin = Instant::now();
            let event = json!({"user_id": "u", "experiment_id": "e"});
            let refused = process.track("click", event).await;
            refused.problem(503, "unavailable");
            let new = json!({"experiment": "e", "user_id": format!("{client}-{done}")});
            assert_eq!(process.assign(new).await["degraded"], true);
            slowest = slowest.max(begin.elapsed());
            done += 2;
        }
        (done, slowest)
    });
    let answered = join_all(clients).await;
    let growth = process.peak_memory_mib() - before;
    println!(
        "{} answers from a frozen database, two of them in at most {:?}, {growth} MiB more than {before} MiB",
        answered.iter().map(|(done, _)| done).sum::<i32>(),
        answered.iter().map(|(_, slowest)| slowest).max().unwrap(),
    );
    assert!(growth < 64, "{growth} MiB");
    postgres.thaw();
    eventually("events are taken again", async || {
        let event = json!({"user_id": "u", "experiment_id": "e"});
        process.track("click", event).await.status == 200
    })
    .await;
}

/// The server crashes again and again under load: the program lives on, and nothing acknowledged is lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_may_crash_under_load() {
    let (mut postgres, app) = scene().await;
    let experiment = app.experiment("e").running().await;
    let mut rng = Rng::printed();
    let mut load = Plan {
        events: 4_000,
        connections: 32,
        users: 300,
    }
    .start(&experiment, vec![app.clone()]);
    for moment in load.moments(3, &mut rng) {
        load.reaches(moment).await;
        postgres.crash_and_restart();
    }
    load.finish().await;
    app.fold().await;
    load.verify(app.database()).await;
}
