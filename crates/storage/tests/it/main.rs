//! Storage against a real PostgreSQL.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod analytics;
#[cfg(test)]
mod bandit;
#[cfg(test)]
mod bandit_bounds;
mod bandit_retention;
mod bandit_weights;
#[cfg(test)]
mod covariates;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod definitions;
#[cfg(test)]
mod export;
#[cfg(test)]
mod folding;
#[cfg(test)]
mod model;
#[cfg(test)]
mod outbox;
#[cfg(test)]
mod promotions;
#[cfg(test)]
mod rebuild;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod rollouts;
#[cfg(test)]
mod stream;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod winsorize;
