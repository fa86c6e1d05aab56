//! Pools, client-side timers and transactions.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
    Transaction,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Row};

use crate::StorageError;
use crate::connect::{ConnectSettings, Purpose};

/// How often a contended transaction is tried.
const ATTEMPTS: u32 = 3;

/// Uploads that run at the same time; each has a connection of its own.
const UPLOADS: usize = 2;

/// The database as the rest of the program sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    settings: ConnectSettings,
    owner: ConnectSettings,
    serve: Pool,
    write: Pool,
    report: Pool,
    work: Pool,
    health: Pool,
    reachable: AtomicBool,
    failures: [AtomicU64; Failure::ALL.len()],
    uploads: Arc<Semaphore>,
}

/// Why a connection or a statement was not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection was free in time.
    PoolTimeout,
    /// The server did not take a connection.
    Connect,
    /// The client-side timer ended a statement.
    StatementTimeout,
    /// The connection broke under a statement.
    Broken,
}

impl Failure {
    /// Every failure with its word.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::PoolTimeout, "pool_timeout"),
        (Self::Connect, "connect"),
        (Self::StatementTimeout, "statement_timeout"),
        (Self::Broken, "broken"),
    ];
}

/// Connections of one pool at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// What the pool is for.
    pub pool: &'static str,
    /// Connections that wait for work.
    pub idle: usize,
    /// Connections at work.
    pub used: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
    /// Connections that it may have.
    pub max: usize,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("reachable", &self.reachable)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Makes the pools; opens no connection yet. The role that serves owns the tables, too.
    ///
    /// # Errors
    /// [`StorageError::Settings`] when a pool cannot be built.
    pub fn new(settings: ConnectSettings) -> Result<Self, StorageError> {
        let owner = settings.clone();
        Self::owned_by(settings, owner)
    }

    /// As [`Self::new`], where another role owns the tables, or the owner alone reaches the server past a pooler.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn owned_by(
        settings: ConnectSettings,
        owner: ConnectSettings,
    ) -> Result<Self, StorageError> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let pool = |purpose, size| build_pool(&settings, purpose, size);
        let (serve, write) = (
            pool(Purpose::Serve, (2 * cores).min(32))?,
            pool(Purpose::Serve, 6)?,
        );
        let (report, work) = (pool(Purpose::Report, 2)?, pool(Purpose::Work, 2)?);
        // A pool of its own: busy admin routes must not look like a dead database, and background work must not delay news.
        let health = pool(Purpose::Serve, 2)?;
        let reachable = AtomicBool::new(true);
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                owner,
                serve,
                write,
                report,
                work,
                health,
                reachable,
                failures: Default::default(),
                uploads: Arc::new(Semaphore::new(UPLOADS)),
            }),
        })
    }

    /// The settings, for connections outside the pools.
    #[must_use]
    pub fn settings(&self) -> &ConnectSettings {
        &self.inner.settings
    }

    /// How the owner of the tables connects, for what nobody else may: making and dropping partitions.
    #[must_use]
    pub fn owner(&self) -> &ConnectSettings {
        &self.inner.owner
    }

    /// Whether the last attempt to reach the server succeeded.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.inner.reachable.load(Ordering::Relaxed)
    }

    /// Records what an attempt to reach the server showed.
    pub fn set_reachable(&self, reachable: bool) {
        if self.inner.reachable.swap(reachable, Ordering::Relaxed) != reachable {
            if reachable {
                tracing::info!("database is reachable again");
            } else {
                tracing::warn!("database is not reachable");
            }
        }
    }

    /// The state of every pool.
    #[must_use]
    pub fn pools(&self) -> [PoolState; 5] {
        let inner = &self.inner;
        let pools = [
            ("serve", &inner.serve),
            ("write", &inner.write),
            ("report", &inner.report),
            ("work", &inner.work),
            ("health", &inner.health),
        ];
        pools.map(|(name, pool)| {
            let status = pool.status();
            PoolState {
                pool: name,
                idle: status.available.min(status.size),
                used: status.size.saturating_sub(status.available),
                waiting: status.waiting,
                max: status.max_size,
            }
        })
    }

    /// How often each [`Failure`] happened since the process started, in their order.
    #[must_use]
    pub fn failures(&self) -> [u64; Failure::ALL.len()] {
        self.inner
            .failures
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    fn failed(&self, failure: Failure, purpose: Purpose) {
        if let Some(count) = self.inner.failures.get(failure as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // Waiting in vain for a busy connection says nothing about the server, and a report or a background task that was
        // ended says little: the storefront's own statements and the probe, once a second, decide.
        if failure != Failure::PoolTimeout && purpose == Purpose::Serve {
            self.set_reachable(false);
        }
    }

    /// A connection for requests.
    ///
    /// # Errors
    /// [`StorageError::Pool`] when none is free within a second.
    pub async fn serve(&self) -> Result<Link, StorageError> {
        self.link(&self.inner.serve, Purpose::Serve).await
    }

    /// A connection for the grouped writers, which must not wait behind admin requests.
    ///
    /// # Errors
    /// As [`Database::serve`].
    pub async fn write(&self) -> Result<Link, StorageError> {
        self.link(&self.inner.write, Purpose::Serve).await
    }

    /// A connection for reports.
    ///
    /// # Errors
    /// As [`Database::serve`].
    pub async fn report(&self) -> Result<Link, StorageError> {
        self.link(&self.inner.report, Purpose::Report).await
    }

    /// A connection for background work.
    ///
    /// # Errors
    /// As [`Database::serve`].
    pub async fn work(&self) -> Result<Link, StorageError> {
        self.link(&self.inner.work, Purpose::Work).await
    }

    /// A connection for the process's own short questions: whether it is up to date, and whether the definitions changed.
    ///
    /// # Errors
    /// As [`Database::serve`].
    pub async fn watch(&self) -> Result<Link, StorageError> {
        self.link(&self.inner.health, Purpose::Serve).await
    }

    /// Room for one more upload.
    ///
    /// # Errors
    /// [`StorageError::QueueFull`].
    pub(crate) fn room_for_upload(&self) -> Result<OwnedSemaphorePermit, StorageError> {
        let room = self.inner.uploads.clone().try_acquire_owned();
        room.map_err(|_| StorageError::QueueFull)
    }

    async fn link(&self, pool: &Pool, purpose: Purpose) -> Result<Link, StorageError> {
        let object = pool.get().await.inspect_err(|error| {
            let failure = match error {
                PoolError::Timeout(TimeoutType::Wait) => Failure::PoolTimeout,
                _ => Failure::Connect,
            };
            self.failed(failure, purpose);
        })?;
        Ok(Link {
            object: Some(object),
            purpose,
            limit: purpose.client_limit(),
            database: self.clone(),
        })
    }

    /// Asks the server for a sign of life and remembers the answer.
    pub async fn probe(&self) -> bool {
        let alive = match self.watch().await {
            Ok(mut link) => link
                .query("-- database::probe\nSELECT 1", &[])
                .await
                .is_ok(),
            Err(_) => false,
        };
        self.set_reachable(alive);
        alive
    }

    /// Runs `body` in a transaction: committed when it returns `Ok`, rolled back otherwise, and tried again
    /// when PostgreSQL reports a deadlock or a serialization failure.
    ///
    /// # Errors
    /// What `body` returns, or a [`StorageError`] turned into its error type.
    pub async fn transaction<T, E, F>(&self, body: F) -> Result<T, E>
    where
        E: From<StorageError> + AsStorageError,
        F: AsyncFn(&Transaction<'_>) -> Result<T, E>,
    {
        let serve = async || self.serve().await;
        tried(serve, IsolationLevel::ReadCommitted, body).await
    }

    /// As [`Self::transaction`], for background work on many rows: it may take as long as such work may.
    ///
    /// # Errors
    /// As [`Self::transaction`].
    pub async fn background_transaction<T, E, F>(&self, body: F) -> Result<T, E>
    where
        E: From<StorageError> + AsStorageError,
        F: AsyncFn(&Transaction<'_>) -> Result<T, E>,
    {
        let work = async || self.work().await;
        tried(work, IsolationLevel::ReadCommitted, body).await
    }

    /// As [`Self::transaction`], where every statement sees the same moment. What somebody else has changed since then
    /// cannot be changed here: then `body` runs anew.
    ///
    /// # Errors
    /// As [`Self::transaction`].
    pub async fn transaction_of_one_moment<T, E, F>(&self, body: F) -> Result<T, E>
    where
        E: From<StorageError> + AsStorageError,
        F: AsyncFn(&Transaction<'_>) -> Result<T, E>,
    {
        let serve = async || self.serve().await;
        tried(serve, IsolationLevel::RepeatableRead, body).await
    }

    /// Runs `body` in a transaction that only reads, and whose statements all see the same moment.
    ///
    /// # Errors
    /// What `body` returns, or a [`StorageError`] turned into its error type.
    pub async fn snapshot<T, E, F>(&self, body: F) -> Result<T, E>
    where
        E: From<StorageError>,
        F: AsyncFn(&Transaction<'_>) -> Result<T, E>,
    {
        let mut link = self.report().await?;
        link.transaction_once(IsolationLevel::RepeatableRead, true, &body)
            .await
    }
}

/// Runs `body` in a transaction on connections that `link` hands out, anew after contention.
async fn tried<T, E, F>(
    link: impl AsyncFn() -> Result<Link, StorageError>,
    isolation: IsolationLevel,
    body: F,
) -> Result<T, E>
where
    E: From<StorageError> + AsStorageError,
    F: AsyncFn(&Transaction<'_>) -> Result<T, E>,
{
    let mut attempt = 1;
    loop {
        let mut link = link().await?;
        let outcome = link.transaction_once(isolation, false, &body).await;
        match outcome {
            Err(error) if error.as_storage().is_some_and(StorageError::is_contention) => {
                if attempt == ATTEMPTS {
                    return Err(error);
                }
            }
            other => return other,
        }
        drop(link);
        tokio::time::sleep(pause()).await;
        attempt += 1;
    }
}

/// The wait before a contended transaction is tried again: 10 to 100 ms, by the dice that the standard library's maps throw,
/// so that two losers do not meet again.
fn pause() -> Duration {
    let dice = RandomState::new().hash_one(ATTEMPTS);
    Duration::from_millis(10 + dice % 91)
}

/// What prepared statements can be run on: a connection, or a transaction whose caller has set the timer.
pub trait Query: Send {
    /// Runs a prepared statement and reads its rows.
    ///
    /// # Errors
    /// [`StorageError::Db`]; on a connection [`StorageError::TimedOut`] too.
    fn query(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Vec<Row>, StorageError>> + Send;

    /// Runs a prepared statement that returns at most one row.
    ///
    /// # Errors
    /// As [`Query::query`].
    fn query_opt(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> impl Future<Output = Result<Option<Row>, StorageError>> + Send {
        async move { Ok(self.query(sql, params).await?.into_iter().next()) }
    }
}

impl Query for Link {
    async fn query(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StorageError> {
        Self::query(self, sql, params).await
    }
}

impl Query for &Transaction<'_> {
    async fn query(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StorageError> {
        let statement = self.prepare_cached(sql).await?;
        Ok(deadpool_postgres::GenericClient::query(*self, &statement, params).await?)
    }
}

/// Errors that may hold a [`StorageError`], so that contention inside a transaction can be seen.
pub trait AsStorageError {
    /// The storage error inside, if there is one.
    fn as_storage(&self) -> Option<&StorageError>;
}

impl AsStorageError for StorageError {
    fn as_storage(&self) -> Option<&StorageError> {
        Some(self)
    }
}

fn build_pool(
    settings: &ConnectSettings,
    purpose: Purpose,
    size: usize,
) -> Result<Pool, StorageError> {
    let manager = Manager::from_config(
        settings.config_for(purpose),
        settings.tls(),
        ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        },
    );
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(Duration::from_secs(1)))
        .create_timeout(Some(Duration::from_secs(2)))
        .recycle_timeout(Some(Duration::from_secs(1)))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StorageError::Settings(error.to_string()))
}

/// How long it is tried to tell the server that a statement is not waited for.
const CANCEL_TIME: Duration = Duration::from_secs(2);

/// A borrowed connection whose every statement runs under a client-side timer: a frozen server enforces no limit
/// of its own. When the timer ends a statement, the connection is thrown away.
pub struct Link {
    object: Option<Object>,
    purpose: Purpose,
    limit: Duration,
    database: Database,
}

impl Link {
    fn object(&self) -> Result<&Object, StorageError> {
        self.object.as_ref().ok_or(StorageError::TimedOut)
    }

    /// The same connection for statements that may take no longer than this, and no longer than they may anyway.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = self.limit.min(limit);
        self
    }

    /// How long a statement may take.
    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    /// The connection, for a transaction of several steps. Its caller sets the timer and lets [`Link::settle`] judge.
    pub(crate) fn object_mut(&mut self) -> Result<&mut Object, StorageError> {
        self.object.as_mut().ok_or(StorageError::TimedOut)
    }

    /// Draws the conclusions of an outcome: whether the server can be reached, whether the connection is still good.
    pub(crate) fn settle<T>(
        &mut self,
        outcome: Result<Result<T, StorageError>, tokio::time::error::Elapsed>,
    ) -> Result<T, StorageError> {
        match outcome {
            Ok(Ok(value)) => {
                self.database.set_reachable(true);
                Ok(value)
            }
            Err(_) | Ok(Err(StorageError::TimedOut)) => {
                self.discard();
                Err(StorageError::TimedOut)
            }
            Ok(Err(error)) => {
                if let StorageError::Db(db) = &error
                    && db.as_db_error().is_none()
                {
                    self.database.failed(Failure::Broken, self.purpose);
                }
                Err(error)
            }
        }
    }

    /// As [`Link::settle`], for work with a COPY in it. One that is refused before it takes data is answered twice, and the
    /// driver would hand the second answer to whoever uses the connection next, so the connection is closed. What the data
    /// are refused for comes later and leaves nothing behind.
    pub(crate) fn settle_copy<T>(
        &mut self,
        outcome: Result<Result<T, StorageError>, tokio::time::error::Elapsed>,
    ) -> Result<T, StorageError> {
        let settled = self.settle(outcome);
        if let Err(error) = &settled
            && !error.is_data_fault()
            && let Some(object) = self.object.take()
        {
            drop(Object::take(object));
        }
        settled
    }

    fn discard(&mut self) {
        self.database
            .failed(Failure::StatementTimeout, self.purpose);
        if let Some(object) = self.object.take() {
            let client = Object::take(object);
            // The server's own limit is later than this one: without a word it would go on for nobody.
            if self.limit < self.purpose.client_limit() {
                let (token, tls) = (client.cancel_token(), self.database.settings().tls());
                tokio::spawn(tokio::time::timeout(CANCEL_TIME, async move {
                    token.cancel_query(tls).await
                }));
            }
        }
    }

    /// Runs a prepared statement and reads its rows.
    ///
    /// # Errors
    /// [`StorageError::Db`], or [`StorageError::TimedOut`] after the purpose's limit.
    pub async fn query(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StorageError> {
        let outcome = {
            let object = self.object()?;
            timeout(self.limit(), async {
                let statement = object.prepare_cached(sql).await?;
                Ok(object.query(&statement, params).await?)
            })
            .await
        };
        self.settle(outcome)
    }

    /// Runs a prepared statement that returns at most one row.
    ///
    /// # Errors
    /// As [`Link::query`].
    pub async fn query_opt(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, StorageError> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Runs `body` in one transaction under the timer.
    async fn transaction_once<T, E, F>(
        &mut self,
        isolation: IsolationLevel,
        read_only: bool,
        body: &F,
    ) -> Result<T, E>
    where
        E: From<StorageError>,
        F: AsyncFn(&Transaction<'_>) -> Result<T, E>,
    {
        let limit = self.limit();
        let object = self.object.as_mut().ok_or(StorageError::TimedOut)?;
        let outcome = timeout(limit, async {
            let transaction = object
                .build_transaction()
                .isolation_level(isolation)
                .read_only(read_only)
                .start()
                .await
                .map_err(StorageError::from)?;
            let value = body(&transaction).await?;
            transaction.commit().await.map_err(StorageError::from)?;
            Ok::<T, E>(value)
        })
        .await;
        match outcome {
            Ok(outcome) => outcome,
            Err(_) => {
                self.discard();
                Err(StorageError::TimedOut.into())
            }
        }
    }

    /// The bare client, for code that streams or runs its own transaction. Its caller owns the timer.
    ///
    /// # Errors
    /// [`StorageError::TimedOut`] when an earlier statement lost the connection.
    pub fn client(&mut self) -> Result<&mut Client, StorageError> {
        self.object
            .as_mut()
            .map(|object| &mut ***object)
            .ok_or(StorageError::TimedOut)
    }
}
