//! The beta distribution seen on the scale of the logit y = ln(x / (1 − x)).
//!
//! There its density x^a (1−x)^b / B(a, b) is log-concave and smooth for all a, b > 0: nothing is
//! singular at rates of 0 or 1. Log-densities are taken against the mode and written as
//! a ln(x/x₀) + b ln((1−x)/(1−x₀)) with each ratio next to 1, which keeps their digits at 1e12
//! plays.

use crate::quadrature::{CUT, Density, NODES, Panel, RULE, Row};
use crate::special::{ln_beta_logit_peak, ln_mix, logistic};

/// Density of the logit of a Beta(a, b) variable.
#[derive(Clone, Debug)]
pub(crate) struct LogitBeta {
    a: f64,
    b: f64,
    /// ln(a/b).
    mode: f64,
    ln_peak: f64,
    support: (f64, f64),
}

impl LogitBeta {
    /// a, b > 0 and finite.
    pub(crate) fn new(a: f64, b: f64) -> Self {
        let mut density = Self {
            a,
            b,
            mode: (a / b).ln(),
            ln_peak: ln_beta_logit_peak(a, b),
            support: (0.0, 0.0),
        };
        density.support = (density.edge(-1.0), density.edge(1.0));
        density
    }

    /// ln of the density at y against that at the mode.
    fn ln_relative(&self, y: f64) -> f64 {
        let n = self.a + self.b;
        let (x, rest) = (self.a / n, self.b / n);
        let u = y - self.mode;
        -self.a * ln_mix(rest, x, -u) - self.b * ln_mix(x, rest, u)
    }

    /// The slope of the log-density: a (1−x) − b x.
    fn slope(&self, y: f64) -> f64 {
        self.a * logistic(-y) - self.b * logistic(y)
    }

    /// Where the log-density has fallen by a little more than the cut, on one side of the mode.
    ///
    /// From outside, Newton's method stays outside, as the log-density is concave.
    fn edge(&self, side: f64) -> f64 {
        let n = self.a + self.b;
        // A normal density is below the cut at eight standard deviations.
        let mut step = 8.0 * (n / self.a / self.b).sqrt();
        while self.ln_relative(self.mode + side * step) > -CUT {
            step *= 2.0;
        }
        let mut y = self.mode + side * step;
        for _ in 0..60 {
            let excess = self.ln_relative(y) + CUT;
            if excess > -3.0 {
                break;
            }
            y -= excess / self.slope(y);
        }
        y
    }

    /// The density at y.
    pub(crate) fn at(&self, y: f64) -> f64 {
        (self.ln_peak + self.ln_relative(y)).exp()
    }
}

/// Nodes of a panel on the logit scale.
pub(crate) struct LogitPanel {
    middle: f64,
    /// ln(x / x_middle) and ln((1−x) / (1−x_middle)).
    ln_rise: Row,
    ln_fall: Row,
    width: f64,
}

impl Panel for LogitPanel {
    fn new(left: f64, width: f64) -> Self {
        let middle = left + 0.5 * width;
        let (x, rest) = (logistic(middle), logistic(-middle));
        let mut panel = Self {
            middle,
            ln_rise: [0.0; NODES],
            ln_fall: [0.0; NODES],
            width,
        };
        for (i, node) in RULE.nodes.iter().enumerate() {
            let u = (node - 0.5) * width;
            // ln(x/x₀) − ln((1−x)/(1−x₀)) = u; the smaller of the two is the one to compute.
            if x <= 0.5 {
                panel.ln_fall[i] = -ln_mix(x, rest, u);
                panel.ln_rise[i] = u + panel.ln_fall[i];
            } else {
                panel.ln_rise[i] = -ln_mix(rest, x, -u);
                panel.ln_fall[i] = panel.ln_rise[i] - u;
            }
        }
        panel
    }

    fn values(&self) -> Row {
        RULE.nodes
            .map(|node| logistic(self.middle + (node - 0.5) * self.width))
    }
}

/// A point on the logit scale: the rate, what it lacks to 1, and the distance to which a panel from
/// there keeps clear of the singularities that the densities have at ±iπ.
pub(crate) struct LogitPlace {
    rate: f64,
    rest: f64,
    clear: f64,
}

impl Density for LogitBeta {
    type Panel = LogitPanel;
    type Place = LogitPlace;

    fn place(y: f64) -> LogitPlace {
        LogitPlace {
            rate: logistic(y),
            rest: logistic(-y),
            clear: 0.9 * y.hypot(std::f64::consts::PI),
        }
    }

    fn support(&self) -> (f64, f64) {
        self.support
    }

    fn width(&self, place: &LogitPlace) -> f64 {
        let slope = (self.a * place.rest - self.b * place.rate).abs();
        let curvature = (self.a + self.b) * place.rate * place.rest;
        (2.5 / curvature.sqrt()).min(8.0 / slope).min(place.clear)
    }

    fn fill(&self, panel: &LogitPanel, out: &mut Row) {
        let base = self.ln_peak + self.ln_relative(panel.middle);
        for ((value, rise), fall) in out.iter_mut().zip(&panel.ln_rise).zip(&panel.ln_fall) {
            *value = (base + self.a * rise + self.b * fall).exp();
        }
    }
}
