//! Shops that are simulated: what comes in, step by step, and the evidence so far.

use podium_domain::decision::evidence::{ArmSummary, Stratum};
use podium_domain::stats::mean::MeanSummary;
use podium_domain::stats::proportion::Proportion;
use podium_domain::stats::ratio::{RatioSummary, RatioSums};

use crate::sample::Sample;

pub(crate) const HOURS_PER_DAY: f64 = 24.0;

/// An experiment in which units arrive and convert.
pub(crate) trait Shop {
    /// Lets the time from `from` to `to` pass, in hours since the start.
    fn advance(&mut self, from: f64, to: f64, sample: &mut Sample);
    /// Treatment `index` (from 0) against the control.
    fn strata(&self, index: usize) -> Vec<Stratum>;
    /// Told when a first look is possible, so that a cap can be fixed.
    fn first_look(&mut self) {}
}

/// Units, conversions, and units that will convert but have not yet.
#[derive(Clone, Copy, Default)]
struct Rates {
    units: i64,
    conversions: i64,
    pending: i64,
}

/// A conversion rate, with whatever makes it hard.
#[derive(Clone)]
pub(crate) struct Market {
    /// Units a day for each arm and stretch of constant weights: (day from which on, units).
    pub(crate) traffic: Vec<(f64, Vec<f64>)>,
    pub(crate) baseline: f64,
    /// Relative lifts of the treatments.
    pub(crate) lifts: Vec<f64>,
    /// Half the relative swing of the rate between weekend and weekday.
    pub(crate) weekday: f64,
    /// Day from which on all rates are half as high again.
    pub(crate) sale_from: f64,
    /// Mean days between arrival and conversion.
    pub(crate) delay_days: Option<f64>,
    /// Chance of a unit that has not converted to come back and do it, per day.
    pub(crate) return_rate: f64,
}

impl Market {
    /// Nothing hard: the same units a day in each arm, the same rate at all times.
    pub(crate) fn even(baseline: f64, lifts: &[f64], units_per_day: f64) -> Self {
        Self {
            traffic: vec![(0.0, vec![units_per_day; lifts.len() + 1])],
            baseline,
            lifts: lifts.to_vec(),
            weekday: 0.0,
            sale_from: f64::INFINITY,
            delay_days: None,
            return_rate: 0.0,
        }
    }

    fn rate(&self, arm: usize, hours: f64) -> f64 {
        let day = (hours / HOURS_PER_DAY).floor();
        let lift = if arm == 0 { 0.0 } else { self.lifts[arm - 1] };
        let weekday = if day % 7.0 < 5.0 {
            1.0 - self.weekday
        } else {
            1.0 + self.weekday
        };
        let sale = if day >= self.sale_from { 1.5 } else { 1.0 };
        self.baseline * (1.0 + lift) * weekday * sale
    }
}

/// An experiment on a conversion rate.
pub(crate) struct RateShop {
    market: Market,
    epochs: Vec<Vec<Rates>>,
}

impl RateShop {
    pub(crate) fn new(market: Market) -> Self {
        Self {
            market,
            epochs: Vec::new(),
        }
    }
}

impl Shop for RateShop {
    fn advance(&mut self, from: f64, to: f64, sample: &mut Sample) {
        let epoch = self
            .market
            .traffic
            .iter()
            .filter(|(day, _)| day * HOURS_PER_DAY <= from)
            .count()
            - 1;
        let arms = self.market.lifts.len() + 1;
        if self.epochs.len() <= epoch {
            self.epochs.resize(epoch + 1, vec![Rates::default(); arms]);
        }
        let days = (to - from) / HOURS_PER_DAY;
        for index in 0..=epoch {
            for arm in 0..arms {
                let mut now = self.epochs[index][arm];
                let returns = 1.0 - (-self.market.return_rate * days).exp();
                let old = now.units - now.conversions - now.pending;
                let lift = if arm == 0 {
                    0.0
                } else {
                    self.market.lifts[arm - 1]
                };
                now.conversions += sample.binomial(old, returns * (1.0 + lift));
                if index == epoch {
                    let arrived = arrivals(self.market.traffic[epoch].1[arm], from, to);
                    let converting = sample.binomial(arrived, self.market.rate(arm, from));
                    now.units += arrived;
                    now.pending += converting;
                }
                let ripe = self
                    .market
                    .delay_days
                    .map_or(1.0, |mean| 1.0 - (-days / mean).exp());
                let converted = sample.binomial(now.pending, ripe);
                now.pending -= converted;
                now.conversions += converted;
                self.epochs[index][arm] = now;
            }
        }
    }

    fn strata(&self, index: usize) -> Vec<Stratum> {
        let epochs = self.epochs.iter().zip(&self.market.traffic);
        let strata = epochs.filter_map(|(arms, (_, traffic))| {
            let arm = |arm: usize| {
                let Rates {
                    units, conversions, ..
                } = arms[arm];
                Proportion::new(conversions, units)
                    .map(ArmSummary::proportion)
                    .ok()
            };
            Some(Stratum {
                control: arm(0)?,
                treatment: arm(index + 1)?,
                treatment_share: traffic[index + 1] / (traffic[0] + traffic[index + 1]),
            })
        });
        strata.collect()
    }
}

/// Whole units that arrive between two times.
#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers of units are moderate"
)]
fn arrivals(per_day: f64, from: f64, to: f64) -> i64 {
    let by = |hours: f64| (per_day * hours / HOURS_PER_DAY).floor() as i64;
    by(to) - by(from)
}

/// Revenue per user: few buyers, log-normal baskets, capped at the pooled 99 % quantile, which is
/// frozen at the first look.
pub(crate) struct RevenueShop {
    pub(crate) units_per_day: [f64; 2],
    pub(crate) buyers: f64,
    pub(crate) sigma: f64,
    units: [i64; 2],
    baskets: [Vec<f64>; 2],
    cap: Option<f64>,
}

impl RevenueShop {
    pub(crate) fn new(units_per_day: [f64; 2]) -> Self {
        Self {
            units_per_day,
            buyers: 0.05,
            sigma: 1.5,
            units: [0; 2],
            baskets: [Vec::new(), Vec::new()],
            cap: None,
        }
    }

    fn arm(&self, arm: usize) -> Option<ArmSummary> {
        let cap = self.cap.unwrap_or(f64::INFINITY);
        let n = self.units[arm] as f64;
        let capped = || self.baskets[arm].iter().map(|value| value.min(cap));
        let mean = capped().sum::<f64>() / n;
        let zeros = n - self.baskets[arm].len() as f64;
        let squares = capped()
            .map(|value| (value - mean) * (value - mean))
            .sum::<f64>();
        let variance = (squares + zeros * mean * mean) / (n - 1.0);
        let summary = MeanSummary::new(self.units[arm], mean, variance).ok()?;
        ArmSummary::mean(&summary, i64::try_from(self.baskets[arm].len()).ok()?).ok()
    }
}

impl Shop for RevenueShop {
    fn advance(&mut self, from: f64, to: f64, sample: &mut Sample) {
        for arm in 0..2 {
            let arrived = arrivals(self.units_per_day[arm], from, to);
            self.units[arm] += arrived;
            for _ in 0..sample.binomial(arrived, self.buyers) {
                let basket = (3.0 + self.sigma * sample.normal()).exp();
                self.baskets[arm].push(basket);
            }
        }
    }

    fn strata(&self, _: usize) -> Vec<Stratum> {
        let [a, b] = self.units_per_day;
        let stratum = |(control, treatment)| Stratum {
            control,
            treatment,
            treatment_share: b / (a + b),
        };
        self.arm(0)
            .zip(self.arm(1))
            .map(stratum)
            .into_iter()
            .collect()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among the units"
    )]
    fn first_look(&mut self) {
        if self.cap.is_some() {
            return;
        }
        let mut values = self.baskets.concat();
        values.sort_by(f64::total_cmp);
        let all = (self.units[0] + self.units[1]) as f64;
        let zeros = all - values.len() as f64;
        let from_top = (all - 1.0) * 0.99 - zeros;
        let quantile = if from_top > 0.0 {
            values[from_top as usize]
        } else {
            0.0
        };
        self.cap = Some(quantile.max(values[values.len() / 2]));
    }
}

/// Clicks per impression: some shoppers see much and click often.
pub(crate) struct ClickShop {
    pub(crate) units_per_day: f64,
    sums: [RatioSums; 2],
    clicking: [i64; 2],
}

impl ClickShop {
    pub(crate) fn new(units_per_day: f64) -> Self {
        let empty = RatioSums {
            n: 0,
            sum_x: 0.0,
            sum_y: 0.0,
            sum_xx: 0.0,
            sum_yy: 0.0,
            sum_xy: 0.0,
        };
        Self {
            units_per_day,
            sums: [empty; 2],
            clicking: [0; 2],
        }
    }

    /// Sums of both arms.
    pub(crate) fn sums(&self) -> [RatioSums; 2] {
        self.sums
    }
}

impl Shop for ClickShop {
    fn advance(&mut self, from: f64, to: f64, sample: &mut Sample) {
        for arm in 0..2 {
            for _ in 0..arrivals(self.units_per_day, from, to) {
                let heavy = sample.uniform() < 0.3;
                let (impressions, taste) = if heavy { (15, 0.4) } else { (4, 0.05) };
                let seen = 1 + sample.binomial(2 * impressions, 0.5);
                let clicks = sample.binomial(seen, taste);
                let (x, y) = (seen as f64, clicks as f64);
                let sums = &mut self.sums[arm];
                sums.n += 1;
                sums.sum_x += x;
                sums.sum_y += y;
                sums.sum_xx += x * x;
                sums.sum_yy += y * y;
                sums.sum_xy += x * y;
                self.clicking[arm] += i64::from(clicks > 0);
            }
        }
    }

    fn strata(&self, _: usize) -> Vec<Stratum> {
        let arm = |arm: usize| {
            let summary = RatioSummary::from_sums(&self.sums[arm]).ok()?;
            ArmSummary::ratio(&summary, self.sums[arm].sum_x, self.clicking[arm]).ok()
        };
        let stratum = |(control, treatment)| Stratum {
            control,
            treatment,
            treatment_share: 0.5,
        };
        arm(0).zip(arm(1)).map(stratum).into_iter().collect()
    }
}

/// Purchases per user of customers who come back: every unit's total goes on growing.
pub(crate) struct ReturningShop {
    pub(crate) units_per_day: f64,
    totals: [Vec<u32>; 2],
}

impl ReturningShop {
    pub(crate) fn new(units_per_day: f64) -> Self {
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
