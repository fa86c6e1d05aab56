//! The engine's decision on simulated experiments, with few runs: it promotes what is no better at most as often as it
//! promises, and finds what is. The example `false_promotions` is the same with many.

#![allow(
    clippy::unwrap_used,
    reason = "a simulation that cannot run has failed"
)]
#![allow(dead_code, reason = "the command prints more than is tested")]

#[path = "../examples/false_promotions/cell.rs"]
mod cell;
#[path = "../examples/false_promotions/experiment.rs"]
mod experiment;
#[path = "../examples/false_promotions/options.rs"]
mod options;
#[path = "../examples/false_promotions/summary.rs"]
mod summary;
#[path = "../examples/false_promotions/table.rs"]
mod table;

use clap::Parser;
use podium_simulation::Sample;
use podium_simulation::runs::simulate;

use cell::Cell;
use experiment::{Outcome, run};
use options::Options;
use summary::Summary;

fn options(words: &str) -> Result<Options, clap::Error> {
    Options::try_parse_from(std::iter::once("false_promotions").chain(words.split_whitespace()))
}

fn cell(words: &str) -> Cell {
    options(words).unwrap().cell().unwrap()
}

fn outcomes(cell: &Cell, runs: u32, threads: usize) -> Vec<Outcome> {
    let found = simulate(runs, 11, threads, |sample| run(cell, false, sample), || {});
    found.into_iter().map(Result::unwrap).collect()
}

fn summary(words: &str, runs: u32) -> Summary {
    let cell = cell(words);
    Summary::new(&cell, 11, &outcomes(&cell, runs, 2))
}

#[test]
fn equal_variants_are_promoted_at_most_as_often_as_promised() {
    for words in [
        "--gates off --looks 15",
        "--preset aggressive --variants 3 --looks 15",
        "--metric ratio --gates off --looks 15",
        "--metric revenue_per_user --baseline 0.05 --gates off --looks 6 --units-per-look 4000",
    ] {
        let found = summary(words, 150);
        assert_eq!(found.kept, Some(true), "{words}: {}", found.rate);
        assert_eq!(found.power, None, "{words}");
        assert!(
            found.fixed_horizon_rate > found.rate + 2.0 * found.se,
            "{words}: {} and {}",
            found.fixed_horizon_rate,
            found.rate
        );
        assert!(found.confident_rate >= found.rate, "{words}");
    }
}

#[test]
fn what_is_better_is_promoted() {
    let found = summary("--lift 20% --variants 3 --looks 12 --gates off", 60);
    assert!(found.power.unwrap() > 0.9, "{found:?}");
    assert!(found.median_look.unwrap() <= 4, "{found:?}");
    assert_eq!((found.limit, found.kept), (None, None));
    assert_eq!(found.rate_by_look.last(), Some(&found.rate));
    let gated = summary("--lift 20% --looks 12", 60);
    assert!(gated.rate <= gated.confident_rate, "{gated:?}");
    let worse = summary("--lift -0.2 --looks 12", 20);
    assert!(worse.rate == 0.0 && worse.kept == Some(true), "{worse:?}");
}

#[test]
fn what_no_verdict_needs_changes_none() {
    for words in [
        "--lift 0.08 --looks 12 --variants 3",
        "--lift 0.15 --looks 8 --gates off",
    ] {
        let cell = cell(words);
        let mut promoted = 0;
        for number in 0..12 {
            let follow = run(&cell, false, &mut Sample::of_run(5, number)).unwrap();
            let full = run(&cell, true, &mut Sample::of_run(5, number)).unwrap();
            assert_eq!(follow, full, "{words}, run {number}");
            promoted += u32::from(full.promoted.is_some());
        }
        assert!(promoted > 2, "{words}: {promoted}");
    }
}

#[test]
fn threads_change_nothing() {
    let cell = cell("--looks 6 --gates off --lift 0.1");
    assert_eq!(outcomes(&cell, 25, 1), outcomes(&cell, 25, 3));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for words in [
        "--preset bold",
        "--metric happiness",
        "--variants 1",
        "--looks 0",
        "--runs 0",
        "--baseline ten",
        "--hours-per-look 0",
        "--units-per-look -5",
        "--nonsense 1",
        "--threads 0",
    ] {
        let error = options(words).err().map(|error| error.exit_code());
        assert_eq!(error, Some(2), "{words}");
    }
    for words in [
        "--baseline 0",
        "--baseline 1.5",
        "--baseline 0.6 --lift 1",
        "--metric ratio --baseline 0.5",
        "--lift -1",
        "--looks 20000 --hours-per-look 168",
    ] {
        assert!(options(words).unwrap().cell().is_err(), "{words}");
    }
}

#[test]
fn every_row_of_the_document_can_be_simulated() {
    let mut names = Vec::new();
    for row in table::all().into_iter().flat_map(|table| table.rows) {
        assert!(row.cell.clone().checked().is_ok(), "{}", row.name);
        names.push(row.name);
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
