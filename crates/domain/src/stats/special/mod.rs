//! Distribution functions, accurate far into the tails.
//!
//! A tail is computed in the tail, or as a logarithm, never as `1 - cdf`: a p-value of 1e-30 keeps
//! its digits, and its logarithm is right where the value itself underflows. The functions of
//! `statrs` do not hold that: its error function errs by 1e-10 around z = 1, its incomplete beta
//! and gamma functions form one minus the other tail and stop early at large parameters.
//!
//! These are plain functions like those of `f64`: outside their domain they answer NaN. The
//! methods beside this module check their input and never call them outside.

mod beta;
mod chi2;
mod gamma;
mod logit_beta;
mod normal;
mod student;

pub use beta::{beta_isf, beta_quantile, beta_tails, ln_beta};
pub use chi2::{chi2_ln_sf, chi2_sf, chi2_tails};
pub use gamma::ln_gamma;
pub(super) use gamma::{HALF_LN_TAU, deviance_by, stirling_error};
pub(super) use logit_beta::{Drop, LogitBeta, Walk, gauss};
pub(super) use normal::norm_ln_scaled_sf;
pub use normal::{
    norm_cdf, norm_isf, norm_ln_cdf, norm_ln_sf, norm_ln_two_sided, norm_pdf, norm_sf,
    norm_two_sided,
};
pub use student::{t_isf, t_ln_sf, t_sf, t_two_sided_tails};

/// Both tails of a distribution at a point, and their natural logarithms.
///
/// Each is accurate relative to itself as far as the distribution allows: the logarithms also
/// where the probability underflows or is next to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tails {
    /// P(X ≤ x).
    pub cdf: f64,
    /// P(X > x).
    pub sf: f64,
    /// ln P(X ≤ x).
    pub ln_cdf: f64,
    /// ln P(X > x).
    pub ln_sf: f64,
}

impl Tails {
    /// Tails from the logarithm of the lower one, which should be the smaller of the two.
    fn from_ln_lower(ln_lower: f64) -> Self {
        // Rounding may push a probability next to 1 beyond it; NaN must stay NaN.
        let ln_cdf = if ln_lower > 0.0 { 0.0 } else { ln_lower };
        let cdf = ln_cdf.exp();
        // 1 − e^l without cancellation, also when the lower tail is next to 1.
        let sf = -ln_cdf.exp_m1();
        let ln_sf = if cdf < 0.5 { (-cdf).ln_1p() } else { sf.ln() };
        Self {
            cdf,
            sf,
            ln_cdf,
            ln_sf,
        }
    }

    /// The same distribution seen from the other side.
    fn swapped(self) -> Self {
        Self {
            cdf: self.sf,
            sf: self.cdf,
            ln_cdf: self.ln_sf,
            ln_sf: self.ln_cdf,
        }
    }
}

/// Evaluates a continued fraction b0 + a1/(b1 + a2/(b2 + …)) by the modified Lentz algorithm.
///
/// `term(m)` gives (a_m, b_m); a_0 is ignored. NaN when it has not converged after `limit` terms.
///
/// Source: Thompson & Barnett, J. Comput. Phys. 64 (1986), 490–509.
fn continued_fraction(limit: u32, term: impl Fn(f64) -> (f64, f64)) -> f64 {
    const TINY: f64 = 1e-300;
    let nonzero = |value: f64| if value == 0.0 { TINY } else { value };
    let mut fraction = nonzero(term(0.0).1);
    let mut c = fraction;
    let mut d = 0.0;
    for m in 1..=limit {
        let (a, b) = term(f64::from(m));
        d = 1.0 / nonzero(b + a * d);
        c = nonzero(b + a / c);
        let factor = c * d;
        fraction *= factor;
        if (factor - 1.0).abs() <= 2.0 * f64::EPSILON {
            return fraction;
        }
    }
    f64::NAN
}
