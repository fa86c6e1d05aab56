//! Composite Gauss–Legendre quadrature whose panels follow the densities at hand.
//!
//! A family of densities brings its own coordinate in which they are smooth: [`Density`] tells how
//! wide a panel may be at a point. Distribution functions at the nodes come from the densities
//! by integrating the interpolating polynomial, so no incomplete beta function is evaluated.
//!
//! To add a family, implement [`Density`].

use std::sync::LazyLock;

/// Nodes of a panel.
pub(crate) const NODES: usize = 16;

/// One number a node.
pub(crate) type Row = [f64; NODES];

/// Log-density, against its maximum, at which a density's support is cut off. What is cut off has
/// a mass of about e^−27.
pub(crate) const CUT: f64 = 27.0;

/// The rule on [0, 1].
pub(crate) struct Rule {
    /// Where the function is evaluated.
    pub(crate) nodes: Row,
    /// ∫ f = Σ weight · f(node).
    pub(crate) weights: Row,
    /// `rising[j][i]`: what f(node j) contributes to the integral from 0 to node i.
    rising: [Row; NODES],
}

/// The rule, computed once.
pub(crate) static RULE: LazyLock<Rule> = LazyLock::new(Rule::new);

impl Rule {
    fn new() -> Self {
        let mut nodes = [0.0; NODES];
        let mut weights = [0.0; NODES];
        for i in 0..NODES {
            let (x, slope) = legendre_root(i);
            nodes[i] = 0.5 * (1.0 + x);
            weights[i] = 1.0 / ((1.0 - x * x) * slope * slope);
        }
        let mut rising = [[0.0; NODES]; NODES];
        for j in 0..NODES {
            for i in 0..NODES {
                rising[j][i] = weights[j] * partial_kernel(nodes[j], nodes[i]);
            }
        }
        Self {
            nodes,
            weights,
            rising,
        }
    }

    /// The integrals from the panel's left edge to each node, for a panel of width 1.
    pub(crate) fn rising(&self, f: &Row) -> Row {
        let mut sums = [0.0; NODES];
        for (value, column) in f.iter().zip(&self.rising) {
            for (sum, weight) in sums.iter_mut().zip(column) {
                *sum += value * weight;
            }
        }
        sums
    }

    /// The integral over a panel of width 1.
    pub(crate) fn integral(&self, f: &Row) -> f64 {
        f.iter().zip(&self.weights).map(|(f, w)| f * w).sum()
    }
}

/// Legendre polynomials P_0 … P_NODES at x in [−1, 1].
fn legendre(x: f64) -> [f64; NODES + 1] {
    let mut p = [1.0; NODES + 1];
    p[1] = x;
    let mut k = 1.0;
    for i in 1..NODES {
        p[i + 1] = ((2.0 * k + 1.0) * x * p[i] - k * p[i - 1]) / (k + 1.0);
        k += 1.0;
    }
    p
}

/// The i-th root of P_NODES from the left, and the slope there.
fn legendre_root(i: usize) -> (f64, f64) {
    let n = crate::special::float_len(NODES);
    let angle = std::f64::consts::PI * (crate::special::float_len(NODES - i) - 0.25) / (n + 0.5);
    let mut x = angle.cos();
    let mut slope = 1.0;
    // Newton's method doubles the digits of a start that has three.
    for _ in 0..6 {
        let p = legendre(x);
        slope = n * (p[NODES - 1] - x * p[NODES]) / (1.0 - x * x);
        x -= p[NODES] / slope;
    }
    (x, slope)
}

/// ∫ from 0 to `to` of Σ_k (2k+1) P_k(2 at − 1) P_k(2t − 1) dt: the polynomial through a value of 1
/// at the node `at`, over its weight.
fn partial_kernel(at: f64, to: f64) -> f64 {
    let (source, target) = (legendre(2.0 * at - 1.0), legendre(2.0 * to - 1.0));
    let higher: f64 = (1..NODES)
        .map(|k| source[k] * (target[k + 1] - target[k - 1]))
        .sum();
    to + 0.5 * higher
}

/// A probability density over a coordinate y in which it is smooth.
pub(crate) trait Density {
    /// What the nodes of a panel share between all densities of the family.
    type Panel: Panel;

    /// What a point shares between all densities of the family.
    type Place;

    /// The point y.
    fn place(y: f64) -> Self::Place;

    /// Between these lies all mass but about e^−27.
    fn support(&self) -> (f64, f64);

    /// How wide a panel that begins at a place may be.
    fn width(&self, place: &Self::Place) -> f64;

    /// The density at the nodes of a panel.
    fn fill(&self, panel: &Self::Panel, out: &mut Row);
}

/// A panel with its nodes.
pub(crate) trait Panel {
    /// The panel from `left` over `width`.
    fn new(left: f64, width: f64) -> Self;

    /// The parameter (a rate, a mean) at the nodes.
    fn values(&self) -> Row;
}

/// The width of the panel that begins at `y`, for densities all of which must be resolved.
///
/// Narrower panels for many densities: the product of their distribution functions rises more
/// steeply than any of them, about √(2 ln K) times.
pub(crate) fn panel_width<D: Density>(densities: &[&D], y: f64, end: f64) -> f64 {
    let crowd = 1.0 / (1.0 + 0.25 * crate::special::float_len(densities.len()).ln());
    let narrowest = |y: f64| {
        let place = D::place(y);
        densities
            .iter()
            .map(|density| density.width(&place))
            .fold(f64::INFINITY, f64::min)
    };
    let mut width = (crowd * narrowest(y)).min(end - y);
    // A density may be about to become steep: look at the far edge, too.
    for _ in 0..4 {
        let there = crowd * narrowest(y + width);
        if width <= 1.5 * there {
            break;
        }
        width = (0.5 * width).max(there);
    }
    // Progress also where the spacing of floats is coarser than the panel.
    width.max(y.abs() * 1e-12).max(f64::MIN_POSITIVE)
}

/// The mass of a density from the start of its support to `to`.
pub(crate) fn mass_up_to<D: Density>(density: &D, to: f64) -> f64 {
    let (low, high) = density.support();
    let end = to.min(high);
    let mut y = low;
    let mut mass = 0.0;
    while y < end {
        let width = panel_width(&[density], y, end);
        mass += panel_mass(density, y, width);
        y += width;
    }
    mass.min(1.0)
}

/// The mass of a density on one panel.
pub(crate) fn panel_mass<D: Density>(density: &D, left: f64, width: f64) -> f64 {
    let mut f = [0.0; NODES];
    density.fill(&D::Panel::new(left, width), &mut f);
    width * RULE.integral(&f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_exact_for_its_degree() {
        let mut f = [0.0; NODES];
        for (value, node) in f.iter_mut().zip(&RULE.nodes) {
            *value = node.powi(31);
        }
        assert!((RULE.integral(&f) - 1.0 / 32.0).abs() < 1e-15);
    }

    #[test]
    fn partial_integrals_are_exact_for_polynomials() {
        let mut f = [0.0; NODES];
        for (value, node) in f.iter_mut().zip(&RULE.nodes) {
            *value = 8.0 * node.powi(7);
        }
        for (got, node) in RULE.rising(&f).iter().zip(&RULE.nodes) {
            assert!((got - node.powi(8)).abs() < 1e-14, "{got} at {node}");
        }
    }
}
