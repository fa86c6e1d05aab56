//! The configuration's layer of the environment.

use serde_json::Value;

use super::Preset;
use super::fields::{FIELDS, Field, Kind};

/// What the environment says, read once at the start of a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Environment {
    /// `AUTO_PROMOTION_PRESET`; balanced without it.
    pub preset: Preset,
    /// `AUTO_PROMOTION_FLOOR`: nobody may ask for less than this preset does; aggressive without it.
    pub floor: Preset,
    /// `AUTO_NOTIFY_ALERTS`: whether alerts are sent, or only listed.
    pub notify_alerts: bool,
    /// Fields that a variable sets, by path.
    pub(super) values: Vec<(&'static str, Value)>,
}

/// A variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {problem}")]
pub struct EnvironmentError {
    /// The variable.
    pub name: &'static str,
    /// What is wrong with it; never its value.
    pub problem: String,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            preset: Preset::Balanced,
            floor: Preset::Aggressive,
            notify_alerts: true,
            values: Vec::new(),
        }
    }
}

impl Environment {
    /// Reads every variable; an empty one counts as not set.
    ///
    /// # Errors
    /// [`EnvironmentError`] for the first variable that cannot be read, or that goes below the floor.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let mut environment = Self {
            preset: preset(&get, "AUTO_PROMOTION_PRESET")?.unwrap_or(Preset::Balanced),
            floor: preset(&get, "AUTO_PROMOTION_FLOOR")?.unwrap_or(Preset::Aggressive),
            notify_alerts: match get("AUTO_NOTIFY_ALERTS").as_deref().map(str::trim) {
                None | Some("true") => true,
                Some("false") => false,
                Some(_) => return Err(unreadable("AUTO_NOTIFY_ALERTS", "true or false")),
            },
            values: Vec::new(),
        };
        for field in FIELDS {
            if let Some(name) = field.variable
                && let Some(text) = get(name)
            {
                environment
                    .values
                    .push((field.path, value(field, name, &text)?));
            }
        }
        match environment.weakest() {
            None => Ok(environment),
            Some((name, problem)) => Err(EnvironmentError { name, problem }),
        }
    }
}

fn unreadable(name: &'static str, wanted: &str) -> EnvironmentError {
    EnvironmentError {
        name,
        problem: format!("must be {wanted}"),
    }
}

fn preset(
    get: &impl Fn(&str) -> Option<String>,
    name: &'static str,
) -> Result<Option<Preset>, EnvironmentError> {
    let Some(text) = get(name) else {
        return Ok(None);
    };
    let names = Preset::ALL.map(Preset::name).join(", ");
    let preset = Preset::parse(text.trim());
    preset
        .map(Some)
        .ok_or_else(|| unreadable(name, &format!("one of {names}")))
}

fn value(field: &Field, name: &'static str, text: &str) -> Result<Value, EnvironmentError> {
    let wanted = || unreadable(name, &field.kind.wanted());
    let parsed: Value = match field.kind {
        Kind::Names => {
            let names = text.split(',').map(str::trim);
            names.filter(|name| !name.is_empty()).collect()
        }
        Kind::Number(..) | Kind::Whole(..) => {
            let number: f64 = text.trim().parse().map_err(|_| wanted())?;
            number.into()
        }
        _ => serde_json::from_str(text.trim()).map_err(|_| wanted())?,
    };
    field.kind.check(&parsed).map_err(|_| wanted())
}
