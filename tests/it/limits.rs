//! Rate limits: who is counted, what is answered, and what is never limited. Rates of one in a long time make every outcome
//! independent of how fast the test runs.

use podium_api::routes::{Access, table};
use podium_tests::{Answer, Setup, TestApp, token};
use reqwest::Method;
use serde_json::json;

const ASSIGN: &str = "/api/v1/experiments/assign";
const USERS: &str = "/api/v1/admin/users";

/// One request a second, two at once.
fn slow() -> Setup {
    TestApp::setup()
        .variable("RATE_LIMIT_ENABLED", "true")
        .variable("RATE_LIMIT_PUBLIC_RPS", "1")
        .variable("RATE_LIMIT_ADMIN_RPS", "1")
        .variable("RATE_LIMIT_BAD_TOKENS_PER_MINUTE", "2")
}

async fn assign_from(app: &TestApp, header: &str, value: &str) -> Answer {
    let request = app.request(Method::POST, ASSIGN).header(header, value);
    Answer::of(request.json(&json!({"user_id": "u"}))).await
}

fn limited(answer: &Answer) -> bool {
    if answer.status == 429 {
        answer.problem(429, "rate_limited");
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
    }
    answer.status == 429
}

/// So many at once that, however slow the machine, some are over the limit.
async fn is_ever_limited(call: impl AsyncFn() -> Answer) -> bool {
    let calls = (0..40).map(|_| call());
    futures_util::future::join_all(calls)
        .await
        .iter()
        .any(limited)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_a_limit_on_public_routes() {
    let app = slow().start().await;
    assert!(is_ever_limited(async || app.post(ASSIGN, &json!({"user_id": "u"})).await).await);
    // A limit is for an address, so other routes of the storefront share it, and the admin's are apart.
    for path in [
        "/livez",
        "/readyz",
        "/api/v1/health",
        "/api/v1/openapi.json",
    ] {
        assert!(
            !is_ever_limited(async || app.get(path).await).await,
            "{path}"
        );
    }
}

/// Signs of life are not in the storefront, and everything that is public otherwise is.
#[test]
fn signs_of_life_are_never_limited() {
    for route in table() {
        let storefront = route.path.starts_with("/api/v1/experiments/");
        if route.access == Access::Public {
            assert_eq!(
                route.is_storefront(),
                storefront,
                "{} {}",
                route.method,
                route.path
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_a_limit_on_guarded_routes() {
    let app = slow().start().await;
    let other = app.with_token(&token::valid("2"));
    assert!(is_ever_limited(async || app.admin(Method::GET, USERS, None).await).await);
    assert_eq!(
        other.admin(Method::GET, USERS, None).await.status,
        403,
        "others have their own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_have_a_limit_that_good_ones_do_not_feel() {
    let app = slow()
        .variable("RATE_LIMIT_ADMIN_RPS", "1000")
        .start()
        .await;
    let stranger = app.with_token("nonsense");
    assert!(is_ever_limited(async || stranger.admin(Method::GET, USERS, None).await).await);
    assert_eq!(app.admin(Method::GET, USERS, None).await.status, 200);
}

/// Whoever may not has the limit of whoever may; what is over it still counts for the audit log.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_count_like_what_is_granted() {
    let app = slow().start().await;
    app.change("INSERT INTO podium_users (id, role) VALUES ('1', 'admin'), ('2', 'viewer')")
        .await;
    let viewer = app.with_token(&token::valid("2"));
    for user in [viewer, app.with_token(&token::valid("3"))] {
        let body = json!({});
        let change = async || {
            let answer = user.admin(Method::POST, USERS, Some(&body)).await;
            assert!(matches!(answer.status, 403 | 429), "{}", answer.status);
            answer
        };
        assert!(is_ever_limited(change).await);
    }
    podium_api::background::store_notes(app.state()).await;
    let noted = "SELECT actor, after->>'status', after->>'times' FROM audit_log WHERE action = 'route.refuse' ORDER BY 1";
    assert_eq!(
        app.database().rows(noted).await,
        [["2", "403", "40"], ["3", "403", "40"]]
    );
}

/// Promotions and rollbacks of a user share a limit of their own; questions and scans, and other users, do not feel it.
#[tokio::test(flavor = "multi_thread")]
async fn promotions_and_rollbacks_of_a_user_have_a_limit() {
    const ROUTE: &str = "/api/v1/experiments/auto-promote";
    let app = slow()
        .variable("RATE_LIMIT_ADMIN_RPS", "1000")
        .variable("RATE_LIMIT_PROMOTIONS_PER_MINUTE", "1")
        .start()
        .await;
    app.change("INSERT INTO podium_users (id, role) VALUES ('1', 'promoter'), ('2', 'promoter'), ('3', 'promoter')")
        .await;
    let promote = json!({"action": "promote", "experimentName": "none"});
    let id = "00000000-0000-0000-0000-000000000001";
    let rollback = json!({"action": "rollback", "promotionId": id, "reason": "a test"});
    let check = json!({"action": "check", "experimentName": "none"});
    let scan = json!({"action": "scan", "config": {"dryRun": true}});
    for (user, body) in [("1", &promote), ("2", &rollback)] {
        let user = app.with_token(&token::valid(user));
        let ask = async || user.admin(Method::POST, ROUTE, Some(body)).await;
        assert!(is_ever_limited(ask).await, "{body}");
        for body in [&check, &scan] {
            let ask = async || user.admin(Method::POST, ROUTE, Some(body)).await;
            assert!(!is_ever_limited(ask).await, "{body}");
        }
    }
    let other = app.with_token(&token::valid("3"));
    let answer = other.admin(Method::POST, ROUTE, Some(&promote)).await;
    answer.problem(404, "not_found");
}

/// What a client writes about itself is not believed; what a trusted proxy says of it is.
#[tokio::test(flavor = "multi_thread")]
async fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
    let app = slow().start().await;
    let mut number = 0;
    let mut next = || {
        number += 1;
        format!("198.51.100.{number}")
    };
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(assign_from(&app, "x-forwarded-for", &next()).await);
    }
    assert!(answers.iter().any(limited), "nobody is trusted");

    let app = slow()
        .variable("TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8")
        .start()
        .await;
    for _ in 0..40 {
        assert!(!limited(
            &assign_from(&app, "x-forwarded-for", &next()).await
        ));
    }
    let forged = async |n: u32| {
        assign_from(
            &app,
            "x-forwarded-for",
            &format!("192.0.2.{n}, 203.0.113.5, 10.0.0.1"),
        )
        .await
    };
    let answers = futures_util::future::join_all((0..40).map(forged)).await;
    assert!(
        answers.iter().any(limited),
        "the right-most stranger counts"
    );
    // Forty addresses of one household.
    let household =
        async |n: u32| assign_from(&app, "x-forwarded-for", &format!("2001:db8:1:2::{n:x}")).await;
    let answers = futures_util::future::join_all((0..40).map(household)).await;
    assert!(answers.iter().any(limited), "a /64 is one client");
    // The other header is not read where it is not configured.
    let answers: Vec<_> = (0..40).map(|n| format!("for=192.0.2.{n}")).collect();
    let calls = answers
        .iter()
        .map(|value| assign_from(&app, "forwarded", value));
    assert!(
        futures_util::future::join_all(calls)
            .await
            .iter()
            .any(limited)
    );
}

/// Servers call for all visitors of a shop, so their keys have no limit.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_servers_have_no_limit() {
    let app = slow()
        .variable("RATE_LIMIT_ADMIN_RPS", "1000")
        .start()
        .await;
    for (scope, free) in [("server", true), ("admin", true), ("client", false)] {
        let body = json!({"name": scope, "scope": scope});
        let made = app
            .admin(Method::POST, "/api/v1/admin/api-keys", Some(&body))
            .await
            .data();
        let key = made["key"].as_str().unwrap();
        let limited = is_ever_limited(async || assign_from(&app, "x-api-key", key).await).await;
        assert_eq!(limited, !free, "{scope}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_can_be_switched_off() {
    let app = slow().variable("RATE_LIMIT_ENABLED", "false").start().await;
    assert!(!is_ever_limited(async || app.post(ASSIGN, &json!({"user_id": "u"})).await).await);
}
