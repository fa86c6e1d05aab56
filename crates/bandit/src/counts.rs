//! What has been seen of an arm: integer counts that add up exactly, in any order.

use serde::{Deserialize, Serialize};

use crate::error::BanditError;
use crate::special::float;

/// Plays with a known outcome and the successes among them.
///
/// Counts only ever grow and merge by addition, so the order in which plays arrive, and how they
/// were split between parts, leaves no trace: equal plays give equal posteriors, bit for bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawCounts")]
pub struct Counts {
    plays: u64,
    successes: u64,
}

#[derive(Deserialize)]
struct RawCounts {
    plays: u64,
    successes: u64,
}

impl TryFrom<RawCounts> for Counts {
    type Error = BanditError;

    fn try_from(raw: RawCounts) -> Result<Self, BanditError> {
        Self::new(raw.plays, raw.successes)
    }
}

impl Counts {
    /// Counts.
    ///
    /// # Errors
    /// [`BanditError::InvalidCounts`] for more successes than plays.
    pub fn new(plays: u64, successes: u64) -> Result<Self, BanditError> {
        if successes > plays {
            return Err(BanditError::InvalidCounts {
                plays: float(plays),
                successes: float(successes),
            });
        }
        Ok(Self { plays, successes })
    }

    /// Plays with a known outcome.
    #[must_use]
    pub const fn plays(&self) -> u64 {
        self.plays
    }

    /// Successes.
    #[must_use]
    pub const fn successes(&self) -> u64 {
        self.successes
    }

    /// Plays without success.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.plays - self.successes
    }

    /// The counts of both parts.
    ///
    /// # Errors
    /// [`BanditError::Overflow`] beyond 2^64.
    pub fn merge(self, other: Self) -> Result<Self, BanditError> {
        let add = |name, a: u64, b: u64| a.checked_add(b).ok_or(BanditError::Overflow { name });
        Ok(Self {
            plays: add("plays", self.plays, other.plays)?,
            successes: add("successes", self.successes, other.successes)?,
        })
    }
}

/// Plays and successes as a policy reads them: whole, discounted by age, or values as shares of
/// their maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Evidence {
    plays: f64,
    successes: f64,
}

impl Evidence {
    /// Largest number of plays taken.
    const LIMIT: f64 = 1e15;

    /// Evidence.
    ///
    /// # Errors
    /// [`BanditError::InvalidCounts`] unless 0 ≤ successes ≤ plays ≤ 1e15.
    pub fn new(plays: f64, successes: f64) -> Result<Self, BanditError> {
        if plays <= Self::LIMIT && successes >= 0.0 && successes <= plays {
            Ok(Self { plays, successes })
        } else {
            Err(BanditError::InvalidCounts { plays, successes })
        }
    }

    /// The same; where rounding made successes a hair more than plays, they are set to them.
    pub(crate) fn rounded(plays: f64, successes: f64) -> Result<Self, BanditError> {
        let slack = 1e-9 * plays.abs();
        if successes > plays && successes <= plays + slack {
            return Self::new(plays, plays);
        }
        Self::new(plays, successes)
    }

    /// Plays.
    #[must_use]
    pub const fn plays(&self) -> f64 {
        self.plays
    }

    /// Successes.
    #[must_use]
    pub const fn successes(&self) -> f64 {
        self.successes
    }

    /// Plays without success.
    #[must_use]
    pub fn failures(&self) -> f64 {
        self.plays - self.successes
    }
}

impl From<Counts> for Evidence {
    /// Counts beyond 1e15 are scaled down to that many plays at the same rate: no policy tells the
    /// difference, and no arithmetic overflows.
    fn from(counts: Counts) -> Self {
        let (plays, successes) = (float(counts.plays), float(counts.successes));
        if plays <= Self::LIMIT {
            return Self { plays, successes };
        }
        Self {
            plays: Self::LIMIT,
            successes: (successes / plays * Self::LIMIT).min(Self::LIMIT),
        }
    }
}
