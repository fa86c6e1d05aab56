//! Going through all running experiments, one scan at a time.

use podium_storage::audit::Origin;
use podium_storage::experiments::model::ExperimentRef;
use podium_storage::promotions::scan;

use super::{Asked, Checked, Engine, EngineError};
use crate::config::{Effective, Request};
use crate::decide::Question;

/// What came of one experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was promoted.
    Promoted,
    /// It would have been promoted, were this no dry run.
    WouldPromote,
    /// It is not eligible.
    NotEligible,
    /// It is on the exclusion list.
    Excluded,
    /// It is eligible, but somebody was faster, or so many were promoted within the hour already.
    Skipped,
    /// It could not be decided.
    Failed,
}

impl Outcome {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::WouldPromote => "would_promote",
            Self::NotEligible => "not_eligible",
            Self::Excluded => "excluded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// One experiment of a scan.
#[derive(Debug)]
pub struct Item {
    /// Its id.
    pub experiment_id: i64,
    /// Its name.
    pub experiment_name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What was decided, where that was possible.
    pub checked: Option<Box<Checked>>,
    /// The promotion.
    pub promotion_id: Option<uuid::Uuid>,
    /// Why it was skipped or failed.
    pub error: Option<EngineError>,
}

/// What a scan found.
#[derive(Debug)]
pub struct Scan {
    /// The configuration in force for all.
    pub effective: Effective,
    /// Every running experiment, the oldest first.
    pub items: Vec<Item>,
}

impl Scan {
    fn count(&self, of: impl Fn(Outcome) -> bool) -> usize {
        self.items.iter().filter(|item| of(item.outcome)).count()
    }

    /// Experiments that met every criterion.
    #[must_use]
    pub fn eligible(&self) -> usize {
        self.count(|o| {
            matches!(
                o,
                Outcome::Promoted | Outcome::WouldPromote | Outcome::Skipped
            )
        })
    }

    /// Experiments that were promoted.
    #[must_use]
    pub fn promoted(&self) -> usize {
        self.count(|o| o == Outcome::Promoted)
    }

    /// Experiments that were passed over.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.count(|o| matches!(o, Outcome::Skipped | Outcome::Excluded))
    }

    /// Experiments that could not be decided.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(|o| o == Outcome::Failed)
    }
}

impl Engine {
    /// Goes through all running experiments and promotes those that are eligible. One that fails does not stop the
    /// others. `progress` hears how many are done, of how many. Before that everything is watched once, because safety
    /// checks ask for alerts and nobody else may evaluate them; a dry run goes by the alerts that there are.
    ///
    /// # Errors
    /// [`EngineError::Config`], [`EngineError::Scanning`]; [`EngineError::Storage`] when the database does not answer, or
    /// alerts cannot be evaluated: what is not known lets nothing pass.
    pub async fn scan(
        &self,
        request: &Request,
        origin: &Origin,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Scan, EngineError> {
        let effective = self.environment.resolve(None, request)?;
        let lock = scan::lock(&self.database)
            .await?
            .ok_or(EngineError::Scanning)?;
        let found = self
            .scan_alone(effective, request, origin, progress, &lock)
            .await;
        lock.release().await;
        found
    }

    async fn scan_alone(
        &self,
        effective: Effective,
        request: &Request,
        origin: &Origin,
        progress: &(dyn Fn(usize, usize) + Sync),
        lock: &scan::ScanLock,
    ) -> Result<Scan, EngineError> {
        self.refresh().await;
        let dry_run = effective.config.dry_run;
        if !dry_run {
            self.look_around(origin).await?;
        }
        let running = scan::running(&self.database).await?;
        let mut found = Scan {
            effective,
            items: Vec::with_capacity(running.len()),
        };
        let recent = scan::recent(&mut self.database.serve().await?).await?;
        for (id, name) in &running {
            progress(found.items.len(), running.len());
            let would = found.count(|o| o == Outcome::WouldPromote);
            let before = recent.saturating_add(i64::try_from(would).unwrap_or(i64::MAX));
            let item = self.one(*id, name, request, before, origin).await;
            found.items.push(item);
        }
        progress(running.len(), running.len());
        if !dry_run && let Err(error) = scan::finish(&self.database, lock).await {
            tracing::warn!(error = %error.chain(), "a scan that is done was not counted");
        }
        Ok(found)
    }

    async fn one(
        &self,
        id: i64,
        name: &str,
        request: &Request,
        before: i64,
        origin: &Origin,
    ) -> Item {
        let mut item = Item {
            experiment_id: id,
            experiment_name: name.to_owned(),
            outcome: Outcome::Failed,
            checked: None,
            promotion_id: None,
            error: None,
        };
        let asked = Asked {
            experiment: ExperimentRef::Id(id),
            question: Question::of_engine(),
            request: request.clone(),
            force: None,
        };
        if let Err(error) = self.visit(&asked, before, origin, &mut item).await {
            tracing::warn!(experiment.id = id, %error, "an experiment could not be decided");
            item.error = Some(error);
        }
        item
    }

    async fn visit(
        &self,
        asked: &Asked,
        before: i64,
        origin: &Origin,
        item: &mut Item,
    ) -> Result<(), EngineError> {
        let checked = self.look(asked, origin).await?;
        let config = &checked.effective.config;
        let dry_run = config.dry_run;
        let excluded = config.excluded_experiments.contains(&item.experiment_name);
        if !dry_run {
            self.keep(&checked, origin).await?;
        }
        item.outcome = if excluded {
            Outcome::Excluded
        } else {
            Outcome::NotEligible
        };
        let (eligible, most) = (
            checked.decision.is_eligible(),
            self.most_an_hour(config, &asked.request)?,
        );
        item.checked = Some(Box::new(checked));
        if !eligible {
            return Ok(());
        }
        if dry_run {
            if before < i64::from(most) {
                item.outcome = Outcome::WouldPromote;
            } else {
                item.outcome = Outcome::Skipped;
                item.error = Some(EngineError::LimitReached {
                    recent: before,
                    most,
                });
            }
            return Ok(());
        }
        match self.promote_fresh(asked, origin).await {
            Ok(promoted) => {
                item.outcome = Outcome::Promoted;
                item.promotion_id = promoted.promotion.map(|promotion| promotion.id);
                item.checked = Some(promoted.checked);
            }
            Err(
                error @ (EngineError::NotEligible(_)
                | EngineError::LimitReached { .. }
                | EngineError::Contended),
            ) => {
                item.outcome = Outcome::Skipped;
                item.error = Some(error);
            }
            Err(other) => {
                item.outcome = Outcome::Failed;
                return Err(other);
            }
        }
        Ok(())
    }
}
