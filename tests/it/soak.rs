//! A long time under load; run by `cargo xtask reliability`, not by CI.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use podium_tests::{ApiProcess, TestApp};
use serde_json::json;

use crate::PROGRAM;

const CLIENTS: usize = 16;
const USERS: usize = 1_000;
/// Readings over the measured time, after a quarter of it as much again for warming up.
const READINGS: usize = 24;

async fn load(process: &ApiProcess, until: Instant) -> usize {
    let clients = (0..CLIENTS).map(async |client| {
        let mut done = 0;
        while Instant::now() < until {
            let user = format!("u{}", (done * CLIENTS + client) % USERS);
            process
                .assign(json!({"experiment": "e", "user_id": user}))
                .await;
            process.track("click", json!({"user_id": user})).await.ok();
            done += 1;
        }
        done
    });
    join_all(clients).await.into_iter().sum()
}

/// Slope of a least-squares line, in units of `y` for one of `x`.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    over / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}

/// Memory does not grow and connections are not left behind. `PODIUM_SOAK_SECONDS` says for how long, an hour unless set.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes an hour"]
async fn neither_memory_nor_connections_leak() {
    let seconds = std::env::var("PODIUM_SOAK_SECONDS").map_or(3_600, |text| text.parse().unwrap());
    let app = TestApp::start().await;
    app.experiment("e").running().await;
    let process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", app.database().url())]).await;
    let step = Duration::from_secs(seconds) / u32::try_from(READINGS).unwrap();
    let begin = Instant::now();
    let mut done = 0;
    let mut points = Vec::new();
    let mut most = 0;
    for reading in 0..READINGS + READINGS / 4 {
        done += load(&process, Instant::now() + step).await;
        let connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                           AND application_name LIKE 'podium%'";
        most = most.max(app.database().number(connections).await);
        if reading >= READINGS / 4 {
            let minutes = begin.elapsed().as_secs_f64() / 60.0;
            points.push((minutes, process.resident_kib() as f64 / 1_024.0));
        }
    }
    let growth = slope(&points) * 10.0;
    println!(
        "{done} assignments and events in {:?}: {growth:.2} MiB in 10 minutes, {} to {} MiB, at most {most} connections of two replicas",
        begin.elapsed(),
        points[0].1.round(),
        points[points.len() - 1].1.round()
    );
    let cores = std::thread::available_parallelism().unwrap().get();
    let pools = i64::try_from((2 * cores).min(32) + 14).unwrap();
    assert!(most <= 2 * pools, "{most} connections");
    // Less than ten minutes tell of warming up only.
    assert!(seconds < 600 || growth < 1.0, "{growth} MiB in 10 minutes");
}
