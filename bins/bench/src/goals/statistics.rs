//! Beyond the numbered goals of speed: what the statistics of a report cost. No server takes part.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use podium_domain::analysis::{self, EpochArms};
use podium_domain::decision::anytime::anytime;
use podium_domain::decision::evidence::stratified;
use podium_domain::event::EventType;
use podium_domain::metric::{Metric, UnitTotal};
use podium_domain::moments::Moments;
use podium_domain::report;
use podium_domain::stats::group_sequential::{Spending, boundary};

use crate::error::BenchError;
use crate::figures::{Bar, Line, Lines};
use crate::lab::Lab;

/// Calls between two readings of the clock.
const CALLS: u32 = 200;
/// Numbers that the yardstick sorts.
const SORTED: u64 = 1_000;

/// Microseconds of one call, the mean of `calls`.
fn micros(calls: u32, mut call: impl FnMut()) -> f64 {
    let started = Instant::now();
    for _ in 0..calls {
        call();
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}

/// The yardstick: a thousand floats in no order, sorted.
fn sort() -> f64 {
    let numbers: Vec<f64> = (0..SORTED)
        .map(|n| {
            f64::from_bits(0x3ff0_0000_0000_0000 | (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12))
        })
        .collect();
    micros(CALLS, || {
        let mut numbers = black_box(&numbers).clone();
        numbers.sort_by(f64::total_cmp);
        black_box(numbers);
    })
}

/// Sums of units of which some bought for about a hundred each.
fn moments(units: i64, buyers: i64) -> Moments {
    let value = 1_000_000 * i128::from(buyers);
    Moments {
        units,
        units_with: BTreeMap::from([(EventType::Purchase, buyers)]),
        units_above_zero: BTreeMap::from([(UnitTotal::PurchaseValue, buyers)]),
        sums: BTreeMap::from([(UnitTotal::PurchaseValue, value.into())]),
        products: BTreeMap::from([(
            (UnitTotal::PurchaseValue, UnitTotal::PurchaseValue),
            (1_200_000 * value).into(),
        )]),
    }
}

/// All figures of a metric but the Bayesian view.
fn analyse(metric: Metric, epochs: &[EpochArms<'_>]) {
    if let [one] = epochs {
        let _ = black_box(report::compare(one.control, one.treatment, metric));
    }
    if let Ok(strata) = analysis::strata(metric, epochs) {
        let _ = black_box(stratified(&strata));
        let _ = black_box(anytime(&strata, 0.05));
    }
}

/// A boundary from scratch, one look a day of a horizon.
fn looks(count: u32) {
    let times: Vec<f64> = (1..=count)
        .map(|look| f64::from(look) / f64::from(count))
        .collect();
    let _ = black_box(boundary(&times, &times, 0.05, Spending::Pocock));
}

/// Analysis of a metric, and boundaries.
///
/// # Errors
/// None: what is computed needs nothing from outside.
pub(crate) async fn measure(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let (control, treatment) = (moments(100_000, 5_000), moments(100_000, 5_300));
    let epochs = [EpochArms {
        control: &control,
        treatment: &treatment,
        treatment_share: 0.5,
    }];
    let mut lines = Lines::of(13);
    let pairs = lab.plan.pairs;
    for metric in [Metric::ConversionRate, Metric::RevenuePerUser] {
        let run = || micros(CALLS, || analyse(metric, black_box(&epochs)));
        let found: Vec<(f64, f64)> = (0..pairs).map(|_| (sort(), run())).collect();
        let name = metric.name();
        lines.add(
            format!("{name}: analysis"),
            "µs",
            Bar::AtMost(10.0),
            found.iter().map(|(_, time)| *time),
        );
        lines.add(
            format!("{name}: analysis ÷ sorting {SORTED} floats"),
            "",
            Bar::Told,
            found.iter().map(|(sort, time)| time / sort),
        );
        let all = || {
            micros(CALLS / 20, || {
                black_box(analysis::read(metric, &epochs));
            })
        };
        lines.add(
            format!("{name}: with the Bayesian view"),
            "µs",
            Bar::Told,
            (0..pairs).map(|_| all()),
        );
    }
    for (count, bar) in [(30, Bar::AtMost(20.0)), (720, Bar::Told)] {
        let calls = if count > 100 { 1 } else { 10 };
        lines.add(
            format!("boundary of {count} looks from scratch"),
            "ms",
            bar,
            (0..pairs).map(|_| micros(calls, || looks(count)) / 1e3),
        );
    }
    Ok(lines.done())
}
