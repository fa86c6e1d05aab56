//! The decision rule as a scan at this moment would find it, from what the engine decides from.

use chrono::{DateTime, Utc};
use podium_domain::decision::look::{Analysis, Answer, Look, Snapshot, take};
use podium_domain::decision::verdict::{Gates, judge};
use podium_domain::metric::Metric;
use podium_promotion::evidence::Treatment;

use super::bodies::SequentialBody;
use super::compare::Standing;
use super::detail::LookBody;

/// What the recorded looks say, with the one that a scan would take; none where no look is ever taken.
pub(super) fn sequential(
    standing: Standing<'_>,
    until: DateTime<Utc>,
    treatment: i64,
    metric: Metric,
) -> Option<SequentialBody> {
    let analysis = &standing.evidence.analysis.as_ref()?.analysis;
    if analysis.design.metric != metric {
        return None;
    }
    let mut treatments = standing.evidence.treatments.iter();
    let treatment = treatments.find(|found| found.arm.variant_id == treatment)?;
    let thresholds = standing.config.thresholds;
    let recorded = &treatment.looks;
    let (new, waiting) = asked(analysis, treatment, until, thresholds.min_confidence);
    let looks: Vec<Look> = recorded.iter().chain(&new).copied().collect();
    let gates = Gates {
        min_confidence: thresholds.min_confidence,
        min_improvement: thresholds.min_improvement,
    };
    let judged = judge(analysis, &looks, gates);
    let last = looks.last();
    Some(SequentialBody {
        confidence: judged.confidence.into(),
        lead: judged.lead.into(),
        improvement: judged.improvement.into(),
        p_value: last.map(|look| look.p),
        statistic: last.and_then(|look| look.z),
        boundary: last.and_then(|look| look.bound),
        information: last.map(|look| look.information),
        looks: looks.len(),
        eligible: judged.is_eligible(),
        waiting,
        history: looks
            .iter()
            .enumerate()
            .map(|(index, look)| LookBody::new(look, index < recorded.len()))
            .collect(),
    })
}

/// The looks that are due, or what they wait for.
fn asked(
    analysis: &Analysis,
    treatment: &Treatment,
    until: DateTime<Utc>,
    min_confidence: f64,
) -> (Vec<Look>, Vec<String>) {
    let Some(strata) = &treatment.strata else {
        let why = treatment.missing.clone();
        return (Vec::new(), why.into_iter().collect());
    };
    let snapshot = Snapshot {
        now: until,
        strata,
        min_confidence,
    };
    match take(analysis, &treatment.looks, &snapshot) {
        Ok(Answer::Taken(new)) => (new, Vec::new()),
        Ok(Answer::Reused(_)) => (Vec::new(), Vec::new()),
        Ok(Answer::Waiting(waits)) => (Vec::new(), waits.iter().map(ToString::to_string).collect()),
        Err(error) => (
            Vec::new(),
            vec![format!("the sums contradict each other: {error}")],
        ),
    }
}
