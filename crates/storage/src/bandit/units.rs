//! Units of a bandit's variants by epoch of constant weights: what honest estimates are made of.

use std::collections::HashMap;

use podium_bandit::Counts;
use podium_domain::bandit::truth::EpochUnits;
use podium_domain::event::EventType;

use crate::analytics::context::Epoch;
use crate::analytics::moments::VariantMoments;

/// Units of `variants`, and those with the outcome, in every epoch from `from_epoch` on that has any. Units of a variant
/// that had no weight in their epoch were not drawn by the bandit, and are left out.
#[must_use]
pub fn by_epoch(
    epochs: &[Epoch],
    rows: &[VariantMoments],
    variants: &[i64],
    from_epoch: i32,
    outcome: EventType,
) -> Vec<EpochUnits> {
    let counts: HashMap<(i64, i32), Counts> = rows
        .iter()
        .filter_map(|row| Some(((row.variant_id, row.epoch), counts(row, outcome)?)))
        .collect();
    let of_epoch = |epoch: &Epoch| {
        let weight = |id| epoch.weights.get(id).map_or(0.0, |weight| weight.to_f64());
        let weights: Vec<f64> = variants.iter().map(weight).collect();
        let counts: Vec<Counts> = variants
            .iter()
            .zip(&weights)
            .map(|(id, weight)| {
                let found = counts.get(&(*id, epoch.epoch)).copied();
                found.filter(|_| *weight > 0.0).unwrap_or_default()
            })
            .collect();
        EpochUnits {
            is_even: !epoch.is_adaptive,
            weights,
            counts,
        }
    };
    epochs
        .iter()
        .filter(|epoch| epoch.epoch >= from_epoch)
        .map(of_epoch)
        .filter(|epoch| epoch.counts.iter().any(|counts| counts.plays() > 0))
        .collect()
}

fn counts(row: &VariantMoments, outcome: EventType) -> Option<Counts> {
    let with = row.moments.units_with.get(&outcome).copied().unwrap_or(0);
    let units = u64::try_from(row.moments.units).ok()?;
    Counts::new(units, u64::try_from(with).ok()?).ok()
}
