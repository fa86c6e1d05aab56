//! Evidence and intervals that hold at any moment, for reading. They decide nothing: "boundary or
//! e-value" would leak, and the boundary is sooner.

use super::evidence::{Contrasts, Counts, Stratum, required_conversions};
use super::lift::Believed;
use crate::analysis::SPLIT_CONCENTRATION;
use crate::metric::Metric;
use crate::stats::eprocess::{converters, multinomial};
use crate::stats::mixture::{effect_evidence, half_width, one_sided_width};
use crate::stats::{Interval, StatsError};

/// Standard deviation of the effects that the mixture expects, relative to the baseline.
pub const EXPECTED_EFFECT: f64 = 0.1;
/// Log risk ratios beyond this (a factor of a million) are not looked at.
const FARTHEST: f64 = 14.0;
/// Halvings of the search for a limit.
const STEPS: u32 = 100;
/// Evidence from which on the split is not the planned one.
const SPLIT_IS_OFF: f64 = 1e3;

/// By which method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The normal mixture on the stratified statistic.
    NormalMixture,
    /// The exact Bernoulli e-process on the arm of each converter, epochs multiplied.
    Bernoulli,
}

impl Method {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NormalMixture => "normal_mixture",
            Self::Bernoulli => "bernoulli",
        }
    }
}

/// What may be read at any moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anytime {
    /// Which method.
    pub method: Method,
    /// ln e against "no difference".
    pub ln_e_two_sided: f64,
    /// ln e against "the treatment's value is not higher".
    pub ln_e_higher: f64,
    /// ln e against "the treatment's value is not lower".
    pub ln_e_lower: f64,
    /// Two-sided confidence sequence of the lift, a fraction; a limit that the data do not give is
    /// infinite (above) or −1 (below).
    pub lift: Interval,
    /// Lower limit of the one-sided confidence sequence of the lift; by the Bernoulli process that of the two-sided one,
    /// which is lower and so holds as well.
    pub lift_at_least: f64,
}

impl Anytime {
    /// ln e against "the treatment is not better", for a metric of which less is better where it is a guardrail.
    #[must_use]
    pub const fn ln_e_better(&self, metric: Metric) -> f64 {
        if metric.is_guardrail() {
            self.ln_e_lower
        } else {
            self.ln_e_higher
        }
    }
}

/// Whose the split of the units is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Units were drawn with the planned shares.
    Ours,
    /// Somebody else decided who is in which variant, at least for some units: the planned shares say nothing about whose
    /// conversion comes next.
    Foreign,
}

/// As [`anytime_of`], of units that were drawn with the planned shares.
///
/// # Errors
/// As [`anytime_of`].
pub fn anytime(strata: &[Stratum], alpha: f64) -> Result<Anytime, StatsError> {
    anytime_of(strata, Split::Ours, alpha)
}

/// Anytime-valid evidence and intervals at level 1 − `alpha`. For a proportion with few conversions
/// or an unequal split by the exact Bernoulli e-process, else from the stratified statistic by the
/// normal mixture with τ = 10 % of the baseline.
///
/// The exact process supposes the planned shares. Where the split is foreign, or is visibly not the planned one, the
/// mixture stands in for it, if there are conversions enough for that.
///
/// # Errors
/// [`StatsError::InvalidInput`] for α outside (0, 1) or a share of traffic that is none;
/// [`StatsError::NonPositiveBaseline`] where there is no lift; [`StatsError::NotEnoughData`] for too few conversions of a
/// split that is not the planned one; what [`Contrasts::statistic`] answers.
pub fn anytime_of(strata: &[Stratum], split: Split, alpha: f64) -> Result<Anytime, StatsError> {
    let rates = !strata.is_empty() && strata.iter().all(Stratum::is_proportion);
    let counts = Counts::of(strata);
    if !rates || !wants_exact(&counts) {
        return normal_mixture(strata, alpha);
    }
    if split == Split::Ours && !is_off(strata)? {
        let exact = bernoulli(strata, alpha)?;
        // Epochs that contradict each other leave nothing to believe, and a split that is off moves the limits.
        if exact.is_some_and(|found| holds(&found, strata)) {
            return exact.ok_or(StatsError::NotEnoughData);
        }
    }
    if counts.least_conversions() < required_conversions(counts.came_out_unequal()) {
        return Err(StatsError::NotEnoughData);
    }
    normal_mixture(strata, alpha)
}

/// Whether the normal approximation is too coarse for these counts.
fn wants_exact(counts: &Counts) -> bool {
    counts.is_unequal || counts.least_conversions() < counts.required_conversions()
}

/// Whether the units of some epoch contradict its planned shares, at any moment.
fn is_off(strata: &[Stratum]) -> Result<bool, StatsError> {
    let mut ln_e = 0.0;
    for stratum in strata {
        let counts = [&stratum.control, &stratum.treatment].map(|arm| arm.units() as f64);
        let shares = [1.0 - stratum.treatment_share, stratum.treatment_share];
        ln_e += multinomial(&counts, &shares, SPLIT_CONCENTRATION)?.ln_e;
    }
    Ok(ln_e >= SPLIT_IS_OFF.ln())
}

/// Whether the band holds the lift that was observed.
fn holds(found: &Anytime, strata: &[Stratum]) -> bool {
    let observed = Contrasts::of(strata).ok().and_then(|c| c.ratio());
    observed.is_none_or(|ratio| (found.lift.lower..=found.lift.upper).contains(&(ratio - 1.0)))
}

/// τ of the mixture against a ratio: 10 % of what the larger of the two values would be. At the ratio 1 that is 10 % of
/// the baseline.
fn tau(baseline: f64, ratio: f64) -> f64 {
    EXPECTED_EFFECT * baseline * ratio.max(1.0)
}

/// The e-values are those of the stratified statistic; the band holds every lift whose own contrast does not reach 1/α.
fn normal_mixture(strata: &[Stratum], alpha: f64) -> Result<Anytime, StatsError> {
    let contrasts = Contrasts::of(strata)?;
    let statistic = contrasts.statistic()?;
    let baseline = statistic.baseline;
    if baseline <= 0.0 {
        return Err(StatsError::NonPositiveBaseline);
    }
    let evidence = effect_evidence(statistic.effect, statistic.se, tau(baseline, 1.0))?;
    // What cannot be judged is believed.
    let wide = |found: Result<f64, StatsError>| found.unwrap_or(f64::INFINITY);
    let two_sided = Believed::new(&contrasts, |ratio, se| {
        wide(half_width(se, tau(baseline, ratio), alpha))
    })?;
    let better = Believed::new(&contrasts, |ratio, se| {
        wide(one_sided_width(se, tau(baseline, ratio), alpha))
    })?;
    Ok(Anytime {
        method: Method::NormalMixture,
        ln_e_two_sided: evidence.two_sided,
        ln_e_higher: evidence.positive,
        ln_e_lower: evidence.negative,
        lift: Interval {
            lower: two_sided.lower(),
            upper: two_sided.upper(),
        },
        lift_at_least: better.lower(),
    })
}

/// The product over epochs of the Bernoulli e-processes, and its inversion; `None` where the epochs contradict each other
/// so much that no lift is left.
fn bernoulli(strata: &[Stratum], alpha: f64) -> Result<Option<Anytime>, StatsError> {
    let (mut two_sided, mut higher, mut lower) = (0.0, 0.0, 0.0);
    for stratum in strata {
        let share = stratum.treatment_share;
        let concentration = 1.0 / (EXPECTED_EFFECT * EXPECTED_EFFECT * share * (1.0 - share));
        let (x_a, x_b) = converts(stratum);
        let evidence = converters(x_a, x_b, share, concentration, alpha)?;
        two_sided += evidence.ln_e2;
        higher += evidence.ln_e1;
        lower += converters(x_b, x_a, 1.0 - share, concentration, alpha)?.ln_e1;
    }
    // Under the risk ratio e^s a converter is in the treatment with odds multiplied by e^s.
    let against = |s: f64| two_sided + strata.iter().map(|stratum| tilt(stratum, s)).sum::<f64>();
    let threshold = -alpha.ln();
    let likeliest = least_evidence(strata);
    if against(likeliest) >= threshold {
        return Ok(None);
    }
    let at_least = limit(&against, threshold, likeliest, -1.0);
    Ok(Some(Anytime {
        method: Method::Bernoulli,
        ln_e_two_sided: two_sided,
        ln_e_higher: higher,
        ln_e_lower: lower,
        lift: Interval {
            lower: at_least,
            upper: limit(&against, threshold, likeliest, 1.0),
        },
        lift_at_least: at_least,
    }))
}

fn converts(stratum: &Stratum) -> (f64, f64) {
    let count = |conversions: i64| conversions as f64;
    (
        count(stratum.control.conversions()),
        count(stratum.treatment.conversions()),
    )
}

/// What ln e changes when the log risk ratio 0 is replaced by `s`: n ln(1 − p + p e^s) − x_b s.
fn tilt(stratum: &Stratum, s: f64) -> f64 {
    let (x_a, x_b) = converts(stratum);
    let share = stratum.treatment_share;
    (x_a + x_b) * (share * s.exp_m1()).ln_1p() - x_b * s
}

/// The lift beyond which, in the direction of `sign`, the evidence reaches the threshold. ln e is
/// convex in the log risk ratio, and least at the observed one.
fn limit(against: &impl Fn(f64) -> f64, threshold: f64, likeliest: f64, sign: f64) -> f64 {
    let unbounded = if sign > 0.0 { f64::INFINITY } else { -1.0 };
    let mut inside = likeliest;
    let mut outside = sign * FARTHEST;
    if against(outside) < threshold {
        return unbounded;
    }
    for _ in 0..STEPS {
        let middle = 0.5 * (inside + outside);
        if against(middle) < threshold {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    outside.exp_m1()
}

/// The log risk ratio at which ln e is least: the root of its derivative, which rises.
fn least_evidence(strata: &[Stratum]) -> f64 {
    let slope = |s: f64| {
        let terms = strata.iter().map(|stratum| {
            let (x_a, x_b) = converts(stratum);
            let share = stratum.treatment_share;
            let tilted = share * s.exp();
            (x_a + x_b) * (tilted / (1.0 - share + tilted)) - x_b
        });
        terms.sum::<f64>()
    };
    let (mut low, mut high) = (-FARTHEST, FARTHEST);
    for _ in 0..STEPS {
        let middle = 0.5 * (low + high);
        if slope(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}
