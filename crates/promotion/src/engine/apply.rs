//! The last step: everything is read again under a lock, decided again, and written, all in one transaction.

use podium_domain::experiment::Action;
use podium_domain::notification::Named;
use podium_storage::audit::Origin;
use podium_storage::database::Query;
use podium_storage::experiments::Precondition;
use podium_storage::experiments::model::ExperimentRef;
use podium_storage::outbox;
use podium_storage::promotions::commands::{self, Attempt, Made, NewPromotion};
use podium_storage::promotions::model::Metadata;
use podium_storage::promotions::records::{self, Hold, LastVerdict, NewRecord};
use podium_storage::promotions::{read, scan};
use podium_storage::rollouts;

use super::{Asked, Checked, Engine, EngineError, Promoted, ROUNDS};
use crate::config::PromotionConfig;
use crate::decide::{DECISION_VERSION, Requester, new_looks};
use crate::evidence::Treatment;
use crate::message;

/// What the transaction came to.
enum Applied {
    Made(Box<Made>, Box<Promoted>),
    /// The slot turned, or the design changed: a look has to be recorded first.
    Again,
}

impl Engine {
    /// As [`Engine::promote`], with totals that were brought up to date by the caller. That something failed, and was not
    /// refused, is told.
    pub(super) async fn promote_fresh(
        &self,
        asked: &Asked,
        origin: &Origin,
    ) -> Result<Promoted, EngineError> {
        let done = self.try_promote(asked, origin).await;
        if let Err(error) = &done
            && error.is_failure()
            && let Err(silent) = self.tell_failure(asked, error, origin).await
        {
            tracing::warn!(error = %silent, "that a promotion failed could not be told");
        }
        done
    }

    /// Queues the news in a transaction of its own: that of the promotion is gone.
    async fn tell_failure(
        &self,
        asked: &Asked,
        error: &EngineError,
        origin: &Origin,
    ) -> Result<(), EngineError> {
        let (which, question) = (&asked.experiment, &asked.question);
        let prepared = self.prepare(which, question, &asked.request).await?;
        let config = &prepared.effective.config;
        let by_person = question.requester == Requester::Person;
        let by = by_person.then_some(origin.actor.as_str());
        let message = message::failed(config, &prepared.evidence, by, &error.to_string());
        let Some(message) = message.filter(|_| !config.dry_run) else {
            return Ok(());
        };
        let queued = self.database.transaction(async |tx| {
            outbox::enqueue(tx, &message).await?;
            Ok::<_, EngineError>(())
        });
        queued.await
    }

    async fn try_promote(&self, asked: &Asked, origin: &Origin) -> Result<Promoted, EngineError> {
        for _ in 0..ROUNDS {
            let checked = self.look(asked, origin).await?;
            if checked.effective.config.dry_run {
                return self.foreseen(would(asked, checked)?).await;
            }
            if !checked.decision.is_eligible() && asked.force.is_none() {
                self.note_attempt(&checked, None, origin).await?;
                return Err(EngineError::NotEligible(Box::new(checked)));
            }
            // By its id from here on, so that nobody can slip in another one of the same name.
            let which = ExperimentRef::Id(checked.experiment.id);
            match self.apply(asked, &which, origin).await {
                Ok(Applied::Made(made, promoted)) => {
                    return Ok(Promoted {
                        promotion: Some(made.promotion),
                        record_id: Some(made.record_id),
                        ..*promoted
                    });
                }
                Ok(Applied::Again) => {}
                // Every change of any definition raises one counter, as a promotion does; who meets too many begins anew.
                Err(EngineError::Storage(error)) if error.is_contention() => {}
                Err(EngineError::NotEligible(checked)) => {
                    self.note_attempt(&checked, None, origin).await?;
                    return Err(EngineError::NotEligible(checked));
                }
                Err(error @ EngineError::LimitReached { .. }) => {
                    self.note_attempt(&checked, Some(&error.to_string()), origin)
                        .await?;
                    return Err(error);
                }
                Err(other) => return Err(other),
            }
        }
        Err(EngineError::Contended)
    }

    /// Adds what else a live run would answer.
    async fn foreseen(&self, promoted: Promoted) -> Result<Promoted, EngineError> {
        let config = &promoted.checked.effective.config;
        let (experiment, winner) = (promoted.checked.experiment.id, promoted.variant_id);
        let mut link = self.database.serve().await?;
        let begun = rollouts::foresee(&mut link, experiment, winner, &config.plan()).await?;
        let notifications = listeners(&mut link, config).await?;
        Ok(Promoted {
            detectable_drop: begun.detectable_drop,
            notifications,
            ..promoted
        })
    }

    async fn apply(
        &self,
        asked: &Asked,
        which: &ExperimentRef,
        origin: &Origin,
    ) -> Result<Applied, EngineError> {
        let by_engine = asked.question.requester == Requester::Engine;
        let done = self.database.transaction_of_one_moment(async |tx| {
            if by_engine {
                scan::count_alone(tx).await?;
            }
            commands::lock(tx, which, &Precondition::Any).await?;
            let gathered = read::gather(tx, which).await?;
            let gathered = gathered.ok_or(EngineError::NotFound("this experiment"))?;
            let prepared = self.prepared(gathered, &asked.question, &asked.request)?;
            let config = prepared.effective.config.clone();
            let changed = prepared
                .evidence
                .analysis
                .as_ref()
                .is_some_and(|open| open.changed.is_some());
            if asked.force.is_none()
                && (changed || !new_looks(&config, &prepared.evidence).is_empty())
            {
                return Ok(Applied::Again);
            }
            // Every look that is due is recorded, so that nothing is left to compute under the lock.
            let checked = prepared.decided();
            if by_engine && checked.decision.is_eligible() {
                let mut link = tx;
                let (recent, most) = (
                    scan::recent(&mut link).await?,
                    self.most_an_hour(&config, &asked.request)?,
                );
                if recent >= i64::from(most) {
                    return Err(EngineError::LimitReached { recent, most });
                }
            }
            let mut promoted = would(asked, checked)?;
            let made = commands::promote(tx, origin, planned(asked, &promoted, origin)?).await?;
            let config = &promoted.checked.effective.config;
            let begun = rollouts::begin(tx, made.promotion.id, &config.plan()).await?;
            promoted.detectable_drop = begun.detectable_drop;
            let message = message::promoted(
                &promoted.checked.effective.config,
                &made.promotion,
                &promoted.checked.decision,
                &promoted.checked.evidence.experiment.primary_metric,
                (!by_engine).then_some(origin.actor.as_str()),
                asked.force.as_deref(),
            );
            outbox::enqueue(tx, &message).await?;
            let mut link = tx;
            promoted.notifications = listeners(&mut link, config).await?;
            Ok(Applied::Made(Box::new(made), Box::new(promoted)))
        });
        done.await
    }

    /// Keeps the verdict of a scan. What newly keeps a proved winner back is recorded with its evidence and told, once and
    /// not at every scan.
    pub(super) async fn keep(&self, checked: &Checked, origin: &Origin) -> Result<(), EngineError> {
        let figures = checked.decision.figures.as_ref();
        let verdict = LastVerdict {
            experiment_id: checked.experiment.id,
            verdict: checked.decision.verdict.name().to_owned(),
            reasons: checked.decision.reasons.clone(),
            variant_id: checked.decision.candidate,
            confidence: figures.map(|figures| figures.confidence),
            improvement: figures.and_then(|figures| figures.improvement),
            held_by: checked.decision.held_by(),
        };
        let done = self.database.transaction(async |tx| {
            match records::keep_verdict(tx, &verdict).await? {
                Hold::Same => {}
                Hold::News => {
                    records::insert(tx, &record("held", checked, origin)?).await?;
                    if let Some(message) = message::held(checked) {
                        outbox::enqueue(tx, &message).await?;
                    }
                }
                Hold::Over => {
                    let experiment = Named {
                        id: checked.experiment.id,
                        name: checked.experiment.name.clone(),
                    };
                    records::end_hold(tx, experiment, checked.evidence.now).await?;
                }
            }
            Ok::<_, EngineError>(())
        });
        done.await
    }

    /// Writes down that a promotion was wanted and why nothing came of it. Where a promotion is active already and the engine
    /// wanted another, somebody was faster, and his is the entry; what a person asks for is always one.
    pub(super) async fn note_attempt(
        &self,
        checked: &Checked,
        reason: Option<&str>,
        origin: &Origin,
    ) -> Result<(), EngineError> {
        let by_engine = checked.question.requester == Requester::Engine;
        if by_engine && checked.evidence.history.active.is_some() {
            return Ok(());
        }
        let reasons = checked.decision.reasons.join("; ");
        let figures = checked.decision.figures.as_ref();
        let candidate = checked.candidate();
        let attempt = Attempt {
            experiment: &checked.experiment,
            variant: checked
                .decision
                .candidate
                .and_then(|id| checked.experiment.variant(id)),
            confidence: figures.map(|figures| figures.confidence),
            improvement: figures.and_then(|figures| figures.improvement),
            sample_size: candidate.map(|treatment| treatment.arm.units),
            safety_checks: serde_json::to_value(&checked.decision.safety_checks)?,
            reason: reason.unwrap_or(&reasons),
            record: record("attempted", checked, origin)?,
        };
        let done = self.database.transaction(async |tx| {
            commands::attempted(tx, origin, &attempt).await?;
            Ok::<_, EngineError>(())
        });
        done.await
    }
}

/// Targets that hear of a promotion. The end of an incident that it closes is not counted.
async fn listeners(link: &mut impl Query, config: &PromotionConfig) -> Result<usize, EngineError> {
    Ok(match message::told_on(config) {
        Some((channels, level)) => outbox::listeners(link, &channels, level).await?,
        None => 0,
    })
}

/// What would be promoted, if anything.
fn would(asked: &Asked, checked: Checked) -> Result<Promoted, EngineError> {
    let eligible = checked.decision.is_eligible();
    let winner = if eligible {
        checked.candidate()
    } else if asked.force.is_some() && may_be_forced(&checked) {
        forced(asked, &checked)
    } else {
        None
    };
    let Some(winner) = winner else {
        return Err(EngineError::NotEligible(Box::new(checked)));
    };
    Ok(Promoted {
        promotion: None,
        variant_id: winner.arm.variant_id,
        variant_name: winner.arm.name.clone(),
        forced: !eligible,
        detectable_drop: None,
        notifications: 0,
        record_id: None,
        checked: Box::new(checked),
    })
}

/// Force passes over what the evidence says, and not over the state of the experiment.
fn may_be_forced(checked: &Checked) -> bool {
    let possible = checked.experiment.status.after(Action::Promote).is_ok();
    possible && checked.evidence.history.active.is_none()
}

/// The treatment that a person names, else that of the highest lift.
fn forced<'c>(asked: &Asked, checked: &'c Checked) -> Option<&'c Treatment> {
    let lift = |treatment: &Treatment| {
        let strata = treatment.strata.as_deref().unwrap_or_default();
        let found = podium_domain::decision::evidence::stratified(strata).ok();
        found
            .and_then(|found| found.lift)
            .unwrap_or(f64::NEG_INFINITY)
    };
    let treatments = &checked.evidence.treatments;
    match &asked.question.variant {
        Some(name) => treatments
            .iter()
            .find(|treatment| treatment.arm.name == *name),
        None => treatments
            .iter()
            .max_by(|one, other| lift(one).total_cmp(&lift(other))),
    }
}

fn planned<'p>(
    asked: &'p Asked,
    promoted: &'p Promoted,
    origin: &Origin,
) -> Result<NewPromotion<'p>, EngineError> {
    let checked = &promoted.checked;
    let experiment = &checked.experiment;
    let winner = experiment.variant(promoted.variant_id);
    let winner = winner.ok_or(EngineError::NotFound("this variant"))?;
    // Figures of another candidate say nothing about a treatment that was forced in its place.
    let about_winner = checked.decision.candidate == Some(winner.id);
    let figures = checked.decision.figures.as_ref().filter(|_| about_winner);
    let units = checked
        .evidence
        .treatments
        .iter()
        .find(|t| t.arm.variant_id == winner.id);
    let kind = if promoted.forced {
        "forced"
    } else {
        "promoted"
    };
    Ok(NewPromotion {
        experiment,
        winner,
        now: checked.evidence.now,
        confidence: figures.map(|figures| figures.confidence),
        improvement: figures.and_then(|figures| figures.improvement),
        sample_size: units.map(|treatment| treatment.arm.units),
        manual: asked.question.requester == Requester::Person,
        metadata: Metadata {
            forced: promoted.forced,
            reason: asked.force.clone(),
            lift_percent: figures.and_then(|figures| figures.improvement),
            standard_error_percent: figures.and_then(|figures| figures.standard_error),
            config: serde_json::to_value(&checked.effective.config)?,
            ..Metadata::default()
        },
        safety_checks: serde_json::to_value(&checked.decision.safety_checks)?,
        reason: asked.force.as_deref(),
        record: record(kind, checked, origin)?,
    })
}

fn record(
    kind: &'static str,
    checked: &Checked,
    origin: &Origin,
) -> Result<NewRecord, EngineError> {
    Ok(NewRecord {
        experiment_id: checked.experiment.id,
        promotion_id: None,
        kind,
        manual: checked.question.requester == Requester::Person,
        actor: origin.actor.clone(),
        version: DECISION_VERSION,
        question: Some(serde_json::to_value(&checked.question)?),
        config: Some(serde_json::to_value(&checked.effective.config)?),
        evidence: Some(serde_json::to_value(&checked.evidence)?),
        decision: serde_json::to_value(&checked.decision)?,
    })
}
