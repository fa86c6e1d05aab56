//! Reading options of bandits from a configuration; every fault is reported.

use podium_bandit::history::Forgetting;
use podium_bandit::policy::Epsilon;
use serde_json::{Map, Value};

use super::{
    Algorithm, BanditOptions, Draw, Parameters, REWARD_EVENTS, Rewards, forgetting, policy,
};
use crate::decimal::Decimal4;
use crate::event::EventType;
use crate::fault::{Faults, Pointer, code};
use crate::metric::Metric;

/// Members of `banditOptions`.
pub const MEMBERS: &[&str] = &[
    "policy",
    "floor",
    "controlShare",
    "rewards",
    "valueMax",
    "attributionMinutes",
    "updateMinutes",
    "siteRate",
    "halfLifeHours",
    "halfLifePlays",
    "windowHours",
    "windowPlays",
    "epsilon",
    "c",
    "beta",
    "plays",
    "draw",
    "positionCorrection",
];

/// Options of a bandit over the variants of an experiment, from the experiment's `config`. Without `rewards` the event
/// that the primary metric counts is the reward.
///
/// # Errors
/// Every fault, with pointers from the `config` on.
pub fn experiment_options(config: &Value, primary: Metric) -> Result<BanditOptions, Faults> {
    read(
        config,
        None,
        Rewards::of_metric(primary),
        &Pointer::root().member("config"),
    )
}

/// Options of a variant that ranks, `None` when it does not. `itemOrdering` says whether it does; where it says
/// nothing, a `banditAlgorithm` does, else `ranks` is the answer. What the variant leaves open is taken from
/// the experiment's `config`.
///
/// # Errors
/// Every fault, with pointers from the `config` on.
pub fn variant_options(
    config: &Value,
    experiment: &Value,
    ranks: bool,
) -> Result<Option<BanditOptions>, Faults> {
    let ranks = match config.get("itemOrdering") {
        Some(ordering) => ordering.as_str() == Some("bandit"),
        None => config.get("banditAlgorithm").is_some() || ranks,
    };
    if !ranks {
        return Ok(None);
    }
    let at = Pointer::root().member("config");
    read(config, Some(experiment), Rewards::any(), &at).map(Some)
}

/// Checks what a configuration says about bandits, whether or not it will be used.
///
/// # Errors
/// Every fault, with pointers from `at` on.
pub fn check_config(config: &Value, at: &Pointer) -> Result<(), Faults> {
    read(config, None, Rewards::any(), at).map(|_| ())
}

/// Reads the options of `config`; members that it has not are taken from `inherited`.
fn read(
    config: &Value,
    inherited: Option<&Value>,
    rewards: Rewards,
    at: &Pointer,
) -> Result<BanditOptions, Faults> {
    let mut reader = Reader::new(config, inherited, at);
    reader.refuse_unknown();
    let options = reader.options(rewards);
    match options {
        Some(options) => reader.faults.into_result(options),
        None => Err(reader.faults),
    }
}

/// Members of the options with where they stand.
struct Reader<'v> {
    algorithm: Option<&'v Value>,
    members: Map<String, Value>,
    config: Pointer,
    at: Pointer,
    faults: Faults,
}

impl<'v> Reader<'v> {
    fn new(config: &'v Value, inherited: Option<&'v Value>, at: &Pointer) -> Self {
        let mut faults = Faults::new();
        let inside = at.member("banditOptions");
        let mut members = inherited
            .and_then(|outer| outer.get("banditOptions")?.as_object().cloned())
            .unwrap_or_default();
        match config.get("banditOptions") {
            None | Some(Value::Null) => {}
            Some(Value::Object(own)) => {
                members.extend(
                    own.iter()
                        .map(|(name, value)| (name.clone(), value.clone())),
                );
            }
            Some(_) => faults.push(inside.as_str(), code::WRONG_TYPE, "must be an object"),
        }
        let given = |config: &'v Value| config.get("banditAlgorithm").filter(|v| !v.is_null());
        Self {
            algorithm: given(config).or_else(|| inherited.and_then(given)),
            members,
            config: at.clone(),
            at: inside,
            faults,
        }
    }

    fn refuse_unknown(&mut self) {
        let known = |name: &&String| !MEMBERS.contains(&name.as_str());
        let unknown: Vec<String> = self.members.keys().filter(known).cloned().collect();
        for name in unknown {
            let detail = format!("is no option of a bandit; there are {}", MEMBERS.join(", "));
            self.fault(&name, code::UNKNOWN_FIELD, detail);
        }
    }

    fn options(&mut self, rewards: Rewards) -> Option<BanditOptions> {
        let mut options = BanditOptions::with_rewards(rewards);
        let parameters = Parameters {
            c: self.number("c", 0.0, 1e9),
            beta: self.number("beta", 0.0, 1.0),
            epsilon: self.epsilon(),
            plays: self.whole("plays", 1, 1_000_000).map(u64::from),
        };
        let algorithm = self.algorithm(parameters.c.is_some());
        if let Some(floor) = self.number("floor", 0.0, 1.0) {
            options.floor = floor;
        }
        if let Some(share) = self.number("controlShare", 0.0, 0.9) {
            options.control_share = share;
        }
        if let Some(minutes) = self.whole("attributionMinutes", 1, 43_200) {
            options.attribution_minutes = minutes;
        }
        if let Some(minutes) = self.whole("updateMinutes", 1, 1_440) {
            options.update_minutes = minutes;
        }
        options.site_rate = self.number("siteRate", 1e-9, 1.0 - 1e-9);
        options.draw = self.draw().unwrap_or_default();
        options.position_correction = self.flag("positionCorrection").unwrap_or(false);
        if let Some(rewards) = self.rewards() {
            options.rewards = rewards;
        }
        let given = self.forgetting();
        options.algorithm = algorithm?;
        let built = policy(options.algorithm, parameters).and_then(|policy| {
            Ok((
                policy,
                given.map_or_else(|| forgetting(options.algorithm), Ok)?,
            ))
        });
        match built {
            Ok((policy, forgetting)) => {
                options.policy = policy;
                options.forgetting = forgetting;
                Some(options)
            }
            Err(error) => {
                self.faults
                    .push(self.at.as_str(), code::OUT_OF_RANGE, error.to_string());
                None
            }
        }
    }

    /// The algorithm, from `banditAlgorithm` or from the option `policy`. `ucb` with an exploration constant is UCB1,
    /// without one it is KL-UCB, because UCB1 at click rates is next to an even split.
    fn algorithm(&mut self, has_c: bool) -> Option<Algorithm> {
        let outside = self
            .algorithm
            .map(|value| (self.config.member("banditAlgorithm"), value.clone()));
        let inside = self
            .take("policy")
            .map(|value| (self.at.member("policy"), value));
        let both = outside.is_some() && inside.is_some();
        let mut read = |given: Option<(Pointer, Value)>| {
            let (at, value) = given?;
            let name = value.as_str().unwrap_or_default();
            let found = match name {
                "ucb" if has_c => Some(Algorithm::Ucb1),
                "ucb" => Some(Algorithm::KlUcb),
                "epsilon" => Some(Algorithm::EpsilonGreedy),
                _ => name.parse().ok(),
            };
            if found.is_none() {
                let names = Algorithm::NAMES.join(", ");
                let detail = format!("must be one of {names}, ucb, epsilon");
                self.faults.push(at.as_str(), code::UNKNOWN_VALUE, detail);
            }
            Some(found)
        };
        let (outside, inside) = (read(outside), read(inside));
        if both && outside != inside {
            let at = self.at.member("policy");
            self.faults.push(
                at.as_str(),
                code::UNKNOWN_VALUE,
                "contradicts banditAlgorithm",
            );
            return None;
        }
        inside.or(outside).unwrap_or(Some(Algorithm::Thompson))
    }

    fn epsilon(&mut self) -> Option<Epsilon> {
        if self.members.get("epsilon").and_then(Value::as_str) == Some("decay") {
            return Some(Epsilon::CubeRoot);
        }
        self.number("epsilon", 0.0, 1.0).map(Epsilon::Fixed)
    }

    fn draw(&mut self) -> Option<Draw> {
        let value = self.take("draw")?;
        let read = value.as_str().unwrap_or_default().parse::<Draw>();
        let at = self.at.member("draw");
        self.faults.check(&at, code::UNKNOWN_VALUE, read)
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.take(name)?;
        if value.as_bool().is_none() {
            self.fault(name, code::WRONG_TYPE, "must be true or false");
        }
        value.as_bool()
    }

    /// At most one of the four ways to forget.
    fn forgetting(&mut self) -> Option<Forgetting> {
        let given = [
            self.number("halfLifeHours", 0.01, 1e6)
                .map(Forgetting::HalfLifeHours),
            self.number("halfLifePlays", 1.0, 1e12)
                .map(Forgetting::HalfLifePlays),
            self.whole("windowHours", 1, 1_000_000)
                .map(Forgetting::WindowHours),
            self.number("windowPlays", 1.0, 1e12)
                .and_then(|plays| format!("{plays}").parse().ok())
                .map(Forgetting::WindowPlays),
        ];
        let mut given = given.into_iter().flatten();
        let first = given.next();
        if given.next().is_some() {
            let detail =
                "has more than one of halfLifeHours, halfLifePlays, windowHours, windowPlays";
            self.faults.push(self.at.as_str(), code::DUPLICATE, detail);
        }
        first
    }

    /// `"click"`, `["click", "purchase"]` or `{"click": 1, "add_to_cart": 2}`; with `valueMax` the value of the event.
    fn rewards(&mut self) -> Option<Rewards> {
        let max = self.decimal("valueMax");
        let given = self.take("rewards");
        let before = self.faults.len();
        let events = match &given {
            None => Vec::new(),
            Some(Value::String(name)) => self.event(name).into_iter().collect(),
            Some(Value::Array(names)) => names
                .iter()
                .filter_map(|name| self.event(name.as_str().unwrap_or_default()))
                .collect(),
            Some(Value::Object(weights)) => return self.weights(weights, max.is_some()),
            Some(_) => {
                let detail = "must be an event, a list of events, or weights by event";
                self.fault("rewards", code::WRONG_TYPE, detail);
                return None;
            }
        };
        if self.faults.len() > before {
            return None;
        }
        match (max, events.as_slice()) {
            (None, []) if given.is_none() => None,
            (Some(max), []) if given.is_none() => Some(value_of(EventType::Purchase, max)),
            (Some(max), [event]) => Some(value_of(*event, max)),
            (Some(_), _) => {
                self.fault("valueMax", code::DUPLICATE, "goes with one event as reward");
                None
            }
            (None, []) => {
                self.fault("rewards", code::TOO_SHORT, "must name an event");
                None
            }
            (None, _) => Some(Rewards::Binary(events)),
        }
    }

    fn weights(&mut self, weights: &Map<String, Value>, has_max: bool) -> Option<Rewards> {
        if has_max {
            self.fault("valueMax", code::DUPLICATE, "goes with one event as reward");
        }
        let mut read = Vec::new();
        for (name, weight) in weights {
            let at = self.at.member("rewards").member(name);
            let range = Decimal4::ZERO..=Decimal4(10_000_000_000_000);
            let weight = Decimal4::parse_in(&weight.to_string(), &range);
            let weight = self.faults.check(&at, code::OUT_OF_RANGE, weight);
            read.extend(self.event(name).zip(weight));
        }
        // In the order of reward kinds, so that equal options are equal.
        read.sort();
        if read.iter().all(|(_, weight)| *weight == Decimal4::ZERO) {
            self.fault("rewards", code::OUT_OF_RANGE, "needs a weight above 0");
            return None;
        }
        Some(Rewards::Weighted(read))
    }

    fn event(&mut self, name: &str) -> Option<EventType> {
        let found = name
            .parse()
            .ok()
            .filter(|kind| REWARD_EVENTS.contains(kind));
        if found.is_none() {
            let names = REWARD_EVENTS.map(EventType::name).join(", ");
            self.fault(
                "rewards",
                code::UNKNOWN_VALUE,
                format!("must be of {names}"),
            );
        }
        found
    }

    fn decimal(&mut self, name: &str) -> Option<Decimal4> {
        let value = self.take(name)?;
        let range = Decimal4(1)..=Decimal4(10_000_000_000_000);
        let at = self.at.member(name);
        let read = Decimal4::parse_in(&value.to_string(), &range);
        self.faults.check(&at, code::OUT_OF_RANGE, read)
    }

    fn number(&mut self, name: &str, low: f64, high: f64) -> Option<f64> {
        let value = self.take(name)?;
        let number = value.as_f64();
        if number.is_none() {
            self.fault(name, code::WRONG_TYPE, "must be a number");
        } else if number.is_none_or(|number| !(low..=high).contains(&number)) {
            let detail = format!("must be from {low} to {high}, is {value}");
            self.fault(name, code::OUT_OF_RANGE, detail);
            return None;
        }
        number
    }

    fn whole(&mut self, name: &str, low: u32, high: u32) -> Option<u32> {
        let value = self.take(name)?;
        let number = value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (low..=high).contains(number));
        if number.is_none() {
            let detail = format!("must be a whole number from {low} to {high}, is {value}");
            self.fault(name, code::OUT_OF_RANGE, detail);
        }
        number
    }

    /// A member that is there and not `null`.
    fn take(&self, name: &str) -> Option<Value> {
        self.members.get(name).filter(|v| !v.is_null()).cloned()
    }

    fn fault(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        let at = self.at.member(name);
        self.faults.push(at.as_str(), code, detail);
    }
}

fn value_of(event: EventType, max: Decimal4) -> Rewards {
    Rewards::Value { event, max }
}

#[cfg(test)]
mod tests {
    use podium_bandit::Policy;
    use podium_bandit::index::Index;
    use serde_json::json;

    use super::*;

    fn ranking(config: &Value) -> Result<Option<BanditOptions>, Faults> {
        variant_options(config, &json!({}), false)
    }

    fn pointers(config: &Value) -> Vec<String> {
        let faults = check_config(config, &Pointer::root().member("config")).unwrap_err();
        faults.iter().map(|fault| fault.pointer.clone()).collect()
    }

    #[test]
    fn the_options_of_the_earlier_system() {
        let options = |algorithm: &str, options: Value| {
            let config = json!({"itemOrdering": "bandit", "banditAlgorithm": algorithm, "banditOptions": options});
            ranking(&config).unwrap().unwrap()
        };
        let plain = options("thompson", json!({}));
        assert_eq!(plain, BanditOptions::with_rewards(Rewards::any()));
        assert_eq!(
            options("ucb", json!({})).policy,
            Policy::Index(Index::KlUcb { c: 0.0 })
        );
        assert_eq!(
            options("ucb", json!({"c": 2})).policy,
            Policy::Index(Index::Ucb1 { c: 2.0 })
        );
        let epsilon = options("epsilon", json!({"epsilon": 0.2}));
        assert_eq!(epsilon.policy, Policy::EpsilonGreedy(Epsilon::Fixed(0.2)));
        let decaying = options("epsilon_greedy", json!({"epsilon": "decay"}));
        assert_eq!(decaying.policy, Policy::EpsilonGreedy(Epsilon::CubeRoot));
        for name in Algorithm::NAMES {
            assert_eq!(options(name, json!({})).algorithm.name(), *name);
        }
    }

    #[test]
    fn who_ranks() {
        let ranks = |config: Value, default| {
            variant_options(&config, &json!({}), default)
                .unwrap()
                .is_some()
        };
        assert!(ranks(json!({"itemOrdering": "bandit"}), false));
        assert!(!ranks(json!({"itemOrdering": "newest"}), true));
        assert!(ranks(json!({"banditAlgorithm": "imed"}), false));
        assert!(ranks(json!({}), true) && !ranks(json!({}), false));
    }

    #[test]
    fn rewards_in_all_their_forms() {
        let rewards = |options: Value| {
            let config = json!({"banditOptions": options});
            experiment_options(&config, Metric::AddToCartRate)
                .unwrap()
                .rewards
        };
        assert_eq!(
            rewards(json!({})),
            Rewards::Binary(vec![EventType::AddToCart])
        );
        assert_eq!(
            rewards(json!({"rewards": "click"})),
            Rewards::Binary(vec![EventType::Click])
        );
        let weighted = rewards(json!({"rewards": {"add_to_cart": 2, "click": 1}}));
        assert_eq!(weighted.max(), Some(3.0));
        assert!(weighted.takes(EventType::Click) && !weighted.takes(EventType::Purchase));
        let value = rewards(json!({"valueMax": 200}));
        assert_eq!(value, value_of(EventType::Purchase, Decimal4(2_000_000)));
        for metric in Metric::ALL {
            assert!(matches!(Rewards::of_metric(*metric), Rewards::Binary(_)));
        }
    }

    #[test]
    fn a_variant_inherits_from_its_experiment() {
        let outer =
            json!({"banditAlgorithm": "imed", "banditOptions": {"floor": 0.2, "halfLifeHours": 6}});
        let own = json!({"itemOrdering": "bandit", "banditOptions": {"floor": 0}});
        let options = variant_options(&own, &outer, false).unwrap().unwrap();
        assert_eq!((options.algorithm, options.floor), (Algorithm::Imed, 0.0));
        assert_eq!(options.forgetting, Forgetting::HalfLifeHours(6.0));
    }

    #[test]
    fn every_fault_is_reported() {
        let config = json!({"banditAlgorithm": "thomson", "banditOptions": {
            "floor": 2, "controlShare": "x", "rewards": ["view"], "attributionMinutes": 0, "updateMinutes": 1.5,
            "siteRate": 0, "halfLifeHours": 1, "windowPlays": 10, "draw": "dice", "positionCorrection": 1, "flor": 1,
            "valueMax": -1, "c": -1, "epsilon": 3}});
        let mut found = pointers(&config);
        found.sort();
        let options = |name: &str| format!("/config/banditOptions{name}");
        let mut wanted = vec!["/config/banditAlgorithm".to_owned()];
        wanted.extend(
            [
                "",
                "/attributionMinutes",
                "/c",
                "/controlShare",
                "/draw",
                "/epsilon",
                "/floor",
                "/flor",
                "/positionCorrection",
                "/rewards",
                "/siteRate",
                "/updateMinutes",
                "/valueMax",
            ]
            .map(options),
        );
        assert_eq!(found, wanted);
        assert_eq!(
            pointers(&json!({"banditOptions": []})),
            ["/config/banditOptions"]
        );
        let twice = json!({"banditAlgorithm": "imed", "banditOptions": {"policy": "ucb1"}});
        assert_eq!(pointers(&twice), ["/config/banditOptions/policy"]);
        let weights = json!({"banditOptions": {"rewards": {"click": 0}}});
        assert_eq!(pointers(&weights), ["/config/banditOptions/rewards"]);
    }

    #[test]
    fn the_site_s_rate_is_given_or_measured() {
        let options = BanditOptions::with_rewards(Rewards::any());
        assert_eq!(options.site_mean(1_000, 24), None);
        assert_eq!(options.site_mean(1_000, 25), Some(0.025));
        let given = BanditOptions {
            site_rate: Some(0.01),
            ..options
        };
        assert_eq!(given.site_mean(1_000, 25), Some(0.01));
    }
}
