//! HTTP itself: methods, paths, limits, slow and broken clients.

use podium_api::routes::{Access, table};
use podium_tests::raw::{Connection, exchange, post_head};
use podium_tests::{Answer, TestApp};
use reqwest::Method;
use serde_json::json;

const ASSIGN: &str = "/api/v1/experiments/assign";
const TRACK: &str = "/api/v1/experiments/track";

/// Methods that a path does not take are answered with those that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_refused_with_those_that_are_allowed() {
    let app = TestApp::start().await;
    let routes = table();
    for route in routes.iter().filter(|route| route.access == Access::Public) {
        let allowed: Vec<String> = routes
            .iter()
            .filter(|other| other.path == route.path)
            .map(|other| other.method.to_string())
            .collect();
        for method in [
            "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW",
        ] {
            if allowed.iter().any(|allowed| allowed == method) {
                continue;
            }
            let request = app.request(Method::from_bytes(method.as_bytes()).unwrap(), route.path);
            let answer = Answer::of(request.json(&json!({}))).await;
            answer.problem(405, "method_not_allowed");
            assert_eq!(
                answer.header("allow"),
                allowed.join(", "),
                "{method} {}",
                route.path
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_are_not_found() {
    let app = TestApp::start().await;
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/experiments",
        "/api/v1/experiments/assign/",
        "/API/V1/EXPERIMENTS/ASSIGN",
        "/api/v1/experiments/track-",
        "/api/v1/experiments/track-view",
        "/api/v2/experiments/assign",
        "/index.php",
        "/.env",
        "/%00",
    ] {
        for method in [Method::GET, Method::POST] {
            let answer = Answer::of(app.request(method, path)).await;
            assert_eq!(answer.problem(404, "not_found")["instance"], path);
        }
    }
}

/// The id of a request is the client's where that is harmless, and always the same in header and body.
#[tokio::test(flavor = "multi_thread")]
async fn requests_have_ids() {
    let app = TestApp::start().await;
    let long = "x".repeat(129);
    for (sent, kept) in [
        ("abc-123", true),
        (long.as_str(), false),
        ("two words", false),
        ("", false),
    ] {
        for path in [ASSIGN, "/nowhere"] {
            let request = app
                .request(Method::POST, path)
                .header("x-request-id", sent)
                .json(&json!({"user_id": "u"}));
            let answer = Answer::of(request).await;
            let id = answer.header("x-request-id");
            assert!(!id.is_empty());
            assert_eq!(id == sent, kept, "{sent:?} became {id:?}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_content_types_are_refused() {
    let app = TestApp::start().await;
    for kind in [
        "application/xml",
        "text/html",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "json",
        "application/jsonx",
        "*/*",
    ] {
        for path in [
            ASSIGN,
            "/api/v1/experiments/assign/bulk",
            TRACK,
            "/api/v1/experiments/track-click",
        ] {
            let request = app
                .request(Method::POST, path)
                .header("content-type", kind)
                .body("{}");
            Answer::of(request)
                .await
                .problem(415, "unsupported_media_type");
        }
    }
}

/// A body that declares too much is refused before it is sent, and one that does not is counted as it comes.
#[tokio::test(flavor = "multi_thread")]
async fn huge_bodies_are_refused() {
    let app = TestApp::start().await;
    for (path, limit) in [
        (ASSIGN, 64 * 1024),
        ("/api/v1/experiments/track-click", 64 * 1024),
        ("/api/v1/experiments/assign/bulk", 1024 * 1024),
        (TRACK, 1024 * 1024),
    ] {
        for declared in [limit + 1, 1 << 40] {
            let head = post_head(path, &format!("Content-Length: {declared}\r\n"));
            exchange(app.address(), head.as_bytes())
                .await
                .problem(413, "too_large");
        }
        let blanks = " ".repeat(limit + 1);
        app.post_bytes(path, blanks.clone())
            .await
            .problem(413, "too_large");
        let chunked = post_head(path, "Transfer-Encoding: chunked\r\n");
        let mut connection = Connection::open(app.address()).await;
        connection
            .send(format!("{chunked}{:x}\r\n{blanks}\r\n", blanks.len()).as_bytes())
            .await;
        connection
            .answer()
            .await
            .expect("an answer")
            .problem(413, "too_large");
        // At the limit the body is read and found to be no JSON.
        app.post_bytes(path, " ".repeat(limit))
            .await
            .problem(400, "malformed_json");
    }
}

/// A body that never ends is given up after ten seconds, and the worker serves others meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_given_up() {
    let app = TestApp::start().await;
    let mut slow = Vec::new();
    for headers in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut connection = Connection::open(app.address()).await;
        connection.send(post_head(TRACK, headers).as_bytes()).await;
        connection.send(b"1").await;
        slow.push(connection);
    }
    assert_eq!(app.get("/livez").await.status, 200);
    for mut connection in slow {
        connection
            .answer()
            .await
            .expect("an answer")
            .problem(408, "request_timeout");
    }
}

/// A client that goes away in the middle leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_vanish() {
    let app = TestApp::start().await;
    for part in [&b"PO"[..], b"POST /api/v1/experiments/track HTTP/1.1\r\nContent-Le", b"POST /api/v1/experiments/track HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{\"user_id\""] {
        let mut connection = Connection::open(app.address()).await;
        connection.send(part).await;
        connection.finish().await;
        if let Some(answer) = connection.answer().await {
            assert!((400..500).contains(&answer.status), "{}", answer.status);
        }
    }
    assert_eq!(app.get("/livez").await.status, 200);
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_event_keys")
            .await,
        0
    );
}

/// What is not HTTP is answered 400, and the connection is closed.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_http_is_refused_and_closed() {
    let app = TestApp::start().await;
    let body = "{\"user_id\":\"u\"}";
    for request in [
        "nonsense\r\n\r\n".to_owned(),
        "GET\r\n\r\n".into(),
        "GET /livez HTTP/9.9\r\nHost: x\r\n\r\n".into(),
        "GET /livez HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n".into(),
        "GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n".into(),
        post_head(ASSIGN, "Content-Length: 15\r\nContent-Length: 16\r\n") + body,
        post_head(ASSIGN, "Content-Length: -1\r\n") + body,
        post_head(ASSIGN, "Content-Length: abc\r\n") + body,
        post_head(
            ASSIGN,
            "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
        ) + "0\r\n\r\n",
        post_head(ASSIGN, "Transfer-Encoding: chunked, identity\r\n") + "0\r\n\r\n",
        post_head(ASSIGN, "Transfer-Encoding: chunked\r\n") + "zz\r\n{}\r\n0\r\n\r\n",
    ] {
        let mut connection = Connection::open(app.address()).await;
        connection.send(request.as_bytes()).await;
        let answer = connection
            .answer()
            .await
            .unwrap_or_else(|| panic!("no answer to {request:?}"));
        assert_eq!(answer.status, 400, "{request:?}: {}", answer.text());
        assert!(connection.is_closed().await, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_addresses_and_headers_are_refused() {
    let app = TestApp::start().await;
    let get = async |path: &str, headers: &str| {
        exchange(
            app.address(),
            format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes(),
        )
        .await
    };
    let fits = format!("/livez?{}", "x".repeat(8 * 1024 - 7));
    assert_eq!(get(&fits, "").await.status, 200);
    get(&format!("{fits}x"), "")
        .await
        .problem(414, "uri_too_long");
    assert_eq!(
        get(&format!("/livez?{}", "x".repeat(200 * 1024)), "")
            .await
            .status
            / 100,
        4
    );
    let many: String = (0..200).map(|n| format!("X-{n}: {n}\r\n")).collect();
    assert_eq!(get("/livez", &many).await.status, 431);
    assert_eq!(
        get("/livez", &format!("X-Long: {}\r\n", "x".repeat(65 * 1024)))
            .await
            .status,
        431
    );
}

/// Answers come in the order of requests that were sent at once.
#[tokio::test(flavor = "multi_thread")]
async fn requests_may_be_sent_at_once() {
    let app = TestApp::start().await;
    app.experiment("e").on("newsfeed").running().await;
    let mut connection = Connection::open(app.address()).await;
    let bodies: Vec<String> = ["{\"user_id\":\"u\"}", "{", "{\"user_id\":\"u\"}", "{}"]
        .map(str::to_owned)
        .into();
    for body in &bodies {
        connection
            .send(
                format!(
                    "{}{body}",
                    post_head(ASSIGN, &format!("Content-Length: {}\r\n", body.len()))
                )
                .as_bytes(),
            )
            .await;
    }
    for expected in [200, 400, 200, 400] {
        assert_eq!(connection.answer().await.unwrap().status, expected);
    }
}
