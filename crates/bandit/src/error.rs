//! What can be wrong with a call.

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BanditError {
    /// There is nothing to choose from.
    #[error("there are no arms")]
    NoArms,
    /// The number of an arm is beyond the last one.
    #[error("arm {arm} does not exist, there are {arms}")]
    UnknownArm {
        /// The number asked for, from 0.
        arm: usize,
        /// How many arms there are.
        arms: usize,
    },
    /// An arm is named twice where each may appear once.
    #[error("arm {arm} appears twice")]
    RepeatedArm {
        /// The number of the arm, from 0.
        arm: usize,
    },
    /// More successes than plays.
    #[error("{successes} successes in {plays} plays are impossible")]
    InvalidCounts {
        /// Plays.
        plays: f64,
        /// Successes.
        successes: f64,
    },
    /// A number is not finite or outside its range.
    #[error("`{name}` is {value}, which is outside its range")]
    OutOfRange {
        /// The name of the parameter.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// Two lists that belong together have different lengths.
    #[error("`{name}` has {got} entries instead of {expected}")]
    Length {
        /// The name of the list.
        name: &'static str,
        /// How many are needed.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A sum of counts or values no longer fits.
    #[error("`{name}` overflows")]
    Overflow {
        /// The name of the sum.
        name: &'static str,
    },
    /// A name that no policy has.
    #[error("no policy is called `{name}`")]
    UnknownPolicy {
        /// The name.
        name: String,
    },
    /// The policy has no such form: an index for draws, a draw for values.
    #[error("policy `{policy}` does not offer {what}")]
    Unsupported {
        /// The name of the policy.
        policy: String,
        /// What was asked of it.
        what: &'static str,
    },
    /// A method needs more observations.
    #[error("`{name}` is {got}, at least {required} is needed")]
    NotEnoughData {
        /// What there is too little of.
        name: &'static str,
        /// How much there is.
        got: f64,
        /// How much is needed.
        required: f64,
    },
    /// The log hardly ever took the actions of the target policy.
    #[error("the effective sample size is {got:.1}, at least {required} is needed")]
    EffectiveSampleTooSmall {
        /// (Σw)² / Σw².
        got: f64,
        /// The least that gives a number.
        required: f64,
    },
    /// An integral did not add up: the posteriors are beyond double precision.
    #[error("the probabilities of being best add up to {sum} instead of 1")]
    NotConverged {
        /// What they add up to.
        sum: f64,
    },
}

/// Checks that a number lies in `low..=high` (NaN does not).
pub(crate) fn in_range(
    name: &'static str,
    value: f64,
    low: f64,
    high: f64,
) -> Result<f64, BanditError> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(BanditError::OutOfRange { name, value })
    }
}

/// Checks that a list has the length that another one asks for.
pub(crate) fn same_length(
    name: &'static str,
    expected: usize,
    got: usize,
) -> Result<(), BanditError> {
    if expected == got {
        Ok(())
    } else {
        Err(BanditError::Length {
            name,
            expected,
            got,
        })
    }
}
