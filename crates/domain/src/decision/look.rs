//! Looks: when one may be taken, what it spends, and what is recorded of it.
//!
//! Whoever picks the moment of a look by what he sees breaks the promise. So looks have a clock:
//! the first request in a slot takes the slot's look, later ones get the same answer, and a slot
//! that nobody asked for counts all the same.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::design::{FrozenDesign, hours_between};
use super::evidence::{Counts, Stratified, Stratum, stratified};
use super::sequential::{Crossing, Spent, bounds, p_value};
use crate::stats::StatsError;

/// Factor by which information must have grown since the last look.
pub const LEAST_GROWTH: f64 = 1.01;

/// One analysis of an experiment: data from its start on, under one design.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Analysis {
    /// The experiment's start, or the moment at which the analysis was restarted.
    pub start: DateTime<Utc>,
    /// The part of alpha that earlier analyses have not spent, in 0..=1.
    pub unspent: f64,
    /// The design; until the first look that of the settings in force.
    pub design: FrozenDesign,
}

impl Analysis {
    /// The level of one treatment's boundary when `min_confidence` percent are asked for: alpha
    /// over treatments, times what is unspent. 0 when nothing is left.
    #[must_use]
    pub fn level(&self, min_confidence: f64) -> f64 {
        self.unspent * (1.0 - min_confidence / 100.0) / f64::from(self.design.treatments)
    }

    /// Confidence in percent at the p-value `p`: 100 (1 − min(1, m p / r)).
    #[must_use]
    pub fn confidence(&self, p: f64) -> f64 {
        let error = f64::from(self.design.treatments) * p / self.unspent;
        // Without anything unspent the quotient is infinite, or not a number at p = 0.
        if error < 1.0 {
            100.0 * (1.0 - error)
        } else {
            0.0
        }
    }

    fn spent(&self, look: &Look) -> Result<Spent, StatsError> {
        Ok(Spent {
            information: look.information,
            fraction: self.fraction(look.spending_time)?,
        })
    }

    fn fraction(&self, spending_time: f64) -> Result<f64, StatsError> {
        self.design.spending().fraction(spending_time)
    }
}

/// A recorded look at one treatment: everything that is needed to compute it again, together with
/// the looks before it and the analysis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Look {
    /// The slot, counted from 0.
    pub slot: i64,
    /// When the data were read; for a missed slot its beginning.
    pub time: DateTime<Utc>,
    /// Relative information; for a missed slot interpolated in time.
    pub information: f64,
    /// The argument of the spending function.
    pub spending_time: f64,
    /// The statistic; none for a slot that was missed.
    pub z: Option<f64>,
    /// The lift, a fraction; none for a missed slot, and where the baseline is not above 0.
    pub lift: Option<f64>,
    /// What z had to reach at `level`; none where the look added nothing to what was spent.
    pub bound: Option<f64>,
    /// The p-value over all looks up to this one.
    pub p: f64,
    /// The level of the boundary, from the confidence that was asked for.
    pub level: f64,
}

/// What is known of a treatment at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// When the data were read.
    pub now: DateTime<Utc>,
    /// The treatment against the control, in the epochs in which it had traffic.
    pub strata: &'a [Stratum],
    /// Confidence asked for, in percent.
    pub min_confidence: f64,
}

/// What a request for a look gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A look was taken: the slots that were missed since the last one, then the look itself. To be
    /// recorded, all of them, before the verdict is used; a dry run keeps none.
    Taken(Vec<Look>),
    /// The slot has its look already.
    Reused(Look),
    /// The slot is no look yet: nothing is spent and nothing can cross.
    Waiting(Vec<Wait>),
}

/// Why a slot is no look yet, with what was measured and what is required.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wait {
    /// The least runtime has not passed, in hours.
    Runtime {
        /// Since the start.
        measured: f64,
        /// The design's.
        required: f64,
    },
    /// Too few units in an arm.
    Units {
        /// In the smaller arm.
        measured: i64,
        /// The design's.
        required: i64,
    },
    /// Too few conversions in an arm.
    Conversions {
        /// In the arm with fewer.
        measured: i64,
        /// More where the split is unequal.
        required: i64,
    },
    /// Too little has come in since the last look.
    Information {
        /// Now.
        measured: f64,
        /// 1.01 times that of the last look.
        required: f64,
    },
    /// The statistic is not defined.
    Undefined(StatsError),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime { required, .. } => write!(f, "runtime: {required:.0} hours"),
            Self::Units { measured, required } => {
                write!(
                    f,
                    "sample: {measured} of {required} units in the smaller arm"
                )
            }
            Self::Conversions { measured, required } => {
                write!(
                    f,
                    "conversions: {measured} of {required} in the arm with fewer"
                )
            }
            Self::Information { measured, required } => {
                write!(f, "information: {measured:.2} of {required:.2}")
            }
            Self::Undefined(error) => {
                write!(f, "the metric cannot be compared yet: {error}")
            }
        }
    }
}

/// Asks for a look at a treatment, given its recorded looks in order.
///
/// # Errors
/// [`StatsError::InvalidInput`] for evidence or records that contradict themselves.
pub fn take(
    analysis: &Analysis,
    recorded: &[Look],
    snapshot: &Snapshot<'_>,
) -> Result<Answer, StatsError> {
    let mut looks = match due(analysis, recorded, snapshot)? {
        Answer::Taken(looks) => looks,
        other => return Ok(other),
    };
    let spent = spent(analysis, recorded, &looks)?;
    let level = analysis.level(snapshot.min_confidence);
    if level > 0.0 {
        let new = bounds(&spent, level)?.split_off(recorded.len());
        for (look, bound) in looks.iter_mut().zip(new) {
            look.bound = bound;
        }
    }
    if let Some(look) = looks.last_mut() {
        let known = look.bound.map(|bound| (level, bound));
        let z = look.z.ok_or(StatsError::InvalidInput)?;
        look.p = p_value(&spent, z, look.p, known)?;
    }
    Ok(Answer::Taken(looks))
}

/// As [`take`], for whoever follows many experiments closely: `crossing`, begun at the level of the
/// confidence asked for, carries the recursion along, and what no verdict at that confidence needs
/// is left out: bounds that are out of reach, and p-values above the level, for which the one before
/// stands. Whether p is at most the level, and p from there on, are those of [`take`].
///
/// # Errors
/// As [`take`].
pub fn follow(
    analysis: &Analysis,
    recorded: &[Look],
    snapshot: &Snapshot<'_>,
    crossing: &mut Crossing,
) -> Result<Answer, StatsError> {
    let mut looks = match due(analysis, recorded, snapshot)? {
        Answer::Taken(looks) => looks,
        other => return Ok(other),
    };
    let level = analysis.level(snapshot.min_confidence);
    let spent = spent(analysis, recorded, &looks)?;
    if let Some(look) = looks.last_mut().filter(|_| level > 0.0) {
        let z = look.z.ok_or(StatsError::InvalidInput)?;
        look.bound = crossing.bound(&spent, z)?;
        if let Some(bound) = look.bound.filter(|bound| z >= *bound) {
            look.p = p_value(&spent, z, look.p, Some((level, bound)))?;
        }
    }
    Ok(Answer::Taken(looks))
}

/// The looks as the recursion sees them: those recorded, then the new ones.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a spending time that is negative or not finite.
pub fn spent(
    analysis: &Analysis,
    recorded: &[Look],
    new: &[Look],
) -> Result<Vec<Spent>, StatsError> {
    let all = recorded.iter().chain(new);
    all.map(|look| analysis.spent(look)).collect()
}

/// As [`take`], but the looks have no bounds yet, and the p-value of the look before: what is due,
/// without its price. For simulations, most of whose looks are far from every bound.
///
/// # Errors
/// As [`take`].
pub fn due(
    analysis: &Analysis,
    recorded: &[Look],
    snapshot: &Snapshot<'_>,
) -> Result<Answer, StatsError> {
    let Some(slot) = analysis.design.slot(analysis.start, snapshot.now) else {
        return Ok(Answer::Waiting(vec![Wait::Runtime {
            measured: hours_between(analysis.start, snapshot.now),
            required: analysis.design.min_runtime_hours,
        }]));
    };
    if let Some(last) = recorded.last().filter(|last| last.slot >= slot) {
        return Ok(Answer::Reused(*last));
    }
    let counts = Counts::of(snapshot.strata);
    let statistic = match stratified(snapshot.strata) {
        Err(StatsError::InvalidInput) => return Err(StatsError::InvalidInput),
        other => other,
    };
    let waits = waits(&analysis.design, recorded.last(), &counts, &statistic);
    match statistic {
        Ok(statistic) if waits.is_empty() => {
            let present = Present {
                slot,
                counts,
                statistic,
            };
            Ok(Answer::Taken(present.looks(analysis, recorded, snapshot)))
        }
        _ => Ok(Answer::Waiting(waits)),
    }
}

/// The part of alpha that is left for later analyses when this one ends: r times one minus what its
/// last slot has spent, the slots that nobody asked for included. `treatments` are the recorded
/// looks of each treatment with what is known of it at the end; the one that spent most counts.
///
/// # Errors
/// As [`take`].
pub fn unspent_at_end(
    analysis: &Analysis,
    treatments: &[(&[Look], Snapshot<'_>)],
) -> Result<f64, StatsError> {
    let mut most = 0.0_f64;
    for (recorded, snapshot) in treatments {
        let last = match take(analysis, recorded, snapshot)? {
            Answer::Taken(looks) => looks.last().copied(),
            Answer::Reused(look) => Some(look),
            Answer::Waiting(_) => recorded.last().copied(),
        };
        if let Some(look) = last {
            most = most.max(analysis.fraction(look.spending_time)?);
        }
    }
    Ok(analysis.unspent * (1.0 - most))
}

fn waits(
    design: &FrozenDesign,
    last: Option<&Look>,
    counts: &Counts,
    statistic: &Result<Stratified, StatsError>,
) -> Vec<Wait> {
    let mut waits = Vec::new();
    let (units, required) = (counts.least_units(), design.min_sample_size);
    if units < required {
        waits.push(Wait::Units {
            measured: units,
            required,
        });
    }
    let (conversions, required) = (counts.least_conversions(), counts.required_conversions());
    if conversions < required {
        waits.push(Wait::Conversions {
            measured: conversions,
            required,
        });
    }
    match statistic {
        Err(error) => waits.push(Wait::Undefined(*error)),
        Ok(statistic) => {
            let required = last.map_or(0.0, |last| LEAST_GROWTH * last.information);
            let enough = statistic.information > 0.0 && statistic.information >= required;
            if !enough {
                waits.push(Wait::Information {
                    measured: statistic.information,
                    required,
                });
            }
        }
    }
    waits
}

/// The present slot, fit for a look.
struct Present {
    slot: i64,
    counts: Counts,
    statistic: Stratified,
}

/// A point of the schedule of looks.
struct Point {
    slot: i64,
    time: DateTime<Utc>,
    information: f64,
}

impl Present {
    fn looks(&self, analysis: &Analysis, recorded: &[Look], snapshot: &Snapshot<'_>) -> Vec<Look> {
        let mut points = self.missed(analysis, recorded.last(), snapshot.now);
        points.push(Point {
            slot: self.slot,
            time: snapshot.now,
            information: self.statistic.information,
        });
        let before = recorded.last().map_or(1.0, |look| look.p);
        let level = analysis.level(snapshot.min_confidence);
        let points = points.iter();
        let mut looks: Vec<_> = points
            .map(|point| blank(analysis, point, before, level))
            .collect();
        if let Some(look) = looks.last_mut() {
            (look.z, look.lift) = (Some(self.statistic.z), self.statistic.lift);
        }
        looks
    }

    /// The slots between the last look and this one that count although nobody asked.
    fn missed(&self, analysis: &Analysis, last: Option<&Look>, now: DateTime<Utc>) -> Vec<Point> {
        let (first, since, from) = last.map_or((0, analysis.start, 0.0), |look| {
            (look.slot + 1, look.time, look.information)
        });
        let span = hours_between(since, now);
        let present = self.statistic.information;
        let mut points: Vec<Point> = Vec::new();
        for slot in first..self.slot {
            let Some(time) = analysis.design.slot_start(analysis.start, slot) else {
                break;
            };
            let passed = hours_between(since, time) / span;
            let information = from + passed * (present - from);
            let before = points.last().map_or(from, |point| point.information);
            let grown = information > 0.0
                && information >= LEAST_GROWTH * before
                && present >= LEAST_GROWTH * information;
            let enough = last.is_some() || self.reached_minimum(&analysis.design, passed);
            if grown && enough {
                points.push(Point {
                    slot,
                    time,
                    information,
                });
            }
        }
        points
    }

    /// Whether the counts, interpolated in time from 0 at the start, sufficed for a look when the
    /// part `passed` of the time had passed.
    fn reached_minimum(&self, design: &FrozenDesign, passed: f64) -> bool {
        let at = |count: i64| passed * count as f64;
        at(self.counts.least_units()) >= design.min_sample_size as f64
            && at(self.counts.least_conversions()) >= self.counts.required_conversions() as f64
    }
}

/// A look that has no z (yet).
fn blank(analysis: &Analysis, point: &Point, p: f64, level: f64) -> Look {
    Look {
        slot: point.slot,
        time: point.time,
        information: point.information,
        spending_time: analysis
            .design
            .spending_time(analysis.start, point.time, point.information),
        z: None,
        lift: None,
        bound: None,
        p,
        level,
    }
}
