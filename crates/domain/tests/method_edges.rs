//! Edges, symmetries and monotonicity of the methods that plan, compare and guard, beyond the
//! reference numbers; and that no input at all makes them answer with NaN.

#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "helpers of tests may end them; edges are exact"
)]

use podium_domain::stats::cuped::{CovariateMoments, CovariateSums, Slope, compare_adjusted};
use podium_domain::stats::lift::Estimate;
use podium_domain::stats::multiple::{adjust_e_values, adjust_p_values};
use podium_domain::stats::noninferiority::{Direction, Margin, Verdict, non_inferiority};
use podium_domain::stats::power::{
    Baseline, Level, Sides, days_at_traffic, minimum_detectable_lift, power, sample_size,
};
use podium_domain::stats::quantile::{QuantileGuardrail, quantile, quantile_ratio};
use podium_domain::stats::winsorize::{Caps, capped_moments, winsorize};
use podium_domain::stats::{StatsError, count_from_f64};
use proptest::num::f64::ANY;
use proptest::prelude::*;

/// The largest count that a float holds exactly.
const HUGE: i64 = 1 << 53;

fn assert_close(got: f64, want: f64, relative: f64) {
    assert!(
        (got - want).abs() <= relative * want.abs(),
        "{got} instead of {want}"
    );
}

// ---------------------------------------------------------------------------------------------
// CUPED

#[test]
fn sums_and_centred_moments_agree() {
    let units = [(1.0, 2.0), (3.0, 1.0), (4.0, 6.0), (8.0, 5.0), (2.0, 2.5)];
    let n = units.len() as f64;
    let sum = |f: fn(&(f64, f64)) -> f64| units.iter().map(f).sum::<f64>();
    let sums = CovariateSums {
        n: 5,
        sum_y: sum(|u| u.0),
        sum_x: sum(|u| u.1),
        sum_yy: sum(|u| u.0 * u.0),
        sum_xx: sum(|u| u.1 * u.1),
        sum_xy: sum(|u| u.0 * u.1),
    };
    let (my, mx) = (sums.sum_y / n, sums.sum_x / n);
    let centred = |f: &dyn Fn(&(f64, f64)) -> f64| units.iter().map(f).sum::<f64>() / (n - 1.0);
    let moments = [
        centred(&|u| (u.0 - my).powi(2)),
        centred(&|u| (u.1 - mx).powi(2)),
        centred(&|u| (u.0 - my) * (u.1 - mx)),
    ];
    let from_sums = CovariateMoments::from_sums(&sums).unwrap();
    let from_moments = CovariateMoments::new(5, [my, mx], moments).unwrap();
    let other = CovariateMoments::new(9, [5.0, 3.0], [4.0, 2.0, 1.0]).unwrap();
    for slope in [Slope::WithinArms, Slope::Pooled] {
        let left = compare_adjusted(&from_sums, &other, slope, 0.9).unwrap();
        let right = compare_adjusted(&from_moments, &other, slope, 0.9).unwrap();
        assert_close(left.z, right.z, 1e-12);
        assert_close(left.variance_reduction, right.variance_reduction, 1e-12);
        let swapped = compare_adjusted(&other, &from_sums, slope, 0.9).unwrap();
        assert_close(swapped.diff, -left.diff, 1e-12);
        assert_close(swapped.theta, left.theta, 1e-12);
    }
}

#[test]
fn cuped_checks_input_before_data() {
    let one = CovariateMoments::new(1, [0.0; 2], [0.0; 3]).unwrap();
    let two = CovariateMoments::new(2, [0.0; 2], [1.0, 1.0, 0.5]).unwrap();
    let compare = |a, b, confidence| compare_adjusted(a, b, Slope::WithinArms, confidence);
    assert_eq!(compare(&one, &two, 1.0), Err(StatsError::InvalidInput));
    assert_eq!(compare(&one, &two, 0.9), Err(StatsError::NotEnoughData));
    for impossible in [[1.0, 1.0, 1.1], [-1.0, 1.0, 0.0], [1.0, f64::NAN, 0.0]] {
        let got = CovariateMoments::new(9, [0.0; 2], impossible);
        assert_eq!(got, Err(StatsError::InvalidInput));
    }
    // A line in both arms leaves nothing; the units do not matter.
    let line = CovariateMoments::new(9, [3.0, 1.0], [9.0, 1.0, 3.0]).unwrap();
    assert_eq!(compare(&line, &line, 0.9), Err(StatsError::ZeroVariance));
}

#[test]
fn a_covariate_that_differs_only_between_arms_explains_nothing() {
    let a = CovariateMoments::new(50, [1.0, 4.0], [2.0, 0.0, 0.0]).unwrap();
    let b = CovariateMoments::new(50, [2.0, 5.0], [2.0, 0.0, 0.0]).unwrap();
    for slope in [Slope::WithinArms, Slope::Pooled] {
        let got = compare_adjusted(&a, &b, slope, 0.9).unwrap();
        assert_eq!(
            (got.theta, got.diff, got.variance_reduction),
            (0.0, 1.0, 0.0)
        );
    }
}

// ---------------------------------------------------------------------------------------------
// Caps and quantiles

#[test]
fn a_cap_just_below_a_value_still_caps_it() {
    // (101 − 1) · 0.95 lies 4e-15 below 95, so the largest six values exceed the cap.
    let values: Vec<f64> = (0..101).map(f64::from).collect();
    let (a, b) = values.split_at(50);
    let got = winsorize(a, b, None, Some(0.95)).unwrap();
    assert_eq!((got.a.capped, got.b.capped), (0, 6));
    let got = winsorize(a, b, Some(0.5), None).unwrap();
    assert_eq!((got.caps.lower(), got.a.capped), (Some(50.0), 50));
}

#[test]
fn fixed_caps_do_what_quantile_caps_do() {
    let a = [3.0, 9.0, 1.0, 0.5, 7.25];
    let b = [2.0, 30.0, 4.0];
    let found = winsorize(&a, &b, Some(0.2), Some(0.8)).unwrap();
    assert_eq!(capped_moments(&a, &found.caps), Ok(found.a));
    assert_eq!(capped_moments(&b, &found.caps), Ok(found.b));
    assert_eq!(
        capped_moments(&[], &found.caps),
        Err(StatsError::NotEnoughData)
    );
    assert_eq!(
        Caps::new(Some(2.0), Some(1.0)),
        Err(StatsError::InvalidInput)
    );
    assert_eq!(
        Caps::new(None, Some(f64::NAN)),
        Err(StatsError::InvalidInput)
    );
    let none = Caps::default();
    assert_eq!((none.apply(5.0), none.apply(-5.0)), (5.0, -5.0));
}

#[test]
fn variances_survive_a_large_mean() {
    let values: Vec<f64> = (0..1_000)
        .map(|index| 1e12 + f64::from(index % 2))
        .collect();
    let got = winsorize(&values, &values, None, None).unwrap();
    assert_close(got.a.variance.unwrap(), 250.0 / 999.0, 1e-12);
}

#[test]
fn limits_at_exact_ties_belong_to_the_interval() {
    // P(Bin(n, ½) = 0) = 2^−n is the tail itself.
    for n in [2_usize, 4, 10] {
        let confidence = 1.0 - 2.0 * 0.5_f64.powi(i32::try_from(n).unwrap());
        let values: Vec<f64> = (1..=n).map(|value| value as f64).collect();
        let got = quantile(&values, 0.5, confidence).unwrap();
        assert_eq!(got.lower.map(|limit| limit.rank), Some(1), "{n}");
        assert_eq!(got.upper.map(|limit| limit.rank), Some(n), "{n}");
    }
    // 1 − 0.95 and (1 − 0.9)/2 are different floats, on the wrong side.
    assert!(quantile(&[1.0], 0.95, 0.9).unwrap().lower.is_none());
}

#[test]
fn ranks_of_large_samples_are_next_to_their_normal_approximation() {
    let n = 200_000;
    let values: Vec<f64> = (0..n).map(f64::from).collect();
    let got = quantile(&values, 0.95, 0.95).unwrap();
    let (centre, half) = (190_000.5, 1.959_964 * (200_000.0_f64 * 0.95 * 0.05).sqrt());
    let (lower, upper) = (got.lower.unwrap().rank, got.upper.unwrap().rank);
    assert!((lower as f64 - (centre - half)).abs() < 2.0, "{lower}");
    assert!((upper as f64 - (centre + half)).abs() < 2.0, "{upper}");
}

#[test]
fn quantile_errors_come_in_order() {
    let guardrail = QuantileGuardrail {
        q: 0.5,
        confidence: 0.9,
        margin: 0.1,
        alpha: 0.05,
    };
    let good: Vec<f64> = (1..50).map(f64::from).collect();
    let zeros = [0.0; 50];
    let check = |a: &[f64], b: &[f64], error| {
        assert_eq!(quantile_ratio(a, b, &guardrail), Err(error));
    };
    check(&[], &[f64::NAN], StatsError::InvalidInput);
    check(&zeros, &[1.0], StatsError::NotEnoughData);
    check(&zeros, &zeros, StatsError::NonPositiveValue);
    check(&[2.0; 50], &[3.0; 50], StatsError::ZeroVariance);
    let bad = QuantileGuardrail {
        margin: 0.0,
        ..guardrail
    };
    assert_eq!(
        quantile_ratio(&good, &good, &bad),
        Err(StatsError::InvalidInput)
    );
    let got = quantile_ratio(&good, &good, &guardrail).unwrap();
    assert_eq!((got.change, got.verdict), (0.0, Verdict::Inconclusive));
}

// ---------------------------------------------------------------------------------------------
// Guardrails and planning

#[test]
fn a_treatment_next_to_the_margin_keeps_its_digits() {
    let estimate = |mean: f64| Estimate::new(mean, 1e-40).unwrap();
    // 0.1 + 0.1 · 0.1 as real numbers of these floats is 6.1e-18 above the float 0.11.
    let got = non_inferiority(
        &estimate(0.1),
        &estimate(0.11),
        Direction::LowerIsBetter,
        Margin::Relative(0.1),
        0.05,
    )
    .unwrap();
    let se = (1e-40_f64 * (1.0 + 1.1 * 1.1)).sqrt();
    assert_close(got.z * se, 6.106_226_635_438_361e-18, 1e-9);
}

#[test]
fn directions_mirror_each_other() {
    let (a, b) = (
        Estimate::new(0.3, 1e-4).unwrap(),
        Estimate::new(0.32, 2e-4).unwrap(),
    );
    let (c, d) = (
        Estimate::new(-0.3, 1e-4).unwrap(),
        Estimate::new(-0.32, 2e-4).unwrap(),
    );
    let margin = Margin::Absolute(0.01);
    let up = non_inferiority(&a, &b, Direction::LowerIsBetter, margin, 0.05).unwrap();
    let down = non_inferiority(&c, &d, Direction::HigherIsBetter, margin, 0.05).unwrap();
    assert_eq!(up, down);
    let relative = Margin::Relative(0.1);
    let got = non_inferiority(&c, &d, Direction::LowerIsBetter, relative, 0.05);
    assert_eq!(got, Err(StatsError::NonPositiveBaseline));
}

fn level() -> Level {
    Level::new(0.05, Sides::Two).unwrap()
}

#[test]
fn planned_sizes_reach_their_power() {
    let baselines = [
        Baseline::Proportion(0.1),
        Baseline::Proportion(1e-6),
        Baseline::Mean { mean: 3.0, sd: 9.0 },
    ];
    for baseline in baselines {
        for lift in [0.05, 0.3] {
            let size = sample_size(baseline, lift, level(), 0.8, 2.0).unwrap();
            let whole = |size: f64| count_from_f64(size).unwrap();
            let (n_a, n_b) = (whole(size.n_a_ceil), whole(size.n_b_ceil));
            assert_close(power(baseline, lift, n_a, n_b, level()).unwrap(), 0.8, 1e-2);
            let found = minimum_detectable_lift(baseline, n_a, n_b, level(), 0.8).unwrap();
            assert_close(found, lift, 2e-2);
        }
    }
}

#[test]
fn planning_at_its_edges() {
    let share = Baseline::Proportion(0.2);
    assert_close(power(share, 0.0, 10, 10, level()).unwrap(), 0.05, 1e-12);
    assert_eq!(
        power(share, 0.1, 0, 10, level()),
        Err(StatsError::NotEnoughData)
    );
    assert_eq!(
        power(share, 9.0, 0, 10, level()),
        Err(StatsError::InvalidInput)
    );
    assert_eq!(
        power(share, 0.1, -1, 0, level()),
        Err(StatsError::InvalidInput)
    );
    let mean = |mean: f64, sd: f64| Baseline::Mean { mean, sd };
    let size = |baseline, lift| sample_size(baseline, lift, level(), 0.8, 1.0);
    assert_eq!(size(mean(0.0, 0.0), 0.0), Err(StatsError::ZeroVariance));
    assert_eq!(
        size(mean(0.0, 1.0), 0.0),
        Err(StatsError::NonPositiveBaseline)
    );
    assert_eq!(size(mean(1.0, 1.0), 0.0), Err(StatsError::ZeroEffect));
    assert_eq!(size(mean(1.0, -1.0), 0.1), Err(StatsError::InvalidInput));
    // More units than any integer holds are still a number.
    assert!(size(share, 1e-12).unwrap().n_b_ceil > 1e24);
    let detectable = |n| minimum_detectable_lift(share, n, n, level(), 0.8);
    assert_eq!(detectable(0), Err(StatsError::NotEnoughData));
    assert_eq!(detectable(1), Err(StatsError::Unreachable));
    assert_eq!(days_at_traffic(3_000.0, 400.0), Ok(7.5));
    assert_eq!(days_at_traffic(1.0, 0.0), Err(StatsError::InvalidInput));
    assert_eq!(days_at_traffic(-1.0, 1.0), Err(StatsError::InvalidInput));
}

/// A lift that is found for certain, and whose square is no float.
#[test]
fn an_enormous_lift_is_found_for_certain() {
    let baseline = Baseline::Mean {
        mean: 0.5,
        sd: 0.08,
    };
    let level = Level::new(0.1, Sides::One).unwrap();
    let found = power(
        baseline,
        2.5e299,
        51_519_105_644_603,
        8_119_087_044_673_386,
        level,
    )
    .unwrap();
    assert_eq!(found.total_cmp(&1.0), std::cmp::Ordering::Equal, "{found}");
}

/// Any float at all, or an ordinary one.
fn float() -> impl Strategy<Value = f64> {
    prop_oneof![ANY, -10.0_f64..10.0, 0.0_f64..1.0, Just(0.0)]
}

/// A number inside (0, 1), or any float.
fn fraction() -> impl Strategy<Value = f64> {
    prop_oneof![3 => 0.0_f64..1.0, 1 => ANY]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_covariate_ends_in_nan(
        sums in prop::array::uniform2(prop::array::uniform5(float())),
        counts in prop::array::uniform2(-1_i64..50),
        centred in any::<bool>(),
        confidence in fraction(),
    ) {
        let arm = |index: usize| {
            let [y, x, yy, xx, xy] = sums[index];
            let n = counts[index];
            if centred {
                CovariateMoments::new(n, [y, x], [yy, xx, xy])
            } else {
                CovariateMoments::from_sums(&CovariateSums {
                    n, sum_y: y, sum_x: x, sum_yy: yy, sum_xx: xx, sum_xy: xy,
                })
            }
        };
        for slope in [Slope::WithinArms, Slope::Pooled] {
            let got = arm(0).and_then(|a| compare_adjusted(&a, &arm(1)?, slope, confidence));
            if let Ok(got) = got {
                let mut numbers = vec![
                    got.theta, got.mean_a, got.mean_b, got.diff, got.se, got.z, got.p.two_sided,
                    got.p.ln_two_sided, got.p.greater, got.interval.lower, got.interval.upper,
                    got.variance_reduction,
                ];
                numbers.extend(got.lift.iter().flat_map(|lift| [lift.lift, lift.se, lift.interval.lower]));
                prop_assert!(numbers.iter().all(|number| number.is_finite()), "{:?}", got);
            }
        }
    }

    #[test]
    fn no_values_end_in_nan(
        a in prop::collection::vec(float(), 0..40),
        b in prop::collection::vec(0.0_f64..1e9, 0..40),
        (lower, upper) in (prop::option::of(fraction()), prop::option::of(fraction())),
        levels in prop::array::uniform4(fraction()),
    ) {
        if let Ok(got) = winsorize(&a, &b, lower, upper) {
            for arm in [got.a, got.b] {
                prop_assert!(arm.mean.is_finite() && arm.variance.is_none_or(|v| v >= 0.0 && v.is_finite()));
            }
            for cap in [got.caps.lower(), got.caps.upper()].into_iter().flatten() {
                prop_assert!(cap.is_finite());
            }
        }
        let [q, confidence, margin, alpha] = levels;
        if let Ok(got) = quantile(&a, q, confidence) {
            prop_assert!(got.value.is_finite());
        }
        let guardrail = QuantileGuardrail { q, confidence, margin, alpha };
        let positive: Vec<f64> = a.iter().map(|value| value.abs()).collect();
        if let Ok(got) = quantile_ratio(&positive, &b, &guardrail) {
            for number in [got.log_se_a, got.log_se_b, got.change, got.limits.lower, got.limits.upper] {
                prop_assert!(number.is_finite(), "{:?}", got);
            }
        }
    }

    #[test]
    fn ranks_are_the_first_that_qualify(n in 1_usize..80, q in 0.001_f64..0.999, confidence in 0.3_f64..0.999) {
        // Against plain sums of binomial probabilities.
        let probability = |x: usize| {
            let choose = (1..=x).fold(1.0, |product, i| product * (n - i + 1) as f64 / i as f64);
            choose * q.powf(x as f64) * (1.0 - q).powf((n - x) as f64)
        };
        let tail = (1.0 - confidence) / 2.0;
        let lower = (1..=n).rev().find(|&l| (0..l).map(probability).sum::<f64>() <= tail);
        let upper = (1..=n).find(|&u| (u..=n).map(probability).sum::<f64>() <= tail);
        let values: Vec<f64> = (0..n).map(|value| value as f64).collect();
        let got = quantile(&values, q, confidence).unwrap();
        prop_assert_eq!(got.lower.map(|limit| limit.rank), lower);
        prop_assert_eq!(got.upper.map(|limit| limit.rank), upper);
    }

    #[test]
    fn no_guardrail_ends_in_nan(
        means in prop::array::uniform2(float()),
        errors in prop::array::uniform2(float()),
        (margin, alpha) in (float(), fraction()),
        flags in any::<[bool; 2]>(),
    ) {
        let arm = |index: usize| Estimate::new(means[index], errors[index]);
        let direction = if flags[0] { Direction::LowerIsBetter } else { Direction::HigherIsBetter };
        let margin = if flags[1] { Margin::Absolute(margin) } else { Margin::Relative(margin) };
        let got = arm(0).and_then(|a| non_inferiority(&a, &arm(1)?, direction, margin, alpha));
        if let Ok(got) = got {
            prop_assert!(got.z.is_finite() && got.ln_p.is_finite() && (0.0..=1.0).contains(&got.p));
        }
    }

    #[test]
    fn no_plan_ends_in_nan(
        (share, lift, alpha, chance) in (fraction(), float(), fraction(), fraction()),
        (mean, sd, ratio) in (float(), float(), float()),
        counts in prop::array::uniform2(-1_i64..=HUGE),
        two in any::<bool>(),
    ) {
        let sides = if two { Sides::Two } else { Sides::One };
        let Ok(level) = Level::new(alpha, sides) else { return Ok(()) };
        for baseline in [Baseline::Proportion(share), Baseline::Mean { mean, sd }] {
            if let Ok(got) = sample_size(baseline, lift, level, chance, ratio) {
                prop_assert!(got.n_a.is_finite() && got.n_a_ceil.is_finite() && got.n_b_ceil.is_finite());
            }
            if let Ok(got) = power(baseline, lift, counts[0], counts[1], level) {
                prop_assert!((0.0..=1.0).contains(&got), "{}", got);
            }
            if let Ok(got) = minimum_detectable_lift(baseline, counts[0], counts[1], level, chance) {
                prop_assert!(got >= 0.0 && got.is_finite());
            }
        }
    }

    #[test]
    fn adjusted_p_values_are_ordered(p in prop::collection::vec(prop_oneof![0.0_f64..=1.0, Just(0.0), Just(1.0)], 0..30)) {
        let got = adjust_p_values(&p).unwrap();
        for (index, &p) in p.iter().enumerate() {
            let chain = [
                p,
                got.benjamini_hochberg[index],
                got.hochberg[index],
                got.holm[index],
                got.bonferroni[index],
                1.0,
            ];
            prop_assert!(chain.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-15)), "{:?}", chain);
            prop_assert!(got.benjamini_yekutieli[index] >= got.benjamini_hochberg[index]);
        }
    }

    #[test]
    fn no_list_ends_in_nan(values in prop::collection::vec(float(), 0..12)) {
        if let Ok(got) = adjust_p_values(&values) {
            for list in [got.bonferroni, got.holm, got.hochberg, got.benjamini_hochberg, got.benjamini_yekutieli] {
                prop_assert!(list.iter().all(|p| (0.0..=1.0).contains(p)));
            }
        }
        if let Ok(got) = adjust_e_values(&values) {
            prop_assert!(got.iter().all(|e| *e >= 0.0));
        }
    }

    #[test]
    fn adjusted_e_values_are_the_smallest_mean_of_a_set(e in prop::collection::vec(prop_oneof![0.0_f64..30.0, Just(f64::INFINITY)], 1..8)) {
        let got = adjust_e_values(&e).unwrap();
        for (arm, &got) in got.iter().enumerate() {
            let sets = (0_u32..1 << e.len()).filter(|set| set >> arm & 1 == 1);
            let mean = |set: u32| {
                let members = (0..e.len()).filter(|index| set >> index & 1 == 1);
                members.map(|index| e[index]).sum::<f64>() / f64::from(set.count_ones())
            };
            let want = sets.map(mean).fold(f64::INFINITY, f64::min);
            prop_assert!(got == want || (got - want).abs() <= 1e-12 * want, "{} {}", got, want);
        }
    }
}
