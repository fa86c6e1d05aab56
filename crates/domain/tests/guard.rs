//! The guard's promise: looked at after every converter, it rarely takes back a winner that is not worse.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

use podium_domain::guard::{ROLL_BACK, StepConverters, conversion_evidence};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Largest evidence over a watch of two steps, looked at after each converter.
fn largest(rng: &mut StdRng, converters: i64, drop: f64) -> f64 {
    let mut steps: Vec<StepConverters> = Vec::new();
    let mut most = f64::NEG_INFINITY;
    for held_back_share in [0.3, 0.1] {
        steps.push(StepConverters {
            moved: 0,
            held_back: 0,
            held_back_share,
        });
        // Where the winner loses a part of its converters, more of those that are left are held back.
        let left = (1.0 - held_back_share) * (1.0 - drop);
        let held_back = held_back_share / (held_back_share + left);
        for _ in 0..converters {
            if let Some(step) = steps.last_mut() {
                if rng.random::<f64>() < held_back {
                    step.held_back += 1;
                } else {
                    step.moved += 1;
                }
            }
            most = most.max(conversion_evidence(&steps).unwrap());
        }
    }
    most
}

#[test]
fn false_alarms_are_rare_and_a_collapse_is_found() {
    // Seeded: the bound of Ville's inequality is 1 in 100, so 400 watches alarm 4 times at most on average.
    let mut rng = StdRng::seed_from_u64(20_260_101);
    let mut alarms = |runs: usize, converters, drop| {
        (0..runs)
            .filter(|_| largest(&mut rng, converters, drop) >= ROLL_BACK.ln())
            .count()
    };
    let (even, better, collapsed) = (
        alarms(300, 60, 0.0),
        alarms(60, 60, -0.2),
        alarms(30, 300, 0.6),
    );
    assert!(even <= 6, "{even} false alarms in 300 watches");
    assert!(
        better <= 1,
        "{better} false alarms in 60 watches of a better winner"
    );
    assert!(collapsed >= 27, "{collapsed} of 30 collapses found");
}
