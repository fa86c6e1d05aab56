//! Definitions compiled for deciding: lookups by id, name and placement, exact bucketing, ready answers.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use podium_domain::bandit::{self as domain_bandit, BanditOptions, DEFAULT_CONTROL_SHARE};
use podium_domain::bucketing::{Allocation, BanditSplit, Bucketing, HashVersion, VariantTable};
use podium_domain::experiment::{ExperimentType, Status};
use podium_domain::ids::VariantId;
use podium_domain::metric::Metric;
use podium_domain::rollout::Told;
use podium_storage::api_keys::ApiKeyDefinition;
use podium_storage::definitions::{
    Definitions, ExperimentDefinition, UserDefinition, VariantDefinition,
};

use crate::file::NOTHING_READ;
use crate::promotion::Promotion;
use crate::tally::{Tallies, VariantTally};

/// Placement that is meant when a request names none.
pub const DEFAULT_PLACEMENT: &str = "newsfeed";

/// All definitions at one version; immutable.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: i64,
    by_id: HashMap<i64, Arc<Experiment>>,
    by_name: HashMap<String, Arc<Experiment>>,
    by_variant: HashMap<i64, Arc<Experiment>>,
    /// The newest experiment of each placement that is served.
    by_target: HashMap<String, Arc<Experiment>>,
    served: Vec<Arc<Experiment>>,
    users: HashMap<String, UserDefinition>,
    /// By prefix.
    api_keys: HashMap<String, ApiKeyDefinition>,
    erasures: i64,
}

/// How a request names an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExperimentRef<'a> {
    /// By number.
    Id(i64),
    /// By name.
    Name(&'a str),
}

/// One experiment, ready to decide.
#[derive(Debug)]
pub struct Experiment {
    /// Numeric id.
    pub id: i64,
    /// Name.
    pub name: String,
    /// State of the life cycle.
    pub status: Status,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Epoch in force.
    pub epoch: i32,
    /// Variants in id order.
    pub variants: Vec<Variant>,
    /// Pinned units: index into `variants`.
    overrides: HashMap<String, usize>,
    /// `None` when nobody can be assigned (no variant, no weight).
    bucketing: Option<Bucketing>,
    /// The promotion that is active.
    promotion: Option<Promotion>,
    /// How a bandit over its variants draws.
    bandit: Option<Bandit>,
}

/// A bandit over variants.
#[derive(Debug)]
struct Bandit {
    split: BanditSplit,
    /// Epoch of the units that are split evenly.
    control_epoch: i32,
}

/// What the rules give a unit that is new.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'e> {
    /// The variant.
    pub variant: &'e Variant,
    /// Epoch that the unit belongs to.
    pub epoch: i32,
    /// Probability with which a bandit drew it.
    pub propensity: Option<f64>,
}

/// Why a unit has its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Today's weights give it.
    Split,
    /// Only the stored assignment gives it.
    Sticky,
    /// Pinned for testing.
    Override,
    /// A promotion gives the winner instead of the unit's own variant.
    Promoted,
    /// A promotion holds the unit back on the control.
    Holdback,
    /// A bandit drew it. Its weights move, so that saying whether today's give the same would change answers.
    Bandit,
}

impl Reason {
    /// Its word in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Split => "SPLIT",
            Self::Sticky => "STICKY",
            Self::Override => "OVERRIDE",
            Self::Promoted => "PROMOTED",
            Self::Holdback => "HOLDBACK",
            Self::Bandit => "BANDIT",
        }
    }

    /// Their words, in the order of their definition.
    pub const NAMES: [&'static str; 6] = [
        "SPLIT", "STICKY", "OVERRIDE", "PROMOTED", "HOLDBACK", "BANDIT",
    ];
}

/// A variant with its answers.
#[derive(Debug)]
pub struct Variant {
    /// Numeric id.
    pub id: i64,
    /// Name.
    pub name: String,
    /// How it ranks candidates; `None` when it leaves them as they are.
    pub ranking: Option<Arc<BanditOptions>>,
    /// `assign` answers, indexed by reason and whether they are degraded.
    answers: [[Bytes; 2]; Reason::NAMES.len()],
    tally: Arc<VariantTally>,
}

impl Variant {
    /// The ready answer of `assign`; it is counted.
    #[must_use]
    pub fn answer(&self, reason: Reason, degraded: bool) -> Bytes {
        self.tally.add(reason as usize, 1);
        let [split, sticky, pinned, promoted, held_back, drawn] = &self.answers;
        let [normal, marked] = match reason {
            Reason::Split => split,
            Reason::Sticky => sticky,
            Reason::Override => pinned,
            Reason::Promoted => promoted,
            Reason::Holdback => held_back,
            Reason::Bandit => drawn,
        };
        if degraded {
            marked.clone()
        } else {
            normal.clone()
        }
    }
}

/// The answer where there is no variant.
#[must_use]
pub fn default_answer(degraded: bool) -> Bytes {
    Bytes::from_static(if degraded {
        DEGRADED_ANSWER
    } else {
        DEFAULT_ANSWER
    })
}

static DEFAULT_ANSWER: &[u8] =
    br#"{"experiment_id":null,"variant":"default","params":{},"reason":"DEFAULT"}"#;
static DEGRADED_ANSWER: &[u8] =
    br#"{"experiment_id":null,"variant":"default","params":{},"reason":"DEFAULT","degraded":true}"#;

/// Whether these are the very bytes of a [`default_answer`], and of which.
pub(crate) fn is_default(answer: &Bytes) -> Option<bool> {
    if answer.as_ptr() == DEFAULT_ANSWER.as_ptr() {
        Some(false)
    } else {
        (answer.as_ptr() == DEGRADED_ANSWER.as_ptr()).then_some(true)
    }
}

impl Snapshot {
    /// Compiles definitions. An experiment whose rows make no sense is served as if it were paused and logged, so that
    /// one bad row, written past the API, does not stop the others. Variants go on counting where `tallies` left off.
    #[must_use]
    pub fn compile(definitions: Definitions, tallies: &Tallies) -> Self {
        let mut snapshot = Self {
            version: definitions.version,
            users: definitions.users,
            erasures: definitions.erasures,
            api_keys: definitions
                .api_keys
                .into_iter()
                .map(|key| (key.prefix.clone(), key))
                .collect(),
            ..Self::default()
        };
        let mut starts: HashMap<String, (Option<DateTime<Utc>>, i64)> = HashMap::new();
        for definition in definitions.experiments {
            let target = definition.target.clone();
            let age = (definition.start_date, definition.id);
            let experiment = Arc::new(Experiment::compile(definition, tallies));
            snapshot.by_id.insert(experiment.id, experiment.clone());
            snapshot
                .by_name
                .insert(experiment.name.clone(), experiment.clone());
            for variant in &experiment.variants {
                snapshot.by_variant.insert(variant.id, experiment.clone());
            }
            if experiment.is_served() {
                if starts.get(&target).is_none_or(|known| *known < age) {
                    starts.insert(target.clone(), age);
                    snapshot.by_target.insert(target, experiment.clone());
                }
                snapshot.served.push(experiment);
            }
        }
        for (variant, experiment) in definitions.idle_variants {
            if let Some(experiment) = snapshot.by_id.get(&experiment) {
                snapshot.by_variant.insert(variant, experiment.clone());
            }
        }
        snapshot
    }

    /// Version of the definitions.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// Whether the definitions were read, from the table or from a file. Otherwise that somebody is not among them says
    /// nothing.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        self.version != NOTHING_READ
    }

    /// People by id.
    #[must_use]
    pub const fn users(&self) -> &HashMap<String, UserDefinition> {
        &self.users
    }

    /// Units that were forgotten so far.
    #[must_use]
    pub const fn erasures(&self) -> i64 {
        self.erasures
    }

    /// The API key with this prefix, unless it was revoked.
    #[must_use]
    pub fn api_key(&self, prefix: &str) -> Option<&ApiKeyDefinition> {
        self.api_keys.get(prefix)
    }

    /// Whether there are API keys.
    #[must_use]
    pub fn has_api_keys(&self) -> bool {
        !self.api_keys.is_empty()
    }

    /// An experiment by id or name.
    #[must_use]
    pub fn find(&self, reference: ExperimentRef<'_>) -> Option<&Arc<Experiment>> {
        match reference {
            ExperimentRef::Id(id) => self.by_id.get(&id),
            ExperimentRef::Name(name) => self.by_name.get(name),
        }
    }

    /// The experiment, in any state, that a variant belongs to.
    #[must_use]
    pub fn of_variant(&self, variant_id: i64) -> Option<&Arc<Experiment>> {
        self.by_variant.get(&variant_id)
    }

    /// The newest experiment of a placement that is served.
    #[must_use]
    pub fn on_placement(&self, placement: &str) -> Option<&Arc<Experiment>> {
        self.by_target.get(placement)
    }

    /// Experiments in any state, in no order.
    pub fn experiments(&self) -> impl Iterator<Item = &Arc<Experiment>> {
        self.by_id.values()
    }

    /// All experiments that are served, running and promoted ones, in id order.
    #[must_use]
    pub fn served(&self) -> &[Arc<Experiment>] {
        &self.served
    }

    /// Experiments in any state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is no experiment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

impl Experiment {
    fn compile(definition: ExperimentDefinition, tallies: &Tallies) -> Self {
        let status = definition.status.parse().unwrap_or_else(|_| {
            tracing::error!(
                experiment.id = definition.id,
                "experiment with an unknown status is treated as paused"
            );
            Status::Paused
        });
        let bucketing = bucketing(&definition);
        let bandit = bandit(&definition);
        let promotion = Promotion::compile(&definition);
        let variants: Vec<Variant> = definition
            .variants
            .iter()
            .map(|v| variant(&definition, v, tallies))
            .collect();
        let overrides = definition
            .overrides
            .into_iter()
            .filter_map(|(unit, id)| Some((unit, variants.iter().position(|v| v.id == id)?)))
            .collect();
        Self {
            id: definition.id,
            name: definition.name,
            status,
            ended_at: definition.end_date,
            epoch: definition.epoch,
            variants,
            overrides,
            bucketing,
            bandit,
            promotion,
        }
    }

    /// Whether it has answers of its own: it runs, or its winner is promoted.
    #[must_use]
    pub const fn is_served(&self) -> bool {
        matches!(self.status, Status::Running) || self.promotion.is_some()
    }

    /// The promotion that is active.
    #[must_use]
    pub const fn promotion(&self) -> Option<&Promotion> {
        self.promotion.as_ref()
    }

    /// What an active promotion makes of a unit whose own variant is `own`; without one [`Told::Own`].
    #[must_use]
    pub fn told(&self, unit: &str, own: Option<&Variant>) -> Told {
        self.promotion.as_ref().map_or(Told::Own, |promotion| {
            promotion.told(unit, own.map(|own| own.id))
        })
    }

    /// The answer of a unit that has been [told](Self::told) something, with the reason; `own` is its variant without the
    /// promotion. `None` is the default answer: nothing of its own, and not moved to the winner.
    #[must_use]
    pub fn answer<'e>(
        &'e self,
        told: Told,
        own: Option<(&'e Variant, Reason)>,
    ) -> Option<(&'e Variant, Reason)> {
        let of_promotion = |at: fn(&Promotion) -> Option<usize>, reason| {
            let at = at(self.promotion.as_ref()?)?;
            self.variants.get(at).map(|variant| (variant, reason))
        };
        match told {
            Told::Own => own,
            Told::Winner => of_promotion(|p| Some(p.winner()), Reason::Promoted).or(own),
            Told::HeldBack => {
                own.and_then(|own| of_promotion(Promotion::control, Reason::Holdback).or(Some(own)))
            }
        }
    }

    /// What `assign` answers a unit that is not pinned, and why; `stored` is the variant of its assignment. `None` is the
    /// default answer: also for a unit without an assignment that would be given one at its first request.
    #[must_use]
    pub fn explain(&self, unit: &str, stored: Option<i64>) -> Option<(&Variant, Reason)> {
        if !self.is_served() {
            return None;
        }
        let own = stored.and_then(|id| self.variant(id));
        let is_split = !self.is_drawn() && self.place(unit).map(|placed| placed.id) == stored;
        let told = self.told(unit, own);
        self.answer(told, own.map(|own| (own, self.reason(is_split))))
    }

    /// The variant that a unit is pinned to.
    #[must_use]
    pub fn pinned(&self, unit: &str) -> Option<&Variant> {
        if self.overrides.is_empty() {
            return None;
        }
        self.overrides
            .get(unit)
            .and_then(|&at| self.variants.get(at))
    }

    /// The variant that today's weights give, if the unit takes part.
    #[must_use]
    pub fn place(&self, unit: &str) -> Option<&Variant> {
        self.place_new(unit).map(|placed| placed.variant)
    }

    /// What a unit gets that has nothing yet, if it takes part.
    #[must_use]
    pub fn place_new(&self, unit: &str) -> Option<Placed<'_>> {
        let bucketing = self.bucketing.as_ref()?;
        let Some(bandit) = &self.bandit else {
            let variant = self.variants.get(bucketing.place(unit)?)?;
            return Some(Placed {
                variant,
                epoch: self.epoch,
                propensity: None,
            });
        };
        if !bucketing.takes_part(unit) {
            return None;
        }
        let drawn = bandit.split.draw(&bucketing.salt, unit);
        Some(Placed {
            variant: self.variants.get(drawn.index)?,
            epoch: if drawn.is_even {
                bandit.control_epoch
            } else {
                self.epoch
            },
            propensity: Some(drawn.propensity),
        })
    }

    /// The reason of a unit's own variant; `is_split`: today's weights give it.
    #[must_use]
    pub const fn reason(&self, is_split: bool) -> Reason {
        match (&self.bandit, is_split) {
            (Some(_), _) => Reason::Bandit,
            (None, true) => Reason::Split,
            (None, false) => Reason::Sticky,
        }
    }

    /// Whether a bandit draws the variants.
    #[must_use]
    pub const fn is_drawn(&self) -> bool {
        self.bandit.is_some()
    }

    /// A variant by id.
    #[must_use]
    pub fn variant(&self, id: i64) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.id == id)
    }

    /// A variant by name.
    #[must_use]
    pub fn variant_named(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| variant.name == name)
    }
}

fn bucketing(definition: &ExperimentDefinition) -> Option<Bucketing> {
    let weights: Option<Vec<(VariantId, u64)>> = definition
        .variants
        .iter()
        .map(|v| {
            Some((
                VariantId::new(v.id)?,
                u64::try_from(v.traffic_weight.units()).ok()?,
            ))
        })
        .collect();
    let split = VariantTable::new(&weights?).ok()?;
    let allocation = Allocation::from_percent(definition.traffic_allocation)?;
    let version = HashVersion::from_number(i64::from(definition.hash_version))?;
    Some(Bucketing {
        salt: definition.salt.clone(),
        version,
        allocation,
        split,
    })
}

/// A bandit of two or more variants. One whose options make no sense is split evenly.
fn bandit(definition: &ExperimentDefinition) -> Option<Bandit> {
    let epoch = definition.bandit.as_ref()?;
    if definition.variants.len() < 2 {
        return None;
    }
    let id = |variant: &VariantDefinition| VariantId::new(variant.id);
    let table = |weight: &dyn Fn(&VariantDefinition) -> u64| {
        let weights: Option<Vec<_>> = definition
            .variants
            .iter()
            .map(|variant| Some((id(variant)?, weight(variant))))
            .collect();
        VariantTable::new(&weights?).ok()
    };
    let even = table(&|variant| u64::from(variant.traffic_weight.units() > 0))?;
    let adaptive = epoch.weights.as_ref().and_then(|weights| {
        let weight = |id: i64| weights.get(&id).map_or(0, |weight| weight.units());
        table(&|variant| u64::try_from(weight(variant.id)).unwrap_or(0))
    });
    let options = domain_bandit::experiment_options(&definition.config, Metric::ConversionRate);
    if let Err(faults) = &options {
        tracing::error!(experiment.id = definition.id, %faults, "options of a bandit make no sense");
    }
    let share = options.map_or(DEFAULT_CONTROL_SHARE, |options| options.control_share);
    Some(Bandit {
        split: BanditSplit {
            control_share: Allocation::from_fraction(share)?,
            even,
            adaptive,
        },
        control_epoch: epoch.control_epoch,
    })
}

fn variant(
    experiment: &ExperimentDefinition,
    variant: &VariantDefinition,
    tallies: &Tallies,
) -> Variant {
    let both =
        |reason: &str| [false, true].map(|degraded| answer(experiment, variant, reason, degraded));
    Variant {
        id: variant.id,
        name: variant.name.clone(),
        ranking: ranking(experiment, variant),
        answers: Reason::NAMES.map(both),
        tally: tallies.variant(variant.id),
    }
}

/// How a variant ranks.
fn ranking(
    experiment: &ExperimentDefinition,
    variant: &VariantDefinition,
) -> Option<Arc<BanditOptions>> {
    let is_bandit = experiment.experiment_type == ExperimentType::Bandit.name();
    let ranks =
        domain_bandit::ranks_unless_told(is_bandit, variant.is_control, experiment.variants.len());
    let config: serde_json::Value = serde_json::from_str(&variant.config).unwrap_or_default();
    match domain_bandit::variant_options(&config, &experiment.config, ranks) {
        Ok(options) => options.map(Arc::new),
        Err(faults) => {
            tracing::error!(variant.id, %faults, "variant with options that make no sense does not rank");
            None
        }
    }
}

fn answer(
    experiment: &ExperimentDefinition,
    variant: &VariantDefinition,
    reason: &str,
    degraded: bool,
) -> Bytes {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let mark = if degraded { r#","degraded":true"# } else { "" };
    Bytes::from(format!(
        r#"{{"experiment_id":{},"variant":{},"params":{},"experiment":{},"variant_id":{},"reason":"{reason}","is_control":{}{mark}}}"#,
        text(&experiment.name),
        text(&variant.name),
        variant.config,
        experiment.id,
        variant.id,
        variant.is_control,
    ))
}
