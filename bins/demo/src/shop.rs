//! A simulated shop: 50 items whose click rates drift, and three ways to choose the one that is shown.
//!
//! Every visit happens three times, once under each policy, with the same luck: the shopper clicks when a number drawn
//! for the visit is below the item's rate at that moment. All of it goes through the HTTP API, as a storefront would
//! call it: `rank` chooses, `track` tells what was shown and clicked. Two simulated weeks end now; the API is told
//! when things happened.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::DemoError;
use crate::progress::Progress;
use crate::storefront::{Experiment, ensure_running};

pub mod plot;
pub mod world;

use plot::Curve;
use world::World;

/// Items of the shop.
pub const ITEMS: usize = 50;
/// Shoppers, who come again and again.
const SHOPPERS: usize = 200;
/// Requests under way at a time.
const CONNECTIONS: usize = 8;
/// Events in one request.
const BATCH: usize = 1_000;
/// How long folding may take before the demonstration gives up.
const COUNTING: Duration = Duration::from_secs(60);
/// Between two looks whether events are counted, and until weights follow counts.
const LOOK: Duration = Duration::from_millis(200);
const LEARNING: Duration = Duration::from_millis(1_200);

/// Days of simulated time.
pub const DAYS: u32 = 14;
const SPAN: TimeDelta = TimeDelta::days(DAYS as i64);

/// How much is played.
#[derive(Clone, Copy, Debug)]
pub struct Play {
    /// Visits under each policy.
    pub visits: usize,
    /// Stretches after which the policies learn. In a real shop they learn every few seconds.
    pub rounds: usize,
    /// Seed of the shop: rates, drift, and the luck of the visits.
    pub seed: u64,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            visits: 24_000,
            rounds: 60,
            seed: 1,
        }
    }
}

/// A way to choose what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Any item, all the time.
    Uniform,
    /// Any item for the first three tenths, then the item that had the best rate in them.
    AbTest,
    /// Thompson sampling that forgets.
    Bandit,
}

impl Policy {
    /// All of them, in the order of the results.
    pub const ALL: [Self; 3] = [Self::Uniform, Self::AbTest, Self::Bandit];

    /// The name in tables and plots.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::AbTest => "A/B",
            Self::Bandit => "bandit",
        }
    }

    const fn experiment(self) -> &'static str {
        match self {
            Self::Uniform => "shop-uniform",
            Self::AbTest => "shop-ab",
            Self::Bandit => "shop-bandit",
        }
    }

    fn config(self, play: &Play) -> Value {
        match self {
            Self::Uniform | Self::AbTest => {
                json!({"itemOrdering": "bandit", "banditAlgorithm": "uniform", "banditOptions": {"rewards": "click"}})
            }
            // A fifth of all visits ago counts half: the shop's rates drift by then.
            Self::Bandit => json!({"itemOrdering": "bandit", "banditAlgorithm": "thompson",
                "banditOptions": {"rewards": "click", "halfLifePlays": (play.visits / 5).max(1)}}),
        }
    }
}

/// Clicks of a policy over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Clicks {
    /// The policy.
    pub policy: Policy,
    /// Clicks in all after each round.
    pub after: Vec<u32>,
}

impl Clicks {
    /// Clicks in all.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.after.last().copied().unwrap_or_default()
    }

    /// As a line of a plot.
    #[must_use]
    pub fn curve(&self) -> Curve {
        Curve {
            name: self.policy.name(),
            values: self.after.iter().map(|clicks| f64::from(*clicks)).collect(),
        }
    }
}

/// Plays the shop through the API.
///
/// # Errors
/// [`DemoError`]; [`DemoError::NotCounted`] when the API stops folding.
pub async fn play(
    client: &Client,
    play: Play,
    now: DateTime<Utc>,
    progress: Progress,
) -> Result<Vec<Clicks>, DemoError> {
    let world = World::new(play.seed, ITEMS);
    let bar = progress.bar("shop", (play.visits * Policy::ALL.len()) as u64);
    let mut counters = Vec::new();
    for policy in Policy::ALL {
        counters.push(Counter::open(client, policy, &play, now).await?);
    }
    for round in 0..play.rounds {
        for counter in &mut counters {
            counter.serve(&world, &play, round, &bar).await?;
        }
        for counter in &counters {
            counter.wait_until_learned().await?;
        }
        // Weights are renewed every second.
        tokio::time::sleep(LEARNING).await;
    }
    bar.finish_and_clear();
    Ok(counters.into_iter().map(|counter| counter.clicks).collect())
}

/// One policy at work.
struct Counter<'a> {
    client: &'a Client,
    experiment: Experiment,
    begin: DateTime<Utc>,
    clicks: Clicks,
    /// What an A/B test has decided for.
    winner: Option<usize>,
    shown: usize,
}

/// A visit: who, when, with what luck.
struct Visit {
    shopper: String,
    number: usize,
    at: DateTime<Utc>,
    /// Where in the simulated time it is, in [0, 1).
    time: f64,
    luck: f64,
}

#[derive(Deserialize)]
struct Ranking {
    decision_id: Option<String>,
    candidates: Vec<Ranked>,
}

#[derive(Deserialize)]
struct Ranked {
    id: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArmBody {
    arm_id: String,
    total_pulls: u64,
    average_reward: f64,
}

#[derive(Deserialize)]
struct Counted {
    impressions: usize,
}

impl<'a> Counter<'a> {
    async fn open(
        client: &'a Client,
        policy: Policy,
        play: &Play,
        now: DateTime<Utc>,
    ) -> Result<Self, DemoError> {
        let name = policy.experiment();
        let definition = json!({
            "name": name,
            "description": "A simulated shop of 50 items with drifting click rates",
            "experimentType": "bandit",
            "target": name,
            "primaryMetric": "click_through_rate",
            "config": {"allowClientAssignment": true},
        });
        let all = json!({"name": "all", "isControl": true, "config": policy.config(play)});
        let experiment = ensure_running(client, name, &definition, &[all]).await?;
        let counter = Self {
            client,
            experiment,
            // Two weeks that are over: windows have passed, and nothing lies ahead.
            begin: now - SPAN - TimeDelta::hours(2),
            clicks: Clicks {
                policy,
                after: Vec::new(),
            },
            winner: None,
            shown: 0,
        };
        counter.admit().await?;
        Ok(counter)
    }

    /// Lets the shoppers in: what the client says of the past counts for units that it has assigned itself.
    async fn admit(&self) -> Result<(), DemoError> {
        let variant = self.experiment.variants.first();
        let variant = variant.ok_or_else(|| DemoError::Missing {
            experiment: self.clicks.policy.experiment().to_owned(),
            what: "variant".to_owned(),
        })?;
        let events: Vec<Value> = (0..SHOPPERS)
            .map(|shopper| {
                json!({"event_type": "engagement", "user_id": format!("shopper-{shopper}"), "value": 0,
                    "experiment_id": self.experiment.id, "variant_id": variant.id, "occurred_at": self.begin})
            })
            .collect();
        self.track(&events).await
    }

    /// Serves the visits of a round and tells what happened.
    async fn serve(
        &mut self,
        world: &World,
        play: &Play,
        round: usize,
        bar: &ProgressBar,
    ) -> Result<(), DemoError> {
        self.decide(play, round).await?;
        let visits = visits(play, round, self.begin);
        let shown: Vec<(Visit, usize, Option<String>)> = stream::iter(visits)
            .map(|visit| async {
                let (item, decision) = self.choose(&visit).await?;
                Ok::<_, DemoError>((visit, item, decision))
            })
            .buffered(CONNECTIONS)
            .try_collect()
            .await?;
        let mut clicked = 0;
        let mut events = Vec::new();
        for (visit, item, decision) in &shown {
            events.push(self.event("impression", visit, *item, decision.as_deref()));
            if visit.luck < world.rate(*item, visit.time) {
                clicked += 1;
                events.push(self.event("click", visit, *item, decision.as_deref()));
            }
        }
        for batch in events.chunks(BATCH) {
            self.track(batch).await?;
        }
        self.shown += shown.len();
        self.clicks.after.push(self.clicks.total() + clicked);
        bar.inc(shown.len() as u64);
        Ok(())
    }

    /// After three tenths of the rounds an A/B test ends with the item that had the best rate.
    async fn decide(&mut self, play: &Play, round: usize) -> Result<(), DemoError> {
        if self.clicks.policy != Policy::AbTest
            || round * 10 < play.rounds * 3
            || self.winner.is_some()
        {
            return Ok(());
        }
        let path = format!(
            "/api/v1/admin/experiments/{}/bandit-arms?armType=item",
            self.experiment.id
        );
        let arms: Vec<ArmBody> = self.client.read(&path).await?;
        let best = arms
            .into_iter()
            .filter(|arm| arm.total_pulls > 0)
            .max_by(|a, b| a.average_reward.total_cmp(&b.average_reward));
        self.winner = best.and_then(|arm| arm.arm_id.parse().ok());
        Ok(())
    }

    /// The item that is shown, and the decision behind it.
    async fn choose(&self, visit: &Visit) -> Result<(usize, Option<String>), DemoError> {
        if let Some(winner) = self.winner {
            return Ok((winner, None));
        }
        let candidates: Vec<Value> = (0..ITEMS).map(|item| json!({"id": item})).collect();
        let body = json!({"experiment": self.experiment.id, "user_id": visit.shopper, "limit": 1, "candidates": candidates});
        let ranking: Ranking = self.client.send("/api/v1/experiments/rank", &body).await?;
        let first = ranking.candidates.first();
        let first = first.ok_or_else(|| DemoError::Missing {
            experiment: self.clicks.policy.experiment().to_owned(),
            what: "first place".to_owned(),
        })?;
        Ok((first.id, ranking.decision_id))
    }

    fn event(&self, kind: &str, visit: &Visit, item: usize, decision: Option<&str>) -> Value {
        json!({
            // A second run of the same shop into the same database tells nothing new.
            "event_id": format!("shop-{kind}-{}-{}", self.begin.timestamp(), visit.number),
            "event_type": kind,
            "user_id": visit.shopper,
            "experiment_id": self.experiment.id,
            "item_id": item,
            "position": 1,
            "decision_id": decision,
            "occurred_at": visit.at,
        })
    }

    async fn track(&self, events: &[Value]) -> Result<(), DemoError> {
        let path = "/api/v1/experiments/track";
        let answer: Value = self.client.send(path, &json!({"events": events})).await?;
        let results = answer["results"].as_array();
        let failed = results.and_then(|results| results.iter().find(|one| one["success"] != true));
        match failed {
            None => Ok(()),
            Some(failed) => Err(DemoError::Event {
                event_id: failed["event_id"].as_str().unwrap_or_default().to_owned(),
                status: u16::try_from(failed["status"].as_u64().unwrap_or_default())
                    .unwrap_or_default(),
                detail: failed["error"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }

    async fn wait_until_learned(&self) -> Result<(), DemoError> {
        let path = format!(
            "/api/v1/admin/experiments/{}/performance",
            self.experiment.id
        );
        let since = Instant::now();
        loop {
            let totals: Vec<Counted> = self.client.read(&path).await?;
            if totals.iter().map(|total| total.impressions).sum::<usize>() >= self.shown {
                return Ok(());
            }
            if since.elapsed() > COUNTING {
                return Err(DemoError::NotCounted {
                    experiment: self.clicks.policy.experiment().to_owned(),
                    waited: COUNTING,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The visits of a round: the same for every policy.
fn visits(play: &Play, round: usize, begin: DateTime<Utc>) -> Vec<Visit> {
    let of = |part: usize| play.visits * part / play.rounds.max(1);
    (of(round)..of(round + 1))
        .map(|number| {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(play.seed ^ ((number as u64) << 20));
            let time = number as f64 / play.visits.max(1) as f64;
            Visit {
                shopper: format!("shopper-{}", rng.random_range(0..SHOPPERS)),
                number,
                at: begin + SPAN * number_of(number) / number_of(play.visits.max(1)),
                time,
                luck: rng.random(),
            }
        })
        .collect()
}

/// As what durations are multiplied with; more visits than that would never be played.
fn number_of(visits: usize) -> i32 {
    i32::try_from(visits).unwrap_or(i32::MAX)
}

/// What came out of it, in words.
#[must_use]
pub fn summary(clicks: &[Clicks], visits: usize) -> String {
    let uniform = clicks.first().map_or(0, Clicks::total).max(1);
    let line = |clicks: &Clicks| {
        let total = clicks.total();
        let gain = 100.0 * (f64::from(total) / f64::from(uniform) - 1.0);
        format!(
            "{:>8} {:>7} clicks in {visits} visits ({:.2} %), {gain:+.0} % against uniform\n",
            clicks.policy.name(),
            total,
            100.0 * f64::from(total) / visits as f64
        )
    };
    clicks.iter().map(line).collect()
}
