//! The goals, one module for each kind of measurement. To add one, write its function and give it a row in [`GOALS`].

use crate::error::BenchError;
use crate::figures::Line;
use crate::lab::Lab;

mod assign;
mod bandits;
mod latency;
mod new_units;
mod once;
mod rank;
mod reports;
mod statistics;
mod track;

/// A goal's number, which is the command's argument, and what it is about. `docs/performance.md` lists them all; 10 and 11
/// are not measured here.
pub(crate) const GOALS: [(u8, &str); 12] = [
    (1, "assign, known unit, one experiment"),
    (2, "assign/bulk, ten experiments of one unit"),
    (3, "assign, new unit, durable before the answer"),
    (4, "latency of assign"),
    (5, "track, one event a request"),
    (6, "track, 100 events a request"),
    (7, "latency of track"),
    (8, "dedupe and folding"),
    (9, "reports over many events"),
    (12, "rank, 50 items"),
    (13, "statistics of a report"),
    (14, "choices of bandits"),
];

/// Measures one goal.
///
/// # Errors
/// [`BenchError`]; a run that is not valid gives no figures.
pub(crate) async fn measure(goal: u8, lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    match goal {
        1 => assign::known(lab).await,
        2 => assign::bulk(lab).await,
        3 => new_units::measure(lab).await,
        4 => latency::assign(lab).await,
        5 => track::one(lab).await,
        6 => track::hundred(lab).await,
        7 => latency::track(lab).await,
        8 => once::measure(lab).await,
        9 => reports::measure(lab).await,
        12 => rank::measure(lab).await,
        13 => statistics::measure(lab).await,
        14 => bandits::measure(lab).await,
        _ => Ok(Vec::new()),
    }
}
