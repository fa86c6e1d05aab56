//! Seeded streams of what a shop does: assignments, logins, events with duplicates, exclusions, bots, covariates, and
//! transactions that stay open while others commit.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use podium_domain::decimal::Decimal4;
use podium_storage::assignments::{Assigner, Candidate, Lookup};
use podium_storage::audit::Origin;
use podium_storage::batch::RunGroup;
use podium_storage::events::{Arm, EventRow, Promoted, Recorded, Recorder, event_key};
use podium_storage::experiments::ExperimentRef;
use podium_storage::experiments::covariates::{CovariateRow, Upload};
use podium_storage::fold;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::bandit;
use crate::support::{Rng, TestDatabase, next_upload};

const EXPERIMENTS: [i64; 3] = [1, 2, 3];
const KINDS: [&str; 6] = [
    "impression",
    "click",
    "add_to_cart",
    "purchase",
    "engagement",
    "request",
];
const NAMES: u64 = 14;

/// A name in an experiment.
type Name = (i64, String);

/// What an open transaction did.
enum Effect {
    Assigned(Name),
    LoggedIn {
        experiment: i64,
        user: String,
        session: String,
    },
    Recorded(Vec<EventRow>),
    Excluded,
    HandedIn,
}

struct Held {
    client: Client,
    effect: Effect,
    names: Vec<Name>,
}

/// Drives one database with one seed.
pub(crate) struct Stream<'a> {
    db: &'a TestDatabase,
    /// Whether passes of folding are among the steps.
    folds: bool,
    rng: Rng,
    now: DateTime<Utc>,
    assigner: Assigner,
    recorder: Recorder,
    held: Vec<Held>,
    /// Names under which events may arrive: assigned, or an alias of someone assigned.
    names: Vec<Name>,
    /// Sessions that became aliases.
    aliases: HashSet<Name>,
    /// Names that an open transaction has locked.
    locked: HashSet<Name>,
    events: u64,
    recorded: Vec<EventRow>,
    /// What the recorder said is new, and what committed by hand.
    pub(crate) acknowledged: HashSet<(i64, String)>,
    /// How often each kind of step was taken, to see that all were.
    pub(crate) steps: HashMap<&'static str, u32>,
}

impl<'a> Stream<'a> {
    pub(crate) async fn new(db: &'a TestDatabase, seed: u64, folds: bool) -> Self {
        db.execute(
            "INSERT INTO experiments (id, name, salt, status)
             SELECT n, 'experiment ' || n, 's', 'running' FROM generate_series(1, 3) AS n ON CONFLICT DO NOTHING;
             INSERT INTO experiment_promotions
                 (id, experiment_id, experiment_name, promoted_variant_id, promoted_variant_name, promotion_type)
             VALUES ('00000000-0000-0000-0000-000000000001', 1, 'experiment 1', 10, 'b', 'auto') ON CONFLICT DO NOTHING;
             INSERT INTO promotion_rollouts (promotion_id, watch_hours, requests_counted)
             VALUES ('00000000-0000-0000-0000-000000000001', 24, 2) ON CONFLICT DO NOTHING",
        )
        .await;
        bandit::learn(db).await;
        let now = db
            .client()
            .await
            .query_one("SELECT now()", &[])
            .await
            .unwrap()
            .get(0);
        Self {
            db,
            folds,
            rng: Rng(seed),
            now,
            assigner: Assigner::new(db.database.clone()),
            recorder: Recorder::new(db.database.clone()),
            held: Vec::new(),
            names: Vec::new(),
            aliases: HashSet::new(),
            locked: HashSet::new(),
            events: 0,
            recorded: Vec::new(),
            acknowledged: HashSet::new(),
            steps: HashMap::new(),
        }
    }

    /// Takes `steps` steps, then ends every open transaction.
    pub(crate) async fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step().await;
        }
        while !self.held.is_empty() {
            self.end_one().await;
        }
    }

    /// Goes on with other numbers and the same names.
    pub(crate) async fn step(&mut self) {
        let kind = match self.rng.below(100) {
            0..2 => bandit::reset_one(self.db, &mut self.rng).await,
            2..4 => bandit::update_one(self.db, &mut self.rng).await,
            4..16 => self.assign().await,
            16..22 => self.hand_in().await,
            22..29 => self.log_in().await,
            29..59 => self.record().await,
            59..64 => self.exclude().await,
            64..66 => self.assign_an_alias().await,
            66..78 if self.held.len() < 4 => self.hold().await,
            66..86 => self.end_one().await,
            86..98 if self.folds => self.fold().await,
            98.. if self.folds => self.recount().await,
            _ => "idle",
        };
        *self.steps.entry(kind).or_default() += 1;
    }

    fn some_name(&mut self, first: &str) -> Name {
        let experiment = *self.rng.pick(&EXPERIMENTS);
        (experiment, format!("{first}{}", self.rng.below(NAMES)))
    }

    /// The question of somebody who has no assignment yet.
    fn lookup(&mut self, experiment_id: i64, unit: &str) -> Lookup {
        let variant_id = experiment_id * 10 + i64::try_from(self.rng.below(2)).unwrap();
        let by_client = self.rng.once_in(4);
        Lookup {
            experiment_id,
            unit: unit.to_owned(),
            login_session: None,
            session_id: self
                .rng
                .once_in(2)
                .then(|| format!("s{}", self.rng.below(NAMES))),
            candidate: Some(Candidate {
                variant_id,
                by_client,
                propensity: (experiment_id == 1 && !by_client).then_some(0.5),
            }),
            epoch: i32::try_from(1 + self.rng.below(2)).unwrap(),
            is_bot: self.rng.once_in(12),
            takes_new: true,
            during_promotion: false,
        }
    }

    /// A name that has an assignment of its own and is not locked.
    fn some_owner(&mut self) -> Option<Name> {
        let free: Vec<Name> = self
            .names
            .iter()
            .filter(|n| !self.aliases.contains(n) && !self.locked.contains(n))
            .cloned()
            .collect();
        if free.is_empty() {
            None
        } else {
            Some(self.rng.pick(&free).clone())
        }
    }

    async fn assign(&mut self) -> &'static str {
        let first = *self.rng.pick(&["u", "s"]);
        let (experiment, unit) = self.some_name(first);
        if self.locked.contains(&(experiment, unit.clone())) {
            return "locked";
        }
        let lookup = self.lookup(experiment, &unit);
        let answer = self.assigner.run(vec![lookup]).await.remove(0).unwrap();
        assert!(answer.is_some(), "{unit} got nothing");
        self.add_name((experiment, unit));
        "assign"
    }

    fn add_name(&mut self, name: Name) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    /// A user logs in on a session, which may be a user with aliases himself.
    async fn log_in(&mut self) -> &'static str {
        let Some((experiment, session)) = self.some_owner() else {
            return "idle";
        };
        let user = format!("u{}", self.rng.below(NAMES));
        let waits = [(experiment, user.clone()), exclusion_of(experiment, &user)];
        if user == session || waits.iter().any(|name| self.locked.contains(name)) {
            return "locked";
        }
        let login_session = Some(session.clone());
        let lookup = Lookup {
            session_id: login_session.clone(),
            login_session,
            ..self.lookup(experiment, &user)
        };
        let answer = self.assigner.run(vec![lookup]).await.remove(0).unwrap();
        assert!(answer.is_some(), "{user} on {session} got nothing");
        self.add_name((experiment, user));
        let moved = format!(
            "SELECT count(*) FROM unit_aliases WHERE experiment_id = {experiment} AND alias_unit = '{session}'"
        );
        if self.db.text(&moved).await == "1" {
            self.aliases.insert((experiment, session));
        }
        "log in"
    }

    /// Two requests raced: an assignment under a name that has just become an alias.
    async fn assign_an_alias(&mut self) -> &'static str {
        let aliases: Vec<Name> = self.aliases.iter().cloned().collect();
        let Some((experiment, name)) = aliases.iter().min() else {
            return "idle";
        };
        self.db
            .execute(&format!(
                "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES ('{name}', {experiment}, {})
                 ON CONFLICT DO NOTHING",
                experiment * 10
            ))
            .await;
        "assign an alias"
    }

    fn event(&mut self, (experiment, unit): Name) -> EventRow {
        self.events += 1;
        let event_id = format!("e{}", self.events);
        let event_type = *self.rng.pick(&KINDS);
        let has_value = matches!(event_type, "purchase" | "engagement");
        let value = match self.rng.below(8) {
            0 => 0,
            1 => 10_000_000_000_000_000,
            _ => i64::try_from(self.rng.below(2_000_000)).unwrap(),
        };
        let is_bot = self.rng.once_in(15);
        let promotion = self.promotion(experiment, is_bot);
        let some = |rng: &mut Rng, first: &str| {
            (!rng.once_in(3)).then(|| format!("{first}{}", rng.below(4)))
        };
        EventRow {
            key: event_key(experiment, &event_id),
            event_id,
            unit,
            experiment_id: experiment,
            variant_id: experiment * 10,
            event_type,
            item_id: some(&mut self.rng, "item"),
            brand_id: some(&mut self.rng, "brand"),
            position: (!self.rng.once_in(3)).then(|| i32::try_from(1 + self.rng.below(3)).unwrap()),
            module_id: None,
            event_data: self
                .rng
                .once_in(5)
                .then(|| Bytes::from_static(b"{\"a\": 1}")),
            value_e4: has_value.then_some(value),
            quantity: None,
            latency_ms: (event_type == "request" && !self.rng.once_in(4))
                .then(|| f64::from(u32::try_from(self.rng.below(90_000)).unwrap()) / 16.0),
            is_error: (event_type == "request").then(|| self.rng.once_in(2)),
            session_id: some(&mut self.rng, "s"),
            decision_id: some(&mut self.rng, "d"),
            is_bot,
            counted: !is_bot && promotion.is_none() && !self.rng.once_in(15),
            promotion,
            occurred_at: self.rng.once_in(2).then(|| {
                self.now - TimeDelta::minutes(i64::try_from(self.rng.below(4_000)).unwrap())
            }),
        }
    }

    /// Some events of the first experiment come while it is promoted.
    fn promotion(&mut self, experiment: i64, is_bot: bool) -> Option<Promoted> {
        (experiment == 1 && self.rng.once_in(2)).then(|| Promoted {
            promotion_id: Uuid::from_u128(1),
            step: i32::try_from(self.rng.below(2)).unwrap(),
            arm: (!is_bot).then(|| {
                *self
                    .rng
                    .pick(&[Arm::Own, Arm::Moved, Arm::HeldBack, Arm::Winner])
            }),
        })
    }

    fn some_events(&mut self) -> Vec<EventRow> {
        let count = 1 + self.rng.below(6);
        let mut events = Vec::new();
        for _ in 0..count {
            if !self.recorded.is_empty() && self.rng.once_in(5) {
                // The same id again, with another body, which must change nothing.
                let mut again = self.rng.pick(&self.recorded).clone();
                again.value_e4 = again.value_e4.map(|value| value / 2 + 1);
                events.push(again);
            } else if !self.names.is_empty() {
                let name = self.rng.pick(&self.names).clone();
                events.push(self.event(name));
            }
        }
        events
    }

    async fn record(&mut self) -> &'static str {
        let events = self.some_events();
        let jobs: Vec<Vec<EventRow>> = events.chunks(2).map(<[EventRow]>::to_vec).collect();
        for (job, answer) in jobs.iter().zip(self.recorder.run(jobs.clone()).await) {
            for (event, new) in job.iter().zip(answer.unwrap()) {
                if new == Recorded::New {
                    assert!(
                        self.acknowledged
                            .insert((event.experiment_id, event.event_id.clone())),
                        "{event:?} was new twice"
                    );
                    self.recorded.push(event.clone());
                }
            }
        }
        "record"
    }

    async fn exclude(&mut self) -> &'static str {
        let first = *self.rng.pick(&["u", "s"]);
        let (experiment, unit) = self.some_name(first);
        if self.locked.contains(&exclusion_of(experiment, &unit)) {
            return "locked";
        }
        self.db.execute(&exclude_sql(experiment, &unit)).await;
        "exclude"
    }

    /// Covariates of some units, assigned or not.
    async fn hand_in(&mut self) -> &'static str {
        let experiment = *self.rng.pick(&EXPERIMENTS);
        let mut rows: Vec<CovariateRow> = Vec::new();
        for place in 0..=self.rng.below(6) {
            let unit = self.some_covered_unit();
            if rows.iter().all(|row| row.unit != unit) {
                rows.push(CovariateRow {
                    place: i64::try_from(place).unwrap(),
                    unit,
                    value: Decimal4(self.some_covariate()),
                });
            }
        }
        let origin = Origin {
            actor: "ada".into(),
            request_id: "r".into(),
            address: None,
        };
        let upload = Upload::begin(&self.db.database, next_upload())
            .await
            .unwrap();
        upload.stage(&rows).await.unwrap();
        let outcome = upload
            .commit(&origin, &ExperimentRef::Id(experiment))
            .await
            .unwrap();
        assert_eq!(outcome.received, i64::try_from(rows.len()).unwrap());
        assert_eq!(
            outcome.received,
            outcome.accepted + outcome.already_assigned + outcome.unchanged
        );
        "hand in"
    }

    fn some_covered_unit(&mut self) -> String {
        let first = *self.rng.pick(&["u", "s"]);
        format!("{first}{}", self.rng.below(NAMES))
    }

    /// Few different ones, so that some stay as they are.
    fn some_covariate(&mut self) -> i64 {
        match self.rng.below(8) {
            0 => -10_000_000_000_000_000,
            1 => 10_000_000_000_000_000,
            _ => i64::try_from(self.rng.below(5) * 12_345).unwrap() - 20_000,
        }
    }

    /// Does one thing in a transaction that stays open.
    async fn hold(&mut self) -> &'static str {
        let client = self.db.client().await;
        client.batch_execute("BEGIN").await.unwrap();
        let (kind, effect, names) = match self.rng.below(8) {
            6 | 7 => {
                let (experiment, unit) = (*self.rng.pick(&EXPERIMENTS), self.some_covered_unit());
                let value = self.some_covariate();
                // Assigned or not: what is handed in too late must not count, whoever let it in.
                let sql = format!(
                    "INSERT INTO unit_covariates (experiment_id, unit, value) VALUES ({experiment}, '{unit}', {value} * 0.0001)"
                );
                client.batch_execute(&sql).await.unwrap();
                ("hold a covariate", Effect::HandedIn, Vec::new())
            }
            0 => {
                let (experiment, unit) = self.some_name("s");
                let name = (experiment, unit.clone());
                if self.names.contains(&name) || self.locked.contains(&name) {
                    return "locked";
                }
                let l = self.lookup(experiment, &unit);
                let sql = format!(
                    "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, epoch, is_bot)
                     VALUES ('{unit}', {experiment}, {}, {}, {})",
                    experiment * 10,
                    l.epoch,
                    l.is_bot
                );
                client.batch_execute(&sql).await.unwrap();
                (
                    "hold an assignment",
                    Effect::Assigned(name.clone()),
                    vec![name],
                )
            }
            1 | 2 => {
                let Some((experiment, session)) = self.some_owner() else {
                    return "idle";
                };
                let user = format!("u{}", self.rng.below(NAMES));
                let taken = (experiment, user.clone());
                if self.names.contains(&taken) || self.locked.contains(&taken) {
                    return "locked";
                }
                client
                    .batch_execute(&log_in_sql(experiment, &user, &session))
                    .await
                    .unwrap();
                let names = vec![(experiment, session.clone()), taken];
                (
                    "hold a login",
                    Effect::LoggedIn {
                        experiment,
                        user,
                        session,
                    },
                    names,
                )
            }
            3 => {
                let (experiment, unit) = self.some_name("u");
                let name = exclusion_of(experiment, &unit);
                if self.locked.contains(&name) {
                    return "locked";
                }
                client
                    .batch_execute(&exclude_sql(experiment, &unit))
                    .await
                    .unwrap();
                ("hold an exclusion", Effect::Excluded, vec![name])
            }
            _ => {
                let Some(name) =
                    (!self.names.is_empty()).then(|| self.rng.pick(&self.names).clone())
                else {
                    return "idle";
                };
                let events: Vec<EventRow> = (0..=self.rng.below(5))
                    .map(|_| self.event(name.clone()))
                    .collect();
                for event in &events {
                    insert_by_hand(&client, event).await;
                }
                ("hold events", Effect::Recorded(events), Vec::new())
            }
        };
        self.locked.extend(names.iter().cloned());
        self.held.push(Held {
            client,
            effect,
            names,
        });
        kind
    }

    /// Commits, or sometimes rolls back, one of the open transactions, in any order.
    async fn end_one(&mut self) -> &'static str {
        if self.held.is_empty() {
            return "idle";
        }
        let at = usize::try_from(self.rng.below(self.held.len() as u64)).unwrap();
        let held = self.held.swap_remove(at);
        for name in &held.names {
            self.locked.remove(name);
        }
        if self.rng.once_in(5) {
            held.client.batch_execute("ROLLBACK").await.unwrap();
            return "roll back";
        }
        held.client.batch_execute("COMMIT").await.unwrap();
        match held.effect {
            Effect::Assigned(name) => self.add_name(name),
            Effect::LoggedIn {
                experiment,
                user,
                session,
            } => {
                self.add_name((experiment, user));
                self.aliases.insert((experiment, session));
            }
            Effect::Recorded(events) => {
                self.acknowledged.extend(
                    events
                        .iter()
                        .map(|event| (event.experiment_id, event.event_id.clone())),
                );
                self.recorded.extend(events);
            }
            Effect::Excluded | Effect::HandedIn => {}
        }
        "commit"
    }

    async fn fold(&mut self) -> &'static str {
        let rows = i64::try_from(1 + self.rng.below(20)).unwrap();
        for _ in 0..=self.rng.below(3) {
            fold::fold_up_to(&self.db.database, rows).await.unwrap();
        }
        "fold"
    }

    /// At any moment the totals are those of what lies below the watermark.
    async fn recount(&mut self) -> &'static str {
        let report = self.db.recount(false).await;
        assert_eq!(report.differences(), 0, "in the middle: {report}");
        assert!(!report.restored);
        "recount"
    }
}

/// What an open exclusion locks, which is not the unit itself.
fn exclusion_of(experiment: i64, unit: &str) -> Name {
    (experiment, format!("exclusion of {unit}"))
}

fn exclude_sql(experiment: i64, unit: &str) -> String {
    format!(
        "INSERT INTO excluded_units (experiment_id, unit, reason) VALUES ({experiment}, '{unit}', 'test') ON CONFLICT DO NOTHING"
    )
}

/// A login like that of `assignments`, to be left open.
fn log_in_sql(experiment: i64, user: &str, session: &str) -> String {
    format!(
        "UPDATE user_experiment_assignments SET user_id = '{user}' WHERE user_id = '{session}' AND experiment_id = {experiment};
         UPDATE unit_aliases SET unit = '{user}', tx_id = pg_current_xact_id()::text::bigint
         WHERE unit = '{session}' AND experiment_id = {experiment};
         INSERT INTO unit_aliases (experiment_id, alias_unit, unit) VALUES ({experiment}, '{session}', '{user}')"
    )
}

async fn insert_by_hand(client: &Client, e: &EventRow) {
    client
        .execute(
            "INSERT INTO experiment_event_keys (key) VALUES ($1)",
            &[&e.key],
        )
        .await
        .unwrap();
    let sql = "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, item_id, brand_id,
            position, value, is_error, session_id, is_bot, counted, occurred_at, decision_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::bigint * 0.0001, $10, $11, $12, $13, coalesce($14, now()), $15)";
    client
        .execute(
            sql,
            &[
                &e.event_id,
                &e.unit,
                &e.experiment_id,
                &e.variant_id,
                &e.event_type,
                &e.item_id,
                &e.brand_id,
                &e.position,
                &e.value_e4,
                &e.is_error,
                &e.session_id,
                &e.is_bot,
                &e.counted,
                &e.occurred_at,
                &e.decision_id,
            ],
        )
        .await
        .unwrap();
}
