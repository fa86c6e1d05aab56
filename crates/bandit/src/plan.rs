//! Names of policies, as configurations and reference files write them.

use crate::error::{BanditError, in_range};
use crate::history::Forgetting;
use crate::index::Index;
use crate::policy::{Epsilon, Policy};

/// A policy with what belongs to it: the prior it starts from and how it forgets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    /// How arms are chosen.
    pub policy: Policy,
    /// Whether the prior is that of the site's rate; otherwise it is flat.
    pub site_prior: bool,
    /// How old plays lose their weight.
    pub forgetting: Forgetting,
}

/// What is in angle brackets is a number.
const NAMES: &str = "default, lean, thompson, thompson_site_prior, thompson_floor_<share>, \
    top_two_thompson, top_two_ts, top_two_ts_<beta>, imed, kl_ucb, kl_ucb_<c>, ucb, ucb1, \
    ucb1_<c>, ucb1_tuned, greedy, epsilon_greedy, eps_greedy_<share>, eps_decay_recip_c<c>, \
    eps_decay_cbrt, uniform, thompson_discount_<gamma>, thompson_window_<plays>, \
    discounted_thompson, windowed_thompson, campaign_<plays>";

impl Plan {
    /// All names that [`Plan::named`] knows, for a message to whoever wrote another.
    #[must_use]
    pub const fn names() -> &'static str {
        NAMES
    }

    /// The plan of a name. `ucb` is KL-UCB, which is what plain UCB1 is not at click rates: more
    /// than an even split.
    ///
    /// # Errors
    /// [`BanditError::UnknownPolicy`]; [`BanditError::OutOfRange`] for its number.
    pub fn named(name: &str) -> Result<Self, BanditError> {
        let plan = Self::fixed(name).or_else(|| Self::with_number(name));
        let plan = plan.ok_or_else(|| BanditError::UnknownPolicy {
            name: name.to_owned(),
        })?;
        plan.policy.validate()?;
        plan.forgetting.validate()?;
        Ok(plan)
    }

    /// UCB1 with exploration `c`, or KL-UCB without.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] for a negative c or one that is no number.
    pub fn ucb(c: Option<f64>) -> Result<Self, BanditError> {
        let Some(c) = c else {
            return Ok(Self::flat(Policy::Index(Index::KlUcb { c: 0.0 })));
        };
        let c = in_range("c", c, 0.0, 1e9)?;
        Ok(Self::flat(Policy::Index(Index::Ucb1 { c })))
    }

    fn flat(policy: Policy) -> Self {
        Self {
            policy,
            site_prior: false,
            forgetting: Forgetting::Never,
        }
    }

    fn site(policy: Policy) -> Self {
        Self {
            site_prior: true,
            ..Self::flat(policy)
        }
    }

    fn forgetful(forgetting: Forgetting) -> Self {
        Self {
            forgetting,
            ..Self::flat(Policy::Thompson)
        }
    }

    fn fixed(name: &str) -> Option<Self> {
        let greedy = |epsilon| Self::flat(Policy::EpsilonGreedy(epsilon));
        Some(match name {
            "default" | "lean" => Self::site(Policy::Lean),
            "thompson" => Self::flat(Policy::Thompson),
            "thompson_site_prior" => Self::site(Policy::Thompson),
            "top_two_thompson" | "top_two_ts" => Self::flat(Policy::TopTwoThompson { beta: 0.5 }),
            "imed" => Self::flat(Policy::Index(Index::Imed)),
            "kl_ucb" | "ucb" => Self::flat(Policy::Index(Index::KlUcb { c: 0.0 })),
            "ucb1" => Self::flat(Policy::Index(Index::Ucb1 { c: 1.0 })),
            "ucb1_tuned" => Self::flat(Policy::Index(Index::Ucb1Tuned)),
            "greedy" => greedy(Epsilon::Fixed(0.0)),
            "epsilon_greedy" => greedy(Epsilon::Fixed(0.1)),
            "eps_decay_cbrt" => greedy(Epsilon::CubeRoot),
            "uniform" => Self::flat(Policy::Uniform),
            "discounted_thompson" => Self::forgetful(Forgetting::HalfLifePlays(7_000.0)),
            "windowed_thompson" => Self::forgetful(Forgetting::WindowPlays(10_000)),
            _ => return None,
        })
    }

    fn with_number(name: &str) -> Option<Self> {
        let number = |prefix: &str| name.strip_prefix(prefix)?.parse::<f64>().ok();
        let whole = |prefix: &str| name.strip_prefix(prefix)?.parse::<u64>().ok();
        let greedy = |epsilon| Self::flat(Policy::EpsilonGreedy(epsilon));
        if let Some(floor) = number("thompson_floor_") {
            return Some(Self::flat(Policy::ThompsonWithFloor { floor }));
        }
        if let Some(beta) = number("top_two_ts_") {
            return Some(Self::flat(Policy::TopTwoThompson { beta }));
        }
        if let Some(c) = number("kl_ucb_") {
            return Some(Self::flat(Policy::Index(Index::KlUcb { c })));
        }
        if let Some(c) = number("ucb1_") {
            return Some(Self::flat(Policy::Index(Index::Ucb1 { c })));
        }
        if let Some(epsilon) = number("eps_greedy_") {
            return Some(greedy(Epsilon::Fixed(epsilon)));
        }
        if let Some(c) = number("eps_decay_recip_c") {
            return Some(greedy(Epsilon::Reciprocal { c }));
        }
        if let Some(gamma) = number("thompson_discount_") {
            return Forgetting::discount(gamma).ok().map(Self::forgetful);
        }
        if let Some(plays) = whole("thompson_window_") {
            return Some(Self::forgetful(Forgetting::WindowPlays(plays)));
        }
        let plays = whole("campaign_")?;
        Some(Self::flat(Policy::Campaign { plays }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_numbers() {
        let tenth = Plan::named("eps_greedy_0.10").unwrap();
        assert_eq!(tenth.policy, Policy::EpsilonGreedy(Epsilon::Fixed(0.1)));
        assert_eq!(
            Plan::named("thompson_window_3000").unwrap().forgetting,
            Forgetting::WindowPlays(3_000)
        );
        assert!(Plan::named("default").unwrap().site_prior);
    }

    #[test]
    fn wrong_names_and_numbers() {
        for name in [
            "",
            "thomson",
            "eps_greedy_",
            "eps_greedy_2",
            "eps_greedy_nan",
            "thompson_discount_1.5",
            "thompson_floor_-1",
            "ucb1_inf",
        ] {
            assert!(Plan::named(name).is_err(), "{name}");
        }
        assert!(Plan::ucb(Some(f64::NAN)).is_err());
    }
}
