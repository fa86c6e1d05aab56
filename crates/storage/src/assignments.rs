//! Who has which variant: read, first assignment, login.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::batch::RunGroup;
use crate::database::Link;
use crate::rows::column;
use crate::{Database, StorageError};

/// The question "which variant does this unit have?", with what to store when it has none.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// Experiment.
    pub experiment_id: i64,
    /// The unit: user id, else session id.
    pub unit: String,
    /// The session of a user, whose assignment the user takes over at login. `None` when the unit is the session.
    pub login_session: Option<String>,
    /// Session to store with a new assignment.
    pub session_id: Option<String>,
    /// What to store when nothing is there; `None` only asks.
    pub candidate: Option<Candidate>,
    /// Epoch in force.
    pub epoch: i32,
    /// Whether a known bot asks.
    pub is_bot: bool,
    /// Whether the experiment takes new units: then a second user of a session is stored with the session's variant.
    pub takes_new: bool,
    /// Whether a promotion of the experiment is active: then a new unit is in no analysis.
    pub during_promotion: bool,
}

/// A first assignment.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Variant to store.
    pub variant_id: i64,
    /// Whether the client named the variant.
    pub by_client: bool,
    /// Probability with which a bandit drew the variant, in the epoch of the lookup.
    pub propensity: Option<f64>,
}

/// A stored assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its variant.
    pub variant_id: i64,
    /// When it was made, by the clock of the database.
    pub assigned_at: DateTime<Utc>,
    /// Whether the client named the variant.
    pub by_client: bool,
    /// Whether a known bot made it.
    pub is_bot: bool,
}

/// Answer to a [`Lookup`]: `Ok(None)` when nothing is stored and nothing was to be stored. A shared error, because
/// one statement serves many requests.
pub type LookupAnswer = Result<Option<Stored>, Unavailable>;

/// The database could not be asked, or did not confirm the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database is not available")]
pub struct Unavailable;

const INSERT: &str = "-- assignments::insert
INSERT INTO user_experiment_assignments AS a
    (user_id, experiment_id, variant_id, session_id, epoch, source, is_bot, propensity, tx_id)
SELECT i.unit, i.experiment_id, i.variant_id, i.session_id, i.epoch, i.source, i.is_bot, i.propensity,
       (SELECT pg_current_xact_id()::text::bigint)
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::integer[], $6::smallint[], $7::boolean[],
            $8::double precision[])
    AS i (unit, experiment_id, variant_id, session_id, epoch, source, is_bot, propensity)
WHERE NOT EXISTS (SELECT 1 FROM unit_aliases l WHERE l.alias_unit = i.unit AND l.experiment_id = i.experiment_id)
ON CONFLICT (user_id, experiment_id) DO NOTHING
RETURNING a.user_id, a.experiment_id, a.variant_id, a.assigned_at, a.source, a.is_bot";

const READ: &str = "-- assignments::read
SELECT i.ord::integer AS ord, a.variant_id, a.assigned_at, a.source, a.is_bot,
       s.variant_id AS session_variant_id, s.epoch AS session_epoch, s.source AS session_source,
       sl.unit IS NOT NULL AS session_is_alias
FROM unnest($1::text[], $2::bigint[], $3::text[]) WITH ORDINALITY AS i (unit, experiment_id, session, ord)
LEFT JOIN unit_aliases l ON l.alias_unit = i.unit AND l.experiment_id = i.experiment_id
LEFT JOIN user_experiment_assignments a
    ON a.user_id = coalesce(l.unit, i.unit) AND a.experiment_id = i.experiment_id
LEFT JOIN unit_aliases sl ON sl.alias_unit = i.session AND sl.experiment_id = i.experiment_id
LEFT JOIN user_experiment_assignments s
    ON s.user_id = coalesce(sl.unit, i.session) AND s.experiment_id = i.experiment_id";

/// Logins: the session's assignment becomes the user's, and the session an alias of the user. `tx_id` stays as
/// it is: folding counts the unit by its first transaction, and must not count it twice.
const LOG_IN: &str = "-- assignments::log_in
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[]) AS i (experiment_id, unit, session)),
moved AS (
    UPDATE user_experiment_assignments a SET user_id = i.unit FROM input i
    WHERE a.user_id = i.session AND a.experiment_id = i.experiment_id
    RETURNING a.experiment_id, i.unit, i.session, a.variant_id, a.assigned_at, a.source, a.is_bot),
repointed AS (
    UPDATE unit_aliases l SET unit = m.unit, tx_id = pg_current_xact_id()::text::bigint FROM moved m
    WHERE l.unit = m.session AND l.experiment_id = m.experiment_id),
alias AS (
    INSERT INTO unit_aliases (experiment_id, alias_unit, unit)
    SELECT experiment_id, session, unit FROM moved
    ON CONFLICT (alias_unit, experiment_id) DO NOTHING),
excluded AS (
    INSERT INTO excluded_units (experiment_id, unit, reason)
    SELECT m.experiment_id, m.unit, x.reason
    FROM moved m JOIN excluded_units x ON x.experiment_id = m.experiment_id AND x.unit = m.session
    ON CONFLICT DO NOTHING)
SELECT * FROM moved";

/// How often a lookup that lost a race is tried: the second time it knows what it lost to.
const ROUNDS: usize = 3;

/// Answers [`Lookup`]s in groups: one statement for the new units, one to read the rest, one for logins.
#[derive(Clone, Debug)]
pub struct Assigner {
    database: Database,
}

impl Assigner {
    /// An assigner over the writers' pool.
    #[must_use]
    pub const fn new(database: Database) -> Self {
        Self { database }
    }

    async fn resolve(&self, lookups: &[Lookup]) -> Result<Vec<Option<Stored>>, StorageError> {
        let mut link = self.database.write().await?;
        let mut answers = vec![None; lookups.len()];
        // Units without a login are tried as new first: one commit and no read before it.
        let hopeful: Vec<usize> = (0..lookups.len())
            .filter(|&at| {
                lookups
                    .get(at)
                    .is_some_and(|l| l.candidate.is_some() && l.login_session.is_none())
            })
            .collect();
        insert(&mut link, lookups, &hopeful, &mut answers).await?;
        let mut asked = open(&answers);
        // Whoever loses a race reads what the winner wrote: of two users of one session, who often are in the same group,
        // the second finds in the next round that the session is the first one's.
        for _ in 0..ROUNDS {
            let sessions = read(&mut link, lookups, &asked, &mut answers).await?;
            asked.retain(|at| {
                let is_open = answers.get(*at).is_some_and(Option::is_none);
                let candidate = lookups.get(*at).is_some_and(|l| l.candidate.is_some());
                is_open && (candidate || sessions.contains_key(at))
            });
            if asked.is_empty() {
                break;
            }
            log_in(&mut link, lookups, &own(&asked, &sessions), &mut answers).await?;
            insert_late(&mut link, lookups, &asked, &sessions, &mut answers).await?;
            asked.retain(|at| answers.get(*at).is_some_and(Option::is_none));
        }
        read(&mut link, lookups, &asked, &mut answers).await?;
        Ok(answers)
    }
}

/// Stores who shares a screen with a first user, and who logs in where nothing was stored, by one statement.
async fn insert_late(
    link: &mut Link,
    lookups: &[Lookup],
    asked: &[usize],
    sessions: &HashMap<usize, Session>,
    answers: &mut [Option<Stored>],
) -> Result<(), StorageError> {
    let mut late = Vec::new();
    let mut places = Vec::new();
    for &at in asked {
        let (Some(lookup), Some(None)) = (lookups.get(at), answers.get(at)) else {
            continue;
        };
        let newcomer = match sessions.get(&at) {
            Some(Session::Own) => None,
            Some(Session::AliasOf(drawn)) => second_user(lookup, *drawn),
            None => lookup.candidate.is_some().then(|| lookup.clone()),
        };
        if let Some(newcomer) = newcomer {
            late.push(newcomer);
            places.push(at);
        }
    }
    let mut inserted = vec![None; late.len()];
    let all: Vec<usize> = (0..late.len()).collect();
    insert(link, &late, &all, &mut inserted).await?;
    for (at, stored) in places.into_iter().zip(inserted) {
        if let Some(slot) = answers.get_mut(at) {
            *slot = stored;
        }
    }
    Ok(())
}

impl RunGroup for Assigner {
    type Job = Lookup;
    type Answer = LookupAnswer;

    async fn run(&self, jobs: Vec<Lookup>) -> Vec<LookupAnswer> {
        for attempt in 1.. {
            match self.resolve(&jobs).await {
                Ok(answers) => return answers.into_iter().map(Ok).collect(),
                Err(error) if error.is_contention() && attempt < 3 => {}
                Err(error) => {
                    tracing::warn!(error = %error.chain(), jobs = jobs.len(), "assignments could not be stored");
                    break;
                }
            }
        }
        vec![Err(Unavailable); jobs.len()]
    }

    fn rows(_: &Lookup) -> usize {
        1
    }
}

enum Session {
    /// The session has an assignment of its own.
    Own,
    /// The session belongs to another user already.
    AliasOf(Drawn),
}

/// How the first user of a session got the variant.
#[derive(Clone, Copy)]
struct Drawn {
    variant_id: i64,
    epoch: i32,
    source: i16,
}

fn open(answers: &[Option<Stored>]) -> Vec<usize> {
    answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| answer.is_none())
        .map(|(at, _)| at)
        .collect()
}

async fn insert(
    link: &mut Link,
    lookups: &[Lookup],
    which: &[usize],
    answers: &mut [Option<Stored>],
) -> Result<(), StorageError> {
    if which.is_empty() {
        return Ok(());
    }
    // In one order everywhere, so that two writers cannot wait for each other.
    let mut rows: Vec<(&Lookup, Candidate)> = which
        .iter()
        .filter_map(|&at| lookups.get(at))
        .filter_map(|l| Some((l, l.candidate?)))
        .collect();
    // Stable: of two candidates for one unit in one group the first one wins.
    rows.sort_by(|(a, _), (b, _)| (&a.unit, a.experiment_id).cmp(&(&b.unit, b.experiment_id)));
    let units: Vec<&str> = rows.iter().map(|(l, _)| l.unit.as_str()).collect();
    let experiments: Vec<i64> = rows.iter().map(|(l, _)| l.experiment_id).collect();
    let variants: Vec<i64> = rows.iter().map(|(_, c)| c.variant_id).collect();
    let sessions: Vec<Option<&str>> = rows.iter().map(|(l, _)| l.session_id.as_deref()).collect();
    let epochs: Vec<i32> = rows.iter().map(|(l, _)| l.epoch).collect();
    let sources: Vec<i16> = rows.iter().map(|(l, c)| source(l, *c)).collect();
    let bots: Vec<bool> = rows.iter().map(|(l, _)| l.is_bot).collect();
    let propensities: Vec<Option<f64>> = rows.iter().map(|(_, c)| c.propensity).collect();
    let inserted = link
        .query(
            INSERT,
            &[
                &units,
                &experiments,
                &variants,
                &sessions,
                &epochs,
                &sources,
                &bots,
                &propensities,
            ],
        )
        .await?;
    let mut stored = HashMap::with_capacity(inserted.len());
    for row in &inserted {
        let unit: &str = column(row, TABLE, "user_id")?;
        let experiment: i64 = column(row, TABLE, "experiment_id")?;
        stored.insert((unit, experiment), stored_row(row)?);
    }
    for &at in which {
        if let (Some(lookup), Some(slot)) = (lookups.get(at), answers.get_mut(at)) {
            *slot = stored
                .get(&(lookup.unit.as_str(), lookup.experiment_id))
                .copied();
        }
    }
    Ok(())
}

/// Numbers in the table: the client named the variant, and the unit came while a promotion was active.
const BY_CLIENT: i16 = 1;
const DURING_PROMOTION: i16 = 2;

/// Who made an assignment, as the number in the table.
fn source(lookup: &Lookup, candidate: Candidate) -> i16 {
    if lookup.during_promotion {
        DURING_PROMOTION
    } else if candidate.by_client {
        BY_CLIENT
    } else {
        0
    }
}

async fn read(
    link: &mut Link,
    lookups: &[Lookup],
    which: &[usize],
    answers: &mut [Option<Stored>],
) -> Result<HashMap<usize, Session>, StorageError> {
    let mut sessions = HashMap::new();
    if which.is_empty() {
        return Ok(sessions);
    }
    let asked: Vec<&Lookup> = which.iter().filter_map(|&at| lookups.get(at)).collect();
    let units: Vec<&str> = asked.iter().map(|l| l.unit.as_str()).collect();
    let experiments: Vec<i64> = asked.iter().map(|l| l.experiment_id).collect();
    let logins: Vec<Option<&str>> = asked.iter().map(|l| l.login_session.as_deref()).collect();
    for row in link.query(READ, &[&units, &experiments, &logins]).await? {
        let ord: i32 = column(&row, TABLE, "ord")?;
        let Some(&at) = usize::try_from(ord - 1).ok().and_then(|i| which.get(i)) else {
            continue;
        };
        let own: Option<i64> = column(&row, TABLE, "variant_id")?;
        let by_session: Option<i64> = column(&row, TABLE, "session_variant_id")?;
        let is_alias: bool = column(&row, TABLE, "session_is_alias")?;
        match (own, by_session) {
            (Some(_), _) => {
                if let Some(slot) = answers.get_mut(at) {
                    *slot = Some(stored_row(&row)?);
                }
            }
            (None, Some(variant_id)) if is_alias => {
                let drawn = Drawn {
                    variant_id,
                    epoch: column(&row, TABLE, "session_epoch")?,
                    source: column(&row, TABLE, "session_source")?,
                };
                sessions.insert(at, Session::AliasOf(drawn));
            }
            (None, Some(_)) => {
                sessions.insert(at, Session::Own);
            }
            (None, None) => {}
        }
    }
    Ok(sessions)
}

/// Logs in as many as possible by one statement: those that have nothing to do with each other. The others, who share a
/// user or a session with one before them, and all of them where one lost a race, follow one by one.
async fn log_in(
    link: &mut Link,
    lookups: &[Lookup],
    which: &[usize],
    answers: &mut [Option<Stored>],
) -> Result<(), StorageError> {
    let mut names = HashSet::new();
    let (mut together, mut alone) = (Vec::new(), Vec::new());
    for &at in which {
        let Some((lookup, session)) = login(lookups, at) else {
            continue;
        };
        let of_user = (lookup.experiment_id, lookup.unit.as_str());
        let of_session = (lookup.experiment_id, session);
        let is_apart = !names.contains(&of_user) && !names.contains(&of_session);
        names.extend([of_user, of_session]);
        if is_apart {
            together.push(at);
        } else {
            alone.push(at);
        }
    }
    if !move_sessions(link, lookups, &together, answers).await? {
        alone.splice(0..0, together);
    }
    for at in alone {
        // The user may have got an assignment of his own in this moment; it wins, and is read by the caller.
        move_sessions(link, lookups, &[at], answers).await?;
    }
    Ok(())
}

fn login(lookups: &[Lookup], at: usize) -> Option<(&Lookup, &str)> {
    let lookup = lookups.get(at)?;
    Some((lookup, lookup.login_session.as_deref()?))
}

/// Whether the statement went through; it does not when one of the users has an assignment already, and then moves none.
async fn move_sessions(
    link: &mut Link,
    lookups: &[Lookup],
    which: &[usize],
    answers: &mut [Option<Stored>],
) -> Result<bool, StorageError> {
    if which.is_empty() {
        return Ok(true);
    }
    let asked: Vec<(&Lookup, &str)> = which.iter().filter_map(|&at| login(lookups, at)).collect();
    let experiments: Vec<i64> = asked.iter().map(|(l, _)| l.experiment_id).collect();
    let units: Vec<&str> = asked.iter().map(|(l, _)| l.unit.as_str()).collect();
    let sessions: Vec<&str> = asked.iter().map(|(_, session)| *session).collect();
    let rows = match link.query(LOG_IN, &[&experiments, &units, &sessions]).await {
        Ok(rows) => rows,
        Err(error) if error.unique_violation().is_some() => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut moved = HashMap::with_capacity(rows.len());
    for row in &rows {
        let unit: &str = column(row, TABLE, "unit")?;
        let experiment: i64 = column(row, TABLE, "experiment_id")?;
        moved.insert((unit, experiment), stored_row(row)?);
    }
    for &at in which {
        if let (Some(lookup), Some(slot)) = (lookups.get(at), answers.get_mut(at)) {
            *slot = moved
                .get(&(lookup.unit.as_str(), lookup.experiment_id))
                .copied();
        }
    }
    Ok(true)
}

/// What a second user of a session is stored with. The allocation is not asked: the shopper in front of this screen has seen
/// this variant. It was drawn in the epoch of the session, by that epoch's weights or by the client, and counts there: among the
/// units of today's weights it would look like an error of the split, most of all where the variant has no weight any more.
fn second_user(lookup: &Lookup, drawn: Drawn) -> Option<Lookup> {
    let candidate = Candidate {
        variant_id: drawn.variant_id,
        by_client: drawn.source == BY_CLIENT,
        propensity: None,
    };
    lookup.takes_new.then(|| Lookup {
        candidate: Some(candidate),
        epoch: drawn.epoch,
        during_promotion: lookup.during_promotion || drawn.source == DURING_PROMOTION,
        ..lookup.clone()
    })
}

/// Those whose session has an assignment of its own.
fn own(asked: &[usize], sessions: &HashMap<usize, Session>) -> Vec<usize> {
    let is_own = |at: &&usize| matches!(sessions.get(at), Some(Session::Own));
    asked.iter().filter(is_own).copied().collect()
}

const TABLE: &str = "user_experiment_assignments";

fn stored_row(row: &Row) -> Result<Stored, StorageError> {
    let source: i16 = column(row, TABLE, "source")?;
    Ok(Stored {
        variant_id: column(row, TABLE, "variant_id")?,
        assigned_at: column(row, TABLE, "assigned_at")?,
        by_client: source == BY_CLIENT,
        is_bot: column(row, TABLE, "is_bot")?,
    })
}
