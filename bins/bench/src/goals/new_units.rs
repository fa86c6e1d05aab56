//! Goal 3: units that nobody has seen; the assignment is committed before the answer.

use crate::error::BenchError;
use crate::figures::{Bar, Line, Lines};
use crate::lab::{Half, Lab};
use crate::process::Server;
use crate::world::{self, ASSIGN};
use crate::wrk::{Attack, Script};
use crate::yardstick::{self, Table};

const COUNT: &str = "-- bench::count_assignments
SELECT count(*) FROM user_experiment_assignments WHERE experiment_id = $1";

struct Pair {
    insert: f64,
    inserting: Half,
    copy: f64,
    api: Half,
}

const ANSWER: &[u8] = br#"{"experiment_id":"new-0","variant":"treatment","experiment":1,"variant_id":2,"config":{"model_version":"v3"},"reason":"SPLIT"}"#;

/// Goal 3.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn measure(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let experiments = world::experiments(lab, "new", 1, [1, 1]).await?;
    let Some(id) = experiments.first().map(|experiment| experiment.id) else {
        return Ok(Vec::new());
    };
    let inserting = lab.inserting(ASSIGN, ANSWER, Table::Assignments).await?;
    let mut lines = Lines::of(3);
    for (session, name, bars) in [
        ("user", "user only", (Bar::AtLeast(4.0), Bar::AtLeast(0.4))),
        (
            "session",
            "user and session",
            (Bar::AtLeast(4.0), Bar::AtLeast(0.4)),
        ),
    ] {
        let mut pairs = Vec::with_capacity(lab.plan.pairs);
        for _ in 0..lab.plan.pairs {
            pairs.push(pair(lab, &inserting, id, session).await?);
        }
        lines.ratio(
            format!("{name}: rate ÷ one INSERT a commit"),
            bars.0,
            &pairs,
            |p| (p.api.rate, p.insert),
        );
        lines.ratio(
            format!("{name}: rate ÷ one INSERT a request"),
            bars.0,
            &pairs,
            |p| (p.api.rate, p.inserting.rate),
        );
        lines.ratio(format!("{name}: rate ÷ COPY"), bars.1, &pairs, |p| {
            (p.api.rate, p.copy)
        });
        lines.add(
            format!("{name}: API"),
            "/s",
            Bar::Told,
            pairs.iter().map(|p| p.api.rate),
        );
        lines.add(
            format!("{name}: API, CPU a unit"),
            "µs",
            Bar::Told,
            pairs.iter().map(|p| p.api.cpu_us),
        );
        lines.add(
            format!("{name}: PostgreSQL, CPU a unit"),
            "µs",
            Bar::Told,
            pairs.iter().map(|p| p.api.postgres_us),
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
            format!("{name}: INSERT, 64 connections"),
            "/s",
            Bar::Told,
            pairs.iter().map(|p| p.insert),
        );
        lines.add(
            format!("{name}: one INSERT a request"),
            "/s",
            Bar::Told,
            pairs.iter().map(|p| p.inserting.rate),
        );
        lines.add(
            format!("{name}: COPY"),
            "rows/s",
            Bar::Told,
            pairs.iter().map(|p| p.copy),
        );
    }
    Ok(lines.done())
}

async fn pair(lab: &Lab, inserting: &Server, id: i64, session: &str) -> Result<Pair, BenchError> {
    let seconds = lab.plan.seconds;
    world::rest(lab).await?;
    let insert = yardstick::insert(
        &lab.yardstick,
        Table::Assignments,
        lab.run_number(),
        seconds,
    )
    .await?;
    world::checkpoint(lab).await?;
    let copy = yardstick::copy(
        &lab.yardstick,
        Table::Assignments,
        lab.run_number(),
        seconds,
    )
    .await?;
    world::checkpoint(lab).await?;
    let attack = Attack {
        script: Script::New,
        args: vec![format!("{:03x}", lab.run_number()), session.to_owned()],
        path: ASSIGN.into(),
        connections: 512,
        seconds,
    };
    let inserting = lab.attack(inserting, &attack).await?;
    world::checkpoint(lab).await?;
    let before: i64 = lab.main.query_one(COUNT, &[&id]).await?.get(0);
    let api = lab.attack(&lab.api, &attack).await?;
    let stored = lab.main.query_one(COUNT, &[&id]).await?.get::<_, i64>(0) - before;
    if u64::try_from(stored).unwrap_or_default() < api.requests {
        return Err(BenchError::Invalid(format!(
            "{} units were answered and {stored} stored",
            api.requests
        )));
    }
    Ok(Pair {
        insert,
        inserting,
        copy,
        api,
    })
}
