//! Arms of rankings in memory: immutable pictures with the weights in force, swapped whole.
//!
//! Choosing reads a picture without a lock. What goes into one is computed on a thread that answers no requests, because
//! the probability of being best among a thousand arms takes longer than an answer may.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use podium_bandit::history::Forgetting;
use podium_bandit::student::ValueSums;
use podium_bandit::{Arms, BanditError, BetaPosterior, Snapshot as Policy};
use podium_domain::bandit::evidence::{self, ArmHistory};
use podium_domain::bandit::examination;
use podium_domain::bandit::{ArmType, BanditOptions, MAX_ARMS};
use podium_storage::arms::Glance;
use podium_storage::bandit::counts::{ArmCounts, Counted};
use podium_storage::database::Link;
use podium_storage::{Database, StorageError, arms};
use tokio::sync::Notify;

use crate::snapshot::Snapshot;

/// How often it is looked whether something was learned.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Making pictures may keep a core busy for about one part in so many of the time.
const IDLE_SHARE: u32 = 5;
/// What a round waited for the database holds up the next one for no longer.
const LONGEST_IDLE: Duration = Duration::from_secs(5);
/// How long a statement that reads the arms of one experiment may take at first: all others wait for it.
const READING: Duration = Duration::from_secs(3);
/// An experiment that failed is asked again after no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(120);
/// Failures in a row after which neither patience nor rest grows any more.
const LONGEST_STREAK: u32 = 6;

/// Arms of one type as one variant chooses among them.
#[derive(Debug)]
pub struct Picture {
    policy: Policy,
    numbers: HashMap<String, usize>,
    of_values: bool,
    /// A single arm nobody has played, for draws of candidates that are no arms yet.
    unknown: Policy,
}

impl Picture {
    /// A picture of arms under a variant's options, as of the hour `hour` since 1970. `version` is the position of folding at which
    /// the arms were read.
    ///
    /// # Errors
    /// [`BanditError`] where the evidence is beyond what policies can read.
    pub fn new(
        version: u64,
        options: &BanditOptions,
        arms: &[ArmCounts],
        hour: i64,
    ) -> Result<Self, BanditError> {
        let histories: Vec<ArmHistory> = arms.iter().map(|arm| arm.history.clone()).collect();
        let policy = evidence::snapshot(options, &histories, hour, version)?;
        let weighting = options.weighting();
        let unknown = match options.rewards.max() {
            Some(max) => Policy::of_values(version, weighting, &[ValueSums::default()], max, None)?,
            None => {
                let one = Arms::new(policy.arms().prior(), 1);
                Policy::of_rates(version, weighting, one)?
            }
        };
        Ok(Self {
            policy,
            numbers: arms.iter().map(|arm| arm.arm_id.clone()).zip(0..).collect(),
            of_values: options.rewards.max().is_some(),
            unknown,
        })
    }

    /// How far folding was when the arms were read: the events of earlier transactions are in it. Larger is newer, in every
    /// process, because the database counts.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.policy.version()
    }

    /// The number of an arm.
    #[must_use]
    pub fn number(&self, arm_id: &str) -> Option<usize> {
        self.numbers.get(arm_id).copied()
    }

    /// Whether no more arms are made.
    #[must_use]
    pub fn is_full(&self) -> bool {
        i64::try_from(self.numbers.len()).is_ok_and(|arms| arms >= MAX_ARMS)
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

/// What is believed of an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Weight in force, floor included.
    pub weight: f64,
    /// Probability of being the best of all arms.
    pub probability_best: f64,
    /// What choosing it for good is expected to cost a pull.
    pub expected_loss: f64,
    /// Expected success rate, prior included; `None` for values.
    pub expected: Option<f64>,
    /// 95 % credible interval of the success rate; `None` for values.
    pub interval: Option<(f64, f64)>,
}

impl Picture {
    /// What is believed of every arm, by id.
    ///
    /// # Errors
    /// [`BanditError`] where a quantile cannot be found.
    pub fn standings(&self) -> Result<HashMap<&str, Standing>, BanditError> {
        let best = self.policy.best();
        let rates = if self.of_values {
            Vec::new()
        } else {
            self.policy.arms().posteriors()
        };
        let mut standings = HashMap::with_capacity(self.numbers.len());
        for (id, number) in &self.numbers {
            let number = *number;
            let at = |list: &[f64]| list.get(number).copied().unwrap_or_default();
            let rate = rates.get(number);
            let interval = |rate: &BetaPosterior| -> Result<(f64, f64), BanditError> {
                Ok((rate.quantile(0.025)?, rate.quantile(0.975)?))
            };
            let standing = Standing {
                weight: at(self.policy.weights()),
                probability_best: at(&best.probability),
                expected_loss: at(&best.expected_loss),
                expected: rate.map(BetaPosterior::mean),
                interval: rate.map(interval).transpose()?,
            };
            standings.insert(id.as_str(), standing);
        }
        Ok(standings)
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are at most 10,000 arms")]
fn as_float(arms: usize) -> f64 {
    arms as f64
}

/// A variant and what its arms are.
type Key = (i64, ArmType);
type Pictures = HashMap<Key, Arc<Picture>>;

/// All pictures of a process, by variant and type.
#[derive(Default)]
pub struct Gallery {
    pictures: ArcSwap<Pictures>,
    wanted: Notify,
}

/// What a picture was made of.
struct Made {
    glance: Glance,
    options: Arc<BanditOptions>,
    /// With their positions corrected, where that is wanted.
    arms: Vec<ArmCounts>,
    /// Without arms there is none. Where they cannot be read, it is the one before.
    picture: Option<Arc<Picture>>,
}

/// An experiment whose arms could not be read, or not in time.
#[derive(Clone, Copy)]
struct Rest {
    /// In a row.
    failures: u32,
    until: Instant,
}

impl Rest {
    /// How long a statement may take after so many failures. It grows, so that large experiments are read in the end.
    fn patience(failures: u32) -> Duration {
        READING * (1 << failures.min(LONGEST_STREAK / 2))
    }

    /// After one more failure, which took so long: others get the larger part of the time.
    fn after(before: Option<&Self>, took: Duration, now: Instant) -> Self {
        let failures = before.map_or(0, |rest| rest.failures);
        let rest = LOOK_EVERY * (1 << failures.min(LONGEST_STREAK));
        Self {
            failures: failures.saturating_add(1),
            until: now + rest.max(took * IDLE_SHARE).min(LONGEST_REST),
        }
    }
}

/// What is behind the pictures of a process.
#[derive(Default)]
struct Album {
    made: HashMap<Key, Made>,
    resting: HashMap<i64, Rest>,
    /// What computing the pictures of this round took.
    painting: Duration,
}

impl Album {
    /// How long a statement about an experiment may take now; `None` while it is left alone.
    fn patience(&self, experiment: i64, now: Instant) -> Option<Duration> {
        let rest = self.resting.get(&experiment);
        let is_due = rest.is_none_or(|rest| rest.until <= now);
        is_due.then(|| Rest::patience(rest.map_or(0, |rest| rest.failures)))
    }

    /// Notes how reading an experiment went. One that took more than the first patience keeps what it has.
    fn note(&mut self, experiment: i64, is_read: bool, took: Duration) {
        if !is_read {
            let rest = Rest::after(self.resting.get(&experiment), took, Instant::now());
            self.resting.insert(experiment, rest);
        } else if took < READING {
            self.resting.remove(&experiment);
        }
    }
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
        let mut album = Album::default();
        loop {
            let began = Instant::now();
            let definitions = definitions.load_full();
            if let Err(error) = self.look(database, &definitions, &mut album).await {
                tracing::warn!(error = %error.chain(), "arms could not be read; the old weights stay in force");
            }
            // Learning may not take the cores from answering, however many arms there are.
            let painting = std::mem::take(&mut album.painting) * IDLE_SHARE;
            let pause = (began.elapsed() * IDLE_SHARE).min(LONGEST_IDLE.max(painting));
            tokio::time::sleep(pause).await;
            let _ = tokio::time::timeout(LOOK_EVERY, self.wanted.notified()).await;
        }
    }

    /// Makes the pictures whose arms or options have changed. Those of an experiment that cannot be read stay as they are, and
    /// hold up no other's.
    async fn look(
        &self,
        database: &Database,
        definitions: &Snapshot,
        album: &mut Album,
    ) -> Result<(), StorageError> {
        let rankings = rankings(definitions);
        let mut experiments: Vec<i64> = rankings.iter().map(|ranking| ranking.experiment).collect();
        experiments.dedup();
        let glances = if experiments.is_empty() {
            Vec::new()
        } else {
            arms::glances(database, &experiments).await?
        };
        let mut seen: HashMap<i64, Vec<Sight<'_>>> = HashMap::new();
        for ranking in &rankings {
            let own = |g: &&Glance| g.experiment_id == ranking.experiment;
            let sights = glances.iter().filter(own).map(|glance| (ranking, glance));
            seen.entry(ranking.experiment).or_default().extend(sights);
        }
        let keys: HashSet<Key> = seen.values().flatten().map(key).collect();
        album.made.retain(|key, _| keys.contains(key));
        album.resting.retain(|id, _| seen.contains_key(id));
        self.show(&album.made);
        for (id, sights) in &seen {
            // While the database is away every experiment would wait for it in turn.
            if !database.is_reachable() {
                break;
            }
            let began = Instant::now();
            if let Some(patience) = album.patience(*id, began) {
                let is_read = self.renew(database, sights, patience, album).await?;
                album.note(*id, is_read, began.elapsed());
            }
        }
        Ok(())
    }

    /// Brings the pictures of one experiment up to date, and shows each as soon as it is made. Answers whether all could be
    /// read; the log says what could not.
    ///
    /// # Errors
    /// [`StorageError::Pool`], which is no experiment's fault.
    async fn renew(
        &self,
        database: &Database,
        sights: &[Sight<'_>],
        patience: Duration,
        album: &mut Album,
    ) -> Result<bool, StorageError> {
        let mut is_read = true;
        for sight in sights {
            let key = key(sight);
            match renewed(database, *sight, patience, album).await {
                Ok(Some(fresh)) => {
                    album.made.insert(key, fresh);
                    self.show(&album.made);
                }
                Ok(None) => {}
                Err(error @ StorageError::Pool(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(experiment.id = sight.0.experiment, error = %error.chain(),
                        "arms of an experiment could not be read; its old weights stay in force");
                    is_read = false;
                    // What takes long for one variant does so for the next.
                    if matches!(error, StorageError::TimedOut) {
                        break;
                    }
                }
            }
        }
        Ok(is_read)
    }

    /// Puts pictures in force, if there are new ones or some have gone.
    fn show(&self, known: &HashMap<Key, Made>) {
        let shown = self.pictures();
        let pictures: Pictures = known
            .iter()
            .filter_map(|(key, made)| Some((*key, made.picture.clone()?)))
            .collect();
        let same = |(key, new): (&Key, &Arc<Picture>)| {
            shown.get(key).is_some_and(|old| Arc::ptr_eq(old, new))
        };
        if pictures.len() != shown.len() || !pictures.iter().all(same) {
            self.pictures.store(Arc::new(pictures));
        }
    }
}

/// A variant, and arms among which it chooses.
type Sight<'s> = (&'s RankingVariant, &'s Glance);

const fn key((ranking, glance): &Sight<'_>) -> Key {
    (ranking.variant, glance.arm_type)
}

/// The picture as it is now; `None` where nothing has changed.
async fn renewed(
    database: &Database,
    sight: Sight<'_>,
    patience: Duration,
    album: &mut Album,
) -> Result<Option<Made>, StorageError> {
    let (ranking, glance) = sight;
    let made = album.made.get_mut(&key(&sight));
    let old = made.as_ref().and_then(|made| made.picture.clone());
    let Some(Counted { position, arms }) = look_closer(database, sight, patience, made).await?
    else {
        return Ok(None);
    };
    let old = old.filter(|_| !arms.is_empty());
    let began = Instant::now();
    let picture = paint(ranking, position, arms.clone(), glance.hour).await;
    album.painting += began.elapsed();
    Ok(Some(Made {
        glance: glance.clone(),
        options: ranking.options.clone(),
        arms,
        picture: picture.or(old),
    }))
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

/// The arms, with their positions corrected where that is wanted, if they are not what the picture was made of.
async fn look_closer(
    database: &Database,
    (ranking, glance): Sight<'_>,
    patience: Duration,
    made: Option<&mut Made>,
) -> Result<Option<Counted>, StorageError> {
    let ages = ranking.options.forgetting != Forgetting::Never;
    let made = made.filter(|made| {
        made.options == ranking.options && !(ages && made.glance.hour != glance.hour)
    });
    if made
        .as_ref()
        .is_some_and(|made| made.glance.shows_what(glance))
    {
        return Ok(None);
    }
    let mut link = database.work().await?.within(patience);
    let place = (ranking.experiment, glance.arm_type);
    // What is known of positions may change where no count does: when windows pass.
    let counted = load(&mut link, place, &ranking.options).await?;
    if let Some(made) = made.filter(|made| made.arms == counted.arms) {
        // Folding went on, but not for these arms.
        made.glance = glance.clone();
        return Ok(None);
    }
    Ok(Some(counted))
}

/// The arms of an experiment as options read them.
async fn load(
    link: &mut Link,
    (experiment_id, arm_type): (i64, ArmType),
    options: &BanditOptions,
) -> Result<Counted, StorageError> {
    let ages = options.forgetting != Forgetting::Never;
    let mut counted = arms::load(link, experiment_id, arm_type, ages).await?;
    if options.position_correction {
        correct(link, (experiment_id, arm_type), &mut counted.arms).await?;
    }
    Ok(counted)
}

/// The picture that a ranking would be made from, of an experiment that is paused or over: as the policy would see the arms in
/// the hour `hour` since 1970. `None` without arms, with more than `most`, and where their evidence cannot be read.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn as_if_ranked(
    link: &mut Link,
    place: (i64, ArmType),
    options: BanditOptions,
    hour: i64,
    most: usize,
) -> Result<Option<Arc<Picture>>, StorageError> {
    let counted = load(link, place, &options).await?;
    if counted.arms.len() > most {
        return Ok(None);
    }
    let ranking = RankingVariant {
        experiment: place.0,
        variant: 0,
        options: Arc::new(options),
    };
    Ok(paint(&ranking, counted.position, counted.arms, hour).await)
}

/// Weights the rewards of arms by the attention that their positions get.
async fn correct(
    link: &mut Link,
    (experiment_id, arm_type): (i64, ArmType),
    arms: &mut [ArmCounts],
) -> Result<(), StorageError> {
    let randomised = arms::randomised(link, experiment_id, arm_type).await?;
    let weights = examination::weights(&randomised);
    if weights.iter().all(Option::is_none) {
        return Ok(());
    }
    let rewarded = arms::rewarded(link, experiment_id, arm_type).await?;
    for arm in arms {
        let rewards = rewarded.get(&arm.row_id).map_or(&[][..], Vec::as_slice);
        if let Ok(factor) = examination::factor(&weights, rewards) {
            arm.history = examination::corrected(&arm.history, factor);
        }
    }
    Ok(())
}

/// Computes the weights on a thread of its own. `None`, and a line in the log, where the evidence cannot be read.
async fn paint(
    ranking: &RankingVariant,
    position: i64,
    arms: Vec<ArmCounts>,
    hour: i64,
) -> Option<Arc<Picture>> {
    if arms.is_empty() {
        return None;
    }
    let version = u64::try_from(position).unwrap_or_default();
    let options = ranking.options.clone();
    let painted =
        tokio::task::spawn_blocking(move || Picture::new(version, &options, &arms, hour)).await;
    match painted.ok()? {
        Ok(picture) => Some(Arc::new(picture)),
        Err(error) => {
            tracing::error!(experiment.id = ranking.experiment, %error, "weights of arms could not be computed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use podium_domain::bandit::Rewards;
    use podium_domain::bandit::evidence::HourCounts;
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    fn picture(options: &BanditOptions, counts: &[(u64, u64)]) -> Picture {
        let arm = |(number, (pulls, successes)): (usize, &(u64, u64))| ArmCounts {
            row_id: 0,
            arm_id: format!("a{number}"),
            history: ArmHistory {
                hours: vec![HourCounts {
                    pulls: *pulls,
                    successes: *successes,
                    ..HourCounts::default()
                }],
            },
        };
        let arms: Vec<_> = counts.iter().enumerate().map(arm).collect();
        Picture::new(1, options, &arms, 0).unwrap()
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
    fn an_experiment_that_fails_is_asked_less_often_and_more_patiently() {
        let (mut album, begin) = (Album::default(), Instant::now());
        assert_eq!(album.patience(1, begin), Some(READING));
        let mut rests = Vec::new();
        for _ in 0..10 {
            album.note(1, false, READING);
            let rest = album.resting[&1];
            rests.push(rest.until.saturating_duration_since(begin));
            assert_eq!(album.patience(1, begin), None);
            assert_eq!(album.patience(2, begin), Some(READING), "nobody else rests");
            let patience = album.patience(1, rest.until).unwrap();
            assert!((2 * READING..=8 * READING).contains(&patience));
        }
        assert!(rests.windows(2).all(|pair| pair[0] <= pair[1]));
        // What it took from the others is less than a fifth of its rest, and it is never given up.
        assert!(rests[0] >= READING * IDLE_SHARE && rests[9] < LONGEST_REST);
        // It answers, but slowly: it keeps what it needs. Then it does so in time.
        let due = album.resting[&1].until;
        album.note(1, true, 2 * READING);
        assert_eq!(album.patience(1, due), Some(8 * READING));
        album.note(1, true, READING / 2);
        assert_eq!(album.patience(1, begin), Some(READING));
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
