//! Experiments: their types, their life cycle, and what may change when.
//!
//! ```text
//! draft → running ⇄ paused → completed → archived
//! ```
//!
//! To add an action, add it to [`Action`] and to [`Status::after`]; the list of what is possible
//! from a state follows from that.

use std::fmt;

use crate::bucketing::Allocation;
use crate::decimal::Decimal4;
pub use crate::object::{
    MAX_OBJECT_BYTES, MAX_OBJECT_DEPTH, ObjectFault, check_object, json_depth,
};
pub use crate::words::UnknownWord;
use crate::words::wire_names;

/// Largest traffic weight of a variant: 10,000.
pub const MAX_TRAFFIC_WEIGHT: Decimal4 = Decimal4(100_000_000);
/// Largest traffic allocation: 100 percent.
pub const MAX_TRAFFIC_ALLOCATION: Decimal4 = Decimal4(Allocation::FULL.units() as i64);

/// What kind of experiment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExperimentType {
    /// One or more treatments against a control, fixed weights.
    AbTest,
    /// Combinations of several factors, each combination a variant.
    Multivariate,
    /// Weights, or an order of items, that follow what was learnt.
    Bandit,
}

wire_names!(ExperimentType { AbTest => "ab_test", Multivariate => "multivariate", Bandit => "bandit" });

/// Where an experiment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Being prepared; nobody is assigned.
    Draft,
    /// Units are assigned and events counted.
    Running,
    /// Nobody is newly assigned, assigned units get the default answer, events still count.
    Paused,
    /// Over; events up to the end still count.
    Completed,
    /// Put away; events are refused.
    Archived,
}

wire_names!(Status {
    Draft => "draft",
    Running => "running",
    Paused => "paused",
    Completed => "completed",
    Archived => "archived",
});

/// What can be asked of an experiment's life cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Begin assigning.
    Start,
    /// Stop assigning for a while.
    Pause,
    /// Go on after a pause.
    Resume,
    /// End it without a winner.
    Stop,
    /// End it and record a winner; serves nothing.
    DeclareWinner,
    /// End it and give all traffic to the winner.
    Promote,
    /// Open a new analysis on data from now on.
    RestartAnalysis,
    /// Put it away.
    Archive,
    /// Remove it; nothing was measured yet.
    Delete,
}

wire_names!(Action {
    Start => "start",
    Pause => "pause",
    Resume => "resume",
    Stop => "stop",
    DeclareWinner => "declare-winner",
    Promote => "promote",
    RestartAnalysis => "restart-analysis",
    Archive => "archive",
    Delete => "delete",
});

/// An action that the present state does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct IllegalTransition {
    /// The present state.
    pub from: Status,
    /// What was asked for.
    pub action: Action,
}

impl IllegalTransition {
    /// What the present state allows.
    #[must_use]
    pub fn possible(&self) -> Vec<Action> {
        self.from.possible_actions()
    }
}

impl fmt::Display for IllegalTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {}: the experiment is {}; possible from {}: ",
            self.action, self.from, self.from
        )?;
        let possible = self.possible();
        if possible.is_empty() {
            return f.write_str("nothing");
        }
        let names: Vec<_> = possible.into_iter().map(Action::name).collect();
        f.write_str(&names.join(", "))
    }
}

impl Status {
    /// The state after `action`. Restarting the analysis and deleting a draft keep the state.
    ///
    /// Rolling a promotion back is no action of the life cycle: it restores the state from before
    /// the promotion, whatever that was.
    ///
    /// # Errors
    /// [`IllegalTransition`], whose text says what is possible.
    pub fn after(self, action: Action) -> Result<Self, IllegalTransition> {
        match (self, action) {
            (Self::Draft, Action::Start) | (Self::Paused, Action::Resume) => Ok(Self::Running),
            (Self::Running, Action::Pause) => Ok(Self::Paused),
            (
                Self::Running | Self::Paused,
                Action::Stop | Action::DeclareWinner | Action::Promote,
            ) => Ok(Self::Completed),
            (Self::Completed, Action::Archive) => Ok(Self::Archived),
            (Self::Running | Self::Paused, Action::RestartAnalysis)
            | (Self::Draft, Action::Delete) => Ok(self),
            _ => Err(IllegalTransition { from: self, action }),
        }
    }

    /// What may be asked of an experiment in this state.
    #[must_use]
    pub fn possible_actions(self) -> Vec<Action> {
        Action::ALL
            .iter()
            .copied()
            .filter(|action| self.after(*action).is_ok())
            .collect()
    }

    /// Whether `field` of an experiment may be changed in this state.
    ///
    /// The salt never changes, not even in a draft: it was hashed into whatever a client may have
    /// computed locally. While units are assigned, nothing may change that they or the bucketing
    /// depend on; what merely changes the analysis may, and opens a new one.
    #[must_use]
    pub const fn may_change(self, field: ExperimentField) -> bool {
        use ExperimentField as F;
        match self {
            Self::Draft => !matches!(field, F::Salt),
            Self::Running | Self::Paused => !matches!(
                field,
                F::Name | F::ExperimentType | F::Target | F::Salt | F::HashVersion
            ),
            Self::Completed => matches!(field, F::Description | F::Config),
            Self::Archived => false,
        }
    }

    /// Whether `field` of a variant may be changed in this state.
    #[must_use]
    pub const fn may_change_variant(self, field: VariantField) -> bool {
        use VariantField as F;
        match self {
            Self::Draft => true,
            Self::Running | Self::Paused => matches!(field, F::TrafficWeight | F::Description),
            Self::Completed => matches!(field, F::Description),
            Self::Archived => false,
        }
    }

    /// Whether variants may be added.
    #[must_use]
    pub const fn may_add_variant(self) -> bool {
        matches!(self, Self::Draft | Self::Running | Self::Paused)
    }

    /// Whether variants may be deleted; later they are retired with weight 0.
    #[must_use]
    pub const fn may_delete_variant(self) -> bool {
        matches!(self, Self::Draft)
    }
}

/// A field of an experiment that a client may want to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExperimentField {
    /// Its unique name.
    Name,
    /// Text for people.
    Description,
    /// [`ExperimentType`].
    ExperimentType,
    /// The placement.
    Target,
    /// Share of units that take part, in percent.
    TrafficAllocation,
    /// The metric that decides.
    PrimaryMetric,
    /// Further metrics to report.
    SecondaryMetrics,
    /// Metrics that must not get worse.
    Guardrails,
    /// Minimal detectable effect, horizon, looks.
    Design,
    /// Free-form settings, those of auto-promotion among them.
    Config,
    /// Salt of the bucketing.
    Salt,
    /// Version of the bucketing.
    HashVersion,
}

wire_names!(ExperimentField {
    Name => "name",
    Description => "description",
    ExperimentType => "experimentType",
    Target => "target",
    TrafficAllocation => "trafficAllocation",
    PrimaryMetric => "primaryMetric",
    SecondaryMetrics => "secondaryMetrics",
    Guardrails => "guardrails",
    Design => "design",
    Config => "config",
    Salt => "salt",
    HashVersion => "hashVersion",
});

/// A field of a variant that a client may want to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VariantField {
    /// Its name, unique in the experiment; storefronts switch on it.
    Name,
    /// Text for people.
    Description,
    /// Its part of the split.
    TrafficWeight,
    /// JSON handed to the storefront as `params`.
    Config,
    /// Whether it is the control.
    IsControl,
}

wire_names!(VariantField {
    Name => "name",
    Description => "description",
    TrafficWeight => "trafficWeight",
    Config => "config",
    IsControl => "isControl",
});

/// What the start of an experiment asks of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VariantAtStart {
    /// Whether it is the control.
    pub is_control: bool,
    /// Its part of the split, from 0.
    pub traffic_weight: Decimal4,
}

/// A reason not to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartProblem {
    /// Too few variants.
    #[error("needs at least {needed} variant(s), has {have}")]
    TooFewVariants {
        /// Variants there are.
        have: usize,
        /// Variants there must be.
        needed: usize,
    },
    /// No variant is the control.
    #[error("needs exactly one control variant, has none")]
    NoControl,
    /// More than one variant is the control.
    #[error("needs exactly one control variant, has {have}")]
    SeveralControls {
        /// Control variants there are.
        have: usize,
    },
    /// All weights are zero.
    #[error("needs a total traffic weight above 0")]
    NoTraffic,
}

/// All reasons not to start an experiment with these variants; none means that it may start.
///
/// `ranks_items` is true for a bandit over items, where a single variant (the ranking) suffices;
/// it counts only for bandits.
#[must_use]
pub fn start_problems(
    experiment_type: ExperimentType,
    ranks_items: bool,
    variants: &[VariantAtStart],
) -> Vec<StartProblem> {
    let mut problems = Vec::new();
    let needed = if experiment_type == ExperimentType::Bandit && ranks_items {
        1
    } else {
        2
    };
    if variants.len() < needed {
        problems.push(StartProblem::TooFewVariants {
            have: variants.len(),
            needed,
        });
    }
    match variants.iter().filter(|variant| variant.is_control).count() {
        0 => problems.push(StartProblem::NoControl),
        1 => {}
        have => problems.push(StartProblem::SeveralControls { have }),
    }
    if !variants
        .iter()
        .any(|variant| variant.traffic_weight > Decimal4::ZERO)
    {
        problems.push(StartProblem::NoTraffic);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_cycle_is_this_table_and_nothing_else() {
        use Action as A;
        use Status as S;
        let allowed = [
            (S::Draft, A::Start, S::Running),
            (S::Draft, A::Delete, S::Draft),
            (S::Running, A::Pause, S::Paused),
            (S::Running, A::Stop, S::Completed),
            (S::Running, A::DeclareWinner, S::Completed),
            (S::Running, A::Promote, S::Completed),
            (S::Running, A::RestartAnalysis, S::Running),
            (S::Paused, A::Resume, S::Running),
            (S::Paused, A::Stop, S::Completed),
            (S::Paused, A::DeclareWinner, S::Completed),
            (S::Paused, A::Promote, S::Completed),
            (S::Paused, A::RestartAnalysis, S::Paused),
            (S::Completed, A::Archive, S::Archived),
        ];
        for from in S::ALL.iter().copied() {
            for action in A::ALL.iter().copied() {
                let want = allowed
                    .iter()
                    .find(|row| (row.0, row.1) == (from, action))
                    .map(|row| row.2);
                assert_eq!(from.after(action).ok(), want, "{action} from {from}");
            }
        }
    }

    #[test]
    fn a_refusal_says_what_is_possible() {
        let refused = Status::Completed.after(Action::Start).unwrap_err();
        let text = "cannot start: the experiment is completed; possible from completed: archive";
        assert_eq!(refused.to_string(), text);
        let refused = Status::Archived.after(Action::Delete).unwrap_err();
        assert!(
            refused
                .to_string()
                .ends_with("possible from archived: nothing")
        );
        assert_eq!(
            Status::Draft.possible_actions(),
            [Action::Start, Action::Delete]
        );
    }

    #[test]
    fn names_are_those_of_the_wire() {
        assert_eq!("ab_test".parse(), Ok(ExperimentType::AbTest));
        assert_eq!(Status::Running.to_string(), "running");
        assert_eq!(Action::DeclareWinner.name(), "declare-winner");
        let error = "Draft".parse::<Status>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "must be one of draft, running, paused, completed, archived"
        );
        for status in Status::ALL {
            assert_eq!(status.name().parse(), Ok(*status));
        }
    }

    #[test]
    fn what_units_depend_on_stands_still_while_running() {
        use ExperimentField as F;
        for field in [
            F::Name,
            F::ExperimentType,
            F::Target,
            F::Salt,
            F::HashVersion,
        ] {
            assert!(!Status::Running.may_change(field), "{field}");
            assert!(!Status::Paused.may_change(field), "{field}");
        }
        for field in [
            F::Description,
            F::TrafficAllocation,
            F::SecondaryMetrics,
            F::PrimaryMetric,
            F::Design,
            F::Config,
        ] {
            assert!(Status::Running.may_change(field), "{field}");
        }
        assert!(!Status::Draft.may_change(F::Salt));
        assert!(Status::Draft.may_change(F::HashVersion));
        assert!(
            F::ALL
                .iter()
                .all(|field| !Status::Archived.may_change(*field))
        );
        assert!(!Status::Completed.may_change(F::TrafficAllocation));
    }

    #[test]
    fn a_running_variant_changes_in_weight_only() {
        use VariantField as F;
        for (field, may) in [
            (F::TrafficWeight, true),
            (F::Description, true),
            (F::Config, false),
            (F::IsControl, false),
            (F::Name, false),
        ] {
            assert_eq!(Status::Running.may_change_variant(field), may, "{field}");
            assert!(Status::Draft.may_change_variant(field), "{field}");
            assert!(!Status::Archived.may_change_variant(field), "{field}");
        }
        assert!(Status::Running.may_add_variant() && !Status::Completed.may_add_variant());
        assert!(Status::Draft.may_delete_variant() && !Status::Running.may_delete_variant());
    }

    fn variants(weights_and_controls: &[(i64, bool)]) -> Vec<VariantAtStart> {
        let variant = |&(units, is_control)| VariantAtStart {
            is_control,
            traffic_weight: Decimal4(units),
        };
        weights_and_controls.iter().map(variant).collect()
    }

    #[test]
    fn start_names_every_problem() {
        let problems =
            |kind, ranks, list: &[(i64, bool)]| start_problems(kind, ranks, &variants(list));
        let ab = ExperimentType::AbTest;
        assert_eq!(problems(ab, false, &[(1, true), (0, false)]), []);
        assert_eq!(
            problems(ab, true, &[]),
            [
                StartProblem::TooFewVariants { have: 0, needed: 2 },
                StartProblem::NoControl,
                StartProblem::NoTraffic
            ]
        );
        assert_eq!(
            problems(ab, false, &[(1, true), (1, true)]),
            [StartProblem::SeveralControls { have: 2 }]
        );
        assert_eq!(
            problems(ab, false, &[(0, true), (0, false)]),
            [StartProblem::NoTraffic]
        );
        let bandit = ExperimentType::Bandit;
        assert_eq!(problems(bandit, true, &[(1, true)]), []);
        assert_eq!(
            problems(bandit, false, &[(1, true)]),
            [StartProblem::TooFewVariants { have: 1, needed: 2 }]
        );
        assert_eq!(
            StartProblem::NoControl.to_string(),
            "needs exactly one control variant, has none"
        );
    }
}
