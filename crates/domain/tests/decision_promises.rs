//! Seeded simulations of the decision rule: it promotes what is no better at most as often as it
//! promises, and what is better it finds. The example `promotion_rates` does the same at length.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

use chrono::{DateTime, TimeDelta, Utc};
use podium_domain::decision::design::{DesignInput, DesignSettings, FrozenDesign};
use podium_domain::decision::evidence::{ArmSummary, Stratum};
use podium_domain::decision::look::{Analysis, Answer, Look, Snapshot, due, spent, take};
use podium_domain::decision::sequential::Crossing;
use podium_domain::decision::verdict::{Gates, judge};
use podium_domain::metric::Metric;
use podium_domain::stats::proportion::Proportion;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

const RUNS: u64 = 600;
const DAYS: i64 = 14;
const UNITS: i64 = 400;
const RATE: f64 = 0.1;
const CONFIDENCE: f64 = 95.0;
const ALPHA: f64 = 0.05;

fn analysis() -> Analysis {
    let design = FrozenDesign::new(DesignInput {
        metric: Metric::ConversionRate,
        winsorize_upper: None,
        cap: None,
        treatments: 1,
        settings: DesignSettings {
            min_detectable_effect: Some(0.2),
            horizon_days: None,
            look_every_hours: 24,
        },
        min_sample_size: 1,
        min_runtime_hours: 24.0,
        min_improvement: 0.0,
    });
    Analysis {
        start: DateTime::UNIX_EPOCH,
        unspent: 1.0,
        design: design.unwrap(),
    }
}

/// The evidence after each day. The weights change from 80/20 to 20/80 after day 4, and with them
/// the rate rises by half for both arms.
fn experiment(seed: u64, lift: f64) -> Vec<Vec<Stratum>> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut draw = |units: i64, rate: f64| {
        let converted = (0..units).filter(|_| random.random::<f64>() < rate).count();
        i64::try_from(converted).unwrap()
    };
    let mut counts = [[0_i64; 4]; 2];
    let mut days = Vec::new();
    for day in 0..DAYS {
        let epoch = usize::from(day >= 4);
        let (share, rate) = [(0.2, RATE), (0.8, 1.5 * RATE)][epoch];
        let treated = if epoch == 0 {
            UNITS / 5
        } else {
            UNITS - UNITS / 5
        };
        let control = UNITS - treated;
        let add = [
            draw(control, rate),
            control,
            draw(treated, rate * (1.0 + lift)),
            treated,
        ];
        for (sum, add) in counts[epoch].iter_mut().zip(add) {
            *sum += add;
        }
        let arm = |x, n| ArmSummary::proportion(Proportion::new(x, n).unwrap());
        let strata = counts[..=epoch].iter().map(|[x_a, n_a, x_b, n_b]| Stratum {
            control: arm(*x_a, *n_a),
            treatment: arm(*x_b, *n_b),
            treatment_share: share,
        });
        days.push(strata.collect());
    }
    days
}

fn snapshot(day: usize, strata: &[Stratum]) -> Snapshot<'_> {
    let days = i64::try_from(day).unwrap() + 1;
    Snapshot {
        now: at(days),
        strata,
        min_confidence: CONFIDENCE,
    }
}

fn at(days: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(days)
}

/// The day of the first look that reaches its bound.
fn crossing_day(experiment: &[Vec<Stratum>]) -> Option<usize> {
    let analysis = analysis();
    let mut crossing = Crossing::new(analysis.level(CONFIDENCE));
    let mut record: Vec<Look> = Vec::new();
    experiment.iter().enumerate().position(|(day, strata)| {
        let Answer::Taken(new) = due(&analysis, &record, &snapshot(day, strata)).unwrap() else {
            return false;
        };
        let looks = spent(&analysis, &record, &new).unwrap();
        let z = new.last().and_then(|look| look.z).unwrap();
        record.extend(new);
        crossing.reaches(&looks, z).unwrap()
    })
}

/// The day on which confidence first suffices, by the path of the engine.
fn confident_day(experiment: &[Vec<Stratum>]) -> Option<usize> {
    let analysis = analysis();
    let gates = Gates {
        min_confidence: CONFIDENCE,
        min_improvement: 0.0,
    };
    let mut record: Vec<Look> = Vec::new();
    experiment.iter().enumerate().position(|(day, strata)| {
        if let Answer::Taken(new) = take(&analysis, &record, &snapshot(day, strata)).unwrap() {
            record.extend(new);
        }
        let standing = judge(&analysis, &record, gates);
        let confidence = standing.confidence.measured.unwrap_or(0.0);
        assert_eq!(
            standing.confidence.met,
            confidence >= CONFIDENCE,
            "{standing:?}"
        );
        standing.confidence.met
    })
}

#[test]
fn what_is_no_better_is_promoted_at_most_as_often_as_promised() {
    let promoted = (0..RUNS).filter(|seed| crossing_day(&experiment(*seed, 0.0)).is_some());
    let share = promoted.count() as f64 / RUNS as f64;
    let error = (ALPHA * (1.0 - ALPHA) / RUNS as f64).sqrt();
    assert!(share <= ALPHA + 3.0 * error, "{share}");
    assert!(share > 0.01, "{share}");
}

#[test]
fn what_is_better_is_found() {
    let found = (0..60).filter(|seed| crossing_day(&experiment(1_000 + seed, 0.4)).is_some());
    let found = found.count();
    assert!(found > 45, "{found} of 60");
}

#[test]
fn confidence_suffices_exactly_when_a_bound_is_reached() {
    let mut days = Vec::new();
    for seed in 2_000..2_004 {
        let experiment = experiment(seed, 0.25);
        let day = crossing_day(&experiment);
        assert_eq!(confident_day(&experiment), day, "seed {seed}");
        days.push(day);
    }
    assert!(days.iter().any(Option::is_some), "{days:?}");
}
