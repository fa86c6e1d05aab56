//! The decision library as the engine uses it, over a simulated shop.

use chrono::{DateTime, TimeDelta, Utc};
use podium_domain::decision::design::{DesignInput, DesignSettings, FrozenDesign};
use podium_domain::decision::evidence::{Stratified, stratified};
use podium_domain::decision::look::{Analysis, Answer, Look, Snapshot, due, spent, take};
use podium_domain::decision::sequential::Crossing;
use podium_domain::decision::verdict::{Gates, judge, winner};
use podium_domain::metric::Metric;
use podium_domain::stats::special::norm_isf;
use podium_simulation::shop::HOURS_PER_DAY;
use podium_simulation::{Sample, Shop};

/// Gates, schedule and length of a simulated experiment.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) treatments: u32,
    pub(crate) min_confidence: f64,
    pub(crate) min_improvement: f64,
    pub(crate) min_sample_size: i64,
    pub(crate) min_runtime_hours: f64,
    pub(crate) horizon_days: Option<f64>,
    pub(crate) look_every_hours: u32,
    /// Hours between two scans.
    pub(crate) scan_every: f64,
    pub(crate) days: f64,
    /// Nobody scans but a person, who does so when a dry run says it would promote.
    pub(crate) peeker: bool,
    /// Whether to go through p-values and verdicts instead of asking only whether a bound is met.
    pub(crate) full: bool,
}

impl Plan {
    /// Daily looks at 95 %, gates off.
    pub(crate) fn daily(days: f64) -> Self {
        Self {
            treatments: 1,
            min_confidence: 95.0,
            min_improvement: 0.0,
            min_sample_size: 1,
            min_runtime_hours: HOURS_PER_DAY,
            horizon_days: None,
            look_every_hours: 24,
            scan_every: HOURS_PER_DAY,
            days,
            peeker: false,
            full: false,
        }
    }

    fn analysis(&self) -> Option<Analysis> {
        let design = FrozenDesign::new(DesignInput {
            metric: Metric::ConversionRate,
            winsorize_upper: None,
            cap: None,
            treatments: self.treatments,
            settings: DesignSettings {
                min_detectable_effect: None,
                horizon_days: self.horizon_days,
                look_every_hours: self.look_every_hours,
            },
            min_sample_size: self.min_sample_size,
            min_runtime_hours: self.min_runtime_hours,
            min_improvement: self.min_improvement,
        });
        Some(Analysis {
            start: DateTime::UNIX_EPOCH,
            unspent: 1.0,
            design: design.ok()?,
        })
    }
}

/// A promotion: when, and what the data said then.
#[derive(Clone, Copy)]
pub(crate) struct Promotion {
    pub(crate) day: f64,
    pub(crate) statistic: Stratified,
}

/// Runs one experiment to its promotion, or to its end.
pub(crate) fn run(plan: &Plan, shop: &mut dyn Shop, sample: &mut Sample) -> Option<Promotion> {
    let analysis = plan.analysis()?;
    let count = plan.treatments as usize;
    let begin = || Follow {
        record: Vec::new(),
        crossing: Crossing::new(analysis.level(plan.min_confidence)),
        crossed: false,
    };
    let mut treatments: Vec<_> = (0..count).map(|_| begin()).collect();
    let mut from = 0.0;
    while from < plan.days * HOURS_PER_DAY {
        let to = from + plan.scan_every;
        shop.advance(from, to, sample);
        from = to;
        if to >= plan.min_runtime_hours {
            shop.before_look();
        }
        let mut eligible = None;
        for (index, follow) in treatments.iter_mut().enumerate() {
            let strata = shop.strata(index);
            let snapshot = Snapshot {
                now: at(to),
                strata: &strata,
                min_confidence: plan.min_confidence,
            };
            let ready = if plan.full {
                follow.by_verdict(plan, &analysis, &snapshot)
            } else {
                follow.by_bound(plan, &analysis, &snapshot)
            };
            if ready && eligible.is_none() {
                let statistic = stratified(&strata).ok()?;
                eligible = Some(Promotion {
                    day: to / HOURS_PER_DAY,
                    statistic,
                });
            }
        }
        if eligible.is_some() {
            return eligible;
        }
    }
    None
}

/// A treatment that is followed.
struct Follow {
    record: Vec<Look>,
    crossing: Crossing,
    crossed: bool,
}

impl Follow {
    /// The engine's own path: looks with p-values, then the verdict.
    fn by_verdict(&mut self, plan: &Plan, analysis: &Analysis, snapshot: &Snapshot<'_>) -> bool {
        if let Ok(Answer::Taken(looks)) = take(analysis, &self.record, snapshot) {
            self.record.extend(looks);
        }
        let gates = Gates {
            min_confidence: plan.min_confidence,
            min_improvement: plan.min_improvement,
        };
        winner(&[judge(analysis, &self.record, gates)]).is_some()
    }

    /// The same decision without p-values: p is at most a level exactly when its boundary was
    /// crossed.
    fn by_bound(&mut self, plan: &Plan, analysis: &Analysis, snapshot: &Snapshot<'_>) -> bool {
        let Ok(Answer::Taken(new)) = due(analysis, &self.record, snapshot) else {
            return false;
        };
        let Some(last) = new.last().copied() else {
            return false;
        };
        let Ok(looks) = spent(analysis, &self.record, &new) else {
            return false;
        };
        let level = analysis.level(plan.min_confidence);
        let z = last.z.unwrap_or(f64::NEG_INFINITY);
        if plan.peeker {
            // What was missed is laid anew at every peek, so nothing can be carried on.
            self.crossing = Crossing::new(level);
        }
        let here = self.crossing.reaches(&looks, z).unwrap_or(false);
        self.crossed |= here;
        if !plan.peeker {
            self.record.extend(new);
        }
        let lifted = last
            .lift
            .is_some_and(|lift| 100.0 * lift >= plan.min_improvement);
        self.crossed && z >= norm_isf(level) && lifted
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "some months in milliseconds"
)]
fn at(hours: f64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds((hours * 3_600_000.0).round() as i64)
}
