//! Benchmarks of Podium, each measured beside a yardstick in the same run: `cargo xtask bench`, and see
//! `docs/performance.md`.
//!
//! | module | what |
//! | --- | --- |
//! | [`lab`], [`process`], [`world`] | PostgreSQL, servers, experiments and units to measure with |
//! | [`wrk`], [`http`] | the load |
//! | [`echo`], [`yardstick`] | what is measured beside the API |
//! | [`goals`] | the measurements |
//! | [`figures`], [`table`] | medians, bars, the printed result |

mod echo;
mod error;
mod figures;
mod goals;
mod http;
mod lab;
mod process;
mod table;
mod world;
mod wrk;
mod yardstick;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use podium_settings::chain;

use crate::error::BenchError;
use crate::goals::GOALS;
use crate::lab::{Lab, Plan};

/// The API's, so that the yardstick is not slower for its allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Podium against yardsticks in the same run.
#[derive(Debug, Parser)]
#[command(name = "podium-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Hidden>,
    /// Goals to measure, 1 to 9 and 12 to 14 as docs/performance.md lists them; all without any.
    #[arg(value_parser = clap::value_parser!(u8).range(1..=14))]
    goals: Vec<u8>,
    /// Pairs of yardstick and measurement.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of each half of a pair.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// HTTP worker threads of the API and of echo; as many as there are cores without it.
    #[arg(long)]
    workers: Option<usize>,
    /// Events of the large experiment whose reports are measured (goal 9).
    #[arg(long, default_value_t = 1_000_000)]
    events: i64,
    /// A podium-api to measure, instead of the workspace's.
    #[arg(long)]
    api: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// The yardstick server.
    #[command(hide = true)]
    Echo(echo::EchoArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Hidden::Echo(args)) = cli.command {
        return told(actix_web::rt::System::new().block_on(echo::serve(args)));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return told(Err(BenchError::run("the runtime")(error))),
    };
    runtime.block_on(async {
        tokio::select! {
            outcome = measure(cli) => told(outcome),
            // What was started is dropped, and with it stopped.
            _ = tokio::signal::ctrl_c() => told(Err(BenchError::Interrupted)),
        }
    })
}

fn told(outcome: Result<(), BenchError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podium-bench: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn measure(cli: Cli) -> Result<(), BenchError> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let plan = Plan {
        pairs: cli.pairs,
        seconds: cli.seconds,
        workers: cli.workers.unwrap_or(cores),
        events: cli.events,
    };
    let program = lab::api_program(cli.api).await?;
    let mut lab = Lab::open(plan, &program).await?;
    let mut result = table::Result {
        conditions: lab.description().await?,
        lines: Vec::new(),
        failed: Vec::new(),
    };
    for (goal, about) in GOALS {
        if !cli.goals.is_empty() && !cli.goals.contains(&goal) {
            continue;
        }
        eprintln!(
            "goal {goal}: {about} (load average {})",
            lab::load_average()
        );
        match goals::measure(goal, &mut lab).await {
            Ok(lines) => {
                lines
                    .iter()
                    .for_each(|line| eprintln!("{}", table::row(line)));
                result.lines.extend(lines);
            }
            Err(error) => {
                eprintln!("no figures: {}", chain(&error));
                result.failed.push((goal, chain(&error)));
            }
        }
    }
    if let Some(memory) = lab.api.memory_mib() {
        result.conditions.push((
            "memory of the API at the end".into(),
            format!("{memory:.0} MiB"),
        ));
    }
    result
        .conditions
        .push(("load average at the end".into(), lab::load_average()));
    lab.close().await?;
    if cli.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&result).unwrap_or_default()
        );
    } else {
        println!("{}", result.text());
    }
    match result.failed.first() {
        None => Ok(()),
        Some((goal, reason)) => Err(BenchError::Failed {
            what: format!("goal {goal}"),
            said: reason.clone(),
        }),
    }
}
