//! A database server that belongs to one test, to be crashed and frozen.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use podium_private_postgres::{Durability, PrivatePostgres, Settings};
use tokio::task::block_in_place;

use crate::process::signal;

/// A running server in a folder of its own. Dropping it stops the server and removes the folder.
#[derive(Debug)]
pub struct OwnPostgres {
    server: Option<PrivatePostgres>,
    folder: PathBuf,
    frozen: Vec<u32>,
}

impl OwnPostgres {
    /// Starts a server. A crash of the server loses nothing that it acknowledged; one of the machine may.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_in(&std::env::temp_dir())
    }

    /// As [`OwnPostgres::start`], on the file system of a folder.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_in(parent: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "podium-it-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = parent.join(name);
        fs::create_dir(&folder).unwrap();
        // The user who runs the server must be able to enter.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let options = vec![
            ("shared_buffers".into(), "32MB".into()),
            ("max_connections".into(), "100".into()),
        ];
        let settings = Settings {
            durability: Durability::None,
            options,
            install: true,
            ..Settings::new(folder.join("data"))
        };
        let server = block_in_place(|| PrivatePostgres::start(&settings)).unwrap();
        Self {
            server: Some(server),
            folder,
            frozen: Vec::new(),
        }
    }

    fn server(&self) -> &PrivatePostgres {
        self.server.as_ref().unwrap()
    }

    /// The address of its database.
    #[must_use]
    pub fn url(&self) -> String {
        self.server().url("podium")
    }

    /// Crashes the server and starts it again on the same port.
    ///
    /// # Panics
    /// When it does not start again.
    pub fn crash_and_restart(&mut self) {
        block_in_place(|| self.server.as_mut().unwrap().restart_immediate()).unwrap();
    }

    /// Crashes the server and leaves it down until [`OwnPostgres::revive`].
    pub fn crash(&mut self) {
        signal("KILL", &[self.server().postmaster_pid()]);
    }

    /// Starts a crashed server again on the same port.
    ///
    /// # Panics
    /// When it does not start again.
    pub fn revive(&mut self) {
        block_in_place(|| self.server.as_mut().unwrap().ensure_running()).unwrap();
    }

    /// Stops the clock of the postmaster and of every backend (SIGSTOP): connections stay open and nothing answers.
    pub fn freeze(&mut self) {
        let postmaster = self.server().postmaster_pid();
        // The postmaster first, so that it makes no more children.
        signal("STOP", &[postmaster]);
        self.frozen = children(postmaster);
        self.frozen.push(postmaster);
        signal("STOP", &self.frozen);
    }

    /// Ends [`OwnPostgres::freeze`].
    pub fn thaw(&mut self) {
        let frozen = std::mem::take(&mut self.frozen);
        if !frozen.is_empty() {
            signal("CONT", &frozen);
        }
    }

    /// Writes a file that only the server may read, and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn private_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.file(name, content);
        let cluster = fs::metadata(self.server().data_dir().join("postgres")).unwrap();
        chown(&path, Some(cluster.uid()), Some(cluster.gid())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes a file that everybody may read, and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        self.thaw();
        drop(self.server.take());
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{} stays: {error}", self.folder.display());
        }
    }
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(Path::new("/proc"), *pid) == Some(parent))
        .collect()
}

fn parent_of(proc: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok()
}
