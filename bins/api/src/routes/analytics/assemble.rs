//! Putting the figures of variants together. Pure: rows in, answers out.

use podium_domain::metric::Metric;
use podium_domain::moments::Moments;
use podium_domain::report;
use podium_domain::stats::proportion::{Proportion, equal_rates, wilson};
use podium_domain::stats::{StatsError, srm};
use podium_storage::analytics::dimensions::{DimensionTotals, PositionTotals, TopEntry};
use podium_storage::analytics::moments::{VariantMoments, by_variant};
use podium_storage::analytics::performance::VariantTotals;
use podium_storage::analytics::series::BucketTotals;
use podium_storage::experiments::model::{Experiment, Variant};

use super::bodies::{
    KeyedFigures, MetricComparison, MetricReport, MetricValue, Money, PerformanceRow, PositionRow,
    PositionTest, Range, SeriesRow, SplitCheck, TopRow, TopVariant,
};

/// The sums of every variant, all epochs together, control first, and what they came from.
pub(super) struct Figures<'e> {
    experiment: &'e Experiment,
    /// Control first, then by id.
    pub(super) variants: Vec<(&'e Variant, Moments)>,
    epochs_with_units: usize,
    client_units: i64,
}

impl<'e> Figures<'e> {
    pub(super) fn new(experiment: &'e Experiment, rows: &[VariantMoments]) -> Self {
        let mut sums = by_variant(rows);
        let mut epochs: Vec<i32> = rows
            .iter()
            .filter(|row| row.moments.units > 0)
            .map(|row| row.epoch)
            .collect();
        epochs.sort_unstable();
        epochs.dedup();
        let mut variants: Vec<(&Variant, Moments)> = experiment
            .variants
            .iter()
            .map(|variant| (variant, sums.remove(&variant.id).unwrap_or_default()))
            .collect();
        variants.sort_by_key(|(variant, _)| (!variant.is_control, variant.id));
        let client_units = rows.iter().map(|row| row.client_units).sum();
        Self {
            experiment,
            variants,
            epochs_with_units: epochs.len(),
            client_units,
        }
    }

    pub(super) fn units(&self) -> i64 {
        self.variants.iter().map(|(_, moments)| moments.units).sum()
    }

    /// Share of units whose variant the client named; none without units.
    pub(super) fn client_share(&self) -> Option<f64> {
        ratio(self.client_units, self.units())
    }

    pub(super) fn metric(&self, metric: Metric) -> MetricReport {
        let variants = self
            .variants
            .iter()
            .map(|(variant, moments)| metric_value(variant, moments, metric))
            .collect();
        let (control, treatments) = match self.variants.split_first() {
            Some((control, rest)) if control.0.is_control => (Some(control), rest),
            _ => (None, self.variants.as_slice()),
        };
        let comparisons = treatments
            .iter()
            .map(|(variant, moments)| self.comparison(control, variant, moments, metric))
            .collect();
        MetricReport {
            metric: metric.name(),
            kind: metric.kind().name(),
            role: self.role(metric),
            variants,
            comparisons,
        }
    }

    fn comparison(
        &self,
        control: Option<&(&Variant, Moments)>,
        variant: &Variant,
        moments: &Moments,
        metric: Metric,
    ) -> MetricComparison {
        let outcome = match control {
            None => Err("there is no control to compare with".to_owned()),
            // A unit's chance to be in a variant differed between the epochs, so a pooled difference may be the calendar's.
            Some(_) if self.epochs_with_units > 1 => Err(
                "weights changed while the experiment ran: epochs are not pooled into one effect"
                    .to_owned(),
            ),
            Some((_, control)) => {
                report::compare(control, moments, metric).map_err(|error| error.to_string())
            }
        };
        let (found, reason) = match outcome {
            Ok(found) => (Some(found), None),
            Err(reason) => (None, Some(reason)),
        };
        let lift = found.and_then(|c| c.lift);
        MetricComparison {
            variant_id: variant.id,
            variant_name: variant.name.clone(),
            lift: lift.map(|lift| 100.0 * lift),
            relative_lift: lift,
            relative_lift_interval: found.and_then(|c| c.lift_interval).map(Range::from),
            difference: found.map(|c| c.difference),
            difference_interval: found.and_then(|c| c.difference_interval).map(Range::from),
            method: found.map(|c| c.method.name()),
            statistic: found.map(|c| c.statistic),
            degrees_of_freedom: found.and_then(|c| c.degrees_of_freedom),
            p_value: found.map(|c| c.p_value),
            significance: found.map(|c| 100.0 * (1.0 - c.p_value)),
            reason,
        }
    }

    fn role(&self, metric: Metric) -> &'static str {
        let experiment = self.experiment;
        if experiment.primary_metric == metric {
            "primary"
        } else if experiment.secondary_metrics.contains(&metric) {
            "secondary"
        } else if experiment.guardrails.contains(&metric) {
            "guardrail"
        } else {
            "other"
        }
    }

    /// Every metric: primary, secondary, guardrails, the others.
    pub(super) fn metrics(&self) -> Vec<MetricReport> {
        let order = ["primary", "secondary", "guardrail", "other"];
        let mut metrics: Vec<MetricReport> = report::reported()
            .map(|metric| self.metric(metric))
            .collect();
        metrics.sort_by_key(|metric| order.iter().position(|role| *role == metric.role));
        metrics
    }

    /// The split against the weights in force.
    pub(super) fn split(&self) -> SplitCheck {
        let skipped = |reason: &str| SplitCheck {
            p_value: None,
            mismatch: false,
            reason: Some(reason.to_owned()),
        };
        if self.client_units > 0 {
            return skipped("clients named the variants of some units, so the split is not ours");
        }
        if self.epochs_with_units > 1 {
            return skipped("weights changed while the experiment ran");
        }
        let counts: Vec<f64> = self
            .variants
            .iter()
            .map(|(_, moments)| count(moments.units))
            .collect();
        let weights: Vec<f64> = self
            .variants
            .iter()
            .map(|(variant, _)| variant.traffic_weight.to_f64())
            .collect();
        match srm::chi_square(&counts, &weights, 0.001) {
            Ok(test) => SplitCheck {
                p_value: Some(test.p),
                mismatch: test.mismatch,
                reason: None,
            },
            Err(error) => skipped(&error.to_string()),
        }
    }

    /// One sentence of plain words with what to do next.
    pub(super) fn verdict(&self, primary: &MetricReport, split: &SplitCheck) -> String {
        const PEEKING: &str = "These are fixed-horizon figures: decide on them once, at the end you planned, not whenever they look good.";
        if let (true, Some(p)) = (split.mismatch, split.p_value) {
            return format!("Do not act: the split is off (p = {p:.1e}).");
        }
        let best = primary
            .comparisons
            .iter()
            .filter(|c| c.p_value.is_some())
            .max_by(|a, b| {
                a.relative_lift
                    .unwrap_or(f64::NEG_INFINITY)
                    .total_cmp(&b.relative_lift.unwrap_or(f64::NEG_INFINITY))
            });
        let Some(best) = best else {
            let reason = primary
                .comparisons
                .first()
                .and_then(|c| c.reason.clone())
                .unwrap_or_else(|| "there is no treatment".into());
            return format!(
                "Keep running: {} cannot be compared yet ({reason}).",
                primary.metric
            );
        };
        let p = best.p_value.unwrap_or(1.0);
        let sign = best.difference.unwrap_or_default();
        let lift = best
            .lift
            .map_or_else(String::new, |lift| format!(" by {lift:+.1} %"));
        let said = if p >= 0.05 {
            format!(
                "No clear difference in {} yet: {} differs{lift} (p = {p:.3}). Keep running.",
                primary.metric, best.variant_name
            )
        } else if sign > 0.0 {
            format!(
                "{} is ahead in {}{lift} (p = {p:.3}).",
                best.variant_name, primary.metric
            )
        } else {
            format!(
                "No treatment is ahead in {}: {} is behind{lift} (p = {p:.3}).",
                primary.metric, best.variant_name
            )
        };
        format!("{said} {PEEKING}")
    }

    pub(super) fn positions(&self, rows: &[PositionTotals]) -> Vec<PositionRow> {
        let mut positions: Vec<PositionRow> = rows
            .iter()
            .map(|row| {
                let (rate, interval) = rate(&row.totals);
                PositionRow {
                    position: row.position,
                    variant_id: row.variant_id,
                    variant_name: self.name(row.variant_id),
                    impressions: row.totals.impressions,
                    clicks: row.totals.clicks,
                    conversions: row.totals.purchases,
                    rate,
                    interval,
                }
            })
            .collect();
        positions.sort_by_key(|row| (self.rank(row.variant_id), row.position));
        positions
    }

    pub(super) fn position_tests(&self, rows: &[PositionRow]) -> Vec<PositionTest> {
        self.variants
            .iter()
            .map(|(variant, _)| {
                let groups: Result<Vec<Proportion>, StatsError> = rows
                    .iter()
                    .filter(|row| row.variant_id == variant.id)
                    .map(|row| Proportion::new(row.clicks, row.impressions))
                    .collect();
                let test = groups.and_then(|groups| equal_rates(&groups));
                PositionTest {
                    variant_id: variant.id,
                    variant_name: variant.name.clone(),
                    chi_square: test.as_ref().ok().map(|t| t.chi2),
                    degrees_of_freedom: test.as_ref().ok().map(|t| t.df),
                    p_value: test.as_ref().ok().map(|t| t.p),
                    reason: test.err().map(|error| error.to_string()),
                }
            })
            .collect()
    }

    pub(super) fn top(&self, entries: &[TopEntry]) -> Vec<TopRow> {
        entries
            .iter()
            .map(|entry| TopRow {
                id: entry.key.clone(),
                total: keyed(&entry.all),
                variants: entry
                    .by_variant
                    .iter()
                    .map(|(id, totals)| TopVariant {
                        variant_id: *id,
                        variant_name: self.name(*id),
                        of: keyed(totals),
                    })
                    .collect(),
            })
            .collect()
    }

    pub(super) fn series(&self, rows: &[BucketTotals]) -> Vec<SeriesRow> {
        rows.iter()
            .map(|row| SeriesRow {
                start: row.start,
                variant_id: row.variant_id,
                variant_name: self.name(row.variant_id),
                impressions: row.impressions,
                clicks: row.clicks,
                add_to_carts: row.add_to_carts,
                conversions: row.purchases,
                total_value: Money::new(&row.purchase_value),
                click_through_rate: percent(row.clicks, row.impressions),
                conversion_rate: percent(row.purchases, row.impressions),
            })
            .collect()
    }

    fn name(&self, variant_id: i64) -> String {
        self.experiment
            .variant(variant_id)
            .map_or_else(String::new, |variant| variant.name.clone())
    }

    fn rank(&self, variant_id: i64) -> usize {
        self.variants
            .iter()
            .position(|(variant, _)| variant.id == variant_id)
            .unwrap_or(usize::MAX)
    }
}

/// A metric of one variant; undefined is null with a reason.
pub(super) fn metric_value(variant: &Variant, moments: &Moments, metric: Metric) -> MetricValue {
    let value = report::value(moments, metric);
    MetricValue {
        variant_id: variant.id,
        variant_name: variant.name.clone(),
        is_control: variant.is_control,
        units: moments.units,
        value: value.as_ref().ok().map(|v| v.value),
        interval: value
            .as_ref()
            .ok()
            .and_then(|v| v.interval)
            .map(Range::from),
        reason: value.err().map(|error| error.to_string()),
    }
}

/// Totals per variant as the earlier system named them.
pub(super) fn performance(rows: &[VariantTotals]) -> Vec<PerformanceRow> {
    rows.iter()
        .map(|row| PerformanceRow {
            variant_id: row.variant_id,
            variant_name: row.name.clone(),
            is_control: row.is_control,
            units: row.units,
            active_units: row.active_units,
            impressions: row.impressions,
            clicks: row.clicks,
            add_to_carts: row.add_to_carts,
            conversions: row.purchases,
            click_through_rate: percent(row.clicks, row.impressions),
            conversion_rate: percent(row.purchases, row.impressions),
            total_value: Money::new(&row.total_value),
            avg_value_per_user: Money::new(&row.value_per_unit),
        })
        .collect()
}

fn keyed(totals: &DimensionTotals) -> KeyedFigures {
    let (rate, interval) = rate(totals);
    KeyedFigures {
        impressions: totals.impressions,
        clicks: totals.clicks,
        add_to_carts: totals.add_to_carts,
        conversions: totals.purchases,
        total_value: Money::new(&totals.total_value),
        rate,
        interval,
    }
}

/// Clicks per impression with Wilson's interval; no interval where it is no proportion (more clicks than impressions).
fn rate(totals: &DimensionTotals) -> (Option<f64>, Option<Range>) {
    let interval = Proportion::new(totals.clicks, totals.impressions)
        .and_then(|p| wilson(p, report::CONFIDENCE));
    (
        ratio(totals.clicks, totals.impressions),
        interval.ok().map(Range::from),
    )
}

fn ratio(numerator: i64, denominator: i64) -> Option<f64> {
    (denominator > 0).then(|| count(numerator) / count(denominator))
}

fn percent(numerator: i64, denominator: i64) -> f64 {
    ratio(numerator, denominator).map_or(0.0, |rate| 100.0 * rate)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn count(number: i64) -> f64 {
    number as f64
}
