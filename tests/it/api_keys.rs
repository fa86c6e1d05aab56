//! Keys of storefronts and servers.

use podium_api::auth::Role;
use podium_api::background::store_notes;
use podium_tests::{Answer, Client, TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const KEYS: &str = "/api/v1/admin/api-keys";
const ASSIGN: &str = "/api/v1/experiments/assign";
const EXPERIMENTS: &str = "/api/v1/admin/experiments";

async fn make(app: &Client, scope: &str) -> Value {
    let body = json!({"name": format!("a {scope}"), "scope": scope});
    let answer = app.admin(Method::POST, KEYS, Some(&body)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.data()
}

fn key(made: &Value) -> &str {
    made["key"].as_str().unwrap()
}

async fn call(
    app: &Client,
    method: Method,
    path: &str,
    header: (&str, &str),
    body: Option<&Value>,
) -> Answer {
    let mut request = app.request(method, path).header(header.0, header.1);
    if let Some(body) = body {
        request = request.json(body);
    }
    Answer::of(request).await
}

async fn assign(app: &Client, header: (&str, &str)) -> Answer {
    call(
        app,
        Method::POST,
        ASSIGN,
        header,
        Some(&json!({"user_id": "u"})),
    )
    .await
}

/// Made, shown once, listed without its secret, changed, revoked; every step in the audit log, and no secret anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_lives_and_is_revoked() {
    let app = TestApp::start().await;
    let made = make(&app, "server").await;
    let secret = key(&made).to_owned();
    assert!(secret.starts_with(&format!(
        "podium_server_{}_",
        made["prefix"].as_str().unwrap()
    )));
    assert!(secret.len() > 80, "256 bits");
    assert_ne!(secret, key(&make(&app, "server").await));
    let one = format!("{KEYS}/{}", made["id"]);
    let read = app.admin(Method::GET, &one, None).await;
    let body = read.data();
    assert_eq!(
        (&body["name"], &body["scope"], &body["createdBy"]),
        (&json!("a server"), &json!("server"), &json!("1"))
    );
    assert_eq!(
        (&body["revokedAt"], &body["lastUsedAt"], &body["key"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let etag = read.header("etag").to_owned();
    let change = |name: &str, etag: &str| {
        app.request(Method::PATCH, &one)
            .bearer_auth(podium_tests::token::valid("1"))
            .header("if-match", etag)
            .json(&json!({"name": name}))
    };
    assert_eq!(Answer::of(change("b", &etag)).await.data()["name"], "b");
    Answer::of(change("c", &etag))
        .await
        .problem(412, "precondition_failed");
    let revoked = app.admin(Method::DELETE, &one, None).await.data();
    assert!(revoked["revokedAt"].is_string());
    assert_eq!(
        app.admin(Method::DELETE, &one, None).await.data(),
        revoked,
        "once is enough"
    );
    Answer::of(change("d", "*")).await.problem(409, "conflict");
    assert_eq!(
        app.admin(Method::GET, KEYS, None)
            .await
            .data()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let everything = app
        .database()
        .text("SELECT string_agg(k::text, '') || (SELECT string_agg(a::text, '') FROM audit_log a) FROM podium_api_keys k")
        .await;
    assert!(!everything.contains(secret.rsplit('_').next().unwrap()));
    let actions = app
        .database()
        .rows("SELECT action FROM audit_log ORDER BY id")
        .await
        .concat();
    assert_eq!(
        actions,
        [
            "api_key.create",
            "api_key.create",
            "api_key.update",
            "api_key.revoke"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_keys_are_checked() {
    let app = TestApp::start().await;
    for body in [
        json!({}),
        json!({"name": "", "scope": "client"}),
        json!({"name": "x", "scope": "root"}),
        json!({"name": "x", "scope": "client", "key": "mine"}),
        json!({"name": "x", "scope": "client", "expiresAt": "2020-01-01T00:00:00Z"}),
        json!({"name": "x", "scope": "client", "expiresAt": "tomorrow"}),
        json!({"name": "x", "scope": "client", "secret": "s"}),
    ] {
        app.admin(Method::POST, KEYS, Some(&body))
            .await
            .problem(422, "validation_failed");
    }
    for id in ["0", "-1", "x", "999999"] {
        app.admin(Method::GET, &format!("{KEYS}/{id}"), None)
            .await
            .problem(404, "not_found");
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM podium_api_keys")
            .await,
        0
    );
}

/// Each scope opens its own doors and no other.
#[tokio::test(flavor = "multi_thread")]
async fn scopes_open_their_own_doors() {
    let app = TestApp::setup()
        .variable("PUBLIC_API_KEYS_REQUIRED", "true")
        .start()
        .await;
    app.experiment("e").on("newsfeed").running().await;
    let keys = [
        make(&app, "client").await,
        make(&app, "server").await,
        make(&app, "admin").await,
    ];
    let [client, server, admin] = [key(&keys[0]), key(&keys[1]), key(&keys[2])];
    let one = format!("{EXPERIMENTS}/e");
    let variants = format!("{one}/variants");
    for (who, reads, administers) in [(client, 403, 403), (server, 200, 403), (admin, 200, 200)] {
        assert_eq!(assign(&app, ("x-api-key", who)).await.status, 200);
        assert_eq!(
            assign(&app, ("authorization", &format!("Bearer {who}")))
                .await
                .status,
            200
        );
        for path in [EXPERIMENTS, &one, &variants] {
            let answer = call(&app, Method::GET, path, ("x-api-key", who), None).await;
            assert_eq!(answer.status, reads, "{path}");
        }
        let answer = call(&app, Method::GET, KEYS, ("x-api-key", who), None).await;
        assert_eq!(answer.status, administers);
        let body = json!({"name": format!("by {}", &who[..13])});
        let answer = call(
            &app,
            Method::POST,
            EXPERIMENTS,
            ("x-api-key", who),
            Some(&body),
        )
        .await;
        assert_eq!(answer.status, if administers == 200 { 201 } else { 403 });
    }
    let actor = format!("api-key:{}", keys[2]["prefix"].as_str().unwrap());
    let wanted = format!(
        "SELECT count(*) FROM audit_log WHERE action = 'experiment.create' AND actor = '{actor}'"
    );
    assert_eq!(app.database().number(&wanted).await, 1);
    // Where keys are required, nobody calls without one; signs of life need none.
    let plain = app.post(ASSIGN, &json!({"user_id": "u"})).await;
    plain.problem(401, "unauthorized");
    app.track("click", json!({"user_id": "u"}))
        .await
        .problem(401, "unauthorized");
    let wrong = [
        client.replace("_client_", "_server_"),
        format!("{}0", &client[..client.len() - 1]),
        format!("{client}00"),
        "podium_".into(),
        "x".repeat(9000),
    ];
    for wrong in wrong.iter().filter(|wrong| *wrong != client) {
        assign(&app, ("x-api-key", wrong))
            .await
            .problem(401, "unauthorized");
    }
    let twice = app
        .request(Method::POST, ASSIGN)
        .header("x-api-key", client)
        .header("x-api-key", client);
    Answer::of(twice.json(&json!({"user_id": "u"})))
        .await
        .problem(401, "unauthorized");
    for path in [
        "/livez",
        "/readyz",
        "/api/v1/health",
        "/api/v1/openapi.json",
    ] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
}

/// Where keys are not required, whatever stands in the headers does no harm.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_requirement_everybody_may_call() {
    let app = TestApp::start().await;
    make(&app, "client").await;
    for header in [
        ("x-api-key", "nonsense"),
        ("authorization", "Basic dTpw"),
        ("authorization", "Bearer x"),
    ] {
        assert_eq!(assign(&app, header).await.status, 200);
    }
}

/// A revoked or expired key is refused at once here, and within a second on other replicas.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_everywhere() {
    let clock = podium_tests::MockClock::standing();
    let app = TestApp::setup()
        .clock(clock.clone())
        .variable("PUBLIC_API_KEYS_REQUIRED", "true")
        .start()
        .await;
    let other = app.replica().await;
    let (first, second) = (make(&app, "client").await, make(&app, "client").await);
    other.hears_of_changes().await;
    for made in [&first, &second] {
        assert_eq!(assign(&other, ("x-api-key", key(made))).await.status, 200);
    }
    app.admin(Method::DELETE, &format!("{KEYS}/{}", first["id"]), None)
        .await
        .data();
    assert_eq!(assign(&app, ("x-api-key", key(&first))).await.status, 401);
    eventually("the other replica refuses the key", async || {
        assign(&other, ("x-api-key", key(&first))).await.status == 401
    })
    .await;
    app.change("UPDATE podium_api_keys SET expires_at = now() + interval '1 hour' WHERE revoked_at IS NULL").await;
    assert_eq!(assign(&app, ("x-api-key", key(&second))).await.status, 200);
    clock.advance(chrono::TimeDelta::hours(2));
    assert_eq!(assign(&app, ("x-api-key", key(&second))).await.status, 401);
}

/// The last use is written in batches, changes no version, and reaches the list.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_is_written_later() {
    let app = TestApp::start().await;
    let made = make(&app, "client").await;
    let version = app
        .database()
        .text("SELECT version FROM config_version")
        .await;
    let used = "SELECT coalesce(last_used_at::text, 'never') FROM podium_api_keys";
    for _ in 0..3 {
        assert_eq!(assign(&app, ("x-api-key", key(&made))).await.status, 200);
    }
    assert_eq!(app.database().text(used).await, "never");
    store_notes(app.state()).await;
    assert_ne!(app.database().text(used).await, "never");
    assert_eq!(
        app.database()
            .text("SELECT version FROM config_version")
            .await,
        version
    );
    let read = app
        .admin(Method::GET, &format!("{KEYS}/{}", made["id"]), None)
        .await
        .data();
    assert!(read["lastUsedAt"].is_string());
}

/// Purchases from pages can be shut out, singly and in batches.
#[tokio::test(flavor = "multi_thread")]
async fn purchases_may_need_a_server() {
    let app = TestApp::setup()
        .variable("PURCHASES_REQUIRE_SERVER_KEY", "true")
        .start()
        .await;
    app.experiment("e").on("newsfeed").running().await;
    app.variant_of("e", "u").await;
    let (client, server) = (make(&app, "client").await, make(&app, "server").await);
    let purchase =
        json!({"user_id": "u", "event_type": "purchase", "value": 1, "experiment_id": "e"});
    let click = json!({"user_id": "u", "event_type": "click", "experiment_id": "e"});
    for path in [
        "/api/v1/experiments/track",
        "/api/v1/experiments/track-purchase",
    ] {
        app.post(path, &purchase).await.problem(401, "unauthorized");
        let by = |who| {
            call(
                &app,
                Method::POST,
                path,
                ("x-api-key", who),
                Some(&purchase),
            )
        };
        by(key(&client)).await.problem(403, "forbidden");
        by(key(&server)).await.ok();
    }
    app.post("/api/v1/experiments/track", &click).await.ok();
    let batch = json!({"events": [purchase, click, {"event_type": "purchase"}]});
    let results = app.track_any(batch.clone()).await.ok()["results"].clone();
    let statuses: Vec<&Value> = results
        .as_array()
        .unwrap()
        .iter()
        .map(|result| &result["status"])
        .collect();
    assert_eq!(statuses, [&json!(401), &json!(200), &json!(422)]);
    podium_api::background::store_notes(app.state()).await;
    let prefix = client["prefix"].as_str().unwrap();
    let noted = "SELECT actor, entity_id, after->>'status', after->>'reason', after->>'times' FROM audit_log
                 WHERE action = 'route.refuse' AND after->>'status' = '403' ORDER BY 2";
    let refused = |route: &str| {
        let actor = format!("api-key:{prefix}");
        [&actor, route, "403", "scope too low", "1"].map(str::to_owned)
    };
    assert_eq!(
        app.database().rows(noted).await,
        [
            refused("POST /api/v1/experiments/track"),
            refused("POST /api/v1/experiments/track-purchase")
        ]
    );
    let path = "/api/v1/experiments/track";
    let results = call(
        &app,
        Method::POST,
        path,
        ("x-api-key", key(&server)),
        Some(&batch),
    )
    .await
    .ok()["results"]
        .clone();
    assert_eq!(results[0]["status"], 200);
}

/// Only admins manage keys.
#[tokio::test(flavor = "multi_thread")]
async fn only_admins_manage_keys() {
    let app = TestApp::start().await;
    app.with_role(Role::Admin).await;
    let promoter = app.with_role(Role::Promoter).await;
    promoter
        .admin(Method::GET, KEYS, None)
        .await
        .problem(403, "forbidden");
    let body = json!({"name": "x", "scope": "admin"});
    promoter
        .admin(Method::POST, KEYS, Some(&body))
        .await
        .problem(403, "forbidden");
}
