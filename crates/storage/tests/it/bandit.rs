//! Arms learn the same whatever arrives when and how often.

use std::collections::{BTreeMap, HashMap};

use podium_domain::bandit::{ArmType, BanditOptions, Rewards, check_config};
use podium_domain::decimal::Decimal4;
use podium_domain::event::EventType;
use podium_domain::fault::Pointer;
use podium_storage::bandit::learning::begin_ranking;
use podium_storage::bandit::{counts, reset};
use podium_storage::experiments::ChangeError;
use podium_storage::fold;

use crate::folding;
use crate::model::{Raw, Unit};
use crate::stream::Stream;
use crate::support::{Rng, TestDatabase, with_database};

/// Makes the three experiments of a stream learn: the first about its variants, the second about items and brands, the
/// third, from the middle of the stream on, about items.
pub(crate) async fn learn(db: &TestDatabase) {
    db.execute(
        r#"INSERT INTO experiment_variants (id, experiment_id, name)
           SELECT 10 * e + v, e, 'v' || v FROM generate_series(1, 3) AS e, generate_series(0, 1) AS v ON CONFLICT DO NOTHING;
           UPDATE experiments SET experiment_type = 'bandit', config = '{"banditOptions": {"attributionMinutes": 600}}' WHERE id = 1"#,
    )
    .await;
    let items = options(Rewards::any(), 60);
    let weighted = vec![
        (EventType::Click, Decimal4(10_000)),
        (EventType::Purchase, Decimal4(25_000)),
    ];
    let brands = options(Rewards::Weighted(weighted), 1_000);
    begin_ranking(&db.database, 2, ArmType::Item, &items)
        .await
        .unwrap();
    begin_ranking(&db.database, 2, ArmType::Brand, &brands)
        .await
        .unwrap();
}

fn options(rewards: Rewards, attribution_minutes: u32) -> BanditOptions {
    BanditOptions {
        attribution_minutes,
        ..BanditOptions::with_rewards(rewards)
    }
}

async fn some_arm(db: &TestDatabase, rng: &mut Rng) -> Option<(i64, i64)> {
    let sql = "SELECT id, experiment_id FROM bandit_arms ORDER BY arm_type, arm_id, experiment_id";
    let rows = db.client().await.query(sql, &[]).await.unwrap();
    (!rows.is_empty()).then(|| {
        let row = rng.pick(&rows);
        (row.get(0), row.get(1))
    })
}

/// Resets an arm. The first time, the third experiment begins to learn instead.
pub(crate) async fn reset_one(db: &TestDatabase, rng: &mut Rng) -> &'static str {
    let begun = "SELECT count(*) FROM bandit_learning WHERE experiment_id = 3";
    if db.text(begun).await == "0" {
        let value = Rewards::Value {
            event: EventType::Purchase,
            max: Decimal4(1_000_000),
        };
        let rules = options(value, 3_000);
        begin_ranking(&db.database, 3, ArmType::Item, &rules)
            .await
            .unwrap();
        return "begin to learn";
    }
    let Some((arm, experiment)) = some_arm(db, rng).await else {
        return "idle";
    };
    reset_arm(db, experiment, arm).await;
    "reset an arm"
}

async fn reset_arm(db: &TestDatabase, experiment: i64, arm: i64) {
    let outcome: Result<(), ChangeError> = db
        .database
        .transaction(async |tx| reset(tx, experiment, arm).await)
        .await;
    outcome.unwrap();
}

/// Somebody else's code reports a pull.
pub(crate) async fn update_one(db: &TestDatabase, rng: &mut Rng) -> &'static str {
    let Some((arm, _)) = some_arm(db, rng).await else {
        return "idle";
    };
    let success = rng.once_in(3);
    db.execute(&format!(
        "SELECT update_bandit_arm_performance({arm}, 0.25, {success})"
    ))
    .await;
    "report a pull"
}

/// How an experiment learns.
struct Rules {
    experiment: i64,
    arm_type: String,
    attribution: i64,
    rewards: HashMap<String, i128>,
    by_value: bool,
    max: i128,
    tx_id: i64,
}

/// An impression or a reward; times in microseconds, money in 1/10,000.
struct Happened {
    id: i64,
    experiment: i64,
    name: String,
    kind: String,
    item: Option<String>,
    brand: Option<String>,
    value: i128,
    at: i64,
    decision: Option<String>,
    tx_id: i64,
}

impl Happened {
    fn arm(&self, rules: &Rules, unit: &Unit) -> Option<String> {
        match rules.arm_type.as_str() {
            "variant" => Some(unit.variant.to_string()),
            "item" => self.item.clone(),
            _ => self.brand.clone(),
        }
    }
}

/// Impressions and rewards by unit and arm.
type Groups<'h> = BTreeMap<(String, String), (Vec<&'h Happened>, Vec<&'h Happened>)>;
/// Row of an arm and begin of the bucket to pending, pulls, successes, reward and its square.
type Hours = BTreeMap<(i64, i64), [i128; 5]>;

const HOUR: i64 = 3_600_000_000;

async fn rules(db: &TestDatabase) -> Vec<Rules> {
    let sql = "SELECT experiment_id, arm_type, attribution_seconds, rewards::text, by_value, (max_reward * 10000)::bigint, tx_id
        FROM bandit_learning ORDER BY 1, 2";
    let rows = db.client().await.query(sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| {
            let rewards: HashMap<String, String> = serde_json::from_str(row.get(3)).unwrap();
            let units = |text: &str| i128::from(text.parse::<Decimal4>().unwrap().units());
            Rules {
                experiment: row.get(0),
                arm_type: row.get(1),
                attribution: row.get::<_, i64>(2) * 1_000_000,
                rewards: rewards.iter().map(|(k, w)| (k.clone(), units(w))).collect(),
                by_value: row.get(4),
                max: row.get::<_, i64>(5).into(),
                tx_id: row.get(6),
            }
        })
        .collect()
}

async fn happened(db: &TestDatabase) -> Vec<Happened> {
    let sql = "SELECT id, experiment_id, user_id, event_type, item_id, brand_id, (coalesce(value, 0) * 10000)::bigint,
            (extract(epoch FROM occurred_at) * 1000000)::bigint, decision_id, tx_id
        FROM experiment_events WHERE counted";
    let rows = db.client().await.query(sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| Happened {
            id: row.get(0),
            experiment: row.get(1),
            name: row.get(2),
            kind: row.get(3),
            item: row.get(4),
            brand: row.get(5),
            value: row.get::<_, i64>(6).into(),
            at: row.get(7),
            decision: row.get(8),
            tx_id: row.get(9),
        })
        .collect()
}

/// The pull that a reward is credited to.
fn credited<'p>(
    reward: &Happened,
    pulls: &[&'p Happened],
    attribution: i64,
) -> Option<&'p Happened> {
    let named = pulls
        .iter()
        .filter(|pull| reward.decision.is_some() && pull.decision == reward.decision)
        .max_by_key(|pull| (pull.at <= reward.at, -(pull.at - reward.at).abs(), pull.id));
    let latest = pulls
        .iter()
        .filter(|pull| (0..=attribution).contains(&(reward.at - pull.at)))
        .max_by_key(|pull| (pull.at, pull.id));
    named.or(latest).copied()
}

/// The counts of all arms, from the raw rows.
async fn expected(db: &TestDatabase) -> Hours {
    let (raw, rules, happened) = (Raw::read(db).await, rules(db).await, happened(db).await);
    let units = raw.units();
    let client = db.client().await;
    let matured: i64 = client
        .query_one(
            "SELECT (extract(epoch FROM matured_at) * 1000000)::bigint FROM fold_state",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let arms = client
        .query("SELECT experiment_id, arm_type, arm_id, id, (extract(epoch FROM reset_at) * 1000000)::bigint FROM bandit_arms", &[])
        .await
        .unwrap();
    let arms: HashMap<(i64, String, String), (i64, Option<i64>)> = arms
        .iter()
        .map(|row| {
            (
                (row.get(0), row.get(1), row.get(2)),
                (row.get(3), row.get(4)),
            )
        })
        .collect();
    let mut hours = Hours::new();
    for rules in &rules {
        let mut groups = Groups::new();
        for event in &happened {
            if event.experiment != rules.experiment
                || (rules.tx_id != 0 && event.tx_id < rules.tx_id)
            {
                continue;
            }
            let name = raw.unit_of(event.experiment, &event.name);
            let unit = &units[&(event.experiment, name.to_owned())];
            let (Some(arm), false) = (event.arm(rules, unit), unit.excluded) else {
                continue;
            };
            if event.kind != "impression" && !rules.rewards.contains_key(&event.kind) {
                continue;
            }
            let group = groups.entry((arm, name.to_owned())).or_default();
            if event.kind == "impression" {
                group.0.push(event);
            } else {
                group.1.push(event);
            }
        }
        for ((arm, _), (pulls, rewards)) in &groups {
            let arm = arms[&(rules.experiment, rules.arm_type.clone(), arm.clone())];
            count(rules, arm, matured, pulls, rewards, &mut hours);
        }
    }
    hours
}

fn count(
    rules: &Rules,
    (row, reset): (i64, Option<i64>),
    matured: i64,
    pulls: &[&Happened],
    rewards: &[&Happened],
    hours: &mut Hours,
) {
    let mut earned: BTreeMap<(i64, &str), (i64, i64, i128)> = BTreeMap::new();
    for reward in rewards {
        let Some(pull) = credited(reward, pulls, rules.attribution) else {
            continue;
        };
        let amount = if rules.by_value {
            reward.value.min(rules.max)
        } else {
            rules.rewards[&reward.kind]
        };
        let entry = (reward.at, reward.id, amount);
        let first = earned
            .entry((pull.id, reward.kind.as_str()))
            .or_insert(entry);
        *first = entry.min(*first);
    }
    for pull in pulls {
        let kinds: Vec<i128> = earned
            .range((pull.id, "")..=(pull.id, "~"))
            .map(|(_, (_, _, amount))| *amount)
            .collect();
        let hour = pull.at.div_euclid(HOUR) * HOUR;
        let bucket = match reset {
            Some(reset) if pull.at >= reset => hour.max(reset),
            _ => hour,
        };
        let success = !kinds.is_empty();
        let known = success || pull.at + rules.attribution <= matured;
        let reward = kinds.iter().sum::<i128>().min(rules.max);
        let numbers = [
            i128::from(!known),
            known.into(),
            success.into(),
            reward,
            reward * reward,
        ];
        let sums = hours.entry((row, bucket)).or_default();
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += number;
        }
    }
}

async fn live(db: &TestDatabase) -> Hours {
    let sql = "SELECT arm_row_id, (extract(epoch FROM bucket) * 1000000)::bigint, pending, pulls, successes,
            trunc(reward * 10000)::text, trunc(reward_sq * 100000000)::text
        FROM bandit_arm_hours WHERE pending <> 0 OR pulls <> 0 OR successes <> 0 OR reward <> 0 OR reward_sq <> 0";
    let rows = db.client().await.query(sql, &[]).await.unwrap();
    rows.iter()
        .map(|row| {
            let count = |at| i128::from(row.get::<_, i64>(at));
            let sum = |at| row.get::<_, &str>(at).parse::<i128>().unwrap();
            (
                (row.get(0), row.get(1)),
                [count(2), count(3), count(4), sum(5), sum(6)],
            )
        })
        .collect()
}

/// Compares the counts, and the rows of arms and variants that others read, with the raw rows.
pub(crate) async fn check(db: &TestDatabase, label: &str) {
    assert_eq!(
        live(db).await,
        expected(db).await,
        "{label}: counts by hour"
    );
    let wrong = "SELECT string_agg(a.id::text, ' ') FROM bandit_arms a
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(pulls), 0) AS pulls, coalesce(sum(successes), 0) AS wins, coalesce(sum(reward), 0) AS reward
            FROM bandit_arm_hours h WHERE h.arm_row_id = a.id AND h.bucket >= coalesce(a.reset_at, 'epoch')) h
        CROSS JOIN LATERAL (
            SELECT count(*) AS pulls, count(*) FILTER (WHERE success) AS wins, coalesce(sum(reward), 0) AS reward
            FROM bandit_arm_updates u WHERE u.arm_row_id = a.id AND u.created_at >= coalesce(a.reset_at, 'epoch')) u
        LEFT JOIN experiment_variants v ON a.arm_type = 'variant' AND v.id::text = a.arm_id
        WHERE (a.total_pulls, a.total_reward, a.alpha, a.beta)
                <> (h.pulls + u.pulls, h.reward + u.reward, 1 + h.wins + u.wins, 1 + h.pulls + u.pulls - h.wins - u.wins)
           OR (v.pulls, v.rewards, v.average_reward) <> (a.total_pulls, a.total_reward, a.average_reward)";
    let wrong = db.text(wrong).await;
    assert_eq!(
        wrong, "",
        "{label}: rows of arms that differ from their counts"
    );
}

/// An experiment that learns about its two variants from clicks, with `units` assigned to either.
pub(crate) async fn bandit(db: &TestDatabase, id: i64, units: i64, minutes: u32) {
    db.execute(&format!(
        r#"INSERT INTO experiments (id, name, salt, status, experiment_type, primary_metric, config) VALUES
               ({id}, 'bandit {id}', 's', 'running', 'bandit', 'click_through_rate',
                '{{"banditOptions": {{"attributionMinutes": {minutes}}}}}');
           INSERT INTO experiment_variants (id, experiment_id, name, is_control) VALUES
               ({id}0, {id}, 'control', true), ({id}1, {id}, 'b', false);
           INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, assigned_at)
           SELECT 'u' || n, {id}, {id} * 10 + n % 2, now() - interval '10 days' FROM generate_series(1, {units}) AS n"#
    ))
    .await;
}

/// An event of a unit so many minutes ago.
pub(crate) async fn event(
    db: &TestDatabase,
    experiment: i64,
    unit: i64,
    kind: &str,
    id: &str,
    minutes: i64,
) {
    db.execute(&format!(
        "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, occurred_at)
         VALUES ('{id}', 'u{unit}', {experiment}, {experiment} * 10 + {unit} % 2, '{kind}', now() - interval '{minutes} minutes')"
    ))
    .await;
}

/// Pulls, successes and what is pending of the treatment.
pub(crate) async fn arm(db: &TestDatabase, experiment: i64) -> String {
    db.text(&format!(
        "SELECT a.total_pulls || ' pulls, Beta(' || a.alpha || ', ' || a.beta || '), ' ||
                (SELECT coalesce(sum(pending), 0) FROM bandit_arm_hours h WHERE h.arm_row_id = a.id AND h.bucket >= coalesce(a.reset_at, 'epoch')) || ' pending'
         FROM bandit_arms a WHERE a.experiment_id = {experiment} AND a.arm_id = '{experiment}1'"
    ))
    .await
}

#[test]
fn an_impression_fails_when_its_window_has_passed_and_succeeds_whenever_a_reward_comes() {
    with_database(async |db| {
        bandit(db, 5, 4, 30).await;
        event(db, 5, 1, "impression", "i1", 10).await;
        db.fold_all().await;
        assert_eq!(arm(db, 5).await, "0 pulls, Beta(1, 1), 1 pending");
        event(db, 5, 1, "click", "c1", 9).await;
        event(db, 5, 1, "click", "c2", 8).await;
        db.fold_all().await;
        assert_eq!(arm(db, 5).await, "1 pulls, Beta(2, 1), 0 pending");
        event(db, 5, 3, "impression", "i2", 40).await;
        db.fold_all().await;
        assert_eq!(arm(db, 5).await, "2 pulls, Beta(2, 2), 0 pending");
        event(db, 5, 3, "click", "c3", 5).await;
        db.fold_all().await;
        assert_eq!(
            arm(db, 5).await,
            "2 pulls, Beta(2, 2), 0 pending",
            "beyond the window"
        );
        event(db, 5, 3, "click", "c4", 11).await;
        event(db, 5, 3, "click", "c5", 12).await;
        db.fold_all().await;
        event(db, 5, 3, "click", "c6", 35).await;
        db.fold_all().await;
        assert_eq!(
            arm(db, 5).await,
            "2 pulls, Beta(3, 1), 0 pending",
            "late, and in time"
        );
        check(db, "in the end").await;
    });
}

#[test]
fn events_cannot_make_arms_without_end() {
    with_database(async |db| {
        bandit(db, 1, 1, 60).await;
        begin_ranking(&db.database, 1, ArmType::Item, &options(Rewards::any(), 60))
            .await
            .unwrap();
        db.execute(
            "INSERT INTO bandit_arms (experiment_id, arm_type, arm_id) SELECT 1, 'item', n::text FROM generate_series(1, 9999) AS n;
             INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, item_id, occurred_at)
             SELECT item, 'u1', 1, 11, 'impression', item, now() FROM unnest('{b,c,a}'::text[]) AS item",
        )
        .await;
        db.fold_all().await;
        let made = "SELECT string_agg(arm_id, ',') FROM bandit_arms WHERE arm_type = 'item' AND arm_id >= 'a'";
        assert_eq!(
            db.text(made).await,
            "a",
            "the last place is taken, and no more"
        );
    });
}

#[test]
fn windows_pass_without_any_event() {
    with_database(async |db| {
        bandit(db, 5, 2, 30).await;
        event(db, 5, 1, "impression", "i", 29).await;
        db.fold_all().await;
        assert_eq!(arm(db, 5).await, "0 pulls, Beta(1, 1), 1 pending");
        db.execute("UPDATE bandit_pulls SET due_at = now()").await;
        fold::fold_once(&db.database).await.unwrap();
        assert_eq!(arm(db, 5).await, "1 pulls, Beta(1, 2), 0 pending");
    });
}

/// One shopper's history around an impression that comes late: the reward moves from one pull to the other.
#[test]
fn a_late_impression_takes_over_the_reward() {
    with_database(async |db| {
        bandit(db, 5, 2, 600).await;
        event(db, 5, 1, "impression", "first", 100).await;
        event(db, 5, 1, "click", "click", 10).await;
        db.fold_all().await;
        let credited =
            "SELECT e.event_id FROM bandit_rewards r JOIN experiment_events e ON e.id = r.pull_id";
        assert_eq!(db.text(credited).await, "first");
        event(db, 5, 1, "impression", "second", 50).await;
        db.fold_all().await;
        assert_eq!(db.text(credited).await, "second");
        assert_eq!(arm(db, 5).await, "1 pulls, Beta(2, 1), 1 pending");
        check(db, "moved").await;
    });
}

/// The same happenings in many orders, cut into passes anywhere: the same counts, and the same posterior to the bit.
#[test]
fn thirty_orders_of_the_same_events_give_the_same_bits() {
    with_database(async |db| {
        const ORDERS: i64 = 30;
        let mut rng = Rng(7);
        let kinds = ["impression", "impression", "click", "add_to_cart"];
        let events: Vec<(i64, &str, i64)> = (0_i64..40)
            .map(|at| {
                let unit = 1 + i64::try_from(rng.below(4)).unwrap();
                // Distinct moments: where two are equal, the order of arrival decides.
                (unit, *rng.pick(&kinds), 600 + 7 * at)
            })
            .collect();
        for order in 0..ORDERS {
            bandit(db, 100 + order, 4, 45).await;
        }
        let mut queues: Vec<Vec<usize>> = (0..ORDERS)
            .map(|_| {
                let mut queue: Vec<usize> = (0..events.len()).collect();
                for at in (1..queue.len()).rev() {
                    queue.swap(at, usize::try_from(rng.below(at as u64 + 1)).unwrap());
                }
                queue
            })
            .collect();
        let base = db.text("SELECT now()").await;
        while queues.iter().any(|queue| !queue.is_empty()) {
            let mut sql = String::new();
            for (order, queue) in queues.iter_mut().enumerate() {
                for _ in 0..rng.below(9) {
                    let Some(at) = queue.pop() else { break };
                    let (unit, kind, minutes) = events[at];
                    let experiment = 100 + i64::try_from(order).unwrap();
                    sql += &format!(
                        "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, occurred_at)
                         VALUES ('e{at}', 'u{unit}', {experiment}, {experiment} * 10 + {unit} % 2, '{kind}',
                                 '{base}'::timestamptz - interval '{minutes} minutes');"
                    );
                }
            }
            db.execute(&sql).await;
            fold::fold_once(&db.database).await.unwrap();
        }
        db.fold_all().await;
        check(db, "all orders").await;
        let different = "SELECT count(DISTINCT s) FROM (
            SELECT a.experiment_id, string_agg(concat_ws(' ', right(arm_id, 1), bucket, pending, pulls, successes, reward, alpha, beta), ',' ORDER BY arm_id, bucket) AS s
            FROM bandit_arms a JOIN bandit_arm_hours h ON h.arm_row_id = a.id AND h.experiment_id = a.experiment_id
            WHERE pulls + pending > 0 GROUP BY 1) orders";
        assert_eq!(db.text(different).await, "1");
        let successes = "SELECT sum(successes) > 90 FROM bandit_arm_hours";
        assert_eq!(db.text(successes).await, "t");
    });
}

#[test]
fn a_reset_cuts_off_and_deletes_nothing() {
    with_database(async |db| {
        bandit(db, 5, 8, 30).await;
        for unit in [1, 3, 5] {
            event(db, 5, unit, "impression", &format!("i{unit}"), 0).await;
            event(db, 5, unit, "click", &format!("c{unit}"), 0).await;
        }
        db.fold_all().await;
        let row: i64 = db
            .text("SELECT id FROM bandit_arms WHERE arm_id = '51'")
            .await
            .parse()
            .unwrap();
        db.execute(&format!(
            "SELECT update_bandit_arm_performance({row}, 1, true)"
        ))
        .await;
        assert_eq!(arm(db, 5).await, "4 pulls, Beta(5, 1), 0 pending");
        reset_arm(db, 5, row).await;
        assert_eq!(arm(db, 5).await, "0 pulls, Beta(1, 1), 0 pending");
        event(db, 5, 7, "impression", "i7", 0).await;
        event(db, 5, 7, "click", "c7", 0).await;
        db.fold_all().await;
        assert_eq!(arm(db, 5).await, "1 pulls, Beta(2, 1), 0 pending");
        check(db, "after the reset").await;
        let kept = "SELECT sum(pulls) FROM bandit_arm_hours";
        assert_eq!(db.text(kept).await, "4");
        let read = counts::read(&mut db.database.work().await.unwrap(), 5, "variant", false)
            .await
            .unwrap();
        assert_eq!(read.arms[1].history.counts().unwrap().successes(), 1);
    });
}

#[test]
fn reports_of_others_beside_folding_lose_nothing() {
    with_database(async |db| {
        bandit(db, 5, 400, 30).await;
        db.fold_all().await;
        let reports = async {
            let client = db.client().await;
            for _ in 0..300 {
                let sql = "SELECT update_bandit_arm_performance(id, 1, true) FROM bandit_arms";
                client.query(sql, &[]).await.unwrap();
            }
        };
        let events = async {
            for unit in 1..=60 {
                event(db, 5, unit, "impression", &format!("i{unit}"), 40).await;
                fold::fold_once(&db.database).await.unwrap();
            }
        };
        tokio::join!(reports, events);
        db.fold_all().await;
        assert_eq!(arm(db, 5).await, "330 pulls, Beta(301, 31), 0 pending");
        check(db, "in the end").await;
        assert_eq!(db.recount(false).await.differences(), 0);
    });
}

#[test]
fn what_a_crash_left_stale_catches_up() {
    with_database(async |db| {
        bandit(db, 5, 2, 30).await;
        event(db, 5, 1, "impression", "i", 40).await;
        db.fold_all().await;
        // As if the process had ended between the pass and the rows of its arms.
        db.execute(
            "UPDATE bandit_arms SET total_pulls = 0, alpha = 1, beta = 1, folded_pulls = 0, folded_successes = 0;
             INSERT INTO bandit_stale_arms SELECT id FROM bandit_arms",
        )
        .await;
        fold::fold_once(&db.database).await.unwrap();
        check(db, "after the crash").await;
        assert_eq!(arm(db, 5).await, "1 pulls, Beta(1, 2), 0 pending");
    });
}

#[test]
fn tampered_counts_are_found_and_corrected() {
    for tampered in [
        "UPDATE bandit_arm_hours SET successes = successes + 1 WHERE (arm_row_id, bucket) = (SELECT arm_row_id, bucket FROM bandit_arm_hours WHERE pulls > 0 LIMIT 1)",
        "UPDATE bandit_pulls SET outcome = 2 - outcome WHERE (arm_row_id, event_row_id) = (SELECT arm_row_id, event_row_id FROM bandit_pulls WHERE outcome <> 1 LIMIT 1)",
        "DELETE FROM bandit_rewards WHERE (arm_row_id, event_row_id) = (SELECT arm_row_id, event_row_id FROM bandit_rewards LIMIT 1)",
        "UPDATE bandit_arms SET alpha = alpha + 1 WHERE id = (SELECT id FROM bandit_arms LIMIT 1)",
    ] {
        with_database(async |db| {
            Stream::new(db, 31, false).await.run(200).await;
            db.fold_all().await;
            db.execute(tampered).await;
            assert!(db.recount(true).await.differences() > 0, "{tampered}");
            folding::check(db, tampered).await;
        });
    }
}

#[test]
fn options_of_the_tests_are_options() {
    let config = serde_json::json!({"banditOptions": {"attributionMinutes": 600}});
    assert!(check_config(&config, &Pointer::root()).is_ok());
}
