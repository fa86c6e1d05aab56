//! Bias, coverage and widths of estimates from data that a bandit assigned.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

mod golden;

use golden::{Mismatches, cases, load, mean_se, numbers, replications};
use podium_bandit::adaptive::{AdaptiveData, Batch, Estimate};
use podium_bandit::best::best_arm;
use podium_bandit::sequence::{Scale, may_begin};
use podium_bandit::{Arms, Counts, Prior};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;

const ALPHA: f64 = 0.05;

#[test]
fn golden_adaptive_inference() {
    let Some(file) = load("bandit", "adaptive_inference.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for row in cases(&file, "rows") {
        let design = Design::of(row);
        let mut notes = Notes::default();
        for seed in 0..replications(100) {
            design.run(seed, &mut notes);
        }
        let path = format!("{} floor {}", row["means"], row["floor"]);
        for (arm, expected) in cases(row, "arms").iter().enumerate() {
            notes.compare(&mut found, &path, &format!("arm{arm}."), row, expected);
        }
        notes.compare(&mut found, &path, "", row, &row["difference"]);
    }
    found.finish();
}

/// What every replication came to, by the name of the field in the file.
#[derive(Default)]
struct Notes(BTreeMap<String, Vec<f64>>);

impl Notes {
    fn add(&mut self, name: impl Into<String>, value: f64) {
        self.0.entry(name.into()).or_default().push(value);
    }

    fn covers(&mut self, name: &str, estimate: Estimate, truth: f64) {
        let (low, high) = estimate.interval95();
        let covered = f64::from(u8::from(low <= truth && truth <= high));
        self.add(format!("{name}_coverage"), covered);
        self.add(format!("{name}_mean_half_width"), 0.5 * (high - low));
        self.add(format!("{name}_bias"), estimate.value - truth);
    }

    /// Compares the means. The reference has the same spread at its own number of replications;
    /// of a share it is that of the reference.
    fn compare(
        &self,
        found: &mut Mismatches,
        path: &str,
        prefix: &str,
        row: &Value,
        expected: &Value,
    ) {
        let reference_runs = row["replications"].as_f64().unwrap();
        for (field, want) in expected.as_object().unwrap() {
            let Some(values) = self.0.get(&format!("{prefix}{field}")) else {
                continue;
            };
            let want = want.as_f64().unwrap();
            let runs = f64::from(u32::try_from(values.len()).unwrap());
            let (mean, se) = mean_se(values);
            let is_share = ["coverage", "share"]
                .iter()
                .any(|part| field.ends_with(part));
            let se = if is_share {
                (want * (1.0 - want)).max(0.5 / runs).sqrt() / runs.sqrt()
            } else {
                se
            };
            let reference_se = se * (runs / reference_runs).sqrt();
            found.mean(
                &format!("{path} {prefix}{field}"),
                (mean, se),
                (want, reference_se),
            );
        }
    }
}

struct Design {
    means: Vec<f64>,
    floor: f64,
    batches: u64,
    size: u64,
}

impl Design {
    fn of(row: &Value) -> Self {
        Self {
            means: numbers(&row["means"]),
            floor: row["floor"].as_f64().unwrap(),
            batches: row["batches"].as_u64().unwrap(),
            size: row["batch_size"].as_u64().unwrap(),
        }
    }

    /// Propensities: probability of being best, kept in [floor, 1 − floor]; even at first.
    fn propensities(&self, totals: &[Counts]) -> Vec<f64> {
        let posteriors = Arms::from_counts(Prior::FLAT, totals).posteriors();
        let p = best_arm(&posteriors).unwrap().probability[1];
        let p = p.clamp(self.floor, 1.0 - self.floor);
        vec![1.0 - p, p]
    }

    fn batch(&self, propensities: Vec<f64>, rng: &mut Xoshiro256PlusPlus) -> Batch {
        let mut seen = [(0, 0); 2];
        for _ in 0..self.size {
            let arm = usize::from(rng.random::<f64>() < propensities[1]);
            seen[arm].0 += 1;
            seen[arm].1 += u64::from(rng.random::<f64>() < self.means[arm]);
        }
        let counts = seen.iter().map(|(n, s)| Counts::new(*n, *s).unwrap());
        Batch::new(propensities, counts.collect()).unwrap()
    }

    fn run(&self, seed: u64, notes: &mut Notes) {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut data = AdaptiveData::new(2, 0, 1).unwrap();
        let truth = self.means[1] - self.means[0];
        let mut looks = Looks::new(truth, self.batches * self.size);
        for batch in 0..self.batches {
            let propensities = if batch == 0 {
                vec![0.5, 0.5]
            } else {
                self.propensities(data.totals())
            };
            data.add(&self.batch(propensities, &mut rng)).unwrap();
            if batch >= 4 {
                looks.look(&data);
            }
        }
        self.note_arms(&data, notes);
        let naive = data.naive_difference().unwrap();
        notes.covers("naive", naive, truth);
        notes.covers("aipw", data.difference().unwrap().estimate(), truth);
        let z = data.batched_ols_z(truth).unwrap();
        notes.add(
            "batched_ols_z_coverage",
            f64::from(u8::from(z.abs() <= 1.959_963_984_540_054)),
        );
        looks.note(notes);
    }

    fn note_arms(&self, data: &AdaptiveData, notes: &mut Notes) {
        for (arm, estimates) in data.arms().unwrap().iter().enumerate() {
            let truth = self.means[arm];
            let plays = u32::try_from(data.totals()[arm].plays()).unwrap();
            notes.add(format!("arm{arm}.mean_plays"), f64::from(plays));
            let name = |name: &str| format!("arm{arm}.{name}");
            notes.covers(&name("naive"), estimates.naive.unwrap(), truth);
            notes.covers(&name("ipw"), estimates.ipw, truth);
            notes.covers(&name("aipw"), estimates.aipw, truth);
            notes.covers(&name("aipw_sqrt_p_weights"), estimates.aipw_sqrt, truth);
        }
    }
}

/// Whether an interval has missed at any look.
struct Looks {
    truth: f64,
    plays: f64,
    naive_missed: bool,
    fixed_missed: bool,
    fixed_width: f64,
    tuned: Option<Scale>,
    tuned_missed: bool,
    tuned_width: Option<f64>,
}

impl Looks {
    fn new(truth: f64, plays: u64) -> Self {
        Self {
            truth,
            plays: f64::from(u32::try_from(plays).unwrap()),
            naive_missed: false,
            fixed_missed: false,
            fixed_width: 0.0,
            tuned: None,
            tuned_missed: false,
            tuned_width: None,
        }
    }

    fn look(&mut self, data: &AdaptiveData) {
        let scores = data.difference().unwrap();
        let gap = (scores.mean - self.truth).abs();
        if let Some(naive) = data.naive_difference() {
            let (low, high) = naive.interval95();
            self.naive_missed |= self.truth < low || high < self.truth;
        }
        let fixed = Scale::fixed(2.0 / self.plays).unwrap();
        self.fixed_width = fixed.half_width(&scores, ALPHA).unwrap();
        self.fixed_missed |= gap > self.fixed_width;
        let totals = data.totals();
        if self.tuned.is_none() && may_begin(totals[0], totals[1]) {
            self.tuned = Scale::tuned(ALPHA, 0.5 * self.plays, scores.variance).ok();
        }
        if let Some(scale) = self.tuned {
            let width = scale.half_width(&scores, ALPHA).unwrap();
            self.tuned_missed |= gap > width;
            self.tuned_width = Some(width);
        }
    }

    fn note(&self, notes: &mut Notes) {
        let flag = |flag: bool| f64::from(u8::from(flag));
        notes.add("naive_any_look_miscoverage", flag(self.naive_missed));
        notes.add(
            "cs_fixed_scale_any_look_miscoverage",
            flag(self.fixed_missed),
        );
        notes.add("cs_fixed_scale_final_mean_half_width", self.fixed_width);
        notes.add(
            "cs_tuned_scale_any_look_miscoverage",
            flag(self.tuned_missed),
        );
        notes.add(
            "cs_tuned_scale_started_share",
            flag(self.tuned_width.is_some()),
        );
        if let Some(width) = self.tuned_width {
            notes.add("cs_tuned_scale_final_mean_half_width", width);
        }
    }
}
