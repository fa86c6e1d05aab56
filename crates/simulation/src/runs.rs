//! Many runs on several threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::Sample;

/// Calls `run` with the draws of each of `runs` runs, on `threads` threads (at least one), and answers in the order of
/// the runs. Every run has a seed of its own, made of `seed` and its number, so that threads change nothing and a run can
/// be repeated alone. `done` is called after each run, from any thread.
pub fn simulate<T: Send>(
    runs: u32,
    seed: u64,
    threads: usize,
    run: impl Fn(&mut Sample) -> T + Sync,
    done: impl Fn() + Sync,
) -> Vec<T> {
    let next = AtomicU32::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                return found;
            }
            found.push((number, run(&mut Sample::of_run(seed, number))));
            done();
        }
    };
    let mut found = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut found = work();
        for other in others {
            match other.join() {
                Ok(more) => found.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    });
    found.sort_unstable_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_change_nothing() {
        let draw = |sample: &mut Sample| sample.uniform().to_bits();
        let alone = simulate(100, 7, 1, draw, || {});
        assert_eq!(simulate(100, 7, 3, draw, || {}), alone);
        assert_ne!(simulate(100, 8, 3, draw, || {}), alone);
        let mut distinct = alone;
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 100);
    }
}
