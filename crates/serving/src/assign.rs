//! Who gets what: from memory where the unit is known, durable before the answer where it is new.

use std::sync::Arc;

use bytes::Bytes;
use podium_storage::assignments::{Candidate, Lookup, Stored};

use crate::Serving;
use crate::known::Known;
use crate::snapshot::{
    DEFAULT_PLACEMENT, Experiment, ExperimentRef, Reason, Variant, default_answer,
};

/// Who is asking: at least one of the two is there.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// The signed-in user.
    pub user: Option<&'a str>,
    /// The session.
    pub session: Option<&'a str>,
    /// The program that asks for them.
    pub agent: Agent<'a>,
}

/// The program that asks.
#[derive(Clone, Copy)]
pub enum Agent<'a> {
    /// Found out already.
    Known {
        /// Whether it is a known bot.
        is_bot: bool,
    },
    /// To be found out. Whether it is a bot matters only when something is written, and finding out costs more than a
    /// known unit's answer.
    Asked(&'a dyn Fn() -> bool),
}

impl Agent<'_> {
    /// Whether it is a known bot.
    #[must_use]
    pub fn is_bot(&self) -> bool {
        match self {
            Self::Known { is_bot } => *is_bot,
            Self::Asked(is_bot) => is_bot(),
        }
    }
}

impl std::fmt::Debug for Agent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known { is_bot } => f.debug_struct("Known").field("is_bot", is_bot).finish(),
            Self::Asked(_) => f.write_str("Asked"),
        }
    }
}

impl<'a> Visitor<'a> {
    /// The unit: the user where there is one, else the session.
    #[must_use]
    pub fn unit(&self) -> Option<&'a str> {
        self.user.or(self.session)
    }

    /// The session whose assignment the user takes over.
    #[must_use]
    pub fn login_session(&self) -> Option<&'a str> {
        match (self.user, self.session) {
            (Some(user), Some(session)) if user != session => Some(session),
            _ => None,
        }
    }
}

/// Why `assign` cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// The request names an experiment that does not exist.
    #[error("the experiment does not exist")]
    UnknownExperiment,
    /// Neither a user nor a session.
    #[error("user_id or session_id is required")]
    NoUnit,
}

/// A request for one assignment.
#[derive(Clone, Copy, Debug)]
pub struct AssignRequest<'a> {
    /// Who.
    pub visitor: Visitor<'a>,
    /// Which experiment; else the newest running one of the placement.
    pub experiment: Option<ExperimentRef<'a>>,
    /// Placement; none means `newsfeed`.
    pub placement: Option<&'a str>,
}

impl Serving {
    /// Answers `assign`: the JSON of the answer. Never fails because of the database.
    ///
    /// # Errors
    /// [`AssignError`] for requests that no state could answer.
    pub async fn assign(&self, request: AssignRequest<'_>) -> Result<Bytes, AssignError> {
        let unit = request.visitor.unit().ok_or(AssignError::NoUnit)?;
        let snapshot = self.snapshot();
        let found = match request.experiment {
            Some(reference) => Some(
                snapshot
                    .find(reference)
                    .ok_or(AssignError::UnknownExperiment)?,
            ),
            None => snapshot.on_placement(request.placement.unwrap_or(DEFAULT_PLACEMENT)),
        };
        let Some(experiment) = found.filter(|e| e.is_served()) else {
            return Ok(self.tallies.answered(default_answer(false)));
        };
        if let Some(answer) =
            self.assign_from_memory(experiment, snapshot.version(), unit, request.visitor)
        {
            return Ok(self.tallies.answered(answer));
        }
        let (experiment, version) = (experiment.clone(), snapshot.version());
        // The guard of the snapshot is not held over the wait.
        drop(snapshot);
        // In a place of its own: it would make the future of every answer from memory large.
        let from_table = self.assign_from_table(&experiment, version, unit, request.visitor);
        Ok(self.tallies.answered(Box::pin(from_table).await))
    }

    /// All experiments of one unit that are served, without those that it does not take part in, and whether one is
    /// missing only because it could not be found out.
    ///
    /// # Errors
    /// [`AssignError::NoUnit`].
    pub async fn assign_all(
        &self,
        visitor: Visitor<'_>,
    ) -> Result<(Vec<Bytes>, bool), AssignError> {
        let unit = visitor.unit().ok_or(AssignError::NoUnit)?;
        let snapshot = Arc::clone(&self.snapshot());
        let version = snapshot.version();
        let mut answers: Vec<Option<Bytes>> = Vec::with_capacity(snapshot.served().len());
        let mut missing = Vec::new();
        for (at, experiment) in snapshot.served().iter().enumerate() {
            let answer = self.assign_from_memory(experiment, version, unit, visitor);
            if answer.is_none() {
                missing.push((at, self.ask_for(experiment, unit, visitor)));
            }
            answers.push(answer);
        }
        let deadline = tokio::time::Instant::now() + self.settings.assign_wait;
        for (at, asked) in missing {
            let stored = wait(asked, deadline).await;
            if let (Some(experiment), Some(slot)) = (snapshot.served().get(at), answers.get_mut(at))
            {
                *slot = Some(self.conclude(experiment, version, unit, stored));
            }
        }
        let (default, unknown) = (default_answer(false), default_answer(true));
        let mut is_degraded = false;
        let mut kept = Vec::with_capacity(answers.len());
        for answer in answers.into_iter().flatten() {
            let answer = self.tallies.answered(answer);
            is_degraded |= answer == unknown;
            if answer != default && answer != unknown {
                kept.push(answer);
            }
        }
        Ok((kept, is_degraded))
    }

    /// One experiment for many users, in order.
    ///
    /// # Errors
    /// [`AssignError::UnknownExperiment`].
    pub async fn assign_many(
        &self,
        experiment: ExperimentRef<'_>,
        users: &[&str],
        agent: Agent<'_>,
    ) -> Result<Vec<Bytes>, AssignError> {
        let snapshot = Arc::clone(&self.snapshot());
        let experiment = snapshot
            .find(experiment)
            .ok_or(AssignError::UnknownExperiment)?;
        if !experiment.is_served() {
            let answers = users
                .iter()
                .map(|_| self.tallies.answered(default_answer(false)));
            return Ok(answers.collect());
        }
        let version = snapshot.version();
        let mut asked = Vec::with_capacity(users.len());
        for user in users {
            let visitor = Visitor {
                user: Some(user),
                session: None,
                agent,
            };
            asked.push(
                match self.assign_from_memory(experiment, version, user, visitor) {
                    Some(answer) => Ok(answer),
                    None => Err(self.ask_for(experiment, user, visitor)),
                },
            );
        }
        let deadline = tokio::time::Instant::now() + self.settings.assign_wait;
        let mut answers = Vec::with_capacity(users.len());
        for (user, asked) in users.iter().zip(asked) {
            let answer = match asked {
                Ok(answer) => answer,
                Err(asked) => {
                    let stored = wait(asked, deadline).await;
                    self.conclude(experiment, version, user, stored)
                }
            };
            answers.push(self.tallies.answered(answer));
        }
        Ok(answers)
    }

    /// The answer, if memory has it: pinned units, known units, and everybody while the database is away.
    fn assign_from_memory(
        &self,
        experiment: &Experiment,
        version: i64,
        unit: &str,
        visitor: Visitor<'_>,
    ) -> Option<Bytes> {
        let degraded = !self.database.is_reachable();
        if let Some(variant) = experiment.pinned(unit) {
            return Some(variant.answer(Reason::Override, degraded));
        }
        let key = self.known.key(experiment.id, unit);
        if let Some(known) = self.known.get(key) {
            let (variant, reason) = self.reason(experiment, version, unit, key, known)?;
            return Some(variant.answer(reason, degraded));
        }
        if degraded {
            // A user who logs in while the database is away keeps what the session was told.
            let by_session = visitor.login_session().and_then(|session| {
                let known = self.known.get(self.known.key(experiment.id, session))?;
                let own = experiment.variant(known.stored.variant_id)?;
                experiment.answer(known.told, Some((own, experiment.reason(false))))
            });
            if by_session.is_none() {
                self.count(experiment.id, false);
            }
            return Some(bytes(by_session, true));
        }
        None
    }

    /// Variant and reason of a known unit. They are remembered with the version of the definitions that gave them.
    pub(crate) fn reason<'e>(
        &self,
        experiment: &'e Experiment,
        version: i64,
        unit: &str,
        key: u128,
        known: Known,
    ) -> Option<(&'e Variant, Reason)> {
        let stored = known.stored;
        let variant = experiment.variant(stored.variant_id)?;
        let known = if known.version == version {
            known
        } else {
            self.remember(experiment, version, unit, key, stored)
        };
        let reason = experiment.reason(known.is_split);
        experiment.answer(known.told, Some((variant, reason)))
    }

    fn ask_for(&self, experiment: &Experiment, unit: &str, visitor: Visitor<'_>) -> Asked {
        let placed = experiment.place_new(unit);
        let candidate = placed.map(|placed| Candidate {
            variant_id: placed.variant.id,
            by_client: false,
            propensity: placed.propensity,
        });
        let lookup = Lookup {
            epoch: placed.map_or(experiment.epoch, |placed| placed.epoch),
            ..lookup(experiment, unit, visitor, candidate)
        };
        self.ask(lookup).ok()
    }

    async fn assign_from_table(
        &self,
        experiment: &Experiment,
        version: i64,
        unit: &str,
        visitor: Visitor<'_>,
    ) -> Bytes {
        let deadline = tokio::time::Instant::now() + self.settings.assign_wait;
        let stored = wait(self.ask_for(experiment, unit, visitor), deadline).await;
        self.conclude(experiment, version, unit, stored)
    }

    /// Turns what the table said into an answer and remembers it. `None`: it said nothing in time, so nothing was told.
    fn conclude(
        &self,
        experiment: &Experiment,
        version: i64,
        unit: &str,
        stored: Option<Option<Stored>>,
    ) -> Bytes {
        self.count(experiment.id, stored.is_some());
        let Some(stored) = stored else {
            return default_answer(true);
        };
        let Some(stored) = stored else {
            return outside(experiment, unit);
        };
        let key = self.known.key(experiment.id, unit);
        let known = self.remember(experiment, version, unit, key, stored);
        match self.reason(experiment, version, unit, key, known) {
            Some((variant, reason)) => variant.answer(reason, false),
            // The variant is newer than the definitions in memory: tell nothing rather than something wrong.
            None => default_answer(true),
        }
    }

    /// Puts a stored assignment into memory.
    pub(crate) fn remember(
        &self,
        experiment: &Experiment,
        version: i64,
        unit: &str,
        key: u128,
        stored: Stored,
    ) -> Known {
        let is_split = !experiment.is_drawn()
            && experiment
                .place(unit)
                .is_some_and(|placed| placed.id == stored.variant_id);
        let known = Known {
            stored,
            version,
            is_split,
            told: experiment.told(unit, experiment.variant(stored.variant_id)),
        };
        self.known.put(key, known);
        known
    }
}

pub(crate) type Asked =
    Option<tokio::sync::oneshot::Receiver<podium_storage::assignments::LookupAnswer>>;

/// The answer of a unit that has no variant of its own.
fn outside(experiment: &Experiment, unit: &str) -> Bytes {
    bytes(experiment.answer(experiment.told(unit, None), None), false)
}

fn bytes(told: Option<(&Variant, Reason)>, degraded: bool) -> Bytes {
    told.map_or_else(
        || default_answer(degraded),
        |(variant, reason)| variant.answer(reason, degraded),
    )
}

/// The question to the table for a visitor.
pub(crate) fn lookup(
    experiment: &Experiment,
    unit: &str,
    visitor: Visitor<'_>,
    candidate: Option<Candidate>,
) -> Lookup {
    Lookup {
        experiment_id: experiment.id,
        unit: unit.to_owned(),
        login_session: visitor.login_session().map(str::to_owned),
        session_id: visitor.session.map(str::to_owned),
        candidate,
        epoch: experiment.epoch,
        is_bot: visitor.agent.is_bot(),
        takes_new: experiment.is_served(),
        during_promotion: experiment.promotion().is_some(),
    }
}

/// What the table says before the deadline; `None` when it was not asked, did not answer or failed.
pub(crate) async fn wait(asked: Asked, deadline: tokio::time::Instant) -> Option<Option<Stored>> {
    match tokio::time::timeout_at(deadline, asked?).await {
        Ok(Ok(Ok(stored))) => Some(stored),
        _ => None,
    }
}
