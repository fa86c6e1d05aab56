//! Scores of the epochs that some arms share, and how far they can be trusted.
//!
//! The score of a unit is m + 1{a} (r − m) / P. It is right on average whatever the model m of the arm's rate is, as long as m does not
//! depend on which arm the unit got; and the further m is from the rate, the wider everything becomes: at a rate of 0.5 % a model of one half
//! makes the errors five times as large.
//!
//! | epoch | model |
//! | --- | --- |
//! | even | its own rates. The sum of its scores then is units × average, the plain estimate of an experiment whose split stands still, which is right for any numbers of units that the arms happen to have |
//! | adaptive | rates of all even epochs and of the adaptive ones before. Units of the even share are drawn by fixed weights, so what they did, also later, says nothing about which arm another unit got |
//!
//! Rates are shrunk to the pooled one of the same units, worth one unit; before there are any, that of the epoch stands in for it.

use podium_bandit::adaptive::{AdaptiveData, ArmEstimates, DifferenceScores, Estimate};
use podium_bandit::belief::Belief;
use podium_bandit::{BanditError, Counts, Prior};

use super::{Difference, EpochUnits, LEAST_EFFECTIVE};
use crate::bandit::as_float;

/// Outcomes at the pooled rate with which an arm's rate is smoothed before its least standard error is told from it:
/// z² / 2 at 95 %, as in Agresti & Coull, *Approximate is better than "exact"*, Am. Stat. 52 (1998).
const PSEUDO_OUTCOMES: f64 = 2.0;

/// The scores of a control and another arm (or an arm and itself).
#[derive(Debug)]
pub(super) struct Scores<'e> {
    data: AdaptiveData,
    epochs: Vec<&'e EpochUnits>,
    pair: (usize, usize),
    pooled: Counts,
    enough: bool,
}

impl<'e> Scores<'e> {
    /// Of the epochs that fit.
    pub(super) fn new(
        epochs: &'e [EpochUnits],
        arms: usize,
        pair: (usize, usize),
        fits: impl Fn(&EpochUnits) -> bool,
    ) -> Result<Self, BanditError> {
        let mut data = AdaptiveData::new(arms, pair.0, pair.1)?;
        let epochs = in_order(epochs, fits);
        for epoch in &epochs {
            let models = models(epoch, data.totals())?;
            data.add_with(&epoch.batch()?, &models)?;
        }
        let pooled = sum(data.totals())?;
        let enough = is_enough(&epochs, arms, SUCCESSES) && is_enough(&epochs, arms, FAILURES);
        Ok(Self {
            data,
            epochs,
            pair,
            pooled,
            enough,
        })
    }

    pub(super) fn totals(&self) -> &[Counts] {
        self.data.totals()
    }

    /// What the scores say of an arm's rate; `None` while there is too little to say anything, or the arm has no units: then its scores
    /// are what was modelled.
    pub(super) fn rate(&self, arm: usize) -> Result<Option<ArmEstimates>, BanditError> {
        let has_units = self.totals().get(arm).is_some_and(|own| own.plays() > 0);
        if !has_units || !self.enough {
            return Ok(None);
        }
        let Some(found) = known(self.data.arm(arm))? else {
            return Ok(None);
        };
        let reach = Reach::of(&self.epochs, arm);
        Ok(Some(ArmEstimates {
            aipw: self.widened(found.aipw, reach.mean()),
            aipw_sqrt: self.widened(found.aipw_sqrt, reach.root_weighted()),
            ..found
        }))
    }

    /// Second arm of the pair minus the first, given their rates; `anytime` of the interval that holds at every look.
    pub(super) fn difference(
        &self,
        anytime: impl Fn(&DifferenceScores) -> Option<(f64, f64)>,
    ) -> Result<Option<Difference>, BanditError> {
        let (first, second) = (self.rate(self.pair.0)?, self.rate(self.pair.1)?);
        let Some((first, second)) = first.zip(second) else {
            return Ok(None);
        };
        let Some(scores) = known(self.data.difference())? else {
            return Ok(None);
        };
        let Estimate { value, se } = scores.estimate();
        let least = |arm: usize, rate: ArmEstimates| {
            let units = Reach::of(&self.epochs, arm).mean();
            least_error(rate.aipw.value, units, self.pooled_rate())
        };
        let least = least(self.pair.0, first).hypot(least(self.pair.1, second));
        Ok(Some(Difference {
            estimate: Estimate {
                value,
                se: se.max(least),
            },
            anytime: anytime(&scores),
        }))
    }

    /// What is believed of an arm's rate when it is compared with others.
    pub(super) fn belief(&self, arm: usize) -> Result<Option<Belief>, BanditError> {
        let Some(rate) = self.rate(arm)? else {
            return Ok(None);
        };
        let own = self.totals().get(arm).copied().unwrap_or_default();
        let plays = as_float(own.plays());
        let beforehand = |rate: f64| Prior::site(Some(rate)).beta() + plays;
        let belief = if own.successes() == 0 {
            Belief::none_of(beforehand(self.pooled_rate()))
        } else if own.failures() == 0 {
            Belief::all_of(beforehand(1.0 - self.pooled_rate()))
        } else {
            Belief::normal(rate.aipw.value, rate.aipw.se)
        };
        belief.map(Some)
    }

    /// Units with the outcome that an arm has in effect.
    pub(super) fn effective_outcomes(&self, arm: usize) -> f64 {
        effective(&self.epochs, arm, SUCCESSES)
    }

    fn pooled_rate(&self) -> f64 {
        average(self.pooled)
    }

    fn widened(&self, estimate: Estimate, units: f64) -> Estimate {
        let least = least_error(estimate.value, units, self.pooled_rate());
        Estimate {
            se: estimate.se.max(least),
            ..estimate
        }
    }
}

type Count = fn(&Counts) -> u64;
const SUCCESSES: Count = Counts::successes;
const FAILURES: Count = Counts::failures;

/// Epochs that fit, the even ones first: their models need no others.
fn in_order(epochs: &[EpochUnits], fits: impl Fn(&EpochUnits) -> bool) -> Vec<&EpochUnits> {
    let (mut even, adaptive): (Vec<_>, Vec<_>) = epochs
        .iter()
        .filter(|epoch| fits(epoch))
        .partition(|epoch| epoch.is_even);
    even.extend(adaptive);
    even
}

/// The model of every arm, given what came before.
fn models(epoch: &EpochUnits, before: &[Counts]) -> Result<Vec<f64>, BanditError> {
    let own = if epoch.is_even { &epoch.counts } else { before };
    let (known, present) = (sum(own)?, sum(&epoch.counts)?);
    let pooled = average(if known.plays() > 0 { known } else { present });
    let model = |arm: &Counts| (as_float(arm.successes()) + pooled) / (as_float(arm.plays()) + 1.0);
    Ok(own.iter().map(model).collect())
}

/// Successes per play; 0 without plays.
fn average(counts: Counts) -> f64 {
    as_float(counts.successes()) / as_float(counts.plays()).max(1.0)
}

fn sum(arms: &[Counts]) -> Result<Counts, BanditError> {
    let add = |sum: Counts, arm: &Counts| sum.merge(*arm);
    arms.iter().try_fold(Counts::default(), add)
}

/// Too little data is nothing known, and no error: an arm that was just added must not hide what is known of the others.
fn known<T>(found: Result<T, BanditError>) -> Result<Option<T>, BanditError> {
    match found {
        Err(BanditError::NotEnoughData { .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// How many units an arm has in effect, when each weighs 1 / P: (Σ w)² / Σ w² (Kish 1965). Where the
/// bandit starves an arm, a few units carry its rate; a rate that happens to be low then comes with a variance that is too low,
/// and the interval is not what it says.
fn effective(epochs: &[&EpochUnits], arm: usize, count: Count) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for epoch in epochs {
        let share = epoch.share(arm);
        let units = epoch
            .counts
            .get(arm)
            .map_or(0.0, |own| as_float(count(own)));
        if share > 0.0 {
            sum += units / share;
            squares += units / (share * share);
        }
    }
    if squares > 0.0 {
        sum * sum / squares
    } else {
        0.0
    }
}

/// Whether the arms together have enough of what is counted, in effect.
fn is_enough(epochs: &[&EpochUnits], arms: usize, count: Count) -> bool {
    let mut sum = 0.0;
    (0..arms).any(|arm| {
        sum += effective(epochs, arm, count);
        sum >= LEAST_EFFECTIVE
    })
}

/// Sums over all units of the epochs: 1, 1 / P and √P of an arm.
struct Reach {
    units: f64,
    inverse: f64,
    root: f64,
}

impl Reach {
    fn of(epochs: &[&EpochUnits], arm: usize) -> Self {
        let (mut units, mut inverse, mut root) = (0.0, 0.0, 0.0);
        for epoch in epochs {
            let present: f64 = epoch.counts.iter().map(|own| as_float(own.plays())).sum();
            let share = epoch.share(arm);
            if share > 0.0 {
                units += present;
                inverse += present / share;
                root += present * share.sqrt();
            }
        }
        Self {
            units,
            inverse,
            root,
        }
    }

    /// Units of the arm alone that would tell its rate as exactly as the mean of the scores does, were the model right: the variance
    /// of a score is p (1 − p) / P.
    fn mean(&self) -> f64 {
        if self.inverse > 0.0 {
            self.units * (self.units / self.inverse)
        } else {
            0.0
        }
    }

    /// The same for scores that are weighted by √P.
    fn root_weighted(&self) -> f64 {
        if self.units > 0.0 {
            self.root * (self.root / self.units)
        } else {
            0.0
        }
    }
}

/// The least standard error of a rate that is known from so many units. The spread of the scores goes with the rate: an arm
/// that happens to have no or few outcomes has none, and would be known for certain to be bad. So the variance is never taken to
/// be below that of the rate smoothed towards the pooled one.
fn least_error(rate: f64, units: f64, pooled: f64) -> f64 {
    let rarer = pooled.min(1.0 - pooled);
    if rarer <= 0.0 || units <= 0.0 {
        return 0.0;
    }
    let more = PSEUDO_OUTCOMES / rarer;
    let smoothed = (rate.clamp(0.0, 1.0) * units + pooled * more) / (units + more);
    (smoothed * (1.0 - smoothed) / units).max(0.0).sqrt()
}
