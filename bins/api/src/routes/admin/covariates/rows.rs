//! Rows of an upload and what is wrong with them.

use podium_domain::decimal::{Decimal4, DecimalError};
use podium_domain::fault::{Fault, Faults, code};
use podium_storage::experiments::covariates::{CovariateRow, MAX_VALUE};

use crate::problem::ApiError;

/// Faults that an answer names.
pub(super) const NAMED: usize = 100;

/// What was read and not handed on yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Rows without a fault.
    pub(super) rows: Vec<CovariateRow>,
    /// Each with the place at which it stands.
    faults: Vec<(i64, Fault)>,
}

impl Batch {
    pub(super) fn fault(
        &mut self,
        place: i64,
        pointer: String,
        code: &'static str,
        detail: impl Into<String>,
    ) {
        // Places rise, so those that are left out are the last ones.
        if self.faults.len() < NAMED {
            let detail = detail.into();
            self.faults.push((
                place,
                Fault {
                    pointer,
                    code,
                    detail,
                },
            ));
        }
    }

    /// Whether later faults would not be named.
    pub(super) fn is_full(&self) -> bool {
        self.faults.len() >= NAMED
    }

    /// The first faults by place, with those of units that stand there twice.
    ///
    /// # Errors
    /// 422, when there are any.
    pub(super) fn conclude(
        mut self,
        repeated: &[i64],
        pointer: impl Fn(i64) -> String,
    ) -> Result<(), ApiError> {
        self.faults.extend(repeated.iter().map(|place| {
            let fault = Fault {
                pointer: format!("{}/unit", pointer(*place)),
                code: code::DUPLICATE,
                detail: "stands in this upload already".to_owned(),
            };
            (*place, fault)
        }));
        self.faults.sort_by_key(|(place, _)| *place);
        let mut faults = Faults::new();
        for (_, fault) in self.faults.into_iter().take(NAMED) {
            faults.push(fault.pointer, fault.code, fault.detail);
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ApiError::validation(faults))
        }
    }
}

/// A covariate, from the text of a JSON number.
///
/// # Errors
/// Code and text of the fault.
pub(super) fn value(text: &str) -> Result<Decimal4, (&'static str, String)> {
    let range = Decimal4(-MAX_VALUE.units())..=MAX_VALUE;
    let exact = Decimal4::parse_in(text, &range).and_then(|_| Decimal4::parse_exact(text));
    exact.map_err(|error| match error {
        DecimalError::NotANumber => (code::WRONG_TYPE, "must be a number".to_owned()),
        DecimalError::TooManyDecimals => (
            code::TOO_MANY_DECIMALS,
            "must have at most four decimals".to_owned(),
        ),
        DecimalError::OutOfRange { .. } | DecimalError::TooLarge => (
            code::OUT_OF_RANGE,
            format!("must be {} to {}", range.start(), range.end()),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_exact_numbers_within_a_trillion() {
        for (text, want) in [
            ("0", 0),
            ("-0", 0),
            ("12.5", 125_000),
            ("-0.0001", -1),
            ("1.50000", 15_000),
            ("1e12", 10_000_000_000_000_000),
            ("-1000000000000", -10_000_000_000_000_000),
        ] {
            assert_eq!(value(text), Ok(Decimal4(want)), "{text}");
        }
        for (text, want) in [
            ("", "wrong_type"),
            (" 1", "wrong_type"),
            ("+1", "wrong_type"),
            ("1,5", "wrong_type"),
            ("0x1", "wrong_type"),
            ("NaN", "wrong_type"),
            ("Infinity", "wrong_type"),
            ("0.00001", "too_many_decimals"),
            ("1000000000000.0001", "out_of_range"),
            ("1e300", "out_of_range"),
            ("-1e99999999999999999999", "out_of_range"),
        ] {
            assert_eq!(value(text).unwrap_err().0, want, "{text}");
        }
    }

    #[test]
    fn the_first_hundred_faults_are_named_in_order() {
        let mut batch = Batch::default();
        for place in (2..=400).step_by(2) {
            batch.fault(place, format!("/{place}/value"), code::WRONG_TYPE, "x");
        }
        assert!(batch.is_full());
        let error = batch
            .conclude(&[3, 5, 300], |place| format!("/{place}"))
            .unwrap_err();
        let pointers: Vec<String> = error
            .field_errors()
            .into_iter()
            .map(|e| e.pointer)
            .collect();
        assert_eq!(pointers.len(), NAMED);
        assert_eq!(
            pointers[..4],
            ["/2/value", "/3/unit", "/4/value", "/5/unit"]
        );
        assert_eq!(pointers[NAMED - 1], "/196/value");
        assert!(Batch::default().conclude(&[], |_| String::new()).is_ok());
    }
}
