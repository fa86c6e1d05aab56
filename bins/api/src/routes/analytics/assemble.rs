//! Putting the figures of variants together. Pure: rows in, answers out.

use podium_bandit::Counts;
use podium_bandit::position::rates_by_position;
use podium_domain::analysis;
use podium_domain::bandit::examination;
use podium_domain::metric::Metric;
use podium_domain::moments::Moments;
use podium_domain::report;
use podium_domain::stats::proportion::{Proportion, equal_rates, wilson};
use podium_domain::stats::{StatsError, srm};
use podium_promotion::sums::Sums;
use podium_storage::analytics::dimensions::{DimensionTotals, PositionTotals, TopEntry};
use podium_storage::analytics::moments::{VariantMoments, by_variant};
use podium_storage::analytics::performance::VariantTotals;
use podium_storage::analytics::series::BucketTotals;
use podium_storage::experiments::model::{Experiment, Variant};

use super::bodies::{
    ExaminationRow, KeyedFigures, MetricReport, MetricValue, Money, PerformanceRow, PositionRow,
    PositionTest, Range, SeriesRow, SplitCheck, TopRow, TopVariant, WinsorizedBody,
};
use super::compare::{Evidence, adjust, shown};
use super::detail::{split_epochs, value_sums};
use super::latency;

/// The sums of every variant, all epochs together, control first, and what they came from.
pub(super) struct Figures<'e> {
    experiment: &'e Experiment,
    evidence: Evidence<'e>,
    /// Control first, then by id.
    pub(super) variants: Vec<(&'e Variant, Moments)>,
    client_units: i64,
}

impl<'e> Figures<'e> {
    pub(super) fn new(evidence: Evidence<'e>) -> Self {
        let (experiment, from) = (evidence.sums.experiment, evidence.sums.from_epoch);
        let rows = evidence.sums.rows.iter();
        let mut sums = by_variant(rows.filter(|row| row.epoch >= from));
        let mut variants: Vec<(&Variant, Moments)> = experiment
            .variants
            .iter()
            .map(|variant| (variant, sums.remove(&variant.id).unwrap_or_default()))
            .collect();
        variants.sort_by_key(|(variant, _)| (!variant.is_control, variant.id));
        let client_units = evidence.sums.client_units();
        Self {
            experiment,
            evidence,
            variants,
            client_units,
        }
    }

    /// Without comparisons: for lists and values of variants.
    pub(super) fn of_sums(
        experiment: &'e Experiment,
        rows: &'e [VariantMoments],
        from_epoch: i32,
    ) -> Self {
        Self::new(Evidence {
            sums: Sums {
                experiment,
                epochs: &[],
                rows,
                capped: &[],
                from_epoch,
            },
            covariates: &[],
            outcomes: &[],
            standing: None,
            pace: 1.0,
            now: experiment.updated_at,
        })
    }

    /// Without any sums: for lists alone.
    pub(super) fn without_sums(experiment: &'e Experiment) -> Self {
        Self::of_sums(experiment, &[], 1)
    }

    pub(super) fn units(&self) -> i64 {
        self.variants.iter().map(|(_, moments)| moments.units).sum()
    }

    /// Share of units whose variant the client named; none without units.
    pub(super) fn client_share(&self) -> Option<f64> {
        ratio(self.client_units, self.units())
    }

    /// Units whose variant the client named.
    pub(super) const fn client_units(&self) -> i64 {
        self.client_units
    }

    /// A metric with what its figures follow from.
    pub(super) fn detailed(&self, metric: Metric) -> MetricReport {
        self.metric(metric, true)
    }

    fn metric(&self, metric: Metric, detailed: bool) -> MetricReport {
        let variants = self
            .variants
            .iter()
            .map(|(variant, moments)| match metric {
                Metric::P95LatencyMs => latency::value(&self.evidence, variant),
                _ => metric_value(variant, moments, metric),
            })
            .collect();
        let (control, treatments) = match self.variants.split_first() {
            Some((control, rest)) if control.0.is_control => (Some(control), rest),
            _ => (None, self.variants.as_slice()),
        };
        let treatments: Vec<&Variant> = treatments.iter().map(|(variant, _)| *variant).collect();
        let role = self.role(metric);
        let control = control.map(|(variant, _)| *variant);
        let comparisons = self
            .evidence
            .comparisons(control, &treatments, metric, role, detailed);
        MetricReport {
            metric: metric.name(),
            kind: metric.kind().name(),
            role,
            winsorized: self.evidence.sums.capped(metric).map(WinsorizedBody::from),
            variants,
            comparisons,
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
            .chain([Metric::P95LatencyMs])
            .map(|metric| self.metric(metric, metric == self.experiment.primary_metric))
            .collect();
        metrics.sort_by_key(|metric| order.iter().position(|role| *role == metric.role));
        adjust(&mut metrics);
        metrics
    }

    /// The split against the weights that were in force, of the units that the server drew.
    pub(super) fn split(&self) -> SplitCheck {
        let sums = &self.evidence.sums;
        let splits = sums.server_splits();
        let evidence = analysis::split_evidence(&splits);
        let p = |ln_e: f64| (-ln_e).exp().min(1.0);
        // Over several epochs the counts together follow no weights at all.
        let with_units: Vec<_> = splits
            .iter()
            .filter(|split| split.counts.iter().any(|count| *count > 0.0))
            .collect();
        let fixed = match with_units.as_slice() {
            [one] => srm::chi_square(&one.counts, &one.weights, srm::THRESHOLD).ok(),
            _ => None,
        };
        let off = |p: Option<f64>| p.is_some_and(|p| p < srm::THRESHOLD);
        let epochs: Vec<_> = sums.counted_epochs().collect();
        SplitCheck {
            p_value: fixed.map(|test| shown(test.p)),
            anytime_p_value: evidence.ok().map(|ln_e| shown(p(ln_e))),
            mismatch: off(fixed.map(|test| test.p))
                || off(evidence.ok().map(p))
                || evidence == Err(StatsError::UnexpectedUsers),
            reason: self.untested(evidence.err()),
            client_units: self.client_units,
            chi_square: fixed.map(|test| test.chi2),
            degrees_of_freedom: fixed.map(|test| test.df),
            ln_p_value: fixed.map(|test| test.ln_p),
            ln_e_value: evidence.ok(),
            epochs: split_epochs(&epochs, &self.experiment.variants, &splits),
        }
    }

    fn untested(&self, error: Option<StatsError>) -> Option<String> {
        match (error, self.client_units) {
            (Some(StatsError::NotEnoughData), 1..) => {
                Some("clients named the variants of all units, so the split is not ours".to_owned())
            }
            (Some(error), _) => Some(error.to_string()),
            (None, 0) => None,
            (None, named) => Some(format!(
                "without {named} units whose variant the client named"
            )),
        }
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
    let sums = value_sums(moments, metric);
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
        sum: sums.sum,
        denominator: sums.denominator,
        variance: sums.variance,
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
            avg_value_per_user: (row.units > 0).then(|| Money::new(&row.value_per_unit)),
            bandit: None,
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

fn percent(numerator: i64, denominator: i64) -> Option<f64> {
    ratio(numerator, denominator).map(|rate| 100.0 * rate)
}

/// Attention by position.
pub(super) fn examined(randomised: &[Counts]) -> Vec<ExaminationRow> {
    let weights = examination::weights(randomised);
    rates_by_position(randomised)
        .iter()
        .zip(weights)
        .map(|(rate, weight)| ExaminationRow {
            position: rate.position + 1,
            pulls: rate.counts.plays(),
            rewarded: rate.counts.successes(),
            rate: rate.rate,
            interval: [rate.interval.0, rate.interval.1],
            weight,
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn count(number: i64) -> f64 {
    number as f64
}
