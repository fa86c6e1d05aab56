//! Edges, symmetries and closed forms of the Bayesian view, beyond the reference numbers; and that no input at all makes it
//! answer with NaN.

#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "helpers of tests may end them; edges are exact"
)]

use podium_domain::stats::StatsError;
use podium_domain::stats::bayes::{
    BetaPrior, GaussianPrior, PROMOTIONS_MIN, PastEffect, RateComparison, compare_rates, fit_prior,
    posterior_effect, promotion_prior,
};
use podium_domain::stats::proportion::Proportion;
use proptest::num::f64::ANY;
use proptest::prelude::*;

/// The largest count that a float holds exactly.
const HUGE: i64 = 1 << 53;

fn share(successes: i64, units: i64) -> Proportion {
    Proportion::new(successes, units).unwrap()
}

fn assert_close(got: f64, want: f64, relative: f64) {
    assert!(
        (got - want).abs() <= relative * want.abs(),
        "{got} instead of {want}"
    );
}

/// Any float at all, or an ordinary one.
fn float() -> impl Strategy<Value = f64> {
    prop_oneof![ANY, -10.0_f64..10.0, 0.0_f64..1.0, Just(0.0)]
}

/// A number inside (0, 1), or any float.
fn fraction() -> impl Strategy<Value = f64> {
    prop_oneof![3 => 0.0_f64..1.0, 1 => ANY]
}

fn rates(a: (i64, i64), b: (i64, i64), prior: f64) -> RateComparison {
    let prior = BetaPrior::new(prior, prior).unwrap();
    compare_rates(share(a.0, a.1), share(b.0, b.1), prior, 0.95).unwrap()
}

#[test]
fn chances_against_closed_forms() {
    // Beta(1, 1) against Beta(n + 1, 1): P(b > a) = (n + 1)/(n + 2).
    for n in [0, 1, 10, 100_000, HUGE - 1] {
        let got = rates((0, 0), (n, n), 1.0);
        assert_close(got.prob_a_beats_b, 1.0 / (n as f64 + 2.0), 1e-10);
        assert_close(
            got.expected_loss_b,
            1.0 / ((n as f64 + 2.0) * (n as f64 + 3.0)),
            1e-9,
        );
    }
    // Beta(1, n + 1) against Beta(n + 1, 1): P(a > b) = Γ(n + 2)² / Γ(2n + 3).
    let got = rates((0, 10), (10, 10), 1.0);
    assert_close(got.prob_a_beats_b, 1.0 / 705_432.0, 1e-11);
    // Against 30-digit sums: ln P(a > b) far below the smallest float.
    let deep = rates((1_000, 100_000), (4_000, 100_000), 1.0);
    assert_close(deep.ln_prob_a_beats_b, -991.258_158_672_099_4, 1e-10);
    assert_eq!((deep.prob_a_beats_b, deep.prob_b_beats_a), (0.0, 1.0));
}

#[test]
fn huge_counts_are_as_accurate_as_small_ones() {
    // Normal to 1e-8 there: z = d/√(2 p q/n) with d = 2^28/2^53.
    let (n, half) = (HUGE, HUGE / 2);
    let got = rates((half, n), (half + (1 << 27), n), 0.5);
    let z = 2.0_f64.powi(27) / 2.0_f64.powi(53) / (0.5 / 2.0_f64.powi(53)).sqrt();
    let normal = podium_domain::stats::special::norm_sf(z);
    assert_close(got.prob_a_beats_b, normal, 1e-7);
    let same = rates((half, n), (half, n), 0.5);
    assert_close(same.prob_a_beats_b, 0.5, 1e-12);
}

#[test]
fn tiny_priors_put_the_rate_at_its_ends() {
    let got = rates((0, 0), (5, 10), 1e-300);
    assert_close(got.prob_a_beats_b, 0.5, 1e-10);
    assert_eq!((got.rate_a.lower, got.rate_a.upper), (0.0, 1.0));
    assert_close(got.expected_loss_a, 0.25, 1e-9);
}

#[test]
fn the_lift_needs_a_control_rate() {
    assert!(rates((3, 100), (50, 100), 1.0).lift.is_none());
    let lift = rates((4, 100), (0, 100), 1.0).lift.unwrap();
    assert!(-1.0 <= lift.lower && lift.lower < lift.median && lift.median < lift.upper);
}

#[test]
fn identical_arms_have_median_lift_0() {
    for (x, n) in [
        (50, 1_000),
        (999_000, 1_000_000),
        (HUGE / 3, HUGE),
        (20, 20),
    ] {
        let lift = rates((x, n), (x, n), 1.0).lift.unwrap();
        assert!(lift.median.abs() < 1e-10, "{x} of {n}: {}", lift.median);
        // The ratio and its inverse have the same distribution.
        let product = (1.0 + lift.lower) * (1.0 + lift.upper);
        assert_close(product, 1.0, 1e-9);
    }
}

#[test]
fn lifts_exist_where_one_arm_is_far_more_certain_and_where_rates_pile_up_at_1() {
    let prior = |alpha: f64, beta: f64| BetaPrior::new(alpha, beta).unwrap();
    // The first-order lower limit is a ratio that b can practically not have.
    let (a, b) = (share(2, 4), share(971_051, 1_281_077));
    let lift = compare_rates(a, b, prior(5.0, 0.3), 0.95)
        .unwrap()
        .lift
        .unwrap();
    // b is next to a point, so the limits are those of its share over a's rate.
    let got = compare_rates(a, b, prior(5.0, 0.3), 0.95).unwrap();
    assert_close(1.0 + lift.lower, got.mean_b / got.rate_a.upper, 1e-4);
    assert_close(1.0 + lift.upper, got.mean_b / got.rate_a.lower, 1e-3);
    // Most mass of both rates is within 1e-20 of 1: the distribution of the ratio jumps there.
    let got = compare_rates(share(1, 1), share(50, 50), prior(7.0, 0.01), 0.5).unwrap();
    let lift = got.lift.unwrap();
    assert!(lift.lower <= lift.median && lift.median <= lift.upper);
    assert!(lift.lower > -1e-10 && lift.upper < 1e-10, "{lift:?}");
}

#[test]
fn beta_priors_are_proper() {
    for (alpha, beta) in [
        (0.0, 1.0),
        (1.0, -1.0),
        (f64::NAN, 1.0),
        (1.0, f64::INFINITY),
        (f64::MAX, f64::MAX),
    ] {
        assert_eq!(BetaPrior::new(alpha, beta), Err(StatsError::InvalidInput));
    }
    let (a, b) = (share(1, 2), share(1, 2));
    for credibility in [0.0, 1.0, f64::NAN] {
        let got = compare_rates(a, b, BetaPrior::UNIFORM, credibility);
        assert_eq!(got, Err(StatsError::InvalidInput));
    }
}

#[test]
fn the_gaussian_posterior_at_its_ends() {
    let prior = |mean: f64, sd: f64| GaussianPrior::new(mean, Some(sd)).unwrap();
    // A prior that is sure decides, one that is not leaves the estimate.
    let sure = posterior_effect(1.0, 1.0, &prior(0.0, 1e-200), 0.95).unwrap();
    assert_close(sure.sd, 1e-200, 1e-12);
    let open = posterior_effect(1.0, 1.0, &prior(0.0, 1e200), 0.95).unwrap();
    assert_eq!((open.mean, open.shrink_factor), (1.0, Some(1.0)));
    let flat = GaussianPrior::new(7.0, None).unwrap();
    let flat = posterior_effect(1.0, 2.0, &flat, 0.95).unwrap();
    assert_eq!(
        (flat.mean, flat.sd, flat.shrink_factor),
        (1.0, 2.0, Some(1.0))
    );
    // What is lost with b minus what is lost with a is minus the effect.
    assert_close(flat.risk_choose_a - flat.risk_choose_b, 1.0, 1e-14);
    assert_eq!(
        posterior_effect(1e300, 1e-300, &prior(0.0, 1e300), 0.95),
        Err(StatsError::InvalidInput)
    );
}

fn past(effects: &[f64], se: f64) -> Vec<PastEffect> {
    effects
        .iter()
        .map(|&effect| PastEffect::new(effect, se).unwrap())
        .collect()
}

#[test]
fn the_fitted_prior_with_equal_errors_is_the_sample_variance_less_the_error() {
    let effects: Vec<f64> = (0..12).map(|index| 0.01 * f64::from(index)).collect();
    let mean = 0.055;
    let variance = effects
        .iter()
        .map(|effect| (effect - mean).powi(2))
        .sum::<f64>()
        / 11.0;
    let fitted = fit_prior(&past(&effects, 0.02)).unwrap();
    assert_close(fitted.mean(), mean, 1e-12);
    assert_close(fitted.sd().unwrap().powi(2), variance - 0.000_4, 1e-11);
}

#[test]
fn the_fitted_prior_solves_its_equation_with_unequal_errors() {
    let effects: Vec<PastEffect> = (0..25)
        .map(|index| {
            let index = f64::from(index);
            PastEffect::new(0.05 * (index * 1.7).sin() + 0.02, 0.003 + 0.002 * index).unwrap()
        })
        .collect();
    let fitted = fit_prior(&effects).unwrap();
    let variance = fitted.sd().unwrap().powi(2);
    let squares: f64 = (0..25)
        .map(|index| {
            let index = f64::from(index);
            let residual = 0.05 * (index * 1.7).sin() + 0.02 - fitted.mean();
            residual.powi(2) / ((0.003 + 0.002 * index).powi(2) + variance)
        })
        .sum();
    assert_close(squares, 24.0, 1e-10);
}

#[test]
fn the_promotion_prior_is_the_default_until_promotions_tell() {
    let default = GaussianPrior::new(0.0, Some(0.05 * 0.2)).unwrap();
    let few = past(&[0.5; PROMOTIONS_MIN - 1], 0.001);
    let alike = past(&[0.03; PROMOTIONS_MIN], 0.02);
    for history in [&few, &alike] {
        assert_eq!(promotion_prior(0.2, history), Ok(default));
    }
    assert_eq!(fit_prior(&few), Err(StatsError::NotEnoughData));
    assert_eq!(fit_prior(&alike), Err(StatsError::ZeroVariance));
    let spread: Vec<f64> = (0..10).map(|index| 0.1 * f64::from(index)).collect();
    let fitted = promotion_prior(0.2, &past(&spread, 0.01)).unwrap();
    assert_close(fitted.mean(), 0.2 * 0.45, 1e-12);
    assert_eq!(
        promotion_prior(0.0, &few),
        Err(StatsError::NonPositiveBaseline)
    );
    assert_eq!(
        promotion_prior(f64::NAN, &few),
        Err(StatsError::InvalidInput)
    );
    assert_eq!(PastEffect::new(0.1, 0.0), Err(StatsError::InvalidInput));
}

/// All of 2^53 units convert, and none of 8e15: the odds' excess rounds to less than -1.
#[test]
fn rates_at_opposite_ends_lose_nothing_negative() {
    let prior = BetaPrior::new(162.1579808538411, 215.35561469611318).unwrap();
    let (all, none) = (share(HUGE, HUGE), share(0, 8_232_055_783_625_706));
    for (a, b) in [(all, none), (none, all)] {
        let got = compare_rates(a, b, prior, 0.6).unwrap();
        let losses = [got.expected_loss_a, got.expected_loss_b];
        assert!(
            losses.iter().all(|loss| (0.0..=1.0).contains(loss)),
            "{got:?}"
        );
        assert!((losses[0] - losses[1]).abs() > 0.999, "{got:?}");
    }
}

fn numbers_of_rates(got: &RateComparison) -> Vec<f64> {
    let mut numbers = vec![
        got.prob_a_beats_b,
        got.prob_b_beats_a,
        got.ln_prob_a_beats_b,
        got.ln_prob_b_beats_a,
        got.expected_loss_a,
        got.expected_loss_b,
        got.mean_a,
        got.mean_b,
        got.rate_a.lower,
        got.rate_a.upper,
        got.rate_b.lower,
        got.rate_b.upper,
    ];
    if let Some(lift) = got.lift {
        numbers.extend([lift.lower, lift.median, lift.upper]);
    }
    numbers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn swapping_rates_swaps_the_answer(
        (x_a, n_a, x_b, n_b) in (0_i64..400, 0_i64..10_000, 0_i64..400, 0_i64..10_000),
        prior in 0.01_f64..100.0,
    ) {
        let (a, b) = ((x_a.min(n_a), n_a), (x_b.min(n_b), n_b));
        let (there, back) = (rates(a, b, prior), rates(b, a, prior));
        prop_assert_eq!(there.prob_b_beats_a, back.prob_a_beats_b);
        prop_assert_eq!(there.ln_prob_a_beats_b, back.ln_prob_b_beats_a);
        prop_assert_eq!(there.expected_loss_a, back.expected_loss_b);
        prop_assert_eq!(there.rate_a, back.rate_b);
        prop_assert!((there.prob_a_beats_b + there.prob_b_beats_a - 1.0).abs() < 1e-12);
        let difference = there.expected_loss_a - there.expected_loss_b;
        prop_assert!((difference - (there.mean_b - there.mean_a)).abs() < 1e-12);
        if let (Some(there), Some(back)) = (there.lift, back.lift) {
            let product = (1.0 + there.median) * (1.0 + back.median);
            prop_assert!((product - 1.0).abs() < 1e-8, "{}", product);
        }
    }

    #[test]
    fn conversions_of_b_help_b(x_a in 0_i64..300, x_b in 0_i64..299) {
        let (less, more) = (rates((x_a, 300), (x_b, 300), 1.0), rates((x_a, 300), (x_b + 1, 300), 1.0));
        prop_assert!(more.ln_prob_b_beats_a > less.ln_prob_b_beats_a);
        prop_assert!(more.expected_loss_b < less.expected_loss_b);
        prop_assert!(more.rate_b.lower > less.rate_b.lower);
    }

    #[test]
    fn no_rates_end_in_nan(
        counts in prop::array::uniform4(prop_oneof![0_i64..=20, 0_i64..=HUGE, Just(HUGE)]),
        priors in prop::array::uniform2(prop_oneof![ANY, -300.0_f64..300.0]),
        credibility in prop_oneof![ANY, 0.0_f64..1.0, Just(1.0 - f64::EPSILON / 2.0), Just(1e-300)],
        exponential in any::<bool>(),
    ) {
        let [alpha, beta] = priors.map(|prior| if exponential { 10.0_f64.powf(prior) } else { prior });
        let [x_a, n_a, x_b, n_b] = counts;
        let (a, b) = (share(x_a.min(n_a), n_a), share(x_b.min(n_b), n_b));
        let got = BetaPrior::new(alpha, beta)
            .and_then(|prior| compare_rates(a, b, prior, credibility));
        if let Ok(got) = got {
            prop_assert!(numbers_of_rates(&got).iter().all(|number| number.is_finite()), "{:?}", got);
            prop_assert!((0.0..=1.0).contains(&got.prob_a_beats_b));
            prop_assert!(got.rate_a.lower <= got.rate_a.upper);
            prop_assert!(got.expected_loss_a >= 0.0 && got.expected_loss_b >= 0.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_effect_ends_in_nan(
        (estimate, se, mean, sd) in (float(), float(), float(), prop::option::of(float())),
        credibility in fraction(),
    ) {
        let got = GaussianPrior::new(mean, sd)
            .and_then(|prior| posterior_effect(estimate, se, &prior, credibility));
        if let Ok(got) = got {
            for number in [
                got.mean, got.sd, got.prob_positive, got.prob_negative, got.ln_prob_positive,
                got.ln_prob_negative, got.risk_choose_a, got.risk_choose_b, got.interval.lower,
                got.interval.upper, got.shrink_factor.unwrap_or(0.0),
            ] {
                prop_assert!(number.is_finite(), "{:?}", got);
            }
            prop_assert!(got.risk_choose_a >= 0.0 && got.risk_choose_b >= 0.0);
        }
    }

    #[test]
    fn no_past_ends_in_nan(past in prop::collection::vec((float(), float()), 0..20), baseline in float()) {
        let past: Vec<PastEffect> =
            past.iter().filter_map(|(effect, se)| PastEffect::new(*effect, se.abs()).ok()).collect();
        if let Ok(prior) = promotion_prior(baseline, &past) {
            prop_assert!(prior.mean().is_finite() && prior.sd().is_some_and(|sd| sd > 0.0 && sd.is_finite()));
        }
    }
}
