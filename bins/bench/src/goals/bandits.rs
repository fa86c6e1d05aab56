//! Beyond the numbered goals: what choices of bandits cost, one thread. No server takes part. The yardstick is one draw of
//! `rand_distr::Beta`.

use std::hint::black_box;
use std::time::Instant;

use podium_bandit::best::best_arm;
use podium_bandit::index::Index;
use podium_bandit::policy::Epsilon;
use podium_bandit::{Arms, BanditError, Counts, Policy, Prior, Snapshot, Weighting};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Beta, Distribution};

use crate::error::BenchError;
use crate::figures::{Bar, Line, Lines};
use crate::lab::Lab;

/// How long one reading of the clock lasts at least, in seconds.
const STRETCH: f64 = 0.02;

/// Nanoseconds of one call.
fn nanos(mut call: impl FnMut()) -> f64 {
    let mut calls = 1_u32;
    loop {
        let started = Instant::now();
        for _ in 0..calls {
            call();
        }
        let seconds = started.elapsed().as_secs_f64();
        if seconds >= STRETCH || calls >= 1 << 28 {
            return 1e9 * seconds / f64::from(calls);
        }
        calls *= 2;
    }
}

/// Arms with click rates of 1 to 5 %.
fn arms(count: usize, rng: &mut impl Rng) -> Result<Arms, BanditError> {
    let mut counts = Vec::with_capacity(count);
    for _ in 0..count {
        let plays = rng.random_range(500..20_000_u64);
        counts.push(Counts::new(
            plays,
            plays * rng.random_range(10..50_u64) / 1_000,
        )?);
    }
    Ok(Arms::from_counts(Prior::site(Some(0.03)), &counts))
}

/// Policies with the most nanoseconds that a choice among ten may take.
fn policies() -> [(&'static str, Policy, Bar); 8] {
    [
        (
            "epsilon_greedy",
            Policy::EpsilonGreedy(Epsilon::Fixed(0.1)),
            Bar::AtMost(60.0),
        ),
        (
            "ucb1",
            Policy::Index(Index::Ucb1 { c: 1.0 }),
            Bar::AtMost(100.0),
        ),
        ("ucb1_tuned", Policy::Index(Index::Ucb1Tuned), Bar::Told),
        ("imed", Policy::Index(Index::Imed), Bar::AtMost(200.0)),
        ("kl_ucb", Policy::Index(Index::KlUcb { c: 0.0 }), Bar::Told),
        ("lean", Policy::Lean, Bar::Told),
        ("thompson", Policy::Thompson, Bar::AtMost(700.0)),
        (
            "top_two_thompson",
            Policy::TopTwoThompson { beta: 0.5 },
            Bar::Told,
        ),
    ]
}

/// Choice and update of every policy, and the probability of being best, among 10, 80 and 1,000 arms.
///
/// # Errors
/// [`BenchError::Invalid`] for evidence that no policy reads, which would be a fault of this module.
pub(crate) async fn measure(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let mut lines = Lines::of(14);
    let broken = |error: BanditError| BenchError::Invalid(error.to_string());
    for count in [10, 80, 1_000] {
        among(&mut lines, count, lab.plan.pairs).map_err(broken)?;
    }
    Ok(lines.done())
}

fn among(lines: &mut Lines, count: usize, pairs: usize) -> Result<(), BanditError> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut arms = arms(count, &mut rng)?;
    // The targets are for ten arms; the most for the probability of being best, in nanoseconds, by number of arms.
    let at_ten = |bar: Bar| if count == 10 { bar } else { Bar::Told };
    let best = match count {
        10 => Bar::AtMost(200_000.0),
        80 => Bar::AtMost(5_000_000.0),
        _ => Bar::Told,
    };
    let snapshot = Snapshot::of_rates(1, Weighting::default(), arms.clone())?;
    let mut add = |what: &str, bar: Bar, times: Vec<f64>| {
        lines.add(format!("K = {count}: {what}"), "ns", bar, times);
    };
    let draws = (0..pairs).map(|_| nanos(|| _ = black_box(snapshot.draw(&mut rng))));
    add("cached weights", at_ten(Bar::AtMost(50.0)), draws.collect());
    for (name, policy, bar) in policies() {
        let choice = |_| nanos(|| _ = black_box(policy.choose(black_box(&arms), &mut rng)));
        add(
            &format!("choice of {name}"),
            at_ten(bar),
            (0..pairs).map(choice).collect(),
        );
    }
    let posteriors = arms.posteriors();
    let compare = |_| nanos(|| _ = black_box(best_arm(&posteriors)));
    add("probability best", best, (0..pairs).map(compare).collect());
    let mut turn = 0;
    let update = |_| {
        nanos(|| {
            _ = black_box(arms.record(turn, turn.is_multiple_of(30)));
            turn = (turn + 1) % count;
        })
    };
    add(
        "update",
        at_ten(Bar::AtMost(100.0)),
        (0..pairs).map(update).collect(),
    );
    if let Ok(beta) = Beta::new(30.0, 970.0) {
        let draw = |_| nanos(|| _ = black_box(beta.sample(&mut rng)));
        add(
            "yardstick: one draw of rand_distr::Beta",
            Bar::Told,
            (0..pairs).map(draw).collect(),
        );
    }
    Ok(())
}
