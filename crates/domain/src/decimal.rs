//! Exact decimals with four places, read from the text of a JSON number.
//!
//! Money, traffic weights and allocations are compared and summed exactly, so they never pass
//! through a binary float on their way in. A number with more than four decimals is rounded half
//! to even, which is unbiased over many values; where a rounded number is not wanted (weights)
//! [`Decimal4::parse_exact`] refuses it.

use std::cmp::Ordering;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Decimals kept.
const PLACES: i64 = 4;

/// How many units one is: 10,000.
pub const UNITS_PER_ONE: i64 = 10_000;

/// A decimal number in units of 1/10,000.
///
/// The inner integer is the number times 10,000: `Decimal4(850_000)` is 85. All `i64` are valid;
/// ranges are the caller's business.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Decimal4(pub i64);

/// Why a text is not a [`Decimal4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text does not follow the grammar of JSON numbers.
    #[error("not a decimal number")]
    NotANumber,
    /// The number does not fit 64 bits of ten-thousandths.
    #[error("number too large")]
    TooLarge,
    /// The number is outside the range that the caller named.
    #[error("number outside {min} to {max}")]
    OutOfRange {
        /// Smallest number allowed.
        min: Decimal4,
        /// Largest number allowed.
        max: Decimal4,
    },
    /// The number has more than four decimals and must be exact.
    #[error("more than four decimals")]
    TooManyDecimals,
}

impl Decimal4 {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// The number times 10,000.
    #[must_use]
    pub const fn units(self) -> i64 {
        self.0
    }

    /// Reads the text of a JSON number (`85`, `0.25`, `8.5e1`), rounding half to even after the
    /// fourth decimal.
    ///
    /// # Errors
    /// [`DecimalError::NotANumber`] when the text is not a JSON number (no sign `+`, no leading
    /// zeros, no surrounding blanks); [`DecimalError::TooLarge`] beyond ±922,337,203,685,477.5807.
    pub fn parse(text: &str) -> Result<Self, DecimalError> {
        Rounded::parse(text).map(|rounded| rounded.nearest)
    }

    /// As [`Self::parse`], for a number that must lie in `range` before it is rounded.
    ///
    /// # Errors
    /// Those of [`Self::parse`], and [`DecimalError::OutOfRange`]; a number too large for the type
    /// is out of range too.
    pub fn parse_in(text: &str, range: &RangeInclusive<Self>) -> Result<Self, DecimalError> {
        let (min, max) = (*range.start(), *range.end());
        let outside = DecimalError::OutOfRange { min, max };
        let rounded = match Rounded::parse(text) {
            Err(DecimalError::TooLarge) => return Err(outside),
            other => other?,
        };
        if rounded.compare(min) == Ordering::Less || rounded.compare(max) == Ordering::Greater {
            return Err(outside);
        }
        Ok(rounded.nearest)
    }

    /// As [`Self::parse`], for a number that must not need rounding. Trailing zeros are no
    /// decimals: `0.250000` is exact.
    ///
    /// # Errors
    /// Those of [`Self::parse`], and [`DecimalError::TooManyDecimals`].
    pub fn parse_exact(text: &str) -> Result<Self, DecimalError> {
        let rounded = Rounded::parse(text)?;
        if rounded.exact != Ordering::Equal {
            return Err(DecimalError::TooManyDecimals);
        }
        Ok(rounded.nearest)
    }

    /// The nearest float. Correctly rounded up to ±900,719,925,474 (2^53 units); beyond that within
    /// two units in the last place.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / UNITS_PER_ONE as f64
    }

    /// The sum, `None` when it does not fit.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }
}

/// Shortest exact form: `85`, `0.25`, `-3.5`.
impl fmt::Display for Decimal4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        let one = UNITS_PER_ONE.unsigned_abs();
        let (whole, part) = (units / one, units % one);
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{part:04}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl FromStr for Decimal4 {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        Self::parse(text)
    }
}

/// A number as read: the nearest decimal, and how the exact number compares with it.
struct Rounded {
    nearest: Decimal4,
    exact: Ordering,
}

impl Rounded {
    fn parse(text: &str) -> Result<Self, DecimalError> {
        let number = JsonNumber::split(text).ok_or(DecimalError::NotANumber)?;
        let (magnitude, exact) = number.scaled_magnitude()?;
        if !number.negative {
            let units = i64::try_from(magnitude).map_err(|_| DecimalError::TooLarge)?;
            return Ok(Self {
                nearest: Decimal4(units),
                exact,
            });
        }
        let units = 0_i64
            .checked_sub_unsigned(magnitude)
            .ok_or(DecimalError::TooLarge)?;
        Ok(Self {
            nearest: Decimal4(units),
            exact: exact.reverse(),
        })
    }

    /// Compares the exact number with `bound`.
    fn compare(&self, bound: Decimal4) -> Ordering {
        self.nearest.cmp(&bound).then(self.exact)
    }
}

/// The parts of a JSON number's text.
struct JsonNumber<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Power of ten; absurdly large exponents are saturated, which changes no result.
    exponent: i64,
}

impl<'a> JsonNumber<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (rest, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        let well_formed = is_digits(whole)
            && (whole.len() == 1 || !whole.starts_with('0'))
            && (fraction.is_empty() || is_digits(fraction));
        well_formed.then_some(Self {
            negative,
            whole: whole.as_bytes(),
            fraction: fraction.as_bytes(),
            exponent,
        })
    }

    /// The absolute value in ten-thousandths, rounded half to even, and how the exact absolute
    /// value compares with it.
    fn scaled_magnitude(&self) -> Result<(u64, Ordering), DecimalError> {
        let digits = || {
            self.whole
                .iter()
                .chain(self.fraction)
                .map(|digit| digit - b'0')
        };
        let count = i64::try_from(self.whole.len()).unwrap_or(i64::MAX);
        // Digits before this position are whole units, those behind it are rounded away.
        let kept = count.saturating_add(self.exponent).saturating_add(PLACES);
        let mut magnitude = 0_u64;
        let mut position = 0_i64;
        let mut tail = Tail::default();
        for digit in digits() {
            if position < kept {
                magnitude = push_digit(magnitude, digit)?;
            } else {
                tail.push(digit, position == kept);
            }
            position += 1;
        }
        while position < kept && magnitude != 0 {
            magnitude = push_digit(magnitude, 0)?;
            position += 1;
        }
        tail.round(magnitude)
    }
}

/// What stands behind the last digit that is kept.
#[derive(Default)]
struct Tail {
    first: u8,
    rest: bool,
}

impl Tail {
    fn push(&mut self, digit: u8, is_first: bool) {
        if is_first {
            self.first = digit;
        } else {
            self.rest |= digit != 0;
        }
    }

    fn round(&self, kept: u64) -> Result<(u64, Ordering), DecimalError> {
        let above_half = self.first > 5 || (self.first == 5 && self.rest);
        let tie = self.first == 5 && !self.rest;
        if above_half || (tie && kept % 2 == 1) {
            let up = kept.checked_add(1).ok_or(DecimalError::TooLarge)?;
            return Ok((up, Ordering::Less));
        }
        let exact = if self.first == 0 && !self.rest {
            Ordering::Equal
        } else {
            Ordering::Greater
        };
        Ok((kept, exact))
    }
}

fn push_digit(magnitude: u64, digit: u8) -> Result<u64, DecimalError> {
    magnitude
        .checked_mul(10)
        .and_then(|shifted| shifted.checked_add(u64::from(digit)))
        .ok_or(DecimalError::TooLarge)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !is_digits(digits) {
        return None;
    }
    // Saturation at a billion: no body is long enough for its digits to make up for that.
    let size = digits
        .parse::<i64>()
        .unwrap_or(1_000_000_000)
        .min(1_000_000_000);
    Some(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<String, DecimalError> {
        Decimal4::parse(text).map(|value| value.to_string())
    }

    #[test]
    fn json_numbers_are_read_exactly() {
        for (text, want) in [
            ("85", "85"),
            ("85.00", "85"),
            ("0.25", "0.25"),
            ("8.5e1", "85"),
            ("8.5E+1", "85"),
            ("850e-1", "85"),
            ("0.1", "0.1"),
            ("-3.50", "-3.5"),
            ("-0", "0"),
            ("0e999999999999999999999", "0"),
            ("1e-999999999999999999999", "0"),
            ("1000000000000", "1000000000000"),
            ("0.0001", "0.0001"),
            ("922337203685477.5807", "922337203685477.5807"),
            ("-922337203685477.5808", "-922337203685477.5808"),
            ("0.00000000000000000000000000000001e32", "1"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn the_fifth_decimal_rounds_half_to_even() {
        for (text, want) in [
            ("0.00005", "0"),
            ("0.00015", "0.0002"),
            ("0.00025", "0.0002"),
            ("0.000250001", "0.0003"),
            ("0.00035", "0.0004"),
            ("-0.00015", "-0.0002"),
            ("5e-5", "0"),
            ("5.1e-5", "0.0001"),
            ("9e-6", "0"),
            ("0.99995", "1"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_number_is_refused() {
        for text in [
            "", "-", "+1", "01", "-01", ".5", "1.", "1e", "1e+", "1e1.5", "0x10", "NaN",
            "Infinity", " 1", "1 ", "1_000", "1,5", "٣", "1.2.3", "--1", "1e--1", "1e 1",
        ] {
            assert_eq!(parsed(text), Err(DecimalError::NotANumber), "{text:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for text in [
            "922337203685477.5808",
            "1e999",
            "1e15",
            "-922337203685477.5809",
            "9".repeat(70).as_str(),
        ] {
            assert_eq!(parsed(text), Err(DecimalError::TooLarge), "{text}");
        }
    }

    #[test]
    fn a_range_is_checked_before_rounding() {
        let range = Decimal4::ZERO..=Decimal4(UNITS_PER_ONE);
        for inside in ["0", "-0", "1", "1.0000", "0.99999", "0.00001"] {
            assert!(Decimal4::parse_in(inside, &range).is_ok(), "{inside}");
        }
        for outside in ["-0.00001", "1.00001", "2", "1e300", "-1"] {
            let refused = matches!(
                Decimal4::parse_in(outside, &range),
                Err(DecimalError::OutOfRange { .. })
            );
            assert!(refused, "{outside}");
        }
        assert_eq!(
            Decimal4::parse_in("x", &range),
            Err(DecimalError::NotANumber)
        );
    }

    #[test]
    fn exact_numbers_have_at_most_four_decimals() {
        assert_eq!(Decimal4::parse_exact("33.33330"), Ok(Decimal4(333_333)));
        assert_eq!(
            Decimal4::parse_exact("33.33333"),
            Err(DecimalError::TooManyDecimals)
        );
        assert_eq!(
            Decimal4::parse_exact("1e-5"),
            Err(DecimalError::TooManyDecimals)
        );
    }

    #[test]
    fn sums_and_floats() {
        assert_eq!(Decimal4(2_500).to_f64().to_bits(), 0.25_f64.to_bits());
        assert_eq!(Decimal4(i64::MAX).checked_add(Decimal4(1)), None);
        assert_eq!(Decimal4(1).checked_add(Decimal4(2)), Some(Decimal4(3)));
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(units: i64) {
            let value = Decimal4(units);
            prop_assert_eq!(Decimal4::parse_exact(&value.to_string()), Ok(value));
        }

        #[test]
        fn the_exponent_only_moves_the_point(units in -1_000_000_000_i64..1_000_000_000, shift in 0_i32..30) {
            let value = Decimal4(units);
            let text = format!("{units}{}e-{}", "0".repeat(shift.unsigned_abs() as usize), shift + 4);
            prop_assert_eq!(Decimal4::parse_exact(&text), Ok(value));
        }

        #[test]
        fn rounding_errs_by_at_most_half_a_unit(digits in 0_i64..1_000_000_000_000) {
            // Eight decimals are cut to four; the remainder is compared in integers.
            let text = format!("{}.{:08}", digits / 100_000_000, digits % 100_000_000);
            let nearest = Decimal4::parse(&text).unwrap();
            prop_assert!((nearest.0 * 10_000 - digits).abs() <= 5_000);
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,24}") {
            let _ = Decimal4::parse(&text);
        }
    }
}
