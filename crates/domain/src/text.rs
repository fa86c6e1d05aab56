//! Rules for text that comes from outside: length in characters, no control characters.
//!
//! U+0000 cannot be stored in PostgreSQL text or jsonb, and the other control characters have no
//! business in ids and names that end up in logs, e-mail subjects and CSV files.

use std::ops::RangeInclusive;

/// Characters of a unit id.
pub const UNIT_ID_CHARS: RangeInclusive<usize> = 1..=255;
/// Characters of an event, item, brand or arm id.
pub const KEY_CHARS: RangeInclusive<usize> = 1..=128;
/// Characters of the name of an experiment or variant.
pub const NAME_CHARS: RangeInclusive<usize> = 1..=128;
/// Characters of the reason of a rollback or a forced promotion.
pub const REASON_CHARS: RangeInclusive<usize> = 1..=1_000;
/// Digits of a unit id that is given as a JSON integer.
const UNIT_NUMBER_DIGITS: usize = 19;

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    /// Fewer characters than allowed.
    #[error("must have at least {min} character(s)")]
    TooShort {
        /// Least number of characters.
        min: usize,
    },
    /// More characters than allowed.
    #[error("must have at most {max} characters")]
    TooLong {
        /// Largest number of characters.
        max: usize,
    },
    /// A character from U+0000 to U+001F, or U+007F.
    #[error("must not contain control characters (U+{code_point:04X})")]
    ControlCharacter {
        /// The first such character.
        code_point: u32,
    },
    /// Only white space.
    #[error("must not be blank")]
    Blank,
    /// Only digits, which would read as an id.
    #[error("must not consist of digits only, that would be an id")]
    AllDigits,
    /// A number that is no integer of at most 19 digits.
    #[error("must be text, or an integer of at most 19 digits")]
    NotAUnitNumber,
}

impl TextFault {
    /// The code of this fault in an error answer (see [`crate::fault::code`]).
    #[must_use]
    pub fn code(self) -> &'static str {
        use crate::fault::code;
        match self {
            Self::TooShort { .. } | Self::Blank => code::TOO_SHORT,
            Self::TooLong { .. } => code::TOO_LONG,
            Self::ControlCharacter { .. } | Self::AllDigits => code::INVALID_TEXT,
            Self::NotAUnitNumber => code::WRONG_TYPE,
        }
    }
}

/// Checks length (in characters) and the absence of U+0000 to U+001F and U+007F.
///
/// # Errors
/// The first of [`TextFault::TooShort`], [`TextFault::TooLong`] and
/// [`TextFault::ControlCharacter`] that applies.
pub fn check_text(text: &str, min_chars: usize, max_chars: usize) -> Result<(), TextFault> {
    let chars = text.chars().count();
    if chars < min_chars {
        return Err(TextFault::TooShort { min: min_chars });
    }
    if chars > max_chars {
        return Err(TextFault::TooLong { max: max_chars });
    }
    check_characters(text)
}

/// Checks the absence of control characters alone: the rule for every string of a body.
///
/// # Errors
/// [`TextFault::ControlCharacter`].
pub fn check_characters(text: &str) -> Result<(), TextFault> {
    // Control characters are single bytes in UTF-8 and never part of a longer sequence.
    match text.bytes().find(|byte| *byte < 0x20 || *byte == 0x7f) {
        Some(byte) => Err(TextFault::ControlCharacter {
            code_point: byte.into(),
        }),
        None => Ok(()),
    }
}

/// Checks a unit id (a `user_id` or `session_id`): 1 to 255 characters.
///
/// # Errors
/// As [`check_text`].
pub fn check_unit_id(text: &str) -> Result<(), TextFault> {
    check_in(text, &UNIT_ID_CHARS)
}

/// Turns the text of a JSON number into a unit id. `1` and `"1"` are one unit.
///
/// # Errors
/// [`TextFault::NotAUnitNumber`] for fractions, exponents and more than 19 digits.
pub fn unit_id_from_number(number: &str) -> Result<&str, TextFault> {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let plain = (1..=UNIT_NUMBER_DIGITS).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    // JSON allows a minus sign before zero; it is the same number.
    match (plain, number) {
        (true, "-0") => Ok("0"),
        (true, _) => Ok(number),
        (false, _) => Err(TextFault::NotAUnitNumber),
    }
}

/// Checks an event, item, brand or arm id: 1 to 128 characters.
///
/// # Errors
/// As [`check_text`].
pub fn check_key(text: &str) -> Result<(), TextFault> {
    check_in(text, &KEY_CHARS)
}

/// Checks the name of an experiment: 1 to 128 characters, not blank, and not all digits, because
/// such a text is an id in paths, queries and headers.
///
/// # Errors
/// As [`check_text`], [`TextFault::Blank`], [`TextFault::AllDigits`].
pub fn check_experiment_name(name: &str) -> Result<(), TextFault> {
    check_variant_name(name)?;
    if name.trim().bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TextFault::AllDigits);
    }
    Ok(())
}

/// Checks the name of a variant: 1 to 128 characters, not blank.
///
/// # Errors
/// As [`check_text`], [`TextFault::Blank`].
pub fn check_variant_name(name: &str) -> Result<(), TextFault> {
    check_in(name, &NAME_CHARS)?;
    if name.trim().is_empty() {
        return Err(TextFault::Blank);
    }
    Ok(())
}

/// Checks the reason of a rollback or a forced promotion: 1 to 1,000 characters, not blank.
///
/// # Errors
/// As [`check_text`], [`TextFault::Blank`].
pub fn check_reason(reason: &str) -> Result<(), TextFault> {
    check_in(reason, &REASON_CHARS)?;
    if reason.trim().is_empty() {
        return Err(TextFault::Blank);
    }
    Ok(())
}

fn check_in(text: &str, chars: &RangeInclusive<usize>) -> Result<(), TextFault> {
    check_text(text, *chars.start(), *chars.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_in_characters() {
        assert_eq!(check_unit_id(&"ü".repeat(255)), Ok(()));
        assert_eq!(
            check_unit_id(&"ü".repeat(256)),
            Err(TextFault::TooLong { max: 255 })
        );
        assert_eq!(check_unit_id(""), Err(TextFault::TooShort { min: 1 }));
        assert_eq!(check_key(&"🛒".repeat(128)), Ok(()));
        assert_eq!(
            check_key(&"🛒".repeat(129)),
            Err(TextFault::TooLong { max: 128 })
        );
    }

    #[test]
    fn every_control_character_is_refused_and_nothing_else() {
        for code_point in 0..=0x2ff_u32 {
            let text = format!("a{}b", char::from_u32(code_point).unwrap());
            let control = code_point < 0x20 || code_point == 0x7f;
            assert_eq!(
                check_text(&text, 1, 9).is_err(),
                control,
                "U+{code_point:04X}"
            );
        }
        assert_eq!(
            check_characters("a\nb"),
            Err(TextFault::ControlCharacter { code_point: 10 })
        );
    }

    #[test]
    fn unit_numbers_are_integers_of_at_most_19_digits() {
        for (number, want) in [
            ("1", "1"),
            ("-5", "-5"),
            ("-0", "0"),
            ("1234567890123456789", "1234567890123456789"),
        ] {
            assert_eq!(unit_id_from_number(number), Ok(want));
        }
        for number in ["1.0", "1e3", "12345678901234567890", "", "-", "1.5"] {
            assert_eq!(
                unit_id_from_number(number),
                Err(TextFault::NotAUnitNumber),
                "{number}"
            );
        }
    }

    #[test]
    fn names_are_neither_blank_nor_numbers() {
        assert_eq!(check_experiment_name("Module Order Optimization"), Ok(()));
        assert_eq!(check_experiment_name("2026-q1"), Ok(()));
        assert_eq!(check_experiment_name("42"), Err(TextFault::AllDigits));
        assert_eq!(check_experiment_name(" 42 "), Err(TextFault::AllDigits));
        assert_eq!(check_experiment_name("   "), Err(TextFault::Blank));
        assert_eq!(check_variant_name("\u{a0}"), Err(TextFault::Blank));
        assert_eq!(check_variant_name("1"), Ok(()));
        assert_eq!(
            check_experiment_name(&"n".repeat(129)),
            Err(TextFault::TooLong { max: 128 })
        );
    }

    #[test]
    fn reasons_have_up_to_a_thousand_characters() {
        assert_eq!(check_reason(&"r".repeat(1_000)), Ok(()));
        assert_eq!(
            check_reason(&"r".repeat(1_001)),
            Err(TextFault::TooLong { max: 1_000 })
        );
        assert_eq!(check_reason(" "), Err(TextFault::Blank));
    }

    #[test]
    fn every_fault_has_a_code_and_a_text() {
        let fault = check_key("").unwrap_err();
        assert_eq!(fault.code(), "too_short");
        assert_eq!(TextFault::AllDigits.code(), "invalid_text");
        assert_eq!(TextFault::TooLong { max: 3 }.code(), "too_long");
        assert_eq!(
            TextFault::ControlCharacter { code_point: 7 }.to_string(),
            "must not contain control characters (U+0007)"
        );
    }
}
