//! Sums over the units that have a covariate, and what an adjusted comparison needs of them.
//!
//! A unit without a covariate stays in the analysis: for x it takes the mean of those that have one, the *centre*.
//! Seen from there its x is 0, so it adds to no sum of x, and sums over the units with a covariate are enough.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_traits::{Signed, Zero};

use super::{Moments, check_units, quotient};
use crate::decimal::UNITS_PER_ONE;
use crate::event::EventType;
use crate::metric::{Metric, MetricKind, UnitTotal};
use crate::stats::StatsError;

/// Sums over the units of a variant that have a covariate x, in 1/10,000. What is absent is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoveredMoments {
    /// Units with a covariate.
    pub units: i64,
    /// Σx.
    pub sum_x: BigInt,
    /// Σx².
    pub sum_xx: BigInt,
    /// Those of the units with at least one event of the type.
    pub units_with: BTreeMap<EventType, i64>,
    /// Σx over the units with at least one event of the type.
    pub x_with: BTreeMap<EventType, BigInt>,
    /// Σy of unit totals, each in its scale.
    pub sums: BTreeMap<UnitTotal, BigInt>,
    /// Σxy of unit totals.
    pub products: BTreeMap<UnitTotal, BigInt>,
}

/// The mean of the covariates, exact: what stands for x where a unit has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CovariateCentre {
    sum: BigInt,
    units: BigInt,
}

/// A metric y and the covariate x over all units of a variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CovariatePair {
    /// Units, those without a covariate included.
    pub n: i64,
    /// Mean of y.
    pub mean_y: f64,
    /// Mean of x minus the centre.
    pub mean_x: f64,
    /// Sample variance of y (divisor n − 1), as are the next two.
    pub var_y: f64,
    /// Sample variance of x.
    pub var_x: f64,
    /// Sample covariance.
    pub cov: f64,
}

/// Sums of y over all units and over those with a covariate, and Σxy over the latter.
struct Sums {
    y: BigInt,
    yy: BigInt,
    covered_y: BigInt,
    xy: BigInt,
    scale: u32,
}

impl CoveredMoments {
    /// Adds the units of another part.
    pub fn merge(&mut self, other: &Self) {
        self.units += other.units;
        self.sum_x += &other.sum_x;
        self.sum_xx += &other.sum_xx;
        for (event, units) in &other.units_with {
            *self.units_with.entry(*event).or_default() += units;
        }
        for (event, sum) in &other.x_with {
            *self.x_with.entry(*event).or_default() += sum;
        }
        for (total, sum) in &other.sums {
            *self.sums.entry(*total).or_default() += sum;
        }
        for (total, sum) in &other.products {
            *self.products.entry(*total).or_default() += sum;
        }
    }

    /// Their mean, as the centre for a comparison: of all variants together, or an effect on who has a covariate would
    /// pass for one on the metric. `None` where no unit has one.
    #[must_use]
    pub fn centre(&self) -> Option<CovariateCentre> {
        (self.units > 0).then(|| CovariateCentre {
            sum: self.sum_x.clone(),
            units: self.units.into(),
        })
    }
}

impl Moments {
    /// Metric and covariate over all units, each figure correctly rounded; `None` for ratios and quantiles, which are not
    /// adjusted. `covered` are the sums over those of the same units that have a covariate.
    ///
    /// # Errors
    /// [`StatsError::NotEnoughData`] below two units; [`StatsError::InvalidInput`] for sums that contradict each other.
    pub fn with_covariate(
        &self,
        covered: &CoveredMoments,
        centre: &CovariateCentre,
        metric: Metric,
    ) -> Result<Option<CovariatePair>, StatsError> {
        let Some(sums) = self.sums_for(covered, metric) else {
            return Ok(None);
        };
        check_units(self.units, 2, sums.scale)?;
        if !(0..=self.units).contains(&covered.units) {
            return Err(StatsError::InvalidInput);
        }
        pair(self.units, &sums, covered, centre).map(Some)
    }

    fn sums_for(&self, covered: &CoveredMoments, metric: Metric) -> Option<Sums> {
        match metric.kind() {
            MetricKind::Proportion { event } => {
                let with = |map: &BTreeMap<EventType, i64>| -> BigInt {
                    map.get(&event).copied().unwrap_or_default().into()
                };
                Some(Sums {
                    y: with(&self.units_with),
                    yy: with(&self.units_with),
                    covered_y: with(&covered.units_with),
                    xy: covered.x_with.get(&event).cloned().unwrap_or_default(),
                    scale: 1,
                })
            }
            MetricKind::Mean { of } => Some(Sums {
                y: self.sum(of),
                yy: self.product(of, of),
                covered_y: covered.sums.get(&of).cloned().unwrap_or_default(),
                xy: covered.products.get(&of).cloned().unwrap_or_default(),
                scale: of.scale(),
            }),
            MetricKind::Ratio { .. } | MetricKind::Quantile { .. } => None,
        }
    }
}

/// With the centre A/B, the sums are those of Bx − A: integers, to which units without a covariate add 0.
fn pair(
    units: i64,
    sums: &Sums,
    covered: &CoveredMoments,
    centre: &CovariateCentre,
) -> Result<CovariatePair, StatsError> {
    let (a, b) = (&centre.sum, &centre.units);
    let (n, c) = (BigInt::from(units), BigInt::from(covered.units));
    let x = b * &covered.sum_x - &c * a;
    let xx = b * b * &covered.sum_xx - BigInt::from(2) * a * b * &covered.sum_x + &c * a * a;
    let xy = b * &sums.xy - a * &sums.covered_y;
    let centred_xx = &n * &xx - &x * &x;
    let centred_yy = &n * &sums.yy - &sums.y * &sums.y;
    let centred_xy = &n * &xy - &x * &sums.y;
    let possible = !centred_xx.is_negative()
        && !centred_yy.is_negative()
        && !b.is_zero()
        && &centred_xy * &centred_xy <= &centred_xx * &centred_yy;
    if !possible {
        return Err(StatsError::InvalidInput);
    }
    let (scale_x, scale_y) = (b * UNITS_PER_ONE, BigInt::from(sums.scale));
    let degrees = &n * (&n - 1_u32);
    Ok(CovariatePair {
        n: units,
        mean_y: quotient(&sums.y, &(&n * &scale_y)),
        mean_x: quotient(&x, &(&n * &scale_x)),
        var_y: quotient(&centred_yy, &(&degrees * &scale_y * &scale_y)),
        var_x: quotient(&centred_xx, &(&degrees * &scale_x * &scale_x)),
        cov: quotient(&centred_xy, &(&degrees * &scale_x * &scale_y)),
    })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "exact results are what is tested")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A unit: its covariate, if it has one, and its revenue, both in 1/10,000.
    type Unit = (Option<i64>, i64);

    fn sums(units: &[Unit]) -> (Moments, CoveredMoments) {
        let (mut all, mut covered) = (Moments::default(), CoveredMoments::default());
        let value = UnitTotal::PurchaseValue;
        for (x, y) in units {
            let wide = i128::from(*y);
            all.units += 1;
            *all.units_with.entry(EventType::Purchase).or_default() += i64::from(*y > 0);
            *all.sums.entry(value).or_default() += wide;
            *all.products.entry((value, value)).or_default() += wide * wide;
            if let Some(x) = x {
                let (x, with) = (i128::from(*x), i128::from(*y > 0));
                covered.units += 1;
                covered.sum_x += x;
                covered.sum_xx += x * x;
                *covered.units_with.entry(EventType::Purchase).or_default() += i64::from(*y > 0);
                *covered.x_with.entry(EventType::Purchase).or_default() += x * with;
                *covered.sums.entry(value).or_default() += wide;
                *covered.products.entry(value).or_default() += x * wide;
            }
        }
        (all, covered)
    }

    /// Mean and sample moments of values and covariates, all times `scale` of the covariates, in integers that fit.
    fn direct(units: &[Unit], centre: (i64, i64), y_of: impl Fn(i64) -> i64) -> [BigInt; 5] {
        let (sum, count) = centre;
        let n = i128::try_from(units.len()).unwrap();
        let shifted =
            |x: Option<i64>| x.map_or(0, |x| i128::from(x) * i128::from(count) - i128::from(sum));
        let pairs: Vec<(i128, i128)> = units
            .iter()
            .map(|(x, y)| (shifted(*x), i128::from(y_of(*y))))
            .collect();
        let total = |f: &dyn Fn(&(i128, i128)) -> i128| pairs.iter().map(f).sum::<i128>();
        let (x, y) = (total(&|p| p.0), total(&|p| p.1));
        // n times the deviation from the mean is whole.
        let deviations = |f: &dyn Fn(i128, i128) -> i128| {
            pairs
                .iter()
                .map(|(a, b)| f(n * a - x, n * b - y))
                .sum::<i128>()
        };
        [
            x,
            y,
            deviations(&|a, _| a * a),
            deviations(&|_, b| b * b),
            deviations(&|a, b| a * b),
        ]
        .map(BigInt::from)
    }

    proptest! {
        #[test]
        fn figures_are_those_of_the_units_with_the_mean_put_in(
            units in prop::collection::vec((prop::option::of(-90_000_i64..90_000), 0_i64..90_000), 2..40)
        ) {
            let (all, covered) = sums(&units);
            let Some(centre) = covered.centre() else { return Ok(()) };
            let n = BigInt::from(units.len());
            let sum: i64 = units.iter().filter_map(|unit| unit.0).sum();
            for (metric, scale) in [(Metric::RevenuePerUser, 10_000), (Metric::ConversionRate, 1)] {
                let y_of = |y: i64| if scale == 1 { i64::from(y > 0) } else { y };
                let [x, y, xx, yy, xy] = direct(&units, (sum, covered.units), y_of);
                let pair = all.with_covariate(&covered, &centre, metric).unwrap().unwrap();
                let scale_x = BigInt::from(10_000 * covered.units);
                // Deviations carry n each, so squares carry n².
                let divisor = &n * &n * (&n - 1);
                prop_assert_eq!(pair.n, all.units);
                prop_assert_eq!(pair.mean_x, quotient(&x, &(&n * &scale_x)));
                prop_assert_eq!(pair.mean_y, quotient(&y, &(&n * scale)));
                prop_assert_eq!(pair.var_x, quotient(&xx, &(&divisor * &scale_x * &scale_x)));
                prop_assert_eq!(pair.var_y, quotient(&yy, &(&divisor * scale * scale)));
                prop_assert_eq!(pair.cov, quotient(&xy, &(&divisor * &scale_x * scale)));
            }
        }

        #[test]
        fn parts_make_up_the_whole(
            units in prop::collection::vec((prop::option::of(any::<i64>()), 0..i64::MAX), 0..20), at in 0_usize..20
        ) {
            let (one, other) = units.split_at(at.min(units.len()));
            let (mut all, mut covered) = sums(one);
            let (more, more_covered) = sums(other);
            all.merge(&more);
            covered.merge(&more_covered);
            let whole = sums(&units);
            prop_assert_eq!(covered.centre(), whole.1.centre());
            if let Some(centre) = covered.centre() {
                prop_assert_eq!(
                    all.with_covariate(&covered, &centre, Metric::RevenuePerUser),
                    whole.0.with_covariate(&whole.1, &centre, Metric::RevenuePerUser)
                );
            }
        }
    }

    #[test]
    fn a_covariate_far_from_zero_keeps_its_digits() {
        // A trillion, and ten-thousandths around it: floats that are squared there know nothing of these.
        let trillion = 10_000_000_000_000_000;
        let units: Vec<Unit> = (0..1_000)
            .map(|n| (Some(trillion + n % 2), n % 2))
            .collect();
        let (all, covered) = sums(&units);
        let centre = covered.centre().unwrap();
        let pair = all.with_covariate(&covered, &centre, Metric::RevenuePerUser);
        let pair = pair.unwrap().unwrap();
        assert_eq!(pair.mean_x, 0.0);
        assert_eq!((pair.var_x, pair.cov), (pair.var_y, pair.var_y));
        assert_eq!(pair.var_y, 250.0 / 99_900_000_000.0);
    }

    #[test]
    fn units_without_a_covariate_stay_and_vary_in_the_metric_alone() {
        let (all, covered) = sums(&[(Some(30_000), 10_000), (None, 0), (None, 50_000)]);
        let centre = covered.centre().unwrap();
        let pair = all.with_covariate(&covered, &centre, Metric::RevenuePerUser);
        let pair = pair.unwrap().unwrap();
        assert_eq!((pair.n, pair.mean_y, pair.var_y), (3, 2.0, 7.0));
        assert_eq!((pair.mean_x, pair.var_x, pair.cov), (0.0, 0.0, 0.0));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (all, covered) = sums(&[(Some(30_000), 10_000), (Some(10_000), 0)]);
        let centre = covered.centre().unwrap();
        let of = |all: &Moments, covered: &CoveredMoments, metric| {
            all.with_covariate(covered, &centre, metric)
        };
        assert_eq!(of(&all, &covered, Metric::ClickThroughRate), Ok(None));
        assert_eq!(of(&all, &covered, Metric::P95LatencyMs), Ok(None));
        assert_eq!(CoveredMoments::default().centre(), None);
        let fewer = Moments {
            units: 1,
            ..all.clone()
        };
        assert_eq!(
            of(&fewer, &covered, Metric::RevenuePerUser),
            Err(StatsError::NotEnoughData)
        );
        let more = CoveredMoments {
            units: 3,
            ..covered.clone()
        };
        let flat = CoveredMoments {
            sum_xx: BigInt::zero(),
            ..covered.clone()
        };
        let mut steep = covered.clone();
        steep
            .products
            .insert(UnitTotal::PurchaseValue, BigInt::from(10).pow(12));
        for impossible in [more, flat, steep] {
            assert_eq!(
                of(&all, &impossible, Metric::RevenuePerUser),
                Err(StatsError::InvalidInput),
                "{impossible:?}"
            );
        }
    }
}
