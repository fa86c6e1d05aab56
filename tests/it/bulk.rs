//! Many assignments in one request.

use podium_tests::TestApp;
use serde_json::{Value, json};

const BULK: &str = "/api/v1/experiments/assign/bulk";

fn list(answer: &Value) -> &Vec<Value> {
    answer["assignments"].as_array().unwrap()
}

/// Every running experiment of one unit, each as `assign` would answer.
#[tokio::test(flavor = "multi_thread")]
async fn all_running_experiments_of_a_unit() {
    let app = TestApp::start().await;
    app.experiment("one").running().await;
    app.experiment("two").running().await;
    app.experiment("paused").in_state("paused").await;
    let narrow = app.experiment("narrow").allocation("1").running().await;
    let outside = &narrow.units_of(None, 1)[0];
    for (field, unit) in [
        ("user_id", json!(outside)),
        ("session_id", json!("s")),
        ("userId", json!(7)),
    ] {
        let answer = app.post(BULK, &json!({field: unit})).await.ok();
        let unit = unit
            .as_str()
            .map_or_else(|| unit.to_string(), str::to_owned);
        let expected: Vec<Value> = match narrow.split(&unit) {
            None => vec![json!("one"), json!("two")],
            Some(_) => vec![json!("one"), json!("two"), json!("narrow")],
        };
        assert_eq!(
            list(&answer)
                .iter()
                .map(|a| a["experiment_id"].clone())
                .collect::<Vec<_>>(),
            expected
        );
        for assignment in list(&answer) {
            let mut single = app
                .assign(json!({"experiment": assignment["experiment"], field: unit}))
                .await;
            single["user_id"] = json!(unit);
            assert_eq!(&single, assignment, "as of assign, plus user_id");
        }
    }
}

/// One experiment for many users, in order, numbers and texts, known and new.
#[tokio::test(flavor = "multi_thread")]
async fn one_experiment_for_many_users() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").allocation("60").running().await;
    let mut users: Vec<Value> = (0..998).map(|n| json!(format!("user {n}"))).collect();
    users.extend([json!(12), json!("12")]);
    app.variant_of("e", "user 5").await;
    for named in [json!("e"), json!(experiment.id)] {
        let answer = app
            .post(BULK, &json!({"experiment": named, "user_ids": users}))
            .await
            .ok();
        assert_eq!(list(&answer).len(), 1_000);
        for (user, assignment) in users.iter().zip(list(&answer)) {
            let unit = user
                .as_str()
                .map_or_else(|| user.to_string(), str::to_owned);
            assert_eq!(assignment["user_id"], unit.as_str());
            assert_eq!(
                assignment["variant"],
                experiment.split(&unit).unwrap_or("default"),
                "{unit}"
            );
        }
    }
    let inside = users
        .iter()
        .filter_map(Value::as_str)
        .filter(|unit| experiment.split(unit).is_some())
        .count();
    let stored = app
        .database()
        .number("SELECT count(*) FROM user_experiment_assignments")
        .await;
    assert_eq!(
        usize::try_from(stored).unwrap(),
        inside,
        "12 and \"12\" are one unit"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_in_bulk() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    app.experiment("paused").in_state("paused").await;
    let many: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    for (body, status, code) in [
        (
            json!({"experiment": "e", "user_ids": many}),
            422,
            "validation_failed",
        ),
        (json!({"user_ids": ["a"]}), 422, "validation_failed"),
        (
            json!({"experiment": "e", "user_ids": "a"}),
            422,
            "validation_failed",
        ),
        (
            json!({"experiment": "e", "user_ids": ["a", 1.5, "", null]}),
            422,
            "validation_failed",
        ),
        (
            json!({"experiment": "none", "user_ids": ["a"]}),
            404,
            "not_found",
        ),
        (
            json!({"experiment": "none", "user_id": "a"}),
            404,
            "not_found",
        ),
        (json!({"experiment": "e"}), 400, "validation_failed"),
    ] {
        let answer = app.post(BULK, &body).await;
        let problem = answer.problem(status, code);
        if body["user_ids"]
            .as_array()
            .is_some_and(|users| users.len() == 4)
        {
            let pointers: Vec<&str> = problem["errors"]
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e["pointer"].as_str().unwrap())
                .collect();
            assert_eq!(
                pointers,
                ["/user_ids/1", "/user_ids/2", "/user_ids/3"],
                "all at once"
            );
        }
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM user_experiment_assignments")
            .await,
        0
    );
    let paused = app
        .post(
            BULK,
            &json!({"experiment": "paused", "user_ids": ["a", "b"]}),
        )
        .await
        .ok();
    assert!(
        list(&paused)
            .iter()
            .all(|a| a["variant"] == "default" && a["experiment_id"].is_null()),
        "{paused}"
    );
    let nobody = app
        .post(BULK, &json!({"experiment": "e", "user_ids": []}))
        .await
        .ok();
    assert_eq!(nobody, json!({"assignments": []}));
}
