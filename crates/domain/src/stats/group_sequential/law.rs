//! The law of the statistic among the paths that have not crossed, carried from look to look.

use std::f64::consts::TAU;
use std::sync::OnceLock;

use super::super::special::{norm_isf, norm_pdf, norm_sf};

/// Below this z there is nothing to carry along: a normal variable is lower with probability 1e-12.
const LOWEST: f64 = -7.0;
/// Nodes of the coarsest rule, and how often their number may double.
const NODES: usize = 64;
const DOUBLINGS: usize = 6;
/// Kernel widths that a range of z may hold per node: so 64 nodes serve steps of 4 % of
/// information, 128 steps of 1 %. The bounds of some hundred looks then err by less than 1e-7
/// (measured against 1,400 nodes throughout); at 0.55 it would be 1e-11.
const WIDTHS_PER_NODE: f64 = 0.72;
/// Kernels are cut off where they fall below e^−72 of their peak.
const REACH: f64 = 12.0;
/// The least growth of information that the finest rule resolves; a smaller one counts as this
/// much. That makes neighbouring looks less alike than they are, which can only raise the bound.
const LEAST_GROWTH: f64 = 2e-5;
/// Steps of the search for a bound; about six are usual.
const STEPS: u32 = 200;

/// Sub-density of z at the last look among paths that crossed neither there nor before.
#[derive(Clone, Debug)]
pub(super) struct Law {
    info: f64,
    upper: f64,
    arrival: Arrival,
}

/// How the density at a look comes about.
#[derive(Clone, Debug)]
enum Arrival {
    /// At the first look it is normal.
    Normal,
    /// Later it is that of the look before, moved on.
    Moved { from: Cloud, by: Move },
}

/// Nodes of z and the probability that each stands for.
#[derive(Clone, Debug)]
struct Cloud {
    z: Vec<f64>,
    mass: Vec<f64>,
}

/// From z at one look to keep·z + spread·(a normal variable) at the next.
#[derive(Clone, Copy, Debug)]
struct Move {
    keep: f64,
    spread: f64,
}

impl Move {
    fn new(from: f64, to: f64) -> Self {
        let grown = ((to - from) / to).max(LEAST_GROWTH);
        Self {
            keep: (1.0 - grown).sqrt(),
            spread: grown.sqrt(),
        }
    }
}

impl Law {
    /// The first look, with its bound.
    pub(super) fn first(info: f64, bound: f64) -> Self {
        Self {
            info,
            upper: bound,
            arrival: Arrival::Normal,
        }
    }

    pub(super) fn bound(&self) -> f64 {
        self.upper
    }

    /// The next look, at which paths of probability `added` are to cross upwards.
    pub(super) fn step(&self, info: f64, added: f64) -> Self {
        let by = Move::new(self.info, info);
        // Paths only die below the bound; far below there are none.
        let lower = LOWEST.min(self.upper - 2.0);
        let from = self.cloud(lower, by);
        let upper = from.bound(by, added);
        Self {
            info,
            upper,
            arrival: Arrival::Moved { from, by },
        }
    }

    /// The next look of a two-sided design with the bounds ±`bound`; also the probability that a
    /// path crosses one of them there.
    pub(super) fn step_symmetric(&self, info: f64, bound: f64) -> (Self, f64) {
        let by = Move::new(self.info, info);
        let from = self.cloud(-self.upper, by);
        // The law is symmetric: both sides cross alike.
        let crossed = 2.0 * from.above(by, bound);
        let law = Self {
            info,
            upper: bound,
            arrival: Arrival::Moved { from, by },
        };
        (law, crossed)
    }

    /// The law as nodes from `lower` to its bound, fine enough for itself and for the next move.
    ///
    /// The nodes are chosen only now, because how fine they must be depends on that move: on its
    /// kernel, whose width is spread/keep here, and on that of the move before, which rounded off
    /// the edge that the bound had cut.
    fn cloud(&self, lower: f64, next: Move) -> Cloud {
        let own = match &self.arrival {
            Arrival::Normal => 1.0,
            Arrival::Moved { by, .. } => by.spread,
        };
        let rule = Rule::for_width((self.upper - lower) / own.min(next.spread / next.keep));
        let half = 0.5 * (self.upper - lower);
        let z: Vec<f64> = rule
            .points
            .iter()
            .map(|x| lower + half * (1.0 + x))
            .collect();
        let weights = rule.weights.iter().zip(&z);
        let mass = weights.map(|(weight, z)| half * weight * self.density(*z));
        Cloud {
            mass: mass.collect(),
            z,
        }
    }

    fn density(&self, z: f64) -> f64 {
        match &self.arrival {
            Arrival::Normal => norm_pdf(z),
            Arrival::Moved { from, by } => from.density(*by, z),
        }
    }
}

impl Cloud {
    /// Density at `z` after the move.
    fn density(&self, by: Move, z: f64) -> f64 {
        let reach = REACH * by.spread;
        let first = self.z.partition_point(|node| by.keep * node < z - reach);
        let last = self.z.partition_point(|node| by.keep * node <= z + reach);
        let (keep, ahead) = (by.keep / by.spread, z / by.spread);
        let near = self.z[first..last].iter().zip(&self.mass[first..last]);
        let sum: f64 = near
            .map(|(node, mass)| {
                let distance = ahead - keep * node;
                mass * (-0.5 * distance * distance).exp()
            })
            .sum();
        sum / (by.spread * TAU.sqrt())
    }

    /// Probability of being above `z` after the move.
    fn above(&self, by: Move, z: f64) -> f64 {
        let nodes = self.z.iter().zip(&self.mass);
        nodes
            .map(|(node, mass)| mass * norm_sf((z - by.keep * node) / by.spread))
            .sum()
    }

    /// The z above which a path is with probability `added` after the move.
    ///
    /// The logarithm of the tail is concave (the law is a truncated normal one, moved), so
    /// Newton's method in it converges from the right, where the normal quantile lies. Where the
    /// tail underflows the interval is halved instead.
    fn bound(&self, by: Move, added: f64) -> f64 {
        let target = added.ln();
        let mut right = norm_isf(added);
        let mut left = LOWEST.min(right) - 2.0;
        let mut z = right;
        for _ in 0..STEPS {
            let tail = self.above(by, z);
            let excess = tail.ln() - target;
            if excess > 0.0 {
                left = z;
            } else {
                right = z;
            }
            let step = excess * (tail / self.density(by, z));
            if step.abs() <= 1e-13 * z.abs().max(1.0) || right - left <= 1e-14 {
                break;
            }
            let next = z + step;
            z = if next > left && next < right {
                next
            } else {
                0.5 * (left + right)
            };
        }
        z
    }
}

/// A Gauss–Legendre rule on [−1, 1].
struct Rule {
    points: Vec<f64>,
    weights: Vec<f64>,
}

impl Rule {
    /// The smallest rule that resolves so many widths.
    fn for_width(widths: f64) -> &'static Self {
        static RULES: [OnceLock<Rule>; DOUBLINGS + 1] = [const { OnceLock::new() }; DOUBLINGS + 1];
        let enough = |doublings: &usize| {
            let nodes = NODES << doublings;
            nodes as f64 * WIDTHS_PER_NODE >= widths
        };
        let doublings = (0..DOUBLINGS).find(enough).unwrap_or(DOUBLINGS);
        RULES[doublings].get_or_init(|| Self::new(NODES << doublings))
    }

    /// Roots of the Legendre polynomial by Newton's method from Tricomi's approximation.
    fn new(nodes: usize) -> Self {
        let n = nodes as f64;
        let (mut points, mut weights) = (vec![0.0; nodes], vec![0.0; nodes]);
        for i in 0..nodes.div_ceil(2) {
            let angle = std::f64::consts::PI * (i as f64 + 0.75) / (n + 0.5);
            let mut x = angle.cos() * (1.0 - (1.0 - 1.0 / n) / (8.0 * n * n));
            let mut slope = 1.0;
            for _ in 0..10 {
                let (value, derivative) = legendre(nodes, x);
                slope = derivative;
                let step = value / derivative;
                x -= step;
                if step.abs() < 1e-15 {
                    break;
                }
            }
            let weight = 2.0 / ((1.0 - x) * (1.0 + x) * slope * slope);
            (points[i], points[nodes - 1 - i]) = (-x, x);
            (weights[i], weights[nodes - 1 - i]) = (weight, weight);
        }
        Self { points, weights }
    }
}

/// The Legendre polynomial of a degree above 0 and its derivative, inside (−1, 1).
fn legendre(degree: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (1.0, x);
    for k in 2..=degree {
        let k = k as f64;
        (before, value) = (
            value,
            ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k,
        );
    }
    let slope = degree as f64 * (before - x * value) / ((1.0 - x) * (1.0 + x));
    (value, slope)
}
