//! The command line.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use podium_domain::text::{TextFault, check_reason};
use podium_promotion::Engine;
use podium_promotion::config::{self, Request};
use podium_settings::{
    DatabaseSettings, DurationError, Environment, SERVERS_LOG, Source, chain, choice,
    parse_duration, start_logging,
};
use podium_storage::Database;
use serde_json::json;
use uuid::Uuid;

use crate::error::WorkerError;
use crate::{commands, daemon};

/// Automatic promotion: scans running experiments, promotes proved winners, watches them and takes them back.
///
/// Exit codes: 0 done, 1 anything else, 2 configuration, 3 database, 4 another scan is running.
#[derive(Debug, Parser)]
#[command(name = "promotion-worker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Bring the schema up to date before the command.
    #[arg(long, global = true, default_value_t = true, action = clap::ArgAction::Set)]
    migrate: bool,
    /// Print JSON for programs instead of tables for people.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Go through all running experiments once, promote what is eligible, and exit.
    Scan {
        #[command(flatten)]
        asked: Asked,
    },
    /// Scan, watch and move rollouts on until asked to stop.
    Run {
        /// From one scan to the next, such as 1h or 30m.
        #[arg(long, default_value = "1h", value_parser = parse_period)]
        every: Duration,
        #[command(flatten)]
        asked: Asked,
    },
    /// Tell whether an experiment could be promoted, and why not.
    Check {
        /// Its name or id.
        name: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Promote the winner of an experiment, if it is eligible.
    Promote {
        /// Its name or id.
        name: String,
        /// The treatment to promote; the best one without it.
        #[arg(long)]
        variant: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Take a promotion back.
    Rollback {
        /// The promotion.
        id: Uuid,
        /// Why: 1 to 1,000 characters.
        #[arg(long, value_parser = parse_reason)]
        reason: String,
        /// Answer as if, and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Count promotions.
    Stats,
    /// Compute a stored decision again and say whether it is the same.
    Replay {
        /// The decision's id.
        id: i64,
    },
}

#[derive(Args, Debug)]
struct Asked {
    /// Values to start from, instead of those of `AUTO_PROMOTION_PRESET`.
    #[arg(long)]
    preset: Option<Strategy>,
    /// Answer as if, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Strategy {
    Aggressive,
    Balanced,
    Conservative,
}

impl Asked {
    fn request(&self) -> Request {
        let preset = self.preset.map(|preset| match preset {
            Strategy::Aggressive => config::Preset::Aggressive,
            Strategy::Balanced => config::Preset::Balanced,
            Strategy::Conservative => config::Preset::Conservative,
        });
        Request {
            preset: preset.map(|preset| preset.name().to_owned()),
            config: self.dry_run.then(|| json!({"dryRun": true})),
            dry_run: self.dry_run.then_some(true),
        }
    }
}

fn parse_period(text: &str) -> Result<Duration, DurationError> {
    parse_duration(text, 30 * 24)
}

fn parse_reason(text: &str) -> Result<String, TextFault> {
    check_reason(text).map(|()| text.to_owned())
}

/// What every command works with.
pub(crate) struct Worker {
    pub(crate) database: Database,
    pub(crate) engine: Engine,
    pub(crate) notifications: podium_notifications::Settings,
    pub(crate) json: bool,
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("promotion-worker: {}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(cli: Cli) -> Result<(), WorkerError> {
    let source = Environment;
    let json_logs = choice(&source, "LOG_FORMAT", "text or json", &["text", "json"])? == Some(1);
    start_logging(&source, SERVERS_LOG, json_logs)?;
    let addresses = DatabaseSettings::read(&source)?;
    let promotion = config::Environment::read(|name| source.get(name))?;
    let notifications = podium_notifications::Settings::read(&source)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(execute(cli, addresses, promotion, notifications))
}

async fn execute(
    cli: Cli,
    addresses: DatabaseSettings,
    promotion: config::Environment,
    notifications: podium_notifications::Settings,
) -> Result<(), WorkerError> {
    let settings = addresses.serving()?;
    if cli.migrate {
        for name in podium_storage::migrate::migrate(&addresses.owner()?).await? {
            tracing::info!(migration = name, "migration applied");
        }
    }
    let database = Database::new(settings)?;
    let worker = Worker {
        engine: Engine::new(database.clone(), promotion),
        database,
        notifications,
        json: cli.json,
    };
    match cli.command {
        Command::Scan { asked } => commands::scan(&worker, &asked.request()).await,
        Command::Run { every, asked } => daemon::run(&worker, every, &asked.request()).await,
        Command::Check { name, asked } => commands::check(&worker, &name, &asked.request()).await,
        Command::Promote {
            name,
            variant,
            asked,
        } => commands::promote(&worker, &name, variant, asked.request()).await,
        Command::Rollback {
            id,
            reason,
            dry_run,
        } => {
            let request = Request {
                dry_run: dry_run.then_some(true),
                ..Request::default()
            };
            commands::roll_back(&worker, id, &reason, &request).await
        }
        Command::Stats => commands::stats(&worker).await,
        Command::Replay { id } => commands::replay(&worker, id).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_something() {
        let rollback = |reason| {
            let id = Uuid::nil().to_string();
            Cli::try_parse_from(["promotion-worker", "rollback", &id, "--reason", reason])
        };
        assert!(rollback("checkout broke").is_ok());
        for nothing in ["", " ", "a\u{7}b", &"r".repeat(1_001)] {
            assert!(rollback(nothing).is_err(), "{nothing:?}");
        }
    }

    #[test]
    fn a_dry_run_is_one_in_every_spelling() {
        let cli = Cli::try_parse_from([
            "promotion-worker",
            "scan",
            "--preset",
            "conservative",
            "--dry-run",
        ]);
        let Command::Scan { asked } = cli.unwrap().command else {
            panic!("another command");
        };
        let request = asked.request();
        assert_eq!(request.dry_run, Some(true));
        assert_eq!(request.preset.as_deref(), Some("conservative"));
        assert!(Cli::try_parse_from(["promotion-worker", "scan", "--dryrun"]).is_err());
        assert!(
            Cli::try_parse_from(["promotion-worker", "rollback", "x", "--reason", "r"]).is_err()
        );
    }
}
