//! What PostgreSQL itself can do with the same rows in the same tables: COPY, one row a commit, a hundred rows a commit.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use podium_storage::connect::{ConnectSettings, Purpose};
use podium_storage::events::event_key;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{Client, Statement};

use crate::error::BenchError;
use crate::figures::percentile;

/// Connections of the one-row-a-commit yardstick; more gave no more on the machines that we tried.
pub(crate) const INSERT_CONNECTIONS: usize = 64;

/// Which table is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Table {
    Assignments,
    Events,
}

const COPY_ASSIGNMENTS: &str = "-- bench::copy_assignments
COPY user_experiment_assignments (user_id, experiment_id, variant_id, session_id, epoch, source, is_bot, tx_id) FROM STDIN BINARY";

const INSERT_ASSIGNMENT: &str = "-- bench::insert_assignment
INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, session_id, epoch, source, is_bot)
VALUES ($1, $2, $3, $4, $5, $6, $7)";

const COPY_EVENTS: &str = "-- bench::copy_events
COPY experiment_events (event_id, user_id, experiment_id, variant_id, event_type, item_id, brand_id, position, event_data,
    session_id, is_bot, counted, occurred_at, tx_id) FROM STDIN BINARY";

const COPY_KEYS: &str = "-- bench::copy_keys
COPY experiment_event_keys (key) FROM STDIN BINARY";

const INSERT_EVENT: &str = "-- bench::insert_event
INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, item_id, brand_id, position, event_data,
    session_id, is_bot, counted, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

const INSERT_HUNDRED: &str = "-- bench::insert_hundred
INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, item_id, brand_id, position, event_data,
    session_id, is_bot, counted, occurred_at, tx_id)
SELECT event_id, user_id, 1, 2, 'impression', item_id, brand_id, position, event_data::jsonb, session_id, false, true, now(),
    (SELECT pg_current_xact_id()::text::bigint)
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::text[], $7::text[])
    AS i (event_id, user_id, item_id, brand_id, position, event_data, session_id)";

/// Rows like those that the load scripts cause, numbered.
struct Rows {
    tag: u32,
    tx: i64,
    now: DateTime<Utc>,
    data: Json<Box<RawValue>>,
}

const DATA: &str = r#"{"placement":"bench","page_type":"feed"}"#;

/// One row of either table.
enum Row {
    Assignment(String),
    Event(EventTexts),
}

struct EventTexts {
    event_id: String,
    user: String,
    item: String,
    brand: String,
    session: String,
    position: i32,
}

impl Rows {
    async fn of(client: &Client, tag: u32) -> Result<Self, BenchError> {
        let row = client
            .query_one("SELECT now(), pg_current_xact_id()::text::bigint", &[])
            .await?;
        let data = RawValue::from_string(DATA.into())
            .map_err(|error| BenchError::Invalid(error.to_string()))?;
        Ok(Self {
            tag,
            now: row.get(0),
            tx: row.get(1),
            data: Json(data),
        })
    }

    fn row(&self, table: Table, number: u64) -> Row {
        match table {
            Table::Assignments => Row::Assignment(format!("n{:03x}{number:011}", self.tag)),
            Table::Events => Row::Event(self.event(number)),
        }
    }

    fn event(&self, number: u64) -> EventTexts {
        let ms = self.now.timestamp_millis();
        let unit = number * 7919 % 10_000;
        EventTexts {
            event_id: format!(
                "{:08x}-{:04x}-7{:03x}-8000-{number:012x}",
                ms >> 16,
                ms & 0xffff,
                self.tag & 0xfff
            ),
            user: format!("u{unit:08}"),
            item: format!("{:06}", unit % 1000),
            brand: format!("{:04}", unit % 100),
            session: format!("s{unit:08}"),
            position: i32::try_from(1 + unit % 9).unwrap_or(1),
        }
    }

    /// The values of a row, in the order of the statements above; the transaction's id comes last.
    fn values<'r>(&'r self, row: &'r Row) -> Vec<&'r (dyn ToSql + Sync)> {
        match row {
            Row::Assignment(user) => vec![
                user,
                &1_i64,
                &2_i64,
                &None::<&str>,
                &1_i32,
                &0_i16,
                &false,
                &self.tx,
            ],
            Row::Event(event) => vec![
                &event.event_id,
                &event.user,
                &1_i64,
                &2_i64,
                &"impression",
                &event.item,
                &event.brand,
                &event.position,
                &self.data,
                &event.session,
                &false,
                &true,
                &self.now,
                &self.tx,
            ],
        }
    }
}

const fn types(table: Table) -> &'static [Type] {
    match table {
        Table::Assignments => &[
            Type::TEXT,
            Type::INT8,
            Type::INT8,
            Type::TEXT,
            Type::INT4,
            Type::INT2,
            Type::BOOL,
            Type::INT8,
        ],
        Table::Events => &[
            Type::TEXT,
            Type::TEXT,
            Type::INT8,
            Type::INT8,
            Type::TEXT,
            Type::TEXT,
            Type::TEXT,
            Type::INT4,
            Type::JSONB,
            Type::TEXT,
            Type::BOOL,
            Type::BOOL,
            Type::TIMESTAMPTZ,
            Type::INT8,
        ],
    }
}

/// Rows a second of one binary COPY, its commit included.
///
/// # Errors
/// [`BenchError::Db`].
pub(crate) async fn copy(
    settings: &ConnectSettings,
    table: Table,
    tag: u32,
    seconds: u64,
) -> Result<f64, BenchError> {
    let client = settings.connect(Purpose::Maintain).await?;
    let rows = Rows::of(&client, tag).await?;
    let statement = if table == Table::Events {
        COPY_EVENTS
    } else {
        COPY_ASSIGNMENTS
    };
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds);
    let mut writer = pin!(BinaryCopyInWriter::new(
        client.copy_in(statement).await?,
        types(table)
    ));
    let mut number = 0;
    while number % 64 != 0 || Instant::now() < until {
        let row = rows.row(table, number);
        writer.as_mut().write(&rows.values(&row)).await?;
        number += 1;
    }
    let written = writer.as_mut().finish().await?;
    #[expect(clippy::cast_precision_loss, reason = "rows of a few seconds")]
    Ok(written as f64 / started.elapsed().as_secs_f64())
}

/// Events a second of binary COPY into both tables that recording writes: the events, and the keys that hold the unique
/// index of their ids. One transaction; its commit is included.
///
/// # Errors
/// [`BenchError::Db`].
pub(crate) async fn copy_with_keys(
    settings: &ConnectSettings,
    tag: u32,
    seconds: u64,
) -> Result<f64, BenchError> {
    let mut client = settings.connect(Purpose::Maintain).await?;
    let rows = Rows::of(&client, tag).await?;
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds);
    let transaction = client.transaction().await?;
    let mut written = 0;
    while Instant::now() < until {
        let (mut keys, chunk) = (Vec::new(), written..written + KEYED_CHUNK);
        let mut writer = pin!(BinaryCopyInWriter::new(
            transaction.copy_in(COPY_EVENTS).await?,
            types(Table::Events)
        ));
        for number in chunk {
            let row = rows.row(Table::Events, number);
            if let Row::Event(event) = &row {
                keys.push(event_key(1, &event.event_id));
            }
            writer.as_mut().write(&rows.values(&row)).await?;
        }
        written += writer.as_mut().finish().await?;
        let mut writer = pin!(BinaryCopyInWriter::new(
            transaction.copy_in(COPY_KEYS).await?,
            &[Type::UUID]
        ));
        for key in &keys {
            writer.as_mut().write(&[key]).await?;
        }
        writer.as_mut().finish().await?;
    }
    transaction.commit().await?;
    #[expect(clippy::cast_precision_loss, reason = "rows of a few seconds")]
    Ok(written as f64 / started.elapsed().as_secs_f64())
}

/// Rows of one COPY of [`copy_with_keys`].
const KEYED_CHUNK: u64 = 20_000;

/// Rows that are written one a commit, on many connections.
pub(crate) struct Inserts {
    connections: Vec<(Client, Statement)>,
    rows: Rows,
    table: Table,
    number: AtomicU64,
}

impl Inserts {
    /// Connects. Rows of another tag do not collide with these.
    ///
    /// # Errors
    /// [`BenchError::Db`].
    pub(crate) async fn open(
        settings: &ConnectSettings,
        table: Table,
        tag: u32,
    ) -> Result<Self, BenchError> {
        let sql = match table {
            Table::Assignments => INSERT_ASSIGNMENT,
            Table::Events => INSERT_EVENT,
        };
        let mut connections = Vec::new();
        for _ in 0..INSERT_CONNECTIONS {
            let client = settings.connect(Purpose::Maintain).await?;
            let statement = client.prepare(sql).await?;
            connections.push((client, statement));
        }
        let rows = match connections.first() {
            Some((client, _)) => Rows::of(client, tag).await?,
            None => return Err(BenchError::Invalid("no connection".into())),
        };
        Ok(Self {
            connections,
            rows,
            table,
            number: AtomicU64::new(0),
        })
    }

    /// Writes the next row on any connection and returns after its commit.
    ///
    /// # Errors
    /// [`BenchError::Db`].
    pub(crate) async fn write(&self) -> Result<u64, BenchError> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let connection = usize::try_from(number).unwrap_or_default() % self.connections.len();
        self.write_on(connection, number).await
    }

    async fn write_on(&self, connection: usize, number: u64) -> Result<u64, BenchError> {
        let Some((client, statement)) = self.connections.get(connection) else {
            return Ok(0);
        };
        // The transaction id is left to the column's default: a row a commit needs one of its own.
        let row = self.rows.row(self.table, number);
        let mut values = self.rows.values(&row);
        values.pop();
        Ok(client.execute(statement, &values).await?)
    }

    async fn write_until(&self, connection: usize, until: Instant) -> Result<u64, BenchError> {
        let mut written = 0;
        while Instant::now() < until {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            written += self.write_on(connection, number).await?;
        }
        Ok(written)
    }
}

/// Commits a second of many connections that insert one row in each.
///
/// # Errors
/// [`BenchError::Db`].
pub(crate) async fn insert(
    settings: &ConnectSettings,
    table: Table,
    tag: u32,
    seconds: u64,
) -> Result<f64, BenchError> {
    let inserts = Arc::new(Inserts::open(settings, table, tag).await?);
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..INSERT_CONNECTIONS)
        .map(|connection| {
            let inserts = inserts.clone();
            tokio::spawn(async move { inserts.write_until(connection, until).await })
        })
        .collect();
    let mut written = 0;
    for task in tasks {
        written += task.await??;
    }
    #[expect(clippy::cast_precision_loss, reason = "rows of a few seconds")]
    Ok(written as f64 / started.elapsed().as_secs_f64())
}

/// The 99th percentile, in milliseconds, of committing a hundred events, one commit after the other.
///
/// # Errors
/// [`BenchError::Db`].
pub(crate) async fn commit_p99_ms(
    settings: &ConnectSettings,
    tag: u32,
    seconds: u64,
) -> Result<f64, BenchError> {
    let client = settings.connect(Purpose::Maintain).await?;
    let rows = Rows::of(&client, tag).await?;
    let statement = client.prepare(INSERT_HUNDRED).await?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut number, mut times) = (0, Vec::new());
    while Instant::now() < until {
        let events: Vec<EventTexts> = (number..number + 100)
            .map(|number| rows.event(number))
            .collect();
        number += 100;
        let text = |of: fn(&EventTexts) -> &str| events.iter().map(of).collect::<Vec<&str>>();
        let positions: Vec<i32> = events.iter().map(|event| event.position).collect();
        let data = vec![DATA; events.len()];
        let began = Instant::now();
        client
            .execute(
                &statement,
                &[
                    &text(|e| &e.event_id),
                    &text(|e| &e.user),
                    &text(|e| &e.item),
                    &text(|e| &e.brand),
                    &positions,
                    &data,
                    &text(|e| &e.session),
                ],
            )
            .await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(percentile(&mut times, 0.99))
}
