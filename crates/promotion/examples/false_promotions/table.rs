//! The tables of `docs/false-promotions.md`.

use crate::cell::{Cell, Gates, PresetName, SimulatedMetric};
use crate::summary::{Summary, standard_error};

/// What a row is held against.
#[derive(Clone, Copy, Debug)]
enum Promise {
    /// At most alpha, and three standard errors.
    AtMostAlpha,
    /// The same, and not needlessly far below: at least this share.
    AtLeast(f64),
    /// Half are promoted by a look, and this share by look 30.
    Soon(usize, f64),
    /// A figure, without a goal.
    Told,
}

/// One row: one kind of experiment.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cell: Cell,
    promise: Promise,
}

/// Rows under one head.
pub(crate) struct Table {
    is_power: bool,
    pub(crate) rows: Vec<Row>,
}

impl Table {
    /// The head, in Markdown.
    pub(crate) fn head(&self) -> String {
        let columns: &[&str] = if self.is_power {
            &[
                "row",
                "runs",
                "promoted, %",
                "the better one, %",
                "median look",
                "by look 10, %",
                "by look 30, %",
                "goal",
                "kept",
            ]
        } else {
            &[
                "row",
                "runs",
                "promoted, %",
                "confidence reached, %",
                "limit, %",
                "kept",
                "fixed test, one side, %",
                "two sides, %",
            ]
        };
        let rule = vec!["---"; columns.len()].join(" | ");
        format!("| {} |\n| {rule} |", columns.join(" | "))
    }
}

impl Row {
    pub(crate) fn is_meant(&self, names: &str) -> bool {
        names == "all" || self.name.starts_with(names)
    }

    /// Whether the promise was kept, as far as the runs can tell: within three standard errors.
    pub(crate) fn is_kept(&self, summary: &Summary) -> bool {
        let slack = |rate: f64| 3.0 * standard_error(rate, summary.runs);
        match self.promise {
            Promise::AtMostAlpha => summary.kept != Some(false),
            Promise::AtLeast(least) => {
                summary.kept != Some(false) && summary.rate >= least - slack(least)
            }
            Promise::Soon(look, power) => {
                summary.rate_by(look) >= 0.5 - slack(0.5)
                    && summary.rate_by(30) >= power - slack(power)
            }
            Promise::Told => true,
        }
    }

    /// The row, in Markdown.
    pub(crate) fn text(&self, summary: &Summary) -> String {
        let of = |share: f64| {
            format!(
                "{:.2} ± {:.2}",
                100.0 * share,
                100.0 * standard_error(share, summary.runs)
            )
        };
        let kept = if self.is_kept(summary) {
            "yes"
        } else {
            "**no**"
        };
        let (name, runs, rate) = (&self.name, summary.runs, of(summary.rate));
        let Some(power) = summary.power else {
            return format!(
                "| {name} | {runs} | {rate} | {} | {:.2} | {kept} | {} | {} |",
                of(summary.confident_rate),
                100.0 * summary.limit.unwrap_or(f64::NAN),
                of(summary.fixed_horizon_rate),
                of(summary.fixed_horizon_two_sided_rate),
            );
        };
        let median = summary
            .median_look
            .map_or("—".to_owned(), |look| look.to_string());
        format!(
            "| {name} | {runs} | {rate} | {} | {median} | {} | {} | {} | {} |",
            of(power),
            of(summary.rate_by(10)),
            of(summary.rate_by(30)),
            self.goal(),
            if matches!(self.promise, Promise::Told) {
                ""
            } else {
                kept
            },
        )
    }

    fn goal(&self) -> String {
        match self.promise {
            Promise::Soon(look, power) => {
                format!("median ≤ {look}, ≥ {:.0} % by look 30", 100.0 * power)
            }
            _ => String::new(),
        }
    }
}

/// 10 % baseline, two variants, 2,000 units a variant and day, balanced without gates, 30 daily looks, no effect.
const USUAL: Cell = Cell {
    preset: PresetName::Balanced,
    gates: Gates::Off,
    metric: SimulatedMetric::ConversionRate,
    baseline: 0.1,
    lift: 0.0,
    variants: 2,
    looks: 30,
    units_per_look: 2_000,
    hours_per_look: 24,
};

const PRESETS: [(&str, PresetName); 3] = [
    ("aggressive", PresetName::Aggressive),
    ("balanced", PresetName::Balanced),
    ("conservative", PresetName::Conservative),
];

/// Hourly looks of 30 days at the usual traffic.
fn hourly(cell: &Cell) -> Cell {
    Cell {
        looks: 720,
        units_per_look: 83,
        hours_per_look: 1,
        ..cell.clone()
    }
}

fn row(name: &str, cell: Cell, promise: Promise) -> Row {
    Row {
        name: name.to_owned(),
        cell,
        promise,
    }
}

/// Every table.
pub(crate) fn all() -> Vec<Table> {
    let tables = [
        (false, schedules()),
        (false, variants_and_baselines()),
        (false, metrics()),
        (true, power()),
    ];
    let table = |(is_power, rows)| Table { is_power, rows };
    tables.into_iter().map(table).collect()
}

/// A/A experiments under each preset, looked at daily and hourly, with and without gates.
fn schedules() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, preset) in PRESETS {
        for (word, gates) in [("", Gates::On), ("-gates-off", Gates::Off)] {
            let cell = Cell {
                preset,
                gates,
                ..USUAL
            };
            let used_up = preset == PresetName::Balanced && gates == Gates::Off;
            let of_90 = if used_up {
                Promise::AtLeast(0.025)
            } else {
                Promise::AtMostAlpha
            };
            let days = |looks: u32| Cell {
                looks,
                ..cell.clone()
            };
            rows.push(row(
                &format!("aa-30-daily-{name}{word}"),
                days(30),
                Promise::AtMostAlpha,
            ));
            rows.push(row(&format!("aa-90-daily-{name}{word}"), days(90), of_90));
            rows.push(row(
                &format!("aa-720-hourly-{name}{word}"),
                hourly(&cell),
                Promise::AtMostAlpha,
            ));
        }
    }
    rows
}

fn variants_and_baselines() -> Vec<Row> {
    let of_variants = (3..=5).map(|variants| {
        let cell = Cell { variants, ..USUAL };
        row(
            &format!("aa-30-daily-{variants}-variants"),
            cell,
            Promise::AtMostAlpha,
        )
    });
    let hourly_variants = row(
        "aa-720-hourly-5-variants",
        hourly(&Cell {
            variants: 5,
            ..USUAL
        }),
        Promise::AtMostAlpha,
    );
    let of_baselines = [0.01, 0.03, 0.2, 0.3].map(|baseline| {
        let cell = Cell { baseline, ..USUAL };
        row(
            &format!("aa-30-daily-baseline-{:.0}", 100.0 * baseline),
            cell,
            Promise::AtMostAlpha,
        )
    });
    let few = Cell {
        units_per_look: 200,
        baseline: 0.01,
        ..USUAL
    };
    of_variants
        .chain([hourly_variants])
        .chain(of_baselines)
        .chain([row(
            "aa-30-daily-200-units-baseline-1",
            few,
            Promise::AtMostAlpha,
        )])
        .collect()
}

/// Metrics that are not shares of units.
fn metrics() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, metric, baseline) in [
        ("ratio", SimulatedMetric::Ratio, 0.1),
        ("ratio-baseline-30", SimulatedMetric::Ratio, 0.3),
        ("revenue", SimulatedMetric::RevenuePerUser, 0.05),
    ] {
        let cell = Cell {
            metric,
            baseline,
            ..USUAL
        };
        let gated = Cell {
            gates: Gates::On,
            ..cell.clone()
        };
        for (name, cell) in [
            (format!("aa-30-daily-{name}"), cell),
            (format!("aa-30-daily-{name}-balanced"), gated),
        ] {
            rows.push(row(&name, cell, Promise::AtMostAlpha));
        }
    }
    rows
}

/// One better treatment, 60 daily looks.
fn power() -> Vec<Row> {
    let of = |baseline, lift| Cell {
        baseline,
        lift,
        looks: 60,
        ..USUAL
    };
    let mut rows = vec![
        row("power-10-plus-10", of(0.1, 0.1), Promise::Soon(5, 0.9)),
        row("power-10-plus-5", of(0.1, 0.05), Promise::Soon(19, 0.68)),
        row("power-3-plus-10", of(0.03, 0.1), Promise::Soon(19, 0.74)),
        row("power-30-plus-3", of(0.3, 0.03), Promise::Told),
        row(
            "power-10-plus-10-4-variants",
            Cell {
                variants: 4,
                ..of(0.1, 0.1)
            },
            Promise::Told,
        ),
    ];
    for (name, preset) in PRESETS {
        for lift in [0.05, 0.1, 0.2] {
            let cell = Cell {
                preset,
                gates: Gates::On,
                ..of(0.1, lift)
            };
            rows.push(row(
                &format!("power-10-plus-{:.0}-{name}", 100.0 * lift),
                cell,
                Promise::Told,
            ));
        }
    }
    for (name, metric, baseline) in [
        ("ratio", SimulatedMetric::Ratio, 0.1),
        ("revenue", SimulatedMetric::RevenuePerUser, 0.05),
    ] {
        let cell = Cell {
            metric,
            ..of(baseline, 0.1)
        };
        rows.push(row(&format!("power-{name}-plus-10"), cell, Promise::Told));
    }
    rows
}
