//! What is decided, and what never is.

use chrono::TimeDelta;
use podium_domain::analysis::EpochSplit;
use podium_domain::decision::design::{DesignInput, DesignSettings, FrozenDesign};
use podium_domain::decision::evidence::{ArmSummary, Stratum};
use podium_domain::decision::look::Analysis;
use podium_domain::metric::Metric;
use podium_domain::stats::proportion::Proportion;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::config::Preset;
use crate::evidence::{
    Arm, BanditReading, History, Latency, OpenAnalysis, RequestCounts, SafetyReading, Subject,
    Traffic,
};
use crate::safety::Severity;

fn start() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

fn arm(variant_id: i64, name: &str, units: i64) -> Arm {
    Arm {
        variant_id,
        name: name.to_owned(),
        units,
        value: Some(0.1),
        has_traffic: true,
        safety: SafetyReading {
            errors: vec![RequestCounts {
                epoch: 1,
                requests: units,
                errors: units / 100,
                effective: units,
            }],
            latency: Some(Latency {
                units,
                p95_ms: 200.0,
                lower_ms: 190.0,
                upper_ms: 210.0,
            }),
            critical_alerts: Some(0),
        },
    }
}

fn analysis(treatments: u32, config: &PromotionConfig) -> Analysis {
    let design = FrozenDesign::new(DesignInput {
        metric: Metric::ConversionRate,
        winsorize_upper: None,
        cap: None,
        treatments,
        settings: DesignSettings {
            min_detectable_effect: None,
            horizon_days: None,
            look_every_hours: 24,
        },
        min_sample_size: config.thresholds.min_sample_size,
        min_runtime_hours: config.thresholds.min_runtime_hours,
        min_improvement: config.thresholds.min_improvement,
    });
    Analysis {
        start: start(),
        unspent: 1.0,
        design: design.unwrap(),
    }
}

/// Conversions and units of the control and of each treatment.
fn evidence(days: i64, control: (i64, i64), treatments: &[(i64, i64)]) -> Evidence {
    let proportion = |(x, n): (i64, i64)| ArmSummary::proportion(Proportion::new(x, n).unwrap());
    let names = ["b", "c", "d", "e"];
    let treatment = |(at, of): (usize, &(i64, i64))| Treatment {
        arm: arm(12 + i64::try_from(at).unwrap(), names[at], of.1),
        strata: Some(vec![Stratum {
            control: proportion(control),
            treatment: proportion(*of),
            treatment_share: 0.5,
        }]),
        missing: None,
        looks: Vec::new(),
        bandit: None,
    };
    let count = |units: i64| units as f64;
    let mut counts = vec![count(control.1)];
    counts.extend(treatments.iter().map(|of| count(of.1)));
    Evidence {
        now: start() + TimeDelta::days(days),
        lag_seconds: Some(2.0),
        experiment: Subject {
            id: 1,
            name: "cta".to_owned(),
            experiment_type: "ab_test".to_owned(),
            status: "running".to_owned(),
            version: 1,
            start_date: Some(start()),
            primary_metric: "conversion_rate".to_owned(),
            guardrails: Vec::new(),
        },
        history: History::default(),
        analysis: Some(OpenAnalysis {
            number: 1,
            from_epoch: 1,
            analysis: analysis(u32::try_from(treatments.len()).unwrap(), &balanced()),
            changed: None,
        }),
        control: Some(arm(11, "control", control.1)),
        treatments: treatments.iter().enumerate().map(treatment).collect(),
        traffic: Traffic {
            epochs: vec![EpochSplit {
                weights: vec![1.0; counts.len()],
                counts,
            }],
            client_units: 0,
            allows_client_units: false,
        },
        prior_sd: 0.05,
    }
}

fn balanced() -> PromotionConfig {
    PromotionConfig {
        enabled: true,
        ..Preset::Balanced.config()
    }
}

/// 10 % against 12 %, 20,000 units each, ten days.
fn clear() -> Evidence {
    evidence(10, (2_000, 20_000), &[(2_400, 20_000)])
}

fn asked(evidence: &Evidence) -> Decision {
    decide(&balanced(), evidence, &Question::of_engine())
}

fn person(variant: Option<&str>) -> Question {
    Question {
        requester: Requester::Person,
        variant: variant.map(str::to_owned),
    }
}

#[test]
fn a_clear_winner_is_promoted_with_every_figure() {
    let decision = asked(&clear());
    assert_eq!(decision.verdict, Verdict::Promote, "{:?}", decision.reasons);
    assert_eq!(decision.candidate, Some(12));
    assert!(decision.is_eligible() && decision.reasons.is_empty());
    assert!(decision.criteria.iter().all(|criterion| criterion.met));
    assert_eq!(decision.eligible_at, None);
    let figures = decision.figures.unwrap();
    assert!(figures.confidence > 99.9);
    let improvement = figures.improvement.unwrap();
    assert!((improvement - 20.0).abs() < 1e-9);
    let (lower, upper) = figures.interval.unwrap();
    assert!(0.0 < lower && lower < improvement && improvement < upper);
    let shrunk = figures.shrunk_improvement.unwrap();
    assert!(0.0 < shrunk && shrunk < improvement);
    let anytime = figures.anytime_valid.unwrap();
    assert!(anytime.e_value > 1_000.0 && anytime.lower.unwrap() < lower);
    let names: Vec<&str> = decision
        .safety_checks
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "Error Rate Check",
            "Latency Degradation Check",
            "Traffic Balance Check",
            "Recent Alerts Check"
        ]
    );
    assert_eq!(
        decision.safety_checks[0].message,
        "Winner error rate: 1.00%"
    );
    assert!(
        decision
            .safety_checks
            .iter()
            .all(|c| c.passed && c.value.is_some() && c.threshold.is_some())
    );
}

/// One change of the clear winner, the word that its reason must hold, and the verdict.
#[test]
fn every_criterion_fails_with_its_word() {
    type Change = fn(&mut Evidence, &mut PromotionConfig);
    let cases: [(&str, Verdict, Change); 24] = [
        ("disabled", Verdict::Blocked, |_, c| c.enabled = false),
        ("excluded", Verdict::Blocked, |_, c| {
            c.excluded_experiments = vec!["cta".into()];
        }),
        ("not running", Verdict::NotYet, |e, _| {
            e.experiment.status = "paused".into();
        }),
        ("runtime", Verdict::NotYet, |_, c| {
            c.thresholds.min_runtime_hours = 241.0;
        }),
        ("runtime", Verdict::NotYet, |e, _| {
            e.experiment.start_date = Some(e.now + TimeDelta::hours(1));
        }),
        ("active promotion", Verdict::Blocked, |e, _| {
            e.history.active = Some("x".into());
        }),
        ("rolled back", Verdict::Blocked, |e, _| {
            e.history.rolled_back_at = Some(start());
        }),
        ("stale", Verdict::Inconclusive, |e, _| {
            e.lag_seconds = Some(900.0);
        }),
        ("stale", Verdict::Inconclusive, |e, _| e.lag_seconds = None),
        ("stale", Verdict::Inconclusive, |e, _| {
            e.lag_seconds = Some(f64::NAN);
        }),
        ("sample", Verdict::NotYet, |_, c| {
            c.thresholds.min_sample_size = 20_001;
        }),
        ("sample", Verdict::Inconclusive, |e, _| e.control = None),
        ("confidence", Verdict::Inconclusive, |e, _| {
            e.treatments[0].strata = None;
        }),
        ("improvement", Verdict::NotYet, |_, c| {
            c.thresholds.min_improvement = 21.0;
        }),
        ("bandit", Verdict::Inconclusive, |e, _| {
            e.experiment.experiment_type = "bandit".into();
        }),
        ("traffic balance", Verdict::Blocked, |e, _| {
            e.traffic.epochs[0].counts[1] = 22_000.0;
        }),
        ("traffic balance", Verdict::Inconclusive, |e, _| {
            e.traffic.epochs[0].counts[1] = f64::NAN;
        }),
        ("error rate", Verdict::Blocked, |e, _| {
            e.treatments[0].arm.safety.errors = vec![RequestCounts {
                epoch: 1,
                requests: 1_000,
                errors: 51,
                effective: 1_000,
            }];
        }),
        ("error rate", Verdict::Blocked, |e, _| {
            e.treatments[0].arm.safety.errors = vec![RequestCounts {
                epoch: 1,
                requests: 20_000,
                errors: 300,
                effective: 20_000,
            }];
        }),
        ("error rate", Verdict::Inconclusive, |e, _| {
            e.control.as_mut().unwrap().safety.errors = Vec::new();
        }),
        ("latency", Verdict::Blocked, |e, _| {
            e.treatments[0].arm.safety.latency = Some(Latency {
                units: 9,
                p95_ms: 245.0,
                lower_ms: 100.0,
                upper_ms: 600.0,
            });
        }),
        ("latency", Verdict::Blocked, |e, _| {
            e.treatments[0].arm.safety.latency = Some(Latency {
                units: 9,
                p95_ms: 230.0,
                lower_ms: 228.0,
                upper_ms: 232.0,
            });
        }),
        ("latency", Verdict::Inconclusive, |e, _| {
            e.treatments[0].arm.safety.latency.as_mut().unwrap().p95_ms = f64::NAN;
        }),
        ("alert", Verdict::Blocked, |e, _| {
            e.treatments[0].arm.safety.critical_alerts = Some(1);
        }),
    ];
    for (at, (word, verdict, change)) in cases.into_iter().enumerate() {
        let (mut evidence, mut config) = (clear(), balanced());
        change(&mut evidence, &mut config);
        let decision = decide(&config, &evidence, &Question::of_engine());
        assert_eq!(
            decision.verdict, verdict,
            "case {at}: {:?}",
            decision.reasons
        );
        assert!(
            decision.reasons.iter().any(|reason| reason.contains(word)),
            "case {at}: {word} in {:?}",
            decision.reasons
        );
        assert_eq!(decision.safety_checks.len(), 4);
    }
}

#[test]
fn every_failing_criterion_is_named_at_once() {
    let mut evidence = evidence(0, (10, 90), &[(9, 100)]);
    evidence.lag_seconds = Some(1_000.0);
    evidence.experiment.status = "paused".to_owned();
    let config = PromotionConfig {
        excluded_experiments: vec!["cta".to_owned()],
        ..Preset::Balanced.config()
    };
    let decision = decide(&config, &evidence, &Question::of_engine());
    for word in [
        "disabled",
        "excluded",
        "not running",
        "runtime",
        "stale",
        "sample",
        "confidence",
        "improvement",
    ] {
        assert!(
            decision.reasons.iter().any(|r| r.contains(word)),
            "{word}: {:?}",
            decision.reasons
        );
    }
}

#[test]
fn a_person_may_promote_what_the_engine_may_not() {
    let config = Preset::Balanced.config();
    assert_eq!(
        decide(&config, &clear(), &Question::of_engine()).verdict,
        Verdict::Blocked
    );
    assert!(decide(&config, &clear(), &person(None)).is_eligible());
    assert_eq!(
        decide(&config, &clear(), &person(Some("control"))).verdict,
        Verdict::Blocked
    );
    assert_eq!(
        decide(&config, &clear(), &person(Some("z"))).candidate,
        None
    );
}

#[test]
fn of_several_winners_the_surest_wins_and_a_request_may_choose() {
    let mut evidence = evidence(10, (2_000, 20_000), &[(2_400, 20_000), (2_600, 20_000)]);
    assert_eq!(asked(&evidence).candidate, Some(13));
    assert_eq!(
        decide(&balanced(), &evidence, &person(Some("b"))).candidate,
        Some(12)
    );
    // The surest does harm: the other one is promoted.
    evidence.treatments[1].arm.safety.critical_alerts = Some(3);
    let decision = asked(&evidence);
    assert_eq!(
        (decision.verdict, decision.candidate),
        (Verdict::Promote, Some(12))
    );
}

#[test]
fn a_recorded_look_gives_the_answer_of_the_look_that_was_due() {
    let mut evidence = clear();
    let before = asked(&evidence);
    for (variant, looks) in new_looks(&balanced(), &evidence) {
        assert_eq!(variant, 12);
        evidence.treatments[0].looks.extend(looks);
    }
    assert!(new_looks(&balanced(), &evidence).is_empty());
    assert_eq!(asked(&evidence), before);
    // Later in the same slot the look is reused, whatever has come in since.
    evidence.now += TimeDelta::hours(3);
    let worse = super::tests::evidence(10, (2_400, 20_000), &[(2_400, 20_000)]);
    evidence.treatments[0].strata = worse.treatments[0].strata.clone();
    assert!(asked(&evidence).is_eligible());
}

#[test]
fn without_data_a_check_passes_unless_it_was_asked_for() {
    let mut evidence = clear();
    evidence.treatments[0].arm.safety = SafetyReading::default();
    let decision = asked(&evidence);
    assert!(decision.is_eligible());
    for at in [0, 1, 3] {
        let check = &decision.safety_checks[at];
        assert_eq!((check.passed, check.severity), (true, Severity::Info));
        assert_eq!(check.message, "no data");
    }
    evidence.experiment.guardrails = vec!["error_rate".into(), "p95_latency_ms".into()];
    let decision = asked(&evidence);
    assert_eq!(decision.verdict, Verdict::Inconclusive);
    assert_eq!(decision.reasons.len(), 2);
}

/// An hour in which the whole site failed, after a change of weights: pooled, the treatment would look five standard errors
/// worse, because it had little traffic before.
#[test]
fn errors_are_compared_within_epochs() {
    let counts = |epoch, requests, errors| RequestCounts {
        epoch,
        requests,
        errors,
        effective: requests,
    };
    let mut evidence = clear();
    evidence.control.as_mut().unwrap().safety.errors =
        vec![counts(1, 9_000, 90), counts(2, 5_000, 200)];
    evidence.treatments[0].arm.safety.errors = vec![counts(1, 1_000, 10), counts(2, 5_000, 200)];
    assert!(asked(&evidence).is_eligible());
    evidence.treatments[0].arm.safety.errors[1].errors = 260;
    assert_eq!(asked(&evidence).verdict, Verdict::Blocked);
}

#[test]
fn non_inferiority_is_proved_where_it_is_asked_for() {
    let mut config = balanced();
    config.safety_checks.require_non_inferiority = true;
    let mut evidence = clear();
    assert!(decide(&config, &evidence, &Question::of_engine()).is_eligible());
    let few = vec![RequestCounts {
        epoch: 1,
        requests: 100,
        errors: 1,
        effective: 100,
    }];
    evidence.treatments[0].arm.safety.errors = few;
    let decision = decide(&config, &evidence, &Question::of_engine());
    assert_eq!(decision.verdict, Verdict::NotYet);
    assert!(decision.safety_checks[0].message.contains("not proved"));
}

#[test]
fn a_forecast_is_given_where_time_alone_is_missing() {
    let slow = evidence(5, (400, 4_000), &[(440, 4_000)]);
    let decision = asked(&slow);
    assert_eq!(decision.verdict, Verdict::NotYet);
    let at = decision.eligible_at.unwrap();
    assert!(at > slow.now + TimeDelta::hours(20), "{at}");
    let worse = evidence(5, (440, 4_000), &[(400, 4_000)]);
    assert_eq!(asked(&worse).eligible_at, None);
}

#[test]
fn evidence_survives_being_stored() {
    let mut evidence = clear();
    evidence.treatments[0].looks = new_looks(&balanced(), &evidence).remove(0).1;
    let stored = serde_json::to_string(&evidence).unwrap();
    let read: Evidence = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, evidence);
    let decision = asked(&evidence);
    let again: Decision = serde_json::from_str(&serde_json::to_string(&decision).unwrap()).unwrap();
    assert_eq!(again, decision);
}

/// A bandit needs no look, and no look helps it: the winner rule decides.
#[test]
fn a_bandit_is_promoted_by_the_winner_rule() {
    let good = BanditReading {
        prob_best: 0.99,
        expected_loss: 1e-6,
        control_rate: 0.1,
        difference: 0.02,
        standard_error: 0.003,
        interval: Some((0.005, 0.035)),
        conversions: 2_000,
        control_conversions: 25,
    };
    let decide = |reading: Option<BanditReading>| {
        let mut evidence = clear();
        evidence.experiment.experiment_type = "bandit".into();
        evidence.treatments[0].bandit = reading;
        asked(&evidence)
    };
    let decision = decide(Some(good));
    assert!(decision.is_eligible(), "{:?}", decision.reasons);
    assert_eq!(decision.figures.unwrap().method, "bandit_winner_rule");
    assert_eq!(decide(None).verdict, Verdict::Inconclusive);
    let bad: [fn(&mut BanditReading); 8] = [
        |r| r.prob_best = 0.94,
        |r| r.prob_best = f64::INFINITY,
        |r| r.expected_loss = 0.01,
        |r| r.expected_loss = f64::NEG_INFINITY,
        |r| r.interval = None,
        |r| r.interval = Some((-0.001, 0.04)),
        |r| r.control_conversions = 24,
        |r| r.difference = 0.004,
    ];
    for (at, spoil) in bad.into_iter().enumerate() {
        let mut reading = good;
        spoil(&mut reading);
        assert!(!decide(Some(reading)).is_eligible(), "{at}");
    }
}

/// Two treatments of a bandit, `b` and `c`; `c` has by far the smaller sequential p-value.
fn bandit_of_two(b: BanditReading, c: BanditReading) -> Evidence {
    let mut evidence = evidence(10, (2_000, 20_000), &[(2_000, 20_000), (2_600, 20_000)]);
    evidence.experiment.experiment_type = "bandit".into();
    evidence.treatments[0].bandit = Some(b);
    evidence.treatments[1].bandit = Some(c);
    evidence
}

const BEST: BanditReading = BanditReading {
    prob_best: 0.97,
    expected_loss: 0.0,
    control_rate: 0.1,
    difference: 0.02,
    standard_error: 0.004,
    interval: Some((0.005, 0.035)),
    conversions: 2_000,
    control_conversions: 2_000,
};

#[test]
fn the_candidate_of_a_bandit_is_the_one_that_is_likeliest_to_be_best() {
    let hardly = BanditReading {
        prob_best: 0.02,
        ..BEST
    };
    let mut evidence = bandit_of_two(BEST, hardly);
    // Neither passes: the runtime is missing.
    evidence.experiment.start_date = Some(evidence.now - TimeDelta::hours(2));
    let decision = asked(&evidence);
    assert_eq!(decision.candidate, Some(12), "{:?}", decision.reasons);
    assert_eq!(decision.reasons.len(), 1, "{:?}", decision.reasons);
    // What makes no sense is never the nearest.
    let mut nonsense = bandit_of_two(BEST, hardly);
    nonsense.treatments[1].bandit.as_mut().unwrap().prob_best = f64::INFINITY;
    nonsense.experiment.status = "paused".into();
    assert_eq!(asked(&nonsense).candidate, Some(12));
}

#[test]
fn a_bandit_is_foretold_no_look() {
    let near = BanditReading {
        prob_best: 0.94,
        ..BEST
    };
    let worse = BanditReading {
        prob_best: 0.0,
        ..BEST
    };
    // A sequential look of `c` would pass; what is missing is the probability of being best.
    let decision = asked(&bandit_of_two(worse, near));
    assert_eq!(decision.candidate, Some(13));
    assert_eq!(decision.verdict, Verdict::NotYet);
    assert_eq!(decision.eligible_at, None, "{:?}", decision.reasons);
    // The end of the runtime is known, and no slot begins then.
    let mut young = bandit_of_two(BEST, worse);
    young.experiment.start_date = Some(young.now - TimeDelta::hours(2));
    let at = asked(&young).eligible_at.unwrap();
    assert_eq!(at, young.now + TimeDelta::hours(22));
    // Without a reading there are no figures, and none of looks that were never taken.
    young.treatments.iter_mut().for_each(|t| t.bandit = None);
    assert_eq!(asked(&young).figures, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Take a number away, or make it no number, and nothing is promoted.
    #[test]
    fn what_is_missing_never_promotes(which in 0_usize..12, bad in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)]) {
        let mut evidence = clear();
        evidence.experiment.guardrails = vec!["error_rate".into(), "p95_latency_ms".into()];
        let looks = new_looks(&balanced(), &evidence).remove(0).1;
        evidence.treatments[0].looks = looks;
        prop_assert!(asked(&evidence).is_eligible());
        let last = evidence.treatments[0].looks.len() - 1;
        let treatment = &mut evidence.treatments[0];
        match which {
            0 => evidence.lag_seconds = Some(bad),
            1 => treatment.looks[last].p = bad,
            2 => treatment.looks[last].z = Some(bad),
            3 => treatment.looks[last].lift = Some(bad),
            4 => treatment.looks[last].information = bad,
            5 => evidence.analysis.as_mut().unwrap().analysis.unspent = bad,
            6 => treatment.strata = None,
            7 => treatment.arm.safety.errors = Vec::new(),
            8 => treatment.arm.safety.latency.as_mut().unwrap().upper_ms = bad,
            9 => evidence.traffic.epochs[0].counts[0] = bad,
            10 => evidence.control = None,
            _ => evidence.analysis = None,
        }
        prop_assert!(!asked(&evidence).is_eligible(), "{which} {bad}");
    }

    /// Stricter thresholds never turn a no into a yes.
    #[test]
    fn stricter_is_never_easier(
        x in 1_900_i64..2_500, confidence in 0.0..4.9_f64, sample in 0_i64..25_000, improvement in 0.0..20.0_f64,
        runtime in 0.0..300.0_f64, errors in 0.0..0.05_f64, latency in 0.0..20.0_f64, non_inferior in any::<bool>(),
    ) {
        let evidence = evidence(10, (2_000, 20_000), &[(x, 20_000)]);
        let loose = balanced();
        let mut strict = loose.clone();
        strict.thresholds.min_confidence += confidence;
        strict.thresholds.min_sample_size += sample;
        strict.thresholds.min_improvement += improvement;
        strict.thresholds.min_runtime_hours += runtime;
        strict.thresholds.max_error_rate -= errors;
        strict.thresholds.max_latency_degradation -= latency;
        strict.safety_checks.require_non_inferiority |= non_inferior;
        let question = Question::of_engine();
        if decide(&strict, &evidence, &question).is_eligible() {
            prop_assert!(decide(&loose, &evidence, &question).is_eligible());
        }
    }
}

/// Conversions among `units` at `rate`, normally approximated: enough for a count in the hundreds.
fn conversions(rng: &mut StdRng, units: f64, rate: f64) -> i64 {
    let (one, other): (f64, f64) = (rng.random(), rng.random());
    let normal = (-2.0 * (1.0 - one).ln()).sqrt() * (std::f64::consts::TAU * other).cos();
    #[expect(clippy::cast_possible_truncation, reason = "small counts")]
    let drawn = (units * rate + normal * (units * rate * (1.0 - rate)).sqrt()).round() as i64;
    drawn.max(0)
}

/// A/A experiments of 12 daily looks and two treatments through the real decision, with the gate on the lift open: false
/// promotions stay within alpha and three standard errors. Seeded.
#[test]
fn false_promotions_stay_within_alpha() {
    const RUNS: u32 = 40;
    let mut config = Preset::Aggressive.config();
    config.enabled = true;
    config.thresholds.min_improvement = 0.0;
    let (mut rng, mut promoted) = (StdRng::seed_from_u64(20_261_123), 0_u32);
    for _ in 0..RUNS {
        let mut totals = [0_i64; 3];
        let mut looks: Vec<Vec<podium_domain::decision::look::Look>> = vec![Vec::new(); 2];
        for day in 1..=12_i64 {
            for total in &mut totals {
                *total += conversions(&mut rng, 1_000.0, 0.1);
            }
            let of = |at: usize| (totals[at], 1_000 * day);
            let mut seen = evidence(day, of(0), &[of(1), of(2)]);
            seen.analysis.as_mut().unwrap().analysis = analysis(2, &config);
            for (treatment, looks) in seen.treatments.iter_mut().zip(&looks) {
                treatment.looks.clone_from(looks);
            }
            for (variant, new) in new_looks(&config, &seen) {
                let at = usize::try_from(variant - 12).unwrap();
                looks[at].extend(new.iter().copied());
                seen.treatments[at].looks.extend(new);
            }
            if decide(&config, &seen, &Question::of_engine()).is_eligible() {
                promoted += 1;
                break;
            }
        }
    }
    let rate = f64::from(promoted) / f64::from(RUNS);
    let se = (0.1 * 0.9 / f64::from(RUNS)).sqrt();
    assert!(rate <= 0.1 + 3.0 * se, "{promoted} of {RUNS}");
}
