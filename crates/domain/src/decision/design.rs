//! What is fixed at the first look, and what follows from it: slots, spending.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::metric::Metric;
use crate::stats::StatsError;
use crate::stats::group_sequential::Spending;
use crate::stats::special::norm_isf;

/// The least and the largest effect that is assumed where none is given.
const ASSUMED_EFFECT: (f64, f64) = (0.02, 0.5);
/// The effect assumed where no improvement is asked for.
const EFFECT_WITHOUT_GATE: f64 = 0.1;
const SECONDS_PER_HOUR: f64 = 3_600.0;
const HOURS_PER_DAY: f64 = 24.0;

/// How an experiment is to be analysed, as its owner wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DesignSettings {
    /// Smallest relative effect worth finding (0.1 is 10 %).
    pub min_detectable_effect: Option<f64>,
    /// Planned length in days; open-ended without.
    pub horizon_days: Option<f64>,
    /// Hours of one slot, in which at most one look is taken.
    pub look_every_hours: u32,
}

/// The design of one analysis, frozen at its first look.
///
/// A later change of any of the settings in it opens a new analysis; see
/// [`FrozenDesign::is_changed_by`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrozenDesign {
    /// The primary metric.
    #[serde(with = "metric_name")]
    pub metric: Metric,
    /// The quantile above which unit totals are capped; `None` for no cap.
    pub winsorize_upper: Option<f64>,
    /// The cap that was found at the first look, in the metric's unit; `None` without a cap, and
    /// for metrics whose cap is found anew at each look because their totals go on growing.
    pub cap: Option<f64>,
    /// Number of treatments, among which alpha is divided.
    pub treatments: u32,
    /// Effect, horizon and slots.
    pub settings: DesignSettings,
    /// Units that every arm needs before a look.
    pub min_sample_size: i64,
    /// Hours from the start to the first slot.
    pub min_runtime_hours: f64,
    /// Information at which an open-ended design has spent half of alpha.
    pub planned_information: f64,
}

/// What a design is made of, besides its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DesignInput {
    /// The primary metric.
    pub metric: Metric,
    /// The quantile above which unit totals are capped.
    pub winsorize_upper: Option<f64>,
    /// The cap found now.
    pub cap: Option<f64>,
    /// Number of treatments.
    pub treatments: u32,
    /// Effect, horizon and slots.
    pub settings: DesignSettings,
    /// The experiment's own sample size, units in every arm.
    pub min_sample_size: i64,
    /// The experiment's own runtime in hours.
    pub min_runtime_hours: f64,
    /// The improvement asked for, in percent; twice of it stands in for an effect that is not given.
    pub min_improvement: f64,
}

impl FrozenDesign {
    /// Freezes a design.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for no treatments, an effect or horizon that is not above 0,
    /// slots of other than 1 to 168 hours, and a sample, runtime or improvement that is negative or
    /// not finite.
    pub fn new(input: DesignInput) -> Result<Self, StatsError> {
        let settings = input.settings;
        let above_zero =
            |value: Option<f64>| value.is_none_or(|value| value > 0.0 && value.is_finite());
        let not_negative = |value: f64| value >= 0.0 && value.is_finite();
        let valid = above_zero(settings.min_detectable_effect)
            && above_zero(settings.horizon_days)
            && (1..=168).contains(&settings.look_every_hours)
            && input.treatments >= 1
            && input.min_sample_size >= 0
            && not_negative(input.min_runtime_hours)
            && not_negative(input.min_improvement);
        if !valid {
            return Err(StatsError::InvalidInput);
        }
        let effect = settings
            .min_detectable_effect
            .unwrap_or_else(|| assumed_effect(input.min_improvement));
        Ok(Self {
            metric: input.metric,
            winsorize_upper: input.winsorize_upper,
            cap: input.cap,
            treatments: input.treatments,
            settings,
            min_sample_size: input.min_sample_size,
            min_runtime_hours: input.min_runtime_hours,
            planned_information: planned_information(effect),
        })
    }

    /// Whether the settings in force now differ from the frozen ones, so that a new analysis has
    /// to begin. The cap and the assumed effect follow from the data and the gates of a request;
    /// they stay as they were frozen.
    #[must_use]
    pub fn is_changed_by(&self, now: &Self) -> bool {
        let settings = |design: &Self| Self {
            cap: None,
            planned_information: 0.0,
            ..design.clone()
        };
        settings(self) != settings(now)
    }

    /// How alpha is spent.
    #[must_use]
    pub fn spending(&self) -> Spending {
        if self.settings.horizon_days.is_some() {
            Spending::Pocock
        } else {
            Spending::OpenRational
        }
    }

    /// The argument of the spending function: the part of the horizon that has passed since
    /// `start`, or information in units of what was planned.
    #[must_use]
    pub fn spending_time(
        &self,
        start: DateTime<Utc>,
        time: DateTime<Utc>,
        information: f64,
    ) -> f64 {
        match self.settings.horizon_days {
            Some(days) => hours_between(start, time).max(0.0) / (days * HOURS_PER_DAY),
            None => information / self.planned_information,
        }
    }

    /// The slot that `time` is in, counted from 0; `None` before the least runtime has passed.
    #[must_use]
    pub fn slot(&self, start: DateTime<Utc>, time: DateTime<Utc>) -> Option<i64> {
        let first = start.checked_add_signed(hours(self.min_runtime_hours))?;
        let since = time.signed_duration_since(first);
        let length = i64::from(self.settings.look_every_hours);
        (since >= TimeDelta::zero()).then(|| since.num_hours() / length)
    }

    /// When a slot begins; `None` beyond the calendar.
    #[must_use]
    pub fn slot_start(&self, start: DateTime<Utc>, slot: i64) -> Option<DateTime<Utc>> {
        let length = i64::from(self.settings.look_every_hours);
        let after = TimeDelta::try_hours(slot.checked_mul(length)?)?;
        start
            .checked_add_signed(hours(self.min_runtime_hours))?
            .checked_add_signed(after)
    }
}

/// Hours from `from` to `to`, negative when it is earlier.
pub(super) fn hours_between(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    to.signed_duration_since(from).as_seconds_f64() / SECONDS_PER_HOUR
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of floats saturates, and a runtime of so many hours is never reached"
)]
fn hours(hours: f64) -> TimeDelta {
    let milliseconds = (hours * SECONDS_PER_HOUR * 1_000.0).round() as i64;
    TimeDelta::try_milliseconds(milliseconds).unwrap_or(TimeDelta::MAX)
}

/// The relative effect that stands in for one that is not given, from the improvement asked for in percent.
#[must_use]
pub fn assumed_effect(min_improvement: f64) -> f64 {
    if min_improvement == 0.0 {
        EFFECT_WITHOUT_GATE
    } else {
        let (least, most) = ASSUMED_EFFECT;
        (2.0 * min_improvement / 100.0).clamp(least, most)
    }
}

/// ((z_0.05 + z_0.2) / effect)²: the information of a fixed one-sided test at 5 % with power 80 %.
/// The same whatever alpha is, so that boundaries of different alpha are nested.
fn planned_information(effect: f64) -> f64 {
    let root = (norm_isf(0.05) + norm_isf(0.2)) / effect;
    root * root
}

/// A metric by its name.
mod metric_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::metric::Metric;

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature is that of serde"
    )]
    pub(super) fn serialize<S: Serializer>(metric: &Metric, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(metric.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Metric, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
