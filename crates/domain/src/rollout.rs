//! Who gets what while a promotion is active.
//!
//! With v a unit's own variant (stored, else hashed; none outside the allocation), W the winner, h the share that is held
//! back, s the step and w the winner's share of all traffic before:
//!
//! 1. v = W: W.
//! 2. `u_holdback` < h: control; a unit without a variant of its own keeps having none.
//! 3. `u_rollout` < (s − w) / (1 − w): W.
//! 4. else v.
//!
//! The draws are those of [`crate::bucketing`], so a rollback gives every unit its own variant again without having stored
//! anything, and a higher step throws nobody out. All comparisons are exact, in integers.

use num_bigint::BigUint;
use num_traits::ToPrimitive;

use crate::bucketing::{Allocation, Purpose, draw};

/// The winner's share of all traffic before its promotion: its part of the weights of those who took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareBefore {
    /// Who took part.
    pub allocation: Allocation,
    /// The winner's weight, in ten-thousandths.
    pub weight: u64,
    /// All weights together, not below the winner's.
    pub total: u64,
}

impl ShareBefore {
    /// The share as numerator over `denominator()`, in the unit of allocations.
    fn numerator(self) -> u128 {
        u128::from(self.allocation.units()) * u128::from(self.weight.min(self.total))
    }

    fn denominator(self) -> u128 {
        u128::from(Allocation::FULL.units()) * u128::from(self.total)
    }

    /// Whether a step would give the winner more traffic than it had.
    #[must_use]
    pub fn is_below(self, step: Allocation) -> bool {
        u128::from(step.units()) * u128::from(self.total) > self.numerator()
    }

    /// The step in force when step `from` is asked for, as an index: steps that are not above the share before are
    /// skipped, but never the last one. `None` without steps.
    #[must_use]
    pub fn step(self, steps: &[Allocation], from: usize) -> Option<usize> {
        let last = steps.len().checked_sub(1)?;
        let above = (from..last).find(|&at| steps.get(at).is_some_and(|step| self.is_below(*step)));
        Some(above.unwrap_or(last))
    }
}

/// What a unit is told while a promotion is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Its own variant, as without the promotion.
    Own,
    /// The winner, which is not its own.
    Winner,
    /// The control, because it is held back.
    HeldBack,
}

/// A promotion at one of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    holdback: Allocation,
    /// Units with draws up to this one, included, have moved to the winner.
    last_draw: Option<u64>,
}

impl Rollout {
    /// A step of a promotion.
    #[must_use]
    pub fn new(step: Allocation, holdback: Allocation, before: ShareBefore) -> Self {
        Self {
            holdback,
            last_draw: last_draw(step, before),
        }
    }

    /// What `unit` is told; `own_is_winner` says whether its own variant is the winner.
    #[must_use]
    pub fn told(&self, salt: &str, unit: &str, own_is_winner: bool) -> Told {
        if own_is_winner {
            Told::Own
        } else if self.is_held_back(salt, unit) {
            Told::HeldBack
        } else if self.has_moved(salt, unit) {
            Told::Winner
        } else {
            Told::Own
        }
    }

    /// Whether a unit whose own variant is not the winner stays on the control.
    #[must_use]
    pub fn is_held_back(&self, salt: &str, unit: &str) -> bool {
        self.holdback != Allocation::NONE
            && self.holdback.admits(draw(salt, Purpose::Holdback, unit))
    }

    fn has_moved(&self, salt: &str, unit: &str) -> bool {
        // Everybody has moved at the last step: no draw is needed.
        self.last_draw
            .is_some_and(|last| last == u64::MAX || draw(salt, Purpose::Rollout, unit) <= last)
    }

    /// Of the units whose own variant is not the winner, and that are either held back or moved to it: the share that is
    /// held back. `None` where there is nothing to compare, because one of the groups is empty.
    #[must_use]
    pub fn held_back_share(&self) -> Option<f64> {
        let held = f64::from(self.holdback.units()) / f64::from(Allocation::FULL.units());
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
        let moved = self
            .last_draw
            .map_or(0.0, |last| (last as f64 + 1.0) / 2.0_f64.powi(64));
        let moved = (1.0 - held) * moved;
        (held > 0.0 && moved > 0.0).then(|| held / (held + moved))
    }
}

/// The largest draw below (s − w) / (1 − w) · 2^64, for s above w.
fn last_draw(step: Allocation, before: ShareBefore) -> Option<u64> {
    if step == Allocation::FULL {
        return Some(u64::MAX);
    }
    if !before.is_below(step) {
        return None;
    }
    let had = BigUint::from(before.numerator());
    let gained = BigUint::from(step.units()) * before.total - &had;
    let rest = BigUint::from(before.denominator()) - had;
    // u · rest < gained · 2^64, so the largest u is ⌈gained · 2^64 / rest⌉ − 1.
    (((gained << 64_u32) - 1_u32) / rest).to_u64()
}
