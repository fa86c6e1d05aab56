//! Evidence and intervals that hold at any moment, for reading. They decide nothing: "boundary or
//! e-value" would leak, and the boundary is sooner.

use super::evidence::{Counts, Stratified, Stratum, stratified};
use crate::stats::eprocess::converters;
use crate::stats::mixture::effect_scale;
use crate::stats::{Interval, StatsError};

/// Standard deviation of the effects that the mixture expects, relative to the baseline.
pub const EXPECTED_EFFECT: f64 = 0.1;
/// Log risk ratios beyond this (a factor of a million) are not looked at.
const FARTHEST: f64 = 14.0;
/// Halvings of the search for a limit.
const STEPS: u32 = 100;

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
    /// ln e against "the treatment is not better".
    pub ln_e_better: f64,
    /// Two-sided confidence sequence of the lift, a fraction; a limit that the data do not give is
    /// infinite (above) or −1 (below).
    pub lift: Interval,
    /// Lower limit of the one-sided confidence sequence of the lift; by the Bernoulli process that of the two-sided one,
    /// which is lower and so holds as well.
    pub lift_at_least: f64,
}

/// Anytime-valid evidence and intervals at level 1 − `alpha`. For a proportion with few conversions
/// or an unequal split by the exact Bernoulli e-process, else from the stratified statistic by the
/// normal mixture with τ = 10 % of the baseline.
///
/// # Errors
/// [`StatsError::InvalidInput`] for α outside (0, 1) or a share of traffic that is none;
/// [`StatsError::NonPositiveBaseline`] where there is no lift; what [`stratified`] answers.
pub fn anytime(strata: &[Stratum], alpha: f64) -> Result<Anytime, StatsError> {
    let rates = !strata.is_empty() && strata.iter().all(Stratum::is_proportion);
    if rates && wants_exact(&Counts::of(strata)) {
        bernoulli(strata, alpha)
    } else {
        normal_mixture(&stratified(strata)?, alpha)
    }
}

/// Whether the normal approximation is too coarse for these counts.
fn wants_exact(counts: &Counts) -> bool {
    counts.is_unequal() || counts.least_conversions() < counts.required_conversions()
}

fn normal_mixture(statistic: &Stratified, alpha: f64) -> Result<Anytime, StatsError> {
    let baseline = statistic.baseline;
    if baseline <= 0.0 {
        return Err(StatsError::NonPositiveBaseline);
    }
    let tau = EXPECTED_EFFECT * baseline;
    let mixture = effect_scale(statistic.effect, statistic.se, tau, alpha)?;
    Ok(Anytime {
        method: Method::NormalMixture,
        ln_e_two_sided: mixture.ln_e2,
        ln_e_better: mixture.ln_e1,
        lift: Interval {
            lower: mixture.two_sided.lower / baseline,
            upper: mixture.two_sided.upper / baseline,
        },
        lift_at_least: mixture.one_sided_lower / baseline,
    })
}

/// The product over epochs of the Bernoulli e-processes, and its inversion.
fn bernoulli(strata: &[Stratum], alpha: f64) -> Result<Anytime, StatsError> {
    let (mut two_sided, mut better) = (0.0, 0.0);
    for stratum in strata {
        let share = stratum.treatment_share;
        let concentration = 1.0 / (EXPECTED_EFFECT * EXPECTED_EFFECT * share * (1.0 - share));
        let (x_a, x_b) = converts(stratum);
        let evidence = converters(x_a, x_b, share, concentration, alpha)?;
        two_sided += evidence.ln_e2;
        better += evidence.ln_e1;
    }
    // Under the risk ratio e^s a converter is in the treatment with odds multiplied by e^s.
    let against = |s: f64| two_sided + strata.iter().map(|stratum| tilt(stratum, s)).sum::<f64>();
    let threshold = -alpha.ln();
    let lower = limit(&against, threshold, strata, -1.0);
    Ok(Anytime {
        method: Method::Bernoulli,
        ln_e_two_sided: two_sided,
        ln_e_better: better,
        lift: Interval {
            lower,
            upper: limit(&against, threshold, strata, 1.0),
        },
        lift_at_least: lower,
    })
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
fn limit(against: &impl Fn(f64) -> f64, threshold: f64, strata: &[Stratum], sign: f64) -> f64 {
    let unbounded = if sign > 0.0 { f64::INFINITY } else { -1.0 };
    let mut inside = least_evidence(strata);
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
