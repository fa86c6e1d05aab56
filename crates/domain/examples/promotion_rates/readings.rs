//! Cells of what is read rather than decided: intervals, the split, the effect at promotion.

use podium_domain::decision::anytime::anytime;
use podium_domain::stats::eprocess::multinomial;
use podium_domain::stats::proportion::{Proportion, two_proportions};

use crate::engine::{Plan, run};
use crate::sample::Sample;
use crate::shop::{HOURS_PER_DAY, Market, RateShop, Shop};
use crate::{Options, percent};

pub(crate) const NAMES: [&str; 6] = [
    "coverage-fixed",
    "coverage-anytime",
    "coverage-anytime-90-10",
    "split-even",
    "split-off",
    "winners-curse",
];

/// Concentration of the split's e-process in these cells.
const CONCENTRATION: f64 = 1_000.0;
/// Standard deviation of true lifts, and of the prior that shrinks.
const TRUE_SPREAD: f64 = 0.05;

pub(crate) fn print(options: &Options) {
    let rows: Vec<_> = NAMES
        .into_iter()
        .filter(|name| options.wants(name))
        .map(|name| format!("| {name} | {} | {} |", options.runs, figure(name, options)))
        .collect();
    if !rows.is_empty() {
        println!(
            "| reading | runs | figure |\n| --- | --- | --- |\n{}\n",
            rows.join("\n")
        );
    }
}

fn figure(name: &str, options: &Options) -> String {
    let count = |hit: &dyn Fn(&mut Sample) -> bool| {
        let hits = (0..options.runs).filter(|index| {
            let mut sample = Sample::new(options.seed << 32 | u64::from(*index));
            hit(&mut sample)
        });
        percent(hits.count(), options.runs)
    };
    match name {
        "coverage-fixed" => {
            let covered = count(&fixed_covers);
            format!("95 % interval at 20,000 units an arm covers in {covered} %")
        }
        "coverage-anytime" => {
            let missed = count(&|sample| anytime_misses([1_000.0, 1_000.0], sample));
            format!("95 % band misses the lift at some of 30 looks in {missed} % (at most 5)")
        }
        "coverage-anytime-90-10" => {
            let missed = count(&|sample| anytime_misses([900.0, 100.0], sample));
            format!("the same at 90/10, exact process: {missed} % (at most 5)")
        }
        "split-even" => {
            let alarms = count(&|sample| split_alarms(0.5, sample));
            format!("p < 0.001 at some of 720 hourly looks in {alarms} % (at most 0.1)")
        }
        "split-off" => {
            let alarms = count(&|sample| split_alarms(0.52, sample));
            format!("a split of 52/48 instead of 50/50 is found within 30 days in {alarms} %")
        }
        _ => winners_curse(options),
    }
}

fn fixed_covers(sample: &mut Sample) -> bool {
    let arm =
        |rate: f64, sample: &mut Sample| Proportion::new(sample.binomial(20_000, rate), 20_000);
    let (Ok(a), Ok(b)) = (arm(0.1, sample), arm(0.105, sample)) else {
        return false;
    };
    let test = two_proportions(a, b, 0.95);
    let interval = test.ok().and_then(|test| test.interval);
    interval.is_some_and(|interval| interval.lower <= 0.005 && 0.005 <= interval.upper)
}

/// Whether the band ever lost the true lift of 5 % in 30 daily looks.
fn anytime_misses(units: [f64; 2], sample: &mut Sample) -> bool {
    let mut shop = RateShop::new(Market {
        traffic: vec![(0.0, units.to_vec())],
        ..Market::even(0.1, &[0.05], 0.0)
    });
    (0..30_u32).any(|day| {
        let from = f64::from(day) * HOURS_PER_DAY;
        shop.advance(from, from + HOURS_PER_DAY, sample);
        let band = anytime(&shop.strata(0), 0.05).map(|read| read.lift);
        band.is_ok_and(|band| 0.05 < band.lower || band.upper < 0.05)
    })
}

/// Whether 720 hourly looks at 60 units an hour ever call the split off.
fn split_alarms(share: f64, sample: &mut Sample) -> bool {
    let (mut a, mut b) = (0, 0);
    (0..720).any(|_| {
        let treated = sample.binomial(60, share);
        (a, b) = (a + 60 - treated, b + treated);
        let evidence = multinomial(&[a as f64, b as f64], &[1.0, 1.0], CONCENTRATION);
        evidence.is_ok_and(|evidence| evidence.p < 0.001)
    })
}

/// The effect at promotion against the truth, raw and shrunk, when true lifts are normal.
fn winners_curse(options: &Options) -> String {
    let (mut raw, mut shrunk, mut truth, mut count) = (0.0, 0.0, 0.0, 0.0);
    let (mut square_raw, mut square_shrunk) = (0.0, 0.0);
    for index in 0..options.runs {
        let mut sample = Sample::new(options.seed << 32 | u64::from(index));
        let lift = TRUE_SPREAD * sample.normal();
        let mut shop = RateShop::new(Market::even(0.1, &[lift], 2_000.0));
        let Some(promotion) = run(&Plan::daily(30.0), &mut shop, &mut sample) else {
            continue;
        };
        let Some(seen) = promotion.statistic.lift else {
            continue;
        };
        let se = promotion.statistic.se / promotion.statistic.baseline;
        let belief = TRUE_SPREAD * TRUE_SPREAD / (TRUE_SPREAD * TRUE_SPREAD + se * se);
        count += 1.0;
        truth += lift;
        raw += seen;
        shrunk += belief * seen;
        square_raw += (seen - lift) * (seen - lift);
        square_shrunk += (belief * seen - lift) * (belief * seen - lift);
    }
    let error = |sum: f64, squares: f64| {
        let mean: f64 = (sum - truth) / count;
        let spread = ((squares / count - mean * mean) / count).sqrt();
        format!("{:+.2} ± {:.2}", 100.0 * mean, 100.0 * spread)
    };
    format!(
        "{count} promoted, true lift {:.2} %; raw lift off by {} points, shrunk by {}",
        100.0 * truth / count,
        error(raw, square_raw),
        error(shrunk, square_shrunk)
    )
}
