//! The private server.

use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use podium_private_postgres::{
    Error, MIN_MAJOR_VERSION, PrivatePostgres, Settings, prepare_data_dir, running_url,
};

use crate::common::{
    Scratch, eventually, group_and_session, is_root, kill_nine, lives, mode, note, noted,
    postmaster_of, query, show,
};
use crate::helper::{self, Helper};

/// A command under the user who owns the server's files.
fn as_owner(data: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let owner = fs::metadata(data.join("postgres")).unwrap();
    let mut command = Command::new(program);
    if is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
}

/// What a command under that user prints. Root in a container may have no right to look at what
/// belongs to the processes of other users.
fn printed_as_owner(data: &Path, script: &str, pid: u32) -> String {
    let mut command = as_owner(data, "sh");
    command
        .args(["-c", script, "sh", &pid.to_string()])
        .current_dir("/");
    let output = command.output().unwrap();
    assert!(!output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

#[test]
fn data_and_port_survive_stop_and_start() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let (url, pid) = (server.url("podium"), server.postmaster_pid());
    note(&url, "kept");
    server.stop().unwrap();
    assert!(!lives(pid));

    let server = scratch.start();
    assert_eq!(server.url("podium"), url);
    assert_eq!(noted(&url), "kept");
}

#[test]
fn dropping_stops_the_server_and_frees_the_folder() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let pid = server.postmaster_pid();
    drop(server);
    assert!(!lives(pid));
    assert!(!scratch.data().join("postgres/postmaster.pid").exists());
    scratch.start().stop().unwrap();
}

#[test]
fn the_default_is_a_durable_server_on_the_loopback_in_utf8() {
    let scratch = Scratch::new();
    let server = PrivatePostgres::start(&Settings::new(scratch.data())).unwrap();
    for (name, expected) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("timezone", "UTC"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
        ("shared_buffers", "128MB"),
        ("max_connections", "100"),
    ] {
        assert_eq!(show(&server, name), expected, "{name}");
    }
    let version: u32 = show(&server, "server_version_num").parse().unwrap();
    assert!(version / 10_000 >= MIN_MAJOR_VERSION, "{version}");
}

#[test]
fn options_reach_the_server_but_can_not_open_it() {
    let scratch = Scratch::new();
    let option = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let options = [("max_connections", "17"), ("listen_addresses", "*")].map(option);
    let server = PrivatePostgres::start(&Settings {
        options: options.to_vec(),
        ..scratch.settings()
    })
    .unwrap();
    assert_eq!(show(&server, "max_connections"), "17");
    assert_eq!(show(&server, "listen_addresses"), "127.0.0.1");
    assert_eq!(show(&server, "fsync"), "off");
}

#[test]
fn nobody_gets_in_without_the_password() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let url = server.url("podium");
    let (start, rest) = url.split_once("podium:").unwrap();
    let (password, rest) = rest.split_once('@').unwrap();
    assert_eq!(password.len(), 32);
    for (attempt, complaint) in [
        (format!("{start}podium@{rest}"), "password missing"),
        (format!("{start}podium:x{password}@{rest}"), "E28P01"),
        (format!("{start}postgres:{password}@{rest}"), "E28P01"),
    ] {
        let error = query(&attempt, "SELECT 1").unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains(complaint), "{text}");
    }
    assert_eq!(query(&url, "SELECT 1").unwrap(), "1");
}

#[test]
fn files_are_closed_to_others() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let data = server.data_dir();
    assert_eq!(data, scratch.data());
    assert_eq!(mode(data), if is_root() { 0o711 } else { 0o700 });
    assert_eq!(mode(&data.join("postgres")), 0o700);
    for name in [
        "postgres.password",
        "postgres.port",
        "postgres.log",
        "owner.lock",
        "server.lock",
    ] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    let of_server = owner(Path::new(&format!("/proc/{}", server.postmaster_pid())));
    assert_ne!(of_server, 0);
    assert_eq!(owner(&data.join("postgres")), of_server);
    // The folder itself may hold other things, which are not the server's.
    assert_eq!(owner(data), owner(Path::new("/proc/self")));
}

#[test]
fn the_debug_form_keeps_the_password() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let password = fs::read_to_string(scratch.data().join("postgres.password")).unwrap();
    assert!(server.url("x").contains(password.trim()));
    assert!(!format!("{server:?}").contains(password.trim()));
}

#[test]
fn a_second_owner_is_refused_and_told_who_has_the_folder() {
    let scratch = Scratch::new();
    let mut first = Helper::server(&scratch.data());
    let url = first.url();
    let error = PrivatePostgres::start(&scratch.settings()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::AlreadyRunning { .. }), "{text}");
    assert!(
        text.contains(&scratch.data().display().to_string()),
        "{text}"
    );
    assert!(text.contains(&first.pid().to_string()), "{text}");

    assert_eq!(query(&url, "SELECT 1").unwrap(), "1");
    // Who only wants to use the server may, as long as it runs.
    let joined = running_url(&scratch.data(), "podium").unwrap();
    assert_eq!(query(&joined, "SELECT 1").unwrap(), "1");
    first.finish();
    assert_eq!(running_url(&scratch.data(), "podium"), None);
    scratch.start().stop().unwrap();
}

#[test]
fn restart_immediate_is_a_crash_that_keeps_commits_and_port() {
    let scratch = Scratch::new();
    let mut server = scratch.start();
    let (url, pid) = (server.url("podium"), server.postmaster_pid());
    note(&url, "committed");
    server.restart_immediate().unwrap();
    assert_ne!(server.postmaster_pid(), pid);
    assert_eq!(server.url("podium"), url);
    assert_eq!(noted(&url), "committed");
    let log = fs::read_to_string(scratch.data().join("postgres.log")).unwrap();
    assert!(log.contains("was not properly shut down"), "{log}");
}

#[test]
fn a_killed_postmaster_is_started_again_on_the_same_port() {
    let scratch = Scratch::new();
    let mut server = scratch.start();
    let url = server.url("podium");
    note(&url, "committed");
    assert!(!server.ensure_running().unwrap());
    kill_nine(server.postmaster_pid());
    assert!(server.ensure_running().unwrap());
    assert!(!server.ensure_running().unwrap());
    assert_eq!(server.url("podium"), url);
    assert_eq!(noted(&url), "committed");
}

#[test]
fn a_killed_postmaster_does_not_stand_in_the_way_of_the_next_owner() {
    let scratch = Scratch::new();
    let server = scratch.start();
    note(&server.url("podium"), "committed");
    kill_nine(server.postmaster_pid());
    server.stop().unwrap();
    assert_eq!(noted(&scratch.start().url("podium")), "committed");
}

/// A backend that computes does not notice that its postmaster is gone, and holds the memory that
/// a new one needs.
#[test]
fn a_backend_that_outlives_its_postmaster_is_ended() {
    let scratch = Scratch::new();
    let mut server = scratch.start();
    let url = server.url("podium");
    let busy = std::thread::spawn({
        let url = url.clone();
        move || {
            query(
                &url,
                "SELECT sum(x) FROM (SELECT generate_series(1, 1e15) AS x) AS s",
            )
        }
    });
    let find = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1e15%' \
                AND pid <> pg_backend_pid()";
    let mut backend = String::new();
    eventually("the backend computes", || {
        backend = query(&url, find).unwrap();
        !backend.is_empty()
    });
    let backend = backend.parse().unwrap();
    kill_nine(server.postmaster_pid());
    assert!(lives(backend));
    assert!(server.ensure_running().unwrap());
    assert!(!lives(backend));
    assert_eq!(query(&url, "SELECT 1").unwrap(), "1");
    assert!(busy.join().unwrap().is_err());
}

#[test]
fn an_orphan_is_stopped_and_its_data_kept() {
    let scratch = Scratch::new();
    let mut owner = Helper::server(&scratch.data());
    let url = owner.url();
    note(&url, "committed");
    let orphan = postmaster_of(&scratch.data());
    owner.kill();
    assert!(lives(orphan));
    assert_eq!(noted(&url), "committed");

    let server = scratch.start();
    assert!(!lives(orphan));
    assert_ne!(server.postmaster_pid(), orphan);
    assert_eq!(server.url("podium"), url);
    assert_eq!(noted(&url), "committed");
    let log = fs::read_to_string(scratch.data().join("postgres.log")).unwrap();
    assert!(!log.contains("was not properly shut down"), "{log}");
}

#[test]
fn owner_and_server_killed_together_leave_a_folder_that_starts() {
    let scratch = Scratch::new();
    let mut owner = Helper::server(&scratch.data());
    note(&owner.url(), "committed");
    let postmaster = postmaster_of(&scratch.data());
    owner.kill();
    kill_nine(postmaster);
    assert_eq!(noted(&scratch.start().url("podium")), "committed");
}

/// After a reboot, or in a new container, the process id in a stale state file is likely to be some
/// other program's, and PostgreSQL itself would then refuse to start.
#[test]
fn a_stale_process_id_that_is_in_use_again_harms_nobody() {
    let scratch = Scratch::new();
    scratch.start().stop().unwrap();
    let data = scratch.data();
    let mut bystander = as_owner(&data, "sleep").arg("1000").spawn().unwrap();
    let state = format!("{}\n{}\n", bystander.id(), data.join("postgres").display());
    fs::write(data.join("postgres/postmaster.pid"), state).unwrap();

    let server = scratch.start();
    assert_eq!(query(&server.url("podium"), "SELECT 1").unwrap(), "1");
    assert!(!ended(&mut bystander));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_server_started_by_hand_on_the_cluster_is_stopped_first() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let data = scratch.data();
    let pid = server.postmaster_pid();
    let program = printed_as_owner(&data, "readlink /proc/$1/exe", pid);
    let port = format!("port={}", server.port());
    server.stop().unwrap();

    let mut command = as_owner(&data, program.trim());
    command
        .arg("-D")
        .arg(data.join("postgres"))
        .current_dir("/");
    command.args(["-c", "unix_socket_directories=", "-c", &port]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let mut by_hand = command.spawn().unwrap();
    eventually("the other server is ready", || {
        fs::read_to_string(data.join("postgres/postmaster.pid"))
            .is_ok_and(|state| state.contains("ready"))
    });

    let server = scratch.start();
    assert!(by_hand.wait().unwrap().success());
    assert_eq!(query(&server.url("podium"), "SELECT 1").unwrap(), "1");
}

#[test]
fn a_first_start_that_is_killed_half_way_is_begun_anew() {
    let scratch = Scratch::new();
    let data = scratch.data();
    let unfinished = || -> Option<PathBuf> {
        let entries = fs::read_dir(&data).ok()?;
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.to_str().unwrap().contains("postgres.new-"))
    };
    let owner = Helper::server(&data);
    eventually("a cluster is being made", || unfinished().is_some());
    owner.kill();
    assert!(!data.join("postgres").exists());

    let server = scratch.start();
    assert_eq!(query(&server.url("podium"), "SELECT 1").unwrap(), "1");
}

#[test]
fn a_port_that_is_taken_meanwhile_is_replaced_for_good() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let first = server.port();
    server.stop().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
    let server = scratch.start();
    let second = server.port();
    assert_ne!(second, first);
    assert_eq!(query(&server.url("podium"), "SELECT 1").unwrap(), "1");
    server.stop().unwrap();
    drop(taken);
    assert_eq!(scratch.start().port(), second);
}

#[test]
fn a_lost_password_is_replaced() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let old = server.url("podium");
    note(&old, "kept");
    server.stop().unwrap();
    fs::remove_file(scratch.data().join("postgres.password")).unwrap();
    let server = scratch.start();
    assert_ne!(server.url("podium"), old);
    assert_eq!(noted(&server.url("podium")), "kept");
    assert!(query(&old, "SELECT 1").is_err());
}

#[test]
fn a_failed_start_shows_the_log_and_frees_the_folder() {
    let scratch = Scratch::new();
    let nonsense = ("work_mem".to_owned(), "nonsense".to_owned());
    let error = PrivatePostgres::start(&Settings {
        options: vec![nonsense],
        ..scratch.settings()
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::DidNotStart { .. }), "{text}");
    assert!(
        text.contains("invalid value for parameter \"work_mem\""),
        "{text}"
    );
    scratch.start().stop().unwrap();
}

#[test]
fn a_cluster_of_a_version_that_is_not_installed_is_left_alone() {
    let scratch = Scratch::new();
    scratch.start().stop().unwrap();
    let version = scratch.data().join("postgres/PG_VERSION");
    let before = fs::read_to_string(&version).unwrap();
    fs::write(&version, "99\n").unwrap();
    let error = PrivatePostgres::start(&scratch.settings()).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::OtherMajorVersion { cluster: 99, .. }),
        "{text}"
    );
    fs::write(&version, before).unwrap();
    scratch.start().stop().unwrap();
}

#[test]
fn the_server_has_a_process_group_of_its_own() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let pid = server.postmaster_pid();
    assert_eq!(group_and_session(pid).0, pid);
    assert_ne!(group_and_session(std::process::id()).0, pid);
}

#[test]
fn the_environment_of_the_owner_stays_with_the_owner() {
    let scratch = Scratch::new();
    let mut command = helper::command("server", &scratch.data());
    command.env("JWT_SECRET", "podium-test-secret");
    command
        .env("PGOPTIONS", "-c work_mem=nonsense")
        .env("PGPORT", "nonsense");
    let mut owner = Helper::spawn(command);
    owner.url();
    let postmaster = postmaster_of(&scratch.data());
    let script = "cat /proc/$1/environ";
    let environment = printed_as_owner(&scratch.data(), script, postmaster);
    assert!(environment.contains("LC_ALL=C"));
    assert!(!environment.contains("podium-test-secret"));
    assert!(!environment.contains("nonsense"));
    owner.finish();
}

#[test]
fn no_lock_of_the_owner_is_handed_on_to_the_server() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let script = "readlink /proc/$1/fd/*";
    let open = printed_as_owner(&scratch.data(), script, server.postmaster_pid());
    let is_open = |name: &str| {
        let path = scratch.data().join(name);
        open.lines().any(|line| Path::new(line) == path)
    };
    assert!(is_open("server.lock"), "{open}");
    assert!(!is_open("owner.lock"), "{open}");
}

#[test]
fn the_owner_lock_is_free_as_soon_as_its_holder_is_dead() {
    let scratch = Scratch::new();
    let mut owner = Helper::server(&scratch.data());
    owner.url();
    let lock = File::open(scratch.data().join("owner.lock")).unwrap();
    assert!(lock.try_lock().is_err());
    owner.kill();
    lock.try_lock().unwrap();
    lock.unlock().unwrap();
    scratch.start().stop().unwrap();
}

/// As root this runs the owner under `nobody`, who has no rights that root's test would hide.
#[test]
fn a_normal_user_runs_the_server_under_their_own_name() {
    let scratch = Scratch::new();
    let home = scratch.path().join("home");
    fs::create_dir(&home).unwrap();
    // The original may lie where only we can get to.
    let program = scratch.path().join("helper");
    let copied = Command::new("cp")
        .arg(std::env::current_exe().unwrap())
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    if is_root() {
        let (uid, gid) = nobody();
        chown(&home, Some(uid), Some(gid)).unwrap();
    }
    let user = fs::metadata(&home).unwrap();
    let expected = user.uid();
    let data = home.join("data");
    let as_user = || {
        let mut command = helper::command_by(&program, "server", &data);
        if is_root() {
            command.uid(user.uid()).gid(user.gid()).current_dir("/");
        }
        Helper::spawn(command)
    };

    let mut owner = as_user();
    note(&owner.url(), "kept");
    let postmaster = format!("/proc/{}", postmaster_of(&data));
    assert_eq!(fs::metadata(postmaster).unwrap().uid(), expected);
    assert_eq!(mode(&data), 0o700);
    owner.finish();

    // Root keeps to the owner of the cluster, so that the user can go on later.
    let server = PrivatePostgres::start(&Settings::new(&data)).unwrap();
    assert_eq!(noted(&server.url("podium")), "kept");
    let postmaster = format!("/proc/{}", server.postmaster_pid());
    assert_eq!(fs::metadata(postmaster).unwrap().uid(), expected);
    server.stop().unwrap();
    let mut owner = as_user();
    assert_eq!(noted(&owner.url()), "kept");
    owner.finish();
}

#[test]
fn a_folder_that_the_server_can_not_enter_is_named() {
    let scratch = Scratch::new();
    let closed = scratch.path().join("closed");
    let data = closed.join("data");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let prepared = prepare_data_dir(&data);
    if !is_root() {
        assert_eq!(prepared.unwrap(), data);
        return;
    }
    let text = prepared.unwrap_err().to_string();
    assert!(
        text.contains(&format!("can not enter {}", closed.display())),
        "{text}"
    );
    fs::set_permissions(&closed, Permissions::from_mode(0o711)).unwrap();
    assert_eq!(prepare_data_dir(&data).unwrap(), data);
    assert_eq!(mode(&data), 0o711);
}

fn nobody() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd
        .lines()
        .find(|line| line.starts_with("nobody:"))
        .unwrap();
    let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
    (ids.next().unwrap(), ids.next().unwrap())
}
