//! The p-value that holds at every level and at every look.
//!
//! Level a spends a·g by the time g of alpha is spent, so the boundaries of different levels are
//! nested: a smaller level has higher bounds at every look. Hence there is a smallest level at
//! which some look so far crossed; that is the p-value. It is at most a exactly when the boundary
//! of level a was crossed, and it never rises.

use crate::stats::StatsError;
use crate::stats::group_sequential::Boundary;
use crate::stats::special::norm_sf;

/// The smallest p-value that is reported.
pub const LEAST_P: f64 = 1e-9;
/// Width of the search for a p-value, in its logarithm.
const WIDTH: f64 = 1e-4;
/// Levels so near to 1 are not told apart from 1: a boundary must leave something unspent.
const LARGEST_LEVEL: f64 = 1.0 - 1e-6;
/// Rounds of the search; two or three are usual.
const ROUNDS: u32 = 60;

/// A look as the recursion sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// Information at the look.
    pub information: f64,
    /// The share of alpha that is spent by it, in 0..=1.
    pub fraction: f64,
}

/// The bounds of `looks` on z, for the boundary of level `level`; `None` where a look adds nothing to
/// what was spent.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a level outside (0, 1), information that does not increase, or
/// fractions that decrease.
pub fn bounds(looks: &[Spent], level: f64) -> Result<Vec<Option<f64>>, StatsError> {
    if !(level > 0.0 && level < 1.0) {
        return Err(StatsError::InvalidInput);
    }
    let level = level.min(LARGEST_LEVEL);
    let mut boundary = Boundary::new();
    let looks = looks.iter();
    looks
        .map(|look| boundary.look(look.information, level * look.fraction))
        .collect()
}

/// The bound of the last of `looks`.
fn last_bound(looks: &[Spent], level: f64) -> Result<Option<f64>, StatsError> {
    Ok(bounds(looks, level)?.pop().flatten())
}

/// The p-value after the last of `looks`, at which the statistic was `z`, from the one before
/// (1 before the first look).
///
/// `known` is a level whose bound at this look is known; the answer is on the same side of that
/// level as z is of the bound, which a search that ends at some width could otherwise miss.
///
/// # Errors
/// As [`bounds`]; [`StatsError::InvalidInput`] for z that is not a number.
pub fn p_value(
    looks: &[Spent],
    z: f64,
    before: f64,
    known: Option<(f64, f64)>,
) -> Result<f64, StatsError> {
    let Some((last, earlier)) = looks.split_last() else {
        return Err(StatsError::InvalidInput);
    };
    let tail = norm_sf(z);
    if tail.is_nan() {
        return Err(StatsError::InvalidInput);
    }
    let added = last.fraction - earlier.last().map_or(0.0, |look| look.fraction);
    // A path that is above z at this look alone has crossed no level below this one.
    let lowest = tail / last.fraction;
    if added <= 0.0 || lowest >= before || before <= LEAST_P {
        return Ok(before);
    }
    if earlier.iter().all(|look| look.fraction <= 0.0) {
        return Ok(on_its_side(lowest.max(LEAST_P), z, known).min(before));
    }
    let highest = (tail / added).min(before);
    // Crossed at every level that is reported. A tail that floats cannot hold has no logarithm to search in.
    if highest <= LEAST_P {
        return Ok(on_its_side(LEAST_P, z, known).min(before));
    }
    Bracket::new(lowest, highest).search(looks, z, before, known)
}

/// Whether looks, one after the other, reach the boundary of one level.
///
/// The recursion is carried on only when a look comes near: where the tail of z alone is larger
/// than all that was spent, the bound is out of reach. So following many experiments is cheap.
#[derive(Clone, Debug)]
pub struct Crossing {
    level: f64,
    boundary: Boundary,
    looks: usize,
    bound: Option<f64>,
}

impl Crossing {
    /// Before the first look.
    #[must_use]
    pub fn new(level: f64) -> Self {
        Self {
            level,
            boundary: Boundary::new(),
            looks: 0,
            bound: None,
        }
    }

    /// Whether `z` reaches the bound of the last of `looks`, which begin with those of the call
    /// before.
    ///
    /// # Errors
    /// As [`bounds`].
    pub fn reaches(&mut self, looks: &[Spent], z: f64) -> Result<bool, StatsError> {
        Ok(self.bound(looks, z)?.is_some_and(|bound| z >= bound))
    }

    /// The bound of the last of `looks`, as [`Self::reaches`]; none where `z` is far below it, or where
    /// the look adds nothing to what was spent.
    ///
    /// # Errors
    /// As [`bounds`].
    pub fn bound(&mut self, looks: &[Spent], z: f64) -> Result<Option<f64>, StatsError> {
        let spent = looks.last().map_or(0.0, |look| look.fraction);
        if norm_sf(z) > self.level * spent {
            return Ok(None);
        }
        for look in looks.iter().skip(self.looks) {
            let total = self.level.min(LARGEST_LEVEL) * look.fraction;
            self.bound = self.boundary.look(look.information, total)?;
            self.looks += 1;
        }
        Ok(self.bound)
    }
}

/// Logarithms of two levels: z does not cross at the lower one and does at the upper one; with how
/// far z is above the bound at each, where that is known.
#[derive(Clone, Copy)]
struct Bracket {
    low: (f64, Option<f64>),
    high: (f64, Option<f64>),
}

impl Bracket {
    fn new(low: f64, high: f64) -> Self {
        Self {
            low: (low.ln(), None),
            high: (high.ln(), None),
        }
    }

    /// Takes up that z is `margin` above the bound of the level with the logarithm `at`.
    fn narrow(&mut self, at: f64, margin: f64) {
        if at <= self.low.0 || at >= self.high.0 {
            return;
        }
        if margin >= 0.0 {
            self.high = (at, Some(margin));
        } else {
            self.low = (at, Some(margin));
        }
    }

    fn width(&self) -> f64 {
        self.high.0 - self.low.0
    }

    /// Where the margin would be 0 if it were linear, else the middle.
    fn guess(&self) -> f64 {
        let middle = 0.5 * (self.low.0 + self.high.0);
        match (self.low.1, self.high.1) {
            (Some(low), Some(high)) if high > low => self.low.0 - low * self.width() / (high - low),
            _ => middle,
        }
    }

    fn search(
        mut self,
        looks: &[Spent],
        z: f64,
        before: f64,
        known: Option<(f64, f64)>,
    ) -> Result<f64, StatsError> {
        let margin = |ln_level: f64| {
            let bound = last_bound(looks, ln_level.exp().min(LARGEST_LEVEL))?;
            Ok::<_, StatsError>(bound.map_or(f64::NEG_INFINITY, |bound| z - bound))
        };
        // The upper end is certain unless it is the p-value so far.
        let at_high = margin(self.high.0)?;
        if at_high < 0.0 && self.high.0 >= before.ln() {
            return Ok(before);
        }
        self.high.1 = Some(at_high.max(0.0));
        let least = LEAST_P.ln();
        if self.low.0 < least {
            let at_least = margin(least)?;
            if at_least >= 0.0 {
                return Ok(LEAST_P);
            }
            self.narrow(least, at_least);
        }
        if let Some((level, bound)) = known {
            self.narrow(level.ln(), z - bound);
        }
        for _ in 0..ROUNDS {
            if self.width() <= WIDTH {
                break;
            }
            let width = self.width();
            let guess = self.guess();
            // Both sides of the guess: where it is good, the next two points enclose the root.
            for at in [guess - 0.4 * WIDTH, guess + 0.4 * WIDTH] {
                if at > self.low.0 && at < self.high.0 {
                    self.narrow(at, margin(at)?);
                }
            }
            if self.width() > 0.5 * width {
                let middle = 0.5 * (self.low.0 + self.high.0);
                self.narrow(middle, margin(middle)?);
            }
        }
        Ok(on_its_side(self.high.0.exp(), z, known).min(before))
    }
}

/// Keeps rounding from carrying p over a level whose bound is known.
fn on_its_side(p: f64, z: f64, known: Option<(f64, f64)>) -> f64 {
    match known {
        Some((level, bound)) if z >= bound => p.min(level),
        Some((level, _)) if p <= level => level.next_up(),
        _ => p,
    }
}
