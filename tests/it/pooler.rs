//! PgBouncer in transaction mode between the API and its database.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use podium_tests::{TestApp, TestDatabase, eventually};
use reqwest::Method;
use serde_json::json;

use crate::promotion::{self, CLEAR};

/// A pooler of its own in front of a test's database. Dropping it stops it.
struct Pooler {
    child: Child,
    url: String,
    folder: PathBuf,
}

/// PgBouncer 1.21 or newer, which knows prepared statements: the program that `PGBOUNCER` names, else that of the path.
fn program() -> Option<PathBuf> {
    let program = std::env::var_os("PGBOUNCER").map_or_else(|| "pgbouncer".into(), PathBuf::from);
    let output = Command::new(&program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next()?.split_whitespace().nth(1)?.to_owned();
    let mut parts = version.split('.').map_while(|part| part.parse().ok());
    let version: (u32, u32) = (parts.next()?, parts.next()?);
    (version >= (1, 21)).then_some(program)
}

/// Connections of the pooler to the database; the API opens more to the pooler.
const BEHIND: usize = 6;

impl Pooler {
    async fn start(program: &Path, database: &TestDatabase) -> Self {
        let config: tokio_postgres::Config = database.url().parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else {
            panic!("the database is reached over TCP");
        };
        let port = config.get_ports()[0];
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = free.local_addr().unwrap().port();
        drop(free);
        let (user, name) = (config.get_user().unwrap(), config.get_dbname().unwrap());
        let password =
            String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
        let folder = std::env::temp_dir().join(format!("podium-it-pooler-{own}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("users"), format!("\"{user}\" \"{password}\"\n")).unwrap();
        let settings = format!(
            "[databases]\n{name} = host={host} port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}/users\npool_mode = transaction\n\
             max_prepared_statements = 200\ndefault_pool_size = {BEHIND}\nignore_startup_parameters = options\n",
            folder.display()
        );
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(program);
        // It refuses to run as root.
        if std::fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
        {
            command.args(["-u", "nobody"]);
        }
        command.arg("-q").arg(&file).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let pooler = Self {
            child: child.unwrap(),
            url: format!("postgres://{user}@127.0.0.1:{own}/{name}?sslmode=disable"),
            folder,
        };
        eventually("the pooler listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", own))
                .await
                .is_ok()
        })
        .await;
        pooler
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The limits that a pooler keeps from each connection, as `docs/operations.md` has them.
async fn limits_of_the_role(database: &TestDatabase) {
    for limit in [
        "statement_timeout = '30s'",
        "lock_timeout = '1s'",
        "idle_in_transaction_session_timeout = '5s'",
        "synchronous_commit = on",
        "TimeZone = 'UTC'",
    ] {
        let database_of = "EXECUTE format('ALTER ROLE %I IN DATABASE %I SET";
        let sql = format!(
            "DO $do$ BEGIN {database_of} {}', current_user, current_database()); END $do$",
            limit.replace('\'', "''")
        );
        database.execute(&sql).await;
    }
}

/// Everything a shop and its people do goes through the pooler: assignments, events, totals, reports, a promotion and its end.
/// One replica hears of changes over the server itself, the other polls.
#[tokio::test(flavor = "multi_thread")]
async fn everything_works_behind_a_transaction_pooler() {
    let Some(program) = program() else {
        println!("skipped: there is no PgBouncer 1.21 or newer");
        return;
    };
    let database = TestDatabase::migrated().await;
    limits_of_the_role(&database).await;
    let pooler = Pooler::start(&program, &database).await;
    let direct = database.url().to_owned();
    let setup = || TestApp::setup().variable("DATABASE_URL", &pooler.url);
    let polls = setup().database(database).start().await;
    let hears = polls.replica_with("DATABASE_DIRECT_URL", &direct).await;
    everything_works(&polls, &hears).await;

    // That it all went through the pooler shows when it goes.
    drop(pooler);
    polls.sees_database(false).await;
}

/// Assignments, events, totals, a report, a promotion and its rollback, on two replicas.
pub(crate) async fn everything_works(one: &TestApp, other: &TestApp) {
    let experiment = one.experiment("e").running().await;
    other.hears_of_changes().await;
    // More at once than a pooler of these tests has connections.
    let both = [one, other];
    let units: Vec<String> = (0..120).map(|n| format!("u{n}")).collect();
    let mut first = Vec::new();
    for chunk in units.chunks(40) {
        let calls = chunk
            .iter()
            .enumerate()
            .map(|(n, unit)| both[n % 2].variant_of("e", unit));
        first.extend(futures_util::future::join_all(calls).await);
    }
    for (n, (unit, variant)) in units.iter().zip(&first).enumerate() {
        assert_eq!(&both[(n + 1) % 2].variant_of("e", unit).await, variant);
        let event = json!({"user_id": unit, "event_id": unit, "experiment_id": experiment.id});
        assert_eq!(both[n % 2].track("click", event).await.status, 200);
    }
    one.fold().await;
    let report = format!("/api/v1/admin/experiments/{}/report", experiment.id);
    let report = other.admin(Method::GET, &report, None).await;
    assert_eq!(report.status, 200, "{}", report.text());
    let behind = "SELECT count(*) FROM experiment_events";
    assert_eq!(one.database().number(behind).await, 120);

    promotion::experiment(one, 50, "clear", &CLEAR).await;
    let promote =
        json!({"action": "promote", "experimentName": "clear", "force": true, "reason": "a test"});
    let promoted = other
        .admin(Method::POST, promotion::ROUTE, Some(&promote))
        .await;
    let id = promoted.data()["promotionId"].clone();
    let rollback = json!({"action": "rollback", "promotionId": id, "reason": "a test"});
    let rolled_back = one
        .admin(Method::POST, promotion::ROUTE, Some(&rollback))
        .await;
    assert_eq!(rolled_back.status, 200, "{}", rolled_back.text());
}
