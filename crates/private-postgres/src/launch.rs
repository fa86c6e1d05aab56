//! Starting a postmaster, waiting until it serves, and ending whatever uses a cluster.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use crate::cluster::Site;
use crate::error::{Context, Error};
use crate::folder::open_private;
use crate::lock::try_lock;
use crate::processes::{self, Role, Signal};
use crate::random;

/// A server that writes nothing to its log for this long while it starts is given up. Recovery
/// after a crash may take longer as a whole, and reports its progress every ten seconds.
const START_STALL: Duration = Duration::from_secs(60);

/// How many ports are tried: between our look and the server's, somebody else may take one.
const PORT_ATTEMPTS: u32 = 5;

/// Signals for ending a server that is not our child, and how long each is waited for.
const ENDING: [(Signal, Duration); 3] = [
    (Signal::Fast, Duration::from_secs(60)),
    (Signal::Immediate, Duration::from_secs(10)),
    (Signal::Kill, Duration::from_secs(10)),
];

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Settings which the caller may override.
const DEFAULTS: [&str; 11] = [
    "shared_buffers=128MB",
    "max_connections=100",
    "min_wal_size=80MB",
    "max_wal_size=1GB",
    // Short statements lose more by compiling than they win.
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_min_messages=warning",
    "log_checkpoints=off",
    "log_line_prefix=%m [%p] %q%a ",
    "password_encryption=scram-sha-256",
];

/// A running postmaster that is our child, and its port.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

/// Why one attempt came to nothing.
enum Failure {
    PortTaken(Error),
    Other(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::PortTaken(error) | Failure::Other(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Site {
    /// Starts the server on the port used last if that is free, and else on another one.
    pub(crate) fn launch(&self, options: &[(String, String)]) -> Result<Running, Error> {
        let lock = self.clear()?;
        let last = self.folder.load_port().filter(|port| is_free(*port));
        let mut port = last.map_or_else(free_port, Ok)?;
        let mut attempts = 1;
        loop {
            match self.attempt(&lock, port, options) {
                Err(Failure::PortTaken(_)) if attempts < PORT_ATTEMPTS => port = free_port()?,
                result => return self.remember(result?),
            }
            attempts += 1;
        }
    }

    /// Starts the server on this port or not at all.
    pub(crate) fn launch_on(
        &self,
        port: u16,
        options: &[(String, String)],
    ) -> Result<Running, Error> {
        let lock = self.clear()?;
        self.remember(self.attempt(&lock, port, options)?)
    }

    fn remember(&self, mut running: Running) -> Result<Running, Error> {
        match self.folder.save_port(running.port, &self.run_as) {
            Ok(()) => Ok(running),
            Err(error) => {
                self.abandon(&mut running.child);
                Err(error)
            }
        }
    }

    fn attempt(
        &self,
        lock: &File,
        port: u16,
        options: &[(String, String)],
    ) -> Result<Running, Failure> {
        let (log, log_start) = self.folder.open_log(&self.run_as)?;
        let errors = log.try_clone().context("open", self.folder.log())?;
        // The server and all its backends hold the lock by this descriptor.
        let stdin = lock
            .try_clone()
            .context("open", self.folder.server_lock())?;
        let program = self.installation.program("postgres");
        let mut command = self.run_as.command(&program);
        command.args(arguments(
            &self.folder.cluster(),
            port,
            self.durability.options(),
            options,
        ));
        command
            .stdin(stdin)
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        let mut child = command.spawn().context("run", &program)?;
        match self.await_ready(&mut child, port, log_start) {
            Ok(()) => Ok(Running { child, port }),
            Err(reason) => {
                self.abandon(&mut child);
                Err(self.failure(reason, log_start))
            }
        }
    }

    fn await_ready(&self, child: &mut Child, port: u16, log_start: u64) -> Result<(), String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut log_length = log_start;
        let mut last_sign = Instant::now();
        while last_sign.elapsed() < START_STALL {
            if let Some(status) = exit_status(child) {
                return Err(format!("it ended with {status}"));
            }
            if self.says_ready(child.id())
                && TcpStream::connect_timeout(&address, START_STALL).is_ok()
            {
                return Ok(());
            }
            let length = fs::metadata(self.folder.log()).map_or(0, |log| log.len());
            if length != log_length {
                (log_length, last_sign) = (length, Instant::now());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Err(format!(
            "it made no progress for {} s",
            START_STALL.as_secs()
        ))
    }

    fn says_ready(&self, pid: u32) -> bool {
        self.folder
            .postmaster()
            .is_some_and(|state| state.pid == pid && state.ready)
    }

    fn failure(&self, reason: String, log_start: u64) -> Failure {
        let log = self.folder.log_since(log_start);
        let port_taken = log.contains("could not bind");
        let data_dir = self.folder.root().to_path_buf();
        let error = Error::DidNotStart {
            data_dir,
            reason,
            log,
        };
        if port_taken {
            Failure::PortTaken(error)
        } else {
            Failure::Other(error)
        }
    }

    /// Ends a child of which nothing good is expected any more.
    fn abandon(&self, child: &mut Child) {
        self.end_child(child, &[(Signal::Immediate, Duration::from_secs(10))]);
    }

    /// Sends the signals one after the other until the child has ended, the last resort being
    /// SIGKILL. Returns the signal that did it; `None`: it had ended before.
    pub(crate) fn end_child(
        &self,
        child: &mut Child,
        plan: &[(Signal, Duration)],
    ) -> Option<Signal> {
        if exit_status(child).is_some() {
            return None;
        }
        for (signal, patience) in plan {
            processes::send(*signal, child.id(), &self.installation, &self.run_as);
            if wait_until(*patience, || exit_status(child).is_some()) {
                return Some(*signal);
            }
        }
        // Both fail only for a child that has been waited for, which is then gone.
        let _ = child.kill();
        let _ = child.wait();
        Some(Signal::Kill)
    }

    /// Ends everything that uses the cluster without being our child, and returns the lock that
    /// says so. Such an orphan is left when a process that ran a server was killed.
    pub(crate) fn clear(&self) -> Result<File, Error> {
        let path = self.folder.server_lock();
        let lock = open_private(&path, &self.run_as)?;
        for (signal, patience) in ENDING {
            if self.is_unused(&lock)? {
                return self.remove_stale_state().map(|()| lock);
            }
            for pid in self.targets(signal) {
                tracing::info!(
                    pid,
                    ?signal,
                    "ending a PostgreSQL server left by another process"
                );
                processes::send(signal, pid, &self.installation, &self.run_as);
            }
            wait_until(patience, || self.nothing_left_for(signal, &lock));
        }
        if self.is_unused(&lock)? {
            return self.remove_stale_state().map(|()| lock);
        }
        Err(Error::DidNotStop {
            data_dir: self.folder.root().to_path_buf(),
        })
    }

    /// Takes the lock, if it is free. A server started by hand does not hold it, but can be seen.
    fn is_unused(&self, lock: &File) -> Result<bool, Error> {
        Ok(try_lock(lock, &self.folder.server_lock())? && self.users().is_empty())
    }

    /// Whether waiting longer for what this signal was sent to makes no sense. A backend that
    /// computes does not notice that its postmaster is gone, and no fast shutdown reaches it.
    fn nothing_left_for(&self, signal: Signal, lock: &File) -> bool {
        match signal {
            Signal::Fast => self.targets(signal).is_empty(),
            _ => self.is_unused(lock).unwrap_or(false),
        }
    }

    fn users(&self) -> Vec<(u32, Role)> {
        processes::of_cluster(&self.folder.cluster(), self.run_as.uid())
    }

    /// A fast shutdown is the postmaster's business; the harder signals go to all.
    fn targets(&self, signal: Signal) -> Vec<u32> {
        let users = self.users();
        let wanted = |role: Role| signal != Signal::Fast || role == Role::Postmaster;
        let mut pids: Vec<u32> = users
            .iter()
            .filter(|(_, role)| wanted(*role))
            .map(|(pid, _)| *pid)
            .collect();
        // Where processes can not be listed, the server's own word must do. It is not to be trusted
        // where they can: after a crash the id may be another program's.
        if !Path::new("/proc/self/cmdline").exists() {
            pids.extend(self.folder.postmaster().map(|state| state.pid));
        }
        pids
    }

    /// PostgreSQL refuses to start if the process id in a state file left by a crash belongs to
    /// any process of the same user by now. We know better: nobody holds the lock.
    fn remove_stale_state(&self) -> Result<(), Error> {
        let path = self.folder.postmaster_file();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("remove", path)
            }
            _ => Ok(()),
        }
    }
}

/// The command line of the server. The last of several values wins: the caller's over our
/// defaults, and what the privacy of the server rests on over all.
fn arguments(
    cluster: &Path,
    port: u16,
    durability: &[&str],
    options: &[(String, String)],
) -> Vec<OsString> {
    let fixed = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        format!("cluster_name={}", processes::server_name(cluster)),
        // Without a socket file there is nothing to go stale and no length limit on the path.
        "unix_socket_directories=".to_owned(),
        // The log goes where we read it when a start fails.
        "logging_collector=off".to_owned(),
        "log_destination=stderr".to_owned(),
    ];
    let chosen = options
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let presets = DEFAULTS
        .iter()
        .chain(durability)
        .map(|option| (*option).to_owned());
    let mut arguments: Vec<OsString> = vec!["-D".into(), cluster.into()];
    for setting in presets.chain(chosen).chain(fixed) {
        arguments.extend(["-c".into(), setting.into()]);
    }
    arguments
}

/// `None`: it runs. A child that can not be asked was waited for already.
pub(crate) fn exit_status(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}

/// Asks again and again; false: the time was up.
fn wait_until(patience: Duration, mut reached: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if reached() {
            return true;
        }
        if begin.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A free port below those that the system gives to outgoing connections. Among those, a client
/// that keeps trying to reach a server which is down would some day connect to itself, and the
/// server could not come back.
fn free_port() -> Result<u16, Error> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    for _ in 0..100 {
        let port = port_below_ephemeral(&range, u16::from_le_bytes(random::bytes()?));
        if port.is_some_and(is_free) {
            return Ok(port.unwrap_or_default());
        }
    }
    let any =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(any.context("find a free port on", "127.0.0.1")?.port())
}

/// Maps `draw` to a port from 10000 up to the first ephemeral one, which begins `range`. `None`:
/// the system leaves no room there.
fn port_below_ephemeral(range: &str, draw: u16) -> Option<u16> {
    const FIRST: u16 = 10_000;
    let begin = range
        .split_whitespace()
        .next()
        .and_then(|begin| begin.parse().ok());
    let room = begin
        .unwrap_or(32_768_u16)
        .checked_sub(FIRST)
        .filter(|room| *room >= 1_000)?;
    Some(FIRST + draw % room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(arguments: &[OsString], name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        let mut values = arguments
            .iter()
            .filter_map(|argument| argument.to_str()?.strip_prefix(&prefix));
        values.next_back().map(str::to_owned)
    }

    #[test]
    fn the_caller_overrides_defaults_but_not_the_privacy() {
        let options = [
            ("max_connections", "7"),
            ("listen_addresses", "*"),
            ("port", "1"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let arguments = arguments(Path::new("/c"), 5555, &["fsync=off"], &options);
        for (name, expected) in [
            ("max_connections", "7"),
            ("shared_buffers", "128MB"),
            ("fsync", "off"),
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("port", "5555"),
        ] {
            assert_eq!(
                value_of(&arguments, name).as_deref(),
                Some(expected),
                "{name}"
            );
        }
        assert_eq!(arguments[..2], ["-D", "/c"]);
    }

    #[test]
    fn ports_lie_between_ten_thousand_and_the_ephemeral_ones() {
        for draw in [0, 1, 22_767, 22_768, u16::MAX] {
            let port = port_below_ephemeral("32768\t60999\n", draw).unwrap();
            assert!((10_000..32_768).contains(&port), "{port}");
        }
        assert_eq!(port_below_ephemeral("", 22_768), Some(10_000));
        assert_eq!(port_below_ephemeral("1024 65535", 5), None);
        assert_eq!(port_below_ephemeral("10999 65535", 5), None);
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
        assert!(is_free(free_port().unwrap()));
    }

    #[test]
    fn waiting_ends_with_the_condition_or_with_the_time() {
        let mut calls = 0;
        assert!(wait_until(Duration::from_secs(3600), || {
            calls += 1;
            calls == 3
        }));
        assert_eq!(calls, 3);
        assert!(!wait_until(Duration::ZERO, || false));
    }
}
