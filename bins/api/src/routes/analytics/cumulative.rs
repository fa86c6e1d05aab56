//! A metric as it stood at the end of each day, with the lift over the control.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use podium_domain::metric::Metric;
use podium_promotion::sums::Sums;
use podium_storage::analytics::context::Epoch;
use podium_storage::analytics::moments::{DayMoments, VariantMoments};
use podium_storage::experiments::model::{Experiment, Variant};

use super::assemble::{Figures, metric_value};
use super::bodies::CumulativeRow;
use super::compare::{Evidence, NO_CONTROL};

/// What the series is made of.
pub(super) struct Series<'e> {
    pub(super) experiment: &'e Experiment,
    pub(super) epochs: &'e [Epoch],
    pub(super) metric: Metric,
    /// Units of earlier epochs are of another analysis.
    pub(super) from_epoch: i32,
    /// Now, and today's date.
    pub(super) now: DateTime<Utc>,
}

impl Series<'_> {
    /// All days until the end of the experiment, control first within a day. `days` are the ends of past days, `present`
    /// how it stands now.
    pub(super) fn rows(
        &self,
        days: Vec<DayMoments>,
        present: Vec<VariantMoments>,
    ) -> Vec<CumulativeRow> {
        let end = self.experiment.end_date.filter(|end| *end <= self.now);
        let last = end.unwrap_or(self.now).date_naive();
        let mut by_day: BTreeMap<NaiveDate, Vec<VariantMoments>> = BTreeMap::new();
        for DayMoments { day, of } in days.into_iter().filter(|of| of.day <= last) {
            by_day.entry(day).or_default().push(of);
        }
        // Nothing counts after the end, so what stands now stood then.
        by_day.insert(last, present);
        let label = |day| match (day == last, end) {
            (false, _) => "end_of_day",
            (true, None) => "now",
            (true, Some(_)) => "end",
        };
        by_day
            .into_iter()
            .flat_map(|(day, sums)| self.of_day(day, label(day), &sums))
            .collect()
    }

    fn of_day(
        &self,
        day: NaiveDate,
        as_of: &'static str,
        sums: &[VariantMoments],
    ) -> Vec<CumulativeRow> {
        let (experiment, metric) = (self.experiment, self.metric);
        if !sums.iter().any(|row| row.epoch >= self.from_epoch) {
            return Vec::new();
        }
        let evidence = Evidence {
            sums: Sums {
                experiment,
                epochs: self.epochs,
                rows: sums,
                capped: &[],
                from_epoch: self.from_epoch,
            },
            covariates: &[],
            outcomes: &[],
            standing: None,
            pace: 1.0,
            now: self.now,
        };
        let control = experiment
            .variants
            .iter()
            .find(|variant| variant.is_control);
        let lift = |variant: &Variant| match control {
            _ if variant.is_control => (None, None),
            None => (None, Some(NO_CONTROL.to_owned())),
            Some(control) => evidence.lift(control.id, variant.id, metric),
        };
        Figures::of_sums(experiment, sums, self.from_epoch)
            .variants
            .iter()
            .map(|(variant, moments)| {
                let (lift, relative_lift_reason) = lift(variant);
                CumulativeRow {
                    day,
                    as_of,
                    value: metric_value(variant, moments, metric),
                    lift,
                    relative_lift_reason,
                }
            })
            .collect()
    }
}
