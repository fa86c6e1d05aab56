//! A treatment against the control, stratified by epoch.
//!
//! A unit belongs to the epoch of its assignment. Within an epoch the split is constant, so the
//! arms differ by nothing but the treatment; pooled over a change of weights they would also
//! differ in when their units came.

use serde::{Deserialize, Serialize};

use crate::moments::MetricMoments;
use crate::stats::StatsError;
use crate::stats::mean::MeanSummary;
use crate::stats::proportion::Proportion;
use crate::stats::ratio::RatioSummary;

/// Units that each arm of an epoch needs before its mean or ratio counts: below, its variance is
/// too uncertain.
pub const MIN_UNITS_OF_MEAN: i64 = 25;
/// Conversions that each arm needs before a look.
pub const MIN_CONVERSIONS: i64 = 25;
/// The same where the split is more unequal than 80/20, because the normal approximation is worse.
pub const MIN_CONVERSIONS_UNEQUAL: i64 = 100;
/// The smaller arm's share below which a split is called unequal.
const UNEQUAL_BELOW: f64 = 0.2;
/// What rounding may take from a share: 80/20 is not more unequal than 80/20.
const SHARE_ROUNDING: f64 = 1e-9;

/// One arm in one epoch, with centred moments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArmSummary {
    units: i64,
    conversions: i64,
    value: Value,
}

/// What the metric is in an arm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Value {
    /// A share of units.
    Rate,
    /// A mean, or a ratio linearised at its own value.
    Level {
        /// The mean or ratio.
        value: f64,
        /// Variance of one unit's contribution to it.
        unit_variance: f64,
        /// What values are pooled by: units, or the denominator's sum.
        weight: f64,
    },
    /// Not defined yet: too few units, or a denominator of 0.
    Undefined,
}

impl ArmSummary {
    /// An arm of a proportion metric; conversions are its successes.
    #[must_use]
    pub fn proportion(proportion: Proportion) -> Self {
        Self {
            units: proportion.units(),
            conversions: proportion.successes(),
            value: Value::Rate,
        }
    }

    /// An arm of a mean metric; `conversions` are units with a value other than 0.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for conversions that are negative or more than the units.
    pub fn mean(summary: &MeanSummary, conversions: i64) -> Result<Self, StatsError> {
        let level = Value::Level {
            value: summary.mean(),
            unit_variance: summary.variance(),
            weight: summary.n() as f64,
        };
        Self::of_level(summary.n(), conversions, level)
    }

    /// An arm of a ratio metric with the denominator's sum; `conversions` are units with a
    /// numerator other than 0.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for conversions that are negative or more than the units, or a
    /// denominator that is not finite.
    pub fn ratio(
        summary: &RatioSummary,
        denominator: f64,
        conversions: i64,
    ) -> Result<Self, StatsError> {
        if !denominator.is_finite() {
            return Err(StatsError::InvalidInput);
        }
        let level = Value::Level {
            value: summary.ratio(),
            unit_variance: summary.se2() * summary.n() as f64,
            weight: denominator,
        };
        Self::of_level(summary.n(), conversions, level)
    }

    fn of_level(units: i64, conversions: i64, level: Value) -> Result<Self, StatsError> {
        if !(0..=units).contains(&conversions) {
            return Err(StatsError::InvalidInput);
        }
        let value = if units < 2 { Value::Undefined } else { level };
        Ok(Self {
            units,
            conversions,
            value,
        })
    }

    /// From exact sums; `conversions` as for the kind of metric (a proportion brings its own).
    ///
    /// # Errors
    /// As the constructor of the kind; [`StatsError::InvalidInput`] for sums that contradict each
    /// other. An arm without enough units is no error: its epoch does not count yet.
    pub fn from_moments(moments: &MetricMoments, conversions: i64) -> Result<Self, StatsError> {
        let undefined = |units| Self::of_level(units, conversions, Value::Undefined);
        match moments {
            MetricMoments::Proportion(proportion) => Ok(Self::proportion(*proportion)),
            MetricMoments::Mean(mean) => match mean.summary() {
                Ok(summary) => Self::mean(&summary, conversions),
                Err(StatsError::NotEnoughData) => undefined(mean.n),
                Err(error) => Err(error),
            },
            MetricMoments::Ratio(ratio) => match ratio.summary() {
                Ok(summary) => {
                    let denominator = ratio.denominator().mean()? * ratio.n as f64;
                    Self::ratio(&summary, denominator, conversions)
                }
                Err(StatsError::NotEnoughData | StatsError::DegenerateDenominator) => {
                    undefined(ratio.n)
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Units, those without any event included.
    #[must_use]
    pub fn units(&self) -> i64 {
        self.units
    }

    /// Units that converted, or have a value other than 0.
    #[must_use]
    pub fn conversions(&self) -> i64 {
        self.conversions
    }

    /// The rate, mean or ratio; `None` where it is not defined yet.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        match self.value {
            Value::Rate => (self.units > 0).then(|| self.conversions as f64 / self.units as f64),
            Value::Level { value, .. } => Some(value),
            Value::Undefined => None,
        }
    }

    /// Variance of one unit's contribution to the value.
    #[must_use]
    pub fn unit_variance(&self) -> Option<f64> {
        match self.value {
            Value::Rate => self.value().map(|rate| rate * (1.0 - rate)),
            Value::Level { unit_variance, .. } => Some(unit_variance),
            Value::Undefined => None,
        }
    }
}

/// Control and treatment in one epoch in which both had traffic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stratum {
    /// The control.
    pub control: ArmSummary,
    /// The treatment.
    pub treatment: ArmSummary,
    /// The treatment's planned part of the traffic of the two, from the weights in force.
    pub treatment_share: f64,
}

impl Stratum {
    /// Whether the metric is a share of units.
    #[must_use]
    pub fn is_proportion(&self) -> bool {
        matches!(
            (self.control.value, self.treatment.value),
            (Value::Rate, Value::Rate)
        )
    }
}

/// The statistic of a treatment over all its epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stratified {
    /// Σ w d / √(Σ w² v).
    pub z: f64,
    /// The difference treatment − control, Σ w d / Σ w.
    pub effect: f64,
    /// Its standard error.
    pub se: f64,
    /// The control's value, Σ w m_a / Σ w.
    pub baseline: f64,
    /// Effect over baseline, a fraction; absent where the baseline is not above 0.
    pub lift: Option<f64>,
    /// Relative information: (Σ w M)² / Σ w² v, the squared inverse of the relative standard error.
    pub information: f64,
    /// Epochs that counted.
    pub epochs: usize,
}

/// What an epoch adds.
struct Term {
    /// w = n_a n_b / (n_a + n_b).
    weight: f64,
    control: f64,
    treatment: f64,
    /// Squared standard error of the difference, if there is none.
    variance: f64,
    pooled: f64,
    /// N / (N − 1), for proportions.
    correction: f64,
    spread: Spread,
}

/// What the variance of a contrast follows from.
enum Spread {
    /// Units and successes, control first.
    Rates([f64; 2], [f64; 2]),
    /// Units and variances of a unit's contribution, control first.
    Levels([f64; 2], [f64; 2]),
}

impl Term {
    fn difference(&self) -> f64 {
        self.treatment - self.control
    }

    /// Squared standard error of the treatment's value minus `ratio` times the control's, if the true values differ by
    /// that ratio; at the ratio 1 that of the statistic.
    fn variance_at(&self, ratio: f64) -> f64 {
        match self.spread {
            Spread::Rates([n_a, n_b], [x_a, x_b]) => {
                let p_a = restricted_rate([n_a, n_b], [x_a, x_b], ratio);
                let p_b = (ratio * p_a).min(1.0);
                p_b * (1.0 - p_b) / n_b + ratio * ratio * (p_a * (1.0 - p_a) / n_a)
            }
            Spread::Levels(n, variances) => wider_variance(n, variances, ratio),
        }
    }

    /// Squared standard error of the difference, whatever it is.
    fn variance_unpooled(&self) -> f64 {
        match self.spread {
            Spread::Rates([n_a, n_b], _) => {
                let of = |p: f64, n: f64| p * (1.0 - p) / n;
                of(self.control, n_a) + of(self.treatment, n_b)
            }
            Spread::Levels(..) => self.variance,
        }
    }
}

/// The control's likeliest rate where the treatment's is `ratio` times as large: the smaller root of
/// N ρ p² − (n_b ρ + x_b + n_a + x_a ρ) p + x_a + x_b.
///
/// # Source
/// Miettinen & Nurminen, Statist. Med. 4 (1985), 213–226.
fn restricted_rate([n_a, n_b]: [f64; 2], [x_a, x_b]: [f64; 2], ratio: f64) -> f64 {
    let square = (n_a + n_b) * ratio;
    let linear = (n_b + x_a) * ratio + x_b + n_a;
    let successes = x_a + x_b;
    let root = (linear * linear - 4.0 * square * successes).max(0.0).sqrt();
    // In this form the two large terms are added, not subtracted.
    2.0 * successes / (linear + root)
}

/// A treatment's value minus a multiple of the control's, over all epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contrast {
    /// Σ w (m_b − ρ m_a) / Σ w.
    pub value: f64,
    /// Its standard error, if it is 0 in truth.
    pub se: f64,
}

/// The epochs of a treatment that count, ready for one contrast after another.
pub struct Contrasts {
    terms: Vec<Term>,
    weight: f64,
}

impl Contrasts {
    /// Of the epochs of a treatment.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] when epochs are of different kinds; [`StatsError::NotEnoughData`] when none counts.
    pub fn of(strata: &[Stratum]) -> Result<Self, StatsError> {
        let terms = strata.iter().map(term).collect::<Result<Vec<_>, _>>()?;
        let terms: Vec<_> = terms.into_iter().flatten().collect();
        let weight: f64 = terms.iter().map(|term| term.weight).sum();
        if weight == 0.0 {
            return Err(StatsError::NotEnoughData);
        }
        Ok(Self { terms, weight })
    }

    fn sum(&self, part: impl Fn(&Term) -> f64) -> f64 {
        self.terms.iter().map(|term| term.weight * part(term)).sum()
    }

    /// Σ w² v, with the factor for proportions where there are several epochs.
    fn variance(&self, of: impl Fn(&Term) -> f64) -> f64 {
        if self.terms.len() > 1 {
            self.sum(|term| term.weight * of(term) * term.correction)
        } else {
            self.sum(|term| term.weight * of(term))
        }
    }

    /// The control's value, Σ w m_a / Σ w.
    #[must_use]
    pub fn baseline(&self) -> f64 {
        self.sum(|term| term.control) / self.weight
    }

    /// The treatment's value over the control's, weighted alike; `None` where the control's is not above 0.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let control = self.sum(|term| term.control);
        (control > 0.0).then(|| self.sum(|term| term.treatment) / control)
    }

    /// The treatment minus `ratio` times the control, with the error that it has if that is 0 in truth: every epoch
    /// brings the variance of its own arms, the control's times the squared ratio. At the ratio 1 it is the effect of
    /// [`stratified`], and its error.
    #[must_use]
    pub fn at(&self, ratio: f64) -> Contrast {
        let value = self.sum(|term| term.treatment - ratio * term.control);
        Contrast {
            value: value / self.weight,
            se: self.variance(|term| term.variance_at(ratio)).sqrt() / self.weight,
        }
    }

    /// Standard error of the effect whatever it is: without pooling the arms of a proportion.
    #[must_use]
    pub fn se_unpooled(&self) -> f64 {
        self.variance(Term::variance_unpooled).sqrt() / self.weight
    }

    /// The statistic of [`stratified`].
    ///
    /// # Errors
    /// [`StatsError::ZeroVariance`] when nothing varies; [`StatsError::InvalidInput`] for numbers beyond the range of floats.
    pub fn statistic(&self) -> Result<Stratified, StatsError> {
        let variance = self.variance(|term| term.variance);
        if variance <= 0.0 {
            return Err(StatsError::ZeroVariance);
        }
        let (difference, control) = (self.sum(Term::difference), self.sum(|term| term.control));
        let pooled = self.sum(|term| term.pooled);
        let z = difference / variance.sqrt();
        let information = pooled / variance * pooled;
        if !z.is_finite() || !information.is_finite() {
            return Err(StatsError::InvalidInput);
        }
        Ok(Stratified {
            z,
            effect: difference / self.weight,
            se: variance.sqrt() / self.weight,
            baseline: control / self.weight,
            lift: (control > 0.0).then_some(difference / control),
            information,
            epochs: self.terms.len(),
        })
    }
}

/// The stratified statistic of a treatment.
///
/// Per epoch w = n_a n_b/(n_a + n_b), d is the difference, v its squared standard error, M the
/// pooled value. For proportions v = M (1 − M)/w, with the factor N/(N − 1) where there are several
/// epochs; for means and ratios it is the wider of the unpooled and the pooled one, because with
/// heavy tails the mean and the variance of a small arm err together.
///
/// # Errors
/// [`StatsError::InvalidInput`] when epochs are of different kinds;
/// [`StatsError::NotEnoughData`] when no epoch counts yet; [`StatsError::ZeroVariance`] when
/// nothing varies.
///
/// # Source
/// Cochran, Biometrics 10 (1954), 417–451, and Mantel & Haenszel (1959) for the weights and the
/// factor.
pub fn stratified(strata: &[Stratum]) -> Result<Stratified, StatsError> {
    Contrasts::of(strata)?.statistic()
}

/// `None` where the epoch does not count yet.
fn term(stratum: &Stratum) -> Result<Option<Term>, StatsError> {
    let (a, b) = (&stratum.control, &stratum.treatment);
    match (a.value, b.value) {
        (Value::Rate, Value::Rate) => Ok((a.units > 0 && b.units > 0).then(|| rates(a, b))),
        (
            Value::Level {
                value: control,
                unit_variance: var_a,
                weight: weight_a,
            },
            Value::Level {
                value: treatment,
                unit_variance: var_b,
                weight: weight_b,
            },
        ) => {
            let enough = a.units.min(b.units) >= MIN_UNITS_OF_MEAN;
            let (units, variances) = ([a.units as f64, b.units as f64], [var_a, var_b]);
            Ok(enough.then(|| Term {
                weight: harmonic(a, b),
                control,
                treatment,
                variance: wider_variance(units, variances, 1.0),
                pooled: (weight_a * control + weight_b * treatment) / (weight_a + weight_b),
                correction: 1.0,
                spread: Spread::Levels(units, variances),
            }))
        }
        (Value::Rate, Value::Level { .. }) | (Value::Level { .. }, Value::Rate) => {
            Err(StatsError::InvalidInput)
        }
        (Value::Undefined, _) | (_, Value::Undefined) => Ok(None),
    }
}

fn harmonic(a: &ArmSummary, b: &ArmSummary) -> f64 {
    let (n_a, n_b) = (a.units as f64, b.units as f64);
    n_a * (n_b / (n_a + n_b))
}

fn rates(a: &ArmSummary, b: &ArmSummary) -> Term {
    let (n_a, n_b) = (a.units as f64, b.units as f64);
    let (x_a, x_b) = (a.conversions as f64, b.conversions as f64);
    let (n, weight) = (n_a + n_b, harmonic(a, b));
    let (pooled, failures) = ((x_a + x_b) / n, (n_a - x_a + n_b - x_b) / n);
    Term {
        weight,
        control: x_a / n_a,
        treatment: x_b / n_b,
        variance: pooled * failures / weight,
        pooled,
        correction: n / (n - 1.0),
        spread: Spread::Rates([n_a, n_b], [x_a, x_b]),
    }
}

/// The larger of ρ² s_a²/n_a + s_b²/n_b and s²(ρ²/n_a + 1/n_b), s² the common variance within the arms.
fn wider_variance([n_a, n_b]: [f64; 2], [var_a, var_b]: [f64; 2], ratio: f64) -> f64 {
    let square = ratio * ratio;
    let unpooled = square * var_a / n_a + var_b / n_b;
    let common = ((n_a - 1.0) * var_a + (n_b - 1.0) * var_b) / (n_a + n_b - 2.0);
    unpooled.max(square * common / n_a + common / n_b)
}

/// Units and conversions of the two arms over all their epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Units in the control.
    pub control_units: i64,
    /// Units in the treatment.
    pub treatment_units: i64,
    /// Conversions in the control.
    pub control_conversions: i64,
    /// Conversions in the treatment.
    pub treatment_conversions: i64,
    /// Whether the planned split is more unequal than 80/20.
    pub is_unequal: bool,
}

impl Counts {
    /// Of all epochs in which both arms have units.
    #[must_use]
    pub fn of(strata: &[Stratum]) -> Self {
        let mut sum = Self::default();
        let mut planned = 0.0;
        for Stratum {
            control,
            treatment,
            treatment_share,
        } in strata
        {
            if control.units == 0 || treatment.units == 0 {
                continue;
            }
            let add = |sum: &mut i64, count: i64| *sum = sum.saturating_add(count);
            add(&mut sum.control_units, control.units);
            add(&mut sum.treatment_units, treatment.units);
            add(&mut sum.control_conversions, control.conversions);
            add(&mut sum.treatment_conversions, treatment.conversions);
            planned += treatment_share * (control.units as f64 + treatment.units as f64);
        }
        let all = sum.units();
        sum.is_unequal = are_unequal(planned.min(all - planned), all);
        sum
    }

    fn units(&self) -> f64 {
        self.control_units as f64 + self.treatment_units as f64
    }

    /// Units in the smaller arm.
    #[must_use]
    pub fn least_units(&self) -> i64 {
        self.control_units.min(self.treatment_units)
    }

    /// Conversions in the arm with fewer.
    #[must_use]
    pub fn least_conversions(&self) -> i64 {
        self.control_conversions.min(self.treatment_conversions)
    }

    /// Whether the split that was observed is more unequal than 80/20.
    #[must_use]
    pub fn came_out_unequal(&self) -> bool {
        are_unequal(self.least_units() as f64, self.units())
    }

    /// Conversions that each arm needs before a look. The planned shares decide: a split of 80/20 must not be on this
    /// side of the line today and on the other tomorrow.
    #[must_use]
    pub fn required_conversions(&self) -> i64 {
        required_conversions(self.is_unequal)
    }
}

/// Conversions that each arm needs for a normal approximation.
pub(super) fn required_conversions(is_unequal: bool) -> i64 {
    if is_unequal {
        MIN_CONVERSIONS_UNEQUAL
    } else {
        MIN_CONVERSIONS
    }
}

/// Whether the smaller part is less than a fifth, by more than rounding.
fn are_unequal(smaller: f64, all: f64) -> bool {
    smaller < (UNEQUAL_BELOW - SHARE_ROUNDING) * all
}
