//! Pages of other origins, and what browsers are told to leave alone.

use podium_tests::{Answer, TestApp};
use reqwest::Method;
use serde_json::json;

const ASSIGN: &str = "/api/v1/experiments/assign";
const SHOP: &str = "https://shop.example";

async fn preflight(app: &TestApp, path: &str, origin: &str) -> Answer {
    let request = app.request(Method::OPTIONS, path).header("origin", origin);
    Answer::of(
        request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,x-api-key"),
    )
    .await
}

async fn assign(app: &TestApp, origin: &str) -> Answer {
    let request = app.request(Method::POST, ASSIGN).header("origin", origin);
    Answer::of(request.json(&json!({"user_id": "u"}))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_listed_origins_may_call() {
    let app = TestApp::setup()
        .variable(
            "CORS_ALLOWED_ORIGINS",
            "https://shop.example, http://localhost:5173",
        )
        .start()
        .await;
    for origin in [SHOP, "http://localhost:5173"] {
        let leave = preflight(&app, ASSIGN, origin).await;
        assert_eq!(leave.status, 204, "{}", leave.text());
        assert_eq!(leave.header("access-control-allow-origin"), origin);
        assert_eq!(leave.header("access-control-allow-methods"), "POST");
        for header in [
            "content-type",
            "authorization",
            "x-api-key",
            "if-match",
            "idempotency-key",
        ] {
            assert!(
                leave
                    .header("access-control-allow-headers")
                    .contains(header),
                "{header}"
            );
        }
        assert_eq!(leave.header("access-control-allow-credentials"), "");
        let answer = assign(&app, origin).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (200, origin)
        );
        assert_eq!(answer.header("vary"), "origin");
        for header in ["etag", "retry-after", "x-request-id"] {
            assert!(
                answer
                    .header("access-control-expose-headers")
                    .contains(header),
                "{header}"
            );
        }
    }
    // A refusal can be read too, or the page would only learn that something failed.
    let refused = app
        .request(Method::GET, "/api/v1/admin/users")
        .header("origin", SHOP);
    let refused = Answer::of(refused).await;
    assert_eq!(
        (
            refused.status,
            refused.header("access-control-allow-origin")
        ),
        (401, SHOP)
    );
    // Asking before a guarded call needs no token: browsers send none.
    assert_eq!(
        preflight(&app, "/api/v1/admin/experiments", SHOP)
            .await
            .status,
        204
    );
    for stranger in [
        "https://evil.example",
        "https://shop.example.evil.example",
        "http://shop.example",
        "null",
        "https://SHOP.example",
        "",
    ] {
        let leave = preflight(&app, ASSIGN, stranger).await;
        leave.problem(405, "method_not_allowed");
        assert_eq!(
            leave.header("access-control-allow-origin"),
            "",
            "{stranger}"
        );
        let answer = assign(&app, stranger).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (200, ""),
            "{stranger}"
        );
        assert_eq!(answer.header("vary"), "origin");
    }
    preflight(&app, "/nowhere", SHOP)
        .await
        .problem(404, "not_found");
    preflight(&app, "/api/v1/admin/nowhere", SHOP)
        .await
        .problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_may_call_where_that_is_said() {
    let app = TestApp::setup()
        .variable("CORS_ALLOWED_ORIGINS", "*")
        .start()
        .await;
    assert_eq!(
        preflight(&app, ASSIGN, "https://any.example")
            .await
            .header("access-control-allow-origin"),
        "*"
    );
    let answer = assign(&app, "https://any.example").await;
    assert_eq!(
        (
            answer.header("access-control-allow-origin"),
            answer.header("vary")
        ),
        ("*", "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_where_nothing_is_configured() {
    let app = TestApp::start().await;
    preflight(&app, ASSIGN, SHOP)
        .await
        .problem(405, "method_not_allowed");
    let answer = assign(&app, SHOP).await;
    assert!(
        answer
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("access-control"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_protect_themselves_in_browsers() {
    let app = TestApp::start().await;
    for path in [
        "/api/v1/admin/users",
        "/api/v1/health",
        "/nowhere",
        "/docs/",
    ] {
        let answer = app.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert_eq!(
            policy.contains("script-src 'self'"),
            path == "/docs/",
            "{path}: {policy}"
        );
    }
    let page = app.get("/docs/").await.text();
    assert!(
        !page.contains("<script>"),
        "scripts in the page would not run"
    );
}
