#![expect(
    clippy::float_cmp,
    clippy::needless_pass_by_value,
    reason = "values are told, not computed, and written in place"
)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn environment(variables: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
    Environment::read(|name| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn resolve(
    variables: &[(&str, &str)],
    experiment: &Value,
    request: Value,
) -> Result<Effective, Vec<String>> {
    let request = Request {
        preset: request["preset"].as_str().map(str::to_owned),
        config: request.get("config").cloned(),
        dry_run: request["dryRun"].as_bool(),
    };
    let experiment = experiment.is_object().then_some(experiment);
    let environment = environment(variables).unwrap();
    let faults = |faults: podium_domain::fault::Faults| {
        faults.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    environment.resolve(experiment, &request).map_err(faults)
}

#[test]
fn every_field_has_a_row_and_every_row_a_field() {
    fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => members
                .iter()
                .for_each(|(key, value)| leaves(value, &format!("{path}.{key}"), found)),
            _ => found.push(path.trim_start_matches('.').to_owned()),
        }
    }
    for preset in Preset::ALL {
        let value = serde_json::to_value(preset.config()).unwrap();
        let mut found = Vec::new();
        leaves(&value, "", &mut found);
        found.sort();
        let mut rows: Vec<&str> = fields::FIELDS.iter().map(|field| field.path).collect();
        rows.sort_unstable();
        assert_eq!(found, rows);
        for field in fields::FIELDS {
            let value = fields::get(&value, field.path).unwrap();
            assert_eq!(
                field.kind.check(value).as_ref(),
                Ok(value),
                "{}",
                field.path
            );
        }
    }
}

#[test]
fn later_layers_win_and_sources_say_so() {
    let effective = resolve(
        &[
            ("AUTO_PROMOTION_MIN_SAMPLE_SIZE", "1000"),
            ("AUTO_PROMOTION_ENABLED", "true"),
        ],
        &json!({"thresholds": {"minImprovement": 7, "minConfidence": 96}}),
        json!({"config": {"thresholds": {"minConfidence": 99}}}),
    )
    .unwrap();
    let thresholds = effective.config.thresholds;
    assert_eq!(thresholds.min_sample_size, 1_000);
    assert_eq!(
        (thresholds.min_improvement, thresholds.min_confidence),
        (7.0, 99.0)
    );
    assert_eq!(thresholds.max_error_rate, 0.05);
    assert!(effective.config.enabled);
    let sources = &effective.sources["thresholds"];
    assert_eq!(sources["minSampleSize"], "environment");
    assert_eq!(sources["minImprovement"], "experiment");
    assert_eq!(sources["minConfidence"], "request");
    assert_eq!(sources["maxErrorRate"], "preset");
    assert_eq!(effective.sources["dryRun"], "default");
}

#[test]
fn the_preset_of_a_request_beats_environment_and_experiment_but_not_its_config() {
    let effective = resolve(
        &[("AUTO_PROMOTION_MIN_CONFIDENCE", "97"), ("AUTO_PROMOTION_EXCLUDED", "a, b")],
        &json!({"thresholds": {"minSampleSize": 9000}, "excludedExperiments": ["c"]}),
        json!({"preset": "conservative", "config": {"guard": {"watchHours": 1}, "excludedExperiments": ["d", "a"]}}),
    )
    .unwrap();
    assert_eq!(effective.preset, Preset::Conservative);
    let config = effective.config;
    assert_eq!(config.thresholds, Preset::Conservative.config().thresholds);
    assert_eq!(config.guard.watch_hours, 1.0);
    assert!(config.guard.auto_rollback);
    assert_eq!(config.excluded_experiments, ["a", "b", "c", "d"]);
}

#[test]
fn a_dry_run_anywhere_is_a_dry_run() {
    for (variables, experiment, request) in [
        (
            &[("AUTO_PROMOTION_DRY_RUN", "true")][..],
            json!({}),
            json!({"dryRun": false}),
        ),
        (
            &[],
            json!({"dryRun": true}),
            json!({"config": {"dryRun": false}}),
        ),
        (
            &[],
            json!({}),
            json!({"dryRun": false, "config": {"dryRun": true}}),
        ),
        (
            &[],
            json!({}),
            json!({"dryRun": true, "config": {"dryRun": false}}),
        ),
    ] {
        let effective = resolve(variables, &experiment, request).unwrap();
        assert!(effective.config.dry_run);
    }
    assert!(
        !resolve(&[], &json!({}), json!({"dryRun": false}))
            .unwrap()
            .config
            .dry_run
    );
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = resolve(
        &[],
        &json!({"thresholds": {"minRuntimeHours": -1}}),
        json!({"preset": "bold", "config": {"dryrun": true, "thresholds": {"minConfidence": 0.95, "minSampleSize": 1.5},
            "guard": 3, "rollout": {"steps": [50, 20, 100]}, "notifications": {"channels": ["fax"]},
            "safetyChecks": {"checkLatency": false}}}),
    )
    .unwrap_err();
    for pointer in [
        "/experiment/config/autoPromotion/thresholds/minRuntimeHours",
        "/preset",
        "/config/dryrun",
        "/config/thresholds/minConfidence",
        "/config/thresholds/minSampleSize",
        "/config/guard",
        "/config/rollout/steps",
        "/config/notifications/channels",
        "/config/safetyChecks/checkLatency",
    ] {
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with(&format!("{pointer}: "))),
            "{pointer} in {faults:?}"
        );
    }
    assert_eq!(faults.len(), 9);
}

#[test]
fn nobody_goes_below_the_floor() {
    let floor = [("AUTO_PROMOTION_FLOOR", "balanced")];
    let refused = resolve(&floor, &json!({}), json!({"preset": "aggressive"})).unwrap_err();
    assert_eq!(refused.len(), 6);
    assert!(
        refused
            .iter()
            .all(|fault| fault.contains("floor `balanced`")),
        "{refused:?}"
    );
    let own = json!({"thresholds": {"minSampleSize": 1999}});
    let refused = resolve(&floor, &own, json!({})).unwrap_err();
    assert!(refused[0].starts_with("/experiment/config/autoPromotion/thresholds/minSampleSize"));
    let error = environment(&[("AUTO_PROMOTION_FLOOR", "conservative")]).unwrap_err();
    assert_eq!(error.name, "AUTO_PROMOTION_PRESET");
    let error = environment(&[floor[0], ("AUTO_PROMOTION_MIN_CONFIDENCE", "90")]).unwrap_err();
    assert_eq!(error.name, "AUTO_PROMOTION_MIN_CONFIDENCE");
    assert!(error.to_string().contains("weaker than 95.0"), "{error}");
}

#[test]
fn no_request_switches_a_safety_check_off() {
    let path = "/safetyChecks/requireNonInferiority";
    let strict = json!({"safetyChecks": {"requireNonInferiority": true}});
    let off = json!({"safetyChecks": {"requireNonInferiority": false}});
    let conservative = &[("AUTO_PROMOTION_PRESET", "conservative")][..];
    for (variables, experiment) in [(conservative, &json!({})), (&[], &strict)] {
        let required = |request: Value| {
            let effective = resolve(variables, experiment, request);
            effective.map(|effective| effective.config.safety_checks.require_non_inferiority)
        };
        assert_eq!(required(json!({})), Ok(true));
        // Above the floor, which does not ask for it.
        for request in [
            json!({"config": off}),
            json!({"preset": "aggressive", "config": off}),
        ] {
            let refused = required(request).unwrap_err();
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert!(
                refused[0].starts_with(&format!("/config{path}: ")),
                "{refused:?}"
            );
        }
        assert_eq!(required(json!({"preset": "aggressive"})), Ok(true));
    }
    // The experiment itself may, down to the floor, and so may a request take back what only its own preset asks for.
    let own = resolve(conservative, &off, json!({})).unwrap();
    assert!(!own.config.safety_checks.require_non_inferiority);
    let own = resolve(
        &[],
        &json!({}),
        json!({"preset": "conservative", "config": off}),
    );
    assert!(!own.unwrap().config.safety_checks.require_non_inferiority);
}

#[test]
fn a_variable_that_cannot_be_read_is_named() {
    for (name, value) in [
        ("AUTO_PROMOTION_ENABLED", "yes"),
        ("AUTO_PROMOTION_DRY_RUN", "1"),
        ("AUTO_PROMOTION_PRESET", "bold"),
        ("AUTO_PROMOTION_FLOOR", "none"),
        ("AUTO_PROMOTION_MIN_CONFIDENCE", "0.95"),
        ("AUTO_PROMOTION_MIN_SAMPLE_SIZE", "many"),
        ("AUTO_PROMOTION_MIN_IMPROVEMENT", "NaN"),
        ("AUTO_PROMOTION_MIN_RUNTIME_HOURS", "inf"),
        ("AUTO_PROMOTION_MAX_ERROR_RATE", "5"),
        ("AUTO_PROMOTION_MAX_LATENCY_DEGRADATION", "-1"),
        ("AUTO_PROMOTION_EXCLUDED", "12"),
        ("AUTO_NOTIFY_ALERTS", "maybe"),
    ] {
        let error = environment(&[(name, value)]).unwrap_err();
        assert_eq!(error.name, name);
        assert!(error.to_string().starts_with(name));
    }
    let empty = environment(&[("AUTO_PROMOTION_MIN_CONFIDENCE", "")]).unwrap();
    assert_eq!(empty, Environment::default());
}

proptest! {
    /// Whatever a request says, what comes out is not weaker than the floor, or nothing comes out.
    #[test]
    fn a_request_never_goes_below_the_floor(
        floor in 0_usize..3, confidence in 50.0..100.0_f64, sample in 1_i64..20_000, improvement in 0.0..20.0_f64,
        runtime in 0.0..200.0_f64, errors in 0.0..0.2_f64, latency in 0.0..60.0_f64, check in any::<bool>(),
        preset in proptest::option::of(0_usize..3),
    ) {
        let floor = Preset::ALL[floor];
        let environment = Environment { preset: Preset::Conservative, floor, ..Environment::default() };
        let request = Request {
            preset: preset.map(|at| Preset::ALL[at].name().to_owned()),
            config: Some(json!({"thresholds": {"minConfidence": confidence, "minSampleSize": sample,
                "minImprovement": improvement, "minRuntimeHours": runtime, "maxErrorRate": errors,
                "maxLatencyDegradation": latency}, "safetyChecks": {"checkTrafficBalance": check}})),
            dry_run: None,
        };
        if let Ok(effective) = environment.resolve(None, &request) {
            let (got, least) = (effective.config.thresholds, floor.config().thresholds);
            prop_assert!(got.min_confidence >= least.min_confidence);
            prop_assert!(got.min_sample_size >= least.min_sample_size);
            prop_assert!(got.min_improvement >= least.min_improvement);
            prop_assert!(got.min_runtime_hours >= least.min_runtime_hours);
            prop_assert!(got.max_error_rate <= least.max_error_rate);
            prop_assert!(got.max_latency_degradation <= least.max_latency_degradation);
            prop_assert!(effective.config.safety_checks.check_traffic_balance);
        }
    }
}
