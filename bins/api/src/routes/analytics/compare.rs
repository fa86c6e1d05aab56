//! Treatments against the control: fixed, anytime-valid, Bayesian, sequential. Pure: rows in, answers out.

use chrono::{DateTime, Utc};
use podium_domain::analysis::{self, EpochArms, Reading};
use podium_domain::decision::design::{DesignInput, DesignSettings, FrozenDesign};
use podium_domain::decision::look::{Analysis, Answer, Snapshot, Wait, take};
use podium_domain::decision::verdict::{Gates, judge};
use podium_domain::metric::{Metric, MetricKind};
use podium_domain::moments::{CoveredMoments, Moments};
use podium_domain::stats::StatsError;
use podium_domain::stats::multiple::adjust_p_values;
use podium_storage::analytics::capped::CappedTotal;
use podium_storage::analytics::context::Epoch;
use podium_storage::analytics::covariates::VariantCovariates;
use podium_storage::analytics::moments::VariantMoments;
use podium_storage::analytics::outcomes::VariantOutcomes;
use podium_storage::experiments::model::{Experiment, Variant};

use super::bodies::{
    AnytimeBody, BayesianBody, CupedBody, GuardrailBody, LiftBody, MetricComparison, Range,
    SampleBody, SequentialBody, StratifiedBody,
};
use super::latency;

/// What automatic promotion asks for where nobody asked for something else: the balanced preset.
const BALANCED: Requirements = Requirements {
    min_confidence: 95.0,
    min_sample_size: 2_000,
    min_improvement: 5.0,
    min_runtime_hours: 24.0,
    min_effect: 0.1,
};

struct Requirements {
    min_confidence: f64,
    min_sample_size: i64,
    min_improvement: f64,
    min_runtime_hours: f64,
    /// Relative effect that samples are planned for where the design names none.
    min_effect: f64,
}

/// The sums of an experiment by epoch, and the moment that they are read at.
pub(super) struct Evidence<'e> {
    pub(super) experiment: &'e Experiment,
    pub(super) epochs: &'e [Epoch],
    pub(super) rows: &'e [VariantMoments],
    /// Sums over units that have a covariate.
    pub(super) covariates: &'e [VariantCovariates],
    /// Totals of values with their sums under a cap.
    pub(super) capped: &'e [CappedTotal],
    /// How requests ended.
    pub(super) outcomes: &'e [VariantOutcomes],
    pub(super) now: DateTime<Utc>,
}

impl Evidence<'_> {
    fn moments(&self, variant: i64, epoch: i32) -> Option<&Moments> {
        let row = |row: &&VariantMoments| row.variant_id == variant && row.epoch == epoch;
        self.rows.iter().find(row).map(|row| &row.moments)
    }

    /// The capped sums that a metric is compared by, where there are any.
    pub(super) fn capped(&self, metric: Metric) -> Option<&CappedTotal> {
        let total = match metric.kind() {
            MetricKind::Mean { of } => of,
            MetricKind::Ratio { numerator, .. } => numerator,
            MetricKind::Proportion { .. } | MetricKind::Quantile { .. } => return None,
        };
        self.capped.iter().find(|capped| capped.total == total)
    }

    /// As [`Self::moments`], capped where a cap is given.
    fn sums<'s>(
        &'s self,
        capped: Option<&'s CappedTotal>,
        variant: i64,
        epoch: i32,
    ) -> Option<&'s Moments> {
        let Some(capped) = capped else {
            return self.moments(variant, epoch);
        };
        let mut parts = capped.parts.iter();
        let part = parts.find(|part| part.variant_id == variant && part.epoch == epoch);
        part.map(|part| &part.moments)
    }

    /// Epochs in which both arms had traffic and have units.
    fn arms<'s>(
        &'s self,
        control: i64,
        treatment: i64,
        capped: Option<&'s CappedTotal>,
    ) -> Vec<EpochArms<'s>> {
        self.epochs
            .iter()
            .filter_map(|epoch| self.compares(epoch, control, treatment, capped))
            .collect()
    }

    fn compares<'s>(
        &'s self,
        epoch: &Epoch,
        control: i64,
        treatment: i64,
        capped: Option<&'s CappedTotal>,
    ) -> Option<EpochArms<'s>> {
        let a = self.sums(capped, control, epoch.epoch)?;
        let b = self.sums(capped, treatment, epoch.epoch)?;
        let weight = |id| epoch.weights.get(&id).map_or(0.0, |weight| weight.to_f64());
        let (weight_a, weight_b) = (weight(control), weight(treatment));
        (a.units > 0 && b.units > 0 && weight_a > 0.0 && weight_b > 0.0).then(|| EpochArms {
            control: a,
            treatment: b,
            treatment_share: weight_b / (weight_a + weight_b),
        })
    }

    /// Units of each variant in each epoch, with the weights that were in force.
    pub(super) fn splits(&self) -> Vec<analysis::EpochSplit> {
        let variants = &self.experiment.variants;
        let count = |variant: &Variant, epoch| {
            let units = self.moments(variant.id, epoch).map_or(0, |m| m.units);
            as_float(units)
        };
        self.epochs
            .iter()
            .map(|epoch| analysis::EpochSplit {
                counts: variants.iter().map(|v| count(v, epoch.epoch)).collect(),
                weights: variants
                    .iter()
                    .map(|v| epoch.weights.get(&v.id).map_or(0.0, |w| w.to_f64()))
                    .collect(),
            })
            .collect()
    }

    /// Days since the start, from the first whole one on: minutes tell nothing about a day's traffic.
    fn days(&self) -> Option<f64> {
        let start = self.experiment.start_date?;
        let end = self.experiment.end_date.unwrap_or(self.now);
        let days = end.signed_duration_since(start).as_seconds_f64() / 86_400.0;
        (days >= 1.0).then_some(days)
    }

    /// All treatments against the control.
    pub(super) fn comparisons(
        &self,
        control: Option<&Variant>,
        treatments: &[&Variant],
        metric: Metric,
        role: &'static str,
    ) -> Vec<MetricComparison> {
        treatments
            .iter()
            .map(|variant| match control {
                None => blank(
                    variant,
                    Some("there is no control to compare with".to_owned()),
                ),
                Some(control) if metric == Metric::P95LatencyMs => {
                    latency::comparison(self, control, variant, role)
                }
                Some(control) => self.comparison(control, variant, treatments.len(), metric, role),
            })
            .collect()
    }

    fn comparison(
        &self,
        control: &Variant,
        variant: &Variant,
        treatments: usize,
        metric: Metric,
        role: &'static str,
    ) -> MetricComparison {
        let epochs = self.arms(control.id, variant.id, self.capped(metric));
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
            sequential: is_primary
                .then(|| self.sequential(&epochs, treatments, metric))
                .flatten(),
            ..with_fixed(blank(variant, reason), &reading)
        }
    }

    /// The lift of values as they are, without caps: those are not kept by day.
    pub(super) fn lift(&self, control: i64, treatment: i64, metric: Metric) -> Option<LiftBody> {
        let reading = analysis::read(metric, &self.arms(control, treatment, None));
        let fixed = reading.fixed.ok();
        Some(LiftBody {
            estimate: reading.stratified.ok()?.lift,
            interval: fixed.and_then(|fixed| fixed.lift_interval).map(Range::from),
            anytime: anytime(&reading),
        })
    }

    /// With the covariate, where both arms had traffic in one epoch: those units, and the centre of that epoch's variants.
    fn adjusted(&self, control: i64, treatment: i64, metric: Metric) -> Option<CupedBody> {
        let compared: Vec<i32> = self
            .epochs
            .iter()
            .filter(|epoch| self.compares(epoch, control, treatment, None).is_some())
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
        let planned = self.experiment.design.min_detectable_effect;
        planned.unwrap_or(BALANCED.min_effect)
    }

    fn sample(
        &self,
        control: i64,
        treatment: i64,
        treatments: usize,
        metric: Metric,
    ) -> Option<SampleBody> {
        let mut all = Moments::default();
        let units_of = |variant| {
            let rows = self
                .rows
                .iter()
                .filter(move |row| row.variant_id == variant);
            rows.map(|row| row.moments.units).sum::<i64>()
        };
        let capped = self.capped(metric);
        for epoch in self.epochs {
            if let Some(moments) = self.sums(capped, control, epoch.epoch) {
                all.merge(moments);
            }
        }
        let required = analysis::planned_units(metric, &all, self.effect(), treatments).ok()?;
        let reached = units_of(control).min(units_of(treatment));
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

    fn analysis(&self, metric: Metric, treatments: usize) -> Option<Analysis> {
        let design = self.experiment.design;
        let design = FrozenDesign::new(DesignInput {
            metric,
            winsorize_upper: design.winsorize_upper.filter(|_| metric.is_value()),
            cap: self.capped(metric).map(|capped| capped.cap),
            treatments: u32::try_from(treatments).ok()?,
            settings: DesignSettings {
                min_detectable_effect: design.min_detectable_effect,
                horizon_days: design.horizon_days.map(as_float),
                look_every_hours: u32::try_from(design.look_every_hours).ok()?,
            },
            min_sample_size: BALANCED.min_sample_size,
            min_runtime_hours: BALANCED.min_runtime_hours,
            min_improvement: BALANCED.min_improvement,
        });
        Some(Analysis {
            start: self.experiment.start_date?,
            unspent: 1.0,
            design: design.ok()?,
        })
    }

    /// What a scan at this moment would find, were it the first.
    fn sequential(
        &self,
        epochs: &[EpochArms<'_>],
        treatments: usize,
        metric: Metric,
    ) -> Option<SequentialBody> {
        let analysis = self.analysis(metric, treatments)?;
        let strata = analysis::strata(metric, epochs).ok()?;
        let snapshot = Snapshot {
            now: self.experiment.end_date.unwrap_or(self.now),
            strata: &strata,
            min_confidence: BALANCED.min_confidence,
        };
        let (looks, waits) = match take(&analysis, &[], &snapshot).ok()? {
            Answer::Taken(looks) => (looks, Vec::new()),
            Answer::Reused(look) => (vec![look], Vec::new()),
            Answer::Waiting(waits) => (Vec::new(), waits),
        };
        let gates = Gates {
            min_confidence: BALANCED.min_confidence,
            min_improvement: BALANCED.min_improvement,
        };
        let standing = judge(&analysis, &looks, gates);
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
            waiting: waits.iter().map(waiting).collect(),
        })
    }
}

fn waiting(wait: &Wait) -> String {
    match wait {
        Wait::Runtime { required, .. } => format!("runtime: {required:.0} hours"),
        Wait::Units { measured, required } => {
            format!("sample: {measured} of {required} units in the smaller arm")
        }
        Wait::Conversions { measured, required } => {
            format!("conversions: {measured} of {required} in the arm with fewer")
        }
        Wait::Information { measured, required } => {
            format!("information: {measured:.2} of {required:.2}")
        }
        Wait::Undefined(error) => format!("the metric cannot be compared yet: {error}"),
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
