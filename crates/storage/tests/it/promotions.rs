//! Looks are recorded once a slot and never changed, one worker scans at a time, and a promotion is whole or not at all.

use chrono::{DateTime, Utc};
use podium_domain::decision::design::{DesignInput, DesignSettings, FrozenDesign};
use podium_domain::decision::look::Look;
use podium_domain::metric::Metric;
use podium_storage::promotions::analyses::{self, NewLooks, StoredAnalysis, StoredLook};
use podium_storage::promotions::scan;
use serde_json::json;

use crate::support::{TestDatabase, with_database};

async fn experiment(db: &TestDatabase) {
    db.execute(
        "INSERT INTO experiments (id, name, status, start_date, salt, epoch) VALUES (1, 'e', 'running', '2026-01-01', 'e', 1);
         INSERT INTO experiment_variants (id, experiment_id, name, is_control) VALUES (11, 1, 'control', true), (12, 1, 'b', false)",
    )
    .await;
}

fn started() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn design() -> FrozenDesign {
    FrozenDesign::new(DesignInput {
        metric: Metric::ConversionRate,
        winsorize_upper: None,
        cap: None,
        treatments: 1,
        settings: DesignSettings {
            min_detectable_effect: Some(0.1),
            horizon_days: None,
            look_every_hours: 6,
        },
        min_sample_size: 2_000,
        min_runtime_hours: 24.0,
        min_improvement: 5.0,
    })
    .unwrap()
}

/// Looks of the slots `0..=last`, of which only the last one was asked for.
fn looks(last: i64, known: i64) -> NewLooks {
    let look = |slot: i64| StoredLook {
        variant_id: 12,
        look: Look {
            slot,
            time: started(),
            information: 0.1 * (slot + 1) as f64,
            spending_time: 1.0 / 3.0,
            z: (slot == last).then_some(1.234_567_890_123_456_7),
            lift: (slot == last).then_some(0.1),
            bound: Some(2.5),
            p: 0.3,
            level: 0.05,
        },
    };
    NewLooks {
        experiment_id: 1,
        analysis: StoredAnalysis {
            number: 1,
            from_epoch: 1,
            started_at: started(),
            unspent: 1.0,
            design: Some(design()),
            looks: known,
        },
        looks: (known..=last).map(look).collect(),
        settings: json!({"preset": "balanced"}),
        actor: "1".to_owned(),
    }
}

#[test]
fn of_concurrent_scans_one_takes_the_look_of_a_slot() {
    with_database(async |db| {
        experiment(db).await;
        let (first, second, third) = (looks(2, 0), looks(2, 0), looks(2, 0));
        let (a, b, c) = tokio::join!(
            analyses::record(&db.database, &first),
            analyses::record(&db.database, &second),
            analyses::record(&db.database, &third),
        );
        let recorded = [a, b, c].map(|outcome| outcome.unwrap());
        assert_eq!(recorded.iter().filter(|recorded| **recorded).count(), 1);
        let mut link = db.database.serve().await.unwrap();
        let stored = analyses::looks(&mut link, 1, 1).await.unwrap();
        // To the last bit: they are computed with again.
        assert_eq!(stored, first.looks);
        let open = analyses::open(&mut link, 1).await.unwrap().unwrap();
        assert_eq!((open.looks, open.design), (3, Some(design())));
        assert!(analyses::record(&db.database, &looks(4, 3)).await.unwrap());
        assert!(!analyses::record(&db.database, &looks(4, 3)).await.unwrap());
    });
}

#[test]
fn a_design_stays_frozen_and_looks_stay_as_they_are() {
    with_database(async |db| {
        experiment(db).await;
        assert!(analyses::record(&db.database, &looks(0, 0)).await.unwrap());
        let mut other = looks(1, 1);
        other.analysis.design = Some(FrozenDesign {
            min_sample_size: 1,
            ..design()
        });
        assert!(!analyses::record(&db.database, &other).await.unwrap());
        for sql in [
            "UPDATE promotion_looks SET p = 0",
            "DELETE FROM promotion_looks",
        ] {
            let refused = db.client().await.batch_execute(sql).await.unwrap_err();
            assert!(
                format!("{refused:?}").contains("never changed"),
                "{refused:?}"
            );
        }
    });
}

#[test]
fn one_worker_scans_at_a_time() {
    with_database(async |db| {
        let lock = async || scan::lock(&db.database).await.unwrap();
        let first = lock().await.unwrap();
        assert!(lock().await.is_none());
        first.release().await;
        let second = lock().await.unwrap();
        drop(second);
        // The connection closes in its own time.
        while scan::lock(&db.database).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    });
}
