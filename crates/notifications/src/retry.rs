//! When to try again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use podium_domain::notification::Channel;

/// `Retry-After` counts up to here.
const LONGEST_WISH: Duration = Duration::from_secs(3_600);

/// The base of the table; its delays scale by the base in force over this.
const TABLE_BASE_MS: u128 = 5_000;

/// Seconds from one try to the next.
const PATIENT: [u64; 7] = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000];
const QUICK: [u64; 7] = [5, 30, 120, 600, 1_800, 7_200, 21_600];

/// The wait after the failed try number `attempt` (from 1), before jitter; `None` after the last one.
#[must_use]
pub fn delay(channel: Channel, attempt: u32, base: Duration) -> Option<Duration> {
    let table = match channel {
        Channel::Webhook => &PATIENT,
        Channel::Slack | Channel::Pagerduty | Channel::Email => &QUICK,
    };
    let at = usize::try_from(attempt.max(1) - 1).ok()?;
    table
        .get(at)
        .map(|seconds| scaled(Duration::from_secs(*seconds), base))
}

/// A time of the table at the base in force.
#[must_use]
pub fn scaled(time: Duration, base: Duration) -> Duration {
    let micros = time.as_micros().saturating_mul(base.as_millis()) / TABLE_BASE_MS;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// The wait with a jitter of ± 20 %; `chance` is uniform in [0, 1).
#[must_use]
pub fn jittered(delay: Duration, chance: f64) -> Duration {
    delay.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
}

/// What a header `Retry-After` asks for: seconds or an HTTP date, at most an hour. What is neither asks for nothing, and
/// so does a date in the past.
#[must_use]
pub fn wish(header: Option<&str>, now: DateTime<Utc>) -> Option<Duration> {
    let header = header?.trim();
    let wish = if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are longer than an hour as well.
        header.parse().map_or(LONGEST_WISH, Duration::from_secs)
    } else {
        let date = DateTime::parse_from_rfc2822(header).ok()?;
        (date.with_timezone(&Utc) - now).to_std().ok()?
    };
    Some(wish.min(LONGEST_WISH)).filter(|wish| !wish.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(5_000);

    fn seconds(channel: Channel) -> Vec<u64> {
        (1..)
            .map_while(|attempt| delay(channel, attempt, BASE))
            .map(|delay| delay.as_secs())
            .collect()
    }

    #[test]
    fn eight_tries_by_the_table() {
        assert_eq!(seconds(Channel::Slack), QUICK);
        assert_eq!(seconds(Channel::Email), QUICK);
        assert_eq!(seconds(Channel::Pagerduty), QUICK);
        assert_eq!(seconds(Channel::Webhook), PATIENT);
    }

    #[test]
    fn delays_scale_with_the_base() {
        let tenth = delay(Channel::Slack, 2, Duration::from_millis(500));
        assert_eq!(tenth, Some(Duration::from_secs(3)));
        let least = delay(Channel::Slack, 7, Duration::from_millis(1));
        assert_eq!(least, Some(Duration::from_millis(4_320)));
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let hundred = Duration::from_secs(100);
        assert_eq!(jittered(hundred, 0.0), Duration::from_secs(80));
        assert_eq!(jittered(hundred, 0.5), hundred);
        assert!(jittered(hundred, 0.999_999) < Duration::from_secs(120));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-03-01T12:00:00Z")
            .unwrap()
            .with_timezone(&Utc);
        for (header, want) in [
            ("30", Some(30)),
            (" 7 ", Some(7)),
            ("1000000000", Some(3_600)),
            ("99999999999999999999999999", Some(3_600)),
            ("Sun, 01 Mar 2026 12:00:45 GMT", Some(45)),
            ("Sun, 01 Mar 2026 18:00:00 GMT", Some(3_600)),
            ("Sun, 01 Mar 2026 11:00:00 GMT", None),
            ("0", None),
            ("-5", None),
            ("+5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
            ("2026-03-01T12:00:45Z", None),
        ] {
            let want = want.map(Duration::from_secs);
            assert_eq!(wish(Some(header), now), want, "{header:?}");
        }
        assert_eq!(wish(None, now), None);
    }
}
