//! What shoppers like, which only the simulation knows.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Mean click rates of items, from the least to the most liked.
const RATES: (f64, f64) = (0.01, 0.08);
/// How far a rate drifts from its mean, as a part of it.
const DRIFT: f64 = 0.7;

/// The click rates of a shop's items over time.
#[derive(Clone, Debug)]
pub struct World {
    items: Vec<Taste>,
}

#[derive(Clone, Copy, Debug)]
struct Taste {
    mean: f64,
    cycles: f64,
    phase: f64,
}

impl World {
    /// A shop of so many items.
    #[must_use]
    pub fn new(seed: u64, items: usize) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut taste = || Taste {
            // Few items are liked much: squares of uniform numbers.
            mean: RATES.0 + (RATES.1 - RATES.0) * rng.random::<f64>().powi(2),
            cycles: rng.random_range(0.5..1.5),
            phase: rng.random(),
        };
        Self {
            items: (0..items).map(|_| taste()).collect(),
        }
    }

    /// The click rate of an item at a time in [0, 1].
    #[must_use]
    pub fn rate(&self, item: usize, time: f64) -> f64 {
        self.items.get(item).map_or(0.0, |taste| {
            let turn = std::f64::consts::TAU * (taste.cycles * time + taste.phase);
            taste.mean * (1.0 + DRIFT * turn.sin())
        })
    }

    /// The best rate of all items at a time.
    #[must_use]
    pub fn best(&self, time: f64) -> f64 {
        let rates = (0..self.items.len()).map(|item| self.rate(item, time));
        rates.fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_rates_and_the_best_item_changes() {
        let world = World::new(1, 50);
        let best = |time: f64| {
            (0..50).max_by(|a, b| world.rate(*a, time).total_cmp(&world.rate(*b, time)))
        };
        for step in 0..=100 {
            let time = f64::from(step) / 100.0;
            assert!((0..50).all(|item| (0.0..0.2).contains(&world.rate(item, time))));
            assert!(world.best(time) > 0.03);
        }
        assert_ne!(best(0.0), best(0.6));
        assert!(world.rate(50, 0.5) <= 0.0);
    }
}
