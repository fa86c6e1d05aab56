//! One sentence of plain words, and what to do next.

use chrono::{DateTime, Utc};
use podium_domain::decision::evidence::MIN_UNITS_OF_MEAN;
use podium_domain::experiment::Status;
use podium_domain::stats::noninferiority::Verdict;
use podium_promotion::decide::Decision;

use super::bodies::{MetricComparison, MetricReport, SplitCheck};

/// p-values below are not written out.
const SMALLEST_P: f64 = 1e-300;

/// What a verdict is made from.
pub(super) struct Facts<'f> {
    pub(super) status: Status,
    pub(super) metrics: &'f [MetricReport],
    pub(super) split: &'f SplitCheck,
    /// What the engine would decide for a person who asks now.
    pub(super) decision: &'f Decision,
    pub(super) now: DateTime<Utc>,
    /// Recent traffic over the average.
    pub(super) pace: f64,
}

/// What the figures say: the split first, then the primary metric. Nothing is to be shipped that the engine would not
/// promote, over a guardrail that is worse, or before a guardrail that the experiment lists was shown to hold.
pub(super) fn verdict(facts: &Facts<'_>) -> String {
    let Some(primary) = facts.metrics.iter().find(|metric| metric.role == "primary") else {
        return String::new();
    };
    if facts.status == Status::Draft {
        return "Not started: there is nothing to read yet.".to_owned();
    }
    if facts.split.mismatch {
        return split_is_off(facts.split);
    }
    let running = matches!(facts.status, Status::Running | Status::Paused);
    let Some(best) = best(&primary.comparisons, facts.decision) else {
        let reason = match primary.comparisons.first() {
            None => "there is no treatment".to_owned(),
            Some(first) => first
                .reason
                .clone()
                .unwrap_or_else(|| format!("an arm has fewer than {MIN_UNITS_OF_MEAN} units")),
        };
        return format!(
            "{}: {} cannot be compared yet ({reason}).",
            if running { "Keep running" } else { "No result" },
            primary.metric
        );
    };
    if is_winner(best) {
        return won(facts, best, primary.metric);
    }
    if primary.comparisons.iter().all(is_proved_worse) {
        return format!(
            "Stop: {} is worse than the control in {} ({}), by the interval that holds at any moment.",
            if primary.comparisons.len() == 1 {
                best.variant_name.clone()
            } else {
                "every treatment".to_owned()
            },
            primary.metric,
            lift_of(best)
        );
    }
    if running {
        keep_running(facts, best, primary.metric)
    } else {
        no_winner(best, primary.metric)
    }
}

fn split_is_off(split: &SplitCheck) -> String {
    let how = match split.smallest_ln_p() {
        Some(ln_p) if ln_p < SMALLEST_P.ln() => "p < 1e-300".to_owned(),
        Some(ln_p) => format!("p = {:.0e}", ln_p.exp()),
        None => split.reason.clone().unwrap_or_default(),
    };
    format!(
        "Do not act: the split is off ({how}). Find out which units are missing before you believe any figure."
    )
}

/// The looks are in favour: what else is asked for?
fn won(facts: &Facts<'_>, best: &MetricComparison, metric: &str) -> String {
    let ahead = format!("it is ahead in {metric} ({})", lift_of(best));
    let name = &best.variant_name;
    if let Some(guardrail) = guardrail_with(facts.metrics, best.variant_id, Verdict::Inferior) {
        return format!(
            "Do not ship {name}: {ahead}, and worse in {guardrail} by more than its margin."
        );
    }
    if !matches!(facts.status, Status::Running | Status::Paused) {
        return format!(
            "{name} has won: {ahead}, with {} confidence. The experiment is {}, so nothing promotes it any more: release it \
             by hand, or declare it the winner.",
            percent(confidence(best)),
            facts.status.name()
        );
    }
    let is_meant = facts.decision.candidate == Some(best.variant_id);
    if !(is_meant && facts.decision.is_eligible()) {
        let reasons = facts.decision.reasons.join("; ");
        return match facts.decision.verdict {
            podium_promotion::decide::Verdict::Blocked => {
                format!("Do not ship {name}: {ahead}, but {reasons}.")
            }
            _ => format!("Wait with {name}: {ahead}, but {reasons}."),
        };
    }
    if let Some(guardrail) = guardrail_with(facts.metrics, best.variant_id, Verdict::Inconclusive) {
        return format!(
            "Wait with {name}: {ahead}, but {guardrail} was not yet shown to hold within its margin."
        );
    }
    ship(best, metric)
}

/// What was not reached, in the order in which it is asked for.
fn no_winner(best: &MetricComparison, metric: &str) -> String {
    let lacking = match &best.sequential {
        Some(s) if s.confidence.met && !s.lead.met => {
            "which lost the lead that it once had".to_owned()
        }
        Some(s) if s.confidence.met => format!(
            "which is less than the {} % asked for",
            s.improvement.required
        ),
        Some(s) => format!(
            "which is not enough for {} % confidence",
            s.confidence.required
        ),
        None => "which no look has decided".to_owned(),
    };
    format!(
        "No winner: {} ended {} in {metric}, {lacking}.",
        best.variant_name,
        lift_of(best)
    )
}

/// The first guardrail with this verdict on a treatment.
fn guardrail_with(
    metrics: &[MetricReport],
    variant_id: i64,
    verdict: Verdict,
) -> Option<&'static str> {
    let is_meant = |comparison: &MetricComparison| {
        let guardrail = comparison.guardrail.as_ref();
        comparison.variant_id == variant_id
            && guardrail.is_some_and(|guardrail| guardrail.verdict == verdict.name())
    };
    metrics
        .iter()
        .find(|metric| metric.comparisons.iter().any(is_meant))
        .map(|metric| metric.metric)
}

/// The winner (of several the engine's), else the largest confidence, then lift.
fn best<'m>(
    comparisons: &'m [MetricComparison],
    decision: &Decision,
) -> Option<&'m MetricComparison> {
    comparisons
        .iter()
        .filter(|comparison| comparison.stratified.is_some())
        .max_by(|a, b| {
            let rank = |c: &MetricComparison| {
                let chosen = decision.candidate == Some(c.variant_id);
                (
                    (is_winner(c), is_winner(c) && chosen),
                    confidence(c),
                    lift(c),
                )
            };
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0)
                .then(a.1.total_cmp(&b.1))
                .then(a.2.total_cmp(&b.2))
        })
}

fn confidence(comparison: &MetricComparison) -> f64 {
    let sequential = comparison.sequential.as_ref();
    sequential
        .and_then(|s| s.confidence.measured)
        .unwrap_or_default()
}

fn is_winner(comparison: &MetricComparison) -> bool {
    let sequential = comparison.sequential.as_ref();
    sequential.is_some_and(|sequential| sequential.eligible)
}

fn is_proved_worse(comparison: &MetricComparison) -> bool {
    let upper = comparison.anytime.as_ref().and_then(|a| a.upper);
    upper.is_some_and(|upper| upper < 0.0)
}

fn lift(comparison: &MetricComparison) -> f64 {
    let stratified = comparison.stratified.as_ref();
    stratified.and_then(|s| s.lift).unwrap_or(f64::NEG_INFINITY)
}

fn lift_of(comparison: &MetricComparison) -> String {
    let lift = lift(comparison);
    if lift.is_finite() {
        format!("{:+.1} %", 100.0 * lift)
    } else {
        "without a relative change".to_owned()
    }
}

fn ship(best: &MetricComparison, metric: &str) -> String {
    format!(
        "Ship {}: {} in {metric}, with {} confidence, every look since the start taken into account.",
        best.variant_name,
        lift_of(best),
        percent(confidence(best))
    )
}

/// Never rounded up to certainty.
fn percent(confidence: f64) -> String {
    if confidence > 99.9 {
        "more than 99.9 %".to_owned()
    } else {
        format!("{:.1} %", (10.0 * confidence).floor() / 10.0)
    }
}

fn keep_running(facts: &Facts<'_>, best: &MetricComparison, metric: &str) -> String {
    let standing = best.sequential.as_ref().and_then(|sequential| {
        let measured = sequential.confidence.measured?;
        let required = sequential.confidence.required;
        Some(if sequential.confidence.met && !sequential.lead.met {
            format!(
                "{} was ahead and is so no more: it stands at {} in {metric}",
                best.variant_name,
                lift_of(best)
            )
        } else if sequential.confidence.met {
            format!(
                "{} is better with {} confidence, but by {}, less than the {} % asked for",
                best.variant_name,
                percent(measured),
                lift_of(best),
                sequential.improvement.required
            )
        } else {
            format!(
                "{} stands at {} in {metric} with {} of the {required} % confidence asked for",
                best.variant_name,
                lift_of(best),
                percent(measured)
            )
        })
    });
    let standing = standing.unwrap_or_else(|| {
        let waiting = best.sequential.as_ref().map(|s| s.waiting.join("; "));
        match waiting.filter(|text| !text.is_empty()) {
            Some(waiting) => format!("a decision waits for {waiting}"),
            None => format!(
                "{} stands at {} in {metric}",
                best.variant_name,
                lift_of(best)
            ),
        }
    });
    let time = to_decision(facts, best).or_else(|| to_sample(best));
    format!("Keep running: {standing}.{}", time.unwrap_or_default())
}

/// The time to a decision about the best, if the effect stays what it seems: the engine's forecast is one at the average
/// traffic since the start, and what comes now may be more or less.
fn to_decision(facts: &Facts<'_>, best: &MetricComparison) -> Option<String> {
    let at = facts.decision.eligible_at?;
    if facts.decision.candidate != Some(best.variant_id) || facts.pace <= 0.0 {
        return None;
    }
    let days = at.signed_duration_since(facts.now).as_seconds_f64() / 86_400.0;
    Some(format!(
        " About {} to a decision at today's traffic, if the effect stays as it is.",
        in_days(days / facts.pace)
    ))
}

fn to_sample(best: &MetricComparison) -> Option<String> {
    let sample = best.sample.as_ref()?;
    let effect = 100.0 * sample.effect;
    let days = sample.days_left?;
    Some(if days > 0.0 {
        format!(
            " About {} to the sample that finds {effect:.0} % at the traffic of the last days.",
            in_days(days)
        )
    } else {
        format!(
            " The sample that finds {effect:.0} % is reached: if a smaller difference is not worth it, stop."
        )
    })
}

fn in_days(days: f64) -> String {
    let whole = days.ceil();
    if whole <= 1.0 {
        "a day".to_owned()
    } else {
        format!("{whole:.0} days")
    }
}
