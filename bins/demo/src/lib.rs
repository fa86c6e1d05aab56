//! The demonstration: real logs of a shop, replayed through the HTTP API, and what Podium says about them.
//!
//! Two policies chose the items of a recommendation box at the same time: at random, and by a bandit. Each campaign
//! of the logs becomes an experiment of one policy against the other. Nothing here computes a figure: all are
//! read from the API, which is started in this process on a port of the loopback.
//!
//! | module | what |
//! | --- | --- |
//! | [`data`] | the logs |
//! | [`client`] | HTTP |
//! | [`shop`] | a simulated shop instead of the logs |
//! | [`storefront`] | makes the experiments and sends the events |
//! | [`results`] | reads the figures |
//! | [`table`] | shows the figures |
//! | [`tour`] | calls to go on with |

pub mod cli;
pub mod client;
pub mod data;
pub mod error;
pub mod progress;
pub mod results;
pub mod shop;
pub mod storefront;
pub mod table;
pub mod tour;

use std::sync::Arc;

use chrono::TimeDelta;
use podium_api::clock::{Clock, SystemClock};
use podium_api::config::Config;
use podium_api::ids;
use podium_api::server::{self, Running};

use crate::client::Client;
use crate::data::{Campaign, Log, Policy};
use crate::error::DemoError;
use crate::progress::Progress;
use crate::results::CampaignResults;
use crate::shop::{Clicks, Play};
use crate::storefront::Replayed;

/// The longest that the API takes.
const TOKEN_HOURS: i64 = 24;

/// A running API and a client of it.
pub struct Demo {
    running: Running,
    client: Client,
}

/// A campaign after its replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// What was sent.
    pub replayed: Replayed,
    /// What the API says.
    pub results: CampaignResults,
}

impl Demo {
    /// Starts the API as `config` says: on its database, or on a private one.
    ///
    /// # Errors
    /// [`DemoError::Start`], and those of making a token and a client.
    pub async fn start(config: Config) -> Result<Self, DemoError> {
        let config = Config {
            // The demonstration is its own only client, and a busy one.
            rates: None,
            ..with_secret(config)?
        };
        let admin = config.bootstrap_admin.clone();
        let running = server::start(config, Arc::new(SystemClock), true).await?;
        let issued =
            running
                .state
                .auth
                .issue(&admin, TimeDelta::hours(TOKEN_HOURS), SystemClock.now());
        let client = issued
            .map_err(DemoError::Token)
            .and_then(|token| Client::new(running.address, token));
        match client {
            Ok(client) => Ok(Self { running, client }),
            Err(error) => {
                running.stop().await;
                Err(error)
            }
        }
    }

    /// The client of the API.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Replays every campaign, and reads the results once all its events are counted.
    ///
    /// # Errors
    /// [`DemoError`].
    pub async fn play(&self, progress: Progress) -> Result<Vec<Played>, DemoError> {
        storefront::open_try_out(&self.client).await?;
        let mut played = Vec::new();
        for campaign in Campaign::ALL {
            played.push(self.play_campaign(campaign, progress).await?);
        }
        Ok(played)
    }

    /// Plays the simulated shop instead.
    ///
    /// # Errors
    /// [`DemoError`].
    pub async fn play_shop(
        &self,
        play: Play,
        progress: Progress,
    ) -> Result<Vec<Clicks>, DemoError> {
        shop::play(&self.client, play, SystemClock.now(), progress).await
    }

    async fn play_campaign(
        &self,
        campaign: Campaign,
        progress: Progress,
    ) -> Result<Played, DemoError> {
        let [random, bts] = Policy::ALL.map(|policy| Log::read(campaign, policy));
        let logs = [random?, bts?];
        let experiment = storefront::open(&self.client, campaign).await?;
        let bar = progress.bar(
            campaign.experiment(),
            logs.iter().map(storefront::events_of).sum(),
        );
        let replayed = storefront::replay(&self.client, &experiment, &logs, &bar).await;
        bar.finish_and_clear();
        let replayed = replayed?;
        progress.say(&format!(
            "{}: {} events sent, {} of them known from an earlier run",
            campaign.experiment(),
            table::count(replayed.events),
            table::count(replayed.duplicates)
        ));
        results::wait_until_counted(&self.client, campaign, &logs).await?;
        let results = results::read(&self.client, campaign).await?;
        Ok(Played { replayed, results })
    }

    /// Serves until Ctrl-C or SIGTERM, and stops in order.
    pub async fn stay(self) {
        podium_api::cli::wait_for_the_end(self.running).await;
    }

    /// Stops in order.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// A shared database asks for a signing secret. Without one, tokens are signed with a secret of this process alone.
fn with_secret(mut config: Config) -> Result<Config, DemoError> {
    if config.jwt_secret.is_none() && !config.is_private() {
        config.jwt_secret = Some(ids::secret_key().map_err(DemoError::Secret)?);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shared_database_without_a_secret_gets_one_of_this_process() {
        let secret_of = |settings: [(&'static str, &'static str); 2]| {
            let config = with_secret(Config::read(&settings).unwrap()).unwrap();
            config.jwt_secret.map(|secret| secret.expose().to_owned())
        };
        assert_eq!(secret_of([("DATABASE_URL", ""), ("JWT_SECRET", "")]), None);
        let configured = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            secret_of([
                ("DATABASE_URL", "postgres://db/x"),
                ("JWT_SECRET", configured)
            ])
            .unwrap(),
            configured
        );
        let made = || secret_of([("DATABASE_URL", "postgres://db/x"), ("JWT_SECRET", "")]).unwrap();
        let first = made();
        assert_eq!(first.len(), 64);
        assert_ne!(first, made());
    }
}
