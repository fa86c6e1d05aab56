//! Goals 5 and 6: events, acknowledged after their commit.

use crate::error::BenchError;
use crate::figures::{Bar, Line, Lines};
use crate::lab::{Half, Lab};
use crate::world::{self, Experiment, TRACK, TRACK_ONE, UNITS};
use crate::wrk::{Attack, Script};
use crate::yardstick::{self, Table};

const COUNT: &str = "-- bench::count_events
SELECT count(*) FROM experiment_events WHERE experiment_id = $1";

struct Pair {
    insert: f64,
    copy: f64,
    both: f64,
    /// One INSERT a request; only where a request is one event.
    inserting: Option<Half>,
    echo: Half,
    api: Half,
}

/// Goal 5.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn one(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let experiment = experiment(lab, "one").await?;
    let mut lines = Lines::of(5);
    for (connections, name, copy, insert) in [
        (512, "512 connections", Bar::AtLeast(0.4), Bar::AtLeast(4.0)),
        (64, "64 connections", Bar::Told, Bar::Told),
    ] {
        let pairs = pairs(lab, &experiment, Script::Track, TRACK_ONE, connections).await?;
        tell(&mut lines, name, 1.0, &pairs, copy, insert);
        lines.ratio(
            format!("{name}: CPU ÷ echo-ack's"),
            Bar::Told,
            &pairs,
            |p| (p.api.cpu_us, p.echo.cpu_us),
        );
    }
    Ok(lines.done())
}

/// Goal 6.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn hundred(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let experiment = experiment(lab, "hundred").await?;
    let mut lines = Lines::of(6);
    let pairs = pairs(lab, &experiment, Script::Batch, TRACK, 64).await?;
    tell(
        &mut lines,
        "64 connections",
        100.0,
        &pairs,
        Bar::AtLeast(0.7),
        Bar::Told,
    );
    Ok(lines.done())
}

/// A running experiment whose units the API knows.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn experiment(lab: &mut Lab, name: &str) -> Result<Experiment, BenchError> {
    let made = world::experiments(lab, name, 1, [1, 1]).await?;
    let experiment = made
        .into_iter()
        .next()
        .ok_or(BenchError::TooLate("the making of an experiment"))?;
    world::meet(lab, &experiment, 'u', UNITS).await?;
    Ok(experiment)
}

/// A load of fresh events.
pub(crate) fn attack(
    lab: &Lab,
    experiment: &Experiment,
    script: Script,
    path: &'static str,
    connections: usize,
) -> Attack {
    let args = vec![
        lab.run_number().to_string(),
        UNITS.to_string(),
        experiment.id.to_string(),
    ];
    Attack {
        script,
        args,
        path: path.into(),
        connections,
        seconds: lab.plan.seconds,
    }
}

async fn pairs(
    lab: &Lab,
    experiment: &Experiment,
    script: Script,
    path: &'static str,
    connections: usize,
) -> Result<Vec<Pair>, BenchError> {
    let acknowledgement =
        br#"{"success":true,"event_id":"01900000-0000-7000-8000-000000000000","duplicate":false}"#;
    let echo = lab.echo(path, acknowledgement).await?;
    let inserting = match script {
        Script::Batch => None,
        _ => Some(lab.inserting(path, acknowledgement, Table::Events).await?),
    };
    let warm = Attack {
        seconds: 1,
        ..attack(lab, experiment, script, path, connections)
    };
    lab.attack(&lab.api, &warm).await?;
    let mut pairs = Vec::with_capacity(lab.plan.pairs);
    for _ in 0..lab.plan.pairs {
        let seconds = lab.plan.seconds;
        world::rest(lab).await?;
        let insert =
            yardstick::insert(&lab.yardstick, Table::Events, lab.run_number(), seconds).await?;
        world::checkpoint(lab).await?;
        let load = || attack(lab, experiment, script, path, connections);
        let inserting = match &inserting {
            Some(server) => Some(lab.attack(server, &load()).await?),
            None => None,
        };
        world::checkpoint(lab).await?;
        let echo = lab.attack(&echo, &load()).await?;
        let copy =
            yardstick::copy(&lab.yardstick, Table::Events, lab.run_number(), seconds).await?;
        world::checkpoint(lab).await?;
        let both = yardstick::copy_with_keys(&lab.yardstick, lab.run_number(), seconds).await?;
        world::checkpoint(lab).await?;
        let rows = if script == Script::Batch { 100 } else { 1 };
        let api = checked(lab, experiment, &load(), rows).await?;
        pairs.push(Pair {
            insert,
            inserting,
            copy,
            both,
            echo,
            api,
        });
    }
    Ok(pairs)
}

/// Runs a load of fresh events and counts what is in the table afterwards.
///
/// # Errors
/// [`BenchError::Invalid`] when there is less than was acknowledged.
pub(crate) async fn checked(
    lab: &Lab,
    experiment: &Experiment,
    attack: &Attack,
    rows: u64,
) -> Result<Half, BenchError> {
    let before: i64 = lab.main.query_one(COUNT, &[&experiment.id]).await?.get(0);
    let half = lab.attack(&lab.api, attack).await?;
    let stored = lab
        .main
        .query_one(COUNT, &[&experiment.id])
        .await?
        .get::<_, i64>(0)
        - before;
    let acknowledged = half.requests * rows;
    if u64::try_from(stored).unwrap_or_default() < acknowledged {
        return Err(BenchError::Invalid(format!(
            "{acknowledged} events were acknowledged and {stored} are stored"
        )));
    }
    Ok(half)
}

fn tell(lines: &mut Lines, name: &str, events: f64, pairs: &[Pair], copy: Bar, insert: Bar) {
    lines.ratio(
        format!("{name}: events ÷ COPY into the events"),
        copy,
        pairs,
        |p| (p.api.rate * events, p.copy),
    );
    lines.ratio(
        format!("{name}: events ÷ COPY into events and keys"),
        copy,
        pairs,
        |p| (p.api.rate * events, p.both),
    );
    lines.ratio(
        format!("{name}: events ÷ one INSERT a commit"),
        insert,
        pairs,
        |p| (p.api.rate * events, p.insert),
    );
    let requests = |p: &Pair| Some((p.api.rate, p.inserting?.rate));
    lines.ratio(
        format!("{name}: events ÷ one INSERT a request"),
        insert,
        &pairs.iter().filter_map(requests).collect::<Vec<_>>(),
        |rates| *rates,
    );
    lines.add(
        format!("{name}: API"),
        "events/s",
        Bar::Told,
        pairs.iter().map(|p| p.api.rate * events),
    );
    lines.add(
        format!("{name}: API, CPU an event"),
        "µs",
        Bar::Told,
        pairs.iter().map(|p| p.api.cpu_us / events),
    );
    lines.add(
        format!("{name}: PostgreSQL, CPU an event"),
        "µs",
        Bar::Told,
        pairs.iter().map(|p| p.api.postgres_us / events),
    );
    lines.add(
        format!("{name}: API, p50"),
        "ms",
        Bar::Told,
        pairs.iter().map(|p| p.api.p50_ms),
    );
    lines.add(
        format!("{name}: API, p99"),
        "ms",
        Bar::Told,
        pairs.iter().map(|p| p.api.p99_ms),
    );
    lines.add(
        format!("{name}: COPY into the events"),
        "rows/s",
        Bar::Told,
        pairs.iter().map(|p| p.copy),
    );
    lines.add(
        format!("{name}: COPY into events and keys"),
        "rows/s",
        Bar::Told,
        pairs.iter().map(|p| p.both),
    );
    lines.add(
        format!("{name}: INSERT, 64 connections"),
        "rows/s",
        Bar::Told,
        pairs.iter().map(|p| p.insert),
    );
    lines.add(
        format!("{name}: one INSERT a request"),
        "/s",
        Bar::Told,
        pairs.iter().filter_map(|p| Some(p.inserting?.rate)),
    );
}
