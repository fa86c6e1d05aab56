//! The application in the process of the test.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use podium_api::auth::Role;
use podium_api::clock::{Clock, SystemClock};
use podium_api::config::{Config, Source};
use podium_api::server::{self, Running};
use podium_api::state::AppState;
use podium_storage::fold;

use crate::client::Client;
use crate::database::TestDatabase;
use crate::experiment::ExperimentBuilder;
use crate::{eventually, token};

/// The signing secret of every application under test.
pub const SECRET: &str = "a-secret-for-tests-that-nobody-else-uses-7f3a";

/// Environment variables as a table.
#[derive(Clone, Debug, Default)]
pub struct Variables(pub HashMap<String, String>);

impl Source for Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}

/// How an application is started.
pub struct Setup {
    variables: Variables,
    clock: Arc<dyn Clock>,
    migrate: bool,
    database: Option<TestDatabase>,
}

impl Setup {
    /// A variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The clock that it is given, instead of the machine's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The database that it uses, instead of a new one.
    #[must_use]
    pub fn database(mut self, database: TestDatabase) -> Self {
        self.database = Some(database);
        self
    }

    /// Runs the migrations at start, which tests spare because their template has them.
    #[must_use]
    pub const fn migrating(mut self) -> Self {
        self.migrate = true;
        self
    }

    /// Starts the application.
    pub async fn start(self) -> TestApp {
        let database = match self.database {
            Some(database) => database,
            None => TestDatabase::migrated().await,
        };
        TestApp::start_on(Arc::new(database), self.variables, self.clock, self.migrate).await
    }
}

/// A running application with its database. Calls of a [`Client`] can be made on it. Dropping it stops the application
/// in order; the database goes with the last application that uses it.
pub struct TestApp {
    running: Option<Running>,
    client: Client,
    database: Arc<TestDatabase>,
    variables: Variables,
    clock: Arc<dyn Clock>,
}

impl TestApp {
    /// An application with a new database.
    pub async fn start() -> Self {
        Self::setup().start().await
    }

    /// Settings to change before the start.
    #[must_use]
    pub fn setup() -> Setup {
        let setup = Setup {
            variables: Variables::default(),
            clock: Arc::new(SystemClock),
            migrate: false,
            database: None,
        };
        // A slow machine is no degraded service; tests of that set a limit of their own.
        setup
            .variable("ASSIGN_WAIT_MS", "10000")
            .variable("JWT_SECRET", SECRET)
            .variable("PORT", "0")
            .variable("RATE_LIMIT_ENABLED", "false")
            .variable("WORKERS", "1")
    }

    async fn start_on(
        database: Arc<TestDatabase>,
        mut variables: Variables,
        clock: Arc<dyn Clock>,
        migrate: bool,
    ) -> Self {
        variables
            .0
            .entry("DATABASE_URL".into())
            .or_insert_with(|| database.url().to_owned());
        let config = Config::read(&variables).unwrap();
        let running = server::start(config, clock.clone(), migrate).await.unwrap();
        let client =
            Client::new(&format!("http://{}", running.address)).with_token(&token::valid("1"));
        Self {
            running: Some(running),
            client,
            database,
            variables,
            clock,
        }
    }

    /// A second application on the same database.
    pub async fn replica(&self) -> Self {
        Self::start_on(
            self.database.clone(),
            self.variables.clone(),
            self.clock.clone(),
            false,
        )
        .await
    }

    /// As [`Self::replica`], with one more variable of the environment.
    pub async fn replica_with(&self, name: &str, value: &str) -> Self {
        let mut variables = self.variables.clone();
        variables.0.insert(name.to_owned(), value.to_owned());
        Self::start_on(self.database.clone(), variables, self.clock.clone(), false).await
    }

    /// Stops the application and starts it anew on the same database: memory is lost, the table is not.
    pub async fn restart(&mut self) {
        let fresh = self.replica().await;
        *self = fresh;
    }

    /// What the handlers work with.
    ///
    /// # Panics
    /// Never: only dropping takes the application away.
    #[must_use]
    pub fn state(&self) -> &AppState {
        &self.running.as_ref().unwrap().state
    }

    /// Its database.
    #[must_use]
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// An experiment, set up with SQL and in force on this replica at once.
    #[must_use]
    pub fn experiment(&self, name: &str) -> ExperimentBuilder<'_> {
        ExperimentBuilder::new(self, name)
    }

    /// Runs SQL that changes definitions, and puts them in force on this replica.
    pub async fn change(&self, sql: &str) {
        self.database.execute(sql).await;
        self.state().serving.refresh().await.unwrap();
    }

    /// Reports pulls and successes of an arm, as others' code does.
    pub async fn teach(&self, arm: &str, pulls: u32, successes: u32) {
        let sql = format!(
            "SELECT update_bandit_arm_performance(id, (n <= {successes})::integer, n <= {successes})
             FROM bandit_arms, generate_series(1, {pulls}) AS n WHERE arm_id = '{arm}'"
        );
        self.database.execute(&sql).await;
    }

    /// Waits until this replica has heard of every change by itself.
    pub async fn hears_of_changes(&self) {
        let version = self
            .database
            .number("SELECT version FROM config_version")
            .await;
        eventually("the replica has the newest definitions", async || {
            self.state().serving.snapshot().version() >= version
        })
        .await;
    }

    /// Waits until the application has noticed by itself whether the database answers.
    pub async fn sees_database(&self, reachable: bool) {
        eventually(
            "the application sees the state of the database",
            async || self.state().database.is_reachable() == reachable,
        )
        .await;
    }

    /// Folds until everything that has committed so far is in the totals. Open transactions of other tests hold the
    /// watermark back, so this waits until they are gone.
    pub async fn fold(&self) {
        let end = self
            .database
            .number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
            .await;
        eventually("everything is folded", async || {
            fold::fold_once(&self.state().database).await.unwrap();
            self.database
                .number("SELECT watermark FROM fold_state")
                .await
                >= end
        })
        .await;
    }

    /// A client with the token of a user of this role.
    pub async fn with_role(&self, role: Role) -> Client {
        let user = format!("user-{}", role.name());
        let sql = format!(
            "INSERT INTO podium_users (id, role) VALUES ('{user}', '{}') ON CONFLICT DO NOTHING",
            role.name()
        );
        self.change(&sql).await;
        self.client.with_token(&token::valid(&user))
    }
}

impl Deref for TestApp {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        // A thread of its own, because dropping happens inside of an async runtime and cannot wait there.
        let stopping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(running.stop());
        });
        stopping.join().unwrap();
    }
}
