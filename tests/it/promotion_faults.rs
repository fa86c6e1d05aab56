//! What a promotion survives: races, a worker that dies at any statement, a database that restarts, clocks that step, data
//! that are missing or old, and an experiment that changes under its feet. However it goes, there is one promotion with
//! one audit row, one record and one set of messages, or nothing.

use std::sync::Mutex;

use chrono::TimeDelta;
use futures_util::future::join_all;
use podium_promotion::config::{Environment, Request};
use podium_promotion::decide::{Question, Requester, Verdict};
use podium_promotion::engine::{Asked, Scan};
use podium_promotion::{Engine, EngineError};
use podium_storage::experiments::ExperimentRef;
use podium_storage::{ConnectSettings, Database, leases};
use podium_tests::app::SECRET;
use podium_tests::wire::Wire;
use podium_tests::{MockClock, OwnPostgres, TestApp, TestDatabase, eventually, token};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::guard::origin;
use crate::promotion::{CLEAR, statements};

const ROUTE: &str = "/api/v1/experiments/auto-promote";

/// Somebody who is told.
const LISTENER: &str = "INSERT INTO notification_configs (user_id, channel, webhook_url) VALUES ('1', 'slack', 'https://x.example/1')";

/// What there is of one experiment's promotion: in force, completed, and what is written beside.
const TRACES: &str = "SELECT
    (SELECT count(*) FROM experiment_promotions p WHERE p.experiment_id = e.id AND p.rollback_at IS NULL) AS active,
    (SELECT count(*) FROM experiment_promotions p WHERE p.experiment_id = e.id) AS ever,
    (e.status = 'completed' AND e.winner_variant_id IS NOT NULL)::int AS completed,
    (SELECT count(*) FROM ab_promotion_audit_log a WHERE a.experiment_id = e.id AND a.action = 'promoted') AS promoted,
    (SELECT count(*) FROM audit_log a WHERE a.experiment_id = e.id AND a.action = 'promotion.promote') AS audited,
    (SELECT count(*) FROM promotion_decisions d WHERE d.experiment_id = e.id AND d.kind = 'promoted') AS decided,
    (SELECT count(*) FROM promotion_rollouts r JOIN experiment_promotions p ON p.id = r.promotion_id WHERE p.experiment_id = e.id) AS rollouts,
    (SELECT count(*) FROM notification_outbox o JOIN notification_logs l ON l.id = o.id
        WHERE l.experiment_name = e.name AND l.alert_type = 'promotion') AS queued
    FROM experiments e";

const ONCE: [&str; 8] = ["1"; 8];
const NEVER: [&str; 8] = ["0"; 8];

async fn traces(database: &TestDatabase, id: i64) -> Vec<String> {
    let mut rows = database.rows(&format!("{TRACES} WHERE e.id = {id}")).await;
    rows.remove(0)
}

/// A process that promotes on its own, with connections of its own.
fn worker(url: &str) -> Engine {
    let environment = Environment::read(|name| match name {
        "AUTO_PROMOTION_ENABLED" => Some("true".to_owned()),
        _ => None,
    });
    let settings = ConnectSettings::parse(url).unwrap();
    Engine::new(Database::new(settings).unwrap(), environment.unwrap())
}

/// As many promotions an hour as can be asked for.
fn many() -> Request {
    Request {
        config: Some(json!({"maxConcurrentPromotions": 100})),
        ..Request::default()
    }
}

async fn scan(engine: &Engine) -> Result<Scan, EngineError> {
    engine.scan(&many(), &origin(), &|_, _| {}).await
}

fn by_person(id: i64) -> Asked {
    Asked {
        experiment: ExperimentRef::Id(id),
        question: Question {
            requester: Requester::Person,
            variant: None,
        },
        request: Request::default(),
        force: None,
    }
}

/// So that the limit of the hour does not end a test of many promotions.
async fn forget_the_hour(database: &TestDatabase) {
    let sql = "UPDATE experiment_promotions SET promoted_at = promoted_at - interval '2 hours'
               WHERE promoted_at > now() - interval '1 hour'";
    database.execute(sql).await;
}

/// Two workers scan and a person promotes, all at once, two hundred times.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_races_promote_once_each() {
    const ROUNDS: i64 = 200;
    let database = TestDatabase::migrated().await;
    database.execute(LISTENER).await;
    let [one, other, person] = [(); 3].map(|()| worker(database.url()));
    let mut by_workers = 0;
    for round in 1..=ROUNDS {
        database
            .execute(&statements(round, &format!("race {round}"), &CLEAR))
            .await;
        let (asked, origin) = (by_person(round), origin());
        // Whoever is named first has a start of some microseconds.
        let (first, second, promoted) = if round % 2 == 0 {
            tokio::join!(scan(&one), scan(&other), person.promote(&asked, &origin))
        } else {
            let (promoted, second, first) =
                tokio::join!(person.promote(&asked, &origin), scan(&other), scan(&one));
            (first, second, promoted)
        };
        let mut winners = usize::from(promoted.is_ok());
        match promoted {
            Ok(_) | Err(EngineError::NotEligible(_) | EngineError::Contended) => {}
            Err(error) => panic!("round {round}: {error:?}"),
        }
        for scanned in [first, second] {
            match scanned {
                Ok(scanned) => {
                    assert_eq!(scanned.failed(), 0, "round {round}: {scanned:?}");
                    winners += scanned.promoted();
                    by_workers += scanned.promoted();
                }
                Err(EngineError::Scanning) => {}
                Err(error) => panic!("round {round}: {error:?}"),
            }
        }
        assert_eq!(winners, 1, "round {round}");
        if round % 50 == 0 {
            forget_the_hour(&database).await;
        }
    }
    let rows = database.rows(TRACES).await;
    assert_eq!(rows.len(), 200);
    for (round, row) in rows.iter().enumerate() {
        assert_eq!(*row, ONCE, "round {}", round + 1);
    }
    let looks = "SELECT count(*) FROM promotion_looks WHERE z IS NOT NULL";
    assert_eq!(database.number(looks).await, ROUNDS, "one look each");
    println!("{by_workers} of {ROUNDS} promoted by a worker");
}

/// A worker dies behind the first statement of a promotion, behind the second, and so on to the last: afterwards everything
/// or nothing is there, and whoever comes next makes it everything, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_at_any_statement_leaves_all_or_nothing() {
    let database = TestDatabase::migrated().await;
    database.execute(LISTENER).await;
    let next = worker(database.url());
    let (mut whole, mut statement) = (0, 0);
    loop {
        statement += 1;
        let id = i64::try_from(statement).unwrap();
        let name = format!("dies at {id}");
        database.execute(&statements(id, &name, &CLEAR)).await;
        let by_engine = Asked {
            question: Question::of_engine(),
            ..by_person(id)
        };
        let wire = Wire::breaking_behind(&database, statement).await;
        let outcome = worker(wire.url()).promote(&by_engine, &origin()).await;
        let broke = wire.is_broken();
        let seen = wire.settled().await;
        let left = traces(&database, id).await;
        assert!(
            left == ONCE || left == NEVER,
            "statement {statement}: {left:?}"
        );
        whole += usize::from(broke && left == ONCE);
        let again = next.promote(&by_person(id), &origin()).await;
        assert_eq!(again.is_ok(), left == NEVER, "statement {statement}");
        assert_eq!(traces(&database, id).await, ONCE, "statement {statement}");
        forget_the_hour(&database).await;
        if !broke {
            outcome.unwrap();
            assert!(seen < statement);
            break;
        }
    }
    // Behind its commit the answer is lost and the promotion is there; behind any statement before nothing is.
    assert_eq!(whole, 1, "of {statement}");
    assert!(statement > 40, "{statement}");
    println!("{} statements", statement - 1);
}

/// The server crashes between two experiments of a scan and comes back: those that could not be decided are told, nothing
/// is half done, and the next scan does the rest.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_may_crash_in_the_middle_of_a_scan() {
    const EXPERIMENTS: i64 = 6;
    let postgres = OwnPostgres::start();
    let database = TestDatabase::on(postgres.url()).await;
    database.execute(LISTENER).await;
    for id in 1..=EXPERIMENTS {
        database
            .execute(&statements(id, &format!("e{id}"), &CLEAR))
            .await;
    }
    let postgres = Mutex::new(postgres);
    let crash = |done: usize, _: usize| {
        if done == 3 {
            postgres.lock().unwrap().crash_and_restart();
        }
    };
    let engine = worker(database.url());
    let first = engine.scan(&many(), &origin(), &crash).await;
    let first = first.unwrap();
    assert_eq!(first.items.len(), 6);
    assert!(first.promoted() >= 3, "{first:?}");
    let url = postgres.lock().unwrap().url().to_owned();
    let database = TestDatabase::on(url).await;
    for row in database.rows(TRACES).await {
        assert!(row == ONCE || row == NEVER, "{row:?}");
    }
    let mut promoted = first.promoted();
    eventually("the pools have recovered", async || {
        promoted += scan(&engine).await.map_or(0, |scan| scan.promoted());
        promoted == 6
    })
    .await;
    for row in database.rows(TRACES).await {
        assert_eq!(row, ONCE);
    }
}

/// The process's clock an hour ahead, and an hour behind: the runtime is counted by the database's.
#[tokio::test(flavor = "multi_thread")]
async fn steps_of_a_clock_neither_hasten_nor_delay_a_promotion() {
    let clock = MockClock::standing();
    let app = TestApp::setup()
        .variable("AUTO_PROMOTION_ENABLED", "true")
        .clock(clock.clone())
        .start()
        .await;
    // Good for hours on either side, because tokens do go by the process's clock.
    let now = podium_tests::clock::now().timestamp();
    let claims = json!({"userId": "1", "iat": now - 7_200, "exp": now + 7_200});
    let signed = token::signed(&claims, jsonwebtoken::Algorithm::HS256, SECRET);
    let client = app.with_token(&signed);
    let ask = async |action: &str, name: &str| {
        let body = json!({"action": action, "experimentName": name});
        client.admin(Method::POST, ROUTE, Some(&body)).await
    };
    let started = |id: i64, name: &str, ago: &str| {
        let sql = statements(id, name, &CLEAR);
        format!(
            "{sql} UPDATE experiments SET start_date = now() - interval '{ago}' WHERE id = {id};"
        )
    };
    app.change(&started(1, "young", "23 hours 40 minutes"))
        .await;
    app.change(&started(2, "old", "24 hours 20 minutes")).await;
    app.change(&started(3, "older", "24 hours 20 minutes"))
        .await;
    for (step, ripe) in [(1, "old"), (-2, "older")] {
        clock.advance(TimeDelta::hours(step));
        let refused = ask("promote", "young").await.problem(409, "not_eligible");
        assert!(
            refused["data"]["reasons"].to_string().contains("runtime"),
            "{refused}"
        );
        let promoted = ask("promote", ripe).await.data();
        assert!(promoted["promotionId"].is_string(), "{promoted}");
    }
    assert_eq!(traces(app.database(), 1).await, NEVER);
}

/// The database's clock was set back: what was written before lies in the future, and nothing is taken for old enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_clock_was_set_back_decides_nothing_early() {
    let database = TestDatabase::migrated().await;
    let engine = worker(database.url());
    database.execute(&statements(1, "cta", &CLEAR)).await;
    // No runtime is negative, and none is counted.
    database
        .execute("UPDATE experiments SET start_date = now() + interval '1 hour'")
        .await;
    let refused = engine.promote(&by_person(1), &origin()).await.unwrap_err();
    let EngineError::NotEligible(checked) = refused else {
        panic!("{refused:?}");
    };
    let runtime = &checked.decision.criteria[3];
    assert_eq!(
        (runtime.name.as_str(), runtime.measured),
        ("runtime", Some(0.0))
    );
    assert_eq!(checked.decision.eligible_at, None);
    // Totals of the future: nobody knows how old they are. Nobody folds, because somebody holds the lock.
    database
        .execute("UPDATE experiments SET start_date = now() - interval '10 days'")
        .await;
    let held = podium_tests::database::connect(database.url()).await;
    held.batch_execute("SELECT pg_advisory_lock(8101804658767233026)")
        .await
        .unwrap();
    database
        .execute("UPDATE fold_state SET folded_at = now() + interval '1 hour'")
        .await;
    let scanned = scan(&engine).await.unwrap();
    let decision = &scanned.items[0].checked.as_ref().unwrap().decision;
    assert_eq!(decision.verdict, Verdict::Inconclusive);
    assert!(decision.reasons[0].contains("stale"), "{decision:?}");
    assert_eq!(
        database
            .number("SELECT count(*) FROM promotion_looks")
            .await,
        0
    );
    // A lease from the future is held until then, by whoever has it, and by nobody twice.
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let storage = Database::new(database.settings()).unwrap();
    let hour = std::time::Duration::from_secs(3_600);
    assert!(
        leases::take(&storage, leases::WORKER, one, hour)
            .await
            .unwrap()
    );
    assert!(
        !leases::take(&storage, leases::WORKER, other, hour)
            .await
            .unwrap()
    );
    assert!(
        leases::take(&storage, leases::WORKER, one, hour)
            .await
            .unwrap()
    );
}

/// Rows that are missing, or say what cannot be.
#[tokio::test(flavor = "multi_thread")]
async fn missing_and_impossible_rows_promote_nothing() {
    let database = TestDatabase::migrated().await;
    let engine = worker(database.url());
    for (at, (what, damage)) in [
        ("sums", "DELETE FROM variant_moments WHERE experiment_id = {id}"),
        ("sums of the control", "DELETE FROM variant_moments WHERE variant_id = {id}1"),
        ("sums of the winner", "DELETE FROM variant_moments WHERE variant_id = {id}2"),
        ("epochs", "DELETE FROM experiment_epochs WHERE experiment_id = {id}"),
        ("weights", "UPDATE experiment_epochs SET weights = '{}' WHERE experiment_id = {id}"),
        ("control", "UPDATE experiment_variants SET is_control = false WHERE experiment_id = {id}"),
        ("more buyers than units", "UPDATE variant_moments SET units = 2100, purchasing_units = 2400 WHERE variant_id = {id}2"),
        ("squares below sums", "UPDATE variant_moments SET purchasing_units = -1 WHERE variant_id = {id}2"),
        ("capped sums", "UPDATE experiments SET primary_metric = 'revenue_per_user' WHERE id = {id};
                         UPDATE variant_moments SET sum_purchase_value = 100000 WHERE experiment_id = {id}"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = i64::try_from(at).unwrap() + 1;
        database.execute(&statements(id, what, &CLEAR)).await;
        database.execute(&damage.replace("{id}", &id.to_string())).await;
        let refused = engine.promote(&by_person(id), &origin()).await;
        assert!(matches!(&refused, Err(EngineError::NotEligible(_))), "{what}: {refused:?}");
        assert_eq!(traces(&database, id).await, NEVER, "{what}");
    }
    let scanned = scan(&engine).await.unwrap();
    assert_eq!(
        (scanned.eligible(), scanned.promoted()),
        (0, 0),
        "{scanned:?}"
    );
    // Without the row that tells how far folding is, nothing can be said at all.
    database.execute(&statements(20, "fine", &CLEAR)).await;
    database.execute("DELETE FROM fold_state").await;
    let failed = engine.promote(&by_person(20), &origin()).await;
    assert!(matches!(failed, Err(EngineError::Storage(_))), "{failed:?}");
    assert_eq!(scan(&engine).await.unwrap().failed(), 10);
    assert_eq!(traces(&database, 20).await, NEVER);
}

/// Folding goes on, but a transaction that nobody ends keeps events from being folded: the totals are as old as the
/// oldest event that is missing in them, whenever folding ran last.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_transaction_makes_totals_stale_although_folding_runs() {
    let postgres = OwnPostgres::start();
    let database = TestDatabase::on(postgres.url()).await;
    let engine = worker(database.url());
    database.execute(&statements(1, "cta", &CLEAR)).await;
    let old = database.connect().await;
    old.batch_execute("BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    // It came a while ago, and waits behind that transaction.
    database
        .execute(
            "INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id) VALUES ('u', 1, 12);
             INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, created_at)
             VALUES ('1', 'u', 1, 12, 'click', now() - interval '16 minutes')",
        )
        .await;
    let checked = async || {
        let outcome = engine.promote(&by_person(1), &origin()).await;
        match outcome {
            Err(EngineError::NotEligible(checked)) => *checked,
            other => panic!("{other:?}"),
        }
    };
    let refused = checked().await;
    assert_eq!(refused.decision.verdict, Verdict::Inconclusive);
    assert!(
        refused.decision.reasons[0].contains("stale"),
        "{:?}",
        refused.decision.reasons
    );
    assert!(refused.evidence.lag_seconds.unwrap() >= 960.0);
    let folded = "SELECT (now() - folded_at < interval '1 minute')::text FROM fold_state";
    assert_eq!(
        database.text(folded).await,
        "true",
        "folding itself is on time"
    );
    assert_eq!(traces(&database, 1).await, NEVER);
    old.batch_execute("COMMIT").await.unwrap();
    engine.promote(&by_person(1), &origin()).await.unwrap();
    assert_eq!(traces(&database, 1).await[0], "1");
}

/// Somebody changes the experiment between the check and the promotion: it is decided again on what it has become.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_between_check_and_promotion_is_seen() {
    let database = TestDatabase::migrated().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for (at, (what, change, promotes)) in [
        ("paused", "UPDATE experiments SET status = 'paused' WHERE id = {id}", false),
        ("completed", "UPDATE experiments SET status = 'completed' WHERE id = {id}", false),
        // An epoch without units has nothing to say against the winner; it is the new epoch that is promoted from.
        ("weighted anew", "UPDATE experiment_variants SET traffic_weight = 3 WHERE id = {id}2;
            UPDATE experiments SET epoch = 2, version = version + 1 WHERE id = {id};
            INSERT INTO experiment_epochs VALUES ({id}, 2, now(), 100, '{\"{id}1\": \"1\", \"{id}2\": \"3\"}')", true),
        ("unbalanced", "UPDATE variant_moments SET units = 30000, purchasing_units = 3600 WHERE variant_id = {id}2", false),
        ("deleted", "DELETE FROM promotion_looks WHERE experiment_id = {id}; DELETE FROM promotion_analyses WHERE experiment_id = {id};
            DELETE FROM experiments WHERE id = {id}", false),
    ]
    .into_iter()
    .enumerate()
    {
        let id = i64::try_from(at).unwrap() + 1;
        let engine = worker(database.url());
        database.execute(&statements(id, what, &CLEAR)).await;
        if what == "deleted" {
            // Looks cannot be deleted; what deletes an experiment all the same is somebody with the rights to do so.
            database.execute("ALTER TABLE promotion_looks DISABLE TRIGGER USER").await;
        }
        let checked = engine
            .check(&ExperimentRef::Id(id), &Question::of_engine(), &many())
            .await
            .unwrap();
        assert!(checked.decision.is_eligible(), "{what}: {:?}", checked.decision.reasons);
        let other = database.connect().await;
        // Holds what the promotion locks first, and nothing that a look needs.
        other
            .batch_execute(&format!("BEGIN; UPDATE experiments SET updated_at = now() WHERE id = {id}"))
            .await
            .unwrap();
        let (asked, origin) = (by_person(id), origin());
        let change = async {
            eventually("the promotion waits", async || database.number(waiting).await > 0).await;
            other.batch_execute(&change.replace("{id}", &id.to_string())).await.unwrap();
            other.batch_execute("COMMIT").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(engine.promote(&asked, &origin), change);
        if promotes {
            outcome.unwrap();
            let rows = traces(&database, id).await;
            assert_eq!(rows[..4], ONCE[..4], "{what}");
            continue;
        }
        match outcome {
            Err(EngineError::NotEligible(_)) => assert_ne!(what, "deleted"),
            Err(EngineError::NotFound(_)) => assert_eq!(what, "deleted"),
            other => panic!("{what}: {other:?}"),
        }
        let promoted = format!("SELECT count(*) FROM experiment_promotions WHERE experiment_id = {id}");
        assert_eq!(database.number(&promoted).await, 0, "{what}");
    }
}

/// Several processes watch one promotion: a step is taken, a harmful promotion taken back and told of, once.
#[tokio::test(flavor = "multi_thread")]
async fn processes_that_watch_together_do_everything_once() {
    let database = TestDatabase::migrated().await;
    database
        .execute("INSERT INTO notification_configs (user_id, channel, webhook_url) VALUES ('1', 'webhook', 'https://x.example/1')")
        .await;
    let watchers: Vec<Engine> = (0..3).map(|_| worker(database.url())).collect();
    let all = async || {
        let origin = origin();
        let watched = join_all(watchers.iter().map(|engine| engine.watch(&origin))).await;
        watched.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    };
    for round in 1..=10 {
        database
            .execute(&statements(round, &format!("e{round}"), &CLEAR))
            .await;
        let person = by_person(round);
        let conservative = Asked {
            request: Request {
                preset: Some("conservative".to_owned()),
                config: Some(json!({"safetyChecks": {"requireNonInferiority": false}})),
                ..Request::default()
            },
            ..person
        };
        let promoted = watchers[0].promote(&conservative, &origin()).await;
        let id = match promoted {
            Ok(promoted) => promoted.promotion.unwrap().id,
            Err(error) => panic!("round {round}: {error:?}"),
        };
        database
            .execute("UPDATE promotion_rollouts SET step_since = now() - interval '48 hours' WHERE step = 0")
            .await;
        let steps: usize = all().await.iter().map(|watch| watch.ticked.advanced).sum();
        assert_eq!(steps, 1, "round {round}");
        // The held-back buy, those that moved do not.
        database
            .execute(&format!(
                "INSERT INTO promotion_units (experiment_id, unit, promotion_id, converted_step, converted_arm)
                 SELECT {round}, 'u' || n, '{id}', 1, 2 FROM generate_series(1, 60) n"
            ))
            .await;
        let taken_back: usize = all()
            .await
            .iter()
            .map(|watch| watch.rolled_back.len())
            .sum();
        assert_eq!(taken_back, 1, "round {round}");
        let row = database
            .rows(&format!(
                "SELECT (SELECT count(*) FROM ab_promotion_audit_log WHERE experiment_id = {round} AND action = 'rolled_back'),
                        (SELECT count(*) FROM promotion_decisions WHERE experiment_id = {round} AND kind = 'rolled_back'),
                        (SELECT count(*) FROM notification_logs WHERE experiment_name = 'e{round}' AND alert_type = 'rollback'),
                        (SELECT status FROM experiments WHERE id = {round})"
            ))
            .await;
        assert_eq!(row, [["1", "1", "1", "running"]], "round {round}");
        database
            .execute(&format!(
                "UPDATE experiments SET status = 'archived' WHERE id = {round}"
            ))
            .await;
    }
}
