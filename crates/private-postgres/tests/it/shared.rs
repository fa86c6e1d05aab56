//! The server that all processes of a test run share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use podium_private_postgres::testing::SharedServer;

use crate::common::{
    Scratch, eventually, group_and_session, kill_nine, lives, note, noted, postmaster_of, query,
};
use crate::helper::{self, Helper};

const SHORT: Duration = Duration::from_secs(1);

fn join(scratch: &Scratch) -> SharedServer {
    SharedServer::join_at(scratch.path(), SHORT).unwrap()
}

fn state(scratch: &Scratch) -> PathBuf {
    scratch.path().join("state")
}

fn postmaster(scratch: &Scratch) -> u32 {
    postmaster_of(&state(scratch).join("data"))
}

/// The process ids of the living watchdogs of a folder.
fn watchdogs(root: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap());
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut arguments = line.split('\0');
        arguments.any(|argument| argument == "podium-test-watchdog")
            && arguments.next().map(Path::new) == Some(root)
    })
    .collect()
}

fn await_end(scratch: &Scratch, postmaster: u32) {
    eventually("the data is gone", || !state(scratch).exists());
    assert!(!lives(postmaster));
    eventually("the watchdog is gone", || {
        watchdogs(scratch.path()).is_empty()
    });
}

#[test]
fn processes_that_come_at_the_same_time_share_one_server_until_the_last_has_gone() {
    let scratch = Scratch::new();
    let mut helpers: Vec<Helper> = (0..4).map(|_| Helper::shared(scratch.path())).collect();
    let urls: Vec<String> = helpers.iter_mut().map(Helper::url).collect();
    assert!(urls.iter().all(|url| *url == urls[0]), "{urls:?}");
    note(&urls[0], "shared");
    let postmaster = postmaster(&scratch);
    let last = helpers.pop().unwrap();
    helpers.into_iter().for_each(Helper::finish);
    assert_eq!(noted(&urls[3]), "shared");
    last.finish();
    await_end(&scratch, postmaster);
}

#[test]
fn the_server_outlives_the_process_that_started_it_and_ends_after_a_killed_run() {
    let scratch = Scratch::new();
    let mut first = Helper::shared(scratch.path());
    first.url();
    let mut second = Helper::shared(scratch.path());
    let url = second.url();
    let postmaster = postmaster(&scratch);
    first.kill();
    note(&url, "still here");
    second.kill();
    await_end(&scratch, postmaster);
}

#[test]
fn one_process_may_join_many_times() {
    let scratch = Scratch::new();
    let servers: Vec<SharedServer> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| join(&scratch))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let urls: Vec<String> = servers.iter().map(|server| server.url("podium")).collect();
    assert!(urls.iter().all(|url| *url == urls[0]), "{urls:?}");
    let postmaster = postmaster(&scratch);
    drop(servers);
    await_end(&scratch, postmaster);
}

#[test]
fn a_server_that_died_is_replaced_by_a_fresh_one() {
    let scratch = Scratch::new();
    let first = join(&scratch);
    note(&first.url("podium"), "lost");
    let marker = first.state_dir().join("template");
    fs::write(&marker, "made").unwrap();
    kill_nine(postmaster(&scratch));
    let second = join(&scratch);
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'notes'";
    assert_eq!(query(&second.url("podium"), tables).unwrap(), "0");
    assert!(!marker.exists());
    let postmaster = postmaster(&scratch);
    drop((first, second));
    await_end(&scratch, postmaster);
}

#[test]
fn a_killed_watchdog_is_replaced_by_the_next_to_join() {
    let scratch = Scratch::new();
    let first = join(&scratch);
    eventually("a watchdog runs", || watchdogs(scratch.path()).len() == 1);
    let watchdog = watchdogs(scratch.path())[0];
    // A signal from the terminal goes to the session of the tests.
    assert_eq!(group_and_session(watchdog), (watchdog, watchdog));
    kill_nine(watchdog);
    let second = join(&scratch);
    assert_eq!(first.url("podium"), second.url("podium"));
    let postmaster = postmaster(&scratch);
    drop((first, second));
    await_end(&scratch, postmaster);
}

/// Each round joins at the very moment in which the watchdog is done with the data, but not yet
/// with its locks.
#[test]
fn whoever_joins_while_the_watchdog_ends_the_server_gets_a_living_one() {
    let scratch = Scratch::new();
    let rounds = || {
        for _ in 0..3 {
            let server = SharedServer::join_at(scratch.path(), Duration::ZERO).unwrap();
            assert_eq!(query(&server.url("podium"), "SELECT 1").unwrap(), "1");
            drop(server);
            eventually("the data is gone", || !state(&scratch).exists());
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(rounds)).collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    eventually("the watchdog is gone", || {
        watchdogs(scratch.path()).is_empty()
    });
}

#[test]
fn the_template_lock_has_one_holder_at_a_time() {
    let scratch = Scratch::new();
    let server = join(&scratch);
    let guard = server.template_lock().unwrap();
    let other = File::open(scratch.path().join("template.lock")).unwrap();
    assert!(other.try_lock().is_err());
    drop(guard);
    other.try_lock().unwrap();
    other.unlock().unwrap();
    drop(server.template_lock().unwrap());
    let postmaster = postmaster(&scratch);
    drop(server);
    await_end(&scratch, postmaster);
}

/// The way test harnesses use it, with the real time span.
#[test]
fn the_folder_can_be_named_by_the_environment() {
    let scratch = Scratch::new();
    let mut command = helper::command("shared-by-default", scratch.path());
    command.env("PODIUM_TEST_PG_DIR", scratch.path());
    let mut user = Helper::spawn(command);
    assert_eq!(query(&user.url(), "SHOW fsync").unwrap(), "off");
    let postmaster = postmaster(&scratch);
    user.finish();
    await_end(&scratch, postmaster);
}
