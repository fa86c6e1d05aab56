//! How often the promotion engine promotes what is no better, and how soon it finds what is: its own decision function on
//! simulated experiments.
//!
//! ```text
//! cargo run --release -p podium-promotion --example false_promotions -- --preset balanced --baseline 0.1 --lift 0 \
//!     --variants 2 --looks 30 --units-per-look 2000 --hours-per-look 24 --metric conversion_rate --runs 20000 --seed 1
//! ```
//!
//! `--lift` is that of the first treatment; the others equal the control, which is the hardest case. `--gates off` leaves
//! the statistics alone to decide. `--table all` makes the tables of `docs/false-promotions.md`. The exit code is 2 for
//! options that are not valid, and 1 where a table holds a promise that was broken. The test of the same name runs it with
//! few experiments.

mod cell;
mod experiment;
mod options;
mod summary;
mod table;

use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use podium_domain::stats::StatsError;
use podium_simulation::runs::simulate;

use cell::Cell;
use options::Options;
use summary::Summary;

/// Options that are not valid; clap ends with the same code.
const INVALID: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    let cell = match options.cell() {
        Ok(cell) => cell,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(INVALID);
        }
    };
    let answered = match &options.table {
        Some(names) => tables(&options, names),
        None => one(&options, &cell),
    };
    answered.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::FAILURE
    })
}

/// One kind of experiment. Standard output holds the answer alone.
fn one(options: &Options, cell: &Cell) -> Result<ExitCode, String> {
    let summary = simulated(options, cell, options.runs, "experiments")?;
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&summary).map_err(|error| error.to_string())?
        );
    } else {
        print!("{}", summary.text());
    }
    Ok(ExitCode::SUCCESS)
}

/// The tables of the document, a row as soon as it is known.
fn tables(options: &Options, names: &str) -> Result<ExitCode, String> {
    let mut kept = true;
    let mut found = false;
    for table in table::all() {
        let rows = table.rows.iter().filter(|row| row.is_meant(names));
        let mut head = Some(table.head());
        for row in rows {
            found = true;
            let cell = row
                .cell
                .clone()
                .checked()
                .map_err(|error| format!("{}: {error}", row.name))?;
            let summary = simulated(options, &cell, options.runs, &row.name)?;
            if let Some(head) = head.take() {
                println!("{head}");
            }
            println!("{}", row.text(&summary));
            kept &= row.is_kept(&summary);
        }
        if head.is_none() {
            println!();
        }
    }
    if !found {
        return Err(format!("--table {names}: no row has a name that begins so"));
    }
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn simulated(options: &Options, cell: &Cell, runs: u32, title: &str) -> Result<Summary, String> {
    let bar = bar(runs, title);
    let outcomes = simulate(
        runs,
        options.seed,
        options.threads(),
        |sample| experiment::run(cell, options.full, sample),
        || bar.inc(1),
    );
    bar.finish_and_clear();
    let outcomes: Result<Vec<_>, StatsError> = outcomes.into_iter().collect();
    let outcomes =
        outcomes.map_err(|error| format!("an experiment cannot be analysed: {error}"))?;
    Ok(Summary::new(cell, options.seed, &outcomes))
}

/// Shows itself on a terminal only, and on standard error.
fn bar(runs: u32, title: &str) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(runs)).with_message(title.to_owned());
    match ProgressStyle::with_template("  {msg} {wide_bar} {human_pos} of {human_len}, {eta} left")
    {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
