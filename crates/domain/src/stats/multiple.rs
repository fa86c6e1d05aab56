//! Several tests at once: adjusted p-values, and closed testing with e-values.
//!
//! An adjusted p-value is compared with the level as a single one is; an adjusted e-value with
//! 1/level.

use super::StatsError;

/// p-values adjusted for their number, each in the order of the input and at most 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdjustedPValues {
    /// Bonferroni: holds the chance of any false rejection, whatever the dependence.
    pub bonferroni: Vec<f64>,
    /// Holm: the same promise, never less powerful.
    pub holm: Vec<f64>,
    /// Hochberg: the same promise for independent or positively dependent tests.
    pub hochberg: Vec<f64>,
    /// Benjamini and Hochberg: the share of false ones among the rejections, independent or
    /// positively dependent tests.
    pub benjamini_hochberg: Vec<f64>,
    /// Benjamini and Yekutieli: that share under any dependence.
    pub benjamini_yekutieli: Vec<f64>,
}

/// Adjusts p-values. No p-values have no adjusted ones.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a value outside [0, 1].
///
/// # Source
/// Holm, Scand. J. Statist. 6 (1979), 65–70; Hochberg, Biometrika 75 (1988), 800–802; Benjamini &
/// Hochberg, J. R. Statist. Soc. B 57 (1995), 289–300; Benjamini & Yekutieli, Ann. Statist. 29
/// (2001), 1165–1188.
pub fn adjust_p_values(p: &[f64]) -> Result<AdjustedPValues, StatsError> {
    if !p.iter().all(|p| (0.0..=1.0).contains(p)) {
        return Err(StatsError::InvalidInput);
    }
    let count = p.len() as f64;
    let order = ascending(p);
    let harmonic: f64 = (1..=p.len()).rev().map(|rank| 1.0 / rank as f64).sum();
    // Ranks from 1, the smallest p-value first.
    let remaining = |rank: f64| count - rank + 1.0;
    Ok(AdjustedPValues {
        bonferroni: p.iter().map(|p| (p * count).min(1.0)).collect(),
        holm: step_down(p, &order, remaining),
        hochberg: step_up(p, &order, remaining),
        benjamini_hochberg: step_up(p, &order, |rank| count / rank),
        benjamini_yekutieli: step_up(p, &order, |rank| count / rank * harmonic),
    })
}

/// Indices in the order of the values.
fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}

/// Largest product so far, from the smallest p-value on.
fn step_down(p: &[f64], order: &[usize], factor: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (below, &index) in order.iter().enumerate() {
        largest = largest.max(p[index] * factor((below + 1) as f64)).min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}

/// Smallest product so far, from the largest p-value down.
fn step_up(p: &[f64], order: &[usize], factor: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut adjusted = vec![0.0; p.len()];
    let mut smallest = 1.0_f64;
    for (below, &index) in order.iter().enumerate().rev() {
        smallest = smallest.min(p[index] * factor((below + 1) as f64));
        adjusted[index] = smallest;
    }
    adjusted
}

/// Closed testing with e-values: per arm the smallest mean of e-values over all sets of arms that
/// hold it. Rejecting where it is at least 1/level keeps the chance of any false rejection below
/// the level, whatever the dependence and whenever one looks. An infinite e-value is allowed.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a value that is negative or not a number.
///
/// # Source
/// Vovk & Wang, Ann. Statist. 49 (2021), 1736–1754, sec. 4.
pub fn adjust_e_values(e: &[f64]) -> Result<Vec<f64>, StatsError> {
    if !e.iter().all(|&e| e >= 0.0) {
        return Err(StatsError::InvalidInput);
    }
    let order = ascending(e);
    Ok((0..e.len())
        .map(|arm| smallest_mean(e, arm, &order))
        .collect())
}

/// The others lower the mean as long as they are below it, the smallest first.
fn smallest_mean(e: &[f64], arm: usize, order: &[usize]) -> f64 {
    let mut mean = e[arm];
    let others = order.iter().filter(|&&other| other != arm);
    for (size, &other) in (2_u32..).zip(others) {
        if mean.is_infinite() || e[other] >= mean {
            break;
        }
        mean += (e[other] - mean) / f64::from(size);
    }
    mean
}
