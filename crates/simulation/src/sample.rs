//! Seeded random draws.

use podium_domain::stats::special::{ln_gamma, norm_isf};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Below this expectation a binomial number is drawn by adding up probabilities.
const FEW: f64 = 10.0;

/// A seeded source of random draws.
#[derive(Debug)]
pub struct Sample(Xoshiro256PlusPlus);

impl Sample {
    /// The draws of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// The draws of one run of many.
    #[must_use]
    pub fn of_run(seed: u64, run: u32) -> Self {
        Self::new((seed << 32) | u64::from(run))
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        loop {
            let draw: f64 = self.0.random();
            if draw > 0.0 {
                return draw;
            }
        }
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        norm_isf(self.uniform())
    }

    /// A whole number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// How many of `trials` happen, exactly.
    pub fn binomial(&mut self, trials: i64, probability: f64) -> i64 {
        if trials <= 0 || probability <= 0.0 {
            return 0;
        }
        if probability >= 1.0 {
            return trials;
        }
        if probability > 0.5 {
            return trials - self.binomial(trials, 1.0 - probability);
        }
        let n = trials as f64;
        let drawn = if n * probability < FEW {
            self.few(n, probability)
        } else {
            self.many(n, probability)
        };
        whole(drawn)
    }

    /// By inversion, for a small expectation.
    fn few(&mut self, n: f64, p: f64) -> f64 {
        let odds = p / (1.0 - p);
        let mut probability = (n * (-p).ln_1p()).exp();
        let (mut u, mut k) = (self.uniform(), 0.0);
        while u > probability && k < n {
            u -= probability;
            probability *= odds * (n - k) / (k + 1.0);
            k += 1.0;
        }
        k
    }

    /// Hörmann's transformed rejection (J. Stat. Comput. Simul. 46 (1993), 101–110), for p ≤ ½ and
    /// an expectation of at least 10.
    fn many(&mut self, n: f64, p: f64) -> f64 {
        let spread = (n * p * (1.0 - p)).sqrt();
        let b = 1.15 + 2.53 * spread;
        let a = -0.0873 + 0.0248 * b + 0.01 * p;
        let squeeze = 0.92 - 4.2 / b;
        let alpha = (2.83 + 5.1 / b) * spread;
        let mode = ((n + 1.0) * p).floor();
        let ln_weight = |k: f64| -ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
        loop {
            let u = self.uniform() - 0.5;
            let v = self.uniform();
            let edge = 0.5 - u.abs();
            let k = ((2.0 * a / edge + b) * u + n * p + 0.5).floor();
            if !(0.0..=n).contains(&k) {
                continue;
            }
            if edge >= 0.07 && v <= squeeze {
                return k;
            }
            let height = (v * alpha / (a / (edge * edge) + b)).ln();
            let ratio = ln_weight(k) - ln_weight(mode) + (k - mode) * (p / (1.0 - p)).ln();
            if height <= ratio {
                return k;
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "whole numbers below the number of trials"
)]
fn whole(value: f64) -> i64 {
    value.round() as i64
}
