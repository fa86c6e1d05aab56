//! Clicks per impression.

use podium_domain::decision::evidence::{ArmSummary, Stratum};
use podium_domain::stats::ratio::{RatioSummary, RatioSums};
use podium_domain::stats::special::ln_gamma;

use super::{Shop, arrivals};
use crate::Sample;

/// Shoppers of a kind: their share, impressions of each, and how often they click relative to the baseline. Averaged over
/// impressions the last is 1, so that the ratio over all shoppers is the baseline.
struct Kind {
    share: f64,
    impressions: u32,
    taste: f64,
}

const KINDS: [Kind; 4] = {
    const fn kind(share: f64, impressions: u32, taste: f64) -> Kind {
        Kind {
            share,
            impressions,
            taste,
        }
    }
    [
        kind(0.5, 1, 0.5),
        kind(0.3, 4, 0.6),
        kind(0.15, 12, 1.0),
        kind(0.05, 12, 1.33 / 0.6),
    ]
};

/// What is clicked in an experiment.
#[derive(Clone, Debug)]
pub struct Clicks {
    /// Units a day, one number an arm, the control first.
    pub units_per_day: Vec<f64>,
    /// Clicks per impression of the control.
    pub baseline: f64,
    /// Relative lifts of the treatments.
    pub lifts: Vec<f64>,
}

impl Clicks {
    /// The largest ratio at which no kind of shopper would click more often than always.
    pub const LARGEST_RATIO: f64 = 0.6 / 1.33;
}

/// Clicks per impression, clustered: few shoppers see much, and some of those click often.
///
/// Sums are drawn for all units of a kind at once, exactly: how many of them click how often.
#[derive(Clone, Debug)]
pub struct ClickShop {
    clicks: Clicks,
    /// For each arm and kind: of the units with at least k clicks, the part that has exactly k.
    chances: Vec<[Vec<f64>; KINDS.len()]>,
    sums: Vec<RatioSums>,
    clicking: Vec<i64>,
}

impl ClickShop {
    /// Before the first unit. Ratios above [`Clicks::LARGEST_RATIO`] count as that.
    #[must_use]
    pub fn new(clicks: Clicks) -> Self {
        let lifts = std::iter::once(0.0).chain(clicks.lifts.iter().copied());
        let ratios = lifts.map(|lift| clicks.baseline * (1.0 + lift));
        let chances: Vec<_> = ratios
            .map(|ratio| KINDS.each_ref().map(|kind| chances(kind, ratio)))
            .collect();
        let empty = RatioSums {
            n: 0,
            sum_x: 0.0,
            sum_y: 0.0,
            sum_xx: 0.0,
            sum_yy: 0.0,
            sum_xy: 0.0,
        };
        Self {
            sums: vec![empty; chances.len()],
            clicking: vec![0; chances.len()],
            chances,
            clicks,
        }
    }

    /// Sums of all arms, the control first.
    #[must_use]
    pub fn sums(&self) -> &[RatioSums] {
        &self.sums
    }

    fn add(&mut self, arm: usize, impressions: u32, clicks: usize, units: i64) {
        let (x, y, count) = (f64::from(impressions), clicks as f64, units as f64);
        let sums = &mut self.sums[arm];
        sums.n += units;
        sums.sum_x += count * x;
        sums.sum_y += count * y;
        sums.sum_xx += count * x * x;
        sums.sum_yy += count * y * y;
        sums.sum_xy += count * x * y;
        if clicks > 0 {
            self.clicking[arm] += units;
        }
    }
}

/// P(Y = k | Y ≥ k) for each k, Y the clicks of one unit.
fn chances(kind: &Kind, ratio: f64) -> Vec<f64> {
    let (n, p) = (f64::from(kind.impressions), (ratio * kind.taste).min(1.0));
    let ln_choose = |k: f64| ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    let mut left = 1.0;
    let chances = (0..=kind.impressions).map(|k| {
        let k = f64::from(k);
        let probability = ln_choose(k).exp() * p.powf(k) * (1.0 - p).powf(n - k);
        let chance = if k < n {
            (probability / left).clamp(0.0, 1.0)
        } else {
            1.0
        };
        left = f64::max(left - probability, f64::MIN_POSITIVE);
        chance
    });
    chances.collect()
}

impl Shop for ClickShop {
    fn advance(&mut self, from: f64, to: f64, sample: &mut Sample) {
        for arm in 0..self.chances.len() {
            let mut arrived = arrivals(self.clicks.units_per_day[arm], from, to);
            let mut share_left = 1.0;
            for (index, kind) in KINDS.iter().enumerate() {
                let last = index + 1 == KINDS.len();
                let part = if last { 1.0 } else { kind.share / share_left };
                let mut units = sample.binomial(arrived, part);
                arrived -= units;
                share_left -= kind.share;
                for clicks in 0..self.chances[arm][index].len() {
                    let exactly = sample.binomial(units, self.chances[arm][index][clicks]);
                    units -= exactly;
                    self.add(arm, kind.impressions, clicks, exactly);
                }
            }
        }
    }

    fn strata(&self, index: usize) -> Vec<Stratum> {
        let arm = |arm: usize| {
            let summary = RatioSummary::from_sums(&self.sums[arm]).ok()?;
            ArmSummary::ratio(&summary, self.sums[arm].sum_x, self.clicking[arm]).ok()
        };
        let traffic = &self.clicks.units_per_day;
        let stratum = |(control, treatment)| Stratum {
            control,
            treatment,
            treatment_share: traffic[index + 1] / (traffic[0] + traffic[index + 1]),
        };
        arm(0)
            .zip(arm(index + 1))
            .map(stratum)
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_over_all_shoppers_is_the_baseline_and_its_lift() {
        let mut shop = ClickShop::new(Clicks {
            units_per_day: vec![1e6, 1e6],
            baseline: 0.2,
            lifts: vec![0.1],
        });
        shop.advance(0.0, 24.0, &mut Sample::new(3));
        for (sums, ratio) in shop.sums().iter().zip([0.2, 0.22]) {
            assert_eq!(sums.n, 1_000_000);
            let found =
                RatioSummary::from_sums(sums).map(|summary| (summary.ratio(), summary.se2()));
            let (value, se2) = found.unwrap_or((f64::NAN, f64::NAN));
            assert!(
                (value - ratio).abs() < 4.0 * se2.sqrt(),
                "{value} of {ratio}"
            );
            // Clustered: impressions of one shopper are alike.
            assert!(se2 > 1.3 * ratio * (1.0 - ratio) / sums.sum_x, "{se2}");
        }
    }
}
