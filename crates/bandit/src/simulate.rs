//! Simulates policies on arms with known rates, to measure their regret.

use std::collections::VecDeque;

use rand::{Rng, RngExt};

use crate::arms::Arms;
use crate::counts::Evidence;
use crate::error::{BanditError, in_range, same_length};
use crate::history::Forgetting;
use crate::policy::Policy;
use crate::posterior::Prior;
use crate::special::float;

/// When outcomes become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// Before the next decision.
    Immediate,
    /// Together, after each play whose number is divisible by this.
    Batch(u64),
    /// At decision t those of the plays 1 … t − 1 − lag.
    Delay(u64),
}

/// True rates, which may change at given plays.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// First play (from 0) of a segment and the rates in it, ascending from 0.
    segments: Vec<(u64, Vec<f64>)>,
}

impl Instance {
    /// Rates that never change.
    ///
    /// # Errors
    /// [`BanditError::NoArms`]; [`BanditError::OutOfRange`] for a rate outside [0, 1].
    pub fn fixed(rates: Vec<f64>) -> Result<Self, BanditError> {
        Self::changing(vec![(0, rates)])
    }

    /// Rates that change: each segment's first play (from 0) and rates.
    ///
    /// # Errors
    /// As for [`Instance::fixed`]; [`BanditError::OutOfRange`] unless the first plays ascend from
    /// 0; [`BanditError::Length`] for segments with different numbers of arms.
    pub fn changing(segments: Vec<(u64, Vec<f64>)>) -> Result<Self, BanditError> {
        let arms = segments.first().map_or(0, |(_, rates)| rates.len());
        if arms == 0 {
            return Err(BanditError::NoArms);
        }
        let mut expected = 0..=0;
        for (start, rates) in &segments {
            if !expected.contains(start) {
                return Err(BanditError::OutOfRange {
                    name: "segment start",
                    value: float(*start),
                });
            }
            expected = start.saturating_add(1)..=u64::MAX;
            same_length("rates", arms, rates.len())?;
            for rate in rates {
                in_range("rate", *rate, 0.0, 1.0)?;
            }
        }
        Ok(Self { segments })
    }

    /// How many arms there are.
    #[must_use]
    pub fn arms(&self) -> usize {
        self.segments.first().map_or(0, |(_, rates)| rates.len())
    }

    /// The average of the first segment's rates: what a site would know from its history.
    #[must_use]
    pub fn mean_rate(&self) -> Option<f64> {
        let (_, rates) = self.segments.first()?;
        Some(rates.iter().sum::<f64>() / crate::special::float_len(rates.len()))
    }
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The policy.
    pub policy: Policy,
    /// What the policy believes before the first play.
    pub prior: Prior,
    /// How old plays lose their weight; by hours is not simulated.
    pub forgetting: Forgetting,
    /// When outcomes become known.
    pub feedback: Feedback,
    /// Plays after which results are noted, ascending; the last one ends the run.
    pub checkpoints: &'a [u64],
}

/// What a run had come to at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Sum over plays of the best rate at the time minus the played arm's.
    pub regret: f64,
    /// Share of plays of an arm that was best at the time.
    pub best_share: f64,
    /// The arm with the largest posterior mean, ties at random.
    pub recommended: usize,
}

/// Runs a policy once.
///
/// # Errors
/// [`BanditError::OutOfRange`] for a parameter of the policy; [`BanditError::Unsupported`] for
/// forgetting by hours.
pub fn run(
    instance: &Instance,
    setting: &Setting<'_>,
    rng: &mut impl Rng,
) -> Result<Vec<Progress>, BanditError> {
    setting.policy.validate()?;
    let mut learner = Learner::new(setting, instance.arms())?;
    let mut regret = Regret::new(instance);
    let mut progress = Vec::with_capacity(setting.checkpoints.len());
    let mut played = 0;
    for &checkpoint in setting.checkpoints {
        while played < checkpoint {
            learner.take_due(setting.feedback)?;
            let arm = setting.policy.choose(&learner.arms, rng)?;
            let rate = regret.count(played, arm);
            played += 1;
            learner.arms.start(arm)?;
            learner.waiting.push_back((arm, rng.random::<f64>() < rate));
            learner.end_of_play(setting.feedback, played)?;
        }
        progress.push(Progress {
            regret: regret.total,
            best_share: float(regret.best_plays) / float(played.max(1)),
            recommended: learner.recommend(rng),
        });
    }
    Ok(progress)
}

/// Walks through the segments.
struct Regret<'a> {
    segments: &'a [(u64, Vec<f64>)],
    best: f64,
    total: f64,
    best_plays: u64,
}

impl<'a> Regret<'a> {
    fn new(instance: &'a Instance) -> Self {
        let mut regret = Self {
            segments: &instance.segments,
            best: 0.0,
            total: 0.0,
            best_plays: 0,
        };
        regret.enter();
        regret
    }

    fn enter(&mut self) {
        let rates = self.segments.first().map_or(&[][..], |(_, rates)| rates);
        self.best = rates.iter().copied().fold(0.0, f64::max);
    }

    /// Counts a play (from 0) of an arm, and gives its rate.
    fn count(&mut self, play: u64, arm: usize) -> f64 {
        if self
            .segments
            .get(1)
            .is_some_and(|(start, _)| play >= *start)
        {
            self.segments = &self.segments[1..];
            self.enter();
        }
        let rate = self.segments.first().map_or(0.0, |(_, rates)| rates[arm]);
        let gap = self.best - rate;
        self.total += gap;
        self.best_plays += u64::from(gap <= 0.0);
        rate
    }
}

/// The arms, with outcomes on their way and those to be forgotten.
struct Learner {
    arms: Arms,
    waiting: VecDeque<(usize, bool)>,
    memory: Memory,
}

enum Memory {
    All,
    Fading {
        keep: f64,
    },
    Window {
        plays: usize,
        recent: VecDeque<(usize, bool)>,
    },
}

impl Learner {
    fn new(setting: &Setting<'_>, arms: usize) -> Result<Self, BanditError> {
        setting.forgetting.validate()?;
        let memory = match setting.forgetting {
            Forgetting::Never => Memory::All,
            Forgetting::HalfLifePlays(life) => Memory::Fading {
                keep: (-1.0 / life).exp2(),
            },
            Forgetting::WindowPlays(plays) => Memory::Window {
                plays: usize::try_from(plays).unwrap_or(usize::MAX),
                recent: VecDeque::new(),
            },
            Forgetting::HalfLifeHours(_) | Forgetting::WindowHours(_) => {
                return Err(BanditError::Unsupported {
                    policy: format!("{:?}", setting.forgetting),
                    what: "a simulation, whose plays have no hours",
                });
            }
        };
        Ok(Self {
            arms: Arms::new(setting.prior, arms),
            waiting: VecDeque::new(),
            memory,
        })
    }

    /// Before a decision: outcomes older than the lag.
    fn take_due(&mut self, feedback: Feedback) -> Result<(), BanditError> {
        let lag = match feedback {
            Feedback::Immediate => 0,
            Feedback::Delay(lag) => lag,
            Feedback::Batch(_) => return Ok(()),
        };
        while u64::try_from(self.waiting.len()).is_ok_and(|length| length > lag) {
            self.learn_one()?;
        }
        Ok(())
    }

    /// After a play: outcomes of a batch that is complete.
    fn end_of_play(&mut self, feedback: Feedback, played: u64) -> Result<(), BanditError> {
        if let Feedback::Batch(size) = feedback
            && played.is_multiple_of(size.max(1))
        {
            while !self.waiting.is_empty() {
                self.learn_one()?;
            }
        }
        Ok(())
    }

    fn learn_one(&mut self) -> Result<(), BanditError> {
        let Some((arm, success)) = self.waiting.pop_front() else {
            return Ok(());
        };
        if let Memory::Fading { keep } = self.memory {
            fade(&mut self.arms, keep)?;
        }
        self.arms.settle(arm, success)?;
        if let Memory::Window { plays, recent } = &mut self.memory {
            recent.push_back((arm, success));
            if recent.len() > *plays
                && let Some((old, won)) = recent.pop_front()
            {
                forget(&mut self.arms, old, won)?;
            }
        }
        Ok(())
    }

    fn recommend(&self, rng: &mut impl Rng) -> usize {
        let (mut best, mut top, mut equals) = (0, f64::NEG_INFINITY, 1_u32);
        for (number, posterior) in self.arms.posteriors().iter().enumerate() {
            let mean = posterior.mean();
            if mean > top {
                (best, top, equals) = (number, mean, 1);
            } else if mean >= top {
                equals += 1;
                if rng.random_range(0..equals) == 0 {
                    best = number;
                }
            }
        }
        best
    }
}

/// All plays so far lose a little of their weight.
fn fade(arms: &mut Arms, keep: f64) -> Result<(), BanditError> {
    for arm in 0..arms.len() {
        let old = arms.as_slice()[arm].evidence();
        let (plays, successes) = (keep * old.plays(), keep * old.successes());
        arms.set_evidence(arm, Evidence::rounded(plays, successes)?)?;
    }
    Ok(())
}

fn forget(arms: &mut Arms, arm: usize, won: bool) -> Result<(), BanditError> {
    let old = arms.as_slice()[arm].evidence();
    let successes = old.successes() - f64::from(u8::from(won));
    arms.set_evidence(arm, Evidence::new(old.plays() - 1.0, successes)?)
}
