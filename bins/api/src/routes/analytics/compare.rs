//! Treatments against the control: fixed, anytime-valid, Bayesian, sequential. Pure: rows in, answers out.

use chrono::{DateTime, Utc};
use podium_domain::analysis::{self, EpochArms, Reading};
use podium_domain::decision::anytime::Split;
use podium_domain::decision::design::assumed_effect;
use podium_domain::decision::evidence::Stratum;
use podium_domain::experiment::ExperimentType;
use podium_domain::metric::Metric;
use podium_domain::moments::CoveredMoments;
use podium_domain::report::Lift;
use podium_domain::stats::StatsError;
use podium_domain::stats::multiple::{adjust_e_values, adjust_p_values};
use podium_promotion::config::PromotionConfig;
use podium_promotion::evidence::Evidence as Gathered;
use podium_promotion::sums::Sums;
use podium_storage::analytics::covariates::VariantCovariates;
use podium_storage::analytics::outcomes::VariantOutcomes;
use podium_storage::experiments::model::Variant;

use super::bodies::{
    AnytimeBody, BayesianBody, CupedBody, GuardrailBody, LiftBody, MetricComparison, Range,
    SampleArm, SampleBody, StratifiedBody,
};
use super::detail::StratumBody;
use super::latency;
use super::sequential::sequential;

/// p-values are reported down to this: 0 would be a certainty that no data give. The logarithm beside it goes on.
const LEAST_P: f64 = f64::MIN_POSITIVE;
/// Significance is reported down to this error, as confidence is.
const LEAST_ERROR: f64 = 1e-9;
/// Why nothing is compared.
pub(super) const NO_CONTROL: &str = "there is no control to compare with";
/// ln of the largest e-value that takes part in a closed test.
const MOST_LN_E: f64 = 700.0;

/// What promotions ask of an experiment, and what they see of it.
#[derive(Clone, Copy)]
pub(super) struct Standing<'e> {
    /// The configuration in force, without any request's.
    pub(super) config: &'e PromotionConfig,
    /// What the engine decides from.
    pub(super) evidence: &'e Gathered,
}

/// The sums of an experiment by epoch, and the moment that they are read at.
pub(super) struct Evidence<'e> {
    pub(super) sums: Sums<'e>,
    /// Sums over units that have a covariate.
    pub(super) covariates: &'e [VariantCovariates],
    /// How requests ended.
    pub(super) outcomes: &'e [VariantOutcomes],
    /// What promotions ask; none where nothing is decided.
    pub(super) standing: Option<Standing<'e>>,
    /// Recent traffic over the average since the start.
    pub(super) pace: f64,
    pub(super) now: DateTime<Utc>,
}

impl Evidence<'_> {
    /// When the experiment ended, or now.
    pub(super) fn until(&self) -> DateTime<Utc> {
        let end = self.sums.experiment.end_date;
        end.map_or(self.now, |end| end.min(self.now))
    }

    /// Days since the analysis began, from the first whole one on: minutes tell nothing about a day's traffic.
    fn days(&self) -> Option<f64> {
        let open = self.standing.and_then(|s| s.evidence.analysis.as_ref());
        let start = match open {
            Some(open) => open.analysis.start,
            None => self.sums.experiment.start_date?,
        };
        let days = self.until().signed_duration_since(start).as_seconds_f64() / 86_400.0;
        (days >= 1.0).then_some(days)
    }

    /// Whether units were drawn with the planned shares.
    fn split(&self) -> Split {
        if self.sums.client_units() > 0 {
            Split::Foreign
        } else {
            Split::Ours
        }
    }

    fn is_bandit(&self) -> bool {
        self.sums.experiment.experiment_type == ExperimentType::Bandit
    }

    /// All treatments against the control; `detailed` with the strata behind the figures.
    pub(super) fn comparisons(
        &self,
        control: Option<&Variant>,
        treatments: &[&Variant],
        metric: Metric,
        role: &'static str,
        detailed: bool,
    ) -> Vec<MetricComparison> {
        let mut comparisons: Vec<MetricComparison> = treatments
            .iter()
            .map(|variant| match control {
                None => blank(variant, Some(NO_CONTROL.to_owned())),
                Some(control) if metric == Metric::P95LatencyMs => {
                    latency::comparison(self, control, variant, role)
                }
                Some(control) => {
                    let mut found = self.comparison(control, variant, metric, role, detailed);
                    if role == "primary" {
                        let sample = self.sample(control, variant, treatments.len(), metric);
                        found.sample_reason = sample.as_ref().err().cloned();
                        found.sample = sample.ok();
                    }
                    found
                }
            })
            .collect();
        close(&mut comparisons);
        comparisons
    }

    fn comparison(
        &self,
        control: &Variant,
        variant: &Variant,
        metric: Metric,
        role: &'static str,
        detailed: bool,
    ) -> MetricComparison {
        let compared = self.sums.compared(control.id, variant.id, metric);
        let epochs: Vec<EpochArms<'_>> = compared.iter().map(|(_, arms)| *arms).collect();
        let reading = analysis::read_of(metric, &epochs, self.split());
        let reason = reading.fixed.as_ref().err().map(ToString::to_string);
        let decided = role == "primary" && !self.is_bandit();
        let adjusted = self.adjusted(control.id, variant.id, metric);
        let mut found = MetricComparison {
            anytime: anytime(metric, &reading),
            anytime_reason: reading.anytime.as_ref().err().map(ToString::to_string),
            cuped_reason: adjusted.as_ref().err().map(ToString::to_string),
            cuped: adjusted.ok().flatten(),
            bayesian: bayesian(&reading),
            stratified: stratified(&reading),
            guardrail: (role == "guardrail").then(|| guardrail(metric, &epochs)),
            // A bandit's winner is found by another rule, and no look is ever taken.
            sequential: self
                .standing
                .filter(|_| decided)
                .and_then(|standing| sequential(standing, self.until(), variant.id, metric)),
            ..with_fixed(blank(variant, reason), &reading)
        };
        if let Some(stratified) = found.stratified.as_mut().filter(|_| detailed) {
            let strata = analysis::strata(metric, &epochs).unwrap_or_default();
            stratified.strata = Some(numbered(&compared, &strata));
        }
        found
    }

    /// The lift of values as they are, without caps: those are not kept by day. Beside it why it, or its interval, is null.
    pub(super) fn lift(
        &self,
        control: i64,
        treatment: i64,
        metric: Metric,
    ) -> (Option<LiftBody>, Option<String>) {
        let uncapped = Sums {
            capped: &[],
            ..self.sums
        };
        let arms = uncapped.arms(control, treatment, metric);
        let reading = analysis::read_of(metric, &arms, self.split());
        let stratified = match reading.stratified {
            Ok(stratified) => stratified,
            Err(error) => return (None, Some(error.to_string())),
        };
        let (interval, reason) = match reading.fixed {
            Ok(fixed) => (fixed.lift.interval, missing(&fixed.lift)),
            Err(error) => (None, Some(error.to_string())),
        };
        let lift = LiftBody {
            estimate: stratified.lift,
            interval: interval.map(Range::from),
            anytime: anytime(metric, &reading),
        };
        (Some(lift), reason)
    }

    /// With the covariate, where both arms had traffic in one epoch: those units, and the centre of that epoch's variants.
    /// `None` where there is nothing to adjust by.
    fn adjusted(
        &self,
        control: i64,
        treatment: i64,
        metric: Metric,
    ) -> Result<Option<CupedBody>, StatsError> {
        let sums = &self.sums;
        let compared: Vec<i32> = sums
            .counted_epochs()
            .filter(|epoch| sums.compares(epoch, control, treatment, None).is_some())
            .map(|epoch| epoch.epoch)
            .collect();
        let [epoch] = compared.as_slice() else {
            return Ok(None);
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
        let Some((a, b)) = arm(control).zip(arm(treatment)) else {
            return Ok(None);
        };
        let Some(found) = analysis::adjusted(metric, a, b, centre.as_ref())? else {
            return Ok(None);
        };
        let lift = analysis::adjusted_lift(&found);
        Ok(Some(CupedBody {
            units_with_covariate: a.1.units + b.1.units,
            theta: found.theta,
            control_mean: found.mean_a,
            treatment_mean: found.mean_b,
            difference: found.diff,
            standard_error: found.se,
            difference_interval: found.interval.into(),
            relative_lift: lift.and_then(|lift| lift.value),
            relative_lift_interval: lift.and_then(|lift| lift.interval).map(Range::from),
            relative_lift_method: lift.map(|lift| lift.method.name()),
            statistic: found.z,
            p_value: shown(found.p.two_sided),
            ln_p_value: found.p.ln_two_sided,
            variance_reduction: found.variance_reduction,
        }))
    }

    /// The effect that the experiment is planned to find.
    fn effect(&self) -> f64 {
        let asked = self
            .standing
            .map_or(0.0, |standing| standing.config.thresholds.min_improvement);
        let planned = self.sums.experiment.design.min_detectable_effect;
        planned.unwrap_or_else(|| assumed_effect(asked))
    }

    /// Each arm has a sample of its own, after the weights in force; without it the reason.
    fn sample(
        &self,
        control: &Variant,
        treatment: &Variant,
        treatments: usize,
        metric: Metric,
    ) -> Result<SampleBody, String> {
        let sums = &self.sums;
        let all = sums.together(control.id, metric);
        let ratio = weight_ratio(control, treatment)?;
        let effect = self.effect();
        let planned = analysis::planned_units(metric, &all, effect, treatments, ratio);
        let planned = planned.map_err(|error| error.to_string())?;
        let arm = |variant: &Variant, required: f64| SampleArm {
            required,
            reached: sums.units(variant.id),
        };
        let arms = [
            arm(control, planned.n_a_ceil),
            arm(treatment, planned.n_b_ceil),
        ];
        let days = arms.iter().map(|arm| self.days_left(arm));
        let days_left = days.reduce(|one, other| Some(one?.max(other?))).flatten();
        let part = |arm: &SampleArm| as_float(arm.reached) / arm.required;
        let [a, b] = &arms;
        let lagging = if part(b) < part(a) { b } else { a };
        Ok(SampleBody {
            effect,
            required: lagging.required,
            reached: lagging.reached,
            days_left,
            control: arms[0],
            treatment: arms[1],
        })
    }

    /// Days until an arm has its sample, at recent traffic; none in the first day, and where nothing comes.
    fn days_left(&self, arm: &SampleArm) -> Option<f64> {
        let missing = (arm.required - as_float(arm.reached)).max(0.0);
        let per_day = as_float(arm.reached) / self.days()? * self.pace;
        (per_day > 0.0).then(|| missing / per_day)
    }
}

/// Units in the treatment for one in the control.
fn weight_ratio(control: &Variant, treatment: &Variant) -> Result<f64, String> {
    for variant in [control, treatment] {
        if variant.traffic_weight.to_f64() <= 0.0 {
            let name = &variant.name;
            return Err(format!("{name} has weight 0, so no new unit gets it"));
        }
    }
    Ok(treatment.traffic_weight.to_f64() / control.traffic_weight.to_f64())
}

/// Closed testing of all treatments: per treatment the smallest mean of e-values over all sets of treatments that hold
/// it. One without an e-value has e = 1: it says nothing.
fn close(comparisons: &mut [MetricComparison]) {
    if comparisons.len() < 2 {
        return;
    }
    let e = |found: &MetricComparison| {
        let ln_e = found.anytime.as_ref().map_or(0.0, |a| a.ln_e_value_better);
        ln_e.min(MOST_LN_E).exp()
    };
    let all: Vec<f64> = comparisons.iter().map(e).collect();
    let Ok(adjusted) = adjust_e_values(&all) else {
        return;
    };
    for (comparison, e) in comparisons.iter_mut().zip(adjusted) {
        if let Some(anytime) = comparison.anytime.as_mut() {
            anytime.adjusted_ln_e_value_better = Some(e.max(LEAST_P).ln());
            anytime.closed_p_value = shown(e.recip().min(1.0));
        }
    }
}

fn numbered(compared: &[(i32, EpochArms<'_>)], strata: &[Stratum]) -> Vec<StratumBody> {
    let epochs = compared.iter().map(|(epoch, _)| *epoch);
    let rows = epochs.zip(strata);
    rows.map(|(epoch, stratum)| StratumBody::new(epoch, stratum))
        .collect()
}

/// Never 0: what floats cannot hold is told by its logarithm.
pub(super) fn shown(p: f64) -> f64 {
    p.max(LEAST_P)
}

/// 100 (1 − p), never 100.
pub(super) fn significance(p: f64) -> f64 {
    100.0 * (1.0 - p.max(LEAST_ERROR))
}

pub(super) fn blank(variant: &Variant, reason: Option<String>) -> MetricComparison {
    MetricComparison {
        variant_id: variant.id,
        variant_name: variant.name.clone(),
        lift: None,
        relative_lift: None,
        relative_lift_interval: None,
        relative_lift_method: None,
        relative_lift_reason: None,
        difference: None,
        difference_interval: None,
        standard_error: None,
        method: None,
        statistic: None,
        degrees_of_freedom: None,
        p_value: None,
        ln_p_value: None,
        significance: None,
        adjusted_p_value: None,
        adjustment: None,
        anytime: None,
        anytime_reason: None,
        cuped: None,
        cuped_reason: None,
        bayesian: None,
        stratified: None,
        guardrail: None,
        sample: None,
        sample_reason: None,
        sequential: None,
        reason,
    }
}

fn with_fixed(comparison: MetricComparison, reading: &Reading) -> MetricComparison {
    let Ok(fixed) = reading.fixed else {
        return comparison;
    };
    let lift = fixed.lift;
    MetricComparison {
        lift: lift.value.map(|lift| 100.0 * lift),
        relative_lift: lift.value,
        relative_lift_interval: lift.interval.map(Range::from),
        relative_lift_method: lift.interval.map(|_| lift.method.name()),
        relative_lift_reason: missing(&lift),
        difference: Some(fixed.difference),
        difference_interval: fixed.difference_interval.map(Range::from),
        standard_error: fixed.standard_error,
        method: Some(fixed.method.name()),
        statistic: Some(fixed.statistic),
        degrees_of_freedom: fixed.degrees_of_freedom,
        p_value: Some(shown(fixed.p_value)),
        ln_p_value: Some(fixed.ln_p_value),
        significance: Some(significance(fixed.p_value)),
        ..comparison
    }
}

/// Why a lift, or its interval, is missing.
fn missing(lift: &Lift) -> Option<String> {
    lift.missing.map(|error| match (error, lift.value) {
        (StatsError::NonPositiveBaseline, Some(_)) => {
            "the control's value cannot be told from 0, so the lift has no upper limit".to_owned()
        }
        (error, _) => error.to_string(),
    })
}

fn anytime(metric: Metric, reading: &Reading) -> Option<AnytimeBody> {
    let found = reading.anytime.ok()?;
    let finite = |value: f64| value.is_finite().then_some(value);
    let better = found.ln_e_better(metric);
    Some(AnytimeBody {
        method: found.method.name(),
        ln_e_value: found.ln_e_two_sided,
        ln_e_value_better: better,
        p_value: shown((-found.ln_e_two_sided).exp().min(1.0)),
        // Alone; with several treatments `close` takes the others into account.
        closed_p_value: shown((-better).exp().min(1.0)),
        lower: finite(found.lift.lower),
        upper: finite(found.lift.upper),
        at_least: finite(found.lift_at_least),
        adjusted_ln_e_value_better: None,
    })
}

fn bayesian(reading: &Reading) -> Option<BayesianBody> {
    let found = reading.bayesian.ok()?;
    Some(BayesianBody {
        chance_to_beat_control: found.chance_to_beat_control,
        expected_loss: found.expected_loss,
        lift_interval: found.lift.map(Range::from),
        posterior: found.posterior.into(),
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
        baseline: found.baseline,
        information: found.information,
        strata: None,
    })
}

/// The only guardrail that follows from sums is the error rate.
fn guardrail(metric: Metric, epochs: &[EpochArms<'_>]) -> GuardrailBody {
    let strata = analysis::strata(metric, epochs);
    let found: Result<_, StatsError> = strata.and_then(|strata| analysis::guardrail(&strata));
    GuardrailBody {
        verdict: found.map_or("inconclusive", |test| test.verdict.name()),
        p_value: found.ok().map(|test| shown(test.p)),
        margin: analysis::ERROR_RATE_MARGIN,
        margin_is_relative: false,
        reason: found.err().map(|error| error.to_string()),
    }
}

/// Takes the number of comparisons into account: the primary metric by Bonferroni over treatments, secondary metrics by
/// Holm over metrics and treatments, the others, which are a dashboard, by Benjamini and Hochberg. A comparison that is
/// not defined yet belongs to its family all the same, with p = 1: else the family would grow with the data.
pub(super) fn adjust(metrics: &mut [super::bodies::MetricReport]) {
    for (role, name) in [
        ("primary", "bonferroni"),
        ("secondary", "holm"),
        ("guardrail", "holm"),
        ("other", "benjamini_hochberg"),
    ] {
        let family = metrics.iter_mut().filter(|metric| metric.role == role);
        let mut family: Vec<&mut MetricComparison> =
            family.flat_map(|metric| &mut metric.comparisons).collect();
        let p: Vec<f64> = family.iter().map(|c| c.p_value.unwrap_or(1.0)).collect();
        let Ok(adjusted) = adjust_p_values(&p) else {
            continue;
        };
        let adjusted = match name {
            "bonferroni" => adjusted.bonferroni,
            "holm" => adjusted.holm,
            _ => adjusted.benjamini_hochberg,
        };
        let defined = family.iter_mut().zip(adjusted);
        for (comparison, p) in defined.filter(|(c, _)| c.p_value.is_some()) {
            comparison.adjusted_p_value = Some(p);
            comparison.adjustment = Some(name);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(super) const fn as_float(number: i64) -> f64 {
    number as f64
}
