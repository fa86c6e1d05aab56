//! One sentence of plain words, and what to do next.

use podium_domain::experiment::Status;
use podium_domain::stats::noninferiority::Verdict;

use super::bodies::{MetricComparison, MetricReport, SplitCheck};

/// What the figures say: the split first, then the primary metric, and no shipping over a guardrail that is worse.
pub(super) fn verdict(status: Status, metrics: &[MetricReport], split: &SplitCheck) -> String {
    let Some(primary) = metrics.iter().find(|metric| metric.role == "primary") else {
        return String::new();
    };
    if status == Status::Draft {
        return "Not started: there is nothing to read yet.".to_owned();
    }
    if split.mismatch {
        let how = match (&split.reason, split.smallest_p()) {
            (Some(reason), _) => reason.clone(),
            (None, p) => format!("p = {:.0e}", p.unwrap_or_default()),
        };
        return format!(
            "Do not act: the split is off ({how}). Find out which units are missing before you believe any figure."
        );
    }
    let running = matches!(status, Status::Running | Status::Paused);
    let Some(best) = best(&primary.comparisons) else {
        let reason = primary.comparisons.first().and_then(|c| c.reason.clone());
        let reason = reason.unwrap_or_else(|| "there is no treatment".to_owned());
        return format!(
            "{}: {} cannot be compared yet ({reason}).",
            if running { "Keep running" } else { "No result" },
            primary.metric
        );
    };
    if is_winner(best) {
        return match harmed(metrics, best.variant_id) {
            Some(guardrail) => format!(
                "Do not ship {}: it is ahead in {} ({}), and worse in {guardrail} by more than its margin.",
                best.variant_name,
                primary.metric,
                lift_of(best)
            ),
            None => ship(best, primary.metric),
        };
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
        keep_running(best, primary.metric)
    } else {
        format!(
            "No winner: {} ended {} in {}, which is not enough for {} % confidence.",
            best.variant_name,
            lift_of(best),
            primary.metric,
            best.sequential
                .as_ref()
                .map_or(95.0, |s| s.confidence.required)
        )
    }
}

/// The first guardrail that a treatment was shown to make worse.
fn harmed(metrics: &[MetricReport], variant_id: i64) -> Option<&'static str> {
    let is_worse = |comparison: &MetricComparison| {
        let guardrail = comparison.guardrail.as_ref();
        comparison.variant_id == variant_id
            && guardrail.is_some_and(|guardrail| guardrail.verdict == Verdict::Inferior.name())
    };
    metrics
        .iter()
        .find(|metric| metric.comparisons.iter().any(is_worse))
        .map(|metric| metric.metric)
}

/// The winner, else the largest lift.
fn best(comparisons: &[MetricComparison]) -> Option<&MetricComparison> {
    comparisons
        .iter()
        .filter(|comparison| comparison.stratified.is_some())
        .max_by(|a, b| {
            let rank = |c: &MetricComparison| {
                let confidence = c.sequential.as_ref().and_then(|s| s.confidence.measured);
                (is_winner(c), confidence.unwrap_or(0.0), lift(c))
            };
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0)
                .then(a.1.total_cmp(&b.1))
                .then(a.2.total_cmp(&b.2))
        })
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
    let confidence = best.sequential.as_ref().and_then(|s| s.confidence.measured);
    format!(
        "Ship {}: {} in {metric}, with {} confidence, every look since the start taken into account.",
        best.variant_name,
        lift_of(best),
        percent(confidence.unwrap_or_default())
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

fn keep_running(best: &MetricComparison, metric: &str) -> String {
    let standing = best.sequential.as_ref().and_then(|sequential| {
        let measured = sequential.confidence.measured?;
        let required = sequential.confidence.required;
        Some(if sequential.confidence.met {
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
    let time = best.sample.as_ref().map_or_else(String::new, |sample| {
        let effect = 100.0 * sample.effect;
        match sample.days_left {
            Some(days) if days > 0.0 => format!(
                " About {} to the sample that finds {effect:.0} % at the traffic so far.",
                in_days(days)
            ),
            Some(_) => format!(
                " The sample that finds {effect:.0} % is reached: if a smaller difference is not worth it, stop."
            ),
            None => String::new(),
        }
    });
    format!("Keep running: {standing}.{time}")
}

fn in_days(days: f64) -> String {
    let whole = days.ceil();
    if whole <= 1.0 {
        "a day".to_owned()
    } else {
        format!("{whole:.0} days")
    }
}
