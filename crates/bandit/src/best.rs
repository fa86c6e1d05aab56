//! Which arm is best: probabilities by quadrature, exact to far better than 1e-8.
//!
//! P(arm a is best) = ∫ f_a ∏_{b≠a} F_b. The integral runs from where the last of the densities
//! begins — below, some F_b is 0 — to where the last ends, on panels that follow all densities in
//! play. Arms that lie below have F = 1 and cost nothing.

use crate::belief::Belief;
use crate::error::{BanditError, in_range};
use crate::posterior::BetaPosterior;
use crate::quadrature::{Density, NODES, Panel, RULE, Row, mass_up_to, panel_width};

/// How the arms compare under their posteriors.
#[derive(Clone, Debug, PartialEq)]
pub struct BestArm {
    /// Probability that the arm's rate (or mean) is the largest. Adds up to 1.
    pub probability: Vec<f64>,
    /// Expectation of the largest rate.
    pub expected_max: f64,
    /// Expectation of the largest rate minus the arm's own mean: what choosing the arm for good
    /// is expected to cost a play.
    pub expected_loss: Vec<f64>,
}

/// Compares arms with beta posteriors; absolute error below 1e-10.
///
/// # Errors
/// [`BanditError::NoArms`]; [`BanditError::NotConverged`] for parameters beyond double precision.
pub fn best_arm(posteriors: &[BetaPosterior]) -> Result<BestArm, BanditError> {
    let densities: Vec<_> = posteriors.iter().map(BetaPosterior::density).collect();
    let means: Vec<_> = posteriors.iter().map(BetaPosterior::mean).collect();
    compare(&densities, &means)
}

/// Compares arms by what was estimated of their rates; absolute error below 1e-10.
///
/// # Errors
/// [`BanditError::NoArms`]; [`BanditError::NotConverged`] for parameters beyond double precision.
pub fn best_belief(beliefs: &[Belief]) -> Result<BestArm, BanditError> {
    let means: Vec<_> = beliefs.iter().map(Belief::mean).collect();
    let mut sums = Sums::new(beliefs.len());
    // Where a rate can be no larger a density may end at its peak.
    sweep(beliefs, &[1.0], |front, arms| sums.add(front, arms))?;
    sums.finish(&means)
}

/// Probabilities with which top-two Thompson sampling plays the arms: with probability `beta` a
/// draw's winner, otherwise a winner of further draws that is another arm.
///
/// p_a β + (1 − β) Σ_{b≠a} p_b p_a / (1 − p_b). Where b is certain to win and its challengers'
/// probabilities have underflowed, they share alike.
///
/// # Errors
/// [`BanditError::NoArms`]; [`BanditError::OutOfRange`] for β or a probability outside [0, 1].
///
/// # Source
/// Russo, *Simple Bayesian algorithms for best-arm identification*, Oper. Res. 68 (2020).
pub fn top_two_probabilities(prob_best: &[f64], beta: f64) -> Result<Vec<f64>, BanditError> {
    in_range("beta", beta, 0.0, 1.0)?;
    check_probabilities(prob_best)?;
    let arms = prob_best.len();
    if arms == 1 {
        return Ok(vec![1.0]);
    }
    let mut chosen: Vec<_> = prob_best.iter().map(|p| beta * p).collect();
    for (winner, p) in prob_best.iter().enumerate() {
        // The sum of the others has the digits that 1 − p has lost when p is next to 1.
        let others: f64 = sum_without(prob_best, winner);
        for (arm, q) in prob_best.iter().enumerate() {
            if arm != winner {
                let share = if others > 0.0 {
                    q / others
                } else {
                    1.0 / crate::special::float_len(arms - 1)
                };
                chosen[arm] += (1.0 - beta) * p * share;
            }
        }
    }
    Ok(chosen)
}

fn sum_without(values: &[f64], arm: usize) -> f64 {
    let (before, after) = values.split_at(arm);
    before.iter().sum::<f64>() + after.iter().skip(1).sum::<f64>()
}

/// With probability `floor` a uniform arm: (1 − floor) p + floor / K.
///
/// # Errors
/// [`BanditError::NoArms`]; [`BanditError::OutOfRange`] for a floor or probability outside [0, 1].
pub fn mixed_with_uniform(probabilities: &[f64], floor: f64) -> Result<Vec<f64>, BanditError> {
    in_range("floor", floor, 0.0, 1.0)?;
    check_probabilities(probabilities)?;
    let even = floor / crate::special::float_len(probabilities.len());
    Ok(probabilities
        .iter()
        .map(|p| (1.0 - floor) * p + even)
        .collect())
}

/// No probability below `least`: arms below get it, the others are scaled by one factor so that
/// the sum is 1, until none of them is below.
///
/// # Errors
/// [`BanditError::NoArms`]; [`BanditError::OutOfRange`] for a probability outside [0, 1] or a
/// `least` that not all arms can have (above 1/K).
pub fn clipped_below(probabilities: &[f64], least: f64) -> Result<Vec<f64>, BanditError> {
    check_probabilities(probabilities)?;
    let arms = crate::special::float_len(probabilities.len());
    in_range("floor", least, 0.0, 1.0 / arms * (1.0 + f64::EPSILON))?;
    let mut clipped = vec![false; probabilities.len()];
    loop {
        let pairs = || probabilities.iter().zip(&clipped);
        let free: f64 = pairs().filter(|(_, c)| !**c).map(|(p, _)| p).sum();
        let held = crate::special::float_len(clipped.iter().filter(|c| **c).count());
        let factor = if free > 0.0 {
            (1.0 - held * least).max(0.0) / free
        } else {
            0.0
        };
        let below: Vec<_> = pairs().map(|(p, c)| *c || p * factor < least).collect();
        if below == clipped {
            return Ok(pairs()
                .map(|(p, c)| if *c { least } else { p * factor })
                .collect());
        }
        clipped = below;
    }
}

fn check_probabilities(probabilities: &[f64]) -> Result<(), BanditError> {
    if probabilities.is_empty() {
        return Err(BanditError::NoArms);
    }
    for p in probabilities {
        in_range("probability", *p, 0.0, 1.0 + 1e-9)?;
    }
    Ok(())
}

/// The comparison, for any family of densities.
pub(crate) fn compare<D: Density>(densities: &[D], means: &[f64]) -> Result<BestArm, BanditError> {
    let mut sums = Sums::new(densities.len());
    sweep(densities, &[], |front, arms| {
        sums.add(front, arms);
    })?;
    sums.finish(means)
}

/// What is known at the nodes of a panel about the densities that are in play there.
pub(crate) struct Front<'a> {
    pub(crate) width: f64,
    pub(crate) left: f64,
    pub(crate) values: Row,
    /// Density, distribution function: one row each an arm in play.
    pub(crate) density: &'a [Row],
    pub(crate) cumulative: &'a [Row],
}

/// Walks over the panels from where the last density begins to where the last one ends. Panels
/// end at the `stops` (ascending). Calls `visit` with the rows of the arms in play and their
/// numbers; all other arms lie below.
pub(crate) fn sweep<D: Density>(
    densities: &[D],
    stops: &[f64],
    mut visit: impl FnMut(&Front<'_>, &[usize]),
) -> Result<(), BanditError> {
    if densities.is_empty() {
        return Err(BanditError::NoArms);
    }
    let over = |pick: fn((f64, f64)) -> f64| {
        densities
            .iter()
            .map(|density| pick(density.support()))
            .fold(f64::NEG_INFINITY, f64::max)
    };
    let (mut y, end) = (over(|support| support.0), over(|support| support.1));
    let mut active: Vec<usize> = (0..densities.len())
        .filter(|arm| densities[*arm].support().1 > y)
        .collect();
    // Of arms that lie below nobody asks.
    let mut reached = vec![1.0; densities.len()];
    for arm in &active {
        reached[*arm] = mass_up_to(&densities[*arm], y);
    }
    let mut density = vec![[0.0; NODES]; densities.len()];
    let mut cumulative = density.clone();
    while y < end {
        active.retain(|arm| densities[*arm].support().1 > y);
        let in_play: Vec<_> = active.iter().map(|arm| &densities[*arm]).collect();
        let stop = stops.iter().copied().find(|stop| *stop > y).unwrap_or(end);
        let width = panel_width(&in_play, y, stop.min(end));
        let panel = D::Panel::new(y, width);
        for (row, arm) in active.iter().enumerate() {
            densities[*arm].fill(&panel, &mut density[row]);
            let rising = RULE.rising(&density[row]);
            for (sum, rise) in cumulative[row].iter_mut().zip(rising) {
                *sum = (reached[*arm] + width * rise).clamp(0.0, 1.0);
            }
            reached[*arm] += width * RULE.integral(&density[row]);
        }
        let front = Front {
            width,
            left: y,
            values: panel.values(),
            density: &density[..active.len()],
            cumulative: &cumulative[..active.len()],
        };
        visit(&front, &active);
        // Next to a stop rounding must not leave a sliver of a panel.
        y = if stop - (y + width) <= 1e-12 * stop.abs() {
            stop
        } else {
            y + width
        };
    }
    Ok(())
}

/// For every arm in play ∏ of the other arms' distribution functions at the nodes.
pub(crate) fn products_of_others(cumulative: &[Row], out: &mut Vec<Row>) {
    out.clear();
    let mut product = [1.0; NODES];
    for row in cumulative {
        out.push(product);
        multiply(&mut product, row);
    }
    product = [1.0; NODES];
    for (row, others) in cumulative.iter().zip(out.iter_mut()).rev() {
        multiply(others, &product);
        multiply(&mut product, row);
    }
}

fn multiply(product: &mut Row, row: &Row) {
    for (value, factor) in product.iter_mut().zip(row) {
        *value *= factor;
    }
}

/// Collects the integrals panel by panel.
struct Sums {
    probability: Vec<f64>,
    expected_max: f64,
    others: Vec<Row>,
}

impl Sums {
    fn new(arms: usize) -> Self {
        Self {
            probability: vec![0.0; arms],
            expected_max: 0.0,
            others: Vec::with_capacity(arms),
        }
    }

    fn add(&mut self, front: &Front<'_>, arms: &[usize]) {
        products_of_others(front.cumulative, &mut self.others);
        for ((arm, density), others) in arms.iter().zip(front.density).zip(&self.others) {
            let mut best = *others;
            multiply(&mut best, density);
            self.probability[*arm] += front.width * RULE.integral(&best);
            multiply(&mut best, &front.values);
            self.expected_max += front.width * RULE.integral(&best);
        }
    }

    /// What little of the mass was cut off is shared in proportion.
    fn finish(self, means: &[f64]) -> Result<BestArm, BanditError> {
        let sum: f64 = self.probability.iter().sum();
        // Far off only when parameters are: at 1e12 plays and 300 arms rounding leaves 2e-8.
        if (sum - 1.0).abs() > 1e-7 || sum.is_nan() {
            return Err(BanditError::NotConverged { sum });
        }
        let expected_max = self.expected_max / sum;
        Ok(BestArm {
            probability: self.probability.iter().map(|p| p / sum).collect(),
            expected_max,
            expected_loss: means.iter().map(|m| (expected_max - m).max(0.0)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beta(alpha: f64, beta: f64) -> BetaPosterior {
        BetaPosterior::new(alpha, beta).unwrap()
    }

    #[test]
    fn tiny_rates_beside_unplayed_arms() {
        // P(Beta(1,1) is largest of three) with the others next to 1e-4 is about 1 − 1e-4.
        let arms = [beta(101.0, 1e6 - 100.0), beta(90.0, 1e6), beta(1.0, 1.0)];
        let best = best_arm(&arms).unwrap();
        let exact = 1.0 - expected_max_of(&arms[..2]);
        assert!((best.probability[2] - exact).abs() < 1e-10, "{best:?}");
    }

    /// P(uniform > M) = 1 − E[M].
    fn expected_max_of(arms: &[BetaPosterior]) -> f64 {
        best_arm(arms).unwrap().expected_max
    }

    #[test]
    fn equal_arms_share_alike_at_any_number_and_size() {
        for arms in [1_u32, 2, 3, 10, 80, 300] {
            for (a, b) in [
                (1.0, 1.0),
                (1.1e-3, 1.0),
                (0.01, 0.3),
                (3.0, 1e9),
                (1e12, 1e12),
            ] {
                let best = best_arm(&vec![beta(a, b); arms as usize]).unwrap();
                for p in best.probability {
                    assert!(
                        (p - 1.0 / f64::from(arms)).abs() < 1e-10,
                        "{arms} {a} {b} {p}"
                    );
                }
            }
        }
    }

    #[test]
    fn order_statistics_of_uniforms() {
        // The largest of K uniforms has mean K / (K + 1).
        for arms in [2_u32, 7, 80] {
            let best = best_arm(&vec![beta(1.0, 1.0); arms as usize]).unwrap();
            let k = f64::from(arms);
            assert!((best.expected_max - k / (k + 1.0)).abs() < 1e-10);
        }
    }

    #[test]
    fn a_hopeless_arm_gets_what_the_floor_gives() {
        let p = clipped_below(&[1.0, 0.0, 0.0], 0.05 / 3.0).unwrap();
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert_eq!(clipped_below(&[0.5, 0.5], 0.5).unwrap(), vec![0.5, 0.5]);
        assert!(clipped_below(&[0.5, 0.5], 0.6).is_err());
        assert!(clipped_below(&[f64::NAN, 0.5], 0.1).is_err());
        assert_eq!(
            top_two_probabilities(&[1.0, 0.0, 0.0], 0.5).unwrap(),
            vec![0.5, 0.25, 0.25]
        );
    }

    #[test]
    fn nothing_to_compare() {
        assert_eq!(best_arm(&[]), Err(BanditError::NoArms));
        assert_eq!(best_arm(&[beta(2.0, 3.0)]).unwrap().probability, vec![1.0]);
    }
}
