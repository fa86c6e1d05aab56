//! When an experiment could become eligible at the present rate.

use chrono::{DateTime, TimeDelta, Utc};

use super::criteria::{Criterion, Failure, hours};
use super::standing::Stood;
use crate::evidence::{Evidence, Treatment};

const SECONDS_PER_HOUR: f64 = 3_600.0;
/// Beyond this many hours nothing is foretold.
const FARTHEST_HOURS: f64 = 8_760.0;

/// The moment at which every criterion that fails now would be met if units went on arriving as they did and the effect
/// stayed as it is. `None` when time alone will not do, and for whoever is eligible.
///
/// An effect of z standard errors grows with the root of information, so it reaches the bound b when information is
/// (b/z)² times as large. The bounds of later looks lie a little lower or higher; a forecast need not know.
///
/// Without looks (`stood` is none: a bandit) only runtime and sample are a matter of time: when the conditions of a
/// winner will be met, nobody can tell, because the bandit moves the traffic.
pub(super) fn eligible_at(
    evidence: &Evidence,
    treatment: &Treatment,
    criteria: &[Criterion],
    stood: Option<&Stood>,
) -> Option<DateTime<Utc>> {
    let failing: Vec<&Criterion> = criteria.iter().filter(|c| c.failure.is_some()).collect();
    let hopeless = |c: &&Criterion| c.failure != Some(Failure::Pending);
    if failing.is_empty() || failing.iter().any(hopeless) {
        return None;
    }
    let start = evidence.analysis.as_ref()?.analysis.start;
    let elapsed = hours(start, evidence.now);
    let mut wait = stood.map_or(0.0, |_| hours_to_next_slot(evidence));
    for criterion in failing {
        wait = wait.max(match criterion.name.as_str() {
            "runtime" => criterion.required? - criterion.measured?,
            "sample" => grown(elapsed, criterion.measured?, criterion.required?)?,
            "confidence" | "lead" => to_bound(elapsed, criterion, treatment, stood?)?,
            _ => return None,
        });
    }
    if !(0.0..=FARTHEST_HOURS).contains(&wait) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most a year in seconds")]
    let seconds = (wait * SECONDS_PER_HOUR).ceil() as i64;
    evidence
        .now
        .checked_add_signed(TimeDelta::try_seconds(seconds)?)
}

/// Hours until something that grew from nothing in `elapsed` hours has grown to what is required.
fn grown(elapsed: f64, measured: f64, required: f64) -> Option<f64> {
    (measured > 0.0).then(|| elapsed * (required / measured - 1.0))
}

fn to_bound(
    elapsed: f64,
    criterion: &Criterion,
    treatment: &Treatment,
    stood: &Stood,
) -> Option<f64> {
    let last = stood.looks().iter().rev().find(|look| look.z.is_some());
    let (z, bound) = match (criterion.name.as_str(), last) {
        ("lead", _) => (criterion.measured?, criterion.required?),
        (_, Some(look)) => (look.z?, look.bound?),
        // Before the first look nothing is known of the bound; the sample and the conversions are what is waited for.
        (_, None) => {
            let counts =
                podium_domain::decision::evidence::Counts::of(treatment.strata.as_deref()?);
            let least = as_float(counts.least_conversions());
            let required = as_float(counts.required_conversions());
            return Some(grown(elapsed, least, required)?.max(0.0));
        }
    };
    let ratio = (z > 0.0).then(|| (bound / z).powi(2))?;
    Some((elapsed * (ratio - 1.0)).max(0.0))
}

/// Looks have a clock: nothing is promised before the next slot begins, though a slot that still waits for its sample may have its
/// look earlier.
fn hours_to_next_slot(evidence: &Evidence) -> f64 {
    let next = || {
        let analysis = &evidence.analysis.as_ref()?.analysis;
        let (design, start) = (&analysis.design, analysis.start);
        let slot = design.slot(start, evidence.now).map_or(0, |slot| slot + 1);
        let begin = design.slot_start(start, slot)?;
        Some(hours(evidence.now, begin))
    };
    next().unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn as_float(number: i64) -> f64 {
    number as f64
}
