//! An API process for the length of a check: private database, free port, data of its own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, ServerProblem};
use crate::{step, tools};

/// What the API prints before its address when it is ready.
const LISTENING: &str = "listening on ";
/// Making a database cluster and migrating it takes a few seconds; a busy machine may need far longer.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The API promises 10 s; the rest is for a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const LOG_TAIL_LINES: usize = 30;

/// A running `podium-api`. Dropping it stops the process and removes its data.
pub(crate) struct Server {
    /// Where it listens, such as `http://127.0.0.1:41357`.
    pub url: String,
    process: Process,
}

/// What must be cleaned up, also when the start fails half-way.
struct Process {
    pid: u32,
    /// Gets the status once, when the process has ended.
    ended: Receiver<std::io::Result<ExitStatus>>,
    data: PathBuf,
    log: PathBuf,
    stopped: bool,
}

impl Server {
    /// Starts the API without any configuration but a free port, and waits until it listens. What it prints goes to
    /// `api.log` in `folder`.
    ///
    /// # Errors
    /// [`Error::Server`] with the end of the log when it does not listen in time, [`Error::Spawn`], [`Error::Io`].
    pub(crate) fn start(mut command: Command, folder: &Path) -> Result<Self, Error> {
        let data = data_folder(folder);
        let path = folder.join("api.log");
        let log = File::create(&path).map_err(Error::io(&path))?;
        let child_log = log.try_clone().map_err(Error::io(&path))?;
        configure(&mut command, &data);
        let child = command.stderr(child_log).spawn();
        let mut child = child.map_err(|source| step::spawn_error(&command, source))?;
        let stdout = child.stdout.take();
        let process = Process::new(child, data, path);
        let url = process.wait_for_url(stdout, log)?;
        Ok(Self { url, process })
    }

    /// A token of its first administrator; `command` is the API's program.
    ///
    /// # Errors
    /// [`Error::Spawn`] and [`Error::Failed`].
    pub(crate) fn token(&self, mut command: Command) -> Result<String, Error> {
        configure(&mut command, &self.process.data);
        command.args(["token", "--user", "1", "--ttl", "2h"]);
        let token = step::output("token", &mut command)?;
        Ok(String::from_utf8_lossy(&token).trim().to_owned())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// [`Error::Server`] when it does not end in time, or not with status 0.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        self.process.stop()
    }
}

impl Process {
    fn new(mut child: Child, data: PathBuf, log: PathBuf) -> Self {
        let pid = child.id();
        let (sender, ended) = mpsc::channel();
        // A failed send means that nobody waits any more.
        thread::spawn(move || sender.send(child.wait()));
        Self {
            pid,
            ended,
            data,
            log,
            stopped: false,
        }
    }

    fn wait_for_url(&self, stdout: Option<ChildStdout>, log: File) -> Result<String, Error> {
        let (sender, urls) = mpsc::channel();
        if let Some(stdout) = stdout {
            thread::spawn(move || copy_lines(stdout, log, &sender));
        }
        urls.recv_timeout(START_LIMIT).map_err(|error| match error {
            RecvTimeoutError::Timeout => self.error(ServerProblem::Silent {
                seconds: START_LIMIT.as_secs(),
            }),
            RecvTimeoutError::Disconnected => self.error(ServerProblem::EndedEarly),
        })
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.stopped = true;
        self.signal("TERM");
        match self.ended.recv_timeout(STOP_LIMIT) {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.error(ServerProblem::Status(status))),
            Ok(Err(source)) => Err(Error::Io {
                path: "podium-api".into(),
                source,
            }),
            Err(_) => {
                self.signal("KILL");
                Err(self.error(ServerProblem::Hung {
                    seconds: STOP_LIMIT.as_secs(),
                }))
            }
        }
    }

    /// The standard library can only kill, and every shell knows `kill`.
    fn signal(&self, signal: &str) {
        step::works("sh", &["-c", &format!("kill -{signal} {}", self.pid)]);
    }

    fn error(&self, problem: ServerProblem) -> Error {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
        Error::Server {
            problem,
            log: self.log.clone(),
            tail,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.stopped {
            // The error that led here is the one to tell.
            let _ = self.stop();
        }
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// Empties the environment first, so that nobody's DATABASE_URL or token secret takes part.
fn configure(command: &mut Command, data: &Path) {
    command
        .env_clear()
        .env("PORT", "0")
        // All clients call from one address.
        .env("RATE_LIMIT_ENABLED", "false")
        .env("PODIUM_DATA_DIR", data);
    for name in ["PATH", "HOME", "TMPDIR"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
}

/// PostgreSQL does not run as root, and the user that runs it for root may not be able to enter the workspace.
fn data_folder(folder: &Path) -> PathBuf {
    let name = format!("podium-ecosystem-{}", std::process::id());
    let parent = if tools::is_root() {
        Path::new("/var/lib")
    } else {
        folder
    };
    parent.join(name)
}

/// Copies every line to the log, and the address that one of them tells to `urls`. It goes on reading after that, so
/// that the process never blocks on a full pipe.
fn copy_lines(stdout: ChildStdout, mut log: File, urls: &mpsc::Sender<String>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        // The log is for people who look for the cause of a failure; without it the check still works.
        let _ = writeln!(log, "{line}");
        if let Some(url) = line.strip_prefix(LISTENING) {
            let _ = urls.send(url.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a shell script in the place of the API.
    fn start(test: &str, script: &str) -> (PathBuf, Result<Server, Error>) {
        let name = format!("podium-xtask-server-{}-{test}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let server = Server::start(command, &folder);
        (folder, server)
    }

    #[test]
    fn a_server_that_listens_and_ends_on_sigterm_is_fine() {
        let script = "trap 'exit 0' TERM\necho starting\necho 'listening on http://127.0.0.1:1'\nwhile :; do sleep 0.05; done";
        let (folder, server) = start("fine", script);
        let server = server.unwrap();
        assert_eq!(server.url, "http://127.0.0.1:1");
        server.stop().unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_server_that_ends_early_is_an_error_with_the_end_of_its_log() {
        let (folder, server) = start("early", "echo out\necho 'no database' >&2\nexit 3");
        let Err(error) = server else {
            panic!("it listens")
        };
        let told = error.to_string();
        assert!(
            told.contains("ended before it listened") && told.contains("no database"),
            "{told}"
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_server_that_fails_in_its_shutdown_is_an_error() {
        let script = "trap 'exit 7' TERM\necho 'listening on http://127.0.0.1:1'\nwhile :; do sleep 0.05; done";
        let (folder, server) = start("fails", script);
        let error = server.unwrap().stop().unwrap_err();
        assert!(
            matches!(error, Error::Server { problem: ServerProblem::Status(status), .. } if status.code() == Some(7))
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
