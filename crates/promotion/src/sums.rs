//! The sums of an experiment, arm against arm and epoch by epoch: what the report and the engine compare.

use podium_domain::analysis::{EpochArms, EpochSplit};
use podium_domain::metric::{Metric, MetricKind};
use podium_domain::moments::Moments;
use podium_storage::analytics::capped::CappedTotal;
use podium_storage::analytics::context::Epoch;
use podium_storage::analytics::moments::VariantMoments;
use podium_storage::experiments::model::{Experiment, Variant};

/// Sums per variant and epoch, of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sums<'e> {
    /// The experiment with its variants.
    pub experiment: &'e Experiment,
    /// Its epochs with their weights.
    pub epochs: &'e [Epoch],
    /// The sums.
    pub rows: &'e [VariantMoments],
    /// Totals of values with their sums under a cap.
    pub capped: &'e [CappedTotal],
    /// Units that were assigned in earlier epochs are left out.
    pub from_epoch: i32,
}

impl<'e> Sums<'e> {
    /// The control.
    #[must_use]
    pub fn control(&self) -> Option<&'e Variant> {
        self.experiment
            .variants
            .iter()
            .find(|variant| variant.is_control)
    }

    /// The other variants.
    pub fn treatments(&self) -> impl Iterator<Item = &'e Variant> {
        self.experiment
            .variants
            .iter()
            .filter(|variant| !variant.is_control)
    }

    /// The epochs whose units count.
    pub fn counted_epochs(&self) -> impl Iterator<Item = &'e Epoch> {
        let from = self.from_epoch;
        self.epochs.iter().filter(move |epoch| epoch.epoch >= from)
    }

    fn moments(&self, variant: i64, epoch: i32) -> Option<&'e Moments> {
        let row = |row: &&VariantMoments| row.variant_id == variant && row.epoch == epoch;
        self.rows.iter().find(row).map(|row| &row.moments)
    }

    /// The capped sums that a metric is compared by, where there are any.
    #[must_use]
    pub fn capped(&self, metric: Metric) -> Option<&'e CappedTotal> {
        let total = match metric.kind() {
            MetricKind::Mean { of } => of,
            MetricKind::Ratio { numerator, .. } => numerator,
            MetricKind::Proportion { .. } | MetricKind::Quantile { .. } => return None,
        };
        self.capped.iter().find(|capped| capped.total == total)
    }

    /// As `moments`, capped where a cap is given.
    fn sums(
        &self,
        capped: Option<&'e CappedTotal>,
        variant: i64,
        epoch: i32,
    ) -> Option<&'e Moments> {
        let Some(capped) = capped else {
            return self.moments(variant, epoch);
        };
        let mut parts = capped.parts.iter();
        let part = parts.find(|part| part.variant_id == variant && part.epoch == epoch);
        part.map(|part| &part.moments)
    }

    /// Epochs in which both arms had traffic and have units, as the metric is compared.
    #[must_use]
    pub fn arms(&self, control: i64, treatment: i64, metric: Metric) -> Vec<EpochArms<'e>> {
        let compared = self.compared(control, treatment, metric).into_iter();
        compared.map(|(_, arms)| arms).collect()
    }

    /// As [`Self::arms`], with the numbers of the epochs.
    #[must_use]
    pub fn compared(
        &self,
        control: i64,
        treatment: i64,
        metric: Metric,
    ) -> Vec<(i32, EpochArms<'e>)> {
        let capped = self.capped(metric);
        self.counted_epochs()
            .filter_map(|epoch| {
                let arms = self.compares(epoch, control, treatment, capped)?;
                Some((epoch.epoch, arms))
            })
            .collect()
    }

    /// The arms of one epoch, if both had traffic and have units.
    #[must_use]
    pub fn compares(
        &self,
        epoch: &Epoch,
        control: i64,
        treatment: i64,
        capped: Option<&'e CappedTotal>,
    ) -> Option<EpochArms<'e>> {
        let a = self.sums(capped, control, epoch.epoch)?;
        let b = self.sums(capped, treatment, epoch.epoch)?;
        let weight = |id| epoch.weights.get(&id).map_or(0.0, |weight| weight.to_f64());
        let (weight_a, weight_b) = (weight(control), weight(treatment));
        (a.units > 0 && b.units > 0 && weight_a > 0.0 && weight_b > 0.0).then(|| EpochArms {
            control: a,
            treatment: b,
            treatment_share: weight_b / (weight_a + weight_b),
        })
    }

    /// All epochs of a variant together, as the metric is compared.
    #[must_use]
    pub fn together(&self, variant: i64, metric: Metric) -> Moments {
        let (mut all, capped) = (Moments::default(), self.capped(metric));
        for epoch in self.counted_epochs() {
            if let Some(moments) = self.sums(capped, variant, epoch.epoch) {
                all.merge(moments);
            }
        }
        all
    }

    /// Units of a variant.
    #[must_use]
    pub fn units(&self, variant: i64) -> i64 {
        let rows = self
            .rows
            .iter()
            .filter(|row| row.variant_id == variant && row.epoch >= self.from_epoch);
        rows.map(|row| row.moments.units).sum()
    }

    /// Units whose variant the client named.
    #[must_use]
    pub fn client_units(&self) -> i64 {
        let rows = self.rows.iter().filter(|row| row.epoch >= self.from_epoch);
        rows.map(|row| row.client_units).sum()
    }

    /// Units of each variant in each epoch, with the weights that were in force.
    #[must_use]
    pub fn splits(&self) -> Vec<EpochSplit> {
        self.splits_of(|row| row.moments.units)
    }

    /// The same of the units that the server drew: where clients named the variants of some, the weights say nothing about
    /// those, and everything about the others.
    #[must_use]
    pub fn server_splits(&self) -> Vec<EpochSplit> {
        self.splits_of(|row| row.moments.units - row.client_units)
    }

    fn splits_of(&self, units: impl Fn(&VariantMoments) -> i64) -> Vec<EpochSplit> {
        let variants = &self.experiment.variants;
        let count = |variant: &Variant, epoch| {
            let is_meant =
                |row: &&VariantMoments| row.variant_id == variant.id && row.epoch == epoch;
            as_float(self.rows.iter().find(is_meant).map_or(0, &units))
        };
        self.counted_epochs()
            .map(|epoch| EpochSplit {
                counts: variants.iter().map(|v| count(v, epoch.epoch)).collect(),
                weights: variants
                    .iter()
                    .map(|v| epoch.weights.get(&v.id).map_or(0.0, |w| w.to_f64()))
                    .collect(),
            })
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn as_float(number: i64) -> f64 {
    number as f64
}
