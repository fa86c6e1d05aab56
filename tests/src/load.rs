//! Many clients at once, which repeat every event until it is acknowledged, and a ledger of what they were told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::database::TestDatabase;
use crate::experiment::Experiment;
use crate::{Rng, eventually};

/// What is sent, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Events, each with an id of its own.
    pub events: usize,
    /// Clients that send at the same time, one request after the other.
    pub connections: usize,
    /// Users that the events belong to.
    pub users: usize,
}

/// Types of events with a route of their own.
const KINDS: [&str; 4] = ["impression", "click", "add-to-cart", "purchase"];

/// A load under way.
#[derive(Debug)]
pub struct Load {
    plan: Plan,
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    experiment: Experiment,
    targets: RwLock<Vec<Client>>,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    told: Mutex<HashMap<String, String>>,
    wrong: Mutex<Vec<String>>,
}

impl Plan {
    /// Starts to send.
    #[must_use]
    pub fn start(self, experiment: &Experiment, targets: Vec<Client>) -> Load {
        let shared = Arc::new(Shared {
            experiment: experiment.clone(),
            targets: RwLock::new(targets),
            acknowledged: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            told: Mutex::default(),
            wrong: Mutex::default(),
        });
        let mut clients = JoinSet::new();
        for first in 0..self.connections {
            clients.spawn(send(self, shared.clone(), first));
        }
        Load {
            plan: self,
            shared,
            clients,
        }
    }
}

impl Load {
    /// Where to send from now on.
    ///
    /// # Panics
    /// When a client has panicked.
    pub fn aim_at(&self, targets: Vec<Client>) {
        *self.shared.targets.write().unwrap() = targets;
    }

    /// Events that were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Requests that were answered 503 or not at all so far.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Random moments, in order: numbers of acknowledged events, none near the end.
    #[must_use]
    pub fn moments(&self, count: usize, rng: &mut Rng) -> Vec<usize> {
        let mut moments: Vec<usize> = (0..count)
            .map(|_| 1 + rng.below(self.plan.events * 9 / 10))
            .collect();
        moments.sort_unstable();
        moments
    }

    /// Waits for one of those moments.
    pub async fn reaches(&self, acknowledged: usize) {
        eventually("the load goes on", async || {
            self.acknowledged() >= acknowledged
        })
        .await;
    }

    /// Waits until every event is acknowledged.
    ///
    /// # Panics
    /// When an answer was neither a success nor a request to try again, or when a unit was told two variants.
    pub async fn finish(&mut self) {
        let plan = self.plan;
        self.reaches(plan.events).await;
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        let wrong = self.shared.wrong.lock().unwrap();
        assert!(
            wrong.is_empty(),
            "{} surprises, the first: {}",
            wrong.len(),
            wrong[0]
        );
    }

    /// Compares table and totals with what was acknowledged: nothing lost, nothing twice, every event under the variant
    /// that its unit was told. Folding must have caught up.
    ///
    /// # Panics
    /// When they differ.
    pub async fn verify(&self, database: &TestDatabase) {
        let (events, id) = (self.plan.events, self.shared.experiment.id);
        // So many fresh rows have no statistics yet, and without them the questions below compare all with all.
        database
            .execute("ANALYZE experiment_events, user_experiment_assignments")
            .await;
        let count = format!(
            "SELECT count(*), count(DISTINCT event_id) FROM experiment_events WHERE experiment_id = {id}"
        );
        assert_eq!(
            database.rows(&count).await,
            [[events.to_string(), events.to_string()]],
            "rows and distinct ids"
        );
        let lost = format!(
            "SELECT n FROM generate_series(0, {events} - 1) AS n
             WHERE NOT EXISTS (SELECT 1 FROM experiment_events WHERE event_id = 'e' || n AND experiment_id = {id}) LIMIT 5"
        );
        assert_eq!(
            database.rows(&lost).await,
            Vec::<Vec<String>>::new(),
            "lost events"
        );
        let torn = format!(
            "SELECT e.event_id FROM experiment_events e
             LEFT JOIN user_experiment_assignments a ON a.user_id = e.user_id AND a.experiment_id = e.experiment_id
             WHERE e.experiment_id = {id} AND a.variant_id IS DISTINCT FROM e.variant_id LIMIT 5"
        );
        assert_eq!(
            database.rows(&torn).await,
            Vec::<Vec<String>>::new(),
            "events under another variant than the unit's"
        );
        self.verify_units(database).await;
        self.verify_totals(database).await;
    }

    async fn verify_units(&self, database: &TestDatabase) {
        let id = self.shared.experiment.id;
        let stored = format!(
            "SELECT a.user_id, v.name FROM user_experiment_assignments a JOIN experiment_variants v ON v.id = a.variant_id
             WHERE a.experiment_id = {id}"
        );
        let stored: HashMap<String, String> = database
            .rows(&stored)
            .await
            .into_iter()
            .map(|row| (row[0].clone(), row[1].clone()))
            .collect();
        assert_eq!(stored.len(), self.plan.users, "units");
        let told = self.shared.told.lock().unwrap();
        for (unit, variant) in &*told {
            assert_eq!(stored.get(unit), Some(variant), "{unit} was told {variant}");
        }
    }

    async fn verify_totals(&self, database: &TestDatabase) {
        let id = self.shared.experiment.id;
        let folded = format!(
            "SELECT sum(units), sum(sum_impressions), sum(sum_clicks), sum(sum_add_to_carts), sum(sum_purchases),
                    trim_scale(sum(sum_purchase_value) * 10000)
             FROM variant_moments WHERE experiment_id = {id}"
        );
        let of_kind = |kind: usize| (0..self.plan.events).filter(move |n| n % KINDS.len() == kind);
        let mut expected = vec![self.plan.users];
        expected.extend((0..KINDS.len()).map(|kind| of_kind(kind).count()));
        expected.push(of_kind(3).map(value_e4).sum());
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(
            database.rows(&folded).await,
            [expected],
            "units, impressions, clicks, carts, purchases, value"
        );
    }
}

/// Value of a purchase, in 1/10,000, with all four decimals in use.
const fn value_e4(event: usize) -> usize {
    10_001 + event * 37 % 9_999_999
}

fn body(plan: Plan, experiment: &Experiment, event: usize) -> Value {
    let mut body = json!({"event_id": format!("e{event}"), "user_id": user(plan, event), "experiment_id": experiment.id});
    if event % KINDS.len() == 3 {
        let value = value_e4(event);
        let text = format!("{}.{:04}", value / 10_000, value % 10_000);
        body["value"] = serde_json::from_str(&text).unwrap();
    }
    body
}

fn user(plan: Plan, event: usize) -> String {
    format!("u{}", event / KINDS.len() % plan.users)
}

async fn send(plan: Plan, shared: Arc<Shared>, first: usize) {
    for event in (first..plan.events).step_by(plan.connections) {
        let mut attempt = 0;
        while !try_to_send(plan, &shared, event, attempt).await {
            attempt += 1;
            shared.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks for the user's variant and sends the event. Returns whether both were answered in full.
async fn try_to_send(plan: Plan, shared: &Shared, event: usize, attempt: usize) -> bool {
    let target = {
        let targets = shared.targets.read().unwrap();
        targets[(event + attempt) % targets.len()].clone()
    };
    let user = user(plan, event);
    let asked = json!({"experiment": shared.experiment.id, "user_id": user});
    let Ok(assigned) = target.try_post("/api/v1/experiments/assign", &asked).await else {
        return false;
    };
    if assigned.status != 200 {
        shared.surprise(format!(
            "assign answered {} {}",
            assigned.status,
            assigned.text()
        ));
    }
    let answer = assigned.json();
    if answer["variant"] == "default" {
        // Nothing was told. An event now would be refused for lack of an assignment.
        if answer["degraded"] != true {
            shared.surprise(format!("{user} got the default answer: {answer}"));
        }
        return false;
    }
    shared.remember(&user, answer["variant"].as_str().unwrap_or_default());
    let path = format!("/api/v1/experiments/track-{}", KINDS[event % KINDS.len()]);
    match target
        .try_post(&path, &body(plan, &shared.experiment, event))
        .await
    {
        Ok(answer) if answer.status == 200 => true,
        Ok(answer) => {
            if answer.status != 503 || answer.header("retry-after").is_empty() {
                shared.surprise(format!(
                    "track answered {} {}",
                    answer.status,
                    answer.text()
                ));
            }
            false
        }
        Err(_) => false,
    }
}

impl Shared {
    fn remember(&self, user: &str, variant: &str) {
        let mut told = self.told.lock().unwrap();
        let known = told
            .entry(user.to_owned())
            .or_insert_with(|| variant.to_owned());
        if known != variant {
            let flip = format!("{user} was told {known}, then {variant}");
            drop(told);
            self.surprise(flip);
        }
    }

    fn surprise(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }
}
