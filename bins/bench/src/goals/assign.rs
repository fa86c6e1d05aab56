//! Goals 1 and 2: what a decision costs beside a server that does nothing.

use crate::error::BenchError;
use crate::figures::{Bar, Line, Lines};
use crate::http::Connection;
use crate::lab::{Half, Lab};
use crate::process::Server;
use crate::world::{self, ASSIGN, BULK, UNITS};
use crate::wrk::{Attack, Script};

/// Goal 1.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn known(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    meet_all(lab, "known", 1).await?;
    let mut lines = Lines::of(1);
    for (script, connections, cpu, rate, name) in [
        (
            Script::Known,
            64,
            Bar::AtMost(1.3),
            Bar::AtLeast(0.85),
            "documented body, 64 connections",
        ),
        (
            Script::Known,
            512,
            Bar::AtMost(1.3),
            Bar::AtLeast(0.85),
            "documented body, 512 connections",
        ),
        (
            Script::Plain,
            64,
            Bar::AtMost(1.3),
            Bar::AtLeast(0.85),
            "user only, 64 connections",
        ),
    ] {
        let pairs = beside_echo(lab, &attack(lab, script, ASSIGN, connections)).await?;
        tell(&mut lines, name, &pairs, cpu, rate);
    }
    Ok(lines.done())
}

/// Goal 2.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn bulk(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    meet_all(lab, "bulk", 10).await?;
    let mut lines = Lines::of(2);
    let pairs = beside_echo(lab, &attack(lab, Script::Plain, BULK, 64)).await?;
    tell(
        &mut lines,
        "64 connections",
        &pairs,
        Bar::AtMost(2.0),
        Bar::Told,
    );
    Ok(lines.done())
}

async fn meet_all(lab: &mut Lab, name: &str, count: usize) -> Result<(), BenchError> {
    for experiment in world::experiments(lab, name, count, [1, 1]).await? {
        world::meet(lab, &experiment, 'u', UNITS).await?;
    }
    world::rest(lab).await
}

fn attack(lab: &Lab, script: Script, path: &'static str, connections: usize) -> Attack {
    Attack {
        script,
        args: vec![UNITS.to_string(), "u".into()],
        path: path.into(),
        connections,
        seconds: lab.plan.seconds,
    }
}

/// An echo that answers what the API answers to this load. Both have been warmed up.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn echo_for(lab: &Lab, attack: &Attack) -> Result<Server, BenchError> {
    let letter = attack.args.get(1).map_or("u", String::as_str);
    let mut connection = Connection::open(lab.api.authority(), None).await?;
    let answer = connection
        .ask(
            "POST",
            &attack.path,
            &format!("{{\"user_id\":\"{letter}00000000\",\"placement\":\"bench\"}}"),
        )
        .await?;
    let echo = lab.echo(&attack.path, &answer).await?;
    let warm = Attack {
        seconds: 1,
        ..attack.clone()
    };
    lab.attack(&echo, &warm).await?;
    lab.attack(&lab.api, &warm).await?;
    Ok(echo)
}

/// Echo, then the API, under the same load.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn pair(
    lab: &Lab,
    echo: &Server,
    attack: &Attack,
) -> Result<(Half, Half), BenchError> {
    let yardstick = lab.attack(echo, attack).await?;
    Ok((yardstick, lab.attack(&lab.api, attack).await?))
}

/// All pairs of a load.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn beside_echo(
    lab: &Lab,
    attack: &Attack,
) -> Result<Vec<(Half, Half)>, BenchError> {
    let echo = echo_for(lab, attack).await?;
    let mut pairs = Vec::with_capacity(lab.plan.pairs);
    for _ in 0..lab.plan.pairs {
        pairs.push(pair(lab, &echo, attack).await?);
    }
    Ok(pairs)
}

/// The lines of a load beside echo.
pub(crate) fn tell(lines: &mut Lines, name: &str, pairs: &[(Half, Half)], cpu: Bar, rate: Bar) {
    lines.ratio(
        format!("{name}: CPU ÷ echo's"),
        cpu,
        pairs,
        |(echo, api)| (api.cpu_us, echo.cpu_us),
    );
    lines.ratio(
        format!("{name}: rate ÷ echo's"),
        rate,
        pairs,
        |(echo, api)| (api.rate, echo.rate),
    );
    for (who, half) in [("echo", 0), ("API", 1)] {
        let of = |pair: &(Half, Half)| if half == 0 { pair.0 } else { pair.1 };
        lines.add(
            format!("{name}: {who}, CPU a request"),
            "µs",
            Bar::Told,
            pairs.iter().map(|pair| of(pair).cpu_us),
        );
        lines.add(
            format!("{name}: {who}, rate"),
            "/s",
            Bar::Told,
            pairs.iter().map(|pair| of(pair).rate),
        );
    }
}
