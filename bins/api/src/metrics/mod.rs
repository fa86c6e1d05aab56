//! `/metrics`: what this process did, and what the database knows, for Prometheus.
//!
//! Nothing on the path of a request waits: requests raise counters of their own thread, and a scrape adds them up. What
//! only the database knows is read every quarter of a minute, whether anybody scrapes or not, and every replica tells
//! the same; sum over `podium_http_…`, take the maximum of those.
//!
//! To add a metric, add a line to [`Metrics::text`]; names follow the conventions of Prometheus (base units, counters end
//! in `_total`), and labels never hold a unit's id or free text of a request.

mod facts;
mod families;
mod process;
mod watch;

use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::Method;
use arc_swap::ArcSwapOption;
use chrono::{DateTime, Utc};
use podium_domain::experiment::Status;
use podium_serving::snapshot::Experiment;
use podium_storage::database::Failure;
use podium_storage::monitoring::{self, Facts};
use podium_storage::{Database, StorageError};

use crate::promotion_feed::PromotionFeed;
use crate::state::AppState;
use families::{Families, label};
pub use watch::Watch;

/// What a scrape is made of, besides what other parts count themselves.
pub struct Metrics {
    started_at: DateTime<Utc>,
    watches: Mutex<Vec<Arc<Watch>>>,
    facts: ArcSwapOption<Facts>,
}

impl Metrics {
    /// Nothing counted yet, for a process that starts now.
    #[must_use]
    pub fn new(started_at: DateTime<Utc>) -> Self {
        Self {
            started_at,
            watches: Mutex::default(),
            facts: ArcSwapOption::empty(),
        }
    }

    /// Times of one route in one thread; without a method, of those that the route does not take.
    #[must_use]
    pub fn watch(&self, method: Option<&Method>, route: &'static str, guarded: bool) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(method, route, guarded));
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.push(watch.clone());
        watch
    }

    /// Reads anew what only the database knows.
    ///
    /// # Errors
    /// [`StorageError`] when it does not answer; the last reading stays.
    pub async fn refresh(&self, database: &Database) -> Result<(), StorageError> {
        let facts = monitoring::read(database).await?;
        self.facts.store(Some(Arc::new(facts)));
        Ok(())
    }

    /// All metrics in the text format of Prometheus.
    ///
    /// # Errors
    /// [`prometheus::Error`] when a family makes no sense, which is a bug.
    pub fn text(&self, state: &AppState) -> Result<String, prometheus::Error> {
        let mut families = Families::default();
        families.gauge(
            "podium_build_info",
            "Version of this program; always 1",
            [(vec![label("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        );
        self.requests(&mut families);
        storefront(&mut families, state);
        streams(&mut families, &state.promotions);
        database(&mut families, &state.database);
        if let Some(facts) = self.facts.load_full() {
            facts::add(&mut families, &facts);
        }
        process::add(&mut families, self.started_at);
        families.encode()
    }

    fn requests(&self, families: &mut Families) {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        families.histogram(
            "podium_http_request_duration_seconds",
            "From the headers of a request to its answer, or to the head of a streamed one",
            watch::sum(&watches),
        );
    }
}

fn storefront(families: &mut Families, state: &AppState) {
    let serving = &state.serving;
    let snapshot = serving.snapshot();
    let tallies = serving.tallies();
    families.counter(
        "podium_evaluations_total",
        "Answers of assign by reason; DEGRADED: the default answer for want of the database",
        tallies
            .evaluations()
            .into_iter()
            .map(|(reason, count)| (vec![label("reason", reason)], count)),
    );
    families.counter(
        "podium_assignments_total",
        "Answers of assign that told a variant",
        tallies.assignments(&snapshot).into_iter().map(|told| {
            let labels = vec![
                label("experiment", told.experiment),
                label("variant", told.variant),
                label("source", told.source),
            ];
            (labels, told.count)
        }),
    );
    families.counter(
        "podium_events_ingested_total",
        "Well-formed events by what became of them",
        tallies.events().into_iter().map(|(kind, result, count)| {
            let labels = vec![label("type", kind.name()), label("result", result)];
            (labels, count)
        }),
    );
    let running = |experiment: &&Arc<Experiment>| experiment.status == Status::Running;
    let (assignments, events) = serving.queue_depth();
    families.level(
        "podium_event_queue_depth",
        "Requests with events that wait for a writer",
        events,
    );
    families.level(
        "podium_assignment_queue_depth",
        "First assignments that wait for a writer",
        assignments,
    );
    families.level(
        "podium_experiments",
        "Experiments in memory, in any state",
        snapshot.len(),
    );
    families.level(
        "podium_experiments_running",
        "Running experiments in memory",
        snapshot.served().iter().filter(running).count(),
    );
}

fn streams(families: &mut Families, feed: &PromotionFeed) {
    families.level(
        "podium_promotion_streams",
        "Open streams of promotion events",
        feed.streams(),
    );
}

fn database(families: &mut Families, database: &Database) {
    families.level(
        "podium_db_up",
        "Whether the last attempt to reach the database succeeded",
        usize::from(database.is_reachable()),
    );
    let pools = database.pools();
    families.gauge(
        "podium_db_pool_connections",
        "Connections by pool and state; waiting: callers that wait for one",
        pools.iter().flat_map(|pool| {
            let states = [
                ("idle", pool.idle),
                ("used", pool.used),
                ("waiting", pool.waiting),
            ];
            states.map(|(state, count)| {
                let labels = vec![label("pool", pool.pool), label("state", state)];
                (labels, families::number(count))
            })
        }),
    );
    families.gauge(
        "podium_db_pool_max_connections",
        "Connections that a pool may have",
        pools.map(|pool| (vec![label("pool", pool.pool)], families::number(pool.max))),
    );
    let failures = Failure::ALL.into_iter().zip(database.failures());
    families.counter(
        "podium_db_errors_total",
        "Connections that were not to be had, and statements that lost theirs",
        failures.map(|((_, kind), count)| (vec![label("kind", kind)], count)),
    );
}
