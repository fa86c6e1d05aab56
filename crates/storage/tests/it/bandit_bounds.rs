//! Confidence bounds of variants stand for the pulls of all of them, whoever reported the last one.

use podium_bandit::index::{Index, index_values};
use podium_bandit::{Arms, Counts, Prior};

use crate::bandit::{bandit, event};
use crate::support::{TestDatabase, with_database};

/// What the rows of arms and variants say: pulls, successes, bound.
async fn rows(db: &TestDatabase) -> Vec<(u64, u64, Option<f64>)> {
    let sql = "SELECT a.total_pulls, (a.alpha - 1)::bigint, v.confidence_bound
        FROM bandit_arms a JOIN experiment_variants v ON v.id::text = a.arm_id ORDER BY v.id";
    let rows = db.client().await.query(sql, &[]).await.unwrap();
    let count = |count: i64| u64::try_from(count).unwrap();
    rows.iter()
        .map(|row| (count(row.get(0)), count(row.get(1)), row.get(2)))
        .collect()
}

async fn check(db: &TestDatabase, label: &str) {
    let rows = rows(db).await;
    let counts: Vec<Counts> = rows
        .iter()
        .map(|(pulls, successes, _)| Counts::new(*pulls, *successes).unwrap())
        .collect();
    let wanted = index_values(
        Index::KlUcb { c: 0.0 },
        &Arms::from_counts(Prior::FLAT, &counts),
    );
    for ((pulls, _, bound), wanted) in rows.into_iter().zip(wanted) {
        let wanted = (pulls > 0).then_some(wanted);
        assert_eq!(bound, wanted, "{label}: after {pulls} pulls");
    }
}

/// Both variants have been seen.
async fn seen(db: &TestDatabase) {
    bandit(db, 5, 4, 30).await;
    for (unit, id) in [(1, "i1"), (2, "i2"), (4, "i3")] {
        event(db, 5, unit, "impression", id, 40).await;
    }
    event(db, 5, 2, "click", "c2", 39).await;
    db.fold_all().await;
}

#[test]
fn every_pull_moves_the_bounds_of_all_variants() {
    with_database(async |db| {
        seen(db).await;
        check(db, "folded").await;
        let before = rows(db).await;
        let report = "SELECT update_bandit_arm_performance(id, 0, false) FROM bandit_arms, generate_series(1, 50) WHERE arm_id = '51'";
        db.execute(report).await;
        db.fold_all().await;
        check(db, "reported by others").await;
        assert!(
            rows(db).await[0].2 > before[0].2,
            "nothing but the number of all pulls has changed"
        );
        event(db, 5, 3, "impression", "i4", 40).await;
        db.fold_all().await;
        check(db, "one more impression of the other variant").await;
        // A reward that moves from arm to arm leaves the sums as they are.
        db.execute(
            "UPDATE bandit_arms SET alpha = alpha + CASE arm_id WHEN '50' THEN -1 ELSE 1 END;
             INSERT INTO bandit_stale_arms SELECT id FROM bandit_arms",
        )
        .await;
        db.fold_all().await;
        check(db, "the same sums").await;
    });
}

#[test]
fn a_variant_that_is_held_is_not_waited_for() {
    with_database(async |db| {
        seen(db).await;
        let mut other = db.client().await;
        let held = other.transaction().await.unwrap();
        let report = "SELECT update_bandit_arm_performance(id, 1, true) FROM bandit_arms WHERE arm_id = '50'";
        held.query(report, &[]).await.unwrap();
        event(db, 5, 3, "impression", "i4", 40).await;
        podium_storage::fold::fold_once(&db.database).await.unwrap();
        held.commit().await.unwrap();
        db.fold_all().await;
        check(db, "after the other one has committed").await;
    });
}

/// What others' code makes of one bandit's arms is no reason to leave the bounds of another one.
#[test]
fn impossible_counts_have_no_bounds_and_hold_up_nobody() {
    with_database(async |db| {
        seen(db).await;
        bandit(db, 4, 2, 30).await;
        db.fold_all().await;
        db.execute("UPDATE bandit_arms SET alpha = 1000 WHERE arm_id = '40'")
            .await;
        event(db, 5, 3, "impression", "i4", 40).await;
        db.fold_all().await;
        let bounds = "SELECT string_agg(coalesce(confidence_bound::text, '-'), ' ' ORDER BY id) FROM experiment_variants WHERE experiment_id = 4";
        assert_eq!(db.text(bounds).await, "- -");
        let all = rows(db).await;
        let (a, b) = (all[2], all[3]);
        assert!(a.0 + b.0 == 4 && a.2.is_some() && b.2.is_some(), "{all:?}");
    });
}

/// A bandit whose variants cannot be written is no reason to leave those of another one, nor to stop folding, behind which
/// weights are brought up to date.
#[test]
fn bounds_that_cannot_be_written_hold_up_nobody() {
    with_database(async |db| {
        bandit(db, 4, 2, 30).await;
        seen(db).await;
        db.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''broken''; END';
             CREATE TRIGGER refuse BEFORE UPDATE OF confidence_bound ON experiment_variants
             FOR EACH ROW WHEN (NEW.experiment_id = 4) EXECUTE FUNCTION refuse()",
        )
        .await;
        for (experiment, unit) in [(4, 1), (5, 3)] {
            let id = format!("late {experiment}");
            event(db, experiment, unit, "impression", &id, 40).await;
        }
        let folded = podium_storage::fold::fold_once(&db.database).await.unwrap();
        assert!(folded.caught_up, "{folded:?}");
        db.fold_all().await;
        let bounded = "SELECT string_agg(experiment_id || ': ' || n, ', ' ORDER BY experiment_id) FROM (
            SELECT experiment_id, count(confidence_bound) AS n FROM experiment_variants GROUP BY 1) v";
        assert_eq!(db.text(bounded).await, "4: 0, 5: 2");
        db.execute("DROP TRIGGER refuse ON experiment_variants")
            .await;
        db.fold_all().await;
        assert_eq!(db.text(bounded).await, "4: 1, 5: 2");
    });
}

/// Nor is one whose arms cannot be written.
#[test]
fn arms_that_cannot_be_written_hold_up_nobody() {
    with_database(async |db| {
        bandit(db, 4, 2, 30).await;
        seen(db).await;
        db.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''broken''; END';
             CREATE TRIGGER refuse BEFORE UPDATE ON bandit_arms FOR EACH ROW WHEN (NEW.experiment_id = 4) EXECUTE FUNCTION refuse()",
        )
        .await;
        for (experiment, unit) in [(4, 1), (5, 3)] {
            let id = format!("late {experiment}");
            event(db, experiment, unit, "impression", &id, 40).await;
        }
        let pulls =
            "SELECT string_agg(experiment_id || ': ' || n, ', ' ORDER BY experiment_id) FROM (
            SELECT experiment_id, sum(total_pulls)::bigint AS n FROM bandit_arms GROUP BY 1) a";
        for _ in 0..1_000 {
            // Other databases of the server hold the watermark back.
            podium_storage::fold::fold_once(&db.database).await.unwrap();
            if db.text(pulls).await.ends_with("5: 4") {
                break;
            }
        }
        assert_eq!(db.text(pulls).await, "4: 0, 5: 4");
        db.execute("DROP TRIGGER refuse ON bandit_arms").await;
        db.fold_all().await;
        assert_eq!(db.text(pulls).await, "4: 1, 5: 4");
    });
}
