//! Reading results. Every statement reads what folding keeps per variant, day or unit; none reads raw events, so that
//! an answer takes the same time whether an experiment has a thousand events or a billion.
//!
//! | module | what |
//! | --- | --- |
//! | [`logged`] | decisions of rankings with their outcomes |
//! | [`moments`] | exact sums per variant and epoch, now and at the end of past days |
//! | [`covariates`] | the same with the sums over units that have a covariate |
//! | [`capped`] | sums of capped values per variant and epoch |
//! | [`outcomes`] | how requests ended: errors and latencies |
//! | [`performance`] | totals per variant, of all time or of a range of days |
//! | [`series`] | totals per variant and hour, day or week |
//! | [`dimensions`] | totals per variant and item, brand or position |
//! | [`context`] | epochs, counters, freshness, arms of bandits |
//! | [`units`] | what one unit has and did |
//!
//! To add a figure: fold it first (`fold`, with its recount in `rebuild`), then read it here.

pub mod capped;
pub mod context;
pub mod covariates;
pub mod dimensions;
pub mod logged;
pub mod moments;
pub mod outcomes;
pub mod performance;
pub mod series;
pub mod units;

use chrono::NaiveDate;

/// UTC days, both ends included; an open end has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Days {
    /// First day.
    pub from: Option<NaiveDate>,
    /// Last day.
    pub to: Option<NaiveDate>,
}

impl Days {
    /// Whether neither end is set.
    #[must_use]
    pub const fn is_all(self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// The first day for a statement: an open end is a day before all that exist.
    pub(crate) fn first(self) -> NaiveDate {
        self.from
            .unwrap_or(NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or(NaiveDate::MIN))
    }

    /// The last day for a statement: an open end is a day behind all that exist.
    pub(crate) fn last(self) -> NaiveDate {
        self.to
            .unwrap_or(NaiveDate::from_ymd_opt(9999, 12, 31).unwrap_or(NaiveDate::MAX))
    }
}
