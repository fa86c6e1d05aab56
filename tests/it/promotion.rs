//! Promotions over real HTTP: what the earlier system's calls do, who wins a race, and that a dry run is one.

use futures_util::future::join_all;
use podium_api::auth::Role;
use podium_promotion::replay::replay;
use podium_storage::promotions::records;
use podium_tests::{Answer, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::worker;

pub(crate) const ROUTE: &str = "/api/experiments/auto-promote";
const BESIDE: &str = "/api/v1/experiments/auto-promote";
/// Every table that a promotion writes to.
const WRITTEN: [&str; 14] = [
    "experiments",
    "experiment_epochs",
    "experiment_promotions",
    "ab_promotion_audit_log",
    "audit_log",
    "notification_logs",
    "notification_outbox",
    "promotion_analyses",
    "promotion_looks",
    "promotion_decisions",
    "promotion_verdicts",
    "promotion_rollouts",
    "promotion_scans",
    "alerts",
];

/// An application that may promote on its own.
async fn start() -> TestApp {
    TestApp::setup()
        .variable("AUTO_PROMOTION_ENABLED", "true")
        .start()
        .await
}

/// A running experiment of ten days with these conversions among 20,000 units each, and the ids `10 id + 1` and up.
pub(crate) async fn experiment(app: &TestApp, id: i64, name: &str, conversions: &[i64]) {
    app.change(&statements(id, name, conversions)).await;
}

/// What makes the experiment of [`experiment`].
pub(crate) fn statements(id: i64, name: &str, conversions: &[i64]) -> String {
    let names = ["control", "variant-b", "variant-c"];
    let weights: Vec<String> = (1..=conversions.len())
        .map(|at| format!("\"{}\": \"1\"", 10 * id + i64::try_from(at).unwrap()))
        .collect();
    let mut sql = format!(
        "INSERT INTO experiments (id, name, status, start_date, salt, epoch)
         VALUES ({id}, '{name}', 'running', now() - interval '10 days', '{name}', 1);
         INSERT INTO experiment_epochs VALUES ({id}, 1, now() - interval '10 days', 100, '{{{}}}');",
        weights.join(", ")
    );
    for (at, converted) in conversions.iter().enumerate() {
        let (variant, name) = (10 * id + 1 + i64::try_from(at).unwrap(), names[at]);
        sql += &format!(
            "INSERT INTO experiment_variants (id, experiment_id, name, traffic_weight, is_control)
             VALUES ({variant}, {id}, '{name}', 1, {});
             INSERT INTO variant_moments (experiment_id, variant_id, epoch, units, purchasing_units, sum_purchases, sq_purchases)
             VALUES ({id}, {variant}, 1, 20000, {converted}, {converted}, {converted});",
            at == 0
        );
    }
    sql
}

/// 10 % against 12 %.
pub(crate) const CLEAR: [i64; 2] = [2_000, 2_400];
/// No difference.
const EQUAL: [i64; 2] = [2_000, 2_000];

/// Equal, but for what a moment more of runtime changes in numbers.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= 1e-4 * other.abs().max(1.0)
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| alike(a, b))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len() && one.iter().all(|(key, value)| alike(value, &other[key]))
        }
        _ => one == other,
    }
}

async fn post(app: &TestApp, body: &Value) -> Answer {
    app.admin(Method::POST, ROUTE, Some(body)).await
}

async fn check(app: &TestApp, name: &str) -> Value {
    let answer = post(app, &json!({"action": "check", "experimentName": name})).await;
    answer.data()
}

fn reasons(check: &Value) -> String {
    check["reasons"].to_string()
}

async fn count(app: &TestApp, sql: &str) -> i64 {
    app.database()
        .number(&format!("SELECT count(*) FROM {sql}"))
        .await
}

/// A digest of everything that a promotion writes.
async fn state(app: &TestApp) -> Vec<String> {
    let mut digests = Vec::new();
    for table in WRITTEN {
        let sql = format!(
            "SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} t"
        );
        digests.push(format!("{table} {}", app.database().text(&sql).await));
    }
    digests
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_the_earlier_system_work_as_they_are_written() {
    for path in [ROUTE, BESIDE] {
        the_calls_work_under(path).await;
    }
}

async fn the_calls_work_under(path: &str) {
    let app = start().await;
    experiment(&app, 1, "homepage-cta-test", &CLEAR).await;
    // curl without a header of its own calls every body a form.
    let call = async |body: &str| {
        let request = app
            .request(Method::POST, path)
            .bearer_auth(podium_tests::token::valid("1"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.to_owned());
        Answer::of(request).await
    };
    let scan = r#"{"action": "scan", "preset": "balanced", "dryRun": true}"#;
    // The first call says what it sends, the others do not.
    let said = app
        .request(Method::POST, path)
        .bearer_auth(podium_tests::token::valid("1"));
    let said = said.header("content-type", "application/json").body(scan);
    assert_eq!(Answer::of(said).await.data()["eligible"], 1);
    let scan = call(scan).await.ok();
    assert_eq!(
        (&scan["success"], &scan["action"], &scan["config"]),
        (
            &json!(true),
            &json!("scan"),
            &json!({"enabled": true, "dryRun": true, "preset": "balanced"})
        )
    );
    assert_eq!(
        (
            &scan["data"]["scanned"],
            &scan["data"]["eligible"],
            &scan["data"]["promoted"]
        ),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!(
        scan["data"]["results"][0]["experimentName"],
        "homepage-cta-test"
    );
    assert_eq!(scan["data"]["results"][0]["eligible"], true);
    assert!(scan["timestamp"].is_string());
    let checked = call(r#"{"action": "check", "experimentName": "homepage-cta-test"}"#)
        .await
        .data();
    assert_eq!(checked["eligible"], true, "{checked}");
    assert_eq!(checked["verdict"], "promote");
    assert_eq!(
        checked["winningVariant"],
        json!({"variantId": 12, "variantName": "variant-b", "successRate": 0.12, "sampleSize": 20_000})
    );
    assert_eq!(checked["controlVariant"]["variantName"], "control");
    assert!(checked["confidence"].as_f64().unwrap() > 99.9);
    assert!((checked["improvement"].as_f64().unwrap() - 20.0).abs() < 1e-9);
    assert_eq!(checked["safetyChecks"].as_array().unwrap().len(), 4);
    for member in [
        "name",
        "passed",
        "message",
        "value",
        "threshold",
        "severity",
    ] {
        assert!(checked["safetyChecks"][2].get(member).is_some(), "{member}");
    }
    assert_eq!(checked["reasons"], json!([]));
    assert!(checked["interval"]["lower"].as_f64().unwrap() > 0.0);
    assert!(checked["anytimeValid"]["eValue"].as_f64().unwrap() > 100.0);
    assert!(checked["shrunkImprovement"].as_f64().unwrap() < 20.0);
    assert!(checked["looks"].as_i64().unwrap() > 0);
    let promoted = call(
        r#"{"action": "promote", "experimentName": "homepage-cta-test",
            "config": {"notifications": {"enabled": true, "channels": ["slack", "email"], "includeDetailedMetrics": true}}}"#,
    )
    .await
    .data();
    assert_eq!(promoted["success"], true);
    assert_eq!(promoted["promotedVariantName"], "variant-b");
    assert_eq!(promoted["notificationsSent"], 0);
    assert!(alike(&promoted["confidence"], &checked["confidence"]));
    let id = promoted["promotionId"].as_str().unwrap().to_owned();
    let rolled_back = call(&format!(
        r#"{{"action": "rollback", "promotionId": "{id}", "reason": "Performance regression detected in production"}}"#
    ))
    .await
    .data();
    assert_eq!(rolled_back["promotionId"], id.as_str());
    assert_eq!(
        app.database().text("SELECT status FROM experiments").await,
        "running"
    );
    call(r#"{"action": "rollback", "promotionId": "uuid-here", "reason": "x"}"#)
        .await
        .problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_whole_and_told_to_everybody_who_listens() {
    let app = start().await;
    experiment(&app, 1, "cta", &[2_000, 2_400, 2_300]).await;
    app.database()
        .execute(
            "INSERT INTO notification_configs (user_id, channel, webhook_url) VALUES ('1', 'slack', 'https://x.example/1');
             INSERT INTO notification_configs (user_id, channel, alert_levels) VALUES ('2', 'email', '{critical}')",
        )
        .await;
    let body = json!({"action": "promote", "experimentName": "cta", "variantName": "variant-c"});
    let promoted = app.admin(Method::POST, BESIDE, Some(&body)).await.data();
    assert_eq!(promoted["promotedVariantName"], "variant-c");
    assert_eq!(promoted["notificationsSent"], 1);
    let row = app
        .database()
        .rows("SELECT status, winner_variant_id::text, end_date IS NOT NULL FROM experiments")
        .await;
    assert_eq!(row, [["completed", "13", "t"]]);
    let row = app
        .database()
        .rows("SELECT promotion_type, promoted_by, control_variant_name, sample_size::text FROM experiment_promotions")
        .await;
    assert_eq!(row, [["manual", "1", "control", "20000"]]);
    let row = app
        .database()
        .rows("SELECT action, triggered_by, user_id, jsonb_array_length(safety_checks_json)::text FROM ab_promotion_audit_log")
        .await;
    assert_eq!(row, [["promoted", "manual", "1", "4"]]);
    assert_eq!(
        count(&app, "audit_log WHERE action = 'promotion.promote'").await,
        1
    );
    assert_eq!(count(&app, "notification_outbox").await, 1);
    // Looks of both treatments, and the design that was frozen with them.
    assert_eq!(
        count(&app, "(SELECT DISTINCT variant_id FROM promotion_looks) v").await,
        2
    );
    assert_eq!(
        count(&app, "promotion_analyses WHERE design IS NOT NULL").await,
        1
    );
    let id = promoted["promotionId"].as_str().unwrap();
    let path = format!("/api/v1/admin/promotions/{id}");
    let detail = app.admin(Method::GET, &path, None).await.data();
    assert_eq!(detail["active"], true);
    // What the guard would find is in the answer, the promotion and the report.
    let report = app
        .admin(Method::GET, "/api/v1/admin/experiments/cta/report", None)
        .await
        .data();
    for watch in [&detail["watch"], &report["promotion"]] {
        assert_eq!(watch["promotionId"], promoted["promotionId"]);
        assert_eq!(watch["detectableDrop"], promoted["detectableDrop"]);
        assert!(watch["detectableDrop"].is_number(), "{watch}");
    }
    let decision = &detail["decisions"][0];
    assert_eq!(
        (&decision["kind"], &decision["version"]),
        (
            &json!("promoted"),
            &json!(podium_promotion::decide::DECISION_VERSION)
        )
    );
    assert_eq!(
        decision["evidence"]["treatments"][1]["arm"]["name"],
        "variant-c"
    );
    let list = app
        .admin(Method::GET, "/api/v1/admin/promotions?active=true", None)
        .await
        .data();
    assert_eq!(list[0]["id"], id);
    let none = app
        .admin(Method::GET, "/api/v1/admin/promotions?active=false", None)
        .await
        .data();
    assert_eq!(none, json!([]));
    let stats = app
        .admin(Method::GET, "/api/v1/admin/promotions/stats", None)
        .await
        .data();
    assert_eq!(
        (
            &stats["totalPromotions"],
            &stats["manualPromotions"],
            &stats["activePromotions"]
        ),
        (&json!(1), &json!(1), &json!(1))
    );
    // The verdict comes out of the stored evidence again, and another one of other evidence.
    let record = decision["id"].as_i64().unwrap();
    let mut link = app.state().database.serve().await.unwrap();
    let mut record = records::by_id(&mut link, record).await.unwrap().unwrap();
    let again = replay(&record).unwrap();
    assert!(again.same, "{again:?}");
    record.evidence.as_mut().unwrap()["lagSeconds"] = json!(5_000.0);
    assert!(!replay(&record).unwrap().same);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_answers_like_a_live_run_and_writes_nothing() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    experiment(&app, 2, "flat", &EQUAL).await;
    app.database()
        .execute("INSERT INTO notification_configs (user_id, channel, webhook_url) VALUES ('1', 'slack', 'https://x.example/1')")
        .await;
    let before = state(&app).await;
    let mut dry = Vec::new();
    for body in [
        json!({"action": "promote", "experimentName": "cta", "dryRun": true}),
        json!({"action": "promote", "experimentName": "cta", "config": {"dryRun": true}, "dryRun": false}),
    ] {
        dry.push(post(&app, &body).await.data());
    }
    let refused = post(
        &app,
        &json!({"action": "promote", "experimentName": "flat", "dryRun": true}),
    )
    .await;
    let scan = post(&app, &json!({"action": "scan", "dryRun": true}))
        .await
        .data();
    assert_eq!(scan["results"][0]["outcome"], "would_promote");
    check(&app, "cta").await;
    post(
        &app,
        &json!({"action": "promote", "experimentName": "cta", "dryrun": true}),
    )
    .await
    .problem(400, "validation_failed");
    assert_eq!(state(&app).await, before);
    let live = post(&app, &json!({"action": "promote", "experimentName": "cta"}))
        .await
        .data();
    assert!(live["promotionId"].is_string());
    assert_eq!(live["notificationsSent"], 1);
    assert!(live["detectableDrop"].as_f64().unwrap() > 0.0);
    for mut answer in dry {
        assert_eq!(answer["promotionId"], Value::Null);
        for member in ["promotionId", "decisionId"] {
            answer[member] = live[member].clone();
        }
        // The totals are as old as they are.
        answer["check"]["criteria"][6] = live["check"]["criteria"][6].clone();
        assert!(alike(&answer, &live), "{answer} is not {live}");
    }
    let mut refused = refused.problem(409, "not_eligible");
    let mut as_well = post(
        &app,
        &json!({"action": "promote", "experimentName": "flat"}),
    )
    .await
    .problem(409, "not_eligible");
    for answer in [&mut refused, &mut as_well] {
        answer["requestId"] = Value::Null;
        answer["data"]["eligibleAt"] = Value::Null;
        answer["data"]["criteria"][6] = Value::Null;
    }
    assert!(alike(&refused, &as_well), "{refused} is not {as_well}");
}

/// Whoever asks for a promotion while one is in force is refused, and that he asked is written down.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_while_a_promotion_is_in_force_is_noted() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    let promote = json!({"action": "promote", "experimentName": "cta"});
    post(&app, &promote).await.data();
    let forced =
        json!({"action": "promote", "experimentName": "cta", "force": true, "reason": "I know"});
    for body in [&promote, &forced] {
        post(&app, body).await.problem(409, "not_eligible");
    }
    let row = app
        .database()
        .rows("SELECT action, triggered_by, user_id, reason LIKE '%active promotion%' FROM ab_promotion_audit_log ORDER BY id")
        .await;
    let refused = ["promotion_attempted", "manual", "1", "t"];
    assert_eq!(row[1..], [refused, refused]);
    assert_eq!(row[0][..3], ["promoted", "manual", "1"]);
    assert_eq!(count(&app, "experiment_promotions").await, 1);
}

/// Under `AUTO_PROMOTION_DRY_RUN` a rollback over HTTP and one by the worker answer, and change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_in_a_dry_run_is_one_for_api_and_worker() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    let promoted = post(&app, &json!({"action": "promote", "experimentName": "cta"}))
        .await
        .data();
    let id = promoted["promotionId"].as_str().unwrap();
    let rollback = json!({"action": "rollback", "promotionId": id, "reason": "r"});
    let before = state(&app).await;
    let dry = app.replica_with("AUTO_PROMOTION_DRY_RUN", "true").await;
    let would = post(&dry, &rollback).await.data();
    assert_eq!(
        (&would["promotionId"], &would["rollbackAt"]),
        (&json!(id), &Value::Null)
    );
    let arguments = ["rollback", id, "--reason", "r"];
    let variables = [("AUTO_PROMOTION_DRY_RUN", "true")];
    let url = app.database().url();
    let (code, text) = worker::run(url, &arguments, &variables).await;
    assert!(code == 0 && text.contains("would be rolled back"), "{text}");
    let asked = [&arguments[..], &["--dry-run", "--json"]].concat();
    let (code, text) = worker::run(url, &asked, &[]).await;
    assert!(code == 0 && text.contains("\"dryRun\": true"), "{text}");
    assert_eq!(state(&app).await, before);
    let (code, text) = worker::run(url, &arguments, &[]).await;
    assert!(code == 0 && text.contains("rolled back"), "{text}");
    // Done before is done before, in a dry run too.
    post(&dry, &rollback).await.problem(409, "conflict");
    assert_eq!(worker::run(url, &arguments, &variables).await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_eligible_is_refused_with_every_reason_and_noted() {
    let app = start().await;
    experiment(&app, 1, "flat", &EQUAL).await;
    let refused = post(
        &app,
        &json!({"action": "promote", "experimentName": "flat"}),
    )
    .await
    .problem(409, "not_eligible");
    let data = &refused["data"];
    assert_eq!(
        (&data["eligible"], &data["verdict"]),
        (&json!(false), &json!("not_yet"))
    );
    for word in ["confidence", "improvement"] {
        assert!(reasons(data).contains(word), "{data}");
    }
    let row = app
        .database()
        .rows("SELECT action, reason LIKE '%confidence%' FROM ab_promotion_audit_log")
        .await;
    assert_eq!(row, [["promotion_attempted", "t"]]);
    assert_eq!(
        count(&app, "promotion_decisions WHERE kind = 'attempted'").await,
        1
    );
    assert_eq!(count(&app, "experiment_promotions").await, 0);
    // The slot has its look; the same data are not looked at twice.
    let looks = count(&app, "promotion_looks").await;
    assert!(looks > 0);
    post(
        &app,
        &json!({"action": "promote", "experimentName": "flat"}),
    )
    .await
    .problem(409, "not_eligible");
    assert_eq!(count(&app, "promotion_looks").await, looks);
    post(
        &app,
        &json!({"action": "promote", "experimentName": "nobody"}),
    )
    .await
    .problem(404, "not_found");
    post(&app, &json!({"action": "check", "experimentName": "12"}))
        .await
        .problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_is_told_at_once_and_nothing_runs() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    let before = state(&app).await;
    let body = json!({"action": "promote", "experimentName": "cta", "preset": "bold",
        "config": {"thresholds": {"minConfidence": 0.95, "minSampleSize": 10}, "safetyChecks": {"checkLatency": false}, "nope": 1}});
    let problem = post(&app, &body).await.problem(400, "validation_failed");
    let texts = problem["validationErrors"].as_array().unwrap();
    assert_eq!(texts.len(), 5, "{problem}");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 5);
    let all = problem["validationErrors"].to_string();
    for pointer in [
        "/preset",
        "/config/thresholds/minConfidence",
        "floor `aggressive`",
        "checkLatency",
        "/config/nope",
    ] {
        assert!(all.contains(pointer), "{pointer} in {all}");
    }
    for body in [
        json!({}),
        json!({"action": "go"}),
        json!({"action": "promote"}),
        json!({"action": "rollback", "promotionId": "x"}),
        json!({"action": "rollback", "promotionId": "x", "reason": " "}),
        json!({"action": "rollback", "promotionId": "x", "reason": "x".repeat(1_001)}),
        json!({"action": "promote", "experimentName": "cta", "dry_run": true}),
        json!({"action": "promote", "experimentName": "cta", "force": true}),
        json!({"action": "promote", "experimentName": 7}),
    ] {
        let problem = post(&app, &body).await.problem(400, "validation_failed");
        assert!(
            !problem["validationErrors"].as_array().unwrap().is_empty(),
            "{body}"
        );
    }
    assert_eq!(state(&app).await, before);
    // An experiment whose own settings are wrong is no reason to promote it by others.
    app.change(r#"UPDATE experiments SET config = '{"autoPromotion": {"thresholds": {"minConfidence": 10}}}'"#)
        .await;
    let problem = post(&app, &json!({"action": "promote", "experimentName": "cta"}))
        .await
        .problem(400, "validation_failed");
    assert!(
        problem["validationErrors"][0]
            .as_str()
            .unwrap()
            .starts_with("/experiment/config/autoPromotion")
    );
    let scan = post(&app, &json!({"action": "scan"})).await.data();
    assert_eq!((&scan["failed"], &scan["promoted"]), (&json!(1), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_may_force_and_says_why() {
    let app = start().await;
    experiment(&app, 1, "flat", &[2_000, 1_990, 2_010]).await;
    let promoter = app.with_role(Role::Promoter).await;
    let body = json!({"action": "promote", "experimentName": "flat", "force": true, "reason": "the old page is illegal from today on"});
    promoter
        .admin(Method::POST, ROUTE, Some(&body))
        .await
        .problem(403, "forbidden");
    let viewer = app.with_role(Role::Viewer).await;
    let scan = json!({"action": "scan", "dryRun": true});
    viewer
        .admin(Method::POST, ROUTE, Some(&scan))
        .await
        .problem(403, "forbidden");
    let check = json!({"action": "check", "experimentName": "flat"});
    viewer.admin(Method::POST, ROUTE, Some(&check)).await.data();
    let admin = app.with_role(Role::Admin).await;
    let forced = admin.admin(Method::POST, ROUTE, Some(&body)).await.data();
    assert_eq!(forced["forced"], true);
    // Nobody was named, so the highest lift.
    assert_eq!(forced["promotedVariantName"], "variant-c");
    let row = app
        .database()
        .rows("SELECT action, reason FROM ab_promotion_audit_log")
        .await;
    assert_eq!(row, [["promoted", "the old page is illegal from today on"]]);
    assert_eq!(
        count(&app, "promotion_decisions WHERE kind = 'forced'").await,
        1
    );
    admin
        .admin(Method::POST, ROUTE, Some(&body))
        .await
        .problem(409, "not_eligible");
}

/// Force does not pass over the state of an experiment, and a dry run says so as a live one does.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_not_forced_either() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    let stop = "/api/v1/admin/experiments/cta/stop";
    app.admin(Method::POST, stop, None).await.data();
    for dry in [true, false] {
        let body = json!({"action": "promote", "experimentName": "cta", "force": true, "reason": "I know", "dryRun": dry});
        let refused = post(&app, &body).await;
        assert!(refused.text().contains("not running"), "{}", refused.text());
        refused.problem(409, "not_eligible");
    }
    let noted = "SELECT action, reason LIKE '%not running%' FROM ab_promotion_audit_log";
    assert_eq!(
        app.database().rows(noted).await,
        [["promotion_attempted", "t"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_races_one_promotion_comes_of_it() {
    let app = start().await;
    let other = app.replica().await;
    for round in 1..=6 {
        let name = format!("race {round}");
        experiment(&app, round, &name, &CLEAR).await;
        let promote = json!({"action": "promote", "experimentName": name});
        // The scans would stop at three an hour.
        let scan = json!({"action": "scan", "config": {"maxConcurrentPromotions": 100}});
        let calls = [
            post(&app, &promote),
            post(&other, &promote),
            post(&app, &scan),
            post(&other, &scan),
        ];
        let answers = join_all(calls).await;
        let won = answers[..2]
            .iter()
            .filter(|answer| answer.status == 200)
            .count();
        let scanned = answers[2..]
            .iter()
            .filter(|answer| answer.status == 200)
            .map(|answer| answer.json()["data"]["promoted"].as_i64().unwrap())
            .sum::<i64>();
        assert_eq!(i64::try_from(won).unwrap() + scanned, 1, "round {round}");
        for answer in &answers {
            assert!(
                matches!(answer.status, 200 | 409),
                "round {round}: {} {}",
                answer.status,
                answer.text()
            );
        }
        for (table, column) in [
            ("experiment_promotions", "experiment_id"),
            (
                "ab_promotion_audit_log WHERE action = 'promoted' AND true",
                "experiment_id",
            ),
            (
                "promotion_decisions WHERE kind = 'promoted' AND true",
                "experiment_id",
            ),
        ] {
            let glue = if table.contains("WHERE") {
                "AND"
            } else {
                "WHERE"
            };
            let rows = count(&app, &format!("{table} {glue} {column} = {round}")).await;
            assert_eq!(rows, 1, "{table}, round {round}");
        }
        let slots = format!(
            "(SELECT slot FROM promotion_looks WHERE experiment_id = {round} AND z IS NOT NULL) t"
        );
        assert_eq!(count(&app, &slots).await, 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_restores_and_a_restart_begins_anew() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    let promoted = post(&app, &json!({"action": "promote", "experimentName": "cta"}))
        .await
        .data();
    let rollback =
        json!({"action": "rollback", "promotionId": promoted["promotionId"], "reason": "it hurts"});
    // Nothing is asked of statistics or of notifications: without any totals and without an outbox it works.
    app.database()
        .execute(
            "INSERT INTO notification_configs (user_id, channel, webhook_url) VALUES ('1', 'slack', 'https://x.example/1');
             ALTER TABLE variant_moments RENAME TO gone; ALTER TABLE notification_outbox RENAME TO gone_too",
        )
        .await;
    let first = post(&app, &rollback).await.data();
    app.database()
        .execute("ALTER TABLE gone RENAME TO variant_moments; ALTER TABLE gone_too RENAME TO notification_outbox")
        .await;
    assert_eq!(first["reason"], "it hurts");
    let row = app
        .database()
        .rows("SELECT status, winner_variant_id::text, end_date::text FROM experiments")
        .await;
    assert_eq!(row, [["running", "∅", "∅"]]);
    let second = post(&app, &rollback).await.problem(409, "conflict");
    assert_eq!(second["data"], first);
    assert_eq!(
        count(&app, "ab_promotion_audit_log WHERE action = 'rolled_back'").await,
        1
    );
    let unknown = json!({"action": "rollback", "promotionId": "00000000-0000-4000-8000-000000000000", "reason": "x"});
    post(&app, &unknown).await.problem(404, "not_found");
    let blocked = check(&app, "cta").await;
    assert_eq!(blocked["verdict"], "blocked");
    assert!(reasons(&blocked).contains("rolled back"));
    // A changed design would begin a new analysis, but only a person forgives a rollback.
    app.change("UPDATE experiments SET design = '{\"lookEveryHours\": 12}'")
        .await;
    let scan = post(&app, &json!({"action": "scan"})).await.data();
    assert_eq!(scan["promoted"], 0, "{scan}");
    assert!(reasons(&check(&app, "cta").await).contains("rolled back"));
    assert_eq!(count(&app, "promotion_analyses").await, 1);
    let restart = "/api/v1/admin/experiments/cta/restart-analysis";
    let restarted = app.admin(Method::POST, restart, None).await.data();
    assert_eq!(restarted["id"], 1);
    let row = app
        .database()
        .rows("SELECT number::text, from_epoch::text, unspent < 1, closed_at IS NULL FROM promotion_analyses ORDER BY number")
        .await;
    assert_eq!(row, [["1", "1", "f", "f"], ["2", "2", "t", "t"]]);
    let anew = check(&app, "cta").await;
    assert_eq!(anew["verdict"], "not_yet", "{anew}");
    assert!(!reasons(&anew).contains("rolled back") && reasons(&anew).contains("sample"));
    // Only what was measured since counts; the alpha of the analysis before is spent.
    app.change(
        "INSERT INTO variant_moments (experiment_id, variant_id, epoch, units, purchasing_units, sum_purchases, sq_purchases)
         VALUES (1, 11, 2, 20000, 2000, 2000, 2000), (1, 12, 2, 20000, 2400, 2400, 2400);
         UPDATE promotion_analyses SET started_at = now() - interval '5 days' WHERE number = 2;
         UPDATE experiment_promotions SET rollback_at = now() - interval '6 days'",
    )
    .await;
    let again = check(&app, "cta").await;
    assert_eq!(again["winningVariant"]["sampleSize"], 20_000);
    assert_eq!(again["eligible"], true, "{again}");
    app.admin(
        Method::POST,
        "/api/v1/admin/experiments/nobody/restart-analysis",
        None,
    )
    .await
    .problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_design_begins_a_new_analysis_at_the_next_scan() {
    let app = start().await;
    experiment(&app, 1, "flat", &EQUAL).await;
    post(&app, &json!({"action": "scan"})).await.data();
    app.change(
        r#"UPDATE experiments SET design = '{"lookEveryHours": 24}', version = version + 1"#,
    )
    .await;
    let told = check(&app, "flat").await;
    assert!(reasons(&told).contains("the design changed"), "{told}");
    assert_eq!(count(&app, "promotion_analyses").await, 1);
    post(&app, &json!({"action": "scan"})).await.data();
    let row = app
        .database()
        .rows("SELECT number::text, reason, closed_at IS NULL, unspent < 1 FROM promotion_analyses ORDER BY number")
        .await;
    assert_eq!(
        row,
        [
            ["1", "first look", "f", "f"],
            ["2", "the design changed", "t", "t"]
        ]
    );
}

/// Somebody took the winner out: its looks stay, and promote nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_treatment_without_weight_is_not_promoted() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    assert_eq!(check(&app, "cta").await["eligible"], true);
    app.change("UPDATE experiment_variants SET traffic_weight = 0 WHERE id = 12")
        .await;
    let told = check(&app, "cta").await;
    assert_eq!(told["verdict"], "blocked", "{told}");
    assert!(reasons(&told).contains("weight 0"), "{told}");
}

/// What an experiment says of itself does not lift the limit of the installation.
#[tokio::test(flavor = "multi_thread")]
async fn no_experiment_lifts_the_limit_of_the_hour() {
    let app = start().await;
    for id in 1..=5 {
        experiment(&app, id, &format!("e{id}"), &CLEAR).await;
    }
    app.change(
        r#"UPDATE experiments SET config = '{"autoPromotion": {"maxConcurrentPromotions": 100}}'"#,
    )
    .await;
    let dry = post(&app, &json!({"action": "scan", "dryRun": true}))
        .await
        .data();
    let would = dry["results"].as_array().unwrap().iter();
    let would = would
        .filter(|item| item["outcome"] == "would_promote")
        .count();
    let scan = post(&app, &json!({"action": "scan"})).await.data();
    assert_eq!((&scan["promoted"], would), (&json!(3), 3), "{scan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_goes_from_old_to_new_up_to_the_limit_of_the_hour() {
    let app = TestApp::setup()
        .variable("AUTO_PROMOTION_ENABLED", "true")
        .variable("AUTO_PROMOTION_EXCLUDED", "left alone")
        .start()
        .await;
    for (id, name) in [(1, "new"), (2, "old"), (3, "left alone"), (4, "broken")] {
        experiment(&app, id, name, &CLEAR).await;
    }
    app.change(
        "UPDATE experiments SET start_date = start_date - interval '1 day' WHERE name = 'old';
         UPDATE experiments SET config = '{\"autoPromotion\": 1}' WHERE name = 'broken'",
    )
    .await;
    let request = json!({"action": "scan", "config": {"maxConcurrentPromotions": 1}});
    let scan = post(&app, &request).await.data();
    let counts = ["scanned", "eligible", "promoted", "skipped", "failed"]
        .map(|name| scan[name].as_i64().unwrap());
    assert_eq!(counts, [4, 2, 1, 2, 1], "{scan}");
    let outcomes: Vec<(String, String)> = scan["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["experimentName"].as_str().unwrap().into(),
                item["outcome"].as_str().unwrap().into(),
            )
        })
        .collect();
    assert_eq!(outcomes[0], ("old".into(), "promoted".into()));
    assert!(outcomes.contains(&("new".into(), "skipped".into())));
    assert!(outcomes.contains(&("left alone".into(), "excluded".into())));
    assert!(outcomes.contains(&("broken".into(), "failed".into())));
    // Another worker counts the same promotions.
    let again = post(&app.replica().await, &request).await.data();
    assert_eq!(again["promoted"], 0);
    assert_eq!(count(&app, "experiment_promotions").await, 1);
    let kept = app
        .database()
        .rows("SELECT verdict FROM promotion_verdicts WHERE experiment_id = 1")
        .await;
    assert_eq!(kept, [["promote"]]);
    // While somebody scans, nobody else does.
    let lock = podium_storage::promotions::scan::lock(&app.state().database)
        .await
        .unwrap()
        .unwrap();
    post(&app, &request).await.problem(409, "conflict");
    drop(lock);
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_is_the_default_and_a_person_may_still_promote() {
    let app = TestApp::start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    let scan = post(&app, &json!({"action": "scan"})).await.ok();
    assert_eq!(scan["config"]["enabled"], false);
    assert_eq!(scan["data"]["promoted"], 0);
    assert!(reasons(&scan["data"]["results"][0]).contains("disabled"));
    assert_eq!(count(&app, "promotion_looks").await, 0);
    post(&app, &json!({"action": "promote", "experimentName": "cta"}))
        .await
        .data();
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_totals_promote_nothing() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    let held = podium_tests::database::connect(app.database().url()).await;
    // Nobody folds while somebody else has the lock.
    held.batch_execute("SELECT pg_advisory_lock(8101804658767233026)")
        .await
        .unwrap();
    app.database()
        .execute("UPDATE fold_state SET folded_at = now() - interval '20 minutes'")
        .await;
    let refused = post(&app, &json!({"action": "promote", "experimentName": "cta"}))
        .await
        .problem(409, "not_eligible");
    assert_eq!(refused["data"]["verdict"], "inconclusive");
    assert!(reasons(&refused["data"]).contains("stale"));
    assert_eq!(count(&app, "promotion_looks").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_force_is_shown_with_its_sources() {
    let app = TestApp::setup()
        .variable("AUTO_PROMOTION_MIN_SAMPLE_SIZE", "1000")
        .start()
        .await;
    experiment(&app, 1, "cta", &CLEAR).await;
    app.change(r#"UPDATE experiments SET config = '{"autoPromotion": {"thresholds": {"minImprovement": 7}}}'"#).await;
    let shown = app.admin(Method::GET, ROUTE, None).await.data();
    assert_eq!(shown["config"]["thresholds"]["minSampleSize"], 1_000);
    assert_eq!(
        shown["sources"]["thresholds"]["minSampleSize"],
        "environment"
    );
    assert_eq!(
        shown["presets"]["conservative"]["thresholds"]["minConfidence"],
        99.0
    );
    assert_eq!(shown["validation"], json!({"valid": true, "errors": []}));
    let of_one = app
        .admin(
            Method::GET,
            &format!("{BESIDE}?experimentName=cta&preset=conservative"),
            None,
        )
        .await
        .data();
    assert_eq!(of_one["config"]["thresholds"]["minImprovement"], 10.0);
    let of_one = app
        .admin(Method::GET, &format!("{BESIDE}?experimentName=cta"), None)
        .await
        .data();
    assert_eq!(of_one["config"]["thresholds"]["minImprovement"], 7.0);
    assert_eq!(
        of_one["sources"]["thresholds"]["minImprovement"],
        "experiment"
    );
    let wrong = app
        .admin(Method::GET, &format!("{BESIDE}?preset=bold"), None)
        .await
        .data();
    assert_eq!(wrong["validation"]["valid"], false);
}

/// A proved winner that a safety check keeps back is recorded and told once, and not at every scan.
#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_winner_back_is_recorded_once() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    app.database()
        .execute(
            "INSERT INTO notification_configs (user_id, channel, webhook_url) VALUES ('1', 'slack', 'https://x.example/1');
             INSERT INTO alerts (experiment_id, experiment_name, variant_id, variant_name, kind, level, message)
             VALUES (1, 'cta', 12, 'variant-b', 'error_rate', 'critical', 'too many')",
        )
        .await;
    for _ in 0..2 {
        let scan = post(&app, &json!({"action": "scan"})).await.data();
        assert_eq!(scan["results"][0]["verdict"], "blocked", "{scan}");
        assert!(reasons(&scan["results"][0]).contains("alert"));
    }
    let held = "promotion_decisions WHERE kind = 'held' AND triggered_by = 'auto'";
    assert_eq!(count(&app, held).await, 1);
    assert_eq!(
        count(&app, "notification_logs WHERE alert_type = 'hold'").await,
        1
    );
    let kept = app
        .database()
        .rows("SELECT verdict, held_by::text FROM promotion_verdicts")
        .await;
    assert_eq!(kept, [["blocked", "{alerts}"]]);
    let id = app
        .database()
        .number("SELECT id FROM promotion_decisions WHERE kind = 'held'")
        .await;
    let mut link = app.state().database.serve().await.unwrap();
    let record = records::by_id(&mut link, id).await.unwrap().unwrap();
    assert!(replay(&record).unwrap().same);
    // What is not proved is not held, whatever else keeps it back.
    experiment(&app, 2, "flat", &EQUAL).await;
    app.database()
        .execute(
            "INSERT INTO alerts (experiment_id, experiment_name, kind, level, message) VALUES (2, 'flat', 'x', 'critical', 'x')",
        )
        .await;
    post(&app, &json!({"action": "scan"})).await.data();
    assert_eq!(count(&app, held).await, 1);
    assert_eq!(count(&app, RESOLVED).await, 0);
    // Two days later nothing holds it any more.
    app.database()
        .execute("UPDATE alerts SET opened_at = opened_at - interval '2 days', closed_at = now() - interval '25 hours'")
        .await;
    let scan = post(&app, &json!({"action": "scan"})).await.data();
    assert_eq!(scan["promoted"], 1, "{scan}");
}

/// What closes the incident of a hold.
const RESOLVED: &str = "notification_logs WHERE action = 'resolve' AND dedup_key = 'experiment:1'";

/// The page about a hold is closed when the hold is over without a promotion, and when the experiment ends.
#[tokio::test(flavor = "multi_thread")]
async fn the_incident_of_a_hold_ends_with_it() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    app.database()
        .execute(
            "INSERT INTO notification_configs (user_id, channel, routing_key) VALUES ('1', 'pagerduty', 'k');
             INSERT INTO alerts (experiment_id, experiment_name, variant_id, variant_name, kind, level, message)
             VALUES (1, 'cta', 12, 'variant-b', 'error_rate', 'critical', 'too many')",
        )
        .await;
    let scan = json!({"action": "scan"});
    let held = async || {
        post(&app, &scan).await.data();
        count(&app, "promotion_verdicts WHERE held_by IS NOT NULL").await == 1
    };
    assert!(held().await);
    let paged = "notification_logs WHERE action = 'trigger' AND dedup_key = 'experiment:1'";
    assert_eq!(count(&app, paged).await, 1);
    // It is not going to be promoted at all.
    app.change(
        r#"UPDATE experiments SET config = '{"autoPromotion": {"excludedExperiments": ["cta"]}}'"#,
    )
    .await;
    assert!(!held().await);
    assert_eq!(count(&app, RESOLVED).await, 1);
    post(&app, &scan).await.data();
    assert_eq!(count(&app, RESOLVED).await, 1, "once");
    app.change("UPDATE experiments SET config = '{}'").await;
    assert!(held().await);
    let stop = "/api/v1/admin/experiments/cta/stop";
    app.admin(Method::POST, stop, None).await.ok();
    assert_eq!(count(&app, RESOLVED).await, 2);
    assert_eq!(
        count(&app, "promotion_verdicts WHERE held_by IS NOT NULL").await,
        0
    );
}

/// Where clients name the variants of more than a twentieth of the units, the split is not ours: nothing is promoted,
/// unless the experiment allows it.
#[tokio::test(flavor = "multi_thread")]
async fn variants_that_clients_name_bar_a_promotion_unless_they_are_allowed() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    let with = async |units: i64, config: &str| {
        app.change(&format!(
            "UPDATE variant_moments SET client_units = CASE WHEN variant_id = 12 THEN {units} - {units} / 2 ELSE {units} / 2 END;
             UPDATE experiments SET config = '{config}'"
        ))
        .await;
        check(&app, "cta").await
    };
    assert_eq!(with(2_000, "{}").await["eligible"], true);
    let off = r#"{"autoPromotion": {"safetyChecks": {"requireNonInferiority": false}}}"#;
    for config in ["{}", off, r#"{"allowClientAssignment": "yes"}"#] {
        let barred = with(2_001, config).await;
        assert_eq!(barred["verdict"], "blocked", "{barred}");
        assert!(reasons(&barred).contains("traffic balance: clients named"));
        let check = &barred["safetyChecks"][2];
        assert_eq!(
            (&check["passed"], &check["severity"]),
            (&json!(false), &json!("critical"))
        );
    }
    let allowed = with(20_000, r#"{"allowClientAssignment": true}"#).await;
    assert_eq!(allowed["eligible"], true, "{allowed}");
}

/// Whatever statement of a promotion fails, nothing of it stays but the looks, which were taken, and the news of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_fails_half_way_leaves_nothing() {
    let app = start().await;
    experiment(&app, 1, "cta", &CLEAR).await;
    app.database()
        .execute(
            "INSERT INTO notification_configs (user_id, channel, webhook_url) VALUES ('1', 'slack', 'https://x.example/1');
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '57014'; END $$",
        )
        .await;
    let promote = json!({"action": "promote", "experimentName": "cta"});
    // The looks of the first attempt are there from now on.
    let mut before = None;
    for table in [
        "experiment_promotions",
        "experiments",
        "audit_log",
        "ab_promotion_audit_log",
        "promotion_decisions",
        "promotion_rollouts",
        "notification_logs",
        "notification_outbox",
    ] {
        let on = format!(
            "CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION fail()"
        );
        app.database().execute(&on).await;
        post(&app, &promote).await.problem(503, "unavailable");
        app.database()
            .execute(&format!("DROP TRIGGER fail ON {table}"))
            .await;
        let mut after = state(&app).await;
        after.retain(|line| !line.starts_with("notification_"));
        assert_eq!(
            *before.get_or_insert_with(|| after.clone()),
            after,
            "{table}"
        );
        assert_eq!(count(&app, "experiment_promotions").await, 0);
        let told = "notification_logs WHERE alert_type <> 'promotion_failed'";
        assert_eq!(count(&app, told).await, 0, "{table}");
    }
    post(&app, &promote).await.data();
    assert_eq!(count(&app, "promotion_rollouts").await, 1);
}
