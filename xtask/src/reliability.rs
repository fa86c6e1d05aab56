//! The promises at full size: `docs/reliability.md` says which test holds which.

use crate::error::Error;
use crate::step;

/// Themes of `tests/it` that hold promises, one after the other, so that they do not disturb each other's figures.
const THEMES: &[&str] = &[
    "crash",
    "outage",
    "drain",
    "pressure",
    "full_disk",
    "snapshot_file",
    "replicas",
    "soak",
];

/// Runs every theme; further arguments go to the test program.
///
/// # Errors
/// [`Error::Failed`] when a test fails.
pub(crate) fn run(args: &[String]) -> Result<(), Error> {
    for theme in THEMES {
        let filter = format!("{theme}::");
        let mut cargo = step::cargo([
            "test",
            "--release",
            "--locked",
            "-p",
            "podium-tests",
            "--test",
            "it",
            "--",
        ]);
        cargo.args([
            &filter,
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        step::run(theme, cargo.args(args).env("PODIUM_FULL", "1"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A promise whose test was renamed or deleted is no promise.
    #[test]
    fn every_test_that_the_table_names_exists() {
        let read = |path: &str| std::fs::read_to_string(step::root().join(path)).unwrap();
        let table = read("docs/reliability.md");
        let names: Vec<(&str, &str)> = table
            .split('`')
            .filter_map(|word| word.rsplit_once("::"))
            .collect();
        assert!(names.len() > 20, "{names:?}");
        for (theme, test) in names {
            let text = read(&format!("tests/it/{}.rs", theme.replace("::", "/")));
            assert!(text.contains(&format!("fn {test}(")), "{theme}::{test}");
        }
        for theme in THEMES {
            assert!(
                step::root().join(format!("tests/it/{theme}.rs")).exists(),
                "{theme}"
            );
        }
    }
}
