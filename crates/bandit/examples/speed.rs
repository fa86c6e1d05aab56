//! Measures choices, updates and comparisons, one thread: nanoseconds, and multiples of one draw
//! of `rand_distr::Beta`, which tell more than nanoseconds of an unknown machine.
//!
//! ```text
//! cargo run --release -p podium-bandit --example speed
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a measurement with fixed input"
)]

use std::hint::black_box;
use std::time::Instant;

use podium_bandit::best::best_arm;
use podium_bandit::index::Index;
use podium_bandit::policy::Epsilon;
use podium_bandit::{Arms, Counts, Policy, Prior, Snapshot, Weighting};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Beta, Distribution};

/// Repeats until a tenth of a second is measured, three times; the best time of a call.
fn time(mut call: impl FnMut()) -> f64 {
    let mut repeats = 1_u32;
    let measure = |repeats: u32, call: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..repeats {
            call();
        }
        start.elapsed().as_secs_f64()
    };
    while measure(repeats, &mut call) < 0.05 {
        repeats *= 2;
    }
    let best = (0..3)
        .map(|_| measure(repeats, &mut call))
        .fold(f64::INFINITY, f64::min);
    1e9 * best / f64::from(repeats)
}

fn arms(k: u64, rng: &mut impl Rng) -> Arms {
    let counts: Vec<_> = (0..k)
        .map(|_| {
            let plays = rng.random_range(500..20_000);
            let rate = rng.random_range(0.01..0.05);
            let successes = (0..plays).filter(|_| rng.random::<f64>() < rate).count();
            Counts::new(plays, u64::try_from(successes).unwrap()).unwrap()
        })
        .collect();
    Arms::from_counts(Prior::site(Some(0.03)), &counts)
}

fn main() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let distribution = Beta::new(30.0, 970.0).unwrap();
    let yardstick = time(|| {
        black_box(distribution.sample(&mut rng));
    });
    println!("one draw of rand_distr::Beta(30, 970): {yardstick:.1} ns");
    let show = |name: &str, nanoseconds: f64| {
        println!(
            "  {name:<22} {nanoseconds:>12.1} ns {:>10.2}",
            nanoseconds / yardstick
        );
    };
    for k in [10, 80, 1_000] {
        let mut arms = arms(k, &mut rng);
        println!("K = {k}");
        let snapshot = Snapshot::of_rates(1, Weighting::default(), arms.clone()).unwrap();
        show(
            "cached weights",
            time(|| {
                black_box(snapshot.draw(&mut rng));
            }),
        );
        for (name, policy) in [
            ("epsilon_greedy", Policy::EpsilonGreedy(Epsilon::Fixed(0.1))),
            ("ucb1", Policy::Index(Index::Ucb1 { c: 1.0 })),
            ("ucb1_tuned", Policy::Index(Index::Ucb1Tuned)),
            ("imed", Policy::Index(Index::Imed)),
            ("kl_ucb", Policy::Index(Index::KlUcb { c: 0.0 })),
            ("default", Policy::Lean),
            ("thompson", Policy::Thompson),
            ("top_two_thompson", Policy::TopTwoThompson { beta: 0.5 }),
        ] {
            show(
                name,
                time(|| {
                    black_box(policy.choose(black_box(&arms), &mut rng).unwrap());
                }),
            );
        }
        let mut turn = 0;
        let length = arms.len();
        show(
            "update",
            time(|| {
                arms.record(turn, turn.is_multiple_of(30)).unwrap();
                turn = (turn + 1) % length;
            }),
        );
        let posteriors = arms.posteriors();
        show(
            "probability best",
            time(|| {
                black_box(best_arm(&posteriors).unwrap());
            }),
        );
        show(
            "weights of default",
            time(|| {
                black_box(Policy::Lean.probabilities(&arms).unwrap());
            }),
        );
        let candidates: Vec<usize> = (0..length).collect();
        show(
            "rank by weights",
            time(|| {
                black_box(snapshot.rank(&candidates, &mut rng).unwrap());
            }),
        );
    }
}
