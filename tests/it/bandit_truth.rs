//! What is said about a bandit is honest, and the winner rule promotes it.

use podium_tests::TestApp;
use reqwest::Method;
use serde_json::{Value, json};

const PROMOTE: &str = "/api/experiments/auto-promote";

/// An epoch: weights of control and `b` in percent, and of both the units and those that bought.
struct Epoch {
    weights: [f64; 2],
    units: [i64; 2],
    buyers: [i64; 2],
}

const fn epoch(weights: [f64; 2], units: [i64; 2], buyers: [i64; 2]) -> Epoch {
    Epoch {
        weights,
        units,
        buyers,
    }
}

/// The even share first. `b` sells 14 % against 10 %, and twice as much of either in the second adaptive epoch, a sale, in
/// which most units have it.
const CLEAR: [Epoch; 4] = [
    epoch([50.0, 50.0], [3_000, 3_000], [300, 420]),
    epoch([50.0, 50.0], [9_000, 9_000], [900, 1_260]),
    epoch([10.0, 90.0], [3_000, 27_000], [600, 7_560]),
    epoch([5.0, 95.0], [1_500, 28_500], [150, 3_990]),
];

/// No difference, and yet the raw rates are 11 % and 15 %: most units of `b` came during the sale.
const SALE: [Epoch; 3] = [
    epoch([50.0, 50.0], [3_000, 3_000], [300, 300]),
    epoch([50.0, 50.0], [9_000, 9_000], [900, 900]),
    epoch([10.0, 90.0], [3_000, 27_000], [600, 5_400]),
];

/// A running bandit of ten days with these epochs.
async fn bandit(app: &TestApp, epochs: &[Epoch]) {
    let mut sql = format!(
        "INSERT INTO experiments (id, name, status, experiment_type, start_date, salt, epoch)
         VALUES (1, 'cta', 'running', 'bandit', now() - interval '10 days', 'cta', {});
         INSERT INTO experiment_variants (id, experiment_id, name, traffic_weight, is_control)
         VALUES (11, 1, 'control', 1, true), (12, 1, 'b', 1, false);",
        epochs.len()
    );
    for (at, epoch) in epochs.iter().enumerate() {
        let number = at + 1;
        let adaptive = if at == 0 { "NULL" } else { "1" };
        // The last one is not over yet, so that the bandit does not open another.
        let age = if number == epochs.len() { 0 } else { 10 };
        sql += &format!(
            "INSERT INTO experiment_epochs (experiment_id, epoch, started_at, traffic_allocation, weights, adaptive_of)
             VALUES (1, {number}, now() - interval '{age} days', 100, '{{\"11\": \"{}\", \"12\": \"{}\"}}', {adaptive});",
            epoch.weights[0], epoch.weights[1]
        );
        for ((variant, units), buyers) in [11, 12].iter().zip(epoch.units).zip(epoch.buyers) {
            sql += &format!(
                "INSERT INTO variant_moments (experiment_id, variant_id, epoch, units, purchasing_units, sum_purchases, sq_purchases)
                 VALUES (1, {variant}, {number}, {units}, {buyers}, {buyers}, {buyers});
                 INSERT INTO variant_drawn_units (experiment_id, variant_id, epoch, units, purchasing_units)
                 VALUES (1, {variant}, {number}, {units}, {buyers});"
            );
        }
    }
    app.change(&sql).await;
}

/// The AIPW rate of an arm by its definition: the mean over all units of m + 1{a} (r − m) / P, with m from the even share, which
/// comes first, and earlier epochs; shrunk to what both arms did there, worth one unit.
fn aipw(epochs: &[Epoch], arm: usize) -> f64 {
    let (mut scores, mut all) = (0.0, 0.0);
    let (mut played, mut bought) = ([0.0; 2], [0.0; 2]);
    for (at, epoch) in epochs.iter().enumerate() {
        let [units, buyers] = [epoch.units, epoch.buyers].map(|counts| counts.map(|n| n as f64));
        // The even share is its own model.
        let (n, s) = if at == 0 {
            (units, buyers)
        } else {
            (played, bought)
        };
        let model = (s[arm] + (s[0] + s[1]) / (n[0] + n[1])) / (n[arm] + 1.0);
        let share = epoch.weights[arm] / 100.0;
        let present = units[0] + units[1];
        scores += present * model + (buyers[arm] - units[arm] * model) / share;
        all += present;
        for of in 0..2 {
            played[of] += units[of];
            bought[of] += buyers[of];
        }
    }
    scores / all
}

async fn arms(app: &TestApp, route: &str) -> Value {
    let path = format!("/api/v1/admin/experiments/cta/{route}");
    let answer = app.admin(Method::GET, &path, None).await.data();
    answer["bandit"].clone()
}

/// The verdict and the notes of the report.
async fn said(app: &TestApp) -> (String, String) {
    let path = "/api/v1/admin/experiments/cta/report";
    let report = app.admin(Method::GET, path, None).await.data();
    let verdict = report["verdict"].as_str().unwrap().to_owned();
    (verdict, report["notes"].to_string())
}

/// Each change in turn, and how the verdict begins after it.
async fn verdicts(app: &TestApp, changes: &[(&str, &str)]) {
    for (sql, wanted) in changes {
        app.change(sql).await;
        let (verdict, _) = said(app).await;
        assert!(verdict.starts_with(wanted), "{sql}: {verdict}");
    }
}

const PAUSED: &str = "UPDATE experiments SET status = 'paused'";
const COMPLETED: &str = "UPDATE experiments SET status = 'completed', end_date = now()";

fn near(value: &Value, wanted: f64) -> bool {
    (value.as_f64().unwrap() - wanted).abs() < 1e-9
}

async fn check(app: &TestApp) -> Value {
    let body = json!({"action": "check", "experimentName": "cta"});
    app.admin(Method::POST, PROMOTE, Some(&body)).await.data()
}

async fn start() -> TestApp {
    TestApp::setup()
        .variable("AUTO_PROMOTION_ENABLED", "true")
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_better_variant_is_reported_and_promoted() {
    let app = start().await;
    bandit(&app, &CLEAR).await;
    let report = arms(&app, "report").await;
    assert_eq!(report, arms(&app, "lift").await);
    assert_eq!(
        (&report["algorithm"], &report["outcome"]),
        (&json!("thompson"), &json!("purchase"))
    );
    let [control, b] = report["arms"].as_array().unwrap().as_slice() else {
        panic!("{report}");
    };
    for (at, arm) in [control, b].into_iter().enumerate() {
        assert!(near(&arm["rate"], aipw(&CLEAR, at)), "{arm}");
        let interval = &arm["rateInterval"];
        assert!(interval["lower"].as_f64() < arm["rate"].as_f64());
        assert!(interval["upper"].as_f64() > arm["rate"].as_f64());
        let narrow = &arm["rateRootWeightedInterval"];
        assert!(narrow["lower"].as_f64() > Some(0.0) && narrow["upper"].as_f64() < Some(1.0));
    }
    assert!(near(&b["rawRate"], 13_230.0 / 67_500.0), "{b}");
    assert!(near(&b["weight"], 0.95));
    assert!(near(&b["difference"], aipw(&CLEAR, 1) - aipw(&CLEAR, 0)));
    // What holds at every look is wider than what holds once, and both are above 0.
    let (once, ever) = (&b["differenceInterval"], &b["differenceAnytime"]);
    assert!(
        ever["lower"].as_f64() < once["lower"].as_f64() && ever["lower"].as_f64() > Some(0.0),
        "{b}"
    );
    assert!(b["probabilityBest"].as_f64() > Some(0.99));
    assert_eq!(control["difference"], Value::Null);
    assert_eq!(
        (&report["winner"], &report["missing"]),
        (&json!("b"), &json!([]))
    );

    let checked = check(&app).await;
    assert_eq!(
        (&checked["eligible"], &checked["verdict"]),
        (&json!(true), &json!("promote")),
        "{checked}"
    );
    assert_eq!(checked["winningVariant"]["variantName"], "b");
    let body = json!({"action": "promote", "experimentName": "cta"});
    let promoted = app.admin(Method::POST, PROMOTE, Some(&body)).await.data();
    assert_eq!(promoted["promotedVariantName"], "b");
    // Who was promoted is no experiment without a winner, and nothing is left to be released by hand.
    let (verdict, _) = said(&app).await;
    assert!(
        verdict.starts_with("b has won: it is ahead of the control by "),
        "{verdict}"
    );
    assert!(
        verdict.ends_with("It was promoted, and the promotion is in force."),
        "{verdict}"
    );
    let stored = "SELECT e.status, v.name, d.evidence #>> '{treatments,0,bandit}' IS NOT NULL
        FROM experiments e JOIN experiment_variants v ON v.id = e.winner_variant_id
        JOIN promotion_decisions d ON d.experiment_id = e.id AND d.kind = 'promoted'";
    assert_eq!(app.database().rows(stored).await, [["completed", "b", "t"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_makes_no_winner() {
    let app = start().await;
    bandit(&app, &SALE).await;
    let report = arms(&app, "report").await;
    let b = &report["arms"][1];
    let raw = b["rawRate"].as_f64().unwrap() - report["arms"][0]["rawRate"].as_f64().unwrap();
    assert!(raw > 0.04, "the raw rates look like a winner: {raw}");
    assert!(b["difference"].as_f64().unwrap().abs() < 0.01, "{b}");
    assert!(b["differenceInterval"]["lower"].as_f64() < Some(0.0));
    assert_eq!(report["winner"], Value::Null);
    assert!(!report["missing"].as_array().unwrap().is_empty());
    let checked = check(&app).await;
    assert_eq!(checked["eligible"], false, "{checked}");
    assert!(
        checked["reasons"]
            .to_string()
            .contains("interval that holds at any moment"),
        "{checked}"
    );
    let body = json!({"action": "promote", "experimentName": "cta"});
    let refused = app.admin(Method::POST, PROMOTE, Some(&body)).await;
    assert!(refused.status >= 400, "{}", refused.text());
    assert_eq!(
        app.database().text("SELECT status FROM experiments").await,
        "running"
    );
}

/// The sentence goes by the winner rule in every state, and not past a guardrail.
#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_on_a_winner_says_what_to_do() {
    let app = start().await;
    bandit(&app, &CLEAR).await;
    verdicts(
        &app,
        &[
            ("SELECT 1", "Ship b: it is ahead of the control by "),
            (PAUSED, "Wait with b: it is ahead of the control by "),
            (COMPLETED, "b has won: it is ahead of the control by "),
            (
                "UPDATE experiments SET status = 'running', end_date = NULL, guardrails = '[\"error_rate\"]';
                 UPDATE variant_moments SET sum_requests = units, sq_requests = units, sum_errors = units / 10,
                     sq_errors = units / 10, x_errors_requests = units / 10 WHERE variant_id = 12;
                 UPDATE variant_moments SET sum_requests = units, sq_requests = units, sum_errors = units / 100,
                     sq_errors = units / 100, x_errors_requests = units / 100 WHERE variant_id = 11;",
                "Do not ship b: it is ahead of the control by ",
            ),
        ],
    )
    .await;
    let (verdict, notes) = said(&app).await;
    assert!(
        verdict.ends_with("and worse in error_rate by more than its margin."),
        "{verdict}"
    );
    assert!(notes.contains("conditions of a winner"), "{notes}");
    assert!(!notes.contains("what promotion decides by"), "{notes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_without_a_winner_says_what_is_lacking() {
    let app = start().await;
    bandit(&app, &SALE).await;
    verdicts(
        &app,
        &[
            ("SELECT 1", "Keep running: "),
            (PAUSED, "Paused: "),
            (COMPLETED, "No winner: "),
        ],
    )
    .await;
    // What promotions of this experiment ask for, and no number of the report's own.
    app.change("UPDATE experiments SET config = '{\"autoPromotion\": {\"thresholds\": {\"minConfidence\": 90}}}'")
        .await;
    let missing = arms(&app, "report").await["missing"].to_string();
    assert!(
        missing.contains("probability of being best") && missing.contains("required: 0.9\""),
        "{missing}"
    );
}
