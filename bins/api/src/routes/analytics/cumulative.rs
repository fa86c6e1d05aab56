//! A metric as it stood at the end of each day, with the lift over the control.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use podium_domain::metric::Metric;
use podium_promotion::sums::Sums;
use podium_storage::analytics::context::Epoch;
use podium_storage::analytics::moments::{DayMoments, VariantMoments};
use podium_storage::experiments::model::{Experiment, Variant};

use super::assemble::{Figures, metric_value};
use super::bodies::CumulativeRow;
use super::compare::Evidence;

/// All days, control first within a day.
pub(super) fn rows(
    experiment: &Experiment,
    epochs: &[Epoch],
    metric: Metric,
    days: Vec<DayMoments>,
) -> Vec<CumulativeRow> {
    let mut by_day: BTreeMap<NaiveDate, Vec<VariantMoments>> = BTreeMap::new();
    for DayMoments { day, of } in days {
        by_day.entry(day).or_default().push(of);
    }
    by_day
        .into_iter()
        .flat_map(|(day, sums)| of_day(experiment, epochs, metric, day, &sums))
        .collect()
}

fn of_day(
    experiment: &Experiment,
    epochs: &[Epoch],
    metric: Metric,
    day: NaiveDate,
    sums: &[VariantMoments],
) -> Vec<CumulativeRow> {
    let evidence = Evidence {
        sums: Sums {
            experiment,
            epochs,
            rows: sums,
            capped: &[],
            from_epoch: 1,
        },
        covariates: &[],
        standing: None,
        outcomes: &[],
        now: experiment.updated_at,
    };
    let control = experiment
        .variants
        .iter()
        .find(|variant| variant.is_control);
    let lift = |variant: &Variant| {
        let control = control.filter(|_| !variant.is_control)?;
        evidence.lift(control.id, variant.id, metric)
    };
    Figures::of_sums(experiment, sums)
        .variants
        .iter()
        .map(|(variant, moments)| CumulativeRow {
            day,
            value: metric_value(variant, moments, metric),
            lift: lift(variant),
        })
        .collect()
}
