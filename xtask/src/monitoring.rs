//! What operators load into Prometheus and Grafana, checked with Prometheus' own tool.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::Error;
use crate::step;

/// The alerts of the deployment checklist, and the one that notifications need.
const RULES: [&str; 2] = [
    "docs/prometheus/rules.yml",
    "docs/prometheus/notifications.yml",
];

/// Rules, their tests, and every expression of the dashboard.
///
/// # Errors
/// The failing step's.
pub(crate) fn check(promtool: &Path, folder: &Path) -> Result<(), Error> {
    let docs = step::root().join("docs");
    let promtool = |name: &str, action: &str, file: &Path| {
        step::run(
            name,
            Command::new(promtool).args([action, "rules"]).arg(file),
        )
    };
    for file in RULES {
        let rules = step::root().join(file);
        promtool("promtool: the rules are valid", "check", &rules)?;
    }
    let tests = docs.join("prometheus/rules_test.yml");
    promtool("promtool: the rules fire when they should", "test", &tests)?;
    let dashboard = dashboard_rules(folder, &docs.join("grafana/podium.json"))?;
    promtool(
        "promtool: the dashboard's expressions are valid",
        "check",
        &dashboard,
    )
}

/// The dashboard's expressions as recording rules, which is how promtool reads expressions.
fn dashboard_rules(folder: &Path, dashboard: &Path) -> Result<PathBuf, Error> {
    let text = fs::read_to_string(dashboard).map_err(Error::io(dashboard))?;
    let mut expressions = BTreeSet::new();
    collect(
        &serde_json::from_str(&text).unwrap_or_default(),
        &mut expressions,
    );
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(at, text)| serde_json::json!({"record": format!("dashboard:{at}"), "expr": text}))
        .collect();
    // JSON is YAML.
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let path = folder.join("dashboard-rules.yml");
    fs::write(&path, file.to_string()).map_err(Error::io(&path))?;
    Ok(path)
}

fn collect(value: &Value, expressions: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(text)) = members.get("expr") {
                expressions.insert(text.replace("$__rate_interval", "5m"));
            }
            members
                .values()
                .for_each(|inner| collect(inner, expressions));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect(inner, expressions)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every metric that the rules and the dashboard name is one that the API has.
    #[test]
    fn nobody_waits_for_a_metric_that_does_not_exist() {
        let read = |path: &str| fs::read_to_string(step::root().join(path)).unwrap();
        let code: String = ["mod.rs", "facts.rs", "process.rs"]
            .map(|file| read(&format!("bins/api/src/metrics/{file}")))
            .concat();
        for path in RULES.into_iter().chain(["docs/grafana/podium.json"]) {
            let text = read(path);
            let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            let names = text
                .split(word)
                .filter(|word| word.starts_with("podium_") || word.starts_with("process_"));
            for name in names {
                let base = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix))
                    .unwrap_or(name);
                assert!(code.contains(&format!("\"{base}\"")), "{path}: {name}");
            }
        }
    }

    /// Each rule has a severity and a section of the handbook, which says what to do.
    #[test]
    fn each_alert_leads_to_the_handbook() {
        let read = |path: &str| fs::read_to_string(step::root().join(path)).unwrap();
        let (rules, handbook) = (RULES.map(read).concat(), read("docs/operations.md"));
        let sections = rules
            .lines()
            .filter_map(|line| line.split_once("docs/operations.md, "));
        let sections: Vec<&str> = sections
            .map(|(_, name)| name.trim_end_matches(".\""))
            .collect();
        assert_eq!(sections.len(), 7);
        for section in sections {
            assert!(handbook.contains(&format!("### {section}\n")), "{section}");
        }
    }
}
