//! Shows results as text. Pure: what it is given is what it shows, rounded for reading.

use crate::results::{CampaignResults, Comparison, Interval, Rate};

/// How much one may read into the figures.
pub const NOTES: &str = "\
Intervals are 95 % intervals. With 38 to 69 clicks a variant they are wide: read them before the rates.
There is no test of the split between the variants, because each log was cut to 10,000 rows.";

/// Spaces between columns.
const GAP: &str = "  ";

/// The results of one campaign.
#[must_use]
pub fn render(results: &CampaignResults) -> String {
    let sections = [
        format!("{}: {}", results.experiment, names(results)),
        variants(results),
        comparison(&results.comparison),
        positions(results),
        items(results),
    ];
    sections.join("\n\n")
}

fn names(results: &CampaignResults) -> String {
    let names = results.variants.iter().map(|variant| {
        format!("{}{}", variant.name, if variant.is_control { " (control)" } else { "" })
    });
    names.collect::<Vec<_>>().join(" against ")
}

fn variants(results: &CampaignResults) -> String {
    let mut rows = vec![head(&["variant", "units", "impressions", "clicks", "CTR", "interval"])];
    for variant in &results.variants {
        let mut row = vec![variant.name.clone(), count(variant.units)];
        row.extend(rate_cells(&variant.total));
        rows.push(row);
    }
    columns(&rows, 1)
}

fn comparison(comparison: &Comparison) -> String {
    format!(
        "  lift of {} over {}: {}, interval {} to {}; p = {:.4} (two-sided, pooled z)",
        comparison.treatment,
        comparison.control,
        signed_percent(comparison.lift),
        signed_percent(comparison.lift_interval.lower),
        signed_percent(comparison.lift_interval.upper),
        comparison.p_value
    )
}

fn positions(results: &CampaignResults) -> String {
    let mut rows = vec![head(&["position", "variant", "impressions", "clicks", "CTR", "interval"])];
    for position in &results.positions {
        let mut row = vec![position.position.to_string(), position.variant.clone()];
        row.extend(rate_cells(&position.rate));
        rows.push(row);
    }
    columns(&rows, 2)
}

fn items(results: &CampaignResults) -> String {
    let mut rows = vec![head(&["top items", "impressions", "clicks", "CTR", "interval"])];
    for item in &results.top_items {
        let mut row = vec![item.item_id.clone()];
        row.extend(rate_cells(&item.rate));
        rows.push(row);
    }
    columns(&rows, 1)
}

fn head(titles: &[&str]) -> Vec<String> {
    titles.iter().map(|title| (*title).to_owned()).collect()
}

fn rate_cells(rate: &Rate) -> [String; 4] {
    [count(rate.impressions), count(rate.clicks), percent(rate.rate), span(&rate.interval)]
}

/// The first `left` columns are texts and stand left, the others right.
fn columns(rows: &[Vec<String>], left: usize) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column).unwrap_or_default();
            if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("{GAP}{}", cells.collect::<Vec<_>>().join(GAP))
    });
    lines.collect::<Vec<_>>().join("\n")
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

fn span(interval: &Interval) -> String {
    format!("{:.3} to {:.3} %", interval.lower * 100.0, interval.upper * 100.0)
}
