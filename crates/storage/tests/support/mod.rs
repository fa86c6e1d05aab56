//! A database of its own for every test, copied from a migrated template and dropped at the end.
//!
//! The server is the one of `DATABASE_URL`, whose user must be allowed to create databases, or else the shared private
//! server of this checkout.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use podium_private_postgres::testing::SharedServer;
use podium_storage::connect::{ConnectSettings, Purpose};
use podium_storage::fold;
use podium_storage::rebuild::{self, Report};
use podium_storage::{Database, migrate};
use tokio_postgres::Client;
use uuid::Uuid;

/// Keeps two test processes from making the template at the same time.
const TEMPLATE_LOCK: i64 = 0x706f_6469_756d_7401;

/// The address of the server's maintenance database. The shared server runs as long as this process.
fn server() -> &'static str {
    static SERVER: OnceLock<(String, Option<SharedServer>)> = OnceLock::new();
    let (url, _keep) = SERVER.get_or_init(|| match std::env::var("DATABASE_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let shared = SharedServer::join().unwrap();
            (shared.url("podium"), Some(shared))
        }
    });
    url
}

/// The id of an upload, another one each time.
pub(crate) fn next_upload() -> Uuid {
    static LAST: AtomicU32 = AtomicU32::new(0);
    Uuid::from_u128(LAST.fetch_add(1, Ordering::Relaxed).into())
}

/// A migrated, empty database.
pub(crate) struct TestDatabase {
    pub(crate) settings: ConnectSettings,
    pub(crate) database: Database,
    control: Client,
}

impl TestDatabase {
    /// A connection outside the pools.
    pub(crate) async fn client(&self) -> Client {
        self.settings.connect(Purpose::Maintain).await.unwrap()
    }

    /// Runs statements.
    pub(crate) async fn execute(&self, sql: &str) {
        self.control.batch_execute(sql).await.unwrap();
    }

    /// The first column of the first row, as text.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let rows = self.control.simple_query(sql).await.unwrap();
        let value = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        value.unwrap_or_default()
    }

    /// Folds until everything that has committed so far is in the totals and the rows of arms show it, whoever folded. Open
    /// transactions of other databases of the server hold the watermark back, so this waits until they are gone.
    pub(crate) async fn fold_all(&self) {
        const DONE: &str = "SELECT (SELECT watermark FROM fold_state) > greatest(
            (SELECT max(tx_id) FROM user_experiment_assignments), (SELECT max(tx_id) FROM experiment_events),
            (SELECT max(tx_id) FROM unit_aliases), (SELECT max(tx_id) FROM excluded_units), 0)
            AND NOT EXISTS (SELECT FROM bandit_stale_arms)";
        for _ in 0..10_000 {
            fold::fold_once(&self.database).await.unwrap();
            if self.text(DONE).await == "t" {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("folding never caught up");
    }

    /// Recounts and compares.
    pub(crate) async fn recount(&self, apply: bool) -> Report {
        rebuild::rebuild(&self.settings, apply).await.unwrap()
    }
}

/// Runs a test with a database of its own, which is dropped also when the test fails.
pub(crate) fn with_database(test: impl AsyncFnOnce(&TestDatabase)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let server = ConnectSettings::parse(server()).unwrap();
    runtime.block_on(async {
        let admin = server.connect(Purpose::Maintain).await.unwrap();
        let template = template(&server, &admin).await;
        let name = fresh_name();
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await
            .unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .unwrap();
        let settings = server.clone().with_database(&name);
        let database = Database::new(settings.clone()).unwrap();
        let control = settings.connect(Purpose::Maintain).await.unwrap();
        let outcome = AssertUnwindSafe(test(&TestDatabase {
            settings,
            database,
            control,
        }))
        .catch_unwind()
        .await;
        admin
            .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
            .await
            .unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "podium_test_{}_{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// The migrated template for the migrations as they are now, made by whoever comes first.
async fn template(server: &ConnectSettings, admin: &Client) -> String {
    let name = format!("podium_template_{}", fingerprint());
    // Making the template takes longer than a lock is waited for elsewhere.
    admin.batch_execute("SET lock_timeout = 0").await.unwrap();
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
            .batch_execute(&format!("CREATE DATABASE {draft}"))
            .await
            .unwrap();
        migrate::migrate(&server.clone().with_database(&draft))
            .await
            .unwrap();
        // The connection of the migrations closes in its own time.
        while admin
            .batch_execute(&format!("ALTER DATABASE {draft} RENAME TO {name}"))
            .await
            .is_err()
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    admin
        .execute("SELECT pg_advisory_unlock($1)", &[&TEMPLATE_LOCK])
        .await
        .unwrap();
    name
}

/// A digest of the migrations, and of the week, because partitions are made for the weeks around now.
fn fingerprint() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut content = Vec::new();
    for file in files {
        content.extend(std::fs::read(file).unwrap());
    }
    let seconds = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    content.extend((seconds / (7 * 86_400)).to_le_bytes());
    format!("{:x}", md5::compute(content))
        .chars()
        .take(12)
        .collect()
}

/// A small generator whose sequence never changes (SplitMix64), so that a seed names a case for ever.
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let at = self.below(items.len() as u64);
        &items[usize::try_from(at).unwrap()]
    }
}
