//! The fields of the configuration: where they stand, what they may be, which way is weaker.

use podium_domain::fault::{Faults, Pointer, code};
use podium_domain::text;
use serde_json::{Map, Value};

/// Channels of notifications.
pub(super) const CHANNELS: [&str; 4] = ["slack", "email", "pagerduty", "webhook"];
const LEVELS: [&str; 3] = ["info", "warning", "critical"];
/// Most steps of a rollout.
const MOST_STEPS: usize = 20;
/// Most names of a list.
const MOST_NAMES: usize = 1_000;

/// What a field may hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Boolean,
    /// From the first to the second, which is left out when the third says so.
    Number(f64, f64, bool),
    Whole(i64, i64),
    Level,
    Channels,
    Steps,
    Names,
}

/// Which way a field makes a promotion easier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weaker {
    Lower,
    Higher,
    Off,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    /// Which way the floor bounds it, if it does.
    pub(super) weaker: Option<Weaker>,
    /// The variable of the environment that sets it.
    pub(super) variable: Option<&'static str>,
}

const fn field(path: &'static str, kind: Kind) -> Field {
    Field {
        path,
        kind,
        weaker: None,
        variable: None,
    }
}

const fn bounded(path: &'static str, kind: Kind, weaker: Weaker) -> Field {
    Field {
        weaker: Some(weaker),
        ..field(path, kind)
    }
}

impl Field {
    const fn from(self, variable: &'static str) -> Self {
        Self {
            variable: Some(variable),
            ..self
        }
    }

    /// Whether it switches a safety check on.
    pub(super) fn is_switch(&self) -> bool {
        self.weaker == Some(Weaker::Off)
    }

    /// Whether presets say anything about it.
    pub(super) fn in_presets(&self) -> bool {
        !matches!(self.path, "enabled" | "dryRun" | "excludedExperiments")
    }
}

const HOURS: Kind = Kind::Number(0.0, 8_760.0, false);
const PERCENT_OF_CHANGE: Kind = Kind::Number(0.0, 1_000.0, false);

/// Every field; objects stand before the dot.
pub(super) const FIELDS: &[Field] = &[
    field("enabled", Kind::Boolean).from("AUTO_PROMOTION_ENABLED"),
    bounded(
        "thresholds.minConfidence",
        Kind::Number(50.0, 100.0, true),
        Weaker::Lower,
    )
    .from("AUTO_PROMOTION_MIN_CONFIDENCE"),
    bounded(
        "thresholds.minSampleSize",
        Kind::Whole(1, 1_000_000_000),
        Weaker::Lower,
    )
    .from("AUTO_PROMOTION_MIN_SAMPLE_SIZE"),
    bounded(
        "thresholds.minImprovement",
        PERCENT_OF_CHANGE,
        Weaker::Lower,
    )
    .from("AUTO_PROMOTION_MIN_IMPROVEMENT"),
    bounded("thresholds.minRuntimeHours", HOURS, Weaker::Lower)
        .from("AUTO_PROMOTION_MIN_RUNTIME_HOURS"),
    bounded(
        "thresholds.maxErrorRate",
        Kind::Number(0.0, 1.0, false),
        Weaker::Higher,
    )
    .from("AUTO_PROMOTION_MAX_ERROR_RATE"),
    bounded(
        "thresholds.maxLatencyDegradation",
        PERCENT_OF_CHANGE,
        Weaker::Higher,
    )
    .from("AUTO_PROMOTION_MAX_LATENCY_DEGRADATION"),
    bounded("safetyChecks.checkErrorRates", Kind::Boolean, Weaker::Off),
    bounded("safetyChecks.checkLatency", Kind::Boolean, Weaker::Off),
    bounded(
        "safetyChecks.checkTrafficBalance",
        Kind::Boolean,
        Weaker::Off,
    ),
    bounded("safetyChecks.checkRecentAlerts", Kind::Boolean, Weaker::Off),
    bounded(
        "safetyChecks.requireNonInferiority",
        Kind::Boolean,
        Weaker::Off,
    ),
    bounded(
        "safetyChecks.alertLookbackHours",
        Kind::Whole(0, 8_760),
        Weaker::Lower,
    ),
    bounded(
        "safetyChecks.maxCriticalAlerts",
        Kind::Whole(0, 1_000_000_000),
        Weaker::Higher,
    ),
    field("notifications.enabled", Kind::Boolean),
    field("notifications.channels", Kind::Channels),
    field("notifications.minimumLevel", Kind::Level),
    field("notifications.includeDetailedMetrics", Kind::Boolean),
    field("dryRun", Kind::Boolean).from("AUTO_PROMOTION_DRY_RUN"),
    field("excludedExperiments", Kind::Names).from("AUTO_PROMOTION_EXCLUDED"),
    field("maxConcurrentPromotions", Kind::Whole(1, 100)),
    field("rollout.steps", Kind::Steps),
    field("rollout.stepHours", HOURS),
    field("rollout.holdbackPercent", Kind::Number(0.0, 50.0, false)),
    field("guard.watchHours", HOURS),
    field("guard.autoRollback", Kind::Boolean),
];

impl Kind {
    /// What a value must be, in words.
    pub(super) fn wanted(self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::Number(min, max, true) => format!("a number of at least {min} and below {max}"),
            Self::Number(min, max, false) => format!("a number from {min} to {max}"),
            Self::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Self::Level => format!("one of {}", LEVELS.join(", ")),
            Self::Channels => format!("a list of {}", CHANNELS.join(", ")),
            Self::Steps => {
                format!("1 to {MOST_STEPS} rising percents above 0, the last of them 100")
            }
            Self::Names => format!("a list of at most {MOST_NAMES} names of experiments"),
        }
    }

    /// The value as the typed structure takes it; otherwise the code of what is wrong.
    pub(super) fn check(self, value: &Value) -> Result<Value, &'static str> {
        match self {
            Self::Boolean => value.as_bool().map(Value::from).ok_or(code::WRONG_TYPE),
            Self::Number(min, max, below) => {
                let number = value.as_f64().ok_or(code::WRONG_TYPE)?;
                let inside = number >= min && if below { number < max } else { number <= max };
                inside.then(|| number.into()).ok_or(code::OUT_OF_RANGE)
            }
            Self::Whole(min, max) => {
                let number = value.as_f64().ok_or(code::WRONG_TYPE)?;
                let whole = whole(value).ok_or(if number.fract() == 0.0 {
                    code::OUT_OF_RANGE
                } else {
                    code::WRONG_TYPE
                })?;
                let inside = (min..=max).contains(&whole);
                inside.then(|| whole.into()).ok_or(code::OUT_OF_RANGE)
            }
            Self::Level => {
                let word = value.as_str().ok_or(code::WRONG_TYPE)?;
                let known = LEVELS.contains(&word);
                known.then(|| word.into()).ok_or(code::UNKNOWN_VALUE)
            }
            Self::Channels => words(value, &CHANNELS),
            Self::Steps => steps(value),
            Self::Names => names(value),
        }
    }
}

/// A whole number, also when it was written with a point.
fn whole(value: &Value) -> Option<i64> {
    let from_float = || {
        let float = value.as_f64()?;
        let exact = float.fract() == 0.0 && float.abs() < 1e15;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a whole number far below 2^53"
        )]
        exact.then_some(float as i64)
    };
    value.as_i64().or_else(from_float)
}

fn texts(value: &Value) -> Result<Vec<&str>, &'static str> {
    let items = value.as_array().ok_or(code::WRONG_TYPE)?;
    let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    texts.ok_or(code::WRONG_TYPE)
}

fn words(value: &Value, known: &[&str]) -> Result<Value, &'static str> {
    let texts = texts(value)?;
    if texts.iter().any(|text| !known.contains(text)) {
        return Err(code::UNKNOWN_VALUE);
    }
    let repeated = |at: usize| {
        texts
            .iter()
            .take(at)
            .any(|text| texts.get(at) == Some(text))
    };
    if (0..texts.len()).any(repeated) {
        return Err(code::DUPLICATE);
    }
    Ok(value.clone())
}

fn steps(value: &Value) -> Result<Value, &'static str> {
    let items = value.as_array().ok_or(code::WRONG_TYPE)?;
    let steps: Option<Vec<f64>> = items.iter().map(Value::as_f64).collect();
    let steps = steps.ok_or(code::WRONG_TYPE)?;
    let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
    let ends = steps.first().is_some_and(|first| *first > 0.0)
        && steps
            .last()
            .is_some_and(|last| (last - 100.0).abs() < f64::EPSILON);
    if rising && ends && steps.len() <= MOST_STEPS {
        Ok(steps.into())
    } else {
        Err(code::OUT_OF_RANGE)
    }
}

fn names(value: &Value) -> Result<Value, &'static str> {
    let texts = texts(value)?;
    if texts.len() > MOST_NAMES {
        return Err(code::TOO_LONG);
    }
    match texts
        .iter()
        .find_map(|text| text::check_experiment_name(text).err())
    {
        Some(fault) => Err(fault.code()),
        None => Ok(value.clone()),
    }
}

/// Checks a layer; what passed, field by field, and everything that did not.
pub(super) fn check_layer(
    layer: &Value,
    at: &Pointer,
    faults: &mut Faults,
) -> Vec<(&'static Field, Value)> {
    let mut found = Vec::new();
    match layer {
        Value::Object(members) => check_members(members, "", at, faults, &mut found),
        _ => faults.push(at.as_str(), code::WRONG_TYPE, "must be an object"),
    }
    found
}

fn check_members(
    members: &Map<String, Value>,
    prefix: &str,
    at: &Pointer,
    faults: &mut Faults,
    found: &mut Vec<(&'static Field, Value)>,
) {
    for (key, value) in members {
        let (path, pointer) = (format!("{prefix}{key}"), at.member(key));
        let inside = format!("{path}.");
        if let Some(field) = FIELDS.iter().find(|field| field.path == path) {
            match field.kind.check(value) {
                Ok(value) => found.push((field, value)),
                Err(code) => {
                    faults.push(
                        pointer.as_str(),
                        code,
                        format!("must be {}", field.kind.wanted()),
                    );
                }
            }
        } else if FIELDS.iter().any(|field| field.path.starts_with(&inside)) {
            match value {
                Value::Object(inner) => check_members(inner, &inside, &pointer, faults, found),
                _ => faults.push(pointer.as_str(), code::WRONG_TYPE, "must be an object"),
            }
        } else {
            faults.push(
                pointer.as_str(),
                code::UNKNOWN_FIELD,
                "is not a field of the configuration",
            );
        }
    }
}

/// The value at a path of names with dots between them.
pub(super) fn get<'v>(tree: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(tree, |node, name| node.get(name))
}

/// Puts a value at a path, making objects on the way.
pub(super) fn put(tree: &mut Value, path: &str, value: Value) {
    let mut node = tree;
    for name in path.split('.') {
        if !node.is_object() {
            *node = Value::Object(Map::new());
        }
        node = &mut node[name];
    }
    *node = value;
}

/// Whether `value` is weaker than `floor`.
pub(super) fn is_weaker(weaker: Weaker, value: &Value, floor: &Value) -> bool {
    match weaker {
        Weaker::Off => value == &Value::Bool(false) && floor == &Value::Bool(true),
        // What is no number does not get here; it would count as weaker.
        Weaker::Lower | Weaker::Higher => match (value.as_f64(), floor.as_f64()) {
            (Some(value), Some(floor)) if weaker == Weaker::Lower => value < floor,
            (Some(value), Some(floor)) => value > floor,
            _ => true,
        },
    }
}
