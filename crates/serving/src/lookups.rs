//! What the events of one request ask the table of assignments: every question once.
//!
//! A unit that the table does not know is in no memory either, so each of its events asks, in every experiment that runs.
//! A batch of such events would fill the queue with one question.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use podium_storage::StorageError;
use podium_storage::assignments::{Lookup, LookupAnswer, Unavailable};
use tokio::sync::oneshot;

/// What several events wait for.
type Answer = Shared<BoxFuture<'static, LookupAnswer>>;

/// What tells apart two lookups of one unit in one experiment.
#[derive(PartialEq, Eq, Hash)]
struct Question {
    login_session: Option<String>,
    is_bot: bool,
    claimed: Option<i64>,
}

impl Question {
    fn of(lookup: &Lookup) -> Self {
        Self {
            login_session: lookup.login_session.clone(),
            is_bot: lookup.is_bot,
            claimed: lookup.candidate.map(|candidate| candidate.variant_id),
        }
    }

    /// Whether an answer may be that a unit is stored which was not before.
    const fn may_store(&self) -> bool {
        self.claimed.is_some() || self.login_session.is_some()
    }
}

/// An experiment, and a unit in it.
type Place = (i64, String);

/// Lookups of one request.
#[derive(Default)]
pub(crate) struct Lookups {
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    answers: HashMap<Place, HashMap<Question, Answer>>,
    /// Units whose questions name this session: what is stored of the session changes their answers.
    by_session: HashMap<Place, Vec<String>>,
}

impl Asked {
    /// Lets events behind what may store a unit find it, as they would in requests of their own.
    fn forget(&mut self, place: &Place) {
        let named = self.by_session.remove(place).unwrap_or_default();
        let named = named.into_iter().map(|unit| (place.0, unit));
        for place in named.chain([place.clone()]) {
            if let Some(of_unit) = self.answers.get_mut(&place) {
                of_unit.retain(|earlier, _| earlier.claimed.is_some());
            }
        }
    }
}

impl Lookups {
    /// Answers a lookup. `ask` hands it to the table, unless an earlier event of the request has asked the same.
    pub(crate) async fn answer(
        &self,
        lookup: Lookup,
        ask: impl FnOnce(Lookup) -> Result<oneshot::Receiver<LookupAnswer>, StorageError>,
    ) -> LookupAnswer {
        self.shared(lookup, ask)?.await
    }

    fn shared(
        &self,
        lookup: Lookup,
        ask: impl FnOnce(Lookup) -> Result<oneshot::Receiver<LookupAnswer>, StorageError>,
    ) -> Result<Answer, Unavailable> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (lookup.experiment_id, lookup.unit.clone());
        let question = Question::of(&lookup);
        let known = asked.answers.get(&place).and_then(|of| of.get(&question));
        if let Some(answer) = known {
            return Ok(answer.clone());
        }
        if question.may_store() {
            asked.forget(&place);
        }
        if let Some(session) = &question.login_session {
            let of_session = (place.0, session.clone());
            let units = asked.by_session.entry(of_session).or_default();
            units.push(place.1.clone());
        }
        let told = ask(lookup).map_err(|_| Unavailable)?;
        let answer = told.map(|told| told.unwrap_or(Err(Unavailable)));
        let answer = answer.boxed().shared();
        let of_unit = asked.answers.entry(place).or_default();
        of_unit.insert(question, answer.clone());
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use podium_storage::assignments::Candidate;

    use super::*;
    use crate::track::join_mostly_ready;

    fn lookup(experiment_id: i64, unit: &str) -> Lookup {
        Lookup {
            experiment_id,
            unit: unit.to_owned(),
            login_session: None,
            session_id: None,
            candidate: None,
            epoch: 1,
            is_bot: false,
            takes_new: true,
            during_promotion: false,
        }
    }

    fn claiming(variant_id: i64) -> Lookup {
        Lookup {
            candidate: Some(Candidate {
                variant_id,
                by_client: true,
                propensity: None,
            }),
            ..lookup(1, "u")
        }
    }

    fn with_session(session: &str) -> Lookup {
        Lookup {
            login_session: Some(session.to_owned()),
            ..lookup(1, "u")
        }
    }

    /// How many of the lookups of one request reach the table, which knows nobody.
    async fn asked(lookups: Vec<Lookup>) -> usize {
        let waiting = RefCell::new(Vec::new());
        let request = Lookups::default();
        let answers = lookups.into_iter().map(|lookup| {
            request.answer(lookup, |_| {
                let (tell, told) = oneshot::channel();
                waiting.borrow_mut().push(tell);
                Ok(told)
            })
        });
        let answers = join_mostly_ready(answers);
        let table = async {
            // Everybody has asked by now: both are polled in this order.
            let waiting = waiting.take();
            let asked = waiting.len();
            for tell in waiting {
                tell.send(Ok(None)).unwrap();
            }
            asked
        };
        let (answers, asked) = tokio::join!(answers, table);
        assert!(answers.iter().all(|answer| *answer == Ok(None)));
        asked
    }

    #[tokio::test]
    async fn the_events_of_a_unit_ask_once_for_each_experiment() {
        let events = (0..1_000).flat_map(|_| (1..=3).map(|experiment| lookup(experiment, "u")));
        assert_eq!(asked(events.collect()).await, 3);
        let units = ["u", "v", "u", "v"].map(|unit| lookup(1, unit));
        assert_eq!(asked(units.into()).await, 2);
    }

    #[tokio::test]
    async fn what_is_not_the_same_question_is_asked() {
        let bot = Lookup {
            is_bot: true,
            ..lookup(1, "u")
        };
        assert_eq!(asked(vec![lookup(1, "u"), bot]).await, 2);
        let sessions = vec![
            with_session("s"),
            with_session("t"),
            with_session("t"),
            lookup(1, "u"),
        ];
        assert_eq!(asked(sessions).await, 3);
        let claims = vec![claiming(10), claiming(11), claiming(10), claiming(11)];
        assert_eq!(asked(claims).await, 2);
    }

    /// What an event stores, the next one finds.
    #[tokio::test]
    async fn a_unit_is_asked_for_again_behind_what_may_store_it() {
        let unit = || lookup(1, "u");
        assert_eq!(asked(vec![unit(), claiming(10), unit(), unit()]).await, 3);
        assert_eq!(asked(vec![unit(), with_session("s"), unit()]).await, 3);
        let session = Lookup {
            unit: "s".to_owned(),
            ..claiming(10)
        };
        let logins = vec![with_session("s"), session, with_session("s")];
        assert_eq!(asked(logins).await, 3);
    }

    #[tokio::test]
    async fn a_question_that_found_no_room_is_asked_again() {
        let request = Lookups::default();
        let full = request.answer(lookup(1, "u"), |_| Err(StorageError::QueueFull));
        assert_eq!(full.await, Err(Unavailable));
        let (tell, told) = oneshot::channel();
        tell.send(Ok(None)).unwrap();
        assert_eq!(request.answer(lookup(1, "u"), |_| Ok(told)).await, Ok(None));
        // The table went away with the question.
        let (_, told) = oneshot::channel();
        let gone = request.answer(lookup(2, "u"), |_| Ok(told));
        assert_eq!(gone.await, Err(Unavailable));
    }
}
