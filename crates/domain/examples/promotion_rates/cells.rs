//! Cells of experiments that may be promoted.

use podium_simulation::shop::{
    ClickShop, Clicks, Market, RateShop, ReturningShop, Revenue, RevenueShop,
};
use podium_simulation::{Sample, Shop};

use crate::engine::{Plan, run};
use crate::options::{Options, percent, standard_error};

/// What a cell promises.
enum Promise {
    /// At most this share of promotions, plus three standard errors.
    AtMost(f64),
    /// The same, and not needlessly far below.
    Between(f64, f64),
    /// At most so many days to the median promotion; at least this power by day 30.
    Soon(f64, f64),
}

struct Cell {
    name: String,
    plan: Plan,
    shop: Box<dyn Fn() -> Box<dyn Shop>>,
    promise: Promise,
}

impl Cell {
    fn new<S: Shop + 'static>(
        name: &str,
        plan: Plan,
        promise: Promise,
        shop: impl Fn() -> S + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            plan,
            shop: Box::new(move || Box::new(shop())),
            promise,
        }
    }
}

pub(crate) fn names() -> Vec<String> {
    all().into_iter().map(|cell| cell.name).collect()
}

/// A cell that was simulated.
pub(crate) struct Row {
    /// A line of the table.
    pub(crate) text: String,
    /// Whether the promise was kept, as far as the runs can tell.
    pub(crate) kept: bool,
}

/// Simulates the cells that were asked for, one by one.
pub(crate) fn rows(options: &Options) -> impl Iterator<Item = Row> {
    all()
        .into_iter()
        .filter(|cell| options.wants(&cell.name))
        .map(|cell| row(&cell, options))
}

fn row(cell: &Cell, options: &Options) -> Row {
    let mut days = Vec::new();
    for seed in options.seeds() {
        let mut sample = Sample::new(seed);
        if let Some(promotion) = run(&cell.plan, (cell.shop)().as_mut(), &mut sample) {
            days.push(promotion.day);
        }
    }
    days.sort_by(f64::total_cmp);
    let by_30 = days.iter().filter(|day| **day <= 30.0).count();
    // Over all runs: those that were not promoted took longer than any.
    let median = days.get(options.runs as usize / 2);
    let (promise, kept) = judge(&cell.promise, &days, options.runs);
    let text = format!(
        "| {} | {} | {} | {} | {} | {promise} | {} |",
        cell.name,
        options.runs,
        percent(days.len(), options.runs),
        median.map_or("—".to_owned(), |median| format!("{median:.1}")),
        percent(by_30, options.runs),
        if kept { "yes" } else { "**no**" }
    );
    Row { text, kept }
}

/// What was promised, and whether it was kept as far as the runs can tell: within three standard
/// errors.
fn judge(promise: &Promise, days: &[f64], runs: u32) -> (String, bool) {
    let by = |day: f64| {
        let hits = days.iter().filter(|promoted| **promoted <= day).count();
        hits as f64 / f64::from(runs)
    };
    let error = |rate: f64| 3.0 * standard_error(rate, runs);
    let rate = by(f64::INFINITY);
    match promise {
        Promise::AtMost(alpha) => (
            format!("at most {:.0} %", 100.0 * alpha),
            rate <= alpha + error(*alpha),
        ),
        Promise::Between(least, alpha) => (
            format!("{:.1} % to {:.0} %", 100.0 * least, 100.0 * alpha),
            rate <= alpha + error(*alpha) && rate >= least - error(*least),
        ),
        Promise::Soon(day, power) => (
            format!("median ≤ {day}, power ≥ {power}"),
            by(*day) >= 0.5 - error(0.5) && by(30.0) >= power - error(*power),
        ),
    }
}

fn all() -> Vec<Cell> {
    let mut cells = false_promotions();
    cells.extend(difficulties());
    cells.extend(revenue());
    cells.extend(power());
    cells
}

/// A/A experiments at all schedules, presets and numbers of variants.
fn false_promotions() -> Vec<Cell> {
    let shop = |treatments: usize, units: f64| {
        move || RateShop::new(Market::even(0.1, &vec![0.0; treatments], units))
    };
    let limit = || Promise::AtMost(0.05);
    let mut cells = vec![
        Cell::new("aa-30-daily", Plan::daily(30.0), limit(), shop(1, 2_000.0)),
        Cell::new(
            "aa-90-daily",
            Plan::daily(90.0),
            Promise::Between(0.025, 0.05),
            shop(1, 2_000.0),
        ),
    ];
    for variants in 3..=5_u32 {
        let plan = Plan {
            treatments: variants - 1,
            ..Plan::daily(30.0)
        };
        let treatments = variants as usize - 1;
        cells.push(Cell::new(
            &format!("aa-30-daily-{variants}-variants"),
            plan,
            limit(),
            shop(treatments, 2_000.0),
        ));
    }
    let hourly = Plan {
        look_every_hours: 1,
        scan_every: 1.0,
        min_runtime_hours: 1.0,
        ..Plan::daily(30.0)
    };
    cells.push(Cell::new("aa-30-hourly", hourly, limit(), shop(1, 2_000.0)));
    let six = Plan {
        look_every_hours: 6,
        scan_every: 1.0,
        ..Plan::daily(30.0)
    };
    cells.push(Cell::new(
        "aa-30-hourly-scans-6h-slots",
        six,
        limit(),
        shop(1, 2_000.0),
    ));
    cells.push(Cell::new(
        "aa-30-horizon",
        Plan {
            horizon_days: Some(30.0),
            ..Plan::daily(30.0)
        },
        limit(),
        shop(1, 2_000.0),
    ));
    for (name, confidence, sample_size, improvement, runtime) in [
        ("aggressive", 90.0, 500, 3.0, 12.0),
        ("balanced", 95.0, 2_000, 5.0, 24.0),
        ("conservative", 99.0, 5_000, 10.0, 72.0),
    ] {
        let plan = Plan {
            min_confidence: confidence,
            min_sample_size: sample_size,
            min_improvement: improvement,
            min_runtime_hours: runtime,
            ..six
        };
        let promise = Promise::AtMost(1.0 - confidence / 100.0);
        cells.push(Cell::new(
            &format!("aa-30-{name}"),
            plan,
            promise,
            shop(1, 2_000.0),
        ));
    }
    for hours in [6, 24] {
        let plan = Plan {
            look_every_hours: hours,
            scan_every: 1.0,
            peeker: true,
            ..Plan::daily(30.0)
        };
        cells.push(Cell::new(
            &format!("aa-30-peeker-{hours}h-slots"),
            plan,
            limit(),
            shop(1, 2_000.0),
        ));
    }
    cells.push(Cell::new(
        "aa-30-full-path",
        Plan {
            full: true,
            ..Plan::daily(30.0)
        },
        limit(),
        shop(1, 2_000.0),
    ));
    cells
}

/// Experiments without an effect that fool simpler analyses.
fn difficulties() -> Vec<Cell> {
    let plan = || Plan::daily(30.0);
    let limit = || Promise::AtMost(0.05);
    let base = || Market::even(0.1, &[0.0], 2_000.0);
    let change = || vec![(0.0, vec![3_600.0, 400.0]), (5.0, vec![2_000.0, 2_000.0])];
    vec![
        Cell::new("change-weekday", plan(), limit(), move || {
            RateShop::new(Market {
                traffic: change(),
                weekday: 0.2,
                ..base()
            })
        }),
        Cell::new("change-sale", plan(), limit(), move || {
            RateShop::new(Market {
                traffic: change(),
                sale_from: 5.0,
                ..base()
            })
        }),
        Cell::new("late-conversions", plan(), limit(), move || {
            RateShop::new(Market {
                delay_days: Some(2.0),
                ..base()
            })
        }),
        Cell::new("returning-customers", plan(), limit(), move || {
            RateShop::new(Market {
                return_rate: 0.01,
                ..base()
            })
        }),
        Cell::new("returning-purchases", plan(), limit(), || {
            ReturningShop::new(100.0)
        }),
        Cell::new("ratio-clustered", plan(), limit(), || {
            ClickShop::new(Clicks {
                units_per_day: vec![100.0; 2],
                baseline: 0.25,
                lifts: vec![0.0],
            })
        }),
    ]
}

/// Skewed revenue at even and uneven splits.
fn revenue() -> Vec<Cell> {
    let splits = [
        ("50-50", [0.5, 0.5]),
        ("90-10", [0.9, 0.1]),
        ("10-90", [0.1, 0.9]),
    ];
    let cell = |(name, shares): (&str, [f64; 2])| {
        let units = shares.map(|share| 4_000.0 * share);
        Cell::new(
            &format!("revenue-{name}"),
            Plan::daily(30.0),
            Promise::AtMost(0.05),
            move || RevenueShop::new(Revenue::skewed(units)),
        )
    };
    splits.into_iter().map(cell).collect()
}

/// How soon a better treatment is promoted.
fn power() -> Vec<Cell> {
    let cases = [
        ("power-10-plus-10", 0.1, 0.1, 5.0, 0.9),
        ("power-10-plus-5", 0.1, 0.05, 19.0, 0.68),
        ("power-3-plus-10", 0.03, 0.1, 19.0, 0.74),
    ];
    let cell = |(name, baseline, lift, days, by_30)| {
        Cell::new(
            name,
            Plan::daily(60.0),
            Promise::Soon(days, by_30),
            move || RateShop::new(Market::even(baseline, &[lift], 2_000.0)),
        )
    };
    cases.into_iter().map(cell).collect()
}
