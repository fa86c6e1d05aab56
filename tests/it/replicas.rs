//! Two replicas behind a balancer, each a process of its own, on one database.

use podium_tests::{Answer, ApiProcess, Client, TestApp, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::PROGRAM;

const EXPERIMENTS: &str = "/api/v1/admin/experiments";

async fn change(client: &Client, method: Method, path: &str, body: Value) -> Answer {
    let answer = client.admin(method, path, Some(&body)).await;
    assert!(
        matches!(answer.status, 200 | 201),
        "{path}: {}",
        answer.text()
    );
    answer
}

async fn variant(client: &Client, user: &str) -> Value {
    let body = json!({"experiment": "e", "user_id": user});
    client.assign(body).await["variant"].clone()
}

/// A balancer sends every request somewhere else: what is changed on one replica holds on both, a unit has one variant, and
/// events count once wherever their copies arrive.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_are_one_service() {
    let app = TestApp::start().await;
    let variables = [("DATABASE_URL", app.database().url())];
    let a = ApiProcess::start(PROGRAM, &variables).await;
    let b = ApiProcess::start(PROGRAM, &variables).await;
    let both: [&Client; 2] = [&a, &b];

    let created = change(&a, Method::POST, EXPERIMENTS, json!({"name": "e"})).await;
    let id = created.data()["id"].clone();
    let of = |path: &str| format!("{EXPERIMENTS}/{id}{path}");
    for (name, control) in [("control", true), ("b", false)] {
        let body = json!({"name": name, "isControl": control});
        // The balancer: the second variant is made where the first is not known yet.
        change(
            both[usize::from(control)],
            Method::POST,
            &of("/variants"),
            body,
        )
        .await;
    }
    change(&b, Method::POST, &of("/start"), json!({})).await;
    assert_ne!(
        variant(&b, "first").await,
        "default",
        "in force where it was made"
    );
    eventually("the other replica runs it", async || {
        variant(&a, "first").await != "default"
    })
    .await;

    let mut told = Vec::new();
    for n in 0..50 {
        told.push(variant(both[n % 2], &format!("u{n}")).await);
    }
    let variants = a.admin(Method::GET, &of("/variants"), None).await;
    let etag = variants.header("etag").to_owned();
    let control = variants.data()[0]["id"].clone();
    let request = a.request(Method::PATCH, &of(&format!("/variants/{control}")));
    let request = request
        .bearer_auth(podium_tests::token::valid("1"))
        .header("if-match", etag)
        .json(&json!({"trafficWeight": 9}));
    assert_eq!(Answer::of(request).await.status, 200);
    for (n, variant_then) in told.iter().enumerate() {
        let now = variant(both[(n + 1) % 2], &format!("u{n}")).await;
        assert_eq!(now, *variant_then, "u{n} on the other replica");
    }

    for (at, client) in both.into_iter().enumerate() {
        let click = json!({"event_id": "1", "user_id": "u0", "experiment_id": "e"});
        let answer = client.track("click", click).await.ok();
        assert_eq!(answer["duplicate"], at == 1);
    }
    change(&a, Method::POST, &of("/pause"), json!({})).await;
    assert_eq!(variant(&a, "u0").await, "default");
    eventually("the other replica pauses", async || {
        variant(&b, "u0").await == "default"
    })
    .await;
}

/// That a unit has nothing is believed for no moment: what one replica stores counts on the other one at once, also for a unit
/// that the weights leave out.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_had_nothing_is_known_at_once() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").allocation("0").running().await;
    let variables = [("DATABASE_URL", app.database().url())];
    let a = ApiProcess::start(PROGRAM, &variables).await;
    let b = ApiProcess::start(PROGRAM, &variables).await;
    for unit in ["u", "v", "w"] {
        // It has nothing, and the first replica has just found that out on every route.
        assert_eq!(variant(&a, unit).await, "default");
        let purchase = json!({"user_id": unit, "value": 1});
        let nothing = a.track("purchase", purchase.clone()).await.ok();
        assert_eq!(nothing["recorded"], json!([]));
        // An SDK that evaluates locally names the variant to the second one.
        let click = json!({"user_id": unit, "variant_id": experiment.variant("b")});
        b.track("click", click).await.ok();
        assert_eq!(variant(&a, unit).await, "b");
        let recorded = a.track("purchase", purchase).await.ok();
        assert_eq!(recorded["recorded"], json!([experiment.id]));
    }
}

/// A rolling restart under the balancer: while each replica is replaced the other one serves, and nobody's variant changes.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_replaced_one_by_one() {
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let variables = [("DATABASE_URL", app.database().url())];
    let mut replicas = vec![
        ApiProcess::start(PROGRAM, &variables).await,
        ApiProcess::start(PROGRAM, &variables).await,
    ];
    let told = variant(&replicas[0], "u").await;
    for _ in 0..2 {
        let mut old = replicas.remove(0);
        old.terminate();
        assert_eq!(variant(&replicas[0], "u").await, told);
        assert_eq!(old.ended().await.code(), Some(0));
        replicas.push(ApiProcess::start(PROGRAM, &variables).await);
    }
    for replica in &replicas {
        assert_eq!(variant(replica, "u").await, told);
    }
}
