//! Figures that are not there, and why.

use serde_json::{Value, json};

use super::{EVEN, experiment, get, report};

/// The treatment as it stands today in the series of the conversion rate.
async fn today(arms: [(i64, i64, i64); 2]) -> Value {
    let app = experiment(&[(EVEN, arms)]).await;
    let series = get(&app, "/1/time-series?metric=conversion_rate")
        .await
        .data();
    let days = series["cumulative"].as_array().unwrap();
    let [.., control, treatment] = days.as_slice() else {
        panic!("no day: {series}");
    };
    assert!(control["lift"].is_null() && control.get("relativeLiftReason").is_none());
    let shown = get(&app, "/1/lift?metric=conversion_rate").await.data();
    let shown = &shown["comparisons"][0];
    let reason = shown.get("relativeLiftReason").or(shown.get("reason"));
    assert_eq!(treatment.get("relativeLiftReason"), reason, "as in `lift`");
    treatment.clone()
}

/// A day whose lift, or its interval, is null says why, as `lift` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_a_lift_says_why() {
    let nobody_in_control = today([(11, 1_000, 0), (12, 1_000, 30)]).await;
    assert_eq!(nobody_in_control["lift"]["estimate"], Value::Null);
    assert_eq!(nobody_in_control["lift"]["interval"], Value::Null);
    assert!(nobody_in_control["relativeLiftReason"].is_string());
    let nobody_at_all = today([(11, 1_000, 0), (12, 1_000, 0)]).await;
    assert_eq!(nobody_at_all["lift"], Value::Null);
    assert!(nobody_at_all["relativeLiftReason"].is_string());
    let everything = today([(11, 1_000, 100), (12, 1_000, 120)]).await;
    assert!(everything["lift"]["interval"].is_object());
    assert_eq!(everything.get("relativeLiftReason"), None);
}

/// A chance needs no conversion, a lift of the posterior some in the control.
#[tokio::test(flavor = "multi_thread")]
async fn a_believed_lift_needs_four_conversions_in_the_control() {
    for (conversions, is_there) in [(3, false), (4, true)] {
        let app = experiment(&[(EVEN, [(11, 1_000, conversions), (12, 1_000, 30)])]).await;
        let report = report(&app).await;
        let bayesian = &report["metrics"][0]["comparisons"][0]["bayesian"];
        assert_eq!(bayesian["liftInterval"].is_object(), is_there, "{bayesian}");
        assert!(bayesian["chanceToBeatControl"].is_number());
    }
}

/// A variant that gets nobody new has no sample to reach, least of all an even one.
#[tokio::test(flavor = "multi_thread")]
async fn a_retired_variant_has_no_sample() {
    let app = experiment(&[(EVEN, [(11, 1_000, 100), (12, 1_000, 120)])]).await;
    app.change("UPDATE experiment_variants SET traffic_weight = 0 WHERE id = 12")
        .await;
    let with_sample = |report: &Value| report["metrics"][0]["comparisons"][0].clone();
    let comparison = with_sample(&report(&app).await);
    assert_eq!(comparison.get("sample"), None);
    assert_eq!(
        comparison["sampleReason"],
        json!("bold has weight 0, so no new unit gets it")
    );
    app.change("UPDATE experiment_variants SET traffic_weight = 1 WHERE id = 12")
        .await;
    let comparison = with_sample(&report(&app).await);
    assert!(comparison["sample"].is_object());
    assert_eq!(comparison.get("sampleReason"), None);
}

/// A plan needs the control's value.
#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_cannot_be_planned_says_why() {
    let app = experiment(&[(EVEN, [(11, 1_000, 0), (12, 1_000, 30)])]).await;
    let comparison = &report(&app).await["metrics"][0]["comparisons"][0];
    assert_eq!(comparison.get("sample"), None);
    assert!(comparison["sampleReason"].is_string());
}
