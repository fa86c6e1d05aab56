//! How a treatment stands: its looks, what they say, and the figures that are shown beside them.

use podium_domain::decision::anytime::{Split, anytime_of};
use podium_domain::decision::evidence::{Stratified, Stratum, stratified};
use podium_domain::decision::lift::fixed_interval;
use podium_domain::decision::look::{Analysis, Answer, Look, Snapshot, Wait, take};
use podium_domain::decision::verdict::{Gates, Standing, judge};
use podium_domain::stats::StatsError;
use podium_domain::stats::bayes::{GaussianPrior, posterior_effect};
use serde::{Deserialize, Serialize};

use crate::config::PromotionConfig;
use crate::evidence::{Evidence, Treatment};

/// ln of the largest e-value that is written out.
const MOST_LN_E: f64 = 700.0;
/// Level of the intervals that are shown.
const LEVEL: f64 = 0.95;

/// How a treatment stands.
pub(super) enum Stood {
    /// The experiment was never started.
    NotStarted,
    /// Something is missing or contradicts itself.
    Unknown(String),
    /// By its looks.
    Judged {
        standing: Standing,
        looks: Vec<Look>,
        waits: Vec<Wait>,
    },
}

impl Stood {
    pub(super) fn of(config: &PromotionConfig, evidence: &Evidence, treatment: &Treatment) -> Self {
        let Some(open) = &evidence.analysis else {
            return Self::NotStarted;
        };
        match asked(config, evidence, treatment, &open.analysis, take) {
            Err(why) => Self::Unknown(why),
            Ok(answer) => {
                let mut looks = treatment.looks.clone();
                let waits = match answer {
                    Answer::Taken(new) => {
                        looks.extend(new);
                        Vec::new()
                    }
                    Answer::Reused(_) => Vec::new(),
                    Answer::Waiting(waits) => waits,
                };
                if !looks.iter().all(is_sound) {
                    return Self::Unknown("a look holds what is no number".to_owned());
                }
                let gates = Gates {
                    min_confidence: config.thresholds.min_confidence,
                    min_improvement: config.thresholds.min_improvement,
                };
                Self::Judged {
                    standing: judge(&open.analysis, &looks, gates),
                    looks,
                    waits,
                }
            }
        }
    }

    pub(super) fn standing(&self) -> Option<Standing> {
        match self {
            Self::Judged { standing, .. } => Some(*standing),
            _ => None,
        }
    }

    pub(super) fn looks(&self) -> &[Look] {
        match self {
            Self::Judged { looks, .. } => looks,
            _ => &[],
        }
    }
}

fn is_sound(look: &Look) -> bool {
    let finite = |value: Option<f64>| value.is_none_or(f64::is_finite);
    look.information.is_finite()
        && look.spending_time.is_finite()
        && (0.0..=1.0).contains(&look.p)
        && finite(look.z)
        && finite(look.lift)
        && finite(look.bound)
}

/// What a request for a look gets at this moment.
fn asked(
    config: &PromotionConfig,
    evidence: &Evidence,
    treatment: &Treatment,
    analysis: &Analysis,
    taker: impl FnOnce(&Analysis, &[Look], &Snapshot<'_>) -> Result<Answer, StatsError>,
) -> Result<Answer, String> {
    if !(0.0..=1.0).contains(&analysis.unspent) {
        return Err("the alpha that is left is not known".to_owned());
    }
    let Some(strata) = &treatment.strata else {
        let why = treatment.missing.clone();
        return Err(why.unwrap_or_else(|| "the sums are missing".to_owned()));
    };
    let snapshot = Snapshot {
        now: evidence.now,
        strata,
        min_confidence: config.thresholds.min_confidence,
    };
    taker(analysis, &treatment.looks, &snapshot)
        .map_err(|error: StatsError| format!("the sums contradict each other: {error}"))
}

/// The looks that are due now and not recorded yet, by treatment: to be recorded before the verdict is used.
///
/// None are due for an experiment that does not run or whose totals are stale: such a look would spend for nothing.
#[must_use]
pub fn new_looks(config: &PromotionConfig, evidence: &Evidence) -> Vec<(i64, Vec<Look>)> {
    new_looks_by(config, evidence, |_, analysis, looks, snapshot| {
        take(analysis, looks, snapshot)
    })
}

/// As [`new_looks`], each taken by `taker`, which is told the treatment's id: simulations follow many experiments by
/// [`podium_domain::decision::look::follow`].
pub fn new_looks_by(
    config: &PromotionConfig,
    evidence: &Evidence,
    mut taker: impl FnMut(i64, &Analysis, &[Look], &Snapshot<'_>) -> Result<Answer, StatsError>,
) -> Vec<(i64, Vec<Look>)> {
    let fresh = evidence
        .lag_seconds
        .is_some_and(|lag| (0.0..super::criteria::MOST_LAG_SECONDS).contains(&lag));
    let Some(open) = &evidence.analysis else {
        return Vec::new();
    };
    let subject = &evidence.experiment;
    let looked_at = subject.status == "running" && subject.experiment_type != "bandit";
    if !looked_at || !fresh || open.changed.is_some() {
        return Vec::new();
    }
    let due = |treatment: &Treatment| {
        let id = treatment.arm.variant_id;
        let taker = |analysis: &Analysis, looks: &[Look], snapshot: &Snapshot<'_>| {
            taker(id, analysis, looks, snapshot)
        };
        match asked(config, evidence, treatment, &open.analysis, taker) {
            Ok(Answer::Taken(looks)) if looks.iter().all(is_sound) => Some((id, looks)),
            _ => None,
        }
    };
    evidence.treatments.iter().filter_map(due).collect()
}

/// What is said about a treatment beside the verdict. Lifts and limits are percents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Figures {
    /// Sequential confidence in percent; 0 before the first look.
    pub confidence: f64,
    /// Lift at the last look, in percent; before the first look the present one.
    pub improvement: Option<f64>,
    /// Two-sided 95 % interval of the present lift with a fixed horizon.
    pub interval: Option<(f64, f64)>,
    /// The present lift, shrunk by the effects that are expected.
    pub shrunk_improvement: Option<f64>,
    /// Standard error of the present lift, in percentage points.
    pub standard_error: Option<f64>,
    /// How the confidence was found.
    pub method: String,
    /// Looks so far, those included that nobody asked for.
    pub looks: usize,
    /// z at the last look.
    pub statistic: Option<f64>,
    /// What z had to reach at the last look.
    pub boundary: Option<f64>,
    /// Evidence and interval that hold at any moment; they decide nothing.
    pub anytime_valid: Option<AnytimeFigures>,
}

/// Evidence and interval that hold at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnytimeFigures {
    /// Against "no difference"; at most e^700.
    pub e_value: f64,
    /// Lower limit of the lift in percent; none where the data give none.
    pub lower: Option<f64>,
    /// Upper limit.
    pub upper: Option<f64>,
}

pub(super) fn figures(evidence: &Evidence, treatment: &Treatment, stood: &Stood) -> Figures {
    let strata = treatment.strata.as_deref().unwrap_or_default();
    let present = stratified(strata).ok();
    let standing = stood.standing();
    let taken = stood.looks().iter().rev().find(|look| look.z.is_some());
    let lift = present
        .and_then(|found| found.lift)
        .map(|lift| 100.0 * lift);
    let improvement = standing.and_then(|standing| standing.improvement.measured);
    Figures {
        confidence: standing
            .and_then(|standing| standing.confidence.measured)
            .unwrap_or_default(),
        improvement: improvement.or(lift),
        interval: interval(strata),
        shrunk_improvement: present.and_then(|found| shrunk(&found, evidence.prior_sd)),
        standard_error: present.and_then(|found| relative(&found, found.se)),
        method: "group_sequential".to_owned(),
        looks: stood.looks().len(),
        statistic: taken.and_then(|look| look.z),
        boundary: taken.and_then(|look| look.bound),
        anytime_valid: anytime_of(strata, split(evidence), 1.0 - LEVEL)
            .ok()
            .map(|found| AnytimeFigures {
                e_value: found.ln_e_two_sided.min(MOST_LN_E).exp(),
                lower: limit(found.lift.lower),
                upper: limit(found.lift.upper),
            }),
    }
}

fn limit(fraction: f64) -> Option<f64> {
    fraction.is_finite().then_some(100.0 * fraction)
}

/// In percent of the baseline.
fn relative(found: &Stratified, value: f64) -> Option<f64> {
    (found.baseline > 0.0).then(|| 100.0 * value / found.baseline)
}

/// Whether units were drawn with the planned shares.
const fn split(evidence: &Evidence) -> Split {
    if evidence.traffic.client_units == 0 {
        Split::Ours
    } else {
        Split::Foreign
    }
}

/// None where the data give no upper limit.
fn interval(strata: &[Stratum]) -> Option<(f64, f64)> {
    let found = fixed_interval(strata, LEVEL).ok()?;
    Some((limit(found.lower)?, limit(found.upper)?))
}

fn shrunk(found: &Stratified, prior_sd: f64) -> Option<f64> {
    let prior = GaussianPrior::new(0.0, Some(prior_sd * found.baseline)).ok()?;
    let posterior = posterior_effect(found.effect, found.se, &prior, LEVEL).ok()?;
    relative(found, posterior.mean)
}
