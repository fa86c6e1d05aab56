//! Edges and inner consistency of the statistical methods, beyond the reference numbers.

#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "helpers of tests may end them; edges are exact"
)]

use podium_domain::moments::RatioMoments;
use podium_domain::stats::lift::{Estimate, relative_lift};
use podium_domain::stats::mean::{MeanSummary, welch};
use podium_domain::stats::proportion::{
    Proportion, clopper_pearson, equal_rates, newcombe, two_proportions, wilson,
};
use podium_domain::stats::ratio::{RatioSummary, RatioSums, compare_ratios};
use podium_domain::stats::special as f;
use podium_domain::stats::{StatsError, count_from_f64};
use proptest::prelude::*;

fn share(successes: i64, units: i64) -> Proportion {
    Proportion::new(successes, units).unwrap()
}

#[test]
fn counts_are_whole_and_not_negative() {
    assert_eq!(count_from_f64(3.0), Ok(3));
    assert_eq!(count_from_f64(9_007_199_254_740_992.0), Ok(1 << 53));
    for value in [-1.0, 0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e16] {
        assert_eq!(
            count_from_f64(value),
            Err(StatsError::InvalidInput),
            "{value}"
        );
    }
    assert_eq!(Proportion::new(2, 1), Err(StatsError::InvalidInput));
    assert_eq!(Proportion::new(-1, 1), Err(StatsError::InvalidInput));
    assert_eq!(share(0, 0).rate(), Err(StatsError::NotEnoughData));
}

#[test]
fn intervals_of_a_share_end_at_its_borders() {
    for n in [1, 10, 1_000_000] {
        for interval in [
            wilson(share(0, n), 0.95).unwrap(),
            clopper_pearson(share(0, n), 0.95).unwrap(),
        ] {
            assert_eq!(interval.lower, 0.0);
            assert!(interval.upper > 0.0 && interval.upper < 1.0, "{interval:?}");
        }
        for interval in [
            wilson(share(n, n), 0.95).unwrap(),
            clopper_pearson(share(n, n), 0.95).unwrap(),
        ] {
            assert_eq!(interval.upper, 1.0);
            assert!(interval.lower > 0.0 && interval.lower < 1.0, "{interval:?}");
        }
    }
    // No success in n units: the exact upper limit solves (1 − p)^n = 2.5 %.
    let exact = clopper_pearson(share(0, 20), 0.95).unwrap();
    assert!((exact.upper - (1.0 - 0.025_f64.powf(1.0 / 20.0))).abs() < 1e-14);
    assert_eq!(wilson(share(0, 0), 0.95), Err(StatsError::NotEnoughData));
    assert_eq!(
        clopper_pearson(share(1, 2), 1.0),
        Err(StatsError::InvalidInput)
    );
    assert_eq!(
        newcombe(share(1, 2), share(0, 0), 0.95),
        Err(StatsError::NotEnoughData)
    );
}

#[test]
fn all_against_none_has_a_pooled_test_only() {
    let test = two_proportions(share(0, 23), share(23, 23), 0.95).unwrap();
    assert!(test.unpooled.is_none() && test.interval.is_none());
    assert!(test.pooled.p.two_sided < 1e-10);
}

#[test]
fn equal_rates_needs_groups_with_data_and_variation() {
    assert_eq!(equal_rates(&[share(1, 2)]), Err(StatsError::InvalidInput));
    assert_eq!(
        equal_rates(&[share(1, 2), share(0, 0)]),
        Err(StatsError::NotEnoughData)
    );
    assert_eq!(
        equal_rates(&[share(0, 2), share(0, 5)]),
        Err(StatsError::ZeroVariance)
    );
    // With two groups it is the square of the pooled z.
    let (a, b) = (share(30, 1_000), share(50, 1_100));
    let z = two_proportions(a, b, 0.95).unwrap().pooled;
    let test = equal_rates(&[a, b]).unwrap();
    assert!((test.chi2 - z.z * z.z).abs() < 1e-12 && (test.p - z.p.two_sided).abs() < 1e-14);
}

#[test]
fn numbers_beyond_floats_are_refused() {
    let huge = MeanSummary::new(10, 1e308, 1.0).unwrap();
    let other = MeanSummary::new(10, -1e308, 1.0).unwrap();
    assert_eq!(welch(&huge, &other, 0.95), Err(StatsError::InvalidInput));
    assert_eq!(
        MeanSummary::new(-1, 0.0, 1.0),
        Err(StatsError::InvalidInput)
    );
    assert_eq!(
        RatioSummary::new(5, f64::NAN, 1.0),
        Err(StatsError::InvalidInput)
    );
    let (a, b) = (
        Estimate::new(1e-300, 1e-320).unwrap(),
        Estimate::new(1e300, 0.0).unwrap(),
    );
    assert_eq!(relative_lift(&a, &b, 0.95), Err(StatsError::InvalidInput));
    let (a, b) = (
        RatioSummary::new(5, 0.0, 1e-320).unwrap(),
        RatioSummary::new(5, 1e300, 0.0).unwrap(),
    );
    assert_eq!(compare_ratios(&a, &b, 0.95), Err(StatsError::InvalidInput));
}

#[test]
fn errors_have_the_names_of_the_reference() {
    let names = [
        (StatsError::InvalidInput, "InvalidInput"),
        (StatsError::NotEnoughData, "NotEnoughData"),
        (StatsError::ZeroVariance, "ZeroVariance"),
        (StatsError::NonPositiveBaseline, "NonPositiveBaseline"),
        (StatsError::NonPositiveValue, "NonPositiveValue"),
        (StatsError::DegenerateDenominator, "DegenerateDenominator"),
        (StatsError::UnexpectedUsers, "UnexpectedUsers"),
        (StatsError::ZeroEffect, "ZeroEffect"),
        (StatsError::Unreachable, "Unreachable"),
    ];
    for (error, name) in names {
        assert_eq!(
            (error.name(), format!("{error:?}")),
            (name, name.to_owned())
        );
    }
}

#[test]
fn special_functions_outside_their_domain_are_nan() {
    for (a, b) in [(0.0, 1.0), (1.0, -1.0), (f64::NAN, 1.0)] {
        assert!(f::ln_beta(a, b).is_nan() && f::beta_tails(0.5, a, b).cdf.is_nan());
        assert!(f::beta_quantile(0.5, a, b).is_nan() && f::beta_isf(0.5, a, b).is_nan());
    }
    for x in [-0.1, 1.1, f64::NAN] {
        assert!(f::beta_tails(x, 2.0, 3.0).sf.is_nan(), "{x}");
    }
    assert!(f::chi2_sf(-1.0, 1.0).is_nan() && f::chi2_sf(1.0, 0.0).is_nan());
    assert!(
        f::t_isf(0.0, 5.0).is_nan() && f::t_isf(0.5, 0.0).is_nan() && f::t_sf(1.0, -1.0).is_nan()
    );
}

#[test]
fn beta_tails_at_the_ends_are_certain() {
    let (start, end) = (f::beta_tails(0.0, 2.0, 3.0), f::beta_tails(1.0, 2.0, 3.0));
    assert_eq!((start.cdf, start.sf, start.ln_sf), (0.0, 1.0, 0.0));
    assert_eq!((end.cdf, end.sf, end.ln_cdf), (1.0, 0.0, 0.0));
}

proptest! {
    #[test]
    fn quantiles_are_inverse_to_tails(ln_p in -200.0_f64..-0.01, ln_a in -1.0_f64..12.0, ln_b in -1.0_f64..12.0) {
        let (p, a, b) = (ln_p.exp(), ln_a.exp(), ln_b.exp());
        let x = f::beta_quantile(p, a, b);
        // A quantile next to 1 cannot be written down to enough digits to come back.
        if x > 1e-300 && x < 0.999 {
            let back = f::beta_tails(x, a, b).ln_cdf;
            prop_assert!((back - ln_p).abs() <= 1e-9 * ln_p.abs().max(1.0), "beta({a}, {b}): {p} {x} {back}");
        }
        let t = f::t_isf(p, a);
        if t.is_finite() {
            let back = f::t_ln_sf(t, a);
            prop_assert!((back - ln_p).abs() <= 1e-9 * ln_p.abs().max(1.0), "t({a}): {p} {t} {back}");
        }
    }

    #[test]
    fn tails_add_up_and_are_ordered(x in 0.0_f64..1.0, ln_a in -3.0_f64..14.0, ln_b in -3.0_f64..14.0) {
        let (a, b) = (ln_a.exp(), ln_b.exp());
        let tails = f::beta_tails(x, a, b);
        prop_assert!((tails.cdf + tails.sf - 1.0).abs() < 1e-12, "{tails:?}");
        prop_assert!((0.0..=1.0).contains(&tails.cdf) && tails.ln_cdf <= 0.0 && tails.ln_sf <= 0.0);
        let mirrored = f::beta_tails(1.0 - x, b, a);
        prop_assert!((mirrored.sf - tails.cdf).abs() < 1e-9, "{tails:?} {mirrored:?}");
    }

    #[test]
    fn chi_square_agrees_with_the_normal_distribution(z in 0.0_f64..30.0) {
        let (one, two) = (f::chi2_ln_sf(z * z, 1.0), f::norm_ln_two_sided(z));
        prop_assert!((one - two).abs() <= 1e-12 * two.abs().max(1.0), "{one} {two}");
        let exponential = f::chi2_ln_sf(z, 2.0);
        prop_assert!((exponential + z / 2.0).abs() <= 1e-13 * z.max(1.0));
    }

    #[test]
    fn exact_and_float_sums_agree(units in proptest::collection::vec((1_i64..50, 0_i64..5_000_000), 3..50)) {
        let mut moments = RatioMoments::new(1, 10_000);
        units.iter().for_each(|(x, y)| moments.add_unit(*x, *y));
        let values = || units.iter().map(|(x, y)| (*x as f64, *y as f64 / 10_000.0));
        let sums = RatioSums {
            n: moments.n,
            sum_x: values().map(|(x, _)| x).sum(),
            sum_y: values().map(|(_, y)| y).sum(),
            sum_xx: values().map(|(x, _)| x * x).sum(),
            sum_yy: values().map(|(_, y)| y * y).sum(),
            sum_xy: values().map(|(x, y)| x * y).sum(),
        };
        let (exact, float) = (moments.summary().unwrap(), RatioSummary::from_sums(&sums).unwrap());
        prop_assert!((exact.ratio() - float.ratio()).abs() <= 1e-12 * exact.ratio().abs());
        prop_assert!((exact.se2() - float.se2()).abs() <= 1e-8 * exact.se2() + 1e-14);
    }

    #[test]
    fn no_input_makes_a_method_answer_nan(
        mean_a: f64, se2_a: f64, mean_b: f64, se2_b: f64, n in -2_i64..1_000_000, level in -0.5_f64..1.5,
    ) {
        if let (Ok(a), Ok(b)) = (Estimate::new(mean_a, se2_a), Estimate::new(mean_b, se2_b))
            && let Ok(lift) = relative_lift(&a, &b, level)
        {
            prop_assert!(!lift.delta.lift.is_nan() && !lift.p_delta_two_sided.is_nan(), "{lift:?}");
        }
        if let (Ok(a), Ok(b)) = (MeanSummary::new(n, mean_a, se2_a), MeanSummary::new(n, mean_b, se2_b))
            && let Ok(test) = welch(&a, &b, level)
        {
            prop_assert!(!test.p.two_sided.is_nan() && !test.interval.lower.is_nan(), "{test:?}");
        }
        if let (Ok(a), Ok(b)) = (RatioSummary::new(n, mean_a, se2_a), RatioSummary::new(n, mean_b, se2_b))
            && let Ok(test) = compare_ratios(&a, &b, level)
        {
            prop_assert!(!test.z.is_nan() && !test.interval.lower.is_nan(), "{test:?}");
        }
    }
}
