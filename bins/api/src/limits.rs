//! Rate limits: `governor`'s generic cell rate algorithm over tables of a fixed size.
//!
//! A check is one hash, one reading of the clock and one atomic update, without a lock or an allocation. Two clients that
//! share a place of a table share its limit; the hash is keyed with a secret of the process, so nobody can choose whose.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
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

impl Rate {
    fn quota(self) -> Quota {
        let interval = self.per / self.count.max(1);
        let burst = NonZeroU32::new(self.burst).unwrap_or(NonZeroU32::MIN);
        let of_one = Quota::with_period(interval.max(Duration::from_nanos(1)));
        of_one.map_or_else(
            || Quota::per_second(burst),
            |quota| quota.allow_burst(burst),
        )
    }
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

/// What was asked of a limit, in a table of a fixed size.
///
/// A client's place is a keyed hash of who it is, so memory does not grow, whoever calls, and there is nothing to sweep up.
struct Places(Box<[InMemoryState]>);

impl StateStore for Places {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let place = usize::try_from(*key).unwrap_or_default() % self.0.len().max(1);
        match self.0.get(place) {
            Some(state) => state.measure_and_replace(&NotKeyed::NonKey, measure),
            None => measure(None).map(|(outcome, _)| outcome),
        }
    }
}

/// One limit for many clients.
struct Limiter<C: Clock + Clone = MonotonicClock> {
    limiter: RateLimiter<u64, Places, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    hasher: SipHasher13,
}

impl<C: Clock + Clone> Limiter<C> {
    fn new(rate: Rate, places: usize, clock: C) -> Self {
        let key = || RandomState::new().build_hasher().finish();
        let places = (0..places).map(|_| InMemoryState::default()).collect();
        Self {
            limiter: RateLimiter::new(rate.quota(), Places(places), clock.clone()),
            clock,
            hasher: SipHasher13::new_with_keys(key(), key()),
        }
    }

    /// Counts one.
    ///
    /// # Errors
    /// How long to wait, when it is over the limit; then it was not counted.
    fn check(&self, who: &(impl Hash + ?Sized)) -> Result<(), Duration> {
        let mut hasher = self.hasher;
        who.hash(&mut hasher);
        let allowed = self.limiter.check_key(&hasher.finish());
        allowed.map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

/// All limits of the process. Counts are not shared by replicas: a client of several gets the sum.
pub struct Limits {
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
            public: Limiter::new(rates.public, ADDRESSES, MonotonicClock),
            admin: Limiter::new(rates.admin, FEW, MonotonicClock),
            bad_tokens: Limiter::new(rates.bad_tokens, FEW, MonotonicClock),
            promotions: Limiter::new(rates.promotions, FEW, MonotonicClock),
        }
    }

    /// A request on a public route.
    ///
    /// # Errors
    /// 429.
    pub fn public(&self, address: IpAddr) -> Result<(), ApiError> {
        self.public
            .check(&household(address))
            .map_err(ApiError::rate_limited)
    }

    /// A request of a user on a guarded route.
    ///
    /// # Errors
    /// 429.
    pub fn admin(&self, actor: &str) -> Result<(), ApiError> {
        self.admin.check(actor).map_err(ApiError::rate_limited)
    }

    /// A request with a token or key that is not good.
    ///
    /// # Errors
    /// 429.
    pub fn bad_token(&self, address: IpAddr) -> Result<(), ApiError> {
        self.bad_tokens
            .check(&household(address))
            .map_err(ApiError::rate_limited)
    }

    /// A promotion or rollback by a user.
    ///
    /// # Errors
    /// 429.
    pub fn promotion(&self, actor: &str) -> Result<(), ApiError> {
        self.promotions.check(actor).map_err(ApiError::rate_limited)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    /// Twice the largest number that configuration takes.
    const MOST: u32 = 2_000_000;

    fn limiter(count: u32, burst: u32) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let per = Duration::from_secs(1);
        let rate = Rate { count, per, burst };
        (Limiter::new(rate, FEW, clock.clone()), clock)
    }

    fn passed(limiter: &Limiter<FakeRelativeClock>, who: &str, times: u32) -> usize {
        (0..times).filter(|_| limiter.check(who).is_ok()).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (limiter, clock) = limiter(10, 20);
        assert_eq!(passed(&limiter, "a", 100), 20);
        clock.advance(Duration::from_millis(100));
        assert_eq!(passed(&limiter, "a", 100), 1);
        clock.advance(Duration::from_millis(900));
        assert_eq!(passed(&limiter, "a", 100), 9);
        clock.advance(Duration::from_secs(99));
        let rested = passed(&limiter, "a", 100);
        assert_eq!(rested, 20, "a rest fills it, no more");
        assert_eq!(passed(&limiter, "b", 100), 20, "others have their own");
    }

    #[test]
    fn the_wait_that_is_named_is_enough_and_not_too_long() {
        let (limiter, clock) = limiter(2, 1);
        clock.advance(Duration::from_nanos(7));
        assert!(limiter.check("a").is_ok());
        let wait = limiter.check("a").unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        clock.advance(wait - Duration::from_nanos(1));
        assert!(limiter.check("a").is_err());
        clock.advance(Duration::from_nanos(1));
        assert!(limiter.check("a").is_ok());
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trap() {
        let clock = FakeRelativeClock::default();
        for (count, burst) in [(1, MOST), (MOST, MOST), (MOST, 1), (1, 1), (0, 0)] {
            let per = Duration::from_secs(60);
            let limiter = Limiter::new(Rate { count, per, burst }, 1, clock.clone());
            assert!(limiter.check("a").is_ok());
            assert_eq!(limiter.check("a").is_ok(), burst > 1);
            clock.advance(Duration::from_secs(3_600));
            assert!(limiter.check("b").is_ok());
        }
    }
}
