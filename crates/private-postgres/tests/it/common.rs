//! Scratch folders, queries, and looking at processes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use podium_private_postgres::{Durability, PrivatePostgres, Settings};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Far more than anything here takes; reaching it means that it never happens.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that everybody may enter, removed at the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("podium-it-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A data folder inside.
    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// A server without regard to crashes of the machine.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            durability: Durability::None,
            ..Settings::new(self.data())
        }
    }

    pub(crate) fn start(&self) -> PrivatePostgres {
        PrivatePostgres::start(&self.settings()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

/// Runs statements in one session and returns the first value of the last row, or nothing.
pub(crate) fn query(url: &str, statements: &str) -> Result<String, tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(statements).await?;
        drop(client);
        connection.await.unwrap()?;
        let value = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        };
        Ok(messages.iter().rev().find_map(value).unwrap_or_default())
    })
}

/// The value of a server setting.
pub(crate) fn show(server: &PrivatePostgres, name: &str) -> String {
    query(&server.url("podium"), &format!("SHOW {name}")).unwrap()
}

/// Makes a table with one row.
pub(crate) fn note(url: &str, value: &str) {
    let statement = format!("CREATE TABLE notes AS SELECT '{value}'::text AS note");
    query(url, &statement).unwrap();
}

pub(crate) fn noted(url: &str) -> String {
    query(url, "SELECT note FROM notes").unwrap()
}

/// Waits for a condition.
pub(crate) fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !reached() {
        assert!(begin.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process lives. A zombie, which only waits to be asked how it ended, does not.
pub(crate) fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// What the system tells about a process, from its state on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

pub(crate) fn kill_nine(pid: u32) {
    // Zero would mean the process group of the tests.
    assert_ne!(pid, 0);
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.unwrap().success());
    eventually("the killed process is gone", || !lives(pid));
}

/// Process group and session.
pub(crate) fn group_and_session(pid: u32) -> (u32, u32) {
    let fields = stat(pid).unwrap();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

/// The process id that the server in a data folder wrote down.
pub(crate) fn postmaster_of(data: &Path) -> u32 {
    let text = fs::read_to_string(data.join("postgres/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
