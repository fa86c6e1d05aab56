//! Weights of a bandit's variants as they are stored and drawn by: whole ten-thousandths of a percent.

use crate::decimal::Decimal4;

/// Parts that the weights of an epoch add up to: 100 percent of four decimals.
pub const WHOLE: i64 = 1_000_000;

/// Units of an epoch before its weights may change again, so that every stratum can be compared.
pub const LEAST_UNITS: i64 = 50;

/// By how much some weight has to change before an epoch is opened for it, as a fraction.
pub const LEAST_CHANGE: f64 = 0.01;

/// Probabilities in percent of four decimals, which add up to exactly 100: each is rounded down, and what is left goes to
/// those that lost most. None that is above zero becomes zero.
///
/// Source: Hamilton's method of the largest remainder.
#[must_use]
pub fn percents(probabilities: &[f64]) -> Vec<Decimal4> {
    let scaled: Vec<f64> = probabilities
        .iter()
        .map(|p| p.clamp(0.0, 1.0) * as_float(WHOLE))
        .collect();
    let mut parts: Vec<i64> = scaled
        .iter()
        .map(|p| i64::from(*p > 0.0).max(whole(*p)))
        .collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|a, b| {
        let lost = |at: usize| scaled[at] - as_float(parts[at]);
        lost(*b).total_cmp(&lost(*a)).then(a.cmp(b))
    });
    let mut missing = WHOLE - parts.iter().sum::<i64>();
    for at in order.iter().cycle().take(2 * order.len()) {
        if missing <= 0 {
            break;
        }
        parts[*at] += 1;
        missing -= 1;
    }
    // What is still missing, or too much because tiny ones were raised, is the largest one's.
    if let Some(largest) = parts.iter_mut().max() {
        *largest += missing;
    }
    parts.into_iter().map(Decimal4).collect()
}

/// Whether new weights differ enough from those in force to open an epoch.
#[must_use]
pub fn differ(new: &[Decimal4], old: &[Decimal4]) -> bool {
    let gap = |(a, b): (&Decimal4, &Decimal4)| a.units().abs_diff(b.units());
    let largest = new.iter().zip(old).map(gap).max().unwrap_or(0);
    new.len() != old.len()
        || as_float(i64::try_from(largest).unwrap_or(WHOLE)) >= LEAST_CHANGE * as_float(WHOLE)
}

#[expect(clippy::cast_precision_loss, reason = "at most a million")]
const fn as_float(parts: i64) -> f64 {
    parts as f64
}

#[expect(clippy::cast_possible_truncation, reason = "at most a million")]
const fn whole(parts: f64) -> i64 {
    parts as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(probabilities: &[f64]) -> Vec<i64> {
        percents(probabilities).iter().map(|p| p.units()).collect()
    }

    #[test]
    fn weights_add_up_to_the_whole() {
        assert_eq!(units(&[0.5, 0.5]), [500_000, 500_000]);
        let thirds = [1.0 / 3.0; 3];
        assert_eq!(units(&thirds), [333_334, 333_333, 333_333]);
        assert_eq!(units(&[1.0 - 1e-12, 1e-12]), [999_999, 1]);
        assert_eq!(units(&[1.0, 0.0]), [1_000_000, 0]);
        for arms in [1_usize, 2, 7, 80, 300] {
            let raw: Vec<f64> = (1..=arms).map(|n| 1.0 / n as f64).collect();
            let sum: f64 = raw.iter().sum();
            let even: Vec<f64> = raw.iter().map(|p| p / sum).collect();
            assert_eq!(units(&even).iter().sum::<i64>(), WHOLE, "{arms}");
        }
    }

    #[test]
    fn a_percentage_point_is_enough_to_matter() {
        let old = percents(&[0.5, 0.5]);
        assert!(!differ(&percents(&[0.509, 0.491]), &old));
        assert!(differ(&percents(&[0.51, 0.49]), &old));
        assert!(differ(&percents(&[0.5, 0.3, 0.2]), &old));
    }
}
