//! Events: their types, their limits, and which of them count.

use std::ops::RangeInclusive;

use chrono::{DateTime, TimeDelta, Utc};

use crate::decimal::Decimal4;
use crate::experiment::Status;
use crate::words::wire_names;

/// Events in one request.
pub const MAX_BATCH: usize = 1_000;
/// Value of an event: 0 to 10^12, four decimals kept.
pub const VALUE: RangeInclusive<Decimal4> = Decimal4::ZERO..=Decimal4(10_000_000_000_000_000);
/// Pieces in an add-to-cart or a purchase.
pub const QUANTITY: RangeInclusive<i64> = 1..=10_000;
/// Pieces where none are named.
pub const DEFAULT_QUANTITY: i64 = 1;
/// Position on the page, from the top.
pub const POSITION: RangeInclusive<i64> = 1..=10_000;
/// How long ago an event may have occurred.
pub const MAX_AGE: TimeDelta = TimeDelta::days(30);
/// How far ahead of our clock an event may have occurred.
pub const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// Something was shown.
    Impression,
    /// It was clicked.
    Click,
    /// It went into the cart.
    AddToCart,
    /// It was bought; has a value.
    Purchase,
    /// Any other engagement with a value, e.g. seconds.
    Engagement,
    /// A request ended, with latency and error flag.
    Request,
}

wire_names!(EventType {
    Impression => "impression",
    Click => "click",
    AddToCart => "add_to_cart",
    Purchase => "purchase",
    Engagement => "engagement",
    Request => "request",
});

impl EventType {
    /// The number in the database, 1 to 6.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Impression => 1,
            Self::Click => 2,
            Self::AddToCart => 3,
            Self::Purchase => 4,
            Self::Engagement => 5,
            Self::Request => 6,
        }
    }

    /// Whether the event must have a value.
    #[must_use]
    pub const fn needs_value(self) -> bool {
        matches!(self, Self::Purchase)
    }

    /// Whether the event may have a quantity.
    #[must_use]
    pub const fn has_quantity(self) -> bool {
        matches!(self, Self::AddToCart | Self::Purchase)
    }
}

/// What is wrong with the time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OccurredAtFault {
    /// More than 30 days ago.
    #[error("must be at most 30 days ago")]
    TooOld,
    /// More than 5 minutes ahead.
    #[error("must be at most 5 minutes ahead")]
    TooFarAhead,
}

/// Checks `occurred_at` of an event that arrives at `now`: at most 30 days back, 5 minutes ahead.
///
/// # Errors
/// [`OccurredAtFault`].
pub fn check_occurred_at(
    occurred_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), OccurredAtFault> {
    let age = now.signed_duration_since(occurred_at);
    if age > MAX_AGE {
        return Err(OccurredAtFault::TooOld);
    }
    if age < -MAX_AHEAD {
        return Err(OccurredAtFault::TooFarAhead);
    }
    Ok(())
}

/// What decides about an event, besides its own content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRule {
    /// State of the experiment.
    pub status: Status,
    /// When the experiment ended; only looked at when it is completed.
    pub ended_at: Option<DateTime<Utc>>,
    /// When the unit was assigned by us; `None` when the client assigned it, because then the time
    /// is not known and no event is before it.
    pub assigned_at: Option<DateTime<Utc>>,
    /// Whether a promotion of the experiment is active. Its events feed the guard of the
    /// promotion, never the analysis.
    pub promotion_active: bool,
    /// Whether the unit is pinned to a variant for testing.
    pub overridden: bool,
    /// Whether the user agent is a known bot's.
    pub bot: bool,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// Recorded, and part of the analysis.
    Counted,
    /// Recorded only.
    NotCounted(NotCounted),
}

impl Recording {
    /// Whether the event is part of the analysis.
    #[must_use]
    pub const fn is_counted(self) -> bool {
        matches!(self, Self::Counted)
    }
}

/// Why an event is recorded but not part of the analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotCounted {
    /// It occurred after the experiment had ended.
    AfterTheEnd,
    /// It occurred before the unit was assigned.
    BeforeAssignment,
    /// A promotion was active.
    DuringPromotion,
    /// The unit is pinned for testing.
    Overridden,
    /// A bot sent it.
    Bot,
}

wire_names!(NotCounted {
    AfterTheEnd => "after_the_end",
    BeforeAssignment => "before_assignment",
    DuringPromotion => "during_promotion",
    Overridden => "overridden",
    Bot => "bot",
});

/// Why an event is refused as a whole (a conflict with the experiment's state).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventRefused {
    /// Nobody is assigned yet.
    #[error("the experiment is a draft and takes no events before it is started")]
    Draft,
    /// It is put away.
    #[error("the experiment is archived and takes no more events")]
    Archived,
}

impl CountRule {
    /// Decides about an event that occurred at `occurred_at`: running and paused experiments count
    /// it, completed ones when it is not after the end.
    ///
    /// # Errors
    /// [`EventRefused`] for drafts and archived experiments.
    pub fn decide(&self, occurred_at: DateTime<Utc>) -> Result<Recording, EventRefused> {
        match self.status {
            Status::Draft => return Err(EventRefused::Draft),
            Status::Archived => return Err(EventRefused::Archived),
            Status::Running | Status::Paused | Status::Completed => {}
        }
        Ok(self
            .objection(occurred_at)
            .map_or(Recording::Counted, Recording::NotCounted))
    }

    fn objection(&self, occurred_at: DateTime<Utc>) -> Option<NotCounted> {
        if self.bot {
            return Some(NotCounted::Bot);
        }
        if self.overridden {
            return Some(NotCounted::Overridden);
        }
        if self.promotion_active {
            return Some(NotCounted::DuringPromotion);
        }
        if self
            .assigned_at
            .is_some_and(|assigned_at| occurred_at < assigned_at)
        {
            return Some(NotCounted::BeforeAssignment);
        }
        // A completed experiment without an end cannot tell what came after it: nothing counts.
        let ended =
            self.status == Status::Completed && self.ended_at.is_none_or(|end| occurred_at > end);
        ended.then_some(NotCounted::AfterTheEnd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + 60 * minute, 0).unwrap()
    }

    /// A unit assigned at minute 10.
    fn rule(status: Status) -> CountRule {
        CountRule {
            status,
            ended_at: None,
            assigned_at: Some(at(10)),
            promotion_active: false,
            overridden: false,
            bot: false,
        }
    }

    #[test]
    fn codes_and_names_are_fixed() {
        let table: Vec<_> = EventType::ALL
            .iter()
            .map(|kind| (kind.code(), kind.name()))
            .collect();
        assert_eq!(
            table,
            [
                (1, "impression"),
                (2, "click"),
                (3, "add_to_cart"),
                (4, "purchase"),
                (5, "engagement"),
                (6, "request")
            ]
        );
        assert!(EventType::Purchase.needs_value() && !EventType::Click.needs_value());
        assert!(EventType::AddToCart.has_quantity() && !EventType::Engagement.has_quantity());
        assert_eq!(VALUE.end().to_string(), "1000000000000");
    }

    #[test]
    fn time_is_bounded_on_both_sides() {
        let now = at(0);
        let second = TimeDelta::seconds(1);
        assert_eq!(check_occurred_at(now - MAX_AGE, now), Ok(()));
        assert_eq!(
            check_occurred_at(now - MAX_AGE - second, now),
            Err(OccurredAtFault::TooOld)
        );
        assert_eq!(check_occurred_at(now + MAX_AHEAD, now), Ok(()));
        assert_eq!(
            check_occurred_at(now + MAX_AHEAD + second, now),
            Err(OccurredAtFault::TooFarAhead)
        );
        let forever = DateTime::<Utc>::MIN_UTC;
        assert_eq!(
            check_occurred_at(forever, now),
            Err(OccurredAtFault::TooOld)
        );
        assert_eq!(
            check_occurred_at(DateTime::<Utc>::MAX_UTC, now),
            Err(OccurredAtFault::TooFarAhead)
        );
    }

    #[test]
    fn the_state_decides_first() {
        assert_eq!(rule(Status::Draft).decide(at(20)), Err(EventRefused::Draft));
        assert_eq!(
            rule(Status::Archived).decide(at(20)),
            Err(EventRefused::Archived)
        );
        assert_eq!(rule(Status::Running).decide(at(20)), Ok(Recording::Counted));
        assert_eq!(rule(Status::Paused).decide(at(20)), Ok(Recording::Counted));
    }

    #[test]
    fn a_completed_experiment_counts_up_to_its_end() {
        let completed = CountRule {
            ended_at: Some(at(30)),
            ..rule(Status::Completed)
        };
        assert_eq!(completed.decide(at(30)), Ok(Recording::Counted));
        let late = completed.decide(at(31));
        assert_eq!(late, Ok(Recording::NotCounted(NotCounted::AfterTheEnd)));
        let endless = rule(Status::Completed).decide(at(20));
        assert_eq!(endless, Ok(Recording::NotCounted(NotCounted::AfterTheEnd)));
        // An end from before a resume does not matter while running.
        let running = CountRule {
            ended_at: Some(at(15)),
            ..rule(Status::Running)
        };
        assert_eq!(running.decide(at(20)), Ok(Recording::Counted));
    }

    #[test]
    fn nothing_counts_from_before_the_assignment() {
        let running = rule(Status::Running);
        assert_eq!(running.decide(at(10)), Ok(Recording::Counted));
        assert_eq!(
            running.decide(at(9)),
            Ok(Recording::NotCounted(NotCounted::BeforeAssignment))
        );
        let by_client = CountRule {
            assigned_at: None,
            ..running
        };
        assert_eq!(by_client.decide(at(-1_000)), Ok(Recording::Counted));
    }

    #[test]
    fn bots_pinned_units_and_promotions_are_left_out() {
        let running = rule(Status::Running);
        for (rule, why) in [
            (
                CountRule {
                    bot: true,
                    ..running
                },
                NotCounted::Bot,
            ),
            (
                CountRule {
                    overridden: true,
                    ..running
                },
                NotCounted::Overridden,
            ),
            (
                CountRule {
                    promotion_active: true,
                    ..running
                },
                NotCounted::DuringPromotion,
            ),
        ] {
            let recording = rule.decide(at(20)).unwrap();
            assert_eq!(recording, Recording::NotCounted(why));
            assert!(!recording.is_counted());
        }
        assert_eq!(NotCounted::DuringPromotion.name(), "during_promotion");
    }
}
