//! Plays the shop: makes the experiments, and sends what the logs say as a storefront's backend would.

use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::data::{Campaign, Log, Policy, Row};
use crate::error::DemoError;

/// Events in one request, the most that the API takes.
const BATCH: usize = 1_000;
/// Requests under way at a time, each over a connection of its own.
const CONNECTIONS: usize = 4;
/// Times that an event is sent before an outage counts as one.
const ATTEMPTS: u32 = 5;
/// Name and placement of the experiment that nothing is replayed into, so that trying things out leaves the figures of
/// the others as they are.
pub const TRY_OUT: &str = "demo-module-order";

/// What is read of an experiment.
#[derive(Clone, Debug, Deserialize)]
pub struct Experiment {
    /// Numeric id.
    pub id: i64,
    /// Where it is in its life.
    pub status: String,
    /// Its versions.
    #[serde(default)]
    pub variants: Vec<Variant>,
}

/// What is read of a variant.
#[derive(Clone, Debug, Deserialize)]
pub struct Variant {
    /// Numeric id.
    pub id: i64,
    /// Unique in its experiment.
    pub name: String,
}

/// What became of the events of a campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Events that were acknowledged.
    pub events: u64,
    /// Those among them that an earlier run had sent.
    pub duplicates: u64,
}

/// Finds the experiment of a campaign, or makes it: `random` as the control against `bts`, half and half.
///
/// # Errors
/// [`DemoError`] of the requests, and [`DemoError::NotRunning`].
pub async fn open(client: &Client, campaign: Campaign) -> Result<Experiment, DemoError> {
    let definition = json!({
        "name": campaign.experiment(),
        "description": "Open Bandit logs: items chosen at random against items chosen by a bandit",
        "experimentType": "ab_test",
        "target": campaign.experiment(),
        "primaryMetric": "click_through_rate",
        "secondaryMetrics": ["click_conversion_rate"],
        // The shop chose the policy of each row, so all variants are the client's word.
        "config": {"allowClientAssignment": true},
    });
    let variants = Policy::ALL.map(|policy| {
        json!({"name": policy.name(), "isControl": policy == Policy::Random, "trafficWeight": 1})
    });
    ensure_running(client, campaign.experiment(), &definition, &variants).await
}

/// Finds or makes the experiment to try things out with.
///
/// # Errors
/// As [`open`].
pub async fn open_try_out(client: &Client) -> Result<Experiment, DemoError> {
    let definition = json!({
        "name": TRY_OUT,
        "description": "An experiment to try assign and track with",
        "experimentType": "ab_test",
        "target": TRY_OUT,
        "primaryMetric": "click_through_rate",
    });
    let variants = [
        json!({"name": "control", "isControl": true, "trafficWeight": 1,
            "config": {"moduleOrdering": ["brands", "items", "stories"]}}),
        json!({"name": "stories_first", "trafficWeight": 1,
            "config": {"moduleOrdering": ["stories", "brands", "items"]}}),
    ];
    ensure_running(client, TRY_OUT, &definition, &variants).await
}

/// An earlier run may have been interrupted anywhere, so each step is taken only where it is missing.
pub(crate) async fn ensure_running(
    client: &Client,
    name: &str,
    definition: &Value,
    variants: &[Value],
) -> Result<Experiment, DemoError> {
    let path = format!("/api/v1/admin/experiments/{name}");
    let found = match client.find::<Experiment>(&path).await? {
        Some(found) => found,
        None => {
            client
                .change("/api/v1/admin/experiments", Some(definition.clone()))
                .await?;
            client.read(&path).await?
        }
    };
    if found.status == "draft" {
        let has = |name: &Value| {
            found
                .variants
                .iter()
                .any(|variant| name == variant.name.as_str())
        };
        for variant in variants.iter().filter(|variant| !has(&variant["name"])) {
            client
                .change(&format!("{path}/variants"), Some(variant.clone()))
                .await?;
        }
        client.change(&format!("{path}/start"), None).await?;
        return client.read(&path).await;
    }
    match found.status.as_str() {
        "running" => Ok(found),
        _ => Err(DemoError::NotRunning {
            experiment: name.to_owned(),
            status: found.status,
        }),
    }
}

/// An event as the storefront sends it.
#[derive(Debug, Serialize)]
struct Event<'a> {
    event_id: String,
    event_type: &'static str,
    user_id: String,
    experiment_id: i64,
    variant_id: i64,
    item_id: u32,
    position: u32,
    metadata: Metadata<'a>,
}

/// What the log knows and an event has no field for. The logs are from 2019, longer ago than the API takes a
/// time of occurrence, so it goes here and the events count as of their arrival.
#[derive(Clone, Copy, Debug, Serialize)]
struct Metadata<'a> {
    logged_at: &'a str,
    propensity: f64,
}

#[derive(Serialize)]
struct Batch<'b, 'a> {
    events: &'b [Event<'a>],
}

#[derive(Deserialize)]
struct BatchAnswer {
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    success: bool,
    duplicate: bool,
    status: u16,
    error: Option<String>,
}

/// Sends every row of `logs` as an impression, and as a click where it was clicked. Ids come from the row, so that a
/// second replay changes nothing.
///
/// # Errors
/// [`DemoError`] of the requests, [`DemoError::Event`] for an event that was refused, and [`DemoError::Missing`] when
/// the experiment has no variant of a log's policy.
pub async fn replay(
    client: &Client,
    experiment: &Experiment,
    logs: &[Log],
    bar: &ProgressBar,
) -> Result<Replayed, DemoError> {
    let mut batches = Vec::new();
    for log in logs {
        batches.extend(batches_of(log, experiment)?);
    }
    stream::iter(batches)
        .map(|batch| async move {
            let sent = send(client, batch).await?;
            bar.inc(sent.events);
            Ok(sent)
        })
        .buffer_unordered(CONNECTIONS)
        .try_fold(Replayed::default(), async |sum, sent| {
            Ok(Replayed {
                events: sum.events + sent.events,
                duplicates: sum.duplicates + sent.duplicates,
            })
        })
        .await
}

/// How many events a log makes.
#[must_use]
pub fn events_of(log: &Log) -> u64 {
    (log.rows.len() + log.clicks()) as u64
}

fn batches_of<'a>(log: &'a Log, experiment: &Experiment) -> Result<Vec<Vec<Event<'a>>>, DemoError> {
    let policy = log.policy.name();
    let variant = experiment
        .variants
        .iter()
        .find(|variant| variant.name == policy)
        .ok_or_else(|| DemoError::Missing {
            experiment: log.campaign.experiment().to_owned(),
            what: format!("variant {policy}"),
        })?;
    let mut batches = vec![Vec::with_capacity(BATCH)];
    for (index, row) in log.rows.iter().enumerate() {
        let events = events_of_row(&log.unit(index), row, experiment.id, variant.id);
        match batches.last_mut() {
            // A click travels with its impression.
            Some(batch) if batch.len() + events.len() <= BATCH => batch.extend(events),
            _ => batches.push(events),
        }
    }
    Ok(batches)
}

fn events_of_row<'a>(
    unit: &str,
    row: &'a Row,
    experiment_id: i64,
    variant_id: i64,
) -> Vec<Event<'a>> {
    let event = |event_type: &'static str| Event {
        event_id: format!("{unit}:{event_type}"),
        event_type,
        user_id: unit.to_owned(),
        experiment_id,
        variant_id,
        item_id: row.item_id,
        position: row.position,
        metadata: Metadata {
            logged_at: &row.timestamp,
            propensity: row.propensity,
        },
    };
    let click = row.clicked.then(|| event("click"));
    std::iter::once(event("impression")).chain(click).collect()
}

/// Sends a batch, and then again those events that the server had no time for.
async fn send(client: &Client, mut batch: Vec<Event<'_>>) -> Result<Replayed, DemoError> {
    let mut sum = Replayed::default();
    for attempt in 1.. {
        let answer: BatchAnswer = client
            .send("/api/v1/experiments/track", &Batch { events: &batch })
            .await?;
        if answer.results.len() != batch.len() {
            return Err(DemoError::Outcomes {
                sent: batch.len(),
                told: answer.results.len(),
            });
        }
        let mut again = Vec::new();
        for (event, outcome) in batch.into_iter().zip(answer.results) {
            match outcome.status {
                _ if outcome.success => {
                    sum.events += 1;
                    sum.duplicates += u64::from(outcome.duplicate);
                }
                429 | 503 if attempt < ATTEMPTS => again.push(event),
                status => {
                    let detail = outcome.error.unwrap_or_default();
                    return Err(DemoError::Event {
                        event_id: event.event_id,
                        status,
                        detail,
                    });
                }
            }
        }
        if again.is_empty() {
            break;
        }
        batch = again;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment() -> Experiment {
        let variants = vec![
            Variant {
                id: 31,
                name: "random".into(),
            },
            Variant {
                id: 32,
                name: "bts".into(),
            },
        ];
        Experiment {
            id: 12,
            status: "running".into(),
            variants,
        }
    }

    fn row(clicked: bool) -> Row {
        Row {
            timestamp: "2019-11-24".into(),
            item_id: 14,
            position: 3,
            clicked,
            propensity: 0.0125,
        }
    }

    fn log(rows: Vec<Row>) -> Log {
        Log {
            campaign: Campaign::All,
            policy: Policy::Bts,
            rows,
        }
    }

    #[test]
    fn a_click_is_sent_behind_its_impression() {
        let log = log(vec![row(false), row(true)]);
        let batches = batches_of(&log, &experiment()).unwrap();
        let sent = serde_json::to_value(&batches[0]).unwrap();
        let metadata = json!({"logged_at": "2019-11-24", "propensity": 0.0125});
        let event = |unit: &str, event_type: &str| {
            json!({"event_id": format!("{unit}:{event_type}"), "event_type": event_type, "user_id": unit,
                "experiment_id": 12, "variant_id": 32, "item_id": 14, "position": 3, "metadata": metadata})
        };
        let expected = [
            event("bts_all:0", "impression"),
            event("bts_all:1", "impression"),
            event("bts_all:1", "click"),
        ];
        assert_eq!(sent, json!(expected));
        assert_eq!(events_of(&log), 3);
    }

    #[test]
    fn batches_are_full_and_none_is_too_long() {
        let log = log((0..2_000).map(|index| row(index == 999)).collect());
        let batches = batches_of(&log, &experiment()).unwrap();
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        // The row whose two events do not fit opens the next batch.
        assert_eq!(sizes, [999, 1_000, 2]);
    }

    #[test]
    fn a_policy_without_a_variant_is_told() {
        let bare = Experiment {
            variants: Vec::new(),
            ..experiment()
        };
        let error = batches_of(&log(vec![row(false)]), &bare).unwrap_err();
        assert_eq!(error.to_string(), "open-bandit-all has no variant bts");
    }
}
