//! Servers in processes of their own: started, watched, stopped.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::error::BenchError;

/// What a server prints before its address.
const LISTENING: &str = "listening on ";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    /// Such as `http://127.0.0.1:4000`.
    pub(crate) address: String,
    pid: u32,
    child: Child,
}

impl Server {
    /// Starts a program and waits until it tells where it listens. Its messages go to the file `log`.
    ///
    /// # Errors
    /// [`BenchError::Failed`] with the end of the log when it ends instead.
    pub(crate) async fn start(mut command: Command, log: &Path) -> Result<Self, BenchError> {
        let messages = File::create(log).map_err(BenchError::file(log))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(messages)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(BenchError::run(format!(
            "{:?}",
            command.as_std().get_program()
        )))?;
        let failed = || BenchError::Failed {
            what: format!("{:?}", log.file_stem().unwrap_or_default()),
            said: std::fs::read_to_string(log).unwrap_or_default(),
        };
        let (Some(pid), Some(stdout)) = (child.id(), child.stdout.take()) else {
            return Err(failed());
        };
        let mut lines = BufReader::new(stdout).lines();
        let address = tokio::time::timeout(START_LIMIT, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = line.strip_prefix(LISTENING) {
                    return Some(address.trim().to_owned());
                }
            }
            None
        });
        let address = address
            .await
            .map_err(|_| BenchError::TooLate("the start of a server"))?
            .ok_or_else(failed)?;
        // Nobody may block on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self {
            address,
            pid,
            child,
        })
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    /// Processor time of all its threads so far, in ticks, user and system.
    ///
    /// # Errors
    /// [`BenchError::File`] when the process is gone.
    pub(crate) fn cpu_ticks(&self) -> Result<u64, BenchError> {
        let path = format!("/proc/{}/stat", self.pid);
        let text = std::fs::read_to_string(&path).map_err(BenchError::file(&path))?;
        Ok(Stat::read(&text)
            .ok_or_else(|| BenchError::Failed {
                what: path,
                said: text,
            })?
            .own)
    }

    /// Resident memory in MiB.
    pub(crate) fn memory_mib(&self) -> Option<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
        Some(kib / 1024.0)
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// [`BenchError::TooLate`] when it does not.
    pub(crate) async fn stop(mut self) -> Result<(), BenchError> {
        let asked = Command::new("kill")
            .args(["-TERM", &self.pid.to_string()])
            .status()
            .await;
        asked.map_err(BenchError::run("kill"))?;
        let ended = tokio::time::timeout(STOP_LIMIT, self.child.wait()).await;
        ended
            .map(drop)
            .map_err(|_| BenchError::TooLate("the end of a server"))
    }
}

/// Ticks of processor time in a second.
pub(crate) async fn ticks_per_second() -> f64 {
    let output = Command::new("getconf").arg("CLK_TCK").output().await;
    let told = output
        .ok()
        .and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse().ok());
    // What Linux has had on every machine for twenty years.
    told.unwrap_or(100.0)
}

/// Processor time in ticks of a process and all that it has started, as far as they are its direct children.
pub(crate) fn family_ticks(parent: u32) -> u64 {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let stats = processes.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = Stat::read(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?;
        Some((pid, stat))
    });
    stats
        .map(|(pid, stat)| match (pid == parent, stat.parent == parent) {
            (true, _) => stat.own + stat.ended_children,
            (false, true) => stat.own,
            (false, false) => 0,
        })
        .sum()
}

/// What `/proc/PID/stat` tells, in ticks.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    /// User and system time of all threads.
    own: u64,
    /// The same of children that have ended.
    ended_children: u64,
}

impl Stat {
    /// Field 4, and fields 14 to 17. The name in field 2 may hold spaces.
    fn read(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let mut times = fields.skip(9).map(|field| field.parse::<u64>().ok());
        let mut next = || times.next().flatten();
        Some(Self {
            parent,
            own: next()? + next()?,
            ended_children: next()? + next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn processor_time_is_read_behind_a_name_with_spaces() {
        let stat = "42 (a ) b) S 7 2 3 4 5 6 7 8 9 10 1234 66 30 3 20 0 4 0 1 1";
        assert_eq!(
            Stat::read(stat),
            Some(Stat {
                parent: 7,
                own: 1300,
                ended_children: 33
            })
        );
        assert_eq!(Stat::read("42 (short) S 1"), None);
    }
}
