//! One simulated experiment, looked at as the engine looks: gather, take the looks that are due, record them, decide.

use chrono::{DateTime, TimeDelta};
use podium_domain::analysis::EpochSplit;
use podium_domain::decision::evidence::{Counts, Stratum, stratified};
use podium_domain::decision::look::{Analysis, follow};
use podium_domain::decision::sequential::Crossing;
use podium_domain::stats::StatsError;
use podium_domain::stats::special::norm_isf;
use podium_promotion::config::PromotionConfig;
use podium_promotion::decide::{Decision, Question, decide, new_looks, new_looks_by};
use podium_promotion::evidence::{
    Arm, Evidence, History, OpenAnalysis, SafetyReading, Subject, Traffic, Treatment,
};
use podium_simulation::{Sample, Shop};

use crate::cell::Cell;

/// The control's id; treatments follow.
const CONTROL: i64 = 1;
/// Effects that are expected while there are no promotions to learn from, as the engine has it.
const PRIOR_SD: f64 = 0.05;

/// What came of an experiment. Looks count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The look at which the engine promoted.
    pub(crate) promoted: Option<u32>,
    /// Whether it promoted the first treatment, the one with the lift.
    pub(crate) promoted_first: bool,
    /// The look at which the confidence asked for was reached, whatever the gates said.
    pub(crate) confident: Option<u32>,
    /// The look at which a fixed-horizon test of one side would have promoted.
    pub(crate) fixed: Option<u32>,
    /// The same by a test of two sides.
    pub(crate) fixed_two_sided: Option<u32>,
}

/// An experiment that runs.
struct Experiment<'c> {
    cell: &'c Cell,
    config: PromotionConfig,
    evidence: Evidence,
    crossings: Vec<Crossing>,
}

/// Runs one experiment; with `full` every bound and p-value is computed.
pub(crate) fn run(cell: &Cell, full: bool, sample: &mut Sample) -> Result<Outcome, StatsError> {
    let mut shop = cell.shop();
    let mut experiment = Experiment::new(cell)?;
    let mut outcome = Outcome::default();
    for look in 1..=cell.looks {
        let hours = |looks: u32| f64::from(looks) * f64::from(cell.hours_per_look);
        shop.advance(hours(look - 1), hours(look), sample);
        shop.before_look();
        experiment.gather(shop.as_ref(), hours(look));
        experiment.fixed_horizon(look, &mut outcome);
        if outcome.promoted.is_none() {
            experiment.scan(look, full, &mut outcome);
        } else if outcome.fixed_two_sided.is_some() {
            break;
        }
    }
    Ok(outcome)
}

/// Whether the looks of the candidate say enough, whatever else is asked for.
fn is_confident(decision: &Decision) -> bool {
    let met = |name: &str| {
        let mut criteria = decision.criteria.iter();
        criteria.any(|criterion| criterion.name == name && criterion.met)
    };
    met("confidence") && met("lead")
}

impl<'c> Experiment<'c> {
    fn new(cell: &'c Cell) -> Result<Self, StatsError> {
        let config = cell.config();
        let analysis = cell.analysis()?;
        let level = analysis.level(config.thresholds.min_confidence);
        Ok(Self {
            cell,
            crossings: (1..cell.variants).map(|_| Crossing::new(level)).collect(),
            evidence: at_the_start(cell, analysis),
            config,
        })
    }

    /// What the engine reads: sums of each arm, and how units were split. Folding has caught up.
    fn gather(&mut self, shop: &dyn Shop, hours: f64) {
        let evidence = &mut self.evidence;
        evidence.now = after(hours);
        let mut counts = Vec::new();
        for (index, treatment) in evidence.treatments.iter_mut().enumerate() {
            let strata = shop.strata(index);
            let of = Counts::of(&strata);
            if let Some(control) = &mut evidence.control {
                control.units = of.control_units;
            }
            if counts.is_empty() {
                counts.push(as_float(of.control_units));
            }
            counts.push(as_float(of.treatment_units));
            treatment.arm.units = of.treatment_units;
            treatment.strata = Some(strata);
        }
        evidence.traffic.epochs = vec![EpochSplit {
            weights: vec![1.0; counts.len()],
            counts,
        }];
    }

    /// What the engine does in a scan, up to its verdict.
    fn scan(&mut self, look: u32, full: bool, outcome: &mut Outcome) {
        self.record_looks(full);
        let decision = decide(&self.config, &self.evidence, &Question::of_engine());
        if is_confident(&decision) {
            outcome.confident.get_or_insert(look);
        }
        if decision.is_eligible() {
            outcome.promoted = Some(look);
            outcome.promoted_first = decision.candidate == Some(CONTROL + 1);
        }
    }

    /// Takes the looks that are due, and keeps them.
    fn record_looks(&mut self, full: bool) {
        let crossings = &mut self.crossings;
        let new = if full {
            new_looks(&self.config, &self.evidence)
        } else {
            new_looks_by(
                &self.config,
                &self.evidence,
                |id, analysis, looks, snapshot| {
                    let crossing = usize::try_from(id - CONTROL - 1).ok();
                    match crossing.and_then(|index| crossings.get_mut(index)) {
                        Some(crossing) => follow(analysis, looks, snapshot, crossing),
                        None => Err(StatsError::InvalidInput),
                    }
                },
            )
        };
        for (id, looks) in new {
            let mut treatments = self.evidence.treatments.iter_mut();
            if let Some(treatment) = treatments.find(|treatment| treatment.arm.variant_id == id) {
                treatment.looks.extend(looks);
            }
        }
    }

    /// What somebody would do who tests anew at each look as if it were the only one, at the same confidence, with alpha
    /// divided among the treatments as well, from the engine's least counts on, and without a gate on the lift.
    fn fixed_horizon(&self, look: u32, outcome: &mut Outcome) {
        let alpha = 1.0 - self.config.thresholds.min_confidence / 100.0;
        let level = alpha / f64::from(self.cell.treatments());
        let largest = self.evidence.treatments.iter();
        let largest = largest
            .filter_map(|treatment| self.comparable_z(treatment.strata.as_deref()?))
            .fold(f64::NEG_INFINITY, f64::max);
        if largest >= norm_isf(level) {
            outcome.fixed.get_or_insert(look);
        }
        if largest >= norm_isf(0.5 * level) {
            outcome.fixed_two_sided.get_or_insert(look);
        }
    }

    fn comparable_z(&self, strata: &[Stratum]) -> Option<f64> {
        let open = self.evidence.analysis.as_ref()?;
        let (design, start) = (&open.analysis.design, open.analysis.start);
        let counts = Counts::of(strata);
        let comparable = design.slot(start, self.evidence.now).is_some()
            && counts.least_units() >= design.min_sample_size
            && counts.least_conversions() >= counts.required_conversions();
        comparable
            .then(|| stratified(strata).ok())
            .flatten()
            .map(|found| found.z)
    }
}

fn at_the_start(cell: &Cell, analysis: Analysis) -> Evidence {
    let arm = |id: i64| Arm {
        variant_id: id,
        name: format!("variant-{id}"),
        units: 0,
        value: None,
        has_traffic: true,
        safety: SafetyReading {
            critical_alerts: Some(0),
            ..SafetyReading::default()
        },
    };
    let treatment = |id: i64| Treatment {
        arm: arm(id),
        strata: None,
        missing: None,
        looks: Vec::new(),
        bandit: None,
    };
    let kind = if cell.variants == 2 {
        "ab_test"
    } else {
        "multivariate"
    };
    Evidence {
        now: analysis.start,
        lag_seconds: Some(0.0),
        experiment: Subject {
            id: 1,
            name: "simulated".to_owned(),
            experiment_type: kind.to_owned(),
            status: "running".to_owned(),
            version: 1,
            start_date: Some(analysis.start),
            primary_metric: analysis.design.metric.name().to_owned(),
            guardrails: Vec::new(),
        },
        history: History::default(),
        control: Some(arm(CONTROL)),
        treatments: (1..cell.variants)
            .map(|index| treatment(CONTROL + i64::from(index)))
            .collect(),
        traffic: Traffic::default(),
        prior_sd: PRIOR_SD,
        analysis: Some(OpenAnalysis {
            number: 1,
            from_epoch: 1,
            analysis,
            changed: None,
        }),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "ten years of milliseconds at most"
)]
fn after(hours: f64) -> DateTime<chrono::Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds((hours * 3_600_000.0).round() as i64)
}

fn as_float(number: i64) -> f64 {
    number as f64
}
