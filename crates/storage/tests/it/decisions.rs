//! What rankings answered: kept in groups, each on its own where one is refused, and dropped with its week.

use podium_bandit::Counts;
use podium_domain::bandit::ArmType;
use podium_storage::arms;
use podium_storage::batch::RunGroup;
use podium_storage::decisions::{Decision, Keeper, NewArm};
use podium_storage::retention;
use uuid::Uuid;

use crate::support::{TestDatabase, with_database};

fn decision(number: u128, unit: &str, arms: &[&str]) -> Decision {
    let new = |arm: &&str| NewArm {
        arm_id: (*arm).to_owned(),
        name: None,
        metadata: Some(r#"{"a": 1}"#.to_owned()),
    };
    Decision {
        id: Uuid::from_u128(number),
        experiment_id: 1,
        variant_id: 2,
        unit: unit.to_owned(),
        arm_type: ArmType::Item,
        policy: "uniform",
        snapshot_version: Some(3),
        candidates: arms.iter().map(|arm| (*arm).to_owned()).collect(),
        placed: vec![1, 0],
        propensities: Some(vec![0.25, 0.75]),
        excluded: false,
        new_arms: arms.iter().map(new).collect(),
    }
}

async fn experiment(db: &TestDatabase) {
    db.execute("INSERT INTO experiments (id, name, salt, status) VALUES (1, 'e', 'e', 'running')")
        .await;
}

#[test]
fn a_refused_decision_harms_only_itself() {
    with_database(async |db| {
        experiment(db).await;
        let keeper = Keeper::new(db.database.clone());
        let jobs = vec![
            decision(1, "a", &["x", "y"]),
            decision(2, "with \0", &["x", "z"]),
            decision(3, "c", &["y", "z"]),
        ];
        assert_eq!(keeper.run(jobs).await, [true, false, true]);
        let kept = "SELECT string_agg(unit || ' ' || candidates[placed[1] + 1] || ' ' || propensities[2], ',' ORDER BY unit) FROM bandit_decisions";
        assert_eq!(db.text(kept).await, "a y 0.75,c z 0.75");
        let arms = "SELECT string_agg(arm_id || ' ' || metadata::text, ',' ORDER BY arm_id) FROM bandit_arms";
        assert_eq!(db.text(arms).await, r#"x {"a": 1},y {"a": 1},z {"a": 1}"#);
    });
}

#[test]
fn storefronts_cannot_make_arms_without_end() {
    with_database(async |db| {
        experiment(db).await;
        db.execute(
            "INSERT INTO bandit_arms (experiment_id, arm_type, arm_id) SELECT 1, 'item', n::text FROM generate_series(1, 9999) AS n",
        )
        .await;
        let keeper = Keeper::new(db.database.clone());
        let jobs = vec![decision(1, "a", &["y", "z"]), decision(2, "b", &["x", "y"])];
        assert_eq!(keeper.run(jobs).await, [true, true]);
        let made = "SELECT string_agg(arm_id, ',') FROM bandit_arms WHERE arm_id >= 'a'";
        assert_eq!(
            db.text(made).await,
            "x",
            "the last place is taken, and no more"
        );
    });
}

#[test]
fn decisions_go_with_their_week() {
    with_database(async |db| {
        experiment(db).await;
        let keeper = Keeper::new(db.database.clone());
        assert_eq!(
            keeper.run(vec![decision(1, "a", &["x", "y"])]).await,
            [true]
        );
        assert_eq!(
            retention::create_partitions(&db.database).await.unwrap(),
            0,
            "they are there"
        );
        db.execute(
            "CREATE TABLE bandit_decisions_2020w10 PARTITION OF bandit_decisions
                 FOR VALUES FROM ('2020-03-02 00:00:00+00') TO ('2020-03-09 00:00:00+00');
             INSERT INTO bandit_decisions (decision_id, experiment_id, variant_id, unit, arm_type, policy, candidates, placed, decided_at)
             VALUES (gen_random_uuid(), 1, 2, 'old', 'item', 'thompson', '{x}', '{0}', '2020-03-03')",
        )
        .await;
        let dropped = retention::drop_old(&db.database, 30).await.unwrap();
        assert_eq!(dropped, ["bandit_decisions_2020w10"]);
        assert_eq!(
            db.text("SELECT string_agg(unit, ',') FROM bandit_decisions")
                .await,
            "a"
        );
    });
}

/// Only what the algorithm `uniform` has placed says something about positions; rewards of arms are counted wherever.
#[test]
fn positions_are_read_from_randomised_traffic() {
    with_database(async |db| {
        experiment(db).await;
        let keeper = Keeper::new(db.database.clone());
        let mut adaptive = decision(2, "u", &["x", "y"]);
        adaptive.policy = "thompson";
        let jobs = vec![decision(1, "u", &["x", "y"]), adaptive];
        assert_eq!(keeper.run(jobs).await, [true, true]);
        db.execute(
            "INSERT INTO bandit_pulls (arm_row_id, event_row_id, experiment_id, unit, occurred_at, due_at, decision_id, position, bucket, outcome)
             SELECT a.id, 10 * d.n + p.position, 1, 'u', now(), now() - interval '1 minute', d.id, p.position, date_trunc('hour', now()),
                    CASE WHEN p.position = 2 THEN 2 ELSE 1 END
             FROM bandit_arms a, (VALUES (1, '00000000-0000-0000-0000-000000000001'), (2, '00000000-0000-0000-0000-000000000002')) AS d (n, id),
                  generate_series(1, 3) AS p (position)
             WHERE a.arm_id = 'x';
             INSERT INTO bandit_pulls (arm_row_id, event_row_id, experiment_id, unit, occurred_at, due_at, decision_id, position, bucket, outcome)
             SELECT a.id, 100, 1, 'u', now(), now() + interval '1 minute', '00000000-0000-0000-0000-000000000001', 1, date_trunc('hour', now()), 2
             FROM bandit_arms a WHERE a.arm_id = 'x';
             UPDATE fold_state SET matured_at = now()",
        )
        .await;
        let mut link = db.database.work().await.unwrap();
        // One was rewarded while its window runs: others like it may not be, and are not known yet.
        let found = arms::randomised(&mut link, 1, ArmType::Item).await.unwrap();
        let counts = |pulls, successes| Counts::new(pulls, successes).unwrap();
        assert_eq!(found, [counts(1, 0), counts(1, 1), counts(1, 0)]);
        let rewarded = arms::rewarded(&mut link, 1, ArmType::Item).await.unwrap();
        assert_eq!(rewarded.into_values().collect::<Vec<_>>(), [vec![1, 2]]);
    });
}
