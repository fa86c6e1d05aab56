//! The latency quantile: its values and comparisons come from counts by bucket instead of sums.

use podium_domain::analysis;
use podium_domain::outcomes::{LatencyComparison, Outcomes, compare_latencies};
use podium_domain::report::CONFIDENCE;
use podium_domain::stats::StatsError;
use podium_domain::stats::noninferiority::Verdict;
use podium_promotion::config::Preset;
use podium_storage::experiments::model::Variant;

use super::bodies::{GuardrailBody, MetricComparison, MetricValue, Range};
use super::compare::{Evidence, blank, shown, significance};

/// The 95 % point of a variant, over all epochs of the analysis.
pub(super) fn value(evidence: &Evidence<'_>, variant: &Variant) -> MetricValue {
    let mut all = Outcomes::default();
    let parts = evidence.outcomes.iter();
    let from = evidence.sums.from_epoch;
    let mut parts = parts.filter(|part| part.variant_id == variant.id && part.epoch >= from);
    let found = parts
        .try_for_each(|part| all.merge(&part.outcomes))
        .and_then(|()| all.p95(CONFIDENCE));
    let interval = found.ok().and_then(|p95| p95.lower.zip(p95.upper));
    MetricValue {
        variant_id: variant.id,
        variant_name: variant.name.clone(),
        is_control: variant.is_control,
        units: all.units,
        value: found.ok().map(|p95| p95.value),
        interval: interval.map(|(lower, upper)| Range {
            lower: lower.value,
            upper: upper.value,
        }),
        sum: None,
        denominator: None,
        variance: None,
        reason: found.err().map(|error| error.to_string()),
    }
}

/// A treatment's 95 % point against the control's, within epochs in which both made requests.
pub(super) fn comparison(
    evidence: &Evidence<'_>,
    control: &Variant,
    variant: &Variant,
    role: &'static str,
) -> MetricComparison {
    let of = |id: i64, epoch: i32| {
        let mut parts = evidence.outcomes.iter();
        let part = parts.find(|part| part.variant_id == id && part.epoch == epoch);
        part.map(|part| &part.outcomes)
    };
    let epochs = evidence.sums.counted_epochs().map(|epoch| epoch.epoch);
    let pairs: Vec<_> = epochs
        .filter_map(|epoch| of(control.id, epoch).zip(of(variant.id, epoch)))
        .collect();
    let found = compare_latencies(&pairs);
    let guardrail = (role == "guardrail").then(|| guardrail(found, margin(evidence)));
    let blank = blank(variant, found.err().map(|error| error.to_string()));
    let Ok(found) = found else {
        return MetricComparison { guardrail, ..blank };
    };
    MetricComparison {
        lift: Some(100.0 * found.change),
        relative_lift: Some(found.change),
        relative_lift_interval: Some(found.interval.into()),
        relative_lift_method: Some("log_ratio"),
        // Over several epochs the two 95 % points belong to different mixtures of days.
        difference: (pairs.len() == 1).then_some(found.treatment - found.control),
        standard_error: Some(found.log_se),
        method: Some("log_quantile_ratio"),
        statistic: Some(found.z),
        p_value: Some(shown(found.p.two_sided)),
        ln_p_value: Some(found.p.ln_two_sided),
        significance: Some(significance(found.p.two_sided)),
        guardrail,
        ..blank
    }
}

/// What the configuration in force tolerates, a fraction; what the balanced preset does where nothing is decided.
fn margin(evidence: &Evidence<'_>) -> f64 {
    let percent = match evidence.standing {
        Some(standing) => standing.config.thresholds.max_latency_degradation,
        None => Preset::Balanced.config().thresholds.max_latency_degradation,
    };
    percent / 100.0
}

fn guardrail(found: Result<LatencyComparison, StatsError>, margin: f64) -> GuardrailBody {
    let p = found.ok().map(|found| found.p_of_margin(margin));
    let verdict = match p {
        Some(p) if p <= analysis::GUARDRAIL_ALPHA => Verdict::NonInferior,
        Some(p) if 1.0 - p <= analysis::GUARDRAIL_ALPHA => Verdict::Inferior,
        _ => Verdict::Inconclusive,
    };
    GuardrailBody {
        verdict: verdict.name(),
        p_value: p.map(shown),
        margin,
        margin_is_relative: true,
        reason: found.err().map(|error| error.to_string()),
    }
}
