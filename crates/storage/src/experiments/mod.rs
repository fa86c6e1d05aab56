//! Administration of experiments: created, changed, started, ended, and who is pinned to what.
//!
//! Every change is one transaction that locks the experiment's row, checks the version that the client has read and
//! the rules of [`podium_domain::experiment`], writes the row with the next version, opens an epoch where the split
//! changed, and appends to the audit log. What a change makes of an experiment is decided by pure functions
//! ([`rules`]); the rest of the modules reads and writes.
//!
//! To add an action of the life cycle: a constructor of [`Step`] and its effect in [`rules::step`].
//!
//! | module | what |
//! | --- | --- |
//! | [`model`] | experiments and variants, and what can be asked of them |
//! | [`change`] | why a change is refused |
//! | [`rules`] | what a change makes of an experiment |
//! | `rows` | statements that the others share |
//! | [`commands`], [`variants`], [`overrides`], [`covariates`] | the changes |
//! | [`query`] | reading |

pub mod arms;
pub mod change;
pub mod commands;
pub mod covariates;
pub mod model;
pub mod overrides;
pub mod query;
pub(crate) mod rows;
pub mod rules;
pub mod variants;

pub use change::{ChangeError, Conflict, Precondition};
pub use commands::{create, delete, patch, step};
pub use model::{
    Design, DesignPatch, Experiment, ExperimentPatch, ExperimentRef, NewExperiment, NewVariant,
    Variant, VariantPatch, as_json, as_number, exact_number,
};
pub use overrides::{Override, VariantChoice};
pub use query::{Filter, list, read};
pub use rules::Step;
