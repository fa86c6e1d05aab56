//! Time in the hands of a test.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use podium_api::clock::{Clock, SystemClock};

/// A clock that moves only when a test moves it. Clones show the same time.
#[derive(Clone, Debug)]
pub struct MockClock(Arc<Mutex<DateTime<Utc>>>);

impl MockClock {
    /// A clock that stands at the real time, because the database has a clock of its own.
    #[must_use]
    pub fn standing() -> Self {
        Self(Arc::new(Mutex::new(now())))
    }

    /// Moves the clock, backwards too.
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for MockClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }
}

/// The real time.
#[must_use]
pub fn now() -> DateTime<Utc> {
    SystemClock.now()
}
