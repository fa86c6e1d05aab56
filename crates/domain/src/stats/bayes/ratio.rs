//! Quantiles of the ratio of two rates.

use crate::stats::special::{LogitBeta, gauss, norm_isf};

use super::overlap::{ln_integral, sums};

/// Nats beyond the tail that is asked for at which an integral ends.
const SPARE_NATS: f64 = 20.0;
/// Steps of the root search at most; about three are usual.
const STEPS: u32 = 200;
/// The root search ends at steps below this part of the spread: the next one would be about its
/// square.
const STEP_MIN: f64 = 1e-5;
/// And only where the logarithm of the tail is as close as this.
const EXCESS_MIN: f64 = 1e-4;
/// It also ends at a bracket of this width.
const WIDTH_MIN: f64 = 1e-11;
/// A log ratio below this is a lift of −1.
const LN_NOTHING: f64 = -40.0;

/// ln(rate_b/rate_a) at the lower tail `tail`, at the median, and at the upper tail `tail`.
pub(super) fn quantiles(a: &LogitBeta, b: &LogitBeta, tail: f64) -> [f64; 3] {
    let ratio = Ratio::new(a, b, tail);
    let centre = b.mean().ln() - a.mean().ln();
    let spread = a.ln_share_spread().hypot(b.ln_share_spread());
    let distance = norm_isf(tail) * spread;
    [
        ratio.quantile(Tail::Lower, tail, centre - distance, spread),
        ratio.quantile(Tail::Lower, 0.5, centre, spread),
        ratio.quantile(Tail::Upper, tail, centre + distance, spread),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    Lower,
    Upper,
}

impl Tail {
    fn opposite(self) -> Self {
        match self {
            Self::Lower => Self::Upper,
            Self::Upper => Self::Lower,
        }
    }
}

/// The ratio B/A.
struct Ratio<'a> {
    a: Arm<'a>,
    b: Arm<'a>,
}

struct Arm<'a> {
    rate: &'a LogitBeta,
    /// Ends of panels, as offsets from the mode.
    ends: Vec<f64>,
}

impl<'a> Arm<'a> {
    fn new(rate: &'a LogitBeta, nats: f64) -> Self {
        let mut ends = vec![0.0];
        ends.extend(rate.panel_ends(-1.0, nats));
        ends.extend(rate.panel_ends(1.0, nats));
        Self { rate, ends }
    }
}

/// A tail of the log ratio at a point.
struct Value {
    ln_tail: f64,
    /// ln of the density.
    ln_density: f64,
}

impl<'a> Ratio<'a> {
    fn new(a: &'a LogitBeta, b: &'a LogitBeta, tail: f64) -> Self {
        let nats = SPARE_NATS - tail.ln();
        Self {
            a: Arm::new(a, nats),
            b: Arm::new(b, nats),
        }
    }

    /// Newton's method on the logarithm of the tail, kept inside what is known. Where a beta below
    /// 1 makes the density of the ratio infinite at 1 it does not converge, but halving does.
    fn quantile(&self, side: Tail, tail: f64, start: f64, spread: f64) -> f64 {
        let mut bracket = Bracket::new();
        let (mut at, mut last) = (start, f64::INFINITY);
        for _ in 0..STEPS {
            let value = self.tail(side, at);
            let excess = value.ln_tail - tail.ln();
            let size = excess * (value.ln_tail - value.ln_density).exp();
            let (rising, step) = match side {
                Tail::Lower => (excess < 0.0, -size),
                Tail::Upper => (excess > 0.0, size),
            };
            if excess.abs() <= EXCESS_MIN && step.abs() <= STEP_MIN * spread.min(1.0) {
                return at + step;
            }
            bracket.narrow(at, rising);
            if bracket.is_closed() {
                break;
            }
            let converges = excess.abs() <= 0.5 * last;
            last = excess.abs();
            at = if converges && bracket.contains(at + step) {
                at + step
            } else {
                bracket.middle(at)
            };
        }
        at
    }

    /// P(ln B − ln A below, or above, `ln_ratio`): the arm that is shrunk by the ratio is the
    /// outer one of the double integral, so that the other's rate never has to exceed 1.
    fn tail(&self, side: Tail, ln_ratio: f64) -> Value {
        if ln_ratio <= 0.0 {
            shrunk_tail(&self.a, &self.b, ln_ratio, side)
        } else {
            shrunk_tail(&self.b, &self.a, -ln_ratio, side.opposite())
        }
    }
}

/// Two points between which a root lies; either may still be unknown.
struct Bracket {
    below: f64,
    above: f64,
}

impl Bracket {
    fn new() -> Self {
        Self {
            below: f64::NEG_INFINITY,
            above: f64::INFINITY,
        }
    }

    fn narrow(&mut self, at: f64, root_is_above: bool) {
        if root_is_above {
            self.below = at;
        } else {
            self.above = at;
        }
    }

    fn contains(&self, at: f64) -> bool {
        at > self.below && at < self.above
    }

    /// Whether the lift is known to ten digits.
    fn is_closed(&self) -> bool {
        self.above - self.below <= WIDTH_MIN || self.above < LN_NOTHING
    }

    fn middle(&self, at: f64) -> f64 {
        if self.below == f64::NEG_INFINITY {
            at - at.abs().max(1.0)
        } else if self.above == f64::INFINITY {
            at + at.abs().max(1.0)
        } else {
            0.5 * (self.below + self.above)
        }
    }
}

/// The chance that the inner rate is below (or above) the outer rate times e^`ln_factor`, for a
/// factor of at most 1.
fn shrunk_tail(outer: &Arm<'_>, inner: &Arm<'_>, ln_factor: f64, side: Tail) -> Value {
    let shrink = Shrink::new(ln_factor);
    let (outer_mode, inner_mode) = (outer.rate.mode(), inner.rate.mode());
    let images = inner.ends.iter().filter_map(|end| {
        let logit = shrink.inverse(inner_mode + end)?;
        Some(logit - outer_mode)
    });
    let mut ends: Vec<f64> = outer.ends.clone();
    ends.sort_by(f64::total_cmp);
    let range = ends[0]..ends[ends.len() - 1];
    ends.extend(images.filter(|end| range.contains(end)));
    ends.sort_by(f64::total_cmp);
    let (nodes, weights): (Vec<f64>, Vec<f64>) = ends
        .windows(2)
        .flat_map(|pair| gauss(pair[0], pair[1]))
        .unzip();
    let images: Vec<Image> = nodes
        .iter()
        .map(|node| shrink.image(outer_mode + node))
        .collect();
    let offsets: Vec<f64> = images
        .iter()
        .map(|image| image.logit - inner_mode)
        .collect();
    let ln_tails = match side {
        Tail::Lower => inner.rate.ln_lower_tails(&offsets),
        Tail::Upper => inner.rate.ln_upper_tails(&offsets),
    };
    let outside: Vec<f64> = nodes
        .iter()
        .map(|node| outer.rate.ln_density(*node))
        .collect();
    let slope = |(offset, image): (&f64, &Image)| inner.rate.ln_density(*offset) - image.ln_rest;
    let slopes: Vec<f64> = offsets.iter().zip(&images).map(slope).collect();
    Value {
        ln_tail: ln_integral(&weights, &sums(&outside, &ln_tails)),
        ln_density: ln_integral(&weights, &sums(&outside, &slopes)),
    }
}

/// Multiplication of a share by a factor of at most 1, on the logit scale.
struct Shrink {
    ln_factor: f64,
    factor: f64,
    /// 1 − factor.
    rest: f64,
}

/// A shrunk share.
struct Image {
    logit: f64,
    /// ln of 1 minus the share; the inverse of that is the derivative of the logit by the
    /// logarithm of the factor.
    ln_rest: f64,
}

impl Shrink {
    fn new(ln_factor: f64) -> Self {
        Self {
            ln_factor,
            factor: ln_factor.exp(),
            rest: -ln_factor.exp_m1(),
        }
    }

    fn image(&self, logit: f64) -> Image {
        let below = logit.min(0.0);
        let ln_share = below - (-logit.abs()).exp().ln_1p();
        let other = 1.0 / (1.0 + logit.exp());
        let ln_rest = (self.rest + self.factor * other).ln();
        Image {
            logit: self.ln_factor + ln_share - ln_rest,
            ln_rest,
        }
    }

    /// The logit whose image is `logit`, when there is one.
    fn inverse(&self, logit: f64) -> Option<f64> {
        let (share, other) = (1.0 / (1.0 + (-logit).exp()), 1.0 / (1.0 + logit.exp()));
        let rest = other - self.rest;
        (rest > 0.0 && share > 0.0).then(|| share.ln() - rest.ln())
    }
}
