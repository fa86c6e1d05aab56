//! The four safety checks, each with its number, its threshold and how bad it is. Pure.

use podium_domain::analysis::{ERROR_RATE_MARGIN, GUARDRAIL_ALPHA, split_p_value};
use podium_domain::metric::Metric;
use podium_domain::stats::special::norm_isf;
use podium_domain::stats::{StatsError, srm};
use serde::{Deserialize, Serialize};

use crate::config::PromotionConfig;
use crate::evidence::{Arm, Latency, RequestCounts, Subject, Traffic};

/// Above this share of units whose variant the client named, an experiment is not promoted unless its config allows it.
const FOREIGN_SPLIT: f64 = 0.05;

/// How bad the outcome of a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to worry about.
    Info,
    /// Not proved, or not known.
    Warning,
    /// Harm.
    Critical,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing against a promotion.
    Passed,
    /// Harm was found.
    Harm,
    /// More data may still clear it.
    Unproved,
    /// There are no data, and the experiment asked for them.
    Missing,
    /// Clients named the variants of more units than may be, and the experiment does not allow it: that bars a promotion
    /// whether the check is switched on or not.
    Barred,
}

/// One safety check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SafetyCheck {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was found, in words.
    pub message: String,
    /// The number that was found.
    pub value: Option<f64>,
    /// The number that it is held against.
    pub threshold: Option<f64>,
    /// How bad it is.
    pub severity: Severity,
    /// What it means for the verdict.
    pub outcome: Outcome,
}

impl SafetyCheck {
    fn new(name: &str, threshold: f64) -> Self {
        Self {
            name: name.to_owned(),
            passed: true,
            message: "no data".to_owned(),
            value: None,
            threshold: Some(threshold),
            severity: Severity::Info,
            outcome: Outcome::Passed,
        }
    }

    fn with(self, outcome: Outcome, value: Option<f64>, message: impl Into<String>) -> Self {
        Self {
            passed: outcome == Outcome::Passed,
            message: message.into(),
            value: value.filter(|value| value.is_finite()),
            severity: match outcome {
                Outcome::Passed => Severity::Info,
                Outcome::Harm | Outcome::Barred => Severity::Critical,
                Outcome::Unproved | Outcome::Missing => Severity::Warning,
            },
            outcome,
            ..self
        }
    }

    /// Without data: passed, unless the experiment lists the metric among its guardrails.
    fn without_data(self, wanted: bool) -> Self {
        if wanted {
            let message = "no data, and the experiment lists the metric in guardrails";
            self.with(Outcome::Missing, None, message)
        } else {
            self
        }
    }
}

/// All four checks of a candidate against the control, always in the same order.
#[must_use]
pub fn checks(
    config: &PromotionConfig,
    subject: &Subject,
    candidate: Option<&Arm>,
    control: Option<&Arm>,
    traffic: &Traffic,
) -> Vec<SafetyCheck> {
    vec![
        errors(config, subject, candidate, control),
        latency(config, subject, candidate, control),
        balance(traffic),
        alerts(config, candidate),
    ]
}

fn guards(subject: &Subject, metric: Metric) -> bool {
    subject.guardrails.iter().any(|name| name == metric.name())
}

fn percent(fraction: f64) -> String {
    format!("{:.2}%", 100.0 * fraction)
}

fn errors(
    config: &PromotionConfig,
    subject: &Subject,
    candidate: Option<&Arm>,
    control: Option<&Arm>,
) -> SafetyCheck {
    let limit = config.thresholds.max_error_rate;
    let check = SafetyCheck::new("Error Rate Check", limit);
    let counts = |arm: Option<&Arm>| arm.map_or(Vec::new(), |arm| arm.safety.errors.clone());
    let (winner, control) = (counts(candidate), counts(control));
    if winner.is_empty() {
        return check.without_data(guards(subject, Metric::ErrorRate));
    }
    let Some(rate) = level(&winner) else {
        return check.with(
            Outcome::Missing,
            None,
            "error rate: counts contradict each other",
        );
    };
    let found = format!("Winner error rate: {}", percent(rate));
    if rate > limit {
        let message = format!("{found}, above {}", percent(limit));
        return check.with(Outcome::Harm, Some(rate), message);
    }
    let Some((difference, se)) = difference(&winner, &control) else {
        let message = format!("{found}, but the control has no data to compare with");
        return check.with(Outcome::Missing, Some(rate), message);
    };
    let quantile = norm_isf(GUARDRAIL_ALPHA);
    if difference > quantile * se {
        let message = format!("{found}, proved worse than the control");
        return check.with(Outcome::Harm, Some(rate), message);
    }
    let proved = difference + quantile * se < ERROR_RATE_MARGIN;
    if config.safety_checks.require_non_inferiority && !proved {
        let message = format!("{found}, not proved to be within 1 point of the control");
        return check.with(Outcome::Unproved, Some(rate), message);
    }
    check.with(Outcome::Passed, Some(rate), found)
}

fn share(counts: &RequestCounts) -> Option<f64> {
    let valid = (0..=counts.requests).contains(&counts.errors)
        && (1..=counts.requests).contains(&counts.effective);
    valid.then(|| as_float(counts.errors) / as_float(counts.requests))
}

/// Errored requests over requests, of all epochs together.
fn level(epochs: &[RequestCounts]) -> Option<f64> {
    let (mut errors, mut requests) = (0_i64, 0_i64);
    for counts in epochs {
        share(counts)?;
        errors = errors.checked_add(counts.errors)?;
        requests = requests.checked_add(counts.requests)?;
    }
    (requests > 0).then(|| as_float(errors) / as_float(requests))
}

/// Winner minus control with its standard error, each epoch compared with itself and weighted by what it knows: over a change
/// of weights, errors of the whole site would look like errors of the variant that had most of the traffic at the time.
fn difference(winner: &[RequestCounts], control: &[RequestCounts]) -> Option<(f64, f64)> {
    let (mut sum, mut variance, mut weights) = (0.0, 0.0, 0.0);
    for of_winner in winner {
        let same = control.iter().find(|other| other.epoch == of_winner.epoch);
        let Some(of_control) = same else { continue };
        let (n_b, n_a) = (
            as_float(of_winner.effective),
            as_float(of_control.effective),
        );
        let weight = n_a * n_b / (n_a + n_b);
        let (difference, squared_error) = difference_within(of_winner, of_control)?;
        sum += weight * difference;
        variance += weight * weight * squared_error;
        weights += weight;
    }
    (weights > 0.0).then(|| (sum / weights, variance.sqrt() / weights))
}

/// Winner minus control, and the square of its standard error: the wider of the pooled and the unpooled one, because with few
/// errors the unpooled one alone is too sure. Each arm counts as its effective requests, as if those of one unit all ended
/// alike.
fn difference_within(winner: &RequestCounts, control: &RequestCounts) -> Option<(f64, f64)> {
    let (b, a) = (share(winner)?, share(control)?);
    let (n_b, n_a) = (as_float(winner.effective), as_float(control.effective));
    let pooled = (b * n_b + a * n_a) / (n_a + n_b);
    let unpooled = a * (1.0 - a) / n_a + b * (1.0 - b) / n_b;
    let common = pooled * (1.0 - pooled) * (1.0 / n_a + 1.0 / n_b);
    Some((b - a, unpooled.max(common)))
}

fn latency(
    config: &PromotionConfig,
    subject: &Subject,
    candidate: Option<&Arm>,
    control: Option<&Arm>,
) -> SafetyCheck {
    let limit = config.thresholds.max_latency_degradation;
    let check = SafetyCheck::new("Latency Degradation Check", limit);
    let of = |arm: Option<&Arm>| arm.and_then(|arm| arm.safety.latency);
    let Some(winner) = of(candidate) else {
        return check.without_data(guards(subject, Metric::P95LatencyMs));
    };
    let compared = of(control).and_then(|control| log_ratio(&winner, &control));
    let Some((ratio, se)) = compared else {
        let message = "latency: winner or control has no usable percentile to compare";
        return check.with(Outcome::Missing, None, message);
    };
    let change = 100.0 * ratio.exp_m1();
    let found = format!(
        "Winner P95 latency: {:.0} ms, {change:+.1}% against the control",
        winner.p95_ms
    );
    let quantile = norm_isf(GUARDRAIL_ALPHA);
    if change > limit {
        let message = format!("{found}, more than {limit}%");
        return check.with(Outcome::Harm, Some(change), message);
    }
    if ratio > quantile * se {
        let message = format!("{found}, proved slower than the control");
        return check.with(Outcome::Harm, Some(change), message);
    }
    let proved = ratio + quantile * se < (limit / 100.0).ln_1p();
    if config.safety_checks.require_non_inferiority && !proved {
        let message = format!("{found}, not proved to be within {limit}% of the control");
        return check.with(Outcome::Unproved, Some(change), message);
    }
    check.with(Outcome::Passed, Some(change), found)
}

/// ln of winner over control, and its standard error from the two intervals.
fn log_ratio(winner: &Latency, control: &Latency) -> Option<(f64, f64)> {
    let se = |latency: &Latency| {
        let ordered = latency.lower_ms > 0.0
            && latency.lower_ms <= latency.p95_ms
            && latency.p95_ms <= latency.upper_ms;
        let width = latency.upper_ms.ln() - latency.lower_ms.ln();
        (ordered && width.is_finite()).then(|| width / (2.0 * norm_isf(0.025)))
    };
    let se = se(winner)?.hypot(se(control)?);
    let ratio = winner.p95_ms.ln() - control.p95_ms.ln();
    (ratio.is_finite() && se.is_finite()).then_some((ratio, se))
}

fn balance(traffic: &Traffic) -> SafetyCheck {
    let check = SafetyCheck::new("Traffic Balance Check", srm::THRESHOLD);
    let ours: f64 = traffic.epochs.iter().flat_map(|epoch| &epoch.counts).sum();
    let foreign = as_float(traffic.client_units);
    let units = ours + foreign;
    let is_foreign = foreign > FOREIGN_SPLIT * units;
    if is_foreign && !traffic.allows_client_units {
        let message = format!(
            "clients named the variants of {} of the units, more than {}, and the experiment's config does not allow it (allowClientAssignment)",
            percent(foreign / units),
            percent(FOREIGN_SPLIT)
        );
        return check.with(Outcome::Barred, None, message);
    }
    match split_p_value(&traffic.epochs) {
        Ok(p) if p >= srm::THRESHOLD => {
            let message = format!("Traffic balance p-value: {p:.3}");
            check.with(Outcome::Passed, Some(p), message)
        }
        Ok(p) if p.is_finite() => {
            let message = format!("Traffic balance p-value: {p:.1e}; units are missing somewhere");
            check.with(Outcome::Harm, Some(p), message)
        }
        Err(StatsError::NotEnoughData) => check,
        Err(StatsError::UnexpectedUsers) => check.with(
            Outcome::Harm,
            None,
            "traffic balance: units in a variant without weight",
        ),
        Ok(_) | Err(_) => check.with(
            Outcome::Missing,
            None,
            "traffic balance: the split could not be judged",
        ),
    }
}

fn alerts(config: &PromotionConfig, candidate: Option<&Arm>) -> SafetyCheck {
    let (limit, hours) = (
        config.safety_checks.max_critical_alerts,
        config.safety_checks.alert_lookback_hours,
    );
    let check = SafetyCheck::new("Recent Alerts Check", as_float(limit));
    let Some(count) = candidate.and_then(|arm| arm.safety.critical_alerts) else {
        return check;
    };
    let message = format!("Critical alerts on the winner within {hours} h: {count}");
    let outcome = if (0..=limit).contains(&count) {
        Outcome::Passed
    } else {
        Outcome::Harm
    };
    check.with(outcome, Some(as_float(count)), message)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn as_float(number: i64) -> f64 {
    number as f64
}
