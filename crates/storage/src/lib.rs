//! Everything SQL: the only crate that writes a statement or knows a table's name.
//!
//! One module per concern; each statement is a `const` that opens with an SQL comment holding the
//! function's name, so that a slow-query log points at code. To add a statement, put it beside its
//! kin, read its rows with the helpers of [`rows`], and let a row that cannot be read be a
//! [`StorageError::CorruptRow`], never a default.
//!
//! | module | what |
//! | --- | --- |
//! | [`connect`], [`database`] | connection settings, TLS, pools, time-outs, transactions |
//! | [`migrate`] | migrations under an advisory lock |
//! | [`definitions`], [`feed`] | what every replica holds in memory, and news of changes |
//! | [`experiments`], [`users`], [`api_keys`], [`audit`] | administration |
//! | [`batch`], [`assignments`], [`events`] | the write path: grouped, durable, idempotent |
//! | [`arms`] | what choices are made from |
//! | [`decisions`] | what rankings answered, and arms on first sight |
//! | [`fold`], [`rebuild`], [`retention`] | totals derived from events |
//! | [`winsorize`] | caps of values and the sums under them, derived from totals |
//! | [`idempotency`] | answers that are repeated |
//! | [`erase`] | a unit's names replaced everywhere |
//! | [`seals`] | the chain of hashes over the audit logs |
//! | [`alerts`] | what went wrong within the last hour, and whether it still does |
//! | [`leases`] | who does a work that needs no second one |
//! | [`rollouts`] | promotions while they are rolled out and watched |
//! | [`analytics`], [`export`] | reading results |
//! | [`monitoring`] | what operators watch |
//! | [`promotions`] | analyses, looks, promotions and what was decided |
//! | [`promotion_events`] | what happened to promotions, as it happens |
//! | [`outbox`], [`notification_configs`], [`notification_logs`] | messages to people: queued, where to, what became of them |

pub mod alerts;
pub mod analytics;
pub mod api_keys;
pub mod arms;
pub mod assignments;
pub mod audit;
pub mod bandit;
pub mod batch;
pub mod connect;
pub mod database;
pub mod decisions;
pub mod definitions;
pub mod erase;
pub mod error;
pub mod events;
pub mod experiments;
pub mod export;
pub mod feed;
pub mod fold;
pub mod idempotency;
pub mod leases;
pub mod migrate;
pub mod monitoring;
pub mod notification_configs;
pub mod notification_logs;
mod numeric;
pub mod outbox;
pub mod promotion_events;
pub mod promotions;
pub mod rebuild;
pub mod retention;
pub mod rollouts;
pub mod rows;
pub mod seals;
pub mod users;
pub mod winsorize;

pub use connect::ConnectSettings;
pub use database::Database;
pub use error::StorageError;
