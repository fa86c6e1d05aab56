//! The database's disk is full.

use std::path::{Path, PathBuf};
use std::process::Command;

use podium_tests::{ApiProcess, OwnPostgres, TestDatabase, eventually};
use serde_json::{Value, json};

use crate::PROGRAM;

const DISK: &str = "size=192m";
const TRACK: &str = "/api/v1/experiments/track";

/// A small file system of its own. Mounting takes rights that not everybody has who runs tests.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let path = std::env::temp_dir().join(format!("podium-it-disk-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(&path)
            .output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        std::fs::remove_dir(&path).unwrap();
        None
    }

    /// Takes all room but `left` bytes.
    fn fill(&self, left: u64) -> PathBuf {
        let ballast = self.0.join("ballast");
        let free = free(&self.0);
        let size = free.saturating_sub(left).to_string();
        let fallocate = Command::new("fallocate")
            .args(["-l", &size])
            .arg(&ballast)
            .status();
        assert!(fallocate.unwrap().success());
        ballast
    }
}

fn free(path: &Path) -> u64 {
    let output = Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).unwrap().trim().parse().unwrap()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn batch(number: usize) -> Value {
    let event = |n: usize| {
        json!({"event_type": "click", "event_id": format!("{number}-{n}"), "user_id": "u", "experiment_id": "e",
               "metadata": {"page": "x".repeat(2_000)}})
    };
    json!({"events": (0..300).map(event).collect::<Vec<_>>()})
}

/// A full disk refuses events with 503 while known units keep their variant. With room again everything goes on by itself, and
/// nothing that was acknowledged is missing or doubled.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_events_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not run: mounting a small file system needs root");
        return;
    };
    let mut postgres = OwnPostgres::start_in(&disk.0);
    let database = TestDatabase::on(postgres.url()).await;
    let process = ApiProcess::start(PROGRAM, &[("DATABASE_URL", database.url())]).await;
    let experiments = "/api/v1/admin/experiments";
    let post = async |path: &str, body: Value| {
        let answer = process
            .admin(reqwest::Method::POST, path, Some(&body))
            .await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    };
    post(experiments, json!({"name": "e"})).await;
    for name in ["control", "b"] {
        let body = json!({"name": name, "isControl": name == "control"});
        post(&format!("{experiments}/1/variants"), body).await;
    }
    post(&format!("{experiments}/1/start"), json!({})).await;
    let told = process.variant_of("e", "u").await;

    let ballast = disk.fill(4 * 1024 * 1024);
    let mut acknowledged = Vec::new();
    let mut refused = Vec::new();
    for number in 0..100 {
        let answer = process.post(TRACK, &batch(number)).await;
        match answer.status {
            200 => acknowledged.push(number),
            _ => {
                answer.problem(503, "unavailable");
                refused.push(number);
            }
        }
        let known = process
            .assign(json!({"experiment": "e", "user_id": "u"}))
            .await;
        assert_eq!(known["variant"], told.as_str());
        if refused.len() == 3 {
            break;
        }
    }
    assert_eq!(refused.len(), 3, "the disk is full");

    std::fs::remove_file(ballast).unwrap();
    // PostgreSQL itself ends when it cannot write its log; bringing it back is its service manager's task.
    postgres.revive();
    for number in refused {
        eventually("a refused batch is taken later", async || {
            process.post(TRACK, &batch(number)).await.status == 200
        })
        .await;
        acknowledged.push(number);
    }
    let stored = database
        .number("SELECT count(*) FROM experiment_events")
        .await;
    let keys = database
        .number("SELECT count(*) FROM experiment_event_keys")
        .await;
    let sent = i64::try_from(acknowledged.len() * 300).unwrap();
    assert_eq!((stored, keys), (sent, sent));
    assert_eq!(process.variant_of("e", "u").await, told);
}
