//! Definitions compiled for deciding: lookups by id, name and placement, exact bucketing, ready answers.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use podium_domain::bucketing::{Allocation, Bucketing, HashVersion, VariantTable};
use podium_domain::experiment::Status;
use podium_domain::ids::VariantId;
use podium_storage::api_keys::ApiKeyDefinition;
use podium_storage::definitions::{
    Definitions, ExperimentDefinition, UserDefinition, VariantDefinition,
};

/// Placement that is meant when a request names none.
pub const DEFAULT_PLACEMENT: &str = "newsfeed";

/// All definitions at one version; immutable.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: i64,
    by_id: HashMap<i64, Arc<Experiment>>,
    by_name: HashMap<String, Arc<Experiment>>,
    by_variant: HashMap<i64, Arc<Experiment>>,
    /// The newest running experiment of each placement.
    by_target: HashMap<String, Arc<Experiment>>,
    running: Vec<Arc<Experiment>>,
    users: HashMap<String, UserDefinition>,
    /// By prefix.
    api_keys: HashMap<String, ApiKeyDefinition>,
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
}

/// A variant with its answers.
#[derive(Debug)]
pub struct Variant {
    /// Numeric id.
    pub id: i64,
    /// Name.
    pub name: String,
    /// `assign` answers, indexed by reason and whether they are degraded.
    answers: [[Bytes; 2]; 3],
}

impl Variant {
    /// The ready answer of `assign`.
    #[must_use]
    pub fn answer(&self, reason: Reason, degraded: bool) -> Bytes {
        let [split, sticky, pinned] = &self.answers;
        let [normal, marked] = match reason {
            Reason::Split => split,
            Reason::Sticky => sticky,
            Reason::Override => pinned,
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
        br#"{"experiment_id":null,"variant":"default","params":{},"reason":"DEFAULT","degraded":true}"#
    } else {
        br#"{"experiment_id":null,"variant":"default","params":{},"reason":"DEFAULT"}"#
    })
}

impl Snapshot {
    /// Compiles definitions. An experiment whose rows make no sense is served as if it were paused and logged, so that
    /// one bad row, written past the API, does not stop the others.
    #[must_use]
    pub fn compile(definitions: Definitions) -> Self {
        let mut snapshot = Self {
            version: definitions.version,
            users: definitions.users,
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
            let experiment = Arc::new(Experiment::compile(definition));
            snapshot.by_id.insert(experiment.id, experiment.clone());
            snapshot
                .by_name
                .insert(experiment.name.clone(), experiment.clone());
            for variant in &experiment.variants {
                snapshot.by_variant.insert(variant.id, experiment.clone());
            }
            if experiment.status == Status::Running {
                if starts.get(&target).is_none_or(|known| *known < age) {
                    starts.insert(target.clone(), age);
                    snapshot.by_target.insert(target, experiment.clone());
                }
                snapshot.running.push(experiment);
            }
        }
        snapshot
    }

    /// Version of the definitions.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// People by id.
    #[must_use]
    pub const fn users(&self) -> &HashMap<String, UserDefinition> {
        &self.users
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

    /// The experiment that a variant belongs to (drafts and archived experiments aside).
    #[must_use]
    pub fn of_variant(&self, variant_id: i64) -> Option<&Arc<Experiment>> {
        self.by_variant.get(&variant_id)
    }

    /// The newest running experiment of a placement.
    #[must_use]
    pub fn on_placement(&self, placement: &str) -> Option<&Arc<Experiment>> {
        self.by_target.get(placement)
    }

    /// All running experiments, in id order.
    #[must_use]
    pub fn running(&self) -> &[Arc<Experiment>] {
        &self.running
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
    fn compile(definition: ExperimentDefinition) -> Self {
        let status = definition.status.parse().unwrap_or_else(|_| {
            tracing::error!(
                experiment.id = definition.id,
                "experiment with an unknown status is treated as paused"
            );
            Status::Paused
        });
        let bucketing = bucketing(&definition);
        let variants: Vec<Variant> = definition
            .variants
            .iter()
            .map(|v| variant(&definition, v))
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
        }
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
        self.bucketing
            .as_ref()?
            .place(unit)
            .and_then(|at| self.variants.get(at))
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

fn variant(experiment: &ExperimentDefinition, variant: &VariantDefinition) -> Variant {
    let both =
        |reason: &str| [false, true].map(|degraded| answer(experiment, variant, reason, degraded));
    Variant {
        id: variant.id,
        name: variant.name.clone(),
        answers: [both("SPLIT"), both("STICKY"), both("OVERRIDE")],
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
