//! Tells people: renders messages for each channel and sends what waits in the outbox.
//!
//! Whoever has news queues it with [`podium_storage::outbox::enqueue`]; a [`Sender`] in every API process and in the
//! worker takes it from there. The only crate that talks to Slack, e-mail, PagerDuty and webhooks. To add a channel, write
//! a module with `render` (a message to bytes) and `judge` (an answer to a [`Verdict`]), both pure, and name it in
//! [`Sender`].
//!
//! | module | what |
//! | --- | --- |
//! | [`settings`] | what is in force, from the environment |
//! | [`slack`], [`pagerduty`], [`email`], [`webhook`] | a channel each: its bytes, its limits, what its answers mean |
//! | [`escape`] | text from outside, made harmless |
//! | [`guard`], [`http`] | requests that never reach a private address |
//! | [`smtp`] | conversations with the mail relay |
//! | [`retry`] | when to try again |
//! | [`sender`] | sending |

pub mod email;
pub mod escape;
pub mod guard;
pub mod http;
pub mod links;
pub mod pagerduty;
pub mod retry;
pub mod sender;
pub mod settings;
pub mod slack;
pub mod smtp;
mod tls;
pub mod verdict;
pub mod webhook;

pub use links::Links;
pub use sender::{Sender, StartError, World, run};
pub use settings::Settings;
pub use verdict::Verdict;
