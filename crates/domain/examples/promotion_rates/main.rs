//! How often, and how soon, the decision rule promotes, and how often what reports show is right:
//! simulated through the library itself.
//!
//! ```text
//! cargo run --release -p podium-domain --example promotion_rates -- --runs 20000 --cell all --seed 1
//! ```
//!
//! `--cell` takes the beginning of names; `--cell list` prints them. Sufficient statistics are
//! drawn where that is exact, single units where it is not. Every figure comes with its
//! Monte-Carlo standard error, and the exit code is 1 where a promise was broken. The test `simulations` does the same with few runs.

mod cells;
mod coverage;
mod engine;
mod options;
mod readings;

use std::process::ExitCode;

use cells::Row;
use options::Options;

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    if options.cell == "list" {
        for name in cells::names().into_iter().chain(readings::names()) {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    let cells = print(
        "| cell | runs | promoted % | median day | by day 30 % | promise | kept |\n| --- | --- | --- | --- | --- | --- | --- |",
        cells::rows(&options),
    );
    let readings = print(
        "| reading | runs | what | % | promise | kept |\n| --- | --- | --- | --- | --- | --- |",
        readings::rows(&options),
    );
    if cells && readings {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints a table whose rows come one by one, and says whether all promises were kept.
fn print(head: &str, rows: impl Iterator<Item = Row>) -> bool {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return true;
    }
    println!("{head}");
    let mut all_kept = true;
    for row in rows {
        println!("{}", row.text);
        all_kept &= row.kept;
    }
    println!();
    all_kept
}
