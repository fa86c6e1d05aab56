//! What was asked for, and how shares are written.

/// The command's options.
pub(crate) struct Options {
    pub(crate) runs: u32,
    pub(crate) cell: String,
    pub(crate) seed: u64,
}

impl Options {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
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

    /// Seeds of the runs: each has its own, so that runs can be repeated one by one.
    pub(crate) fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        let seed = self.seed;
        (0..self.runs).map(move |run| seed << 32 | u64::from(run))
    }
}

/// A share of runs in percent, with its standard error.
pub(crate) fn percent(hits: usize, runs: u32) -> String {
    let share = hits as f64 / f64::from(runs);
    let error = standard_error(share, runs);
    format!("{:.2} ± {:.2}", 100.0 * share, 100.0 * error)
}

/// The Monte-Carlo error of a share of runs.
pub(crate) fn standard_error(share: f64, runs: u32) -> f64 {
    (share * (1.0 - share) / f64::from(runs)).sqrt()
}
