//! The criteria, one by one, each with the words that a reader looks for.

use chrono::{DateTime, Utc};
use podium_domain::decision::look::Wait;
use podium_domain::decision::verdict;
use serde::{Deserialize, Serialize};

use super::standing::Stood;
use super::{Question, Requester};
use crate::config::PromotionConfig;
use crate::evidence::{Arm, Evidence, Treatment};
use crate::safety::{Outcome, SafetyCheck};

/// Totals that are older are stale, in seconds.
pub(crate) const MOST_LAG_SECONDS: f64 = 900.0;
const SECONDS_PER_HOUR: f64 = 3_600.0;

/// Names and words of the criteria that safety checks make, in their order.
pub(super) const SAFETY: [(&str, &str); 4] = [
    ("error_rate", "error rate"),
    ("latency", "latency"),
    ("traffic_balance", "traffic balance"),
    ("alerts", "alert"),
];

/// How a criterion fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// It says no.
    Refused,
    /// It cannot be told.
    Unknown,
    /// Not yet.
    Pending,
}

/// One thing that a promotion needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Criterion {
    /// Its name.
    pub name: String,
    /// Whether it is met.
    pub met: bool,
    /// How it fails, if it does.
    pub failure: Option<Failure>,
    /// What was measured, where that is a number.
    pub measured: Option<f64>,
    /// What is required, where that is a number.
    pub required: Option<f64>,
    /// Both in words.
    pub text: String,
}

impl Criterion {
    pub(super) fn new(name: &str, failure: Option<Failure>, text: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            met: failure.is_none(),
            failure,
            measured: None,
            required: None,
            text: text.into(),
        }
    }

    pub(super) fn numbers(self, measured: Option<f64>, required: f64) -> Self {
        Self {
            measured: measured.filter(|measured| measured.is_finite()),
            required: Some(required),
            ..self
        }
    }
}

fn unless(met: bool, failure: Failure) -> Option<Failure> {
    (!met).then_some(failure)
}

/// What does not depend on the treatment.
pub(super) fn of_experiment(
    config: &PromotionConfig,
    evidence: &Evidence,
    question: &Question,
) -> Vec<Criterion> {
    let mut criteria = vec![
        enabled(config, question),
        excluded(config, evidence),
        running(evidence),
        runtime(config, evidence),
        active(evidence),
        rolled_back(evidence),
        fresh(evidence),
    ];
    criteria.extend(changed(evidence));
    criteria
}

fn enabled(config: &PromotionConfig, question: &Question) -> Criterion {
    let waived = question.requester == Requester::Person;
    let text = match (config.enabled, waived) {
        (true, _) => "enabled: automatic promotion is on",
        (false, true) => "enabled: not asked of a person's request",
        (false, false) => "disabled: automatic promotion is off; a person may still promote",
    };
    Criterion::new(
        "enabled",
        unless(config.enabled || waived, Failure::Refused),
        text,
    )
}

fn excluded(config: &PromotionConfig, evidence: &Evidence) -> Criterion {
    let name = &evidence.experiment.name;
    let excluded = config.excluded_experiments.contains(name);
    let text = if excluded {
        format!("excluded: `{name}` is on the exclusion list")
    } else {
        "exclusion list: not on it".to_owned()
    };
    Criterion::new("excluded", unless(!excluded, Failure::Refused), text)
}

fn running(evidence: &Evidence) -> Criterion {
    let status = &evidence.experiment.status;
    let running = status == "running";
    let text = if running {
        "running".to_owned()
    } else {
        format!("not running: the experiment is {status}")
    };
    Criterion::new("running", unless(running, Failure::Pending), text)
}

/// Hours from one moment to another; an earlier one gives nothing, so that no clock makes a runtime.
pub(super) fn hours(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    to.signed_duration_since(from).as_seconds_f64().max(0.0) / SECONDS_PER_HOUR
}

fn runtime(config: &PromotionConfig, evidence: &Evidence) -> Criterion {
    let required = config.thresholds.min_runtime_hours;
    let measured = evidence
        .experiment
        .start_date
        .map(|start| hours(start, evidence.now));
    let failure = match measured {
        Some(measured) => unless(measured >= required, Failure::Pending),
        None => Some(Failure::Pending),
    };
    let text = match measured {
        Some(measured) => format!("runtime: {measured:.1} h, at least {required} h required"),
        None => format!("runtime: not started, at least {required} h required"),
    };
    Criterion::new("runtime", failure, text).numbers(measured, required)
}

fn active(evidence: &Evidence) -> Criterion {
    let (failure, text) = match &evidence.history.active {
        Some(id) => (
            Some(Failure::Refused),
            format!("active promotion: {id} is in force"),
        ),
        None => (None, "active promotion: none".to_owned()),
    };
    Criterion::new("active_promotion", failure, text)
}

fn rolled_back(evidence: &Evidence) -> Criterion {
    let (failure, text) = match evidence.history.rolled_back_at {
        Some(at) => (
            Some(Failure::Refused),
            format!(
                "rolled back: on {}; restart the analysis first",
                at.format("%Y-%m-%d %H:%M:%S UTC")
            ),
        ),
        None => (
            None,
            "rolled back: not since this analysis began".to_owned(),
        ),
    };
    Criterion::new("rolled_back", failure, text)
}

fn fresh(evidence: &Evidence) -> Criterion {
    let lag = evidence.lag_seconds;
    let fresh = lag.is_some_and(|lag| (0.0..MOST_LAG_SECONDS).contains(&lag));
    let text = match lag {
        Some(lag) if fresh => format!("data: {lag:.0} s old"),
        Some(lag) if lag.is_finite() => {
            format!("stale: the totals are {lag:.0} s old, at most {MOST_LAG_SECONDS} s allowed")
        }
        _ => "stale: it is not known how old the totals are".to_owned(),
    };
    Criterion::new("fresh", unless(fresh, Failure::Unknown), text).numbers(lag, MOST_LAG_SECONDS)
}

fn changed(evidence: &Evidence) -> Option<Criterion> {
    let open = evidence.analysis.as_ref()?;
    open.changed.as_ref().map(|what| {
        Criterion::new(
            "analysis",
            Some(Failure::Pending),
            format!(
                "confidence: {what} changed since the analysis was frozen; the next scan begins a new one"
            ),
        )
    })
}

/// Every variant that matters has the sample: control, candidate, and whoever gets traffic.
pub(super) fn sample(
    config: &PromotionConfig,
    evidence: &Evidence,
    treatment: &Treatment,
) -> Criterion {
    let designed = evidence
        .analysis
        .as_ref()
        .map_or(0, |open| open.analysis.design.min_sample_size);
    let required = config.thresholds.min_sample_size.max(designed);
    let is_candidate = |arm: &Arm| arm.variant_id == treatment.arm.variant_id;
    let others = evidence.treatments.iter().map(|other| &other.arm);
    let counted = others.filter(|arm| arm.has_traffic || is_candidate(arm));
    let smallest = counted.chain(&evidence.control).min_by_key(|arm| arm.units);
    let Some((smallest, _)) = smallest.zip(evidence.control.as_ref()) else {
        let text = "sample: there is no control to compare with";
        return Criterion::new("sample", Some(Failure::Unknown), text)
            .numbers(None, as_float(required));
    };
    let text = format!(
        "sample: {} units in {}, at least {required} in every variant required",
        smallest.units, smallest.name
    );
    let failure = unless(smallest.units >= required, Failure::Pending);
    Criterion::new("sample", failure, text)
        .numbers(Some(as_float(smallest.units)), as_float(required))
}

/// A treatment whose weight was set to 0 was taken out by somebody, whatever its looks said before.
pub(super) fn traffic(treatment: &Treatment) -> Criterion {
    let has_traffic = treatment.arm.has_traffic;
    let text = if has_traffic {
        "running: the treatment gets traffic"
    } else {
        "not running: the treatment has weight 0"
    };
    Criterion::new("traffic", unless(has_traffic, Failure::Refused), text)
}

/// What the looks say.
pub(super) fn of_statistics(stood: &Stood) -> Vec<Criterion> {
    match stood {
        Stood::Unknown(why) => vec![
            Criterion::new(
                "confidence",
                Some(Failure::Unknown),
                format!("confidence: {why}"),
            ),
            Criterion::new(
                "improvement",
                Some(Failure::Unknown),
                format!("improvement: {why}"),
            ),
        ],
        Stood::NotStarted => {
            let text = |name| format!("{name}: nothing is measured before the start");
            let pending = Some(Failure::Pending);
            vec![
                Criterion::new("confidence", pending, text("confidence")),
                Criterion::new("improvement", pending, text("improvement")),
            ]
        }
        Stood::Judged {
            standing, waits, ..
        } => vec![
            confidence(&standing.confidence, waits),
            lead(&standing.lead),
            improvement(&standing.improvement),
        ],
    }
}

fn judged(name: &str, criterion: &verdict::Criterion, text: String) -> Criterion {
    Criterion::new(name, unless(criterion.met, Failure::Pending), text)
        .numbers(criterion.measured, criterion.required)
}

/// Never rounded up to what is required.
fn floored(percent: f64) -> f64 {
    (100.0 * percent).floor() / 100.0
}

fn confidence(criterion: &verdict::Criterion, waits: &[Wait]) -> Criterion {
    let required = criterion.required;
    let waiting: Vec<String> = waits.iter().map(ToString::to_string).collect();
    let text = match criterion.measured {
        Some(measured) => {
            let measured = floored(measured);
            format!("confidence: {measured} %, at least {required} % required")
        }
        None if waiting.is_empty() => format!("confidence: no look yet, {required} % required"),
        None => format!(
            "confidence: no look yet, {required} % required; waiting for {}",
            waiting.join("; ")
        ),
    };
    judged("confidence", criterion, text)
}

fn lead(criterion: &verdict::Criterion) -> Criterion {
    let required = criterion.required;
    let text = match criterion.measured {
        Some(z) => format!(
            "confidence: the lead at the last look is z = {z:.2}, at least {required:.2} required"
        ),
        None => format!("confidence: no lead without a look, z of at least {required:.2} required"),
    };
    judged("lead", criterion, text)
}

fn improvement(criterion: &verdict::Criterion) -> Criterion {
    let required = criterion.required;
    let text = match criterion.measured {
        Some(lift) => format!("improvement: {lift:.2} %, at least {required} % required"),
        None => format!("improvement: not measured yet, at least {required} % required"),
    };
    judged("improvement", criterion, text)
}

/// One criterion for each safety check.
pub(super) fn of_safety(config: &PromotionConfig, checks: &[SafetyCheck]) -> Vec<Criterion> {
    let on = &config.safety_checks;
    let switches = [
        on.check_error_rates,
        on.check_latency,
        on.check_traffic_balance,
        on.check_recent_alerts,
    ];
    SAFETY
        .iter()
        .zip(switches)
        .zip(checks)
        .map(|(((name, words), on), check)| {
            let failure = match check.outcome {
                Outcome::Passed => None,
                Outcome::Harm | Outcome::Barred => Some(Failure::Refused),
                Outcome::Unproved => Some(Failure::Pending),
                Outcome::Missing => Some(Failure::Unknown),
            };
            let text = format!("{words}: {}", check.message);
            Criterion {
                measured: check.value,
                required: check.threshold,
                ..Criterion::new(
                    name,
                    failure.filter(|_| on || check.outcome == Outcome::Barred),
                    text,
                )
            }
        })
        .collect()
}

/// There is nothing to promote.
pub(super) fn no_candidate(evidence: &Evidence, question: &Question) -> Criterion {
    let text = match &question.variant {
        Some(name)
            if evidence
                .control
                .as_ref()
                .is_some_and(|arm| arm.name == *name) =>
        {
            format!("confidence: `{name}` is the control")
        }
        Some(name) => format!("confidence: there is no treatment `{name}`"),
        None => "confidence: there is no treatment to promote".to_owned(),
    };
    Criterion::new("candidate", Some(Failure::Refused), text)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn as_float(number: i64) -> f64 {
    number as f64
}
