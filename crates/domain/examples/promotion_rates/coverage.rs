//! Whether intervals hold what they say, one run each.

use std::collections::BTreeMap;

use podium_domain::decision::anytime::anytime;
use podium_domain::decision::evidence::{ArmSummary, Stratum};
use podium_domain::decision::lift::fixed_interval;
use podium_domain::event::EventType;
use podium_domain::metric::Metric;
use podium_domain::moments::Moments;
use podium_domain::report::compare;
use podium_domain::stats::bayes::{BetaPrior, compare_rates};
use podium_domain::stats::cuped::{CovariateMoments, CovariateSums, Slope, compare_adjusted};
use podium_domain::stats::lift::{Estimate, relative_lift};
use podium_domain::stats::mean::{MeanSummary, welch};
use podium_domain::stats::proportion::{Proportion, two_proportions, wilson};
use podium_domain::stats::quantile::quantile;
use podium_domain::stats::ratio::{RatioSummary, compare_ratios};
use podium_domain::stats::{Interval, StatsError};
use podium_simulation::shop::{
    ClickShop, Clicks, HOURS_PER_DAY, Market, RateShop, Revenue, RevenueShop,
};
use podium_simulation::{Sample, Shop};

const CONFIDENCE: f64 = 0.95;
/// Units an arm of the comparisons at one look.
const UNITS: i64 = 2_000;

/// An interval that could not be computed covers nothing.
fn covers(interval: Result<Interval, StatsError>, truth: f64) -> bool {
    interval.is_ok_and(|interval| interval.lower <= truth && truth <= interval.upper)
}

fn rate(rate: f64, units: i64, sample: &mut Sample) -> Result<Proportion, StatsError> {
    Proportion::new(sample.binomial(units, rate), units)
}

pub(crate) fn of_a_rate(sample: &mut Sample) -> bool {
    let interval = rate(0.1, UNITS, sample).and_then(|arm| wilson(arm, CONFIDENCE));
    covers(interval, 0.1)
}

pub(crate) fn of_a_difference(sample: &mut Sample) -> bool {
    let (Ok(a), Ok(b)) = (rate(0.1, 20_000, sample), rate(0.105, 20_000, sample)) else {
        return false;
    };
    let interval = two_proportions(a, b, CONFIDENCE)
        .and_then(|test| test.interval.ok_or(StatsError::ZeroVariance));
    covers(interval, 0.005)
}

/// 25 conversions an arm are what a look needs, a rate of 0.5 % is low, and a tenth of the traffic is little.
pub(crate) fn of_a_lift_of_few(sample: &mut Sample) -> bool {
    covers(log_ratio([0.005, 0.006], [5_000, 5_000], sample), 0.2)
}

/// In one of eight experiments nobody converts in the treatment, and the report takes the score interval.
pub(crate) fn of_a_lift_of_none(sample: &mut Sample) -> bool {
    let mut arm = |rate: f64| Moments {
        units: 200,
        units_with: BTreeMap::from([(EventType::Purchase, sample.binomial(200, rate))]),
        ..Moments::default()
    };
    let found = compare(&arm(0.05), &arm(0.01), Metric::ConversionRate);
    let interval = found.map(|found| found.lift.interval);
    interval.is_ok_and(|limits| covers(limits.ok_or(StatsError::ZeroVariance), -0.8))
}

pub(crate) fn of_a_lift_unequal(sample: &mut Sample) -> bool {
    covers(log_ratio([0.1, 0.12], [9_000, 1_000], sample), 0.2)
}

/// An interval of a lift over two epochs with other rates and weights, by the score test.
pub(crate) fn of_a_stratified_lift(sample: &mut Sample) -> bool {
    let mut stratum = |rates: [f64; 2], units: [i64; 2]| {
        let mut arm = |arm: usize| rate(rates[arm], units[arm], sample).map(ArmSummary::proportion);
        Ok(Stratum {
            control: arm(0)?,
            treatment: arm(1)?,
            treatment_share: units[1] as f64 / (units[0] + units[1]) as f64,
        })
    };
    let strata: Result<Vec<_>, StatsError> = [
        stratum([0.1, 0.15], [1_600, 400]),
        stratum([0.2, 0.3], [1_000, 1_000]),
    ]
    .into_iter()
    .collect();
    let interval = strata.and_then(|strata| fixed_interval(&strata, CONFIDENCE));
    covers(interval, 0.5)
}

fn log_ratio(
    rates: [f64; 2],
    units: [i64; 2],
    sample: &mut Sample,
) -> Result<Interval, StatsError> {
    let mut arm = |arm: usize| {
        let arm = rate(rates[arm], units[arm], sample)?;
        Estimate::new(arm.rate()?, arm.se2()?)
    };
    let lift = relative_lift(&arm(0)?, &arm(1)?, CONFIDENCE)?;
    Ok(lift.log_ratio.ok_or(StatsError::NotEnoughData)?.interval)
}

/// Both lift intervals of rates: by the log ratio, and Fieller's.
fn lift(sample: &mut Sample) -> Option<(Interval, Interval)> {
    let mut arm = |truth| {
        let arm = rate(truth, UNITS, sample).ok()?;
        Estimate::new(arm.rate().ok()?, arm.se2().ok()?).ok()
    };
    let lift = relative_lift(&arm(0.1)?, &arm(0.12)?, CONFIDENCE).ok()?;
    Some((lift.log_ratio?.interval, lift.fieller?))
}

pub(crate) fn of_a_lift(sample: &mut Sample) -> bool {
    let interval = lift(sample).map(|(log_ratio, _)| log_ratio);
    covers(interval.ok_or(StatsError::NotEnoughData), 0.2)
}

pub(crate) fn of_a_lift_by_fieller(sample: &mut Sample) -> bool {
    let interval = lift(sample).map(|(_, fieller)| fieller);
    covers(interval.ok_or(StatsError::NotEnoughData), 0.2)
}

/// Purchases a unit: few make many, so that the totals are skewed.
fn purchases(taste: f64, sample: &mut Sample) -> f64 {
    let chance = if sample.uniform() < 0.2 { 0.3 } else { 0.05 };
    sample.binomial(8, chance * taste) as f64
}

pub(crate) fn of_means(sample: &mut Sample) -> bool {
    // A fifth of the shoppers have six times the chance of the others.
    let mean = |taste: f64| 8.0 * taste * (0.2 * 0.3 + 0.8 * 0.05);
    let mut arm = |taste: f64, units: i64| {
        let totals: Vec<f64> = (0..units).map(|_| purchases(taste, sample)).collect();
        summary(&totals)
    };
    let (Ok(a), Ok(b)) = (arm(1.0, UNITS), arm(1.1, UNITS / 2)) else {
        return false;
    };
    let interval = welch(&a, &b, CONFIDENCE).map(|test| test.interval);
    covers(interval, mean(1.1) - mean(1.0))
}

fn summary(totals: &[f64]) -> Result<MeanSummary, StatsError> {
    let n = totals.len() as f64;
    let mean = totals.iter().sum::<f64>() / n;
    let squares = totals.iter().map(|total| (total - mean) * (total - mean));
    let variance = squares.sum::<f64>() / (n - 1.0);
    let units = i64::try_from(totals.len()).map_err(|_| StatsError::InvalidInput)?;
    MeanSummary::new(units, mean, variance)
}

pub(crate) fn of_ratios(sample: &mut Sample) -> bool {
    let mut shop = ClickShop::new(Clicks {
        units_per_day: vec![UNITS as f64; 2],
        baseline: 0.25,
        lifts: vec![0.0],
    });
    shop.advance(0.0, HOURS_PER_DAY, sample);
    let arm = |arm: usize| RatioSummary::from_sums(&shop.sums()[arm]);
    let interval = arm(0).and_then(|a| compare_ratios(&a, &arm(1)?, CONFIDENCE));
    covers(interval.map(|test| test.interval), 0.0)
}

pub(crate) fn of_adjusted_means(sample: &mut Sample) -> bool {
    let mut arm = |effect: f64| {
        let mut sums = CovariateSums {
            n: UNITS,
            sum_y: 0.0,
            sum_x: 0.0,
            sum_yy: 0.0,
            sum_xx: 0.0,
            sum_xy: 0.0,
        };
        for _ in 0..UNITS {
            let x = 10.0 + 3.0 * sample.normal();
            let y = 2.0 + 0.8 * x + 2.0 * sample.normal() + effect;
            sums.sum_y += y;
            sums.sum_x += x;
            sums.sum_yy += y * y;
            sums.sum_xx += x * x;
            sums.sum_xy += x * y;
        }
        CovariateMoments::from_sums(&sums)
    };
    let (Ok(a), Ok(b)) = (arm(0.0), arm(0.1)) else {
        return false;
    };
    let interval = compare_adjusted(&a, &b, Slope::WithinArms, CONFIDENCE);
    covers(interval.map(|test| test.interval), 0.1)
}

/// The 95 % quantile of log-normal latencies of 600 units.
pub(crate) fn of_a_quantile(sample: &mut Sample) -> bool {
    const Z_95: f64 = 1.644_853_626_951_472_7;
    let values: Vec<f64> = (0..600)
        .map(|_| (5.0 + 0.6 * sample.normal()).exp())
        .collect();
    let Ok(estimate) = quantile(&values, 0.95, CONFIDENCE) else {
        return false;
    };
    let limits = estimate.lower.zip(estimate.upper);
    let interval = limits.map(|(lower, upper)| Interval {
        lower: lower.value,
        upper: upper.value,
    });
    covers(
        interval.ok_or(StatsError::NotEnoughData),
        (5.0 + 0.6 * Z_95).exp(),
    )
}

/// Rates that are drawn from the prior, as a credible interval supposes.
pub(crate) fn of_a_credible_lift(sample: &mut Sample) -> bool {
    let (p_a, p_b) = (sample.uniform(), sample.uniform());
    let (Ok(a), Ok(b)) = (rate(p_a, 300, sample), rate(p_b, 300, sample)) else {
        return false;
    };
    let read = compare_rates(a, b, BetaPrior::UNIFORM, CONFIDENCE);
    // Where the control hardly converts no lift is shown; the rate's own interval stands for it.
    read.is_ok_and(|read| match read.lift {
        Some(lift) => lift.lower <= p_b / p_a - 1.0 && p_b / p_a - 1.0 <= lift.upper,
        None => covers(Ok(read.rate_b), p_b),
    })
}

/// Whether the band ever lost the true lift in 30 daily looks.
fn ever_missed(shop: &mut dyn Shop, truth: f64, sample: &mut Sample) -> bool {
    (0..30_u32).any(|day| {
        let from = f64::from(day) * HOURS_PER_DAY;
        shop.advance(from, from + HOURS_PER_DAY, sample);
        let band = anytime(&shop.strata(0), 1.0 - CONFIDENCE).map(|read| read.lift);
        band.is_ok_and(|band| truth < band.lower || band.upper < truth)
    })
}

fn rates_missed(baseline: f64, lift: f64, units: [f64; 2], sample: &mut Sample) -> bool {
    let mut shop = RateShop::new(Market {
        traffic: vec![(0.0, units.to_vec())],
        ..Market::even(baseline, &[lift], 0.0)
    });
    ever_missed(&mut shop, lift, sample)
}

pub(crate) fn missed_at_any_moment(sample: &mut Sample) -> bool {
    rates_missed(0.1, 0.05, [1_000.0; 2], sample)
}

pub(crate) fn missed_large(sample: &mut Sample) -> bool {
    rates_missed(0.1, 0.5, [1_000.0; 2], sample)
}

pub(crate) fn missed_doubled(sample: &mut Sample) -> bool {
    rates_missed(0.1, 1.0, [1_000.0; 2], sample)
}

pub(crate) fn missed_tripled(sample: &mut Sample) -> bool {
    rates_missed(0.1, 2.0, [1_000.0; 2], sample)
}

pub(crate) fn missed_halved(sample: &mut Sample) -> bool {
    rates_missed(0.1, -0.5, [1_000.0; 2], sample)
}

/// Five conversions a day in the control: the first looks are those of the exact process.
pub(crate) fn missed_of_a_small_rate(sample: &mut Sample) -> bool {
    rates_missed(0.005, 0.5, [1_000.0; 2], sample)
}

pub(crate) fn missed_at_any_moment_unequal(sample: &mut Sample) -> bool {
    rates_missed(0.1, 0.05, [900.0, 100.0], sample)
}

pub(crate) fn missed_large_unequal(sample: &mut Sample) -> bool {
    rates_missed(0.1, 0.5, [900.0, 100.0], sample)
}

/// The same while weights change and a sale begins.
pub(crate) fn missed_over_a_change(sample: &mut Sample) -> bool {
    let mut shop = RateShop::new(Market {
        traffic: vec![(0.0, vec![1_600.0, 400.0]), (5.0, vec![1_000.0, 1_000.0])],
        sale_from: 5.0,
        ..Market::even(0.1, &[0.05], 0.0)
    });
    ever_missed(&mut shop, 0.05, sample)
}

pub(crate) fn missed_of_a_mean(sample: &mut Sample) -> bool {
    let mut shop = RevenueShop::new(Revenue::skewed([1_000.0, 1_000.0]));
    shop.advance(0.0, HOURS_PER_DAY, sample);
    shop.before_look();
    ever_missed(&mut shop, 0.0, sample)
}
