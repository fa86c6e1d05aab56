//! Experiments administered over HTTP, from the draft to the archive, with what shoppers see meanwhile.

use podium_api::auth::Role;
use podium_tests::{Answer, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

const EXPERIMENTS: &str = "/api/v1/admin/experiments";

async fn post(app: &TestApp, path: &str, body: Value) -> Answer {
    app.admin(Method::POST, &format!("{EXPERIMENTS}{path}"), Some(&body))
        .await
}

async fn step(app: &TestApp, id: i64, name: &str) -> Answer {
    app.admin(Method::POST, &format!("{EXPERIMENTS}/{id}/{name}"), None)
        .await
}

async fn get(app: &TestApp, path: &str) -> Answer {
    app.admin(Method::GET, &format!("{EXPERIMENTS}{path}"), None)
        .await
}

async fn patch(app: &TestApp, path: &str, etag: Option<&str>, body: Value) -> Answer {
    let mut request = app
        .request(Method::PATCH, &format!("{EXPERIMENTS}{path}"))
        .bearer_auth(podium_tests::token::valid("1"));
    if let Some(etag) = etag {
        request = request.header("if-match", etag);
    }
    Answer::of(request.json(&body)).await
}

/// A draft with variants of equal weight, the first of them the control.
async fn draft(app: &TestApp, name: &str, variants: &[&str]) -> i64 {
    let id = post(
        app,
        "",
        json!({"name": name, "target": name, "trafficAllocation": 100}),
    )
    .await
    .data()["id"]
        .as_i64()
        .unwrap();
    for (at, variant) in variants.iter().enumerate() {
        let body = json!({"name": variant, "isControl": at == 0, "trafficWeight": 1, "config": {"is": variant}});
        post(app, &format!("/{id}/variants"), body).await.data();
    }
    id
}

async fn assigned(app: &TestApp, name: &str, user: &str) -> Value {
    app.assign(json!({"experiment": name, "user_id": user}))
        .await
}

/// A change is in force on the replica that made it before it answers, on the other one soon after.
#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_the_life_cycle_is_in_force_at_once() {
    let app = TestApp::start().await;
    let replica = app.replica().await;
    let id = draft(&app, "e", &["control", "b"]).await;
    assert_eq!(
        assigned(&app, "e", "u").await["variant"],
        "default",
        "draft"
    );
    step(&app, id, "start").await.data();
    let told = assigned(&app, "e", "u").await["variant"].clone();
    assert_ne!(told, "default");
    replica.hears_of_changes().await;
    assert_eq!(assigned(&replica, "e", "u").await["variant"], told);
    for (verb, running) in [("pause", false), ("resume", true), ("stop", false)] {
        let status = step(&app, id, verb).await.data()["status"].clone();
        assert_eq!(status == "running", running, "{verb}");
        let expected = if running {
            told.clone()
        } else {
            json!("default")
        };
        assert_eq!(
            assigned(&app, "e", "u").await["variant"],
            expected,
            "{verb}"
        );
        replica.hears_of_changes().await;
        assert_eq!(
            assigned(&replica, "e", "u").await["variant"],
            expected,
            "{verb} on the replica"
        );
    }
    let event = json!({"user_id": "u", "experiment_id": id});
    app.track("click", event.clone()).await.ok();
    step(&app, id, "archive").await.data();
    app.track("click", event).await.problem(409, "conflict");
}

/// What the life cycle does not allow is refused, and nothing changes.
#[tokio::test(flavor = "multi_thread")]
async fn steps_out_of_order_are_refused() {
    let app = TestApp::start().await;
    let id = draft(&app, "e", &["control"]).await;
    step(&app, id, "start").await.problem(409, "conflict");
    post(&app, &format!("/{id}/variants"), json!({"name": "b"}))
        .await
        .data();
    post(
        &app,
        &format!("/{id}/variants"),
        json!({"name": "second control", "isControl": true}),
    )
    .await
    .problem(409, "conflict");
    post(&app, &format!("/{id}/variants"), json!({"name": "b"}))
        .await
        .problem(409, "conflict");
    for verb in ["pause", "resume", "stop"] {
        step(&app, id, verb).await.problem(409, "conflict");
    }
    step(&app, id, "start").await.data();
    for verb in ["start", "resume", "archive"] {
        let problem = step(&app, id, verb).await.problem(409, "conflict");
        assert!(
            problem["detail"].as_str().unwrap().contains("running"),
            "{problem}"
        );
    }
    app.admin(Method::DELETE, &format!("{EXPERIMENTS}/{id}"), None)
        .await
        .problem(409, "conflict");
    assert_eq!(
        get(&app, &format!("/{id}")).await.data()["status"],
        "running"
    );
    step(&app, 999_999, "start").await.problem(404, "not_found");
}

/// A running experiment gets new weights and variants under a new epoch, and nobody flips.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_experiment_may_get_new_weights() {
    let app = TestApp::start().await;
    let id = draft(&app, "e", &["control", "b"]).await;
    step(&app, id, "start").await.data();
    let users: Vec<String> = (0..30).map(|n| format!("user {n}")).collect();
    let mut told = Vec::new();
    for user in &users {
        told.push(assigned(&app, "e", user).await["variant"].clone());
    }
    let epoch = get(&app, "/e").await.data()["epoch"].as_i64().unwrap();
    post(
        &app,
        &format!("/{id}/variants"),
        json!({"name": "c", "trafficWeight": 10_000}),
    )
    .await
    .data();
    let newest = get(&app, &format!("/{id}")).await;
    assert!(newest.data()["epoch"].as_i64().unwrap() > epoch);
    patch(
        &app,
        &format!("/{id}"),
        Some(newest.header("etag")),
        json!({"trafficAllocation": 0.5}),
    )
    .await
    .data();
    for (user, told) in users.iter().zip(&told) {
        assert_eq!(assigned(&app, "e", user).await["variant"], *told, "{user}");
    }
    patch(
        &app,
        &format!("/{id}"),
        Some("*"),
        json!({"trafficAllocation": 100}),
    )
    .await
    .data();
    assert_eq!(assigned(&app, "e", "newcomer").await["variant"], "c");
    for frozen in [
        json!({"target": "elsewhere"}),
        json!({"experimentType": "bandit"}),
        json!({"salt": "x"}),
        json!({"hashVersion": 1}),
    ] {
        let answer = patch(&app, &format!("/{id}"), Some("*"), frozen.clone()).await;
        assert!(
            matches!(answer.status, 409 | 422),
            "{frozen}: {}",
            answer.text()
        );
        answer.any_problem();
    }
}

/// Two people who edit do not overwrite each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_needs_the_version_that_was_read() {
    let app = TestApp::start().await;
    let id = draft(&app, "e", &["control"]).await;
    let one = format!("/{id}");
    patch(&app, &one, None, json!({"description": "x"}))
        .await
        .problem(428, "precondition_required");
    let read = get(&app, &one).await;
    let etag = read.header("etag").to_owned();
    assert!(!etag.is_empty());
    let changed = patch(&app, &one, Some(&etag), json!({"description": "mine"})).await;
    assert_ne!(changed.header("etag"), etag);
    patch(&app, &one, Some(&etag), json!({"description": "theirs"}))
        .await
        .problem(412, "precondition_failed");
    assert_eq!(get(&app, &one).await.data()["description"], "mine");
    let variant = get(&app, &format!("/{id}/variants")).await.data()[0]["id"]
        .as_i64()
        .unwrap();
    let of_variant = format!("/{id}/variants/{variant}");
    patch(&app, &of_variant, Some(&etag), json!({"trafficWeight": 2}))
        .await
        .problem(412, "precondition_failed");
    patch(
        &app,
        &of_variant,
        Some(changed.header("etag")),
        json!({"trafficWeight": 2}),
    )
    .await
    .data();
}

/// What only the server may set, and what nobody knows, is refused, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_server_owned_fields_are_refused() {
    let app = TestApp::start().await;
    let body = json!({"name": "e", "id": 7, "status": "running", "createdAt": "2024-01-01T00:00:00Z", "created_by": "me", "surprise": 1,
        "trafficAllocation": 101, "primaryMetric": "happiness"});
    let problem = post(&app, "", body).await.problem(422, "validation_failed");
    let mut pointers: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/createdAt",
            "/created_by",
            "/id",
            "/primaryMetric",
            "/status",
            "/surprise",
            "/trafficAllocation"
        ]
    );
    for (name, why) in [
        (json!("123"), "an id"),
        (json!(""), "empty"),
        (json!("a\u{0}"), "NUL"),
        (json!("x".repeat(129)), "long"),
        (json!(1), "number"),
    ] {
        assert_eq!(
            post(&app, "", json!({"name": name})).await.status,
            422,
            "{why}"
        );
    }
    post(
        &app,
        "",
        json!({"name": "e", "primaryMetric": "error_rate"}),
    )
    .await
    .problem(422, "validation_failed");
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiments")
            .await,
        0
    );
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM audit_log")
            .await,
        0
    );
}

/// A variant is looked for in its own experiment only.
#[tokio::test(flavor = "multi_thread")]
async fn a_variant_belongs_to_its_experiment() {
    let app = TestApp::start().await;
    let (mine, other) = (
        draft(&app, "mine", &["control", "b"]).await,
        draft(&app, "other", &["control", "b"]).await,
    );
    let foreign = get(&app, &format!("/{other}/variants")).await.data()[0]["id"]
        .as_i64()
        .unwrap();
    let path = format!("/{mine}/variants/{foreign}");
    get(&app, &path).await.problem(404, "not_found");
    patch(&app, &path, Some("*"), json!({"trafficWeight": 5}))
        .await
        .problem(404, "not_found");
    app.admin(Method::DELETE, &format!("{EXPERIMENTS}{path}"), None)
        .await
        .problem(404, "not_found");
    step(&app, mine, "start").await.data();
    let declared = post(
        &app,
        &format!("/{mine}/declare-winner"),
        json!({"winnerVariantId": foreign}),
    )
    .await;
    declared.problem(422, "validation_failed");
}

/// Overrides over HTTP: in force at once, left out of the analysis, shown with their reason.
#[tokio::test(flavor = "multi_thread")]
async fn overrides_pin_and_are_left_out() {
    let app = TestApp::start().await;
    let id = draft(&app, "e", &["control", "b"]).await;
    step(&app, id, "start").await.data();
    let other = if assigned(&app, "e", "tester/1").await["variant"] == "b" {
        "control"
    } else {
        "b"
    };
    app.track("click", json!({"user_id": "tester/1", "experiment_id": id}))
        .await
        .ok();
    let path = format!("{EXPERIMENTS}/{id}/overrides/tester%2F1");
    app.admin(Method::PUT, &path, Some(&json!({"variant": other})))
        .await
        .data();
    let pinned = assigned(&app, "e", "tester/1").await;
    assert_eq!(
        (&pinned["variant"], &pinned["reason"]),
        (&json!(other), &json!("OVERRIDE"))
    );
    let shown = get(&app, &format!("/{id}/assignments/tester%2F1"))
        .await
        .data();
    assert_eq!(
        (&shown["unit"], &shown["reason"]),
        (&json!("tester/1"), &json!("OVERRIDE")),
        "{shown}"
    );
    app.fold().await;
    assert_eq!(
        app.database()
            .number("SELECT coalesce(sum(units), 0) FROM variant_moments")
            .await,
        0
    );
    app.admin(Method::DELETE, &path, None).await.data();
    assert_ne!(assigned(&app, "e", "tester/1").await["reason"], "OVERRIDE");
    app.admin(Method::DELETE, &path, None)
        .await
        .problem(404, "not_found");
}

/// Every change is in the audit log with who made it and what it was before; refused ones changed nothing.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_in_the_audit_log() {
    let app = TestApp::start().await;
    let id = draft(&app, "e", &["control", "b"]).await;
    patch(
        &app,
        &format!("/{id}"),
        Some("*"),
        json!({"trafficAllocation": 50}),
    )
    .await
    .data();
    step(&app, id, "start").await.data();
    step(&app, id, "start").await.problem(409, "conflict");
    let log = app
        .admin(Method::GET, "/api/v1/admin/audit-log", None)
        .await
        .data();
    let entries = log
        .as_array()
        .or_else(|| log["items"].as_array())
        .unwrap_or_else(|| panic!("{log}"))
        .clone();
    assert_eq!(
        entries.len(),
        5,
        "created, two variants, changed, started: {log}"
    );
    assert!(entries.iter().all(|entry| entry["actor"] == "1"), "{log}");
    let allocations = "SELECT before->>'trafficAllocation', after->>'trafficAllocation' FROM audit_log WHERE after->>'trafficAllocation' LIKE '50%' ORDER BY id LIMIT 1";
    let values = app.database().rows(allocations).await;
    assert!(
        values[0][0].starts_with("100") && values[0][1].starts_with("50"),
        "{values:?}"
    );
    for forbidden in [
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ] {
        assert!(
            app.database()
                .connect()
                .await
                .batch_execute(forbidden)
                .await
                .is_err(),
            "{forbidden}"
        );
    }
}

/// Analytics over HTTP on what shoppers did, and the export of it.
#[tokio::test(flavor = "multi_thread")]
async fn results_can_be_read() {
    let app = TestApp::start().await;
    let id = draft(&app, "e", &["control", "b"]).await;
    step(&app, id, "start").await.data();
    for n in 0..40 {
        let user = format!("=user {n}");
        assigned(&app, "e", &user).await;
        let mut event = json!({"user_id": user, "experiment_id": id, "item_id": "shoe", "brand_id": 7, "position": 1 + n % 3, "value": 10});
        app.track("impression", event.clone()).await.ok();
        if n % 4 == 0 {
            event["metadata"] = json!({"note": "=1+1"});
            app.track("purchase", event).await.ok();
        }
    }
    app.fold().await;
    let report = get(&app, "/e/report").await.data();
    let units: i64 = report["performance"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["units"].as_i64().unwrap())
        .sum();
    assert_eq!(units, 40, "{report}");
    assert!(
        report["verdict"]
            .as_str()
            .is_some_and(|verdict| !verdict.is_empty())
    );
    let viewer = app.with_role(Role::Viewer).await;
    for path in [
        "performance",
        "lift",
        "lift?metric=revenue_per_user",
        "lift?metric=p95_latency_ms",
        "position-analysis",
        "time-series?groupBy=day",
        "top-items",
        "top-brands",
        "bandit-arms",
    ] {
        let answer = viewer
            .admin(Method::GET, &format!("{EXPERIMENTS}/{id}/{path}"), None)
            .await;
        assert!(!answer.data().is_null(), "{path}");
    }
    for path in ["lift?metric=happiness", "time-series?metric=p95_latency_ms"] {
        viewer
            .admin(Method::GET, &format!("{EXPERIMENTS}/{id}/{path}"), None)
            .await
            .problem(422, "validation_failed");
    }
    let export = viewer
        .admin(
            Method::GET,
            &format!("{EXPERIMENTS}/{id}/export/events.csv"),
            None,
        )
        .await;
    assert!(export.header("content-type").starts_with("text/csv"));
    assert_eq!(export.text().lines().count(), 1 + 40 + 10);
    assert!(
        export.text().contains("'=user 0") && !export.text().contains(",=user"),
        "a spreadsheet must not run a user's name"
    );
    let export = viewer
        .admin(
            Method::GET,
            &format!("{EXPERIMENTS}/{id}/export/assignments.csv"),
            None,
        )
        .await;
    assert_eq!(export.text().lines().count(), 1 + 40);
}

/// Administration reads bodies as strictly as the storefront does.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_admin_routes_are_bounded_and_checked() {
    let app = TestApp::start().await;
    let send = async |kind: &str, body: String| {
        let request = app
            .request(Method::POST, EXPERIMENTS)
            .bearer_auth(podium_tests::token::valid("1"))
            .header("content-type", kind);
        Answer::of(request.body(body)).await
    };
    send("application/json", " ".repeat(256 * 1024 + 1))
        .await
        .problem(413, "too_large");
    send("text/plain", json!({"name": "e"}).to_string())
        .await
        .problem(415, "unsupported_media_type");
    send(
        "application/json",
        "{\"name\": \"e\", \"name\": \"e\"}".into(),
    )
    .await
    .problem(400, "malformed_json");
    send(
        "application/json",
        "{\"experimentType\": \"ab_test\", \"experiment_type\": \"ab_test\"}".into(),
    )
    .await
    .problem(400, "malformed_json");
    send(
        "application/json",
        format!(
            "{{\"name\":\"e\",\"config\":{}{}}}",
            "[".repeat(40),
            "]".repeat(40)
        ),
    )
    .await
    .problem(400, "malformed_json");
    send("application/json", "[]".into())
        .await
        .problem(422, "validation_failed");
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiments")
            .await,
        0
    );
}
