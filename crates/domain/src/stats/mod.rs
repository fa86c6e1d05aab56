//! Statistics: pure functions from sufficient statistics to named results, one module a method.
//!
//! Throughout, arm `a` is the control and arm `b` a treatment; an effect is b − a, a lift b/a − 1
//! as a fraction. Two-sided p-values are twice the smaller tail, from the tail itself. There are no
//! continuity corrections. A case that a method does not define is a [`StatsError`], never a
//! neutral-looking number.
//!
//! | module | method |
//! | --- | --- |
//! | [`proportion`] | two-proportion z, intervals of a proportion and of a difference |
//! | [`fisher`] | Fisher's exact test of two proportions |
//! | [`mean`] | Welch's t |
//! | [`ratio`] | ratio metrics by the delta method |
//! | [`lift`] | relative lift: delta, Fieller, log ratio |
//! | [`srm`] | sample ratio mismatch |
//! | [`bayes`] | beta-binomial and Gaussian comparison |
//! | [`cuped`] | variance reduction with a covariate |
//! | [`winsorize`] | caps for heavy tails |
//! | [`quantile`] | quantiles with order-statistic intervals, ratio guardrail |
//! | [`sketch`] | quantiles from counts by bucket, which merge |
//! | [`noninferiority`] | guardrails with a margin |
//! | [`power`] | sample size, power, minimum detectable effect |
//! | [`multiple`] | adjusted p-values, closed testing with e-values |
//! | [`eprocess`] | exact Bernoulli and multinomial e-processes |
//! | [`group_sequential`] | alpha spending and exact boundaries |
//! | [`mixture`] | normal-mixture sequential tests and confidence sequences |
//! | [`uniform`] | time-uniform boundaries |
//! | [`special`] | distribution functions |

pub mod bayes;
pub mod cuped;
pub mod eprocess;
pub mod fisher;
pub mod group_sequential;
pub mod lift;
pub mod mean;
pub mod mixture;
pub mod multiple;
pub mod noninferiority;
pub mod power;
pub mod proportion;
pub mod quantile;
pub mod ratio;
pub mod sketch;
pub mod special;
pub mod srm;
pub mod uniform;
pub mod winsorize;

use special::{norm_isf, norm_ln_two_sided, norm_sf, norm_two_sided, t_two_sided_tails};

/// Why a method has no answer.
///
/// Input is checked first, then the amount of data, then what the method itself needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StatsError {
    /// A number is not finite, negative, fractional where a count is meant, or out of range; a
    /// level is outside (0, 1); lengths do not match; sums contradict each other.
    #[error("invalid input")]
    InvalidInput,
    /// Too few units for the method.
    #[error("not enough data")]
    NotEnoughData,
    /// The standard error is 0: there is no test.
    #[error("no variance")]
    ZeroVariance,
    /// A relative quantity is asked for, and the control is not above 0.
    #[error("the baseline is not above zero")]
    NonPositiveBaseline,
    /// The logarithm of a value that is not above 0 is needed.
    #[error("a value is not above zero")]
    NonPositiveValue,
    /// A ratio metric whose denominator is 0.
    #[error("the denominator is zero")]
    DegenerateDenominator,
    /// Units in an arm of weight 0.
    #[error("units in an arm without traffic")]
    UnexpectedUsers,
    /// A sample size for an effect of 0.
    #[error("the effect is zero")]
    ZeroEffect,
    /// No effect reaches the power.
    #[error("no effect reaches the power")]
    Unreachable,
}

impl StatsError {
    /// The name, as it stands in the reference numbers and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "InvalidInput",
            Self::NotEnoughData => "NotEnoughData",
            Self::ZeroVariance => "ZeroVariance",
            Self::NonPositiveBaseline => "NonPositiveBaseline",
            Self::NonPositiveValue => "NonPositiveValue",
            Self::DegenerateDenominator => "DegenerateDenominator",
            Self::UnexpectedUsers => "UnexpectedUsers",
            Self::ZeroEffect => "ZeroEffect",
            Self::Unreachable => "Unreachable",
        }
    }
}

/// An interval; the confidence level is that of the call that made it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower limit.
    pub lower: f64,
    /// Upper limit.
    pub upper: f64,
}

impl Interval {
    fn around(centre: f64, half_width: f64) -> Self {
        Self {
            lower: centre - half_width,
            upper: centre + half_width,
        }
    }
}

/// The p-values of one statistic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PValues {
    /// Of "no difference".
    pub two_sided: f64,
    /// Natural logarithm of the two-sided p-value, right where that underflows.
    pub ln_two_sided: f64,
    /// Of "the treatment is not larger".
    pub greater: f64,
    /// Of "the treatment is not smaller".
    pub less: f64,
}

impl PValues {
    /// Of a normal statistic; an error when it is so large that not even the logarithm fits.
    pub(crate) fn normal(z: f64) -> Result<Self, StatsError> {
        Ok(Self {
            two_sided: norm_two_sided(z),
            ln_two_sided: finite(norm_ln_two_sided(z))?,
            greater: norm_sf(z),
            less: norm_sf(-z),
        })
    }

    /// Of a t statistic with `df` degrees of freedom; errors as for the normal one.
    fn student(t: f64, df: f64) -> Result<Self, StatsError> {
        let tails = t_two_sided_tails(t, df);
        let (near, far) = (0.5 * tails.cdf, 1.0 - 0.5 * tails.cdf);
        Ok(Self {
            two_sided: tails.cdf,
            ln_two_sided: finite(tails.ln_cdf)?,
            greater: if t < 0.0 { far } else { near },
            less: if t < 0.0 { near } else { far },
        })
    }
}

/// Checks a level (confidence, alpha): inside (0, 1).
fn check_level(level: f64) -> Result<f64, StatsError> {
    if level > 0.0 && level < 1.0 {
        Ok(level)
    } else {
        Err(StatsError::InvalidInput)
    }
}

/// The two-sided normal quantile at a confidence level in (0, 1).
fn two_sided_z(confidence: f64) -> Result<f64, StatsError> {
    Ok(norm_isf((1.0 - check_level(confidence)?) / 2.0))
}

/// Checks that a number is finite.
fn finite(value: f64) -> Result<f64, StatsError> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(StatsError::InvalidInput)
    }
}

/// Checks that a number is finite and not negative.
fn non_negative(value: f64) -> Result<f64, StatsError> {
    if value >= 0.0 {
        finite(value)
    } else {
        Err(StatsError::InvalidInput)
    }
}

/// Checks that a number is finite and above 0.
fn positive(value: f64) -> Result<f64, StatsError> {
    if value > 0.0 {
        finite(value)
    } else {
        Err(StatsError::InvalidInput)
    }
}

/// Reads a count that arrives as a float: whole, not negative, at most 2^53.
///
/// # Errors
/// [`StatsError::InvalidInput`] for anything else.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole and at most 2^53 is checked"
)]
pub fn count_from_f64(value: f64) -> Result<i64, StatsError> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    if (0.0..=LARGEST).contains(&value) && value.fract() == 0.0 {
        Ok(value as i64)
    } else {
        Err(StatsError::InvalidInput)
    }
}

/// A rounded sum and what rounding took from it, as long as nothing overflows.
///
/// Source: Knuth, *The Art of Computer Programming*, vol. 2, sec. 4.2.2.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let shifted = sum - a;
    (sum, (a - (sum - shifted)) + (b - shifted))
}

/// a·b − c·d to about an ulp of the result, although the products may nearly cancel.
///
/// Source: Jeannerod, Louvet & Muller, *Further analysis of Kahan's algorithm*, Math. Comp. 82
/// (2013), 2245–2264.
fn difference_of_products(a: f64, b: f64, c: f64, d: f64) -> f64 {
    let product = c * d;
    let error = (-c).mul_add(d, product);
    a.mul_add(b, -product) + error
}
