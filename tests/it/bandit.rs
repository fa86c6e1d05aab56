//! Variants as arms: weights that follow what is learned, and everything that must stand still meanwhile.

use std::collections::BTreeMap;

use podium_storage::bandit::weights;
use podium_tests::{Rng, TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const EXPERIMENTS: &str = "/api/v1/admin/experiments";

/// A running bandit over `control` and `b`, made through the API.
async fn bandit(app: &TestApp, options: Value) -> i64 {
    let body = json!({
        "name": "homepage", "experimentType": "bandit", "primaryMetric": "click_through_rate",
        "config": {"banditOptions": options},
    });
    let made = app.admin(Method::POST, EXPERIMENTS, Some(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.data()["id"].as_i64().unwrap();
    for (name, is_control) in [("control", true), ("b", false)] {
        let variant = json!({"name": name, "isControl": is_control});
        let path = format!("{EXPERIMENTS}/{id}/variants");
        let made = app.admin(Method::POST, &path, Some(&variant)).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let path = format!("{EXPERIMENTS}/{id}/start");
    app.admin(Method::POST, &path, None).await.ok();
    // The leader opens the first adaptive epoch by itself.
    eventually("the bandit has weights", async || epoch(app).await == 2).await;
    app.hears_of_changes().await;
    id
}

async fn epoch(app: &TestApp) -> i64 {
    app.database().number("SELECT epoch FROM experiments").await
}

fn users(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("user-{n}")).collect()
}

/// The variants of users, by name, with whole answers.
async fn assign(app: &TestApp, users: &[String]) -> Vec<Value> {
    let body = json!({"experiment": "homepage", "user_ids": users});
    let answer = app.post("/api/v1/experiments/assign/bulk", &body).await;
    answer.ok()["assignments"].as_array().unwrap().clone()
}

fn impression(user: &Value, id: &Value) -> Value {
    json!({"event_type": "impression", "event_id": format!("i-{}", user.as_str().unwrap()), "user_id": user, "experiment_id": id})
}

/// Shows every user the variant and lets some click: of `b` two in five, of the control one in ten.
async fn shop(app: &TestApp, answers: &[Value], rng: &mut Rng) -> Vec<Value> {
    let mut events = Vec::new();
    for answer in answers {
        let (user, id) = (&answer["user_id"], &answer["experiment"]);
        events.push(impression(user, id));
        let clicks = if answer["variant"] == "b" { 4 } else { 1 };
        if rng.below(10) < clicks {
            let mut click = impression(user, id);
            click["event_type"] = "click".into();
            click["event_id"] = format!("c-{}", user.as_str().unwrap()).into();
            events.push(click);
        }
    }
    app.track_all(&events).await;
    events
}

/// Folds, and waits until the rows of arms have caught up, whoever folded.
async fn learn(app: &TestApp) {
    app.fold().await;
    eventually("arms have caught up", async || {
        app.database()
            .number("SELECT count(*) FROM bandit_stale_arms")
            .await
            == 0
    })
    .await;
}

/// Lets the pause between two updates be over, and waits for the next epoch.
async fn next_weights(app: &TestApp) {
    let before = epoch(app).await;
    app.fold().await;
    let age = "UPDATE experiment_epochs SET started_at = started_at - interval '1 hour'";
    app.database().execute(age).await;
    weights::update(&app.state().database).await.unwrap();
    eventually("new weights are in force", async || {
        epoch(app).await > before
    })
    .await;
    app.hears_of_changes().await;
}

/// Weight of `b` in percent, by epoch.
async fn weights_of_b(app: &TestApp) -> BTreeMap<i64, f64> {
    let sql = "SELECT e.epoch, e.weights ->> v.id::text FROM experiment_epochs e, experiment_variants v WHERE v.name = 'b'";
    let rows = app.database().rows(sql).await;
    rows.iter()
        .map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_move_to_the_better_variant_and_nothing_else_moves() {
    let mut app = TestApp::start().await;
    let mut rng = Rng::printed();
    bandit(&app, json!({"attributionMinutes": 1, "updateMinutes": 1})).await;
    let first = assign(&app, &users(0, 600)).await;
    shop(&app, &first, &mut rng).await;
    next_weights(&app).await;
    // Another process begins with an empty memory.
    app.restart().await;
    for round in 1..4 {
        let more = assign(&app, &users(600 * round, 600 * (round + 1))).await;
        shop(&app, &more, &mut rng).await;
    }
    let weights = weights_of_b(&app).await;
    assert!(
        (weights[&2] - 50.0).abs() < f64::EPSILON,
        "nothing was known: {weights:?}"
    );
    assert!(weights[&epoch(&app).await] > 90.0, "{weights:?}");
    let sums = "SELECT count(*) FROM experiment_epochs e WHERE adaptive_of = 1
        AND (SELECT sum(w.value::numeric) FROM jsonb_each_text(e.weights) w) <> 100";
    assert_eq!(app.database().number(sums).await, 0);

    // Whoever has a variant keeps it, and equal calls get equal answers.
    assert_eq!(assign(&app, &users(0, 600)).await, first);
    assert!(first.iter().all(|answer| answer["reason"] == "BANDIT"));

    // Every unit belongs to an epoch, and its propensity is that of its variant there.
    let wrong = "SELECT count(*) FROM user_experiment_assignments a
        JOIN experiment_epochs e ON e.experiment_id = a.experiment_id AND e.epoch = a.epoch
        WHERE abs(a.propensity - (e.weights ->> a.variant_id::text)::float8
            / (SELECT sum(w.value::float8) FROM jsonb_each_text(e.weights) w)) > 1e-12 OR a.propensity IS NULL";
    assert_eq!(app.database().number(wrong).await, 0);
    // The share that is split evenly: 10 % within four standard errors, in one epoch whose split stands still.
    let even = app
        .database()
        .number("SELECT count(*) FROM user_experiment_assignments WHERE epoch = 1")
        .await;
    assert!(
        (190..=290).contains(&even),
        "{even} of 2400 in the even share"
    );
    let of_b = "SELECT count(*) FROM user_experiment_assignments a JOIN experiment_variants v ON v.id = a.variant_id
        WHERE a.epoch = 1 AND v.name = 'b'";
    let of_b = app.database().number(of_b).await;
    assert!(
        (even / 2 - 32..=even / 2 + 32).contains(&of_b),
        "{of_b} of {even}"
    );
    // A person's ETag still holds: nobody but the bandit has changed anything.
    let version = app
        .database()
        .number("SELECT version FROM experiments")
        .await;
    assert_eq!(version, 4, "made, two variants, started");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_draw_by_the_same_weights() {
    let (app, mut rng) = (TestApp::start().await, Rng::printed());
    bandit(&app, json!({"attributionMinutes": 1, "updateMinutes": 1})).await;
    let other = app.replica().await;
    shop(&app, &assign(&app, &users(0, 400)).await, &mut rng).await;
    next_weights(&app).await;
    other.hears_of_changes().await;
    let there = assign(&other, &users(400, 700)).await;
    assert_eq!(assign(&app, &users(400, 700)).await, there);
    let stale = format!(
        "SELECT count(*) FROM user_experiment_assignments WHERE epoch NOT IN (1, {}) AND user_id >= 'user-4' AND length(user_id) = 8",
        epoch(&app).await
    );
    let newer = "AND substr(user_id, 6)::integer >= 400";
    assert_eq!(app.database().number(&format!("{stale} {newer}")).await, 0);
    // Both may set weights; an epoch is opened once.
    let gaps = "SELECT max(epoch) - count(*) FROM experiment_epochs";
    assert_eq!(app.database().number(gaps).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_and_repeated_events_count_once() {
    let (app, mut rng) = (TestApp::start().await, Rng::printed());
    let id = bandit(&app, json!({})).await;
    let answers = assign(&app, &users(0, 200)).await;
    let events = shop(&app, &answers, &mut rng).await;
    learn(&app).await;
    let arms = "SELECT string_agg(concat_ws(' ', alpha, beta, total_pulls, total_reward, average_reward), ', ' ORDER BY arm_id) FROM bandit_arms";
    let before = app.database().text(arms).await;
    app.track_all(&events).await;
    learn(&app).await;
    assert_eq!(app.database().text(arms).await, before);

    // All windows pass: what had no click is a failure. Then a click comes, reported late.
    let past = "UPDATE bandit_pulls SET due_at = now() WHERE outcome = 0";
    app.database().execute(past).await;
    learn(&app).await;
    let pulls = "SELECT sum(total_pulls)::bigint FROM bandit_arms";
    eventually("all outcomes are known", async || {
        learn(&app).await;
        app.database().number(pulls).await == 200
    })
    .await;
    let successes = "SELECT sum(alpha - 1)::bigint FROM bandit_arms";
    let known = app.database().number(successes).await;
    let clicked: Vec<&Value> = events
        .iter()
        .filter(|e| e["event_type"] == "click")
        .collect();
    assert_eq!(known, i64::try_from(clicked.len()).unwrap());
    let silent = answers.iter().find(|answer| {
        clicked
            .iter()
            .all(|click| click["user_id"] != answer["user_id"])
    });
    let user = &silent.unwrap()["user_id"];
    let decided = json!({"event_type": "click", "user_id": user, "experiment_id": id});
    let due = "UPDATE bandit_pulls SET due_at = now() + interval '1 minute'";
    app.database().execute(due).await;
    app.track_all(&[decided.clone(), decided]).await;
    learn(&app).await;
    assert_eq!(app.database().number(successes).await, known + 1);
    assert_eq!(app.database().number(pulls).await, 200);
    // Arms and variants show the same numbers.
    let differing = "SELECT count(*) FROM bandit_arms a JOIN experiment_variants v ON v.id::text = a.arm_id
        WHERE (a.total_pulls, a.total_reward, a.average_reward) <> (v.pulls, v.rewards, v.average_reward) OR v.confidence_bound IS NULL";
    assert_eq!(app.database().number(differing).await, 0);
}

async fn estimates(app: &TestApp) -> Value {
    let path = format!("{EXPERIMENTS}/homepage/report");
    let report = app.admin(Method::GET, &path, None).await.data();
    report["bandit"]["arms"].clone()
}

/// Whose variant the client named, and who came second to a session, has no propensity: he teaches the bandit and is in all plain
/// figures, but what is weighted by propensities knows nothing of him.
#[tokio::test(flavor = "multi_thread")]
async fn units_that_the_bandit_did_not_draw_do_not_move_its_estimates() {
    let (app, mut rng) = (TestApp::start().await, Rng::printed());
    let id = bandit(&app, json!({})).await;
    let visitor =
        |user: &str| json!({"experiment": "homepage", "user_id": user, "session_id": "shared"});
    app.assign(json!({"experiment": "homepage", "session_id": "shared"}))
        .await;
    app.assign(visitor("first")).await;
    shop(&app, &assign(&app, &users(0, 400)).await, &mut rng).await;
    app.fold().await;
    let before = estimates(&app).await;
    let drawn: i64 = (0..2).filter_map(|arm| before[arm]["units"].as_i64()).sum();
    assert_eq!(drawn, 401, "{before}");
    assert!(before[1]["difference"].is_number(), "{before}");

    let second = app.assign(visitor("second")).await;
    let mut events = Vec::new();
    for kind in ["impression", "click"] {
        events.push(json!({"event_type": kind, "user_id": "second", "experiment_id": id}));
    }
    let variant = "SELECT id FROM experiment_variants WHERE NOT is_control";
    let variant = app.database().number(variant).await;
    for stranger in 0..300 {
        let user = format!("stranger-{stranger}");
        let of = |kind: &str| json!({"event_type": kind, "user_id": user, "experiment_id": id, "variant_id": variant});
        events.extend(["impression", "click"].map(of));
    }
    app.track_all(&events).await;
    app.fold().await;
    let undrawn = "SELECT count(*) FROM user_experiment_assignments WHERE propensity IS NULL";
    assert_eq!(app.database().number(undrawn).await, 301, "{second}");
    let units = "SELECT sum(units)::bigint FROM variant_moments";
    assert_eq!(app.database().number(units).await, 401 + 301);
    assert_eq!(estimates(&app).await, before);
}

/// Whoever evaluates a bandit elsewhere needs the propensities, and finds them where assignments are.
#[tokio::test(flavor = "multi_thread")]
async fn propensities_are_told() {
    let app = TestApp::start().await;
    bandit(&app, json!({})).await;
    let answers = assign(&app, &users(0, 3)).await;
    for answer in &answers {
        let user = answer["user_id"].as_str().unwrap();
        let path = format!("{EXPERIMENTS}/homepage/assignments/{user}");
        let unit = app.admin(Method::GET, &path, None).await.data();
        assert_eq!(
            (&unit["propensity"], &unit["reason"]),
            (&json!(0.5), &json!("BANDIT")),
            "{unit}"
        );
    }
    let path = format!("{EXPERIMENTS}/homepage/export/assignments.csv");
    let csv = app.admin(Method::GET, &path, None).await.text();
    let mut lines = csv.lines();
    assert!(
        lines.next().unwrap().ends_with(",epoch,propensity"),
        "{csv}"
    );
    let lines: Vec<&str> = lines.collect();
    assert!(
        lines.len() == 3 && lines.iter().all(|line| line.ends_with(",0.5")),
        "{csv}"
    );
}

/// How rewards are counted stands once something was learned; everything else of a bandit may change.
#[tokio::test(flavor = "multi_thread")]
async fn rules_of_learning_stand() {
    let app = TestApp::start().await;
    let id = bandit(&app, json!({"rewards": "click", "attributionMinutes": 30})).await;
    learn(&app).await;
    let path = format!("{EXPERIMENTS}/{id}");
    for (options, names) in [
        (
            json!({"rewards": "purchase", "attributionMinutes": 30}),
            "rewards:",
        ),
        (
            json!({"rewards": "click", "attributionMinutes": 5}),
            "attributionMinutes:",
        ),
        (json!({"rewards": "purchase", "valueMax": 100}), "rewards:"),
        (
            json!({"rewards": {"click": 2}, "attributionMinutes": 60}),
            "rewards, attributionMinutes:",
        ),
    ] {
        let patch = json!({"config": {"banditOptions": options}});
        let refused = app.patch(&path, &patch).await;
        let problem = refused.problem(409, "conflict");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains(&format!("cannot change {names}")),
            "{problem}"
        );
    }
    for options in [
        json!({"floor": 0.2, "updateMinutes": 5}),
        json!({"rewards": ["click"]}),
    ] {
        let patch = json!({"config": {"banditOptions": options, "note": "x"}});
        app.patch(&path, &patch).await.ok();
    }
}

/// Without `rewards` the primary metric says what a reward is, and then stands as they do.
#[tokio::test(flavor = "multi_thread")]
async fn the_metric_that_defines_the_rewards_stands() {
    let app = TestApp::start().await;
    let id = bandit(&app, json!({"attributionMinutes": 30})).await;
    learn(&app).await;
    let path = format!("{EXPERIMENTS}/{id}");
    let patch = json!({"primaryMetric": "conversion_rate"});
    let refused = app.patch(&path, &patch).await;
    let problem = refused.problem(409, "conflict");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("cannot change rewards:"), "{problem}");
    // What was learned from goes on being a reward where the same request names it.
    let options = json!({"rewards": "click", "attributionMinutes": 30});
    let patch = json!({"primaryMetric": "conversion_rate", "config": {"banditOptions": options}});
    app.patch(&path, &patch).await.ok();
    let patch = json!({"primaryMetric": "add_to_cart_rate"});
    app.patch(&path, &patch).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_make_no_sense_are_refused() {
    let app = TestApp::start().await;
    let body = json!({"name": "x", "experimentType": "bandit", "config": {"banditOptions": {"floor": 2, "polcy": "ucb"}}});
    let refused = app.admin(Method::POST, EXPERIMENTS, Some(&body)).await;
    let problem = refused.problem(422, "validation_failed");
    let pointers: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert!(
        pointers.contains(&"/config/banditOptions/floor"),
        "{problem}"
    );
    assert!(
        pointers.contains(&"/config/banditOptions/polcy"),
        "{problem}"
    );
}
