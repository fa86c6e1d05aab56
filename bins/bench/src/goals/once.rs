//! Goal 8: what it costs that every event counts once and is folded, and that both hold.

use podium_storage::connect::Purpose;
use podium_storage::rebuild;
use serde_json::{Value, json};

use crate::error::BenchError;
use crate::figures::{Bar, Line, Lines};
use crate::goals::track;
use crate::http::Connection;
use crate::lab::{Half, Lab};
use crate::world::{self, Experiment, TRACK, TRACK_ONE};
use crate::wrk::Script;

/// The lock that lets one replica fold; whoever holds it stops all folding.
const FOLD_LOCK: i64 = 0x706f_6469_756d_0002;

/// A stand-in for the table of keys without what makes keys unique: no index, nothing written ahead. What stays is the
/// statement itself, so the cost of dedupe comes out a little too low, never too high.
const MAKE_BARE: &str =
    "CREATE UNLOGGED TABLE bare_keys (key uuid, created_at timestamptz NOT NULL DEFAULT now())";
const TAKE_BARE: &str = "BEGIN; ALTER TABLE experiment_event_keys RENAME TO real_keys;
ALTER TABLE bare_keys RENAME TO experiment_event_keys; COMMIT";
const TAKE_REAL: &str = "BEGIN; ALTER TABLE experiment_event_keys RENAME TO bare_keys;
ALTER TABLE real_keys RENAME TO experiment_event_keys; COMMIT; TRUNCATE bare_keys";

/// Everything that is derived from the events of an experiment, as one digest.
const DIGEST: &str = "-- bench::digest
SELECT md5(string_agg(line, '|' ORDER BY line)) FROM (
    SELECT t::text AS line FROM unit_totals t WHERE experiment_id = $1
    UNION ALL SELECT t::text FROM unit_days t WHERE experiment_id = $1
    UNION ALL SELECT t::text FROM unit_sessions t WHERE experiment_id = $1
    UNION ALL SELECT t::text FROM variant_moments t WHERE experiment_id = $1
    UNION ALL SELECT t::text FROM variant_hours t WHERE experiment_id = $1
    UNION ALL SELECT t::text FROM variant_dimensions t WHERE experiment_id = $1) AS lines";

/// Requests of a hundred events that are sent twice.
const REPLAYED: usize = 200;

struct Triple {
    bare: Half,
    deduped: Half,
    complete: Half,
}

/// Goal 8.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn measure(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let experiment = track::experiment(lab, "once").await?;
    lab.main.batch_execute(MAKE_BARE).await?;
    load(lab, &experiment).await?;
    let mut triples = Vec::with_capacity(lab.plan.pairs);
    for _ in 0..lab.plan.pairs {
        triples.push(triple(lab, &experiment).await?);
    }
    let mut lines = Lines::of(8);
    let name = "512 connections";
    lines.ratio(
        format!("{name}: rate ÷ without dedupe and folding"),
        Bar::AtLeast(0.85),
        &triples,
        |t| (t.complete.rate, t.bare.rate),
    );
    lines.ratio(
        format!("{name}: rate with dedupe ÷ without both"),
        Bar::Told,
        &triples,
        |t| (t.deduped.rate, t.bare.rate),
    );
    lines.ratio(
        format!("{name}: rate with both ÷ with dedupe"),
        Bar::Told,
        &triples,
        |t| (t.complete.rate, t.deduped.rate),
    );
    lines.add(
        format!("{name}: with both"),
        "events/s",
        Bar::Told,
        triples.iter().map(|t| t.complete.rate),
    );
    lines.add(
        format!("{name}: with both, PostgreSQL's CPU an event"),
        "µs",
        Bar::Told,
        triples.iter().map(|t| t.complete.postgres_us),
    );
    lines.add(
        format!("{name}: without both, PostgreSQL's CPU an event"),
        "µs",
        Bar::Told,
        triples.iter().map(|t| t.bare.postgres_us),
    );
    lines.add(
        format!("{name}: without both"),
        "events/s",
        Bar::Told,
        triples.iter().map(|t| t.bare.rate),
    );
    replay(lab, &mut lines).await?;
    Ok(lines.done())
}

async fn load(lab: &Lab, experiment: &Experiment) -> Result<Half, BenchError> {
    track::checked(
        lab,
        experiment,
        &track::attack(lab, experiment, Script::Track, TRACK_ONE, 512),
        1,
    )
    .await
}

async fn triple(lab: &Lab, experiment: &Experiment) -> Result<Triple, BenchError> {
    world::rest(lab).await?;
    let holder = lab.main_settings.connect(Purpose::Maintain).await?;
    while !holder
        .query_one("SELECT pg_try_advisory_lock($1)", &[&FOLD_LOCK])
        .await?
        .get::<_, bool>(0)
    {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    lab.main.batch_execute(TAKE_BARE).await?;
    let bare = load(lab, experiment).await;
    lab.main.batch_execute(TAKE_REAL).await?;
    world::checkpoint(lab).await?;
    let deduped = load(lab, experiment).await?;
    holder
        .query_one("SELECT pg_advisory_unlock($1)", &[&FOLD_LOCK])
        .await?;
    world::rest(lab).await?;
    Ok(Triple {
        bare: bare?,
        deduped,
        complete: load(lab, experiment).await?,
    })
}

/// Sends the same events twice and compares every total, then all totals of the database with a recount.
async fn replay(lab: &mut Lab, lines: &mut Lines) -> Result<(), BenchError> {
    let experiment = track::experiment(lab, "replay").await?;
    let first = send_all(lab, &experiment).await?;
    let before = digest(lab, &experiment).await?;
    let second = send_all(lab, &experiment).await?;
    let after = digest(lab, &experiment).await?;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    lines.add(
        "replaying every event: events taken for new",
        "",
        Bar::AtMost(0.0),
        [second.new as f64],
    );
    lines.add(
        "replaying every event: totals changed",
        "",
        Bar::AtMost(0.0),
        [f64::from(before != after)],
    );
    if first.new != REPLAYED * 100 {
        return Err(BenchError::Invalid(format!(
            "{} of {} first events were new",
            first.new,
            REPLAYED * 100
        )));
    }
    let report = rebuild::rebuild(&lab.main_settings, false).await?;
    #[expect(clippy::cast_precision_loss, reason = "a count of differing rows")]
    lines.add(
        "rows of totals that differ from a recount of all events",
        "",
        Bar::AtMost(0.0),
        [report.differences() as f64],
    );
    Ok(())
}

struct Sent {
    new: usize,
}

async fn send_all(lab: &Lab, experiment: &Experiment) -> Result<Sent, BenchError> {
    let mut connection = Connection::open(lab.api.authority(), None).await?;
    let mut new = 0;
    for request in 0..REPLAYED {
        let events: Vec<Value> = (0..100)
            .map(|at| event(experiment, request * 100 + at))
            .collect();
        let answer = connection
            .ask("POST", TRACK, &json!({ "events": events }).to_string())
            .await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let results = answer["results"].as_array().cloned().unwrap_or_default();
        if results.len() != 100 || results.iter().any(|result| result["success"] != true) {
            return Err(BenchError::Invalid(
                "an event of a batch was refused".into(),
            ));
        }
        new += results
            .iter()
            .filter(|result| result["duplicate"] == false)
            .count();
    }
    Ok(Sent { new })
}

fn event(experiment: &Experiment, number: usize) -> Value {
    let kind = ["impression", "click", "add_to_cart", "purchase"]
        .get(number % 4)
        .copied()
        .unwrap_or("impression");
    json!({
        "event_type": kind,
        "event_id": format!("{}-{number}", experiment.name),
        "user_id": world::unit('u', i64::try_from(number * 31 % 10_000).unwrap_or_default()),
        "session_id": format!("s{}", number % 17),
        "experiment_id": experiment.id,
        "item_id": number % 50,
        "position": 1 + number % 9,
        "value": 12.5,
    })
}

async fn digest(lab: &Lab, experiment: &Experiment) -> Result<Option<String>, BenchError> {
    world::rest(lab).await?;
    Ok(lab.main.query_one(DIGEST, &[&experiment.id]).await?.get(0))
}
