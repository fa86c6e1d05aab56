//! How often the guard of a promotion alarms: simulated watches of its real decision function, looked at every hour.
//!
//! `cargo run --release -p podium-domain --example guard_rates -- --runs 4000`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a command line tool ends on the first surprise"
)]

use podium_domain::guard::{Finding, GuardEvidence, StepConverters, detectable_drop, read};
use podium_domain::stats::proportion::Proportion;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// One kind of watch.
struct Cell {
    /// Units a day whose own variant is not the winner.
    per_day: u32,
    /// Part of them that is held back.
    held_back: f64,
    /// Relative drop of conversion with the winner.
    drop: f64,
    /// Part of the winner's units with an error, in the experiment 1 %.
    erring: f64,
}

const DAYS: u32 = 7;
const RATE: f64 = 0.1;
const ERRING: f64 = 0.01;

struct Outcome {
    finding: Finding,
    /// Whole hours until then.
    hours: u32,
}

fn poisson(rng: &mut StdRng, mean: f64) -> i64 {
    // Arrivals of a Poisson process of rate 1 in `mean`; means here are below a few hundred.
    let (mut count, mut at) = (0, 0.0);
    loop {
        at -= (1.0 - rng.random::<f64>()).ln();
        if at > mean {
            return count;
        }
        count += 1;
    }
}

fn watch(cell: &Cell, rng: &mut StdRng) -> Outcome {
    let per_hour = f64::from(cell.per_day) / 24.0;
    let (mut moved, mut held) = (0, 0);
    let (mut erring, mut units, mut held_erring, mut held_units) = (0, 0, 0, 0);
    for hour in 1..=DAYS * 24 {
        // Twice as many convert in the evening.
        let rate = RATE * if hour % 24 >= 18 { 2.0 } else { 0.67 };
        let (to_winner, to_control) =
            (per_hour * (1.0 - cell.held_back), per_hour * cell.held_back);
        moved += poisson(rng, to_winner * rate * (1.0 - cell.drop));
        held += poisson(rng, to_control * rate);
        let (errors, fine) = (
            poisson(rng, to_winner * cell.erring),
            poisson(rng, to_winner * (1.0 - cell.erring)),
        );
        let held_errors = poisson(rng, to_control * ERRING);
        erring += errors;
        units += errors + fine;
        held_erring += held_errors;
        held_units += held_errors + poisson(rng, to_control * (1.0 - ERRING));
        let share = |with, all| Some(Proportion::new(with, all).unwrap());
        let evidence = GuardEvidence {
            steps: vec![StepConverters {
                moved,
                held_back: held,
                held_back_share: cell.held_back,
            }],
            errors_before: share(100, 10_000),
            errors_winner: share(erring, units),
            errors_held_back: share(held_erring, held_units),
        };
        let finding = read(&evidence).unwrap().finding;
        if finding.is_harm() || finding == Finding::SiteErrors {
            return Outcome {
                finding,
                hours: hour,
            };
        }
    }
    Outcome {
        finding: Finding::Quiet,
        hours: DAYS * 24,
    }
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn main() {
    let argument = |name: &str, default: u64| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name);
        arguments
            .nth(1)
            .map_or(default, |value| value.parse().expect("a number"))
    };
    let (runs, seed) = (argument("--runs", 400), argument("--seed", 1));
    println!(
        "{runs} watches of {DAYS} days, {RATE} convert on the control, looked at every hour, seed {seed}"
    );
    println!(
        "per day  held back  drop  errors  conversion harm  error harm  site  median hours  80 % drop"
    );
    for (per_day, held_back, drop, erring) in [
        (1_000, 0.05, 0.0, ERRING),
        (1_000, 0.2, 0.0, ERRING),
        (20_000, 0.05, 0.0, ERRING),
        (1_000, 0.05, -0.1, ERRING),
        (1_000, 0.05, 0.3, ERRING),
        (1_000, 0.2, 0.3, ERRING),
        (20_000, 0.05, 0.3, ERRING),
        (20_000, 0.05, 0.0, 0.05),
    ] {
        let cell = Cell {
            per_day,
            held_back,
            drop,
            erring,
        };
        let mut outcomes: Vec<Outcome> = (0..runs)
            .map(|run| {
                watch(
                    &cell,
                    &mut StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) + run),
                )
            })
            .collect();
        let share = |finding| {
            let found = outcomes.iter().filter(|o| o.finding == finding).count();
            100.0 * found as f64 / runs as f64
        };
        let (conversion, errors, site) = (
            share(Finding::ConversionHarm),
            share(Finding::ErrorHarm),
            share(Finding::SiteErrors),
        );
        outcomes.sort_by_key(|outcome| outcome.hours);
        let median = outcomes
            .get(outcomes.len() / 2)
            .map_or(0, |outcome| outcome.hours);
        let found = detectable_drop(f64::from(per_day * DAYS), RATE, held_back);
        let found = found.map_or_else(
            || "none".to_owned(),
            |drop| format!("{:.0} %", 100.0 * drop),
        );
        println!(
            "{per_day:>7}  {:>7.0} %  {:>3.0} %  {:>4.0} %  {conversion:>13.2} %  {errors:>8.2} %  {site:>4.1}  {median:>12}  {found:>9}",
            100.0 * held_back,
            100.0 * drop,
            100.0 * erring
        );
    }
}
