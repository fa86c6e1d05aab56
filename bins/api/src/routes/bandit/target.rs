//! Policies by the ids of arms, and their evaluation on a log.

use std::collections::{BTreeMap, HashMap};

use podium_bandit::BanditError;
use podium_bandit::adaptive::Estimate;
use podium_bandit::off_policy::{self, Evaluation, LoggedChoice, LoggedRow, Replay, TargetPolicy};
use podium_domain::fault::code;
use podium_storage::analytics::logged::Logged;

use crate::problem::ApiError;

/// A policy to be evaluated.
pub(super) enum Target {
    /// All candidates alike.
    Uniform,
    /// The first candidate of the request.
    InputOrder,
    /// The first of these that is a candidate, else the first candidate; of a log the arm of each position.
    Order(Vec<String>),
    /// Candidates in proportion to these weights; those that are not named are never shown.
    Weights(BTreeMap<String, f64>),
    /// Arms by position, for a log.
    Probabilities(BTreeMap<String, Vec<f64>>),
}

/// What policies are evaluated on.
pub(super) enum Log {
    /// Decisions of a ranking.
    Decisions(Vec<Logged>),
    /// A log that came along, with all of its arms that are known otherwise.
    Rows { rows: Vec<Row>, arms: Vec<String> },
}

/// A row of a log.
pub(super) struct Row {
    pub(super) arm: String,
    /// From 0.
    pub(super) position: usize,
    pub(super) reward: f64,
    pub(super) propensity: f64,
}

/// What is to be found out.
pub(super) struct Question {
    pub(super) log: Log,
    pub(super) target: Target,
    pub(super) clip: Option<f64>,
}

/// What was found out.
pub(super) struct Outcome {
    pub(super) rows: usize,
    pub(super) logged_value: Option<f64>,
    pub(super) evaluation: Result<Evaluation, BanditError>,
    /// IPW with the weights as they are, which alone is unbiased.
    pub(super) ipw: Option<Estimate>,
    pub(super) replay: Option<Replay>,
}

/// Evaluates the target.
///
/// # Errors
/// 422 for a target that the log has no use for.
pub(super) fn answer(question: &Question) -> Result<Outcome, ApiError> {
    match &question.log {
        Log::Decisions(decisions) => on_decisions(decisions, question),
        Log::Rows { rows, arms } => on_rows(rows, arms, question),
    }
}

/// Numbers of ids, in the order in which they were seen.
#[derive(Default)]
struct Numbers<'a>(HashMap<&'a str, usize>);

impl<'a> Numbers<'a> {
    fn of(&mut self, id: &'a str) -> usize {
        let next = self.0.len();
        *self.0.entry(id).or_insert(next)
    }
}

fn on_decisions(decisions: &[Logged], question: &Question) -> Result<Outcome, ApiError> {
    let mut numbers = Numbers::default();
    let mut log = Vec::with_capacity(decisions.len());
    for decision in decisions {
        let arms: Vec<usize> = decision
            .candidates
            .iter()
            .map(|id| numbers.of(id))
            .collect();
        let wanted = among(&question.target, &decision.candidates)?;
        let at = |list: &[f64]| list.get(decision.first).copied().unwrap_or_default();
        log.push(LoggedChoice {
            arm: arms.get(decision.first).copied().unwrap_or(usize::MAX),
            reward: decision.reward,
            propensity: at(&decision.propensities),
            target: arms.into_iter().zip(wanted).collect(),
        });
    }
    let certain = matches!(question.target, Target::InputOrder | Target::Order(_));
    let replay = certain.then(|| off_policy::replay_choices(&log).ok());
    Ok(Outcome {
        rows: log.len(),
        logged_value: mean(log.iter().map(|choice| choice.reward)),
        evaluation: off_policy::evaluate_choices(&log, numbers.0.len(), question.clip),
        ipw: off_policy::evaluate_choices(&log, numbers.0.len(), None)
            .ok()
            .map(|e| e.ipw),
        replay: replay.flatten(),
    })
}

/// The target's probabilities of candidates.
fn among(target: &Target, candidates: &[String]) -> Result<Vec<f64>, ApiError> {
    let only = |chosen: usize| {
        let certain = |at| f64::from(u8::from(at == chosen));
        (0..candidates.len()).map(certain).collect()
    };
    Ok(match target {
        Target::Uniform => podium_bandit::order::first_place(&vec![1.0; candidates.len()]),
        Target::InputOrder => only(0),
        Target::Order(order) => {
            let place = |id: &String| candidates.iter().position(|candidate| candidate == id);
            only(order.iter().find_map(place).unwrap_or(0))
        }
        Target::Weights(weights) => {
            let weight = |id: &String| weights.get(id).copied().unwrap_or(0.0);
            in_proportion(&candidates.iter().map(weight).collect::<Vec<f64>>()).ok_or_else(|| {
                let shown: Vec<&str> = candidates.iter().take(3).map(String::as_str).collect();
                misfit(&format!(
                    "gives no weight to any candidate of a decision (of {}): which of them would it show? name one of every decision",
                    shown.join(", ")
                ))
            })?
        }
        Target::Probabilities(_) => {
            return Err(misfit("probabilities by position go with a log"));
        }
    })
}

/// Probabilities in proportion to weights; `None` where all are 0, which says nothing.
fn in_proportion(weights: &[f64]) -> Option<Vec<f64>> {
    let says = weights.iter().any(|weight| *weight > 0.0);
    says.then(|| podium_bandit::order::first_place(weights))
}

fn on_rows(rows: &[Row], arms: &[String], question: &Question) -> Result<Outcome, ApiError> {
    let mut numbers = Numbers::default();
    for id in arms {
        numbers.of(id);
    }
    let mut log = Vec::with_capacity(rows.len());
    for row in rows {
        log.push(LoggedRow {
            arm: numbers.of(&row.arm),
            position: row.position,
            reward: row.reward,
            propensity: row.propensity,
        });
    }
    let named = match &question.target {
        Target::Order(ids) => ids.iter().collect(),
        Target::Weights(weights) => weights.keys().collect(),
        Target::Probabilities(lists) => lists.keys().collect(),
        Target::Uniform | Target::InputOrder => Vec::new(),
    };
    for id in named {
        numbers.of(id);
    }
    let positions = rows.iter().map(|row| row.position + 1).max().unwrap_or(1);
    let (target, shown) = by_position(&question.target, &mut numbers, positions)?;
    let replay = shown.map(|shown| off_policy::replay(&log, &shown).ok());
    Ok(Outcome {
        rows: log.len(),
        logged_value: mean(log.iter().map(|row| row.reward)),
        evaluation: off_policy::evaluate(&log, &target, question.clip),
        ipw: off_policy::evaluate(&log, &target, None)
            .ok()
            .map(|e| e.ipw),
        replay: replay.flatten(),
    })
}

/// The target by position and arm; of a deterministic one also what it shows.
fn by_position<'a>(
    target: &'a Target,
    numbers: &mut Numbers<'a>,
    positions: usize,
) -> Result<(TargetPolicy, Option<Vec<usize>>), ApiError> {
    let arms = numbers.0.len();
    let mut shown = None;
    let policy = match target {
        Target::Uniform => TargetPolicy::uniform(arms, positions),
        Target::InputOrder => return Err(misfit("a log has no input order")),
        Target::Order(ids) => {
            let fixed: Vec<usize> = ids.iter().map(|id| numbers.of(id)).collect();
            let policy = TargetPolicy::fixed(arms, &fixed);
            shown = Some(fixed);
            policy
        }
        Target::Weights(weights) => {
            let mut row = vec![0.0; arms];
            for (id, weight) in weights {
                set(&mut row, numbers.of(id), *weight);
            }
            let row = in_proportion(&row).ok_or_else(|| misfit("needs a weight above 0"))?;
            TargetPolicy::new(vec![row; positions])
        }
        Target::Probabilities(lists) => {
            let mut matrix = vec![vec![0.0; arms]; positions];
            for (id, list) in lists {
                if list.len() < positions {
                    return Err(misfit(
                        "probabilities need one for each position of the log",
                    ));
                }
                let number = numbers.of(id);
                for (row, probability) in matrix.iter_mut().zip(list) {
                    set(row, number, *probability);
                }
            }
            TargetPolicy::new(matrix)
        }
    };
    let policy = policy.map_err(|error| misfit(&error.to_string()))?;
    Ok((policy, shown))
}

fn set(row: &mut [f64], at: usize, value: f64) {
    if let Some(cell) = row.get_mut(at) {
        *cell = value;
    }
}

fn misfit(detail: &str) -> ApiError {
    ApiError::field("/target", code::OUT_OF_RANGE, detail)
}

#[expect(clippy::cast_precision_loss, reason = "rows of a body are few")]
fn mean(rewards: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let rows = rewards.len();
    (rows > 0).then(|| rewards.sum::<f64>() / rows as f64)
}
