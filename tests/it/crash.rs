//! The program is killed under load: nothing acknowledged is lost, nothing counts twice, nobody flips.

use podium_storage::rebuild::rebuild;
use podium_tests::load::Plan;
use podium_tests::{ApiProcess, Rng, TestApp, eventually, scaled};

use crate::PROGRAM;

/// Ten kills at random moments in 8,000 events over 32 connections (at full size 50 in 100,000); what was not acknowledged is repeated under its id.
#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_loses_nothing() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let variables = [("DATABASE_URL", app.database().url())];
    let mut rng = Rng::printed();
    let mut process = ApiProcess::start(PROGRAM, &variables).await;
    let mut load = Plan {
        events: scaled(8_000, 100_000),
        connections: 32,
        users: 500,
    }
    .start(&experiment, vec![process.client()]);
    for moment in load.moments(scaled(10, 50), &mut rng) {
        load.reaches(moment).await;
        process.kill();
        process = ApiProcess::start(PROGRAM, &variables).await;
        load.aim_at(vec![process.client()]);
    }
    load.finish().await;
    app.fold().await;
    load.verify(app.database()).await;
}

/// Two replicas on one database, under load on both: one is killed, the other goes on.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_may_die() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let variables = [("DATABASE_URL", app.database().url())];
    let mut rng = Rng::printed();
    let mut dies = ApiProcess::start(PROGRAM, &variables).await;
    let stays = ApiProcess::start(PROGRAM, &variables).await;
    let targets = vec![dies.client(), stays.client()];
    let mut load = Plan {
        events: 4_000,
        connections: 32,
        users: 300,
    }
    .start(&experiment, targets);
    for moment in load.moments(2, &mut rng) {
        load.reaches(moment).await;
        dies.kill();
        dies = ApiProcess::start(PROGRAM, &variables).await;
        load.aim_at(vec![dies.client(), stays.client()]);
    }
    load.finish().await;
    app.fold().await;
    load.verify(app.database()).await;
}

/// The same with variants as arms: what is learned is what happened, however often the process that learns is killed.
#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_teaches_nothing_twice() {
    const USERS: usize = 400;
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    app.change(
        "UPDATE experiments SET experiment_type = 'bandit', primary_metric = 'click_through_rate'",
    )
    .await;
    let variables = [("DATABASE_URL", app.database().url())];
    let mut rng = Rng::printed();
    let mut process = ApiProcess::start(PROGRAM, &variables).await;
    let mut load = Plan {
        events: 4 * USERS,
        connections: 16,
        users: USERS,
    }
    .start(&experiment, vec![process.client()]);
    for moment in load.moments(6, &mut rng) {
        load.reaches(moment).await;
        process.kill();
        process = ApiProcess::start(PROGRAM, &variables).await;
        load.aim_at(vec![process.client()]);
    }
    load.finish().await;
    app.fold().await;
    load.verify(app.database()).await;
    // Every user saw and clicked once.
    let learned = "SELECT sum(total_pulls)::bigint, sum(total_reward)::bigint FROM bandit_arms";
    let users = USERS.to_string();
    eventually("arms have caught up", async || {
        app.fold().await;
        app.database().rows(learned).await == [[users.clone(), users.clone()]]
    })
    .await;
    let report = rebuild(&app.database().settings(), false).await.unwrap();
    assert_eq!(report.differences(), 0, "{report:?}");
}
