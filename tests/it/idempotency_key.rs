//! The same request again gets the answer of the first one.

use futures_util::future::join_all;
use podium_api::auth::Role;
use podium_tests::{Answer, TestApp, token};
use reqwest::Method;
use serde_json::{Value, json};

const EXPERIMENTS: &str = "/api/v1/admin/experiments";

async fn post(app: &TestApp, path: &str, key: &str, body: &Value) -> Answer {
    post_as(app, "1", path, key, body).await
}

async fn post_as(app: &TestApp, user: &str, path: &str, key: &str, body: &Value) -> Answer {
    let request = app
        .request(Method::POST, path)
        .bearer_auth(token::valid(user));
    Answer::of(request.header("idempotency-key", key).json(body)).await
}

async fn experiments(app: &TestApp) -> i64 {
    app.database()
        .number("SELECT count(*) FROM experiments")
        .await
}

/// Status, body and the headers that belong to it are repeated, on every replica and after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_repeated() {
    let mut app = TestApp::start().await;
    let body = json!({"name": "a"});
    let first = post(&app, EXPERIMENTS, "k1", &body).await;
    assert_eq!(
        (first.status, first.header("idempotency-replayed")),
        (201, "")
    );
    app.restart().await;
    for _ in 0..3 {
        let again = post(&app, EXPERIMENTS, "k1", &body).await;
        assert_eq!((again.status, &again.body), (201, &first.body));
        for header in ["etag", "location", "content-type", "cache-control"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    }
    assert_eq!(experiments(&app).await, 1);
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM audit_log")
            .await,
        1
    );
    // Another key is another request; and a refusal by the state is an answer like any other.
    let taken = post(&app, EXPERIMENTS, "k2", &body).await;
    taken.problem(409, "conflict");
    app.database().execute("DELETE FROM experiments").await;
    let again = post(&app, EXPERIMENTS, "k2", &body).await;
    assert_eq!(
        again.problem(409, "conflict")["detail"],
        taken.json()["detail"]
    );
    assert_eq!(again.header("idempotency-replayed"), "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_request_of_one_user() {
    let app = TestApp::start().await;
    app.with_role(Role::Admin).await;
    app.with_role(Role::Editor).await;
    let as_admin =
        async |path: &str, body: Value| post_as(&app, "user-admin", path, "k", &body).await;
    assert_eq!(
        as_admin(EXPERIMENTS, json!({"name": "a"})).await.status,
        201
    );
    as_admin(EXPERIMENTS, json!({"name": "b"}))
        .await
        .problem(422, "idempotency_mismatch");
    as_admin(EXPERIMENTS, json!({"name": "a", "description": ""}))
        .await
        .problem(422, "idempotency_mismatch");
    as_admin("/api/v1/admin/users", json!({"name": "a"}))
        .await
        .problem(422, "idempotency_mismatch");
    as_admin(&format!("{EXPERIMENTS}?x=1"), json!({"name": "a"}))
        .await
        .problem(422, "idempotency_mismatch");
    assert_eq!(
        post_as(&app, "user-editor", EXPERIMENTS, "k", &json!({"name": "b"}))
            .await
            .status,
        201
    );
    assert_eq!(experiments(&app).await, 2);
}

/// Of many copies at once one is carried out; the others get its answer, or hear that it runs.
#[tokio::test(flavor = "multi_thread")]
async fn copies_at_once_are_carried_out_once() {
    let app = TestApp::start().await;
    let other = app.replica().await;
    let body = json!({"name": "a key", "scope": "client"});
    let calls = (0..20).map(|n| {
        post(
            if n % 2 == 0 { &app } else { &other },
            "/api/v1/admin/api-keys",
            "k",
            &body,
        )
    });
    let answers = futures_util::future::join_all(calls).await;
    for answer in &answers {
        if answer.status != 201 {
            answer.problem(409, "conflict");
        }
    }
    assert!(answers.iter().any(|answer| answer.status == 201));
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM podium_api_keys")
            .await,
        1
    );
    let shown: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 201 && answer.data()["key"].is_string())
        .collect();
    assert_eq!(shown.len(), 1, "a key is shown once");
    let again = post(&app, "/api/v1/admin/api-keys", "k", &body).await;
    assert_eq!((again.status, &again.data()["key"]), (201, &Value::Null));
    let secret = shown[0].data()["key"].as_str().unwrap().to_owned();
    let kept = app
        .database()
        .text("SELECT convert_from(body, 'UTF8') FROM idempotency_keys")
        .await;
    assert!(!kept.contains(&secret), "what is kept opens nothing");
}

/// What was refused for its form is not kept: the client corrects it and sends it again with the same key.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_decided_nothing_frees_its_key() {
    let app = TestApp::start().await;
    post(&app, EXPERIMENTS, "k", &json!({"name": ""}))
        .await
        .problem(422, "validation_failed");
    let request = app
        .request(Method::POST, EXPERIMENTS)
        .bearer_auth(token::valid("1"))
        .header("idempotency-key", "k");
    Answer::of(request.header("content-type", "text/html").body("x"))
        .await
        .problem(415, "unsupported_media_type");
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM idempotency_keys")
            .await,
        0
    );
    assert_eq!(
        post(&app, EXPERIMENTS, "k", &json!({"name": "a"}))
            .await
            .status,
        201
    );
}

/// As a process leaves its key that dies before it answers; `dead`: so long ago that nobody renews it any more.
async fn cut_off(app: &TestApp, dead: bool) {
    let lease = if dead {
        "now()"
    } else {
        "now() + interval '1 minute'"
    };
    app.database()
        .execute(&format!(
            "UPDATE idempotency_keys SET status = NULL, headers = NULL, body = NULL, alive_until = {lease}"
        ))
        .await;
}

/// A request that made its change before its process died is not carried out again.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_cut_off_is_not_repeated_blindly() {
    let app = TestApp::start().await;
    let body = json!({"name": "a"});
    assert_eq!(post(&app, EXPERIMENTS, "k", &body).await.status, 201);
    for (dead, said) in [(false, "still runs"), (true, "answer was lost")] {
        cut_off(&app, dead).await;
        let problem = post(&app, EXPERIMENTS, "k", &body).await;
        let problem = problem.problem(409, "conflict");
        assert!(
            problem["detail"].as_str().unwrap().contains(said),
            "{problem}"
        );
        post(&app, EXPERIMENTS, "k", &json!({"name": "b"}))
            .await
            .problem(422, "idempotency_mismatch");
    }
    app.database()
        .execute("UPDATE idempotency_keys SET expires_at = now()")
        .await;
    assert_eq!(
        post(&app, EXPERIMENTS, "k", &json!({"name": "b"}))
            .await
            .status,
        201,
        "a day later"
    );
}

/// A request whose process died before it had changed anything is carried out by the next one, of several at once by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_died_early_is_carried_out_by_the_next() {
    let app = TestApp::start().await;
    let body = json!({"name": "a"});
    // As it stands after the claim: nothing is done, and no audit row names the request.
    assert_eq!(post(&app, EXPERIMENTS, "k", &body).await.status, 201);
    app.change("DELETE FROM experiments").await;
    cut_off(&app, false).await;
    app.database()
        .execute("UPDATE idempotency_keys SET request_id = 'died early'")
        .await;
    post(&app, EXPERIMENTS, "k", &body)
        .await
        .problem(409, "conflict");
    cut_off(&app, true).await;
    let answers = join_all((0..4).map(|_| post(&app, EXPERIMENTS, "k", &body))).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert!(
        created >= 1,
        "the first one, and whoever came after its answer"
    );
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer.status, 201 | 409))
    );
    assert_eq!(experiments(&app).await, 1);
    assert_eq!(post(&app, EXPERIMENTS, "k", &body).await.status, 201);
    assert_eq!(experiments(&app).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_checked_and_other_methods_ignore_them() {
    let app = TestApp::start().await;
    for key in ["".to_owned(), "two words".into(), "x".repeat(256)] {
        post(&app, EXPERIMENTS, &key, &json!({"name": "a"}))
            .await
            .problem(422, "validation_failed");
    }
    let twice = app
        .request(Method::POST, EXPERIMENTS)
        .bearer_auth(token::valid("1"));
    let twice = twice
        .header("idempotency-key", "a")
        .header("idempotency-key", "b");
    Answer::of(twice.json(&json!({"name": "a"})))
        .await
        .problem(422, "validation_failed");
    let read = app
        .request(Method::GET, EXPERIMENTS)
        .bearer_auth(token::valid("1"));
    assert_eq!(
        Answer::of(read.header("idempotency-key", "two words"))
            .await
            .status,
        200
    );
    assert_eq!(experiments(&app).await, 0);
    let longest = "x".repeat(255);
    assert_eq!(
        post(&app, EXPERIMENTS, &longest, &json!({"name": "a"}))
            .await
            .status,
        201
    );
}
