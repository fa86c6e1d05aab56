//! E-processes: evidence that may be looked at as often as one likes.
//!
//! Under the hypothesis the expectation of e is at most 1 at every moment, whoever chooses it, so
//! e reaches 1/α with probability at most α (Ville's inequality). Where several parts of the data
//! are independent (epochs, rollout steps) their e-values may be multiplied: add the logarithms.
//!
//! Everything is kept as ln e, because evidence soon leaves the range of floats.

use std::f64::consts::TAU;

use super::special::{beta_tails, deviance_by, norm_ln_scaled_sf, stirling_error};
use super::{StatsError, check_level, count_from_f64, difference_of_products, finite, positive};

/// Multiples of the limit at which [`rate_above`] expects a raised rate.
const RAISED: [f64; 5] = [1.2, 1.5, 2.0, 3.0, 6.0];

/// From this many observations on, the tail of a beta distribution is taken from its asymptotic
/// expansion, whose error is of the order of one over them; the continued fraction would need as
/// many steps as their root.
const MANY: f64 = 1e10;

/// Evidence about the arm in which converters are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConverterEvidence {
    /// ln e against "the arms convert alike".
    pub ln_e2: f64,
    /// ln e against "the treatment does not convert better".
    pub ln_e1: f64,
    /// Anytime-valid p-value of the first: min(1, 1/e).
    pub p2: f64,
    /// Anytime-valid p-value of the second.
    pub p1: f64,
    /// Whether e reaches 1/α, for the first.
    pub reject2: bool,
    /// The same for the second.
    pub reject1: bool,
}

/// The exact Bernoulli e-process on the arm of each converter.
///
/// Each unit counts once, when it converts for the first time. Without an effect its arm is the
/// treatment with probability `share` (the treatment's part of the traffic of the two), whatever
/// the conversion rate: the test is exact at every number of converters. The alternative is a beta
/// mixture of concentration `k`; k = 1/(s² share (1 − share)) expects log risk ratios of about s.
///
/// # Errors
/// [`StatsError::InvalidInput`] for counts that are not whole, a share or α outside (0, 1), or a
/// concentration that is not above 0.
///
/// # Source
/// Mixture martingale of Robbins, Ann. Math. Statist. 41 (1970), 1397–1409, with the conjugate
/// beta prior, truncated to shares above the planned one for the one-sided test.
pub fn converters(
    x_a: f64,
    x_b: f64,
    share: f64,
    k: f64,
    alpha: f64,
) -> Result<ConverterEvidence, StatsError> {
    let (x_a, x_b) = (whole(x_a)?, whole(x_b)?);
    let (share, k) = (check_level(share)?, positive(k)?);
    let threshold = -check_level(alpha)?.ln();
    let rest = 1.0 - share;
    // What rounding took from 1 − share: at 10^15 converters it would show.
    let lost = (1.0 - rest) - share;
    let excess = x_b.mul_add(lost, difference_of_products(x_b, rest, x_a, share));
    let treatment = Cell::new(x_b, share, excess);
    let control = Cell::new(x_a, rest, -excess);
    let (deviance, correction) = dirichlet_evidence(&[treatment, control], k);
    let ln_e2 = finite(deviance + correction)?;
    // Restricting the prior to a better treatment.
    let ln_prior = beta_tails(share, k * share, k * rest).ln_sf;
    let ln_tail = ln_scaled_tail(treatment, control, k, deviance);
    let ln_e1 = finite(ln_tail + correction - ln_prior)?;
    Ok(ConverterEvidence {
        ln_e2,
        ln_e1,
        p2: p_value(ln_e2),
        p1: p_value(ln_e1),
        reject2: ln_e2 >= threshold,
        reject1: ln_e1 >= threshold,
    })
}

/// Evidence against a planned split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitEvidence {
    /// ln e against "units fall into the arms in proportion to the weights".
    pub ln_e: f64,
    /// Anytime-valid p-value: min(1, 1/e).
    pub p: f64,
}

/// The multinomial e-process on units per arm: a test of the split that may run all the time.
///
/// The alternative is a Dirichlet mixture of concentration `k` around the planned shares.
///
/// # Errors
/// [`StatsError::InvalidInput`] for counts that are not whole, weights that are not above 0, fewer
/// than two arms, lengths that do not match, or a concentration that is not above 0.
///
/// # Source
/// Lindon & Malek, *Anytime-valid inference for multinomial count data*, NeurIPS 2022.
pub fn multinomial(counts: &[f64], weights: &[f64], k: f64) -> Result<SplitEvidence, StatsError> {
    let k = positive(k)?;
    if counts.len() != weights.len() || counts.len() < 2 {
        return Err(StatsError::InvalidInput);
    }
    let counts = counts.iter().copied().map(whole);
    let counts = counts.collect::<Result<Vec<_>, _>>()?;
    let weights = weights.iter().copied().map(positive);
    let weights = weights.collect::<Result<Vec<_>, _>>()?;
    let total = finite(weights.iter().sum())?;
    // Observed minus planned, pair by pair, so that the rounding of the total does not matter.
    let excess = |arm: usize| {
        let pairs = counts.iter().zip(&weights);
        let gaps =
            pairs.map(|(x, weight)| difference_of_products(counts[arm], *weight, weights[arm], *x));
        gaps.sum::<f64>() / total
    };
    let cells =
        (0..counts.len()).map(|arm| Cell::new(counts[arm], weights[arm] / total, excess(arm)));
    let (deviance, rest) = dirichlet_evidence(&cells.collect::<Vec<_>>(), k);
    let ln_e = finite(deviance + rest)?;
    Ok(SplitEvidence {
        ln_e,
        p: p_value(ln_e),
    })
}

/// ln e against "the share of units with an error is at most `limit`": the equal mixture of the
/// likelihood ratios at 1.2, 1.5, 2, 3 and 6 times the limit. A multiple that would pass the
/// middle between the limit and 1 is replaced by that middle.
///
/// # Errors
/// [`StatsError::InvalidInput`] for counts that are not whole, more errors than units, or a limit
/// outside (0, 1).
///
/// # Source
/// Wald's likelihood ratio, Ann. Math. Statist. 16 (1945), 117–186; a mixture of e-processes is
/// one.
pub fn rate_above(units_with_error: f64, units: f64, limit: f64) -> Result<f64, StatsError> {
    let (errors, units) = (whole(units_with_error)?, whole(units)?);
    let limit = check_level(limit)?;
    if errors > units {
        return Err(StatsError::InvalidInput);
    }
    let ratios = RAISED.map(|multiple| {
        let raised = (multiple * limit).min(0.5 * (1.0 + limit));
        let without = (-raised).ln_1p() - (-limit).ln_1p();
        errors * (raised / limit).ln() + (units - errors) * without
    });
    let largest = ratios.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = ratios.iter().map(|ratio| (ratio - largest).exp()).sum();
    finite(largest + (sum / ratios.len() as f64).ln())
}

/// min(1, 1/e).
pub(super) fn p_value(ln_e: f64) -> f64 {
    (-ln_e).exp().min(1.0)
}

fn whole(count: f64) -> Result<f64, StatsError> {
    Ok(count_from_f64(count)? as f64)
}

/// Observations in one of several classes.
#[derive(Clone, Copy)]
struct Cell {
    count: f64,
    share: f64,
    /// Count minus share of all, computed without cancellation.
    excess: f64,
}

impl Cell {
    fn new(count: f64, share: f64, excess: f64) -> Self {
        Self {
            count,
            share,
            excess,
        }
    }
}

/// ln of the likelihood under a Dirichlet prior k·shares over that under the shares themselves, as
/// the deviance of the shares from the posterior mean and a rest.
///
/// The quotient of beta functions and the powers of the shares are of the order of the counts and
/// cancel almost wholly. By Stirling's formula with its remainder Δ, and with a = k·share + count
/// and n = k + all, the deviance is Σ [a ln(a/(n·share)) + n·share − a], and the rest
/// ½ ln(n/k) + ½ Σ ln(k·share/a) + Σ [Δ(a) − Δ(k·share)] − Δ(n) + Δ(k), where nothing large is
/// left.
fn dirichlet_evidence(cells: &[Cell], k: f64) -> (f64, f64) {
    let n = k + cells.iter().map(|cell| cell.count).sum::<f64>();
    let deviance = cells
        .iter()
        .map(|cell| deviance_by(n * cell.share, cell.excess));
    let rest = cells.iter().map(|cell| {
        let prior = k * cell.share;
        let posterior = prior + cell.count;
        0.5 * (prior / posterior).ln() + stirling_error(posterior) - stirling_error(prior)
    });
    let whole = 0.5 * (n / k).ln() + stirling_error(k) - stirling_error(n);
    (deviance.sum(), whole + rest.sum::<f64>())
}

/// ln P(treatment's share > planned) under the posterior, plus the deviance, with which it nearly
/// cancels where the treatment is worse.
fn ln_scaled_tail(treatment: Cell, control: Cell, k: f64, deviance: f64) -> f64 {
    let a = k * treatment.share + treatment.count;
    let b = k * control.share + control.count;
    if a + b < MANY {
        deviance + beta_tails(treatment.share, a, b).ln_sf
    } else {
        ln_scaled_tail_of_many(treatment, control, a + b, deviance)
    }
}

/// As [`ln_scaled_tail`] when there are [`MANY`] observations: with z² twice the deviance, the
/// tail is the normal one at z and a correction of the order of 1/√n.
///
/// Source: Temme, *The uniform asymptotic expansion of a class of integrals related to cumulative
/// distribution functions*, SIAM J. Math. Anal. 13 (1982), 239–253.
fn ln_scaled_tail_of_many(treatment: Cell, control: Cell, n: f64, deviance: f64) -> f64 {
    /// Nearer to the mean the correction is its limit there.
    const AT_MEAN: f64 = 1e-8;
    let gap = treatment.excess / n;
    let (mean, rest) = (treatment.share + gap, control.share - gap);
    let spread = (mean * rest).sqrt();
    let z = -(2.0 * deviance).sqrt().copysign(gap);
    let eta = z / n.sqrt();
    let correction = if eta.abs() < AT_MEAN {
        (rest - mean) / (3.0 * spread)
    } else {
        1.0 / eta + spread / gap
    };
    let ln_tail = norm_ln_scaled_sf(z);
    let share = correction / (TAU * n).sqrt() * (-ln_tail).exp();
    ln_tail + (-share).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectation_is_one_under_the_hypothesis() {
        // All outcomes of 20 converters, weighted with their binomial probability.
        for share in [0.5, 0.2, 0.9] {
            let (mut two_sided, mut probability) = (0.0, (1.0_f64 - share).powi(20));
            let mut one_sided = 0.0;
            for x_b in 0..=20_u32 {
                let x = f64::from(x_b);
                let evidence = converters(20.0 - x, x, share, 30.0, 0.05).unwrap();
                two_sided += probability * evidence.ln_e2.exp();
                one_sided += probability * evidence.ln_e1.exp();
                probability *= (20.0 - x) / (x + 1.0) * share / (1.0 - share);
            }
            assert!((two_sided - 1.0).abs() < 1e-12, "{share}: {two_sided}");
            assert!((one_sided - 1.0).abs() < 1e-12, "{share}: {one_sided}");
        }
    }

    #[test]
    fn two_arms_are_converters() {
        let split = multinomial(&[130.0, 70.0], &[3.0, 2.0], 50.0).unwrap();
        let same = converters(70.0, 130.0, 0.6, 50.0, 0.05).unwrap();
        assert!((split.ln_e - same.ln_e2).abs() < 1e-12);
    }

    #[test]
    fn huge_counts_keep_their_digits() {
        // 45-digit arithmetic; on both sides of where the expansion takes over.
        for (x_a, x_b, share, k, ln_e2, ln_e1) in [
            (
                903_522_577_088.0,
                225_880_644_272.0,
                0.2,
                50.0,
                -11.929_090_949_460_669,
                -11.870_835_351_041_54,
            ),
            (
                431_104_659_904_760.0,
                2_882_821_245_546_794.0,
                0.869_911_252_461_161_2,
                50.0,
                31.915_596_396_498_575,
                -18.521_708_980_042_675,
            ),
            (
                13_756_264_913_840.0,
                1_361_852_747_851_674.0,
                0.99,
                2.0,
                1_103.429_850_055_612_9,
                -22.911_249_748_972_587,
            ),
            (
                6_733_056_516.0,
                1_637_260_785.0,
                0.195_598_856_806_926_9,
                2.0,
                -10.776_932_260_105_29,
                -9.921_659_955_175_036,
            ),
        ] {
            let evidence = converters(x_a, x_b, share, k, 0.05).unwrap();
            assert!((evidence.ln_e2 - ln_e2).abs() < 1e-9, "{evidence:?}");
            assert!((evidence.ln_e1 - ln_e1).abs() < 1e-9, "{evidence:?}");
        }
    }

    #[test]
    fn a_raised_error_rate_is_found_and_a_normal_one_is_not() {
        // The expectation over all outcomes of 30 units at the limit.
        let (limit, mut expectation, mut probability) = (0.3_f64, 0.0, 0.7_f64.powi(30));
        for errors in 0..=30_u32 {
            let x = f64::from(errors);
            expectation += probability * rate_above(x, 30.0, limit).unwrap().exp();
            probability *= (30.0 - x) / (x + 1.0) * limit / (1.0 - limit);
        }
        assert!((expectation - 1.0).abs() < 1e-12, "{expectation}");
        assert!(rate_above(50.0, 1_000.0, 0.02).unwrap() > 100.0_f64.ln());
        assert!(rate_above(15.0, 1_000.0, 0.02).unwrap() < 0.0);
        assert_eq!(rate_above(0.0, 0.0, 0.02), Ok(0.0));
        for (errors, units, limit) in [(2.0, 1.0, 0.1), (0.5, 1.0, 0.1), (0.0, 1.0, 1.0)] {
            let refused = rate_above(errors, units, limit);
            assert_eq!(refused, Err(StatsError::InvalidInput));
        }
    }
}
