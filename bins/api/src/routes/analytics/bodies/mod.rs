//! Answers of the analytics routes, as the OpenAPI document shows them.
//!
//! Names of the earlier system keep their percents (`clickThroughRate`, `conversionRate`, `lift`, `significance`); every
//! other rate is a fraction.

mod comparison;
mod figures;
mod report;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

pub use self::comparison::*;
pub use self::figures::*;
pub use self::report::*;

/// An exact decimal number as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = f64)]
pub struct Money(pub Box<RawValue>);

impl Money {
    /// From the exact text of the database; zeros at the end are cut.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let short = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            text
        };
        let number = if short.is_empty() || short == "-" {
            "0"
        } else {
            short
        };
        RawValue::from_string(number.to_owned())
            .map_or_else(|_| Self(RawValue::NULL.to_owned()), Self)
    }
}

/// An interval at 95 %.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Range {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

impl From<podium_domain::stats::Interval> for Range {
    fn from(interval: podium_domain::stats::Interval) -> Self {
        Self {
            lower: interval.lower,
            upper: interval.upper,
        }
    }
}
#[cfg(test)]
mod tests {
    use super::Money;

    #[test]
    fn money_is_written_exactly() {
        for (text, json) in [
            ("85.0000", "85"),
            ("0.2500", "0.25"),
            ("0", "0"),
            ("100", "100"),
            ("12345678901234.5678", "12345678901234.5678"),
            ("-1.50", "-1.5"),
            ("0.0000", "0"),
        ] {
            assert_eq!(serde_json::to_string(&Money::new(text)).unwrap(), json);
        }
    }
}
