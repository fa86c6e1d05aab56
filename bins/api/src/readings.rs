//! One reading for all who ask for the same at the same time.
//!
//! A report costs milliseconds, and people look at the same one together: a dashboard on many screens asks on the minute.
//! Whoever asks while it is being read waits for the next reading, which all share who came until it begins. So an answer
//! is never older than its question, and the cost does not grow with those who ask.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::task::JoinError;

/// Readings under way, by what is read.
pub struct Readings<T> {
    slots: Mutex<HashMap<String, Weak<Slot<T>>>>,
}

/// Those who want the same. It lives as long as one of them waits.
struct Slot<T> {
    arrived: AtomicU64,
    last: Arc<tokio::sync::Mutex<Option<Reading<T>>>>,
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

impl<T: Clone + 'static> Readings<T> {
    /// Reads, or waits for a reading under the same key that begins after this call. A reading that was begun is finished
    /// for those who wait, also when whoever began it has gone or had no time left: otherwise a queue of people
    /// without time would read again and again, and none would ever be answered.
    ///
    /// Must be called on a thread of actix, or in a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// [`JoinError`] when the reading panicked; those who wait read for themselves then.
    pub async fn share(
        &self,
        key: &str,
        read: impl Future<Output = T> + 'static,
    ) -> Result<T, JoinError> {
        let slot = self.slot(key);
        let place = slot.arrived.fetch_add(1, Ordering::Relaxed) + 1;
        let mut last = slot.last.clone().lock_owned().await;
        if let Some(reading) = last.as_ref().filter(|reading| reading.arrived >= place) {
            return Ok(reading.outcome.clone());
        }
        let arrived = slot.arrived.load(Ordering::Relaxed);
        let reading = tokio::task::spawn_local(async move {
            let outcome = read.await;
            *last = Some(Reading {
                arrived,
                outcome: outcome.clone(),
            });
            outcome
        });
        reading.await
    }

    fn slot(&self, key: &str) -> Arc<Slot<T>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot {
            arrived: AtomicU64::new(0),
            last: Arc::default(),
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
    use tokio::task::LocalSet;

    use super::*;

    /// Counts readings, each of which waits to be let through.
    struct Source {
        readings: Readings<u64>,
        begun: AtomicU64,
        gate: Semaphore,
    }

    impl Source {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                readings: Readings::default(),
                begun: AtomicU64::new(0),
                gate: Semaphore::new(0),
            })
        }

        /// Lets so many readings end.
        fn open(&self, readings: usize) {
            self.gate.add_permits(readings);
        }

        /// The number of the reading that was shared.
        async fn share(self: &Arc<Self>, key: &str) -> u64 {
            let source = self.clone();
            let read = async move {
                let number = source.begun.fetch_add(1, Ordering::Relaxed) + 1;
                source.gate.acquire().await.unwrap().forget();
                number
            };
            self.readings.share(key, read).await.unwrap()
        }
    }

    /// Somebody who has asked and waits.
    async fn waiting<'s>(
        source: &'s Arc<Source>,
        key: &'s str,
    ) -> impl Future<Output = u64> + Unpin + 's {
        let mut asked = Box::pin(source.share(key));
        assert!((&mut asked).now_or_never().is_none());
        // What it began gets its turn.
        tokio::task::yield_now().await;
        asked
    }

    async fn local(test: impl AsyncFnOnce(&Arc<Source>)) {
        LocalSet::new().run_until(test(&Source::new())).await;
    }

    #[tokio::test]
    async fn those_who_come_during_a_reading_share_the_next() {
        local(async |source| {
            let first = waiting(source, "a").await;
            let mut later = Vec::new();
            for _ in 0..5 {
                later.push(waiting(source, "a").await);
            }
            source.open(3);
            assert_eq!(first.await, 1);
            assert_eq!(join_all(later).await, [2; 5]);
            // Nobody waited any more, so this one is read for itself.
            assert_eq!(source.share("a").await, 3);
        })
        .await;
    }

    #[tokio::test]
    async fn others_do_not_wait() {
        local(async |source| {
            let stuck = source.readings.share("a", pending());
            let mut stuck = Box::pin(stuck);
            assert!((&mut stuck).now_or_never().is_none());
            source.open(1);
            assert_eq!(source.share("b").await, 1);
        })
        .await;
    }

    /// A reading outlives whoever began it, or people with little time would take turns in vain.
    #[tokio::test]
    async fn what_was_begun_is_finished_for_those_who_wait() {
        local(async |source| {
            let first = waiting(source, "a").await;
            let second = waiting(source, "a").await;
            let third = waiting(source, "a").await;
            source.open(1);
            assert_eq!(first.await, 1);
            // The second begins the next reading and leaves in the middle of it.
            let mut second = second;
            assert!((&mut second).now_or_never().is_none());
            tokio::task::yield_now().await;
            drop(second);
            source.open(1);
            assert_eq!(third.await, 2);
            assert_eq!(source.begun.load(Ordering::Relaxed), 2);
        })
        .await;
    }

    #[tokio::test]
    async fn one_that_panics_takes_nobody_along() {
        local(async |source| {
            let failing = source.readings.share("a", async { panic!("as bugs do") });
            let mut failing = Box::pin(failing);
            assert!((&mut failing).now_or_never().is_none());
            let next = waiting(source, "a").await;
            source.open(1);
            assert!(failing.await.is_err());
            assert_eq!(next.await, 1);
        })
        .await;
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_forgotten() {
        local(async |source| {
            source.open(100);
            for key in 0..100 {
                source.share(&key.to_string()).await;
            }
            assert_eq!(source.readings.slots.lock().unwrap().len(), 1);
        })
        .await;
    }
}
