//! What each command does, once.

use indicatif::{ProgressBar, ProgressStyle};
use podium_promotion::EngineError;
use podium_promotion::config::Request;
use podium_promotion::decide::{Question, Requester};
use podium_promotion::engine::Asked;
use podium_promotion::replay;
use podium_settings::clock::{Clock as _, SystemClock};
use podium_settings::ids;
use podium_storage::audit::Origin;
use podium_storage::experiments::ExperimentRef;
use podium_storage::promotions::{read, records};
use uuid::Uuid;

use crate::cli::Worker;
use crate::error::WorkerError;
use crate::show;

/// Experiments from which on a scan shows how far it is.
const MANY: usize = 20;

/// Who the audit log says it was.
pub(crate) fn origin() -> Origin {
    Origin {
        actor: "promotion-worker".to_owned(),
        request_id: ids::uuid_at(SystemClock.now()).to_string(),
        address: None,
    }
}

fn named(name: &str) -> Result<ExperimentRef, WorkerError> {
    ExperimentRef::parse(name).ok_or_else(|| WorkerError::NoName(name.to_owned()))
}

fn question(requester: Requester, variant: Option<String>) -> Question {
    Question { requester, variant }
}

pub(crate) async fn scan(worker: &Worker, request: &Request) -> Result<(), WorkerError> {
    let bar = ProgressBar::no_length();
    if let Ok(style) =
        ProgressStyle::with_template("scanning {wide_bar} {pos} of {len} experiments")
    {
        bar.set_style(style);
    }
    let progress = |done: usize, all: usize| {
        // The bar shows itself on a terminal only.
        if all >= MANY {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
    };
    let scanned = worker.engine.scan(request, &origin(), &progress).await;
    bar.finish_and_clear();
    let scanned = scanned?;
    show::scan(worker.json, &scanned)?;
    // One experiment's failure is its own; an outage of the database is everybody's.
    let outage = scanned.items.into_iter().find_map(|item| match item.error {
        Some(EngineError::Storage(error)) if error.is_outage() => Some(error),
        _ => None,
    });
    outage.map_or(Ok(()), |error| Err(error.into()))
}

pub(crate) async fn check(
    worker: &Worker,
    name: &str,
    request: &Request,
) -> Result<(), WorkerError> {
    let question = question(Requester::Engine, None);
    let checked = worker
        .engine
        .check(&named(name)?, &question, request)
        .await?;
    show::check(worker.json, &checked)
}

pub(crate) async fn promote(
    worker: &Worker,
    name: &str,
    variant: Option<String>,
    request: Request,
) -> Result<(), WorkerError> {
    let asked = Asked {
        experiment: named(name)?,
        question: question(Requester::Person, variant),
        request,
        force: None,
    };
    match worker.engine.promote(&asked, &origin()).await {
        Ok(promoted) => show::promoted(worker.json, &promoted),
        Err(EngineError::NotEligible(checked)) => {
            show::check(worker.json, &checked)?;
            Err(WorkerError::Engine(EngineError::NotEligible(checked)))
        }
        Err(other) => Err(other.into()),
    }
}

pub(crate) async fn roll_back(
    worker: &Worker,
    id: Uuid,
    reason: &str,
    request: &Request,
) -> Result<(), WorkerError> {
    let taken = worker
        .engine
        .take_back(id, reason, request, &origin())
        .await?;
    show::rolled_back(worker.json, &taken)
}

pub(crate) async fn stats(worker: &Worker) -> Result<(), WorkerError> {
    let stats = read::stats(&worker.database).await?;
    show::stats(worker.json, &stats)
}

pub(crate) async fn replay(worker: &Worker, id: i64) -> Result<(), WorkerError> {
    let record = records::by_id(&mut worker.database.serve().await?, id).await?;
    let record = record.ok_or(WorkerError::NoRecord(id))?;
    let replayed = replay::replay(&record)?;
    show::replay(worker.json, &replayed)?;
    if replayed.same {
        Ok(())
    } else {
        Err(WorkerError::Differs(id))
    }
}
