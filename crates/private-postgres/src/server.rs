//! The private server and its life.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cluster::{NAME, Site};
use crate::error::Error;
use crate::folder::{Folder, Password};
use crate::launch::{Running, exit_status};
use crate::lock::LockGuard;
use crate::processes::Signal;

/// How [`PrivatePostgres::stop`] ends the server: the shutdown checkpoint may have a lot to write.
const ORDERLY: [(Signal, Duration); 2] = [
    (Signal::Fast, Duration::from_secs(60)),
    (Signal::Immediate, Duration::from_secs(10)),
];

/// How dropping does, where nobody asked for patience.
const HASTY: [(Signal, Duration); 2] = [
    (Signal::Fast, Duration::from_secs(10)),
    (Signal::Immediate, Duration::from_secs(5)),
];

/// As a crash of the server does.
const CRASH: [(Signal, Duration); 1] = [(Signal::Immediate, Duration::from_secs(20))];

/// What survives a crash of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every acknowledged commit.
    #[default]
    Full,
    /// Nothing, not even the cluster. For tests alone. A crash of the server, as opposed to the
    /// machine, loses nothing all the same: commits still reach the operating system.
    None,
}

impl Durability {
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Self::Full => &["fsync=on", "synchronous_commit=on", "full_page_writes=on"],
            Self::None => &[
                "fsync=off",
                "synchronous_commit=on",
                "full_page_writes=off",
                "wal_level=minimal",
                "max_wal_senders=0",
            ],
        }
    }
}

/// What server to start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data folder; see [`default_data_dir`](crate::default_data_dir). It is created if it is
    /// missing. Where root runs the server under another user, that user must be able to enter it
    /// and the folders above (mode 0711 is enough).
    pub data_dir: PathBuf,
    /// What survives a crash of the machine.
    pub durability: Durability,
    /// Further server settings, such as `("max_connections", "300")`. They override the defaults of
    /// this crate, but for where the server listens.
    pub options: Vec<(String, String)>,
    /// Whether PostgreSQL may be installed with the system's package manager, where there is none.
    pub install: bool,
}

impl Settings {
    /// A durable server in `data_dir` with the default settings, which installs nothing.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::Full,
            options: Vec::new(),
            install: false,
        }
    }
}

/// A running PostgreSQL server that belongs to this process. Dropping it stops the server.
///
/// ```no_run
/// use podium_private_postgres::{PrivatePostgres, Settings};
///
/// let server = PrivatePostgres::start(&Settings::new("/srv/podium"))?;
/// println!("serving on port {}", server.port());
/// server.stop()?;
/// # Ok::<(), podium_private_postgres::Error>(())
/// ```
#[derive(Debug)]
pub struct PrivatePostgres {
    site: Site,
    options: Vec<(String, String)>,
    password: Password,
    // The last postmaster; after a failed restart it is one that has ended.
    running: Running,
    // False once the server was stopped or let go.
    owned: bool,
    // Released last: until then the server may still be using the folder.
    _owner: LockGuard,
}

impl PrivatePostgres {
    /// Starts the server of a folder and waits until it takes connections. The first start makes
    /// the cluster, with the superuser `podium` and the database `podium`.
    ///
    /// A server that an earlier, killed process has left behind is stopped first. What that one
    /// had acknowledged is there.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if another process owns the folder; [`Error::NotInstalled`],
    /// [`Error::TooOld`] and [`Error::OtherMajorVersion`] if there is no fitting PostgreSQL;
    /// [`Error::DidNotStart`] with the end of the log if the server ends or writes nothing for
    /// 60 s; and what else the variants of [`Error`] name.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        let (site, owner) = Site::claim(settings)?;
        // Setting a lost password needs the cluster to be unused, too.
        drop(site.clear()?);
        let password = site.ensure_cluster()?;
        let running = site.launch(&settings.options)?;
        tracing::info!(
            port = running.port,
            pid = running.child.id(),
            folder = %site.folder.root().display(),
            "private PostgreSQL {} runs",
            site.installation.major
        );
        Ok(Self {
            site,
            options: settings.options.clone(),
            password,
            running,
            owned: true,
            _owner: owner,
        })
    }

    /// The address of a database, with the password: `postgres://podium:…@127.0.0.1:port/database`.
    /// The name goes in as it is, so it must consist of characters that need no escape in a URL.
    pub fn url(&self, database: &str) -> String {
        url(&self.password, self.port(), database)
    }

    /// The port on 127.0.0.1. It stays the same over restarts, and from one start to the next
    /// unless something else has taken it.
    pub fn port(&self) -> u16 {
        self.running.port
    }

    /// Process id of the postmaster, or of the last one while none runs.
    pub fn postmaster_pid(&self) -> u32 {
        self.running.child.id()
    }

    /// The data folder, as an absolute path.
    pub fn data_dir(&self) -> &Path {
        self.site.folder.root()
    }

    /// Crashes the server (immediate shutdown) and starts it again on the same port.
    ///
    /// # Errors
    /// Those of [`PrivatePostgres::start`]. The server is down then, and
    /// [`PrivatePostgres::ensure_running`] tries again.
    pub fn restart_immediate(&mut self) -> Result<(), Error> {
        self.site.end_child(&mut self.running.child, &CRASH);
        self.relaunch()
    }

    /// Starts the server again on the same port if it has ended, as after a `kill -9`. Returns
    /// whether it had. Cheap when it runs.
    ///
    /// # Errors
    /// Those of [`PrivatePostgres::start`].
    pub fn ensure_running(&mut self) -> Result<bool, Error> {
        let ended = exit_status(&mut self.running.child).is_some();
        if ended {
            tracing::warn!("the private PostgreSQL has ended, starting it again");
            self.relaunch()?;
        }
        Ok(ended)
    }

    fn relaunch(&mut self) -> Result<(), Error> {
        self.running = self.site.launch_on(self.port(), &self.options)?;
        Ok(())
    }

    /// Stops the server: sessions are ended, a checkpoint is written. After 60 s it is stopped the
    /// hard way, which costs a recovery at the next start but no data.
    ///
    /// # Errors
    /// [`Error::DidNotStop`] if processes of the server are left even then.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end(&ORDERLY);
        self.site.clear().map(drop)
    }

    fn end(&mut self, plan: &[(Signal, Duration)]) {
        if !std::mem::replace(&mut self.owned, false) {
            return;
        }
        let last = self.site.end_child(&mut self.running.child, plan);
        match last {
            Some(Signal::Fast) => tracing::info!("private PostgreSQL stopped"),
            Some(_) => tracing::warn!("private PostgreSQL had to be stopped the hard way"),
            None => tracing::warn!("private PostgreSQL had ended before it was stopped"),
        }
    }

    /// Lets the server run on without an owner.
    pub(crate) fn detach(mut self) -> Connection {
        let connection = Connection {
            password: self.password.clone(),
            port: self.port(),
        };
        self.owned = false;
        connection
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.end(&HASTY);
    }
}

/// The address of a database, with the password, on the server of a data folder that runs already, whoever owns it. The
/// name goes in as it is. `None` when none takes connections there, or the caller may not read its password.
#[must_use]
pub fn running_url(data_dir: &Path, database: &str) -> Option<String> {
    Some(Connection::running(data_dir)?.url(database))
}

/// How to reach a server that somebody started.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) password: Password,
    pub(crate) port: u16,
}

impl Connection {
    /// To the server of a data folder, if it is alive and well, whoever owns it.
    pub(crate) fn running(data_dir: &Path) -> Option<Self> {
        let folder = Folder::existing(data_dir)?;
        let path = folder.server_lock();
        let unused = LockGuard::try_exclusive(File::open(&path).ok()?, &path).ok()?;
        let connection = Self {
            password: folder.load_password()?,
            port: folder.load_port()?,
        };
        let serves = unused.is_none()
            && folder.postmaster()?.ready
            && TcpStream::connect((Ipv4Addr::LOCALHOST, connection.port)).is_ok();
        serves.then_some(connection)
    }

    pub(crate) fn url(&self, database: &str) -> String {
        url(&self.password, self.port, database)
    }
}

fn url(password: &Password, port: u16, database: &str) -> String {
    let password = password.reveal();
    format!("postgres://{NAME}:{password}@127.0.0.1:{port}/{database}")
}
