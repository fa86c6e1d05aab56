//! A database for each test of the demonstration.

use podium_private_postgres::testing::SharedServer;
use tokio_postgres::NoTls;

/// An empty database on the server of `DATABASE_URL`, or on the one that all tests share.
pub(crate) struct OwnDatabase {
    pub(crate) url: String,
    server_url: String,
    name: String,
    _server: Option<SharedServer>,
}

impl OwnDatabase {
    pub(crate) async fn create(name: &str) -> Self {
        let configured = std::env::var("DATABASE_URL")
            .ok()
            .filter(|url| !url.is_empty());
        let (server, server_url) = match configured {
            Some(url) => (None, url),
            None => {
                let server = tokio::task::spawn_blocking(SharedServer::join)
                    .await
                    .unwrap()
                    .unwrap();
                let url = server.url("podium");
                (Some(server), url)
            }
        };
        let name = format!("podium_{name}_{}", std::process::id());
        let own = Self {
            url: with_database(&server_url, &name),
            server_url,
            name,
            _server: server,
        };
        // One of that name can only be left from an earlier run that was killed.
        own.execute(&format!(
            "DROP DATABASE IF EXISTS {} WITH (FORCE)",
            own.name
        ))
        .await;
        own.execute(&format!("CREATE DATABASE {}", own.name)).await;
        own
    }

    pub(crate) async fn drop(self) {
        self.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await;
    }

    async fn execute(&self, statement: &str) {
        let (client, connection) = tokio_postgres::connect(&self.server_url, NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute(statement).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    }
}

/// The same address with another database.
fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) = url
        .split_once('?')
        .map_or((url, None), |(address, rest)| (address, Some(rest)));
    let (server, _) = address
        .rsplit_once('/')
        .expect("an address that names a database");
    let parameters = parameters
        .map(|rest| format!("?{rest}"))
        .unwrap_or_default();
    format!("{server}/{name}{parameters}")
}
