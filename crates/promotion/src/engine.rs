//! The engine: gathers in one snapshot, decides, applies in one transaction.
//!
//! A look is recorded before its verdict is used, in a short transaction of its own that fails when somebody else was
//! first ([`podium_storage::promotions::analyses`]); then everything is read and decided again under a lock on the
//! experiment, in the transaction that promotes. So two that race promote once, and what changed in between is seen.

mod apply;
mod error;
mod scan;
mod watch;

pub use error::EngineError;
pub use scan::{Item, Outcome, Scan};
pub use watch::Watch;

use std::sync::Arc;
use std::time::Duration;

use podium_domain::decision::look::{Look, Snapshot, unspent_at_end};
use podium_domain::experiment::Action;
use podium_storage::audit::Origin;
use podium_storage::experiments::model::{Experiment, ExperimentRef};
use podium_storage::experiments::{ChangeError, Precondition};
use podium_storage::promotions::analyses::{self, NewLooks, Reopening, StoredAnalysis, StoredLook};
use podium_storage::promotions::commands::{self, Rollback};
use podium_storage::promotions::model::Promotion;
use podium_storage::promotions::read::{self, Gathered};
use podium_storage::{Database, fold, winsorize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::{Effective, Environment, PromotionConfig, Request};
use crate::decide::{DECISION_VERSION, Decision, Question, Requester, decide, new_looks};
use crate::evidence::{Evidence, SafetyReading, Treatment};
use crate::gather::{evidence, experiment_layer, safety};
use crate::message;

/// How often a promotion is tried again when the slot turned or somebody else was at it.
const ROUNDS: u32 = 5;
/// Passes of folding before a decision; each takes up to 50,000 events.
const FOLDS: u32 = 40;
/// Caps of values that are older are found anew before a scan.
const CAPS_KEPT: Duration = Duration::from_secs(60);

/// The promotion engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    database: Database,
    environment: Arc<Environment>,
}

/// An experiment with what is decided about it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The experiment as it was read.
    pub experiment: Experiment,
    /// The configuration in force.
    pub effective: Effective,
    /// What was asked.
    pub question: Question,
    /// What the decision looked at.
    pub evidence: Evidence,
    /// What was decided.
    pub decision: Decision,
}

impl Checked {
    /// The treatment that the decision is about.
    #[must_use]
    pub fn candidate(&self) -> Option<&Treatment> {
        let treatments = &self.evidence.treatments;
        treatments
            .iter()
            .find(|treatment| Some(treatment.arm.variant_id) == self.decision.candidate)
    }
}

/// An experiment with what a decision about it looks at.
struct Prepared {
    effective: Effective,
    question: Question,
    evidence: Evidence,
    gathered: Gathered,
}

impl Prepared {
    /// Takes up that looks were recorded.
    fn with_looks(mut self, new: &[(i64, Vec<Look>)]) -> Self {
        for (variant, looks) in new {
            let mut treatments = self.evidence.treatments.iter_mut();
            if let Some(treatment) = treatments.find(|t| t.arm.variant_id == *variant) {
                treatment.looks.extend(looks.iter().copied());
            }
        }
        self
    }

    fn decided(self) -> Checked {
        let decision = decide(&self.effective.config, &self.evidence, &self.question);
        Checked {
            experiment: self.gathered.experiment,
            effective: self.effective,
            question: self.question,
            evidence: self.evidence,
            decision,
        }
    }
}

/// What a person or the engine asks to be promoted.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The experiment.
    pub experiment: ExperimentRef,
    /// Who asks, and for which variant.
    pub question: Question,
    /// What the request says of the configuration.
    pub request: Request,
    /// The reason of whoever may promote what is not eligible, and wants to.
    pub force: Option<String>,
}

/// What came of a request to promote.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// The promotion; none in a dry run.
    pub promotion: Option<Promotion>,
    /// What was decided, from what.
    pub checked: Box<Checked>,
    /// The variant that was promoted, or would have been.
    pub variant_id: i64,
    /// Its name.
    pub variant_name: String,
    /// Whether it was not eligible and was forced.
    pub forced: bool,
    /// The smallest relative drop in conversion that the guard finds with 80 % within the watch at present traffic; `None`
    /// where nothing is compared.
    pub detectable_drop: Option<f64>,
    /// Deliveries that were queued, or in a dry run would have been.
    pub notifications: usize,
    /// The record of the decision; none in a dry run.
    pub record_id: Option<i64>,
}

/// What came of a person's request to take a promotion back.
#[derive(Clone, Debug)]
pub struct TakenBack {
    /// The promotion; in a dry run as it stands, in force.
    pub promotion: Promotion,
    /// The configuration in force.
    pub effective: Effective,
}

/// What came of a restart.
#[derive(Clone, Debug)]
pub struct Restarted {
    /// The experiment after it.
    pub experiment: Experiment,
    /// Number of the analysis that begins.
    pub analysis: i32,
    /// The part of alpha that is left to it.
    pub unspent: f64,
}

impl Engine {
    /// An engine on a database, with the configuration of its process.
    #[must_use]
    pub fn new(database: Database, environment: Environment) -> Self {
        Self {
            database,
            environment: Arc::new(environment),
        }
    }

    /// The configuration of the process.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What is in force for an experiment, or for all when none is named.
    ///
    /// # Errors
    /// [`EngineError::Config`] with every fault, [`EngineError::NotFound`].
    pub async fn configuration(
        &self,
        which: Option<&ExperimentRef>,
        request: &Request,
    ) -> Result<Effective, EngineError> {
        let layer = match which {
            None => None,
            Some(which) => {
                let experiment = podium_storage::experiments::read(&self.database, which).await?;
                experiment_layer(&experiment.ok_or(EngineError::NotFound("this experiment"))?)
            }
        };
        Ok(self.environment.resolve(layer.as_ref(), request)?)
    }

    /// What a scan, or a person's request, would answer at this moment. Records nothing.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Config`].
    pub async fn check(
        &self,
        which: &ExperimentRef,
        question: &Question,
        request: &Request,
    ) -> Result<Checked, EngineError> {
        let prepared = self.prepare(which, question, request).await?;
        computed(move || prepared.decided()).await
    }

    async fn prepare(
        &self,
        which: &ExperimentRef,
        question: &Question,
        request: &Request,
    ) -> Result<Prepared, EngineError> {
        let gathered = self
            .database
            .snapshot(async |tx| Ok::<_, EngineError>(read::gather(tx, which).await?));
        let gathered = gathered
            .await?
            .ok_or(EngineError::NotFound("this experiment"))?;
        self.prepared(gathered, question, request)
    }

    /// Promotions within an hour, over all workers: what the installation and the request say, or less where the experiment
    /// asks for less. No experiment lifts the limit of the others.
    fn most_an_hour(
        &self,
        config: &PromotionConfig,
        request: &Request,
    ) -> Result<u32, EngineError> {
        let shared = self.environment.resolve(None, request)?.config;
        Ok(config
            .max_concurrent_promotions
            .min(shared.max_concurrent_promotions))
    }

    fn prepared(
        &self,
        gathered: Gathered,
        question: &Question,
        request: &Request,
    ) -> Result<Prepared, EngineError> {
        let layer = experiment_layer(&gathered.experiment);
        let effective = self.environment.resolve(layer.as_ref(), request)?;
        let standing = self
            .environment
            .resolve(layer.as_ref(), &Request::default())?
            .config;
        let lookback = effective.config.safety_checks.alert_lookback_hours;
        let safety = |variant| safety(&gathered, variant, lookback);
        let evidence = evidence(&gathered, &standing, &safety);
        Ok(Prepared {
            effective,
            question: question.clone(),
            evidence,
            gathered,
        })
    }

    /// Brings totals and caps up to date as far as can be; how old they stay is seen by the decision.
    async fn refresh(&self) {
        self.fold().await;
        if let Err(error) = winsorize::refresh(&self.database, CAPS_KEPT).await {
            tracing::warn!(error = %error.chain(), "caps were not found before a decision");
        }
    }

    async fn fold(&self) {
        for _ in 0..FOLDS {
            match fold::fold_once(&self.database).await {
                Ok(folded) if folded.caught_up || folded.busy => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "totals were not folded before a decision");
                    break;
                }
            }
        }
    }

    /// Checks an experiment and records the looks that are due, so that their verdict may be used. A frozen design that
    /// was changed ends its analysis here. A dry run does neither, and so do experiments that the engine leaves alone.
    async fn look(&self, asked: &Asked, origin: &Origin) -> Result<Checked, EngineError> {
        for _ in 0..ROUNDS {
            let (which, question) = (&asked.experiment, &asked.question);
            let prepared = self.prepare(which, question, &asked.request).await?;
            if !is_looked_at(&prepared) {
                return computed(move || prepared.decided()).await;
            }
            if let Some(what) = changed(&prepared) {
                let which = ExperimentRef::Id(prepared.gathered.experiment.id);
                let reason = format!("{what} changed");
                self.restart_because(&which, &Precondition::Any, &reason, origin)
                    .await?;
                continue;
            }
            let (prepared, new) = computed(move || {
                let new = new_looks(&prepared.effective.config, &prepared.evidence);
                (prepared, new)
            })
            .await?;
            if new.is_empty() || self.record(&prepared, &new, origin).await? {
                return computed(move || prepared.with_looks(&new).decided()).await;
            }
        }
        Err(EngineError::Contended)
    }

    async fn record(
        &self,
        prepared: &Prepared,
        new: &[(i64, Vec<Look>)],
        origin: &Origin,
    ) -> Result<bool, EngineError> {
        let Some(analysis) = stored(&prepared.gathered, &prepared.evidence) else {
            return Ok(false);
        };
        let looks = new.iter().flat_map(|(variant_id, looks)| {
            looks.iter().map(|look| StoredLook {
                variant_id: *variant_id,
                look: *look,
            })
        });
        let new = NewLooks {
            experiment_id: prepared.gathered.experiment.id,
            analysis,
            looks: looks.collect(),
            settings: json!({
                "preset": prepared.effective.preset.name(),
                "thresholds": prepared.effective.config.thresholds,
                "requester": prepared.question.requester,
                "actor": origin.actor,
            }),
            actor: origin.actor.clone(),
        };
        match analyses::record(&self.database, &new).await {
            Ok(recorded) => Ok(recorded),
            // Somebody else has recorded the same slot in between.
            Err(error) if error.unique_violation().is_some() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Promotes an experiment's winner, if it is eligible, or if whoever asks forces it. A dry run answers what a live
    /// run would have, and writes nothing.
    ///
    /// # Errors
    /// [`EngineError::NotEligible`] with the check's answer; the others as [`Self::check`].
    pub async fn promote(&self, asked: &Asked, origin: &Origin) -> Result<Promoted, EngineError> {
        self.refresh().await;
        self.promote_fresh(asked, origin).await
    }

    /// Takes a promotion back because a person asks for it. A dry run, of the request or of the environment, answers what a
    /// live run would have, and writes nothing.
    ///
    /// # Errors
    /// [`EngineError::Config`], and those of [`Self::roll_back`].
    pub async fn take_back(
        &self,
        id: Uuid,
        reason: &str,
        request: &Request,
        origin: &Origin,
    ) -> Result<TakenBack, EngineError> {
        let effective = self.environment.resolve(None, request)?;
        let promotion = if effective.config.dry_run {
            let found = read::by_id(&mut self.database.serve().await?, id).await?;
            let found = found.ok_or(EngineError::NotFound("this promotion"))?;
            if found.rollback_at.is_some() {
                return Err(EngineError::RolledBack(Box::new(found)));
            }
            found
        } else {
            self.roll_back(id, reason, true, None, origin).await?
        };
        Ok(TakenBack {
            promotion,
            effective,
        })
    }

    /// Takes a promotion back. It asks nothing of statistics or notifications.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::RolledBack`] with the first rollback's result.
    pub async fn roll_back(
        &self,
        id: Uuid,
        reason: &str,
        manual: bool,
        evidence: Option<Value>,
        origin: &Origin,
    ) -> Result<Promotion, EngineError> {
        let rollback = Rollback {
            id,
            reason,
            manual,
            evidence,
            version: DECISION_VERSION,
        };
        let by = manual.then_some(origin.actor.as_str());
        let done = self.database.transaction(async |tx| {
            commands::roll_back(tx, origin, &rollback, |promotion| {
                message::rolled_back(promotion, by, reason)
            })
            .await
        });
        Ok(done.await?)
    }

    /// Ends the analysis of an experiment and opens a new one, on units that are assigned from now on, with the alpha
    /// that is left.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Change`] for an experiment that is neither running nor paused.
    pub async fn restart(
        &self,
        which: &ExperimentRef,
        when: &Precondition,
        origin: &Origin,
    ) -> Result<Restarted, EngineError> {
        self.refresh().await;
        self.restart_because(which, when, "restarted by a person", origin)
            .await
    }

    async fn restart_because(
        &self,
        which: &ExperimentRef,
        when: &Precondition,
        reason: &str,
        origin: &Origin,
    ) -> Result<Restarted, EngineError> {
        let done = self.database.transaction_of_one_moment(async |tx| {
            commands::lock(tx, which, when).await?;
            let gathered = read::gather(tx, which).await?;
            let gathered = gathered.ok_or(EngineError::NotFound("this experiment"))?;
            let layer = experiment_layer(&gathered.experiment);
            // A configuration that is wrong must not keep anybody from a restart: the design alone matters here.
            let standing = self.environment.standing(layer.as_ref());
            let evidence = evidence(&gathered, &standing, &|_| SafetyReading::default());
            let ending = ending(&gathered, &evidence)?;
            let unspent = unspent(&evidence, &standing)?;
            let with = Reopening {
                ending: &ending,
                unspent,
                reason,
                actor: &origin.actor,
            };
            let experiment = commands::restart(tx, origin, &gathered.experiment, &with).await?;
            Ok::<_, EngineError>(Restarted {
                experiment,
                analysis: ending.number.saturating_add(1),
                unspent,
            })
        });
        done.await
    }
}

/// Whether looks are recorded for whoever asks.
fn is_looked_at(prepared: &Prepared) -> bool {
    let config = &prepared.effective.config;
    let wanted = config.enabled || prepared.question.requester == Requester::Person;
    let name = &prepared.gathered.experiment.name;
    wanted && !config.dry_run && !config.excluded_experiments.contains(name)
}

/// What of a frozen design was changed, where a new analysis can be opened for it.
fn changed(prepared: &Prepared) -> Option<String> {
    // A new analysis forgives a rollback, and only a person may do that.
    if prepared.evidence.history.rolled_back_at.is_some() {
        return None;
    }
    let status = prepared.gathered.experiment.status;
    let open = prepared.evidence.analysis.as_ref()?;
    let changed = open.changed.clone()?;
    status.after(Action::RestartAnalysis).ok().map(|_| changed)
}

/// The open analysis as it is stored, or as it is going to be with the first look.
fn stored(gathered: &Gathered, evidence: &Evidence) -> Option<StoredAnalysis> {
    let open = evidence.analysis.as_ref()?;
    Some(StoredAnalysis {
        number: open.number,
        from_epoch: open.from_epoch,
        started_at: open.analysis.start,
        unspent: open.analysis.unspent,
        design: Some(open.analysis.design.clone()),
        looks: gathered.analysis.as_ref().map_or(0, |stored| stored.looks),
    })
}

/// The analysis that a restart ends.
fn ending(gathered: &Gathered, evidence: &Evidence) -> Result<StoredAnalysis, EngineError> {
    let status = gathered.experiment.status;
    status
        .after(Action::RestartAnalysis)
        .map_err(ChangeError::from)?;
    stored(gathered, evidence).ok_or(EngineError::NotFound("an analysis"))
}

/// Runs what takes milliseconds, with many looks a second, where it keeps nobody waiting who shares the thread.
async fn computed<T: Send + 'static>(
    computation: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(computation).await;
    done.map_err(EngineError::Interrupted)
}

/// The alpha that an analysis leaves: slots that nobody asked for have spent their part too.
fn unspent(evidence: &Evidence, standing: &PromotionConfig) -> Result<f64, EngineError> {
    let Some(open) = &evidence.analysis else {
        return Ok(1.0);
    };
    let known: Vec<(&[Look], Snapshot<'_>)> = evidence
        .treatments
        .iter()
        .map(|treatment| {
            let snapshot = Snapshot {
                now: evidence.now,
                strata: treatment.strata.as_deref().unwrap_or_default(),
                min_confidence: standing.thresholds.min_confidence,
            };
            (treatment.looks.as_slice(), snapshot)
        })
        .collect();
    unspent_at_end(&open.analysis, &known).map_err(|_| EngineError::Unspendable)
}
