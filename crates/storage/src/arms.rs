//! Arms of rankings as choices need them: ids and exact evidence.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use podium_bandit::counts::Counts;
use podium_bandit::history::Forgetting;
use podium_bandit::history::History;
use podium_bandit::student::ValueSums;
use podium_bandit::{BanditError, Evidence};
use podium_domain::bandit::{ArmType, BanditOptions};
use tokio_postgres::Row;

use crate::database::Link;
use crate::rows::column;
use crate::{Database, StorageError};

/// What arms there are of one type, at a glance. Differs whenever something was learned, made or reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Experiment.
    pub experiment_id: i64,
    /// What the arms are.
    pub arm_type: ArmType,
    arms: i64,
    pulls: i64,
    resets: i64,
    updated_at: Option<DateTime<Utc>>,
    /// Whole hours since 1970, where evidence ages with time.
    pub hour: i64,
}

/// Arms with what is known of them, in the order of their rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Ids.
    pub ids: Vec<String>,
    /// Exact sums.
    pub sums: Sums,
    /// Hours since 1970, by the clock of the database.
    pub hour: i64,
}

/// Exact sums of arms.
#[derive(Clone, Debug, PartialEq)]
pub enum Sums {
    /// Pulls and successes.
    Counts(Vec<Counts>),
    /// Pulls and successes by hour.
    Hours(History),
    /// Values.
    Values(Vec<ValueSums>),
}

impl Sums {
    /// Evidence of success rates, forgotten as the options say; `None` for values.
    ///
    /// # Errors
    /// [`BanditError`] for sums beyond what is counted exactly.
    pub fn evidence(
        &self,
        forgetting: Forgetting,
        hour: i64,
    ) -> Result<Option<Vec<Evidence>>, BanditError> {
        match self {
            Self::Counts(counts) => Ok(Some(counts.iter().copied().map(Evidence::from).collect())),
            Self::Hours(history) => history.read(forgetting, hour).map(Some),
            Self::Values(_) => Ok(None),
        }
    }
}

const GLANCES: &str = "-- arms::glances
SELECT l.experiment_id, l.arm_type, count(a.id) AS arms, coalesce(sum(a.total_pulls), 0)::bigint AS pulls,
       count(a.reset_at) AS resets, greatest(max(a.updated_at), max(a.reset_at)) AS updated_at,
       floor(extract(epoch FROM now()) / 3600)::bigint AS hour
FROM bandit_learning l LEFT JOIN bandit_arms a USING (experiment_id, arm_type)
WHERE l.experiment_id = ANY ($1) AND l.arm_type <> 'variant'
GROUP BY l.experiment_id, l.arm_type ORDER BY 1, 2";

const COUNTS: &str = "-- arms::counts
SELECT id, arm_id, total_pulls AS pulls, (alpha - 1)::bigint AS successes,
       floor(extract(epoch FROM now()) / 3600)::bigint AS hour
FROM bandit_arms WHERE experiment_id = $1 AND arm_type = $2 ORDER BY id";

/// What speaks for an arm: hours from its reset on, and pulls that others reported since.
const HOURS: &str = "-- arms::hours
SELECT h.arm_row_id AS id, floor(extract(epoch FROM h.bucket) / 3600)::bigint AS hour, h.pulls, h.successes
FROM bandit_arms a JOIN bandit_arm_hours h ON h.experiment_id = a.experiment_id AND h.arm_row_id = a.id
WHERE a.experiment_id = $1 AND a.arm_type = $2 AND h.bucket >= coalesce(a.reset_at, '-infinity')
UNION ALL
SELECT u.arm_row_id, floor(extract(epoch FROM u.created_at) / 3600)::bigint, count(*),
       count(*) FILTER (WHERE u.success)
FROM bandit_arms a JOIN bandit_arm_updates u ON u.arm_row_id = a.id
WHERE a.experiment_id = $1 AND a.arm_type = $2 AND u.created_at >= coalesce(a.reset_at, '-infinity')
GROUP BY 1, 2";

const VALUES: &str = "-- arms::values
SELECT s.id, sum(s.pulls)::bigint AS pulls, trunc(sum(s.reward) * 10000)::text AS reward,
       trunc(sum(s.reward_sq) * 100000000)::text AS reward_sq
FROM (
    SELECT a.id, h.pulls, h.reward, h.reward_sq
    FROM bandit_arms a JOIN bandit_arm_hours h ON h.experiment_id = a.experiment_id AND h.arm_row_id = a.id
    WHERE a.experiment_id = $1 AND a.arm_type = $2 AND h.bucket >= coalesce(a.reset_at, '-infinity')
    UNION ALL
    SELECT a.id, 1, greatest(u.reward, 0), greatest(u.reward, 0) * greatest(u.reward, 0)
    FROM bandit_arms a JOIN bandit_arm_updates u ON u.arm_row_id = a.id
    WHERE a.experiment_id = $1 AND a.arm_type = $2 AND u.created_at >= coalesce(a.reset_at, '-infinity')) s
GROUP BY s.id";

const T: &str = "bandit_arms";

/// What arms there are in some experiments. Types that the program does not rank are left out.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn glances(
    database: &Database,
    experiments: &[i64],
) -> Result<Vec<Glance>, StorageError> {
    let rows = database
        .work()
        .await?
        .query(GLANCES, &[&experiments])
        .await?;
    rows.iter()
        .filter_map(|row| glance(row).transpose())
        .collect()
}

fn glance(row: &Row) -> Result<Option<Glance>, StorageError> {
    let arm_type: String = column(row, T, "arm_type")?;
    let Ok(arm_type) = arm_type.parse() else {
        return Ok(None);
    };
    Ok(Some(Glance {
        experiment_id: column(row, T, "experiment_id")?,
        arm_type,
        arms: column(row, T, "arms")?,
        pulls: column(row, T, "pulls")?,
        resets: column(row, T, "resets")?,
        updated_at: column(row, T, "updated_at")?,
        hour: column(row, T, "hour")?,
    }))
}

/// Arms of one type with the sums that a policy with these options reads.
///
/// # Errors
/// As [`glances`].
pub async fn load(
    database: &Database,
    experiment_id: i64,
    arm_type: ArmType,
    options: &BanditOptions,
) -> Result<Loaded, StorageError> {
    let mut link = database.work().await?;
    let kind = arm_type.name();
    let rows = link.query(COUNTS, &[&experiment_id, &kind]).await?;
    let ids = rows
        .iter()
        .map(|row| column(row, T, "arm_id"))
        .collect::<Result<Vec<String>, _>>()?;
    let hour = rows.first().map_or(Ok(0), |row| column(row, T, "hour"))?;
    let numbers = rows
        .iter()
        .enumerate()
        .map(|(number, row)| Ok((column(row, T, "id")?, number)))
        .collect::<Result<HashMap<i64, usize>, StorageError>>()?;
    let sums = if options.rewards.max().is_some() {
        Sums::Values(values(&mut link, experiment_id, kind, &numbers).await?)
    } else if options.forgetting == Forgetting::Never {
        let counts = rows.iter().map(|row| counts(row, "alpha"));
        Sums::Counts(counts.collect::<Result<_, _>>()?)
    } else {
        Sums::Hours(hours(&mut link, experiment_id, kind, &numbers).await?)
    };
    Ok(Loaded { ids, sums, hour })
}

async fn hours(
    link: &mut Link,
    experiment_id: i64,
    kind: &str,
    numbers: &HashMap<i64, usize>,
) -> Result<History, StorageError> {
    let mut history = History::new(numbers.len());
    for row in link.query(HOURS, &[&experiment_id, &kind]).await? {
        let id: i64 = column(&row, T, "id")?;
        let Some(number) = numbers.get(&id) else {
            continue; // Made since the arms were listed.
        };
        history
            .add(column(&row, T, "hour")?, *number, counts(&row, "pulls")?)
            .map_err(|_| corrupt("pulls"))?;
    }
    Ok(history)
}

async fn values(
    link: &mut Link,
    experiment_id: i64,
    kind: &str,
    numbers: &HashMap<i64, usize>,
) -> Result<Vec<ValueSums>, StorageError> {
    let mut sums = vec![ValueSums::default(); numbers.len()];
    for row in link.query(VALUES, &[&experiment_id, &kind]).await? {
        let id: i64 = column(&row, T, "id")?;
        if let Some(sum) = numbers.get(&id).and_then(|number| sums.get_mut(*number)) {
            let pulls: i64 = column(&row, T, "pulls")?;
            let pulls = u64::try_from(pulls).map_err(|_| corrupt("total_pulls"))?;
            *sum = ValueSums::from_sums(pulls, whole(&row, "reward")?, whole(&row, "reward_sq")?);
        }
    }
    Ok(sums)
}

fn whole(row: &Row, name: &'static str) -> Result<u128, StorageError> {
    let text: String = column(row, T, name)?;
    text.parse().map_err(|_| corrupt(name))
}

fn counts(row: &Row, name: &'static str) -> Result<Counts, StorageError> {
    let count = |column_name| {
        let value: i64 = column(row, T, column_name)?;
        u64::try_from(value).map_err(|_| corrupt(column_name))
    };
    Counts::new(count("pulls")?, count("successes")?).map_err(|_| corrupt(name))
}

const fn corrupt(column: &'static str) -> StorageError {
    StorageError::CorruptRow { table: T, column }
}
