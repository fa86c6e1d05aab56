//! Medians over pairs, and what they are judged by.

use serde::Serialize;

/// Median, minimum and maximum of one figure over all pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = match (
            values.get(half),
            half.checked_sub(1).and_then(|before| values.get(before)),
        ) {
            (Some(upper), Some(lower)) if values.len().is_multiple_of(2) => {
                f64::midpoint(*lower, *upper)
            }
            (Some(middle), _) => *middle,
            (None, _) => return None,
        };
        Some(Self { median, min, max })
    }
}

/// What the median of a figure must keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    /// Not more than this.
    AtMost(f64),
    /// Not less than this.
    AtLeast(f64),
    /// A figure beside the goals, for orientation.
    Told,
}

impl Bar {
    /// Whether the median keeps it; `None` where nothing is asked.
    pub(crate) fn kept(self, spread: Spread) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(spread.median <= limit),
            Self::AtLeast(limit) => Some(spread.median >= limit),
            Self::Told => None,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// Goal of the specification.
    pub(crate) goal: u8,
    /// What was measured.
    pub(crate) what: String,
    /// Unit of the figures; empty for ratios.
    pub(crate) unit: &'static str,
    pub(crate) spread: Spread,
    pub(crate) bar: Bar,
}

/// Collects the lines of one goal.
#[derive(Debug)]
pub(crate) struct Lines {
    goal: u8,
    lines: Vec<Line>,
}

impl Lines {
    pub(crate) const fn of(goal: u8) -> Self {
        Self {
            goal,
            lines: Vec::new(),
        }
    }

    /// Adds a line; without values there is none.
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        bar: Bar,
        values: impl IntoIterator<Item = f64>,
    ) {
        if let Some(spread) = Spread::of(values) {
            self.lines.push(Line {
                goal: self.goal,
                what: what.into(),
                unit,
                spread,
                bar,
            });
        }
    }

    /// Adds a ratio of two figures of each pair.
    pub(crate) fn ratio<P>(
        &mut self,
        what: impl Into<String>,
        bar: Bar,
        pairs: &[P],
        of: impl Fn(&P) -> (f64, f64),
    ) {
        let values = pairs
            .iter()
            .map(of)
            .map(|(measured, yardstick)| measured / yardstick);
        self.add(what, "", bar, values);
    }

    pub(crate) fn done(self) -> Vec<Line> {
        self.lines
    }
}

/// The value below which `share` of the sorted values lie; 0 without values.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index below the length"
    )]
    let at = ((values.len() as f64 * share).ceil() as usize).saturating_sub(1);
    values.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(
            Spread::of([4.0, 1.0, 2.0, 3.0]),
            Some(Spread {
                median: 2.5,
                min: 1.0,
                max: 4.0
            })
        );
        assert_eq!(
            Spread::of([5.0, 1.0, 2.0]),
            Some(Spread {
                median: 2.0,
                min: 1.0,
                max: 5.0
            })
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_bar_is_kept_by_the_median() {
        let spread = Spread {
            median: 1.2,
            min: 1.0,
            max: 9.0,
        };
        assert_eq!(Bar::AtMost(1.3).kept(spread), Some(true));
        assert_eq!(Bar::AtLeast(1.3).kept(spread), Some(false));
        assert_eq!(Bar::Told.kept(spread), None);
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 0.99).to_bits(), 198f64.to_bits());
        assert_eq!(percentile(&mut [7.0], 0.99).to_bits(), 7f64.to_bits());
    }
}
