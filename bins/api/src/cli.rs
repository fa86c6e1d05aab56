//! Command line: serve, migrate, token, rebuild, config.

use std::process::ExitCode;
use std::sync::Arc;

use chrono::TimeDelta;
use clap::{Parser, Subcommand};
use podium_settings::{SERVERS_LOG, chain, parse_duration, start_logging};
use podium_storage::erase;
use podium_storage::seals::{self, Seal};
use tokio::signal::unix::{SignalKind, signal};

use crate::auth::Auth;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Environment};
use crate::private;
use crate::server::{self, Running, StartError};

/// Experimentation for storefronts: assigns shoppers to variants, records what they do, tells what works.
#[derive(Debug, Parser)]
#[command(name = "podium-api", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Bring the schema up to date before serving.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    migrate: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the schema up to date and exit.
    Migrate,
    /// Print a token for a first try.
    Token {
        /// User id.
        #[arg(long)]
        user: String,
        /// Lifetime, such as 30m or 1h (at most 24h).
        #[arg(long, default_value = "1h", value_parser = parse_lifetime)]
        ttl: TimeDelta,
    },
    /// Compute all totals again from the events and prove that they equal the live ones.
    Rebuild {
        /// Replace the live totals by the recomputed ones.
        #[arg(long)]
        apply: bool,
    },
    /// Replace every name of a unit (and of its sessions) by a random one, everywhere; totals do not change.
    Forget {
        /// The unit: a user id, or a session id.
        unit: String,
    },
    /// The audit log.
    Audit {
        #[command(subcommand)]
        command: Audit,
    },
    /// Print the configuration in force, secrets masked.
    Config,
}

#[derive(Debug, Subcommand)]
enum Audit {
    /// Prove that nothing in the audit logs was altered, cut out or slipped in since it was sealed. Exits with 1 otherwise.
    Verify {
        /// A seal that was noted earlier, as `verify` and the log print it: the chain must hold it, so that an end that
        /// was cut off is found too.
        #[arg(long, value_name = "NUMBER:HASH", value_parser = parse_seal)]
        anchor: Option<Seal>,
    },
}

fn parse_seal(text: &str) -> Result<Seal, String> {
    text.parse()
        .map_err(|()| "a number, a colon and 64 hexadecimal digits".into())
}

fn parse_lifetime(text: &str) -> Result<TimeDelta, String> {
    let lifetime = parse_duration(text, 24).map_err(|error| error.to_string())?;
    TimeDelta::from_std(lifetime).map_err(|error| error.to_string())
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let config = Config::read(&Environment).and_then(|config| {
        start_logging(&Environment, SERVERS_LOG, config.log_json)?;
        Ok(config)
    });
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("podium-api: {error}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("podium-api: no async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(execute(cli, config)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("podium-api: {}", chain(&error));
            ExitCode::from(if matches!(error, StartError::Config(_)) {
                2
            } else {
                1
            })
        }
    }
}

async fn execute(cli: Cli, config: Config) -> Result<ExitCode, StartError> {
    match cli.command {
        None => serve(config, cli.migrate).await,
        Some(Command::Migrate) => migrate(&config).await,
        Some(Command::Token { user, ttl }) => token(&config, &user, ttl),
        Some(Command::Rebuild { apply }) => rebuild(&config, apply).await,
        Some(Command::Forget { unit }) => forget(&config, &unit).await,
        Some(Command::Audit {
            command: Audit::Verify { anchor },
        }) => verify_audit(&config, anchor).await,
        Some(Command::Config) => {
            println!("{config:#?}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn serve(config: Config, migrate: bool) -> Result<ExitCode, StartError> {
    let running = server::start(config, Arc::new(SystemClock), migrate).await?;
    println!("listening on http://{}", running.address);
    wait_for_the_end(running).await;
    Ok(ExitCode::SUCCESS)
}

/// Serves until SIGTERM or Ctrl-C, then drains; a second signal ends the process at once.
pub async fn wait_for_the_end(running: Running) {
    asked_to_stop().await;
    tracing::info!("stopping: requests in flight are finished first");
    tokio::select! {
        () = running.stop() => tracing::info!("stopped"),
        () = asked_to_stop() => {
            tracing::warn!("asked again: stopping at once");
            std::process::exit(1);
        }
    }
}

async fn asked_to_stop() {
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        // Without signal handlers the default action ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn migrate(config: &Config) -> Result<ExitCode, StartError> {
    let (database, _private) = private::database(config).await?;
    let applied = podium_storage::migrate::migrate(&database.owner()?).await?;
    if applied.is_empty() {
        println!("the schema is up to date");
    }
    for name in applied {
        println!("applied {name}");
    }
    Ok(ExitCode::SUCCESS)
}

fn token(config: &Config, user: &str, ttl: TimeDelta) -> Result<ExitCode, StartError> {
    let secret = private::signing_secret(config)?;
    match Auth::new(config, secret.as_ref()).issue(user, ttl, SystemClock.now()) {
        Ok(token) => {
            println!("{token}");
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            eprintln!("podium-api: {reason}");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn rebuild(config: &Config, apply: bool) -> Result<ExitCode, StartError> {
    let (database, _private) = private::database(config).await?;
    let settings = database.direct()?;
    let report = podium_storage::rebuild::rebuild(&settings, apply).await?;
    println!("{report}");
    Ok(if report.differences() == 0 || apply {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn verify_audit(config: &Config, anchor: Option<Seal>) -> Result<ExitCode, StartError> {
    let (database, _private) = private::database(config).await?;
    let settings = database.direct()?;
    let verified = seals::verify(&settings, anchor).await?;
    let last = verified
        .last
        .map_or("none".to_owned(), |seal| seal.to_string());
    println!("sealed entries: {}", verified.entries);
    println!("waiting for a seal: {}", verified.waiting);
    println!("last seal: {last}");
    for finding in &verified.findings {
        println!("FOUND: {finding}");
    }
    if verified.findings.is_empty() {
        println!("nothing was altered or cut out");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

async fn forget(config: &Config, unit: &str) -> Result<ExitCode, StartError> {
    let (database, _private) = private::database(config).await?;
    let settings = database.direct()?;
    let erased = erase::forget(&settings, unit).await?;
    if erased.is_empty() {
        println!("nothing is known of this unit");
    }
    for (table, rows) in erased {
        println!("{table}: {rows}");
    }
    Ok(ExitCode::SUCCESS)
}
