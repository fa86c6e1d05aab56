//! Planned samples, and what takes variance out: covariates and caps.

use std::time::Duration;

use podium_domain::stats::winsorize::winsorize;
use podium_storage::winsorize::refresh;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_planned() {
    let app = TestApp::start().await;
    let path = "/api/v1/admin/sample-size";
    let plan = |body: Value| {
        let app = &app;
        async move { app.admin(Method::POST, path, Some(&body)).await }
    };
    let rate = json!({"baseline": 0.1, "minimumDetectableEffect": 0.1, "unitsPerDay": 1000});
    let answer = plan(rate.clone()).await.data();
    assert!((number(&answer, "/unitsPerVariant") - 14_749.0).abs() < 2.0);
    exactly(
        &answer,
        "/totalUnits",
        2.0 * number(&answer, "/unitsPerVariant"),
    );
    exactly(&answer, "/days", 30.0);
    let mut uneven = rate.clone();
    uneven["ratio"] = json!(0.25);
    let uneven = plan(uneven).await.data();
    let control = number(&uneven, "/unitsInControl");
    assert!((number(&uneven, "/unitsPerTreatment") - control / 4.0).abs() < 1.0);
    assert!(number(&uneven, "/totalUnits") > number(&answer, "/totalUnits"));
    exactly(&uneven, "/unitsPerVariant", control);
    let mut three = rate.clone();
    three["variants"] = 3.into();
    let three = plan(three).await.data();
    exactly(&three, "/alphaPerTreatment", 0.025);
    assert!(number(&three, "/unitsPerVariant") > number(&answer, "/unitsPerVariant"));
    // 16 s²/d², roughly: 2 (1.96 + 0.84)² 30² / 1².
    let mean =
        plan(json!({"baseline": 10, "standardDeviation": 30, "minimumDetectableEffect": 0.1}))
            .await
            .data();
    assert!((number(&mean, "/unitsPerVariant") - 14_128.0).abs() < 2.0);
    assert_eq!(mean["days"], Value::Null);
    for (body, pointer) in [
        (json!({"minimumDetectableEffect": 0.1}), "/baseline"),
        (
            json!({"baseline": 0, "minimumDetectableEffect": 0.1}),
            "/baseline",
        ),
        (
            json!({"baseline": 1, "minimumDetectableEffect": 0.1}),
            "/baseline",
        ),
        (
            json!({"baseline": 0.1, "minimumDetectableEffect": 0}),
            "/minimumDetectableEffect",
        ),
        (
            json!({"baseline": 0.9, "minimumDetectableEffect": 0.2}),
            "/minimumDetectableEffect",
        ),
        (
            json!({"baseline": 0.1, "minimumDetectableEffect": 0.1, "variants": 1}),
            "/variants",
        ),
        (
            json!({"baseline": 0.1, "minimumDetectableEffect": 0.1, "sides": 3}),
            "/sides",
        ),
        (
            json!({"baseline": 0.1, "minimumDetectableEffect": 0.1, "extra": 3}),
            "/extra",
        ),
    ] {
        let problem = plan(body.clone()).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
}

/// A treatment that joined later is adjusted by the units of the epochs in which both had traffic.
#[tokio::test(flavor = "multi_thread")]
async fn a_covariate_is_that_of_the_units_compared() {
    let epochs = [
        (r#"{"11": "1", "12": "0"}"#, [(11, 9_000, 900), (12, 0, 0)]),
        (EVEN, [(11, 1_000, 100), (12, 1_000, 120)]),
    ];
    let app = experiment(&epochs).await;
    for (variant, epoch, units, buyers) in [
        (11, 1, 9_000, 900),
        (11, 2, 1_000, 100),
        (12, 2, 1_000, 120),
    ] {
        app.change(&format!(
            "INSERT INTO covariate_moments (experiment_id, variant_id, epoch, units, sum_x, sq_x, purchasing_units, x_purchasing_units)
             VALUES (1, {variant}, {epoch}, {units}, {units}, 2 * {units}, {buyers}, 2 * {buyers})"
        ))
        .await;
    }
    let report = report(&app).await;
    let bold = &report["metrics"][0]["comparisons"][0];
    assert_eq!(number(bold, "/cuped/unitsWithCovariate"), 2_000.0);
    // The arms have the same covariates, so the adjustment leaves their difference as it is.
    assert!((number(bold, "/cuped/difference") - 0.02).abs() < 1e-12);
}

/// Sums of an arm for a least-squares slope.
#[derive(Default)]
struct Sums {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Sums {
    fn add(&mut self, x: f64, y: f64) {
        self.n += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
    }

    /// Centred second moments: of x, and of x with y.
    fn centred(&self) -> (f64, f64) {
        (
            self.xx - self.x * self.x / self.n,
            self.xy - self.x * self.y / self.n,
        )
    }
}

/// A covariate from before explains most of what units do, and the report takes that part out.
#[tokio::test(flavor = "multi_thread")]
async fn a_covariate_narrows_the_comparison() {
    const UNITS: i32 = 300;
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let covariate = |n: i32| f64::from(n % 7);
    let value = |n: i32| 5.0 * covariate(n) + f64::from(n % 3);
    let covariates: Vec<Value> = (0..UNITS)
        .map(|n| json!({"unit": format!("u{n}"), "value": covariate(n)}))
        .collect();
    let path = format!("{EXPERIMENTS}/e/covariates");
    let body = json!({"covariates": covariates});
    app.admin(Method::POST, &path, Some(&body)).await.data();
    let (mut control, mut treatment) = (Sums::default(), Sums::default());
    let mut events = Vec::new();
    for n in 0..UNITS {
        let user = format!("u{n}");
        let arm = if app.variant_of("e", &user).await == "control" {
            &mut control
        } else {
            &mut treatment
        };
        arm.add(covariate(n), value(n));
        events.push(json!({"user_id": user, "experiment_id": experiment.id, "event_type": "engagement", "value": value(n)}));
        events.push(
            json!({"user_id": user, "experiment_id": experiment.id, "event_type": "purchase",
            "value": 5.0 * covariate(n)}),
        );
    }
    app.track_any(json!({"events": events})).await.ok();
    app.fold().await;
    let path = format!("/{}/lift?metric=engagement", experiment.id);
    let lift = get(&app, &path).await.data();
    let found = &lift["comparisons"][0];
    let ((xx_a, xy_a), (xx_b, xy_b)) = (control.centred(), treatment.centred());
    let slope = (xy_a + xy_b) / (xx_a + xx_b);
    let apart = treatment.x / treatment.n - control.x / control.n;
    let raw = treatment.y / treatment.n - control.y / control.n;
    assert!((number(found, "/difference") - raw).abs() < 1e-9);
    assert!((number(found, "/cuped/difference") - (raw - slope * apart)).abs() < 1e-9);
    assert!(number(found, "/cuped/varianceReduction") > 0.95, "{found}");
    exactly(found, "/cuped/unitsWithCovariate", f64::from(UNITS));
    let ratio = get(
        &app,
        &format!("/{}/lift?metric=click_through_rate", experiment.id),
    )
    .await;
    assert_eq!(ratio.data()["comparisons"][0]["cuped"], Value::Null);
    // What the covariate explains altogether leaves nothing to test by, and the answer says so.
    let path = format!("/{}/lift?metric=revenue_per_user", experiment.id);
    let revenue = get(&app, &path).await.data();
    let found = &revenue["comparisons"][0];
    assert_eq!(found["cuped"], Value::Null);
    assert_eq!(found["cupedReason"], "no variance");
}

/// What unit number `n` spends in total; every second one buys.
fn spent(n: i32, step: f64) -> f64 {
    if n % 2 == 0 {
        0.0
    } else {
        10.0 + step + f64::from(n % 7)
    }
}

/// One unit of the control buys for a million, and nothing can be seen until its total is capped.
#[tokio::test(flavor = "multi_thread")]
async fn a_whale_hides_no_difference() {
    const UNITS: i32 = 500;
    const WHALE: f64 = 1_000_000.0;
    let app = TestApp::start().await;
    let experiment = app.experiment("e").running().await;
    let id = experiment.id;
    let mut arms = [Vec::new(), Vec::new()];
    let (mut units, mut events) = (Vec::new(), Vec::new());
    for (arm, (name, step)) in [("control", 0.0), ("b", 6.0)].into_iter().enumerate() {
        let variant = experiment.variant(name);
        for n in 0..UNITS {
            let is_whale = (arm, n) == (0, 1);
            let value = if is_whale { WHALE } else { spent(n, step) };
            arms[arm].push(value);
            units.push(format!("('{name}-{n}', {id}, {variant})"));
            if value > 0.0 {
                events.push(format!(
                    "('{name}-{n}', '{name}-{n}', {id}, {variant}, 'purchase', {value})"
                ));
            }
        }
    }
    let sql = format!(
        "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES {};
         INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, value) VALUES {}",
        units.join(", "),
        events.join(", ")
    );
    app.change(&sql).await;
    app.fold().await;
    let path = format!("/{id}/lift?metric=revenue_per_user");
    let raw = get(&app, &path).await.data();
    assert_eq!(raw["winsorized"], Value::Null, "no cap was computed yet");
    let hidden = &raw["comparisons"][0];
    assert!(number(hidden, "/pValue") > 0.3, "{hidden}");
    assert!(number(hidden, "/lift") < 0.0, "{hidden}");

    let database = &app.state().database;
    let refreshed = refresh(database, Duration::ZERO).await.unwrap();
    assert_eq!((refreshed.experiments, refreshed.failed), (1, 0));
    let capped = get(&app, &path).await.data();
    let seen = &capped["comparisons"][0];
    assert!(number(seen, "/pValue") < 1e-3, "{seen}");
    assert!(number(seen, "/lift") > 0.0, "{seen}");
    assert!(number(seen, "/anytime/lower") > 0.0, "{seen}");
    assert!(number(seen, "/bayesian/chanceToBeatControl") > 0.999);
    assert!(number(seen, "/stratified/difference") > 0.0);
    let by_hand = winsorize(&arms[0], &arms[1], None, Some(0.99)).unwrap();
    let cap = by_hand.caps.upper().unwrap();
    assert!((number(&capped, "/winsorized/cap") - cap).abs() < 1e-4);
    assert_eq!(number(&capped, "/winsorized/upper"), 0.99);
    assert!(capped["winsorized"]["computedAt"].is_string());
    let difference = by_hand.b.mean - by_hand.a.mean;
    assert!((number(seen, "/difference") - difference).abs() < 1e-9);
    assert_eq!(
        capped["variants"], raw["variants"],
        "values stay as they are"
    );
    let report = report_of(&app, id).await;
    for metric in report["metrics"].as_array().unwrap() {
        let is_value = [
            "revenue_per_user",
            "revenue_per_session",
            "average_order_value",
        ]
        .contains(&metric["metric"].as_str().unwrap());
        assert_eq!(metric["winsorized"].is_object(), is_value, "{metric}");
    }

    let design = json!({"design": {"winsorizeUpper": null}});
    let patch = app
        .request(Method::PATCH, &format!("{EXPERIMENTS}/{id}"))
        .bearer_auth(podium_tests::token::valid("1"))
        .header("if-match", "*");
    let patched = Answer::of(patch.json(&design)).await.data();
    assert_eq!(patched["design"]["winsorizeUpper"], Value::Null);
    let switched_off = get(&app, &path).await.data();
    assert_eq!(switched_off["winsorized"], Value::Null);
    assert_eq!(switched_off["comparisons"][0]["pValue"], hidden["pValue"]);
}
