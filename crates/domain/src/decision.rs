//! The decision rule: from the sums of an experiment to "this treatment has won", at any schedule
//! of looks, with a bound on how often that is wrong.
//!
//! Of the experiments without a better treatment at most 1 − minConfidence are ever promoted, all
//! treatments together. Each treatment is compared with the control by a statistic stratified by
//! epoch ([`evidence`]), at looks that a clock fixes ([`design`], [`look`]), against group-sequential
//! boundaries at 1/m of alpha. The answer is a p-value that holds at every level at once and never
//! rises ([`sequential`]); what a promotion needs of it is in [`verdict`]. [`anytime`] is for
//! reading at any moment and decides nothing.
//!
//! The promotion engine and the report call the same functions. Nothing here stores anything: a dry
//! run is a run whose looks the caller does not keep.

pub mod anytime;
pub mod design;
pub mod evidence;
pub mod lift;
pub mod look;
pub mod sequential;
pub mod verdict;

#[cfg(test)]
mod tests;
