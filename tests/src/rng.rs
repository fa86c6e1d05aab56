//! Chance from a printed seed.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A small generator whose sequence never changes (SplitMix64), so that a seed names a case for ever.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of a seed.
    #[must_use]
    pub const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of a fresh seed, or that of the variable `PODIUM_TEST_SEED`. Prints the seed, which a failing test shows.
    #[must_use]
    pub fn printed() -> Self {
        let seed = match std::env::var("PODIUM_TEST_SEED") {
            Ok(seed) => seed.parse().expect("PODIUM_TEST_SEED must be a number"),
            Err(_) => RandomState::new().build_hasher().finish(),
        };
        println!("PODIUM_TEST_SEED={seed}");
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.bits() % n as u64).unwrap()
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
