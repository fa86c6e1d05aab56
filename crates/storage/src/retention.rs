//! Partitions ahead, and events, decisions and pulls that are older than the retention.

use chrono::{DateTime, Utc};
use tokio::time::timeout;
use tokio_postgres::{Client, Transaction};

use crate::connect::Purpose;
use crate::rows::column;
use crate::{Database, StorageError, bandit};

const CREATE: &str = "-- retention::create
SELECT podium_create_event_partitions(4) + podium_create_decision_partitions(4) AS made";

/// Makes the partitions of the coming four weeks, as the owner of the tables: nobody else may attach one. Idempotent.
/// Returns how many are new.
///
/// # Errors
/// [`StorageError`] when the database does not answer, or the owner is somebody else.
pub async fn create_partitions(database: &Database) -> Result<i32, StorageError> {
    let purpose = Purpose::Work;
    let made = timeout(purpose.client_limit(), async {
        create_with(&database.owner().connect(purpose).await?).await
    });
    made.await.map_err(|_| StorageError::TimedOut)?
}

/// As [`create_partitions`], on a connection of the owner.
pub(crate) async fn create_with(owner: &Client) -> Result<i32, StorageError> {
    column(
        &owner.query_one(CREATE, &[]).await?,
        "experiment_events",
        "made",
    )
}

/// Key of the advisory lock that lets one replica drop.
const LOCK_KEY: i64 = 0x706f_6469_756d_000b;

const OLD_PARTITIONS: &str = "-- retention::old_partitions
SELECT c.relname AS name, to_date(substring(c.relname FROM '[0-9]{4}w[0-9]{2}$'), 'IYYY\"w\"IW') + 7 AS ends
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'experiment_events'::regclass
  AND c.relname ~ '^experiment_events_[0-9]{4}w[0-9]{2}$'
  AND to_date(substring(c.relname FROM '[0-9]{4}w[0-9]{2}$'), 'IYYY\"w\"IW') + 7
      <= ((now() AT TIME ZONE 'UTC') - make_interval(days => $1))::date
  AND EXISTS (SELECT 1 FROM fold_state f WHERE f.folded_at >= to_date(substring(c.relname FROM '[0-9]{4}w[0-9]{2}$'), 'IYYY\"w\"IW') + 8)
ORDER BY 1";

/// Nothing is folded from decisions, so time alone decides.
const OLD_DECISIONS: &str = "-- retention::old_decisions
SELECT c.relname AS name
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'bandit_decisions'::regclass
  AND c.relname ~ '^bandit_decisions_[0-9]{4}w[0-9]{2}$'
  AND to_date(substring(c.relname FROM '[0-9]{4}w[0-9]{2}$'), 'IYYY\"w\"IW') + 7
      <= ((now() AT TIME ZONE 'UTC') - make_interval(days => $1))::date
ORDER BY 1";

/// Drops the partitions whose youngest event arrived more than `days` ago, and the event ids with them. Totals stay.
/// Whatever is dropped had been folded before. Decisions go after the same time, and so do impressions and rewards of arms, from
/// which the counts of arms were made. All of it as the owner of the tables. Returns the names of the dropped partitions. Of
/// several replicas that come at once one drops, and the others leave it to that one.
///
/// # Errors
/// [`StorageError`] when the database does not answer; what was dropped until then stays dropped.
pub async fn drop_old(database: &Database, days: i32) -> Result<Vec<String>, StorageError> {
    let mut client = database.owner().connect(Purpose::Maintain).await?;
    let mut dropped = Vec::new();
    for row in client.query(OLD_PARTITIONS, &[&days]).await? {
        let name: String = column(&row, "pg_class", "name")?;
        let ends: chrono::NaiveDate = column(&row, "pg_class", "ends")?;
        let ends: DateTime<Utc> = ends.and_time(chrono::NaiveTime::MIN).and_utc();
        let transaction = client.transaction().await?;
        if !drop_alone(&transaction, &name).await? {
            return Ok(dropped);
        }
        transaction
            .execute(
                "UPDATE fold_state SET dropped_before = greatest(dropped_before, $1)",
                &[&ends],
            )
            .await?;
        transaction.commit().await?;
        delete_keys(&client, ends).await?;
        dropped.push(name);
    }
    for row in client.query(OLD_DECISIONS, &[&days]).await? {
        let name: String = column(&row, "pg_class", "name")?;
        let transaction = client.transaction().await?;
        if !drop_alone(&transaction, &name).await? {
            return Ok(dropped);
        }
        transaction.commit().await?;
        dropped.push(name);
    }
    bandit::retention::drop_old(&mut client).await?;
    Ok(dropped)
}

/// Drops a partition, whose name came from the catalog and matched a pattern, so that it is safe in a statement. `false` when
/// another replica is at it, or was.
async fn drop_alone(transaction: &Transaction<'_>, name: &str) -> Result<bool, StorageError> {
    let lock = transaction
        .query_one("SELECT pg_try_advisory_xact_lock($1)", &[&LOCK_KEY])
        .await?;
    if !lock.get::<_, bool>(0) {
        return Ok(false);
    }
    let there = transaction
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&name])
        .await?;
    if !there.get::<_, bool>(0) {
        return Ok(false);
    }
    transaction
        .batch_execute(&format!("DROP TABLE {name}"))
        .await?;
    Ok(true)
}

const PAGES: &str = "-- retention::pages
SELECT pg_relation_size('experiment_event_keys') / current_setting('block_size')::bigint AS pages";

const DELETE_KEYS: &str = "-- retention::delete_keys
DELETE FROM experiment_event_keys WHERE created_at < $1
    AND ctid >= format('(%s,0)', $2::bigint)::tid AND ctid < format('(%s,0)', $3::bigint)::tid";

/// Pages of keys that one transaction deletes from: some hundred thousand keys. Folding waits for every open transaction
/// that has written, so none may take long.
const PAGES_AT_ONCE: i64 = 2_000;

async fn delete_keys(client: &Client, before: DateTime<Utc>) -> Result<(), StorageError> {
    let pages: i64 = column(
        &client.query_one(PAGES, &[]).await?,
        "experiment_event_keys",
        "pages",
    )?;
    let mut from = 0;
    while from < pages {
        let to = from + PAGES_AT_ONCE;
        client.execute(DELETE_KEYS, &[&before, &from, &to]).await?;
        from = to;
    }
    Ok(())
}
