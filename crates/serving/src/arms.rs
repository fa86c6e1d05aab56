//! Arms of rankings in memory: immutable pictures with the weights in force, swapped whole.
//!
//! Choosing reads a picture without a lock. What goes into one is computed on a thread that answers no requests, because
//! the probability of being best among a thousand arms takes longer than an answer may.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use podium_bandit::history::Forgetting;
use podium_bandit::student::ValueSums;
use podium_bandit::{Arms, BanditError, Evidence, Prior, Snapshot as Policy};
use podium_domain::bandit::{ArmType, BanditOptions};
use podium_storage::arms::{Glance, Loaded, Sums};
use podium_storage::{Database, StorageError, arms};
use tokio::sync::Notify;

use crate::snapshot::Snapshot;

/// How often it is looked whether something was learned.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pictures may keep a core busy for one part in so many of the time.
const IDLE_SHARE: u32 = 5;

/// Pulls of all arms together from which their mean value stands in for the site's.
const LEAST_PULLS: u64 = 100;

/// Arms of one type as one variant chooses among them.
#[derive(Debug)]
pub struct Picture {
    policy: Policy,
    numbers: HashMap<String, usize>,
    /// A single arm nobody has played, for draws of candidates that are no arms yet.
    unknown: Policy,
}

impl Picture {
    /// A picture of arms under a variant's options.
    ///
    /// # Errors
    /// [`BanditError`] where the evidence is beyond what policies can read.
    pub fn new(
        version: u64,
        options: &BanditOptions,
        loaded: &Loaded,
    ) -> Result<Self, BanditError> {
        let numbers = loaded.ids.iter().cloned().zip(0..).collect();
        let weighting = options.weighting();
        let (policy, unknown) = match &loaded.sums {
            Sums::Values(sums) => {
                let max = options.rewards.max().unwrap_or(1.0);
                let mean = site_mean(sums, max)?;
                let build =
                    |sums: &[ValueSums]| Policy::of_values(version, weighting, sums, max, mean);
                (build(sums)?, build(&[ValueSums::default()])?)
            }
            sums => {
                let evidence = sums.evidence(options.forgetting, loaded.hour)?;
                let evidence = evidence.unwrap_or_default();
                let prior = prior(options, &evidence);
                let build = |evidence: &[Evidence]| {
                    Policy::of_rates(version, weighting, Arms::from_evidence(prior, evidence))
                };
                (build(&evidence)?, build(&[Evidence::default()])?)
            }
        };
        Ok(Self {
            policy,
            numbers,
            unknown,
        })
    }

    /// Version, raised with every new picture.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.policy.version()
    }

    /// The number of an arm.
    #[must_use]
    pub fn number(&self, arm_id: &str) -> Option<usize> {
        self.numbers.get(arm_id).copied()
    }

    /// The weight of an arm; one that is not known yet gets that of the average arm, so that it is tried soon.
    #[must_use]
    pub fn weight(&self, number: Option<usize>) -> f64 {
        let weights = self.policy.weights();
        number
            .and_then(|number| weights.get(number).copied())
            .unwrap_or_else(|| 1.0 / as_float(weights.len().max(1)))
    }

    /// A fresh draw from the posterior of an arm.
    pub fn sample(&self, number: Option<usize>, rng: &mut impl rand::Rng) -> f64 {
        let known = number.and_then(|number| self.policy.sample(number, rng));
        known
            .or_else(|| self.unknown.sample(0, rng))
            .unwrap_or_default()
    }
}

/// The prior, from all arms together.
fn prior(options: &BanditOptions, evidence: &[Evidence]) -> Prior {
    let sum = |part: fn(&Evidence) -> f64| whole(evidence.iter().map(part).sum());
    options.prior(sum(Evidence::plays), sum(Evidence::successes))
}

/// The mean of all arms together, where there are enough pulls for it to say something.
fn site_mean(sums: &[ValueSums], max: f64) -> Result<Option<f64>, BanditError> {
    let all = sums
        .iter()
        .try_fold(ValueSums::default(), |all, sums| all.merge(*sums))?;
    let enough = all.plays() >= LEAST_PULLS;
    Ok(all.mean().filter(|_| enough).map(|mean| mean.min(max)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sums of counts are not negative, and a cast of a float saturates"
)]
fn whole(sum: f64) -> u64 {
    sum.round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "there are at most 10,000 arms")]
fn as_float(arms: usize) -> f64 {
    arms as f64
}

type Pictures = HashMap<(i64, ArmType), Arc<Picture>>;

/// All pictures of a process, by variant and type.
#[derive(Default)]
pub struct Gallery {
    pictures: ArcSwap<Pictures>,
    wanted: Notify,
}

/// What a picture was made of.
#[derive(PartialEq)]
struct Made {
    glance: Glance,
    options: Arc<BanditOptions>,
}

impl Gallery {
    /// The pictures in force.
    #[must_use]
    pub fn pictures(&self) -> Guard<Arc<Pictures>> {
        self.pictures.load()
    }

    /// Asks for a look before its time: an arm was made.
    pub fn look_soon(&self) {
        self.wanted.notify_one();
    }

    /// Keeps the pictures up to date, for ever. `definitions` tells which variants rank.
    pub async fn follow(&self, database: &Database, definitions: &ArcSwap<Snapshot>) {
        let mut known: HashMap<(i64, ArmType), Made> = HashMap::new();
        let mut version = 0;
        loop {
            let began = Instant::now();
            let looked = self
                .look(database, &definitions.load_full(), &mut known, &mut version)
                .await;
            if let Err(error) = looked {
                tracing::warn!(error = %error.chain(), "arms could not be read; the old weights stay in force");
            }
            // Learning may not take the cores from answering, however many arms there are.
            tokio::time::sleep(began.elapsed() * IDLE_SHARE).await;
            let _ = tokio::time::timeout(LOOK_EVERY, self.wanted.notified()).await;
        }
    }

    /// Makes the pictures whose arms or options have changed.
    async fn look(
        &self,
        database: &Database,
        definitions: &Snapshot,
        known: &mut HashMap<(i64, ArmType), Made>,
        version: &mut u64,
    ) -> Result<(), StorageError> {
        let rankings = rankings(definitions);
        let mut experiments: Vec<i64> = rankings.iter().map(|ranking| ranking.experiment).collect();
        experiments.dedup();
        let glances = if experiments.is_empty() {
            Vec::new()
        } else {
            arms::glances(database, &experiments).await?
        };
        let mut pictures: Pictures = HashMap::new();
        let mut changed = false;
        for ranking in &rankings {
            for glance in glances
                .iter()
                .filter(|g| g.experiment_id == ranking.experiment)
            {
                let key = (ranking.variant, glance.arm_type);
                let mut made = Made {
                    glance: glance.clone(),
                    options: ranking.options.clone(),
                };
                if ranking.options.forgetting == Forgetting::Never {
                    made.glance.hour = 0;
                }
                let old = self.pictures().get(&key).cloned();
                if let Some(old) = old.filter(|_| known.get(&key) == Some(&made)) {
                    pictures.insert(key, old);
                    continue;
                }
                changed = true;
                *version += 1;
                if let Some(picture) = paint(database, ranking, glance.arm_type, *version).await? {
                    pictures.insert(key, Arc::new(picture));
                    known.insert(key, made);
                }
            }
        }
        if changed || pictures.len() != self.pictures().len() {
            self.pictures.store(Arc::new(pictures));
        }
        Ok(())
    }
}

/// A variant that ranks.
struct RankingVariant {
    experiment: i64,
    variant: i64,
    options: Arc<BanditOptions>,
}

fn rankings(definitions: &Snapshot) -> Vec<RankingVariant> {
    let of = |experiment: &crate::snapshot::Experiment| {
        let id = experiment.id;
        let ranking = |variant: &crate::snapshot::Variant| {
            Some(RankingVariant {
                experiment: id,
                variant: variant.id,
                options: variant.ranking.clone()?,
            })
        };
        experiment
            .variants
            .iter()
            .filter_map(ranking)
            .collect::<Vec<_>>()
    };
    definitions.served().iter().flat_map(|e| of(e)).collect()
}

/// Loads the arms and computes their weights on a thread of its own. `None`, and a line in the log, where the evidence
/// cannot be read.
async fn paint(
    database: &Database,
    ranking: &RankingVariant,
    arm_type: ArmType,
    version: u64,
) -> Result<Option<Picture>, StorageError> {
    let options = ranking.options.clone();
    let loaded = arms::load(database, ranking.experiment, arm_type, &options).await?;
    if loaded.ids.is_empty() {
        return Ok(None);
    }
    let painted =
        tokio::task::spawn_blocking(move || Picture::new(version, &options, &loaded)).await;
    match painted {
        Ok(Ok(picture)) => Ok(Some(picture)),
        Ok(Err(error)) => {
            tracing::error!(experiment.id = ranking.experiment, %error, "weights of arms could not be computed");
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use podium_bandit::counts::Counts;
    use podium_domain::bandit::Rewards;
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    fn picture(options: &BanditOptions, counts: &[(u64, u64)]) -> Picture {
        let counts = counts.iter().map(|(n, s)| Counts::new(*n, *s).unwrap());
        let loaded = Loaded {
            ids: (0..counts.len()).map(|n| format!("a{n}")).collect(),
            sums: Sums::Counts(counts.collect()),
            hour: 0,
        };
        Picture::new(1, options, &loaded).unwrap()
    }

    #[test]
    fn an_unknown_arm_has_the_average_weight() {
        let options = BanditOptions::with_rewards(Rewards::any());
        let picture = picture(&options, &[(1_000, 10), (1_000, 100)]);
        assert_eq!(picture.number("a1"), Some(1));
        assert_eq!(picture.number("b"), None);
        assert!((picture.weight(None) - 0.5).abs() < 1e-12);
        // No arm's weight is below the floor of 5 % over two arms.
        assert!((picture.weight(Some(0)) - 0.025).abs() < 1e-9);
    }

    #[test]
    fn draws_of_unknown_arms_come_from_the_prior() {
        let options = BanditOptions::with_rewards(Rewards::any());
        let picture = picture(&options, &[(10_000, 100)]);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        let mean: f64 = (0..4_000)
            .map(|_| picture.sample(None, &mut rng))
            .sum::<f64>()
            / 4_000.0;
        // The arms' own rate of 1 % is the site's.
        assert!((mean - 0.01).abs() < 0.002, "{mean}");
    }
}
