//! The rules of Podium, free of I/O: no clock, no randomness, no database, no HTTP.
//!
//! | module | holds |
//! | --- | --- |
//! | [`decision`] | the decision rule: looks, boundaries, confidence |
//! | [`decimal`] | exact decimals with four places |
//! | [`ids`] | numeric ids |
//! | [`text`] | rules for text from outside |
//! | [`fault`] | faults of a body, collected |
//! | [`analysis`] | what is said about a treatment in a metric |
//! | [`bandit`] | options of bandits |
//! | [`bucketing`] | unit → draw → variant |
//! | [`experiment`] | types, life cycle, what may change when |
//! | [`object`] | rules for free-form JSON objects |
//! | [`words`] | enums whose values are words on the wire |
//! | [`metric`] | the catalogue of metrics |
//! | [`report`] | the figures of a report |
//! | [`alerts`] | which alerts should be open |
//! | [`outcomes`] | how requests of units ended: errors and latencies |
//! | [`rollout`] | who gets what while a promotion is active |
//! | [`guard`] | what is watched after a promotion |
//! | [`event`] | event types, limits, and which events count |
//! | [`moments`] | exact sums per variant, and what follows from them |
//! | [`stats`] | statistical methods |
//! | [`notification`] | what people are told |
//!
//! Everything is a function of its arguments, so that every answer can be computed again.

pub mod alerts;
pub mod analysis;
pub mod bandit;
pub mod bucketing;
pub mod decimal;
pub mod decision;
pub mod event;
pub mod experiment;
pub mod fault;
pub mod guard;
pub mod ids;
pub mod metric;
pub mod moments;
pub mod notification;
pub mod object;
pub mod outcomes;
pub mod report;
pub mod rollout;
pub mod stats;
pub mod text;
pub mod words;
