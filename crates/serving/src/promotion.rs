//! An active promotion, compiled for deciding.

use podium_domain::bucketing::Allocation;
use podium_domain::rollout::{Rollout, ShareBefore, Told};
use podium_storage::definitions::ExperimentDefinition;
use podium_storage::events::{Arm, Promoted};
use uuid::Uuid;

/// What `assign` and `track` need of an active promotion.
#[derive(Debug)]
pub struct Promotion {
    id: Uuid,
    salt: String,
    winner_id: i64,
    /// Place of the winner among the experiment's variants.
    winner: usize,
    /// Place of the control; `None` when there is none.
    control: Option<usize>,
    /// Place of the step in force, from 0.
    step: i32,
    rollout: Rollout,
    is_watched: bool,
}

impl Promotion {
    /// The active promotion of an experiment. One that makes no sense is logged and not served: every unit then gets the
    /// default answer of a completed experiment.
    pub(crate) fn compile(definition: &ExperimentDefinition) -> Option<Self> {
        let promotion = definition.promotion.as_ref()?;
        let compiled = Self::read(definition);
        if compiled.is_none() {
            tracing::error!(
                experiment.id = definition.id,
                promotion.id = %promotion.id,
                "an active promotion cannot be served: its variant, weights or steps make no sense"
            );
        }
        compiled
    }

    fn read(definition: &ExperimentDefinition) -> Option<Self> {
        let promotion = definition.promotion.as_ref()?;
        let variants = &definition.variants;
        let winner = variants.iter().position(|v| v.id == promotion.winner_id)?;
        let steps: Option<Vec<Allocation>> = promotion
            .steps
            .iter()
            .map(|step| Allocation::from_percent(*step))
            .collect();
        let steps = steps?;
        let before = share_before(definition, winner)?;
        let step = before.step(&steps, usize::try_from(promotion.step).ok()?)?;
        Some(Self {
            id: promotion.id,
            salt: definition.salt.clone(),
            winner_id: promotion.winner_id,
            winner,
            control: variants.iter().position(|v| v.is_control),
            step: i32::try_from(step).ok()?,
            rollout: Rollout::new(
                *steps.get(step)?,
                Allocation::from_percent(promotion.holdback)?,
                before,
            ),
            is_watched: promotion.is_watched,
        })
    }

    /// Place of the winner among the experiment's variants.
    #[must_use]
    pub const fn winner(&self) -> usize {
        self.winner
    }

    /// Place of the control among the experiment's variants.
    #[must_use]
    pub const fn control(&self) -> Option<usize> {
        self.control
    }

    /// Whether its guard still watches.
    #[must_use]
    pub const fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// What a unit is told whose own variant has the id `own`.
    #[must_use]
    pub fn told(&self, unit: &str, own: Option<i64>) -> Told {
        self.rollout
            .told(&self.salt, unit, own == Some(self.winner_id))
    }

    /// Whether a unit that is not the winner's own stays on the control.
    #[must_use]
    pub fn is_held_back(&self, unit: &str) -> bool {
        self.rollout.is_held_back(&self.salt, unit)
    }

    /// Where an event stands in the promotion: of a unit that was told this, whose own variant has the id `own`.
    /// `is_compared` says whether the guard may look at the unit.
    #[must_use]
    pub fn mark(&self, told: Told, own: Option<i64>, is_compared: bool) -> Promoted {
        let arm = match told {
            Told::Winner => Arm::Moved,
            Told::HeldBack => Arm::HeldBack,
            Told::Own if own == Some(self.winner_id) => Arm::Winner,
            Told::Own => Arm::Own,
        };
        Promoted {
            promotion_id: self.id,
            step: self.step,
            arm: (self.is_watched && is_compared).then_some(arm),
        }
    }
}

/// The share of traffic that a variant had before its promotion. Weights that leave 64 bits belong to no experiment.
fn share_before(definition: &ExperimentDefinition, winner: usize) -> Option<ShareBefore> {
    let weight =
        |at: usize| u64::try_from(definition.variants.get(at)?.traffic_weight.units()).ok();
    let total = (0..definition.variants.len())
        .map(weight)
        .try_fold(0_u64, |sum, weight| sum.checked_add(weight?))?;
    Some(ShareBefore {
        allocation: Allocation::from_percent(definition.traffic_allocation)?,
        weight: weight(winner)?,
        total,
    })
}
