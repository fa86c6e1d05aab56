//! The rules of Podium, free of I/O: no clock, no randomness, no database, no HTTP.
//!
//! | module | holds |
//! | --- | --- |
//! | [`decimal`] | exact decimals with four places |
//! | [`ids`] | numeric ids |
//! | [`text`] | rules for text from outside |
//! | [`fault`] | faults of a body, collected |
//! | [`bucketing`] | unit → draw → variant |
//! | [`experiment`] | types, life cycle, what may change when |
//! | [`metric`] | the catalogue of metrics |
//! | [`event`] | event types, limits, and which events count |
//!
//! Everything is a function of its arguments, so that every answer can be computed again.

pub mod bucketing;
pub mod decimal;
pub mod event;
pub mod experiment;
pub mod fault;
pub mod ids;
pub mod metric;
pub mod text;
