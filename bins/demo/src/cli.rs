//! Command line of the demonstration.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use podium_api::config::{Config, Environment, Source};
use podium_settings::{chain, start_logging};

use crate::error::DemoError;
use crate::progress::Progress;
use crate::shop::plot::{self, Curve};
use crate::shop::{Clicks, Play};
use crate::{Demo, shop, table, tour};

/// The API runs in this process: what it warns of is shown, its everyday messages are not, nor that connections to
/// the private database break when it stops.
const DEMO_LOG: &str = "warn,deadpool.postgres=off";

/// Replays real click logs through Podium's HTTP API, shows the results, and leaves the API running.
///
/// Without DATABASE_URL the API starts a PostgreSQL of its own. A second run finds the experiments of the first and
/// shows the same figures.
#[derive(Debug, Parser)]
#[command(name = "podium-demo", version)]
struct Cli {
    /// End after the results.
    #[arg(long)]
    exit: bool,
    /// Port of the API on the loopback [default: $PORT, else a free one].
    #[arg(long)]
    port: Option<u16>,
    /// Plays a simulated shop of 50 items with drifting click rates instead of the logs.
    #[arg(long)]
    shop: bool,
    /// Visits of the simulated shop under each policy.
    #[arg(long, default_value_t = 24_000, requires = "shop", value_parser = clap::value_parser!(u32).range(60..=1_000_000))]
    visits: u32,
    /// Seed of the simulated shop.
    #[arg(long, default_value_t = 1, requires = "shop")]
    seed: u64,
    /// Where the picture of the simulated shop is written.
    #[arg(long, default_value = "podium-shop.svg", requires = "shop")]
    svg: PathBuf,
    /// Folder of the private database [default: as podium-api].
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let config = Config::read(&Environment).and_then(|config| {
        start_logging(&Environment, DEMO_LOG, false)?;
        Ok(config)
    });
    let config = match config {
        Ok(config) => configured(config, &cli),
        Err(error) => {
            eprintln!("podium-demo: {error}");
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
            eprintln!("podium-demo: no async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(execute(config, &cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podium-demo: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The environment's settings, except that the demonstration keeps to the loopback, where it calls itself.
fn configured(config: Config, cli: &Cli) -> Config {
    let port_is_set = Environment.get("PORT").is_some_and(|port| !port.is_empty());
    Config {
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: cli
            .port
            .unwrap_or(if port_is_set { config.port } else { 0 }),
        data_dir: cli.data_dir.clone().or(config.data_dir),
        ..config
    }
}

async fn execute(config: Config, cli: &Cli) -> Result<(), DemoError> {
    let where_to = if config.database.url.is_some() {
        "the database of DATABASE_URL"
    } else {
        "a private PostgreSQL"
    };
    Progress::Told.say(&format!("starting Podium on {where_to}"));
    let demo = Demo::start(config).await?;
    let interrupted = tokio::select! {
        played = play_and_show(&demo, cli) => played.map(|()| false),
        // So that the private database stops in order with us.
        _ = tokio::signal::ctrl_c() => Ok(true),
    };
    if cli.exit || !matches!(interrupted, Ok(false)) {
        demo.stop().await;
        return interrupted.map(|_| ());
    }
    let client = demo.client();
    println!("\n{}", tour::render(client.base(), client.token()));
    demo.stay().await;
    Ok(())
}

async fn play_and_show(demo: &Demo, cli: &Cli) -> Result<(), DemoError> {
    if cli.shop {
        return shop_and_show(demo, cli).await;
    }
    for played in demo.play(Progress::Told).await? {
        println!("\n{}", table::render(&played.results));
    }
    println!("\n{}", table::NOTES);
    Ok(())
}

async fn shop_and_show(demo: &Demo, cli: &Cli) -> Result<(), DemoError> {
    let play = Play {
        visits: usize::try_from(cli.visits).unwrap_or(usize::MAX),
        seed: cli.seed,
        ..Play::default()
    };
    let clicks = demo.play_shop(play, Progress::Told).await?;
    let curves: Vec<Curve> = clicks.iter().map(Clicks::curve).collect();
    println!(
        "\n{}\n{}",
        plot::terminal(&curves),
        shop::summary(&clicks, play.visits)
    );
    let title = "Clicks in a simulated shop of 50 items with drifting rates";
    std::fs::write(&cli.svg, plot::svg(title, &curves)).map_err(|source| DemoError::Picture {
        path: cli.svg.clone(),
        source,
    })?;
    println!("picture: {}", cli.svg.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_demonstration_keeps_to_the_loopback() {
        let config =
            Config::read(&[("HOST", "0.0.0.0"), ("PODIUM_DATA_DIR", "/var/lib/podium")]).unwrap();
        let cli = Cli::parse_from(["podium-demo", "--port", "8080"]);
        let config = configured(config, &cli);
        assert!(config.is_private());
        assert_eq!(
            (config.port, config.data_dir),
            (8080, Some(PathBuf::from("/var/lib/podium")))
        );
    }
}
