//! Weights of bandits over variants.

use podium_storage::bandit::weights;

use crate::bandit::bandit;
use crate::support::with_database;

/// A bandit whose counts make no sense keeps its weights, and all others get theirs.
#[test]
fn a_bandit_that_cannot_be_read_holds_up_no_other() {
    with_database(async |db| {
        for id in [4, 5, 6] {
            bandit(db, id, 4, 30).await;
        }
        db.fold_all().await;
        db.execute(
            "UPDATE experiments SET epoch = 1;
             INSERT INTO experiment_epochs (experiment_id, epoch, traffic_allocation, weights)
             SELECT e.id, 1, 100, jsonb_build_object(10 * e.id, '1', 10 * e.id + 1, '1') FROM experiments e;
             INSERT INTO bandit_arm_hours (arm_row_id, bucket, experiment_id, pending)
             SELECT id, date_trunc('hour', now()), experiment_id, -1 FROM bandit_arms WHERE arm_id = '51'",
        )
        .await;
        assert_eq!(weights::update(&db.database).await.unwrap(), 2);
        let epochs = "SELECT string_agg(id || ': ' || epoch, ', ' ORDER BY id) FROM experiments";
        assert_eq!(db.text(epochs).await, "4: 2, 5: 1, 6: 2");
        let mended = "DELETE FROM bandit_arm_hours WHERE pending < 0";
        db.execute(mended).await;
        assert_eq!(weights::update(&db.database).await.unwrap(), 1);
    });
}
