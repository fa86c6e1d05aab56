//! Rankings of whatever can be ranked, and rewards of whatever can be earned.

use chrono::{DateTime, TimeDelta, Utc};
use podium_api::clock::{Clock, SystemClock};
use podium_tests::{Experiment, TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// An experiment whose variant `b` ranks by these options, and a unit that was told so.
async fn ranking(app: &TestApp, options: &Value) -> (Experiment, String) {
    let experiment = app.experiment("order").running().await;
    let (id, b) = (experiment.id, experiment.variant("b"));
    let config = json!({"itemOrdering": "bandit", "banditOptions": options});
    app.change(&format!(
        "UPDATE experiment_variants SET config = '{config}' WHERE id = {b};
         INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, assigned_at)
         VALUES ('u', {id}, {b}, now() - interval '3 hours')"
    ))
    .await;
    (experiment, "u".to_owned())
}

async fn rank(app: &TestApp, unit: &str, kind: &str, ids: &[&str]) -> Value {
    let candidates: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
    let body =
        json!({"experiment": "order", "user_id": unit, "arm_type": kind, "candidates": candidates});
    app.post("/api/v1/experiments/rank", &body).await.ok()
}

async fn arms(app: &TestApp, kind: &str) -> Vec<Value> {
    let path = format!("/api/v1/admin/experiments/order/bandit-arms?armType={kind}");
    let arms = app.admin(Method::GET, &path, None).await.data();
    arms.as_array().unwrap().clone()
}

/// An arm of the list.
fn of<'a>(arms: &'a [Value], id: &str) -> &'a Value {
    arms.iter().find(|arm| arm["armId"] == id).unwrap()
}

/// Ten seconds apart, the last one some minutes ago, and all within the window: a reward belongs to the impression of its moment.
fn moment(turn: u32) -> DateTime<Utc> {
    SystemClock.now() - TimeDelta::minutes(20) + TimeDelta::seconds(10 * i64::from(turn))
}

/// Where the storefront says what an impression was of.
fn subject(event: &mut Value, kind: &str, id: &str) {
    match kind {
        "item" => event["item_id"] = id.into(),
        "brand" => event["brand_id"] = id.into(),
        _ => event["metadata"] = json!({kind: id}),
    }
}

/// Whatever is ranked learns from the member of events that names it, by the decision and without one, and from no other's.
#[tokio::test(flavor = "multi_thread")]
async fn items_brands_categories_and_algorithms_learn() {
    let app = TestApp::start().await;
    let (experiment, unit) = ranking(&app, &json!({"rewards": "click"})).await;
    let kinds = ["item", "brand", "category", "algorithm"];
    for kind in kinds {
        let answer = rank(&app, &unit, kind, &["good", "bad"]).await;
        assert_eq!(answer["arm_type"], kind);
        let mut events = Vec::new();
        for turn in 0..60 {
            let at = moment(turn);
            for (id, clicked) in [("good", turn % 2 == 0), ("bad", turn == 0)] {
                let mut event = json!({"event_type": "impression", "user_id": unit, "experiment_id": experiment.id, "occurred_at": at});
                subject(&mut event, kind, id);
                if turn == 0 {
                    event["decision_id"] = answer["decision_id"].clone();
                }
                events.push(event.clone());
                if clicked {
                    event["event_type"] = "click".into();
                    events.push(event);
                }
            }
        }
        app.track_all(&events).await;
    }
    app.fold().await;
    for kind in kinds {
        eventually("the better one has more weight", async || {
            let arms = arms(&app, kind).await;
            of(&arms, "good")["weight"].as_f64() > Some(0.9)
        })
        .await;
    }
    eventually("the rows of arms have caught up", async || {
        let stale = "SELECT count(*) FROM bandit_stale_arms";
        app.database().number(stale).await == 0
    })
    .await;
    let learned = "SELECT arm_type, arm_id, alpha - 1, (SELECT sum(pulls + pending) FROM bandit_arm_hours h WHERE h.arm_row_id = a.id)
        FROM bandit_arms a ORDER BY arm_type, arm_id DESC";
    let wanted: Vec<Vec<String>> = ["algorithm", "brand", "category", "item"]
        .into_iter()
        .flat_map(|kind| [(kind, "good", "30"), (kind, "bad", "1")])
        .map(|(kind, id, clicks)| [kind, id, clicks, "60"].map(str::to_owned).to_vec())
        .collect();
    assert_eq!(app.database().rows(learned).await, wanted);
}

/// Values are rewards up to a maximum: few large purchases beat many small ones, and a very large one counts as the maximum.
#[tokio::test(flavor = "multi_thread")]
async fn values_are_rewards_up_to_a_maximum() {
    let app = TestApp::start().await;
    let (experiment, unit) = ranking(&app, &json!({"rewards": "purchase", "valueMax": 50})).await;
    let answer = rank(&app, &unit, "item", &["dear", "cheap"]).await;
    assert_eq!(answer["candidates"][0]["propensity"], 0.5);
    let mut events = Vec::new();
    for turn in 0..100_u32 {
        // Of the dear one every fourth is bought, for 40 or far too much; of the cheap one every second, for 4.5.
        let price = if turn == 0 { 100_000.0 } else { 40.0 };
        let dear = turn.is_multiple_of(4).then_some(price);
        let cheap = turn.is_multiple_of(2).then_some(4.5);
        let at = moment(turn);
        for (id, value) in [("dear", dear), ("cheap", cheap)] {
            let mut event = json!({"event_type": "impression", "user_id": unit, "experiment_id": experiment.id, "item_id": id, "occurred_at": at});
            events.push(event.clone());
            if let Some(value) = value {
                event["event_type"] = "purchase".into();
                event["value"] = value.into();
                events.push(event);
            }
        }
    }
    app.track_all(&events).await;
    app.fold().await;
    eventually("the dear one has more weight", async || {
        let arms = arms(&app, "item").await;
        of(&arms, "dear")["weight"].as_f64() > Some(0.9)
            && of(&arms, "dear")["totalPulls"] == 25
            && of(&arms, "cheap")["totalPulls"] == 50
    })
    .await;
    let arms = arms(&app, "item").await;
    let (dear, cheap) = (of(&arms, "dear"), of(&arms, "cheap"));
    // 24 times 40 and once the maximum.
    assert_eq!(dear["totalReward"].as_f64(), Some(1_010.0));
    assert_eq!(cheap["totalReward"].as_f64(), Some(225.0));
    assert!(dear["probabilityBest"].as_f64() > Some(0.9), "{dear}");
    assert!(cheap["expectedLoss"].as_f64() > Some(1.0), "{cheap}");
    assert_eq!(
        (&dear["interval"], &dear["expectedReward"]),
        (&Value::Null, &Value::Null)
    );
    // A pause changes nothing about what is believed; by mere successes the cheap one would be best.
    let pause = format!("/api/v1/admin/experiments/{}/pause", experiment.id);
    app.admin(Method::POST, &pause, None).await.data();
    eventually("nobody is ranked for", async || {
        of(&self::arms(&app, "item").await, "dear")["weight"].is_null()
    })
    .await;
    let arms = self::arms(&app, "item").await;
    let paused = of(&arms, "dear");
    assert!(paused["probabilityBest"].as_f64() > Some(0.9), "{paused}");
    assert_eq!(paused["interval"], Value::Null);
}
