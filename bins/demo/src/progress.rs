//! Tells how far the demonstration is: a bar on a terminal, lines elsewhere. All of it goes to standard error, so
//! that standard output holds the results alone.

use indicatif::{ProgressBar, ProgressStyle};

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nobody.
    Quiet,
    /// Whoever reads standard error.
    Told,
}

impl Progress {
    /// Tells one line.
    pub fn say(self, line: &str) {
        if self == Self::Told {
            eprintln!("{line}");
        }
    }

    /// A bar of `length` events, which shows itself on a terminal only.
    #[must_use]
    pub fn bar(self, title: &'static str, length: u64) -> ProgressBar {
        if self == Self::Quiet {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(length).with_message(title);
        match ProgressStyle::with_template("  {msg} {wide_bar} {human_pos} of {human_len} events") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}
