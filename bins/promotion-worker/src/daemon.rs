//! `run`: scans, watches, moves rollouts on and sends notifications until it is asked to stop.
//!
//! A lease makes one daemon the one that works; another waits and takes over within half a minute when the first one is
//! killed. Every change is one transaction, so being stopped anywhere leaves nothing half done.

use std::sync::Arc;
use std::time::Duration;

use podium_notifications::{Sender, World};
use podium_promotion::EngineError;
use podium_promotion::config::Request;
use podium_settings::clock::{Clock as _, SystemClock};
use podium_settings::ids;
use podium_storage::{StorageError, leases};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::cli::Worker;
use crate::commands::origin;
use crate::error::WorkerError;

/// How often the lease is renewed, and how long it lasts.
const RENEW: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(30);
/// How often alerts, guards and rollouts are looked at.
const WATCH: Duration = Duration::from_secs(60);
/// How long work under way may take once somebody has asked to stop; the orchestrator's limit is 10 s.
const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) async fn run(
    worker: &Worker,
    every: Duration,
    request: &Request,
) -> Result<(), WorkerError> {
    let (mut term, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let holder = ids::uuid_at(SystemClock.now());
    let (stop_sending, stopped) = watch::channel(false);
    let sender = Sender::new(
        worker.database.clone(),
        worker.notifications.clone(),
        world(),
    )?;
    let sending = tokio::spawn(podium_notifications::run(sender, stopped));
    tracing::info!(every_seconds = every.as_secs(), "the worker runs");
    let mut work = Box::pin(work(worker, holder, every, request));
    tokio::select! {
        () = &mut work => {}
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    // What is under way holds connections that giving back the lease needs.
    drop(work);
    let _ = stop_sending.send(true);
    let end = async {
        // What it had begun and not committed is rolled back by the database.
        leases::give_back(&worker.database, leases::WORKER, holder).await?;
        let _ = sending.await;
        Ok::<_, StorageError>(())
    };
    match tokio::time::timeout(PATIENCE, end).await {
        Ok(Ok(())) => {}
        _ => tracing::warn!("the lease, or what was on its way, ends by itself"),
    }
    tracing::info!("stopped");
    Ok(())
}

/// The clock, and dice for the jitter of retries.
fn world() -> World {
    World {
        now: Arc::new(|| SystemClock.now()),
        chance: Arc::new(ids::chance),
    }
}

/// Renews the lease, and looks and scans while it has it. A scan may take long, and neither the lease nor a harmful promotion
/// waits for its end.
async fn work(worker: &Worker, holder: Uuid, every: Duration, request: &Request) {
    let (leads, leading) = watch::channel(false);
    let renewing = async {
        let mut renew = ticks(RENEW);
        loop {
            renew.tick().await;
            let led = *leads.borrow();
            leads.send_replace(lead(worker, holder, led).await);
        }
    };
    let looking = while_leading(WATCH, leading.clone(), async || look(worker).await);
    let scanning = while_leading(every, leading, async || scan_once(worker, request).await);
    tokio::join!(renewing, looking, scanning);
}

async fn while_leading(every: Duration, mut leading: watch::Receiver<bool>, work: impl AsyncFn()) {
    let mut due = ticks(every);
    loop {
        due.tick().await;
        if leading.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        work().await;
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Takes or renews the lease.
async fn lead(worker: &Worker, holder: Uuid, led: bool) -> bool {
    match leases::take(&worker.database, leases::WORKER, holder, LEASE).await {
        Ok(leads) => {
            if leads != led {
                tracing::info!(leads, "the lease of the worker");
            }
            leads
        }
        Err(error) => {
            tracing::warn!(error = %error.chain(), "the lease of the worker could not be renewed");
            false
        }
    }
}

async fn look(worker: &Worker) {
    match worker.engine.watch(&origin()).await {
        Ok(watch) => {
            for promotion in watch.rolled_back {
                println!(
                    "rolled back {} ({})",
                    promotion.id, promotion.experiment_name
                );
            }
        }
        Err(error) => {
            tracing::warn!(%error, "alerts and guards were not looked at and will be in a minute");
        }
    }
}

async fn scan_once(worker: &Worker, request: &Request) {
    match worker.engine.scan(request, &origin(), &|_, _| {}).await {
        Ok(scan) => tracing::info!(
            scanned = scan.items.len(),
            eligible = scan.eligible(),
            promoted = scan.promoted(),
            skipped = scan.skipped(),
            failed = scan.failed(),
            "scanned"
        ),
        Err(EngineError::Scanning) => {
            tracing::info!("another scan is running; this one is left out");
        }
        Err(error) => tracing::warn!(%error, "the scan failed and will be tried again"),
    }
}
