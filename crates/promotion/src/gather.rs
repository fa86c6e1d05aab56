//! From what was read to what a decision may look at. Pure: rows in, evidence out.

use chrono::{DateTime, TimeDelta, Utc};
use podium_domain::analysis::strata;
use podium_domain::bandit::truth;
use podium_domain::decision::design::{DesignInput, DesignSettings, FrozenDesign};
use podium_domain::decision::look::{Analysis, Look};
use podium_domain::experiment::ExperimentType;
use podium_domain::metric::Metric;
use podium_domain::outcomes::Outcomes;
use podium_domain::report;
use podium_domain::stats::bayes::{PastEffect, fit_prior};
use podium_domain::stats::quantile::RankedLimit;
use podium_domain::stats::sketch::GROWTH;
use podium_storage::bandit::units::by_epoch;
use podium_storage::experiments::model::{Experiment, Variant};
use podium_storage::promotions::analyses::StoredAnalysis;
use podium_storage::promotions::read::Gathered;
use serde_json::Value;

use crate::config::PromotionConfig;
use crate::evidence::{
    Arm, BanditReading, Evidence, History, Latency, OpenAnalysis, RequestCounts, SafetyReading,
    Subject, Traffic, Treatment,
};
use crate::sums::Sums;

/// Capped sums that are older are stale.
const OLDEST_CAPS: TimeDelta = TimeDelta::minutes(15);
/// Effects that are expected while there are too few promotions of our own to learn from, relative to the baseline.
const PRIOR_SD: f64 = 0.05;
/// Standard deviations beyond which no fit is believed.
const NARROWEST: f64 = 0.005;
/// The other end.
const WIDEST: f64 = 0.5;

/// The settings that an experiment has for promotions: `config.autoPromotion`.
#[must_use]
pub fn experiment_layer(experiment: &Experiment) -> Option<Value> {
    setting(experiment, "autoPromotion")
}

fn setting(experiment: &Experiment, name: &str) -> Option<Value> {
    let config: Value = serde_json::from_str(&experiment.config).ok()?;
    config.get(name).cloned()
}

/// The analysis of an experiment that is open: the stored one, else the first, from the start on. `None` before the
/// start, and for a design that no analysis can have.
#[must_use]
pub fn open_analysis(
    experiment: &Experiment,
    stored: Option<&StoredAnalysis>,
    standing: &PromotionConfig,
) -> Option<OpenAnalysis> {
    let frozen = stored.and_then(|stored| stored.design.as_ref());
    let now = design(experiment, frozen, standing)?;
    let start = match stored {
        Some(stored) => stored.started_at,
        None => experiment.start_date?,
    };
    let changed = frozen
        .filter(|frozen| frozen.is_changed_by(&now))
        .map(|frozen| change(frozen, &now));
    Some(OpenAnalysis {
        number: stored.map_or(1, |stored| stored.number),
        from_epoch: stored.map_or(1, |stored| stored.from_epoch),
        analysis: Analysis {
            start,
            unspent: stored.map_or(1.0, |stored| stored.unspent),
            design: frozen.cloned().unwrap_or(now),
        },
        changed,
    })
}

/// The design of the settings in force. Of sample and runtime only what the experiment itself asks for can change a
/// frozen design: two processes with different environments must not take turns at opening analyses.
fn design(
    experiment: &Experiment,
    frozen: Option<&FrozenDesign>,
    standing: &PromotionConfig,
) -> Option<FrozenDesign> {
    let own = experiment_layer(experiment);
    let own = |name: &str| own.as_ref()?.get("thresholds")?.get(name)?.as_f64();
    let thresholds = &standing.thresholds;
    let sample = match (own("minSampleSize"), frozen) {
        (None, Some(frozen)) => frozen.min_sample_size,
        _ => thresholds.min_sample_size,
    };
    let runtime = match (own("minRuntimeHours"), frozen) {
        (None, Some(frozen)) => frozen.min_runtime_hours,
        _ => thresholds.min_runtime_hours,
    };
    let (metric, design) = (experiment.primary_metric, experiment.design);
    let treatments = experiment
        .variants
        .iter()
        .filter(|variant| !variant.is_control)
        .count();
    let designed = FrozenDesign::new(DesignInput {
        metric,
        winsorize_upper: design.winsorize_upper.filter(|_| metric.is_value()),
        // Unit totals of values go on growing, so their cap is found anew at each look.
        cap: None,
        treatments: u32::try_from(treatments).ok()?,
        settings: DesignSettings {
            min_detectable_effect: design.min_detectable_effect,
            horizon_days: design.horizon_days.map(as_float),
            look_every_hours: u32::try_from(design.look_every_hours).ok()?,
        },
        min_sample_size: sample,
        min_runtime_hours: runtime,
        min_improvement: thresholds.min_improvement,
    });
    designed.ok()
}

fn change(frozen: &FrozenDesign, now: &FrozenDesign) -> String {
    let mut changes = Vec::new();
    if frozen.metric != now.metric || frozen.winsorize_upper != now.winsorize_upper {
        changes.push("the primary metric or its cap");
    }
    if frozen.treatments != now.treatments {
        changes.push("the number of treatments");
    }
    if frozen.settings != now.settings {
        changes.push("the design");
    }
    if changes.is_empty() {
        changes.push("the experiment's own sample size or runtime");
    }
    changes.join(", ")
}

/// What a decision may look at. `safety` tells what is known of errors, latency and alerts of a variant.
#[must_use]
pub fn evidence(
    gathered: &Gathered,
    standing: &PromotionConfig,
    safety: &dyn Fn(i64) -> SafetyReading,
) -> Evidence {
    let experiment = &gathered.experiment;
    let analysis = open_analysis(experiment, gathered.analysis.as_ref(), standing);
    let sums = Sums {
        experiment,
        epochs: &gathered.epochs,
        rows: &gathered.rows,
        capped: &gathered.capped,
        from_epoch: analysis.as_ref().map_or(1, |open| open.from_epoch),
    };
    // What is frozen decides: after a change of the primary metric the old analysis still is one of the old metric.
    let metric = analysis.as_ref().map_or(experiment.primary_metric, |open| {
        open.analysis.design.metric
    });
    let began = analysis.as_ref().map(|open| open.analysis.start);
    let arm = |variant: &Variant| arm(&sums, variant, metric, safety(variant.id));
    let treatments = sums
        .treatments()
        .map(|variant| treatment(gathered, &sums, variant, metric, arm(variant)));
    Evidence {
        now: gathered.freshness.now,
        lag_seconds: gathered.freshness.lag_seconds,
        experiment: subject(experiment),
        history: History {
            active: gathered.active.map(|id| id.to_string()),
            rolled_back_at: since(gathered.rolled_back_at, began),
        },
        control: sums.control().map(arm),
        treatments: treatments.collect(),
        traffic: Traffic {
            epochs: sums.server_splits(),
            client_units: sums.client_units(),
            allows_client_units: setting(experiment, "allowClientAssignment")
                == Some(Value::Bool(true)),
        },
        prior_sd: prior_sd(&gathered.effects),
        analysis,
    }
}

/// A rollback of before the analysis began is forgiven: a person has restarted it.
fn since(at: Option<DateTime<Utc>>, began: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    at.filter(|at| began.is_none_or(|began| *at >= began))
}

/// What the safety checks look at in a variant: requests of its units in the open analysis, and critical alerts on it, or
/// on the experiment as a whole, within the last `lookback_hours`.
#[must_use]
pub fn safety(gathered: &Gathered, variant_id: i64, lookback_hours: i64) -> SafetyReading {
    let from_epoch = gathered.analysis.as_ref().map_or(1, |open| open.from_epoch);
    let parts = gathered.outcomes.iter();
    let parts = parts.filter(|part| part.variant_id == variant_id && part.epoch >= from_epoch);
    let errors = parts
        .clone()
        .map(|part| requests(part.epoch, &part.outcomes));
    let errors = errors.filter(|counts| counts.requests != 0).collect();
    let mut outcomes = Outcomes::default();
    let merged = parts
        .map(|part| outcomes.merge(&part.outcomes))
        .all(|done| done.is_ok());
    let since = TimeDelta::try_hours(lookback_hours)
        .and_then(|hours| gathered.freshness.now.checked_sub_signed(hours));
    let critical = gathered.critical.iter().filter(|alert| {
        alert.variant_id.is_none_or(|id| id == variant_id)
            && since.is_none_or(|since| alert.closed_at.is_none_or(|closed| closed >= since))
    });
    SafetyReading {
        errors,
        latency: (outcomes.latencies.count() > 0).then(|| latency(&outcomes, merged)),
        critical_alerts: i64::try_from(critical.count()).ok(),
    }
}

/// Requests, not units that ever had an error: that share grows with the age of an experiment and says nothing about it.
fn requests(epoch: i32, outcomes: &Outcomes) -> RequestCounts {
    RequestCounts {
        epoch,
        requests: outcomes.requests,
        errors: outcomes.errors,
        effective: i64::try_from(outcomes.effective_units()).unwrap_or(i64::MAX),
    }
}

/// The 95 % point with limits that take in the width of a bucket; no number where there are too few units for a limit.
fn latency(outcomes: &Outcomes, merged: bool) -> Latency {
    let half_bucket = GROWTH.sqrt();
    let p95 = outcomes.p95(report::CONFIDENCE).ok().filter(|_| merged);
    let limit = |limit: Option<RankedLimit>| limit.map_or(f64::NAN, |limit| limit.value);
    Latency {
        units: outcomes.units,
        p95_ms: p95.map_or(f64::NAN, |p95| p95.value),
        lower_ms: p95.map_or(f64::NAN, |p95| limit(p95.lower) / half_bucket),
        upper_ms: p95.map_or(f64::NAN, |p95| limit(p95.upper) * half_bucket),
    }
}

fn subject(experiment: &Experiment) -> Subject {
    Subject {
        id: experiment.id,
        name: experiment.name.clone(),
        experiment_type: experiment.experiment_type.name().to_owned(),
        status: experiment.status.name().to_owned(),
        version: experiment.version,
        start_date: experiment.start_date,
        primary_metric: experiment.primary_metric.name().to_owned(),
        guardrails: experiment
            .guardrails
            .iter()
            .map(|metric| metric.name().to_owned())
            .collect(),
    }
}

fn arm(sums: &Sums<'_>, variant: &Variant, metric: Metric, safety: SafetyReading) -> Arm {
    let value = report::value(&sums.together(variant.id, metric), metric);
    Arm {
        variant_id: variant.id,
        name: variant.name.clone(),
        units: sums.units(variant.id),
        value: value
            .ok()
            .map(|value| value.value)
            .filter(|value| value.is_finite()),
        has_traffic: variant.traffic_weight.units() > 0,
        safety,
    }
}

fn treatment(
    gathered: &Gathered,
    sums: &Sums<'_>,
    variant: &Variant,
    metric: Metric,
    arm: Arm,
) -> Treatment {
    let compared = match (sums.control(), caps(gathered, sums, metric)) {
        (None, _) => Err("there is no control to compare with".to_owned()),
        (_, Err(why)) => Err(why),
        (Some(control), Ok(())) => strata(metric, &sums.arms(control.id, variant.id, metric))
            .map_err(|error| format!("the sums contradict each other: {error}")),
    };
    let (strata, missing) = match compared {
        Ok(strata) => (Some(strata), None),
        Err(why) => (None, Some(why)),
    };
    let looks = gathered
        .looks
        .iter()
        .filter(|stored| stored.variant_id == variant.id);
    let looks: Vec<Look> = looks.map(|stored| stored.look).collect();
    Treatment {
        arm,
        strata,
        missing,
        looks,
        bandit: bandit(gathered, sums, variant.id, metric),
    }
}

/// What honest estimates say of a bandit's variant; none where there is too little to estimate from.
fn bandit(
    gathered: &Gathered,
    sums: &Sums<'_>,
    treatment: i64,
    metric: Metric,
) -> Option<BanditReading> {
    if sums.experiment.experiment_type != ExperimentType::Bandit {
        return None;
    }
    let variants: Vec<i64> = sums.experiment.variants.iter().map(|v| v.id).collect();
    let at = |id| variants.iter().position(|variant| *variant == id);
    let (control, treatment) = (at(sums.control()?.id)?, at(treatment)?);
    let outcome = truth::outcome_of(metric);
    let from = sums.from_epoch;
    let epochs = by_epoch(sums.epochs, &gathered.drawn, &variants, from, outcome);
    let truths = truth::read(&epochs, control).ok()?;
    let (base, own) = (truths.get(control)?, truths.get(treatment)?);
    let (difference, standing) = (own.difference?, own.standing?);
    Some(BanditReading {
        prob_best: standing.prob_best,
        expected_loss: standing.expected_loss,
        control_rate: base.rate?.value,
        difference: difference.estimate.value,
        standard_error: difference.estimate.se,
        interval: difference.anytime,
        conversions: i64::try_from(own.counts.successes()).ok()?,
        control_conversions: i64::try_from(base.counts.successes()).ok()?,
    })
}

/// Whether values can be compared: under a cap that is not stale, where the design wants one.
fn caps(gathered: &Gathered, sums: &Sums<'_>, metric: Metric) -> Result<(), String> {
    let wanted = gathered.experiment.design.winsorize_upper.is_some() && metric.is_value();
    if !wanted {
        return Ok(());
    }
    match sums.capped(metric) {
        Some(capped)
            if gathered
                .freshness
                .now
                .signed_duration_since(capped.computed_at)
                > OLDEST_CAPS =>
        {
            Err("stale: the cap of values was not found for 15 minutes".to_owned())
        }
        Some(_) => Ok(()),
        // Where nobody has a value yet there is nothing to cap.
        None if sums.experiment.variants.iter().all(|variant| {
            report::value(&sums.together(variant.id, metric), metric)
                .map_or(true, |found| found.value == 0.0)
        }) =>
        {
            Ok(())
        }
        None => Err("the cap of values is not known yet".to_owned()),
    }
}

/// What effects are like, relative to the baseline: fitted from our own promotions by Paule and Mandel's method, once there
/// are ten. The lifts of promotions are those that passed, so the estimate is rather too wide, and shrinks too little.
fn prior_sd(effects: &[(f64, f64)]) -> f64 {
    let past = effects.iter();
    let past = past.filter_map(|(lift, se)| PastEffect::new(lift / 100.0, se / 100.0).ok());
    match fit_prior(&past.collect::<Vec<_>>()) {
        Ok(fitted) => fitted.sd().unwrap_or(PRIOR_SD).clamp(NARROWEST, WIDEST),
        // Too few, or they differ by no more than their errors: then they do not tell how far effects spread.
        Err(_) => PRIOR_SD,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn as_float(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_rate_is_that_of_requests() {
        let outcomes = Outcomes {
            units: 1_000,
            erring_units: 58,
            requests: 20_000,
            errors: 60,
            squared_requests: 400_000.0,
            ..Outcomes::default()
        };
        let counts = requests(1, &outcomes);
        assert_eq!(
            (counts.requests, counts.errors, counts.effective),
            (20_000, 60, 1_000)
        );
    }

    #[test]
    fn the_prior_is_fitted_from_ten_promotions_on() {
        // Lifts of 10 ± 10 points with errors of 6: the variance around their mean is 100 · 10/9 points, less 36.
        let mut effects: Vec<(f64, f64)> = [(0.0, 6.0), (20.0, 6.0)].repeat(5);
        let fitted = (100.0_f64 * 10.0 / 9.0 - 36.0).sqrt() / 100.0;
        assert!((prior_sd(&effects) - fitted).abs() < 1e-9);
        assert!((prior_sd(&effects[..9]) - PRIOR_SD).abs() < 1e-12);
        // Lifts that do not differ do not tell how far effects spread.
        assert!((prior_sd(&[(10.0, 6.0); 10]) - PRIOR_SD).abs() < 1e-12);
        // One promotion that knows next to nothing must not widen the prior of ten good ones.
        effects.push((300.0, 250.0));
        assert!((prior_sd(&effects) - fitted).abs() < 0.01);
        effects.push((f64::NAN, 6.0));
        assert!(prior_sd(&effects).is_finite());
    }
}
