//! From the exact sums of variants to the figures of a report: values with intervals, and comparisons with the control.
//!
//! Proportions are tested with the pooled z test, means with Welch's t, ratios with the delta method. Everything is
//! two-sided at 95 % with a fixed horizon: looking at it again and again errs more often than 5 %.

use crate::decision::evidence::{ArmSummary, Contrasts, Stratum, stratified};
use crate::decision::lift::fixed_interval;
use crate::metric::{Metric, MetricKind};
use crate::moments::{MetricMoments, Moments};
use crate::stats::lift::{Estimate, relative_lift};
use crate::stats::mean::welch;
use crate::stats::proportion::{Proportion, two_proportions, wilson};
use crate::stats::ratio::compare_ratios;
use crate::stats::special::{norm_isf, norm_ln_two_sided, norm_two_sided, t_isf};
use crate::stats::{Interval, StatsError};

/// Confidence of all intervals.
pub const CONFIDENCE: f64 = 0.95;
/// A control whose value is less certain than this (squared quantile times squared relative error) gets Fieller's
/// interval of the lift: the others suppose that it is as good as known.
const WEAK_CONTROL: f64 = 0.05;

/// A metric of one variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// The rate (a fraction), mean or ratio.
    pub value: f64,
    /// Its 95 % interval; `None` where the variance is not known (one unit) or 0 (all units alike), because an interval
    /// without width would claim certainty.
    pub interval: Option<Interval>,
}

/// A treatment against the control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Treatment minus control.
    pub difference: f64,
    /// 95 % interval of the difference.
    pub difference_interval: Option<Interval>,
    /// Standard error of the difference that its interval is made with.
    pub standard_error: Option<f64>,
    /// Relative change, with its interval.
    pub lift: Lift,
    /// Which test.
    pub method: Method,
    /// Its statistic: z or t.
    pub statistic: f64,
    /// Degrees of freedom, for t.
    pub degrees_of_freedom: Option<f64>,
    /// Two-sided p-value.
    pub p_value: f64,
    /// Its natural logarithm, right where the p-value itself is too small for a float.
    pub ln_p_value: f64,
}

/// A relative change. No metric is negative, so none lies below −1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lift {
    /// The change, a fraction (0.1 is plus ten percent).
    pub value: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
    /// How the interval was found.
    pub method: LiftMethod,
    /// Why there is no interval: [`StatsError::NonPositiveBaseline`] where the control's value is not above 0, or cannot be
    /// told from 0.
    pub missing: Option<StatsError>,
}

/// How the interval of a lift is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiftMethod {
    /// On the logarithm of the ratio.
    LogRatio,
    /// Linearised.
    Delta,
    /// Fieller's, for a control whose value is uncertain.
    Fieller,
    /// All lifts that their own score test does not reject.
    Score,
}

impl LiftMethod {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogRatio => "log_ratio",
            Self::Delta => "delta",
            Self::Fieller => "fieller",
            Self::Score => "score",
        }
    }
}

impl Lift {
    const fn none(method: LiftMethod, missing: StatsError) -> Self {
        Self {
            value: None,
            interval: None,
            method,
            missing: Some(missing),
        }
    }

    /// From limits that may be infinite.
    fn new(value: f64, interval: Option<Interval>, method: LiftMethod) -> Self {
        let interval = interval.filter(|limits| limits.upper.is_finite());
        Self {
            value: Some(value.max(-1.0)),
            interval: interval.map(|limits| Interval {
                lower: limits.lower.max(-1.0),
                ..limits
            }),
            method,
            missing: interval
                .is_none()
                .then_some(StatsError::NonPositiveBaseline),
        }
    }

    /// By the score test, epochs stratified.
    fn by_score(strata: &[Stratum]) -> Self {
        let lift = Contrasts::of(strata).map(|contrasts| contrasts.lift());
        match (lift, fixed_interval(strata, CONFIDENCE)) {
            (Ok(Some(lift)), Ok(limits)) => Self::new(lift, Some(limits), LiftMethod::Score),
            (_, Err(error)) | (Err(error), _) => Self::none(LiftMethod::Score, error),
            (Ok(None), _) => Self::none(LiftMethod::Score, StatsError::NonPositiveBaseline),
        }
    }
}

/// Tests that reports use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Two-proportion z, pooled variance.
    TwoProportionZ,
    /// Welch's t.
    WelchT,
    /// Delta method on unit totals.
    DeltaMethod,
    /// The statistic stratified by epoch, where weights changed.
    StratifiedZ,
}

impl Method {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoProportionZ => "two_proportion_z",
            Self::WelchT => "welch_t",
            Self::DeltaMethod => "delta_method",
            Self::StratifiedZ => "stratified_z",
        }
    }
}

/// The metrics that follow from sums, in the order of reports. The latency quantile does not.
pub fn reported() -> impl Iterator<Item = Metric> {
    Metric::ALL
        .iter()
        .copied()
        .filter(|metric| !matches!(metric.kind(), MetricKind::Quantile { .. }))
}

/// A metric of one variant.
///
/// # Errors
/// [`StatsError::NotEnoughData`] where it is not defined (no units, a denominator of 0), and what the methods return.
pub fn value(moments: &Moments, metric: Metric) -> Result<Value, StatsError> {
    match moments
        .of_metric(metric)?
        .ok_or(StatsError::NotEnoughData)?
    {
        MetricMoments::Proportion(proportion) => Ok(Value {
            value: proportion.rate()?,
            interval: Some(wilson(proportion, CONFIDENCE)?),
        }),
        MetricMoments::Mean(mean) => {
            let value = mean.mean()?;
            let interval = mean.summary().ok().and_then(|summary| {
                let degrees = f64::from(u32::try_from(summary.n()).unwrap_or(u32::MAX)) - 1.0;
                around(
                    value,
                    t_isf((1.0 - CONFIDENCE) / 2.0, degrees),
                    summary.se2().ok()?,
                )
            });
            Ok(Value { value, interval })
        }
        MetricMoments::Ratio(ratio) => {
            let summary = ratio.summary()?;
            let interval = around(
                summary.ratio(),
                norm_isf((1.0 - CONFIDENCE) / 2.0),
                summary.se2(),
            );
            Ok(Value {
                value: summary.ratio(),
                interval,
            })
        }
    }
}

fn around(centre: f64, quantile: f64, se2: f64) -> Option<Interval> {
    let half = quantile * se2.sqrt();
    (half.is_finite() && half > 0.0).then_some(Interval {
        lower: centre - half,
        upper: centre + half,
    })
}

/// A treatment against the control.
///
/// # Errors
/// A [`StatsError`] where the comparison is not defined: then there is no p-value, rather than a neutral one.
pub fn compare(
    control: &Moments,
    treatment: &Moments,
    metric: Metric,
) -> Result<Comparison, StatsError> {
    let (a, b) = (control.of_metric(metric)?, treatment.of_metric(metric)?);
    match (
        a.ok_or(StatsError::NotEnoughData)?,
        b.ok_or(StatsError::NotEnoughData)?,
    ) {
        (MetricMoments::Proportion(a), MetricMoments::Proportion(b)) => {
            let test = two_proportions(a, b, CONFIDENCE)?;
            Ok(Comparison {
                difference: test.diff,
                difference_interval: test.interval,
                standard_error: test.unpooled.map(|test| test.se),
                lift: lift_of_rates(a, b)?,
                method: Method::TwoProportionZ,
                statistic: test.pooled.z,
                degrees_of_freedom: None,
                p_value: test.pooled.p.two_sided,
                ln_p_value: test.pooled.p.ln_two_sided,
            })
        }
        (MetricMoments::Mean(a), MetricMoments::Mean(b)) => {
            let (a, b) = (a.summary()?, b.summary()?);
            let test = welch(&a, &b, CONFIDENCE)?;
            let (a, b) = (Estimate::of_mean(&a)?, Estimate::of_mean(&b)?);
            Ok(Comparison {
                difference: test.diff,
                difference_interval: Some(test.interval),
                standard_error: Some(test.se),
                lift: lift(&a, &b, LiftMethod::LogRatio),
                method: Method::WelchT,
                statistic: test.t,
                degrees_of_freedom: Some(test.df),
                p_value: test.p.two_sided,
                ln_p_value: test.p.ln_two_sided,
            })
        }
        (MetricMoments::Ratio(a), MetricMoments::Ratio(b)) => {
            let (a, b) = (a.summary()?, b.summary()?);
            let test = compare_ratios(&a, &b, CONFIDENCE)?;
            let (a, b) = (
                Estimate::new(a.ratio(), a.se2())?,
                Estimate::new(b.ratio(), b.se2())?,
            );
            Ok(Comparison {
                difference: test.diff,
                difference_interval: Some(test.interval),
                standard_error: Some(test.se),
                lift: lift(&a, &b, LiftMethod::Delta),
                method: Method::DeltaMethod,
                statistic: test.z,
                degrees_of_freedom: None,
                p_value: test.p.two_sided,
                ln_p_value: test.p.ln_two_sided,
            })
        }
        _ => Err(StatsError::InvalidInput),
    }
}

/// A treatment against the control over several epochs: the test is that of the stratified statistic, the interval of the
/// difference does not pool the arms, that of the lift holds every lift that its own test does not reject. No epoch is
/// added to another.
///
/// # Errors
/// What [`stratified`] answers.
pub fn compare_strata(strata: &[Stratum]) -> Result<Comparison, StatsError> {
    let found = stratified(strata)?;
    let se = Contrasts::of(strata)?.se_unpooled();
    let half = norm_isf((1.0 - CONFIDENCE) / 2.0) * se;
    let around = Interval {
        lower: found.effect - half,
        upper: found.effect + half,
    };
    Ok(Comparison {
        difference: found.effect,
        difference_interval: (half > 0.0).then_some(around),
        standard_error: (se > 0.0).then_some(se),
        lift: Lift::by_score(strata),
        method: Method::StratifiedZ,
        statistic: found.z,
        degrees_of_freedom: None,
        p_value: norm_two_sided(found.z),
        ln_p_value: norm_ln_two_sided(found.z),
    })
}

/// On the logarithm; where nobody converts in the treatment there is none, and the score test gives the limits.
fn lift_of_rates(a: Proportion, b: Proportion) -> Result<Lift, StatsError> {
    if b.successes() > 0 {
        let (a, b) = (
            Estimate::new(a.rate()?, a.se2()?)?,
            Estimate::new(b.rate()?, b.se2()?)?,
        );
        return Ok(by_method(&a, &b, LiftMethod::LogRatio));
    }
    let stratum = Stratum {
        control: ArmSummary::proportion(a),
        treatment: ArmSummary::proportion(b),
        treatment_share: 0.5,
    };
    Ok(Lift::by_score(&[stratum]))
}

/// The lift of means or ratios: by `method` where the control is well known, else by Fieller, whose interval may have no
/// end.
pub(crate) fn lift(a: &Estimate, b: &Estimate, method: LiftMethod) -> Lift {
    let quantile = norm_isf((1.0 - CONFIDENCE) / 2.0);
    let weakness = (quantile / a.mean()).powi(2) * a.se2();
    let is_weak = a.mean() > 0.0 && weakness > WEAK_CONTROL;
    by_method(a, b, if is_weak { LiftMethod::Fieller } else { method })
}

fn by_method(a: &Estimate, b: &Estimate, method: LiftMethod) -> Lift {
    let found = match relative_lift(a, b, CONFIDENCE) {
        Ok(found) => found,
        Err(error) => return Lift::none(method, error),
    };
    let lift = found.delta.lift;
    match (method, found.log_ratio) {
        (LiftMethod::Fieller, _) => Lift::new(lift, found.fieller, LiftMethod::Fieller),
        (LiftMethod::LogRatio, Some(log)) => Lift::new(lift, Some(log.interval), method),
        _ => Lift::new(lift, Some(found.delta.interval), LiftMethod::Delta),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::EventType;
    use crate::metric::UnitTotal;

    /// Units of which `clicks` have one impression and one click, and the others one impression.
    fn moments(units: i64, clicks: i64) -> Moments {
        Moments {
            units,
            units_with: BTreeMap::from([(EventType::Click, clicks)]),
            units_above_zero: BTreeMap::new(),
            sums: BTreeMap::from([
                (UnitTotal::Clicks, clicks.into()),
                (UnitTotal::Impressions, units.into()),
            ]),
            products: BTreeMap::from([
                ((UnitTotal::Clicks, UnitTotal::Clicks), clicks.into()),
                (
                    (UnitTotal::Impressions, UnitTotal::Impressions),
                    units.into(),
                ),
                ((UnitTotal::Impressions, UnitTotal::Clicks), clicks.into()),
            ]),
        }
    }

    #[test]
    fn a_proportion_and_a_ratio_of_the_same_data_agree() {
        let (a, b) = (moments(10_000, 46), moments(10_000, 69));
        let proportion = compare(&a, &b, Metric::ClickConversionRate).unwrap();
        let ratio = compare(&a, &b, Metric::ClickThroughRate).unwrap();
        assert!((proportion.difference - 0.0023).abs() < 1e-15);
        assert!((proportion.difference - ratio.difference).abs() < 1e-15);
        assert!((proportion.p_value - ratio.p_value).abs() < 1e-4);
        assert_eq!(
            (proportion.method, ratio.method),
            (Method::TwoProportionZ, Method::DeltaMethod)
        );
    }

    #[test]
    fn what_is_not_defined_is_an_error_and_never_a_neutral_number() {
        let (none, some) = (moments(0, 0), moments(100, 0));
        assert_eq!(
            value(&none, Metric::ClickConversionRate),
            Err(StatsError::NotEnoughData)
        );
        assert_eq!(
            compare(&some, &some, Metric::ClickConversionRate),
            Err(StatsError::ZeroVariance)
        );
        assert!(value(&some, Metric::CartToPurchaseRate).is_err());
    }

    /// Units of which `buyers` spend 100 each and the others nothing.
    fn revenue(units: i64, buyers: i64) -> Moments {
        let value = 100 * 10_000;
        Moments {
            units,
            units_above_zero: BTreeMap::from([(UnitTotal::PurchaseValue, buyers)]),
            sums: BTreeMap::from([(UnitTotal::PurchaseValue, (value * buyers).into())]),
            products: BTreeMap::from([(
                (UnitTotal::PurchaseValue, UnitTotal::PurchaseValue),
                (i128::from(value) * i128::from(value) * i128::from(buyers)).into(),
            )]),
            ..Moments::default()
        }
    }

    #[test]
    fn a_weak_control_gets_fiellers_interval_or_none() {
        let lift = |buyers| {
            let (a, b) = (revenue(1_000, buyers), revenue(1_000, 20));
            compare(&a, &b, Metric::RevenuePerUser).unwrap().lift
        };
        // Three buyers: the control's mean cannot be told from 0 by a normal quantile.
        let unknown = lift(3);
        assert_eq!(unknown.interval, None);
        assert_eq!(unknown.missing, Some(StatsError::NonPositiveBaseline));
        assert!(unknown.value.is_some());
        let weak = lift(20);
        assert_eq!(weak.method, LiftMethod::Fieller);
        // 1.96² · (1/20)(1 − 0.02) = 0.188 of the control's square: limits (1 ± √(g (2 − g)))/(1 − g).
        let limits = weak.interval.unwrap();
        assert!(
            (limits.lower + 0.487).abs() < 0.005 && (limits.upper - 0.951).abs() < 0.005,
            "{limits:?}"
        );
        assert_eq!(lift(200).method, LiftMethod::LogRatio);
    }

    #[test]
    fn nobody_in_the_treatment_is_minus_one_hundred_percent_with_an_upper_limit() {
        let (a, b) = (moments(1_000, 40), moments(1_000, 0));
        let lift = compare(&a, &b, Metric::ClickConversionRate).unwrap().lift;
        assert_eq!((lift.value, lift.method), (Some(-1.0), LiftMethod::Score));
        let limits = lift.interval.unwrap();
        assert!(limits.lower <= -1.0, "{limits:?}");
        // Miettinen and Nurminen's limits, by bisection of the score.
        for ((n_a, x_a), (n_b, x_b), upper) in [
            ((1_000, 40), (1_000, 0), -0.904_300),
            ((261, 27), (239, 0), -0.846_808),
        ] {
            let (a, b) = (moments(n_a, x_a), moments(n_b, x_b));
            let lift = compare(&a, &b, Metric::ClickConversionRate).unwrap().lift;
            let found = lift.interval.unwrap().upper;
            assert!((found - upper).abs() < 1e-4, "{found}");
        }
        // One unit that did not convert says next to nothing.
        let lift = compare(
            &moments(499, 38),
            &moments(1, 0),
            Metric::ClickConversionRate,
        );
        let upper = lift.unwrap().lift.interval.map(|limits| limits.upper);
        assert!(upper.is_none_or(|upper| upper > 3.0), "{upper:?}");
    }

    #[test]
    fn a_p_value_beyond_floats_has_its_logarithm() {
        let (a, b) = (moments(1_000_000, 100_000), moments(1_000_000, 200_000));
        let found = compare(&a, &b, Metric::ClickConversionRate).unwrap();
        assert!(found.p_value < 1e-300);
        assert!(
            (-30_000.0..-10_000.0).contains(&found.ln_p_value),
            "{}",
            found.ln_p_value
        );
    }
}
