//! Making a cluster, and the few statements that must run before a server does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::binaries::{self, Installation, Search};
use crate::error::{Context, Error};
use crate::folder::{Folder, Password, create_private_dir, sync_parent};
use crate::lock::LockGuard;
use crate::processes::{failure, run, succeeded};
use crate::random;
use crate::server::{Durability, Settings};
use crate::user::{RunAs, lacks_postgres_user};

/// The superuser, and the database that exists from the beginning.
pub(crate) const NAME: &str = "podium";

/// How the names of unfinished clusters begin.
const UNFINISHED: &str = "postgres.new-";

/// What is needed to work on a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) folder: Folder,
    pub(crate) run_as: RunAs,
    pub(crate) installation: Installation,
    pub(crate) durability: Durability,
}

impl Site {
    /// Takes the folder of the settings for this process and finds programs that fit it.
    pub(crate) fn claim(settings: &Settings) -> Result<(Self, LockGuard), Error> {
        install_if_needed(settings)?;
        let (folder, run_as) = Folder::prepare(&settings.data_dir)?;
        let owner = folder.claim(&run_as)?;
        let version = folder.cluster_version();
        let site = Self {
            installation: find_installation(settings, &run_as, version)?,
            folder,
            run_as,
            durability: settings.durability,
        };
        Ok((site, owner))
    }

    /// Makes the cluster if there is none. Returns the password of its superuser.
    pub(crate) fn ensure_cluster(&self) -> Result<Password, Error> {
        let (password, fresh) = self.folder.load_or_create_password(&self.run_as)?;
        if self.folder.cluster_version().is_none() {
            self.create_cluster()?;
        } else {
            self.take_over_from_root()?;
            if fresh {
                self.reset_password(&password)?;
            }
        }
        Ok(password)
    }

    /// Builds the cluster beside its place and moves it there when it is complete, so that a crash
    /// in between leaves no half of one. An interrupted attempt may still be writing to its own
    /// folder, therefore each has a new one.
    fn create_cluster(&self) -> Result<(), Error> {
        self.remove_unfinished()?;
        let name = format!("{UNFINISHED}{}", random::hex::<8>()?);
        let dir = self.folder.root().join(name);
        create_private_dir(&dir, &self.run_as)?;
        run(&mut self.initdb(&dir))?;
        self.single_user(&dir, &format!("CREATE DATABASE {NAME}"))?;
        let cluster = self.folder.cluster();
        fs::rename(&dir, &cluster).context("rename", &dir)?;
        sync_parent(&cluster)
    }

    fn remove_unfinished(&self) -> Result<(), Error> {
        let root = self.folder.root();
        for entry in fs::read_dir(root).context("read", root)? {
            let path = entry.context("read", root)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(UNFINISHED) {
                fs::remove_dir_all(&path).context("remove", &path)?;
            }
        }
        Ok(())
    }

    /// Sorting by bytes (`--locale=C`) does not depend on the system's C library, whose updates
    /// would silently break indexes.
    fn initdb(&self, dir: &Path) -> Command {
        let mut command = self.run_as.command(self.installation.program("initdb"));
        command.arg("-D").arg(dir).args(["-U", NAME]);
        command.arg("--pwfile").arg(self.folder.password_file());
        command.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]);
        command.args(["--data-checksums", "--no-instructions"]);
        if self.durability == Durability::None {
            command.arg("--no-sync");
        }
        command
    }

    /// Gives the superuser a new password when the file with the old one is lost. Whoever can do
    /// this owns the cluster's files anyway.
    fn reset_password(&self, password: &Password) -> Result<(), Error> {
        tracing::warn!(
            "the file with the password of the private PostgreSQL was lost, setting a new one"
        );
        let statement = format!("ALTER ROLE {NAME} PASSWORD '{}'", password.reveal());
        self.single_user(&self.folder.cluster(), &statement)
    }

    /// A cluster that root has copied here belongs to root, and PostgreSQL would refuse it.
    fn take_over_from_root(&self) -> Result<(), Error> {
        let cluster = self.folder.cluster();
        let owner = fs::metadata(&cluster).context("look at", &cluster)?.uid();
        if owner == 0 {
            self.run_as.own_all(&cluster)?;
        }
        Ok(())
    }

    /// Runs one statement without a server.
    fn single_user(&self, dir: &Path, statement: &str) -> Result<(), Error> {
        let program = self.installation.program("postgres");
        let mut command = self.run_as.command(&program);
        command.arg("--single").arg("-D").arg(dir);
        // The statement may hold the password, which belongs in no message.
        command.args(["-c", "log_min_error_statement=panic"]);
        command.args(
            self.durability
                .options()
                .iter()
                .flat_map(|option| ["-c", *option]),
        );
        command.arg("template1");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("run", &program)?;
        if let Some(mut stdin) = child.stdin.take() {
            writeln!(stdin, "{statement}").context("talk to", &program)?;
        }
        let output = child.wait_with_output().context("run", &program)?;
        // It ends well even if the statement did not.
        let said = String::from_utf8_lossy(&output.stderr);
        if ["ERROR:", "FATAL:"].iter().any(|bad| said.contains(bad)) {
            return Err(failure(&program, &output));
        }
        succeeded(&program, &output).map(drop)
    }
}

/// Programs for a cluster of the major version given, if there is one yet.
pub(crate) fn find_installation(
    settings: &Settings,
    run_as: &RunAs,
    version: Option<u32>,
) -> Result<Installation, Error> {
    let search = Search::of_system();
    binaries::find(
        &search,
        run_as,
        &settings.data_dir,
        version,
        settings.install,
    )
}

/// Installs PostgreSQL where that brings the user who is to run the server. Before that user
/// exists, no file should be given to another one.
pub(crate) fn install_if_needed(settings: &Settings) -> Result<(), Error> {
    if settings.install && lacks_postgres_user() {
        let run_as = RunAs::for_cluster(&settings.data_dir.join("postgres"))?;
        find_installation(settings, &run_as, None)?;
    }
    Ok(())
}
