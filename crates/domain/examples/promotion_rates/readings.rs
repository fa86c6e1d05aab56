//! Cells of what is read rather than decided: intervals, the split, what happens to people who
//! peek, the effect at promotion.

use podium_domain::stats::eprocess::multinomial;
use podium_domain::stats::proportion::{Proportion, two_proportions};
use podium_domain::stats::srm::chi_square;
use podium_simulation::Sample;
use podium_simulation::shop::{Market, RateShop};

use crate::cells::Row;
use crate::coverage;
use crate::engine::{Plan, run};
use crate::options::{Options, percent, standard_error};

/// Concentration of the split's e-process, that of reports.
const CONCENTRATION: f64 = 400.0;
/// Standard deviation of true lifts, and of the prior that shrinks.
const TRUE_SPREAD: f64 = 0.05;

/// What is promised of a share of runs.
#[derive(Clone, Copy)]
enum Promise {
    AtMost(f64),
    Between(f64, f64),
    /// What goes wrong when a figure for one look is looked at again and again.
    Errs(f64),
}

struct Reading {
    name: &'static str,
    what: &'static str,
    promise: Promise,
    hit: fn(&mut Sample) -> bool,
}

/// A 95 % interval at one look. Half a point is left to what is asymptotic and to what is discrete.
const COVERS: Promise = Promise::Between(0.945, 0.955);
const MISSES: Promise = Promise::AtMost(0.05);

const READINGS: [Reading; 28] = {
    const fn reading(
        name: &'static str,
        what: &'static str,
        promise: Promise,
        hit: fn(&mut Sample) -> bool,
    ) -> Reading {
        Reading {
            name,
            what,
            promise,
            hit,
        }
    }
    use coverage as c;
    [
        reading(
            "coverage-rate",
            "interval of a rate covers",
            COVERS,
            c::of_a_rate,
        ),
        reading(
            "coverage-difference",
            "interval of a difference of rates covers",
            COVERS,
            c::of_a_difference,
        ),
        reading(
            "coverage-lift",
            "interval of a lift (log ratio) covers",
            COVERS,
            c::of_a_lift,
        ),
        reading(
            "coverage-lift-few",
            "the same of 25 and 30 conversions at 0.5 %",
            Promise::Between(0.94, 0.97),
            c::of_a_lift_of_few,
        ),
        reading(
            "coverage-lift-none",
            "the same where the treatment has 2 conversions of 200 on average, often none",
            Promise::Between(0.94, 0.98),
            c::of_a_lift_of_none,
        ),
        reading(
            "coverage-lift-90-10",
            "the same at 90/10",
            COVERS,
            c::of_a_lift_unequal,
        ),
        reading(
            "coverage-lift-stratified",
            "the same over two epochs (score test)",
            COVERS,
            c::of_a_stratified_lift,
        ),
        reading(
            "coverage-lift-fieller",
            "the same by Fieller",
            COVERS,
            c::of_a_lift_by_fieller,
        ),
        reading(
            "coverage-mean",
            "interval of a difference of skewed means covers",
            COVERS,
            c::of_means,
        ),
        reading(
            "coverage-ratio",
            "interval of a difference of clustered ratios covers",
            COVERS,
            c::of_ratios,
        ),
        reading(
            "coverage-adjusted",
            "interval after adjustment for a covariate covers",
            COVERS,
            c::of_adjusted_means,
        ),
        reading(
            "coverage-quantile",
            "interval of a 95 % quantile covers",
            Promise::Between(0.945, 0.975),
            c::of_a_quantile,
        ),
        reading(
            "coverage-credible",
            "credible interval of a lift covers",
            COVERS,
            c::of_a_credible_lift,
        ),
        reading(
            "anytime-rates",
            "the band misses the lift at some of 30 looks",
            MISSES,
            c::missed_at_any_moment,
        ),
        reading(
            "anytime-plus-50",
            "the same at +50 %",
            MISSES,
            c::missed_large,
        ),
        reading(
            "anytime-plus-100",
            "the same at +100 %",
            MISSES,
            c::missed_doubled,
        ),
        reading(
            "anytime-plus-200",
            "the same at +200 %",
            MISSES,
            c::missed_tripled,
        ),
        reading(
            "anytime-minus-50",
            "the same at −50 %",
            MISSES,
            c::missed_halved,
        ),
        reading(
            "anytime-half-percent",
            "the same at +50 % on a baseline of 0.5 %",
            MISSES,
            c::missed_of_a_small_rate,
        ),
        reading(
            "anytime-rates-90-10",
            "the same at 90/10 (exact process)",
            MISSES,
            c::missed_at_any_moment_unequal,
        ),
        reading(
            "anytime-plus-50-90-10",
            "the same at +50 % and 90/10",
            MISSES,
            c::missed_large_unequal,
        ),
        reading(
            "anytime-change",
            "the same while weights change and a sale begins",
            MISSES,
            c::missed_over_a_change,
        ),
        reading(
            "anytime-revenue",
            "the same of skewed revenue",
            MISSES,
            c::missed_of_a_mean,
        ),
        reading(
            "split-even",
            "e-process p < 0.001 at some of 720 hourly looks",
            Promise::AtMost(0.001),
            even_split_alarms,
        ),
        reading(
            "split-even-chi-square",
            "chi-square p < 0.001 at some of them",
            Promise::Errs(0.01),
            chi_square_alarms,
        ),
        reading(
            "split-off",
            "52/48 instead of 50/50 is found within 30 days",
            Promise::Between(0.99, 1.0),
            uneven_split_alarms,
        ),
        reading(
            "peek-two-sided",
            "fixed p < 0.05, treatment ahead, at some of 30 daily looks",
            Promise::Errs(0.1),
            two_sided_peeker,
        ),
        reading(
            "peek-one-sided",
            "fixed one-sided p < 0.05 at some of them",
            Promise::Errs(0.2),
            one_sided_peeker,
        ),
    ]
};

const CURSE: &str = "winners-curse";

pub(crate) fn names() -> impl Iterator<Item = String> {
    let names = READINGS.iter().map(|reading| reading.name);
    names.chain([CURSE]).map(str::to_owned)
}

/// Simulates what was asked for, one by one.
pub(crate) fn rows(options: &Options) -> impl Iterator<Item = Row> {
    let readings = READINGS
        .iter()
        .filter(|reading| options.wants(reading.name))
        .map(|reading| row(reading, options));
    let curse = options.wants(CURSE).then(|| winners_curse(options));
    readings.chain(curse)
}

fn row(reading: &Reading, options: &Options) -> Row {
    let runs = options.runs;
    let hits = options
        .seeds()
        .filter(|seed| (reading.hit)(&mut Sample::new(*seed)))
        .count();
    let (promise, kept) = judge(reading.promise, hits as f64 / f64::from(runs), runs);
    let Reading { name, what, .. } = reading;
    let kept_word = if kept { "yes" } else { "**no**" };
    let share = percent(hits, runs);
    Row {
        text: format!("| {name} | {runs} | {what} | {share} | {promise} | {kept_word} |"),
        kept,
    }
}

/// Within three standard errors.
fn judge(promise: Promise, share: f64, runs: u32) -> (String, bool) {
    let error = |rate: f64| 3.0 * standard_error(rate, runs);
    match promise {
        Promise::AtMost(most) => (
            format!("at most {} %", 100.0 * most),
            share <= most + error(most),
        ),
        Promise::Between(least, most) => (
            format!("{:.1} % to {:.1} %", 100.0 * least, 100.0 * most),
            share >= least - error(least) && share <= most + error(most),
        ),
        Promise::Errs(least) => (
            format!("above {} %", 100.0 * least),
            share >= least - error(least),
        ),
    }
}

/// Whether 720 hourly looks at 60 units an hour ever call the split off.
fn alarms(share: f64, sample: &mut Sample, off: impl Fn(&[f64; 2]) -> bool) -> bool {
    let mut counts = [0.0; 2];
    (0..720).any(|_| {
        let treated = sample.binomial(60, share) as f64;
        counts[0] += 60.0 - treated;
        counts[1] += treated;
        off(&counts)
    })
}

fn by_e_process(counts: &[f64; 2]) -> bool {
    multinomial(counts, &[1.0, 1.0], CONCENTRATION).is_ok_and(|evidence| evidence.p < 0.001)
}

fn even_split_alarms(sample: &mut Sample) -> bool {
    alarms(0.5, sample, by_e_process)
}

fn uneven_split_alarms(sample: &mut Sample) -> bool {
    alarms(0.52, sample, by_e_process)
}

fn chi_square_alarms(sample: &mut Sample) -> bool {
    alarms(0.5, sample, |counts| {
        chi_square(counts, &[1.0, 1.0], 0.001).is_ok_and(|test| test.mismatch)
    })
}

/// Whether a fixed-horizon test of equal arms ever convinces who looks each day.
fn peeks(sample: &mut Sample, z: f64) -> bool {
    let mut counts = [0; 2];
    (1..=30_i64).any(|day| {
        for count in &mut counts {
            *count += sample.binomial(2_000, 0.1);
        }
        let arm = |count| Proportion::new(count, 2_000 * day);
        let test = arm(counts[0]).and_then(|a| two_proportions(a, arm(counts[1])?, 0.95));
        test.is_ok_and(|test| test.pooled.z > z)
    })
}

fn two_sided_peeker(sample: &mut Sample) -> bool {
    peeks(sample, 1.959_963_984_540_054)
}

fn one_sided_peeker(sample: &mut Sample) -> bool {
    peeks(sample, 1.644_853_626_951_472_7)
}

/// Errors of an estimate, one promotion each.
#[derive(Default)]
struct Errors {
    sum: f64,
    squares: f64,
}

impl Errors {
    fn add(&mut self, error: f64) {
        self.sum += error;
        self.squares += error * error;
    }

    /// Mean and its standard error, in points.
    fn mean(&self, count: f64) -> (f64, f64) {
        let mean = self.sum / count;
        let variance = self.squares / count - mean * mean;
        (100.0 * mean, 100.0 * (variance / count).sqrt())
    }
}

/// The effect at promotion against the truth, raw and shrunk, when true lifts are normal. Kept if
/// the raw lift is off by more than luck allows, and the shrunk one is not.
fn winners_curse(options: &Options) -> Row {
    let (mut raw, mut shrunk) = (Errors::default(), Errors::default());
    let (mut truth, mut promoted) = (0.0, 0);
    for seed in options.seeds() {
        let mut sample = Sample::new(seed);
        let lift = TRUE_SPREAD * sample.normal();
        let mut shop = RateShop::new(Market::even(0.1, &[lift], 2_000.0));
        let Some(promotion) = run(&Plan::daily(30.0), &mut shop, &mut sample) else {
            continue;
        };
        let Some(seen) = promotion.statistic.lift else {
            continue;
        };
        let se = promotion.statistic.se / promotion.statistic.baseline;
        let belief = TRUE_SPREAD * TRUE_SPREAD / (TRUE_SPREAD * TRUE_SPREAD + se * se);
        promoted += 1;
        truth += lift;
        raw.add(seen - lift);
        shrunk.add(belief * seen - lift);
    }
    let count = f64::from(promoted);
    let (raw, raw_error) = raw.mean(count);
    let (shrunk, shrunk_error) = shrunk.mean(count);
    let kept = raw > 3.0 * raw_error && shrunk.abs() <= 3.0 * shrunk_error + 0.2;
    Row {
        text: format!(
            "| {CURSE} | {} | {promoted} promoted, true lift {:.2} %; the lift seen is off by {raw:+.2} ± {raw_error:.2} \
             points, the shrunk one by {shrunk:+.2} ± {shrunk_error:.2} | — | raw too high, shrunk right | {} |",
            options.runs,
            100.0 * truth / count,
            if kept { "yes" } else { "**no**" }
        ),
        kept,
    }
}
