//! Options of bandits, as configurations write them.
//!
//! An experiment whose variants are the arms has them in its own `config`; a variant that ranks items has them in the
//! variant's:
//!
//! ```json
//! {"itemOrdering": "bandit", "banditAlgorithm": "thompson", "banditOptions": {"floor": 0.05}}
//! ```
//!
//! To add an option: a field of [`BanditOptions`], its reading in `read`, and a row of the table in `docs/bandits.md`.

use podium_bandit::history::Forgetting;
use podium_bandit::index::Index;
use podium_bandit::plan::Plan;
use podium_bandit::policy::Epsilon;
use podium_bandit::snapshot::{DEFAULT_FLOOR, Weighting};
use podium_bandit::{BanditError, Policy, Prior};

use crate::decimal::Decimal4;
use crate::event::EventType;
use crate::metric::{Metric, MetricKind, UnitTotal};
use crate::words::wire_names;

pub mod evidence;
pub mod examination;
mod read;
pub mod truth;
pub mod weights;

pub use read::{MEMBERS, check_config, experiment_options, variant_options};

/// Share of the traffic of a bandit over variants that is split evenly and never moves.
pub const DEFAULT_CONTROL_SHARE: f64 = 0.1;
/// Minutes after an impression in which a reward decides over it.
pub const DEFAULT_ATTRIBUTION_MINUTES: u32 = 30;
/// Minutes between two changes of the weights of a bandit over variants.
pub const DEFAULT_UPDATE_MINUTES: u32 = 15;
/// Successes of all arms together from which their rate stands in for a site's rate that nobody gave.
const LEAST_SITE_SUCCESSES: u64 = 25;

/// How arms are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// A draw from every posterior, the largest wins: as often as an arm is probably the best.
    Thompson,
    /// Thompson sampling that explores no more than it has to.
    Lean,
    /// Thompson sampling for finding the best arm.
    TopTwoThompson,
    /// Indexed minimum empirical divergence.
    Imed,
    /// Upper confidence bounds by the Kullback–Leibler divergence.
    KlUcb,
    /// Upper confidence bounds by Hoeffding's inequality; near an even split at click rates.
    Ucb1,
    /// The same with the variance measured.
    Ucb1Tuned,
    /// The best rate so far, and now and then any arm.
    EpsilonGreedy,
    /// Thompson sampling that forgets by a half-life.
    DiscountedThompson,
    /// Thompson sampling that forgets all but a window.
    WindowedThompson,
    /// The finite-horizon index, for short campaigns.
    Campaign,
    /// All arms alike, for a yardstick and for measuring positions.
    Uniform,
}

wire_names!(Algorithm {
    Thompson => "thompson",
    Lean => "lean",
    TopTwoThompson => "top_two_thompson",
    Imed => "imed",
    KlUcb => "kl_ucb",
    Ucb1 => "ucb1",
    Ucb1Tuned => "ucb1_tuned",
    EpsilonGreedy => "epsilon_greedy",
    DiscountedThompson => "discounted_thompson",
    WindowedThompson => "windowed_thompson",
    Campaign => "campaign",
    Uniform => "uniform",
});

impl Algorithm {
    /// What a draw from every posterior is, whatever was configured: Thompson sampling.
    #[must_use]
    pub const fn drawn_from_posteriors(self) -> Self {
        match self {
            Self::DiscountedThompson | Self::WindowedThompson => self,
            _ => Self::Thompson,
        }
    }
}

/// What the arms of a ranking are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArmType {
    /// Items, as in `item_id` of events.
    #[default]
    Item,
    /// Brands, as in `brand_id` of events.
    Brand,
    /// Categories.
    Category,
    /// Algorithms that make an order of their own.
    Algorithm,
}

wire_names!(ArmType {
    Item => "item",
    Brand => "brand",
    Category => "category",
    Algorithm => "algorithm",
});

/// Candidates of one ranking.
pub const MAX_CANDIDATES: usize = 1_000;
/// Arms of one type that an experiment may have: whoever calls `rank` makes arms, and nobody has to log in for it.
pub const MAX_ARMS: i64 = 10_000;
/// The policy of a decision that leaves the order as it was.
pub const INPUT_ORDER: &str = "input_order";

/// Whether a variant ranks where its `config` does not say: the variants of a bandit but the control do, and so does the only
/// variant of a bandit over items.
#[must_use]
pub const fn ranks_unless_told(is_bandit: bool, is_control: bool, variants: usize) -> bool {
    is_bandit && (!is_control || variants == 1)
}

/// What orders are drawn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Draw {
    /// The weights in force: propensities are exact.
    #[default]
    Weights,
    /// Fresh draws from the posteriors: propensities are unknown.
    Posterior,
}

wire_names!(Draw { Weights => "weights", Posterior => "posterior" });

/// What an impression earns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewards {
    /// One success when any of these events follows it.
    Binary(Vec<EventType>),
    /// The sum of the weights of the events that follow it, each kind once.
    Weighted(Vec<(EventType, Decimal4)>),
    /// The value of the first such event, capped at `max`.
    Value {
        /// The event.
        event: EventType,
        /// Largest value that counts, above 0.
        max: Decimal4,
    },
}

/// Events that may be rewards, in the order of their reward kinds.
pub const REWARD_EVENTS: [EventType; 3] =
    [EventType::Click, EventType::AddToCart, EventType::Purchase];

impl Rewards {
    /// A success when the shopper does anything with what was shown: the default of rankings.
    #[must_use]
    pub fn any() -> Self {
        Self::Binary(REWARD_EVENTS.to_vec())
    }

    /// What the primary metric counts: the default of bandits over variants.
    #[must_use]
    pub fn of_metric(metric: Metric) -> Self {
        let of_total = |total| match total {
            UnitTotal::AddToCarts => EventType::AddToCart,
            UnitTotal::Purchases | UnitTotal::PurchaseValue => EventType::Purchase,
            _ => EventType::Click,
        };
        let event = match metric.kind() {
            MetricKind::Proportion { event } => event,
            MetricKind::Mean { of } => of_total(of),
            MetricKind::Ratio { numerator, .. } => of_total(numerator),
            MetricKind::Quantile { .. } => EventType::Click,
        };
        Self::Binary(vec![event])
    }

    /// Whether events of this type are rewards.
    #[must_use]
    pub fn takes(&self, kind: EventType) -> bool {
        match self {
            Self::Binary(events) => events.contains(&kind),
            Self::Weighted(weights) => weights.iter().any(|(event, _)| *event == kind),
            Self::Value { event, .. } => *event == kind,
        }
    }

    /// The largest reward of an impression; `None` for a success or failure.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        match self {
            Self::Binary(_) => None,
            Self::Weighted(weights) => Some(weights.iter().map(|(_, w)| w.to_f64()).sum()),
            Self::Value { max, .. } => Some(max.to_f64()),
        }
    }
}

/// Options of a bandit, all of them checked.
#[derive(Clone, Debug, PartialEq)]
pub struct BanditOptions {
    /// How arms are chosen; `Thompson` unless given.
    pub algorithm: Algorithm,
    /// The policy with its parameters.
    pub policy: Policy,
    /// How old pulls lose their weight.
    pub forgetting: Forgetting,
    /// No arm's weight is below `floor` / K; in [0, 1].
    pub floor: f64,
    /// Share of units of a bandit over variants that is split evenly; in [0, 0.9].
    pub control_share: f64,
    /// What an impression earns.
    pub rewards: Rewards,
    /// Minutes after an impression in which a reward decides over it, 1 to 43,200 (30 days).
    pub attribution_minutes: u32,
    /// Minutes between two changes of the weights of a bandit over variants, 1 to 1,440.
    pub update_minutes: u32,
    /// Rate of the whole site, in (0, 1), from which the prior is made.
    pub site_rate: Option<f64>,
    /// What orders are drawn from.
    pub draw: Draw,
    /// Whether rewards are weighted by how often shoppers look at the position.
    pub position_correction: bool,
}

impl BanditOptions {
    /// The options where none are given.
    #[must_use]
    pub fn with_rewards(rewards: Rewards) -> Self {
        Self {
            algorithm: Algorithm::Thompson,
            policy: Policy::Thompson,
            forgetting: Forgetting::Never,
            floor: DEFAULT_FLOOR,
            control_share: DEFAULT_CONTROL_SHARE,
            rewards,
            attribution_minutes: DEFAULT_ATTRIBUTION_MINUTES,
            update_minutes: DEFAULT_UPDATE_MINUTES,
            site_rate: None,
            draw: Draw::Weights,
            position_correction: false,
        }
    }

    /// How weights are made of evidence.
    #[must_use]
    pub fn weighting(&self) -> Weighting {
        Weighting {
            policy: self.policy,
            floor: self.floor,
        }
    }

    /// The prior of success rates, given the successes and pulls of all arms together: Beta(1, 1/m − 1) with the
    /// site's rate m as given, else as measured from 25 successes on, else Beta(1, 1).
    #[must_use]
    pub fn prior(&self, pulls: u64, successes: u64) -> Prior {
        Prior::site(self.site_mean(pulls, successes))
    }

    /// The site's rate: as given, else as measured from 25 successes on.
    #[must_use]
    pub fn site_mean(&self, pulls: u64, successes: u64) -> Option<f64> {
        let measured = (successes >= LEAST_SITE_SUCCESSES && pulls > successes)
            .then(|| as_float(successes) / as_float(pulls));
        self.site_rate.or(measured)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
fn as_float(count: u64) -> f64 {
    count as f64
}

/// Parameters of policies, before they are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Parameters {
    c: Option<f64>,
    beta: Option<f64>,
    epsilon: Option<Epsilon>,
    plays: Option<u64>,
}

/// The policy of an algorithm.
fn policy(algorithm: Algorithm, given: Parameters) -> Result<Policy, BanditError> {
    let policy = match algorithm {
        Algorithm::Thompson | Algorithm::DiscountedThompson | Algorithm::WindowedThompson => {
            Policy::Thompson
        }
        Algorithm::Lean => Policy::Lean,
        Algorithm::TopTwoThompson => Policy::TopTwoThompson {
            beta: given.beta.unwrap_or(0.5),
        },
        Algorithm::Imed => Policy::Index(Index::Imed),
        Algorithm::KlUcb => Policy::Index(Index::KlUcb {
            c: given.c.unwrap_or(0.0),
        }),
        Algorithm::Ucb1 => Policy::Index(Index::Ucb1 {
            c: given.c.unwrap_or(1.0),
        }),
        Algorithm::Ucb1Tuned => Policy::Index(Index::Ucb1Tuned),
        Algorithm::EpsilonGreedy => {
            Policy::EpsilonGreedy(given.epsilon.unwrap_or(Epsilon::Fixed(0.1)))
        }
        Algorithm::Campaign => Policy::Campaign {
            plays: given.plays.unwrap_or(100),
        },
        Algorithm::Uniform => Policy::Uniform,
    };
    policy.validate()?;
    Ok(policy)
}

/// How an algorithm forgets where nothing is said.
fn forgetting(algorithm: Algorithm) -> Result<Forgetting, BanditError> {
    match algorithm {
        Algorithm::DiscountedThompson | Algorithm::WindowedThompson => {
            Plan::named(algorithm.name()).map(|plan| plan.forgetting)
        }
        _ => Ok(Forgetting::Never),
    }
}
