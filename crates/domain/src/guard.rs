//! What is watched after a promotion: a fuse against collapse, that may be looked at as often as one likes.
//!
//! **Primary metric.** Of the units whose own variant is not the winner, some are held back on the control and the others
//! have moved to the winner, by hash. Each counts once, when it converts for the first time after the promotion. If the
//! winner is not worse, its group is the held-back one with a known probability, whatever the conversion rate does from hour
//! to hour. The evidence of rollout steps, whose shares differ, is multiplied.
//!
//! **Error rate.** The share of units with an error, against the winner's own level in the experiment.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::event::EventType;
use crate::metric::{Metric, MetricKind};
use crate::stats::StatsError;
use crate::stats::eprocess::{converters, rate_above};
use crate::stats::proportion::{Proportion, wilson};

/// Evidence (e-value) from which a promotion is taken back: under "no harm" it is ever reached in one of a hundred watches
/// at most.
pub const ROLL_BACK: f64 = 100.0;
/// Evidence from which is warned.
pub const WARN: f64 = 20.0;
/// Likelihood ratio from which errors of the held back count as the site's: that nothing is known of them is no evidence.
pub const SITE: f64 = 3.0;
/// Log risk ratio that the alternative expects.
const EFFECT: f64 = 0.3;
/// Both-sided confidence whose upper limit holds with 99 %.
const UPPER_99: f64 = 0.98;

/// Units that converted for the first time while one step of a rollout was in force.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepConverters {
    /// Of those that had moved to the winner.
    pub moved: i64,
    /// Of those that were held back.
    pub held_back: i64,
    /// Planned share of the second group in both.
    pub held_back_share: f64,
}

/// ln e against "the winner converts no worse than the control".
///
/// # Errors
/// [`StatsError::InvalidInput`] for negative counts, or a share outside (0, 1).
///
/// # Source
/// [`converters`]; e-values of parts that follow each other multiply.
pub fn conversion_evidence(steps: &[StepConverters]) -> Result<f64, StatsError> {
    let evidence = steps.iter().map(|step| {
        let share = step.held_back_share;
        let concentration = 1.0 / (EFFECT * EFFECT * share * (1.0 - share));
        // "The held-back convert better" is "the winner is worse".
        let found = converters(
            as_float(step.moved),
            as_float(step.held_back),
            share,
            concentration,
            1.0 / ROLL_BACK,
        );
        found.map(|found| found.ln_e1)
    });
    evidence.sum()
}

/// The share of units with an error that is still taken as the winner's usual level: 25 % or one point above the 99 % upper
/// limit of what it had in the experiment. `None` where that leaves no room below 1.
///
/// # Errors
/// [`StatsError::NotEnoughData`] without units.
pub fn error_limit(in_experiment: Proportion) -> Result<Option<f64>, StatsError> {
    let level = wilson(in_experiment, UPPER_99)?.upper;
    let limit = (1.25 * level).max(level + 0.01);
    Ok((limit < 1.0).then_some(limit))
}

/// Whether the held-back units err as much as the winner's: then it is the site, not the winner. Their errors are
/// [`SITE`] times as likely at the winner's present level as at the limit; few held-back units prove nothing.
#[must_use]
pub fn is_site_wide(winner: Proportion, held_back: Proportion, limit: f64) -> bool {
    let Ok(level) = winner.rate() else {
        return false;
    };
    let (errors, fine) = (
        as_float(held_back.successes()),
        as_float(held_back.units() - held_back.successes()),
    );
    let level = level.min(1.0 - f64::EPSILON);
    let towards_winner =
        errors * (level / limit).ln() + fine * ((-level).ln_1p() - (-limit).ln_1p());
    level > limit && towards_winner >= SITE.ln()
}

/// The events that count as a conversion for the guard of a promotion by a metric, and whether they need a value: the
/// metric's own where it is a proportion, engagement above zero for engagement, and purchases for everything else.
#[must_use]
pub const fn conversion(metric: Metric) -> (EventType, bool) {
    match (metric, metric.kind()) {
        (_, MetricKind::Proportion { event }) => (event, false),
        (Metric::Engagement, _) => (EventType::Engagement, true),
        (Metric::RevenuePerUser | Metric::RevenuePerSession | Metric::AverageOrderValue, _) => {
            (EventType::Purchase, true)
        }
        _ => (EventType::Purchase, false),
    }
}

/// The end of the hour before a promotion that the last hour is held against: of the same weekday where the experiment ran by
/// then, else of the last day before. `None` within the first hour, and where it had not run for an hour at such a time.
#[must_use]
pub fn hour_before(
    started_at: DateTime<Utc>,
    promoted_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let (hour, since) = (TimeDelta::hours(1), now - promoted_at);
    if since < hour {
        return None;
    }
    let back = [TimeDelta::weeks(1), TimeDelta::days(1)].map(|period| {
        let periods = since.num_seconds() / period.num_seconds() + 1;
        let end = now.checked_sub_signed(period.checked_mul(i32::try_from(periods).ok()?)?)?;
        (end - started_at >= hour).then_some(end)
    });
    back.into_iter().flatten().next()
}

/// Everything that the guard looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardEvidence {
    /// First conversions by rollout step, without steps in which one of the groups was empty.
    pub steps: Vec<StepConverters>,
    /// Units of the winner with an error, of those with a request, in the experiment; `None` without requests.
    #[serde(with = "erring")]
    pub errors_before: Option<Proportion>,
    /// The same since the promotion, of all units that are shown the winner.
    #[serde(with = "erring")]
    pub errors_winner: Option<Proportion>,
    /// The same of the units that are held back.
    #[serde(with = "erring")]
    pub errors_held_back: Option<Proportion>,
}

/// How shares of units with an error are kept.
mod erring {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Proportion;

    #[derive(Serialize, Deserialize)]
    struct Share {
        erring: i64,
        units: i64,
    }

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(
        share: &Option<Proportion>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let share = share.map(|share| Share {
            erring: share.successes(),
            units: share.units(),
        });
        share.serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<Option<Proportion>, D::Error> {
        let share = Option::<Share>::deserialize(from)?;
        let checked = share.map(|share| Proportion::new(share.erring, share.units));
        checked.transpose().map_err(D::Error::custom)
    }
}

/// What the guard found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing that speaks of harm.
    Quiet,
    /// The winner may convert worse.
    ConversionWarning,
    /// The winner may err more than it did.
    ErrorWarning,
    /// Errors have risen, and not only with the winner.
    SiteErrors,
    /// The winner converts worse: roll back.
    ConversionHarm,
    /// The winner errs more than it did: roll back.
    ErrorHarm,
}

impl Finding {
    /// Whether the promotion is to be taken back.
    #[must_use]
    pub const fn is_harm(self) -> bool {
        matches!(self, Self::ConversionHarm | Self::ErrorHarm)
    }

    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::ConversionWarning => "conversion_warning",
            Self::ErrorWarning => "error_warning",
            Self::SiteErrors => "site_errors",
            Self::ConversionHarm => "conversion_harm",
            Self::ErrorHarm => "error_harm",
        }
    }
}

/// What the evidence says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardReading {
    /// ln e of worse conversion; `None` where nobody is compared.
    pub ln_e_conversion: Option<f64>,
    /// ln e of a raised error rate; `None` without requests before or since.
    pub ln_e_errors: Option<f64>,
    /// The share of units with an error that is taken as usual.
    pub error_limit: Option<f64>,
    /// The worst of both.
    pub finding: Finding,
}

/// Reads the evidence.
///
/// # Errors
/// [`StatsError`] for counts that contradict each other: then nothing is decided.
pub fn read(evidence: &GuardEvidence) -> Result<GuardReading, StatsError> {
    let ln_e_conversion = match evidence.steps.as_slice() {
        [] => None,
        steps => Some(conversion_evidence(steps)?),
    };
    let (error_limit, ln_e_errors) = errors(evidence)?;
    let reaches = |ln_e: Option<f64>, e: f64| ln_e.is_some_and(|ln_e| ln_e >= e.ln());
    let site = |winner: Proportion| {
        let held = evidence.errors_held_back;
        held.zip(error_limit)
            .is_some_and(|(held, limit)| is_site_wide(winner, held, limit))
    };
    let errors_high = reaches(ln_e_errors, ROLL_BACK);
    let finding = if reaches(ln_e_conversion, ROLL_BACK) {
        Finding::ConversionHarm
    } else if errors_high && !evidence.errors_winner.is_some_and(site) {
        Finding::ErrorHarm
    } else if errors_high {
        Finding::SiteErrors
    } else if reaches(ln_e_conversion, WARN) {
        Finding::ConversionWarning
    } else if reaches(ln_e_errors, WARN) {
        Finding::ErrorWarning
    } else {
        Finding::Quiet
    };
    Ok(GuardReading {
        ln_e_conversion,
        ln_e_errors,
        error_limit,
        finding,
    })
}

/// The limit and the evidence that it is passed.
fn errors(evidence: &GuardEvidence) -> Result<(Option<f64>, Option<f64>), StatsError> {
    let limit = match evidence.errors_before {
        Some(before) if before.units() > 0 => error_limit(before)?,
        _ => None,
    };
    let ln_e = match (limit, evidence.errors_winner) {
        (Some(limit), Some(since)) => Some(rate_above(
            as_float(since.successes()),
            as_float(since.units()),
            limit,
        )?),
        _ => None,
    };
    Ok((limit, ln_e))
}

/// The smallest relative drop in conversion that the guard finds with 80 % within the watch: `units` whose own variant is
/// not the winner come in that time, `rate` of them would convert on the control, and `held_back_share` of the compared are
/// held back. `None` when it would not even find that nobody converts any more.
///
/// Found means that the evidence reaches [`ROLL_BACK`] at the end of the watch where the split of the converters is at its
/// lower 20 % point; reaching it earlier and losing it again is left out, so the true chance is a little higher.
#[must_use]
pub fn detectable_drop(units: f64, rate: f64, held_back_share: f64) -> Option<f64> {
    /// Standard normal quantile of 80 %.
    const Z_80: f64 = 0.841_621_233_572_914_2;
    let finds = |drop: f64| {
        let held = units * rate * held_back_share;
        let moved = units * rate * (1.0 - held_back_share) * (1.0 - drop);
        let all = held + moved;
        let share = held / all;
        let held = (held - Z_80 * (all * share * (1.0 - share)).sqrt()).max(0.0);
        let step = StepConverters {
            moved: whole(all - held)?,
            held_back: whole(held)?,
            held_back_share,
        };
        let ln_e = conversion_evidence(&[step]).ok()?;
        (ln_e >= ROLL_BACK.ln()).then_some(())
    };
    const LARGEST: f64 = 0.999;
    finds(LARGEST)?;
    let (mut missed, mut found) = (0.0, LARGEST);
    while found - missed > 1e-4 {
        let middle = f64::midpoint(missed, found);
        match finds(middle) {
            Some(()) => found = middle,
            None => missed = middle,
        }
    }
    Some(found)
}

#[expect(clippy::cast_possible_truncation, reason = "checked to lie below 2^53")]
fn whole(count: f64) -> Option<i64> {
    (count.is_finite() && count < 9e15).then_some(count.max(0.0).round() as i64)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn as_float(count: i64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(moved: i64, held_back: i64) -> StepConverters {
        StepConverters {
            moved,
            held_back,
            held_back_share: 0.05,
        }
    }

    fn share(units_with: i64, units: i64) -> Option<Proportion> {
        Some(Proportion::new(units_with, units).unwrap())
    }

    fn evidence() -> GuardEvidence {
        GuardEvidence {
            steps: vec![step(950, 50)],
            errors_before: share(100, 10_000),
            errors_winner: share(11, 1_000),
            errors_held_back: share(1, 50),
        }
    }

    #[test]
    fn a_planted_collapse_is_found_and_an_even_outcome_is_quiet() {
        let quiet = read(&evidence()).unwrap();
        assert_eq!(quiet.finding, Finding::Quiet);
        let collapsed = GuardEvidence {
            steps: vec![step(250, 50)],
            ..evidence()
        };
        let collapsed = read(&collapsed).unwrap();
        assert_eq!(collapsed.finding, Finding::ConversionHarm);
        assert!(collapsed.finding.is_harm());
        // On the way there it warns first.
        let first = (250..950).rev().find_map(|moved| {
            let evidence = GuardEvidence {
                steps: vec![step(moved, 50)],
                ..evidence()
            };
            let finding = read(&evidence).unwrap().finding;
            (finding != Finding::Quiet).then_some(finding)
        });
        assert_eq!(first, Some(Finding::ConversionWarning));
    }

    #[test]
    fn steps_multiply_and_a_winner_that_is_better_is_no_harm() {
        let (one, other) = (step(300, 30), step(200, 25));
        let both = conversion_evidence(&[one, other]).unwrap();
        let parts = conversion_evidence(&[one]).unwrap() + conversion_evidence(&[other]).unwrap();
        assert!((both - parts).abs() < 1e-12);
        assert!(conversion_evidence(&[step(5_000, 100)]).unwrap() < 0.0);
        assert_eq!(conversion_evidence(&[]), Ok(0.0));
        let impossible = StepConverters {
            held_back_share: 1.0,
            ..one
        };
        assert!(conversion_evidence(&[impossible]).is_err());
    }

    #[test]
    fn errors_of_the_winner_alone_roll_back_and_those_of_the_site_do_not() {
        let erring = |winner: (i64, i64), held: (i64, i64)| GuardEvidence {
            errors_winner: share(winner.0, winner.1),
            errors_held_back: share(held.0, held.1),
            ..evidence()
        };
        // 1 % to 5 %.
        let reading = read(&erring((30, 600), (0, 40))).unwrap();
        assert_eq!(reading.finding, Finding::ErrorHarm, "{reading:?}");
        let site = read(&erring((30, 600), (3, 40))).unwrap();
        assert_eq!(site.finding, Finding::SiteErrors);
        // Two of forty are likelier on a site that fails, but not three times as likely.
        let doubtful = read(&erring((30, 600), (2, 40))).unwrap();
        assert_eq!(doubtful.finding, Finding::ErrorHarm);
        let alone = GuardEvidence {
            errors_held_back: None,
            ..erring((30, 600), (0, 0))
        };
        assert_eq!(read(&alone).unwrap().finding, Finding::ErrorHarm);
        let unknown = GuardEvidence {
            errors_before: None,
            ..alone
        };
        assert_eq!(read(&unknown).unwrap().ln_e_errors, None);
    }

    #[test]
    fn the_limit_leaves_a_quarter_or_a_point() {
        let low = error_limit(Proportion::new(100, 10_000).unwrap()).unwrap();
        assert!((low.unwrap() - 0.0226).abs() < 2e-4, "{low:?}");
        let high = error_limit(Proportion::new(2_000, 10_000).unwrap()).unwrap();
        assert!((high.unwrap() - 0.262).abs() < 2e-3, "{high:?}");
        assert_eq!(error_limit(Proportion::new(99, 100).unwrap()), Ok(None));
    }

    #[test]
    fn the_drop_that_is_found_shrinks_with_traffic() {
        let at = |per_day: f64, held| detectable_drop(7.0 * per_day, 0.1, held);
        let (few, more, many) = (at(1_000.0, 0.05), at(1_000.0, 0.2), at(20_000.0, 0.05));
        // 30 % is found in one case of twelve, in two of three, and in a day.
        assert!(few.unwrap() > 0.4, "{few:?}");
        assert!((0.28..0.4).contains(&more.unwrap()), "{more:?}");
        assert!(many.unwrap() < 0.2, "{many:?}");
        assert_eq!(detectable_drop(10.0, 0.01, 0.05), None);
        assert_eq!(detectable_drop(f64::NAN, 0.1, 0.05), None);
    }

    #[test]
    fn the_hour_before_is_of_the_same_weekday_if_it_can_be() {
        let at = |hours| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        let promoted = at(1_000);
        let ago = |started, now| {
            let end = hour_before(at(started), promoted, at(now))?;
            assert!(end <= promoted);
            Some((at(now) - end).num_hours())
        };
        assert_eq!(ago(0, 1_000), None);
        assert_eq!(ago(0, 1_001), Some(168));
        assert_eq!(ago(0, 1_169), Some(336));
        // It ran for three days only, or for less than the hour.
        assert_eq!(ago(928, 1_001), Some(24));
        assert_eq!(ago(928, 1_025), Some(48));
        assert_eq!(ago(977, 1_001), None);
    }

    #[test]
    fn evidence_survives_its_journey_through_json() {
        let kept = serde_json::to_value(evidence()).unwrap();
        assert_eq!(kept["errorsBefore"]["erring"], 100);
        assert_eq!(kept["steps"][0]["heldBack"], 50);
        let back: GuardEvidence = serde_json::from_value(kept.clone()).unwrap();
        assert_eq!(back, evidence());
        let mut impossible = kept;
        impossible["errorsWinner"]["units"] = 3.into();
        serde_json::from_value::<GuardEvidence>(impossible).unwrap_err();
    }

    #[test]
    fn conversions_are_those_of_the_metric() {
        let of = |metric| conversion(metric);
        assert_eq!(of(Metric::ConversionRate), (EventType::Purchase, false));
        assert_eq!(of(Metric::ClickConversionRate), (EventType::Click, false));
        assert_eq!(of(Metric::ClickThroughRate), (EventType::Purchase, false));
        assert_eq!(of(Metric::RevenuePerUser), (EventType::Purchase, true));
        assert_eq!(of(Metric::Engagement), (EventType::Engagement, true));
    }
}
