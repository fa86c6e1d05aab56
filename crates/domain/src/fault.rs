//! Faults of a request body, collected so that an answer names all of them at once.
//!
//! To add a kind of fault, add its name to [`code`]; names are part of the API and never change.

use std::fmt::{self, Write as _};

/// Names of faults, as they stand in the `errors` of an error answer.
pub mod code {
    /// A field that must be there is missing.
    pub const REQUIRED: &str = "required";
    /// A field has another JSON type than it should.
    pub const WRONG_TYPE: &str = "wrong_type";
    /// A field that does not exist here.
    pub const UNKNOWN_FIELD: &str = "unknown_field";
    /// A field that only the server sets.
    pub const READ_ONLY: &str = "read_only";
    /// A number, date or list length outside its range.
    pub const OUT_OF_RANGE: &str = "out_of_range";
    /// A number with more decimals than are kept exactly.
    pub const TOO_MANY_DECIMALS: &str = "too_many_decimals";
    /// A text with too few characters.
    pub const TOO_SHORT: &str = "too_short";
    /// A text or document with too many characters.
    pub const TOO_LONG: &str = "too_long";
    /// A document nested too deeply.
    pub const TOO_DEEP: &str = "too_deep";
    /// A text with control characters, or one that would read as something else.
    pub const INVALID_TEXT: &str = "invalid_text";
    /// A value that is none of the words allowed here.
    pub const UNKNOWN_VALUE: &str = "unknown_value";
    /// A metric that is not in the catalogue.
    pub const UNKNOWN_METRIC: &str = "unknown_metric";
    /// A guardrail metric where a primary metric is asked for.
    pub const GUARDRAIL_AS_PRIMARY: &str = "guardrail_as_primary";
    /// The same thing named twice in a list.
    pub const DUPLICATE: &str = "duplicate";
    /// A variant that is not of the experiment.
    pub const UNKNOWN_VARIANT: &str = "unknown_variant";
}

/// One thing that is wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where: a JSON pointer (RFC 6901); empty for the whole document.
    pub pointer: String,
    /// What kind, from [`code`].
    pub code: &'static str,
    /// What, in words for people; lower case, without a final dot.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => f.write_str(&self.detail),
            pointer => write!(f, "{pointer}: {}", self.detail),
        }
    }
}

/// A place in a JSON document, from which pointers to its members are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// The whole document.
    #[must_use]
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// The member `name` of the object here, escaped as RFC 6901 wants it.
    #[must_use]
    pub fn member(&self, name: &str) -> Self {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        Self(format!("{}/{escaped}", self.0))
    }

    /// The element `index` of the array here.
    #[must_use]
    pub fn element(&self, index: usize) -> Self {
        // A pointer for each event of a batch, of which few are ever shown: one piece of memory, and no `format!`.
        let mut text = String::with_capacity(self.0.len() + 8);
        text.push_str(&self.0);
        // Writing into a string cannot fail.
        let _ = write!(text, "/{index}");
        Self(text)
    }

    /// The pointer's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.0
    }
}

/// Collects faults; a value passes only when there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// No faults yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Notes a fault.
    pub fn push(
        &mut self,
        pointer: impl Into<String>,
        code: &'static str,
        detail: impl Into<String>,
    ) {
        self.0.push(Fault {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
        });
    }

    /// Passes a checked value on, or notes why there is none.
    pub fn check<T, E>(
        &mut self,
        pointer: &Pointer,
        code: &'static str,
        result: Result<T, E>,
    ) -> Option<T>
    where
        E: fmt::Display,
    {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.push(pointer.as_str(), code, error.to_string());
                None
            }
        }
    }

    /// Notes the fault of a text, if it has one.
    pub fn check_text(&mut self, pointer: &Pointer, result: Result<(), crate::text::TextFault>) {
        if let Err(fault) = result {
            self.push(pointer.as_str(), fault.code(), fault.to_string());
        }
    }

    /// Takes over the faults of another collection.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether nothing is wrong so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many faults there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The faults, in the order in which they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    /// The faults, in the order in which they were found.
    #[must_use]
    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }

    /// `value`, when nothing is wrong.
    ///
    /// # Errors
    /// The faults themselves, when there are any.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped() {
        let pointer = Pointer::root().member("config").member("a/b~c").element(3);
        assert_eq!(pointer.as_str(), "/config/a~1b~0c/3");
        assert_eq!(Pointer::root().as_str(), "");
        assert_eq!(Pointer::root().member("").as_str(), "/");
    }

    #[test]
    fn all_faults_are_reported_in_order() {
        let mut faults = Faults::new();
        assert!(faults.is_empty());
        faults.push("/name", code::REQUIRED, "is required");
        let weight = Pointer::root().member("weight");
        let read = faults.check(
            &weight,
            code::OUT_OF_RANGE,
            crate::decimal::Decimal4::parse("x"),
        );
        assert_eq!(read, None);
        faults.check_text(&Pointer::root(), crate::text::check_key(""));
        faults.check_text(&Pointer::root(), crate::text::check_key("fine"));
        assert_eq!(faults.len(), 3);
        let text = faults.to_string();
        assert_eq!(
            text,
            "/name: is required; /weight: not a decimal number; must have at least 1 character(s)"
        );
        assert_eq!(faults.clone().into_result(5), Err(faults));
        assert_eq!(Faults::new().into_result(5), Ok(5));
    }

    #[test]
    fn a_fault_serialises_as_in_an_answer() {
        let mut faults = Faults::new();
        let mut more = Faults::new();
        more.push("/a", code::UNKNOWN_FIELD, "unknown field");
        faults.append(more);
        let json = serde_json::to_string(&faults.into_vec()).unwrap();
        assert_eq!(
            json,
            r#"[{"pointer":"/a","code":"unknown_field","detail":"unknown field"}]"#
        );
    }
}
