//! Sample ratio mismatch: is the split that was observed the one that was configured?

use super::special::chi2_tails;
use super::{
    StatsError, check_level, count_from_f64, difference_of_products, finite, non_negative,
};

/// The p-value below which a split is called off, in reports, in the safety checks of a promotion and in alerts.
pub const THRESHOLD: f64 = 0.001;

/// Chi-square goodness of fit of a split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SrmTest {
    /// The statistic.
    pub chi2: f64,
    /// Degrees of freedom: arms with weight, minus 1.
    pub df: usize,
    /// p-value.
    pub p: f64,
    /// Its natural logarithm, right where p underflows.
    pub ln_p: f64,
    /// Whether p is below the threshold.
    pub mismatch: bool,
}

/// Tests units per arm against traffic weights (in any unit), at `threshold` (0.001 in reports).
///
/// This is a test for one look. What looks all the time needs an e-process instead.
///
/// # Errors
/// [`StatsError::InvalidInput`] for counts that are not whole, negative numbers, lengths that do
/// not match, fewer than two arms with weight, or a threshold outside (0, 1);
/// [`StatsError::NotEnoughData`] without units; [`StatsError::UnexpectedUsers`] for units in an
/// arm of weight 0 (arms of weight 0 without units are left out).
///
/// # Source
/// Fabijan et al., *Diagnosing sample ratio mismatch in online controlled experiments*, KDD 2019.
pub fn chi_square(counts: &[f64], weights: &[f64], threshold: f64) -> Result<SrmTest, StatsError> {
    check_input(counts, weights, threshold)?;
    let total: f64 = counts.iter().sum();
    if total == 0.0 {
        return Err(StatsError::NotEnoughData);
    }
    let arms = || counts.iter().zip(weights);
    if arms().any(|(count, weight)| *weight == 0.0 && *count > 0.0) {
        return Err(StatsError::UnexpectedUsers);
    }
    let weight_sum = finite(weights.iter().sum())?;
    let with_weight = arms().filter(|(_, weight)| **weight > 0.0);
    let chi2 = with_weight.map(|(count, weight)| {
        // Observed minus expected without cancellation, also at 10^12 units.
        let excess = difference_of_products(*count, weight_sum, *weight, total) / weight_sum;
        excess * (excess / (weight / weight_sum * total))
    });
    let chi2 = finite(chi2.sum())?;
    let df = weights.iter().filter(|weight| **weight > 0.0).count() - 1;
    let tails = chi2_tails(chi2, df as f64);
    Ok(SrmTest {
        chi2,
        df,
        p: tails.sf,
        ln_p: finite(tails.ln_sf)?,
        mismatch: tails.sf < threshold,
    })
}

fn check_input(counts: &[f64], weights: &[f64], threshold: f64) -> Result<(), StatsError> {
    check_level(threshold)?;
    counts
        .iter()
        .try_for_each(|count| count_from_f64(*count).map(drop))?;
    weights
        .iter()
        .try_for_each(|weight| non_negative(*weight).map(drop))?;
    let with_weight = weights.iter().filter(|weight| **weight > 0.0).count();
    if counts.len() != weights.len() || with_weight < 2 {
        return Err(StatsError::InvalidInput);
    }
    Ok(())
}
