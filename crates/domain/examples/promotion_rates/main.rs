//! How often, and how soon, the decision rule promotes: simulated through the library itself.
//!
//! ```text
//! cargo run --release -p podium-domain --example promotion_rates -- --runs 20000 --cell all --seed 1
//! ```
//!
//! `--cell` takes the beginning of names; `--cell list` prints them. Sufficient statistics are
//! drawn where that is exact, single units where it is not. Every figure comes with its
//! Monte-Carlo standard error.

mod cells;
mod engine;
mod readings;
mod sample;
mod shop;

use std::process::ExitCode;

/// What was asked for.
pub(crate) struct Options {
    runs: u32,
    cell: String,
    seed: u64,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            runs: 1_000,
            cell: "all".to_owned(),
            seed: 1,
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            let number = || format!("{name} needs a whole number, not `{value}`");
            match name.as_str() {
                "--runs" => options.runs = value.parse().map_err(|_| number())?,
                "--seed" => options.seed = value.parse().map_err(|_| number())?,
                "--cell" => options.cell = value,
                _ => {
                    return Err(format!(
                        "unknown option {name}; known are --runs --cell --seed"
                    ));
                }
            }
        }
        Ok(options)
    }

    /// Whether the cell `name` was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.cell == "all" || name.starts_with(&self.cell)
    }
}

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    if options.cell == "list" {
        for name in cells::names().into_iter().chain(readings::NAMES) {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    cells::print(&options);
    readings::print(&options);
    ExitCode::SUCCESS
}

/// A share of runs in percent, with its standard error.
pub(crate) fn percent(hits: usize, runs: u32) -> String {
    let share = hits as f64 / f64::from(runs);
    let error = (share * (1.0 - share) / f64::from(runs)).sqrt();
    format!("{:.2} ± {:.2}", 100.0 * share, 100.0 * error)
}
