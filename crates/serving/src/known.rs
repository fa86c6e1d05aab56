//! Assignments remembered from the table, in bounded memory.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use podium_domain::rollout::Told;
use podium_storage::assignments::Stored;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use siphasher::sip128::{Hasher128, SipHasher13};

/// What is remembered of one unit in one experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The stored assignment.
    pub stored: Stored,
    /// Version of the definitions under which `is_split` and `told` were found.
    pub version: i64,
    /// Whether the weights of that version give the same variant.
    pub is_split: bool,
    /// What the promotion of that version, if there is one, makes of the unit.
    pub told: Told,
}

/// A bounded cache keyed by a 128-bit digest of experiment and unit. The digest is keyed with secrets of the process, so
/// nobody can make two units collide on purpose; by chance it happens once in 10^27 pairs.
///
/// That a unit has no assignment is never remembered: the next moment another replica may store one (a login, a variant that
/// a client names, a larger allocation), and a unit that was told a variant there must not hear another one, or lose an
/// event, here.
pub struct KnownUnits {
    entries: ByDigest<Known>,
    hasher: SipHasher13,
}

type ByDigest<V> =
    Cache<u128, V, UnitWeighter, BuildHasherDefault<Digest>, DefaultLifecycle<u128, V>>;

fn by_digest<V: Clone>(capacity: usize) -> ByDigest<V> {
    Cache::with(
        capacity,
        capacity as u64,
        UnitWeighter,
        BuildHasherDefault::default(),
        DefaultLifecycle::default(),
    )
}

/// SipHash with 128 bits of result, keyed from the keys that the process's hash maps are given.
fn keyed_hasher() -> SipHasher13 {
    let key = || RandomState::new().build_hasher().finish();
    SipHasher13::new_with_keys(key(), key())
}

impl KnownUnits {
    /// Room for `capacity` units.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: by_digest(capacity),
            hasher: keyed_hasher(),
        }
    }

    /// The digest of a unit in an experiment.
    #[must_use]
    pub fn key(&self, experiment_id: i64, unit: &str) -> u128 {
        let mut hasher = self.hasher;
        hasher.write_i64(experiment_id);
        hasher.write(unit.as_bytes());
        hasher.finish128().as_u128()
    }

    /// What is remembered.
    #[must_use]
    pub fn get(&self, key: u128) -> Option<Known> {
        self.entries.get(&key)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.entries.clear();
    }

    /// Remembers an assignment.
    pub fn put(&self, key: u128, known: Known) {
        self.entries.insert(key, known);
    }
}

/// Keys are digests already: their low half serves as the hash.
#[derive(Default)]
pub struct Digest(u64);

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is what is wanted"
    )]
    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }
}
