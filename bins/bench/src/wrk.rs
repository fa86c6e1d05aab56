//! The load: wrk in a process of its own, driven by our scripts.

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use tokio::process::Command;

use crate::error::BenchError;

const COMMON: &str = include_str!("../lua/common.lua");

/// Which requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Units with an assignment, the complete documented body.
    Known,
    /// Units with an assignment, nothing but the user.
    Plain,
    /// Units that nobody has seen.
    New,
    /// One event a request.
    Track,
    /// A hundred events a request.
    Batch,
    /// Orders of fifty items.
    Rank,
    /// The same GET again and again, with a token.
    Get,
}

impl Script {
    const ALL: [Self; 7] = [
        Self::Known,
        Self::Plain,
        Self::New,
        Self::Track,
        Self::Batch,
        Self::Rank,
        Self::Get,
    ];

    const fn file(self) -> &'static str {
        match self {
            Self::Known => "known.lua",
            Self::Plain => "plain.lua",
            Self::New => "new.lua",
            Self::Track => "track.lua",
            Self::Batch => "batch.lua",
            Self::Rank => "rank.lua",
            Self::Get => "get.lua",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Known => include_str!("../lua/known.lua"),
            Self::Plain => include_str!("../lua/plain.lua"),
            Self::New => include_str!("../lua/new.lua"),
            Self::Track => include_str!("../lua/track.lua"),
            Self::Batch => include_str!("../lua/batch.lua"),
            Self::Rank => include_str!("../lua/rank.lua"),
            Self::Get => include_str!("../lua/get.lua"),
        }
    }
}

/// One load.
#[derive(Clone, Debug)]
pub(crate) struct Attack {
    pub(crate) script: Script,
    /// Arguments of the script.
    pub(crate) args: Vec<String>,
    pub(crate) path: std::borrow::Cow<'static, str>,
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
}

/// What wrk measured. Latencies in microseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    micros: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    status: u64,
    connect: u64,
    read: u64,
    write: u64,
    timeout: u64,
    wrong: u64,
}

impl Outcome {
    /// Requests a second.
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds of load")]
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 * 1e6 / self.micros.max(1) as f64
    }

    fn read(printed: &str) -> Option<Self> {
        let line = printed
            .lines()
            .find_map(|line| line.strip_prefix("PODIUM "))?;
        serde_json::from_str(line).ok()
    }

    /// A run with a single answer that is not right measures something else than it says.
    fn check(self) -> Result<Self, BenchError> {
        let faults = [
            (self.status, "answers were not 2xx"),
            (self.wrong, "answers were degraded or the default"),
            (self.connect, "connections failed"),
            (self.read, "readings failed"),
            (self.write, "writings failed"),
            (self.timeout, "requests timed out"),
        ];
        let found: Vec<String> = faults
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        match (found.is_empty(), self.requests) {
            (true, 1..) => Ok(self),
            (true, 0) => Err(BenchError::Invalid("no request was answered".into())),
            (false, all) => Err(BenchError::Invalid(format!(
                "of {all} requests {}",
                found.join(", ")
            ))),
        }
    }
}

/// Whether wrk is there.
///
/// # Errors
/// [`BenchError::Missing`] says how to install it.
pub(crate) async fn find() -> Result<(), BenchError> {
    let tried = Command::new("wrk")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    tried.map(drop).map_err(|_| BenchError::Missing {
        name: "wrk",
        hint: "apt-get install wrk",
    })
}

/// Writes the scripts into a folder.
///
/// # Errors
/// [`BenchError::File`].
pub(crate) fn write_scripts(folder: &Path) -> Result<(), BenchError> {
    for script in Script::ALL {
        let path = folder.join(script.file());
        std::fs::write(&path, [COMMON, script.text()].concat()).map_err(BenchError::file(path))?;
    }
    Ok(())
}

/// Runs a load to its end.
///
/// # Errors
/// [`BenchError::Invalid`] when any answer was not what it should be.
pub(crate) async fn run(
    folder: &Path,
    address: &str,
    attack: &Attack,
) -> Result<Outcome, BenchError> {
    let mut command = Command::new("wrk");
    command
        .args(["--threads", "2", "--timeout", "10s"])
        .args(["--connections", &attack.connections.to_string()])
        .args(["--duration", &format!("{}s", attack.seconds)])
        .arg("--script")
        .arg(folder.join(attack.script.file()))
        .arg(format!("{address}{}", attack.path))
        .arg("--")
        .args(&attack.args)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.map_err(BenchError::run("wrk"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let Some(outcome) = Outcome::read(&printed) else {
        let said = format!("{printed} {}", String::from_utf8_lossy(&output.stderr));
        return Err(BenchError::Failed {
            what: "wrk".into(),
            said,
        });
    };
    outcome.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "Running 1s test\nPODIUM {\"requests\":2000,\"micros\":1000000,\"bytes\":1,\"p50\":10.0,\"p99\":20.5,\"max\":30.0,\
        \"status\":0,\"connect\":0,\"read\":0,\"write\":0,\"timeout\":0,\"wrong\":0}\n";

    #[test]
    fn reads_what_the_script_prints() {
        let outcome = Outcome::read(LINE).unwrap().check().unwrap();
        assert_eq!(outcome.requests, 2000);
        assert!((outcome.rate() - 2000.0).abs() < 1e-9);
    }

    #[test]
    fn one_wrong_answer_makes_a_run_worthless() {
        for fault in ["status", "wrong", "timeout", "read"] {
            let line = LINE.replace(&format!("\"{fault}\":0"), &format!("\"{fault}\":1"));
            let error = Outcome::read(&line).unwrap().check().unwrap_err();
            assert!(matches!(error, BenchError::Invalid(_)), "{fault}");
        }
        let none = LINE.replace("2000", "0");
        assert!(Outcome::read(&none).unwrap().check().is_err());
    }
}
