//! Caps of values and the sums under them, against sums by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use podium_domain::metric::{Metric, UnitTotal};
use podium_domain::moments::MetricMoments;
use podium_domain::stats::winsorize::winsorize;
use podium_storage::analytics::capped::{self, CappedMoments, CappedTotal};
use podium_storage::fold;
use podium_storage::winsorize::{Refreshed, refresh};

use crate::support::{Rng, TestDatabase, with_database};

const NOW: Duration = Duration::ZERO;
const LATER: Duration = Duration::from_secs(300);
const SUMS: &str =
    "SELECT jsonb_agg(to_jsonb(m) ORDER BY total, variant_id, epoch)::text FROM capped_moments m";

async fn experiment(db: &TestDatabase, id: i64, status: &str, design: &str) {
    db.execute(&format!(
        "INSERT INTO experiments (id, name, salt, status, design) VALUES ({id}, 'e{id}', 'e{id}', '{status}', '{design}');
         INSERT INTO variant_moments (experiment_id, variant_id, epoch, sum_purchase_value) VALUES ({id}, 10, 1, 1)"
    ))
    .await;
}

/// A unit's totals; values in 1/10,000.
#[derive(Clone, Copy, Debug)]
struct Unit {
    variant: i64,
    epoch: i32,
    excluded: bool,
    value: i64,
    engagement: i64,
    sessions: i64,
    purchases: i64,
}

fn random_unit(rng: &mut Rng) -> Unit {
    let below = |rng: &mut Rng, n: u64| i64::try_from(rng.below(n)).unwrap();
    let excluded = rng.once_in(10);
    let buys = rng.once_in(3);
    // A tail of a few units that hold most of the sum; excluded ones hold even more.
    let tail = if rng.once_in(40) { 1_000 } else { 1 } * if excluded { 1_000 } else { 1 };
    Unit {
        variant: *rng.pick(&[10, 11, 12]),
        epoch: *rng.pick(&[1, 2]),
        excluded,
        value: i64::from(buys) * (1 + below(rng, 1_000_000)) * tail,
        engagement: below(rng, 90_000),
        sessions: 1 + below(rng, 5),
        purchases: i64::from(buys) * (1 + below(rng, 3)),
    }
}

async fn store(db: &TestDatabase, id: i64, units: &[Unit]) {
    let row = |(n, unit): (usize, &Unit)| {
        format!(
            "({id}, 'u{n}', {}, {}, 0, {}, {}::numeric / 10000, {}::numeric / 10000, {}, {})",
            unit.variant,
            unit.epoch,
            unit.excluded,
            unit.value,
            unit.engagement,
            unit.sessions,
            unit.purchases
        )
    };
    let rows: Vec<String> = units.iter().enumerate().map(row).collect();
    db.execute(&format!(
        "INSERT INTO unit_totals (experiment_id, unit, variant_id, epoch, source, excluded, purchase_value, engagement,
             sessions, purchases) VALUES {}",
        rows.join(", ")
    ))
    .await;
}

async fn refreshed(db: &TestDatabase, max_age: Duration) -> usize {
    let done = refresh(&db.database, max_age).await.unwrap();
    let expected = Refreshed {
        experiments: done.experiments,
        ..Refreshed::default()
    };
    assert_eq!(done, expected);
    done.experiments
}

async fn read(db: &TestDatabase, id: i64, upper: f64) -> Vec<CappedTotal> {
    let mut link = db.database.report().await.unwrap();
    capped::now(&mut link, id, upper).await.unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "totals stay far below 2^53")]
fn as_value(units: i64) -> f64 {
    units as f64 / 10_000.0
}

/// The cap by the library, over all units that count.
fn cap_by_hand(totals: &[i64], upper: f64) -> f64 {
    let quantile = |of: &[i64], at: f64| {
        let values: Vec<f64> = of.iter().map(|total| as_value(*total)).collect();
        let (a, b) = values.split_at(values.len() / 2);
        winsorize(a, b, None, Some(at))
            .unwrap()
            .caps
            .upper()
            .unwrap()
    };
    let above_zero: Vec<i64> = totals.iter().copied().filter(|total| *total > 0).collect();
    quantile(totals, upper).max(quantile(&above_zero, 0.5))
}

/// Units, units above zero, then total, its square, sessions, their square, the product, and the last three for purchases.
type Sums = [i128; 10];

fn sums_by_hand(units: &[Unit], cap: i64, total: fn(&Unit) -> i64) -> BTreeMap<(i64, i32), Sums> {
    let mut sums: BTreeMap<(i64, i32), Sums> = BTreeMap::new();
    for unit in units.iter().filter(|unit| !unit.excluded) {
        let capped = i128::from(total(unit).min(cap));
        let (sessions, purchases) = (i128::from(unit.sessions), i128::from(unit.purchases));
        let of = [
            1,
            i128::from(capped > 0),
            capped,
            capped * capped,
            sessions,
            sessions * sessions,
            capped * sessions,
            purchases,
            purchases * purchases,
            capped * purchases,
        ];
        let into = sums.entry((unit.variant, unit.epoch)).or_default();
        into.iter_mut().zip(of).for_each(|(sum, of)| *sum += of);
    }
    sums
}

fn sums_of(part: &CappedMoments, of: UnitTotal) -> Sums {
    let moments = &part.moments;
    let by = |denominator| {
        let ratio = moments.ratio(of, denominator);
        [ratio.sum_x, ratio.sum_xx, ratio.sum_xy].map(|sum| i128::try_from(sum).unwrap())
    };
    let mean = moments.mean(of);
    let [sessions, sessions_sq, sessions_x] = by(UnitTotal::Sessions);
    let [purchases, purchases_sq, purchases_x] = by(UnitTotal::Purchases);
    [
        moments.units.into(),
        moments.units_above_zero[&of].into(),
        mean.sum.try_into().unwrap(),
        mean.sum_sq.try_into().unwrap(),
        sessions,
        sessions_sq,
        sessions_x,
        purchases,
        purchases_sq,
        purchases_x,
    ]
}

fn check(found: &CappedTotal, units: &[Unit], upper: f64, total: fn(&Unit) -> i64) {
    let counted = units.iter().filter(|unit| !unit.excluded);
    let totals: Vec<i64> = counted.map(total).collect();
    let cap = cap_by_hand(&totals, upper);
    assert!(
        (found.cap - cap).abs() <= 0.000_05 + 1e-9 * cap,
        "{} instead of {cap}",
        found.cap
    );
    #[expect(clippy::cast_possible_truncation, reason = "caps stay far below 2^53")]
    let cap = (found.cap * 10_000.0).round() as i64;
    let by_hand = sums_by_hand(units, cap, total);
    let read: BTreeMap<(i64, i32), Sums> = found
        .parts
        .iter()
        .map(|part| ((part.variant_id, part.epoch), sums_of(part, found.total)))
        .collect();
    assert_eq!(read, by_hand);
}

#[test]
fn caps_and_sums_are_those_of_the_units_that_count() {
    with_database(async |db| {
        let mut rng = Rng(25);
        for (id, upper) in [(1, 0.99), (2, 0.9), (3, 0.995), (4, 0.75)] {
            let design = format!(r#"{{"winsorizeUpper": {upper}}}"#);
            experiment(db, id, "running", &design).await;
            let count = 200 + rng.below(800);
            let units: Vec<Unit> = (0..count).map(|_| random_unit(&mut rng)).collect();
            store(db, id, &units).await;
            assert_eq!(refreshed(db, LATER).await, 1);
            let found = read(db, id, upper).await;
            let totals: Vec<UnitTotal> = found.iter().map(|total| total.total).collect();
            assert_eq!(
                totals,
                [UnitTotal::EngagementValue, UnitTotal::PurchaseValue]
            );
            check(&found[0], &units, upper, |unit| unit.engagement);
            check(&found[1], &units, upper, |unit| unit.value);
            for metric in Metric::ALL.iter().filter(|metric| metric.is_value()) {
                let of = usize::from(*metric != Metric::Engagement);
                let moments = &found[of].parts[0].moments;
                match moments.of_metric(*metric).unwrap().unwrap() {
                    MetricMoments::Mean(mean) => assert!(mean.summary().unwrap().mean() > 0.0),
                    MetricMoments::Ratio(ratio) => assert!(ratio.summary().unwrap().ratio() > 0.0),
                    MetricMoments::Proportion(_) => panic!("{metric:?} is a value"),
                }
            }
        }
    });
}

/// Where one unit in a hundred buys, a quantile of all units is zero.
#[test]
fn a_cap_is_not_below_the_median_of_what_is_above_zero() {
    with_database(async |db| {
        experiment(db, 1, "paused", "{}").await;
        let unit = |value: i64| Unit {
            variant: 10,
            epoch: 1,
            excluded: false,
            value: value * 10_000,
            engagement: 0,
            sessions: 1,
            purchases: value.min(1),
        };
        let units: Vec<Unit> = (0..996)
            .map(|_| 0)
            .chain([1, 2, 3, 400])
            .map(unit)
            .collect();
        store(db, 1, &units).await;
        assert_eq!(refreshed(db, NOW).await, 1);
        let found = read(db, 1, 0.99).await;
        assert_eq!(found.len(), 1, "nobody engaged");
        assert_eq!((found[0].upper, found[0].cap), (0.99, 2.5));
        let mean = found[0].parts[0].moments.mean(UnitTotal::PurchaseValue);
        assert_eq!((mean.n, mean.sum.to_string()), (1_000, "80000".into()));
    });
}

#[test]
fn nothing_is_computed_twice_and_nothing_that_is_switched_off() {
    with_database(async |db| {
        let mut rng = Rng(7);
        for (id, status, design) in [
            (1, "running", "{}"),
            (2, "running", r#"{"winsorizeUpper": null}"#),
            (3, "draft", "{}"),
        ] {
            experiment(db, id, status, design).await;
            let units: Vec<Unit> = (0..100).map(|_| random_unit(&mut rng)).collect();
            store(db, id, &units).await;
        }
        assert_eq!(refreshed(db, LATER).await, 1);
        let first = db.text(SUMS).await;
        assert_eq!(refreshed(db, LATER).await, 0, "the caps are young");
        assert_eq!(refreshed(db, NOW).await, 1);
        assert_eq!(db.text(SUMS).await, first);
        let of = "SELECT string_agg(DISTINCT experiment_id::text, ' ') FROM capped_moments";
        assert_eq!(db.text(of).await, "1");
        assert!(read(db, 1, 0.95).await.is_empty(), "for another quantile");

        db.execute(r#"UPDATE experiments SET design = '{"winsorizeUpper": 0.95}' WHERE id = 1"#)
            .await;
        assert_eq!(
            refreshed(db, LATER).await,
            1,
            "another quantile is asked for"
        );
        assert_eq!(read(db, 1, 0.95).await.len(), 2);
        assert!(read(db, 1, 0.99).await.is_empty());
        db.execute("UPDATE unit_totals SET excluded = true WHERE experiment_id = 1")
            .await;
        assert_eq!(refreshed(db, NOW).await, 1);
        assert!(
            read(db, 1, 0.95).await.is_empty(),
            "no unit counts any more"
        );
    });
}

#[test]
fn a_completed_experiment_is_computed_once_more() {
    with_database(async |db| {
        experiment(db, 1, "running", "{}").await;
        let mut rng = Rng(3);
        let units: Vec<Unit> = (0..100).map(|_| random_unit(&mut rng)).collect();
        store(db, 1, &units).await;
        assert_eq!(refreshed(db, LATER).await, 1);
        db.execute("UPDATE experiments SET status = 'completed', end_date = now()")
            .await;
        assert_eq!(refreshed(db, NOW).await, 0, "the end is not folded yet");
        fold::fold_once(&db.database).await.unwrap();
        db.execute("UPDATE fold_state SET folded_at = now()").await;
        assert_eq!(refreshed(db, LATER).await, 1);
        assert_eq!(refreshed(db, NOW).await, 0);
    });
}

/// Another replica holds the lock: this one leaves it alone.
#[test]
fn one_replica_computes_at_a_time() {
    with_database(async |db| {
        experiment(db, 1, "running", "{}").await;
        store(db, 1, &[random_unit(&mut Rng(1)); 1]).await;
        let other = db.client().await;
        let lock = "SELECT pg_advisory_lock(8101804658767233027)";
        other.batch_execute(lock).await.unwrap();
        let done = refresh(&db.database, NOW).await.unwrap();
        assert_eq!((done.experiments, done.busy), (0, true));
        assert_eq!(db.text(SUMS).await, "");
    });
}

/// What a recount corrects is computed again; what it leaves alone stays.
#[test]
fn a_correction_of_totals_forgets_their_caps() {
    with_database(async |db| {
        experiment(db, 1, "running", "{}").await;
        experiment(db, 2, "running", "{}").await;
        for id in [1, 2] {
            db.execute(&format!(
                "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES ('u', {id}, 10);
                 INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, value)
                 VALUES ('{id}', 'u', {id}, 10, 'purchase', 5)"
            ))
            .await;
        }
        db.fold_all().await;
        assert_eq!(refreshed(db, LATER).await, 2);
        db.execute("UPDATE unit_totals SET purchase_value = 7 WHERE experiment_id = 1")
            .await;
        db.recount(true).await;
        assert!(read(db, 1, 0.99).await.is_empty());
        assert_eq!(read(db, 2, 0.99).await.len(), 1);
        assert_eq!(db.text("SELECT count(*) FROM capped_moments").await, "1");
        assert_eq!(refreshed(db, LATER).await, 1);
    });
}
