//! The result as a table that can be read and pasted.

use std::fmt::Write;

use serde::Serialize;

use crate::figures::{Bar, Line};

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Result {
    /// What describes machine and run, as name and value.
    pub(crate) conditions: Vec<(String, String)>,
    pub(crate) lines: Vec<Line>,
    /// Goals without figures, and why.
    pub(crate) failed: Vec<(u8, String)>,
}

impl Result {
    /// As Markdown.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("\n");
        for (name, value) in &self.conditions {
            let _ = writeln!(text, "- {name}: {value}");
        }
        text.push_str(
            "\n| goal | what | median [min, max] | bar | |\n| --- | --- | --- | --- | --- |\n",
        );
        for line in &self.lines {
            let _ = writeln!(text, "{}", row(line));
        }
        for (goal, reason) in &self.failed {
            let _ = writeln!(text, "| {goal} | no figures: {reason} | | | |");
        }
        text
    }
}

/// One row.
pub(crate) fn row(line: &Line) -> String {
    let spread = line.spread;
    let unit = if line.unit.is_empty() {
        String::new()
    } else {
        format!(" {}", line.unit)
    };
    let bar = match line.bar {
        Bar::AtMost(limit) => format!("≤ {}", number(limit)),
        Bar::AtLeast(limit) => format!("≥ {}", number(limit)),
        Bar::Told => String::new(),
    };
    let verdict = match line.bar.kept(spread) {
        Some(true) => "kept",
        Some(false) => "**missed**",
        None => "",
    };
    let (median, min, max) = (
        number(spread.median),
        number(spread.min),
        number(spread.max),
    );
    format!(
        "| {} | {} | {median} [{min}, {max}]{unit} | {bar} | {verdict} |",
        line.goal, line.what
    )
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Spread;

    #[test]
    fn a_row_says_whether_its_bar_is_kept() {
        let spread = Spread {
            median: 1.234,
            min: 1.0,
            max: 12.34,
        };
        let line = Line {
            goal: 1,
            what: "x".into(),
            unit: "ms",
            spread,
            bar: Bar::AtMost(1.2),
        };
        assert_eq!(
            row(&line),
            "| 1 | x | 1.23 [1.00, 12.3] ms | ≤ 1.20 | **missed** |"
        );
        let line = Line {
            bar: Bar::Told,
            unit: "",
            ..line
        };
        assert_eq!(row(&line), "| 1 | x | 1.23 [1.00, 12.3] |  |  |");
    }
}
