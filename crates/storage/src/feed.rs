//! News of changed definitions: LISTEN, with polling as a safety net.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::poll_fn;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;

use crate::connect::{ConnectSettings, Purpose};
use crate::{Database, StorageError, definitions};

/// How often the version is polled while LISTEN is up; without it (a transaction pooler) every half second.
const POLL_WITH_LISTEN: Duration = Duration::from_millis(900);
const POLL_WITHOUT_LISTEN: Duration = Duration::from_millis(500);
const POLL_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Waits for changes of the definitions.
pub struct Feed {
    database: Database,
    news: Arc<Notify>,
    listener: JoinHandle<()>,
}

impl Feed {
    /// Starts to listen, on a connection of its own made with `direct` (no transaction pooler in between).
    /// `direct` is `None` where there is only a pooler: then the feed polls.
    #[must_use]
    pub fn start(database: Database, direct: Option<ConnectSettings>) -> Self {
        let news = Arc::new(Notify::new());
        let heard = news.clone();
        let listener = tokio::spawn(async move {
            match direct {
                Some(settings) => listen_for_ever(&settings, &heard).await,
                None => loop {
                    tokio::time::sleep(POLL_WITHOUT_LISTEN).await;
                    heard.notify_one();
                },
            }
        });
        Self {
            database,
            news,
            listener,
        }
    }

    /// Returns when the version in the database differs from `known`. While the database is away it goes on trying.
    pub async fn changed(&self, known: i64) {
        let mut pause = POLL_WITH_LISTEN;
        loop {
            let _ = tokio::time::timeout(pause, self.news.notified()).await;
            pause = match self.version().await {
                Ok(version) if version != known => return,
                Ok(_) => POLL_WITH_LISTEN,
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "definitions cannot be polled");
                    // What woke us is still to be read.
                    POLL_AFTER_ERROR
                }
            };
        }
    }

    async fn version(&self) -> Result<i64, StorageError> {
        definitions::version(&mut self.database.watch().await?).await
    }
}

/// So that no connection outlives its process's orderly end.
impl Drop for Feed {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn listen_for_ever(settings: &ConnectSettings, news: &Arc<Notify>) {
    loop {
        if let Err(error) = listen(settings, news).await {
            tracing::debug!(error = %error.chain(), "listening for changes ended; will try again");
        }
        // Whatever was announced while nobody listened is found by looking once.
        news.notify_one();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Listens until the connection ends.
async fn listen(settings: &ConnectSettings, news: &Arc<Notify>) -> Result<(), StorageError> {
    let config = settings.config_for(Purpose::Work);
    let (client, mut connection) =
        tokio::time::timeout(Duration::from_secs(5), config.connect(settings.tls()))
            .await
            .map_err(|_| StorageError::TimedOut)??;
    let heard = news.clone();
    let ended = tokio::spawn(async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(_) = message? {
                heard.notify_one();
            }
        }
        Ok::<(), StorageError>(())
    });
    client.batch_execute("LISTEN podium_config").await?;
    news.notify_one();
    ended.await.unwrap_or(Ok(()))
}
