//! Arms as policies read them: evidence, with everything cached that a choice needs.

use rand::Rng;

use crate::counts::{Counts, Evidence};
use crate::error::BanditError;
use crate::posterior::{BetaPosterior, Prior};
use crate::sampler::BetaSampler;
use crate::special::{float, float_len};

/// How much sharper than the posterior the draws of the lean policy are, see [`crate::lean`].
pub(crate) const LEAN_SHARPNESS: f64 = 1.1;

/// An arm: its evidence, its plays without a known outcome, and numbers computed once an update so
/// that a choice takes a few multiplications an arm.
#[derive(Clone, Debug)]
pub struct Arm {
    evidence: Evidence,
    in_flight: u64,
    /// Successes over plays, 0 without plays.
    pub(crate) mean: f64,
    pub(crate) posterior_mean: f64,
    /// 1 / √n.
    pub(crate) inverse_root: f64,
    pub(crate) ln_plays: f64,
    /// m ln m + (1 − m) ln(1 − m).
    pub(crate) negentropy: f64,
    sampler: BetaSampler,
    sharp: BetaSampler,
}

impl Arm {
    fn new(prior: &Prior, evidence: Evidence, in_flight: u64) -> Self {
        let (plays, successes) = (evidence.plays(), evidence.successes());
        let posterior = prior.posterior(evidence);
        let mean = if plays > 0.0 { successes / plays } else { 0.0 };
        Self {
            evidence,
            in_flight,
            mean,
            posterior_mean: posterior.mean(),
            inverse_root: 1.0 / plays.sqrt(),
            ln_plays: plays.ln(),
            negentropy: times_ln(mean) + times_ln(1.0 - mean),
            sampler: BetaSampler::new(posterior.alpha(), posterior.beta()),
            sharp: BetaSampler::new(
                prior.alpha() + LEAN_SHARPNESS * successes,
                prior.beta() + LEAN_SHARPNESS * evidence.failures(),
            ),
        }
    }

    /// Plays with a known outcome, and successes.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// Plays whose outcome is not yet known.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Has no known outcome.
    #[must_use]
    pub fn is_unplayed(&self) -> bool {
        self.evidence.plays() <= 0.0
    }

    /// A draw from the posterior.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> f64 {
        self.sampler.draw(rng)
    }

    /// A draw from the sharpened posterior.
    #[inline]
    pub(crate) fn sharp_draw(&self, rng: &mut impl Rng) -> f64 {
        self.sharp.draw(rng)
    }
}

/// x ln x with 0 ln 0 = 0.
fn times_ln(x: f64) -> f64 {
    if x > 0.0 { x * x.ln() } else { 0.0 }
}

/// All arms of a bandit, numbered from 0.
#[derive(Clone, Debug)]
pub struct Arms {
    prior: Prior,
    arms: Vec<Arm>,
    known: f64,
    decisions: u64,
    unplayed: usize,
}

impl Arms {
    /// Arms nobody has played.
    #[must_use]
    pub fn new(prior: Prior, arms: usize) -> Self {
        Self::from_evidence(prior, &vec![Evidence::default(); arms])
    }

    /// Arms with integer counts.
    #[must_use]
    pub fn from_counts(prior: Prior, counts: &[Counts]) -> Self {
        let evidence: Vec<_> = counts.iter().copied().map(Evidence::from).collect();
        Self::from_evidence(prior, &evidence)
    }

    /// Arms with evidence, nothing in flight.
    #[must_use]
    pub fn from_evidence(prior: Prior, evidence: &[Evidence]) -> Self {
        let arms: Vec<_> = evidence
            .iter()
            .map(|evidence| Arm::new(&prior, *evidence, 0))
            .collect();
        let known: f64 = evidence.iter().map(Evidence::plays).sum();
        Self {
            prior,
            unplayed: arms.iter().filter(|arm| arm.is_unplayed()).count(),
            arms,
            known,
            decisions: whole(known),
        }
    }

    /// How many arms there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arms.len()
    }

    /// Without any arm.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arms.is_empty()
    }

    /// The arms.
    #[must_use]
    pub fn as_slice(&self) -> &[Arm] {
        &self.arms
    }

    /// The prior of all arms.
    #[must_use]
    pub fn prior(&self) -> Prior {
        self.prior
    }

    /// Plays with a known outcome, over all arms.
    #[must_use]
    pub fn known_plays(&self) -> f64 {
        self.known
    }

    /// The 1-based number of the next decision.
    #[must_use]
    pub fn next_decision(&self) -> u64 {
        self.decisions.saturating_add(1)
    }

    /// Whether some arm has no known outcome.
    #[must_use]
    pub fn any_unplayed(&self) -> bool {
        self.unplayed > 0
    }

    /// The posteriors of the rates.
    #[must_use]
    pub fn posteriors(&self) -> Vec<BetaPosterior> {
        let posterior = |arm: &Arm| self.prior.posterior(arm.evidence);
        self.arms.iter().map(posterior).collect()
    }

    /// Observed rates; 0 for unplayed arms.
    #[must_use]
    pub fn means(&self) -> Vec<f64> {
        self.arms.iter().map(|arm| arm.mean).collect()
    }

    /// An arm was chosen; its outcome will come with [`Arms::settle`].
    ///
    /// # Errors
    /// [`BanditError::UnknownArm`].
    pub fn start(&mut self, arm: usize) -> Result<(), BanditError> {
        let chosen = self.get_mut(arm)?;
        chosen.in_flight = chosen.in_flight.saturating_add(1);
        self.decisions = self.decisions.saturating_add(1);
        Ok(())
    }

    /// The outcome of a play that was started is known.
    ///
    /// # Errors
    /// [`BanditError::UnknownArm`]; [`BanditError::InvalidCounts`] beyond 1e15 plays.
    pub fn settle(&mut self, arm: usize, success: bool) -> Result<(), BanditError> {
        let flying = self.get_mut(arm)?.in_flight.saturating_sub(1);
        self.add(arm, success, flying)
    }

    /// A play and its outcome at once.
    ///
    /// # Errors
    /// As for [`Arms::settle`].
    pub fn record(&mut self, arm: usize, success: bool) -> Result<(), BanditError> {
        let flying = self.get_mut(arm)?.in_flight;
        self.decisions = self.decisions.saturating_add(1);
        self.add(arm, success, flying)
    }

    /// Sets the evidence of an arm, as a policy that forgets has to.
    ///
    /// # Errors
    /// [`BanditError::UnknownArm`].
    pub fn set_evidence(&mut self, arm: usize, evidence: Evidence) -> Result<(), BanditError> {
        let prior = self.prior;
        let old = self.get_mut(arm)?;
        let new = Arm::new(&prior, evidence, old.in_flight);
        let (was, is) = (old.is_unplayed(), new.is_unplayed());
        let change = evidence.plays() - old.evidence.plays();
        *old = new;
        self.known = (self.known + change).max(0.0);
        match (was, is) {
            (true, false) => self.unplayed -= 1,
            (false, true) => self.unplayed += 1,
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, arm: usize, success: bool, in_flight: u64) -> Result<(), BanditError> {
        let old = self.get_mut(arm)?;
        old.in_flight = in_flight;
        let before = old.evidence;
        let won = before.successes() + f64::from(u8::from(success));
        self.set_evidence(arm, Evidence::new(before.plays() + 1.0, won)?)
    }

    fn get_mut(&mut self, arm: usize) -> Result<&mut Arm, BanditError> {
        let arms = self.arms.len();
        self.arms
            .get_mut(arm)
            .ok_or(BanditError::UnknownArm { arm, arms })
    }

    /// ln K, ln N and the like need K as a float.
    pub(crate) fn count(&self) -> f64 {
        float_len(self.arms.len())
    }

    /// The number of the next decision as a float.
    pub(crate) fn clock(&self) -> f64 {
        float(self.next_decision())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "plays are not negative, and a cast of a float saturates"
)]
fn whole(plays: f64) -> u64 {
    plays.round() as u64
}
