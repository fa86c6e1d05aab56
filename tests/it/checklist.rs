//! The calls that operators of the earlier system make after a deployment, word for word.

use podium_tests::clock::now;
use podium_tests::{Answer, Client, TestApp, token};
use reqwest::Method;
use serde_json::{Value, json};

const CREATE_EXPERIMENT: &str = r#"{
    "name": "Module Order Optimization",
    "experimentType": "ab_test",
    "target": "newsfeed",
    "trafficAllocation": 100,
    "primaryMetric": "add_to_cart_rate"
  }"#;

const ADD_CONTROL: &str = r#"{
    "name": "control",
    "isControl": true,
    "trafficWeight": 1,
    "config": {"moduleOrdering": ["brands", "items", "stories"]}
  }"#;

const ADD_TREATMENT: &str = r#"{
    "name": "stories_first",
    "trafficWeight": 1,
    "config": {"moduleOrdering": ["stories", "brands", "items"]}
  }"#;

/// `curl -X POST … -H "Authorization: Bearer $TOKEN" [-H "Content-Type: application/json" -d …]`
async fn curl(client: &Client, path: &str, token: &str, data: Option<&'static str>) -> Answer {
    let mut request = client.request(Method::POST, path);
    request = request
        .header("user-agent", "curl/8.5.0")
        .header("accept", "*/*")
        .header("authorization", format!("Bearer {token}"));
    if let Some(data) = data {
        request = request
            .header("content-type", "application/json")
            .body(data);
    }
    Answer::of(request).await
}

/// `jwt.sign({ userId: 1 }, process.env.JWT_SECRET, { expiresIn: '24h' })`
fn node_token() -> String {
    let issued = now().timestamp();
    let claims = json!({"userId": 1, "iat": issued, "exp": issued + 24 * 3600});
    token::signed(
        &claims,
        jsonwebtoken::Algorithm::HS256,
        podium_tests::app::SECRET,
    )
}

/// The steps of the checklist on an empty database.
async fn deployed() -> TestApp {
    let app = TestApp::start().await;
    let token = node_token();
    assert_eq!(app.get("/api/v1/health").await.status, 200);
    let made = curl(
        &app,
        "/api/v1/admin/experiments",
        &token,
        Some(CREATE_EXPERIMENT),
    )
    .await;
    assert_eq!(made.status, 201, "{}", made.text());
    let experiment = made.data();
    assert_eq!(
        (&experiment["id"], &experiment["status"]),
        (&json!(1), &json!("draft"))
    );
    for variant in [ADD_CONTROL, ADD_TREATMENT] {
        let made = curl(
            &app,
            "/api/v1/admin/experiments/1/variants",
            &token,
            Some(variant),
        )
        .await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.data();
    }
    let started = curl(&app, "/api/v1/admin/experiments/1/start", &token, None).await;
    assert_eq!(started.data()["status"], "running");
    app
}

/// From nothing to a running experiment, with shoppers and their events, and the statements that operators watch it with.
#[tokio::test(flavor = "multi_thread")]
async fn the_checklist_works_from_beginning_to_end() {
    let app = deployed().await;
    let mut seen = Vec::new();
    for user in 0..14 {
        let assigned = app
            .assign(json!({"user_id": format!("u{user}"), "session_id": format!("s{user}")}))
            .await;
        assert_eq!(
            assigned["experiment_id"], "Module Order Optimization",
            "{assigned}"
        );
        let order = &assigned["params"]["moduleOrdering"];
        let expected = if assigned["variant"] == "control" {
            json!(["brands", "items", "stories"])
        } else {
            json!(["stories", "brands", "items"])
        };
        assert_eq!(*order, expected);
        seen.push(assigned["variant"].as_str().unwrap().to_owned());
        let event = json!({"user_id": format!("u{user}"), "session_id": format!("s{user}"), "experiment_id": 1, "variant_id": assigned["variant_id"],
            "item_id": 1234, "brand_id": 5, "position": 3, "placement": "newsfeed", "page_type": "feed"});
        for kind in ["impression", "click", "add-to-cart"] {
            assert_eq!(app.track(kind, event.clone()).await.ok()["success"], true);
        }
        let mut bought = event;
        bought["value"] = json!(85.00);
        app.track("purchase", bought).await.ok();
    }
    assert_eq!(seen[0], "stories_first", "u0, as published");
    let database = app.database();
    let rate = "SELECT COUNT(*) FROM user_experiment_assignments WHERE experiment_id = 1 AND created_at > NOW() - INTERVAL '1 hour'";
    assert_eq!(database.number(rate).await, 14);
    let tracking = "SELECT event_type, COUNT(*) FROM experiment_events WHERE experiment_id = 1 GROUP BY event_type ORDER BY 1";
    assert_eq!(
        database.rows(tracking).await,
        [
            ["add_to_cart", "14"],
            ["click", "14"],
            ["impression", "14"],
            ["purchase", "14"]
        ]
    );
    let distribution = "SELECT v.name, COUNT(*) as users FROM user_experiment_assignments uea
        JOIN experiment_variants v ON uea.variant_id = v.id WHERE uea.experiment_id = 1 GROUP BY v.name ORDER BY 1";
    let count = |name: &str| {
        seen.iter()
            .filter(|variant| *variant == name)
            .count()
            .to_string()
    };
    assert_eq!(
        database.rows(distribution).await,
        [
            ["control".to_owned(), count("control")],
            ["stories_first".into(), count("stories_first")]
        ]
    );
    assert_eq!(
        database
            .text("SELECT status FROM experiments WHERE id = 1")
            .await,
        "running"
    );
    assert_eq!(
        database
            .number("SELECT COUNT(*) FROM experiment_variants WHERE experiment_id = 1")
            .await,
        2
    );
    assert_eq!(
        database
            .text("SELECT traffic_allocation FROM experiments WHERE id = 1")
            .await,
        "100.0000"
    );
    performance_agrees(&app, &seen).await;
}

/// The route and the SQL function say the same, control first, percents as percents.
async fn performance_agrees(app: &TestApp, seen: &[String]) {
    app.fold().await;
    let by_route = app
        .admin(Method::GET, "/api/v1/admin/experiments/1/performance", None)
        .await
        .data();
    let by_route = by_route.as_array().unwrap();
    let by_function = app.database().rows("SELECT variant_name, impressions, clicks, conversions FROM get_experiment_performance(1)").await;
    for ((row, function), name) in by_route
        .iter()
        .zip(&by_function)
        .zip(["control", "stories_first"])
    {
        let units = seen.iter().filter(|variant| *variant == name).count();
        let text = |member: &str| row[member].to_string();
        assert_eq!(row["variantName"], name);
        assert_eq!(
            function,
            &[
                name.to_owned(),
                text("impressions"),
                text("clicks"),
                text("conversions")
            ]
        );
        assert_eq!(
            (&row["units"], &row["impressions"], &row["conversions"]),
            (&json!(units), &json!(units), &json!(units))
        );
        assert_eq!(
            (&row["clickThroughRate"], &row["conversionRate"]),
            (&json!(100.0), &json!(100.0))
        );
        let total: f64 = row["totalValue"]
            .to_string()
            .trim_matches('"')
            .parse()
            .unwrap();
        assert!(
            (total - 85.0 * f64::from(u32::try_from(units).unwrap())).abs() < 1e-9,
            "{row}"
        );
    }
    assert_eq!(by_route.len(), 2);
}

/// Who repeats a step of the checklist is told what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_steps_are_conflicts() {
    let app = deployed().await;
    let token = node_token();
    for (path, data) in [
        ("/api/v1/admin/experiments", Some(CREATE_EXPERIMENT)),
        ("/api/v1/admin/experiments/1/variants", Some(ADD_CONTROL)),
        ("/api/v1/admin/experiments/1/start", None),
    ] {
        curl(&app, path, &token, data)
            .await
            .problem(409, "conflict");
    }
    let other_token = token::signed(
        &json!({"userId": 2, "iat": now().timestamp(), "exp": now().timestamp() + 60}),
        jsonwebtoken::Algorithm::HS256,
        podium_tests::app::SECRET,
    );
    curl(
        &app,
        "/api/v1/admin/experiments",
        &other_token,
        Some(CREATE_EXPERIMENT),
    )
    .await
    .problem(403, "forbidden");
    let unchanged: Vec<Value> = vec![
        app.admin(Method::GET, "/api/v1/admin/experiments/1", None)
            .await
            .data()["variants"]
            .clone(),
    ];
    assert_eq!(unchanged[0].as_array().unwrap().len(), 2);
}
