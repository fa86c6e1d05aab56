//! Groups of any size are recorded alike: small ones by one statement, large ones by COPY.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use podium_storage::batch::RunGroup;
use podium_storage::events::{
    Arm, EventRow, Promoted, RecordAnswer, Recorded, Recorder, event_key,
};

use crate::support::{TestDatabase, with_database};

/// More than are inserted by one statement, and than are copied by one or two.
const MANY: usize = 600;

/// Rows that differ in everything, with the extremes of every column among them.
fn row(number: usize, experiment_id: i64) -> EventRow {
    const MAX_E4: i64 = 9_999_999_999_999_999;
    let nth = i64::try_from(number).unwrap();
    let some = |of: usize| number.is_multiple_of(of);
    let text = |name: &str| Some(format!("{name} é {number}"));
    let event_id = format!("event {number}");
    EventRow {
        key: event_key(experiment_id, &event_id),
        event_id,
        unit: format!("u{number}"),
        experiment_id,
        variant_id: nth,
        event_type: "purchase",
        item_id: text("item").filter(|_| some(2)),
        brand_id: text("brand").filter(|_| some(3)),
        position: Some(i32::try_from(number).unwrap()).filter(|_| some(2)),
        module_id: text("module").filter(|_| some(5)),
        event_data: some(2).then(|| {
            Bytes::from(format!(
                "{{\"n\": {number}, \"deep\": [{{}}, \"é\\\"\", null, 1e3]}}"
            ))
        }),
        value_e4: [
            Some(0),
            Some(1),
            Some(9_999),
            Some(10_000),
            Some(-10_001),
            Some(123_456_789),
            Some(100_000_000),
            Some(MAX_E4),
            Some(-MAX_E4),
            None,
        ][number % 10],
        quantity: Some(i32::MAX).filter(|_| some(3)),
        latency_ms: Some(0.1 * 1.5).filter(|_| some(4)),
        is_error: Some(some(8)).filter(|_| some(4)),
        session_id: text("session").filter(|_| some(2)),
        decision_id: text("decision").filter(|_| some(7)),
        is_bot: some(9),
        counted: !some(9),
        occurred_at: DateTime::<Utc>::from_timestamp_micros(1_700_000_000_000_001 + nth)
            .filter(|_| some(2)),
        promotion: some(2).then(|| Promoted {
            promotion_id: uuid::Uuid::from_u128(number as u128),
            step: i32::try_from(number).unwrap(),
            arm: [
                None,
                Some(Arm::Own),
                Some(Arm::Moved),
                Some(Arm::HeldBack),
                Some(Arm::Winner),
            ][number / 2 % 5],
        }),
    }
}

async fn record(db: &TestDatabase, jobs: Vec<Vec<EventRow>>) -> Vec<RecordAnswer> {
    Recorder::new(db.database.clone()).run(jobs).await
}

/// Everything that is recorded, without what depends on the moment.
async fn recorded(db: &TestDatabase, experiment_id: i64) -> Vec<String> {
    let rows = db
        .client()
        .await
        .query(
            "SELECT (to_jsonb(e) - 'id' - 'experiment_id' - 'created_at' - 'tx_id' || jsonb_build_object(
                 'exact', e.value::text, 'at', CASE WHEN e.occurred_at = e.created_at THEN 'arrival' END,
                 'occurred_at', CASE WHEN e.occurred_at <> e.created_at THEN e.occurred_at END,
                 'own', e.tx_id = e.xmin::text::bigint))::text
             FROM experiment_events e WHERE experiment_id = $1 ORDER BY variant_id, event_id",
            &[&experiment_id],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_copied_group_leaves_the_rows_of_an_inserted_one() {
    with_database(async |db| {
        for number in 0..MANY {
            let answers = record(db, vec![vec![row(number, 1)]]).await;
            assert_eq!(answers, [Ok(vec![Recorded::New])]);
        }
        let jobs: Vec<Vec<EventRow>> = (0..MANY).map(|number| vec![row(number, 2)]).collect();
        assert_eq!(record(db, jobs).await, vec![Ok(vec![Recorded::New]); MANY]);
        let (inserted, copied) = (recorded(db, 1).await, recorded(db, 2).await);
        assert_eq!(inserted.len(), MANY);
        assert_eq!(inserted, copied);
        assert!(inserted.iter().all(|row| row.contains("\"own\": true")));
    });
}

/// A group is copied as if its ids were new; one that was there makes the recorder look, in this group and the next ones.
#[test]
fn an_id_that_was_there_changes_the_manner_and_not_the_outcome() {
    with_database(async |db| {
        let recorder = Recorder::new(db.database.clone());
        let jobs = |from: usize| -> Vec<Vec<EventRow>> {
            (from..from + MANY).map(|n| vec![row(n, 1)]).collect()
        };
        for (from, old) in [
            (0, 0),
            (MANY, 0),
            (MANY + 1, MANY - 1),
            (2, MANY),
            (3 * MANY / 2, MANY / 2 + 1),
            (3 * MANY, 0),
        ] {
            let mut jobs = jobs(from);
            // One id of each group stands in it twice.
            jobs.push(vec![row(from + MANY - 1, 1)]);
            let answers = recorder.run(jobs).await;
            let told = |what: Recorded| answers.iter().filter(|a| **a == Ok(vec![what])).count();
            assert_eq!(
                (told(Recorded::New), told(Recorded::Duplicate)),
                (MANY - old, old + 1),
                "{from}"
            );
        }
        let counts = db
            .client()
            .await
            .query_one(
                "SELECT (SELECT count(*) FROM experiment_event_keys), count(*), count(DISTINCT event_id) FROM experiment_events",
                &[],
            )
            .await
            .unwrap();
        let counts: [i64; 3] = [counts.get(0), counts.get(1), counts.get(2)];
        assert_eq!(counts, [i64::try_from(7 * MANY / 2).unwrap(); 3]);
    });
}

#[test]
fn an_id_that_was_there_is_found_in_the_last_part_of_a_group() {
    with_database(async |db| {
        let last = (0..MANY).max_by_key(|n| row(*n, 1).key).unwrap();
        record(db, vec![vec![row(last, 1)]]).await;
        let jobs = (0..MANY).map(|n| vec![row(n, 1)]).collect();
        for (number, answer) in record(db, jobs).await.into_iter().enumerate() {
            let expected = if number == last {
                Recorded::Duplicate
            } else {
                Recorded::New
            };
            assert_eq!(answer, Ok(vec![expected]), "{number}");
        }
        assert_eq!(recorded(db, 1).await.len(), MANY);
    });
}

/// A COPY that is refused before it takes data leaves an answer behind that nobody waits for.
#[test]
fn a_connection_whose_copy_was_refused_is_used_no_more() {
    with_database(async |db| {
        let admin = db.client().await;
        let read_only = async |setting: &str| {
            let name = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I ";
            let statement = format!("{name}{setting}', current_database()); END $$");
            admin.batch_execute(&statement).await.unwrap();
        };
        let recorder = Recorder::new(db.database.clone());
        let jobs = |from: usize| -> Vec<Vec<EventRow>> {
            (from..from + MANY).map(|n| vec![row(n, 1)]).collect()
        };
        read_only("SET default_transaction_read_only = on").await;
        let refused = recorder.run(jobs(0)).await;
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
        read_only("RESET default_transaction_read_only").await;
        for from in [0, MANY] {
            let answers = recorder.run(jobs(from)).await;
            assert_eq!(answers, vec![Ok(vec![Recorded::New]); MANY], "{from}");
        }
        assert_eq!(recorded(db, 1).await.len(), 2 * MANY);
    });
}

#[test]
fn a_copied_group_records_each_id_once() {
    with_database(async |db| {
        let first: Vec<Vec<EventRow>> = (0..MANY / 2).map(|n| vec![row(n, 1)]).collect();
        record(db, first).await;
        // Old ids, new ones, and one of them twice.
        let mut again: Vec<Vec<EventRow>> = (0..MANY).map(|n| vec![row(n, 1)]).collect();
        again.push(vec![row(MANY - 1, 1), row(0, 1)]);
        let answers = record(db, again.clone()).await;
        for (number, answer) in answers.iter().take(MANY).enumerate() {
            let expected = if number < MANY / 2 {
                Recorded::Duplicate
            } else {
                Recorded::New
            };
            assert_eq!(*answer, Ok(vec![expected]), "{number}");
        }
        assert_eq!(answers[MANY], Ok(vec![Recorded::Duplicate; 2]));
        assert_eq!(recorded(db, 1).await.len(), MANY);
        let answers = record(db, again).await;
        assert!(
            answers
                .iter()
                .flatten()
                .flatten()
                .all(|row| *row == Recorded::Duplicate)
        );
        assert_eq!(recorded(db, 1).await.len(), MANY);
    });
}

#[test]
fn a_bad_row_of_a_copied_group_harms_only_its_own_job() {
    with_database(async |db| {
        let mut jobs: Vec<Vec<EventRow>> = (0..MANY).map(|n| vec![row(n, 1)]).collect();
        jobs[77][0].event_data = Some(Bytes::from_static(b"{\"nul\": \"\\u0000\"}"));
        let answers = record(db, jobs).await;
        for (number, answer) in answers.iter().enumerate() {
            let expected = if number == 77 {
                Recorded::Refused
            } else {
                Recorded::New
            };
            assert_eq!(*answer, Ok(vec![expected]), "{number}");
        }
        assert_eq!(recorded(db, 1).await.len(), MANY - 1);
        // The connection is fit for use again, and the refused id is free.
        assert_eq!(
            record(db, vec![vec![row(77, 1)]]).await,
            [Ok(vec![Recorded::New])]
        );
    });
}

#[test]
fn a_bad_row_harms_no_other_row_of_its_job() {
    with_database(async |db| {
        let mut job: Vec<EventRow> = (0..MANY).map(|n| row(n, 1)).collect();
        for bad in [0, 77, MANY - 1] {
            job[bad].event_data = Some(Bytes::from_static(b"{\"nul\": \"\\u0000\"}"));
        }
        let answers = record(db, vec![job, vec![row(MANY, 1)]]).await;
        let rows = answers[0].as_ref().unwrap();
        for (number, row) in rows.iter().enumerate() {
            let is_bad = [0, 77, MANY - 1].contains(&number);
            assert_eq!(*row == Recorded::Refused, is_bad, "{number}");
        }
        assert_eq!(answers[1], Ok(vec![Recorded::New]));
        assert_eq!(recorded(db, 1).await.len(), MANY + 1 - 3);
    });
}
