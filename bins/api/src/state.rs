//! What every worker thread shares.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use actix_web::web::{Bytes, Data};
use podium_promotion::Engine;
use podium_serving::Serving;
use podium_storage::Database;

use crate::auth::Auth;
use crate::auth::refusals::Refusals;
use crate::clock::Clock;
use crate::config::Config;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::problem::ApiError;
use crate::promotion_feed::PromotionFeed;
use crate::readings::Readings;

/// What handlers work with. Wiring happens in [`crate::server`].
pub struct AppState {
    /// Settings in force.
    pub config: Config,
    /// The storefront path: definitions and known units in memory, grouped writes.
    pub serving: Arc<Serving>,
    /// For admin and report routes.
    pub database: Database,
    /// Decides about promotions and carries them out.
    pub engine: Engine,
    /// Checks tokens.
    pub auth: Auth,
    /// Refused changes that the audit log has not been told of.
    pub refusals: Refusals,
    /// Rate limits, unless they are switched off.
    pub limits: Option<Limits>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Sends what waits in the outbox.
    pub notifications: Arc<podium_notifications::Sender>,
    /// What happens to promotions, for whoever listens.
    pub promotions: Arc<PromotionFeed>,
    /// When the process started.
    pub started: Instant,
    /// Results that are being read, for all who ask for the same.
    pub readings: Readings<Result<Bytes, ApiError>>,
    /// What operators watch.
    pub metrics: Metrics,
    /// Spans for a collector, where one is named.
    #[cfg(feature = "otel")]
    pub spans: Option<crate::otel::Spans>,
    /// Whether the process has been asked to stop.
    pub draining: AtomicBool,
}

/// One worker thread's handle on what all share. Handing it to a request counts in memory of the thread, not in memory
/// that every core writes.
pub type SharedState = Rc<Data<AppState>>;
