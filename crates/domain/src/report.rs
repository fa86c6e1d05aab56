//! From the exact sums of variants to the figures of a report: values with intervals, and comparisons with the control.
//!
//! Proportions are tested with the pooled z test, means with Welch's t, ratios with the delta method. Everything is
//! two-sided at 95 % with a fixed horizon: looking at it again and again errs more often than 5 %.

use crate::metric::{Metric, MetricKind};
use crate::moments::{MetricMoments, Moments};
use crate::stats::lift::{Estimate, RelativeLift, relative_lift};
use crate::stats::mean::welch;
use crate::stats::proportion::{two_proportions, wilson};
use crate::stats::ratio::{RatioSummary, compare_ratios};
use crate::stats::special::{norm_isf, t_isf};
use crate::stats::{Interval, StatsError};

/// Confidence of all intervals.
pub const CONFIDENCE: f64 = 0.95;
/// A control's ratio is weak below so many standard errors: about 25 units with something in the numerator.
const WEAK_BELOW: f64 = 5.0;

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
    /// Relative change, a fraction (0.1 is plus ten percent).
    pub lift: Option<f64>,
    /// 95 % interval of the lift.
    pub lift_interval: Option<Interval>,
    /// Which test.
    pub method: Method,
    /// Its statistic: z or t.
    pub statistic: f64,
    /// Degrees of freedom, for t.
    pub degrees_of_freedom: Option<f64>,
    /// Two-sided p-value.
    pub p_value: f64,
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
}

impl Method {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoProportionZ => "two_proportion_z",
            Self::WelchT => "welch_t",
            Self::DeltaMethod => "delta_method",
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
            let estimates = (
                Estimate::new(test.rate_a, a.se2()?),
                Estimate::new(test.rate_b, b.se2()?),
            );
            let (lift, lift_interval) = lift(estimates);
            Ok(Comparison {
                difference: test.diff,
                difference_interval: test.interval,
                lift,
                lift_interval,
                method: Method::TwoProportionZ,
                statistic: test.pooled.z,
                degrees_of_freedom: None,
                p_value: test.pooled.p.two_sided,
            })
        }
        (MetricMoments::Mean(a), MetricMoments::Mean(b)) => {
            let (a, b) = (a.summary()?, b.summary()?);
            let test = welch(&a, &b, CONFIDENCE)?;
            let (lift, lift_interval) = lift((
                Estimate::new(a.mean(), a.se2()?),
                Estimate::new(b.mean(), b.se2()?),
            ));
            Ok(Comparison {
                difference: test.diff,
                difference_interval: Some(test.interval),
                lift,
                lift_interval,
                method: Method::WelchT,
                statistic: test.t,
                degrees_of_freedom: Some(test.df),
                p_value: test.p.two_sided,
            })
        }
        (MetricMoments::Ratio(a), MetricMoments::Ratio(b)) => {
            let (a, b) = (a.summary()?, b.summary()?);
            let test = compare_ratios(&a, &b, CONFIDENCE)?;
            let delta = test.lift.map(|lift| lift.interval);
            Ok(Comparison {
                difference: test.diff,
                difference_interval: Some(test.interval),
                lift: test.lift.map(|lift| lift.lift),
                lift_interval: if is_weak(&a) { fieller(&a, &b) } else { delta },
                method: Method::DeltaMethod,
                statistic: test.z,
                degrees_of_freedom: None,
                p_value: test.p.two_sided,
            })
        }
        _ => Err(StatsError::InvalidInput),
    }
}

/// Whether a control's ratio is so near to 0, in its standard errors, that the delta method's interval of a lift is not to
/// be trusted.
fn is_weak(control: &RatioSummary) -> bool {
    control.ratio() < WEAK_BELOW * control.se2().sqrt()
}

/// Fieller's interval of a lift; nothing where it is unbounded.
fn fieller(a: &RatioSummary, b: &RatioSummary) -> Option<Interval> {
    let estimate = |of: &RatioSummary| Estimate::new(of.ratio(), of.se2()).ok();
    let lift = relative_lift(&estimate(a)?, &estimate(b)?, CONFIDENCE);
    lift.ok()?.fieller
}

/// Lift with the log-ratio interval where both means are above 0, else the delta method's; nothing where the control's
/// mean is not above 0.
fn lift(
    (a, b): (Result<Estimate, StatsError>, Result<Estimate, StatsError>),
) -> (Option<f64>, Option<Interval>) {
    let (Ok(a), Ok(b)) = (a, b) else {
        return (None, None);
    };
    match relative_lift(&a, &b, CONFIDENCE) {
        Ok(RelativeLift {
            delta,
            log_ratio: Some(log),
            ..
        }) => (Some(delta.lift), Some(log.interval)),
        Ok(RelativeLift { delta, .. }) => (Some(delta.lift), Some(delta.interval)),
        Err(_) => (None, None),
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
    fn lifts_over_a_weak_control_have_the_interval_of_fieller() {
        let lift = |control: i64| {
            let ratio = compare(
                &moments(1_000, control),
                &moments(1_000, 60),
                Metric::ClickThroughRate,
            );
            ratio.unwrap().lift_interval
        };
        // 100 conversions are ten standard errors: symmetric around −40 %.
        let strong = lift(100).unwrap();
        assert!(
            (0.5 * (strong.lower + strong.upper) + 0.4).abs() < 1e-12,
            "{strong:?}"
        );
        // Nine are three: the upper end lies farther from +567 %, as the control may be near 0.
        let weak = lift(9).unwrap();
        assert!(weak.lower > 0.0 && weak.upper > 2.0 * 5.67, "{weak:?}");
        // Two may be none at all, so any lift is possible.
        assert_eq!(lift(2), None);
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
}
