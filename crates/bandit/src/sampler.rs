//! Fast draws from beta and Gaussian–gamma posteriors.

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use crate::student::ValuePosterior;

/// Draws from Gamma(shape, 1), its constants computed beforehand.
///
/// Source: Marsaglia & Tsang, *A simple method for generating gamma variables*, ACM TOMS 26
/// (2000), 363–372; their section 6 for shapes below 1.
#[derive(Clone, Copy, Debug)]
struct Gamma {
    d: f64,
    c: f64,
    /// 1 / shape where the shape is below 1, else 0.
    boost: f64,
}

impl Gamma {
    fn new(shape: f64) -> Self {
        let (raised, boost) = if shape < 1.0 {
            (shape + 1.0, 1.0 / shape)
        } else {
            (shape, 0.0)
        };
        let d = raised - 1.0 / 3.0;
        Self {
            d,
            c: 1.0 / (9.0 * d).sqrt(),
            boost,
        }
    }

    #[inline]
    fn draw(&self, rng: &mut impl Rng) -> f64 {
        let gamma = self.d * self.cube(rng);
        if self.boost > 0.0 {
            return gamma * open_uniform(rng).powf(self.boost);
        }
        gamma
    }

    #[inline]
    fn cube(&self, rng: &mut impl Rng) -> f64 {
        loop {
            let x: f64 = rng.sample(StandardNormal);
            let root = 1.0 + self.c * x;
            if root <= 0.0 {
                continue;
            }
            let cube = root * root * root;
            let u = open_uniform(rng);
            let square = x * x;
            // The squeeze spares the logarithms nearly always.
            if u < 1.0 - 0.0331 * square * square
                || u.ln() < 0.5 * square + self.d * (1.0 - cube + cube.ln())
            {
                return cube;
            }
        }
    }
}

/// Uniform on (0, 1).
#[inline]
pub(crate) fn open_uniform(rng: &mut impl Rng) -> f64 {
    rng.sample(rand::distr::Open01)
}

/// Draws from a beta distribution: X / (X + Y) of gamma variables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BetaSampler {
    successes: Gamma,
    failures: Gamma,
}

impl BetaSampler {
    /// Parameters above 0.
    pub(crate) fn new(alpha: f64, beta: f64) -> Self {
        Self {
            successes: Gamma::new(alpha),
            failures: Gamma::new(beta),
        }
    }

    #[inline]
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> f64 {
        let (x, y) = (self.successes.draw(rng), self.failures.draw(rng));
        let sum = x + y;
        if sum > 0.0 {
            return x / sum;
        }
        // Tiny parameters: both underflowed, and the rate is next to 0 or 1.
        let share = self.failures.boost / (self.failures.boost + self.successes.boost);
        f64::from(u8::from(open_uniform(rng) < share))
    }
}

/// Draws from the mean of a Gaussian–gamma posterior.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueSampler {
    mean: f64,
    spread: f64,
    precision: Gamma,
}

impl ValueSampler {
    pub(crate) fn new(posterior: &ValuePosterior) -> Self {
        Self {
            mean: posterior.mean(),
            spread: (posterior.rate() / posterior.strength()).sqrt(),
            precision: Gamma::new(posterior.shape()),
        }
    }

    #[inline]
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> f64 {
        let normal: f64 = rng.sample(StandardNormal);
        self.mean + self.spread * normal / self.precision.draw(rng).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;
    use crate::posterior::BetaPosterior;

    #[test]
    fn draws_have_the_posteriors_mean_and_variance() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        for (a, b) in [(0.3, 0.5), (1.0, 1.0), (1.0, 49.0), (12.0, 800.0)] {
            let posterior = BetaPosterior::new(a, b).unwrap();
            let sampler = BetaSampler::new(a, b);
            let n = 20_000;
            let draws: Vec<_> = (0..n).map(|_| sampler.draw(&mut rng)).collect();
            let mean = draws.iter().sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
            let se = (posterior.variance() / f64::from(n)).sqrt();
            assert!((mean - posterior.mean()).abs() < 4.0 * se, "{a} {b} {mean}");
            assert!(
                (variance / posterior.variance() - 1.0).abs() < 0.08,
                "{a} {b}"
            );
        }
    }

    #[test]
    fn tiny_parameters_give_rates_not_nan() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let sampler = BetaSampler::new(1e-3, 1e-3);
        assert!((0..2_000).all(|_| (0.0..=1.0).contains(&sampler.draw(&mut rng))));
    }
}
