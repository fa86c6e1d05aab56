//! What is believed of a rate that was estimated, not counted.
//!
//! An estimate with a standard error is a normal distribution, whichever side of 0 it falls on. Where no play succeeded, or every
//! one did, the spread of the data says nothing about the rate; what is left is the exact posterior of that many plays.

use crate::error::{BanditError, in_range};
use crate::quadrature::{CUT, Density, Row};
use crate::special::HALF_LN_TAU;
use crate::student::LinearPanel;

/// The distribution of an arm's rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Belief(Shape);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Normal.
    Normal { mean: f64, sd: f64 },
    /// Beta(1, n).
    NoneOf(f64),
    /// Beta(n, 1).
    AllOf(f64),
}

impl Belief {
    /// Normal: an estimate and its standard error.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] for a mean or a standard error that is not finite, or an error not above 0.
    pub fn normal(mean: f64, sd: f64) -> Result<Self, BanditError> {
        let mean = in_range("mean", mean, -1e12, 1e12)?;
        let sd = in_range("sd", sd, 1e-12, 1e12)?;
        Ok(Self(Shape::Normal { mean, sd }))
    }

    /// Beta(1, `plays`): none of them succeeded, those that are believed beforehand included.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] unless 1 ≤ plays ≤ 1e15.
    pub fn none_of(plays: f64) -> Result<Self, BanditError> {
        in_range("plays", plays, 1.0, 1e15).map(|plays| Self(Shape::NoneOf(plays)))
    }

    /// Beta(`plays`, 1): all of them succeeded.
    ///
    /// # Errors
    /// As for [`Belief::none_of`].
    pub fn all_of(plays: f64) -> Result<Self, BanditError> {
        in_range("plays", plays, 1.0, 1e15).map(|plays| Self(Shape::AllOf(plays)))
    }

    /// Its expectation.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self.0 {
            Shape::Normal { mean, .. } => mean,
            Shape::NoneOf(plays) => 1.0 / (1.0 + plays),
            Shape::AllOf(plays) => plays / (1.0 + plays),
        }
    }

    fn at(&self, x: f64) -> f64 {
        // n (1 − x)^(n − 1), x the distance from the end at which the density peaks.
        let edge = |x: f64, plays: f64| {
            if (0.0..1.0).contains(&x) {
                plays * ((plays - 1.0) * (-x).ln_1p()).exp()
            } else {
                0.0
            }
        };
        match self.0 {
            Shape::Normal { mean, sd } => {
                let z = (x - mean) / sd;
                (-0.5 * z * z - HALF_LN_TAU).exp() / sd
            }
            Shape::NoneOf(plays) => edge(x, plays),
            Shape::AllOf(plays) => edge(1.0 - x, plays),
        }
    }
}

impl Density for Belief {
    type Panel = LinearPanel;
    type Place = f64;

    fn place(y: f64) -> f64 {
        y
    }

    fn support(&self) -> (f64, f64) {
        let reach = |plays: f64| -(-CUT / plays).exp_m1();
        match self.0 {
            Shape::Normal { mean, sd } => {
                let half = (2.0 * CUT).sqrt() * sd;
                (mean - half, mean + half)
            }
            Shape::NoneOf(plays) => (0.0, reach(plays)),
            Shape::AllOf(plays) => (1.0 - reach(plays), 1.0),
        }
    }

    fn width(&self, y: &f64) -> f64 {
        // The logarithm may fall by 5 on a panel; the density is singular where the last power of 1 − x vanishes.
        let edge = |clear: f64, plays: f64| clear.max(1e-12) * (5.0 / plays).min(0.9);
        match self.0 {
            Shape::Normal { mean, sd } => sd * (5.0 * sd / (y - mean).abs()).min(1.6),
            Shape::NoneOf(plays) => edge(1.0 - y, plays),
            Shape::AllOf(plays) => edge(*y, plays),
        }
    }

    fn fill(&self, panel: &LinearPanel, out: &mut Row) {
        for (value, x) in out.iter_mut().zip(panel.nodes()) {
            *value = self.at(*x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::best::{best_arm, best_belief};
    use crate::posterior::BetaPosterior;

    fn normal(mean: f64, sd: f64) -> Belief {
        Belief::normal(mean, sd).unwrap()
    }

    #[test]
    fn two_normals_have_a_formula() {
        // Φ(0.005 / (0.003 √2)) = Φ(1.178511…), and the expected loss of the better one.
        let best = best_belief(&[normal(0.0, 0.003), normal(0.005, 0.003)]).unwrap();
        assert!((best.probability[1] - 0.880_703_4).abs() < 1e-6, "{best:?}");
        let best = best_belief(&[normal(0.01, 0.3), normal(0.01, 1e-6)]).unwrap();
        assert!((best.probability[0] - 0.5).abs() < 1e-9);
        // E[max] − mean = sd / √(2π) against a constant.
        assert!((best.expected_loss[1] - 0.3 * 0.398_942_28).abs() < 1e-6);
    }

    #[test]
    fn edges_are_the_beta_distributions_that_they_name() {
        for (a, b) in [(1.0, 1.0), (200.0, 3_000.0), (5.5, 90_000.0), (1.0, 7.0)] {
            let beta = |a, b| BetaPosterior::new(a, b).unwrap();
            let exact = best_arm(&[beta(1.0, a), beta(1.0, b)]).unwrap();
            let none = [a, b].map(|n| Belief::none_of(n).unwrap());
            let got = best_belief(&none).unwrap();
            assert!((got.probability[0] - exact.probability[0]).abs() < 1e-9);
            assert!((got.expected_max - exact.expected_max).abs() < 1e-9);
            let exact = best_arm(&[beta(a, 1.0), beta(b, 1.0)]).unwrap();
            let got = best_belief(&[a, b].map(|n| Belief::all_of(n).unwrap())).unwrap();
            assert!((got.probability[0] - exact.probability[0]).abs() < 1e-9);
        }
    }

    #[test]
    fn families_meet() {
        // P(Beta(1, 1) > N(0.3, ε)) = 0.7, and a normal beyond 1 beats what cannot get there.
        let [none, all] = [Belief::none_of(1.0), Belief::all_of(1.0)].map(Result::unwrap);
        for edge in [none, all] {
            let best = best_belief(&[edge, normal(0.3, 1e-4)]).unwrap();
            assert!((best.probability[0] - 0.7).abs() < 1e-6, "{best:?}");
            let best = best_belief(&[edge, normal(1.5, 0.01)]).unwrap();
            assert!(best.probability[1] > 1.0 - 1e-9);
        }
        let best = best_belief(&[Belief::all_of(50.0).unwrap(), normal(0.98, 0.05)]).unwrap();
        assert!((best.probability.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn impossible_beliefs() {
        assert!(Belief::normal(f64::NAN, 1.0).is_err());
        assert!(Belief::normal(0.0, 0.0).is_err());
        assert!(Belief::none_of(0.5).is_err() && Belief::all_of(f64::INFINITY).is_err());
        assert_eq!(best_belief(&[]), Err(BanditError::NoArms));
    }
}
