//! Revenue per user.

use podium_domain::decision::evidence::{ArmSummary, Stratum};
use podium_domain::stats::mean::MeanSummary;

use super::{Shop, arrivals};
use crate::Sample;

/// Logarithm of the median basket.
const LN_BASKET: f64 = 3.0;

/// When the cap on a unit's total is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Once, before the first look.
    Frozen,
    /// Before each look.
    Anew,
}

/// What is bought in an experiment.
#[derive(Clone, Debug)]
pub struct Revenue {
    /// Units a day, one number an arm, the control first.
    pub units_per_day: Vec<f64>,
    /// Share of the control's units that buy.
    pub buyers: f64,
    /// Relative lifts of the treatments in the share of buyers; baskets are alike.
    pub lifts: Vec<f64>,
    /// Standard deviation of the logarithm of a basket.
    pub sigma: f64,
    /// When the cap is found.
    pub cap: Cap,
}

impl Revenue {
    /// Two equal arms, 5 % buyers, σ = 1.5, a frozen cap.
    #[must_use]
    pub fn skewed(units_per_day: [f64; 2]) -> Self {
        Self {
            units_per_day: units_per_day.to_vec(),
            buyers: 0.05,
            lifts: vec![0.0],
            sigma: 1.5,
            cap: Cap::Frozen,
        }
    }
}

/// Few buyers with log-normal baskets, one each, capped at the pooled 99 % quantile of units, but never below the median
/// basket.
#[derive(Clone, Debug)]
pub struct RevenueShop {
    revenue: Revenue,
    units: Vec<i64>,
    baskets: Vec<Vec<f64>>,
    cap: Option<f64>,
}

impl RevenueShop {
    /// Before the first unit.
    #[must_use]
    pub fn new(revenue: Revenue) -> Self {
        let arms = revenue.lifts.len() + 1;
        Self {
            units: vec![0; arms],
            baskets: vec![Vec::new(); arms],
            cap: None,
            revenue,
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
        for arm in 0..self.units.len() {
            let lift = if arm == 0 {
                0.0
            } else {
                self.revenue.lifts[arm - 1]
            };
            let arrived = arrivals(self.revenue.units_per_day[arm], from, to);
            self.units[arm] += arrived;
            for _ in 0..sample.binomial(arrived, self.revenue.buyers * (1.0 + lift)) {
                let basket = (LN_BASKET + self.revenue.sigma * sample.normal()).exp();
                self.baskets[arm].push(basket);
            }
        }
    }

    fn strata(&self, index: usize) -> Vec<Stratum> {
        let traffic = &self.revenue.units_per_day;
        let (a, b) = (traffic[0], traffic[index + 1]);
        let stratum = |(control, treatment)| Stratum {
            control,
            treatment,
            treatment_share: b / (a + b),
        };
        self.arm(0)
            .zip(self.arm(index + 1))
            .map(stratum)
            .into_iter()
            .collect()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among the units"
    )]
    fn before_look(&mut self) {
        let mut values = self.baskets.concat();
        let frozen = self.cap.is_some() && self.revenue.cap == Cap::Frozen;
        if frozen || values.is_empty() {
            return;
        }
        let all = self.units.iter().sum::<i64>() as f64;
        let zeros = all - values.len() as f64;
        let from_top = (all - 1.0) * 0.99 - zeros;
        let median = values.len() / 2;
        let rank = median.max(from_top.max(0.0) as usize).min(values.len() - 1);
        let (_, cap, _) = values.select_nth_unstable_by(rank, f64::total_cmp);
        self.cap = Some(*cap);
    }
}
