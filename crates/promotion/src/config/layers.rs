//! Merging the layers, and the floor under them.

use podium_domain::fault::{Faults, Pointer, code};
use serde_json::{Map, Value};

use super::environment::Environment;
use super::fields::{FIELDS, Field, check_layer, get, is_weaker, put};
use super::{Preset, PromotionConfig};

/// What a request says of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The name of a preset.
    pub preset: Option<String>,
    /// Settings, as JSON.
    pub config: Option<Value>,
    /// Answer as if, and write nothing.
    pub dry_run: Option<bool>,
}

/// What is in force, and where each value came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The values.
    pub config: PromotionConfig,
    /// The layer of each field, in an object of the same shape: `default`, `preset`, `environment`, `experiment`,
    /// `requestPreset`, `request`.
    pub sources: Value,
    /// The preset that is in force.
    pub preset: Preset,
    /// The preset below which nobody may go.
    pub floor: Preset,
}

/// A layer of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Default,
    Preset,
    Environment,
    Experiment,
    RequestPreset,
    Request,
}

impl Layer {
    const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Preset => "preset",
            Self::Environment => "environment",
            Self::Experiment => "experiment",
            Self::RequestPreset => "requestPreset",
            Self::Request => "request",
        }
    }

    /// Where a field of this layer is pointed at.
    fn pointer(self, path: &str) -> String {
        let base = match self {
            Self::Default | Self::Preset | Self::Environment => {
                Pointer::root().member("environment")
            }
            Self::Experiment => experiment_pointer(),
            Self::RequestPreset => return "/preset".to_owned(),
            Self::Request if path == "dryRun" => return "/dryRun".to_owned(),
            Self::Request => Pointer::root().member("config"),
        };
        let pointer = path.split('.').fold(base, |at, name| at.member(name));
        pointer.into()
    }
}

fn experiment_pointer() -> Pointer {
    Pointer::root()
        .member("experiment")
        .member("config")
        .member("autoPromotion")
}

/// The layers merged so far.
struct Merged {
    values: Value,
    /// The last layer that set each field, in the order of [`FIELDS`].
    from: Vec<Layer>,
}

impl Merged {
    fn new() -> Self {
        Self {
            values: Value::Object(Map::new()),
            from: vec![Layer::Default; FIELDS.len()],
        }
    }

    fn set(&mut self, field: &Field, value: Value, layer: Layer) {
        let value = match (field.path, get(&self.values, field.path)) {
            ("dryRun", Some(Value::Bool(true))) => return,
            ("excludedExperiments", Some(Value::Array(known))) => union(known, &value),
            // The preset of a request brings thresholds; it switches no safety check off.
            (_, Some(Value::Bool(true))) if layer == Layer::RequestPreset && field.is_switch() => {
                return;
            }
            _ => value,
        };
        if let Some(at) = FIELDS.iter().position(|known| known.path == field.path)
            && let Some(from) = self.from.get_mut(at)
        {
            *from = layer;
        }
        put(&mut self.values, field.path, value);
    }

    fn set_preset(&mut self, preset: Preset, layer: Layer) {
        // A configuration of plain values always has a form in JSON.
        let values = serde_json::to_value(preset.config()).unwrap_or_default();
        for field in FIELDS {
            if let Some(value) = get(&values, field.path) {
                if field.in_presets() {
                    self.set(field, value.clone(), layer);
                } else if layer == Layer::Preset {
                    self.set(field, value.clone(), Layer::Default);
                }
            }
        }
    }

    /// Paths of the safety checks that are on.
    fn switched_on(&self) -> Vec<&'static str> {
        let on = |field: &&Field| {
            field.is_switch() && get(&self.values, field.path) == Some(&Value::Bool(true))
        };
        FIELDS.iter().filter(on).map(|field| field.path).collect()
    }

    fn sources(&self) -> Value {
        let mut sources = Value::Object(Map::new());
        for (field, layer) in FIELDS.iter().zip(&self.from) {
            put(&mut sources, field.path, layer.name().into());
        }
        sources
    }

    /// Everything that is weaker than the floor.
    fn below(&self, floor: Preset, faults: &mut Faults) {
        let bound = serde_json::to_value(floor.config()).unwrap_or_default();
        for (field, layer) in FIELDS.iter().zip(&self.from) {
            let (Some(weaker), Some(value), Some(least)) = (
                field.weaker,
                get(&self.values, field.path),
                get(&bound, field.path),
            ) else {
                continue;
            };
            if is_weaker(weaker, value, least) {
                faults.push(
                    layer.pointer(field.path),
                    code::OUT_OF_RANGE,
                    format!(
                        "{} {value} is weaker than {least}, which the floor `{}` asks for",
                        field.path,
                        floor.name()
                    ),
                );
            }
        }
    }
}

fn union(known: &[Value], more: &Value) -> Value {
    let mut all = known.to_vec();
    for value in more.as_array().into_iter().flatten() {
        if !all.contains(value) {
            all.push(value.clone());
        }
    }
    all.into()
}

impl Environment {
    /// What is in force for a request about an experiment, whose `config.autoPromotion` is given where it has one.
    ///
    /// # Errors
    /// Every fault of the experiment's settings and of the request, and everything below the floor, together.
    pub fn resolve(
        &self,
        experiment: Option<&Value>,
        request: &Request,
    ) -> Result<Effective, Faults> {
        let mut faults = Faults::new();
        let mut merged = self.merged();
        if let Some(layer) = experiment {
            for (field, value) in check_layer(layer, &experiment_pointer(), &mut faults) {
                merged.set(field, value, Layer::Experiment);
            }
        }
        let standing = merged.switched_on();
        let mut preset = self.preset;
        if let Some(name) = &request.preset {
            match Preset::parse(name) {
                Some(named) => {
                    preset = named;
                    merged.set_preset(named, Layer::RequestPreset);
                }
                None => faults.push(
                    "/preset",
                    code::UNKNOWN_VALUE,
                    format!(
                        "must be one of {}",
                        Preset::ALL.map(Preset::name).join(", ")
                    ),
                ),
            }
        }
        if let Some(layer) = &request.config {
            let at = Pointer::root().member("config");
            for (field, value) in check_layer(layer, &at, &mut faults) {
                if field.is_switch() && value == false && standing.contains(&field.path) {
                    let detail = format!("{} is on, and no request switches it off", field.path);
                    faults.push(
                        Layer::Request.pointer(field.path),
                        code::OUT_OF_RANGE,
                        detail,
                    );
                } else {
                    merged.set(field, value, Layer::Request);
                }
            }
        }
        if let (Some(dry_run), Some(field)) = (request.dry_run, field_of("dryRun")) {
            merged.set(field, dry_run.into(), Layer::Request);
        }
        merged.below(self.floor, &mut faults);
        match serde_json::from_value(merged.values.clone()) {
            Ok(config) => faults.into_result(Effective {
                config,
                sources: merged.sources(),
                preset,
                floor: self.floor,
            }),
            Err(error) => {
                // Every field has passed its check, so only a field without a row could be the reason.
                faults.push("", code::WRONG_TYPE, error.to_string());
                Err(faults)
            }
        }
    }

    /// What is in force for an experiment apart from any request. Settings of the experiment that are wrong are left out,
    /// because a report must not fail for them; a promotion does.
    #[must_use]
    pub fn standing(&self, experiment: Option<&Value>) -> PromotionConfig {
        let request = Request::default();
        let with_own = self.resolve(experiment, &request);
        let found = with_own.or_else(|_| self.resolve(None, &request));
        found.map_or_else(|_| self.preset.config(), |effective| effective.config)
    }

    /// The layers of the environment.
    fn merged(&self) -> Merged {
        let mut merged = Merged::new();
        merged.set_preset(self.preset, Layer::Preset);
        for (path, value) in &self.values {
            if let Some(field) = field_of(path) {
                merged.set(field, value.clone(), Layer::Environment);
            }
        }
        merged
    }

    /// Whether the environment alone stays above its own floor; otherwise the variable that does not.
    pub(super) fn weakest(&self) -> Option<(&'static str, String)> {
        let (mut faults, merged) = (Faults::new(), self.merged());
        merged.below(self.floor, &mut faults);
        let fault = faults.iter().next()?;
        let path = fault
            .pointer
            .trim_start_matches("/environment/")
            .replace('/', ".");
        let at = FIELDS.iter().position(|field| field.path == path)?;
        let variable = match merged.from.get(at) {
            Some(Layer::Environment) => FIELDS.get(at)?.variable?,
            _ => "AUTO_PROMOTION_PRESET",
        };
        Some((variable, fault.detail.clone()))
    }
}

fn field_of(path: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.path == path)
}
