//! Units pinned to a variant for testing.

use podium_tests::{Experiment, TestApp};
use serde_json::json;

async fn pin(app: &TestApp, experiment: &Experiment, unit: &str, variant: &str) {
    let (id, variant) = (experiment.id, experiment.variant(variant));
    let sql = format!(
        "INSERT INTO experiment_overrides (experiment_id, unit, variant_id) VALUES ({id}, '{unit}', {variant});
         INSERT INTO excluded_units (experiment_id, unit, reason) VALUES ({id}, '{unit}', 'override')"
    );
    app.change(&sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_unit_gets_its_variant_and_is_not_stored() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").allocation("50").running().await;
    let outside = &experiment.units_of(None, 1)[0];
    let control = &experiment.units_of(Some("control"), 1)[0];
    for unit in [outside, control] {
        pin(&app, &experiment, unit, "b").await;
        let answer = app
            .assign(json!({"experiment": "e", "user_id": unit}))
            .await;
        assert_eq!(
            (&answer["variant"], &answer["reason"]),
            (&json!("b"), &json!("OVERRIDE"))
        );
        assert_eq!(answer["variant_id"], experiment.variant("b"));
    }
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM user_experiment_assignments")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_the_override_gives_the_unit_its_own_variant_back() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let unit = &experiment.units_of(Some("control"), 1)[0];
    assert_eq!(app.variant_of("e", unit).await, "control");
    pin(&app, &experiment, unit, "b").await;
    assert_eq!(app.variant_of("e", unit).await, "b");
    app.change("DELETE FROM experiment_overrides").await;
    assert_eq!(app.variant_of("e", unit).await, "control");
}

/// Events of a pinned unit are recorded and never counted, and what it did before is taken out again.
#[tokio::test(flavor = "multi_thread")]
async fn pinned_units_are_left_out_of_the_analysis() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let units = experiment.units_of(Some("control"), 2);
    let event = |unit: &str| json!({"user_id": unit, "experiment_id": experiment.id, "value": 10});
    for unit in &units {
        app.variant_of("e", unit).await;
        app.track("purchase", event(unit)).await.ok();
    }
    app.fold().await;
    let sums = "SELECT sum(units), sum(sum_purchases), trim_scale(sum(sum_purchase_value)) FROM variant_moments";
    assert_eq!(app.database().rows(sums).await, [["2", "2", "20"]]);
    pin(&app, &experiment, &units[0], "b").await;
    app.track("purchase", event(&units[0])).await.ok();
    app.track("purchase", event(&units[1])).await.ok();
    app.fold().await;
    assert_eq!(
        app.database().rows(sums).await,
        [["1", "2", "20"]],
        "only the other unit's"
    );
    let events = format!(
        "SELECT v.name, e.counted FROM experiment_events e JOIN experiment_variants v ON v.id = e.variant_id
         WHERE e.user_id = '{}' ORDER BY e.created_at",
        units[0]
    );
    assert_eq!(
        app.database().rows(&events).await,
        [["control", "t"], ["b", "f"]]
    );
    let per_variant = format!(
        "SELECT sum(conversions) FROM get_experiment_performance({})",
        experiment.id
    );
    assert_eq!(app.database().number(&per_variant).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_must_not_contradict_the_override() {
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    pin(&app, &experiment, "u", "b").await;
    let event = |variant: &str| json!({"user_id": "u", "experiment_id": "e", "variant_id": experiment.variant(variant)});
    app.track("click", event("control"))
        .await
        .problem(409, "conflict");
    app.track("click", event("b")).await.ok();
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM experiment_events")
            .await,
        1
    );
}
