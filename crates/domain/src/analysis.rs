//! What is said about one treatment in one metric: fixed and anytime-valid figures, the Bayesian view, guardrails.
//!
//! The input are the exact sums per epoch of assignment. A difference between epochs is the calendar's, so arms are
//! compared within epochs only ([`crate::decision`]); figures that pool all units are given where there is one epoch.

use serde::{Deserialize, Serialize};

use crate::decision::anytime::{Anytime, Split, anytime_of};
use crate::decision::evidence::{ArmSummary, Contrasts, Stratified, Stratum, stratified};
use crate::decision::lift::fixed_interval;
use crate::event::EventType;
use crate::metric::{Metric, MetricKind, UnitTotal};
use crate::moments::{CovariateCentre, CoveredMoments, MetricMoments, Moments};
use crate::report::{CONFIDENCE, Comparison, Lift, LiftMethod, compare, compare_strata, lift};
use crate::stats::bayes::{BetaPrior, GaussianPrior, compare_rates, posterior_effect};
use crate::stats::cuped::{AdjustedComparison, CovariateMoments, Slope, compare_adjusted};
use crate::stats::eprocess::multinomial;
use crate::stats::lift::Estimate;
use crate::stats::noninferiority::{NonInferiority, of_distance};
use crate::stats::power::{Baseline, Level, SampleSize, Sides, sample_size};
use crate::stats::proportion::Proportion;
use crate::stats::{Interval, StatsError};

/// One-sided level of guardrail tests.
pub const GUARDRAIL_ALPHA: f64 = 0.05;
/// By how much the error rate may be worse: one percentage point.
pub const ERROR_RATE_MARGIN: f64 = 0.01;
/// Power of planned samples.
pub const POWER: f64 = 0.8;
/// Concentration of the prior around the planned split: log risk ratios of about 0.1 are expected at an even split.
pub(crate) const SPLIT_CONCENTRATION: f64 = 400.0;

/// Control and treatment in one epoch in which both had traffic.
#[derive(Clone, Copy, Debug)]
pub struct EpochArms<'a> {
    /// Sums of the control's units.
    pub control: &'a Moments,
    /// Sums of the treatment's units.
    pub treatment: &'a Moments,
    /// The treatment's planned part of the traffic of the two.
    pub treatment_share: f64,
}

/// The Bayesian view, for reading: a threshold on it is not safe under peeking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BayesianView {
    /// Chance that the treatment is better than the control (lower, for guardrails).
    pub chance_to_beat_control: f64,
    /// What choosing the treatment costs on average if it is worse, in the metric's unit.
    pub expected_loss: f64,
    /// Credible interval of the lift at [`CONFIDENCE`], a fraction.
    pub lift: Option<Interval>,
    /// What is believed after the data.
    pub posterior: Posterior,
}

/// What is believed after the data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Posterior {
    /// The rates are Beta(α, β), after uniform priors.
    Rates {
        /// α and β of the control.
        control: [f64; 2],
        /// Of the treatment.
        treatment: [f64; 2],
    },
    /// The effect is normal, after a flat prior.
    Effect {
        /// Its mean.
        mean: f64,
        /// Its standard deviation.
        sd: f64,
    },
}

/// One treatment against the control. Each part says why it is not defined where it is not.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Fixed horizon; over several epochs by the stratified statistic, because they are not pooled.
    pub fixed: Result<Comparison, StatsError>,
    /// Stratified by epoch.
    pub stratified: Result<Stratified, StatsError>,
    /// Holds at any moment.
    pub anytime: Result<Anytime, StatsError>,
    /// Chance, loss, credible interval.
    pub bayesian: Result<BayesianView, StatsError>,
}

/// As [`read_of`], of units that were drawn with the planned shares.
#[must_use]
pub fn read(metric: Metric, epochs: &[EpochArms<'_>]) -> Reading {
    read_of(metric, epochs, Split::Ours)
}

/// Reads a treatment in a metric that follows from sums.
#[must_use]
pub fn read_of(metric: Metric, epochs: &[EpochArms<'_>], split: Split) -> Reading {
    let strata = match strata(metric, epochs) {
        Ok(strata) => strata,
        Err(error) => return Reading::undefined(error),
    };
    let fixed = match epochs {
        [one] => compare(one.control, one.treatment, metric),
        _ => compare_strata(&strata),
    };
    Reading {
        fixed,
        stratified: stratified(&strata),
        anytime: anytime_of(&strata, split, 1.0 - CONFIDENCE),
        bayesian: bayesian(metric, epochs, &strata),
    }
}

impl Reading {
    const fn undefined(error: StatsError) -> Self {
        Self {
            fixed: Err(error),
            stratified: Err(error),
            anytime: Err(error),
            bayesian: Err(error),
        }
    }
}

/// The arms of every epoch as the decision rule takes them.
///
/// # Errors
/// [`StatsError::InvalidInput`] for sums that contradict each other; [`StatsError::NotEnoughData`] for a metric that
/// does not follow from sums.
pub fn strata(metric: Metric, epochs: &[EpochArms<'_>]) -> Result<Vec<Stratum>, StatsError> {
    epochs
        .iter()
        .map(|epoch| {
            Ok(Stratum {
                control: arm(metric, epoch.control)?,
                treatment: arm(metric, epoch.treatment)?,
                treatment_share: epoch.treatment_share,
            })
        })
        .collect()
}

fn arm(metric: Metric, moments: &Moments) -> Result<ArmSummary, StatsError> {
    let of_metric = moments
        .of_metric(metric)?
        .ok_or(StatsError::NotEnoughData)?;
    ArmSummary::from_moments(&of_metric, conversions(metric, moments))
}

/// Units with something in the metric's total (the numerator's, for ratios).
fn conversions(metric: Metric, moments: &Moments) -> i64 {
    let total = match metric.kind() {
        MetricKind::Mean { of } => of,
        MetricKind::Ratio { numerator, .. } => numerator,
        MetricKind::Proportion { event } => {
            return moments.units_with.get(&event).copied().unwrap_or(0);
        }
        MetricKind::Quantile { .. } => return 0,
    };
    let event = match total {
        UnitTotal::Clicks => Some(EventType::Click),
        UnitTotal::AddToCarts => Some(EventType::AddToCart),
        UnitTotal::Purchases => Some(EventType::Purchase),
        _ => None,
    };
    let found = match event {
        Some(event) => moments.units_with.get(&event),
        None => moments.units_above_zero.get(&total),
    };
    found.copied().unwrap_or(0)
}

/// Rates of one epoch with uniform beta priors, everything else as a Gaussian effect without a prior.
fn bayesian(
    metric: Metric,
    epochs: &[EpochArms<'_>],
    strata: &[Stratum],
) -> Result<BayesianView, StatsError> {
    if let [one] = epochs
        && let (Some(MetricMoments::Proportion(a)), Some(MetricMoments::Proportion(b))) = (
            one.control.of_metric(metric)?,
            one.treatment.of_metric(metric)?,
        )
    {
        let view = compare_rates(a, b, BetaPrior::UNIFORM, CONFIDENCE)?;
        return Ok(BayesianView {
            chance_to_beat_control: view.prob_b_beats_a,
            expected_loss: view.expected_loss_b,
            lift: view.lift.map(|lift| Interval {
                lower: lift.lower,
                upper: lift.upper,
            }),
            posterior: Posterior::Rates {
                control: posterior(a),
                treatment: posterior(b),
            },
        });
    }
    let effect = stratified(strata)?;
    let flat = GaussianPrior::new(0.0, None)?;
    let view = posterior_effect(effect.effect, effect.se, &flat, CONFIDENCE)?;
    let (chance, loss) = if metric.is_guardrail() {
        (view.prob_negative, view.risk_choose_a)
    } else {
        (view.prob_positive, view.risk_choose_b)
    };
    // With flat priors on both values the lifts that are believed are those that no test rejects.
    let lift = fixed_interval(strata, CONFIDENCE).ok();
    Ok(BayesianView {
        chance_to_beat_control: chance,
        expected_loss: loss,
        lift: lift.filter(|limits| limits.upper.is_finite()),
        posterior: Posterior::Effect {
            mean: view.mean,
            sd: view.sd,
        },
    })
}

/// α and β after a uniform prior.
fn posterior(arm: Proportion) -> [f64; 2] {
    let (units, successes) = (arm.units() as f64, arm.successes() as f64);
    [1.0 + successes, 1.0 + units - successes]
}

/// A treatment against the control of one epoch, adjusted by the covariate that was handed in before the assignment;
/// `None` where no unit has one, and for ratios and quantiles, which are not adjusted.
///
/// # Errors
/// What [`compare_adjusted`] answers, and sums that contradict each other.
pub fn adjusted(
    metric: Metric,
    control: (&Moments, &CoveredMoments),
    treatment: (&Moments, &CoveredMoments),
    centre: Option<&CovariateCentre>,
) -> Result<Option<AdjustedComparison>, StatsError> {
    let Some(centre) = centre else {
        return Ok(None);
    };
    let arm = |(moments, covered): (&Moments, &CoveredMoments)| {
        let pair = moments.with_covariate(covered, centre, metric)?;
        pair.map(|pair| {
            CovariateMoments::new(
                pair.n,
                [pair.mean_y, pair.mean_x],
                [pair.var_y, pair.var_x, pair.cov],
            )
        })
        .transpose()
    };
    match (arm(control)?, arm(treatment)?) {
        (Some(a), Some(b)) => compare_adjusted(&a, &b, Slope::WithinArms, CONFIDENCE).map(Some),
        _ => Ok(None),
    }
}

/// The lift of adjusted means.
#[must_use]
pub fn adjusted_lift(found: &AdjustedComparison) -> Option<Lift> {
    let control = Estimate::new(found.mean_a, found.se2_a).ok()?;
    let treatment = Estimate::new(found.mean_b, found.se2_b).ok()?;
    Some(lift(&control, &treatment, LiftMethod::Delta))
}

/// Whether the error rate has not become worse by more than [`ERROR_RATE_MARGIN`], epochs stratified.
///
/// # Errors
/// What [`Contrasts::of`] and the test answer.
pub fn guardrail(strata: &[Stratum]) -> Result<NonInferiority, StatsError> {
    let contrasts = Contrasts::of(strata)?;
    let worse_by = contrasts.at(1.0).value;
    of_distance(
        ERROR_RATE_MARGIN - worse_by,
        contrasts.se_unpooled(),
        GUARDRAIL_ALPHA,
    )
}

/// Units that the arms need to find a relative `lift` with [`POWER`] at a two-sided level of 1 − [`CONFIDENCE`] over the
/// number of treatments, with the control's value and spread as they are observed, where the treatment gets `ratio` times
/// as many units as the control.
///
/// # Errors
/// [`StatsError`] where the control's value, or its spread, is not known yet.
pub fn planned_units(
    metric: Metric,
    control: &Moments,
    lift: f64,
    treatments: usize,
    ratio: f64,
) -> Result<SampleSize, StatsError> {
    let observed = control.of_metric(metric)?;
    let baseline = match observed.ok_or(StatsError::NotEnoughData)? {
        MetricMoments::Proportion(proportion) => Baseline::Proportion(proportion.rate()?),
        MetricMoments::Mean(mean) => {
            let summary = mean.summary()?;
            Baseline::Mean {
                mean: summary.mean(),
                sd: summary.variance().sqrt(),
            }
        }
        MetricMoments::Ratio(ratio) => {
            let summary = ratio.summary()?;
            Baseline::Mean {
                mean: summary.ratio(),
                sd: (summary.se2() * summary.n() as f64).sqrt(),
            }
        }
    };
    let level = Level::new((1.0 - CONFIDENCE) / treatments as f64, Sides::Two)?;
    sample_size(baseline, lift, level, POWER, ratio)
}

/// Units per variant of one epoch, and the weights that were in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EpochSplit {
    /// Units by variant.
    pub counts: Vec<f64>,
    /// Weights of the same variants.
    pub weights: Vec<f64>,
}

/// Anytime-valid p-value of "the split is the planned one": the multinomial e-process, epochs multiplied.
///
/// # Errors
/// As [`split_evidence`].
pub fn split_p_value(epochs: &[EpochSplit]) -> Result<f64, StatsError> {
    Ok((-split_evidence(epochs)?).exp().min(1.0))
}

/// ln e against "the split is the planned one": the multinomial e-process, epochs multiplied.
///
/// # Errors
/// [`StatsError::InvalidInput`] for counts and weights that are no numbers from 0 on;
/// [`StatsError::UnexpectedUsers`] for units in a variant without weight; [`StatsError::NotEnoughData`] without units.
pub fn split_evidence(epochs: &[EpochSplit]) -> Result<f64, StatsError> {
    let mut ln_e = 0.0;
    let mut units = 0.0;
    for epoch in epochs {
        let pairs = || epoch.counts.iter().zip(&epoch.weights);
        for number in epoch.counts.iter().chain(&epoch.weights) {
            if !(number.is_finite() && *number >= 0.0) {
                return Err(StatsError::InvalidInput);
            }
        }
        if pairs().any(|(count, weight)| *count > 0.0 && *weight <= 0.0) {
            return Err(StatsError::UnexpectedUsers);
        }
        let weighted: Vec<(f64, f64)> = pairs()
            .filter(|(_, weight)| **weight > 0.0)
            .map(|(count, weight)| (*count, *weight))
            .collect();
        let counts: Vec<f64> = weighted.iter().map(|(count, _)| *count).collect();
        let weights: Vec<f64> = weighted.iter().map(|(_, weight)| *weight).collect();
        units += counts.iter().sum::<f64>();
        if counts.len() > 1 {
            ln_e += multinomial(&counts, &weights, SPLIT_CONCENTRATION)?.ln_e;
        }
    }
    if units > 0.0 {
        Ok(ln_e)
    } else {
        Err(StatsError::NotEnoughData)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::Method;

    fn rates(units: i64, purchases: i64) -> Moments {
        Moments {
            units,
            units_with: BTreeMap::from([(EventType::Purchase, purchases)]),
            ..Moments::default()
        }
    }

    fn even<'a>(control: &'a Moments, treatment: &'a Moments) -> EpochArms<'a> {
        EpochArms {
            control,
            treatment,
            treatment_share: 0.5,
        }
    }

    #[test]
    fn one_epoch_has_every_figure() {
        let (a, b) = (rates(10_000, 500), rates(10_000, 600));
        let reading = read(Metric::ConversionRate, &[even(&a, &b)]);
        let fixed = reading.fixed.unwrap();
        assert!((fixed.lift.value.unwrap() - 0.2).abs() < 1e-12);
        let anytime = reading.anytime.unwrap();
        let fixed_interval = fixed.lift.interval.unwrap();
        assert!(anytime.lift.lower < fixed_interval.lower);
        assert!(anytime.lift.upper > fixed_interval.upper);
        let bayesian = reading.bayesian.unwrap();
        assert!((bayesian.chance_to_beat_control - (1.0 - fixed.p_value / 2.0)).abs() < 1e-3);
        assert!(bayesian.expected_loss < 1e-5);
    }

    #[test]
    fn epochs_are_compared_within_and_never_pooled() {
        // A sale begins with the change of weights: pooled, the treatment would win.
        let before = [rates(9_000, 450), rates(1_000, 50)];
        let sale = [rates(5_000, 1_000), rates(5_000, 1_000)];
        let epochs = [even(&before[0], &before[1]), even(&sale[0], &sale[1])];
        let reading = read(Metric::ConversionRate, &epochs);
        let fixed = reading.fixed.unwrap();
        assert_eq!(fixed.method, Method::StratifiedZ);
        assert!(fixed.p_value > 0.999 && fixed.difference.abs() < 1e-12);
        let (difference, lift) = (
            fixed.difference_interval.unwrap(),
            fixed.lift.interval.unwrap(),
        );
        assert!(difference.lower < 0.0 && difference.upper > 0.0);
        assert!(lift.lower < 0.0 && lift.upper > 0.0);
        assert!(reading.stratified.unwrap().z.abs() < 1e-9);
        let chance = reading.bayesian.unwrap().chance_to_beat_control;
        assert!((chance - 0.5).abs() < 1e-9);
    }

    #[test]
    fn large_means_lose_nothing_of_a_small_difference() {
        // Two units in three have a billion, the third has something more.
        let arm = |more: i128| {
            let (value, billion) = (UnitTotal::PurchaseValue, 10_i128.pow(13));
            let third = billion + more * 10_000;
            let squares = 20 * billion * billion + 10 * third * third;
            Moments {
                units: 30,
                units_above_zero: BTreeMap::from([(value, 30)]),
                sums: BTreeMap::from([(value, (20 * billion + 10 * third).into())]),
                products: BTreeMap::from([((value, value), squares.into())]),
                ..Moments::default()
            }
        };
        let (control, treatment) = (arm(1), arm(2));
        let reading = read(Metric::RevenuePerUser, &[even(&control, &treatment)]);
        let (fixed, stratified) = (reading.fixed.unwrap(), reading.stratified.unwrap());
        for difference in [fixed.difference, stratified.effect] {
            assert!((3.0 * difference - 1.0).abs() < 1e-9, "{difference}");
        }
        for lift in [fixed.lift.value.unwrap(), stratified.lift.unwrap()] {
            assert!((lift * 3_000_000_001.0 - 1.0).abs() < 1e-9, "{lift}");
        }
    }

    #[test]
    fn guardrails_tell_proof_from_doubt() {
        let errors = |units: i64, failed: [i64; 2]| {
            let [control, treatment] = failed
                .map(|failed| ArmSummary::proportion(Proportion::new(failed, units).unwrap()));
            let stratum = Stratum {
                control,
                treatment,
                treatment_share: 0.5,
            };
            let found = guardrail(&[stratum]).unwrap();
            found.verdict.name()
        };
        assert_eq!(errors(100_000, [2_000, 2_000]), "non_inferior");
        assert_eq!(errors(100_000, [2_000, 4_000]), "inferior");
        assert_eq!(errors(100, [2, 2]), "inconclusive");
    }

    #[test]
    fn a_split_is_judged_by_the_weights_of_its_epoch() {
        let split = |counts: [f64; 2], weights: [f64; 2]| EpochSplit {
            counts: counts.to_vec(),
            weights: weights.to_vec(),
        };
        let fair = [
            split([9_000.0, 1_000.0], [9.0, 1.0]),
            split([5_000.0, 5_010.0], [1.0, 1.0]),
        ];
        assert!(split_p_value(&fair).unwrap() > 0.5);
        let off = [split([5_000.0, 5_500.0], [1.0, 1.0])];
        assert!(split_p_value(&off).unwrap() < 1e-3);
        for no_count in [f64::NEG_INFINITY, f64::INFINITY, f64::NAN, -1.0] {
            let broken = [split([no_count, 1.0], [1.0, 1.0])];
            assert_eq!(split_p_value(&broken), Err(StatsError::InvalidInput));
        }
        let stray = [split([10.0, 1.0], [1.0, 0.0])];
        assert_eq!(split_p_value(&stray), Err(StatsError::UnexpectedUsers));
        assert_eq!(split_p_value(&[]), Err(StatsError::NotEnoughData));
    }

    #[test]
    fn the_plan_is_that_of_the_observed_baseline() {
        let planned = |control: &Moments, treatments, ratio| {
            planned_units(Metric::ConversionRate, control, 0.1, treatments, ratio)
        };
        let control = rates(10_000, 1_000);
        let units = planned(&control, 1, 1.0).unwrap().n_a_ceil;
        // 14,749 an arm: Fleiss's formula without correction at 10 % and 11 %.
        assert!((units - 14_749.0).abs() < 2.0, "{units}");
        assert!(planned(&control, 2, 1.0).unwrap().n_a_ceil > 1.1 * units);
        // (v_a + 9 v_b) / (v_a + v_b) times as many in the larger arm of a split of 90/10.
        let uneven = planned(&control, 1, 1.0 / 9.0).unwrap();
        assert!((uneven.n_a_ceil / units - 5.168).abs() < 0.01, "{uneven:?}");
        assert!((uneven.n_b_ceil * 9.0 / uneven.n_a_ceil - 1.0).abs() < 1e-3);
        assert!(planned(&rates(0, 0), 1, 1.0).is_err());
    }
}
