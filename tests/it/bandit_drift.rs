//! Rankings whose rates drift over days, and whose positions get unequal attention.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use podium_api::clock::{Clock, SystemClock};
use podium_tests::{TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// A bandit over items with one variant, which has begun to learn about `a` and `b`.
async fn shop(app: &TestApp, name: &str, options: &Value) -> i64 {
    let experiment = app
        .experiment(name)
        .variants(&[("all", "1")])
        .running()
        .await;
    let id = experiment.id;
    app.change(&format!(
        "UPDATE experiments SET experiment_type = 'bandit', config = '{{\"allowClientAssignment\": true}}' WHERE id = {id};
         UPDATE experiment_variants SET config = '{}' WHERE experiment_id = {id}",
        json!({"itemOrdering": "bandit", "banditAlgorithm": "thompson", "banditOptions": options})
    ))
    .await;
    app.variant_of(name, "first").await;
    let body =
        json!({"experiment": name, "user_id": "first", "candidates": [{"id": "a"}, {"id": "b"}]});
    app.post("/api/v1/experiments/rank", &body).await.ok();
    id
}

async fn weights(app: &TestApp, name: &str) -> BTreeMap<String, f64> {
    let path = format!("/api/v1/admin/experiments/{name}/bandit-arms?armType=item");
    let arms = app.admin(Method::GET, &path, None).await.data();
    let arms = arms.as_array().unwrap().iter();
    arms.filter_map(|arm| Some((arm["armId"].as_str()?.to_owned(), arm["weight"].as_f64()?)))
        .collect()
}

/// Shoppers of one day: each sees both items, and so many of them click.
fn day(experiment: i64, at: DateTime<Utc>, clicks: [usize; 2]) -> Vec<Value> {
    let mut events = Vec::new();
    for (item, clicks) in ["a", "b"].into_iter().zip(clicks) {
        for unit in 0..200 {
            let mut event = json!({"event_type": "impression", "user_id": format!("u{unit}"), "experiment_id": experiment,
                "item_id": item, "occurred_at": at});
            events.push(event.clone());
            if unit < clicks {
                event["event_type"] = "click".into();
                events.push(event);
            }
        }
    }
    events
}

/// `a` was liked for three days, `b` is today. What forgets follows, what does not forget stays with `a`.
#[tokio::test(flavor = "multi_thread")]
async fn days_of_drift_are_followed_by_what_forgets() {
    let app = TestApp::start().await;
    let forgetting = json!({"rewards": "click", "halfLifeHours": 12, "attributionMinutes": 1});
    let names = [
        ("forgets", forgetting),
        (
            "remembers",
            json!({"rewards": "click", "attributionMinutes": 1}),
        ),
    ];
    for (name, options) in &names {
        let id = shop(&app, name, options).await;
        let variant = format!("SELECT id FROM experiment_variants WHERE experiment_id = {id}");
        let variant = app.database().number(&variant).await;
        let begin = SystemClock.now() - TimeDelta::days(4);
        // What the client says of the past counts for units that it has assigned itself.
        let admit: Vec<Value> = (0..200)
            .map(|unit| json!({"event_type": "engagement", "user_id": format!("u{unit}"), "value": 0, "experiment_id": id,
                "variant_id": variant, "occurred_at": begin}))
            .collect();
        app.track_all(&admit).await;
        for (ago, clicks) in [(3, [40, 10]), (2, [40, 10]), (1, [40, 10]), (0, [5, 40])] {
            let at = SystemClock.now() - TimeDelta::days(ago) - TimeDelta::hours(1);
            app.track_all(&day(id, at, clicks)).await;
        }
    }
    app.fold().await;
    eventually("weights follow what is remembered", async || {
        let (forgets, remembers) = (
            weights(&app, "forgets").await,
            weights(&app, "remembers").await,
        );
        forgets.get("b") > Some(&0.9) && remembers.get("a") > Some(&0.9)
    })
    .await;
    // Exact counts are the same: forgetting is a way to read them.
    let counts = "SELECT count(DISTINCT s) FROM (
        SELECT string_agg(concat_ws(' ', a.arm_id, a.total_pulls, a.alpha), ',' ORDER BY a.arm_id) AS s
        FROM bandit_arms a WHERE arm_type = 'item' GROUP BY a.experiment_id) arms";
    assert_eq!(app.database().number(counts).await, 1);
}

/// `a` and `b` are clicked alike, but `a` stands where half as many look.
#[tokio::test(flavor = "multi_thread")]
async fn rewards_where_few_look_count_more_where_that_is_asked_for() {
    let app = TestApp::start().await;
    let id = shop(&app, "order", &json!({"rewards": "click"})).await;
    let variant = format!("SELECT id FROM experiment_variants WHERE experiment_id = {id}");
    let variant = app.database().number(&variant).await;
    // What was placed at random: 200 of 2,000 at the first position, 100 of 2,000 at the second.
    app.database()
        .execute(&format!(
            "INSERT INTO bandit_decisions (decision_id, experiment_id, variant_id, unit, arm_type, policy, candidates, placed, propensities)
             VALUES ('00000000-0000-0000-0000-000000000001', {id}, {variant}, 'u', 'item', 'uniform', '{{z}}', '{{0}}', '{{1}}');
             INSERT INTO bandit_arms (experiment_id, arm_type, arm_id) VALUES ({id}, 'item', 'z');
             INSERT INTO bandit_pulls (arm_row_id, event_row_id, experiment_id, unit, occurred_at, due_at, decision_id, position, bucket, outcome)
             SELECT a.id, n + 10000 * p, {id}, 'u' || n, now(), now(),
                    CASE WHEN a.arm_id = 'z' THEN '00000000-0000-0000-0000-000000000001' END, p, date_trunc('hour', now()),
                    CASE WHEN n <= CASE a.arm_id WHEN 'z' THEN 200 / p ELSE 100 END THEN 2 ELSE 1 END
             FROM bandit_arms a, generate_series(1, 2000) AS n, generate_series(1, 2) AS p
             WHERE a.experiment_id = {id} AND (a.arm_id = 'z' OR p = CASE a.arm_id WHEN 'a' THEN 2 ELSE 1 END);
             INSERT INTO bandit_arm_hours (arm_row_id, bucket, experiment_id, pulls, successes, reward, reward_sq)
             SELECT arm_row_id, bucket, experiment_id, count(*), count(*) FILTER (WHERE outcome = 2), count(*) FILTER (WHERE outcome = 2),
                    count(*) FILTER (WHERE outcome = 2)
             FROM bandit_pulls GROUP BY 1, 2, 3;
             UPDATE bandit_arms SET updated_at = now()"
        ))
        .await;
    eventually("both look alike", async || {
        let weights = weights(&app, "order").await;
        weights.contains_key("z") && (weights["a"] - weights["b"]).abs() < 1e-9
    })
    .await;
    let patch = json!({"config": {"banditOptions": {"positionCorrection": true}}});
    let path = "/api/v1/admin/experiments/order";
    app.patch(path, &patch).await.ok();
    eventually("the rewards of `a` count double", async || {
        let weights = weights(&app, "order").await;
        weights["a"] > 0.3 && weights["b"] < 0.03
    })
    .await;
}
