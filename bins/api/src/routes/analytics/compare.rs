//! Treatments against the control: fixed, anytime-valid, Bayesian, sequential. Pure: rows in, answers out.

use chrono::{DateTime, Utc};
use podium_domain::analysis::{self, Reading};
use podium_domain::decision::design::assumed_effect;
use podium_domain::decision::look::{Answer, Look, Snapshot, take};
use podium_domain::decision::verdict::{Gates, judge};
use podium_domain::experiment::ExperimentType;
use podium_domain::metric::Metric;
use podium_domain::moments::CoveredMoments;
use podium_domain::stats::StatsError;
use podium_domain::stats::multiple::{adjust_e_values, adjust_p_values};
use podium_promotion::config::PromotionConfig;
use podium_promotion::evidence::OpenAnalysis;
use podium_promotion::sums::Sums;
use podium_storage::analytics::covariates::VariantCovariates;
use podium_storage::analytics::outcomes::VariantOutcomes;
use podium_storage::experiments::model::Variant;
use podium_storage::promotions::analyses::StoredLook;

use super::bodies::{
    AnytimeBody, BayesianBody, CupedBody, GuardrailBody, LiftBody, MetricComparison, Range,
    SampleBody, SequentialBody, StratifiedBody,
};
use super::latency;

/// What promotions ask of an experiment, with the looks that were recorded.
pub(super) struct Standing {
    /// The configuration in force, without any request's.
    pub(super) config: PromotionConfig,
    /// The analysis that is open.
    pub(super) open: Option<OpenAnalysis>,
    /// Its recorded looks.
    pub(super) looks: Vec<StoredLook>,
}

/// The sums of an experiment by epoch, and the moment that they are read at.
pub(super) struct Evidence<'e> {
    pub(super) sums: Sums<'e>,
    /// Sums over units that have a covariate.
    pub(super) covariates: &'e [VariantCovariates],
    /// How requests ended.
    pub(super) outcomes: &'e [VariantOutcomes],
    /// What promotions ask; none where nothing is decided.
    pub(super) standing: Option<&'e Standing>,
    pub(super) now: DateTime<Utc>,
}

impl Evidence<'_> {
    /// Days since the start, from the first whole one on: minutes tell nothing about a day's traffic.
    fn days(&self) -> Option<f64> {
        let start = self.sums.experiment.start_date?;
        let end = self.sums.experiment.end_date.unwrap_or(self.now);
        let days = end.signed_duration_since(start).as_seconds_f64() / 86_400.0;
        (days >= 1.0).then_some(days)
    }

    fn is_bandit(&self) -> bool {
        self.sums.experiment.experiment_type == ExperimentType::Bandit
    }

    /// All treatments against the control.
    pub(super) fn comparisons(
        &self,
        control: Option<&Variant>,
        treatments: &[&Variant],
        metric: Metric,
        role: &'static str,
    ) -> Vec<MetricComparison> {
        let comparisons = treatments.iter().map(|variant| match control {
            None => blank(
                variant,
                Some("there is no control to compare with".to_owned()),
            ),
            Some(control) if metric == Metric::P95LatencyMs => {
                latency::comparison(self, control, variant, role)
            }
            Some(control) => self.comparison(control, variant, treatments.len(), metric, role),
        });
        close(comparisons.collect())
    }

    fn comparison(
        &self,
        control: &Variant,
        variant: &Variant,
        treatments: usize,
        metric: Metric,
        role: &'static str,
    ) -> MetricComparison {
        let epochs = self.sums.arms(control.id, variant.id, metric);
        let reading = analysis::read(metric, &epochs);
        let reason = match (&reading.fixed, epochs.len()) {
            (Ok(_), _) => None,
            (Err(_), 2..) => Some(
                "weights changed while the experiment ran: epochs are compared one by one, and no pooled effect is shown"
                    .to_owned(),
            ),
            (Err(error), _) => Some(error.to_string()),
        };
        let is_primary = role == "primary";
        MetricComparison {
            anytime: anytime(&reading),
            cuped: self.adjusted(control.id, variant.id, metric),
            bayesian: bayesian(&reading),
            stratified: stratified(&reading),
            guardrail: (role == "guardrail").then(|| guardrail(metric, &reading)),
            sample: is_primary
                .then(|| self.sample(control.id, variant.id, treatments, metric))
                .flatten(),
            // A bandit's winner is found by another rule, and no look is ever taken.
            sequential: (is_primary && !self.is_bandit())
                .then(|| self.sequential(control.id, variant.id, metric))
                .flatten(),
            ..with_fixed(blank(variant, reason), &reading)
        }
    }

    /// The lift of values as they are, without caps: those are not kept by day.
    pub(super) fn lift(&self, control: i64, treatment: i64, metric: Metric) -> Option<LiftBody> {
        let uncapped = Sums {
            capped: &[],
            ..self.sums
        };
        let reading = analysis::read(metric, &uncapped.arms(control, treatment, metric));
        let fixed = reading.fixed.ok();
        Some(LiftBody {
            estimate: reading.stratified.ok()?.lift,
            interval: fixed.and_then(|fixed| fixed.lift_interval).map(Range::from),
            anytime: anytime(&reading),
        })
    }

    /// With the covariate, where both arms had traffic in one epoch: those units, and the centre of that epoch's variants.
    fn adjusted(&self, control: i64, treatment: i64, metric: Metric) -> Option<CupedBody> {
        let sums = &self.sums;
        let compared: Vec<i32> = sums
            .epochs
            .iter()
            .filter(|epoch| sums.compares(epoch, control, treatment, None).is_some())
            .map(|epoch| epoch.epoch)
            .collect();
        let [epoch] = compared.as_slice() else {
            return None;
        };
        let parts = || {
            self.covariates
                .iter()
                .filter(|part| part.of.epoch == *epoch)
        };
        let mut all = CoveredMoments::default();
        for part in parts() {
            all.merge(&part.covered);
        }
        let centre = all.centre();
        let arm = |variant| {
            let part = parts().find(|part| part.of.variant_id == variant)?;
            Some((&part.of.moments, &part.covered))
        };
        let (a, b) = (arm(control)?, arm(treatment)?);
        let found = analysis::adjusted(metric, a, b, centre.as_ref()).ok()??;
        Some(CupedBody {
            units_with_covariate: a.1.units + b.1.units,
            difference: found.diff,
            difference_interval: found.interval.into(),
            relative_lift: found.lift.map(|lift| lift.lift),
            relative_lift_interval: found.lift.map(|lift| lift.interval.into()),
            statistic: found.z,
            p_value: found.p.two_sided,
            variance_reduction: found.variance_reduction,
        })
    }

    /// The effect that the experiment is planned to find.
    fn effect(&self) -> f64 {
        let asked = self
            .standing
            .map_or(0.0, |standing| standing.config.thresholds.min_improvement);
        let planned = self.sums.experiment.design.min_detectable_effect;
        planned.unwrap_or_else(|| assumed_effect(asked))
    }

    fn sample(
        &self,
        control: i64,
        treatment: i64,
        treatments: usize,
        metric: Metric,
    ) -> Option<SampleBody> {
        let sums = &self.sums;
        let all = sums.together(control, metric);
        let required = analysis::planned_units(metric, &all, self.effect(), treatments).ok()?;
        let reached = sums.units(control).min(sums.units(treatment));
        let per_day = self.days().map(|days| as_float(reached) / days);
        let missing = (required - as_float(reached)).max(0.0);
        Some(SampleBody {
            effect: self.effect(),
            required,
            reached,
            days_left: per_day
                .filter(|per_day| *per_day > 0.0)
                .map(|per_day| missing / per_day),
        })
    }

    /// What the recorded looks say, with the one that a scan at this moment would take.
    fn sequential(&self, control: i64, treatment: i64, metric: Metric) -> Option<SequentialBody> {
        let standing = self.standing?;
        let open = standing.open.as_ref()?;
        let analysis = &open.analysis;
        if analysis.design.metric != metric {
            return None;
        }
        let sums = Sums {
            from_epoch: open.from_epoch,
            ..self.sums
        };
        let strata = analysis::strata(metric, &sums.arms(control, treatment, metric)).ok()?;
        let thresholds = standing.config.thresholds;
        let snapshot = Snapshot {
            now: sums.experiment.end_date.unwrap_or(self.now),
            strata: &strata,
            min_confidence: thresholds.min_confidence,
        };
        let recorded = standing.looks.iter().filter(|l| l.variant_id == treatment);
        let mut looks: Vec<Look> = recorded.map(|stored| stored.look).collect();
        let waits = match take(analysis, &looks, &snapshot).ok()? {
            Answer::Taken(new) => {
                looks.extend(new);
                Vec::new()
            }
            Answer::Reused(_) => Vec::new(),
            Answer::Waiting(waits) => waits,
        };
        let gates = Gates {
            min_confidence: thresholds.min_confidence,
            min_improvement: thresholds.min_improvement,
        };
        let standing = judge(analysis, &looks, gates);
        let last = looks.last();
        Some(SequentialBody {
            confidence: standing.confidence.into(),
            lead: standing.lead.into(),
            improvement: standing.improvement.into(),
            p_value: last.map(|look| look.p),
            statistic: last.and_then(|look| look.z),
            boundary: last.and_then(|look| look.bound),
            information: last.map(|look| look.information),
            looks: looks.len(),
            eligible: standing.is_eligible(),
            waiting: waits.iter().map(ToString::to_string).collect(),
        })
    }
}

pub(super) fn blank(variant: &Variant, reason: Option<String>) -> MetricComparison {
    MetricComparison {
        variant_id: variant.id,
        variant_name: variant.name.clone(),
        lift: None,
        relative_lift: None,
        relative_lift_interval: None,
        difference: None,
        difference_interval: None,
        method: None,
        statistic: None,
        degrees_of_freedom: None,
        p_value: None,
        significance: None,
        adjusted_p_value: None,
        adjustment: None,
        anytime: None,
        cuped: None,
        bayesian: None,
        stratified: None,
        guardrail: None,
        sample: None,
        sequential: None,
        reason,
    }
}

fn with_fixed(comparison: MetricComparison, reading: &Reading) -> MetricComparison {
    let Ok(fixed) = reading.fixed else {
        return comparison;
    };
    MetricComparison {
        lift: fixed.lift.map(|lift| 100.0 * lift),
        relative_lift: fixed.lift,
        relative_lift_interval: fixed.lift_interval.map(Range::from),
        difference: Some(fixed.difference),
        difference_interval: fixed.difference_interval.map(Range::from),
        method: Some(fixed.method.name()),
        statistic: Some(fixed.statistic),
        degrees_of_freedom: fixed.degrees_of_freedom,
        p_value: Some(fixed.p_value),
        significance: Some(100.0 * (1.0 - fixed.p_value)),
        ..comparison
    }
}

fn anytime(reading: &Reading) -> Option<AnytimeBody> {
    let found = reading.anytime.ok()?;
    let finite = |value: f64| value.is_finite().then_some(value);
    Some(AnytimeBody {
        method: found.method.name(),
        ln_e_value: found.ln_e_two_sided,
        ln_e_value_better: found.ln_e_better,
        p_value: (-found.ln_e_two_sided).exp().min(1.0),
        // Alone; with several treatments `close` takes the others into account.
        closed_p_value: (-found.ln_e_better).exp().min(1.0),
        lower: finite(found.lift.lower),
        upper: finite(found.lift.upper),
        at_least: finite(found.lift_at_least),
    })
}

fn bayesian(reading: &Reading) -> Option<BayesianBody> {
    let found = reading.bayesian.ok()?;
    Some(BayesianBody {
        chance_to_beat_control: found.chance_to_beat_control,
        expected_loss: found.expected_loss,
        lift_interval: found.lift.map(Range::from),
    })
}

fn stratified(reading: &Reading) -> Option<StratifiedBody> {
    let found = reading.stratified.ok()?;
    Some(StratifiedBody {
        epochs: found.epochs,
        statistic: found.z,
        lift: found.lift,
        difference: found.effect,
        standard_error: found.se,
    })
}

fn guardrail(metric: Metric, reading: &Reading) -> GuardrailBody {
    let found: Result<_, StatsError> = analysis::guardrail(metric, reading.stratified);
    GuardrailBody {
        verdict: found.map_or("inconclusive", |test| test.verdict.name()),
        p_value: found.ok().map(|test| test.p),
        margin: if metric == Metric::ErrorRate {
            analysis::ERROR_RATE_MARGIN
        } else {
            analysis::RELATIVE_MARGIN
        },
        margin_is_relative: metric != Metric::ErrorRate,
        reason: found.err().map(|error| error.to_string()),
    }
}

/// Closes the e-values of all treatments; one that has none counts as no evidence.
fn close(mut comparisons: Vec<MetricComparison>) -> Vec<MetricComparison> {
    let e = comparisons.iter().map(|comparison| {
        let anytime = comparison.anytime.as_ref();
        anytime.map_or(1.0, |anytime| anytime.ln_e_value_better.exp())
    });
    let closed = adjust_e_values(&e.collect::<Vec<_>>()).unwrap_or_default();
    for (comparison, e) in comparisons.iter_mut().zip(closed) {
        if let Some(anytime) = &mut comparison.anytime {
            anytime.closed_p_value = e.recip().min(1.0);
        }
    }
    comparisons
}

/// Takes the number of comparisons into account: the primary metric by Bonferroni over treatments, secondary metrics by
/// Holm over metrics and treatments, the others, which are a dashboard, by Benjamini and Hochberg.
pub(super) fn adjust(metrics: &mut [super::bodies::MetricReport]) {
    for (role, name) in [
        ("primary", "bonferroni"),
        ("secondary", "holm"),
        ("guardrail", "holm"),
        ("other", "benjamini_hochberg"),
    ] {
        let mut family: Vec<&mut MetricComparison> = metrics
            .iter_mut()
            .filter(|metric| metric.role == role)
            .flat_map(|metric| metric.comparisons.iter_mut())
            .filter(|comparison| comparison.p_value.is_some())
            .collect();
        let p: Vec<f64> = family.iter().filter_map(|c| c.p_value).collect();
        let Ok(adjusted) = adjust_p_values(&p) else {
            continue;
        };
        let adjusted = match name {
            "bonferroni" => adjusted.bonferroni,
            "holm" => adjusted.holm,
            _ => adjusted.benjamini_hochberg,
        };
        for (comparison, p) in family.iter_mut().zip(adjusted) {
            comparison.adjusted_p_value = Some(p);
            comparison.adjustment = Some(name);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn as_float(number: i64) -> f64 {
    number as f64
}
