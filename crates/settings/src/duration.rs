//! Spans of time as people type them.

use std::time::Duration;

/// A span of time that cannot be read, or is too short or too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a whole number and s, m, h or d, such as 30m; at least 1s and at most {at_most_hours}h")]
pub struct DurationError {
    at_most_hours: u64,
}

/// A whole number and `s`, `m`, `h` or `d`: at least a second, at most so many hours.
///
/// # Errors
/// [`DurationError`] says what it may be.
pub fn parse_duration(text: &str, at_most_hours: u64) -> Result<Duration, DurationError> {
    let seconds = seconds(text).filter(|seconds| (1..=at_most_hours * 3_600).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or(DurationError { at_most_hours })
}

fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_bounded_and_no_text_panics() {
        let parsed = |text| parse_duration(text, 720).map(|span| span.as_secs());
        assert_eq!(parsed("1s"), Ok(1));
        assert_eq!(parsed("30m"), Ok(1_800));
        assert_eq!(parsed("1h"), Ok(3_600));
        assert_eq!(parsed("30d"), Ok(720 * 3_600));
        for bad in [
            "",
            "h",
            "1",
            "0s",
            "-1h",
            "1x",
            "é",
            "1é",
            "é1",
            "1 h",
            "31d",
            "721h",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        assert_eq!(
            parse_duration("25h", 24).unwrap_err().to_string(),
            "a whole number and s, m, h or d, such as 30m; at least 1s and at most 24h"
        );
    }
}
