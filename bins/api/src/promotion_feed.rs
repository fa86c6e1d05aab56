//! What happens to promotions, handed on to whoever listens: one database connection for all streams of the process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use podium_storage::promotion_events::{self, PromotionEvent, Signal};
use podium_storage::{ConnectSettings, Database, StorageError};
use tokio::sync::{broadcast, mpsc, watch};

/// Events that a slow reader may be behind before it is sent to the table instead.
const HELD: usize = 256;
/// Streams of a process.
const STREAMS: usize = 1_000;
/// Events are looked for this often even when nothing is heard, as behind a transaction pooler.
const POLL: Duration = Duration::from_secs(1);
/// Numbers are given before the commit, so a lower one may appear later; this many are looked at again.
pub const LATE: i64 = 64;
/// Events read at a time.
const PAGE: i64 = 200;

/// Hands events on.
#[derive(Debug)]
pub struct PromotionFeed {
    events: broadcast::Sender<Arc<PromotionEvent>>,
    closing: watch::Sender<bool>,
    streams: AtomicUsize,
}

impl Default for PromotionFeed {
    fn default() -> Self {
        Self {
            events: broadcast::Sender::new(HELD),
            closing: watch::Sender::new(false),
            streams: AtomicUsize::new(0),
        }
    }
}

/// A place among the streams of the process, given back when it is dropped.
pub struct Subscription {
    feed: Arc<PromotionFeed>,
    /// Events from now on. One that lags reads the table.
    pub events: broadcast::Receiver<Arc<PromotionEvent>>,
    /// Becomes true when the process stops.
    pub closing: watch::Receiver<bool>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PromotionFeed {
    /// A subscription, or `None` when there are too many.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>) -> Option<Subscription> {
        if self.streams.fetch_add(1, Ordering::Relaxed) >= STREAMS {
            self.streams.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Subscription {
            feed: self.clone(),
            events: self.events.subscribe(),
            closing: self.closing.subscribe(),
        })
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Ends every stream.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Hands events on for ever.
    pub async fn follow(self: Arc<Self>, database: Database, direct: ConnectSettings) {
        let (signals, heard) = mpsc::channel(1);
        tokio::join!(
            promotion_events::listen(&direct, &signals),
            self.hand_on(&database, heard)
        );
    }

    async fn hand_on(&self, database: &Database, mut heard: mpsc::Receiver<Signal>) {
        let mut seen = Seen::default();
        loop {
            if let Err(error) = self.catch_up(database, &mut seen).await {
                tracing::debug!(error = %error.chain(), "promotion events cannot be read; will try again");
            }
            // However it wakes up, it looks; the sender of signals lives as long as this.
            let _ = tokio::time::timeout(POLL, heard.recv()).await;
        }
    }

    async fn catch_up(&self, database: &Database, seen: &mut Seen) -> Result<(), StorageError> {
        if !seen.begun {
            let newest = promotion_events::newest(database).await?;
            let late = promotion_events::after(database, newest - LATE, LATE).await?;
            seen.ids.extend(late.iter().map(|event| event.id));
            seen.newest = newest;
            seen.begun = true;
        }
        let mut from = seen.newest - LATE;
        loop {
            let page = promotion_events::after(database, from, PAGE).await?;
            let Some(last) = page.last() else {
                break;
            };
            from = last.id;
            for event in page {
                if seen.is_new(event.id) {
                    // Without listeners there is nobody to tell.
                    let _ = self.events.send(Arc::new(event));
                }
            }
        }
        Ok(())
    }
}

/// Which events were handed on.
#[derive(Default)]
struct Seen {
    begun: bool,
    newest: i64,
    ids: BTreeSet<i64>,
}

impl Seen {
    fn is_new(&mut self, id: i64) -> bool {
        let new = self.ids.insert(id);
        self.newest = self.newest.max(id);
        self.ids = self.ids.split_off(&(self.newest - LATE));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_once_even_when_it_comes_late() {
        let mut seen = Seen::default();
        assert!(seen.is_new(7));
        assert!(seen.is_new(5));
        assert!(!seen.is_new(7) && !seen.is_new(5));
        assert!(seen.is_new(500));
        assert_eq!(seen.ids.len(), 1);
    }

    #[test]
    fn there_are_only_so_many_streams() {
        let feed = Arc::new(PromotionFeed::default());
        let mut streams: Vec<_> = (0..STREAMS).map(|_| feed.subscribe().unwrap()).collect();
        assert!(feed.subscribe().is_none());
        streams.pop();
        assert!(feed.subscribe().is_some());
    }
}
