//! Who may call what.

use chrono::TimeDelta;
use jsonwebtoken::Algorithm;
use podium_api::auth::Role;
use podium_api::clock::Clock;
use podium_api::routes::{Access, Route, table};
use podium_tests::app::SECRET;
use podium_tests::raw::exchange;
use podium_tests::{Answer, Client, MockClock, TestApp, token};
use reqwest::Method;
use serde_json::{Value, json};

/// A guarded row of the table of routes.
struct Guarded {
    method: Method,
    /// The least role that may.
    role: Role,
    /// A path that can be called.
    path: String,
}

impl Guarded {
    fn of(route: &Route) -> Option<Self> {
        let Access::Guarded(role) = route.access else {
            return None;
        };
        // Server and client libraries have a type of their own each.
        let method = Method::from_bytes(route.method.as_str().as_bytes()).unwrap();
        Some(Self {
            method,
            role,
            path: callable(route.path),
        })
    }

    fn reads(&self) -> bool {
        self.method == Method::GET
    }

    /// Whether its answer has no end.
    fn streams(&self) -> bool {
        self.path.ends_with("/stream")
    }

    fn body(&self) -> Option<Value> {
        (!self.reads()).then(|| json!({}))
    }
}

fn guarded() -> Vec<Guarded> {
    let rows: Vec<Guarded> = table().iter().filter_map(Guarded::of).collect();
    assert!(rows.len() > 20, "{} guarded routes", rows.len());
    rows
}

/// A guarded row that reads and needs this role.
fn reading(role: Role) -> Guarded {
    guarded()
        .into_iter()
        .find(|row| row.reads() && row.role == role && !row.path.contains('{'))
        .unwrap()
}

/// Every parameter becomes 1.
fn callable(path: &str) -> String {
    let parts = path.split('{').enumerate();
    parts
        .map(|(at, part)| {
            if at == 0 {
                part.to_owned()
            } else {
                format!("1{}", part.split_once('}').unwrap().1)
            }
        })
        .collect()
}

async fn call(client: &Client, row: &Guarded, authorization: &[&str]) -> Answer {
    let mut request = client.request(row.method.clone(), &row.path);
    for authorization in authorization {
        request = request.header("authorization", *authorization);
    }
    if let Some(body) = row.body() {
        request = request.json(&body);
    }
    Answer::of(request).await
}

fn refused(answer: &Answer, what: &str) {
    assert_eq!(
        answer.status,
        401,
        "{what}: {} {}",
        answer.status,
        answer.text()
    );
    answer.problem(401, "unauthorized");
    assert_eq!(answer.header("www-authenticate"), "Bearer", "{what}");
}

/// Without a good token every guarded route answers 401, and nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_enters_without_a_token() {
    let app = TestApp::start().await;
    let forged = token::forged();
    let good = token::valid("1");
    for row in guarded() {
        let name = format!("{} {}", row.method, row.path);
        refused(&call(&app, &row, &[]).await, &name);
        for (what, token) in &forged {
            refused(
                &call(&app, &row, &[&format!("Bearer {token}")]).await,
                &format!("{name}, {what}"),
            );
        }
        for wrong in [
            format!("Basic {good}"),
            good.clone(),
            format!("Bearer {good} x"),
            "Bearer".into(),
            "bearer ".into(),
        ] {
            refused(
                &call(&app, &row, &[&wrong]).await,
                &format!("{name}, {wrong}"),
            );
        }
        let good = format!("Bearer {good}");
        refused(
            &call(&app, &row, &[&good, &good]).await,
            &format!("{name}, twice"),
        );
    }
}

/// A user may do what his role may, and nothing above it.
#[tokio::test(flavor = "multi_thread")]
async fn roles_are_enough_or_not() {
    let app = TestApp::start().await;
    let mut clients = Vec::new();
    for role in [Role::Viewer, Role::Editor, Role::Promoter, Role::Admin] {
        clients.push((role, app.with_role(role).await));
    }
    let nobody = app.with_token(&token::valid("unknown user"));
    for row in guarded() {
        for (role, client) in &clients {
            // Reading only: what a permitted write does is the subject of other tests.
            if *role >= row.role && (!row.reads() || row.streams()) {
                continue;
            }
            let answer = client
                .admin(row.method.clone(), &row.path, row.body().as_ref())
                .await;
            let name = format!("{} {} as {}", row.method, row.path, role.name());
            if *role < row.role {
                assert_eq!(answer.status, 403, "{name}");
                answer.problem(403, "forbidden");
            } else {
                assert!(
                    !matches!(answer.status, 401 | 403 | 500),
                    "{name}: {}",
                    answer.status
                );
            }
        }
        nobody
            .admin(row.method.clone(), &row.path, row.body().as_ref())
            .await
            .problem(403, "forbidden");
    }
}

/// While there are no users the first one may do everything; as soon as there is one, only who is in the table.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_steps_back() {
    let app = TestApp::start().await;
    let row = reading(Role::Admin);
    assert_eq!(
        app.admin(row.method.clone(), &row.path, None).await.status,
        200
    );
    app.with_role(Role::Viewer).await;
    app.admin(row.method, &row.path, None)
        .await
        .problem(403, "forbidden");
}

/// Disabled users and old tokens are refused like strangers.
#[tokio::test(flavor = "multi_thread")]
async fn disabled_users_and_old_tokens_are_refused() {
    let app = TestApp::start().await;
    let viewer = app.with_role(Role::Viewer).await;
    let row = reading(Role::Viewer);
    let status = async || {
        viewer
            .admin(row.method.clone(), &row.path, None)
            .await
            .status
    };
    assert_ne!(status().await, 401);
    app.change("UPDATE podium_users SET disabled = true").await;
    assert_eq!(status().await, 401);
    app.change("UPDATE podium_users SET disabled = false, tokens_valid_after = now() + interval '1 minute'").await;
    assert_eq!(status().await, 401);
    app.change("UPDATE podium_users SET tokens_valid_after = now() - interval '1 hour'")
        .await;
    assert_ne!(status().await, 401);
}

/// Expiry goes by the clock of the process, with 30 seconds for clocks that differ.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_when_its_time_is_over() {
    let clock = MockClock::standing();
    let app = TestApp::setup().clock(clock.clone()).start().await;
    let row = reading(Role::Viewer);
    let token = app
        .state()
        .auth
        .issue("1", TimeDelta::hours(1), clock.now())
        .unwrap();
    let client = app.with_token(&token);
    let status = async || {
        client
            .admin(row.method.clone(), &row.path, None)
            .await
            .status
    };
    assert_ne!(status().await, 401);
    clock.advance(TimeDelta::seconds(3600 + 28));
    assert_ne!(status().await, 401);
    clock.advance(TimeDelta::seconds(4));
    assert_eq!(status().await, 401);
    clock.advance(TimeDelta::seconds(-3600 - 28));
    assert_ne!(status().await, 401);
    clock.advance(TimeDelta::seconds(-60));
    assert_eq!(status().await, 401, "issued in the future");
}

/// While secrets rotate both are good, and issuer and audience count where they are configured.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_rotate_and_parties_are_checked() {
    let previous = "the-secret-before-this-one-of-40-bytes!!";
    let setup = TestApp::setup().variable("JWT_SECRET_PREVIOUS", previous);
    let app = setup
        .variable("JWT_ISSUER", "shop")
        .variable("JWT_AUDIENCE", "podium")
        .start()
        .await;
    let row = reading(Role::Viewer);
    for (secret, issuer, audience, good) in [
        (SECRET, json!("shop"), json!("podium"), true),
        (previous, json!("shop"), json!("podium"), true),
        (previous, json!("shop"), json!(["other", "podium"]), true),
        (SECRET, json!("other"), json!("podium"), false),
        (SECRET, json!("shop"), json!("other"), false),
        (SECRET, json!(null), json!("podium"), false),
        (SECRET, json!("shop"), json!(null), false),
        (
            "neither-this-secret-nor-the-one-before!!",
            json!("shop"),
            json!("podium"),
            false,
        ),
    ] {
        let mut claims = token::claims("1");
        claims["iss"] = issuer.clone();
        claims["aud"] = audience.clone();
        let client = app.with_token(&token::signed(&claims, Algorithm::HS256, secret));
        let status = client
            .admin(row.method.clone(), &row.path, None)
            .await
            .status;
        assert_eq!(status != 401, good, "{issuer} {audience}");
    }
}

/// Odd spellings of guarded paths, and other methods, tell a stranger nothing.
#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_is_guarded() {
    let app = TestApp::start().await;
    for row in guarded() {
        let path = &row.path;
        for odd in spellings(path) {
            let request = format!(
                "{} {odd} HTTP/1.1\r\nHost: podium\r\nContent-Length: 0\r\n\r\n",
                row.method
            );
            let answer = exchange(app.address(), request.as_bytes()).await;
            refused(&answer, &format!("{} {odd}", row.method));
        }
        for method in [
            "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW",
        ] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: podium\r\nContent-Length: 0\r\n\r\n");
            let answer = exchange(app.address(), request.as_bytes()).await;
            refused(&answer, &format!("{method} {path}"));
        }
    }
}

fn spellings(path: &str) -> Vec<String> {
    let (first, rest) = path[1..].split_once('/').unwrap();
    let guarded = if path.contains("/admin") {
        "admin"
    } else {
        "auto-promote"
    };
    let mut encoded = String::new();
    for byte in guarded.bytes() {
        encoded += &format!("%{byte:02x}");
    }
    vec![
        format!("/{path}"),
        path.replace('/', "//"),
        format!("/{first}/./{rest}"),
        format!("/./{first}/{rest}"),
        format!("/{first}/%2e/{rest}"),
        format!("{path}/"),
        format!("{path}//"),
        format!("{path}/."),
        format!("{path}?"),
        format!("{path}?x=/../livez"),
        path.replace(guarded, &encoded),
        path.replacen(
            guarded,
            &format!("%{:02x}{}", guarded.as_bytes()[0], &guarded[1..]),
            1,
        ),
        path.replacen(
            guarded,
            &format!("%{:02X}{}", guarded.as_bytes()[0], &guarded[1..]),
            1,
        ),
        path.to_uppercase(),
        path.replace(guarded, &guarded.to_uppercase()),
        format!("/nothing/..{path}"),
        format!("http://podium{path}"),
    ]
}
