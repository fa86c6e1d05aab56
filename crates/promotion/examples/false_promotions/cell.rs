//! One kind of experiment that is simulated again and again.

use clap::ValueEnum;
use podium_domain::decision::design::{DesignInput, DesignSettings, FrozenDesign};
use podium_domain::decision::look::Analysis;
use podium_domain::metric::Metric;
use podium_domain::stats::StatsError;
use podium_promotion::config::{Preset, PromotionConfig};
use podium_simulation::Shop;
use podium_simulation::shop::{
    Cap, ClickShop, Clicks, HOURS_PER_DAY, Market, RateShop, Revenue, RevenueShop,
};
use serde::Serialize;

/// Above this quantile of units values are capped, as experiments have it where nothing is said.
const WINSORIZE_UPPER: f64 = 0.99;
/// Spread of the logarithm of a basket.
const SIGMA: f64 = 1.5;

/// The presets by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PresetName {
    Aggressive,
    Balanced,
    Conservative,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SimulatedMetric {
    /// Share of units that convert.
    #[value(name = "conversion_rate")]
    ConversionRate,
    /// Clicks per impression, clustered by unit.
    #[value(name = "ratio")]
    Ratio,
    /// Log-normal baskets of few buyers, capped.
    #[value(name = "revenue_per_user")]
    RevenuePerUser,
}

impl SimulatedMetric {
    fn metric(self) -> Metric {
        match self {
            Self::ConversionRate => Metric::ConversionRate,
            Self::Ratio => Metric::ClickThroughRate,
            Self::RevenuePerUser => Metric::RevenuePerUser,
        }
    }
}

/// Whether the thresholds beside the confidence are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gates {
    /// As the preset has them.
    On,
    /// No least sample, runtime or improvement; so a lift of 10 % is planned for.
    Off,
}

/// Values that do not go together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum CellError {
    #[error("--baseline {0}: must lie between 0 and 1")]
    Baseline(f64),
    #[error("--lift {0}: must be above -1")]
    Lift(f64),
    #[error(
        "--baseline {baseline} with --lift {lift}: the treatment's value must be at most {most:.3}"
    )]
    Value { baseline: f64, lift: f64, most: f64 },
    #[error("an experiment of {0} hours is longer than ten years")]
    Length(u64),
    #[error("this design is not valid")]
    Design(#[from] StatsError),
}

/// One kind of experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cell {
    pub(crate) preset: PresetName,
    pub(crate) gates: Gates,
    pub(crate) metric: SimulatedMetric,
    pub(crate) baseline: f64,
    pub(crate) lift: f64,
    pub(crate) variants: u32,
    pub(crate) looks: u32,
    pub(crate) units_per_look: u32,
    pub(crate) hours_per_look: u32,
}

impl Cell {
    /// Itself, if its values go together.
    pub(crate) fn checked(self) -> Result<Self, CellError> {
        let (baseline, lift) = (self.baseline, self.lift);
        if !(baseline > 0.0 && baseline < 1.0) {
            return Err(CellError::Baseline(baseline));
        }
        if lift <= -1.0 {
            return Err(CellError::Lift(lift));
        }
        let most = match self.metric {
            SimulatedMetric::Ratio => Clicks::LARGEST_RATIO,
            SimulatedMetric::ConversionRate | SimulatedMetric::RevenuePerUser => 1.0,
        };
        if baseline.max(baseline * (1.0 + lift)) > most {
            return Err(CellError::Value {
                baseline,
                lift,
                most,
            });
        }
        let hours = u64::from(self.looks) * u64::from(self.hours_per_look);
        if hours > 10 * 8_766 {
            return Err(CellError::Length(hours));
        }
        self.analysis()?;
        Ok(self)
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> PromotionConfig {
        let preset = match self.preset {
            PresetName::Aggressive => Preset::Aggressive,
            PresetName::Balanced => Preset::Balanced,
            PresetName::Conservative => Preset::Conservative,
        };
        let mut config = PromotionConfig {
            enabled: true,
            ..preset.config()
        };
        if self.gates == Gates::Off {
            config.thresholds.min_sample_size = 1;
            config.thresholds.min_runtime_hours = 0.0;
            config.thresholds.min_improvement = 0.0;
        }
        config
    }

    pub(crate) fn treatments(&self) -> u32 {
        self.variants - 1
    }

    /// The analysis, from the start on.
    pub(crate) fn analysis(&self) -> Result<Analysis, StatsError> {
        let thresholds = self.config().thresholds;
        let metric = self.metric.metric();
        let design = FrozenDesign::new(DesignInput {
            metric,
            winsorize_upper: metric.is_value().then_some(WINSORIZE_UPPER),
            cap: None,
            treatments: self.treatments(),
            settings: DesignSettings {
                min_detectable_effect: None,
                horizon_days: None,
                look_every_hours: self.hours_per_look,
            },
            min_sample_size: thresholds.min_sample_size,
            min_runtime_hours: thresholds.min_runtime_hours,
            min_improvement: thresholds.min_improvement,
        })?;
        Ok(Analysis {
            start: chrono::DateTime::UNIX_EPOCH,
            unspent: 1.0,
            design,
        })
    }

    /// The shop before its first unit.
    pub(crate) fn shop(&self) -> Box<dyn Shop> {
        let per_day =
            f64::from(self.units_per_look) * HOURS_PER_DAY / f64::from(self.hours_per_look);
        let units_per_day = vec![per_day; self.variants as usize];
        let mut lifts = vec![0.0; self.treatments() as usize];
        lifts[0] = self.lift;
        match self.metric {
            SimulatedMetric::ConversionRate => {
                Box::new(RateShop::new(Market::even(self.baseline, &lifts, per_day)))
            }
            SimulatedMetric::Ratio => Box::new(ClickShop::new(Clicks {
                units_per_day,
                baseline: self.baseline,
                lifts,
            })),
            SimulatedMetric::RevenuePerUser => Box::new(RevenueShop::new(Revenue {
                units_per_day,
                buyers: self.baseline,
                lifts,
                sigma: SIGMA,
                cap: Cap::Anew,
            })),
        }
    }
}
