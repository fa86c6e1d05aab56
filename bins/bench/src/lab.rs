//! The laboratory: a private PostgreSQL, the API on it, and what describes both.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use clap::ValueEnum;
use clap::builder::PossibleValue;
use podium_private_postgres::{Durability, PrivatePostgres, Settings};
use podium_settings::ids;
use podium_storage::connect::{ConnectSettings, Purpose};
use tokio::process::Command;
use tokio_postgres::Client;

use crate::error::BenchError;
use crate::process::{self, Server};
use crate::wrk::{self, Attack, Outcome};
use crate::yardstick::Table;

/// Database of the API.
const MAIN: &str = "podium_bench";
/// Database of the yardsticks: the same schema, and nobody folds what is written there.
const YARDSTICK: &str = "podium_yardstick";

/// How the benchmark is run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Pairs of yardstick and measurement.
    pub(crate) pairs: usize,
    /// Seconds of each half of a pair.
    pub(crate) seconds: u64,
    /// Worker threads of the API and of echo.
    pub(crate) workers: usize,
    /// Events of the large experiment whose reports are measured.
    pub(crate) events: i64,
}

/// Everything that measurements work with.
pub(crate) struct Lab {
    pub(crate) plan: Plan,
    pub(crate) api: Server,
    /// A token of an admin.
    pub(crate) token: String,
    /// The API's database.
    pub(crate) main: Client,
    /// Settings of the API's database.
    pub(crate) main_settings: ConnectSettings,
    /// Settings of the yardsticks' database.
    pub(crate) yardstick: ConnectSettings,
    yardstick_url: String,
    runs: AtomicU32,
    ticks_per_second: f64,
    postgres: Option<PrivatePostgres>,
    // Dropped last: until then the servers use it.
    folder: Folder,
}

/// A folder that goes away with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Processor time, rate and latencies of one half of a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Half {
    /// Processor time of the server for one request, in microseconds.
    pub(crate) cpu_us: f64,
    /// The same of PostgreSQL, background work included.
    pub(crate) postgres_us: f64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// In milliseconds.
    pub(crate) p50_ms: f64,
    /// In milliseconds.
    pub(crate) p99_ms: f64,
    pub(crate) requests: u64,
}

impl Lab {
    /// Starts everything.
    ///
    /// # Errors
    /// [`BenchError`] says what is missing or did not start.
    pub(crate) async fn open(plan: Plan, program: &Path) -> Result<Self, BenchError> {
        wrk::find().await?;
        let folder = Folder(folder(program));
        std::fs::create_dir_all(&folder.0).map_err(BenchError::file(&folder.0))?;
        wrk::write_scripts(&folder.0)?;
        let settings = Settings {
            durability: Durability::Full,
            options: vec![("max_connections".into(), "250".into())],
            ..Settings::new(folder.0.join("postgres"))
        };
        let postgres =
            tokio::task::spawn_blocking(move || PrivatePostgres::start(&settings)).await??;
        let root = ConnectSettings::parse(&postgres.url("podium"))?
            .connect(Purpose::Maintain)
            .await?;
        for name in [MAIN, YARDSTICK] {
            root.batch_execute(&format!("CREATE DATABASE {name}"))
                .await?;
        }
        let main_settings = ConnectSettings::parse(&postgres.url(MAIN))?;
        let yardstick_url = postgres.url(YARDSTICK);
        let yardstick = ConnectSettings::parse(&yardstick_url)?;
        podium_storage::migrate::migrate(&yardstick).await?;
        let secret = ids::secret_key().map_err(BenchError::Secret)?;
        let command = || api_command(program, &postgres.url(MAIN), secret.expose(), plan.workers);
        let api = Server::start(command(), &folder.0.join("podium-api.log")).await?;
        let token = token(command()).await?;
        let main = main_settings.connect(Purpose::Maintain).await?;
        let ticks_per_second = process::ticks_per_second().await;
        let (runs, postgres) = (AtomicU32::new(0), Some(postgres));
        Ok(Self {
            plan,
            api,
            token,
            main,
            main_settings,
            yardstick,
            yardstick_url,
            folder,
            runs,
            ticks_per_second,
            postgres,
        })
    }

    /// Stops everything in order.
    ///
    /// # Errors
    /// When a process did not end.
    pub(crate) async fn close(mut self) -> Result<(), BenchError> {
        self.api.stop().await?;
        drop(self.main);
        if let Some(postgres) = self.postgres.take() {
            tokio::task::spawn_blocking(move || postgres.stop()).await??;
        }
        Ok(())
    }

    /// A number that no other run of this process has, below 4096.
    pub(crate) fn run_number(&self) -> u32 {
        self.runs.fetch_add(1, Ordering::Relaxed) % 4096
    }

    /// Starts echo: it answers `bytes` on `path`.
    ///
    /// # Errors
    /// [`BenchError`] when it does not start.
    pub(crate) async fn echo(&self, path: &str, bytes: &[u8]) -> Result<Server, BenchError> {
        self.yardstick_server("echo", path, bytes, &[]).await
    }

    /// Starts what most would write: an echo that inserts a row for each request and commits it before the answer.
    ///
    /// # Errors
    /// [`BenchError`] when it does not start.
    pub(crate) async fn inserting(
        &self,
        path: &str,
        bytes: &[u8],
        table: Table,
    ) -> Result<Server, BenchError> {
        let (url, tag) = (self.yardstick_url.as_str(), self.run_number().to_string());
        let table = table.to_possible_value();
        let table = table.as_ref().map_or("", PossibleValue::get_name);
        let more = ["--insert", url, "--table", table, "--tag", &tag];
        self.yardstick_server("inserting", path, bytes, &more).await
    }

    async fn yardstick_server(
        &self,
        name: &str,
        path: &str,
        bytes: &[u8],
        more: &[&str],
    ) -> Result<Server, BenchError> {
        let file = self.folder.0.join(format!("{name}.json"));
        std::fs::write(&file, bytes).map_err(BenchError::file(&file))?;
        let myself = std::env::current_exe().map_err(BenchError::run(name))?;
        let mut command = Command::new(myself);
        command
            .arg("echo")
            .args(["--workers", &self.plan.workers.to_string(), "--path", path])
            .args(more);
        command.arg("--answer").arg(&file);
        Server::start(command, &self.folder.0.join(format!("{name}.log"))).await
    }

    /// Runs a load against a server and takes its processor time.
    ///
    /// # Errors
    /// [`BenchError::Invalid`] when an answer was not right.
    pub(crate) async fn attack(
        &self,
        server: &Server,
        attack: &Attack,
    ) -> Result<Half, BenchError> {
        let postmaster = self
            .postgres
            .as_ref()
            .map_or(0, PrivatePostgres::postmaster_pid);
        let (before, postgres) = (server.cpu_ticks()?, process::family_ticks(postmaster));
        let outcome: Outcome = wrk::run(&self.folder.0, &server.address, attack).await?;
        let (used, by_postgres) = (
            server.cpu_ticks()? - before,
            process::family_ticks(postmaster).saturating_sub(postgres),
        );
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds of load")]
        let micros =
            |ticks: u64| ticks as f64 * 1e6 / self.ticks_per_second / outcome.requests as f64;
        Ok(Half {
            cpu_us: micros(used),
            postgres_us: micros(by_postgres),
            rate: outcome.rate(),
            p50_ms: outcome.p50 / 1e3,
            p99_ms: outcome.p99 / 1e3,
            requests: outcome.requests,
        })
    }

    /// What the server says about itself, and where it runs.
    ///
    /// # Errors
    /// [`BenchError::Db`].
    pub(crate) async fn description(&self) -> Result<Vec<(String, String)>, BenchError> {
        let mut told = vec![
            (
                "cores".to_owned(),
                std::thread::available_parallelism()
                    .map_or(0, std::num::NonZero::get)
                    .to_string(),
            ),
            ("load average at the start".to_owned(), load_average()),
            (
                "HTTP workers (API and echo)".to_owned(),
                self.plan.workers.to_string(),
            ),
            (
                "pairs, seconds of each half".to_owned(),
                format!("{}, {}", self.plan.pairs, self.plan.seconds),
            ),
        ];
        for setting in [
            "server_version",
            "fsync",
            "synchronous_commit",
            "full_page_writes",
            "shared_buffers",
        ] {
            let row = self
                .main
                .query_one("SELECT current_setting($1)", &[&setting])
                .await?;
            told.push((format!("PostgreSQL {setting}"), row.get(0)));
        }
        Ok(told)
    }
}

/// The one-, five- and fifteen-minute load average.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// PostgreSQL does not run as root, and the user that runs it for root may not be able to enter the workspace.
fn folder(program: &Path) -> PathBuf {
    let name = format!("podium-bench-{}", std::process::id());
    let is_root = std::env::var_os("HOME").as_deref() == Some("/root".as_ref())
        && Path::new("/var/lib").is_dir();
    let beside = program
        .parent()
        .and_then(Path::parent)
        .unwrap_or_else(|| Path::new("."));
    if is_root {
        Path::new("/var/lib").join(name)
    } else {
        beside.join(name)
    }
}

/// The environment is emptied first, so that nobody's settings take part.
fn api_command(program: &Path, url: &str, secret: &str, workers: usize) -> Command {
    let mut command = Command::new(program);
    let inherited = ["PATH", "HOME", "RUST_LOG"].map(|name| (name, std::env::var_os(name)));
    let inherited = inherited
        .into_iter()
        .filter_map(|(name, value): (_, Option<OsString>)| Some((name, value?)));
    command
        .env_clear()
        .envs(inherited)
        .env("DATABASE_URL", url)
        .env("JWT_SECRET", secret)
        .env("PORT", "0")
        // All load comes from one address.
        .env("RATE_LIMIT_ENABLED", "false")
        .env("WORKERS", workers.to_string());
    command
}

async fn token(mut command: Command) -> Result<String, BenchError> {
    let output = command
        .args(["token", "--user", "1", "--ttl", "24h"])
        .output()
        .await;
    let output = output.map_err(BenchError::run("podium-api token"))?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !printed.is_empty() {
        return Ok(printed);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(BenchError::Failed {
        what: "podium-api token".into(),
        said,
    })
}

/// The API's program: the one that was named, or the workspace's, brought up to date.
///
/// # Errors
/// [`BenchError::Failed`] when it cannot be built and none lies beside this program.
pub(crate) async fn api_program(named: Option<PathBuf>) -> Result<PathBuf, BenchError> {
    if let Some(path) = named {
        return path.canonicalize().map_err(BenchError::file(path));
    }
    let myself = std::env::current_exe().map_err(BenchError::run("podium-bench"))?;
    let beside = myself.with_file_name("podium-api");
    let workspace = myself
        .ancestors()
        .nth(3)
        .filter(|root| root.join("Cargo.toml").is_file());
    if let Some(workspace) = workspace {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .current_dir(workspace)
            .args(["build", "--quiet", "--release", "--package", "podium-api"])
            .status()
            .await
            .map_err(BenchError::run("cargo build"))?;
        if !built.success() {
            return Err(BenchError::Failed {
                what: "cargo build".into(),
                said: "see above".into(),
            });
        }
    }
    beside.canonicalize().map_err(BenchError::file(beside))
}
