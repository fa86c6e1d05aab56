//! The simulated shop, shortly: every part of it works through the real API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may end them"
)]

mod support;

use podium_api::config::Config;
use podium_demo::Demo;
use podium_demo::progress::Progress;
use podium_demo::shop::plot::{svg, terminal};
use podium_demo::shop::{Clicks, DAYS, Play, Policy, summary};
use support::OwnDatabase;

#[test]
fn a_short_shop() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let database = OwnDatabase::create("shop").await;
        let settings = [("DATABASE_URL", database.url.as_str()), ("PORT", "0")];
        let demo = Demo::start(Config::read(&settings).unwrap()).await.unwrap();
        let play = Play {
            visits: 240,
            rounds: 4,
            seed: 3,
        };
        let clicks = demo.play_shop(play, Progress::Quiet).await.unwrap();
        demo.stop().await;
        database.drop().await;

        assert_eq!(
            clicks.iter().map(|c| c.policy).collect::<Vec<_>>(),
            Policy::ALL
        );
        for one in &clicks {
            assert_eq!(one.after.len(), 4);
            assert!(one.total() < 120, "click rates are a few percent");
        }
        let curves: Vec<_> = clicks.iter().map(Clicks::curve).collect();
        assert!(svg("t", DAYS, &curves).contains("bandit") && terminal(&curves).contains("bandit"));
        assert!(summary(&clicks, 240).contains("A/B"));
    });
}
