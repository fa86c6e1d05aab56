//! How long requests take, by route, method and status.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::http::Method;
use prometheus::proto::LabelPair;

use super::families::{Sorted, label};

/// Upper bounds in nanoseconds: finer below 5 ms, where the storefront's answers lie.
const BOUNDS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Statuses that the product answers; any other is counted under its class.
const STATUSES: [(u16, &str); 29] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (304, "304"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (410, "410"),
    (412, "412"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (422, "422"),
    (428, "428"),
    (429, "429"),
    (431, "431"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (2, "2xx"),
    (3, "3xx"),
    (4, "4xx"),
    (5, "5xx"),
];

/// Durations of one route in one thread, by status.
pub struct Watch {
    method: String,
    route: &'static str,
    guarded: bool,
    statuses: [OnceLock<Box<Times>>; STATUSES.len()],
}

#[derive(Default)]
struct Times {
    buckets: [AtomicU64; BOUNDS.len()],
    longer: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Watch {
    pub(super) fn new(method: Option<&Method>, route: &'static str, guarded: bool) -> Self {
        Self {
            method: method.map_or("other", Method::as_str).to_owned(),
            route,
            guarded,
            statuses: Default::default(),
        }
    }

    /// Counts an answer.
    pub fn record(&self, status: u16, took: Duration) {
        let place = |wanted| STATUSES.iter().position(|(known, _)| *known == wanted);
        let Some(slot) = place(status).or_else(|| place(status / 100)) else {
            return;
        };
        if let Some(slot) = self.statuses.get(slot) {
            slot.get_or_init(Box::default).add(took);
        }
    }

    /// Route as in the table.
    #[must_use]
    pub const fn route(&self) -> &'static str {
        self.route
    }

    /// Whether the route wants a role.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        self.guarded
    }
}

impl Times {
    fn add(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS
            .iter()
            .zip(&self.buckets)
            .find(|(bound, _)| took <= **bound);
        let counter = bucket.map_or(&self.longer, |(_, counter)| counter);
        counter.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Sum {
    buckets: [u64; BOUNDS.len()],
    longer: u64,
    nanoseconds: u64,
}

impl Sum {
    fn add(&mut self, times: &Times) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&times.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.longer += times.longer.load(Ordering::Relaxed);
        self.nanoseconds += times.nanoseconds.load(Ordering::Relaxed);
    }

    fn sorted(&self) -> Sorted {
        let mut count = 0;
        let up_to = BOUNDS.iter().zip(self.buckets).map(|(bound, bucket)| {
            count += bucket;
            (Duration::from_nanos(*bound).as_secs_f64(), count)
        });
        let up_to: Vec<_> = up_to.collect();
        Sorted {
            up_to,
            count: count + self.longer,
            sum: Duration::from_nanos(self.nanoseconds).as_secs_f64(),
        }
    }
}

/// All threads' durations added up, with their labels, in order of route, method and status.
pub(super) fn sum(watches: &[Arc<Watch>]) -> Vec<(Vec<LabelPair>, Sorted)> {
    let mut sums: BTreeMap<(&str, &str, &str), Sum> = BTreeMap::new();
    for watch in watches {
        for (times, (_, status)) in watch.statuses.iter().zip(STATUSES) {
            if let Some(times) = times.get() {
                let key = (watch.route, watch.method.as_str(), status);
                sums.entry(key).or_default().add(times);
            }
        }
    }
    let labelled = sums.into_iter().map(|((route, method, status), sum)| {
        let labels = vec![
            label("route", route),
            label("method", method),
            label("status", status),
        ];
        (labels, sum.sorted())
    });
    labelled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_by_status() {
        let watches: Vec<_> = (0..2)
            .map(|_| Arc::new(Watch::new(Some(&Method::GET), "/a", false)))
            .collect();
        watches[0].record(200, Duration::from_micros(100));
        watches[1].record(200, Duration::from_millis(3));
        watches[1].record(200, Duration::from_secs(60));
        watches[1].record(418, Duration::ZERO);
        watches[1].record(999, Duration::ZERO);
        let sums = sum(&watches);
        let status = |at: usize| sums[at].0[2].value().to_owned();
        assert_eq!(
            (sums.len(), status(0), status(1)),
            (2, "200".into(), "4xx".into())
        );
        let sorted = &sums[0].1;
        assert_eq!(
            (sorted.up_to[0], sorted.up_to[15]),
            ((0.0001, 1), (10.0, 2))
        );
        assert_eq!((sorted.count, sorted.sum), (3, 60.0031));
    }
}
