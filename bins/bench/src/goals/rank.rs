//! Goal 12: an order of fifty items beside a server that does nothing.

use std::time::Duration;

use crate::error::BenchError;
use crate::figures::{Bar, Line, Lines};
use crate::goals::assign::{pair, tell};
use crate::http::Connection;
use crate::lab::Lab;
use crate::world::{self, RANK, UNITS};
use crate::wrk::{Attack, Script};

/// Items of a request.
const ITEMS: u32 = 50;
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

const CONFIG: &str = "-- bench::ranks
UPDATE experiment_variants SET config = '{\"itemOrdering\":\"bandit\",\"banditAlgorithm\":\"thompson\"}' WHERE id = $1";

/// A thousand pulls an item, of which 1 to 5 % were rewarded.
const TEACH: &str = "-- bench::teach
SELECT count(update_bandit_arm_performance(a.id, (n <= 10 + a.id % 40)::integer, n <= 10 + a.id % 40))
FROM bandit_arms a, generate_series(1, 1000) AS n WHERE a.experiment_id = $1";

/// Goal 12.
///
/// # Errors
/// [`BenchError`].
pub(crate) async fn measure(lab: &mut Lab) -> Result<Vec<Line>, BenchError> {
    let made = world::experiments(lab, "rank", 1, [0, 1]).await?;
    let experiment = made.first().ok_or(BenchError::TooLate("an experiment"))?;
    let treatment = experiment.variants.get(1).copied().unwrap_or_default();
    lab.main.execute(CONFIG, &[&treatment]).await?;
    world::meet(lab, experiment, 'u', UNITS).await?;
    let rest = format!(
        "\"experiment\":{},\"candidates\":{}",
        experiment.id,
        items()
    );
    let body = format!("{{\"user_id\":\"u00000000\",{rest}}}");
    learned(lab, &body, |answer| {
        answer.contains("\"policy\":\"thompson\"")
    })
    .await?;
    lab.main.query_one(TEACH, &[&experiment.id]).await?;
    // Unlearned, all items are alike.
    let answer = learned(lab, &body, |answer| {
        !answer.contains("\"propensity\":0.02}")
    })
    .await?;
    world::rest(lab).await?;
    let attack = Attack {
        script: Script::Rank,
        args: vec![UNITS.to_string(), "u".into(), rest],
        path: RANK.into(),
        connections: 64,
        seconds: lab.plan.seconds,
    };
    let echo = lab.echo(&attack.path, answer.as_bytes()).await?;
    let warm = Attack {
        seconds: 1,
        ..attack.clone()
    };
    lab.attack(&echo, &warm).await?;
    lab.attack(&lab.api, &warm).await?;
    let mut pairs = Vec::with_capacity(lab.plan.pairs);
    for _ in 0..lab.plan.pairs {
        pairs.push(pair(lab, &echo, &attack).await?);
    }
    let mut lines = Lines::of(12);
    let name = "50 items, thompson, 64 connections";
    tell(&mut lines, name, &pairs, Bar::AtMost(3.0), Bar::Told);
    Ok(lines.done())
}

fn items() -> String {
    let item = |n: u32| {
        format!(
            "{{\"id\":{},\"name\":\"Item {n}\",\"metadata\":{{\"brand_id\":{}}}}}",
            100_000 + n,
            n % 7
        )
    };
    let items: Vec<String> = (0..ITEMS).map(item).collect();
    format!("[{}]", items.join(","))
}

/// Asks until the answer is as wanted.
async fn learned(
    lab: &Lab,
    body: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<String, BenchError> {
    let mut connection = Connection::open(lab.api.authority(), None).await?;
    let asking = async {
        loop {
            let answer = connection.ask("POST", RANK, body).await?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            if wanted(&answer) {
                return Ok(answer);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(LIMIT, asking)
        .await
        .map_err(|_| BenchError::TooLate("learning"))?
}
