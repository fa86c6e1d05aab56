//! Work that goes on for as long as the process runs. Of several replicas each tries; locks, leases and watermarks in the
//! database see to it that nothing is done twice.

use std::time::Duration;

use actix_web::web::Data;
use podium_promotion::Engine;
use podium_storage::audit::Origin;
use podium_storage::bandit::weights;
use podium_storage::experiments::covariates;
use podium_storage::{
    ConnectSettings, Database, StorageError, alerts, fold, idempotency, leases, retention, seals,
    winsorize,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::ids;
use crate::server::migrate_now;
use crate::state::AppState;

/// From the start of one pass of folding to that of the next. A pass writes three rows for each unit that had an event, so
/// rare passes are cheap; readers may wait 3 s, of which a pass itself needs the rest.
const FOLD_EVERY: Duration = Duration::from_secs(2);
/// How often the audit logs are sealed; an entry waits at most 5 s.
const SEAL_EVERY: Duration = Duration::from_secs(2);
/// How often caps of values are looked after.
const CAP_EVERY: Duration = Duration::from_secs(60);
/// How old caps of values may become: every computation reads all units of an experiment.
const CAPS_KEPT: Duration = Duration::from_secs(300);
/// How often partitions are made, and what is too old is deleted.
const CLEAN_EVERY: Duration = Duration::from_secs(3_600);
/// How often notes of keys and refusals are stored.
const STORE_NOTES_EVERY: Duration = Duration::from_secs(60);
/// How often a replica stores how many assignments it could not make.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// How often what only the database knows is read for the metrics.
const READ_EVERY: Duration = Duration::from_secs(15);
/// How often alerts, guards and rollouts are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(60);

/// When work that was done is to be done again.
enum Next {
    /// When its period is over.
    InTime,
    /// At once: it is behind.
    AtOnce,
}

/// Does `work` now and every `period`. What `failed` is logged, and tried again the next time. Work that takes longer than
/// the period delays the next time instead of doubling up.
async fn every<F>(period: Duration, failed: &'static str, mut work: impl FnMut() -> F)
where
    F: Future<Output = Result<Next, StorageError>>,
{
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match work().await {
            Ok(Next::InTime) => {}
            Ok(Next::AtOnce) => ticks.reset_immediately(),
            // Nobody needs a line every few seconds to hear that the database is away.
            Err(error) if error.is_outage() => {
                tracing::debug!(error = %error.chain(), "{failed} and will be tried again");
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "{failed} and will be tried again");
            }
        }
    }
}

/// [`every`] as a task of its own. Each turn gets a handle of its own, because its future outlives the call that makes it.
fn spawn<H, F>(
    period: Duration,
    failed: &'static str,
    handle: &H,
    work: impl Fn(H) -> F + Send + 'static,
) -> JoinHandle<()>
where
    H: Clone + Send + 'static,
    F: Future<Output = Result<Next, StorageError>> + Send + 'static,
{
    let handle = handle.clone();
    tokio::spawn(every(period, failed, move || work(handle.clone())))
}

/// Starts all of it that needs no more than the database, or what handlers work with.
pub(crate) fn start(state: &Data<AppState>) -> Vec<JoinHandle<()>> {
    let database = &state.database;
    vec![
        spawn(FOLD_EVERY, "folding failed", database, fold),
        spawn(SEAL_EVERY, "the audit log was not sealed", database, seal),
        spawn(
            CAP_EVERY,
            "caps of values were not computed",
            database,
            cap_values,
        ),
        spawn(
            CLEAN_EVERY,
            "what is old was not cleared away",
            state,
            clean,
        ),
        spawn(STORE_NOTES_EVERY, "notes were not stored", state, notes),
        spawn(
            COUNT_EVERY,
            "counts of assignments were not stored",
            state,
            count_assignments,
        ),
        spawn(
            READ_EVERY,
            "metrics of the database were not read",
            state,
            read_metrics,
        ),
        tokio::spawn(probe_for_ever(database.clone())),
    ]
}

/// Folds, without a pause while it is behind; then what was folded may ask for other weights of a bandit's variants.
async fn fold(database: Database) -> Result<Next, StorageError> {
    let folded = fold::fold_once(&database).await?;
    if folded.busy {
        return Ok(Next::InTime);
    }
    if !folded.caught_up {
        return Ok(Next::AtOnce);
    }
    if let Err(error) = weights::update(&database).await {
        tracing::warn!(error = %error.chain(), "weights of bandits were not updated and will be tried again");
    }
    Ok(Next::InTime)
}

/// Seals the audit logs. Each seal is in the log of this process too, where nobody who owns the database can change it.
async fn seal(database: Database) -> Result<Next, StorageError> {
    let Some(seal) = seals::seal_once(&database).await? else {
        return Ok(Next::InTime);
    };
    tracing::info!(%seal, "audit log sealed");
    Ok(Next::AtOnce)
}

async fn cap_values(database: Database) -> Result<Next, StorageError> {
    winsorize::refresh(&database, CAPS_KEPT).await?;
    Ok(Next::InTime)
}

/// Makes partitions ahead, and deletes what nobody needs any more. One that fails does not keep the others from it.
async fn clean(state: Data<AppState>) -> Result<Next, StorageError> {
    let database = &state.database;
    if let Err(error) = retention::create_partitions(database).await {
        tracing::warn!(error = %error.chain(), "partitions could not be made ahead");
    }
    if let Err(error) = idempotency::sweep(database).await {
        tracing::warn!(error = %error.chain(), "old answers could not be deleted");
    }
    if let Err(error) = covariates::forget_abandoned(database).await {
        tracing::warn!(error = %error.chain(), "abandoned uploads could not be deleted");
    }
    if let Some(days) = state.config.event_retention_days {
        let dropped = retention::drop_old(database, days).await?;
        if !dropped.is_empty() {
            tracing::info!(partitions = ?dropped, "events beyond the retention were dropped");
        }
    }
    Ok(Next::InTime)
}

async fn notes(state: Data<AppState>) -> Result<Next, StorageError> {
    store_notes(&state).await;
    Ok(Next::InTime)
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

async fn count_assignments(state: Data<AppState>) -> Result<Next, StorageError> {
    let counts = state.serving.take_counts();
    if counts.is_empty() {
        return Ok(Next::InTime);
    }
    let stored = match state.database.work().await {
        Ok(mut link) => alerts::count_assignments(&mut link, &counts).await,
        Err(error) => Err(error),
    };
    if stored.is_err() {
        state.serving.give_back_counts(&counts);
    }
    stored.map(|()| Next::InTime)
}

/// Keeps the metrics that come from the database up to date.
async fn read_metrics(state: Data<AppState>) -> Result<Next, StorageError> {
    state.metrics.refresh(&state.database).await?;
    Ok(Next::InTime)
}

/// Notices that the database went away, and that it is back.
async fn probe_for_ever(database: Database) {
    loop {
        let pause = if database.probe().await { 1_000 } else { 250 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Brings the schema up to date once the database is there.
pub(crate) async fn migrate_later(owner: ConnectSettings) {
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

/// Looks at alerts, guards and rollouts every minute, where no worker does it, until somebody asks to stop.
pub(crate) fn watch(
    engine: Engine,
    database: Database,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    on_a_thread(
        async move || watch_for_ever(engine, database).await,
        stopped,
    )
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

/// Looks at alerts, guards and rollouts, where no worker does it. Of several replicas each tries; nothing is done twice.
async fn watch_for_ever(engine: Engine, database: Database) {
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A starting replica knows nothing of the last minute yet.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        watch_if_nobody_does(&engine, &database).await;
    }
}

/// One look at alerts, guards and rollouts, unless a worker lives that does it. What failed is logged, and looked at again
/// a minute later.
pub async fn watch_if_nobody_does(engine: &Engine, database: &Database) {
    match leases::is_held(database, leases::WORKER).await {
        Ok(true) => return,
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(error = %error.chain(), "it is not known whether a worker lives");
            return;
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
