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
use podium_storage::audit::Origin;
use podium_storage::bandit::weights;
use podium_storage::experiments::covariates;
use podium_storage::feed::Feed;
use podium_storage::{
    ConnectSettings, Database, StorageError, alerts, fold, idempotency, leases, retention, seals,
    winsorize,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::auth::Auth;
use crate::auth::refusals::Refusals;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Secret};
use crate::ids;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::private::{self, PrivateError};
use crate::promotion_feed::PromotionFeed;
use crate::routes;
use crate::state::AppState;

/// A client that reads nothing for this long, while there is something for it, is dropped: its stream or export would keep
/// a place for ever.
const UNREAD: Duration = Duration::from_secs(15);

/// In-flight requests may take this long at the end; the orchestrator's own limit is 10 s.
const DRAIN_SECONDS: u64 = 8;

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
    /// Address of the database.
    pub database_url: Secret,
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
    let settings = ConnectSettings::parse(resources.database_url.expose())?;
    let database = Database::new(settings.clone())?;
    let owner = config.database.owner(&resources.database_url)?;
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
    let direct = match &config.database.direct_url {
        Some(url) => ConnectSettings::parse(url.expose())?,
        None => settings,
    };
    let promotions = Arc::new(PromotionFeed::default());
    let notifications = Sender::new(
        database.clone(),
        config.notifications.clone(),
        world(&clock),
    )?;
    let (stop_sending, stopped) = watch::channel(false);
    let engine = Engine::new(database.clone(), config.promotion.clone());
    let (watcher, watched) = (engine.clone(), database.clone());
    let watching = on_a_thread(
        async move || watch_for_ever(watcher, watched).await,
        stopped.clone(),
    );
    let sending = tokio::spawn(podium_notifications::run(notifications.clone(), stopped));
    let mut background = vec![
        tokio::spawn(
            serving
                .clone()
                .follow(Feed::start(database.clone(), Some(direct.clone()))),
        ),
        tokio::spawn(serving.clone().learn()),
        tokio::spawn(count_assignments(serving.clone(), database.clone())),
        watching,
        tokio::spawn(fold_for_ever(database.clone())),
        tokio::spawn(seal_for_ever(database.clone())),
        tokio::spawn(cap_values_for_ever(database.clone())),
        tokio::spawn(keep_partitions(
            database.clone(),
            config.event_retention_days,
        )),
        tokio::spawn(probe_for_ever(database.clone())),
        tokio::spawn(promotions.clone().follow(database.clone(), direct)),
    ];
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
        #[cfg(feature = "otel")]
        spans: config
            .otlp_endpoint
            .as_deref()
            .map(crate::otel::Spans::start)
            .transpose()?,
        metrics: Metrics::new(clock.now()),
        draining: AtomicBool::new(false),
        clock,
        config,
    });
    background.push(tokio::spawn(read_metrics_for_ever(state.clone())));
    if !migrated {
        background.push(tokio::spawn(migrate_later(owner)));
    }
    background.push(tokio::spawn(store_notes_for_ever(state.clone())));
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
async fn migrate_now(owner: &ConnectSettings) -> Result<bool, StorageError> {
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

/// Brings the schema up to date once the database is there.
async fn migrate_later(owner: ConnectSettings) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        match migrate_now(&owner).await {
            Ok(true) => return,
            Ok(false) => {}
            // Nobody is there to be told but the log and readiness, and the schema may be put right by hand.
            Err(error) => {
                tracing::error!(error = %error.chain(), "the schema was not brought up to date");
            }
        }
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
        self.state.draining.store(true, Ordering::Relaxed);
        // A send that fails means that nobody waits for it any more.
        let _ = self.stop_sending.send(true);
        // Streams have no end of their own, and the HTTP server waits for theirs.
        self.state.promotions.close();
        self.http.stop(true).await;
        let _ = self.serving_http.await;
        if tokio::time::timeout(Duration::from_secs(5), self.state.serving.drain())
            .await
            .is_err()
        {
            tracing::warn!(
                "accepted writes were not finished in time; their clients were not told that they were"
            );
        }
        let _ = self.sending.await;
        for task in self.background {
            task.abort();
        }
        store_notes(&self.state).await;
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

/// From the start of one pass of folding to that of the next. A pass writes three rows for each unit that had an event, so
/// rare passes are cheap; readers may wait 3 s, of which a pass itself needs the rest.
const FOLD_EVERY: Duration = Duration::from_secs(2);

/// Folds every two seconds, and without a pause while it is behind.
async fn fold_for_ever(database: Database) {
    let mut ticks = tokio::time::interval(FOLD_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match fold::fold_once(&database).await {
            Ok(folded) if !folded.caught_up && !folded.busy => ticks.reset_immediately(),
            Ok(folded) if !folded.busy => move_weights(&database).await,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %error.chain(), "folding failed and will be tried again");
            }
        }
    }
}

/// How often the audit logs are sealed; an entry waits at most 5 s.
const SEAL_EVERY: Duration = Duration::from_secs(2);

/// Seals the audit logs. Each seal is in the log of this process too, where nobody who owns the database can change it.
async fn seal_for_ever(database: Database) {
    let mut ticks = tokio::time::interval(SEAL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match seals::seal_once(&database).await {
            Ok(Some(seal)) => {
                tracing::info!(%seal, "audit log sealed");
                ticks.reset_immediately();
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %error.chain(), "the audit log was not sealed and will be tried again");
            }
        }
    }
}

/// What was folded may ask for other weights of a bandit's variants.
async fn move_weights(database: &Database) {
    if let Err(error) = weights::update(database).await {
        tracing::warn!(error = %error.chain(), "weights of bandits were not updated and will be tried again");
    }
}

/// How often caps of values are looked after.
const CAP_EVERY: Duration = Duration::from_secs(60);
/// How old caps of values may become: every computation reads all units of an experiment.
const CAPS_KEPT: Duration = Duration::from_secs(300);

/// Keeps the caps of values up to date.
async fn cap_values_for_ever(database: Database) {
    let mut ticks = tokio::time::interval(CAP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = winsorize::refresh(&database, CAPS_KEPT).await {
            tracing::warn!(error = %error.chain(), "caps of values were not computed and will be tried again");
        }
    }
}

/// How often notes of keys and refusals are stored.
const STORE_NOTES_EVERY: Duration = Duration::from_secs(60);

async fn store_notes_for_ever(state: Data<AppState>) {
    loop {
        tokio::time::sleep(STORE_NOTES_EVERY).await;
        store_notes(&state).await;
    }
}

/// Stores when API keys were used, and which changes were refused.
pub async fn store_notes(state: &AppState) {
    if let Err(error) = state.auth.uses.store(&state.database).await {
        tracing::warn!(error = %error.chain(), "the last uses of API keys were not stored and will be tried again");
    }
    if let Err(error) = state.refusals.store(&state.database).await {
        tracing::warn!(error = %error.chain(), "refused changes are not in the audit log yet and will be tried again");
    }
}

/// Runs work on a thread of its own until somebody asks to stop: the engine borrows across its transactions in ways that
/// keep it on one thread.
fn on_a_thread(
    work: impl AsyncFnOnce() + Send + 'static,
    mut stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = work() => {}
            }
        });
    })
}

/// How often alerts, guards and rollouts are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(60);

/// Looks at alerts, guards and rollouts, where no worker does it. Of several replicas each tries; nothing is done twice.
async fn watch_for_ever(engine: Engine, database: Database) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A starting replica knows nothing of the last minute yet.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        match leases::is_held(&database, leases::WORKER).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = %error.chain(), "it is not known whether a worker lives");
                continue;
            }
        }
        let origin = Origin {
            actor: "podium-api".to_owned(),
            request_id: format!("{:032x}", ids::random()),
            address: None,
        };
        if let Err(error) = engine.watch(&origin).await {
            tracing::warn!(%error, "alerts and guards were not looked at and will be in a minute");
        }
    }
}

/// How often a replica stores how many assignments it could not make.
const COUNT_EVERY: Duration = Duration::from_secs(10);

async fn count_assignments(serving: Arc<Serving>, database: Database) {
    let mut ticks = tokio::time::interval(COUNT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let counts = serving.take_counts();
        if counts.is_empty() {
            continue;
        }
        let stored = match database.work().await {
            Ok(mut link) => alerts::count_assignments(&mut link, &counts).await,
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            tracing::debug!(error = %error.chain(), "counts of assignments wait for the database");
            serving.give_back_counts(&counts);
        }
    }
}

async fn keep_partitions(database: Database, retention_days: Option<i32>) {
    loop {
        if let Err(error) = retention::create_partitions(&database).await {
            tracing::warn!(error = %error.chain(), "event partitions could not be made ahead");
        }
        if let Err(error) = idempotency::sweep(&database).await {
            tracing::warn!(error = %error.chain(), "old answers could not be deleted");
        }
        if let Err(error) = covariates::forget_abandoned(&database).await {
            tracing::warn!(error = %error.chain(), "abandoned uploads could not be deleted");
        }
        if let Some(days) = retention_days {
            match retention::drop_old(&database, days).await {
                Ok(dropped) if dropped.is_empty() => {}
                Ok(dropped) => {
                    tracing::info!(partitions = ?dropped, "events beyond the retention were dropped");
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "old events could not be dropped");
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
}

/// How often what only the database knows is read for the metrics.
const READ_EVERY: Duration = Duration::from_secs(15);

/// Keeps the metrics that come from the database up to date.
async fn read_metrics_for_ever(state: Data<AppState>) {
    let mut ticks = tokio::time::interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = state.metrics.refresh(&state.database).await {
            tracing::debug!(error = %error.chain(), "metrics of the database were not read");
        }
    }
}

/// Notices that the database went away, and that it is back.
async fn probe_for_ever(database: Database) {
    loop {
        let pause = if database.probe().await { 1_000 } else { 250 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}
