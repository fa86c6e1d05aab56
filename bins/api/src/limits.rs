//! Rate limits: the generic cell rate algorithm (ITU-T I.371) over tables of a fixed size.
//!
//! A table is an array of 64-bit numbers; a client's place in it is a keyed hash of who it is. So a check is one hash and one
//! atomic update, without a lock, an allocation or anything to sweep up, and memory does not grow, whoever calls. Two
//! clients that share a place share its limit; the hash is keyed with a secret of the process, so nobody can choose whose.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use crate::address::household;
use crate::problem::ApiError;

/// Places for addresses on public routes: 1 MiB.
const ADDRESSES: usize = 1 << 17;
/// Places for users, and for addresses with bad tokens.
const FEW: usize = 1 << 12;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many in `per`, in the long run; at least 1.
    pub count: u32,
    /// The stretch that `count` is for.
    pub per: Duration,
    /// How many at once after a rest; at least 1.
    pub burst: u32,
}

/// The limits of configuration.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Requests of an address on public routes.
    pub public: Rate,
    /// Requests of a user on guarded routes.
    pub admin: Rate,
    /// Bad tokens and keys of an address.
    pub bad_tokens: Rate,
    /// Promotions and rollbacks of a user.
    pub promotions: Rate,
}

/// One limit for many clients.
struct Limiter {
    /// For each place the theoretical arrival time: when it will be at rest again, in nanoseconds since the start.
    places: Box<[AtomicU64]>,
    hasher: SipHasher13,
    /// Nanoseconds between two in the long run.
    interval: u64,
    /// How far the arrival time may run ahead.
    tolerance: u64,
}

impl Limiter {
    fn new(rate: Rate, places: usize) -> Self {
        let key = || RandomState::new().build_hasher().finish();
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = (per / u64::from(rate.count.max(1))).max(1);
        Self {
            places: (0..places).map(|_| AtomicU64::new(0)).collect(),
            hasher: SipHasher13::new_with_keys(key(), key()),
            interval,
            tolerance: interval.saturating_mul(u64::from(rate.burst.max(1) - 1)),
        }
    }

    /// Counts one at `now` (nanoseconds since the start).
    ///
    /// # Errors
    /// How long to wait, when it is over the limit; then it was not counted.
    fn check(&self, who: &(impl Hash + ?Sized), now: u64) -> Result<(), Duration> {
        let mut hasher = self.hasher;
        who.hash(&mut hasher);
        let at = usize::try_from(hasher.finish()).unwrap_or_default() % self.places.len().max(1);
        let Some(place) = self.places.get(at) else {
            return Ok(());
        };
        let counted = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrival| {
            let arrival = arrival.max(now);
            (arrival - now <= self.tolerance).then(|| arrival.saturating_add(self.interval))
        });
        match counted {
            Ok(_) => Ok(()),
            Err(arrival) => Err(Duration::from_nanos(
                arrival.saturating_sub(now).saturating_sub(self.tolerance),
            )),
        }
    }
}

/// All limits of the process. Counts are not shared by replicas: a client of several gets the sum.
pub struct Limits {
    start: Instant,
    public: Limiter,
    admin: Limiter,
    bad_tokens: Limiter,
    promotions: Limiter,
}

impl Limits {
    /// Limits that nobody has used yet.
    #[must_use]
    pub fn new(rates: &Rates) -> Self {
        Self {
            start: Instant::now(),
            public: Limiter::new(rates.public, ADDRESSES),
            admin: Limiter::new(rates.admin, FEW),
            bad_tokens: Limiter::new(rates.bad_tokens, FEW),
            promotions: Limiter::new(rates.promotions, FEW),
        }
    }

    fn check(&self, limiter: &Limiter, who: &(impl Hash + ?Sized)) -> Result<(), ApiError> {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        limiter.check(who, now).map_err(ApiError::rate_limited)
    }

    /// A request on a public route.
    ///
    /// # Errors
    /// 429.
    pub fn public(&self, address: IpAddr) -> Result<(), ApiError> {
        self.check(&self.public, &household(address))
    }

    /// A request of a user on a guarded route.
    ///
    /// # Errors
    /// 429.
    pub fn admin(&self, actor: &str) -> Result<(), ApiError> {
        self.check(&self.admin, actor)
    }

    /// A request with a token or key that is not good.
    ///
    /// # Errors
    /// 429.
    pub fn bad_token(&self, address: IpAddr) -> Result<(), ApiError> {
        self.check(&self.bad_tokens, &household(address))
    }

    /// A promotion or rollback by a user.
    ///
    /// # Errors
    /// 429.
    pub fn promotion(&self, actor: &str) -> Result<(), ApiError> {
        self.check(&self.promotions, actor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limiter(count: u32, burst: u32) -> Limiter {
        let per = Duration::from_secs(1);
        Limiter::new(Rate { count, per, burst }, FEW)
    }

    fn passed(limiter: &Limiter, who: &str, times: u32, now: u64) -> usize {
        (0..times)
            .filter(|_| limiter.check(who, now).is_ok())
            .count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limiter = limiter(10, 20);
        assert_eq!(passed(&limiter, "a", 100, 0), 20);
        assert_eq!(passed(&limiter, "a", 100, SECOND / 10), 1);
        assert_eq!(passed(&limiter, "a", 100, SECOND), 9);
        assert_eq!(
            passed(&limiter, "a", 100, 100 * SECOND),
            20,
            "a rest fills it, no more"
        );
        assert_eq!(
            passed(&limiter, "b", 100, 100 * SECOND),
            20,
            "others have their own"
        );
    }

    #[test]
    fn the_wait_that_is_named_is_enough_and_not_too_long() {
        let limiter = limiter(2, 1);
        assert!(limiter.check("a", 7).is_ok());
        let wait = limiter.check("a", 7).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        let then = 7 + u64::try_from(wait.as_nanos()).unwrap();
        assert!(limiter.check("a", then - 1).is_err());
        assert!(limiter.check("a", then).is_ok());
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trap() {
        let limiter = limiter(1, u32::MAX);
        for now in [0, u64::MAX - 1, u64::MAX, 0] {
            let _ = limiter.check("a", now);
        }
        let slow = Rate {
            count: 1,
            per: Duration::MAX,
            burst: 1,
        };
        let limiter = Limiter::new(slow, 1);
        assert!(limiter.check("a", 0).is_ok() && limiter.check("a", SECOND).is_err());
    }
}
