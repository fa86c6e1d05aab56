//! Shows results as text. Pure: what it is given is what it shows, rounded for reading.

use crate::results::{CampaignResults, Comparison, Interval, PositionTest, Rate};

/// How much one may read into the figures.
pub const NOTES: &str = "\
All intervals are 95 % intervals. 38 to 69 clicks a variant make them wide: a result that looks clear may be luck.
A row of a log is a unit with one impression, so the share of units that clicked is the click-through rate (CTR).
The split between the variants is not tested, because each log was cut to 10,000 rows.";

/// Between columns, and before the first.
const GAP: &str = "  ";
/// Of a paragraph, in characters.
const WIDTH: usize = 100;

/// The results of one campaign.
#[must_use]
pub fn render(results: &CampaignResults) -> String {
    let sections = [
        title(results),
        variants(results),
        comparisons(results),
        positions(results),
        items(results),
        verdict(results),
    ];
    sections.join("\n\n")
}

fn title(results: &CampaignResults) -> String {
    let names = results.variants.iter().map(|variant| {
        let note = if variant.is_control { " (control)" } else { "" };
        format!("{}{note}", variant.name)
    });
    format!("{}: {}", results.experiment, joined(names, " against "))
}

fn variants(results: &CampaignResults) -> String {
    let mut rows = vec![head([
        "variant",
        "units",
        "impressions",
        "clicks",
        "CTR",
        "interval",
    ])];
    for variant in &results.variants {
        let start = [variant.name.clone(), count(variant.units)];
        rows.push(
            start
                .into_iter()
                .chain(rate_cells(&variant.total))
                .collect(),
        );
    }
    columns(&rows, 1)
}

fn comparisons(results: &CampaignResults) -> String {
    joined(results.comparisons.iter().map(comparison), "\n")
}

fn comparison(comparison: &Comparison) -> String {
    let Interval { lower, upper } = comparison.relative_lift_interval;
    format!(
        "{GAP}lift of {}: {}, interval {} to {}, p = {:.4} (two-sided pooled z)",
        comparison.variant_name,
        signed_percent(comparison.relative_lift),
        signed_percent(lower),
        signed_percent(upper),
        comparison.p_value
    )
}

fn positions(results: &CampaignResults) -> String {
    let mut rows = vec![head([
        "variant",
        "position",
        "impressions",
        "clicks",
        "CTR",
        "interval",
    ])];
    for row in &results.positions {
        let start = [row.variant_name.clone(), row.position.to_string()];
        rows.push(start.into_iter().chain(rate_cells(&row.rate)).collect());
    }
    let tests = results.position_tests.iter().map(|PositionTest { variant_name, p_value }| {
        format!("{GAP}the same CTR at all positions under {variant_name}: p = {p_value:.4} (chi-square)")
    });
    format!("{}\n{}", columns(&rows, 1), joined(tests, "\n"))
}

fn items(results: &CampaignResults) -> String {
    let mut rows = vec![head([
        "top item",
        "variant",
        "impressions",
        "clicks",
        "CTR",
        "interval",
    ])];
    for item in &results.top_items {
        for within in &item.variants {
            let start = [item.id.clone(), within.variant_name.clone()];
            rows.push(start.into_iter().chain(rate_cells(&within.rate)).collect());
        }
    }
    columns(&rows, 2)
}

fn verdict(results: &CampaignResults) -> String {
    wrapped(&format!("Podium says: {}", results.verdict))
}

fn head(titles: [&str; 6]) -> Vec<String> {
    titles.map(str::to_owned).into()
}

fn rate_cells(rate: &Rate) -> [String; 4] {
    [
        count(rate.impressions),
        count(rate.clicks),
        percent(rate.rate),
        span(rate.interval),
    ]
}

/// The first `left` columns are texts and stand left, the others right.
fn columns(rows: &[Vec<String>], left: usize) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column).unwrap_or_default();
            if column < left {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        format!("{GAP}{}", joined(cells, GAP))
    };
    joined(rows.iter().map(line), "\n")
}

fn joined(parts: impl Iterator<Item = String>, between: &str) -> String {
    parts.collect::<Vec<_>>().join(between)
}

/// A paragraph in lines of at most [`WIDTH`] characters, where its words allow it.
fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{GAP}{word}")),
        }
    }
    lines.join("\n")
}

/// A count with a comma at every thousand.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

fn signed_percent(change: f64) -> String {
    format!("{:+.1} %", change * 100.0)
}

fn span(Interval { lower, upper }: Interval) -> String {
    format!("{:.3} to {:.3} %", lower * 100.0, upper * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{ItemInVariant, ItemResults, PositionResults, VariantResults};

    fn rate(impressions: u64, clicks: u64, rate: f64, lower: f64, upper: f64) -> Rate {
        Rate {
            impressions,
            clicks,
            rate,
            interval: Interval { lower, upper },
        }
    }

    fn variant(name: &str, is_control: bool, total: Rate) -> VariantResults {
        VariantResults {
            name: name.into(),
            is_control,
            units: total.impressions,
            total,
        }
    }

    fn results() -> CampaignResults {
        let on_bts = ItemInVariant {
            variant_name: "bts".into(),
            rate: rate(98, 2, 0.020_408, 0.005_617, 0.071_4),
        };
        CampaignResults {
            experiment: "open-bandit-all".into(),
            variants: vec![
                variant(
                    "random",
                    true,
                    rate(10_000, 38, 0.0038, 0.002_769_9, 0.005_211_2),
                ),
                variant(
                    "bts",
                    false,
                    rate(10_000, 42, 0.0042, 0.003_108_9, 0.005_671_9),
                ),
            ],
            comparisons: vec![Comparison {
                variant_name: "bts".into(),
                relative_lift: 0.105_263,
                relative_lift_interval: Interval {
                    lower: -0.286_698,
                    upper: 0.712_608,
                },
                p_value: 0.654_073,
            }],
            positions: vec![PositionResults {
                position: 1,
                variant_name: "random".into(),
                rate: rate(3_322, 13, 0.003_913_3, 0.002_288_4, 0.006_684_2),
            }],
            position_tests: vec![PositionTest {
                variant_name: "random".into(),
                p_value: 0.880_254,
            }],
            top_items: vec![ItemResults {
                id: "68".into(),
                clicks: 2,
                variants: vec![on_bts],
            }],
            verdict: "Keep running.".into(),
        }
    }

    #[test]
    fn figures_stand_in_columns_under_their_titles() {
        let expected = "\
open-bandit-all: random (control) against bts

  variant   units  impressions  clicks      CTR          interval
  random   10,000       10,000      38  0.380 %  0.277 to 0.521 %
  bts      10,000       10,000      42  0.420 %  0.311 to 0.567 %

  lift of bts: +10.5 %, interval -28.7 % to +71.3 %, p = 0.6541 (two-sided pooled z)

  variant  position  impressions  clicks      CTR          interval
  random          1        3,322      13  0.391 %  0.229 to 0.668 %
  the same CTR at all positions under random: p = 0.8803 (chi-square)

  top item  variant  impressions  clicks      CTR          interval
  68        bts               98       2  2.041 %  0.562 to 7.140 %

  Podium says: Keep running.";
        assert_eq!(render(&results()), expected);
    }

    #[test]
    fn long_advice_is_wrapped_between_words() {
        let advice = "word ".repeat(30);
        let lines: Vec<String> = wrapped(&advice).lines().map(str::to_owned).collect();
        let widths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(widths, [96, 56]);
        assert!(
            lines.iter().all(|line| line.starts_with("  word")),
            "{lines:?}"
        );
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        let grouped = [0, 999, 1_000, 40_195, 123_456, 1_234_567].map(count);
        assert_eq!(
            grouped,
            ["0", "999", "1,000", "40,195", "123,456", "1,234,567"]
        );
    }
}
