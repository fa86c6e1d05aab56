//! The default policy: Thompson sampling that explores no more than it has to.
//!
//! Every arm, with probability ε, states a draw from its posterior, and otherwise its posterior
//! mean; the largest statement wins. With many arms plain Thompson sampling spends the first
//! hundred thousand plays on arms that happen to draw high; here about one arm a decision explores.
//! ε = min(1, max(1/K, 30/K²)): all draw with up to five arms, three of ten do, and from 30 arms on
//! one in K does. Draws come from a posterior with 1.1 times the evidence.
//!
//! With a fixed ε > 0 and the plain posterior the regret is asymptotically optimal (source below);
//! the sharper draws give up the logarithm in the worst case, for less regret at the horizons of
//! experiments.
//!
//! Source: Jin, Yang, Xiao & Xu, *Thompson sampling with less exploration is fast and optimal*,
//! ICML 2023.

use rand::{Rng, RngExt};

use crate::arms::{Arms, LEAN_SHARPNESS};
use crate::best::{Front, products_of_others, sweep};
use crate::error::BanditError;
use crate::logit_beta::LogitBeta;
use crate::quadrature::{Density, NODES, RULE, Row, mass_up_to};
use crate::special::float_len;

/// The probability ε that one of `arms` arms states a draw.
#[must_use]
pub fn exploring_share(arms: usize) -> f64 {
    let k = float_len(arms.max(1));
    (30.0 / (k * k)).max(1.0 / k).min(1.0)
}

/// Chooses an arm; `None` without arms.
pub(crate) fn choose(arms: &Arms, rng: &mut impl Rng) -> Option<usize> {
    let share = exploring_share(arms.len());
    let mut best = None;
    let mut top = f64::NEG_INFINITY;
    let mut equals = 1_u32;
    for (number, arm) in arms.as_slice().iter().enumerate() {
        let statement = if share >= 1.0 || rng.random::<f64>() < share {
            arm.sharp_draw(rng)
        } else {
            arm.posterior_mean
        };
        if statement > top {
            (best, top, equals) = (Some(number), statement, 1);
        } else if statement >= top {
            equals += 1;
            if rng.random_range(0..equals) == 0 {
                best = Some(number);
            }
        }
    }
    best
}

/// The probabilities with which [`choose`] takes the arms; absolute error below 1e-9.
///
/// An arm's statement has the distribution function G = (1 − ε) 1{x ≥ mean} + ε F: steps at the
/// means, smooth between, so the panels end at the means.
pub(crate) fn probabilities(arms: &Arms) -> Result<Vec<f64>, BanditError> {
    let share = exploring_share(arms.len());
    let prior = arms.prior();
    let densities: Vec<_> = arms
        .as_slice()
        .iter()
        .map(|arm| {
            let evidence = arm.evidence();
            LogitBeta::new(
                prior.alpha() + LEAN_SHARPNESS * evidence.successes(),
                prior.beta() + LEAN_SHARPNESS * evidence.failures(),
            )
        })
        .collect();
    let logits: Vec<_> = arms
        .posteriors()
        .iter()
        .map(|posterior| (posterior.alpha() / posterior.beta()).ln())
        .collect();
    let mut chosen = drawn(&densities, &logits, share)?;
    if share < 1.0 {
        add_stated_means(&densities, &logits, share, &mut chosen);
    }
    let sum: f64 = chosen.iter().sum();
    if (sum - 1.0).abs() > 1e-6 || sum.is_nan() {
        return Err(BanditError::NotConverged { sum });
    }
    chosen.iter_mut().for_each(|p| *p /= sum);
    Ok(chosen)
}

/// Probability that an arm states a draw and wins: ε ∫ f_a ∏_{b≠a} G_b.
fn drawn(densities: &[LogitBeta], means: &[f64], share: f64) -> Result<Vec<f64>, BanditError> {
    let mut stops = means.to_vec();
    stops.sort_by(f64::total_cmp);
    let mut chosen = vec![0.0; densities.len()];
    let (mut stated, mut others): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
    sweep(densities, &stops, |front: &Front<'_>, active| {
        let middle = front.left + 0.5 * front.width;
        stated.clear();
        for (arm, cumulative) in active.iter().zip(front.cumulative) {
            let step = if means[*arm] <= middle {
                1.0 - share
            } else {
                0.0
            };
            stated.push(cumulative.map(|f| step + share * f));
        }
        products_of_others(&stated, &mut others);
        for ((arm, density), others) in active.iter().zip(front.density).zip(&others) {
            let mut row = [0.0; NODES];
            for i in 0..NODES {
                row[i] = density[i] * others[i];
            }
            chosen[*arm] += share * front.width * RULE.integral(&row);
        }
    })?;
    Ok(chosen)
}

/// Adds the probability that an arm states its mean and wins; equal means share.
fn add_stated_means(densities: &[LogitBeta], means: &[f64], share: f64, chosen: &mut [f64]) {
    let mut order: Vec<usize> = (0..means.len()).collect();
    order.sort_by(|a, b| means[*b].total_cmp(&means[*a]));
    // Above all means that come later in this order: they may state theirs, or draw below.
    let mut start = 0;
    while start < order.len() {
        let mean = means[order[start]];
        let equal = order[start..]
            .iter()
            .take_while(|arm| means[**arm] >= mean)
            .count();
        let group = &order[start..start + equal];
        let below = |arm: &usize| {
            let density = &densities[*arm];
            let (low, high) = density.support();
            if mean >= high {
                1.0
            } else if mean <= low {
                0.0
            } else {
                mass_up_to(density, mean)
            }
        };
        let higher: f64 = order[..start].iter().map(|a| share * below(a)).product();
        let lower: f64 = order[start + equal..]
            .iter()
            .map(|a| 1.0 - share + share * below(a))
            .product();
        let draws: Vec<_> = group.iter().map(|a| share * below(a)).collect();
        let tied = tied_shares(&draws, 1.0 - share);
        for (arm, tied) in group.iter().zip(tied) {
            chosen[*arm] += higher * lower * tied;
        }
        if higher <= 1e-18 {
            return;
        }
        start += equal;
    }
}

/// For arms with the same mean: the probability that each states it, no other of them draws above,
/// and it wins the tie. `draws` are the probabilities of drawing below, `stating` that of stating.
fn tied_shares(draws: &[f64], stating: f64) -> Vec<f64> {
    let share_of = |arm: usize| {
        // Coefficients by the number of others that state the mean, too.
        let mut counts = vec![1.0];
        for (other, below) in draws.iter().enumerate() {
            if other == arm {
                continue;
            }
            let mut next = vec![0.0; counts.len() + 1];
            for (number, p) in counts.iter().enumerate() {
                next[number] += p * below;
                next[number + 1] += p * stating;
            }
            counts = next;
        }
        let tie = |(number, p): (usize, &f64)| p / float_len(number + 1);
        stating * counts.iter().enumerate().map(tie).sum::<f64>()
    };
    // Equal draws give equal shares, and a group of unplayed arms may be large.
    let mut shares: Vec<f64> = Vec::with_capacity(draws.len());
    for arm in 0..draws.len() {
        let twin = (0..arm).find(|other| draws[*other].to_bits() == draws[arm].to_bits());
        let value = twin.map_or_else(|| share_of(arm), |other| shares[other]);
        shares.push(value);
    }
    shares
}
