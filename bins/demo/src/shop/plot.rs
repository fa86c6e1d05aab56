//! Lines over time, as an SVG picture and on a terminal.

use std::fmt::Write as _;

/// Size of the picture, and of the margin that holds the labels.
const SIZE: (f64, f64) = (860.0, 460.0);
const MARGIN: f64 = 60.0;
/// Colours that people tell apart, also those who see fewer.
const COLOURS: [&str; 3] = ["#999999", "#0072b2", "#d55e00"];
/// Columns and rows of the terminal's plot.
const CELLS: (usize, usize) = (64, 16);
const MARKS: [char; 3] = ['.', '+', '*'];

/// A line: one value for each step.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name.
    pub name: &'static str,
    /// Its values, from the first step on.
    pub values: Vec<f64>,
}

fn highest(curves: &[Curve]) -> f64 {
    let all = curves.iter().flat_map(|curve| curve.values.iter().copied());
    all.fold(0.0, f64::max).max(1.0)
}

/// The picture of what came together in so many days.
#[must_use]
pub fn svg(title: &str, days: u32, curves: &[Curve]) -> String {
    let (width, height) = SIZE;
    let top = highest(curves);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="14" role="img">
<title>{title}</title>
<rect width="{width}" height="{height}" fill="white"/>
<text x="{MARGIN}" y="28" font-size="17">{title}</text>
"#
    );
    for day in (0..=days).step_by(2) {
        let x = MARGIN + f64::from(day) / f64::from(days.max(1)) * (width - 3.0 * MARGIN);
        // Writing to a text does not fail.
        let _ = writeln!(
            svg,
            r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">day {day}</text>"#,
            height - MARGIN + 22.0
        );
    }
    for part in 0..=4 {
        let share = f64::from(part) / 4.0;
        let y = place(share, height);
        let value = share * top;
        let _ = writeln!(
            svg,
            r##"<line x1="{MARGIN}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="#dddddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{value:.0}</text>"##,
            width - MARGIN * 2.0,
            MARGIN - 8.0,
            y + 5.0
        );
    }
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let points: Vec<String> = points(curve, top)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let end = curve.values.last().copied().unwrap_or_default();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2.5"/><text x="{:.1}" y="{:.1}" fill="{colour}">{} {end:.0}</text>"#,
            points.join(" "),
            width - MARGIN * 2.0 + 8.0,
            place(end / top, height) + 5.0,
            curve.name
        );
    }
    svg + "</svg>\n"
}

/// Where a share of the height is.
fn place(share: f64, height: f64) -> f64 {
    height - MARGIN + share * (2.0 * MARGIN - height)
}

fn points(curve: &Curve, top: f64) -> impl Iterator<Item = (f64, f64)> {
    let steps = curve.values.len().max(1) as f64;
    let (width, height) = SIZE;
    let begin = std::iter::once(0.0);
    let values = begin.chain(curve.values.iter().copied()).enumerate();
    values.map(move |(step, value)| {
        let x = MARGIN + step as f64 / steps * (width - 3.0 * MARGIN);
        (x, place(value / top, height))
    })
}

/// The cell, counted from 0, of a share of `last` cells.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates, and shares are not negative"
)]
fn cell_of(share: f64, last: usize) -> usize {
    ((share * last as f64).round() as usize).min(last)
}

/// The plot for a terminal.
#[must_use]
pub fn terminal(curves: &[Curve]) -> String {
    let (columns, rows) = CELLS;
    let top = highest(curves);
    let mut cells = vec![vec![' '; columns]; rows];
    for (curve, mark) in curves.iter().zip(MARKS) {
        for column in 0..columns {
            let step = (column + 1) * curve.values.len() / columns;
            let value = step.checked_sub(1).and_then(|step| curve.values.get(step));
            let share = value.copied().unwrap_or_default() / top;
            let row = rows - 1 - cell_of(share, rows - 1);
            if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                *cell = mark;
            }
        }
    }
    let mut text = String::new();
    for (number, row) in cells.iter().enumerate() {
        let label = top * (rows - 1 - number) as f64 / (rows - 1) as f64;
        let line: String = row.iter().collect();
        let _ = writeln!(text, "{label:>8.0} |{}", line.trim_end());
    }
    let legend: Vec<String> = curves
        .iter()
        .zip(MARKS)
        .map(|(curve, mark)| format!("{mark} {}", curve.name))
        .collect();
    let _ = writeln!(
        text,
        "{:>8} +{}\n{:>10}{}",
        "",
        "-".repeat(columns),
        "",
        legend.join("   ")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves() -> Vec<Curve> {
        let curve = |name, step: f64| Curve {
            name,
            values: (1..=10).map(|n| step * f64::from(n)).collect(),
        };
        vec![
            curve("uniform", 1.0),
            curve("A/B", 2.0),
            curve("bandit", 4.0),
        ]
    }

    #[test]
    fn a_picture_has_every_line_and_its_end() {
        let svg = svg("Clicks", 14, &curves());
        assert_eq!(svg.matches("<polyline").count(), 3);
        for end in ["uniform 10", "A/B 20", "bandit 40", "day 0", "day 14"] {
            assert!(svg.contains(end), "{end}");
        }
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
        assert!(!super::svg("Nothing", 0, &[]).contains("NaN"));
    }

    #[test]
    fn the_highest_line_ends_in_the_upper_right_corner() {
        let plot = terminal(&curves());
        let first = plot.lines().next().unwrap();
        assert!(
            first.starts_with("      40 |") && first.ends_with('*'),
            "{first}"
        );
        assert_eq!(plot.lines().count(), CELLS.1 + 2);
        assert!(plot.contains(". uniform   + A/B   * bandit"));
    }
}
