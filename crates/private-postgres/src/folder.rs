//! The data folder: where it is, what lies in it, and who may read that.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error};
use crate::lock::LockGuard;
use crate::processes::tail;
use crate::random;
use crate::user::{RunAs, closed_to_service_user};

/// Where the data of a root lies whose checkout the service user can not get to.
const SYSTEM_DIR: &str = "/var/lib/podium";

/// A log longer than this is put aside at the next start.
const LOG_MAX_BYTES: u64 = 8 << 20;

/// How much of the log goes into an error.
const LOG_TAIL_BYTES: usize = 4096;

/// How long a claim waits for an owner to let go. Who was killed while starting a program leaves a copy of the lock's
/// descriptor with the child, and the lock with it, until the child executes that program.
const CLAIM_PATIENCE: Duration = Duration::from_secs(2);

/// The folder for the data of the Podium that runs in `checkout`.
///
/// `configured` is the value of `PODIUM_DATA_DIR` and wins. Without it the folder is
/// `<checkout>/.podium`. One exception: root runs the server under an unprivileged user, who can
/// not use a folder below, say, `/root`; then it is a folder below `/var/lib/podium` whose name is
/// made of the checkout's path, so that each checkout keeps its own.
///
/// Nothing is created.
pub fn default_data_dir(checkout: &Path, configured: Option<PathBuf>) -> PathBuf {
    if let Some(configured) = configured.filter(|path| !path.as_os_str().is_empty()) {
        return configured;
    }
    if closed_to_service_user(checkout) {
        return Path::new(SYSTEM_DIR).join(name_for(checkout));
    }
    checkout.join(".podium")
}

/// Creates the data folder, if it is missing, so that the server can use it, and returns its
/// absolute path. [`PrivatePostgres::start`](crate::PrivatePostgres::start) does this too; whoever
/// keeps other files there may need it before. Where root runs the server under another user, that
/// user may pass through the folder (mode 0711), so that such files need a mode of their own.
///
/// # Errors
/// [`Error::Unreachable`] if the user who runs the server can not enter the folder or one above;
/// [`Error::NoServiceUser`]; [`Error::Io`].
pub fn prepare_data_dir(data_dir: &Path) -> Result<PathBuf, Error> {
    Folder::prepare(data_dir).map(|(folder, _)| folder.root)
}

/// The last part of the path and a hash of the whole of it.
pub(crate) fn name_for(checkout: &Path) -> String {
    let canonical = checkout.canonicalize();
    let checkout = canonical.as_deref().unwrap_or(checkout);
    let hash = random::fnv1a(checkout.as_os_str().as_encoded_bytes());
    let name = checkout.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}-{hash:016x}")
}

/// The data folder of one private server.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes the folder usable to the server. The cluster and the password are closed to all others
    /// in any case; the folder itself stays the caller's, who may keep other files there.
    pub(crate) fn prepare(data_dir: &Path) -> Result<(Self, RunAs), Error> {
        let data_dir = std::path::absolute(data_dir).context("find", data_dir)?;
        let run_as = RunAs::for_cluster(&data_dir.join("postgres"))?;
        create_open_to(&data_dir, &run_as)?;
        // The server shows its arguments, by which it is found again: one spelling of the path.
        let root = data_dir.canonicalize().context("find", &data_dir)?;
        run_as.check_reach(&root)?;
        Ok((Self { root }, run_as))
    }

    /// A folder that [`Folder::prepare`] has been called for before.
    pub(crate) fn existing(data_dir: &Path) -> Option<Self> {
        let root = data_dir.canonicalize().ok()?;
        Some(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        self.root.join("postgres")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    fn password(&self) -> PathBuf {
        self.root.join("postgres.password")
    }

    fn port(&self) -> PathBuf {
        self.root.join("postgres.port")
    }

    pub(crate) fn server_lock(&self) -> PathBuf {
        self.root.join("server.lock")
    }

    /// Takes the folder for this process, or says who has it.
    pub(crate) fn claim(&self, run_as: &RunAs) -> Result<LockGuard, Error> {
        let path = self.root.join("owner.lock");
        let deadline = Instant::now() + CLAIM_PATIENCE;
        loop {
            let file = open_private(&path, run_as)?;
            let reader = file.try_clone().context("open", &path)?;
            if let Some(lock) = LockGuard::try_exclusive(file, &path)? {
                write_holder(lock.file()).context("write", &path)?;
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(Error::AlreadyRunning {
                    data_dir: self.root.clone(),
                    pid: holder(reader),
                });
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The password of the server, and whether it has just been made up.
    pub(crate) fn load_or_create_password(
        &self,
        run_as: &RunAs,
    ) -> Result<(Password, bool), Error> {
        if let Some(password) = self.load_password() {
            return Ok((password, false));
        }
        let password = random::hex::<16>()?;
        write_private(&self.password(), &password, run_as)?;
        Ok((Password(password), true))
    }

    pub(crate) fn load_password(&self) -> Option<Password> {
        let text = fs::read_to_string(self.password()).ok()?;
        let password = text.trim();
        (!password.is_empty()).then(|| Password(password.to_owned()))
    }

    /// The file with the password, readable to the user who runs the server.
    pub(crate) fn password_file(&self) -> PathBuf {
        self.password()
    }

    /// The port used last.
    pub(crate) fn load_port(&self) -> Option<u16> {
        fs::read_to_string(self.port()).ok()?.trim().parse().ok()
    }

    pub(crate) fn save_port(&self, port: u16, run_as: &RunAs) -> Result<(), Error> {
        write_private(&self.port(), &port.to_string(), run_as)
    }

    /// The major version of the cluster; `None`: there is no cluster yet.
    pub(crate) fn cluster_version(&self) -> Option<u32> {
        let version = fs::read_to_string(self.cluster().join("PG_VERSION")).ok()?;
        version.trim().parse().ok()
    }

    /// Opens the log for appending and says how long it is.
    pub(crate) fn open_log(&self, run_as: &RunAs) -> Result<(File, u64), Error> {
        let path = self.log();
        let length = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        if length(&path) > LOG_MAX_BYTES {
            let aside = self.root.join("postgres.log.1");
            fs::rename(&path, &aside).context("rename", &path)?;
        }
        let file = open_private(&path, run_as)?;
        Ok((file, length(&path)))
    }

    /// What the server has written since the log was `offset` bytes long, or the end of it.
    pub(crate) fn log_since(&self, offset: u64) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.log())?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        tail(&String::from_utf8_lossy(&bytes), LOG_TAIL_BYTES).to_owned()
    }

    /// What the server says about itself.
    pub(crate) fn postmaster(&self) -> Option<Postmaster> {
        parse_postmaster(&fs::read_to_string(self.postmaster_file()).ok()?)
    }

    pub(crate) fn postmaster_file(&self) -> PathBuf {
        self.cluster().join("postmaster.pid")
    }
}

/// The content of `postmaster.pid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub(crate) pid: u32,
    pub(crate) ready: bool,
}

/// Line 1 is the process id, line 8 the state, padded with spaces.
fn parse_postmaster(text: &str) -> Option<Postmaster> {
    let pid = text.lines().next()?.trim().parse().ok()?;
    if pid == 0 {
        // As the target of a signal this would mean ourselves.
        return None;
    }
    let ready = text
        .lines()
        .nth(7)
        .is_some_and(|state| state.trim() == "ready");
    Some(Postmaster { pid, ready })
}

/// The password of the superuser. Shows itself only where it is asked for by name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl Password {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Creates the missing folders of the way. A service user must pass through them, and nobody else
/// needs to see what is in there.
pub(crate) fn create_open_to(dir: &Path, run_as: &RunAs) -> Result<(), Error> {
    let mode = match run_as {
        RunAs::Myself(_) => 0o700,
        RunAs::Service(_) => 0o711,
    };
    let mut missing: Vec<&Path> = dir.ancestors().take_while(|part| !part.exists()).collect();
    missing.reverse();
    for part in missing {
        match fs::create_dir(part) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            other => other.context("create", part)?,
        }
        fs::set_permissions(part, Permissions::from_mode(mode)).context("set the mode of", part)?;
    }
    Ok(())
}

/// Creates a folder for the server alone.
pub(crate) fn create_private_dir(dir: &Path, run_as: &RunAs) -> Result<(), Error> {
    DirBuilder::new()
        .mode(0o700)
        .create(dir)
        .context("create", dir)?;
    run_as.own(dir)
}

/// Opens a file for reading and appending; creates it for the server's user alone.
pub(crate) fn open_private(path: &Path, run_as: &RunAs) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    let created = options.clone().create_new(true).mode(0o600).open(path);
    match created {
        Ok(file) => run_as.own(path).map(|()| file),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            options.open(path).context("open", path)
        }
        Err(error) => Err(error).context("create", path),
    }
}

/// Replaces a file for the server's user alone, whole or not at all even if the machine stops.
pub(crate) fn write_private(path: &Path, text: &str, run_as: &RunAs) -> Result<(), Error> {
    let new = path.with_added_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .context("create", &new)?;
    run_as.own(&new)?;
    file.write_all(format!("{text}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .context("write", &new)?;
    fs::rename(&new, path).context("rename", &new)?;
    sync_parent(path)
}

/// Makes a change of the folder that holds `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .context("sync", parent)
}

fn write_holder(mut file: &File) -> std::io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn holder(mut file: File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let name = format!("podium-folder-{}", random::hex::<8>().unwrap());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        dir.canonicalize().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_configured_folder_wins() {
        let dir = default_data_dir(Path::new("/"), Some("/srv/podium".into()));
        assert_eq!(dir, Path::new("/srv/podium"));
    }

    #[test]
    fn an_empty_setting_counts_as_none() {
        let checkout = scratch();
        let dir = default_data_dir(&checkout, Some(PathBuf::new()));
        assert_eq!(dir, checkout.join(".podium"));
        fs::remove_dir(checkout).unwrap();
    }

    #[test]
    fn a_checkout_closed_to_the_service_user_gets_a_stable_folder_of_its_own() {
        let closed = scratch();
        fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
        let [one, two] = ["one", "two"].map(|name| closed.join(name));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let [dir_one, dir_two] = [&one, &two].map(|checkout| default_data_dir(checkout, None));
        if crate::user::effective_uid().unwrap() == 0 {
            assert_eq!(dir_one.parent(), Some(Path::new(SYSTEM_DIR)));
            assert_ne!(dir_one, dir_two);
            assert_eq!(dir_one, default_data_dir(&closed.join("two/../one"), None));
        } else {
            assert_eq!(
                [dir_one, dir_two],
                [one.join(".podium"), two.join(".podium")]
            );
        }
        fs::remove_dir_all(closed).unwrap();
    }

    #[test]
    fn a_lock_that_is_about_to_be_let_go_refuses_nobody() {
        let (folder, run_as) = Folder::prepare(&scratch()).unwrap();
        let held = folder.claim(&run_as).unwrap();
        let letting_go = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        let claimed = folder.claim(&run_as);
        letting_go.join().unwrap();
        assert_eq!(
            holder(claimed.unwrap().file().try_clone().unwrap()),
            Some(std::process::id())
        );
        fs::remove_dir_all(folder.root()).unwrap();
    }

    #[test]
    fn the_state_file_of_the_server_is_understood() {
        let text =
            |state: &str| format!("4711\n/data\n1700000000\n5432\n\n127.0.0.1\n  1 2\n{state}");
        let ready = |ready| Some(Postmaster { pid: 4711, ready });
        assert_eq!(parse_postmaster(&text("ready   \n")), ready(true));
        assert_eq!(parse_postmaster(&text("starting\n")), ready(false));
        assert_eq!(parse_postmaster("4711\n/data\n"), ready(false));
        for nobody in ["", "0\n", "-12\n"] {
            assert_eq!(parse_postmaster(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn private_files_are_replaced_whole_and_closed_to_others() {
        let dir = scratch();
        let run_as = RunAs::for_cluster(&dir.join("postgres")).unwrap();
        let file = dir.join("postgres.port");
        write_private(&file, "1", &run_as).unwrap();
        write_private(&file, "23", &run_as).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "23\n");
        assert_eq!(mode(&file), 0o600);
        let names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["postgres.port"]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn new_folders_let_the_server_through_and_nobody_look() {
        let dir = scratch();
        let (folder, run_as) = Folder::prepare(&dir.join("a/b")).unwrap();
        let expected = match run_as {
            RunAs::Myself(_) => 0o700,
            RunAs::Service(_) => 0o711,
        };
        assert_eq!(mode(folder.root()), expected);
        assert_eq!(mode(&dir.join("a")), expected);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_password_stays_until_its_file_is_lost() {
        let dir = scratch();
        let (folder, run_as) = Folder::prepare(&dir).unwrap();
        let (first, fresh) = folder.load_or_create_password(&run_as).unwrap();
        assert!(fresh);
        let (second, fresh) = folder.load_or_create_password(&run_as).unwrap();
        assert_eq!((&second, fresh), (&first, false));
        fs::write(folder.password_file(), "").unwrap();
        let (third, fresh) = folder.load_or_create_password(&run_as).unwrap();
        assert!(fresh && third != first);
        assert_eq!(format!("{third:?}"), "Password(..)");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_long_log_is_put_aside() {
        let dir = scratch();
        let (folder, run_as) = Folder::prepare(&dir).unwrap();
        let log = File::create(folder.log()).unwrap();
        log.set_len(LOG_MAX_BYTES).unwrap();
        assert_eq!(folder.open_log(&run_as).unwrap().1, LOG_MAX_BYTES);
        log.set_len(LOG_MAX_BYTES + 1).unwrap();
        assert_eq!(folder.open_log(&run_as).unwrap().1, 0);
        assert!(dir.join("postgres.log.1").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
