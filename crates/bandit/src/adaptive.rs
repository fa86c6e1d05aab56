//! Estimates from data that a bandit assigned.
//!
//! Averages of such data are biased downwards, since bad luck starves an arm of the data that would
//! correct it, and their intervals are too narrow. Weighting by the known propensities repairs that.
//! Assignment is constant within a batch (an update of the weights); binary rewards.
//!
//! Sources: Hadad, Hirshberg, Zhan, Wager & Athey, *Confidence intervals for policy evaluation in
//! adaptive experiments*, PNAS 118 (2021); Zhang, Janson & Murphy, *Inference for batched bandits*,
//! NeurIPS 2020.

use crate::counts::Counts;
use crate::error::{BanditError, in_range, same_length};
use crate::special::{float, float_len};

/// The two-sided 95 % point of the normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// What one batch brought: all its plays had the same propensities.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    propensities: Vec<f64>,
    counts: Vec<Counts>,
    plays: u64,
}

impl Batch {
    /// A batch: probability of each arm, plays and successes of each arm.
    ///
    /// # Errors
    /// [`BanditError::NoArms`]; [`BanditError::Length`]; [`BanditError::OutOfRange`] for a
    /// propensity outside [0, 1], or one of 0 for an arm with plays; [`BanditError::Overflow`].
    pub fn new(propensities: Vec<f64>, counts: Vec<Counts>) -> Result<Self, BanditError> {
        if counts.is_empty() {
            return Err(BanditError::NoArms);
        }
        same_length("propensities", counts.len(), propensities.len())?;
        let mut all = Counts::default();
        for (propensity, counts) in propensities.iter().zip(&counts) {
            let least = if counts.plays() > 0 { 1e-300 } else { 0.0 };
            in_range("propensity", *propensity, least, 1.0)?;
            all = all.merge(*counts)?;
        }
        Ok(Self {
            propensities,
            counts,
            plays: all.plays(),
        })
    }
}

/// An estimate with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error.
    pub se: f64,
}

impl Estimate {
    /// The 95 % interval value ± 1.96 se.
    #[must_use]
    pub fn interval95(&self) -> (f64, f64) {
        let half = Z95 * self.se;
        (self.value - half, self.value + half)
    }
}

/// All estimates of one arm's rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArmEstimates {
    /// The raw average with its Wald error: biased, shown for comparison only. `None` without
    /// plays.
    pub naive: Option<Estimate>,
    /// Mean of 1{a} r / P.
    pub ipw: Estimate,
    /// Mean of the scores m + 1{a} (r − m) / P, m from earlier batches.
    pub aipw: Estimate,
    /// The scores weighted by √P, which evens out their variances: the narrowest.
    pub aipw_sqrt: Estimate,
}

/// A difference of two arms' rates (second minus first), after every batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DifferenceScores {
    /// Plays so far, of any arm.
    pub plays: f64,
    /// Mean of the differences of the arms' AIPW scores.
    pub mean: f64,
    /// Their sample variance.
    pub variance: f64,
}

impl DifferenceScores {
    /// The estimate.
    #[must_use]
    pub fn estimate(&self) -> Estimate {
        Estimate {
            value: self.mean,
            se: (self.variance / self.plays).sqrt(),
        }
    }
}

/// Folds batches in the order in which they happened.
#[derive(Clone, Debug)]
pub struct AdaptiveData {
    totals: Vec<Counts>,
    plays: f64,
    ipw: Vec<Moments>,
    aipw: Vec<Moments>,
    sqrt: Vec<Weighted>,
    /// First and second arm of the difference, its scores, and the batchwise statistic.
    pair: (usize, usize),
    difference: Moments,
    batches: Vec<PairBatch>,
}

/// The two arms of the difference in one batch.
#[derive(Clone, Copy, Debug)]
struct PairBatch {
    first: Counts,
    second: Counts,
}

impl AdaptiveData {
    /// No data; the difference is that of arm `second` minus arm `first`.
    ///
    /// # Errors
    /// [`BanditError::UnknownArm`].
    pub fn new(arms: usize, first: usize, second: usize) -> Result<Self, BanditError> {
        for arm in [first, second] {
            if arm >= arms {
                return Err(BanditError::UnknownArm { arm, arms });
            }
        }
        Ok(Self {
            totals: vec![Counts::default(); arms],
            plays: 0.0,
            ipw: vec![Moments::default(); arms],
            aipw: vec![Moments::default(); arms],
            sqrt: vec![Weighted::default(); arms],
            pair: (first, second),
            difference: Moments::default(),
            batches: Vec::new(),
        })
    }

    /// Adds the next batch; the model of its scores is each arm's rate in the batches before, (s + ½) / (n + 1).
    ///
    /// # Errors
    /// [`BanditError::Length`] for another number of arms; [`BanditError::Overflow`].
    pub fn add(&mut self, batch: &Batch) -> Result<(), BanditError> {
        let models: Vec<_> = self.totals.iter().map(smoothed_rate).collect();
        self.add_with(batch, &models)
    }

    /// Adds the next batch with rates of the arms that are modelled elsewhere. Scores are right on average whatever the
    /// models are, as long as they do not depend on which arms the units of this batch got: they may come from earlier
    /// batches, and from units that were drawn by fixed weights. The closer to the truth, the narrower the estimates.
    ///
    /// # Errors
    /// [`BanditError::Length`] for another number of arms; [`BanditError::OutOfRange`] for a model outside [0, 1];
    /// [`BanditError::Overflow`].
    pub fn add_with(&mut self, batch: &Batch, models: &[f64]) -> Result<(), BanditError> {
        same_length("batch", self.totals.len(), batch.counts.len())?;
        same_length("models", self.totals.len(), models.len())?;
        for model in models {
            in_range("model", *model, 0.0, 1.0)?;
        }
        let mut totals = self.totals.clone();
        for (total, counts) in totals.iter_mut().zip(&batch.counts) {
            *total = total.merge(*counts)?;
        }
        for (arm, model) in models.iter().enumerate() {
            self.add_arm(batch, arm, *model);
        }
        self.add_difference(batch, models);
        let (first, second) = self.pair;
        self.batches.push(PairBatch {
            first: batch.counts[first],
            second: batch.counts[second],
        });
        self.plays += float(batch.plays);
        self.totals = totals;
        Ok(())
    }

    fn add_arm(&mut self, batch: &Batch, arm: usize, model: f64) {
        let (p, counts) = (batch.propensities[arm], batch.counts[arm]);
        let groups = Groups::of(counts, batch.plays);
        let root = p.sqrt();
        for (plays, reward) in groups.played() {
            self.ipw[arm].add(plays, reward / p);
            let score = model + (reward - model) / p;
            self.aipw[arm].add(plays, score);
            self.sqrt[arm].add(plays, root, score);
        }
        self.ipw[arm].add(groups.others, 0.0);
        self.aipw[arm].add(groups.others, model);
        self.sqrt[arm].add(groups.others, root, model);
    }

    fn add_difference(&mut self, batch: &Batch, models: &[f64]) {
        let (first, second) = self.pair;
        let base = models[second] - models[first];
        let mut others = float(batch.plays);
        for (arm, sign) in [(first, -1.0), (second, 1.0)] {
            let groups = Groups::of(batch.counts[arm], batch.plays);
            for (plays, reward) in groups.played() {
                let score = base + sign * (reward - models[arm]) / batch.propensities[arm];
                self.difference.add(plays, score);
                others -= plays;
            }
        }
        self.difference.add(others.max(0.0), base);
    }

    /// Plays and successes of every arm.
    #[must_use]
    pub fn totals(&self) -> &[Counts] {
        &self.totals
    }

    /// The estimates of every arm's rate.
    ///
    /// # Errors
    /// [`BanditError::NotEnoughData`] below two plays.
    pub fn arms(&self) -> Result<Vec<ArmEstimates>, BanditError> {
        (0..self.totals.len()).map(|arm| self.arm(arm)).collect()
    }

    /// The estimates of one arm's rate, whatever is known of the others.
    ///
    /// # Errors
    /// [`BanditError::UnknownArm`]; [`BanditError::NotEnoughData`] below two plays.
    pub fn arm(&self, arm: usize) -> Result<ArmEstimates, BanditError> {
        let arms = self.totals.len();
        let known = self.ipw.get(arm).zip(self.aipw.get(arm));
        let ((ipw, aipw), sqrt) = known
            .zip(self.sqrt.get(arm))
            .ok_or(BanditError::UnknownArm { arm, arms })?;
        Ok(ArmEstimates {
            naive: naive(self.totals[arm]),
            ipw: ipw.estimate()?,
            aipw: aipw.estimate()?,
            aipw_sqrt: sqrt.estimate()?,
        })
    }

    /// The difference by raw averages: biased, shown for comparison only.
    #[must_use]
    pub fn naive_difference(&self) -> Option<Estimate> {
        let (first, second) = (
            naive(self.totals[self.pair.0])?,
            naive(self.totals[self.pair.1])?,
        );
        Some(Estimate {
            value: second.value - first.value,
            se: first.se.hypot(second.se),
        })
    }

    /// The difference of the AIPW scores, from which intervals follow.
    ///
    /// # Errors
    /// [`BanditError::NotEnoughData`] below two plays.
    pub fn difference(&self) -> Result<DifferenceScores, BanditError> {
        Ok(DifferenceScores {
            plays: self.difference.weight,
            mean: self.difference.mean,
            variance: self.difference.variance()?,
        })
    }

    /// The batched least-squares statistic against a difference of `truth`, standard normal when
    /// that is the difference: standardised differences of the batches in which both arms were
    /// played, summed, over the root of their number. Both arms share the variance of all data, since
    /// that of the starved arm alone is biased like its average.
    ///
    /// # Errors
    /// [`BanditError::NotEnoughData`] without such a batch.
    pub fn batched_ols_z(&self, truth: f64) -> Result<f64, BanditError> {
        let (first, second) = self.pair;
        let spread = |arm: usize| {
            let counts = &self.totals[arm];
            let rate = smoothed_rate(counts);
            (
                float(counts.plays()) * rate * (1.0 - rate),
                float(counts.plays()),
            )
        };
        let ((s1, n1), (s2, n2)) = (spread(first), spread(second));
        let variance = (s1 + s2) / (n1 + n2);
        let standardised = |batch: &PairBatch| {
            let (a, b) = (rate(batch.first)?, rate(batch.second)?);
            let (n, m) = (float(batch.first.plays()), float(batch.second.plays()));
            Some((b - a - truth) / (variance * (1.0 / n + 1.0 / m)).sqrt())
        };
        let all: Vec<_> = self.batches.iter().filter_map(standardised).collect();
        let number = float_len(all.len());
        if all.is_empty() {
            return Err(BanditError::NotEnoughData {
                name: "batches",
                got: number,
                required: 1.0,
            });
        }
        Ok(all.iter().sum::<f64>() / number.sqrt())
    }
}

/// (s + ½) / (n + 1): a rate that is never 0 or 1.
fn smoothed_rate(counts: &Counts) -> f64 {
    (float(counts.successes()) + 0.5) / (float(counts.plays()) + 1.0)
}

fn rate(counts: Counts) -> Option<f64> {
    (counts.plays() > 0).then(|| float(counts.successes()) / float(counts.plays()))
}

fn naive(counts: Counts) -> Option<Estimate> {
    let value = rate(counts)?;
    Some(Estimate {
        value,
        se: (value * (1.0 - value) / float(counts.plays())).sqrt(),
    })
}

/// Plays of a batch seen from one arm.
struct Groups {
    successes: f64,
    failures: f64,
    others: f64,
}

impl Groups {
    fn of(counts: Counts, all: u64) -> Self {
        Self {
            successes: float(counts.successes()),
            failures: float(counts.failures()),
            others: float(all.saturating_sub(counts.plays())),
        }
    }

    /// Number of plays and reward.
    fn played(&self) -> [(f64, f64); 2] {
        [(self.successes, 1.0), (self.failures, 0.0)]
    }
}

/// Running mean and squared deviations of values that come in groups of equal ones.
///
/// Source: West, *Updating mean and variance estimates*, Commun. ACM 22 (1979).
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    weight: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, number: f64, value: f64) {
        if number <= 0.0 {
            return;
        }
        let gap = value - self.mean;
        self.weight += number;
        self.mean += gap * number / self.weight;
        self.squares += number * gap * (value - self.mean);
    }

    /// Sample variance, divisor n − 1.
    fn variance(&self) -> Result<f64, BanditError> {
        if self.weight < 2.0 {
            return Err(BanditError::NotEnoughData {
                name: "plays",
                got: self.weight,
                required: 2.0,
            });
        }
        Ok(self.squares / (self.weight - 1.0))
    }

    fn estimate(&self) -> Result<Estimate, BanditError> {
        Ok(Estimate {
            value: self.mean,
            se: (self.variance()? / self.weight).sqrt(),
        })
    }
}

/// Sums of weighted scores: Σh, Σh², Σh x, Σh² x, Σh² x².
#[derive(Clone, Copy, Debug, Default)]
struct Weighted {
    plays: f64,
    h: f64,
    hx: f64,
    hh: f64,
    hhx: f64,
    hhxx: f64,
}

impl Weighted {
    fn add(&mut self, number: f64, weight: f64, score: f64) {
        let square = weight * weight;
        self.plays += number;
        self.h += number * weight;
        self.hx += number * weight * score;
        self.hh += number * square;
        self.hhx += number * square * score;
        self.hhxx += number * square * score * score;
    }

    /// Value Σhx / Σh, variance Σh² (x − value)² / (Σh)².
    fn estimate(&self) -> Result<Estimate, BanditError> {
        if self.plays < 2.0 || self.h <= 0.0 {
            return Err(BanditError::NotEnoughData {
                name: "plays",
                got: self.plays,
                required: 2.0,
            });
        }
        let value = self.hx / self.h;
        let spread = self.hhxx - 2.0 * value * self.hhx + value * value * self.hh;
        Ok(Estimate {
            value,
            se: spread.max(0.0).sqrt() / self.h,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_adaptation_all_estimates_agree() {
        let mut data = AdaptiveData::new(2, 0, 1).unwrap();
        let counts = vec![
            Counts::new(500, 100).unwrap(),
            Counts::new(500, 150).unwrap(),
        ];
        data.add(&Batch::new(vec![0.5, 0.5], counts).unwrap())
            .unwrap();
        let arms = data.arms().unwrap();
        assert!((arms[0].ipw.value - 0.2).abs() < 1e-12);
        assert!((arms[1].naive.unwrap().value - 0.3).abs() < 1e-12);
        assert!((data.difference().unwrap().mean - 0.1).abs() < 1e-12);
        assert!(data.batched_ols_z(0.1).unwrap().abs() < 1e-9);
    }

    #[test]
    fn models_from_elsewhere() {
        let batch = Batch::new(vec![0.5, 0.5], vec![Counts::new(10, 1).unwrap(); 2]).unwrap();
        let [mut own, mut given] = [0, 0].map(|_| AdaptiveData::new(2, 0, 1).unwrap());
        own.add(&batch).unwrap();
        given.add_with(&batch, &[0.5, 0.5]).unwrap();
        assert_eq!(own.arms().unwrap(), given.arms().unwrap());
        let mut near = AdaptiveData::new(2, 0, 1).unwrap();
        near.add_with(&batch, &[0.1, 0.1]).unwrap();
        assert!(near.arm(0).unwrap().aipw.se < 0.8 * own.arm(0).unwrap().aipw.se);
        for wrong in [&[0.1][..], &[0.1, 1.1], &[f64::NAN, 0.1]] {
            assert!(near.add_with(&batch, wrong).is_err());
        }
    }

    #[test]
    fn impossible_batches() {
        let one = vec![Counts::new(1, 1).unwrap()];
        assert!(Batch::new(vec![], vec![]).is_err());
        assert!(Batch::new(vec![0.0], one.clone()).is_err());
        assert!(Batch::new(vec![f64::NAN], one.clone()).is_err());
        assert!(Batch::new(vec![0.5, 0.5], one).is_err());
        assert!(AdaptiveData::new(2, 0, 2).is_err());
        let empty = AdaptiveData::new(2, 0, 1).unwrap();
        assert!(empty.arms().is_err());
        assert!(empty.naive_difference().is_none());
        assert!(empty.batched_ols_z(0.0).is_err());
    }
}
