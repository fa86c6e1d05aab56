//! The weights that every process keeps in memory: which state of learning they say they are of, and whose failure is whose.

use podium_tests::{Client, TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// An experiment of this name that ranks two arms of its own for the unit `u`.
async fn ranking(app: &TestApp, name: &str) {
    let experiment = app
        .experiment(name)
        .variants(&[("all", "1")])
        .running()
        .await;
    let id = experiment.id;
    app.change(&format!(
        "UPDATE experiment_variants SET config = '{{\"itemOrdering\": \"bandit\"}}' WHERE experiment_id = {id}"
    ))
    .await;
    app.variant_of(name, "u").await;
    rank(app, name).await;
}

async fn rank(app: &Client, name: &str) -> Value {
    let ids = ["good", "bad"].map(|arm| json!({"id": format!("{name} {arm}")}));
    let body = json!({"experiment": name, "user_id": "u", "candidates": ids});
    app.post("/api/v1/experiments/rank", &body).await.ok()
}

/// The weight of the better arm, among the two.
fn better(answer: &Value, name: &str) -> f64 {
    let candidates = answer["candidates"].as_array().unwrap();
    let good = candidates
        .iter()
        .find(|c| c["id"] == format!("{name} good"));
    good.unwrap()["propensity"].as_f64().unwrap()
}

/// Ranks until the better arm has more than this weight; the version of what was chosen from.
async fn version_above(app: &TestApp, replica: &Client, weight: f64) -> i64 {
    let mut decision = Value::Null;
    eventually("what was taught is in force", async || {
        let answer = rank(replica, "order").await;
        decision = answer["decision_id"].clone();
        better(&answer, "order") > weight
    })
    .await;
    let id = decision.as_str().unwrap();
    let stored =
        format!("SELECT count(snapshot_version) FROM bandit_decisions WHERE decision_id = '{id}'");
    eventually("the decision is stored", async || {
        app.database().number(&stored).await == 1
    })
    .await;
    let version =
        format!("SELECT snapshot_version FROM bandit_decisions WHERE decision_id = '{id}'");
    app.database().number(&version).await
}

/// Whoever reads decisions of several replicas, and of before and after a restart, can tell which knew more.
#[tokio::test(flavor = "multi_thread")]
async fn versions_compare_over_replicas_and_restarts() {
    let mut app = TestApp::start().await;
    ranking(&app, "order").await;
    let mut before = 0;
    for (successes, weight) in [(30, 0.5), (60, 0.9), (90, 0.97)] {
        app.teach("order good", 200, successes).await;
        app.teach("order bad", 200, 20).await;
        let version = version_above(&app, &app, weight).await;
        assert!(version >= before, "{version} after {before}");
        before = version;
    }
    app.fold().await;
    let other = app.replica().await;
    let there = version_above(&app, &other, 0.97).await;
    assert!(
        there >= before,
        "{there} on another replica, {before} before"
    );
    drop(other);
    app.restart().await;
    let again = version_above(&app, &app, 0.97).await;
    assert!(again >= there, "{again} after a restart, {there} before");
    let position = "SELECT watermark FROM fold_state";
    assert!(again <= app.database().number(position).await);
}

/// What others' code has made of one experiment keeps its old weights, and all others learn on.
#[tokio::test(flavor = "multi_thread")]
async fn an_experiment_that_cannot_be_read_holds_up_no_other() {
    let app = TestApp::start().await;
    for name in ["a", "broken", "z"] {
        ranking(&app, name).await;
    }
    app.teach("broken good", 200, 100).await;
    app.teach("broken bad", 200, 10).await;
    eventually("it has weights", async || {
        better(&rank(&app, "broken").await, "broken") > 0.9
    })
    .await;
    app.database()
        .execute(
            "INSERT INTO bandit_arm_hours (arm_row_id, bucket, experiment_id, pending)
             SELECT id, date_trunc('hour', now()), experiment_id, -1 FROM bandit_arms WHERE arm_id = 'broken good';
             UPDATE bandit_arms SET updated_at = now(), total_pulls = 9223372036854775807 WHERE arm_id LIKE 'broken%'",
        )
        .await;
    for name in ["a", "z"] {
        app.teach(&format!("{name} good"), 200, 100).await;
        app.teach(&format!("{name} bad"), 200, 10).await;
    }
    for name in ["a", "z"] {
        eventually("the others learn", async || {
            better(&rank(&app, name).await, name) > 0.9
        })
        .await;
    }
    assert!(
        better(&rank(&app, "broken").await, "broken") > 0.9,
        "old weights stay in force"
    );
    // It is mended, and learns again.
    app.database()
        .execute(
            "DELETE FROM bandit_arm_hours WHERE pending < 0;
             UPDATE bandit_arms SET updated_at = now(), total_pulls = 200 WHERE arm_id LIKE 'broken%'",
        )
        .await;
    app.teach("broken bad", 400, 390).await;
    eventually("it learns again", async || {
        better(&rank(&app, "broken").await, "broken") < 0.5
    })
    .await;
    let path = "/api/v1/admin/experiments/broken/bandit-arms";
    assert_eq!(app.admin(Method::GET, path, None).await.status, 200);
}

/// Reading the arms of one experiment takes longer than anybody waits. It keeps its weights, and all others learn on.
#[tokio::test(flavor = "multi_thread")]
async fn an_experiment_that_is_slow_to_read_holds_up_no_other() {
    let app = TestApp::start().await;
    for name in ["a", "slow", "z"] {
        ranking(&app, name).await;
    }
    // Both at once, or weights of a moment at which one of them had a pull could stay.
    app.database()
        .execute(
            "SELECT update_bandit_arm_performance(id, 0, false) FROM bandit_arms WHERE arm_id LIKE 'slow%';
             ALTER TABLE bandit_arm_updates RENAME TO reported;
             CREATE FUNCTION told(arm bigint) RETURNS boolean LANGUAGE plpgsql COST 100000 AS 'BEGIN
                 IF EXISTS (SELECT FROM bandit_arms WHERE id = arm AND arm_id LIKE ''slow%'') THEN PERFORM pg_sleep(600); END IF;
                 RETURN true; END';
             CREATE VIEW bandit_arm_updates AS SELECT * FROM reported WHERE told(arm_row_id)",
        )
        .await;
    // Again and again, also after the slow one was waited for.
    for (pulls, successes, is_better) in [(200, 10, true), (400, 390, false)] {
        for name in ["a", "z"] {
            app.teach(&format!("{name} good"), 200, 100).await;
            app.teach(&format!("{name} bad"), pulls, successes).await;
        }
        for name in ["a", "z"] {
            eventually("the others learn", async || {
                (better(&rank(&app, name).await, name) > 0.5) == is_better
            })
            .await;
        }
    }
    assert!((better(&rank(&app, "slow").await, "slow") - 0.5).abs() < 1e-9);
}
