//! Migrations, run by one process at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::connect::{ConnectSettings, Purpose};
use crate::rows::column;
use crate::{Database, StorageError, retention};

mod embedded {
    #![allow(missing_docs, clippy::all, unreachable_pub)]
    refinery::embed_migrations!("../../migrations");
}

/// Key of the advisory lock that lets one process migrate; any constant that nobody else uses.
const LOCK_KEY: i64 = 0x706f_6469_756d_0001;

/// Brings the schema up to date and makes the partitions of the coming weeks, of events and of decisions. Idempotent; several processes
/// may call it together, one does the work and the others wait for it (at most a minute). A schema that a later version
/// has brought further is left as it is.
///
/// Returns the names of the migrations that were applied by this call.
///
/// # Errors
/// [`StorageError::Migration`] says which migration failed and why.
pub async fn migrate(settings: &ConnectSettings) -> Result<Vec<String>, StorageError> {
    let mut client = settings.connect(Purpose::Maintain).await?;
    // Session-level: refinery commits several transactions. It ends with this connection at the latest.
    // A waiting `pg_advisory_lock` would hold a snapshot back, so ask again instead of waiting inside the server.
    let mut waited = Duration::ZERO;
    while !try_lock(&client).await? {
        if waited > Duration::from_secs(60) {
            return Err(StorageError::Migration(
                "another process holds the migration lock for over a minute".into(),
            ));
        }
        let pause = Duration::from_millis(50);
        tokio::time::sleep(pause).await;
        waited += pause;
    }
    refuse_foreign(&client).await?;
    let applied = if is_newer(&client).await? {
        tracing::info!("the schema is that of a later version and is left as it is");
        Vec::new()
    } else {
        let report = embedded::migrations::runner().run_async(&mut client).await;
        let report = report.map_err(|error| StorageError::Migration(explain(&error)))?;
        let names = report.applied_migrations().iter();
        names.map(ToString::to_string).collect()
    };
    retention::create_with(&client).await?;
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&LOCK_KEY])
        .await?;
    Ok(applied)
}

const HAS_HISTORY: &str = "-- migrate::has_history
SELECT to_regclass('refinery_schema_history') IS NOT NULL AS found";

const HISTORY: &str = "-- migrate::history
SELECT version::bigint AS version FROM refinery_schema_history";

/// Whether a later version has migrated. While replicas are replaced one of the version before may start once more, and the
/// runner, which knows nothing of later migrations, would refuse them.
///
/// # Errors
/// [`StorageError::Migration`] when the later version left out one of ours: it is not of the same line.
async fn is_newer(client: &tokio_postgres::Client) -> Result<bool, StorageError> {
    let found: bool = client.query_one(HAS_HISTORY, &[]).await?.get("found");
    let history = if found {
        client.query(HISTORY, &[]).await?
    } else {
        Vec::new()
    };
    let versions = history
        .iter()
        .map(|row| column(row, "refinery_schema_history", "version"));
    let applied: BTreeSet<i64> = versions.collect::<Result<_, _>>()?;
    let ours = wanted();
    if applied.last() <= ours.last() {
        return Ok(false);
    }
    match ours.difference(&applied).next() {
        None => Ok(true),
        Some(version) => Err(StorageError::Migration(format!(
            "the schema is of a later version and lacks migration {version} of this one"
        ))),
    }
}

/// Versions of the migrations that this program brings.
fn wanted() -> BTreeSet<i64> {
    let runner = embedded::migrations::runner();
    let migrations = runner.get_migrations().iter();
    migrations.map(|m| i64::from(m.version())).collect()
}

/// Tables and views of the contract that an earlier system may have under the same name: one of ours has the column, with
/// the type, and is of the kind. The first migration names some of them itself.
const FOREIGN: &str = "-- migrate::foreign
SELECT w.name
FROM (VALUES ('ab_experiments', 'id', 'bigint', 'v'), ('ab_variants', 'experiment_id', 'bigint', 'v'),
             ('experiment_promotions', 'id', 'uuid', 'r'), ('ab_promotion_audit_log', 'experiment_id', 'bigint', 'r'),
             ('notification_configs', 'alert_levels', 'text[]', 'r'), ('notification_logs', 'attempts', 'integer', 'r'))
     AS w (name, column_name, type, kind)
JOIN pg_class c ON c.oid = to_regclass(w.name)
WHERE c.relkind::text <> w.kind OR NOT EXISTS (
    SELECT 1 FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attname = w.column_name AND NOT a.attisdropped
      AND format_type(a.atttypid, a.atttypmod) = w.type)
ORDER BY 1 LIMIT 1";

/// Silently keeping a table of the same name with other columns would break at the first write.
async fn refuse_foreign(client: &tokio_postgres::Client) -> Result<(), StorageError> {
    let Some(row) = client.query_opt(FOREIGN, &[]).await? else {
        return Ok(());
    };
    let name: String = column(&row, "pg_class", "name")?;
    Err(StorageError::Migration(format!(
        "table \"{name}\" of an earlier system is in the way: rename it first (ALTER TABLE {name} RENAME TO {name}_old) or \
         migrate into an empty database"
    )))
}

const VERSION: &str = "-- migrate::version
SELECT max(version)::bigint AS version FROM refinery_schema_history";

/// Whether the schema has every migration that this program brings; a newer one is fine.
///
/// # Errors
/// [`StorageError`] when the database does not answer, or was never migrated.
pub async fn is_current(database: &Database) -> Result<bool, StorageError> {
    let row = database.watch().await?.query_opt(VERSION, &[]).await?;
    let applied: Option<i64> = row
        .map(|row| column(&row, "refinery_schema_history", "version"))
        .transpose()?
        .flatten();
    Ok(applied >= wanted().last().copied())
}

async fn try_lock(client: &tokio_postgres::Client) -> Result<bool, StorageError> {
    Ok(client
        .query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK_KEY])
        .await?
        .get(0))
}

/// The chain of causes, with PostgreSQL's hint, which tells the operator what to do.
fn explain(error: &refinery::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        if let Some(db) = cause
            .downcast_ref::<tokio_postgres::Error>()
            .and_then(|e| e.as_db_error())
        {
            text = format!("{text}: {}", db.message());
            if let Some(hint) = db.hint() {
                text = format!("{text} ({hint})");
            }
            break;
        }
        source = cause.source();
    }
    text
}
