//! Reads files of reference numbers and compares with them.
//!
//! The files are the project's copy in `tests/golden`, or the folder that `PODIUM_GOLDEN_DIR`
//! names. A file that is not there is reported as skipped. Simulations run a few replications of
//! the first checkpoints; `PODIUM_GOLDEN_EFFORT` (a factor, default 1) makes them longer.

#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "helpers of tests may end them, and their numbers are small"
)]

use std::path::PathBuf;

use podium_bandit::plan::Plan;
use podium_bandit::posterior::Prior;
use podium_bandit::simulate::{Feedback, Instance, Progress, Setting, run};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use serde_json::Value;

/// Where the reference numbers of `group` (bandit, real) are.
pub(crate) fn folder(group: &str) -> PathBuf {
    let base = std::env::var_os("PODIUM_GOLDEN_DIR").map(PathBuf::from);
    let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    base.unwrap_or_else(own).join(group)
}

/// The file's content, `None` when it is not there.
pub(crate) fn load(group: &str, name: &str) -> Option<Value> {
    let path = folder(group).join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {group}/{name} is not there");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{group}/{name}: {error}")))
}

/// All files of the group whose names begin with `prefix`, by name.
pub(crate) fn load_all(group: &str, prefix: &str) -> Vec<(String, Value)> {
    let Ok(entries) = std::fs::read_dir(folder(group)) else {
        println!("skipped: {group} is not there");
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(prefix) && name.ends_with(".json"))
        .collect();
    names.sort();
    if names.is_empty() {
        println!("skipped: {group} has no {prefix}*.json");
    }
    let read = |name: String| load(group, &name).map(|value| (name, value));
    names.into_iter().filter_map(read).collect()
}

/// How much longer than usual simulations run.
pub(crate) fn effort() -> f64 {
    std::env::var("PODIUM_GOLDEN_EFFORT").map_or(1.0, |text| text.parse().expect("a number"))
}

/// A number of replications, scaled by the effort.
pub(crate) fn replications(usual: u64) -> u64 {
    (usual as f64 * effort()).ceil() as u64
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().expect("a list of numbers");
    list.iter().map(|x| x.as_f64().expect("a number")).collect()
}

pub(crate) fn integers(value: &Value) -> Vec<u64> {
    let list = value.as_array().expect("a list of whole numbers");
    list.iter()
        .map(|x| x.as_u64().expect("a whole number"))
        .collect()
}

pub(crate) fn cases<'a>(file: &'a Value, name: &str) -> &'a [Value] {
    let cases = file[name].as_array().expect("a list of cases");
    assert!(!cases.is_empty(), "there are no {name}");
    cases
}

/// Collects what does not match, with a path that names it.
#[derive(Default)]
pub(crate) struct Mismatches {
    failures: Vec<String>,
    compared: usize,
}

impl Mismatches {
    /// Compares to an absolute or a relative tolerance, whichever is wider.
    pub(crate) fn number(
        &mut self,
        path: &str,
        got: f64,
        want: &Value,
        absolute: f64,
        relative: f64,
    ) {
        let matches = match want.as_f64() {
            Some(want) => (got - want).abs() <= absolute.max(relative * want.abs()),
            None => want.is_null() && !got.is_finite(),
        };
        self.note(matches, || format!("{path}: expected {want}, got {got:?}"));
    }

    pub(crate) fn numbers(
        &mut self,
        path: &str,
        got: &[f64],
        want: &Value,
        absolute: f64,
        relative: f64,
    ) {
        let want = want
            .as_array()
            .unwrap_or_else(|| panic!("no list at {path}"));
        assert_eq!(got.len(), want.len(), "{path}");
        for (at, (got, want)) in got.iter().zip(want).enumerate() {
            self.number(&format!("{path}[{at}]"), *got, want, absolute, relative);
        }
    }

    /// Compares two means: at most four combined standard errors apart. The reference is rounded
    /// to four decimals.
    pub(crate) fn mean(&mut self, path: &str, got: (f64, f64), want: (f64, f64)) {
        let allowed = 4.0 * got.1.hypot(want.1) + 1e-4;
        self.note((got.0 - want.0).abs() <= allowed, || {
            format!("{path}: expected {want:?}, got {got:?}")
        });
    }

    pub(crate) fn note(&mut self, matches: bool, text: impl FnOnce() -> String) {
        self.compared += 1;
        if !matches {
            self.failures.push(text());
        }
    }

    pub(crate) fn finish(self) {
        assert!(
            self.failures.is_empty(),
            "{} failures:\n{}",
            self.failures.len(),
            self.failures.join("\n")
        );
        println!("{} comparisons", self.compared);
    }
}

/// Mean and standard error.
pub(crate) fn mean_se(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0) / n).sqrt())
}

/// What a reference simulation was made with.
pub(crate) struct Simulation<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) algorithm: &'a str,
    /// Prior; the algorithm's own when absent.
    pub(crate) prior: Option<(f64, f64)>,
    pub(crate) feedback: Feedback,
    pub(crate) checkpoints: &'a [u64],
    pub(crate) replications: u64,
}

impl Simulation<'_> {
    /// All replications.
    pub(crate) fn run(&self) -> Vec<Vec<Progress>> {
        let plan = Plan::named(self.algorithm).unwrap();
        let prior = match self.prior {
            Some((alpha, beta)) => Prior::new(alpha, beta).unwrap(),
            None => Prior::site(self.instance.mean_rate().filter(|_| plan.site_prior)),
        };
        let setting = Setting {
            policy: plan.policy,
            prior,
            forgetting: plan.forgetting,
            feedback: self.feedback,
            checkpoints: self.checkpoints,
        };
        (0..self.replications)
            .map(|seed| {
                let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
                run(self.instance, &setting, &mut rng).unwrap()
            })
            .collect()
    }

    /// Mean regret and its standard error at every checkpoint.
    pub(crate) fn regrets(&self) -> Vec<(f64, f64)> {
        let runs = self.run();
        let at = |place: usize| {
            let regrets: Vec<_> = runs.iter().map(|run| run[place].regret).collect();
            mean_se(&regrets)
        };
        (0..self.checkpoints.len()).map(at).collect()
    }
}

/// The checkpoints up to `plays` times the effort, the first one at least.
pub(crate) fn first_checkpoints(all: &Value, plays: f64) -> Vec<u64> {
    let all = integers(all);
    let within = all
        .iter()
        .filter(|c| **c as f64 <= plays * effort())
        .count();
    all[..within.max(1)].to_vec()
}
