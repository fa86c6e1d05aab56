//! The logs that are replayed: a sample of the Open Bandit Dataset, carried inside the binary.
//!
//! Its README (`tests/data/open-bandit`) names source, licence and columns.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::error::DemoError;

const HEADER: &str = "timestamp,item_id,position,click,propensity_score,";

/// A set of items that was recommended; each is one experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Campaign {
    /// All items, 80 of them.
    All,
    /// Men's items, 34 of them.
    Men,
}

impl Campaign {
    /// Every campaign, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::All, Self::Men];

    /// The dataset's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Men => "men",
        }
    }

    /// Name of the experiment that the campaign is replayed into.
    #[must_use]
    pub const fn experiment(self) -> &'static str {
        match self {
            Self::All => "open-bandit-all",
            Self::Men => "open-bandit-men",
        }
    }
}

/// How the shop chose the items; each is one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Every item with the same probability: the control.
    Random,
    /// Bernoulli Thompson sampling, which had learnt for more than a month: the treatment.
    Bts,
}

impl Policy {
    /// Control first.
    pub const ALL: [Self; 2] = [Self::Random, Self::Bts];

    /// The dataset's name for it, also the variant's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Bts => "bts",
        }
    }
}

/// One item that was shown at one position. There is no user in the logs, so each row is a unit of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// When it was shown, as the log writes it.
    pub timestamp: String,
    /// The item, from 0.
    pub item_id: u32,
    /// 1 left, 2 centre, 3 right.
    pub position: u32,
    /// Whether it was clicked.
    pub clicked: bool,
    /// Probability, 0 to 1, with which the policy put this item at this position.
    pub propensity: f64,
}

/// The rows of one policy in one campaign, in order of time.
#[derive(Clone, Debug)]
pub struct Log {
    /// What was recommended.
    pub campaign: Campaign,
    /// How it was chosen.
    pub policy: Policy,
    /// What was shown.
    pub rows: Vec<Row>,
}

impl Log {
    /// Reads a log that the binary carries.
    ///
    /// # Errors
    /// [`DemoError::Log`] and [`DemoError::Row`] when the file is damaged.
    pub fn read(campaign: Campaign, policy: Policy) -> Result<Self, DemoError> {
        let mut text = String::new();
        GzDecoder::new(compressed(campaign, policy))
            .read_to_string(&mut text)
            .map_err(|source| DemoError::Log {
                name: log_name(campaign, policy),
                source,
            })?;
        let rows = parse(&text).map_err(|line| DemoError::Row {
            name: log_name(campaign, policy),
            line,
        })?;
        Ok(Self {
            campaign,
            policy,
            rows,
        })
    }

    /// The unit of a row: policy, campaign and the row's 0-based index, such as `random_all:17`.
    #[must_use]
    pub fn unit(&self, index: usize) -> String {
        format!("{}:{index}", log_name(self.campaign, self.policy))
    }

    /// How many rows were clicked.
    #[must_use]
    pub fn clicks(&self) -> usize {
        self.rows.iter().filter(|row| row.clicked).count()
    }
}

fn log_name(campaign: Campaign, policy: Policy) -> String {
    format!("{}_{}", policy.name(), campaign.name())
}

fn compressed(campaign: Campaign, policy: Policy) -> &'static [u8] {
    match (campaign, policy) {
        (Campaign::All, Policy::Random) => {
            include_bytes!("../../../tests/data/open-bandit/random_all.csv.gz")
        }
        (Campaign::All, Policy::Bts) => {
            include_bytes!("../../../tests/data/open-bandit/bts_all.csv.gz")
        }
        (Campaign::Men, Policy::Random) => {
            include_bytes!("../../../tests/data/open-bandit/random_men.csv.gz")
        }
        (Campaign::Men, Policy::Bts) => {
            include_bytes!("../../../tests/data/open-bandit/bts_men.csv.gz")
        }
    }
}

/// The rows below the header, or the 1-based line that is none.
fn parse(text: &str) -> Result<Vec<Row>, usize> {
    let mut lines = text.lines().zip(1..);
    match lines.next() {
        Some((header, _)) if header.starts_with(HEADER) => {}
        _ => return Err(1),
    }
    lines
        .map(|(line, number)| row(line).ok_or(number))
        .collect()
}

/// The files have no quoted cells.
fn row(line: &str) -> Option<Row> {
    let mut cells = line.split(',');
    Some(Row {
        timestamp: cells.next().map(str::to_owned)?,
        item_id: cells.next()?.parse().ok()?,
        position: cells.next()?.parse().ok()?,
        clicked: match cells.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        },
        propensity: cells.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logs_are_complete() {
        for (campaign, clicks) in [(Campaign::All, [38, 42]), (Campaign::Men, [46, 69])] {
            for (policy, clicks) in Policy::ALL.into_iter().zip(clicks) {
                let log = Log::read(campaign, policy).unwrap();
                assert_eq!(
                    (log.rows.len(), log.clicks()),
                    (10_000, clicks),
                    "{}",
                    log.unit(0)
                );
            }
        }
    }

    #[test]
    fn a_row_keeps_what_the_log_says() {
        let log = Log::read(Campaign::All, Policy::Random).unwrap();
        let first = Row {
            timestamp: "2019-11-24 00:00:34.762830+00:00".into(),
            item_id: 14,
            position: 3,
            clicked: false,
            propensity: 0.0125,
        };
        assert_eq!(log.rows[0], first);
        assert_eq!(log.unit(17), "random_all:17");
    }

    #[test]
    fn a_damaged_line_is_named() {
        let header = format!("{HEADER}user_feature_0\n");
        for damaged in ["", "t,1,1,2,0.5,f", "t,1,1,0", "t,x,1,0,0.5,f"] {
            assert_eq!(
                parse(&format!("{header}t,1,1,0,0.5,f\n{damaged}\n")),
                Err(3),
                "{damaged:?}"
            );
        }
        assert_eq!(parse("something,else\n"), Err(1));
        assert_eq!(parse(""), Err(1));
    }
}
