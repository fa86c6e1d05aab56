//! Counts of what the storefront path did, raised by many threads without waiting for one another.
//!
//! To count one more thing, give it a place in a [`Tally`] of [`Tallies`] and a reading below.

use std::array;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use podium_domain::event::EventType;

use crate::snapshot::{Reason, Snapshot, is_default};
use crate::track::{TrackError, Tracked};

/// Lines of memory of one tally. More threads than that share lines, which is slower and still exact.
const LINES: usize = 16;

/// `N` counters. Every thread raises those of a line of its own, so that cores do not pass lines to and fro; reading adds
/// the lines up.
pub struct Tally<const N: usize>([Line<N>; LINES]);

#[repr(align(64))]
struct Line<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self(array::from_fn(|_| {
            Line(array::from_fn(|_| AtomicU64::new(0)))
        }))
    }
}

impl<const N: usize> Tally<N> {
    /// Adds to the counter at a place; one beyond the last is nobody's.
    pub fn add(&self, at: usize, count: u64) {
        let line = self.0.get(line_of_this_thread());
        if let Some(counter) = line.and_then(|line| line.0.get(at)) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// All counters.
    #[must_use]
    pub fn read(&self) -> [u64; N] {
        array::from_fn(|at| {
            let counters = self.0.iter().filter_map(|line| line.0.get(at));
            counters.map(|c| c.load(Ordering::Relaxed)).sum()
        })
    }
}

impl<const N: usize> std::fmt::Debug for Tally<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tally").field(&self.read()).finish()
    }
}

fn line_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % LINES;
    }
    LINE.with(|line| *line)
}

/// Answers of one variant, by [`Reason`].
pub type VariantTally = Tally<8>;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventResult {
    /// Stored.
    Recorded,
    /// It had been stored before.
    Duplicate,
    /// The client's fault: nothing was stored.
    Rejected,
    /// The database or the queue did not take it.
    Unavailable,
}

impl EventResult {
    /// Every result with its word.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Recorded, "recorded"),
        (Self::Duplicate, "duplicate"),
        (Self::Rejected, "rejected"),
        (Self::Unavailable, "unavailable"),
    ];

    const fn of(outcome: &Result<Tracked, TrackError>) -> Self {
        match outcome {
            Ok(tracked) if tracked.duplicate => Self::Duplicate,
            Ok(_) => Self::Recorded,
            Err(TrackError::Unavailable) => Self::Unavailable,
            Err(_) => Self::Rejected,
        }
    }
}

const KINDS: usize = EventType::ALL.len();
const RESULTS: usize = EventResult::ALL.len();

/// Everything that is counted since the process started.
#[derive(Debug, Default)]
pub struct Tallies {
    /// By variant id; kept when a variant leaves memory, because a counter must never fall.
    variants: Mutex<HashMap<i64, Arc<VariantTally>>>,
    /// Default answers: in order, and for want of the database.
    defaults: Tally<2>,
    events: Tally<{ KINDS * RESULTS }>,
}

/// How often a variant was answered for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentCount {
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the variant.
    pub variant: String,
    /// Word of the reason.
    pub source: &'static str,
    /// Answers.
    pub count: u64,
}

impl Tallies {
    /// The counters of a variant.
    #[must_use]
    pub fn variant(&self, id: i64) -> Arc<VariantTally> {
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        variants.entry(id).or_default().clone()
    }

    /// Counts an answer if it is a default one; the others are counted where they are chosen.
    pub(crate) fn answered(&self, answer: Bytes) -> Bytes {
        if let Some(degraded) = is_default(&answer) {
            self.defaults.add(usize::from(degraded), 1);
        }
        answer
    }

    /// Counts what became of an event.
    pub(crate) fn tracked(&self, kind: EventType, outcome: &Result<Tracked, TrackError>) {
        let kind = usize::try_from(kind.code() - 1).unwrap_or(KINDS);
        self.events
            .add(kind * RESULTS + EventResult::of(outcome) as usize, 1);
    }

    /// Answers of `assign` by the word of their reason; `DEGRADED` are the default answers that were given because the
    /// database did not answer.
    #[must_use]
    pub fn evaluations(&self) -> Vec<(&'static str, u64)> {
        let mut sums = [0_u64; 8];
        let variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        for tally in variants.values() {
            for (sum, count) in sums.iter_mut().zip(tally.read()) {
                *sum += count;
            }
        }
        let [default, degraded] = self.defaults.read();
        let mut counts: Vec<_> = Reason::NAMES.into_iter().zip(sums).collect();
        counts.extend([("DEFAULT", default), ("DEGRADED", degraded)]);
        counts
    }

    /// Answers by variant and reason, for the variants that are in memory and were answered.
    #[must_use]
    pub fn assignments(&self, snapshot: &Snapshot) -> Vec<AssignmentCount> {
        let mut counts = Vec::new();
        for experiment in snapshot.experiments() {
            for variant in &experiment.variants {
                let answers = Reason::NAMES
                    .into_iter()
                    .zip(self.variant(variant.id).read());
                counts.extend(
                    answers
                        .filter(|(_, count)| *count > 0)
                        .map(|(source, count)| AssignmentCount {
                            experiment: experiment.name.clone(),
                            variant: variant.name.clone(),
                            source,
                            count,
                        }),
                );
            }
        }
        counts
    }

    /// Events by type and what became of them.
    #[must_use]
    pub fn events(&self) -> Vec<(EventType, &'static str, u64)> {
        let counts = self.events.read();
        let kinds = EventType::ALL.iter().flat_map(|kind| {
            EventResult::ALL
                .iter()
                .map(move |(_, result)| (*kind, *result))
        });
        kinds
            .zip(counts)
            .map(|((kind, result), count)| (kind, result, count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_raise_is_lost_between_threads() {
        let tally = Tally::<3>::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    for at in 0..4 {
                        (0..1_000).for_each(|_| tally.add(at, 1));
                    }
                });
            }
        });
        assert_eq!(tally.read(), [40_000; 3]);
    }

    #[test]
    fn events_stand_under_their_type_and_result() {
        let tallies = Tallies::default();
        let duplicate = Ok(Tracked {
            duplicate: true,
            recorded: None,
        });
        tallies.tracked(EventType::Purchase, &duplicate);
        tallies.tracked(EventType::Request, &Err(TrackError::NoUnit));
        let counts = tallies.events();
        let counted: Vec<_> = counts.into_iter().filter(|(.., n)| *n > 0).collect();
        assert_eq!(
            counted,
            [
                (EventType::Purchase, "duplicate", 1),
                (EventType::Request, "rejected", 1)
            ]
        );
    }
}
