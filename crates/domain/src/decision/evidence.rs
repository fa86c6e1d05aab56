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
    difference: f64,
    /// Squared standard error of the difference.
    variance: f64,
    control: f64,
    pooled: f64,
    /// N / (N − 1), for proportions.
    correction: f64,
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
    let terms = strata.iter().map(term).collect::<Result<Vec<_>, _>>()?;
    let terms: Vec<_> = terms.into_iter().flatten().collect();
    let several = terms.len() > 1;
    let sum = |part: fn(&Term) -> f64| terms.iter().map(|term| term.weight * part(term)).sum();
    let weight: f64 = sum(|_| 1.0);
    if weight == 0.0 {
        return Err(StatsError::NotEnoughData);
    }
    let variance: f64 = if several {
        sum(|term| term.weight * term.variance * term.correction)
    } else {
        sum(|term| term.weight * term.variance)
    };
    if variance <= 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let (difference, control): (f64, f64) = (sum(|term| term.difference), sum(|term| term.control));
    let pooled: f64 = sum(|term| term.pooled);
    let z = difference / variance.sqrt();
    let information = pooled / variance * pooled;
    if !z.is_finite() || !information.is_finite() {
        return Err(StatsError::InvalidInput);
    }
    Ok(Stratified {
        z,
        effect: difference / weight,
        se: variance.sqrt() / weight,
        baseline: control / weight,
        lift: (control > 0.0).then_some(difference / control),
        information,
        epochs: terms.len(),
    })
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
            Ok(enough.then(|| Term {
                weight: harmonic(a, b),
                difference: treatment - control,
                variance: wider_variance((a.units as f64, var_a), (b.units as f64, var_b)),
                control,
                pooled: (weight_a * control + weight_b * treatment) / (weight_a + weight_b),
                correction: 1.0,
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
        difference: x_b / n_b - x_a / n_a,
        variance: pooled * failures / weight,
        control: x_a / n_a,
        pooled,
        correction: n / (n - 1.0),
    }
}

/// The larger of s_a²/n_a + s_b²/n_b and s²(1/n_a + 1/n_b), s² the common variance within the arms.
fn wider_variance((n_a, var_a): (f64, f64), (n_b, var_b): (f64, f64)) -> f64 {
    let unpooled = var_a / n_a + var_b / n_b;
    let common = ((n_a - 1.0) * var_a + (n_b - 1.0) * var_b) / (n_a + n_b - 2.0);
    unpooled.max(common / n_a + common / n_b)
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
}

impl Counts {
    /// Of all epochs in which both arms have units.
    #[must_use]
    pub fn of(strata: &[Stratum]) -> Self {
        let mut sum = Self::default();
        for Stratum {
            control, treatment, ..
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
        }
        sum
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

    /// Whether the split is more unequal than 80/20.
    #[must_use]
    pub fn is_unequal(&self) -> bool {
        let all = self.control_units as f64 + self.treatment_units as f64;
        (self.least_units() as f64) < UNEQUAL_BELOW * all
    }

    /// Conversions that each arm needs before a look.
    #[must_use]
    pub fn required_conversions(&self) -> i64 {
        if self.is_unequal() {
            MIN_CONVERSIONS_UNEQUAL
        } else {
            MIN_CONVERSIONS
        }
    }
}
