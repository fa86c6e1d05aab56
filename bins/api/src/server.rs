//! Wiring: database, storefront path, background work, HTTP; and its orderly end.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use podium_notifications::{Sender, World};
use podium_private_postgres::PrivatePostgres;
use podium_promotion::Engine;
use podium_serving::Serving;
use podium_serving::file::DefinitionsFile;
use podium_storage::feed::Feed;
use podium_storage::{ConnectSettings, Database, StorageError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::auth::Auth;
use crate::auth::refusals::Refusals;
use crate::background::{self, store_notes};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, DatabaseSettings, Secret};
use crate::ids;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::private::{self, PrivateError};
use crate::promotion_feed::PromotionFeed;
use crate::readings::Readings;
use crate::routes;
use crate::state::AppState;

/// A client that reads nothing for this long, while there is something for it, is dropped: its stream or export would keep
/// a place for ever.
const UNREAD: Duration = Duration::from_secs(15);

/// In-flight requests may take this long at the end.
const DRAIN_SECONDS: u64 = 7;
/// And what they have left behind so long, from the moment that somebody asked to stop: operators are promised 10 s.
const STOP_WITHIN: Duration = Duration::from_secs(9);

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The private database cannot be used.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// The database cannot be used.
    #[error("the database cannot be used: {}", .0.chain())]
    Storage(#[from] StorageError),
    /// Notifications cannot be sent.
    #[error(transparent)]
    Notifications(#[from] podium_notifications::StartError),
    /// Spans cannot be exported.
    #[cfg(feature = "otel")]
    #[error(transparent)]
    Otel(#[from] crate::otel::OtelError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A running API process.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// What handlers work with.
    pub state: Data<AppState>,
    http: ServerHandle,
    serving_http: JoinHandle<std::io::Result<()>>,
    background: Vec<JoinHandle<()>>,
    sending: JoinHandle<()>,
    stop_sending: watch::Sender<bool>,
    private: Option<PrivatePostgres>,
}

/// Where the database is, and the secret that tokens are signed with.
pub struct Resources {
    /// Addresses of the database.
    pub database: DatabaseSettings,
    /// Signing secret in force; `None` where tokens are verified with public keys.
    pub jwt_secret: Option<Secret>,
    /// The private server, where there is one.
    pub private: Option<PrivatePostgres>,
}

/// Starts everything and returns once it serves.
///
/// # Errors
/// [`StartError`].
pub async fn start(
    config: Config,
    clock: Arc<dyn Clock>,
    migrate: bool,
) -> Result<Running, StartError> {
    let started = Instant::now();
    let resources = private::resources(&config).await?;
    let owner = resources.database.owner()?;
    let database = Database::owned_by(resources.database.serving()?, owner.clone())?;
    let direct = resources.database.direct()?;
    let migrated = !migrate || migrate_now(&owner).await?;
    if !migrated {
        database.set_reachable(false);
    }
    let limits = podium_serving::Settings {
        assign_wait: config.assign_wait,
        known_units: config.assignment_cache,
    };
    let file = config.snapshot_file.clone().map(DefinitionsFile::new);
    let serving = Serving::start(database.clone(), limits, file).await?;
    let promotions = Arc::new(PromotionFeed::default());
    let notifications = Sender::new(
        database.clone(),
        config.notifications.clone(),
        world(&clock),
    )?;
    let (stop_sending, stopped) = watch::channel(false);
    let engine = Engine::new(database.clone(), config.promotion.clone());
    let watching = background::watch(engine.clone(), database.clone(), stopped.clone());
    let sending = tokio::spawn(podium_notifications::run(notifications.clone(), stopped));
    let feed = Feed::start(database.clone(), Some(direct.clone()));
    let mut background = vec![
        watching,
        tokio::spawn(serving.clone().follow(feed)),
        tokio::spawn(serving.clone().learn()),
        tokio::spawn(promotions.clone().follow(database.clone(), direct)),
    ];
    if !migrated {
        background.push(tokio::spawn(background::migrate_later(owner)));
    }
    let state = Data::new(AppState {
        engine,
        auth: Auth::new(&config, resources.jwt_secret.as_ref()),
        refusals: Refusals::default(),
        limits: config.rates.as_ref().map(Limits::new),
        serving,
        database,
        notifications,
        promotions,
        started,
        readings: Readings::default(),
        #[cfg(feature = "otel")]
        spans: config
            .otlp
            .as_ref()
            .map(crate::otel::Spans::start)
            .transpose()?,
        metrics: Metrics::new(clock.now()),
        draining: AtomicBool::new(false),
        clock,
        config,
    });
    background.extend(background::start(&state));
    let (http, address, server) = listen(&state)?;
    let serving_http = tokio::spawn(server);
    Ok(Running {
        address,
        state,
        http,
        serving_http,
        background,
        sending,
        stop_sending,
        private: resources.private,
    })
}

/// The clock, and dice for the jitter of retries.
fn world(clock: &Arc<dyn Clock>) -> World {
    let clock = clock.clone();
    World {
        now: Arc::new(move || clock.now()),
        chance: Arc::new(ids::chance),
    }
}

/// Brings the schema up to date; false when the database is away.
pub(crate) async fn migrate_now(owner: &ConnectSettings) -> Result<bool, StorageError> {
    match podium_storage::migrate::migrate(owner).await {
        Ok(applied) => {
            for name in applied {
                tracing::info!(migration = name, "migration applied");
            }
            Ok(true)
        }
        Err(error) if error.is_outage() => {
            tracing::warn!(error = %error.chain(), "the database is away; starting without it");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn listen(
    state: &Data<AppState>,
) -> Result<(ServerHandle, SocketAddr, actix_web::dev::Server), StartError> {
    let address = SocketAddr::new(state.config.host, state.config.port);
    let shared = state.clone();
    let server = HttpServer::new(move || {
        let state = Rc::new(shared.clone());
        App::new().configure(|config| routes::configure(config, &state))
    })
    .workers(state.config.workers)
    .keep_alive(Duration::from_secs(15))
    .client_request_timeout(Duration::from_secs(5))
    .max_connections(10_000)
    .backlog(1024)
    .on_connect(|connection, _| limit_unread(connection))
    .shutdown_timeout(DRAIN_SECONDS)
    .disable_signals()
    .bind(address)
    .map_err(|source| StartError::Bind { address, source })?;
    let bound = server.addrs().first().copied().unwrap_or(address);
    let server = server.run();
    Ok((server.handle(), bound, server))
}

/// Lets the system drop a client that stops reading: actix has no limit for writes, and does not ask a body for more
/// while the client's window is closed.
fn limit_unread(connection: &dyn std::any::Any) {
    #[cfg(target_os = "linux")]
    if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() {
        let limited = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD));
        if let Err(error) = limited {
            tracing::debug!(%error, "a connection has no limit for reading");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = connection;
}

impl Running {
    /// Stops in order: no new connections, requests in flight end, what was accepted is written, notifications on their
    /// way arrive, the private database stops.
    pub async fn stop(self) {
        let end = tokio::time::Instant::now() + STOP_WITHIN;
        self.state.draining.store(true, Ordering::Relaxed);
        // A send that fails means that nobody waits for it any more.
        let _ = self.stop_sending.send(true);
        // Streams have no end of their own, and the HTTP server waits for theirs.
        self.state.promotions.close();
        self.http.stop(true).await;
        let _ = self.serving_http.await;
        let written = tokio::time::timeout_at(end, self.state.serving.drain());
        if written.await.is_err() {
            tracing::warn!(
                "accepted writes were not finished in time; their clients were not told that they were"
            );
        }
        // What is cut off here is sent again, and notes are not worth more waiting.
        let _ = tokio::time::timeout_at(end, self.sending).await;
        for task in self.background {
            task.abort();
        }
        let _ = tokio::time::timeout_at(end, store_notes(&self.state)).await;
        #[cfg(feature = "otel")]
        {
            let state = self.state.clone();
            let stopped = tokio::task::spawn_blocking(move || {
                if let Some(spans) = &state.spans {
                    spans.stop();
                }
            });
            let _ = stopped.await;
        }
        if let Some(private) = self.private {
            let stopped = tokio::task::spawn_blocking(move || private.stop()).await;
            if let Ok(Err(error)) = stopped {
                tracing::warn!(%error, "the private database did not stop in order");
            }
        }
    }
}
