//! Bucketing: a pure function from (salt, purpose, unit) to a variant.
//!
//! The same in every process, release and language: everything is integers, and the vectors in
//! `tests/data/buckets.json` pin it. Changing anything here re-buckets every unit, so those
//! vectors must never be edited.
//!
//! A draw `u` is a 64-bit integer, read as the fraction u / 2^64. With W the total weight and C_i
//! the cumulative weight of the first i variants in id order, a unit gets the first variant with
//! u · W < C_i · 2^64; it takes part when u · 1,000,000 < allocation · 2^64, the allocation in
//! ten-thousandths of a percent.

use crate::decimal::Decimal4;
use crate::ids::VariantId;

/// What a draw is for. Different purposes give independent draws, so that changing one share
/// (say, the allocation) does not move units in another (say, the split).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Whether a unit takes part in the experiment.
    Allocation,
    /// Which variant it gets.
    Variant,
    /// At which step of a rollout it moves to the winner.
    Rollout,
    /// Whether it is held back on control after a promotion.
    Holdback,
    /// Whether it stays on the control policy of a bandit.
    BanditControl,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Self; 5] = [
        Self::Allocation,
        Self::Variant,
        Self::Rollout,
        Self::Holdback,
        Self::BanditControl,
    ];

    /// The name that is hashed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allocation => "allocation",
            Self::Variant => "variant",
            Self::Rollout => "rollout",
            Self::Holdback => "holdback",
            Self::BanditControl => "bandit_control",
        }
    }
}

/// How a unit's variant is drawn. Fixed when the experiment is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashVersion {
    /// The rule of an earlier system, for sites that come from it: the unit alone is hashed
    /// ([`draw_v1`]). The same units then get the first variant in *every* such experiment, so
    /// experiments are correlated with each other. Allocation is drawn as in version 2.
    V1,
    /// Salted by the experiment ([`draw`]).
    #[default]
    V2,
}

impl HashVersion {
    /// The version with this number, 1 or 2.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }

    /// 1 or 2.
    #[must_use]
    pub const fn number(self) -> i16 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// Draws for a unit: the first eight bytes, big-endian, of the MD5 of the UTF-8 bytes of
/// `"{salt}/{purpose}:{unit}"`.
///
/// ```
/// use podium_domain::bucketing::{Purpose, draw};
/// let u = draw("Module Order Optimization", Purpose::Variant, "u0");
/// assert_eq!(u, 0xcfec_359a_9a53_ec80);
/// ```
#[must_use]
pub fn draw(salt: &str, purpose: Purpose, unit: &str) -> u64 {
    let mut hash = md5::Context::new();
    hash.consume(salt);
    hash.consume("/");
    hash.consume(purpose.name());
    hash.consume(":");
    hash.consume(unit);
    let [a, b, c, d, e, f, g, h, ..] = hash.finalize().0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Draws for a unit by hash version 1: the first eight hexadecimal digits of the MD5 of the unit,
/// modulo 10,000. The result is in 0 to 9,999 and stands for that many ten-thousandths.
#[must_use]
pub fn draw_v1(unit: &str) -> u32 {
    let [a, b, c, d, ..] = md5::compute(unit).0;
    u32::from_be_bytes([a, b, c, d]) % 10_000
}

/// There is no variant to choose: no weight is above zero, or their sum does not fit 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariantTableError {
    /// No variant has a weight above zero.
    #[error("the total traffic weight is zero")]
    NoTraffic,
    /// The weights add up to more than 64 bits hold.
    #[error("the total traffic weight is too large")]
    TooMuchTraffic,
}

/// The split of an experiment's traffic, prepared for picking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariantTable {
    /// Only variants with a weight above zero, in id order.
    choices: Vec<Choice>,
    total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    index: usize,
    cumulative: u64,
    /// The largest draw that this variant takes: ⌈C · 2^64 / W⌉ − 1. Inclusive, because the last
    /// variant's limit is 2^64 and does not fit.
    last_draw: u64,
}

impl VariantTable {
    /// Prepares the split. Weights are in ten-thousandths (a traffic weight of 50 is 500,000); the
    /// order of the slice does not matter, variants are taken in id order. A variant of weight
    /// zero is never chosen.
    ///
    /// # Errors
    /// [`VariantTableError`] when no weight is above zero, or their sum exceeds 64 bits.
    pub fn new(variants: &[(VariantId, u64)]) -> Result<Self, VariantTableError> {
        let mut order: Vec<usize> = (0..variants.len()).collect();
        order.sort_by_key(|&index| variants[index].0);
        let mut total = 0_u64;
        let mut choices = Vec::with_capacity(variants.len());
        for index in order {
            let weight = variants[index].1;
            if weight > 0 {
                total = total
                    .checked_add(weight)
                    .ok_or(VariantTableError::TooMuchTraffic)?;
                choices.push(Choice {
                    index,
                    cumulative: total,
                    last_draw: 0,
                });
            }
        }
        if total == 0 {
            return Err(VariantTableError::NoTraffic);
        }
        for choice in &mut choices {
            choice.last_draw = last_draw(choice.cumulative, total);
        }
        Ok(Self { choices, total })
    }

    /// The variant for a draw of hash version 2, as an index into the slice that
    /// [`Self::new`] was given: the first with u · W < C_i · 2^64.
    #[must_use]
    pub fn pick(&self, draw: u64) -> usize {
        self.first(|choice| draw <= choice.last_draw)
    }

    /// The variant for a draw of hash version 1 (0 to 9,999), as an index into the slice that
    /// [`Self::new`] was given: the first whose cumulative share is at least draw / 10,000.
    ///
    /// The comparison is `≥`, so the first variant takes one ten-thousandth more than its share,
    /// as it did in the earlier system. A leading variant of weight zero has the cumulative share
    /// zero, which is at least the draw 0; it is left out all the same, because weight zero
    /// promises that nobody new gets it.
    #[must_use]
    pub fn pick_v1(&self, draw: u32) -> usize {
        let target = u128::from(draw) * u128::from(self.total);
        self.first(|choice| u128::from(choice.cumulative) * 10_000 >= target)
    }

    /// The probability with which a draw of hash version 2 picks a variant, by its index in the slice that
    /// [`Self::new`] was given; 0 for a weight of zero.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "weights of a split stay far below 2^53"
    )]
    pub fn share(&self, index: usize) -> f64 {
        let mut below = 0;
        for choice in &self.choices {
            if choice.index == index {
                return (choice.cumulative - below) as f64 / self.total as f64;
            }
            below = choice.cumulative;
        }
        0.0
    }

    /// Draws rise along the table, so the first choice that takes one is the variant; the last
    /// takes what is left.
    fn first(&self, takes: impl Fn(&Choice) -> bool) -> usize {
        let position = self.choices.iter().position(takes);
        let last = self.choices.len().saturating_sub(1);
        self.choices[position.unwrap_or(last)].index
    }
}

/// ⌈C · 2^64 / W⌉ − 1 for 0 < C ≤ W, which always fits.
fn last_draw(cumulative: u64, total: u64) -> u64 {
    let last = ((u128::from(cumulative) << 64) - 1) / u128::from(total);
    u64::try_from(last).unwrap_or(u64::MAX)
}

/// A share of all units, in ten-thousandths of a percent: 0 to 1,000,000.
///
/// Traffic allocation, the steps of a rollout and the holdback are such shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allocation(u32);

impl Allocation {
    /// Everybody.
    pub const FULL: Self = Self(1_000_000);
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// A share in ten-thousandths of a percent; `None` above 1,000,000.
    #[must_use]
    pub const fn from_units(units: u32) -> Option<Self> {
        if units <= Self::FULL.0 {
            Some(Self(units))
        } else {
            None
        }
    }

    /// A share in percent; `None` outside 0 to 100.
    #[must_use]
    pub fn from_percent(percent: Decimal4) -> Option<Self> {
        u32::try_from(percent.units())
            .ok()
            .and_then(Self::from_units)
    }

    /// A share as a fraction, rounded to the units it has; `None` outside 0 to 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked"
    )]
    pub fn from_fraction(fraction: f64) -> Option<Self> {
        let units = (0.0..=1.0)
            .contains(&fraction)
            .then(|| (fraction * f64::from(Self::FULL.0)).round() as u32)?;
        Self::from_units(units)
    }

    /// The share in percent.
    #[must_use]
    pub fn percent(self) -> Decimal4 {
        Decimal4(self.0.into())
    }

    /// Ten-thousandths of a percent, 0 to 1,000,000.
    #[must_use]
    pub const fn units(self) -> u32 {
        self.0
    }

    /// Whether a unit with this draw belongs to the share: u · 1,000,000 < share · 2^64. Raising
    /// the share never throws anyone out.
    #[must_use]
    pub fn admits(self, draw: u64) -> bool {
        u128::from(draw) * u128::from(Self::FULL.0) < u128::from(self.0) << 64
    }
}

/// Everything that decides, without memory, which variant of an experiment a unit gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucketing {
    /// Salt of the experiment; its name at creation unless given.
    pub salt: String,
    /// How the variant is drawn.
    pub version: HashVersion,
    /// Who takes part.
    pub allocation: Allocation,
    /// How those are split.
    pub split: VariantTable,
}

impl Bucketing {
    /// The variant of `unit`, as an index into the slice that the split was made from; `None`
    /// outside the allocation.
    #[must_use]
    pub fn place(&self, unit: &str) -> Option<usize> {
        self.takes_part(unit).then(|| self.variant(unit))
    }

    /// Whether `unit` is inside the allocation.
    #[must_use]
    pub fn takes_part(&self, unit: &str) -> bool {
        self.allocation
            .admits(draw(&self.salt, Purpose::Allocation, unit))
    }

    /// The variant of `unit`, whether or not it takes part.
    #[must_use]
    pub fn variant(&self, unit: &str) -> usize {
        match self.version {
            HashVersion::V1 => self.split.pick_v1(draw_v1(unit)),
            HashVersion::V2 => self.split.pick(draw(&self.salt, Purpose::Variant, unit)),
        }
    }
}

/// How a bandit over variants draws: a share of the units evenly, the others by the weights in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanditSplit {
    /// Share of the units that is split evenly, whatever is learned.
    pub control_share: Allocation,
    /// The even split.
    pub even: VariantTable,
    /// The weights in force; `None` before the first ones: all units are split evenly.
    pub adaptive: Option<VariantTable>,
}

/// What a bandit drew for a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BanditDraw {
    /// The variant, as an index into the slice that the tables were made from.
    pub index: usize,
    /// Whether the unit belongs to the share that is split evenly. Always so before the first weights.
    pub is_even: bool,
    /// Probability of this variant under the split that the unit was drawn from.
    pub propensity: f64,
}

impl BanditSplit {
    /// Draws for a unit, whether or not it takes part in the experiment. The unit is in the even share when its draw for
    /// [`Purpose::BanditControl`] is admitted; its variant is that of its draw for [`Purpose::Variant`] in the table of
    /// its share, always by hash version 2.
    #[must_use]
    pub fn draw(&self, salt: &str, unit: &str) -> BanditDraw {
        let adaptive = self.adaptive.as_ref().filter(|_| {
            !self
                .control_share
                .admits(draw(salt, Purpose::BanditControl, unit))
        });
        let table = adaptive.unwrap_or(&self.even);
        let index = table.pick(draw(salt, Purpose::Variant, unit));
        BanditDraw {
            index,
            is_even: adaptive.is_none(),
            propensity: table.share(index),
        }
    }
}
