//! Free-form JSON objects: metadata of events, configs of experiments and variants.

use crate::fault::code;

/// Largest size of metadata or a config, in bytes as serialised.
pub const MAX_OBJECT_BYTES: usize = 16 * 1_024;
/// Deepest nesting of metadata or a config; the object itself is the first level.
pub const MAX_OBJECT_DEPTH: usize = 16;

/// Longest number in metadata or a config, in characters.
pub const MAX_NUMBER_CHARS: usize = 400;
/// Largest exponent of a number in metadata or a config, up and down: what a double holds.
pub const MAX_EXPONENT: u32 = 308;

/// What is wrong with metadata or a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectFault {
    /// Not a JSON object.
    #[error("must be a JSON object")]
    NotAnObject,
    /// Too many bytes.
    #[error("must have at most {MAX_OBJECT_BYTES} bytes as JSON, has {bytes}")]
    TooLong {
        /// Bytes of the compact JSON text.
        bytes: usize,
    },
    /// Nested too deeply.
    #[error("must be nested at most {MAX_OBJECT_DEPTH} levels deep")]
    TooDeep,
    /// A number that the database cannot hold.
    #[error(
        "must have numbers of at most {MAX_NUMBER_CHARS} characters with exponents from -{MAX_EXPONENT} to {MAX_EXPONENT}"
    )]
    NumberOutOfRange,
}

impl ObjectFault {
    /// The code of this fault in an error answer (see [`crate::fault::code`]).
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotAnObject => code::WRONG_TYPE,
            Self::TooLong { .. } => code::TOO_LONG,
            Self::TooDeep => code::TOO_DEEP,
            Self::NumberOutOfRange => code::OUT_OF_RANGE,
        }
    }
}

/// Checks metadata or a config: an object of at most 16 KiB, nested at most 16 levels deep, whose numbers PostgreSQL's
/// `numeric` holds.
///
/// `json` is the text of one valid JSON value, compact, as it will be stored; validity is the
/// parser's business.
///
/// # Errors
/// The first [`ObjectFault`] that applies.
pub fn check_object(json: &str) -> Result<(), ObjectFault> {
    if !json.trim_start().starts_with('{') {
        return Err(ObjectFault::NotAnObject);
    }
    if json.len() > MAX_OBJECT_BYTES {
        return Err(ObjectFault::TooLong { bytes: json.len() });
    }
    if json_depth(json) > MAX_OBJECT_DEPTH {
        return Err(ObjectFault::TooDeep);
    }
    if has_wild_number(json) {
        return Err(ObjectFault::NumberOutOfRange);
    }
    Ok(())
}

/// Whether a valid JSON text holds a number that is too long or whose exponent is too large.
fn has_wild_number(json: &str) -> bool {
    let mut rest = json.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => skip_string(&mut rest),
            b'0'..=b'9' => {
                let (mut length, mut exponent) = (1_usize, None);
                while let Some(next) = rest.next_if(|next| is_of_number(*next)) {
                    length += 1;
                    exponent = match (next, exponent) {
                        (b'e' | b'E', _) => Some(0_u32),
                        (b'0'..=b'9', Some(value)) => Some(
                            value
                                .saturating_mul(10)
                                .saturating_add(u32::from(next - b'0')),
                        ),
                        (_, exponent) => exponent,
                    };
                }
                if length > MAX_NUMBER_CHARS || exponent.is_some_and(|e| e > MAX_EXPONENT) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

const fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
}

/// The deepest nesting of objects and arrays in a valid JSON text; 0 for a scalar.
#[must_use]
pub fn json_depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_bounded_in_size_and_depth() {
        assert_eq!(check_object("{}"), Ok(()));
        assert_eq!(check_object("[]"), Err(ObjectFault::NotAnObject));
        assert_eq!(check_object("null"), Err(ObjectFault::NotAnObject));
        let deep = |levels: usize| {
            format!(
                "{{\"a\":{}{}}}",
                "[".repeat(levels - 1),
                "]".repeat(levels - 1)
            )
        };
        assert_eq!(check_object(&deep(16)), Ok(()));
        assert_eq!(check_object(&deep(17)), Err(ObjectFault::TooDeep));
        let sized = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert_eq!(check_object(&sized(16_384)), Ok(()));
        assert_eq!(
            check_object(&sized(16_385)),
            Err(ObjectFault::TooLong { bytes: 16_385 })
        );
        assert_eq!(ObjectFault::TooDeep.code(), "too_deep");
    }

    #[test]
    fn numbers_fit_the_database() {
        let object = |number: &str| check_object(&format!("{{\"a\":[{number}]}}"));
        let (long, longer) = ("9".repeat(400), "9".repeat(401));
        for fits in ["0", "-1.5e-308", "1E+308", "1e0000308", "12.25", &long] {
            assert_eq!(object(fits), Ok(()), "{fits}");
        }
        for wild in [
            "1e309",
            "-1E-309",
            "1e200000",
            "1e99999999999999999999",
            &longer,
        ] {
            assert_eq!(object(wild), Err(ObjectFault::NumberOutOfRange), "{wild}");
        }
        assert_eq!(object("\"1e999\""), Ok(()), "a string is no number");
        assert_eq!(check_object("{\"1e999\":\"a1e999\"}"), Ok(()));
        assert_eq!(ObjectFault::NumberOutOfRange.code(), "out_of_range");
    }

    #[test]
    fn brackets_in_strings_are_no_nesting() {
        assert_eq!(json_depth("1"), 0);
        assert_eq!(json_depth(r#"{"[[[":"\"{{{"}"#), 1);
        assert_eq!(json_depth(r#"{"a":[{"b":1},[]],"c":{}}"#), 3);
        assert_eq!(json_depth(r#"["\\",[1]]"#), 2);
    }
}
