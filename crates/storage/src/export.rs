//! Raw rows as CSV, streamed: a few chunks are in memory, however long the answer gets.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, pin_mut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_postgres::{Client, Row, RowStream};

use crate::connect::Purpose;
use crate::{Database, StorageError};

/// Exports that run at the same time in this process; each has a connection of its own.
const AT_ONCE: usize = 2;
/// Size at which a chunk is handed on.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait for a slow client.
const WAITING: usize = 4;
/// How long a client may take nothing before the export is given up.
const PATIENCE: Duration = Duration::from_secs(60);

static ROOM: LazyLock<std::sync::Arc<Semaphore>> =
    LazyLock::new(|| std::sync::Arc::new(Semaphore::new(AT_ONCE)));

/// What can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Every recorded event, counted or not, by arrival.
    Events,
    /// Every assignment.
    Assignments,
    /// The audit log, in the order of its ids.
    Audit,
}

/// A column: its name, and whether its text is data from outside.
type Column = (&'static str, bool);

const EVENT_COLUMNS: [Column; 16] = [
    ("id", false),
    ("event_id", true),
    ("user_id", true),
    ("experiment_id", false),
    ("variant_id", false),
    ("event_type", false),
    ("event_name", true),
    ("item_id", true),
    ("brand_id", true),
    ("position", false),
    ("module_id", true),
    ("event_data", true),
    ("value", false),
    ("session_id", true),
    ("created_at", false),
    ("occurred_at", false),
];

const ASSIGNMENT_COLUMNS: [Column; 9] = [
    ("user_id", true),
    ("experiment_id", false),
    ("variant_id", false),
    ("assigned_at", false),
    ("created_at", false),
    ("session_id", true),
    ("is_sticky", false),
    ("epoch", false),
    ("propensity", false),
];

const AUDIT_COLUMNS: [Column; 11] = [
    ("id", false),
    ("at", false),
    ("actor", true),
    ("action", false),
    ("entity", false),
    ("entity_id", true),
    ("experiment_id", false),
    ("before", true),
    ("after", true),
    ("request_id", true),
    ("address", false),
];

const AUDIT: &str = r#"-- export::audit
SELECT id::text, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), actor, action, entity, entity_id,
       experiment_id::text, before::text, after::text, request_id, address
FROM audit_log WHERE id > $1 ORDER BY id"#;

const EVENTS: &str = r#"-- export::events
SELECT id::text, event_id, user_id, experiment_id::text, variant_id::text, event_type, event_name, item_id, brand_id,
       position::text, module_id, event_data::text, value::text, session_id,
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
FROM experiment_events WHERE experiment_id = $1"#;

const ASSIGNMENTS: &str = r#"-- export::assignments
SELECT user_id, experiment_id::text, variant_id::text,
       to_char(assigned_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       session_id, is_sticky::text, epoch::text, propensity::text
FROM user_experiment_assignments WHERE experiment_id = $1"#;

impl Table {
    const fn columns(self) -> &'static [Column] {
        match self {
            Self::Events => &EVENT_COLUMNS,
            Self::Assignments => &ASSIGNMENT_COLUMNS,
            Self::Audit => &AUDIT_COLUMNS,
        }
    }

    const fn statement(self) -> &'static str {
        match self {
            Self::Events => EVENTS,
            Self::Assignments => ASSIGNMENTS,
            Self::Audit => AUDIT,
        }
    }
}

/// Chunks of CSV, from the header row on. Dropping it ends the export in the database too.
#[derive(Debug)]
pub struct CsvStream(mpsc::Receiver<Result<Bytes, StorageError>>);

impl Stream for CsvStream {
    type Item = Result<Bytes, StorageError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// Begins an export: of one experiment, or of the audit log behind an id. Rows of experiments come in no order; cells of text from outside that a spreadsheet would run
/// (`=`, `+`, `-`, `@`, tab or carriage return in front) get a `'` in front.
///
/// # Errors
/// [`StorageError::QueueFull`] while other exports run; [`StorageError::Db`] when the statement does not start.
pub async fn begin(database: &Database, table: Table, of: i64) -> Result<CsvStream, StorageError> {
    let room = ROOM
        .clone()
        .try_acquire_owned()
        .map_err(|_| StorageError::QueueFull)?;
    // A connection of its own: it may be busy for minutes, which no pool is made for.
    let client = database.settings().connect(Purpose::Maintain).await?;
    let rows = client.query_raw(table.statement(), [of]).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let export = Export {
        table,
        client,
        sender,
        _room: room,
    };
    let settings = database.settings().clone();
    tokio::spawn(async move {
        if export.pump(rows).await.is_none() {
            // Nobody reads on: the server need not send the rest.
            let _ = export
                .client
                .cancel_token()
                .cancel_query(settings.tls())
                .await;
        }
    });
    Ok(CsvStream(receiver))
}

struct Export {
    table: Table,
    client: Client,
    sender: mpsc::Sender<Result<Bytes, StorageError>>,
    _room: OwnedSemaphorePermit,
}

impl Export {
    /// Sends everything on. `None` when the reader went away.
    async fn pump(&self, rows: RowStream) -> Option<()> {
        let columns = self.table.columns();
        let mut chunk = header(columns);
        pin_mut!(rows);
        while let Some(row) = rows.next().await {
            let written = row
                .map_err(StorageError::from)
                .and_then(|row| write_row(&mut chunk, columns, &row));
            if let Err(error) = written {
                // The reader sees a broken answer, never one that looks complete.
                return self.send(Err(error)).await;
            }
            if chunk.len() >= CHUNK {
                self.send(Ok(std::mem::take(&mut chunk).into())).await?;
            }
        }
        self.send(Ok(chunk.into())).await
    }

    async fn send(&self, item: Result<Bytes, StorageError>) -> Option<()> {
        timeout(PATIENCE, self.sender.send(item)).await.ok()?.ok()
    }
}

fn header(columns: &[Column]) -> String {
    let mut line = columns
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(",");
    line.push_str("\r\n");
    line
}

fn write_row(line: &mut String, columns: &[Column], row: &Row) -> Result<(), StorageError> {
    for (at, (name, from_outside)) in columns.iter().enumerate() {
        let cell: Option<&str> = row.try_get(at).map_err(|_| StorageError::CorruptRow {
            table: "export",
            column: name,
        })?;
        if at > 0 {
            line.push(',');
        }
        if let Some(cell) = cell {
            write_cell(line, cell, *from_outside);
        }
    }
    line.push_str("\r\n");
    Ok(())
}

/// One cell after RFC 4180; an empty text is `""`, so that it differs from nothing.
fn write_cell(line: &mut String, cell: &str, from_outside: bool) {
    let guard = if from_outside && cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        "'"
    } else {
        ""
    };
    if cell.is_empty() || cell.contains([',', '"', '\n', '\r']) {
        let _ = write!(line, "\"{guard}{}\"", cell.replace('"', "\"\""));
    } else {
        line.push_str(guard);
        line.push_str(cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str, from_outside: bool) -> String {
        let mut line = String::new();
        write_cell(&mut line, text, from_outside);
        line
    }

    #[test]
    fn cells_that_a_spreadsheet_would_run_are_guarded() {
        for first in ["=", "+", "-", "@", "\t"] {
            assert_eq!(cell(&format!("{first}1"), true), format!("'{first}1"));
        }
        assert_eq!(cell("\r1", true), "\"'\r1\"");
        assert_eq!(cell("=SUM(1,2)", true), "\"'=SUM(1,2)\"");
        assert_eq!(cell("a=1", true), "a=1");
        assert_eq!(cell("-1", false), "-1", "a number of ours is no formula");
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(cell("plain", true), "plain");
        assert_eq!(cell("", true), "\"\"");
        assert_eq!(cell("a,b", true), "\"a,b\"");
        assert_eq!(cell("say \"hi\"", true), "\"say \"\"hi\"\"\"");
        assert_eq!(cell("two\nlines", true), "\"two\nlines\"");
    }
}
