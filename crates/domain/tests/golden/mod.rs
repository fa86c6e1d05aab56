//! Runs the cases of a file of reference numbers against a function, and names every case that
//! fails.
//!
//! The files are the project's copy in `tests/golden`, or the folder that `PODIUM_GOLDEN_DIR`
//! names. A file that is not there is reported as skipped.

#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a malformed file ends the test"
)]

pub(crate) mod real;

use std::path::PathBuf;

use podium_domain::stats::{Interval, PValues, StatsError};
use serde_json::Value;

/// What a method answers for a case: fields by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer(Vec<(String, Got)>);

/// One field of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Got {
    Number(f64),
    /// The logarithm of a probability.
    Logarithm(f64),
    /// A whole number that may exceed all integers.
    Whole(f64),
    Integer(i64),
    Flag(bool),
    Text(&'static str),
    List(Vec<Got>),
    Object(Answer),
    Null,
}

impl Answer {
    pub(crate) fn number(mut self, name: &str, value: impl Into<Option<f64>>) -> Self {
        let got = value.into().map_or(Got::Null, Got::Number);
        self.0.push((name.to_owned(), got));
        self
    }

    pub(crate) fn integer(mut self, name: &str, value: usize) -> Self {
        self.0
            .push((name.to_owned(), Got::Integer(i64::try_from(value).unwrap())));
        self
    }

    /// An integer, or null.
    pub(crate) fn optional_integer(self, name: &str, value: Option<usize>) -> Self {
        match value {
            Some(value) => self.integer(name, value),
            None => self.number(name, None),
        }
    }

    /// The logarithm of a probability. Where the probability is next to 1 the reference's
    /// logarithm is what 45 digits leave of it, which may even be above 0 (39 in
    /// `bayes_beta_binomial.json`): below 1e-38 it has no digits to compare.
    pub(crate) fn logarithm(mut self, name: &str, value: f64) -> Self {
        self.0.push((name.to_owned(), Got::Logarithm(value)));
        self
    }

    /// A whole number as a float; up to 2^53 it must be equal, beyond that digits are missing.
    pub(crate) fn whole(mut self, name: &str, value: f64) -> Self {
        self.0.push((name.to_owned(), Got::Whole(value)));
        self
    }

    /// The fields of another answer as one object.
    pub(crate) fn object(mut self, name: &str, value: Self) -> Self {
        self.0.push((name.to_owned(), Got::Object(value)));
        self
    }

    pub(crate) fn flag(mut self, name: &str, value: bool) -> Self {
        self.0.push((name.to_owned(), Got::Flag(value)));
        self
    }

    pub(crate) fn text(mut self, name: &str, value: &'static str) -> Self {
        self.0.push((name.to_owned(), Got::Text(value)));
        self
    }

    /// A list of numbers, each of which may be missing.
    pub(crate) fn list(
        mut self,
        name: &str,
        values: impl IntoIterator<Item = Option<f64>>,
    ) -> Self {
        let values = values.into_iter();
        let got = values.map(|value| value.map_or(Got::Null, Got::Number));
        self.0.push((name.to_owned(), Got::List(got.collect())));
        self
    }

    pub(crate) fn interval(self, prefix: &str, value: impl Into<Option<Interval>>) -> Self {
        let value = value.into();
        self.number(
            &format!("{prefix}_lower"),
            value.map(|interval| interval.lower),
        )
        .number(
            &format!("{prefix}_upper"),
            value.map(|interval| interval.upper),
        )
    }

    pub(crate) fn p_values(self, suffix: &str, value: impl Into<Option<PValues>>) -> Self {
        let value = value.into();
        self.number(&format!("p_two_sided{suffix}"), value.map(|p| p.two_sided))
            .number(
                &format!("ln_p_two_sided{suffix}"),
                value.map(|p| p.ln_two_sided),
            )
            .number(&format!("p_greater{suffix}"), value.map(|p| p.greater))
            .number(&format!("p_less{suffix}"), value.map(|p| p.less))
    }
}

/// The input of a case.
pub(crate) struct Input<'a>(&'a Value);

impl Input<'_> {
    /// A number, also one that JSON cannot write.
    pub(crate) fn number(&self, name: &str) -> f64 {
        float(&self.0[name]).unwrap_or_else(|| panic!("no number `{name}` in {}", self.0))
    }

    pub(crate) fn numbers(&self, name: &str) -> Vec<f64> {
        let list = self.0[name]
            .as_array()
            .unwrap_or_else(|| panic!("no list `{name}` in {}", self.0));
        list.iter().map(|value| float(value).unwrap()).collect()
    }

    /// A number, or null.
    pub(crate) fn optional(&self, name: &str) -> Option<f64> {
        (!self.0[name].is_null()).then(|| self.number(name))
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        let text = self.0[name].as_str();
        text.unwrap_or_else(|| panic!("no text `{name}` in {}", self.0))
    }

    pub(crate) fn object(&self, name: &str) -> Input<'_> {
        Input(&self.0[name])
    }
}

fn float(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

/// Where the reference numbers of `group` (stats, real) are.
pub(crate) fn folder(group: &str) -> PathBuf {
    let base = std::env::var_os("PODIUM_GOLDEN_DIR").map(PathBuf::from);
    let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    base.unwrap_or_else(own).join(group)
}

/// The file's content, `None` when it is not there.
pub(crate) fn load(group: &str, name: &str) -> Option<Value> {
    let path = folder(group).join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {group}/{name} is not there");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{group}/{name}: {error}")))
}

/// Runs all cases of a file of the schema described in `tests/golden/stats/README.md`.
pub(crate) fn check(name: &str, answer: impl Fn(&str, &Input<'_>) -> Result<Answer, StatsError>) {
    let Some(file) = load("stats", name) else {
        return;
    };
    let cases = file["cases"].as_array().expect("a list of cases");
    assert!(!cases.is_empty(), "{name} has no cases");
    let mut failures = Vec::new();
    for case in cases {
        let got = answer(case["kind"].as_str().unwrap(), &Input(&case["input"]));
        let tolerances = [&case["tolerance"], &file["tolerance"]];
        for failure in compare(&case["expected"], got, tolerances) {
            failures.push(format!("{}: {failure}", case["id"].as_str().unwrap()));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures in {name}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    println!("{} cases of {name} pass", cases.len());
}

fn compare(
    expected: &Value,
    got: Result<Answer, StatsError>,
    tolerances: [&Value; 2],
) -> Vec<String> {
    match (expected.get("error").and_then(Value::as_str), got) {
        (Some(error), Err(got)) if got.name() == error => vec![],
        (Some(error), Err(got)) => vec![format!("expected {error}, got {}", got.name())],
        (Some(error), Ok(_)) => vec![format!("expected {error}, got an answer")],
        (None, Err(got)) => vec![format!("expected an answer, got {}", got.name())],
        (None, Ok(got)) => compare_fields(expected, &got, tolerances),
    }
}

fn compare_fields(expected: &Value, got: &Answer, tolerances: [&Value; 2]) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, want) in expected.as_object().expect("an object") {
        let Some((_, value)) = got.0.iter().find(|(field, _)| field == name) else {
            failures.push(format!("{name} is missing"));
            continue;
        };
        if let Got::Object(inner) = value {
            let inner = compare_fields(want, inner, tolerances);
            failures.extend(inner.into_iter().map(|failure| format!("{name}.{failure}")));
            continue;
        }
        let tolerance = Tolerance::of(name, tolerances);
        if !matches(value, want, tolerance) {
            failures.push(format!("{name}: expected {want}, got {value:?}"));
        }
    }
    failures
}

fn matches(got: &Got, want: &Value, tolerance: Tolerance) -> bool {
    match got {
        Got::Null => want.is_null(),
        Got::Flag(flag) => want.as_bool() == Some(*flag),
        Got::Text(text) => want.as_str() == Some(*text),
        Got::Integer(integer) => want.as_i64() == Some(*integer),
        Got::List(list) => want.as_array().is_some_and(|want| {
            let same_length = list.len() == want.len();
            same_length
                && list
                    .iter()
                    .zip(want)
                    .all(|(got, want)| matches(got, want, tolerance))
        }),
        Got::Object(_) => false,
        Got::Logarithm(number) => float(want)
            .is_some_and(|want| (number - want).abs() <= 1e-38 || tolerance.allows(*number, want)),
        Got::Whole(number) => float(want).is_some_and(|want| {
            let relative = if want.abs() < 9e15 {
                0.0
            } else {
                tolerance.relative
            };
            (number - want).abs() <= relative * want.abs()
        }),
        Got::Number(number) => float(want).is_some_and(|want| tolerance.allows(*number, want)),
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) relative: f64,
    pub(crate) absolute: f64,
}

impl Tolerance {
    /// The narrowest statement about the field counts: its own, the case's, the file's.
    fn of(field: &str, [case, file]: [&Value; 2]) -> Self {
        let own = |name: &str| {
            let sources = [&case["fields"][field], &file["fields"][field], case, file];
            sources
                .iter()
                .find_map(|source| source[name].as_f64())
                .unwrap_or(0.0)
        };
        Self {
            relative: own("relative"),
            absolute: own("absolute"),
        }
    }

    pub(crate) fn allows(self, got: f64, want: f64) -> bool {
        // A value too small for a normal float may be 0.
        if want.abs() < 1e-300 && got.abs() < 1e-300 {
            return true;
        }
        if !want.is_finite() {
            return got.to_bits() == want.to_bits();
        }
        (got - want).abs() <= self.absolute.max(self.relative * want.abs())
    }
}
