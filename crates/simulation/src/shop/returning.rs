//! Customers who come back.

use podium_domain::decision::evidence::{ArmSummary, Stratum};
use podium_domain::stats::mean::MeanSummary;

use super::{HOURS_PER_DAY, Shop, arrivals};
use crate::Sample;

/// Purchases per user of customers who come back: every unit's total goes on growing.
#[derive(Clone, Debug)]
pub struct ReturningShop {
    units_per_day: f64,
    totals: [Vec<u32>; 2],
}

impl ReturningShop {
    /// Two equal arms with so many units a day each.
    #[must_use]
    pub fn new(units_per_day: f64) -> Self {
        Self {
            units_per_day,
            totals: [Vec::new(), Vec::new()],
        }
    }
}

impl Shop for ReturningShop {
    fn advance(&mut self, from: f64, to: f64, sample: &mut Sample) {
        let days = (to - from) / HOURS_PER_DAY;
        for totals in &mut self.totals {
            for _ in 0..arrivals(self.units_per_day, from, to) {
                totals.push(0);
            }
            let present = i64::try_from(totals.len()).unwrap_or(i64::MAX);
            for _ in 0..sample.binomial(present, 0.03 * days) {
                let buyer = sample.below(totals.len());
                totals[buyer] += 1;
            }
        }
    }

    fn strata(&self, _: usize) -> Vec<Stratum> {
        let arm = |totals: &[u32]| {
            let n = totals.len() as f64;
            let mean = totals.iter().map(|total| f64::from(*total)).sum::<f64>() / n;
            let square = |total: &u32| (f64::from(*total) - mean) * (f64::from(*total) - mean);
            let variance = totals.iter().map(square).sum::<f64>() / (n - 1.0);
            let buyers = totals.iter().filter(|total| **total > 0).count();
            let units = i64::try_from(totals.len()).ok()?;
            let summary = MeanSummary::new(units, mean, variance).ok()?;
            ArmSummary::mean(&summary, i64::try_from(buyers).ok()?).ok()
        };
        let stratum = |(control, treatment)| Stratum {
            control,
            treatment,
            treatment_share: 0.5,
        };
        arm(&self.totals[0])
            .zip(arm(&self.totals[1]))
            .map(stratum)
            .into_iter()
            .collect()
    }
}
