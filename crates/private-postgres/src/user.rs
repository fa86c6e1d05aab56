//! Under whose name the server programs run.
//!
//! PostgreSQL refuses to run as root, so root runs it under an unprivileged user; anybody else
//! runs it under their own name.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error};

/// Users to run the server under, the most fitting first. PostgreSQL's packages create
/// `postgres`; `nobody` exists nearly everywhere.
const SERVICE_USERS: [&str; 2] = ["postgres", "nobody"];

/// Variables which the server programs get from our environment. All others stay out: some hold
/// secrets, and any process of the service user could read them there.
const PASSED_ON: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "LD_PRELOAD"];

/// An unprivileged user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Who runs the server programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunAs {
    /// We do, under the user id given.
    Myself(u32),
    /// We are root, and this user does.
    Service(User),
}

impl RunAs {
    /// Decides for the cluster at `cluster`, which need not exist. Root runs an existing cluster
    /// under its owner, so that a folder used by a normal user stays usable to that user.
    pub(crate) fn for_cluster(cluster: &Path) -> Result<Self, Error> {
        let uid = effective_uid()?;
        if uid != 0 {
            return Ok(Self::Myself(uid));
        }
        let passwd = passwd();
        let owner = fs::metadata(cluster).ok().filter(|found| found.uid() != 0);
        owner
            .map(|found| owner_of(&found, &passwd))
            .or_else(|| service_user(&passwd))
            .map(Self::Service)
            .ok_or(Error::NoServiceUser)
    }

    /// User id of the server's processes.
    pub(crate) fn uid(&self) -> u32 {
        match self {
            Self::Myself(uid) => *uid,
            Self::Service(user) => user.uid,
        }
    }

    /// A command under this user, with next to nothing of our environment.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC");
        for name in PASSED_ON {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        // Our own folder may be closed to the service user.
        command.current_dir("/");
        if let Self::Service(user) = self {
            // The standard library drops root's supplementary groups along with the user id.
            command.gid(user.gid).uid(user.uid);
        }
        command
    }

    /// Makes the service user the owner of `path`; does nothing where we are the service user.
    pub(crate) fn own(&self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Myself(_) => Ok(()),
            Self::Service(user) => {
                chown(path, Some(user.uid), Some(user.gid)).context("change the owner of", path)
            }
        }
    }

    /// Like [`RunAs::own`] for everything below a folder as well. Symbolic links are not followed.
    pub(crate) fn own_all(&self, path: &Path) -> Result<(), Error> {
        let Self::Service(user) = self else {
            return Ok(());
        };
        lchown(path, Some(user.uid), Some(user.gid)).context("change the owner of", path)?;
        if fs::symlink_metadata(path)
            .context("look at", path)?
            .is_dir()
        {
            for entry in fs::read_dir(path).context("read", path)? {
                self.own_all(&entry.context("read", path)?.path())?;
            }
        }
        Ok(())
    }

    /// Checks that the server can get to `folder`, which must exist.
    pub(crate) fn check_reach(&self, folder: &Path) -> Result<(), Error> {
        let Self::Service(user) = self else {
            return Ok(());
        };
        match user.blocked_at(folder).context("look at", folder)? {
            None => Ok(()),
            Some(blocked_at) => Err(Error::Unreachable {
                user: user.name.clone(),
                blocked_at,
            }),
        }
    }
}

impl User {
    /// The outermost folder on the way to and including `folder` which this user can not enter.
    /// Looks at the permission bits alone, not at access control lists.
    fn blocked_at(&self, folder: &Path) -> std::io::Result<Option<PathBuf>> {
        let folder = folder.canonicalize()?;
        let mut way: Vec<&Path> = folder.ancestors().collect();
        way.reverse();
        for part in way {
            if !self.may_enter(&fs::metadata(part)?) {
                return Ok(Some(part.to_path_buf()));
            }
        }
        Ok(None)
    }

    fn may_enter(&self, folder: &Metadata) -> bool {
        let bit = match (folder.uid() == self.uid, folder.gid() == self.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        folder.mode() & bit != 0
    }
}

/// Whether we are root and the user whom the server would run under can not get to `folder`.
pub(crate) fn closed_to_service_user(folder: &Path) -> bool {
    matches!(effective_uid(), Ok(0))
        && service_user(&passwd()).is_some_and(|user| !matches!(user.blocked_at(folder), Ok(None)))
}

/// Whether we are root on a system without the user that PostgreSQL's packages create.
pub(crate) fn lacks_postgres_user() -> bool {
    matches!(effective_uid(), Ok(0)) && !users(&passwd()).any(|user| user.name == SERVICE_USERS[0])
}

/// The effective user id of this process.
pub(crate) fn effective_uid() -> Result<u32, Error> {
    let status = fs::read_to_string("/proc/self/status").ok();
    match status.as_deref().and_then(uid_in_status) {
        Some(uid) => Ok(uid),
        None => uid_by_id(),
    }
}

/// `Uid:` lists the real, effective, saved and file system user ids.
fn uid_in_status(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// For systems without `/proc`.
fn uid_by_id() -> Result<u32, Error> {
    let output = Command::new("id").arg("-u").output().context("run", "id")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| Error::Program {
        program: "id -u".to_owned(),
        status: output.status.to_string(),
        output: text.into_owned(),
    })
}

fn passwd() -> String {
    fs::read("/etc/passwd")
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn service_user(passwd: &str) -> Option<User> {
    SERVICE_USERS
        .iter()
        .find_map(|name| users(passwd).find(|user| user.name == *name && user.uid != 0))
}

/// The owner of an existing cluster. Running one needs no entry in the list of users.
fn owner_of(cluster: &Metadata, passwd: &str) -> User {
    let listed = users(passwd).find(|user| user.uid == cluster.uid());
    listed.unwrap_or_else(|| User {
        name: cluster.uid().to_string(),
        uid: cluster.uid(),
        gid: cluster.gid(),
    })
}

fn users(passwd: &str) -> impl Iterator<Item = User> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let uid = numeric_id(fields.nth(1)?)?;
        let gid = numeric_id(fields.next()?)?;
        Some(User { name, uid, gid })
    })
}

/// Some systems write the ids of `nobody` as -2.
fn numeric_id(text: &str) -> Option<u32> {
    let signed = || text.parse().ok().map(i32::cast_unsigned);
    text.parse().ok().or_else(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                          # a comment\n\
                          nobody:*:-2:-2::/:/usr/bin/false\n\
                          postgres:x:101:104:PostgreSQL administrator,,,:/:/bin/sh\n";

    fn user(uid: u32, gid: u32) -> User {
        let name = "somebody".to_owned();
        User { name, uid, gid }
    }

    #[test]
    fn postgres_is_preferred_to_nobody() {
        assert_eq!(service_user(PASSWD).unwrap().uid, 101);
        assert_eq!(service_user(PASSWD).unwrap().gid, 104);
    }

    #[test]
    fn nobody_serves_where_there_is_no_postgres_and_may_have_a_negative_id() {
        let without = PASSWD.replace("postgres:", "posters:");
        let nobody = service_user(&without).unwrap();
        assert_eq!((nobody.name.as_str(), nobody.uid), ("nobody", u32::MAX - 1));
    }

    #[test]
    fn a_service_user_is_never_root() {
        assert_eq!(service_user("postgres:x:0:0::/:/bin/sh\n"), None);
        assert_eq!(service_user(""), None);
    }

    #[test]
    fn the_effective_id_is_the_second_of_the_status_line() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
        assert_eq!(uid_in_status(status), Some(2));
        assert_eq!(uid_in_status("Name:\tx\n"), None);
    }

    #[test]
    fn both_ways_to_learn_our_user_id_agree() {
        assert_eq!(effective_uid().unwrap(), uid_by_id().unwrap());
    }

    #[test]
    fn each_class_of_permission_bits_speaks_for_its_users_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("podium-bits-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (uid, gid) = {
            let found = fs::metadata(&folder).unwrap();
            (found.uid(), found.gid())
        };
        let owner = user(uid, gid + 1);
        let group = user(uid + 1, gid);
        let other = user(uid + 1, gid + 1);
        for (mode, expected) in [
            (0o700, [true, false, false]),
            (0o611, [false, true, true]),
            (0o701, [true, false, true]),
            (0o666, [false, false, false]),
        ] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            let found = fs::metadata(&folder).unwrap();
            let may = [&owner, &group, &other].map(|user| user.may_enter(&found));
            assert_eq!(may, expected, "mode {mode:o}");
        }
        fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn the_outermost_closed_folder_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let closed = std::env::temp_dir().join(format!("podium-closed-{}", std::process::id()));
        let inner = closed.join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let owner = fs::metadata(&closed).unwrap();
        let stranger = user(owner.uid() + 1, owner.gid() + 1);
        let blocked = stranger.blocked_at(&inner).unwrap();
        assert_eq!(blocked, Some(closed.canonicalize().unwrap()));
        fs::remove_dir_all(&closed).unwrap();
    }
}
