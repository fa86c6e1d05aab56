//! Which alerts should be open: rules over what happened within the last hour.
//!
//! Shares are judged by their one-sided 99.9 % limits over units, and latencies by the limit of an order statistic: a point
//! estimate over a quiet hour cries wolf, and a hundred requests of one broken client are one unit.

use serde::{Deserialize, Serialize};

use crate::guard::is_site_wide;
use crate::notification::Level;
use crate::outcomes::{LATENCY_QUANTILE, Outcomes};
use crate::stats::proportion::{Proportion, wilson};
use crate::stats::srm;
use crate::words::wire_names;

/// Two-sided confidence whose one-sided limits hold with 99.9 %.
const CONFIDENCE: f64 = 0.998;
/// Units below which nothing is said about requests.
const MIN_UNITS: i64 = 20;
/// Units from which on a variant has enough to be read at all.
const FEW_UNITS: i64 = 100;
const ERROR_RATE: [(f64, Level); 2] = [(0.1, Level::Critical), (0.05, Level::Warning)];
const LATENCY_MS: [(f64, Level); 2] = [(5_000.0, Level::Critical), (2_000.0, Level::Warning)];
const SPLIT_P: [(f64, Level); 2] = [(1e-6, Level::Critical), (srm::THRESHOLD, Level::Warning)];
/// Part of its share of traffic below which a variant starves.
const STARVING: f64 = 0.1;
/// Share of failed assignments.
const FAILED_ASSIGNMENTS: f64 = 0.01;

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Requests fail.
    ErrorRate,
    /// Requests are slow.
    Latency,
    /// A variant gets almost no traffic.
    Traffic,
    /// Units are not split as the weights say.
    Split,
    /// Nothing arrives any more.
    NoEvents,
    /// Units get the default answer because the database does not answer.
    AssignmentFailures,
    /// A variant has few units yet.
    FewUnits,
    /// After a promotion the winner may convert worse.
    GuardConversion,
    /// After a promotion the winner may err more than it did.
    GuardErrors,
    /// After a promotion errors have risen, and not only with the winner.
    SiteErrors,
    /// After a promotion fewer convert than in the same hour before it.
    ConversionBefore,
}

wire_names!(Kind {
    ErrorRate => "error_rate",
    Latency => "p95_latency_ms",
    Traffic => "traffic",
    Split => "sample_ratio_mismatch",
    NoEvents => "no_events",
    AssignmentFailures => "assignment_failures",
    FewUnits => "few_units",
    GuardConversion => "guard_conversion",
    GuardErrors => "guard_errors",
    SiteErrors => "site_errors",
    ConversionBefore => "conversion_before_after",
});

/// Whether an alert is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What it is about still is.
    Open,
    /// It is over.
    Closed,
}

wire_names!(Standing {
    Open => "open",
    Closed => "closed",
});

/// An alert that should be open.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The variant; `None` for the experiment as a whole.
    pub variant_id: Option<i64>,
    /// What it is about.
    pub kind: Kind,
    /// How bad it is.
    pub level: Level,
    /// What was found, in words.
    pub message: String,
    /// What was measured, in the unit of the threshold.
    pub value: Option<f64>,
    /// What it was compared with.
    pub threshold: Option<f64>,
}

/// A variant within the last hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantHour {
    /// Its id.
    pub id: i64,
    /// Its part of the traffic, in [0, 1].
    pub share: f64,
    /// Units in the analysis, since the start.
    pub units: i64,
    /// Units that were active within the hour.
    pub active_units: i64,
    /// Their requests within the hour.
    pub outcomes: Outcomes,
    /// Sum over units of the share of their requests that failed: every unit counts one, however often it tries.
    pub error_shares: f64,
}

/// An experiment within the last hour.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentHour {
    /// Whether it runs; otherwise its winner is promoted and watched, and nothing is said about its split.
    pub is_running: bool,
    /// Whether it has run for a whole hour.
    pub ran_the_hour: bool,
    /// Events that arrived.
    pub events: i64,
    /// Units whose assignment was looked up or stored.
    pub asked: i64,
    /// Those that got no answer in time.
    pub failed: i64,
    /// Anytime-valid p-value of the split since the start; `None` where it says nothing.
    pub split_p: Option<f64>,
    /// Its variants.
    pub variants: Vec<VariantHour>,
}

/// The alerts that should be open, those of the experiment first.
#[must_use]
pub fn findings(hour: &ExperimentHour) -> Vec<Finding> {
    let mut found: Vec<Finding> = [assignments(hour), split(hour), silence(hour)]
        .into_iter()
        .flatten()
        .collect();
    for variant in &hour.variants {
        found.extend(errors(variant));
        found.extend(latency(variant));
        if hour.is_running && variant.share > 0.0 {
            found.extend(traffic(hour, variant));
            found.extend(few_units(variant));
        }
    }
    found
}

/// The worst level whose threshold a value reaches.
fn level(value: f64, levels: &[(f64, Level)]) -> Option<(f64, Level)> {
    let mut levels = levels.iter();
    levels.find(|(threshold, _)| value >= *threshold).copied()
}

/// What is critical about a promoted variant and not about the whole site. It is the site's where the control, which the
/// held-back units see, fails as well: not where another variant does, and not where nothing is known of the control.
#[must_use]
pub fn critical_on_winner(winner: &VariantHour, control: Option<&VariantHour>) -> Option<Finding> {
    let of_site = |finding: &Finding| {
        let share = |of: &VariantHour| match finding.kind {
            Kind::ErrorRate => failed(of),
            _ => of.outcomes.slower_than(finding.threshold?).ok(),
        };
        let limit = match finding.kind {
            Kind::ErrorRate => finding.threshold?,
            _ => 1.0 - LATENCY_QUANTILE,
        };
        Some(is_site_wide(share(winner)?, share(control?)?, limit))
    };
    let found = [errors(winner), latency(winner)].into_iter().flatten();
    let mut critical = found.filter(|finding| finding.level == Level::Critical);
    critical.find(|finding| !of_site(finding).unwrap_or(false))
}

/// That fewer of the units that are shown the winner convert than in the same hour before its promotion: the upper 99.9 %
/// limit of the share now lies below the lower one of the share then. No test, because weekdays and sales move shares as
/// well: it warns, and takes nothing back. `None` below 20 units in either hour.
#[must_use]
pub fn conversion_fell(winner_id: i64, before: Proportion, now: Proportion) -> Option<Finding> {
    if before.units().min(now.units()) < MIN_UNITS {
        return None;
    }
    let (then, since) = (
        wilson(before, CONFIDENCE).ok()?,
        wilson(now, CONFIDENCE).ok()?,
    );
    let (old, new) = (before.rate().ok()?, now.rate().ok()?);
    (since.upper < then.lower).then(|| Finding {
        variant_id: Some(winner_id),
        kind: Kind::ConversionBefore,
        level: Level::Warning,
        message: format!(
            "{:.1} % of {} active units converted within an hour, {:.1} % of {} in the same hour before the promotion",
            100.0 * new,
            now.units(),
            100.0 * old,
            before.units()
        ),
        value: Some(new),
        threshold: Some(old),
    })
}

/// Units whose requests fail, a unit of which a part fails as that part.
fn failed(variant: &VariantHour) -> Option<Proportion> {
    let units = variant.outcomes.units;
    Proportion::new(floor(variant.error_shares).min(units), units).ok()
}

fn errors(variant: &VariantHour) -> Option<Finding> {
    let (failed, units) = (failed(variant)?, variant.outcomes.units);
    let lower = lower_limit(failed)?;
    let (threshold, level) = level(lower, &ERROR_RATE)?;
    Some(Finding {
        variant_id: Some(variant.id),
        kind: Kind::ErrorRate,
        level,
        message: format!(
            "error rate {:.1} % over {units} units within an hour, at least {:.1} % with 99.9 % confidence",
            100.0 * failed.rate().ok()?,
            100.0 * lower
        ),
        value: Some(lower),
        threshold: Some(threshold),
    })
}

/// The one-sided 99.9 % lower limit of a share; `None` below [`MIN_UNITS`].
fn lower_limit(share: Proportion) -> Option<f64> {
    if share.units() < MIN_UNITS {
        return None;
    }
    Some(wilson(share, CONFIDENCE).ok()?.lower)
}

fn latency(variant: &VariantHour) -> Option<Finding> {
    if variant.outcomes.units < MIN_UNITS {
        return None;
    }
    let p95 = variant.outcomes.p95(CONFIDENCE).ok()?;
    let lower = p95.lower?.value;
    let (threshold, level) = level(lower, &LATENCY_MS)?;
    Some(Finding {
        variant_id: Some(variant.id),
        kind: Kind::Latency,
        level,
        message: format!(
            "P95 latency {:.0} ms over {} units within an hour, at least {lower:.0} ms with 99.9 % confidence",
            p95.value, variant.outcomes.units
        ),
        value: Some(lower),
        threshold: Some(threshold),
    })
}

fn traffic(hour: &ExperimentHour, variant: &VariantHour) -> Option<Finding> {
    let all: i64 = hour.variants.iter().map(|v| v.active_units).sum();
    let share = Proportion::new(variant.active_units, all).ok()?;
    let (rate, upper) = (share.rate().ok()?, wilson(share, CONFIDENCE).ok()?.upper);
    let threshold = STARVING * variant.share;
    (rate < threshold && upper < variant.share).then(|| Finding {
        variant_id: Some(variant.id),
        kind: Kind::Traffic,
        level: Level::Warning,
        message: format!(
            "{} of {all} active units within an hour, where {:.1} % were planned",
            variant.active_units,
            100.0 * variant.share
        ),
        value: Some(rate),
        threshold: Some(threshold),
    })
}

fn few_units(variant: &VariantHour) -> Option<Finding> {
    (variant.units < FEW_UNITS).then(|| Finding {
        variant_id: Some(variant.id),
        kind: Kind::FewUnits,
        level: Level::Info,
        message: format!("{} units so far, fewer than {FEW_UNITS}", variant.units),
        value: Some(as_float(variant.units)),
        threshold: Some(as_float(FEW_UNITS)),
    })
}

fn split(hour: &ExperimentHour) -> Option<Finding> {
    let p = hour.split_p.filter(|_| hour.is_running)?;
    let (threshold, level) = SPLIT_P.into_iter().find(|(threshold, _)| p < *threshold)?;
    Some(Finding {
        variant_id: None,
        kind: Kind::Split,
        level,
        message: format!("units are not split as the weights say (p = {p:.0e})"),
        value: Some(p),
        threshold: Some(threshold),
    })
}

fn silence(hour: &ExperimentHour) -> Option<Finding> {
    (hour.is_running && hour.ran_the_hour && hour.events == 0).then(|| Finding {
        variant_id: None,
        kind: Kind::NoEvents,
        level: Level::Warning,
        message: "no events for an hour while the experiment runs".to_owned(),
        value: Some(0.0),
        threshold: None,
    })
}

fn assignments(hour: &ExperimentHour) -> Option<Finding> {
    let failed = Proportion::new(hour.failed, hour.asked).ok()?;
    let lower = lower_limit(failed)?;
    (lower > FAILED_ASSIGNMENTS).then(|| Finding {
        variant_id: None,
        kind: Kind::AssignmentFailures,
        level: Level::Critical,
        message: format!(
            "{} of {} units got no assignment within an hour because the database did not answer in time",
            hour.failed, hour.asked
        ),
        value: Some(lower),
        threshold: Some(FAILED_ASSIGNMENTS),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "not above the number of units; the conversion saturates"
)]
fn floor(sum: f64) -> i64 {
    // Shares of equal requests add up to whole numbers but for rounding.
    (sum + 1e-9).floor() as i64
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn as_float(count: i64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(id: i64, units: i64, erring: f64, latency: f64) -> VariantHour {
        let mut outcomes = Outcomes {
            units,
            requests: units,
            squared_requests: as_float(units),
            ..Outcomes::default()
        };
        for _ in 0..units {
            outcomes.latencies.add(latency).unwrap();
        }
        VariantHour {
            id,
            share: 0.5,
            units: 1_000,
            active_units: units,
            outcomes,
            error_shares: erring,
        }
    }

    fn hour(variants: Vec<VariantHour>) -> ExperimentHour {
        ExperimentHour {
            is_running: true,
            ran_the_hour: true,
            events: 1_000,
            asked: 1_000,
            failed: 0,
            split_p: Some(0.5),
            variants,
        }
    }

    fn open(hour: &ExperimentHour) -> Vec<(Option<i64>, Kind, Level)> {
        findings(hour)
            .iter()
            .map(|f| (f.variant_id, f.kind, f.level))
            .collect()
    }

    #[test]
    fn a_healthy_hour_opens_nothing() {
        let healthy = hour(vec![
            variant(1, 500, 5.0, 300.0),
            variant(2, 480, 4.0, 280.0),
        ]);
        assert_eq!(open(&healthy), []);
        // A point estimate over a quiet hour would cry wolf.
        let quiet = hour(vec![
            variant(1, 20, 3.0, 300.0),
            variant(2, 19, 19.0, 9_000.0),
        ]);
        assert_eq!(open(&quiet), []);
    }

    #[test]
    fn errors_and_latency_are_graded() {
        let bad = hour(vec![
            variant(1, 500, 50.0, 2_500.0),
            variant(2, 500, 100.0, 6_000.0),
        ]);
        assert_eq!(
            open(&bad),
            [
                (Some(1), Kind::ErrorRate, Level::Warning),
                (Some(1), Kind::Latency, Level::Warning),
                (Some(2), Kind::ErrorRate, Level::Critical),
                (Some(2), Kind::Latency, Level::Critical),
            ]
        );
        let promoted = ExperimentHour {
            is_running: false,
            ..bad
        };
        assert_eq!(open(&promoted).len(), 4);
    }

    #[test]
    fn what_the_control_suffers_as_well_is_the_sites() {
        let on_winner = |winner: &VariantHour, control: Option<&VariantHour>| {
            critical_on_winner(winner, control).map(|finding| finding.kind)
        };
        let erring = variant(1, 500, 100.0, 300.0);
        let with = |units, failed| variant(2, units, failed, 300.0);
        // Nothing is known of the control, or too little.
        assert_eq!(on_winner(&erring, None), Some(Kind::ErrorRate));
        for (units, failed) in [(0, 0.0), (1, 1.0), (2, 1.0), (30, 1.0), (30, 3.0)] {
            let control = with(units, failed);
            let found = on_winner(&erring, Some(&control));
            assert_eq!(found, Some(Kind::ErrorRate), "{failed} of {units}");
        }
        // Too few units for an alert of their own, and enough to tell.
        assert_eq!(on_winner(&erring, Some(&with(15, 5.0))), None);
        let slow = variant(1, 500, 0.0, 6_000.0);
        assert_eq!(on_winner(&slow, None), Some(Kind::Latency));
        assert_eq!(on_winner(&slow, Some(&with(200, 0.0))), Some(Kind::Latency));
        let slow_too = variant(2, 15, 0.0, 6_000.0);
        assert_eq!(on_winner(&slow, Some(&slow_too)), None);
        // One thing is the site's, the other the winner's.
        let both = variant(1, 500, 100.0, 6_000.0);
        assert_eq!(on_winner(&both, Some(&slow_too)), Some(Kind::ErrorRate));
        assert_eq!(on_winner(&variant(1, 500, 50.0, 2_500.0), None), None);
    }

    #[test]
    fn conversion_that_falls_warns() {
        let share = |x, n| Proportion::new(x, n).unwrap();
        let fell = |before, now| conversion_fell(1, before, now).map(|f| (f.kind, f.level));
        let warning = Some((Kind::ConversionBefore, Level::Warning));
        assert_eq!(fell(share(100, 1_000), share(30, 1_000)), warning);
        // Chance of an hour, more instead of fewer, and few units.
        assert_eq!(fell(share(100, 1_000), share(80, 1_000)), None);
        assert_eq!(fell(share(30, 1_000), share(100, 1_000)), None);
        assert_eq!(fell(share(1_000, 1_000), share(0, 19)), None);
        assert_eq!(fell(share(19, 19), share(0, 1_000)), None);
    }

    #[test]
    fn the_experiment_as_a_whole_is_watched() {
        let starving = hour(vec![
            variant(1, 500, 0.0, 100.0),
            variant(2, 10, 0.0, 100.0),
        ]);
        assert_eq!(open(&starving), [(Some(2), Kind::Traffic, Level::Warning)]);
        let young = VariantHour {
            units: 99,
            ..variant(2, 490, 0.0, 100.0)
        };
        let whole = ExperimentHour {
            events: 0,
            failed: 30,
            split_p: Some(1e-9),
            ..hour(vec![variant(1, 500, 0.0, 100.0), young])
        };
        assert_eq!(
            open(&whole),
            [
                (None, Kind::AssignmentFailures, Level::Critical),
                (None, Kind::Split, Level::Critical),
                (None, Kind::NoEvents, Level::Warning),
                (Some(2), Kind::FewUnits, Level::Info),
            ]
        );
        let doubtful = ExperimentHour {
            split_p: Some(5e-4),
            failed: 12,
            ran_the_hour: false,
            ..whole
        };
        assert_eq!(open(&doubtful)[0], (None, Kind::Split, Level::Warning));
        assert_eq!(open(&doubtful).len(), 2);
    }
}
