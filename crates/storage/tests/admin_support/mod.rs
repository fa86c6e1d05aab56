//! A database of its own for every test, with the real migrations.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use podium_private_postgres::testing::SharedServer;
use podium_storage::audit::Origin;
use podium_storage::connect::Purpose;
use podium_storage::{ConnectSettings, Database, migrate};
use tokio_postgres::Client;

/// A migrated database without rows.
pub struct TestDatabase {
    /// The pools under test.
    pub database: Database,
    /// A connection to look with.
    pub client: Client,
}

impl TestDatabase {
    /// Makes one on the server of `DATABASE_URL`, or on the shared private one.
    pub async fn create() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("podium_admin_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let server = ConnectSettings::parse(&server_url()).unwrap().connect(Purpose::Maintain).await.unwrap();
        server.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
        server.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let settings = ConnectSettings::parse(&with_database(&server_url(), &name)).unwrap();
        migrate::migrate(&settings).await.unwrap();
        let client = settings.connect(Purpose::Maintain).await.unwrap();
        Self { database: Database::new(settings).unwrap(), client }
    }

    /// A number that a statement yields.
    pub async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Actions in the audit log, oldest first.
    pub async fn actions(&self) -> Vec<String> {
        let rows = self.client.query("SELECT action FROM audit_log ORDER BY id", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// Who makes the changes of a test.
pub fn origin() -> Origin {
    Origin { actor: "ada".into(), request_id: "r-1".into(), address: Some("192.0.2.1".into()) }
}

fn server_url() -> String {
    static SERVER: OnceLock<SharedServer> = OnceLock::new();
    std::env::var("DATABASE_URL")
        .unwrap_or_else(|_| SERVER.get_or_init(|| SharedServer::join().unwrap()).url("podium"))
}

/// The same server, another database.
fn with_database(url: &str, name: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = path.split('/').next().unwrap();
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("{scheme}://{host}/{name}{query}")
}
