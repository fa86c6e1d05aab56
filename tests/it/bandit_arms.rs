//! Arms: listed with what is believed of them, added, reset.

use podium_tests::{TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const ARMS: &str = "/api/v1/admin/experiments/order/bandit-arms";

async fn teach(app: &TestApp, arm: &str, pulls: u32, successes: u32) {
    let sql = format!(
        "SELECT update_bandit_arm_performance(id, (n <= {successes})::integer, n <= {successes})
         FROM bandit_arms, generate_series(1, {pulls}) AS n WHERE arm_id = '{arm}'"
    );
    app.database().execute(&sql).await;
}

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
    teach(&app, "7", 100, 20).await;
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
    teach(&app, "7", 10, 1).await;
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
    teach(&app, "good", 1_000, 100).await;
    teach(&app, "bad", 1_000, 10).await;
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
