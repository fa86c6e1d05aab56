//! The storefront path: which variant a unit gets, and what its events are recorded as.
//!
//! Everything needed to decide lies in memory: one immutable [`snapshot::Snapshot`] of all definitions, swapped whole,
//! and a bounded cache of known units ([`known::KnownUnits`]). What must be durable goes through two grouped
//! writers of the storage crate: first assignments and events. Nothing here knows HTTP, except that answers are kept as
//! ready JSON bytes, because building them costs more than deciding.
//!
//! | module | what |
//! | --- | --- |
//! | [`snapshot`] | definitions compiled for deciding |
//! | [`known`] | assignments remembered from the table |
//! | [`promotion`] | an active promotion compiled for deciding |
//! | [`assign`] | who gets what |
//! | [`arms`] | arms of rankings with the weights in force |
//! | [`rank`] | orders of candidates |
//! | [`mod@file`] | definitions in a file, for a start without the database |
//! | [`track`] | attribution and recording of events |
//! | [`tally`] | counts of what was answered and recorded |

pub mod arms;
pub mod assign;
pub mod file;
pub mod known;
mod lookups;
pub mod promotion;
pub mod rank;
pub mod snapshot;
pub mod tally;
pub mod track;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use podium_domain::bandit::ArmType;
use podium_storage::assignments::{Assigner, Lookup, LookupAnswer};
use podium_storage::batch::{Batcher, Sizes};
use podium_storage::decisions::Keeper;
use podium_storage::definitions::Definitions;
use podium_storage::events::{EventRow, RecordAnswer, Recorder};
use podium_storage::feed::Feed;
use podium_storage::{Database, StorageError, definitions};
use tokio::sync::oneshot;

use crate::arms::{Gallery, Picture};
use crate::file::{DefinitionsFile, NOTHING_READ};
use crate::known::KnownUnits;
use crate::snapshot::{ExperimentRef, Snapshot, Variant};
use crate::tally::Tallies;

/// Sizes and times of the storefront path.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long an answer waits for the database before it is the default answer.
    pub assign_wait: Duration,
    /// Units remembered from the table.
    pub known_units: usize,
}

/// Jobs that wait for the writers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// First assignments.
    pub assignments: usize,
    /// Requests with events.
    pub events: usize,
    /// Answers of rankings.
    pub decisions: usize,
}

/// The storefront path of one process.
pub struct Serving {
    database: Database,
    settings: Settings,
    snapshot: ArcSwap<Snapshot>,
    file: Option<DefinitionsFile>,
    refreshing: tokio::sync::Mutex<()>,
    known: KnownUnits,
    tallies: Tallies,
    assigner: Batcher<Assigner>,
    recorder: Batcher<Recorder>,
    /// By experiment: units that the table was asked for, and those that got no answer in time.
    asked: Mutex<HashMap<i64, (i64, i64)>>,
    keeper: Batcher<Keeper>,
    gallery: Gallery,
}

impl Serving {
    /// Loads the definitions and starts the writers on the current runtime. While the database is away the definitions are
    /// those of the file, or none, until [`Self::follow`] finds the table's.
    ///
    /// # Errors
    /// [`StorageError`] when the definitions cannot be read although the database is there.
    pub async fn start(
        database: Database,
        settings: Settings,
        file: Option<DefinitionsFile>,
    ) -> Result<Arc<Self>, StorageError> {
        let tallies = Tallies::default();
        let definitions = first_definitions(&database, file.as_ref()).await?;
        let snapshot = Snapshot::compile(definitions, &tallies);
        let (assigner, _) = Batcher::start(
            Assigner::new(database.clone()),
            Sizes {
                writers: 2,
                capacity_rows: 20_000,
                group_rows: 500,
            },
        );
        let (recorder, _) = Batcher::start(
            Recorder::new(database.clone()),
            Sizes {
                writers: 2,
                capacity_rows: 40_000,
                group_rows: 1_000,
            },
        );
        let (keeper, _) = Batcher::start(
            Keeper::new(database.clone()),
            Sizes {
                writers: 2,
                capacity_rows: 10_000,
                group_rows: 500,
            },
        );
        Ok(Arc::new(Self {
            database,
            settings,
            snapshot: ArcSwap::from_pointee(snapshot),
            file,
            refreshing: tokio::sync::Mutex::new(()),
            known: KnownUnits::new(settings.known_units),
            tallies,
            assigner,
            recorder,
            asked: Mutex::default(),
            keeper,
            gallery: Gallery::default(),
        }))
    }

    /// The definitions in force.
    #[must_use]
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Reads the definitions again and puts them in force.
    ///
    /// # Errors
    /// [`StorageError`] when they cannot be read; the old ones stay in force.
    pub async fn refresh(&self) -> Result<(), StorageError> {
        // One at a time, so that an older reading cannot replace a newer one.
        let _turn = self.refreshing.lock().await;
        let definitions = definitions::load(&self.database).await?;
        if definitions.version != self.snapshot().version() {
            keep(self.file.as_ref(), &definitions);
        }
        let snapshot = Snapshot::compile(definitions, &self.tallies);
        // Somebody was forgotten: what is remembered of that unit must not be told any more.
        let forgotten = snapshot.erasures() != self.snapshot().erasures();
        self.snapshot.store(Arc::new(snapshot));
        if forgotten {
            self.known.clear();
        }
        Ok(())
    }

    /// Follows changes that other replicas make, for ever.
    pub async fn follow(self: Arc<Self>, feed: Feed) {
        loop {
            let version = self.snapshot().version();
            feed.changed(version).await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(error = %error.chain(), "definitions could not be read; the old ones stay in force");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Keeps the weights of rankings up to date, for ever.
    pub async fn learn(self: Arc<Self>) {
        self.gallery.follow(&self.database, &self.snapshot).await;
    }

    /// The arms of an experiment as its first ranking variant chooses among them; `None` while nobody ranks such arms.
    #[must_use]
    pub fn picture(&self, experiment_id: i64, arm_type: ArmType) -> Option<Arc<Picture>> {
        let snapshot = self.snapshot();
        let experiment = snapshot.find(ExperimentRef::Id(experiment_id))?;
        let pictures = self.gallery.pictures();
        let of = |variant: &Variant| pictures.get(&(variant.id, arm_type)).cloned();
        experiment.variants.iter().find_map(of)
    }

    /// Looks for what was learned before its time: arms were made or reset.
    pub fn look_soon(&self) {
        self.gallery.look_soon();
    }

    /// What was answered and recorded since the process started.
    #[must_use]
    pub const fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Jobs that wait for the writers.
    #[must_use]
    pub fn queue_depth(&self) -> QueueDepth {
        QueueDepth {
            assignments: self.assigner.depth(),
            events: self.recorder.depth(),
            decisions: self.keeper.depth(),
        }
    }

    /// Waits until everything that was accepted is written or refused.
    pub async fn drain(&self) {
        self.assigner.drain().await;
        self.recorder.drain().await;
        self.keeper.drain().await;
    }

    /// Takes what was counted since the last call: experiment, units that the table was asked for, and those among them
    /// that got no answer in time.
    #[must_use]
    pub fn take_counts(&self) -> Vec<(i64, i64, i64)> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked
            .drain()
            .map(|(experiment, (asked, failed))| (experiment, asked, failed))
            .collect()
    }

    /// Gives counts back that could not be stored.
    pub fn give_back_counts(&self, counts: &[(i64, i64, i64)]) {
        for (experiment, asked, failed) in counts {
            self.add_counts(*experiment, *asked, *failed);
        }
    }

    /// Counts a unit that memory did not know. Its answer waited for a commit, next to which a lock is nothing.
    fn count(&self, experiment: i64, answered: bool) {
        self.add_counts(experiment, 1, i64::from(!answered));
    }

    fn add_counts(&self, experiment: i64, asked: i64, failed: i64) {
        let mut counts = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(experiment).or_default();
        count.0 += asked;
        count.1 += failed;
    }

    fn ask(&self, lookup: Lookup) -> Result<oneshot::Receiver<LookupAnswer>, StorageError> {
        self.assigner.submit(lookup)
    }

    fn record(&self, rows: Vec<EventRow>) -> Result<oneshot::Receiver<RecordAnswer>, StorageError> {
        self.recorder.submit(rows)
    }
}

/// From the table; without it from the file; without that none.
async fn first_definitions(
    database: &Database,
    file: Option<&DefinitionsFile>,
) -> Result<Definitions, StorageError> {
    if database.is_reachable() {
        match definitions::load(database).await {
            Ok(definitions) => {
                keep(file, &definitions);
                return Ok(definitions);
            }
            Err(error) if error.is_outage() => {
                tracing::warn!(error = %error.chain(), "the database is away; starting without it");
            }
            Err(error) => return Err(error),
        }
    }
    database.set_reachable(false);
    let kept = file.map_or(Ok(None), DefinitionsFile::load);
    let kept = kept.unwrap_or_else(|error| {
        tracing::warn!(%error, "starting without definitions");
        None
    });
    Ok(kept.unwrap_or(Definitions {
        version: NOTHING_READ,
        ..Definitions::default()
    }))
}

/// A file that cannot be written takes nothing away from those who are served now.
fn keep(file: Option<&DefinitionsFile>, definitions: &Definitions) {
    if let Some(Err(error)) = file.map(|file| file.save(definitions)) {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the definitions were not kept for a start without the database"
        );
    }
}
