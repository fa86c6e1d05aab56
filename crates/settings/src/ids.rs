//! The only place that reaches for randomness: ids that must be distinct, seeds of draws, jitter, and keys that nobody can
//! guess.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};

use chrono::{DateTime, Utc};
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng, TryRng};
use uuid::Uuid;

use crate::Secret;

thread_local! {
    static GENERATOR: RefCell<StdRng> = RefCell::new(seeded());
}

/// A generator seeded from the system, or where that fails from the process's hash keys.
fn seeded() -> StdRng {
    StdRng::try_from_rng(&mut SysRng)
        .unwrap_or_else(|_| StdRng::seed_from_u64(RandomState::new().build_hasher().finish()))
}

/// 128 random bits.
#[must_use]
pub fn random() -> u128 {
    GENERATOR.with_borrow_mut(RngExt::random)
}

/// The seed of one answer's draws.
#[must_use]
pub fn seed() -> u64 {
    GENERATOR.with_borrow_mut(RngExt::random)
}

/// A number uniform in [0, 1).
#[must_use]
pub fn chance() -> f64 {
    GENERATOR.with_borrow_mut(RngExt::random)
}

/// Bytes that nobody can guess, straight from the system.
///
/// # Errors
/// A message when the system gives none.
pub fn secret<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A key of 32 such bytes, as 64 hexadecimal digits.
///
/// # Errors
/// As [`secret`].
pub fn secret_key() -> Result<Secret, String> {
    let bytes = secret::<32>()?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(digits))
}

/// A UUID of version 7 for something that happened at `now`: an event, an upload.
#[must_use]
pub fn uuid_at(now: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default();
    let [bytes @ .., _, _, _, _, _, _] = random().to_le_bytes();
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}
