//! What an event is recorded as: for which experiments, under which variant, counted or not.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::future::{MaybeDone, join_all, maybe_done, poll_immediate};
use podium_domain::event::{CountRule, EventRefused, EventType};
use podium_domain::experiment::Status;
use podium_storage::assignments::{Candidate, Stored, Unavailable};
use podium_storage::events::{EventRow, Promoted, Recorded, event_key};

use crate::Serving;
use crate::assign::{Visitor, lookup};
use crate::lookups::Lookups;
use crate::promotion::Promotion;
use crate::snapshot::{Experiment, ExperimentRef, Reason, Snapshot, Variant};

/// A checked event, before attribution.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Id, from the client or made by the server.
    pub event_id: Cow<'a, str>,
    /// Type.
    pub kind: EventType,
    /// Who.
    pub visitor: Visitor<'a>,
    /// Experiment, if the client named one.
    pub experiment: Option<ExperimentRef<'a>>,
    /// Variant, if the client named one.
    pub variant: Option<VariantRef<'a>>,
    /// Item.
    pub item_id: Option<Cow<'a, str>>,
    /// Brand.
    pub brand_id: Option<Cow<'a, str>>,
    /// Position, from 1.
    pub position: Option<i32>,
    /// Module of the page.
    pub module_id: Option<Cow<'a, str>>,
    /// JSON object.
    pub metadata: Option<Bytes>,
    /// Value in 1/10,000.
    pub value_e4: Option<i64>,
    /// Pieces.
    pub quantity: Option<i32>,
    /// Milliseconds.
    pub latency_ms: Option<f64>,
    /// Whether the request failed.
    pub is_error: Option<bool>,
    /// Decision of a ranking.
    pub decision_id: Option<Cow<'a, str>>,
    /// When it happened, if the client said so.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// How an event names a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariantRef<'a> {
    /// By number.
    Id(i64),
    /// By name.
    Name(&'a str),
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Whether every row was there before.
    pub duplicate: bool,
    /// Experiments that it was recorded for, when the client named none.
    pub recorded: Option<Vec<i64>>,
}

/// Why an event was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    /// Neither a user nor a session.
    #[error("user_id or session_id is required")]
    NoUnit,
    /// The named experiment does not exist.
    #[error("the experiment does not exist")]
    UnknownExperiment,
    /// The named variant is not one of the experiment's.
    #[error("the variant does not belong to the experiment")]
    ForeignVariant,
    /// The named variant contradicts the unit's assignment.
    #[error("the unit is assigned to another variant")]
    Contradiction,
    /// Neither a variant nor an assignment.
    #[error(
        "the unit has no assignment in this experiment, and no variant of a running experiment is named"
    )]
    NoAssignment,
    /// The experiment's state does not take events.
    #[error(transparent)]
    Refused(#[from] EventRefused),
    /// The queue is full or the database is away.
    #[error("events cannot be stored now")]
    Unavailable,
    /// The database refused the data.
    #[error("the database refused the event")]
    Rejected,
}

impl From<Unavailable> for TrackError {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

/// How long tracking waits for the database before it answers that it is away.
const TRACK_WAIT: Duration = Duration::from_millis(2_500);

/// An event with its rows, ready to be written.
struct Prepared {
    rows: Vec<EventRow>,
    named: bool,
}

impl Serving {
    /// Records one event; returns after the commit.
    ///
    /// # Errors
    /// [`TrackError`]; nothing was recorded then.
    pub async fn track(
        &self,
        event: &Event<'_>,
        now: DateTime<Utc>,
    ) -> Result<Tracked, TrackError> {
        let outcome = self.in_time(self.track_at_leisure(event, now)).await;
        let outcome = outcome.and_then(std::convert::identity);
        self.tallies.tracked(event.kind, &outcome);
        outcome
    }

    /// Ends a wait that a frozen database would make endless. What was queued may still be written; the client repeats
    /// it under the same id.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, TrackError> {
        if !self.database.is_reachable() {
            return Err(TrackError::Unavailable);
        }
        tokio::time::timeout(TRACK_WAIT, work)
            .await
            .map_err(|_| TrackError::Unavailable)
    }

    async fn track_at_leisure(
        &self,
        event: &Event<'_>,
        now: DateTime<Utc>,
    ) -> Result<Tracked, TrackError> {
        let prepared = self.prepare(&Lookups::default(), event, now).await?;
        let named = prepared.named;
        if prepared.rows.is_empty() {
            return Ok(Tracked {
                duplicate: false,
                recorded: (!named).then(Vec::new),
            });
        }
        let ids: Vec<i64> = prepared.rows.iter().map(|row| row.experiment_id).collect();
        let answer = self
            .record(prepared.rows)
            .map_err(|_| TrackError::Unavailable)?;
        let new = answer.await.map_err(|_| TrackError::Unavailable)??;
        tracked(named, ids, &new)
    }

    /// Records many events, each with its own outcome, in order.
    pub async fn track_batch(
        &self,
        events: &[Event<'_>],
        now: DateTime<Utc>,
    ) -> Vec<Result<Tracked, TrackError>> {
        let outcomes = self.in_time(self.track_batch_at_leisure(events, now)).await;
        let outcomes = outcomes.unwrap_or_else(|error| vec![Err(error); events.len()]);
        for (event, outcome) in events.iter().zip(&outcomes) {
            self.tallies.tracked(event.kind, outcome);
        }
        outcomes
    }

    async fn track_batch_at_leisure(
        &self,
        events: &[Event<'_>],
        now: DateTime<Utc>,
    ) -> Vec<Result<Tracked, TrackError>> {
        let lookups = Lookups::default();
        let prepared = events
            .iter()
            .map(|event| self.prepare(&lookups, event, now));
        let prepared = join_mostly_ready(prepared).await;
        // All rows go in one job, so that a batch shares one commit; a full queue refuses it as a whole.
        let mut rows = Vec::with_capacity(prepared.len());
        let mut outcomes = Vec::with_capacity(prepared.len());
        for prepared in prepared {
            outcomes.push(prepared.map(|prepared| {
                let from = rows.len();
                let ids: Vec<i64> = prepared.rows.iter().map(|row| row.experiment_id).collect();
                rows.extend(prepared.rows);
                (from, ids, prepared.named)
            }));
        }
        let new = if rows.is_empty() {
            Ok(Vec::new())
        } else {
            match self.record(rows) {
                Ok(answer) => match answer.await {
                    Ok(answer) => answer.map_err(TrackError::from),
                    Err(_) => Err(TrackError::Unavailable),
                },
                Err(_) => Err(TrackError::Unavailable),
            }
        };
        outcomes
            .into_iter()
            .map(|outcome| {
                let (from, ids, named) = outcome?;
                if ids.is_empty() {
                    return tracked(named, ids, &[Recorded::New]);
                }
                let new = new.as_ref().map_err(|error| *error)?;
                let mine = new.get(from..from + ids.len()).unwrap_or_default();
                tracked(named, ids, mine)
            })
            .collect()
    }

    async fn prepare(
        &self,
        lookups: &Lookups,
        event: &Event<'_>,
        now: DateTime<Utc>,
    ) -> Result<Prepared, TrackError> {
        let unit = event.visitor.unit().ok_or(TrackError::NoUnit)?;
        let snapshot = Arc::clone(&self.snapshot());
        let named = match (event.experiment, event.variant) {
            (Some(reference), _) => Some(
                snapshot
                    .find(reference)
                    .ok_or(TrackError::UnknownExperiment)?,
            ),
            (None, Some(VariantRef::Id(id))) => {
                Some(snapshot.of_variant(id).ok_or(TrackError::ForeignVariant)?)
            }
            (None, Some(VariantRef::Name(_)) | None) => None,
        };
        let request = Request {
            serving: self,
            snapshot: &snapshot,
            lookups,
        };
        let rows = match named {
            Some(experiment) => vec![request.attribute(experiment, unit, event, now).await?],
            None => request.attribute_everywhere(unit, event, now).await?,
        };
        Ok(Prepared {
            rows,
            named: named.is_some(),
        })
    }
}

/// What attributing the events of one request goes by.
struct Request<'a> {
    serving: &'a Serving,
    snapshot: &'a Snapshot,
    lookups: &'a Lookups,
}

impl Request<'_> {
    /// The row of an event in the experiment that it names.
    async fn attribute(
        &self,
        experiment: &Experiment,
        unit: &str,
        event: &Event<'_>,
        now: DateTime<Utc>,
    ) -> Result<EventRow, TrackError> {
        refuse_by_state(experiment, now)?;
        let claimed = claimed_variant(experiment, event.variant)?;
        if let Some(pinned) = experiment.pinned(unit) {
            return match claimed {
                Some(claimed) if claimed.id != pinned.id => Err(TrackError::Contradiction),
                _ => row(experiment, unit, Attribution::pinned(pinned), event, now),
            };
        }
        if let Some(promotion) = promotion_of(experiment, event) {
            let stored = self.stored(experiment, unit, event.visitor, None).await?;
            let attribution = promoted(experiment, promotion, unit, stored, claimed)?;
            return row(experiment, unit, attribution, event, now);
        }
        // Only a running experiment takes a client's word for a unit that it does not know.
        let candidate = claimed
            .filter(|_| experiment.status == Status::Running)
            .map(|variant| Candidate {
                variant_id: variant.id,
                by_client: true,
                propensity: None,
            });
        let stored = self
            .stored(experiment, unit, event.visitor, candidate)
            .await?;
        let stored = stored.ok_or(TrackError::NoAssignment)?;
        if claimed.is_some_and(|claimed| claimed.id != stored.variant_id) {
            return Err(TrackError::Contradiction);
        }
        row(experiment, unit, Attribution::stored(stored), event, now)
    }

    /// The rows of an event that names no experiment: every running one in which the unit has an assignment, and every
    /// promoted one that is still watched.
    async fn attribute_everywhere(
        &self,
        unit: &str,
        event: &Event<'_>,
        now: DateTime<Utc>,
    ) -> Result<Vec<EventRow>, TrackError> {
        let takes = |experiment: &&Arc<Experiment>| {
            let promotion = experiment.promotion();
            promotion.is_none_or(Promotion::is_watched)
        };
        let served = self.snapshot.served().iter().filter(takes);
        let found = join_all(served.map(|experiment| async move {
            if let Some(pinned) = experiment.pinned(unit) {
                return row(experiment, unit, Attribution::pinned(pinned), event, now).map(Some);
            }
            let stored = self.stored(experiment, unit, event.visitor, None).await?;
            let Some(stored) = stored else {
                return Ok(None);
            };
            let attribution = match promotion_of(experiment, event) {
                Some(promotion) => promoted(experiment, promotion, unit, Some(stored), None)?,
                None => Attribution::stored(stored),
            };
            row(experiment, unit, attribution, event, now).map(Some)
        }))
        .await;
        found.into_iter().filter_map(Result::transpose).collect()
    }

    /// The assignment of a unit, from memory or the table.
    async fn stored(
        &self,
        experiment: &Experiment,
        unit: &str,
        visitor: Visitor<'_>,
        candidate: Option<Candidate>,
    ) -> Result<Option<Stored>, TrackError> {
        let serving = self.serving;
        let key = serving.known.key(experiment.id, unit);
        if let Some(known) = serving.known.get(key) {
            return Ok(Some(known.stored));
        }
        let lookup = lookup(experiment, unit, visitor, candidate);
        let stored = self
            .lookups
            .answer(lookup, |lookup| serving.ask(lookup))
            .await?;
        if let Some(stored) = stored {
            serving.remember(experiment, self.snapshot.version(), unit, key, stored);
        }
        Ok(stored)
    }
}

/// All outcomes in order, as [`join_all`] has them, of futures that hardly ever wait: one that does not costs no place in
/// its queue.
pub(crate) async fn join_mostly_ready<F: Future>(
    futures: impl Iterator<Item = F>,
) -> Vec<F::Output> {
    let mut all = Vec::with_capacity(futures.size_hint().0);
    for future in futures {
        let mut future = maybe_done(Box::pin(future));
        poll_immediate(&mut future).await;
        all.push(future);
    }
    let waits = |future: &&mut _| matches!(future, MaybeDone::Future(_));
    join_all(all.iter_mut().filter(waits)).await;
    all.iter_mut()
        .filter_map(|future| Pin::new(future).take_output())
        .collect()
}

fn tracked(named: bool, ids: Vec<i64>, rows: &[Recorded]) -> Result<Tracked, TrackError> {
    if rows.contains(&Recorded::Refused) {
        return Err(TrackError::Rejected);
    }
    Ok(Tracked {
        duplicate: !rows.contains(&Recorded::New),
        recorded: (!named).then_some(ids),
    })
}

/// Drafts and archived experiments take no events, whoever sends them.
fn refuse_by_state(experiment: &Experiment, now: DateTime<Utc>) -> Result<(), EventRefused> {
    let rule = CountRule {
        status: experiment.status,
        ended_at: None,
        assigned_at: None,
        promotion_active: false,
        overridden: false,
        bot: false,
    };
    rule.decide(now).map(|_| ())
}

fn claimed_variant<'e>(
    experiment: &'e Experiment,
    claimed: Option<VariantRef<'_>>,
) -> Result<Option<&'e Variant>, TrackError> {
    let found = match claimed {
        None => return Ok(None),
        Some(VariantRef::Id(id)) => experiment.variant(id),
        Some(VariantRef::Name(name)) => experiment.variant_named(name),
    };
    found.map(Some).ok_or(TrackError::ForeignVariant)
}

/// What an event is recorded under.
#[derive(Clone, Copy)]
struct Attribution {
    variant_id: i64,
    stored: Option<Stored>,
    overridden: bool,
    promotion: Option<Promoted>,
}

impl Attribution {
    fn stored(stored: Stored) -> Self {
        Self {
            variant_id: stored.variant_id,
            stored: Some(stored),
            overridden: false,
            promotion: None,
        }
    }

    fn pinned(variant: &Variant) -> Self {
        Self {
            variant_id: variant.id,
            stored: None,
            overridden: true,
            promotion: None,
        }
    }
}

/// The promotion that an event belongs to. One that occurred before the experiment ended is the experiment's, however late
/// it arrives.
fn promotion_of<'e>(experiment: &'e Experiment, event: &Event<'_>) -> Option<&'e Promotion> {
    let before_the_end = event
        .occurred_at
        .zip(experiment.ended_at)
        .is_some_and(|(occurred_at, end)| occurred_at <= end);
    experiment.promotion().filter(|_| !before_the_end)
}

/// Under a promotion a unit may say any variant that `assign` may tell it: its own, the winner, or the control where it is
/// held back. A unit that says none is recorded under what it is told.
fn promoted(
    experiment: &Experiment,
    promotion: &Promotion,
    unit: &str,
    stored: Option<Stored>,
    claimed: Option<&Variant>,
) -> Result<Attribution, TrackError> {
    let own = match stored {
        Some(stored) => experiment.variant(stored.variant_id),
        None => experiment.place(unit),
    };
    let told = experiment.told(unit, own);
    let shown = match claimed {
        Some(claimed) => claimed,
        None => {
            stored.ok_or(TrackError::NoAssignment)?;
            let own = own.map(|own| (own, Reason::Sticky));
            let answer = experiment.answer(told, own);
            answer.ok_or(TrackError::NoAssignment)?.0
        }
    };
    let at = |place: usize| experiment.variants.get(place).map(|variant| variant.id);
    let control = promotion.control().and_then(at);
    let may_be_shown = own.is_some_and(|own| own.id == shown.id)
        || at(promotion.winner()) == Some(shown.id)
        || (control == Some(shown.id) && promotion.is_held_back(unit));
    if !may_be_shown {
        return Err(TrackError::Contradiction);
    }
    let is_compared = stored.is_some_and(|stored| !stored.is_bot);
    Ok(Attribution {
        variant_id: shown.id,
        stored,
        overridden: false,
        promotion: Some(promotion.mark(told, own.map(|own| own.id), is_compared)),
    })
}

fn row(
    experiment: &Experiment,
    unit: &str,
    attribution: Attribution,
    event: &Event<'_>,
    now: DateTime<Utc>,
) -> Result<EventRow, TrackError> {
    let Attribution {
        variant_id,
        stored,
        overridden,
        mut promotion,
    } = attribution;
    // An event without a time of its own happens at its arrival, which is after the assignment, whatever the
    // clocks of the machines say.
    let known_since = stored.filter(|stored| !stored.by_client && event.occurred_at.is_some());
    let bot = event.visitor.agent.is_bot();
    if let Some(promotion) = promotion.as_mut().filter(|_| bot) {
        promotion.arm = None;
    }
    let rule = CountRule {
        status: experiment.status,
        ended_at: experiment.ended_at,
        assigned_at: known_since.map(|stored| stored.assigned_at),
        promotion_active: promotion.is_some(),
        overridden,
        bot,
    };
    let recording = rule.decide(event.occurred_at.unwrap_or(now))?;
    let text = |value: &Option<Cow<'_, str>>| value.as_deref().map(str::to_owned);
    Ok(EventRow {
        key: event_key(experiment.id, &event.event_id),
        event_id: event.event_id.clone().into_owned(),
        unit: unit.to_owned(),
        experiment_id: experiment.id,
        variant_id,
        event_type: event.kind.name(),
        item_id: text(&event.item_id),
        brand_id: text(&event.brand_id),
        position: event.position,
        module_id: text(&event.module_id),
        event_data: event.metadata.clone(),
        value_e4: event.value_e4,
        quantity: event.quantity,
        latency_ms: event.latency_ms,
        is_error: event.is_error,
        session_id: event.visitor.session.map(str::to_owned),
        decision_id: text(&event.decision_id),
        is_bot: bot,
        counted: recording.is_counted(),
        promotion,
        occurred_at: event.occurred_at,
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::Barrier;

    use super::*;

    #[test]
    fn those_that_wait_wait_together_and_keep_their_places() {
        let meeting = Barrier::new(3);
        let work = (0..100).map(async |number| {
            if number % 40 == 5 {
                meeting.wait().await;
            }
            number
        });
        let outcomes = join_mostly_ready(work).now_or_never();
        assert_eq!(outcomes, Some((0..100).collect::<Vec<_>>()));
    }

    #[tokio::test]
    async fn nothing_is_told_before_all_is() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        let work = (0..3).map(move |number| {
            let told = told.take_if(|_| number == 1);
            async move {
                match told {
                    Some(told) => told.await,
                    None => Ok(number),
                }
            }
        });
        let mut outcomes = Box::pin(join_mostly_ready(work));
        assert_eq!((&mut outcomes).now_or_never(), None);
        let outcomes = tokio::spawn(outcomes);
        tokio::task::yield_now().await;
        tell.send(7).unwrap();
        assert_eq!(outcomes.await.unwrap(), [Ok(0), Ok(7), Ok(2)]);
    }
}
