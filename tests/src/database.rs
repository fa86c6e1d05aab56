//! The database server of the test run, and a database for each test.
//!
//! The server is the one of `DATABASE_URL`, whose user must be allowed to create databases, or else the private server
//! that all test processes of this checkout share.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use podium_private_postgres::testing::SharedServer;
use podium_storage::connect::{ConnectSettings, Purpose};
use podium_storage::migrate::migrate;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard, OnceCell};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::clock::now;

/// Keeps two test processes from making the template at the same time.
const TEMPLATE_LOCK: i64 = 0x706f_6469_756d_7402;

/// The address of the server's maintenance database. A shared server runs as long as this process uses it.
fn server() -> &'static str {
    static SERVER: OnceLock<(String, Option<SharedServer>)> = OnceLock::new();
    let (url, _keep) = SERVER.get_or_init(|| match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => (url, None),
        _ => {
            let shared = SharedServer::join().unwrap();
            (shared.url("podium"), Some(shared))
        }
    });
    url
}

/// A database that belongs to one test and is dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    // None when the whole server belongs to the test and goes away by itself.
    admin: Option<String>,
    session: Mutex<Option<Client>>,
}

impl TestDatabase {
    /// A migrated database.
    pub async fn migrated() -> Self {
        let template = template(server()).await;
        Self::create(&format!("TEMPLATE {template}")).await
    }

    /// A database without any table.
    pub async fn empty() -> Self {
        Self::create("TEMPLATE template0").await
    }

    /// A migrated database on a server of the test's own.
    pub async fn on(url: String) -> Self {
        migrate(&ConnectSettings::parse(&url).unwrap())
            .await
            .unwrap();
        Self {
            name: String::new(),
            url,
            admin: None,
            session: Mutex::default(),
        }
    }

    async fn create(options: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "podium_it_{}_{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let admin = connect(server()).await;
        // Left behind by a killed process with the same number.
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await
            .unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {name} {options}"))
            .await
            .unwrap();
        let url = with_database(server(), &name);
        Self {
            name,
            url,
            admin: Some(server().to_owned()),
            session: Mutex::default(),
        }
    }

    /// Its address, as in `DATABASE_URL`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address, read.
    #[must_use]
    pub fn settings(&self) -> ConnectSettings {
        ConnectSettings::parse(&self.url).unwrap()
    }

    /// A session of its own, for transactions that stay open.
    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// Runs statements, one after the other.
    pub async fn execute(&self, sql: &str) {
        if let Err(error) = self.session().await.batch_execute(sql).await {
            panic!("{error:?} in: {sql}");
        }
    }

    /// All rows, every value as text; `NULL` is `∅`.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let messages = self
            .session()
            .await
            .simple_query(sql)
            .await
            .unwrap_or_else(|error| panic!("{error:?} in: {sql}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| {
            (0..row.len())
                .map(|at| row.get(at).unwrap_or("∅").to_owned())
                .collect()
        })
        .collect()
    }

    /// The first value of the first row, as text.
    ///
    /// # Panics
    /// When there is no row.
    pub async fn text(&self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        rows.first()
            .and_then(|row| row.first())
            .unwrap_or_else(|| panic!("no row from: {sql}"))
            .clone()
    }

    /// The first value of the first row, as a number.
    ///
    /// # Panics
    /// When there is no row, or no number in it.
    pub async fn number(&self, sql: &str) -> i64 {
        self.text(sql).await.parse().unwrap()
    }

    /// One session for all questions, made anew when the server has closed it.
    async fn session(&self) -> MappedMutexGuard<'_, Client> {
        let mut session = self.session.lock().await;
        if session.as_ref().is_none_or(Client::is_closed) {
            *session = Some(connect(&self.url).await);
        }
        MutexGuard::map(session, |session| session.as_mut().unwrap())
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(admin) = self.admin.take() else {
            return;
        };
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A thread of its own, because dropping happens inside of an async runtime and cannot wait there.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                connect(&admin)
                    .await
                    .batch_execute(&statement)
                    .await
                    .unwrap();
            });
        });
        if dropping.join().is_err() {
            eprintln!("database {} stays", self.name);
        }
    }
}

/// A connection without the limits that the program sets on its own.
pub async fn connect(url: &str) -> Client {
    ConnectSettings::parse(url)
        .unwrap()
        .connect(Purpose::Maintain)
        .await
        .unwrap()
}

/// The same server, another database.
#[must_use]
pub fn with_database(url: &str, name: &str) -> String {
    let (address, query) = url
        .split_once('?')
        .map_or((url, None), |(address, query)| (address, Some(query)));
    let (scheme, rest) = address
        .split_once("://")
        .expect("the address must be a URL");
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{host}/{name}{query}")
}

/// The folder of the migrations.
#[must_use]
pub fn migrations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

/// The text of every migration, in order.
#[must_use]
pub fn migration_texts() -> Vec<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(migrations())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "sql"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect()
}

/// The migrated template for the migrations as they are now, made by whoever comes first.
async fn template(server: &str) -> String {
    static NAME: OnceCell<String> = OnceCell::const_new();
    NAME.get_or_init(|| make_template(server)).await.clone()
}

async fn make_template(server: &str) -> String {
    let admin = connect(server).await;
    let name = format!("podium_it_template_{}", fingerprint());
    admin
        .execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK])
        .await
        .unwrap();
    let known = admin
        .query("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])
        .await
        .unwrap();
    if known.is_empty() {
        // Renamed only when it is complete, so that a killed process leaves no half template.
        let draft = format!("{name}_draft");
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)"))
            .await
            .unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {draft} TEMPLATE template0"))
            .await
            .unwrap();
        migrate(&ConnectSettings::parse(&with_database(server, &draft)).unwrap())
            .await
            .unwrap();
        // The connection of the migrations closes in its own time.
        crate::eventually("the template is free to be renamed", async || {
            admin
                .batch_execute(&format!("ALTER DATABASE {draft} RENAME TO {name}"))
                .await
                .is_ok()
        })
        .await;
    }
    name
}

/// Changes with the migrations, and with the week, because partitions are made for the weeks around now.
fn fingerprint() -> String {
    let mut hasher = DefaultHasher::new();
    migration_texts().hash(&mut hasher);
    (now().timestamp() / Duration::from_hours(24 * 7).as_secs().cast_signed()).hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn replaces_the_database_of_an_address() {
        assert_eq!(
            with_database("postgres://u:p@h:1/a?x=1", "b"),
            "postgres://u:p@h:1/b?x=1"
        );
        assert_eq!(with_database("postgresql://h", "b"), "postgresql://h/b");
    }
}
