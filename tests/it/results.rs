//! What reports say about data whose answer is known: the figures that hold at any moment, the decision rule, the words.
#![expect(
    clippy::float_cmp,
    reason = "these figures are exact, or the same figure twice"
)]

mod covariates_and_caps;
mod missing;

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use podium_tests::{Answer, TestApp};
use reqwest::Method;
use serde_json::{Value, json};

const EXPERIMENTS: &str = "/api/v1/admin/experiments";

/// One variant in one epoch: its id, units, and units with a purchase.
type Arm = (i64, i64, i64);

/// A running experiment that began ten days ago, with the sums of these epochs (weights and arms).
async fn experiment(epochs: &[(&str, [Arm; 2])]) -> TestApp {
    let (app, id, name) = (TestApp::start().await, 1, "e");
    let mut sql = format!(
        "INSERT INTO experiments (id, name, status, start_date, salt, epoch, guardrails)
         VALUES ({id}, '{name}', 'running', now() - interval '10 days', '{name}', {}, '[\"error_rate\"]');
         INSERT INTO experiment_variants (id, experiment_id, name, traffic_weight, is_control)
         VALUES (11, {id}, 'control', 1, true), (12, {id}, 'bold', 1, false);",
        epochs.len()
    );
    for (number, (weights, arms)) in epochs.iter().enumerate() {
        let epoch = number + 1;
        sql += &format!(
            "INSERT INTO experiment_epochs VALUES ({id}, {epoch}, now() - interval '10 days', 100, '{weights}');"
        );
        for (variant, units, purchases) in arms {
            sql += &format!(
                "INSERT INTO variant_moments (experiment_id, variant_id, epoch, units, purchasing_units, erring_units,
                     sum_purchases, sq_purchases, sum_requests, sq_requests, sum_errors, sq_errors, x_errors_requests)
                 VALUES ({id}, {variant}, {epoch}, {units}, {purchases}, {units} / 100,
                     {purchases}, {purchases}, {units}, {units}, {units} / 100, {units} / 100, {units} / 100);
                 INSERT INTO variant_requests (experiment_id, variant_id, epoch, requesting_units)
                 VALUES ({id}, {variant}, {epoch}, {units});"
            );
        }
    }
    app.change(&sql).await;
    app
}

const EVEN: &str = r#"{"11": "1", "12": "1"}"#;

async fn report(app: &TestApp) -> Value {
    report_of(app, 1).await
}

async fn get(app: &TestApp, path: &str) -> Answer {
    app.admin(Method::GET, &format!("{EXPERIMENTS}{path}"), None)
        .await
}

fn number(value: &Value, pointer: &str) -> f64 {
    let found = value.pointer(pointer).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number {pointer} in {value}"))
}

/// A number that is told exactly, not computed.
fn exactly(value: &Value, pointer: &str, wanted: f64) {
    let found = number(value, pointer);
    assert!(
        found.total_cmp(&wanted).is_eq(),
        "{pointer}: {found}, not {wanted}"
    );
}

fn verdict(report: &Value) -> &str {
    report["verdict"].as_str().unwrap()
}

/// Those who ask together share a reading, which begins after the last of them came: who asks after a change is told of it. A
/// stranger shares nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_many_ask_for_is_never_older_than_the_question() {
    let app = experiment(&[(EVEN, [(11, 200, 20), (12, 201, 24)])]).await;
    let over = AtomicBool::new(false);
    let crowd = join_all((0..9).map(async |person| {
        let mut asked = 0;
        while !over.load(Ordering::Relaxed) {
            // The same path with two queries, which are two things to ask.
            match ["", "hour", "day"][person % 3] {
                "" => drop(report(&app).await),
                bucket => {
                    let series = get(&app, &format!("/1/time-series?groupBy={bucket}")).await;
                    assert_eq!(series.data()["groupBy"], bucket);
                }
            }
            asked += 1;
        }
        asked
    }));
    let path = format!("{EXPERIMENTS}/1/report");
    let changes = async {
        for name in ["a", "b", "c", "d", "e", "f"] {
            let rename = format!("UPDATE experiments SET name = '{name}' WHERE id = 1");
            app.change(&rename).await;
            assert_eq!(report(&app).await["experimentName"], name);
            assert_eq!(app.get(&path).await.status, 401);
        }
        over.store(true, Ordering::Relaxed);
    };
    let (asked, ()) = tokio::join!(crowd, changes);
    assert!(asked.iter().all(|asked| *asked > 0), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clear_winner_is_to_be_shipped() {
    let app = experiment(&[(EVEN, [(11, 20_000, 2_000), (12, 20_100, 2_412)])]).await;
    let report = report(&app).await;
    assert!(
        verdict(&report)
            .starts_with("Ship bold: +20.0 % in conversion_rate, with more than 99.9 % confidence"),
        "{}",
        verdict(&report)
    );
    let bold = &report["metrics"][0]["comparisons"][0];
    assert!((number(bold, "/relativeLift") - 0.2).abs() < 1e-9);
    assert!((number(bold, "/stratified/lift") - 0.2).abs() < 1e-9);
    // What holds at any moment is wider than what holds once.
    assert!(number(bold, "/anytime/lower") < number(bold, "/relativeLiftInterval/lower"));
    assert!(number(bold, "/anytime/lower") > 0.0);
    assert!(number(bold, "/bayesian/chanceToBeatControl") > 0.999);
    assert!(number(bold, "/bayesian/expectedLoss") < 1e-6);
    assert!(number(bold, "/sequential/pValue") > number(bold, "/pValue") / 2.0);
    assert!(number(bold, "/sequential/statistic") > number(bold, "/sequential/boundary"));
    for gate in ["confidence", "lead", "improvement"] {
        assert_eq!(bold["sequential"][gate]["met"], true, "{gate}");
    }
    // 10 % on a baseline of 10 % needs 14,749 units an arm, and they are there.
    assert!((number(bold, "/sample/required") - 14_749.0).abs() < 2.0);
    exactly(bold, "/sample/daysLeft", 0.0);
    assert_eq!(bold["adjustment"], "bonferroni");
    assert!(report["split"]["anytimePValue"].as_f64().unwrap() > 0.5);
    let metrics = report["metrics"].as_array().unwrap();
    let errors = metrics
        .iter()
        .find(|m| m["metric"] == "error_rate")
        .unwrap();
    assert_eq!(
        errors["comparisons"][0]["guardrail"]["verdict"],
        "non_inferior"
    );
    let lift = get(&app, "/1/lift").await.data();
    assert_eq!(lift["comparisons"][0]["stratified"], bold["stratified"]);
    assert_eq!(lift["comparisons"][0]["sequential"]["eligible"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_that_is_off_stops_everything() {
    let app = experiment(&[(EVEN, [(11, 20_000, 2_000), (12, 18_000, 2_400)])]).await;
    let report = report(&app).await;
    assert!(verdict(&report).starts_with("Do not act: the split is off (p = "));
    assert_eq!(report["split"]["mismatch"], true);
    assert!(number(&report, "/split/anytimePValue") < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn units_in_a_variant_without_weight_stop_everything() {
    let retired = r#"{"11": "1", "12": "0"}"#;
    let app = experiment(&[(retired, [(11, 20_000, 2_000), (12, 20_000, 2_400)])]).await;
    let report = report(&app).await;
    assert_eq!(report["split"]["mismatch"], true);
    assert!(
        verdict(&report).contains("split is off (units in an arm without traffic)"),
        "{}",
        verdict(&report)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_winner_that_harms_is_not_to_be_shipped() {
    let app = experiment(&[(EVEN, [(11, 20_000, 2_000), (12, 20_100, 2_412)])]).await;
    // Errors in one of ten requests instead of one of a hundred.
    app.change(
        "UPDATE variant_moments SET erring_units = units / 10, sum_errors = units / 10, sq_errors = units / 10,
             x_errors_requests = units / 10 WHERE variant_id = 12",
    )
    .await;
    let report = report(&app).await;
    assert_eq!(
        verdict(&report),
        "Do not ship bold: it is ahead in conversion_rate (+20.0 %), and worse in error_rate by more than its margin."
    );
    let metrics = report["metrics"].as_array().unwrap();
    let errors = metrics
        .iter()
        .find(|m| m["metric"] == "error_rate")
        .unwrap();
    // Ten times as many errors are no proof of "better", by any figure.
    let bold = &errors["comparisons"][0];
    assert_eq!(bold["guardrail"]["verdict"], "inferior");
    assert!(
        number(bold, "/bayesian/chanceToBeatControl") < 1e-9,
        "{bold}"
    );
    exactly(bold, "/anytime/closedPValue", 1.0);
    assert!(number(bold, "/anytime/lnEValueBetter") < 0.0, "{bold}");
    assert!(number(bold, "/anytime/pValue") < 1e-9, "{bold}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_weights_is_not_pooled() {
    // A sale begins with the change of weights; within each epoch the arms are alike.
    let epochs = [
        (
            r#"{"11": "9", "12": "1"}"#,
            [(11, 18_000, 900), (12, 2_000, 100)],
        ),
        (EVEN, [(11, 10_000, 2_000), (12, 10_000, 2_000)]),
    ];
    let app = experiment(&epochs).await;
    let report = report(&app).await;
    let bold = &report["metrics"][0]["comparisons"][0];
    // The epochs are compared one by one, and the p-value and the intervals are those of the comparison.
    assert_eq!(bold["method"], "stratified_z");
    assert!(number(bold, "/pValue") > 0.999 && number(bold, "/adjustedPValue") > 0.999);
    assert!(number(bold, "/difference").abs() < 1e-12);
    for interval in ["relativeLiftInterval", "differenceInterval"] {
        assert!(number(&bold[interval], "/lower") < 0.0, "{bold}");
        assert!(number(&bold[interval], "/upper") > 0.0, "{bold}");
    }
    assert_eq!(bold["relativeLiftMethod"], "score");
    assert!(report["notes"].to_string().contains("no pooled effect"));
    assert!(number(bold, "/stratified/statistic").abs() < 1e-9);
    assert_eq!(bold["stratified"]["epochs"], 2);
    let strata = bold["stratified"]["strata"].as_array().unwrap();
    assert_eq!(strata.len(), 2);
    exactly(&strata[0], "/treatmentShare", 0.1);
    exactly(&strata[0], "/control/conversions", 900.0);
    exactly(&strata[1], "/treatment/value", 0.2);
    assert!((number(bold, "/bayesian/chanceToBeatControl") - 0.5).abs() < 1e-9);
    assert_eq!(report["split"]["pValue"], Value::Null);
    assert_eq!(report["split"]["mismatch"], false);
    assert!(
        verdict(&report).starts_with("Keep running"),
        "{}",
        verdict(&report)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_data_waits_and_says_for_what() {
    let app = experiment(&[(EVEN, [(11, 500, 50), (12, 500, 60)])]).await;
    let report = report(&app).await;
    let bold = &report["metrics"][0]["comparisons"][0];
    assert_eq!(bold["sequential"]["eligible"], false);
    assert_eq!(bold["sequential"]["confidence"]["measured"], Value::Null);
    assert_eq!(
        bold["sequential"]["waiting"],
        json!(["sample: 500 of 2000 units in the smaller arm"])
    );
    // (14,749 − 500) units an arm at 50 a day and arm.
    assert!((number(bold, "/sample/daysLeft") - 285.0).abs() < 1.0);
    assert!(verdict(&report).contains("a decision waits for sample: 500 of 2000"));
    assert!(
        verdict(&report).contains("About 285 days"),
        "{}",
        verdict(&report)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loser_is_to_be_stopped() {
    let app = experiment(&[(EVEN, [(11, 20_000, 2_400), (12, 20_000, 1_900)])]).await;
    let report = report(&app).await;
    assert!(
        verdict(&report).starts_with("Stop: bold is worse"),
        "{}",
        verdict(&report)
    );
    assert_eq!(
        report["metrics"][0]["comparisons"][0]["sequential"]["eligible"],
        false
    );
}

/// Yesterday's lift stands beside today's, which is that of `lift`, and the band narrows as units come in.
#[tokio::test(flavor = "multi_thread")]
async fn the_lift_is_shown_day_by_day() {
    let app = experiment(&[(EVEN, [(11, 10_000, 1_000), (12, 10_050, 1_206)])]).await;
    app.change(
        "INSERT INTO variant_day_snapshots
         SELECT (now() AT TIME ZONE 'UTC')::date - 1, m.* FROM variant_moments m
         -- Folding may have kept the same sums already.
         ON CONFLICT DO NOTHING;
         UPDATE variant_moments SET units = 2 * units, purchasing_units = 2 * purchasing_units;",
    )
    .await;
    let path = "/1/time-series?metric=conversion_rate";
    let series = get(&app, path).await.data();
    let days = series["cumulative"].as_array().unwrap();
    assert_eq!(days.len(), 4, "two variants on two days: {series}");
    assert_eq!(days[0]["lift"], Value::Null, "the control has none");
    let (yesterday, today) = (&days[1]["lift"], &days[3]["lift"]);
    let lift = get(&app, "/1/lift?metric=conversion_rate").await.data();
    let shown = &lift["comparisons"][0];
    assert_eq!(today["anytime"], shown["anytime"]);
    assert_eq!(today["interval"], shown["relativeLiftInterval"]);
    for day in [yesterday, today] {
        assert!((number(day, "/estimate") - 0.2).abs() < 1e-12, "{day}");
    }
    let width = |day| number(day, "/anytime/upper") - number(day, "/anytime/lower");
    assert!(width(today) < width(yesterday));
    assert!(number(yesterday, "/interval/lower") > number(yesterday, "/anytime/lower"));
}

/// A winner by its looks, to whom something else happens.
async fn winner() -> TestApp {
    experiment(&[(EVEN, [(11, 20_000, 2_000), (12, 20_100, 2_412)])]).await
}

/// The report ships nothing that the engine would refuse to a person who asks.
#[tokio::test(flavor = "multi_thread")]
async fn the_report_ships_only_what_the_engine_would() {
    let app = winner().await;
    assert!(verdict(&report(&app).await).starts_with("Ship bold"));
    for (sql, wanted) in [
        // A tenth of the requests fail, which no guardrail of the experiment names.
        (
            "UPDATE experiments SET guardrails = '[]';
             UPDATE variant_moments SET sum_errors = trunc(sum_requests / 10) WHERE variant_id = 12;",
            "Do not ship bold: it is ahead in conversion_rate (+20.0 %), but error rate",
        ),
        // A guardrail that was not measured.
        (
            "UPDATE variant_moments SET sum_errors = trunc(sum_requests / 100);
             UPDATE experiments SET guardrails = '[\"p95_latency_ms\"]';",
            "Wait with bold: it is ahead in conversion_rate (+20.0 %), but latency: no data",
        ),
        (
            "UPDATE experiments SET guardrails = '[]', status = 'paused';",
            "Wait with bold: it is ahead in conversion_rate (+20.0 %), but not running",
        ),
        (
            "UPDATE experiments SET status = 'completed', end_date = now();",
            "bold has won: it is ahead in conversion_rate (+20.0 %)",
        ),
    ] {
        app.change(sql).await;
        let report = report(&app).await;
        assert!(verdict(&report).starts_with(wanted), "{}", verdict(&report));
    }
}

/// One unit that a client named must not hide two thousand that are missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_a_client_named_does_not_switch_the_split_check_off() {
    let app = experiment(&[(EVEN, [(11, 20_000, 2_000), (12, 18_000, 2_400)])]).await;
    app.change("UPDATE variant_moments SET client_units = 1 WHERE variant_id = 12")
        .await;
    let off = report(&app).await;
    assert_eq!(off["split"]["mismatch"], true, "{}", off["split"]);
    exactly(&off, "/split/clientUnits", 1.0);
    exactly(&off, "/split/epochs/0/variants/1/units", 17_999.0);
    exactly(&off, "/split/epochs/0/variants/1/expected", 18_999.5);
    exactly(&off, "/split/degreesOfFreedom", 1.0);
    assert!(verdict(&off).starts_with("Do not act"), "{}", verdict(&off));
    // What only clients have moved is not ours, and no band may follow from the planned shares.
    app.change("UPDATE variant_moments SET client_units = 2000 WHERE variant_id = 11")
        .await;
    let named = report(&app).await;
    assert_eq!(named["split"]["mismatch"], false, "{}", named["split"]);
    assert!(named["notes"].to_string().contains("Clients named"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_beyond_floats_has_a_p_value_in_words() {
    let app = experiment(&[(EVEN, [(11, 200_000, 2_000), (12, 100_000, 2_400)])]).await;
    let report = report(&app).await;
    assert!(
        verdict(&report).contains("(p < 1e-300)"),
        "{}",
        verdict(&report)
    );
    assert!(number(&report, "/split/pValue") > 0.0);
    assert!(number(&report, "/split/lnPValue") < -10_000.0);
    let bold = &report["metrics"][0]["comparisons"][0];
    assert!(number(bold, "/significance") < 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_p_value_is_zero() {
    let arms = [(11, 1_000_000, 100_000), (12, 1_000_000, 200_000)];
    let app = experiment(&[(EVEN, arms)]).await;
    let report = report(&app).await;
    let bold = &report["metrics"][0]["comparisons"][0];
    for p in ["/pValue", "/anytime/pValue", "/adjustedPValue"] {
        assert!(number(bold, p) > 0.0, "{p}");
    }
    assert!(number(bold, "/lnPValue") < -1_000.0);
    assert!(number(bold, "/significance") < 100.0);
    assert!(number(bold, "/sequential/confidence/measured") < 100.0);
}

/// After a restart the figures are those of the units that came since.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_restarts_the_report() {
    let app = winner().await;
    let path = format!("{EXPERIMENTS}/1/restart-analysis");
    app.admin(Method::POST, &path, None).await.data();
    app.change(
        "INSERT INTO variant_moments (experiment_id, variant_id, epoch, units, purchasing_units, sum_requests, sq_requests)
         VALUES (1, 11, 2, 500, 50, 100, 100), (1, 12, 2, 510, 51, 0, 0);
         INSERT INTO variant_latencies (experiment_id, variant_id, epoch, bucket, requests)
         VALUES (1, 11, 1, 100, 1000), (1, 11, 2, 200, 100);
         INSERT INTO variant_requests (experiment_id, variant_id, epoch, requesting_units) VALUES (1, 11, 2, 100);
         UPDATE experiments SET guardrails = '[\"p95_latency_ms\"]'",
    )
    .await;
    let report = report(&app).await;
    exactly(&report, "/analysis/number", 2.0);
    exactly(&report, "/analysis/fromEpoch", 2.0);
    let primary = &report["metrics"][0];
    exactly(primary, "/variants/0/units", 500.0);
    exactly(primary, "/variants/1/sum", 51.0);
    assert!(number(primary, "/comparisons/0/relativeLift").abs() < 1e-12);
    exactly(primary, "/comparisons/0/sample/control/reached", 500.0);
    let metrics = report["metrics"].as_array().unwrap();
    let latency = metrics
        .iter()
        .find(|m| m["metric"] == "p95_latency_ms")
        .unwrap();
    // 1.02^200 ms, the only bucket of the new analysis; 1.02^100 before.
    let p95 = number(latency, "/variants/0/value");
    assert!((p95 / 52.48 - 1.0).abs() < 0.01, "{p95}");
    // A day of the new analysis is not over, so nothing is said about days.
    assert_eq!(primary["comparisons"][0]["sample"]["daysLeft"], Value::Null);
    assert!(report["notes"].to_string().contains("This is analysis 2"));
    assert!(
        verdict(&report).starts_with("Keep running"),
        "{}",
        verdict(&report)
    );
}

/// What is shown is enough to compute it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_holds_what_its_figures_follow_from() {
    let app = winner().await;
    let report = report(&app).await;
    assert!(report["readAt"].is_string() && report["foldedAt"].is_string());
    let analysis = &report["analysis"];
    exactly(analysis, "/number", 1.0);
    exactly(analysis, "/unspent", 1.0);
    assert!((number(analysis, "/level") - 0.05).abs() < 1e-12);
    let bold = &report["metrics"][0]["comparisons"][0];
    let stratum = &bold["stratified"]["strata"][0];
    let arm = |arm: &str| {
        let of = |field: &str| number(stratum, &format!("/{arm}/{field}"));
        (of("units"), of("conversions"))
    };
    let ((n_a, x_a), (n_b, x_b)) = (arm("control"), arm("treatment"));
    let pooled = (x_a + x_b) / (n_a + n_b);
    let z = (x_b / n_b - x_a / n_a) / (pooled * (1.0 - pooled) * (1.0 / n_a + 1.0 / n_b)).sqrt();
    assert!((number(bold, "/statistic") / z - 1.0).abs() < 1e-9);
    let last = bold["sequential"]["history"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert!((number(last, "/z") / z - 1.0).abs() < 1e-9);
    assert_eq!(
        (&last["missed"], &last["recorded"]),
        (&json!(false), &json!(false))
    );
    exactly(bold, "/bayesian/posterior/control/0", 2_001.0);
    let variant = &report["metrics"][0]["variants"][0];
    exactly(variant, "/sum", 2_000.0);
    assert!((number(variant, "/variance") - 0.09).abs() < 1e-12);
    assert!(report["notes"].as_array().unwrap().len() >= 3);
}

/// What came in the last week says how long the rest will take.
#[tokio::test(flavor = "multi_thread")]
async fn days_left_go_by_recent_traffic() {
    let app = experiment(&[(EVEN, [(11, 500, 50), (12, 500, 60)])]).await;
    app.change(
        "INSERT INTO variant_day_snapshots (day, experiment_id, variant_id, epoch, units)
         SELECT (now() AT TIME ZONE 'UTC')::date - 7, experiment_id, variant_id, epoch, 450 FROM variant_moments",
    )
    .await;
    let report = report(&app).await;
    // 50 units an arm in six days and today's part of a day, instead of 50 a day.
    let days = number(&report["metrics"][0]["comparisons"][0], "/sample/daysLeft");
    assert!(
        (14_249.0 / 50.0 * 5.9..14_249.0 / 50.0 * 7.1).contains(&days),
        "{days}"
    );
}

/// The series ends with the experiment, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_series_ends_with_its_experiment() {
    let app = winner().await;
    app.change(
        "INSERT INTO variant_day_snapshots
         SELECT (now() AT TIME ZONE 'UTC')::date - days, m.* FROM variant_moments m CROSS JOIN generate_series(1, 7) days
         ON CONFLICT DO NOTHING;
         UPDATE experiments SET status = 'completed', end_date = now() - interval '5 days';",
    )
    .await;
    let series = get(&app, "/1/time-series?metric=conversion_rate")
        .await
        .data();
    let days = series["cumulative"].as_array().unwrap();
    let labels: Vec<_> = days
        .iter()
        .map(|day| day["asOf"].as_str().unwrap())
        .collect();
    assert_eq!(
        labels,
        [
            "end_of_day",
            "end_of_day",
            "end_of_day",
            "end_of_day",
            "end",
            "end"
        ]
    );
}

/// A comparison that is not defined yet belongs to its family: else p would change when its first units come.
#[tokio::test(flavor = "multi_thread")]
async fn a_treatment_without_units_counts_in_its_family() {
    let app = experiment(&[(EVEN, [(11, 20_000, 2_000), (12, 20_100, 2_130)])]).await;
    let alone = report(&app).await["metrics"][0]["comparisons"][0].clone();
    assert_eq!(alone["adjustedPValue"], alone["pValue"]);
    app.change(
        "INSERT INTO experiment_variants (id, experiment_id, name, traffic_weight, is_control)
         VALUES (13, 1, 'late', 1, false)",
    )
    .await;
    let report = report(&app).await;
    let comparisons = &report["metrics"][0]["comparisons"];
    assert_eq!(comparisons[1]["pValue"], Value::Null);
    assert_eq!(comparisons[1]["adjustedPValue"], Value::Null);
    assert_eq!(comparisons[0]["pValue"], alone["pValue"]);
    assert_eq!(
        number(comparisons, "/0/adjustedPValue"),
        2.0 * number(comparisons, "/0/pValue")
    );
}

/// A mean has fixed figures from two units on, and none that holds at any moment below 25: there is a treatment all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_few_units_are_called_so() {
    let app = experiment(&[(EVEN, [(11, 32, 8), (12, 20, 5)])]).await;
    app.change(
        "UPDATE experiments SET primary_metric = 'revenue_per_user', design = '{\"winsorizeUpper\": null}';
         UPDATE variant_moments SET sum_purchase_value = 10 * purchasing_units, sq_purchase_value = 100 * purchasing_units",
    )
    .await;
    let report = report(&app).await;
    assert_eq!(
        verdict(&report),
        "Keep running: revenue_per_user cannot be compared yet (an arm has fewer than 25 units)."
    );
    let bold = &report["metrics"][0]["comparisons"][0];
    assert!(number(bold, "/pValue") > 0.5);
    assert!(bold["anytimeReason"].is_string(), "{bold}");
}

/// Over several epochs the 95 % points of the arms are of different mixtures of days: their ratio is told, no difference.
#[tokio::test(flavor = "multi_thread")]
async fn latencies_of_several_epochs_have_no_difference() {
    let arms = [(11, 20_000, 2_000), (12, 20_100, 2_130)];
    let weights = r#"{"11": "3", "12": "1"}"#;
    let uneven = [(11, 15_000, 1_500), (12, 5_000, 500)];
    let latencies = |epoch: i32| {
        format!(
            "INSERT INTO variant_latencies (experiment_id, variant_id, epoch, bucket, requests)
             SELECT 1, variant, {epoch}, bucket + variant, 100
             FROM generate_series(11, 12) AS variant, generate_series(200, 260) AS bucket"
        )
    };
    let lift = async |app: &TestApp| {
        let answer = get(app, "/1/lift?metric=p95_latency_ms").await.data();
        answer["comparisons"][0].clone()
    };
    let once = experiment(&[(EVEN, arms)]).await;
    once.change(&latencies(1)).await;
    let once = lift(&once).await;
    // One bucket up is 2 % longer.
    assert!(
        (number(&once, "/relativeLift") - 0.02).abs() < 1e-9,
        "{once}"
    );
    assert!(number(&once, "/difference") > 0.0);
    let twice = experiment(&[(EVEN, arms), (weights, uneven)]).await;
    twice.change(&latencies(1)).await;
    twice.change(&latencies(2)).await;
    let twice = lift(&twice).await;
    assert!(
        (number(&twice, "/relativeLift") - 0.02).abs() < 1e-9,
        "{twice}"
    );
    assert_eq!(twice["difference"], Value::Null);
}

async fn report_of(app: &TestApp, id: i64) -> Value {
    get(app, &format!("/{id}/report")).await.data()
}
