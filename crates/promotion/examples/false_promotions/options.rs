//! What was asked for.

use clap::{Parser, ValueEnum};

use crate::cell::{Cell, CellError, Gates, PresetName, SimulatedMetric};

/// How often, and how soon, the promotion engine's decision promotes in simulated experiments.
///
/// Every run is one experiment: units arrive, a scan takes its look, and the engine's own decision function answers. Rates
/// and lifts are fractions (0.1) or percents (10%).
#[derive(Clone, Debug, Parser)]
#[command(name = "false_promotions", version)]
pub(crate) struct Options {
    /// Which requirements a promotion has to meet.
    #[arg(long, value_enum, default_value_t = PresetName::Balanced)]
    pub(crate) preset: PresetName,
    /// The control's value: the share of units that convert or buy, or clicks per impression.
    #[arg(long, value_parser = fraction, default_value = "0.1", allow_hyphen_values = true)]
    pub(crate) baseline: f64,
    /// Relative lift of the first treatment; the others equal the control. 0 is an A/A experiment.
    #[arg(long, value_parser = fraction, default_value = "0", allow_hyphen_values = true)]
    pub(crate) lift: f64,
    /// Variants, the control included.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=20), default_value_t = 2)]
    pub(crate) variants: u32,
    /// Looks of one experiment.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000), default_value_t = 30)]
    pub(crate) looks: u32,
    /// Units of each variant that arrive between two looks.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000), default_value_t = 2_000)]
    pub(crate) units_per_look: u32,
    /// Hours between two looks, and the length of the engine's slots.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=168), default_value_t = 24)]
    pub(crate) hours_per_look: u32,
    /// What is measured.
    #[arg(long, value_enum, default_value_t = SimulatedMetric::ConversionRate)]
    pub(crate) metric: SimulatedMetric,
    /// Whether least sample, runtime and improvement are asked for, as the preset has them.
    #[arg(long, value_enum, default_value_t = Gates::On)]
    pub(crate) gates: Gates,
    /// Experiments; of every row, with --table.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1_000)]
    pub(crate) runs: u32,
    /// Seed of the first draw. The same seed gives the same answer on any number of threads.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads; all cores where nothing is said.
    #[arg(long, value_parser = threads)]
    pub(crate) threads: Option<usize>,
    /// Compute every boundary and p-value as the engine records them, also those that no verdict needs. Same verdicts, a
    /// hundred times slower.
    #[arg(long)]
    pub(crate) full: bool,
    /// Answer with one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// The rows of docs/false-promotions.md whose names begin with this (`all`: every row), in Markdown.
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    pub(crate) table: Option<String>,
}

impl Options {
    /// What is to be simulated.
    ///
    /// # Errors
    /// [`CellError`] for values that do not go together.
    pub(crate) fn cell(&self) -> Result<Cell, CellError> {
        Cell {
            preset: self.preset,
            gates: self.gates,
            metric: self.metric,
            baseline: self.baseline,
            lift: self.lift,
            variants: self.variants,
            looks: self.looks,
            units_per_look: self.units_per_look,
            hours_per_look: self.hours_per_look,
        }
        .checked()
    }

    /// Threads to run on.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores)
    }
}

/// A fraction, or a percent with its sign.
fn fraction(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 0.01),
        None => (text, 1.0),
    };
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number * scale),
        _ => Err("a fraction like 0.1 or a percent like 10% is needed".to_owned()),
    }
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=256) => Ok(threads),
        _ => Err("1 to 256 threads are possible".to_owned()),
    }
}

/// The wire name of an option's value.
pub(crate) fn name(value: &impl ValueEnum) -> String {
    let possible = value.to_possible_value();
    possible.map_or_else(String::new, |possible| possible.get_name().to_owned())
}
