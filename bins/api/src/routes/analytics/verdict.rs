//! One sentence of plain words, and what to do next.

use chrono::{DateTime, Utc};
use podium_domain::decision::evidence::MIN_UNITS_OF_MEAN;
use podium_domain::experiment::Status;
use podium_domain::stats::noninferiority::Verdict;
use podium_promotion::decide::Decision;

use super::bodies::{BanditBody, MetricComparison, MetricReport, SplitCheck};

mod bandit;

#[cfg(test)]
mod tests;

/// p-values below are not written out.
const SMALLEST_P: f64 = 1e-300;

/// What a verdict is made from.
pub(super) struct Facts<'f> {
    pub(super) status: Status,
    pub(super) metrics: &'f [MetricReport],
    pub(super) split: &'f SplitCheck,
    /// Of a bandit over variants that has units.
    pub(super) bandit: Option<&'f BanditBody>,
    /// What the engine would decide for a person who asks now.
    pub(super) decision: &'f Decision,
    /// The same for a person who asks for the treatment of this name.
    pub(super) about: &'f dyn Fn(&str) -> Decision,
    /// The variant that was declared or promoted as the winner.
    pub(super) recorded: Option<i64>,
    /// Whether a promotion is in force.
    pub(super) promoted: bool,
    pub(super) now: DateTime<Utc>,
    /// Recent traffic over the average.
    pub(super) pace: f64,
}

/// What the figures say: the split first, then the winner rule of a bandit, or the primary metric. Nothing is to be shipped
/// that the engine would not promote, over a guardrail that is worse, or before a guardrail that the experiment lists was
/// shown to hold.
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
    if let Some(body) = facts.bandit {
        return bandit::verdict(facts, body);
    }
    let running = !is_over(facts.status);
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
        return won(facts, &ahead(best, primary.metric));
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

const fn is_over(status: Status) -> bool {
    !matches!(status, Status::Running | Status::Paused)
}

/// A treatment that is ahead by the rule of its experiment.
struct Ahead<'a> {
    variant_id: i64,
    name: &'a str,
    /// By what, in words that go on with ", and" or ", but".
    lead: String,
    /// How sure that is, where the words of the lead do not say so.
    sure: String,
    /// What to say when nothing stands against it.
    ship: String,
}

/// The rule is in favour: what else is asked for?
fn won(facts: &Facts<'_>, ahead: &Ahead<'_>) -> String {
    let Ahead { name, lead, .. } = ahead;
    if let Some(guardrail) = guardrail_with(facts.metrics, ahead.variant_id, Verdict::Inferior) {
        return format!(
            "Do not ship {name}: {lead}, and worse in {guardrail} by more than its margin."
        );
    }
    let unshown = guardrail_with(facts.metrics, ahead.variant_id, Verdict::Inconclusive);
    if is_over(facts.status) {
        let unshown = unshown.map_or_else(String::new, |guardrail| {
            format!(" {guardrail} was not shown to hold within its margin.")
        });
        return format!(
            "{name} has won: {lead}{}.{unshown} {}",
            ahead.sure,
            after_the_end(facts, ahead.variant_id)
        );
    }
    let decision = (facts.about)(name);
    if !decision.is_eligible() {
        let reasons = decision.reasons.join("; ");
        return match decision.verdict {
            podium_promotion::decide::Verdict::Blocked => {
                format!("Do not ship {name}: {lead}, but {reasons}.")
            }
            _ => format!("Wait with {name}: {lead}, but {reasons}."),
        };
    }
    if let Some(guardrail) = unshown {
        return format!(
            "Wait with {name}: {lead}, but {guardrail} was not yet shown to hold within its margin."
        );
    }
    ahead.ship.clone()
}

/// What became of a winner, and what is left to do.
fn after_the_end(facts: &Facts<'_>, variant_id: i64) -> String {
    match facts.recorded {
        Some(id) if id != variant_id => {
            "Another variant is recorded as the winner: find out why before you release either."
                .to_owned()
        }
        Some(_) if facts.promoted => "It was promoted, and the promotion is in force.".to_owned(),
        Some(_) => {
            "It is recorded as the winner: release it by hand, unless shoppers are given it already."
                .to_owned()
        }
        None => format!(
            "The experiment is {}, so nothing promotes it any more: release it by hand, or declare it the winner.",
            facts.status.name()
        ),
    }
}

/// The looks are in favour.
fn ahead<'m>(best: &'m MetricComparison, metric: &str) -> Ahead<'m> {
    Ahead {
        variant_id: best.variant_id,
        name: &best.variant_name,
        lead: format!("it is ahead in {metric} ({})", lift_of(best)),
        sure: format!(", with {} confidence", percent(confidence(best))),
        ship: ship(best, metric),
    }
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
