//! Which order statistics are the limits of a quantile.

use crate::stats::special::{Tails, beta_tails, norm_isf};

/// Tails that agree to so many parts may be equal.
const TIE: f64 = 1e-11;

/// Ranks of the limits of the `q` quantile in a sample of `count`, each with at most `tail` beyond:
/// the largest rank whose order statistic lies above the quantile with at most that chance, and the
/// smallest that lies below it with at most that chance.
pub(in crate::stats) fn limits(count: usize, q: f64, tail: f64) -> (Option<usize>, Option<usize>) {
    let bits = count as f64;
    let (centre, spread) = (
        bits * q + 0.5,
        norm_isf(tail) * (bits * q * (1.0 - q)).sqrt(),
    );
    let order = OrderStatistics { count, q, tail };
    // Ranks are searched as counts of ranks that qualify, from either end.
    let lower = last_true(count, centre - spread, |rank| order.is_rarely_above(rank));
    let upper = last_true(count, bits + 1.0 - (centre + spread), |rank| {
        order.is_rarely_below(count + 1 - rank)
    });
    let found = |rank: usize| (rank > 0).then_some(rank);
    (found(lower), found(upper).map(|rank| count + 1 - rank))
}

/// The largest of 1..=count for which a condition holds that holds up to some number, 0 if none:
/// from a guess outwards in growing steps, then by halving.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the guess is brought between 0 and the count; the conversion saturates"
)]
fn last_true(count: usize, guess: f64, holds: impl Fn(usize) -> bool) -> usize {
    let guess = (guess.max(0.0) as usize).min(count);
    let (mut low, mut high) = (0, count + 1);
    let (mut at, mut step) = (guess.max(1), 1);
    while low + 1 < high {
        if holds(at) {
            low = at;
            at = if high > count {
                at + step
            } else {
                low.midpoint(high)
            };
        } else {
            high = at;
            at = if low == 0 {
                at.saturating_sub(step)
            } else {
                low.midpoint(high)
            };
        }
        at = at.clamp(low + 1, (high - 1).max(low + 1));
        step *= 2;
    }
    low
}

/// Order statistics of a sample beside the true quantile. That of rank r stands for the r-th
/// smallest of as many uniform numbers, a Beta(r, count + 1 − r) variable, beside q.
struct OrderStatistics {
    count: usize,
    q: f64,
    tail: f64,
}

impl OrderStatistics {
    /// P(fewer than `rank` values up to the quantile) at most the tail.
    fn is_rarely_above(&self, rank: usize) -> bool {
        let above = self.tails(rank).sf;
        self.compare(above, || {
            exact::is_fewer_rare(self.count, rank, self.q, self.tail)
        })
    }

    /// P(at least `rank` values up to the quantile) at most the tail.
    fn is_rarely_below(&self, rank: usize) -> bool {
        let below = self.tails(rank).cdf;
        self.compare(below, || {
            exact::is_as_many_rare(self.count, rank, self.q, self.tail)
        })
    }

    fn tails(&self, rank: usize) -> Tails {
        beta_tails(self.q, rank as f64, (self.count + 1 - rank) as f64)
    }

    /// Whether a probability is at most the tail; where rounding may decide, exact arithmetic does.
    fn compare(&self, probability: f64, exact: impl FnOnce() -> Option<bool>) -> bool {
        let near = (probability - self.tail).abs() <= TIE * self.tail;
        let settled = if near { exact() } else { None };
        settled.unwrap_or(probability <= self.tail)
    }
}

mod exact {
    //! Binomial tails compared with a float in integers of any size. Medians at confidence 0.75 and
    //! the like have limits whose tail equals the level exactly.

    use num_bigint::BigUint;

    /// Numbers longer than that are not compared: no tie was ever meant there.
    const BITS: u64 = 100_000;

    /// A float in (0, 1) as numerator over 2^bits.
    fn fraction(value: f64) -> (BigUint, u64) {
        let bits = value.to_bits();
        let (exponent, mantissa) = (bits >> 52, bits & ((1 << 52) - 1));
        let (digits, shift) = if exponent == 0 {
            (mantissa, 1_074)
        } else {
            (mantissa | (1 << 52), 1_075 - exponent)
        };
        let zeros = u64::from(digits.trailing_zeros()).min(shift);
        (BigUint::from(digits >> zeros), shift - zeros)
    }

    /// P(X < rank) ≤ tail for X binomial; `None` where the numbers become too long.
    pub(super) fn is_fewer_rare(count: usize, rank: usize, q: f64, tail: f64) -> Option<bool> {
        is_rare(count, 0..rank, q, tail)
    }

    /// P(X ≥ rank) ≤ tail.
    pub(super) fn is_as_many_rare(count: usize, rank: usize, q: f64, tail: f64) -> Option<bool> {
        is_rare(count, rank..count + 1, q, tail)
    }

    fn is_rare(count: usize, successes: std::ops::Range<usize>, q: f64, tail: f64) -> Option<bool> {
        let ((share, bits), (limit, limit_bits)) = (fraction(q), fraction(tail));
        let trials = u32::try_from(count).ok()?;
        let length = bits.checked_mul(u64::from(trials))?;
        if length > BITS || trials > 2_000 {
            return None;
        }
        let other = (BigUint::from(1_u32) << bits) - &share;
        let mut choices = BigUint::from(1_u32);
        let mut sum = BigUint::ZERO;
        for (x, used) in (0..=count).zip(0_u32..) {
            if successes.contains(&x) {
                sum += &choices * share.pow(used) * other.pow(trials - used);
            }
            choices = choices * (trials - used) / (used + 1);
        }
        // sum / 2^length ≤ limit / 2^limit_bits.
        Some((sum << limit_bits) <= (limit << length))
    }
}
