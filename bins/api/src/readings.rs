//! One reading for all who ask for the same at the same time.
//!
//! A report costs milliseconds, and people look at the same one together: a dashboard on many screens asks on the minute.
//! Whoever asks while it is being read waits for the next reading, which all share who came until it begins. So an answer
//! is never older than its question, and the cost does not grow with those who ask.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Readings under way, by what is read.
pub struct Readings<T> {
    slots: Mutex<HashMap<String, Weak<Slot<T>>>>,
}

/// Those who want the same. It lives as long as one of them waits.
struct Slot<T> {
    arrived: AtomicU64,
    last: tokio::sync::Mutex<Option<Reading<T>>>,
}

struct Reading<T> {
    /// How many had arrived when it began: they may have it.
    arrived: u64,
    outcome: T,
}

impl<T> Default for Readings<T> {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
        }
    }
}

impl<T: Clone> Readings<T> {
    /// Reads, or waits for a reading under the same key that begins after this call. A `read` that is dropped half-way
    /// takes nobody along: the next one reads.
    pub async fn share(&self, key: &str, read: impl Future<Output = T>) -> T {
        let slot = self.slot(key);
        let place = slot.arrived.fetch_add(1, Ordering::Relaxed) + 1;
        let mut last = slot.last.lock().await;
        if let Some(reading) = last.as_ref().filter(|reading| reading.arrived >= place) {
            return reading.outcome.clone();
        }
        let arrived = slot.arrived.load(Ordering::Relaxed);
        let outcome = read.await;
        *last = Some(Reading {
            arrived,
            outcome: outcome.clone(),
        });
        outcome
    }

    fn slot(&self, key: &str) -> Arc<Slot<T>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot {
            arrived: AtomicU64::new(0),
            last: tokio::sync::Mutex::new(None),
        });
        slots.insert(key.to_owned(), Arc::downgrade(&slot));
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Counts readings, each of which waits to be let through.
    #[derive(Default)]
    struct Source {
        begun: AtomicU64,
        gate: Option<Semaphore>,
    }

    impl Source {
        fn closed() -> Self {
            Self {
                gate: Some(Semaphore::new(0)),
                ..Self::default()
            }
        }

        fn open(&self) {
            self.gate.iter().for_each(|gate| gate.add_permits(100));
        }

        /// The number of this reading.
        async fn read(&self) -> u64 {
            let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(gate) = &self.gate {
                let _permit = gate.acquire().await;
            }
            number
        }
    }

    #[tokio::test]
    async fn those_who_come_during_a_reading_share_the_next() {
        let (readings, source) = (Readings::default(), Source::closed());
        let mut first = Box::pin(readings.share("a", source.read()));
        assert!((&mut first).now_or_never().is_none());
        let mut later: Vec<_> = (0..5)
            .map(|_| Box::pin(readings.share("a", source.read())))
            .collect();
        for one in &mut later {
            assert!(one.now_or_never().is_none());
        }
        source.open();
        assert_eq!(first.await, 1);
        assert_eq!(join_all(later).await, [2; 5]);
        // Nobody waited any more, so this one is read for itself.
        assert_eq!(readings.share("a", source.read()).await, 3);
    }

    #[tokio::test]
    async fn others_do_not_wait() {
        let (readings, source) = (Readings::default(), Source::default());
        let mut stuck = Box::pin(readings.share("a", pending::<u64>()));
        assert!((&mut stuck).now_or_never().is_none());
        let other = readings.share("b", source.read()).now_or_never();
        assert_eq!(other, Some(1));
    }

    #[tokio::test]
    async fn one_who_leaves_takes_nobody_along() {
        let (readings, source) = (Readings::default(), Source::default());
        let mut stuck = Box::pin(readings.share("a", pending()));
        assert!((&mut stuck).now_or_never().is_none());
        let mut waiting = Box::pin(readings.share("a", source.read()));
        assert!((&mut waiting).now_or_never().is_none());
        drop(stuck);
        assert_eq!(waiting.await, 1);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_forgotten() {
        let (readings, source) = (Readings::default(), Source::default());
        for key in 0..100 {
            readings.share(&key.to_string(), source.read()).await;
        }
        assert_eq!(readings.slots.lock().unwrap().len(), 1);
    }
}
