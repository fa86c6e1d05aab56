//! What another policy would have earned, from a log with known propensities.
//!
//! A row is one item at one position; w = π(a | k) / p is how much likelier the target policy was
//! to show it. Below an effective sample size of 100 there is no number, only the reason.
//!
//! Sources: Horvitz & Thompson (1952) for IPW; Swaminathan & Joachims, *The self-normalized
//! estimator for counterfactual learning*, NeurIPS 2015; Dudík, Langford & Li, *Doubly robust policy
//! evaluation and learning*, ICML 2011; Li, Chu, Langford & Wang (WSDM 2011) for replay.

use crate::adaptive::Estimate;
use crate::error::{BanditError, in_range, same_length};
use crate::special::float_len;

/// Least effective sample size that gives numbers.
pub const LEAST_EFFECTIVE_SAMPLE: f64 = 100.0;

/// Plays of the overall rate that the reward model mixes into every arm's.
const SHRINKAGE: f64 = 100.0;

/// A logged decision with its outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoggedRow {
    /// Arm shown, from 0.
    pub arm: usize,
    /// Position shown at, from 0.
    pub position: usize,
    /// Reward.
    pub reward: f64,
    /// Probability with which the logging policy showed this arm at this position.
    pub propensity: f64,
}

/// A policy to be evaluated: the probability of every arm at every position.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetPolicy {
    /// By position, then arm.
    probabilities: Vec<Vec<f64>>,
}

impl TargetPolicy {
    /// Probabilities by position, then arm; each position adds up to 1 within 1e-6.
    ///
    /// # Errors
    /// [`BanditError::NoArms`]; [`BanditError::Length`]; [`BanditError::OutOfRange`] for a
    /// probability outside [0, 1] or a sum that is not 1.
    pub fn new(probabilities: Vec<Vec<f64>>) -> Result<Self, BanditError> {
        let arms = probabilities.first().map_or(0, Vec::len);
        if arms == 0 {
            return Err(BanditError::NoArms);
        }
        for position in &probabilities {
            same_length("probabilities", arms, position.len())?;
            for p in position {
                in_range("probability", *p, 0.0, 1.0)?;
            }
            let sum: f64 = position.iter().sum();
            in_range("sum of probabilities", sum, 1.0 - 1e-6, 1.0 + 1e-6)?;
        }
        Ok(Self { probabilities })
    }

    /// Every arm with the same probability at every position.
    ///
    /// # Errors
    /// [`BanditError::NoArms`] without arms or positions.
    pub fn uniform(arms: usize, positions: usize) -> Result<Self, BanditError> {
        Self::new(vec![vec![1.0 / float_len(arms.max(1)); arms]; positions])
    }

    /// Always the same arm at a position.
    ///
    /// # Errors
    /// [`BanditError::NoArms`]; [`BanditError::UnknownArm`].
    pub fn fixed(arms: usize, shown: &[usize]) -> Result<Self, BanditError> {
        let position = |arm: usize| {
            let mut row = vec![0.0; arms];
            *row.get_mut(arm)
                .ok_or(BanditError::UnknownArm { arm, arms })? = 1.0;
            Ok(row)
        };
        Self::new(
            shown
                .iter()
                .map(|arm| position(*arm))
                .collect::<Result<_, _>>()?,
        )
    }

    fn arms(&self) -> usize {
        self.probabilities.first().map_or(0, Vec::len)
    }

    fn at(&self, position: usize) -> Result<&[f64], BanditError> {
        self.probabilities
            .get(position)
            .map(Vec::as_slice)
            .ok_or_else(|| BanditError::OutOfRange {
                name: "position",
                value: float_len(position),
            })
    }
}

/// All estimates of a target policy's mean reward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Rows.
    pub rows: usize,
    /// Mean weight; near 1 when the log covers what the target would do.
    pub weight_mean: f64,
    /// Largest weight.
    pub weight_max: f64,
    /// (Σw)² / Σw².
    pub effective_sample_size: f64,
    /// Mean of w r: unbiased.
    pub ipw: Estimate,
    /// Σ w r / Σ w.
    pub snipw: Estimate,
    /// Mean of the reward model under the target: no weights, as good as the model.
    pub dm: f64,
    /// The model, corrected by the weighted residuals.
    pub dr: Estimate,
    /// The same with the residuals' weights normalised.
    pub sndr: f64,
}

/// Evaluates `target` on a log. Weights are capped at `clip` if given.
///
/// # Errors
/// [`BanditError::NotEnoughData`] below two rows; [`BanditError::UnknownArm`];
/// [`BanditError::OutOfRange`] for a position beyond the target's, a propensity outside (0, 1], a
/// reward that is not finite, or a clip not above 0;
/// [`BanditError::EffectiveSampleTooSmall`].
pub fn evaluate(
    log: &[LoggedRow],
    target: &TargetPolicy,
    clip: Option<f64>,
) -> Result<Evaluation, BanditError> {
    let weights: Vec<_> = log
        .iter()
        .map(|row| weight(row, target))
        .collect::<Result<_, BanditError>>()?;
    let outcomes: Vec<_> = log.iter().map(|row| (row.arm, row.reward)).collect();
    estimate(&outcomes, weights, clip, target.arms(), |model| {
        let expected: Vec<_> = (0..target.probabilities.len())
            .map(|position| model.under(&target.probabilities[position]))
            .collect();
        log.iter().map(|row| expected[row.position]).collect()
    })
}

/// A logged choice among candidates of its own, with what the target policy would do among the same.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedChoice {
    /// Arm chosen, from 0.
    pub arm: usize,
    /// Reward.
    pub reward: f64,
    /// Probability with which the logging policy chose it.
    pub propensity: f64,
    /// The candidates, each once, with the target policy's probabilities.
    pub target: Vec<(usize, f64)>,
}

/// Evaluates a target policy whose candidates differ from choice to choice. `arms` is how many arms there are.
///
/// # Errors
/// As for [`evaluate`]; [`BanditError::OutOfRange`] for target probabilities that are negative or do not add up to 1.
pub fn evaluate_choices(
    log: &[LoggedChoice],
    arms: usize,
    clip: Option<f64>,
) -> Result<Evaluation, BanditError> {
    let weights: Vec<_> = log
        .iter()
        .map(|choice| choice.weight(arms))
        .collect::<Result<_, _>>()?;
    let outcomes: Vec<_> = log.iter().map(|row| (row.arm, row.reward)).collect();
    estimate(&outcomes, weights, clip, arms, |model| {
        let expected = |choice: &LoggedChoice| {
            let parts = choice.target.iter().map(|(arm, p)| p * model.rates[*arm]);
            parts.sum()
        };
        log.iter().map(expected).collect()
    })
}

impl LoggedChoice {
    fn weight(&self, arms: usize) -> Result<f64, BanditError> {
        in_range("propensity", self.propensity, 1e-300, 1.0)?;
        in_range("reward", self.reward, -1e15, 1e15)?;
        let mut sum = 0.0;
        for (arm, probability) in &self.target {
            if *arm >= arms {
                return Err(BanditError::UnknownArm { arm: *arm, arms });
            }
            sum += in_range("probability", *probability, 0.0, 1.0)?;
        }
        in_range("sum of probabilities", sum, 1.0 - 1e-6, 1.0 + 1e-6)?;
        let arm = self.arm;
        let chosen = self.target.iter().find(|(candidate, _)| *candidate == arm);
        let (_, probability) = chosen.ok_or(BanditError::UnknownArm { arm, arms })?;
        Ok(probability / self.propensity)
    }

    /// What a deterministic target would choose.
    fn certain(&self) -> Option<usize> {
        let certain = self.target.iter().find(|(_, p)| *p >= 1.0 - 1e-9);
        certain.map(|(arm, _)| *arm)
    }
}

/// Replays a deterministic target on choices that were uniform among their candidates.
///
/// # Errors
/// [`BanditError::OutOfRange`] for a propensity that is not uniform, or a target that draws;
/// [`BanditError::EffectiveSampleTooSmall`] for fewer than 100 matching choices.
pub fn replay_choices(log: &[LoggedChoice]) -> Result<Replay, BanditError> {
    let (mut matched, mut reward) = (0, 0.0);
    for choice in log {
        let uniform = 1.0 / float_len(choice.target.len().max(1));
        let near = 1e-9 * uniform;
        in_range(
            "propensity",
            choice.propensity,
            uniform - near,
            uniform + near,
        )?;
        in_range("reward", choice.reward, -1e15, 1e15)?;
        let shown = choice.certain().ok_or(BanditError::OutOfRange {
            name: "probability",
            value: uniform,
        })?;
        if shown == choice.arm {
            matched += 1;
            reward += choice.reward;
        }
    }
    replayed(matched, reward)
}

/// All estimates from outcomes (arm, reward) and their weights. `direct` gives every row's reward under the target by
/// the model.
fn estimate(
    outcomes: &[(usize, f64)],
    mut weights: Vec<f64>,
    clip: Option<f64>,
    arms: usize,
    direct: impl FnOnce(&RewardModel) -> Vec<f64>,
) -> Result<Evaluation, BanditError> {
    at_least("rows", float_len(outcomes.len()), 2.0)?;
    let clip = in_range(
        "clip",
        clip.unwrap_or(f64::MAX),
        f64::MIN_POSITIVE,
        f64::MAX,
    )?;
    weights
        .iter_mut()
        .for_each(|weight| *weight = weight.min(clip));
    let total: f64 = weights.iter().sum();
    let effective = effective_sample(&weights, total)?;
    let model = RewardModel::fit(outcomes, arms);
    let direct = direct(&model);
    let pairs = || weights.iter().zip(outcomes);
    let rewards: Vec<_> = pairs().map(|(w, (_, reward))| w * reward).collect();
    let residuals: Vec<_> = pairs()
        .map(|(w, (arm, reward))| w * (reward - model.rates[*arm]))
        .collect();
    let corrected: Vec<_> = direct.iter().zip(&residuals).map(|(d, r)| d + r).collect();
    let dm = mean(&direct);
    Ok(Evaluation {
        rows: outcomes.len(),
        weight_mean: total / float_len(outcomes.len()),
        weight_max: weights.iter().copied().fold(0.0, f64::max),
        effective_sample_size: effective,
        ipw: mean_estimate(&rewards),
        snipw: self_normalised(outcomes, &weights, total),
        dm,
        dr: mean_estimate(&corrected),
        sndr: dm + residuals.iter().sum::<f64>() / total,
    })
}

/// (Σw)² / Σw², where it is enough.
fn effective_sample(weights: &[f64], total: f64) -> Result<f64, BanditError> {
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    let effective = if squares > 0.0 {
        total * total / squares
    } else {
        0.0
    };
    if effective.is_nan() || effective < LEAST_EFFECTIVE_SAMPLE {
        return Err(BanditError::EffectiveSampleTooSmall {
            got: effective,
            required: LEAST_EFFECTIVE_SAMPLE,
        });
    }
    Ok(effective)
}

/// Replays a deterministic target on a uniform log: the rows where the target would have shown the
/// same arm, their rewards and the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replay {
    /// Rows where both agree.
    pub matched: usize,
    /// Sum of their rewards.
    pub reward: f64,
    /// Their mean reward.
    pub value: f64,
}

/// Replays a policy that always shows `shown[position]` on a log that was uniform.
///
/// # Errors
/// [`BanditError::OutOfRange`] for a position beyond `shown`, a reward that is not finite or
/// propensities that differ, since then the log was not uniform;
/// [`BanditError::EffectiveSampleTooSmall`] for fewer than 100 matching rows.
pub fn replay(log: &[LoggedRow], shown: &[usize]) -> Result<Replay, BanditError> {
    let uniform = log.first().map_or(1.0, |row| row.propensity);
    let (mut matched, mut reward) = (0, 0.0);
    for row in log {
        let near = 1e-9 * uniform.abs();
        in_range("propensity", row.propensity, uniform - near, uniform + near)?;
        in_range("reward", row.reward, -1e15, 1e15)?;
        let arm = shown.get(row.position).ok_or(BanditError::OutOfRange {
            name: "position",
            value: float_len(row.position),
        })?;
        if *arm == row.arm {
            matched += 1;
            reward += row.reward;
        }
    }
    replayed(matched, reward)
}

fn replayed(matched: usize, reward: f64) -> Result<Replay, BanditError> {
    let got = float_len(matched);
    if got < LEAST_EFFECTIVE_SAMPLE {
        return Err(BanditError::EffectiveSampleTooSmall {
            got,
            required: LEAST_EFFECTIVE_SAMPLE,
        });
    }
    Ok(Replay {
        matched,
        reward,
        value: reward / got,
    })
}

fn weight(row: &LoggedRow, target: &TargetPolicy) -> Result<f64, BanditError> {
    in_range("propensity", row.propensity, 1e-300, 1.0)?;
    in_range("reward", row.reward, -1e15, 1e15)?;
    let probabilities = target.at(row.position)?;
    let probability = probabilities.get(row.arm).ok_or(BanditError::UnknownArm {
        arm: row.arm,
        arms: probabilities.len(),
    })?;
    Ok(probability / row.propensity)
}

/// Mean reward of every arm, drawn towards the overall mean: (Σr + 100 · mean) / (rows + 100).
struct RewardModel {
    rates: Vec<f64>,
}

impl RewardModel {
    fn fit(outcomes: &[(usize, f64)], arms: usize) -> Self {
        let all: f64 = outcomes.iter().map(|(_, reward)| reward).sum();
        let overall = all / float_len(outcomes.len());
        let mut sums = vec![(0.0, 0.0); arms];
        for (arm, reward) in outcomes {
            sums[*arm].0 += reward;
            sums[*arm].1 += 1.0;
        }
        let rate = |(reward, rows): (f64, f64)| (reward + SHRINKAGE * overall) / (rows + SHRINKAGE);
        Self {
            rates: sums.into_iter().map(rate).collect(),
        }
    }

    fn under(&self, probabilities: &[f64]) -> f64 {
        probabilities
            .iter()
            .zip(&self.rates)
            .map(|(p, q)| p * q)
            .sum()
    }
}

fn self_normalised(outcomes: &[(usize, f64)], weights: &[f64], total: f64) -> Estimate {
    let pairs = || weights.iter().zip(outcomes);
    let value = pairs().map(|(w, (_, reward))| w * reward).sum::<f64>() / total;
    let n = float_len(outcomes.len());
    let squares = pairs().map(|(w, (_, reward))| (w * (reward - value)).powi(2));
    let mean_square = squares.sum::<f64>() / n / (total / n).powi(2);
    Estimate {
        value,
        se: (mean_square / n).sqrt(),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / float_len(values.len())
}

/// Mean and sample sd (divisor n − 1) / √n.
fn mean_estimate(values: &[f64]) -> Estimate {
    let n = float_len(values.len());
    let value = mean(values);
    let squares: f64 = values.iter().map(|x| (x - value).powi(2)).sum();
    Estimate {
        value,
        se: (squares / (n - 1.0) / n).sqrt(),
    }
}

fn at_least(name: &'static str, got: f64, required: f64) -> Result<(), BanditError> {
    if got >= required {
        Ok(())
    } else {
        Err(BanditError::NotEnoughData {
            name,
            got,
            required,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(arm: usize, propensity: f64, reward: f64) -> LoggedRow {
        LoggedRow {
            arm,
            position: 0,
            reward,
            propensity,
        }
    }

    #[test]
    fn too_little_overlap_is_refused() {
        let log = vec![row(0, 0.99, 1.0); 5_000];
        let never = TargetPolicy::fixed(2, &[1]).unwrap();
        assert!(matches!(
            evaluate(&log, &never, None),
            Err(BanditError::EffectiveSampleTooSmall { .. })
        ));
        assert!(replay(&log, &[1]).is_err());
    }

    fn choice(arm: usize, reward: f64, target: &[(usize, f64)]) -> LoggedChoice {
        LoggedChoice {
            arm,
            reward,
            propensity: 1.0 / float_len(target.len()),
            target: target.to_vec(),
        }
    }

    #[test]
    fn choices_among_the_same_candidates_are_rows() {
        let log: Vec<_> = (0..1_000)
            .map(|n| row(n % 2, 0.5, f64::from(u8::from(n % 10 == 0))))
            .collect();
        let target = TargetPolicy::new(vec![vec![0.3, 0.7]]).unwrap();
        let same = |row: &LoggedRow| choice(row.arm, row.reward, &[(0, 0.3), (1, 0.7)]);
        let choices: Vec<_> = log.iter().map(same).collect();
        let rows = evaluate(&log, &target, None).unwrap();
        assert_eq!(evaluate_choices(&choices, 2, None).unwrap(), rows);
        assert!(replay_choices(&choices).is_err(), "a target that draws");
        let wrong = choice(2, 0.0, &[(0, 0.5), (1, 0.5)]);
        assert!(evaluate_choices(&vec![wrong; 300], 3, None).is_err());
        let short = choice(0, 0.0, &[(0, 0.5), (1, 0.4)]);
        assert!(evaluate_choices(&vec![short; 300], 2, None).is_err());
    }

    #[test]
    fn replay_among_candidates_that_differ() {
        let mut log = Vec::new();
        for n in 0..400 {
            log.push(choice(n % 2, 1.0, &[(0, 1.0), (1, 0.0)]));
            log.push(choice(2, 0.0, &[(0, 0.0), (2, 1.0), (3, 0.0)]));
        }
        let replay = replay_choices(&log).unwrap();
        assert_eq!((replay.matched, replay.value), (600, 1.0 / 3.0));
    }

    #[test]
    fn impossible_input() {
        let target = TargetPolicy::uniform(2, 1).unwrap();
        let ok = row(0, 0.5, 1.0);
        for wrong in [
            row(2, 0.5, 1.0),
            row(0, 0.0, 1.0),
            row(0, f64::NAN, 1.0),
            row(0, 0.5, f64::INFINITY),
            LoggedRow { position: 1, ..ok },
        ] {
            assert!(evaluate(&[ok, wrong], &target, None).is_err(), "{wrong:?}");
        }
        assert!(evaluate(&[], &target, None).is_err());
        assert!(evaluate(&[ok; 200], &target, Some(0.0)).is_err());
        assert!(TargetPolicy::uniform(0, 1).is_err());
        assert!(TargetPolicy::new(vec![vec![0.5, 0.4]]).is_err());
        assert!(replay(&[ok, row(0, 0.25, 1.0)], &[0]).is_err());
    }
}
