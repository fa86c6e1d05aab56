//! Impressions and rewards go with their events; what was learned from them stays.

use podium_storage::retention::drop_old;

use crate::bandit::{arm, bandit, event};
use crate::support::{TestDatabase, with_database};

/// Days that events are kept.
const KEPT: i32 = 31;

/// An event of unit `unit` in a week that is long over.
async fn old_event(db: &TestDatabase, unit: i64, kind: &str, id: &str, decision: &str) {
    db.execute(&format!(
        "INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, decision_id, created_at, occurred_at)
         VALUES ('{id}', 'u{unit}', 5, 50 + {unit} % 2, '{kind}', nullif('{decision}', ''),
                 now() - interval '70 days', now() - interval '70 days')"
    ))
    .await;
}

/// The week of seventy days ago, and units that have been there for longer.
async fn long_ago(db: &TestDatabase) {
    db.execute(
        "DO $$
         DECLARE
             week date := date_trunc('week', now() AT TIME ZONE 'UTC' - interval '70 days')::date;
         BEGIN
             EXECUTE format('CREATE TABLE %I PARTITION OF experiment_events FOR VALUES FROM (%L) TO (%L)',
                 'experiment_events_' || to_char(week, 'IYYY\"w\"IW'), week || ' 00:00:00+00', (week + 7) || ' 00:00:00+00');
         END $$;
         UPDATE user_experiment_assignments SET created_at = now() - interval '100 days', assigned_at = now() - interval '100 days'",
    )
    .await;
}

const LEARNED: &str = "SELECT string_agg(h::text, ' ' ORDER BY h) FROM bandit_arm_hours h";
const PULLS: &str = "SELECT count(*) FROM bandit_pulls";
const REWARDS: &str = "SELECT count(*) FROM bandit_rewards";

#[test]
fn old_pulls_go_and_what_was_learned_stays() {
    with_database(async |db| {
        bandit(db, 5, 4, 30).await;
        long_ago(db).await;
        old_event(db, 1, "impression", "i1", "").await;
        old_event(db, 1, "click", "c1", "").await;
        old_event(db, 3, "impression", "i2", "").await;
        // Clicked ten minutes ago, after the answer to a question of long ago.
        old_event(db, 3, "impression", "i3", "d").await;
        event(db, 5, 3, "click", "c3", 10).await;
        db.execute("UPDATE experiment_events SET decision_id = 'd' WHERE event_id = 'c3'")
            .await;
        event(db, 5, 1, "impression", "i4", 40).await;
        db.fold_all().await;
        assert_eq!(arm(db, 5).await, "4 pulls, Beta(3, 3), 0 pending");
        let learned = db.text(LEARNED).await;

        let dropped = drop_old(&db.database, KEPT).await.unwrap();
        assert_eq!(dropped.len(), 1, "{dropped:?}");
        assert_eq!(
            (db.text(PULLS).await, db.text(REWARDS).await),
            ("2".into(), "1".into())
        );
        let left = "SELECT string_agg(coalesce(decision_id, 'new'), ' ' ORDER BY occurred_at) FROM bandit_pulls";
        assert_eq!(
            db.text(left).await,
            "d new",
            "an impression stays as long as one of its rewards"
        );
        assert_eq!(db.text(LEARNED).await, learned);
        assert_eq!(arm(db, 5).await, "4 pulls, Beta(3, 3), 0 pending");

        // A recount leaves the experiment out, finds nothing, and takes nothing away.
        let report = db.recount(true).await;
        assert_eq!(report.differences(), 0, "{report}");
        assert_eq!(report.left_out.len(), 1);
        assert_eq!(db.text(LEARNED).await, learned);

        // Learning goes on, also from a late click on what is still there.
        event(db, 5, 1, "click", "c4", 39).await;
        event(db, 5, 1, "impression", "i5", 35).await;
        db.fold_all().await;
        assert_eq!(arm(db, 5).await, "5 pulls, Beta(4, 3), 0 pending");
        assert!(drop_old(&db.database, KEPT).await.unwrap().is_empty());
        assert_eq!(db.text(PULLS).await, "3");
    });
}

/// Killed between the events and their pulls, it goes on the next time.
#[test]
fn a_drop_that_was_cut_short_is_finished() {
    with_database(async |db| {
        bandit(db, 5, 4, 30).await;
        long_ago(db).await;
        old_event(db, 1, "impression", "i1", "").await;
        db.fold_all().await;
        db.execute("UPDATE fold_state SET dropped_before = now() - interval '40 days'")
            .await;
        assert!(!drop_old(&db.database, KEPT).await.unwrap().is_empty());
        assert_eq!(db.text(PULLS).await, "0");
        assert_eq!(arm(db, 5).await, "1 pulls, Beta(1, 2), 0 pending");
    });
}

/// What a recount still compares keeps its rows, however old they say they are.
#[test]
fn experiments_that_are_recounted_keep_their_pulls() {
    with_database(async |db| {
        bandit(db, 5, 4, 30).await;
        event(db, 5, 1, "impression", "i1", 70 * 24 * 60).await;
        db.execute("UPDATE user_experiment_assignments SET assigned_at = 'epoch'")
            .await;
        db.fold_all().await;
        db.execute("UPDATE fold_state SET dropped_before = now() - interval '40 days'")
            .await;
        assert!(drop_old(&db.database, KEPT).await.unwrap().is_empty());
        assert_eq!(db.text(PULLS).await, "1");
        let report = db.recount(false).await;
        assert_eq!(
            (report.differences(), report.left_out.len()),
            (0, 0),
            "{report}"
        );
    });
}
