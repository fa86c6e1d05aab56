//! Why a change is refused.

use podium_domain::bandit::MAX_ARMS;
use podium_domain::experiment::{
    ExperimentField, IllegalTransition, StartProblem, Status, VariantField,
};
use podium_domain::fault::Faults;

use crate::StorageError;
use crate::database::AsStorageError;

/// A change that was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The thing to change does not exist.
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// The present state does not allow it.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Somebody else changed it since it was read.
    #[error("the thing was changed since it was read; its version is now {current}")]
    Stale {
        /// The version there is.
        current: i64,
    },
    /// What was asked for makes no sense for this thing.
    #[error("the request does not fit what it is about")]
    Invalid(Faults),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl AsStorageError for ChangeError {
    fn as_storage(&self) -> Option<&StorageError> {
        match self {
            Self::Storage(error) => Some(error),
            _ => None,
        }
    }
}

impl From<IllegalTransition> for ChangeError {
    fn from(error: IllegalTransition) -> Self {
        Self::Conflict(error.into())
    }
}

/// A state that does not allow a change; the text says what is possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The life cycle has no such step from here.
    #[error(transparent)]
    Transition(#[from] IllegalTransition),
    /// Something is missing for a start.
    #[error("cannot start: {}", join(.0, "; "))]
    NotReady(Vec<StartProblem>),
    /// Fields that are fixed in this state.
    #[error("cannot change {}: the experiment is {status}; {}", join(.fields, ", "), changeable(*.status))]
    Fixed {
        /// Present state.
        status: Status,
        /// What the client wanted to change.
        fields: Vec<ExperimentField>,
    },
    /// Fields of a variant that are fixed in this state.
    #[error("cannot change {} of a variant: the experiment is {status}; {}", join(.fields, ", "), changeable_variant(*.status))]
    VariantFixed {
        /// Present state.
        status: Status,
        /// What the client wanted to change.
        fields: Vec<VariantField>,
    },
    /// No variants are added any more.
    #[error(
        "cannot add a variant: the experiment is {0}; possible while it is draft, running or paused"
    )]
    NoMoreVariants(Status),
    /// Variants stay once something was measured.
    #[error(
        "cannot delete a variant: the experiment is {0}; possible from draft only, later a traffic weight of 0 retires it"
    )]
    VariantStays(Status),
    /// The split would have no weight.
    #[error(
        "the total traffic weight must stay above 0 while the experiment is {0}; to assign nobody, pause it"
    )]
    NoTraffic(Status),
    /// Nobody can be pinned any more.
    #[error("cannot change an override: the experiment is {0}; possible until it is archived")]
    OverridesClosed(Status),
    /// No covariates are taken any more.
    #[error("cannot take covariates: the experiment is {0}; possible while it is draft or running")]
    CovariatesClosed(Status),
    /// What was learned is counted by rules that stand.
    #[error(
        "cannot change {}: arms of type {arm_type} are learned about by what they say now, and a recount must find the same; make another experiment",
        join(.options, ", ")
    )]
    LearningFixed {
        /// What the arms are.
        arm_type: String,
        /// What the client wanted to change.
        options: Vec<&'static str>,
    },
    /// Variants that rank share their arms, and so how rewards are counted.
    #[error(
        "variant {variant} would rank by other {} than variant {other}: an experiment counts what its arms earn once, whoever ranked \
         them; give both the same, or make another experiment",
        join(.options, ", ")
    )]
    RankingsDisagree {
        /// The variant that was to be added or changed.
        variant: String,
        /// One that ranks otherwise.
        other: String,
        /// Options by which they differ.
        options: Vec<&'static str>,
    },
    /// No arms are changed any more.
    #[error("cannot change an arm: the experiment is {0}; possible until it is archived")]
    ArmsClosed(Status),
    /// Its promotion is being rolled out or watched.
    #[error(
        "cannot archive: the promotion of this experiment is watched, and shoppers are given its winner; roll it back, or wait until the watch is over"
    )]
    PromotionWatched,
    /// The arm is there already.
    #[error("the experiment has this arm already")]
    ArmExists,
    /// There are as many arms as there may be.
    #[error("the experiment has {MAX_ARMS} arms of this type, and more are not possible")]
    TooManyArms,
    /// The name belongs to another experiment.
    #[error("an experiment with this name exists already")]
    NameTaken,
    /// The name belongs to another variant of the experiment.
    #[error("the experiment has a variant with this name already")]
    VariantNameTaken,
    /// There is a control already.
    #[error("the experiment has a control already; exactly one variant is the control")]
    SecondControl,
    /// The user exists.
    #[error("a user with this id exists already")]
    UserExists,
    /// The first user must be able to let others in.
    #[error(
        "the first user must be an enabled admin: from then on the bootstrap admin has no access of his own"
    )]
    FirstUserNotAdmin,
    /// A key that was revoked stays as it is.
    #[error("the key is revoked; make another one")]
    KeyRevoked,
    /// Nobody could let others in.
    #[error("this is the last enabled admin; make somebody else admin first")]
    LastAdmin,
    /// A user has one target of each channel.
    #[error("the user has a notification configuration of this channel already; change that one")]
    TargetExists,
    /// Nothing is sent to a disabled target.
    #[error("the notification configuration is disabled; enable it first")]
    TargetDisabled,
    /// Only what was given up can be sent again.
    #[error("the notification is {0}; only one that failed can be sent again")]
    NotDead(String),
    /// The target is gone.
    #[error("the notification configuration of this notification does not exist any more")]
    TargetGone,
}

fn join<T: ToString>(items: &[T], separator: &str) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(separator)
}

fn changeable(status: Status) -> String {
    possible(
        ExperimentField::ALL
            .iter()
            .filter(|field| status.may_change(**field)),
    )
}

fn changeable_variant(status: Status) -> String {
    possible(
        VariantField::ALL
            .iter()
            .filter(|field| status.may_change_variant(**field)),
    )
}

fn possible<'a, T: ToString + 'a>(fields: impl Iterator<Item = &'a T>) -> String {
    let fields: Vec<String> = fields.map(ToString::to_string).collect();
    if fields.is_empty() {
        return "nothing can change any more".to_owned();
    }
    format!("possible are {}", join(&fields, ", "))
}

/// Which versions of a thing a client is willing to change: what its `If-Match` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever there is.
    Any,
    /// One of these versions.
    OneOf(Vec<i64>),
}

impl Precondition {
    /// Passes when `current` is a version that the client named.
    ///
    /// # Errors
    /// [`ChangeError::Stale`].
    pub fn check(&self, current: i64) -> Result<(), ChangeError> {
        match self {
            Self::OneOf(versions) if !versions.contains(&current) => {
                Err(ChangeError::Stale { current })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_is_possible() {
        let fixed = Conflict::Fixed {
            status: Status::Completed,
            fields: vec![ExperimentField::Name, ExperimentField::Salt],
        };
        assert_eq!(
            fixed.to_string(),
            "cannot change name, salt: the experiment is completed; possible are description, config"
        );
        let fixed = Conflict::VariantFixed {
            status: Status::Archived,
            fields: vec![VariantField::Config],
        };
        assert_eq!(
            fixed.to_string(),
            "cannot change config of a variant: the experiment is archived; nothing can change any more"
        );
        let not_ready = Conflict::NotReady(vec![StartProblem::NoControl, StartProblem::NoTraffic]);
        assert_eq!(
            not_ready.to_string(),
            "cannot start: needs exactly one control variant, has none; needs a total traffic weight above 0"
        );
    }

    #[test]
    fn a_precondition_holds_for_the_versions_it_names() {
        assert!(Precondition::Any.check(7).is_ok());
        assert!(Precondition::OneOf(vec![6, 7]).check(7).is_ok());
        assert!(matches!(
            Precondition::OneOf(vec![6]).check(7),
            Err(ChangeError::Stale { current: 7 })
        ));
        assert!(matches!(
            Precondition::OneOf(Vec::new()).check(7),
            Err(ChangeError::Stale { .. })
        ));
    }
}
