//! Arms: listed with what is believed of them, added, reset.

use podium_bandit::history::Forgetting;
use podium_domain::bandit::evidence::{ArmHistory, HourCounts, snapshot};
use podium_domain::bandit::{BanditOptions, Rewards};
use podium_domain::event::EventType;
use podium_tests::{TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const ARMS: &str = "/api/v1/admin/experiments/order/bandit-arms";

async fn list(app: &TestApp) -> Vec<Value> {
    let arms = app.admin(Method::GET, ARMS, None).await.data();
    arms.as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn arms_are_added_listed_and_reset() {
    let app = TestApp::start().await;
    app.experiment("order").running().await;
    assert_eq!(list(&app).await, Vec::<Value>::new());
    for body in [
        json!({"armId": 7, "armName": "Seven", "metadata": {"brand": 1}}),
        json!({"armId": "8"}),
        json!({"armType": "brand", "armId": "8"}),
    ] {
        let made = app.admin(Method::POST, ARMS, Some(&body)).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let again = app
        .admin(Method::POST, ARMS, Some(&json!({"armId": "7"})))
        .await;
    again.problem(409, "conflict");
    for wrong in [
        json!({}),
        json!({"armId": ""}),
        json!({"armId": "x", "armType": "variant"}),
        json!({"armId": "x", "alpha": 3}),
        json!({"armId": "x", "metadata": []}),
    ] {
        let refused = app.admin(Method::POST, ARMS, Some(&wrong)).await;
        refused.problem(422, "validation_failed");
    }
    app.teach("7", 100, 20).await;
    let arms = list(&app).await;
    let [brand, seven, eight] = arms.as_slice() else {
        panic!("{arms:?}");
    };
    assert_eq!(
        (&brand["armType"], &brand["totalPulls"]),
        (&json!("brand"), &json!(0))
    );
    assert_eq!(
        (&seven["armName"], &seven["metadata"]),
        (&json!("Seven"), &json!({"brand": 1}))
    );
    assert_eq!(
        (&seven["totalPulls"], &seven["averageReward"]),
        (&json!(100), &json!(0.2))
    );
    assert_eq!(seven["averageIsRaw"], true);
    let best: f64 = [seven, eight]
        .iter()
        .map(|arm| arm["probabilityBest"].as_f64().unwrap())
        .sum();
    assert!((best - 1.0).abs() < 1e-8, "{best}");
    let interval = |end: usize| seven["interval"][end].as_f64().unwrap();
    assert!(
        interval(0) < 0.2 && interval(1) > 0.2 && seven["expectedLoss"].as_f64().unwrap() > 0.0
    );

    let reset = |row: &Value| format!("{ARMS}/{row}/reset");
    let after = app
        .admin(Method::POST, &reset(&seven["id"]), None)
        .await
        .data();
    assert_eq!(
        (&after["totalPulls"], &after["alpha"]),
        (&json!(0), &json!(1.0))
    );
    assert!(after["resetAt"].is_string());
    app.admin(Method::POST, &reset(&json!(0)), None)
        .await
        .problem(404, "not_found");
    app.admin(Method::POST, &reset(&json!(987_654)), None)
        .await
        .problem(404, "not_found");
    // What comes later counts again.
    app.teach("7", 10, 1).await;
    let seven = list(&app)
        .await
        .into_iter()
        .find(|arm| arm["armId"] == "7")
        .unwrap();
    assert_eq!(
        (&seven["totalPulls"], &seven["totalReward"]),
        (&json!(10), &json!(1))
    );
    let log = "SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log";
    assert_eq!(
        app.database().text(log).await,
        "arm.create arm.create arm.create arm.reset"
    );
}

/// While arms are ranked, the list shows the weights in force.
#[tokio::test(flavor = "multi_thread")]
async fn weights_in_force_are_shown() {
    let app = TestApp::start().await;
    let experiment = app.experiment("order").running().await;
    let b = experiment.variant("b");
    app.change(&format!(
        "UPDATE experiment_variants SET config = '{{\"itemOrdering\": \"bandit\"}}' WHERE id = {b}"
    ))
    .await;
    let unit = experiment.units_of(Some("b"), 1).remove(0);
    app.variant_of("order", &unit).await;
    let body = json!({"experiment": "order", "user_id": unit, "candidates": [{"id": "good"}, {"id": "bad"}]});
    app.post("/api/v1/experiments/rank", &body).await.ok();
    app.teach("good", 1_000, 100).await;
    app.teach("bad", 1_000, 10).await;
    eventually("the weights follow what was taught", async || {
        let arms = list(&app).await;
        let of = |name: &str, member: &str| {
            arms.iter()
                .find(|arm| arm["armId"] == name)
                .and_then(|arm| arm[member].as_f64())
        };
        // The floor of 5 % over two arms.
        of("bad", "weight").is_some_and(|weight| (weight - 0.025).abs() < 1e-9)
            && of("bad", "probabilityBest") < Some(1e-6)
            && of("good", "weight") == Some(0.975)
    })
    .await;
}

/// Pulls and successes of an hour so many hours ago, and what is pending.
const HOURS: [[(i64, i64, i64, i64); 2]; 2] = [
    [(240, 4_000, 200, 0), (1, 400, 40, 50)],
    [(240, 4_000, 480, 0), (1, 400, 20, 0)],
];

/// A bandit over variants that forgets within hours: `b` was better ten days ago, and the control is today.
async fn forgetful(app: &TestApp) -> (i64, [i64; 2]) {
    let experiment = app.experiment("order").running().await;
    let (id, variants) = (
        experiment.id,
        ["control", "b"].map(|name| experiment.variant(name)),
    );
    app.change(&format!(
        "UPDATE experiments SET experiment_type = 'bandit', primary_metric = 'click_through_rate', epoch = 2,
             config = '{{\"banditOptions\": {{\"halfLifeHours\": 12, \"siteRate\": 0.1}}}}' WHERE id = {id};
         INSERT INTO experiment_epochs (experiment_id, epoch, traffic_allocation, weights, adaptive_of)
         VALUES ({id}, 2, 100, '{{\"{}\": \"30\", \"{}\": \"70\"}}', 1)",
        variants[0], variants[1]
    ))
    .await;
    // The leader makes the arms when the bandit begins to learn.
    let arms = format!("SELECT count(*) FROM bandit_arms WHERE experiment_id = {id}");
    app.fold().await;
    assert_eq!(app.database().number(&arms).await, 2);
    for (variant, hours) in variants.iter().zip(HOURS) {
        for (ago, pulls, successes, pending) in hours {
            app.database()
                .execute(&format!(
                    "INSERT INTO bandit_arm_hours (arm_row_id, bucket, experiment_id, pending, pulls, successes, reward, reward_sq)
                     SELECT id, date_trunc('hour', now(), 'UTC') - interval '{ago} hours', {id}, {pending}, {pulls}, {successes}, {successes},
                            {successes} FROM bandit_arms WHERE arm_id = '{variant}';
                     INSERT INTO bandit_stale_arms SELECT id FROM bandit_arms WHERE arm_id = '{variant}' ON CONFLICT DO NOTHING"
                ))
                .await;
        }
    }
    app.fold().await;
    (id, variants)
}

/// What the policy reads of [`HOURS`]: probabilities of being best.
fn believed() -> Vec<f64> {
    let count = |count: i64| u64::try_from(count).unwrap();
    let hour = |(ago, pulls, successes, pending): (i64, i64, i64, i64)| HourCounts {
        hour: -ago,
        pulls: count(pulls),
        successes: count(successes),
        pending: count(pending),
        ..HourCounts::default()
    };
    let arm = |hours: [(i64, i64, i64, i64); 2]| ArmHistory {
        hours: hours.map(hour).to_vec(),
    };
    let options = BanditOptions {
        forgetting: Forgetting::HalfLifeHours(12.0),
        site_rate: Some(0.1),
        ..BanditOptions::with_rewards(Rewards::Binary(vec![EventType::Click]))
    };
    let picture = snapshot(&options, &HOURS.map(arm), 0, 0).unwrap();
    picture.best().probability.clone()
}

/// Variants are shown as their policy sees them: with what it forgets, what is pending, its prior, and the weights by which
/// units are drawn.
#[tokio::test(flavor = "multi_thread")]
async fn variants_are_shown_as_the_policy_sees_them() {
    let app = TestApp::start().await;
    let (id, variants) = forgetful(&app).await;
    let list = async || {
        let arms = list(&app).await;
        variants.map(|variant| {
            let id = variant.to_string();
            let found = arms.iter().find(|arm| arm["armId"] == id);
            found.unwrap().clone()
        })
    };
    let [control, b] = list().await;
    assert_eq!(
        (&control["totalPulls"], &b["totalPulls"]),
        (&json!(4_400), &json!(4_400))
    );
    assert!(
        b["averageReward"].as_f64() > control["averageReward"].as_f64(),
        "all time: {b}"
    );
    // The hour may turn between the two readings.
    let wanted = believed();
    for (arm, wanted) in [(&control, wanted[0]), (&b, wanted[1])] {
        let got = arm["probabilityBest"].as_f64().unwrap();
        assert!((got - wanted).abs() < 0.01, "{got} instead of {wanted}");
    }
    assert!(control["probabilityBest"].as_f64() > Some(0.9), "{control}");
    assert!(
        control["interval"][1].as_f64() < Some(0.13)
            && control["expectedReward"].as_f64() < Some(0.11)
    );
    // As the epoch in force says, not as the next one will.
    let epoch = "SELECT epoch FROM experiments";
    let (one, other) = (
        control["weight"].as_f64().unwrap(),
        b["weight"].as_f64().unwrap(),
    );
    if app.database().number(epoch).await == 2 {
        assert_eq!((one, other), (0.3, 0.7));
    }
    for status in ["paused", "completed"] {
        app.change(&format!(
            "UPDATE experiments SET status = '{status}' WHERE id = {id}"
        ))
        .await;
        let asked = json!({"experiment": "order", "user_id": "somebody new"});
        let answer = app.assign(asked).await;
        assert_eq!(answer["reason"], "DEFAULT", "{status} assigns nobody");
        let [control, b] = list().await;
        assert_eq!(
            (&control["weight"], &b["weight"]),
            (&Value::Null, &Value::Null),
            "{status}"
        );
        assert!(b["probabilityBest"].is_number(), "{status}: {b}");
    }
}
