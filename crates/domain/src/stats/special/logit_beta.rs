//! The beta distribution on the logit scale: tails at any parameters and at any depth, at a price
//! that does not grow with the parameters.
//!
//! The logit of a Beta(a, b) variable has the log-concave density x^a y^b / B(a, b) with mode
//! ln(a/b). Points are given as offsets from that mode, so that a difference of 1e-8 keeps its
//! digits at 1e15 units, and tails are integrals of the density by Gauss–Legendre panels.

use std::f64::consts::TAU;

use super::gamma::{deviance_by, stirling_error};

/// Half of the nodes on [−1, 1] of the Gauss–Legendre rule with twelve nodes, and their weights;
/// the other half is the mirror image.
const GAUSS: [(f64, f64); 6] = [
    (0.125_233_408_511_468_9, 0.249_147_045_813_402_8),
    (0.367_831_498_998_180_2, 0.233_492_536_538_354_8),
    (0.587_317_954_286_617_4, 0.203_167_426_723_065_92),
    (0.769_902_674_194_304_7, 0.160_078_328_543_346_23),
    (0.904_117_256_370_474_9, 0.106_939_325_995_318_43),
    (0.981_560_634_246_719_2, 0.047_175_336_386_511_83),
];
/// Likewise of the rule with six nodes.
const GAUSS_SHORT: [(f64, f64); 3] = [
    (0.238_619_186_083_196_9, 0.467_913_934_572_691_04),
    (0.661_209_386_466_264_5, 0.360_761_573_048_138_6),
    (0.932_469_514_203_152, 0.171_324_492_379_170_35),
];

/// A panel is meant to span so many nats of the logarithm that is integrated: twelve nodes
/// integrate e^x over it to 1e-15.
const PANEL_NATS: f64 = 8.0;
/// Next to a bend of the density, a unit or so on the logit scale, panels are no wider than this.
const NARROW: f64 = 2.0;
/// More nats than that are too many.
const PANEL_NATS_MAX: f64 = 10.0;
/// Over so few nats six nodes are enough for 1e-15, too.
const SHORT_NATS: f64 = 1.0;
/// A tail ends where the density is e^−42 of its largest value: 6e-19.
const TAIL_NATS: f64 = 42.0;
/// Panels of a walk at most; about ten are usual.
const PANELS: usize = 2_000;
/// Steps of Newton's method for quantiles; about six are usual.
const STEPS: u32 = 100;

/// How far a log-concave function lies below a reference value, with two derivatives.
#[derive(Clone, Copy, Debug)]
pub(in crate::stats) struct Drop {
    /// Nats below the reference.
    pub(in crate::stats) nats: f64,
    /// First derivative of the nats.
    pub(in crate::stats) slope: f64,
    /// Second derivative, not negative.
    pub(in crate::stats) curvature: f64,
}

/// The logit of a Beta(a, b) variable.
#[derive(Clone, Copy, Debug)]
pub(in crate::stats) struct LogitBeta {
    a: f64,
    b: f64,
    /// a/(a + b).
    p: f64,
    /// b/(a + b).
    q: f64,
    /// ln(a/b).
    mode: f64,
    /// ln of the density at the mode.
    ln_peak: f64,
    /// Offsets around which the density bends within a few units: those of the logits 0, where a
    /// share turns from exponential to constant, of −ln b, where the expected number of successes
    /// is 1, and of ln a, likewise for failures.
    bends: [f64; 3],
}

impl LogitBeta {
    /// For a, b > 0 with a finite sum; anything else ends in NaN.
    pub(in crate::stats) fn new(a: f64, b: f64) -> Self {
        let n = a + b;
        let corrections = stirling_error(n) - stirling_error(a) - stirling_error(b);
        let mode = a.ln() - b.ln();
        Self {
            a,
            b,
            p: a / n,
            q: b / n,
            mode,
            bends: [0.0, -b.max(1.0).ln(), a.max(1.0).ln()].map(|logit| logit - mode),
            ln_peak: 0.5 * ((a.min(b) / TAU).ln() + (a.max(b) / n).ln()) + corrections,
        }
    }

    /// The distribution of the other share, 1 − x.
    fn mirrored(&self) -> Self {
        Self {
            a: self.b,
            b: self.a,
            p: self.q,
            q: self.p,
            mode: -self.mode,
            ln_peak: self.ln_peak,
            bends: self.bends.map(|offset| -offset),
        }
    }

    /// The share at the mode of its logit: a/(a + b), the mean.
    pub(in crate::stats) fn mean(&self) -> f64 {
        self.p
    }

    /// 1 minus the mean.
    pub(in crate::stats) fn complement(&self) -> f64 {
        self.q
    }

    /// The logit's mode ln(a/b).
    pub(in crate::stats) fn mode(&self) -> f64 {
        self.mode
    }

    /// Offsets around which the density bends, however wide it is.
    pub(in crate::stats) fn bends(&self) -> [f64; 3] {
        self.bends
    }

    /// Standard deviation of the logit as its curvature at the mode tells it.
    pub(in crate::stats) fn spread(&self) -> f64 {
        (self.a.min(self.b) * self.p.max(self.q)).sqrt().recip()
    }

    /// Standard deviation of the logarithm of the share, to first order.
    pub(in crate::stats) fn ln_share_spread(&self) -> f64 {
        (self.q / self.a).sqrt()
    }

    /// The share at an offset from the mode.
    pub(in crate::stats) fn share(&self, offset: f64) -> f64 {
        if offset > 0.0 {
            self.p / (self.p + self.q * (-offset).exp())
        } else {
            let grown = self.p * offset.exp();
            grown / (self.q + grown)
        }
    }

    /// The log density below its peak.
    pub(in crate::stats) fn drop(&self, offset: f64) -> Drop {
        if offset > 0.0 {
            let mirrored = left_drop(self.b, self.a, self.q, self.p, -offset);
            Drop {
                slope: -mirrored.slope,
                ..mirrored
            }
        } else {
            left_drop(self.a, self.b, self.p, self.q, offset)
        }
    }

    /// ln of the density of the logit.
    pub(in crate::stats) fn ln_density(&self, offset: f64) -> f64 {
        self.ln_peak - self.drop(offset).nats
    }

    /// ln of the lower tails at offsets that rise.
    pub(in crate::stats) fn ln_lower_tails(&self, offsets: &[f64]) -> Vec<f64> {
        let (mut at, mut ln_tail) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        let next = |&offset: &f64| {
            ln_tail = ln_sum(ln_tail, self.ln_mass(at, offset)).min(0.0);
            at = offset;
            ln_tail
        };
        offsets.iter().map(next).collect()
    }

    /// ln of the upper tails at offsets that rise.
    pub(in crate::stats) fn ln_upper_tails(&self, offsets: &[f64]) -> Vec<f64> {
        let mirrored: Vec<f64> = offsets.iter().rev().map(|offset| -offset).collect();
        let mut tails = self.mirrored().ln_lower_tails(&mirrored);
        tails.reverse();
        tails
    }

    /// The share whose lower tail is e^`ln_p`, for a negative `ln_p`.
    pub(in crate::stats) fn lower_quantile(&self, ln_p: f64) -> f64 {
        self.share(self.lower_offset(ln_p))
    }

    /// The share whose upper tail is e^`ln_p`.
    pub(in crate::stats) fn upper_quantile(&self, ln_p: f64) -> f64 {
        self.share(-self.mirrored().lower_offset(ln_p))
    }

    /// Newton's method on the logarithm of the lower tail, which is concave: it converges from
    /// everywhere, from the left monotonely.
    fn lower_offset(&self, ln_p: f64) -> f64 {
        let mut offset = -self.spread() * (-2.0 * ln_p).sqrt();
        for _ in 0..STEPS {
            let ln_tail = self.ln_mass(f64::NEG_INFINITY, offset);
            let step = (ln_tail - ln_p) * (ln_tail - self.ln_density(offset)).exp();
            offset -= step;
            // The share moves by less than its step on the logit scale.
            if step.abs() <= 1e-13 * offset.abs().min(1.0) || !step.is_finite() {
                break;
            }
        }
        offset
    }

    /// ln of the probability between two offsets; the lower may be minus infinity.
    fn ln_mass(&self, from: f64, to: f64) -> f64 {
        let peak = 0.0_f64.max(from).min(to);
        let top = self.drop(peak).nats;
        let density = |offset: f64| (top - self.drop(offset).nats).exp();
        let sum = |nodes: &mut dyn Iterator<Item = (f64, f64)>| {
            nodes.map(|(x, w)| w * density(x)).sum::<f64>()
        };
        let mass = if self.is_short(from, to, top) {
            sum(&mut nodes(&GAUSS_SHORT, from, to))
        } else {
            let side = |end: f64| {
                let walk = Walk::new(
                    |offset| self.drop(offset),
                    &self.bends,
                    peak,
                    end,
                    TAIL_NATS,
                );
                walk.map(|(near, far)| sum(&mut gauss(near, far)))
                    .sum::<f64>()
            };
            side(from) + side(to)
        };
        self.ln_peak - top + mass.ln()
    }

    /// Whether the density hardly changes between two offsets on one side of the mode.
    fn is_short(&self, from: f64, to: f64, top: f64) -> bool {
        let far = if from < 0.0 { from } else { to };
        let one_sided = from >= 0.0 || to <= 0.0;
        one_sided && to - from <= 0.5 && self.drop(far).nats - top <= SHORT_NATS
    }

    /// Ends of the panels from the mode to one side (+1 or −1), until the density has dropped by
    /// so many nats.
    pub(in crate::stats) fn panel_ends(&self, side: f64, nats: f64) -> Vec<f64> {
        let end = side * f64::INFINITY;
        let walk = Walk::new(|offset| self.drop(offset), &self.bends, 0.0, end, nats);
        walk.map(|(_, far)| far).collect()
    }
}

/// The drop left of the mode: D(a, n x) + D(b, n y) with D the deviance, both from the difference
/// a − n x = n y − b, which is known without cancellation.
fn left_drop(a: f64, b: f64, p: f64, q: f64, offset: f64) -> Drop {
    let change = offset.exp_m1();
    let factor = if offset < -1.0 {
        offset.exp()
    } else {
        1.0 + change
    };
    let scale = q + p * factor;
    let moved = -a * (q / scale) * change;
    let (expected_a, expected_b) = (a * (factor / scale), b / scale);
    let near = |m: f64, x: f64| moved < 0.1 * (x + m);
    let deviance_a = if near(expected_a, a) {
        deviance_by(expected_a, moved)
    } else {
        a * (scale.ln() - offset) - moved
    };
    let deviance_b = if near(expected_b, b) {
        deviance_by(expected_b, -moved)
    } else {
        b * scale.ln() + moved
    };
    Drop {
        nats: deviance_a + deviance_b,
        slope: -moved,
        curvature: expected_a * (q / scale),
    }
}

/// ln(e^a + e^b).
pub(in crate::stats) fn ln_sum(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    if small == f64::NEG_INFINITY {
        return large;
    }
    large + (small - large).exp().ln_1p()
}

/// Nodes and weights of the Gauss–Legendre rule with twelve nodes between two ends, in either
/// order; the weights are positive.
pub(in crate::stats) fn gauss(from: f64, to: f64) -> impl Iterator<Item = (f64, f64)> {
    nodes(&GAUSS, from, to)
}

fn nodes(rule: &[(f64, f64)], from: f64, to: f64) -> impl Iterator<Item = (f64, f64)> {
    let (centre, half) = (0.5 * (from + to), 0.5 * (to - from));
    let node = move |&(x, w): &(f64, f64), sign: f64| (centre + sign * half * x, half.abs() * w);
    let below = rule.iter().rev().map(move |pair| node(pair, -1.0));
    below.chain(rule.iter().map(move |pair| node(pair, 1.0)))
}

/// Panels from the highest point of a log-concave function outwards.
pub(in crate::stats) struct Walk<'a, F> {
    drop: F,
    bends: &'a [f64],
    at: f64,
    here: Drop,
    to: f64,
    /// Nats at which the walk ends.
    floor: f64,
    panels: usize,
}

impl<'a, F: Fn(f64) -> Drop> Walk<'a, F> {
    /// From the offset `from` towards `to`, until the function has dropped by `nats`. Around
    /// `bends` panels stay narrow, whatever the derivatives at their start say.
    pub(in crate::stats) fn new(drop: F, bends: &'a [f64], from: f64, to: f64, nats: f64) -> Self {
        let here = drop(from);
        Self {
            drop,
            bends,
            at: from,
            here,
            to,
            floor: here.nats + nats,
            panels: 0,
        }
    }

    /// The point at `width` from here, or the very end.
    fn probe(&self, direction: f64, width: f64, distance: f64) -> (f64, Drop) {
        let end = if width < distance {
            self.at + direction * width
        } else {
            self.to
        };
        (end, (self.drop)(end))
    }

    /// The panel's width that the derivatives at its start suggest.
    fn width(&self, direction: f64) -> f64 {
        let slope = (self.here.slope * direction).max(0.0);
        let root = (slope * slope + 2.0 * PANEL_NATS * self.here.curvature).sqrt();
        let suggested = 2.0 * PANEL_NATS / (slope + root);
        if suggested <= NARROW {
            return suggested;
        }
        let reaches = self.bends.iter().map(|bend| self.reach(*bend, direction));
        reaches.fold(suggested, f64::min)
    }

    /// How wide a panel may be so that a bend is a panel's width away from it, or is resolved.
    fn reach(&self, bend: f64, direction: f64) -> f64 {
        let ahead = (bend - self.at) * direction;
        if ahead > 0.0 {
            (0.5 * ahead).max(NARROW)
        } else {
            (-ahead).max(NARROW)
        }
    }
}

impl<F: Fn(f64) -> Drop> Iterator for Walk<'_, F> {
    type Item = (f64, f64);

    fn next(&mut self) -> Option<(f64, f64)> {
        let distance = (self.to - self.at).abs();
        // Also ends where a number is NaN.
        let open = self.here.nats < self.floor && distance > 0.0 && self.panels < PANELS;
        if !open {
            return None;
        }
        let direction = (self.to - self.at).signum();
        let mut width = self.width(direction).min(distance);
        let (mut end, mut there) = self.probe(direction, width, distance);
        // The curvature may grow on the way.
        let moves = |end: f64| (end - self.at).abs() > 0.0;
        while there.nats - self.here.nats > PANEL_NATS_MAX && moves(end) {
            width *= 0.6;
            (end, there) = self.probe(direction, width, distance);
        }
        if !moves(end) {
            return None;
        }
        self.panels += 1;
        let panel = (self.at, end);
        (self.at, self.here) = (end, there);
        Some(panel)
    }
}
