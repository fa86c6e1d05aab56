//! Bandits over variants: figures that are honest although the bandit chose who sees what.

use podium_bandit::adaptive::Estimate;
use podium_domain::bandit::truth::{self, ArmTruth, Condition, ConditionKind, Leader};
use podium_domain::experiment::ExperimentType;
use podium_storage::analytics::context::Epoch;
use podium_storage::bandit::learning::options_of;
use podium_storage::bandit::units::{DrawnUnits, by_epoch};
use podium_storage::experiments::model::{Experiment, Variant};

use super::bodies::{BanditArmBody, BanditBody, Range};

const NOTE: &str = "rates are shares of units with the outcome, estimated by scores weighted with the known propensities (AIPW), one \
    batch an epoch of constant weights; only units that the bandit drew are counted; raw figures are biased because the bandit chose who sees what; values per variant \
    elsewhere in this answer are raw";
const NO_FLOOR: &str = "the floor is 0: a variant may get no traffic at all, and then neither these estimates nor off-policy evaluation \
    can say anything about it";

/// What can be said about a bandit; `None` for other experiments, and before there is enough to say anything.
/// `min_confidence` is what promotions of it ask for, in percent.
pub(super) fn bandit(
    experiment: &Experiment,
    epochs: &[Epoch],
    drawn: &[DrawnUnits],
    from_epoch: i32,
    min_confidence: f64,
) -> Option<BanditBody> {
    let is_bandit = experiment.experiment_type == ExperimentType::Bandit;
    if !is_bandit || experiment.variants.len() < 2 {
        return None;
    }
    let options = options_of(experiment);
    let mut variants: Vec<&Variant> = experiment.variants.iter().collect();
    variants.sort_by_key(|variant| (!variant.is_control, variant.id));
    let ids: Vec<i64> = variants.iter().map(|variant| variant.id).collect();
    let outcome = truth::outcome_of(experiment.primary_metric);
    let units = by_epoch(epochs, drawn, &ids, from_epoch, outcome);
    let truths = truth::read(&units, 0).ok()?;
    let leader = truth::leader(&truths, 0, min_confidence / 100.0).ok();
    let in_force = epochs.iter().find(|epoch| epoch.epoch == experiment.epoch);
    let arms = variants.iter().zip(&truths);
    let arms = arms.map(|(variant, truth)| arm(variant, truth, in_force));
    Some(BanditBody {
        algorithm: options.algorithm.name(),
        floor: options.floor,
        control_share: options.control_share,
        epoch: experiment.epoch,
        outcome: outcome.name(),
        arms: arms.collect(),
        leader: leader
            .as_ref()
            .and_then(|leader| variants.get(leader.arm))
            .map(|variant| variant.name.clone()),
        winner: leader.as_ref().and_then(|leader| winner(&variants, leader)),
        missing: leader.as_ref().map_or_else(
            || {
                vec![
                    "units of every variant with traffic, and 25 in effect with the outcome"
                        .to_owned(),
                ]
            },
            missing,
        ),
        note: if options.floor > 0.0 { NOTE } else { NO_FLOOR },
    })
}

fn arm(variant: &Variant, figures: &ArmTruth, in_force: Option<&Epoch>) -> BanditArmBody {
    let range = |estimate: &Estimate| {
        let (lower, upper) = estimate.interval95();
        Range { lower, upper }
    };
    let cut = |estimate: &Estimate| {
        let (value, (lower, upper)) = truth::shown(estimate);
        (value, Range { lower, upper })
    };
    let (rate, root) = (
        figures.rate.as_ref().map(cut),
        figures.rate_sqrt.as_ref().map(cut),
    );
    let difference = figures.difference.as_ref();
    let weight = in_force.map_or(0.0, |epoch| {
        let sum: f64 = epoch.weights.values().map(|weight| weight.to_f64()).sum();
        let own = epoch.weights.get(&variant.id).map_or(0.0, |w| w.to_f64());
        if sum > 0.0 { own / sum } else { 0.0 }
    });
    BanditArmBody {
        variant_id: variant.id,
        variant_name: variant.name.clone(),
        is_control: variant.is_control,
        weight,
        units: figures.counts.plays(),
        conversions: figures.counts.successes(),
        raw_rate: figures.raw.map(|raw| raw.value),
        rate: rate.map(|(value, _)| value),
        rate_interval: rate.map(|(_, limits)| limits),
        rate_root_weighted: root.map(|(value, _)| value),
        rate_root_weighted_interval: root.map(|(_, limits)| limits),
        probability_best: figures.standing.map(|standing| standing.prob_best),
        expected_loss: figures.standing.map(|standing| standing.expected_loss),
        difference: difference.map(|difference| difference.estimate.value),
        difference_interval: difference.map(|difference| range(&difference.estimate)),
        difference_anytime: difference
            .and_then(|difference| difference.anytime)
            .map(|(lower, upper)| Range { lower, upper }),
    }
}

fn winner(variants: &[&Variant], leader: &Leader) -> Option<String> {
    let variant = variants.get(leader.arm).filter(|_| leader.wins())?;
    Some(variant.name.clone())
}

fn missing(leader: &Leader) -> Vec<String> {
    let unmet = leader.conditions.iter().filter(|condition| !condition.met);
    unmet.map(words).collect()
}

fn words(condition: &Condition) -> String {
    let what = match condition.kind {
        ConditionKind::ProbabilityBest => "probability of being best",
        ConditionKind::ExpectedLoss => "expected loss",
        ConditionKind::IntervalAboveZero => "lower limit of the interval that holds at any moment",
        ConditionKind::Conversions => "units with the outcome",
        ConditionKind::ControlConversions => "units of the control with the outcome",
    };
    // Percents over 100 bring digits that nobody configured.
    let required = (1e9 * condition.required).round() / 1e9;
    match condition.measured {
        Some(measured) => format!("{what}: {measured:.6}, required: {required}"),
        None => format!("{what}: not known yet, required: {required}"),
    }
}
