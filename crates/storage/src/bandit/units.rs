//! Units of a bandit's variants by epoch of constant weights: what honest estimates are made of.

use std::collections::HashMap;

use podium_bandit::Counts;
use podium_domain::bandit::truth::EpochUnits;
use podium_domain::event::EventType;

use crate::StorageError;
use crate::analytics::context::Epoch;
use crate::database::Query;
use crate::rows::column;

const T: &str = "variant_drawn_units";

const DRAWN: &str = "-- units::drawn
SELECT variant_id, epoch, units, clicking_units, add_to_cart_units, purchasing_units FROM variant_drawn_units
WHERE experiment_id = $1 ORDER BY variant_id, epoch";

/// Units whose variant a bandit drew in one epoch: those that have a propensity. Excluded units are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawnUnits {
    variant_id: i64,
    epoch: i32,
    units: i64,
    /// Those with at least one click, add-to-cart, purchase.
    with: [(EventType, i64); 3],
}

/// The units that a bandit drew, per variant and epoch, as of the last fold.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn drawn(
    link: &mut impl Query,
    experiment_id: i64,
) -> Result<Vec<DrawnUnits>, StorageError> {
    let mut drawn = Vec::new();
    for row in link.query(DRAWN, &[&experiment_id]).await? {
        drawn.push(DrawnUnits {
            variant_id: column(&row, T, "variant_id")?,
            epoch: column(&row, T, "epoch")?,
            units: column(&row, T, "units")?,
            with: [
                (EventType::Click, column(&row, T, "clicking_units")?),
                (EventType::AddToCart, column(&row, T, "add_to_cart_units")?),
                (EventType::Purchase, column(&row, T, "purchasing_units")?),
            ],
        });
    }
    Ok(drawn)
}

impl DrawnUnits {
    /// Units, and those with the outcome.
    fn counts(&self, outcome: EventType) -> Option<Counts> {
        let with = self.with.iter().find(|(event, _)| *event == outcome);
        let with = with.map_or(0, |(_, units)| *units);
        let units = u64::try_from(self.units).ok()?;
        Counts::new(units, u64::try_from(with).ok()?).ok()
    }
}

/// Units of `variants` that the bandit drew, and those with the outcome, in every epoch from `from_epoch` on that has any.
/// Units of a variant that had no weight in their epoch cannot have been drawn in it, and are left out.
#[must_use]
pub fn by_epoch(
    epochs: &[Epoch],
    drawn: &[DrawnUnits],
    variants: &[i64],
    from_epoch: i32,
    outcome: EventType,
) -> Vec<EpochUnits> {
    let counts: HashMap<(i64, i32), Counts> = drawn
        .iter()
        .filter_map(|row| Some(((row.variant_id, row.epoch), row.counts(outcome)?)))
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
