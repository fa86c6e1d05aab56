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
//! | [`experiments`], [`users`], [`audit`] | administration |
//! | [`batch`], [`assignments`], [`events`] | the write path: grouped, durable, idempotent |
//! | [`decisions`] | what rankings answered, and arms on first sight |
//! | [`fold`], [`rebuild`], [`retention`] | totals derived from events |
//! | [`winsorize`] | caps of values and the sums under them, derived from totals |
//! | [`analytics`], [`export`] | reading results |
//! | [`monitoring`] | what operators watch |
//! | [`outbox`] | messages to people, queued and sent |

pub mod analytics;
pub mod assignments;
pub mod audit;
pub mod batch;
pub mod connect;
pub mod database;
pub mod decisions;
pub mod definitions;
pub mod error;
pub mod events;
pub mod experiments;
pub mod export;
pub mod feed;
pub mod fold;
pub mod migrate;
pub mod monitoring;
mod numeric;
pub mod outbox;
pub mod rebuild;
pub mod retention;
pub mod rows;
pub mod users;
pub mod winsorize;

pub use connect::ConnectSettings;
pub use database::Database;
pub use error::StorageError;
