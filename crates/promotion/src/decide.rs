//! Evidence and configuration to a verdict. Pure: no clock, no database; the same evidence gives the same verdict, which
//! is how a replay checks a decision.
//!
//! Every criterion is evaluated, and every failing one is told with what was measured and what is required. What is
//! missing, stale or no number is inconclusive and never a pass.

mod bandit;
mod criteria;
mod forecast;
mod standing;

#[cfg(test)]
mod tests;

pub use criteria::{Criterion, Failure};
pub use standing::{Figures, new_looks, new_looks_by};

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
use podium_domain::decision::verdict::Standing;
use serde::{Deserialize, Serialize};

use crate::config::PromotionConfig;
use crate::evidence::{Evidence, Treatment};
use crate::safety::SafetyCheck;
pub(crate) use criteria::MOST_LAG_SECONDS;
use standing::Stood;

/// Changes when the same evidence could give another verdict, the guard's included.
pub const DECISION_VERSION: &str = "6";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requester {
    /// The engine on its own: it must be enabled.
    Engine,
    /// A person, who may promote although the engine is disabled.
    Person,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// Who asks.
    pub requester: Requester,
    /// The treatment that is meant; without one, the best.
    pub variant: Option<String>,
}

impl Question {
    /// What a scan asks.
    #[must_use]
    pub const fn of_engine() -> Self {
        Self {
            requester: Requester::Engine,
            variant: None,
        }
    }
}

/// The answer in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every criterion is met.
    Promote,
    /// Something has not been reached yet.
    NotYet,
    /// Something says no.
    Blocked,
    /// Something is not known.
    Inconclusive,
}

impl Verdict {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::NotYet => "not_yet",
            Self::Blocked => "blocked",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// The worst of the failures decides: a definite no before doubt, doubt before patience.
    fn of(criteria: &[Criterion]) -> Self {
        let failed = |failure| {
            criteria
                .iter()
                .any(|criterion| criterion.failure == Some(failure))
        };
        if failed(Failure::Refused) {
            Self::Blocked
        } else if failed(Failure::Unknown) {
            Self::Inconclusive
        } else if failed(Failure::Pending) {
            Self::NotYet
        } else {
            Self::Promote
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decision {
    /// In one word.
    pub verdict: Verdict,
    /// Every criterion, met or not.
    pub criteria: Vec<Criterion>,
    /// What is not met, in words.
    pub reasons: Vec<String>,
    /// The treatment that the answer is about: of those that pass the one with the largest confidence (of a bandit:
    /// probability of being best), then lift; of others the nearest. None without treatments.
    pub candidate: Option<i64>,
    /// What the figures say about it.
    pub figures: Option<Figures>,
    /// The four safety checks of it.
    pub safety_checks: Vec<SafetyCheck>,
    /// When it could become eligible at the present rate; none when time alone will not do, or nothing is known.
    pub eligible_at: Option<DateTime<Utc>>,
}

impl Decision {
    /// Whether the candidate may be promoted.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.verdict == Verdict::Promote && self.candidate.is_some()
    }

    /// The safety checks that alone keep a proved winner back; empty where nothing is held.
    #[must_use]
    pub fn held_by(&self) -> Vec<String> {
        let is_safety = |criterion: &Criterion| {
            let mut names = criteria::SAFETY.iter();
            names.any(|(name, _)| *name == criterion.name)
        };
        let failing: Vec<&Criterion> = self.criteria.iter().filter(|c| !c.met).collect();
        if self.candidate.is_none() || !failing.iter().all(|criterion| is_safety(criterion)) {
            return Vec::new();
        }
        failing.iter().map(|c| c.name.clone()).collect()
    }
}

/// Decides.
#[must_use]
pub fn decide(config: &PromotionConfig, evidence: &Evidence, question: &Question) -> Decision {
    let meant = |treatment: &&Treatment| {
        let name = question.variant.as_ref();
        name.is_none_or(|name| *name == treatment.arm.name)
    };
    let mut best: Option<Considered> = None;
    for treatment in evidence.treatments.iter().filter(meant) {
        let considered = consider(config, evidence, question, treatment);
        if best
            .as_ref()
            .is_none_or(|best| considered.is_better_than(best))
        {
            best = Some(considered);
        }
    }
    best.map_or_else(
        || nobody(config, evidence, question),
        |considered| considered.decision,
    )
}

/// A treatment with the decision that it would get.
struct Considered {
    decision: Decision,
    rank: Option<Rank>,
}

/// What treatments are ranked by: that by which their experiment is decided.
enum Rank {
    /// What the looks say.
    Looks(Standing),
    /// Of a bandit, where no look is ever taken: the probability of being best.
    Best(f64),
}

impl Rank {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Looks(one), Self::Looks(other)) => one.compare(other),
            (Self::Best(one), Self::Best(other)) => one.total_cmp(other),
            // An experiment is decided in one way.
            (Self::Looks(_), Self::Best(_)) | (Self::Best(_), Self::Looks(_)) => Ordering::Equal,
        }
    }
}

impl Considered {
    /// Those that pass come first, then larger confidence, then larger lift; of equals the one with the smaller id.
    fn is_better_than(&self, other: &Self) -> bool {
        let order = self
            .decision
            .is_eligible()
            .cmp(&other.decision.is_eligible())
            .then_with(|| match (&self.rank, &other.rank) {
                (Some(one), Some(other)) => one.compare(other),
                (one, other) => one.is_some().cmp(&other.is_some()),
            })
            .then_with(|| {
                let lift = |considered: &Self| {
                    let figures = considered.decision.figures.as_ref();
                    figures
                        .and_then(|f| f.improvement)
                        .unwrap_or(f64::NEG_INFINITY)
                };
                lift(self).total_cmp(&lift(other))
            });
        order.is_gt()
    }
}

fn consider(
    config: &PromotionConfig,
    evidence: &Evidence,
    question: &Question,
    treatment: &Treatment,
) -> Considered {
    let safety_checks = crate::safety::checks(
        config,
        &evidence.experiment,
        Some(&treatment.arm),
        evidence.control.as_ref(),
        &evidence.traffic,
    );
    // A bandit has no looks: neither its rank nor its forecast may come from one that is never taken.
    let is_bandit = evidence.experiment.experiment_type == "bandit";
    let stood = (!is_bandit).then(|| Stood::of(config, evidence, treatment));
    let mut criteria = criteria::of_experiment(config, evidence, question);
    criteria.push(criteria::traffic(treatment));
    criteria.push(criteria::sample(config, evidence, treatment));
    criteria.extend(match &stood {
        Some(stood) => criteria::of_statistics(stood),
        None => bandit::criteria(config, treatment),
    });
    criteria.extend(criteria::of_safety(config, &safety_checks));
    let eligible_at = forecast::eligible_at(evidence, treatment, &criteria, stood.as_ref());
    let (figures, rank) = match &stood {
        Some(stood) => (
            Some(standing::figures(evidence, treatment, stood)),
            stood.standing().map(Rank::Looks),
        ),
        None => (
            treatment.bandit.as_ref().map(bandit::figures),
            bandit::probability_best(treatment).map(Rank::Best),
        ),
    };
    Considered {
        decision: conclude(
            criteria,
            safety_checks,
            Some(treatment.arm.variant_id),
            figures,
            eligible_at,
        ),
        rank,
    }
}

fn conclude(
    criteria: Vec<Criterion>,
    safety_checks: Vec<SafetyCheck>,
    candidate: Option<i64>,
    figures: Option<Figures>,
    eligible_at: Option<DateTime<Utc>>,
) -> Decision {
    let failing = criteria
        .iter()
        .filter(|criterion| criterion.failure.is_some());
    Decision {
        verdict: Verdict::of(&criteria),
        reasons: failing.map(|criterion| criterion.text.clone()).collect(),
        criteria,
        candidate,
        figures,
        safety_checks,
        eligible_at,
    }
}

/// Without a treatment to consider there is nothing to promote.
fn nobody(config: &PromotionConfig, evidence: &Evidence, question: &Question) -> Decision {
    let control = evidence.control.as_ref();
    let checks = crate::safety::checks(
        config,
        &evidence.experiment,
        None,
        control,
        &evidence.traffic,
    );
    let mut criteria = criteria::of_experiment(config, evidence, question);
    criteria.push(criteria::no_candidate(evidence, question));
    conclude(criteria, checks, None, None, None)
}
