//! Which of two rates is larger, and what a wrong choice costs.

use crate::stats::special::{Drop, LogitBeta, Walk, gauss};
use crate::stats::{difference_of_products, two_sum};

/// An integral ends where the bound of its integrand is e^−45 of its largest value; the bound is
/// loose by a power of the nats.
const REGION_NATS: f64 = 45.0;
/// Beyond so many nats from its mode a tail no longer differs from 0 or 1.
const TAIL_NATS: f64 = 42.0;
/// ln of the largest chance that leaves its complement enough digits: 0.9.
const COMPLEMENT: f64 = -0.105;

/// The posterior of a rate.
pub(super) struct Posterior {
    alpha: Sum,
    beta: Sum,
    /// Its logit.
    pub(super) logit: LogitBeta,
}

impl Posterior {
    /// Beta(alpha, beta), each the sum of the prior's and the data's part.
    pub(super) fn new(alpha: [f64; 2], beta: [f64; 2]) -> Self {
        let (alpha, beta) = (Sum::new(alpha), Sum::new(beta));
        Self {
            alpha,
            beta,
            logit: LogitBeta::new(alpha.sum, beta.sum),
        }
    }

    /// alpha, rounded.
    pub(super) fn alpha(&self) -> f64 {
        self.alpha.sum
    }
}

/// A sum of two numbers, with what rounding took from it: at 2^53 units a prior of ½ would be
/// lost otherwise, and with it the eighth digit of a chance.
#[derive(Clone, Copy)]
struct Sum {
    sum: f64,
    rest: f64,
}

impl Sum {
    fn new([a, b]: [f64; 2]) -> Self {
        let (sum, rest) = two_sum(a, b);
        Self { sum, rest }
    }
}

/// One arm's side of a comparison.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    /// ln of the chance that this arm has the larger rate.
    pub(super) ln_best: f64,
    /// Expected loss of rate when this arm is chosen.
    pub(super) loss: f64,
}

/// Both sides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chances {
    /// Control's.
    pub(super) a: Side,
    /// Treatment's.
    pub(super) b: Side,
}

/// Compares two posteriors.
pub(super) fn chances(a: &Posterior, b: &Posterior) -> Chances {
    let gap = Gap::new(a, b);
    if gap.modes < 0.0 {
        let Chances { a, b } = chances_in_order(b, a, &Gap::new(b, a));
        return Chances { a: b, b: a };
    }
    chances_in_order(a, b, &gap)
}

/// As [`chances`], where b has the larger odds: the small numbers, the chance of a and the loss
/// with b, are integrals; the large ones follow from them without cancellation.
fn chances_in_order(a: &Posterior, b: &Posterior, gap: &Gap) -> Chances {
    let reversal = Reversal::new(&a.logit, &b.logit, gap.modes, gap.pooled);
    let ln_chance = reversal.ln_chance().min(0.0);
    let loss = reversal.loss();
    // A posterior that is very skewed can put most of its mass on the other side of its mode.
    let ln_b = if ln_chance < COMPLEMENT {
        (-ln_chance.exp()).ln_1p()
    } else {
        let flipped = Reversal::new(&b.logit, &a.logit, -gap.modes, 0.0);
        flipped.ln_chance().min(0.0)
    };
    Chances {
        a: Side {
            ln_best: ln_chance,
            loss: loss + gap.means,
        },
        b: Side {
            ln_best: ln_b,
            loss,
        },
    }
}

/// How far the posteriors of two arms lie apart.
struct Gap {
    /// Difference of the logits' modes, b − a.
    modes: f64,
    /// The mode of the two posteriors' product, as an offset from a's mode.
    pooled: f64,
    /// Difference of the mean rates.
    means: f64,
}

impl Gap {
    fn new(a: &Posterior, b: &Posterior) -> Self {
        let base = a.alpha.sum * b.beta.sum;
        let products = difference_of_products(b.alpha.sum, a.beta.sum, a.alpha.sum, b.beta.sum);
        let rests = b.alpha.rest * a.beta.sum + b.alpha.sum * a.beta.rest
            - a.alpha.rest * b.beta.sum
            - a.alpha.sum * b.beta.rest;
        // The odds of b over those of a, minus 1.
        let excess = (products + rests) / base;
        // Far below, rounding could take it under -1, where there is no logarithm.
        if base > 1e-290 && (-0.999..1e3).contains(&excess) {
            let share = b.beta.sum / (a.beta.sum + b.beta.sum);
            return Self {
                modes: excess.ln_1p(),
                pooled: (excess * share).ln_1p(),
                means: excess * a.logit.mean() * b.logit.complement(),
            };
        }
        Self::coarse(a, b)
    }

    /// Where products leave the range of floats, or the arms lie so far apart that nothing
    /// cancels.
    fn coarse(a: &Posterior, b: &Posterior) -> Self {
        let pooled_odds = (a.alpha.sum + b.alpha.sum).ln() - (a.beta.sum + b.beta.sum).ln();
        let (a, b) = (&a.logit, &b.logit);
        let means = if a.mean() > 0.5 {
            a.complement() - b.complement()
        } else {
            b.mean() - a.mean()
        };
        Self {
            modes: b.mode() - a.mode(),
            pooled: pooled_odds - a.mode(),
            means,
        }
    }
}

/// The event that the rate of `high` is below that of `low`, on a grid of offsets from the mode of
/// `low`.
struct Reversal {
    /// Weights of the nodes.
    weights: Vec<f64>,
    /// ln of the density of `low`.
    ln_density: Vec<f64>,
    /// ln P(high below the node).
    ln_below: Vec<f64>,
    /// ln P(low above the node).
    ln_above: Vec<f64>,
    /// ln of x (1 − x), the derivative of the share by its logit.
    ln_share_slope: Vec<f64>,
}

impl Reversal {
    /// `gap` is the mode of `high` minus that of `low`, `peak` an offset at which the bound of the
    /// integrands is largest.
    fn new(low: &LogitBeta, high: &LogitBeta, gap: f64, peak: f64) -> Self {
        let (nodes, weights) = grid(low, high, gap, peak);
        let shifted: Vec<f64> = nodes.iter().map(|node| node - gap).collect();
        Self {
            weights,
            ln_density: nodes.iter().map(|&node| low.ln_density(node)).collect(),
            ln_below: high.ln_lower_tails(&shifted),
            ln_above: low.ln_upper_tails(&nodes),
            ln_share_slope: nodes
                .iter()
                .map(|node| ln_share_slope(low.mode() + node))
                .collect(),
        }
    }

    /// ln P(high < low) = ln ∫ f_low F_high.
    fn ln_chance(&self) -> f64 {
        let terms: Vec<f64> = sums(&self.ln_density, &self.ln_below);
        ln_integral(&self.weights, &terms)
    }

    /// E[max(low − high, 0)] = ∫ F_high (1 − F_low) dx, over the share x.
    fn loss(&self) -> f64 {
        let tails = sums(&self.ln_below, &self.ln_above);
        ln_integral(&self.weights, &sums(&tails, &self.ln_share_slope)).exp()
    }
}

/// Nodes and weights of the integrals.
fn grid(low: &LogitBeta, high: &LogitBeta, gap: f64, peak: f64) -> (Vec<f64>, Vec<f64>) {
    // Of F_high (1 − F_low), up to powers: tails fall like densities, on the other side of the
    // mode they are next to 1.
    let bound = |offset: f64| {
        let (above, below) = (
            low.drop(offset.max(0.0)),
            high.drop((offset - gap).min(0.0)),
        );
        Drop {
            nats: above.nats + below.nats,
            slope: above.slope + below.slope,
            curvature: above.curvature * f64::from(offset > 0.0)
                + below.curvature * f64::from(offset < gap),
        }
    };
    let [low_bends, high_bends] = [low.bends(), high.bends().map(|offset| offset + gap)];
    let bends = [low_bends, high_bends].concat();
    let side = |end: f64| {
        let walk = Walk::new(bound, &bends, peak, end, REGION_NATS);
        walk.map(|(_, far)| far)
    };
    let mut ends: Vec<f64> = side(f64::NEG_INFINITY).chain(side(f64::INFINITY)).collect();
    ends.push(peak);
    ends.sort_by(f64::total_cmp);
    let range = ends[0]..ends[ends.len() - 1];
    // Where a tail turns from falling to constant the bound does not see it.
    let turns_low = low.panel_ends(-1.0, TAIL_NATS).into_iter().chain([0.0]);
    let turns_high = high.panel_ends(1.0, TAIL_NATS).into_iter().chain([0.0]);
    let turns = turns_low.chain(turns_high.map(|offset| offset + gap));
    ends.extend(turns.filter(|end| range.contains(end)));
    ends.sort_by(f64::total_cmp);
    ends.windows(2)
        .flat_map(|pair| gauss(pair[0], pair[1]))
        .unzip()
}

/// ln(x (1 − x)) at a logit.
fn ln_share_slope(logit: f64) -> f64 {
    let size = logit.abs();
    -size - 2.0 * (-size).exp().ln_1p()
}

pub(super) fn sums(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// ln Σ w e^t.
pub(super) fn ln_integral(weights: &[f64], terms: &[f64]) -> f64 {
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    let scaled = weights
        .iter()
        .zip(terms)
        .map(|(w, term)| w * (term - top).exp());
    top + scaled.sum::<f64>().ln()
}
