//! What happened to promotions, as it happens: LISTEN on `experiment_promotion`, and the numbered events behind it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::poll_fn;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Row};

use crate::connect::{ConnectSettings, Purpose};
use crate::rows::column;
use crate::{Database, StorageError};

/// Something that happened to a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotionEvent {
    /// Rises; without gaps only as long as no transaction fails.
    pub id: i64,
    /// `promotion_created`, `promotion_rolled_back` or `promotion_updated`.
    pub event_type: String,
    /// The event as JSON text.
    pub payload: String,
    /// When the transaction that made it began.
    pub created_at: DateTime<Utc>,
}

/// A signal from the listening connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The connection stands: whatever was announced before it did is to be looked for.
    Listening,
    /// Something was announced.
    News,
}

const AFTER: &str = "-- promotion_events::after
SELECT id, payload ->> 'event_type' AS event_type, payload::text AS payload, created_at
FROM promotion_events WHERE id > $1 ORDER BY id LIMIT $2";

const NEWEST: &str = "-- promotion_events::newest
SELECT coalesce(max(id), 0) AS id FROM promotion_events";

/// At most `limit` events behind the event `after`, oldest first.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn after(
    database: &Database,
    after: i64,
    limit: i64,
) -> Result<Vec<PromotionEvent>, StorageError> {
    let mut link = database.serve().await?;
    let rows = link.query(AFTER, &[&after, &limit]).await?;
    rows.iter().map(event).collect()
}

/// The number of the newest event; 0 when there is none.
///
/// # Errors
/// As [`after`].
pub async fn newest(database: &Database) -> Result<i64, StorageError> {
    let row = database.serve().await?.query_opt(NEWEST, &[]).await?;
    row.as_ref().map_or(Ok(0), |row| column(row, T, "id"))
}

/// Listens for ever on a connection of its own made with `direct` and signals into `heard`, until nobody hears. A lost
/// connection is made anew. A full queue holds a signal already, so nothing is lost with one that does not fit.
pub async fn listen(direct: &ConnectSettings, heard: &mpsc::Sender<Signal>) {
    const AGAIN: Duration = Duration::from_millis(500);
    while !heard.is_closed() {
        if let Err(error) = listen_once(direct, heard).await {
            tracing::debug!(error = %error.chain(), "listening for promotions ended; will try again");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen_once(
    direct: &ConnectSettings,
    heard: &mpsc::Sender<Signal>,
) -> Result<(), StorageError> {
    let config = direct.config_for(Purpose::Work);
    let (client, mut connection) =
        tokio::time::timeout(Duration::from_secs(5), config.connect(direct.tls()))
            .await
            .map_err(|_| StorageError::TimedOut)??;
    let news = async {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(_) = message? {
                let _ = heard.try_send(Signal::News);
            }
        }
        Ok::<(), StorageError>(())
    };
    let listening = async {
        client.batch_execute("LISTEN experiment_promotion").await?;
        let _ = heard.send(Signal::Listening).await;
        // The connection lives as long as its client.
        heard.closed().await;
        drop(client);
        Ok::<(), StorageError>(())
    };
    tokio::try_join!(news, listening).map(|_| ())
}

const T: &str = "promotion_events";

fn event(row: &Row) -> Result<PromotionEvent, StorageError> {
    Ok(PromotionEvent {
        id: column(row, T, "id")?,
        event_type: column(row, T, "event_type")?,
        payload: column(row, T, "payload")?,
        created_at: column(row, T, "created_at")?,
    })
}
