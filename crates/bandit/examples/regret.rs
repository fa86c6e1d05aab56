//! Measures the regret of a policy on an instance: a JSON file with `means`, the arms' true rates,
//! as in `tests/golden/bandit/regret_*.json`, or with `segment_starts` and `segment_means` where they change.
//!
//! ```text
//! cargo run --release -p podium-bandit --example regret -- \
//!     --instance FILE --policy P --plays N --replications R --seed S [--json]
//! ```
//!
//! Results are noted at the file's checkpoints up to `--plays`, which is one, too. Replication i
//! has a generator of its own, so the numbers do not depend on the number of threads. `delay_*.json` are instances as
//! well: their lags are given by `--batch` or `--delay`.
//!
//! What the command line or the file says wrong goes to standard error, and the exit code is 2. The members of the JSON
//! are those of the reference files, of one policy: `docs/bandits.md` lists them.

#![allow(clippy::unwrap_used, reason = "a panic of a worker is passed on")]

use std::error::Error;
use std::process::ExitCode;

use podium_bandit::plan::Plan;
use podium_bandit::posterior::Prior;
use podium_bandit::simulate::{Feedback, Instance, Progress, Setting, run};
use podium_bandit::special::kl_bernoulli;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use serde_json::{Value, json};

const USAGE: &str = "usage: regret --instance FILE --policy P --plays N --replications R \
    [--seed S] [--batch L | --delay L] [--json]";

fn main() -> ExitCode {
    match measure() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("regret: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<String, Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let file = File::read(&options.instance)?;
    let plan = Plan::named(&options.policy)
        .map_err(|error| format!("{error}; known are {}", Plan::names()))?;
    let checkpoints = file.checkpoints(options.plays);
    let instance = Instance::changing(file.segments.clone())?;
    let rate = instance.mean_rate().filter(|_| plan.site_prior);
    let setting = Setting {
        policy: plan.policy,
        prior: Prior::site(rate),
        forgetting: plan.forgetting,
        feedback: options.feedback,
        checkpoints: &checkpoints,
    };
    let runs = replicate(&instance, &setting, &options)?;
    let report = Report::new(&file, &checkpoints, &runs);
    Ok(if options.json {
        serde_json::to_string_pretty(&report.json(&options))?
    } else {
        report.table(&options)
    })
}

/// Runs all replications, on as many threads as the machine has.
fn replicate(
    instance: &Instance,
    setting: &Setting<'_>,
    options: &Options,
) -> Result<Vec<Vec<Progress>>, Box<dyn Error>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let one = |replication: u64| {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(options.seed ^ replication.rotate_left(32));
        run(instance, setting, &mut rng)
    };
    let share = |thread: usize| -> Result<Vec<_>, _> {
        (0..options.replications)
            .skip(thread)
            .step_by(threads)
            .map(one)
            .collect()
    };
    let parts: Result<Vec<Vec<_>>, _> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || share(thread)))
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    Ok(parts?.into_iter().flatten().collect())
}

struct Options {
    instance: String,
    policy: String,
    plays: u64,
    replications: u64,
    seed: u64,
    feedback: Feedback,
    json: bool,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            instance: String::new(),
            policy: String::new(),
            plays: 0,
            replications: 0,
            seed: 1,
            feedback: Feedback::Immediate,
            json: false,
        };
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            if name == "--json" {
                options.json = true;
                continue;
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value\n{USAGE}"))?;
            options.set(&name, value)?;
        }
        options.check()
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} takes a whole number, not `{value}`"))
        };
        match name {
            "--plays" => self.plays = number()?,
            "--replications" => self.replications = number()?,
            "--seed" => self.seed = number()?,
            "--batch" => self.feedback = Feedback::Batch(number()?),
            "--delay" => self.feedback = Feedback::Delay(number()?),
            "--instance" => self.instance = value,
            "--policy" => self.policy = value,
            _ => return Err(format!("unknown option {name}\n{USAGE}")),
        }
        Ok(())
    }

    fn check(self) -> Result<Self, String> {
        let missing = |name: &str| Err(format!("{name} is missing\n{USAGE}"));
        if self.instance.is_empty() {
            return missing("--instance");
        }
        if self.policy.is_empty() {
            return missing("--policy");
        }
        if self.plays == 0 {
            return missing("--plays (at least 1)");
        }
        if self.replications == 0 {
            return missing("--replications (at least 1)");
        }
        Ok(self)
    }
}

struct File {
    name: String,
    /// First play and rates of each stretch; most instances have one.
    segments: Vec<(u64, Vec<f64>)>,
    checkpoints: Vec<u64>,
}

impl File {
    fn read(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        Self::parse(path, &text).map_err(|error| format!("{path}: {error}"))
    }

    /// Reads an instance; without a name it has that of its file.
    fn parse(path: &str, text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let checkpoints = match &value["checkpoints"] {
            Value::Null => Some(Vec::new()),
            given => list(given, |v| v.as_u64().filter(|plays| *plays > 0)),
        };
        Ok(Self {
            name: value["instance"].as_str().unwrap_or(path).to_owned(),
            segments: segments(&value)?,
            checkpoints: checkpoints
                .ok_or("`checkpoints` must be a list of whole numbers above 0")?,
        })
    }

    fn checkpoints(&self, plays: u64) -> Vec<u64> {
        let mut checkpoints: Vec<_> = self
            .checkpoints
            .iter()
            .copied()
            .filter(|c| *c < plays)
            .collect();
        checkpoints.push(plays);
        checkpoints.sort_unstable();
        checkpoints.dedup();
        checkpoints
    }

    /// Σ over worse arms of (best − mean) / kl(mean, best); no number where rates change.
    fn lai_robbins(&self) -> f64 {
        let [(_, means)] = self.segments.as_slice() else {
            return f64::NAN;
        };
        let best = means.iter().copied().fold(0.0, f64::max);
        let worse = means.iter().filter(|mean| **mean < best);
        worse.fold(0.0, |sum, mean| {
            sum + (best - mean) / kl_bernoulli(*mean, best)
        })
    }
}

fn segments(value: &Value) -> Result<Vec<(u64, Vec<f64>)>, String> {
    let rates = |value: &Value| list(value, Value::as_f64).filter(|means| !means.is_empty());
    if value["segment_means"].is_null() {
        let means = rates(&value["means"]);
        let means = means.ok_or("needs `means`, a list of rates from 0 to 1, one an arm")?;
        return Ok(vec![(0, means)]);
    }
    let means = list(&value["segment_means"], rates);
    let starts = list(&value["segment_starts"], Value::as_u64);
    match (starts, means) {
        (Some(starts), Some(means)) if starts.len() == means.len() => {
            Ok(starts.into_iter().zip(means).collect())
        }
        _ => Err(
            "needs a number in `segment_starts` for every list of rates in `segment_means`".into(),
        ),
    }
}

fn list<T>(value: &Value, of: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(of).collect()
}

struct Report {
    name: String,
    checkpoints: Vec<u64>,
    constant: f64,
    mean: Vec<f64>,
    se: Vec<f64>,
    share_best: Vec<f64>,
    final_regrets: Vec<f64>,
}

impl Report {
    fn new(file: &File, checkpoints: &[u64], runs: &[Vec<Progress>]) -> Self {
        let column = |at: usize, of: fn(&Progress) -> f64| -> Vec<f64> {
            runs.iter().map(|run| of(&run[at])).collect()
        };
        let regrets = |at| column(at, |progress| progress.regret);
        let places = 0..checkpoints.len();
        let mut final_regrets = regrets(checkpoints.len() - 1);
        final_regrets.sort_by(f64::total_cmp);
        Self {
            name: file.name.clone(),
            checkpoints: checkpoints.to_vec(),
            constant: file.lai_robbins(),
            mean: places.clone().map(|at| mean_se(&regrets(at)).0).collect(),
            se: places.clone().map(|at| mean_se(&regrets(at)).1).collect(),
            share_best: places
                .map(|at| mean_se(&column(at, |progress| progress.best_share)).0)
                .collect(),
            final_regrets,
        }
    }

    /// Growth of the mean regret from 30,000 to 100,000 plays a unit of ln t, over the constant.
    fn slope(&self) -> Option<f64> {
        let at = |plays| {
            let place = self.checkpoints.iter().position(|c| *c == plays)?;
            Some(self.mean[place])
        };
        let growth = at(100_000)? - at(30_000)?;
        Some(growth / (100.0_f64 / 30.0).ln() / self.constant).filter(|slope| slope.is_finite())
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank below the length"
    )]
    fn quantile(&self, p: f64) -> f64 {
        let place = p * (self.final_regrets.len() - 1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        let (a, b) = (self.final_regrets[low], self.final_regrets[high]);
        a + (b - a) * place.fract()
    }

    fn json(&self, options: &Options) -> Value {
        json!({
            "schema": "bandit-regret-run-1",
            "instance": self.name,
            "policy": options.policy,
            "replications": options.replications,
            "seed": options.seed,
            "checkpoints": self.checkpoints,
            "mean_regret": self.mean,
            "se_regret": self.se,
            "mean_share_best": self.share_best,
            "p10_regret_final": self.quantile(0.1),
            "p50_regret_final": self.quantile(0.5),
            "p90_regret_final": self.quantile(0.9),
            "lai_robbins_constant": self.constant,
            "slope_30k_100k_over_C": self.slope(),
        })
    }

    fn table(&self, options: &Options) -> String {
        let mut text = format!(
            "{} on {}, {} replications\n{:>10} {:>12} {:>10} {:>10}\n",
            options.policy, self.name, options.replications, "plays", "regret", "se", "best"
        );
        for (at, plays) in self.checkpoints.iter().enumerate() {
            text += &format!(
                "{plays:>10} {:>12.4} {:>10.4} {:>10.5}\n",
                self.mean[at], self.se[at], self.share_best[at]
            );
        }
        let quantiles = [0.1, 0.5, 0.9].map(|p| self.quantile(p));
        let [low, median, high] = quantiles;
        text += &format!("10 / 50 / 90 %: {low:.2} / {median:.2} / {high:.2}");
        if let Some(slope) = self.slope() {
            text += &format!(
                "\nslope 30k to 100k over C = {:.3}: {slope:.3}",
                self.constant
            );
        }
        text
    }
}

/// Mean and its standard error.
#[allow(clippy::cast_precision_loss, reason = "a number of replications")]
fn mean_se(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three arms, no checkpoints that others have, a name of its own.
    const OTHER: &str = r#"{"schema": "bandit-regret-1", "instance": "three", "means": [0.2, 0.05, 0.1], "checkpoints": [7, 50]}"#;

    fn options(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    fn refusal<T>(outcome: Result<T, String>) -> String {
        outcome.err().unwrap()
    }

    #[test]
    fn any_instance_is_measured() {
        let options = options(
            "--instance f --policy imed --plays 60 --replications 4 --seed 3 --delay 5 --json",
        )
        .unwrap();
        let file = File::parse("f", OTHER).unwrap();
        let checkpoints = file.checkpoints(options.plays);
        assert_eq!(checkpoints, [7, 50, 60]);
        let instance = Instance::changing(file.segments.clone()).unwrap();
        let plan = Plan::named(&options.policy).unwrap();
        let setting = Setting {
            policy: plan.policy,
            prior: Prior::FLAT,
            forgetting: plan.forgetting,
            feedback: options.feedback,
            checkpoints: &checkpoints,
        };
        let runs = replicate(&instance, &setting, &options).unwrap();
        let report = Report::new(&file, &checkpoints, &runs).json(&options);
        assert_eq!(report["instance"], "three");
        assert_eq!(report["mean_regret"].as_array().unwrap().len(), 3);
        assert_eq!(report["slope_30k_100k_over_C"], Value::Null);
        // (0.15) / kl(0.05, 0.2) + 0.1 / kl(0.1, 0.2)
        let constant = report["lai_robbins_constant"].as_f64().unwrap();
        let wanted = 0.15 / kl_bernoulli(0.05, 0.2) + 0.1 / kl_bernoulli(0.1, 0.2);
        assert!((constant - wanted).abs() < 1e-12);
    }

    #[test]
    fn rates_may_change() {
        let text = r#"{"segment_starts": [0, 30], "segment_means": [[0.9, 0.1], [0.1, 0.9]]}"#;
        let file = File::parse("f", text).unwrap();
        assert_eq!((file.name.as_str(), file.segments.len()), ("f", 2));
        assert!(file.lai_robbins().is_nan(), "there is no such constant");
    }

    #[test]
    fn bad_files_and_options_are_told() {
        for (text, needle) in [
            ("", "EOF"),
            ("[]", "`means`"),
            (r#"{"means": []}"#, "`means`"),
            (r#"{"means": [0.1, "x"]}"#, "`means`"),
            (r#"{"means": [0.1], "checkpoints": [1.5]}"#, "`checkpoints`"),
            (r#"{"means": [0.1], "checkpoints": [0]}"#, "`checkpoints`"),
            (
                r#"{"segment_means": [[0.1], [0.2]], "segment_starts": [0]}"#,
                "`segment_starts`",
            ),
        ] {
            let said = refusal(File::parse("f", text));
            assert!(said.contains(needle), "{text}: {said}");
        }
        let beyond = File::parse("f", r#"{"means": [0.1, 1.5]}"#).unwrap();
        assert!(Instance::changing(beyond.segments).is_err());
        assert!(refusal(File::read("/nowhere/f.json")).contains("/nowhere/f.json"));
        for (text, needle) in [
            (
                "--policy thompson --plays 1 --replications 1",
                "--instance is missing",
            ),
            (
                "--instance f --policy p --plays 0 --replications 1",
                "--plays",
            ),
            (
                "--instance f --policy p --plays x --replications 1",
                "not `x`",
            ),
            ("--instance f --policy p --plays 1", "--replications"),
            ("--instance", "needs a value"),
            ("--instanse f", "unknown option --instanse"),
        ] {
            let said = refusal(options(text));
            assert!(said.contains(needle), "{text}: {said}");
        }
    }
}
