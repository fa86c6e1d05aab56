//! A conversion rate.

use podium_domain::decision::evidence::{ArmSummary, Stratum};
use podium_domain::stats::proportion::Proportion;

use super::{HOURS_PER_DAY, Shop, arrivals};
use crate::Sample;

/// Units, conversions, and units that will convert but have not yet.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    units: i64,
    conversions: i64,
    pending: i64,
}

/// A conversion rate, with whatever makes it hard.
#[derive(Clone, Debug)]
pub struct Market {
    /// Units a day for each arm and stretch of constant weights: (day from which on, units).
    pub traffic: Vec<(f64, Vec<f64>)>,
    /// The control's rate.
    pub baseline: f64,
    /// Relative lifts of the treatments.
    pub lifts: Vec<f64>,
    /// Half the relative swing of the rate between weekend and weekday.
    pub weekday: f64,
    /// Day from which on all rates are half as high again.
    pub sale_from: f64,
    /// Mean days between arrival and conversion.
    pub delay_days: Option<f64>,
    /// Chance of a unit that has not converted to come back and do it, per day.
    pub return_rate: f64,
}

impl Market {
    /// Nothing hard: the same units a day in each arm, the same rate at all times.
    #[must_use]
    pub fn even(baseline: f64, lifts: &[f64], units_per_day: f64) -> Self {
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
#[derive(Clone, Debug)]
pub struct RateShop {
    market: Market,
    epochs: Vec<Vec<Rates>>,
}

impl RateShop {
    /// Before the first unit.
    #[must_use]
    pub fn new(market: Market) -> Self {
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
