//! What is asked of a promotion, in one typed structure that the API and the worker share.
//!
//! Layers are merged field by field, later ones win: the preset of the environment, thresholds of the environment, the
//! experiment's own settings (`config.autoPromotion`), the preset that a request names, its `config`, its `dryRun`.
//! Some fields are exceptions: `dryRun` is true when it is true anywhere, the exclusion list is the union of all lists,
//! no preset changes `enabled`, and no request switches a safety check off that is on without it. What comes out may not
//! be weaker than the floor.
//!
//! To add a setting: a field of [`PromotionConfig`], its row in `fields`, and its values in [`Preset::config`].

mod environment;
mod fields;
mod layers;

#[cfg(test)]
mod tests;

pub use environment::{Environment, EnvironmentError};
pub use layers::{Effective, Request};

use podium_domain::bucketing::Allocation;
use podium_storage::rollouts::Plan;
use serde::{Deserialize, Serialize};

/// Everything that is asked of a promotion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PromotionConfig {
    /// Whether the engine promotes on its own; a person may promote all the same.
    pub enabled: bool,
    /// What must be reached.
    pub thresholds: Thresholds,
    /// What must not go wrong.
    pub safety_checks: SafetyChecks,
    /// Who is told.
    pub notifications: Notifications,
    /// Answer as if, and write nothing.
    pub dry_run: bool,
    /// Experiments that are never promoted, by name.
    pub excluded_experiments: Vec<String>,
    /// Promotions by the engine within an hour, over all workers; 1 to 100.
    pub max_concurrent_promotions: u32,
    /// How the winner takes over.
    pub rollout: Rollout,
    /// How long a promotion is watched.
    pub guard: Guard,
}

/// What must be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Thresholds {
    /// Sequential confidence in percent, at least 50 and below 100.
    pub min_confidence: f64,
    /// Units of every variant.
    pub min_sample_size: i64,
    /// Observed lift in percent.
    pub min_improvement: f64,
    /// Hours since the start.
    pub min_runtime_hours: f64,
    /// The winner's error rate, a fraction.
    pub max_error_rate: f64,
    /// Change of the 95th percentile of latency against the control, in percent.
    pub max_latency_degradation: f64,
}

/// What must not go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the switches of the wire format, each on its own"
)]
pub struct SafetyChecks {
    /// Whether errors are checked.
    pub check_error_rates: bool,
    /// Whether latency is checked.
    pub check_latency: bool,
    /// Whether the split is checked.
    pub check_traffic_balance: bool,
    /// Whether alerts are checked.
    pub check_recent_alerts: bool,
    /// Whether errors and latency must be proved not to be worse.
    pub require_non_inferiority: bool,
    /// Hours for which an alert counts.
    pub alert_lookback_hours: i64,
    /// Critical alerts that are tolerated.
    pub max_critical_alerts: i64,
}

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Notifications {
    /// Whether anybody is.
    pub enabled: bool,
    /// Over which channels: `slack`, `email`, `pagerduty`, `webhook`.
    pub channels: Vec<String>,
    /// From which level on: `info`, `warning`, `critical`.
    pub minimum_level: String,
    /// Whether the figures are in it.
    pub include_detailed_metrics: bool,
}

/// How the winner takes over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// The winner's share of traffic in percent, step by step; rises to 100.
    pub steps: Vec<f64>,
    /// Hours from one step to the next.
    pub step_hours: f64,
    /// Share of units in percent that keep the control while the promotion is watched.
    pub holdback_percent: f64,
}

/// How long a promotion is watched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Guard {
    /// Hours; then the holdback ends.
    pub watch_hours: f64,
    /// Whether proved harm takes the promotion back without a person.
    pub auto_rollback: bool,
}

impl PromotionConfig {
    /// How a promotion under this configuration is rolled out and watched.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan {
            steps: self.rollout.steps.iter().map(|step| share(*step)).collect(),
            step_hours: self.rollout.step_hours,
            holdback: share(self.rollout.holdback_percent),
            watch_hours: self.guard.watch_hours,
            auto_rollback: self.guard.auto_rollback,
        }
    }
}

/// A percent that was checked, to four decimals.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 100; the conversion saturates"
)]
fn share(percent: f64) -> Allocation {
    Allocation::from_units((10_000.0 * percent).round() as u32).unwrap_or(Allocation::FULL)
}

/// A ready-made strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// For sites with much traffic.
    Aggressive,
    /// Where nothing else is said.
    Balanced,
    /// For systems where a mistake is dear.
    Conservative,
}

impl Preset {
    /// All presets, the weakest first.
    pub const ALL: [Self; 3] = [Self::Aggressive, Self::Balanced, Self::Conservative];

    /// Its name on the wire and in the environment.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aggressive => "aggressive",
            Self::Balanced => "balanced",
            Self::Conservative => "conservative",
        }
    }

    /// The preset of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// Its values.
    #[must_use]
    pub fn config(self) -> PromotionConfig {
        PromotionConfig {
            enabled: false,
            thresholds: self.thresholds(),
            safety_checks: SafetyChecks {
                check_error_rates: true,
                check_latency: true,
                check_traffic_balance: true,
                check_recent_alerts: true,
                require_non_inferiority: self == Self::Conservative,
                alert_lookback_hours: if self == Self::Conservative { 48 } else { 24 },
                max_critical_alerts: 0,
            },
            notifications: Notifications {
                enabled: true,
                channels: fields::CHANNELS
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect(),
                minimum_level: "info".to_owned(),
                include_detailed_metrics: true,
            },
            dry_run: false,
            excluded_experiments: Vec::new(),
            max_concurrent_promotions: 3,
            rollout: self.rollout(),
            guard: Guard {
                watch_hours: match self {
                    Self::Aggressive => 72.0,
                    Self::Balanced => 168.0,
                    Self::Conservative => 336.0,
                },
                auto_rollback: true,
            },
        }
    }

    fn thresholds(self) -> Thresholds {
        let (confidence, sample, improvement, runtime, errors, latency) = match self {
            Self::Aggressive => (90.0, 500, 3.0, 12.0, 0.08, 30.0),
            Self::Balanced => (95.0, 2_000, 5.0, 24.0, 0.05, 20.0),
            Self::Conservative => (99.0, 5_000, 10.0, 72.0, 0.02, 10.0),
        };
        Thresholds {
            min_confidence: confidence,
            min_sample_size: sample,
            min_improvement: improvement,
            min_runtime_hours: runtime,
            max_error_rate: errors,
            max_latency_degradation: latency,
        }
    }

    fn rollout(self) -> Rollout {
        let (steps, step_hours, holdback_percent) = match self {
            Self::Aggressive => (vec![100.0], 0.0, 0.0),
            Self::Balanced => (vec![100.0], 0.0, 5.0),
            Self::Conservative => (vec![75.0, 100.0], 48.0, 10.0),
        };
        Rollout {
            steps,
            step_hours,
            holdback_percent,
        }
    }
}
