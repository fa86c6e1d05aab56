//! Fisher's exact test of two proportions.
//!
//! Given how many units converted in both arms together, how many of them are in the treatment follows a hypergeometric
//! law if the arms are alike. So the p-value is exact at any count; it is also a little too large, because counts are
//! whole.
//!
//! # Source
//! Fisher, *The Design of Experiments* (1935); the two-sided p-value sums all tables that are at most as likely as the
//! observed one (Freeman & Halton, Biometrika 38 (1951), 141–149).

use super::proportion::Proportion;
use super::{PValues, StatsError};

/// Tables whose logarithms of probability differ by less are equally likely: what is left of ties after rounding.
const TIE: f64 = 1e-9;
/// Terms that are smaller relative to their sum are left out.
const NEGLIGIBLE: f64 = 1e-18;

/// The exact p-values of a treatment `b` against a control `a`. Takes time in proportion to the distance, in conversions,
/// from the expected table.
///
/// # Errors
/// [`StatsError::NotEnoughData`] for an arm without units.
pub fn fisher_exact(a: Proportion, b: Proportion) -> Result<PValues, StatsError> {
    if a.units() == 0 || b.units() == 0 {
        return Err(StatsError::NotEnoughData);
    }
    let law = Hypergeometric::new(a, b);
    let mode = law.mode();
    let observed = b.successes();
    let ln_observed = law.ln_ratio(mode, observed);
    // Tables as unlikely as the observed one, or more so, on either side of the most likely one.
    let rare = |step| law.first_at_most(mode, step, ln_observed + TIE);
    let (above, below) = (rare(1), rare(-1));
    let ln_total = ln_sum(law.tail(mode, 1), law.below(mode));
    let ln_tail = |from: Option<(i64, f64)>, step| {
        from.map_or(f64::NEG_INFINITY, |(k, ln_weight)| {
            ln_weight + law.tail(k, step)
        })
    };
    // Where even the most likely table is no likelier, both sides begin at it.
    let ln_two_sided = if ln_observed + TIE >= 0.0 {
        0.0
    } else {
        (ln_sum(ln_tail(above, 1), ln_tail(below, -1)) - ln_total).min(0.0)
    };
    let one_sided = |step| {
        (ln_observed + law.tail(observed, step) - ln_total)
            .exp()
            .min(1.0)
    };
    Ok(PValues {
        two_sided: ln_two_sided.exp(),
        ln_two_sided,
        greater: one_sided(1),
        less: one_sided(-1),
    })
}

/// How many of all conversions are in the treatment.
struct Hypergeometric {
    conversions: f64,
    control_units: f64,
    treatment_units: f64,
    least: i64,
    most: i64,
}

impl Hypergeometric {
    fn new(a: Proportion, b: Proportion) -> Self {
        let conversions = a.successes().saturating_add(b.successes());
        Self {
            conversions: conversions as f64,
            control_units: a.units() as f64,
            treatment_units: b.units() as f64,
            least: (conversions - a.units()).max(0),
            most: conversions.min(b.units()),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most the number of conversions"
    )]
    fn mode(&self) -> i64 {
        let units = self.control_units + self.treatment_units;
        let mode = (self.conversions + 1.0) * ((self.treatment_units + 1.0) / (units + 2.0));
        (mode as i64).clamp(self.least, self.most)
    }

    /// P(k + step) / P(k), for a step of 1 or −1; 0 beyond the last table.
    fn step(&self, k: i64, step: i64) -> f64 {
        let up = |k: i64| {
            let k = k as f64;
            let (in_b, out_b) = (self.conversions - k, self.treatment_units - k);
            let in_a = self.control_units - self.conversions + k + 1.0;
            (in_b / (k + 1.0)) * (out_b / in_a)
        };
        match k + step {
            next if next < self.least || next > self.most => 0.0,
            _ if step > 0 => up(k),
            next => 1.0 / up(next),
        }
    }

    /// ln P(to) − ln P(from).
    fn ln_ratio(&self, from: i64, to: i64) -> f64 {
        let step = (to - from).signum();
        let (mut k, mut ln) = (from, 0.0);
        while k != to {
            ln += self.step(k, step).ln();
            k += step;
        }
        ln
    }

    /// The first table from the mode on whose ln P, relative to the mode, is at most `ln_weight`.
    fn first_at_most(&self, mode: i64, step: i64, ln_weight: f64) -> Option<(i64, f64)> {
        let (mut k, mut ln) = (mode, 0.0);
        while ln > ln_weight {
            ln += self.step(k, step).ln();
            k += step;
        }
        (self.least..=self.most).contains(&k).then_some((k, ln))
    }

    /// ln of the sum of all P from `from` on, relative to P(from).
    fn tail(&self, from: i64, step: i64) -> f64 {
        let (mut k, mut term, mut sum, mut scale) = (from, 1.0, 1.0, 0.0);
        loop {
            let ratio = self.step(k, step);
            term *= ratio;
            k += step;
            sum += term;
            // Once terms fall they fall ever faster.
            if term <= NEGLIGIBLE * sum && ratio < 1.0 {
                return f64::ln(sum) + scale;
            }
            if sum > 1e200 {
                scale += f64::ln(sum);
                term /= sum;
                sum = 1.0;
            }
        }
    }

    /// As [`Self::tail`] downwards, without its first table; relative to P(from).
    fn below(&self, from: i64) -> f64 {
        match self.step(from, -1) {
            0.0 => f64::NEG_INFINITY,
            ratio => ratio.ln() + self.tail(from - 1, -1),
        }
    }
}

/// ln(e^x + e^y).
fn ln_sum(x: f64, y: f64) -> f64 {
    let (large, small) = (x.max(y), x.min(y));
    if large == f64::NEG_INFINITY {
        return large;
    }
    large + (small - large).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::super::special::ln_gamma;
    use super::*;

    fn test(x_a: i64, n_a: i64, x_b: i64, n_b: i64) -> PValues {
        let arm = |x, n| Proportion::new(x, n).unwrap();
        fisher_exact(arm(x_a, n_a), arm(x_b, n_b)).unwrap()
    }

    fn assert_close(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-12 * want.abs(), "{got} not {want}");
    }

    #[test]
    fn small_tables_by_hand() {
        // The lady who tastes tea: three of four right.
        let tea = test(1, 4, 3, 4);
        assert_close(tea.two_sided, 34.0 / 70.0);
        assert_close(tea.greater, 17.0 / 70.0);
        assert_close(tea.less, 69.0 / 70.0);
        // Ties on the other side count although rounding may part them.
        assert_close(test(0, 4, 4, 4).two_sided, 2.0 / 70.0);
        assert_close(test(2, 4, 2, 4).two_sided, 1.0);
        // The one conversion of seven units falls on the only unit of the control.
        assert_close(test(1, 1, 0, 6).two_sided, 1.0 / 7.0);
    }

    #[test]
    fn nothing_to_tell_apart_is_no_evidence() {
        for (x_a, n_a, x_b, n_b) in [(0, 5, 0, 9), (5, 5, 9, 9), (1, 2, 1, 2)] {
            assert_close(test(x_a, n_a, x_b, n_b).two_sided, 1.0);
        }
        let none = Proportion::new(0, 0).unwrap();
        let some = Proportion::new(1, 2).unwrap();
        assert_eq!(fisher_exact(none, some), Err(StatsError::NotEnoughData));
        assert_eq!(fisher_exact(some, none), Err(StatsError::NotEnoughData));
    }

    #[test]
    fn tails_are_right_where_the_p_value_underflows() {
        // All of one arm and none of the other: two tables of C(2n, n).
        let n = 3_000.0;
        let ln_tables = ln_gamma(2.0 * n + 1.0) - 2.0 * ln_gamma(n + 1.0);
        let found = test(0, 3_000, 3_000, 3_000);
        assert_close(found.ln_two_sided, 2.0_f64.ln() - ln_tables);
        assert!(found.two_sided == 0.0 && found.greater == 0.0);
        assert_close(found.less, 1.0);
    }

    #[test]
    fn arms_may_be_swapped() {
        let (one, other) = (test(13, 900, 41, 1_500), test(41, 1_500, 13, 900));
        assert_close(one.two_sided, other.two_sided);
        assert_close(one.greater, other.less);
        assert_close(one.less, other.greater);
    }
}
