//! What the database knows, as metrics.

use std::collections::BTreeMap;

use podium_domain::analysis::{self, EpochSplit};
use podium_domain::stats::StatsError;
use podium_storage::monitoring::{Count, Facts, VariantUnits};
use podium_storage::promotions::scan::Scans;
use prometheus::proto::LabelPair;

use super::families::{Families, Sorted, label};

pub(super) fn add(families: &mut Families, facts: &Facts) {
    families.gauge(
        "podium_event_lag_seconds",
        "For how long the oldest event has waited to be in the totals",
        facts.event_lag_seconds.map(|lag| (Vec::new(), lag)),
    );
    families.gauge(
        "podium_promotions_active",
        "Promotions in force",
        [(Vec::new(), facts.promotions_active as f64)],
    );
    families.counter(
        "podium_promotion_decisions_total",
        "Entries of the promotion log by outcome, and who decided: auto or manual",
        facts
            .decisions
            .iter()
            .map(|row| counted(row, "outcome", "reason")),
    );
    families.counter(
        "podium_rollbacks_total",
        "Promotions that were rolled back, automatically or by a person",
        rollbacks(&facts.decisions),
    );
    families.counter(
        "podium_notifications_total",
        "Notifications that have left, or never will",
        facts
            .notifications
            .iter()
            .map(|row| counted(row, "channel", "result")),
    );
    families.gauge(
        "podium_notification_age_seconds",
        "For how long the oldest notification has waited that should have left; what waits for the end of quiet hours does not count",
        [(Vec::new(), facts.notification_age_seconds)],
    );
    families.gauge(
        "podium_alerts_open",
        "Alerts that are open, by level",
        facts
            .alerts_open
            .iter()
            .map(|(level, open)| (vec![label("level", level.name())], *open as f64)),
    );
    scans(families, &facts.scans);
    units(families, &facts.units);
    families.gauge(
        "podium_experiment_srm_pvalue",
        "That a split as uneven as the observed one is chance, of the units that the server drew; valid at any moment",
        split_p_values(&facts.units),
    );
}

fn counted(row: &Count, what: &str, how: &str) -> (Vec<LabelPair>, u64) {
    let labels = vec![label(what, row.what.clone()), label(how, row.how.clone())];
    (labels, u64::try_from(row.count).unwrap_or_default())
}

fn rollbacks(decisions: &[Count]) -> impl Iterator<Item = (Vec<LabelPair>, u64)> {
    let rollbacks = decisions.iter().filter(|row| row.what == "rolled_back");
    rollbacks.map(|row| {
        let labels = vec![label("reason", row.how.clone())];
        (labels, u64::try_from(row.count).unwrap_or_default())
    })
}

/// Whoever scanned: a worker for cron has no page of metrics of its own.
fn scans(families: &mut Families, scans: &Scans) {
    families.histogram(
        "podium_scan_duration_seconds",
        "Scans that went through all running experiments, without dry runs",
        [(
            Vec::new(),
            Sorted {
                up_to: scans.up_to.clone(),
                count: scans.count,
                sum: scans.seconds,
            },
        )],
    );
    families.gauge(
        "podium_scan_last_success_timestamp_seconds",
        "When the last such scan ended, in seconds since 1970",
        scans
            .last_success_at
            .map(|at| (Vec::new(), at.timestamp_millis() as f64 / 1_000.0)),
    );
}

/// Rows of one experiment, by epoch.
type Epochs<'f> = BTreeMap<i32, Vec<&'f VariantUnits>>;

fn by_experiment(units: &[VariantUnits]) -> BTreeMap<&str, Epochs<'_>> {
    let mut experiments: BTreeMap<&str, Epochs<'_>> = BTreeMap::new();
    for row in units {
        let epochs = experiments.entry(&row.experiment).or_default();
        epochs.entry(row.epoch).or_default().push(row);
    }
    experiments
}

/// Units that each variant has, and should have by the weights of the epochs in which they came. Whose variant a client named
/// should have that one.
fn units(families: &mut Families, units: &[VariantUnits]) {
    let mut sums: BTreeMap<(&str, &str), (f64, f64)> = BTreeMap::new();
    for (experiment, epochs) in by_experiment(units) {
        for rows in epochs.values() {
            let drawn: f64 = rows.iter().map(|row| drawn(row)).sum();
            let weights: f64 = rows.iter().map(|row| row.weight.to_f64()).sum();
            for row in rows {
                let (has, should) = sums.entry((experiment, &row.variant)).or_default();
                *has += row.units as f64;
                *should += row.client_units as f64;
                if weights > 0.0 {
                    *should += drawn * row.weight.to_f64() / weights;
                }
            }
        }
    }
    let labelled = |pick: fn(&(f64, f64)) -> f64| {
        sums.iter().map(move |((experiment, variant), pair)| {
            let labels = vec![label("experiment", *experiment), label("variant", *variant)];
            (labels, pick(pair))
        })
    };
    families.gauge(
        "podium_experiment_units",
        "Units in the open analysis of a running experiment",
        labelled(|pair| pair.0),
    );
    families.gauge(
        "podium_experiment_expected_units",
        "Units that the variant should have by its weights",
        labelled(|pair| pair.1),
    );
}

/// Of the units that the server drew, as in the report: about those whose variants clients named the weights say nothing. An
/// experiment without units has no p value.
fn split_p_values(units: &[VariantUnits]) -> Vec<(Vec<LabelPair>, f64)> {
    let experiments = by_experiment(units).into_iter();
    let values = experiments.filter_map(|(experiment, epochs)| {
        let splits: Vec<EpochSplit> = epochs.values().map(|rows| split(rows)).collect();
        let p = match analysis::split_p_value(&splits) {
            Ok(p) => p,
            // Units where there should be none are no chance.
            Err(StatsError::UnexpectedUsers) => 0.0,
            Err(_) => return None,
        };
        Some((vec![label("experiment", experiment)], p))
    });
    values.collect()
}

fn split(rows: &[&VariantUnits]) -> EpochSplit {
    EpochSplit {
        counts: rows.iter().map(|row| drawn(row)).collect(),
        weights: rows.iter().map(|row| row.weight.to_f64()).collect(),
    }
}

/// Units that the server drew.
fn drawn(row: &VariantUnits) -> f64 {
    (row.units - row.client_units) as f64
}
