//! Erasure of one unit's personal data: every name that it has is replaced by a random one, everywhere at once.
//!
//! Totals do not change, because replacing names one by one changes no sum, and a recount finds the same. What a client may have
//! written into an event in its own words (metadata, its id for the event) goes with the name. Totals that already belong to
//! nobody, such as those per hour or item, stay. The audit log is not touched: it is sealed, and could not be proven any
//! more. It says who administered what, and names a unit only where a person pinned it.

use crate::audit;
use crate::connect::{ConnectSettings, Purpose};
use crate::rows::column;
use crate::{StorageError, fold};

const NAMES: &str = "-- erase::names
CREATE TEMP TABLE forgotten ON COMMIT DROP AS
WITH RECURSIVE names (name) AS (
    SELECT $NAME$::text
    UNION
    SELECT a.alias_unit FROM unit_aliases a JOIN names n ON a.unit = n.name)
SELECT name, 'forgotten-' || gen_random_uuid() AS pseudonym FROM names";

/// Sessions of the unit are names of it too, wherever they stand.
const SESSIONS: &str = "-- erase::sessions
INSERT INTO forgotten (name, pseudonym)
SELECT s.session_id, 'forgotten-' || gen_random_uuid()
FROM (SELECT session_id FROM user_experiment_assignments WHERE user_id IN (SELECT name FROM forgotten)
      UNION SELECT session_id FROM experiment_events WHERE user_id IN (SELECT name FROM forgotten)) s
WHERE s.session_id IS NOT NULL AND s.session_id NOT IN (SELECT name FROM forgotten)";

/// Statements in their order, each with the table that it counts for.
const STEPS: [(&str, &str); 20] = [
    ("experiment_events", "UPDATE experiment_events t SET user_id = f.pseudonym, event_id = 'forgotten-' || t.id, event_data = NULL
     FROM forgotten f WHERE t.user_id = f.name"),
    ("experiment_events", "UPDATE experiment_events t SET session_id = f.pseudonym FROM forgotten f WHERE t.session_id = f.name"),
    // A trigger keeps the name at the assignment, which the next statement replaces.
    ("user_experiment_assignments", "UPDATE user_experiment_assignments t SET user_id = f.pseudonym FROM forgotten f WHERE t.user_id = f.name"),
    ("user_experiment_assignments", "UPDATE user_experiment_assignments t SET assigned_as = nullif(f.pseudonym, t.user_id)
     FROM forgotten f WHERE t.assigned_as = f.name"),
    ("user_experiment_assignments", "UPDATE user_experiment_assignments t SET session_id = f.pseudonym FROM forgotten f WHERE t.session_id = f.name"),
    ("unit_aliases", "UPDATE unit_aliases t SET alias_unit = f.pseudonym FROM forgotten f WHERE t.alias_unit = f.name"),
    ("unit_aliases", "UPDATE unit_aliases t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("experiment_overrides", "UPDATE experiment_overrides t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("excluded_units", "UPDATE excluded_units t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("unit_totals", "UPDATE unit_totals t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("unit_days", "UPDATE unit_days t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("unit_sessions", "UPDATE unit_sessions t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("unit_sessions", "UPDATE unit_sessions t SET session_key = hashtextextended(f.pseudonym, 0)
     FROM forgotten f WHERE t.session_key = hashtextextended(f.name, 0)"),
    ("unit_covariates", "UPDATE unit_covariates t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("covariate_uploads", "UPDATE covariate_uploads t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("bandit_pulls", "UPDATE bandit_pulls t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("bandit_rewards", "UPDATE bandit_rewards t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("bandit_decisions", "UPDATE bandit_decisions t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("promotion_units", "UPDATE promotion_units t SET unit = f.pseudonym FROM forgotten f WHERE t.unit = f.name"),
    ("unit_erasures", "INSERT INTO unit_erasures (pseudonym) SELECT pseudonym FROM forgotten ORDER BY name LIMIT 1"),
];

/// What was replaced: tables and how many of their rows.
pub type Erased = Vec<(&'static str, u64)>;

/// Replaces the names of a unit everywhere, in one transaction. Replicas forget what they remember of units within a
/// second; what a unit does afterwards is that of a new unit.
///
/// # Errors
/// [`StorageError`] when the database does not answer, or folding does not pause within a minute; then nothing was replaced.
pub async fn forget(settings: &ConnectSettings, unit: &str) -> Result<Erased, StorageError> {
    let mut client = settings.connect(Purpose::Maintain).await?;
    let tx = client.transaction().await?;
    // Folding reads names in one statement and totals in the next, so it must not see them change in between.
    fold::keep_out(&tx).await?;
    // A statement that defines a table takes no parameters; the name is quoted by the server.
    let quoted = tx.query_one("SELECT quote_literal($1)", &[&unit]).await?;
    let quoted: String = column(&quoted, "forgotten", "quote_literal")?;
    tx.batch_execute(&NAMES.replace("$NAME$", &quoted)).await?;
    tx.execute(SESSIONS, &[]).await?;
    let mut erased: Erased = Vec::new();
    for (table, sql) in STEPS {
        let rows = tx.execute(sql, &[]).await?;
        match erased.last_mut().filter(|(last, _)| *last == table) {
            Some((_, count)) => *count = rows.max(*count),
            None => erased.push((table, rows)),
        }
    }
    erased.retain(|(table, rows)| *rows > 0 && *table != "unit_erasures");
    let pseudonym = tx
        .query_one(
            "SELECT pseudonym FROM unit_erasures ORDER BY id DESC LIMIT 1",
            &[],
        )
        .await?;
    let pseudonym: String = column(&pseudonym, "unit_erasures", "pseudonym")?;
    tx.execute(
        "INSERT INTO audit_log (actor, action, entity, entity_id, after) VALUES ('podium-api', 'unit.forget', 'unit', $1, $2::text::jsonb)",
        &[&pseudonym, &audit::whole(&serde_json::Map::from_iter(
            erased.iter().map(|(table, rows)| ((*table).to_owned(), (*rows).into())),
        ))?],
    )
    .await?;
    tx.commit().await?;
    Ok(erased)
}
