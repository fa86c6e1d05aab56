//! Goals 4 and 7: the slowest hundredth of the answers.

use crate::error::BenchError;
use crate::figures::{Bar, Line, Lines};
use crate::goals::assign::{beside_echo, echo_for, pair};
use crate::goals::track;
use crate::http::Steady;
use crate::lab::{Half, Lab};
use crate::world::{self, ASSIGN, Experiment, TRACK_ONE, UNITS};
use crate::wrk::{Attack, Script};
use crate::yardstick;

/// Units whose variant differs from what the weights give.
const STICKY_UNITS: i64 = 100_000;

const STICKY: &str = "-- bench::sticky
INSERT INTO user_experiment_assignments (user_id, experiment_id, variant_id)
SELECT 'o' || lpad(n::text, 8, '0'), $1, $2 FROM generate_series(0::bigint, $3::bigint - 1) AS g (n)";

/// Goal 4.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn assign(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let tracked = track::experiment(lab, "latency").await?;
    let attack = |units: i64, letter: &str, seconds| Attack {
        script: Script::Known,
        args: vec![units.to_string(), letter.to_owned()],
        path: ASSIGN.into(),
        connections: 64,
        seconds,
    };
    let seconds = lab.plan.seconds;
    let mut lines = Lines::of(4);
    world::rest(lab).await?;
    let alone = beside_echo(lab, &attack(UNITS, "u", seconds)).await?;
    tell(&mut lines, "alone", Bar::AtMost(2.0), &alone);

    // Half of what tracking reaches on its own with as many connections.
    let half = {
        let full = track::attack(lab, &tracked, Script::Track, TRACK_ONE, 64);
        track::checked(lab, &tracked, &full, 1).await?.rate / 2.0
    };
    let sticky = sticky(lab).await?;
    world::meet(lab, &sticky, 'o', STICKY_UNITS).await?;
    let (beside, reached) =
        beside_tracking(lab, &tracked, half, &attack(STICKY_UNITS, "o", seconds)).await?;
    tell(
        &mut lines,
        "while tracking, 100,000 units off their weights",
        Bar::AtMost(2.0),
        &beside,
    );
    let against_idle = beside
        .iter()
        .zip(&alone)
        .map(|((_, api), (echo, _))| api.p99_ms / echo.p99_ms);
    lines.add("while tracking, 100,000 units off their weights: p99 ÷ that of an echo without tracking beside it", "", Bar::Told, against_idle);
    lines.add(
        "tracking beside it, half of its rate",
        "events/s",
        Bar::Told,
        [half],
    );
    lines.add(
        "tracking beside it, reached",
        "events/s",
        Bar::Told,
        reached,
    );
    Ok(lines.done())
}

/// An experiment whose weights give the control to everybody, with units that have the treatment.
async fn sticky(lab: &mut Lab) -> Result<Experiment, BenchError> {
    let made = world::experiments(lab, "sticky", 1, [1, 0]).await?;
    let experiment = made
        .into_iter()
        .next()
        .ok_or(BenchError::TooLate("the making of an experiment"))?;
    let treatment = experiment.variants.last().copied().unwrap_or_default();
    lab.main
        .execute(STICKY, &[&experiment.id, &treatment, &STICKY_UNITS])
        .await?;
    Ok(experiment)
}

/// Pairs as beside echo, each half with the same steady tracking going on. The tracked experiment is paused by now and
/// takes events all the same.
async fn beside_tracking(
    lab: &Lab,
    tracked: &Experiment,
    rate: f64,
    attack: &Attack,
) -> Result<(Vec<(Half, Half)>, Vec<f64>), BenchError> {
    let echo = echo_for(lab, attack).await?;
    let (mut pairs, mut reached) = (Vec::new(), Vec::new());
    for _ in 0..lab.plan.pairs {
        world::rest(lab).await?;
        let tag = lab.run_number();
        let (id, name) = (tracked.id, tracked.name.clone());
        let body = move |number: u64| {
            let unit = i64::try_from(number % 10_000).unwrap_or_default();
            format!(
                r#"{{"event_id":"{name}-{tag}-{number}","user_id":"{}","experiment_id":{id},"item_id":"{:06}","position":3}}"#,
                world::unit('u', unit),
                unit % 1000
            )
        };
        let steady = Steady::start(lab.api.authority(), TRACK_ONE, 32, rate, body);
        let pair = pair(lab, &echo, attack).await;
        reached.push(steady.finish().await?);
        pairs.push(pair?);
    }
    Ok((pairs, reached))
}

/// Goal 7.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn track(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let experiment = track::experiment(lab, "answers").await?;
    let mut pairs = Vec::new();
    for _ in 0..lab.plan.pairs {
        world::rest(lab).await?;
        let commit =
            yardstick::commit_p99_ms(&lab.yardstick, lab.run_number(), lab.plan.seconds).await?;
        world::checkpoint(lab).await?;
        let attack = track::attack(lab, &experiment, Script::Track, TRACK_ONE, 64);
        pairs.push((commit, track::checked(lab, &experiment, &attack, 1).await?));
    }
    let mut lines = Lines::of(7);
    lines.ratio(
        "64 connections: p99 ÷ that of a 100-row commit",
        Bar::AtMost(1.5),
        &pairs,
        |(commit, api)| (api.p99_ms, *commit),
    );
    lines.add(
        "64 connections: API, p99",
        "ms",
        Bar::AtMost(20.0),
        pairs.iter().map(|(_, api)| api.p99_ms),
    );
    lines.add(
        "64 connections: API, p50",
        "ms",
        Bar::Told,
        pairs.iter().map(|(_, api)| api.p50_ms),
    );
    lines.add(
        "64 connections: API",
        "events/s",
        Bar::Told,
        pairs.iter().map(|(_, api)| api.rate),
    );
    lines.add(
        "100-row commit, p99",
        "ms",
        Bar::Told,
        pairs.iter().map(|(commit, _)| *commit),
    );
    Ok(lines.done())
}

fn tell(lines: &mut Lines, name: &str, bar: Bar, pairs: &[(Half, Half)]) {
    lines.ratio(
        format!("{name}: p99 ÷ echo's"),
        bar,
        pairs,
        |(echo, api)| (api.p99_ms, echo.p99_ms),
    );
    lines.add(
        format!("{name}: API, p99"),
        "ms",
        Bar::AtMost(50.0),
        pairs.iter().map(|(_, api)| api.p99_ms),
    );
    lines.add(
        format!("{name}: echo, p99"),
        "ms",
        Bar::Told,
        pairs.iter().map(|(echo, _)| echo.p99_ms),
    );
    lines.add(
        format!("{name}: API, p50"),
        "ms",
        Bar::Told,
        pairs.iter().map(|(_, api)| api.p50_ms),
    );
    lines.add(
        format!("{name}: echo, p50"),
        "ms",
        Bar::Told,
        pairs.iter().map(|(echo, _)| echo.p50_ms),
    );
}
