//! Indices of deterministic policies, and choosing by the best of them.
//!
//! Each formula stands once, as a function of an arm and of what all arms share; the choice and
//! the list of index values use the same one. KL-UCB alone has a shortcut when choosing.

use rand::{Rng, RngExt};

use crate::arms::{Arm, Arms};
use crate::special::{kl_bernoulli, times_divergence};

/// How many standard steps Newton's method may take for a KL-UCB index; about six are usual.
const STEPS: u32 = 100;

/// The arm with the largest score. `replaces(m)` decides whether the m-th of equally good arms
/// takes the place of the one before. NaN never wins.
#[inline]
fn best_by(
    arms: &[Arm],
    score: impl Fn(&Arm) -> f64,
    mut replaces: impl FnMut(u32) -> bool,
) -> Option<usize> {
    let mut best = None;
    let mut top = f64::NEG_INFINITY;
    let mut equals = 1;
    for (number, arm) in arms.iter().enumerate() {
        let value = score(arm);
        if value > top {
            (best, top, equals) = (Some(number), value, 1);
        } else if value >= top {
            equals += 1;
            if best.is_none() || replaces(equals) {
                best = Some(number);
            }
        }
    }
    best
}

/// How ties are broken.
pub(crate) trait Ties {
    /// Whether the m-th of equally good arms replaces the one held.
    fn replace(&mut self, m: u32) -> bool;
}

/// The arm with the lowest number wins.
pub(crate) struct Lowest;

impl Ties for Lowest {
    #[inline]
    fn replace(&mut self, _: u32) -> bool {
        false
    }
}

/// Every one of the best is as likely.
pub(crate) struct Uniform<'a, R: Rng>(pub(crate) &'a mut R);

impl<R: Rng> Ties for Uniform<'_, R> {
    #[inline]
    fn replace(&mut self, m: u32) -> bool {
        self.0.random_range(0..m) == 0
    }
}

/// The arm without known outcome that has the fewest plays in flight, if there is one.
pub(crate) fn unplayed(arms: &Arms, ties: &mut impl Ties) -> Option<usize> {
    if !arms.any_unplayed() {
        return None;
    }
    let score = |arm: &Arm| {
        if arm.is_unplayed() {
            -crate::special::float(arm.in_flight())
        } else {
            f64::NAN
        }
    };
    best_by(arms.as_slice(), score, |m| ties.replace(m))
}

/// The arm with the largest observed rate.
pub(crate) fn greedy(arms: &Arms, ties: &mut impl Ties) -> Option<usize> {
    best_by(arms.as_slice(), |arm| arm.mean, |m| ties.replace(m))
}

/// The arm with the largest index.
pub(crate) fn best(index: Index, arms: &Arms, ties: &mut impl Ties) -> Option<usize> {
    let shared = Shared::of(arms);
    let replaces = |m| ties.replace(m);
    let all = arms.as_slice();
    match index {
        Index::Ucb1 { c } => best_by(all, |arm| shared.ucb1(arm, c), replaces),
        Index::Ucb1Tuned => best_by(all, |arm| shared.ucb1_tuned(arm), replaces),
        Index::Imed => {
            let leader = Leader::of(arms);
            best_by(all, |arm| -leader.imed_fast(arm), replaces)
        }
        Index::KlUcb { c } => best_kl_ucb(all, shared.kl_budget(c), ties),
    }
}

/// The policies with an index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Index {
    /// m + c √(2 ln N / n). Auer, Cesa-Bianchi & Fischer (2002) have c = 1.
    Ucb1 {
        /// Scale of the exploration term, not negative.
        c: f64,
    },
    /// m + √((ln N / n) min(1/4, V)), V = m − m² + √(2 ln N / n). Auer et al. (2002).
    Ucb1Tuned,
    /// Largest q in [m, 1] with n kl(m, q) ≤ ln N + c ln ln N. Garivier & Cappé (2011).
    KlUcb {
        /// Weight of ln ln N; 0 does best in practice.
        c: f64,
    },
    /// n kl(m, max m) + ln n, of which the smallest is played. Honda & Takemura (2015).
    Imed,
}

/// The index of every arm; without plays it is infinite (IMED: minus infinite).
#[must_use]
pub fn index_values(index: Index, arms: &Arms) -> Vec<f64> {
    let shared = Shared::of(arms);
    let leader = Leader::of(arms);
    let value = |arm: &Arm| match index {
        Index::Imed if arm.is_unplayed() => f64::NEG_INFINITY,
        Index::Imed => leader.imed(arm),
        _ if arm.is_unplayed() => f64::INFINITY,
        Index::Ucb1 { c } => shared.ucb1(arm, c),
        Index::Ucb1Tuned => shared.ucb1_tuned(arm),
        Index::KlUcb { c } => {
            kl_upper_bound(arm.mean, shared.kl_budget(c) / arm.evidence().plays())
        }
    };
    arms.as_slice().iter().map(value).collect()
}

/// What the indices of all arms have in common.
struct Shared {
    ln_known: f64,
    /// √(2 ln N).
    root: f64,
}

impl Shared {
    #[inline]
    fn of(arms: &Arms) -> Self {
        let ln_known = arms.known_plays().max(1.0).ln();
        Self {
            ln_known,
            root: (2.0 * ln_known).sqrt(),
        }
    }

    #[inline]
    fn ucb1(&self, arm: &Arm, c: f64) -> f64 {
        arm.mean + c * self.root * arm.inverse_root
    }

    #[inline]
    fn ucb1_tuned(&self, arm: &Arm) -> f64 {
        let variance = arm.mean - arm.mean * arm.mean + self.root * arm.inverse_root;
        let width = self.ln_known * arm.inverse_root * arm.inverse_root;
        arm.mean + (width * variance.min(0.25)).sqrt()
    }

    fn kl_budget(&self, c: f64) -> f64 {
        self.ln_known + c * self.ln_known.max(1.0).ln()
    }
}

/// The largest observed rate, which IMED compares with.
struct Leader {
    best_mean: f64,
    ln_best: f64,
    ln_rest: f64,
}

impl Leader {
    #[inline]
    fn of(arms: &Arms) -> Self {
        let means = arms.as_slice().iter().map(|arm| arm.mean);
        let best_mean = means.fold(0.0, f64::max);
        Self {
            best_mean,
            ln_best: best_mean.ln(),
            ln_rest: (1.0 - best_mean).ln(),
        }
    }

    fn imed(&self, arm: &Arm) -> f64 {
        let plays = arm.evidence().plays();
        // Divergence of the leaders is 0 whatever their number of plays.
        times_divergence(plays, kl_bernoulli(arm.mean, self.best_mean)) + arm.ln_plays
    }

    /// The same from cached logarithms. The difference of entropies loses about n · 1e−16, which
    /// moves no choice that matters.
    #[inline]
    fn imed_fast(&self, arm: &Arm) -> f64 {
        if arm.mean >= self.best_mean {
            return arm.ln_plays;
        }
        let cross = arm.mean * self.ln_best + (1.0 - arm.mean) * self.ln_rest;
        arm.evidence().plays() * (arm.negentropy - cross) + arm.ln_plays
    }
}

/// As [`best_by`] for KL-UCB, where an index costs a Newton iteration: an arm whose index would be
/// below the best so far shows that with one divergence.
fn best_kl_ucb(arms: &[Arm], budget: f64, ties: &mut impl Ties) -> Option<usize> {
    let mut best = None;
    let mut top = f64::NEG_INFINITY;
    let mut equals = 1;
    for (number, arm) in arms.iter().enumerate() {
        let level = budget / arm.evidence().plays();
        if top > arm.mean && kl_bernoulli(arm.mean, top) > level * (1.0 + 1e-9) {
            continue;
        }
        let value = kl_upper_bound(arm.mean, level);
        if value > top {
            (best, top, equals) = (Some(number), value, 1);
        } else if value >= top {
            equals += 1;
            if best.is_none() || ties.replace(equals) {
                best = Some(number);
            }
        }
    }
    best
}

/// Largest q in [m, 1] with kl(m, q) ≤ `level`.
///
/// The divergence is convex in q and the start lies above the root, so Newton's method falls
/// towards it monotonely; near q = 1 it would leave the interval, and a bisection helps out.
#[must_use]
pub fn kl_upper_bound(m: f64, level: f64) -> f64 {
    if level.is_nan() || m.is_nan() {
        return f64::NAN;
    }
    if m >= 1.0 || level <= 0.0 {
        return m;
    }
    if m <= 0.0 {
        // kl(0, q) = −ln(1 − q).
        return -(-level).exp_m1();
    }
    // Pinsker's inequality gives an upper bound.
    let mut high = (m + (0.5 * level).sqrt()).min(1.0);
    let mut low = m;
    let mut q = if high < 1.0 { high } else { 0.5 * (m + 1.0) };
    for _ in 0..STEPS {
        let excess = kl_bernoulli(m, q) - level;
        if excess > 0.0 {
            high = q;
        } else {
            low = q;
        }
        let newton = q - excess * q * (1.0 - q) / (q - m);
        let next = if newton > low && newton < high {
            newton
        } else {
            0.5 * (low + high)
        };
        let moved = (next - q).abs();
        q = next;
        if moved <= 2e-16 * q {
            break;
        }
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "these values are exact")]
    fn upper_bounds_at_the_edges() {
        assert_eq!(kl_upper_bound(1.0, 3.0), 1.0);
        assert_eq!(kl_upper_bound(0.3, 0.0), 0.3);
        assert!(kl_upper_bound(0.3, f64::NAN).is_nan());
        assert!(kl_upper_bound(0.3, f64::INFINITY) <= 1.0);
        let q = kl_upper_bound(1e-9, 1e-12);
        assert!((kl_bernoulli(1e-9, q) / 1e-12 - 1.0).abs() < 1e-6);
    }
}
