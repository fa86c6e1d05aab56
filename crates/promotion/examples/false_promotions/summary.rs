//! What many experiments come to, as one JSON object and as a table for people.

use serde::Serialize;

use crate::cell::{Cell, Gates};
use crate::experiment::Outcome;
use crate::options::name;

/// Shares of runs are fractions; standard errors are those of the simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    #[serde(flatten)]
    pub(crate) cell: Cell,
    pub(crate) min_confidence: f64,
    pub(crate) min_improvement: f64,
    pub(crate) min_sample_size: i64,
    pub(crate) min_runtime_hours: f64,
    pub(crate) runs: u32,
    pub(crate) seed: u64,
    /// One-sided, over all treatments.
    pub(crate) alpha: f64,
    /// Share of runs in which the engine's decision promotes.
    pub(crate) rate: f64,
    pub(crate) se: f64,
    /// alpha and three standard errors of it; `null` where some treatment is better.
    pub(crate) limit: Option<f64>,
    /// Whether `rate` is at most `limit`.
    pub(crate) kept: Option<bool>,
    /// Share of runs that reach the confidence asked for at some look, whatever the other gates say.
    pub(crate) confident_rate: f64,
    /// Share of runs that a one-sided fixed-horizon test at the same confidence promotes at some look.
    pub(crate) fixed_horizon_rate: f64,
    pub(crate) fixed_horizon_se: f64,
    /// The same with a two-sided test, the treatment ahead.
    pub(crate) fixed_horizon_two_sided_rate: f64,
    /// Look by which half of all runs were promoted; `null` where fewer ever are.
    pub(crate) median_look: Option<u32>,
    pub(crate) median_hours: Option<u32>,
    /// Median among the runs that were promoted.
    pub(crate) median_look_of_promoted: Option<u32>,
    /// Share of runs in which the better treatment is promoted; `null` where there is none.
    pub(crate) power: Option<f64>,
    pub(crate) power_se: Option<f64>,
    /// Share of runs that were promoted by each look.
    pub(crate) rate_by_look: Vec<f64>,
    /// The same by the one-sided fixed-horizon test.
    pub(crate) fixed_horizon_rate_by_look: Vec<f64>,
}

impl Summary {
    pub(crate) fn new(cell: &Cell, seed: u64, outcomes: &[Outcome]) -> Self {
        let runs = u32::try_from(outcomes.len()).unwrap_or(u32::MAX);
        let share = |hits: usize| hits as f64 / f64::from(runs);
        let shared = |of: fn(&Outcome) -> Option<u32>| {
            share(
                outcomes
                    .iter()
                    .filter(|outcome| of(outcome).is_some())
                    .count(),
            )
        };
        let thresholds = cell.config().thresholds;
        let alpha = 1.0 - thresholds.min_confidence / 100.0;
        let rate = shared(|outcome| outcome.promoted);
        let fixed_horizon_rate = shared(|outcome| outcome.fixed);
        let limit = (cell.lift <= 0.0).then(|| alpha + 3.0 * standard_error(alpha, runs));
        let first = share(outcomes.iter().filter(|o| o.promoted_first).count());
        let power = (cell.lift > 0.0).then_some(first);
        let mut promoted: Vec<u32> = outcomes.iter().filter_map(|o| o.promoted).collect();
        promoted.sort_unstable();
        let median_look = promoted.get(outcomes.len().saturating_sub(1) / 2).copied();
        Self {
            cell: cell.clone(),
            min_confidence: thresholds.min_confidence,
            min_improvement: thresholds.min_improvement,
            min_sample_size: thresholds.min_sample_size,
            min_runtime_hours: thresholds.min_runtime_hours,
            runs,
            seed,
            alpha,
            rate,
            se: standard_error(rate, runs),
            limit,
            kept: limit.map(|limit| rate <= limit),
            confident_rate: shared(|outcome| outcome.confident),
            fixed_horizon_rate,
            fixed_horizon_se: standard_error(fixed_horizon_rate, runs),
            fixed_horizon_two_sided_rate: shared(|outcome| outcome.fixed_two_sided),
            median_look,
            median_hours: median_look.map(|look| look * cell.hours_per_look),
            median_look_of_promoted: promoted.get(promoted.len().saturating_sub(1) / 2).copied(),
            power,
            power_se: power.map(|power| standard_error(power, runs)),
            rate_by_look: by_look(cell.looks, outcomes, |outcome| outcome.promoted),
            fixed_horizon_rate_by_look: by_look(cell.looks, outcomes, |outcome| outcome.fixed),
        }
    }

    /// A table for people.
    pub(crate) fn text(&self) -> String {
        let share =
            |share: f64, error: f64| format!("{:6.2} % ± {:.2}", 100.0 * share, 100.0 * error);
        let of_runs =
            |share_of_runs| share(share_of_runs, standard_error(share_of_runs, self.runs));
        let mut rows = vec![
            ("experiments", self.runs.to_string()),
            ("promoted", share(self.rate, self.se)),
        ];
        if let (Some(limit), Some(kept)) = (self.limit, self.kept) {
            let word = if kept { "kept" } else { "BROKEN" };
            let promise = format!(
                "at most {:.0} %, {word} (limit for so many runs {:.2} %)",
                100.0 * self.alpha,
                100.0 * limit
            );
            rows.push(("promised", promise));
        }
        rows.push(("confidence reached", of_runs(self.confident_rate)));
        rows.push(("fixed test, one side", of_runs(self.fixed_horizon_rate)));
        rows.push((
            "fixed test, two sides",
            of_runs(self.fixed_horizon_two_sided_rate),
        ));
        if let Some(power) = self.power {
            rows.push(("power", of_runs(power)));
        }
        rows.push(("median look", self.median()));
        for quarter in 1..=3 {
            let look = self.rate_by_look.len() * quarter / 4;
            if look > 0 {
                let rate = 100.0 * self.rate_by(look);
                rows.push(("", format!("{rate:6.2} % promoted by look {look}")));
            }
        }
        let lines = rows
            .iter()
            .map(|(what, value)| format!("  {what:<22} {value}\n"));
        format!("{}\n{}", self.title(), lines.collect::<String>())
    }

    fn median(&self) -> String {
        match (self.median_look, self.median_look_of_promoted) {
            (Some(look), _) => format!("{look} ({} h)", look * self.cell.hours_per_look),
            (None, Some(look)) => format!("{look} of those promoted, which are fewer than half"),
            (None, None) => "none was promoted".to_owned(),
        }
    }

    fn title(&self) -> String {
        let cell = &self.cell;
        let gates = match cell.gates {
            Gates::On => "",
            Gates::Off => ", gates off",
        };
        format!(
            "{}, {} of {:.4} and a lift of {:.2} %, {} variants, {} looks every {} h with {} units a variant{gates}",
            name(&cell.preset),
            name(&cell.metric),
            cell.baseline,
            100.0 * cell.lift,
            cell.variants,
            cell.looks,
            cell.hours_per_look,
            cell.units_per_look,
        )
    }

    /// The share that was promoted by a look; by the last one if there are fewer.
    pub(crate) fn rate_by(&self, look: usize) -> f64 {
        let rates = &self.rate_by_look;
        let rate = rates.get(look.saturating_sub(1)).or_else(|| rates.last());
        rate.copied().unwrap_or_default()
    }
}

/// The Monte-Carlo error of a share of runs.
pub(crate) fn standard_error(share: f64, runs: u32) -> f64 {
    (share * (1.0 - share) / f64::from(runs)).sqrt()
}

fn by_look(looks: u32, outcomes: &[Outcome], of: fn(&Outcome) -> Option<u32>) -> Vec<f64> {
    let mut at = vec![0_u32; looks as usize];
    for look in outcomes.iter().filter_map(of) {
        if let Some(count) = at.get_mut(look as usize - 1) {
            *count += 1;
        }
    }
    let mut sum = 0;
    let shares = at.iter().map(|count| {
        sum += count;
        f64::from(sum) / outcomes.len() as f64
    });
    shares.collect()
}
