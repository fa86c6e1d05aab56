//! Bucketing against frozen vectors, and its promises over many units.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may end them"
)]

use podium_domain::bucketing::{
    Allocation, Bucketing, HashVersion, Purpose, VariantTable, VariantTableError,
};
use podium_domain::bucketing::{draw, draw_v1};
use podium_domain::ids::VariantId;
use podium_domain::stats::srm;
use proptest::prelude::*;
use serde_json::Value;

const SALT: &str = "reco_ymal_v1";
const UNITS: u32 = 1_000_000;
/// Fixed units make these tests repeatable; a correct hash fails one of them by chance only with
/// this probability.
const CHANCE: f64 = 1e-4;

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/buckets.json")).unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn table(weights: &[u64]) -> VariantTable {
    let variants: Vec<_> = (1..).map(id).zip(weights.iter().copied()).collect();
    VariantTable::new(&variants).unwrap()
}

fn id(number: i64) -> VariantId {
    VariantId::new(number).unwrap()
}

fn index(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

#[test]
fn draws_match_the_vectors() {
    for case in list(&vectors(), "draws") {
        for purpose in Purpose::ALL {
            let got = draw(text(case, "salt"), purpose, text(case, "unit"));
            assert_eq!(format!("{got:016x}"), text(case, purpose.name()), "{case}");
        }
    }
    for case in list(&vectors(), "draws_v1") {
        assert_eq!(
            u64::from(draw_v1(text(case, "unit"))),
            case["value"].as_u64().unwrap(),
            "{case}"
        );
    }
}

#[test]
fn picks_and_admissions_match_the_vectors() {
    for case in list(&vectors(), "picks") {
        let weights: Vec<_> = list(case, "weights")
            .iter()
            .map(|weight| weight.as_u64().unwrap())
            .collect();
        let (table, unit) = (table(&weights), text(case, "unit"));
        assert_eq!(
            table.pick(draw(SALT, Purpose::Variant, unit)),
            index(&case["v2"]),
            "{case}"
        );
        assert_eq!(table.pick_v1(draw_v1(unit)), index(&case["v1"]), "{case}");
    }
    for case in list(&vectors(), "admissions") {
        let units = u32::try_from(case["allocation"].as_u64().unwrap()).unwrap();
        let admitted = Allocation::from_units(units).unwrap().admits(draw(
            SALT,
            Purpose::Allocation,
            text(case, "unit"),
        ));
        assert_eq!(admitted, case["admitted"].as_bool().unwrap(), "{case}");
    }
}

#[test]
fn limits_between_variants_are_exact() {
    let halves = table(&[1, 1]);
    assert_eq!(halves.pick((1 << 63) - 1), 0);
    assert_eq!(halves.pick(1 << 63), 1);
    // A third of 2^64 is no integer: 6148914691236517205 is below it, the next draw above.
    let thirds = table(&[1, 1, 1]);
    assert_eq!(thirds.pick(6_148_914_691_236_517_205), 0);
    assert_eq!(thirds.pick(6_148_914_691_236_517_206), 1);
    assert_eq!(thirds.pick(u64::MAX), 2);
    let weightless = table(&[0, 5, 0, 5, 0]);
    assert_eq!((weightless.pick(0), weightless.pick(u64::MAX)), (1, 3));
    let extreme = table(&[u64::MAX - 1, 1]);
    assert_eq!((extreme.pick(u64::MAX - 2), extreme.pick(u64::MAX)), (0, 1));
}

#[test]
fn version_one_compares_with_at_least() {
    let halves = table(&[500_000, 500_000]);
    assert_eq!(
        (
            halves.pick_v1(0),
            halves.pick_v1(5_000),
            halves.pick_v1(5_001)
        ),
        (0, 0, 1)
    );
    assert_eq!(halves.pick_v1(9_999), 1);
    let leading_zero = table(&[0, 500_000, 500_000]);
    assert_eq!(
        (leading_zero.pick_v1(0), leading_zero.pick_v1(9_999)),
        (1, 2)
    );
}

#[test]
fn variants_are_taken_in_id_order_whatever_the_order_given() {
    let sorted = VariantTable::new(&[(id(1), 30), (id(2), 70)]).unwrap();
    let reversed = VariantTable::new(&[(id(2), 70), (id(1), 30)]).unwrap();
    for unit in 0..1_000 {
        let u = draw(SALT, Purpose::Variant, &format!("u{unit}"));
        assert_eq!(sorted.pick(u), 1 - reversed.pick(u));
    }
}

#[test]
fn a_split_needs_traffic() {
    assert_eq!(VariantTable::new(&[]), Err(VariantTableError::NoTraffic));
    assert_eq!(
        VariantTable::new(&[(id(1), 0)]),
        Err(VariantTableError::NoTraffic)
    );
    let too_much = VariantTable::new(&[(id(1), u64::MAX), (id(2), 1)]);
    assert_eq!(too_much, Err(VariantTableError::TooMuchTraffic));
}

fn counts(weights: &[u64], mut pick: impl FnMut(&VariantTable, &str) -> usize) -> Vec<f64> {
    let table = table(weights);
    let mut counts = vec![0.0; weights.len()];
    for unit in 0..UNITS {
        counts[pick(&table, &format!("u{unit}"))] += 1.0;
    }
    counts
}

/// Goal: a million units split as configured. Method: chi-square at several weight sets, each
/// with another salt.
#[test]
fn a_million_units_split_as_configured() {
    let sets: [&[u64]; 6] = [
        &[500_000, 500_000],
        &[900_000, 100_000],
        &[333_333, 333_333, 333_334],
        &[1, 999],
        &[250_000, 0, 250_000, 500_000],
        &[10, 20, 30, 40, 50, 60, 70, 80, 90, 100],
    ];
    for (number, weights) in sets.iter().enumerate() {
        let salt = format!("split {number}");
        let counts = counts(weights, |table, unit| {
            table.pick(draw(&salt, Purpose::Variant, unit))
        });
        let weights: Vec<f64> = weights.iter().map(|weight| *weight as f64).collect();
        let test = srm::chi_square(&counts, &weights, CHANCE).unwrap();
        assert!(!test.mismatch, "{weights:?}: {counts:?}, p = {}", test.p);
    }
}

/// Version 1 gives the first variant one ten-thousandth more, so that is what is expected of it.
#[test]
fn a_million_units_split_as_the_earlier_system_did() {
    let counts = counts(&[500_000, 500_000], |table, unit| {
        table.pick_v1(draw_v1(unit))
    });
    let test = srm::chi_square(&counts, &[5_001.0, 4_999.0], CHANCE).unwrap();
    assert!(!test.mismatch, "{counts:?}, p = {}", test.p);
}

/// Pearson's chi-square for independence of two two-way splits, over a million units.
fn independence_p(
    mut first: impl FnMut(&str) -> usize,
    mut second: impl FnMut(&str) -> usize,
) -> f64 {
    let mut cells = [[0.0_f64; 2]; 2];
    for unit in 0..UNITS {
        let unit = format!("u{unit}");
        cells[first(&unit)][second(&unit)] += 1.0;
    }
    let rows = cells.map(|row| row[0] + row[1]);
    let columns = [cells[0][0] + cells[1][0], cells[0][1] + cells[1][1]];
    let excess = cells[0][0] * cells[1][1] - cells[0][1] * cells[1][0];
    let scale = (rows[0] / 1e6) * (rows[1] / 1e6) * (columns[0] / 1e6) * (columns[1] / 1e6);
    let chi2 = (excess / 1e12).powi(2) / scale * f64::from(UNITS);
    podium_domain::stats::special::chi2_sf(chi2, 1.0)
}

#[test]
fn two_experiments_and_two_purposes_are_independent() {
    let halves = table(&[1, 1]);
    let pick = |salt: &'static str, purpose: Purpose| {
        let halves = halves.clone();
        move |unit: &str| halves.pick(draw(salt, purpose, unit))
    };
    let experiments = independence_p(pick("one", Purpose::Variant), pick("two", Purpose::Variant));
    assert!(experiments > CHANCE, "experiments: p = {experiments}");
    for (first, second) in [
        (Purpose::Allocation, Purpose::Variant),
        (Purpose::Variant, Purpose::Holdback),
        (Purpose::Holdback, Purpose::Rollout),
        (Purpose::Variant, Purpose::BanditControl),
    ] {
        let p = independence_p(pick("one", first), pick("one", second));
        assert!(p > CHANCE, "{first:?} and {second:?}: p = {p}");
    }
}

/// The fault of version 1 that version 2 was made for: it shows in the same test.
#[test]
fn version_one_correlates_experiments_and_version_two_does_not() {
    let experiment = |salt: &str, version| Bucketing {
        salt: salt.to_owned(),
        version,
        allocation: Allocation::FULL,
        split: table(&[1, 1]),
    };
    let p = |version| {
        let (one, two) = (experiment("one", version), experiment("two", version));
        independence_p(|unit| one.variant(unit), |unit| two.variant(unit))
    };
    assert!(p(HashVersion::V1) < 1e-100);
    assert!(p(HashVersion::V2) > CHANCE);
}

#[test]
fn raising_the_allocation_never_throws_anyone_out() {
    let shares = [0, 1, 999, 50_000, 333_333, 500_000, 999_999, 1_000_000];
    let shares = shares.map(|units| Allocation::from_units(units).unwrap());
    for unit in 0..100_000 {
        let u = draw(SALT, Purpose::Allocation, &format!("u{unit}"));
        let admitted = shares.map(|share| share.admits(u));
        assert!(admitted.is_sorted(), "u{unit}: {admitted:?}");
        assert!(!admitted[0] && admitted[7]);
    }
}

#[test]
fn the_allocation_lets_in_its_share() {
    let share = Allocation::from_units(123_456).unwrap();
    let admitted = (0..UNITS)
        .filter(|unit| share.admits(draw(SALT, Purpose::Allocation, &format!("u{unit}"))))
        .count();
    let admitted = admitted as f64;
    let test = srm::chi_square(
        &[admitted, f64::from(UNITS) - admitted],
        &[123_456.0, 876_544.0],
        CHANCE,
    )
    .unwrap();
    assert!(!test.mismatch, "{admitted}, p = {}", test.p);
}

#[test]
fn shares_are_percents_from_0_to_100() {
    use podium_domain::decimal::Decimal4;
    let share = |text: &str| Allocation::from_percent(Decimal4::parse(text).unwrap());
    assert_eq!(share("100"), Some(Allocation::FULL));
    assert_eq!(share("0"), Some(Allocation::NONE));
    assert_eq!(share("12.3456").map(Allocation::units), Some(123_456));
    assert_eq!(share("100.0001"), None);
    assert_eq!(share("-0.0001"), None);
    assert_eq!(
        Allocation::from_units(123_456)
            .unwrap()
            .percent()
            .to_string(),
        "12.3456"
    );
}

#[test]
fn units_outside_the_allocation_get_nothing() {
    let experiment = |allocation| Bucketing {
        salt: SALT.to_owned(),
        version: HashVersion::V2,
        allocation,
        split: table(&[1, 1]),
    };
    let (half, full) = (
        experiment(Allocation::from_units(500_000).unwrap()),
        experiment(Allocation::FULL),
    );
    for unit in (0..1_000).map(|unit| format!("u{unit}")) {
        assert_eq!(
            half.place(&unit),
            half.takes_part(&unit).then(|| full.variant(&unit))
        );
        assert_eq!(full.place(&unit), Some(full.variant(&unit)));
    }
}

#[test]
fn hash_versions_have_numbers() {
    for version in [HashVersion::V1, HashVersion::V2] {
        assert_eq!(
            HashVersion::from_number(version.number().into()),
            Some(version)
        );
    }
    assert_eq!(HashVersion::from_number(0), None);
    assert_eq!(HashVersion::from_number(3), None);
}

/// The rule as it is written down, in wide integers.
fn picked_by_definition(weights: &[u64], u: u64) -> usize {
    let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let mut cumulative = 0_u128;
    let takes = |weight: &u64| {
        cumulative += u128::from(*weight);
        u128::from(u) * total < cumulative << 64
    };
    weights.iter().position(takes).unwrap()
}

proptest! {
    #[test]
    fn picking_is_the_written_rule(
        weights in proptest::collection::vec(0_u64..=100_000_000, 1..12),
        u: u64,
    ) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let got = table(&weights).pick(u);
        prop_assert_eq!(got, picked_by_definition(&weights, u));
        prop_assert!(weights[got] > 0);
    }

    #[test]
    fn limits_are_the_written_rule_at_every_border(
        weights in proptest::collection::vec(1_u64..=100_000_000, 2..6),
        border in 0_usize..5,
        offset in -2_i64..=2,
    ) {
        let border = border % (weights.len() - 1);
        let total: u64 = weights.iter().sum();
        let cumulative: u64 = weights[..=border].iter().sum();
        let limit = u64::try_from((u128::from(cumulative) << 64) / u128::from(total)).unwrap();
        let u = limit.wrapping_add_signed(offset);
        prop_assert_eq!(table(&weights).pick(u), picked_by_definition(&weights, u));
    }

    #[test]
    fn the_allocation_is_the_written_rule(units in 0_u32..=1_000_000, u: u64) {
        let share = Allocation::from_units(units).unwrap();
        prop_assert_eq!(share.admits(u), u128::from(u) * 1_000_000 < u128::from(units) << 64);
    }

    #[test]
    fn version_one_never_picks_weight_zero(
        weights in proptest::collection::vec(0_u64..=3, 1..8),
        value in 0_u32..10_000,
    ) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        prop_assert!(weights[table(&weights).pick_v1(value)] > 0);
    }
}
