//! Orders of candidates: by the weights in force, without a lock and without the database.

use std::borrow::Cow;
use std::sync::Arc;

use podium_bandit::order::{self, Placed};
use podium_domain::bandit::{ArmType, BanditOptions, Draw, INPUT_ORDER};
use podium_storage::bandit::learning;
use podium_storage::decisions::{Decision, NewArm};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::Serving;
use crate::arms::Picture;
use crate::assign::{AssignError, Visitor, wait};
use crate::known::Known;
use crate::snapshot::{DEFAULT_PLACEMENT, Experiment, ExperimentRef, Variant};

/// Something to be placed.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Arm id.
    pub id: Cow<'a, str>,
    /// Name, stored with the arm on first sight.
    pub name: Option<&'a str>,
    /// JSON object, stored with the arm on first sight.
    pub metadata: Option<&'a str>,
}

/// A request for an order. Candidates are distinct.
#[derive(Clone, Debug)]
pub struct RankRequest<'a> {
    /// Who.
    pub visitor: Visitor<'a>,
    /// Which experiment; else the newest running one of the placement.
    pub experiment: Option<ExperimentRef<'a>>,
    /// Placement; none means `newsfeed`.
    pub placement: Option<&'a str>,
    /// What the candidates are.
    pub arm_type: ArmType,
    /// What is to be placed, in the order that the shop would show.
    pub candidates: Vec<Candidate<'a>>,
    /// Positions that are wanted.
    pub limit: usize,
    /// What to draw from, instead of what the variant's options say.
    pub draw: Option<Draw>,
}

/// What makes one answer different from the next.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    /// Id of the decision: a UUID of version 7.
    pub decision_id: Uuid,
    /// Seed of the draws.
    pub seed: u64,
}

/// An order.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// The experiment and the unit's variant, by index; `None` where the unit has none.
    pub variant: Option<(Arc<Experiment>, usize)>,
    /// What events refer to; `None` when nothing is kept.
    pub decision_id: Option<Uuid>,
    /// Wire name of the algorithm, or `input_order`.
    pub policy: &'static str,
    /// Candidates in their places.
    pub order: Vec<Place>,
    /// Whether the database was away or too slow to say what the unit has.
    pub degraded: bool,
}

/// A candidate in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Index of the candidate in the request.
    pub candidate: usize,
    /// What the order was sorted by.
    pub score: Option<f64>,
    /// Probability with which this candidate came first.
    pub propensity: Option<f64>,
}

/// What a unit has in an experiment.
enum Standing {
    /// A variant, by index; `excluded` for units that no evaluation reads.
    Has { variant: usize, excluded: bool },
    /// None.
    Nothing,
    /// The database did not say.
    Unknown,
}

impl Serving {
    /// Orders candidates for a unit. Never fails because of the database.
    ///
    /// # Errors
    /// [`AssignError`] for requests that no state could answer.
    pub async fn rank(
        &self,
        request: &RankRequest<'_>,
        chance: Chance,
    ) -> Result<Ranked, AssignError> {
        let unit = request.visitor.unit().ok_or(AssignError::NoUnit)?;
        let (experiment, version) = {
            let snapshot = self.snapshot();
            let found = match request.experiment {
                Some(reference) => {
                    let found = snapshot.find(reference);
                    Some(found.ok_or(AssignError::UnknownExperiment)?)
                }
                None => snapshot.on_placement(request.placement.unwrap_or(DEFAULT_PLACEMENT)),
            };
            match found.filter(|e| e.is_served()) {
                Some(experiment) => (experiment.clone(), snapshot.version()),
                None => return Ok(unranked(request, false)),
            }
        };
        let standing = match self.standing_in_memory(&experiment, version, unit) {
            Some(standing) => standing,
            None => Box::pin(self.standing(&experiment, version, unit, request.visitor)).await,
        };
        let (variant, excluded) = match standing {
            Standing::Has { variant, excluded } => (variant, excluded),
            Standing::Nothing => return Ok(unranked(request, false)),
            Standing::Unknown => return Ok(unranked(request, true)),
        };
        Ok(self
            .decide(request, chance, &experiment, (variant, excluded), unit)
            .await)
    }

    /// Chooses, keeps the decision, and waits for that only where something is new: an impression of an arm that is not
    /// in the database would teach nothing.
    async fn decide(
        &self,
        request: &RankRequest<'_>,
        chance: Chance,
        experiment: &Arc<Experiment>,
        (at, excluded): (usize, bool),
        unit: &str,
    ) -> Ranked {
        let Some(variant) = experiment.variants.get(at) else {
            return unranked(request, true);
        };
        let choice = self.choose(request, variant, chance.seed);
        let reachable = self.database.is_reachable();
        if choice.is_first && reachable {
            self.begin(experiment.id, request.arm_type, variant).await;
        }
        let decision = decision(
            request,
            chance,
            experiment,
            (variant, excluded),
            unit,
            &choice,
        );
        // While the database is away nothing would come of waiting.
        let waits = !decision.new_arms.is_empty() && reachable;
        let kept = self.keeper.submit(decision).ok();
        let decision_id = kept.is_some().then_some(chance.decision_id);
        if let Some(kept) = kept.filter(|_| waits) {
            let _ = tokio::time::timeout(self.settings.assign_wait, kept).await;
            self.gallery.look_soon();
        }
        Ranked {
            variant: Some((experiment.clone(), at)),
            decision_id,
            policy: choice.policy,
            order: choice.order,
            degraded: !reachable,
        }
    }

    /// Lets the experiment learn about arms of this type. Should that fail, the next ranking tries again.
    async fn begin(&self, experiment_id: i64, arm_type: ArmType, variant: &Variant) {
        if let Some(options) = &variant.ranking {
            let begun = learning::begin_ranking(&self.database, experiment_id, arm_type, options);
            let _ = tokio::time::timeout(self.settings.assign_wait, begun).await;
        }
    }

    fn choose(&self, request: &RankRequest<'_>, variant: &Variant, seed: u64) -> Choice {
        let Some(options) = variant.ranking.as_deref() else {
            return Choice::input(request);
        };
        let pictures = self.gallery.pictures();
        let picture = pictures.get(&(variant.id, request.arm_type));
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Choice::of(request, options, picture.map(AsRef::as_ref), &mut rng)
    }

    fn standing_in_memory(
        &self,
        experiment: &Experiment,
        version: i64,
        unit: &str,
    ) -> Option<Standing> {
        if let Some(pinned) = experiment.pinned(unit) {
            return Some(standing_in(experiment, pinned.id, true));
        }
        let key = self.known.key(experiment.id, unit);
        let known = self.known.get(key)?;
        self.standing_of(experiment, version, unit, key, known)
    }

    /// What a known unit is told: its own variant, or what a promotion makes of it. What happens under a promotion is in
    /// no evaluation.
    fn standing_of(
        &self,
        experiment: &Experiment,
        version: i64,
        unit: &str,
        key: u128,
        known: Known,
    ) -> Option<Standing> {
        let stored = known.stored;
        let (told, _) = self.reason(experiment, version, unit, key, known)?;
        let excluded = stored.is_bot || experiment.promotion().is_some();
        Some(standing_in(experiment, told.id, excluded))
    }

    /// Asks the table. Ranking assigns nobody: it answers for the variant that the shopper was told.
    async fn standing(
        &self,
        experiment: &Experiment,
        version: i64,
        unit: &str,
        visitor: Visitor<'_>,
    ) -> Standing {
        let key = self.known.key(experiment.id, unit);
        if !self.database.is_reachable() {
            return Standing::Unknown;
        }
        let asked = self.ask(crate::assign::lookup(experiment, unit, visitor, None));
        let deadline = tokio::time::Instant::now() + self.settings.assign_wait;
        match wait(asked.ok(), deadline).await {
            None => Standing::Unknown,
            Some(None) => Standing::Nothing,
            Some(Some(stored)) => {
                let known = self.remember(experiment, version, unit, key, stored);
                self.standing_of(experiment, version, unit, key, known)
                    .unwrap_or(Standing::Unknown)
            }
        }
    }
}

fn standing_in(experiment: &Experiment, variant_id: i64, excluded: bool) -> Standing {
    match experiment.variants.iter().position(|v| v.id == variant_id) {
        Some(variant) => Standing::Has { variant, excluded },
        None => Standing::Unknown,
    }
}

/// The answer where nothing is decided and nothing kept.
fn unranked(request: &RankRequest<'_>, degraded: bool) -> Ranked {
    Ranked {
        variant: None,
        decision_id: None,
        policy: INPUT_ORDER,
        order: Choice::input(request).order,
        degraded,
    }
}

/// What was chosen, and how.
struct Choice {
    policy: &'static str,
    version: Option<u64>,
    order: Vec<Place>,
    propensities: Option<Vec<f64>>,
    /// Candidates that are no arms yet.
    unknown: Vec<usize>,
    /// Whether nothing is known of arms of this type yet.
    is_first: bool,
}

impl Choice {
    /// The order of the request.
    fn input(request: &RankRequest<'_>) -> Self {
        let place = |candidate| Place {
            candidate,
            score: None,
            propensity: None,
        };
        let shown = request.candidates.len().min(request.limit);
        Self {
            policy: INPUT_ORDER,
            version: None,
            order: (0..shown).map(place).collect(),
            propensities: None,
            unknown: Vec::new(),
            is_first: false,
        }
    }

    /// An order drawn from the weights of the picture, or from its posteriors. Without a picture nothing is known of any
    /// candidate, so all are alike.
    fn of(
        request: &RankRequest<'_>,
        options: &BanditOptions,
        picture: Option<&Picture>,
        rng: &mut impl Rng,
    ) -> Self {
        let number = |candidate: &Candidate<'_>| picture?.number(&candidate.id);
        let numbers: Vec<Option<usize>> = request.candidates.iter().map(number).collect();
        let full = picture.is_some_and(Picture::is_full);
        let unknown = (0..numbers.len()).filter(|at| !full && numbers.get(*at) == Some(&None));
        let draw = request.draw.unwrap_or(options.draw);
        let (mut order, propensities) = match (draw, picture) {
            (Draw::Posterior, Some(picture)) => (by_posterior(picture, &numbers, rng), None),
            (_, picture) => {
                let weight = |number: &Option<usize>| picture.map_or(1.0, |p| p.weight(*number));
                let weights: Vec<f64> = numbers.iter().map(weight).collect();
                let drawn = order::draw(&weights, rng).unwrap_or_default();
                (drawn, Some(order::first_place(&weights)))
            }
        };
        let algorithm = match propensities {
            Some(_) => options.algorithm,
            None => options.algorithm.drawn_from_posteriors(),
        };
        order.truncate(request.limit);
        let place = |placed: &Placed| Place {
            candidate: placed.candidate,
            score: Some(placed.score),
            propensity: propensities
                .as_ref()
                .and_then(|all| all.get(placed.candidate).copied()),
        };
        Self {
            policy: algorithm.name(),
            version: picture.map(Picture::version),
            order: order.iter().map(place).collect(),
            unknown: unknown.collect(),
            is_first: picture.is_none(),
            propensities,
        }
    }
}

fn by_posterior(picture: &Picture, numbers: &[Option<usize>], rng: &mut impl Rng) -> Vec<Placed> {
    let mut order: Vec<Placed> = numbers
        .iter()
        .enumerate()
        .map(|(candidate, number)| Placed {
            candidate,
            score: picture.sample(*number, rng),
        })
        .collect();
    order::sort(&mut order);
    order
}

/// What is kept of an answer.
fn decision(
    request: &RankRequest<'_>,
    chance: Chance,
    experiment: &Experiment,
    (variant, excluded): (&Variant, bool),
    unit: &str,
    choice: &Choice,
) -> Decision {
    let new_arm = |at: &usize| {
        let candidate = request.candidates.get(*at)?;
        Some(NewArm {
            arm_id: candidate.id.clone().into_owned(),
            name: candidate.name.map(str::to_owned),
            metadata: candidate.metadata.map(str::to_owned),
        })
    };
    Decision {
        id: chance.decision_id,
        experiment_id: experiment.id,
        variant_id: variant.id,
        unit: unit.to_owned(),
        arm_type: request.arm_type,
        policy: choice.policy,
        snapshot_version: choice.version.and_then(|v| i64::try_from(v).ok()),
        candidates: request
            .candidates
            .iter()
            .map(|candidate| candidate.id.clone().into_owned())
            .collect(),
        placed: choice
            .order
            .iter()
            .filter_map(|place| i16::try_from(place.candidate).ok())
            .collect(),
        propensities: choice.propensities.clone(),
        excluded,
        new_arms: choice.unknown.iter().filter_map(new_arm).collect(),
    }
}
