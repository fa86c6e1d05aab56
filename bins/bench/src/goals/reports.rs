//! Goal 9: how long a report takes over many events, beside few.

use std::time::{Duration, Instant};

use podium_storage::rebuild;

use crate::error::BenchError;
use crate::figures::{Bar, Line, Lines, percentile};
use crate::http::Connection;
use crate::lab::Lab;
use crate::world::{self, Experiment};
use crate::wrk::{Attack, Script};

/// Events of the small experiment.
const FEW: i64 = 10_000;
/// Rows of one inserting transaction.
const CHUNK: i64 = 50_000;
/// Events of a unit.
const EVENTS_OF_A_UNIT: i64 = 20;
/// Requests of one half of a pair.
const REQUESTS: usize = 20;
const FOLD_LIMIT: Duration = Duration::from_secs(3 * 3600);

const ASSIGNMENTS: &str = "-- bench::generate_assignments
INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id, assigned_at, tx_id)
SELECT 'g' || n, $1, CASE WHEN n % 2 = 0 THEN $2::bigint ELSE $3::bigint END, now() - interval '15 days',
    (SELECT pg_current_xact_id()::text::bigint)
FROM generate_series(0::bigint, $4::bigint - 1) AS g (n)";

/// Impressions, clicks, additions to the cart and purchases of two weeks, over a thousand items and twenty positions.
const EVENTS: &str = "-- bench::generate_events
INSERT INTO experiment_events (event_id, user_id, experiment_id, variant_id, event_type, item_id, brand_id, position, value,
    quantity, session_id, occurred_at, tx_id)
SELECT $1::bigint || '-' || n, 'g' || n % $4::bigint, $1, CASE WHEN n % $4::bigint % 2 = 0 THEN $2::bigint ELSE $3::bigint END,
    CASE WHEN h < 70 THEN 'impression' WHEN h < 90 THEN 'click' WHEN h < 96 THEN 'add_to_cart' ELSE 'purchase' END,
    (n * 31 % 1000)::text, (n * 31 % 100)::text, (1 + n * 17 % 20)::integer,
    CASE WHEN h >= 96 THEN (1 + n % 20000)::numeric / 100 END, CASE WHEN h >= 90 THEN 1 END,
    'g' || n % $4::bigint || '-' || n % 3, now() - make_interval(secs => (n * 7919 % 1209600)::double precision),
    (SELECT pg_current_xact_id()::text::bigint)
FROM (SELECT n, (hashint8(n) & 2147483647) % 100 AS h FROM generate_series($5::bigint, $6::bigint - 1) AS g (n)) AS numbers";

/// Goal 9.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn measure(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let made = world::experiments(lab, "reports", 2, [1, 1]).await?;
    let [few, many] = made.as_slice() else {
        return Ok(Vec::new());
    };
    let events = lab.plan.events;
    let mut lines = Lines::of(9);
    fill(lab, few, FEW).await?;
    fill(lab, many, events).await?;
    let began = Instant::now();
    folded(lab).await?;
    #[expect(clippy::cast_precision_loss, reason = "counts of events")]
    lines.add(
        "folding what was written at once",
        "events/s",
        Bar::Told,
        [events as f64 / began.elapsed().as_secs_f64()],
    );
    world::checkpoint(lab).await?;
    for route in ["report", "performance"] {
        let (few, many) = (path(few, route), path(many, route));
        let mut pairs = Vec::new();
        for _ in 0..lab.plan.pairs {
            let yardstick = median_ms(lab, &few).await?;
            pairs.push((yardstick, median_ms(lab, &many).await?));
        }
        lines.ratio(
            format!("{route}: time at {events} events ÷ at {FEW}"),
            Bar::AtMost(2.0),
            &pairs,
            |p| (p.1, p.0),
        );
        lines.add(
            format!("{route}: time at {events} events"),
            "ms",
            Bar::Told,
            pairs.iter().map(|p| p.1),
        );
        lines.add(
            format!("{route}: time at {FEW} events"),
            "ms",
            Bar::Told,
            pairs.iter().map(|p| p.0),
        );
        let p99 = p99_at_64(lab, many).await?;
        lines.add(
            format!("{route}: p99 at 64 connections, {events} events"),
            "ms",
            Bar::AtMost(500.0),
            [p99],
        );
    }
    let report = rebuild::rebuild(&lab.main_settings, false).await?;
    #[expect(clippy::cast_precision_loss, reason = "a count of differing rows")]
    lines.add(
        "rows of totals that differ from a recount of all events",
        "",
        Bar::AtMost(0.0),
        [report.differences() as f64],
    );
    Ok(lines.done())
}

fn path(experiment: &Experiment, route: &str) -> String {
    format!("/api/v1/admin/experiments/{}/{route}", experiment.id)
}

async fn fill(lab: &Lab, experiment: &Experiment, events: i64) -> Result<(), BenchError> {
    let [control, treatment] = experiment.variants.as_slice() else {
        return Ok(());
    };
    let units = (events / EVENTS_OF_A_UNIT).max(2);
    lab.main
        .execute(ASSIGNMENTS, &[&experiment.id, control, treatment, &units])
        .await?;
    let statement = lab.main.prepare(EVENTS).await?;
    let mut from = 0;
    while from < events {
        let to = (from + CHUNK).min(events);
        lab.main
            .execute(
                &statement,
                &[&experiment.id, control, treatment, &units, &from, &to],
            )
            .await?;
        from = to;
    }
    Ok(())
}

/// Waits until the API has folded everything; that takes long where there is much.
async fn folded(lab: &Lab) -> Result<(), BenchError> {
    let until = Instant::now() + FOLD_LIMIT;
    loop {
        match world::rest(lab).await {
            Err(BenchError::TooLate(_)) if Instant::now() < until => {}
            outcome => return outcome,
        }
    }
}

async fn median_ms(lab: &Lab, path: &str) -> Result<f64, BenchError> {
    let mut connection = Connection::open(lab.api.authority(), Some(&lab.token)).await?;
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let began = Instant::now();
        connection.ask("GET", path, "").await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(percentile(&mut times, 0.5))
}

async fn p99_at_64(lab: &Lab, path: String) -> Result<f64, BenchError> {
    let attack = Attack {
        script: Script::Get,
        args: vec![lab.token.clone()],
        path: path.into(),
        connections: 64,
        seconds: lab.plan.seconds,
    };
    Ok(lab.attack(&lab.api, &attack).await?.p99_ms)
}
