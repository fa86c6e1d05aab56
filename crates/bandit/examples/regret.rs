//! Measures the regret of a policy on an instance: a JSON file with `means`, the arms' true rates,
//! as in `tests/golden/bandit/regret_*.json`.
//!
//! ```text
//! cargo run --release -p podium-bandit --example regret -- \
//!     --instance FILE --policy P --plays N --replications R --seed S [--json]
//! ```
//!
//! Results are noted at the file's checkpoints up to `--plays`, which is one, too. Replication i
//! has a generator of its own, so the numbers do not depend on the number of threads.

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
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<String, Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let file = File::read(&options.instance)?;
    let plan = Plan::named(&options.policy)
        .map_err(|error| format!("{error}; known are {}", Plan::names()))?;
    let checkpoints = file.checkpoints(options.plays);
    let instance = Instance::fixed(file.means.clone())?;
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
    means: Vec<f64>,
    checkpoints: Vec<u64>,
}

impl File {
    fn read(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))?;
        let list = |name: &str| value[name].as_array().map_or(&[][..], Vec::as_slice);
        let means: Option<Vec<f64>> = list("means").iter().map(Value::as_f64).collect();
        let means = means.filter(|means| !means.is_empty());
        Ok(Self {
            name: value["instance"].as_str().unwrap_or(path).to_owned(),
            means: means.ok_or_else(|| format!("{path} has no list of numbers `means`"))?,
            checkpoints: list("checkpoints")
                .iter()
                .filter_map(Value::as_u64)
                .collect(),
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

    /// Σ over worse arms of (best − mean) / kl(mean, best).
    fn lai_robbins(&self) -> f64 {
        let best = self.means.iter().copied().fold(0.0, f64::max);
        let worse = self.means.iter().filter(|mean| **mean < best);
        worse.fold(0.0, |sum, mean| {
            sum + (best - mean) / kl_bernoulli(*mean, best)
        })
    }
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
