#![expect(clippy::float_cmp, reason = "exact results are what is tested")]

use super::*;
use proptest::prelude::*;

fn big(number: i128) -> BigInt {
    BigInt::from(number)
}

fn mean_of(units: &[i64], scale: u32) -> MeanMoments {
    let mut moments = MeanMoments::new(scale);
    units.iter().for_each(|x| moments.add_unit(*x));
    moments
}

fn ratio_of(units: &[(i64, i64)]) -> RatioMoments {
    let mut moments = RatioMoments::new(1, 10_000);
    units.iter().for_each(|(x, y)| moments.add_unit(*x, *y));
    moments
}

#[test]
fn quotients_are_correctly_rounded() {
    assert_eq!(quotient(&big(1), &big(3)), 1.0 / 3.0);
    assert_eq!(quotient(&big(-2), &big(3)), -2.0 / 3.0);
    assert_eq!(quotient(&big(2), &big(-3)), -2.0 / 3.0);
    assert_eq!(quotient(&big(0), &big(7)), 0.0);
    // 2^53 + 1 is a tie and goes to even; the smallest excess breaks it.
    let tie = (1_i128 << 53) + 1;
    assert_eq!(quotient(&big(tie), &big(1)), 9_007_199_254_740_992.0);
    assert_eq!(
        quotient(&(big(tie) * big(i128::MAX) + 1), &big(i128::MAX)),
        9_007_199_254_740_994.0
    );
    let huge = big(1) << 1_200_u32;
    assert_eq!(quotient(&(&huge * 3), &(&huge * 4)), 0.75);
    assert_eq!(quotient(&huge, &big(1)), f64::INFINITY);
    assert_eq!(quotient(&big(1), &huge), 0.0);
    assert_eq!(
        quotient(&big(5), &(big(1) << 1_030_u32)),
        5.0 * 2.0_f64.powi(-1_000) * 2.0_f64.powi(-30)
    );
}

#[test]
fn a_mean_of_a_billion_keeps_a_variance_of_one() {
    // 10^9 and ten-thousandths around it: sample variance 1 exactly.
    let centre = 10_000_000_000_000;
    let units: Vec<_> = (0..2_000)
        .map(|unit| centre + if unit % 2 == 0 { 10_000 } else { -10_000 })
        .collect();
    let summary = mean_of(&units, 10_000).summary().unwrap();
    assert_eq!(summary.mean(), 1e9);
    assert_eq!(summary.variance(), 2_000.0 / 1_999.0);
}

#[test]
fn a_ratio_of_proportional_totals_has_no_variance() {
    let units: Vec<_> = (1..100).map(|x| (x, 17_000 * x)).collect();
    let summary = ratio_of(&units).summary().unwrap();
    assert_eq!((summary.ratio(), summary.se2()), (1.7, 0.0));
}

#[test]
fn ratio_moments_match_the_textbook_formula() {
    let units = [(1, 20_000), (2, 10_000), (4, 50_000), (3, 0), (5, 70_000)];
    let summary = ratio_of(&units).summary().unwrap();
    // In values: y = 2, 1, 5, 0, 7; R = 15/15; residuals y − R x = 1, −1, 1, −3, 2.
    assert_eq!(summary.ratio(), 1.0);
    let want = 16.0 / 4.0 / (5.0 * 9.0);
    assert!((summary.se2() - want).abs() < 1e-16);
    let covariance = ratio_of(&units).covariance().unwrap();
    assert_eq!(covariance, (59.0 - 45.0) / 4.0);
    assert_eq!(ratio_of(&units).denominator().mean(), Ok(3.0));
    assert_eq!(ratio_of(&units).numerator().mean(), Ok(3.0));
}

#[test]
fn undefined_cases_are_named() {
    assert_eq!(mean_of(&[], 1).mean(), Err(StatsError::NotEnoughData));
    assert_eq!(mean_of(&[5], 1).mean(), Ok(5.0));
    assert_eq!(
        mean_of(&[5], 1).summary().unwrap_err(),
        StatsError::NotEnoughData
    );
    let impossible = MeanMoments {
        n: 3,
        sum: big(9),
        sum_sq: big(1),
        scale: 1,
    };
    assert_eq!(impossible.summary().unwrap_err(), StatsError::InvalidInput);
    let negative = MeanMoments {
        n: -1,
        ..mean_of(&[], 1)
    };
    assert_eq!(negative.summary().unwrap_err(), StatsError::InvalidInput);
    let no_denominator = ratio_of(&[(0, 1), (0, 2)]);
    assert_eq!(
        no_denominator.summary().unwrap_err(),
        StatsError::DegenerateDenominator
    );
    assert_eq!(
        ratio_of(&[(1, 1)]).summary().unwrap_err(),
        StatsError::NotEnoughData
    );
    let mut impossible = ratio_of(&[(1, 2), (3, 4)]);
    impossible.sum_xy = big(1_000_000);
    assert_eq!(impossible.summary().unwrap_err(), StatsError::InvalidInput);
    let mut counts = MeanMoments::new(1);
    assert_eq!(
        counts.merge(&MeanMoments::new(10_000)),
        Err(StatsError::InvalidInput)
    );
}

#[test]
fn metrics_find_their_sums() {
    use UnitTotal as T;
    let moments = Moments {
        units: 4,
        units_with: [(EventType::Purchase, 2)].into(),
        units_above_zero: BTreeMap::new(),
        sums: [
            (T::Clicks, big(3)),
            (T::Impressions, big(10)),
            (T::PurchaseValue, big(300_000)),
        ]
        .into(),
        products: [
            ((T::Impressions, T::Clicks), big(9)),
            ((T::Impressions, T::Impressions), big(30)),
            ((T::Clicks, T::Clicks), big(5)),
            ((T::PurchaseValue, T::PurchaseValue), big(50_000_000_000)),
        ]
        .into(),
    };
    let mut doubled = moments.clone();
    doubled.merge(&moments);
    let Some(MetricMoments::Ratio(clicks)) = doubled.of_metric(Metric::ClickThroughRate).unwrap()
    else {
        panic!("a click-through rate is a ratio");
    };
    assert_eq!(
        (clicks.n, clicks.sum_xy, clicks.sum_x),
        (8, big(18), big(20))
    );
    let Some(MetricMoments::Mean(revenue)) = moments.of_metric(Metric::RevenuePerUser).unwrap()
    else {
        panic!("revenue per user is a mean");
    };
    assert_eq!(revenue.mean(), Ok(7.5));
    let conversion = MetricMoments::Proportion(Proportion::new(2, 4).unwrap());
    assert_eq!(
        moments.of_metric(Metric::ConversionRate),
        Ok(Some(conversion))
    );
    assert_eq!(moments.of_metric(Metric::P95LatencyMs), Ok(None));
    // Nobody errored: no request was recorded, and absent sums are zero.
    let Some(MetricMoments::Ratio(errors)) = moments.of_metric(Metric::ErrorRate).unwrap() else {
        panic!("the error rate is a ratio");
    };
    assert_eq!(
        errors.summary().unwrap_err(),
        StatsError::DegenerateDenominator
    );
}

proptest! {
    #[test]
    fn quotients_agree_with_float_division(numerator in -(1_i64 << 53)..(1_i64 << 53), denominator in 1..(1_i64 << 53)) {
        // Both operands are exact floats, and float division is correctly rounded.
        let got = quotient(&BigInt::from(numerator), &BigInt::from(denominator));
        prop_assert_eq!(got, numerator as f64 / denominator as f64);
    }

    #[test]
    fn words_divide_as_many_digits_do(
        numerator in 1_u128.., narrower in 0_u32..128, denominator in 1_u128.., by in 1_u32..128,
    ) {
        let (numerator, denominator) = ((numerator >> narrower).max(1), (denominator >> by).max(1));
        let shift = 65 - (i64::from(denominator.leading_zeros()) - i64::from(numerator.leading_zeros()));
        prop_assume!(shift >= 0);
        prop_assert_eq!(
            shifted_quotient(numerator, denominator, shift.unsigned_abs()),
            shifted_quotient_of_many_digits(&numerator.into(), &denominator.into(), shift)
        );
    }

    #[test]
    fn order_and_batches_do_not_matter(
        units in proptest::collection::vec((0_i64..1_000, -1_000_000_000_000_000_i64..1_000_000_000_000_000), 2..60),
        cuts in proptest::collection::vec(0_usize..60, 0..6),
        seed: u64,
    ) {
        let whole = ratio_of(&units);
        let mut shuffled = units.clone();
        shuffled.sort_by_key(|unit| (unit.1 ^ seed.cast_signed()).wrapping_mul(0x5851_F42D_4C95_7F2D));
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % units.len()).collect();
        cuts.sort_unstable();
        let mut parts = RatioMoments::new(1, 10_000);
        let mut from = 0;
        for to in cuts.into_iter().chain([shuffled.len()]) {
            parts.merge(&ratio_of(&shuffled[from..to])).unwrap();
            from = to;
        }
        prop_assert_eq!(&parts, &whole);
        prop_assert_eq!(parts.summary(), whole.summary());
        let spread = parts.numerator().summary().unwrap();
        prop_assert!(spread.variance() >= 0.0);
    }

    #[test]
    fn shifting_all_values_leaves_the_variance(
        units in proptest::collection::vec(0_i64..100_000, 2..40),
        shift in -1_000_000_000_000_000_i64..1_000_000_000_000_000,
    ) {
        let shifted: Vec<_> = units.iter().map(|x| x + shift).collect();
        let (one, other) = (mean_of(&units, 10_000).summary().unwrap(), mean_of(&shifted, 10_000).summary().unwrap());
        prop_assert_eq!(one.variance(), other.variance());
    }
}
