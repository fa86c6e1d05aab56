//! The program as a child process, to be signalled and killed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::app::SECRET;
use crate::client::Client;
use crate::{eventually, token};

/// Variables of this process that must not reach the child.
const OURS: [&str; 11] = [
    "DATABASE_URL",
    "DATABASE_DIRECT_URL",
    "MIGRATION_DATABASE_URL",
    "HOST",
    "PORT",
    "WORKERS",
    "PODIUM_DATA_DIR",
    "PODIUM_SNAPSHOT_FILE",
    "LOG_FORMAT",
    "JWT_SECRET_PREVIOUS",
    "RUST_LOG",
];

/// A running program. Calls of a [`Client`] can be made on it. Dropping it kills it; its log is printed when the test fails.
#[derive(Debug)]
pub struct ApiProcess {
    child: Child,
    client: Client,
    log: PathBuf,
}

impl ApiProcess {
    /// Starts `program` with these variables and waits until it serves.
    ///
    /// # Panics
    /// When it ends before it serves.
    pub async fn start(program: &str, variables: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "podium-it-{}-{}.log",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let log = std::env::temp_dir().join(name);
        let mut command = Command::new(program);
        for name in OURS {
            command.env_remove(name);
        }
        command
            .env("JWT_SECRET", SECRET)
            .env("PORT", "0")
            // Tests call from one address.
            .env("RATE_LIMIT_ENABLED", "false")
            .env("WORKERS", "2")
            .envs(variables.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = line.await.unwrap().unwrap();
        let Some(base) = line.trim().strip_prefix("listening on ") else {
            let status = child.wait().unwrap();
            panic!(
                "{program} ended with {status} before it served:\n{}",
                std::fs::read_to_string(&log).unwrap()
            );
        };
        let client = Client::new(base).with_token(&token::valid("1"));
        Self { child, client, log }
    }

    /// Runs `program` with arguments to its end and returns how it ended and what it printed.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn run(
        program: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> (ExitStatus, String) {
        let mut command = tokio::process::Command::new(program);
        for name in OURS {
            command.env_remove(name);
        }
        let command = command
            .args(arguments)
            .env("JWT_SECRET", SECRET)
            .env("PORT", "0")
            // Tests call from one address.
            .env("RATE_LIMIT_ENABLED", "false")
            .envs(variables.iter().copied());
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }

    /// Where it listens.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        signal("TERM", &[self.child.id()]);
    }

    /// What it has written to its log so far.
    ///
    /// # Panics
    /// When the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Whether it runs.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The most memory that it ever had, in MiB.
    #[must_use]
    pub fn peak_memory_mib(&self) -> u64 {
        self.memory_kib("VmHWM:") / 1024
    }

    /// The memory that it has, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    fn memory_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }
}

impl Deref for ApiProcess {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for ApiProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!(
                "the end of the program's log:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// Sends a signal to processes that the test has started.
///
/// # Panics
/// When the system has no `kill`.
pub fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(ToString::to_string);
    let output = Command::new("kill")
        .arg(format!("-{name}"))
        .args(pids)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
