//! What somebody needs who computes the figures again, as the OpenAPI document shows it.

use chrono::{DateTime, Utc};
use podium_domain::analysis::{EpochSplit, Posterior};
use podium_domain::decision::evidence::{ArmSummary, Stratum};
use podium_domain::decision::look::Look;
use podium_domain::metric::Metric;
use podium_domain::moments::{MetricMoments, Moments};
use podium_domain::stats::StatsError;
use podium_promotion::evidence::OpenAnalysis;
use podium_storage::analytics::context::Epoch;
use podium_storage::experiments::model::Variant;
use serde::Serialize;
use utoipa::ToSchema;

/// The analysis that figures and looks belong to: units that were assigned from its first epoch on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReportAnalysis)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisBody {
    /// Its number within the experiment, from 1; one more with every restart.
    pub number: i32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Units of earlier epochs are in no figure of this analysis.
    pub from_epoch: i32,
    /// r: the part of alpha that earlier analyses have left.
    pub unspent: f64,
    /// What was changed since the design was frozen; then the next scan begins a new analysis.
    pub changed: Option<String>,
    /// Metric of the looks.
    pub metric: &'static str,
    /// m: treatments that alpha is divided by.
    pub treatments: u32,
    /// Level of each treatment's boundary at the confidence asked for: r (1 − minConfidence / 100) / m.
    pub level: f64,
    /// The relative effect of the design; null where none is given and the improvement asked for stands in for it.
    pub min_detectable_effect: Option<f64>,
    /// I₀: relative information at which half of alpha is spent, where there is no horizon.
    pub planned_information: f64,
    /// The horizon in days; null where looks are open-ended.
    pub horizon_days: Option<f64>,
    /// Length of a slot in hours.
    pub look_every_hours: u32,
    /// Units that every arm needs before a look.
    pub min_sample_size: i64,
    /// Hours before the first slot.
    pub min_runtime_hours: f64,
    /// Quantile above which unit totals of values are capped.
    pub winsorize_upper: Option<f64>,
}

impl AnalysisBody {
    pub(super) fn new(open: &OpenAnalysis, min_confidence: f64) -> Self {
        let design = &open.analysis.design;
        Self {
            number: open.number,
            started_at: open.analysis.start,
            from_epoch: open.from_epoch,
            unspent: open.analysis.unspent,
            changed: open.changed.clone(),
            metric: design.metric.name(),
            treatments: design.treatments,
            level: open.analysis.level(min_confidence),
            min_detectable_effect: design.settings.min_detectable_effect,
            planned_information: design.planned_information,
            horizon_days: design.settings.horizon_days,
            look_every_hours: design.settings.look_every_hours,
            min_sample_size: design.min_sample_size,
            min_runtime_hours: design.min_runtime_hours,
            winsorize_upper: design.winsorize_upper,
        }
    }
}

/// A look at a treatment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReportLook)]
#[serde(rename_all = "camelCase")]
pub struct LookBody {
    /// Its slot, from 0.
    pub slot: i64,
    /// When the data were read; of a missed slot its beginning.
    pub time: DateTime<Utc>,
    /// Relative information; of a missed slot interpolated in time.
    pub information: f64,
    /// Argument of the spending function.
    pub spending_time: f64,
    /// z; null for a missed slot.
    pub z: Option<f64>,
    /// What z had to reach; null where the look added nothing to what was spent.
    pub bound: Option<f64>,
    /// Sequential p-value up to this look.
    pub p_value: f64,
    /// Level of the boundary when the look was taken.
    pub level: f64,
    /// Whether nobody asked in this slot.
    pub missed: bool,
    /// Whether it is stored; otherwise a scan at this moment would store it.
    pub recorded: bool,
}

impl LookBody {
    pub(super) fn new(look: &Look, recorded: bool) -> Self {
        Self {
            slot: look.slot,
            time: look.time,
            information: look.information,
            spending_time: look.spending_time,
            z: look.z,
            bound: look.bound,
            p_value: look.p,
            level: look.level,
            missed: look.z.is_none(),
            recorded,
        }
    }
}

/// Control and treatment in one stretch of constant weights, under the cap that the metric is compared with.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReportStratum)]
#[serde(rename_all = "camelCase")]
pub struct StratumBody {
    /// The epoch.
    pub epoch: i32,
    /// The treatment's planned part of the traffic of the two.
    pub treatment_share: f64,
    /// The control.
    pub control: StratumArm,
    /// The treatment.
    pub treatment: StratumArm,
}

/// One arm of a stratum.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StratumArm {
    /// Units.
    pub units: i64,
    /// Units with the event, or with something in the metric's total.
    pub conversions: i64,
    /// The rate, mean or ratio; null where it is not defined yet.
    pub value: Option<f64>,
    /// Variance of one unit's contribution to it.
    pub variance: Option<f64>,
}

impl StratumBody {
    pub(super) fn new(epoch: i32, stratum: &Stratum) -> Self {
        Self {
            epoch,
            treatment_share: stratum.treatment_share,
            control: StratumArm::from(&stratum.control),
            treatment: StratumArm::from(&stratum.treatment),
        }
    }
}

impl From<&ArmSummary> for StratumArm {
    fn from(arm: &ArmSummary) -> Self {
        Self {
            units: arm.units(),
            conversions: arm.conversions(),
            value: arm.value(),
            variance: arm.unit_variance(),
        }
    }
}

/// What is believed after the data; before them a uniform prior for rates, a flat one for effects.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BayesPosterior)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PosteriorBody {
    /// Each rate is Beta(α, β) after Beta(1, 1).
    Beta {
        /// α and β of the control.
        control: [f64; 2],
        /// α and β of the treatment.
        treatment: [f64; 2],
    },
    /// The difference is normal, after a flat prior.
    Normal {
        /// Mean of the difference.
        mean: f64,
        /// Its standard deviation.
        sd: f64,
    },
}

impl From<Posterior> for PosteriorBody {
    fn from(posterior: Posterior) -> Self {
        match posterior {
            Posterior::Rates { control, treatment } => Self::Beta { control, treatment },
            Posterior::Effect { mean, sd } => Self::Normal { mean, sd },
        }
    }
}

/// Units that the server drew in one stretch of constant weights.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitEpoch {
    /// The epoch.
    pub epoch: i32,
    /// The variants.
    pub variants: Vec<SplitArm>,
}

/// One variant of a split.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SplitArm {
    /// Variant.
    pub variant_id: i64,
    /// Its weight that was in force.
    pub weight: f64,
    /// Units that the server drew.
    pub units: f64,
    /// Those that were to be expected.
    pub expected: f64,
}

pub(super) fn split_epochs(
    epochs: &[&Epoch],
    variants: &[Variant],
    splits: &[EpochSplit],
) -> Vec<SplitEpoch> {
    let row = |(epoch, split): (&&Epoch, &EpochSplit)| {
        let units: f64 = split.counts.iter().sum();
        let weights: f64 = split.weights.iter().sum();
        let arms = variants.iter().zip(split.counts.iter().zip(&split.weights));
        SplitEpoch {
            epoch: epoch.epoch,
            variants: arms
                .map(|(variant, (count, weight))| SplitArm {
                    variant_id: variant.id,
                    weight: *weight,
                    units: *count,
                    expected: if weights > 0.0 {
                        units * weight / weights
                    } else {
                        0.0
                    },
                })
                .collect(),
        }
    };
    epochs.iter().zip(splits).map(row).collect()
}

/// The sums behind a value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ValueSums {
    pub(super) sum: Option<f64>,
    pub(super) denominator: Option<f64>,
    pub(super) variance: Option<f64>,
}

pub(super) fn value_sums(moments: &Moments, metric: Metric) -> ValueSums {
    sums_of(moments, metric).unwrap_or_default()
}

fn sums_of(moments: &Moments, metric: Metric) -> Result<ValueSums, StatsError> {
    let Some(found) = moments.of_metric(metric)? else {
        return Ok(ValueSums::default());
    };
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    let float = |count: i64| count as f64;
    Ok(match found {
        MetricMoments::Proportion(arm) => ValueSums {
            sum: Some(float(arm.successes())),
            denominator: None,
            variance: arm.rate().ok().map(|rate| rate * (1.0 - rate)),
        },
        MetricMoments::Mean(arm) => ValueSums {
            sum: Some(arm.total()?),
            denominator: None,
            variance: arm.summary().ok().map(|summary| summary.variance()),
        },
        MetricMoments::Ratio(arm) => ValueSums {
            sum: Some(arm.numerator().total()?),
            denominator: Some(arm.denominator().total()?),
            variance: arm.summary().ok().map(|found| found.se2() * float(arm.n)),
        },
    })
}
