//! Answers: tables for people, JSON for programs.

use std::io::Write as _;

use podium_promotion::decide::Decision;
use podium_promotion::engine::{Checked, Item, Promoted, Scan, TakenBack};
use podium_promotion::replay::Replay;
use podium_storage::promotions::read::Stats;
use serde_json::{Value, json};

use crate::error::WorkerError;

/// Writes an answer; whoever closed the pipe has read enough.
fn write(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn answer(
    as_json: bool,
    json: impl FnOnce() -> Result<Value, WorkerError>,
    text: impl FnOnce() -> String,
) -> Result<(), WorkerError> {
    if as_json {
        write(&serde_json::to_string_pretty(&json()?)?);
    } else {
        write(text().trim_end());
    }
    Ok(())
}

/// Columns as wide as their widest cell.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max();
        widest
            .unwrap_or(0)
            .max(head.get(column).map_or(0, |cell| cell.chars().count()))
    };
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .enumerate()
            .map(|(at, cell)| format!("{cell:<0$}", width(at)));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(head.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} %"))
}

/// Names come from outside: a control character must not steer the terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

pub(crate) fn scan(as_json: bool, scan: &Scan) -> Result<(), WorkerError> {
    let to_json = || {
        let results: Result<Vec<Value>, WorkerError> = scan.items.iter().map(item).collect();
        Ok(json!({
            "scanned": scan.items.len(), "eligible": scan.eligible(), "promoted": scan.promoted(),
            "skipped": scan.skipped(), "failed": scan.failed(), "dryRun": scan.effective.config.dry_run,
            "enabled": scan.effective.config.enabled, "results": results?,
        }))
    };
    let to_text = || {
        let rows: Vec<Vec<String>> = scan.items.iter().map(row).collect();
        let mut text = table(
            &["experiment", "outcome", "confidence", "improvement", "why"],
            &rows,
        );
        text.push_str(&format!(
            "{} scanned, {} eligible, {} promoted, {} skipped, {} failed",
            scan.items.len(),
            scan.eligible(),
            scan.promoted(),
            scan.skipped(),
            scan.failed()
        ));
        if scan.effective.config.dry_run {
            text.push_str(" (dry run)");
        }
        if !scan.effective.config.enabled {
            text.push_str("; automatic promotion is disabled");
        }
        text
    };
    answer(as_json, to_json, to_text)
}

fn item(item: &Item) -> Result<Value, WorkerError> {
    let decision = item
        .checked
        .as_ref()
        .map(|checked| decision(checked))
        .transpose()?;
    Ok(json!({
        "experimentId": item.experiment_id, "experimentName": item.experiment_name, "outcome": item.outcome.name(),
        "promotionId": item.promotion_id, "error": item.error.as_ref().map(ToString::to_string), "check": decision,
    }))
}

fn row(item: &Item) -> Vec<String> {
    let decision = item.checked.as_ref().map(|checked| &checked.decision);
    let figures = decision.and_then(|decision| decision.figures.as_ref());
    let why = match (&item.error, decision) {
        (Some(error), _) => error.to_string(),
        (None, Some(decision)) => decision.reasons.join("; "),
        (None, None) => String::new(),
    };
    vec![
        plain(&item.experiment_name),
        item.outcome.name().to_owned(),
        percent(figures.map(|figures| figures.confidence)),
        percent(figures.and_then(|figures| figures.improvement)),
        plain(&why),
    ]
}

fn decision(checked: &Checked) -> Result<Value, WorkerError> {
    let mut value = serde_json::to_value(&checked.decision)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("eligible".to_owned(), checked.decision.is_eligible().into());
        object.insert(
            "experimentName".to_owned(),
            checked.experiment.name.clone().into(),
        );
    }
    Ok(value)
}

pub(crate) fn check(as_json: bool, checked: &Checked) -> Result<(), WorkerError> {
    answer(as_json, || decision(checked), || checked_text(checked))
}

fn checked_text(checked: &Checked) -> String {
    let Decision {
        reasons,
        figures,
        safety_checks,
        eligible_at,
        ..
    } = &checked.decision;
    let winner = checked
        .candidate()
        .map_or_else(|| "-".to_owned(), |t| plain(&t.arm.name));
    let figures = figures.as_ref();
    let mut text = format!(
        "{}: {}\n",
        plain(&checked.experiment.name),
        if checked.decision.is_eligible() {
            "eligible"
        } else {
            "not eligible"
        }
    );
    let rows = [
        ("verdict", checked.decision.verdict.name().to_owned()),
        ("winner", winner),
        (
            "confidence",
            percent(figures.map(|figures| figures.confidence)),
        ),
        (
            "improvement",
            percent(figures.and_then(|figures| figures.improvement)),
        ),
        (
            "eligible at",
            eligible_at.map_or_else(|| "-".to_owned(), |at| at.to_rfc3339()),
        ),
    ];
    text.push_str(&table(
        &["", ""],
        &rows.map(|(name, value)| vec![name.to_owned(), value]),
    ));
    for reason in reasons {
        text.push_str(&format!("- {}\n", plain(reason)));
    }
    let rows: Vec<Vec<String>> = safety_checks
        .iter()
        .map(|check| {
            let passed = if check.passed { "passed" } else { "failed" };
            vec![check.name.clone(), passed.to_owned(), plain(&check.message)]
        })
        .collect();
    text.push_str(&table(&["safety check", "", ""], &rows));
    text
}

pub(crate) fn promoted(as_json: bool, promoted: &Promoted) -> Result<(), WorkerError> {
    let id = promoted.promotion.as_ref().map(|promotion| promotion.id);
    let to_json = || {
        Ok(json!({
            "success": true, "dryRun": id.is_none(), "promotionId": id,
            "experimentName": promoted.checked.experiment.name, "promotedVariantName": promoted.variant_name,
            "decisionId": promoted.record_id, "detectableDrop": promoted.detectable_drop,
            "notificationsSent": promoted.notifications, "check": decision(&promoted.checked)?,
        }))
    };
    let to_text = || {
        let verb = if id.is_some() {
            "promoted"
        } else {
            "would be promoted (dry run)"
        };
        let mut text = format!(
            "{}: {} {verb}\n",
            plain(&promoted.checked.experiment.name),
            plain(&promoted.variant_name)
        );
        if let (Some(id), Some(record)) = (id, promoted.record_id) {
            text.push_str(&format!("promotion {id}, decision {record}\n"));
        }
        if let Some(drop) = promoted.detectable_drop {
            text.push_str(&format!(
                "its guard finds a drop of {:.0} % within the watch with 80 %\n",
                100.0 * drop
            ));
        }
        text
    };
    answer(as_json, to_json, to_text)
}

pub(crate) fn rolled_back(as_json: bool, taken: &TakenBack) -> Result<(), WorkerError> {
    let promotion = &taken.promotion;
    let dry_run = taken.effective.config.dry_run;
    let to_json = || {
        let mut shown = serde_json::to_value(promotion)?;
        if let Value::Object(members) = &mut shown {
            members.insert("dryRun".to_owned(), dry_run.into());
        }
        Ok(shown)
    };
    answer(as_json, to_json, || {
        format!(
            "{}: {} {}",
            plain(&promotion.experiment_name),
            plain(&promotion.promoted_variant_name),
            if dry_run {
                "would be rolled back"
            } else {
                "rolled back"
            }
        )
    })
}

pub(crate) fn stats(as_json: bool, stats: &Stats) -> Result<(), WorkerError> {
    let counts = [
        ("totalPromotions", "promotions", stats.total),
        ("autoPromotions", "automatic", stats.auto),
        ("manualPromotions", "by a person", stats.manual),
        ("activePromotions", "active", stats.active),
        ("rolledBackPromotions", "rolled back", stats.rolled_back),
    ];
    let averages = [
        ("avgConfidence", "average confidence", stats.avg_confidence),
        (
            "avgImprovement",
            "average improvement",
            stats.avg_improvement,
        ),
    ];
    let to_json = || {
        let counts = counts
            .iter()
            .map(|(name, _, count)| ((*name).to_owned(), json!(count)));
        let averages = averages
            .iter()
            .map(|(name, _, average)| ((*name).to_owned(), json!(average)));
        Ok(Value::Object(counts.chain(averages).collect()))
    };
    let to_text = || {
        let counts = counts
            .iter()
            .map(|(_, name, count)| vec![(*name).to_owned(), count.to_string()]);
        let averages = averages
            .iter()
            .map(|(_, name, average)| vec![(*name).to_owned(), percent(*average)]);
        table(&["", ""], &counts.chain(averages).collect::<Vec<_>>())
    };
    answer(as_json, to_json, to_text)
}

pub(crate) fn replay(as_json: bool, replay: &Replay) -> Result<(), WorkerError> {
    answer(
        as_json,
        || Ok(serde_json::to_value(replay)?),
        || {
            let same = if replay.same { "the same" } else { "different" };
            format!(
                "decision {} ({}): {same}; decided by version {}, computed again by {}",
                replay.id, replay.kind, replay.version, replay.present_version
            )
        },
    )
}
