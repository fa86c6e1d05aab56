//! One server for a whole test run.
//!
//! Test runners start many processes, one after the other or side by side, and none of them is
//! there from beginning to end. So the server belongs to nobody: the first process that needs it
//! starts it, the others join, and a watchdog ends it and removes its data when no process has
//! used it for 15 s. This holds as well for processes that are killed, because what counts are
//! locks which the kernel takes back.
//!
//! | file | held by | says |
//! | --- | --- | --- |
//! | `start.lock` | whoever joins, starts or ends the server, for that long | state may change |
//! | `users.lock` | every [`SharedServer`], shared | the server is in use |
//! | `watchdog.lock` | the watchdog | somebody will end the server |
//! | `template.lock` | the holder of [`SharedServer::template_lock`] | a template is being made |
//!
//! A process joins under `start.lock`, and the watchdog takes the same lock before it looks for the
//! last time and ends the server. So nobody gets a server that is about to go: whoever comes
//! meanwhile waits and then starts a new one.
//!
//! The server loses its data if the machine crashes ([`Durability::None`]). It needs the programs
//! `flock` and `setsid` of util-linux.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::cluster::{Site, find_installation, install_if_needed};
use crate::error::{Context, Error};
use crate::folder::{create_open_to, create_private_dir, name_for, open_private, write_private};
use crate::install::in_path;
use crate::lock::LockGuard;
use crate::random;
use crate::server::{Connection, Durability, PrivatePostgres, Settings};
use crate::user::{RunAs, effective_uid};

/// How long the server stays without a user.
const IDLE: Duration = Duration::from_secs(15);

/// Names the folder of the shared server, instead of one made of the checkout's path.
const DIR_VARIABLE: &str = "PODIUM_TEST_PG_DIR";

/// Many tests with a pool each run at a time, and all of them are small.
const OPTIONS: [(&str, &str); 5] = [
    ("max_connections", "300"),
    ("shared_buffers", "64MB"),
    ("max_wal_size", "512MB"),
    ("checkpoint_timeout", "30min"),
    ("autovacuum_naptime", "5min"),
];

/// A use of the shared test server. The server runs at least as long as this value lives.
#[derive(Debug)]
pub struct SharedServer {
    home: Home,
    connection: Connection,
    _user: LockGuard,
}

impl SharedServer {
    /// Joins the server of this checkout, and starts it if it does not run.
    ///
    /// # Errors
    /// Those of [`PrivatePostgres::start`], and [`Error::MissingProgram`].
    pub fn join() -> Result<Self, Error> {
        Self::join_at(&default_root()?, IDLE)
    }

    /// Joins the server in the folder `root`, which ends when it was not used for `idle`. Of several
    /// values of `idle`, that of the process which started the watchdog counts, in whole seconds.
    ///
    /// # Errors
    /// As [`SharedServer::join`].
    pub fn join_at(root: &Path, idle: Duration) -> Result<Self, Error> {
        let root = std::path::absolute(root).context("find", root)?;
        install_if_needed(&settings(&root.join("state/data")))?;
        let home = Home::prepare(root)?;
        let _start = home.lock("start.lock", LockGuard::exclusive)?;
        let user = home.lock("users.lock", LockGuard::shared)?;
        write_private(
            &home.root.join("last-join"),
            &random::hex::<8>()?,
            &home.run_as,
        )?;
        let connection = match Connection::running(&home.data()) {
            Some(connection) => home.keep_watched(idle).map(|()| connection),
            None => home.start(idle),
        }?;
        Ok(Self {
            home,
            connection,
            _user: user,
        })
    }

    /// The address of a database, with the password. The database `podium` exists from the
    /// beginning, and its user may create others.
    pub fn url(&self, database: &str) -> String {
        self.connection.url(database)
    }

    /// Waits until no other process makes a template, and keeps them from it until the guard is
    /// dropped.
    ///
    /// # Errors
    /// [`Error::Io`] if the lock file can not be used.
    pub fn template_lock(&self) -> Result<LockGuard, Error> {
        self.home.lock("template.lock", LockGuard::exclusive)
    }

    /// A folder for files that describe this server, such as which templates it has. It is removed
    /// together with the server's data. Put files there, not folders.
    pub fn state_dir(&self) -> &Path {
        &self.home.state
    }
}

/// The place where the processes meet.
#[derive(Debug)]
struct Home {
    root: PathBuf,
    state: PathBuf,
    run_as: RunAs,
}

impl Home {
    fn prepare(root: PathBuf) -> Result<Self, Error> {
        let state = root.join("state");
        let run_as = RunAs::for_cluster(&state.join("data/postgres"))?;
        if let Some(parent) = root.parent() {
            create_open_to(parent, &run_as)?;
        }
        match create_private_dir(&root, &run_as) {
            Err(_) if root.is_dir() => check_owner(&root, &run_as)?,
            other => other?,
        }
        Ok(Self {
            root,
            state,
            run_as,
        })
    }

    fn lock(
        &self,
        name: &str,
        take: fn(fs::File, &Path) -> Result<LockGuard, Error>,
    ) -> Result<LockGuard, Error> {
        let path = self.root.join(name);
        take(open_private(&path, &self.run_as)?, &path)
    }

    fn data(&self) -> PathBuf {
        self.state.join("data")
    }

    fn settings(&self) -> Settings {
        settings(&self.data())
    }

    /// Starts a new server. The watchdog comes first: if this process is killed in between, it
    /// ends whatever is there by then.
    fn start(&self, idle: Duration) -> Result<Connection, Error> {
        self.keep_watched(idle)?;
        self.wipe()?;
        // The watchdog, under the same user, must be able to remove both.
        create_private_dir(&self.state, &self.run_as)?;
        create_private_dir(&self.data(), &self.run_as)?;
        let server = PrivatePostgres::start(&self.settings())?;
        Ok(server.detach())
    }

    /// Removes what is left of an earlier server, which may be alive and not well.
    fn wipe(&self) -> Result<(), Error> {
        if self.data().exists() {
            let (site, _owner) = Site::claim(&self.settings())?;
            drop(site.clear()?);
        }
        match fs::remove_dir_all(&self.state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context("remove", &self.state)
            }
            _ => Ok(()),
        }
    }

    /// Starts a watchdog unless one lives. Of two that start at the same time, one gives way.
    fn keep_watched(&self, idle: Duration) -> Result<(), Error> {
        let free = self.try_watchdog_lock()?;
        if free {
            self.start_watchdog(idle)?;
        }
        Ok(())
    }

    fn try_watchdog_lock(&self) -> Result<bool, Error> {
        let path = self.root.join("watchdog.lock");
        let lock = LockGuard::try_exclusive(open_private(&path, &self.run_as)?, &path)?;
        Ok(lock.is_some())
    }

    /// The watchdog gets a session of its own, so that neither Ctrl-C nor a closed terminal ends
    /// it before its work is done, and no descriptor of ours, as a test runner waits until all
    /// copies of its pipes are closed.
    fn start_watchdog(&self, idle: Duration) -> Result<(), Error> {
        for program in ["flock", "setsid"] {
            in_path(program).ok_or(Error::MissingProgram { program })?;
        }
        let installation = find_installation(&self.settings(), &self.run_as, None)?;
        let mut command = self.run_as.command("setsid");
        command.args([
            "sh",
            "-c",
            include_str!("watchdog.sh"),
            "podium-test-watchdog",
        ]);
        command.arg(&self.root).arg(installation.program("pg_ctl"));
        command.arg(idle.as_secs().to_string());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().map(drop).context("run", "setsid")
    }
}

fn settings(data_dir: &Path) -> Settings {
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Settings {
        data_dir: data_dir.to_path_buf(),
        durability: Durability::None,
        options: OPTIONS.map(own).to_vec(),
        install: true,
    }
}

/// In a folder open to all, such as `/tmp`, somebody else may have been there first. What belongs
/// to root was made by us, or by another root process that is about to give it away.
fn check_owner(root: &Path, run_as: &RunAs) -> Result<(), Error> {
    let owner = fs::metadata(root).context("look at", root)?.uid();
    if owner == run_as.uid() {
        return Ok(());
    }
    if owner == 0 && matches!(run_as, RunAs::Service(_)) {
        return run_as.own(root);
    }
    let source = io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("it belongs to user {owner}"),
    );
    Err(source).context("use", root)
}

/// A folder for this checkout and this user. Root needs one which the user who runs the server can
/// get to, whatever `TMPDIR` says.
fn default_root() -> Result<PathBuf, Error> {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE).filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    let checkout = name_for(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let place = match effective_uid()? {
        0 => PathBuf::from("/var/lib/podium-test"),
        uid => std::env::temp_dir().join(format!("podium-test-{uid}")),
    };
    Ok(place.join(checkout))
}
